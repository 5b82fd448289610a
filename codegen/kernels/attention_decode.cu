/* attention_decode.cu - attention of 1..16 query rows of one or several sequences: heads are prepared, new keys and
 * values stored, every visible key read once for each K/V head, and the splits merged, in one launch.
 *
 * Contract
 *   ATT_NAME          the kernel's name; the macros of attention_layout.cu
 *   ATT_ROWS          most rows: 8 or 16
 *   ATT_QUERY_ROWS    1: query row r is row query_rows[r] of the call, 0: row r
 *   ATT_STORE         0: the keys and values are in the cache (another layer's); k, v, store_* are not used
 *                     1: this call's rows are stored and count
 *                     2: they count, and the cache stays as it is
 *   ATT_EARLY         1: positions, slots, lengths and counts were there before the kernels that this one follows were
 *                     launched, and so were the keys and values of positions that the call does not store: they are
 *                     read while earlier kernels still run. 0: everything waits for those
 *   ATT_TURNED        query rows, from the first on, of which a block makes the cosines and sines of RoPE once, where
 *                     ATT_EARLY is 1 while earlier kernels run; up to ATT_ROWS, without HEAD_PAIRS 0. Those of other
 *                     rows are made for each head vector: the same numbers
 *   ATT_CHUNK         of attention_plan.cu: keys that are weighed together
 *   ATT_KEYS          keys of a tile: 16, 32 or 64, up to ATT_CHUNK. Both take part in the order of sums: to be chosen
 *                     by shape only
 *   ATT_VECTORS       query vectors of an item, a multiple of 16. With ATT_GROUP * rows of a sequence above it,
 *                     several items read the same keys
 *   ATT_STAGES        tiles in shared memory, at least 2; one less is on its way while one is worked on
 *   ATT_WARPS         8 or 16: of a block. What an item does beside its tiles is a chain of latencies in each warp
 *   ATT_BLOCKS        blocks that should fit on a multiprocessor (caps the registers)
 *   parameters        q, k, v: planes. cache_k, cache_v. out: of attention_merge.cu, for the query rows; partials: of
 *                     it too, aligned to 16 bytes. tail: of tail.cu.
 *                     Query row r stands at query_pos[r] and belongs to slots[ATT_QUERY_ROWS ? query_rows[r] : r].
 *                     Row t of k and v stands at store_pos[t] of slots[t]. lengths[slot]: positions of a sequence after
 *                     this call. query_count, store_count: live rows; query_pos, store_pos and slots can be read up to
 *                     ATT_ROWS elements. HEAD_PARAMETERS, TABLE_PARAMETERS.
 *                     Positions are below ATT_CAPACITY unless it is a ring; a ring holds what a row of the call sees
 *                     besides the rows it stores.
 *   launch            block 32 * ATT_WARPS. Grid: any number of blocks of one dimension that are resident together,
 *                     since they wait for each other in the tail: multiprocessors * the blocks that fit on one, at most
 *                     ATT_BLOCKS. Dynamic shared memory ATT_SHARED, the sum of
 *                       tiles     ATT_STAGES * the larger of a tile of keys and one of values: ATT_KEYS times
 *                                 2 * dim, or, packed, (bytes of the codes | 16) + 2 for each scale, rounded up to 128
 *                       queries   ATT_VECTORS * (2 * ATT_K_DIM + 16)
 *                       weights   ATT_VECTORS * (2 * ATT_CHUNK + 16)
 *                       scratch   4 * ATT_WARPS * max(ATT_K_DIM, ATT_V_DIM)
 *                       tables    HEAD_TABLE_BYTES
 *                       turned    8 * ATT_TURNED * HEAD_PAIRS
 *                     beside less than 4 KB of static memory. The defaults need at most 97 KB in all, which is there
 *                     on every architecture; where there is more, more and larger tiles hide more of the latency.
 *
 * Rows are invariant: splits and chunks are cut by position, a row's logits, weights and sums see its own keys in order
 * of position, and tiles of which it sees nothing leave it as it is: the maximum stays, the weights are 0, what is
 * rescaled is multiplied by 1. Neither ATT_ROWS, ATT_VECTORS, ATT_STAGES, ATT_WARPS, ATT_BLOCKS
 * nor the grid touch a sum.
 *
 * How: a block works on items blockIdx.x, + gridDim.x, .., or with packed tiles in turns (next_item). It prepares an
 * item's queries and goes over the splits of its run, each of which ends for itself. A chunk of keys comes as tiles of
 * K, then as tiles of V, through one ring, which runs ahead over items. The warps share the logits of a tile by keys
 * and vectors, keep them in registers, exchange maxima when the chunk is complete and leave the weights in shared
 * memory; then they share the columns of the output. Rows that the call stores do not come from the cache: the block
 * prepares and rounds them into the tile itself, and some warp of the grid stores the same bits. Packed tiles stay
 * packed until their codes are in registers (attention_forms.cu); queries stand in the order in which those come out.
 * From sm_90 on a tile that is not packed comes by one bulk copy, and one warp asks for all of them.
 */
