/* test_eval_ops.c - every op of ops.def against a plain f64 computation written here, on random inputs
 * of odd sizes. The table of checks is made from ops.def: an op without a check_<name> fails the build,
 * and each check must have evaluated its op.
 */
#include "tests/eval/lab.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const int64_t sizes[] = {1, 3, 5, 16, 33, 257};

static int64_t some_size(void) {
    return sizes[lab_int(0, (int64_t)COUNTOF(sizes) - 1)];
}

static NodeId node(Lab *l, Op op, int n_in, const NodeId *in, const Attr *attr) {
    return ir_node(l->g, op, in, n_in, attr, NULL, NULL, NO_LOC);
}

/* ==== Leaves ==== */

static void check_input(Lab *l) {
    NodeId x = lab_floats(l, "x", DIMS(DIM_T, 5));
    NodeId i = lab_ints(l, "i", -9, 9, DIMS(DIM_T));
    assert_memory_equal(lab_eval(l, x), lab_in(l, "x"), (size_t)l->T * 5 * 4);
    assert_memory_equal(lab_eval(l, i), lab_in(l, "i"), (size_t)l->T * 4);
}

static void check_const(Lab *l) {
    double want = (float)lab_real(-3, 3);
    lab_expect(l, ir_const(l->g, want, NO_LOC), &want, 0);
}

static void check_weight(Lab *l) {
    static const DType types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q6_K};
    for (size_t i = 0; i < COUNTOF(types); i++) {
        int64_t n = 3 * dtype_info(types[i])->block_elems;
        const char *name = dtype_name(types[i]);
        NodeId w = lab_weight(l, name, types[i], DIMS(2, n));
        NodeId x = node(l, OP_NEG, 1, &w, NULL);
        double *want = lab_doubles(l, 2 * n);
        for (int64_t k = 0; k < 2 * n; k++)
            want[k] = -(double)lab_weight_values(l, name)[k];
        lab_expect(l, x, want, 0);
    }
}

/* ==== Matrices ==== */

static void dot_rows(double *out, double *size, const float *x, const float *w, int64_t n, int64_t k) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) {
            out[i] += (double)x[j] * w[i * k + j];
            size[i] += fabs((double)x[j] * w[i * k + j]);
        }
}

static void check_embed(Lab *l) {
    for (int t = 0; t < DT_I32; t++) {
        int64_t d = dtype_info((DType)t)->block_elems * lab_int(1, 3), v = some_size();
        const char *name = arena_printf(l->arena, "table.%d", t), *ids = arena_printf(l->arena, "ids.%d", t);
        NodeId in[2] = {lab_ints(l, ids, 0, v - 1, DIMS(DIM_T)), lab_weight(l, name, (DType)t, DIMS(v, d))};
        const float *table = lab_weight_values(l, name);
        const int32_t *id = lab_in(l, ids);
        double *want = lab_doubles(l, l->T * d);
        for (int64_t i = 0; i < l->T * d; i++)
            want[i] = table[id[i / d] * d + i % d];
        lab_expect(l, node(l, OP_EMBED, 2, in, NULL), want, 0);
    }
}

static void check_linear_type(Lab *l, DType t, int64_t n, int64_t k, int64_t heads) {
    const char *xn = arena_printf(l->arena, "x.%d", l->n_in), *wn = arena_printf(l->arena, "w.%d", l->n_in);
    NodeId in[2] = {lab_floats(l, xn, DIMS(DIM_T, heads, k)), lab_weight(l, wn, t, DIMS(n, k))};
    const float *x = lab_in(l, xn), *w = lab_weight_values(l, wn);
    double *want = lab_doubles(l, l->T * heads * n), *size = lab_doubles(l, l->T * heads * n);
    for (int64_t r = 0; r < l->T * heads; r++)
        dot_rows(want + r * n, size + r * n, x + r * k, w, n, k);
    lab_expect_sized(l, node(l, OP_LINEAR, 2, in, NULL), want, size, 1e-6);
}

