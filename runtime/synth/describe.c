/* describe.c - reads a .synth text for one size: metadata, tensors, where they lie in the file. See synth.h. */
#include "models/models.h"
#include "runtime/synth/synth_int.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32, MAX_ELEMS = 65536 /* of an array; layers too */ };

typedef struct Describer {
    Scope scope;
    const SynthOptions *o;
    Cursor *lines; /* [n_lines] that say something */
    int n_lines;
    int columns; /* of the scope's names; the first ones */
    bool sized;  /* the size asked for was there */
    VEC(const char *) sizes;
    VEC(MetaEntry) meta;
    VEC(int) meta_type; /* GGUF number of the value, of an array's elements */
    VEC(TensorInfo) tensors;
    VEC(SynthValues) values;
} Describer;

/* ==== Sizes ==== */

static void read_columns(Describer *d, Cursor *c) {
    while (!synth_at_end(c) && !d->scope.failed) {
        const char *name = synth_name(c);
        if (name)
            vec_push(d->scope.arena, &d->scope.names, ((Name){.name = name}));
        d->columns++;
    }
}

static void read_size(Describer *d, Cursor *c) {
    Str name = synth_word(c);
    vec_push(d->scope.arena, &d->sizes, arena_strndup(d->scope.arena, name.s, name.n));
    bool wanted = str_eq(name, d->o->size);
    for (int k = 0; k < d->columns && !d->scope.failed; k++) {
        double v = synth_number(c);
        if (!(v >= 0 && v <= INT32_MAX))
            synth_error(c, "a size has numbers from 0 to 2147483647");
        else if (wanted)
            d->scope.names.v[k].value = (int64_t)v;
    }
    d->sized |= wanted;
}

static void apply_setting(Describer *d, const SynthSetting *s) {
    Nearest near = nearest_new((Str){s->column, strlen(s->column)});
    for (int k = 0; k < d->columns; k++) {
        nearest_try(&near, d->scope.names.v[k].name);
        if (strcmp(d->scope.names.v[k].name, s->column) == 0) {
            d->scope.names.v[k].value = s->value;
            return;
        }
    }
    d->scope.failed = true;
    diag_error(d->scope.diag, NO_LOC, "%s has no number \"%s\"", d->o->size, s->column);
    if (nearest_best(&near))
        diag_note(d->scope.diag, NO_LOC, "did you mean \"%s\"?", nearest_best(&near));
}

static int64_t layers_of(const Describer *d) {
    int k = synth_find(&d->scope, (Str){"layers", 6}, d->columns);
    return k < 0 ? 0 : d->scope.names.v[k].value;
}

/* After the last `size`: the numbers are known. */
static void begin_body(Describer *d, Cursor *c, int64_t file_type) {
    for (int k = 0; k < d->o->n_settings && !d->scope.failed; k++)
        apply_setting(d, &d->o->settings[k]);
    if (layers_of(d) < 1 || layers_of(d) > MAX_ELEMS)
        synth_error(c, "layers must be from 1 to %d", MAX_ELEMS);
    vec_push(d->scope.arena, &d->scope.names, ((Name){.name = "file_type", .value = file_type}));
}

/* ==== Statements ==== */

static void read_let(Describer *d, Cursor *c) {
    Name let = {.name = synth_name(c), .is_let = true};
    if (!synth_expect(c, "="))
        return;
    let.expr = *c;
    vec_push(d->scope.arena, &d->scope.names, let);
}

/* What follows a statement: the end, or `if EXPR`. True: it holds. */
static bool read_if(Cursor *c) {
    bool holds = synth_accept(c, "if") ? synth_expr(c) != 0 : true;
    if (!synth_at_end(c))
        synth_error(c, "expected the end of the line, or \"if\"");
    return holds && !c->scope->failed;
}

/* A type of metadata: how it is written in GGUF and what it is in memory. */
static const struct MetaType {
    const char *name;
    int gguf;
    MetaKind kind;
    int64_t least, most;
} meta_types[] = {
    {"u32", 4, META_INT, 0, UINT32_MAX}, {"i32", 5, META_INT, INT32_MIN, INT32_MAX}, {"f32", 6, META_FLOAT, 0, 0},
    {"bool", 7, META_BOOL, 0, 1},        {"string", 8, META_STRING, 0, 0},
};

