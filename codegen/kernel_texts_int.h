/* kernel_texts_int.h - the files of kernels/, built into the program (models/embed.cmake). */
#ifndef LAP_CODEGEN_KERNEL_TEXTS_INT_H
#define LAP_CODEGEN_KERNEL_TEXTS_INT_H

#include "ir/base.h"

extern const EmbeddedText codegen_texts[];
extern const int n_codegen_texts;

#endif
