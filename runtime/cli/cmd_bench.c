/* cmd_bench.c - lap bench: prompt and decode speed; on a GPU also calls of a few rows, beside their floors; memory.
 *
 * Times of prompt, decode and rows are of whole calls, the host's part included. On a GPU each is followed by the time
 * of the same launches without the host, and by the floor of that: what the call must read and compute, by the rates of
 * the device measured at the start of the run.
 */
#include "runtime/cli/bench_int.h"
#include "runtime/engine/clock.h"
#include <stdlib.h>
#include <string.h>

/* ==== Whole calls ==== */

static int32_t best(const float *logits, int n) {
    int32_t top = 0;
    for (int32_t i = 1; i < n; i++)
        top = logits[i] > logits[top] ? i : top;
    return top;
}

static StepResult decode_by_logits(Bench *b, double *seconds) {
    FeedOptions feed = {.cancel = &cli_interrupted};
    StepResult r = session_feed(b->s, b->ids + b->depth - 1, 1, &feed, b->logits);
    double start = clock_seconds();
    for (int64_t i = 0; i < b->c->o.tg && r == STEP_OK; i++) {
        int32_t id = best(b->logits, session_vocab(b->s));
        r = session_feed(b->s, &id, 1, &feed, b->logits);
    }
    *seconds = clock_seconds() - start;
    return r;
}

static StepResult decode_by_picks(Bench *b, double *seconds) {
    FeedOptions feed = {.cancel = &cli_interrupted};
    SampleOptions greedy = {.repeat_penalty = 1};
    int32_t id;
    StepResult r = session_pick_start(b->s, b->ids + b->depth - 1, 1, &feed, &greedy, b->c->o.tg + 1);
    if (r != STEP_OK)
        return r;
    r = session_pick(b->s, &id);
    double start = clock_seconds();
    for (int64_t i = 0; i < b->c->o.tg && r == STEP_OK && id >= 0 && !cli_interrupted; i++) {
        session_pick_feed(b->s);
        r = session_pick(b->s, &id);
    }
    *seconds = clock_seconds() - start;
    session_pick_end(b->s);
    if (r == STEP_OK && id < 0) {
        diag_error(b->c->diag, NO_LOC, "the model gave no usable logits (NaN or infinite)");
        return STEP_ERROR;
    }
    return cli_interrupted ? STEP_CANCELLED : r;
}

/* tg NULL: no decoding */
static StepResult run_once(Bench *b, double *pp, double *tg) {
    session_rewind(b->s, 0);
    FeedOptions feed = {.cancel = &cli_interrupted};
    double start = clock_seconds();
    StepResult r = session_feed(b->s, b->ids, b->tokens, &feed, b->logits);
    *pp = clock_seconds() - start;
    if (r == STEP_OK && tg)
        r = measure_stand(b->s, b->ids, b->depth - 1);
    if (r != STEP_OK || !tg)
        return r;
    return session_picks(b->s) ? decode_by_picks(b, tg) : decode_by_logits(b, tg);
}

StepResult bench_whole(Bench *b, bool warm, bool decode) {
    double *pp = arena_array(b->c->arena, (size_t)b->repeat, sizeof *pp);
    double *tg = arena_array(b->c->arena, (size_t)b->repeat, sizeof *tg);
    StepResult r = warm ? run_once(b, &pp[0], decode ? &tg[0] : NULL) : STEP_OK;
    Progress *p = progress_start(b->c, "runs");
    for (int64_t i = 0; i < b->repeat && r == STEP_OK; i++) {
        progress_set(p, i, b->repeat);
        r = run_once(b, &pp[i], decode ? &tg[i] : NULL);
    }
    progress_end(p);
    b->pp = measure_median(pp, b->repeat);
    b->tg = measure_median(tg, b->repeat);
    return r;
}

/* ==== On a GPU, without the host ==== */

