/* matmul_wgmma.cu - out = x W^T for many rows on sm_90a: matmul_prefill.cu's work by warpgroups, whose tensor cores are
 * half as fast again as those of single warps and read x from shared memory themselves.
 *
 * Contract: PF_NAME, PF_K, PF_SEGMENTS, PF_FORMS, PF_TILES, PF_GROUPED, the parameters and what they point to are those
 * of matmul_prefill.cu, but for
 *   x                    x atoms (matmul_rows.cu), which matmul_input.cu writes with IN_ATOMS
 *   PF_COLUMNS           columns of weights that come together: 256, or 128 where every form's tile has 64
 *   PF_STAGES            pieces of weights under way
 *   PF_X_STAGES          pieces of x under way, of 64 columns
 *   tiles                with PF_GROUPED made with ES_TOKENS = PF_TOKENS = 256
 *   PF_HALVES            1, with PF_GROUPED and segments of whole strips of 16 rows: `out` is f16 [rows][N], at a
 *                        multiple of 8 bytes, and there is a last parameter, float *units, f32 [rows]: what a row's are
 *                        multiplied by
 *   launch               block PF_THREADS = 384; dynamic shared memory PF_SHARED = PF_X_STAGES * 32 KiB + PF_STAGES * 8
 *                        * PF_SLOT + PF_BESIDE; any grid of one dimension. Best: as many blocks as multiprocessors
 *
 * How: y^T = W x^T, 128 rows of weights by up to 256 rows of x in a block. Two warpgroups have 64 rows of weights each,
 * a strip a warp, which makes the fragments of 64 columns (matmul_weights.cu) while its tensor cores multiply the 64
 * before; weights meet in registers, so nothing that was made passes through shared memory. A warp of the third warpgroup
 * asks for what comes next. A block of rows of x is 256, 192, 128 or 64 wide: one chooses what fills the
 * multiprocessors best; that changes no sum, which is of all K in one order, by one accumulator.
 *
 * Where K is small, the end of an item counts: experts of K = 704 have 11 steps of 1024 clocks. The scales of an item's
 * rows and where they go come into shared memory behind its pieces, and stores have no branches, so that nothing is
 * waited for there. Halves leave as 32 bytes of a row from four lanes: 32 stores a thread instead of 128, half the
 * bytes.
 *
 * Halves: rows of x have 512..1024 as their largest element, so with weights of 0.02 sums of 700 or 2800 columns are
 * some 10 to 200, and a 32nd of that is stored. An f16 overflows only where the magnitudes of a row of weights add up to
 * 2048 or more and all of x has the size of its largest; below 2^-9, a 10^-4 of its neighbours, a sum is rounded by more
 * than 2^-11 of itself, the most that f16 of x and of the weights are rounded by.
 *
 * What bounds it, for Q4_K on an H100 (clocks of one multiprocessor, 64 columns of 128 x 256): tensor cores 1024;
 * shared memory 256 rows of x read by both warpgroups 512, x and weights in 288, weights out 37: 840; a quarter issues
 * 2 x 90 instructions for weights. The L2 cache gives 37 KB: 36 bytes a clock, 8.3 TB/s over the chip at full speed,
 * which is more than it has been seen to give to matmuls (5.5 to 7): predicted 600 to 680 TFLOP/s of 843, where blocks
 * fill whole rounds.
 */
#include "matmul_rows.cu"
#include "prelude.cu"
#include "group_mma.cu"

#ifndef PF_NAME
#define PF_NAME        matmul_wgmma
#define PF_K           5376
#define PF_SEGMENTS(X) X(0, Q4_K, 8192) X(1, Q4_K, 4096) X(2, Q6_K, 4096)
#define PF_FORMS(X)    X(Q4_K) X(Q6_K)
#define PF_TILES       512
#define PF_COLUMNS     256
#define PF_STAGES      2
#define PF_X_STAGES    5
#endif
#ifndef PF_GROUPED
#define PF_GROUPED 0
#endif
#ifndef PF_HALVES
#define PF_HALVES 0
#endif

#define PF_STRIPS  8 /* of 16 rows: a strip for each warp of two warpgroups */
#define PF_TOKENS  256
#define PF_THREADS 384

#include "matmul_panels.cu"

#define PF_PIECE_TILES (PF_COLUMNS / 64)
static_assert(PF_PIECE_TILES % 2 == 0, "a piece ends with the second of two sets of fragments");

/* ==== Shared memory ==== */

