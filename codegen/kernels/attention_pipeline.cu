/* attention_pipeline.cu - attention of 1..16 query rows over many keys, as attention_decode.cu, by warps with different
 * work: four bring tiles, four turn keys into weights, four add up values.
 *
 * Contract
 *   Macros, parameters and what is left in memory are those of attention_decode.cu, but for
 *   ATT_KEYS          keys of a tile: 16, 32 or 64
 *   ATT_VECTORS       query vectors of an item: 16, 32 or 64, at most 16384 / ATT_V_DIM
 *   ATT_BRINGERS      4; ATT_BLOCKS 1; dims: multiples of 128
 *   tail              of tail.cu, and a third int: items that were taken beyond the first of each block. Zero before
 *                     and after as the others
 *   launch            block 384; from sm_90a on. Dynamic shared memory ATT_SHARED: as there, but for the weights'
 *                     256 * ATT_VECTORS bytes
 *
 * Rows are invariant as there. A chunk, what is weighed together, is 64 keys from a multiple of 64 on, of which a split
 * may have a part: so ATT_KEYS takes no part in the order of sums.
 *
 * How: tiles come through one ring as there: of each chunk those of K, then those of V. A weighing warp has 16 keys of
 * a chunk as the rows of its products, and 8 query vectors at a time as columns: elements of 16 bits by ldmatrix,
 * packed ones as lanes get and unpack them. The four exchange the largest logits, once a chunk, and leave weights and
 * what the sums before are to shrink by in one of two slots. An adding warp has a quarter of the columns, as rows of
 * its products, for all vectors: values come as keys do, transposed. The end of a split goes through a slot, too: the
 * factors of its sums, and where they go. So only the weighing warps wait for each other; while they have the next
 * chunk or prepare the next item's queries, values are added up, and packed elements are unpacked once, whatever the
 * number of vectors.
 *
 * Blocks take items as they get done (largest first), not in turns: at 40,960 keys of 4 K/V heads the fullest of 132
 * blocks would have 1.34 times the mean, and so has 1.03 times. Which block does an item touches no sum. Where no row
 * has partial results, nobody waits for all blocks at the end, when the count of items is set back: then in turns.
 *
 * What bounds it, clocks of one of 132 multiprocessors of an H100 for 64 keys of 512 columns, K and V, 8 vectors:
 *
 *                                          f16     q8_0    tq3_0, q8_0   tq3_0
 *   memory, 13.8 bytes a clock             9,500   5,050   3,450         1,850
 *   a weighing warp's instructions         180     650     900           900
 *   an adding warp's instructions          150     600     600           850
 *
 * each of the four schedulers has one warp of both kinds. At one instruction of a warp in 2 clocks, and 300 for the
 * exchange, a chunk takes 700, 1,600, 2,100 and 2,100 clocks: memory bounds all but the last.
 */
#ifndef ATT_KEYS
#define ATT_KEYS (ATT_K_DIM > 256 || ATT_V_DIM > 256 ? 32 : 64)
#endif
#ifndef ATT_VECTORS
#define ATT_VECTORS (ATT_GROUP * ATT_ROWS <= 16 ? 16 : 32)
#endif
#ifndef ATT_STAGES
#define ATT_STAGES 4
#endif
#define ATT_BRINGERS      4
#define ATT_WARPS         8
#define ATT_THREADS       (32 * ATT_WARPS) /* that work on tiles */
#define ATT_WEIGHED       64
#define ATT_SLOTS         2
#define ATT_TAKEN         1
#define ATT_WEIGHTS_BYTES (ATT_SLOTS * ATT_WEIGHED * 2 * ATT_VECTORS)

#include "attention_queries.cu"
#include "group_mma.cu"

static_assert(ATT_K_DIM % 128 == 0 && ATT_V_DIM % 128 == 0, "whole spans and groups for each warp");
static_assert(ATT_VECTORS == 16 || ATT_VECTORS == 32 || ATT_VECTORS == 64, "places of weights");
static_assert(ATT_VECTORS * ATT_V_DIM <= 16384, "128 sums for a thread");
static_assert(ATT_KEYS == 16 || ATT_KEYS == 32 || ATT_KEYS == 64, "tiles of a chunk");
static_assert(ATT_STAGES >= 2, "one tile is worked on while another comes");

enum {
    TEAM = 4, /* warps that weigh; that add; that bring */
    WEIGHERS = 2,
    ADDERS,                           /* named barriers, behind workers_meet()'s */
    NAMED = 8,                        /* items that may be named ahead */
    VECTOR_TILES = ATT_VECTORS / 8,   /* columns of products, 8 at a time */
    SUM_TILES = ATT_V_DIM / 16 / TEAM /* rows of a warp's products with values, 16 at a time */
};

