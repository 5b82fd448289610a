/* row_nodes.c - the text of each op of a row program. An op here is one statement in a loop; those of row_stats.c have
 * statements in front of it.
 */
#include "codegen/row_int.h"
#include <string.h>

enum { KEPT_IN_SHARED = 64 << 10 };

/* ==== Elementwise ==== */

static const char *elementwise_format(Op op) {
    switch ((int)op) {
#define ELEMENTWISE(e, text)                                                                                           \
    case OP_##e:                                                                                                       \
        return text;
#include "codegen/elementwise.def"
#undef ELEMENTWISE
    default: return NULL;
    }
}

/* format has one or two %s. */
static const char *apply(RowWriter *p, const char *format, const char *x, const char *y) {
    Buf b = {0};
    for (const char *c = format; *c; c++) {
        if (c[0] == '%' && c[1] == 's') {
            buf_str(&b, x);
            x = y;
            c++;
        } else {
            buf_char(&b, *c);
        }
    }
    const char *text = arena_strndup(p->a, b.s, b.n);
    buf_free(&b);
    return text;
}

static void write_elementwise(RowWriter *p, NodeId id, const char *format) {
    const Node *n = ir_get(p->g->g, id);
    for (int i = 0; i < n->n_in; i++) {
        const RowIndex at = row_broadcast(p, &n->type, ir_type(p->g->g, n->in[i]), ROW_HERE);
        const RowRef r = row_resolve(p, n->in[i], at);
        if (p->loop.open && p->of[r.id].in_loop && (strcmp(r.at.text, "e") != 0 || r.skip))
            row_loop_close(p);
    }
    row_loop_open(p, type_row_elems(&n->type));
    const char *x[2] = {"", ""};
    for (int i = 0; i < n->n_in; i++)
        x[i] = row_lane(p, n->in[i], row_broadcast(p, &n->type, ir_type(p->g->g, n->in[i]), ROW_HERE));
    row_define(p, id, apply(p, format, x[0], x[1]));
}

/* ==== Elements from elsewhere in the row: these loops have one element a lane ==== */

static void open_scalar_loop(RowWriter *p, int64_t n) {
    row_loop_open(p, n);
    p->loop.scalar = true;
}

static void write_gather(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    const Type *from = ir_type(p->g->g, n->in[0]);
    const int64_t k = row_last_dim(&n->type), last = row_last_dim(from);
    row_loop_leave(p, n->in[0]);
    open_scalar_loop(p, type_row_elems(&n->type));
    const char *which = row_lane(p, n->in[1], ROW_HERE);
    if (type_has_rows(from) && type_row_elems(&n->type) != k)
        which = arena_printf(p->a, "e / %lld * %lld + %s", (long long)k, (long long)last, which);
    row_define(p, id, row_read(p, n->in[0], row_index(which, false)));
}

/* n neighbours of a table for each id. */
static void write_lookup(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id), *table = ir_get(p->g->g, n->in[1]);
    if (table->op != OP_WEIGHT || table->type.dtype != DT_I32) {
        gen_fail(p->g, n, "a lookup must read a weight of i32 on a GPU");
        return;
    }
    const long long len = n->attr[0].i;
    row_loop_leave(p, n->in[0]);
    open_scalar_loop(p, type_row_elems(&n->type));
    const char *which = row_read(p, n->in[0], row_index(arena_printf(p->a, "e / %lld", len), false));
    const char *from = row_param(p, "const int *", arg_at(gen_raw(p->g, (int)table->attr[0].i), 0));
    row_define(p, id, arena_printf(p->a, "%s[%s * %lld + e %% %lld]", from, which, len, len));
}

/* A loop writes the rest everywhere; the elements follow when all of it is there. */
static void write_scatter(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    const Type *x = ir_type(p->g->g, n->in[0]);
    if (n->slab < 0 || p->of[id].keep || type_row_elems(x) != row_last_dim(x)) {
        gen_fail(p->g, n, "no kernel reads scattered values where they are made");
        return;
    }
    for (int i = 0; i < n->n_in; i++)
        row_loop_leave(p, n->in[i]);
    row_loop_open(p, type_row_elems(&n->type));
    row_define(p, id, row_lane(p, n->in[2], row_broadcast(p, &n->type, ir_type(p->g->g, n->in[2]), ROW_HERE)));
    row_loop_close(p);
    p->chosen = p->statistics = true; /* one block has the whole row */
    const Loc at = slab_loc(p->g, id);
    const char *to = row_param(p, "float *", arg_loc(&at)), *again = row_floats(p, row_room(p, 4));
    const char *ids = row_reader(p, n->in[1]), *from = row_reader(p, n->in[0]);
    gen_line(p->g, &p->body, n->loc);
    buf_printf(&p->body, "    row_scatter<%lld, %lld>((u32 *)(%s + (u64)row * %lld), (int *)%s, %s, %s);\n",
               (long long)row_last_dim(&n->type), (long long)row_last_dim(x), to, (long long)at.row_stride, again, ids,
               from);
}

