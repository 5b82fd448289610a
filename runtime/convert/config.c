/* config.c - the statements of a .convert text that read config.json. */
#include "runtime/convert/convert_int.h"
#include <math.h>
#include <string.h>

/* The start of a text from outside, for messages. */
static const char *shown(Arena *a, Str s) {
    return arena_strndup(a, s.s, s.n < 64 ? s.n : 64);
}

static const char *text_of(Arena *a, Str s) {
    return arena_strndup(a, s.s, s.n);
}

const MetaValue *recipe_config(const Recipe *r, Str path, const char **key) {
    Arena *a = r->base.scope.arena;
    const char *name = text_of(a, path);
    for (int k = 0; k < r->objects.n; k++) {
        const char *in = arena_printf(a, "%s.%s", r->objects.v[k], name);
        const MetaValue *v = modelfile_meta(r->source, in);
        if (key)
            *key = in;
        if (v)
            return v;
    }
    const MetaValue *v = modelfile_meta(r->source, name);
    if (key && (v || r->objects.n == 0))
        *key = name;
    return v;
}

/* Reports about a key of config.json; the text is read no further. */
__attribute__((format(printf, 3, 4))) static void config_error(Recipe *r, const char *key, const char *fmt, ...) {
    Scope *s = &r->base.scope;
    va_list ap;
    va_start(ap, fmt);
    if (!s->failed)
        diag_error(s->diag, r->config, "key '%s': %s", key, arena_vprintf(s->arena, fmt, ap));
    va_end(ap);
    s->failed = true;
}

static void add_name(Recipe *r, Name n) {
    if (n.name && !r->base.scope.failed)
        vec_push(r->base.scope.arena, &r->base.scope.names, n);
}

void recipe_within(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    while (!desc_at_end(c))
        vec_push(d->scope.arena, &r->objects, text_of(d->scope.arena, desc_word(c)));
}

static void end_of_line(Cursor *c) {
    if (!desc_at_end(c))
        desc_error(c, "expected the end of the line");
}

/* A scalar that is a number, or an error. */
static bool as_real(Recipe *r, const char *key, const MetaValue *v, double *out) {
    if (v->is_array || v->kind == META_STRING) {
        config_error(r, key, "is no number");
        return false;
    }
    *out = v->kind == META_FLOAT ? v->f[0] : (double)v->i[0];
    if (!isfinite(*out))
        config_error(r, key, "is no finite number");
    return isfinite(*out);
}

static bool as_integer(Recipe *r, const char *key, const MetaValue *v, double times, int64_t *out) {
    double x = 0;
    if (!as_real(r, key, v, &x))
        return false;
    if (times == 1 && v->kind == META_FLOAT && x != floor(x)) {
        config_error(r, key, "is %g, no integer", x);
        return false;
    }
    x = floor(x * times);
    /* No number of a model is larger, and sums and products of a few of these stay within 64 bits. */
    if (!(x >= 0 && x <= INT32_MAX)) {
        config_error(r, key, "is %g; it must be from 0 to %d", x, INT32_MAX);
        return false;
    }
    *out = (int64_t)x;
    return true;
}

/* NAME KEY [times NUMBER] [else EXPRESSION] for an integer; NAME KEY [else NUMBER] for another number. */
static void read_scalar(Description *d, Cursor *c, bool is_integer) {
    Recipe *r = (Recipe *)d;
    const char *key = NULL;
    Name n = {.name = desc_name(c), .kind = is_integer ? NAME_NUMBER : NAME_REAL};
    const MetaValue *v = recipe_config(r, desc_word(c), &key);
    const double times = is_integer && desc_accept(c, "times") ? desc_number(c) : 1;
    const bool has_else = desc_accept(c, "else");
    if (has_else && is_integer)
        n.value = desc_expr(c);
    else if (has_else)
        n.real = desc_number(c);
    end_of_line(c);
    if (v && is_integer)
        as_integer(r, key, v, times, &n.value);
    else if (v)
        as_real(r, key, v, &n.real);
    else if (!has_else)
        config_error(r, key, "is missing");
    add_name(r, n);
}

void recipe_number(Description *d, Cursor *c) {
    read_scalar(d, c, true);
}

void recipe_real(Description *d, Cursor *c) {
    read_scalar(d, c, false);
}

void recipe_given(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    Name n = {.name = desc_name(c), .kind = NAME_NUMBER};
    n.value = recipe_config(r, desc_word(c), NULL) != NULL;
    end_of_line(c);
    add_name(r, n);
}

