/* recipe.c - reads a .convert text for one checkpoint: what the GGUF file will hold and where it comes from. See
 * convert.h. */
#include "models/models.h"
#include "runtime/convert/convert_int.h"
#include <string.h>

enum { MOST_LISTED = 10 /* tensors named one by one when many are wrong */ };

static SrcLoc line_of(const Cursor *c) {
    return (SrcLoc){c->scope->file, c->line, 1, (int)strlen(c->text) + 1};
}

static SrcLoc source_loc(const Recipe *r) {
    return (SrcLoc){.file = diag_source(r->base.scope.diag, r->source->path, NULL, 0)};
}

/* ==== Which checkpoints ==== */

static void read_from(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    while (!desc_at_end(c))
        r->is_for |= str_eq(desc_word(c), r->source->arch);
}

static bool has_prefix(const ModelFile *f, Str prefix) {
    for (int k = 0; k < f->n_tensors; k++)
        if (strncmp(f->tensors[k].name, prefix.s, prefix.n) == 0)
            return true;
    return false;
}

static void read_prefix(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    Str found = {"", 0};
    for (bool is_there = false; !is_there && !desc_at_end(c);) {
        found = desc_word(c);
        is_there = has_prefix(r->source, found);
    }
    NamedText t = {"prefix", arena_strndup(d->scope.arena, found.s, found.n)};
    vec_push(d->scope.arena, &d->scope.texts, t);
    c->p += strlen(c->p);
}

static void read_visible(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    while (!desc_at_end(c)) {
        Str word = desc_word(c);
        vec_push(d->scope.arena, &r->visible, arena_strndup(d->scope.arena, word.s, word.n));
    }
}

/* ==== Tensors ==== */

static const struct {
    const char *name;
    DType type; /* DT_COUNT: decided later */
    bool is_head;
} tensor_types[] = {
    {"f32", DT_F32, false},      {"bf16", DT_BF16, false}, {"i32", DT_I32, false},
    {"matrix", DT_COUNT, false}, {"head", DT_COUNT, true},
};

static const char *dims_text(Arena *a, const TensorInfo *t) {
    const char *s = "[";
    for (int k = 0; k < t->rank; k++)
        s = arena_printf(a, "%s%s%lld", s, k ? ", " : "", (long long)t->dims[k]);
    return arena_printf(a, "%s]", s);
}

/* A number stands alone in some checkpoints and as a vector of one in others. */
static bool same_shape(const TensorInfo *a, const TensorInfo *b) {
    if (a->rank == 0)
        return b->rank == 1 && b->dims[0] == 1;
    return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0;
}

static bool is_integer(const TensorInfo *t) {
    return t->dtype == DT_I32 || t->file_type == 27; /* GGUF's number of 64-bit integers */
}

/* Reports what is wrong with the checkpoint's tensor for this one, with the line that asks for it. */
static void check_source(Recipe *r, const Cursor *c, const TensorInfo *want, const TensorInfo *got) {
    Arena *a = r->base.scope.arena;
    Diag *diag = r->base.scope.diag;
    bool is_float = got->dtype == DT_F32 || got->dtype == DT_F16 || got->dtype == DT_BF16;
    bool fits = same_shape(got, want);
    if (fits && (want->dtype == DT_I32 ? is_integer(got) : is_float))
        return;
    if (r->wrong++ >= MOST_LISTED)
        return;
    if (!fits)
        diag_error(diag, source_loc(r), "tensor '%s': its shape is %s, but by config.json it must be %s", got->name,
                   dims_text(a, got), dims_text(a, want));
    else
        diag_error(diag, source_loc(r), "tensor '%s': its elements must be of type %s", got->name,
                   want->dtype == DT_I32 ? "I32 or I64" : "BF16, F16 or F32");
    diag_note(diag, line_of(c), "it becomes '%s'", want->name);
}

static void report_missing(Recipe *r, const Cursor *c, const char *name, const TensorInfo *want) {
    if (r->missing++ < MOST_LISTED) {
        diag_error(r->base.scope.diag, source_loc(r), "tensor '%s' is missing", name);
        diag_note(r->base.scope.diag, line_of(c), "it becomes '%s'", want->name);
    }
}

