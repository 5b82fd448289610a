/* build.c - makes the tree of ast.h: one function for each kind of node, called by parser.y.
 *
 * Checks only what the grammar cannot say well: chained comparisons, what can be called, the parts
 * of a variant, names of types. The height of the tree is bounded here (AST_MAX_DEPTH), since left
 * recursion, `a + a + a ..`, builds high trees without a bracket.
 */
#include "frontend/parse_int.h"

#include <string.h>

SrcLoc fe_span(SrcLoc first, SrcLoc last) {
    if (last.line == first.line && last.end > first.end)
        first.end = last.end;
    return first;
}

static const char *const op_texts[] = {
    [AO_ADD] = "+", [AO_SUB] = "-",   [AO_MUL] = "*", [AO_DIV] = "/",   [AO_MOD] = "%",
    [AO_EQ] = "==", [AO_NE] = "!=",   [AO_LT] = "<",  [AO_LE] = "<=",   [AO_GT] = ">",
    [AO_GE] = ">=", [AO_AND] = "and", [AO_OR] = "or", [AO_NOT] = "not", [AO_NEG] = "-"};

const char *ast_op_text(AstOp op) {
    return op_texts[op];
}

/* ==== Lists ==== */

#define PUSHED(p, list, item)                                                                                          \
    do {                                                                                                               \
        vec_push((p)->arena, &(list), (item));                                                                         \
        return (list);                                                                                                 \
    } while (0)

/* Lists of one element type are different structs to C. */
#define MOVE_LIST(to, from) ((to).v = (from).v, (to).n = (from).n, (to).cap = (from).cap)

NameList fe_names(Parser *p, NameList list, Name name) {
    PUSHED(p, list, name);
}

ExprList fe_exprs(Parser *p, ExprList list, Expr *e) {
    PUSHED(p, list, e);
}

ArgList fe_args(Parser *p, ArgList list, Arg arg) {
    if (!arg.name.s && list.n && list.v[list.n - 1].name.s)
        diag_error(p->diag, arg.value->loc, "an argument without a name after '%s = ..'", list.v[list.n - 1].name.s);
    PUSHED(p, list, arg);
}

EntryParamList fe_entry_params(Parser *p, EntryParamList list, EntryParam param) {
    PUSHED(p, list, param);
}

StmtList fe_stmts(Parser *p, StmtList list, Stmt *s) {
    if (!s)
        return list;
    PUSHED(p, list, s);
}

StrPartList fe_parts(Parser *p, StrPartList list, Str text, Expr *e) {
    StrPart part = {text, e};
    PUSHED(p, list, part);
}

/* ==== Height ==== */

static int max_int(int a, int b) {
    return a > b ? a : b;
}

static int height(const Expr *e) {
    return e ? e->depth : 0;
}

static int height_of_args(const ArgList *args) {
    int h = 0;
    for (int i = 0; i < args->n; i++)
        h = max_int(h, args->v[i].value->depth);
    return h;
}

static int height_of_exprs(const ExprList *list) {
    int h = 0;
    for (int i = 0; i < list->n; i++)
        h = max_int(h, list->v[i]->depth);
    return h;
}

static int height_of_parts(const StrPartList *list) {
    int h = 0;
    for (int i = 0; i < list->n; i++)
        h = max_int(h, height(list->v[i].expr));
    return h;
}

static int height_of_stmts(const StmtList *list) {
    int h = 0;
    for (int i = 0; i < list->n; i++)
        h = max_int(h, list->v[i]->depth);
    return h;
}

/* ==== Expressions ==== */

/* An expression over parts of height `below`; a `none` in its place when that is too high. */
static Expr *new_expr(Parser *p, ExprKind kind, SrcLoc loc, int below) {
    if (below >= AST_MAX_DEPTH) {
        fe_too_deep(p, loc);
        kind = EX_NONE;
        below = 0;
    }
    Expr *e = arena_alloc(p->arena, sizeof *e);
    e->kind = kind;
    e->loc = loc;
    e->depth = below + 1;
    return e;
}

