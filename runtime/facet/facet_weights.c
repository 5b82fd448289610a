/* facet_weights.c - what a compilation asked of a weights file, with the answers; whether another file answers alike.
 */
#include "runtime/facet/facet_int.h"

#define XXH_INLINE_ALL /* header only: nothing to link */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MOST_SHOWN = 200 }; /* bytes of a value that is kept as it is */

static void hex128(XXH128_hash_t h, char out[33]) {
    XXH128_canonical_t text;
    XXH128_canonicalFromHash(&text, h);
    for (int i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", text.digest[i]);
}

void facet_hash(const void *data, size_t bytes, char out[33]) {
    hex128(XXH3_128bits(data, bytes), out);
}

/* ==== Answers as text ==== */

static void put_string(Buf *out, Str s) {
    buf_char(out, '"');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.s[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_char(out, (char)c);
    }
    buf_char(out, '"');
}

static void put_element(Buf *out, const MetaValue *v, int64_t i) {
    char text[32];
    switch (v->kind) {
    case META_INT: buf_printf(out, "%lld", (long long)v->i[i]); break;
    case META_BOOL: buf_str(out, v->i[i] ? "true" : "false"); break;
    case META_FLOAT:
        format_f64(text, v->f[i]);
        buf_printf(out, "%s%s", text, strpbrk(text, ".einf") ? "" : ".0"); /* 1.0 is another answer than 1 */
        break;
    case META_STRING: put_string(out, v->s[i]); break;
    }
}

static const char *value_text(Arena *a, const MetaValue *v) {
    static const char *const kinds[] = {
        [META_INT] = "int", [META_FLOAT] = "float", [META_BOOL] = "bool", [META_STRING] = "string"};
    Buf b = {0};
    if (!v)
        return NULL;
    if (v->is_array)
        buf_char(&b, '[');
    for (int64_t i = 0; i < v->n; i++) {
        buf_str(&b, i ? ", " : "");
        put_element(&b, v, i);
    }
    if (v->is_array)
        buf_char(&b, ']');
    const char *text = arena_strndup(a, b.n ? b.s : "", b.n);
    if (b.n > MOST_SHOWN) {
        char hash[33];
        facet_hash(b.s, b.n, hash);
        text = v->is_array ? arena_printf(a, "[%lld of %s, xxh3 %s]", (long long)v->n, kinds[v->kind], hash)
                           : arena_printf(a, "(a string of %zu bytes, xxh3 %s)", v->s[0].n, hash);
    }
    buf_free(&b);
    return text;
}

static const char *tensor_text(Arena *a, const TensorInfo *t) {
    Buf b = {0};
    if (!t)
        return NULL;
    if (t->dtype == DT_COUNT)
        buf_printf(&b, "type %u[", t->file_type);
    else
        buf_printf(&b, "%s[", dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++)
        buf_printf(&b, "%s%lld", i ? ", " : "", (long long)t->dims[i]);
    buf_char(&b, ']');
    const char *text = arena_strndup(a, b.s, b.n);
    buf_free(&b);
    return text;
}

/* ==== Collecting ==== */

static int by_name(const void *a, const void *b) {
    return strcmp(((const FacetRead *)a)->name, ((const FacetRead *)b)->name);
}

static void put_read(Buf *out, const char *what, const FacetRead *r) {
    buf_printf(out, "%s %s%s%s\n", what, r->name, r->value ? " = " : "", r->value ? r->value : " absent");
}

void facet_sign(FacetWeights *w) {
    Buf b = {0};
    if (w->keys.n)
        qsort(w->keys.v, (size_t)w->keys.n, sizeof *w->keys.v, by_name);
    if (w->tensors.n)
        qsort(w->tensors.v, (size_t)w->tensors.n, sizeof *w->tensors.v, by_name);
    buf_printf(&b, "architecture %s\n", w->arch);
    for (int i = 0; i < w->keys.n; i++)
        put_read(&b, "key", &w->keys.v[i]);
    for (int i = 0; i < w->tensors.n; i++)
        put_read(&b, "tensor", &w->tensors.v[i]);
    facet_hash(b.s, b.n, w->signature);
    buf_free(&b);
}

const FacetWeights *facet_weights(Arena *arena, const ModelFile *file) {
    FacetWeights *w = arena_alloc(arena, sizeof *w);
    w->arch = arena_strdup(arena, file->arch);
    const ModelReads *r = file->reads;
    for (int i = 0; r && i < r->names[READ_KEYS].n; i++) {
        const char *name = arena_strdup(arena, r->names[READ_KEYS].v[i]);
        FacetRead read = {name, value_text(arena, modelfile_meta(file, name))};
        vec_push(arena, &w->keys, read);
    }
    for (int i = 0; r && i < r->names[READ_TENSORS].n; i++) {
        const char *name = arena_strdup(arena, r->names[READ_TENSORS].v[i]);
        FacetRead read = {name, tensor_text(arena, modelfile_tensor(file, name))};
        vec_push(arena, &w->tensors, read);
    }
    facet_sign(w);
    return w;
}

/* ==== Comparing ==== */

typedef struct Compare {
    Arena *arena;
    Diag *diag;
    SrcLoc at; /* the weights file */
    int differences;
} Compare;

static void differs(Compare *c, const char *what, const FacetRead *r, const char *found) {
    if (r->value ? found && strcmp(found, r->value) == 0 : !found)
        return;
    c->differences++;
    if (diag_full(c->diag))
        return;
    if (!found)
        diag_error(c->diag, c->at, "there is no %s '%s'; the bundle is for weights where it is %s", what, r->name,
                   r->value);
    else if (!r->value)
        diag_error(c->diag, c->at, "%s '%s' is %s; the bundle is for weights that have none", what, r->name, found);
    else
        diag_error(c->diag, c->at, "%s '%s' is %s; the bundle is for weights where it is %s", what, r->name, found,
                   r->value);
}

static void compare(Compare *c, const FacetWeights *w, const ModelFile *f) {
    c->at = (SrcLoc){.file = diag_source(c->diag, f->path, NULL, 0)};
    if (strcmp(w->arch, f->arch) != 0) {
        diag_error(c->diag, c->at, "the architecture is \"%s\"; the bundle is for \"%s\"", f->arch, w->arch);
        c->differences++;
        return;
    }
    for (int i = 0; i < w->keys.n; i++)
        differs(c, "key", &w->keys.v[i], value_text(c->arena, modelfile_meta(f, w->keys.v[i].name)));
    for (int i = 0; i < w->tensors.n; i++)
        differs(c, "tensor", &w->tensors.v[i], tensor_text(c->arena, modelfile_tensor(f, w->tensors.v[i].name)));
}

/* What the module takes from the file: the manifest of a bundle may have kept silent about it. */
static void compare_module(Compare *c, const Module *m, const ModelFile *f, bool target) {
    c->at = (SrcLoc){.file = diag_source(c->diag, f->path, NULL, 0)};
    for (int i = 0; i < m->weights.n; i++) {
        const Weight *w = &m->weights.v[i];
        static const char prefix[] = "target."; /* as the front end calls what is the target's */
        bool prefixed = strncmp(w->name, prefix, sizeof prefix - 1) == 0;
        if ((w->from != NULL) != target)
            continue;
        FacetRead r = {target && prefixed ? w->name + sizeof prefix - 1 : w->name, type_text(c->arena, &w->type)};
        if (w->type.rank == 0)
            r.value = arena_printf(c->arena, "%s[]", r.value);
        differs(c, "tensor", &r, tensor_text(c->arena, modelfile_tensor(f, r.name)));
    }
}

bool facet_check_weights(const Facet *f, const ModelFile *file, const ModelFile *target, Diag *diag) {
    const FacetInfo *info = facet_info(f);
    Compare c = {.arena = arena_new(), .diag = diag};
    compare(&c, info->weights, file);
    if (info->target && !target) {
        diag_error(diag, NO_LOC, "the bundle works for a target: its weights are needed too");
        c.differences++;
    } else if (info->target) {
        compare(&c, info->target, target);
    }
    if (c.differences == 0) {
        compare_module(&c, facet_module(f), file, false);
        if (target)
            compare_module(&c, facet_module(f), target, true);
    }
    if (c.differences > 1)
        diag_note(diag, NO_LOC, "%d differences; compile the model again for these weights with lap compile",
                  c.differences);
    else if (c.differences)
        diag_note(diag, NO_LOC, "compile the model again for these weights with lap compile");
    arena_free(c.arena);
    return c.differences == 0;
}
