/* parse.c - text IR back to a module: lexer, then recursive descent, one statement a line.
 *
 * The language is docs/ir.md; print.c is the inverse. Input may be hostile: every count, dimension
 * and depth is bounded, and nothing is built but through ir_node(), which infers the type; the type
 * written is then compared. A mistake is reported where it stands in the IR text and the rest of
 * its line is skipped, so that one run shows several. While it is built and verified everything
 * stands at its place in the IR text; only a sound module gets the places that are written behind
 * statements (`# gemma3.lap:12:3`).
 */
#include "ir/ir.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_EXPR_DEPTH = 100,
    MAX_EXPR_NODES = 2000,
    MAX_GRAPH_INPUTS = 64,
    MAX_HEADS = 1 << 16,
    MAX_HEAD_DIM = 1 << 20,
};

static const int64_t MAX_DIM = INT32_MAX;
static const int64_t MAX_ELEMS = (int64_t)1 << 46;
static const int64_t MAX_BYTES = (int64_t)1 << 60;

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

/* A place that was written, and what it is of. */
typedef struct Written {
    Graph *g; /* of a node or an output */
    enum { OF_WEIGHT, OF_CACHE, OF_VARIANT, OF_GRAPH, OF_NODE, OF_OUTPUT } of;
    int index;
    SrcLoc place;
} Written;

typedef struct Parser {
    Arena *arena;
    Diag *diag;
    Module *m;
    int file; /* of the IR text */
    const char *text;
    size_t len, pos, line_start;
    int line;
    bool line_began; /* a token was seen on this line */
    Tok tok;
    Str str;
    int64_t ival;
    SrcLoc place; /* what was written; file 0: none */
    SrcLoc at;    /* of the token, in the IR text */
    int prev_end; /* column behind the token before */
    int expr_depth, expr_nodes;
    int bad_line; /* has a broken token, already reported */
    VEC(Written) written;
} Parser;

__attribute__((format(printf, 3, 4))) static bool fail_at(Parser *p, SrcLoc at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_error(p->diag, at, "%s", arena_vprintf(p->arena, fmt, ap));
    va_end(ap);
    return false;
}

/* ==== Lexer ==== */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_word_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static char peek(const Parser *p, size_t ahead) {
    return p->pos + ahead < p->len ? p->text[p->pos + ahead] : 0;
}

static void end_token(Parser *p, Tok tok, size_t start) {
    p->tok = tok;
    p->at = (SrcLoc){p->file, p->line, (int)(start - p->line_start) + 1, (int)(p->pos - p->line_start) + 1};
    if (tok != TOK_EOL && tok != TOK_END)
        p->line_began = true;
}

static int hex_digit(char c) {
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One escape at the backslash; false when there is no such escape. */
static bool lex_escape(Parser *p, char *out) {
    static const char from[] = "\"\\nt", to[] = "\"\\\n\t";
    char c = peek(p, 1);
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        *out = to[known - from];
        p->pos += 2;
        return true;
    }
    int hi = hex_digit(peek(p, 2)), lo = hi < 0 ? -1 : hex_digit(peek(p, 3));
    if (c != 'x' || lo < 0)
        return false;
    *out = (char)(hi * 16 + lo);
    p->pos += 4;
    return true;
}

/* At the opening quote. A mistake is reported; what else could be read is the string. */
static void lex_string(Parser *p) {
    size_t start = p->pos++;
    Buf b = {0};
    const char *wrong = NULL;
    for (;;) {
        char c = peek(p, 0);
        if (p->pos >= p->len || c == '\n') {
            wrong = "the string does not end on its line";
            break;
        }
        if (c == '"') {
            p->pos++;
            break;
        }
        if (c != '\\') {
            p->pos++;
        } else if (!lex_escape(p, &c)) {
            wrong = "there is an unknown escape in the string; known are \\\" \\\\ \\n \\t \\xHH";
            p->pos++;
            continue;
        }
        buf_char(&b, c);
    }
    p->str = (Str){arena_strndup(p->arena, b.n ? b.s : "", b.n), b.n};
    buf_free(&b);
    end_token(p, TOK_STRING, start);
    if (wrong) {
        p->bad_line = p->line;
        fail_at(p, p->at, "%s", wrong);
    }
}

static void lex_number(Parser *p) {
    size_t start = p->pos;
    bool integer = true, fits = true;
    p->ival = 0;
    for (; is_digit(peek(p, 0)); p->pos++)
        fits = fits && !__builtin_mul_overflow(p->ival, 10, &p->ival) &&
               !__builtin_add_overflow(p->ival, peek(p, 0) - '0', &p->ival);
    if (peek(p, 0) == '.') {
        integer = false;
        do
            p->pos++;
        while (is_digit(peek(p, 0)));
    }
    size_t sign = peek(p, 1) == '+' || peek(p, 1) == '-' ? 2 : 1;
    if (peek(p, 0) == 'e' && is_digit(peek(p, sign))) {
        integer = false;
        p->pos += sign;
        while (is_digit(peek(p, 0)))
            p->pos++;
    }
    p->str = (Str){p->text + start, p->pos - start};
    end_token(p, integer && fits ? TOK_INT : TOK_NUMBER, start);
}

