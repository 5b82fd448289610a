/* bench_curve.c - lap bench --contexts: how the speeds of prompt and decode fall as the context grows.
 *
 * A prompt of each length from position 0, and decoding behind it, as lap bench has them for one length. Where prompts
 * can be attended to sparse they are measured both ways, each with a session of its own; decoding is the same. Where
 * sparse then fails, what was measured is shown all the same, and why; that is an error if --sparse on asked for it, or
 * if it failed in running.
 */
#include "runtime/cli/bench_int.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_CONTEXT = 1 << 20 };

/* --contexts: ascending; false after a usage error. */
static bool read_contexts(Bench *b, Curve *k) {
    const char *at = b->c->o.contexts;
    int64_t last = 0;
    for (bool more = true; more;) {
        char *end;
        const long long n = strtoll(at, &end, 10);
        if (end == at || n <= last || n > MOST_CONTEXT || (*end && *end != ',') || k->n == MOST_CONTEXTS) {
            cli_fail(b->c, EXIT_USAGE, "--contexts wants at most %d numbers from 1 to %d, the least first, as %s",
                     MOST_CONTEXTS, MOST_CONTEXT, "4096,32768");
            return false;
        }
        k->at[k->n++].context = last = n;
        more = *end == ',';
        at = end + 1;
    }
    return true;
}

static int check_options(const Bench *b) {
    static const struct {
        OptionId id;
        const char *name;
    } others[] = {{OPT_pp, "--pp"},       {OPT_bench_tokens, "--tokens-file"},
                  {OPT_depth, "--depth"}, {OPT_row_counts, "--rows"},
                  {OPT_draft, "--draft"}, {OPT_draft_method, "--draft-method"}};
    for (size_t i = 0; i < COUNTOF(others); i++)
        if (b->c->o.given[others[i].id])
            return cli_fail(b->c, EXIT_USAGE, "--contexts and %s exclude each other", others[i].name);
    return EXIT_FINE;
}

/* ==== Measuring ==== */

/* The prompts, the same for both ways: ids of --file, over and over where it is shorter, or spread over the vocabulary.
 * What sparse attention keeps depends on the text; nothing else does. */
static int read_prompt(Bench *b, int64_t n) {
    if (b->ids)
        return EXIT_FINE;
    if (!b->c->o.bench_file) {
        b->ids = measure_ids(b->c, b->s, n);
        return EXIT_FINE;
    }
    const Tokenizer *t = session_tokenizer(b->s, true);
    if (!t)
        return EXIT_INPUT;
    Buf text = {0};
    TokenList ids = {0};
    if (!cli_read(b->c, b->c->o.bench_file, &text))
        return EXIT_INPUT;
    tokenizer_encode(t, b->c->arena, text.n ? text.s : "", text.n, (EncodeOptions){.add_bos = true}, &ids);
    buf_free(&text);
    if (ids.n == 0) {
        diag_error(b->c->diag, NO_LOC, "%s holds no text", b->c->o.bench_file);
        return EXIT_INPUT;
    }
    b->ids = arena_array(b->c->arena, (size_t)n, sizeof *b->ids);
    for (int64_t i = 0; i < n; i++) {
        b->ids[i] = ids.v[i % ids.n];
        if (b->ids[i] >= session_vocab(b->s))
            return cli_fail(b->c, EXIT_INPUT, "token %d is not in the model's vocabulary of %d", b->ids[i],
                            session_vocab(b->s));
    }
    return EXIT_FINE;
}

