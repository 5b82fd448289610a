/* facet_manifest.c - manifest.json of a bundle: what it is of, how it was made, what the other entries must be.
 *
 * Objects are written with sorted keys, so that equal contents are equal texts. Every string is printable ASCII: what
 * is read may be shown on a terminal as it is.
 */
#include "runtime/facet/facet_int.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static bool is_plain(const char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
            return false;
    return true;
}

/* ==== Writing ==== */

/* NULL for a string that is no printable ASCII. */
static json_t *plain(const char *s) {
    return is_plain(s) ? json_string(s) : NULL;
}

static json_t *write_reads(const FacetRead *v, int n) {
    json_t *j = json_object();
    for (int i = 0; i < n; i++)
        if (!is_plain(v[i].name) || json_object_set_new(j, v[i].name, v[i].value ? plain(v[i].value) : json_null())) {
            json_decref(j);
            return NULL;
        }
    return j;
}

static json_t *write_weights(const FacetWeights *w) {
    if (!w)
        return json_null();
    return json_pack("{s:o, s:s, s:o, s:o}", "architecture", plain(w->arch), "signature", w->signature, "metadata",
                     write_reads(w->keys.v, w->keys.n), "tensors", write_reads(w->tensors.v, w->tensors.n));
}

static json_t *write_options(const FacetOptions *o) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:s, s:s}", "context", (json_int_t)o->context, "chunk",
                     (json_int_t)o->chunk, "rows", (json_int_t)o->rows, "draft", (json_int_t)o->draft, "slots",
                     (json_int_t)o->slots, "kv_k", dtype_name(o->kv_k), "kv_v", dtype_name(o->kv_v));
}

static json_t *write_archs(const FacetInfo *info) {
    json_t *all = json_array();
    for (int i = 0; i < info->archs.n; i++) {
        const FacetArch *a = &info->archs.v[i];
        json_array_append_new(
            all, json_pack("{s:s, s:s, s:i}", "name", a->name, "nvrtc", a->nvrtc, "kernels", a->n_kernels));
    }
    return all;
}

static json_t *write_settings(const FacetInfo *info) {
    json_t *all = json_array();
    for (int i = 0; i < info->settings.n; i++)
        if (json_array_append_new(all, plain(info->settings.v[i]))) {
            json_decref(all);
            return NULL;
        }
    return all;
}

static json_t *write_entries(const FacetEntry *entries, int n) {
    json_t *all = json_object();
    for (int i = 0; i < n; i++)
        json_object_set_new(all, entries[i].name,
                            json_pack("{s:I, s:s}", "bytes", (json_int_t)entries[i].bytes, "xxh3", entries[i].hash));
    return all;
}

char *manifest_write(const FacetInfo *info, const FacetEntry *entries, int n_entries, size_t *bytes, Diag *diag,
                     SrcLoc at) {
    json_t *j = json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "format", FACET_FORMAT, "made_by",
                          info->made_by, "model", plain(info->model), "text", plain(info->text_name), "settings",
                          write_settings(info), "options", write_options(&info->options), "weights",
                          write_weights(info->weights), "target", write_weights(info->target), "archs",
                          write_archs(info), "entries", write_entries(entries, n_entries));
    char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    json_decref(j);
    if (!text)
        diag_error(diag, at, "the names of models, settings, keys and tensors in a bundle must be printable ASCII");
    else
        *bytes = strlen(text);
    return text;
}

/* ==== Reading ==== */

typedef struct Reader {
    Arena *arena;
    Diag *diag;
    SrcLoc at;
} Reader;

__attribute__((format(printf, 2, 3))) static bool wrong(const Reader *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_error(r->diag, r->at, "entry '" MANIFEST_NAME "': %s", arena_vprintf(r->arena, fmt, ap));
    va_end(ap);
    return false;
}

static bool read_string(const Reader *r, const json_t *j, const char *name, const char **out) {
    const char *s = json_string_value(json_object_get(j, name));
    if (!s || !is_plain(s))
        return wrong(r, "'%s' must be a string of printable ASCII", name);
    *out = arena_strdup(r->arena, s);
    return true;
}

