/* ast_dump.c - one line an item, statement or part; expressions as (head operand ..). */
#include "tests/frontend/ast_dump.h"

static void dump_expr(Buf *b, const Expr *e, int indent);

static void dump_indent(Buf *b, int indent) {
    for (int i = 0; i < indent; i++)
        buf_str(b, "  ");
}

static void dump_text(Buf *b, Str s) {
    buf_char(b, '"');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.s[i];
        if (c < 0x20 || c == '"' || c == '\\')
            buf_printf(b, "\\x%02x", c);
        else
            buf_char(b, (char)c);
    }
    buf_char(b, '"');
}

static void dump_names(Buf *b, const Name *names, int n) {
    buf_char(b, '(');
    for (int i = 0; i < n; i++)
        buf_printf(b, "%s%s", i ? " " : "", names[i].s);
    buf_char(b, ')');
}

static void dump_args(Buf *b, const ArgList *args, int indent) {
    for (int i = 0; i < args->n; i++) {
        buf_char(b, ' ');
        if (args->v[i].name.s)
            buf_printf(b, "%s=", args->v[i].name.s);
        dump_expr(b, args->v[i].value, indent);
    }
}

static void dump_exprs(Buf *b, const ExprList *list, int indent) {
    for (int i = 0; i < list->n; i++) {
        buf_char(b, ' ');
        dump_expr(b, list->v[i], indent);
    }
}

static void dump_stmts(Buf *b, const StmtList *list, int indent);

static void dump_stmt(Buf *b, const Stmt *s, int indent) {
    static const char *const words[] = {[ST_LET] = "let", [ST_VAR] = "var",   [ST_ASSIGN] = "set", [ST_FOR] = "for",
                                        [ST_TAP] = "tap", [ST_EMIT] = "emit", [ST_EXPR] = "do"};
    dump_indent(b, indent);
    buf_str(b, words[s->kind]);
    if (s->name.s)
        buf_printf(b, " %s", s->name.s);
    const Expr *parts[] = {s->index, s->from, s->to, s->value};
    for (size_t i = 0; i < COUNTOF(parts); i++) {
        if (parts[i]) {
            buf_str(b, i == 0 ? " [] " : " ");
            dump_expr(b, parts[i], indent);
        }
    }
    buf_char(b, '\n');
    dump_stmts(b, &s->body, indent + 1);
}

static void dump_stmts(Buf *b, const StmtList *list, int indent) {
    for (int i = 0; i < list->n; i++)
        dump_stmt(b, list->v[i], indent);
}

static void dump_string(Buf *b, const StrPartList *parts, int indent) {
    buf_str(b, "(str");
    for (int i = 0; i < parts->n; i++) {
        buf_char(b, ' ');
        if (parts->v[i].expr)
            dump_expr(b, parts->v[i].expr, indent);
        else
            dump_text(b, parts->v[i].text);
    }
    buf_char(b, ')');
}

static void dump_cond(Buf *b, const Expr *e, int indent) {
    buf_str(b, "(if ");
    dump_expr(b, e->u.cond.test, indent);
    buf_char(b, ' ');
    dump_expr(b, e->u.cond.yes, indent);
    if (e->u.cond.no) {
        buf_char(b, ' ');
        dump_expr(b, e->u.cond.no, indent);
    }
    buf_char(b, ')');
}

static void dump_block(Buf *b, const Expr *e, int indent) {
    buf_str(b, "{\n");
    dump_stmts(b, &e->u.block, indent + 1);
    dump_indent(b, indent);
    buf_char(b, '}');
}

static void dump_number(Buf *b, double f) {
    char text[32];
    format_f64(text, f);
    buf_printf(b, "%sf", text);
}

