/* choose_attention.c - how each attention goes over the keys, in each phase, and why.
 *
 *   before   group g3 attention
 *   after    group g3 attention decode split "at most 16 rows" prefill dense "window of 512 keys"
 *   or       group g3 attention decode split "at most 16 rows" prefill sparse from 0 "asked for, alpha 0.12"
 *
 * Decode has few rows and, in the long run, many keys: these are split by position, so that many blocks read them at
 * once. Prefill has rows enough to fill the GPU: blocks of queries go over the tiles of keys that their variant shows
 * them. Where a variant has a sparse method they may leave out blocks of keys, which changes results: that is done
 * where it is asked for, and its alpha is above 0. Else it stays dense, and the reason has the position from which
 * sparse would be faster (sparse_cost.c), or that it could hardly be noticed. The first attentions stay dense in any
 * case where the method says so: they can be the ones that copy from afar. Another alpha than the text's is written
 * into the variant. The code generator does what stands here, or says that it cannot.
 *
 * requires  groups are final (schedule)
 * keeps     every node and every group
 * breaks    nothing; an attention group without attend (a store alone) has nothing to choose
 */
#include "passes/passes_int.h"

#include <string.h>

static const char *reach(const Module *m, const Variant *v) {
    if (!scalar_causal(v->visible))
        return "keys behind and ahead";
    int64_t back = scalar_lookback(v->visible);
    return back < 0 ? "every key so far" : arena_printf(m->arena, "window of %lld keys", (long long)back + 1);
}

static bool choose(AttendChoice *c, AttendChoice to) {
    const bool changed = c->way != to.way || c->from != to.from || !c->why || strcmp(c->why, to.why) != 0;
    *c = to;
    return changed;
}

/* Whether the text lets it be sparse. seen: how many attentions with a method stand in front of it, and then with it.
 */
static bool may_be_sparse(const Node *n, const Variant *v, int64_t *seen) {
    return v->sparse && n->n_in <= 3 && (*seen)++ >= sparse_read(v).dense;
}

bool sparse_possible(const Module *m) {
    bool any = false;
    for (int i = 0; i < m->graphs.n; i++) {
        const Graph *g = m->graphs.v[i];
        int64_t seen = 0;
        for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
            const Node *n = ir_get(g, id);
            any |= n->op == OP_ATTEND && may_be_sparse(n, &m->variants.v[n->attr[0].i], &seen);
        }
    }
    return any;
}

int64_t sparse_grid(const Module *m) {
    int64_t grid = 1;
    for (int i = 0; i < m->variants.n; i++) {
        const Variant *v = &m->variants.v[i];
        const int64_t block = v->sparse ? sparse_read(v).block : 1;
        grid = block > grid ? block : grid;
    }
    return grid;
}

/* ==== What sparse would gain ==== */

/* FLOPs of one row of a prompt of `context`, on average: of the attentions with a sparse method, and of all. */
static double sparse_share(const Graph *g, int64_t context) {
    double sparse = 0, all = 0;
    int64_t seen = 0;
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        const double out = 2 * (double)type_row_elems(&n->type);
        if (ir_is_matmul(n) && n->type.dim[0] == DIM_T) {
            const Type *w = ir_type(g, n->in[1]);
            all += out * (double)w->dim[w->rank - 1];
        } else if (n->op == OP_ATTEND) {
            const Variant *v = &g->module->variants.v[n->attr[0].i];
            const int64_t back = scalar_lookback(v->visible);
            const double keys = back >= 0 && back < context / 2 ? (double)back + 1 : (double)context / 2;
            const double flops = (out + 2 * (double)type_row_elems(ir_type(g, n->in[0]))) * keys;
            all += flops;
            sparse += may_be_sparse(n, v, &seen) ? flops : 0;
        }
    }
    return all > 0 ? sparse / all : 0;
}

/* Why it is dense though nobody said so: what sparse would gain, and what is in the way. Leaving out keys changes
 * results; no model is certified, that is, measured on long texts to lose less than its users would mind. Where one is,
 * this is the place to choose sparse from `from` on. */
