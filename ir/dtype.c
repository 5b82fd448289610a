/* dtype.c - the table of element types, and the 16-bit floats. */
#include "ir/dtype.h"

#include <string.h>

static const DTypeInfo infos[DT_COUNT] = {
#define QUANT(name, text, id, elems, bytes, form, tile_k, tile_bytes, exact)                                           \
    [DT_##name] = {text, id, elems, bytes, true, #form, tile_k, tile_bytes, exact},
#include "ir/quants.def"
#undef QUANT
    [DT_I32] = {.name = "i32", .gguf_id = 26, .block_elems = 1, .block_bytes = 4},
    [DT_TQ3_0] = {.name = "tq3_0", .gguf_id = -1, .block_elems = 128, .block_bytes = 4 * (2 + 8 + 4)},
    [DT_KV] = {.name = "kv", .gguf_id = -1, .block_elems = 1},
};

/* The sizes of ggml's own block structs: scale(s), then codes. */
_Static_assert(DT_F32 == 0, "a zeroed type is f32");
#define QUANT(name, text, id, elems, bytes, ...) enum { SIZE_##name = bytes, ELEMS_##name = elems };
#include "ir/quants.def"
#undef QUANT
_Static_assert(SIZE_Q4_0 == 2 + 16 && SIZE_Q4_1 == 2 + 2 + 16, "");
_Static_assert(SIZE_Q5_0 == 2 + 4 + 16 && SIZE_Q5_1 == 2 + 2 + 4 + 16, "");
_Static_assert(SIZE_Q8_0 == 2 + 32 && SIZE_IQ4_NL == 2 + 16 && SIZE_MXFP4 == 1 + 16, "");
_Static_assert(SIZE_Q2_K == 16 + 64 + 2 + 2 && SIZE_Q3_K == 32 + 64 + 12 + 2, "");
_Static_assert(SIZE_Q4_K == 2 + 2 + 12 + 128 && SIZE_Q5_K == 2 + 2 + 12 + 32 + 128, "");
_Static_assert(SIZE_Q6_K == 128 + 64 + 16 + 2 && SIZE_IQ4_XS == 2 + 2 + 4 + 128, "");

const DTypeInfo *dtype_info(DType t) {
    if ((unsigned)t >= DT_COUNT)
        ICE("no element type %d", (int)t);
    return &infos[t];
}

const char *dtype_name(DType t) {
    return dtype_info(t)->name;
}

DType dtype_from_gguf(uint32_t id) {
    for (int t = 0; t < DT_COUNT; t++)
        if (infos[t].gguf_id >= 0 && (uint32_t)infos[t].gguf_id == id)
            return (DType)t;
    return DT_COUNT;
}

DType dtype_from_name(Str name) {
    for (int t = 0; t < DT_COUNT; t++)
        if (str_eq(name, infos[t].name))
            return (DType)t;
    return DT_COUNT;
}

size_t dtype_row_bytes(DType t, int64_t n) {
    const DTypeInfo *i = dtype_info(t);
    if (n < 0 || n % i->block_elems)
        ICE("a row of %lld elements is not whole blocks of %s", (long long)n, i->name);
    return (size_t)(n / i->block_elems) * (size_t)i->block_bytes;
}

int64_t dtype_tile_bytes(DType t, int64_t rows, int64_t k) {
    const DTypeInfo *i = dtype_info(t);
    if (!i->tile_form || rows < 1 || k < 1)
        ICE("no tiles for %lld x %lld of %s", (long long)rows, (long long)k, i->name);
    int64_t strips = (rows + TILE_ROWS - 1) / TILE_ROWS, tiles = (k + i->tile_k - 1) / i->tile_k;
    return strips * tiles * i->tile_bytes;
}

float bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f32_to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exp = h >> 10 & 31, frac = h & 0x3ff;
    uint32_t bits;
    float f;
    if (exp == 31) {
        bits = sign | 0x7f800000 | frac << 13;
    } else if (exp) {
        bits = sign | (exp + 112) << 23 | frac << 13;
    } else { /* zero or subnormal: frac * 2^-24 is exact in f32 */
        f = (float)frac * 0x1p-24f;
        return sign ? -f : f;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f32_to_f16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, mag = bits & 0x7fffffff;
    if (mag > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (mag >= 0x477ff000) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (mag < 0x38800000) { /* below 2^-14: adding 0.5 lines the result up with the last place */
        float m, magic = 0.5f;
        uint32_t r, base;
        memcpy(&m, &mag, sizeof m);
        m += magic;
        memcpy(&r, &m, sizeof r);
        memcpy(&base, &magic, sizeof base);
        return (uint16_t)(sign | (r - base));
    }
    mag += 0xfff + (mag >> 13 & 1);
    return (uint16_t)(sign | (mag - 0x38000000) >> 13);
}