/* ==== Shared memory ==== */

struct Shared : Ring {
    int first_tiles; /* tiles that were asked for before all else */
    Vector vectors[ATT_VECTORS];
    float4 most[ATT_SLOTS][ATT_VECTORS]; /* of a chunk, by warp; at the end, the sums of weights */
    float shrink[ATT_SLOTS][ATT_VECTORS];
    float *to[ATT_SLOTS][ATT_VECTORS]; /* at the end: where sums go; nullptr: the row does not see the split */
    float top[ATT_VECTORS];            /* largest logit of the split */
    u64 weighed[ATT_SLOTS], used[ATT_SLOTS];
    int item[NAMED]; /* the block's items, the first of them left out */
    u64 named[NAMED], taken[NAMED];
    u64 worked; /* of all who work on tiles: for the end of the launch, when those that bring have ended */
};

DEVICE void start_barriers(Shared &sh) {
    for (int i = 0; i < ATT_STAGES; i++) {
        barrier_init(&sh.filled[i], ATT_BRINGING);
        barrier_init(&sh.left[i], 32 * TEAM);
    }
    for (int i = 0; i < ATT_SLOTS; i++) {
        barrier_init(&sh.weighed[i], 32 * TEAM);
        barrier_init(&sh.used[i], 32 * TEAM);
    }
    for (int i = 0; i < NAMED; i++) {
        barrier_init(&sh.named[i], 1);
        barrier_init(&sh.taken[i], 32 * (ATT_WARPS + ATT_BRINGERS));
    }
    barrier_init(&sh.worked, ATT_THREADS);
    barrier_publish();
}

/* Byte of 8 vectors' weights of a key of the chunk: any 8 neighbouring keys lie in different banks. */
DEVICE const u8 *weights_at(int slot, int key, int vector_tile) {
    constexpr int turn = 8 / VECTOR_TILES;
    return shared_bytes + ATT_WEIGHTS_AT + (slot * ATT_WEIGHED + key) * (2 * ATT_VECTORS) +
           16 * (vector_tile ^ key / turn % VECTOR_TILES);
}

/* Tile number `tile` of the block has come. */
DEVICE const u8 *wait_tile(Shared &sh, int tile) {
    const int stage = tile % ATT_STAGES;
    barrier_wait(&sh.filled[stage], tile / ATT_STAGES & 1);
    return shared_bytes + stage * ATT_STAGE_BYTES;
}

/* ==== Items ==== */

/* Number n of the block's items behind the first; from plan.items on: there is none. By all warps of the block. */
DEVICE int take_item(Shared &sh, int n) {
    barrier_wait(&sh.named[n % NAMED], n / NAMED & 1);
    const int item = sh.item[n % NAMED];
    barrier_arrive(&sh.taken[n % NAMED]);
    return item;
}

/* The way over a split's chunks, for those who do not bring; the tiles are Cursor's. */
struct Walk : Splits<Walk> {
    enum { TILES = ATT_WEIGHED / ATT_KEYS };
    int first;   /* position that the chunk begins with */
    u32 present; /* which of its tiles come: bit = tile of the chunk */
    int tile;    /* number among the block's tiles of the chunk's first, of keys; those of values follow */

    DEVICE void begin_split(const Plan &plan) {
        first = work.start / ATT_WEIGHED * ATT_WEIGHED;
        find(plan);
    }
    DEVICE void next(const Plan &plan) {
        tile += 2 * count_bits(present);
        first += ATT_WEIGHED;
        find(plan);
    }
    DEVICE bool done() const {
        return first >= work.end;
    }
    DEVICE bool has(int i) const {
        return present >> i & 1;
    }
    /* Number of the chunk's tile i, of keys or values. */
    DEVICE int number(int i, bool values) const {
        return tile + count_bits(present & ((1u << i) - 1)) + (values ? count_bits(present) : 0);
    }
    /* The first chunk from here with a tile. */
    DEVICE void find(const Plan &plan) {
        const Sequence &s = plan.of[work.sequence];
        for (; !done(); first += ATT_WEIGHED) {
            present = 0;
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                const int at = first + i * ATT_KEYS;
                if (at < work.end && at + ATT_KEYS > work.start &&
                    tile_class(s.oldest, s.newest, at, at + ATT_KEYS - 1) != 0)
                    present |= 1u << i;
            }
            if (present)
                return;
        }
    }
};