struct Barriers {
    u64 rows_filled[PF_X_STAGES], rows_left[PF_X_STAGES]; /* a stage has arrived; all warps have left it */
    u64 weights_filled[PF_STAGES], weights_left[PF_STAGES];
    u64 ends_filled, ends_left;
};

/* Of an item's rows: their scales, and for which rows of `out` they are. */
struct Ends {
    float scales[PF_TOKENS];
    int order[PF_GROUPED ? PF_TOKENS : 4];
};

#define PF_X_STAGE  (PF_TOKENS / 8 * X_ATOM)
#define PF_W_STAGE  (PF_STRIPS * PF_SLOT)
#define PF_ENDS     2048
#define PF_BESIDE   (PF_ENDS + 256)
#define PF_SHARED   (PF_X_STAGES * PF_X_STAGE + PF_STAGES * PF_W_STAGE + PF_BESIDE)
static_assert(sizeof(Ends) <= PF_ENDS && sizeof(Barriers) <= PF_BESIDE - PF_ENDS, "they have their place");

DYNAMIC_SHARED_ATOMS u8 shared_bytes[];

DEVICE u8 *rows_stage(int stage) {
    return shared_bytes + stage * PF_X_STAGE;
}
DEVICE u8 *weights_stage(int stage) {
    return shared_bytes + PF_X_STAGES * PF_X_STAGE + stage * PF_W_STAGE;
}
DEVICE Ends &ends() {
    return *(Ends *)(shared_bytes + PF_X_STAGES * PF_X_STAGE + PF_STAGES * PF_W_STAGE);
}
DEVICE Barriers &barriers() {
    return *(Barriers *)(shared_bytes + PF_X_STAGES * PF_X_STAGE + PF_STAGES * PF_W_STAGE + PF_ENDS);
}

/* A place in a ring: which stage, and the parity of its round. */
template <int STAGES> struct Turn {
    int stage = 0;
    u32 parity = 0;

    DEVICE void next() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
    DEVICE int before() const {
        return stage == 0 ? STAGES - 1 : stage - 1;
    }
};

/* ==== Rows of a block ==== */

/* Widths of a block of rows, and what one costs beside its columns' products, in columns. Each has its own text for
 * each form, and with more than four of them the compiler finds no registers to have products under way in. */
#define PF_ONE(form) +1
#if PF_FORMS(PF_ONE) > 2
#define PF_WIDTHS(X) X(256)
#elif PF_FORMS(PF_ONE) > 1
#define PF_WIDTHS(X) X(128) X(256)
#else
#define PF_WIDTHS(X) X(64) X(128) X(192) X(256)
#endif
#define PF_WIDTH_COST 16

/* The width with which the busiest of `blocks` multiprocessors has least to do. */
DEVICE int best_width(int rows, int blocks) {
    int best = PF_TOKENS, least = 0x7fffffff;
#define PF_TRY(width)                                                                                                  \
    {                                                                                                                  \
        const int items = (rows + width - 1) / width * all_panels;                                                     \
        const int cost = (items + blocks - 1) / blocks * (width + PF_WIDTH_COST);                                      \
        if (cost <= least) {                                                                                            \
            least = cost;                                                                                              \
            best = width;                                                                                              \
        }                                                                                                              \
    }
    PF_WIDTHS(PF_TRY)
    return best;
}

/* ==== The warp that asks ==== */

struct Asker {
    const Weights &weights;
    const Work &work;
    const u8 *x;
    [[maybe_unused]] const int *order;
    Turn<PF_X_STAGES> rows;
    Turn<PF_STAGES> pieces;
    u32 parity; /* of the ends' round */

