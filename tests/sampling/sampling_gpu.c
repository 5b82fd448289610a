/* sampling_gpu.c - codegen/kernels/sample.cu on a GPU, real or emulated, against the sampler of runtime/text; its
 * times.
 *
 * sampling_gpu [--driver FILE] [--nvrtc DIR] check [seed [factor]]   factor: of the number of runs
 * sampling_gpu rates
 * Exit 77 without a GPU.
 */
#include "codegen/plan.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/lab.h"
#include "tests/kernels/program.h"
#include "tests/sampling/sequences.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ==== Shapes of the kernel ==== */

/* Few threads and short lists lead to the ways that large vocabularies take: a bound from the threads' bests, a list
 * that is too long for its room, picks from the row itself. */
typedef struct Instance {
    const char *label;
    int vocab, threads, list;
    int runs;
} Instance;

static const Instance instances[] = {
    {"one", 1, 32, 2048, 30},
    {"two", 2, 64, 2048, 60},
    {"odd", 31, 64, 2048, 300},
    {"listed", 257, 64, 2048, 300},
    {"short list", 257, 32, 40, 300},
    {"even", 1000, 128, 2048, 150},
    {"even, short", 1000, 64, 128, 300},
    {"usual, 5000", 5000, 1024, 2048, 20},
    {"odd, short", 5001, 128, 512, 100},
    {"odd, large", 50257, 256, 1024, 10},
    {"usual, odd", 50257, 1024, 2048, 10},
    {"usual", 262144, 1024, 2048, 8},
};
enum { N_INSTANCES = sizeof instances / sizeof instances[0] };

typedef struct Kernel {
    const Instance *of;
    DevModule *module;
    const DevKernel *kernel;
} Kernel;

static void build(Lab *l, const Instance *wanted, int n, Kernel *out) {
    Program programs[N_INSTANCES];
    DevModule *modules[N_INSTANCES];
    for (int i = 0; i < n; i++) {
        Buf b = {0};
        buf_printf(&b,
                   "#define SAMPLE_NAME sample\n#define SAMPLE_VOCAB %d\n#define SAMPLE_THREADS %d\n"
                   "#define SAMPLE_LIST %d\n",
                   wanted[i].vocab, wanted[i].threads, wanted[i].list);
        programs[i] = program_new("sample", "sample.cu", b.s, NULL, 0);
    }
    lab_load(l, programs, n, modules);
    for (int i = 0; i < n; i++)
        out[i] = (Kernel){&wanted[i], modules[i], lab_kernel(modules[i], "sample", 0)};
}

/* ==== A launch ==== */

/* Arguments of the kernel, in its order. */
typedef struct Operands {
    DevPtr logits, states, slots, rows, ids, next, guesses, own, own_recent;
    int32_t recent_words;
    void *pointers[10];
} Operands;

static DevLaunch launch_of(const Kernel *k, Operands *o, int grid) {
    void *pointers[] = {&o->logits, &o->states,  &o->slots, &o->rows,       &o->ids,
                        &o->next,   &o->guesses, &o->own,   &o->own_recent, &o->recent_words};
    memcpy(o->pointers, pointers, sizeof pointers);
    return (DevLaunch){.kernel = k->kernel,
                       .grid = {(uint32_t)grid, 1, 1},
                       .block = {(uint32_t)k->of->threads, 1, 1},
                       .pdl = true,
                       .arguments = o->pointers};
}

static Operands make_operands(Lab *l, int vocab, int rows) {
    const size_t n = (size_t)rows;
    return (Operands){.logits = lab_memory(l, n * (size_t)vocab * 4, 0xff),
                      .states = lab_memory(l, n * sizeof(GpuSampling), 0xff),
                      .slots = lab_memory(l, n * 4, 0xff),
                      .rows = lab_memory(l, 4, 0xff),
                      .ids = lab_memory(l, (n + 1) * 4, 0xff),
                      .next = lab_memory(l, (n + 1) * 4, 0xff)};
}

static void free_operands(Lab *l, const Operands *o) {
    const DevPtr all[] = {o->logits, o->states, o->slots, o->rows, o->ids, o->next};
    for (int i = 0; i < 6; i++)
        dev_free(l->device, all[i]);
}

