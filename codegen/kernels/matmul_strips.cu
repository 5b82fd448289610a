/* matmul_strips.cu - what the matmuls of 1..16 rows share (matmul_decode.cu, matmul_experts.cu): strips of 16 weight
 * rows pass through a ring in shared memory, warps beside each other multiply them, one warp adds and stores.
 *
 * Contract
 *   MM_K                 columns of every matrix: a multiple of the types' blocks
 *   MM_SEGMENTS(X)       X(index, form, rows) in order, index 0, 1, ..; form as in ir/quants.def
 *   MM_FORMS(X)          X(form) for each different form among the segments
 *   MM_NT                tiles of 8 tokens: 1 or 2
 *   MM_WARP_K            columns that a warp owns: 64, 128 or 256; with a 256-column form 256
 *   MM_WARPS             warps beside each other; MM_WARPS * MM_WARP_K columns are a slice of K
 *   MM_GROUPS            strips worked on at once, by MM_WARPS warps each
 *   MM_STAGES            chunks of the ring, a multiple of MM_GROUPS: a stage then belongs to one group. Else a group
 *                        that runs ahead may meet a stage whose chunk before, the other group's, has not come, and
 *                        the barrier's one bit of phase cannot tell the two apart
 *   MM_FLIGHT            chunks on their way at once, 1..MM_STAGES: as many as keep the memory busy. Of more it
 *                        gives less, and others wait longer
 *   MM_PARTIALS          buffers of partial products, a multiple of MM_GROUPS, 1..4
 *   MM_X_RECORDS         1: the rows are x records (matmul_rows.cu) of MM_NT tiles of 8 rows, each with the scale
 *                        of its own columns; 0: f32
 *   MM_X_SHARED          1: the rows stay in shared memory (few registers), 0: in registers
 *   MM_BLOCKS            blocks that should fit on a multiprocessor (caps the registers)
 *   MM_TAIL              1: tail.body runs behind the matmul (tail.cu), with TAIL_THREADS = MM_THREADS threads and
 *                        TAIL_SHARED = MM_SHARED bytes: every chunk that was asked for has been consumed then, so
 *                        no copy is under way; 0: nothing does
 *   block                MM_THREADS = 32 (MM_WARPS * MM_GROUPS + 1) threads
 *   dynamic shared       MM_SHARED bytes, in this order
 *                          stages:   MM_STAGES * MM_CHUNK, the bytes of the largest chunk (below)
 *                          partials: MM_PARTIALS * MM_WARPS * MM_NT * 512
 *                          rows:     MM_X_SHARED * MM_WARPS * MM_NT * (MM_WARP_K * 16 + 512)
 *
 * What a kernel brings is its Work, which says what the block's strips are and what rows they meet:
 *   slice, count         the block's slice of K; its strips, 0..count-1
 *   chunk(i)             strip i as a Chunk
 *   unit(i)              strips of one unit meet the same rows; it does not fall with i
 *   tiles(unit)          how many of the MM_NT tiles of tokens have rows
 *   row(unit, token)     the row of the output that a token is; -1: of none
 *   same_rows(a, b)      two units are known to meet rows with the same columns
 *   x, x_row(row)        the rows, and which of them it is; f32 [row][MM_K] at a multiple of 16 bytes, or records
 *
 * How: consumer warp w of each group owns columns MM_WARP_K * w of the slice, keeps its part of the rows as fragments,
 * and multiplies its tiles of one strip after another; the partial products go to shared memory. One auxiliary
 * warp fills the ring, a strip of the slice (one contiguous chunk) a stage, adds the partials in warp order and
 * stores. No barrier of the whole block in the loop.
 *
 * Rows are invariant: a token's scales are over the columns of one warp, tiles of tokens do not touch each other, and
 * tiles, order of k, slices and all sums are fixed by the macros above but MM_NT, MM_GROUPS, MM_STAGES, MM_FLIGHT,
 * MM_PARTIALS, MM_X_SHARED and MM_BLOCKS, which do not touch a sum; neither do the grid and the shares. So a row's
 * result is the same bits for every number of rows and every place among them, if MM_WARPS and MM_WARP_K are chosen by
 * shape only.
 *
 * No include guard: the text depends on the macros.
 */
