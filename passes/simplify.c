/* simplify.c - drops what nobody reads, folds constants, removes ops that do nothing.
 *
 *   before                                                    after
 *     %n = rms_norm %h {eps=1e-06} : f32[T, 8]                  %x = rms_norm %h, @w {eps=1e-06} : f32[T, 8]
 *     %x = mul %n, @w : f32[T, 8]                               emit y = %x
 *     %y = mul %x, 1 : f32[T, 8]
 *     tap unwanted = %n
 *     emit y = %y
 *
 * Rules: x*1, x/1, x+0, x-0, neg(neg x), reshape of reshape, reshape to the same type, concat of a
 * concat that nobody else reads, elementwise ops on constants, and a norm followed by its weight (only if nobody else
 * reads the bare norm, so that no work is done twice). Taps that are not wanted go first, since they keep values alive.
 * Sharing needs no rule: a graph is rebuilt through ir_copy(), which gives the node that is there already.
 *
 * requires  nothing
 * keeps     every emit, keep and wanted tap, and its value
 * breaks    the memory plan: places in the slab are dropped
 */
#include "passes/passes_int.h"

#include <math.h>
#include <string.h>

typedef struct Rewriter {
    const Graph *from;
    Graph *to;
    const int *uses; /* in from */
    NodeId *map;
    bool changed;
} Rewriter;

/* ==== Constants ==== */

static bool fold_unary(Op op, float x, float *out) {
    switch ((int)op) {
    case OP_NEG: *out = -x; return true;
    case OP_EXP: *out = expf(x); return true;
    case OP_LOG: *out = logf(x); return true;
    case OP_SQRT: *out = sqrtf(x); return true;
    case OP_TANH: *out = tanhf(x); return true;
    default: return false;
    }
}

static bool fold_binary(Op op, float x, float y, float *out) {
    switch ((int)op) {
    case OP_ADD: *out = x + y; return true;
    case OP_SUB: *out = x - y; return true;
    case OP_MUL: *out = x * y; return true;
    case OP_DIV: *out = x / y; return true;
    case OP_MAX: *out = fmaxf(x, y); return true;
    case OP_MIN: *out = fminf(x, y); return true;
    default: return false;
    }
}

/* A constant in place of an op on constants; 0 when it is none, or not finite. */
static NodeId fold_constants(Rewriter *r, const Node *n) {
    double x, y;
    float value;
    if (n->n_in < 1 || !ir_is_const(r->to, r->map[n->in[0]], &x))
        return 0;
    if (n->n_in == 1 ? !fold_unary(n->op, (float)x, &value)
                     : n->n_in != 2 || !ir_is_const(r->to, r->map[n->in[1]], &y) ||
                           !fold_binary(n->op, (float)x, (float)y, &value))
        return 0;
    return isfinite(value) ? ir_const(r->to, value, n->loc) : 0;
}

/* ==== Ops that do nothing ==== */

static bool is_value(const Graph *g, NodeId id, double want) {
    double v;
    return ir_is_const(g, id, &v) && v == want;
}

/* The operand that a binary op gives unchanged; 0 when there is none. */
static NodeId neutral(Rewriter *r, const Node *n) {
    NodeId x = r->map[n->in[0]], y = n->n_in == 2 ? r->map[n->in[1]] : 0, same = 0;
    if (n->op == OP_MUL)
        same = is_value(r->to, y, 1) ? x : is_value(r->to, x, 1) ? y : 0;
    else if (n->op == OP_ADD)
        same = is_value(r->to, y, 0) ? x : is_value(r->to, x, 0) ? y : 0;
    else if (n->op == OP_DIV)
        same = is_value(r->to, y, 1) ? x : 0;
    else if (n->op == OP_SUB)
        same = is_value(r->to, y, 0) ? x : 0;
    return same && type_same(ir_type(r->to, same), &n->type) ? same : 0;
}

static NodeId double_negation(Rewriter *r, const Node *n) {
    const Node *x = n->op == OP_NEG ? ir_get(r->to, r->map[n->in[0]]) : NULL;
    return x && x->op == OP_NEG && type_same(ir_type(r->to, x->in[0]), &n->type) ? x->in[0] : 0;
}

static NodeId reshapes(Rewriter *r, const Node *n) {
    if (n->op != OP_RESHAPE)
        return 0;
    NodeId x = r->map[n->in[0]];
    if (type_same(ir_type(r->to, x), &n->type))
        return x;
    if (ir_get(r->to, x)->op != OP_RESHAPE)
        return 0;
    x = ir_get(r->to, x)->in[0];
    return type_same(ir_type(r->to, x), &n->type) ? x : ir_reshape(r->to, x, n->type, n->name, n->loc);
}