/* Takes ":number" off the end of *s. */
static bool cut_number(Str *s, int *out) {
    size_t n = s->n;
    int64_t v = 0, scale = 1;
    while (n > 0 && is_digit(s->s[n - 1]) && s->n - n < 10) {
        v += scale * (s->s[--n] - '0');
        scale *= 10;
    }
    if (n == s->n || n == 0 || s->s[n - 1] != ':' || v > INT_MAX - 1)
        return false;
    s->n = n - 1;
    *out = (int)v;
    return true;
}

/* Behind the '#': a place `file:line:col`, the file name plain or quoted? */
static bool read_place(Parser *p, Str s) {
    while (s.n && (s.s[0] == ' ' || s.s[0] == '\t'))
        s.s++, s.n--;
    while (s.n && (s.s[s.n - 1] == ' ' || s.s[s.n - 1] == '\r'))
        s.n--;
    SrcLoc at = {0};
    if (!cut_number(&s, &at.col) || !cut_number(&s, &at.line) || s.n == 0)
        return false;
    if (s.n > 1 && s.s[0] == '"' && s.s[s.n - 1] == '"') {
        size_t back = p->pos;
        p->pos = (size_t)(s.s - p->text);
        lex_string(p);
        bool whole = p->pos == (size_t)(s.s - p->text) + s.n;
        p->pos = back;
        if (!whole || memchr(p->str.s, 0, p->str.n))
            return false;
        s = p->str;
    } else if (memchr(s.s, ' ', s.n) || memchr(s.s, '\t', s.n) || memchr(s.s, 0, s.n)) {
        return false;
    }
    at.end = at.col + 1;
    at.file = diag_source(p->diag, arena_strndup(p->arena, s.s, s.n), NULL, 0);
    p->place = at;
    return true;
}

/* At '#'. True when a TOK_PLACE was made; else the comment was skipped. */
static bool lex_comment(Parser *p) {
    size_t start = p->pos;
    const char *eol = memchr(p->text + start, '\n', p->len - start);
    size_t end = eol ? (size_t)(eol - p->text) : p->len;
    bool is_place = p->line_began && read_place(p, (Str){p->text + start + 1, end - start - 1});
    p->pos = end;
    if (is_place)
        end_token(p, TOK_PLACE, start);
    return is_place;
}

static void lex_punct(Parser *p) {
    size_t start = p->pos++;
    char c = p->text[start];
    if (strchr("<>=!", c) && peek(p, 0) == '=')
        p->pos++;
    p->str = (Str){p->text + start, p->pos - start};
    end_token(p, TOK_PUNCT, start);
}

static void next(Parser *p) {
    p->prev_end = p->at.end;
    if (p->tok == TOK_EOL) {
        p->line++;
        p->line_start = p->pos;
        p->line_began = false;
    }
    for (;;) {
        char c = peek(p, 0);
        size_t start = p->pos;
        if (p->pos >= p->len) {
            end_token(p, TOK_END, start);
        } else if (c == '\n') {
            p->pos++;
            end_token(p, TOK_EOL, start);
        } else if (c == ' ' || c == '\t' || c == '\r') {
            p->pos++;
            continue;
        } else if (c == '#') {
            if (!lex_comment(p))
                continue;
        } else if (c == '"') {
            lex_string(p);
        } else if (is_digit(c)) {
            lex_number(p);
        } else if (is_word_start(c)) {
            while (is_word_start(peek(p, 0)) || is_digit(peek(p, 0)) || peek(p, 0) == '.')
                p->pos++;
            p->str = (Str){p->text + start, p->pos - start};
            end_token(p, TOK_WORD, start);
        } else {
            lex_punct(p);
        }
        return;
    }
}

/* ==== Helpers of the parser ==== */

static const char *describe(const Parser *p) {
    if (p->tok == TOK_END)
        return "the end of the text";
    if (p->tok == TOK_EOL || p->tok == TOK_PLACE)
        return "the end of the line";
    if (p->tok == TOK_STRING)
        return "a string";
    unsigned char c = (unsigned char)p->str.s[0];
    if (c < 0x20 || c >= 0x7f)
        return arena_printf(p->arena, "byte 0x%02x", c);
    return arena_printf(p->arena, "'%.*s'", p->str.n < 60 ? (int)p->str.n : 60, p->str.s);
}

static bool expected(Parser *p, const char *what) {
    return p->bad_line != p->line && fail_at(p, p->at, "expected %s, not %s", what, describe(p));
}

static bool is_punct(const Parser *p, const char *c) {
    return p->tok == TOK_PUNCT && str_eq(p->str, c);
}

static bool is_word(const Parser *p, const char *word) {
    return p->tok == TOK_WORD && str_eq(p->str, word);
}

static bool accept(Parser *p, const char *c) {
    if (!is_punct(p, c))
        return false;
    next(p);
    return true;
}

static bool accept_word(Parser *p, const char *word) {
    if (!is_word(p, word))
        return false;
    next(p);
    return true;
}

static bool expect(Parser *p, const char *c) {
    return accept(p, c) || expected(p, arena_printf(p->arena, "'%s'", c));
}

static bool expect_word(Parser *p, const char *word) {
    return accept_word(p, word) || expected(p, arena_printf(p->arena, "'%s'", word));
}