/* Rows of this call into the chunk's tile i, by the team that uses it. The first tiles have theirs. */
DEVICE void make_tile_rows(Shared &sh, const Tensors &on, const Walk &way, int i, bool values HEAD_PARAMETERS) {
    const Plan &plan = sh.plan;
    const int first = way.first + i * ATT_KEYS, tile = way.number(i, values), stage = tile % ATT_STAGES;
    const u64 fresh = tile < sh.first_tiles ? 0 : fresh_keys(plan, way.work, first);
    if (!fresh)
        return;
    const int slot = plan.of[way.work.sequence].slot;
    wait_tile(sh, tile);
#pragma unroll 1
    for (int t = (threadIdx.x >> 5) % TEAM; t < plan.stored; t += TEAM) {
        const int key = plan.store_pos[t] - first;
        if (plan.store_slot[t] != slot || key < 0 || key >= ATT_KEYS || !(fresh >> key & 1))
            continue;
        const Target to =
            values && !alike ? tile_target<VForm, ATT_V_DIM>(stage, key) : tile_target<KForm, ATT_K_DIM>(stage, key);
        make_row(warp_scratch(), on.k, on.v, t, way.work.kv_head, stored_stand(plan, t), values, to HEAD_ARGUMENTS);
    }
    warps_meet(values ? ADDERS : WEIGHERS, 32 * TEAM);
}

/* ==== Keys become weights ====
 *
 * TILES   tiles of vectors that there may be: 1 where there are at most 8, so that no branch keeps steps from
 *         overlapping, else VECTOR_TILES
 */

/* Of a thread: vectors 8 n + 2 t and 8 n + 2 t + 1, as products have them. */
template <int TILES> struct Weighing { float most[TILES][2], weight[TILES][2]; };

/* Whether tile n of vectors has any. */
template <int TILES> DEVICE bool live_tile(int n, int vectors) {
    return TILES == 1 || 8 * n < vectors;
}

/* Products of 16 keys of a tile, from `key` on, and the vectors, as two chains of sums. */
template <int TILES> DEVICE void multiply_elements(const u8 *tile, int key, int vectors, float (&dot)[TILES][2][4]) {
    const u8 *queries = shared_bytes + ATT_QUERIES_AT;
#pragma unroll 4
    for (int d = 0; d < ATT_K_DIM; d += 32) {
        u32 a[2][4], b[4];
        load_matrices(a[0], tile_a<ATT_K_DIM>(tile, key, d));
        load_matrices(a[1], tile_a<ATT_K_DIM>(tile, key, d + 16));
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            if (!live_tile<TILES>(n, vectors))
                continue;
            load_matrices(b, matrix_keys(queries + 8 * n * row_bytes(ATT_K_DIM), row_bytes(ATT_K_DIM), d, ATT_K_DIM));
            KForm::multiply(dot[n][0], a[0], b[0], b[1]);
            KForm::multiply(dot[n][1], a[1], b[2], b[3]);
        }
    }
}

/* The same of packed keys: a lane has keys g and g + 8. */
template <class Form, int TILES>
DEVICE void multiply_packed(const u8 *tile, int key, int vectors, float (&dot)[TILES][2][4]) {
    constexpr int stride = code_stride<Form, ATT_K_DIM>(), spans = ATT_K_DIM / 32;
    const int lane = threadIdx.x & 31;
    const u8 *keys = tile + (key + (lane & 7)) * stride, *queries = shared_bytes + ATT_QUERIES_AT;
    const u16 *scales = (const u16 *)(tile + ATT_KEYS * stride) + key + (lane >> 2);
#pragma unroll(Form::at_once == 2 ? 2 : 1)
    for (int first = 0; first < spans; first += Form::at_once) {
        u32 low[4], high[4];
        const int piece = Form::template key_piece<ATT_K_DIM>(first, lane >> 3);
        load_matrices(low, keys + piece);
        load_matrices(high, keys + 8 * stride + piece);
#pragma unroll
        for (int i = 0; i < Form::at_once; i++) {
            u32 codes[2], x[4], y[4], b[4];
            const u16 *of_span = scales + (first + i) * 32 / Form::group * ATT_KEYS;
            Form::key_words(low, i, codes[0], codes[1]);
            Form::unpack(x, codes[0], codes[1], i);
            scale_pairs(x, f16_pair(of_span[0], of_span[0]));
            Form::key_words(high, i, codes[0], codes[1]);
            Form::unpack(y, codes[0], codes[1], i);
            scale_pairs(y, f16_pair(of_span[8], of_span[8]));
            const u32 a[2][4] = {{x[0], y[0], x[1], y[1]}, {x[2], y[2], x[3], y[3]}};
#pragma unroll
            for (int n = 0; n < TILES; n++) {
                if (!live_tile<TILES>(n, vectors))
                    continue;
                load_matrices(b, matrix_keys(queries + 8 * n * row_bytes(ATT_K_DIM), row_bytes(ATT_K_DIM),
                                             32 * (first + i), ATT_K_DIM));
                Form::multiply(dot[n][0], a[0], b[0], b[1]);
                Form::multiply(dot[n][1], a[1], b[2], b[3]);
            }
        }
    }
}

