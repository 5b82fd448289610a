/* backend.c - the table of back ends. */
#include "runtime/engine/backend.h"
#include <string.h>

static void *cpu_open(const Module *m, const void *const *data, const EvalOptions *o) {
    return eval_new(m, data, o);
}

static void cpu_close(void *state) {
    eval_free(state);
}

static bool cpu_call(void *state, const EvalCall *call, Diag *diag) {
    return eval_call(state, call, diag);
}

static void cpu_truncate(void *state, int slot, int64_t pos) {
    eval_truncate(state, slot, pos);
}

static int64_t cpu_cache_bytes(const void *state) {
    return eval_cache_bytes(state);
}

static int cpu_threads(const void *state) {
    return eval_threads(state);
}

/* Best first. */
static const Backend backends[] = {
    {"cpu", cpu_open, cpu_close, cpu_call, cpu_truncate, cpu_cache_bytes, cpu_threads},
};

const Backend *backend_find(const char *device, Diag *diag) {
    if (strcmp(device, "auto") == 0)
        return &backends[0];
    for (size_t i = 0; i < COUNTOF(backends); i++)
        if (strcmp(backends[i].name, device) == 0)
            return &backends[i];
    diag_error(diag, NO_LOC, "this build has no \"%s\" back end", device);
    diag_note(diag, NO_LOC, "--device auto or --device cpu runs the model on the processor");
    return NULL;
}
