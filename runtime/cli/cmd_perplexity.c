/* cmd_perplexity.c - lap perplexity: how well the model predicts a text.
 *
 * ppl = exp(mean of -ln p(token | the tokens before it in its window)). The windows are those of
 * llama.cpp's perplexity program, so that figures compare: the text is tokenised with the
 * beginning-of-sequence token in front; window w is tokens [w*n, (w+1)*n) with its first token replaced
 * by that token; predictions of the tokens after the n/2-th are scored. The error is that of the mean
 * taken as of independent tokens.
 */
#include "runtime/cli/cli.h"
#include "runtime/engine/clock.h"
#include <math.h>

typedef struct Score {
    Cli *c;
    Session *s;
    const int32_t *ids; /* of the window */
    int64_t n;          /* its length */
    const char *mode;   /* how it was scored, for the result */
    int64_t first;      /* the first row that is scored (it predicts token first + 1) */
    int64_t count;
    double sum, sum2; /* of -ln p and its square */
    bool bad;         /* logits that are no numbers */
} Score;

/* -ln p of token id by these logits. */
static double surprise(const float *logits, int vocab, int32_t id) {
    float top = logits[0];
    for (int i = 1; i < vocab; i++)
        top = logits[i] > top ? logits[i] : top;
    double sum = 0;
    for (int i = 0; i < vocab; i++)
        sum += (double)expf(logits[i] - top);
    return log(sum) - (double)(logits[id] - top);
}

static bool on_rows(void *ctx, int64_t pos, int64_t n, const float *logits, float *const *taps) {
    Score *s = ctx;
    (void)taps;
    int vocab = session_vocab(s->s);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = pos + i;
        if (row < s->first || row + 1 >= s->n)
            continue;
        double x = surprise(logits + i * vocab, vocab, s->ids[row + 1]);
        s->bad |= !isfinite(x);
        s->sum += x;
        s->sum2 += x * x;
        s->count++;
    }
    return !cli_interrupted && !s->bad;
}

static double ppl(const Score *s) {
    return exp(s->sum / (double)s->count);
}

/* One standard error of ppl. */
static double ppl_error(const Score *s) {
    if (s->count < 2)
        return 0;
    double mean = s->sum / (double)s->count;
    double variance = s->sum2 / (double)s->count - mean * mean;
    return variance > 0 ? sqrt(variance / (double)(s->count - 1)) * ppl(s) : 0;
}

/* Feeds ids [at, at + n) as a sequence of its own. bos >= 0 takes the place of the first. */
static StepResult score_window(Score *s, int32_t *ids, int64_t at, int32_t bos) {
    int32_t saved = ids[at];
    if (bos >= 0)
        ids[at] = bos;
    s->ids = ids + at;
    session_rewind(s->s, 0);
    /* Rows before the first scored one need no logits, and the last row predicts nothing. */
    FeedOptions quiet = {.ahead = s->n - 1 - s->first, .cancel = &cli_interrupted};
    FeedOptions scored = {.rows = on_rows, .ctx = s, .cancel = &cli_interrupted};
    StepResult r = s->first > 0 ? session_feed(s->s, s->ids, s->first, &quiet, NULL) : STEP_OK;
    if (r == STEP_OK)
        r = session_feed(s->s, s->ids + s->first, s->n - 1 - s->first, &scored, NULL);
    ids[at] = saved;
    return r;
}

static int print_result(const Score *s, int64_t windows, double seconds) {
    if (s->c->o.json) {
        json_print(json_pack("{s:f, s:f, s:s, s:I, s:I, s:I, s:f, s:f}", "perplexity", ppl(s), "error", ppl_error(s),
                             "mode", s->mode, "window", (json_int_t)s->n, "windows", (json_int_t)windows, "scored",
                             (json_int_t)s->count, "nll", s->sum / (double)s->count, "seconds", seconds),
                   false);
    } else {
        printf("perplexity %.4f +/- %.4f (%lld tokens scored, %lld %s of %lld, %s)\n", ppl(s), ppl_error(s),
               (long long)s->count, (long long)windows, windows == 1 ? "window" : "windows", (long long)s->n, s->mode);
    }
    return EXIT_FINE;
}

