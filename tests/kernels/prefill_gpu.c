/* prefill_gpu.c - the prefill matmul on a GPU against double-precision products of dequant_row()'s weights.
 *
 * prefill_gpu [--driver FILE] [--nvrtc FOLDER] check [seed]
 *     every type, odd shapes, 1..130 rows, experts some of which nobody chose: errors, poisoned outputs, the sort of
 *     the experts, rows bit for bit the same in all company, and as a row program makes them
 * prefill_gpu rates
 *     times of the shapes of real models, for several cuts of a block
 * Exit 77 without a GPU.
 */
#include "tests/kernels/blocks.h"
#include "tests/kernels/prefill_lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIXES .m.n_segments = 2, .m.segments = {{DT_Q6_K, 40}, {DT_Q5_K, 23}}

/* A cut that does not fit the device is left out. */
static const Prefill problems[] = {
    {{.m.k = 512, ALL_TYPES}, 40, MMA_CUT(4, 2, 32, 16, 2, 1)},
    {{.m.k = 512, ALL_TYPES}, 40, MMA_CUT(2, 1, 16, 8, 3, 1)},
    {{.m.k = 64, BLOCKS_OF_32}, 20, MMA_CUT(4, 4, 16, 16, 2, 1)},
    {{.m.k = 96, BLOCKS_OF_32}, 20, MMA_CUT(2, 1, 16, 16, 2, 1)},
    {{.m.k = 608, BLOCKS_OF_32}, 20, MMA_CUT(4, 1, 32, 32, 1, 1)},
    {{.m.k = 613, .m.n_segments = 3, .m.segments = {{DT_BF16, 40}, {DT_F16, 17}, {DT_F32, 16}}},
     20,
     MMA_CUT(2, 2, 16, 8, 2, 1)},
    {{.m.k = 768, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 300}, {DT_Q4_K, 16}}},
     130,
     MMA_CUT(16, 4, 128, 64, 2, 1)},
    {{.m.k = 768, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 300}, {DT_Q4_K, 16}}}, 130, MMA_CUT(16, 2, 96, 48, 2, 1)},
    {{.m.k = 768, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 300}, {DT_Q4_K, 16}}}, 130, MMA_CUT(8, 2, 64, 32, 2, 2)},
    {{.m.k = 256, SIXES}, 130, MMA_CUT(4, 4, 112, 56, 2, 1)},
    {{.m.k = 256, SIXES}, 130, MMA_CUT(8, 2, 32, 32, 2, 1)},
    {{.m.k = 512, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 70}, {DT_Q6_K, 17}}, .experts = 7, .slots = 3},
     130,
     MMA_CUT(4, 2, 32, 16, 2, 1)},
    {{.m.k = 704, .m.n_segments = 1, .m.segments = {{DT_Q5_0, 70}}, .experts = 9, .slots = 2, .x_pairs = 1},
     130,
     MMA_CUT(4, 4, 64, 32, 2, 1)},
    {{.m.k = 96, .m.n_segments = 2, .m.segments = {{DT_Q8_0, 20}, {DT_Q4_1, 16}}, .experts = 40, .slots = 2},
     9,
     MMA_CUT(2, 2, 16, 16, 2, 1)},
    /* Warpgroups: all widths of a block of rows, and K that ends within a piece. */
    {{.m.k = 512, ALL_TYPES}, 40, WGMMA_CUT(2)},
    {{.m.k = 613, .m.n_segments = 3, .m.segments = {{DT_BF16, 40}, {DT_F16, 17}, {DT_F32, 16}}}, 20, WGMMA_CUT(3)},
    {{.m.k = 64, BLOCKS_OF_32}, 20, WGMMA_CUT(3)},
    {{.m.k = 768, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 300}, {DT_Q4_K, 16}}}, 300, WGMMA_CUT(5)},
    {{.m.k = 256, SIXES}, 130, WGMMA_CUT(3)},
    {{.m.k = 512, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 70}, {DT_Q6_K, 17}}, .experts = 7, .slots = 3},
     130,
     WGMMA_CUT(4)},
    {{.m.k = 704, .m.n_segments = 1, .m.segments = {{DT_Q5_0, 70}}, .experts = 9, .slots = 2, .x_pairs = 1},
     130,
     WGMMA_CUT(4)},
    /* Whole strips of experts: halves. */
    {{.m.k = 512, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 80}, {DT_Q6_K, 144}}, .experts = 7, .slots = 3},
     300,
     WGMMA_CUT(4)},
    {{.m.k = 704, .m.n_segments = 1, .m.segments = {{DT_Q8_0, 272}}, .experts = 5, .slots = 2, .x_pairs = 1},
     300,
     WGMMA_CUT(4)},
    {{.m.k = 64, .m.n_segments = 1, .m.segments = {{DT_Q5_0, 16}}, .experts = 5, .slots = 2}, 65, WGMMA_CUT(2)},
};
enum { N_PROBLEMS = sizeof problems / sizeof problems[0], UNCHOSEN = 3 };
static const int lives[] = {130, 1, 7, 8, 9, 40, 127, 128, 129, 20, 64, 65, 192, 193, 256, 300};
enum { N_LIVES = sizeof lives / sizeof lives[0] };

