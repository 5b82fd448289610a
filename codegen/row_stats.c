/* row_stats.c - what needs a whole row, or its last axis, before its first element can be computed: norms, softmax,
 * sums, top-k, products with chosen rows of a matrix. They end the open loop and stand between loops.
 *
 * The norm of a row that this program computes or follows takes sums of squares from the loop that made the row;
 * others read their operand (kernels/row_ops.cu).
 */
#include "codegen/row_int.h"
#include <string.h>

enum { PART = 128, LANES = 32 };

/* The operand of statistics: groups of `last` neighbours. */
typedef struct Groups {
    long long n, last;
    const char *read;
} Groups;

/* Ends the loop. A matmul's result is a sum of planes: it is kept so that it is read once. */
static NodeId begin(RowWriter *p, NodeId id) {
    row_loop_close(p);
    p->statistics = true;
    const NodeId x = row_resolve(p, ir_get(p->g->g, id)->in[0], ROW_HERE).id;
    if (p->of[x].main && !p->of[x].keep)
        p->again = p->of[x].keep = true;
    return x;
}

static Groups groups_of(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    const Type *from = ir_type(p->g->g, n->in[0]);
    const int64_t last = row_last_dim(from);
    const Groups g = {type_row_elems(from) / last, last, row_reader(p, n->in[0])};
    gen_line(p->g, &p->body, n->loc);
    return g;
}

/* Room for `results` numbers of each group, and for the parts of their sums: the text of the latter. */
static const char *rooms(RowWriter *p, NodeId id, const Groups *g, int results) {
    p->of[id].stat = row_room(p, g->n * 4 * results);
    return row_floats(p, row_room(p, g->n * ((g->last + PART - 1) / PART) * 4));
}

/* Number e / last of the statistics. */
static const char *of_group(RowWriter *p, int64_t place, const Type *t) {
    const int64_t last = row_last_dim(t);
    const char *array = arena_printf(p->a, "((float *)(shared + %lld))", (long long)place);
    return arena_printf(p->a, "%s[e / %lld]", array, (long long)last);
}

/* ==== Norms ==== */

/* The loop that made x leaves the sums of its squares: a variable holds the norm's factor. */
static void norm_of_squares(RowWriter *p, NodeId id, NodeId x) {
    const Node *n = ir_get(p->g->g, id);
    char eps[40];
    format_f32(eps, (float)n->attr[0].f);
    p->again |= !p->of[x].want_squares;
    p->of[x].want_squares = true;
    p->of[id].factor = p->values++;
    gen_line(p->g, &p->body, n->loc);
    buf_printf(&p->body, "    const float factor%d = row_norm_of<%lld, %d>(%s, (float)%s);\n", p->of[id].factor,
               (long long)row_last_dim(&n->type), LANES * p->of[x].width, row_floats(p, p->of[x].squares), eps);
}

static void norms_of_groups(RowWriter *p, NodeId id) {
    const Groups g = groups_of(p, id);
    const char *parts = rooms(p, id, &g, 1);
    char eps[40];
    format_f32(eps, (float)ir_get(p->g->g, id)->attr[0].f);
    buf_printf(&p->body, "    row_norms<%lld, %lld>(%s, %s, %s%s, %s);\n", g.n, g.last, row_floats(p, p->of[id].stat),
               parts, eps, strpbrk(eps, ".e") ? "f" : ".0f", g.read);
}

/* x / sqrt(..) (* w) */
void row_norm(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    const int64_t elems = type_row_elems(&n->type);
    const bool whole = elems == row_last_dim(&n->type);
    const NodeId x = begin(p, id);
    if (whole && (p->of[x].member || p->of[x].main) && type_row_elems(ir_type(p->g->g, x)) == elems)
        norm_of_squares(p, id, x);
    else
        norms_of_groups(p, id);
    row_loop_open(p, elems);
    const char *value = row_lane(p, n->in[0], ROW_HERE);
    const char *factor = p->of[id].factor >= 0 ? arena_printf(p->a, "factor%d", p->of[id].factor)
                         : whole ? arena_printf(p->a, "((float *)(shared + %lld))[0]", (long long)p->of[id].stat)
                                 : of_group(p, p->of[id].stat, &n->type);
    value = arena_printf(p->a, "%s * %s", value, factor);
    if (n->n_in > 1)
        value = arena_printf(p->a, "%s * %s", value,
                             row_lane(p, n->in[1], row_broadcast(p, &n->type, ir_type(p->g->g, n->in[1]), ROW_HERE)));
    row_define(p, id, value);
}

