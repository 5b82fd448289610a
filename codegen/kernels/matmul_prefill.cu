/* matmul_prefill.cu - out = x W^T for many rows (1 to thousands): the repacked weights of the decode matmul, f16 on the
 * tensor cores, and the same for experts, each with its own rows.
 *
 * Contract
 *   PF_NAME              the kernel's name
 *   PF_K                 columns of every matrix: a multiple of the types' blocks
 *   PF_SEGMENTS(X)       X(index, form, rows) in order, index 0, 1, ..; form as in ir/quants.def
 *   PF_FORMS(X)          X(form) for each different form among the segments
 *   PF_TILES             tiles of 8 rows in a column of x records: most rows / 8, rounded up
 *   PF_STRIPS            strips of 16 weight rows that a block multiplies at once: a panel
 *   PF_WARP_STRIPS       those of a warp; divides PF_STRIPS
 *   PF_TOKENS            rows of x that a block multiplies at once
 *   PF_WARP_TOKENS       those of a warp, a multiple of 8; divides PF_TOKENS
 *   PF_STAGES            pieces of 256 columns under way: 2 or more to hide the copies
 *   PF_BLOCKS            blocks that should fit on a multiprocessor (caps the registers)
 *   PF_GROUPED           0, or 1: every segment is a stack of matrices (experts), tiles of rows say which one is theirs
 *   parameters           const u8 *w0, w1, ..: tiles of each segment (matmul_tiles.cu, repack.cu), of its matrices one
 *                        after another; const u8 *x: x records (matmul_input.cu, whose rows have one scale for all of
 *                        K); float *out; const int *rows; with PF_GROUPED then const int *tiles, *order
 *   rows                 how many rows are live, in device memory; with PF_GROUPED how many tiles there are
 *   tiles, order         as experts_sort.cu writes them with ES_TOKENS = PF_TOKENS: [..]{matrix, first tile of 8
 *                        rows of x, live rows}; for each row of x the row of `out` that it is for
 *   out                  f32 [rows][N], N = all segments' rows one after another; rows that are not live are not
 *                        written
 *   launch               block PF_THREADS = 32 (PF_STRIPS / PF_WARP_STRIPS) (PF_TOKENS / PF_WARP_TOKENS) threads;
 *                        dynamic shared memory PF_SHARED = PF_STAGES * (PF_STRIPS * PF_SLOT + PF_TOKENS / 8 *
 *                        X_RECORD), PF_SLOT the most bytes of 256 columns of a strip; any grid of one dimension: its
 *                        blocks share the work out. Best: as many as are resident together, at most the panels
 *                        times the most blocks of rows
 *
 * How: a block goes from one (panel, rows of x) to the next. A stage of its ring holds 256 columns of both, by
 * PF_STRIPS + 1 copies; the last warp that has read a stage asks for what comes there next, so that no warp stands by
 * for it and each may have 255 registers. A warp holds PF_WARP_STRIPS x PF_WARP_TOKENS / 8 accumulators of 16 x 8; it
 * makes the fragments of one strip after another (matmul_weights.cu) and multiplies them with the rows' fragments,
 * which stay in registers for all its strips. K is not split and only one warp adds to a sum: a result depends on
 * nothing but its row of x, the weights and PF_K.
 *
 * What bounds it, for 16 strips x 128 rows in 8 warps of 4 strips x 64 rows, Q4_K on an H100 (clocks of one
 * multiprocessor; mma.sync m16n8k16 was measured at 5.9 clocks a quarter): 256 columns take a warp 512 mma, and with
 * 2 warps a quarter 6060 clocks. Beside them a warp issues 1210 instructions (as compiled: 680 f16 operations and 450
 * of integers to make weights, 75 loads): 3440 issue slots of 6060. Integer operations have half a pipe: 1820 of 6060
 * (Q6_K 2900). Shared memory moves 256 KB + 74 KB to registers and 107 KB in: 3420 of 6060. The L2 cache gives 107 KB:
 * 18 bytes a clock, 4.1 TB/s over the chip at the 640 TFLOP/s that bare mma reaches. So the tensor cores bound it, and
 * latency decides, with two warps to cover each other: predicted 60 to 75 % of 640, 400 to 480 TFLOP/s, where the
 * panels fill whole waves. With scales for each 256 columns of x there would be two levels of sums and room for half
 * the accumulators: shared memory would then take 2970 of 3220 clocks.
 *
 * Blocks that run at the same time should share what they read: PF_SPAN blocks of rows go through all panels
 * together, so that 132 multiprocessors work on 16 panels x 8 blocks of rows, 12 MB + 12 MB at K = 5376.
 */