/* ==== Checks ==== */

typedef struct Checked {
    Lab *lab;
    const Kernel *kernel;
    Operands on;
    DevPtr recent[MAX_SEQUENCES];
} Checked;

static uint64_t recent(void *ctx, int slot, size_t bytes) {
    Checked *c = ctx;
    dev_free(c->lab->device, c->recent[slot]);
    return c->recent[slot] = lab_memory(c->lab, bytes, 0xff);
}

static void start(void *ctx, int slot, const GpuSampling *state, const uint32_t *tokens, size_t bytes) {
    Checked *c = ctx;
    lab_in(c->lab, c->on.states + (size_t)slot * sizeof *state, state, sizeof *state);
    lab_in(c->lab, c->recent[slot], tokens, bytes);
}

static void pick(void *ctx, const float *logits, const int32_t *slots, int rows, int32_t *ids, int32_t *next) {
    Checked *c = ctx;
    DevStream *s = c->lab->stream;
    DevError e = {0};
    const size_t bytes = (size_t)(rows + 1) * 4;
    lab_in(c->lab, c->on.logits, logits, (size_t)rows * (size_t)c->kernel->of->vocab * 4);
    lab_in(c->lab, c->on.slots, slots, (size_t)rows * 4);
    lab_in(c->lab, c->on.rows, &rows, 4);
    lab_in(c->lab, c->on.ids, ids, bytes);
    lab_in(c->lab, c->on.next, next, bytes);
    const DevLaunch launch = launch_of(c->kernel, &c->on, rows + 1);
    must(dev_launch(s, &launch, &e) && dev_copy_out(s, ids, c->on.ids, bytes, &e) &&
             dev_copy_out(s, next, c->on.next, bytes, &e) && dev_stream_wait(s, &e),
         &e);
}

static bool check_instance(Lab *l, const Kernel *k, int factor, uint64_t *seed) {
    Checked c = {.lab = l, .kernel = k, .on = make_operands(l, k->of->vocab, MAX_SEQUENCES)};
    const Backend b = {k->of->label, k->of->vocab, &c, recent, start, pick};
    Tally t = {0};
    check_sequences(&b, k->of->runs * factor, seed, &t);
    printf("V %6d, %4d threads, list of %4d: %6ld picks, %5ld unusable, %ld near a boundary, %ld wrong\n", k->of->vocab,
           k->of->threads, k->of->list, t.picks, t.unusable, t.near, t.wrong);
    for (int i = 0; i < MAX_SEQUENCES; i++)
        dev_free(l->device, c.recent[i]);
    free_operands(l, &c.on);
    return t.wrong == 0;
}

static bool check(Lab *l, uint64_t seed, int factor) {
    static Kernel kernels[N_INSTANCES];
    bool ok = true;
    printf("seed %llu\n", (unsigned long long)seed);
    build(l, instances, N_INSTANCES, kernels);
    for (int i = 0; i < N_INSTANCES; i++) {
        ok &= check_instance(l, &kernels[i], factor, &seed);
        dev_module_free(kernels[i].module);
    }
    return ok;
}

/* ==== Times ==== */

/* Probabilities by rank as a model gives: half of the mass on some ten tokens, a long tail. */
static void model_like(float *row, int vocab, uint64_t *seed) {
    for (int i = 0; i < vocab; i++) {
        const double rank = 1 + (double)(random_next(seed) >> 11) * 0x1p-53 * vocab;
        row[i] = (float)(12 - 1.5 * log(rank));
    }
}

static void flat(float *row, int vocab, uint64_t *seed) {
    for (int i = 0; i < vocab; i++)
        row[i] = random_normal(seed);
}

typedef struct Rate {
    const char *label;
    void (*fill)(float *, int, uint64_t *);
    SampleOptions o;
} Rate;

