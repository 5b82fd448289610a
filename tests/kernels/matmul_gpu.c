/* matmul_gpu.c - the decode matmul on a GPU against double-precision products of dequant_row()'s weights.
 *
 * matmul_gpu [--driver FILE] [--nvrtc FOLDER] check [seed]
 *     every type, odd shapes, experts, 1..16 rows: errors, poisoned outputs, rows bit for bit the same, what the tail
 *     made of the planes
 * matmul_gpu [--driver FILE] [--nvrtc FOLDER] few [seed]
 *     the same of a few small shapes: an emulated GPU takes its time
 * matmul_gpu rates
 *     times of the shapes of real models beside the streaming rate of the same run
 * Exit 77 without a GPU.
 */
#include "tests/kernels/blocks.h"
#include "tests/kernels/measure.h"
#include "tests/kernels/records.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first N_FEW: all types, columns that are several slices and no whole tiles, experts of both kinds, rows as
 * records and as f32. */
static const Shape shapes[] = {
    {.m.k = 96, BLOCKS_OF_32},
    {.m.k = 256, ALL_TYPES},
    {.m.k = 613, .records = 1, .m.n_segments = 3, .m.segments = {{DT_BF16, 40}, {DT_F16, 17}, {DT_F32, 16}}},
    {.m.k = 5376, .records = 1, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 33}, {DT_Q6_K, 17}}},
    {.m.k = 96, .m.n_segments = 1, .m.segments = {{DT_Q4_1, 33}}, .experts = 3, .slots = 2, .x_pairs = 1},
    {.m.k = 512,
     .records = 1,
     .m.n_segments = 2,
     .m.segments = {{DT_Q4_K, 70}, {DT_Q6_K, 17}},
     .experts = 7,
     .slots = 4},
    {.m.k = 64, BLOCKS_OF_32},
    {.m.k = 640, .records = 1, BLOCKS_OF_32},
    {.m.k = 704, BLOCKS_OF_32},
    {.m.k = 2112, BLOCKS_OF_32},
    {.m.k = 2816, .records = 1, ALL_TYPES},
    {.m.k = 5376, ALL_TYPES},
    {.m.k = 21504, .records = 1, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 300}, {DT_Q6_K, 17}}},
    {.m.k = 5376, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 5000}, {DT_Q6_K, 1000}}},
    {.m.k = 2816,
     .records = 1,
     .m.n_segments = 2,
     .m.segments = {{DT_Q4_K, 704}, {DT_Q6_K, 40}},
     .experts = 10,
     .slots = 4},
    {.m.k = 704,
     .m.n_segments = 2,
     .m.segments = {{DT_Q5_0, 300}, {DT_Q8_0, 17}},
     .experts = 10,
     .slots = 8,
     .x_pairs = 1},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], N_FEW = 6, N_VARIANTS = 4, TOKENS = 16 };

/* 16 rows first: its bits are what the others must give. Experts do without x_shared. */
static const Shape variants[N_VARIANTS] = {
    {.m.tiles = 2, .m.groups = 1, .tail = 1},
    {.m.tiles = 1, .m.groups = 1},
    {.m.tiles = 2, .m.groups = 2, .x_shared = 1},
    {.m.tiles = 1, .m.groups = 2, .x_shared = 1, .tail = 1},
};

/* Rows of the 16 that a run is given. */
typedef struct Range {
    int first, live;
} Range;
static const Range ranges[] = {{0, 16}, {0, 1},  {0, 2},  {0, 3},  {0, 4},  {0, 5},  {0, 6},  {0, 7},  {0, 8}, {0, 9},
                               {0, 10}, {0, 11}, {0, 12}, {0, 13}, {0, 14}, {0, 15}, {1, 15}, {15, 1}, {6, 7}, {3, 10}};
enum { N_RANGES = sizeof ranges / sizeof ranges[0] };

static int failures;

static void fail(const Shape *s, const char *what, int live, DType t) {
    if (failures++ < 40)
        printf("FAILED: K %d, %d tiles of rows, %d groups, %d live, %s: %s\n", (int)s->m.k, s->m.tiles, s->m.groups,
               live, dtype_name(t), what);
}

