/* attention_prefill.cu - prefill, second launch: flash attention of many query rows of one sequence over its cache,
 * which already holds the call's own rows (attention_heads.cu).
 *
 * Contract
 *   ATT_NAME       the kernel's name; the macros of attention_layout.cu, but q, k and v are not read
 *   ATT_QUERIES    query rows of a block, a multiple of 32
 *   ATT_TILE       keys of a tile, a multiple of 16 and of 8 * column groups
 *   ATT_BLOCKS     blocks that should fit on a multiprocessor
 *   parameters     q16 u16 [rows][ATT_HEADS][ATT_K_DIM], prepared; cache_k, cache_v;
 *                  out f32 [rows][ATT_HEADS][ATT_V_DIM]; query_pos: of each row, in any order, though rows near each
 *                  other should be neighbours; slots[0]: the sequence; lengths: by sequence, positions after this
 *                  call; query_count: live rows; with ATT_SPARSE kept (attention_kept.cu); TABLE_PARAMETERS
 *   launch         grid (ATT_HEADS, at least ceil(rows / ATT_QUERIES)): heads run together and find each other's keys
 *                  in the L2 cache; the last rows, which have most keys, come first. Block ATT_THREADS = 32 *
 *                  (ATT_QUERIES / 32) * column groups, which are 1 for ATT_V_DIM up to 128, 2 up to 256, else 4.
 *                  Dynamic shared memory ATT_SHARED, the sum of
 *                    queries    ATT_QUERIES * row(ATT_K_DIM)
 *                    keys       ATT_TILE * row(ATT_K_DIM), or packed: ATT_TILE * ((bytes of the codes | 16) + 2 for
 *                               each scale), rounded up to 128
 *                    values     the same with ATT_V_DIM
 *                    weights    ATT_QUERIES * row(ATT_TILE)           with several column groups
 *                    maxima     4 * column groups * ATT_QUERIES      with several column groups
 *                    positions  4 * ATT_QUERIES
 *                    kept       8 * SPARSE_WORDS                      with ATT_SPARSE
 *                  with row(n) = 2 n for n = 32 and multiples of 64, else 2 n + 16. Default: at most 99 KB.
 *
 *   dims              queries x keys   bytes     for
 *   512               64 x 64          206080    sm_90: 64 KB each of queries, keys and values
 *   512               32 x 32          100992    99 KB: sm_86, sm_89, sm_120
 *   256               128 x 64         148992    sm_80, sm_90
 *   256               64 x 64          107264    two blocks on sm_90
 *   256               64 x 32          70400     99 KB
 *   128               128 x 32         49664     all
 *   64                128 x 64         33280     all
 *
 * How: a warp owns 32 rows and one group of columns of the output (at most 128, so that 128 registers hold it), and for
 * the logits the same rows and one group of keys. So each fragment of keys and values meets two of rows. With several
 * groups, row maxima and weights go through shared memory. One buffer of keys and one of values: the next keys come
 * under softmax and values, the values under the logits; three barriers a tile.
 *
 * Per tile of 64 keys, dims 256, 128 rows: 2048 products of 16 x 8 x 16, which take 1.6 clocks of a multiprocessor of
 * sm_90 each: 3280. Shared memory gives 128 bytes a clock: logits load 2 + 2 fragments of 512 bytes for 8 products,
 * weighted sums 2 + 8 for 32: 416 KB, 3330 clocks. Dims 512, 64 rows: logits 2 + 1 for 4, 544 KB, 4350 clocks.
 *
 * Packed keys and values stay so until they are fragments in registers (attention_forms.cu), in each row group anew:
 * with four of them, as above, 512 spans of a warp for each tile of keys and its values.
 *
 * Tiles of which no row sees a key are left out by tile_class(), and those of which all rows see all keys have no mask.
 */
#ifndef ATT_NAME
#define ATT_NAME attention_prefill
#endif

#include "attention_kept.cu"

#ifndef ATT_QUERIES
#define ATT_QUERIES (ATT_K_DIM > 256 || ATT_V_DIM > 256 ? 32 : ATT_K_DIM > 128 || ATT_V_DIM > 128 ? 64 : 128)
#endif
#ifndef ATT_TILE
#define ATT_TILE (ATT_K_DIM > 64 || ATT_V_DIM > 64 ? 32 : 64)
#endif
#ifndef ATT_BLOCKS
#define ATT_BLOCKS 1
#endif

