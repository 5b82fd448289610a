/* gen_order.c - when launches of a decode phase wait for each other, from what pass overlap found: see
 * kernels/launch_order.cu.
 */
#include "codegen/gen_matmul_int.h"

/* True when launches for few rows compute the group. */
static bool few(const Gen *g, int group) {
    for (NodeId id = 1; id < (NodeId)g->g->nodes.n; id++) {
        const Node *n = ir_get(g->g, id);
        if (n->group == group && ir_is_matmul(n))
            return gen_few(g, n->type.dim[0]);
    }
    return false;
}

static Early early(const Gen *g, int group) {
    const bool any = group > 1 && group <= g->g->groups.n && g->g->groups.v[group - 1].early != EARLY_NONE;
    return any && few(g, group) && few(g, group - 1) ? g->g->groups.v[group - 1].early : EARLY_NONE;
}

Early gen_early(const Gen *g) {
    return early(g, g->group);
}

static bool reads_ahead(const Gen *g, const NodeVec *nodes) {
    for (int i = 0; i < nodes->n; i++) {
        const Node *n = ir_get(g->g, nodes->v[i]);
        for (int k = 0; k < n->n_in; k++)
            if (ir_get(g->g, ir_view_base(g->g, n->in[k]))->group == g->group - 1)
                return true;
    }
    return false;
}

/* LAUNCH_EARLY of the current group's launch. */
static int launch_early(const Gen *g, const NodeVec *nodes) {
    if (gen_early(g) != EARLY_MAIN)
        return 0;
    return reads_ahead(g, nodes) ? 1 : 2;
}

const char *gen_order(Gen *g, const NodeVec *nodes) {
    return arena_printf(g->arena, "#define LAUNCH_EARLY %d\n#define LAUNCH_LATE %d\n", launch_early(g, nodes),
                        early(g, g->group + 1) != EARLY_NONE);
}