/* Matrices with what they should give. An output row is one of TOKENS * products. */
typedef struct Problem {
    const Shape *shape;
    int n, products; /* numbers in an output row; output rows of a token */
    DType *types;
    float *x;       /* [TOKENS][x_row] */
    int *ids;       /* [TOKENS * products] */
    double *wanted; /* [TOKENS * products][n] */
    double *energy; /* the same with squared terms: what errors are measured by, as a product may cancel to nothing */
    float *all;     /* what the first variant gave with all rows */
    float *sums;    /* [TOKENS * products][n] */
    Operands on;
    DevPtr x_there, ids_there;
} Problem;

/* One row of a matrix, times the rows that meet it. */
static void add_products(Problem *p, int matrix, size_t row, const float *weights) {
    const Shape *s = p->shape;
    for (int i = 0; i < TOKENS * p->products; i++) {
        if (p->ids[i] != matrix)
            continue;
        const float *x = p->x + (size_t)(s->x_pairs ? i : i / p->products) * (size_t)s->m.k;
        double sum = 0, energy = 0;
        for (int j = 0; j < s->m.k; j++) {
            const double term = (double)weights[j] * x[j];
            sum += term;
            energy += term * term;
        }
        p->wanted[(size_t)i * (size_t)p->n + row] = sum;
        p->energy[(size_t)i * (size_t)p->n + row] = energy;
    }
}

static void make_weights(Lab *l, Problem *p, uint64_t *seed) {
    const Shape *s = p->shape;
    const int matrices = s->experts ? s->experts : 1;
    float *weights = malloc((size_t)s->m.k * sizeof *weights);
    size_t first = 0;
    for (int i = 0; i < s->m.n_segments; i++) {
        const DType t = s->m.segments[i].type;
        const int rows = (int)s->m.segments[i].rows;
        const size_t row_bytes = dtype_row_bytes(t, s->m.k);
        uint8_t *file = malloc(row_bytes * (size_t)(rows * matrices));
        for (int r = 0; r < rows * matrices; r++) {
            random_row(t, file + (size_t)r * row_bytes, s->m.k, seed);
            dequant_row(t, file + (size_t)r * row_bytes, weights, s->m.k);
            p->types[first + (size_t)(r % rows)] = t;
            add_products(p, r / rows, first + (size_t)(r % rows), weights);
        }
        p->on.weights[i] = lab_memory(l, segment_tile_bytes(s, i), 0xff);
        lab_repack(l, t, file, rows, (int)s->m.k, matrices, p->on.weights[i]);
        free(file);
        first += (size_t)rows;
    }
    free(weights);
}

static void make_problem(Lab *l, const Shape *s, Problem *p, uint64_t *seed) {
    p->shape = s;
    p->n = (int)matmul_rows(&s->m);
    p->products = shape_products(s);
    const size_t rows = (size_t)(TOKENS * p->products), n = (size_t)p->n, x = (size_t)(TOKENS * shape_x_row(s));
    p->types = calloc(n, sizeof *p->types);
    p->x = malloc(x * sizeof *p->x);
    p->ids = calloc(rows, sizeof *p->ids);
    p->wanted = calloc(rows * n, sizeof *p->wanted);
    p->energy = calloc(rows * n, sizeof *p->energy);
    p->all = calloc(rows * n, sizeof *p->all);
    p->sums = calloc(rows * n, sizeof *p->sums);
    random_input(p->x, (int64_t)x, seed);
    for (size_t i = 0; s->experts && i < rows; i++) /* the first is the choice of many */
        p->ids[i] = random_next(seed) % 3 == 0 ? 0 : (int)(random_next(seed) % (uint64_t)s->experts);
    make_weights(l, p, seed);
    p->x_there = lab_upload(l, p->x, x * 4);
    p->ids_there = lab_memory(l, 2 * rows * 4, 0); /* a run with rows from the middle reads beyond its own */
    lab_in(l, p->ids_there, p->ids, rows * 4);
    p->on.live = lab_memory(l, 4, 0);
    p->on.tail = lab_memory(l, 8, 0);
}