static void check_linear(Lab *l) {
    for (int t = 0; t < DT_I32; t++)
        check_linear_type(l, (DType)t, some_size(), dtype_info((DType)t)->block_elems * lab_int(1, 3), 1);
    for (size_t i = 0; i < COUNTOF(sizes); i++)
        check_linear_type(l, DT_F32, some_size(), sizes[i], lab_int(1, 3));

    NodeId computed[2] = {lab_floats(l, "a", DIMS(DIM_T, 33)), lab_floats(l, "b", DIMS(7, 33))};
    computed[1] = node(l, OP_NEG, 1, &computed[1], NULL); /* a matrix that is no stored weight */
    double *want = lab_doubles(l, l->T * 7), *size = lab_doubles(l, l->T * 7);
    for (int64_t r = 0; r < l->T; r++)
        dot_rows(want + r * 7, size + r * 7, (float *)lab_in(l, "a") + r * 33, lab_in(l, "b"), 7, 33);
    for (int64_t i = 0; i < l->T * 7; i++)
        want[i] = -want[i];
    lab_expect_sized(l, node(l, OP_LINEAR, 2, computed, NULL), want, size, 1e-6);
}

static void check_linear_experts(Lab *l) {
    static const DType types[] = {DT_F32, DT_F16, DT_Q8_0, DT_Q5_0, DT_Q4_K};
    for (size_t i = 0; i < 2 * COUNTOF(types); i++) {
        DType t = types[i / 2];
        bool shared = i % 2;
        int64_t e = lab_int(1, 9), n = some_size(), k = dtype_info(t)->block_elems * lab_int(1, 3), c = lab_int(1, 4);
        const char *xn = arena_printf(l->arena, "x.%zu", i), *wn = arena_printf(l->arena, "w.%zu", i);
        const char *idn = arena_printf(l->arena, "ids.%zu", i);
        NodeId in[3] = {shared ? lab_floats(l, xn, DIMS(DIM_T, k)) : lab_floats(l, xn, DIMS(DIM_T, c, k)),
                        lab_weight(l, wn, t, DIMS(e, n, k)), lab_ints(l, idn, 0, e - 1, DIMS(DIM_T, c))};
        const float *x = lab_in(l, xn), *w = lab_weight_values(l, wn);
        const int32_t *id = lab_in(l, idn);
        double *want = lab_doubles(l, l->T * c * n), *size = lab_doubles(l, l->T * c * n);
        for (int64_t p = 0; p < l->T * c; p++)
            dot_rows(want + p * n, size + p * n, x + (shared ? p / c : p) * k, w + id[p] * n * k, n, k);
        lab_expect_sized(l, node(l, OP_LINEAR_EXPERTS, 3, in, NULL), want, size, 1e-6);
    }
}

static void check_linear_at(Lab *l) {
    static const DType types[] = {DT_F32, DT_BF16, DT_Q8_0, DT_Q6_K};
    for (size_t i = 0; i < COUNTOF(types); i++) {
        int64_t n = some_size(), k = dtype_info(types[i])->block_elems * lab_int(1, 3), c = lab_int(1, 70);
        const char *xn = arena_printf(l->arena, "x.%zu", i), *wn = arena_printf(l->arena, "w.%zu", i);
        const char *idn = arena_printf(l->arena, "ids.%zu", i);
        NodeId in[3] = {lab_floats(l, xn, DIMS(DIM_T, k)), lab_weight(l, wn, types[i], DIMS(n, k)),
                        lab_ints(l, idn, 0, n - 1, DIMS(DIM_T, c))};
        const float *x = lab_in(l, xn), *w = lab_weight_values(l, wn);
        const int32_t *id = lab_in(l, idn);
        double *want = lab_doubles(l, l->T * c), *size = lab_doubles(l, l->T * c);
        for (int64_t p = 0; p < l->T * c; p++)
            dot_rows(want + p, size + p, x + p / c * k, w + id[p] * k, 1, k);
        lab_expect_sized(l, node(l, OP_LINEAR_AT, 3, in, NULL), want, size, 1e-6);
    }
}

