/* fuse.c - growing groups, shared by the fusing passes.
 *
 * The passes differ in where a group starts and what may join it; here is the rest: walking the graph,
 * never taking a node twice, and leaving a node out when its group would wait for itself.
 */
#include "passes/passes_int.h"

Fuser fuser_begin(Graph *g) {
    Fuser f = {.g = g, .scratch = arena_new()};
    f.grouper = grouper_new(g, f.scratch);
    f.uses = ir_use_counts(g, f.scratch);
    return f;
}

bool fuser_end(Fuser *f) {
    arena_free(f->scratch);
    return f->taken > 0;
}

static bool is_free(const Fuser *f, NodeId id) {
    const Node *n = ir_get(f->g, id);
    return !n->group && !(op_info(n->op)->flags & OPF_LEAF);
}

bool fuser_take(Fuser *f, int group, NodeId id) {
    bool taken = grouper_take(f->grouper, group, id);
    f->taken += taken;
    return taken;
}

int fuser_start(Fuser *f, Family family, NodeId id) {
    int group = ir_group_new(f->g, family, ir_get(f->g, id)->loc);
    if (!fuser_take(f, group, id))
        ICE("a group of one node waits for itself");
    return group;
}

void fuser_grow_down(Fuser *f, int group, FuseRule *rule) {
    for (NodeId id = 1; id < (NodeId)f->g->nodes.n; id++) {
        const Node *n = ir_get(f->g, id);
        bool reads = false;
        for (int i = 0; i < n->n_in; i++)
            reads = reads || ir_get(f->g, n->in[i])->group == group;
        if (reads && is_free(f, id) && rule(f, n))
            fuser_take(f, group, id);
    }
}

/* How often members of the group read node `id`. */
static int reads_by(const Fuser *f, int group, NodeId id) {
    int reads = 0;
    for (NodeId u = id + 1; u < (NodeId)f->g->nodes.n; u++) {
        const Node *n = ir_get(f->g, u);
        for (int i = 0; n->group == group && i < n->n_in; i++)
            reads += n->in[i] == id;
    }
    return reads;
}

void fuser_grow_up(Fuser *f, int group, FuseRule *rule) {
    for (NodeId u = (NodeId)f->g->nodes.n - 1; u >= 1; u--) {
        const Node *n = ir_get(f->g, u);
        if (n->group != group)
            continue;
        for (int i = n->n_in - 1; i >= 0; i--) {
            NodeId id = n->in[i];
            if (is_free(f, id) && rule(f, ir_get(f->g, id)) && reads_by(f, group, id) == f->uses[id])
                fuser_take(f, group, id);
        }
    }
}

bool fuse_graphs(Module *m, void (*each)(Fuser *f)) {
    bool changed = false;
    for (int i = 0; i < m->graphs.n; i++) {
        Fuser f = fuser_begin(m->graphs.v[i]);
        each(&f);
        changed = fuser_end(&f) || changed;
    }
    return changed;
}
