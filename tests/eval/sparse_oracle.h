/* sparse_oracle.h - FlashPrefill by brute force in f64, from the definitions in ir/eval_sparse.c and nothing else of
 * it.
 */
#ifndef LAP_TESTS_EVAL_SPARSE_ORACLE_H
#define LAP_TESTS_EVAL_SPARSE_ORACLE_H

#include "ir/sparse.h"

/* One sequence from position 0, and which of its rows are queries together. */
typedef struct SparseOracle {
    FlashPrefill p;
    int64_t heads, kv_heads, k_dim, v_dim;
    const float *q, *k, *v; /* [positions][heads or kv_heads][dim] */
    double scale;
    double (*score)(double s, double q, double k, int h); /* NULL: s */
    int64_t prompt;                                       /* positions of all of it */
    int64_t from;                                         /* query blocks that begin before it keep all */
} SparseOracle;

/* What a query block keeps of the blocks of keys 0 .. m, by head h; rows of it from..to-1. margin[n]: how far log2 of
 * the score is from the limit, INFINITY where it does not decide. */
void oracle_keep(const SparseOracle *o, int64_t m, int64_t from, int64_t to, int64_t h, bool *keep, double *margin);

/* Attention of position i, head h, to the kept blocks; out [v_dim]. Gives the share of the dense softmax in them. */
double oracle_attend(const SparseOracle *o, int64_t i, int64_t h, const bool *keep, double *out);

#endif
