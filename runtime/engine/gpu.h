/* gpu.h - runs a plan (codegen/plan.h) on a GPU: device memory, compiled kernels, graphs, calls.
 *
 *   device ─┐
 *   plan ───┼─► compile (all processors) ──┐
 *   weights ┴─► upload, repack ────────────┴─► graphs of the decode phases ─► calls
 *
 * Errors of the machine become errors in the Diag that a function takes.
 */
#ifndef LAP_ENGINE_GPU_H
#define LAP_ENGINE_GPU_H

#include "codegen/plan.h"
#include "codegen/tuned.h"
#include "ir/eval.h"
#include "runtime/device/compile.h"
#include "runtime/device/device.h"
#include "runtime/engine/chunk.h"
#include "runtime/engine/rates.h"
#include "runtime/engine/timeline.h"
#include "runtime/engine/tune.h"
#include "runtime/text/text.h"

typedef struct Gpu Gpu;

/* A compiled kernel that need not be compiled: of a bundle. */
typedef struct GpuCubin {
    const void *bytes;
    size_t n;
} GpuCubin;

typedef struct GpuOptions {
    const char *driver;       /* path of libcuda; NULL: the system's */
    const char *nvrtc;        /* folder; NULL: the usual places */
    const char *kernel_cache; /* folder of compiled kernels; NULL: none is kept */
    int ordinal;              /* which GPU */
    PlanOptions plan;
    ChunkRequest
        *choose; /* NULL: plan.chunk. Else the chunk is chosen by the device, for this module; not with `ready` */
    /* A call of "step" whose phase gets a timed version (plan_time_phase); 0: none. Not with `ready`. */
    int64_t timed_rows, timed_wanted;
    const char *timed_moment; /* of PLAN_MOMENTS; NULL: "wait" */
    const char *use_kernel;   /* a file whose text takes the place of the kernel named as it is (NAME.cu) */
    const Plan *ready;        /* a plan that is not to be made, whose kernels are not to be compiled; NULL */
    const GpuCubin *cubins;   /* of each kernel of `ready` */
    /* How decode matmuls are cut. Not with `ready` or use_kernel; with a timed phase or check_launches choices are
     * taken and none is made. */
    TuneOptions tune;
    RatesOptions rates;  /* for gpu_rates(), and where a load keeps them that measures a new GPU; not with `ready` */
    bool check_launches; /* no graphs, wait after each launch: a fault then names its kernel */
    /* Told while things take time; may be NULL. `what`: "measuring the GPU", "compiling kernels", "loading
     * weights", "tuning kernels". */
    void (*progress)(void *ctx, const char *what, int64_t done, int64_t total, bool bytes);
    void *ctx;
    const volatile bool *cancel; /* set: loading stops soon; may be NULL */
} GpuOptions;

/* What loading took. */
typedef struct GpuLoadStats {
    double device_seconds, compile_seconds, upload_seconds, ready_seconds; /* the last: until graphs were there */
    int kernels, compiled;                                                 /* not taken from the cache */
    int64_t upload_bytes;
} GpuLoadStats;

/* True when there is a driver and a GPU that can be used. */
bool gpu_present(const char *driver);
/* The architecture of a GPU of the machine. False after an error in diag. */
bool gpu_arch(const char *driver, int ordinal, char out[16], Diag *diag);

/* ==== Rates (gpu_rates.c) ==== */

/* Those of the GPU that o names, for the options of passes: as they are kept, else those of an H100, for as many
 * multiprocessors. Takes less than a millisecond. */
GpuRates gpu_rates(Arena *a, const GpuOptions *o, Diag *diag);
/* Whether a load of o on this device is to measure it: it has a file for rates, which does not have the device's. */
bool gpu_rates_wanted(const GpuOptions *o, const Device *d);
/* What it will take, into the cache, so that it takes less; cache NULL: nothing. */
void gpu_rates_compile(const GpuOptions *o, const char *arch, const Nvrtc *n, CubinCache *cache);
/* Measures a device, and keeps what came out, in less than half a second besides compiling; cache may be NULL. */
void gpu_rates_measure(const GpuOptions *o, Device *d, const Nvrtc *n, CubinCache *cache, Diag *diag);
/* What tuned_find_rates() finds those of a GPU by; its rates are what serves until then. */
TunedRates gpu_rates_key(const DevInfo *info);
/* Puts them into the file; rates NULL: they could not be measured. */
void gpu_keep_rates(const char *file, const DevInfo *info, const DeviceRates *rates, Diag *diag);

/* ==== Opening ==== */

/* data[i]: bytes of weight i as stored, which may be unmapped when this returns. The module outlives the Gpu. NULL
 * after errors in m->diag, or when it was cancelled. */
