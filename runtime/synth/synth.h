/* synth.h - GGUF files of a model's true names, shapes and storage types, filled with random weights.
 *
 * For timing and testing real shapes without the real weights. What a model has is text (models/NAME.synth);
 * here are its reader, the rules by which llama.cpp's quantiser picks storage types, and what fills them. The bytes
 * of a tensor depend on the seed and its name alone, not on threads, other tensors or the machine; every value
 * is finite. Blocks are made directly, random codes under scales that give the spread asked for: quantising
 * real numbers would be twenty times slower and time no different.
 *
 * The text, beside let, key and each layer (runtime/gguf/describe.h):
 *   columns NAME..                 numbers a size has; `layers` must be one of them
 *   size NAME NUMBER..             a size, in the order of the columns; {size} is its name
 *   tensor NAME TYPE [EXPR, ..] VALUES [if EXPR]
 *                                  TYPE as converted, before quantisation; row-major; VALUES are
 *                                  fan EXPR               around 0, variance 1 / EXPR
 *                                  near NUMBER            NUMBER, give or take a fifth
 *                                  first N A rest B       A for N elements, then B
 * `file_type` is a name with the number of the quantisation in general.file_type.
 */
#ifndef LAP_SYNTH_SYNTH_H
#define LAP_SYNTH_SYNTH_H

#include "ir/diag.h"
#include "runtime/gguf/image.h"

/* ==== What to make ==== */

typedef struct SynthSetting {
    const char *column;
    int64_t value;
} SynthSetting;

typedef struct SynthOptions {
    const char *size;  /* "gemma4-31b" */
    const char *quant; /* "q4_k_m"; a name that synth_quant_names lists */
    uint64_t seed;
    const SynthSetting *settings; /* instead of the size's own numbers */
    int n_settings;
} SynthOptions;

typedef enum SynthKind { SYNTH_FAN, SYNTH_NEAR, SYNTH_FIRST } SynthKind;

/* How the values of a tensor lie. */
typedef struct SynthValues {
    SynthKind kind;
    float a;      /* FAN: standard deviation; NEAR: centre; FIRST: value of the first n */
    float b;      /* FIRST: value of the rest */
    int64_t n;    /* FIRST */
    uint64_t key; /* of the tensor's random numbers */
} SynthValues;

/* A file that is not written yet. In the arena given. */
typedef struct SynthModel {
    GgufImage image;           /* the file's path is the size's name */
    const SynthValues *values; /* [n_tensors] */
} SynthModel;

/* "q4_k_m, q8_0, bf16" */
const char *synth_quant_names(Arena *a);

/* From the text that is built in for the size; from the text given. NULL after errors in diag. */
SynthModel *synth_model(Arena *a, Diag *diag, const SynthOptions *o);
SynthModel *synth_model_of_text(Arena *a, Diag *diag, const char *name, const char *text, const SynthOptions *o);

/* ==== Writing it ==== */

/* gguf_write() of the model. */
GgufResult synth_write(const SynthModel *m, const char *path, const GgufWork *o, Diag *diag);

/* Bytes [at, at + n) of tensor i; both multiples of 8 blocks, the last piece of any length. out holds n bytes,
 * rounded up to a multiple of 8. */
void synth_fill(const SynthModel *m, int i, uint64_t at, uint8_t *out, size_t n);

#endif
