/* convert.h - from a Hugging Face checkpoint (config.json, safetensors, tokenizer.json) to a GGUF file.
 *
 * What a checkpoint's tensors and numbers are called on either side is text (models/NAME.convert), one for each GGUF
 * architecture; here are its reader, the storage types, the tokenizer, and the bytes. Everything is checked before
 * anything is written: each tensor of the checkpoint is taken by a line of the text or ignored by one, none is missing,
 * shapes are those that config.json asks for. Messages name the file and the key or tensor.
 *
 * The text, beside let, key and each layer (runtime/gguf/describe.h). PATH is a dotted key of config.json:
 *   from ARCHITECTURE..            the checkpoints that it is for; the first line
 *   within OBJECT..                objects of config.json in which a PATH is looked for before the whole
 *   prefix TEXT..                  {prefix} is the first of these with which a tensor's name begins, else the last
 *   number NAME PATH [times N] [else EXPR]
 *                                  an integer or truth value; with `times` any number, times N, rounded down
 *   real NAME PATH [else NUMBER]   any number, for keys of type f32
 *   given NAME PATH                1 when config.json has it, else 0
 *   count NAME PATH                how many values the array has
 *   array NAME[EXPR] PATH [is TEXT or TEXT] [else EXPR]
 *                                  NAME is value i of an array of so many integers or truth values; with `is`, of
 *                                  texts: 1 for the first, 0 for the other
 *   expect PATH TEXT..             it is one of these, or absent: nothing else is written into the GGUF or known here
 *   tensor NAME TYPE [EXPR, ..] from TENSOR [if EXPR]
 *   tensor NAME f32 [EXPR] first EXPR A rest B [if EXPR]
 *                                  a tensor of the GGUF, row-major, and the checkpoint's tensor; or values made here.
 *                                  TYPE: f32, bf16, i32; matrix and head are stored as --quant says
 *   ignore TENSOR [if EXPR]        a tensor that may be there and is not converted; * at its end: all that begin so
 *   visible TEXT..                 special tokens that are nevertheless printed (GGUF type user-defined)
 * Names known from the start: file_type, the number for general.file_type; tokenizer, 1 with a tokenizer.json;
 * {source}, the folder's name.
 */
#ifndef LAP_CONVERT_CONVERT_H
#define LAP_CONVERT_CONVERT_H

#include "runtime/gguf/image.h"

/* Where the values of a tensor come from. */
typedef struct ConvertFrom {
    const TensorInfo *tensor; /* of the checkpoint, of as many elements; NULL: */
    int64_t first;            /* `a` so many times, then b */
    float a, b;
} ConvertFrom;

/* A file that is not written yet. In the arena given. */
typedef struct Conversion {
    GgufImage image;
    const ConvertFrom *from; /* [n_tensors] */
    const char *text;        /* the .convert text that was used */
} Conversion;

/* `source` is an open checkpoint with its data; `dir` is its folder. `quant`: bf16, q8_0, q4_0, q4_k, q6_k. NULL after
 * errors in diag; warnings, of types that fall back and of a missing tokenizer, go there too. */
Conversion *convert_plan(Arena *a, Diag *diag, const ModelFile *source, const char *dir, const char *quant);
/* The same with a text of the caller's. */
Conversion *convert_plan_text(Arena *a, Diag *diag, const ModelFile *source, const char *dir, const char *quant,
                              const char *name, const char *text);

typedef struct ConvertWork {
    int threads;                 /* 0: one a processor */
    const volatile bool *cancel; /* NULL: never */
    /* Bytes, first of writing, then of checking; from any thread, one at a time. */
    void (*on_progress)(void *ctx, bool checking, uint64_t done, uint64_t total);
    void *ctx;
} ConvertWork;

/* What the written file holds, by storage type. */
typedef struct ConvertTotals {
    int tensors;
    uint64_t bytes;
    uint64_t elems;
    double worst;            /* the largest relative error of a tensor: RMS of what it is off by / RMS of its values */
    const char *worst_named; /* NULL: all are exact */
} ConvertTotals;

/* Writes the file, and before it gets its name opens it with the reader of weights and compares every tensor's name,
 * type, shape and values with the checkpoint's. Messages go to diag; fills totals[DT_COUNT]. */
GgufResult convert_write(const Conversion *c, const char *path, const ConvertWork *work, Diag *diag,
                         ConvertTotals *totals);

#endif
