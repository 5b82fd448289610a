/* fuse_rope.c - head norms, RoPE and the K/V store become part of the attention that needs them.
 *
 *   before                                            after
 *     %q = rope %qn, pos {..} : f32[T, 4, 8]            group g2 attention
 *     %s = kv_store $kv.0, %k, %v, pos : kv             %q = rope %qn, pos {..} : f32[T, 4, 8] in g2
 *     %a = attend %q, %s, pos {..} : f32[T, 4, 8]       %s = kv_store $kv.0, %k, %v, pos : kv in g2
 *                                                       %a = attend %q, %s, pos {..} : f32[T, 4, 8] in g2
 *
 * They need whole heads, which a matmul's tiles may split, and little else: so they run in front of
 * the attention, a head at a time. Taken are, backwards from attend, the store of its cache and the
 * head norms, rotations and reshapes that nobody else reads; and the reshape of the result. A store
 * without a reader of its own (a drafter's context) gets an attention group without attend.
 *
 * requires  nothing
 * keeps     every node
 * breaks    nothing
 */
#include "passes/passes_int.h"

static bool works_on_heads(const Fuser *f, const Node *n) {
    (void)f;
    return n->op == OP_ROPE || n->op == OP_RESHAPE || (n->op == OP_RMS_NORM && n->type.rank == 3);
}

static bool flattens(const Fuser *f, const Node *n) {
    return n->op == OP_RESHAPE && ir_get(f->g, n->in[0])->op == OP_ATTEND;
}

static void fuse(Fuser *f) {
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++) {
        const Node *n = ir_get(f->g, id);
        if (n->op != OP_ATTEND || n->group)
            continue;
        NodeId kv = n->in[1];
        int group = fuser_start(f, FAM_ATTENTION, id);
        if (ir_get(f->g, kv)->op == OP_KV_STORE && !ir_get(f->g, kv)->group)
            fuser_take(f, group, kv);
        fuser_grow_up(f, group, works_on_heads);
        fuser_grow_down(f, group, flattens);
    }
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++)
        if (ir_get(f->g, id)->op == OP_KV_STORE && !ir_get(f->g, id)->group)
            fuser_grow_up(f, fuser_start(f, FAM_ATTENTION, id), works_on_heads);
}

bool pass_fuse_rope(Module *m, const PassOptions *o) {
    (void)o;
    return fuse_graphs(m, fuse);
}