constexpr int column_groups = ATT_V_DIM > 256 ? 4 : ATT_V_DIM > 128 ? 2 : 1, row_groups = ATT_QUERIES / 32;
constexpr int warp_keys = ATT_TILE / column_groups, warp_columns = ATT_V_DIM / column_groups;
constexpr int key_tiles = warp_keys / 8, column_tiles = warp_columns / 8;
#define ATT_THREADS (32 * row_groups * column_groups)

static_assert(ATT_QUERIES % 32 == 0 && ATT_TILE % 16 == 0 && warp_keys % 8 == 0, "tiles");
static_assert(ATT_V_DIM % ((VForm::packed ? 32 : 16) * column_groups) == 0, "a warp's columns");
static_assert(!VForm::rotated || warp_columns == 128, "a warp has whole groups of the rotation");

/* ==== Shared memory ==== */

/* Rows of D elements whose pieces of 16 bytes are exchanged within 128 bytes, so that 8 rows of one column lie in
 * different banks; or, where that does not work out, with a piece more. */
template <int D> struct Lines {
    static constexpr bool wide = D % 64 == 0, narrow = D == 32;
    static constexpr int stride = wide || narrow ? 2 * D : 2 * D + 16;

    static DEVICE int at(int row, int piece) {
        const int turn = wide ? row & 7 : narrow ? row >> 1 & 3 : 0;
        return row * stride + ((piece ^ turn) << 4);
    }
    /* From at(row, p) to at(row, p + by), if p has no bit in common with by. */
    static DEVICE int step(int at, int by) {
        return wide ? (at ^ (by & 7) << 4) + (by >> 3 << 7) : narrow ? at ^ by << 4 : at + (by << 4);
    }
};

typedef Lines<ATT_K_DIM> KeyLines; /* of queries, too */
typedef Lines<ATT_V_DIM> ValueLines;
typedef Lines<ATT_TILE> WeightLines;

template <class Form, int D> DEVICE constexpr int tile_bytes() {
    if constexpr (Form::packed)
        return packed_bytes<Form, D>(ATT_TILE);
    else
        return ATT_TILE * Lines<D>::stride;
}
constexpr int k_tile_bytes = tile_bytes<KForm, ATT_K_DIM>(), v_tile_bytes = tile_bytes<VForm, ATT_V_DIM>();

#define ATT_KEYS_AT      (ATT_QUERIES * KeyLines::stride)
#define ATT_VALUES_AT    (ATT_KEYS_AT + k_tile_bytes)
#define ATT_WEIGHTS_AT   (ATT_VALUES_AT + v_tile_bytes)
#define ATT_MAXIMA_AT    (ATT_WEIGHTS_AT + (column_groups > 1 ? ATT_QUERIES * WeightLines::stride : 0))
#define ATT_POSITIONS_AT (ATT_MAXIMA_AT + (column_groups > 1 ? 4 * column_groups * ATT_QUERIES : 0))
#define ATT_KEPT_AT      (ATT_POSITIONS_AT + 4 * ATT_QUERIES)
#define ATT_SHARED       (ATT_KEPT_AT + KEPT_BYTES)

static_assert(ATT_VALUES_AT % 128 == 0 && ATT_WEIGHTS_AT % 128 == 0, "Lines::step() adds by exclusive or");

DYNAMIC_SHARED u8 shared_bytes[];

DEVICE float *maxima(int group) {
    return (float *)(shared_bytes + ATT_MAXIMA_AT) + group * ATT_QUERIES;
}

DEVICE int *positions() {
    return (int *)(shared_bytes + ATT_POSITIONS_AT);
}

#include "attention_block.cu"

/* ==== Copies ==== */

DEVICE void copy_queries(const Block &b, const u16 *q16) {
    constexpr int pieces = ATT_K_DIM / 8;
    for (int i = threadIdx.x; i < ATT_QUERIES * pieces; i += ATT_THREADS) {
        const int row = i / pieces, piece = i % pieces;
        const bool inside = row < b.rows;
        copy16_async(shared_bytes + KeyLines::at(row, piece),
                     q16 + ((u64)(b.first + (inside ? row : 0)) * ATT_HEADS + b.head) * ATT_K_DIM + 8 * piece, inside);
    }
}

