/* verify.c - every invariant of a module, checked from scratch.
 *
 * Runs on parsed text as well as on what passes built, so nothing is taken on trust: a node is looked
 * at only after the ones before it were found sound, and liveness is worked out here a second time
 * rather than shared with plan-memory, whose mistakes it is to find. Every breach is one located
 * error; a graph with broken nodes is not looked at further.
 */
#include "ir/sparse.h"

#include <stdlib.h>
#include <string.h>

enum { SLAB_ALIGN = 64 };

typedef struct Checker {
    const Module *m;
    const Graph *g;
    Arena *scratch;
    bool ok;
} Checker;

__attribute__((format(printf, 3, 4))) static bool breach(Checker *c, SrcLoc at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_error(c->m->diag, at, "%s", arena_vprintf(c->scratch, fmt, ap));
    va_end(ap);
    c->ok = false;
    return false;
}

static const char *label(const Node *n) {
    return n->name ? n->name : op_info(n->op)->name;
}

/* ==== Declarations ==== */

static void check_weight(Checker *c, const Weight *w) {
    const Type *t = &w->type;
    if ((unsigned)t->dtype >= DT_COUNT || dtype_info(t->dtype)->gguf_id < 0 || t->rank < 0 || t->rank > MAX_DIMS) {
        breach(c, w->loc, "weight '%s' has no tensor type", w->name);
        return;
    }
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] < 1) {
            breach(c, w->loc, "weight '%s' has a bad dimension", w->name);
            return;
        }
    int block = dtype_info(t->dtype)->block_elems;
    int64_t row = t->rank ? t->dim[t->rank - 1] : 1;
    if (row % block)
        breach(c, w->loc, "weight '%s': rows of %lld elements are not whole %s blocks of %d", w->name, (long long)row,
               dtype_name(t->dtype), block);
}

/* Bytes of a position in one plane; 0 when heads are not whole blocks. */
static int64_t plane_row(int heads, DType t, int dim) {
    return dim % dtype_info(t)->block_elems ? 0 : heads * (int64_t)dtype_row_bytes(t, dim);
}

static void check_cache(Checker *c, const Cache *cache) {
    const KvLayout *l = &cache->layout;
    if (l->heads < 1 || l->k_dim < 1 || l->v_dim < 1 || !kv_storable(l->k_type) || !kv_storable(l->v_type)) {
        breach(c, cache->loc, "cache '%s' has no sound shape", cache->name);
        return;
    }
    int64_t k_row = plane_row(l->heads, l->k_type, l->k_dim), v_row = plane_row(l->heads, l->v_type, l->v_dim), bytes;
    if (!k_row || !v_row) {
        breach(c, cache->loc, "cache '%s': heads are not whole blocks of their element type", cache->name);
        return;
    }
    if (!l->planned)
        return;
    if (l->k_row != k_row || l->v_row != v_row || __builtin_mul_overflow(l->capacity, k_row + v_row, &bytes) ||
        bytes != l->bytes)
        breach(c, cache->loc, "cache '%s': rows of %lld and %lld bytes times a capacity of %lld do not fit its plan",
               cache->name, (long long)k_row, (long long)v_row, (long long)l->capacity);
    if (l->ring && (l->lookback < 0 || l->capacity <= l->lookback))
        breach(c, cache->loc, "cache '%s': a ring of %lld positions cannot serve a look-back of %lld", cache->name,
               (long long)l->capacity, (long long)l->lookback);
}

/* Which of q, k, s, h a part of a variant may read. */
static void check_scalar(Checker *c, const Variant *v, const char *part, const char *allowed, const Scalar *e) {
    if (!e)
        return;
    char letter = e->op == SC_Q ? 'q' : e->op == SC_K ? 'k' : e->op == SC_S ? 's' : e->op == SC_H ? 'h' : 0;
    if (letter && !strchr(allowed, letter))
        breach(c, e->loc, "variant '%s': %s cannot read %c", v->name, part, letter);
    if (e->op == SC_TABLE &&
        (e->weight < 0 || e->weight >= c->m->weights.n || c->m->weights.v[e->weight].type.rank != 1))
        breach(c, e->loc, "variant '%s': a table must be a weight of one dimension", v->name);
    for (int i = 0; i < 3; i++)
        check_scalar(c, v, part, allowed, e->arg[i]);
}

