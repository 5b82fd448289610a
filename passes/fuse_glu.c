/* fuse_glu.c - elementwise work on what a matmul gives happens in the matmul, tile by tile.
 *
 *   before                                            after
 *     %g = linear %x, @gate : f32[T, 96] in g1          %g = linear %x, @gate : f32[T, 96] in g1
 *     %u = linear %x, @up : f32[T, 96] in g1            %u = linear %x, @up : f32[T, 96] in g1
 *     %a = gelu %g : f32[T, 96]                         %a = gelu %g : f32[T, 96] in g1
 *     %p = mul %a, %u : f32[T, 96]                      %p = mul %a, %u : f32[T, 96] in g1
 *
 * gelu(gate) * up, the soft cap of the logits, a residual added without a norm. Anything elementwise
 * that reads a member may join, if all it reads besides has been computed before the group, and with
 * it a slice or reshape that only picks what it reads (a layer's share of the per-layer inputs), not
 * what a matmul reads; of experts also the halves of a fused gate and up.
 *
 * requires  merge-linear, fuse-moe: the groups to grow
 * keeps     every node
 * breaks    nothing
 */
#include "passes/passes_int.h"

static bool in_tile(const Fuser *f, const Node *n) {
    (void)f;
    return (op_info(n->op)->flags & OPF_ELEMENTWISE) != 0;
}

static bool in_expert_tile(const Fuser *f, const Node *n) {
    return in_tile(f, n) || n->op == OP_SLICE;
}

static bool matmul_reads(const Fuser *f, NodeId id) {
    for (NodeId u = id + 1; u < (NodeId)f->g->nodes.n; u++) {
        const Node *n = ir_get(f->g, u);
        for (int i = 0; ir_is_matmul(n) && i < n->n_in; i++)
            if (n->in[i] == id)
                return true;
    }
    return false;
}

/* Where an operand of elementwise work is read from: no work of its own. */
static bool picks(const Fuser *f, const Node *n) {
    return (n->op == OP_SLICE || n->op == OP_RESHAPE) && !matmul_reads(f, (NodeId)(n - f->g->nodes.v));
}

static void fuse(Fuser *f) {
    for (int k = 1; k <= f->g->groups.n; k++) {
        Family family = f->g->groups.v[k - 1].family;
        if (!family_of_matmuls(family))
            continue;
        fuser_grow_down(f, k, family == FAM_EXPERTS ? in_expert_tile : in_tile);
        fuser_grow_up(f, k, picks);
    }
}

bool pass_fuse_glu(Module *m, const PassOptions *o) {
    (void)o;
    return fuse_graphs(m, fuse);
}
