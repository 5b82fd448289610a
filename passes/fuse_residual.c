/* fuse_residual.c - what follows a matmul row by row happens where its rows are finished.
 *
 *   before                                            after
 *     %o = linear %a, @wo : f32[T, 64] in g3            %o = linear %a, @wo : f32[T, 64] in g3
 *     %n = rms_norm %o, @post {..} : f32[T, 64]         %n = rms_norm %o, @post {..} : f32[T, 64] in g3
 *     %s = add %h, %n : f32[T, 64]                      %s = add %h, %n : f32[T, 64] in g3
 *     %x = rms_norm %s, @ffn {..} : f32[T, 64]          %x = rms_norm %s, @ffn {..} : f32[T, 64] in g3
 *
 * Post-norm, residual, layer scale and the next norm are one pass over a row that is at hand, and its
 * statistics are computed once. A norm needs the whole row, so the kernel does this behind its last
 * tile of the row. Groups are grown in order, so that a row waits for as little as possible.
 *
 * requires  merge-linear, fuse-moe, fuse-glu
 * keeps     every node
 * breaks    nothing
 */
#include "passes/passes_int.h"

static bool on_row(const Fuser *f, const Node *n) {
    (void)f;
    switch ((int)n->op) {
    case OP_RMS_NORM:
    case OP_SOFTMAX:
    case OP_SUM:
    case OP_SLICE:
    case OP_RESHAPE: return true;
    default: return (op_info(n->op)->flags & OPF_ELEMENTWISE) != 0;
    }
}

static void fuse(Fuser *f) {
    for (int k = 1; k <= f->g->groups.n; k++) {
        Family family = f->g->groups.v[k - 1].family;
        if (family_of_matmuls(family))
            fuser_grow_down(f, k, on_row);
    }
}

bool pass_fuse_residual(Module *m, const PassOptions *o) {
    (void)o;
    return fuse_graphs(m, fuse);
}
