/* lab.c - see lab.h. */
#include "tests/attention/lab.h"

#include "tests/attention/bodies.h"
#include "tests/kernels/program.h"
#include <stdlib.h>

Program attention_program(const char *label, const char *file, char *defines) {
    enum { MOST = 4 };
    Body bodies[MOST];
    int n = 0;
    for (; n < n_attention_bodies && n < MOST; n++)
        bodies[n] = (Body){attention_bodies[n].name, attention_bodies[n].text};
    return program_new(label, file, defines, bodies, n);
}

void wishes_build(Lab *l, Wish *wishes, int n) {
    Program *programs = calloc((size_t)n + 1, sizeof *programs);
    DevModule **modules = calloc((size_t)n + 1, sizeof *modules);
    for (int i = 0; i < n; i++)
        programs[i] = attention_program(wishes[i].kernel, wishes[i].file, wishes[i].defines);
    lab_load(l, programs, n, modules);
    for (int i = 0; i < n; i++) {
        wishes[i].module = modules[i];
        wishes[i].built = lab_kernel(modules[i], wishes[i].kernel, wishes[i].shared);
    }
    free(programs);
    free(modules);
}

int wish_resident(const Lab *l, const Wish *w, int threads) {
    return lab_resident(w->built, threads, w->shared) * dev_info(l->device)->multiprocessors;
}