#ifndef ATT_KEYS
#define ATT_DIM_KEYS (ATT_K_DIM > 256 || ATT_V_DIM > 256 ? 16 : ATT_K_DIM > 128 || ATT_V_DIM > 128 ? 32 : 64)
#define ATT_KEYS     (ATT_DIM_KEYS < ATT_CHUNK ? ATT_DIM_KEYS : ATT_CHUNK)
#endif
#ifndef ATT_VECTORS
#define ATT_VECTORS (ATT_GROUP * ATT_ROWS <= 16 || ATT_K_DIM > 256 || ATT_V_DIM > 256 ? 16 : 32)
#endif
#ifndef ATT_STAGES
#define ATT_STAGES (ATT_K_DIM > 256 || ATT_V_DIM > 256 || (ATT_K_DIM > 128 && ATT_VECTORS > 16) ? 3 : 4)
#endif
#ifndef ATT_BLOCKS
#define ATT_BLOCKS 1
#endif
#ifndef ATT_WARPS
#define ATT_WARPS 8
#endif
#define ATT_THREADS (32 * ATT_WARPS) /* that work on tiles */

#include "attention_queries.cu"

static_assert(ATT_VECTORS % 16 == 0 && ATT_CHUNK % ATT_KEYS == 0 && ATT_KEYS >= 16 && ATT_KEYS <= 64, "tiles");
static_assert(ATT_STAGES >= (bulk_tiles ? 3 : 2), "one tile is worked on while another comes");
static_assert(ATT_WARPS == 8 || ATT_WARPS == 16, "tiles are shared out to them");

/* ==== Who does what ==== */

/* How the warps share the logits of a tile: by 8 keys, then by 16 vectors. */
constexpr int vector_rows = ATT_VECTORS / 16; /* tiles of 16 vectors */
constexpr int key_warps = ATT_KEYS / 8, logit_warps = ATT_WARPS / key_warps;
constexpr int logit_tiles = (vector_rows + logit_warps - 1) / logit_warps;
constexpr int logit_unroll = logit_tiles > 1 ? 2 : 4; /* as registers allow */
/* The first spans of packed keys, whose products are added up apart from those of the last: whole loads. */
template <class Form> DEVICE constexpr int packed_half() {
    return (ATT_K_DIM / 32 + 2 * Form::at_once - 1) / (2 * Form::at_once) * Form::at_once;
}
/* And the output: by groups of columns, 16 or a span of packed values, then by 16 vectors. */
constexpr int group_columns = VForm::packed ? 32 : 16, group_tiles = group_columns / 8;
constexpr int columns = ATT_V_DIM / group_columns;
constexpr int column_warps =
    columns >= ATT_WARPS ? ATT_WARPS : columns >= 8 ? 8 : columns >= 4 ? 4 : columns >= 2 ? 2 : 1;
constexpr int sum_warps = ATT_WARPS / column_warps;
constexpr int sum_tiles = (vector_rows + sum_warps - 1) / sum_warps;
constexpr int sum_columns = (columns + column_warps - 1) / column_warps;

/* A thread's lane, and its warp's part of the work. */
struct Place {
    int warp, lane, g, t;
    int keys, logit_tile; /* first key of its 8 in a tile; first of its tiles of vectors */
    int column, sum_tile; /* first of its groups of columns; first of its tiles of vectors */

    DEVICE Place() {
        warp = threadIdx.x >> 5;
        lane = threadIdx.x & 31;
        g = lane >> 2;
        t = lane & 3;
        keys = warp % key_warps * 8;
        logit_tile = warp / key_warps;
        column = warp % column_warps;
        sum_tile = warp / column_warps;
    }
    DEVICE float *scratch() const {
        return warp_scratch();
    }
};

/* The next tile that is to come, over all items of the block. */
struct Ahead {
    Cursor cursor;
    int item;

    DEVICE void begin(const Plan &plan) {
        item = blockIdx.x;
        if (item < plan.items)
            cursor.begin(plan, item);
        skip(plan);
    }
    DEVICE void next(const Plan &plan) {
        cursor.next();
        skip(plan);
    }
    /* Over splits and items without a tile left. */
    DEVICE void skip(const Plan &plan) {
        while (item < plan.items && cursor.done()) {
            if (cursor.next_split(plan))
                continue;
            item = next_item(item);
            if (item < plan.items)
                cursor.begin(plan, item);
        }
    }
};

