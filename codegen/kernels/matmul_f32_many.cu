/* matmul_f32_many.cu - matmul_f32.cu's product for many rows of x: f32 weights by tensor cores, to f32's precision.
 *
 * Contract
 *   F32_NAME, F32_K, F32_SEGMENTS(X)   as in matmul_f32.cu
 *   parameters                         const float *w0, w1, ..; const float *x [live][F32_K]; float *out; const int
 *                                      *rows: how many rows are live, in device memory
 *   out                                f32 [live][N], N = all segments' rows one after another
 *   launch                             block F32_THREADS = 256, grid (ceil(N / 64), ceil(live / 64)), dynamic shared
 *                                      memory F32_SHARED = 96 KiB
 *
 * A number is the sum of two of TF32's 11 bits, high = its upper bits rounded and low = the rest, of which one bit in
 * 24 may be lost: at most 2^-23 of it. Of a product high * high + high * low + low * high is taken; low * low is at
 * most 2^-22 of it, of either sign. Tensor cores do not round sums to nearest, so a sum of theirs has 32 columns, the
 * large and the small products apart, and those are added in f32: 88 numbers of 2816 columns. The error is that of an
 * f32 sum in order: 352 sums that lose 2^-23 of their largest term each are at most 2^-19 of all terms' energy (1.4e-6
 * with a tensor core that rounds, tests/kernels/router_gpu.c). A result depends on its rows only.
 *
 * A block has 64 rows of x and 64 of the weights, a warp 32 x 16 of the results. Tiles of 32 columns come by
 * asynchronous copies of 16 bytes, F32_STAGES - 1 tiles under way. Chunk c of row r of a tile stands at c ^ 4 (r & 1), so
 * that a quarter of a warp, two rows of four chunks, reads all banks. Lane t's four neighbours of 16 columns are columns
 * t and t + 4 of two products: the order of columns does not matter where both operands have the same.
 *
 * 4096 rows by 128 experts of 2816 columns: 128 blocks. 8 columns take a quarter of a multiprocessor 24 products of 5.9
 * clocks and 100 of its issue slots: 142 clocks, 352 times: 28 us. Each block reads 1.4 MB, 184 MB in all: 35 us at 5.3
 * TB/s of the L2 cache. 45 us predicted.
 */
#include "prelude.cu"

#ifndef F32_NAME
#define F32_NAME        matmul_f32
#define F32_K           2816
#define F32_SEGMENTS(X) X(0, 128)
#endif

#define F32_THREADS 256
#define F32_ROWS    64 /* of x */
#define F32_COLUMNS 64 /* of the result: rows of the weights */
#define F32_STEP    32 /* columns of a tile */
#define F32_STAGES  6
#define F32_SHARED  (F32_STAGES * (F32_ROWS + F32_COLUMNS) * F32_STEP * 4)

#define F32_ADD_ROWS(i, n)  +(n)
#define F32_PARAMETER(i, n) const float *w##i,
constexpr int all_rows = 0 F32_SEGMENTS(F32_ADD_ROWS), steps = (F32_K + F32_STEP - 1) / F32_STEP;

struct Tile {
    float x[F32_ROWS][F32_STEP], w[F32_COLUMNS][F32_STEP];
};
static_assert(sizeof(Tile) * F32_STAGES == F32_SHARED, "stages have their place");

DYNAMIC_SHARED u8 shared_bytes[];

/* Where chunk c, four columns, of row r of a tile stands. */
DEVICE constexpr int place(int r, int c) {
    return 4 * (c ^ (r & 1) << 2);
}

/* ==== Tiles ==== */

/* Four columns of a row from k on, zeros beyond F32_K or where there is no row. Copies may be under way behind it. */
DEVICE void bring(float *to, const float *row, const float *some, int k) {
    if (F32_K % 4 == 0) {
        const bool inside = row && k < F32_K;
        copy16_async(to, inside ? row + k : some, inside);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            to[i] = row && k + i < F32_K ? row[k + i] : 0.0f;
    }
}

/* What a thread brings of each tile: a chunk of two rows of x and of two of the weights, which are 32 apart. */
struct Source {
    const float *some, *x[2], *w[2]; /* some: an address that there is; null: no such row */

    DEVICE void bring_tile(Tile &tile, int step) const {
        const int row = threadIdx.x >> 3, chunk = threadIdx.x & 7, k = F32_STEP * step + 4 * chunk;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            bring(tile.x[row + 32 * i] + place(row, chunk), x[i], some, k);
            bring(tile.w[row + 32 * i] + place(row, chunk), w[i], some, k);
        }
    }
};

