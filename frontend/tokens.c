/* tokens.c - between flex and bison: newlines become statement ends, brackets are matched, and after
 * an error the next place is found from which the grammar can go on.
 *
 * Newlines as in Go: one ends the statement if the innermost open bracket is '{', the token before
 * it can end a statement and the token after it cannot continue one. So a line may begin with `+`
 * or `else` and belongs to the line before; one that begins with `-`, `(` or `[` is new.
 *
 * Recovery: bison pops to the list of statements (or items) around the mistake and asks for tokens
 * until one fits there. We skip to the next '}' or ';' of that list, or to a line that begins with
 * a keyword of statements, or to any other line once the brackets of the bad one are closed. An
 * item keyword at the start of a line always begins an item: if blocks are open there, their '}'
 * is missing and we make it up. Bison's own way, to skip to the next ';', would lose its bearings
 * inside unclosed brackets, where newlines mean nothing.
 */
#include "frontend/parse_int.h"
#include "parser.gen.h"

/* ==== What tokens are like ==== */

enum {
    CAN_END = 1,   /* a newline after it may end the statement */
    CONTINUES = 2, /* a newline before it does not */
    ITEM = 4,      /* begins an item of the model, and nothing else */
    STMT = 8,      /* begins a statement, and nothing else */
};

static const unsigned char traits[] = {
    [TK_NAME] = CAN_END,
    [TK_INT] = CAN_END,
    [TK_FLOAT] = CAN_END,
    [TK_STRING_END] = CAN_END,
    [TK_MODEL] = CAN_END,
    [TK_FROM] = CAN_END,
    [TK_USES] = CAN_END,
    [TK_TARGET] = CAN_END,
    [TK_SPARSE] = CAN_END,
    [TK_TRUE] = CAN_END,
    [TK_FALSE] = CAN_END,
    [TK_NONE] = CAN_END,
    [TK_RBRACE] = CAN_END,
    [TK_PARAM] = ITEM,
    [TK_VARIANT] = ITEM,
    [TK_FN] = ITEM,
    [TK_ENTRY] = ITEM,
    [TK_DRAFTS] = ITEM,
    [TK_CHAT] = ITEM,
    [TK_LET] = STMT,
    [TK_VAR] = STMT,
    [TK_FOR] = STMT,
    [TK_TAP] = STMT,
    [TK_EMIT] = STMT,
    [TK_RPAREN] = CAN_END | CONTINUES,
    [TK_PLUS] = CONTINUES,
    [TK_STAR] = CONTINUES,
    [TK_SLASH] = CONTINUES,
    [TK_RBRACKET] = CAN_END | CONTINUES,
    [TK_PERCENT] = CONTINUES,
    [TK_EQ] = CONTINUES,
    [TK_NE] = CONTINUES,
    [TK_LT] = CONTINUES,
    [TK_LE] = CONTINUES,
    [TK_GT] = CONTINUES,
    [TK_GE] = CONTINUES,
    [TK_AND] = CONTINUES,
    [TK_OR] = CONTINUES,
    [TK_THEN] = CONTINUES,
    [TK_ELSE] = CONTINUES,
    [TK_QUESTION] = CONTINUES,
    [TK_COLON] = CONTINUES,
    [TK_DOT] = CONTINUES,
    [TK_DOTDOT] = CONTINUES,
    [TK_COMMA] = CONTINUES,
    [TK_ASSIGN] = CONTINUES,
    [TK_IN] = CONTINUES,
    [TK_SEMI] = CONTINUES,
};

static bool has_trait(int kind, int trait) {
    return kind >= 0 && (size_t)kind < sizeof traits && (traits[kind] & trait);
}

bool fe_can_end(int kind) {
    return has_trait(kind, CAN_END);
}

bool fe_continues(int kind) {
    return has_trait(kind, CONTINUES);
}

bool fe_begins_item(int kind) {
    return has_trait(kind, ITEM);
}

bool fe_begins_stmt(int kind) {
    return has_trait(kind, STMT);
}

/* ==== Brackets ==== */

const Bracket *fe_innermost(const Parser *p) {
    return p->n_open ? &p->open[p->n_open - 1] : NULL;
}

static bool innermost_is(const Parser *p, int kind) {
    return p->n_open && p->open[p->n_open - 1].kind == kind;
}

int fe_open_braces(const Parser *p) {
    int n = 0;
    for (int i = 0; i < p->n_open; i++)
        n += p->open[i].kind == TK_LBRACE;
    return n;
}

static void open_bracket(Parser *p, const Token *t, int before) {
    if (p->n_open == MAX_NESTING) {
        fe_too_deep(p, t->loc);
        return;
    }
    p->open[p->n_open++] = (Bracket){t->kind, t->loc, fe_can_end(before)};
}

/* Closes the innermost bracket of the kind and what is left open inside it; ( and [ end with the
 * block or interpolation that they stand in. */
static void close_bracket(Parser *p, int kind) {
    bool round = kind == TK_LPAREN || kind == TK_LBRACKET;
    for (int i = p->n_open - 1; i >= 0; i--) {
        int k = p->open[i].kind;
        if (k == kind) {
            p->n_open = i;
            return;
        }
        if (round && (k == TK_LBRACE || k == TK_INTERP))
            return;
    }
}

