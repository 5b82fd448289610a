/* eval_shape.c - ops that move numbers without computing (slice, concat, rows, gather, lookup, scatter), and the two
 * that go with choosing experts (top_k, combine). reshape is a view and lives in eval.c.
 */
#include "ir/eval_int.h"

#include <string.h>

/* A tensor seen around one axis: `outer` blocks of dim * inner elements. */
typedef struct Around {
    int64_t outer, dim, inner;
} Around;

static Around around_axis(const EvalRun *r, const Type *t, int axis) {
    Around a = {1, run_dim(r, t, axis), 1};
    for (int i = 0; i < axis; i++)
        a.outer *= run_dim(r, t, i);
    for (int i = axis + 1; i < t->rank; i++)
        a.inner *= run_dim(r, t, i);
    return a;
}

bool eval_slice(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const float *x = run_f32(r, n, 0);
    float *out = run_out(r, id);
    if (!x)
        return false;
    const Around a = around_axis(r, ir_type(r->g, n->in[0]), (int)n->attr[0].i);
    const int64_t start = n->attr[1].i * a.inner, len = n->attr[2].i * a.inner;
    for (int64_t i = 0; i < a.outer; i++)
        memcpy(out + i * len, x + i * a.dim * a.inner + start, (size_t)len * sizeof *out);
    return true;
}

bool eval_concat(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const int axis = (int)n->attr[0].i;
    const Around whole = around_axis(r, &n->type, axis);
    float *out = run_out(r, id);
    int64_t at = 0;
    for (int k = 0; k < n->n_in; k++) {
        const float *x = run_f32(r, n, k);
        if (!x)
            return false;
        const int64_t len = run_dim(r, ir_type(r->g, n->in[k]), axis) * whole.inner;
        for (int64_t i = 0; i < whole.outer; i++)
            memcpy(out + i * whole.dim * whole.inner + at, x + i * len, (size_t)len * sizeof *out);
        at += len;
    }
    return true;
}

/* Elements of every type that has rows take 4 bytes. */
bool eval_rows(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const bool ints = n->type.dtype == DT_I32;
    const void *x = ints ? (const void *)run_i32(r, n, 0) : run_f32(r, n, 0);
    const int32_t *rows = run_i32(r, n, 1);
    if (!x || !rows)
        return false;
    uint8_t *out = run_out(r, id);
    const size_t bytes = (size_t)type_row_elems(&n->type) * 4;
    const int64_t have = run_dim(r, ir_type(r->g, n->in[0]), 0), want = run_dim(r, &n->type, 0);
    for (int64_t i = 0; i < want; i++) {
        if (rows[i] < 0 || rows[i] >= have)
            return run_fail(r, n, "row %d is not one of %lld", (int)rows[i], (long long)have);
        memcpy(out + (size_t)i * bytes, (const uint8_t *)x + (size_t)rows[i] * bytes, bytes);
    }
    return true;
}

bool eval_gather(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const Type *tx = ir_type(r->g, n->in[0]);
    const float *x = run_f32(r, n, 0);
    const int32_t *ids = run_i32(r, n, 1);
    float *out = run_out(r, id);
    if (!x || !ids)
        return false;
    const int64_t rows = run_rows(r, &n->type), k = run_last(r, &n->type), from = run_last(r, tx);
    const int64_t step = tx->rank > 1 ? from : 0; /* a table serves all rows */
    for (int64_t i = 0; i < rows * k; i++) {
        if (ids[i] < 0 || ids[i] >= from)
            return run_fail(r, n, "index %d is not one of %lld", (int)ids[i], (long long)from);
        out[i] = x[i / k * step + ids[i]];
    }
    return true;
}

bool eval_lookup(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const int32_t *ids = run_i32(r, n, 0), *from = run_i32(r, n, 1);
    int32_t *out = run_out(r, id);
    if (!ids || !from)
        return false;
    const int64_t count = run_elems(r, ir_type(r->g, n->in[0])), len = n->attr[0].i;
    const int64_t rows = run_elems(r, ir_type(r->g, n->in[1])) / len;
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= rows)
            return run_fail(r, n, "index %d is not one of %lld", (int)ids[i], (long long)rows);
        memcpy(out + i * len, from + ids[i] * len, (size_t)len * sizeof *out);
    }
    return true;
}

bool eval_scatter(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const float *x = run_f32(r, n, 0), *rest = run_f32(r, n, 2);
    const int32_t *ids = run_i32(r, n, 1);
    float *out = run_out(r, id);
    if (!x || !rest || !ids)
        return false;
    const int64_t rows = run_rows(r, &n->type), len = run_last(r, &n->type), k = run_last(r, ir_type(r->g, n->in[0]));
    for (int64_t t = 0; t < rows; t++) {
        float *to = out + t * len;
        for (int64_t i = 0; i < len; i++)
            to[i] = rest[t];
        for (int64_t i = t * k; i < (t + 1) * k; i++) {
            if (ids[i] < 0 || ids[i] >= len)
                return run_fail(r, n, "index %d is not one of %lld", (int)ids[i], (long long)len);
            to[ids[i]] = x[i];
        }
    }
    return true;
}

/* True when a goes before b: larger first; NaN after every number. */
static bool before(float a, float b) {
    return a > b || (b != b && a == a);
}

/* Insertion into the k best so far; an equal one stays behind those with lower indices. */
static void top_k_row(const float *x, int64_t n, int64_t k, int32_t *best) {
    int64_t have = 0;
    for (int64_t i = 0; i < n; i++) {
        if (have == k && !before(x[i], x[best[k - 1]]))
            continue;
        int64_t at = have < k ? have++ : k - 1;
        for (; at > 0 && before(x[i], x[best[at - 1]]); at--)
            best[at] = best[at - 1];
        best[at] = (int32_t)i;
    }
}

typedef struct TopK {
    const float *x;
    int32_t *out;
    int64_t len, k;
} TopK;

static void top_k_part(const void *ctx, int64_t row, int thread) {
    const TopK *j = ctx;
    (void)thread;
    top_k_row(j->x + row * j->len, j->len, j->k, j->out + row * j->k);
}

bool eval_top_k(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const Type *tx = ir_type(r->g, n->in[0]);
    const TopK j = {run_f32(r, n, 0), run_out(r, id), run_last(r, tx), run_last(r, &n->type)};
    if (!j.x)
        return false;
    const int64_t rows = run_rows(r, tx);
    run_parts(r, rows, (double)rows * (double)j.len, top_k_part, &j);
    return true;
}

typedef struct Combine {
    const float *y, *c;
    float *out;
    int64_t k, len;
} Combine;

static void combine_row(const void *ctx, int64_t t, int thread) {
    const Combine *j = ctx;
    float *to = j->out + t * j->len;
    (void)thread;
    memset(to, 0, (size_t)j->len * sizeof *to);
    for (int64_t i = t * j->k; i < (t + 1) * j->k; i++) {
        const float f = j->c[i], *from = j->y + i * j->len;
        for (int64_t d = 0; d < j->len; d++)
            to[d] += f * from[d];
    }
}

bool eval_combine(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const Type *ty = ir_type(r->g, n->in[0]);
    const Combine j = {run_f32(r, n, 0), run_f32(r, n, 1), run_out(r, id), ty->dim[1], ty->dim[2]};
    if (!j.y || !j.c)
        return false;
    const int64_t rows = run_dim(r, ty, 0);
    run_parts(r, rows, (double)rows * (double)(j.k * j.len), combine_row, &j);
    return true;
}
