/* lower_expr.c - expressions: what is known is computed at once, what touches a tensor becomes a node. */
#include "frontend/lower.h"

#include <string.h>

static const char *what(Lower *L, Value v) {
    return value_what(L->arena, L->g, v);
}

static bool is_poison(Value x, Value y) {
    return x.kind == VAL_POISON || y.kind == VAL_POISON;
}

/* ==== Operators ==== */

NodeId l_operand(Lower *L, Value v, SrcLoc at) {
    if (v.kind == VAL_TENSOR)
        return v.u.node;
    if (value_is_number(v)) {
        Attr a = {.f = value_number(v)};
        return l_node(L, OP_CONST, NULL, 0, &a, NULL, at);
    }
    if (v.kind != VAL_POISON)
        l_error(L, at, "needs a tensor or a number, this is %s", what(L, v));
    return 0;
}

static Value tensor_binary(Lower *L, AstOp op, Value x, Value y, const char *hint, SrcLoc loc) {
    static const Op ops[] = {[AO_ADD] = OP_ADD, [AO_SUB] = OP_SUB, [AO_MUL] = OP_MUL, [AO_DIV] = OP_DIV};
    if (op > AO_DIV)
        return l_error(L, loc, "'%s' is for what is known before a call, not for tensors", ast_op_text(op));
    Value other = x.kind == VAL_TENSOR ? y : x;
    if (other.kind != VAL_TENSOR && !value_is_number(other))
        return l_error(L, loc, "'%s' does not go with a tensor and %s", ast_op_text(op), what(L, other));
    NodeId in[] = {l_operand(L, x, loc), l_operand(L, y, loc)};
    return value_tensor(l_node(L, ops[op], in, 2, NULL, hint, loc));
}

static Value array_binary(Lower *L, AstOp op, Value x, Value y, SrcLoc loc) {
    bool both = x.kind == VAL_ARRAY && y.kind == VAL_ARRAY;
    if (both && x.u.array.n != y.u.array.n)
        return l_error(L, loc, "'%s' of arrays of different length, %lld and %lld", ast_op_text(op),
                       (long long)x.u.array.n, (long long)y.u.array.n);
    int64_t n = x.kind == VAL_ARRAY ? x.u.array.n : y.u.array.n;
    Value *out = l_values(L, n, loc);
    for (int64_t i = 0; out && i < n; i++) {
        Value a = x.kind == VAL_ARRAY ? x.u.array.v[i] : x;
        Value b = y.kind == VAL_ARRAY ? y.u.array.v[i] : y;
        out[i] = l_binary(L, op, a, b, NULL, loc);
        if (out[i].kind == VAL_POISON)
            return value_poison();
    }
    return out ? (Value){.kind = VAL_ARRAY, .u.array = {out, n}} : value_poison();
}

static Value join(Lower *L, Str x, Str y, SrcLoc loc) {
    if (x.n + y.n > MAX_STRING)
        return l_error(L, loc, "a string of more than %d bytes", MAX_STRING);
    if (!l_steps(L, 1 + (int64_t)(x.n + y.n) / 64, loc))
        return value_poison();
    char *s = arena_alloc(L->arena, x.n + y.n + 1);
    if (x.n)
        memcpy(s, x.s, x.n);
    if (y.n)
        memcpy(s + x.n, y.s, y.n);
    return value_str((Str){s, x.n + y.n});
}

Value l_binary(Lower *L, AstOp op, Value x, Value y, const char *hint, SrcLoc loc) {
    if (is_poison(x, y))
        return value_poison();
    bool equality = op == AO_EQ || op == AO_NE;
    if (equality && (x.kind == VAL_NONE || y.kind == VAL_NONE))
        return value_bool((x.kind == y.kind) == (op == AO_EQ));
    if (x.kind == VAL_TENSOR || y.kind == VAL_TENSOR)
        return tensor_binary(L, op, x, y, hint, loc);
    if (x.kind == VAL_ARRAY || y.kind == VAL_ARRAY)
        return array_binary(L, op, x, y, loc);
    if (x.kind == VAL_SCALAR || y.kind == VAL_SCALAR)
        return l_scalar_binary(L, op, x, y, loc);
    if (op == AO_ADD && x.kind == VAL_STRING && y.kind == VAL_STRING)
        return join(L, x.u.s, y.u.s, loc);
    Value out;
    const char *wrong = value_arith(op, x, y, &out);
    if (!wrong)
        return out;
    if (wrong[0])
        return l_error(L, loc, "'%s': %s", ast_op_text(op), wrong);
    l_error(L, loc, "'%s' does not go with %s and %s", ast_op_text(op), what(L, x), what(L, y));
    l_note_origin(L, x);
    l_note_origin(L, y);
    return value_poison();
}

