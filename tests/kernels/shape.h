/* shape.h - a matmul of 1..16 rows as tests launch it: how it is cut (codegen/matmul_shape.h) and what it is put to. */
#ifndef LAP_TESTS_KERNELS_SHAPE_H
#define LAP_TESTS_KERNELS_SHAPE_H

#include "codegen/matmul_shape.h"

typedef struct Shape {
    MatmulShape m;
    /* of experts (matmul_experts.cu): matrices in a stack, those of a row, and whether each has an input of its own */
    int experts, slots, x_pairs;
    int x_shared, tail; /* MM_X_SHARED; with the default tail */
    int records;        /* MM_X_RECORDS: x is records of the live rows */
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

/* ==== Segments: designators of a Shape ==== */

/* Every type with blocks of at most 32 columns, rows that are whole tiles and not. */
#define BLOCKS_OF_32                                                                                                   \
    .m.n_segments = 8, .m.segments = {{DT_Q4_0, 40}, {DT_Q4_1, 16},   {DT_Q5_0, 33},  {DT_Q5_1, 1},                    \
                                      {DT_Q8_0, 50}, {DT_IQ4_NL, 17}, {DT_MXFP4, 20}, {DT_BF16, 31}}
/* Every type there is. */
#define ALL_TYPES                                                                                                      \
    .m.n_segments = 16,                                                                                                \
    .m.segments = {{DT_Q4_K, 40}, {DT_Q5_K, 16}, {DT_Q6_K, 17},  {DT_Q8_0, 33}, {DT_Q5_0, 50}, {DT_Q4_0, 16},          \
                   {DT_Q4_1, 1},  {DT_Q5_1, 20}, {DT_F16, 30},   {DT_BF16, 19}, {DT_F32, 16},  {DT_IQ4_NL, 16},        \
                   {DT_Q2_K, 17}, {DT_Q3_K, 18}, {DT_IQ4_XS, 5}, {DT_MXFP4, 16}}
/* Every form of tiles that has code of its own. */
#define EVERY                                                                                                          \
    .m.n_segments = 9, .m.segments = {{DT_Q4_K, 40}, {DT_Q5_K, 40}, {DT_Q6_K, 40}, {DT_Q4_0, 40}, {DT_Q4_1, 40},       \
                                      {DT_Q5_0, 40}, {DT_Q5_1, 40}, {DT_Q8_0, 40}, {DT_BF16, 40}}

#endif
