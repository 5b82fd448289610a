/* gguf.c - one GGUF file, version 2 or 3, in memory.
 *
 *   "GGUF", u32 version, u64 tensors, u64 keys     (24 bytes, all numbers little-endian)
 *   keys:     string name, value                   (gguf_value.c)
 *   tensors:  string name, u32 rank, u64 dims[rank] (fastest first), u32 type, u64 offset
 *   padding to the alignment, then the data; offsets count from there
 *
 * Nothing is believed: reads go through gguf_take(), counts are bounded by the bytes left before
 * memory is asked for, sizes are multiplied with overflow checks, and tensors may neither leave the
 * file nor share bytes. ggml also wants tensors in file order without gaps; that is not needed to
 * be safe and not asked here. Bytes after the last tensor are allowed.
 *
 * Version 1 had 32-bit counts and is out of use; big-endian files have their version bytes swapped.
 */
#include "runtime/weights/gguf_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The fewest bytes a key (name of one byte, value of one) and a tensor (rank 0) take. */
enum { HEADER_BYTES = 24, MIN_KEY_BYTES = 8 + 1 + 4 + 1, MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8 };

/* Where a tensor lies, in bytes from the start of the file. */
typedef struct Extent {
    uint64_t start, end;
    int tensor;
} Extent;

/* ==== Cursor ==== */

bool gguf_fail(const Reader *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *text = arena_vprintf(r->arena, fmt, ap);
    va_end(ap);
    if (r->name)
        diag_error(r->diag, r->at, "%s '%s': %s", r->section, r->name, text);
    else if (r->count)
        diag_error(r->diag, r->at, "%s %" PRIu64 " of %" PRIu64 ": %s", r->section, r->index + 1, r->count, text);
    else
        diag_error(r->diag, r->at, "%s: %s", r->section, text);
    return false;
}

const uint8_t *gguf_take(Reader *r, uint64_t n) {
    if (n > r->file.size - r->pos) {
        gguf_fail(r, "needs %" PRIu64 " more bytes at byte %zu, but the file ends at %zu", n, r->pos, r->file.size);
        return NULL;
    }
    const uint8_t *p = r->file.data + r->pos;
    r->pos += n;
    return p;
}

bool gguf_u32(Reader *r, uint32_t *out) {
    const uint8_t *p = gguf_take(r, 4);
    *out = p ? (uint32_t)load_le(p, 4) : 0;
    return p != NULL;
}

bool gguf_u64(Reader *r, uint64_t *out) {
    const uint8_t *p = gguf_take(r, 8);
    *out = p ? load_le(p, 8) : 0;
    return p != NULL;
}

bool gguf_string(Reader *r, uint64_t max, Str *out) {
    uint64_t n;
    if (!gguf_u64(r, &n))
        return false;
    if (n > max)
        return gguf_fail(r, "has a string of %" PRIu64 " bytes; the limit is %" PRIu64, n, max);
    const uint8_t *p = gguf_take(r, n);
    *out = (Str){(const char *)p, n};
    return p != NULL;
}

/* The name of the item being read; from here on messages use it. */
static bool read_name(Reader *r, uint64_t max, NameMap *seen) {
    Str s;
    if (!gguf_string(r, max, &s))
        return false;
    const char *problem = name_problem(s, max);
    if (problem)
        return gguf_fail(r, "its name %s", problem);
    r->name = arena_strndup(r->arena, s.s, s.n);
    if (namemap_get(seen, r->name) >= 0)
        return gguf_fail(r, "is in the file twice");
    namemap_put(seen, r->name, (int)r->index);
    return true;
}

/* ==== Header ==== */

static bool check_count(Reader *r, const char *what, uint64_t count, uint64_t max, uint64_t min_bytes) {
    size_t left = r->file.size - r->pos;
    if (count > max)
        return gguf_fail(r, "%" PRIu64 " %s; the limit is %" PRIu64, count, what, max);
    if (count > left / min_bytes)
        return gguf_fail(r, "%" PRIu64 " %s cannot fit in the %zu bytes after the header", count, what, left);
    return true;
}

static bool check_version(Reader *r, uint32_t version) {
    if (version == 2 || version == 3)
        return true;
    if ((version & 0xffff) == 0 && version != 0)
        return gguf_fail(r, "this is a big-endian file; only little-endian ones can be read");
    return gguf_fail(r, "GGUF version %" PRIu32 " cannot be read, only 2 and 3", version);
}