/* A word or a string without NUL; what: "a name". */
static bool take_name(Parser *p, const char *what, const char **out) {
    if (p->tok != TOK_WORD && p->tok != TOK_STRING)
        return expected(p, what);
    if (memchr(p->str.s, 0, p->str.n))
        return fail_at(p, p->at, "a name cannot hold the byte 0");
    *out = arena_strndup(p->arena, p->str.s, p->str.n);
    next(p);
    return true;
}

static bool take_string(Parser *p, Str *out) {
    if (p->tok != TOK_STRING)
        return expected(p, "a string");
    *out = p->str;
    next(p);
    return true;
}

static bool take_int(Parser *p, const char *what, int64_t lo, int64_t hi, int64_t *out) {
    SrcLoc at = p->at;
    bool minus = accept(p, "-");
    if (p->tok != TOK_INT && p->tok != TOK_NUMBER)
        return expected(p, what);
    int64_t v = minus ? -p->ival : p->ival;
    if (p->tok != TOK_INT || v < lo || v > hi) {
        at.end = p->at.end;
        if (hi == INT64_MAX)
            return fail_at(p, at, "%s must be a whole number", what);
        return fail_at(p, at, "%s must be a whole number from %lld to %lld", what, (long long)lo, (long long)hi);
    }
    *out = v;
    next(p);
    return true;
}

static bool at_number(const Parser *p) {
    return p->tok == TOK_INT || p->tok == TOK_NUMBER || is_word(p, "inf") || is_word(p, "nan");
}

/* The number at the token, without a sign. Graphs hold floats, variants doubles. */
static double token_number(const Parser *p, bool single) {
    char *s = arena_strndup(p->arena, p->str.s, p->str.n);
    return single ? strtof(s, NULL) : strtod(s, NULL);
}

static bool take_number(Parser *p, bool single, double *out) {
    bool minus = accept(p, "-");
    if (!at_number(p))
        return expected(p, "a number");
    double v = token_number(p, single);
    *out = minus ? -v : v;
    next(p);
    return true;
}

/* The end of a statement, with its place if one is written. */
static bool end_line(Parser *p, SrcLoc *place) {
    *place = NO_LOC;
    if (p->tok == TOK_PLACE) {
        *place = p->place;
        next(p);
    }
    if (p->tok != TOK_EOL && p->tok != TOK_END)
        return expected(p, "the end of the line");
    next(p);
    return true;
}

static void remember(Parser *p, Graph *g, int of, int index, SrcLoc place) {
    Written w = {g, of, index, place};
    vec_push(p->arena, &p->written, w);
}

static void skip_line(Parser *p) {
    while (p->tok != TOK_EOL && p->tok != TOK_END)
        next(p);
    next(p);
}

static void skip_empty(Parser *p) {
    while (p->tok == TOK_EOL)
        next(p);
}

/* Reports that nothing has this name, with the nearest that exists. */
static bool unknown(Parser *p, SrcLoc at, const char *what, const char *name, const Nearest *near) {
    const char *best = nearest_best(near);
    fail_at(p, at, "there is no %s '%.60s'%s", what, name,
            best ? arena_printf(p->arena, "; did you mean '%.60s'?", best) : "");
    return false;
}

static bool parse_type(Parser *p, bool rows_allowed, Type *t) {
    if (p->tok != TOK_WORD)
        return expected(p, "a type");
    *t = type_scalar(dtype_from_name(p->str));
    if (t->dtype == DT_COUNT)
        return fail_at(p, p->at, "there is no element type %s", describe(p));
    next(p);
    if (!accept(p, "["))
        return true;
    int64_t elems = 1;
    do {
        if (t->rank == MAX_DIMS)
            return fail_at(p, p->at, "a type has at most %d dimensions", MAX_DIMS);
        int64_t *dim = &t->dim[t->rank];
        if (is_word(p, "T") || is_word(p, "R")) {
            if (!rows_allowed || t->rank > 0)
                return fail_at(p, p->at, "%s",
                               rows_allowed ? "only the first dimension may be T or R"
                                            : "the dimensions of a weight are numbers");
            *dim = is_word(p, "T") ? DIM_T : DIM_R;
            next(p);
        } else if (!take_int(p, "a dimension", 1, MAX_DIM, dim)) {
            return false;
        } else if (__builtin_mul_overflow(elems, *dim, &elems) || elems > MAX_ELEMS) {
            return fail_at(p, p->at, "the type is too large");
        }
        t->rank++;
    } while (accept(p, ","));
    return expect(p, "]");
}

/* ==== Scalar expressions ==== */

static const struct {
    const char *text;
    int arity, prec;
} scalar_ops[SC_COUNT] = {
#define SCALAR(name, arity, text, prec) [SC_##name] = {text, arity, prec},
#include "ir/scalar.def"
#undef SCALAR
};

static const Scalar *parse_expr(Parser *p, int min_prec);

static const Scalar *make_scalar(Parser *p, ScalarOp op, const Scalar *const arg[3], SrcLoc at) {
    if (++p->expr_nodes > MAX_EXPR_NODES) {
        fail_at(p, at, "the expression is too long");
        return NULL;
    }
    return scalar_new(p->arena, op, arg[0], arg[1], arg[2], at);
}

