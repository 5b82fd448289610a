/* blocks.c - see blocks.h. Random bytes are valid codes in every format; only scales must be chosen. */
#include "tests/kernels/blocks.h"

#include <math.h>
#include <string.h>

uint64_t random_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float random_unit(uint64_t *state) {
    return (float)(random_next(state) >> 40) * 0x1p-24f;
}

float random_normal(uint64_t *state) {
    const float u = random_unit(state) + 0x1p-25f, v = random_unit(state);
    return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}

/* Where a block holds f16 scales, and about how large a weight is for a scale of 1. */
typedef struct ScaleSpec {
    int at, second; /* byte of d; of dmin or m; -1: none */
    float unit;
    float second_unit; /* of the second, as part of a weight's size */
} ScaleSpec;

static const ScaleSpec specs[DT_COUNT] = {
    [DT_Q4_0] = {0, -1, 8, 0},      [DT_Q4_1] = {0, 2, 15, -1},    [DT_Q5_0] = {0, -1, 16, 0},
    [DT_Q5_1] = {0, 2, 31, -1},     [DT_Q8_0] = {0, -1, 127, 0},   [DT_Q2_K] = {80, 82, 45, 15},
    [DT_Q3_K] = {108, -1, 128, 0},  [DT_Q4_K] = {0, 2, 900, 60},   [DT_Q5_K] = {0, 2, 1900, 60},
    [DT_Q6_K] = {208, -1, 4096, 0}, [DT_IQ4_NL] = {0, -1, 113, 0}, [DT_IQ4_XS] = {0, -1, 3600, 0},
};

static void put_half(uint8_t *p, float f) {
    const uint16_t h = f32_to_f16(f);
    memcpy(p, &h, 2);
}

/* Scales are kept in the normal range of f16: a product with 6-bit scales of unit 4096 would otherwise be lost. */
static float scale_for(float weight, float unit) {
    return fmaxf(weight / unit, 7e-5f);
}

static void random_block(DType t, uint8_t *block, uint64_t *state) {
    const int bytes = dtype_info(t)->block_bytes;
    const ScaleSpec *s = &specs[t];
    for (int i = 0; i < bytes; i++)
        block[i] = (uint8_t)(random_next(state) >> 32);
    const float weight = 0.02f + 0.2f * random_unit(state);
    if (t == DT_MXFP4) {
        block[0] = (uint8_t)(120 + random_next(state) % 6);
        return;
    }
    put_half(block + s->at, scale_for(weight, s->unit));
    if (s->second >= 0) {
        const float second = s->second_unit < 0 ? -0.5f * weight : scale_for(weight * 0.5f, s->second_unit);
        put_half(block + s->second, second);
    }
}

void random_row(DType t, uint8_t *row, int64_t n, uint64_t *state) {
    const DTypeInfo *info = dtype_info(t);
    for (int64_t i = 0; i < n; i += info->block_elems, row += info->block_bytes) {
        const float w = 0.1f * random_normal(state);
        const uint16_t half = t == DT_F16 ? f32_to_f16(w) : f32_to_bf16(w);
        if (info->block_elems > 1)
            random_block(t, row, state);
        else if (t == DT_F32)
            memcpy(row, &w, 4);
        else
            memcpy(row, &half, 2);
    }
}

void random_input(float *x, int64_t n, uint64_t *state) {
    for (int64_t i = 0; i < n; i++)
        x[i] = random_normal(state) * (random_next(state) % 100 == 0 ? 20.0f : 1.0f);
}
