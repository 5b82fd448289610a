/* safetensors.c - one .safetensors file in memory.
 *
 *   u64 length N, N bytes of JSON, then the data to the end of the file:
 *   {"name": {"dtype": "BF16", "shape": [out, in], "data_offsets": [begin, end]}, ...,
 *    "__metadata__": {"key": "text"}}
 *
 * The checks are those of the reference reader, so that no byte of data is unnamed or named twice:
 * sorted by offset each tensor begins where the one before ends, the last at the end of the file,
 * and a tensor's size is that of its shape and type. Beyond it: unknown fields, duplicate keys,
 * numbers with sign, point or exponent, and names that cannot be printed are refused.
 */
#include "runtime/weights/json.h"
#include "runtime/weights/weights_int.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    LENGTH_BYTES = 8,
    MAX_HEADER = 100000000, /* as the reference */
    MAX_NAME = 65535,
};

/* Types of the format. Those without an element type here (DT_COUNT) are kept and cannot be used;
 * gguf_id is their number for TensorInfo.file_type, NO_ID where GGUF has none. */
#define NO_ID UINT32_MAX
static const struct {
    const char *name;
    int bytes;
    DType dtype;
    uint32_t gguf_id;
} types[] = {
    {"F32", 4, DT_F32, 0},           {"F16", 2, DT_F16, 1},           {"BF16", 2, DT_BF16, 30},
    {"I32", 4, DT_I32, 26},          {"I8", 1, DT_COUNT, 24},         {"I16", 2, DT_COUNT, 25},
    {"I64", 8, DT_COUNT, 27},        {"F64", 8, DT_COUNT, 28},        {"U8", 1, DT_COUNT, NO_ID},
    {"U16", 2, DT_COUNT, NO_ID},     {"U32", 4, DT_COUNT, NO_ID},     {"U64", 8, DT_COUNT, NO_ID},
    {"BOOL", 1, DT_COUNT, NO_ID},    {"F8_E4M3", 1, DT_COUNT, NO_ID}, {"F8_E5M2", 1, DT_COUNT, NO_ID},
    {"F8_E8M0", 1, DT_COUNT, NO_ID},
};

typedef struct Entry {
    TensorInfo t;
    uint64_t begin, end; /* in the data */
} Entry;

typedef VEC(Entry) Entries;

typedef struct Reader {
    FileView file;
    const uint8_t *data; /* behind the header */
    uint64_t data_bytes;
    Arena *arena;
    Diag *diag;
    SrcLoc at;
    const char *name; /* tensor being read */
} Reader;

__attribute__((format(printf, 2, 3))) static bool fail(const Reader *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_error(r->diag, r->at, "tensor '%s': %s", r->name, arena_vprintf(r->arena, fmt, ap));
    va_end(ap);
    return false;
}

/* ==== One tensor ==== */

/* A list of at most max integers that are not negative; -1 after reporting. */
static int read_sizes(const Reader *r, const json_t *list, const char *field, uint64_t *out, size_t max) {
    if (!json_is_array(list)) {
        fail(r, "field '%s' must be a list of integers", field);
        return -1;
    }
    size_t n = json_array_size(list);
    if (n > max) {
        fail(r, "field '%s' has %zu numbers; the limit is %zu", field, n, max);
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0) {
            fail(r, "field '%s' must hold integers that are not negative", field);
            return -1;
        }
        out[i] = (uint64_t)json_integer_value(v);
    }
    return (int)n;
}

/* Finds the row of `types` for the entry's dtype. */
static bool read_dtype(const Reader *r, const json_t *dtype, TensorInfo *t, int *elem_bytes) {
    const char *name = json_string_value(dtype);
    if (!name)
        return fail(r, "field 'dtype' must be a string");
    for (size_t i = 0; i < COUNTOF(types); i++) {
        if (strcmp(types[i].name, name) == 0) {
            t->dtype = types[i].dtype;
            t->file_type = types[i].gguf_id;
            *elem_bytes = types[i].bytes;
            return true;
        }
    }
    if (name_problem((Str){name, strlen(name)}, 32))
        return fail(r, "unknown dtype");
    return fail(r, "unknown dtype '%s'", name);
}