/* A tile's rows of keys or values; zeros where nobody looks. */
template <class Form, int D> DEVICE void copy_elements(const Block &b, const u8 *cache, int at, int tile) {
    constexpr int pieces = D / 8, all = ATT_TILE * pieces;
    const int first = tile * ATT_TILE, start = place_of(first);
    const u8 *from = cache + cache_at<Form, D>(b.slot, 0, b.kv_head);
    const bool whole = first >= b.low && first + ATT_TILE <= b.high;
#pragma unroll 4
    for (int round = 0; round < (all + ATT_THREADS - 1) / ATT_THREADS; round++) {
        const int i = round * ATT_THREADS + threadIdx.x, key = i / pieces, piece = i % pieces;
        if (all % ATT_THREADS != 0 && i >= all)
            break;
        const bool inside = whole || (first + key >= b.low && first + key < b.high);
        const int place = inside ? wrapped(start + key) : 0;
        copy16_async(shared_bytes + at + Lines<D>::at(key, piece),
                     from + (u64)place * (2 * D) + 16 * piece_at<D>(place, piece), inside);
    }
}

/* The same of packed ones. Of the scales come those of 8 neighbouring keys at a time, of which one at least is looked
 * at; what the others get is anything. */
template <class Form, int D> DEVICE void copy_packed(const Block &b, const u8 *cache, int at, int tile) {
    constexpr int pieces = code_bytes<Form, D>() / 16, all = ATT_TILE * pieces;
    constexpr int eights = ATT_TILE / 8, all_scales = D / Form::group * eights;
    const int first = tile * ATT_TILE, start = place_of(first);
    const u8 *codes = cache + cache_at<Form, D>(b.slot, 0, b.kv_head);
    const u8 *scales = cache + scales_at<Form, D>(b.slot, 0, b.kv_head);
#pragma unroll 1
    for (int i = threadIdx.x; i < all + all_scales; i += ATT_THREADS) {
        const bool of_codes = i < all;
        const int key = of_codes ? i / pieces : (i - all) % eights * 8, keys = of_codes ? 1 : 8;
        const bool inside = first + key + keys > b.low && first + key < b.high;
        const int place = inside ? wrapped(start + key) : 0;
        const u8 *from = of_codes ? codes + (u64)place * (ATT_KV_HEADS * code_bytes<Form, D>()) + i % pieces * 16
                                  : scales + 2 * ((u64)((i - all) / eights) * ATT_PLACES + place);
        const int to = of_codes ? key * code_stride<Form, D>() + i % pieces * 16
                                : ATT_TILE * code_stride<Form, D>() + 16 * (i - all);
        copy16_async(shared_bytes + at + to, from, inside);
    }
}

template <class Form, int D> DEVICE void copy_tile(const Block &b, const u8 *cache, int at, int tile) {
    if constexpr (Form::packed)
        copy_packed<Form, D>(b, cache, at, tile);
    else
        copy_elements<Form, D>(b, cache, at, tile);
}

/* ==== A warp's tile ==== */

struct Place {
    int lane, g, t;
    int row, group; /* first of its 32 rows; its group of columns and keys */

    DEVICE Place() {
        lane = threadIdx.x & 31;
        g = lane >> 2;
        t = lane & 3;
        row = (threadIdx.x >> 5) % row_groups * 32;
        group = (threadIdx.x >> 5) / row_groups;
    }
};

/* Sums of a thread: [tile of 16 rows]; in each, rows g and g + 8. */
struct Sums {
    float out[2][column_tiles][4];
    float most[2][2], weight[2][2]; /* the weight over the warp's keys */
};

/* The largest logit so far of a row that has not seen a key: less than any, but its difference to itself is 0. */
#define ATT_LEAST -1e30f

