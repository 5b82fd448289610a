/* infer.c - the shape rule of every op.
 *
 * A rule looks at its operands' types and attributes and gives the result's type, or reports what
 * does not fit. A report shows every operand's type and place: the .lap line that made it, or the
 * tensor in the weights file.
 */
#include "ir/ir.h"

#include <math.h>
#include <stdlib.h>

typedef struct Rule {
    const Graph *g;
    const Node *n;
    Type *out;
} Rule;

static const Type *operand(const Rule *r, int i) {
    return ir_type(r->g, r->n->in[i]);
}

static void note_operand(const Rule *r, int i) {
    const Module *m = r->g->module;
    const Node *x = ir_get(r->g, r->n->in[i]);
    const char *type = type_text(m->arena, &x->type);
    if (x->op == OP_WEIGHT) {
        const Weight *w = &m->weights.v[x->attr[0].i];
        SrcLoc at = NO_LOC;
        if (w->file)
            at.file = diag_source(m->diag, w->file, NULL, 0);
        diag_note(m->diag, at.file ? at : x->loc, "tensor '%s' is %s", w->name, type);
    } else {
        diag_note(m->diag, x->loc, "operand %d is %s", i + 1, type);
    }
}

/* Reports, with a note for every operand, and gives false. */
__attribute__((format(printf, 2, 3))) static bool fail(const Rule *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const Module *m = r->g->module;
    diag_error(m->diag, r->n->loc, "%s: %s", op_info(r->n->op)->name, arena_vprintf(m->arena, fmt, ap));
    va_end(ap);
    for (int i = 0; i < r->n->n_in; i++)
        note_operand(r, i);
    return false;
}

static bool is_float(const Type *t) {
    return dtype_info(t->dtype)->is_float;
}

static bool is_ids(const Type *t) {
    return t->dtype == DT_I32;
}

static int64_t last_dim(const Type *t) {
    return t->dim[t->rank - 1];
}

static bool give(const Rule *r, DType dtype, int rank, const int64_t *dim) {
    int64_t elems = 1;
    for (int i = 0; i < rank; i++) {
        if (dim[i] > 0 && __builtin_mul_overflow(elems, dim[i], &elems))
            return fail(r, "the result is too large");
        if (dim[i] == 0 || dim[i] < DIM_R || (dim[i] < 0 && i > 0))
            return fail(r, "the result has a bad dimension");
    }
    if (elems > (int64_t)1 << 46)
        return fail(r, "the result is too large");
    *r->out = type_make(dtype, rank, dim);
    return true;
}

static bool give_like(const Rule *r, const Type *t) {
    return give(r, DT_F32, t->rank, t->dim);
}

/* The operand must hold floats (f32 values or a float weight) and have at least `rank` dims. */
static bool need_floats(const Rule *r, int i, int rank) {
    const Type *t = operand(r, i);
    if (!is_float(t))
        return fail(r, "operand %d must hold floats", i + 1);
    return t->rank >= rank ||
           fail(r, "operand %d must have at least %d dimension%s", i + 1, rank, rank == 1 ? "" : "s");
}

/* The operand must be a stored matrix whose rows are whole blocks. */
static bool need_matrix(const Rule *r, int i, int rank) {
    const Type *t = operand(r, i);
    if (!is_float(t) || t->rank != rank)
        return fail(r, "operand %d must be a float tensor of %d dimensions", i + 1, rank);
    int block = dtype_info(t->dtype)->block_elems;
    return last_dim(t) % block == 0 || fail(r, "rows of %lld elements are not whole %s blocks of %d",
                                            (long long)last_dim(t), dtype_name(t->dtype), block);
}

static bool need_ids(const Rule *r, int i, int rank) {
    const Type *t = operand(r, i);
    return (is_ids(t) && t->rank == rank) ||
           fail(r, "operand %d must be i32 with %d dimension%s", i + 1, rank, rank == 1 ? "" : "s");
}

/* ==== Leaves ==== */

static bool infer_input(const Rule *r) {
    const Type *t = &r->n->type;
    if (t->dtype != DT_F32 && t->dtype != DT_I32)
        return fail(r, "an input is f32 or i32");
    return give(r, t->dtype, t->rank, t->dim);
}

