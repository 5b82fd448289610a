/* parse_scalar.c - expressions of variants, from the text form of the IR: precedence climbing.
 *
 * Operators, their precedence and their operands are the rows of ir/scalar.def. Depth and size are bounded, since
 * who walks an expression later recurses.
 */
#include "ir/parse_int.h"

enum { MAX_EXPR_NODES = 2000 };

static const struct {
    const char *text;
    int arity, prec;
} scalar_ops[SC_COUNT] = {
#define SCALAR(name, arity, text, prec) [SC_##name] = {text, arity, prec},
#include "ir/scalar.def"
#undef SCALAR
};

static const Scalar *parse_expr(Parser *p, int min_prec);

static const Scalar *make_scalar(Parser *p, ScalarOp op, const Scalar *const arg[3], SrcLoc at) {
    if (++p->expr_nodes > MAX_EXPR_NODES) {
        p_fail_at(p, at, "the expression is too long");
        return NULL;
    }
    return scalar_new(p->arena, op, arg[0], arg[1], arg[2], at);
}

/* The operator at the token with so many operands, SC_COUNT if none; calls have precedence 0. */
static ScalarOp scalar_op_at(const Parser *p, int arity, bool call) {
    if (p->tok != TOK_WORD && p->tok != TOK_PUNCT)
        return SC_COUNT;
    for (int op = 0; op < SC_COUNT; op++)
        if ((arity < 0 || scalar_ops[op].arity == arity) && (scalar_ops[op].prec == 0) == call &&
            scalar_ops[op].text[0] && str_eq(p->str, scalar_ops[op].text))
            return (ScalarOp)op;
    return SC_COUNT;
}

static const Scalar *parse_table(Parser *p, SrcLoc at) {
    const char *name = NULL;
    p_next(p);
    SrcLoc name_at = p->at;
    if (!p_name(p, "the name of a weight", &name))
        return NULL;
    int w = module_weight(p->m, name);
    if (w < 0 || p->m->weights.v[w].type.rank != 1) {
        p_fail_at(p, name_at, "a table is a weight of one dimension; '%.60s' is not", name);
        return NULL;
    }
    const Scalar *index = p_expect(p, "[") ? parse_expr(p, 1) : NULL;
    return index && p_expect(p, "]") ? scalar_table(p->arena, w, index, at) : NULL;
}

static const Scalar *parse_call(Parser *p, ScalarOp op, SrcLoc at) {
    const Scalar *arg[3] = {0};
    p_next(p);
    for (int i = 0; i < scalar_ops[op].arity; i++)
        if (!p_expect(p, i ? "," : "(") || !(arg[i] = parse_expr(p, 1)))
            return NULL;
    if (scalar_ops[op].arity && !p_expect(p, ")"))
        return NULL;
    return make_scalar(p, op, arg, at);
}

static const Scalar *parse_prefix(Parser *p, ScalarOp op, SrcLoc at) {
    p_next(p);
    if (op == SC_NEG && p_at_number(p)) { /* a negative constant */
        const Scalar *c = scalar_const(p->arena, -p_token_number(p, false), at);
        p_next(p);
        return c;
    }
    const Scalar *arg[3] = {parse_expr(p, op == SC_NEG ? scalar_ops[op].prec : scalar_ops[op].prec + 1)};
    return arg[0] ? make_scalar(p, op, arg, at) : NULL;
}

static const Scalar *parse_atom(Parser *p) {
    SrcLoc at = p->at;
    if (p_at_number(p)) {
        const Scalar *c = scalar_const(p->arena, p_token_number(p, false), at);
        p_next(p);
        return c;
    }
    if (p_accept(p, "(")) {
        const Scalar *e = parse_expr(p, 1);
        return e && p_expect(p, ")") ? e : NULL;
    }
    if (p_is(p, "@"))
        return parse_table(p, at);
    ScalarOp op = scalar_op_at(p, -1, true);
    if (op != SC_COUNT)
        return parse_call(p, op, at);
    op = scalar_op_at(p, 1, false);
    if (op != SC_COUNT)
        return parse_prefix(p, op, at);
    p_expected(p, "an expression");
    return NULL;
}

static bool compares(ScalarOp op) {
    return op >= SC_EQ && op <= SC_GE;
}

/* Precedence climbing. Comparisons do not associate: a < b < c is a mistake. */
static const Scalar *parse_operators(Parser *p, int min_prec) {
    const Scalar *x = parse_atom(p);
    while (x) {
        SrcLoc at = p->at;
        ScalarOp op = scalar_op_at(p, 2, false);
        if (op == SC_COUNT || scalar_ops[op].prec < min_prec)
            return x;
        p_next(p);
        const Scalar *arg[3] = {x, parse_expr(p, scalar_ops[op].prec + 1)};
        x = arg[1] ? make_scalar(p, op, arg, at) : NULL;
        if (x && compares(op) && compares(scalar_op_at(p, 2, false))) {
            p_fail_at(p, p->at, "comparisons do not chain; use 'and' or parentheses");
            return NULL;
        }
    }
    return NULL;
}

static const Scalar *parse_expr(Parser *p, int min_prec) {
    if (p->expr_depth >= SCALAR_NESTING) {
        p_fail_at(p, p->at, "the expression is nested too deeply");
        return NULL;
    }
    p->expr_depth++;
    const Scalar *e = parse_operators(p, min_prec);
    p->expr_depth--;
    return e;
}

const Scalar *p_scalar(Parser *p) {
    p->expr_nodes = 0;
    return parse_expr(p, 1);
}