/* The operator at the token with so many operands, SC_COUNT if none; calls have precedence 0. */
static ScalarOp scalar_op_at(const Parser *p, int arity, bool call) {
    if (p->tok != TOK_WORD && p->tok != TOK_PUNCT)
        return SC_COUNT;
    for (int op = 0; op < SC_COUNT; op++)
        if ((arity < 0 || scalar_ops[op].arity == arity) && (scalar_ops[op].prec == 0) == call &&
            scalar_ops[op].text[0] && str_eq(p->str, scalar_ops[op].text))
            return (ScalarOp)op;
    return SC_COUNT;
}

static const Scalar *parse_table(Parser *p, SrcLoc at) {
    const char *name;
    next(p);
    SrcLoc name_at = p->at;
    if (!take_name(p, "the name of a weight", &name))
        return NULL;
    int w = module_weight(p->m, name);
    if (w < 0 || p->m->weights.v[w].type.rank != 1) {
        fail_at(p, name_at, "a table is a weight of one dimension; '%.60s' is not", name);
        return NULL;
    }
    const Scalar *index = expect(p, "[") ? parse_expr(p, 1) : NULL;
    return index && expect(p, "]") ? scalar_table(p->arena, w, index, at) : NULL;
}

static const Scalar *parse_call(Parser *p, ScalarOp op, SrcLoc at) {
    const Scalar *arg[3] = {0};
    next(p);
    for (int i = 0; i < scalar_ops[op].arity; i++)
        if (!expect(p, i ? "," : "(") || !(arg[i] = parse_expr(p, 1)))
            return NULL;
    if (scalar_ops[op].arity && !expect(p, ")"))
        return NULL;
    return make_scalar(p, op, arg, at);
}

static const Scalar *parse_prefix(Parser *p, ScalarOp op, SrcLoc at) {
    next(p);
    if (op == SC_NEG && at_number(p)) { /* a negative constant */
        const Scalar *c = scalar_const(p->arena, -token_number(p, false), at);
        next(p);
        return c;
    }
    const Scalar *arg[3] = {parse_expr(p, op == SC_NEG ? scalar_ops[op].prec : scalar_ops[op].prec + 1)};
    return arg[0] ? make_scalar(p, op, arg, at) : NULL;
}

static const Scalar *parse_atom(Parser *p) {
    SrcLoc at = p->at;
    if (at_number(p)) {
        const Scalar *c = scalar_const(p->arena, token_number(p, false), at);
        next(p);
        return c;
    }
    if (accept(p, "(")) {
        const Scalar *e = parse_expr(p, 1);
        return e && expect(p, ")") ? e : NULL;
    }
    if (is_punct(p, "@"))
        return parse_table(p, at);
    ScalarOp op = scalar_op_at(p, -1, true);
    if (op != SC_COUNT)
        return parse_call(p, op, at);
    op = scalar_op_at(p, 1, false);
    if (op != SC_COUNT)
        return parse_prefix(p, op, at);
    expected(p, "an expression");
    return NULL;
}

static bool compares(ScalarOp op) {
    return op >= SC_EQ && op <= SC_GE;
}

/* Precedence climbing. Comparisons do not associate: a < b < c is a mistake. */
static const Scalar *parse_operators(Parser *p, int min_prec) {
    const Scalar *x = parse_atom(p);
    while (x) {
        SrcLoc at = p->at;
        ScalarOp op = scalar_op_at(p, 2, false);
        if (op == SC_COUNT || scalar_ops[op].prec < min_prec)
            return x;
        next(p);
        const Scalar *arg[3] = {x, parse_expr(p, scalar_ops[op].prec + 1)};
        x = arg[1] ? make_scalar(p, op, arg, at) : NULL;
        if (x && compares(op) && compares(scalar_op_at(p, 2, false))) {
            fail_at(p, p->at, "comparisons do not chain; use 'and' or parentheses");
            return NULL;
        }
    }
    return NULL;
}

static const Scalar *parse_expr(Parser *p, int min_prec) {
    if (p->expr_depth >= MAX_EXPR_DEPTH) {
        fail_at(p, p->at, "the expression is nested too deeply");
        return NULL;
    }
    p->expr_depth++;
    const Scalar *e = parse_operators(p, min_prec);
    p->expr_depth--;
    return e;
}

/* ==== Declarations: each gets the parser behind its first word and ends at the end of its line ==== */

static bool parse_weight(Parser *p) {
    Weight w = {0};
    SrcLoc at, place;
    if (!expect(p, "@"))
        return false;
    at = p->at;
    if (!take_name(p, "the name of a weight", &w.name) || !expect(p, ":") || !parse_type(p, false, &w.type))
        return false;
    if (w.type.dtype == DT_KV)
        return fail_at(p, at, "a weight is a tensor, not kv");
    if (accept_word(p, "from") && !take_name(p, "the name of a model", &w.from))
        return false;
    if (accept_word(p, "file") && !take_name(p, "the path of a file", &w.file))
        return false;
    if (module_weight(p->m, w.name) >= 0)
        return fail_at(p, at, "weight '%.60s' is declared twice", w.name);
    w.loc = at;
    if (!end_line(p, &place))
        return false;
    remember(p, NULL, OF_WEIGHT, module_add_weight(p->m, w), place);
    return true;
}

