/* check.c - the walk over a model text that needs no weights: see check.h.
 *
 * Scopes here mirror those of the expander exactly: a block opens one, a function starts from an
 * empty one (its parameters), a variant's body sees the variant's parameters and its own. Everything
 * is visited once, also functions nobody calls. The parser bounds how deep the tree is.
 */
#include "frontend/check.h"
#include "frontend/check_int.h"

#include <string.h>

/* ==== Programs and signatures ==== */

static const FnDecl *find_fn(const ModelDecl *m, const char *name) {
    for (int i = 0; m && i < m->fns.n; i++)
        if (strcmp(m->fns.v[i].name.s, name) == 0)
            return &m->fns.v[i];
    return NULL;
}

const FnDecl *program_fn(const Program *p, const char *name) {
    const FnDecl *f = find_fn(p->model, name);
    return f ? f : find_fn(p->prelude, name);
}

const VariantDecl *program_variant(const Program *p, const char *name) {
    for (int i = 0; i < p->model->variants.n; i++)
        if (strcmp(p->model->variants.v[i].name.s, name) == 0)
            return &p->model->variants.v[i];
    return NULL;
}

int program_param(const Program *p, const char *name) {
    for (int i = 0; i < p->model->params.n; i++)
        if (strcmp(p->model->params.v[i].name.s, name) == 0)
            return i;
    return -1;
}

static Signature signature_of(const char *name, const Name *params, int n) {
    Signature s = {.name = name, .n = n < MAX_SLOTS ? n : MAX_SLOTS};
    s.required = s.n;
    for (int i = 0; i < s.n; i++)
        s.param[i] = params[i].s;
    return s;
}

Signature signature_of_fn(const FnDecl *f) {
    return signature_of(f->name.s, f->params.v, f->params.n);
}

Signature signature_of_variant(const VariantDecl *v) {
    return signature_of(v->name.s, v->params.v, v->params.n);
}

Signature signature_of_builtin(const Builtin *b) {
    Signature s = {.name = b->name, .required = b->required};
    while (s.n < MAX_SLOTS && b->param[s.n]) {
        s.param[s.n] = b->param[s.n];
        s.n++;
    }
    return s;
}

bool bind_args(const Signature *s, const ArgList *args, int slot[MAX_SLOTS], int *wrong) {
    int next = 0;
    for (int i = 0; i < MAX_SLOTS; i++)
        slot[i] = -1;
    for (int a = 0; a < args->n; a++) {
        const char *name = args->v[a].name.s;
        int at = name ? 0 : next++;
        while (name && at < s->n && strcmp(s->param[at], name) != 0)
            at++;
        if (at >= s->n || slot[at] >= 0) {
            *wrong = a;
            return false;
        }
        slot[at] = a;
    }
    *wrong = -1;
    for (int i = 0; i < s->required; i++)
        if (slot[i] < 0)
            return false;
    return true;
}

const Name *call_name(const Expr *call, bool *target, Name *storage) {
    const Expr *fn = call->u.call.fn;
    *target = false;
    if (fn->kind == EX_NAME) {
        *storage = (Name){fn->u.name, fn->loc};
        return storage;
    }
    if (fn->kind != EX_FIELD || fn->u.field.base->kind != EX_NAME || strcmp(fn->u.field.base->u.name, "target") != 0)
        return NULL;
    *target = true;
    return &fn->u.field.name;
}

/* ==== Names ==== */

const char *near_text(Arena *a, const Nearest *n) {
    const char *best = nearest_best(n);
    bool letter = n->name.n == 1; /* every other letter is one edit away: only its case may differ */
    if (letter && best && (best[0] ^ n->name.s[0]) != ('a' ^ 'A'))
        best = NULL;
    return best ? arena_printf(a, ", did you mean '%s'?", best) : "";
}

static Nearest near(const char *name) {
    return nearest_new((Str){name, strlen(name)});
}

static void try_fns(Nearest *n, const Checker *c) {
    const ModelDecl *from[] = {c->p->model, c->p->prelude};
    for (size_t m = 0; m < COUNTOF(from); m++)
        for (int i = 0; from[m] && i < from[m]->fns.n; i++)
            nearest_try(n, from[m]->fns.v[i].name.s);
}

