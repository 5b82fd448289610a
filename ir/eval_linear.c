/* eval_linear.c - matrices: linear, linear_experts, linear_at, embed, and the dot product under them.
 *
 * A stored row is decoded once for all rows of the call that meet it, two at a time into a buffer
 * that stays in the first-level cache, and multiplied with four rows of x at a time.
 *
 * Every dot product is 16 running sums (element i goes to sum i mod 16, in order), then halved to
 * one: 8 + 8, 4 + 4, 2 + 2, 1 + 1. That order depends on the length alone, not on the tile or the
 * number of rows or threads, and needs no -ffast-math to be vector code. The sums are compiler
 * vectors because loops over arrays of them are not kept in registers reliably. Here, and only
 * here, the compiler may fuse multiply and add: all tiles do it in the same way.
 */
#include "ir/eval_int.h"

#include <stdlib.h>
#include <string.h>

enum {
    LANES = 16,
    X_TILE = 4,
    W_TILE = 2,
    PANEL = 32, /* weight rows a thread takes at once */
};

/* May lie anywhere a float may. */
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

/* The nw * nx dot products of rows of length k: sums[a * nx + b] = w[a] . x[b]. */
static inline __attribute__((always_inline)) void dot_tile(const int nw, const int nx, const float *w,
                                                           const float *const *x, int64_t k, float *sums) {
    Lanes acc[W_TILE * X_TILE];
    const int64_t whole = k - k % LANES, rest = k - whole;
    memset(acc, 0, sizeof acc);
    for (int64_t i = 0; i < whole; i += LANES)
        for (int a = 0; a < nw; a++)
            for (int b = 0; b < nx; b++)
                acc[a * nx + b] += *(const Lanes *)(w + a * k + i) * *(const Lanes *)(x[b] + i);
    for (int c = 0; c < nw * nx; c++) {
        float lane[LANES];
        if (rest) {
            Lanes tw = {0}, tx = {0};
            memcpy(&tw, w + c / nx * k + whole, (size_t)rest * sizeof *w);
            memcpy(&tx, x[c % nx] + whole, (size_t)rest * sizeof *w);
            acc[c] += tw * tx;
        }
        memcpy(lane, &acc[c], sizeof lane);
        for (int step = LANES / 2; step; step /= 2)
            for (int i = 0; i < step; i++)
                lane[i] += lane[i + step];
        sums[c] = lane[0];
    }
}

EVAL_MULTIARCH
float eval_dot(const float *a, const float *b, int64_t n) {
    float sum;
    dot_tile(1, 1, a, &b, n, &sum);
    return sum;
}

EVAL_MULTIARCH
void eval_dots(const float *w, const float *const *x, int count, int64_t n, float *sums) {
    int i = 0;
    for (; i + X_TILE <= count; i += X_TILE)
        dot_tile(1, X_TILE, w, x + i, n, sums + i);
    for (; i < count; i++)
        dot_tile(1, 1, w, x + i, n, sums + i);
}

EVAL_MULTIARCH
void eval_add_scaled(float *acc, const float *const *x, const float *scale, int count, int64_t n) {
    int64_t d = 0;
    for (; d + LANES <= n; d += LANES) {
        Lanes sum = *(Lanes *)(acc + d);
        for (int i = 0; i < count; i++)
            sum += scale[i] * *(const Lanes *)(x[i] + d);
        *(Lanes *)(acc + d) = sum;
    }
    for (; d < n; d++)
        for (int i = 0; i < count; i++)
            acc[d] += scale[i] * x[i][d];
}

static inline __attribute__((always_inline)) void dot_tiles(const int nw, const float *w, int64_t k,
                                                            const float *const *x, float *const *out, int64_t count,
                                                            int64_t col) {
    float sums[W_TILE * X_TILE];
    int64_t t = 0;
    for (; t + X_TILE <= count; t += X_TILE) {
        dot_tile(nw, X_TILE, w, x + t, k, sums);
        for (int b = 0; b < X_TILE; b++)
            for (int a = 0; a < nw; a++)
                out[t + b][col + a] = sums[a * X_TILE + b];
    }
    for (; t < count; t++) {
        dot_tile(nw, 1, w, x + t, k, sums);
        for (int a = 0; a < nw; a++)
            out[t][col + a] = sums[a];
    }
}

/* out[t][col + a] = w[a] . x[t] for nw <= W_TILE decoded rows and all `count` rows of x. */
EVAL_MULTIARCH
static void dot_rows(int nw, const float *w, int64_t k, const float *const *x, float *const *out, int64_t count,
                     int64_t col) {
    if (nw == W_TILE)
        dot_tiles(W_TILE, w, k, x, out, count, col);
    else
        dot_tiles(1, w, k, x, out, count, col);
}

/* ==== Stored matrices ==== */

/* Rows of x against a stored matrix [n, k]; every out[t] has n elements. */
typedef struct Product {
    const uint8_t *w;
    const float *const *x;
    float *const *out;
    int64_t count;
} Product;

