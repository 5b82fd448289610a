/* format.c - the one layout of a model text (docs/language.md, "Layout").
 *
 * Works on tokens, not on the tree: where the author broke a line, the line stays broken, and only
 * the white space between tokens changes, so what the text means cannot. A text that does not
 * parse is left alone.
 *
 * Each line is first set out without its indent: `col` of a token counts from its line's first
 * token. Then runs of `param` lines are aligned, indents follow (a line inside `f(` starts under
 * the first argument, so that needs the columns), then the trailing comments of neighbouring lines.
 */
#include "frontend/frontend.h"
#include "frontend/parse_int.h"
#include "ir/utf8.h"
#include "parser.gen.h"

enum { INDENT = 2, CONTINUED = 4 };

/* A token, or a string with everything in it. */
typedef struct Piece {
    int kind; /* a whole string: TK_STRING_BEGIN */
    const char *s;
    int len;   /* bytes */
    int width; /* columns */
    int col;   /* from the first token of the line */
} Piece;

typedef struct Line {
    int first, n;      /* pieces, without the trailing comment */
    int comment;       /* piece, -1: none; n == 0: it stands alone */
    bool blank_before; /* keep one empty line */
    bool continued;    /* goes on with the statement of the line before */
    int indent;
    int comment_col;
} Line;

typedef struct Layout {
    Arena *arena;
    VEC(Piece) pieces;
    VEC(Line) lines;
} Layout;

/* ==== Reading the tokens into lines ==== */

