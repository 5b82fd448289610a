/* shape.c - see shape.h. */
#include "tests/kernels/shape.h"

#include "passes/passes.h"
#include <stdlib.h>

/* Of x in shared memory. */
static int x_bytes(const Shape *s) {
    return s->x_shared ? s->m.warps * s->m.tiles * (s->m.warp_k * 16 + 512) : 0;
}

/* Static shared memory above what every kernel has. */
static int static_shared(const Shape *s) {
    return 20 * 8 * s->m.tiles * s->slots;
}

bool shape_choose(Shape *s, int shared) {
    DType types[MAX_SEGMENTS];
    for (int i = 0; i < s->m.n_segments; i++)
        types[i] = s->m.segments[i].type;
    const MatmulSplit best = matmul_split(s->m.k, types, s->m.n_segments);
    s->m.warp_k = best.columns;
    s->m.warps = best.warps;
    return matmul_shape_fit(&s->m, shared - x_bytes(s) - static_shared(s));
}

const char *shape_file(const Shape *s) {
    return s->slots ? "matmul_experts.cu" : "matmul_decode.cu";
}

int shape_products(const Shape *s) {
    return s->slots ? s->slots : 1;
}

int shape_x_row(const Shape *s) {
    return (int)s->m.k * (s->x_pairs ? s->slots : 1);
}

int shape_shared(const Shape *s) {
    return (int)matmul_shared(&s->m) + x_bytes(s);
}

int shape_grid(const Shape *s, int multiprocessors) {
    const int slices = matmul_slices(&s->m);
    const int most = (int)matmul_strips(&s->m) * (s->slots ? 8 * s->m.tiles * s->slots : 1);
    int each = multiprocessors / slices;
    each = each < 1 ? 1 : each > most ? most : each;
    return each * slices;
}

size_t segment_tile_bytes(const Shape *s, int i) {
    const size_t matrices = s->experts ? (size_t)s->experts : 1;
    return matrices * (size_t)dtype_tile_bytes(s->m.segments[i].type, s->m.segments[i].rows, s->m.k);
}

size_t shape_plane_bytes(const Shape *s) {
    return (size_t)(8 * s->m.tiles * shape_products(s)) * (size_t)matmul_rows(&s->m) * 4;
}

char *shape_defines(const Shape *s, const char *name) {
    Buf b = {0};
    buf_printf(&b, "#define MM_NAME %s\n", name);
    matmul_defines(&s->m, &b);
    buf_printf(&b, "#undef MM_X_SHARED\n#define MM_X_SHARED %d\n#define MM_TAIL %d\n#define MM_X_RECORDS %d\n",
               s->x_shared, s->tail, s->records);
    if (s->slots)
        buf_printf(&b, "#define EX_K %d\n#define EX_X_PAIRS %d\n", s->slots, s->x_pairs);
    if (s->tail)
        buf_printf(&b, "#define TAIL_PLANES %d\n#define TAIL_ROWS %d\n#define TAIL_N %d\n", matmul_slices(&s->m),
                   8 * s->m.tiles * shape_products(s), (int)matmul_rows(&s->m));
    return b.s;
}
