/* cmd_run.c - lap run: a prompt, its continuation, and what was computed on the way.
 *
 * Text streams to stdout, or is collected for --json. --logits and --dump write rows as they come.
 */
#include "runtime/cli/cli.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* A file of rows of floats. */
typedef struct RowFile {
    const char *path;
    FILE *f;
} RowFile;

typedef struct Run {
    Cli *c;
    Session *s;
    TokenList prompt;
    const char *taps[MAX_TAPS];
    RowFile tap_files[MAX_TAPS];
    int n_taps;
    RowFile logits;
    bool write_failed;
    Progress *progress;
    bool show_ids;  /* no tokenizer: ids are the output */
    Buf text;       /* --json */
    TokenList made; /* generated ids */
} Run;

/* ==== --dump TAP=FILE, --logits FILE ==== */

/* "layer[3]" as the graph names it: "layer.3". n is at least 1. */
static const char *tap_name(Arena *a, const char *s, size_t n) {
    const char *open = s[n - 1] == ']' ? memchr(s, '[', n) : NULL;
    if (!open)
        return arena_strndup(a, s, n);
    return arena_printf(a, "%.*s.%.*s", (int)(open - s), s, (int)(s + n - 2 - open), open + 1);
}

static int parse_dumps(Run *r) {
    Cli *c = r->c;
    if (c->o.dump.n > MAX_TAPS)
        return cli_fail(c, EXIT_USAGE, "at most %d --dump at once", MAX_TAPS);
    for (int i = 0; i < c->o.dump.n; i++) {
        const char *text = c->o.dump.v[i];
        const char *eq = strchr(text, '=');
        if (!eq || eq == text || !eq[1])
            return cli_fail(c, EXIT_USAGE, "--dump wants TAP=FILE, not \"%s\"", text);
        r->taps[i] = tap_name(c->arena, text, (size_t)(eq - text));
        r->tap_files[i].path = eq + 1;
        if (c->o.logits && strcmp(c->o.logits, eq + 1) == 0)
            return cli_fail(c, EXIT_USAGE, "--logits and --dump both write %s", eq + 1);
        for (int k = 0; k < i; k++) {
            if (strcmp(r->taps[k], r->taps[i]) == 0)
                return cli_fail(c, EXIT_USAGE, "--dump %s is given twice", r->taps[i]);
            if (strcmp(r->tap_files[k].path, eq + 1) == 0)
                return cli_fail(c, EXIT_USAGE, "two --dump write %s", eq + 1);
        }
        r->n_taps++;
    }
    r->logits.path = c->o.logits;
    return EXIT_FINE;
}

static bool row_open(const Run *r, RowFile *f) {
    if (!f->path)
        return true;
    f->f = fopen(f->path, "wb");
    if (!f->f)
        cli_fail(r->c, EXIT_SYSTEM, "cannot write %s: %s", f->path, strerror(errno));
    return f->f != NULL;
}

static bool row_write(Run *r, RowFile *f, const float *rows, int64_t n, int64_t width) {
    if (!f->f || fwrite(rows, sizeof(float) * (size_t)width, (size_t)n, f->f) == (size_t)n)
        return true;
    r->write_failed = true;
    cli_fail(r->c, EXIT_SYSTEM, "cannot write %s: %s", f->path, strerror(errno));
    return false;
}

static bool row_close(const Run *r, RowFile *f) {
    bool ok = !f->f || fclose(f->f) == 0;
    f->f = NULL;
    if (!ok)
        cli_fail(r->c, EXIT_SYSTEM, "cannot write %s: %s", f->path, strerror(errno));
    return ok;
}

static bool open_outputs(Run *r) {
    bool ok = row_open(r, &r->logits);
    for (int i = 0; i < r->n_taps && ok; i++)
        ok = row_open(r, &r->tap_files[i]);
    return ok;
}

static bool close_outputs(Run *r) {
    bool ok = row_close(r, &r->logits);
    for (int i = 0; i < r->n_taps; i++)
        ok &= row_close(r, &r->tap_files[i]);
    return ok;
}

/* ==== Callbacks of the generation ==== */

static void on_progress(void *ctx, int64_t done, int64_t total) {
    progress_set(((Run *)ctx)->progress, done, total);
}