static bool read_int(const Reader *r, const json_t *j, const char *name, int64_t lo, int64_t hi, int64_t *out) {
    const json_t *v = json_object_get(j, name);
    if (!json_is_integer(v) || json_integer_value(v) < lo || json_integer_value(v) > hi)
        return wrong(r, "'%s' must be a whole number from %lld to %lld", name, (long long)lo, (long long)hi);
    *out = json_integer_value(v);
    return true;
}

static bool read_hash(const Reader *r, const json_t *j, const char *name, char out[33]) {
    const char *s = NULL;
    if (!read_string(r, j, name, &s))
        return false;
    if (strlen(s) != 32 || strspn(s, "0123456789abcdef") != 32)
        return wrong(r, "'%s' must be 32 hex digits", name);
    memcpy(out, s, 33);
    return true;
}

static bool read_type(const Reader *r, const json_t *j, const char *name, DType *out) {
    const char *s = NULL;
    if (!read_string(r, j, name, &s))
        return false;
    *out = dtype_from_name((Str){s, strlen(s)});
    return kv_storable(*out) || wrong(r, "'%s' is no element type of a cache", name);
}

static bool read_options(const Reader *r, const json_t *j, FacetOptions *o) {
    if (!json_is_object(j))
        return wrong(r, "there are no 'options'");
    return read_int(r, j, "context", 1, 1 << 24, &o->context) && read_int(r, j, "chunk", 1, 1 << 16, &o->chunk) &&
           read_int(r, j, "rows", 1, 1 << 16, &o->rows) && read_int(r, j, "draft", 0, 1 << 16, &o->draft) &&
           read_int(r, j, "slots", 1, 4096, &o->slots) && read_type(r, j, "kv_k", &o->kv_k) &&
           read_type(r, j, "kv_v", &o->kv_v);
}

typedef VEC(FacetRead) ReadVec;

static bool read_reads(const Reader *r, json_t *j, const char *what, ReadVec *out) {
    const char *name;
    json_t *v;
    if (!json_is_object(j) || json_object_size(j) > MAX_READS)
        return wrong(r, "'%s' must be an object of at most %d members", what, MAX_READS);
    json_object_foreach(j, name, v) {
        const char *value = json_string_value(v);
        if (!is_plain(name) || !(json_is_null(v) || (value && is_plain(value))))
            return wrong(r, "'%s' must hold strings of printable ASCII, or null", what);
        FacetRead read = {arena_strdup(r->arena, name), value ? arena_strdup(r->arena, value) : NULL};
        vec_push(r->arena, out, read);
    }
    return true;
}

static bool read_weights(const Reader *r, const json_t *j, const char *what, const FacetWeights **out) {
    FacetWeights *w = arena_alloc(r->arena, sizeof *w);
    ReadVec keys = {0}, tensors = {0};
    char signature[33];
    if (!json_is_object(j))
        return wrong(r, "'%s' must be an object", what);
    if (!read_string(r, j, "architecture", &w->arch) || !read_hash(r, j, "signature", signature) ||
        !read_reads(r, json_object_get(j, "metadata"), "metadata", &keys) ||
        !read_reads(r, json_object_get(j, "tensors"), "tensors", &tensors))
        return false;
    w->keys.v = keys.v, w->keys.n = w->keys.cap = keys.n;
    w->tensors.v = tensors.v, w->tensors.n = w->tensors.cap = tensors.n;
    facet_sign(w);
    if (strcmp(signature, w->signature) != 0)
        return wrong(r, "the signature of '%s' is not that of its metadata and tensors", what);
    *out = w;
    return true;
}

