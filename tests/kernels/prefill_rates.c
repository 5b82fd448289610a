/* prefill_rates.c - how fast the prefill matmul is: shapes of real models, 512 to 4096 rows, several cuts of a block.
 *
 * A line a cut; TFLOP/s count 2 K N operations for each row (and expert of a row), whatever the kernel does. Weights
 * and rows are random, as zeros take less power and so run faster.
 */
#include "tests/kernels/blocks.h"
#include "tests/kernels/prefill_lab.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct Rate {
    const char *label;
    Shape shape;
} Rate;

#define ONE(type, n) .m.n_segments = 1, .m.segments = {{DT_##type, n}}
static const Rate rates[] = {
    {"31B q", {.m.k = 5376, ONE(Q4_K, 16384)}},
    {"31B gate, up", {.m.k = 5376, ONE(Q4_K, 43008)}},
    {"31B down", {.m.k = 21504, ONE(Q4_K, 5376)}},
    {"31B down", {.m.k = 21504, ONE(Q6_K, 5376)}},
    {"31B o", {.m.k = 8192, ONE(Q4_K, 5376)}},
    {"31B o", {.m.k = 8192, ONE(Q6_K, 5376)}},
    {"26B experts gate, up", {.m.k = 2816, ONE(Q4_K, 1408), .experts = 128, .slots = 8}},
    {"26B experts down", {.m.k = 704, ONE(Q5_0, 2816), .experts = 128, .slots = 8, .x_pairs = 1}},
    {"26B experts down", {.m.k = 704, ONE(Q8_0, 2816), .experts = 128, .slots = 8, .x_pairs = 1}},
    {"bf16", {.m.k = 5376, ONE(BF16, 16384)}},
};
/* Beside the one that a plan for the device has, which comes first. */
static const PrefillCut cuts[] = {MMA_CUT(16, 4, 128, 64, 2, 1), MMA_CUT(16, 4, 96, 48, 2, 1),
                                  MMA_CUT(8, 2, 64, 32, 2, 2)};
static const int lives[] = {512, 2048, 4096};
enum {
    N_RATES = sizeof rates / sizeof rates[0],
    N_CUTS = 1 + sizeof cuts / sizeof cuts[0],
    N_LIVES = sizeof lives / sizeof lives[0],
    MOST = 4096
};

/* Best of 5 runs of a few launches, in seconds a launch. */
static double time_launch(Lab *l, const DevLaunch *launch, int times) {
    DevError e = {0};
    DevEvent *from = dev_event_new(l->device, true, &e), *to = dev_event_new(l->device, true, &e);
    must(from && to, &e);
    double best = 1e9;
    for (int i = 0; i < 6; i++) {
        double seconds = 0;
        must(dev_event_record(from, l->stream, &e), &e);
        for (int j = 0; j < times; j++)
            must(dev_launch(l->stream, launch, &e), &e);
        must(dev_event_record(to, l->stream, &e) && dev_event_wait(to, &e) && dev_event_seconds(from, to, &seconds, &e),
             &e);
        best = i > 0 && seconds < best ? seconds : best;
    }
    dev_event_free(from);
    dev_event_free(to);
    return best / times;
}

/* `unique` bytes of random contents, repeated. */
static DevPtr repeat(Lab *l, const void *unique, size_t bytes, size_t all) {
    DevError e = {0};
    DevPtr to = lab_memory(l, all, 0);
    must(dev_copy_in(l->stream, to, unique, bytes < all ? bytes : all, &e), &e);
    for (size_t done = bytes; done < all; done += done)
        must(dev_copy(l->stream, to + done, to, all - done < done ? all - done : done, &e), &e);
    must(dev_stream_wait(l->stream, &e), &e);
    return to;
}

/* Whole strips of random weights over all of the segment's matrices. */
static DevPtr random_weights(Lab *l, const Shape *s, const MatmulSegment *g, uint64_t *seed) {
    enum { UNIQUE = 256 };
    const int rows = g->rows < UNIQUE ? (int)g->rows : UNIQUE, count = s->slots ? s->experts : 1;
    const size_t row_bytes = dtype_row_bytes(g->type, s->m.k);
    const size_t piece = (size_t)dtype_tile_bytes(g->type, rows, s->m.k);
    const size_t all = (size_t)dtype_tile_bytes(g->type, g->rows, s->m.k) * (size_t)count;
    uint8_t *file = malloc(row_bytes * (size_t)rows);
    for (int r = 0; r < rows; r++)
        random_row(g->type, file + (size_t)r * row_bytes, s->m.k, seed);
    DevPtr to = lab_memory(l, all, 0);
    lab_repack(l, g->type, file, rows, (int)s->m.k, 1, to);
    DevError e = {0};
    for (size_t done = piece; done < all; done += done)
        must(dev_copy(l->stream, to + done, to, all - done < done ? all - done : done, &e), &e);
    must(dev_stream_wait(l->stream, &e), &e);
    free(file);
    return to;
}

