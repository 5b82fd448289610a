/* eval_attend.c - attention over K/V caches (eval_cache.c).
 *
 * A query goes over the keys in order of position: the interval proof of ir/interval.c splits the
 * range into parts that are wholly visible, wholly not, and small ones decided pair by pair.
 * Visible keys are taken in blocks; a running maximum keeps exponents in range. Blocks are counted
 * from the first visible key, so the result depends on the visible keys alone: not on the rows of
 * the call, on ring or linear caches, or on how well the proof works.
 *
 * Where the choice for a group is sparse, only kept blocks of keys are gone over (eval_sparse.c).
 *
 * Keys and values are read in the basis that their type is stored in, as a kernel does that reads them in place: of a
 * rotated type (kv.def) queries are rotated and, back again, the result. This call's own rows are what a cache of
 * blocks would have made of them, as a kernel has tiles of one type.
 */
#include "ir/eval_int.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

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
    float *room;       /* [threads][room_size(l)]; NULL: the planes are f32 */
    SparseKeep *keep;  /* the keys that count; NULL: all */
    atomic_bool *lost; /* set when a query needs a position that is not held */
} Attend;

/* Of a thread, in floats: decoded keys and values of a block, and a query in the basis of the keys. */
static int64_t room_size(const KvLayout *l) {
    return (int64_t)BLOCK * (l->k_dim + l->v_dim) + l->k_dim;
}

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
    float *decoded;   /* [BLOCK][k_dim + v_dim]; NULL: the planes are f32 */
    int64_t missing;  /* a visible position that is not held; -1 none */
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
    const int64_t place = kv_held(l, x->seq, pos);
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
    kv_decode(l->k_type, k, to, l->k_dim);
    kv_decode(l->v_type, v, to + l->k_dim, l->v_dim);
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

static void visit_kept(Query *x, int64_t t, int64_t h) {
    const int64_t last = x->seq->end - 1;
    for (int64_t from = 0, to; sparse_run(x->a->keep, t, h, &from, &to); from = to + 1)
        visit(x, from, to < last ? to : last);
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

/* The query in the basis of the keys, in the last k_dim floats of the room if that is another one. */
static const float *meet_keys(const Attend *a, const float *q, float *room) {
    const int64_t dim = a->l->k_dim;
    if (!kv_rotated(a->l->k_type))
        return q;
    float *copy = memcpy(room + room_size(a->l) - dim, q, (size_t)dim * sizeof *q);
    kv_rotate(copy, dim);
    return copy;
}

/* Head h of query row t; gives a position that was needed and is not held, or -1. */
static int64_t attend_head(const Attend *a, int64_t t, int64_t h, float *room) {
    const KvLayout *l = a->l;
    const Evaluator *e = a->r->e;
    const int slot = run_slot(a->r, a->dim0, t);
    const int64_t q = a->pos[t];
    Query x;
    x.a = a;
    x.seq = kv_seq(e, a->cache, slot);
    x.q = meet_keys(a, a->q + (t * a->heads + h) * l->k_dim, room);
    x.kv_head = h / (a->heads / l->heads);
    x.env = (ScalarEnv){.q = (double)q, .h = (double)h, .tables = e->tables, .tables_len = e->tables_len};
    x.most = a->variant->sink ? (float)scalar_eval(a->variant->sink, &x.env) : -INFINITY;
    x.weight = x.most == -INFINITY ? 0 : 1;
    x.acc = a->out + (t * a->heads + h) * l->v_dim;
    x.n = 0;
    x.decoded = room;
    x.missing = -1;
    memset(x.acc, 0, (size_t)l->v_dim * sizeof *x.acc);

    if (a->keep)
        visit_kept(&x, t, h);
    else
        visit(&x, l->lookback >= 0 && q > l->lookback ? q - l->lookback : 0, x.seq->end - 1);
    if (a->own_k)
        visit_own(&x, slot);
    weigh_block(&x);
    const float inv = x.weight == 0 ? 0 : 1 / x.weight; /* no visible key: zeros */
    for (int64_t d = 0; d < l->v_dim; d++)
        x.acc[d] *= inv;
    if (kv_rotated(l->v_type))
        kv_rotate_back(x.acc, l->v_dim);
    return x.missing;
}

/* Part i is head i % heads of query i / heads. */
static int64_t attend_index(const Attend *a, int64_t i, int thread) {
    float *room = a->room ? a->room + thread * room_size(a->l) : NULL;
    return attend_head(a, i / a->heads, i % a->heads, room);
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

/* Rows [own_rows][heads][dim] as they would be read if they were stored in blocks: themselves, where the type has none,
 * or copies at *to, which moves on. */
static const float *own_as_stored(const Attend *a, DType t, const float *rows, int dim, float **to) {
    const int64_t n = a->own_rows * a->l->heads * dim, step = dtype_info(t)->block_elems;
    uint8_t block[256];
    if (!rows || step == 1)
        return rows;
    if ((size_t)dtype_info(t)->block_bytes > sizeof block)
        ICE("a block of %s has %d bytes", dtype_name(t), (int)dtype_info(t)->block_bytes);
    float *copy = *to;
    *to += n;
    for (int64_t i = 0; i < n; i += step) {
        kv_encode(t, rows + i, block, step);
        kv_decode(t, block, copy + i, step);
    }
    return copy;
}

/* Memory for reading planes that are not f32, and for own rows as they would be stored. */
static bool take_room(Attend *a, const Node *n) {
    const KvLayout *l = a->l;
    if (l->k_type == DT_F32 && l->v_type == DT_F32)
        return true;
    const int64_t threads = pool_threads(a->r->e->pool) * room_size(l);
    const int64_t own = a->own_rows * l->heads * (l->k_dim + l->v_dim);
    a->room = run_scratch(a->r, n, threads + own, sizeof *a->room);
    if (!a->room)
        return false;
    float *to = a->room + threads;
    a->own_k = own_as_stored(a, l->k_type, a->own_k, l->k_dim, &to);
    a->own_v = own_as_stored(a, l->v_type, a->own_v, l->v_dim, &to);
    return true;
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
    if (!a.q || !a.pos || !take_own(&a, n) || !take_room(&a, n))
        return false;
    if (sparse_applies(r, n)) {
        a.keep = sparse_select(r, &(SparseQueries){n, a.variant, cache, a.q, a.pos, a.rows, a.heads, a.dim0, a.scale});
        if (!a.keep)
            return false;
    }
    double keys = 0;
    for (int64_t t = 0; t < a.rows; t++)
        keys += (double)(kv_seq(r->e, cache, run_slot(r, a.dim0, t))->end + a.own_rows);
    run_parts(r, a.rows * a.heads, keys * (double)(a.heads * dim), attend_part, &a);
    const bool ok = !atomic_load(&lost) || report_lost(&a, n);
    sparse_free(a.keep);
    return ok;
}
