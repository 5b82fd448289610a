/* cmd_bench.c - lap bench: prompt and decode speed, resident memory. */
#include "runtime/cli/cli.h"
#include "runtime/engine/clock.h"
#include <stdlib.h>
#include <string.h>

typedef struct Bench {
    Cli *c;
    Session *s;
    int32_t *prompt;
    float *logits;
    double *pp, *tg; /* seconds of each run */
} Bench;

/* Ids spread over the vocabulary, the same in every run: speed must not depend on luck. */
static void make_prompt(Bench *b) {
    uint64_t x = 1;
    for (int64_t i = 0; i < b->c->o.pp; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        b->prompt[i] = (int32_t)((x >> 33) % (uint64_t)session_vocab(b->s));
    }
}

static int32_t best(const float *logits, int n) {
    int32_t top = 0;
    for (int32_t i = 1; i < n; i++)
        top = logits[i] > logits[top] ? i : top;
    return top;
}

static StepResult run_once(Bench *b, double *pp, double *tg) {
    session_rewind(b->s, 0);
    FeedOptions feed = {.cancel = &cli_interrupted};
    double start = clock_seconds();
    StepResult r = session_feed(b->s, b->prompt, b->c->o.pp, &feed, b->logits);
    double middle = clock_seconds();
    for (int64_t i = 0; i < b->c->o.tg && r == STEP_OK; i++) {
        int32_t id = best(b->logits, session_vocab(b->s));
        r = session_feed(b->s, &id, 1, &feed, b->logits);
    }
    *pp = middle - start;
    *tg = clock_seconds() - middle;
    return r;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int64_t n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Most bytes that were resident, 0 when the system does not tell. */
static double peak_memory(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lld kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return (double)kib * 1024;
}

static void print_result(Bench *b) {
    const Options *o = &b->c->o;
    double pp = (double)o->pp / median(b->pp, o->repeat);
    double tg = (double)o->tg / median(b->tg, o->repeat);
    double memory = peak_memory();
    double file = (double)session_weight_bytes(b->s);
    int threads = session_threads(b->s);
    if (o->json) {
        json_print(json_pack("{s:s, s:s, s:s, s:i, s:I, s:f, s:I, s:f, s:I, s:I, s:I, s:I}", "weights", o->operand[0],
                             "model", session_text_name(b->s), "device", session_device(b->s), "threads", threads,
                             "prompt_tokens", (json_int_t)o->pp, "prompt_tokens_per_second", pp, "decode_tokens",
                             (json_int_t)o->tg, "decode_tokens_per_second", tg, "runs", (json_int_t)o->repeat,
                             "file_bytes", (json_int_t)file, "cache_bytes", (json_int_t)session_cache_bytes(b->s),
                             "peak_resident_bytes", (json_int_t)memory),
                   true);
        return;
    }
    printf("%s: %s on %s, %d thread%s, median of %lld\n", o->operand[0], session_text_name(b->s), session_device(b->s),
           threads, threads == 1 ? "" : "s", (long long)o->repeat);
    printf("prompt %6lld tokens  %9.2f tokens/s\ndecode %6lld tokens  %9.2f tokens/s\n", (long long)o->pp, pp,
           (long long)o->tg, tg);
    printf("memory  file %.1f MiB, K/V %.1f MiB, peak resident %.1f MiB\n", file / (1 << 20),
           (double)session_cache_bytes(b->s) / (1 << 20), memory / (1 << 20));
}

static int bench(Bench *b) {
    int64_t runs = b->c->o.repeat;
    b->prompt = arena_array(b->c->arena, (size_t)b->c->o.pp, sizeof *b->prompt);
    b->logits = arena_array(b->c->arena, (size_t)session_vocab(b->s), sizeof *b->logits);
    b->pp = arena_array(b->c->arena, (size_t)runs, sizeof *b->pp);
    b->tg = arena_array(b->c->arena, (size_t)runs, sizeof *b->tg);
    make_prompt(b);
    Progress *p = progress_start(b->c, "runs");
    double warm_pp;
    double warm_tg;
    StepResult r = run_once(b, &warm_pp, &warm_tg);
    for (int64_t i = 0; i < runs && r == STEP_OK; i++) {
        progress_set(p, i, runs);
        r = run_once(b, &b->pp[i], &b->tg[i]);
    }
    progress_end(p);
    if (cli_interrupted) {
        fprintf(stderr, "interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (r != STEP_OK)
        return EXIT_INPUT;
    print_result(b);
    return EXIT_FINE;
}

int cmd_bench(Cli *c) {
    cli_catch_interrupt();
    Bench b = {.c = c};
    int code = cli_session(c, c->o.pp + c->o.tg, NULL, 0, &b.s);
    if (code == EXIT_FINE)
        code = bench(&b);
    session_close(b.s);
    return code;
}