static void try_variants(Nearest *n, const Checker *c) {
    for (int i = 0; i < c->p->model->variants.n; i++)
        nearest_try(n, c->p->model->variants.v[i].name.s);
}

static void unknown_name(Checker *c, const char *name, SrcLoc at) {
    Nearest n = near(name);
    for (const CheckScope *s = c->scope; s; s = s->up)
        for (int i = 0; i < s->names.n; i++)
            nearest_try(&n, s->names.v[i].name.s);
    for (int i = 0; i < c->p->model->params.n; i++)
        nearest_try(&n, c->p->model->params.v[i].name.s);
    try_variants(&n, c);
    diag_error(c->diag, at, "unknown name '%s'%s", name, near_text(c->arena, &n));
}

static void unknown_function(Checker *c, const Name *name) {
    Nearest n = near(name->s);
    try_fns(&n, c);
    try_variants(&n, c);
    for (int i = 0; builtin_at(i); i++)
        nearest_try(&n, builtin_at(i)->name);
    diag_error(c->diag, name->loc, "unknown function '%s'%s", name->s, near_text(c->arena, &n));
}

CheckName *check_find(Checker *c, const char *name) {
    for (CheckScope *s = c->scope; s; s = s->up)
        for (int i = s->names.n - 1; i >= 0; i--)
            if (strcmp(s->names.v[i].name.s, name) == 0)
                return &s->names.v[i];
    return NULL;
}

void check_declare(Checker *c, Name name, NameKind kind) {
    for (int i = 0; i < c->scope->names.n; i++) {
        if (strcmp(c->scope->names.v[i].name.s, name.s) == 0) {
            diag_error(c->diag, name.loc, "'%s' is defined twice", name.s);
            diag_note(c->diag, c->scope->names.v[i].name.loc, "the first is here");
            return;
        }
    }
    CheckName n = {name, kind, false};
    vec_push(c->arena, &c->scope->names, n);
}

void check_open(Checker *c, CheckScope *s) {
    *s = (CheckScope){.up = c->scope};
    c->scope = s;
}

void check_close(Checker *c) {
    for (int i = 0; i < c->scope->names.n; i++) {
        const CheckName *n = &c->scope->names.v[i];
        if (!n->used && (n->kind == NAME_LET || n->kind == NAME_VAR) && n->name.s[0] != '_')
            diag_warning(c->diag, n->name.loc, "'%s' is never used", n->name.s);
    }
    c->scope = c->scope->up;
}

static void check_name(Checker *c, const Expr *e) {
    const char *name = e->u.name;
    CheckName *local = check_find(c, name);
    if (local) {
        local->used = true;
        return;
    }
    int param = program_param(c->p, name);
    if (param >= 0) {
        if (param >= c->n_params) {
            diag_error(c->diag, e->loc, "parameter '%s' is used before it has a value", name);
            diag_note(c->diag, c->p->model->params.v[param].name.loc, "it gets one here");
        }
        return;
    }
    const VariantDecl *v = program_variant(c->p, name);
    if (v && v->params.n) {
        diag_error(c->diag, e->loc, "variant '%s' needs its %d argument%s", name, v->params.n,
                   v->params.n == 1 ? "" : "s");
        diag_note(c->diag, v->name.loc, "'%s' is defined here", name);
    } else if (!v && (program_fn(c->p, name) || builtin_find(name))) {
        diag_error(c->diag, e->loc, "'%s' is a function: it needs arguments, as in %s(..)", name, name);
    } else if (!v) {
        unknown_name(c, name, e->loc);
    }
}

/* ==== Calls ==== */

