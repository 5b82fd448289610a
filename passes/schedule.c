/* schedule.c - the order of launches: groups stand together, one after another.
 *
 *   before                                            after
 *     %q = linear %x, @wq : f32[T, 64] in g1            group g1 matmul
 *     %y = exp %z : f32[T, 8]                           group g2 rowwise
 *     %k = linear %x, @wk : f32[T, 16] in g1            %q = linear %x, @wq : f32[T, 64] in g1
 *                                                       %k = linear %x, @wk : f32[T, 16] in g1
 *                                                       %y = exp %z : f32[T, 8] in g2
 *
 * A group comes as soon as all it waits for is there. What no pass has grouped becomes rowwise groups: nodes of as
 * many rows share one, however far apart, unless it would wait for itself. A product with chosen rows of a matrix has
 * one to itself, whose launch many blocks share. Groups are numbered anew.
 *
 * requires  the fusing passes
 * keeps     every node and every output
 * breaks    the memory plan
 */
#include "passes/passes_int.h"

/* DIM_T, DIM_R, or 0: the same for every call. */
static int64_t rows_of(const Node *n) {
    return type_has_rows(&n->type) ? n->type.dim[0] : 0;
}

/* Puts node `id` into the latest of the leftover groups, numbers `first` and up, that can take it. */
static bool join_leftovers(Fuser *f, int first, const int64_t *rows, NodeId id) {
    for (int k = f->g->groups.n; k >= first; k--)
        if (rows[k - first] == rows_of(ir_get(f->g, id)) && fuser_take(f, k, id))
            return true;
    return false;
}

static bool stands_alone(const Node *n) {
    return n->op == OP_LINEAR_AT;
}

static bool group_leftovers(Fuser *f) {
    int count, first = f->g->groups.n + 1;
    NodeId culprit;
    int *order = grouper_order(f->grouper, &count, &culprit);
    if (!order)
        ICE("groups wait for each other");
    int64_t *rows = arena_array(f->scratch, (size_t)count + 1, sizeof *rows); /* of each leftover group */
    for (int i = 0; i < count; i++) {
        NodeId id = order[i] < 0 ? (NodeId)-order[i] : 0;
        const Node *n = ir_get(f->g, id);
        if (id && (stands_alone(n) || !join_leftovers(f, first, rows, id)))
            rows[fuser_start(f, FAM_ROWWISE, id) - first] = stands_alone(n) ? INT64_MIN : rows_of(n);
    }
    return f->taken > 0;
}

Graph *graph_regrouped(const Graph *g, const int *order, int count, Arena *scratch) {
    Graph *to = ir_clone_empty(g);
    NodeId *map = arena_array(scratch, (size_t)g->nodes.n, sizeof *map);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++)
        if (op_info(ir_get(g, id)->op)->flags & OPF_LEAF)
            map[id] = ir_copy(to, g, id, map);
    for (int i = 0; i < count; i++) {
        const Group *old = &g->groups.v[order[i] - 1];
        int group = ir_group_new(to, old->family, old->loc);
        to->groups.v[group - 1] = *old;
        for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
            if (ir_get(g, id)->group != order[i])
                continue;
            map[id] = ir_copy(to, g, id, map);
            ir_get(to, map[id])->group = group;
        }
    }
    for (int i = 0; i < g->outputs.n; i++)
        ir_output(to, g->outputs.v[i].kind, g->outputs.v[i].name, map[g->outputs.v[i].node], g->outputs.v[i].loc);
    return to;
}

/* The graph with its nodes group by group, and the groups numbered in that order. */
static Graph *rebuild(Fuser *f) {
    int count;
    NodeId culprit;
    const int *order = grouper_order(f->grouper, &count, &culprit);
    if (!order)
        ICE("groups wait for each other");
    return graph_regrouped(f->g, order, count, f->scratch);
}

bool graph_in_order(const Graph *g) {
    int last = 0;
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        int group = ir_get(g, id)->group;
        if (op_info(ir_get(g, id)->op)->flags & OPF_LEAF)
            continue;
        if (group < last || group > last + 1)
            return false;
        last = group;
    }
    return last == g->groups.n;
}

bool pass_schedule(Module *m, const PassOptions *o) {
    (void)o;
    bool changed = false;
    for (int i = 0; i < m->graphs.n; i++) {
        Fuser f = fuser_begin(m->graphs.v[i]);
        bool grouped = group_leftovers(&f);
        if (!graph_in_order(m->graphs.v[i])) {
            m->graphs.v[i] = rebuild(&f);
            changed = true;
        }
        fuser_end(&f);
        changed = changed || grouped;
    }
    return changed;
}