static void check_variant(Checker *c, const Variant *v) {
    if (!v->visible)
        breach(c, v->loc, "variant '%s' does not say what is visible", v->name);
    check_scalar(c, v, "visible", "qkh", v->visible);
    check_scalar(c, v, "score", "sqkh", v->score);
    check_scalar(c, v, "sink", "h", v->sink);
    int arg;
    const char *problem = v->visible ? sparse_problem(c->scratch, v, &arg) : NULL;
    if (problem)
        breach(c, v->loc, "variant '%s': %s", v->name, problem);
}

/* ==== Nodes ==== */

static bool check_attrs(Checker *c, const Node *n) {
    const OpInfo *o = op_info(n->op);
    for (int i = 0; i < o->n_attrs; i++) {
        int64_t count = o->attr_kind[i] == 'w'   ? c->m->weights.n
                        : o->attr_kind[i] == 'c' ? c->m->caches.n
                        : o->attr_kind[i] == 'v' ? c->m->variants.n
                                                 : INT64_MAX;
        if (count < INT64_MAX && (n->attr[i].i < 0 || n->attr[i].i >= count))
            return breach(c, n->loc, "%s: %s is out of range", label(n), o->attr_name[i]);
        if (o->attr_kind[i] == 's' && !n->attr[i].s)
            return breach(c, n->loc, "%s: no %s", label(n), o->attr_name[i]);
    }
    return true;
}

static bool check_node(Checker *c, NodeId id, NameMap *names) {
    const Node *n = ir_get(c->g, id);
    if (n->op <= OP_NONE || n->op >= OP_COUNT)
        return breach(c, n->loc, "node %u has no op", id);
    const OpInfo *o = op_info(n->op);
    if (n->n_in < o->min_in || n->n_in > o->max_in)
        return breach(c, n->loc, "%s has %d operands", label(n), n->n_in);
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] == 0 || n->in[i] >= id)
            return breach(c, n->loc, "%s: operand %d does not come before it", label(n), i + 1);
    if (!check_attrs(c, n))
        return false;
    bool leaf = o->flags & OPF_LEAF;
    if (leaf != (n->name == NULL))
        return breach(c, n->loc, leaf ? "leaf '%s' has a name" : "a node of op '%s' has no name", label(n));
    if (!leaf) {
        if (namemap_get(names, n->name) >= 0)
            return breach(c, n->loc, "two nodes are called '%s'", n->name);
        namemap_put(names, n->name, (int)id);
    }
    Type t;
    if (!ir_infer(c->g, n, &t)) {
        c->ok = false;
        return false;
    }
    if (!type_same(&t, &n->type))
        return breach(c, n->loc, "%s has type %s, but %s gives %s", label(n), type_text(c->scratch, &n->type), o->name,
                      type_text(c->scratch, &t));
    return true;
}

/* ==== Outputs ==== */

static void check_outputs(Checker *c) {
    const Graph *g = c->g;
    NameMap *seen = namemap_new(c->scratch);
    static const char *const word[] = {[OUT_EMIT] = "emit", [OUT_TAP] = "tap", [OUT_KEEP] = "keep"};
    for (int i = 0; i < g->outputs.n; i++) {
        const Output *o = &g->outputs.v[i];
        if (o->node == 0 || o->node >= (NodeId)g->nodes.n) {
            breach(c, o->loc, "%s %s is no node", word[o->kind], o->name);
            continue;
        }
        const char *key = arena_printf(c->scratch, "%s %s", word[o->kind], o->name);
        if (namemap_get(seen, key) >= 0)
            breach(c, o->loc, "%s is written twice", key);
        namemap_put(seen, key, i);
        bool kv = ir_type(g, o->node)->dtype == DT_KV;
        if (kv != (o->kind == OUT_KEEP))
            breach(c, o->loc, kv ? "%s: the state of a cache can only be kept" : "%s: only a cache can be kept", key);
        else if (kv && strcmp(c->m->caches.v[ir_cache_of(g, o->node)].name, o->name) != 0)
            breach(c, o->loc, "%s is the state of cache '%s'", key, c->m->caches.v[ir_cache_of(g, o->node)].name);
    }
}

/* ==== Caches: stored at most once, kept when stored, not read after being replaced ==== */