static void wrong_args(Checker *c, const Signature *s, const Name *name, const ArgList *args, int wrong,
                       SrcLoc defined) {
    const Arg *a = wrong >= 0 ? &args->v[wrong] : NULL;
    int slot[MAX_SLOTS];
    int first = 0, other;
    bind_args(s, args, slot, &other);
    while (first < s->n && slot[first] >= 0)
        first++;
    bool known = false;
    for (int i = 0; a && a->name.s && i < s->n; i++)
        known |= strcmp(s->param[i], a->name.s) == 0;
    if (!a) {
        diag_error(c->diag, name->loc, "%s lacks its argument '%s'", s->name, first < s->n ? s->param[first] : "");
    } else if (known) {
        diag_error(c->diag, a->name.loc, "%s is given '%s' twice", s->name, a->name.s);
    } else if (a->name.s) {
        Nearest n = near(a->name.s);
        for (int i = 0; i < s->n; i++)
            nearest_try(&n, s->param[i]);
        diag_error(c->diag, a->name.loc, "%s has no parameter '%s'%s", s->name, a->name.s, near_text(c->arena, &n));
    } else {
        diag_error(c->diag, a->value->loc, "%s takes %s%d argument%s, this is one more", s->name,
                   s->required < s->n ? "at most " : "", s->n, s->n == 1 ? "" : "s");
    }
    if (defined.file)
        diag_note(c->diag, defined, "'%s' is defined here", s->name);
}

static void check_signature(Checker *c, const Signature *s, const Name *name, const ArgList *args, SrcLoc defined) {
    int slot[MAX_SLOTS], wrong;
    if (!bind_args(s, args, slot, &wrong))
        wrong_args(c, s, name, args, wrong, defined);
}

static void check_target(Checker *c, SrcLoc at) {
    if (!c->p->model->target.s)
        diag_error(c->diag, at, "this model has no target: say `uses target: NAME` in its head");
}

static void check_target_call(Checker *c, const Expr *e, const Name *name) {
    check_target(c, e->u.call.fn->loc);
    const Builtin *b = builtin_find(name->s);
    if (b && strchr(b->flags, 'T')) {
        Signature s = signature_of_builtin(b);
        check_signature(c, &s, name, &e->u.call.args, NO_LOC);
        return;
    }
    Nearest n = near(name->s);
    for (int i = 0; builtin_at(i); i++)
        if (strchr(builtin_at(i)->flags, 'T'))
            nearest_try(&n, builtin_at(i)->name);
    diag_error(c->diag, name->loc, "a target has no '%s'%s", name->s, near_text(c->arena, &n));
}

static void check_call(Checker *c, const Expr *e) {
    Name storage;
    bool target;
    const Name *name = call_name(e, &target, &storage);
    for (int i = 0; i < e->u.call.args.n; i++)
        check_expr(c, e->u.call.args.v[i].value);
    if (!name) {
        diag_error(c->diag, e->u.call.fn->loc, "only functions can be called");
        return;
    }
    if (target) {
        check_target_call(c, e, name);
        return;
    }
    const FnDecl *f = program_fn(c->p, name->s);
    const VariantDecl *v = program_variant(c->p, name->s);
    const Builtin *b = builtin_find(name->s);
    CheckName *local = f || v || b ? NULL : check_find(c, name->s);
    if (local)
        local->used = true;
    if (!f && !v && !b) {
        if (local || program_param(c->p, name->s) >= 0)
            diag_error(c->diag, name->loc, "'%s' is not a function", name->s);
        else
            unknown_function(c, name);
        return;
    }
    if (!f && !v && strchr(b->flags, 'O')) {
        diag_error(c->diag, name->loc, "only a target can be asked for '%s': target.%s(..)", name->s, name->s);
        return;
    }
    Signature s = f ? signature_of_fn(f) : v ? signature_of_variant(v) : signature_of_builtin(b);
    check_signature(c, &s, name, &e->u.call.args, f ? f->name.loc : v ? v->name.loc : NO_LOC);
}

/* cache kv[i], cache target.kv[i]: the indices are expressions, the names are free. */
static void check_cache(Checker *c, const Expr *e) {
    while (e->kind == EX_INDEX) {
        check_expr(c, e->u.index.index);
        e = e->u.index.base;
    }
    if (e->kind == EX_NAME)
        return;
    if (e->kind == EX_FIELD && e->u.field.base->kind == EX_NAME && strcmp(e->u.field.base->u.name, "target") == 0)
        check_target(c, e->u.field.base->loc);
    else
        diag_error(c->diag, e->loc, "a cache is named like kv[i] or target.kv[i]");
}

/* ==== Expressions ==== */

