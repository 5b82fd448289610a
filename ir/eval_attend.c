/* eval_attend.c - K/V caches, and attention over them.
 *
 * A cache holds rows by absolute position; kv_slot() alone knows where. Which position a place holds
 * is remembered beside it, so a read of a row that a ring has given up, or that nobody stored, is an
 * error and never a wrong number.
 *
 * A query goes over the keys in order of position: the interval proof of ir/interval.c splits the
 * range into parts that are wholly visible, wholly not, and small ones decided pair by pair.
 * Visible keys are taken in blocks; a running maximum keeps exponents in range. Blocks are counted
 * from the first visible key, so the result depends on the visible keys alone: not on the rows of
 * the call, on ring or linear caches, or on how well the proof works.
 */
#include "ir/eval_int.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ==== Layouts ==== */

static bool storable(DType t) {
    return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

static bool set_layout(const Evaluator *e, const Cache *c, KvLayout *l, int64_t context) {
    *l = c->layout;
    if (!storable(l->k_type) || !storable(l->v_type)) {
        diag_error(e->m->diag, c->loc, "cache '%s': the evaluator holds f32, f16 and bf16, not %s and %s", c->name,
                   dtype_name(l->k_type), dtype_name(l->v_type));
        return false;
    }
    if (!l->planned) {
        l->ring = false;
        l->lookback = -1;
        l->capacity = context;
    }
    l->k_row = (int64_t)dtype_row_bytes(l->k_type, (int64_t)l->heads * l->k_dim);
    l->v_row = (int64_t)dtype_row_bytes(l->v_type, (int64_t)l->heads * l->v_dim);
    if (l->capacity < 1 || (l->planned && (l->k_row != c->layout.k_row || l->v_row != c->layout.v_row))) {
        diag_error(e->m->diag, c->loc, "cache '%s': its planned layout does not hold its heads", c->name);
        return false;
    }
    return true;
}

bool kv_setup(Evaluator *e, const EvalOptions *o) {
    size_t caches = (size_t)e->m->caches.n;
    e->layout = calloc(caches + 1, sizeof *e->layout);
    e->seq = calloc(caches * (size_t)e->slots + 1, sizeof *e->seq);
    if (!e->layout || !e->seq)
        ICE("out of memory");
    for (size_t i = 0; i < caches; i++)
        if (!set_layout(e, &e->m->caches.v[i], &e->layout[i], o->context))
            return false;
    return true;
}

void kv_free(Evaluator *e) {
    for (int64_t i = 0; e->seq && i < (int64_t)e->m->caches.n * e->slots; i++) {
        free(e->seq[i].k);
        free(e->seq[i].v);
        free(e->seq[i].held);
    }
    free(e->seq);
    free(e->layout);
}

/* ==== Rows ==== */

/* The place of a position, or -1 when it is not held. */
static int64_t held_place(const KvLayout *l, const KvSeq *s, int64_t pos) {
    if (pos < 0 || pos >= s->end)
        return -1;
    int64_t place = kv_slot(l, pos);
    return place < s->places && s->held[place] == pos ? place : -1;
}

static bool grow_plane(uint8_t **plane, int64_t places, int64_t row) {
    int64_t bytes;
    if (__builtin_mul_overflow(places, row, &bytes))
        return false;
    uint8_t *p = realloc(*plane, (size_t)bytes + 1);
    if (p)
        *plane = p;
    return p != NULL;
}

static bool grow_seq(const KvLayout *l, KvSeq *s, int64_t place) {
    enum { FIRST = 64 };
    if (place < s->places)
        return true;
    int64_t places = s->places * 2 > FIRST ? s->places * 2 : FIRST;
    places = places > place ? places : place + 1;
    places = places < l->capacity ? places : l->capacity;
    int32_t *held = realloc(s->held, (size_t)places * sizeof *held);
    if (!held)
        return false;
    s->held = held;
    if (!grow_plane(&s->k, places, l->k_row) || !grow_plane(&s->v, places, l->v_row))
        return false;
    for (int64_t i = s->places; i < places; i++)
        held[i] = -1;
    s->places = places;
    return true;
}

static void encode_row(DType t, uint8_t *dst, const float *src, int64_t n) {
    if (t == DT_F32) {
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = t == DT_F16 ? f32_to_f16(src[i]) : f32_to_bf16(src[i]);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
}

bool eval_kv_store(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const int cache = ir_cache_of(r->g, n->in[0]);
    const char *name = r->e->m->caches.v[cache].name;
    const KvLayout *l = &r->e->layout[cache];
    const Type *t = ir_type(r->g, n->in[1]);
    const float *k = run_f32(r, n, 1), *v = run_f32(r, n, 2);
    const int32_t *pos = run_i32(r, n, 3);
    if (!k || !v || !pos)
        return false;
    const int64_t rows = run_dim(r, t, 0), nk = (int64_t)l->heads * l->k_dim, nv = (int64_t)l->heads * l->v_dim;
    for (int64_t i = 0; i < rows; i++) {
        if (pos[i] < 0)
            return run_fail(r, n, "position %d of row %lld is negative", (int)pos[i], (long long)i);
        if (!l->ring && pos[i] >= l->capacity)
            return run_fail(r, n, "position %d is beyond the %lld positions that cache '%s' holds", (int)pos[i],
                            (long long)l->capacity, name);
        KvSeq *s = kv_seq(r->e, cache, run_slot(r, t->dim[0], i));
        const int64_t place = kv_slot(l, pos[i]);
        if (!grow_seq(l, s, place))
            return run_fail(r, n, "out of memory for %lld positions of cache '%s'", (long long)place + 1, name);
        encode_row(l->k_type, s->k + place * l->k_row, k + i * nk, nk);
        encode_row(l->v_type, s->v + place * l->v_row, v + i * nv, nv);
        s->held[place] = pos[i];
        s->end = s->end > pos[i] ? s->end : pos[i] + 1;
    }
    r->val[id] = (Value){.dtype = DT_KV, .weight = -1};
    return true;
}

bool eval_cache_row(const Evaluator *e, int cache, int slot, int64_t pos, float *k, float *v) {
    const KvLayout *l = &e->layout[cache];
    const KvSeq *s = kv_seq(e, cache, slot);
    int64_t place = held_place(l, s, pos);
    if (place < 0)
        return false;
    dequant_row(l->k_type, s->k + place * l->k_row, k, (int64_t)l->heads * l->k_dim);
    dequant_row(l->v_type, s->v + place * l->v_row, v, (int64_t)l->heads * l->v_dim);
    return true;
}

void eval_truncate(Evaluator *e, int slot, int64_t pos) {
    for (int c = 0; c < e->m->caches.n; c++) {
        KvSeq *s = kv_seq(e, c, slot);
        for (int64_t i = 0; i < s->places; i++)
            if (s->held[i] >= pos)
                s->held[i] = -1;
        s->end = s->end < pos ? s->end : pos;
    }
}

int64_t eval_cache_bytes(const Evaluator *e) {
    int64_t bytes = 0;
    for (int c = 0; c < e->m->caches.n; c++)
        for (int slot = 0; slot < e->slots; slot++)
            bytes += kv_seq(e, c, slot)->places * (e->layout[c].k_row + e->layout[c].v_row);
    return bytes;
}

/* ==== Attention ==== */

enum {
    BLOCK = 64,    /* visible keys weighed together */
    PAIRWISE = 16, /* keys below which no proof is tried */
};

/* What all queries of a node share. */
typedef struct Attend {
    EvalRun *r;
    const Variant *variant;
    const KvLayout *l;
    int cache;
    const float *q;
    const int32_t *pos;
    int64_t rows, heads, dim0; /* queries; dim0: T, R or a number */
    float scale;
    float *out;
    const float *own_k, *own_v; /* rows of this call that are not stored; NULL none */
    const int32_t *own_pos;
    int64_t own_rows, own_dim0;
    float *decoded;    /* [threads][BLOCK][k_dim + v_dim]; NULL: the planes are f32 */
    atomic_bool *lost; /* set when a query needs a position that is not held */
} Attend;

/* One head of one query on its way over the keys. */
typedef struct Query {
    const Attend *a;
    const KvSeq *seq;
    const float *q;
    int64_t kv_head;
    ScalarEnv env;
    float most, weight; /* running maximum of the logits, sum of exp(logit - most) */
    float *acc;         /* [v_dim]: sum of exp(logit - most) * v */
    int n;              /* keys gathered */
    const float *k[BLOCK], *v[BLOCK];
    double at[BLOCK]; /* their positions */
    float *decoded;
    int64_t missing; /* a visible position that is not held; -1 none */
} Query;

static void weigh_block(Query *x) {
    const Attend *a = x->a;
    const int64_t nv = a->l->v_dim;
    float logit[BLOCK], most = x->most;
    eval_dots(x->q, x->k, x->n, a->l->k_dim, logit);
    for (int i = 0; i < x->n; i++) {
        logit[i] *= a->scale;
        if (a->variant->score) {
            x->env.k = x->at[i];
            x->env.s = logit[i];
            logit[i] = (float)scalar_eval(a->variant->score, &x->env);
        }
        most = logit[i] > most || isnan(logit[i]) ? logit[i] : most;
    }
    if (most > x->most || isnan(most)) {
        const float shrink = expf(x->most - most);
        for (int64_t d = 0; d < nv; d++)
            x->acc[d] *= shrink;
        x->weight *= shrink;
        x->most = most;
    }
    if (most != -INFINITY) {
        for (int i = 0; i < x->n; i++) {
            logit[i] = expf(logit[i] - most);
            x->weight += logit[i];
        }
        eval_add_scaled(x->acc, x->v, logit, x->n, nv);
    }
    x->n = 0;
}

static void take_key(Query *x, const float *k, const float *v, int64_t pos) {
    x->k[x->n] = k;
    x->v[x->n] = v;
    x->at[x->n++] = (double)pos;
    if (x->n == BLOCK)
        weigh_block(x);
}

static void take_stored(Query *x, int64_t pos) {
    const KvLayout *l = x->a->l;
    const int64_t place = held_place(l, x->seq, pos);
    if (place < 0) {
        x->missing = x->missing < 0 ? pos : x->missing;
        return;
    }
    const uint8_t *k = x->seq->k + place * l->k_row + x->kv_head * (l->k_row / l->heads);
    const uint8_t *v = x->seq->v + place * l->v_row + x->kv_head * (l->v_row / l->heads);
    if (!x->decoded) {
        take_key(x, (const float *)(const void *)k, (const float *)(const void *)v, pos);
        return;
    }
    float *to = x->decoded + (int64_t)x->n * (l->k_dim + l->v_dim);
    dequant_row(l->k_type, k, to, l->k_dim);
    dequant_row(l->v_type, v, to + l->k_dim, l->v_dim);
    take_key(x, to, to + l->k_dim, pos);
}

static bool sees(Query *x, int64_t pos) {
    x->env.k = (double)pos;
    return scalar_eval(x->a->variant->visible, &x->env) != 0;
}

/* Takes the visible keys among from..to. */
static void visit(Query *x, int64_t from, int64_t to) {
    if (from > to || x->missing >= 0)
        return;
    const int64_t q = (int64_t)x->env.q;
    const Visibility v = to - from < PAIRWISE ? VIS_SOME : scalar_tile(x->a->variant->visible, q, q, from, to);
    if (v == VIS_SOME && to - from >= PAIRWISE) {
        const int64_t middle = from + (to - from) / 2;
        visit(x, from, middle);
        visit(x, middle + 1, to);
        return;
    }
    for (int64_t p = from; v != VIS_NONE && p <= to && x->missing < 0; p++)
        if (v == VIS_ALL || sees(x, p))
            take_stored(x, p);
}

static void visit_own(Query *x, int slot) {
    const Attend *a = x->a;
    const KvLayout *l = a->l;
    for (int64_t i = 0; i < a->own_rows; i++) {
        if (run_slot(a->r, a->own_dim0, i) != slot || !sees(x, a->own_pos[i]))
            continue;
        take_key(x, a->own_k + (i * l->heads + x->kv_head) * l->k_dim,
                 a->own_v + (i * l->heads + x->kv_head) * l->v_dim, a->own_pos[i]);
    }
}

/* Head h of query row t; gives a position that was needed and is not held, or -1. */
static int64_t attend_head(const Attend *a, int64_t t, int64_t h, float *decoded) {
    const KvLayout *l = a->l;
    const Evaluator *e = a->r->e;
    const int slot = run_slot(a->r, a->dim0, t);
    const int64_t q = a->pos[t];
    Query x;
    x.a = a;
    x.seq = kv_seq(e, a->cache, slot);
    x.q = a->q + (t * a->heads + h) * l->k_dim;
    x.kv_head = h / (a->heads / l->heads);
    x.env = (ScalarEnv){.q = (double)q, .h = (double)h, .tables = e->tables, .tables_len = e->tables_len};
    x.most = a->variant->sink ? (float)scalar_eval(a->variant->sink, &x.env) : -INFINITY;
    x.weight = x.most == -INFINITY ? 0 : 1;
    x.acc = a->out + (t * a->heads + h) * l->v_dim;
    x.n = 0;
    x.decoded = decoded;
    x.missing = -1;
    memset(x.acc, 0, (size_t)l->v_dim * sizeof *x.acc);

    visit(&x, l->lookback >= 0 && q > l->lookback ? q - l->lookback : 0, x.seq->end - 1);
    if (a->own_k)
        visit_own(&x, slot);
    weigh_block(&x);
    const float inv = x.weight == 0 ? 0 : 1 / x.weight; /* no visible key: zeros */
    for (int64_t d = 0; d < l->v_dim; d++)
        x.acc[d] *= inv;
    return x.missing;
}

/* Part i is head i % heads of query i / heads. */
static int64_t attend_index(const Attend *a, int64_t i, int thread) {
    float *decoded = a->decoded ? a->decoded + thread * (int64_t)BLOCK * (a->l->k_dim + a->l->v_dim) : NULL;
    return attend_head(a, i / a->heads, i % a->heads, decoded);
}

static void attend_part(const void *ctx, int64_t i, int thread) {
    const Attend *a = ctx;
    if (!run_cancelled(a->r) && attend_index(a, i, thread) >= 0)
        atomic_store(a->lost, true);
}

/* Keys and values that are only this call's: they stand at the queries' positions, or, when the
 * queries are only the wanted rows, at those of the call's input "pos". */
static bool take_own(Attend *a, const Node *n) {
    EvalRun *r = a->r;
    if (n->n_in < 5)
        return true;
    const Type *t = ir_type(r->g, n->in[3]);
    a->own_k = run_f32(r, n, 3);
    a->own_v = run_f32(r, n, 4);
    a->own_dim0 = t->dim[0];
    a->own_rows = run_dim(r, t, 0);
    a->own_pos = a->own_dim0 == a->dim0 ? a->pos : a->own_dim0 == DIM_T ? run_input(r, "pos") : NULL;
    if (!a->own_pos)
        return run_fail(r, n, "the positions of its own keys are missing from the call");
    return a->own_k && a->own_v;
}

/* Says which is the first query that lacks a position, by going over them again. */
static bool report_lost(const Attend *a, const Node *n) {
    const KvLayout *l = a->l;
    int64_t i = 0, pos = -1;
    for (; i < a->rows * a->heads && (pos = attend_index(a, i, 0)) < 0; i++)
        ;
    const int64_t t = i / a->heads;
    const KvSeq *s = kv_seq(a->r->e, a->cache, run_slot(a->r, a->dim0, t));
    const bool gone = l->ring && pos < kv_oldest(l, s->end - 1);
    return run_fail(a->r, n, "the query at position %d sees position %lld, which cache '%s' %s (it keeps %lld)",
                    (int)a->pos[t], (long long)pos, a->r->e->m->caches.v[a->cache].name,
                    gone ? "no longer holds" : "does not hold", (long long)l->capacity);
}

bool eval_attend(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const int cache = ir_cache_of(r->g, n->in[1]);
    const KvLayout *l = &r->e->layout[cache];
    const int64_t dim = l->k_dim + l->v_dim;
    atomic_bool lost = false;
    Attend a = {
        .r = r,
        .variant = &r->e->m->variants.v[n->attr[0].i],
        .l = l,
        .cache = cache,
        .q = run_f32(r, n, 0),
        .pos = run_i32(r, n, 2),
        .rows = run_dim(r, &n->type, 0),
        .heads = n->type.dim[1],
        .dim0 = n->type.dim[0],
        .scale = (float)n->attr[1].f,
        .out = run_out(r, id),
        .lost = &lost,
    };
    if (!a.q || !a.pos || !take_own(&a, n))
        return false;
    if (l->k_type != DT_F32 || l->v_type != DT_F32) {
        a.decoded = run_scratch(r, n, pool_threads(r->e->pool) * (int64_t)BLOCK * dim, sizeof *a.decoded);
        if (!a.decoded)
            return false;
    }
    double keys = 0;
    for (int64_t t = 0; t < a.rows; t++)
        keys += (double)(kv_seq(r->e, cache, run_slot(r, a.dim0, t))->end + a.own_rows);
    run_parts(r, a.rows * a.heads, keys * (double)(a.heads * dim), attend_part, &a);
    return !atomic_load(&lost) || report_lost(&a, n);
}
