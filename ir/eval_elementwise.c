/* eval_elementwise.c - arithmetic on elements, and the ops that work along one row of numbers.
 *
 * Built with -ffp-contract=off: an element's value must not depend on whether it falls into the
 * vector part or the rest of a loop, as that changes with the number of rows.
 */
#include "ir/eval_int.h"

#include <math.h>
#include <string.h>

/* ==== Two operands: numpy's broadcasting, dims lined up at the end ==== */

/* A row of n results. sx, sy: 1, or 0 when one element serves the whole row. */
typedef void BinaryRow(float *out, const float *x, int64_t sx, const float *y, int64_t sy, int64_t n);

/* Offset of each operand's part of result row `row`; stride[i] is 0 in a broadcast dim. */
static int64_t offset_of(int64_t row, int rank, const int64_t *dim, const int64_t *stride) {
    int64_t at = 0;
    for (int i = rank - 2; i >= 0; i--) {
        at += row % dim[i] * stride[i];
        row /= dim[i];
    }
    return at;
}

static void strides_of(const EvalRun *r, const Type *t, int rank, int64_t *stride) {
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        int own = i - (rank - t->rank);
        int64_t d = own >= 0 ? run_dim(r, t, own) : 1;
        stride[i] = d == 1 ? 0 : step;
        step *= d;
    }
}

typedef struct Binary {
    BinaryRow *f;
    const float *x, *y;
    float *out;
    int rank;
    int64_t len, dim[MAX_DIMS], sx[MAX_DIMS], sy[MAX_DIMS];
} Binary;

static void binary_row(const void *ctx, int64_t row, int thread) {
    const Binary *b = ctx;
    const int last = b->rank - 1;
    (void)thread;
    b->f(b->out + row * b->len, b->x + offset_of(row, b->rank, b->dim, b->sx), last < 0 ? 0 : b->sx[last],
         b->y + offset_of(row, b->rank, b->dim, b->sy), last < 0 ? 0 : b->sy[last], b->len);
}

static bool binary(EvalRun *r, NodeId id, BinaryRow *f) {
    const Node *n = ir_get(r->g, id);
    Binary b = {.f = f, .x = run_f32(r, n, 0), .y = run_f32(r, n, 1), .out = run_out(r, id), .rank = n->type.rank};
    if (!b.x || !b.y)
        return false;
    for (int i = 0; i < b.rank; i++)
        b.dim[i] = run_dim(r, &n->type, i);
    strides_of(r, ir_type(r->g, n->in[0]), b.rank, b.sx);
    strides_of(r, ir_type(r->g, n->in[1]), b.rank, b.sy);
    b.len = run_last(r, &n->type);
    const int64_t rows = run_rows(r, &n->type);
    run_parts(r, rows, (double)rows * (double)b.len, binary_row, &b);
    return true;
}

/* eval_<name>: `value` of a and b. The cases have constant steps so that each becomes vector code. */
#define BINARY(name, value)                                                                                            \
    static inline __attribute__((always_inline)) void name##_steps(float *out, const float *x, int64_t sx,             \
                                                                   const float *y, int64_t sy, int64_t n) {            \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float a = x[i * sx], b = y[i * sy];                                                                  \
            out[i] = value;                                                                                            \
        }                                                                                                              \
    }                                                                                                                  \
    EVAL_MULTIARCH                                                                                                     \
    static void name##_row(float *out, const float *x, int64_t sx, const float *y, int64_t sy, int64_t n) {            \
        if (sx && sy)                                                                                                  \
            name##_steps(out, x, 1, y, 1, n);                                                                          \
        else if (sx)                                                                                                   \
            name##_steps(out, x, 1, y, 0, n);                                                                          \
        else                                                                                                           \
            name##_steps(out, x, 0, y, sy, n);                                                                         \
    }                                                                                                                  \
    bool eval_##name(EvalRun *r, NodeId id) {                                                                          \
        return binary(r, id, name##_row);                                                                              \
    }

BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(div, a / b)
BINARY(max, a > b ? a : b)
BINARY(min, a < b ? a : b)

/* ==== One operand ==== */

enum { PIECE = 1024 }; /* elements of a part */

typedef struct Unary {
    void (*f)(float *out, const float *x, int64_t n);
    const float *x;
    float *out;
    int64_t elems;
} Unary;

static void unary_piece(const void *ctx, int64_t piece, int thread) {
    const Unary *u = ctx;
    const int64_t from = piece * PIECE, n = u->elems - from < PIECE ? u->elems - from : PIECE;
    (void)thread;
    u->f(u->out + from, u->x + from, n);
}

static bool unary(EvalRun *r, NodeId id, void (*f)(float *out, const float *x, int64_t n)) {
    const Node *n = ir_get(r->g, id);
    const Unary u = {f, run_f32(r, n, 0), run_out(r, id), run_elems(r, &n->type)};
    if (!u.x)
        return false;
    run_parts(r, (u.elems + PIECE - 1) / PIECE, 8 * (double)u.elems, unary_piece, &u);
    return true;
}

#define UNARY(name, value)                                                                                             \
    static void name##_piece(float *out, const float *x, int64_t n) {                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float a = x[i];                                                                                      \
            out[i] = value;                                                                                            \
        }                                                                                                              \
    }                                                                                                                  \
    bool eval_##name(EvalRun *r, NodeId id) {                                                                          \
        return unary(r, id, name##_piece);                                                                             \
    }

