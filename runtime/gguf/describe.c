/* describe.c - the statements that every description of a GGUF file has. See describe.h. */
#include "runtime/gguf/describe.h"
#include <string.h>

Description desc_new(Arena *a, Diag *diag) {
    return (Description){.scope = {.arena = a, .diag = diag, .i = -1}};
}

int64_t desc_value(const Description *d, const char *name) {
    int k = desc_find(&d->scope, (Str){name, strlen(name)}, d->scope.names.n);
    return k < 0 || d->scope.names.v[k].kind != NAME_NUMBER ? 0 : d->scope.names.v[k].value;
}

void desc_put(Description *d, MetaEntry e, int type) {
    vec_push(d->scope.arena, &d->meta.entries, e);
    vec_push(d->scope.arena, &d->meta.types, type);
}

/* ==== Statements ==== */

static void read_let(Description *d, Cursor *c) {
    Name let = {.name = desc_name(c), .kind = NAME_LET};
    if (!desc_expect(c, "="))
        return;
    let.expr = *c;
    vec_push(d->scope.arena, &d->scope.names, let);
}

bool desc_if(Cursor *c) {
    bool holds = desc_accept(c, "if") ? desc_expr(c) != 0 : true;
    if (!desc_at_end(c))
        desc_error(c, "expected the end of the line, or \"if\"");
    return holds && !c->scope->failed;
}

/* A type of metadata: how it is written in GGUF and what it is in memory. */
static const struct MetaType {
    const char *name;
    int gguf;
    MetaKind kind;
    int64_t least, most;
} meta_types[] = {
    {"u32", GGUF_OUT_U32, META_INT, 0, UINT32_MAX}, {"i32", GGUF_OUT_I32, META_INT, INT32_MIN, INT32_MAX},
    {"f32", GGUF_OUT_F32, META_FLOAT, 0, 0},        {"bool", GGUF_OUT_BOOL, META_BOOL, 0, 1},
    {"string", GGUF_OUT_STRING, META_STRING, 0, 0},
};

static const struct MetaType *read_meta_type(Cursor *c) {
    for (size_t k = 0; k < COUNTOF(meta_types); k++)
        if (desc_accept(c, meta_types[k].name))
            return &meta_types[k];
    desc_error(c, "expected u32, i32, f32, bool or string");
    return NULL;
}