struct Shared : Ring {
    Vector vectors[ATT_VECTORS];
    float most[ATT_VECTORS][key_warps]; /* of a chunk, by warp; at the end, the sums of weights */
    float shrink[ATT_VECTORS];          /* what a chunk's larger maximum leaves of the sums before */
    float top[ATT_VECTORS];             /* largest logit of the item */
    Ahead ahead;                        /* with bulk_tiles, of the warp that asks, as is what follows: */
    Asked later[ATT_STAGES];            /* the tiles behind the first */
    u64 told;                           /* the first are asked for */
};

/* ==== An item ==== */

/* Sums of a thread, in the places of mma's accumulators. */
struct Sums {
    float logit[Cursor::TILES][logit_tiles][4]; /* of a chunk */
    float most[logit_tiles][2], weight[logit_tiles][2];
    float out[sum_tiles][sum_columns][group_tiles][4];

    DEVICE void clear_logits() {
#pragma unroll
        for (int i = 0; i < Cursor::TILES; i++)
#pragma unroll
            for (int m = 0; m < logit_tiles; m++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    logit[i][m][j] = minus_infinity();
    }
    DEVICE void clear() {
        clear_logits();
#pragma unroll
        for (int m = 0; m < logit_tiles; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                most[m][half] = minus_infinity();
                weight[m][half] = 0.0f;
            }
#pragma unroll
        for (int m = 0; m < sum_tiles; m++)
#pragma unroll
            for (int n = 0; n < sum_columns; n++)
#pragma unroll
                for (int i = 0; i < 4 * group_tiles; i++)
                    out[m][n][i / 4][i % 4] = 0.0f;
    }
};

/* Products of a tile of keys and the warp's vectors, each as two chains of sums. */
DEVICE void multiply_keys(const Place &at, const Work &w, const u8 *tile, float (&dot)[logit_tiles][2][4]) {
    const u8 *queries = shared_bytes + ATT_QUERIES_AT + 16 * at.logit_tile * row_bytes(ATT_K_DIM);
    const int vectors = w.vectors - 16 * at.logit_tile;
#pragma unroll logit_unroll
    for (int d = 0; d < ATT_K_DIM; d += 32) {
        u32 a[4], b[4];
        load_matrices(b, tile_b<ATT_K_DIM>(tile, at.keys, d));
#pragma unroll
        for (int m = 0; m < logit_tiles; m++) {
            if (16 * m * logit_warps >= vectors)
                continue;
            const u8 *rows = queries + 16 * m * logit_warps * row_bytes(ATT_K_DIM);
            load_matrices(a, matrix_a(rows, row_bytes(ATT_K_DIM), d));
            KForm::multiply(dot[m][0], a, b[0], b[1]);
            if (d + 16 >= ATT_K_DIM)
                continue;
            load_matrices(a, matrix_a(rows, row_bytes(ATT_K_DIM), d + 16));
            KForm::multiply(dot[m][1], a, b[2], b[3]);
        }
    }
}

/* The same of packed keys, those of the first and of the last spans apart; `only` 0 or 1: just these, -1: both. Each
 * half is two chains of sums. A lane has the spans of its key g, as pairs that meet the queries' columns. */
template <class Form>
DEVICE void multiply_packed_keys(const Place &at, const u8 *tile, int vector_tile, int vectors, int only,
                                 float (&dot)[logit_tiles][2][4]) {
    constexpr int stride = code_stride<Form, ATT_K_DIM>(), spans = ATT_K_DIM / 32, half = packed_half<Form>();
    const u8 *queries = shared_bytes + ATT_QUERIES_AT + 16 * vector_tile * row_bytes(ATT_K_DIM);
    const u8 *keys = tile + (at.keys + (at.lane & 7)) * stride;
    const u16 *scales = (const u16 *)(tile + ATT_KEYS * stride) + at.keys + at.g;
    float other[logit_tiles][2][4] = {}; /* the second chains */
#pragma unroll 1
    for (int j = 0; j < half; j += Form::at_once)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int first = c * half + j;
            u32 r[4];
            if (first >= spans || c == 1 - only)
                continue;
            load_matrices(r, keys + Form::template key_piece<ATT_K_DIM>(first, at.lane >> 3));
#pragma unroll
            for (int i = 0; i < Form::at_once; i++) {
                const int span = first + i;
                u32 codes[2], b[4];
                if (spans % Form::at_once != 0 && span >= spans)
                    continue;
                Form::key_words(r, i, codes[0], codes[1]);
                Form::unpack(b, codes[0], codes[1], i);
                const u16 scale = scales[span * 32 / Form::group * ATT_KEYS];
                scale_pairs(b, f16_pair(scale, scale));
#pragma unroll
                for (int m = 0; m < logit_tiles; m++) {
                    u32 a[4];
                    if (16 * m * logit_warps >= vectors)
                        continue;
                    const u8 *rows = queries + 16 * m * logit_warps * row_bytes(ATT_K_DIM);
                    load_matrices(a, matrix_a(rows, row_bytes(ATT_K_DIM), 32 * span));
                    Form::multiply(dot[m][c], a, b[0], b[1]);
                    load_matrices(a, matrix_a(rows, row_bytes(ATT_K_DIM), 32 * span + 16));
                    Form::multiply(other[m][c], a, b[2], b[3]);
                }
            }
        }
#pragma unroll
    for (int m = 0; m < logit_tiles; m++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            dot[m][i / 4][i % 4] += other[m][i / 4][i % 4];
}

/* Products of packed keys. With one tile of vectors two warps share those of 8 keys: the second has the last spans, and
 * leaves its half to the first; in the same order as if one had all. By all warps; false: no products for this one. */
template <class Form>
DEVICE bool share_packed_keys(const Place &at, const Work &w, const u8 *tile, float (&dot)[logit_tiles][2][4]) {
    constexpr bool halves = logit_warps > 1 && packed_half<Form>() < ATT_K_DIM / 32 && ATT_WIDE >= 128;
    if (halves && w.vectors <= 16) {
        float *mine = at.scratch() + 4 * at.lane, *of_second = mine + key_warps * ATT_WIDE;
        if (at.logit_tile < 2)
            multiply_packed_keys<Form>(at, tile, 0, w.vectors, at.logit_tile, dot);
        if (at.logit_tile == 1)
            *(float4 *)mine = make_float4(dot[0][1][0], dot[0][1][1], dot[0][1][2], dot[0][1][3]);
        workers_meet();
        if (at.logit_tile != 0)
            return false;
        const float4 second = *(const float4 *)of_second;
        dot[0][1][0] = second.x;
        dot[0][1][1] = second.y;
        dot[0][1][2] = second.z;
        dot[0][1][3] = second.w;
        return true;
    }
    if (16 * at.logit_tile >= w.vectors)
        return false;
    multiply_packed_keys<Form>(at, tile, at.logit_tile, w.vectors - 16 * at.logit_tile, -1, dot);
    return true;
}

/* Logits of a tile of keys into sums.logit[in_chunk]. */
DEVICE void add_logits(const Shared &sh, const Place &at, const Work &w, const u8 *tile, int in_chunk, int first,
                       Sums &sums TABLE_PARAMETERS) {
    float dot[logit_tiles][2][4] = {};
    if constexpr (KForm::packed) {
        if (!share_packed_keys<KForm>(at, w, tile, dot))
            return;
    } else {
        if (16 * at.logit_tile >= w.vectors)
            return;
        multiply_keys(at, w, tile, dot);
    }
#pragma unroll
    for (int m = 0; m < logit_tiles; m++) {
        const int vector = 16 * (at.logit_tile + m * logit_warps);
        if (vector >= w.vectors)
            continue;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Vector &v = sh.vectors[vector + at.g + i / 2 * 8];
            const int key = first + at.keys + 2 * at.t + i % 2;
            const bool seen = key < v.high && visible(v.pos, key, v.head TABLE_ARGUMENTS);
            const float s = logit(v.pos, key, v.head, dot[m][0][i] + dot[m][1][i] TABLE_ARGUMENTS);
#pragma unroll
            for (int j = 0; j < Cursor::TILES; j++)
                sums.logit[j][m][i] = j != in_chunk ? sums.logit[j][m][i] : seen ? s : minus_infinity();
        }
    }
}

