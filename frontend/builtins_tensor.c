/* builtins_tensor.c - built-in functions that make nodes: thin shells over ir_node, which knows the
 * shape rules, plus the binding of named weights and the default arguments. */
#include "frontend/lower.h"

static const Type *type_of(const Call *c, NodeId x) {
    return ir_type(c->L->g, x);
}

static Value make(Call *c, Op op, const NodeId *in, int n, const Attr *attr) {
    return value_tensor(l_node(c->L, op, in, n, attr, c->hint, c->loc));
}

static Value weight_node(Lower *L, int weight, SrcLoc at) {
    Attr a = {.i = weight};
    return value_tensor(weight < 0 ? 0 : l_node(L, OP_WEIGHT, NULL, 0, &a, NULL, at));
}

/* A weight given by name, or as weight(..) where the text needs more than a name. */
static NodeId arg_weight(Call *c, int i, const Want *want) {
    Lower *L = c->L;
    if (c->v[i].kind == VAL_STRING) {
        Value v = weight_node(L, l_weight(L, c->v[i].u.s, false, c->at[i], want), c->at[i]);
        return v.kind == VAL_TENSOR ? v.u.node : 0;
    }
    const Node *n = c->v[i].kind == VAL_TENSOR ? ir_get(L->g, c->v[i].u.node) : NULL;
    if (!n || n->op != OP_WEIGHT) {
        arg_wrong(c, i, "the name of a tensor or a weight(..)");
        return 0;
    }
    return l_weight_fits(L, (int)n->attr[0].i, c->at[i], want) ? c->v[i].u.node : 0;
}

/* "the last dimension of f32[T, 640]" as the reason for a dimension. */
static void want_last_dim(Call *c, Want *want, int d, NodeId x) {
    const Node *n = ir_get(c->L->g, x);
    want->dim[d] = n->type.dim[n->type.rank - 1];
    want->why[d] = n->loc;
    want->what[d] = arena_printf(c->L->arena, "the last dimension of %s", type_text(c->L->arena, &n->type));
}

/* Argument i as dimension d; true when it is missing or fine. */
static bool want_arg(Call *c, Want *want, int d, int i) {
    want->dim[d] = -1;
    if (!c->has[i])
        return true;
    if (!arg_int(c, i, &want->dim[d]))
        return false;
    want->why[d] = c->at[i];
    want->what[d] = arena_printf(c->L->arena, "'%s' of %s", c->fn->param[i], c->fn->name);
    return true;
}

/* Argument i, an array of ints or one int, as the whole shape. */
static bool want_dims(Call *c, Want *want, int i) {
    Value v = c->v[i], one = v;
    if (v.kind == VAL_INT) {
        v.u.array.v = &one;
        v.u.array.n = 1;
    } else if (v.kind != VAL_ARRAY || v.u.array.n > MAX_DIMS) {
        arg_wrong(c, i, "an array of at most 4 ints");
        return false;
    }
    want->rank = (int)v.u.array.n;
    for (int d = 0; d < want->rank; d++) {
        if (v.u.array.v[d].kind != VAL_INT) {
            arg_wrong(c, i, "an array of at most 4 ints");
            return false;
        }
        want->dim[d] = v.u.array.v[d].u.i;
        want->why[d] = c->arg[i]->kind == EX_ARRAY ? c->arg[i]->u.items.v[d]->loc : c->at[i];
        want->what[d] = arena_printf(c->L->arena, "in '%s' of %s", c->fn->param[i], c->fn->name);
    }
    return true;
}

/* ==== Weights and products ==== */

Value call_weight(Call *c) {
    Want want = {0};
    Str name;
    if (!l_in_entry(c->L, c->loc, "a weight") || !arg_string(c, 0, &name))
        return value_poison();
    if (c->has[1] && !want_dims(c, &want, 1))
        return value_poison();
    return weight_node(c->L, l_weight(c->L, name, c->target, c->at[0], c->has[1] ? &want : NULL), c->at[0]);
}

/* target.tapped("layer.3"): what the target's entry shows under that name, for the rows of this call; an input. */
Value call_tapped(Call *c) {
    Lower *L = c->L;
    const Module *t = L->in->target;
    const Graph *step = t ? module_graph(t, "step") : NULL;
    Str name;
    if (!l_in_entry(L, c->loc, "what a target computes") || !arg_string(c, 0, &name))
        return value_poison();
    if (!step)
        return l_error(L, c->loc, "the target ('%s') is needed here", L->m->target);
    const char *tap = arena_strndup(L->arena, name.s, name.n);
    const NodeId node = ir_find_output(step, OUT_TAP, tap);
    if (!node) {
        Nearest near = nearest_new(name);
        for (int i = 0; i < step->outputs.n; i++)
            if (step->outputs.v[i].kind == OUT_TAP)
                nearest_try(&near, step->outputs.v[i].name);
        return l_error(L, c->at[0], "the target has no tap '%s'%s", tap, near_text(L->arena, &near));
    }
    return value_tensor(ir_input(L->g, arena_printf(L->arena, "target.%s", tap), *ir_type(step, node), c->loc));
}