template <int TILES> DEVICE void multiply_keys(const u8 *tile, int key, int vectors, float (&dot)[TILES][2][4]) {
    if constexpr (KForm::packed)
        multiply_packed<KForm, TILES>(tile, key, vectors, dot);
    else
        multiply_elements<TILES>(tile, key, vectors, dot);
}

/* Logits of the warp's 16 keys of a chunk: of keys g and g + 8, each for two vectors. Then their tiles are left. */
template <int TILES>
DEVICE void make_logits(Shared &sh, const Tensors &on, const Walk &way,
                        float (&s)[TILES][4] HEAD_PARAMETERS TABLE_PARAMETERS) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, mine = 16 * warp / ATT_KEYS;
    const Work &w = way.work;
    float dot[TILES][2][4] = {};
    if (ATT_STORE)
        for (int i = 0; i < Walk::TILES; i++)
            if (way.has(i))
                make_tile_rows(sh, on, way, i, false HEAD_ARGUMENTS);
    if (way.has(mine)) {
        const u8 *tile = wait_tile(sh, way.number(mine, false));
        multiply_keys<TILES>(tile, 16 * warp % ATT_KEYS, w.vectors, dot);
    }
#pragma unroll
    for (int i = 0; i < Walk::TILES; i++)
        if (way.has(i)) {
            const int tile = way.number(i, false);
            wait_tile(sh, tile); /* before, what is left is what was there before */
            barrier_arrive(&sh.left[tile % ATT_STAGES]);
        }
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        if (!live_tile<TILES>(n, w.vectors))
            continue;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Vector &v = sh.vectors[8 * n + 2 * (lane & 3) + i % 2];
            const int key = way.first + 16 * warp + (lane >> 2) + i / 2 * 8;
            const bool seen = way.has(mine) && key >= w.start && key < w.end && key < v.high &&
                              visible(v.pos, key, v.head TABLE_ARGUMENTS);
            const float logit_of = logit(v.pos, key, v.head, dot[n][0][i] + dot[n][1][i] TABLE_ARGUMENTS);
            s[n][i] = seen ? logit_of : minus_infinity();
        }
    }
}

/* A chunk's weights to a slot: step number `step` of the block. */
template <int TILES>
DEVICE void weigh_chunk(Shared &sh, const Tensors &on, const Walk &way, int step,
                        Weighing<TILES> &sums HEAD_PARAMETERS TABLE_PARAMETERS) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, slot = step % ATT_SLOTS;
    float s[TILES][4];
    make_logits(sh, on, way, s HEAD_ARGUMENTS TABLE_ARGUMENTS);
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int j = 0; j < 2 && live_tile<TILES>(n, way.work.vectors); j++) {
            float most = fmaxf(s[n][j], s[n][j + 2]);
            for (int lanes = 4; lanes < 32; lanes *= 2)
                most = fmaxf(most, lane_swap(most, lanes));
            if (g == 0)
                ((float *)&sh.most[slot][8 * n + 2 * t + j])[warp] = most;
        }
    warps_meet(WEIGHERS, 32 * TEAM);
    barrier_wait(&sh.used[slot], (step / ATT_SLOTS & 1) ^ 1);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        if (!live_tile<TILES>(n, way.work.vectors))
            continue;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const float4 of_warps = sh.most[slot][8 * n + 2 * t + j];
            const float before = sums.most[n][j];
            const float most = fmaxf(fmaxf(fmaxf(of_warps.x, of_warps.y), fmaxf(of_warps.z, of_warps.w)), before);
            const bool none = most == minus_infinity();
            const float shrink = none ? 1.0f : exp2_fast(before - most);
            s[n][j] = none ? 0.0f : exp2_fast(s[n][j] - most);
            s[n][j + 2] = none ? 0.0f : exp2_fast(s[n][j + 2] - most);
            sums.weight[n][j] = multiply_add(sums.weight[n][j], shrink, s[n][j] + s[n][j + 2]);
            sums.most[n][j] = most;
            if (lane < 4 && warp == 0)
                sh.shrink[slot][8 * n + 2 * t + j] = shrink;
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
            *((u32 *)weights_at(slot, 16 * warp + g + 8 * half, n) + t) =
                VForm::round_pair(s[n][2 * half], s[n][2 * half + 1]);
    }
    barrier_arrive(&sh.weighed[slot]);
}

/* Where the weighted sum of a vector goes; nullptr: the row does not see the split. */
DEVICE float *result_of(const Shared &sh, const Tensors &on, const Work &w, int vector) {
    const Vector &of = sh.vectors[vector];
    const Range &range = sh.plan.range[of.row];
    if (!range.has(w.split))
        return nullptr;
    if (!range.merges())
        return on.out + ((u64)of.row * ATT_HEADS + of.head) * ATT_V_DIM;
    return partial_values(on.partials, partial_at(of.row, of.head, w.split - range.first_split()));
}

