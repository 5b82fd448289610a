/* shape.h - a matmul of 1..16 rows as tests launch it: how it is cut (codegen/matmul_shape.h) and what it is put to. */
#ifndef LAP_TESTS_KERNELS_SHAPE_H
#define LAP_TESTS_KERNELS_SHAPE_H

#include "codegen/matmul_shape.h"

typedef struct Shape {
    MatmulShape m;
    /* of experts (matmul_experts.cu): matrices in a stack, those of a row, and whether each has an input of its own */
    int experts, slots, x_pairs;
    int x_shared, tail; /* MM_X_SHARED; with the default tail */
} Shape;

/* Chooses warps and warp_k as the pass choose-matmul does, then stages, and groups where they are 0, for a block that
 * may use `shared` bytes. False when nothing fits. */
bool shape_choose(Shape *s, int shared);
const char *shape_file(const Shape *s); /* of the kernel */
int shape_products(const Shape *s);     /* rows of the output for a row of the input: 1, or its experts */
int shape_x_row(const Shape *s);        /* numbers in a row of x */
int shape_shared(const Shape *s);       /* dynamic shared memory, bytes */
int shape_grid(const Shape *s, int multiprocessors);
size_t segment_tile_bytes(const Shape *s, int i); /* of all its matrices */
size_t shape_plane_bytes(const Shape *s);         /* of one plane */
/* The #define lines for the kernel, and for the default tail; malloc. */
char *shape_defines(const Shape *s, const char *name);

#endif