Value call_embed(Call *c) {
    Want want = {.rank = 2, .dim = {-1, -1}};
    NodeId in[2];
    if (!arg_tensor(c, 0, &in[0]) || (c->has[2] && !want_dims(c, &want, 2)))
        return value_poison();
    in[1] = arg_weight(c, 1, &want);
    return make(c, OP_EMBED, in, 2, NULL);
}

Value call_linear(Call *c) {
    Want want = {.rank = 2};
    NodeId in[2];
    if (!arg_tensor(c, 0, &in[0]) || !want_arg(c, &want, 0, 2))
        return value_poison();
    want_last_dim(c, &want, 1, in[0]);
    in[1] = arg_weight(c, 1, &want);
    return make(c, OP_LINEAR, in, 2, NULL);
}

Value call_experts(Call *c) {
    Want want = {.rank = 3};
    NodeId in[3];
    if (!arg_tensor(c, 0, &in[0]) || !arg_tensor(c, 2, &in[2]) || !want_arg(c, &want, 1, 3) ||
        !want_arg(c, &want, 0, 4))
        return value_poison();
    want_last_dim(c, &want, 2, in[0]);
    in[1] = arg_weight(c, 1, &want);
    return make(c, OP_LINEAR_EXPERTS, in, 3, NULL);
}

Value call_linear_at(Call *c) {
    Want want = {.rank = 2, .dim = {-1}};
    NodeId in[3];
    if (!arg_tensor(c, 0, &in[0]) || !arg_tensor(c, 2, &in[2]))
        return value_poison();
    want_last_dim(c, &want, 1, in[0]);
    in[1] = arg_weight(c, 1, &want);
    return make(c, OP_LINEAR_AT, in, 3, NULL);
}

Value call_combine(Call *c) {
    NodeId in[2];
    if (!arg_tensor(c, 0, &in[0]) || !arg_tensor(c, 1, &in[1]))
        return value_poison();
    return make(c, OP_COMBINE, in, 2, NULL);
}

/* ==== Rows ==== */

Value call_rms_norm(Call *c) {
    NodeId in[2];
    Attr eps;
    Want want = {.rank = 1};
    if (!arg_tensor(c, 0, &in[0]) || !arg_number(c, 1, &eps.f))
        return value_poison();
    want_last_dim(c, &want, 0, in[0]);
    if (c->has[2])
        in[1] = arg_weight(c, 2, &want);
    return make(c, OP_RMS_NORM, in, c->has[2] ? 2 : 1, &eps);
}

static Value unary(Call *c, Op op) {
    NodeId x;
    return arg_tensor(c, 0, &x) ? make(c, op, &x, 1, NULL) : value_poison();
}

Value call_softmax(Call *c) {
    return unary(c, OP_SOFTMAX);
}
Value call_sigmoid(Call *c) {
    return unary(c, OP_SIGMOID);
}
Value call_silu(Call *c) {
    return unary(c, OP_SILU);
}
Value call_gelu(Call *c) {
    return unary(c, OP_GELU);
}

Value call_top_k(Call *c) {
    NodeId x;
    Attr k;
    return arg_tensor(c, 0, &x) && arg_int(c, 1, &k.i) ? make(c, OP_TOP_K, &x, 1, &k) : value_poison();
}

Value call_gather(Call *c) {
    NodeId in[2];
    if (!arg_tensor(c, 0, &in[0]) || !arg_tensor(c, 1, &in[1]))
        return value_poison();
    return make(c, OP_GATHER, in, 2, NULL);
}

Value call_lookup(Call *c) {
    Want want = {.rank = 1, .dim = {-1}};
    NodeId in[2];
    Attr n;
    if (!arg_tensor(c, 0, &in[0]) || !arg_int(c, 2, &n.i))
        return value_poison();
    in[1] = arg_weight(c, 1, &want);
    return make(c, OP_LOOKUP, in, 2, &n);
}

Value call_scatter(Call *c) {
    NodeId in[3];
    Attr n;
    if (!arg_tensor(c, 0, &in[0]) || !arg_tensor(c, 1, &in[1]) || !arg_int(c, 2, &n.i) || !arg_tensor(c, 3, &in[2]))
        return value_poison();
    return make(c, OP_SCATTER, in, 3, &n);
}