static bool infer_const(const Rule *r) {
    if (!isfinite((float)r->n->attr[0].f))
        return fail(r, "%g is not a finite f32", r->n->attr[0].f);
    *r->out = type_scalar(DT_F32);
    return true;
}

static bool infer_weight(const Rule *r) {
    *r->out = r->g->module->weights.v[r->n->attr[0].i].type;
    return true;
}

static bool infer_cache(const Rule *r) {
    *r->out = type_scalar(DT_KV);
    return true;
}

/* ==== Matrices ==== */

static bool infer_embed(const Rule *r) {
    if (!need_ids(r, 0, 1) || !need_matrix(r, 1, 2))
        return false;
    return give(r, DT_F32, 2, (int64_t[]){operand(r, 0)->dim[0], operand(r, 1)->dim[1]});
}

static bool infer_linear(const Rule *r) {
    if (!need_floats(r, 0, 1) || !need_matrix(r, 1, 2))
        return false;
    const Type *x = operand(r, 0), *w = operand(r, 1);
    if (last_dim(x) != w->dim[1])
        return fail(r, "rows have %lld elements, but the matrix takes %lld", (long long)last_dim(x),
                    (long long)w->dim[1]);
    Type t = *x;
    t.dim[t.rank - 1] = w->dim[0];
    return give_like(r, &t);
}

static bool infer_linear_experts(const Rule *r) {
    if (!need_floats(r, 0, 2) || !need_matrix(r, 1, 3) || !need_ids(r, 2, 2))
        return false;
    const Type *x = operand(r, 0), *w = operand(r, 1), *ids = operand(r, 2);
    if (x->rank > 3 || x->dim[0] != ids->dim[0] || (x->rank == 3 && x->dim[1] != ids->dim[1]))
        return fail(r, "the rows and the expert ids do not go together");
    if (last_dim(x) != w->dim[2])
        return fail(r, "rows have %lld elements, but the experts take %lld", (long long)last_dim(x),
                    (long long)w->dim[2]);
    return give(r, DT_F32, 3, (int64_t[]){ids->dim[0], ids->dim[1], w->dim[1]});
}

static bool infer_linear_at(const Rule *r) {
    if (!need_floats(r, 0, 2) || !need_matrix(r, 1, 2) || !need_ids(r, 2, 2))
        return false;
    const Type *x = operand(r, 0), *w = operand(r, 1), *ids = operand(r, 2);
    if (x->rank != 2 || x->dim[0] != ids->dim[0])
        return fail(r, "needs rows [T, K] and indices [T, k]");
    if (last_dim(x) != w->dim[1])
        return fail(r, "rows have %lld elements, but the matrix takes %lld", (long long)last_dim(x),
                    (long long)w->dim[1]);
    return give(r, DT_F32, 2, ids->dim);
}

static bool infer_combine(const Rule *r) {
    if (!need_floats(r, 0, 3) || !need_floats(r, 1, 2))
        return false;
    const Type *y = operand(r, 0), *c = operand(r, 1);
    if (y->rank != 3 || c->rank != 2 || y->dim[0] != c->dim[0] || y->dim[1] != c->dim[1])
        return fail(r, "needs values [T, k, D] and their factors [T, k]");
    return give(r, DT_F32, 2, (int64_t[]){y->dim[0], y->dim[2]});
}

/* ==== Rows ==== */

static bool infer_rms_norm(const Rule *r) {
    if (!need_floats(r, 0, 1))
        return false;
    const Type *x = operand(r, 0);
    if (r->n->n_in == 2) {
        if (!need_floats(r, 1, 1))
            return false;
        const Type *w = operand(r, 1);
        if (w->rank != 1 || w->dim[0] != last_dim(x))
            return fail(r, "the weight must be [%lld]", (long long)last_dim(x));
    }
    double eps = r->n->attr[0].f;
    if (!(eps >= 0) || !isfinite(eps))
        return fail(r, "eps must be finite and not negative");
    return give_like(r, x);
}

static bool infer_softmax(const Rule *r) {
    return need_floats(r, 0, 1) && give_like(r, operand(r, 0));
}