#include "matmul_rows.cu"
#include "prelude.cu"

#ifndef PF_NAME
#define PF_NAME        matmul_prefill
#define PF_K           5376
#define PF_SEGMENTS(X) X(0, Q4_K, 8192) X(1, Q4_K, 4096) X(2, Q4_K, 4096)
#define PF_FORMS(X)    X(Q4_K)
#define PF_TILES       512
#endif
#ifndef PF_STRIPS
#define PF_STRIPS      16
#define PF_WARP_STRIPS 4
#endif
#ifndef PF_TOKENS
#define PF_TOKENS      128
#define PF_WARP_TOKENS 64
#endif
#ifndef PF_STAGES
#define PF_STAGES 2
#endif
#ifndef PF_BLOCKS
#define PF_BLOCKS 1
#endif
#ifndef PF_GROUPED
#define PF_GROUPED 0
#endif

#define PF_NT         (PF_WARP_TOKENS / 8)
#define PF_ROW_WARPS  (PF_STRIPS / PF_WARP_STRIPS)
#define PF_WARPS      (PF_ROW_WARPS * (PF_TOKENS / PF_WARP_TOKENS))
#define PF_THREADS    (32 * PF_WARPS)
#define PF_COLUMNS    256

static_assert(PF_STRIPS % PF_WARP_STRIPS == 0 && PF_TOKENS % PF_WARP_TOKENS == 0, "warps share a block out evenly");
static_assert(PF_WARP_TOKENS % 8 == 0, "an mma has 8 tokens");

#include "matmul_panels.cu"

/* ==== Shared memory ==== */

DYNAMIC_SHARED u8 shared_bytes[];

#define PF_STAGE  (PF_STRIPS * PF_SLOT + PF_TOKENS / 8 * X_RECORD)
#define PF_SHARED (PF_STAGES * PF_STAGE)

struct Barriers {
    u64 filled[PF_STAGES]; /* a stage has arrived */
    u32 left[PF_STAGES];   /* how many times a warp has read it and left it */
};

/* Named barrier of a stage: all warps have read it. */
#define PF_LEFT(stage) (1 + (stage))
static_assert(PF_STAGES < 16, "a named barrier for each stage");

/* ==== The ring ==== */

/* Strips beyond the panel's rows are the last one again: nobody stores what they give. */
DEVICE void load_stage(u64 *filled, u8 *stage, const Panel &p, const Item &item, const u8 *x, int record) {
    const int lane = threadIdx.x & 31, strips = (p.rows + 15) / 16;
    const u32 bytes = record + 1 < PF_PIECES ? p.piece : p.last;
    chunk_load_common(stage + PF_STRIPS * PF_SLOT, x + (u64)(record * PF_TILES + item.first) * X_RECORD,
                      (u32)(item.live + 7) / 8 * X_RECORD, filled, lane);
#pragma unroll 1
    for (int i = 0; i < PF_STRIPS; i++) {
        const int strip = i < strips ? i : strips - 1;
        chunk_load_common(stage + i * PF_SLOT, p.from + (u64)strip * p.strip + (u64)record * p.piece, bytes, filled,
                          lane);
    }
}

struct Ring {
    Barriers &bar;
    const Weights &weights;
    const Work &work;
    const u8 *x;

