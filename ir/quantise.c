/* quantise.c - encoding of f32 rows as stored, one encoder for each type that files are written in.
 *
 * The block formats are ggml's (ir/dequant.c decodes them). Blocks of 32 take their scale from the value furthest from
 * zero. Superblocks of 256 search for the scale of each of their parts by least squares, which gives the scale of the
 * whole; then each part takes, of the levels its scale may have, the one with the least error, not the nearest: that
 * is 1 % less error than with the format's reference in q4_k and 6 % less in q6_k (normal values). Results are the same
 * bits on every machine: every operation is rounded on its own (this file is built with -ffp-contract=off), sums over a
 * part are kept in LANES partial sums, whatever vectors a machine has.
 */
#include "ir/dtype.h"
#include "ir/eval_int.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define QUANT(name, text, id, elems, bytes, ...) enum { name##_ELEMS = elems, name##_BYTES = bytes };
#include "ir/quants.def"
#undef QUANT

#define ENCODER(name)                                                                                                  \
    EVAL_MULTIARCH static void encode_##name(const float *restrict src, uint8_t *restrict dst, int64_t n)
#define EACH_BLOCK(name) for (; n > 0; n -= name##_ELEMS, src += name##_ELEMS, dst += name##_BYTES)

#define HELPER static inline __attribute__((always_inline))

enum { LANES = 8 };

/* To the nearest integer, ties to even; |x| < 2^22. Adding 1.5 * 2^23 leaves no bits for a fraction. */
HELPER float nearest(float x) {
    return (x + 12582912.0f) - 12582912.0f;
}

/* Ties away from zero. */
HELPER float nearest_away(float x) {
    const float n = nearest(x), left = x - n;
    return n + (left == 0.5f && x > 0 ? 1.0f : 0.0f) - (left == -0.5f && x < 0 ? 1.0f : 0.0f);
}

/* NaN, of values too large for any scale, becomes the least. */
HELPER float clamp(float x, float least, float most) {
    return x > least ? x < most ? x : most : least;
}

/* 0 for scales so small that theirs is beyond f32; such values are 0 beside any scale in f16. */
HELPER float inverse_of(float d) {
    return fabsf(d) >= FLT_MIN ? 1 / d : 0;
}

HELPER float lanes_sum(const float *s) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