static bool infer_sum(const Rule *r) {
    if (!need_floats(r, 0, 2))
        return false;
    const Type *x = operand(r, 0);
    return give(r, DT_F32, x->rank - 1, x->dim);
}

static bool infer_top_k(const Rule *r) {
    if (!need_floats(r, 0, 1))
        return false;
    Type t = *operand(r, 0);
    int64_t k = r->n->attr[0].i;
    if (k < 1 || k > last_dim(&t))
        return fail(r, "k = %lld must be between 1 and %lld", (long long)k, (long long)last_dim(&t));
    t.dim[t.rank - 1] = k;
    return give(r, DT_I32, t.rank, t.dim);
}

static bool infer_gather(const Rule *r) {
    if (!need_floats(r, 0, 1))
        return false;
    const Type *x = operand(r, 0), *ids = operand(r, 1);
    if (!is_ids(ids) || ids->rank < 1)
        return fail(r, "operand 2 must be i32 indices");
    if (x->rank > 1) {
        bool same = x->rank == ids->rank;
        for (int i = 0; same && i < x->rank - 1; i++)
            same = x->dim[i] == ids->dim[i];
        if (!same)
            return fail(r, "indices and values must agree in all but the last dimension");
    }
    return give(r, DT_F32, ids->rank, ids->dim);
}

static bool infer_lookup(const Rule *r) {
    const Type *ids = operand(r, 0);
    if (!is_ids(ids) || ids->rank < 1 || ids->rank == MAX_DIMS)
        return fail(r, "operand 1 must be i32 indices of at most %d dimensions", MAX_DIMS - 1);
    const int64_t n = r->n->attr[0].i;
    if (!need_ids(r, 1, 1))
        return false;
    if (n < 1 || operand(r, 1)->dim[0] % n)
        return fail(r, "the table cannot be cut into parts of %lld", (long long)n);
    Type t = *ids;
    t.dim[t.rank] = n;
    return give(r, DT_I32, t.rank + 1, t.dim);
}

static bool infer_scatter(const Rule *r) {
    if (!need_floats(r, 0, 1) || !need_floats(r, 2, 1))
        return false;
    const Type *x = operand(r, 0), *ids = operand(r, 1), *rest = operand(r, 2);
    if (!is_ids(ids) || ids->rank != x->rank || rest->rank != x->rank || last_dim(rest) != 1)
        return fail(r, "needs values [.., k], i32 indices [.., k] and the rest [.., 1]");
    for (int i = 0; i < x->rank; i++)
        if (x->dim[i] != ids->dim[i] || (i + 1 < x->rank && x->dim[i] != rest->dim[i]))
            return fail(r, "values, indices and the rest must agree in their dimensions");
    if (last_dim(x) > r->n->attr[0].i)
        return fail(r, "%lld values do not fit in %lld places", (long long)last_dim(x), (long long)r->n->attr[0].i);
    Type t = *x;
    t.dim[t.rank - 1] = r->n->attr[0].i;
    return give_like(r, &t);
}

static bool infer_rope(const Rule *r) {
    if (!need_floats(r, 0, 3) || !need_ids(r, 1, 1))
        return false;
    const Type *x = operand(r, 0);
    int64_t dims = r->n->attr[1].i;
    if (x->rank != 3 || x->dim[0] != operand(r, 1)->dim[0])
        return fail(r, "needs values [T, heads, dim] and positions [T]");
    if (dims < 2 || dims % 2 || dims > x->dim[2])
        return fail(r, "dims = %lld must be even and at most %lld", (long long)dims, (long long)x->dim[2]);
    if (!(r->n->attr[0].f > 0) || !isfinite(r->n->attr[0].f) || !isfinite(r->n->attr[2].f))
        return fail(r, "base and scale must be finite, base positive");
    if (r->n->n_in == 3) {
        const Type *f = operand(r, 2);
        if (!is_float(f) || f->rank != 1 || f->dim[0] != dims / 2)
            return fail(r, "the factors must be [%lld]", (long long)(dims / 2));
    }
    return give_like(r, x);
}

