/* session.c - feeding a model tokens, and going back. See session.h for the contract. */
#include "runtime/engine/session_int.h"
#include <stdlib.h>
#include <string.h>

/* ==== Reading ==== */

const ModelFile *session_file(const Session *s) {
    return weights_file(s->weights);
}

const Module *session_module(const Session *s) {
    return s->module;
}

const char *session_device(const Session *s) {
    return s->backend->name;
}

Gpu *session_gpu(const Session *s) {
    return s->backend->gpu(s->state);
}

bool session_can_sparse(const Session *s) {
    return !s->facet && sparse_possible(s->module);
}

const char *session_device_text(const Session *s) {
    return s->device;
}

const char *session_text_name(const Session *s) {
    return s->text.name;
}

int session_vocab(const Session *s) {
    return s->vocab;
}

int64_t session_chunk(const Session *s) {
    return s->o.chunk;
}

const char *session_chunk_why(const Session *s) {
    return s->chunk_why;
}

int64_t session_context(const Session *s) {
    return s->o.context;
}

const GpuRates *session_rates(const Session *s) {
    return s->facet ? NULL : &s->rates;
}

int64_t session_tap_width(const Session *s, int tap) {
    return s->tap_width[tap];
}

int64_t session_cache_bytes(const Session *s) {
    return s->backend->cache_bytes(s->state);
}

int session_threads(const Session *s) {
    return s->backend->threads(s->state);
}

uint64_t session_weight_bytes(const Session *s) {
    return weights_bytes(s->weights);
}

const Tokenizer *session_tokenizer(Session *s, bool report) {
    if (s->tokenizer)
        return s->tokenizer;
    Diag *scratch = report ? s->diag : diag_new();
    s->tokenizer = tokenizer_new(weights_file(s->weights), scratch);
    if (!report)
        diag_free(scratch);
    return s->tokenizer;
}

int64_t session_length(const Session *s) {
    return s->now->length;
}

const int32_t *session_tokens(const Session *s) {
    return s->now->tokens;
}

/* ==== Sequences ==== */

int session_sequences(const Session *s) {
    return s->o.sequences;
}

int32_t session_slot(const Session *s) {
    return (int32_t)(s->now - s->sequences);
}

void session_turn(Session *s, int sequence) {
    if (sequence < 0 || sequence >= s->o.sequences)
        ICE("sequence %d of %d", sequence, s->o.sequences);
    s->now = &s->sequences[sequence];
}

/* ==== Stepping ==== */

int64_t session_step_rows(const Session *s) {
    return s->step->slab_wanted;
}

bool session_fits(Session *s, int64_t n) {
    if (s->now->length + n > s->o.context) {
        diag_error(s->diag, NO_LOC, "%lld tokens do not fit in a context of %lld (see --context)",
                   (long long)(s->now->length + n), (long long)s->o.context);
        return false;
    }
    return true;
}

int64_t session_next_rows(const Session *s, int64_t n, int64_t most) {
    const int64_t now = n < most ? n : most, over = (s->now->length + now) % s->grid;
    return now < n && over < now ? now - over : now;
}

static bool check_call(Session *s, const StepCall *c) {
    if (c->n < 1 || c->n > s->o.chunk || c->n_rows < 1 || c->n_rows > c->n || c->n_rows > session_step_rows(s))
        ICE("step of %lld rows, %lld wanted", (long long)c->n, (long long)c->n_rows);
    return session_fits(s, c->n);
}

void session_call_rows(const Session *s, const StepCall *c, StepInputs *in, EvalCall *call) {
    *in = (StepInputs){{{"tokens", c->tokens}, {"pos", s->pos}, {"rows", c->rows}}};
    *call = (EvalCall){.graph = s->step,
                       .T = c->n,
                       .R = c->n_rows,
                       .ahead = c->ahead,
                       .slots = s->slots,
                       .inputs = in->v,
                       .n_inputs = COUNTOF(in->v),
                       .cancel = c->cancel};
}

bool session_make_call(Session *s, const StepCall *c, StepInputs *in, EvalCall *call) {
    if (!check_call(s, c))
        return false;
    for (int64_t i = 0; i < c->n; i++) {
        s->pos[i] = (int32_t)(s->now->length + i);
        s->slots[i] = session_slot(s);
    }
    session_call_rows(s, c, in, call);
    /* A failed call may have stored some of its rows: they count as overwritten in a ring. */
    const int64_t end = s->now->length + c->n;
    s->now->high = end > s->now->high ? end : s->now->high;
    return true;
}

StepResult session_called(Session *s, const StepCall *c, bool ok, int errors) {
    if (!ok) {
        session_rewind(s, s->now->length);
        return diag_errors(s->diag) > errors ? STEP_ERROR : STEP_CANCELLED;
    }
    memmove(s->now->tokens + s->now->length, c->tokens, (size_t)c->n * sizeof *c->tokens);
    s->now->length += c->n;
    return STEP_OK;
}