/* The sums of weights over the warps' keys, and what becomes of each vector: to a slot, and for the merge. */
template <int TILES>
DEVICE void end_weighing(Shared &sh, const Tensors &on, const Work &w, int step,
                         const Weighing<TILES> &sums TABLE_PARAMETERS) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, t = lane & 3, slot = step % ATT_SLOTS;
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int j = 0; j < 2 && live_tile<TILES>(n, w.vectors); j++) {
            float weight = sums.weight[n][j];
            for (int lanes = 4; lanes < 32; lanes *= 2)
                weight += lane_swap(weight, lanes);
            if (lane >= 4)
                continue;
            ((float *)&sh.most[slot][8 * n + 2 * t + j])[warp] = weight;
            if (warp == 0)
                sh.top[8 * n + 2 * t + j] = sums.most[n][j];
        }
    warps_meet(WEIGHERS, 32 * TEAM);
    barrier_wait(&sh.used[slot], (step / ATT_SLOTS & 1) ^ 1);
    for (int v = threadIdx.x; v < w.vectors; v += 32 * TEAM) {
        const Vector &of = sh.vectors[v];
        const Range &range = sh.plan.range[of.row];
        const float4 of_warps = sh.most[slot][v];
        const float weight = of_warps.x + of_warps.y + of_warps.z + of_warps.w;
        const bool merges = range.merges();
        sh.shrink[slot][v] = merges ? 1.0f : last_factor(sh.top[v], weight, of.head TABLE_ARGUMENTS);
        sh.to[slot][v] = result_of(sh, on, w, v);
        if (merges && range.has(w.split))
            *partial_weights(on.partials, partial_at(of.row, of.head, w.split - range.first_split())) =
                make_float2(sh.top[v], weight);
    }
    barrier_arrive(&sh.weighed[slot]);
    warps_meet(WEIGHERS, 32 * TEAM); /* the vectors are no longer looked at */
}

/* A split, whose queries are there. step: of the block. */
template <int TILES>
DEVICE void weigh_split(Shared &sh, const Tensors &on, Walk &way, int &step HEAD_PARAMETERS TABLE_PARAMETERS) {
    Weighing<TILES> sums;
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) {
        sums.most[i / 2][i % 2] = minus_infinity();
        sums.weight[i / 2][i % 2] = 0.0f;
    }
#pragma unroll 1
    for (; !way.done(); way.next(sh.plan))
        weigh_chunk(sh, on, way, step++, sums HEAD_ARGUMENTS TABLE_ARGUMENTS);
    end_weighing(sh, on, way.work, step++, sums TABLE_ARGUMENTS);
}

/* The block's items, by the warps that weigh; the first one's queries are there. */
DEVICE void weigh_items(Shared &sh, const Tensors &on, int item HEAD_PARAMETERS TABLE_PARAMETERS) {
    Walk way;
    way.tile = 0;
    for (int n = 0, step = 0; item < sh.plan.items; item = take_item(sh, n++)) {
        way.begin(sh.plan, item);
        if (n) {
            FetchedQ next;
            fetch_first(next, sh.plan, on, way.work);
            prepare_queries(sh.vectors, sh.plan, on, way.work, TEAM, next HEAD_ARGUMENTS);
            warps_meet(WEIGHERS, 32 * TEAM);
        }
        do {
            if (way.work.vectors <= 8)
                weigh_split<1>(sh, on, way, step HEAD_ARGUMENTS TABLE_ARGUMENTS);
            else
                weigh_split<VECTOR_TILES>(sh, on, way, step HEAD_ARGUMENTS TABLE_ARGUMENTS);
        } while (way.next_split(sh.plan));
    }
}

/* ==== Values are added up ==== */

/* Columns as rows of products, vectors as their columns. Of elements of 16 bits tile m is columns 16 m + g and, in
 * the second half, g + 8 behind the warp's first; of packed ones tiles 2 j and 2 j + 1 are span j: elements 4 g and 4 g
 * + 1, then 4 g + 2 and 4 g + 3. */
template <int TILES> struct Sums {
    float out[SUM_TILES][TILES][4];

    DEVICE void clear() {
#pragma unroll
        for (int m = 0; m < SUM_TILES; m++)
#pragma unroll
            for (int i = 0; i < 4 * TILES; i++)
                out[m][i / 4][i % 4] = 0.0f;
    }
    /* Times what a slot says. */
    DEVICE void shrink(const float *by, int vectors) {
        const int t = threadIdx.x & 3;
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            if (!live_tile<TILES>(n, vectors))
                continue;
            const float2 factor = *(const float2 *)(by + 8 * n + 2 * t);
            if (!lanes_where(factor.x != 1.0f || factor.y != 1.0f))
                continue;
#pragma unroll
            for (int m = 0; m < SUM_TILES; m++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    out[m][n][i] *= i % 2 ? factor.y : factor.x;
        }
    }
};

