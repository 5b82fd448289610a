/* prefill_shape.h - how a prefill matmul is cut: the numbers of kernels/matmul_prefill.cu and matmul_wgmma.cu, which
 * change no result. */
#ifndef LAP_CODEGEN_PREFILL_SHAPE_H
#define LAP_CODEGEN_PREFILL_SHAPE_H

#include "codegen/matmul_shape.h"

enum {
    RECORD_K = 256,
    RECORD_LANE = 8,
    ROWS_OF_TILE = 8
}; /* columns of a record, those of a lane that makes it, rows of one and of an atom (kernels/matmul_rows.cu) */

/* Strips of 16 weight rows and rows of x that a block multiplies, and those of a warp. */
typedef struct PrefillCut {
    int strips, warp_strips, tokens, warp_tokens, stages;
    int blocks;   /* on a multiprocessor */
    int x_stages; /* of rows: kernels/matmul_wgmma.cu, on x atoms; 0: kernels/matmul_prefill.cu, on x records */
} PrefillCut;

/* The best cut that fits into `shared` bytes of a block; wgmma: for warpgroups. False: none. */
bool prefill_cut(const MatmulShape *s, int64_t shared, bool wgmma, PrefillCut *out);
const char *prefill_file(const PrefillCut *c); /* the kernel's */
int prefill_threads(const PrefillCut *c);
int64_t prefill_shared(const MatmulShape *s, const PrefillCut *c); /* dynamic, bytes */
/* Bytes of `entries` rows of x as records, or as atoms. */
int64_t prefill_x_bytes(int64_t k, int64_t entries, bool atoms);
/* Most entries of the list that sorts `pairs` pairs of row and expert: each expert's part is whole tiles. */
int64_t prefill_entries(int64_t pairs, int64_t experts);
/* Most blocks of rows of that list. */
int64_t prefill_expert_tiles(int64_t pairs, int64_t experts, const PrefillCut *c);
/* Whether it writes f16 and a number to multiply each row by, in place of f32: PF_HALVES. */
bool prefill_halves(const MatmulShape *s, const PrefillCut *c, bool grouped);
/* All macros of the kernel but its name; entries: most rows of x. */
void prefill_defines(const MatmulShape *s, const PrefillCut *c, int64_t entries, bool grouped, Buf *to);
/* Of matmul_input.cu. each: rows of x for a live row. copies 0: row i of x is row i of its records; else it is where
 * the sort has placed its `copies` pairs. */
typedef struct InputRows {
    int64_t each, copies;
} InputRows;
void prefill_input_defines(int64_t k, int64_t entries, bool atoms, InputRows rows, Buf *to);
/* Of experts_sort.cu. */
void prefill_sort_defines(int64_t experts, int64_t k_experts, const PrefillCut *c, Buf *to);
/* Of their blocks; dynamic shared memory of the sort, and the pairs that a block of it places. */
enum { INPUT_THREADS = 1024, SORT_THREADS = 1024, SORT_BYTES_AN_EXPERT = 136, SORT_PAIRS = 1024 };

#endif
