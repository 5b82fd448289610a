/* gguf_int.h - the cursor over a GGUF file, shared by gguf.c (structure) and gguf_value.c (metadata
 * values). Private to the GGUF reader.
 */
#ifndef LAP_GGUF_INT_H
#define LAP_GGUF_INT_H

#include "runtime/weights/weights_int.h"

/* Limits on what a file may ask for, far above real models (tokenizers have about 3e5 entries). */
enum {
    GGUF_MAX_KEYS = 100000,
    GGUF_MAX_TENSORS = 1000000,
    GGUF_MAX_KEY_BYTES = 65535,   /* the format's own limit */
    GGUF_MAX_TENSOR_NAME = 64,    /* the format's own limit */
    GGUF_MAX_STRING = 64 << 20,   /* bytes of one string value */
    GGUF_MAX_METADATA = 1 << 30,  /* bytes of all keys and values in the file */
    GGUF_MAX_DECODED = 256 << 20, /* bytes of all values in memory */
    GGUF_MAX_ALIGNMENT = 1 << 20,
    GGUF_DEFAULT_ALIGNMENT = 32,
};

/* Types of metadata values, as numbered in the file. */
typedef enum GgufType {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
} GgufType;

/* What is being read, for messages: "key 3 of 10", or by its name once that is known. */
typedef struct Reader {
    FileView file;
    size_t pos; /* <= file.size always */
    Arena *arena;
    Diag *diag;
    SrcLoc at;
    const char *section; /* "header", "key", "tensor" */
    uint64_t index, count;
    const char *name; /* NULL: not read yet */
    uint64_t decoded; /* bytes of values put into the arena */
    uint64_t alignment;
} Reader;

/* Reports an error about the item being read; always false. */
__attribute__((format(printf, 2, 3))) bool gguf_fail(const Reader *r, const char *fmt, ...);

/* The next n bytes, or NULL after reporting that the file ends. */
const uint8_t *gguf_take(Reader *r, uint64_t n);
bool gguf_u32(Reader *r, uint32_t *out);
bool gguf_u64(Reader *r, uint64_t *out);
bool gguf_string(Reader *r, uint64_t max, Str *out);

/* A value with its type in front. *type is the type of the value, or of the elements. */
bool gguf_value(Reader *r, GgufType *type, MetaValue *out);

#endif