static int failures;

static void fail(const Prefill *p, const char *what, int live, DType t) {
    if (failures++ < 40)
        printf("FAILED: K %d, N %d, %d of %d experts, block of %d x %d, %d live, %s: %s\n", (int)p->shape.m.k,
               (int)matmul_rows(&p->shape.m), p->shape.slots, p->shape.experts, 16 * p->cut.strips, p->cut.tokens, live,
               dtype_name(t), what);
}

/* ==== A problem ==== */

typedef struct Problem {
    int n, products; /* output columns; output rows of a row */
    DType *types;    /* [n] */
    int *ids;        /* [most][slots] */
    float *x, *weights;
    double *wanted, *energy; /* [most * products][n]; with squared terms: what errors are measured by */
    float *first, *got;      /* with all rows; now */
    PrefillOperands on;
} Problem;

static void make_weights(Lab *l, const Shape *s, Problem *p, uint64_t *seed) {
    const int count = s->slots ? s->experts : 1;
    int column = 0;
    p->weights = malloc((size_t)count * (size_t)p->n * (size_t)s->m.k * sizeof *p->weights);
    for (int i = 0; i < s->m.n_segments; i++) {
        const MatmulSegment g = s->m.segments[i];
        const size_t row_bytes = dtype_row_bytes(g.type, s->m.k);
        uint8_t *file = malloc(row_bytes * (size_t)(g.rows * count));
        for (int r = 0; r < g.rows * count; r++) {
            const size_t row = (size_t)(r / g.rows) * (size_t)p->n + (size_t)(column + r % g.rows);
            random_row(g.type, file + (size_t)r * row_bytes, s->m.k, seed);
            dequant_row(g.type, file + (size_t)r * row_bytes, p->weights + row * (size_t)s->m.k, s->m.k);
        }
        for (int r = 0; r < g.rows; r++)
            p->types[column++] = g.type;
        p->on.weights[i] = lab_memory(l, (size_t)dtype_tile_bytes(g.type, g.rows, s->m.k) * (size_t)count, 0xff);
        lab_repack(l, g.type, file, (int)g.rows, (int)s->m.k, count, p->on.weights[i]);
        free(file);
    }
}

static void multiply_exactly(const Prefill *of, Problem *p) {
    const Shape *s = &of->shape;
    for (int i = 0; i < of->most * p->products; i++) {
        const float *x = p->x + (size_t)(s->slots && !s->x_pairs ? i / p->products : i) * (size_t)s->m.k;
        const size_t matrix = (size_t)(s->slots ? p->ids[i] : 0);
        for (int r = 0; r < p->n; r++) {
            const float *w = p->weights + (matrix * (size_t)p->n + (size_t)r) * (size_t)s->m.k;
            double sum = 0, energy = 0;
            for (int k = 0; k < s->m.k; k++) {
                const double term = (double)w[k] * x[k];
                sum += term;
                energy += term * term;
            }
            p->wanted[(size_t)i * (size_t)p->n + (size_t)r] = sum;
            p->energy[(size_t)i * (size_t)p->n + (size_t)r] = energy;
        }
    }
}