static bool ends_in_value(const Expr *e) {
    return e->kind != EX_COND || e->u.cond.no;
}

void check_value(Checker *c, const Expr *e) {
    check_expr(c, e);
    if (!ends_in_value(e))
        diag_error(c->diag, e->loc, "this `if` is used as a value: it needs an `else`");
}

void check_expr(Checker *c, const Expr *e) {
    CheckScope scope;
    if (diag_full(c->diag))
        return;
    switch (e->kind) {
    case EX_INT:
    case EX_FLOAT:
    case EX_BOOL:
    case EX_NONE: break;
    case EX_STRING:
        for (int i = 0; i < e->u.parts.n; i++)
            if (e->u.parts.v[i].expr)
                check_value(c, e->u.parts.v[i].expr);
        break;
    case EX_NAME: check_name(c, e); break;
    case EX_FIELD:
        if (e->u.field.base->kind != EX_NAME || strcmp(e->u.field.base->u.name, "target") != 0)
            check_expr(c, e->u.field.base);
        diag_error(c->diag, e->loc, "'.%s' means nothing here: only target.weight(..) and its like have a dot",
                   e->u.field.name.s);
        break;
    case EX_INDEX:
        check_value(c, e->u.index.base);
        check_value(c, e->u.index.index);
        break;
    case EX_CALL: check_call(c, e); break;
    case EX_UNARY: check_value(c, e->u.op.x); break;
    case EX_BINARY:
        check_value(c, e->u.op.x);
        check_value(c, e->u.op.y);
        break;
    case EX_COND:
        check_value(c, e->u.cond.test);
        check_expr(c, e->u.cond.yes);
        if (e->u.cond.no)
            check_expr(c, e->u.cond.no);
        break;
    case EX_ARRAY:
        for (int i = 0; i < e->u.items.n; i++)
            check_value(c, e->u.items.v[i]);
        break;
    case EX_BLOCK:
        check_open(c, &scope);
        check_block(c, &e->u.block);
        check_close(c);
        break;
    case EX_CACHE: check_cache(c, e->u.cache); break;
    }
}

/* ==== Statements ==== */

static void check_assign(Checker *c, const Stmt *s) {
    CheckName *n = check_find(c, s->name.s);
    if (n && n->kind == NAME_VAR)
        return;
    if (n) {
        diag_error(c->diag, s->name.loc, "'%s' cannot be assigned to: only a `var` can", s->name.s);
        diag_note(c->diag, n->name.loc, "'%s' is defined here", s->name.s);
    } else if (program_param(c->p, s->name.s) >= 0) {
        diag_error(c->diag, s->name.loc, "'%s' is a parameter of the model: it cannot be assigned to", s->name.s);
    } else {
        Nearest near_var = near(s->name.s);
        for (const CheckScope *up = c->scope; up; up = up->up)
            for (int i = 0; i < up->names.n; i++)
                if (up->names.v[i].kind == NAME_VAR)
                    nearest_try(&near_var, up->names.v[i].name.s);
        diag_error(c->diag, s->name.loc, "no variable '%s' to assign to%s", s->name.s, near_text(c->arena, &near_var));
    }
}

static void check_stmt(Checker *c, const Stmt *s) {
    CheckScope scope;
    switch (s->kind) {
    case ST_LET:
    case ST_VAR:
        check_value(c, s->value);
        check_declare(c, s->name, s->kind == ST_LET ? NAME_LET : NAME_VAR);
        break;
    case ST_ASSIGN:
        check_value(c, s->value);
        check_assign(c, s);
        break;
    case ST_FOR:
        check_value(c, s->from);
        check_value(c, s->to);
        check_open(c, &scope);
        check_declare(c, s->name, NAME_PARAM);
        check_block(c, &s->body);
        check_close(c);
        break;
    case ST_TAP:
    case ST_EMIT:
        if (s->index)
            check_value(c, s->index);
        check_value(c, s->value);
        break;
    case ST_EXPR: check_expr(c, s->value); break;
    }
}

void check_block(Checker *c, const StmtList *block) {
    for (int i = 0; i < block->n; i++)
        check_stmt(c, block->v[i]);
}
