/* session_draft.c - a drafter beside the model: opened and linked to it, kept in step with what is read, asked.
 *
 * What a drafter reads of the target are taps of the target's calls. They stay where the back end has them and come
 * with all rows of a call, of a chain with the wanted ones, so the rows that a verification turns down are seen as
 * well: a chain takes its first vector from the last row that stayed, and the cache of a block drafter is cut back with
 * all others (session_rewind).
 */
#include "runtime/engine/session_int.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char tap_prefix[] = "target.";

/* ==== Opening ==== */

static bool add_tap(Session *s, const char *name) {
    if (s->n_taps == MAX_TAPS) {
        diag_error(s->diag, NO_LOC, "at most %d taps can be read at once; the drafter needs \"%s\" as well", MAX_TAPS,
                   name);
        return false;
    }
    s->taps[s->n_taps++] = name;
    s->draft.n_taps++;
    return true;
}

/* A chain begins with the target's `final`, of the row that the newest token was picked from: a wanted one, so that no
 * call computes others. */
static bool add_final(Session *s, Module *target) {
    static const char name[] = "final of wanted rows";
    Graph *g = module_graph(target, "step");
    const NodeId final = g ? ir_find_output(g, OUT_TAP, "final") : 0;
    if (!final || !type_has_rows(ir_type(g, final)) || ir_type(g, final)->dim[0] != DIM_T)
        return add_tap(s, "final"); /* it will be said what is wrong with it */
    const SrcLoc at = ir_get(g, final)->loc;
    const NodeId rows = ir_input(g, "rows", type_make(DT_I32, 1, (int64_t[]){DIM_R}), at);
    ir_output(g, OUT_TAP, name, ir_op2(g, OP_ROWS, final, rows, "final.rows", at), at);
    return add_tap(s, name);
}

/* A block drafter says what it takes. */
static bool find_taps(Session *s, Module *target) {
    SessionDraft *d = &s->draft;
    if (!d->absorb)
        return add_final(s, target);
    for (int i = 0; i < d->absorb->inputs.n; i++) {
        const char *name = ir_get(d->absorb, d->absorb->inputs.v[i])->attr[0].s;
        if (strncmp(name, tap_prefix, strlen(tap_prefix)) != 0)
            continue;
        if (!add_tap(s, name + strlen(tap_prefix)))
            return false;
        d->tap_input[d->n_taps - 1] = name;
    }
    return true;
}

static bool check_drafter(const Session *s, const Module *drafter) {
    if (!drafter->drafts.way)
        diag_error(s->diag, NO_LOC, "%s does not say how it drafts (a `drafts` line): it is no drafter",
                   s->draft.text.name);
    return drafter->drafts.way != DRAFT_NONE;
}

static void take_graphs(Session *s, const Module *m) {
    s->draft.draft = module_graph(m, "draft");
    s->draft.absorb = m->drafts.way == DRAFT_BLOCK ? module_graph(m, "absorb") : NULL;
}

bool draft_compile(Session *s, Module *target) {
    SessionDraft *d = &s->draft;
    if (!s->o.draft)
        return true;
    d->weights = weights_open(s->o.draft, s->diag);
    if (!d->weights)
        return false;
    const ModelFile *file = weights_file(d->weights);
    if (!text_choose(s->arena, s->diag, s->o.draft_model, file, "--draft-model", &d->text))
        return false;
    const FeInput in = {.name = d->text.name,
                        .text = d->text.text,
                        .len = d->text.len,
                        .file = file,
                        .target_file = weights_file(s->weights),
                        .target = target,
                        .settings = s->o.draft_settings,
                        .n_settings = s->o.n_draft_settings};
    const Module *drafter = fe_compile(s->arena, s->diag, &in);
    if (!drafter)
        diag_note(s->diag, NO_LOC, "while compiling the drafter, %s for %s", d->text.name, s->o.draft);
    if (!drafter || !check_drafter(s, drafter) || !module_link(target, drafter))
        return false;
    take_graphs(s, target);
    return find_taps(s, target);
}

/* Width of the vector that a chain hands on; 0: none, or not the target's. */
static int64_t chain_width(const Session *s) {
    const NodeId g = ir_find_output(s->draft.draft, OUT_EMIT, "g");
    return g ? type_row_elems(ir_type(s->draft.draft, g)) : 0;
}

