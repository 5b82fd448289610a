/* attention_layout.cu - what the attention kernels share: their macros, where things lie, head vectors, scores.
 *
 *   ATT_HEADS, ATT_KV_HEADS   query heads, K/V heads (a divisor of them)
 *   ATT_K_DIM, ATT_V_DIM      elements of a head vector: multiples of 16 from 16 to 512
 *   ATT_SCALE                 of q . k
 *   ATT_Q_PLANES, ATT_Q_PLANE_STRIDE, ATT_Q_ROW_STRIDE, and the same with K and V:
 *                             the value is a sum of so many planes; strides in floats; a row is [heads][dim]
 *   ATT_K_FORM, ATT_V_FORM    elements of the cache: F16, .. of attention_forms.cu. Where those of K are bf16, so are
 *                             queries, and with those of V the softmax's weights; else both are f16
 *   ATT_CAPACITY              positions of a sequence in the cache
 *   ATT_RING                  1: position p stands at place p % ATT_CAPACITY, 0: at place p
 *   ATT_LOOKBACK              largest q - k that is visible; -1: no bound
 *   ATT_CAUSAL                1: no key behind its query is visible
 *   ATT_SCORE, ATT_SINK       1: the variant has score(), sink()
 *   variant.body              visible(), tile_class(), score(), sink() and TABLE_PARAMETERS, TABLE_ARGUMENTS: lists led
 *                             by a comma, what the tables are called as parameters and arguments; may be empty
 *   heads.body                prepare_q(), prepare_k(), prepare_v() of calls of head_ops.cu and HEAD_PARAMETERS,
 *                             HEAD_ARGUMENTS; HEAD_REFERENCES: the parameters as references, and bring_heads(), which
 *                             makes them copies in HEAD_TABLE_BYTES of shared memory (bring_table()). HEAD_PAIRS,
 *                             HEAD_TURNS: pairs and table of every head_rope(); 0 pairs: there is none, or several
 *   cache_k, cache_v          planes of ir/kv.h, one sequence behind another, aligned to 16 bytes: head vectors
 *                             [ATT_KV_HEADS][places], whose pieces are in turned order; packed ones
 *                             [places][ATT_KV_HEADS] and their scales [ATT_KV_HEADS][scales of a head][places]. A ring
 *                             has a multiple of 16 positions
 *
 * A body may define its lists itself or leave that to the text before it.
 */
#ifndef LAP_ATTENTION_LAYOUT
#define LAP_ATTENTION_LAYOUT
#include "attention_encode.cu"
#include "head_ops.cu"
#include "prelude.cu"

#ifndef ATT_HEADS
#define ATT_HEADS    32
#define ATT_KV_HEADS 16
#endif
#ifndef ATT_K_DIM
#define ATT_K_DIM 256
#endif
#ifndef ATT_V_DIM
#define ATT_V_DIM ATT_K_DIM
#endif
#ifndef ATT_SCALE
#define ATT_SCALE 1.0f
#endif
#ifndef ATT_Q_PLANES
#define ATT_Q_PLANES       3
#define ATT_Q_PLANE_STRIDE (8 * 16384)
#define ATT_Q_ROW_STRIDE   16384
#endif
#ifndef ATT_K_PLANES
#define ATT_K_PLANES       3
#define ATT_K_PLANE_STRIDE (8 * 16384)
#define ATT_K_ROW_STRIDE   16384
#endif
#ifndef ATT_V_PLANES
#define ATT_V_PLANES       3
#define ATT_V_PLANE_STRIDE (8 * 16384)
#define ATT_V_ROW_STRIDE   16384
#endif
#ifndef ATT_K_FORM
#define ATT_K_FORM F16
#endif
#ifndef ATT_V_FORM
#define ATT_V_FORM ATT_K_FORM
#endif
#ifndef ATT_CAPACITY
#define ATT_CAPACITY 1536
#define ATT_RING     1
#define ATT_LOOKBACK 1023
#endif
#ifndef ATT_CAUSAL
#define ATT_CAUSAL 1
#endif
#ifndef ATT_SCORE
#define ATT_SCORE 0
#endif
#ifndef ATT_SINK
#define ATT_SINK 0
#endif

