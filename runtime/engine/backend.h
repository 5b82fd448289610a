/* backend.h - what runs the graphs of a session: a struct of functions.
 *
 * The evaluator is the only one now; a GPU back end is another row of the table in backend.c. A back
 * end owns the K/V caches of its slots; calls and errors have the evaluator's meaning (ir/eval.h).
 */
#ifndef LAP_ENGINE_BACKEND_H
#define LAP_ENGINE_BACKEND_H

#include "ir/eval.h"

typedef struct Backend {
    const char *name; /* as in --device */
    /* NULL after an error in m->diag. */
    void *(*open)(const Module *m, const void *const *data, const EvalOptions *o);
    void (*close)(void *state);
    bool (*call)(void *state, const EvalCall *call, Diag *diag);
    void (*truncate)(void *state, int slot, int64_t pos);
    int64_t (*cache_bytes)(const void *state);
    int (*threads)(const void *state); /* that compute */
} Backend;

/* device: "auto" picks the best this build has. NULL after an error in diag. */
const Backend *backend_find(const char *device, Diag *diag);

#endif