static const char *weigh(const Graph *g, const Node *n, const PassOptions *o) {
    enum { LEAST_PERCENT = 5 };
    Arena *a = g->module->arena;
    const KvLayout *l = &g->module->caches.v[ir_cache_of(g, n->in[1])].layout;
    const FlashPrefill p = sparse_read(&g->module->variants.v[n->attr[0].i]);
    const SparseShape s = {n->type.dim[1], l->heads, l->k_dim, l->v_dim, o->chunk, p};
    const SparseRates rates = sparse_rates(&o->rates);
    const char *by = rates_short_text(a, &o->rates);
    const int64_t from = sparse_from(&s, &rates, o->context);
    const double percent = 100 * sparse_share(g, o->context);
    if (from < 0)
        return arena_printf(a, "sparse is not faster up to %lld keys; %s", (long long)o->context, by);
    if (percent < LEAST_PERCENT)
        return arena_printf(a, "sparse could save at most %.1f %% of a prompt of %lld", percent, (long long)o->context);
    return arena_printf(a, "sparse is faster from %lld, but no model is certified: --sparse on; %s", (long long)from,
                        by);
}

static AttendChoice prefill_way(const Graph *g, const Node *n, const PassOptions *o, int64_t *seen) {
    const Module *m = g->module;
    Variant *v = &m->variants.v[n->attr[0].i];
    const char *why = reach(m, v);
    const bool may = may_be_sparse(n, v, seen);
    const char *never = n->n_in > 3               ? "it counts only stored keys"
                        : o->sparse == SPARSE_OFF ? "it is off"
                        : !may                    ? "the first ones stay dense"
                                                  : NULL;
    if (!v->sparse)
        return (AttendChoice){ATTEND_DENSE, 0, why};
    if (never)
        return (AttendChoice){ATTEND_DENSE, 0, arena_printf(m->arena, "%s; not sparse: %s", why, never)};
    if (o->alpha >= 0)
        sparse_set_alpha(v, o->alpha);
    if (sparse_read(v).alpha == 0)
        return (AttendChoice){ATTEND_DENSE, 0, arena_printf(m->arena, "%s; an alpha of 0 keeps all", why)};
    if (o->sparse == SPARSE_AUTO)
        return (AttendChoice){ATTEND_DENSE, 0, arena_printf(m->arena, "%s; %s", why, weigh(g, n, o))};
    why = arena_printf(m->arena, "asked for, alpha %g", sparse_read(v).alpha);
    return (AttendChoice){ATTEND_SPARSE, 0, why};
}

/* ==== The pass ==== */

/* Sparse was asked for: it must be possible somewhere. */
static void check_asked(Module *m) {
    const Variant *first = NULL;
    for (int i = 0; i < m->variants.n && !first; i++)
        first = m->variants.v[i].sparse ? &m->variants.v[i] : NULL;
    if (!first)
        diag_error(m->diag, NO_LOC, "sparse attention is asked for, and no variant of %s has a sparse method", m->name);
    else if (!sparse_possible(m))
        diag_error(
            m->diag, first->loc,
            "variant '%s' cannot attend sparse as asked for: it is used by the first layers only, which stay dense",
            first->name);
}

bool pass_choose_attention(Module *m, const PassOptions *o) {
    bool changed = false;
    if (o->sparse == SPARSE_ON)
        check_asked(m);
    for (int i = 0; i < m->graphs.n; i++) {
        Graph *g = m->graphs.v[i];
        int64_t seen = 0;
        for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
            const Node *n = ir_get(g, id);
            if (n->op != OP_ATTEND || !n->group)
                continue;
            Group *group = &g->groups.v[n->group - 1];
            changed = choose(&group->decode, (AttendChoice){ATTEND_SPLIT, 0, "at most 16 rows"}) || changed;
            changed = choose(&group->prefill, prefill_way(g, n, o, &seen)) || changed;
        }
    }
    return changed;
}