static bool read_header(Reader *r, uint64_t *n_tensors, uint64_t *n_keys) {
    if (r->file.size < HEADER_BYTES)
        return gguf_fail(r, "needs %d bytes, but the file has %zu", HEADER_BYTES, r->file.size);
    if (memcmp(gguf_take(r, 4), "GGUF", 4) != 0)
        return gguf_fail(r, "the file does not start with the letters GGUF");
    uint32_t version;
    return gguf_u32(r, &version) && check_version(r, version) && gguf_u64(r, n_tensors) && gguf_u64(r, n_keys) &&
           check_count(r, "keys", *n_keys, GGUF_MAX_KEYS, MIN_KEY_BYTES) &&
           check_count(r, "tensors", *n_tensors, GGUF_MAX_TENSORS, MIN_TENSOR_BYTES);
}

/* ==== Metadata ==== */

/* The two keys that this reader itself needs. */
static bool use_key(Reader *r, const MetaEntry *e, GgufType type, ModelFile *out) {
    const MetaValue *v = &e->value;
    if (strcmp(e->key, "general.architecture") == 0) {
        if (v->kind != META_STRING || v->is_array)
            return gguf_fail(r, "must be a string");
        const char *problem = name_problem(v->s[0], GGUF_MAX_KEY_BYTES);
        if (problem)
            return gguf_fail(r, "its value %s", problem);
        out->arch = arena_strndup(r->arena, v->s[0].s, v->s[0].n);
    } else if (strcmp(e->key, "general.alignment") == 0) {
        if (type != GGUF_U32 || v->is_array)
            return gguf_fail(r, "must be a u32");
        int64_t n = v->i[0];
        if (n < 1 || n > GGUF_MAX_ALIGNMENT || (n & (n - 1)))
            return gguf_fail(r, "%" PRId64 " is not a power of two from 1 to %d", n, GGUF_MAX_ALIGNMENT);
        r->alignment = (uint64_t)n;
    }
    return true;
}

static bool read_keys(Reader *r, uint64_t count, ModelFile *out) {
    NameMap *seen = namemap_new(r->arena);
    out->meta = arena_array(r->arena, count, sizeof *out->meta);
    r->section = "key";
    r->count = count;
    for (r->index = 0; r->index < count; r->index++) {
        MetaEntry *e = &out->meta[r->index];
        GgufType type;
        r->name = NULL;
        if (!read_name(r, GGUF_MAX_KEY_BYTES, seen))
            return false;
        e->key = r->name;
        if (!gguf_value(r, &type, &e->value) || !use_key(r, e, type, out))
            return false;
        if (r->pos > GGUF_MAX_METADATA)
            return gguf_fail(r, "the metadata is larger than %d MiB", GGUF_MAX_METADATA >> 20);
    }
    out->n_meta = (int)count;
    return true;
}

/* ==== Tensors ==== */

/* Dimensions in the file's order (fastest first) to row-major ones and the size in bytes. */
static bool use_dims(Reader *r, const uint64_t *ne, TensorInfo *t) {
    uint64_t elems = 1;
    for (int i = 0; i < t->rank; i++) {
        if (ne[i] == 0)
            return gguf_fail(r, "dimension %d is 0", i);
        if (ne[i] > INT64_MAX || __builtin_mul_overflow(elems, ne[i], &elems) || elems > INT64_MAX)
            return gguf_fail(r, "has too many elements (dimension %d is %" PRIu64 ")", i, ne[i]);
        t->dims[t->rank - 1 - i] = (int64_t)ne[i];
    }
    if (t->dtype == DT_COUNT)
        return true; /* block size unknown */
    const DTypeInfo *info = dtype_info(t->dtype);
    uint64_t row = t->rank ? ne[0] : 1;
    if (row % (uint64_t)info->block_elems)
        return gguf_fail(r, "rows of %" PRIu64 " elements are not whole %s blocks of %d", row, info->name,
                         info->block_elems);
    if (__builtin_mul_overflow(elems / (uint64_t)info->block_elems, (uint64_t)info->block_bytes, &t->bytes))
        return gguf_fail(r, "has too many bytes");
    return true;
}

static bool read_tensor(Reader *r, NameMap *seen, TensorInfo *t, uint64_t *offset) {
    uint32_t rank;
    uint64_t ne[MAX_DIMS];
    if (!read_name(r, GGUF_MAX_TENSOR_NAME, seen) || !gguf_u32(r, &rank))
        return false;
    if (rank > MAX_DIMS)
        return gguf_fail(r, "has %" PRIu32 " dimensions; the limit is %d", rank, MAX_DIMS);
    for (uint32_t i = 0; i < rank; i++)
        if (!gguf_u64(r, &ne[i]))
            return false;
    if (!gguf_u32(r, &t->file_type) || !gguf_u64(r, offset))
        return false;
    t->name = r->name;
    t->rank = (int)rank;
    t->dtype = dtype_from_gguf(t->file_type);
    if (!use_dims(r, ne, t))
        return false;
    if (*offset % r->alignment)
        return gguf_fail(r, "its offset %" PRIu64 " is not a multiple of the alignment %" PRIu64, *offset,
                         r->alignment);
    return true;
}