static void check_cache_use(Checker *c) {
    const Graph *g = c->g;
    NodeId *store = arena_array(c->scratch, (size_t)c->m->caches.n + 1, sizeof *store);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        if (n->op != OP_KV_STORE && n->op != OP_ATTEND)
            continue;
        NodeId kv = n->in[n->op == OP_KV_STORE ? 0 : 1];
        int i = ir_cache_of(g, kv);
        const Cache *cache = &c->m->caches.v[i];
        if (n->op == OP_ATTEND) {
            if (store[i] && kv != store[i])
                breach(c, n->loc, "%s reads cache '%s' as it was before %s replaced it", n->name, cache->name,
                       label(ir_get(g, store[i])));
            continue;
        }
        if (store[i])
            breach(c, n->loc, "cache '%s' is stored twice", cache->name);
        if (cache->from)
            breach(c, n->loc, "cache '%s' belongs to %s and cannot be stored here", cache->name, cache->from);
        store[i] = id;
    }
    for (int i = 0; i < c->m->caches.n; i++)
        if (store[i] && ir_find_output(g, OUT_KEEP, c->m->caches.v[i].name) != store[i])
            breach(c, ir_get(g, store[i])->loc, "cache '%s' is stored, but the new state is not kept",
                   c->m->caches.v[i].name);
}

/* ==== Groups ==== */

static bool check_members(Checker *c, const int *mains) {
    const Graph *g = c->g;
    for (int i = 0; i < g->groups.n; i++) {
        const FamilyInfo *f = family_info(g->groups.v[i].family);
        if (mains[i + 1] > f->most_mains || (mains[i + 1] == 0 && f->main == OP_LINEAR))
            return breach(c, g->groups.v[i].loc, "group g%d of family %s has %d %s", i + 1, f->name, mains[i + 1],
                          f->main == OP_NONE ? "main ops" : op_info(f->main)->name);
    }
    return true;
}

static bool choice_ok(const AttendChoice *c) {
    return (unsigned)c->way < ATTEND_WAYS && (c->way == ATTEND_NONE) == (c->why == NULL) &&
           (c->way == ATTEND_SPARSE ? c->from >= 0 : c->from == 0);
}

/* Sparse is a way of the prefill phase, for a variant that says how, among stored keys. */
static void check_sparse(Checker *c, const Node *n) {
    const Group *group = n->group ? &c->g->groups.v[n->group - 1] : NULL;
    if (!group || n->op != OP_ATTEND || (group->decode.way != ATTEND_SPARSE && group->prefill.way != ATTEND_SPARSE))
        return;
    const Variant *v = &c->m->variants.v[n->attr[0].i];
    if (group->decode.way == ATTEND_SPARSE)
        breach(c, n->loc, "%s cannot attend sparse in decode", label(n));
    else if (!v->sparse)
        breach(c, n->loc, "%s cannot attend sparse: variant '%s' has no sparse method", label(n), v->name);
    else if (n->n_in > 3)
        breach(c, n->loc, "%s cannot attend sparse: it counts rows that are not stored", label(n));
}

/* What choose-matmul and choose-attention wrote is for this family, and kernels can do it. */
static void check_choices(Checker *c) {
    const Graph *g = c->g;
    int *tile_k = arena_array(c->scratch, (size_t)g->groups.n + 1, sizeof *tile_k);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        check_sparse(c, n);
        if (!ir_is_matmul(n))
            continue;
        int k = dtype_info(ir_type(g, n->in[1])->dtype)->tile_k;
        tile_k[n->group] = k > tile_k[n->group] ? k : tile_k[n->group];
    }
    for (int i = 0; i < g->groups.n; i++) {
        const Group *group = &g->groups.v[i];
        bool matmul = family_of_matmuls(group->family);
        bool columns_ok = group->columns == 64 || group->columns == 128 || group->columns == 256;
        if ((group->warps || group->columns) &&
            (!matmul || group->warps < 1 || !columns_ok || group->columns < tile_k[i + 1]))
            breach(c, group->loc, "group g%d of family %s cannot be computed by %d warps of %d columns", i + 1,
                   family_info(group->family)->name, group->warps, group->columns);
        bool chosen = group->decode.way || group->prefill.way;
        if (!choice_ok(&group->decode) || !choice_ok(&group->prefill) || (chosen && group->family != FAM_ATTENTION))
            breach(c, group->loc, "group g%d of family %s cannot attend as chosen", i + 1,
                   family_info(group->family)->name);
    }
}

