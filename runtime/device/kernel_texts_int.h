/* kernel_texts_int.h - the files of kernels/, built into the program (models/embed.cmake). */
#ifndef LAP_DEVICE_KERNEL_TEXTS_INT_H
#define LAP_DEVICE_KERNEL_TEXTS_INT_H

#include <stddef.h>

typedef struct KernelText {
    const char *name; /* "roofline.cu" */
    const char *text; /* NUL-terminated */
    size_t len;
} KernelText;

extern const KernelText device_kernel_texts[]; /* in the order of CMakeLists.txt */
extern const int n_device_kernel_texts;

#endif
