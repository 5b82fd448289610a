/* generate.c - the generation loop. See generate.h. */
#include "runtime/engine/clock.h"
#include "runtime/engine/generate_int.h"
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

StopReason loop_stop(StepResult r) {
    return r == STEP_CANCELLED ? STOP_CANCELLED : r == STEP_STOPPED ? STOP_CALLER : STOP_ERROR;
}

bool loop_cancelled(const Loop *l) {
    return l->o->cancel && *l->o->cancel;
}

static bool is_stop(const Loop *l, int32_t id) {
    if (l->o->ignore_stop)
        return false;
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

static bool unusable(const Loop *l, int64_t pos) {
    diag_error(l->diag, NO_LOC, "the model gave no usable logits at position %lld (NaN or infinite)", (long long)pos);
    return false;
}

bool loop_pick(Loop *l, const float *logits, int64_t pos, int32_t *id) {
    *id = sampler_pick(l->sampler, logits);
    return (*id >= 0 && *id < session_vocab(l->s) && isfinite(logits[*id])) || unusable(l, pos);
}

bool loop_picked(const Loop *l, int64_t pos, int32_t id) {
    return (id >= 0 && id < session_vocab(l->s)) || unusable(l, pos);
}

bool loop_pick_next(Loop *l, int32_t *id) {
    const int64_t pos = session_length(l->s) - 1;
    if (!l->on_device)
        return loop_pick(l, l->logits, pos, id);
    return session_pick(l->s, id) == STEP_OK && loop_picked(l, pos, *id);
}

bool loop_take(Loop *l, int32_t id, StopReason *stop) {
    if (is_stop(l, id)) {
        *stop = STOP_TOKEN;
        return false;
    }
    if (l->sampler)
        sampler_accept(l->sampler, id);
    l->stats->new_tokens++;
    *stop = STOP_CALLER;
    if (!deliver(l, id))
        return false;
    *stop = STOP_COUNT; /* the last token needs no logits after it */
    return l->o->max_tokens < 0 || l->stats->new_tokens < l->o->max_tokens;
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

bool loop_goes_on(Loop *l, int32_t newest, StopReason *stop) {
    *stop = STOP_CANCELLED;
    if (loop_cancelled(l) || !loop_take(l, newest, stop))
        return false;
    *stop = STOP_CONTEXT;
    return session_length(l->s) < session_context(l->s);
}

static StopReason decode(Loop *l) {
    for (;;) {
        int32_t id;
        StopReason stop;
        if (!loop_pick_next(l, &id))
            return STOP_ERROR;
        if (!loop_goes_on(l, id, &stop))
            return stop;
        StepResult r = step_one(l, id);
        if (r != STEP_OK)
            return loop_stop(r);
    }
}

/* The prompt, of which `kept` tokens are there. */
static StepResult feed_prompt(Loop *l, const int32_t *prompt, int64_t n, int64_t kept, int64_t picks) {
    const FeedOptions feed = {.progress = l->o->progress, .rows = l->o->rows, .ctx = l->o->ctx, .cancel = l->o->cancel};
    if (l->on_device)
        return session_pick_start(l->s, prompt + kept, n - kept, &feed, &l->o->sample, picks);
    for (int64_t i = 0; i < n; i++)
        sampler_accept(l->sampler, prompt[i]);
    return session_feed(l->s, prompt + kept, n - kept, &feed, l->logits);
}

StepResult loop_read_prompt(Loop *l, const int32_t *prompt, int64_t n, int64_t picks) {
    const int64_t kept = session_reuse(l->s, prompt, n);
    const double start = clock_seconds();
    const StepResult r = feed_prompt(l, prompt, n, kept, picks);
    l->stats->reused_tokens = kept;
    l->stats->prompt_seconds = clock_seconds() - start;
    if (r != STEP_OK)
        l->stats->prompt_tokens = session_length(l->s); /* as far as it came */
    return r;
}

StopReason loop_end(Loop *l, StopReason reason) {
    const bool more = reason != STOP_CALLER && reason != STOP_ERROR;
    return more && !deliver(l, -1) ? STOP_CALLER : reason;
}

bool loop_open(Loop *l, Session *s, int64_t prompt, const GenerateOptions *o, Diag *diag, GenerateStats *stats) {
    *stats = (GenerateStats){.prompt_tokens = prompt, .reason = STOP_ERROR};
    *l = (Loop){.s = s, .o = o, .diag = diag, .stats = stats, .tokenizer = session_tokenizer(s, false)};
    if (prompt > session_context(s)) {
        diag_error(diag, NO_LOC, "the prompt has %lld tokens, the context only %lld positions (see --context)",
                   (long long)prompt, (long long)session_context(s));
        return false;
    }
    l->detok = (Detokenizer){.t = l->tokenizer, .show_control = o->show_control};
    l->on_device = (session_drafts(s)->way ? session_checks(s) : session_picks(s)) && !o->rows && o->max_tokens != 0;
    if (!l->on_device)
        l->sampler = sampler_new(&o->sample, session_vocab(s));
    return true;
}

void loop_close(Loop *l) {
    sampler_free(l->sampler);
    buf_free(&l->text);
}

static StopReason run(Loop *l, const int32_t *prompt, int64_t n) {
    const int64_t all = l->o->max_tokens < 0 ? INT64_MAX : l->o->max_tokens;
    const int64_t picks = session_drafts(l->s)->way ? 1 : all; /* the others are picked when they are checked */
    const StepResult r = loop_read_prompt(l, prompt, n, picks);
    if (r != STEP_OK)
        return loop_stop(r);
    const double start = clock_seconds();
    StopReason reason = STOP_COUNT;
    if (l->o->max_tokens != 0)
        reason = session_drafts(l->s)->way ? speculate(l) : decode(l);
    l->stats->decode_seconds = clock_seconds() - start;
    if (l->on_device)
        session_pick_end(l->s);
    return loop_end(l, reason);
}

StopReason generate(Session *s, const int32_t *prompt, int64_t n, const GenerateOptions *o, Diag *diag,
                    GenerateStats *stats) {
    const int rows = session_drafts(s)->most + 1;
    Loop l;
    if (!loop_open(&l, s, n, o, diag, stats))
        return STOP_ERROR;
    if (!l.on_device)
        l.logits = malloc((size_t)session_vocab(s) * (size_t)rows * sizeof *l.logits);
    if (l.on_device || l.logits)
        stats->reason = run(&l, prompt, n);
    else
        diag_error(diag, NO_LOC, "out of memory for the logits of %d rows", rows);
    free(l.logits);
    loop_close(&l);
    return stats->reason;
}
