/* overlap.c - what a group may do before the group ahead of it has ended, in the decode phase.
 *
 *   before                                          after
 *     group g1 matmul   # the shared gate and up      group g1 matmul          # the router
 *     group g2 matmul   # the router                  group g2 matmul early    # the shared gate and up
 *     group g3 experts  # reads g2                    group g3 experts         # reads g1
 *     group g4 experts  # reads g2 and g3             group g4 experts early ids
 *     group g5 matmul   # reads g1; then adds g4      group g5 matmul early
 *
 * Launches of few rows are short and wait for memory most of the time, so two beside each other cost little more than
 * one. A group whose linears read nothing of the group ahead is `early`: its launch may multiply at once, if the one
 * ahead began its own work only when all before it had ended. So of two neighbours only one is early. Where neither
 * needs the other, the one with the longer chain of groups behind it goes first. Experts that need the group ahead but
 * were chosen before it are `early ids`: their weights can be on the way.
 *
 * An early group writes while the one ahead reads and writes: plan-memory keeps their values apart.
 *
 * requires  schedule
 * keeps     every node, every output and what is in a group; changes the order of groups
 * breaks    the memory plan
 */
#include "passes/passes_int.h"

typedef struct Chains {
    const Graph *g;
    int *behind; /* by group: groups of the longest chain that waits for it */
} Chains;

static int group_of(const Graph *g, NodeId id) {
    return ir_get(g, ir_view_base(g, id))->group;
}

static Chains chains_of(const Graph *g, Arena *scratch) {
    Chains c = {g, arena_array(scratch, (size_t)g->groups.n + 1, sizeof(int))};
    for (NodeId id = (NodeId)g->nodes.n - 1; id >= 1; id--) { /* whoever reads a group comes behind it */
        const Node *n = ir_get(g, id);
        for (int i = 0; i < n->n_in; i++) {
            const int from = group_of(g, n->in[i]), with = c.behind[n->group] + 1;
            if (from != n->group && with > c.behind[from])
                c.behind[from] = with;
        }
    }
    return c;
}

/* True when the group reads the other, or only its mains' operand `operand` does (-1: all nodes and operands). */
static bool reads(const Graph *g, int group, int other, int operand) {
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        if (n->group != group || (operand >= 0 && !ir_is_matmul(n)))
            continue;
        for (int i = operand < 0 ? 0 : operand; i < (operand < 0 ? n->n_in : operand + 1); i++)
            if (group_of(g, n->in[i]) == other)
                return true;
    }
    return false;
}

static Family family_of(const Graph *g, int group) {
    return g->groups.v[group - 1].family;
}

/* What group `k` may do early when `ahead` is in front of it. */
static Early early(const Graph *g, int k, int ahead) {
    enum { ROWS = 0, IDS = 2 };
    if (family_of(g, k) == FAM_MATMUL && !reads(g, k, ahead, ROWS))
        return EARLY_MAIN;
    if (family_of(g, k) == FAM_EXPERTS && !reads(g, k, ahead, IDS))
        return EARLY_IDS;
    return EARLY_NONE;
}

static bool of_matmuls(const Graph *g, int k) {
    return family_of_matmuls(family_of(g, k));
}

/* The order of groups: neighbours change places where neither needs the other and the longer chain comes second. */
static bool order_pairs(const Chains *c, int *order) {
    const Graph *g = c->g;
    bool changed = false;
    for (int k = 1; k <= g->groups.n; k++)
        order[k - 1] = k;
    for (int k = 1; k < g->groups.n; k++) {
        const int next = k + 1;
        if (!of_matmuls(g, k) || !of_matmuls(g, next) || reads(g, next, k, -1) || c->behind[next] <= c->behind[k] ||
            early(g, k, next) != EARLY_MAIN)
            continue;
        order[k - 1] = next;
        order[next - 1] = k;
        changed = true;
        k++;
    }
    return changed;
}

static bool overlap_graph(Module *m, int number, Arena *scratch) {
    Graph *g = m->graphs.v[number];
    if (!g->groups.n || !graph_in_order(g))
        return false; /* not scheduled */
    const Chains c = chains_of(g, scratch);
    int *order = arena_array(scratch, (size_t)g->groups.n, sizeof *order);
    bool changed = order_pairs(&c, order);
    if (changed)
        m->graphs.v[number] = g = graph_regrouped(g, order, g->groups.n, scratch);
    for (int k = 1; k <= g->groups.n; k++) {
        Group *group = &g->groups.v[k - 1];
        const bool may = k > 1 && of_matmuls(g, k) && of_matmuls(g, k - 1) && !ir_runs_beside(g, k - 1);
        const Early e = may ? early(g, k, k - 1) : EARLY_NONE;
        changed = changed || group->early != e;
        group->early = e;
    }
    return changed;
}

bool pass_overlap(Module *m, const PassOptions *o) {
    (void)o;
    Arena *scratch = arena_new();
    bool changed = false;
    for (int i = 0; i < m->graphs.n; i++)
        changed = overlap_graph(m, i, scratch) || changed;
    arena_free(scratch);
    return changed;
}