/* Columns of UTF-8 text, a character each. */
static int count_columns(const char *s, int n) {
    int w = 0;
    for (int i = 0; i < n; i++)
        w += utf8_starts(s[i]);
    return w;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static Piece make_piece(const char *text, const Token *t, size_t end) {
    Piece piece = {.kind = t->kind, .s = text + t->off, .len = (int)(end - t->off)};
    while (t->kind == TK_COMMENT && piece.len > 1 && is_blank(piece.s[piece.len - 1]))
        piece.len--;
    piece.width = count_columns(piece.s, piece.len);
    return piece;
}

/* Reads on to the end of the string that *t begins; where it ends. */
static size_t string_end(Lexer *lexer, Token *t) {
    for (int depth = 1; depth > 0;) {
        fe_lex(lexer, t);
        depth += (t->kind == TK_STRING_BEGIN) - (t->kind == TK_STRING_END);
    }
    return t->off + t->len;
}

static void read_lines(Layout *y, const char *text, size_t len) {
    Lexer *lexer = fe_lexer_new(y->arena, 0, text, len, true);
    Token t;
    for (fe_lex(lexer, &t); t.kind != TK_END; fe_lex(lexer, &t)) {
        if (t.newlines || !y->lines.n) {
            Line line = {.first = y->pieces.n, .comment = -1, .blank_before = t.newlines > 1 && y->lines.n};
            vec_push(y->arena, &y->lines, line);
        }
        Token start = t;
        size_t end = t.kind == TK_STRING_BEGIN ? string_end(lexer, &t) : t.off + t.len;
        Line *line = &y->lines.v[y->lines.n - 1];
        if (start.kind == TK_COMMENT)
            line->comment = y->pieces.n;
        else
            line->n++;
        vec_push(y->arena, &y->pieces, make_piece(text, &start, end));
    }
    fe_lexer_free(lexer);
}

/* ==== Spaces between tokens ==== */

static bool ends_operand(int kind) {
    return kind == TK_STRING_BEGIN || fe_can_end(kind);
}

/* What the spacing depends on besides the two neighbours. */
typedef struct Spacing {
    int questions[MAX_NESTING + 1]; /* for each open bracket: `?` whose `:` is to come */
    bool round[MAX_NESTING + 1];    /* the bracket is ( or [ */
    int depth;
    bool after_sign;  /* the last token is a `-` with one operand */
    bool param_colon; /* the next `:` is that of a `param` */
} Spacing;

/* A ':' between a name and its type hugs the name; that of a `param` and that of `? :` do not. */
static bool colon_is_loose(const Spacing *s) {
    return s->param_colon || s->questions[s->depth] > 0;
}

static bool space_between(const Spacing *s, int a, int b) {
    if (a == TK_LPAREN || a == TK_LBRACKET || a == TK_DOT || a == TK_DOTDOT || s->after_sign)
        return false;
    if (b == TK_RPAREN || b == TK_RBRACKET || b == TK_DOT || b == TK_DOTDOT || b == TK_COMMA || b == TK_SEMI)
        return false;
    if (b == TK_LPAREN || b == TK_LBRACKET)
        return !ends_operand(a);
    if (b == TK_COLON)
        return colon_is_loose(s);
    return !(a == TK_LBRACE && b == TK_RBRACE);
}

/* Takes note of token `kind`, which stands after `before` (TK_END: at the start of a statement). */
static void step_spacing(Spacing *s, int before, int kind) {
    bool opens = kind == TK_LPAREN || kind == TK_LBRACKET || kind == TK_LBRACE;
    bool closes = kind == TK_RPAREN || kind == TK_RBRACKET || kind == TK_RBRACE;
    if (opens && s->depth < MAX_NESTING) {
        s->questions[++s->depth] = 0;
        s->round[s->depth] = kind != TK_LBRACE;
    }
    if (closes && s->depth > 0)
        s->depth--;
    if (kind == TK_QUESTION)
        s->questions[s->depth]++;
    if (kind == TK_COLON && !s->param_colon && s->questions[s->depth] > 0)
        s->questions[s->depth]--;
    if (kind == TK_PARAM || kind == TK_COLON)
        s->param_colon = kind == TK_PARAM;
    s->after_sign = kind == TK_MINUS && !ends_operand(before);
}

/* Does a line that begins with `kind`, after the token `before`, go on with the same statement? */
static bool goes_on(const Spacing *s, int before, int kind) {
    if (before == TK_END || before == TK_LBRACE || before == TK_SEMI)
        return false;
    return s->depth == 0 || s->round[s->depth] || !ends_operand(before) || fe_continues(kind);
}

/* Sets the columns of each line's tokens, and which lines are continued. */
static void space_lines(Layout *y) {
    Spacing s = {0};
    int before = TK_END;
    for (int i = 0; i < y->lines.n; i++) {
        Line *line = &y->lines.v[i];
        for (int k = 0; k < line->n; k++) {
            Piece *piece = &y->pieces.v[line->first + k];
            if (k == 0)
                line->continued = goes_on(&s, before, piece->kind);
            else
                piece->col = piece[-1].col + piece[-1].width + space_between(&s, before, piece->kind);
            step_spacing(&s, k > 0 || line->continued ? before : TK_END, piece->kind);
            before = piece->kind;
        }
    }
}

/* ==== Runs of `param` lines ==== */

static Piece *piece_of(const Layout *y, const Line *line, int k) {
    return &y->pieces.v[line->first + k];
}

static bool begins_with(const Layout *y, const Line *line, int kind) {
    return line->n && piece_of(y, line, 0)->kind == kind;
}

/* Where `=` stands in a line `param NAME : TYPE = ..`; 0 if not all of that is on the line. */
static int find_assign(const Layout *y, const Line *line) {
    if (!begins_with(y, line, TK_PARAM) || line->n < 5 || piece_of(y, line, 2)->kind != TK_COLON)
        return 0;
    int depth = 0;
    for (int k = 3; k < line->n; k++) {
        int kind = piece_of(y, line, k)->kind;
        if (kind == TK_ASSIGN && depth == 0)
            return k;
        depth += (kind == TK_LBRACKET || kind == TK_LPAREN) - (kind == TK_RBRACKET || kind == TK_RPAREN);
    }
    return 0;
}

static int end_of(const Piece *piece) {
    return piece->col + piece->width;
}

/* Moves the tokens from k on so that token k stands at col. */
static void move_to(Layout *y, const Line *line, int k, int col) {
    int by = col - piece_of(y, line, k)->col;
    for (; k < line->n; k++)
        piece_of(y, line, k)->col += by;
}

/* Is `line` inside a run of params without being one of them? */
static bool is_neutral(const Line *line) {
    return !line->n || line->continued;
}

/* Aligns the run of lines [from, to). */
static void align_run(Layout *y, int from, int to) {
    int colon = 0;
    int type = 0;
    for (int i = from; i < to; i++) {
        const Line *line = &y->lines.v[i];
        int assign = find_assign(y, line);
        if (!assign)
            continue;
        int name_end = end_of(piece_of(y, line, 1));
        int type_width = end_of(piece_of(y, line, assign - 1)) - piece_of(y, line, 3)->col;
        colon = name_end + 1 > colon ? name_end + 1 : colon;
        type = type_width > type ? type_width : type;
    }
    for (int i = from; i < to; i++) {
        const Line *line = &y->lines.v[i];
        int assign = find_assign(y, line);
        if (!assign)
            continue;
        move_to(y, line, 2, colon);
        move_to(y, line, assign, colon + 2 + type + 1);
    }
}

static void align_params(Layout *y) {
    for (int i = 0; i < y->lines.n; i++) {
        if (!begins_with(y, &y->lines.v[i], TK_PARAM))
            continue;
        int to = i + 1;
        while (to < y->lines.n && !y->lines.v[to].blank_before &&
               (begins_with(y, &y->lines.v[to], TK_PARAM) || is_neutral(&y->lines.v[to])))
            to++;
        align_run(y, i, to);
        i = to - 1;
    }
}

/* ==== Indents ==== */

typedef struct Frame {
    int kind;
    int line_indent; /* of the line that opened it */
    int content;     /* column of what follows the bracket on its line; -1: nothing */
} Frame;

/* An `if` whose `else` may come. */
typedef struct OpenIf {
    int col;
    int line_indent;
    int depth; /* frames open around it */
    bool has_then;
} OpenIf;

typedef struct Indenter {
    Layout *y;
    Frame frames[MAX_NESTING + 1];
    int depth;
    VEC(OpenIf) ifs;
    int chain; /* column of the `if` whose `else` was the last token; -1: it was another token */
} Indenter;

static const Frame *top_frame(const Indenter *in) {
    return in->depth ? &in->frames[in->depth - 1] : NULL;
}

static int base_indent(const Indenter *in) {
    const Frame *f = top_frame(in);
    if (!f)
        return 0;
    if (f->kind == TK_LBRACE || f->content < 0)
        return f->line_indent + INDENT;
    return f->content;
}

/* The `if` that a `then` or `else` here belongs to; -1: none. */
static int find_if(const Indenter *in, bool without_then) {
    for (int i = in->ifs.n - 1; i >= 0 && in->ifs.v[i].depth == in->depth; i--)
        if (!without_then || !in->ifs.v[i].has_then)
            return i;
    return -1;
}

static void forget_ifs(Indenter *in, int depth) {
    while (in->ifs.n && in->ifs.v[in->ifs.n - 1].depth >= depth)
        in->ifs.n--;
}

static bool is_closer(int kind) {
    return kind == TK_RPAREN || kind == TK_RBRACKET || kind == TK_RBRACE;
}

static int indent_of(const Indenter *in, const Line *line) {
    const Frame *f = top_frame(in);
    if (!line->n)
        return base_indent(in);
    int kind = piece_of(in->y, line, 0)->kind;
    if (is_closer(kind))
        return f ? f->line_indent : 0;
    int i = kind == TK_THEN || kind == TK_ELSE ? find_if(in, kind == TK_THEN) : -1;
    if (i >= 0) /* under its `if`; an else after a block, under the line of it */
        return kind == TK_THEN || in->ifs.v[i].has_then ? in->ifs.v[i].col : in->ifs.v[i].line_indent;
    bool round = f && f->kind != TK_LBRACE;
    return base_indent(in) + (line->continued && !round && kind != TK_LBRACE ? CONTINUED : 0);
}

/* `else if` continues the first `if` of the chain: all their `else` stand under that. */
static void step_ifs(Indenter *in, const Line *line, const Piece *piece) {
    int chain = in->chain;
    in->chain = -1;
    if (piece->kind == TK_IF) {
        OpenIf open = {chain >= 0 ? chain : line->indent + piece->col, line->indent, in->depth, false};
        vec_push(in->y->arena, &in->ifs, open);
    }
    int i = piece->kind == TK_THEN || piece->kind == TK_ELSE ? find_if(in, piece->kind == TK_THEN) : -1;
    if (i >= 0 && piece->kind == TK_THEN)
        in->ifs.v[i].has_then = true;
    if (i >= 0 && piece->kind == TK_ELSE) {
        in->chain = in->ifs.v[i].col;
        in->ifs.n = i;
    }
}

static void step_indent(Indenter *in, const Line *line, int k) {
    const Piece *piece = piece_of(in->y, line, k);
    if (is_closer(piece->kind) && in->depth) {
        forget_ifs(in, in->depth);
        in->depth--;
    }
    bool opens = piece->kind == TK_LPAREN || piece->kind == TK_LBRACKET || piece->kind == TK_LBRACE;
    if (opens && in->depth < MAX_NESTING) {
        int content = k + 1 < line->n ? line->indent + piece[1].col : -1;
        in->frames[in->depth++] = (Frame){piece->kind, line->indent, content};
    }
    if (piece->kind == TK_SEMI)
        forget_ifs(in, in->depth);
    step_ifs(in, line, piece);
}

static void indent_lines(Layout *y) {
    Indenter *in = arena_alloc(y->arena, sizeof *in);
    in->y = y;
    in->chain = -1;
    for (int i = 0; i < y->lines.n; i++) {
        Line *line = &y->lines.v[i];
        const Frame *f = top_frame(in);
        if (line->n && !line->continued && f && f->kind == TK_LBRACE && !begins_with(y, line, TK_RBRACE))
            forget_ifs(in, in->depth);
        line->indent = indent_of(in, line);
        for (int k = 0; k < line->n; k++)
            step_indent(in, line, k);
    }
}

/* ==== Trailing comments ==== */

static bool has_trailing_comment(const Line *line) {
    return line->n && line->comment >= 0;
}

/* Neighbours of one indent share a column. */
static bool aligns_with(const Line *line, const Line *before) {
    return has_trailing_comment(line) && !line->blank_before && line->indent == before->indent;
}

static int code_end(const Layout *y, const Line *line) {
    return line->indent + end_of(piece_of(y, line, line->n - 1));
}

static void align_comments(Layout *y) {
    for (int i = 0; i < y->lines.n; i++) {
        if (!has_trailing_comment(&y->lines.v[i])) {
            y->lines.v[i].comment_col = y->lines.v[i].indent;
            continue;
        }
        int to = i;
        int col = 0;
        do {
            int end = code_end(y, &y->lines.v[to]) + 1;
            col = end > col ? end : col;
            to++;
        } while (to < y->lines.n && aligns_with(&y->lines.v[to], &y->lines.v[to - 1]));
        for (; i < to; i++)
            y->lines.v[i].comment_col = col;
        i--;
    }
}

/* ==== Writing ==== */

/* Writes the piece at column col of a line that has *at columns so far. */
static void write_piece(Buf *out, int *at, int col, const Piece *piece) {
    for (; *at < col; ++*at)
        buf_char(out, ' ');
    buf_bytes(out, piece->s, (size_t)piece->len);
    *at += piece->width;
}

static void write_lines(Buf *out, const Layout *y) {
    for (int i = 0; i < y->lines.n; i++) {
        const Line *line = &y->lines.v[i];
        int at = 0;
        if (line->blank_before)
            buf_char(out, '\n');
        for (int k = 0; k < line->n; k++)
            write_piece(out, &at, line->indent + piece_of(y, line, k)->col, piece_of(y, line, k));
        if (line->comment >= 0)
            write_piece(out, &at, line->comment_col, &y->pieces.v[line->comment]);
        buf_char(out, '\n');
    }
}

/* Reports the syntax errors; true if there are none. */
static bool check_syntax(Diag *diag, const char *name, const char *text, size_t len) {
    Arena *arena = arena_new();
    int errors = diag_errors(diag);
    fe_parse(arena, diag, diag_source(diag, name, text, len), text, len);
    arena_free(arena);
    return diag_errors(diag) == errors;
}

bool fe_format(Buf *out, Diag *diag, const char *name, const char *text, size_t len) {
    if (!check_syntax(diag, name, text, len))
        return false;
    Layout y = {.arena = arena_new()};
    read_lines(&y, text, len);
    space_lines(&y);
    align_params(&y);
    indent_lines(&y);
    align_comments(&y);
    write_lines(out, &y);
    arena_free(y.arena);
    return true;
}
