/* lower_variant.c - variants: which keys a query sees, and how scores are changed.
 *
 * The bodies are ordinary expressions of the language in which the positions q and k, the score s and
 * the head h are VAL_SCALAR values; whatever touches one of them becomes a Scalar tree (ir/scalar.h),
 * everything else is computed at once. So parameters, functions, arrays and conditions all work. In a
 * scalar expression `/` is real division and a table is read by an index: an array of the text turns
 * into nested selects, the name of a 1-d weight into a table.
 */
#include "frontend/lower.h"
#include "ir/sparse.h"

#include <string.h>

enum {
    MAX_SCALAR = 2000, /* nodes of one expression, shared parts counted each time */
    MAX_CHOICES = 256, /* elements of an array that is indexed by a scalar */
};

static int64_t scalar_size(const Value *v) {
    return v->kind == VAL_SCALAR ? v->size : 1;
}

/* The value as a scalar expression; NULL after a report. */
static const Scalar *as_scalar(Lower *L, Value v, SrcLoc at) {
    if (v.kind == VAL_SCALAR)
        return v.u.scalar;
    if (value_is_number(v) || v.kind == VAL_BOOL)
        return scalar_const(L->arena, v.kind == VAL_BOOL ? v.u.b : value_number(v), at);
    if (v.kind != VAL_POISON)
        l_error(L, at, "the body of a variant computes with numbers and conditions, this is %s",
                value_what(L->arena, L->g, v));
    return NULL;
}

static bool is_condition(Value v) {
    return v.kind == VAL_BOOL || (v.kind == VAL_SCALAR && v.truth);
}

static Value finish(Lower *L, const Scalar *s, int64_t size, SrcLoc loc) {
    if (size > MAX_SCALAR)
        return l_error(L, loc, "the body of a variant has more than %d operations", MAX_SCALAR);
    Value v = value_scalar(s);
    v.size = (int)size;
    v.truth = s->op >= SC_OR && s->op <= SC_GE;
    return v;
}

Value l_scalar_op(Lower *L, ScalarOp op, const Value *x, int n, SrcLoc loc) {
    const Scalar *arg[3] = {NULL};
    int64_t size = 1;
    bool conditions = op == SC_NOT || op == SC_AND || op == SC_OR;
    for (int i = 0; i < n; i++) {
        if (!(arg[i] = as_scalar(L, x[i], loc)))
            return value_poison();
        if ((conditions || (op == SC_SELECT && i == 0)) && !is_condition(x[i]))
            return l_error(L, loc, "a condition is needed here, such as k <= q");
        size += scalar_size(&x[i]);
    }
    if (op == SC_SELECT && is_condition(x[1]) != is_condition(x[2]))
        return l_error(L, loc, "one side of this choice is a condition, the other a number");
    Value v = finish(L, scalar_new(L->arena, op, arg[0], arg[1], arg[2], loc), size, loc);
    if (op == SC_SELECT)
        v.truth = is_condition(x[1]);
    return v;
}

Value l_scalar_binary(Lower *L, AstOp op, Value x, Value y, SrcLoc loc) {
    static const ScalarOp ops[] = {
        [AO_ADD] = SC_ADD, [AO_SUB] = SC_SUB, [AO_MUL] = SC_MUL, [AO_DIV] = SC_DIV, [AO_MOD] = SC_MOD,
        [AO_EQ] = SC_EQ,   [AO_NE] = SC_NE,   [AO_LT] = SC_LT,   [AO_LE] = SC_LE,   [AO_GT] = SC_GT,
        [AO_GE] = SC_GE,   [AO_AND] = SC_AND, [AO_OR] = SC_OR,
    };
    /* A known side decides or drops out, so that the planner sees the plain condition. */
    if ((op == AO_AND || op == AO_OR) && (x.kind == VAL_BOOL || y.kind == VAL_BOOL)) {
        bool known = x.kind == VAL_BOOL ? x.u.b : y.u.b;
        return known == (op == AO_OR) ? value_bool(known) : x.kind == VAL_BOOL ? y : x;
    }
    return l_scalar_op(L, ops[op], (Value[]){x, y}, 2, loc);
}

/* ==== Tables ==== */

