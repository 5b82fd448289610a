/* matmul_decode.cu - out = rows x weights^T for 1..16 rows: reads every weight once, as fast as memory gives it.
 *
 * Several matrices with one input and K ("segments", e.g. q, k, v) are one launch, of different storage types if
 * need be: the kernel holds the code of each type once and switches by strip of 16 rows.
 *
 * Contract
 *   MM_NAME              the kernel's name
 *   MM_K                 columns of every matrix: a multiple of the types' blocks
 *   MM_SEGMENTS(X)       X(index, form, rows) in order, index 0, 1, ..; form as in tiles.def
 *   MM_FORMS(X)          X(form) for each different form among the segments
 *   MM_NT                1: up to 8 rows, 2: up to 16
 *   MM_WARP_K            columns that a warp owns: 64, 128 or 256; with a 256-column form 256
 *   MM_WARPS             warps beside each other; MM_WARPS * MM_WARP_K columns are a slice of K
 *   MM_GROUPS            strips worked on at once, by MM_WARPS warps each
 *   MM_STAGES            chunks of the ring, a multiple of MM_GROUPS: a stage then belongs to one group. Else a group
 *                        that runs ahead may meet a stage whose chunk before, the other group's, has not come, and
 *                        the barrier's one bit of phase cannot tell the two apart
 *   MM_X_SHARED          1: the rows stay in shared memory (few registers), 0: in registers
 *   MM_BLOCKS            blocks that should fit on a multiprocessor (caps the registers)
 *   parameters           const u8 *w0, w1, ..: tiles of each segment (tiles.def, repack.cu); const u8 *x: x records
 *                        (matmul_rows.cu); float *out; const int *rows: how many rows are live, in device memory
 *   out                  planes f32 [slice][8 * MM_NT][N], N = all segments' rows one after another (rows are not
 *                        padded). The product is the sum of the planes in slice order, for the consumer to
 *                        add where it reads: rows that are not live are not written. With one slice (K up to
 *                        MM_WARPS * MM_WARP_K) the plane is the product.
 *   launch               block MM_THREADS = 32 (MM_WARPS * MM_GROUPS + 1); grid a multiple of the slices
 *                        ceil(K / (MM_WARPS * MM_WARP_K)); dynamic shared memory (in this order)
 *                          stages:   MM_STAGES * MM_CHUNK, the bytes of the largest chunk (below)
 *                          partials: 4 * MM_WARPS * MM_NT * 512
 *                          rows:     MM_X_SHARED * MM_WARPS * MM_NT * MM_WARP_K * 16
 *
 * Rows are invariant: tiles, order of k, slices and all sums are fixed by the macros above but MM_NT, MM_GROUPS,
 * MM_STAGES, MM_X_SHARED and MM_BLOCKS, which do not touch a sum; neither does the grid. So a row's result is the same
 * bits for every number of rows and every place among them, if MM_WARPS and MM_WARP_K are chosen by shape only.
 *
 * How: block b works on slice b % slices and a contiguous range of strips. Consumer warp w of each group owns columns
 * MM_WARP_K * w of the slice, keeps its part of the rows, and multiplies its tiles of one strip after another; the
 * partial products go to shared memory. One auxiliary warp fills the ring, a strip of the slice (one contiguous
 * chunk) a stage, adds the partials in warp order and stores. The ring is filled before the wait for the previous
 * kernel, since weights do not depend on it. No barrier of the whole block in the loop.
 */
#include "prelude.cu"
#include "matmul_rows.cu"
#include "matmul_tiles.cu"

#ifndef MM_NAME
#define MM_NAME matmul_decode
#define MM_K 5376
#define MM_SEGMENTS(X) X(0, Q4_K, 8192) X(1, Q4_K, 4096) X(2, Q6_K, 4096)
#define MM_FORMS(X) X(Q4_K) X(Q6_K)
#endif
#ifndef MM_NT
#define MM_NT 1
#endif
#ifndef MM_WARP_K
#define MM_WARP_K 256
#endif
#ifndef MM_WARPS
#define MM_WARPS 7
#endif
#ifndef MM_GROUPS
#define MM_GROUPS 1
#endif
#ifndef MM_STAGES
#define MM_STAGES 5
#endif
#ifndef MM_X_SHARED
#define MM_X_SHARED 0
#endif
#ifndef MM_BLOCKS
#define MM_BLOCKS 1
#endif