/* Everything up to the end of the line or " if ", spaces at its end left out. */
static Str rest_of_line(Cursor *c) {
    desc_at_end(c);
    const char *end = strstr(c->p, " if ");
    Str s = {c->p, end ? (size_t)(end - c->p) : strlen(c->p)};
    c->p += s.n;
    while (s.n && (s.s[s.n - 1] == ' ' || s.s[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* n integers, the expression once for each i. */
static const int64_t *read_ints(Cursor *c, const struct MetaType *t, int64_t n, bool is_array) {
    Scope *s = c->scope;
    int64_t *v = arena_array(s->arena, (size_t)n, sizeof *v);
    Cursor start = *c;
    int64_t layer = s->i;
    for (int64_t k = 0; k < n && !s->failed; k++) {
        *c = start;
        s->i = is_array ? k : layer;
        v[k] = desc_expr(c);
        if (v[k] < t->least || v[k] > t->most)
            desc_error(c, "%lld is no %s", (long long)v[k], t->name);
    }
    s->i = layer;
    return v;
}

static void read_key(Description *d, Cursor *c) {
    Arena *a = d->scope.arena;
    Str name = desc_word(c);
    MetaEntry e = {.key = arena_strndup(a, name.s, name.n), .value = {.n = 1}};
    const struct MetaType *t = read_meta_type(c);
    if (!t)
        return;
    e.value.kind = t->kind;
    e.value.is_array = desc_accept(c, "[");
    if (e.value.is_array) {
        e.value.n = desc_expr(c);
        if (!desc_expect(c, "]"))
            return;
        if (e.value.n < 1 || e.value.n > DESC_MAX_ELEMS || t->kind == META_FLOAT || t->kind == META_STRING) {
            desc_error(c, "an array holds 1 to %d integers or bools", DESC_MAX_ELEMS);
            return;
        }
    }
    if (t->kind == META_FLOAT) {
        double *f = arena_alloc(a, sizeof *f);
        *f = (double)(float)desc_real(c);
        e.value.f = f;
    } else if (t->kind == META_STRING) {
        Str *s = arena_alloc(a, sizeof *s);
        s->s = desc_replace(c, rest_of_line(c));
        s->n = strlen(s->s);
        e.value.s = s;
    } else {
        e.value.i = read_ints(c, t, e.value.n, e.value.is_array);
    }
    if (!desc_if(c))
        return;
    desc_put(d, e, t->gguf);
}

void desc_dims(Cursor *c, TensorInfo *t) {
    desc_expect(c, "[");
    do {
        if (t->rank == MAX_DIMS) {
            desc_error(c, "a tensor has at most %d dimensions", MAX_DIMS);
            return;
        }
        t->dims[t->rank++] = desc_expr(c);
    } while (desc_accept(c, ","));
    desc_expect(c, "]");
}

/* ==== Lines ==== */

/* The lines that say something, without comments, each NUL-terminated. */
static void split_lines(Description *d, const char *text) {
    VEC(Cursor) lines = {0};
    int number = 0;
    while (*text) {
        size_t n = strcspn(text, "\n");
        size_t cut = n;
        for (size_t k = 0; k < n && cut == n; k++)
            if (text[k] == '#')
                cut = k;
        while (cut && strchr(" \t\r", text[cut - 1]))
            cut--;
        const char *line = arena_strndup(d->scope.arena, text, cut);
        number++;
        if (cut)
            vec_push(d->scope.arena, &lines, ((Cursor){.scope = &d->scope, .line = number, .text = line, .p = line}));
        text += n + (text[n] == '\n');
    }
    d->lines = lines.v;
    d->n_lines = lines.n;
}

void desc_open(Description *d, const char *name, const char *text) {
    d->scope.file = diag_source(d->scope.diag, name, text, strlen(text));
    split_lines(d, text);
}

enum { LET, KEY };
static const Statement common[] = {[LET] = {"let", read_let}, [KEY] = {"key", read_key}};

bool desc_statement(Description *d, Cursor c, const Statement *all, size_t n) {
    c.names = d->scope.names.n;
    for (size_t k = 0; k < n; k++) {
        if (!desc_accept(&c, all[k].word))
            continue;
        all[k].read(d, &c);
        return true;
    }
    return false;
}

/* "key, tensor": the common statements from `from` on, then the language's own. */
static const char *words(const Description *d, size_t from, const Statement *all, size_t n) {
    const char *list = common[from].word;
    for (size_t k = from + 1; k < COUNTOF(common) + n; k++)
        list = arena_printf(d->scope.arena, "%s, %s", list,
                            k < COUNTOF(common) ? common[k].word : all[k - COUNTOF(common)].word);
    return list;
}

/* Reads from line `at`, after "each layer", to its "end"; gives the number of the line after that. */
static int read_layers(Description *d, int at, const Statement *all, size_t n) {
    int end = at;
    int64_t layers = desc_value(d, "layers");
    if (layers < 1 || layers > DESC_MAX_ELEMS)
        desc_error(&d->lines[at - 1], "layers must be from 1 to %d", DESC_MAX_ELEMS);
    for (int64_t i = 0; i < layers && !d->scope.failed; i++) {
        d->scope.i = i;
        for (end = at; end < d->n_lines && strcmp(d->lines[end].p, "end") != 0; end++)
            if (!desc_statement(d, d->lines[end], &common[KEY], 1) && !desc_statement(d, d->lines[end], all, n))
                desc_error(&d->lines[end], "expected %s or end", words(d, 1, all, n));
    }
    d->scope.i = -1;
    if (end == d->n_lines)
        desc_error(&d->lines[at - 1], "no \"end\" follows");
    return end + 1;
}

void desc_body(Description *d, int at, const Statement *all, size_t n) {
    while (at < d->n_lines && !d->scope.failed) {
        Cursor c = d->lines[at++];
        if (desc_accept(&c, "each") && desc_accept(&c, "layer"))
            at = read_layers(d, at, all, n);
        else if (!desc_statement(d, d->lines[at - 1], common, COUNTOF(common)) &&
                 !desc_statement(d, d->lines[at - 1], all, n))
            desc_error(&d->lines[at - 1], "expected %s or each layer", words(d, 0, all, n));
    }
}