/* What a group does early reads nothing of the group ahead, which does not run beside the one before. */
static void check_early(Checker *c) {
    const Graph *g = c->g;
    for (int k = 1; k <= g->groups.n; k++) {
        const Group *group = &g->groups.v[k - 1];
        const Family family = group->early == EARLY_MAIN ? FAM_MATMUL : FAM_EXPERTS;
        if (group->early && (group->family != family || k == 1 || !family_of_matmuls(g->groups.v[k - 2].family) ||
                             g->groups.v[k - 2].early == EARLY_MAIN))
            breach(c, group->loc, "group g%d cannot be early", k);
    }
    if (!c->ok)
        return;
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        const Early early = n->group ? g->groups.v[n->group - 1].early : EARLY_NONE;
        if (!early || !ir_is_matmul(n))
            continue;
        const int from = ir_get(g, ir_view_base(g, n->in[early == EARLY_IDS ? 2 : 0]))->group;
        if (from && from == n->group - 1)
            breach(c, n->loc, "%s is early and reads what group g%d computes", label(n), from);
    }
}

/* Members fit their family; all linears of a group read one value, which others compute; no group waits for itself. */
static void check_groups(Checker *c) {
    const Graph *g = c->g;
    int *mains = arena_array(c->scratch, (size_t)g->groups.n + 1, sizeof *mains);
    NodeId *input = arena_array(c->scratch, (size_t)g->groups.n + 1, sizeof *input);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        if (!n->group)
            continue;
        if (n->group < 0 || n->group > g->groups.n || op_info(n->op)->flags & OPF_LEAF) {
            breach(c, n->loc, "%s cannot be in group g%d", label(n), n->group);
            return;
        }
        bool is_main = false;
        for (int f = 0; f < FAM_COUNT; f++)
            is_main = is_main || family_info((Family)f)->main == n->op;
        if (!is_main)
            continue;
        const FamilyInfo *f = family_info(g->groups.v[n->group - 1].family);
        if (f->main != n->op) {
            breach(c, n->loc, "%s cannot be in group g%d, which is of family %s", label(n), n->group, f->name);
            return;
        }
        if (n->op == OP_LINEAR && mains[n->group] && input[n->group] != n->in[0])
            breach(c, n->loc, "the linears of group g%d do not read one value", n->group);
        for (int i = 0; n->op != OP_ATTEND && i < n->n_in; i++)
            if (ir_get(g, n->in[i])->group == n->group)
                breach(c, n->loc, "%s reads %s, which its own group g%d computes", n->name, label(ir_get(g, n->in[i])),
                       n->group);
        input[n->group] = n->in[0];
        mains[n->group]++;
    }
    int count;
    NodeId culprit;
    if (g->groups.n && check_members(c, mains) && !grouper_order(grouper_new((Graph *)g, c->scratch), &count, &culprit))
        breach(c, ir_get(g, culprit)->loc, "%s: groups wait for each other in a circle", label(ir_get(g, culprit)));
}

/* ==== The slab: regions of values that live at the same time are disjoint ====
 * A group runs as one: it reads its operands and writes its results at any time in between. So a value
 * lives from the first node of its group to the last node of the last group that reads it. One that
 * only its own group reads needs no place. A group that is early runs beside the one ahead of it.
 */

typedef struct Region {
    int64_t begin, end;
    NodeId id, first, last; /* lives from node first to node last; nodes.n: an output */
} Region;

static bool in_slab(const Node *n) {
    return !(op_info(n->op)->flags & (OPF_LEAF | OPF_VIEW)) && n->type.dtype != DT_KV;
}

/* first[k], last[k]: the first and last member of group k. */
static void group_bounds(const Graph *g, NodeId *first, NodeId *last) {
    for (NodeId id = (NodeId)g->nodes.n - 1; id >= 1; id--)
        first[ir_get(g, id)->group] = id;
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++)
        last[ir_get(g, id)->group] = id;
}