static void check_combine(Lab *l) {
    int64_t k = lab_int(1, 5), d = some_size();
    NodeId in[2] = {lab_floats(l, "y", DIMS(DIM_T, k, d)), lab_floats(l, "c", DIMS(DIM_T, k))};
    const float *y = lab_in(l, "y"), *c = lab_in(l, "c");
    double *want = lab_doubles(l, l->T * d);
    for (int64_t t = 0; t < l->T; t++)
        for (int64_t j = 0; j < k * d; j++)
            want[t * d + j % d] += (double)c[t * k + j / d] * y[t * k * d + j];
    lab_expect(l, node(l, OP_COMBINE, 2, in, NULL), want, 1e-5);
}

/* ==== Rows ==== */

static void check_rms_norm(Lab *l) {
    for (int with = 0; with < 2; with++) {
        int64_t h = lab_int(1, 3), d = some_size();
        const char *xn = with ? "x1" : "x0";
        NodeId in[2] = {lab_floats(l, xn, DIMS(DIM_T, h, d)), lab_weight(l, with ? "w1" : "w0", DT_BF16, DIMS(d))};
        const float *x = lab_in(l, xn), *w = lab_weight_values(l, with ? "w1" : "w0");
        double eps = (float)lab_real(1e-6, 1e-2), *want = lab_doubles(l, l->T * h * d);
        if (with)
            for (int64_t i = 0; i < d; i++)
                ((float *)lab_in(l, xn))[i] = 0; /* a row of zeros: 0 / sqrt(eps) */
        for (int64_t r = 0; r < l->T * h; r++) {
            double ss = 0;
            for (int64_t i = 0; i < d; i++)
                ss += (double)x[r * d + i] * x[r * d + i];
            for (int64_t i = 0; i < d; i++)
                want[r * d + i] = x[r * d + i] / sqrt(ss / (double)d + eps) * (with ? w[i] : 1);
        }
        lab_expect(l, node(l, OP_RMS_NORM, 1 + with, in, (Attr[]){{.f = eps}}), want, 1e-5);
    }
}

static void check_softmax(Lab *l) {
    for (int kind = 0; kind < 3; kind++) { /* ordinary, far below zero, very large */
        int64_t d = some_size();
        const char *xn = arena_printf(l->arena, "x.%d", kind);
        NodeId in = lab_floats(l, xn, DIMS(DIM_T, 2, d));
        float *x = lab_in(l, xn);
        double *want = lab_doubles(l, l->T * 2 * d);
        for (int64_t i = 0; i < l->T * 2 * d; i++)
            x[i] += kind == 1 ? -3e4f : kind == 2 ? 1e30f * (float)(i % 2) : 0;
        for (int64_t r = 0; r < l->T * 2; r++) {
            double most = -INFINITY, sum = 0;
            for (int64_t i = 0; i < d; i++)
                most = fmax(most, x[r * d + i]);
            for (int64_t i = 0; i < d; i++)
                sum += exp(x[r * d + i] - most);
            for (int64_t i = 0; i < d; i++)
                want[r * d + i] = exp(x[r * d + i] - most) / sum;
        }
        lab_expect(l, node(l, OP_SOFTMAX, 1, &in, NULL), want, 1e-6);
    }
}

static void check_sum(Lab *l) {
    int64_t d = some_size();
    NodeId in = lab_floats(l, "x", DIMS(DIM_T, 3, d));
    const float *x = lab_in(l, "x");
    double *want = lab_doubles(l, l->T * 3);
    for (int64_t i = 0; i < l->T * 3 * d; i++)
        want[i / d] += x[i];
    lab_expect(l, node(l, OP_SUM, 1, &in, NULL), want, 1e-6);
}

/* The definition: index i comes before j when it is larger, or equal and lower; NaN is below all. */
static void check_top_k(Lab *l) {
    for (int kind = 0; kind < 3; kind++) { /* distinct, many ties, NaN among them */
        int64_t n = some_size(), k = lab_int(1, n < 9 ? n : 9);
        const char *xn = arena_printf(l->arena, "x.%d", kind);
        NodeId in = lab_floats(l, xn, DIMS(DIM_T, n));
        float *x = lab_in(l, xn);
        for (int64_t i = 0; kind && i < l->T * n; i++)
            x[i] = kind == 2 && lab_int(0, 3) == 0 ? NAN : (float)lab_int(-2, 2);
        const int32_t *got = lab_eval(l, node(l, OP_TOP_K, 1, &in, (Attr[]){{.i = k}}));
        for (int64_t t = 0; t < l->T; t++)
            for (int64_t i = 0; i < n; i++) {
                const float *row = x + t * n;
                int64_t rank = 0;
                for (int64_t j = 0; j < n; j++) {
                    double a = isnan(row[i]) ? -INFINITY : row[i], b = isnan(row[j]) ? -INFINITY : row[j];
                    rank += b > a || (b == a && j < i);
                }
                if (rank < k)
                    assert_int_equal(got[t * k + rank], i);
            }
    }
}