/* "k f32[256]" */
static bool parse_plane(Parser *p, const char *word, DType *type, int *dim) {
    Type t;
    if (!expect_word(p, word))
        return false;
    SrcLoc at = p->at;
    if (!parse_type(p, false, &t))
        return false;
    if (t.rank != 1 || !dtype_info(t.dtype)->is_float || t.dim[0] > MAX_HEAD_DIM)
        return fail_at(p, at, "a plane of a cache is TYPE[elements of a head], of a float type");
    *type = t.dtype;
    *dim = (int)t.dim[0];
    return true;
}

/* "ring capacity 1040 lookback 511 row 1024 1024 bytes 2129920": what plan-kv decided. */
static bool parse_plan(Parser *p, KvLayout *l) {
    l->ring = is_word(p, "ring");
    if (!l->ring && !is_word(p, "linear"))
        return true;
    l->planned = true;
    next(p);
    return expect_word(p, "capacity") && take_int(p, "the capacity", 1, MAX_DIM, &l->capacity) &&
           expect_word(p, "lookback") && take_int(p, "the look-back", -1, MAX_DIM, &l->lookback) &&
           expect_word(p, "row") && take_int(p, "the bytes of a row", 1, MAX_BYTES, &l->k_row) &&
           take_int(p, "the bytes of a row", 1, MAX_BYTES, &l->v_row) && expect_word(p, "bytes") &&
           take_int(p, "the bytes", 1, MAX_BYTES, &l->bytes);
}

static bool parse_cache(Parser *p) {
    Cache c = {0};
    KvLayout *l = &c.layout;
    SrcLoc at = p->at, place;
    int64_t heads;
    if (!take_name(p, "the name of a cache", &c.name) || !expect(p, ":") || !expect_word(p, "heads") ||
        !take_int(p, "the number of heads", 1, MAX_HEADS, &heads) || !parse_plane(p, "k", &l->k_type, &l->k_dim) ||
        !parse_plane(p, "v", &l->v_type, &l->v_dim))
        return false;
    l->heads = (int)heads;
    if (accept_word(p, "from") && !take_name(p, "the name of a model", &c.from))
        return false;
    if (!parse_plan(p, l))
        return false;
    if (module_cache(p->m, c.name) >= 0)
        return fail_at(p, at, "cache '%.60s' is declared twice", c.name);
    c.loc = at;
    if (!end_line(p, &place))
        return false;
    remember(p, NULL, OF_CACHE, module_add_cache(p->m, c), place);
    return true;
}

/* "flash_prefill(alpha = 0.12, block = 128)" */
static bool parse_sparse(Parser *p, Variant *v) {
    if (!take_name(p, "the name of a sparse method", &v->sparse) || !expect(p, "("))
        return false;
    while (!accept(p, ")")) {
        if (v->n_sparse == (int)COUNTOF(v->sparse_arg))
            return fail_at(p, p->at, "a sparse method has at most %d arguments", v->n_sparse);
        if (v->n_sparse && !expect(p, ","))
            return false;
        const char **name = &v->sparse_arg[v->n_sparse].name;
        if (!take_name(p, "an argument", name) || !expect(p, "=") ||
            !take_number(p, false, &v->sparse_arg[v->n_sparse].value))
            return false;
        v->n_sparse++;
    }
    return true;
}

static bool parse_variant_line(Parser *p, Variant *v) {
    const struct {
        const char *word;
        const Scalar **to;
    } fields[] = {{"visible", &v->visible}, {"score", &v->score}, {"sink", &v->sink}};
    SrcLoc at = p->at, place;
    if (accept_word(p, "sparse"))
        return expect(p, "=") && (v->sparse ? fail_at(p, at, "'sparse' is written twice") : parse_sparse(p, v)) &&
               end_line(p, &place);
    for (size_t i = 0; i < COUNTOF(fields); i++) {
        if (!accept_word(p, fields[i].word))
            continue;
        if (*fields[i].to)
            return fail_at(p, at, "'%s' is written twice", fields[i].word);
        p->expr_nodes = 0;
        return expect(p, "=") && (*fields[i].to = parse_expr(p, 1)) && end_line(p, &place);
    }
    return expected(p, "visible, score, sink, sparse or '}'");
}

typedef bool LineFn(Parser *p, void *ctx);

/* The lines between the opening brace's line and '}'; a bad line is skipped. False at a bad end. */
static bool parse_block(Parser *p, LineFn *line, void *ctx) {
    for (skip_empty(p); !is_punct(p, "}"); skip_empty(p)) {
        if (p->tok == TOK_END)
            return expected(p, "'}'");
        if (diag_full(p->diag))
            return false;
        if (!line(p, ctx))
            skip_line(p);
    }
    next(p);
    SrcLoc place;
    return end_line(p, &place);
}

static bool variant_line(Parser *p, void *ctx) {
    return parse_variant_line(p, ctx);
}