static int run_windows(Score *s, TokenList *ids, int32_t bos) {
    Cli *c = s->c;
    int64_t step = c->o.whole ? s->n : c->o.stride ? c->o.stride : s->n;
    int64_t windows = (ids->n - s->n) / step + 1;
    double start = clock_seconds();
    Progress *p = progress_start(c, "windows");
    StepResult r = STEP_OK;
    for (int64_t w = 0; w < windows && r == STEP_OK; w++) {
        r = score_window(s, ids->v, w * step, bos);
        progress_set(p, w + 1, windows);
        if (r == STEP_OK && c->o.verbose)
            fprintf(stderr, "window %lld of %lld: perplexity so far %.4f\n", (long long)w + 1, (long long)windows,
                    ppl(s));
    }
    progress_end(p);
    if (cli_interrupted) {
        fprintf(stderr, "interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (s->bad)
        diag_error(c->diag, NO_LOC, "the model gave logits that are no numbers (NaN or infinite)");
    return r == STEP_OK ? print_result(s, windows, clock_seconds() - start) : EXIT_INPUT;
}

/* The ids of the text with the beginning-of-sequence token in front; *bos -1 when the file asks for none. */
static bool read_ids(Cli *c, const Tokenizer *t, TokenList *ids, int32_t *bos) {
    Buf text = {0};
    bool ok = cli_read(c, c->o.text_file, &text);
    if (ok)
        tokenizer_encode(t, c->arena, text.n ? text.s : "", text.n, (EncodeOptions){.add_bos = true}, ids);
    buf_free(&text);
    *bos = ids->n > 0 && ids->v[0] == tokenizer_bos(t) ? ids->v[0] : -1;
    return ok;
}

/* The tokenizer alone tells how long the text is, before the session is made for that length. */
static bool tokenize(Cli *c, TokenList *ids, int32_t *bos) {
    Weights *w = weights_open(c->o.operand[0], c->diag);
    Tokenizer *t = w ? tokenizer_new(weights_file(w), c->diag) : NULL;
    bool ok = t && read_ids(c, t, ids, bos);
    if (t)
        tokenizer_free(t);
    if (w)
        weights_close(w);
    return ok;
}

static int choose_window(Score *s, const TokenList *ids) {
    const Options *o = &s->c->o;
    s->n = o->whole ? ids->n : o->window;
    if (o->whole && o->stride)
        return cli_fail(s->c, EXIT_USAGE, "--whole and --stride exclude each other");
    if (o->stride >= s->n)
        return cli_fail(s->c, EXIT_USAGE, "--stride must be below the window of %lld", (long long)s->n);
    if (ids->n < s->n || ids->n < 2) {
        diag_error(s->c->diag, NO_LOC, "%s has %d tokens, a window needs %lld (see --context)", o->text_file, ids->n,
                   (long long)(s->n > 2 ? s->n : 2));
        return EXIT_INPUT;
    }
    s->first = o->whole ? 0 : o->stride ? s->n - o->stride - 1 : s->n / 2;
    s->mode = o->whole ? "every token" : o->stride ? "stride" : "second halves";
    return EXIT_FINE;
}

int cmd_perplexity(Cli *c) {
    if (!c->o.text_file)
        return cli_fail(c, EXIT_USAGE, "give the text with --file FILE");
    cli_catch_interrupt();
    TokenList ids = {0};
    int32_t bos = -1;
    Score s = {.c = c};
    if (!tokenize(c, &ids, &bos))
        return EXIT_INPUT;
    int code = choose_window(&s, &ids);
    if (code != EXIT_FINE)
        return code;
    code = cli_session(c, s.n, NULL, 0, &s.s);
    for (int i = 0; i < ids.n && code == EXIT_FINE; i++)
        if (ids.v[i] >= session_vocab(s.s))
            code = cli_fail(c, EXIT_INPUT, "token %d is not in the model's vocabulary of %d", ids.v[i],
                            session_vocab(s.s));
    if (code == EXIT_FINE)
        code = run_windows(&s, &ids, bos);
    session_close(s.s);
    return code;
}