Expr *fe_int(Parser *p, SrcLoc loc, int64_t i) {
    Expr *e = new_expr(p, EX_INT, loc, 0);
    e->u.i = i;
    return e;
}

Expr *fe_float(Parser *p, SrcLoc loc, double f) {
    Expr *e = new_expr(p, EX_FLOAT, loc, 0);
    e->u.f = f;
    return e;
}

Expr *fe_bool(Parser *p, SrcLoc loc, bool b) {
    Expr *e = new_expr(p, EX_BOOL, loc, 0);
    e->u.b = b;
    return e;
}

Expr *fe_none(Parser *p, SrcLoc loc) {
    return new_expr(p, EX_NONE, loc, 0);
}

/* The text of parts [first, last) in one piece. */
static Str join_texts(Arena *a, const StrPart *first, const StrPart *last) {
    size_t n = 0;
    for (const StrPart *s = first; s < last; s++)
        n += s->text.n;
    char *out = arena_alloc(a, n + 1);
    size_t at = 0;
    for (const StrPart *s = first; s < last; s++) {
        memcpy(out + at, s->text.s, s->text.n);
        at += s->text.n;
    }
    return (Str){out, n};
}

/* Pieces that follow each other become one; an empty string is one empty piece. */
Expr *fe_string(Parser *p, SrcLoc loc, StrPartList parts) {
    Expr *e = new_expr(p, EX_STRING, loc, height_of_parts(&parts));
    StrPartList out = {0};
    for (int i = 0; i < parts.n;) {
        int from = i;
        while (i < parts.n && !parts.v[i].expr)
            i++;
        StrPart part = i > from ? (StrPart){join_texts(p->arena, &parts.v[from], &parts.v[i]), NULL} : parts.v[i++];
        vec_push(p->arena, &out, part);
    }
    StrPart empty = {{"", 0}, NULL};
    if (!out.n)
        vec_push(p->arena, &out, empty);
    e->u.parts = out;
    return e;
}

Expr *fe_name(Parser *p, Name name) {
    Expr *e = new_expr(p, EX_NAME, name.loc, 0);
    e->u.name = name.s;
    return e;
}

Expr *fe_field(Parser *p, SrcLoc loc, Expr *base, Name name) {
    Expr *e = new_expr(p, EX_FIELD, loc, base->depth);
    e->u.field.base = base;
    e->u.field.name = name;
    return e;
}

Expr *fe_index(Parser *p, SrcLoc loc, Expr *base, Expr *index) {
    Expr *e = new_expr(p, EX_INDEX, loc, max_int(base->depth, index->depth));
    e->u.index.base = base;
    e->u.index.index = index;
    return e;
}

Expr *fe_call(Parser *p, Expr *fn, ArgList args) {
    if (fn->kind != EX_NAME && fn->kind != EX_FIELD)
        diag_error(p->diag, fn->loc, "only a function can be called, by its name");
    Expr *e = new_expr(p, EX_CALL, fn->loc, max_int(fn->depth, height_of_args(&args)));
    e->u.call.fn = fn;
    e->u.call.args = args;
    return e;
}

Expr *fe_op(Parser *p, SrcLoc loc, AstOp op, Expr *x, Expr *y) {
    Expr *e = new_expr(p, y ? EX_BINARY : EX_UNARY, loc, max_int(x->depth, height(y)));
    e->u.op.op = op;
    e->u.op.x = x;
    e->u.op.y = y;
    return e;
}

/* a < b < c: x is `a < b`. */
Expr *fe_chained(Parser *p, SrcLoc loc, SrcLoc op_at, AstOp op, Expr *x, Expr *y) {
    const char *first = x->kind == EX_BINARY ? ast_op_text(x->u.op.op) : "<";
    diag_error(p->diag, op_at, "comparisons cannot be chained; write 'a %s b and b %s c'", first, ast_op_text(op));
    return fe_op(p, loc, op, x, y);
}

