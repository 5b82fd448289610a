/* matmul_shape.h - how a decode matmul is cut: the numbers of kernels/matmul_strips.cu.
 *
 * warps and warp_k come from choose-matmul and decide the order of sums; the rest is fitted to the architecture.
 */
#ifndef LAP_CODEGEN_MATMUL_SHAPE_H
#define LAP_CODEGEN_MATMUL_SHAPE_H

#include "ir/dtype.h"

enum { MAX_SEGMENTS = 16 };

typedef struct MatmulSegment {
    DType type;
    int64_t rows;
} MatmulSegment;

typedef struct MatmulShape {
    int64_t k;
    int n_segments;
    MatmulSegment segments[MAX_SEGMENTS];
    int warps, warp_k; /* beside each other; columns of each */
    int tiles;         /* of 8 rows: 1 or 2 */
    int groups, stages, flight, partials;
} MatmulShape;

/* Fits stages, and groups where they are 0, into `shared` bytes of a block. False when not even one stage fits. */
bool matmul_shape_fit(MatmulShape *s, int64_t shared);
int64_t matmul_rows(const MatmulShape *s);   /* of all segments */
int matmul_slices(const MatmulShape *s);     /* parts of K: planes of the result */
int64_t matmul_strips(const MatmulShape *s); /* of 16 rows, of one matrix of each segment */
int matmul_threads(const MatmulShape *s);
int64_t matmul_shared(const MatmulShape *s);       /* bytes */
int64_t matmul_weight_bytes(const MatmulShape *s); /* as in the file */
/* "#define MM_K .." with prefix "MM"; the segments as X(i, form, rows). */
void matmul_segments(const MatmulShape *s, const char *prefix, Buf *to);
/* All macros of a decode matmul. */
void matmul_defines(const MatmulShape *s, Buf *to);

#endif