#define MM_THREADS (32 * (MM_WARPS * MM_GROUPS + 1))
#define MM_SLICE_K (MM_WARPS * MM_WARP_K)
#define MM_SLICES ((MM_K + MM_SLICE_K - 1) / MM_SLICE_K)
#define MM_BLOCKS_32 (MM_WARP_K / 32) /* blocks of 32 columns that a warp owns */
#define MM_PARTIALS 4                 /* buffers of partial products */

static_assert(MM_STAGES % MM_GROUPS == 0, "a stage belongs to one group");

/* ==== Segments and chunks ==== */

enum Form {
#define MM_FORM_ID(form) FORM_##form,
    MM_FORMS(MM_FORM_ID)
};

#define MM_ADD_ROWS(i, form, n) +(n)
#define MM_ADD_ONE(i, form, n) +1
#define MM_ADD_STRIPS(i, form, n) +(((n) + 15) / 16)
constexpr int all_rows = 0 MM_SEGMENTS(MM_ADD_ROWS), all_strips = 0 MM_SEGMENTS(MM_ADD_STRIPS);

/* Tiles of a strip, and those of a slice and a warp (fewer at the end of K). */
template <class Tile> struct Count {
    static constexpr int strip = (MM_K + Tile::K - 1) / Tile::K;
    static constexpr int warp = MM_WARP_K / Tile::K, slice = MM_WARPS * warp;
    static constexpr u32 chunk = (slice < strip ? slice : strip) * Tile::BYTES;
    static_assert(MM_WARP_K % Tile::K == 0, "a warp owns whole tiles");
    static_assert(256 % MM_WARP_K == 0, "a warp's columns lie in one x record");

    static DEVICE int in_slice(int s) {
        const int left = strip - s * slice;
        return left < slice ? left : slice;
    }
};

DEVICE constexpr u32 larger(u32 a, u32 b) {
    return a > b ? a : b;
}
#define MM_LARGER(form) larger(Count<Tile_##form>::chunk,
#define MM_CLOSE(form) )
/* Bytes of a stage. */
constexpr u32 MM_CHUNK = MM_FORMS(MM_LARGER) 0 MM_FORMS(MM_CLOSE);

#define MM_PARAMETER(i, form, n) const u8 *w##i,
#define MM_LIST(i, form, n) w##i,

/* A strip, counted over all segments, in one slice. */
struct Chunk {
    const u8 *from;
    u32 bytes;
    Form form;
    int column, rows; /* where its first row goes in the output, and how many there are of 16 */
};

struct Weights {
    const u8 *of[0 MM_SEGMENTS(MM_ADD_ONE)];

    DEVICE Chunk chunk(int strip, int slice) const {
        int column = 0;
#define MM_FIND(i, form_name, n)                                                                                       \
    if (strip < ((n) + 15) / 16) {                                                                                     \
        typedef Count<Tile_##form_name> Tiles;                                                                         \
        const u64 first = (u64)strip * Tiles::strip + slice * Tiles::slice;                                            \
        const int left = (n) - 16 * strip;                                                                             \
        return {of[i] + first * Tile_##form_name::BYTES, (u32)Tiles::in_slice(slice) * Tile_##form_name::BYTES,        \
                FORM_##form_name, column + 16 * strip, left < 16 ? left : 16};                                         \
    }                                                                                                                  \
    strip -= ((n) + 15) / 16;                                                                                          \
    column += (n);
        MM_SEGMENTS(MM_FIND)
        return {nullptr, 0, (Form)0, 0, 0}; /* no such strip */
    }
};

/* The block's work: a slice, and strips [first, first + count). */
struct Share {
    int slice, first, count;