/* Every row's experts differ; nobody chooses number UNCHOSEN, and many choose 0. */
static void choose_experts(const Prefill *of, int *ids, uint64_t *seed) {
    const int slots = of->shape.slots, experts = of->shape.experts;
    for (int i = 0; i < of->most * slots; i++) {
        bool again = true;
        while (again) {
            ids[i] = random_next(seed) % 3 ? (int)(random_next(seed) % (uint64_t)experts) : 0;
            again = ids[i] == UNCHOSEN;
            for (int j = i - i % slots; j < i; j++)
                again |= ids[j] == ids[i];
        }
    }
}

static void make_problem(Lab *l, const Prefill *of, Problem *p, uint64_t *seed) {
    const Shape *s = &of->shape;
    p->n = (int)matmul_rows(&s->m);
    p->products = shape_products(s);
    const size_t rows = (size_t)(of->most * p->products), values = rows * (size_t)p->n;
    const size_t x_bytes = (s->slots && s->x_pairs ? rows : (size_t)of->most) * (size_t)s->m.k * sizeof *p->x;
    p->types = calloc((size_t)p->n, sizeof *p->types);
    p->ids = calloc(rows, sizeof *p->ids);
    p->x = malloc(x_bytes);
    p->wanted = malloc(values * sizeof *p->wanted);
    p->energy = malloc(values * sizeof *p->energy);
    p->first = malloc(values * sizeof *p->first);
    p->got = malloc(values * sizeof *p->got);
    random_input(p->x, (int64_t)(x_bytes / sizeof *p->x), seed);
    if (s->slots)
        choose_experts(of, p->ids, seed);
    make_weights(l, s, p, seed);
    multiply_exactly(of, p);
    p->on.x = lab_upload(l, p->x, x_bytes);
    p->on.ids = lab_upload(l, p->ids, rows * sizeof *p->ids);
    p->on.live = lab_memory(l, 4, 0);
}

static void free_problem(Lab *l, const Shape *s, Problem *p) {
    void *const all[] = {p->types, p->ids, p->x, p->weights, p->wanted, p->energy, p->first, p->got};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    for (int i = 0; i < s->m.n_segments; i++)
        dev_free(l->device, p->on.weights[i]);
    dev_free(l->device, p->on.x);
    dev_free(l->device, p->on.ids);
    dev_free(l->device, p->on.live);
}

/* ==== The sort ==== */

/* What experts_sort.cu should have written: its lists are compared whole. */
static bool sorted(const Prefill *of, const int *ids, int live, const int *order, const int *places, const int *tiles,
                   int all_tiles) {
    const int pairs = live * of->shape.slots;
    int entries = 0, n_tiles = 0;
    bool ok = true;
    for (int e = 0; e < of->shape.experts; e++) {
        const int first = entries;
        for (int i = 0; i < pairs; i++)
            if (ids[i] == e) {
                ok &= places[i] == entries;
                ok &= order[entries++] == i;
            }
        const int end = entries;
        for (; entries % 8; entries++)
            ok &= order[entries] == -1;
        for (int at = first; at < end; at += of->cut.tokens, n_tiles++) {
            const int left = end - at, *tile = tiles + 3 * n_tiles;
            ok &= tile[0] == e && tile[1] == at / 8 && tile[2] == (left < of->cut.tokens ? left : of->cut.tokens);
        }
    }
    return ok && all_tiles == n_tiles;
}

static void check_sort(Lab *l, const Prefill *of, const PrefillOperands *o, const int *ids, int live) {
    const size_t order_bytes = (size_t)problem_entries(of) * 4, tile_bytes = (size_t)problem_tiles(of) * 12;
    const size_t place_bytes = (size_t)problem_products(of) * 4;
    int *order = malloc(order_bytes), *places = malloc(place_bytes), *tiles = malloc(tile_bytes), n_tiles;
    DevError e = {0};
    must(dev_copy_out(l->stream, order, o->order, order_bytes, &e) &&
             dev_copy_out(l->stream, places, o->places, place_bytes, &e) &&
             dev_copy_out(l->stream, tiles, o->tiles, tile_bytes, &e) &&
             dev_copy_out(l->stream, &n_tiles, o->n_tiles, sizeof n_tiles, &e) && dev_stream_wait(l->stream, &e),
         &e);
    if (!sorted(of, ids, live, order, places, tiles, n_tiles))
        fail(of, "the experts are sorted wrongly", live, DT_I32);
    free(order);
    free(places);
    free(tiles);
}