static bool check_fields(const Reader *r, json_t *object) {
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    if (!json_is_object(object))
        return fail(r, "must be an object with dtype, shape and data_offsets");
    for (size_t i = 0; i < COUNTOF(fields); i++)
        if (!json_object_get(object, fields[i]))
            return fail(r, "field '%s' is missing", fields[i]);
    if (json_object_size(object) != COUNTOF(fields))
        return fail(r, "has fields other than dtype, shape and data_offsets");
    return true;
}

/* Zero dimensions are legal in the format and give a tensor of no bytes; [] is one element. The
 * other dimensions must multiply within range even so, since others multiply them in any order. */
static bool check_size(const Reader *r, const uint64_t *shape, int elem_bytes, Entry *e) {
    uint64_t bytes = (uint64_t)elem_bytes;
    bool empty = false;
    for (int i = 0; i < e->t.rank; i++) {
        empty |= shape[i] == 0;
        if (__builtin_mul_overflow(bytes, shape[i] ? shape[i] : 1, &bytes) || bytes > INT64_MAX)
            return fail(r, "its shape has too many elements");
        e->t.dims[i] = (int64_t)shape[i];
    }
    if (empty)
        bytes = 0;
    if (e->end < e->begin)
        return fail(r, "data_offsets end at %" PRIu64 ", before their begin at %" PRIu64, e->end, e->begin);
    if (bytes != e->end - e->begin)
        return fail(r, "shape and dtype need %" PRIu64 " bytes, but data_offsets give it %" PRIu64, bytes,
                    e->end - e->begin);
    e->t.bytes = bytes;
    return true;
}

static bool read_entry(Reader *r, json_t *object, Entry *e) {
    uint64_t shape[MAX_DIMS];
    uint64_t offsets[2];
    int elem_bytes = 0;
    if (!check_fields(r, object) || !read_dtype(r, json_object_get(object, "dtype"), &e->t, &elem_bytes))
        return false;
    e->t.name = r->name;
    e->t.rank = read_sizes(r, json_object_get(object, "shape"), "shape", shape, MAX_DIMS);
    if (e->t.rank < 0)
        return false;
    int n = read_sizes(r, json_object_get(object, "data_offsets"), "data_offsets", offsets, 2);
    if (n < 0)
        return false;
    if (n != 2)
        return fail(r, "field 'data_offsets' must hold two integers");
    e->begin = offsets[0];
    e->end = offsets[1];
    return check_size(r, shape, elem_bytes, e);
}

/* ==== The data as a whole ==== */

static int by_offset(const void *a, const void *b) {
    const Entry *x = a;
    const Entry *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
}

/* The entries are sorted: each must begin where the one before ends, the last end with the file. */
static bool check_layout(Reader *r, const Entries *es) {
    uint64_t at = 0; /* how far the data is accounted for */
    uint64_t head = r->file.size - r->data_bytes;
    for (int i = 0; i < es->n; i++) {
        const Entry *e = &es->v[i];
        r->name = e->t.name;
        if (e->begin > at)
            return fail(r, "data begins at %" PRIu64 ", but the data before it ends at %" PRIu64 " (a hole)", e->begin,
                        at);
        if (e->begin < at)
            return fail(r, "data begins at %" PRIu64 " and overlaps tensor '%s', which ends at %" PRIu64, e->begin,
                        es->v[i - 1].t.name, at);
        if (e->end > r->data_bytes)
            return fail(r,
                        "data ends at byte %" PRIu64 ", but the file has %zu; %" PRIu64
                        " are needed for all tensors (is the file truncated?)",
                        e->end + head, r->file.size, es->v[es->n - 1].end + head);
        at = e->end;
    }
    if (at == r->data_bytes)
        return true;
    diag_error(r->diag, r->at, "%" PRIu64 " bytes after the last tensor belong to none", r->data_bytes - at);
    return false;
}

/* ==== Header ==== */