    DEVICE Share() {
        const int blocks = gridDim.x / MM_SLICES, block = blockIdx.x / MM_SLICES;
        slice = blockIdx.x % MM_SLICES;
        first = (int)((u64)all_strips * block / blocks);
        count = (int)((u64)all_strips * (block + 1) / blocks) - first;
    }
};

/* ==== Shared memory ==== */

DYNAMIC_SHARED u8 shared_bytes[];

#define MM_PARTIALS_AT (MM_STAGES * MM_CHUNK)
#define MM_ROWS_AT (MM_PARTIALS_AT + MM_PARTIALS * MM_WARPS * MM_NT * 512)

struct Barriers {
    u64 filled[MM_STAGES];     /* a chunk has arrived */
    u64 computed[MM_PARTIALS]; /* all warps' partials of a strip are there; its chunk is no longer needed */
    u64 summed[MM_PARTIALS];   /* the partials have been read */
};

/* Partial products of a warp for one strip: float4 [NT][lane], the accumulators as mma leaves them. */
DEVICE float4 *partials(int buffer, int warp) {
    return (float4 *)(shared_bytes + MM_PARTIALS_AT) + (buffer * MM_WARPS + warp) * MM_NT * 32;
}

/* ==== The rows ==== */

/* What a warp multiplies its tiles with: the B fragments of its columns. */
struct Rows {
#if MM_X_SHARED
    const u8 *blocks; /* [n][block of the warp][lane]{16 bytes} */
#else
    uint4 blocks[MM_NT][MM_BLOCKS_32];
#endif
    uint2 sum[MM_NT];
    float scale[MM_NT][2]; /* of tokens 2t, 2t + 1 */
    int tile64;            /* the warp's first 64 columns within their record of 256 */

