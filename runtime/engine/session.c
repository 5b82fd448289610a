/* session.c - opening a model and feeding it tokens. See session.h for the contract. */
#include "runtime/engine/session.h"
#include "passes/passes.h"
#include "runtime/engine/modeltext.h"
#include <stdlib.h>
#include <string.h>

/* Bound of the logits buffer when every row is wanted. */
#define ALL_ROWS_BYTES ((int64_t)64 << 20)

struct Session {
    SessionOptions o;
    Diag *diag;
    Arena *arena;
    Weights *weights;
    TextSource text;
    Module *module;
    const Graph *step;
    const void **data; /* [weights] bytes as stored */
    const Backend *backend;
    void *state;
    Tokenizer *tokenizer;
    int vocab;
    int64_t tap_width[MAX_TAPS];
    int32_t *tokens; /* [context] those stored */
    int32_t *pos;    /* [chunk] scratch */
    int32_t *rows;   /* [chunk] 0, 1, 2, .. */
    int64_t length;
    int64_t high; /* positions stored since position 0 last was: what rings may have overwritten */
};

/* ==== Opening ==== */

/* Every tap asked for must exist before passes drop what is not wanted. */
static bool check_taps(const Session *s) {
    bool ok = true;
    for (int i = 0; i < s->o.n_taps; i++) {
        const char *name = s->o.taps[i];
        if (ir_find_output(s->step, OUT_TAP, name))
            continue;
        ok = false;
        Nearest near = nearest_new((Str){name, strlen(name)});
        Buf all = {0};
        for (int k = 0; k < s->step->outputs.n; k++) {
            const Output *out = &s->step->outputs.v[k];
            if (out->kind != OUT_TAP)
                continue;
            nearest_try(&near, out->name);
            buf_printf(&all, "%s%s", all.n ? ", " : "", out->name);
        }
        diag_error(s->diag, NO_LOC, "%s has no tap \"%s\"", s->text.name, name);
        if (nearest_best(&near))
            diag_note(s->diag, NO_LOC, "did you mean \"%s\"?", nearest_best(&near));
        diag_note(s->diag, NO_LOC, "taps: %s", all.n ? all.s : "none");
        buf_free(&all);
    }
    return ok;
}

/* The weights' bytes in the order of the module. */
static bool bind_data(Session *s) {
    const ModelFile *file = weights_file(s->weights);
    s->data = arena_array(s->arena, (size_t)s->module->weights.n + 1, sizeof *s->data);
    for (int i = 0; i < s->module->weights.n; i++) {
        const Weight *w = &s->module->weights.v[i];
        const TensorInfo *t = w->from ? NULL : modelfile_tensor(file, w->name);
        s->data[i] = t ? t->data : NULL;
        if (!s->data[i]) {
            diag_error(s->diag, w->loc, "no data for weight \"%s\" in %s", w->name, file->path);
            return false;
        }
    }
    return true;
}

static bool run_pipeline(Session *s) {
    PipelineOptions p = {.pass = pass_options_default()};
    p.pass.context = s->o.context;
    p.pass.chunk = s->o.chunk;
    p.pass.all_taps = false;
    p.pass.taps = s->o.taps;
    p.pass.n_taps = s->o.n_taps;
    p.verify_each = s->o.verify_each;
    p.data = s->data;
    p.out = stderr;
    return pipeline_run(s->module, &p);
}

static bool compile(Session *s) {
    const ModelFile *file = weights_file(s->weights);
    if (!text_choose(s->arena, s->diag, s->o.model, file, &s->text))
        return false;
    FeInput in = {.name = s->text.name,
                  .text = s->text.text,
                  .len = s->text.len,
                  .file = file,
                  .settings = s->o.settings,
                  .n_settings = s->o.n_settings};
    s->module = fe_compile(s->arena, s->diag, &in);
    if (!s->module)
        return false;
    s->step = module_graph(s->module, "step");
    if (!s->step) {
        diag_error(s->diag, NO_LOC, "%s has no entry \"step\": it cannot run by itself", s->text.name);
        return false;
    }
    if (!check_taps(s) || !bind_data(s) || !run_pipeline(s))
        return false;
    s->step = module_graph(s->module, "step");
    return true;
}