    /* What step number `step` of the block needs, a record of an item; by a warp. */
    DEVICE void fill(int step) const {
        const int index = blockIdx.x + step / PF_PIECES * gridDim.x, stage = step % PF_STAGES;
        if (index >= work.count())
            return;
        const Item item = work.item(index);
        load_stage(&bar.filled[stage], shared_bytes + stage * PF_STAGE, weights.panel(item.matrix, item.panel), item, x,
                   step % PF_PIECES);
    }
    DEVICE const u8 *wait(int step) const {
        barrier_wait(&bar.filled[step % PF_STAGES], (step / PF_STAGES) & 1);
        return shared_bytes + step % PF_STAGES * PF_STAGE;
    }
    /* The last warp that has read a stage fills it again. */
    DEVICE void leave(int step) const {
        const int stage = step % PF_STAGES;
        u32 before = 0;
        if ((threadIdx.x & 31) == 0)
            before = shared_add(&bar.left[stage], 1);
        if (lane_from(before, 0) % PF_WARPS == PF_WARPS - 1) {
            warps_meet(PF_LEFT(stage), PF_THREADS);
            fill(step + PF_STAGES);
        } else {
            warps_arrive(PF_LEFT(stage), PF_THREADS);
        }
    }
};

/* ==== Multiplying ==== */

typedef float Sums[PF_WARP_STRIPS][PF_NT][4];

/* Block J of an open part; x: the lane's fragment of the block for the warp's first tile of tokens. Two mma on the same
 * accumulator are PF_NT apart, so that none waits for the one before. */
template <class Strip, int J> DEVICE void multiply_block(Strip (&strips)[PF_WARP_STRIPS], const u8 *x, Sums &acc) {
    uint4 rows[PF_NT];
#pragma unroll
    for (int n = 0; n < PF_NT; n++)
        rows[n] = load16(x + n * X_RECORD);
#pragma unroll
    for (int s = 0; s < PF_WARP_STRIPS; s++) {
        u32 a[2][4];
        strips[s].template block<J>(a);
#pragma unroll
        for (int n = 0; n < PF_NT; n++)
            mma(acc[s][n], a[0][0], a[1][0], a[0][1], a[1][1], rows[n].x, rows[n].y);
#pragma unroll
        for (int n = 0; n < PF_NT; n++)
            mma(acc[s][n], a[0][2], a[1][2], a[0][3], a[1][3], rows[n].z, rows[n].w);
    }
}

/* One record, of `tiles` tiles of 64 columns. weights: of the warp's first strip. */
template <class Strip> DEVICE void multiply_record(const u8 *weights, const u8 *x, int tiles, Sums &acc) {
    constexpr int parts = 8 / Strip::PART, in_tile = Strip::K / 32 / Strip::PART;
#pragma unroll
    for (int part = 0; part < parts; part++) {
        if (PF_LAST_TILES < 4 && part >= tiles * parts / 4)
            break;
        Strip strips[PF_WARP_STRIPS];
#pragma unroll
        for (int s = 0; s < PF_WARP_STRIPS; s++)
            strips[s].open(weights + s * PF_SLOT + part / in_tile * Strip::BYTES, part % in_tile);
        const u8 *at = x + part * Strip::PART * 512;
        multiply_block<Strip, 0>(strips, at, acc);
        multiply_block<Strip, 1>(strips, at + 512, acc);
        if constexpr (Strip::PART == 4) {
            multiply_block<Strip, 2>(strips, at + 1024, acc);
            multiply_block<Strip, 3>(strips, at + 1536, acc);
        }
    }
}

/* Where a warp stands in its block. */
struct Place {
    int strip, token; /* its first ones */

    DEVICE Place() {
        const int warp = threadIdx.x >> 5;
        strip = warp % PF_ROW_WARPS * PF_WARP_STRIPS;
        token = warp / PF_ROW_WARPS * PF_WARP_TOKENS;
    }
};