/* The largest logit of a chunk for each vector, over the warp's keys, to shared memory. */
DEVICE void offer_most(Shared &sh, const Place &at, const Work &w, const Sums &sums) {
#pragma unroll
    for (int m = 0; m < logit_tiles; m++) {
        const int vector = 16 * (at.logit_tile + m * logit_warps);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = minus_infinity();
#pragma unroll
            for (int j = 0; j < Cursor::TILES; j++)
                most = fmaxf(most, fmaxf(sums.logit[j][m][2 * half], sums.logit[j][m][2 * half + 1]));
            most = fmaxf(most, lane_swap(most, 1));
            most = fmaxf(most, lane_swap(most, 2));
            if (vector < w.vectors && at.t == 0)
                sh.most[vector + at.g + 8 * half][at.keys / 8] = most;
        }
    }
}

/* Logits of a chunk become weights, in shared memory; the sums so far are to shrink by what the maximum has grown. */
DEVICE void weigh_chunk(Shared &sh, const Place &at, const Work &w, Sums &sums) {
    offer_most(sh, at, w, sums);
    workers_meet();
#pragma unroll
    for (int m = 0; m < logit_tiles; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int vector = 16 * (at.logit_tile + m * logit_warps) + at.g + 8 * half;
            if (vector >= (w.vectors + 15) / 16 * 16)
                continue;
            const float before = sums.most[m][half];
            float most = before;
#pragma unroll
            for (int i = 0; i < key_warps; i++)
                most = fmaxf(most, sh.most[vector][i]);
            const bool none = most == minus_infinity();
            const float shrink = none ? 1.0f : exp2_fast(before - most);
            float weight = 0.0f;
            u8 *to = shared_bytes + ATT_WEIGHTS_AT + vector * row_bytes(ATT_CHUNK) + 2 * (at.keys + 2 * at.t);
#pragma unroll
            for (int j = 0; j < Cursor::TILES; j++) {
                const float low = none ? 0.0f : exp2_fast(sums.logit[j][m][2 * half] - most);
                const float high = none ? 0.0f : exp2_fast(sums.logit[j][m][2 * half + 1] - most);
                weight += low + high;
                *(u32 *)(to + 2 * j * ATT_KEYS) = VForm::round_pair(low, high);
            }
            sums.weight[m][half] = multiply_add(sums.weight[m][half], shrink, weight);
            sums.most[m][half] = most;
            if (at.keys == 0 && at.t == 0)
                sh.shrink[vector] = shrink;
        }
}

