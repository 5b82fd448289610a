/* dequant.c - decoding of stored rows to f32, one decoder for each type of quants.def.
 *
 * A decoder walks whole blocks; the block formats are ggml's. The code is plain loops over bytes, written
 * so that a compiler turns them into vector code: counts are constants, nothing is looked up through
 * memory inside the arithmetic, and scales are widened by arithmetic rather than by a call. Every
 * product and sum is rounded on its own (this file is built with -ffp-contract=off), in the order the
 * reference decoders use, so results are the same bits on every machine.
 *
 * Where the compiler can pick code by processor (gcc on x86-64 Linux), dequant_row is built for
 * several levels of the instruction set at once. Hand-written intrinsics would be faster by a little
 * and would need one version per architecture.
 */
#include "ir/dtype.h"
#include "ir/eval_int.h"

#include <string.h>

/* Sizes of a block by name: Q4_0_BYTES, Q4_0_ELEMS. */
#define QUANT(name, text, id, elems, bytes, ...) enum { name##_ELEMS = elems, name##_BYTES = bytes };
#include "ir/quants.def"
#undef QUANT

#define DECODER(name)                                                                                                  \
    EVAL_MULTIARCH static void decode_##name(const uint8_t *restrict src, float *restrict dst, int64_t n)
#define EACH_BLOCK(name) for (; n > 0; n -= name##_ELEMS, src += name##_BYTES, dst += name##_ELEMS)

#define HELPER static inline __attribute__((always_inline))

HELPER float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* f16_to_f32 without branches: the 15 magnitude bits, moved to f32's place, are the value times
 * 2^-112 (subnormals too); infinity and NaN then get their exponent back. */
HELPER float half(uint16_t h) {
    const uint32_t mag = (uint32_t)(h & 0x7fff) << 13;
    const float scaled = from_bits(mag) * 0x1p112f;
    uint32_t bits;
    memcpy(&bits, &scaled, sizeof bits);
    bits |= mag >= 0x0f800000 ? 0x7f800000 : 0;
    return from_bits(bits | (uint32_t)(h & 0x8000) << 16);
}

HELPER uint16_t u16_at(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

HELPER uint32_t u32_at(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

HELPER float half_at(const uint8_t *p) {
    return half(u16_at(p));
}

/* ==== Plain floats ==== */

DECODER(F32) {
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

DECODER(F16) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        dst[i] = half(h);
    }
}

/* Sixteen at once, so that a build with sanitizers, which makes no vector code of the plain loop, checks one access for
 * them and not sixteen. */
DECODER(BF16) {
    typedef uint16_t Halves __attribute__((vector_size(16 * sizeof(uint16_t))));
    typedef uint32_t Words __attribute__((vector_size(16 * sizeof(uint32_t))));
    for (; n >= 16; n -= 16, src += sizeof(Halves), dst += 16) {
        Halves h;
        memcpy(&h, src, sizeof h);
        const Words w = __builtin_convertvector(h, Words) << 16;
        memcpy(dst, &w, sizeof w);
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        dst[i] = from_bits((uint32_t)h << 16);
    }
}

/* ==== Blocks of 32: low nibbles hold elements 0..15, high nibbles 16..31 ==== */

DECODER(Q4_0) {
    EACH_BLOCK(Q4_0) {
        const float d = half_at(src);
        const uint8_t *q = src + 2;
        for (int j = 0; j < 16; j++)
            dst[j] = d * (float)((q[j] & 15) - 8);
        for (int j = 0; j < 16; j++)
            dst[j + 16] = d * (float)((q[j] >> 4) - 8);
    }
}

DECODER(Q4_1) {
    EACH_BLOCK(Q4_1) {
        const float d = half_at(src), m = half_at(src + 2);
        const uint8_t *q = src + 4;
        for (int j = 0; j < 16; j++)
            dst[j] = d * (float)(q[j] & 15) + m;
        for (int j = 0; j < 16; j++)
            dst[j + 16] = d * (float)(q[j] >> 4) + m;
    }
}

/* Bit e of qh, bytes 0..3, is the fifth bit of element e. Both halves are tested against the same constants:
 * a compiler makes one masked operation of that, and shifts element by element otherwise. */
static const uint32_t bit_of[16] = {1u << 0, 1u << 1, 1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
                                    1u << 8, 1u << 9, 1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15};

DECODER(Q5_0) {
    EACH_BLOCK(Q5_0) {
        const float d = half_at(src);
        const uint32_t low = u32_at(src + 2), high = low >> 16;
        const uint8_t *q = src + 6;
        for (int j = 0; j < 16; j++)
            dst[j] = d * (float)((q[j] & 15) - (low & bit_of[j] ? 0 : 16));
        for (int j = 0; j < 16; j++)
            dst[j + 16] = d * (float)((q[j] >> 4) - (high & bit_of[j] ? 0 : 16));
    }
}

DECODER(Q5_1) {
    EACH_BLOCK(Q5_1) {
        const float d = half_at(src), m = half_at(src + 2);
        const uint32_t low = u32_at(src + 4), high = low >> 16;
        const uint8_t *q = src + 8;
        for (int j = 0; j < 16; j++)
            dst[j] = d * (float)((q[j] & 15) + (low & bit_of[j] ? 16 : 0)) + m;
        for (int j = 0; j < 16; j++)
            dst[j + 16] = d * (float)((q[j] >> 4) + (high & bit_of[j] ? 16 : 0)) + m;
    }
}

DECODER(Q8_0) {
    EACH_BLOCK(Q8_0) {
        const float d = half_at(src);
        for (int j = 0; j < 32; j++)
            dst[j] = (float)(int8_t)src[2 + j] * d;
    }
}

/* The values of a 4-bit code. */
static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/* E2M1 (0 .5 1 1.5 2 3 4 6, then negative), doubled; the scale is halved to match. */
static const int8_t mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* 16 bytes of codes, low nibbles first: 32 values times d. */
HELPER void decode_codes(const uint8_t *restrict q, const int8_t *restrict values, float d, float *restrict dst) {
    int8_t v[32];
    for (int j = 0; j < 16; j++) {
        v[j] = values[q[j] & 15];
        v[j + 16] = values[q[j] >> 4];
    }
    for (int j = 0; j < 32; j++)
        dst[j] = d * (float)v[j];
}

DECODER(IQ4_NL) {
    EACH_BLOCK(IQ4_NL) decode_codes(src + 2, iq4_values, half_at(src), dst);
}

DECODER(MXFP4) {
    EACH_BLOCK(MXFP4) {
        const uint32_t e = src[0]; /* E8M0: half of 2^(e - 127), which is subnormal below 2 */
        decode_codes(src + 1, mxfp4_values, from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23), dst);
    }
}