static void free_problem(Lab *l, Problem *p) {
    for (int i = 0; i < p->shape->m.n_segments; i++)
        dev_free(l->device, p->on.weights[i]);
    const DevPtr there[] = {p->x_there, p->ids_there, p->on.live, p->on.tail};
    for (size_t i = 0; i < sizeof there / sizeof there[0]; i++)
        dev_free(l->device, there[i]);
    void *const here[] = {p->types, p->x, p->ids, p->wanted, p->energy, p->all, p->sums};
    for (size_t i = 0; i < sizeof here / sizeof here[0]; i++)
        free(here[i]);
}

/* The planes added in order; rows that are not live must still be poison. */
static void add_planes(const Shape *s, Problem *p, const float *planes, int live) {
    const size_t plane = shape_plane_bytes(s) / 4, used = (size_t)(live * p->products) * (size_t)p->n;
    for (size_t i = 0; i < plane; i++) {
        float sum = 0;
        for (int c = 0; c < matmul_slices(&s->m); c++)
            sum += planes[(size_t)c * plane + i];
        if (i < used)
            p->sums[i] = sum;
        else if (!isnan(sum))
            fail(s, "a row that is not live was written", live, p->types[i % (size_t)p->n]);
    }
}

/* The default tail divides the first `live` rows of the product by their largest magnitudes. */
static void check_tail(const Shape *s, const Problem *p, const float *got, int live) {
    const size_t n = (size_t)p->n;
    for (size_t row = 0; row < shape_plane_bytes(s) / 4 / n; row++) {
        float largest = 0;
        for (size_t i = 0; i < n && row < (size_t)live; i++)
            largest = fmaxf(largest, fabsf(p->sums[row * n + i]));
        for (size_t i = 0; i < n; i++) {
            const float v = got[row * n + i];
            if (row < (size_t)live ? v != p->sums[row * n + i] / largest : !isnan(v)) {
                fail(s, "the tail is wrong", live, p->types[i]);
                return;
            }
        }
    }
}

static DevPtr upload_records(Lab *l, const Problem *p, const Shape *s, Range range) {
    uint8_t *records = records_make(p->x + range.first * s->m.k, s->m.k, range.live, s->m.tiles);
    const DevPtr there = lab_upload(l, records, records_bytes(s->m.k, s->m.tiles));
    free(records);
    return there;
}

static void run(Lab *l, const Built *b, Problem *p, Range range) {
    DevError e = {0};
    const Shape *s = &b->shape;
    const size_t plane = shape_plane_bytes(s), bytes = plane * (size_t)matmul_slices(&s->m);
    float *planes = malloc(bytes + plane), *sum = planes + bytes / 4;
    int counters[2];
    const DevPtr records = s->records ? upload_records(l, p, s, range) : 0;
    p->on.x = records ? records : p->x_there + (DevPtr)(range.first * shape_x_row(s)) * 4;
    p->on.ids = p->ids_there + (DevPtr)(range.first * p->products) * 4;
    p->on.planes = lab_memory(l, bytes, 0xff);
    p->on.sum = lab_memory(l, plane, 0xff);
    must(dev_copy_in(l->stream, p->on.live, &range.live, 4, &e), &e);
    lab_multiply(l, b, &p->on);
    must(dev_copy_out(l->stream, planes, p->on.planes, bytes, &e) &&
             dev_copy_out(l->stream, sum, p->on.sum, plane, &e) &&
             dev_copy_out(l->stream, counters, p->on.tail, sizeof counters, &e) && dev_stream_wait(l->stream, &e),
         &e);
    add_planes(s, p, planes, range.live);
    if (s->tail)
        check_tail(s, p, sum, range.live);
    if (counters[0] || counters[1])
        fail(s, "the counters are not back at zero", range.live, p->types[0]);
    free(planes);
    if (records)
        dev_free(l->device, records);
    dev_free(l->device, p->on.planes);
    dev_free(l->device, p->on.sum);
}