#define ATT_GROUP (ATT_HEADS / ATT_KV_HEADS)

static_assert(ATT_HEADS % ATT_KV_HEADS == 0, "each K/V head serves as many query heads");
static_assert(ATT_K_DIM % 16 == 0 && ATT_V_DIM % 16 == 0, "whole steps of a matrix product");
static_assert(!ATT_RING || ATT_CAPACITY % 16 == 0, "a tile's first place is a multiple of 16");

#include "heads.body"
#include "variant.body"

#ifndef HEAD_PARAMETERS
#define HEAD_PARAMETERS
#define HEAD_ARGUMENTS
#endif
#ifndef TABLE_PARAMETERS
#define TABLE_PARAMETERS
#define TABLE_ARGUMENTS
#endif

/* ==== Elements ==== */

#define ATT_FORM_NAMED(name) Form_##name
#define ATT_FORM(name)       ATT_FORM_NAMED(name)
typedef ATT_FORM(ATT_K_FORM) KForm;
typedef ATT_FORM(ATT_V_FORM) VForm;

static_assert(ATT_K_DIM % KForm::group == 0 && ATT_V_DIM % VForm::group == 0, "whole groups have a scale");

/* Elements of 16 bits lie in the cache, and so in a tile, in pieces of 16 bytes that are in turned order: piece p of the
 * head vector at place n is where piece p ^ n % 8 would be. So a tile is a copy of one stretch of memory, and 8
 * neighbouring vectors' pieces lie in different banks. Where 8 does not divide the pieces, a smaller power of 2 does. */
template <int D> DEVICE constexpr int turned_pieces() {
    return D % 64 == 0 ? 8 : D % 32 == 0 ? 4 : 2;
}

template <int D> DEVICE int piece_at(int place, int piece) {
    return piece ^ (place & (turned_pieces<D>() - 1));
}

/* Bytes of a row of so many elements in shared memory: rows of 8 at a time then lie in different banks. */
DEVICE constexpr int row_bytes(int dim) {
    return 2 * dim + 16;
}

/* Of a packed head vector of D elements: in memory, and in shared memory, again in different banks. */
template <class Form, int D> DEVICE constexpr int code_bytes() {
    return D * Form::bits / 8;
}

template <class Form, int D> DEVICE constexpr int code_stride() {
    return code_bytes<Form, D>() | 16;
}

/* A tile of `keys` packed head vectors: rows of codes, and behind them the scales, u16 [scales of a head][keys]. */
template <class Form, int D> DEVICE constexpr int packed_bytes(int keys) {
    return (keys * (code_stride<Form, D>() + 2 * (D / Form::group)) + 127) / 128 * 128;
}

/* What a lane of load_matrices() gives as its address to get 16 rows x 16 columns as an A operand. */
DEVICE const u8 *matrix_a(const u8 *rows, int stride, int column) {
    const int lane = threadIdx.x & 31;
    return rows + (lane & 15) * stride + 2 * column + (lane >> 4) * 16;
}

/* The same for keys as a B operand: 8 rows (keys) x 32 columns (of the head), two steps of 16; of the last columns of a
 * row, if they are only 16, twice the same. */
DEVICE const u8 *matrix_keys(const u8 *rows, int stride, int column, int dim) {
    const int lane = threadIdx.x & 31, part = lane >> 3;
    return rows + (lane & 7) * stride + 2 * column + (column + 16 < dim ? part : part & 1) * 16;
}

/* The same of a tile of elements, from its row number `key` on, a multiple of 8: keys as a B operand. */
template <int D> DEVICE const u8 *tile_b(const u8 *tile, int key, int column) {
    const int lane = threadIdx.x & 31, part = lane >> 3, piece = column / 8 + (column + 16 < D ? part : part & 1);
    return tile + (key + (lane & 7)) * (2 * D) + 16 * piece_at<D>(lane, piece);
}