/* Offsets become places in the file. Sums that leave 64 bits are refused here. */
static bool place_tensors(Reader *r, const ModelFile *out, const uint64_t *offset, Extent *extent) {
    uint64_t data_start = (r->pos + r->alignment - 1) / r->alignment * r->alignment;
    for (int i = 0; i < out->n_tensors; i++) {
        const TensorInfo *t = &out->tensors[i];
        Extent *e = &extent[i];
        e->tensor = i;
        if (__builtin_add_overflow(data_start, offset[i], &e->start) ||
            __builtin_add_overflow(e->start, t->bytes, &e->end)) {
            diag_error(r->diag, r->at, "tensor '%s': offset %" PRIu64 " and size %" PRIu64 " are beyond any file",
                       t->name, offset[i], t->bytes);
            return false;
        }
        if (t->dtype == DT_COUNT && e->end != UINT64_MAX)
            e->end++; /* size unknown: not empty */
    }
    return true;
}

static int by_start(const void *a, const void *b) {
    const Extent *x = a;
    const Extent *y = b;
    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return x->tensor < y->tensor ? -1 : 1;
}

/* extent is sorted by start. */
static bool check_end(const Reader *r, const ModelFile *out, const Extent *extent) {
    const Extent *first = NULL;
    uint64_t need = 0;
    for (int i = 0; i < out->n_tensors; i++) {
        if (extent[i].end > r->file.size && !first)
            first = &extent[i];
        if (extent[i].end > need)
            need = extent[i].end;
    }
    if (!first)
        return true;
    diag_error(r->diag, r->at,
               "tensor '%s': data ends at byte %" PRIu64 ", but the file has %zu; %" PRIu64
               " are needed for all tensors (is the file truncated?)",
               out->tensors[first->tensor].name, first->end, r->file.size, need);
    return false;
}

/* extent is sorted by start. Equal starts overlap as well: no tensor is empty. */
static bool check_overlap(const Reader *r, const ModelFile *out, const Extent *extent) {
    for (int i = 1; i < out->n_tensors; i++) {
        const Extent *a = &extent[i - 1];
        const Extent *b = &extent[i];
        if (b->start >= a->end)
            continue;
        diag_error(r->diag, r->at,
                   "tensor '%s': data at bytes %" PRIu64 " to %" PRIu64 " overlaps tensor '%s' at %" PRIu64
                   " to %" PRIu64,
                   out->tensors[b->tensor].name, b->start, b->end, out->tensors[a->tensor].name, a->start, a->end);
        return false;
    }
    return true;
}

static bool read_tensors(Reader *r, uint64_t count, ModelFile *out) {
    NameMap *seen = namemap_new(r->arena);
    uint64_t *offset = arena_array(r->arena, count, sizeof *offset);
    Extent *extent = arena_array(r->arena, count, sizeof *extent);
    out->tensors = arena_array(r->arena, count, sizeof *out->tensors);
    out->n_tensors = (int)count;
    r->section = "tensor";
    r->count = count;
    for (r->index = 0; r->index < count; r->index++) {
        r->name = NULL;
        if (!read_tensor(r, seen, &out->tensors[r->index], &offset[r->index]))
            return false;
    }
    if (!place_tensors(r, out, offset, extent))
        return false;
    for (uint64_t i = 0; i < count; i++)
        if (extent[i].end <= r->file.size)
            out->tensors[i].data = r->file.data + extent[i].start;
    if (count)
        qsort(extent, count, sizeof *extent, by_start);
    return check_end(r, out, extent) && check_overlap(r, out, extent);
}

bool gguf_read(Arena *a, FileView f, Diag *diag, ModelFile *out) {
    Reader r = {
        .file = f,
        .arena = a,
        .diag = diag,
        .at = file_loc(diag, f.path),
        .section = "header",
        .alignment = GGUF_DEFAULT_ALIGNMENT,
    };
    uint64_t n_tensors = 0;
    uint64_t n_keys = 0;
    out->path = f.path;
    out->arch = "";
    if (!read_header(&r, &n_tensors, &n_keys) || !read_keys(&r, n_keys, out) || !read_tensors(&r, n_tensors, out))
        return false;
    modelfile_index(out, a);
    return true;
}