typedef struct Matrix {
    DType type;
    int64_t n, k;
    size_t row_bytes;
} Matrix;

/* The work of one node: all its products, panel by panel. */
typedef struct Job {
    const EvalRun *r;
    Matrix m;
    const Product *product;
    int64_t panels; /* of a product */
    float *rows;    /* [threads][W_TILE][k]: decoded rows */
} Job;

static void multiply_panel(const void *ctx, int64_t part, int thread) {
    const Job *j = ctx;
    const Matrix *m = &j->m;
    const Product *p = &j->product[part / j->panels];
    const int64_t from = part % j->panels * PANEL, to = from + PANEL < m->n ? from + PANEL : m->n;
    float *rows = j->rows + thread * W_TILE * m->k;
    if (run_cancelled(j->r))
        return;
    for (int64_t i = from; i < to; i += W_TILE) {
        int nw = to - i < W_TILE ? (int)(to - i) : W_TILE;
        for (int a = 0; a < nw; a++)
            dequant_row(m->type, p->w + (size_t)(i + a) * m->row_bytes, rows + a * m->k, m->k);
        dot_rows(nw, rows, m->k, p->x, p->out, p->count, i);
    }
}

/* rows: rows of x in all products together. */
static void multiply(EvalRun *r, const Matrix *m, const Product *p, int64_t n_products, int64_t rows, float *decoded) {
    const Job j = {r, *m, p, (m->n + PANEL - 1) / PANEL, decoded};
    const double work = (double)m->n * (double)m->k * (double)(n_products + rows);
    run_parts(r, j.panels * n_products, work, multiply_panel, &j);
}

/* The stored bytes of operand i, whose last two dims are a matrix. */
static const uint8_t *stored_matrix(const EvalRun *r, const Node *n, int i, Matrix *m) {
    const Value *v = &r->val[n->in[i]];
    const Type *t = ir_type(r->g, n->in[i]);
    if (!v->data)
        ICE("%s reads a value that is not held", n->name);
    m->type = v->dtype;
    m->n = run_dim(r, t, t->rank - 2);
    m->k = run_dim(r, t, t->rank - 1);
    m->row_bytes = dtype_row_bytes(m->type, m->k);
    return v->data;
}

/* Scratch of one node: decoded rows, then a pointer to x and to out for every row. */
typedef struct Workspace {
    float *decoded;
    const float **x;
    float **out;
} Workspace;

static bool get_workspace(EvalRun *r, const Node *n, const Matrix *m, int64_t count, Workspace *s) {
    int64_t decoded = (pool_threads(r->e->pool) * W_TILE * m->k * (int64_t)sizeof(float) + 63) / 64 * 64;
    uint8_t *p = run_scratch(r, n, decoded + 2 * count * (int64_t)sizeof(void *), 1);
    if (!p)
        return false;
    s->decoded = (float *)p;
    s->x = (const float **)(p + decoded);
    s->out = (float **)(s->x + count);
    return true;
}

bool eval_linear(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const Type *tx = ir_type(r->g, n->in[0]);
    const float *x = run_f32(r, n, 0);
    float *out = run_out(r, id);
    Matrix m;
    Workspace s;
    Product p = {.w = stored_matrix(r, n, 1, &m), .count = run_rows(r, tx)};
    if (!x || !get_workspace(r, n, &m, p.count, &s))
        return false;
    for (int64_t t = 0; t < p.count; t++) {
        s.x[t] = x + t * m.k;
        s.out[t] = out + t * m.n;
    }
    p.x = s.x;
    p.out = s.out;
    multiply(r, &m, &p, p.count > 0, p.count, s.decoded);
    return true;
}

/* ==== Experts ==== */

/* Puts the (row, choice) pairs in order of their expert, so that an expert's rows are decoded once:
 * start[e] .. start[e + 1] are expert e's places. False: an id is out of range, *bad says where. */
static bool sort_by_expert(const int32_t *ids, int64_t pairs, int64_t experts, int64_t *start, int64_t *order,
                           int64_t *bad) {
    for (int64_t p = 0; p < pairs; p++) {
        if (ids[p] < 0 || ids[p] >= experts) {
            *bad = p;
            return false;
        }
        start[ids[p] + 1]++;
    }
    for (int64_t e = 0; e < experts; e++)
        start[e + 1] += start[e];
    for (int64_t p = 0; p < pairs; p++)
        order[start[ids[p]]++] = p;
    for (int64_t e = experts; e > 0; e--)
        start[e] = start[e - 1];
    start[0] = 0;
    return true;
}

typedef struct Groups {
    int64_t experts, pairs;
    int64_t *start; /* [experts + 1] */
    int64_t *order; /* [pairs] */
    Product *products;
} Groups;