static void check_gather(Lab *l) {
    int64_t e = some_size(), k = lab_int(1, 6);
    NodeId x = lab_floats(l, "x", DIMS(DIM_T, e)), ids = lab_ints(l, "ids", 0, e - 1, DIMS(DIM_T, k));
    NodeId table = lab_weight(l, "table", DT_F16, DIMS(e));
    const float *xv = lab_in(l, "x"), *tv = lab_weight_values(l, "table");
    const int32_t *id = lab_in(l, "ids");
    double *want = lab_doubles(l, l->T * k), *want_table = lab_doubles(l, l->T * k);
    for (int64_t i = 0; i < l->T * k; i++) {
        want[i] = xv[i / k * e + id[i]];
        want_table[i] = tv[id[i]];
    }
    lab_expect(l, node(l, OP_GATHER, 2, (NodeId[]){x, ids}, NULL), want, 0);
    lab_expect(l, node(l, OP_GATHER, 2, (NodeId[]){table, ids}, NULL), want_table, 0);
}

static void check_lookup(Lab *l) {
    int64_t e = some_size(), n = lab_int(1, 9), k = lab_int(1, 6);
    NodeId in[2] = {lab_ints(l, "ids", 0, e - 1, DIMS(DIM_T, k)), lab_ints(l, "table", -5, 1 << 20, DIMS(e * n))};
    const int32_t *id = lab_in(l, "ids"), *table = lab_in(l, "table");
    const int32_t *got = lab_eval(l, node(l, OP_LOOKUP, 2, in, (Attr[]){{.i = n}}));
    for (int64_t i = 0; i < l->T * k * n; i++)
        assert_int_equal(got[i], table[id[i / n] * n + i % n]);
}

static void check_scatter(Lab *l) {
    int64_t n = some_size(), k = lab_int(1, n < 9 ? n : 9); /* some places meet more than one value */
    NodeId in[3] = {lab_floats(l, "x", DIMS(DIM_T, k)), lab_ints(l, "ids", 0, n - 1, DIMS(DIM_T, k)),
                    lab_floats(l, "rest", DIMS(DIM_T, 1))};
    const float *x = lab_in(l, "x"), *rest = lab_in(l, "rest");
    const int32_t *id = lab_in(l, "ids");
    double *want = lab_doubles(l, l->T * n);
    for (int64_t i = 0; i < l->T * n; i++)
        want[i] = rest[i / n];
    for (int64_t i = 0; i < l->T * k; i++)
        want[i / k * n + id[i]] = x[i];
    lab_expect(l, node(l, OP_SCATTER, 3, in, (Attr[]){{.i = n}}), want, 0);
}