static const struct MetaType *read_meta_type(Cursor *c) {
    for (size_t k = 0; k < COUNTOF(meta_types); k++)
        if (synth_accept(c, meta_types[k].name))
            return &meta_types[k];
    synth_error(c, "expected u32, i32, f32, bool or string");
    return NULL;
}

/* Everything up to the end of the line or " if ", spaces at its end left out. */
static Str rest_of_line(Cursor *c) {
    synth_at_end(c);
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
        v[k] = synth_expr(c);
        if (v[k] < t->least || v[k] > t->most)
            synth_error(c, "%lld is no %s", (long long)v[k], t->name);
    }
    s->i = layer;
    return v;
}

static void read_key(Describer *d, Cursor *c) {
    Arena *a = d->scope.arena;
    Str name = synth_word(c);
    MetaEntry e = {.key = arena_strndup(a, name.s, name.n), .value = {.n = 1}};
    const struct MetaType *t = read_meta_type(c);
    if (!t)
        return;
    e.value.kind = t->kind;
    e.value.is_array = synth_accept(c, "[");
    if (e.value.is_array) {
        e.value.n = synth_expr(c);
        if (!synth_expect(c, "]"))
            return;
        if (e.value.n < 1 || e.value.n > MAX_ELEMS || t->kind == META_FLOAT || t->kind == META_STRING) {
            synth_error(c, "an array holds 1 to %d integers or bools", MAX_ELEMS);
            return;
        }
    }
    if (t->kind == META_FLOAT) {
        double *f = arena_alloc(a, sizeof *f);
        *f = (double)(float)synth_number(c);
        e.value.f = f;
    } else if (t->kind == META_STRING) {
        Str *s = arena_alloc(a, sizeof *s);
        s->s = synth_replace(c, rest_of_line(c), d->o->size);
        s->n = strlen(s->s);
        e.value.s = s;
    } else {
        e.value.i = read_ints(c, t, e.value.n, e.value.is_array);
    }
    if (!read_if(c))
        return;
    vec_push(a, &d->meta, e);
    vec_push(a, &d->meta_type, t->gguf);
}

static void read_dims(Cursor *c, TensorInfo *t) {
    synth_expect(c, "[");
    do {
        if (t->rank == MAX_DIMS) {
            synth_error(c, "a tensor has at most %d dimensions", MAX_DIMS);
            return;
        }
        t->dims[t->rank++] = synth_expr(c);
    } while (synth_accept(c, ","));
    synth_expect(c, "]");
}

static SynthValues read_values(Cursor *c) {
    SynthValues v = {0};
    if (synth_accept(c, "fan")) {
        int64_t n = synth_expr(c);
        v.kind = SYNTH_FAN;
        v.a = n > 0 ? (float)(1 / sqrt((double)n)) : 1;
    } else if (synth_accept(c, "near")) {
        v.kind = SYNTH_NEAR;
        v.a = (float)synth_number(c);
    } else if (synth_accept(c, "first")) {
        v.kind = SYNTH_FIRST;
        v.n = (int64_t)synth_number(c);
        v.a = (float)synth_number(c);
        synth_expect(c, "rest");
        v.b = (float)synth_number(c);
    } else {
        synth_error(c, "expected fan, near or first");
    }
    return v;
}

static void read_tensor(Describer *d, Cursor *c) {
    Arena *a = d->scope.arena;
    TensorInfo t = {.name = synth_replace(c, synth_word(c), d->o->size)};
    Str type = synth_word(c);
    t.dtype = dtype_from_name(type);
    if (t.dtype != DT_F32 && t.dtype != DT_BF16)
        synth_error(c, "a converted tensor is f32 or bf16");
    read_dims(c, &t);
    SynthValues v = read_values(c);
    v.key = hash_bytes(t.name, strlen(t.name), d->o->seed);
    if (!read_if(c))
        return;
    for (int k = 0; k < t.rank; k++)
        if (t.dims[k] < 1 || t.dims[k] > INT32_MAX)
            synth_error(c, "dimension %d of %s is %lld", k, t.name, (long long)t.dims[k]);
    if (!fill_knows(t.dtype, v.kind))
        synth_error(c, "only f32 can have such values");
    vec_push(a, &d->tensors, t);
    vec_push(a, &d->values, v);
}

/* ==== Lines ==== */