/* rope(x, pos, base, dims = whole head, factors = none, scale = 1.0) */
Value call_rope(Call *c) {
    NodeId in[3];
    Attr attr[3] = {[2].f = 1.0};
    if (!arg_tensor(c, 0, &in[0]) || !arg_tensor(c, 1, &in[1]) || !arg_number(c, 2, &attr[0].f))
        return value_poison();
    const Type *t = type_of(c, in[0]);
    attr[1].i = t->dim[t->rank - 1];
    if ((c->has[3] && !arg_int(c, 3, &attr[1].i)) || (c->has[5] && !arg_number(c, 5, &attr[2].f)))
        return value_poison();
    bool factors = c->has[4] && c->v[4].kind != VAL_NONE;
    Want want = {.rank = 1, .dim = {attr[1].i / 2}};
    want.why[0] = c->at[3];
    want.what[0] = "half of the dimensions that turn";
    if (factors)
        in[2] = arg_weight(c, 4, &want);
    return make(c, OP_ROPE, in, factors ? 3 : 2, attr);
}

/* ==== Shapes ==== */

/* The node with its last dimensions replaced: keep leading dims, then dim[0..n). */
static Value reshape(Call *c, NodeId x, int keep, const int64_t *dim, int n) {
    Type t = *type_of(c, x);
    t.rank = keep + n;
    for (int i = 0; i < n; i++)
        t.dim[keep + i] = dim[i];
    return value_tensor(l_reshape(c->L, x, t, c->hint, c->loc));
}

/* [T, K] -> [T, n, K/n] */
Value call_heads(Call *c) {
    NodeId x;
    int64_t n;
    if (!arg_tensor(c, 0, &x) || !arg_int(c, 1, &n))
        return value_poison();
    const Type *t = type_of(c, x);
    if (t->rank != 2)
        return arg_wrong(c, 0, "[T, n]");
    if (n < 1 || t->dim[1] % n) {
        l_error(c->L, c->at[1], "%lld elements cannot be split into %lld heads", (long long)t->dim[1], (long long)n);
        l_note(c->L, ir_get(c->L->g, x)->loc, "%s comes from here", type_text(c->L->arena, t));
        return value_poison();
    }
    return reshape(c, x, 1, (int64_t[]){n, t->dim[1] / n}, 2);
}

/* [T, a, b] -> [T, a*b] */
Value call_flat(Call *c) {
    NodeId x;
    if (!arg_tensor(c, 0, &x))
        return value_poison();
    const Type *t = type_of(c, x);
    if (!type_has_rows(t))
        return arg_wrong(c, 0, "a tensor with rows");
    return reshape(c, x, 1, (int64_t[]){type_row_elems(t)}, 1);
}

/* reshape(x, [a, b]): the rows stay, each becomes [a, b]. */
Value call_reshape(Call *c) {
    NodeId x;
    Want want = {0};
    if (!arg_tensor(c, 0, &x) || !want_dims(c, &want, 1))
        return value_poison();
    int keep = type_has_rows(type_of(c, x)) ? 1 : 0;
    if (keep + want.rank > MAX_DIMS)
        return arg_wrong(c, 1, "an array of at most 3 ints");
    for (int d = 0; d < want.rank; d++)
        if (want.dim[d] < 1)
            return l_error(c->L, c->at[1], "a dimension must be an int above 0");
    return reshape(c, x, keep, want.dim, want.rank);
}

/* slice(x, start, len, axis = the last) */
Value call_slice(Call *c) {
    NodeId x;
    Attr attr[3];
    if (!arg_tensor(c, 0, &x) || !arg_int(c, 1, &attr[1].i) || !arg_int(c, 2, &attr[2].i))
        return value_poison();
    attr[0].i = type_of(c, x)->rank - 1;
    if (c->has[3] && !arg_int(c, 3, &attr[0].i))
        return value_poison();
    return make(c, OP_SLICE, &x, 1, attr);
}

/* concat(x1, x2, .., axis = the last) */
Value call_concat(Call *c) {
    enum { AXIS = 8 };
    NodeId in[AXIS];
    int n = 0;
    Attr axis;
    for (int i = 0; i < AXIS; i++)
        if (c->has[i] && !arg_tensor(c, i, &in[n++]))
            return value_poison();
    axis.i = type_of(c, in[0])->rank - 1;
    if (c->has[AXIS] && !arg_int(c, AXIS, &axis.i))
        return value_poison();
    return make(c, OP_CONCAT, in, n, &axis);
}

/* The rows that are wanted at the output, by an input of their numbers. */
Value call_rows(Call *c) {
    NodeId in[2];
    if (!arg_tensor(c, 0, &in[0]))
        return value_poison();
    in[1] = l_rows_input(c->L, c->loc);
    return make(c, OP_ROWS, in, 2, NULL);
}
