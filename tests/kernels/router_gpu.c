/* router_gpu.c - f32 weights by many rows (kernels/matmul_f32_many.cu) on a GPU against double-precision products.
 *
 * router_gpu [--driver FILE] [--nvrtc FOLDER] check [seed]
 *     odd shapes, 1..130 rows: errors as small as those of f32 sums, poisoned outputs, rows bit for bit the same in all
 *     company
 * router_gpu rates
 *     times of 128 experts of 2816 columns
 * Exit 77 without a GPU.
 */
#include "tests/kernels/blocks.h"
#include "tests/kernels/measure.h"

#include "tests/kernels/program.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 256, ROWS = 64, COLUMNS = 64, SHARED = 96 << 10, MOST_MATRICES = 3 };

typedef struct Router {
    int k, n[MOST_MATRICES]; /* columns; rows of each matrix */
    int most;
} Router;

static const Router routers[] = {
    {2816, {128}, 130}, {64, {70}, 70}, {613, {40, 17, 9}, 65}, {96, {3, 64}, 20}, {2880, {32}, 9}, {4, {130}, 64},
};
static const int lives[] = {130, 1, 7, 64, 63, 65, 20, 9, 129};
#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

static int failures;

static int all_rows(const Router *r) {
    return r->n[0] + r->n[1] + r->n[2];
}

static Program router_program(const Router *r) {
    Buf b = {0};
    buf_printf(&b, "#define F32_NAME router\n#define F32_K %d\n#define F32_SEGMENTS(X)", r->k);
    for (int i = 0; i < MOST_MATRICES && r->n[i]; i++)
        buf_printf(&b, " X(%d, %d)", i, r->n[i]);
    buf_str(&b, "\n");
    return program_new("router", "matmul_f32_many.cu", b.s, NULL, 0);
}

/* ==== A problem ==== */

typedef struct Problem {
    Router r;
    float *x, *w, *first, *got;
    DevPtr on_x, on_w[MOST_MATRICES], out, live;
    DevModule *module;
    const DevKernel *kernel;
} Problem;

static void problem_make(Lab *l, const Router *r, uint64_t *seed, Problem *p) {
    const size_t n = (size_t)all_rows(r), k = (size_t)r->k, most = (size_t)r->most;
    *p = (Problem){.r = *r, .x = malloc(most * k * 4), .w = malloc(n * k * 4)};
    p->first = malloc(most * n * 4);
    p->got = malloc(most * n * 4);
    random_input(p->x, (int64_t)(most * k), seed);
    for (size_t i = 0; i < n * k; i++)
        p->w[i] = 0.02f * random_normal(seed);
    p->on_x = lab_upload(l, p->x, most * k * 4);
    const float *from = p->w;
    for (int i = 0; i < MOST_MATRICES && r->n[i]; i++) {
        p->on_w[i] = lab_upload(l, from, (size_t)r->n[i] * k * 4);
        from += (size_t)r->n[i] * k;
    }
    p->live = lab_memory(l, 4, 0);
    Program program = router_program(r);
    lab_load(l, &program, 1, &p->module);
    p->kernel = lab_kernel(p->module, "router", SHARED);
}

static void problem_free(Lab *l, Problem *p) {
    float *const all[] = {p->x, p->w, p->first, p->got};
    for (int i = 0; i < COUNT(all); i++)
        free(all[i]);
    for (int i = 0; i < MOST_MATRICES; i++)
        if (p->on_w[i])
            dev_free(l->device, p->on_w[i]);
    dev_free(l->device, p->on_x);
    dev_free(l->device, p->live);
    dev_module_free(p->module);
}

static DevLaunch problem_launch(const Problem *p, int live, Arguments *a) {
    int n = 0;
    while (n < MOST_MATRICES && p->on_w[n]) {
        a->values[n] = p->on_w[n];
        n++;
    }
    const DevPtr rest[] = {p->on_x, p->out, p->live};
    memcpy(a->values + n, rest, sizeof rest);
    for (int i = 0; i < n + COUNT(rest); i++)
        a->pointers[i] = &a->values[i];
    return (DevLaunch){
        .kernel = p->kernel,
        .grid = {(uint32_t)((all_rows(&p->r) + COLUMNS - 1) / COLUMNS), (uint32_t)((live + ROWS - 1) / ROWS)},
        .block = {THREADS},
        .shared_bytes = SHARED,
        .pdl = true,
        .arguments = a->pointers};
}