    /* Strips beyond the panel's rows are the last one again: nobody stores what they give. */
    DEVICE void ask_weights(const Panel &p, int piece) {
        const int lane = threadIdx.x & 31, strips = (p.rows + 15) / 16;
        const u32 bytes = piece + 1 < PF_PIECES ? p.piece : p.last;
        Barriers &bar = barriers();
        barrier_wait(&bar.weights_left[pieces.stage], pieces.parity ^ 1);
        u8 *stage = weights_stage(pieces.stage);
#pragma unroll 1
        for (int i = 0; i < PF_STRIPS; i++) {
            const int strip = i < strips ? i : strips - 1;
            chunk_load_common(stage + i * PF_SLOT, p.from + (u64)strip * p.strip + (u64)piece * p.piece, bytes,
                              &bar.weights_filled[pieces.stage], lane);
        }
        pieces.next();
    }
    DEVICE void ask_rows(const Item &item, int tile) {
        Barriers &bar = barriers();
        barrier_wait(&bar.rows_left[rows.stage], rows.parity ^ 1);
        chunk_load_common(rows_stage(rows.stage), x + ((u64)tile * PF_TILES + item.first) * X_ATOM,
                          (u32)(item.live + 7) / 8 * X_ATOM, &bar.rows_filled[rows.stage], threadIdx.x & 31);
        rows.next();
    }
    /* Behind an item's pieces, when those who multiply have long been done with the item before. */
    DEVICE void ask_ends(const Item &item) {
        const int lane = threadIdx.x & 31;
        const u32 bytes = (u32)(item.live + 3) / 4 * 16;
        const u8 *scales = x + (u64)X_TILES(PF_K) * PF_TILES * X_ATOM;
        Barriers &bar = barriers();
        barrier_wait(&bar.ends_left, parity ^ 1);
        chunk_load_common(ends().scales, scales + 32 * (u64)item.first, bytes, &bar.ends_filled, lane);
#if PF_GROUPED
        chunk_load_common(ends().order, (const u8 *)(order + 8 * (u64)item.first), bytes, &bar.ends_filled, lane);
#endif
        parity ^= 1;
    }
    DEVICE void ask_all() {
        for (int index = blockIdx.x; index < work.count(); index += gridDim.x) {
            const Item item = work.item(index);
            const Panel p = weights.panel(item.matrix, item.panel);
            for (int piece = 0; piece < PF_PIECES; piece++) {
                const int tiles = piece + 1 < PF_PIECES ? PF_PIECE_TILES : PF_LAST_TILES;
                ask_weights(p, piece);
                for (int tile = 0; tile < tiles; tile++)
                    ask_rows(item, piece * PF_PIECE_TILES + tile);
            }
            ask_ends(item);
        }
    }
};

/* ==== Multiplying ==== */

typedef u32 Fragments[4][4]; /* of 64 columns of the warp's strip: [16 columns][register] */

/* Where the warp stands in both rings. */
struct Reader {
    Turn<PF_X_STAGES> rows;
    Turn<PF_STAGES> pieces;
    u32 parity = 0; /* of the ends' round */

    DEVICE const u8 *wait_rows() const {
        barrier_wait(&barriers().rows_filled[rows.stage], rows.parity);
        return rows_stage(rows.stage);
    }
    /* Products with the stage have been asked for: the next is wanted. */
    DEVICE void next_rows() {
        rows.next();
    }
    /* Products with the stage `stage` are done. */
    DEVICE void leave_rows(int stage) const {
        if ((threadIdx.x & 31) == 0)
            barrier_arrive(&barriers().rows_left[stage]);
    }
    /* The warp's strip. */
    DEVICE const u8 *wait_weights() const {
        barrier_wait(&barriers().weights_filled[pieces.stage], pieces.parity);
        return weights_stage(pieces.stage) + (threadIdx.x >> 5) * PF_SLOT;
    }
    /* By all lanes, each for what it has read. */
    DEVICE void leave_weights() {
        barrier_arrive(&barriers().weights_left[pieces.stage]);
        pieces.next();
    }
    DEVICE const Ends &wait_ends() const {
        barrier_wait(&barriers().ends_filled, parity);
        return ends();
    }
    /* By all lanes. */
    DEVICE void leave_ends() {
        barrier_arrive(&barriers().ends_left);
        parity ^= 1;
    }
};

/* Block J of an open part as the fragments of twice 16 columns. */
template <int J, class Strip> DEVICE void make_block(Strip &strip, u32 (&first)[4], u32 (&second)[4]) {
    u32 a[2][4];
    strip.template block<J>(a);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        first[i] = a[i & 1][i / 2];
        second[i] = a[i & 1][2 + i / 2];
    }
}

/* 64 columns, number TILE of a piece; in order, as a part serves two of them where it has four blocks. */
template <int TILE, class Strip> DEVICE void make_tile(Strip &strip, const u8 *piece, Fragments &f) {
    constexpr int block = 2 * TILE % Strip::PART;
    if constexpr (block == 0)
        strip.open(piece + 64 * TILE / Strip::K * Strip::BYTES, 2 * TILE / Strip::PART % (Strip::K / 32 / Strip::PART));
    make_block<block>(strip, f[0], f[1]);
    make_block<block + 1>(strip, f[2], f[3]);
}

