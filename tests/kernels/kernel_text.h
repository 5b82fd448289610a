/* kernel_text.h - the files of codegen/kernels, built into the tests, as one text for NVRTC. */
#ifndef LAP_TESTS_KERNELS_KERNEL_TEXT_H
#define LAP_TESTS_KERNELS_KERNEL_TEXT_H

#include <stddef.h>

typedef struct KernelText {
    const char *name; /* "prelude.cu" */
    const char *text; /* NUL-terminated */
    size_t len;
} KernelText;

extern const KernelText kernel_texts[];
extern const int n_kernel_texts;

/* The file with its #include "..." lines replaced by the files they name, after `defines` (lines of #define); #line
 * keeps places. malloc. */
char *kernel_source(const char *file, const char *defines);

#endif
