/* merge_linear.c - linears that read one value become one matmul: q, k and v; gate and up.
 *
 *   before                                  after
 *     %q = linear %x, @wq : f32[T, 64]        group g1 matmul
 *     %k = linear %x, @wk : f32[T, 16]        %q = linear %x, @wq : f32[T, 64] in g1
 *     %v = linear %x, @wv : f32[T, 16]        %k = linear %x, @wk : f32[T, 16] in g1
 *                                             %v = linear %x, @wv : f32[T, 16] in g1
 *
 * Each linear starts a group or joins that of an earlier one with the same operand. One launch then
 * reads all their weights, and the value once. A group has at most 16 linears.
 *
 * requires  select-rows has run: it changes what linears read
 * keeps     every node
 * breaks    nothing
 */
#include "passes/passes_int.h"

/* The group that reads x and has room; 0 none. */
static int group_of_input(const Fuser *f, NodeId x, const int *members) {
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++) {
        const Node *n = ir_get(f->g, id);
        if (n->op == OP_LINEAR && n->group && n->in[0] == x && members[n->group] < family_info(FAM_MATMUL)->most_mains)
            return n->group;
    }
    return 0;
}

static void merge(Fuser *f) {
    int *members = arena_array(f->scratch, (size_t)f->g->nodes.n + (size_t)f->g->groups.n + 1, sizeof *members);
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++) {
        const Node *n = ir_get(f->g, id);
        if (n->op != OP_LINEAR || n->group)
            continue;
        int group = group_of_input(f, n->in[0], members);
        if (!group || !fuser_take(f, group, id))
            group = fuser_start(f, FAM_MATMUL, id);
        members[group]++;
    }
}

bool pass_merge_linear(Module *m, const PassOptions *o) {
    (void)o;
    return fuse_graphs(m, merge);
}