static bool parse_variant(Parser *p) {
    Variant v = {.loc = p->at};
    SrcLoc place;
    if (!take_name(p, "the name of a variant", &v.name) || !expect(p, "{") || !end_line(p, &place))
        return false;
    int errors = diag_errors(p->diag);
    if (!parse_block(p, variant_line, &v))
        return false;
    if (diag_errors(p->diag) > errors)
        return true; /* reported; its end was found */
    if (!v.visible)
        fail_at(p, v.loc, "variant '%.60s' does not say what is visible", v.name);
    else if (module_variant(p->m, v.name) >= 0)
        fail_at(p, v.loc, "variant '%.60s' is declared twice", v.name);
    else
        remember(p, NULL, OF_VARIANT, module_add_variant(p->m, v), place);
    return true;
}

static bool chat_line(Parser *p, void *ctx) {
    ChatFormat *c = ctx;
    SrcLoc place;
    const struct {
        const char *word;
        Str *to;
        int n;
    } fields[] = {{"user", c->user, 2},
                  {"model", c->model, 2},
                  {"system", c->system, 2},
                  {"prompt", &c->prompt, 1},
                  {"hide", c->hide, 2}};
    if (accept_word(p, "stop")) {
        Str s;
        if (!take_string(p, &s) || !end_line(p, &place))
            return false;
        vec_push(p->arena, &c->stop, s);
        return true;
    }
    for (size_t i = 0; i < COUNTOF(fields); i++) {
        if (!accept_word(p, fields[i].word))
            continue;
        for (int j = 0; j < fields[i].n; j++)
            if (!take_string(p, &fields[i].to[j]))
                return false;
        c->has_system = c->has_system || fields[i].to == c->system;
        if (fields[i].to == c->system && accept_word(p, "in")) {
            c->system_in_user = true;
            if (!expect_word(p, "user"))
                return false;
        }
        return end_line(p, &place);
    }
    return expected(p, "user, model, system, prompt, stop, hide or '}'");
}

static bool parse_chat(Parser *p) {
    SrcLoc place;
    if (p->m->chat.present)
        return fail_at(p, p->at, "a module has one chat format");
    p->m->chat.present = true;
    return expect(p, "{") && end_line(p, &place) && parse_block(p, chat_line, &p->m->chat);
}

/* ==== Graphs ==== */

typedef struct GraphParser {
    Graph *g;
    NameMap *values;         /* name without % -> id; 0: its line was wrong */
    VEC(const char *) names; /* the same, for suggestions */
} GraphParser;

static NodeId named_value(Parser *p, GraphParser *gp) {
    const char *name;
    SrcLoc at = p->at;
    if (!take_name(p, "the name of a value", &name))
        return 0;
    int id = namemap_get(gp->values, name);
    if (id >= 0)
        return (NodeId)id;
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (int i = 0; i < gp->names.n; i++)
        nearest_try(&near, gp->names.v[i]);
    unknown(p, at, "value above this line called", name, &near);
    return 0;
}

static NodeId named_weight(Parser *p, Graph *g) {
    const char *name;
    SrcLoc at = p->at;
    if (!take_name(p, "the name of a weight", &name))
        return 0;
    int i = module_weight(p->m, name);
    if (i >= 0)
        return ir_weight(g, i, at);
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (i = 0; i < p->m->weights.n; i++)
        nearest_try(&near, p->m->weights.v[i].name);
    unknown(p, at, "weight", name, &near);
    return 0;
}

static NodeId named_cache(Parser *p, Graph *g) {
    const char *name;
    SrcLoc at = p->at;
    if (!take_name(p, "the name of a cache", &name))
        return 0;
    int i = module_cache(p->m, name);
    if (i >= 0)
        return ir_cache(g, i, at);
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (i = 0; i < p->m->caches.n; i++)
        nearest_try(&near, p->m->caches.v[i].name);
    unknown(p, at, "cache", name, &near);
    return 0;
}

static NodeId named_input(Parser *p, Graph *g) {
    const char *name;
    SrcLoc at = p->at;
    if (!take_name(p, "an operand", &name))
        return 0;
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (int i = 0; i < g->inputs.n; i++) {
        const char *input = ir_get(g, g->inputs.v[i])->attr[0].s;
        if (strcmp(input, name) == 0)
            return g->inputs.v[i];
        nearest_try(&near, input);
    }
    unknown(p, at, "input", name, &near);
    return 0;
}

/* 0 after a mistake here or in the line that made the value; only the first is reported. */
static NodeId parse_operand(Parser *p, GraphParser *gp) {
    SrcLoc at = p->at;
    if (accept(p, "%"))
        return named_value(p, gp);
    if (accept(p, "@"))
        return named_weight(p, gp->g);
    if (accept(p, "$"))
        return named_cache(p, gp->g);
    double value;
    if (is_punct(p, "-") || at_number(p))
        return take_number(p, true, &value) ? ir_const(gp->g, value, at) : 0;
    return named_input(p, gp->g);
}

static bool parse_attr(Parser *p, char kind, const char *attr_name, Attr *a) {
    const char *name;
    SrcLoc at;
    if (kind == 'i')
        return take_int(p, attr_name, -INT64_MAX, INT64_MAX, &a->i);
    if (kind == 'f')
        return take_number(p, true, &a->f);
    if (kind != 'v')
        ICE("attribute kind '%c' on a line of its own", kind);
    at = p->at;
    if (!take_name(p, "the name of a variant", &name))
        return false;
    a->i = module_variant(p->m, name);
    if (a->i >= 0)
        return true;
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (int i = 0; i < p->m->variants.n; i++)
        nearest_try(&near, p->m->variants.v[i].name);
    return unknown(p, at, "variant", name, &near);
}

