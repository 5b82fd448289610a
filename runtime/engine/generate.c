/* generate.c - the generation loop. See generate.h. */
#include "runtime/engine/generate.h"
#include "runtime/engine/clock.h"
#include <math.h>
#include <stdlib.h>

const char *stop_reason_text(StopReason r) {
    switch (r) {
    case STOP_COUNT: return "token count reached";
    case STOP_TOKEN: return "end of text";
    case STOP_CONTEXT: return "context full";
    case STOP_CANCELLED: return "interrupted";
    case STOP_CALLER: return "output ended";
    case STOP_ERROR: return "error";
    }
    return "";
}

typedef struct Loop {
    Session *s;
    const GenerateOptions *o;
    Diag *diag;
    GenerateStats *stats;
    Sampler *sampler;           /* NULL: on_device */
    const Tokenizer *tokenizer; /* NULL: ids only */
    Detokenizer detok;
    Buf text;
    float *logits;  /* [vocab] of the newest row */
    bool on_device; /* tokens are picked there: no sampler, no logits */
} Loop;

static StopReason stop_of(StepResult r) {
    return r == STEP_CANCELLED ? STOP_CANCELLED : r == STEP_STOPPED ? STOP_CALLER : STOP_ERROR;
}

static bool cancelled(const Loop *l) {
    return l->o->cancel && *l->o->cancel;
}

static bool is_stop(const Loop *l, int32_t id) {
    if (l->tokenizer && tokenizer_is_eos(l->tokenizer, id))
        return true;
    for (int i = 0; i < l->o->n_stop; i++)
        if (l->o->stop[i] == id)
            return true;
    return false;
}

/* Hands over one token with the text it completes. */
static bool deliver(Loop *l, int32_t id) {
    l->text.n = 0;
    if (l->tokenizer && id >= 0)
        detok_push(&l->detok, id, &l->text);
    else if (l->tokenizer)
        detok_end(&l->detok, &l->text);
    if (id < 0 && l->text.n == 0)
        return true;
    return l->o->token(l->o->ctx, id, (Str){l->text.n ? l->text.s : "", l->text.n});
}

static bool pick(Loop *l, int32_t *id) {
    if (l->on_device && session_pick(l->s, id) != STEP_OK)
        return false;
    if (!l->on_device)
        *id = sampler_pick(l->sampler, l->logits);
    if (*id < 0 || *id >= session_vocab(l->s) || (!l->on_device && !isfinite(l->logits[*id]))) {
        diag_error(l->diag, NO_LOC, "the model gave no usable logits at position %lld (NaN or infinite)",
                   (long long)session_length(l->s) - 1);
        return false;
    }
    return true;
}

/* Feeds one generated token. */
static StepResult step_one(Loop *l, int32_t id) {
    int32_t row = 0;
    if (l->on_device) {
        session_pick_feed(l->s);
        l->stats->steps++;
        return STEP_OK;
    }
    StepCall c = {.tokens = &id, .n = 1, .rows = &row, .n_rows = 1, .logits = l->logits, .cancel = l->o->cancel};
    StepResult r = session_step(l->s, &c);
    if (r != STEP_OK)
        return r;
    l->stats->steps++;
    if (l->o->rows && !l->o->rows(l->o->ctx, session_length(l->s) - 1, 1, l->logits, NULL))
        return STEP_STOPPED;
    return STEP_OK;
}

static StopReason decode(Loop *l) {
    for (;;) {
        if (l->o->max_tokens >= 0 && l->stats->new_tokens >= l->o->max_tokens)
            return STOP_COUNT;
        if (cancelled(l))
            return STOP_CANCELLED;
        int32_t id;
        if (!pick(l, &id))
            return STOP_ERROR;
        if (is_stop(l, id))
            return STOP_TOKEN;
        if (l->sampler)
            sampler_accept(l->sampler, id);
        l->stats->new_tokens++;
        if (!deliver(l, id))
            return STOP_CALLER;
        if (l->o->max_tokens >= 0 && l->stats->new_tokens >= l->o->max_tokens)
            return STOP_COUNT; /* the last token needs no logits after it */
        if (session_length(l->s) >= session_context(l->s))
            return STOP_CONTEXT;
        StepResult r = step_one(l, id);
        if (r != STEP_OK)
            return stop_of(r);
    }
}

/* The prompt, of which `kept` tokens are there. */
static StepResult read_prompt(Loop *l, const int32_t *prompt, int64_t n, int64_t kept) {
    const FeedOptions feed = {.progress = l->o->progress, .rows = l->o->rows, .ctx = l->o->ctx, .cancel = l->o->cancel};
    const int64_t most = l->o->max_tokens < 0 ? INT64_MAX : l->o->max_tokens;
    if (l->on_device)
        return session_pick_start(l->s, prompt + kept, n - kept, &feed, &l->o->sample, most);
    for (int64_t i = 0; i < n; i++)
        sampler_accept(l->sampler, prompt[i]);
    return session_feed(l->s, prompt + kept, n - kept, &feed, l->logits);
}

static StopReason run(Loop *l, const int32_t *prompt, int64_t n) {
    int64_t kept = session_reuse(l->s, prompt, n);
    l->stats->reused_tokens = kept;
    double start = clock_seconds();
    StepResult r = read_prompt(l, prompt, n, kept);
    double prefilled = clock_seconds();
    l->stats->prompt_seconds = prefilled - start;
    if (r != STEP_OK) {
        l->stats->prompt_tokens = session_length(l->s); /* as far as it came */
        return stop_of(r);
    }
    StopReason reason = decode(l);
    l->stats->decode_seconds = clock_seconds() - prefilled;
    if (l->on_device)
        session_pick_end(l->s);
    if (reason != STOP_CALLER && reason != STOP_ERROR && !deliver(l, -1))
        reason = STOP_CALLER;
    return reason;
}

StopReason generate(Session *s, const int32_t *prompt, int64_t n, const GenerateOptions *o, Diag *diag,
                    GenerateStats *stats) {
    *stats = (GenerateStats){.prompt_tokens = n, .reason = STOP_ERROR};
    if (n > session_context(s)) {
        diag_error(diag, NO_LOC, "the prompt has %lld tokens, the context only %lld positions (see --context)",
                   (long long)n, (long long)session_context(s));
        return STOP_ERROR;
    }
    Loop l = {.s = s, .o = o, .diag = diag, .stats = stats, .tokenizer = session_tokenizer(s, false)};
    l.detok = (Detokenizer){.t = l.tokenizer, .show_control = o->show_control};
    l.on_device = session_picks(s) && !o->rows && o->max_tokens != 0;
    if (!l.on_device) {
        l.sampler = sampler_new(&o->sample, session_vocab(s));
        l.logits = malloc((size_t)session_vocab(s) * sizeof *l.logits);
    }
    if (l.on_device || l.logits)
        stats->reason = run(&l, prompt, n);
    else
        diag_error(diag, NO_LOC, "out of memory for the logits of one row");
    free(l.logits);
    sampler_free(l.sampler);
    buf_free(&l.text);
    return stats->reason;
}