/* ==== Elementwise ==== */

/* numpy's rule: dims are lined up at the end; equal, or one of them is 1. */
static bool infer_binary(const Rule *r) {
    if (!need_floats(r, 0, 0) || !need_floats(r, 1, 0))
        return false;
    const Type *x = operand(r, 0), *y = operand(r, 1);
    Type t = {.rank = x->rank > y->rank ? x->rank : y->rank};
    for (int i = 1; i <= t.rank; i++) {
        int64_t a = i <= x->rank ? x->dim[x->rank - i] : 1;
        int64_t b = i <= y->rank ? y->dim[y->rank - i] : 1;
        if (a != b && a != 1 && b != 1)
            return fail(r, "%s and %s do not go together", type_text(r->g->module->arena, x),
                        type_text(r->g->module->arena, y));
        t.dim[t.rank - i] = a == 1 ? b : a;
    }
    return give_like(r, &t);
}

static bool infer_unary(const Rule *r) {
    return need_floats(r, 0, 0) && give_like(r, operand(r, 0));
}

#define infer_add     infer_binary
#define infer_sub     infer_binary
#define infer_mul     infer_binary
#define infer_div     infer_binary
#define infer_max     infer_binary
#define infer_min     infer_binary
#define infer_neg     infer_unary
#define infer_exp     infer_unary
#define infer_log     infer_unary
#define infer_sqrt    infer_unary
#define infer_tanh    infer_unary
#define infer_sigmoid infer_unary
#define infer_silu    infer_unary
#define infer_gelu    infer_unary

/* ==== Shape ==== */

static bool infer_reshape(const Rule *r) {
    const Type *x = operand(r, 0), *t = &r->n->type;
    if (t->dtype != x->dtype || (x->dtype != DT_F32 && x->dtype != DT_I32))
        return fail(r, "the element type stays f32 or i32");
    if (!give(r, t->dtype, t->rank, t->dim))
        return false;
    bool rows_kept = type_has_rows(x) == type_has_rows(t) && (!type_has_rows(x) || x->dim[0] == t->dim[0]);
    if (!rows_kept || type_row_elems(x) != type_row_elems(t))
        return fail(r, "%s cannot become %s", type_text(r->g->module->arena, x), type_text(r->g->module->arena, t));
    return true;
}

static bool infer_slice(const Rule *r) {
    if (!need_floats(r, 0, 2))
        return false;
    Type t = *operand(r, 0);
    int64_t axis = r->n->attr[0].i, start = r->n->attr[1].i, len = r->n->attr[2].i;
    if (axis < 1 || axis >= t.rank)
        return fail(r, "axis %lld must be between 1 and %d", (long long)axis, t.rank - 1);
    if (start < 0 || len < 1 || start > t.dim[axis] || len > t.dim[axis] - start)
        return fail(r, "[%lld, +%lld) is not inside a dimension of %lld", (long long)start, (long long)len,
                    (long long)t.dim[axis]);
    t.dim[axis] = len;
    return give_like(r, &t);
}

static bool infer_concat(const Rule *r) {
    if (!need_floats(r, 0, 2))
        return false;
    Type t = *operand(r, 0);
    int64_t axis = r->n->attr[0].i;
    if (axis < 1 || axis >= t.rank)
        return fail(r, "axis %lld must be between 1 and %d", (long long)axis, t.rank - 1);
    for (int i = 1; i < r->n->n_in; i++) {
        if (!need_floats(r, i, 2))
            return false;
        const Type *x = operand(r, i);
        bool same = x->rank == t.rank;
        for (int d = 0; same && d < t.rank; d++)
            same = d == axis || x->dim[d] == t.dim[d];
        if (!same)
            return fail(r, "operands may differ only in dimension %lld", (long long)axis);
        t.dim[axis] += x->dim[axis];
    }
    return give_like(r, &t);
}

