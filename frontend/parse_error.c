/* parse_error.c - words the message for a token that does not fit.
 *
 * Bison names every token that would have fitted, often forty. We say what a person would: "an
 * expression", "a statement", or the few tokens left once operators that could also continue are
 * dropped; then after what, and what stood there instead. A bracket that is still open on another
 * line gets a note. Some mistakes have a message of their own (find_cause).
 */
#include "frontend/parse_int.h"
#include "parser.gen.h"

#include <ctype.h>
#include <string.h>

typedef struct Expected {
    const char *const *names;
    int n;
} Expected;

static bool expects(Expected x, const char *name) {
    for (int i = 0; i < x.n; i++)
        if (strcmp(x.names[i], name) == 0)
            return true;
    return false;
}

static bool one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

/* ==== Words ==== */

enum { SHOWN = 40 }; /* bytes of a token that are shown */

/* 'text' of a token, or what it is. */
static const char *describe(Parser *p, const Token *t) {
    switch (t->kind) {
    case TK_END: return "the end of the text";
    case TK_STRING_BEGIN: return "a string";
    case TK_STRING_END: return "the string";
    case TK_SEMI:
        if (!t->len)
            return "the end of the line";
        break;
    default: break;
    }
    int n = t->len > SHOWN ? SHOWN : (int)t->len;
    return arena_printf(p->arena, "'%.*s%s'", n, p->text + t->off, t->len > SHOWN ? ".." : "");
}

