/* scalar.c - building, comparing, evaluating and printing scalar expressions. Bounds: interval.c. */
#include "ir/scalar.h"

#include <math.h>

static const struct {
    const char *text;
    int arity, prec;
} ops[SC_COUNT] = {
#define SCALAR(name, arity, text, prec) [SC_##name] = {text, arity, prec},
#include "ir/scalar.def"
#undef SCALAR
};

const Scalar *scalar_new(Arena *a, ScalarOp op, const Scalar *x, const Scalar *y, const Scalar *z, SrcLoc loc) {
    Scalar *e = arena_alloc(a, sizeof *e);
    *e = (Scalar){.op = op, .arg = {x, y, z}, .loc = loc};
    for (int i = 0; i < 3; i++)
        if ((e->arg[i] != NULL) != (i < ops[op].arity))
            ICE("scalar '%s' takes %d operands", ops[op].text, ops[op].arity);
    return e;
}

const Scalar *scalar_const(Arena *a, double value, SrcLoc loc) {
    Scalar *e = arena_alloc(a, sizeof *e);
    *e = (Scalar){.op = SC_CONST, .value = value, .loc = loc};
    return e;
}

const Scalar *scalar_table(Arena *a, int weight, const Scalar *index, SrcLoc loc) {
    Scalar *e = arena_alloc(a, sizeof *e);
    *e = (Scalar){.op = SC_TABLE, .weight = weight, .arg = {index}, .loc = loc};
    return e;
}

bool scalar_same(const Scalar *a, const Scalar *b) {
    if (a == b)
        return true;
    if (!a || !b || a->op != b->op || a->weight != b->weight)
        return false;
    if (a->op == SC_CONST && !(a->value == b->value || (isnan(a->value) && isnan(b->value))))
        return false;
    for (int i = 0; i < 3; i++)
        if (a->arg[i] != b->arg[i] && !scalar_same(a->arg[i], b->arg[i]))
            return false;
    return true;
}

static double table_read(const ScalarEnv *env, int weight, double index) {
    const float *t = env->tables ? env->tables[weight] : NULL;
    if (!t || !(index >= 0) || index >= (double)env->tables_len[weight])
        return 0;
    return t[(int64_t)index];
}

static double floored_mod(double x, double y) {
    return x - y * floor(x / y);
}

double scalar_eval(const Scalar *e, const ScalarEnv *env) {
#define A(i) scalar_eval(e->arg[i], env)
    switch (e->op) {
    case SC_CONST: return e->value;
    case SC_Q: return env->q;
    case SC_K: return env->k;
    case SC_S: return env->s;
    case SC_H: return env->h;
    case SC_TABLE: return table_read(env, e->weight, A(0));
    case SC_OR: return A(0) != 0 || A(1) != 0;
    case SC_AND: return A(0) != 0 && A(1) != 0;
    case SC_NOT: return A(0) == 0;
    case SC_EQ: return A(0) == A(1);
    case SC_NE: return A(0) != A(1);
    case SC_LT: return A(0) < A(1);
    case SC_LE: return A(0) <= A(1);
    case SC_GT: return A(0) > A(1);
    case SC_GE: return A(0) >= A(1);
    case SC_ADD: return A(0) + A(1);
    case SC_SUB: return A(0) - A(1);
    case SC_MUL: return A(0) * A(1);
    case SC_DIV: return A(0) / A(1);
    case SC_MOD: return floored_mod(A(0), A(1));
    case SC_NEG: return -A(0);
    case SC_FLOOR: return floor(A(0));
    case SC_ABS: return fabs(A(0));
    case SC_EXP: return exp(A(0));
    case SC_LOG: return log(A(0));
    case SC_SQRT: return sqrt(A(0));
    case SC_TANH: return tanh(A(0));
    case SC_MIN: return fmin(A(0), A(1));
    case SC_MAX: return fmax(A(0), A(1));
    case SC_SELECT: return A(0) != 0 ? A(1) : A(2);
    case SC_COUNT: break;
    }
#undef A
    ICE("no scalar operator %d", (int)e->op);
}

/* ==== Text ==== */

typedef struct Printer {
    Buf *out;
    const char *(*name)(const void *, int);
    const void *ctx;
} Printer;

static void print(const Printer *p, const Scalar *e, int around);

static void print_call(const Printer *p, const Scalar *e) {
    buf_printf(p->out, "%s(", ops[e->op].text);
    for (int i = 0; i < ops[e->op].arity; i++) {
        if (i)
            buf_str(p->out, ", ");
        print(p, e->arg[i], 0);
    }
    buf_char(p->out, ')');
}

static void print_operator(const Printer *p, const Scalar *e, int around) {
    int prec = ops[e->op].prec;
    bool parens = prec < around;
    if (parens)
        buf_char(p->out, '(');
    if (ops[e->op].arity == 1) {
        buf_printf(p->out, e->op == SC_NOT ? "%s " : "%s", ops[e->op].text);
        print(p, e->arg[0], prec); /* no brackets in --x: read back, they would nest twice as deep */
    } else {                       /* left associative; comparisons do not associate, so both sides bind tighter */
        bool compares = e->op >= SC_EQ && e->op <= SC_GE;
        print(p, e->arg[0], compares ? prec + 1 : prec);
        buf_printf(p->out, " %s ", ops[e->op].text);
        print(p, e->arg[1], prec + 1);
    }
    if (parens)
        buf_char(p->out, ')');
}

static void print(const Printer *p, const Scalar *e, int around) {
    char number[32];
    if (e->op == SC_CONST) {
        format_f64(number, e->value);
        buf_printf(p->out, e->value < 0 && around > ops[SC_NEG].prec ? "(%s)" : "%s", number);
    } else if (e->op == SC_TABLE) {
        buf_printf(p->out, "@%s[", p->name ? p->name(p->ctx, e->weight) : "?");
        print(p, e->arg[0], 0);
        buf_char(p->out, ']');
    } else if (ops[e->op].arity == 0) {
        buf_str(p->out, ops[e->op].text);
    } else if (ops[e->op].prec == 0) {
        print_call(p, e);
    } else {
        print_operator(p, e, around);
    }
}

void scalar_print(Buf *out, const Scalar *e, const char *(*weight_name)(const void *ctx, int i), const void *ctx) {
    Printer p = {out, weight_name, ctx};
    print(&p, e, 0);
}

/* Goes the way of print(): what is in brackets, an operand behind an operator or an argument nests. */
static int nesting(const Scalar *e, int around) {
    const int prec = ops[e->op].prec, arity = ops[e->op].arity;
    if (e->op == SC_CONST)
        return e->value < 0 ? 1 : 0;
    if (e->op == SC_TABLE)
        return 1 + nesting(e->arg[0], 0);
    bool compares = e->op >= SC_EQ && e->op <= SC_GE;
    int deepest = 0;
    for (int i = 0; i < arity; i++) {
        int inner = prec == 0 ? 0 : arity == 1 || (i == 0 && !compares) ? prec : prec + 1;
        int depth = nesting(e->arg[i], inner) + (prec == 0 || arity == 1 || i > 0);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + (prec > 0 && prec < around);
}

int scalar_nesting(const Scalar *e) {
    return 1 + nesting(e, 0);
}
