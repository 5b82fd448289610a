/* group.c - which nodes may be computed together, and in which order groups can run.
 *
 * A unit is a group or a node without one. Grouping is sound while no unit depends on itself through
 * others: then the units can run one after another. Besides operands there is one dependency: who
 * reads a cache as it was before this call must come before the node that stores it.
 */
#include "ir/ir.h"

static const FamilyInfo infos[FAM_COUNT] = {
#define FAMILY(e, name, main, most) [FAM_##e] = {name, OP_##main, most},
#include "ir/families.def"
#undef FAMILY
};

const FamilyInfo *family_info(Family f) {
    if ((unsigned)f >= FAM_COUNT)
        ICE("no family %d", (int)f);
    return &infos[f];
}

Family family_from_name(Str name) {
    for (int f = 0; f < FAM_COUNT; f++)
        if (str_eq(name, infos[f].name))
            return (Family)f;
    return FAM_COUNT;
}

static const char *const way_names[ATTEND_WAYS] = {
    [ATTEND_NONE] = "none", [ATTEND_SPLIT] = "split", [ATTEND_DENSE] = "dense", [ATTEND_SPARSE] = "sparse"};

const char *attend_way_name(AttendWay w) {
    if ((unsigned)w >= ATTEND_WAYS)
        ICE("no way %d of attending", (int)w);
    return way_names[w];
}

AttendWay attend_way_from_name(Str name) {
    int w = ATTEND_WAYS - 1;
    while (w > ATTEND_NONE && !str_eq(name, way_names[w]))
        w--;
    return (AttendWay)w;
}

int ir_group_new(Graph *g, Family f, SrcLoc loc) {
    Group group = {.family = f, .loc = loc};
    vec_push(g->module->arena, &g->groups, group);
    return g->groups.n;
}

typedef struct Edge {
    NodeId from, to;
} Edge;

struct Grouper {
    Graph *g;
    Arena *scratch;
    VEC(Edge) extra; /* reader of the old state -> store */
    bool *node;      /* reached, by id */
    bool *group;     /* reached, by group number */
    int groups_cap;
};

static bool is_leaf(const Graph *g, NodeId id) {
    return op_info(ir_get(g, id)->op)->flags & OPF_LEAF;
}

Grouper *grouper_new(Graph *g, Arena *scratch) {
    Grouper *gr = arena_alloc(scratch, sizeof *gr);
    *gr = (Grouper){.g = g, .scratch = scratch};
    gr->node = arena_array(scratch, (size_t)g->nodes.n, sizeof *gr->node);
    for (NodeId s = 1; s < (NodeId)g->nodes.n; s++) {
        if (ir_get(g, s)->op != OP_KV_STORE)
            continue;
        for (NodeId a = 1; a < (NodeId)g->nodes.n; a++) {
            Edge e = {a, s};
            if (ir_get(g, a)->op == OP_ATTEND && ir_get(g, a)->in[1] == ir_get(g, s)->in[0])
                vec_push(scratch, &gr->extra, e);
        }
    }
    return gr;
}

static void clear_marks(Grouper *gr) {
    for (int i = 0; i < gr->g->nodes.n; i++)
        gr->node[i] = false;
    if (gr->groups_cap <= gr->g->groups.n) {
        gr->groups_cap = gr->g->groups.n * 2 + 8;
        gr->group = arena_array(gr->scratch, (size_t)gr->groups_cap, sizeof *gr->group);
    }
    for (int i = 0; i <= gr->g->groups.n; i++)
        gr->group[i] = false;
}

/* True when node `id` waits for a node that is marked, or is of `group` itself. */
static bool waits(const Grouper *gr, NodeId id, int group) {
    const Node *n = ir_get(gr->g, id);
    for (int i = 0; i < n->n_in; i++)
        if (gr->node[n->in[i]] || ir_get(gr->g, n->in[i])->group == group)
            return true;
    for (int i = 0; i < gr->extra.n; i++)
        if (gr->extra.v[i].to == id &&
            (gr->node[gr->extra.v[i].from] || ir_get(gr->g, gr->extra.v[i].from)->group == group))
            return true;
    return false;
}

