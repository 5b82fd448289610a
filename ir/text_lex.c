/* text_lex.c - tokens and lines of the text form of the IR, and the small steps its parser is made of.
 *
 * The tokens are described in docs/ir.md. The text may be hostile: it may hold any bytes, lines and names may be of any
 * length. A broken token is reported once, here, and silences what the parser would say about it on the same line; the
 * lexer never stops at a mistake. A comment is skipped, unless it is the place behind a statement.
 */
#include "ir/parse_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

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
        p_fail_at(p, p->at, "%s", wrong);
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

void p_next(Parser *p) {
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

bool p_begin(Parser *p, Arena *arena, Diag *diag, const char *name, const char *text, size_t len) {
    *p = (Parser){.arena = arena, .diag = diag, .text = text, .len = len, .line = 1};
    if (len > INT_MAX / 2) {
        diag_error(diag, NO_LOC, "%s: a text of %zu bytes is too large", name, len);
        return false;
    }
    p->file = diag_source(diag, name, text, len);
    p_next(p);
    return true;
}

/* ==== Steps of the parser ==== */

bool p_fail_at(Parser *p, SrcLoc at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_error(p->diag, at, "%s", arena_vprintf(p->arena, fmt, ap));
    va_end(ap);
    return false;
}

const char *p_describe(const Parser *p) {
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

bool p_expected(Parser *p, const char *what) {
    return p->bad_line != p->line && p_fail_at(p, p->at, "expected %s, not %s", what, p_describe(p));
}

bool p_unknown(Parser *p, SrcLoc at, const char *what, const char *name, const Nearest *near) {
    const char *best = nearest_best(near);
    p_fail_at(p, at, "there is no %s '%.60s'%s", what, name,
              best ? arena_printf(p->arena, "; did you mean '%.60s'?", best) : "");
    return false;
}

bool p_is(const Parser *p, const char *c) {
    return p->tok == TOK_PUNCT && str_eq(p->str, c);
}

bool p_is_word(const Parser *p, const char *word) {
    return p->tok == TOK_WORD && str_eq(p->str, word);
}

bool p_accept(Parser *p, const char *c) {
    if (!p_is(p, c))
        return false;
    p_next(p);
    return true;
}

bool p_accept_word(Parser *p, const char *word) {
    if (!p_is_word(p, word))
        return false;
    p_next(p);
    return true;
}

bool p_expect(Parser *p, const char *c) {
    return p_accept(p, c) || p_expected(p, arena_printf(p->arena, "'%s'", c));
}

bool p_expect_word(Parser *p, const char *word) {
    return p_accept_word(p, word) || p_expected(p, arena_printf(p->arena, "'%s'", word));
}

bool p_name(Parser *p, const char *what, const char **out) {
    if (p->tok != TOK_WORD && p->tok != TOK_STRING)
        return p_expected(p, what);
    if (memchr(p->str.s, 0, p->str.n))
        return p_fail_at(p, p->at, "a name cannot hold the byte 0");
    *out = arena_strndup(p->arena, p->str.s, p->str.n);
    p_next(p);
    return true;
}

bool p_path(Parser *p, const char **out) {
    return p->tok == TOK_STRING ? p_name(p, "a path", out) : p_expected(p, "the path of a file, in quotes");
}

bool p_string(Parser *p, Str *out) {
    if (p->tok != TOK_STRING)
        return p_expected(p, "a string");
    *out = p->str;
    p_next(p);
    return true;
}

bool p_int(Parser *p, const char *what, int64_t lo, int64_t hi, int64_t *out) {
    SrcLoc at = p->at;
    bool minus = p_accept(p, "-");
    if (p->tok != TOK_INT && p->tok != TOK_NUMBER)
        return p_expected(p, what);
    int64_t v = minus ? -p->ival : p->ival;
    if (p->tok != TOK_INT || v < lo || v > hi) {
        at.end = p->at.end;
        if (hi == INT64_MAX)
            return p_fail_at(p, at, "%s must be a whole number", what);
        return p_fail_at(p, at, "%s must be a whole number from %lld to %lld", what, (long long)lo, (long long)hi);
    }
    *out = v;
    p_next(p);
    return true;
}

bool p_at_number(const Parser *p) {
    return p->tok == TOK_INT || p->tok == TOK_NUMBER || p_is_word(p, "inf") || p_is_word(p, "nan");
}

double p_token_number(const Parser *p, bool single) {
    char *s = arena_strndup(p->arena, p->str.s, p->str.n);
    return single ? strtof(s, NULL) : strtod(s, NULL);
}

bool p_number(Parser *p, bool single, double *out) {
    bool minus = p_accept(p, "-");
    if (!p_at_number(p))
        return p_expected(p, "a number");
    double v = p_token_number(p, single);
    *out = minus ? -v : v;
    p_next(p);
    return true;
}

/* ==== Lines ==== */

bool p_end_line(Parser *p, SrcLoc *place) {
    *place = NO_LOC;
    if (p->tok == TOK_PLACE) {
        *place = p->place;
        p_next(p);
    }
    if (p->tok != TOK_EOL && p->tok != TOK_END)
        return p_expected(p, "the end of the line");
    p_next(p);
    return true;
}

void p_remember(Parser *p, Graph *g, PlaceOf of, int index, SrcLoc place) {
    Written w = {g, of, index, place};
    vec_push(p->arena, &p->written, w);
}

void p_skip_line(Parser *p) {
    while (p->tok != TOK_EOL && p->tok != TOK_END)
        p_next(p);
    p_next(p);
}

void p_skip_empty(Parser *p) {
    while (p->tok == TOK_EOL)
        p_next(p);
}

bool p_block(Parser *p, LineFn *line, void *ctx) {
    for (p_skip_empty(p); !p_is(p, "}"); p_skip_empty(p)) {
        if (p->tok == TOK_END)
            return p_expected(p, "'}'");
        if (diag_full(p->diag))
            return false;
        if (!line(p, ctx))
            p_skip_line(p);
    }
    p_next(p);
    SrcLoc place;
    return p_end_line(p, &place);
}
