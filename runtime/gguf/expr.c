/* expr.c - words and integer expressions of a line of a description, read and worked out in one go.
 *
 * A `let` keeps the place of its expression and is read again wherever it is used, so that it may speak of i.
 * It sees only names from lines before its own: no expression can reach itself.
 */
#include "runtime/gguf/describe.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

/* ==== Words ==== */

int64_t desc_error(Cursor *c, const char *fmt, ...) {
    Scope *s = c->scope;
    if (!s->failed) {
        va_list ap;
        va_start(ap, fmt);
        int col = (int)(c->p - c->text) + 1;
        diag_error(s->diag, (SrcLoc){s->file, c->line, col, col + 1}, "%s", arena_vprintf(s->arena, fmt, ap));
        va_end(ap);
    }
    s->failed = true;
    return 0;
}

static void skip_space(Cursor *c) {
    while (*c->p == ' ' || *c->p == '\t')
        c->p++;
}

bool desc_at_end(Cursor *c) {
    skip_space(c);
    return !*c->p;
}

static bool in_name(char ch) {
    return isalnum((unsigned char)ch) || ch == '_';
}

bool desc_accept(Cursor *c, const char *text) {
    skip_space(c);
    size_t n = strlen(text);
    if (strncmp(c->p, text, n) != 0 || (in_name(text[n - 1]) && in_name(c->p[n])))
        return false;
    c->p += n;
    return true;
}

bool desc_expect(Cursor *c, const char *text) {
    if (!desc_accept(c, text))
        desc_error(c, "expected \"%s\"", text);
    return !c->scope->failed;
}

Str desc_word(Cursor *c) {
    skip_space(c);
    Str s = {c->p, strcspn(c->p, " \t")};
    c->p += s.n;
    return s;
}

const char *desc_name(Cursor *c) {
    skip_space(c);
    size_t n = 0;
    while (in_name(c->p[n]))
        n++;
    if (n == 0 || isdigit((unsigned char)*c->p)) {
        desc_error(c, "expected a name");
        return NULL;
    }
    c->p += n;
    return arena_strndup(c->scope->arena, c->p - n, n);
}

double desc_number(Cursor *c) {
    skip_space(c);
    char *end;
    double v = strtod(c->p, &end);
    if (end == c->p || (*end && *end != ' ' && *end != '\t') || !(v < 3e38 && v > -3e38))
        return (double)desc_error(c, "expected a number");
    c->p = end;
    return v;
}

/* ==== Names ==== */

double desc_real(Cursor *c) {
    Cursor start = *c;
    skip_space(c);
    if (!isalpha((unsigned char)*c->p))
        return desc_number(c);
    const char *name = desc_name(c);
    int k = name ? desc_find(c->scope, (Str){name, strlen(name)}, c->names) : -1;
    if (k < 0 || c->scope->names.v[k].kind != NAME_REAL)
        return (double)desc_error(&start, "expected a number, or the name of one that is no integer");
    return c->scope->names.v[k].real;
}

int desc_find(const Scope *s, Str name, int names) {
    for (int k = names - 1; k >= 0; k--)
        if (str_eq(name, s->names.v[k].name))
            return k;
    return -1;
}

static int64_t name_value(Cursor *c) {
    Cursor start = *c;
    const char *name = desc_name(c);
    Scope *s = c->scope;
    if (!name)
        return 0;
    if (strcmp(name, "i") == 0)
        return s->i >= 0 ? s->i : desc_error(&start, "i has a value only between \"each layer\" and \"end\"");
    int k = desc_find(s, (Str){name, strlen(name)}, c->names);
    if (k < 0)
        return desc_error(&start, "no name \"%s\" before this line", name);
    const Name *n = &s->names.v[k];
    Cursor let = n->expr;
    switch (n->kind) {
    case NAME_NUMBER: return n->value;
    case NAME_REAL: return desc_error(&start, "%s is no integer", name);
    case NAME_ARRAY:
        if (s->i < 0 || s->i >= n->value)
            return desc_error(&start, "%s has %lld values, none for i = %lld", name, (long long)n->value,
                              (long long)s->i);
        return n->array[s->i];
    case NAME_LET: break;
    }
    let.depth = c->depth;
    return desc_expr(&let);
}

static const char *text_of(const Scope *s, Str word) {
    for (int k = 0; k < s->texts.n; k++)
        if (str_eq(word, s->texts.v[k].word))
            return s->texts.v[k].text;
    return NULL;
}