static void track_brackets(Parser *p, const Token *t, int before) {
    static const struct {
        int close, open;
    } pairs[] = {
        {TK_RPAREN, TK_LPAREN}, {TK_RBRACKET, TK_LBRACKET}, {TK_RBRACE, TK_LBRACE}, {TK_INTERP_END, TK_INTERP}};
    for (size_t i = 0; i < COUNTOF(pairs); i++) {
        if (t->kind == pairs[i].open)
            open_bracket(p, t, before);
        if (t->kind == pairs[i].close)
            close_bracket(p, pairs[i].open);
    }
}

/* ==== Reading ==== */

static void advance(Parser *p) {
    if (p->has_after)
        p->ahead = p->after;
    else
        fe_lex(p->lexer, &p->ahead);
    p->has_after = false;
}

/* Puts the token delivered last back. */
static void put_back(Parser *p) {
    p->after = p->ahead;
    p->has_after = true;
    p->ahead = p->cur;
}

void fe_parser_start(Parser *p) {
    advance(p);
}

/* A token that is not in the text, placed just past the one before. */
static Token made_up(const Parser *p, int kind) {
    Token t = {.kind = kind, .loc = p->ahead.loc, .off = p->ahead.off};
    if (p->cur.loc.file)
        t.loc = (SrcLoc){p->cur.loc.file, p->cur.loc.line, p->cur.loc.end, p->cur.loc.end + 1};
    return t;
}

static bool newline_ends_statement(const Parser *p) {
    int next = p->ahead.kind;
    return p->ahead.newlines && innermost_is(p, TK_LBRACE) && fe_can_end(p->cur.kind) && !fe_continues(next) &&
           next != TK_RBRACE && next != TK_END;
}

static void deliver(Parser *p, Token t) {
    if (t.kind == TK_SEMI && p->n_open && !innermost_is(p, TK_LBRACE))
        t.kind = TK_STRAY_SEMI;
    track_brackets(p, &t, p->cur.kind);
    if (t.kind == TK_RBRACE && !p->n_open && !p->model_end.file)
        p->model_end = t.loc;
    p->prev = p->cur;
    p->cur = t;
    p->in_stmt++;
    if (t.kind == TK_SEMI || t.kind == TK_LBRACE)
        p->in_stmt = 0;
}

/* ==== Recovery ==== */

void fe_begin_recovery(Parser *p) {
    p->recovering = true;
    p->sync_braces = fe_open_braces(p) - (p->cur.kind == TK_LBRACE);
}

void fe_recovered(Parser *p) {
    p->recovering = false;
}

/* The token that did not fit may itself begin what comes next. */
static bool begins_next(const Parser *p) {
    if (!p->cur.newlines)
        return false;
    if (fe_begins_item(p->cur.kind))
        return p->in_stmt > 1 || p->sync_braces > 1;
    return fe_begins_stmt(p->cur.kind) && p->in_stmt > 1;
}

/* May the list of statements in error go on with p->ahead? */
static bool can_go_on(const Parser *p) {
    const Token *t = &p->ahead;
    if (t->kind == TK_END || (t->newlines && fe_begins_item(t->kind)))
        return true;
    if (fe_open_braces(p) != p->sync_braces)
        return false;
    if (t->kind == TK_RBRACE || (t->newlines && fe_begins_stmt(t->kind)))
        return true;
    return innermost_is(p, TK_LBRACE) && (t->kind == TK_SEMI || (t->newlines && !fe_continues(t->kind)));
}

/* Forgets brackets until n braces are open, and nothing in the innermost. */
static void trim_brackets(Parser *p, int braces) {
    while (p->n_open && (fe_open_braces(p) > braces || !innermost_is(p, TK_LBRACE)))
        p->n_open--;
}

static void find_next(Parser *p) {
    if (begins_next(p))
        put_back(p);
    while (!p->stopped && !can_go_on(p)) {
        Token t = p->ahead;
        track_brackets(p, &t, p->cur.kind);
        p->cur = t;
        advance(p);
    }
    const Token *t = &p->ahead;
    if (t->kind == TK_END)
        return;
    trim_brackets(p, p->sync_braces);
    if (t->kind == TK_RBRACE || t->kind == TK_SEMI)
        return;
    p->separate = true;
    if (fe_begins_item(t->kind) && p->sync_braces > 1)
        p->closing = p->sync_braces - 1;
}

/* ==== What bison calls ==== */

static Token next_token(Parser *p) {
    if (p->recovering && !p->closing && !p->separate)
        find_next(p);
    if (p->stopped || diag_full(p->diag)) {
        p->stopped = true;
        return made_up(p, TK_END);
    }
    p->quiet = p->closing > 0;
    if (p->closing) {
        p->closing--;
        return made_up(p, TK_RBRACE);
    }
    if (p->separate || newline_ends_statement(p)) {
        p->separate = false;
        return made_up(p, TK_SEMI);
    }
    Token t = p->ahead;
    if (t.kind == TK_END)
        return made_up(p, TK_END);
    advance(p);
    return t;
}

int fe_yylex(ParseValue *val, SrcLoc *loc, Parser *p) {
    deliver(p, next_token(p));
    *val = p->cur.val;
    *loc = p->cur.loc;
    if (p->cur.kind != TK_BAD)
        return p->cur.kind;
    diag_error(p->diag, p->cur.loc, "%s", p->cur.val.bad);
    fe_begin_recovery(p);
    return TK_FE_YYerror;
}
