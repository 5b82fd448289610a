/* plan_memory.c - gives every computed value a place in one slab, by the time it lives.
 *
 *   before   %x = add %h, %a : f32[T, 640]
 *   after    %x = add %h, %a : f32[T, 640] at 1310720
 *
 * A value lives from its node to the last node that reads it, through views too; an output lives to
 * the end. A group counts as one node, since it reads and writes in any order; a value that only its
 * own group reads never leaves the kernel and gets no place. What an `early` group makes lives from the group ahead on,
 * beside which it runs. Two values that live at the same time get disjoint places;
 * a node's result never takes the place of its own operands. The largest go first, each to the lowest gap that holds
 * it: a few percent worse than the best known packings, and simple. Sizes are for the longest
 * call and the most wanted rows. Leaves have
 * memory of their own, views share their operand's, caches are not in the slab.
 *
 * requires  graphs are final, groups stand together (schedule)
 * keeps     the graphs
 * breaks    nothing; any pass that rebuilds a graph breaks this one
 */
#include "passes/passes_int.h"

#include <stdlib.h>

enum { SLAB_ALIGN = 64 };

typedef struct Span {
    NodeId id, first, last; /* lives from node first to node last, both included */
    int64_t bytes, at;
} Span;

typedef VEC(Span) SpanVec;

static bool needs_place(const Node *n) {
    return !(op_info(n->op)->flags & (OPF_LEAF | OPF_VIEW)) && n->type.dtype != DT_KV;
}

/* Most rows of a call, and wanted at its output. */
typedef struct Rows {
    int64_t T, R;
} Rows;

static int64_t value_bytes(const Type *t, Rows most) {
    int64_t bytes = type_row_elems(t) * 4 * type_rows(t, most.T, most.R);
    return (bytes + SLAB_ALIGN - 1) / SLAB_ALIGN * SLAB_ALIGN;
}

/* first[k], last[k]: ids of the first and last member of group k. */
static void group_ends(const Graph *g, NodeId *first, NodeId *last) {
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        int k = ir_get(g, id)->group;
        first[k] = first[k] ? first[k] : id;
        last[k] = id;
    }
}

/* Where the life of each value ends, as an id; 0 for one that only its own group reads. */
static NodeId *last_reads(const Graph *g, const NodeId *group_last, Arena *scratch) {
    NodeId *last = arena_array(scratch, (size_t)g->nodes.n, sizeof *last);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        NodeId until = n->group ? group_last[n->group] : id;
        if (!n->group)
            last[id] = id;
        for (int i = 0; i < n->n_in; i++) {
            NodeId base = ir_view_base(g, n->in[i]);
            bool inside = n->group && ir_get(g, base)->group == n->group;
            if (!inside && until > last[base])
                last[base] = until;
        }
    }
    for (int i = 0; i < g->outputs.n; i++)
        last[ir_view_base(g, g->outputs.v[i].node)] = (NodeId)g->nodes.n;
    return last;
}

static SpanVec find_spans(const Graph *g, Rows most, Arena *scratch) {
    size_t groups = (size_t)g->groups.n + 1;
    NodeId *first = arena_array(scratch, groups, sizeof *first), *end = arena_array(scratch, groups, sizeof *end);
    group_ends(g, first, end);
    NodeId *last = last_reads(g, end, scratch);
    SpanVec spans = {0};
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        if (!needs_place(n) || !last[id])
            continue;
        const bool early = ir_runs_beside(g, n->group);
        NodeId from = n->group ? first[n->group - early] : id, until = n->group ? end[n->group] : id;
        Span s = {id, from, last[id] > until ? last[id] : until, value_bytes(&n->type, most), -1};
        vec_push(scratch, &spans, s);
    }
    return spans;
}

static int larger_first(const void *x, const void *y) {
    const Span *a = x, *b = y;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? 1 : -1;
    return a->id < b->id ? -1 : 1;
}

/* Puts a span at the lowest gap among those placed, which are sorted by place, and in between them. */
static void place(SpanVec *placed, Span s, Arena *scratch) {
    int64_t at = 0;
    for (int i = 0; i < placed->n; i++) {
        const Span *p = &placed->v[i];
        if (p->last < s.first || s.last < p->first)
            continue; /* never there at the same time */
        if (at + s.bytes <= p->at)
            break;
        if (p->at + p->bytes > at)
            at = p->at + p->bytes;
    }
    s.at = at;
    vec_push(scratch, placed, s);
    for (int i = placed->n - 1; i > 0 && placed->v[i - 1].at > at; i--) {
        placed->v[i] = placed->v[i - 1];
        placed->v[i - 1] = s;
    }
}

static bool plan_graph(Graph *g, Rows most) {
    Arena *scratch = arena_new();
    SpanVec spans = find_spans(g, most, scratch), placed = {0};
    if (spans.n)
        qsort(spans.v, (size_t)spans.n, sizeof *spans.v, larger_first);
    int64_t bytes = 0;
    bool changed = g->slab_rows != most.T || g->slab_wanted != most.R;
    int64_t *before = arena_array(scratch, (size_t)g->nodes.n, sizeof *before);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        before[id] = ir_get(g, id)->slab;
        ir_get(g, id)->slab = -1;
    }
    for (int i = 0; i < spans.n; i++)
        place(&placed, spans.v[i], scratch);
    for (int i = 0; i < placed.n; i++) {
        const Span *s = &placed.v[i];
        Node *n = ir_get(g, s->id);
        n->slab = s->at;
        bytes = s->at + s->bytes > bytes ? s->at + s->bytes : bytes;
    }
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++)
        changed = changed || before[id] != ir_get(g, id)->slab;
    g->slab_bytes = bytes;
    g->slab_rows = most.T;
    g->slab_wanted = most.R;
    arena_free(scratch);
    return changed;
}

/* True when every value can have a size, and so can all of them together. */
static bool sizes_fit(const Module *m, Rows most) {
    int64_t one, all;
    for (int i = 0; i < m->graphs.n; i++) {
        const Graph *g = m->graphs.v[i];
        for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
            const Node *n = ir_get(g, id);
            if (!needs_place(n) ||
                (!__builtin_mul_overflow(type_row_elems(&n->type) * 4, type_rows(&n->type, most.T, most.R), &one) &&
                 !__builtin_mul_overflow(one, (int64_t)g->nodes.n + 1, &all)))
                continue;
            diag_error(m->diag, n->loc, "%s is too large for calls of %lld rows", n->name, (long long)most.T);
            return false;
        }
    }
    return true;
}

bool pass_plan_memory(Module *m, const PassOptions *o) {
    bool changed = false;
    Rows most = {o->chunk, o->rows < o->chunk ? o->rows : o->chunk};
    if (!sizes_fit(m, most))
        return false;
    for (int i = 0; i < m->graphs.n; i++)
        changed = plan_graph(m->graphs.v[i], most) || changed;
    return changed;
}
