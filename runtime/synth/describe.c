/* describe.c - reads a .synth text for one size: metadata, tensors, where they lie in the file. See synth.h. */
#include "models/models.h"
#include "runtime/synth/synth_int.h"
#include <math.h>
#include <string.h>

typedef struct Describer {
    Description base; /* first: statements get it */
    const SynthOptions *o;
    int columns; /* of the scope's names; the first ones */
    bool sized;  /* the size asked for was there */
    VEC(const char *) sizes;
    VEC(SynthValues) values;
} Describer;

/* ==== Sizes ==== */

static void read_columns(Description *base, Cursor *c) {
    Describer *d = (Describer *)base;
    while (!desc_at_end(c) && !d->base.scope.failed) {
        const char *name = desc_name(c);
        if (name)
            vec_push(d->base.scope.arena, &d->base.scope.names, ((Name){.name = name}));
        d->columns++;
    }
}

static void read_size(Description *base, Cursor *c) {
    Describer *d = (Describer *)base;
    Str name = desc_word(c);
    vec_push(d->base.scope.arena, &d->sizes, arena_strndup(d->base.scope.arena, name.s, name.n));
    bool wanted = str_eq(name, d->o->size);
    for (int k = 0; k < d->columns && !d->base.scope.failed; k++) {
        double v = desc_number(c);
        if (!(v >= 0 && v <= INT32_MAX))
            desc_error(c, "a size has numbers from 0 to 2147483647");
        else if (wanted)
            d->base.scope.names.v[k].value = (int64_t)v;
    }
    d->sized |= wanted;
}

static void apply_setting(Describer *d, const SynthSetting *s) {
    Nearest near = nearest_new((Str){s->column, strlen(s->column)});
    for (int k = 0; k < d->columns; k++) {
        nearest_try(&near, d->base.scope.names.v[k].name);
        if (strcmp(d->base.scope.names.v[k].name, s->column) == 0) {
            d->base.scope.names.v[k].value = s->value;
            return;
        }
    }
    d->base.scope.failed = true;
    diag_error(d->base.scope.diag, NO_LOC, "%s has no number \"%s\"", d->o->size, s->column);
    if (nearest_best(&near))
        diag_note(d->base.scope.diag, NO_LOC, "did you mean \"%s\"?", nearest_best(&near));
}

static int64_t layers_of(const Describer *d) {
    return desc_value(&d->base, "layers");
}

/* After the last `size`: the numbers are known. */
static void begin_body(Describer *d, int64_t file_type) {
    for (int k = 0; k < d->o->n_settings && !d->base.scope.failed; k++)
        apply_setting(d, &d->o->settings[k]);
    vec_push(d->base.scope.arena, &d->base.scope.names, ((Name){.name = "file_type", .value = file_type}));
}

/* ==== Tensors ==== */

static SynthValues read_values(Cursor *c) {
    SynthValues v = {0};
    if (desc_accept(c, "fan")) {
        int64_t n = desc_expr(c);
        v.kind = SYNTH_FAN;
        v.a = n > 0 ? (float)(1 / sqrt((double)n)) : 1;
    } else if (desc_accept(c, "near")) {
        v.kind = SYNTH_NEAR;
        v.a = (float)desc_number(c);
    } else if (desc_accept(c, "first")) {
        v.kind = SYNTH_FIRST;
        v.n = (int64_t)desc_number(c);
        v.a = (float)desc_number(c);
        desc_expect(c, "rest");
        v.b = (float)desc_number(c);
    } else {
        desc_error(c, "expected fan, near or first");
    }
    return v;
}

static void read_tensor(Description *base, Cursor *c) {
    Describer *d = (Describer *)base;
    Arena *a = base->scope.arena;
    TensorInfo t = {.name = desc_replace(c, desc_word(c))};
    Str type = desc_word(c);
    t.dtype = dtype_from_name(type);
    if (t.dtype != DT_F32 && t.dtype != DT_BF16)
        desc_error(c, "a converted tensor is f32 or bf16");
    desc_dims(c, &t);
    SynthValues v = read_values(c);
    v.key = hash_bytes(t.name, strlen(t.name), d->o->seed);
    if (!desc_if(c))
        return;
    for (int k = 0; k < t.rank; k++)
        if (t.dims[k] < 1 || t.dims[k] > INT32_MAX)
            desc_error(c, "dimension %d of %s is %lld", k, t.name, (long long)t.dims[k]);
    if (!fill_knows(t.dtype, v.kind))
        desc_error(c, "only f32 can have such values");
    vec_push(a, &base->tensors, t);
    vec_push(a, &d->values, v);
}

static const Statement head[] = {{"columns", read_columns}, {"size", read_size}};
static const Statement body[] = {{"tensor", read_tensor}};

static void read_text(Describer *d, int64_t file_type) {
    Description *b = &d->base;
    int k = 0;
    while (k < b->n_lines && !b->scope.failed && desc_statement(b, b->lines[k], head, COUNTOF(head)))
        k++;
    if (!d->sized || k == b->n_lines)
        return;
    begin_body(d, file_type);
    desc_body(b, k, body, COUNTOF(body));
}

/* ==== The file ==== */

static SynthModel *finish(Describer *d, const QuantRule *quant) {
    Description *b = &d->base;
    SynthModel *m = arena_alloc(b->scope.arena, sizeof *m);
    quant_types(quant, b->tensors.v, b->tensors.n, layers_of(d));
    m->values = d->values.v;
    if (gguf_image(b->scope.arena, d->o->size, &b->meta, b->tensors.v, b->tensors.n, &m->image))
        return m;
    diag_error(b->scope.diag, NO_LOC, "%s: the tensors are too large for a file", d->o->size);
    return NULL;
}

/* ==== Entry ==== */

static Describer describer(Arena *a, Diag *diag, const SynthOptions *o) {
    Describer d = {.base = desc_new(a, diag), .o = o};
    vec_push(a, &d.base.scope.texts, ((NamedText){"size", o->size}));
    return d;
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
    desc_open(&d.base, name, text);
    read_text(&d, quant_file_type(quant));
    if (!d.sized && !d.base.scope.failed)
        unknown_size(diag, o->size, d.sizes.v, d.sizes.n);
    return d.sized && !d.base.scope.failed ? finish(&d, quant) : NULL;
}

/* Adds the sizes of a text; true when the one wanted is among them. */
static bool lists_size(Describer *d, const EmbeddedText *text) {
    d->sized = false;
    d->columns = 0;
    d->base.scope.names.n = 0;
    desc_open(&d->base, text->name, text->text);
    for (int k = 0; k < d->base.n_lines && desc_statement(&d->base, d->base.lines[k], head, COUNTOF(head)); k++)
        ;
    return d->sized;
}

SynthModel *synth_model(Arena *a, Diag *diag, const SynthOptions *o) {
    Describer d = describer(a, diag, o);
    for (int k = 0; k < n_synth_texts; k++)
        if (lists_size(&d, &synth_texts[k]))
            return synth_model_of_text(a, diag, synth_texts[k].name, synth_texts[k].text, o);
    unknown_size(diag, o->size, d.sizes.v, d.sizes.n);
    return NULL;
}