/* Weights of 16 keys of the chunk, as operands. */
template <int TILES> DEVICE void load_weights(int slot, int key, int vectors, u32 (&b)[TILES][2]) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
        u32 r[4];
        if (!live_tile<TILES>(n, vectors))
            continue;
        load_matrices_transposed(r, weights_at(slot, key + (lane & 15), n + (lane >> 4)));
        b[n][0] = r[0];
        b[n][1] = r[1];
        if (n + 1 < TILES) {
            b[n + 1][0] = r[2];
            b[n + 1][1] = r[3];
        }
    }
}

template <int TILES>
DEVICE void multiply_values(const u32 (&a)[4], const u32 (&b)[TILES][2], int vectors, float (&out)[TILES][4]) {
#pragma unroll
    for (int n = 0; n < TILES; n++)
        if (live_tile<TILES>(n, vectors))
            VForm::multiply(out[n], a, b[n][0], b[n][1]);
}

/* sums += values of 16 keys of a tile, from its key k on, x their weights. */
template <int TILES>
DEVICE void add_elements(const u8 *tile, int k, const u32 (&b)[TILES][2], int vectors, Sums<TILES> &sums) {
    const int lane = threadIdx.x & 31, piece = (threadIdx.x >> 5) % TEAM * (2 * SUM_TILES) + (lane >> 3 & 1);
    const u8 *values = tile + (k + (lane & 7) + (lane >> 4) * 8) * (2 * ATT_V_DIM);
#pragma unroll
    for (int m = 0; m < SUM_TILES; m++) {
        u32 a[4];
        load_matrices_transposed(a, values + 16 * piece_at<ATT_V_DIM>(lane, piece + 2 * m));
        multiply_values<TILES>(a, b, vectors, sums.out[m]);
    }
}

/* Which halves of a pair of two neighbouring keys' numbers are of keys in [low, high). */
DEVICE u32 keys_inside(int key, int low, int high) {
    return (key >= low && key < high ? 0xffffu : 0) | (key + 1 >= low && key + 1 < high ? 0xffff0000u : 0);
}

/* The same of packed values; of keys beside [low, high) of the tile the scales may be anything. */
template <class Form, int TILES>
DEVICE void add_packed(const u8 *tile, int k, int low, int high, const u32 (&b)[TILES][2], int vectors,
                       Sums<TILES> &sums) {
    constexpr int stride = code_stride<Form, ATT_V_DIM>();
    const int lane = threadIdx.x & 31, key = k + 2 * (lane & 3);
    const u32 of_x = keys_inside(key, low, high), of_y = keys_inside(key + 8, low, high);
    const u8 *values = tile + (k + (lane & 7) + (lane >> 4) * 8) * stride;
    const u16 *scales = (const u16 *)(tile + ATT_KEYS * stride);
#pragma unroll
    for (int j = 0; j < SUM_TILES / 2; j++) {
        const int span = (threadIdx.x >> 5) % TEAM * (SUM_TILES / 2) + j;
        const u16 *of_span = scales + span * 32 / Form::group * ATT_KEYS;
        u32 r[4], x[4], y[4]; /* of keys 0..7 and 8..15 */
        load_matrices_transposed(r, values + Form::template value_piece<ATT_V_DIM>(span, lane >> 3 & 1));
        Form::unpack(x, r[0], r[1], span);
        Form::unpack(y, r[2], r[3], span);
        scale_pairs(x, *(const u32 *)(of_span + key) & of_x);
        scale_pairs(y, *(const u32 *)(of_span + key + 8) & of_y);
        const u32 a[2][4] = {{x[0], x[1], y[0], y[1]}, {x[2], x[3], y[2], y[3]}};
        multiply_values<TILES>(a[0], b, vectors, sums.out[2 * j]);
        multiply_values<TILES>(a[1], b, vectors, sums.out[2 * j + 1]);
    }
}

/* A tile's values. first: its first key; in_chunk: its number in the chunk. */
template <int TILES>
DEVICE void add_values(const u8 *tile, const Work &w, int first, int in_chunk, int slot, Sums<TILES> &sums) {
#pragma unroll 1
    for (int k = 0; k < ATT_KEYS; k += 16) {
        u32 b[TILES][2];
        load_weights(slot, in_chunk * ATT_KEYS + k, w.vectors, b);
        if constexpr (VForm::packed)
            add_packed<VForm, TILES>(tile, k, w.start - first, w.end - first, b, w.vectors, sums);
        else
            add_elements<TILES>(tile, k, b, w.vectors, sums);
    }
}

