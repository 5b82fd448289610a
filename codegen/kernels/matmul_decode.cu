/* matmul_decode.cu - out = rows x weights^T for 1..16 rows: reads every weight once, as fast as memory gives it.
 *
 * Several matrices with one input and K ("segments", e.g. q, k, v) are one launch, of different storage types if
 * need be: the kernel holds the code of each type once and switches by strip of 16 rows.
 *
 * Contract: that of matmul_strips.cu, and
 *   MM_NAME              the kernel's name
 *   MM_NT                1: up to 8 rows, 2: up to 16
 *   parameters           const u8 *w0, w1, ..: tiles of each segment (ir/quants.def, repack.cu); const float *x: f32
 *                        [live][MM_K], at a multiple of 16 bytes, or records; float *planes; const int *rows: how
 *                        many rows are live, in device memory; int *tail: 2 ints (tail.cu), not looked at without
 *                        MM_TAIL; TAIL_PARAMETERS
 *   planes               f32 [slice][8 * MM_NT][N], N = all segments' rows one after another (rows are not padded).
 *                        The product is the sum of the planes in slice order, for the consumer to add where it reads:
 *                        rows that are not live are not written. With one slice (K up to MM_WARPS *
 *                        MM_WARP_K) the plane is the product.
 *   launch               block MM_THREADS; grid a multiple of the slices ceil(K / (MM_WARPS * MM_WARP_K)), with
 *                        MM_TAIL at most multiprocessors * MM_BLOCKS; dynamic shared memory MM_SHARED
 *
 * Block b works on slice b % slices. The ring is filled before the wait for
 * the previous kernel, since weights do not depend on it.
 */
#ifndef MM_NAME
#define MM_NAME        matmul_decode
#define MM_K           5376
#define MM_SEGMENTS(X) X(0, Q4_K, 8192) X(1, Q4_K, 4096) X(2, Q6_K, 4096)
#define MM_FORMS(X)    X(Q4_K) X(Q6_K)
#endif
#ifndef MM_WARPS
#define MM_WARPS 7
#endif
#ifndef MM_STAGES
#define MM_STAGES 5
#endif
#include "matmul_strips.cu"

struct Work : Share {
    Weights weights;
    const float *x;
    int live;

    DEVICE Work(const Weights &weights, const float *x, int live)
        : Share(1, mixed), weights(weights), x(x), live(live) {}
    DEVICE Chunk chunk(int i) const {
        return weights.chunk(0, strip(i), slice);
    }
    DEVICE int unit(int) const {
        return 0;
    }
    DEVICE int tiles(int) const {
        return MM_NT;
    }
    DEVICE int row(int, int token) const {
        return token < live ? token : -1;
    }
    DEVICE int x_row(int row) const {
        return row;
    }
    DEVICE bool same_rows(int, int) const {
        return true;
    }
};

KERNEL __launch_bounds__(MM_THREADS, MM_BLOCKS)
    MM_NAME(MM_SEGMENTS(MM_PARAMETER) const float *x, float *planes, const int *rows, int *tail TAIL_PARAMETERS) {
    SHARED Barriers bar;
    const Work work({{MM_SEGMENTS(MM_LIST)}}, x, *rows);
    const int warp = threadIdx.x >> 5;
    const bool assistant = warp == MM_WARPS * MM_GROUPS;

    launch_begins();
    if (threadIdx.x == 0)
        bar.init();
    block_sync();
    Filled filled = {0, 0};
    if (assistant)
        fill_early(bar, work, filled);
#if MM_TAIL
    if (blockIdx.x == 0)
        tail_ahead(threadIdx.x TAIL_ARGUMENTS);
#endif
    launch_reads(rows);
    bar.after_reads();
    if (assistant) {
        if (MM_X_SHARED)
            block_sync();
        assist(bar, work, filled, planes, 8 * MM_NT);
    } else {
        consume(bar, work, warp);
    }
    finish(tail, work.live TAIL_ARGUMENTS);
}
