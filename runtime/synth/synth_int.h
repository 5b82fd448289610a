/* synth_int.h - between the files of this folder: the rules of quantisation, and filling. */
#ifndef LAP_SYNTH_SYNTH_INT_H
#define LAP_SYNTH_SYNTH_INT_H

#include "runtime/gguf/describe.h"
#include "runtime/synth/synth.h"

/* ==== Quantisation (quant.c) ==== */

typedef struct QuantRule QuantRule;

/* NULL after an error in diag. */
const QuantRule *quant_rule(Arena *a, Diag *diag, const char *name);
int64_t quant_file_type(const QuantRule *r);
/* Replaces the types of the tensors, given as converted, by those that the quantiser picks. */
void quant_types(const QuantRule *r, TensorInfo *t, int n, int64_t layers);

/* ==== Filling (fill.c) ==== */

bool fill_knows(DType t, SynthKind kind);

#endif
