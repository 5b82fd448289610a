/* rates.c - times of the matmuls at the shapes of real models, beside the streaming rate of the same run. */
#include "runtime/device/roofline.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/measure.h"

#include <stdio.h>
#include <stdlib.h>

/* Random weights over a segment: some rows, repacked and repeated. */
static void fill_segment(Lab *l, const Shape *s, int i, DevPtr to) {
    enum { UNIQUE = 256 };
    const DType t = s->m.segments[i].type;
    const int64_t rows_there = s->m.segments[i].rows, unique = rows_there < UNIQUE ? rows_there : UNIQUE;
    const size_t row_bytes = dtype_row_bytes(t, s->m.k), all = segment_tile_bytes(s, i);
    const size_t piece = (size_t)dtype_tile_bytes(t, unique, s->m.k);
    uint8_t *rows = malloc(row_bytes * (size_t)unique);
    uint64_t seed = 7;
    for (int64_t r = 0; r < unique; r++)
        random_row(t, rows + (size_t)r * row_bytes, s->m.k, &seed);
    lab_repack(l, t, rows, (int)unique, (int)s->m.k, 1, to);
    free(rows);
    DevError e = {0};
    for (size_t done = piece; done < all; done += done) {
        const size_t bytes = all - done < done ? all - done : done;
        must(dev_copy(l->stream, to + done, to, bytes, &e), &e);
    }
    must(dev_stream_wait(l->stream, &e), &e);
}

/* ==== What is measured ==== */

typedef struct Rate {
    const char *label;
    Shape shape;
} Rate;

#define ONE(type, n)                  .m.n_segments = 1, .m.segments = {{DT_##type, n}}
#define TWO(t0, n0, t1, n1)           .m.n_segments = 2, .m.segments = {{DT_##t0, n0}, {DT_##t1, n1}}
#define THREE(t0, n0, t1, n1, t2, n2) .m.n_segments = 3, .m.segments = {{DT_##t0, n0}, {DT_##t1, n1}, {DT_##t2, n2}}
#define EXPERTS(pairs)                .experts = 128, .slots = 8, .x_pairs = pairs
static const Rate rates[] = {
    {"31B q, k, v", {.m.k = 5376, THREE(Q4_K, 16384, Q4_K, 4096, Q4_K, 4096)}},
    {"31B q, k, v (v q6_k)", {.m.k = 5376, THREE(Q4_K, 16384, Q4_K, 4096, Q6_K, 4096)}},
    {"31B o", {.m.k = 8192, ONE(Q4_K, 5376)}},
    {"31B gate, up", {.m.k = 5376, ONE(Q4_K, 43008)}},
    {"31B down", {.m.k = 21504, ONE(Q4_K, 5376)}},
    {"31B down", {.m.k = 21504, ONE(Q6_K, 5376)}},
    {"26B q", {.m.k = 2816, ONE(Q4_K, 4096)}},
    {"26B q, k, v", {.m.k = 2816, THREE(Q4_K, 4096, Q4_K, 2048, Q4_K, 2048)}},
    {"26B experts gate, up", {.m.k = 2816, TWO(Q4_K, 704, Q4_K, 704), EXPERTS(0)}},
    {"26B experts down", {.m.k = 704, ONE(Q5_0, 2816), EXPERTS(1)}},
    {"26B experts down", {.m.k = 704, ONE(Q8_0, 2816), EXPERTS(1)}},
    {"26B down", {.m.k = 704, ONE(Q8_0, 2816)}},
    {"q5_k", {.m.k = 5376, ONE(Q5_K, 21504)}},
    {"bf16", {.m.k = 5376, ONE(BF16, 16384)}},
};
enum { N_RATES = sizeof rates / sizeof rates[0] };

/* Ways to run one shape: they differ in speed only. */
typedef struct Way {
    const char *label;
    int nt, live, groups, x_shared, ring;
} Way;

static const Way ways[] = {
    {"1 row", 1, 1, 1, 0, 110},
    {"8 rows", 1, 8, 1, 0, 110},
    {"8 rows, 2 groups", 1, 8, 2, 0, 200},
    {"8 rows, 2 groups, x shared", 1, 8, 2, 1, 200},
    {"16 rows", 2, 16, 1, 0, 200},
};
enum { N_WAYS = sizeof ways / sizeof ways[0], N_BUILT = N_RATES * N_WAYS, MOST_LAUNCHES = 64, TOKENS = 16 };

/* ==== Operands ==== */

