/* parse.c - the parser's two ways in: a whole text, and its head only. */
#include "frontend/frontend.h"
#include "frontend/parse_int.h"
#include "parser.gen.h"

#include <string.h>

enum { MAX_ARCH = 200 }; /* bytes */

ModelDecl *fe_parse(Arena *arena, Diag *diag, int file, const char *text, size_t len) {
    if (len > MAX_TEXT) {
        diag_error(diag, (SrcLoc){.file = file}, "the text has %zu bytes; the most for a model is %d", len, MAX_TEXT);
        return NULL;
    }
    Parser *p = arena_alloc(arena, sizeof *p);
    p->arena = arena;
    p->diag = diag;
    p->text = text;
    p->lexer = fe_lexer_new(arena, file, text, len, false);
    fe_parser_start(p);
    fe_yyparse(p);
    fe_lexer_free(p->lexer);
    return p->model;
}

/* Reads the next token, which must be a name, or a word that may be one. */
static bool read_name(Lexer *l, Token *t) {
    fe_lex(l, t);
    return t->kind == TK_NAME || t->kind == TK_MODEL || t->kind == TK_FROM || t->kind == TK_USES ||
           t->kind == TK_TARGET || t->kind == TK_SPARSE;
}

static bool read_kind(Lexer *l, Token *t, int kind) {
    fe_lex(l, t);
    return t->kind == kind;
}

/* A string without interpolations, in the arena; NULL: something else stands there. */
static const char *read_string(Arena *arena, Lexer *l) {
    Token t;
    if (!read_kind(l, &t, TK_STRING_BEGIN))
        return NULL;
    const char *s = "";
    for (fe_lex(l, &t); t.kind == TK_TEXT && strlen(s) + t.val.text.n <= MAX_ARCH; fe_lex(l, &t))
        s = arena_printf(arena, "%s%.*s", s, STR_FMT(t.val.text));
    return t.kind == TK_STRING_END ? s : NULL;
}

bool fe_head(Arena *arena, const char *text, size_t len, const char **name, const char **arch) {
    if (len > MAX_TEXT)
        return false;
    Lexer *l = fe_lexer_new(arena, 0, text, len, false);
    Token t;
    Token model;
    const char *string = NULL;
    if (read_kind(l, &t, TK_MODEL) && read_name(l, &model) && read_kind(l, &t, TK_FROM) && read_name(l, &t))
        string = read_string(arena, l);
    if (string) {
        *name = model.val.name.s;
        *arch = string;
    }
    fe_lexer_free(l);
    return string != NULL;
}

const char *fe_target(Arena *arena, const char *text, size_t len) {
    if (len > MAX_TEXT)
        return NULL;
    Lexer *l = fe_lexer_new(arena, 0, text, len, false);
    Token t;
    bool found = read_kind(l, &t, TK_MODEL) && read_name(l, &t);
    fe_lex(l, &t);
    if (found && t.kind == TK_FROM) {
        found = read_name(l, &t) && read_string(arena, l);
        fe_lex(l, &t);
    }
    found = found && t.kind == TK_USES && read_kind(l, &t, TK_TARGET) && read_kind(l, &t, TK_COLON) && read_name(l, &t);
    fe_lexer_free(l);
    return found ? t.val.name.s : NULL;
}