static void check_rope(Lab *l) {
    for (int kind = 0; kind < 4; kind++) {
        bool factors = kind & 1, part = kind & 2;
        int64_t h = lab_int(1, 3), half = lab_int(1, 20), d = 2 * half + (part ? lab_int(1, 9) : 0);
        const char *xn = arena_printf(l->arena, "x.%d", kind), *fn = arena_printf(l->arena, "f.%d", kind);
        const char *pn = arena_printf(l->arena, "pos.%d", kind);
        NodeId in[3] = {lab_floats(l, xn, DIMS(DIM_T, h, d)), lab_ints(l, pn, 0, 120000, DIMS(DIM_T)),
                        lab_weight(l, fn, DT_F32, DIMS(half))};
        float *x = lab_in(l, xn), *f = (float *)(uintptr_t)lab_weight_values(l, fn);
        for (int64_t i = 0; i < half; i++) /* no factor near zero */
            f[i] = (float)lab_real(0.5, 4);
        memcpy((void *)(uintptr_t)l->data[module_weight(l->m, fn)], f, (size_t)half * 4);
        double base = (float)lab_real(100, 1e6), scale = (float)lab_real(0.125, 1);
        double *want = lab_doubles(l, l->T * h * d);
        for (int64_t r = 0; r < l->T * h; r++)
            for (int64_t i = 0; i < d; i++) {
                int64_t p = i % half, pos = ((int32_t *)lab_in(l, pn))[r / h];
                double angle = (double)pos * scale / pow(base, 2.0 * (double)p / (2.0 * (double)half));
                angle /= factors ? f[p] : 1;
                double a = x[r * d + p], b = x[r * d + p + half];
                want[r * d + i] = i >= 2 * half ? x[r * d + i]
                                  : i < half    ? a * cos(angle) - b * sin(angle)
                                                : b * cos(angle) + a * sin(angle);
            }
        Attr attr[3] = {{.f = base}, {.i = 2 * half}, {.f = scale}};
        lab_expect(l, node(l, OP_ROPE, factors ? 3 : 2, in, attr), want, 1e-6);
    }
}

/* ==== Elementwise ==== */

typedef struct Shape {
    int rank;
    int64_t dim[3];
} Shape;

/* Element of an operand for index i0, i1, i2 of a result [T, 3, d]. */
static double broadcast(const Lab *l, const float *x, const Shape *s, const int64_t *index) {
    int64_t at = 0;
    for (int i = 0; i < s->rank; i++) {
        int64_t d = s->dim[i] == DIM_T ? l->T : s->dim[i], k = index[3 - s->rank + i];
        at = at * d + (d == 1 ? 0 : k);
    }
    return x[at];
}

static void check_binary(Lab *l, Op op, double (*f)(double, double)) {
    const int64_t d = some_size();
    const Shape full = {3, {DIM_T, 3, d}};
    const Shape shapes[] = {full,           {0, {0}},      {1, {d}},           {1, {1}},           {2, {3, d}},
                            {2, {3, 1}},    {2, {1, d}},   {3, {DIM_T, 1, d}}, {3, {DIM_T, 3, 1}}, {3, {DIM_T, 1, 1}},
                            {3, {1, 3, d}}, {3, {1, 1, 1}}};
    for (size_t s = 0; s < 2 * COUNTOF(shapes); s++) {
        const Shape *sx = s % 2 ? &full : &shapes[s / 2], *sy = s % 2 ? &shapes[s / 2] : &full;
        l->n_in = 0;
        const char *xn = arena_printf(l->arena, "x.%zu", s), *yn = arena_printf(l->arena, "y.%zu", s);
        NodeId in[2] = {lab_floats(l, xn, sx->rank, sx->dim), lab_floats(l, yn, sy->rank, sy->dim)};
        const float *x = lab_in(l, xn), *y = lab_in(l, yn);
        double *want = lab_doubles(l, l->T * 3 * d);
        for (int64_t i = 0; i < l->T * 3 * d; i++) {
            int64_t index[3] = {i / (3 * d), i / d % 3, i % d};
            want[i] = f(broadcast(l, x, sx, index), broadcast(l, y, sy, index));
        }
        lab_expect(l, node(l, op, 2, in, NULL), want, 1e-6);
    }
    NodeId in[2] = {lab_weight(l, "w", DT_Q4_0, DIMS(32)), ir_const(l->g, 0.75, NO_LOC)}; /* no rows at all */
    double want[32];
    for (int i = 0; i < 32; i++)
        want[i] = f(lab_weight_values(l, "w")[i], 0.75);
    lab_expect(l, node(l, op, 2, in, NULL), want, 1e-6);
}