void recipe_count(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    const char *key = NULL;
    Name n = {.name = desc_name(c), .kind = NAME_NUMBER};
    const MetaValue *v = recipe_config(r, desc_word(c), &key);
    end_of_line(c);
    if (!v || !v->is_array)
        config_error(r, key, "%s", v ? "is no list" : "is missing");
    else if (v->n < 1 || v->n > DESC_MAX_ELEMS)
        config_error(r, key, "has %lld values; it must be 1 to %d", (long long)v->n, DESC_MAX_ELEMS);
    else
        n.value = v->n;
    add_name(r, n);
}

/* ==== Arrays ==== */

/* What the values of an array of texts mean. */
typedef struct Words {
    Str yes, no;
} Words;

static void read_values(Recipe *r, const char *key, const MetaValue *v, const Words *w, int64_t *out, int64_t n) {
    if (!v->is_array || v->n != n) {
        config_error(r, key, v->is_array ? "has %lld values, but there must be %lld" : "is no list", (long long)v->n,
                     (long long)n);
        return;
    }
    bool fits = n == 0 || (w ? v->kind == META_STRING : v->kind == META_INT || v->kind == META_BOOL);
    if (!fits)
        config_error(r, key, "must hold %s", w ? "texts" : "integers");
    for (int64_t i = 0; i < n && fits; i++) {
        if (!w)
            out[i] = v->i[i];
        else if (str_same(v->s[i], w->yes) || str_same(v->s[i], w->no))
            out[i] = str_same(v->s[i], w->yes);
        else
            config_error(r, key, "value %lld is \"%s\"; it must be \"%.*s\" or \"%.*s\"", (long long)i,
                         shown(r->base.scope.arena, v->s[i]), STR_FMT(w->yes), STR_FMT(w->no));
        if (!w && (out[i] < 0 || out[i] > INT32_MAX))
            config_error(r, key, "value %lld is %lld; it must be from 0 to %d", (long long)i, (long long)out[i],
                         INT32_MAX);
    }
}

void recipe_array(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    const char *key = NULL;
    Name n = {.name = desc_name(c), .kind = NAME_ARRAY};
    desc_expect(c, "[");
    n.value = desc_expr(c);
    desc_expect(c, "]");
    const MetaValue *v = recipe_config(r, desc_word(c), &key);
    Words words = {0};
    bool has_words = desc_accept(c, "is");
    if (has_words) {
        words.yes = desc_word(c);
        desc_expect(c, "or");
        words.no = desc_word(c);
    }
    if (n.value < 0 || n.value > DESC_MAX_ELEMS)
        config_error(r, key, "would have %lld values; the limit is %d", (long long)n.value, DESC_MAX_ELEMS);
    if (d->scope.failed)
        return;
    int64_t *out = arena_array(d->scope.arena, (size_t)n.value + 1, sizeof *out);
    bool has_else = desc_accept(c, "else");
    Cursor expr = *c;
    for (d->scope.i = 0; has_else && d->scope.i < n.value; d->scope.i++) {
        *c = expr;
        out[d->scope.i] = desc_expr(c);
    }
    d->scope.i = -1;
    end_of_line(c);
    if (v)
        read_values(r, key, v, has_words ? &words : NULL, out, n.value);
    else if (!has_else)
        config_error(r, key, "is missing");
    n.array = out;
    add_name(r, n);
}

/* ==== Expectations ==== */

/* As JSON has it, texts without quotes. */
static const char *value_text(Arena *a, const MetaValue *v) {
    if (v->is_array)
        return "a list";
    switch (v->kind) {
    case META_STRING: return shown(a, v->s[0]);
    case META_BOOL: return v->i[0] ? "true" : "false";
    case META_INT: return arena_printf(a, "%lld", (long long)v->i[0]);
    case META_FLOAT: return arena_printf(a, "%g", v->f[0]);
    }
    return "";
}

void recipe_expect(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    Arena *a = d->scope.arena;
    const char *key = NULL, *all = "";
    const MetaValue *v = recipe_config(r, desc_word(c), &key);
    const char *got = v ? value_text(a, v) : "";
    bool found = !v;
    for (int k = 0; !desc_at_end(c); k++) {
        Str word = desc_word(c);
        found |= str_eq(word, got);
        all = arena_printf(a, "%s%s%.*s", all, k ? " or " : "", STR_FMT(word));
    }
    if (!found)
        config_error(r, key, "is %s; only %s can be converted", got, all);
}