static void dump_expr(Buf *b, const Expr *e, int indent) {
    switch (e->kind) {
    case EX_INT: buf_printf(b, "%lld", (long long)e->u.i); return;
    case EX_FLOAT: dump_number(b, e->u.f); return;
    case EX_BOOL: buf_str(b, e->u.b ? "true" : "false"); return;
    case EX_NONE: buf_str(b, "none"); return;
    case EX_STRING: dump_string(b, &e->u.parts, indent); return;
    case EX_NAME: buf_str(b, e->u.name); return;
    case EX_FIELD:
        dump_expr(b, e->u.field.base, indent);
        buf_printf(b, ".%s", e->u.field.name.s);
        return;
    case EX_INDEX:
        buf_str(b, "(at ");
        dump_expr(b, e->u.index.base, indent);
        buf_char(b, ' ');
        dump_expr(b, e->u.index.index, indent);
        break;
    case EX_CALL:
        buf_str(b, "(call ");
        dump_expr(b, e->u.call.fn, indent);
        dump_args(b, &e->u.call.args, indent);
        break;
    case EX_UNARY:
    case EX_BINARY:
        buf_printf(b, "(%s ", ast_op_text(e->u.op.op));
        dump_expr(b, e->u.op.x, indent);
        if (e->u.op.y) {
            buf_char(b, ' ');
            dump_expr(b, e->u.op.y, indent);
        }
        break;
    case EX_COND: dump_cond(b, e, indent); return;
    case EX_ARRAY:
        buf_str(b, "(array");
        dump_exprs(b, &e->u.items, indent);
        break;
    case EX_BLOCK: dump_block(b, e, indent); return;
    case EX_CACHE:
        buf_str(b, "(cache ");
        dump_expr(b, e->u.cache, indent);
        break;
    }
    buf_char(b, ')');
}

static void dump_variant(Buf *b, const VariantDecl *v) {
    buf_printf(b, "variant %s ", v->name.s);
    dump_names(b, v->params.v, v->params.n);
    buf_char(b, '\n');
#define PART(part)                                                                                                     \
    if (v->part.body) {                                                                                                \
        buf_str(b, "  " #part " ");                                                                                    \
        dump_names(b, v->part.params.v, v->part.params.n);                                                             \
        buf_char(b, ' ');                                                                                              \
        dump_expr(b, v->part.body, 1);                                                                                 \
        buf_char(b, '\n');                                                                                             \
    }
    PART(visible)
    PART(score)
    PART(sink)
#undef PART
    if (v->sparse.s) {
        buf_printf(b, "  sparse %s", v->sparse.s);
        dump_args(b, &v->sparse_args, 1);
        buf_char(b, '\n');
    }
}

static void dump_entry(Buf *b, const EntryDecl *e) {
    buf_printf(b, "entry %s", e->name.s);
    for (int i = 0; i < e->params.n; i++) {
        buf_printf(b, " %s:%s", e->params.v[i].name.s, e->params.v[i].type.s);
        dump_exprs(b, &e->params.v[i].dims, 0);
    }
    buf_char(b, '\n');
    dump_stmts(b, &e->body, 1);
}

static void dump_param(Buf *b, const ParamDecl *p) {
    static const char *const types[] = {
        [AT_INT] = "int", [AT_FLOAT] = "float", [AT_BOOL] = "bool", [AT_STRING] = "string"};
    buf_printf(b, "param %s %s ", p->name.s, types[p->type]);
    if (p->length) {
        buf_str(b, "[] ");
        dump_expr(b, p->length, 0);
        buf_char(b, ' ');
    }
    dump_expr(b, p->value, 0);
    buf_char(b, '\n');
}

static void dump_chat(Buf *b, const ModelDecl *m) {
    if (m->chat_loc.file)
        buf_str(b, "chat\n");
    for (int i = 0; i < m->chat.n; i++) {
        const ChatField *f = &m->chat.v[i];
        buf_printf(b, "  %s", f->name.s);
        if (f->param.s)
            buf_printf(b, " (%s)", f->param.s);
        if (f->in.s)
            buf_printf(b, " in %s", f->in.s);
        buf_char(b, ' ');
        dump_expr(b, f->value, 1);
        buf_char(b, '\n');
    }
}

void ast_dump(Buf *b, const ModelDecl *m) {
    buf_printf(b, "model %s", m->name.s);
    if (m->format.s)
        buf_printf(b, " from %s", m->format.s);
    for (int i = 0; i < m->archs.n; i++)
        buf_printf(b, "%s\"%s\"", i ? " or " : " ", m->archs.v[i]);
    if (m->target.s)
        buf_printf(b, " uses %s", m->target.s);
    buf_char(b, '\n');
    for (int i = 0; i < m->params.n; i++)
        dump_param(b, &m->params.v[i]);
    for (int i = 0; i < m->variants.n; i++)
        dump_variant(b, &m->variants.v[i]);
    for (int i = 0; i < m->fns.n; i++) {
        buf_printf(b, "fn %s ", m->fns.v[i].name.s);
        dump_names(b, m->fns.v[i].params.v, m->fns.v[i].params.n);
        buf_char(b, ' ');
        dump_expr(b, m->fns.v[i].body, 0);
        buf_char(b, '\n');
    }
    for (int i = 0; i < m->entries.n; i++)
        dump_entry(b, &m->entries.v[i]);
    dump_chat(b, m);
}
