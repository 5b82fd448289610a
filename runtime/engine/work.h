/* work.h - what the launches of a call have to read and compute, by the costs in the plan.
 *
 * A launch reads the weights of its matrices once, of matrices of experts those that rows of the call chose; and the
 * keys and values that some row sees, each once. With the rates of a device (runtime/device/roofline.h) that gives the
 * least time it can take.
 */
#ifndef LAP_ENGINE_WORK_H
#define LAP_ENGINE_WORK_H

#include "runtime/device/roofline.h"
#include "runtime/engine/gpu.h"

/* A call of one sequence: T rows at positions first, first + 1, ..; of them the last R are wanted. */
typedef struct CallRows {
    int64_t T, R, first;
} CallRows;

typedef struct Work {
    double weight_bytes, kv_bytes;
    double row_bytes; /* activations in and out; they may be in a cache */
    double flops;     /* multiply and add are two */
} Work;

/* experts: how many of a launch's are touched. */
Work work_of(const Graph *g, const PlanLaunch *l, const CallRows *c, int64_t experts);
void work_add(Work *sum, const Work *w);
/* Seconds: the longer of reading weights, keys and values, and of computing. */
double work_floor(const Work *w, const Roofline *r);

/* Of each launch of a phase, for the call that ran last. Runs its launches once more, one by one: the experts that a
 * launch touches are counted in the ids that it is about to read. each: [launches] */
bool work_measure(Gpu *g, const Module *m, const PlanPhase *phase, const CallRows *c, Work *each, Diag *diag);

#endif