/* Sums times what a slot says, to where it says. The product here keeps accumulators from being laid out for stores. */
template <int TILES> DEVICE void store_sums(const Shared &sh, int slot, int vectors, const Sums<TILES> &sums) {
    const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3, first = (threadIdx.x >> 5) % TEAM * (16 * SUM_TILES);
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int vector = 8 * n + 2 * t + j;
            float *to = vector < vectors ? sh.to[slot][vector] : nullptr;
            if (!to)
                continue;
            const float factor = sh.shrink[slot][vector];
            to += first;
#pragma unroll
            for (int m = 0; m < SUM_TILES; m++) {
                const auto &sum = sums.out[m][n];
                if constexpr (!VForm::packed) {
                    to[16 * m + g] = sum[j] * factor;
                    to[16 * m + g + 8] = sum[j + 2] * factor;
                } else if (m % 2 == 0) {
                    const auto &behind = sums.out[m + 1][n];
                    *(float4 *)(to + 16 * m + 4 * g) =
                        make_float4(sum[j] * factor, sum[j + 2] * factor, behind[j] * factor, behind[j + 2] * factor);
                }
            }
        }
}

/* A split. step: of the block. */
template <int TILES> DEVICE void add_split(Shared &sh, const Tensors &on, Walk &way, int &step HEAD_PARAMETERS) {
    Sums<TILES> sums;
    sums.clear();
#pragma unroll 1
    for (bool more = true; more; step++) {
        const int slot = step % ATT_SLOTS;
        barrier_wait(&sh.weighed[slot], step / ATT_SLOTS & 1);
        more = !way.done();
        if (more) {
            sums.shrink(sh.shrink[slot], way.work.vectors);
#pragma unroll 1
            for (int i = 0; i < Walk::TILES; i++) {
                if (!way.has(i))
                    continue;
                const int tile = way.number(i, true);
                if (ATT_STORE)
                    make_tile_rows(sh, on, way, i, true HEAD_ARGUMENTS);
                add_values(wait_tile(sh, tile), way.work, way.first + i * ATT_KEYS, i, slot, sums);
                barrier_arrive(&sh.left[tile % ATT_STAGES]);
            }
            way.next(sh.plan);
        } else {
            store_sums(sh, slot, way.work.vectors, sums);
        }
        barrier_arrive(&sh.used[slot]);
    }
}

/* The block's items, by the warps that add. */
DEVICE void add_items(Shared &sh, const Tensors &on, int item HEAD_PARAMETERS) {
    Walk way;
    way.tile = 0;
    for (int n = 0, step = 0; item < sh.plan.items; item = take_item(sh, n++)) {
        way.begin(sh.plan, item);
        do {
            if (way.work.vectors <= 8)
                add_split<1>(sh, on, way, step HEAD_ARGUMENTS);
            else
                add_split<VECTOR_TILES>(sh, on, way, step HEAD_ARGUMENTS);
        } while (way.next_split(sh.plan));
    }
}

/* ==== The warps that bring ==== */

/* The next tile of the item that is brought. */
struct Ahead {
    Cursor cursor;
    int item;

    DEVICE void begin(const Plan &plan, int number) {
        item = number;
        if (item < plan.items) {
            cursor.begin(plan, item);
            skip(plan);
        }
    }
    DEVICE void next(const Plan &plan) {
        cursor.next();
        skip(plan);
    }
    /* Over splits without a tile left: then it is done() with the item. */
    DEVICE void skip(const Plan &plan) {
        while (cursor.done() && cursor.next_split(plan))
            ;
    }
    DEVICE bool ends_soon(const Plan &plan) const {
        return cursor.done() ||
               (cursor.work.end - cursor.tile() * ATT_KEYS <= 2 * ATT_WEIGHED && cursor.work.last_split(plan));
    }
};

/* The first tiles of the first item, and where they are. */
DEVICE void ask_first(Shared &sh, const Tensors &on, Ahead &ahead) {
    int tiles = 0;
#pragma unroll 1
    for (int stage = 0; stage < ATT_STAGES - 1; stage++) {
        Asked asked = {0, stage, 0, 0, 0, false};
        if (ahead.item < sh.plan.items && !ahead.cursor.done()) {
            asked = ask_tile(sh, on, ahead, stage);
            tell_tile(sh, asked);
            tiles++;
        }
        if (bringing_thread() == 0)
            sh.asked[stage] = asked;
    }
    if (bringing_thread() == 0)
        sh.first_tiles = tiles;
}

