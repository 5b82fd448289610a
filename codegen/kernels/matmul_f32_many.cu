/* matmul_f32_many.cu - matmul_f32.cu's product for many rows of x: f32 weights, f32 sums, no tensor cores.
 *
 * Contract
 *   F32_NAME, F32_K, F32_SEGMENTS(X)   as in matmul_f32.cu
 *   parameters                         const float *w0, w1, ..; const float *x [live][F32_K]; float *out; const int
 *                                      *rows: how many rows are live, in device memory
 *   out                                f32 [live][N], N = all segments' rows one after another
 *   launch                             block F32_THREADS = 256, grid (ceil(N / 128), ceil(live / 32)), no dynamic
 * shared memory
 *
 * A block has 32 rows of x and 128 of the weights, a thread four by four of the results, each the sum over the columns
 * in order: it depends on its rows only. Tiles of 32 columns go through shared memory, turned round, so that a thread
 * has its numbers of a column by two loads; the next tile is on its way meanwhile.
 *
 * 4096 rows by 128 experts of 2816 columns: 128 blocks. A column costs a multiprocessor 32 clocks of products and 40 of
 * shared memory: 65 us predicted.
 */
#include "prelude.cu"

#ifndef F32_NAME
#define F32_NAME        matmul_f32
#define F32_K           2816
#define F32_SEGMENTS(X) X(0, 128)
#endif

#define F32_THREADS 256
#define F32_ROWS    32  /* of x */
#define F32_COLUMNS 128 /* of the result: rows of the weights */
#define F32_STEP    32  /* columns of a tile */

#define F32_ADD_ROWS(i, n)  +(n)
#define F32_PARAMETER(i, n) const float *w##i,
constexpr int all_rows = 0 F32_SEGMENTS(F32_ADD_ROWS);

/* A tile: [column][row], rows of 16 bytes more than there are, so that they lie in other banks. */
struct Tile {
    float x[F32_STEP][F32_ROWS + 4], w[F32_STEP][F32_COLUMNS + 4];
};

/* A thread's part of a tile on its way: four columns of a row of x, eight of two rows of the weights. */
struct Part {
    float4 x, w[2][2];
};

/* Four columns of a row, zeros beyond F32_K or where there is no row. */
DEVICE float4 columns(const float *row, int k) {
    if (!row || k >= F32_K)
        return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (F32_K % 4 == 0)
        return *(const float4 *)(row + k);
    return make_float4(row[k], k + 1 < F32_K ? row[k + 1] : 0.0f, k + 2 < F32_K ? row[k + 2] : 0.0f,
                       k + 3 < F32_K ? row[k + 3] : 0.0f);
}

/* Where a thread's part comes from: lanes have rows, so that their stores lie side by side. */
struct Source {
    const float *x, *w[2];
    int x_column, w_column;

    DEVICE Part fetch(int k) const {
        Part p;
        p.x = columns(x, k + x_column);
#pragma unroll
        for (int i = 0; i < 4; i++)
            p.w[i / 2][i % 2] = columns(w[i / 2], k + w_column + i % 2 * 4);
        return p;
    }
};

DEVICE void put(float *column, int stride, float4 v) {
    column[0] = v.x;
    column[stride] = v.y;
    column[2 * stride] = v.z;
    column[3 * stride] = v.w;
}

DEVICE void put(Tile &tile, const Source &from, const Part &p) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    put(&tile.x[from.x_column][lane], F32_ROWS + 4, p.x);
#pragma unroll
    for (int i = 0; i < 4; i++)
        put(&tile.w[from.w_column + i % 2 * 4][warp / 4 * 64 + i / 2 * 32 + lane], F32_COLUMNS + 4, p.w[i / 2][i % 2]);
}

DEVICE void add_products(float (&sum)[4], float x, float4 w) {
    sum[0] = multiply_add(x, w.x, sum[0]);
    sum[1] = multiply_add(x, w.y, sum[1]);
    sum[2] = multiply_add(x, w.z, sum[2]);
    sum[3] = multiply_add(x, w.w, sum[3]);
}

/* Rows 4 warp .. + 3 of x by rows 4 lane .. + 3 of the weights. */
DEVICE void multiply(const Tile &tile, float (&sum)[4][4]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll 8
    for (int k = 0; k < F32_STEP; k++) {
        const float4 x = *(const float4 *)&tile.x[k][4 * warp], w = *(const float4 *)&tile.w[k][4 * lane];
        add_products(sum[0], x.x, w);
        add_products(sum[1], x.y, w);
        add_products(sum[2], x.z, w);
        add_products(sum[3], x.w, w);
    }
}

KERNEL __launch_bounds__(F32_THREADS)
    F32_NAME(F32_SEGMENTS(F32_PARAMETER) const float *x, float *out, const int *rows) {
    SHARED Tile tiles[2];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int first = blockIdx.y * F32_ROWS, n = blockIdx.x * F32_COLUMNS;
    next_kernel_release();
    Source from = {nullptr, {nullptr, nullptr}, 4 * warp, warp % 4 * 8};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = n + warp / 4 * 64 + i * 32 + lane;
#define F32_FIND(j, count)                                                                                             \
    if (!from.w[i] && row >= 0 && row < (count))                                                                       \
        from.w[i] = w##j + (u64)row * F32_K;                                                                           \
    row -= (count);
        F32_SEGMENTS(F32_FIND)
    }
    previous_kernels_wait();
    const int live = *rows;
    if (first >= live)
        return;
    from.x = first + lane < live ? x + (u64)(first + lane) * F32_K : nullptr;
    float sum[4][4] = {};
    put(tiles[0], from, from.fetch(0));
    block_sync();
#pragma unroll 1
    for (int k = 0, at = 0; k < F32_K; k += F32_STEP, at ^= 1) {
        const Part next = from.fetch(k + F32_STEP);
        multiply(tiles[at], sum);
        put(tiles[at ^ 1], from, next);
        block_sync();
    }
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (first + 4 * warp + r < live && n + 4 * lane + i < all_rows)
                out[(u64)(first + 4 * warp + r) * all_rows + n + 4 * lane + i] = sum[r][i];
}