static void random_operands(Lab *l, const Shape *s, PrefillOperands *o) {
    enum { UNIQUE = 1 << 20 };
    uint64_t seed = 7;
    const int products = shape_products(s);
    float *x = malloc(UNIQUE * sizeof *x);
    int *ids = calloc((size_t)(MOST * products), sizeof *ids);
    random_input(x, UNIQUE, &seed);
    for (int i = 0; s->slots && i < MOST * products; i++)
        ids[i] = (int)(random_next(&seed) % (uint64_t)s->experts);
    const size_t rows = (size_t)MOST * (size_t)(s->x_pairs ? products : 1);
    o->x = repeat(l, x, UNIQUE * sizeof *x, rows * (size_t)s->m.k * sizeof *x);
    o->ids = repeat(l, ids, (size_t)(MOST * products) * sizeof *ids, (size_t)(MOST * products) * sizeof *ids);
    o->live = lab_memory(l, 4, 0);
    for (int i = 0; i < s->m.n_segments; i++)
        o->weights[i] = random_weights(l, s, &s->m.segments[i], &seed);
    free(x);
    free(ids);
}

static void rate_cut(Lab *l, const char *label, const PrefillBuilt *b, PrefillOperands *o) {
    const Shape *s = &b->p.shape;
    const PrefillCut *c = &b->p.cut;
    DevError e = {0};
    prefill_memory(l, &b->p, o);
    printf("%-20s %-5s %5d -> %5d  %s %3d x %3d, warp %2d x %3d, %d stages, %d blocks, %3d regs %3d local:", label,
           dtype_name(s->m.segments[0].type), (int)s->m.k, (int)matmul_rows(&s->m), c->x_stages ? "wgmma" : "mma  ",
           16 * c->strips, c->tokens, 16 * c->warp_strips, c->warp_tokens, c->stages, b->resident,
           dev_kernel_info(b->matmul)->registers, dev_kernel_info(b->matmul)->local_bytes);
    for (int i = 0; i < N_LIVES; i++) {
        PrefillRun r;
        double seconds[PREFILL_KERNELS];
        const double products = (double)lives[i] * shape_products(s);
        must(dev_copy_in(l->stream, o->live, &lives[i], 4, &e) && dev_stream_wait(l->stream, &e), &e);
        prefill_launches(l, b, o, lives[i], 0, &r);
        for (int j = 0; j < r.n; j++)
            seconds[j] = time_launch(l, &r.launches[j], 4);
        printf("  %d rows %7.1f us %5.1f TFLOP/s (", lives[i], 1e6 * seconds[r.n - 1],
               2e-12 * products * (double)(s->m.k * matmul_rows(&s->m)) / seconds[r.n - 1]);
        if (s->slots)
            printf("sort %.1f, ", 1e6 * seconds[0]);
        printf("input %.1f us)", 1e6 * seconds[r.n - 2]);
    }
    printf("\n");
    prefill_memory_free(l, o);
}

/* Cut number `at` of a shape; false: it does not fit. */
static bool cut_of(const Lab *l, const Rate *r, int at, Prefill *p) {
    *p = (Prefill){.shape = r->shape, .most = MOST};
    if (at == 0)
        return prefill_cut(&r->shape.m, lab_shared(l), lab_wgmma(l), &p->cut);
    p->cut = cuts[at - 1];
    return problem_shared(p) * p->cut.blocks <= lab_shared(l);
}

void prefill_rates(Lab *l) {
    static Prefill problems[N_RATES * N_CUTS];
    static PrefillBuilt built[N_RATES * N_CUTS];
    int first[N_RATES + 1] = {0}, n = 0;
    printf("%s\n", dev_info(l->device)->name);
    for (int i = 0; i < N_RATES; i++) {
        for (int c = 0; c < N_CUTS; c++)
            n += cut_of(l, &rates[i], c, &problems[n]);
        first[i + 1] = n;
    }
    prefill_build(l, problems, n, built);
    for (int i = 0; i < N_RATES; i++) {
        PrefillOperands o = {0};
        random_operands(l, &rates[i].shape, &o);
        for (int at = first[i]; at < first[i + 1]; at++) {
            rate_cut(l, rates[i].label, &built[at], &o);
            prefill_free(&built[at]);
        }
        for (int j = 0; j < rates[i].shape.m.n_segments; j++)
            dev_free(l->device, o.weights[j]);
        dev_free(l->device, o.x);
        dev_free(l->device, o.ids);
        dev_free(l->device, o.live);
    }
}