/* Names the block's next item, number n behind the first. By one thread. */
DEVICE void name_item(Shared &sh, int n, int item) {
    barrier_wait(&sh.taken[n % NAMED], (n / NAMED & 1) ^ 1);
    sh.item[n % NAMED] = item;
    barrier_arrive(&sh.named[n % NAMED]);
}

/* All that is left. An item's last tiles are still to be asked for when the next one is. */
DEVICE void bring_items(Shared &sh, const Tensors &on, Ahead &ahead, int *tail) {
    const bool names = bringing_thread() == 0;
    int tile = sh.first_tiles;
    for (int n = 0; ahead.item < sh.plan.items; n++) {
        int next = ahead.item + gridDim.x;
        bool asked = !sh.plan.merges;
        for (;;) {
            if (names && !asked && ahead.ends_soon(sh.plan)) {
                next = gridDim.x + counter_add(&tail[2], 1);
                asked = true;
            }
            if (ahead.cursor.done())
                break;
            barrier_wait(&sh.left[tile % ATT_STAGES], (tile / ATT_STAGES & 1) ^ 1);
            tell_tile(sh, ask_tile(sh, on, ahead, tile % ATT_STAGES));
            tile++;
        }
        if (names)
            name_item(sh, n, next);
        ahead.begin(sh.plan, take_item(sh, n));
    }
}

/* ==== The kernel ==== */

/* The first item's queries and the first tiles' rows by all who work; then each team has its own. */
DEVICE void work_on_items(Shared &sh, const Tensors &on HEAD_PARAMETERS TABLE_PARAMETERS) {
    const int item = blockIdx.x;
    FetchedQ next;
    if (ATT_EARLY && ATT_STORE)
        previous_kernels_wait();
    if (item < sh.plan.items)
        fetch_first(next, sh.plan, on, work_of(sh.plan, item));
    if (ATT_STORE)
        make_rows(sh, on, {}, true HEAD_ARGUMENTS);
    if (item < sh.plan.items) {
        launch_moment("rows");
        prepare_queries(sh.vectors, sh.plan, on, work_of(sh.plan, item), ATT_WARPS, next HEAD_ARGUMENTS);
        launch_moment("queries");
    }
    workers_meet();
    if (lane_from((int)(threadIdx.x >> 5), 0) < TEAM) {
        weigh_items(sh, on, item HEAD_ARGUMENTS TABLE_ARGUMENTS);
    } else {
        warpgroup_registers_more<256>();
        add_items(sh, on, item HEAD_ARGUMENTS);
    }
}

KERNEL __launch_bounds__(ATT_THREADS + 32 * ATT_BRINGERS, 1)
    ATT_NAME(const float *q, const float *k, const float *v, u8 *cache_k, u8 *cache_v, float *out, float *partials,
             int *tail, const int *query_rows, const int *query_pos, const int *store_pos, const int *slots,
             const int *lengths, const int *query_count, const int *store_count HEAD_PARAMETERS TABLE_PARAMETERS) {
    SHARED Shared sh;
    const Tensors on = {q, k, v, cache_k, cache_v, out, partials};
    next_kernel_release();
    const int warp = lane_from((int)(threadIdx.x >> 5), 0);
    if (threadIdx.x == 32) /* the first warp makes the plan */
        start_barriers(sh);
    bring_heads(shared_bytes + ATT_TABLES_AT HEAD_ARGUMENTS);
    copies_close();
    if (!ATT_EARLY)
        previous_kernels_wait();
    if (warp == 0)
        make_plan(sh.plan, {query_rows, query_pos, store_pos, slots, lengths, query_count, store_count});
    if (ATT_EARLY && !ATT_STORE)
        previous_kernels_wait(); /* this call's rows are among those that tiles are copied from */
    copies_wait<0>();            /* the tables */
    block_sync();
    Ahead ahead;
    if (warp >= ATT_WARPS) {
        ahead.begin(sh.plan, blockIdx.x);
        ask_first(sh, on, ahead);
    }
#if ATT_TURNED
    if (warp < ATT_WARPS)
        turn_rows(sh.plan, ATT_THREADS HEAD_ARGUMENTS);
#endif
    block_sync();
    if (warp >= ATT_WARPS) {
        warpgroup_registers_fewer<56>();
        previous_kernels_wait();
        bring_items(sh, on, ahead, tail);
        return;
    }
    warpgroup_registers_more<192>();
    work_on_items(sh, on HEAD_ARGUMENTS TABLE_ARGUMENTS);
    launch_moment("own");
    if (!sh.plan.merges)
        return;
    int phase = 0;
    auto meet = [&] {
        barrier_arrive(&sh.worked);
        barrier_wait(&sh.worked, phase);
        phase ^= 1;
    };
    merge_all(sh.plan, partials, out, tail, shared_bytes, meet TABLE_ARGUMENTS);
}
