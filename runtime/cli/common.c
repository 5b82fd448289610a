/* common.c - what the subcommands share. See cli.h. */
#include "runtime/cli/cli.h"
#include "runtime/engine/clock.h"
#include <errno.h>
#include <math.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* For shapes that no load before has timed. */
#define TUNE_SECONDS 2.0

/* Most bytes of a prompt or text: far above any context. */
#define MAX_INPUT ((size_t)256 << 20)

/* ==== Messages ==== */

int cli_fail(const Cli *c, int code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    cli_flush();
    fprintf(stderr, "lap %s: error: ", command_info[c->cmd].name);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return code;
}

int cli_report(Cli *c) {
    int code = diag_system_errors(c->diag) ? EXIT_SYSTEM : diag_errors(c->diag) ? EXIT_INPUT : EXIT_FINE;
    cli_flush();
    diag_print(c->diag, stderr, isatty(STDERR_FILENO));
    diag_clear(c->diag);
    return code;
}

/* ==== Output ==== */

static int flush_error;

bool cli_flush(void) {
    if (fflush(stdout) && !flush_error)
        flush_error = errno;
    return !ferror(stdout);
}

int cli_flush_error(void) {
    return flush_error;
}

/* ==== Files ==== */

bool cli_read(Cli *c, const char *path, Buf *out) {
    bool is_stdin = strcmp(path, "-") == 0;
    const char *name = is_stdin ? "standard input" : path;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    if (!f) {
        diag_error(c->diag, NO_LOC, "cannot open %s: %s", name, strerror(errno));
        return false;
    }
    char block[65536];
    size_t n;
    cli_interrupt_reads(true);
    while ((n = fread(block, 1, sizeof block, f)) > 0 && out->n <= MAX_INPUT)
        buf_bytes(out, block, n);
    bool failed = ferror(f);
    if (failed)
        diag_error(c->diag, NO_LOC, "cannot read %s: %s", name, strerror(errno));
    else if (out->n > MAX_INPUT)
        diag_error(c->diag, NO_LOC, "%s is larger than %zu MiB", name, MAX_INPUT >> 20);
    cli_interrupt_reads(false);
    if (!is_stdin)
        fclose(f);
    return !failed && out->n <= MAX_INPUT;
}

bool cli_parse_ids(Cli *c, const char *from, const char *text, size_t n, TokenList *out) {
    static const char separators[] = ", \t\r\n";
    size_t i = 0;
    while (i < n) {
        if (strchr(separators, text[i]) && text[i]) {
            i++;
            continue;
        }
        size_t start = i;
        int64_t value = 0;
        while (i < n && text[i] >= '0' && text[i] <= '9' && value <= INT32_MAX)
            value = value * 10 + (text[i++] - '0');
        bool ends = i == n || (text[i] && strchr(separators, text[i]));
        if (i == start || !ends || value > INT32_MAX) {
            size_t len = 0;
            while (start + len < n && len < 20 && !strchr(separators, text[start + len]))
                len++;
            diag_error(c->diag, NO_LOC, "%s: \"%.*s\" at byte %zu is not a token id", from, (int)len, text + start,
                       start);
            return false;
        }
        vec_push(c->arena, out, (int32_t)value);
    }
    return true;
}

bool cli_read_ids(Cli *c, const char *path, TokenList *out) {
    Buf text = {0};
    const bool ok = cli_read(c, path, &text) && cli_parse_ids(c, path, text.n ? text.s : "", text.n, out);
    buf_free(&text);
    return ok;
}

bool cli_check_ids(Cli *c, const char *from, const TokenList *ids, int vocab) {
    for (int i = 0; i < ids->n; i++) {
        if (ids->v[i] < vocab)
            continue;
        diag_error(c->diag, NO_LOC, "%s: token %d is not in the vocabulary of %d", from, ids->v[i], vocab);
        return false;
    }
    return true;
}

/* ==== Sessions ==== */

bool cli_parse_settings(Cli *c, const char *option, const TextList *given, FeSetting **out, int *n) {
    FeSetting *s = arena_array(c->arena, (size_t)given->n + 1, sizeof *s);
    for (int i = 0; i < given->n; i++) {
        const char *text = given->v[i];
        const char *eq = strchr(text, '=');
        if (!eq || eq == text) {
            cli_fail(c, EXIT_USAGE, "%s wants NAME=VALUE, not \"%s\"", option, text);
            return false;
        }
        s[i] = (FeSetting){arena_strndup(c->arena, text, (size_t)(eq - text)), eq + 1};
    }
    *out = s;
    *n = given->n;
    return true;
}