/* Marks everything outside the group that waits for it, through groups as wholes. True when a member
 * waits for something marked. */
static bool waits_for_itself(Grouper *gr, int group) {
    clear_marks(gr);
    for (bool more = true; more;) {
        more = false;
        for (NodeId id = 1; id < (NodeId)gr->g->nodes.n; id++) {
            int own = ir_get(gr->g, id)->group;
            if (own == group || gr->node[id] || !((own && gr->group[own]) || waits(gr, id, group)))
                continue;
            gr->node[id] = true;
            if (own && !gr->group[own])
                more = gr->group[own] = true; /* its earlier members are marked in another round */
        }
    }
    for (NodeId id = 1; id < (NodeId)gr->g->nodes.n; id++)
        if (ir_get(gr->g, id)->group == group && waits(gr, id, -1))
            return true;
    return false;
}

bool grouper_take(Grouper *gr, int group, NodeId id) {
    Node *n = ir_get(gr->g, id);
    if (n->group || is_leaf(gr->g, id))
        ICE("%s cannot be put into a group", n->name ? n->name : op_info(n->op)->name);
    n->group = group;
    if (!waits_for_itself(gr, group))
        return true;
    n->group = 0;
    return false;
}

/* ==== Order ==== */

/* True when everything that node `id` waits for outside its own unit is done. */
static bool node_ready(const Grouper *gr, NodeId id, const bool *done) {
    const Graph *g = gr->g;
    const Node *n = ir_get(g, id);
    for (int i = 0; i < n->n_in; i++)
        if (!is_leaf(g, n->in[i]) && !done[n->in[i]] && !(n->group && ir_get(g, n->in[i])->group == n->group))
            return false;
    for (int i = 0; i < gr->extra.n; i++) {
        NodeId from = gr->extra.v[i].from;
        if (gr->extra.v[i].to == id && !done[from] && !(n->group && ir_get(g, from)->group == n->group))
            return false;
    }
    return true;
}

/* members[k] .. until 0: ids of group k, ascending. */
static NodeId **list_members(const Graph *g, Arena *scratch) {
    int *count = arena_array(scratch, (size_t)g->groups.n + 1, sizeof *count);
    NodeId **members = arena_array(scratch, (size_t)g->groups.n + 1, sizeof *members);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++)
        count[ir_get(g, id)->group]++;
    for (int k = 1; k <= g->groups.n; k++)
        members[k] = arena_array(scratch, (size_t)count[k] + 1, sizeof **members);
    for (NodeId id = (NodeId)g->nodes.n - 1; id >= 1; id--) {
        int k = ir_get(g, id)->group;
        if (k)
            members[k][--count[k]] = id;
    }
    return members;
}

/* Runs through the nodes again and again; a unit comes as soon as all it waits for is done, which for
 * ungrouped nodes is at once. A round without a new unit means a cycle. */
int *grouper_order(const Grouper *gr, int *count, NodeId *culprit) {
    const Graph *g = gr->g;
    NodeId **members = list_members(g, gr->scratch);
    bool *done = arena_array(gr->scratch, (size_t)g->nodes.n, sizeof *done);
    VEC(int) order = {0};
    for (bool more = true; more;) {
        more = false;
        *culprit = 0;
        for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
            int k = ir_get(g, id)->group;
            if (done[id] || is_leaf(g, id))
                continue;
            NodeId alone[2] = {id, 0};
            NodeId *unit = k ? members[k] : alone;
            bool ready = true;
            for (int i = 0; unit[i] && ready; i++)
                ready = node_ready(gr, unit[i], done);
            if (!ready) {
                *culprit = *culprit ? *culprit : id;
                continue;
            }
            for (int i = 0; unit[i]; i++)
                done[unit[i]] = true;
            vec_push(gr->scratch, &order, k ? k : -(int)id);
            more = true;
        }
    }
    *count = order.n;
    if (*culprit)
        return NULL;
    return order.n ? order.v : arena_array(gr->scratch, 1, sizeof(int));
}
