/* eval_int.h - what the files of the evaluator share. Private to ir/eval*.c (and ir/dequant.c, ir/kv_row.c).
 *
 * eval.c drives: it gives each node of a graph a place for its result and calls the op's function,
 * eval_<name> of ops.def. An op reads its operands with run_f32() / run_i32(), writes to run_out(),
 * and reports with run_fail().
 */
#ifndef LAP_IR_EVAL_INT_H
#define LAP_IR_EVAL_INT_H

#include "ir/eval.h"

/* A function so marked is built for several levels of the instruction set and the best is taken
 * when the program starts. Only where the compiler and the C library do that; the sanitizers do
 * not get along with code that runs before they are set up. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) &&                       \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define EVAL_MULTIARCH __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVAL_MULTIARCH
#endif

/* ==== Threads (eval_threads.c) ==== */

typedef struct Pool Pool;
/* One part of a job; thread: 0 .. pool_threads() - 1, for memory of its own. */
typedef void PartFn(const void *ctx, int64_t part, int thread);

Pool *pool_new(int threads); /* 0: all processors this process may use */
void pool_free(Pool *p);     /* NULL is fine */
int pool_threads(const Pool *p);
/* Calls f for parts 0 .. parts - 1, in any order, and returns when all are done. */
void pool_run(Pool *p, int64_t parts, PartFn *f, const void *ctx);

/* ==== State ==== */

/* The planes of one sequence in one cache. A place is kv_slot() of a position; held[place] says
 * whose row is there. Planes grow as places come into use. */
typedef struct KvSeq {
    uint8_t *k, *v; /* [places][heads][dim] as the layout's types (kv_row.c) */
    int32_t *held;  /* [places]: absolute position; -1 nothing */
    int64_t places; /* allocated */
    int64_t end;    /* one past the largest position stored */
} KvSeq;

struct Evaluator {
    const Module *m;
    const void **data;    /* [weights] bytes as stored; borrowed */
    float **decoded;      /* [weights] whole weights as f32, made when an op wants them so; else NULL */
    const float **tables; /* [weights] the weights that variants read; NULL the others */
    int64_t *tables_len;  /* [weights] */
    KvLayout *layout;     /* [caches] as planned, or linear of options.context positions */
    KvSeq *seq;           /* [caches][slots] */
    Pool *pool;
    int slots;
    void *slab; /* for graphs of plan-memory */
    int64_t slab_bytes;
    void *scratch; /* for the op that runs; grows */
    int64_t scratch_bytes;
};

/* The result of a node. */
typedef struct Value {
    const void *data; /* NULL: not computed yet, or no longer held */
    DType dtype;      /* of data: a weight's is its storage type */
    int weight;       /* the weight whose bytes these are; -1 none */
    void *owned;      /* to be freed; NULL: in the slab, or somebody else's */
} Value;

/* One call under way. */
typedef struct EvalRun {
    Evaluator *e;
    const EvalCall *call;
    const Graph *g;
    Diag *diag;
    Value *val; /* [nodes] */
} EvalRun;

typedef bool EvalFn(EvalRun *r, NodeId id);

/* Every op's meaning. */
#define OP(e, name, lo, hi, attrs, flags) EvalFn eval_##name;
#include "ir/ops.def"
#undef OP

/* ==== For ops (eval.c) ==== */

int64_t run_dim(const EvalRun *r, const Type *t, int i); /* with T and R put in */
int64_t run_elems(const EvalRun *r, const Type *t);
int64_t run_rows(const EvalRun *r, const Type *t); /* product of all dims but the last; 1 for a scalar */
int64_t run_last(const EvalRun *r, const Type *t); /* the last dim; 1 for a scalar */

/* Operand i of a node as f32, decoded when it is a stored weight; NULL after an error. */
const float *run_f32(EvalRun *r, const Node *n, int i);
/* Operand i, of type i32; NULL after an error. */
const int32_t *run_i32(EvalRun *r, const Node *n, int i);
/* Where the node's result goes. */
void *run_out(EvalRun *r, NodeId id);
/* Memory for this op alone, aligned to 64 bytes; NULL after an error. Invalid after the next call. */
void *run_scratch(EvalRun *r, const Node *n, int64_t count, int64_t size);
/* The call's input of that name, or NULL. */
const void *run_input(const EvalRun *r, const char *name);
/* The sequence of row `row` of an operand with first dim `dim0` (T, R or a number). */
int run_slot(const EvalRun *r, int64_t dim0, int64_t row);
/* Calls f for every part, over the threads when about `work` multiplications are worth it. */
void run_parts(EvalRun *r, int64_t parts, double work, PartFn *f, const void *ctx);
bool run_cancelled(const EvalRun *r);
/* Reports at the node and gives false. */
__attribute__((format(printf, 3, 4))) bool run_fail(EvalRun *r, const Node *n, const char *fmt, ...);

/* ==== Dot products (eval_linear.c) ==== */

/* sum of a[i] * b[i], in one fixed order of additions that depends only on n. */
float eval_dot(const float *a, const float *b, int64_t n);
/* sums[i] = w . x[i], the same bits as eval_dot. */
void eval_dots(const float *w, const float *const *x, int count, int64_t n, float *sums);
/* acc += scale[i] * x[i] for every i, in order; vectors of n. */
void eval_add_scaled(float *acc, const float *const *x, const float *scale, int count, int64_t n);

/* ==== Caches (eval_cache.c) ==== */

/* Fills e->layout; false after an error in m->diag. */
bool kv_setup(Evaluator *e, const EvalOptions *o);
void kv_free(Evaluator *e);
static inline KvSeq *kv_seq(const Evaluator *e, int cache, int slot) {
    return &e->seq[(int64_t)cache * e->slots + slot];
}
/* The place of a position, or -1 when it is not held. */
int64_t kv_held(const KvLayout *l, const KvSeq *s, int64_t pos);

/* ==== Sparse attention (eval_sparse.c) ==== */

/* The queries of a node that attends to stored keys. */
typedef struct SparseQueries {
    const Node *node;
    const Variant *variant;
    int cache;
    const float *q;     /* [rows][heads][k_dim] */
    const int32_t *pos; /* [rows] */
    int64_t rows, heads, dim0;
    float scale;
} SparseQueries;

typedef struct SparseKeep SparseKeep;

/* Whether the node attends sparse in this call: so chosen for the prefill phase, and it has as many rows as that. */
bool sparse_applies(const EvalRun *r, const Node *n);
/* Which blocks of keys each query block and head keeps; NULL after an error. To be freed. */
SparseKeep *sparse_select(EvalRun *r, const SparseQueries *q);
void sparse_free(SparseKeep *k); /* NULL is fine */
/* The kept positions next to each other, of query row t and head h, that begin at or behind *from: *from .. *to. */
bool sparse_run(const SparseKeep *k, int64_t t, int64_t h, int64_t *from, int64_t *to);

#endif
