/* tune_test.c - cuts of decode matmuls are timed while loading, and nothing else changes: tune_test FOLDER [DRIVER
 * NVRTC KERNEL_CACHE]; the last three are the emulated GPU's. Exit 77 without a GPU.
 *
 * A small model, some of whose matmuls are large enough for that GPU to be worth timing, is made in FOLDER. Kernels
 * really run; how long they take and what time it is says the test. So: the cut that is fastest runs, is kept, and is
 * there in the next load without a time being taken; the budget ends when it ends; and logits are the same bits with
 * every cut.
 */
#include "runtime/engine/tuned_file.h"
#include "tests/engine/made.h"
#include "tests/engine/model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONTEXT = 48, CHUNK = 16, PROMPT = 6, ROWS = 3, MOST_SHAPES = 16, FAVOURITE = 2 /* chunks in flight */ };
#define BUDGET 1e6

/* ==== The model ==== */

static void make_model(const char *path, int multiprocessors) {
    const SynthSetting settings[] = {{"layers", 1},
                                     {"every", 2},
                                     {"D", 2048},
                                     {"F", ceil_div(multiprocessors, 2) * 32},
                                     {"H", 1},
                                     {"KS", 1},
                                     {"KF", 1},
                                     {"W", 8},
                                     {"V", multiprocessors * 64}};
    const SynthOptions o = {
        .size = "gemma4-12b", .quant = "q8_0", .seed = 3, .settings = settings, .n_settings = COUNTOF(settings)};
    make_weights(path, &o);
}

/* ==== A clock of the test's own ==== */

typedef struct Watch {
    int most_shapes; /* time is over when one more is timed */
    int looks;       /* after which time is over; -1: never */
    int measured;    /* how often */
    const char *shapes[MOST_SHAPES];
    int n_shapes;
} Watch;

static double watch_now(void *ctx) {
    Watch *w = ctx;
    const bool over = w->n_shapes > w->most_shapes || w->looks == 0;
    w->looks -= w->looks > 0;
    return over ? 2 * BUDGET : 0;
}

/* The favourite is faster than any, the others slower than the rule. */
static double watch_measured(void *ctx, const char *shape, const MatmulCut *cut, double seconds) {
    Watch *w = ctx;
    int i = 0;
    check(seconds > 0, "a stretch took %g s", seconds);
    while (i < w->n_shapes && strcmp(w->shapes[i], shape) != 0)
        i++;
    if (i == w->n_shapes && i < MOST_SHAPES)
        w->shapes[w->n_shapes++] = shape;
    w->measured++;
    return cut->flight == FAVOURITE ? 0.5 : cut->flight == FAVOURITE + 1 ? 1.0 : 1.5;
}

static ModelOptions with_watch(const ModelOptions *base, const char *file, Watch *w, double budget) {
    ModelOptions o = *base;
    o.tune = (TuneOptions){.file = file, .budget = budget, .now = watch_now, .measured = watch_measured, .ctx = w};
    return o;
}

/* ==== What the model computes ==== */

typedef struct Logits {
    float *prompt, *rows; /* [1, vocab], [ROWS, vocab] */
    size_t bytes;         /* of a row */
} Logits;

static Logits compute(Model *m) {
    Row rows[PROMPT];
    static const int32_t last = PROMPT - 1, wanted[ROWS] = {0, 1, 2};
    Logits l = {.bytes = (size_t)m->vocab * sizeof(float)};
    l.prompt = calloc(1, l.bytes);
    l.rows = calloc(ROWS, l.bytes);
    rows_of(m, 0, PROMPT, rows);
    on_gpu(m, rows, PROMPT, &last, 1, l.prompt);
    advance(m, rows, PROMPT);
    rows_of(m, 0, ROWS, rows);
    on_gpu(m, rows, ROWS, wanted, ROWS, l.rows);
    return l;
}

