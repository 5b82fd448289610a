/* shape.c - see shape.h. */
#include "tests/kernels/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { X_RECORD = 4384, MAX_STAGES = 8, MAX_WARPS = 12, MAX_CHUNK = 40 << 10 };

const TileSpec tile_specs[DT_COUNT] = {
#define TILE(type, form, k, bytes, exact) [DT_##type] = {#form, k, bytes, exact},
#include "codegen/kernels/tiles.def"
#undef TILE
};

static int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

static int tiles_of(const Shape *s, int i) {
    return ceil_div(s->k, tile_specs[s->segments[i].type].k);
}

static int chunk_bytes(const Shape *s) {
    int most = 0;
    for (int i = 0; i < s->n_segments; i++) {
        const TileSpec *t = &tile_specs[s->segments[i].type];
        const int slice = s->warps * (s->warp_k / t->k), strip = tiles_of(s, i);
        const int bytes = (slice < strip ? slice : strip) * t->bytes;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Without the ring. */
static int other_shared(const Shape *s) {
    return 4 * s->warps * s->nt * 512 + (s->x_shared ? s->warps * s->nt * s->warp_k * 16 : 0);
}

/* How much worse than the best imaginable a split is, as a part of the time: columns of a slice that nothing
 * stands in, short work between two barriers, planes to add, too few or too many warps. Constants by judgement. */
static double badness(const Shape *s) {
    const int columns = ceil_div(s->k, s->warp_k), slices = ceil_div(columns, s->warps);
    const double padded = (double)slices * s->warps * s->warp_k;
    return (padded - s->k) / padded +
           (s->warp_k == 256   ? 0
            : s->warp_k == 128 ? 0.03
                               : 0.08) +
           0.005 * slices + (s->warps < 6 ? 0.05 * (6 - s->warps) : 0.01 * abs(s->warps - 8));
}

void shape_choose(Shape *s, int shared) {
    bool wide = false;
    for (int i = 0; i < s->n_segments; i++)
        wide |= tile_specs[s->segments[i].type].k == 256;
    Shape best = {0};
    for (s->warp_k = 256; s->warp_k >= (wide ? 256 : 64); s->warp_k /= 2)
        for (s->warps = 1; s->warps <= MAX_WARPS; s->warps++)
            if ((s->warps == 1 || chunk_bytes(s) <= MAX_CHUNK) && (!best.warps || badness(s) < badness(&best)))
                best = *s;
    s->warp_k = best.warp_k;
    s->warps = best.warps;
    s->groups = s->groups ? s->groups : s->warps < 6 ? 2 : 1;
    s->blocks = s->blocks ? s->blocks : 1;
    s->stages = (shared - other_shared(s)) / chunk_bytes(s);
    s->stages = s->stages > MAX_STAGES ? MAX_STAGES : s->stages;
    s->stages -= s->stages % s->groups;
}

int shape_rows(const Shape *s) {
    int rows = 0;
    for (int i = 0; i < s->n_segments; i++)
        rows += s->segments[i].rows;
    return rows;
}

int shape_strips(const Shape *s) {
    int strips = 0;
    for (int i = 0; i < s->n_segments; i++)
        strips += ceil_div(s->segments[i].rows, 16);
    return strips;
}

int shape_slices(const Shape *s) {
    return ceil_div(s->k, s->warps * s->warp_k);
}

int shape_threads(const Shape *s) {
    return 32 * (s->warps * s->groups + 1);
}

int shape_shared(const Shape *s) {
    return s->stages * chunk_bytes(s) + other_shared(s);
}

int shape_grid(const Shape *s, int multiprocessors) {
    const int slices = shape_slices(s), most = shape_strips(s);
    int each = multiprocessors * s->blocks / slices;
    each = each < 1 ? 1 : each > most ? most : each;
    return each * slices;
}

size_t segment_tile_bytes(const Shape *s, int i) {
    return (size_t)ceil_div(s->segments[i].rows, 16) * (size_t)tiles_of(s, i) *
           (size_t)tile_specs[s->segments[i].type].bytes;
}

size_t shape_file_bytes(const Shape *s) {
    size_t bytes = 0;
    for (int i = 0; i < s->n_segments; i++)
        bytes += (size_t)s->segments[i].rows * dtype_row_bytes(s->segments[i].type, s->k);
    return bytes;
}

size_t shape_plane_bytes(const Shape *s) {
    return (size_t)shape_slices(s) * 8 * (size_t)s->nt * (size_t)shape_rows(s) * 4;
}

size_t shape_record_bytes(const Shape *s) {
    return (size_t)ceil_div(s->k, 256) * (size_t)s->nt * X_RECORD;
}

char *shape_defines(const Shape *s, const char *name) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (!to)
        exit(2);
    fprintf(to, "#define MM_NAME %s\n#define MM_K %d\n#define MM_SEGMENTS(X)", name, s->k);
    for (int i = 0; i < s->n_segments; i++)
        fprintf(to, " X(%d, %s, %d)", i, tile_specs[s->segments[i].type].form, s->segments[i].rows);
    fprintf(to, "\n#define MM_FORMS(X)");
    for (int i = 0; i < s->n_segments; i++) {
        const char *form = tile_specs[s->segments[i].type].form;
        int j = 0;
        while (strcmp(tile_specs[s->segments[j].type].form, form) != 0)
            j++;
        if (j == i)
            fprintf(to, " X(%s)", form);
    }
    fprintf(to, "\n#define MM_NT %d\n#define MM_WARP_K %d\n#define MM_WARPS %d\n#define MM_GROUPS %d\n", s->nt,
            s->warp_k, s->warps, s->groups);
    fprintf(to, "#define MM_STAGES %d\n#define MM_X_SHARED %d\n#define MM_BLOCKS %d\n", s->stages, s->x_shared,
            s->blocks);
    fclose(to);
    return text;
}

char *shape_input_defines(const Shape *s) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (!to)
        exit(2);
    fprintf(to, "#define IN_NAME matmul_input\n#define IN_K %d\n#define IN_NT %d\n", s->k, s->nt);
    fclose(to);
    return text;
}