/* concat(concat(x, y), z) along one axis, the inner one read here only. */
static NodeId concats(Rewriter *r, const Node *n) {
    NodeId in[MAX_INPUTS];
    int count = 0;
    for (int i = 0; n->op == OP_CONCAT && i < n->n_in; i++) {
        const Node *x = ir_get(r->to, r->map[n->in[i]]);
        const bool inner = x->op == OP_CONCAT && x->attr[0].i == n->attr[0].i && r->uses[n->in[i]] == 1;
        const int parts = inner ? x->n_in : 1;
        if (count + parts > MAX_INPUTS)
            return 0;
        for (int k = 0; k < parts; k++)
            in[count++] = inner ? x->in[k] : r->map[n->in[i]];
    }
    return count > n->n_in ? ir_node(r->to, OP_CONCAT, in, count, n->attr, NULL, n->name, n->loc) : 0;
}

/* mul(rms_norm(x), @w), w along the last axis, the norm read here only. */
static NodeId norm_weight(Rewriter *r, const Node *n) {
    if (n->op != OP_MUL)
        return 0;
    for (int i = 0; i < 2; i++) {
        const Node *norm = ir_get(r->to, r->map[n->in[i]]);
        NodeId w = r->map[n->in[1 - i]];
        const Type *wt = ir_type(r->to, w);
        bool fits = norm->op == OP_RMS_NORM && norm->n_in == 1 && r->uses[n->in[i]] == 1 &&
                    ir_get(r->to, w)->op == OP_WEIGHT && wt->rank == 1 &&
                    wt->dim[0] == norm->type.dim[norm->type.rank - 1];
        if (fits)
            return ir_node(r->to, OP_RMS_NORM, (NodeId[]){norm->in[0], w}, 2, norm->attr, NULL, n->name, n->loc);
    }
    return 0;
}

/* ==== The pass ==== */

static NodeId rewrite(Rewriter *r, NodeId id) {
    static NodeId (*const rules[])(Rewriter *, const Node *) = {fold_constants, neutral, double_negation,
                                                                reshapes,       concats, norm_weight};
    const Node *n = ir_get(r->from, id);
    for (size_t i = 0; n->n_in > 0 && i < COUNTOF(rules); i++) {
        NodeId better = rules[i](r, n);
        if (better) {
            r->changed = true;
            return better;
        }
    }
    return ir_copy(r->to, r->from, id, r->map);
}

static bool tap_wanted(const Output *o, const PassOptions *opt) {
    if (o->kind != OUT_TAP || opt->all_taps)
        return true;
    for (int i = 0; i < opt->n_taps; i++)
        if (strcmp(opt->taps[i], o->name) == 0)
            return true;
    return false;
}

/* One round over one graph; the new graph, or NULL when nothing was left to do. */
static Graph *simplify_once(Graph *g, const PassOptions *opt, Arena *scratch) {
    Rewriter r = {.from = g, .to = ir_clone_empty(g), .uses = ir_use_counts(g, scratch)};
    bool *live = arena_array(scratch, (size_t)g->nodes.n, sizeof *live);
    for (int i = 0; i < g->outputs.n; i++) {
        bool wanted = tap_wanted(&g->outputs.v[i], opt);
        r.changed = r.changed || !wanted;
        live[g->outputs.v[i].node] = live[g->outputs.v[i].node] || wanted;
    }
    graph_mark_live(g, live);
    r.map = arena_array(scratch, (size_t)g->nodes.n, sizeof *r.map);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        if (live[id])
            r.map[id] = rewrite(&r, id);
        else if (!(op_info(ir_get(g, id)->op)->flags & OPF_LEAF))
            r.changed = true;
    }
    for (int i = 0; i < g->outputs.n; i++) {
        const Output *o = &g->outputs.v[i];
        if (tap_wanted(o, opt))
            ir_output(r.to, o->kind, o->name, r.map[o->node], o->loc);
    }
    return r.changed ? r.to : NULL;
}

bool pass_simplify(Module *m, const PassOptions *o) {
    bool changed = false;
    for (int i = 0; i < m->graphs.n; i++) {
        Graph *better;
        do {
            Arena *scratch = arena_new();
            better = simplify_once(m->graphs.v[i], o, scratch);
            arena_free(scratch);
            if (better)
                m->graphs.v[i] = better;
            changed = changed || better;
        } while (better);
    }
    return changed;
}