DEVICE void shrink_sums(const Shared &sh, const Place &at, const Work &w, Sums &sums) {
#pragma unroll
    for (int m = 0; m < sum_tiles; m++) {
        const int vector = 16 * (at.sum_tile + m * sum_warps) + at.g;
        if (vector >= w.vectors)
            continue;
        const float low = sh.shrink[vector], high = sh.shrink[vector + 8];
#pragma unroll
        for (int n = 0; n < sum_columns; n++)
#pragma unroll
            for (int i = 0; i < 4 * group_tiles; i++)
                sums.out[m][n][i / 4][i % 4] *= i % 4 < 2 ? low : high;
    }
}

/* Weights of 16 keys of the chunk, from number `key` on, as operands: a[tile of 16 vectors]. */
DEVICE void load_weights(const Place &at, const Work &w, int key, u32 (&a)[sum_tiles][4]) {
    const u8 *weights = shared_bytes + ATT_WEIGHTS_AT;
#pragma unroll
    for (int m = 0; m < sum_tiles; m++) {
        const int vector = 16 * (at.sum_tile + m * sum_warps);
        if (vector < w.vectors)
            load_matrices(a[m], matrix_a(weights + vector * row_bytes(ATT_CHUNK), row_bytes(ATT_CHUNK), key));
    }
}

/* out += weights of a tile's keys x its values. */
DEVICE void add_values(const Place &at, const Work &w, const u8 *tile, int in_chunk, Sums &sums) {
#pragma unroll
    for (int k = 0; k < ATT_KEYS; k += 16) {
        u32 a[sum_tiles][4];
        load_weights(at, w, in_chunk * ATT_KEYS + k, a);
#pragma unroll
        for (int n = 0; n < sum_columns; n++) {
            const int column = at.column + n * column_warps;
            u32 b[4];
            if (column >= columns)
                continue;
            load_matrices_transposed(b, tile_a<ATT_V_DIM>(tile, k, 16 * column));
#pragma unroll
            for (int m = 0; m < sum_tiles; m++)
                if (16 * (at.sum_tile + m * sum_warps) < w.vectors) {
                    VForm::multiply(sums.out[m][n][0], a[m], b[0], b[1]);
                    VForm::multiply(sums.out[m][n][1], a[m], b[2], b[3]);
                }
        }
    }
}

/* Scales of two neighbouring keys; 0 for those that the item does not see, whose scales may be anything. */
DEVICE u32 value_scales(const u16 *scales, int key, bool whole, int low, int high) {
    const u32 pair = *(const u32 *)(scales + key);
    if (whole)
        return pair;
    return (key >= low && key < high ? pair & 0xffffu : 0) |
           (key + 1 >= low && key + 1 < high ? pair & 0xffff0000u : 0);
}