/* And keys as an A operand, or values, to be loaded transposed: 16 rows x 16 columns: r[0], r[1] are then the B operand
 * of the first 8. */
template <int D> DEVICE const u8 *tile_a(const u8 *tile, int key, int column) {
    const int lane = threadIdx.x & 31;
    return tile + (key + (lane & 15)) * (2 * D) + 16 * piece_at<D>(lane, column / 8 + (lane >> 4));
}

/* ==== Head vectors ==== */

/* A head vector on its way from its planes to a warp: fetched into registers, later put into shared memory as their
 * sum. */
template <int D, int PLANES> struct Fetched {
    float part[PLANES][(D + 31) / 32];

    DEVICE void fetch(const float *from, u64 plane_stride) {
        const int lane = threadIdx.x & 31;
#pragma unroll
        for (int p = 0; p < PLANES; p++)
#pragma unroll
            for (int i = 0; i < (D + 31) / 32; i++)
                part[p][i] = lane + 32 * i < D ? from[p * plane_stride + lane + 32 * i] : 0.0f;
    }
    DEVICE void put(float *x) const {
        const int lane = threadIdx.x & 31;
        warp_sync();
#pragma unroll
        for (int i = 0; i < (D + 31) / 32; i++) {
            float v = part[0][i];
#pragma unroll
            for (int p = 1; p < PLANES; p++)
                v += part[p][i];
            if (lane + 32 * i < D)
                x[lane + 32 * i] = v;
        }
        warp_sync();
    }
};

DEVICE int place_of(int pos) {
#if ATT_RING
    return pos % ATT_CAPACITY;
#else
    return pos;
#endif
}

/* Of a place behind that of a position, by less than ATT_CAPACITY. */
DEVICE int wrapped(int place) {
    return ATT_RING && place >= ATT_CAPACITY ? place - ATT_CAPACITY : place;
}

/* Places of a sequence in a plane: kv_places(). */
#define ATT_PLACES ((ATT_CAPACITY + 15) / 16 * 16)

/* Byte of a head vector in its plane of the cache. */
template <class Form, int D> DEVICE u64 cache_at(int slot, int pos, int kv_head) {
    if constexpr (Form::packed) {
        constexpr int head = code_bytes<Form, D>() + 2 * (D / Form::group);
        return (u64)slot * ((u64)ATT_PLACES * ATT_KV_HEADS * head) +
               ((u64)place_of(pos) * ATT_KV_HEADS + kv_head) * code_bytes<Form, D>();
    } else {
        return (((u64)slot * ATT_KV_HEADS + kv_head) * ATT_PLACES + place_of(pos)) * (2 * D);
    }
}

/* Byte of the first scale of a head at a place; the head's further ones follow in steps of ATT_PLACES. */
template <class Form, int D> DEVICE u64 scales_at(int slot, int place, int kv_head) {
    constexpr int head = code_bytes<Form, D>() + 2 * (D / Form::group);
    return (u64)slot * ((u64)ATT_PLACES * ATT_KV_HEADS * head) +
           (u64)ATT_PLACES * ATT_KV_HEADS * code_bytes<Form, D>() +
           2 * ((u64)kv_head * (D / Form::group) * ATT_PLACES + place);
}

typedef Fetched<ATT_K_DIM, ATT_Q_PLANES> FetchedQ;

DEVICE void fetch_q(FetchedQ &to, const float *q, int r, int head) {
    to.fetch(q + (u64)r * ATT_Q_ROW_STRIDE + head * ATT_K_DIM, ATT_Q_PLANE_STRIDE);
}

/* The sum of the planes in x, with few registers. */
template <int D, int PLANES> DEVICE void load_vector(float *x, const float *from, u64 plane_stride) {
    warp_sync();
#pragma unroll 8
    for (int i = threadIdx.x & 31; i < D; i += 32) {
        float v = from[i];
#pragma unroll
        for (int p = 1; p < PLANES; p++)
            v += from[p * plane_stride + i];
        x[i] = v;
    }
    warp_sync();
}

