/* encode.c - see encode.h. The formats are those that ir/dequant.c decodes. */
#include "tests/engine/encode.h"

#include <math.h>
#include <string.h>

static void put_half(uint8_t *p, float x) {
    const uint16_t h = f32_to_f16(x);
    memcpy(p, &h, 2);
}

static float half_of(float x) {
    return f16_to_f32(f32_to_f16(x));
}

/* x / d to the nearest integer, in bounds; 0 when there is no scale. */
static int code(float x, float d, int least, int most) {
    const float q = d != 0 ? roundf(x / d) : 0;
    return q < (float)least ? least : q > (float)most ? most : (int)q;
}

typedef struct Extremes {
    float least, most, furthest; /* the last: from zero, with its sign */
} Extremes;

static Extremes extremes(const float *x, int n) {
    Extremes e = {x[0], x[0], x[0]};
    for (int i = 1; i < n; i++) {
        e.least = fminf(e.least, x[i]);
        e.most = fmaxf(e.most, x[i]);
        e.furthest = fabsf(x[i]) > fabsf(e.furthest) ? x[i] : e.furthest;
    }
    return e;
}

/* ==== Blocks of 32: a fifth bit, if any, in 4 bytes; then low nibbles, elements 16 and up in the high halves ==== */

static void put_codes(const uint8_t c[32], uint8_t *fifth, uint8_t *nibbles) {
    for (int j = 0; j < 16; j++)
        nibbles[j] = (uint8_t)((c[j] & 15) | (c[j + 16] & 15) << 4);
    for (int j = 0; fifth && j < 32; j++)
        fifth[j / 8] |= (uint8_t)((c[j] >> 4) << j % 8);
}

/* Codes 0 .. most of a scale and a minimum. */
static void from_minimum(const float *x, uint8_t *dst, int most, uint8_t *fifth, uint8_t *nibbles) {
    const Extremes e = extremes(x, 32);
    const float d = half_of((e.most - e.least) / (float)most), m = half_of(e.least);
    uint8_t c[32];
    put_half(dst, d);
    put_half(dst + 2, m);
    for (int j = 0; j < 32; j++)
        c[j] = (uint8_t)code(x[j] - m, d, 0, most);
    put_codes(c, fifth, nibbles);
}

static void block_q4_1(const float *x, uint8_t *dst) {
    from_minimum(x, dst, 15, NULL, dst + 4);
}

static void block_q5_1(const float *x, uint8_t *dst) {
    from_minimum(x, dst, 31, dst + 4, dst + 8);
}

static void block_q5_0(const float *x, uint8_t *dst) {
    const float d = half_of(extremes(x, 32).furthest / -16);
    uint8_t c[32];
    put_half(dst, d);
    for (int j = 0; j < 32; j++)
        c[j] = (uint8_t)(code(x[j], d, -16, 15) + 16);
    put_codes(c, dst + 2, dst + 6);
}

/* ==== Codes that mean values of a table ==== */

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void put_values(const float *x, const int8_t values[16], float d, uint8_t *nibbles) {
    uint8_t c[32];
    for (int j = 0; j < 32; j++) {
        c[j] = 0;
        for (uint8_t k = 1; k < 16; k++)
            if (fabsf(x[j] - d * (float)values[k]) < fabsf(x[j] - d * (float)values[c[j]]))
                c[j] = k;
    }
    put_codes(c, NULL, nibbles);
}

static void block_iq4_nl(const float *x, uint8_t *dst) {
    const float d = half_of(extremes(x, 32).furthest / -127);
    put_half(dst, d);
    put_values(x, iq4_values, d, dst + 2);
}

/* A power of two of which the furthest is 4 to 8 times as much; above 6 times it becomes that. */
static void block_mxfp4(const float *x, uint8_t *dst) {
    const float furthest = fabsf(extremes(x, 32).furthest);
    const int e = furthest > 0 ? ilogbf(furthest) - 2 : -126;
    dst[0] = (uint8_t)(e + 127);
    put_values(x, mxfp4_values, ldexpf(0.5f, e), dst + 1);
}

/* ==== Superblocks of 256: scales of parts in whole steps of one ==== */

static float largest(const float *x, int n) {
    return fabsf(extremes(x, n).furthest);
}

static void block_iq4_xs(const float *x, uint8_t *dst) {
    float scale[8];
    for (int b = 0; b < 8; b++)
        scale[b] = extremes(x + 32 * b, 32).furthest / -127;
    const float d = half_of(largest(scale, 8) / 31);
    uint16_t high = 0;
    put_half(dst, d);
    for (int b = 0; b < 8; b++) {
        const int s = code(scale[b], d, -31, 31) + 32;
        dst[4 + b / 2] |= (uint8_t)((s & 15) << 4 * (b & 1));
        high = (uint16_t)(high | s >> 4 << 2 * b);
        put_values(x + 32 * b, iq4_values, d * (float)(s - 32), dst + 8 + 16 * b);
    }
    memcpy(dst + 2, &high, 2);
}