/* A shape's memory: launches one after another read different weights. */
typedef struct Bench {
    const Shape *shape;
    Operands on[MOST_LAUNCHES];
    double bytes[MOST_LAUNCHES]; /* read by a launch, in the file's form */
    int *ids;                    /* [launch][TOKENS][slots] */
    int n;
    size_t weight_bytes; /* in tiles, of one launch with all its matrices */
    DevPtr weights, x, ids_there, planes, live, tail;
} Bench;

/* Row 0's experts are those that have not been read for the longest time, another row's are random. */
static void choose_experts(const Shape *s, int launch, int *ids) {
    uint64_t seed = (uint64_t)launch;
    for (int r = 0; r < TOKENS; r++)
        for (int i = 0; i < s->slots; i++) {
            bool again = true;
            while (again) {
                ids[r * s->slots + i] =
                    r == 0 ? (launch * s->slots + i) % s->experts : (int)(random_next(&seed) % (uint64_t)s->experts);
                again = false;
                for (int j = 0; j < i; j++)
                    again |= ids[r * s->slots + j] == ids[r * s->slots + i];
            }
        }
}

static int distinct(const Shape *s, const int *ids, int live) {
    int n = 0;
    for (int e = 0; e < s->experts; e++) {
        bool there = false;
        for (int i = 0; i < live * s->slots; i++)
            there |= ids[i] == e;
        n += there;
    }
    return n;
}

static void bench_open(Lab *l, const Shape *s, Bench *b) {
    DevError e = {0};
    b->shape = s;
    for (int i = 0; i < s->m.n_segments; i++)
        b->weight_bytes += segment_tile_bytes(s, i);
    b->weight_bytes = (b->weight_bytes + 255) / 256 * 256;
    const size_t fit = ((size_t)3 << 30) / b->weight_bytes;
    const size_t copies = s->experts ? 1 : fit < 4 ? 4 : fit > MOST_LAUNCHES ? MOST_LAUNCHES : fit;
    b->n = s->experts ? s->experts / s->slots : (int)copies;
    b->weights = lab_memory(l, b->weight_bytes * copies, 0);
    b->x = lab_memory(l, (size_t)shape_x_row(s) * TOKENS * 4, 0x3c);
    b->planes = lab_memory(l, (size_t)64 << 20, 0xff);
    b->live = lab_memory(l, 4, 0);
    b->tail = lab_memory(l, 8, 0);
    const size_t pairs = (size_t)(TOKENS * s->slots);
    b->ids = calloc((size_t)b->n * pairs + 1, sizeof *b->ids);
    b->ids_there = lab_memory(l, (size_t)b->n * pairs * 4 + 4, 0);
    for (int c = 0; s->experts && c < b->n; c++)
        choose_experts(s, c, b->ids + (size_t)c * pairs);
    must(dev_copy_in(l->stream, b->ids_there, b->ids, (size_t)b->n * pairs * 4 + 4, &e), &e);
    DevPtr at = b->weights;
    for (int i = 0; i < s->m.n_segments; at += segment_tile_bytes(s, i), i++) {
        fill_segment(l, s, i, at);
        for (int c = 0; c < b->n; c++)
            b->on[c].weights[i] = at + (s->experts ? 0 : b->weight_bytes * (size_t)c);
    }
    for (size_t c = 1; c < copies; c++)
        must(dev_copy(l->stream, b->weights + b->weight_bytes * c, b->weights, b->weight_bytes, &e), &e);
    for (int c = 0; c < b->n; c++) {
        b->on[c].x = b->x;
        b->on[c].planes = b->planes;
        b->on[c].live = b->live;
        b->on[c].tail = b->tail;
        b->on[c].ids = b->ids_there + (size_t)c * pairs * 4;
    }
    must(dev_stream_wait(l->stream, &e), &e);
}

static void bench_close(Lab *l, Bench *b) {
    const DevPtr memory[] = {b->weights, b->x, b->ids_there, b->planes, b->live, b->tail};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        dev_free(l->device, memory[i]);
    free(b->ids);
}

/* ==== Times ==== */

/* GB/s of launches that read other weights each time, or with `same` the first's (from the L2 cache, when they fit);
 * `seconds` a launch. */
static double rate_of(Lab *l, const Bench *b, const Built *built, bool same, double *seconds) {
    static Arguments arguments[MOST_LAUNCHES];
    static DevLaunch launches[MOST_LAUNCHES];
    double bytes = 0;
    for (int c = 0; c < b->n; c++) {
        launches[c] = lab_matmul(l, built, &b->on[same ? 0 : c], &arguments[c]);
        bytes += b->bytes[same ? 0 : c];
    }
    *seconds = lab_time(l, launches, b->n);
    return bytes / b->n / *seconds / 1e9;
}

