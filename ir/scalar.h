/* scalar.h - scalar expressions: the bodies of a variant's visible, score and sink.
 *
 * A small immutable tree over the query position q, the key position k, the scaled score s and the
 * query head h. The evaluator computes it per (q, k), the planner bounds it by affine interval
 * arithmetic, the code generator will print it as CUDA. Numbers are doubles; truth is 0 or 1.
 */
#ifndef LAP_IR_SCALAR_H
#define LAP_IR_SCALAR_H

#include "ir/diag.h"

typedef enum ScalarOp {
#define SCALAR(name, arity, text, prec) SC_##name,
#include "ir/scalar.def"
#undef SCALAR
    SC_COUNT
} ScalarOp;

typedef struct Scalar Scalar;
struct Scalar {
    ScalarOp op;
    double value; /* SC_CONST */
    int weight;   /* SC_TABLE: index of a 1-d weight of the module; arg[0] is the index */
    const Scalar *arg[3];
    SrcLoc loc;
};

const Scalar *scalar_new(Arena *a, ScalarOp op, const Scalar *x, const Scalar *y, const Scalar *z, SrcLoc loc);
const Scalar *scalar_const(Arena *a, double value, SrcLoc loc);
const Scalar *scalar_table(Arena *a, int weight, const Scalar *index, SrcLoc loc);
bool scalar_same(const Scalar *a, const Scalar *b);

/* What an expression reads. tables[w] is table w as f32 with tables_len[w] elements (NULL if the
 * variant has none); an index outside it gives 0. */
typedef struct ScalarEnv {
    double q, k, s, h;
    const float *const *tables;
    const int64_t *tables_len;
} ScalarEnv;

double scalar_eval(const Scalar *e, const ScalarEnv *env);

/* Infix text, fully parenthesised only where precedence needs it. Tables print as @name[index];
 * weight_name(ctx, i) gives the name. */
void scalar_print(Buf *out, const Scalar *e, const char *(*weight_name)(const void *ctx, int i), const void *ctx);

/* How deep that text nests for ir_parse(), which refuses what is deeper than SCALAR_NESTING. */
enum { SCALAR_NESTING = 100 };
int scalar_nesting(const Scalar *e);

/* ==== Intervals (ir/interval.c) ==== */

typedef enum Visibility { VIS_NONE, VIS_SOME, VIS_ALL } Visibility;

/* What holds for every (q, k) with q0 <= q <= q1, k0 <= k <= k1. Conservative: NONE and ALL are
 * proofs, SOME says nothing. */
Visibility scalar_tile(const Scalar *visible, int64_t q0, int64_t q1, int64_t k0, int64_t k1);

/* The largest distance q - k >= 0 at which a key may be visible to some query q >= 0; -1 when no
 * bound can be proved (a linear cache is needed). 511 for k <= q and q - k < 512. */
int64_t scalar_lookback(const Scalar *visible);

/* True when proved that no key k > q is ever visible. */
bool scalar_causal(const Scalar *visible);

#endif