/* The same of packed values: a lane has its unit of a span, of 4 keys for each 16. first: the tile's first key. */
template <class Form>
DEVICE void add_packed_values(const Place &at, const Work &w, const u8 *tile, int in_chunk, int first, Sums &sums) {
    constexpr int stride = code_stride<Form, ATT_V_DIM>();
    const u8 *values = tile + ((at.lane & 7) + (at.lane >> 4) * 8) * stride;
    const u16 *scales = (const u16 *)(tile + ATT_KEYS * stride);
    const int low = w.start - first, high = w.end - first;
    const bool whole = low <= 0 && high >= ATT_KEYS;
#pragma unroll
    for (int k = 0; k < ATT_KEYS; k += 16) {
        u32 a[sum_tiles][4];
        load_weights(at, w, in_chunk * ATT_KEYS + k, a);
#pragma unroll
        for (int n = 0; n < sum_columns; n++) {
            const int span = at.column + n * column_warps;
            u32 r[4], near[4], far[4]; /* keys 0..7, keys 8..15 */
            if (span >= columns)
                continue;
            load_matrices_transposed(r, values + k * stride +
                                            Form::template value_piece<ATT_V_DIM>(span, at.lane >> 3 & 1));
            Form::unpack(near, r[0], r[1], span);
            Form::unpack(far, r[2], r[3], span);
            const u16 *of_span = scales + span * 32 / Form::group * ATT_KEYS;
            scale_pairs(near, value_scales(of_span, k + 2 * at.t, whole, low, high));
            scale_pairs(far, value_scales(of_span, k + 8 + 2 * at.t, whole, low, high));
#pragma unroll
            for (int m = 0; m < sum_tiles; m++)
                if (16 * (at.sum_tile + m * sum_warps) < w.vectors)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        Form::multiply(sums.out[m][n][i], a[m], near[i], far[i]);
        }
    }
}

/* ==== The end of an item ==== */

/* Sums of weights over the keys of the warps, and what becomes of each vector: sh.shrink is what its sums are
 * multiplied by, 1 for a partial result. */
DEVICE void finish_weights(Shared &sh, const Tensors &on, const Place &at, const Work &w,
                           const Sums &sums TABLE_PARAMETERS) {
#pragma unroll
    for (int m = 0; m < logit_tiles; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int vector = 16 * (at.logit_tile + m * logit_warps) + at.g + 8 * half;
            float weight = sums.weight[m][half];
            weight += lane_swap(weight, 1);
            weight += lane_swap(weight, 2);
            if (vector >= w.vectors || at.t != 0)
                continue;
            sh.most[vector][at.keys / 8] = weight;
            if (at.keys == 0)
                sh.top[vector] = sums.most[m][half];
        }
    workers_meet();
    for (int v = threadIdx.x; v < w.vectors; v += ATT_THREADS) {
        const Vector &of = sh.vectors[v];
        const Range &range = sh.plan.range[of.row];
        float weight = 0.0f;
        for (int i = 0; i < key_warps; i++)
            weight += sh.most[v][i];
        if (!range.merges()) {
            sh.shrink[v] = last_factor(sh.top[v], weight, of.head TABLE_ARGUMENTS);
            continue;
        }
        sh.shrink[v] = 1.0f;
        if (range.has(w.split))
            *partial_weights(on.partials, partial_at(of.row, of.head, w.split - range.first_split())) =
                make_float2(sh.top[v], weight);
    }
    workers_meet();
}

/* Where the weighted sum of a vector goes; nullptr: the row does not see the split. */
DEVICE float *result_of(const Shared &sh, const Tensors &on, const Work &w, int vector) {
    const Vector &of = sh.vectors[vector];
    const Range &range = sh.plan.range[of.row];
    if (vector >= w.vectors || !range.has(w.split))
        return nullptr;
    if (!range.merges())
        return on.out + ((u64)of.row * ATT_HEADS + of.head) * ATT_V_DIM;
    return partial_values(on.partials, partial_at(of.row, of.head, w.split - range.first_split()));
}

DEVICE void finish_item(Shared &sh, const Tensors &on, const Place &at, const Work &w,
                        const Sums &sums TABLE_PARAMETERS) {
    finish_weights(sh, on, at, w, sums TABLE_ARGUMENTS);
#pragma unroll
    for (int m = 0; m < sum_tiles; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int vector = 16 * (at.sum_tile + m * sum_warps) + at.g + 8 * half;
            float *to = vector < w.vectors ? result_of(sh, on, w, vector) : nullptr;
            if (!to)
                continue;
            const float factor = sh.shrink[vector];
#pragma unroll
            for (int n = 0; n < sum_columns; n++) {
                const int column = at.column + n * column_warps;
                if constexpr (VForm::packed) {
                    /* A lane's columns of a span: units 2 t and 2 t + 1. */
                    const auto &sum = sums.out[m][n];
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++)
                        if (column < columns)
                            *(float4 *)(to + 32 * column + 8 * at.t + 4 * (i % 2)) = make_float4(
                                sum[0][i] * factor, sum[1][i] * factor, sum[2][i] * factor, sum[3][i] * factor);
                } else {
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        if (column < columns)
                            *(float2 *)(to + 16 * column + 8 * i + 2 * at.t) = make_float2(
                                sums.out[m][n][i][2 * half] * factor, sums.out[m][n][i][2 * half + 1] * factor);
                }
            }
        }
    workers_meet();
}

