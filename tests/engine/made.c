/* made.c - see made.h. */
#include "tests/engine/made.h"

#include <stdio.h>
#include <stdlib.h>

void make_weights(const char *path, const SynthOptions *o) {
    Arena *a = arena_new();
    Diag *diag = diag_new();
    const GgufWork work = {.threads = 1};
    const SynthModel *m = synth_model(a, diag, o);
    if (!m || synth_write(m, path, &work, diag) != GGUF_OK) {
        diag_print(diag, stdout, false);
        printf("FAILED: %s is not made\n", path);
        exit(1);
    }
    diag_free(diag);
    arena_free(a);
}
