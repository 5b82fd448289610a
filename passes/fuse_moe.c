/* fuse_moe.c - a mixture of experts becomes few groups: router, first and second matrices of the experts.
 *
 *   before                                                 after
 *     %r = linear %t, @router : f32[T, 8] in g1              group g2 experts
 *     %p = softmax %r : f32[T, 8]                            %p = softmax %r : f32[T, 8] in g1
 *     %e = top_k %p {k=2} : i32[T, 2]                        %e = top_k %p {k=2} : i32[T, 2] in g1
 *     %g = linear_experts %x, @gate_up, %e : ..              %g = linear_experts %x, @gate_up, %e : .. in g2
 *     ..                                                     ..
 *     %d = linear_experts %a, @down, %e : f32[T, 2, 64]      %d = linear_experts %a, @down, %e : .. in g3
 *     %m = combine %d, %c : f32[T, 64]                       %m = combine %d, %c : f32[T, 64] in g3
 *
 * The choice of experts (softmax, top_k, the shares) needs the router's whole row and joins the
 * router's matmul. Experts that read one value with one choice are one group; the weighted sum joins
 * the group of the values it sums, where the order of experts is fixed.
 *
 * requires  merge-linear: the router is in a group
 * keeps     every node
 * breaks    nothing
 */
#include "passes/passes_int.h"

/* True when some operand is a choice (i32) or depends on one through work on few numbers a row. */
static bool chooses(const Fuser *f, const Node *n) {
    (void)f;
    switch ((int)n->op) {
    case OP_SOFTMAX:
    case OP_TOP_K:
    case OP_GATHER:
    case OP_SUM: return true;
    case OP_DIV:
    case OP_MUL:
    case OP_RESHAPE: break;
    default: return false;
    }
    /* shares: reached only through a gather or a sum of the same group */
    for (int i = 0; i < n->n_in; i++) {
        const Node *x = ir_get(f->g, n->in[i]);
        if (x->group && (x->op == OP_GATHER || x->op == OP_SUM || x->op == OP_DIV || x->op == OP_RESHAPE))
            return true;
    }
    return false;
}

static bool combines(const Fuser *f, const Node *n) {
    (void)f;
    return n->op == OP_COMBINE;
}

/* The router's group of a choice: that of the linear it comes from; 0 none. */
static int router_group(const Fuser *f, NodeId id) {
    const Node *n = ir_get(f->g, id);
    while (n->op == OP_TOP_K || n->op == OP_SOFTMAX || n->op == OP_RESHAPE)
        n = ir_get(f->g, n->in[0]);
    return n->op == OP_LINEAR ? n->group : 0;
}

static int same_experts(const Fuser *f, const Node *n) {
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++) {
        const Node *o = ir_get(f->g, id);
        if (o->op == OP_LINEAR_EXPERTS && o->group && o->in[0] == n->in[0] && o->in[2] == n->in[2])
            return o->group;
    }
    return 0;
}

static void fuse(Fuser *f) {
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++) {
        const Node *n = ir_get(f->g, id);
        int router = n->op == OP_TOP_K && !n->group ? router_group(f, id) : 0;
        if (router)
            fuser_grow_down(f, router, chooses);
    }
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++) {
        const Node *n = ir_get(f->g, id);
        if (n->op != OP_LINEAR_EXPERTS || n->group)
            continue;
        int group = same_experts(f, n);
        if (!group || !fuser_take(f, group, id))
            group = fuser_start(f, FAM_EXPERTS, id);
        fuser_grow_down(f, group, combines);
    }
}

bool pass_fuse_moe(Module *m, const PassOptions *o) {
    (void)o;
    return fuse_graphs(m, fuse);
}