/* `and` and `or` look at their right side only when it matters, so that `has(x) and f(x)` works. */
static Value eval_binary(Lower *L, const Expr *e, const char *hint) {
    AstOp op = e->u.op.op;
    Value x = l_eval(L, e->u.op.x, NULL);
    if ((op == AO_AND || op == AO_OR) && x.kind == VAL_BOOL && x.u.b == (op == AO_OR))
        return x;
    return l_binary(L, op, x, l_eval(L, e->u.op.y, NULL), hint, e->loc);
}

static Value negate(Lower *L, Value x, const char *hint, SrcLoc loc) {
    if (x.kind == VAL_TENSOR)
        return value_tensor(l_node(L, OP_NEG, &x.u.node, 1, NULL, hint, loc));
    if (x.kind == VAL_SCALAR)
        return l_scalar_op(L, SC_NEG, &x, 1, loc);
    if (x.kind == VAL_FLOAT)
        return value_float(-x.u.f);
    return l_binary(L, AO_SUB, value_int(0), x, NULL, loc);
}

static Value unary_one(Lower *L, AstOp op, Value x, const char *hint, SrcLoc loc) {
    if (x.kind == VAL_POISON)
        return x;
    if (op == AO_NOT && x.kind == VAL_BOOL)
        return value_bool(!x.u.b);
    if (op == AO_NOT && x.kind == VAL_SCALAR)
        return l_scalar_op(L, SC_NOT, &x, 1, loc);
    if (op == AO_NEG && (value_is_number(x) || x.kind == VAL_TENSOR || x.kind == VAL_SCALAR))
        return negate(L, x, hint, loc);
    l_error(L, loc, "'%s' does not go with %s", ast_op_text(op), what(L, x));
    l_note_origin(L, x);
    return value_poison();
}

static Value eval_unary(Lower *L, const Expr *e, const char *hint) {
    Value x = l_eval(L, e->u.op.x, NULL);
    if (x.kind != VAL_ARRAY)
        return unary_one(L, e->u.op.op, x, hint, e->loc);
    Value *out = l_values(L, x.u.array.n, e->loc);
    for (int64_t i = 0; out && i < x.u.array.n; i++) {
        out[i] = unary_one(L, e->u.op.op, x.u.array.v[i], NULL, e->loc);
        if (out[i].kind == VAL_POISON)
            return value_poison();
    }
    return out ? (Value){.kind = VAL_ARRAY, .u.array = {out, x.u.array.n}} : value_poison();
}

/* ==== Conditions ==== */

/* The side of a choice for element i: an array gives its element, a single value itself. */
static Value element(Value v, int64_t i) {
    return v.kind == VAL_ARRAY ? v.u.array.v[i] : v;
}

static bool all_bools(Value v, bool *any_true, bool *any_false) {
    for (int64_t i = 0; i < v.u.array.n; i++) {
        if (v.u.array.v[i].kind != VAL_BOOL)
            return false;
        *(v.u.array.v[i].u.b ? any_true : any_false) = true;
    }
    return true;
}

/* c ? a : b with an array of bools c: element by element. A side that no element takes is not
 * evaluated. */
static Value choose_each(Lower *L, const Expr *e, Value test) {
    const Expr *side[] = {e->u.cond.no, e->u.cond.yes};
    bool want[2] = {false, false};
    Value v[2] = {value_none(), value_none()};
    int64_t n = test.u.array.n;
    if (!all_bools(test, &want[1], &want[0]))
        return l_error(L, e->u.cond.test->loc, "a condition must be a bool or an array of bools");
    for (int s = 0; s < 2; s++) {
        if (!want[s] || !side[s])
            continue;
        v[s] = l_eval(L, side[s], NULL);
        if (v[s].kind == VAL_POISON)
            return v[s];
        if (v[s].kind == VAL_ARRAY && v[s].u.array.n != n) {
            l_error(L, side[s]->loc, "the condition has %lld elements, this has %lld", (long long)n,
                    (long long)v[s].u.array.n);
            l_note_origin(L, v[s]);
            return value_poison();
        }
    }
    Value *out = l_values(L, n, e->loc);
    for (int64_t i = 0; out && i < n; i++)
        out[i] = element(v[test.u.array.v[i].u.b], i);
    return out ? (Value){.kind = VAL_ARRAY, .u.array = {out, n}} : value_poison();
}

static Value choose_scalar(Lower *L, const Expr *e, Value test) {
    Value x[] = {test, l_eval(L, e->u.cond.yes, NULL), e->u.cond.no ? l_eval(L, e->u.cond.no, NULL) : value_none()};
    return is_poison(x[1], x[2]) ? value_poison() : l_scalar_op(L, SC_SELECT, x, 3, e->loc);
}