/* The prompt's calls once more, each timed by itself. */
static StepResult time_prompt(Bench *b) {
    session_rewind(b->s, 0);
    StepResult r = STEP_OK;
    const int64_t chunk = gpu_plan(b->gpu)->chunk;
    for (int64_t at = 0; at < b->tokens && r == STEP_OK; at += chunk) {
        const int64_t left = b->tokens - at, n = left < chunk ? left : chunk;
        CallTime t;
        r = measure_step(b->s, b->ids + at, n, false);
        if (r == STEP_OK && !measure_call(b->c, b->s, &(CallRows){n, 1, at}, b->repeat, &t))
            r = STEP_ERROR;
        if (r != STEP_OK)
            break;
        b->prompt.seconds += t.seconds;
        b->prompt.floor += measure_floor(&t.total, b->limits);
        work_add(&b->prompt.work, &t.total);
    }
    return r;
}

static StepResult time_rows(Bench *b, RowsResult *out) {
    double *seconds = arena_array(b->c->arena, (size_t)b->repeat, sizeof *seconds);
    StepResult r = STEP_OK;
    for (int64_t i = -1; i < b->repeat && r == STEP_OK; i++) { /* the first is not counted */
        r = measure_stand(b->s, b->ids, b->depth);
        double start = clock_seconds();
        if (r == STEP_OK)
            r = measure_step(b->s, b->ids + b->depth, out->rows, true);
        if (i >= 0)
            seconds[i] = clock_seconds() - start;
    }
    out->seconds = measure_median(seconds, b->repeat);
    const CallRows rows = {out->rows, out->rows, b->depth};
    if (r == STEP_OK && !measure_call(b->c, b->s, &rows, b->repeat, &out->gpu))
        return STEP_ERROR;
    return r;
}

static StepResult time_all(Bench *b) {
    b->limits = measure_limits(b->c, b->s);
    StepResult r = bench_whole(b, true, true);
    if (r == STEP_OK)
        r = time_prompt(b);
    for (int i = 0; i < b->n_rows && r == STEP_OK; i++)
        r = time_rows(b, &b->rows[i]);
    return r;
}

/* ==== Results ==== */

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

static double device_memory(const Bench *b) {
    int64_t bytes = 0;
    for (int k = 0; k < BUFFER_KINDS; k++)
        bytes += plan_bytes(gpu_plan(b->gpu), (BufferKind)k);
    return (double)bytes;
}

static json_t *rows_json(const Bench *b) {
    json_t *all = json_array();
    for (int i = 0; i < b->n_rows; i++) {
        const RowsResult *r = &b->rows[i];
        json_t *j = json_pack("{s:i, s:s, s:f, s:f}", "rows", r->rows, "phase", r->gpu.phase->name, "seconds",
                              r->seconds, "tokens_per_second", r->rows / r->seconds);
        const double floor = measure_floor(&r->gpu.total, b->limits);
        measure_call_json(j, r->gpu.seconds, &r->gpu.total, floor, b->limits);
        json_array_append_new(all, j);
    }
    return all;
}

static void print_json(Bench *b) {
    const Options *o = &b->c->o;
    json_t *j = json_pack("{s:s, s:s, s:s, s:i, s:I, s:f, s:I, s:f, s:I, s:I, s:I, s:I, s:I}", "weights", o->operand[0],
                          "model", session_text_name(b->s), "device", session_device(b->s), "threads",
                          session_threads(b->s), "prompt_tokens", (json_int_t)b->tokens, "prompt_tokens_per_second",
                          (double)b->tokens / b->pp, "decode_tokens", (json_int_t)o->tg, "decode_tokens_per_second",
                          (double)o->tg / b->tg, "depth", (json_int_t)b->depth, "runs", (json_int_t)b->repeat,
                          "file_bytes", (json_int_t)session_weight_bytes(b->s), "cache_bytes",
                          (json_int_t)session_cache_bytes(b->s), "peak_resident_bytes", (json_int_t)peak_memory());
    if (b->n_drafts)
        json_object_set_new(j, "drafts", bench_drafts_json(b));
    if (b->generated.drafts.rounds)
        json_object_set_new(j, "generated", bench_generated_json(b));
    if (b->gpu) {
        json_t *prompt = json_object();
        measure_call_json(prompt, b->prompt.seconds, &b->prompt.work, b->prompt.floor, b->limits);
        json_object_update_new(j, json_pack("{s:s, s:f, s:o, s:o, s:o, s:o}", "gpu", dev_info(gpu_device(b->gpu))->name,
                                            "device_bytes", device_memory(b), "limits", measure_limits_json(b->limits),
                                            "prompt", prompt, "rows", rows_json(b), "tuning",
                                            cli_tuning_json(gpu_tuning(b->gpu))));
    }
    json_print(j, true);
}

