/* prefill_lab.h - how the prefill matmul is compiled and launched for the tests: the numbers of matmul_prefill.cu's
 * contract, with its input kernel and, for experts, the sort before it. */
#ifndef LAP_TESTS_KERNELS_PREFILL_LAB_H
#define LAP_TESTS_KERNELS_PREFILL_LAB_H

#include "codegen/prefill_shape.h"
#include "tests/kernels/measure.h"

typedef struct Prefill {
    Shape shape; /* k, segments; experts, slots, x_pairs */
    int most;    /* rows */
    PrefillCut cut;
} Prefill;

/* Cuts for the mma of single warps and of warpgroups. */
#define MMA_CUT(strips, warp_strips, tokens, warp_tokens, stages, blocks)                                              \
    { strips, warp_strips, tokens, warp_tokens, stages, blocks, 0 }
#define WGMMA_CUT(x_stages)                                                                                            \
    { 8, 1, 256, 256, 2, 1, x_stages }

int problem_products(const Prefill *p); /* most rows of the output */
int problem_entries(const Prefill *p);  /* most rows of x records */
int problem_tiles(const Prefill *p);    /* blocks of rows at most */
bool problem_halves(const Prefill *p);  /* the output is f16, with numbers to multiply its rows by */
int problem_shared(const Prefill *p);   /* dynamic shared memory of the matmul, bytes */
/* Kernels "prefill", "input" and "sort". */
Program problem_matmul(const Prefill *p, const char *label);
Program problem_input(const Prefill *p, const char *label);
Program problem_sort(const Prefill *p, const char *label);
/* A row program that copies x, kernel "rows": to records, as row_operand.cu does. Not of rows that experts share. */
Program problem_rows(const Prefill *p, const char *label);
bool problem_has_rows(const Prefill *p);

/* A problem's kernels: matmul, input, and for experts sort, and rows where it has that. */
enum { PREFILL_KERNELS = 4 };
typedef struct PrefillBuilt {
    Prefill p;
    DevModule *modules[PREFILL_KERNELS];
    const DevKernel *matmul, *input, *sort, *rows;
    int resident; /* blocks on a multiprocessor */
} PrefillBuilt;

/* Compiles all, on all processors. */
void prefill_build(Lab *l, const Prefill *problems, int n, PrefillBuilt *out);
void prefill_free(PrefillBuilt *b);

/* Addresses; ids and what the sort writes for experts only, units with halves. */
typedef struct PrefillOperands {
    DevPtr weights[MAX_SEGMENTS], x, records, out, units, live, ids, order, places, tiles, n_tiles;
} PrefillOperands;

/* Everything but weights, x, live and ids, poisoned. */
void prefill_memory(Lab *l, const Prefill *p, PrefillOperands *o);
void prefill_memory_free(Lab *l, PrefillOperands *o);

/* Launches in order for `live` rows, which o->live says, and what they point to; grid 0: as many blocks as are
 * resident, of the matmul. */
typedef struct PrefillRun {
    DevLaunch launches[PREFILL_KERNELS];
    Arguments arguments[PREFILL_KERNELS];
    int n; /* the matmul is the last */
} PrefillRun;
void prefill_launches(const Lab *l, const PrefillBuilt *b, const PrefillOperands *o, int live, int grid,
                      PrefillRun *run);

/* In place of the input's launch: problem_rows(). What it points to is in `a`. */
DevLaunch prefill_rows_launch(const PrefillBuilt *b, const PrefillOperands *o, int live, Arguments *a);

/* Compiles the sort alone and runs it, for all rows; for the caller to free. */
void prefill_sort(Lab *l, const Prefill *p, const PrefillOperands *o, DevModule **module);

/* Prints the table of rates (prefill_rates.c). */
void prefill_rates(Lab *l);

#endif