static bool parse_attrs(Parser *p, const OpInfo *info, Attr *attr) {
    for (int i = 0; i < info->n_attrs; i++)
        if (!expect(p, i ? "," : "{") || !expect_word(p, info->attr_name[i]) || !expect(p, "=") ||
            !parse_attr(p, info->attr_kind[i], info->attr_name[i], &attr[i]))
            return false;
    return info->n_attrs == 0 || expect(p, "}");
}

static bool take_op(Parser *p, Op *op) {
    if (p->tok != TOK_WORD)
        return expected(p, "an op");
    *op = op_from_name(p->str);
    if (*op == OP_NONE) {
        Nearest near = nearest_new(p->str);
        for (int i = 1; i < OP_COUNT; i++)
            nearest_try(&near, op_info((Op)i)->name);
        return unknown(p, p->at, "op", arena_strndup(p->arena, p->str.s, p->str.n), &near);
    }
    if (op_info(*op)->flags & OPF_LEAF)
        return fail_at(p, p->at, "%s has no line of its own; it is written where it is used", op_info(*op)->name);
    next(p);
    return true;
}

/* Reports when the type written is not the one the op gives. */
static void compare_types(Parser *p, const Type *written, const Type *given, Op op, SrcLoc at) {
    if (!type_same(written, given))
        fail_at(p, at, "type written %s, but %s gives %s", type_text(p->arena, written), op_info(op)->name,
                type_text(p->arena, given));
}

static bool parse_operands(Parser *p, GraphParser *gp, NodeId in[MAX_INPUTS], int *n_in) {
    int errors = diag_errors(p->diag);
    *n_in = 0;
    do {
        if (*n_in == MAX_INPUTS)
            return fail_at(p, p->at, "an op has at most %d operands", MAX_INPUTS);
        in[(*n_in)++] = parse_operand(p, gp);
        if (diag_errors(p->diag) > errors)
            return false;
    } while (accept(p, ","));
    return true;
}

/* Behind "%name =". False when the line was left in its middle; *id is 0 after any mistake. */
static bool parse_value(Parser *p, GraphParser *gp, const char *name, NodeId *id) {
    NodeId in[MAX_INPUTS];
    Attr attr[MAX_ATTRS] = {0};
    Type type;
    int n_in;
    int64_t slab = -1;
    SrcLoc op_at = p->at, type_at, place;
    Op op = OP_NONE;
    if (!take_op(p, &op) || !parse_operands(p, gp, in, &n_in) || !parse_attrs(p, op_info(op), attr) || !expect(p, ":"))
        return false;
    type_at = p->at;
    if (!parse_type(p, true, &type))
        return false;
    type_at.end = p->prev_end;
    if (accept_word(p, "at") && !take_int(p, "the place in the slab", 0, MAX_BYTES, &slab))
        return false;
    if (!end_line(p, &place))
        return false;
    NodeId before = (NodeId)gp->g->nodes.n;
    *id = ir_node(gp->g, op, in, n_in, attr, &type, name, op_at);
    if (*id)
        compare_types(p, &type, ir_type(gp->g, *id), op, type_at);
    if (*id >= before) { /* else an equal one above is shared */
        remember(p, gp->g, OF_NODE, (int)*id, place);
        ir_get(gp->g, *id)->slab = slab;
    }
    return true;
}

static bool parse_node(Parser *p, GraphParser *gp) {
    const char *name;
    SrcLoc at = p->at;
    if (!take_name(p, "the name of a value", &name))
        return false;
    if (namemap_get(gp->values, name) >= 0)
        return fail_at(p, at, "%%%.60s has a value already", name);
    NodeId id = 0;
    bool whole = expect(p, "=") && parse_value(p, gp, name, &id);
    namemap_put(gp->values, name, (int)id);
    vec_push(p->arena, &gp->names, name);
    return whole;
}

static bool parse_output(Parser *p, GraphParser *gp, OutputKind kind) {
    const char *name;
    SrcLoc at = p->at, place;
    int errors = diag_errors(p->diag);
    if (!take_name(p, "the name of an output", &name) || !expect(p, "="))
        return false;
    NodeId id = parse_operand(p, gp);
    if (diag_errors(p->diag) > errors || !end_line(p, &place))
        return false;
    if (!id)
        return true;
    ir_output(gp->g, kind, name, id, at);
    remember(p, gp->g, OF_OUTPUT, gp->g->outputs.n - 1, place);
    return true;
}

static bool graph_line(Parser *p, void *ctx) {
    GraphParser *gp = ctx;
    if (accept(p, "%"))
        return parse_node(p, gp);
    if (accept_word(p, "emit"))
        return parse_output(p, gp, OUT_EMIT);
    if (accept_word(p, "tap"))
        return parse_output(p, gp, OUT_TAP);
    if (accept_word(p, "keep"))
        return parse_output(p, gp, OUT_KEEP);
    return expected(p, "a value, emit, tap, keep or '}'");
}