/* t[i] for first <= i < end by halves, select(i < middle, .., ..), so that it nests little. */
static Value choose(Lower *L, const Value *t, int64_t first, int64_t end, Value index, SrcLoc loc) {
    if (end - first == 1)
        return t[first];
    int64_t middle = first + (end - first) / 2;
    Value below = choose(L, t, first, middle, index, loc);
    Value above = choose(L, t, middle, end, index, loc);
    Value is = l_scalar_op(L, SC_LT, (Value[]){index, value_int(middle)}, 2, loc);
    if (below.kind == VAL_POISON || above.kind == VAL_POISON || is.kind == VAL_POISON)
        return value_poison();
    return l_scalar_op(L, SC_SELECT, (Value[]){is, below, above}, 3, loc);
}

Value l_scalar_index(Lower *L, Value table, Value index, SrcLoc loc) {
    static const Want vector = {.rank = 1, .dim = {-1}};
    if (table.kind == VAL_ARRAY) {
        int64_t n = table.u.array.n;
        if (n == 0 || n > MAX_CHOICES)
            return l_error(L, loc, "an array indexed by q, k or h has 1 to %d elements, this has %lld", MAX_CHOICES,
                           (long long)n);
        return choose(L, table.u.array.v, 0, n, index, loc);
    }
    if (table.kind != VAL_STRING)
        return l_error(L, loc, "only arrays and named 1-d tensors can be indexed by q, k or h, this is %s",
                       value_what(L->arena, L->g, table));
    if (!L->in_variant)
        return l_error(L, loc, "a named tensor has elements only in the body of a variant");
    int w = l_weight(L, table.u.s, false, loc, &vector);
    const Scalar *i = as_scalar(L, index, loc);
    if (w < 0 || !i)
        return value_poison();
    if (!dtype_info(L->m->weights.v[w].type.dtype)->is_float)
        return l_error(L, loc, "tensor '%s' does not hold floats", L->m->weights.v[w].name);
    return finish(L, scalar_table(L->arena, w, i, loc), 1 + scalar_size(&index), loc);
}

/* ==== Binding a variant ==== */

typedef struct Body {
    const char *what;
    const ScalarOp *roles; /* of its names in order */
    const Name *params;
    int n;
    const Expr *body; /* NULL: not given */
    bool condition;   /* must be one */
} Body;

/* False after a report. */
static bool lower_body(Lower *L, const Body *b, const Scalar **out) {
    Scope scope = {.up = L->scope};
    *out = NULL;
    if (!b->body)
        return true;
    L->scope = &scope;
    for (int i = 0; i < b->n; i++) {
        Value role = value_scalar(scalar_new(L->arena, b->roles[i], NULL, NULL, NULL, b->params[i].loc));
        role.size = 1;
        l_bind(L, b->params[i].s, role);
    }
    Value v = l_eval(L, b->body, NULL);
    L->scope = scope.up;
    if (v.kind == VAL_POISON)
        return false;
    if (b->condition != is_condition(v)) {
        l_error(L, b->body->loc,
                b->condition ? "%s must be a condition, such as k <= q" : "%s must be a number, this is a condition",
                b->what);
        return false;
    }
    *out = as_scalar(L, v, b->body->loc);
    if (*out && scalar_nesting(*out) > SCALAR_NESTING) {
        l_error(L, b->body->loc, "%s is nested more than %d deep", b->what, SCALAR_NESTING);
        return false;
    }
    return *out != NULL;
}

static bool lower_sparse(Lower *L, const VariantDecl *d, Variant *v) {
    int most = (int)COUNTOF(v->sparse_arg);
    if (!d->sparse.s)
        return true;
    v->sparse = d->sparse.s;
    if (d->sparse_args.n > most) {
        l_error(L, d->sparse.loc, "a sparse method takes at most %d arguments", most);
        return false;
    }
    for (int i = 0; i < d->sparse_args.n; i++) {
        const Arg *a = &d->sparse_args.v[i];
        Value x = l_eval(L, a->value, NULL);
        if (!value_is_number(x)) {
            if (x.kind != VAL_POISON)
                l_error(L, a->value->loc, "'%s' must be a number, this is %s", a->name.s,
                        value_what(L->arena, L->g, x));
            return false;
        }
        v->sparse_arg[v->n_sparse].name = a->name.s;
        v->sparse_arg[v->n_sparse++].value = value_number(x);
    }
    int arg;
    const char *problem = sparse_problem(L->arena, v, &arg);
    if (problem)
        l_error(L, arg < 0 ? d->sparse.loc : d->sparse_args.v[arg].value->loc, "%s", problem);
    return !problem;
}