static bool on_rows(void *ctx, int64_t pos, int64_t n, const float *logits, float *const *taps) {
    Run *r = ctx;
    (void)pos;
    bool ok = row_write(r, &r->logits, logits, n, session_vocab(r->s));
    for (int i = 0; taps && i < r->n_taps && ok; i++)
        ok = row_write(r, &r->tap_files[i], taps[i], n, session_tap_width(r->s, i));
    return ok;
}

static bool on_token(void *ctx, int32_t id, Str text) {
    Run *r = ctx;
    progress_end(r->progress);
    r->progress = NULL;
    if (id >= 0)
        vec_push(r->c->arena, &r->made, id);
    if (r->c->o.json) {
        buf_bytes(&r->text, text.s, text.n);
        return true;
    }
    if (r->show_ids)
        printf("%s%d", r->made.n > 1 ? " " : "", id);
    else
        fwrite(text.s, 1, text.n, stdout);
    return cli_flush();
}

/* ==== Prompt ==== */

static int check_prompt_options(const Cli *c) {
    int n = (c->o.prompt != NULL) + (c->o.prompt_file != NULL) + (c->o.tokens_file != NULL);
    if (n > 1)
        return cli_fail(c, EXIT_USAGE, "give one of -p, -f and --tokens-file");
    if (n == 0 && isatty(STDIN_FILENO))
        return cli_fail(c, EXIT_USAGE, "no prompt: give -p TEXT, -f FILE or --tokens-file IDS, or pipe it in");
    return EXIT_FINE;
}

static bool read_ids(Run *r) {
    return cli_read_ids(r->c, r->c->o.tokens_file, &r->prompt) &&
           cli_check_ids(r->c, r->c->o.tokens_file, &r->prompt, session_vocab(r->s));
}

static bool read_text(Run *r, Buf *text) {
    Cli *c = r->c;
    const Tokenizer *t = session_tokenizer(r->s, true);
    if (!t)
        return false;
    if (c->o.prompt)
        buf_str(text, c->o.prompt);
    else if (!cli_read(c, c->o.prompt_file ? c->o.prompt_file : "-", text))
        return false;
    EncodeOptions e = {.add_bos = !c->o.no_bos, .parse_special = c->o.special};
    tokenizer_encode(t, c->arena, text->n ? text->s : "", text->n, e, &r->prompt);
    return true;
}

/* The ids; the text too where there is one. */
static bool read_prompt(Run *r, Buf *text) {
    if (!(r->c->o.tokens_file ? read_ids(r) : read_text(r, text)))
        return false;
    r->show_ids = !session_tokenizer(r->s, false);
    if (r->prompt.n == 0)
        diag_error(r->c->diag, NO_LOC, "the prompt is empty");
    return r->prompt.n > 0;
}

static void echo(const Run *r, const Buf *text) {
    if (r->c->o.json || !r->c->o.echo)
        return;
    const Tokenizer *t = session_tokenizer(r->s, false);
    if (!r->c->o.tokens_file)
        fwrite(text->s, 1, text->n, stdout);
    for (int i = 0; r->c->o.tokens_file && i < r->prompt.n; i++) {
        if (t)
            printf("%.*s", STR_FMT(tokenizer_piece(t, r->prompt.v[i], false)));
        else
            printf("%d ", r->prompt.v[i]);
    }
    cli_flush();
}

/* ==== After ==== */