bool cli_settings(Cli *c, FeSetting **out, int *n) {
    return cli_parse_settings(c, "--set", &c->o.set, out, n);
}

SparseUse cli_sparse(const Cli *c) {
    static const char *const names[] = {[SPARSE_AUTO] = "auto", [SPARSE_ON] = "on", [SPARSE_OFF] = "off"};
    int i = SPARSE_OFF;
    while (i > SPARSE_AUTO && strcmp(c->o.sparse, names[i]) != 0)
        i--;
    return (SparseUse)i;
}

void cli_sparse_options(const Cli *c, PassOptions *p) {
    p->sparse = cli_sparse(c);
    p->alpha = c->o.given[OPT_alpha] ? fmax(c->o.alpha, 0) : p->alpha;
}

DType cli_kv_type(const char *choice, DType automatic) {
    const DType type = dtype_from_name((Str){choice, strlen(choice)}); /* there is no type "auto" */
    return type == DT_COUNT ? automatic : type;
}

const char *cli_cache_dir(Arena *a) {
    const struct passwd *user = getpwuid(getuid());
    return user && user->pw_dir ? arena_printf(a, "%s/.cache/lapidary", user->pw_dir) : NULL;
}

const char *cli_kernel_cache(Cli *c) {
    const char *dir = c->o.kernel_cache ? NULL : cli_cache_dir(c->arena);
    if (c->o.kernel_cache)
        return c->o.kernel_cache;
    return dir ? arena_printf(c->arena, "%s/kernels", dir) : NULL;
}

CubinCache *cli_open_kernel_cache(Cli *c) {
    const char *dir = cli_kernel_cache(c);
    return dir ? cubin_cache_open(dir) : NULL;
}

void cli_close_kernel_cache(const Cli *c, CubinCache *cache) {
    char *warnings = cache ? cubin_cache_warnings(cache) : NULL;
    if (warnings)
        fprintf(stderr, "lap %s: warning: %s\n", command_info[c->cmd].name, warnings);
    free(warnings);
    cubin_cache_close(cache);
}

/* The line that shows what loading is at. */
typedef struct LoadingLine {
    Cli *c;
    Progress *progress;
    const char *what;
} LoadingLine;

static void loading(void *ctx, const char *what, int64_t done, int64_t total, bool bytes) {
    LoadingLine *l = ctx;
    if (l->what != what) {
        progress_end(l->progress);
        l->progress = progress_start(l->c, what);
        l->what = what;
    }
    if (bytes)
        progress_bytes(l->progress, done, total);
    else
        progress_set(l->progress, done, total);
}

/* --verbose: what there is now, and what loading took. */
static void say_session(const Cli *c, const Session *s, const char *weights, double seconds) {
    fprintf(stderr, "%s: %s, device %s, K/V %.1f MiB, ready in %.2f s\n", weights, session_text_name(s),
            session_device_text(s), (double)session_cache_bytes(s) / (1 << 20), seconds);
    fprintf(stderr, "chunk of %lld: %s\n", (long long)session_chunk(s),
            session_chunk_why(s) ? session_chunk_why(s) : "as it was given");
    const Gpu *gpu = session_gpu(s);
    if (!gpu)
        return;
    const GpuRates *rates = session_rates(s);
    if (rates)
        fprintf(stderr, "%s; %s\n", rates_text(c->arena, &rates->rates), rates->from);
    const GpuLoadStats *t = gpu_load_stats(gpu);
    const double bytes = (double)t->upload_bytes;
    fprintf(stderr, "GPU: device open in %.2f s; ", t->device_seconds);
    if (gpu_nvrtc(gpu))
        fprintf(stderr, "%d kernels, %d of them compiled, %d cached, in %.2f s", t->kernels, t->compiled,
                t->kernels - t->compiled, t->compile_seconds);
    else
        fprintf(stderr, "%d kernels of the bundle", t->kernels);
    fprintf(stderr, "; %.2f GB of weights uploaded in %.2f s (%.2f GB/s); ready in %.2f s\n", bytes / 1e9,
            t->upload_seconds, t->upload_seconds > 0 ? bytes / 1e9 / t->upload_seconds : 0.0, t->ready_seconds);
    if (gpu_tuning(gpu))
        cli_say_tuning(gpu_tuning(gpu));
}

