/* kernel_texts_int.h - the files of kernels/, built into the program (models/embed.cmake). */
#ifndef LAP_DEVICE_KERNEL_TEXTS_INT_H
#define LAP_DEVICE_KERNEL_TEXTS_INT_H

#include "ir/base.h"

extern const EmbeddedText device_kernel_texts[]; /* in the order of CMakeLists.txt */
extern const int n_device_kernel_texts;

#endif
