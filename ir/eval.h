/* eval.h - the evaluator: runs a graph of the IR in plain C, f32, threaded over rows.
 *
 * It is the meaning of every op, the oracle for passes and kernels, and the back end where there is
 * no GPU. Runs after any pass; uses the slab of plan-memory and the rings of plan-kv when they are
 * planned, so that a wrong plan shows as a wrong result. Row results do not depend on how many rows
 * a call has, but where an attention is sparse (eval_sparse.c). Weights stay as stored and are decoded a row at a time.
 */
#ifndef LAP_IR_EVAL_H
#define LAP_IR_EVAL_H

#include "ir/ir.h"

typedef struct Evaluator Evaluator;

typedef struct EvalOptions {
    int threads;     /* 0: all processors */
    int slots;       /* sequences with caches of their own; 0: 1 */
    int64_t context; /* positions to hold in a cache that plan-kv has not planned; 0: 4096 */
} EvalOptions;

/* data[i] are the bytes of m->weights.v[i] as stored; borrowed, must outlive the evaluator.
 * NULL after an error in m->diag (no data for a weight that a graph uses). */
Evaluator *eval_new(const Module *m, const void *const *data, const EvalOptions *o);
void eval_free(Evaluator *e);

typedef struct EvalInput {
    const char *name; /* "tokens", "pos", "rows", or any other input of the graph */
    const void *data; /* int32_t or float, as the input's type */
} EvalInput;

typedef struct EvalOutput {
    const char *name; /* of an emit or tap */
    float *data;      /* [T or R, ...]; the caller's, large enough; NULL: do not copy */
} EvalOutput;

typedef struct EvalCall {
    const Graph *graph;
    int64_t T, R;         /* rows of this call; wanted rows */
    int64_t ahead;        /* rows of the prompt behind this call, for the tail of sparse attention */
    const int32_t *slots; /* [T] sequence of each row; NULL: all 0 */
    const EvalInput *inputs;
    int n_inputs;
    EvalOutput *outputs;
    int n_outputs;
    /* So many of the last inputs and outputs have their data where what runs the call keeps it for other calls; of the
     * evaluator that is any memory. */
    int held_inputs, held_outputs;
    /* So many of the last tokens are guesses that earlier calls put there, on a device: their data is not read. */
    int64_t made;
    bool later; /* nothing of it is looked at but by other calls: it need not have ended when this returns */
    const volatile bool *cancel; /* checked between nodes; NULL: never */
} EvalCall;

/* False after an error in diag (missing input, token out of range, position beyond the cache,
 * a read of a position no longer in a ring), or when cancelled (then without a message).
 * After a failure the rows of this call may or may not be stored: truncate. */
bool eval_call(Evaluator *e, const EvalCall *call, Diag *diag);

/* One stored position, as f32 [heads, dim]; false when it is not held. For tests and dumps. */
bool eval_cache_row(const Evaluator *e, int cache, int slot, int64_t pos, float *k, float *v);
/* Forgets every position >= pos of a sequence (pos 0: all). */
void eval_truncate(Evaluator *e, int slot, int64_t pos);
int64_t eval_cache_bytes(const Evaluator *e);
/* Threads that calls really use: as asked for, or the processors allowed, as far as the system gave them. */
int eval_threads(const Evaluator *e);

#endif
