/* row_read.c - where an operand of a row program is, and the text that reads it.
 *
 * An operand is followed through views, slices and gathered rows to something that is somewhere: a constant, a weight,
 * an input, a value of an earlier launch, one that this program keeps, or a variable of the open loop.
 */
#include "codegen/row_int.h"
#include <string.h>

/* ==== Parameters ==== */

const char *row_param(RowWriter *p, const char *type, PlanArg arg) {
    for (int i = 0; i < p->out->params.n; i++) {
        const RowParam *r = &p->out->params.v[i];
        if (strcmp(r->type, type) == 0 && r->arg.kind == arg.kind && r->arg.buffer == arg.buffer &&
            r->arg.value == arg.value)
            return arena_printf(p->a, "p%d", i);
    }
    RowParam r = {type, arg};
    vec_push(p->g->arena, &p->out->params, r);
    return arena_printf(p->a, "p%d", p->out->params.n - 1);
}

/* A variable of the function's start, once; its name, numbered by where it stands. */
static const char *top(RowWriter *p, const char *prefix, const char *type, const char *value) {
    const char *key = arena_printf(p->a, "%s%s %s", prefix, type, value);
    int number = namemap_get(p->tops, key);
    if (number < 0) {
        number = 1 + (int)p->top.n;
        namemap_put(p->tops, key, number);
        buf_printf(&p->top, "    const %s%s%d = %s;\n", type, prefix, number, value);
    }
    return arena_printf(p->a, "%s%d", prefix, number);
}

/* ==== Sizes and indices ==== */

bool row_is_int(const Node *n) {
    return n->type.dtype == DT_I32;
}

const char *row_c_type(const Node *n) {
    return row_is_int(n) ? "int " : "float ";
}

/* Dims of a row: those behind T or R. Returns how many. */
static int row_dims(const Type *t, int64_t *dim) {
    int first = type_has_rows(t) ? 1 : 0, n = 0;
    for (int i = first; i < t->rank; i++)
        dim[n++] = t->dim[i];
    return n;
}

int64_t row_last_dim(const Type *t) {
    return t->rank ? t->dim[t->rank - 1] : 1;
}

/* Element `at` of rows [out] in rows [in], whose dims of 1 are repeated: a sum of each dim's part. */
static const char *broadcast_text(RowWriter *p, const int64_t *out, int n_out, const int64_t *in, int n_in,
                                  const char *at) {
    Buf text = {0};
    int64_t out_stride = 1, in_stride = 1;
    for (int k = 1; k <= n_in; k++) {
        const int64_t d_out = out[n_out - k], d_in = in[n_in - k];
        if (d_in > 1) {
            buf_printf(&text, "%s%s", text.n ? " + " : "", in_stride > 1 ? "(" : "");
            buf_printf(&text, out_stride > 1 ? "(%s) / %lld" : "(%s)", at, (long long)out_stride);
            if (k < n_out)
                buf_printf(&text, " %% %lld", (long long)d_out);
            if (in_stride > 1)
                buf_printf(&text, ") * %lld", (long long)in_stride);
        }
        out_stride *= d_out;
        in_stride *= d_in;
    }
    const char *result = arena_strndup(p->a, text.s, text.n);
    buf_free(&text);
    return result;
}

RowIndex row_broadcast(RowWriter *p, const Type *to, const Type *from, RowIndex at) {
    int64_t out[MAX_DIMS], in[MAX_DIMS];
    const int n_out = row_dims(to, out), n_in = row_dims(from, in);
    bool same = n_in == n_out;
    for (int i = 0; same && i < n_in; i++)
        same = in[i] == out[i];
    if (same)
        return at;
    if (type_row_elems(from) == 1)
        return row_index("0", false);
    return row_index(broadcast_text(p, out, n_out, in, n_in, at.text),
                     at.contiguous && n_in > 0 && in[n_in - 1] == out[n_out - 1] && in[n_in - 1] % p->neighbours == 0);
}

/* Parts of `len` elements that stand `stride` apart. */
static const char *apart(RowWriter *p, const char *at, int64_t len, int64_t stride) {
    return arena_printf(p->a, "(%s) / %lld * %lld + (%s) %% %lld", at, (long long)len, (long long)stride, at,
                        (long long)len);
}