StepResult session_step(Session *s, const StepCall *c) {
    const int errors = diag_errors(s->diag);
    StepInputs in;
    EvalCall call;
    if (!session_make_call(s, c, &in, &call))
        return STEP_ERROR;
    EvalOutput out[MAX_TAPS + 1] = {{"logits", c->logits}};
    call.outputs = out;
    call.n_outputs = 1;
    for (int i = 0; c->taps && i < s->o.n_taps; i++)
        out[call.n_outputs++] = (EvalOutput){s->taps[i], c->taps[i]};
    draft_outputs(s, &call, out);
    const bool ok = s->backend->call(s->state, &call, s->diag) && draft_saw(s, c);
    return session_called(s, c, ok, errors);
}

StepResult session_step_all(Session *s, const int32_t *tokens, int64_t n, float *logits, const volatile bool *cancel) {
    const StepCall c = {.tokens = tokens, .n = n, .rows = s->rows, .n_rows = n, .logits = logits, .cancel = cancel};
    return session_step(s, &c);
}

static float *float_rows(int64_t rows, int64_t width) {
    if (rows <= 0 || width <= 0 || width > INT64_MAX / 8 / rows)
        return NULL;
    return malloc((size_t)(rows * width) * sizeof(float));
}

/* Buffers of a feed that wants every row. */
typedef struct FeedRows {
    float *logits;
    float *taps[MAX_TAPS];
} FeedRows;

static void feed_rows_free(const Session *s, FeedRows *r) {
    free(r->logits);
    for (int i = 0; i < s->o.n_taps; i++)
        free(r->taps[i]);
}

static bool feed_rows_new(const Session *s, FeedRows *r, int64_t rows) {
    *r = (FeedRows){.logits = float_rows(rows, s->vocab)};
    bool ok = r->logits != NULL;
    for (int i = 0; i < s->o.n_taps; i++) {
        r->taps[i] = float_rows(rows, s->tap_width[i]);
        ok &= r->taps[i] != NULL;
    }
    if (!ok) {
        diag_error(s->diag, NO_LOC, "out of memory for the results of %lld rows", (long long)rows);
        feed_rows_free(s, r);
    }
    return ok;
}

/* Feeds n tokens, in front of `ahead` more; r NULL: only the last row is computed, into last. */
static StepResult feed_chunk(Session *s, const int32_t *tokens, int64_t n, int64_t ahead, const FeedOptions *o,
                             FeedRows *r, float *last) {
    int32_t last_row = (int32_t)(n - 1);
    StepCall c = {.tokens = tokens, .n = n, .rows = &last_row, .n_rows = 1, .logits = last, .ahead = ahead};
    c.cancel = o->cancel;
    if (r) {
        c.rows = s->rows;
        c.n_rows = n;
        c.logits = r->logits;
        c.taps = r->taps;
    }
    int64_t pos = s->now->length;
    StepResult result = session_step(s, &c);
    if (result != STEP_OK || !r)
        return result;
    if (last)
        memcpy(last, r->logits + (n - 1) * s->vocab, (size_t)s->vocab * sizeof *last);
    return o->rows(o->ctx, pos, n, r->logits, r->taps) ? STEP_OK : STEP_STOPPED;
}

StepResult session_feed(Session *s, const int32_t *tokens, int64_t n, const FeedOptions *o, float *last) {
    int64_t most = session_rows_a_call(s, o->rows != NULL);
    FeedRows rows;
    if (o->rows && !feed_rows_new(s, &rows, most < n ? most : n))
        return STEP_ERROR;
    StepResult result = STEP_OK;
    for (int64_t done = 0; done < n && result == STEP_OK;) {
        int64_t now = session_next_rows(s, n - done, most);
        result = feed_chunk(s, tokens + done, now, n - done - now + o->ahead, o, o->rows ? &rows : NULL, last);
        done += now;
        if (result == STEP_OK && o->progress)
            o->progress(o->ctx, done, n);
    }
    if (o->rows)
        feed_rows_free(s, &rows);
    return result;
}

/* ==== Going back ==== */

/* True when every cache still holds all that a row at pos may look at. */
static bool caches_reach(const Session *s, int64_t pos) {
    for (int i = 0; i < s->module->caches.n; i++) {
        const KvLayout *l = &s->module->caches.v[i].layout;
        if (!l->ring)
            continue;
        int64_t needed = l->lookback < 0 || l->lookback > pos ? 0 : pos - l->lookback;
        if (kv_oldest(l, s->now->high - 1) > needed)
            return false;
    }
    return true;
}

int64_t session_rewind(Session *s, int64_t pos) {
    if (s->now->high > pos && !caches_reach(s, pos))
        pos = 0;
    if (pos == 0)
        s->now->high = 0;
    s->backend->truncate(s->state, session_slot(s), pos);
    s->now->length = pos < s->now->length ? pos : s->now->length;
    return s->now->length;
}

int64_t session_reuse(Session *s, const int32_t *tokens, int64_t n) {
    int64_t same = 0;
    while (same < s->now->length && same < n - 1 && s->now->tokens[same] == tokens[same])
        same++;
    return same < s->now->length ? session_rewind(s, same) : same;
}
