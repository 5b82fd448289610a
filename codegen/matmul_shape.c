/* matmul_shape.c - see matmul_shape.h. */
#include "codegen/matmul_shape.h"
#include <string.h>

enum {
    MAX_STAGES = 16,
    FEW_WARPS = 6,
    MAX_PARTIALS = 4,
    MAX_WARPS = 12, /* of all groups: leaves each 168 registers */
    /* Bytes that a multiprocessor asks for at once. 31B on an H100: 8.19 ms a step with 40 KiB, 7.93 with 64, 7.86 with
     * 96, 8.02 with all of 220: the memory gives less of a longer queue. */
    UNDER_WAY = 96 << 10,
};

/* Bytes of the largest chunk: a strip's tiles in a slice. */
static int64_t chunk_bytes(const MatmulShape *s) {
    int64_t most = 0;
    for (int i = 0; i < s->n_segments; i++) {
        const DTypeInfo *t = dtype_info(s->segments[i].type);
        const int64_t slice = (int64_t)s->warps * (s->warp_k / t->tile_k), strip = ceil_div(s->k, t->tile_k);
        const int64_t bytes = (slice < strip ? slice : strip) * t->tile_bytes;
        most = bytes > most ? bytes : most;
    }
    return most;
}

static int64_t partial_bytes(const MatmulShape *s) {
    return (int64_t)s->partials * s->warps * s->tiles * 512;
}

/* Two chunks at least, one to work on and one on its way, come before buffers of partial products. */
static int64_t fit_stages(MatmulShape *s, int64_t shared, int64_t chunk) {
    const int64_t wanted = s->groups > 2 ? s->groups : 2;
    int64_t stages = 0;
    for (s->partials = MAX_PARTIALS;; s->partials /= 2) {
        stages = (shared - partial_bytes(s)) / chunk;
        if (stages >= wanted || s->partials / 2 < s->groups)
            return stages;
    }
}

static bool fit(MatmulShape *s, int64_t shared, int64_t under_way) {
    const int64_t chunk = chunk_bytes(s);
    s->groups = s->groups ? s->groups : s->warps < FEW_WARPS ? 2 : 1;
    int64_t stages = fit_stages(s, shared, chunk);
    if (stages < s->groups)
        s->groups = 1;
    stages = stages > MAX_STAGES ? MAX_STAGES : stages;
    s->stages = (int)(stages - stages % s->groups);
    const int64_t flight = ceil_div(under_way, chunk);
    s->flight = flight > s->stages ? s->stages : (int)flight;
    return s->stages > 0;
}

bool matmul_shape_fit(MatmulShape *s, int64_t shared) {
    return fit(s, shared, UNDER_WAY);
}

/* ==== Ways to cut ==== */

/* Those between which the measurements of docs/performance/decode.md lie closest. */
static const struct {
    int64_t under_way;
    bool other_room, other_groups;
} ways[MATMUL_WAYS] = {
    {.under_way = UNDER_WAY},
    {.under_way = 64 << 10},
    {.under_way = 144 << 10},
    {.under_way = UNDER_WAY, .other_room = true},
    {.under_way = UNDER_WAY, .other_groups = true},
};

bool matmul_way(const MatmulShape *s, const MatmulRoom *room, int way, MatmulCut *out) {
    MatmulShape cut = *s;
    cut.groups = 0;
    if (ways[way].other_groups) {
        cut.groups = s->warps < FEW_WARPS ? 1 : 2;
        if (cut.groups * s->warps > MAX_WARPS)
            return false;
    }
    if (!fit(&cut, ways[way].other_room ? room->other : room->usual, ways[way].under_way))
        return false;
    *out = matmul_cut(&cut);
    return true;
}

bool matmul_cut_same(const MatmulCut *a, const MatmulCut *b) {
    return a->groups == b->groups && a->stages == b->stages && a->flight == b->flight && a->partials == b->partials;
}

MatmulCut matmul_cut(const MatmulShape *s) {
    return (MatmulCut){s->groups, s->stages, s->flight, s->partials};
}

void matmul_cut_set(MatmulShape *s, const MatmulCut *c) {
    s->groups = c->groups;
    s->stages = c->stages;
    s->flight = c->flight;
    s->partials = c->partials;
}

/* Forms, not types: two types with one form have the same kernels. */
void matmul_shape_text(const MatmulShape *s, Buf *to) {
    buf_printf(to, "%lld =", (long long)s->k);
    for (int i = 0; i < s->n_segments; i++)
        buf_printf(to, "%s %s %lld", i ? " +" : "", dtype_info(s->segments[i].type)->tile_form,
                   (long long)s->segments[i].rows);
    buf_printf(to, ", %d x %d, rows %d", s->warps, s->warp_k, 8 * s->tiles);
}

/* ==== Numbers ==== */

int64_t matmul_rows(const MatmulShape *s) {
    int64_t rows = 0;
    for (int i = 0; i < s->n_segments; i++)
        rows += s->segments[i].rows;
    return rows;
}

int matmul_slices(const MatmulShape *s) {
    return (int)ceil_div(s->k, (int64_t)s->warps * s->warp_k);
}

int64_t matmul_strips(const MatmulShape *s) {
    int64_t strips = 0;
    for (int i = 0; i < s->n_segments; i++)
        strips += ceil_div(s->segments[i].rows, TILE_ROWS);
    return strips;
}

int matmul_threads(const MatmulShape *s) {
    return 32 * (s->warps * s->groups + 1);
}

int64_t matmul_shared(const MatmulShape *s) {
    return s->stages * chunk_bytes(s) + partial_bytes(s);
}

int64_t matmul_weight_bytes(const MatmulShape *s) {
    int64_t bytes = 0;
    for (int i = 0; i < s->n_segments; i++)
        bytes += s->segments[i].rows * (int64_t)dtype_row_bytes(s->segments[i].type, s->k);
    return bytes;
}

void matmul_segments(const MatmulShape *s, const char *prefix, Buf *to) {
    buf_printf(to, "#define %s_K %lld\n#define %s_SEGMENTS(X)", prefix, (long long)s->k, prefix);
    for (int i = 0; i < s->n_segments; i++)
        buf_printf(to, " X(%d, %s, %lld)", i, dtype_info(s->segments[i].type)->tile_form,
                   (long long)s->segments[i].rows);
    buf_printf(to, "\n#define %s_FORMS(X)", prefix);
    for (int i = 0; i < s->n_segments; i++) {
        const char *form = dtype_info(s->segments[i].type)->tile_form;
        int j = 0;
        while (strcmp(dtype_info(s->segments[j].type)->tile_form, form) != 0)
            j++;
        if (j == i)
            buf_printf(to, " X(%s)", form);
    }
    buf_char(to, '\n');
}

void matmul_defines(const MatmulShape *s, Buf *to) {
    matmul_segments(s, "MM", to);
    buf_printf(to, "#define MM_NT %d\n#define MM_WARP_K %d\n#define MM_WARPS %d\n#define MM_GROUPS %d\n", s->tiles,
               s->warp_k, s->warps, s->groups);
    buf_printf(to,
               "#define MM_STAGES %d\n#define MM_FLIGHT %d\n#define MM_PARTIALS %d\n#define MM_X_SHARED 0\n#define "
               "MM_BLOCKS 1\n",
               s->stages, s->flight, s->partials);
}