/* x in lo..hi, with the ends themselves among them. */
static void check_unary(Lab *l, Op op, double (*f)(double), double lo, double hi) {
    int64_t d = some_size(), n = l->T * d;
    NodeId in = lab_floats(l, "x", DIMS(DIM_T, d));
    float *x = lab_in(l, "x");
    double *want = lab_doubles(l, n);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(i == 0 ? lo : i == 1 ? hi : lab_int(0, 1) ? lab_real(lo, hi) : lab_real(fmax(lo, -2), 2));
        want[i] = f(x[i]);
    }
    lab_expect(l, node(l, op, 1, &in, NULL), want, 1e-5);
    NodeId scalar = ir_const(l->g, 0.5, NO_LOC);
    double half = f(0.5);
    lab_expect(l, node(l, op, 1, &scalar, NULL), &half, 1e-6);
}

static double add(double a, double b) {
    return a + b;
}
static double sub(double a, double b) {
    return a - b;
}
static double mul(double a, double b) {
    return a * b;
}
static double quotient(double a, double b) {
    return (float)a / (float)b; /* by a number near zero: exactly the rounded quotient */
}
static double negative(double a) {
    return -a;
}
static double sigmoid(double a) {
    return 1 / (1 + exp(-a));
}
static double silu(double a) {
    return a * sigmoid(a);
}
static double gelu(double a) {
    return 0.5 * a * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (a + 0.044715 * a * a * a)));
}

#define CHECK_BINARY(name, op, f)                                                                                      \
    static void check_##name(Lab *l) {                                                                                 \
        check_binary(l, op, f);                                                                                        \
    }
#define CHECK_UNARY(name, op, f, lo, hi)                                                                               \
    static void check_##name(Lab *l) {                                                                                 \
        check_unary(l, op, f, lo, hi);                                                                                 \
    }

CHECK_BINARY(add, OP_ADD, add)
CHECK_BINARY(sub, OP_SUB, sub)
CHECK_BINARY(mul, OP_MUL, mul)
CHECK_BINARY(div, OP_DIV, quotient)
CHECK_BINARY(max, OP_MAX, fmax)
CHECK_BINARY(min, OP_MIN, fmin)
CHECK_UNARY(neg, OP_NEG, negative, -1e30, 1e30)
CHECK_UNARY(exp, OP_EXP, exp, -200, 80)
CHECK_UNARY(log, OP_LOG, log, 1e-30, 1e30)
CHECK_UNARY(sqrt, OP_SQRT, sqrt, 0, 1e30)
CHECK_UNARY(tanh, OP_TANH, tanh, -1e4, 1e4)
CHECK_UNARY(sigmoid, OP_SIGMOID, sigmoid, -1e4, 1e4)
CHECK_UNARY(silu, OP_SILU, silu, -1e4, 1e4)
CHECK_UNARY(gelu, OP_GELU, gelu, -1e4, 1e4)

/* ==== Shape ==== */

static void check_reshape(Lab *l) {
    int64_t d = some_size();
    NodeId x = lab_floats(l, "x", DIMS(DIM_T, 6, d)), w = lab_weight(l, "w", DT_F32, DIMS(4, d));
    NodeId once = ir_reshape(l->g, x, type_make(DT_F32, DIMS(DIM_T, 2, 3 * d)), NULL, NO_LOC);
    NodeId twice = ir_reshape(l->g, once, type_make(DT_F32, DIMS(DIM_T, 6 * d)), NULL, NO_LOC);
    const float *xv = lab_in(l, "x");
    double *want = lab_doubles(l, l->T * 6 * d), *want_w = lab_doubles(l, 4 * d);
    for (int64_t i = 0; i < l->T * 6 * d; i++)
        want[i] = xv[i];
    for (int64_t i = 0; i < 4 * d; i++)
        want_w[i] = -(double)lab_weight_values(l, "w")[i];
    lab_expect(l, once, want, 0);
    lab_expect(l, twice, want, 0);
    w = ir_reshape(l->g, w, type_make(DT_F32, DIMS(2, 2 * d)), NULL, NO_LOC);
    lab_expect(l, node(l, OP_NEG, 1, &w, NULL), want_w, 0);
}