/* The place in a slice's operand of place `at` of the slice, `skip` elements further on. */
static RowIndex slice_index(RowWriter *p, const Node *slice, RowIndex at, int64_t *skip) {
    const Type *from = ir_type(p->g->g, slice->in[0]);
    int64_t inner = 1;
    for (int i = (int)slice->attr[0].i + 1; i < from->rank; i++)
        inner *= from->dim[i];
    const int64_t len = slice->attr[2].i * inner, whole = from->dim[slice->attr[0].i] * inner;
    *skip = slice->attr[1].i * inner;
    const bool contiguous =
        at.contiguous && len % p->neighbours == 0 && whole % p->neighbours == 0 && *skip % p->neighbours == 0;
    return row_index(len == type_row_elems(&slice->type) ? at.text : apart(p, at.text, len, whole), contiguous);
}

static RowIndex segment_index(RowWriter *p, const Loc *l, int64_t elems, RowIndex at) {
    if (l->segment_len >= elems || l->segment_len == l->segment_stride)
        return at;
    return row_index(apart(p, at.text, l->segment_len, l->segment_stride),
                     at.contiguous && l->segment_len % p->neighbours == 0 && l->segment_stride % p->neighbours == 0);
}

static RowIndex skipped(RowWriter *p, RowIndex at, int64_t skip) {
    return skip ? row_index(arena_printf(p->a, "(%s) + %lld", at.text, (long long)skip), at.contiguous) : at;
}

/* ==== Operands ==== */

const char *row_ids(RowWriter *p, NodeId ids, const char *row) {
    PlanArg a = arg_value(p->g, ids);
    return top(p, "i", "int ", arena_printf(p->a, "%s[%s]", row_param(p, "const int *", a), row));
}

RowRef row_resolve(RowWriter *p, NodeId id, RowIndex at) {
    const Graph *g = p->g->g;
    RowRef r = {id, at, 0, "row"};
    for (;;) {
        const Node *n = ir_get(g, r.id);
        const RowValue *v = &p->of[r.id];
        const bool placed = !v->member && p->g->loc[r.id].kind != LOC_NONE;
        if (placed || v->kept || v->in_loop)
            return r;
        if (op_info(n->op)->flags & OPF_VIEW) {
            r.id = n->in[0];
        } else if (n->op == OP_SLICE) {
            r.at = skipped(p, r.at, r.skip);
            r.at = slice_index(p, n, r.at, &r.skip);
            r.id = n->in[0];
        } else if (n->op == OP_ROWS && v->member) {
            r.row = row_ids(p, n->in[1], "row");
            r.id = n->in[0];
        } else {
            return r;
        }
    }
}

/* What of r.skip can go into the address: all, unless parts of the row stand apart. The rest goes into the index. */
static int64_t address_skip(const Node *n, const Loc *l, const RowRef *r) {
    return l->segment_len >= type_row_elems(&n->type) || l->segment_len == l->segment_stride ? r->skip : 0;
}

static const char *row_of(RowWriter *p, const char *type, PlanArg base, const char *row, int64_t stride) {
    const char *from = row_param(p, arena_printf(p->g->arena, "const %s", type), base);
    return top(p, "g", type, arena_printf(p->a, "%s + (u64)%s * %lld", from, row, (long long)stride));
}

/* A value in memory, of another launch: the row's address. */
static const char *row_address(RowWriter *p, const Loc *l, const Node *n, const RowRef *r) {
    return row_of(p,
                  l->halves       ? "u16 *"
                  : row_is_int(n) ? "int *"
                                  : "float *",
                  arg_at(l->buffer, l->offset + address_skip(n, l, r) * (l->halves ? 2 : 4)), r->row, l->row_stride);
}

/* What the halves there are multiplied by; once for the row where their segment is known. */
static const char *row_unit(RowWriter *p, const Loc *l, const RowRef *r) {
    const char *units = row_of(p, "float *", arg_at(l->buffer, l->units), r->row, l->row_stride / l->segment_stride);
    if (!r->skip && r->at.segment_len == l->segment_len)
        return top(p, "c", "float ", arena_printf(p->a, "%s[%lld]", units, (long long)r->at.segment));
    return arena_printf(p->a, "%s[(%s) / %lld]", units, skipped(p, r->at, r->skip).text, (long long)l->segment_len);
}

