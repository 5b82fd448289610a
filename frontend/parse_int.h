/* parse_int.h - shared by the parts of the parser: lexer.l, tokens.c, parser.y, build.c, parse_error.c, format.c.
 *
 *   text -> Lexer (flex) -> tokens.c -> parser.y (bison) -> build.c -> ast.h
 *
 * The lexer only splits: it reports nothing, an unreadable piece is a TK_BAD token that carries its message.
 * tokens.c, which bison calls, turns newlines into statement ends, keeps the stack of open brackets, reports,
 * and after an error finds the place where parsing can go on. build.c makes the tree, one call an action.
 */
#ifndef LAP_FRONTEND_PARSE_INT_H
#define LAP_FRONTEND_PARSE_INT_H

#include "frontend/ast.h"

enum {
    MAX_TEXT = 16 << 20,  /* bytes of a model text */
    MAX_NESTING = 200,    /* open brackets */
    MAX_STRING_DEPTH = 16 /* strings inside interpolations inside strings .. */
};

/* ==== What tokens and grammar symbols carry (bison's YYSTYPE) ==== */

typedef VEC(Name) NameList;
typedef VEC(EntryParam) EntryParamList;

typedef union ParseValue {
    int64_t i;
    double f;
    Str text;
    const char *bad; /* TK_BAD: the message */
    Name name;
    Expr *expr;
    Stmt *stmt;
    Arg arg;
    EntryParam entry_param;
    AstOp op;
    NameList names;
    EntryParamList entry_params;
    ExprList exprs;
    ArgList args;
    StmtList stmts;
    StrPartList parts;
} ParseValue;

/* ==== Lexer (lexer.l) ==== */

typedef struct Lexer Lexer;

typedef struct Token {
    int kind; /* TK_* of parser.gen.h; TK_COMMENT only for a lexer that keeps comments */
    ParseValue val;
    SrcLoc loc;
    size_t off, len; /* bytes of the text */
    int newlines;    /* ends of lines between the token before and this one */
} Token;

/* The text must outlive the lexer. len <= MAX_TEXT. */
Lexer *fe_lexer_new(Arena *arena, int file, const char *text, size_t len, bool keep_comments);
void fe_lexer_free(Lexer *l);
/* The next token; TK_END for ever after the last. */
void fe_lex(Lexer *l, Token *out);

/* ==== Parser state and token filter (tokens.c) ==== */

typedef struct Bracket {
    int kind; /* TK_LPAREN, TK_LBRACKET, TK_LBRACE, TK_INTERP */
    SrcLoc loc;
    bool call; /* ( or [ right after something callable or indexable */
} Bracket;

typedef struct Parser {
    Arena *arena;
    Diag *diag;
    const char *text;
    Lexer *lexer;
    ModelDecl *model;
    SrcLoc model_end;    /* the '}' of the model */
    VariantDecl variant; /* being read */

    Token ahead; /* read from the lexer, not yet delivered */
    Token after; /* the one after it, if has_after */
    bool has_after;
    Token cur;   /* delivered last */
    Token prev;  /* delivered before that */
    int in_stmt; /* tokens delivered since the statement began */

    Bracket open[MAX_NESTING];
    int n_open;

    bool recovering; /* the next token asked for is the one to go on with */
    int sync_braces; /* open '{' around the statement in error */
    int closing;     /* '}' to make up before an item that begins inside blocks */
    bool separate;   /* a statement end to make up after those */
    bool quiet;      /* errors follow from one already reported */
    bool stopped;    /* nothing more is worth reading: only TK_END from now on, silently */
} Parser;

int fe_yylex(ParseValue *val, SrcLoc *loc, Parser *p); /* bison's yylex */
int fe_yyparse(Parser *p);

/* A token after which a newline may end the statement / before which it does not. */
bool fe_can_end(int kind);
bool fe_continues(int kind);

