/* graph.c - making nodes: names, hash-consing, copying. The only way a node comes to be. */
#include "ir/ir.h"

#include <string.h>

static OpInfo infos[OP_COUNT];

static unsigned flag_bits(const char *flags) {
    static const struct {
        char c;
        unsigned bit;
    } letters[] = {{'P', OPF_PURE}, {'E', OPF_ELEMENTWISE}, {'C', OPF_COMMUTATIVE}, {'V', OPF_VIEW},
                   {'L', OPF_LEAF}, {'R', OPF_ROWWISE},     {'Y', OPF_TYPED}};
    unsigned bits = 0;
    for (; *flags; flags++)
        for (size_t i = 0; i < COUNTOF(letters); i++)
            if (letters[i].c == *flags)
                bits |= letters[i].bit;
    return bits;
}

/* "eps:f k:i" -> names and kinds. The names live in a static pool: they are part of the program. */
static void read_attrs(OpInfo *o, const char *attrs) {
    static char pool[1024];
    static size_t used;
    while (*attrs) {
        const char *colon = strchr(attrs, ':');
        size_t n = (size_t)(colon - attrs);
        if (used + n + 1 > sizeof pool || o->n_attrs == MAX_ATTRS)
            ICE("ops.def: attributes of %s", o->name);
        memcpy(pool + used, attrs, n);
        o->attr_name[o->n_attrs] = pool + used;
        o->attr_kind[o->n_attrs++] = colon[1];
        used += n + 1;
        attrs = colon[2] == ' ' ? colon + 3 : colon + 2;
    }
}