static Value eval_cond(Lower *L, const Expr *e, const char *hint) {
    Value test = l_eval(L, e->u.cond.test, NULL);
    if (test.kind == VAL_POISON)
        return test;
    if (test.kind == VAL_ARRAY)
        return choose_each(L, e, test);
    if (test.kind == VAL_SCALAR)
        return choose_scalar(L, e, test);
    if (test.kind != VAL_BOOL) {
        l_error(L, e->u.cond.test->loc, "a condition must be a bool known before a call, this is %s", what(L, test));
        l_note_origin(L, test);
        return value_poison();
    }
    const Expr *side = test.u.b ? e->u.cond.yes : e->u.cond.no;
    return side ? l_eval(L, side, hint) : value_none();
}

/* ==== Strings, names, arrays ==== */

static Value eval_string(Lower *L, const Expr *e) {
    Value s = value_str((Str){"", 0});
    for (int i = 0; i < e->u.parts.n; i++) {
        const StrPart *p = &e->u.parts.v[i];
        Str text = p->text;
        if (p->expr) {
            Value v = l_eval(L, p->expr, NULL);
            if (v.kind == VAL_POISON)
                return v;
            const char *t = value_text(L->arena, v);
            if (!t)
                return l_error(L, p->expr->loc, "%s cannot be put into a string", what(L, v));
            text = v.kind == VAL_STRING ? v.u.s : (Str){t, strlen(t)};
        }
        s = e->u.parts.n == 1 ? value_str(text) : join(L, s.u.s, text, e->loc);
        if (s.kind == VAL_POISON)
            return s;
    }
    return s;
}

static Value eval_name(Lower *L, const Expr *e) {
    const Value *local = l_find(L, e->u.name);
    if (local)
        return *local;
    int param = program_param(L->program, e->u.name);
    if (param >= 0 && param < L->n_params)
        return L->params[param];
    if (param >= 0)
        return l_error(L, e->loc, "parameter '%s' has no value yet here", e->u.name);
    const VariantDecl *v = program_variant(L->program, e->u.name);
    if (!v)
        ICE("unchecked name '%s'", e->u.name);
    return l_variant(L, v, NULL, NULL, e->loc);
}

static Value eval_array(Lower *L, const Expr *e) {
    int n = e->u.items.n;
    Value *out = l_values(L, n, e->loc);
    bool bad = !out;
    for (int i = 0; out && i < n; i++) {
        out[i] = l_eval(L, e->u.items.v[i], NULL);
        bad |= out[i].kind == VAL_POISON;
    }
    return bad ? value_poison() : (Value){.kind = VAL_ARRAY, .u.array = {out, n}};
}

static Value eval_index(Lower *L, const Expr *e) {
    Value base = l_eval(L, e->u.index.base, NULL), i = l_eval(L, e->u.index.index, NULL);
    SrcLoc at = e->u.index.index->loc;
    if (is_poison(base, i))
        return value_poison();
    if (base.kind == VAL_STRING || i.kind == VAL_SCALAR)
        return l_scalar_index(L, base, i, e->loc);
    if (base.kind != VAL_ARRAY) {
        l_error(L, e->u.index.base->loc, "only arrays have elements, this is %s", what(L, base));
        l_note_origin(L, base);
        return value_poison();
    }
    if (i.kind != VAL_INT)
        return l_error(L, at, "an index must be an int, this is %s", what(L, i));
    if (i.u.i >= 0 && i.u.i < base.u.array.n)
        return base.u.array.v[i.u.i];
    l_error(L, at, "index %lld is outside an array of %lld", (long long)i.u.i, (long long)base.u.array.n);
    l_note_origin(L, base);
    return value_poison();
}

/* kv[i][j] -> "kv.i.j" */
static const char *cache_name(Lower *L, const Expr *e, bool *target) {
    if (e->kind == EX_NAME)
        return e->u.name;
    if (e->kind == EX_FIELD) {
        *target = true;
        return e->u.field.name.s;
    }
    const char *base = cache_name(L, e->u.index.base, target);
    Value i = l_eval(L, e->u.index.index, NULL);
    if (i.kind != VAL_INT && i.kind != VAL_POISON)
        l_error(L, e->u.index.index->loc, "an index must be an int, this is %s", what(L, i));
    return base && i.kind == VAL_INT ? arena_printf(L->arena, "%s.%lld", base, (long long)i.u.i) : NULL;
}