static bool check_entry(const Session *s) {
    const NodeId logits = ir_find_output(s->draft.draft, OUT_EMIT, "logits");
    const int64_t width = logits ? type_row_elems(ir_type(s->draft.draft, logits)) : 0;
    if (width != s->vocab) {
        diag_error(s->diag, s->draft.draft->loc, "entry \"draft\" must emit logits of the target's %d tokens%s",
                   s->vocab, logits ? arena_printf(s->arena, ", not %lld", (long long)width) : "");
        return false;
    }
    if (!s->draft.absorb && chain_width(s) != s->tap_width[s->o.n_taps]) {
        diag_error(s->diag, s->draft.draft->loc,
                   "entry \"draft\" must emit g with the %lld elements of the target's tap \"final\"",
                   (long long)s->tap_width[s->o.n_taps]);
        return false;
    }
    return true;
}

bool draft_check(Session *s) {
    SessionDraft *d = &s->draft;
    const int rows = s->module->drafts.most + 1; /* of a block, and of its verification */
    if (!d->weights)
        return true;
    take_graphs(s, s->module);
    if (!check_entry(s))
        return false;
    if (s->o.chunk < rows) {
        diag_error(s->diag, NO_LOC, "drafter %s needs calls of %d rows, not %lld (see --chunk and --context)",
                   d->text.name, rows, (long long)s->o.chunk);
        return false;
    }
    return true;
}

static float *hold(Session *s, const char *input, int64_t rows, int64_t width) {
    return s->backend->hold(s->state, input, rows * width * (int64_t)sizeof(float), s->diag);
}

/* Whether guesses are picked where their logits are. */
static bool guesses_there(const Session *s) {
    const Gpu *gpu = session_gpu(s);
    return gpu && gpu_samples(gpu, s->draft.draft->name, PICK_GUESS);
}

static bool hold_vectors(Session *s) {
    SessionDraft *d = &s->draft;
    const int64_t rows = session_step_rows(s);
    d->vectors = arena_array(s->arena, (size_t)s->o.sequences + 1, sizeof *d->vectors);
    for (int i = 0; i <= s->o.sequences; i++) {
        DraftVectors *v = &d->vectors[i];
        v->slots = arena_array(s->arena, (size_t)rows, sizeof *v->slots);
        v->pos = arena_array(s->arena, (size_t)rows, sizeof *v->pos);
        v->data = hold(s, NULL, rows, s->tap_width[s->o.n_taps]);
        if (!v->data)
            return false;
    }
    return true;
}

bool draft_open(Session *s) {
    SessionDraft *d = &s->draft;
    bool ok = true;
    if (!d->weights)
        return true;
    for (int i = 0; d->absorb && i < d->n_taps && ok; i++)
        ok = (d->taps[i] = hold(s, d->tap_input[i], s->o.chunk, s->tap_width[s->o.n_taps + i]));
    if (!ok || (!d->absorb && !hold_vectors(s)))
        return false;
    if (guesses_there(s))
        return true;
    if (!d->absorb && !(d->g = hold(s, NULL, 2, s->tap_width[s->o.n_taps])))
        return false;
    d->logits = malloc((size_t)s->vocab * (size_t)s->module->drafts.most * sizeof *d->logits);
    if (!d->logits)
        diag_error(s->diag, NO_LOC, "out of memory for the drafter's logits");
    return d->logits;
}

void draft_close(Session *s) {
    SessionDraft *d = &s->draft;
    for (int i = 0; i < d->n_taps && s->state; i++)
        s->backend->let_go(s->state, d->taps[i]);
    for (int i = 0; d->vectors && i <= s->o.sequences; i++)
        s->backend->let_go(s->state, d->vectors[i].data);
    if (s->state)
        s->backend->let_go(s->state, d->g);
    free(d->logits);
    if (d->weights)
        weights_close(d->weights);
}

/* ==== Reading along ==== */

/* Vectors that no sequence needs. */
static DraftVectors *free_vectors(const Session *s) {
    for (int i = 0; i <= s->o.sequences; i++) {
        bool needed = false;
        for (int k = 0; k < s->o.sequences; k++)
            needed |= s->sequences[k].vectors == &s->draft.vectors[i];
        if (!needed)
            return &s->draft.vectors[i];
    }
    ICE("every place of vectors is needed");
}