/* What calls need to know of the compiled graph. */
static bool read_outputs(Session *s) {
    NodeId logits = ir_find_output(s->step, OUT_EMIT, "logits");
    const Type *t = logits ? ir_type(s->step, logits) : NULL;
    if (!t || t->rank != 2 || t->dtype != DT_F32 || t->dim[0] != DIM_R || t->dim[1] > INT32_MAX) {
        diag_error(s->diag, s->step->loc, "entry \"step\" must emit logits of type f32[R, vocabulary]%s%s",
                   t ? ", not " : "", t ? type_text(s->arena, t) : "");
        return false;
    }
    s->vocab = (int)t->dim[1];
    for (int i = 0; i < s->o.n_taps; i++) {
        const Type *tap = ir_type(s->step, ir_find_output(s->step, OUT_TAP, s->o.taps[i]));
        if (!type_has_rows(tap) || tap->dim[0] != DIM_T) {
            diag_error(s->diag, s->step->loc, "tap \"%s\" has no row for each token: %s", s->o.taps[i],
                       type_text(s->arena, tap));
            return false;
        }
        s->tap_width[i] = type_row_elems(tap);
    }
    return true;
}

static bool open_backend(Session *s) {
    EvalOptions e = {.threads = s->o.threads, .slots = 1, .context = s->o.context};
    s->state = s->backend->open(s->module, s->data, &e);
    if (!s->state)
        return false;
    s->tokens = arena_array(s->arena, (size_t)s->o.context, sizeof *s->tokens);
    s->pos = arena_array(s->arena, (size_t)s->o.chunk, sizeof *s->pos);
    s->rows = arena_array(s->arena, (size_t)s->o.chunk, sizeof *s->rows);
    for (int64_t i = 0; i < s->o.chunk; i++)
        s->rows[i] = (int32_t)i;
    return true;
}

Session *session_open(const SessionOptions *o, Diag *diag) {
    if (o->n_taps > MAX_TAPS) {
        diag_error(diag, NO_LOC, "at most %d taps can be read at once, not %d", MAX_TAPS, o->n_taps);
        return NULL;
    }
    const Backend *backend = backend_find(o->device, diag);
    if (!backend)
        return NULL;
    Arena *arena = arena_new();
    Session *s = arena_alloc(arena, sizeof *s);
    *s = (Session){.o = *o, .diag = diag, .arena = arena, .backend = backend};
    if (s->o.chunk > s->o.context)
        s->o.chunk = s->o.context;
    s->weights = weights_open(o->weights, diag);
    if (!s->weights || !compile(s) || !read_outputs(s) || !open_backend(s)) {
        session_close(s);
        return NULL;
    }
    return s;
}

void session_close(Session *s) {
    if (!s)
        return;
    if (s->state)
        s->backend->close(s->state);
    if (s->tokenizer)
        tokenizer_free(s->tokenizer);
    if (s->weights)
        weights_close(s->weights);
    arena_free(s->arena);
}

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

const char *session_text_name(const Session *s) {
    return s->text.name;
}

int session_vocab(const Session *s) {
    return s->vocab;
}

int64_t session_context(const Session *s) {
    return s->o.context;
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
    return s->length;
}

const int32_t *session_tokens(const Session *s) {
    return s->tokens;
}

/* ==== Stepping ==== */

static bool check_call(Session *s, const StepCall *c) {
    if (c->n < 1 || c->n > s->o.chunk || c->n_rows < 1 || c->n_rows > c->n)
        ICE("step of %lld rows, %lld wanted", (long long)c->n, (long long)c->n_rows);
    if (s->length + c->n > s->o.context) {
        diag_error(s->diag, NO_LOC, "%lld tokens do not fit in a context of %lld (see --context)",
                   (long long)(s->length + c->n), (long long)s->o.context);
        return false;
    }
    return true;
}