static bool multiply_groups(EvalRun *r, NodeId id, const Groups *g, const float *x) {
    const Node *n = ir_get(r->g, id);
    const bool shared = ir_type(r->g, n->in[0])->rank == 2; /* one x for all choices of a row */
    const int64_t choices = n->type.dim[1];
    float *out = run_out(r, id);
    Matrix m;
    Workspace s;
    const uint8_t *w = stored_matrix(r, n, 1, &m);
    if (!get_workspace(r, n, &m, g->pairs, &s))
        return false;
    int64_t used = 0;
    for (int64_t i = 0; i < g->pairs; i++) {
        int64_t p = g->order[i];
        s.x[i] = x + (shared ? p / choices : p) * m.k;
        s.out[i] = out + p * m.n;
    }
    for (int64_t e = 0; e < g->experts; e++) {
        int64_t from = g->start[e], count = g->start[e + 1] - from;
        if (count)
            g->products[used++] = (Product){w + (size_t)(e * m.n) * m.row_bytes, s.x + from, s.out + from, count};
    }
    multiply(r, &m, g->products, used, g->pairs, s.decoded);
    return true;
}

bool eval_linear_experts(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const float *x = run_f32(r, n, 0);
    const int32_t *ids = run_i32(r, n, 2);
    if (!x || !ids)
        return false;
    Groups g = {.experts = ir_type(r->g, n->in[1])->dim[0], .pairs = run_elems(r, ir_type(r->g, n->in[2]))};
    g.start = calloc((size_t)g.experts + 1, sizeof *g.start);
    g.order = calloc((size_t)g.pairs + 1, sizeof *g.order);
    g.products = calloc((size_t)g.pairs + 1, sizeof *g.products);
    int64_t bad;
    bool ok = g.start && g.order && g.products;
    if (!ok)
        run_fail(r, n, "out of memory for %lld rows", (long long)g.pairs);
    else if (!sort_by_expert(ids, g.pairs, g.experts, g.start, g.order, &bad))
        ok = run_fail(r, n, "expert %d of row %lld is not one of %lld", (int)ids[bad],
                      (long long)(bad / n->type.dim[1]), (long long)g.experts);
    else
        ok = multiply_groups(r, id, &g, x);
    free(g.start);
    free(g.order);
    free(g.products);
    return ok;
}

/* ==== Tables of rows ==== */

typedef struct Embed {
    Matrix m;
    const uint8_t *table;
    const int32_t *ids;
    float *out;
} Embed;

static void embed_row(const void *ctx, int64_t t, int thread) {
    const Embed *e = ctx;
    (void)thread;
    dequant_row(e->m.type, e->table + (size_t)e->ids[t] * e->m.row_bytes, e->out + t * e->m.k, e->m.k);
}

bool eval_embed(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    Embed e = {.ids = run_i32(r, n, 0), .out = run_out(r, id)};
    e.table = stored_matrix(r, n, 1, &e.m);
    if (!e.ids)
        return false;
    const int64_t rows = run_dim(r, &n->type, 0);
    for (int64_t t = 0; t < rows; t++)
        if (e.ids[t] < 0 || e.ids[t] >= e.m.n)
            return run_fail(r, n, "token %d of row %lld is not in the vocabulary of %lld", (int)e.ids[t], (long long)t,
                            (long long)e.m.n);
    run_parts(r, rows, (double)rows * (double)e.m.k, embed_row, &e);
    return true;
}

/* ==== Chosen rows of a matrix ==== */

typedef struct Chosen {
    Matrix m;
    const uint8_t *w;
    const float *x;
    const int32_t *ids;
    int64_t choices; /* of a row of x */
    float *rows;     /* [threads][k]: a decoded row */
    float *out;
} Chosen;

static void multiply_chosen(const void *ctx, int64_t part, int thread) {
    const Chosen *c = ctx;
    float *row = c->rows + thread * c->m.k;
    for (int64_t i = part * PANEL; i < (part + 1) * PANEL && i < c->choices; i++) {
        dequant_row(c->m.type, c->w + (size_t)c->ids[i] * c->m.row_bytes, row, c->m.k);
        c->out[i] = eval_dot(row, c->x, c->m.k);
    }
}

bool eval_linear_at(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const float *x = run_f32(r, n, 0);
    const int32_t *ids = run_i32(r, n, 2);
    float *out = run_out(r, id);
    Chosen c = {.choices = n->type.dim[1]};
    c.w = stored_matrix(r, n, 1, &c.m);
    c.rows = run_scratch(r, n, pool_threads(r->e->pool) * c.m.k, sizeof *c.rows);
    if (!x || !ids || !c.rows)
        return false;
    const int64_t rows = run_dim(r, &n->type, 0);
    for (int64_t i = 0; i < rows * c.choices; i++)
        if (ids[i] < 0 || ids[i] >= c.m.n)
            return run_fail(r, n, "row %d is not one of %lld", (int)ids[i], (long long)c.m.n);
    for (int64_t t = 0; t < rows; t++) {
        c.x = x + t * c.m.k;
        c.ids = ids + t * c.choices;
        c.out = out + t * c.choices;
        run_parts(r, (c.choices + PANEL - 1) / PANEL, (double)c.choices * (double)c.m.k * 2, multiply_chosen, &c);
    }
    return true;
}