HELPER void put_half(uint8_t *p, float x) {
    const uint16_t h = f32_to_f16(x);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* As it will be read. */
HELPER float half_of(float x) {
    return f16_to_f32(f32_to_f16(x));
}

/* ==== Plain floats ==== */

static void encode_F32(const float *restrict src, uint8_t *restrict dst, int64_t n) {
    memcpy(dst, src, (size_t)n * sizeof *src);
}

static void encode_F16(const float *restrict src, uint8_t *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        put_half(dst + 2 * i, src[i]);
}

static void encode_BF16(const float *restrict src, uint8_t *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = f32_to_bf16(src[i]);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
}

/* ==== Blocks of 32 ==== */

HELPER float largest(const float *x, int n) {
    float most = 0;
    for (int i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/* The first of those furthest from zero, with its sign. */
HELPER float extreme(const float *x, int n) {
    const float most = largest(x, n);
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) == most)
            return x[i];
    return 0;
}

/* The codes of 32-element blocks come from the scale before it is rounded to f16, as the format's reference has it. */
ENCODER(Q8_0) {
    EACH_BLOCK(Q8_0) {
        const float d = largest(src, 32) / 127, inverse = inverse_of(d);
        put_half(dst, d);
        for (int i = 0; i < 32; i++)
            dst[2 + i] = (uint8_t)(int8_t)nearest_away(src[i] * inverse);
    }
}

/* The extreme value is code 0, so it is exact; values of the other sign reach to one step less. */
ENCODER(Q4_0) {
    EACH_BLOCK(Q4_0) {
        const float d = extreme(src, 32) / -8, inverse = inverse_of(d);
        uint8_t q[32];
        for (int i = 0; i < 32; i++) {
            const int code = (int)(src[i] * inverse + 8.5f);
            q[i] = (uint8_t)(code < 15 ? code : 15);
        }
        put_half(dst, d);
        for (int i = 0; i < 16; i++)
            dst[2 + i] = (uint8_t)(q[i] | q[i + 16] << 4);
    }
}

/* As Q4_0; the fifth bits follow the scale. */
ENCODER(Q5_0) {
    EACH_BLOCK(Q5_0) {
        const float d = extreme(src, 32) / -16, inverse = inverse_of(d);
        uint8_t q[32];
        uint32_t high = 0;
        for (int i = 0; i < 32; i++) {
            const int code = (int)(src[i] * inverse + 16.5f);
            q[i] = (uint8_t)(code < 31 ? code : 31);
            high |= (uint32_t)(q[i] >> 4) << i;
        }
        put_half(dst, d);
        for (int i = 0; i < 4; i++)
            dst[2 + i] = (uint8_t)(high >> 8 * i);
        for (int i = 0; i < 16; i++)
            dst[6 + i] = (uint8_t)((q[i] & 15) | q[i + 16] << 4);
    }
}

/* ==== Q4_K: 8 parts of 32, x ~ scale * code - min ==== */

enum { PART = 32, PARTS = 8, TOP = 15, STEPS = 20, LEVELS = 63 };

/* codes = x * inverse + shift, rounded, 0..15. */
HELPER void part_codes(const float *restrict x, float inverse, float shift, float *restrict codes) {
    for (int i = 0; i < PART; i++)
        codes[i] = clamp(nearest((x[i] + shift) * inverse), 0, TOP);
}

/* sum of w (scale * code - min - x)^2 */
HELPER float part_error(const float *restrict x, const float *restrict w, const float *restrict codes, float scale,
                        float min) {
    float sum[LANES] = {0};
    for (int i = 0; i < PART; i += LANES)
        for (int j = 0; j < LANES; j++) {
            const float off = scale * codes[i + j] - min - x[i + j];
            sum[j] += w[i + j] * off * off;
        }
    return lanes_sum(sum);
}

/* The scale and min that fit codes to x best, min not below 0. False: the codes say nothing about them. */
HELPER bool part_fit(const float *restrict x, const float *restrict w, const float *restrict codes, float *scale,
                     float *min) {
    float sw[LANES] = {0}, sl[LANES] = {0}, sll[LANES] = {0}, sx[LANES] = {0}, sxl[LANES] = {0};
    for (int i = 0; i < PART; i += LANES)
        for (int j = 0; j < LANES; j++) {
            const float wl = w[i + j] * codes[i + j], wx = w[i + j] * x[i + j];
            sw[j] += w[i + j];
            sl[j] += wl;
            sll[j] += wl * codes[i + j];
            sx[j] += wx;
            sxl[j] += wx * codes[i + j];
        }
    const float W = lanes_sum(sw), L = lanes_sum(sl), LL = lanes_sum(sll), X = lanes_sum(sx), XL = lanes_sum(sxl);
    const float det = W * LL - L * L;
    if (!(det > 0))
        return false;
    *scale = (W * XL - L * X) / det;
    *min = (L * XL - LL * X) / det;
    if (*min < 0) {
        *min = 0;
        *scale = XL / LL;
    }
    return true;
}

/* Tries steps around the one that spreads the codes over the part's range, each fitted by least squares. */
HELPER void part_search(const float *restrict x, const float *restrict w, float *scale, float *min) {
    float least = 0, most = x[0];
    for (int i = 0; i < PART; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    *scale = 0;
    *min = -least;
    if (most - least < 1e-15f)
        return;
    float codes[PART];
    part_codes(x, TOP / (most - least), -least, codes);
    *scale = (most - least) / TOP;
    float best = part_error(x, w, codes, *scale, *min);
    for (int t = 0; t <= STEPS; t++) {
        float s = 0, m = 0;
        part_codes(x, (TOP - 1 + 0.1f * (float)t) / (most - least), *min, codes);
        if (!part_fit(x, w, codes, &s, &m))
            continue;
        const float error = part_error(x, w, codes, s, m);
        if (error < best) {
            best = error;
            *scale = s;
            *min = m;
        }
    }
}

/* The levels of scale and min, at most 2 from those given, with the least error; leaves the codes. */
HELPER void part_level(const float *restrict x, const float *restrict w, float d, float dmin, int *scale, int *min,
                       float *restrict codes) {
    const int s0 = *scale, m0 = *min;
    float best = FLT_MAX;
    for (int s = s0 - 2; s <= s0 + 2; s++)
        for (int m = m0 - 2; m <= m0 + 2; m++) {
            if (s < 0 || s > LEVELS || m < 0 || m > LEVELS)
                continue;
            float tried[PART];
            const float step = d * (float)s, shift = dmin * (float)m;
            part_codes(x, step > 0 ? 1 / step : 0, shift, tried);
            const float error = part_error(x, w, tried, step, shift);
            if (error < best) {
                best = error;
                *scale = s;
                *min = m;
                memcpy(codes, tried, sizeof tried);
            }
        }
}

/* A part's values count by their size: a large one that is off by a step spoils more. */
HELPER void part_weights(const float *restrict x, float *restrict w) {
    float sum[LANES] = {0};
    for (int i = 0; i < PART; i += LANES)
        for (int j = 0; j < LANES; j++)
            sum[j] += x[i + j] * x[i + j];
    const float rms = sqrtf(lanes_sum(sum) / PART);
    for (int i = 0; i < PART; i++)
        w[i] = rms + fabsf(x[i]);
}

/* 8 scales and 8 mins of 6 bits in 12 bytes. */
HELPER void pack_levels(const int *scale, const int *min, uint8_t *s) {
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(min[j] | min[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

HELPER int level_of(float x, float unit) {
    return unit > 0 ? (int)clamp(nearest(x / unit), 0, LEVELS) : 0;
}

ENCODER(Q4_K) {
    EACH_BLOCK(Q4_K) {
        float w[Q4_K_ELEMS], codes[Q4_K_ELEMS] = {0}, scale[PARTS], min[PARTS], top_scale = 0, top_min = 0;
        int scales[PARTS], mins[PARTS];
        for (int p = 0; p < PARTS; p++) {
            part_weights(src + PART * p, w + PART * p);
            part_search(src + PART * p, w + PART * p, &scale[p], &min[p]);
            top_scale = scale[p] > top_scale ? scale[p] : top_scale;
            top_min = min[p] > top_min ? min[p] : top_min;
        }
        const float d = half_of(top_scale / LEVELS), dmin = half_of(top_min / LEVELS);
        for (int p = 0; p < PARTS; p++) {
            scales[p] = level_of(scale[p], top_scale / LEVELS);
            mins[p] = level_of(min[p], top_min / LEVELS);
            part_level(src + PART * p, w + PART * p, d, dmin, &scales[p], &mins[p], codes + PART * p);
        }
        put_half(dst, d);
        put_half(dst + 2, dmin);
        pack_levels(scales, mins, dst + 4);
        for (int p = 0; p < PARTS; p += 2)
            for (int i = 0; i < PART; i++)
                dst[16 + 16 * p + i] = (uint8_t)((int)codes[PART * p + i] | (int)codes[PART * p + PART + i] << 4);
    }
}

/* ==== Q6_K: 16 groups of 16, x ~ d * scale * code, codes -32 .. 31 ==== */

enum { GROUP = 16, GROUPS = 16, HALF = 32 };

HELPER void group_codes(const float *restrict x, float inverse, float *restrict codes) {
    for (int i = 0; i < GROUP; i++)
        codes[i] = clamp(nearest(x[i] * inverse), -HALF, HALF - 1);
}

/* The scale of the step that leaves the least error, among steps around the one that makes the extreme value -32.
 * All values count alike: at 6 bits, weights by size with so wide a search below raise the error of the whole. */
HELPER float group_search(const float *restrict x, float most) {
    float best = 0, scale = 0;
    for (int t = -9; t <= 9; t++) {
        float codes[GROUP], xl[LANES] = {0}, ll[LANES] = {0};
        group_codes(x, -(HALF + 0.1f * (float)t) / most, codes);
        for (int i = 0; i < GROUP; i += LANES)
            for (int j = 0; j < LANES; j++) {
                xl[j] += x[i + j] * codes[i + j];
                ll[j] += codes[i + j] * codes[i + j];
            }
        const float XL = lanes_sum(xl), LL = lanes_sum(ll);
        if (LL > 0 && XL * XL > best * LL) { /* the error is sum x^2 - XL^2 / LL */
            best = XL * XL / LL;
            scale = XL / LL;
        }
    }
    return scale;
}

HELPER float group_error(const float *restrict x, const float *restrict codes, float step) {
    float sum[LANES] = {0};
    for (int i = 0; i < GROUP; i += LANES)
        for (int j = 0; j < LANES; j++) {
            const float off = step * codes[i + j] - x[i + j];
            sum[j] += off * off;
        }
    return lanes_sum(sum);
}

/* The level with the least error; leaves the codes. A shorter step than the one given only cuts values off, a longer
 * one can fit them by chance, and exactly where they lie on a grid: all levels outwards are tried, few inwards. */
HELPER int group_level(const float *restrict x, float d, int level, float *restrict codes) {
    enum { INWARDS = 4 };
    float best = FLT_MAX;
    int found = level;
    for (int s = level < 0 ? level + INWARDS : level - INWARDS; s >= -128 && s <= 127; s += level < 0 ? -1 : 1) {
        float tried[GROUP];
        const float step = d * (float)s;
        group_codes(x, step != 0 ? 1 / step : 0, tried);
        const float error = group_error(x, tried, step);
        if (error < best) {
            best = error;
            found = s;
            memcpy(codes, tried, sizeof tried);
        }
    }
    return found;
}

/* Element 128h + 32g + l: nibble of ql[64h + 32(g & 1) + l], high if g >= 2, and plane g of qh[32h + l]. */
HELPER void pack_sixes(const float *restrict codes, uint8_t *restrict ql, uint8_t *restrict qh) {
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            int q[4];
            for (int g = 0; g < 4; g++)
                q[g] = (int)codes[128 * h + 32 * g + l] + HALF;
            ql[64 * h + l] = (uint8_t)((q[0] & 15) | (q[2] & 15) << 4);
            ql[64 * h + 32 + l] = (uint8_t)((q[1] & 15) | (q[3] & 15) << 4);
            qh[32 * h + l] = (uint8_t)(q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6);
        }
}

ENCODER(Q6_K) {
    EACH_BLOCK(Q6_K) {
        float scale[GROUPS], codes[Q6_K_ELEMS] = {0}, top = 0;
        for (int g = 0; g < GROUPS; g++) {
            const float most = extreme(src + GROUP * g, GROUP);
            scale[g] = fabsf(most) < 1e-15f ? 0 : group_search(src + GROUP * g, most);
            top = fabsf(scale[g]) > fabsf(top) ? scale[g] : top;
        }
        const float unit = top / -128, d = half_of(unit);
        for (int g = 0; g < GROUPS; g++) {
            const int level = unit != 0 ? (int)clamp(nearest(scale[g] / unit), -128, 127) : 0;
            dst[192 + g] = (uint8_t)(int8_t)group_level(src + GROUP * g, d, level, codes + GROUP * g);
        }
        pack_sixes(codes, dst, dst + 128);
        put_half(dst + 208, d);
    }
}

/* ==== All of them ==== */

typedef void Encoder(const float *restrict, uint8_t *restrict, int64_t);

static Encoder *const encoders[DT_COUNT] = {
    [DT_F32] = encode_F32,   [DT_F16] = encode_F16,   [DT_BF16] = encode_BF16, [DT_Q8_0] = encode_Q8_0,
    [DT_Q5_0] = encode_Q5_0, [DT_Q4_0] = encode_Q4_0, [DT_Q4_K] = encode_Q4_K, [DT_Q6_K] = encode_Q6_K,
};

bool quant_known(DType t) {
    return encoders[t] != NULL;
}

void quant_row(DType t, const float *src, void *dst, int64_t n) {
    const DTypeInfo *info = dtype_info(t);
    if (n < 0 || n % info->block_elems || !encoders[t])
        ICE("cannot encode %lld elements as %s", (long long)n, info->name);
    encoders[t](src, dst, n);
}