static Value eval_cache(Lower *L, const Expr *e) {
    CacheRef *r = arena_alloc(L->arena, sizeof *r);
    r->name = cache_name(L, e->u.cache, &r->target);
    r->loc = e->loc;
    return r->name ? (Value){.kind = VAL_CACHE, .u.cache = r} : value_poison();
}

/* ==== Calls ==== */

/* Evaluates the arguments of a call in the order of the parameters; false when one is poison. */
static bool eval_args(Lower *L, const Signature *s, const Expr *e, Value v[MAX_SLOTS], SrcLoc at[MAX_SLOTS]) {
    int slot[MAX_SLOTS], wrong;
    bool ok = true;
    if (!bind_args(s, &e->u.call.args, slot, &wrong))
        ICE("unchecked call of '%s'", s->name);
    for (int i = 0; i < s->n; i++) {
        const Expr *arg = e->u.call.args.v[slot[i]].value;
        v[i] = l_eval(L, arg, NULL);
        at[i] = arg->loc;
        ok &= v[i].kind != VAL_POISON;
    }
    return ok;
}

/* A poisoned argument does not stop the call: what else is wrong inside shows as well. */
static Value call_fn(Lower *L, const FnDecl *f, const Expr *e, const char *hint) {
    Value v[MAX_SLOTS];
    SrcLoc at[MAX_SLOTS];
    Signature s = signature_of_fn(f);
    if (L->calls >= MAX_CALLS) {
        l_error(L, e->loc, "'%s' is called more than %d calls deep: functions cannot recur without end", f->name.s,
                MAX_CALLS);
        L->stop = true;
        return value_poison();
    }
    eval_args(L, &s, e, v, at);
    Scope *outer = L->scope, scope = {0};
    Frame frame = {.loc = e->loc, .name = f->name.s};
    l_enter(L, &frame);
    L->calls++;
    L->scope = &scope;
    for (int i = 0; i < s.n; i++)
        l_bind(L, s.param[i], v[i]);
    Value out = l_eval(L, f->body, hint);
    L->scope = outer;
    L->calls--;
    l_leave(L);
    return out;
}

static Value eval_call(Lower *L, const Expr *e, const char *hint) {
    Name storage;
    bool target;
    const Name *name = call_name(e, &target, &storage);
    const FnDecl *f = target ? NULL : program_fn(L->program, name->s);
    if (f)
        return call_fn(L, f, e, hint);
    const VariantDecl *d = target ? NULL : program_variant(L->program, name->s);
    if (!d)
        return l_builtin(L, builtin_find(name->s), e, target, hint);
    Value v[MAX_SLOTS];
    SrcLoc at[MAX_SLOTS];
    Signature s = signature_of_variant(d);
    return eval_args(L, &s, e, v, at) ? l_variant(L, d, v, at, e->loc) : value_poison();
}

/* ==== All ==== */

static Value eval_block(Lower *L, const Expr *e, const char *hint) {
    Scope scope = {.up = L->scope};
    L->scope = &scope;
    Value v = l_block(L, &e->u.block, hint);
    L->scope = scope.up;
    return v;
}

static Value eval_kind(Lower *L, const Expr *e, const char *hint) {
    switch (e->kind) {
    case EX_INT: return value_int(e->u.i);
    case EX_FLOAT: return value_float(e->u.f);
    case EX_BOOL: return value_bool(e->u.b);
    case EX_NONE: return value_none();
    case EX_STRING: return eval_string(L, e);
    case EX_NAME: return eval_name(L, e);
    case EX_INDEX: return eval_index(L, e);
    case EX_CALL: return eval_call(L, e, hint);
    case EX_UNARY: return eval_unary(L, e, hint);
    case EX_BINARY: return eval_binary(L, e, hint);
    case EX_COND: return eval_cond(L, e, hint);
    case EX_ARRAY: return eval_array(L, e);
    case EX_BLOCK: return eval_block(L, e, hint);
    case EX_CACHE: return eval_cache(L, e);
    case EX_FIELD: break;
    }
    ICE("unchecked expression");
}

Value l_eval(Lower *L, const Expr *e, const char *hint) {
    if (!l_steps(L, 1, e->loc))
        return value_poison();
    if (L->depth >= MAX_DEPTH) {
        l_error(L, e->loc, "expressions are nested more than %d deep here", MAX_DEPTH);
        L->stop = true;
        return value_poison();
    }
    L->depth++;
    Value v = eval_kind(L, e, hint);
    L->depth--;
    return v;
}

Value l_eval_alone(Lower *L, const Expr *e) {
    Scope scope = {0};
    L->scope = &scope;
    const Value v = l_eval(L, e, NULL);
    L->scope = NULL;
    return v;
}
