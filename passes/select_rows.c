/* select_rows.c - moves `rows` up, so that what only the wanted rows need is computed for them alone.
 *
 *   before                                          after
 *     %a = attend %q, $kv.0, pos {..} : f32[T, 4, 8]   %q.rows   = rows %q, rows : f32[R, 4, 8]
 *     %f = reshape %a : f32[T, 32]                     %pos.rows = rows pos, rows : i32[R]
 *     %l = linear %f, @head : f32[T, 99]               %a = attend %q.rows, $kv.0, %pos.rows {..} : f32[R, 4, 8]
 *     %r = rows %l, rows : f32[R, 99]                  %f = reshape %a : f32[R, 32]
 *     emit logits = %r                                 %l = linear %f, @head : f32[R, 99]
 *                                                      emit logits = %l
 *
 * A node is moved when every use of it is a `rows` with the same ids, or an operand of a moved node:
 * then nothing is computed twice. It must be rowwise (flag R), or an attend to a cache (whose rows
 * are independent too; not one with own rows, whose keys need all positions). Anything else that
 * meets a moved node, be it an input, a value somebody needs in full, or a wanted tap, gets a `rows`
 * of its own. Demand is worked out backwards in one sweep, the graph is rebuilt in a second.
 *
 * requires  taps that are not wanted are gone (simplify), else they hold everything at T rows
 * keeps     every output and its value
 * breaks    the memory plan
 */
#include "passes/passes_int.h"

typedef struct Selector {
    const Graph *from;
    Graph *to;
    bool *live;
    bool *full;     /* some use needs all T rows */
    NodeId *wanted; /* the ids input by which uses select rows; 0 none */
    NodeId *map;    /* old -> new, all rows */
    NodeId *picked; /* old -> new, wanted rows, of moved nodes */
    bool changed;
} Selector;

static bool has_t_rows(const Graph *g, NodeId id) {
    const Type *t = ir_type(g, id);
    return t->rank > 0 && t->dim[0] == DIM_T;
}

/* A `rows` whose ids are an input, so that they are there before anything else. */
static bool is_rows(const Graph *g, const Node *n) {
    return n->op == OP_ROWS && ir_get(g, n->in[1])->op == OP_INPUT;
}

static bool is_moved(const Selector *s, NodeId id) {
    const Node *n = ir_get(s->from, id);
    bool can = op_info(n->op)->flags & OPF_ROWWISE || (n->op == OP_ATTEND && n->n_in == 3);
    return can && s->wanted[id] && !s->full[id] && has_t_rows(s->from, id);
}

static void want_rows(Selector *s, NodeId id, NodeId ids) {
    if (s->wanted[id] && s->wanted[id] != ids)
        s->full[id] = true; /* two different selections: compute it once, pick twice */
    s->wanted[id] = ids;
}

static void find_demand(Selector *s) {
    const Graph *g = s->from;
    for (int i = 0; i < g->outputs.n; i++) {
        s->live[g->outputs.v[i].node] = true;
        s->full[g->outputs.v[i].node] = true;
    }
    graph_mark_live(g, s->live);
    for (NodeId id = (NodeId)g->nodes.n - 1; id > 0; id--) {
        const Node *n = ir_get(g, id);
        bool moved = is_moved(s, id);
        for (int i = 0; s->live[id] && i < n->n_in; i++) {
            if (moved && has_t_rows(g, n->in[i]))
                want_rows(s, n->in[i], s->wanted[id]);
            else if (is_rows(g, n) && i == 0)
                want_rows(s, n->in[0], n->in[1]);
            else
                s->full[n->in[i]] = true;
        }
    }
}

/* The wanted rows of an old node: itself if it was moved, else a `rows` of it, which stands at the
 * node's place, or at its reader's when the node is an input. */
static NodeId pick(Selector *s, NodeId id, NodeId ids, SrcLoc reader) {
    if (is_moved(s, id))
        return s->picked[id];
    const Node *n = ir_get(s->from, id);
    bool input = n->op == OP_INPUT;
    const char *name = arena_printf(s->to->module->arena, "%s.rows", input ? n->attr[0].s : n->name);
    return ir_op2(s->to, OP_ROWS, s->map[id], s->map[ids], name, input ? reader : n->loc);
}

static NodeId move(Selector *s, NodeId id) {
    const Node *n = ir_get(s->from, id);
    NodeId in[MAX_INPUTS];
    for (int i = 0; i < n->n_in; i++)
        in[i] = has_t_rows(s->from, n->in[i]) ? pick(s, n->in[i], s->wanted[id], n->loc) : s->map[n->in[i]];
    Type t = n->type;
    t.dim[0] = DIM_R;
    s->changed = true;
    return ir_node(s->to, n->op, in, n->n_in, n->attr, &t, n->name, n->loc);
}

/* A `rows` that stays keeps its name; one whose operand was moved is that operand. */
static NodeId place_rows(Selector *s, NodeId id) {
    NodeId x = ir_get(s->from, id)->in[0];
    return is_moved(s, x) ? s->picked[x] : ir_copy(s->to, s->from, id, s->map);
}

static void rebuild(Selector *s) {
    const Graph *g = s->from;
    for (int i = 0; i < g->inputs.n; i++) /* ids are needed early */
        s->map[g->inputs.v[i]] = ir_copy(s->to, g, g->inputs.v[i], s->map);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        if (!s->live[id] && !(op_info(ir_get(g, id)->op)->flags & OPF_LEAF))
            continue;
        if (is_moved(s, id))
            s->picked[id] = move(s, id);
        else if (is_rows(g, ir_get(g, id)))
            s->map[id] = place_rows(s, id);
        else
            s->map[id] = ir_copy(s->to, g, id, s->map);
    }
    for (int i = 0; i < g->outputs.n; i++) {
        const Output *o = &g->outputs.v[i];
        ir_output(s->to, o->kind, o->name, s->map[o->node], o->loc);
    }
}

static bool select_rows(Module *m, int i, Arena *scratch) {
    const Graph *g = m->graphs.v[i];
    size_t n = (size_t)g->nodes.n;
    Selector s = {.from = g, .to = ir_clone_empty(g)};
    s.live = arena_array(scratch, n, sizeof *s.live);
    s.full = arena_array(scratch, n, sizeof *s.full);
    s.wanted = arena_array(scratch, n, sizeof *s.wanted);
    s.map = arena_array(scratch, n, sizeof *s.map);
    s.picked = arena_array(scratch, n, sizeof *s.picked);
    find_demand(&s);
    rebuild(&s);
    if (s.changed)
        m->graphs.v[i] = s.to;
    return s.changed;
}

bool pass_select_rows(Module *m, const PassOptions *o) {
    (void)o;
    Arena *scratch = arena_new();
    bool changed = false;
    for (int i = 0; i < m->graphs.n; i++)
        changed = select_rows(m, i, scratch) || changed;
    arena_free(scratch);
    return changed;
}
