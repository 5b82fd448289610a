/* passes.h - the passes and the pipeline that runs them.
 *
 * One pass, one file, one function. A pass rebuilds graphs in place of the old ones; it never frees.
 * The driver, not the pass, verifies, prints, times and compares. pipeline.c holds the only list.
 */
#ifndef LAP_PASSES_PASSES_H
#define LAP_PASSES_PASSES_H

#include "ir/rates.h"
#include "ir/sparse.h"

/* Whether variants with a sparse method attend so in prefill: where their model is certified for it, which none is so
 * far (choose_attention.c); always; never. */
typedef enum SparseUse { SPARSE_AUTO, SPARSE_ON, SPARSE_OFF } SparseUse;

typedef struct PassOptions {
    int64_t context;  /* positions a sequence may reach: capacity of linear caches */
    int64_t chunk;    /* most rows of a call (prefill) */
    int64_t rows;     /* most rows wanted at the output of a call; more than chunk: chunk */
    int64_t draft;    /* most rows that may be rolled back after a call */
    DType kv_k, kv_v; /* element types of own caches that the model text leaves at f32 */
    SparseUse sparse;
    DeviceRates rates;       /* of the device that the module is for */
    double alpha;            /* of sparse methods, in the place of the text's; negative: the text's */
    bool all_taps;           /* keep every tap */
    const char *const *taps; /* else the taps wanted, by name */
    int n_taps;
} PassOptions;

/* context 4096, chunk 512, rows 64, draft 16, f32, sparse auto, rates_default(), all_taps */
PassOptions pass_options_default(void);

/* True when it changed anything; errors go to m->diag. */
typedef bool PassFn(Module *m, const PassOptions *o);

bool pass_simplify(Module *m, const PassOptions *o);
bool pass_select_rows(Module *m, const PassOptions *o);
bool pass_merge_linear(Module *m, const PassOptions *o);
bool pass_fuse_rope(Module *m, const PassOptions *o);
bool pass_fuse_moe(Module *m, const PassOptions *o);
bool pass_fuse_glu(Module *m, const PassOptions *o);
bool pass_fuse_residual(Module *m, const PassOptions *o);
bool pass_fuse_norm(Module *m, const PassOptions *o);
bool pass_plan_kv(Module *m, const PassOptions *o);
bool pass_schedule(Module *m, const PassOptions *o);
bool pass_overlap(Module *m, const PassOptions *o);
bool pass_choose_matmul(Module *m, const PassOptions *o);
bool pass_choose_attention(Module *m, const PassOptions *o);
bool pass_plan_memory(Module *m, const PassOptions *o);

/* choose-matmul's policy: for matrices of k columns and n >= 1 types, one launch. (choose_matmul.c) */
typedef struct MatmulSplit {
    int warps, columns; /* as in Group */
} MatmulSplit;

MatmulSplit matmul_split(int64_t k, const DType *types, int n);

/* Whether the text lets an attention of the module be sparse. (choose_attention.c) */
bool sparse_possible(const Module *m);
/* The largest block of its sparse methods; 1 without. (choose_attention.c) */
int64_t sparse_grid(const Module *m);

/* choose-attention's costs of a layer. (sparse_cost.c) */
typedef struct SparseShape {
    int64_t heads, kv_heads, k_dim, v_dim;
    int64_t rows; /* of a call */
    FlashPrefill method;
} SparseShape;

/* Of the machine: FLOP/s of dense and sparse attention and of scores, bytes/s, seconds that sparse costs at least. */
typedef struct SparseRates {
    double dense, sparse, score, bytes, fixed;
} SparseRates;

typedef struct SparseCost {
    double dense, sparse; /* seconds */
    double kept;          /* share of the blocks */
} SparseCost;

/* Of a device with such rates. */
SparseRates sparse_rates(const DeviceRates *r);
/* Of the call whose last row has `keys` keys behind it, itself counted. */
SparseCost sparse_cost(const SparseShape *s, const SparseRates *r, int64_t keys);
/* The position from which sparse is worth it; -1: at no position of the context. */
int64_t sparse_from(const SparseShape *s, const SparseRates *r, int64_t context);

typedef struct PassInfo {
    const char *name;
    PassFn *run;
    bool by_rows;     /* what it decides depends on how many rows calls have, and it may run again for others */
    const char *does; /* one line for --help */
    const char *why;  /* why at this place in the order */
} PassInfo;

const PassInfo *pass_list(int *count);

/* What is wrong with `name` as the value of `option`: NULL if it is a pass, else `OPTION: no pass "NAME"; did you
 * mean ..`. */
const char *pass_problem(Arena *a, const char *option, const char *name);

typedef struct PipelineOptions {
    PassOptions pass;
    const char *print_after; /* a pass, "all", or NULL */
    const char *stop_after;  /* NULL: run all */
    const char *run_pass;    /* run only this one */
    bool diff;               /* print what each pass changed, as a unified diff of the text */
    bool verify_each;        /* evaluate before and after each pass and compare */
    bool time;               /* a line of time and node counts for each pass */
    FILE *out;               /* where printing goes */
    const void *const *data; /* weights for verify_each; NULL: random ones are made */
} PipelineOptions;

/* What is wrong with the passes that o names (unknown, or to be printed after but not run), in terms of its
 * members with - for _; NULL: nothing. */
const char *pipeline_problem(Arena *a, const PipelineOptions *o);

/* Runs the passes in order; ir_verify after each. False after errors in m->diag. */
bool pipeline_run(Module *m, const PipelineOptions *o);

/* After all passes: what they decided by the chunk and the wanted rows, for others. The graphs stay as they are. */
bool pipeline_replan(Module *m, const PassOptions *o);

/* The check behind verify_each: runs every graph of both modules on the same random tokens, in
 * calls of several sizes, and compares all emits and taps both have. Reports to b->diag. rows: most
 * rows a call. Random weights, made from `seed`, where data is NULL. */
bool pipeline_same_results(const Module *a, const Module *b, const void *const *data, uint64_t seed, int rows,
                           double *worst);

#endif
