/* fill.c - the bytes of a tensor from its random stream.
 *
 * The stream of a tensor is a function of its key and the place alone, 8 bytes at a time. A type's function
 * then turns random bytes into blocks in place: codes stay as they are, scales are overwritten. For codes of
 * the spread in the table, a scale d gives the standard deviation d * spread. Means are 0 or, where the codes
 * are not symmetric, become 0 over many blocks by a random sign.
 */
#include "runtime/synth/synth_int.h"
#include <string.h>

/* One of the 8-byte words of a stream: splitmix64. */
static uint64_t stream(uint64_t key, uint64_t n) {
    uint64_t x = key + n * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t load64(const uint8_t *p) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static void store64(uint8_t *p, uint64_t x) {
    memcpy(p, &x, sizeof x);
}

static void store16(uint8_t *p, uint16_t x) {
    memcpy(p, &x, sizeof x);
}

#define EACH_BYTE(b) ((b)*0x0101010101010101u)

/* ==== Types: n bytes at p, random on entry ==== */

/* sqrt(3): uniform in [-1, 1) has a variance of 1/3. */
#define SQRT3 1.7320508f

static void fill_F32(uint8_t *p, size_t n, float std) {
    for (size_t k = 0; k < n; k += 4) {
        int32_t r;
        memcpy(&r, p + k, sizeof r);
        float x = (float)r * (std * SQRT3 * 0x1p-31f);
        memcpy(p + k, &x, sizeof x);
    }
}

static void fill_BF16(uint8_t *p, size_t n, float std) {
    for (size_t k = 0; k < n; k += 2) {
        int16_t r;
        memcpy(&r, p + k, sizeof r);
        float x = (float)r * (std * SQRT3 * 0x1p-15f);
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        store16(p + k, (uint16_t)((bits + 0x8000) >> 16));
    }
}

static void fill_F16(uint8_t *p, size_t n, float std) {
    for (size_t k = 0; k < n; k += 2) {
        int16_t r;
        memcpy(&r, p + k, sizeof r);
        store16(p + k, f32_to_f16((float)r * (std * SQRT3 * 0x1p-15f)));
    }
}

/* Odd codes: -127, -125 .. 127, as symmetric as those of a real file. */
static void fill_Q8_0(uint8_t *p, size_t n, float d) {
    uint16_t h = f32_to_f16(d);
    for (uint8_t *end = p + n; p < end; p += 34) {
        store16(p, h);
        for (int k = 2; k < 34; k += 8)
            store64(p + k, load64(p + k) | EACH_BYTE(1));
    }
}

/* Codes -16 .. 15 under either sign. */
static void fill_Q5_0(uint8_t *p, size_t n, float d) {
    uint16_t h = f32_to_f16(d);
    for (uint8_t *end = p + n; p < end; p += 22)
        store16(p, (uint16_t)(h | (p[1] & 0x80) << 8));
}

/* Scales and minima 32 .. 63, each at random; the smallest scale times the mean code 7.5 is the mean minimum. */
static void fill_Q4_K(uint8_t *p, size_t n, float d) {
    uint16_t h = f32_to_f16(d);
    uint16_t min = f32_to_f16(7.5f * f16_to_f32(h));
    for (uint8_t *end = p + n; p < end; p += 144) {
        store16(p, h);
        store16(p + 2, min);
        store64(p + 4, load64(p + 4) | EACH_BYTE(0xa0)); /* bit 5 of the first four, bits 7 the tops of the rest */
    }
}

/* Scales of magnitude 64 .. 128 under either sign: bit 6 is the opposite of bit 7. */
static void fill_Q6_K(uint8_t *p, size_t n, float d) {
    uint16_t h = f32_to_f16(d);
    for (uint8_t *end = p + n; p < end; p += 210) {
        for (int k = 192; k < 208; k += 8) {
            uint64_t x = load64(p + k);
            store64(p + k, (x & EACH_BYTE(0xbf)) | (~x & EACH_BYTE(0x80)) >> 1);
        }
        store16(p + 208, h);
    }
}

typedef struct Filler {
    void (*fill)(uint8_t *p, size_t n, float d);
    float spread; /* standard deviation of the values when d is 1 */
} Filler;

static const Filler fillers[DT_COUNT] = {
    [DT_F32] = {fill_F32, 1},        [DT_F16] = {fill_F16, 1},
    [DT_BF16] = {fill_BF16, 1},      [DT_Q8_0] = {fill_Q8_0, 73.9f}, /* sqrt((128^2 - 1) / 3) */
    [DT_Q5_0] = {fill_Q5_0, 9.25f},                                  /* sqrt((32^2 - 1) / 12 + 0.5^2) */
    [DT_Q4_K] = {fill_Q4_K, 243.6f}, /* s q - 7.5 m, q of 0 .. 15 and s, m of 32 .. 63 */
    [DT_Q6_K] = {fill_Q6_K, 1807},   /* rms of the scales, 97.8, times that of the codes, 18.5 */
};

bool fill_knows(DType t, SynthKind kind) {
    return kind == SYNTH_FAN ? fillers[t].fill != NULL : t == DT_F32;
}

/* ==== Values of vectors: f32 ==== */

static void fill_near(uint8_t *p, size_t n, float centre) {
    fill_F32(p, n, 0.2f / SQRT3); /* -0.2 .. 0.2 */
    for (size_t k = 0; k < n; k += 4) {
        float x;
        memcpy(&x, p + k, sizeof x);
        x = centre * (1 + x);
        memcpy(p + k, &x, sizeof x);
    }
}

static void fill_first(uint8_t *p, uint64_t at, size_t n, const SynthValues *v) {
    for (size_t k = 0; k < n; k += 4)
        memcpy(p + k, (at + k) / 4 < (uint64_t)v->n ? &v->a : &v->b, 4);
}

void synth_fill(const SynthModel *m, int i, uint64_t at, uint8_t *out, size_t n) {
    const SynthValues *v = &m->values[i];
    for (size_t k = 0; k < n; k += 8)
        store64(out + k, stream(v->key, (at + k) / 8));
    const Filler *f = &fillers[m->image.file.tensors[i].dtype];
    switch (v->kind) {
    case SYNTH_FAN: f->fill(out, n, v->a / f->spread); break;
    case SYNTH_NEAR: fill_near(out, n, v->a); break;
    case SYNTH_FIRST: fill_first(out, at, n, v); break;
    }
}

static int fill_piece(void *ctx, GgufPiece p, uint8_t *buffer) {
    synth_fill(ctx, p.tensor, p.at, buffer, p.n);
    return 0;
}

GgufResult synth_write(const SynthModel *m, const char *path, const GgufWork *o, Diag *diag) {
    GgufWrite w = {.work = *o, .fill = fill_piece, .ctx = (void *)m};
    return gguf_write(&m->image, path, &w, diag);
}
