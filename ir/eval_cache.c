/* eval_cache.c - K/V caches: where rows lie, storing them, forgetting them.
 *
 * A cache holds rows by absolute position; kv_slot() alone knows where. Which position a place holds
 * is remembered beside it, so a read of a row that a ring has given up, or that nobody stored, is an
 * error and never a wrong number. Rows are held as the layout's types say (kv_row.c).
 */
#include "ir/eval_int.h"

#include <stdlib.h>

/* ==== Layouts ==== */

/* Heads of dim elements, each in whole blocks of a type that caches have. */
static bool plane_fits(const Evaluator *e, const Cache *c, DType t, int dim) {
    if (kv_storable(t) && dim % dtype_info(t)->block_elems == 0)
        return true;
    diag_error(e->m->diag, c->loc, "cache '%s' cannot hold heads of %d elements as %s", c->name, dim, dtype_name(t));
    return false;
}

static bool set_layout(const Evaluator *e, const Cache *c, KvLayout *l, int64_t context) {
    *l = c->layout;
    if (!plane_fits(e, c, l->k_type, l->k_dim) || !plane_fits(e, c, l->v_type, l->v_dim))
        return false;
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

int64_t kv_held(const KvLayout *l, const KvSeq *s, int64_t pos) {
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
        kv_encode(l->k_type, k + i * nk, s->k + place * l->k_row, nk);
        kv_encode(l->v_type, v + i * nv, s->v + place * l->v_row, nv);
        s->held[place] = pos[i];
        s->end = s->end > pos[i] ? s->end : pos[i] + 1;
    }
    r->val[id] = (Value){.dtype = DT_KV, .weight = -1};
    return true;
}

static void read_plane(DType t, const uint8_t *src, float *dst, int64_t n) {
    kv_decode(t, src, dst, n);
    if (kv_rotated(t))
        kv_rotate_back(dst, n);
}

bool eval_cache_row(const Evaluator *e, int cache, int slot, int64_t pos, float *k, float *v) {
    const KvLayout *l = &e->layout[cache];
    const KvSeq *s = kv_seq(e, cache, slot);
    int64_t place = kv_held(l, s, pos);
    if (place < 0)
        return false;
    read_plane(l->k_type, s->k + place * l->k_row, k, (int64_t)l->heads * l->k_dim);
    read_plane(l->v_type, s->v + place * l->v_row, v, (int64_t)l->heads * l->v_dim);
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