static bool infer_rows(const Rule *r) {
    const Type *x = operand(r, 0);
    if ((x->dtype != DT_F32 && x->dtype != DT_I32) || x->rank < 1 || x->dim[0] != DIM_T)
        return fail(r, "operand 1 must have T rows");
    if (!need_ids(r, 1, 1) || operand(r, 1)->dim[0] != DIM_R)
        return operand(r, 1)->dim[0] != DIM_R ? fail(r, "operand 2 must be i32[R]") : false;
    Type t = *x;
    t.dim[0] = DIM_R;
    return give(r, x->dtype, t.rank, t.dim);
}

/* ==== Caches ==== */

/* k and v must be [rows, heads, dim] as the cache holds them. */
static bool fits_cache(const Rule *r, int k, int v, int pos, const KvLayout *l) {
    if (!need_floats(r, k, 3) || !need_floats(r, v, 3) || !need_ids(r, pos, 1))
        return false;
    const Type *tk = operand(r, k), *tv = operand(r, v);
    if (tk->rank != 3 || tk->dim[1] != l->heads || tk->dim[2] != l->k_dim)
        return fail(r, "keys must be [T, %d, %d] for this cache", l->heads, l->k_dim);
    if (tv->rank != 3 || tv->dim[1] != l->heads || tv->dim[2] != l->v_dim)
        return fail(r, "values must be [T, %d, %d] for this cache", l->heads, l->v_dim);
    return tk->dim[0] == tv->dim[0] || fail(r, "keys and values must have the same rows");
}

static bool infer_kv_store(const Rule *r) {
    if (operand(r, 0)->dtype != DT_KV)
        return fail(r, "operand 1 must be a cache");
    const Cache *c = &r->g->module->caches.v[ir_cache_of(r->g, r->n->in[0])];
    if (!fits_cache(r, 1, 2, 3, &c->layout))
        return false;
    if (operand(r, 1)->dim[0] != operand(r, 3)->dim[0])
        return fail(r, "keys and positions must have the same rows");
    *r->out = type_scalar(DT_KV);
    return true;
}

static bool infer_attend(const Rule *r) {
    if (!need_floats(r, 0, 3) || !need_ids(r, 2, 1))
        return false;
    if (operand(r, 1)->dtype != DT_KV)
        return fail(r, "operand 2 must be a cache");
    if (r->n->n_in == 4)
        return fail(r, "own keys come with own values");
    const Module *m = r->g->module;
    const KvLayout *l = &m->caches.v[ir_cache_of(r->g, r->n->in[1])].layout;
    const Type *q = operand(r, 0);
    if (r->n->n_in == 5 && !fits_cache(r, 3, 4, 2, l))
        return false;
    if (q->rank != 3 || q->dim[0] != operand(r, 2)->dim[0])
        return fail(r, "needs queries [T, heads, dim] and positions [T]");
    if (q->dim[2] != l->k_dim)
        return fail(r, "queries have %lld elements a head, but the keys of the cache have %d", (long long)q->dim[2],
                    l->k_dim);
    if (q->dim[1] % l->heads)
        return fail(r, "%lld query heads cannot share %d K/V heads", (long long)q->dim[1], l->heads);
    if (!isfinite(r->n->attr[1].f))
        return fail(r, "the scale must be finite");
    return give(r, DT_F32, 3, (int64_t[]){q->dim[0], q->dim[1], l->v_dim});
}

/* ==== The table ==== */

bool ir_infer(const Graph *g, const Node *n, Type *out) {
    static bool (*const rules[OP_COUNT])(const Rule *) = {
#define OP(e, name, lo, hi, attrs, flags) [OP_##e] = infer_##name,
#include "ir/ops.def"
#undef OP
    };
    const Module *m = g->module;
    const OpInfo *o = op_info(n->op);
    Type given = {0};
    Rule r = {g, n, &given};
    for (int i = 0; i < o->n_attrs; i++) {
        int64_t at = n->attr[i].i;
        char kind = o->attr_kind[i];
        if ((kind == 'w' && (at < 0 || at >= m->weights.n)) || (kind == 'c' && (at < 0 || at >= m->caches.n)) ||
            (kind == 'v' && (at < 0 || at >= m->variants.n)))
            ICE("%s: attribute %s is out of range", o->name, o->attr_name[i]);
    }
    if (n->op == OP_NONE || !rules[n->op](&r))
        return false;
    *out = given;
    return true;
}