static double rate(int64_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

static void print_stats(const Run *r, const GenerateStats *g) {
    int64_t fed = g->prompt_tokens - g->reused_tokens;
    fprintf(stderr, "prompt %lld tokens in %.2f s (%.1f tokens/s), ", (long long)fed, g->prompt_seconds,
            rate(fed, g->prompt_seconds));
    fprintf(stderr, "generated %lld in %.2f s (%.1f tokens/s), %s; ", (long long)g->new_tokens, g->decode_seconds,
            rate(g->steps, g->decode_seconds), stop_reason_text(g->reason));
    fprintf(stderr, "device %s", session_device_text(r->s));
    if (!session_gpu(r->s))
        fprintf(stderr, ", threads %d", session_threads(r->s));
    fputc('\n', stderr);
    cli_print_drafts(r->s, g);
}

static json_t *json_ids(const TokenList *l) {
    json_t *a = json_array();
    for (int i = 0; i < l->n; i++)
        json_array_append_new(a, json_integer(l->v[i]));
    return a;
}

static void print_json(const Run *r, const GenerateStats *g) {
    json_t *j = json_object();
    if (!r->show_ids)
        json_object_set_new(j, "text", json_bytes(r->text.s, r->text.n));
    json_object_set_new(j, "ids", json_ids(&r->made));
    json_object_set_new(j, "prompt_ids", json_ids(&r->prompt));
    json_object_set_new(j, "stopped", json_string(stop_reason_text(g->reason)));
    json_object_set_new(j, "device", json_string(session_device(r->s)));
    json_object_set_new(j, "device_text", json_string(session_device_text(r->s)));
    json_object_set_new(j, "threads", json_integer(session_threads(r->s)));
    json_t *t =
        json_pack("{s:I, s:f, s:f, s:I, s:f, s:f}", "prompt_tokens", (json_int_t)g->prompt_tokens, "prompt_seconds",
                  g->prompt_seconds, "prompt_tokens_per_second", rate(g->prompt_tokens, g->prompt_seconds),
                  "decode_steps", (json_int_t)g->steps, "decode_seconds", g->decode_seconds, "decode_tokens_per_second",
                  rate(g->steps, g->decode_seconds));
    json_object_set_new(j, "timings", t);
    if (session_drafts(r->s)->way)
        json_object_set_new(j, "drafts", cli_json_drafts(r->s, g));
    json_print(j, false);
}

static int report(Run *r, const GenerateStats *g) {
    bool closed = close_outputs(r);
    if (r->c->o.json)
        print_json(r, g);
    else if (r->made.n > 0)
        putchar('\n');
    cli_flush();
    if (g->reason == STOP_CANCELLED)
        fprintf(stderr, "interrupted\n");
    if (!r->c->o.quiet && g->reason != STOP_ERROR)
        print_stats(r, g);
    if (g->reason == STOP_CANCELLED)
        return EXIT_INTERRUPTED;
    if (g->reason == STOP_ERROR)
        return EXIT_INPUT;
    return closed && !r->write_failed ? EXIT_FINE : EXIT_SYSTEM;
}

/* Control tokens that end a reply of the text's chat: as a chat does, a text ends there, since a file may have no key
 * for them. Others are left out, as the end of a line that ends a base model's reply. */
static void find_ends(const Run *r, TokenList *stop) {
    const ChatFormat *f = &session_module(r->s)->chat;
    const Tokenizer *t = session_tokenizer(r->s, false);
    for (int i = 0; t && i < f->stop.n; i++) {
        const int32_t id = tokenizer_find(t, f->stop.v[i]);
        if (tokenizer_is_control(t, id))
            vec_push(r->c->arena, stop, id);
    }
}

static int run(Run *r) {
    Cli *c = r->c;
    int code = cli_session(c, 0, r->taps, r->n_taps, &r->s);
    if (code != EXIT_FINE)
        return code;
    Buf text = {0};
    bool ok = read_prompt(r, &text);
    if (ok)
        echo(r, &text);
    buf_free(&text);
    if (!ok)
        return EXIT_INPUT;
    if (!open_outputs(r)) {
        close_outputs(r);
        return EXIT_SYSTEM;
    }
    TokenList stop = {0};
    find_ends(r, &stop);
    GenerateOptions g = {.sample = cli_sampling(c, session_file(r->s)),
                         .max_tokens = c->o.count,
                         .stop = stop.v,
                         .n_stop = stop.n,
                         .ignore_stop = c->o.ignore_eos,
                         .cancel = &cli_interrupted,
                         .ctx = r,
                         .progress = on_progress,
                         .token = on_token,
                         .rows = c->o.logits || r->n_taps ? on_rows : NULL};
    cli_draft_generate(c, &g);
    GenerateStats stats;
    r->progress = progress_start(c, "prompt");
    generate(r->s, r->prompt.v, r->prompt.n, &g, c->diag, &stats);
    progress_end(r->progress);
    return report(r, &stats);
}

int cmd_run(Cli *c) {
    Run r = {.c = c};
    int code = check_prompt_options(c);
    if (code == EXIT_FINE)
        code = parse_dumps(&r);
    if (code != EXIT_FINE)
        return code;
    cli_catch_interrupt();
    code = run(&r);
    session_close(r.s);
    buf_free(&r.text);
    return code;
}