void draft_outputs(Session *s, EvalCall *call, EvalOutput *out) {
    SessionDraft *d = &s->draft;
    if (d->weights && !d->absorb)
        d->next = free_vectors(s);
    for (int i = 0; i < d->n_taps; i++)
        out[call->n_outputs++] = (EvalOutput){s->taps[s->o.n_taps + i], d->next ? d->next->data : d->taps[i]};
    call->held_outputs = d->n_taps;
}

static void keep_vectors(Session *s, const StepCall *c) {
    DraftVectors *v = s->draft.next;
    v->n = c->n_rows;
    for (int64_t i = 0; i < c->n; i++)
        s->sequences[s->slots[i]].vectors = v;
    for (int64_t i = 0; i < c->n_rows; i++) {
        v->slots[i] = s->slots[c->rows[i]];
        v->pos[i] = s->pos[c->rows[i]];
    }
}

bool draft_saw(Session *s, const StepCall *c) {
    SessionDraft *d = &s->draft;
    if (d->weights && !d->absorb)
        keep_vectors(s, c);
    if (!d->absorb)
        return true;
    EvalInput in[MAX_TAPS + 2] = {{"pos", s->pos}, {"rows", s->rows}};
    EvalCall call = {.graph = d->absorb,
                     .T = c->n,
                     .R = 1,
                     .slots = s->slots,
                     .inputs = in,
                     .n_inputs = 2,
                     .held_inputs = d->n_taps,
                     .later = true,
                     .cancel = c->cancel};
    for (int i = 0; i < d->n_taps; i++)
        in[call.n_inputs++] = (EvalInput){d->tap_input[i], d->taps[i]};
    return s->backend->call(s->state, &call, s->diag);
}

/* ==== Asking ==== */

const Drafts *session_drafts(const Session *s) {
    static const Drafts none;
    return s->draft.weights ? &s->module->drafts : &none;
}

const char *session_drafter_name(const Session *s) {
    return s->draft.text.name;
}

/* A call of entry `draft`: a chain's for one guess, a block's for all. */
typedef struct DraftCall {
    int32_t tokens[1 + MAX_DRAFTS], pos[1 + MAX_DRAFTS], slots[1 + MAX_DRAFTS];
    EvalInput in[4];
    EvalOutput out[2];
    EvalCall call;
} DraftCall;

/* g: of a chain, else NULL. */
static void draft_call(const Session *s, DraftCall *c, int64_t T, int64_t R, const int32_t *rows, const float *g) {
    const EvalInput in[] = {{"tokens", c->tokens}, {"pos", c->pos}, {"rows", rows}, {"g", g}};
    memcpy(c->in, in, sizeof in);
    for (int64_t i = 0; i < T; i++)
        c->slots[i] = session_slot(s);
    c->call = (EvalCall){.graph = s->draft.draft,
                         .T = T,
                         .R = R,
                         .slots = c->slots,
                         .inputs = c->in,
                         .n_inputs = g ? 4 : 3,
                         .held_inputs = g != NULL,
                         .outputs = c->out};
}

/* The target's vector of the newest row that was read; NULL: it is gone, or no wanted one. */
static const float *first_vector(const Session *s) {
    const DraftVectors *v = s->now->vectors;
    for (int64_t i = 0; v && i < v->n; i++)
        if (v->slots[i] == session_slot(s) && v->pos[i] == s->now->length - 1)
            return v->data + i * s->tap_width[s->o.n_taps];
    return NULL;
}

static bool chain_call(const Session *s, DraftCall *c, int32_t newest) {
    const float *g = first_vector(s);
    c->tokens[0] = newest;
    c->pos[0] = (int32_t)s->now->length;
    draft_call(s, c, 1, 1, s->rows, g);
    return g;
}

/* The whole block is computed, as it was trained to be: fewer masks would mean other guesses. */
static void block_call(const Session *s, DraftCall *c, int32_t newest, int n) {
    const Drafts *how = &s->module->drafts;
    for (int i = 0; i <= how->most; i++) {
        c->tokens[i] = i ? how->mask : newest;
        c->pos[i] = (int32_t)(s->now->length + i);
    }
    draft_call(s, c, how->most + 1, n, s->rows + 1, NULL);
}

/* The first call for n guesses, cut to what there can be. How many; 0: none, and no call. */
static int first_call(const Session *s, DraftCall *c, int32_t newest, int n, const volatile bool *cancel) {
    const Drafts *how = session_drafts(s);
    n = n < how->most ? n : how->most;
    if (n < 1 || s->now->length + how->most + 1 > s->o.context)
        return 0;
    if (how->way == DRAFT_BLOCK)
        block_call(s, c, newest, n);
    else if (!chain_call(s, c, newest))
        return 0;
    c->call.cancel = cancel;
    return n;
}

