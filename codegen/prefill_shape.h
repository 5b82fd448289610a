/* prefill_shape.h - how a prefill matmul is cut: the numbers of kernels/matmul_prefill.cu, which change no result. */
#ifndef LAP_CODEGEN_PREFILL_SHAPE_H
#define LAP_CODEGEN_PREFILL_SHAPE_H

#include "codegen/matmul_shape.h"

enum { RECORD = 4384, RECORD_K = 256, ROWS_OF_TILE = 8 }; /* kernels/matmul_rows.cu: bytes, columns and rows of one */

/* Strips of 16 weight rows and rows of x that a block multiplies, and those of a warp. */
typedef struct PrefillCut {
    int strips, warp_strips, tokens, warp_tokens, stages;
    int blocks; /* on a multiprocessor */
} PrefillCut;

/* The best cut that fits into `shared` bytes of a block; NULL: none. */
const PrefillCut *prefill_cut_fit(const MatmulShape *s, int64_t shared);
int prefill_threads(const PrefillCut *c);
int64_t prefill_shared(const MatmulShape *s, const PrefillCut *c); /* dynamic, bytes */
/* Most entries of the list that sorts `pairs` pairs of row and expert: each expert's part is whole tiles. */
int64_t prefill_entries(int64_t pairs, int64_t experts);
/* Most blocks of rows of that list. */
int64_t prefill_expert_tiles(int64_t pairs, int64_t experts, const PrefillCut *c);
/* All macros of matmul_prefill.cu but its name; entries: most rows of x. */
void prefill_defines(const MatmulShape *s, const PrefillCut *c, int64_t entries, bool grouped, Buf *to);
/* Of matmul_input.cu. divide 0: row i of the records is row i of x; else row order[i] / divide. */
void prefill_input_defines(int64_t k, int64_t entries, int64_t divide, Buf *to);
/* Of experts_sort.cu. */
void prefill_sort_defines(int64_t experts, int64_t k_experts, const PrefillCut *c, Buf *to);
/* Of their blocks; dynamic shared memory of the sort. */
enum { INPUT_THREADS = 1024, SORT_THREADS = 1024, SORT_BYTES_AN_EXPERT = 128 };

#endif
