/* dtype.h - element types: what a weight is stored as, what a value of the graph holds. */
#ifndef LAP_IR_DTYPE_H
#define LAP_IR_DTYPE_H

#include "ir/base.h"

typedef enum DType {
#define QUANT(name, ...) DT_##name,
#include "ir/quants.def"
#undef QUANT
    DT_I32,   /* token ids, positions, indices; GGUF id 26 */
    DT_TQ3_0, /* only in K/V caches, see kv_row.c; a block is its group of 128, in a basis of its own */
    DT_KV,    /* the state of a K/V cache: not a tensor, only flows from `cache` and `kv_store` */
    DT_COUNT
} DType;

typedef struct DTypeInfo {
    const char *name; /* as written in text IR */
    int gguf_id;      /* -1: never in a file */
    int block_elems;  /* elements in a block along the row */
    int block_bytes;  /* bytes of a block */
    bool is_float;    /* may be dequantised to f32 */
    /* on the GPU, see quants.def; NULL and 0 for types without tiles */
    const char *tile_form; /* layout of a tile: struct Tile_<form> of the kernels */
    int tile_k;            /* columns of a tile, whose rows are TILE_ROWS */
    int tile_bytes;
    bool tile_exact; /* the tile holds the same weights as the file */
} DTypeInfo;

const DTypeInfo *dtype_info(DType t);
const char *dtype_name(DType t);
/* Both give DT_COUNT when unknown. */
DType dtype_from_gguf(uint32_t id);
DType dtype_from_name(Str name);

/* Bytes of a row of n elements; n must be a multiple of block_elems (ICE otherwise). */
size_t dtype_row_bytes(DType t, int64_t n);

/* Bytes of a matrix [rows, k] in tiles. Only for types that have them. */
enum { TILE_ROWS = 16 };
int64_t dtype_tile_bytes(DType t, int64_t rows, int64_t k);

/* Decodes n elements (a multiple of block_elems) of a stored row into f32. Formulas: the ggml
 * block formats. src needs no alignment. Not for DT_I32, DT_KV. ir/dequant.c */
void dequant_row(DType t, const void *src, float *dst, int64_t n);

/* The other way: n finite values (a multiple of block_elems) as stored, for the types that quant_known() names: f32,
 * f16, bf16, q8_0, q5_0, q4_0, q4_k, q6_k. A block whose scale is beyond f16 decodes to infinities. ir/quantise.c */
void quant_row(DType t, const float *src, void *dst, int64_t n);
bool quant_known(DType t);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* round to nearest even; overflow to inf */
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f); /* round to nearest even; NaN stays NaN */

#endif