/* The lines that say something, without comments, each NUL-terminated. */
static void split_lines(Describer *d, const char *text) {
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

typedef struct Statement {
    const char *word;
    void (*read)(Describer *d, Cursor *c);
} Statement;

static const Statement head[] = {{"columns", read_columns}, {"size", read_size}};
static const Statement body[] = {{"let", read_let}, {"key", read_key}, {"tensor", read_tensor}};

static bool read_statement(Describer *d, Cursor c, const Statement *all, size_t n) {
    c.names = d->scope.names.n;
    for (size_t k = 0; k < n; k++) {
        if (!synth_accept(&c, all[k].word))
            continue;
        all[k].read(d, &c);
        return true;
    }
    return false;
}

/* Reads from line `at`, after "each layer", to its "end"; gives the number of the line after that. */
static int read_layers(Describer *d, int at) {
    int end = at;
    int64_t layers = layers_of(d);
    for (int64_t i = 0; i < layers && !d->scope.failed; i++) {
        d->scope.i = i;
        for (end = at; end < d->n_lines && strcmp(d->lines[end].p, "end") != 0; end++)
            if (!read_statement(d, d->lines[end], body + 1, COUNTOF(body) - 1))
                synth_error(&d->lines[end], "expected key, tensor or end");
    }
    d->scope.i = -1;
    if (end == d->n_lines)
        synth_error(&d->lines[at - 1], "no \"end\" follows");
    return end + 1;
}

static void read_text(Describer *d, int64_t file_type) {
    int k = 0;
    while (k < d->n_lines && !d->scope.failed && read_statement(d, d->lines[k], head, COUNTOF(head)))
        k++;
    if (!d->sized || k == d->n_lines)
        return;
    begin_body(d, &d->lines[k], file_type);
    while (k < d->n_lines && !d->scope.failed) {
        Cursor c = d->lines[k++];
        if (synth_accept(&c, "each") && synth_accept(&c, "layer"))
            k = read_layers(d, k);
        else if (!read_statement(d, d->lines[k - 1], body, COUNTOF(body)))
            synth_error(&d->lines[k - 1], "expected let, key, tensor or each layer");
    }
}

/* ==== The file ==== */

static void put(Buf *b, uint64_t v, int bytes) {
    for (int k = 0; k < bytes; k++)
        buf_char(b, (char)(v >> 8 * k));
}

static void put_string(Buf *b, const char *s) {
    put(b, strlen(s), 8);
    buf_str(b, s);
}

static void put_element(Buf *b, const MetaValue *v, int64_t i, int gguf) {
    if (v->kind == META_STRING) {
        put_string(b, v->s[i].s);
    } else if (v->kind == META_FLOAT) {
        float f = (float)v->f[i];
        buf_bytes(b, &f, sizeof f);
    } else {
        put(b, (uint64_t)v->i[i], gguf == 7 ? 1 : 4);
    }
}

static void put_key(Buf *b, const MetaEntry *e, int gguf) {
    put_string(b, e->key);
    if (e->value.is_array) {
        put(b, 9, 4);
        put(b, (uint64_t)gguf, 4);
        put(b, (uint64_t)e->value.n, 8);
    } else {
        put(b, (uint64_t)gguf, 4);
    }
    for (int64_t i = 0; i < e->value.n; i++)
        put_element(b, &e->value, i, gguf);
}

/* Sizes and, from the start of the data, places. False: too large for a file. */
static bool lay_out(TensorInfo *t, uint64_t *offset, int n, uint64_t *end) {
    uint64_t at = 0;
    for (int k = 0; k < n; k++) {
        const DTypeInfo *type = dtype_info(t[k].dtype);
        int64_t elems = 1;
        bool over = false;
        for (int r = 0; r < t[k].rank; r++)
            over |= __builtin_mul_overflow(elems, t[k].dims[r], &elems);
        if (over || elems > INT64_MAX / 16)
            return false;
        t[k].file_type = (uint32_t)type->gguf_id;
        t[k].bytes = (uint64_t)(elems / type->block_elems * type->block_bytes);
        offset[k] = at;
        at += (t[k].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        if (at > (uint64_t)1 << 62)
            return false;
    }
    *end = at;
    return true;
}

static void write_header(Describer *d, SynthModel *m, uint64_t *offset) {
    Buf b = {0};
    buf_str(&b, "GGUF");
    put(&b, 3, 4);
    put(&b, (uint64_t)d->tensors.n, 8);
    put(&b, (uint64_t)d->meta.n, 8);
    for (int k = 0; k < d->meta.n; k++)
        put_key(&b, &d->meta.v[k], d->meta_type.v[k]);
    for (int k = 0; k < d->tensors.n; k++) {
        const TensorInfo *t = &d->tensors.v[k];
        put_string(&b, t->name);
        put(&b, (uint64_t)t->rank, 4);
        for (int r = t->rank - 1; r >= 0; r--)
            put(&b, (uint64_t)t->dims[r], 8);
        put(&b, t->file_type, 4);
        put(&b, offset[k], 8);
    }
    while (b.n % ALIGNMENT)
        buf_char(&b, 0);
    m->header = arena_strndup(d->scope.arena, b.s, b.n);
    m->header_bytes = b.n;
    buf_free(&b);
}

static SynthModel *finish(Describer *d, const QuantRule *quant) {
    Arena *a = d->scope.arena;
    int n = d->tensors.n;
    SynthModel *m = arena_alloc(a, sizeof *m);
    uint64_t *offset = arena_array(a, (size_t)n + 1, sizeof *offset);
    uint64_t data;
    quant_types(quant, d->tensors.v, n, layers_of(d));
    if (!lay_out(d->tensors.v, offset, n, &data)) {
        diag_error(d->scope.diag, NO_LOC, "%s: the tensors are too large for a file", d->o->size);
        return NULL;
    }
    write_header(d, m, offset);
    for (int k = 0; k < n; k++)
        offset[k] += m->header_bytes;
    m->file = (ModelFile){.path = d->o->size,
                          .arch = "",
                          .meta = d->meta.v,
                          .n_meta = d->meta.n,
                          .tensors = d->tensors.v,
                          .n_tensors = n};
    modelfile_index(&m->file, a);
    const MetaValue *arch = modelfile_meta(&m->file, "general.architecture");
    if (arch && arch->kind == META_STRING)
        m->file.arch = arch->s[0].s;
    m->values = d->values.v;
    m->offset = offset;
    m->bytes = m->header_bytes + data;
    return m;
}

/* ==== Entry ==== */

static Describer describer(Arena *a, Diag *diag, const SynthOptions *o) {
    return (Describer){.scope = {.arena = a, .diag = diag, .i = -1}, .o = o};
}

static void unknown_size(Diag *diag, const char *size, const char *const *names, int n) {
    Nearest near = nearest_new((Str){size, strlen(size)});
    Buf all = {0};
    for (int k = 0; k < n; k++) {
        nearest_try(&near, names[k]);
        buf_printf(&all, "%s%s", k ? ", " : "", names[k]);
    }
    diag_error(diag, NO_LOC, "no size \"%s\"", size);
    if (nearest_best(&near))
        diag_note(diag, NO_LOC, "did you mean \"%s\"?", nearest_best(&near));
    diag_note(diag, NO_LOC, "there are %s", n ? all.s : "none");
    buf_free(&all);
}

SynthModel *synth_model_of_text(Arena *a, Diag *diag, const char *name, const char *text, const SynthOptions *o) {
    const QuantRule *quant = quant_rule(a, diag, o->quant);
    if (!quant)
        return NULL;
    Describer d = describer(a, diag, o);
    d.scope.file = diag_source(diag, name, text, strlen(text));
    split_lines(&d, text);
    read_text(&d, quant_file_type(quant));
    if (!d.sized && !d.scope.failed)
        unknown_size(diag, o->size, d.sizes.v, d.sizes.n);
    return d.sized && !d.scope.failed ? finish(&d, quant) : NULL;
}

/* Adds the sizes of a text; true when the one wanted is among them. */
static bool lists_size(Describer *d, const char *text) {
    d->sized = false;
    d->columns = 0;
    d->scope.names.n = 0;
    split_lines(d, text);
    for (int k = 0; k < d->n_lines && read_statement(d, d->lines[k], head, COUNTOF(head)); k++)
        ;
    return d->sized;
}

SynthModel *synth_model(Arena *a, Diag *diag, const SynthOptions *o) {
    Describer d = describer(a, diag, o);
    for (int k = 0; k < n_synth_texts; k++)
        if (lists_size(&d, synth_texts[k].text))
            return synth_model_of_text(a, diag, synth_texts[k].name, synth_texts[k].text, o);
    unknown_size(diag, o->size, d.sizes.v, d.sizes.n);
    return NULL;
}
