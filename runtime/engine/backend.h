/* backend.h - what runs the graphs of a session: a struct of functions.
 *
 * The evaluator on the processor, or a plan on a GPU: rows of the table in backend.c. A back end owns the K/V
 * caches of its slots; calls and errors have the evaluator's meaning (ir/eval.h).
 */
#ifndef LAP_ENGINE_BACKEND_H
#define LAP_ENGINE_BACKEND_H

#include "ir/eval.h"
#include "runtime/engine/gpu.h"

typedef struct BackendOptions {
    int threads;    /* of the evaluator; 0: all processors */
    GpuOptions gpu; /* plan.slots, context, chunk and wanted are meant for both */
} BackendOptions;

typedef struct Backend {
    const char *name; /* as in --device */
    DType kv_type;    /* of stored keys and values, unless asked otherwise */
    /* By which passes choose for it. */
    GpuRates (*rates)(Arena *a, const BackendOptions *o, Diag *diag);
    /* NULL after an error in m->diag. */
    void *(*open)(const Module *m, const void *const *data, const BackendOptions *o);
    void (*close)(void *state);
    bool (*call)(void *state, const EvalCall *call, Diag *diag);
    void (*truncate)(void *state, int slot, int64_t pos);
    int64_t (*cache_bytes)(const void *state);
    int (*threads)(const void *state); /* that compute */
    Gpu *(*gpu)(void *state);          /* NULL: it is none */
    /* Memory for what calls hand to each other (EvalCall.held_inputs), which the host may not look into. input: of
     * calls, which then need not copy it from there; NULL: none. NULL after an error in diag. */
    void *(*hold)(void *state, const char *input, int64_t bytes, Diag *diag);
    void (*let_go)(void *state, void *held); /* NULL is fine */
} Backend;

/* device: "auto" is the GPU where `driver` (NULL: the system's) finds one. NULL after an error in diag. */
const Backend *backend_find(const char *device, const char *driver, Diag *diag);

#endif
