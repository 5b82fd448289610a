/* image.c - the header of a GGUF file and the places of its tensors. See image.h. */
#include "runtime/gguf/image.h"
#include <string.h>

enum { ALIGNMENT = 32, TYPE_ARRAY = 9 };

static void put(Buf *b, uint64_t v, int bytes) {
    for (int k = 0; k < bytes; k++)
        buf_char(b, (char)(v >> 8 * k));
}

static void put_string(Buf *b, Str s) {
    put(b, s.n, 8);
    buf_bytes(b, s.s, s.n);
}

static Str str(const char *s) {
    return (Str){s, strlen(s)};
}

static void put_element(Buf *b, const MetaValue *v, int64_t i, int type) {
    if (v->kind == META_STRING) {
        put_string(b, v->s[i]);
    } else if (v->kind == META_FLOAT) {
        float f = (float)v->f[i];
        buf_bytes(b, &f, sizeof f);
    } else {
        put(b, (uint64_t)v->i[i], type == GGUF_OUT_BOOL ? 1 : 4);
    }
}

static void put_key(Buf *b, const MetaEntry *e, int type) {
    put_string(b, str(e->key));
    if (e->value.is_array) {
        put(b, TYPE_ARRAY, 4);
        put(b, (uint64_t)type, 4);
        put(b, (uint64_t)e->value.n, 8);
    } else {
        put(b, (uint64_t)type, 4);
    }
    for (int64_t i = 0; i < e->value.n; i++)
        put_element(b, &e->value, i, type);
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

static void write_header(Arena *a, const GgufMeta *meta, const TensorInfo *t, const uint64_t *offset, int n,
                         GgufImage *out) {
    Buf b = {0};
    buf_str(&b, "GGUF");
    put(&b, 3, 4);
    put(&b, (uint64_t)n, 8);
    put(&b, (uint64_t)meta->entries.n, 8);
    for (int k = 0; k < meta->entries.n; k++)
        put_key(&b, &meta->entries.v[k], meta->types.v[k]);
    for (int k = 0; k < n; k++) {
        put_string(&b, str(t[k].name));
        put(&b, (uint64_t)t[k].rank, 4);
        for (int r = t[k].rank - 1; r >= 0; r--)
            put(&b, (uint64_t)t[k].dims[r], 8);
        put(&b, t[k].file_type, 4);
        put(&b, offset[k], 8);
    }
    while (b.n % ALIGNMENT)
        buf_char(&b, 0);
    out->header = arena_strndup(a, b.s, b.n);
    out->header_bytes = b.n;
    buf_free(&b);
}

bool gguf_image(Arena *a, const char *path, const GgufMeta *meta, TensorInfo *tensors, int n, GgufImage *out) {
    uint64_t *offset = arena_array(a, (size_t)n + 1, sizeof *offset);
    uint64_t data;
    if (!lay_out(tensors, offset, n, &data))
        return false;
    write_header(a, meta, tensors, offset, n, out);
    for (int k = 0; k < n; k++)
        offset[k] += out->header_bytes;
    out->file = (ModelFile){.path = path,
                            .arch = "",
                            .meta = meta->entries.v,
                            .n_meta = meta->entries.n,
                            .tensors = tensors,
                            .n_tensors = n};
    modelfile_index(&out->file, a);
    const MetaValue *arch = modelfile_meta(&out->file, "general.architecture");
    if (arch && arch->kind == META_STRING)
        out->file.arch = arch->s[0].s;
    out->offset = offset;
    out->bytes = out->header_bytes + data;
    return true;
}