/* Only a GPU has a use for these: an error with --device cpu, a warning where `auto` found none. */
static int check_gpu_options(Cli *c, const Backend *b) {
    static const struct {
        OptionId id;
        const char *name;
    } rows[] = {{OPT_driver, "driver"},
                {OPT_nvrtc, "nvrtc"},
                {OPT_use_kernel, "use-kernel"},
                {OPT_check_launches, "check-launches"}};
    const bool asked = strcmp(c->o.device, "cpu") == 0;
    for (size_t i = 0; i < COUNTOF(rows) && strcmp(b->name, "cpu") == 0 && !c->said_unused; i++) {
        if (!c->o.given[rows[i].id])
            continue;
        if (asked)
            return cli_fail(c, EXIT_USAGE, "--%s has a meaning only on a GPU, not with --device cpu", rows[i].name);
        fprintf(stderr, "lap %s: warning: --%s has a meaning only on a GPU, and there is none here\n",
                command_info[c->cmd].name, rows[i].name);
    }
    c->said_unused = true;
    return EXIT_FINE;
}

/* What can be said without a device comes first; a bundle and its options are checked when it is opened. */
static int check_device(Cli *c, const SessionOptions *so) {
    char arch[16];
    if (so->facet && !session_facet_takes(so, c->diag))
        return EXIT_USAGE;
    const Backend *b = backend_find(so->device, c->o.driver, c->diag);
    if (!b)
        return EXIT_SYSTEM;
    const int code = check_gpu_options(c, b);
    if (code != EXIT_FINE || so->facet || strcmp(so->device, "gpu") != 0)
        return code;
    return gpu_arch(c->o.driver, 0, arch, c->diag) ? EXIT_FINE : EXIT_SYSTEM;
}