const char *row_kept(RowWriter *p, NodeId id) {
    const Node *n = ir_get(p->g->g, id);
    const RowValue *v = &p->of[id];
    if (v->global < 0)
        return arena_printf(p->a, "((%s*)(shared + %lld))", row_c_type(n), (long long)v->at);
    const char *base = row_param(p, row_is_int(n) ? "int *" : "float *", arg_at(p->g->scratch_buffer, v->global));
    return arena_printf(p->a, "(%s + (u64)row * %lld)", base, (long long)type_row_elems(&n->type));
}

/* ==== Texts ==== */

static const char *raw_weight(RowWriter *p, const Node *n, const char *type) {
    return row_param(p, type, arg_at(gen_raw(p->g, (int)n->attr[0].i), 0));
}

static const char *weight_text(RowWriter *p, const Node *n, RowIndex at) {
    const Weight *w = &p->g->m->weights.v[n->attr[0].i];
    switch ((int)w->type.dtype) {
    case DT_F32: return arena_printf(p->a, "%s[%s]", raw_weight(p, n, "const float *"), at.text);
    case DT_F16: return arena_printf(p->a, "f16_value(%s[%s])", raw_weight(p, n, "const u16 *"), at.text);
    case DT_BF16: return arena_printf(p->a, "bf16_value(%s[%s])", raw_weight(p, n, "const u16 *"), at.text);
    default:
        gen_fail(p->g, n, "weight \"%s\" is read element by element: it must be f32, f16 or bf16 on a GPU, not %s",
                 w->name, dtype_name(w->type.dtype));
        return "0.0f";
    }
}

static const char *const_text(RowWriter *p, const Node *n) {
    char text[40];
    format_f32(text, (float)n->attr[0].f);
    if (strcmp(text, "inf") == 0)
        return "(-minus_infinite())";
    if (strcmp(text, "-inf") == 0)
        return "minus_infinite()";
    if (strcmp(text, "nan") == 0)
        return "float_from_bits(0x7fc00000u)";
    bool plain = !strpbrk(text, ".e");
    return arena_printf(p->a, n->attr[0].f < 0 ? "(%s%s)" : "%s%s", text, plain ? ".0f" : "f");
}

static const char *input_text(RowWriter *p, const Node *n, const RowRef *r) {
    const char *base = row_param(p, row_is_int(n) ? "const int *" : "const float *", arg_value(p->g, r->id));
    const int64_t elems = type_row_elems(&n->type);
    const char *place =
        elems == 1 ? r->row : arena_printf(p->a, "%s * %lld + %s", r->row, (long long)elems, r->at.text);
    return arena_printf(p->a, "%s[%s]", base, place);
}

const char *row_read(RowWriter *p, NodeId id, RowIndex at) {
    RowRef r = row_resolve(p, id, at);
    const Node *n = ir_get(p->g->g, r.id);
    const Loc *l = &p->g->loc[r.id];
    RowValue *v = &p->of[r.id];
    if (n->op == OP_CONST)
        return const_text(p, n);
    if (n->op == OP_WEIGHT)
        return weight_text(p, n, skipped(p, r.at, r.skip));
    if (n->op == OP_INPUT)
        return input_text(p, n, &r);
    if (v->kept)
        return arena_printf(p->a, "%s[%s]", row_kept(p, r.id), skipped(p, r.at, r.skip).text);
    if (v->member) { /* computed in a loop that has ended, or in the open one at another place */
        p->again |= !v->keep;
        v->keep = true;
        return "0";
    }
    if (l->kind == LOC_NONE)
        ICE("%s can be read nowhere", n->name ? n->name : op_info(n->op)->name);
    const RowIndex in =
        segment_index(p, l, type_row_elems(&n->type), skipped(p, r.at, r.skip - address_skip(n, l, &r)));
    const char *from = row_address(p, l, n, &r);
    if (l->halves)
        return arena_printf(p->a, "(f16_value(%s[%s]) * %s)", from, in.text, row_unit(p, l, &r));
    if (l->planes > 1)
        return arena_printf(p->a, "plane_sum<%d>(%s + (%s), %lld)", l->planes, from, in.text,
                            (long long)l->plane_stride);
    return arena_printf(p->a, "%s[%s]", from, in.text);
}

