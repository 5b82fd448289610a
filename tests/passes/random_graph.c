/* random_graph.c - grows a module op by op: a residual stream [T, D] is passed through random blocks,
 * each valid by construction, with names, taps and places; then the wanted rows and a head. */
#include "random_graph.h"
#include "passes/passes_int.h"

enum { D = 32, VOCAB = 40, HEADS = 4, DIM = 8, EXPERTS = 3 };

typedef struct Gen {
    Module *m;
    Graph *g;
    uint64_t state;
    NodeId tokens, pos, rows;
    NodeId kv[3]; /* the latest state of each cache; 0 not yet stored */
    int serial;
} Gen;

static int below(Gen *n, int most) {
    return (int)random_below(&n->state, most);
}

static SrcLoc here(Gen *n) {
    SrcLoc at = {diag_source(n->m->diag, below(n, 9) ? "made.lap" : "odd name #1.lap", NULL, 0), ++n->serial,
                 1 + below(n, 40), 0};
    return below(n, 5) ? at : NO_LOC;
}

static NodeId weight(Gen *n, DType t, int rank, const int64_t *dim) {
    const char *odd[] = {"blk.%d.w", "blk.%d-w", "%d.first", "a \"b\" %d"};
    const char *form = odd[below(n, 4)];
    char name[64];
    int i = n->serial++, at = 0;
    for (; *form; form++) {
        if (*form == '%') {
            at += snprintf(name + at, 16, "%d", i);
            form++;
        } else {
            name[at++] = *form;
        }
    }
    name[at] = 0;
    static const char *const file[] = {"w.gguf", "w.gguf", "a \"b\".gguf", NULL};
    Weight w = {.name = name, .type = type_make(t, rank, dim), .file = file[below(n, COUNTOF(file))], .loc = here(n)};
    return ir_weight(n->g, module_add_weight(n->m, w), here(n));
}

static NodeId vector(Gen *n, int64_t size) {
    return weight(n, DT_F32, 1, (int64_t[]){size});
}

static NodeId matrix(Gen *n, int64_t out, int64_t in) {
    static const DType types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q5_1};
    return weight(n, in % 32 ? DT_F32 : types[below(n, COUNTOF(types))], 2, (int64_t[]){out, in});
}

static NodeId op(Gen *n, Op o, int n_in, const NodeId *in, const Attr *attr, const char *name) {
    return ir_node(n->g, o, in, n_in, attr, NULL, name, here(n));
}

static NodeId op1(Gen *n, Op o, NodeId x) {
    return op(n, o, 1, &x, NULL, NULL);
}

static NodeId op2(Gen *n, Op o, NodeId x, NodeId y) {
    return op(n, o, 2, (NodeId[]){x, y}, NULL, NULL);
}

static NodeId number(Gen *n, double v) {
    return ir_const(n->g, v, here(n));
}

static NodeId norm(Gen *n, NodeId x, int64_t size) {
    Attr eps[MAX_ATTRS] = {{.f = 1e-6}};
    if (below(n, 2))
        return op(n, OP_RMS_NORM, 2, (NodeId[]){x, vector(n, size)}, eps, "n");
    NodeId y = op(n, OP_RMS_NORM, 1, &x, eps, NULL);
    return below(n, 3) ? op2(n, OP_MUL, y, vector(n, size)) : y;
}

static NodeId linear(Gen *n, NodeId x, int64_t out, int64_t in) {
    return op2(n, OP_LINEAR, x, matrix(n, out, in));
}

/* Ops that do nothing, and constants to fold. */
static NodeId noise(Gen *n, NodeId x) {
    switch (below(n, 7)) {
    case 0: return op2(n, OP_MUL, x, number(n, 1));
    case 1: return op2(n, OP_ADD, number(n, 0), x);
    case 2: return op1(n, OP_NEG, op1(n, OP_NEG, x));
    case 3: return op2(n, OP_MUL, x, op2(n, OP_DIV, number(n, 3), number(n, 4)));
    case 4: return op2(n, OP_SUB, x, op1(n, OP_TANH, number(n, 0.1 * below(n, 9))));
    case 5:
        return ir_reshape(n->g, ir_reshape(n->g, x, type_make(DT_F32, 3, (int64_t[]){DIM_T, 4, D / 4}), NULL, here(n)),
                          type_make(DT_F32, 2, (int64_t[]){DIM_T, D}), NULL, here(n));
    default: return x;
    }
}

