/* backend.c - the table of back ends. */
#include "runtime/engine/backend.h"
#include <stdlib.h>
#include <string.h>

/* ==== The evaluator ==== */

static GpuRates cpu_rates(Arena *a, const BackendOptions *o, Diag *diag) {
    (void)a, (void)o, (void)diag;
    return (GpuRates){rates_default(), "this is no GPU"};
}

static void *cpu_open(const Module *m, const void *const *data, const BackendOptions *o) {
    const EvalOptions e = {.threads = o->threads, .slots = o->gpu.plan.slots, .context = o->gpu.plan.context};
    return eval_new(m, data, &e);
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

static Gpu *cpu_gpu(void *state) {
    (void)state;
    return NULL;
}

static void *cpu_hold(void *state, const char *input, int64_t bytes, Diag *diag) {
    (void)state, (void)input;
    void *p = malloc((size_t)bytes);
    if (!p)
        diag_error(diag, NO_LOC, "out of memory");
    return p;
}

static void cpu_let_go(void *state, void *held) {
    (void)state;
    free(held);
}

/* ==== A GPU ==== */

static GpuRates on_gpu_rates(Arena *a, const BackendOptions *o, Diag *diag) {
    return gpu_rates(a, &o->gpu, diag);
}

static void *on_gpu_open(const Module *m, const void *const *data, const BackendOptions *o) {
    return gpu_open(m, data, &o->gpu);
}

static void on_gpu_close(void *state) {
    gpu_close(state);
}

static bool on_gpu_call(void *state, const EvalCall *call, Diag *diag) {
    return gpu_call(state, call, diag);
}

static void on_gpu_truncate(void *state, int slot, int64_t pos) {
    gpu_truncate(state, slot, pos);
}

static int64_t on_gpu_cache_bytes(const void *state) {
    return gpu_cache_bytes(state);
}

static int on_gpu_threads(const void *state) {
    (void)state;
    return 1;
}

static Gpu *on_gpu_gpu(void *state) {
    return state;
}

static void *on_gpu_hold(void *state, const char *input, int64_t bytes, Diag *diag) {
    return gpu_hold(state, input, bytes, diag);
}

static void on_gpu_let_go(void *state, void *held) {
    gpu_let_go(state, held);
}

/* ==== The table ==== */

enum { CPU, GPU };

static const Backend backends[] = {
    [CPU] = {"cpu", DT_F32, cpu_rates, cpu_open, cpu_close, cpu_call, cpu_truncate, cpu_cache_bytes, cpu_threads,
             cpu_gpu, cpu_hold, cpu_let_go},
    [GPU] = {"gpu", DT_F16, on_gpu_rates, on_gpu_open, on_gpu_close, on_gpu_call, on_gpu_truncate, on_gpu_cache_bytes,
             on_gpu_threads, on_gpu_gpu, on_gpu_hold, on_gpu_let_go},
};

const Backend *backend_find(const char *device, const char *driver, Diag *diag) {
    if (strcmp(device, "auto") == 0)
        return &backends[gpu_present(driver) ? GPU : CPU];
    for (size_t i = 0; i < COUNTOF(backends); i++)
        if (strcmp(backends[i].name, device) == 0)
            return &backends[i];
    diag_error(diag, NO_LOC, "there is no \"%s\" back end", device);
    diag_note(diag, NO_LOC, "--device auto, cpu or gpu");
    return NULL;
}