/* s = queries x keys, over the warp's rows and keys. */
DEVICE void add_logits(const Place &at, float (&s)[2][key_tiles][4]) {
    constexpr bool pairs = key_tiles > 1; /* a load gives 16 keys of one step, or 8 keys of two */
    static_assert(pairs || ATT_K_DIM % 32 == 0, "two steps at a time");
    const int queries = KeyLines::at(at.row + (at.lane & 15), at.lane >> 4);
    const int key = at.group * warp_keys + (at.lane & 7) + (pairs ? at.lane >> 4 << 3 : 0);
    const int keys = ATT_KEYS_AT + KeyLines::at(key, pairs ? at.lane >> 3 & 1 : at.lane >> 3);
    u32 b[4];
#pragma unroll
    for (int k = 0; k < ATT_K_DIM / 16; k++) {
        u32 a[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
            load_matrices(a[m], shared_bytes + KeyLines::step(queries + m * 16 * KeyLines::stride, 2 * k));
        if constexpr (pairs) {
#pragma unroll
            for (int n = 0; n < key_tiles; n += 2) {
                load_matrices(b, shared_bytes + KeyLines::step(keys + n * 8 * KeyLines::stride, 2 * k));
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    KForm::multiply(s[m][n], a[m], b[0], b[1]);
                    if (n + 1 < key_tiles)
                        KForm::multiply(s[m][n + 1], a[m], b[2], b[3]);
                }
            }
        } else {
            if (k % 2 == 0)
                load_matrices(b, shared_bytes + KeyLines::step(keys, 2 * k));
#pragma unroll
            for (int m = 0; m < 2; m++)
                KForm::multiply(s[m][0], a[m], b[k % 2 * 2], b[k % 2 * 2 + 1]);
        }
    }
}

/* The same of packed keys, by spans of 32 elements: of each 8 keys a lane has those of key g. */
template <class Form> DEVICE void add_packed_logits(const Place &at, float (&s)[2][key_tiles][4]) {
    constexpr int stride = code_stride<Form, ATT_K_DIM>(), spans = ATT_K_DIM / 32;
    const int queries = KeyLines::at(at.row + (at.lane & 15), at.lane >> 4), keys = at.group * warp_keys;
    const u8 *codes = shared_bytes + ATT_KEYS_AT + (keys + (at.lane & 7)) * stride;
    const u16 *scales = (const u16 *)(shared_bytes + ATT_KEYS_AT + ATT_TILE * stride) + keys + at.g;
#pragma unroll 1
    for (int first = 0; first < spans; first += Form::at_once) {
        u32 r[key_tiles][4];
#pragma unroll
        for (int n = 0; n < key_tiles; n++)
            load_matrices(r[n], codes + n * 8 * stride + Form::template key_piece<ATT_K_DIM>(first, at.lane >> 3));
#pragma unroll
        for (int i = 0; i < Form::at_once; i++) {
            const int span = first + i;
            u32 a[2][2][4]; /* [step of 16 elements][16 rows] */
            if (spans % Form::at_once != 0 && span >= spans)
                continue;
#pragma unroll
            for (int m = 0; m < 4; m++)
                load_matrices(a[m / 2][m % 2], shared_bytes + KeyLines::step(queries + m % 2 * 16 * KeyLines::stride,
                                                                             4 * span + m / 2 * 2));
#pragma unroll
            for (int n = 0; n < key_tiles; n++) {
                u32 words[2], b[4];
                Form::key_words(r[n], i, words[0], words[1]);
                Form::unpack(b, words[0], words[1], i);
                const u16 scale = scales[span * 32 / Form::group * ATT_TILE + 8 * n];
                scale_pairs(b, f16_pair(scale, scale));
#pragma unroll
                for (int m = 0; m < 4; m++)
                    Form::multiply(s[m % 2][n], a[m / 2][m % 2], b[m / 2 * 2], b[m / 2 * 2 + 1]);
            }
        }
    }
}

/* Products become logits in powers of two, -infinity where a query does not see a key. */
DEVICE void make_logits(const Block &b, const Place &at, int first, bool masked,
                        float (&s)[2][key_tiles][4] TABLE_PARAMETERS) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int pos = positions()[at.row + 16 * m + 8 * half + at.g];
#pragma unroll
            for (int n = 0; n < key_tiles; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int key = first + at.group * warp_keys + 8 * n + 2 * at.t + i;
                    float &v = s[m][n][2 * half + i];
                    v = logit(pos, key, b.head, v TABLE_ARGUMENTS);
                    if (masked && !(key < b.high && visible(pos, key, b.head TABLE_ARGUMENTS)))
                        v = minus_infinity();
                }
        }
}

