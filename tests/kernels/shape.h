/* shape.h - how a decode matmul is launched: the numbers of matmul_decode.cu's contract, chosen from the shape. */
#ifndef LAP_TESTS_KERNELS_SHAPE_H
#define LAP_TESTS_KERNELS_SHAPE_H

#include "ir/dtype.h"

enum { MAX_SEGMENTS = 16 };

/* A row of tiles.def. */
typedef struct TileSpec {
    const char *form; /* NULL: no such type */
    int k, bytes;
    bool exact;
} TileSpec;

extern const TileSpec tile_specs[DT_COUNT];

typedef struct Segment {
    DType type;
    int rows;
} Segment;

typedef struct Shape {
    int k, n_segments;
    Segment segments[MAX_SEGMENTS];
    /* by shape only: they decide the order of sums */
    int warp_k, warps;
    /* free */
    int nt, groups, stages, x_shared, blocks;
} Shape;

/* Chooses warps and warp_k, then stages for a block that may use `shared` bytes. */
void shape_choose(Shape *s, int shared);
int shape_rows(const Shape *s); /* N */
int shape_slices(const Shape *s);
int shape_strips(const Shape *s);
int shape_threads(const Shape *s);
int shape_shared(const Shape *s); /* dynamic shared memory, bytes */
int shape_grid(const Shape *s, int multiprocessors);
size_t segment_tile_bytes(const Shape *s, int i);
/* As in the file: what GB/s are counted by. */
size_t shape_file_bytes(const Shape *s);
size_t shape_plane_bytes(const Shape *s); /* of all planes */
size_t shape_record_bytes(const Shape *s);
/* The #define lines for matmul_decode.cu and for matmul_input.cu; malloc. */
char *shape_defines(const Shape *s, const char *name);
char *shape_input_defines(const Shape *s);

#endif
