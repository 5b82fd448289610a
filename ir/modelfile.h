/* modelfile.h - what the compiler sees of a weights file: named metadata and named tensors.
 *
 * Plain data. The readers in runtime/weights fill it (from GGUF, from safetensors + config.json);
 * the front end binds parameters and weights to it; the evaluator takes the tensor bytes. Strings
 * and tensor bytes point into the mapped file, which outlives this struct.
 */
#ifndef LAP_IR_MODELFILE_H
#define LAP_IR_MODELFILE_H

#include "ir/dtype.h"

#define MAX_DIMS 4

typedef enum MetaKind { META_INT, META_FLOAT, META_BOOL, META_STRING } MetaKind;

/* A scalar has n == 1 and is_array false. Integers of every width, and bools (0/1), are in i. */
typedef struct MetaValue {
    MetaKind kind;
    bool is_array;
    int64_t n;
    union {
        const int64_t *i; /* META_INT, META_BOOL */
        const double *f;  /* META_FLOAT */
        const Str *s;     /* META_STRING */
    };
} MetaValue;

typedef struct MetaEntry {
    const char *key; /* whole key: "gemma3.block_count" */
    MetaValue value;
} MetaEntry;

typedef struct TensorInfo {
    const char *name;
    DType dtype;            /* DT_COUNT: a type this program does not know (file_type says which) */
    uint32_t file_type;     /* type id as in the file */
    int rank;               /* 0..MAX_DIMS */
    int64_t dims[MAX_DIMS]; /* row-major: dims[rank-1] is contiguous; [out, in] for a matrix */
    const void *data;       /* NULL when only metadata was read */
    uint64_t bytes;
} TensorInfo;

/* Every name that was looked up, found or not, once: what a compilation depends on. */
typedef struct ModelReads {
    Arena *arena;
    NameMap *known[2]; /* of keys, of tensors */
    VEC(const char *) names[2];
} ModelReads;

enum { READ_KEYS, READ_TENSORS };

ModelReads *modelreads_new(Arena *a);

typedef struct ModelFile {
    const char *path; /* for messages */
    const char *arch; /* "gemma4"; "" when the file names none */
    MetaEntry *meta;
    int n_meta;
    TensorInfo *tensors;
    int n_tensors;
    NameMap *meta_index; /* key -> index; see modelfile_index() */
    NameMap *tensor_index;
    ModelReads *reads; /* lookups are noted there; NULL: not noted */
} ModelFile;

/* Builds the two indices from the arrays. */
void modelfile_index(ModelFile *f, Arena *a);

/* NULL when absent. */
const MetaValue *modelfile_meta(const ModelFile *f, const char *key);
const TensorInfo *modelfile_tensor(const ModelFile *f, const char *name);

#endif
