/* plan_kv.c - decides how every cache of the module is held: a ring or a line, how long, how many bytes.
 *
 *   before   cache kv.0 : heads 1 k f32[256] v f32[256]
 *   after    cache kv.0 : heads 1 k f32[256] v f32[256] ring capacity 1040 lookback 511 row 1024 1024 bytes 2129920
 *
 * The look-back is the largest of all variants that read the cache, in all graphs, derived from their
 * `visible`. Let W = lookback + 1 be the keys a query may see, itself included. A call of n rows
 * stores all of them before the first query reads, so the slots of W + n - 1 positions must differ;
 * and after a roll-back of n rows the W keys before them must still be there, which takes W + n. So a
 * ring holds W + max(chunk, draft) positions, rounded up to 16, and is used when that is less than
 * the context. A variant that may look forward, or whose reach cannot be bounded, needs the line; so
 * does a cache that nobody here reads, since its readers are in another module.
 *
 * The elements of own caches are of the types asked for, unless the model text says other ones than f32. The bytes of a
 * position are those of its heads one behind another: whole blocks, without gaps (kv_row.c).
 *
 * requires  variants are final
 * keeps     the graphs
 * breaks    nothing; caches of another module are planned there
 */
#include "passes/passes_int.h"

enum { CAPACITY_STEP = 16 };

/* The look-back all readers together need; -1 when there is no bound. */
static int64_t cache_lookback(const Module *m, int cache) {
    int64_t most = -1;
    for (int i = 0; i < m->graphs.n; i++) {
        const Graph *g = m->graphs.v[i];
        for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
            const Node *n = ir_get(g, id);
            if (n->op != OP_ATTEND || ir_cache_of(g, n->in[1]) != cache)
                continue;
            const Scalar *visible = m->variants.v[n->attr[0].i].visible;
            int64_t back = scalar_causal(visible) ? scalar_lookback(visible) : -1;
            if (back < 0)
                return -1;
            most = back > most ? back : most;
        }
    }
    return most;
}

/* Bytes of one position in a plane; 0 after reporting. */
static int64_t plane_row(const Module *m, const Cache *c, DType t, int dim) {
    int block = dtype_info(t)->block_elems;
    if (dim % block == 0)
        return c->layout.heads * (int64_t)dtype_row_bytes(t, dim);
    diag_error(m->diag, c->loc, "cache '%s': heads of %d elements are not whole %s blocks of %d", c->name, dim,
               dtype_name(t), block);
    return 0;
}

static bool same_plan(const KvLayout *a, const KvLayout *b) {
    return a->planned && b->planned && a->ring == b->ring && a->lookback == b->lookback && a->capacity == b->capacity &&
           a->k_row == b->k_row && a->v_row == b->v_row && a->bytes == b->bytes;
}

static bool plan_cache(Module *m, int i, const PassOptions *o) {
    Cache *c = &m->caches.v[i];
    KvLayout l = c->layout;
    l.planned = true;
    l.lookback = cache_lookback(m, i);
    int64_t rows = o->chunk > o->draft ? o->chunk : o->draft;
    int64_t ring = (l.lookback + 1 + rows + CAPACITY_STEP - 1) / CAPACITY_STEP * CAPACITY_STEP;
    l.ring = l.lookback >= 0 && ring < o->context;
    l.capacity = l.ring ? ring : o->context;
    l.k_type = l.k_type == DT_F32 ? o->kv_k : l.k_type;
    l.v_type = l.v_type == DT_F32 ? o->kv_v : l.v_type;
    l.k_row = plane_row(m, c, l.k_type, l.k_dim);
    l.v_row = plane_row(m, c, l.v_type, l.v_dim);
    if (!l.k_row || !l.v_row)
        return false;
    if (__builtin_mul_overflow(l.capacity, l.k_row + l.v_row, &l.bytes)) {
        diag_error(m->diag, c->loc, "cache '%s': %lld positions are too many", c->name, (long long)l.capacity);
        return false;
    }
    if (same_plan(&c->layout, &l))
        return false;
    c->layout = l;
    return true;
}

bool pass_plan_kv(Module *m, const PassOptions *o) {
    bool changed = false;
    const int errors = diag_errors(m->diag);
    for (int i = 0; i < m->caches.n && diag_errors(m->diag) == errors; i++) /* one layer says it for all */
        if (!m->caches.v[i].from)
            changed = plan_cache(m, i, o) || changed;
    return changed;
}