static void print_memory(Bench *b) {
    printf("memory  file %.1f MiB, K/V %.1f MiB, peak resident %.1f MiB",
           (double)session_weight_bytes(b->s) / (1 << 20), (double)session_cache_bytes(b->s) / (1 << 20),
           peak_memory() / (1 << 20));
    if (b->gpu)
        printf(", on the device %.1f MiB", device_memory(b) / (1 << 20));
    putchar('\n');
}

static void print_speeds(Bench *b) {
    const Options *o = &b->c->o;
    const int threads = session_threads(b->s);
    printf("%s: %s on %s, %d thread%s, median of %lld\n", o->operand[0], session_text_name(b->s), session_device(b->s),
           threads, threads == 1 ? "" : "s", (long long)b->repeat);
    printf("prompt %6lld tokens  %9.2f tokens/s\ndecode %6lld tokens  %9.2f tokens/s\n", (long long)b->tokens,
           (double)b->tokens / b->pp, (long long)o->tg, (double)o->tg / b->tg);
}

/* GPU time, floor and share of a line, in milliseconds, and the rate that counts. */
static void print_call(const Bench *b, double seconds, double floor, const Work *w) {
    printf("  %9.3f", 1e3 * seconds);
    if (b->limits)
        printf("  %9.3f %6.1f %%", 1e3 * floor, 100 * floor / seconds);
    const double bytes = w->weight_bytes + w->kv_bytes;
    printf("  %7.0f GB/s %6.1f TFLOP/s\n", 1e-9 * bytes / seconds, 1e-12 * w->flops / seconds);
}

static void print_table(Bench *b) {
    const Options *o = &b->c->o;
    printf("%s: %s on %s, median of %lld\n", o->operand[0], session_text_name(b->s), session_device_text(b->s),
           (long long)b->repeat);
    measure_print_limits(b->limits);
    printf("\n%-21s %12s  %9s  %9s%s\n", "", "tokens/s", "ms", "GPU ms", b->limits ? "      floor    share" : "");
    printf("prompt %7lld tokens %12.2f  %9.3f", (long long)b->tokens, (double)b->tokens / b->pp, 1e3 * b->pp);
    print_call(b, b->prompt.seconds, b->prompt.floor, &b->prompt.work);
    printf("decode %7lld tokens %12.2f  %9.3f  a token, at depth %lld\n", (long long)o->tg, (double)o->tg / b->tg,
           1e3 * b->tg / (double)o->tg, (long long)b->depth);
    for (int i = 0; i < b->n_rows; i++) {
        const RowsResult *r = &b->rows[i];
        printf("step   %7d %-6s %12.2f  %9.3f", r->rows, r->rows == 1 ? "row" : "rows", r->rows / r->seconds,
               1e3 * r->seconds);
        print_call(b, r->gpu.seconds, measure_floor(&r->gpu.total, b->limits), &r->gpu.total);
    }
}

static void print_result(Bench *b) {
    if (b->c->o.json) {
        print_json(b);
        return;
    }
    if (b->gpu)
        print_table(b);
    else
        print_speeds(b);
    bench_print_drafts(b);
    print_memory(b);
}

/* ==== The command ==== */

/* --rows; false after a usage error. */
static bool read_rows(Bench *b) {
    const char *at = b->c->o.row_counts;
    for (bool more = true; more;) {
        char *end;
        const long n = strtol(at, &end, 10);
        if (end == at || n < 1 || n > MOST_ROWS || (*end && *end != ',') || b->n_rows == MOST_ROWS) {
            cli_fail(b->c, EXIT_USAGE, "--rows wants at most 16 numbers from 1 to 16, as 1,4,8, not \"%s\"",
                     b->c->o.row_counts);
            return false;
        }
        b->rows[b->n_rows++].rows = (int)n;
        more = *end == ',';
        at = end + 1;
    }
    return true;
}

