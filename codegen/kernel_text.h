/* kernel_text.h - kernels as whole programs: a template with its includes, #defines in front, bodies in their slots.
 *
 * NVRTC is given one text without includes. #line keeps places: a message about a template names the template's
 * line, one about a body the line of the .lap text that it was written from.
 */
#ifndef LAP_CODEGEN_KERNEL_TEXT_H
#define LAP_CODEGEN_KERNEL_TEXT_H

#include "ir/base.h"

/* What takes the place of a file of kernels/. */
typedef struct Body {
    const char *name; /* "tail.body" */
    const char *text;
} Body;

/* `defines`, then a file of kernels/ with the files that it includes, each once. */
const char *kernel_expand(Arena *a, const char *file, const char *defines, const Body *bodies, int n_bodies);

#endif