static void free_logits(Logits *l) {
    free(l->prompt);
    free(l->rows);
}

static void compare(Model *m, const Logits *want, const char *what) {
    Logits got = compute(m);
    check(memcmp(got.prompt, want->prompt, want->bytes) == 0, "%s: other logits of the prompt", what);
    check(memcmp(got.rows, want->rows, ROWS * want->bytes) == 0, "%s: other logits of %d rows", what, ROWS);
    free_logits(&got);
}

static bool said(const Model *m, const char *text) {
    char *all = diag_text(m->diag);
    const bool there = strstr(all, text) != NULL;
    free(all);
    return there;
}

/* ==== Tuning ==== */

/* Kernels of the shape have the cut, and say where it comes from. */
static void check_kernels(const Model *m, const char *shape, const MatmulCut *cut, bool tuned) {
    const Plan *p = gpu_plan(m->gpu);
    int n = 0;
    for (int i = 0; i < p->kernels.n; i++) {
        const PlanKernel *k = &p->kernels.v[i];
        if (!k->shape || strcmp(k->shape, shape) != 0)
            continue;
        n++;
        check(matmul_cut_same(&k->cut, cut) && k->tuned == tuned, "%s of %s is cut another way", k->name, shape);
        char stages[48];
        snprintf(stages, sizeof stages, "#define MM_STAGES %d\n#define MM_FLIGHT %d\n", cut->stages, cut->flight);
        check(strstr(k->text, stages) != NULL, "the text of %s is of another cut", k->name);
    }
    check(n > 0, "no kernel has shape %s", shape);
}

static Tuned kept(const char *file) {
    Tuned t = {.arena = arena_new()};
    Diag *diag = diag_new();
    tuned_file_read(&t, file, diag);
    check(t.dropped == 0, "%d lines of the file do not read", t.dropped);
    diag_free(diag);
    return t;
}

static bool has_favourite(const TuneRow *r) {
    for (int i = 0; i < r->n; i++)
        if (r->times[i].cut.flight == FAVOURITE)
            return true;
    return false;
}

/* The rows of the report, the plan and the file say the same. */
static void check_report(const Model *m, const char *file) {
    const TuneReport *r = gpu_tuning(m->gpu);
    const DevInfo *info = dev_info(gpu_device(m->gpu));
    Tuned t = kept(file);
    const char *kernels = tuned_kernels(t.arena);
    int favourites = 0;
    for (int i = 0; i < r->rows.n; i++) {
        const TuneRow *row = &r->rows.v[i];
        const MatmulCut *cut = &row->times[row->chosen].cut;
        const TunedEntry *e = tuned_find(&t, info->arch, info->name, kernels, row->shape);
        check(has_favourite(row) == (row->chosen != 0), "%s: cut %d is chosen", row->shape, row->chosen);
        check(row->share > 0 && row->share <= 1, "%s: a share of %g", row->shape, row->share);
        check_kernels(m, row->shape, cut, row->chosen != 0);
        check(e && matmul_cut_same(&e->cut, cut) && e->tuned == (row->chosen != 0), "%s is not kept", row->shape);
        favourites += row->chosen != 0;
    }
    check(favourites > 0, "no shape has the favourite");
    arena_free(t.arena);
}

