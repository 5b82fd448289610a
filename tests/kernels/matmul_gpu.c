/* matmul_gpu.c - the decode matmul on a GPU against double-precision products of dequant_row()'s weights.
 *
 * matmul_gpu check [seed]   every type, odd shapes, 1..16 rows: errors, poisoned outputs, rows bit for bit the same
 * matmul_gpu rates          times of the shapes of real models beside the streaming rate of the same run
 * Exit 77 without a GPU.
 */
#include "tests/kernels/blocks.h"
#include "tests/kernels/measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_OF_32                                                                                                   \
    .n_segments = 8, .segments = {{DT_Q4_0, 40}, {DT_Q4_1, 16},   {DT_Q5_0, 33},  {DT_Q5_1, 1},                        \
                                  {DT_Q8_0, 50}, {DT_IQ4_NL, 17}, {DT_MXFP4, 20}, {DT_BF16, 31}}
#define ALL_TYPES                                                                                                      \
    .n_segments = 16,                                                                                                  \
    .segments = {{DT_Q4_K, 40}, {DT_Q5_K, 16}, {DT_Q6_K, 17},  {DT_Q8_0, 33}, {DT_Q5_0, 50}, {DT_Q4_0, 16},            \
                 {DT_Q4_1, 1},  {DT_Q5_1, 20}, {DT_F16, 30},   {DT_BF16, 19}, {DT_F32, 16},  {DT_IQ4_NL, 16},          \
                 {DT_Q2_K, 17}, {DT_Q3_K, 18}, {DT_IQ4_XS, 5}, {DT_MXFP4, 16}}
static const Shape shapes[] = {
    {.k = 64, BLOCKS_OF_32},
    {.k = 96, BLOCKS_OF_32},
    {.k = 640, BLOCKS_OF_32},
    {.k = 704, BLOCKS_OF_32},
    {.k = 2112, BLOCKS_OF_32},
    {.k = 256, ALL_TYPES},
    {.k = 2816, ALL_TYPES},
    {.k = 5376, ALL_TYPES},
    {.k = 21504, .n_segments = 2, .segments = {{DT_Q4_K, 300}, {DT_Q6_K, 17}}},
    {.k = 5376, .n_segments = 2, .segments = {{DT_Q4_K, 5000}, {DT_Q6_K, 1000}}},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], N_VARIANTS = 4, TOKENS = 16 };

/* 16 rows first: its bits are what the others must give. */
static const Shape variants[N_VARIANTS] = {
    {.nt = 2, .groups = 1},
    {.nt = 1, .groups = 1},
    {.nt = 2, .groups = 2, .x_shared = 1},
    {.nt = 1, .groups = 2, .x_shared = 1},
};
static const int lives[] = {16, 1, 2, 5, 7, 8, 9, 13, 15};
enum { N_LIVES = sizeof lives / sizeof lives[0] };

static int failures;

static void fail(const Shape *s, const char *what, int live, DType t) {
    if (failures++ < 40)
        printf("FAILED: K %d, %d tiles of rows, %d groups, %d live, %s: %s\n", s->k, s->nt, s->groups, live,
               dtype_name(t), what);
}

/* A matrix stack with what it should give. */
typedef struct Problem {
    const Shape *shape;
    int n; /* output rows */
    DType *types;
    float *x;       /* [TOKENS][k] */
    double *wanted; /* [TOKENS][n] */
    double *energy; /* the same with squared terms: what errors are measured by, as a product may cancel to nothing */
    float *first;   /* what the first variant gave with all rows */
    float *sums;    /* [TOKENS][n] */
    Operands on;
} Problem;

static void make_problem(Lab *l, const Shape *s, Problem *p, uint64_t *seed) {
    p->shape = s;
    p->n = shape_rows(s);
    const size_t n = (size_t)p->n, k = (size_t)s->k;
    p->types = calloc(n, sizeof *p->types);
    p->x = malloc(TOKENS * k * sizeof *p->x);
    p->wanted = calloc(TOKENS * n, sizeof *p->wanted);
    p->energy = calloc(TOKENS * n, sizeof *p->energy);
    p->first = calloc(TOKENS * n, sizeof *p->first);
    p->sums = calloc(TOKENS * n, sizeof *p->sums);
    random_input(p->x, (int64_t)(TOKENS * k), seed);
    float *weights = malloc(k * sizeof *weights);
    size_t row = 0;
    for (int i = 0; i < s->n_segments; i++) {
        const DType t = s->segments[i].type;
        const size_t row_bytes = dtype_row_bytes(t, s->k);
        uint8_t *file = malloc(row_bytes * (size_t)s->segments[i].rows);
        for (int r = 0; r < s->segments[i].rows; r++, row++) {
            random_row(t, file + (size_t)r * row_bytes, s->k, seed);
            dequant_row(t, file + (size_t)r * row_bytes, weights, s->k);
            p->types[row] = t;
            for (int m = 0; m < TOKENS; m++)
                for (size_t j = 0; j < k; j++) {
                    const double term = (double)weights[j] * p->x[(size_t)m * k + j];
                    p->wanted[(size_t)m * n + row] += term;
                    p->energy[(size_t)m * n + row] += term * term;
                }
        }
        p->on.weights[i] = lab_memory(l, segment_tile_bytes(s, i), 0xff);
        lab_repack(l, t, file, s->segments[i].rows, s->k, p->on.weights[i]);
        free(file);
    }
    free(weights);
    DevError e = {0};
    p->on.x = lab_memory(l, TOKENS * k * 4, 0xff);
    must(dev_copy_in(l->stream, p->on.x, p->x, TOKENS * k * 4, &e), &e);
    p->on.live = lab_memory(l, 4, 0);
}

