/* lab.h - builds small graphs with random inputs for the tests of the evaluator, runs them, compares. */
#ifndef LAP_TESTS_EVAL_LAB_H
#define LAP_TESTS_EVAL_LAB_H

#include "ir/eval.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* One random number sequence a program; the seed is printed, and is its first argument when given. */
void lab_seed(int argc, char **argv);
uint64_t lab_bits(void);
int64_t lab_int(int64_t lo, int64_t hi); /* lo <= x <= hi */
double lab_real(double lo, double hi);

typedef struct Lab {
    Arena *arena;
    Diag *diag;
    Module *m;
    Graph *g;
    int64_t T, R;
    EvalInput in[24];
    int n_in;
    const void *data[64]; /* of the weights */
    int threads;
} Lab;

Lab *lab_new(int64_t T, int64_t R);
void lab_free(Lab *l);

/* Dims are written as in a Type: DIM_T and DIM_R allowed first. */
#define DIMS(...)                                                                                                      \
    (int)COUNTOF(((int64_t[]){__VA_ARGS__})), (int64_t[]) {                                                            \
        __VA_ARGS__                                                                                                    \
    }

/* Inputs with random contents; the contents are at lab_in(). */
NodeId lab_floats(Lab *l, const char *name, int rank, const int64_t *dim);
NodeId lab_ints(Lab *l, const char *name, int64_t lo, int64_t hi, int rank, const int64_t *dim);
void *lab_in(Lab *l, const char *name);
/* The input "rows", R of them, and "pos", 0 .. T-1. */
NodeId lab_rows(Lab *l);
NodeId lab_pos(Lab *l);
/* A weight of any storage type with random blocks, at an odd address; its contents as f32. */
NodeId lab_weight(Lab *l, const char *name, DType t, int rank, const int64_t *dim);
const float *lab_weight_values(Lab *l, const char *name);

/* n random bytes' worth of rows of the type, scales finite and moderate. */
void lab_random_blocks(DType t, uint8_t *dst, int64_t elems);

int64_t lab_elems(const Lab *l, NodeId id);
/* Emits the node, runs the graph in a new evaluator, gives the result (arena). Fails the test on errors. */
void *lab_eval(Lab *l, NodeId id);
/* The node's results must be within tol * (1 + |want|) of want. */
void lab_expect(Lab *l, NodeId id, const double *want, double tol);
/* The same with tol * size instead: size is the sum of the magnitudes that were added up. */
void lab_expect_sized(Lab *l, NodeId id, const double *want, const double *size, double tol);
/* Runs the graph, which must fail with a message that contains `part`. */
void lab_expect_error(Lab *l, const EvalCall *call, const char *part);
EvalCall lab_call(Lab *l);
void lab_no_errors(Lab *l);

double *lab_doubles(Lab *l, int64_t n);

#endif
