/* text_lex.h - reading and writing the text forms of this program: of the IR (ir/parse*.c, ir/print.c) and of plans
 * (codegen/plan_parse.c, codegen/plan_print.c). Tokens, names, strings and places are those of docs/ir.md.
 *
 * A function that reads something begins at the token that is first in it and leaves the parser at the token behind
 * it. Those that give a bool report a mistake where it stands and give false; the parser then is somewhere on that
 * line, and whoever reads whole lines skips the rest of it.
 */
#ifndef LAP_IR_TEXT_LEX_H
#define LAP_IR_TEXT_LEX_H

#include "ir/ir.h"

typedef enum Tok {
    TOK_END,
    TOK_EOL,
    TOK_WORD,
    TOK_STRING, /* str: the decoded bytes */
    TOK_INT,    /* digits; ival */
    TOK_NUMBER, /* with a point or an exponent, or too large for TOK_INT */
    TOK_PLACE,  /* `# file:line:col` behind a statement; place */
    TOK_PUNCT,  /* str: the character, or two of <= >= == != */
} Tok;

/* What a place is of. */
typedef enum PlaceOf { OF_WEIGHT, OF_CACHE, OF_VARIANT, OF_GROUP, OF_GRAPH, OF_NODE, OF_OUTPUT } PlaceOf;

/* A place that was written. */
typedef struct Written {
    Graph *g; /* the graph, or that of the node or output; else NULL */
    PlaceOf of;
    int index; /* in the module's or the graph's array; 0 for a graph */
    SrcLoc place;
} Written;

/* Lives on the stack of ir_parse() or plan_parse(), owns nothing: text and diag are the caller's; what is read, names,
 * strings and `written` are in the caller's arena, so they outlive the parser and the text. */
typedef struct Parser {
    Arena *arena;
    Diag *diag;

    /* text_lex.c moves these */
    int file;         /* of the text */
    const char *text; /* len bytes, may hold byte 0 */
    size_t len, pos, line_start;
    int line;
    bool line_began; /* a token was seen on this line */
    int bad_line;    /* has a broken token, already reported */
    int prev_end;    /* column behind the token before */

    /* the token */
    Tok tok;
    Str str; /* in the text; of a string, in the arena */
    int64_t ival;
    SrcLoc place; /* of TOK_PLACE */
    SrcLoc at;    /* of the token, in the text */

    /* only of the IR: ir/parse*.c */
    Module *m;                /* NULL until the module line is read */
    const char *weights_file; /* written on the module line; NULL none */
    VEC(Written) written;     /* put in place once the module is sound */
    int expr_depth, expr_nodes;
} Parser;

/* ==== Tokens (text_lex.c) ==== */

/* A parser at the first token of a text. False after an error in diag. */
bool p_begin(Parser *p, Arena *arena, Diag *diag, const char *name, const char *text, size_t len);
/* Makes the next token; after TOK_END again TOK_END. */
void p_next(Parser *p);
/* Both report and give false. expected: "expected WHAT, not (the token)", unless the
 * line has a broken token, which was reported. */
__attribute__((format(printf, 3, 4))) bool p_fail_at(Parser *p, SrcLoc at, const char *fmt, ...);
bool p_expected(Parser *p, const char *what);
/* The token as messages show it; in the arena. */
const char *p_describe(const Parser *p);
/* Reports that nothing has this name, with the nearest that exists. */
bool p_unknown(Parser *p, SrcLoc at, const char *what, const char *name, const Nearest *near);

/* Is the token this? Nothing is reported; accept also steps over it. */
bool p_is(const Parser *p, const char *punct);
bool p_is_word(const Parser *p, const char *word);
bool p_accept(Parser *p, const char *punct);
bool p_accept_word(Parser *p, const char *word);
bool p_expect(Parser *p, const char *punct);
bool p_expect_word(Parser *p, const char *word);

/* These set *out only when they give true. what, for messages: "a name". */
bool p_name(Parser *p, const char *what, const char **out); /* a word or a string without byte 0 */
bool p_path(Parser *p, const char **out);                   /* a string without byte 0 */
bool p_string(Parser *p, Str *out);
bool p_int(Parser *p, const char *what, int64_t lo, int64_t hi, int64_t *out);
/* With a sign. single: rounded to float, as graphs hold them; variants hold doubles. */
bool p_number(Parser *p, bool single, double *out);
bool p_at_number(const Parser *p);                   /* without a sign */
double p_token_number(const Parser *p, bool single); /* the value of such a token */

/* ==== Lines (text_lex.c) ==== */

/* The end of a statement. *place: the place that is written behind it, or NO_LOC. */
bool p_end_line(Parser *p, SrcLoc *place);
void p_skip_line(Parser *p);
void p_skip_empty(Parser *p);
/* g: see Written. */
void p_remember(Parser *p, Graph *g, PlaceOf of, int index, SrcLoc place);

/* One line of a block, to its end. */
typedef bool LineFn(Parser *p, void *ctx);
/* The lines between the opening brace's line and '}'; a bad line is skipped. False at a bad end. */
bool p_block(Parser *p, LineFn *line, void *ctx);

/* ==== Types (parse_decl.c) ==== */

/* "f32[T, 640]". rows_allowed: the first dimension may be T or R; *out is undefined after false. */
bool p_type(Parser *p, bool rows_allowed, Type *out);

/* ==== Writing (text_put.c) ==== */

/* As a word where p_name() reads it as one, else as a string. */
void text_put_name(Buf *out, const char *name);
void text_put_string(Buf *out, const char *s, size_t n);
/* The place behind a statement, when there is one, and the end of the line. */
void text_put_end(Buf *out, const Diag *diag, SrcLoc at);

#endif
