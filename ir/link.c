/* link.c - a drafter's graphs in its target's module: see module_link() in ir.h. */
#include "ir/ir.h"
#include <string.h>

/* Where the drafter's weights, caches and variants are in the target's module. */
typedef struct Link {
    Module *to;
    const Module *from;
    int *weight, *cache, *variant;
    bool ok;
} Link;

static const char *prefixed(const Link *l, const char *name) {
    return arena_printf(l->to->arena, "draft.%s", name);
}

static void link_weights(Link *l) {
    for (int i = 0; i < l->from->weights.n; i++) {
        Weight w = l->from->weights.v[i];
        const bool own = !w.from;
        w.name = own ? prefixed(l, w.name) : weight_tensor(&w);
        w.from = own ? l->from->name : NULL;
        const int known = module_weight(l->to, w.name);
        l->weight[i] = known >= 0 ? known : module_add_weight(l->to, w);
    }
}

static void link_caches(Link *l) {
    for (int i = 0; i < l->from->caches.n; i++) {
        Cache c = l->from->caches.v[i];
        if (c.from) {
            const char *name = strchr(c.name, '.') + 1; /* "target.kv.3" */
            l->cache[i] = module_cache(l->to, name);
            if (l->cache[i] < 0) {
                diag_error(l->to->diag, c.loc, "target '%s' has no cache '%s'", l->to->name, name);
                l->ok = false;
            }
            continue;
        }
        c.name = prefixed(l, c.name);
        l->cache[i] = module_add_cache(l->to, c);
    }
}

/* Expressions read weights by their number. */
static const Scalar *link_scalar(const Link *l, const Scalar *s) {
    if (!s)
        return NULL;
    Scalar *copy = arena_alloc(l->to->arena, sizeof *copy);
    *copy = *s;
    for (int i = 0; i < 3; i++)
        copy->arg[i] = link_scalar(l, s->arg[i]);
    if (copy->op == SC_TABLE)
        copy->weight = l->weight[s->weight];
    return copy;
}

static void link_variants(Link *l) {
    for (int i = 0; i < l->from->variants.n; i++) {
        Variant v = l->from->variants.v[i];
        v.name = prefixed(l, v.name);
        v.visible = link_scalar(l, v.visible);
        v.score = link_scalar(l, v.score);
        v.sink = link_scalar(l, v.sink);
        l->variant[i] = module_add_variant(l->to, v);
    }
}

/* The node with the numbers it has in the target's module. */
static NodeId link_node(const Link *l, Graph *to, const Graph *from, NodeId id, const NodeId *map) {
    const Node *n = ir_get(from, id);
    const OpInfo *o = op_info(n->op);
    if (n->op == OP_INPUT)
        return ir_input(to, n->attr[0].s, n->type, n->loc);
    NodeId in[MAX_INPUTS];
    Attr attr[MAX_ATTRS];
    for (int i = 0; i < n->n_in; i++)
        in[i] = map[n->in[i]];
    for (int i = 0; i < o->n_attrs; i++) {
        const int64_t k = n->attr[i].i;
        attr[i] = n->attr[i];
        if (o->attr_kind[i] == 'w')
            attr[i].i = l->weight[k];
        else if (o->attr_kind[i] == 'c')
            attr[i].i = l->cache[k];
        else if (o->attr_kind[i] == 'v')
            attr[i].i = l->variant[k];
    }
    return ir_node(to, n->op, in, n->n_in, attr, &n->type, n->name, n->loc);
}

static const char *output_name(const Link *l, const Output *o) {
    return o->kind == OUT_KEEP ? prefixed(l, o->name) : o->name;
}

static void link_graph(const Link *l, const Graph *g) {
    Graph *to = graph_new(l->to, g->name, g->loc);
    NodeId *map = arena_array(l->to->arena, (size_t)g->nodes.n, sizeof *map);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++)
        map[id] = link_node(l, to, g, id, map);
    for (int i = 0; i < g->outputs.n; i++) {
        const Output *o = &g->outputs.v[i];
        ir_output(to, o->kind, output_name(l, o), map[o->node], o->loc);
    }
    vec_push(l->to->arena, &l->to->graphs, to);
}

static bool entries_distinct(const Link *l) {
    bool ok = true;
    for (int i = 0; i < l->from->graphs.n; i++) {
        const Graph *g = l->from->graphs.v[i], *other = module_graph(l->to, g->name);
        if (!other)
            continue;
        diag_error(l->to->diag, g->loc, "drafter '%s' and its target both have an entry '%s'", l->from->name, g->name);
        diag_note(l->to->diag, other->loc, "the target's is here");
        ok = false;
    }
    return ok;
}

bool module_link(Module *target, const Module *drafter) {
    Arena *a = target->arena;
    Link l = {.to = target, .from = drafter, .ok = true};
    l.weight = arena_array(a, (size_t)drafter->weights.n + 1, sizeof *l.weight);
    l.cache = arena_array(a, (size_t)drafter->caches.n + 1, sizeof *l.cache);
    l.variant = arena_array(a, (size_t)drafter->variants.n + 1, sizeof *l.variant);
    if (!drafter->target || strcmp(drafter->target, target->name) != 0) {
        diag_error(target->diag, NO_LOC, "'%s' works for %s%s%s, not for '%s'", drafter->name,
                   drafter->target ? "target '" : "no target", drafter->target ? drafter->target : "",
                   drafter->target ? "'" : "", target->name);
        return false;
    }
    if (!entries_distinct(&l))
        return false;
    link_weights(&l);
    link_caches(&l);
    link_variants(&l);
    target->drafts = drafter->drafts;
    for (int i = 0; l.ok && i < drafter->graphs.n; i++)
        link_graph(&l, drafter->graphs.v[i]);
    return l.ok;
}
