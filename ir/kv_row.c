/* kv_row.c - rows of K/V caches: f32 to the bytes of a plane and back, for each type of kv.def.
 *
 * q8_0, blocks of 32 (f16 d, then 32 signed bytes): d = max |x| / 127; q = round(x / d), halves away from zero; x = d
 * q.
 *
 * q4_0, blocks of 32 (f16 d, then 16 bytes: low nibbles are elements 0..15, high ones 16..31): d = v / -8 for the first
 * element v of the largest magnitude; q = min(15, floor(x / d + 8.5)); x = d (q - 8).
 *
 * Codes are taken with the f32 of d, as a product with 1 / d; d is stored as f16. Source of both: the reference
 * quantisers of ggml's block types.
 *
 * tq3_0, groups of 128 = 4 blocks of 14 bytes: f16 norm, the same in all four; 8 bytes with the low two bits of the
 * codes of 32 elements, element j at bit 2 (j % 4) of byte j / 4; 4 bytes with their third bit, element j at bit j % 8
 * of byte j / 8. With H the Walsh-Hadamard matrix of 128 in natural order and D1, D2 the signs below:
 *
 *   rotation   y = D2 H D1 x / sqrt(128);  back: x = D1 H D2 y / sqrt(128)
 *   encode     g = |x|; y = rotation of x / g (of 0 when g <= 1e-10); q_i = how many thresholds are <= y_i;
 *              r = sqrt(sum of c[q_i]^2); norm = g / r, so that the group keeps its length
 *   decode     y_i = c[q_i] norm, which is still rotated
 *
 * c are the centroids of a Lloyd-Max quantiser of N(0, 1/128), as the coordinates of a rotated unit vector are spread.
 * Source: TurboQuant (arXiv:2504.19874), its MSE stage, in the layout that llama.cpp's forks call TQ3_0. Sums are taken
 * in double, so that squares neither overflow nor vanish, and in the order of a warp whose lanes have four elements
 * each: a GPU makes the same bytes.
 *
 * What none of them can hold: a scale beyond f16's largest number, 65504, is stored as that, so that large values
 * saturate; a block whose scale rounds to 0 is zeros; a block (tq3_0: group) with an infinity or NaN becomes NaN, which
 * no result can hide. f16 and bf16 round to the nearest, as ever, to infinity beyond their range.
 *
 * This file is built with -ffp-contract=off: the same bytes on every machine.
 */
#include "ir/eval_int.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, GROUP = 128, NAN_F16 = 0x7e00 };

/* ==== Scales ==== */