#if ATT_SPARSE
/* -infinity where a query's list leaves out the key. */
DEVICE void leave_out(const Block &b, const Place &at, int first, const u32 *kept, float (&s)[2][key_tiles][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const u32 bits = kept_ahead(kept, positions()[at.row + 8 * i + at.g], b.head, first);
#pragma unroll
        for (int n = 0; n < 2 * key_tiles; n++) {
            const int key = first + at.group * warp_keys + n / 2 * 8 + 2 * at.t + n % 2;
            const int block = SPARSE_BLOCK % ATT_TILE ? key / SPARSE_BLOCK - first / SPARSE_BLOCK : 0;
            if (!(bits >> block & 1))
                s[i / 2][n / 2][i % 2 * 2 + n % 2] = minus_infinity();
        }
    }
}
#endif

/* The largest logit of each row over the warp's keys; in the quads' first lanes also for the other groups. */
DEVICE void find_most(const Place &at, const float (&s)[2][key_tiles][4], float (&most)[2][2]) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float v = s[m][0][2 * half];
#pragma unroll
            for (int n = 0; n < key_tiles; n++)
                v = fmaxf(v, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
            v = fmaxf(v, lane_swap(v, 1));
            v = fmaxf(v, lane_swap(v, 2));
            if (column_groups > 1 && at.t == 0)
                maxima(at.group)[at.row + 16 * m + 8 * half + at.g] = v;
            most[m][half] = v;
        }
}

/* Logits become weights; what was summed before shrinks by what the maximum grows. */
DEVICE void weigh(const Place &at, float (&s)[2][key_tiles][4], const float (&found)[2][2], Sums &sums) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float before = sums.most[m][half];
            float most = fmaxf(before, found[m][half]), weight = 0.0f;
            if (column_groups > 1)
#pragma unroll
                for (int i = 0; i < column_groups; i++)
                    most = fmaxf(most, maxima(i)[at.row + 16 * m + 8 * half + at.g]);
#pragma unroll
            for (int n = 0; n < key_tiles; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float &v = s[m][n][2 * half + i];
                    v = exp2_fast(v - most);
                    weight += v;
                }
            const float shrink = exp2_fast(before - most);
            sums.weight[m][half] = multiply_add(sums.weight[m][half], shrink, weight);
            sums.most[m][half] = most;
            if (shrink != 1.0f)
#pragma unroll
                for (int n = 0; n < column_tiles; n++) {
                    sums.out[m][n][2 * half] *= shrink;
                    sums.out[m][n][2 * half + 1] *= shrink;
                }
        }
}

/* Weights to where all groups find them. */
DEVICE void share_weights(const Place &at, const float (&s)[2][key_tiles][4]) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < key_tiles; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = at.row + 16 * m + 8 * half + at.g, piece = at.group * key_tiles + n;
                *(u32 *)(shared_bytes + ATT_WEIGHTS_AT + WeightLines::at(row, piece) + 4 * at.t) =
                    VForm::round_pair(s[m][n][2 * half], s[m][n][2 * half + 1]);
            }
}

/* Weights of 16 keys, step k of the tile, as operands: from where the groups share them, or the warp's own. */
DEVICE void load_weights(int weights, int k, const float (&s)[2][key_tiles][4], u32 (&a)[2][4]) {
#pragma unroll
    for (int m = 0; m < 2; m++)
        if constexpr (column_groups > 1) {
            load_matrices(a[m], shared_bytes + WeightLines::step(weights + m * 16 * WeightLines::stride, 2 * k));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = VForm::round_pair(s[m][2 * k + i / 2][i % 2 * 2], s[m][2 * k + i / 2][i % 2 * 2 + 1]);
        }
}