static NodeId elementwise(Gen *n, NodeId x) {
    static const Op one[] = {OP_TANH, OP_SIGMOID, OP_SILU, OP_GELU, OP_NEG, OP_SOFTMAX};
    static const Op two[] = {OP_ADD, OP_SUB, OP_MUL, OP_MAX, OP_MIN};
    NodeId y = below(n, 2) ? op1(n, one[below(n, COUNTOF(one))], x) : x;
    NodeId other = below(n, 3) == 0 ? vector(n, D) : below(n, 2) == 0 ? number(n, random_between(&n->state, -2, 2)) : x;
    return op2(n, two[below(n, COUNTOF(two))], y, other);
}

static NodeId slices(Gen *n, NodeId x) {
    int64_t cut = 1 + below(n, D - 1);
    Attr lo[MAX_ATTRS] = {{.i = 1}, {.i = 0}, {.i = cut}}, hi[MAX_ATTRS] = {{.i = 1}, {.i = cut}, {.i = D - cut}};
    NodeId a = op(n, OP_SLICE, 1, &x, lo, "lo"), b = op(n, OP_SLICE, 1, &x, hi, "hi");
    return op(n, OP_CONCAT, 2, (NodeId[]){b, a}, lo, NULL);
}

static NodeId mlp(Gen *n, NodeId x) {
    NodeId h = norm(n, x, D), gate = op1(n, OP_GELU, linear(n, h, 64, D));
    return linear(n, op2(n, OP_MUL, gate, linear(n, h, 64, D)), D, 64);
}

static NodeId experts(Gen *n, NodeId x) {
    Attr k[MAX_ATTRS] = {{.i = 2}};
    NodeId p = op1(n, OP_SOFTMAX, linear(n, x, EXPERTS, D)), ids = op(n, OP_TOP_K, 1, &p, k, "ids");
    NodeId c = op2(n, OP_GATHER, p, ids);
    NodeId sum = op1(n, OP_SUM, c);
    NodeId w = op2(n, OP_DIV, c, ir_reshape(n->g, sum, type_make(DT_F32, 2, (int64_t[]){DIM_T, 1}), NULL, here(n)));
    NodeId y =
        op(n, OP_LINEAR_EXPERTS, 3, (NodeId[]){x, weight(n, DT_Q8_0, 3, (int64_t[]){EXPERTS, D, D}), ids}, NULL, NULL);
    return op2(n, OP_COMBINE, y, w);
}

static NodeId heads(Gen *n, NodeId x, int count) {
    return ir_reshape(n->g, x, type_make(DT_F32, 3, (int64_t[]){DIM_T, count, DIM}), NULL, here(n));
}

static NodeId rope(Gen *n, NodeId x) {
    Attr a[MAX_ATTRS] = {{.f = 10000}, {.i = DIM}, {.f = 1}};
    NodeId in[] = {x, n->pos, below(n, 2) ? 0 : vector(n, DIM / 2)};
    return op(n, OP_ROPE, in[2] ? 3 : 2, in, a, NULL);
}

/* Stores to a cache not stored yet, or reads one that was. */
static NodeId attention(Gen *n, NodeId x) {
    int c = below(n, n->m->caches.n), kv_heads = n->m->caches.v[c].layout.heads;
    if (!n->kv[c]) {
        NodeId k = heads(n, linear(n, x, kv_heads * DIM, D), kv_heads);
        NodeId v = heads(n, linear(n, x, kv_heads * DIM, D), kv_heads);
        NodeId in[] = {ir_cache(n->g, c, here(n)), rope(n, k), v, n->pos};
        n->kv[c] = op(n, OP_KV_STORE, 4, in, NULL, "kv");
    }
    NodeId q = rope(n, heads(n, linear(n, x, HEADS * DIM, D), HEADS));
    Attr a[MAX_ATTRS] = {{.i = below(n, n->m->variants.n)}, {.f = 0.35}};
    if (c == 0)
        a[0].i = 1 + below(n, 2); /* windows only: this one may become a ring */
    NodeId o = op(n, OP_ATTEND, 3, (NodeId[]){q, n->kv[c], n->pos}, a, NULL);
    NodeId flat = ir_reshape(n->g, o, type_make(DT_F32, 2, (int64_t[]){DIM_T, HEADS * DIM}), NULL, here(n));
    return linear(n, flat, D, HEADS * DIM);
}

