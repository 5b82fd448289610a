/* fuse_norm.c - the first norm joins the lookup in front of it.
 *
 *   before                                            after
 *     %e = embed tokens, @table : f32[T, 64]            group g2 rowwise
 *     %h = mul %e, 8 : f32[T, 64]                       %e = embed tokens, @table : f32[T, 64] in g2
 *     %x = rms_norm %h, @w {..} : f32[T, 64]            %h = mul %e, 8 : f32[T, 64] in g2
 *                                                       %x = rms_norm %h, @w {..} : f32[T, 64] in g2
 *
 * An embedding starts a rowwise group that takes its scale and the first layer's norm. Any other norm
 * that is still alone is left to schedule, which puts it beside what else its rows need: in front of a
 * matmul every block would compute it again, so that a matmul's group has no place for it.
 *
 * requires  fuse-residual: it takes the norms behind matmuls
 * keeps     every node
 * breaks    nothing
 */
#include "passes/passes_int.h"

static bool on_row(const Fuser *f, const Node *n) {
    (void)f;
    return n->op == OP_RMS_NORM || n->op == OP_RESHAPE || op_info(n->op)->flags & OPF_ELEMENTWISE;
}

static void fuse(Fuser *f) {
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++)
        if (ir_get(f->g, id)->op == OP_EMBED && !ir_get(f->g, id)->group)
            fuser_grow_down(f, fuser_start(f, FAM_ROWWISE, id), on_row);
}

bool pass_fuse_norm(Module *m, const PassOptions *o) {
    (void)o;
    return fuse_graphs(m, fuse);
}