    DEVICE uint4 block(int n, int j) const {
#if MM_X_SHARED
        return load16(blocks + (n * MM_BLOCKS_32 + j) * 512 + (threadIdx.x & 31) * 16);
#else
        return blocks[n][j];
#endif
    }
    DEVICE uint2 sums(int n) const {
        return sum[n];
    }
};

/* Columns from k on; zeros for tokens that are not live, and for a warp that begins beyond MM_K. Group 0 fills shared
 * memory for all. */
DEVICE void load_rows(Rows &rows, const u8 *x, int k, int live, [[maybe_unused]] int warp,
                      [[maybe_unused]] int group) {
    const Lane l;
    const int record = k / 256;
    const bool inside = k < MM_K;
    rows.tile64 = k / 64 % 4;
#if MM_X_SHARED
    u8 *shared = shared_bytes + MM_ROWS_AT + warp * MM_NT * MM_BLOCKS_32 * 512;
    rows.blocks = shared;
#endif
#pragma unroll
    for (int n = 0; n < MM_NT; n++) {
        const u8 *from = x + (u64)(record * MM_NT + n) * X_RECORD;
        const bool mine = inside && 8 * n + l.g < live;
#pragma unroll
        for (int j = 0; j < MM_BLOCKS_32; j++) {
            const uint4 v = mine ? load16(from + (k % 256 / 32 + j) * 512 + l.lane * 16) : make_uint4(0, 0, 0, 0);
#if MM_X_SHARED
            if (group == 0)
                *(uint4 *)(shared + (n * MM_BLOCKS_32 + j) * 512 + l.lane * 16) = v;
#else
            rows.blocks[n][j] = v;
#endif
        }
        rows.sum[n] = mine ? *(const uint2 *)(from + X_SUMS + l.lane * 8) : make_uint2(0, 0);
        const float *scales = (const float *)(from + X_SCALES) + 2 * l.t;
        rows.scale[n][0] = inside && 8 * n + 2 * l.t < live ? scales[0] : 0.0f;
        rows.scale[n][1] = inside && 8 * n + 2 * l.t + 1 < live ? scales[1] : 0.0f;
    }
}

/* ==== Consumers ==== */

/* acc = the warp's tiles of a chunk x rows. */
template <class Tile>
DEVICE void multiply_tiles(const u8 *chunk, const Rows &rows, int slice, int warp, float (&acc)[MM_NT][4]) {
    const int have = Count<Tile>::in_slice(slice), first = warp * Count<Tile>::warp;
#pragma unroll
    for (int i = 0; i < Count<Tile>::warp; i++)
        if (first + i < have)
            Tile::multiply(chunk + (first + i) * Tile::BYTES, rows, i * (Tile::K / 32), acc);
}

DEVICE void consume(Barriers &bar, const Weights &weights, const u8 *x, const Share &share, int live, int index) {
    const int group = index / MM_WARPS, warp = index % MM_WARPS, lane = threadIdx.x & 31;
    Rows rows;
    load_rows(rows, x, (share.slice * MM_WARPS + warp) * MM_WARP_K, live, warp, group);
#if MM_X_SHARED
    __syncthreads();
#endif
    for (int i = group; i < share.count; i += MM_GROUPS) {
        const int stage = i % MM_STAGES, buffer = i % MM_PARTIALS;
        const u8 *chunk = shared_bytes + stage * MM_CHUNK;
        const Form form = weights.chunk(share.first + i, share.slice).form;
        float acc[MM_NT][4] = {};
        barrier_wait(&bar.filled[stage], (i / MM_STAGES) & 1);
#define MM_MULTIPLY(name)                                                                                              \
    if (form == FORM_##name)                                                                                           \
        multiply_tiles<Tile_##name>(chunk, rows, share.slice, warp, acc);
        MM_FORMS(MM_MULTIPLY)
        if (i >= MM_PARTIALS)
            barrier_wait(&bar.summed[buffer], (i / MM_PARTIALS - 1) & 1);
        float4 *to = partials(buffer, warp);
#pragma unroll
        for (int n = 0; n < MM_NT; n++)
            to[n * 32 + lane] = make_float4(acc[n][0] * rows.scale[n][0], acc[n][1] * rows.scale[n][1],
                                            acc[n][2] * rows.scale[n][0], acc[n][3] * rows.scale[n][1]);
        warp_sync();
        if (lane == 0)
            barrier_arrive(&bar.computed[buffer]);
    }
}

/* ==== The auxiliary warp ==== */

DEVICE void fill(Barriers &bar, const Weights &weights, const Share &share, int i) {
    const Chunk c = weights.chunk(share.first + i, share.slice);
    const int stage = i % MM_STAGES;
    chunk_load(shared_bytes + stage * MM_CHUNK, c.from, c.bytes, &bar.filled[stage], threadIdx.x & 31);
}

/* The sum over warps of a strip, for one tile of tokens, to its rows of the plane. */
DEVICE void store_strip(int buffer, int n, const Chunk &c, int live, float *plane) {
    const Lane l;
    const float4 *from = partials(buffer, 0) + n * 32 + l.lane;
    float4 sum = from[0];
#pragma unroll
    for (int w = 1; w < MM_WARPS; w++) {
        const float4 v = from[w * MM_NT * 32];
        sum.x += v.x;
        sum.y += v.y;
        sum.z += v.z;
        sum.w += v.w;
    }
    const int token = 8 * n + 2 * l.t;
    float *to = plane + (u64)token * all_rows + c.column + l.g;
    const bool low = l.g < c.rows, high = l.g + 8 < c.rows;
    if (token < live && low)
        to[0] = sum.x;
    if (token < live && high)
        to[8] = sum.z;
    if (token + 1 < live && low)
        to[all_rows] = sum.y;
    if (token + 1 < live && high)
        to[all_rows + 8] = sum.w;
}

DEVICE void assist(Barriers &bar, const Weights &weights, const Share &share, int live, float *out) {
    float *plane = out + (u64)share.slice * 8 * MM_NT * all_rows;
    for (int i = 0; i < share.count; i++) {
        const int buffer = i % MM_PARTIALS;
        barrier_wait(&bar.computed[buffer], (i / MM_PARTIALS) & 1);
        if (i + MM_STAGES < share.count)
            fill(bar, weights, share, i + MM_STAGES);
        const Chunk c = weights.chunk(share.first + i, share.slice);
#pragma unroll
        for (int n = 0; n < MM_NT; n++)
            store_strip(buffer, n, c, live, plane);
        warp_sync();
        if ((threadIdx.x & 31) == 0)
            barrier_arrive(&bar.summed[buffer]);
    }
}

/* ==== The kernel ==== */

KERNEL __launch_bounds__(MM_THREADS, MM_BLOCKS)
    MM_NAME(MM_SEGMENTS(MM_PARAMETER) const u8 *x, float *out, const int *rows) {
    SHARED Barriers bar;
    const Weights weights = {{MM_SEGMENTS(MM_LIST)}};
    const Share share;
    const int warp = threadIdx.x >> 5;
    const bool assistant = warp == MM_WARPS * MM_GROUPS;

    next_kernel_release();
    if (threadIdx.x == 0) {
        for (int i = 0; i < MM_STAGES; i++)
            barrier_init(&bar.filled[i], CHUNK_ARRIVALS);
        for (int i = 0; i < MM_PARTIALS; i++) {
            barrier_init(&bar.computed[i], MM_WARPS);
            barrier_init(&bar.summed[i], 1);
        }
        barrier_publish();
    }
    __syncthreads();
    if (assistant)
        for (int i = 0; i < MM_STAGES && i < share.count; i++)
            fill(bar, weights, share, i);
    previous_kernels_wait();
    const int live = *rows;
    if (assistant) {
#if MM_X_SHARED
        __syncthreads();
#endif
        assist(bar, weights, share, live, out);
    } else {
        consume(bar, weights, x, share, live, warp);
    }
}
