/* random_weights.c - weights to compare two modules with, when there is no file.
 *
 * Every storage type decodes random codes to something, so a block is random bytes; only its scales
 * are set, to keep values finite and sums about 1: a matrix [N, K] gets elements of about 1/sqrt(K).
 * Vectors are norm weights, factors and the like, which models divide by: they lie in [0.5, 1.5].
 */
#include "passes/passes_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const int64_t MAX_RANDOM_BYTES = (int64_t)256 << 20;

/* Where a block's f16 scales are, and the largest value that its codes reach at scale 1. */
static const struct BlockScales {
    int n;
    int at[2];
    float reach;
} scales[DT_COUNT] = {
    [DT_Q4_0] = {1, {0}, 8},      [DT_Q4_1] = {2, {0, 2}, 16},   [DT_Q5_0] = {1, {0}, 16},
    [DT_Q5_1] = {2, {0, 2}, 32},  [DT_Q8_0] = {1, {0}, 128},     [DT_Q2_K] = {2, {80, 82}, 60},
    [DT_Q3_K] = {1, {108}, 128},  [DT_Q4_K] = {2, {0, 2}, 1008}, [DT_Q5_K] = {2, {0, 2}, 2016},
    [DT_Q6_K] = {1, {208}, 4096}, [DT_IQ4_NL] = {1, {0}, 127},   [DT_IQ4_XS] = {1, {0}, 4064},
};

static void put16(uint8_t *to, uint16_t v) {
    memcpy(to, &v, sizeof v);
}

/* One element of a type without blocks. */
static void put_element(DType t, uint8_t *to, float x) {
    if (t == DT_F16)
        put16(to, f32_to_f16(x));
    else if (t == DT_BF16)
        put16(to, f32_to_bf16(x));
    else
        memcpy(to, &x, sizeof x);
}

/* A block of random codes with scales such that its values reach about `size`. */
static void put_block(DType t, uint8_t *to, float size, uint64_t *state) {
    const struct BlockScales *s = &scales[t];
    for (int i = 0; i < dtype_info(t)->block_bytes; i++)
        to[i] = (uint8_t)(random_next(state) >> 40);
    if (t == DT_MXFP4) /* the scale is a power of two, biased by 127; codes reach 6 */
        to[0] = (uint8_t)(127 + (int)floorf(log2f(size / 6)));
    else if (s->n == 0)
        ICE("no random blocks of %s", dtype_name(t));
    for (int i = 0; i < s->n; i++)
        put16(to + s->at[i], f32_to_f16(size / s->reach * (float)random_between(state, 0.75, 1.25)));
}

static int64_t elements(const Type *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

static int64_t weight_bytes(const Type *t) {
    const DTypeInfo *d = dtype_info(t->dtype);
    return elements(t) / d->block_elems * d->block_bytes;
}

static void fill(const Type *t, uint8_t *to, uint64_t *state) {
    const DTypeInfo *d = dtype_info(t->dtype);
    int64_t blocks = elements(t) / d->block_elems;
    bool vector = t->rank < 2;
    float size = vector ? 1 : 1.7f / sqrtf((float)t->dim[t->rank - 1]); /* uniform: rms is size / 1.7 */
    for (int64_t i = 0; i < blocks; i++, to += d->block_bytes) {
        if (t->dtype == DT_I32)
            memset(to, 0, 4);
        else if (d->block_elems > 1)
            put_block(t->dtype, to, size, state);
        else
            put_element(t->dtype, to,
                        (float)(vector ? random_between(state, 0.5, 1.5) : random_between(state, -size, size)));
    }
}

void **random_weights_new(const Module *m, uint64_t seed) {
    int64_t total = 0;
    for (int i = 0; i < m->weights.n; i++) {
        if (__builtin_add_overflow(total, weight_bytes(&m->weights.v[i].type), &total) || total > MAX_RANDOM_BYTES) {
            diag_error(m->diag, NO_LOC, "the weights of '%s' are more than %lld MB: a comparison needs the real ones",
                       m->name, (long long)(MAX_RANDOM_BYTES >> 20));
            return NULL;
        }
    }
    void **data = calloc((size_t)m->weights.n + 1, sizeof *data);
    uint64_t state = seed * 2 + 1;
    for (int i = 0; data && i < m->weights.n; i++) {
        data[i] = malloc((size_t)weight_bytes(&m->weights.v[i].type) + 1);
        if (!data[i])
            ICE("out of memory for random weights");
        fill(&m->weights.v[i].type, data[i], &state);
    }
    if (!data)
        ICE("out of memory for random weights");
    return data;
}

void random_weights_free(const Module *m, void **data) {
    for (int i = 0; data && i < m->weights.n; i++)
        free(data[i]);
    free(data);
}