/* The sort alone, as large as it gets. */
static void check_sorts(Lab *l, uint64_t *seed) {
    static const Prefill sorts[] = {
        {{.m.k = 64, .experts = 128, .slots = 8}, 4096, {.tokens = 64}},
        {{.m.k = 64, .experts = 512, .slots = 16}, 4096, {.tokens = 128}},
        {{.m.k = 64, .experts = 1, .slots = 1}, 1000, {.tokens = 32}},
    };
    for (size_t i = 0; i < sizeof sorts / sizeof sorts[0]; i++) {
        const Prefill *of = &sorts[i];
        const int pairs = of->most * of->shape.slots;
        PrefillOperands o = {.live = lab_upload(l, &of->most, 4)};
        int *ids = malloc((size_t)pairs * sizeof *ids);
        for (int j = 0; j < pairs; j++)
            ids[j] = (int)(random_next(seed) % (uint64_t)of->shape.experts);
        o.ids = lab_upload(l, ids, (size_t)pairs * sizeof *ids);
        DevModule *module = NULL;
        prefill_memory(l, of, &o);
        prefill_sort(l, of, &o, &module);
        check_sort(l, of, &o, ids, of->most);
        dev_module_free(module);
        prefill_memory_free(l, &o);
        dev_free(l->device, o.ids);
        dev_free(l->device, o.live);
        free(ids);
    }
}

/* ==== Rows ==== */

/* A row program writes the very bytes that matmul_input.cu does, and no others. */
static void check_rows(Lab *l, const PrefillBuilt *b, Problem *p, int live) {
    const size_t bytes = (size_t)prefill_x_bytes(b->p.shape.m.k, problem_entries(&b->p), b->p.cut.x_stages > 0);
    uint8_t *of[2] = {malloc(bytes), malloc(bytes)};
    DevError e = {0};
    for (int rows = 0; rows < 2; rows++) {
        PrefillRun r;
        Arguments a;
        prefill_memory(l, &b->p, &p->on);
        must(dev_copy_in(l->stream, p->on.live, &live, 4, &e), &e);
        prefill_launches(l, b, &p->on, live, 0, &r);
        if (rows)
            r.launches[r.n - 2] = prefill_rows_launch(b, &p->on, live, &a);
        for (int i = 0; i < r.n - 1; i++)
            must(dev_launch(l->stream, &r.launches[i], &e), &e);
        must(dev_copy_out(l->stream, of[rows], p->on.records, bytes, &e) && dev_stream_wait(l->stream, &e), &e);
        prefill_memory_free(l, &p->on);
    }
    if (memcmp(of[0], of[1], bytes) != 0)
        fail(&b->p, "a row program makes other records", live, p->types[0]);
    free(of[0]);
    free(of[1]);
}

/* ==== Checks ==== */

/* What the matmul has written, as f32. */
static void read_out(Lab *l, const Prefill *of, Problem *p) {
    const size_t rows = (size_t)problem_products(of), n = (size_t)p->n;
    if (!problem_halves(of)) {
        lab_out(l, p->got, p->on.out, rows * n * 4);
        return;
    }
    uint16_t *halves = malloc(rows * n * sizeof *halves);
    float *units = malloc(rows * sizeof *units);
    lab_out(l, halves, p->on.out, rows * n * sizeof *halves);
    lab_out(l, units, p->on.units, rows * sizeof *units);
    for (size_t i = 0; i < rows * n; i++)
        p->got[i] = f16_to_f32(halves[i]) * units[i / n];
    free(halves);
    free(units);
}