/* ==== Softmax ==== */

void row_softmax(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    begin(p, id);
    const Groups g = groups_of(p, id);
    const char *parts = rooms(p, id, &g, 2);
    const int64_t most = p->of[id].stat, sums = most + 4 * g.n;
    buf_printf(&p->body, "    row_softmax<%lld, %lld>(%s, %s, %s, %s);\n", g.n, g.last, row_floats(p, most),
               row_floats(p, sums), parts, g.read);
    row_loop_open(p, type_row_elems(&n->type));
    const char *x = row_lane(p, n->in[0], ROW_HERE);
    row_define(p, id,
               arena_printf(p->a, "expf(%s - %s) / %s", x, of_group(p, most, &n->type), of_group(p, sums, &n->type)));
}

/* ==== Sums and top-k ==== */

/* They are arrays at once; a loop copies them to the slab where they have a place. */
static void finish_array(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    p->of[id].kept = true;
    if (n->slab < 0)
        return;
    const Loc at = slab_loc(p->g, id);
    const char *to = row_param(p, row_is_int(n) ? "int *" : "float *", arg_loc(&at));
    buf_printf(&p->body,
               "    for (int e = threadIdx.x; e < %lld; e += TAIL_THREADS)\n        %s[(u64)row * %lld + e] = %s[e];\n",
               (long long)type_row_elems(&n->type), to, (long long)at.row_stride, row_kept(p, id));
}

void row_sum(RowWriter *p, NodeId id) {
    begin(p, id);
    const Groups g = groups_of(p, id);
    const char *parts = rooms(p, id, &g, 1);
    p->of[id].at = p->of[id].stat;
    buf_printf(&p->body, "    row_sums<%lld, %lld>(%s, %s, %s);\n", g.n, g.last, row_floats(p, p->of[id].stat), parts,
               g.read);
    finish_array(p, id);
}

void row_top_k(RowWriter *p, NodeId id) {
    const int64_t k = ir_get(p->g->g, id)->attr[0].i;
    begin(p, id);
    const Groups g = groups_of(p, id);
    p->of[id].at = row_room(p, g.n * k * 4);
    const char *copy = row_floats(p, row_room(p, g.n * g.last * 4));
    buf_printf(&p->body, "    row_top_k<%lld, %lld, %lld>((int *)(shared + %lld), %s, %s);\n", g.n, g.last,
               (long long)k, (long long)p->of[id].at, copy, g.read);
    finish_array(p, id);
}

/* x times the rows of a matrix that ids say. It stands alone (pass schedule), so that blocks share the ids. */
void row_linear_at(RowWriter *p, NodeId id) {
    enum { SHARE = 64 };
    const Node *n = ir_get(p->g->g, id), *w = ir_get(p->g->g, n->in[1]);
    if (w->op != OP_WEIGHT || !p->alone || n->slab < 0) {
        gen_fail(p->g, n, "rows of a matrix are chosen of a weight, in a launch of their own, on a GPU");
        return;
    }
    p->chosen = true;
    p->chunk = SHARE;
    p->loops = 1;
    const Loc at = slab_loc(p->g, id);
    const char *to = row_param(p, "float *", arg_loc(&at));
    const char *x = row_reader(p, n->in[0]), *ids = row_reader(p, n->in[2]);
    gen_line(p->g, &p->body, n->loc);
    buf_printf(
        &p->body,
        "    row_linear_at<%lld, %lld>(%s + (u64)row * %lld, first, end(%lld), %s, %s, [&](int at, int k) { return "
        "%s; });\n",
        (long long)w->type.dim[0], (long long)w->type.dim[1], to, (long long)at.row_stride,
        (long long)row_last_dim(&n->type), x, ids, row_weight_at(p, (int)w->attr[0].i, "at", "k"));
}