__attribute__((constructor)) static void build_table(void) {
#define OP(e, nm, lo, hi, attrs_, flags_)                                                                              \
    infos[OP_##e] = (OpInfo){.name = #nm, .min_in = lo, .max_in = hi, .flags = flag_bits(flags_)};                     \
    read_attrs(&infos[OP_##e], attrs_);
#include "ir/ops.def"
#undef OP
    infos[OP_NONE].name = "none";
}

const OpInfo *op_info(Op op) {
    if ((unsigned)op >= OP_COUNT)
        ICE("no op %d", (int)op);
    return &infos[op];
}

Op op_from_name(Str name) {
    for (int op = 1; op < OP_COUNT; op++)
        if (str_eq(name, infos[op].name))
            return (Op)op;
    return OP_NONE;
}

/* ==== Tables of a graph ==== */

struct GraphTables {
    NameMap *names; /* node name -> id */
    NameMap *last;  /* wished name -> the last number that was put behind it: a loop wishes one name all the time */
    NodeId *slot;   /* hash-consing: ids by hash, open addressing, at most half full */
    uint64_t *hash; /* of each slot */
    size_t size, used;
};

Graph *graph_new(Module *m, const char *name, SrcLoc loc) {
    Arena *a = m->arena;
    Graph *g = arena_alloc(a, sizeof *g);
    g->module = m;
    g->name = arena_strdup(a, name);
    g->loc = loc;
    g->tables = arena_alloc(a, sizeof *g->tables);
    g->tables->names = namemap_new(a);
    g->tables->last = namemap_new(a);
    g->tables->size = 64;
    g->tables->slot = arena_array(a, 64, sizeof(NodeId));
    g->tables->hash = arena_array(a, 64, sizeof(uint64_t));
    vec_push(a, &g->nodes, (Node){0}); /* id 0 is no node */
    return g;
}

static uint64_t node_hash(const Node *n) {
    uint64_t h = hash_bytes(n->in, (size_t)n->n_in * sizeof *n->in, (uint64_t)n->op);
    const OpInfo *o = op_info(n->op);
    for (int i = 0; i < o->n_attrs; i++)
        h = o->attr_kind[i] == 's' ? hash_bytes(n->attr[i].s, strlen(n->attr[i].s), h)
                                   : hash_bytes(&n->attr[i], sizeof n->attr[i], h);
    return hash_bytes(n->type.dim, (size_t)n->type.rank * sizeof *n->type.dim, h);
}

static bool node_same(const Node *a, const Node *b) {
    if (a->op != b->op || a->n_in != b->n_in || !type_same(&a->type, &b->type))
        return false;
    if (a->n_in && memcmp(a->in, b->in, (size_t)a->n_in * sizeof *a->in) != 0)
        return false;
    const OpInfo *o = op_info(a->op);
    for (int i = 0; i < o->n_attrs; i++) {
        if (o->attr_kind[i] == 's' ? strcmp(a->attr[i].s, b->attr[i].s) != 0
                                   : memcmp(&a->attr[i], &b->attr[i], sizeof a->attr[i]) != 0)
            return false;
    }
    return true;
}

/* The slot of an equal node, or the empty one where it belongs. */
static size_t find_slot(const Graph *g, const Node *n, uint64_t h) {
    const struct GraphTables *t = g->tables;
    for (size_t i = h & (t->size - 1);; i = (i + 1) & (t->size - 1)) {
        if (!t->slot[i] || (t->hash[i] == h && node_same(&g->nodes.v[t->slot[i]], n)))
            return i;
    }
}

static void grow_slots(Graph *g) {
    struct GraphTables *t = g->tables, old = *t;
    t->size *= 2;
    t->slot = arena_array(g->module->arena, t->size, sizeof(NodeId));
    t->hash = arena_array(g->module->arena, t->size, sizeof(uint64_t));
    for (size_t i = 0; i < old.size; i++) {
        if (!old.slot[i])
            continue;
        size_t j = old.hash[i] & (t->size - 1);
        while (t->slot[j])
            j = (j + 1) & (t->size - 1);
        t->slot[j] = old.slot[i];
        t->hash[j] = old.hash[i];
    }
}

/* The wished name, or it with .1, .2 ... */
static const char *unique_name(Graph *g, const char *wish, NodeId id) {
    Arena *a = g->module->arena;
    struct GraphTables *t = g->tables;
    const char *name = wish;
    if (namemap_get(t->names, wish) < 0) {
        name = arena_strdup(a, wish);
    } else {
        const int last = namemap_get(t->last, wish);
        int i = last < 0 ? 0 : last;
        do
            name = arena_printf(a, "%s.%d", wish, ++i);
        while (namemap_get(t->names, name) >= 0);
        namemap_put(t->last, arena_strdup(a, wish), i);
    }
    namemap_put(t->names, name, (int)id);
    return name;
}

/* ==== Making nodes ==== */

static bool operands_fit(const Graph *g, Op op, const NodeId *in, int n_in, SrcLoc loc) {
    const OpInfo *o = op_info(op);
    if (n_in < o->min_in || n_in > o->max_in) {
        if (o->min_in == o->max_in)
            diag_error(g->module->diag, loc, "%s takes %d operand%s, not %d", o->name, o->min_in,
                       o->min_in == 1 ? "" : "s", n_in);
        else
            diag_error(g->module->diag, loc, "%s takes %d to %d operands, not %d", o->name, o->min_in, o->max_in, n_in);
        return false;
    }
    for (int i = 0; i < n_in; i++)
        if (in[i] >= (NodeId)g->nodes.n)
            ICE("%s: operand %d is no node yet", o->name, i);
    return true;
}

NodeId ir_node(Graph *g, Op op, const NodeId *in, int n_in, const Attr *attr, const Type *type, const char *name,
               SrcLoc loc) {
    Arena *a = g->module->arena;
    const OpInfo *o = op_info(op);
    for (int i = 0; i < n_in; i++)
        if (!in[i])
            return 0;
    if (!operands_fit(g, op, in, n_in, loc))
        return 0;
    Node n = {.op = op, .n_in = n_in, .loc = loc, .slab = -1};
    NodeId held[MAX_INPUTS];
    for (int i = 0; i < n_in; i++)
        held[i] = in[i];
    n.in = held;
    for (int i = 0; i < o->n_attrs; i++) {
        n.attr[i] = attr[i];
        if (o->attr_kind[i] == 'f')
            n.attr[i].f = (float)attr[i].f;
    }
    if (o->flags & OPF_TYPED) {
        if (!type)
            ICE("%s needs its type", o->name);
        n.type = *type;
    }
    if (!ir_infer(g, &n, &n.type))
        return 0;
    uint64_t h = node_hash(&n);
    size_t slot = find_slot(g, &n, h);
    if (o->flags & OPF_PURE && g->tables->slot[slot])
        return g->tables->slot[slot];

    NodeId id = (NodeId)g->nodes.n;
    n.in = arena_array(a, (size_t)n_in, sizeof *n.in);
    memcpy(n.in, held, (size_t)n_in * sizeof *n.in);
    for (int i = 0; i < o->n_attrs; i++)
        if (o->attr_kind[i] == 's')
            n.attr[i].s = arena_strdup(a, attr[i].s);
    if (!(o->flags & OPF_LEAF))
        n.name = unique_name(g, name ? name : o->name, id);
    vec_push(a, &g->nodes, n);
    g->tables->slot[slot] = id;
    g->tables->hash[slot] = h;
    if (++g->tables->used * 2 > g->tables->size)
        grow_slots(g);
    return id;
}

NodeId ir_input(Graph *g, const char *name, Type type, SrcLoc loc) {
    for (int i = 0; i < g->inputs.n; i++) {
        const Node *n = ir_get(g, g->inputs.v[i]);
        if (strcmp(n->attr[0].s, name) == 0) {
            if (type_same(&n->type, &type))
                return g->inputs.v[i];
            diag_error(g->module->diag, loc, "input '%s' declared twice with different types", name);
            return 0;
        }
    }
    Attr attr = {.s = name};
    NodeId id = ir_node(g, OP_INPUT, NULL, 0, &attr, &type, NULL, loc);
    if (id)
        vec_push(g->module->arena, &g->inputs, id);
    return id;
}

NodeId ir_const(Graph *g, double value, SrcLoc loc) {
    Attr attr = {.f = value};
    return ir_node(g, OP_CONST, NULL, 0, &attr, NULL, NULL, loc);
}

NodeId ir_weight(Graph *g, int weight, SrcLoc loc) {
    Attr attr = {.i = weight};
    return ir_node(g, OP_WEIGHT, NULL, 0, &attr, NULL, NULL, loc);
}

NodeId ir_cache(Graph *g, int cache, SrcLoc loc) {
    Attr attr = {.i = cache};
    return ir_node(g, OP_CACHE, NULL, 0, &attr, NULL, NULL, loc);
}

NodeId ir_op1(Graph *g, Op op, NodeId x, const char *name, SrcLoc loc) {
    return ir_node(g, op, &x, 1, NULL, NULL, name, loc);
}

NodeId ir_op2(Graph *g, Op op, NodeId x, NodeId y, const char *name, SrcLoc loc) {
    return ir_node(g, op, (NodeId[]){x, y}, 2, NULL, NULL, name, loc);
}

NodeId ir_reshape(Graph *g, NodeId x, Type type, const char *name, SrcLoc loc) {
    return ir_node(g, OP_RESHAPE, &x, 1, NULL, &type, name, loc);
}

void ir_output(Graph *g, OutputKind kind, const char *name, NodeId node, SrcLoc loc) {
    Output o = {kind, arena_strdup(g->module->arena, name), node, loc};
    vec_push(g->module->arena, &g->outputs, o);
}

NodeId ir_find_output(const Graph *g, OutputKind kind, const char *name) {
    for (int i = 0; i < g->outputs.n; i++)
        if (g->outputs.v[i].kind == kind && strcmp(g->outputs.v[i].name, name) == 0)
            return g->outputs.v[i].node;
    return 0;
}

bool ir_is_const(const Graph *g, NodeId id, double *value) {
    const Node *n = ir_get(g, id);
    if (n->op != OP_CONST)
        return false;
    *value = n->attr[0].f;
    return true;
}

NodeId ir_view_base(const Graph *g, NodeId id) {
    while (op_info(ir_get(g, id)->op)->flags & OPF_VIEW)
        id = ir_get(g, id)->in[0];
    return id;
}

int ir_cache_of(const Graph *g, NodeId kv) {
    const Node *n = ir_get(g, kv);
    while (n->op == OP_KV_STORE)
        n = ir_get(g, n->in[0]);
    if (n->op != OP_CACHE)
        ICE("%s is no cache state", n->name ? n->name : op_info(n->op)->name);
    return (int)n->attr[0].i;
}

/* ==== Rebuilding ==== */

NodeId ir_copy(Graph *to, const Graph *from, NodeId id, const NodeId *map) {
    const Node *n = ir_get(from, id);
    if (n->op == OP_INPUT)
        return ir_input(to, n->attr[0].s, n->type, n->loc);
    NodeId in[MAX_INPUTS];
    for (int i = 0; i < n->n_in; i++) {
        in[i] = map[n->in[i]];
        if (!in[i])
            ICE("copying %s: operand %d is not mapped", n->name ? n->name : op_info(n->op)->name, i);
    }
    return ir_node(to, n->op, in, n->n_in, n->attr, &n->type, n->name, n->loc);
}

Graph *ir_clone_empty(const Graph *g) {
    Graph *c = graph_new(g->module, g->name, g->loc);
    for (int i = 0; i < g->inputs.n; i++) {
        const Node *n = ir_get(g, g->inputs.v[i]);
        ir_input(c, n->attr[0].s, n->type, n->loc);
    }
    return c;
}

int *ir_use_counts(const Graph *g, Arena *a) {
    int *uses = arena_array(a, (size_t)g->nodes.n, sizeof *uses);
    for (int id = 1; id < g->nodes.n; id++)
        for (int i = 0; i < g->nodes.v[id].n_in; i++)
            uses[g->nodes.v[id].in[i]]++;
    for (int i = 0; i < g->outputs.n; i++)
        uses[g->outputs.v[i].node]++;
    return uses;
}
