/* plane.h - planes of caches as the kernels have them, against rows as the evaluator has them. */
#ifndef LAP_TESTS_ATTENTION_PLANE_H
#define LAP_TESTS_ATTENTION_PLANE_H

#include "ir/kv.h"

/* Keys or values of one sequence. */
typedef struct Plane {
    DType type;
    int heads, dim, capacity, ring;
} Plane;

size_t plane_bytes(const Plane *p);
/* Of a position: [heads] blocks, as kv_encode() writes them. */
size_t plane_row_bytes(const Plane *p);
void plane_put(const Plane *p, uint8_t *plane, int pos, const uint8_t *row);
void plane_get(const Plane *p, const uint8_t *plane, int pos, uint8_t *row);
/* [heads][dim] as f32 to such a row, and back, in the basis of the model. */
void plane_encode(const Plane *p, const float *x, uint8_t *row);
void plane_decode(const Plane *p, const uint8_t *row, float *x);
/* How many numbers of two rows, codes or elements and scales, are not the same, and are not even neighbours. */
void plane_compare(const Plane *p, const uint8_t *a, const uint8_t *b, int *other, int *far);

#endif