template <int N> DEVICE void multiply_tile(float (&acc)[N / 2], const Fragments &f, const u8 *x) {
    group_mma_begin();
#pragma unroll
    for (int i = 0; i < 4; i++)
        group_mma<N>(acc, f[i], x + 32 * i);
    group_mma_close();
}

/* A piece of TILES tiles of 64 columns from TILE on, whose fragments are there; those of the next tile are made while
 * its products are under way. `fresh`: no products are under way. last: no piece follows in the item. */
template <int N, int TILE, int TILES, class Strip>
DEVICE void multiply_piece(Reader &reader, Strip &strip, const u8 *&piece, Fragments (&f)[2], float (&acc)[N / 2],
                           bool fresh, bool last) {
    multiply_tile<N>(acc, f[TILE & 1], reader.wait_rows());
    const int before = reader.rows.before();
    reader.next_rows();
    group_mma_wait<1>();
    if (TILE > 0 || !fresh)
        reader.leave_rows(before);
    if constexpr (TILE + 1 < TILES) {
        make_tile<TILE + 1>(strip, piece, f[(TILE + 1) & 1]);
        multiply_piece<N, TILE + 1, TILES>(reader, strip, piece, f, acc, fresh, last);
    } else if (!last) {
        reader.leave_weights();
        piece = reader.wait_weights();
        make_tile<0>(strip, piece, f[0]);
    }
}

/* All of K. The text of a piece is there once where the last one is as long as the others: half the time to compile. */
template <int N, class Strip> DEVICE void multiply_panel(Reader &reader, float (&acc)[N / 2]) {
    constexpr int alike = PF_PIECES - (PF_LAST_TILES != PF_PIECE_TILES);
    Strip strip;
    Fragments f[2];
    const u8 *piece = reader.wait_weights();
    make_tile<0>(strip, piece, f[0]);
#pragma unroll 1
    for (int i = 0; i < alike; i++)
        multiply_piece<N, 0, PF_PIECE_TILES>(reader, strip, piece, f, acc, i == 0, i + 1 == PF_PIECES);
    if constexpr (alike < PF_PIECES)
        multiply_piece<N, 0, PF_LAST_TILES>(reader, strip, piece, f, acc, PF_PIECES == 1, true);
    group_mma_wait<0>();
    group_mma_keep(acc);
    reader.leave_rows(reader.rows.before());
    reader.leave_weights();
}

/* ==== Storing ==== */

#if PF_HALVES
typedef u16 Out;
#define PF_UNITS , float *units
#define PF_UNIT  units
#else
typedef float Out;
#define PF_UNITS
#define PF_UNIT  nullptr
#endif

/* Of two registers the first, or the second. */
DEVICE u32 either(bool second, u32 a, u32 b) {
    return second ? b : a;
}

/* Accumulators 4n..4n+3 are of tokens 8n + 2t and 8n + 2t + 1 and of rows g, then g + 8, of the warp's strip. Two
 * exchanges between lanes make of them four neighbouring rows of one token: lanes with odd g get the odd token, then those
 * with g & 2 the upper eight rows. */
template <int N>
DEVICE void store_halves(const Panel &p, const Item &item, float unit, const float (&acc)[N / 2], const int *order,
                         u16 *out) {
    const Lane l;
    const int strip = 16 * (int)(threadIdx.x >> 5);
    const bool odd = l.g & 1, upper = l.g & 2;
    const u32 low = odd ? 0x1054u : 0x5410u, high = odd ? 0x3276u : 0x7632u;
    u16 *const column = out + p.column + strip + (upper ? 8 : 0) + (l.g >> 2) * 4;
    const int mine = 2 * l.t + odd, live = strip < p.rows ? item.live - mine : 0;
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
        u32 of[2];
#pragma unroll
        for (int i = 0; i < 2; i++)
            of[i] = f16_pair(f16_round(acc[4 * n + i] * unit), f16_round(acc[4 * n + 2 + i] * unit));
        const u32 keep = either(odd, of[0], of[1]), other = lane_swap(either(odd, of[1], of[0]), 4);
        const u32 lower = pick_bytes(keep, other, low), higher = pick_bytes(keep, other, high);
        const u32 kept = either(upper, lower, higher), got = lane_swap(either(upper, higher, lower), 8);
        store_where(column + (u64)order[8 * n + mine] * all_rows, either(upper, kept, got), either(upper, got, kept),
                    8 * n < live);
    }
}