static bool read_archs(const Reader *r, const json_t *j, FacetInfo *info) {
    if (!json_is_array(j) || json_array_size(j) < 1 || json_array_size(j) > FACET_MOST_ARCHS)
        return wrong(r, "'archs' must be an array of 1 to %d architectures", FACET_MOST_ARCHS);
    for (size_t i = 0; i < json_array_size(j); i++) {
        const json_t *one = json_array_get(j, i);
        FacetArch a = {0};
        int64_t kernels = 0;
        int sm;
        bool only_there;
        if (!read_string(r, one, "name", &a.name) || !read_string(r, one, "nvrtc", &a.nvrtc) ||
            !read_int(r, one, "kernels", 1, MAX_ENTRIES, &kernels))
            return false;
        if (!plan_arch(a.name, &sm, &only_there))
            return wrong(r, "'%s' is no architecture", a.name);
        for (int k = 0; k < info->archs.n; k++)
            if (strcmp(info->archs.v[k].name, a.name) == 0)
                return wrong(r, "architecture %s is listed twice", a.name);
        a.n_kernels = (int)kernels;
        vec_push(r->arena, &info->archs, a);
    }
    return true;
}

static bool read_settings(const Reader *r, const json_t *j, FacetInfo *info) {
    if (!json_is_array(j) || json_array_size(j) > MAX_SETTINGS)
        return wrong(r, "'settings' must be an array of at most %d strings", MAX_SETTINGS);
    for (size_t i = 0; i < json_array_size(j); i++) {
        const char *s = json_string_value(json_array_get(j, i));
        if (!s || !is_plain(s))
            return wrong(r, "'settings' must hold strings of printable ASCII");
        vec_push(r->arena, &info->settings, arena_strdup(r->arena, s));
    }
    return true;
}

static int entry_by_name(const void *a, const void *b) {
    return strcmp(((const FacetEntry *)a)->name, ((const FacetEntry *)b)->name);
}

static bool read_entries(const Reader *r, json_t *j, EntryVec *out) {
    const char *name;
    json_t *v;
    if (!json_is_object(j) || json_object_size(j) > MAX_ENTRIES)
        return wrong(r, "'entries' must be an object of at most %d members", MAX_ENTRIES);
    json_object_foreach(j, name, v) {
        FacetEntry e = {.name = arena_strdup(r->arena, name)};
        if (!is_plain(name))
            return wrong(r, "'entries' must have names of printable ASCII");
        if (!read_int(r, v, "bytes", 0, MAX_ENTRY_BYTES, &e.bytes) || !read_hash(r, v, "xxh3", e.hash))
            return false;
        vec_push(r->arena, out, e);
    }
    if (out->n)
        qsort(out->v, (size_t)out->n, sizeof *out->v, entry_by_name);
    return true;
}

static bool read_all(const Reader *r, const json_t *j, FacetInfo *info, EntryVec *entries) {
    int64_t format = 0;
    if (!json_is_object(j))
        return wrong(r, "is not an object");
    if (!read_int(r, j, "format", 1, INT32_MAX, &format))
        return false;
    if (format != FACET_FORMAT)
        return wrong(r, "the bundle has format %lld, this program reads format %d; compile the model again",
                     (long long)format, FACET_FORMAT);
    const json_t *target = json_object_get(j, "target");
    return read_string(r, j, "made_by", &info->made_by) && read_string(r, j, "model", &info->model) &&
           read_string(r, j, "text", &info->text_name) && read_settings(r, json_object_get(j, "settings"), info) &&
           read_options(r, json_object_get(j, "options"), &info->options) &&
           read_weights(r, json_object_get(j, "weights"), "weights", &info->weights) &&
           (json_is_null(target) || read_weights(r, target, "target", &info->target)) &&
           read_archs(r, json_object_get(j, "archs"), info) && read_entries(r, json_object_get(j, "entries"), entries);
}

bool manifest_read(Arena *arena, Diag *diag, SrcLoc at, const char *json, size_t bytes, FacetInfo *info,
                   EntryVec *entries) {
    Reader r = {arena, diag, at};
    json_error_t e;
    json_t *j = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &e);
    if (!j) {
        for (char *c = e.text; *c; c++) /* it quotes what it found */
            if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
                *c = '?';
        return wrong(&r, "%d:%d: %s", e.line, e.column, e.text);
    }
    bool ok = read_all(&r, j, info, entries);
    json_decref(j);
    return ok;
}