const char *row_early(RowWriter *p, NodeId id, const char *at) {
    const RowRef r = row_resolve(p, id, row_index(at, false));
    const char *text = row_read(p, id, row_index(at, false));
    const bool external = !p->of[r.id].member && !p->of[r.id].kept && !p->of[r.id].main;
    return external && ir_get(p->g->g, r.id)->op != OP_CONST ? top(p, "c", row_c_type(ir_get(p->g->g, id)), text)
                                                             : text;
}

const char *row_reader(RowWriter *p, NodeId id) {
    return arena_printf(p->a, "[&](int e) { return %s; }", row_read(p, id, ROW_HERE));
}

/* ==== In the loop ==== */

/* Weights do not depend on earlier launches: they are fetched into the L2 cache while the matmul runs. */
static void fetch_ahead(RowWriter *p, const char *from, int64_t n) {
    const char *key = arena_printf(p->a, "ahead %s", from);
    if (namemap_get(p->tops, key) >= 0)
        return;
    namemap_put(p->tops, key, 1);
    buf_printf(&p->ahead,
               "    for (int i = thread * 32; i < %lld; i += TAIL_THREADS * 32)\n        fetch_line(%s + i);\n",
               (long long)n, from);
}

/* A kept value's neighbours, read once in a loop. */
static const char *kept_lane(RowWriter *p, NodeId id) {
    RowValue *v = &p->of[id];
    if (v->read_by != p->loops) {
        v->read_by = p->loops;
        buf_printf(&p->loop.variables,
                   "                    float s%d[W];\n                    load_values<W>(s%d, %s + b);\n", v->number,
                   v->number, row_kept(p, id));
    }
    return arena_printf(p->a, "s%d[i]", v->number);
}

/* f32 weights and values of other launches are read ahead, where neighbours are neighbours. */
const char *row_lane(RowWriter *p, NodeId id, RowIndex at) {
    RowRef r = row_resolve(p, id, at);
    const Node *n = ir_get(p->g->g, r.id);
    const Loc *l = &p->g->loc[r.id];
    const RowValue *v = &p->of[r.id];
    const bool here = strcmp(r.at.text, "e") == 0 && !r.skip;
    if (p->loop.open && v->in_loop && here)
        return arena_printf(p->a, "v%d[i]", v->number);
    if (v->kept && !row_is_int(n) && here)
        return kept_lane(p, r.id);
    const bool external = !v->member && !v->kept && l->kind != LOC_NONE && !row_is_int(n);
    const bool weight = n->op == OP_WEIGHT && p->g->m->weights.v[n->attr[0].i].type.dtype == DT_F32;
    RowIndex in = skipped(p, r.at, r.skip - (external ? address_skip(n, l, &r) : 0));
    in = external ? segment_index(p, l, type_row_elems(&n->type), in) : in;
    in.contiguous &=
        !external || (l->offset % (l->halves ? 8 : 16) == 0 && l->row_stride % 4 == 0 && l->plane_stride % 4 == 0);
    if ((!external && !weight) || !in.contiguous) {
        if (strcmp(in.text, "0") == 0)
            return row_early(p, id, at.text);
        p->loop.scalar |= external || weight;
        return row_read(p, id, at);
    }
    p->loop.mains |= v->main;
    const int k = row_loop_load(p, external && l->planes > 1 ? l->planes : 1, external && l->halves);
    if (weight) {
        const char *from = raw_weight(p, n, "const float *");
        fetch_ahead(p, from, type_row_elems(&n->type));
        buf_printf(&p->loop.loads, "                    load_values<W>(x%d[u], %s + (%s));\n", k, from, in.text);
    } else if (l->halves) {
        buf_printf(&p->loop.loads, "                    load_halves<W>(x%d[u], %s + (%s), %s);\n", k,
                   row_address(p, l, n, &r), in.text, row_unit(p, l, &r));
    } else {
        buf_printf(&p->loop.loads, "                    load_planes<%d, W>(x%d[u], %s + (%s), %lld);\n",
                   l->planes ? l->planes : 1, k, row_address(p, l, n, &r), in.text, (long long)l->plane_stride);
    }
    return arena_printf(p->a, "x%d[u][i]", k);
}