/* ==== Superblocks of 256 ==== */

/* 8 scales and 8 minima of 6 bits in 12 bytes. */
HELPER void unpack_scales(const uint8_t *s, uint8_t sc[8], uint8_t mn[8]) {
    for (int j = 0; j < 4; j++) {
        sc[j] = s[j] & 63;
        mn[j] = s[j + 4] & 63;
        sc[j + 4] = (uint8_t)((s[j + 8] & 15) | (s[j] >> 6) << 4);
        mn[j + 4] = (uint8_t)((s[j + 8] >> 4) | (s[j + 4] >> 6) << 4);
    }
}

/* Four 2-bit planes in a byte: element 128h + 32g + l is plane g of byte 32h + l. */
DECODER(Q2_K) {
    EACH_BLOCK(Q2_K) {
        const float d = half_at(src + 80), dmin = half_at(src + 82);
        for (int s = 0; s < 16; s++) { /* 16 elements with a scale of their own */
            const uint8_t *q = src + 16 + 32 * (s / 8) + 16 * (s & 1);
            const int shift = 2 * (s / 2 & 3);
            const float dl = d * (float)(src[s] & 15), ml = dmin * (float)(src[s] >> 4);
            for (int j = 0; j < 16; j++)
                dst[16 * s + j] = dl * (float)(q[j] >> shift & 3) - ml;
        }
    }
}

/* As Q2_K, with a third bit, inverted, in plane s / 2 of the first 32 bytes. */
DECODER(Q3_K) {
    EACH_BLOCK(Q3_K) {
        const float d = half_at(src + 108);
        const uint8_t *sc = src + 96;
        for (int s = 0; s < 16; s++) {
            const uint8_t *high = src + 16 * (s & 1), *q = src + 32 + 32 * (s / 8) + 16 * (s & 1);
            const int shift = 2 * (s / 2 & 3);
            const uint8_t plane = (uint8_t)(1 << s / 2);
            const int low4 = s < 8 ? sc[s] & 15 : sc[s - 8] >> 4, high2 = sc[8 + (s & 3)] >> 2 * (s / 4) & 3;
            const float dl = d * (float)((low4 | high2 << 4) - 32);
            for (int j = 0; j < 16; j++)
                dst[16 * s + j] = dl * (float)((q[j] >> shift & 3) - (high[j] & plane ? 0 : 4));
        }
    }
}

