/* matmul_input.cu - f32 rows -> x records, or x atoms (matmul_rows.cu), for the prefill matmuls.
 *
 * Contract
 *   IN_NAME, IN_K        the kernel's name, columns
 *   IN_TILES             tiles of 8 rows in a column of records: most rows / 8, rounded up
 *   IN_ATOMS             0: x records, 1: x atoms
 *   IN_GATHER            0: row i of the records is row i of x; 1: row order[i] / IN_DIVIDE, none where order[i] is -1
 *   IN_DIVIDE            for experts: rows of x have this many entries in `order` (1: each has a row of its own)
 *   parameters           const float *x; u8 *records; const int *rows; with IN_GATHER then const int *order
 *   x                    f32 [..][IN_K], at a multiple of 16 bytes if IN_K is one of 4
 *   records              [ceil(IN_K / 256)][IN_TILES], or [ceil(IN_K / 64)][IN_TILES] atoms and scales. Rows that are not live, or have no source, are not written
 *   rows                 how many rows of records are live, in device memory
 *   launch               block 1024, no dynamic shared memory, any grid of one dimension: a block makes one tile of 8
 *                        rows after another. Best: min(multiprocessors, tiles)
 *
 * A row has the same scale in all of its records, the one for its largest element: then products of all of K add up in
 * one accumulator, and an element that is small beside the largest loses nothing that f32 sums would keep (f16 goes
 * down to 2^-34 of the largest). Four warps share a row and read it twice, the second time from a cache.
 *
 * Bytes: 4 read and 2 written for an element: 4096 rows of 21504 at 3 TB/s take 180 us, 7 % of the matmul behind it.
 */
#include "matmul_rows.cu"
#include "prelude.cu"

#ifndef IN_NAME
#define IN_NAME  matmul_input
#define IN_K     5376
#define IN_TILES 512
#endif
#ifndef IN_ATOMS
#define IN_ATOMS 0
#endif
#ifndef IN_GATHER
#define IN_GATHER 0
#endif
#ifndef IN_DIVIDE
#define IN_DIVIDE 1
#endif

#define IN_RECORDS ((IN_K + 255) / 256)
#define IN_SHARE   4 /* warps of a row */

#if IN_GATHER
#define IN_LIST , const int *order
#else
#define IN_LIST
#endif

/* Eight columns from k on; zeros beyond IN_K. */
DEVICE void read_columns(float (&v)[8], const float *row, int k) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        if (IN_K % 4 == 0) {
            const float4 w = k + i < IN_K ? *(const float4 *)(row + k + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            v[i] = w.x;
            v[i + 1] = w.y;
            v[i + 2] = w.z;
            v[i + 3] = w.w;
        } else {
#pragma unroll
            for (int j = i; j < i + 4; j++)
                v[j] = k + j < IN_K ? row[k + j] : 0.0f;
        }
    }
}

/* The largest magnitude of the warp's records of a row. */
DEVICE float row_largest(const float *row, int share) {
    float largest = 0.0f;
#pragma unroll 4
    for (int record = share; record < IN_RECORDS; record += IN_SHARE) {
        float v[8];
        read_columns(v, row, 256 * record + 8 * (int)(threadIdx.x & 31));
#pragma unroll
        for (int i = 0; i < 8; i++)
            largest = fmaxf(largest, fabsf(v[i]));
    }
    return warp_max(largest);
}

#if IN_ATOMS
/* v[p] of lane t becomes v[t] of lane p, in each four lanes. */
DEVICE void transpose_quad(u32 (&v)[4]) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool upper = threadIdx.x & bit;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & bit)
                continue;
            const u32 got = lane_swap(upper ? v[i] : v[i + bit], bit);
            v[i] = upper ? got : v[i];
            v[i + bit] = upper ? v[i + bit] : got;
        }
    }
}

/* 256 columns of a row. Lane 4b + t has columns 8t..8t+7 of block b, and after the transposition its pairs t. */
DEVICE void write_columns(u8 *atoms, int tile, int in_tile, const float *row, int number, float scale) {
    const int lane = threadIdx.x & 31, atom = 4 * number + lane / 8, chunk = lane & 7;
    float v[8], sum;
    read_columns(v, row, 256 * number + 8 * lane);
    const uint4 pairs = x_fragment(v, scale, sum);
    u32 words[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
    transpose_quad(words);
    if (atom < X_TILES(IN_K))
        *(uint4 *)(atoms + ((u64)atom * IN_TILES + tile) * X_ATOM + in_tile * 128 + (chunk ^ in_tile) * 16) =
            make_uint4(words[0], words[1], words[2], words[3]);
    if (number == 0 && lane == 0)
        ((float *)(atoms + (u64)X_TILES(IN_K) * IN_TILES * X_ATOM))[8 * tile + in_tile] = 1.0f / scale;
}
#else
/* Lane l has columns 8l..8l+7 of the record. */
DEVICE void write_columns(u8 *records, int tile, int in_tile, const float *row, int number, float scale) {
    u8 *const record = records + (u64)(number * IN_TILES + tile) * X_RECORD;
    const int lane = threadIdx.x & 31, block = lane >> 2, t = lane & 3;
    float v[8], sum;
    read_columns(v, row, 256 * number + 8 * lane);
    *(uint4 *)(record + block * 512 + in_tile * 64 + t * 16) = x_fragment(v, scale, sum);
    sum += lane_swap(sum, 1);
    sum += lane_swap(sum, 2);
    const float next = lane_swap(sum, 4);
    if (lane % 8 == 0)
        *(uint2 *)(record + X_SUMS + in_tile * 32 + block / 2 * 8) = x_sums(sum, next);
    if (lane == 0)
        ((float *)(record + X_SCALES))[in_tile] = 1.0f / scale;
}
#endif

KERNEL __launch_bounds__(1024, 1) IN_NAME(const float *x, u8 *records, const int *rows IN_LIST) {
    SHARED float largest[8][IN_SHARE];
    const int warp = threadIdx.x >> 5, in_tile = warp & 7, share = warp >> 3;
    next_kernel_release();
    previous_kernels_wait();
    const int live = *rows;
    for (int tile = blockIdx.x; 8 * tile < live; tile += gridDim.x) {
        const int to = 8 * tile + in_tile;
#if IN_GATHER
        const int source = to < live ? order[to] : -1;
#else
        const int source = to < live ? to : -1;
#endif
        const float *row = x + (u64)(source < 0 ? 0 : source / IN_DIVIDE) * IN_K;
        if (source >= 0) {
            const float mine = row_largest(row, share);
            if ((threadIdx.x & 31) == 0)
                largest[in_tile][share] = mine;
        }
        block_sync();
        if (source >= 0) {
            const float *all = largest[in_tile];
            const float scale = x_scale(fmaxf(fmaxf(all[0], all[1]), fmaxf(all[2], all[3])));
#pragma unroll 2
            for (int record = share; record < IN_RECORDS; record += IN_SHARE)
                write_columns(records, tile, in_tile, row, record, scale);
        }
        block_sync();
    }
}