/* In two loads, as time is over in the first; the third times nothing. The number of shapes that there are. */
static int tunes_and_keeps(const ModelOptions *base, const Places *p, const char *file, const Logits *want) {
    static Model m;
    Watch first = {.most_shapes = 1, .looks = -1}, second = {.most_shapes = MOST_SHAPES, .looks = -1},
          third = {.most_shapes = MOST_SHAPES, .looks = -1};
    ModelOptions o = with_watch(base, file, &first, BUDGET);
    unlink(file);
    model_open(&m, &o, p);
    const TuneReport *r = gpu_tuning(m.gpu);
    check(r->known == 0 && r->rows.n == 1 && r->left > 0 && r->small > 0, "known %d, timed %d, left %d, small %d",
          r->known, r->rows.n, r->left, r->small);
    const int all = r->rows.n + r->left;
    check_report(&m, file);
    compare(&m, want, "the load that tunes one shape");
    model_close(&m);
    o = with_watch(base, file, &second, BUDGET);
    model_open(&m, &o, p);
    r = gpu_tuning(m.gpu);
    check(r->known == 1 && r->rows.n == all - 1 && r->left == 0, "known %d, timed %d, left %d of %d", r->known,
          r->rows.n, r->left, all);
    check(second.n_shapes == all - 1, "%d shapes were timed", second.n_shapes);
    check_report(&m, file);
    compare(&m, want, "the load that tunes the rest");
    model_close(&m);
    o = with_watch(base, file, &third, BUDGET);
    model_open(&m, &o, p);
    r = gpu_tuning(m.gpu);
    check(r->known == all && r->rows.n == 0 && r->left == 0 && third.measured == 0, "known %d, timed %d", r->known,
          r->rows.n);
    Tuned t = kept(file);
    for (int i = 0; i < t.entries.n; i++)
        check_kernels(&m, t.entries.v[i].shape, &t.entries.v[i].cut, t.entries.v[i].tuned);
    arena_free(t.arena);
    compare(&m, want, "the load that has all choices");
    model_close(&m);
    return all;
}

/* Time that is over at once, and of which there is too little for even one shape: such a shape is not tried again. */
static void budget_is_kept(const ModelOptions *base, const Places *p, const char *file, int all) {
    static Model m;
    Watch none = {.most_shapes = MOST_SHAPES, .looks = 1}, little = {.most_shapes = MOST_SHAPES, .looks = -1};
    ModelOptions o = with_watch(base, file, &none, BUDGET);
    unlink(file);
    model_open(&m, &o, p);
    check(gpu_tuning(m.gpu)->left == all && none.measured == 0, "%d of %d shapes are left", gpu_tuning(m.gpu)->left,
          all);
    check(access(file, F_OK) != 0, "there is a file of choices, and none was made");
    model_close(&m);
    o = with_watch(base, file, &little, 1e-9);
    model_open(&m, &o, p);
    const TuneReport *r = gpu_tuning(m.gpu);
    check(r->rows.n == all && r->left == 0 && little.measured == 0, "%d timed, %d left", r->rows.n, r->left);
    for (int i = 0; i < r->rows.n; i++)
        check(r->rows.v[i].chosen == 0, "%s is not cut by rule", r->rows.v[i].shape);
    model_close(&m);
}

/* ==== Choices from elsewhere ==== */

static void put_way(const Model *m, const char *file, int way, const PlanOptions *plan) {
    PlanTarget target;
    PlanOptions o = *plan;
    Tuned t = {.arena = arena_new()};
    o.way = way;
    check(plan_target(gpu_plan(m->gpu)->arch, &target), "an architecture without a target");
    const Plan *p = plan_generate(t.arena, m->module, &target, &o);
    for (int i = 0; i < p->kernels.n; i++) {
        const PlanKernel *k = &p->kernels.v[i];
        const TunedEntry e = {.arch = p->arch,
                              .gpu = dev_info(gpu_device(m->gpu))->name,
                              .kernels = tuned_kernels(t.arena),
                              .shape = k->shape,
                              .tuned = true,
                              .cut = k->cut};
        if (k->shape && strstr(k->shape, "rows 8"))
            tuned_put(&t, &e);
    }
    unlink(file);
    tuned_file_add(&t, file, m->diag);
    arena_free(t.arena);
}