static void rate_shape(Lab *l, const Rate *r, const Built *built, double roof) {
    static Bench b;
    b = (Bench){0};
    const Shape *s = &built[0].shape;
    bench_open(l, s, &b);
    DevError e = {0};
    for (int w = 0; w < N_WAYS; w++) {
        const Built *way = &built[w];
        if (!way->matmul)
            continue;
        for (int c = 0; c < b.n; c++)
            b.bytes[c] = (double)matmul_weight_bytes(&s->m) *
                         (s->experts ? distinct(s, b.ids + c * TOKENS * s->slots, ways[w].live) : 1);
        must(dev_copy_in(l->stream, b.live, &ways[w].live, 4, &e), &e);
        lab_multiply(l, way, &b.on[0]);
        double seconds, again;
        const double rate = rate_of(l, &b, way, false, &seconds);
        printf("%-21s %-6s %5d -> %5d  %-27s %2d x %d warps x %3d, %2d slices, %d stages, %3d regs %3d local %8.2f us "
               "%5.0f GB/s %5.1f %%",
               r->label, dtype_name(s->m.segments[0].type), (int)s->m.k, (int)matmul_rows(&s->m), ways[w].label,
               way->shape.m.groups, way->shape.m.warps, way->shape.m.warp_k, matmul_slices(&way->shape.m),
               way->shape.m.stages, dev_kernel_info(way->matmul)->registers, dev_kernel_info(way->matmul)->local_bytes,
               seconds * 1e6, rate, 100 * rate / roof);
        if (b.bytes[0] < 40e6)
            printf("   from L2 %5.0f GB/s", rate_of(l, &b, way, true, &again));
        printf("\n");
    }
    bench_close(l, &b);
}

/* How fast a file's bytes become tiles. */
static void rate_repack(Lab *l, DType t, double roof) {
    const int k = 2816, n_rows = 32768;
    const size_t bytes = (size_t)n_rows * dtype_row_bytes(t, k);
    DevPtr from = lab_memory(l, bytes, 0x11), to = lab_memory(l, (size_t)dtype_tile_bytes(t, n_rows, k), 0);
    void *arguments[] = {&from, &to, (void *)&n_rows, (void *)&k};
    DevLaunch launches[4];
    for (int i = 0; i < 4; i++)
        launches[i] = lab_repack_launch(l, t, n_rows, k, 1, arguments);
    const double rate = (double)bytes / lab_time(l, launches, 4) / 1e9;
    printf("repack %-7s %5.0f GB/s of the file's bytes (%.0f %%)\n", dtype_name(t), rate, 100 * rate / roof);
    dev_free(l->device, from);
    dev_free(l->device, to);
}

/* Builds those ways that a shape has: experts keep their rows in registers. */
static void build(Lab *l, Built *built) {
    static Shape shapes[N_BUILT];
    static Built made[N_BUILT];
    static int index[N_BUILT];
    const int shared = lab_shared(l);
    int n = 0;
    for (int i = 0; i < N_BUILT; i++) {
        const Way *w = &ways[i % N_WAYS];
        built[i].shape = rates[i / N_WAYS].shape;
        if (built[i].shape.experts && w->x_shared)
            continue;
        Shape *s = &shapes[n];
        *s = built[i].shape;
        s->m.tiles = w->nt;
        s->m.groups = w->groups;
        s->x_shared = w->x_shared;
        shape_choose(s, w->ring << 10 < shared ? w->ring << 10 : shared);
        index[n++] = i;
    }
    lab_build(l, shapes, n, made);
    for (int i = 0; i < n; i++)
        built[index[i]] = made[i];
}

void lab_rates(Lab *l) {
    DevError e = {0};
    Roofline roof;
    must(roofline_measure(l->device, l->nvrtc, NULL, &roof, &e), &e);
    printf("%s: %.0f GB/s read\n", dev_info(l->device)->name, roof.read_gb_per_second);
    for (int t = 0; t < DT_COUNT; t++)
        if (dtype_info((DType)t)->tile_form)
            rate_repack(l, (DType)t, roof.read_gb_per_second);
    static Built built[N_BUILT];
    build(l, built);
    for (int i = 0; i < N_RATES; i++)
        rate_shape(l, &rates[i], &built[i * N_WAYS], roof.read_gb_per_second);
    for (int i = 0; i < N_BUILT; i++)
        if (built[i].module)
            dev_module_free(built[i].module);
}