static void compare(const Shape *s, const Problem *p, Range range, double worst[DT_COUNT]) {
    double error[DT_COUNT] = {0}, size[DT_COUNT] = {0};
    const size_t first = (size_t)(range.first * p->products) * (size_t)p->n;
    for (size_t i = 0; i < (size_t)(range.live * p->products) * (size_t)p->n; i++) {
        const DType t = p->types[i % (size_t)p->n];
        const double d = p->sums[i] - p->wanted[first + i];
        error[t] += d * d;
        size[t] += p->energy[first + i];
    }
    /* f16 inputs 2e-4, weights rounded to f16 as much again; a few values scatter */
    for (int t = 0; t < DT_COUNT; t++) {
        if (size[t] == 0)
            continue;
        const double relative = sqrt(error[t] / size[t]);
        if (!(relative < 8e-4))
            fail(s, "the error is too large", range.live, (DType)t);
        worst[t] = relative <= worst[t] ? worst[t] : relative;
    }
}

static void check_shape(Lab *l, const Shape *shape, const Built *built, double worst[DT_COUNT], uint64_t *seed) {
    Problem p = {0};
    make_problem(l, shape, &p, seed);
    for (int v = 0; v < N_VARIANTS; v++)
        for (int i = 0; i < N_RANGES; i++) {
            const Shape *s = &built[v].shape;
            const size_t row = (size_t)(p.products * p.n), first = (size_t)ranges[i].first * row;
            const size_t bytes = (size_t)ranges[i].live * row * sizeof *p.sums;
            if (ranges[i].live > 8 * s->m.tiles)
                continue;
            run(l, &built[v], &p, ranges[i]);
            compare(s, &p, ranges[i], worst);
            if (v == 0 && i == 0)
                memcpy(p.all, p.sums, bytes);
            else if (memcmp(p.all + first, p.sums, bytes) != 0)
                fail(s, "rows are not the same bits as among 16", ranges[i].live, p.types[0]);
        }
    free_problem(l, &p);
}

static void check(Lab *l, int n_shapes, uint64_t seed) {
    static Shape all[N_SHAPES * N_VARIANTS];
    static Built built[N_SHAPES * N_VARIANTS];
    double worst[DT_COUNT] = {0};
    printf("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < n_shapes * N_VARIANTS; i++) {
        const Shape *v = &variants[i % N_VARIANTS];
        all[i] = shapes[i / N_VARIANTS];
        all[i].m.tiles = v->m.tiles;
        all[i].m.groups = v->m.groups;
        all[i].x_shared = v->x_shared && !all[i].slots;
        all[i].tail = v->tail;
        if (!shape_choose(&all[i], lab_shared(l)) || all[i].m.groups < v->m.groups) {
            all[i].x_shared = 0; /* a small device: the rows stay in registers */
            all[i].m.groups = 1;
            shape_choose(&all[i], lab_shared(l));
        }
        const int multiprocessors = dev_info(l->device)->multiprocessors;
        all[i].tail &= shape_grid(&all[i], multiprocessors) <= multiprocessors; /* all at once */
    }
    lab_build(l, all, n_shapes * N_VARIANTS, built);
    for (int i = 0; i < n_shapes; i++)
        check_shape(l, &shapes[i], &built[i * N_VARIANTS], worst, &seed);
    for (int i = 0; i < n_shapes * N_VARIANTS; i++)
        dev_module_free(built[i].module);
    for (int t = 0; t < DT_COUNT; t++)
        if (worst[t] > 0)
            printf("%-7s largest relative error %.1e\n", dtype_name((DType)t), worst[t]);
    printf(failures ? "%d failures\n" : "all shapes are right, rows are bit for bit the same for 1..16\n", failures);
}

int main(int argc, char **argv) {
    Lab l = {0};
    const int i = lab_open(&l, argc, argv);
    if (i < argc && !strcmp(argv[i], "rates"))
        lab_rates(&l);
    else
        check(&l, i < argc && !strcmp(argv[i], "few") ? N_FEW : N_SHAPES,
              i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 20240817);
    lab_close(&l);
    return failures != 0;
}