Expr *fe_cond(Parser *p, SrcLoc loc, Expr *test, Expr *yes, Expr *no) {
    Expr *e = new_expr(p, EX_COND, loc, max_int(test->depth, max_int(yes->depth, height(no))));
    e->u.cond.test = test;
    e->u.cond.yes = yes;
    e->u.cond.no = no;
    return e;
}

Expr *fe_array(Parser *p, SrcLoc loc, ExprList items) {
    Expr *e = new_expr(p, EX_ARRAY, loc, height_of_exprs(&items));
    e->u.items = items;
    return e;
}

Expr *fe_block(Parser *p, SrcLoc loc, StmtList body) {
    Expr *e = new_expr(p, EX_BLOCK, loc, height_of_stmts(&body));
    e->u.block = body;
    return e;
}

Expr *fe_cache(Parser *p, SrcLoc loc, Expr *what) {
    if (what->kind != EX_NAME && what->kind != EX_INDEX && what->kind != EX_FIELD)
        diag_error(p->diag, what->loc, "'cache' is followed by the name of a cache, as in 'cache kv[i]'");
    Expr *e = new_expr(p, EX_CACHE, loc, what->depth);
    e->u.cache = what;
    return e;
}

/* ==== Statements ==== */

/* NULL when what stands inside is too high. */
static Stmt *new_stmt(Parser *p, StmtKind kind, SrcLoc loc, int below) {
    if (below >= AST_MAX_DEPTH) {
        fe_too_deep(p, loc);
        return NULL;
    }
    Stmt *s = arena_alloc(p->arena, sizeof *s);
    s->kind = kind;
    s->loc = loc;
    s->depth = below + 1;
    return s;
}

Stmt *fe_stmt(Parser *p, StmtKind kind, SrcLoc loc, Name name, Expr *index, Expr *value) {
    Stmt *s = new_stmt(p, kind, loc, max_int(height(index), value->depth));
    if (!s)
        return NULL;
    s->name = name;
    s->index = index;
    s->value = value;
    return s;
}

Stmt *fe_for(Parser *p, SrcLoc loc, Name name, Expr *from, Expr *to, StmtList body) {
    Stmt *s = new_stmt(p, ST_FOR, loc, max_int(max_int(from->depth, to->depth), height_of_stmts(&body)));
    if (!s)
        return NULL;
    s->name = name;
    s->from = from;
    s->to = to;
    s->body = body;
    return s;
}

/* ==== Items ==== */

/* Whose names a text uses. Which of them the file is matters no more once the names are found. */
static bool known_format(const char *s) {
    return strcmp(s, "gguf") == 0 || strcmp(s, "safetensors") == 0;
}

/* One of the architectures of the head. */
static void add_arch(Parser *p, ModelDecl *m, const Expr *arch) {
    const StrPart *part = &arch->u.parts.v[0];
    if (arch->kind != EX_STRING || arch->u.parts.n != 1 || part->expr)
        diag_error(p->diag, arch->loc, "the name of the architecture is written out, without {..}");
    else
        vec_push(p->arena, &m->archs, arena_strndup(p->arena, part->text.s, part->text.n));
}

void fe_model(Parser *p, Name name, Name format, ExprList archs, Name target) {
    if (format.s && !known_format(format.s))
        diag_error(p->diag, format.loc, "unknown format '%s'; a model is from gguf or from safetensors", format.s);
    ModelDecl *m = arena_alloc(p->arena, sizeof *m);
    m->name = name;
    m->format = format;
    m->target = target;
    if (archs.n)
        m->arch_loc = archs.v[0]->loc;
    for (int i = 0; i < archs.n; i++)
        add_arch(p, m, archs.v[i]);
    p->model = m;
}

static bool find_type(Name name, AstType *out) {
    static const struct {
        const char *name;
        AstType type;
    } types[] = {{"int", AT_INT}, {"float", AT_FLOAT}, {"bool", AT_BOOL}, {"string", AT_STRING}};
    for (size_t i = 0; i < COUNTOF(types); i++) {
        if (strcmp(name.s, types[i].name) == 0) {
            *out = types[i].type;
            return true;
        }
    }
    return false;
}