int cli_session(Cli *c, int64_t context, const char *const *taps, int n_taps, Session **out) {
    FeSetting *settings;
    int n_settings;
    *out = NULL;
    if (!cli_settings(c, &settings, &n_settings))
        return EXIT_USAGE;
    const char *device = c->o.facet && strcmp(c->o.device, "auto") == 0 ? "gpu" : c->o.device;
    LoadingLine line = {.c = c};
    SessionOptions so = {.weights = c->o.operand[0],
                         .model = c->o.model,
                         .facet = c->o.facet,
                         .settings = settings,
                         .n_settings = n_settings,
                         .context = context ? context : c->o.context,
                         .chunk = c->o.chunk,
                         .kv_k = cli_kv_type(c->o.kv_k, DT_COUNT),
                         .kv_v = cli_kv_type(c->o.kv_v, DT_COUNT),
                         .sparse = cli_sparse(c),
                         .alpha = c->o.given[OPT_alpha] ? &c->o.alpha : NULL,
                         .threads = (int)c->o.threads,
                         .device = device,
                         .gpu = {.driver = c->o.driver,
                                 .nvrtc = c->o.nvrtc,
                                 .kernel_cache = cli_kernel_cache(c),
                                 .use_kernel = c->o.use_kernel,
                                 .check_launches = c->o.check_launches,
                                 .tune = {.file = cli_tuned_file(c, c->o.tune), .budget = TUNE_SECONDS},
                                 .rates = {.file = cli_tuned_file(c, NULL)},
                                 .timed_rows = c->timed_rows,
                                 .timed_wanted = c->timed_wanted,
                                 .timed_moment = c->o.moment,
                                 .progress = loading,
                                 .ctx = &line,
                                 .cancel = &cli_interrupted},
                         .taps = taps,
                         .n_taps = n_taps,
                         .verify_each = c->o.verify_each};
    if (so.facet) { /* what is not given is the bundle's */
        so.context = c->o.given[OPT_context] ? c->o.context : 0;
        so.chunk = c->o.given[OPT_chunk] ? c->o.chunk : 0;
    }
    int code = cli_draft_options(c, &so);
    if (code == EXIT_FINE)
        code = check_device(c, &so);
    if (code != EXIT_FINE)
        return code;
    double start = clock_seconds();
    line.progress = progress_start(c, "loading");
    Session *s = session_open(&so, c->diag);
    progress_end(line.progress);
    *out = s;
    if (!s && cli_interrupted) {
        fprintf(stderr, "interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (!s || !cli_check_method(c, s))
        return EXIT_INPUT;
    if (context > session_context(s)) {
        diag_error(c->diag, NO_LOC, "%s was compiled for a context of %lld; %lld positions are needed", so.facet,
                   (long long)session_context(s), (long long)context);
        return EXIT_INPUT;
    }
    if (c->o.verbose)
        say_session(c, s, so.weights, clock_seconds() - start);
    return EXIT_FINE;
}

/* A hint of the file, where the option was not given; value untouched when there is none. */
static void hint(const ModelFile *file, const Cli *c, OptionId id, const char *key, double *value) {
    const MetaValue *m = c->o.given[id] ? NULL : modelfile_meta(file, key);
    if (!m || m->is_array)
        return;
    if (m->kind == META_FLOAT)
        *value = m->f[0];
    else if (m->kind == META_INT)
        *value = (double)m->i[0];
}

/* --seed -1: by the clock; said, so that the draw can be had again. */
static uint64_t seed_of(const Cli *c) {
    if (c->o.seed >= 0)
        return (uint64_t)c->o.seed;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const int64_t odds[] = {now.tv_sec, now.tv_nsec, getpid()};
    const uint64_t seed = hash_bytes(odds, sizeof odds, 0) >> 32;
    fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
    return seed;
}

SampleOptions cli_sampling(const Cli *c, const ModelFile *file) {
    const Options *o = &c->o;
    double temp = o->temp;
    double top_k = (double)o->top_k;
    double top_p = o->top_p;
    double min_p = o->min_p;
    double penalty = o->repeat_penalty;
    double last = (double)o->repeat_last;
    hint(file, c, OPT_temp, "general.sampling.temp", &temp);
    hint(file, c, OPT_top_k, "general.sampling.top_k", &top_k);
    hint(file, c, OPT_top_p, "general.sampling.top_p", &top_p);
    hint(file, c, OPT_min_p, "general.sampling.min_p", &min_p);
    hint(file, c, OPT_repeat_penalty, "general.sampling.penalty_repeat", &penalty);
    hint(file, c, OPT_repeat_last, "general.sampling.penalty_last_n", &last);
    return (SampleOptions){.temperature = o->greedy || !(temp > 0) ? 0.0f : (float)temp,
                           .top_k = top_k >= 0 && top_k <= INT32_MAX ? (int)top_k : 0,
                           .top_p = top_p >= 0 && top_p <= 1 ? (float)top_p : 1.0f,
                           .min_p = min_p >= 0 && min_p <= 1 ? (float)min_p : 0.0f,
                           .repeat_penalty = penalty > 0 && penalty < 1e6 ? (float)penalty : 1.0f,
                           .repeat_last = last >= -1 && last <= INT32_MAX ? (int)last : -1,
                           .seed = seed_of(c)};
}

/* ==== Interrupt ==== */

volatile bool cli_interrupted;
static volatile sig_atomic_t interrupted_by;

static void on_interrupt(int signal_number) {
    interrupted_by = signal_number;
    cli_interrupted = true;
}

static void catch_one(int signal_number) {
    struct sigaction a = {.sa_handler = on_interrupt};
    sigemptyset(&a.sa_mask);
    /* The second one has its usual effect. Restarting: a reply is written to a terminal that reads it slowly, and a
     * write given up half way would be a reply cut short and an error of output. */
    a.sa_flags = (int)SA_RESETHAND | SA_RESTART;
    sigaction(signal_number, &a, NULL);
}

void cli_catch_interrupt(void) {
    cli_interrupted = false;
    catch_one(SIGINT);
}

void cli_catch_end(void) {
    static const int ends[] = {SIGTERM, SIGHUP};
    cli_catch_interrupt();
    for (size_t i = 0; i < COUNTOF(ends); i++) {
        struct sigaction a;
        if (sigaction(ends[i], NULL, &a) == 0 && a.sa_handler != SIG_IGN) /* nohup */
            catch_one(ends[i]);
    }
}

int cli_interrupt_code(void) {
    return interrupted_by ? 128 + (int)interrupted_by : EXIT_INTERRUPTED;
}

void cli_interrupt_reads(bool on) {
    struct sigaction a;
    if (sigaction(SIGINT, NULL, &a) || a.sa_handler != on_interrupt)
        return;
    a.sa_flags = on ? a.sa_flags & ~SA_RESTART : a.sa_flags | SA_RESTART;
    sigaction(SIGINT, &a, NULL);
}