void fe_parser_start(Parser *p);   /* reads the first token */
void fe_begin_recovery(Parser *p); /* p->cur did not fit, and that was reported */
void fe_recovered(Parser *p);      /* the grammar has found its place again */
/* The innermost open bracket, or NULL; how many '{' are open. */
const Bracket *fe_innermost(const Parser *p);
int fe_open_braces(const Parser *p);
bool fe_begins_item(int kind); /* param variant fn entry chat drafts */
bool fe_begins_stmt(int kind); /* let var for tap emit */

/* ==== Messages (parse_error.c) ==== */

/* The token p->cur does not fit; `expected` holds the names, as parser.y gives them, of those that would. */
void fe_syntax_error(Parser *p, const char *const *expected, int n);
void fe_yyerror(const SrcLoc *loc, Parser *p, const char *msg);
/* Reports once that the text nests too deeply and stops the parser. */
void fe_too_deep(Parser *p, SrcLoc at);

/* ==== Building the tree (build.c) ==== */

void fe_model(Parser *p, Name name, Name format, ExprList archs, Name target);
void fe_param(Parser *p, Name name, Name type, Expr *length, Expr *value);
void fe_fn(Parser *p, Name name, NameList params, Expr *body);
void fe_entry(Parser *p, Name name, EntryParamList params, StmtList body);
void fe_variant_begin(Parser *p, Name name, NameList params);
void fe_variant_part(Parser *p, Name part, NameList params, Expr *body);
void fe_variant_sparse(Parser *p, Name method, ArgList args);
void fe_variant_end(Parser *p);
void fe_drafts(Parser *p, Name way, ArgList args);
void fe_chat_begin(Parser *p, SrcLoc loc);
void fe_chat_field(Parser *p, Name name, Name param, Name in, Expr *value);

Stmt *fe_stmt(Parser *p, StmtKind kind, SrcLoc loc, Name name, Expr *index, Expr *value);
Stmt *fe_for(Parser *p, SrcLoc loc, Name name, Expr *from, Expr *to, StmtList body);

Expr *fe_int(Parser *p, SrcLoc loc, int64_t i);
Expr *fe_float(Parser *p, SrcLoc loc, double f);
Expr *fe_bool(Parser *p, SrcLoc loc, bool b);
Expr *fe_none(Parser *p, SrcLoc loc);
Expr *fe_string(Parser *p, SrcLoc loc, StrPartList parts);
Expr *fe_name(Parser *p, Name name);
Expr *fe_field(Parser *p, SrcLoc loc, Expr *base, Name name);
Expr *fe_index(Parser *p, SrcLoc loc, Expr *base, Expr *index);
Expr *fe_call(Parser *p, Expr *fn, ArgList args);
Expr *fe_op(Parser *p, SrcLoc loc, AstOp op, Expr *x, Expr *y); /* y NULL: unary */
Expr *fe_chained(Parser *p, SrcLoc loc, SrcLoc op_at, AstOp op, Expr *x, Expr *y);
Expr *fe_cond(Parser *p, SrcLoc loc, Expr *test, Expr *yes, Expr *no);
Expr *fe_array(Parser *p, SrcLoc loc, ExprList items);
Expr *fe_block(Parser *p, SrcLoc loc, StmtList body);
Expr *fe_cache(Parser *p, SrcLoc loc, Expr *what);

NameList fe_names(Parser *p, NameList list, Name name);
ExprList fe_exprs(Parser *p, ExprList list, Expr *e);
ArgList fe_args(Parser *p, ArgList list, Arg arg);
EntryParamList fe_entry_params(Parser *p, EntryParamList list, EntryParam param);
StmtList fe_stmts(Parser *p, StmtList list, Stmt *s); /* s NULL: an empty statement */
StrPartList fe_parts(Parser *p, StrPartList list, Str text, Expr *e);

/* From `first` to the end of `last`, if that is on the same line; else `first`. */
SrcLoc fe_span(SrcLoc first, SrcLoc last);

#endif