/* Sub-blocks of 32 in pairs that share 32 bytes: the even one in the low nibbles. */
DECODER(Q4_K) {
    EACH_BLOCK(Q4_K) {
        const float d = half_at(src), dmin = half_at(src + 2);
        uint8_t sc[8], mn[8];
        unpack_scales(src + 4, sc, mn);
        for (int p = 0; p < 4; p++) {
            const uint8_t *q = src + 16 + 32 * p;
            const float d0 = d * (float)sc[2 * p], m0 = dmin * (float)mn[2 * p];
            const float d1 = d * (float)sc[2 * p + 1], m1 = dmin * (float)mn[2 * p + 1];
            for (int j = 0; j < 32; j++)
                dst[64 * p + j] = d0 * (float)(q[j] & 15) - m0;
            for (int j = 0; j < 32; j++)
                dst[64 * p + 32 + j] = d1 * (float)(q[j] >> 4) - m1;
        }
    }
}

/* As Q4_K, with a fifth bit in plane (sub-block) of qh. */
DECODER(Q5_K) {
    EACH_BLOCK(Q5_K) {
        const float d = half_at(src), dmin = half_at(src + 2);
        const uint8_t *qh = src + 16;
        uint8_t sc[8], mn[8];
        unpack_scales(src + 4, sc, mn);
        for (int p = 0; p < 4; p++) {
            const uint8_t *q = src + 48 + 32 * p;
            const float d0 = d * (float)sc[2 * p], m0 = dmin * (float)mn[2 * p];
            const float d1 = d * (float)sc[2 * p + 1], m1 = dmin * (float)mn[2 * p + 1];
            for (int j = 0; j < 32; j++)
                dst[64 * p + j] = d0 * (float)((q[j] & 15) | (qh[j] >> 2 * p & 1) << 4) - m0;
            for (int j = 0; j < 32; j++)
                dst[64 * p + 32 + j] = d1 * (float)((q[j] >> 4) | (qh[j] >> (2 * p + 1) & 1) << 4) - m1;
        }
    }
}

/* 16 elements of 6 bits: a nibble of ql and two bits of qh. The shifts are constants at every call. */
HELPER void decode_sixes(float *restrict dst, const uint8_t *restrict ql, int ql_shift, const uint8_t *restrict qh,
                         int qh_shift, float d) {
    for (int j = 0; j < 16; j++)
        dst[j] = d * (float)(((ql[j] >> ql_shift & 15) | (qh[j] >> qh_shift & 3) << 4) - 32);
}

/* Element 128h + 32g + l: nibble of ql[64h + 32(g & 1) + l], high if g >= 2, and plane g of qh[32h + l]. */
DECODER(Q6_K) {
    EACH_BLOCK(Q6_K) {
        const float d = half_at(src + 208);
        for (int i = 0; i < 4; i++) { /* h, and the lower or upper 16 of l */
            const uint8_t *ql = src + 32 * i - 16 * (i & 1), *qh = src + 128 + 16 * i;
            const int first = 8 * (i / 2) + (i & 1); /* of the scales and of the 16-element groups */
            const int8_t *sc = (const int8_t *)src + 192 + first;
            float *to = dst + 16 * first;
            decode_sixes(to, ql, 0, qh, 0, d * (float)sc[0]);
            decode_sixes(to + 32, ql + 32, 0, qh, 2, d * (float)sc[2]);
            decode_sixes(to + 64, ql, 4, qh, 4, d * (float)sc[4]);
            decode_sixes(to + 96, ql + 32, 4, qh, 6, d * (float)sc[6]);
        }
    }
}

DECODER(IQ4_XS) {
    EACH_BLOCK(IQ4_XS) {
        const float d = half_at(src);
        const uint32_t high = u16_at(src + 2);
        for (int b = 0; b < 8; b++) {
            const int ls = (int)((src[4 + b / 2] >> 4 * (b & 1) & 15) | (high >> 2 * b & 3) << 4);
            decode_codes(src + 8 + 16 * b, iq4_values, d * (float)(ls - 32), dst + 32 * b);
        }
    }
}

/* ==== All of them ==== */

void dequant_row(DType t, const void *src, float *dst, int64_t n) {
    static void (*const decoders[DT_COUNT])(const uint8_t *restrict, float *restrict, int64_t) = {
#define QUANT(name, ...) [DT_##name] = decode_##name,
#include "ir/quants.def"
#undef QUANT
    };
    const DTypeInfo *info = dtype_info(t);
    if (n < 0 || n % info->block_elems || !decoders[t])
        ICE("cannot decode %lld elements of %s", (long long)n, info->name);
    decoders[t](src, dst, n);
}