/* Rows that are not live must still be poison. */
static void run(Lab *l, const PrefillBuilt *b, Problem *p, int live, int grid) {
    DevError e = {0};
    PrefillRun r;
    const size_t values = (size_t)problem_products(&b->p) * (size_t)p->n;
    prefill_memory(l, &b->p, &p->on);
    must(dev_copy_in(l->stream, p->on.live, &live, 4, &e), &e);
    prefill_launches(l, b, &p->on, live, grid, &r);
    for (int i = 0; i < r.n; i++)
        must(dev_launch(l->stream, &r.launches[i], &e), &e);
    read_out(l, &b->p, p);
    for (size_t i = (size_t)(live * p->products) * (size_t)p->n; i < values; i++)
        if (!isnan(p->got[i])) {
            fail(&b->p, "a row that is not live was written", live, p->types[i % (size_t)p->n]);
            break;
        }
    if (b->p.shape.slots)
        check_sort(l, &b->p, &p->on, p->ids, live);
    prefill_memory_free(l, &p->on);
}

static void compare(const Prefill *of, const Problem *p, int live, double worst[DT_COUNT]) {
    double error[DT_COUNT] = {0}, size[DT_COUNT] = {0};
    for (size_t i = 0; i < (size_t)(live * p->products) * (size_t)p->n; i++) {
        const DType t = p->types[i % (size_t)p->n];
        const double d = p->got[i] - p->wanted[i];
        error[t] += d * d;
        size[t] += p->energy[i];
    }
    /* f16 inputs 2e-4, weights and their scales rounded to f16 as much again each; a few values scatter */
    for (int t = 0; t < DT_COUNT; t++) {
        if (size[t] == 0)
            continue;
        const double relative = sqrt(error[t] / size[t]);
        if (!(relative < 1e-3))
            fail(of, "the error is too large", live, (DType)t);
        worst[t] = relative <= worst[t] ? worst[t] : relative;
    }
}

static void check_problem(Lab *l, const PrefillBuilt *b, double worst[DT_COUNT], uint64_t *seed) {
    const Prefill *of = &b->p;
    static const int grids[] = {0, 1, 3, 1000};
    Problem p = {0};
    make_problem(l, of, &p, seed);
    run(l, b, &p, of->most, 0);
    compare(of, &p, of->most, worst);
    memcpy(p.first, p.got, (size_t)problem_products(of) * (size_t)p.n * sizeof *p.got);
    for (int i = 0; i < N_LIVES; i++) {
        if (lives[i] > of->most)
            continue;
        run(l, b, &p, lives[i], grids[i % 4]);
        if (memcmp(p.first, p.got, (size_t)(lives[i] * p.products) * (size_t)p.n * sizeof *p.got) != 0)
            fail(of, "rows are not the same bits as among all", lives[i], p.types[0]);
    }
    for (int i = 0; problem_has_rows(of) && i < 2; i++)
        check_rows(l, b, &p, i ? of->most : 3);
    free_problem(l, &of->shape, &p);
}

static void check(Lab *l, uint64_t seed) {
    static Prefill fitting[N_PROBLEMS];
    static PrefillBuilt built[N_PROBLEMS];
    double worst[DT_COUNT] = {0};
    int n = 0;
    printf("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < N_PROBLEMS; i++)
        if (problem_shared(&problems[i]) <= lab_shared(l) && (!problems[i].cut.x_stages || lab_wgmma(l)))
            fitting[n++] = problems[i];
    prefill_build(l, fitting, n, built);
    for (int i = 0; i < n; i++) {
        check_problem(l, &built[i], worst, &seed);
        prefill_free(&built[i]);
    }
    check_sorts(l, &seed);
    for (int t = 0; t < DT_COUNT; t++)
        if (worst[t] > 0)
            printf("%-7s largest relative error %.1e\n", dtype_name((DType)t), worst[t]);
    printf("%d of %d blocks fit this device\n", n, N_PROBLEMS);
    printf(failures ? "%d failures\n" : "all shapes are right, rows are bit for bit the same in all company\n",
           failures);
}

int main(int argc, char **argv) {
    Lab l = {0};
    const int i = lab_open(&l, argc, argv);
    if (i < argc && !strcmp(argv[i], "rates"))
        prefill_rates(&l);
    else
        check(&l, i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 20240817);
    lab_close(&l);
    return failures != 0;
}
