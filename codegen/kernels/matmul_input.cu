/* matmul_input.cu - f32 rows -> x records, or x atoms (matmul_rows.cu), for the prefill matmuls.
 *
 * Contract
 *   IN_NAME, IN_K        the kernel's name, columns
 *   IN_TILES             tiles of 8 rows in a column of records: most rows / 8, rounded up
 *   IN_ATOMS             0: x records, 1: x atoms
 *   IN_EACH              rows of x for a live row: 1; for experts that have rows of their own, as many as those
 *   IN_COPIES            0: row i of x becomes row i of the records; else, for experts, it becomes rows
 *                        places[IN_COPIES * i] and the IN_COPIES - 1 behind it
 *   parameters           const float *x; u8 *records; const int *rows; with IN_COPIES then const int *places
 *   x                    f32 [..][IN_K], at a multiple of 16 bytes if IN_K is one of 4
 *   records              [ceil(IN_K / 256)][IN_TILES], or [ceil(IN_K / 64)][IN_TILES] atoms and scales. Only rows
 *                        that a live row becomes are written
 *   rows                 how many rows are live, in device memory
 *   launch               block 1024, no dynamic shared memory, any grid of one dimension: a block makes one eight of
 *                        rows after another. Best: min(multiprocessors, rows / 8)
 *
 * Four warps share a row and read it twice, the second time from a cache.
 *
 * Bytes: 4 read and 2 written for an element and copy: 4096 rows of 8192 at 3 TB/s take 70 us, 13 % of the matmul behind
 * it; 4096 rows of 2816, eight times each, 77 us.
 */
#include "matmul_operand.cu"
#include "prelude.cu"

#ifndef IN_NAME
#define IN_NAME  matmul_input
#define IN_K     5376
#define IN_TILES 512
#endif
#ifndef IN_ATOMS
#define IN_ATOMS 0
#endif
#ifndef IN_EACH
#define IN_EACH 1
#endif
#ifndef IN_COPIES
#define IN_COPIES 0
#endif

#define IN_SHARE 4 /* warps of a row */

#if IN_COPIES
#define IN_LIST , const int *places
#else
#define IN_LIST
#endif

/* The largest magnitude of the warp's share of a row. */
DEVICE float share_largest(const float *row, int share) {
    float largest = 0.0f;
#pragma unroll 4
    for (int number = share; number < X_PIECES(IN_K); number += IN_SHARE) {
        float v[8];
        x_columns<IN_K>(v, row, 256 * number + 8 * (int)(threadIdx.x & 31));
        largest = x_largest(v, largest);
    }
    return warp_max(largest);
}

KERNEL __launch_bounds__(1024, 1) IN_NAME(const float *x, u8 *records, const int *rows IN_LIST) {
    SHARED float largest[8][IN_SHARE];
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, in_tile = warp & 7, share = warp >> 3;
    next_kernel_release();
    previous_kernels_wait();
    const int live = *rows * IN_EACH;
    for (int first = 8 * (int)blockIdx.x; first < live; first += 8 * (int)gridDim.x) {
        const int at = first + in_tile;
        const float *row = x + (u64)at * IN_K;
        if (at < live) {
            const float mine = share_largest(row, share);
            if (lane == 0)
                largest[in_tile][share] = mine;
        }
        block_sync();
        if (at < live) {
            const float *all = largest[in_tile];
            const float scale = x_scale(fmaxf(fmaxf(all[0], all[1]), fmaxf(all[2], all[3])));
#pragma unroll 2
            for (int number = share; number < X_PIECES(IN_K); number += IN_SHARE) {
                float v[8];
                x_columns<IN_K>(v, row, 256 * number + 8 * lane);
                const XPiece piece = x_piece<IN_ATOMS>(v, scale);
#if IN_COPIES
#pragma unroll
                for (int i = 0; i < IN_COPIES; i++)
                    x_store<IN_ATOMS, IN_K, IN_TILES>(records, places[IN_COPIES * at + i], number, piece, scale);
#else
                x_store<IN_ATOMS, IN_K, IN_TILES>(records, at, number, piece, scale);
#endif
            }
        }
        block_sync();
    }
}