/* ==== Guesses that the host picks ==== */

/* The place of the largest; -1 when there is no number. */
static int32_t largest(const float *x, int n) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++)
        if (isfinite(x[i]) && (best < 0 || x[i] > x[best]))
            best = i;
    return best;
}

/* g: where the vector goes that a chain hands on; else NULL. */
static bool read_draft(Session *s, DraftCall *c, float *g) {
    c->out[0] = (EvalOutput){"logits", s->draft.logits};
    c->out[1] = (EvalOutput){"g", g};
    c->call.n_outputs = g ? 2 : 1;
    c->call.held_outputs = g != NULL;
    return s->backend->call(s->state, &c->call, s->diag);
}

static int read_chain(Session *s, DraftCall *c, int n, int32_t *out) {
    const SessionDraft *d = &s->draft;
    for (int i = 0; i < n; i++) {
        float *next = d->g + i % 2 * s->tap_width[s->o.n_taps];
        if (!read_draft(s, c, next))
            return -1;
        c->tokens[0] = out[i] = largest(d->logits, s->vocab);
        if (out[i] < 0)
            return i;
        c->in[3].data = next;
    }
    return n;
}

static int read_block(Session *s, DraftCall *c, int n, int32_t *out) {
    if (!read_draft(s, c, NULL))
        return -1;
    for (int i = 0; i < n; i++) {
        out[i] = largest(s->draft.logits + (int64_t)i * s->vocab, s->vocab);
        if (out[i] < 0)
            return i;
    }
    return n;
}

/* ==== Guesses that a device picks ==== */

static bool take_picks(Session *s, int32_t *out) {
    return gpu_sample_take(session_gpu(s), s->draft.draft->name, PICK_GUESS, out, s->diag);
}

/* Of a chain each call finds the token and the vector of the one before it there, and none waits for the host. */
static int pick_draft(Session *s, DraftCall *c, int n, int32_t *out) {
    Gpu *gpu = session_gpu(s);
    const int each = (int)c->call.R;
    if (!gpu_sample_call(gpu, &c->call, PICK_GUESS, s->diag))
        return -1;
    for (int taken = 0, enqueued = each; taken < n; taken += each) {
        for (; enqueued < n && enqueued < taken + PLAN_RING; enqueued += each)
            if (!gpu_sample_next(gpu, s->draft.draft->name, PICK_GUESS, s->diag))
                return -1;
        if (!take_picks(s, out + taken))
            return -1;
        for (int i = taken; i < taken + each; i++)
            if (out[i] < 0)
                return i;
    }
    return n;
}

bool draft_enqueues(const Session *s) {
    const Drafts *how = session_drafts(s);
    return how->way && guesses_there(s) && gpu_vocab(session_gpu(s)) >= s->vocab &&
           (how->way == DRAFT_BLOCK || how->most <= PLAN_RING);
}

int draft_enqueue(Session *s, int32_t newest, int n, const volatile bool *cancel) {
    Gpu *gpu = session_gpu(s);
    DraftCall c;
    n = first_call(s, &c, newest, n, cancel);
    if (n == 0)
        return 0;
    if (!gpu_sample_call(gpu, &c.call, PICK_GUESS, s->diag))
        return -1;
    for (int i = (int)c.call.R; i < n; i++)
        if (!gpu_sample_next(gpu, s->draft.draft->name, PICK_GUESS, s->diag))
            return -1;
    return n;
}

bool draft_take(Session *s, int n, int32_t *out) {
    const int each = session_drafts(s)->way == DRAFT_CHAIN ? 1 : n;
    for (int i = 0; i < n; i += each)
        if (!take_picks(s, out + i))
            return false;
    for (int i = 0; i < n; i++)
        out[i] = out[i] < 0 ? 0 : out[i];
    return true;
}

int session_draft(Session *s, int32_t newest, int n, int32_t *out, const volatile bool *cancel) {
    DraftCall c;
    n = first_call(s, &c, newest, n, cancel);
    if (n == 0)
        return 0;
    if (guesses_there(s))
        return pick_draft(s, &c, n, out);
    return session_drafts(s)->way == DRAFT_CHAIN ? read_chain(s, &c, n, out) : read_block(s, &c, n, out);
}