#ifndef MM_NT
#define MM_NT 1
#endif
#ifndef MM_WARP_K
#define MM_WARP_K 256
#endif
#ifndef MM_GROUPS
#define MM_GROUPS 1
#endif
#ifndef MM_FLIGHT
#define MM_FLIGHT MM_STAGES
#endif
#ifndef MM_PARTIALS
#define MM_PARTIALS 4
#endif
#ifndef MM_X_RECORDS
#define MM_X_RECORDS 0
#endif
#ifndef MM_X_SHARED
#define MM_X_SHARED 0
#endif
#ifndef MM_BLOCKS
#define MM_BLOCKS 1
#endif
#ifndef MM_TAIL
#define MM_TAIL 1
#endif
#include "launch_order.cu"
#include "matmul_rows.cu"
#include "matmul_tiles.cu"
#include "prelude.cu"
#include "tail.cu"

#define MM_THREADS   (32 * (MM_WARPS * MM_GROUPS + 1))
#define MM_SLICE_K   (MM_WARPS * MM_WARP_K)
#define MM_SLICES    ((MM_K + MM_SLICE_K - 1) / MM_SLICE_K)
#define MM_BLOCKS_32 (MM_WARP_K / 32) /* blocks of 32 columns that a warp owns */

static_assert(MM_STAGES % MM_GROUPS == 0, "a stage belongs to one group");
static_assert(MM_FLIGHT >= 1 && MM_FLIGHT <= MM_STAGES, "chunks have a stage");
static_assert(256 % MM_WARP_K == 0, "a warp's sums fit one fragment");

/* ==== Segments and chunks ==== */

enum Form {
#define MM_FORM_ID(form) FORM_##form,
    MM_FORMS(MM_FORM_ID)
};

#define MM_ADD_ROWS(i, form, n)   +(n)
#define MM_ADD_ONE(i, form, n)    +1
#define MM_ADD_STRIPS(i, form, n) +(((n) + 15) / 16)
constexpr int all_rows = 0 MM_SEGMENTS(MM_ADD_ROWS), all_strips = 0 MM_SEGMENTS(MM_ADD_STRIPS);
#define MM_COUNT_FORM(form) +1
constexpr bool mixed = 0 MM_FORMS(MM_COUNT_FORM) > 1;