static void check_dims(Cursor *c, const TensorInfo *t) {
    for (int k = 0; k < t->rank; k++)
        if (t->dims[k] < 1 || t->dims[k] > INT32_MAX)
            desc_error(c, "dimension %d of %s is %lld", k, t->name, (long long)t->dims[k]);
}

static ConvertFrom read_first(Cursor *c) {
    ConvertFrom f = {.first = desc_expr(c)};
    f.a = (float)desc_number(c);
    desc_expect(c, "rest");
    f.b = (float)desc_number(c);
    return f;
}

static void read_tensor(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    Arena *a = d->scope.arena;
    TensorInfo t = {.name = desc_replace(c, desc_word(c)), .dtype = DT_KV};
    bool is_head = false;
    for (size_t k = 0; k < COUNTOF(tensor_types); k++)
        if (t.dtype == DT_KV && desc_accept(c, tensor_types[k].name)) {
            t.dtype = tensor_types[k].type;
            is_head = tensor_types[k].is_head;
        }
    if (t.dtype == DT_KV)
        desc_error(c, "expected f32, bf16, i32, matrix or head");
    desc_dims(c, &t);
    ConvertFrom from = {0};
    const char *name = NULL;
    if (desc_accept(c, "first"))
        from = read_first(c);
    else if (desc_expect(c, "from"))
        name = desc_replace(c, desc_word(c));
    if (!desc_if(c))
        return;
    check_dims(c, &t);
    if (name) {
        int i = namemap_get(r->source->tensor_index, name);
        if (i < 0) {
            report_missing(r, c, name, &t);
            return;
        }
        r->taken[i] = true;
        from.tensor = &r->source->tensors[i];
        check_source(r, c, &t, from.tensor);
    }
    vec_push(a, &d->tensors, t);
    vec_push(a, &r->from, from);
    vec_push(a, &r->is_head, is_head);
}

static void read_ignore(Description *d, Cursor *c) {
    Recipe *r = (Recipe *)d;
    const char *name = desc_replace(c, desc_word(c));
    size_t n = strlen(name);
    bool is_prefix = n > 0 && name[n - 1] == '*';
    if (!desc_if(c))
        return;
    int one = is_prefix ? -1 : namemap_get(r->source->tensor_index, name);
    if (one >= 0)
        r->taken[one] = true;
    for (int k = 0; is_prefix && k < r->source->n_tensors; k++)
        r->taken[k] |= strncmp(r->source->tensors[k].name, name, n - 1) == 0;
}

static void report_rest(Recipe *r, const char *text) {
    Diag *diag = r->base.scope.diag;
    int unknown = 0;
    if (r->missing > MOST_LISTED)
        diag_error(diag, source_loc(r), "%d more tensors are missing", r->missing - MOST_LISTED);
    if (r->wrong > MOST_LISTED)
        diag_error(diag, source_loc(r), "%d more tensors are of another shape or type", r->wrong - MOST_LISTED);
    for (int k = 0; k < r->source->n_tensors; k++)
        if (!r->taken[k] && unknown++ < MOST_LISTED)
            diag_error(diag, source_loc(r), "tensor '%s' is not known: no line of %s takes or ignores it",
                       r->source->tensors[k].name, text);
    if (unknown > MOST_LISTED)
        diag_error(diag, source_loc(r), "%d more tensors are not known", unknown - MOST_LISTED);
}

/* ==== The text ==== */

static const Statement head[] = {{"from", read_from}};
static const Statement body[] = {
    {"tensor", read_tensor},   {"ignore", read_ignore}, {"number", recipe_number}, {"real", recipe_real},
    {"given", recipe_given},   {"count", recipe_count}, {"array", recipe_array},   {"expect", recipe_expect},
    {"within", recipe_within}, {"prefix", read_prefix}, {"visible", read_visible},
};