void fe_param(Parser *p, Name name, Name type, Expr *length, Expr *value) {
    ParamDecl d = {name, AT_INT, length, value};
    if (!find_type(type, &d.type))
        diag_error(p->diag, type.loc, "unknown type '%s'; a parameter is int, float, bool or string", type.s);
    vec_push(p->arena, &p->model->params, d);
}

void fe_fn(Parser *p, Name name, NameList params, Expr *body) {
    FnDecl d = {.name = name, .body = body};
    MOVE_LIST(d.params, params);
    vec_push(p->arena, &p->model->fns, d);
}

void fe_entry(Parser *p, Name name, EntryParamList params, StmtList body) {
    EntryDecl d = {.name = name, .body = body};
    MOVE_LIST(d.params, params);
    vec_push(p->arena, &p->model->entries, d);
}

void fe_variant_begin(Parser *p, Name name, NameList params) {
    p->variant = (VariantDecl){.name = name};
    MOVE_LIST(p->variant.params, params);
}

/* visible, score and sink are the same struct without a name; X sets one of them. */
#define SET_PART(part)                                                                                                 \
    do {                                                                                                               \
        if (v->part.body) {                                                                                            \
            diag_error(p->diag, name.loc, "'%s' is given twice", #part);                                               \
            diag_note(p->diag, v->part.loc, "first here");                                                             \
            return;                                                                                                    \
        }                                                                                                              \
        MOVE_LIST(v->part.params, params);                                                                             \
        v->part.body = body;                                                                                           \
        v->part.loc = name.loc;                                                                                        \
        return;                                                                                                        \
    } while (0)

void fe_variant_part(Parser *p, Name name, NameList params, Expr *body) {
    VariantDecl *v = &p->variant;
    if (strcmp(name.s, "visible") == 0)
        SET_PART(visible);
    if (strcmp(name.s, "score") == 0)
        SET_PART(score);
    if (strcmp(name.s, "sink") == 0)
        SET_PART(sink);
    Nearest near = nearest_new((Str){name.s, strlen(name.s)});
    nearest_try(&near, "visible");
    nearest_try(&near, "score");
    nearest_try(&near, "sink");
    const char *best = nearest_best(&near);
    if (best)
        diag_error(p->diag, name.loc, "unknown part '%s' of a variant; did you mean '%s'?", name.s, best);
    else
        diag_error(p->diag, name.loc, "unknown part '%s' of a variant; there are visible, score, sink and sparse",
                   name.s);
}

void fe_variant_sparse(Parser *p, Name method, ArgList args) {
    VariantDecl *v = &p->variant;
    if (v->sparse.s) {
        diag_error(p->diag, method.loc, "'sparse' is given twice");
        diag_note(p->diag, v->sparse.loc, "first here");
        return;
    }
    v->sparse = method;
    v->sparse_args = args;
}

void fe_variant_end(Parser *p) {
    vec_push(p->arena, &p->model->variants, p->variant);
}

void fe_drafts(Parser *p, Name way, ArgList args) {
    if (p->model->drafts.s) {
        diag_error(p->diag, way.loc, "a second 'drafts'; a model has one");
        diag_note(p->diag, p->model->drafts.loc, "first here");
        return;
    }
    p->model->drafts = way;
    p->model->drafts_args = args;
}

void fe_chat_begin(Parser *p, SrcLoc loc) {
    if (p->model->chat_loc.file) {
        diag_error(p->diag, loc, "a second 'chat'; a model has one");
        diag_note(p->diag, p->model->chat_loc, "first here");
        return;
    }
    p->model->chat_loc = loc;
}

void fe_chat_field(Parser *p, Name name, Name param, Name in, Expr *value) {
    ChatField f = {name, param, value, in};
    vec_push(p->arena, &p->model->chat, f);
}