static const Scalar *binary(Gen *n, ScalarOp o, const Scalar *x, const Scalar *y) {
    return scalar_new(n->m->arena, o, x, y, NULL, NO_LOC);
}

static void add_variants(Gen *n) {
    Arena *a = n->m->arena;
    const Scalar *q = scalar_new(a, SC_Q, NULL, NULL, NULL, NO_LOC), *k = scalar_new(a, SC_K, NULL, NULL, NULL, NO_LOC);
    const Scalar *s = scalar_new(a, SC_S, NULL, NULL, NULL, NO_LOC);
    const Scalar *causal = binary(n, SC_LE, k, q);
    const char *names[] = {"full", "near", "window.6"};
    for (int i = 0; i < 3; i++) {
        Variant v = {.name = names[i], .visible = causal, .loc = here(n)};
        if (i)
            v.visible =
                binary(n, SC_AND, causal, binary(n, SC_LT, binary(n, SC_SUB, q, k), scalar_const(a, 3 * i, NO_LOC)));
        if (i == 2)
            v.score = binary(n, SC_MUL, s, scalar_const(a, 0.9, NO_LOC));
        module_add_variant(n->m, v);
    }
}

static NodeId block(Gen *n, NodeId h) {
    switch (below(n, 7)) {
    case 0: return noise(n, elementwise(n, h));
    case 1: return op2(n, OP_ADD, h, slices(n, h));
    case 2: return op2(n, OP_ADD, h, experts(n, norm(n, h, D)));
    case 3:
    case 4: return op2(n, OP_ADD, noise(n, h), mlp(n, h));
    default: return op2(n, OP_ADD, h, norm(n, attention(n, norm(n, h, D)), D));
    }
}

Module *random_module(Arena *arena, Diag *diag, uint64_t seed) {
    Gen n = {.m = module_new(arena, diag, "made", "made"), .state = seed * 2 + 1};
    random_next(&n.state);
    n.g = graph_new(n.m, "step", here(&n));
    vec_push(arena, &n.m->graphs, n.g);
    n.tokens = ir_input(n.g, "tokens", type_make(DT_I32, 1, (int64_t[]){DIM_T}), NO_LOC);
    n.pos = ir_input(n.g, "pos", type_make(DT_I32, 1, (int64_t[]){DIM_T}), NO_LOC);
    n.rows = ir_input(n.g, "rows", type_make(DT_I32, 1, (int64_t[]){DIM_R}), NO_LOC);
    add_variants(&n);
    for (int i = 0; i < 3; i++) {
        char name[8] = {'k', 'v', '.', (char)('0' + i), 0};
        Cache c = {.name = name, .loc = here(&n), .layout = {.heads = i == 1 ? 2 : 1, .k_dim = DIM, .v_dim = DIM}};
        c.layout.k_type = c.layout.v_type = i == 2 ? DT_F16 : DT_F32;
        module_add_cache(n.m, c);
    }
    NodeId h = op2(&n, OP_EMBED, n.tokens, matrix(&n, VOCAB, D));
    for (int i = 0, blocks = 1 + below(&n, 6); i < blocks; i++) {
        h = block(&n, h);
        char name[16];
        snprintf(name, sizeof name, "layer.%d", i);
        if (below(&n, 3) == 0)
            ir_output(n.g, OUT_TAP, name, h, here(&n));
    }
    NodeId last = norm(&n, h, D), logits;
    if (below(&n, 2))
        logits = linear(&n, op2(&n, OP_ROWS, last, n.rows), VOCAB, D);
    else
        logits = op2(&n, OP_ROWS, linear(&n, last, VOCAB, D), n.rows);
    ir_output(n.g, OUT_EMIT, "logits", logits, here(&n));
    for (int i = 0; i < 3; i++)
        if (n.kv[i])
            ir_output(n.g, OUT_KEEP, n.m->caches.v[i].name, n.kv[i], here(&n));
    return n.m;
}