template <int N>
DEVICE void store_floats(const Panel &p, const Item &item, float unit, const float (&acc)[N / 2], const Ends &ends,
                         float *out) {
    const Lane l;
    const int row = 16 * (int)(threadIdx.x >> 5) + l.g;
    float *const column = out + p.column + row;
    const int live[2] = {row < p.rows ? item.live - 2 * l.t : 0, row + 8 < p.rows ? item.live - 2 * l.t : 0};
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            const int token = 8 * n + 2 * l.t + odd;
            float *const to = column + (u64)(PF_GROUPED ? ends.order[token] : 8 * item.first + token) * all_rows;
            const float scale = ends.scales[token] * unit;
            store_where(to, acc[4 * n + odd] * scale, 8 * n + odd < live[0]);
            store_where(to + 8, acc[4 * n + 2 + odd] * scale, 8 * n + odd < live[1]);
        }
    }
}

#define PF_SMALLER 0.03125f /* of what stands in x's scale: a half */

template <int N>
DEVICE void store(Reader &reader, const Panel &p, const Item &item, float unit, const float (&acc)[N / 2], Out *out,
                  [[maybe_unused]] float *units) {
    const Ends &ends = reader.wait_ends();
#if PF_HALVES
    const int thread = threadIdx.x;
    if (item.panel == 0 && thread < item.live)
        units[ends.order[thread]] = ends.scales[thread] * (1.0f / PF_SMALLER);
    store_halves<N>(p, item, unit * PF_SMALLER, acc, ends.order, out);
#else
    store_floats<N>(p, item, unit, acc, ends, out);
#endif
    reader.leave_ends();
}

/* One item by N columns of x at a time. */
template <int N, class Strip>
DEVICE void multiply_columns(Reader &reader, const Panel &p, const Item &item, Out *out, float *units) {
    float acc[N / 2] = {};
    multiply_panel<N, Strip>(reader, acc);
    store<N>(reader, p, item, Strip::UNIT, acc, out, units);
}

template <class Strip>
DEVICE void multiply_item(Reader &reader, const Panel &p, const Item &item, Out *out, float *units) {
#define PF_COLUMNS_OF(width)                                                                                           \
    if (item.live <= width)                                                                                            \
        return multiply_columns<width, Strip>(reader, p, item, out, units);
    PF_WIDTHS(PF_COLUMNS_OF)
}

DEVICE void multiply(const Weights &weights, const Work &work, Out *out, float *units) {
    Reader reader;
    for (int index = blockIdx.x; index < work.count(); index += gridDim.x) {
        const Item item = work.item(index);
        const Panel p = weights.panel(item.matrix, item.panel);
#define PF_MULTIPLY(name)                                                                                              \
    if (p.form == FORM_##name)                                                                                         \
        multiply_item<Strip_##name>(reader, p, item, out, units);
        PF_FORMS(PF_MULTIPLY)
    }
}

/* ==== The kernel ==== */

KERNEL __launch_bounds__(PF_THREADS, 1)
    PF_NAME(PF_SEGMENTS(PF_PARAMETER) const u8 *x, Out *out, const int *rows PF_LISTS PF_UNITS) {
    const Weights weights = {{PF_SEGMENTS(PF_LIST)}};

    next_kernel_release();
    if (threadIdx.x == 0) {
        Barriers &bar = barriers();
        for (int i = 0; i < PF_X_STAGES; i++) {
            barrier_init(&bar.rows_filled[i], CHUNK_ARRIVALS);
            barrier_init(&bar.rows_left[i], PF_STRIPS);
        }
        for (int i = 0; i < PF_STAGES; i++) {
            barrier_init(&bar.weights_filled[i], CHUNK_ARRIVALS * PF_STRIPS);
            barrier_init(&bar.weights_left[i], 32 * PF_STRIPS);
        }
        barrier_init(&bar.ends_filled, CHUNK_ARRIVALS * (PF_GROUPED ? 2 : 1));
        barrier_init(&bar.ends_left, 32 * PF_STRIPS);
        barrier_publish();
    }
    block_sync();
    previous_kernels_wait();
    const int live = *rows;
    const Work work = {live, PF_GROUPED ? PF_TOKENS : best_width(live, gridDim.x), PF_TILE_LIST};
    const int warp = lane_from((int)(threadIdx.x >> 5), 0);
    if (warp >= PF_STRIPS) {
        warpgroup_registers_fewer<24>();
        if (warp == PF_STRIPS) {
            Asker asker = {weights, work, x, PF_ORDER, {}, {}, 0};
            asker.ask_all();
        }
    } else {
        warpgroup_registers_more<240>();
        multiply(weights, work, out, PF_UNIT);
    }
}