static bool all_finite(const float *x, int n) {
    for (int i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Stores d as f16. False when it was not a number other than 0: then all codes are to be those of zero. */
static bool put_scale(uint8_t *dst, double d) {
    const double most = 65504;
    const uint16_t h = isnan(d) ? NAN_F16 : f32_to_f16((float)(d > most ? most : d < -most ? -most : d));
    memcpy(dst, &h, sizeof h);
    return !isnan(d) && (h & 0x7fff) != 0;
}

static float get_scale(const uint8_t *src) {
    uint16_t h;
    memcpy(&h, src, sizeof h);
    return f16_to_f32(h);
}

/* The first element of the largest magnitude; NaN when one is not finite. */
static float extreme(const float *x, int n) {
    float v = 0;
    for (int i = 0; i < n; i++)
        v = fabsf(x[i]) > fabsf(v) ? x[i] : v;
    return all_finite(x, n) ? v : NAN;
}

/* ==== Types that files have too ==== */

static void encode_F32(const float *src, uint8_t *dst, int64_t n) {
    memcpy(dst, src, (size_t)n * sizeof *src);
}

static void encode_F16(const float *src, uint8_t *dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = f32_to_f16(src[i]);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
}

static void encode_BF16(const float *src, uint8_t *dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = f32_to_bf16(src[i]);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
}

static void encode_Q8_0(const float *src, uint8_t *dst, int64_t n) {
    for (; n > 0; n -= BLOCK, src += BLOCK, dst += 2 + BLOCK) {
        const float d = fabsf(extreme(src, BLOCK)) / 127;
        memset(dst + 2, 0, BLOCK);
        if (!put_scale(dst, d))
            continue;
        const float inverse = 1 / d;
        for (int j = 0; j < BLOCK; j++)
            dst[2 + j] = (uint8_t)(int8_t)roundf(src[j] * inverse);
    }
}

static unsigned code_of_4(float x) {
    const int q = (int)(x + 8.5f);
    return q > 15 ? 15u : (unsigned)q;
}

static void encode_Q4_0(const float *src, uint8_t *dst, int64_t n) {
    for (; n > 0; n -= BLOCK, src += BLOCK, dst += 2 + BLOCK / 2) {
        const float d = extreme(src, BLOCK) / -8;
        memset(dst + 2, 0x88, BLOCK / 2);
        if (!put_scale(dst, d))
            continue;
        const float inverse = 1 / d;
        for (int j = 0; j < BLOCK / 2; j++)
            dst[2 + j] = (uint8_t)(code_of_4(src[j] * inverse) | code_of_4(src[j + BLOCK / 2] * inverse) << 4);
    }
}

#define DECODE_AS_WEIGHTS(name)                                                                                        \
    static void decode_##name(const uint8_t *src, float *dst, int64_t n) {                                             \
        dequant_row(DT_##name, src, dst, n);                                                                           \
    }

DECODE_AS_WEIGHTS(F32)
DECODE_AS_WEIGHTS(F16)
DECODE_AS_WEIGHTS(BF16)
DECODE_AS_WEIGHTS(Q8_0)
DECODE_AS_WEIGHTS(Q4_0)

/* ==== The rotation ==== */

/* Bit i % 8 of byte i / 8: element i changes its sign. */
static const uint8_t d1[GROUP / 8] = {0x59, 0x03, 0x6a, 0xe4, 0x49, 0x59, 0xf8, 0x42,
                                      0xbb, 0x3b, 0xc6, 0xa4, 0xa9, 0x50, 0xf2, 0x49};
static const uint8_t d2[GROUP / 8] = {0x90, 0xee, 0xac, 0x16, 0xdc, 0x8f, 0x62, 0x3f,
                                      0x7a, 0x35, 0xa5, 0xb7, 0x62, 0x65, 0xa5, 0xbe};

static void scale_signed(float *x, const uint8_t *signs, float size) {
    for (int i = 0; i < GROUP; i++)
        x[i] *= signs[i / 8] >> i % 8 & 1 ? -size : size;
}

static void hadamard(float *x) {
    for (int stride = 1; stride < GROUP; stride *= 2)
        for (int i = 0; i < GROUP; i += 2 * stride)
            for (int j = i; j < i + stride; j++) {
                const float a = x[j], b = x[j + stride];
                x[j] = a + b;
                x[j + stride] = a - b;
            }
}

static void rotate(float *x, int64_t n, const uint8_t *before, const uint8_t *after) {
    for (; n > 0; n -= GROUP, x += GROUP) {
        scale_signed(x, before, 1);
        hadamard(x);
        scale_signed(x, after, 0.08838834764831845f); /* 1 / sqrt(128) */
    }
}

void kv_rotate(float *x, int64_t n) {
    rotate(x, n, d1, d2);
}

void kv_rotate_back(float *x, int64_t n) {
    rotate(x, n, d2, d1);
}

/* ==== tq3_0 ==== */

enum { TQ3_LOW = 2, TQ3_HIGH = 10, TQ3_BYTES = 14, TQ3_CODES = 8 };

static const float centroids[TQ3_CODES] = {-0.190685f, -0.117832f, -0.065717f, -0.021460f,
                                           0.021460f,  0.065717f,  0.117832f,  0.190685f};
static const float thresholds[TQ3_CODES - 1] = {-0.154259f, -0.091775f, -0.043589f, 0, 0.043589f, 0.091775f, 0.154259f};

static unsigned code_of_3(float y) {
    unsigned q = 0;
    for (int i = 0; i < TQ3_CODES - 1; i++)
        q += y >= thresholds[i];
    return q;
}

static double length(const float *x) {
    enum { LANES = GROUP / 4 };
    double sum[LANES];
    for (int i = 0; i < LANES; i++, x += 4)
        sum[i] = (double)x[0] * x[0] + (double)x[1] * x[1] + (double)x[2] * x[2] + (double)x[3] * x[3];
    for (int step = LANES / 2; step; step /= 2)
        for (int i = 0; i < step; i++)
            sum[i] += sum[i + step];
    return sqrt(sum[0]);
}

/* The codes of the group, and the length of what they stand for. */
static double put_codes(const float *y, uint8_t *dst) {
    float taken[GROUP];
    for (int i = 0; i < GROUP; i++) {
        const unsigned q = code_of_3(y[i]);
        uint8_t *block = dst + i / BLOCK * TQ3_BYTES;
        const int j = i % BLOCK;
        block[TQ3_LOW + j / 4] |= (uint8_t)((q & 3) << 2 * (j % 4));
        block[TQ3_HIGH + j / 8] |= (uint8_t)(q >> 2 << j % 8);
        taken[i] = centroids[q];
    }
    return length(taken);
}

static void encode_TQ3_0(const float *src, uint8_t *dst, int64_t n) {
    for (; n > 0; n -= GROUP, src += GROUP, dst += GROUP / BLOCK * TQ3_BYTES) {
        const bool sound = all_finite(src, GROUP);
        const double g = sound ? length(src) : NAN;
        float y[GROUP] = {0};
        for (int i = 0; i < GROUP && g > 1e-10; i++)
            y[i] = (float)(src[i] / g);
        kv_rotate(y, GROUP);
        memset(dst, 0, GROUP / BLOCK * TQ3_BYTES);
        const double norm = g / put_codes(y, dst);
        for (int b = 0; b < GROUP / BLOCK; b++)
            put_scale(dst + b * TQ3_BYTES, norm);
    }
}

/* 16 elements: their low bits, 2 each, their third bits, from bit 0 on. Attention decodes every key for every query, so
 * the centroid is found by comparing, which vector code does for all at once, and not looked up. */
static inline __attribute__((always_inline)) void decode_codes_of_3(uint32_t low, uint32_t high, float norm,
                                                                    float *dst) {
    for (int j = 0; j < 16; j++) {
        const uint32_t positive = high >> j & 1, from_middle = (low >> 2 * j & 3) ^ (positive ? 0 : 3);
        const float near = from_middle == 0 ? centroids[4] : centroids[5];
        const float size = from_middle < 2 ? near : from_middle == 2 ? centroids[6] : centroids[7];
        dst[j] = (positive ? size : -size) * norm;
    }
}

EVAL_MULTIARCH
static void decode_TQ3_0(const uint8_t *src, float *dst, int64_t n) {
    for (; n > 0; n -= BLOCK, src += TQ3_BYTES, dst += BLOCK) {
        uint32_t low[2], high;
        memcpy(low, src + TQ3_LOW, sizeof low);
        memcpy(&high, src + TQ3_HIGH, sizeof high);
        const float norm = get_scale(src);
        decode_codes_of_3(low[0], high, norm, dst);
        decode_codes_of_3(low[1], high >> 16, norm, dst + 16);
    }
}

/* ==== All of them ==== */

typedef struct Format {
    void (*encode)(const float *src, uint8_t *dst, int64_t n);
    void (*decode)(const uint8_t *src, float *dst, int64_t n);
    bool rotated;
} Format;

static const Format formats[DT_COUNT] = {
#define KV_TYPE(name, rotated, code, group) [DT_##name] = {encode_##name, decode_##name, rotated},
#include "ir/kv.def"
#undef KV_TYPE
};

bool kv_storable(DType t) {
    return (unsigned)t < DT_COUNT && formats[t].encode;
}

const char *kv_storable_names(Arena *a) {
    static const DType types[] = {
#define KV_TYPE(name, rotated, code, group) DT_##name,
#include "ir/kv.def"
#undef KV_TYPE
    };
    const char *all = dtype_name(types[0]);
    for (size_t i = 1; i < COUNTOF(types); i++)
        all = arena_printf(a, "%s, %s", all, dtype_name(types[i]));
    return all;
}

static const Format *format_of(DType t, int64_t n) {
    if (!kv_storable(t) || n < 0 || n % dtype_info(t)->block_elems)
        ICE("a cache has no rows of %lld elements of %s", (long long)n, dtype_name(t));
    return &formats[t];
}

void kv_encode(DType t, const float *src, uint8_t *dst, int64_t n) {
    format_of(t, n)->encode(src, dst, n);
}

void kv_decode(DType t, const uint8_t *src, float *dst, int64_t n) {
    format_of(t, n)->decode(src, dst, n);
}

bool kv_rotated(DType t) {
    return formats[t].rotated;
}