static void block_q3_k(const float *x, uint8_t *dst) {
    float scale[16];
    for (int s = 0; s < 16; s++)
        scale[s] = extremes(x + 16 * s, 16).furthest / -4;
    const float d = half_of(largest(scale, 16) / 31);
    put_half(dst + 108, d);
    for (int s = 0; s < 16; s++) {
        const int q = code(scale[s], d, -31, 31) + 32;
        uint8_t *high = dst + 16 * (s & 1), *low = dst + 32 + 32 * (s / 8) + 16 * (s & 1);
        dst[96 + s % 8] |= (uint8_t)((q & 15) << (s < 8 ? 0 : 4));
        dst[96 + 8 + (s & 3)] |= (uint8_t)(q >> 4 << 2 * (s / 4));
        for (int j = 0; j < 16; j++) {
            const int c = code(x[16 * s + j], d * (float)(q - 32), -4, 3) + 4;
            low[j] |= (uint8_t)((c & 3) << 2 * (s / 2 & 3));
            high[j] |= (uint8_t)(c >> 2 << s / 2);
        }
    }
}

/* Parts of a scale and of a minimum at or below zero, each in 0 .. steps of one. Codes 0 .. most. */
typedef struct Parts {
    float d, dmin;
    uint8_t scale[16], minimum[16], codes[256];
} Parts;

static Parts parts_of(const float *x, int n_parts, int steps, int most) {
    const int n = 256 / n_parts;
    float scale[16] = {0}, minimum[16] = {0};
    Parts p = {0};
    for (int s = 0; s < n_parts; s++) {
        const Extremes e = extremes(x + n * s, n);
        minimum[s] = fmaxf(0, -e.least);
        scale[s] = fmaxf(0, e.most + minimum[s]) / (float)most;
    }
    p.d = half_of(largest(scale, n_parts) / (float)steps);
    p.dmin = half_of(largest(minimum, n_parts) / (float)steps);
    for (int s = 0; s < n_parts; s++) {
        p.scale[s] = (uint8_t)code(scale[s], p.d, 0, steps);
        p.minimum[s] = (uint8_t)code(minimum[s], p.dmin, 0, steps);
        for (int j = n * s; j < n * (s + 1); j++)
            p.codes[j] = (uint8_t)code(x[j] + p.dmin * (float)p.minimum[s], p.d * (float)p.scale[s], 0, most);
    }
    return p;
}

static void block_q2_k(const float *x, uint8_t *dst) {
    const Parts p = parts_of(x, 16, 15, 3);
    put_half(dst + 80, p.d);
    put_half(dst + 82, p.dmin);
    for (int s = 0; s < 16; s++) {
        dst[s] = (uint8_t)(p.scale[s] | p.minimum[s] << 4);
        for (int j = 0; j < 16; j++)
            dst[16 + 32 * (s / 8) + 16 * (s & 1) + j] |= (uint8_t)(p.codes[16 * s + j] << 2 * (s / 2 & 3));
    }
}

static void block_q5_k(const float *x, uint8_t *dst) {
    const Parts p = parts_of(x, 8, 63, 31);
    put_half(dst, p.d);
    put_half(dst + 2, p.dmin);
    for (int j = 0; j < 4; j++) {
        dst[4 + j] = (uint8_t)(p.scale[j] | p.scale[j + 4] >> 4 << 6);
        dst[8 + j] = (uint8_t)(p.minimum[j] | p.minimum[j + 4] >> 4 << 6);
        dst[12 + j] = (uint8_t)((p.scale[j + 4] & 15) | (p.minimum[j + 4] & 15) << 4);
    }
    for (int i = 0; i < 256; i++) {
        dst[48 + 32 * (i / 64) + i % 32] |= (uint8_t)((p.codes[i] & 15) << 4 * (i / 32 & 1));
        dst[16 + i % 32] |= (uint8_t)(p.codes[i] >> 4 << i / 32);
    }
}

/* ==== All of them ==== */

void encode_row(DType t, const float *src, void *dst, int64_t n) {
    static void (*const blocks[DT_COUNT])(const float *, uint8_t *) = {
        [DT_Q4_1] = block_q4_1,     [DT_Q5_0] = block_q5_0,   [DT_Q5_1] = block_q5_1,
        [DT_IQ4_NL] = block_iq4_nl, [DT_Q2_K] = block_q2_k,   [DT_Q3_K] = block_q3_k,
        [DT_IQ4_XS] = block_iq4_xs, [DT_MXFP4] = block_mxfp4, [DT_Q5_K] = block_q5_k,
    };
    const DTypeInfo *info = dtype_info(t);
    if (quant_known(t)) {
        quant_row(t, src, dst, n);
        return;
    }
    if (!blocks[t] || n % info->block_elems)
        ICE("%lld values as %s", (long long)n, info->name);
    memset(dst, 0, dtype_row_bytes(t, n));
    for (int64_t i = 0; i < n; i += info->block_elems)
        blocks[t](src + i, (uint8_t *)dst + i / info->block_elems * info->block_bytes);
}