StepResult session_step(Session *s, const StepCall *c) {
    if (!check_call(s, c))
        return STEP_ERROR;
    for (int64_t i = 0; i < c->n; i++)
        s->pos[i] = (int32_t)(s->length + i);
    EvalInput in[] = {{"tokens", c->tokens}, {"pos", s->pos}, {"rows", c->rows}};
    EvalOutput out[MAX_TAPS + 1] = {{"logits", c->logits}};
    int n_out = 1;
    for (int i = 0; c->taps && i < s->o.n_taps; i++)
        out[n_out++] = (EvalOutput){s->o.taps[i], c->taps[i]};
    EvalCall call = {.graph = s->step,
                     .T = c->n,
                     .R = c->n_rows,
                     .inputs = in,
                     .n_inputs = COUNTOF(in),
                     .outputs = out,
                     .n_outputs = n_out,
                     .cancel = c->cancel};
    int errors = diag_errors(s->diag);
    /* A failed call may have stored some of its rows: they count as overwritten in a ring. */
    int64_t end = s->length + c->n;
    s->high = end > s->high ? end : s->high;
    if (!s->backend->call(s->state, &call, s->diag)) {
        session_rewind(s, s->length);
        return diag_errors(s->diag) > errors ? STEP_ERROR : STEP_CANCELLED;
    }
    memcpy(s->tokens + s->length, c->tokens, (size_t)c->n * sizeof *c->tokens);
    s->length = end;
    return STEP_OK;
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

static int64_t rows_a_call(const Session *s, bool all) {
    int64_t fit = ALL_ROWS_BYTES / ((int64_t)s->vocab * (int64_t)sizeof(float));
    int64_t most = !all || fit > s->o.chunk ? s->o.chunk : fit;
    return most < 1 ? 1 : most;
}

/* Feeds tokens [from, from + n); r NULL: only the last row is computed, into last. */
static StepResult feed_chunk(Session *s, const int32_t *tokens, int64_t n, const FeedOptions *o, FeedRows *r,
                             float *last) {
    int32_t last_row = (int32_t)(n - 1);
    StepCall c = {.tokens = tokens, .n = n, .rows = &last_row, .n_rows = 1, .logits = last, .cancel = o->cancel};
    if (r) {
        c.rows = s->rows;
        c.n_rows = n;
        c.logits = r->logits;
        c.taps = r->taps;
    }
    int64_t pos = s->length;
    StepResult result = session_step(s, &c);
    if (result != STEP_OK || !r)
        return result;
    if (last)
        memcpy(last, r->logits + (n - 1) * s->vocab, (size_t)s->vocab * sizeof *last);
    return o->rows(o->ctx, pos, n, r->logits, r->taps) ? STEP_OK : STEP_STOPPED;
}

StepResult session_feed(Session *s, const int32_t *tokens, int64_t n, const FeedOptions *o, float *last) {
    int64_t most = rows_a_call(s, o->rows != NULL);
    FeedRows rows;
    if (o->rows && !feed_rows_new(s, &rows, most < n ? most : n))
        return STEP_ERROR;
    StepResult result = STEP_OK;
    for (int64_t done = 0; done < n && result == STEP_OK;) {
        int64_t now = n - done < most ? n - done : most;
        result = feed_chunk(s, tokens + done, now, o, o->rows ? &rows : NULL, last);
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
        if (kv_oldest(l, s->high - 1) > needed)
            return false;
    }
    return true;
}

int64_t session_rewind(Session *s, int64_t pos) {
    if (s->high > pos && !caches_reach(s, pos))
        pos = 0;
    if (pos == 0)
        s->high = 0;
    s->backend->truncate(s->state, 0, pos);
    s->length = pos < s->length ? pos : s->length;
    return s->length;
}

int64_t session_reuse(Session *s, const int32_t *tokens, int64_t n) {
    int64_t same = 0;
    while (same < s->length && same < n - 1 && s->tokens[same] == tokens[same])
        same++;
    return same < s->length ? session_rewind(s, same) : same;
}