/* ==== The kernel ==== */

/* Where a block is in its item: at the next tile of its cursor. */
struct Progress {
    Cursor cursor;
    Sums sums;
    bool begins; /* a chunk, when at keys; its values, when at values */
};

/* Works on a tile that has come. */
DEVICE void use_tile(Shared &sh, const Place &at, Progress &p, const u8 *tile TABLE_PARAMETERS) {
    const Work &w = p.cursor.work;
    const int in_chunk = p.cursor.in_chunk(), first = p.cursor.tile() * ATT_KEYS;
    const bool values = p.cursor.at_values();
    p.cursor.next();
    if (!values) {
        if (p.begins)
            p.sums.clear_logits();
        add_logits(sh, at, w, tile, in_chunk, first, p.sums TABLE_ARGUMENTS);
        p.begins = p.cursor.at_values();
        if (p.begins)
            weigh_chunk(sh, at, w, p.sums);
    } else {
        if (p.begins)
            shrink_sums(sh, at, w, p.sums);
        if constexpr (VForm::packed)
            add_packed_values<VForm>(at, w, tile, in_chunk, first, p.sums);
        else
            add_values(at, w, tile, in_chunk, p.sums);
        p.begins = !p.cursor.at_values();
    }
}

/* The block's way around the ring. */
struct Turn {
    int stage, tiles; /* of the tile that is worked on next; worked on */
    u32 parity;