Gpu *gpu_open(const Module *m, const void *const *data, const GpuOptions *o);
void gpu_close(Gpu *g);

/* As eval_call(). In calls of more than 16 rows all rows are of one sequence. */
bool gpu_call(Gpu *g, const EvalCall *call, Diag *diag);
void gpu_truncate(Gpu *g, int slot, int64_t pos);
/* Device memory for EvalCall.held_inputs and held_outputs. With an input's name: the place in the call block where
 * kernels read it, the same each time; a call that is given it copies nothing. */
void *gpu_hold(Gpu *g, const char *input, int64_t bytes, Diag *diag);
void gpu_let_go(Gpu *g, void *held);
int64_t gpu_cache_bytes(const Gpu *g);
int gpu_vocab(const Gpu *g); /* tokens of calls are below */

/* ==== Picking tokens on the device (gpu_sample.c) ====
 *
 *   gpu_sample_start ──► gpu_sample_call ──► gpu_sample_next ──► gpu_sample_next ..     each enqueues a step, and a
 * pick └─ gpu_sample_take     └─ gpu_sample_take               the oldest pick; waits for it
 *
 * A step that feeds what was picked needs nothing of the host, so steps may be enqueued before the picks ahead of them
 * are taken, up to PLAN_RING of them. What must not have been fed after all is forgotten with gpu_truncate(). Another
 * gpu_sample_call() in the same way forgets picks that are not taken. */

/* Whether an entry's tokens can be picked on the device. */
bool gpu_samples(const Gpu *g, const char *graph, PickWay way);
/* How a sequence samples from now on, and the tokens that it has. */
bool gpu_sample_start(Gpu *g, const char *graph, int slot, const SampleOptions *o, const int32_t *ids, int64_t n,
                      Diag *diag);
/* As gpu_call(), and each wanted row picks a token; outputs that the host has not asked to hold are not read. PickWay
 * says which rows may be wanted. Enqueued, not waited for. False after an error, or when cancelled, then without a
 * message. */
bool gpu_sample_call(Gpu *g, const EvalCall *call, PickWay way, Diag *diag);
/* The step that feeds what the step before it picks, for which every sequence has room (PICK_NEXT), or a chain's next
 * guess (PICK_GUESS). */
bool gpu_sample_next(Gpu *g, const char *graph, PickWay way, Diag *diag);
/* ids: a token for each wanted row of the call; -1: its logits were not usable. */
bool gpu_sample_take(Gpu *g, const char *graph, PickWay way, int32_t *ids, Diag *diag);

const Plan *gpu_plan(const Gpu *g);
Device *gpu_device(const Gpu *g);
const Nvrtc *gpu_nvrtc(const Gpu *g); /* NULL when the kernels came from a bundle */
const GpuLoadStats *gpu_load_stats(const Gpu *g);
/* What tuning found while loading; NULL: no choices were taken or made. */
const TuneReport *gpu_tuning(const Gpu *g);

/* ==== For measuring ==== */

/* The phase that a call of T rows with R wanted runs in; NULL: none. */
const PlanPhase *gpu_phase(const Gpu *g, const char *graph, int64_t T, int64_t R);
/* After a call has been enqueued once with its inputs: runs the same launches again, one by one between events. Seconds
 * of each launch of the phase (median of `repeat`). K/V rows are stored again where they were. */
bool gpu_time_launches(Gpu *g, const PlanPhase *phase, int64_t T, int64_t R, int repeat, double *seconds, Diag *diag);
/* The same launches as a whole, as calls run them, `repeat` times one behind the other; seconds of each. */
bool gpu_time_phase(Gpu *g, const PlanPhase *phase, int64_t T, int64_t R, int repeat, double *seconds, Diag *diag);
/* The timed version of a phase (plan_time_phase); NULL: none. It may be timed as a whole like any. */
const PlanPhase *gpu_timed_phase(const Gpu *g);
/* The timed launches as a whole, as calls run them: when each ran. spans: [repeat][launches] */
bool gpu_time_spans(Gpu *g, int64_t T, int64_t R, int repeat, LaunchSpan *spans, Diag *diag);
/* The same launches once more, one by one; `look` is called before each is enqueued. False: an error, in e. */
typedef bool GpuLook(void *ctx, int launch, DevError *e);
bool gpu_walk_launches(Gpu *g, const PlanPhase *phase, int64_t T, int64_t R, GpuLook *look, void *ctx, Diag *diag);
/* Bytes of the slab as they are behind everything enqueued; waits. */
bool gpu_read_slab(Gpu *g, int64_t offset, void *to, int64_t bytes, DevError *e);

#endif
