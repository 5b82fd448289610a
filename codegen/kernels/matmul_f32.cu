/* matmul_f32.cu - out = x W^T with f32 weights, in f32 without tensor cores: routers, whose choices should not hang on
 * the rounding of f16. For few rows; matmul_f32_many.cu has many.
 *
 * Contract
 *   F32_NAME             the kernel's name
 *   F32_K                columns of every matrix
 *   F32_SEGMENTS(X)      X(index, rows) in order, index 0, 1, ..
 *   MM_TAIL              1: tail.body runs behind the matmul (tail.cu), with TAIL_THREADS = F32_THREADS and
 *                        TAIL_SHARED = F32_SHARED bytes of dynamic shared memory; 0: nothing does
 *   parameters           const float *w0, w1, ..; const float *x [live][F32_K]; float *out; const int *rows: how many
 *                        rows are live, in device memory; int *tail: 2 ints (tail.cu), not looked at without MM_TAIL;
 *                        TAIL_PARAMETERS
 *   out                  f32 [live][N], N = all segments' rows one after another
 *   launch               block F32_THREADS; grid ceil(N / 4), at most 16 live rows; with MM_TAIL all blocks resident
 *                        together
 *
 * A warp has one row of the weights and all rows of x; lane l adds columns 4l + 128i in order of i, then the lanes are
 * added. So a result depends on its row of x and of the weights only. Decode, 128 experts of 2816 columns: 1.4 MB of
 * weights over 32 blocks, 11 KB a warp: bound by the way to memory, some 3 us.
 */
#include "prelude.cu"
#include "launch_order.cu"

#ifndef F32_NAME
#define F32_NAME        matmul_f32
#define F32_K           2816
#define F32_SEGMENTS(X) X(0, 128)
#endif
#ifndef F32_SHARED
#define F32_SHARED 1024
#endif
#ifndef MM_TAIL
#define MM_TAIL 0
#endif

#define F32_WARPS   4
#define F32_THREADS (32 * F32_WARPS)
#define F32_ROWS    16 /* of x, of a block */

#define F32_ADD_ROWS(i, n)  +(n)
#define F32_PARAMETER(i, n) const float *w##i,
constexpr int all_rows = 0 F32_SEGMENTS(F32_ADD_ROWS);

#if MM_TAIL
#include "tail.cu"
#define TAIL_THREADS F32_THREADS
#define TAIL_SHARED  F32_SHARED
DYNAMIC_SHARED u8 shared_bytes[];
#include "tail.body"
#else
#define TAIL_PARAMETERS
#define TAIL_ARGUMENTS
#endif

/* Four columns of a row, zeros beyond F32_K. */
DEVICE float4 columns(const float *row, int k) {
    if (F32_K % 4 == 0)
        return k < F32_K ? *(const float4 *)(row + k) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return make_float4(k < F32_K ? row[k] : 0.0f, k + 1 < F32_K ? row[k + 1] : 0.0f, k + 2 < F32_K ? row[k + 2] : 0.0f,
                       k + 3 < F32_K ? row[k + 3] : 0.0f);
}

DEVICE float add_products(float sum, float4 a, float4 b) {
    return multiply_add(a.w, b.w, multiply_add(a.z, b.z, multiply_add(a.y, b.y, multiply_add(a.x, b.x, sum))));
}

/* Rounds of 128 columns whose weights are held in registers, if they are not too many; they are then there before x. */
constexpr int F32_ROUNDS = (F32_K + 127) / 128;
constexpr bool held = F32_ROUNDS <= 32;

struct Held {
    float4 w[held ? F32_ROUNDS : 1];

    DEVICE explicit Held(const float *row) {
#pragma unroll
        for (int i = 0; held && i < F32_ROUNDS; i++)
            w[i] = row ? columns(row, 4 * (threadIdx.x & 31) + 128 * i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
};

/* The warp's weight row, number n over all segments, x the rows of x, one after another. */
DEVICE void multiply_held(const Held &weights, bool inside, const float *x, float *out, int n, int rows) {
    const int lane = threadIdx.x & 31;
#pragma unroll 2
    for (int r = 0; r < rows; r++) {
        const float *row = x + (u64)r * F32_K;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < F32_ROUNDS; i++)
            sum = add_products(sum, weights.w[held ? i : 0], columns(row, 4 * lane + 128 * i));
        sum = warp_sum(sum);
        if (lane == 0 && inside)
            out[(u64)r * all_rows + n] = sum;
    }
}

/* The same with weights that are read as they are needed; null: a row beyond the last. */
DEVICE void multiply_rows(const float *weights, const float *x, float *out, int n, int rows) {
    const int lane = threadIdx.x & 31;
    float sum[F32_ROWS] = {};
#pragma unroll 2
    for (int k = 4 * lane; k < F32_K; k += 128) {
        const float4 w = weights ? columns(weights, k) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int r = 0; r < F32_ROWS; r++)
            if (r < rows)
                sum[r] = add_products(sum[r], w, columns(x + (u64)r * F32_K, k));
    }
#pragma unroll
    for (int r = 0; r < F32_ROWS; r++) {
        const float all = warp_sum(sum[r]);
        if (lane == 0 && r < rows && weights)
            out[(u64)r * all_rows + n] = all;
    }
}

KERNEL __launch_bounds__(F32_THREADS) F32_NAME(F32_SEGMENTS(F32_PARAMETER) const float *x, float *out, const int *rows,
                                               [[maybe_unused]] int *tail TAIL_PARAMETERS) {
    const int n = blockIdx.x * F32_WARPS + (threadIdx.x >> 5);
    const float *weights = nullptr;
    int row = n;
#define F32_FIND(j, count)                                                                                             \
    if (!weights && row >= 0 && row < (count))                                                                         \
        weights = w##j + (u64)row * F32_K;                                                                             \
    row -= (count);
    F32_SEGMENTS(F32_FIND)
    launch_begins();
    const int live = *rows;
    const Held ahead(weights);
#if MM_TAIL
    if (blockIdx.x == 0)
        tail_ahead(threadIdx.x TAIL_ARGUMENTS);
#endif
    launch_reads(rows);
    if (held)
        multiply_held(ahead, weights != nullptr, x, out, n, live);
    else
        multiply_rows(weights, x, out, n, live);
    launch_tail();
#if MM_TAIL
    run_tail(tail, TAIL_ITEMS(live), (int)(gridDim.x - 1 - blockIdx.x), /* the first have the larger shares */
             [&](int item, Others &others) { tail_item(item, live, shared_bytes, others TAIL_ARGUMENTS); });
#endif
    launch_ends();
}