/* Opens a session, measures every length, closes it. */
static int measure_way(Bench *b, Curve *k, const char *sparse) {
    Options *o = &b->c->o;
    const int64_t longest = k->at[k->n - 1].context;
    if (!o->facet) /* a bundle has its way already */
        o->sparse = sparse;
    const bool first = strcmp(sparse, "off") == 0;
    int code = cli_session(b->c, longest + o->tg, NULL, 0, &b->s);
    if (code != EXIT_FINE)
        return code;
    code = read_prompt(b, longest);
    b->gpu = session_gpu(b->s);
    b->repeat = o->repeat ? o->repeat : b->gpu ? GPU_REPEAT : CPU_REPEAT;
    b->logits = arena_array(b->c->arena, (size_t)session_vocab(b->s), sizeof *b->logits);
    StepResult r = STEP_OK;
    for (int i = 0; i < k->n && r == STEP_OK && code == EXIT_FINE; i++) {
        CurvePoint *p = &k->at[i];
        b->tokens = b->depth = p->context;
        r = bench_whole(b, i == 0, first);
        if (r != STEP_OK)
            continue;
        *(first ? &p->dense : &p->sparse) = (double)p->context / b->pp;
        if (first)
            p->decode = (double)o->tg / b->tg;
    }
    if (first) {
        k->text = arena_strdup(b->c->arena, session_text_name(b->s));
        k->device = arena_strdup(b->c->arena, session_device_text(b->s));
        k->threads = session_threads(b->s);
        k->can_sparse = session_can_sparse(b->s);
    }
    if (cli_interrupted) {
        fprintf(stderr, "interrupted\n");
        return EXIT_INTERRUPTED;
    }
    return code != EXIT_FINE ? code : r == STEP_OK ? EXIT_FINE : EXIT_INPUT;
}

/* ==== Results ==== */

static void print_curve(const Bench *b, const Curve *k) {
    printf("%s: %s on %s, %d thread%s, median of %lld\n\n%9s  %15s", b->c->o.operand[0], k->text, k->device, k->threads,
           k->threads == 1 ? "" : "s", (long long)b->repeat, "context", "prompt tokens/s");
    printf(k->sparse ? "  %15s  %15s\n" : "  %15s\n", k->sparse ? "sparse" : "decode tokens/s", "decode tokens/s");
    for (int i = 0; i < k->n; i++) {
        const CurvePoint *p = &k->at[i];
        printf("%9lld  %15.2f", (long long)p->context, p->dense);
        if (k->sparse)
            printf("  %15.2f", p->sparse);
        printf("  %15.2f\n", p->decode);
    }
}

static void print_curve_json(const Bench *b, const Curve *k) {
    json_t *all = json_array();
    for (int i = 0; i < k->n; i++) {
        const CurvePoint *p = &k->at[i];
        json_array_append_new(all, json_pack("{s:I, s:f, s:o, s:f}", "context", (json_int_t)p->context,
                                             "prompt_tokens_per_second", p->dense, "sparse_prompt_tokens_per_second",
                                             k->sparse ? json_real(p->sparse) : json_null(), "decode_tokens_per_second",
                                             p->decode));
    }
    json_print(json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:o, s:s?}", "weights", b->c->o.operand[0], "model", k->text,
                         "device", k->device, "threads", k->threads, "runs", (json_int_t)b->repeat, "decode_tokens",
                         (json_int_t)b->c->o.tg, "contexts", all, "sparse_left_out", k->left_out),
               true);
}

/* ==== The command ==== */

/* The sparse way; where that fails, k->left_out says why. */
static int measure_sparse(Bench *b, Curve *k, bool asked) {
    session_close(b->s);
    b->s = NULL;
    cli_report(b->c); /* so that what is said from now on is of this way */
    const int code = measure_way(b, k, "on");
    if (code == EXIT_FINE || code == EXIT_INTERRUPTED)
        return code;
    char *text = diag_text(b->c->diag);
    k->sparse = false;
    k->left_out = arena_strdup(b->c->arena, text);
    free(text);
    if (asked || b->s)
        return code;
    diag_clear(b->c->diag);
    fprintf(stderr, "lap bench: no sparse column, as prompts cannot be attended to so here:\n%s", k->left_out);
    return EXIT_FINE;
}

int bench_curve(Bench *b) {
    const SparseUse use = cli_sparse(b->c);
    Curve k = {0};
    int code = check_options(b);
    if (code != EXIT_FINE || !read_contexts(b, &k))
        return EXIT_USAGE;
    code = measure_way(b, &k, "off");
    k.sparse = use == SPARSE_ON || (use == SPARSE_AUTO && k.can_sparse);
    if (code == EXIT_FINE && k.sparse)
        code = measure_sparse(b, &k, use == SPARSE_ON);
    if (code != EXIT_FINE && !k.left_out)
        return code;
    if (b->c->o.json)
        print_curve_json(b, &k);
    else
        print_curve(b, &k);
    const int drawn = b->c->o.svg ? bench_draw(b, &k) : EXIT_FINE;
    return code != EXIT_FINE ? code : drawn;
}