static bool same_or_none(const Scalar *a, const Scalar *b) {
    return a && b ? scalar_same(a, b) : a == b;
}

static bool variant_same(const Variant *a, const Variant *b) {
    if (!scalar_same(a->visible, b->visible) || !same_or_none(a->score, b->score) || !same_or_none(a->sink, b->sink) ||
        a->n_sparse != b->n_sparse || !a->sparse != !b->sparse || (a->sparse && strcmp(a->sparse, b->sparse) != 0))
        return false;
    for (int i = 0; i < a->n_sparse; i++)
        if (strcmp(a->sparse_arg[i].name, b->sparse_arg[i].name) != 0 ||
            a->sparse_arg[i].value != b->sparse_arg[i].value)
            return false;
    return true;
}

/* "window.512". Arrays have no short text: the variants they make are told apart by a number. */
static const char *bound_name(Lower *L, const VariantDecl *d, const Value *args) {
    const char *name = d->name.s;
    for (int i = 0; i < d->params.n; i++) {
        const char *text = value_text(L->arena, args[i]);
        name = arena_printf(L->arena, "%s.%s", name, text ? text : "array");
    }
    return name;
}

static Value add_variant(Lower *L, Variant v) {
    const char *base = v.name;
    for (int n = 2;; n++) {
        int i = module_variant(L->m, v.name);
        if (i < 0 || variant_same(&L->m->variants.v[i], &v))
            break;
        v.name = arena_printf(L->arena, "%s_%d", base, n);
    }
    return (Value){.kind = VAL_VARIANT, .u.variant = module_add_variant(L->m, v)};
}

static bool good_args(Lower *L, const VariantDecl *d, const Value *args, const SrcLoc *at) {
    for (int i = 0; i < d->params.n; i++) {
        ValueKind k = args[i].kind;
        if (k == VAL_INT || k == VAL_FLOAT || k == VAL_BOOL || k == VAL_STRING || k == VAL_ARRAY)
            continue;
        if (k != VAL_POISON)
            l_error(L, at[i], "'%s' of variant '%s' must be known before a call, this is %s", d->params.v[i].s,
                    d->name.s, value_what(L->arena, L->g, args[i]));
        return false;
    }
    return true;
}

Value l_variant(Lower *L, const VariantDecl *d, const Value *args, const SrcLoc *at, SrcLoc loc) {
    static const ScalarOp qkh[] = {SC_Q, SC_K, SC_H}, sqkh[] = {SC_S, SC_Q, SC_K, SC_H}, h[] = {SC_H};
    const Body visible = {"visible", qkh, d->visible.params.v, d->visible.params.n, d->visible.body, true};
    const Body score = {"score", sqkh, d->score.params.v, d->score.params.n, d->score.body, false};
    const Body sink = {"sink", h, d->sink.params.v, d->sink.params.n, d->sink.body, false};
    Scope *outer = L->scope, scope = {0};
    Frame frame = {.loc = loc, .name = d->name.s};
    Variant v = {.loc = d->name.loc};
    if (!good_args(L, d, args, at))
        return value_poison();
    bool inside = L->in_variant;
    l_enter(L, &frame);
    L->scope = &scope;
    L->in_variant = true;
    for (int i = 0; i < d->params.n; i++)
        l_bind(L, d->params.v[i].s, args[i]);
    v.name = bound_name(L, d, args);
    bool ok = lower_body(L, &visible, &v.visible) && lower_body(L, &score, &v.score) && lower_body(L, &sink, &v.sink) &&
              lower_sparse(L, d, &v);
    L->in_variant = inside;
    L->scope = outer;
    l_leave(L);
    return ok ? add_variant(L, v) : value_poison();
}
