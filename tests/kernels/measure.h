/* measure.h - the decode matmul on a GPU: kernels of shapes, weights as tiles, launches. */
#ifndef LAP_TESTS_KERNELS_MEASURE_H
#define LAP_TESTS_KERNELS_MEASURE_H

#include "tests/kernels/lab.h"
#include "tests/kernels/shape.h"

/* A shape with its kernel. */
typedef struct Built {
    Shape shape;
    DevModule *module;
    const DevKernel *matmul;
} Built;

/* Compiles all, on all processors. */
void lab_build(Lab *l, const Shape *shapes, int n, Built *out);

/* `count` matrices of n_rows rows in the file's form (host memory) to tiles at `to`. */
void lab_repack(Lab *l, DType t, const uint8_t *rows, int n_rows, int k, int count, DevPtr to);

/* Addresses of a launch; ids for experts, sum where there is a tail. */
typedef struct Operands {
    DevPtr weights[MAX_SEGMENTS], x, ids, planes, live, tail, sum;
} Operands;

/* The values that a launch points to. */
typedef struct Arguments {
    DevPtr values[MAX_SEGMENTS + 7];
    void *pointers[MAX_SEGMENTS + 7];
} Arguments;

DevLaunch lab_matmul(const Lab *l, const Built *b, const Operands *o, Arguments *a);
/* arguments: from, to, n_rows, k */
DevLaunch lab_repack_launch(Lab *l, DType t, int n_rows, int k, int count, void **arguments);
/* Runs it. */
void lab_multiply(Lab *l, const Built *b, const Operands *o);
/* Prints the table of rates (rates.c). */
void lab_rates(Lab *l);

#endif