static void free_problem(Lab *l, Problem *p) {
    for (int i = 0; i < p->shape->n_segments; i++)
        dev_free(l->device, p->on.weights[i]);
    dev_free(l->device, p->on.x);
    dev_free(l->device, p->on.live);
    free(p->types);
    free(p->x);
    free(p->wanted);
    free(p->energy);
    free(p->first);
    free(p->sums);
}

/* The planes added in order; rows that are not live must still be poison. */
static void run(Lab *l, const Built *b, Problem *p, int live) {
    DevError e = {0};
    const Shape *s = &b->shape;
    const size_t bytes = shape_plane_bytes(s), plane = bytes / 4 / (size_t)shape_slices(s);
    float *planes = malloc(bytes);
    p->on.records = lab_memory(l, shape_record_bytes(s), 0x7e);
    p->on.planes = lab_memory(l, bytes, 0xff);
    must(dev_copy_in(l->stream, p->on.live, &live, 4, &e), &e);
    lab_multiply(l, b, &p->on);
    must(dev_copy_out(l->stream, planes, p->on.planes, bytes, &e) && dev_stream_wait(l->stream, &e), &e);
    const size_t used = (size_t)live * (size_t)p->n;
    for (size_t i = 0; i < plane; i++) {
        float sum = 0;
        for (int c = 0; c < shape_slices(s); c++)
            sum += planes[(size_t)c * plane + i];
        if (i < used)
            p->sums[i] = sum;
        else if (!isnan(sum))
            fail(s, "a row that is not live was written", live, p->types[i % (size_t)p->n]);
    }
    free(planes);
    dev_free(l->device, p->on.records);
    dev_free(l->device, p->on.planes);
}

static void compare(const Shape *s, const Problem *p, int live, double worst[DT_COUNT]) {
    double error[DT_COUNT] = {0}, size[DT_COUNT] = {0};
    for (int i = 0; i < live * p->n; i++) {
        const DType t = p->types[i % p->n];
        const double d = p->sums[i] - p->wanted[i];
        error[t] += d * d;
        size[t] += p->energy[i];
    }
    /* f16 inputs 2e-4, weights rounded to f16 as much again; a few values scatter */
    for (int t = 0; t < DT_COUNT; t++) {
        if (size[t] == 0)
            continue;
        const double relative = sqrt(error[t] / size[t]);
        if (!(relative < 8e-4))
            fail(s, "the error is too large", live, (DType)t);
        worst[t] = relative <= worst[t] ? worst[t] : relative;
    }
}

static void check_shape(Lab *l, const Shape *shape, const Built *built, double worst[DT_COUNT], uint64_t *seed) {
    Problem p = {0};
    make_problem(l, shape, &p, seed);
    for (int v = 0; v < N_VARIANTS; v++)
        for (int i = 0; i < N_LIVES; i++) {
            const Shape *s = &built[v].shape;
            if (lives[i] > 8 * s->nt)
                continue;
            run(l, &built[v], &p, lives[i]);
            compare(s, &p, lives[i], worst);
            const size_t bytes = (size_t)(lives[i] * p.n) * sizeof *p.sums;
            if (v == 0 && i == 0)
                memcpy(p.first, p.sums, bytes);
            else if (memcmp(p.first, p.sums, bytes) != 0)
                fail(s, "rows are not the same bits as among 16", lives[i], p.types[0]);
        }
    free_problem(l, &p);
}

static void check(Lab *l, uint64_t seed) {
    static Shape all[N_SHAPES * N_VARIANTS];
    static Built built[N_SHAPES * N_VARIANTS];
    double worst[DT_COUNT] = {0};
    printf("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < N_SHAPES * N_VARIANTS; i++) {
        const Shape *v = &variants[i % N_VARIANTS];
        all[i] = shapes[i / N_VARIANTS];
        all[i].nt = v->nt;
        all[i].groups = v->groups;
        all[i].x_shared = v->x_shared;
        shape_choose(&all[i], lab_shared(l));
        if (all[i].stages < all[i].groups) { /* a small device: the rows stay in registers */
            all[i].x_shared = 0;
            all[i].groups = 1;
            shape_choose(&all[i], lab_shared(l));
        }
    }
    lab_build(l, all, N_SHAPES * N_VARIANTS, built);
    for (int i = 0; i < N_SHAPES; i++)
        check_shape(l, &shapes[i], &built[i * N_VARIANTS], worst, &seed);
    for (int i = 0; i < N_SHAPES * N_VARIANTS; i++)
        for (int m = 0; m < 2; m++)
            dev_module_free(built[i].modules[m]);
    for (int t = 0; t < DT_COUNT; t++)
        if (worst[t] > 0)
            printf("%-7s largest relative error %.1e\n", dtype_name((DType)t), worst[t]);
    printf(failures ? "%d failures\n" : "all shapes are right, rows are bit for bit the same for 1..16\n", failures);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "check";
    Lab l = {0};
    lab_open(&l);
    if (!strcmp(what, "rates"))
        lab_rates(&l);
    else
        check(&l, argc > 2 ? strtoull(argv[2], NULL, 0) : 20240817);
    lab_close(&l);
    return failures != 0;
}
