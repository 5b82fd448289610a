/* gpu_int.h - the struct behind gpu.h, and what its files share. */
#ifndef LAP_ENGINE_GPU_INT_H
#define LAP_ENGINE_GPU_INT_H

#include "runtime/engine/gpu.h"

/* A launch ready to be made: its kernel, and its arguments as the driver wants them. */
typedef struct GpuLaunch {
    DevLaunch launch; /* grid for one row where it follows the rows of a call */
    void **pointers;
    uint64_t *values;
} GpuLaunch;

/* A sampler of the plan and its picks: those up to `enqueued` are on their way, those before `taken` were given out. */
typedef struct GpuSampler {
    const PlanSampler *plan;
    GpuLaunch *launches;
    DevEvent *events[PLAN_RING];
    int64_t enqueued, taken;
    int64_t rows;   /* of each pick since the call */
    int32_t *slots; /* [plan->rows] their sequences */
} GpuSampler;

typedef struct GpuPhase {
    bool stores, counts_own; /* rows in caches; rows that are attended to and not stored */
    const PlanPhase *plan;
    GpuLaunch *launches;
    GpuSampler *samplers[PICK_WAYS]; /* of its entry; NULL: none */
    DevGraph *graph;                 /* NULL: launched one by one */
    DevGraph *sampled[PICK_WAYS];    /* and the sampler's launches; NULL: not made yet, or launched one by one */
} GpuPhase;

enum {
    MAX_OUT = 8 << 20, /* bytes of the page-locked buffer that results come through */
    GPU_CALLS = 4,     /* calls whose beginnings may be on their way to the device */
};

struct Gpu {
    Arena *arena;
    const Module *m;
    const Plan *plan;
    Plan *own;   /* the same, when it was made here */
    Tuned tuned; /* what the file of choices said */
    TuneReport tune;
    GpuOptions o;
    Device *device;
    DevStream *stream;
    Nvrtc *nvrtc;
    CubinCache *cache;
    DevPtr memory[BUFFER_KINDS]; /* one piece for each kind */
    DevPtr *buffers;             /* by buffer */
    DevModule **modules;         /* by kernel */
    DevKernel **kernels;
    int *resident; /* by kernel: blocks of it that are on a multiprocessor at once */
    GpuPhase *phases;
    GpuSampler *samplers;
    void *host;                /* page-locked: buffers of kind BUFFER_HOST */
    uint8_t *calls;            /* page-locked: [GPU_CALLS][head], in turns, what the host writes of a call block */
    size_t head;               /* bytes */
    DevEvent *sent[GPU_CALLS]; /* it has been copied */
    int turn;
    uint8_t *out;     /* page-locked, MAX_OUT */
    int32_t *lengths; /* [slots] positions of each sequence */
    int32_t vocab;    /* ids must be below: rows of the smallest table that tokens look up */
    GpuLoadStats stats;
};

/* Reports a device error. Returns false. */
bool gpu_fail(Diag *diag, const DevError *e);
/* What a GPU of the machine is, without opening it. */
bool gpu_info(const char *driver, int ordinal, DevInfo *out, DevError *e);

GpuPhase *gpu_find_phase(const Gpu *g, const char *graph, int64_t T, int64_t R);
/* The phase for a call, whose inputs are checked and on their way to the call block; NULL after an error. */
GpuPhase *gpu_begin(Gpu *g, const EvalCall *c, Diag *diag);
/* Behind its launches: outputs that later calls read, from the slab to where those find them. */
bool gpu_hold_outputs(Gpu *g, const EvalCall *c, const PlanPhase *phase, DevError *e);

/* ==== gpu_load.c ==== */

bool gpu_allocate(Gpu *g, DevError *e);
/* Compiles or takes every kernel, uploads every weight, runs the fill launches. */
bool gpu_load(Gpu *g, const void *const *data, DevError *e);

/* ==== gpu_tune.c ==== */

/* Whether choices of tuning are taken. */
static inline bool gpu_takes_choices(const Gpu *g) {
    return g->o.tune.file && !g->o.ready && !g->o.use_kernel;
}

/* Between gpu_check_fills() and gpu_make_phases(): times shapes of the plan that the file of choices does not know, as
 * long as the budget lasts, and changes their kernels to what is chosen. */
bool gpu_tune(Gpu *g, DevError *e);

/* ==== gpu_launch.c ==== */

/* Arguments and grid of a launch of the plan; 0 for ARG_STAGING, which is the first of a repacking launch. */
void gpu_make_launch(Gpu *g, const PlanLaunch *from, GpuLaunch *to);
/* Blocks of a launch that fills the device wait for each other: all must be resident. */
bool gpu_check_fills(const Gpu *g, DevError *e);
bool gpu_make_phases(Gpu *g, DevError *e);
/* The grid for a call of T rows, R wanted. */
void gpu_grid(const Gpu *g, const PlanLaunch *from, int64_t T, int64_t R, uint32_t grid[3]);
/* The same with a kernel of which so many blocks are on a multiprocessor at once. */
void gpu_grid_resident(const Gpu *g, const PlanLaunch *from, int resident, int64_t T, int64_t R, uint32_t grid[3]);
bool gpu_launch_phase(Gpu *g, GpuPhase *p, int64_t T, int64_t R, const volatile bool *cancel, DevError *e);
/* The same and a sampler. *whole: false when it was cancelled; then the sampler did not run. */
bool gpu_launch_sampled(Gpu *g, GpuPhase *p, PickWay way, int64_t T, int64_t R, const volatile bool *cancel,
                        bool *whole, DevError *e);

/* ==== gpu_sample.c ==== */

/* The sampler of an entry; NULL: none. */
GpuSampler *gpu_sampler(const Gpu *g, const char *graph, PickWay way);

#endif
