/* value.c - compile-time values: describing, comparing, arithmetic of single values. */
#include "frontend/value.h"

#include <math.h>
#include <string.h>

static const char *const kind_text[] = {
    [VAL_POISON] = "a mistake",  [VAL_NONE] = "none",     [VAL_INT] = "an int",
    [VAL_FLOAT] = "a float",     [VAL_BOOL] = "a bool",   [VAL_STRING] = "a string",
    [VAL_ARRAY] = "an array",    [VAL_TENSOR] = "tensor", [VAL_SCALAR] = "a value of q, k, s or h",
    [VAL_VARIANT] = "a variant", [VAL_CACHE] = "a cache",
};

const char *value_what(Arena *a, const Graph *g, Value v) {
    if (v.kind == VAL_TENSOR && g)
        return arena_printf(a, "a tensor %s", type_text(a, ir_type(g, v.u.node)));
    if (v.kind == VAL_ARRAY)
        return arena_printf(a, "an array of %lld", (long long)v.u.array.n);
    return kind_text[v.kind];
}

const char *value_text(Arena *a, Value v) {
    char number[32];
    if (v.kind == VAL_INT)
        return arena_printf(a, "%lld", (long long)v.u.i);
    if (v.kind == VAL_FLOAT) {
        format_f64(number, v.u.f);
        return arena_strdup(a, number);
    }
    if (v.kind == VAL_BOOL)
        return v.u.b ? "true" : "false";
    if (v.kind == VAL_STRING)
        return arena_strndup(a, v.u.s.s, v.u.s.n);
    return NULL;
}

bool value_same(Value a, Value b) {
    if (value_is_number(a) && value_is_number(b))
        return a.kind == VAL_INT && b.kind == VAL_INT ? a.u.i == b.u.i : value_number(a) == value_number(b);
    if (a.kind != b.kind)
        return false;
    if (a.kind == VAL_BOOL)
        return a.u.b == b.u.b;
    if (a.kind == VAL_STRING)
        return str_same(a.u.s, b.u.s);
    if (a.kind != VAL_ARRAY)
        return a.kind == VAL_NONE;
    if (a.u.array.n != b.u.array.n)
        return false;
    for (int64_t i = 0; i < a.u.array.n; i++)
        if (!value_same(a.u.array.v[i], b.u.array.v[i]))
            return false;
    return true;
}

static const char *const too_large = "the result is too large for an int";
static const char *const by_zero = "division by zero";

static const char *int_arith(AstOp op, int64_t x, int64_t y, Value *out) {
    int64_t r = 0;
    if (op == AO_DIV || op == AO_MOD) {
        if (y == 0)
            return by_zero;
        if (y == -1) { /* INT64_MIN / -1 traps */
            if (x == INT64_MIN)
                return too_large;
            *out = value_int(op == AO_DIV ? -x : 0);
            return NULL;
        }
        int64_t rest = x % y;
        if (op == AO_MOD)
            *out = value_int(rest && (rest < 0) != (y < 0) ? rest + y : rest);
        else
            *out = rest ? value_float((double)x / (double)y) : value_int(x / y);
        return NULL;
    }
    bool wrapped = op == AO_ADD   ? __builtin_add_overflow(x, y, &r)
                   : op == AO_SUB ? __builtin_sub_overflow(x, y, &r)
                                  : __builtin_mul_overflow(x, y, &r);
    *out = value_int(r);
    return wrapped ? too_large : NULL;
}

static const char *float_arith(AstOp op, double x, double y, Value *out) {
    if (op == AO_MOD)
        return "";
    if (op == AO_DIV && y == 0)
        return by_zero;
    *out = value_float(op == AO_ADD ? x + y : op == AO_SUB ? x - y : op == AO_MUL ? x * y : x / y);
    return NULL;
}

static bool ordered(AstOp op, int order) {
    return op == AO_LT ? order < 0 : op == AO_LE ? order <= 0 : op == AO_GT ? order > 0 : order >= 0;
}

const char *value_arith(AstOp op, Value x, Value y, Value *out) {
    bool numbers = value_is_number(x) && value_is_number(y);
    bool ints = x.kind == VAL_INT && y.kind == VAL_INT;
    bool less = op == AO_LT || op == AO_LE || op == AO_GT || op == AO_GE;
    if (op == AO_EQ || op == AO_NE) {
        if (!numbers && x.kind != y.kind && x.kind != VAL_NONE && y.kind != VAL_NONE)
            return "";
        *out = value_bool(value_same(x, y) == (op == AO_EQ));
        return NULL;
    }
    if (op == AO_AND || op == AO_OR) {
        if (x.kind != VAL_BOOL || y.kind != VAL_BOOL)
            return "";
        *out = value_bool(op == AO_AND ? x.u.b && y.u.b : x.u.b || y.u.b);
        return NULL;
    }
    if (!numbers)
        return "";
    if (!less)
        return ints ? int_arith(op, x.u.i, y.u.i, out) : float_arith(op, value_number(x), value_number(y), out);
    if (!ints && (isnan(value_number(x)) || isnan(value_number(y))))
        *out = value_bool(false);
    else if (ints)
        *out = value_bool(ordered(op, (x.u.i > y.u.i) - (x.u.i < y.u.i)));
    else
        *out = value_bool(ordered(op, (value_number(x) > value_number(y)) - (value_number(x) < value_number(y))));
    return NULL;
}
