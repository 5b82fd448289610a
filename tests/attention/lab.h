/* lab.h - the kernels of attention tests on a GPU. */
#ifndef LAP_TESTS_ATTENTION_LAB_H
#define LAP_TESTS_ATTENTION_LAB_H

#include "tests/kernels/lab.h"

/* A file of codegen/kernels after its macros, with the bodies of this folder. */
Program attention_program(const char *label, const char *file, char *defines);

/* A kernel to compile. */
typedef struct Wish {
    const char *file, *kernel;
    char *defines; /* freed by wishes_build */
    int64_t shared;
    DevModule *module; /* wishes_build fills these */
    const DevKernel *built;
} Wish;

void wishes_build(Lab *l, Wish *wishes, int n);
/* Blocks of the kernel that are resident together, all multiprocessors. */
int wish_resident(const Lab *l, const Wish *w, int threads);

#endif