static void check_slice(Lab *l) {
    for (int axis = 1; axis < 3; axis++) {
        int64_t d[3] = {DIM_T, some_size(), some_size()};
        const char *xn = axis == 1 ? "x1" : "x2";
        NodeId in = lab_floats(l, xn, 3, d);
        const float *x = lab_in(l, xn);
        int64_t start = lab_int(0, d[axis] - 1), len = lab_int(1, d[axis] - start), at = 0;
        double *want = lab_doubles(l, l->T * d[1] * d[2]);
        for (int64_t i = 0; i < l->T * d[1] * d[2]; i++) {
            int64_t k = axis == 1 ? i / d[2] % d[1] : i % d[2];
            if (k >= start && k < start + len)
                want[at++] = x[i];
        }
        Attr attr[3] = {{.i = axis}, {.i = start}, {.i = len}};
        lab_expect(l, node(l, OP_SLICE, 1, &in, attr), want, 0);
    }
}

static void check_concat(Lab *l) {
    for (int axis = 1; axis < 3; axis++) {
        NodeId in[MAX_INPUTS];
        int64_t part[MAX_INPUTS], other = some_size(), whole = 0;
        const float *x[MAX_INPUTS];
        int n = (int)lab_int(2, 6);
        l->n_in = 0;
        for (int i = 0; i < n; i++) {
            const char *xn = arena_printf(l->arena, "x.%d.%d", axis, i);
            part[i] = lab_int(1, 9);
            whole += part[i];
            in[i] = axis == 1 ? lab_floats(l, xn, DIMS(DIM_T, part[i], other))
                              : lab_floats(l, xn, DIMS(DIM_T, other, part[i]));
            x[i] = lab_in(l, xn);
        }
        int64_t blocks = axis == 1 ? l->T : l->T * other, inner = axis == 1 ? other : 1, at = 0;
        double *want = lab_doubles(l, blocks * whole * inner);
        for (int64_t b = 0; b < blocks; b++)
            for (int i = 0; i < n; i++)
                for (int64_t k = 0; k < part[i] * inner; k++)
                    want[at++] = x[i][b * part[i] * inner + k];
        lab_expect(l, node(l, OP_CONCAT, n, in, (Attr[]){{.i = axis}}), want, 0);
    }
}

static void check_rows(Lab *l) {
    int64_t d = some_size();
    NodeId x = lab_floats(l, "x", DIMS(DIM_T, 2, d)), pos = lab_pos(l), rows = lab_rows(l);
    const int32_t *row = lab_in(l, "rows");
    double *want = lab_doubles(l, l->R * 2 * d);
    for (int64_t i = 0; i < l->R * 2 * d; i++)
        want[i] = ((float *)lab_in(l, "x"))[row[i / (2 * d)] * 2 * d + i % (2 * d)];
    lab_expect(l, node(l, OP_ROWS, 2, (NodeId[]){x, rows}, NULL), want, 0);
    const int32_t *got = lab_eval(l, node(l, OP_ROWS, 2, (NodeId[]){pos, rows}, NULL));
    for (int64_t i = 0; i < l->R; i++)
        assert_int_equal(got[i], row[i]);
}

/* ==== Caches: here one call with a causal variant; everything else is in test_eval_attend.c ==== */

static NodeId stored(Lab *l, int heads, int dk, int dv) {
    Cache c = {.name = "kv.0", .layout = {.heads = heads, .k_dim = dk, .v_dim = dv}};
    NodeId in[4] = {ir_cache(l->g, module_add_cache(l->m, c), NO_LOC), lab_floats(l, "k", DIMS(DIM_T, heads, dk)),
                    lab_floats(l, "v", DIMS(DIM_T, heads, dv)), lab_pos(l)};
    return node(l, OP_KV_STORE, 4, in, NULL);
}

static void check_kv_store(Lab *l) {
    NodeId kv = stored(l, 2, 5, 3);
    ir_output(l->g, OUT_KEEP, "kv.0", kv, NO_LOC);
    Evaluator *e = eval_new(l->m, l->data, NULL);
    EvalCall call = lab_call(l);
    assert_true(eval_call(e, &call, l->diag));
    float k[10], v[6];
    for (int64_t t = 0; t < l->T; t++) {
        assert_true(eval_cache_row(e, 0, 0, t, k, v));
        assert_memory_equal(k, (float *)lab_in(l, "k") + t * 10, sizeof k);
        assert_memory_equal(v, (float *)lab_in(l, "v") + t * 6, sizeof v);
    }
    assert_false(eval_cache_row(e, 0, 0, l->T, k, v));
    assert_false(eval_cache_row(e, 0, 0, -1, k, v));
    eval_truncate(e, 0, l->T - 1);
    assert_false(eval_cache_row(e, 0, 0, l->T - 1, k, v));
    eval_free(e);
}