static bool parse_inputs(Parser *p, Graph *g) {
    const char *name;
    Type type;
    if (!expect(p, "("))
        return false;
    while (!accept(p, ")")) {
        if (g->inputs.n == MAX_GRAPH_INPUTS)
            return fail_at(p, p->at, "a graph has at most %d inputs", MAX_GRAPH_INPUTS);
        if (g->inputs.n && !expect(p, ","))
            return false;
        SrcLoc at = p->at;
        int before = g->inputs.n;
        if (!take_name(p, "an input", &name) || !expect(p, ":") || !parse_type(p, true, &type))
            return false;
        if (!ir_input(g, name, type, at))
            return false;
        if (g->inputs.n == before)
            return fail_at(p, at, "input '%.60s' is declared twice", name);
    }
    return true;
}

static bool parse_graph(Parser *p) {
    const char *name;
    SrcLoc at = p->at, place;
    if (!take_name(p, "the name of a graph", &name))
        return false;
    GraphParser gp = {graph_new(p->m, name, at), namemap_new(p->arena), {0}};
    Graph *g = gp.g;
    if (!parse_inputs(p, g))
        return false;
    if (accept_word(p, "slab") &&
        !(take_int(p, "the size of the slab", 0, MAX_BYTES, &g->slab_bytes) && expect_word(p, "rows") &&
          take_int(p, "the rows of the slab", 1, MAX_DIM, &g->slab_rows)))
        return false;
    if (!expect(p, "{") || !end_line(p, &place) || !parse_block(p, graph_line, &gp))
        return false;
    remember(p, g, OF_GRAPH, 0, place);
    if (module_graph(p->m, name))
        fail_at(p, at, "graph '%.60s' is declared twice", name);
    else
        vec_push(p->arena, &p->m->graphs, g);
    return true;
}

/* ==== Module ==== */

static bool parse_head(Parser *p) {
    const char *name, *arch;
    SrcLoc place;
    skip_empty(p);
    if (!expect_word(p, "module") || !take_name(p, "the name of the module", &name) || !expect_word(p, "arch") ||
        !take_name(p, "the name of an architecture", &arch))
        return false;
    p->m = module_new(p->arena, p->diag, name, arch);
    if (accept_word(p, "target") && !take_name(p, "the name of the target", &p->m->target))
        return false;
    return end_line(p, &place);
}

static const struct {
    const char *word;
    bool (*parse)(Parser *);
} declarations[] = {{"weight", parse_weight},
                    {"cache", parse_cache},
                    {"variant", parse_variant},
                    {"chat", parse_chat},
                    {"graph", parse_graph}};

static bool at_declaration(const Parser *p) {
    for (size_t i = 0; i < COUNTOF(declarations); i++)
        if (is_word(p, declarations[i].word))
            return true;
    return false;
}

static bool parse_declaration(Parser *p) {
    for (size_t i = 0; i < COUNTOF(declarations); i++)
        if (accept_word(p, declarations[i].word))
            return declarations[i].parse(p);
    return expected(p, "weight, cache, variant, chat or graph");
}

/* After a mistake in a declaration: to the next line that begins one. */
static void skip_declaration(Parser *p) {
    do
        skip_line(p);
    while (p->tok != TOK_END && !at_declaration(p));
}

/* From places in the IR text to the places that are written in it. */
static void set_places(Parser *p) {
    Module *m = p->m;
    for (int i = 0; i < p->written.n; i++) {
        const Written *w = &p->written.v[i];
        switch (w->of) {
        case OF_WEIGHT: m->weights.v[w->index].loc = w->place; break;
        case OF_CACHE: m->caches.v[w->index].loc = w->place; break;
        case OF_VARIANT: m->variants.v[w->index].loc = w->place; break;
        case OF_GRAPH: w->g->loc = w->place; break;
        case OF_NODE: w->g->nodes.v[w->index].loc = w->place; break;
        case OF_OUTPUT: w->g->outputs.v[w->index].loc = w->place; break;
        }
    }
}

Module *ir_parse(Arena *arena, Diag *diag, const char *name, const char *text, size_t len) {
    Parser p = {.arena = arena, .diag = diag, .text = text, .len = len, .line = 1};
    int errors = diag_errors(diag);
    if (len > INT_MAX / 2) {
        diag_error(diag, NO_LOC, "%s: a text of %zu bytes is too large", name, len);
        return NULL;
    }
    p.file = diag_source(diag, name, text, len);
    next(&p);
    if (!parse_head(&p))
        return NULL;
    for (skip_empty(&p); p.tok != TOK_END && !diag_full(diag); skip_empty(&p))
        if (!parse_declaration(&p))
            skip_declaration(&p);
    if (diag_errors(diag) > errors || !ir_verify(p.m))
        return NULL;
    set_places(&p);
    return p.m;
}

bool ir_looks_like(const char *text, size_t len) {
    size_t i = 0;
    while (i < len && strchr(" \t\r\n#", text[i]) && text[i]) {
        if (text[i] == '#')
            while (i < len && text[i] != '\n')
                i++;
        else
            i++;
    }
    static const char word[] = "module";
    size_t n = sizeof word - 1;
    return len - i > n && memcmp(text + i, word, n) == 0 && (text[i + n] == ' ' || text[i + n] == '\t');
}