/* ==== Products ==== */

/* A number as a sum of two. Tensor cores do not look at the 13 lowest bits of what they are given. */
struct Parts {
    u32 high, low;
};

DEVICE Parts parts_of(float v) {
    const u32 high = (bits_from_float(v) + 0x1000u) & 0xffffe000u;
    return {high, bits_from_float(v - float_from_bits(high))};
}

/* Four neighbours of a row. */
struct Four {
    Parts of[4];

    DEVICE void load(const float *from) {
        const float4 v = *(const float4 *)from;
        of[0] = parts_of(v.x);
        of[1] = parts_of(v.y);
        of[2] = parts_of(v.z);
        of[3] = parts_of(v.w);
    }
};

/* Sums of 16 rows of x by 8 of the weights, as mma_tf32() has them. */
struct Sums {
    float large[4], small[4];
};

/* Columns `first` and first + 1 of the lanes' four: x of rows g and g + 8, w of row g. */
DEVICE void multiply(Sums &sums, const Four &x, const Four &x8, const Four &w, int first) {
    const Parts a0 = x.of[first], a1 = x8.of[first], a2 = x.of[first + 1], a3 = x8.of[first + 1];
    const Parts b0 = w.of[first], b1 = w.of[first + 1];
    mma_tf32(sums.large, a0.high, a1.high, a2.high, a3.high, b0.high, b1.high);
    mma_tf32(sums.small, a0.high, a1.high, a2.high, a3.high, b0.low, b1.low);
    mma_tf32(sums.small, a0.low, a1.low, a2.low, a3.low, b0.high, b1.high);
}

/* The warp's rows of x by its rows of the weights, from m and n on in the tile. */
DEVICE void multiply_tile(float (&sum)[2][2][4], const Tile &tile, int m, int n) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
    Sums sums[2][2] = {};
#pragma unroll
    for (int c = 0; c < F32_STEP / 4; c += 4) {
        Four x[4], w[2];
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[i].load(tile.x[m + 8 * i + g] + place(g, c + t));
#pragma unroll
        for (int i = 0; i < 2; i++)
            w[i].load(tile.w[n + 8 * i + g] + place(g, c + t));
#pragma unroll
        for (int first = 0; first < 4; first += 2)
#pragma unroll
            for (int i = 0; i < 4; i++)
                multiply(sums[i / 2][i % 2], x[i / 2 * 2], x[i / 2 * 2 + 1], w[i % 2], first);
    }
#pragma unroll
    for (int i = 0; i < 16; i++)
        sum[i / 8][i / 4 % 2][i % 4] += sums[i / 8][i / 4 % 2].large[i % 4] + sums[i / 8][i / 4 % 2].small[i % 4];
}

/* ==== The kernel ==== */

KERNEL __launch_bounds__(F32_THREADS)
    F32_NAME(F32_SEGMENTS(F32_PARAMETER) const float *x, float *out, const int *rows) {
    Tile *const tiles = (Tile *)shared_bytes;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int first = blockIdx.y * F32_ROWS, column = blockIdx.x * F32_COLUMNS;
    next_kernel_release();
    Source from = {w0, {nullptr, nullptr}, {nullptr, nullptr}};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = column + (threadIdx.x >> 3) + 32 * i;
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
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = first + (threadIdx.x >> 3) + 32 * i;
        from.x[i] = row < live ? x + (u64)row * F32_K : nullptr;
    }
    for (int step = 0; step < F32_STAGES - 1; step++) {
        if (step < steps)
            from.bring_tile(tiles[step], step);
        copies_close();
    }
    const int m = warp / 4 * 32, n = warp % 4 * 16;
    float sum[2][2][4] = {};
#pragma unroll 1
    for (int step = 0, at = 0; step < steps; step++) {
        copies_wait<F32_STAGES - 2>();
        block_sync(); /* the tile is there, and nobody reads the one before any more */
        const int ahead = at ? at - 1 : F32_STAGES - 1;
        if (step + F32_STAGES - 1 < steps)
            from.bring_tile(tiles[ahead], step + F32_STAGES - 1);
        copies_close();
        multiply_tile(sum, tiles[at], m, n);
        at = at + 1 < F32_STAGES ? at + 1 : 0;
    }
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int row = first + m + i / 8 * 16 + i / 2 % 2 * 8 + (lane >> 2);
        const int to = column + n + i / 4 % 2 * 8 + lane % 4 * 2 + i % 2;
        if (row < live && to < all_rows)
            out[(u64)row * all_rows + to] = sum[i / 8][i / 4 % 2][i % 4];
    }
}