/* All parts of an element are asked for before the first is used. */
static void combine_unrolled(RowWriter *p, NodeId id, int64_t d, int64_t k) {
    const Node *n = ir_get(p->g->g, id);
    Buf sum = {0};
    row_loop_open(p, d);
    buf_str(&sum, "0.0f");
    for (int64_t s = 0; s < k; s++) {
        const char *c = row_early(p, n->in[1], arena_printf(p->a, "%lld", (long long)s));
        const RowIndex at = {arena_printf(p->a, "%lld + e", (long long)(s * d)), d % p->neighbours == 0, s, d};
        buf_printf(&sum, " + %s * %s", row_lane(p, n->in[0], at), c);
    }
    row_define(p, id, arena_strndup(p->a, sum.s, sum.n));
    buf_free(&sum);
}

static void write_combine(RowWriter *p, NodeId id) {
    enum { MOST_UNROLLED = 16 };
    const Node *n = ir_get(p->g->g, id);
    const Type *y = ir_type(p->g->g, n->in[0]);
    const int64_t d = row_last_dim(y), k = type_row_elems(y) / d;
    row_loop_leave(p, n->in[0]);
    row_loop_leave(p, n->in[1]);
    if (k <= MOST_UNROLLED) {
        combine_unrolled(p, id, d, k);
        return;
    }
    open_scalar_loop(p, d);
    const char *c = row_read(p, n->in[1], row_index("s", false));
    const char *v = row_read(p, n->in[0], row_index(arena_printf(p->a, "s * %lld + e", (long long)d), false));
    buf_str(&p->loop.lines, "            float sum = 0.0f;\n#pragma unroll\n");
    buf_printf(&p->loop.lines, "            for (int s = 0; s < %lld; s++)\n                sum += %s * %s;\n",
               (long long)k, c, v);
    row_define(p, id, "sum");
}

static void write_rope(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    int turns;
    if (!gen_rope_turns(p->g, n, &turns))
        return;
    row_loop_leave(p, n->in[0]);
    open_scalar_loop(p, type_row_elems(&n->type));
    const char *table = row_param(p, "const double *", arg_at(turns, 0));
    const char *x = row_reader(p, n->in[0]);
    const char *pos = row_ids(p, n->in[1], "row");
    row_define(p, id,
               arena_printf(p->a, "row_turned<%lld, %lld>(e, %s, %s, %s)", (long long)row_last_dim(&n->type),
                            (long long)n->attr[1].i, pos, table, x));
}

static void write_concat(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    const int64_t axis = n->attr[0].i;
    int64_t inner = 1;
    for (int i = (int)axis + 1; i < n->type.rank; i++)
        inner *= n->type.dim[i];
    const int64_t whole = n->type.dim[axis] * inner;
    for (int i = 0; i < n->n_in; i++)
        row_loop_leave(p, n->in[i]);
    open_scalar_loop(p, type_row_elems(&n->type));
    Buf b = {0};
    int64_t start = 0;
    for (int i = 0; i < n->n_in; i++) {
        const int64_t len = ir_type(p->g->g, n->in[i])->dim[axis] * inner;
        const RowIndex at = row_index(arena_printf(p->a, "e / %lld * %lld + e %% %lld - %lld", (long long)whole,
                                                   (long long)len, (long long)whole, (long long)start),
                                      false);
        start += len;
        if (i + 1 < n->n_in)
            buf_printf(&b, "e %% %lld < %lld ? ", (long long)whole, (long long)start);
        buf_str(&b, row_read(p, n->in[i], at));
        if (i + 1 < n->n_in)
            buf_str(&b, " : ");
    }
    row_define(p, id, arena_strndup(p->a, b.s, b.n));
    buf_free(&b);
}