const char *desc_replace(Cursor *c, Str text) {
    Buf b = {0};
    for (size_t k = 0; k < text.n; k++) {
        const char *close = text.s[k] == '{' ? memchr(text.s + k, '}', text.n - k) : NULL;
        if (!close) {
            buf_char(&b, text.s[k]);
            continue;
        }
        Str name = {text.s + k + 1, (size_t)(close - text.s) - k - 1};
        Cursor inner = *c;
        inner.p = name.s;
        const char *known = text_of(c->scope, name);
        if (known)
            buf_str(&b, known);
        else
            buf_printf(&b, "%lld", (long long)name_value(&inner));
        k += name.n + 1;
    }
    const char *s = arena_strndup(c->scope->arena, b.n ? b.s : "", b.n);
    buf_free(&b);
    return s;
}

/* ==== Expressions ==== */

typedef enum Op { OP_OR, OP_AND, OP_EQ, OP_NE, OP_LE, OP_GE, OP_LT, OP_GT, OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_MOD } Op;

/* A longer text stands before a shorter one that begins alike. */
static const struct {
    const char *text;
    int level; /* binds the tighter the higher */
    Op op;
} ops[] = {{"or", 1, OP_OR}, {"and", 2, OP_AND}, {"==", 3, OP_EQ}, {"!=", 3, OP_NE}, {"<=", 3, OP_LE},
           {">=", 3, OP_GE}, {"<", 3, OP_LT},    {">", 3, OP_GT},  {"+", 4, OP_ADD}, {"-", 4, OP_SUB},
           {"*", 5, OP_MUL}, {"/", 5, OP_DIV},   {"%", 5, OP_MOD}};

static int64_t apply(Cursor *c, Op op, int64_t a, int64_t b) {
    int64_t r = 0;
    bool over = false;
    if (c->scope->failed)
        return 0;
    switch (op) {
    case OP_OR: return a || b;
    case OP_AND: return a && b;
    case OP_EQ: return a == b;
    case OP_NE: return a != b;
    case OP_LE: return a <= b;
    case OP_GE: return a >= b;
    case OP_LT: return a < b;
    case OP_GT: return a > b;
    case OP_ADD: over = __builtin_add_overflow(a, b, &r); break;
    case OP_SUB: over = __builtin_sub_overflow(a, b, &r); break;
    case OP_MUL: over = __builtin_mul_overflow(a, b, &r); break;
    case OP_DIV:
    case OP_MOD:
        if (b <= 0 || a < 0)
            return desc_error(c, "%lld divided by %lld", (long long)a, (long long)b);
        return op == OP_DIV ? a / b : a % b;
    }
    return over ? desc_error(c, "too large a number") : r;
}

static int64_t primary(Cursor *c) {
    if (desc_accept(c, "(")) {
        int64_t v = desc_expr(c);
        desc_expect(c, ")");
        return v;
    }
    skip_space(c);
    if (!isdigit((unsigned char)*c->p))
        return name_value(c);
    int64_t v = 0;
    while (isdigit((unsigned char)*c->p) && !c->scope->failed)
        v = apply(c, OP_ADD, apply(c, OP_MUL, v, 10), *c->p++ - '0');
    return v;
}

static int64_t unary(Cursor *c) {
    bool is_negated = false;
    bool is_truth = false;
    for (; desc_accept(c, "not"); is_truth = true)
        is_negated = !is_negated;
    int64_t v = primary(c);
    return is_truth ? (v != 0) != is_negated : v;
}

static int64_t binary(Cursor *c, int level) {
    int64_t v = unary(c);
    for (size_t k = 0; k < COUNTOF(ops) && !c->scope->failed; k++) {
        if (ops[k].level < level || !desc_accept(c, ops[k].text))
            continue;
        int64_t right = binary(c, ops[k].level + 1);
        v = apply(c, ops[k].op, v, right);
        k = (size_t)-1; /* from the start: another operator may follow */
    }
    return v;
}

int64_t desc_expr(Cursor *c) {
    if (++c->depth > MAX_DEPTH)
        return desc_error(c, "nested more than %d deep", MAX_DEPTH);
    int64_t v = binary(c, 1);
    if (!c->scope->failed && desc_accept(c, "?")) {
        int64_t yes = desc_expr(c);
        desc_expect(c, ":");
        int64_t no = desc_expr(c);
        v = v ? yes : no;
    }
    c->depth--;
    return c->scope->failed ? 0 : v;
}