/* A prepared query, as it meets the keys. */
DEVICE void store_query(u8 *to, float *x) {
    if constexpr (KForm::rotated)
        turn_vector<ATT_K_DIM>(x);
    if constexpr (KForm::packed)
        store_permuted<ATT_K_DIM>(to, x);
    else
        store_elements<ATT_K_DIM, KForm>(to, x);
}

/* Where a K or V vector goes, in shared or device memory: its elements or codes, and its scales. */
struct Target {
    u8 *row;
    u16 *scales;
    int apart; /* scales, from one to the next */
    int place; /* of elements: number of the vector */
};

template <class Form, int D> DEVICE Target cache_target(u8 *cache, int slot, int pos, int kv_head) {
    Target to = {cache + cache_at<Form, D>(slot, pos, kv_head), nullptr, 0, place_of(pos)};
    if constexpr (Form::packed) {
        to.scales = (u16 *)(cache + scales_at<Form, D>(slot, place_of(pos), kv_head));
        to.apart = ATT_PLACES;
    }
    return to;
}

template <class Form, int D> DEVICE void store_vector(const Target &to, const float *x) {
    if constexpr (Form::packed)
        Encoder<Form>::template encode<D>(to.row, to.scales, to.apart, x);
    else
        store_elements<D, Form>(to.row, x, [&](int piece) { return piece_at<D>(to.place, piece); });
}

/* Row r of this call: a K or V vector, prepared in x by a warp, to where it goes. */
DEVICE void make_row(float *x, const float *k, const float *v, int r, int head, const Stand &at, bool values,
                     const Target &to HEAD_PARAMETERS) {
    if (values) {
        load_vector<ATT_V_DIM, ATT_V_PLANES>(x, v + (u64)r * ATT_V_ROW_STRIDE + head * ATT_V_DIM, ATT_V_PLANE_STRIDE);
        prepare_v(x, head, at HEAD_ARGUMENTS);
        warp_sync();
        store_vector<VForm, ATT_V_DIM>(to, x);
    } else {
        load_vector<ATT_K_DIM, ATT_K_PLANES>(x, k + (u64)r * ATT_K_ROW_STRIDE + head * ATT_K_DIM, ATT_K_PLANE_STRIDE);
        prepare_k(x, head, at HEAD_ARGUMENTS);
        warp_sync();
        store_vector<KForm, ATT_K_DIM>(to, x);
    }
}

/* ==== Scores ==== */

#define LOG2_E 1.4426950408889634f

DEVICE float minus_infinity() {
    return float_from_bits(0xff800000u);
}

/* The logit of q . k in powers of two. A product that is added to is written as one operation with a zero, so that no
 * compiler takes it into the subtraction that follows in one place and not in another. */
DEVICE float logit([[maybe_unused]] int q, [[maybe_unused]] int k, [[maybe_unused]] int h, float dot TABLE_PARAMETERS) {
#if ATT_SCORE
    return multiply_add(score(multiply_add(dot, ATT_SCALE * KForm::unit, 0.0f), q, k, h TABLE_ARGUMENTS), LOG2_E, 0.0f);
#else
    return multiply_add(dot, ATT_SCALE * LOG2_E * KForm::unit, 0.0f);
#endif
}

/* How a row ends: with the largest logit and the sum of weights relative to it, the factor that makes its weighted sum
 * of values the result. The sink takes part in both; without any visible key the factor is 0 or the values are. */
DEVICE float last_factor(float most, float sum, [[maybe_unused]] int h TABLE_PARAMETERS) {
    float keep = 1.0f;
#if ATT_SINK
    const float extra = multiply_add(sink(h TABLE_ARGUMENTS), LOG2_E, 0.0f), top = fmaxf(most, extra);
    if (top != minus_infinity()) {
        keep = exp2_fast(most - top);
        sum = multiply_add(sum, keep, exp2_fast(extra - top));
    }
#endif
    (void)most;
    return sum == 0.0f ? 0.0f : keep / sum * VForm::unit;
}

#endif