/* Tiles of a strip, and those of a slice and a warp (fewer at the end of K). */
template <class Tile> struct Count {
    static constexpr int strip = (MM_K + Tile::K - 1) / Tile::K;
    static constexpr int warp = MM_WARP_K / Tile::K, slice = MM_WARPS * warp;
    static constexpr u32 chunk = (slice < strip ? slice : strip) * Tile::BYTES;
    static_assert(MM_WARP_K % Tile::K == 0, "a warp owns whole tiles");

    static DEVICE int in_slice(int s) {
        const int left = strip - s * slice;
        return left < slice ? left : slice;
    }
    /* Bytes of a strip in a slice. */
    static DEVICE u32 bytes(int s) {
        return (u32)in_slice(s) * Tile::BYTES;
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
#define MM_LIST(i, form, n)      w##i,

/* A strip, counted over all segments, in one slice. */
struct Chunk {
    const u8 *from;
    u32 bytes;
    Form form;
    int column, rows; /* where its first row goes in the output, and how many there are of 16 */
};

struct Weights {
    const u8 *of[0 MM_SEGMENTS(MM_ADD_ONE)];

    /* `matrix` of the stack that each segment is. */
    DEVICE Chunk chunk(int matrix, int strip, int slice) const {
        int column = 0;
#define MM_FIND(i, form_name, n)                                                                                       \
    if (strip < ((n) + 15) / 16) {                                                                                     \
        typedef Count<Tile_##form_name> Tiles;                                                                         \
        const u64 first = ((u64)matrix * (((n) + 15) / 16) + strip) * Tiles::strip + slice * Tiles::slice;             \
        const int left = (n)-16 * strip;                                                                               \
        return {of[i] + first * Tile_##form_name::BYTES, Tiles::bytes(slice), FORM_##form_name, column + 16 * strip,   \
                left < 16 ? left : 16};                                                                                \
    }                                                                                                                  \
    strip -= ((n) + 15) / 16;                                                                                          \
    column += (n);
        MM_SEGMENTS(MM_FIND)
        return {nullptr, 0, (Form)0, 0, 0}; /* no such strip */
    }
};

/* The block's work: a slice, and strips of `units` times all segments.
 * Neighbours: a range of them, cut where each block gets the same number of bytes, to a strip: those of one storage type
 * may have 1.5 times the bytes of another's. Else as many for each block, and all blocks read one stretch of memory
 * together, which it gives faster than as many stretches as there are blocks. */
struct Share {
    int slice, first, step, count;

    DEVICE explicit Share(int units, bool neighbours) {
        const int blocks = gridDim.x / MM_SLICES, block = blockIdx.x / MM_SLICES;
        slice = blockIdx.x % MM_SLICES;
        if (neighbours) {
            first = cut(units, block, blocks);
            step = 1;
            count = cut(units, block + 1, blocks) - first;
        } else {
            first = block;
            step = blocks;
            count = (units * all_strips - block + blocks - 1) / blocks;
        }
    }
    DEVICE int strip(int i) const {
        return first + i * step;
    }

  private:
    DEVICE int cut(int units, int block, int blocks) const {
#define MM_ADD_BYTES(i, form, n) +(((n) + 15) / 16) * (Count<Tile_##form>::bytes(slice) / 16)
        const u32 unit = 0 MM_SEGMENTS(MM_ADD_BYTES); /* in 16 bytes: to 64 GiB */
        const u32 at = (u32)((u64)unit * units * block / blocks);
        u32 rest = at % unit;
        int strip = (int)(at / unit) * all_strips;
#define MM_PASS(i, form, n)                                                                                            \
    {                                                                                                                  \
        constexpr u32 strips = ((n) + 15) / 16;                                                                        \
        const u32 bytes = Count<Tile_##form>::bytes(slice) / 16;                                                       \
        if (rest < strips * bytes)                                                                                     \
            return strip + (int)((rest + bytes / 2) / bytes);                                                          \
        rest -= strips * bytes;                                                                                        \
        strip += strips;                                                                                               \
    }
        MM_SEGMENTS(MM_PASS)
        return strip;
    }
};

/* ==== Shared memory ==== */

DYNAMIC_SHARED u8 shared_bytes[];

#define MM_PARTIALS_AT (MM_STAGES * MM_CHUNK)
#define MM_ROWS_AT     (MM_PARTIALS_AT + MM_PARTIALS * MM_WARPS * MM_NT * 512)
#define MM_ROWS_BYTES  (MM_WARP_K * 16 + 512) /* of a warp and a tile of tokens: blocks; sums and scales by lane */
constexpr u32 MM_SHARED = MM_ROWS_AT + MM_X_SHARED * MM_WARPS * MM_NT * MM_ROWS_BYTES;

struct Barriers {
    u64 filled[MM_STAGES]; /* a chunk has arrived */
    u64 ahead_ended;       /* the launches ahead have: phase 0 has passed */

    /* By one thread; then a block_sync(). */
    DEVICE void init() {
        for (int i = 0; i < MM_STAGES; i++)
            barrier_init(&filled[i], CHUNK_ARRIVALS);
        barrier_init(&ahead_ended, 1);
        barrier_publish();
    }
    /* By all threads behind launch_reads(). */
    DEVICE void after_reads() {
        if (LAUNCH_EARLY == 0 && threadIdx.x == 0)
            barrier_arrive(&ahead_ended);
    }
};

/* Named barriers of a buffer of partials, between the warps of one group and the auxiliary warp. A buffer belongs to
 * one group, and each side comes to a round only after the other has come to the one before. */
#define MM_COMPUTED(buffer) (1 + (buffer)) /* all warps' partials are there; the strip's chunk is no longer needed */
#define MM_SUMMED(buffer)   (1 + MM_PARTIALS + (buffer)) /* the partials have been read */
#define MM_MEETING          (32 * (MM_WARPS + 1))
static_assert(MM_PARTIALS % MM_GROUPS == 0, "a buffer belongs to one group");

/* Partial products of a warp for one strip: float4 [NT][lane], the accumulators as mma leaves them. */
DEVICE float4 *partials(int buffer, int warp) {
    return (float4 *)(shared_bytes + MM_PARTIALS_AT) + (buffer * MM_WARPS + warp) * MM_NT * 32;
}

#include "matmul_fragments.cu"

/* ==== Consumers ==== */

/* acc = the warp's tiles of a chunk x rows. */
template <class Tile, int TILES>
DEVICE void multiply_tiles(const u8 *chunk, const Rows &rows, int slice, int warp, float (&acc)[TILES][4]) {
    const int have = Count<Tile>::in_slice(slice), first = warp * Count<Tile>::warp;
#pragma unroll
    for (int i = 0; i < Count<Tile>::warp; i++)
        if (first + i < have)
            Tile::multiply(chunk + (first + i) * Tile::BYTES, rows, i * (Tile::K / 32), acc);
}

/* The block's strip i for TILES tiles of tokens: its product to the partials, when the strip before has left them. */
template <int TILES>
DEVICE void multiply_strip(Barriers &bar, const Rows &rows, Form form, int slice, int warp, int i) {
    const int stage = i % MM_STAGES, buffer = i % MM_PARTIALS, lane = threadIdx.x & 31;
    const u8 *chunk = shared_bytes + stage * MM_CHUNK;
    float acc[TILES][4] = {};
    barrier_wait(&bar.filled[stage], (i / MM_STAGES) & 1);
#define MM_MULTIPLY(name)                                                                                              \
    if (form == FORM_##name)                                                                                           \
        multiply_tiles<Tile_##name>(chunk, rows, slice, warp, acc);
    MM_FORMS(MM_MULTIPLY)
    if (i >= MM_PARTIALS)
        warps_meet(MM_SUMMED(buffer), MM_MEETING);
    float4 *to = partials(buffer, warp);
#pragma unroll
    for (int n = 0; n < TILES; n++)
        to[n * 32 + lane] = make_float4(acc[n][0] * rows.scale(n, 0), acc[n][1] * rows.scale(n, 1),
                                        acc[n][2] * rows.scale(n, 0), acc[n][3] * rows.scale(n, 1));
    warps_arrive(MM_COMPUTED(buffer), MM_MEETING);
}

template <class Work> DEVICE void consume(Barriers &bar, const Work &work, int index) {
    const int group = index / MM_WARPS, warp = index % MM_WARPS;
    Rows rows;
    int unit = 0;
    if (MM_X_SHARED || group < work.count) {
        unit = work.unit(group);
        load_rows(rows, work, unit, warp, group);
        launch_moment("rows");
    }
    for (int i = group; i < work.count; i += MM_GROUPS) {
        const int before = unit;
        unit = work.unit(i);
        if (unit != before && !work.same_rows(before, unit))
            load_rows(rows, work, unit, warp, group);
        const Form form = work.chunk(i).form;
        if (MM_NT > 1 && work.tiles(unit) == 1)
            multiply_strip<1>(bar, rows, form, work.slice, warp, i);
        else
            multiply_strip<MM_NT>(bar, rows, form, work.slice, warp, i);
        if (i == 0) {
            launch_moment("first");
        }
    }
}

/* ==== The auxiliary warp ==== */

template <class Work> DEVICE void fill(Barriers &bar, const Work &work, int i) {
    const Chunk c = work.chunk(i);
    const int stage = i % MM_STAGES;
    chunk_load(shared_bytes + stage * MM_CHUNK, c.from, c.bytes, &bar.filled[stage], threadIdx.x & 31);
}

/* How far the ring is filled: chunks 0..asked-1 have been asked for, and of those 0..come-1 have come. */
struct Filled {
    int asked, come;

    /* By all lanes: one more chunk, if there is one, a stage for it, and fewer than `most` are on their way. */
    template <class Work> DEVICE bool ask(Barriers &bar, const Work &work, int consumed, int most) {
        while (come < asked && barrier_passed(&bar.filled[come % MM_STAGES], (come / MM_STAGES) & 1))
            come++;
        come = lane_from(come, 0); /* lanes may have looked at different times */
        if (asked >= work.count || asked >= consumed + MM_STAGES || asked - come >= most)
            return false;
        fill(bar, work, asked++);
        return true;
    }
};

/* Before the launches ahead have ended: what they still read waits behind what is asked for here, so that is one chunk
 * at a time, until a consumer says that they have ended. */
template <class Work> DEVICE void fill_early(Barriers &bar, const Work &work, Filled &filled) {
    while (filled.ask(bar, work, 0, 1)) {
        while (!barrier_passed(&bar.filled[filled.come], 0) && !barrier_passed(&bar.ahead_ended, 0))
            counter_pause();
        if (lanes_where(barrier_passed(&bar.ahead_ended, 0)))
            break;
    }
}

/* The sum over warps of a strip, for one tile of tokens, to their rows of the plane. */
template <class Work>
DEVICE void store_strip(const Work &work, int unit, int buffer, int n, const Chunk &c, float *plane) {
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
    const float low[2] = {sum.x, sum.y}, high[2] = {sum.z, sum.w};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = work.row(unit, 8 * n + 2 * l.t + i);
        float *to = plane + (u64)(row < 0 ? 0 : row) * all_rows + c.column + l.g;
        if (row >= 0 && l.g < c.rows)
            to[0] = low[i];
        if (row >= 0 && l.g + 8 < c.rows)
            to[8] = high[i];
    }
}

/* `out` is planes of `plane_rows` rows. */
template <class Work> DEVICE void assist(Barriers &bar, const Work &work, Filled &filled, float *out, int plane_rows) {
    float *plane = out + (u64)work.slice * plane_rows * all_rows;
    while (filled.ask(bar, work, 0, MM_FLIGHT)) {
    }
    for (int i = 0; i < work.count; i++) {
        const int buffer = i % MM_PARTIALS, unit = work.unit(i);
        warps_meet(MM_COMPUTED(buffer), MM_MEETING);
        while (filled.ask(bar, work, i + 1, MM_FLIGHT)) {
        }
        const Chunk c = work.chunk(i);
#pragma unroll
        for (int n = 0; n < MM_NT; n++)
            if (n < work.tiles(unit))
                store_strip(work, unit, buffer, n, c, plane);
        if (i + MM_PARTIALS < work.count)
            warps_arrive(MM_SUMMED(buffer), MM_MEETING);
    }
}

/* ==== The tail ==== */

#if MM_TAIL
#define TAIL_THREADS MM_THREADS
#define TAIL_SHARED  MM_SHARED
#include "tail.body"
#else
#define TAIL_PARAMETERS
#define TAIL_ARGUMENTS
#endif

/* By all threads, when the block's part of the planes is stored. */
DEVICE void finish([[maybe_unused]] int *tail, [[maybe_unused]] int live TAIL_PARAMETERS) {
    launch_tail();
    launch_moment("own");
#if MM_TAIL
    run_tail(tail, TAIL_ITEMS(live), (int)(gridDim.x - 1 - blockIdx.x), /* the first have the larger shares */
             [&](int item, Others &others) { tail_item(item, live, shared_bytes, others TAIL_ARGUMENTS); });
#endif
    launch_ends();
}