/* ==== Rows from elsewhere ==== */

const char *row_weight_at(RowWriter *p, int weight, const char *row, const char *k) {
    const Type *t = &p->g->m->weights.v[weight].type;
    const DTypeInfo *info = dtype_info(t->dtype);
    if (t->dtype == DT_F32)
        return arena_printf(p->a, "%s[(u64)%s * %lld + %s]",
                            row_param(p, "const float *", arg_at(gen_raw(p->g, weight), 0)), row, (long long)t->dim[1],
                            k);
    return arena_printf(p->a, "tile_value(Form_%s(), %s, %lld, %s, %s)", info->tile_form,
                        row_param(p, "const u8 *", arg_at(gen_tiles_of(p->g, weight), 0)),
                        (long long)((t->dim[1] + info->tile_k - 1) / info->tile_k), row, k);
}

static void write_embed(RowWriter *p, NodeId id) {
    enum { WEIGHT = 4 };
    const Node *n = ir_get(p->g->g, id), *table = ir_get(p->g->g, n->in[1]);
    if (table->op != OP_WEIGHT) {
        gen_fail(p->g, n, "an embedding must read a weight on a GPU");
        return;
    }
    const char *row = row_ids(p, n->in[0], "row");
    row_loop_open(p, type_row_elems(&n->type));
    const int k = row_loop_load(p, WEIGHT, false);
    buf_printf(
        &p->loop.loads,
        "#pragma unroll\n                    for (int i = 0; i < W; i++)\n                        x%d[u][i] = %s;\n", k,
        row_weight_at(p, (int)table->attr[0].i, row, "e + i"));
    row_define(p, id, arena_printf(p->a, "x%d[u][i]", k));
}

/* A value of another launch, the rows picked from one, or a matmul's result. */
static void write_copy(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    row_loop_open(p, type_row_elems(&n->type));
    const RowRef r = row_resolve(p, id, ROW_HERE);
    if (r.id == id && !p->of[id].main)
        ICE("%s cannot be read", n->name);
    p->loop.scalar |= row_is_int(n);
    const bool plain = ir_get(p->g->g, r.id)->op == OP_INPUT || row_is_int(n);
    row_define(p, id, plain ? row_read(p, id, ROW_HERE) : row_lane(p, id, ROW_HERE));
}

/* ==== All ==== */

/* Room for a value that is kept; sums and top-k have theirs. */
static void make_room(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    RowValue *v = &p->of[id];
    if (!v->keep || v->global >= 0 || n->op == OP_SUM || n->op == OP_TOP_K)
        return;
    const int64_t bytes = 4 * type_row_elems(&n->type);
    if (bytes > KEPT_IN_SHARED && !v->operand.k)
        v->global = gen_scratch(p->g, bytes * gen_most(p->g, n->type.dim[0]), p->g->group);
    else
        v->at = row_room(p, bytes);
}

void row_node(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    const char *format = elementwise_format(n->op);
    const bool placed = n->slab >= 0;
    make_room(p, id);
    if (format) {
        write_elementwise(p, id, format);
        return;
    }
    switch ((int)n->op) {
    case OP_RMS_NORM: row_norm(p, id); return;
    case OP_SOFTMAX: row_softmax(p, id); return;
    case OP_SUM: row_sum(p, id); return;
    case OP_TOP_K: row_top_k(p, id); return;
    case OP_LINEAR_AT: row_linear_at(p, id); return;
    case OP_GATHER: write_gather(p, id); return;
    case OP_LOOKUP: write_lookup(p, id); return;
    case OP_SCATTER: write_scatter(p, id); return;
    case OP_COMBINE: write_combine(p, id); return;
    case OP_ROPE: write_rope(p, id); return;
    case OP_CONCAT: write_concat(p, id); return;
    case OP_EMBED: write_embed(p, id); return;
    case OP_SLICE:
    case OP_ROWS:
        if (placed)
            write_copy(p, id);
        return;
    case OP_LINEAR:
    case OP_LINEAR_EXPERTS:
        if (p->of[id].keep || (placed && !p->g->in_planes[id]))
            write_copy(p, id);
        return;
    case OP_RESHAPE: return;
    default: gen_fail(p->g, n, "no kernel computes \"%s\" row by row", op_info(n->op)->name);
    }
}