/* ==== Checks ==== */

static void fail(const Problem *p, int live, const char *what) {
    failures++;
    printf("FAILED: %d -> %d, %d live: %s\n", p->r.k, all_rows(&p->r), live, what);
}

static void run(Lab *l, Problem *p, int live) {
    const size_t values = (size_t)p->r.most * (size_t)all_rows(&p->r);
    Arguments a;
    p->out = lab_memory(l, values * 4, 0xff);
    lab_in(l, p->live, &live, 4);
    const DevLaunch launch = problem_launch(p, live, &a);
    lab_run(l, &launch);
    lab_out(l, p->got, p->out, values * 4);
    dev_free(l->device, p->out);
    for (size_t i = (size_t)live * (size_t)all_rows(&p->r); i < values; i++)
        if (!isnan(p->got[i])) {
            fail(p, live, "a row that is not live was written");
            return;
        }
}

/* Largest error, measured by the energy of a result's terms: f32 sums in order have 1e-6 of it. */
static double worst_error(const Problem *p) {
    double worst = 0;
    const int n = all_rows(&p->r);
    for (int row = 0; row < p->r.most; row++)
        for (int i = 0; i < n; i++) {
            double sum = 0, energy = 0;
            for (int k = 0; k < p->r.k; k++) {
                const double term = (double)p->x[row * p->r.k + k] * p->w[i * p->r.k + k];
                sum += term;
                energy += term * term;
            }
            const double error = fabs(p->got[row * n + i] - sum) / sqrt(energy);
            worst = error <= worst ? worst : error;
        }
    return worst;
}

static void check(Lab *l, uint64_t seed) {
    printf("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < COUNT(routers); i++) {
        Problem p;
        problem_make(l, &routers[i], &seed, &p);
        run(l, &p, p.r.most);
        const double worst = worst_error(&p);
        printf("%d -> %d: largest relative error %.1e\n", p.r.k, all_rows(&p.r), worst);
        if (!(worst < 4e-6))
            fail(&p, p.r.most, "the error is too large");
        memcpy(p.first, p.got, (size_t)p.r.most * (size_t)all_rows(&p.r) * 4);
        for (int j = 0; j < COUNT(lives); j++) {
            if (lives[j] > p.r.most)
                continue;
            run(l, &p, lives[j]);
            if (memcmp(p.first, p.got, (size_t)lives[j] * (size_t)all_rows(&p.r) * 4) != 0)
                fail(&p, lives[j], "rows are not the same bits as among all");
        }
        problem_free(l, &p);
    }
    printf(failures ? "%d failures\n" : "all shapes are right, rows are bit for bit the same in all company\n",
           failures);
}

static void rates(Lab *l) {
    static const Router r = {2816, {128}, 4096};
    static const int rows[] = {512, 2048, 4096};
    uint64_t seed = 7;
    Problem p;
    printf("%s\n", dev_info(l->device)->name);
    problem_make(l, &r, &seed, &p);
    p.out = lab_memory(l, (size_t)r.most * 128 * 4, 0);
    for (int i = 0; i < COUNT(rows); i++) {
        Arguments a;
        lab_in(l, p.live, &rows[i], 4);
        const DevLaunch launch = problem_launch(&p, rows[i], &a);
        printf("router 2816 -> 128, %d rows: %.1f us, %d regs\n", rows[i], 1e6 * lab_time(l, &launch, 1),
               dev_kernel_info(p.kernel)->registers);
    }
    dev_free(l->device, p.out);
    problem_free(l, &p);
}

int main(int argc, char **argv) {
    Lab l = {0};
    const int i = lab_open(&l, argc, argv);
    if (i < argc && !strcmp(argv[i], "rates"))
        rates(&l);
    else
        check(&l, i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 20240817);
    lab_close(&l);
    return failures != 0;
}