static void check_cache(Lab *l) { /* nothing stored: attention over an empty cache gives zeros */
    Scalar yes = {.op = SC_CONST, .value = 1};
    Attr attr[2] = {{.i = module_add_variant(l->m, (Variant){.name = "all", .visible = &yes})}, {.f = 1}};
    Cache c = {.name = "kv.0", .layout = {.heads = 1, .k_dim = 5, .v_dim = 3}};
    NodeId in[3] = {lab_floats(l, "q", DIMS(DIM_T, 2, 5)), ir_cache(l->g, module_add_cache(l->m, c), NO_LOC),
                    lab_pos(l)};
    lab_expect(l, node(l, OP_ATTEND, 3, in, attr), lab_doubles(l, l->T * 2 * 3), 0);
}

static void check_attend(Lab *l) {
    enum { H = 4, KV = 2, DK = 5, DV = 3 };
    Scalar q = {.op = SC_Q}, k = {.op = SC_K}, le = {.op = SC_LE, .arg = {&k, &q}};
    double scale = (float)lab_real(0.1, 1);
    Attr attr[2] = {{.i = module_add_variant(l->m, (Variant){.name = "full", .visible = &le})}, {.f = scale}};
    NodeId kv = stored(l, KV, DK, DV);
    NodeId in[3] = {lab_floats(l, "q", DIMS(DIM_T, H, DK)), kv,
                    ir_input(l->g, "pos", type_make(DT_I32, DIMS(DIM_T)), NO_LOC)};
    const float *qv = lab_in(l, "q"), *kx = lab_in(l, "k"), *vx = lab_in(l, "v");
    double *want = lab_doubles(l, l->T * H * DV);
    for (int64_t t = 0; t < l->T; t++)
        for (int h = 0; h < H; h++) {
            double sum = 0, *out = want + (t * H + h) * DV;
            for (int64_t s = 0; s <= t; s++) {
                double dot = 0;
                for (int d = 0; d < DK; d++)
                    dot += (double)qv[(t * H + h) * DK + d] * kx[(s * KV + h / 2) * DK + d];
                sum += exp(scale * dot);
                for (int d = 0; d < DV; d++)
                    out[d] += exp(scale * dot) * vx[(s * KV + h / 2) * DV + d];
            }
            for (int d = 0; d < DV; d++)
                out[d] /= sum;
        }
    lab_expect(l, node(l, OP_ATTEND, 3, in, attr), want, 1e-5);
}

/* ==== The table ==== */

typedef struct Check {
    Op op;
    void (*run)(Lab *);
} Check;

static const Check checks[] = {
#define OP(e, name, lo, hi, attrs, flags) {OP_##e, check_##name},
#include "ir/ops.def"
#undef OP
};

static void run_check(void **state) {
    static const int64_t rows[] = {1, 2, 5, 33};
    const Check *c = *state;
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        Lab *l = lab_new(rows[i], lab_int(1, 4));
        c->run(l);
        bool used = false;
        for (int id = 1; id < l->g->nodes.n; id++)
            used |= ir_get(l->g, (NodeId)id)->op == c->op;
        assert_true(used);
        lab_free(l);
    }
}

int main(int argc, char **argv) {
    lab_seed(argc, argv);
    struct CMUnitTest tests[COUNTOF(checks)];
    for (size_t i = 0; i < COUNTOF(checks); i++)
        tests[i] = (struct CMUnitTest){.name = op_info(checks[i].op)->name,
                                       .test_func = run_check,
                                       .initial_state = (void *)(uintptr_t)&checks[i]};
    _Static_assert(COUNTOF(checks) == OP_COUNT - 1, "every op but none has a check");
    return cmocka_run_group_tests_name("every op", tests, NULL, NULL);
}
