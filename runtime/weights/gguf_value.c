/* gguf_value.c - metadata values of a GGUF file.
 *
 * A value is a u32 type and the bytes; an array is type ARRAY, the u32 type of its elements, a u64
 * count and the elements back to back. Numbers of every width become int64 or double, so that
 * nobody else needs to know the width a converter chose; strings stay in the file. Arrays of
 * arrays are in the format's text but in no known file, and ggml refuses them too.
 */
#include "runtime/weights/gguf_int.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct ValueType {
    const char *name;
    int bytes; /* the least one value takes in the file */
    MetaKind kind;
    bool is_signed;
} ValueType;

static const ValueType types[GGUF_TYPES] = {
    [GGUF_U8] = {"u8", 1, META_INT, false},
    [GGUF_I8] = {"i8", 1, META_INT, true},
    [GGUF_U16] = {"u16", 2, META_INT, false},
    [GGUF_I16] = {"i16", 2, META_INT, true},
    [GGUF_U32] = {"u32", 4, META_INT, false},
    [GGUF_I32] = {"i32", 4, META_INT, true},
    [GGUF_F32] = {"f32", 4, META_FLOAT, true},
    [GGUF_BOOL] = {"bool", 1, META_BOOL, false},
    [GGUF_STRING] = {"string", 8, META_STRING, false},
    [GGUF_ARRAY] = {"array", 12, META_INT, false},
    [GGUF_U64] = {"u64", 8, META_INT, false},
    [GGUF_I64] = {"i64", 8, META_INT, true},
    [GGUF_F64] = {"f64", 8, META_FLOAT, true},
};

static bool read_type(Reader *r, GgufType *out) {
    uint32_t id;
    if (!gguf_u32(r, &id))
        return false;
    if (id >= GGUF_TYPES)
        return gguf_fail(r, "unknown value type %" PRIu32 " (known are 0 to %d)", id, GGUF_TYPES - 1);
    *out = (GgufType)id;
    return true;
}

/* Memory for the decoded elements, within the budget of the file. */
static void *decoded_array(Reader *r, uint64_t count, size_t size) {
    if (count > (GGUF_MAX_DECODED - r->decoded) / size) {
        gguf_fail(r, "the metadata takes more than %d MiB of memory", GGUF_MAX_DECODED >> 20);
        return NULL;
    }
    r->decoded += count * size;
    return arena_array(r->arena, count, size);
}

static bool read_ints(Reader *r, GgufType type, uint64_t count, MetaValue *out) {
    const ValueType *t = &types[type];
    const uint8_t *p = gguf_take(r, count * (uint64_t)t->bytes);
    int64_t *v = p ? decoded_array(r, count, sizeof *v) : NULL;
    if (!v)
        return false;
    int unused = 64 - 8 * t->bytes; /* bits above the number */
    for (uint64_t i = 0; i < count; i++, p += t->bytes) {
        uint64_t bits = load_le(p, t->bytes);
        if (t->kind == META_BOOL)
            v[i] = bits != 0;
        else if (t->is_signed)
            v[i] = (int64_t)(bits << unused) >> unused;
        else if (bits > INT64_MAX)
            return gguf_fail(r, "%" PRIu64 " does not fit in a signed 64-bit integer", bits);
        else
            v[i] = (int64_t)bits;
    }
    out->i = v;
    return true;
}

static bool read_floats(Reader *r, GgufType type, uint64_t count, MetaValue *out) {
    int bytes = types[type].bytes;
    const uint8_t *p = gguf_take(r, count * (uint64_t)bytes);
    double *v = p ? decoded_array(r, count, sizeof *v) : NULL;
    if (!v)
        return false;
    for (uint64_t i = 0; i < count; i++, p += bytes) {
        uint64_t bits = load_le(p, bytes);
        if (bytes == 4) {
            uint32_t low = (uint32_t)bits;
            float f;
            memcpy(&f, &low, sizeof f);
            v[i] = (double)f;
        } else {
            memcpy(&v[i], &bits, sizeof v[i]);
        }
        if (!isfinite(v[i]) && out->is_array)
            return gguf_fail(r, "element %" PRIu64 " is not a finite number", i);
        if (!isfinite(v[i]))
            return gguf_fail(r, "is not a finite number");
    }
    out->f = v;
    return true;
}

static bool read_strings(Reader *r, uint64_t count, MetaValue *out) {
    Str *v = decoded_array(r, count, sizeof *v);
    if (!v)
        return false;
    for (uint64_t i = 0; i < count; i++)
        if (!gguf_string(r, GGUF_MAX_STRING, &v[i]))
            return false;
    out->s = v;
    return true;
}

/* The elements must at least be able to fit in the rest of the file; checked before any memory is
 * asked for. It also keeps count * bytes from overflowing. */
static bool read_array_head(Reader *r, GgufType *type, uint64_t *count) {
    if (!read_type(r, type) || !gguf_u64(r, count))
        return false;
    if (*type == GGUF_ARRAY)
        return gguf_fail(r, "an array of arrays cannot be read");
    size_t left = r->file.size - r->pos;
    if (*count > left / (size_t)types[*type].bytes)
        return gguf_fail(r, "an array of %" PRIu64 " %s values cannot fit in the %zu bytes left", *count,
                         types[*type].name, left);
    return true;
}

bool gguf_value(Reader *r, GgufType *type, MetaValue *out) {
    uint64_t count = 1;
    if (!read_type(r, type))
        return false;
    out->is_array = *type == GGUF_ARRAY;
    if (out->is_array && !read_array_head(r, type, &count))
        return false;
    out->kind = types[*type].kind;
    out->n = (int64_t)count;
    switch (out->kind) {
    case META_INT:
    case META_BOOL: return read_ints(r, *type, count, out);
    case META_FLOAT: return read_floats(r, *type, count, out);
    case META_STRING: return read_strings(r, count, out);
    }
    return false;
}