    DEVICE void next() {
        tiles++;
        if (++stage == ATT_STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/* With bulk_tiles: the warp that asks, which is the last to make queries: the others get ahead meanwhile. */
enum { ASKER = ATT_WARPS - 1 };
/* Named barriers: for the others, and for it, that what rows turn by is there. */
enum { TURNED = 1, ALL_TURNED };

/* The next tile, by the warp that asks. Its rows of this call are to be made behind the next block_sync(). */
DEVICE void ask_alone(Shared &sh, const Tensors &on, int stage) {
    Asked asked = {0, stage, 0, 0, 0, false};
    Ahead ahead = sh.ahead;
    const bool more = ahead.item < sh.plan.items;
    if (more)
        asked = ask_tile(sh, on, ahead, stage);
    warp_sync();
    if (bringing_thread() == 0) {
        sh.later[stage] = asked;
        if (more)
            sh.ahead = ahead;
    }
    warp_sync();
}

/* The next tile is there, with the rows of this call, and another is asked for; then use_tile(). */
DEVICE void next_tile(Shared &sh, const Tensors &on, const Place &at, Ahead &ahead, const Turn &turn HEAD_PARAMETERS) {
    const int left = turn.stage ? turn.stage - 1 : ATT_STAGES - 1; /* the stage of the tile before */
    if (bulk_tiles) {
        barrier_wait(&sh.filled[turn.stage], turn.parity);
        block_sync();
        if (at.warp == ASKER)
            ask_alone(sh, on, left);
        const Asked &asked = sh.later[left ? left - 1 : ATT_STAGES - 1];
        if (ATT_STORE && asked.fresh)
            make_rows(sh, on, asked, false HEAD_ARGUMENTS);
    } else {
        copies_wait<ATT_STAGES - 2>();
        block_sync();
        const Asked asked = ask_tile(sh, on, ahead, left);
        if (ATT_STORE && asked.fresh)
            make_rows(sh, on, asked, false HEAD_ARGUMENTS);
    }
    if (turn.tiles == 0) {
        launch_moment("first");
    }
}

/* Works on the split that the cursor is at, whose queries are there. */
DEVICE void add_split(Shared &sh, const Tensors &on, const Place &at, Ahead &ahead, Progress &p,
                      Turn &turn HEAD_PARAMETERS TABLE_PARAMETERS) {
    p.begins = true;
    p.sums.clear(); /* now, as preparing needs the registers */
    for (; !p.cursor.done(); turn.next()) {
        next_tile(sh, on, at, ahead, turn HEAD_ARGUMENTS);
        use_tile(sh, at, p, shared_bytes + turn.stage * ATT_STAGE_BYTES TABLE_ARGUMENTS);
    }
}

/* The block's items, with the first tiles under way. */
DEVICE void work_on_items(Shared &sh, const Tensors &on, const Place &at,
                          Ahead &ahead HEAD_PARAMETERS TABLE_PARAMETERS) {
    Progress p;
    FetchedQ next;
    Turn turn = {0, 0, 0};
    int item = blockIdx.x;
    if (item < sh.plan.items)
        p.cursor.begin(sh.plan, item);
    if (ATT_EARLY && ATT_STORE)
        previous_kernels_wait();
    if (item < sh.plan.items)
        fetch_first(next, sh.plan, on, p.cursor.work);
    if (ATT_STORE) {
        if (bulk_tiles && ASKER - at.warp < (ATT_STAGES - 1) * sh.plan.stored) /* has rows of tiles to make */
            barrier_wait(&sh.told, 0);
        make_rows(sh, on, {}, true HEAD_ARGUMENTS);
    }
    if (item < sh.plan.items) {
        launch_moment("rows");
    }
    for (bool begins = true; item < sh.plan.items;) {
        if (begins) {
            prepare_queries(sh.vectors, sh.plan, on, p.cursor.work, ATT_WARPS, next HEAD_ARGUMENTS);
            launch_moment("queries");
        }
        add_split(sh, on, at, ahead, p, turn HEAD_ARGUMENTS TABLE_ARGUMENTS);
        const Work done = p.cursor.work;
        begins = !p.cursor.next_split(sh.plan);
        if (begins)
            item = next_item(item);
        if (begins && item < sh.plan.items) {
            p.cursor.begin(sh.plan, item);
            fetch_first(next, sh.plan, on, p.cursor.work);
        }
        finish_item(sh, on, at, done, p.sums TABLE_ARGUMENTS);
    }
}

/* The first tiles, and where they are; by those who bring. */
DEVICE void ask_first(Shared &sh, const Tensors &on, Ahead &ahead) {
#pragma unroll 1
    for (int stage = 0; stage < ATT_STAGES - 1; stage++) {
        const Asked asked = ask_tile(sh, on, ahead, stage);
        if (bringing_thread() == 0)
            sh.asked[stage] = asked;
    }
}

/* The same by the warp that asks, while the others make what the rows turn by. */
DEVICE void begin_alone(Shared &sh, const Tensors &on, const Place &at HEAD_PARAMETERS) {
    if (at.warp == ASKER) {
        Ahead ahead;
        ahead.begin(sh.plan);
        ask_first(sh, on, ahead);
        if (bringing_thread() < ATT_STAGES)
            sh.later[bringing_thread()].fresh = 0;
        if (bringing_thread() == 0)
            sh.ahead = ahead;
        warp_sync();
        if (bringing_thread() == 0)
            barrier_arrive(&sh.told);
        if (ATT_TURNED)
            warps_meet(ALL_TURNED, ATT_THREADS);
    }
#if ATT_TURNED
    else {
        turn_rows(sh.plan, ATT_THREADS - 32 HEAD_ARGUMENTS);
        warps_meet(TURNED, ATT_THREADS - 32);
        warps_arrive(ALL_TURNED, ATT_THREADS);
    }
#endif
}

KERNEL __launch_bounds__(ATT_THREADS, ATT_BLOCKS)
    ATT_NAME(const float *q, const float *k, const float *v, u8 *cache_k, u8 *cache_v, float *out, float *partials,
             int *tail, const int *query_rows, const int *query_pos, const int *store_pos, const int *slots,
             const int *lengths, const int *query_count, const int *store_count HEAD_PARAMETERS TABLE_PARAMETERS) {
    SHARED Shared sh;
    const Tensors on = {q, k, v, cache_k, cache_v, out, partials};
    const Place at;
    next_kernel_release();
    if (bulk_tiles && threadIdx.x == 32) { /* the first warp makes the plan */
        for (int i = 0; i < ATT_STAGES; i++)
            barrier_init(&sh.filled[i], 1);
        barrier_init(&sh.told, 1);
        barrier_publish();
    }
    bring_heads(shared_bytes + ATT_TABLES_AT HEAD_ARGUMENTS);
    copies_close();
    if (!ATT_EARLY)
        previous_kernels_wait();
    if (at.warp == 0)
        make_plan(sh.plan, {query_rows, query_pos, store_pos, slots, lengths, query_count, store_count});
    if (ATT_EARLY && !ATT_STORE)
        previous_kernels_wait(); /* this call's rows are among those that tiles are copied from */
    copies_wait<0>(); /* the tables */
    block_sync();
    Ahead ahead; /* without bulk_tiles */
    if (bulk_tiles) {
        begin_alone(sh, on, at HEAD_ARGUMENTS);
    } else {
        ahead.begin(sh.plan);
        ask_first(sh, on, ahead);
#if ATT_TURNED
        turn_rows(sh.plan, ATT_THREADS HEAD_ARGUMENTS);
#endif
        block_sync();
    }
    work_on_items(sh, on, at, ahead HEAD_ARGUMENTS TABLE_ARGUMENTS);
    launch_moment("own");
    if (sh.plan.merges)
        merge_all(sh.plan, partials, out, tail, shared_bytes, [] { block_sync(); } TABLE_ARGUMENTS);
}