/* What can only be told when the session is there. */
static int check_rows(Bench *b) {
    if (!b->gpu && b->c->o.given[OPT_row_counts])
        return cli_fail(b->c, EXIT_USAGE, "--rows measures calls on a GPU; this runs on the processor");
    const int64_t most = b->gpu ? session_step_rows(b->s) : MOST_ROWS;
    for (int i = 0; i < b->n_rows; i++) {
        if (b->rows[i].rows <= most)
            continue;
        if (b->c->o.given[OPT_row_counts])
            return cli_fail(b->c, EXIT_USAGE, "--rows %d: a call takes at most %lld with this --chunk", b->rows[i].rows,
                            (long long)most);
        b->n_rows = i;
    }
    return EXIT_FINE;
}

/* --tokens-file, before there is a session: the prompt is as long as that. */
static int read_tokens(Bench *b) {
    Cli *c = b->c;
    if (!c->o.bench_tokens)
        return EXIT_FINE;
    if (c->o.given[OPT_pp])
        return cli_fail(c, EXIT_USAGE, "--tokens-file and --pp exclude each other");
    if (!cli_read_ids(c, c->o.bench_tokens, &b->file))
        return EXIT_INPUT;
    if (b->file.n == 0) {
        diag_error(c->diag, NO_LOC, "%s: there are no token ids", c->o.bench_tokens);
        return EXIT_INPUT;
    }
    b->tokens = b->file.n;
    b->depth = c->o.depth ? c->o.depth : b->tokens;
    return EXIT_FINE;
}

/* Those of the file, over and over, or random ones. */
static bool make_ids(Bench *b) {
    const int64_t n = (b->tokens > b->depth ? b->tokens : b->depth) + MOST_ROWS;
    b->ids = measure_ids(b->c, b->s, n);
    if (b->file.n == 0)
        return true;
    for (int64_t i = 0; i < n; i++)
        b->ids[i] = b->file.v[i % b->file.n];
    return cli_check_ids(b->c, b->c->o.bench_tokens, &b->file, session_vocab(b->s));
}

static int bench(Bench *b) {
    const Options *o = &b->c->o;
    b->gpu = session_gpu(b->s);
    const int code = check_rows(b);
    if (code != EXIT_FINE)
        return code;
    b->repeat = o->repeat ? o->repeat : b->gpu ? GPU_REPEAT : CPU_REPEAT;
    if (!make_ids(b))
        return EXIT_INPUT;
    b->logits = arena_array(b->c->arena, (size_t)session_vocab(b->s) * (size_t)(session_drafts(b->s)->most + 1),
                            sizeof *b->logits);
    StepResult r = b->gpu ? time_all(b) : bench_whole(b, true, true);
    if (r == STEP_OK && session_drafts(b->s)->way)
        r = bench_drafts(b);
    if (r == STEP_OK && session_drafts(b->s)->way && b->file.n && !bench_generate(b))
        r = STEP_ERROR;
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
    Bench b = {.c = c, .tokens = c->o.pp, .depth = c->o.depth ? c->o.depth : c->o.pp};
    if (c->o.contexts) {
        const int code = bench_curve(&b);
        session_close(b.s);
        return code;
    }
    if (c->o.svg || c->o.bench_file)
        return cli_fail(c, EXIT_USAGE, "%s has a meaning only with --contexts", c->o.svg ? "--svg" : "--file");
    if (!read_rows(&b))
        return EXIT_USAGE;
    int code = read_tokens(&b);
    if (code != EXIT_FINE)
        return code;
    const int64_t longest = (b.file.n > b.depth ? b.file.n : b.depth) + (c->o.tg > MOST_ROWS ? c->o.tg : MOST_ROWS) +
                            (c->o.draft || c->o.given[OPT_draft_method] ? 2 * MOST_ROWS : 0);
    code = cli_session(c, longest > b.tokens ? longest : b.tokens, NULL, 0, &b.s);
    if (code == EXIT_FINE)
        code = bench(&b);
    session_close(b.s);
    return code;
}