static bool read_metadata(Reader *r, json_t *object, MetaEntries *meta) {
    if (!json_is_object(object)) {
        diag_error(r->diag, r->at, "'__metadata__' must be an object of strings");
        return false;
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        Str k = {key, strlen(key)};
        const char *problem = name_problem(k, MAX_NAME);
        if (problem || !json_is_string(value)) {
            diag_error(r->diag, r->at,
                       problem ? "'__metadata__': the name of a key %s" : "'__metadata__': a value is no string",
                       problem);
            return false;
        }
        Str *s = arena_alloc(r->arena, sizeof *s);
        *s = json_str(r->arena, value);
        MetaEntry e = {arena_printf(r->arena, "__metadata__.%s", key), {.kind = META_STRING, .n = 1, .s = s}};
        vec_push(r->arena, meta, e);
    }
    return true;
}

static bool read_members(Reader *r, json_t *root, Entries *entries, MetaEntries *meta) {
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        if (strcmp(key, "__metadata__") == 0) {
            if (!read_metadata(r, value, meta))
                return false;
            continue;
        }
        const char *problem = name_problem((Str){key, strlen(key)}, MAX_NAME);
        if (problem) {
            diag_error(r->diag, r->at, "tensor %d: its name %s", entries->n + 1, problem);
            return false;
        }
        Entry e = {0};
        r->name = arena_strdup(r->arena, key);
        if (!read_entry(r, value, &e))
            return false;
        vec_push(r->arena, entries, e);
    }
    return true;
}

/* Finds the header and the data behind it. */
static bool find_header(Reader *r, const uint8_t **header, size_t *n) {
    FileView f = r->file;
    if (f.size < LENGTH_BYTES) {
        diag_error(r->diag, r->at, "header: needs %d bytes, but the file has %zu", LENGTH_BYTES, f.size);
        return false;
    }
    uint64_t length = load_le(f.data, LENGTH_BYTES);
    if (length > MAX_HEADER) {
        diag_error(r->diag, r->at, "header: its length is %" PRIu64 " bytes; the limit is %d", length, MAX_HEADER);
        return false;
    }
    if (length > f.size - LENGTH_BYTES) {
        diag_error(r->diag, r->at, "header: ends at byte %" PRIu64 ", but the file has %zu", length + LENGTH_BYTES,
                   f.size);
        return false;
    }
    *header = f.data + LENGTH_BYTES;
    *n = (size_t)length;
    if (*n == 0 || **header != '{') {
        diag_error(r->diag, r->at, "header: does not start with '{'");
        return false;
    }
    r->data = *header + length;
    r->data_bytes = f.size - LENGTH_BYTES - length;
    return true;
}

static bool read_header(Reader *r, Entries *entries, MetaEntries *meta) {
    const uint8_t *header;
    size_t n;
    bool minus;
    if (!find_header(r, &header, &n))
        return false;
    json_t *root = json_read(header, n, "header", r->at, &minus, r->diag);
    if (!root)
        return false;
    bool ok = read_members(r, root, entries, meta);
    json_decref(root);
    if (ok && minus) { /* -0 is the one that got this far */
        diag_error(r->diag, r->at, "header: a number has a minus sign");
        return false;
    }
    return ok;
}

bool safetensors_read(Arena *a, FileView f, Diag *diag, ModelFile *out) {
    Reader r = {.file = f, .arena = a, .diag = diag, .at = file_loc(diag, f.path)};
    Entries entries = {0};
    MetaEntries meta = {0};
    if (!read_header(&r, &entries, &meta))
        return false;
    if (entries.n)
        qsort(entries.v, (size_t)entries.n, sizeof *entries.v, by_offset);
    if (!check_layout(&r, &entries))
        return false;
    out->path = f.path;
    out->arch = "";
    out->meta = meta.v;
    out->n_meta = meta.n;
    out->tensors = arena_array(a, (size_t)entries.n, sizeof *out->tensors);
    out->n_tensors = entries.n;
    for (int i = 0; i < entries.n; i++) {
        out->tensors[i] = entries.v[i].t;
        out->tensors[i].data = r.data + entries.v[i].begin;
    }
    modelfile_index(out, a);
    return true;
}