/* out += weights x values, over the warp's rows and columns. */
DEVICE void add_values(const Place &at, const float (&s)[2][key_tiles][4], Sums &sums) {
    const int weights = ATT_WEIGHTS_AT + WeightLines::at(at.row + (at.lane & 15), at.lane >> 4);
    const int values = ATT_VALUES_AT + ValueLines::at(at.lane & 15, at.group * warp_columns / 8 + (at.lane >> 4));
#pragma unroll
    for (int k = 0; k < ATT_TILE / 16; k++) {
        u32 a[2][4];
        load_weights(weights, k, s, a);
#pragma unroll
        for (int n = 0; n < column_tiles; n += 2) {
            u32 b[4];
            load_matrices_transposed(b, shared_bytes + ValueLines::step(values + k * 16 * ValueLines::stride, n));
#pragma unroll
            for (int m = 0; m < 2; m++) {
                VForm::multiply(sums.out[m][n], a[m], b[0], b[1]);
                VForm::multiply(sums.out[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* Scales of two neighbouring keys; 0 for those that nobody looks at, whose scales may be anything. */
DEVICE u32 value_scales(const Block &b, const u16 *scales, int first, int key, bool masked) {
    u32 pair = *(const u32 *)(scales + key);
    if (masked)
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (first + key + i < b.low || first + key + i >= b.high)
                pair &= i ? 0xffffu : 0xffff0000u;
    return pair;
}

/* The same of packed values, by spans of 32 columns: of each 8 keys a lane has its unit of 4 columns of two. first: the
 * tile's first key; masked: some of its keys may be out of bounds. */
template <class Form>
DEVICE void add_packed_values(const Block &b, const Place &at, int first, bool masked,
                              const float (&s)[2][key_tiles][4], Sums &sums) {
    constexpr int stride = code_stride<Form, ATT_V_DIM>();
    const int weights = ATT_WEIGHTS_AT + WeightLines::at(at.row + (at.lane & 15), at.lane >> 4);
    const u8 *values = shared_bytes + ATT_VALUES_AT + ((at.lane & 7) + (at.lane >> 4) * 8) * stride;
    const u16 *scales = (const u16 *)(shared_bytes + ATT_VALUES_AT + ATT_TILE * stride);
#pragma unroll
    for (int k = 0; k < ATT_TILE; k += 16) {
        u32 a[2][4];
        load_weights(weights, k / 16, s, a);
#pragma unroll
        for (int n = 0; n < warp_columns / 32; n++) {
            const int span = at.group * (warp_columns / 32) + n;
            const u16 *of_span = scales + span * 32 / Form::group * ATT_TILE;
            u32 r[4], near[4], far[4]; /* keys 0..7, keys 8..15 */
            load_matrices_transposed(r, values + k * stride +
                                            Form::template value_piece<ATT_V_DIM>(span, at.lane >> 3 & 1));
            Form::unpack(near, r[0], r[1], span);
            Form::unpack(far, r[2], r[3], span);
            scale_pairs(near, value_scales(b, of_span, first, k + 2 * at.t, masked));
            scale_pairs(far, value_scales(b, of_span, first, k + 8 + 2 * at.t, masked));
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    Form::multiply(sums.out[m][4 * n + i], a[m], near[i], far[i]);
        }
    }
}

/* ==== The end ==== */

/* Row 16 m + 8 half of the warp's, in the lanes of a quad, back from the basis of its 128 values: element 32 n + 8 t +
 * 4 d + i stands in sums.out[m][4 n + i][2 half + d]. turn_back() of attention_encode.cu in another place. */
DEVICE void turn_row_back(const Place &at, int m, int half, Sums &sums) {
    const float size = 0.08838834764831845f; /* 1 / sqrt(128) */
    float v[32];                             /* [n][d][i] */
#pragma unroll
    for (int j = 0; j < 32; j++)
        v[j] = signed_by(sums.out[m][j / 8 * 4 + j % 4][2 * half + j / 4 % 2], turn_signs<2>(j / 8) >> 8 * at.t, j % 8);
#pragma unroll
    for (int step = 1; step < 32; step *= 2)
#pragma unroll
        for (int j = 0; j < 32; j++)
            if (!(j & step))
                add_and_subtract(v[j], v[j + step]);
#pragma unroll
    for (int step = 1; step < 4; step *= 2)
#pragma unroll
        for (int j = 0; j < 32; j++) {
            const float other = lane_swap(v[j], step);
            v[j] = at.t & step ? other - v[j] : v[j] + other;
        }
#pragma unroll
    for (int j = 0; j < 32; j++)
        sums.out[m][j / 8 * 4 + j % 4][2 * half + j / 4 % 2] =
            signed_by(v[j] * size, turn_signs<1>(j / 8) >> 8 * at.t, j % 8);
}

/* A lane's columns of packed values: units 2 t and 2 t + 1 of each span. */
DEVICE void write_spans(const Place &at, int m, int half, float factor, const Sums &sums, float *to) {
#pragma unroll
    for (int n = 0; n < column_tiles; n += 4)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++)
            *(float4 *)(to + 8 * n + 8 * at.t + 4 * (i % 2)) =
                make_float4(sums.out[m][n][i] * factor, sums.out[m][n + 1][i] * factor, sums.out[m][n + 2][i] * factor,
                            sums.out[m][n + 3][i] * factor);
}

/* Sums of weights over quads and groups, then the rows to memory. */
DEVICE void finish(const Block &b, const Place &at, float *out, Sums &sums TABLE_PARAMETERS) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float &weight = sums.weight[i / 2][i % 2];
        weight += lane_swap(weight, 1);
        weight += lane_swap(weight, 2);
    }
    if (column_groups > 1) {
        for (int i = 0; i < 4; i++)
            if (at.t == 0)
                maxima(at.group)[at.row + 8 * i + at.g] = sums.weight[i / 2][i % 2];
        block_sync();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int m = i / 2, half = i % 2, row = at.row + 8 * i + at.g;
        float weight = sums.weight[m][half];
        if (column_groups > 1) {
            weight = 0.0f;
            for (int j = 0; j < column_groups; j++)
                weight += maxima(j)[row];
        }
        const float factor = last_factor(sums.most[m][half], weight, b.head TABLE_ARGUMENTS);
        if constexpr (VForm::rotated)
            turn_row_back(at, m, half, sums);
        float *to = out + ((u64)(b.first + row) * ATT_HEADS + b.head) * ATT_V_DIM + at.group * warp_columns;
        if constexpr (VForm::packed) {
            if (row < b.rows)
                write_spans(at, m, half, factor, sums, to);
        } else if (row < b.rows) {
#pragma unroll
            for (int n = 0; n < column_tiles; n++)
                *(float2 *)(to + 8 * n + 2 * at.t) =
                    make_float2(sums.out[m][n][2 * half] * factor, sums.out[m][n][2 * half + 1] * factor);
        }
    }
}

/* ==== The kernel ==== */

KERNEL __launch_bounds__(ATT_THREADS, ATT_BLOCKS)
    ATT_NAME(const u16 *q16, const u8 *cache_k, const u8 *cache_v, float *out, const int *query_pos, const int *slots,
             const int *lengths, const int *query_count KEPT_PARAMETERS TABLE_PARAMETERS) {
    Block b;
    const Place at;
    next_kernel_release();
    previous_kernels_wait();
    if (!find_block(b, query_pos, slots, lengths, query_count))
        return;
#if ATT_SPARSE
    find_kept(b, kept);
    block_sync();
#endif
    int tile = b.low / ATT_TILE, kind = next_tile(b, tile);
    copy_queries(b, q16);
    if (kind)
        copy_tile<KForm, ATT_K_DIM>(b, cache_k, ATT_KEYS_AT, tile);
    copies_close();
    Sums sums = {};
#pragma unroll
    for (int i = 0; i < 4; i++)
        sums.most[i / 2][i % 2] = ATT_LEAST;
    while (kind) {
        float s[2][key_tiles][4] = {}, most[2][2];
        copies_wait<0>();
        block_sync(); /* the keys are there; the values before are done with */
        copy_tile<VForm, ATT_V_DIM>(b, cache_v, ATT_VALUES_AT, tile);
        copies_close();
        if constexpr (KForm::packed)
            add_packed_logits<KForm>(at, s);
        else
            add_logits(at, s);
        const int first = tile * ATT_TILE;
        const bool masked = kind != 2;
        make_logits(b, at, first, masked, s TABLE_ARGUMENTS);
#if ATT_SPARSE
        if (kind & KEPT_IN_PART)
            leave_out(b, at, first, kept, s);
#endif
        find_most(at, s, most);
        block_sync(); /* all maxima; the keys are done with */
        kind = next_tile(b, ++tile);
        if (kind)
            copy_tile<KForm, ATT_K_DIM>(b, cache_k, ATT_KEYS_AT, tile);
        copies_close();
        weigh(at, s, most, sums);
        if (column_groups > 1)
            share_weights(at, s);
        copies_wait<1>();
        block_sync(); /* all weights, and the values */
        if constexpr (VForm::packed)
            add_packed_values<VForm>(b, at, first, masked, s, sums);
        else
            add_values(at, s, sums);
    }
    finish(b, at, out, sums TABLE_ARGUMENTS);
}
