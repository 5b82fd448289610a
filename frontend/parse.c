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

/* `from FORMAT "A" or "B"`, behind the word from; *t is then what follows. */
static bool read_archs(Arena *arena, Lexer *l, Token *t, FeHead *out) {
    if (!read_name(l, t))
        return false;
    do {
        const char *arch = read_string(arena, l);
        if (!arch)
            return false;
        vec_push(arena, &out->archs, arch);
        fe_lex(l, t);
    } while (t->kind == TK_OR);
    return true;
}

static bool read_head(Arena *arena, Lexer *l, FeHead *out) {
    Token t;
    Token name;
    if (!read_kind(l, &t, TK_MODEL) || !read_name(l, &name))
        return false;
    out->name = name.val.name.s;
    fe_lex(l, &t);
    if (t.kind == TK_FROM && !read_archs(arena, l, &t, out))
        return false;
    if (t.kind == TK_USES && read_kind(l, &t, TK_TARGET) && read_kind(l, &t, TK_COLON) && read_name(l, &t))
        out->target = t.val.name.s;
    return true;
}

/* Behind the head. The word is a keyword, so it stands nowhere else. */
static void read_drafts(Lexer *l, FeHead *out) {
    Token t;
    do
        fe_lex(l, &t);
    while (t.kind != TK_END && t.kind != TK_DRAFTS);
    if (t.kind == TK_DRAFTS && read_name(l, &t))
        out->drafts = t.val.name.s;
}

bool fe_head(Arena *arena, const char *text, size_t len, FeHead *out) {
    *out = (FeHead){0};
    if (len > MAX_TEXT)
        return false;
    Lexer *l = fe_lexer_new(arena, 0, text, len, false);
    const bool found = read_head(arena, l, out);
    if (found && out->target)
        read_drafts(l, out);
    fe_lexer_free(l);
    return found;
}

static bool same_arch(const char *a, const char *b) {
    for (;; a++, b++) {
        char x = *a == '_' ? '-' : *a, y = *b == '_' ? '-' : *b;
        x = x >= 'A' && x <= 'Z' ? (char)(x + 32) : x;
        y = y >= 'A' && y <= 'Z' ? (char)(y + 32) : y;
        if (x != y || !x)
            return x == y;
    }
}

bool fe_archs_have(const ArchList *archs, const char *arch) {
    for (int i = 0; i < archs->n; i++)
        if (same_arch(archs->v[i], arch))
            return true;
    return false;
}
