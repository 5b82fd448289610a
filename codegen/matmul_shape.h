/* matmul_shape.h - how a decode matmul is cut: the numbers of kernels/matmul_strips.cu.
 *
 * warps and warp_k come from choose-matmul and decide the order of sums; the rest is fitted to the architecture, and is
 * a MatmulCut, which changes no bit of a result. The first of a few ways to cut is the rule; a GPU may be faster with
 * another, so they can be timed (runtime/engine/gpu_tune.c).
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

/* How the ring that brings the weights is cut: results do not depend on it. */
typedef struct MatmulCut {
    int groups, stages, flight, partials;
} MatmulCut;

enum { MATMUL_WAYS = 5 }; /* ways to cut that are worth timing; way 0 is the rule */

/* Bytes of a block for the ring and what is beside it: by the rule, and the other size worth timing. */
typedef struct MatmulRoom {
    int64_t usual, other;
} MatmulRoom;

/* Fits stages, and groups where they are 0, into `shared` bytes of a block. False when not even one stage fits. */
bool matmul_shape_fit(MatmulShape *s, int64_t shared);
/* A way to cut the shape, whatever cut it has. False when it does not fit. */
bool matmul_way(const MatmulShape *s, const MatmulRoom *room, int way, MatmulCut *out);
bool matmul_cut_same(const MatmulCut *a, const MatmulCut *b);
MatmulCut matmul_cut(const MatmulShape *s);
void matmul_cut_set(MatmulShape *s, const MatmulCut *c);
/* What the time of a cut depends on, as text that names the shape: "5376 = Q4_K 8192 + Q6_K 4096, 11 x 256, rows 8". */
void matmul_shape_text(const MatmulShape *s, Buf *to);
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