/* All of K; a warp without live tokens only keeps step. */
template <class Strip> DEVICE void multiply_panel(const Ring &ring, int step, const Place &at, bool busy, Sums &acc) {
    const int lane = threadIdx.x & 31;
    for (int record = 0; record < PF_PIECES; record++, step++) {
        const u8 *stage = ring.wait(step), *x = stage + PF_STRIPS * PF_SLOT + at.token / 8 * X_RECORD + lane * 16;
        if (busy)
            multiply_record<Strip>(stage + at.strip * PF_SLOT, x, record + 1 < PF_PIECES ? 4 : PF_LAST_TILES, acc);
        ring.leave(step);
    }
}

/* Of one token: `sums` is of rows g (first) and g + 8 of each strip, element `odd` of the accumulators. */
DEVICE void store_token(float *to, const Panel &p, const Place &at, const Sums &acc, int n, int odd, float scale) {
    const Lane l;
#pragma unroll
    for (int s = 0; s < PF_WARP_STRIPS; s++) {
        const int row = 16 * (at.strip + s) + l.g;
        if (row < p.rows)
            to[row] = acc[s][n][odd] * scale;
        if (row + 8 < p.rows)
            to[row + 8] = acc[s][n][2 + odd] * scale;
    }
}

DEVICE void store(const Panel &p, const Item &item, const Place &at, float unit, const Sums &acc, const u8 *x,
                  float *out, [[maybe_unused]] const int *order) {
    const Lane l;
#pragma unroll
    for (int n = 0; n < PF_NT; n++) {
        const int tile = item.first + at.token / 8 + n;
        const float *scales = (const float *)(x + (u64)tile * X_RECORD + X_SCALES);
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            const int in_tile = 2 * l.t + odd;
            if (at.token + 8 * n + in_tile >= item.live)
                continue;
#if PF_GROUPED
            const int row = order[8 * tile + in_tile];
#else
            const int row = 8 * tile + in_tile;
#endif
            store_token(out + (u64)row * all_rows + p.column, p, at, acc, n, odd, scales[in_tile] * unit);
        }
    }
}

DEVICE void multiply(const Ring &ring, float *out, const int *order) {
    const Place at;
    int step = 0;
    for (int index = blockIdx.x; index < ring.work.count(); index += gridDim.x, step += PF_PIECES) {
        const Item item = ring.work.item(index);
        const Panel p = ring.weights.panel(item.matrix, item.panel);
        const bool busy = at.token < item.live;
        Sums acc = {};
        float unit = 1.0f;
#define PF_MULTIPLY(name)                                                                                              \
    if (p.form == FORM_##name) {                                                                                       \
        multiply_panel<Strip_##name>(ring, step, at, busy, acc);                                                       \
        unit = Strip_##name::UNIT;                                                                                     \
    }
        PF_FORMS(PF_MULTIPLY)
        if (busy)
            store(p, item, at, unit, acc, ring.x, out, order);
    }
}

/* ==== The kernel ==== */

KERNEL __launch_bounds__(PF_THREADS, PF_BLOCKS)
    PF_NAME(PF_SEGMENTS(PF_PARAMETER) const u8 *x, float *out, const int *rows PF_LISTS) {
    SHARED Barriers bar;
    const Weights weights = {{PF_SEGMENTS(PF_LIST)}};

    next_kernel_release();
    if (threadIdx.x == 0) {
        for (int i = 0; i < PF_STAGES; i++) {
            barrier_init(&bar.filled[i], CHUNK_ARRIVALS * (PF_STRIPS + 1));
            bar.left[i] = 0;
        }
        barrier_publish();
    }
    block_sync();
    previous_kernels_wait();
    const Work work = {*rows, PF_TOKENS, PF_TILE_LIST};
    const Ring ring = {bar, weights, work, x};
    if (threadIdx.x < 32)
        for (int i = 0; i < PF_STAGES; i++)
            ring.fill(i);
    multiply(ring, out, PF_ORDER);
}