/* Region of every value, with first and last; `end` is -1 for those that no other group reads. */
static Region *value_lives(const Graph *g, Arena *a) {
    size_t groups = (size_t)g->groups.n + 1;
    NodeId *first = arena_array(a, groups, sizeof *first), *last = arena_array(a, groups, sizeof *last);
    Region *r = arena_array(a, (size_t)g->nodes.n, sizeof *r);
    group_bounds(g, first, last);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        const bool early = ir_runs_beside(g, n->group);
        r[id] =
            (Region){0, n->group ? -1 : 0, id, n->group ? first[n->group - early] : id, n->group ? last[n->group] : id};
        for (int i = 0; i < n->n_in; i++) {
            NodeId base = ir_view_base(g, n->in[i]), until = n->group ? last[n->group] : id;
            r[base].last = until > r[base].last ? until : r[base].last;
            if (ir_get(g, base)->group != n->group)
                r[base].end = 0;
        }
    }
    for (int i = 0; i < g->outputs.n; i++) {
        Region *out = &r[ir_view_base(g, g->outputs.v[i].node)];
        out->last = (NodeId)g->nodes.n;
        out->end = 0;
    }
    return r;
}

/* Fills begin and end of a region; false after reporting. */
static bool find_region(Checker *c, Region *r) {
    const Graph *g = c->g;
    const Node *n = ir_get(g, r->id);
    int64_t bytes;
    if (n->slab < 0 || n->slab % SLAB_ALIGN)
        return breach(c, n->loc, "%s has no aligned place in the slab", n->name);
    if (__builtin_mul_overflow(type_row_elems(&n->type) * 4, type_rows(&n->type, g->slab_rows, g->slab_wanted),
                               &bytes) ||
        bytes > g->slab_bytes || n->slab > g->slab_bytes - bytes)
        return breach(c, n->loc, "%s reaches beyond the slab", n->name);
    r->begin = n->slab;
    r->end = n->slab + bytes;
    return true;
}

static int earlier_first(const void *x, const void *y) {
    const Region *a = x, *b = y;
    return a->first != b->first ? (a->first < b->first ? -1 : 1) : a->id < b->id ? -1 : a->id > b->id;
}

static void check_slab(Checker *c) {
    const Graph *g = c->g;
    Region *lives = value_lives(g, c->scratch);
    VEC(Region) regions = {0}, live = {0};
    for (NodeId id = 1; id < (NodeId)g->nodes.n && c->ok; id++) {
        const Node *n = ir_get(g, id);
        if (in_slab(n) && g->slab_rows && lives[id].end == 0) {
            if (find_region(c, &lives[id]))
                vec_push(c->scratch, &regions, lives[id]);
        } else if (n->slab >= 0) {
            breach(c, n->loc, "%s has a place in a slab, but is not to have one", label(n));
        }
    }
    if (!c->ok || !regions.n)
        return;
    qsort(regions.v, (size_t)regions.n, sizeof *regions.v, earlier_first);
    for (int k = 0; k < regions.n; k++) {
        Region r = regions.v[k];
        int kept = 0;
        for (int i = 0; i < live.n; i++) {
            if (live.v[i].last < r.first)
                continue; /* read for the last time before this one is written */
            if (live.v[i].begin < r.end && r.begin < live.v[i].end)
                breach(c, ir_get(g, r.id)->loc, "%s overwrites %s, which is still needed", ir_get(g, r.id)->name,
                       ir_get(g, live.v[i].id)->name);
            live.v[kept++] = live.v[i];
        }
        live.n = kept;
        vec_push(c->scratch, &live, r);
    }
}

/* ==== Module ==== */

static void check_graph(Checker *c) {
    NameMap *names = namemap_new(c->scratch);
    for (NodeId id = 1; id < (NodeId)c->g->nodes.n; id++)
        if (!check_node(c, id, names))
            return;
    check_outputs(c);
    if (!c->ok)
        return;
    check_cache_use(c);
    check_groups(c);
    if (c->ok)
        check_choices(c);
    if (c->ok)
        check_early(c);
    if (c->ok)
        check_slab(c);
}

bool ir_verify(const Module *m) {
    Checker c = {.m = m, .scratch = arena_new(), .ok = true};
    for (int i = 0; i < m->weights.n; i++)
        check_weight(&c, &m->weights.v[i]);
    for (int i = 0; i < m->caches.n; i++)
        check_cache(&c, &m->caches.v[i]);
    for (int i = 0; i < m->variants.n; i++)
        check_variant(&c, &m->variants.v[i]);
    for (int i = 0; c.ok && i < m->graphs.n; i++) {
        c.g = m->graphs.v[i];
        check_graph(&c);
    }
    arena_free(c.scratch);
    return c.ok;
}