static const Rate rates[] = {
    {"greedy", model_like, {.top_p = 1, .repeat_penalty = 1}},
    {"greedy, penalty over 64", model_like, {.top_p = 1, .repeat_penalty = 1.1f, .repeat_last = 64}},
    {"top-k 40, top-p 0.95, min-p 0.05",
     model_like,
     {.temperature = 1, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1}},
    {"top-k 64, top-p 0.95, penalty over 64",
     model_like,
     {.temperature = 1, .top_k = 64, .top_p = 0.95f, .repeat_penalty = 1.1f, .repeat_last = 64}},
    {"top-p 0.9", model_like, {.temperature = 1, .top_p = 0.9f, .repeat_penalty = 1}},
    {"min-p 0.05", model_like, {.temperature = 1, .top_p = 1, .min_p = 0.05f, .repeat_penalty = 1}},
    {"no filter", model_like, {.temperature = 1, .top_p = 1, .repeat_penalty = 1}},
    {"top-k 40, flat", flat, {.temperature = 1, .top_k = 40, .top_p = 1, .repeat_penalty = 1}},
    {"top-k 1000, flat", flat, {.temperature = 1, .top_k = 1000, .top_p = 1, .repeat_penalty = 1}},
    {"top-p 0.9, flat", flat, {.temperature = 1, .top_p = 0.9f, .repeat_penalty = 1}},
};

/* Seconds of a pick. */
static double time_picks(Lab *l, const DevLaunch *one) {
    enum { LAUNCHES = 50 };
    DevLaunch launches[LAUNCHES];
    for (int i = 0; i < LAUNCHES; i++)
        launches[i] = *one;
    return lab_time(l, launches, LAUNCHES);
}

static void rate(Lab *l, const Kernel *k, const Rate *r, int rows) {
    enum { CONTEXT = 1024 };
    const int vocab = k->of->vocab;
    const size_t row_bytes = (size_t)vocab * 4, most = (size_t)plan_recent_bytes(vocab, CONTEXT);
    uint64_t seed = 1;
    Operands o = make_operands(l, vocab, rows);
    DevPtr tokens = lab_memory(l, (size_t)rows * most, 0xff);
    float *logits = malloc(row_bytes);
    uint32_t *recents = malloc(most);
    for (int i = 0; i < rows; i++) {
        GpuSampling state;
        gpu_sampling_init(&state, &r->o, vocab, CONTEXT, tokens + (size_t)i * most);
        gpu_sampling_prompt(&state, recents, vocab, NULL, 0);
        r->fill(logits, vocab, &seed);
        lab_in(l, o.states + (size_t)i * sizeof state, &state, sizeof state);
        lab_in(l, tokens + (size_t)i * most, recents, gpu_sampling_recent_bytes(&state, vocab));
        lab_in(l, o.logits + (size_t)i * row_bytes, logits, row_bytes);
    }
    lab_in(l, o.rows, &rows, 4);
    dev_free(l->device, o.slots);
    o.slots = 0;
    const DevLaunch launch = launch_of(k, &o, rows);
    printf("%-38s %2d rows %7.1f us\n", r->label, rows, time_picks(l, &launch) * 1e6);
    free(recents);
    free(logits);
    dev_free(l->device, tokens);
    free_operands(l, &o);
}

static void all_rates(Lab *l) {
    Kernel k;
    build(l, &instances[N_INSTANCES - 1], 1, &k);
    const DevKernelInfo *info = dev_kernel_info(k.kernel);
    printf("%s, V = %d: %d registers, %d bytes of local memory, %d of shared memory\n", dev_info(l->device)->name,
           k.of->vocab, info->registers, info->local_bytes, info->static_shared);
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++)
        for (int rows = 1; rows <= 16; rows += 15)
            rate(l, &k, &rates[i], rows);
    dev_module_free(k.module);
}

int main(int argc, char **argv) {
    Lab l = {0};
    const int at = lab_open(&l, argc, argv);
    bool ok = true;
    if (at < argc && !strcmp(argv[at], "rates"))
        all_rates(&l);
    else
        ok = check(&l, at + 1 < argc ? strtoull(argv[at + 1], NULL, 0) : 20240817,
                   at + 2 < argc ? atoi(argv[at + 2]) : 1);
    lab_close(&l);
    return ok ? 0 : 1;
}