static const char *const operators[] = {
    "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "?", ".", "(", "[", NULL};
static const char *const expression_starts[] = {"a name",   "a number", "a decimal number",
                                                "a string", "model",    "from",
                                                "uses",     "target",   "sparse",
                                                "if",       "cache",    "not",
                                                "true",     "false",    "none",
                                                "(",        "[",        "{",
                                                "-",        NULL};
#define END_OF_STATEMENT "the end of the statement"
static const char *const statement_starts[] = {"let", "var", "for", "tap", "emit", END_OF_STATEMENT, NULL};
static const char *const soft_words[] = {"model", "from", "uses", "target", "sparse", NULL};

/* What a whole class of tokens is called; "" for a token that is left unsaid; NULL: it stands for itself. */
static const char *whole_class(const Parser *p, Expected x, const char *name) {
    bool statement = expects(x, "let");
    bool expression = expects(x, "a number");
    bool operand_done = expects(x, "*") && !expression;
    if (expression && (one_of(name, expression_starts) || (statement && one_of(name, statement_starts))))
        return statement ? "a statement" : "an expression";
    if (operand_done && (one_of(name, operators) || (expects(x, ")") && strcmp(name, "=") == 0)))
        return "";
    if (expects(x, "a name") && one_of(name, soft_words))
        return "";
    if (!expects(x, END_OF_STATEMENT))
        return NULL;
    bool at_start = p->in_stmt <= 1; /* where an empty statement would fit, which nobody means */
    return one_of(name,
                  at_start ? (const char *const[]){END_OF_STATEMENT, NULL} : (const char *const[]){"}", "else", NULL})
               ? ""
               : NULL;
}

enum { MAX_PHRASES = 12 };

/* "an expression or ')'"; a comma comes first. */
static const char *list_expected(Parser *p, Expected x) {
    const char *phrases[MAX_PHRASES + 1] = {NULL};
    int n = 0;
    if (expects(x, ","))
        phrases[n++] = "','";
    for (int i = 0; i < x.n && n < MAX_PHRASES; i++) {
        const char *phrase = whole_class(p, x, x.names[i]);
        if (!phrase)
            phrase = strchr(x.names[i], ' ') ? x.names[i] : arena_printf(p->arena, "'%s'", x.names[i]);
        phrases[n] = NULL;
        if (*phrase && !one_of(phrase, phrases))
            phrases[n++] = phrase;
    }
    const char *out = n ? phrases[0] : "something else";
    for (int i = 1; i < n; i++)
        out = arena_printf(p->arena, "%s%s%s", out, i + 1 < n ? ", " : " or ", phrases[i]);
    return out;
}

/* " after the arguments", " after '+'", or nothing at the start of a statement. */
static const char *after_what(Parser *p, Expected x) {
    const Bracket *in = fe_innermost(p);
    bool closing = expects(x, ")") || expects(x, "]");
    bool operand_done = expects(x, "*") && !expects(x, "a number");
    if (closing && operand_done && in && in->kind == TK_LPAREN)
        return in->call ? " after the arguments" : " after the expression";
    if (closing && operand_done && in && in->kind == TK_LBRACKET)
        return in->call ? " after the index" : " after the elements";
    if (p->prev.kind == TK_END || (p->prev.kind == TK_SEMI && !p->prev.len))
        return "";
    return arena_printf(p->arena, " after %s", describe(p, &p->prev));
}

/* ==== Mistakes with a message of their own ==== */

static Str token_text(const Parser *p, const Token *t) {
    return (Str){p->text + t->off, t->len};
}

/* A name where only keywords fit, or one that begins a statement which then makes no sense. */
static bool unknown_keyword(Parser *p, Expected x) {
    static const char *const keywords[] = {"let", "var", "for", "tap", "emit", "if", NULL};
    bool at_start = p->in_stmt == 2 && p->prev.kind == TK_NAME && p->cur.kind == TK_NAME;
    bool keywords_only = p->cur.kind == TK_NAME && !expects(x, "a name") && !expects(x, "*");
    if (!at_start && !keywords_only)
        return false;
    const Token *t = keywords_only ? &p->cur : &p->prev;
    Nearest near = nearest_new(token_text(p, t));
    for (int i = 0; keywords_only && i < x.n; i++)
        if (islower((unsigned char)x.names[i][0]) && !strchr(x.names[i], ' '))
            nearest_try(&near, x.names[i]);
    for (int i = 0; !keywords_only && keywords[i]; i++)
        nearest_try(&near, keywords[i]);
    const char *best = nearest_best(&near);
    if (best)
        diag_error(p->diag, t->loc, "unknown keyword %s; did you mean '%s'?", describe(p, t), best);
    return best != NULL;
}

/* Does the token begin an item, on a line of its own, inside a block? */
static bool in_unclosed_block(const Parser *p) {
    const Bracket *in = fe_innermost(p);
    return p->cur.newlines && fe_begins_item(p->cur.kind) && fe_open_braces(p) > 1 && in->kind == TK_LBRACE;
}

static bool item_in_block(Parser *p) {
    if (!in_unclosed_block(p))
        return false;
    diag_error(p->diag, p->cur.loc, "expected '}' before %s", describe(p, &p->cur));
    return true;
}

static bool single_equals(Parser *p, Expected x) {
    const Bracket *in = fe_innermost(p);
    if (p->cur.kind != TK_ASSIGN || !expects(x, "==") || (in && in->kind == TK_LBRACKET))
        return false;
    bool assigned = expects(x, END_OF_STATEMENT);
    diag_error(p->diag, p->cur.loc, "unexpected '='; %s'is equal' is written '=='",
               assigned ? "only a name can be assigned, and " : "");
    return true;
}

/* `let x = 1 +` and nothing more: better said of this line than of the next. */
static bool line_ends_early(Parser *p, Expected x) {
    const Bracket *in = fe_innermost(p);
    bool next_statement = fe_begins_item(p->cur.kind) || fe_begins_stmt(p->cur.kind) || p->cur.kind == TK_RBRACE;
    if (!p->cur.newlines || !next_statement || expects(x, "*") || (in && in->kind != TK_LBRACE) || p->in_stmt <= 1)
        return false;
    SrcLoc at = p->prev.loc;
    at.col = at.end++;
    diag_error(p->diag, at, "expected %s%s, found the end of the line", list_expected(p, x), after_what(p, x));
    return true;
}

static bool missing_close_at_end(Parser *p) {
    const Bracket *in = fe_innermost(p);
    if (p->cur.kind != TK_END || !in || in->kind != TK_LBRACE)
        return false;
    diag_error(p->diag, p->cur.loc, "expected '}' before the end of the text");
    return true;
}

static bool after_model(Parser *p, Expected x) {
    if (!p->model_end.file || !expects(x, "the end of the text"))
        return false;
    diag_error(p->diag, p->cur.loc, "unexpected %s after the end of the model", describe(p, &p->cur));
    diag_note(p->diag, p->model_end, "the model ends here");
    return true;
}

static bool find_cause(Parser *p, Expected x) {
    return missing_close_at_end(p) || after_model(p, x) || item_in_block(p) || single_equals(p, x) ||
           unknown_keyword(p, x) || line_ends_early(p, x);
}

/* ==== Reporting ==== */

/* The bracket that the token should have closed, when that is not plain to see. */
static void note_unclosed(Parser *p, const Bracket *open) {
    static const struct {
        int kind;
        const char *text;
    } texts[] = {{TK_LPAREN, "("}, {TK_LBRACKET, "["}, {TK_LBRACE, "{"}, {TK_INTERP, "{"}};
    if (open->loc.line == p->cur.loc.line && p->cur.kind != TK_END)
        return;
    for (size_t i = 0; i < COUNTOF(texts); i++)
        if (texts[i].kind == open->kind)
            diag_note(p->diag, open->loc, "this '%s' is not closed", texts[i].text);
}

static bool wants_close(const Parser *p, Expected x, const Bracket *open) {
    if (open->kind == TK_LBRACE)
        return p->cur.kind == TK_END || in_unclosed_block(p);
    return expects(x, open->kind == TK_LPAREN ? ")" : open->kind == TK_LBRACKET ? "]" : "'}' in the string");
}

void fe_syntax_error(Parser *p, const char *const *expected, int n) {
    Expected x = {expected, n};
    if (p->stopped || p->quiet)
        return;
    if (!find_cause(p, x))
        diag_error(p->diag, p->cur.loc, "expected %s%s, found %s", list_expected(p, x), after_what(p, x),
                   describe(p, &p->cur));
    const Bracket *open = fe_innermost(p);
    if (open && wants_close(p, x, open))
        note_unclosed(p, open);
    fe_begin_recovery(p);
}

void fe_too_deep(Parser *p, SrcLoc at) {
    if (!p->stopped)
        diag_error(p->diag, at, "brackets and expressions are nested more than %d deep", AST_MAX_DEPTH);
    p->stopped = true;
}

/* Bison's own message: its stack is full. */
void fe_yyerror(const SrcLoc *loc, Parser *p, const char *msg) {
    (void)msg;
    fe_too_deep(p, *loc);
}