static inline float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* (1 + tanh(u)) / 2 is sigmoid(2u). */
static inline float gelu(float x) {
    const float two_sqrt_2_over_pi = 1.5957691216057308f;
    return x * sigmoid(two_sqrt_2_over_pi * (x + 0.044715f * x * x * x));
}

UNARY(neg, -a)
UNARY(exp, expf(a))
UNARY(log, logf(a))
UNARY(sqrt, sqrtf(a))
UNARY(tanh, tanhf(a))
UNARY(sigmoid, sigmoid(a))
UNARY(silu, a *sigmoid(a))
UNARY(gelu, gelu(a))

/* ==== Along the last axis ==== */

typedef struct Along {
    const float *x, *w; /* w: [len], or NULL */
    float *out;
    int64_t len;
    float eps;
} Along;

static void rms_norm_row(const void *ctx, int64_t row, int thread) {
    const Along *a = ctx;
    const float *x = a->x + row * a->len;
    float *out = a->out + row * a->len;
    const float inv = 1.0f / sqrtf(eval_dot(x, x, a->len) / (float)a->len + a->eps);
    (void)thread;
    for (int64_t i = 0; i < a->len; i++)
        out[i] = x[i] * inv;
    for (int64_t i = 0; a->w && i < a->len; i++)
        out[i] *= a->w[i];
}

bool eval_rms_norm(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const Along a = {.x = run_f32(r, n, 0),
                     .w = n->n_in == 2 ? run_f32(r, n, 1) : NULL,
                     .out = run_out(r, id),
                     .len = run_last(r, &n->type),
                     .eps = (float)n->attr[0].f};
    if (!a.x || (n->n_in == 2 && !a.w))
        return false;
    const int64_t rows = run_rows(r, &n->type);
    run_parts(r, rows, (double)rows * (double)a.len, rms_norm_row, &a);
    return true;
}

static void softmax_row(const void *ctx, int64_t row, int thread) {
    const Along *a = ctx;
    const float *x = a->x + row * a->len;
    float *out = a->out + row * a->len, most = -INFINITY;
    double sum = 0;
    (void)thread;
    for (int64_t i = 0; i < a->len; i++)
        most = x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < a->len; i++) {
        out[i] = expf(x[i] - most);
        sum += out[i];
    }
    for (int64_t i = 0; i < a->len; i++)
        out[i] = (float)(out[i] / sum);
}

bool eval_softmax(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const Along a = {.x = run_f32(r, n, 0), .out = run_out(r, id), .len = run_last(r, &n->type)};
    if (!a.x)
        return false;
    const int64_t rows = run_rows(r, &n->type);
    run_parts(r, rows, 8 * (double)rows * (double)a.len, softmax_row, &a);
    return true;
}

bool eval_sum(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const Type *t = ir_type(r->g, n->in[0]);
    const float *x = run_f32(r, n, 0);
    float *out = run_out(r, id);
    if (!x)
        return false;
    const int64_t rows = run_rows(r, t), len = run_last(r, t);
    for (int64_t row = 0; row < rows; row++) {
        double sum = 0;
        for (int64_t i = 0; i < len; i++)
            sum += x[row * len + i];
        out[row] = (float)sum;
    }
    return true;
}

/* ==== Rotary positions ==== */

typedef struct Rope {
    const float *x;
    const int32_t *pos;
    float *out;
    int64_t heads, len, half;
    const double *freq; /* [half]: angle of position 1 */
    float *turns;       /* [threads][cosine, sine][half] */
} Rope;

/* Rotates the pairs (i, i + half) of every head of one row. Angles are computed in f64: at large
 * positions an f32 angle is off by more than a result's precision. */
static void rope_row(const void *ctx, int64_t t, int thread) {
    const Rope *r = ctx;
    const int64_t half = r->half;
    float *cosine = r->turns + thread * 2 * half, *sine = cosine + half;
    for (int64_t i = 0; i < half; i++) {
        cosine[i] = (float)cos(r->pos[t] * r->freq[i]);
        sine[i] = (float)sin(r->pos[t] * r->freq[i]);
    }
    for (int64_t h = t * r->heads; h < (t + 1) * r->heads; h++) {
        const float *x = r->x + h * r->len;
        float *out = r->out + h * r->len;
        for (int64_t i = 0; i < half; i++) {
            const float a = x[i], b = x[i + half];
            out[i] = a * cosine[i] - b * sine[i];
            out[i + half] = b * cosine[i] + a * sine[i];
        }
        memcpy(out + 2 * half, x + 2 * half, (size_t)(r->len - 2 * half) * sizeof *out);
    }
}

bool eval_rope(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    Rope j = {.x = run_f32(r, n, 0),
              .pos = run_i32(r, n, 1),
              .out = run_out(r, id),
              .heads = n->type.dim[1],
              .len = n->type.dim[2],
              .half = n->attr[1].i / 2};
    const float *factors = n->n_in == 3 ? run_f32(r, n, 2) : NULL;
    double *freq = run_scratch(r, n, (pool_threads(r->e->pool) + 1) * j.half, sizeof *freq);
    if (!j.x || !j.pos || !freq || (n->n_in == 3 && !factors))
        return false;
    for (int64_t i = 0; i < j.half; i++)
        freq[i] = n->attr[2].f * pow(n->attr[0].f, -(double)i / (double)j.half) / (factors ? factors[i] : 1.0);
    j.freq = freq;
    j.turns = (float *)(freq + j.half);
    const int64_t rows = run_dim(r, &n->type, 0);
    run_parts(r, rows, (double)rows * (double)(j.heads * j.len + 64 * j.half), rope_row, &j);
    return true;
}