static const char *folder_name(Arena *a, const char *dir) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    size_t start = n;
    while (start > 0 && dir[start - 1] != '/')
        start--;
    return arena_strndup(a, dir + start, n - start);
}

static void recipe_begin(Recipe *r, const char *name, const char *text) {
    desc_open(&r->base, name, text);
    r->is_for = false;
    for (int k = 0; k < r->base.n_lines && desc_statement(&r->base, r->base.lines[k], head, COUNTOF(head)); k++)
        ;
}

static Recipe recipe_new(Arena *a, Diag *diag, const ModelFile *source, const char *dir, const TypeRule *types) {
    Recipe r = {.base = desc_new(a, diag), .source = source, .dir = dir, .types = types};
    const char *config = arena_printf(a, "%s/config.json", dir);
    r.config = (SrcLoc){.file = diag_source(diag, config, NULL, 0)};
    r.taken = arena_array(a, (size_t)source->n_tensors + 1, sizeof *r.taken);
    vec_push(a, &r.base.scope.texts, ((NamedText){"source", folder_name(a, dir)}));
    Name known[] = {{.name = "file_type", .value = type_file_type(types)},
                    {.name = "tokenizer", .value = tokenizer_there(&r)}};
    for (size_t k = 0; k < COUNTOF(known); k++)
        vec_push(a, &r.base.scope.names, known[k]);
    return r;
}

static Conversion *recipe_finish(Recipe *r, const char *name) {
    Description *d = &r->base;
    Arena *a = d->scope.arena;
    int before = diag_errors(d->scope.diag);
    desc_body(d, 1, body, COUNTOF(body));
    if (d->scope.failed)
        return NULL;
    report_rest(r, name);
    if (diag_errors(d->scope.diag) > before || !tokenizer_keys(r, desc_value(d, "vocab")))
        return NULL;
    types_decide(r);
    Conversion *c = arena_alloc(a, sizeof *c);
    c->from = r->from.v;
    c->text = name;
    if (gguf_image(a, r->source->path, &d->meta, d->tensors.v, d->tensors.n, &c->image))
        return c;
    diag_error(d->scope.diag, source_loc(r), "the tensors are too large for a file");
    return NULL;
}

/* ==== Entry ==== */

Conversion *convert_plan_text(Arena *a, Diag *diag, const ModelFile *source, const char *dir, const char *quant,
                              const char *name, const char *text) {
    const TypeRule *types = type_rule(a, diag, quant);
    if (!types)
        return NULL;
    Recipe r = recipe_new(a, diag, source, dir, types);
    recipe_begin(&r, name, text);
    return recipe_finish(&r, name);
}

/* Lists every architecture of every text. */
static void unknown_architecture(const Recipe *r) {
    Arena *a = r->base.scope.arena;
    const char *arch = r->source->arch;
    if (*arch)
        diag_error(r->base.scope.diag, r->config, "checkpoints of the architecture \"%s\" cannot be converted", arch);
    else
        diag_error(r->base.scope.diag, r->config, "there is none, or it names no architecture");
    const char *all = "";
    for (int k = 0; k < n_convert_texts; k++) {
        size_t n = strcspn(convert_texts[k].text, "\n");
        const char *from = strstr(convert_texts[k].text, "\nfrom ");
        if (from) {
            from += strlen("\nfrom ");
            n = strcspn(from, "\n");
            all = arena_printf(a, "%s%s%.*s", all, k ? " " : "", (int)n, from);
        }
    }
    diag_note(r->base.scope.diag, NO_LOC, "there are texts for %s", all);
}

Conversion *convert_plan(Arena *a, Diag *diag, const ModelFile *source, const char *dir, const char *quant) {
    const TypeRule *types = type_rule(a, diag, quant);
    if (!types)
        return NULL;
    Recipe r = recipe_new(a, diag, source, dir, types);
    for (int k = 0; k < n_convert_texts; k++) {
        recipe_begin(&r, convert_texts[k].name, convert_texts[k].text);
        if (r.is_for)
            return recipe_finish(&r, convert_texts[k].name);
    }
    unknown_architecture(&r);
    return NULL;
}
