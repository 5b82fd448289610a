/* builtins.c - the table of built-in functions, their arguments, and those that need no tensors. */
#include "frontend/lower.h"

#include <math.h>
#include <string.h>

static const Builtin table[] = {
#define BUILTIN(name, required, flags, ...) {#name, required, flags, {__VA_ARGS__}},
#include "frontend/builtins.def"
#undef BUILTIN
};

static Value (*const calls[])(Call *) = {
#define BUILTIN(name, ...) call_##name,
#include "frontend/builtins.def"
#undef BUILTIN
};

const Builtin *builtin_at(int i) {
    return i >= 0 && i < (int)COUNTOF(table) ? &table[i] : NULL;
}

const Builtin *builtin_find(const char *name) {
    for (size_t i = 0; i < COUNTOF(table); i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

/* ==== Arguments ==== */

Value l_builtin(Lower *L, const Builtin *fn, const Expr *call, bool target, const char *hint) {
    Signature s = signature_of_builtin(fn);
    int slot[MAX_SLOTS], wrong;
    Call c = {.L = L, .fn = fn, .loc = call->loc, .hint = hint, .target = target};
    bool ok = true;
    if (!bind_args(&s, &call->u.call.args, slot, &wrong))
        ICE("unchecked call of '%s'", s.name);
    for (int i = 0; i < s.n; i++) {
        c.at[i] = call->loc;
        c.has[i] = slot[i] >= 0;
        if (!c.has[i])
            continue;
        c.arg[i] = call->u.call.args.v[slot[i]].value;
        c.at[i] = c.arg[i]->loc;
        if (i + 1 == s.n && strchr(fn->flags, 'L'))
            continue;
        c.v[i] = l_eval(L, c.arg[i], NULL);
        ok &= c.v[i].kind != VAL_POISON;
    }
    return ok ? calls[fn - table](&c) : value_poison();
}

Value arg_wrong(Call *c, int i, const char *wanted) {
    if (!c->has[i])
        return l_error(c->L, c->loc, "%s lacks its argument '%s'", c->fn->name, c->fn->param[i]);
    l_error(c->L, c->at[i], "'%s' of %s must be %s, this is %s", c->fn->param[i], c->fn->name, wanted,
            value_what(c->L->arena, c->L->g, c->v[i]));
    l_note_origin(c->L, c->v[i]);
    return value_poison();
}

bool arg_int(Call *c, int i, int64_t *out) {
    bool ok = c->v[i].kind == VAL_INT;
    if (ok)
        *out = c->v[i].u.i;
    else
        arg_wrong(c, i, "an int");
    return ok;
}

bool arg_number(Call *c, int i, double *out) {
    bool ok = value_is_number(c->v[i]);
    if (ok)
        *out = value_number(c->v[i]);
    else
        arg_wrong(c, i, "a number");
    return ok;
}

bool arg_string(Call *c, int i, Str *out) {
    bool ok = c->v[i].kind == VAL_STRING;
    if (ok)
        *out = c->v[i].u.s;
    else
        arg_wrong(c, i, "a string");
    return ok;
}

bool arg_bool(Call *c, int i, bool *out) {
    bool ok = c->v[i].kind == VAL_BOOL;
    if (ok)
        *out = c->v[i].u.b;
    else
        arg_wrong(c, i, "a bool");
    return ok;
}

bool arg_tensor(Call *c, int i, NodeId *out) {
    bool ok = c->v[i].kind == VAL_TENSOR && ir_type(c->L->g, c->v[i].u.node)->rank > 0;
    if (ok)
        *out = c->v[i].u.node;
    else
        arg_wrong(c, i, "a tensor");
    return ok;
}

/* ==== The weights file ==== */

Value call_meta(Call *c) {
    Lower *L = c->L;
    Str key;
    Value v;
    const ModelFile *f = l_model_file(L, c->target, c->loc);
    if (!f || !arg_string(c, 0, &key))
        return value_poison();
    if (l_meta(L, f, key, c->loc, &v))
        return v;
    if (c->has[1])
        return l_eval(L, c->arg[1], NULL);
    l_error(L, c->at[0], "no key '%.*s' in the weights, and no default is given", STR_FMT(key));
    Nearest near = nearest_new(key);
    const char *prefix = arena_printf(L->arena, "%s.", f->arch);
    for (int i = 0; i < f->n_meta; i++) {
        const char *k = f->meta[i].key;
        bool own = strncmp(k, prefix, strlen(prefix)) == 0;
        nearest_try(&near, own ? k + strlen(prefix) : k);
    }
    l_note(L, l_file(L, f), "neither '%s.%.*s' nor '%.*s' is a key of this file", f->arch, STR_FMT(key), STR_FMT(key));
    l_note_near(L, c->at[0], &near);
    return value_poison();
}

static const TensorInfo *named_tensor(Call *c, const ModelFile **file, Str *name) {
    *file = l_model_file(c->L, c->target, c->loc);
    if (!*file || !arg_string(c, 0, name))
        return NULL;
    return modelfile_tensor(*file, arena_strndup(c->L->arena, name->s, name->n));
}

Value call_has(Call *c) {
    const ModelFile *f;
    Str name;
    if (c->v[0].kind != VAL_STRING)
        return arg_wrong(c, 0, "a string");
    const TensorInfo *t = named_tensor(c, &f, &name);
    return f ? value_bool(t != NULL) : value_poison();
}

/* shape(name) -> the dimensions, shape(name, i) -> one of them. */
Value call_shape(Call *c) {
    const ModelFile *f;
    Str name;
    int64_t axis = 0;
    const TensorInfo *t = named_tensor(c, &f, &name);
    if (!f || c->v[0].kind != VAL_STRING)
        return value_poison();
    if (!t) {
        l_missing_tensor(c->L, f, name, c->at[0]);
        return value_poison();
    }
    if (c->has[1] && !arg_int(c, 1, &axis))
        return value_poison();
    if (c->has[1] && (axis < 0 || axis >= t->rank)) {
        l_error(c->L, c->at[1], "dimension %lld of a tensor of %d", (long long)axis, t->rank);
        l_note_tensor(c->L, f, t);
        return value_poison();
    }
    if (c->has[1])
        return value_int(t->dims[axis]);
    Value *out = l_values(c->L, t->rank, c->loc);
    for (int i = 0; out && i < t->rank; i++)
        out[i] = value_int(t->dims[i]);
    return out ? (Value){.kind = VAL_ARRAY, .u.array = {out, t->rank}} : value_poison();
}

Value call_require(Call *c) {
    bool ok;
    Str message;
    if (!arg_bool(c, 0, &ok) || !arg_string(c, 1, &message))
        return value_poison();
    return ok ? value_none() : l_error(c->L, c->loc, "%.*s", STR_FMT(message));
}

/* ==== Strings, arrays, conversions ==== */

Value call_len(Call *c) {
    if (c->v[0].kind == VAL_STRING)
        return value_int((int64_t)c->v[0].u.s.n);
    return c->v[0].kind == VAL_ARRAY ? value_int(c->v[0].u.array.n) : arg_wrong(c, 0, "an array or a string");
}

static bool finds(Str text, Str part) {
    for (size_t i = 0; i + part.n <= text.n; i++)
        if (part.n == 0 || memcmp(text.s + i, part.s, part.n) == 0)
            return true;
    return false;
}

Value call_contains(Call *c) {
    Str text, part;
    if (!arg_string(c, 0, &text) || !arg_string(c, 1, &part))
        return value_poison();
    return value_bool(finds(text, part));
}

/* Single values as they are, arrays element by element. */
static Value map(Call *c, Value x, Value (*one)(Call *c, Value x)) {
    if (x.kind != VAL_ARRAY)
        return one(c, x);
    Value *out = l_values(c->L, x.u.array.n, c->loc);
    for (int64_t i = 0; out && i < x.u.array.n; i++) {
        out[i] = one(c, x.u.array.v[i]);
        if (out[i].kind == VAL_POISON)
            return value_poison();
    }
    return out ? (Value){.kind = VAL_ARRAY, .u.array = {out, x.u.array.n}} : value_poison();
}

static Value to_int(Call *c, Value x) {
    if (x.kind == VAL_INT)
        return x;
    if (x.kind == VAL_BOOL)
        return value_int(x.u.b);
    if (x.kind == VAL_FLOAT && fabs(x.u.f) < 9e18)
        return value_int((int64_t)x.u.f);
    return arg_wrong(c, 0, "a number that fits an int, or a bool");
}

/* Towards zero. */
Value call_int(Call *c) {
    return map(c, c->v[0], to_int);
}

static Value to_float(Call *c, Value x) {
    return value_is_number(x) ? value_float(value_number(x)) : arg_wrong(c, 0, "a number");
}

Value call_float(Call *c) {
    return map(c, c->v[0], to_float);
}

/* ==== Functions of one number: known ones at once, scalars and tensors as operators ==== */

typedef struct MathFn {
    double (*f)(double);
    ScalarOp scalar;
    Op op; /* OP_NONE: not for tensors */
} MathFn;

static Value math(Call *c, Value x, const MathFn *m) {
    if (x.kind == VAL_TENSOR && m->op != OP_NONE)
        return value_tensor(l_node(c->L, m->op, &x.u.node, 1, NULL, c->hint, c->loc));
    if (x.kind == VAL_SCALAR)
        return l_scalar_op(c->L, m->scalar, &x, 1, c->loc);
    if (!value_is_number(x))
        return arg_wrong(c, 0, m->op != OP_NONE ? "a number or a tensor" : "a number");
    double r = m->f(value_number(x));
    if (isnan(r) || isinf(r))
        return l_error(c->L, c->loc, "%s of %s is not a number", c->fn->name, value_text(c->L->arena, x));
    return value_float(r);
}

#define MATH(name, f, scalar, op)                                                                                      \
    static Value one_##name(Call *c, Value x) {                                                                        \
        static const MathFn m = {f, scalar, op};                                                                       \
        return math(c, x, &m);                                                                                         \
    }                                                                                                                  \
    Value call_##name(Call *c) {                                                                                       \
        return map(c, c->v[0], one_##name);                                                                            \
    }

MATH(sqrt, sqrt, SC_SQRT, OP_SQRT)
MATH(exp, exp, SC_EXP, OP_EXP)
MATH(log, log, SC_LOG, OP_LOG)
MATH(tanh, tanh, SC_TANH, OP_TANH)

/* Floor of a known number is an int. */
static Value one_floor(Call *c, Value x) {
    static const MathFn m = {floor, SC_FLOOR, OP_NONE};
    Value v = x.kind == VAL_INT ? x : math(c, x, &m);
    return v.kind == VAL_FLOAT && fabs(v.u.f) < 9e18 ? value_int((int64_t)v.u.f) : v;
}

Value call_floor(Call *c) {
    return map(c, c->v[0], one_floor);
}

static Value one_abs(Call *c, Value x) {
    static const MathFn m = {fabs, SC_ABS, OP_NONE};
    if (x.kind == VAL_INT)
        return x.u.i < 0 ? l_binary(c->L, AO_SUB, value_int(0), x, NULL, c->loc) : x;
    return math(c, x, &m);
}

Value call_abs(Call *c) {
    return map(c, c->v[0], one_abs);
}

/* ==== Functions of two ==== */

static Value smaller(Call *c, Value x, Value y, bool larger) {
    Lower *L = c->L;
    if (x.kind == VAL_TENSOR || y.kind == VAL_TENSOR) {
        NodeId in[] = {l_operand(L, x, c->at[0]), l_operand(L, y, c->at[1])};
        return value_tensor(l_node(L, larger ? OP_MAX : OP_MIN, in, 2, NULL, c->hint, c->loc));
    }
    if (x.kind == VAL_SCALAR || y.kind == VAL_SCALAR)
        return l_scalar_op(L, larger ? SC_MAX : SC_MIN, (Value[]){x, y}, 2, c->loc);
    if (!value_is_number(x))
        return arg_wrong(c, 0, "a number or a tensor");
    if (!value_is_number(y))
        return arg_wrong(c, 1, "a number or a tensor");
    Value less;
    value_arith(AO_LT, x, y, &less);
    return less.u.b != larger ? x : y;
}

/* min(x, y), or min(array). */
static Value extreme(Call *c, bool larger) {
    if (c->has[1])
        return smaller(c, c->v[0], c->v[1], larger);
    if (c->v[0].kind != VAL_ARRAY || c->v[0].u.array.n == 0)
        return c->v[0].kind == VAL_ARRAY ? l_error(c->L, c->at[0], "%s of an empty array", c->fn->name)
                                         : arg_wrong(c, 1, "given");
    Value best = c->v[0].u.array.v[0];
    for (int64_t i = 0; i < c->v[0].u.array.n && best.kind != VAL_POISON; i++)
        best = smaller(c, best, c->v[0].u.array.v[i], larger);
    return best;
}

Value call_min(Call *c) {
    return extreme(c, false);
}

Value call_max(Call *c) {
    return extreme(c, true);
}

/* select(condition, yes, no): as the ternary, but both sides are evaluated. */
Value call_select(Call *c) {
    if (c->v[0].kind == VAL_BOOL)
        return c->v[c->v[0].u.b ? 1 : 2];
    return c->v[0].kind == VAL_SCALAR ? l_scalar_op(c->L, SC_SELECT, c->v, 3, c->loc) : arg_wrong(c, 0, "a bool");
}

/* sum(array), or the sum of a tensor over its last axis. */
Value call_sum(Call *c) {
    NodeId x;
    if (c->v[0].kind != VAL_ARRAY)
        return arg_tensor(c, 0, &x) ? value_tensor(l_node(c->L, OP_SUM, &x, 1, NULL, c->hint, c->loc)) : value_poison();
    Value sum = value_int(0);
    for (int64_t i = 0; i < c->v[0].u.array.n; i++)
        sum = l_binary(c->L, AO_ADD, sum, c->v[0].u.array.v[i], NULL, c->at[0]);
    return sum;
}