/* Every way, as the file has it. */
static void every_cut_computes_the_same(const ModelOptions *base, const Places *p, const char *file,
                                        const Logits *want) {
    static Model m, tuned;
    const PlanOptions plan = {.slots = base->slots, .context = base->context, .chunk = base->chunk, .wanted = 16};
    model_open(&m, base, p);
    for (int way = 1; way < MATMUL_WAYS; way++) {
        ModelOptions o = *base;
        char what[32];
        o.tune.file = file; /* no budget: nothing is timed */
        put_way(&m, file, way, &plan);
        model_open(&tuned, &o, p);
        int others = 0;
        for (int i = 0; i < gpu_plan(tuned.gpu)->kernels.n; i++)
            others += gpu_plan(tuned.gpu)->kernels.v[i].tuned;
        check(others > 0 && gpu_tuning(tuned.gpu)->rows.n == 0, "way %d: %d kernels are tuned", way, others);
        snprintf(what, sizeof what, "way %d", way);
        compare(&tuned, want, what);
        model_close(&tuned);
    }
    model_close(&m);
}

/* Lines that are none are said and mended; a cut that is no way to cut is not taken. */
static void damage_does_no_harm(const ModelOptions *base, const Places *p, const char *file, const Logits *want) {
    static Model m;
    Watch w = {.most_shapes = MOST_SHAPES, .looks = 1};
    ModelOptions o = with_watch(base, file, &w, BUDGET);
    const PlanOptions plan = {.slots = base->slots, .context = base->context, .chunk = base->chunk, .wanted = 16};
    model_open(&m, base, p);
    put_way(&m, file, 1, &plan);
    model_close(&m);
    FILE *f = fopen(file, "ab");
    Tuned t = kept(file);
    for (int i = 0; i < t.entries.n; i++) {
        t.entries.v[i].cut = (MatmulCut){2, 16, 15, 3};
        t.entries.v[i].tuned = true;
    }
    Buf text = {0};
    tuned_print(&text, &t);
    check(f != NULL, "the file cannot be written");
    fprintf(f, "%schoice \xff\n", text.s + strcspn(text.s, "\n") + 1);
    fclose(f);
    buf_free(&text);
    arena_free(t.arena);
    model_open(&m, &o, p);
    check(said(&m, "is no choice of tuning and left out"), "nothing is said of a damaged line");
    for (int i = 0; i < gpu_plan(m.gpu)->kernels.n; i++)
        check(!gpu_plan(m.gpu)->kernels.v[i].tuned, "a cut that is no way is taken");
    compare(&m, want, "a damaged file");
    model_close(&m);
    t = kept(file); /* says so when a line is damaged still */
    arena_free(t.arena);
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 5) {
        fprintf(stderr, "usage: tune_test FOLDER [DRIVER NVRTC KERNEL_CACHE]\n");
        return 2;
    }
    const Places p = argc == 5 ? (Places){argv[2], argv[3], argv[4]} : (Places){NULL, NULL, NULL};
    DevInfo info;
    DevError e;
    int n = 0;
    if (!dev_list(p.driver, &info, 1, &n, &e) || n == 0) {
        printf("no GPU: skipped\n");
        return 77;
    }
    char model[4096], file[4096];
    mkdir(argv[1], 0777);
    snprintf(model, sizeof model, "%s/small.gguf", argv[1]);
    snprintf(file, sizeof file, "%s/tuned.txt", argv[1]);
    make_model(model, info.multiprocessors);
    const ModelOptions o = {.path = model, .slots = 1, .context = CONTEXT, .chunk = CHUNK};
    static Model m;
    model_open(&m, &o, &p);
    check(!gpu_tuning(m.gpu), "something is tuned without a file");
    Logits want = compute(&m);
    model_close(&m);
    const int all = tunes_and_keeps(&o, &p, file, &want);
    if (!failures)
        budget_is_kept(&o, &p, file, all);
    if (!failures)
        every_cut_computes_the_same(&o, &p, file, &want);
    if (!failures)
        damage_does_no_harm(&o, &p, file, &want);
    free_logits(&want);
    printf("%d shapes, %d failures\n", all, failures);
    return failures ? 1 : 0;
}
