/* gpu_time.c - times of the launches of a phase, one by one, together, and each as it runs among the others. */
#include "runtime/engine/gpu_int.h"
#include <stdlib.h>

static int ascending(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return v[n / 2];
}

static GpuPhase *phase_of(Gpu *g, const PlanPhase *phase) {
    for (int i = 0; i < g->plan->phases.n; i++)
        if (g->phases[i].plan == phase)
            return &g->phases[i];
    ICE("a phase of another plan");
}

/* The launch by itself, as calls make it but for its overlap with the one ahead. */
static bool launch_alone(Gpu *g, const GpuPhase *p, int i, int64_t T, int64_t R, DevError *e) {
    DevLaunch l = p->launches[i].launch;
    const bool capture = p->plan->capture;
    gpu_grid(g, &p->plan->launches.v[i], capture ? p->plan->rows : T, capture ? p->plan->wanted : R, l.grid);
    l.pdl = false;
    return dev_launch(g->stream, &l, e);
}

/* One pass over all launches, an event before each. Whole phases in front keep the device busy while the host enqueues:
 * else short kernels would be timed with the host's gaps. */
static bool one_pass(Gpu *g, GpuPhase *p, int64_t T, int64_t R, DevEvent **events, double *seconds, int stride,
                     DevError *e) {
    enum { AHEAD = 4 };
    const int n = p->plan->launches.n;
    for (int i = 0; i < AHEAD; i++)
        if (!gpu_launch_phase(g, p, T, R, NULL, e))
            return false;
    for (int i = 0; i < n; i++)
        if (!dev_event_record(events[i], g->stream, e) || !launch_alone(g, p, i, T, R, e))
            return false;
    if (!dev_event_record(events[n], g->stream, e) || !dev_stream_wait(g->stream, e))
        return false;
    for (int i = 0; i < n; i++)
        if (!dev_event_seconds(events[i], events[i + 1], &seconds[i * stride], e))
            return false;
    return true;
}

bool gpu_time_launches(Gpu *g, const PlanPhase *phase, int64_t T, int64_t R, int repeat, double *seconds, Diag *diag) {
    GpuPhase *p = phase_of(g, phase);
    const int n = phase->launches.n;
    DevError e = {0};
    DevEvent **events = calloc((size_t)n + 1, sizeof *events);
    double *all = calloc((size_t)n * (size_t)repeat + 1, sizeof *all);
    bool ok = events && all;
    if (!ok)
        ICE("out of memory");
    for (int i = 0; i <= n && ok; i++)
        ok = (events[i] = dev_event_new(g->device, true, &e)) != NULL;
    for (int i = 0; i <= repeat && ok; i++) /* the first is not counted */
        ok = one_pass(g, p, T, R, events, all + (i ? i - 1 : 0), repeat, &e);
    for (int i = 0; i < n && ok; i++)
        seconds[i] = median(all + (size_t)i * (size_t)repeat, repeat);
    for (int i = 0; i <= n; i++)
        dev_event_free(events[i]);
    free(events);
    free(all);
    return ok || gpu_fail(diag, &e);
}

bool gpu_time_phase(Gpu *g, const PlanPhase *phase, int64_t T, int64_t R, int repeat, double *seconds, Diag *diag) {
    GpuPhase *p = phase_of(g, phase);
    DevError e = {0};
    DevEvent **events = calloc((size_t)repeat + 1, sizeof *events);
    bool ok = events != NULL;
    if (!ok)
        ICE("out of memory");
    for (int i = 0; i <= repeat && ok; i++)
        ok = (events[i] = dev_event_new(g->device, true, &e)) != NULL;
    ok = ok && gpu_launch_phase(g, p, T, R, NULL, &e); /* not counted: the host is ahead after it */
    for (int i = 0; i <= repeat && ok; i++)
        ok = dev_event_record(events[i], g->stream, &e) && (i == repeat || gpu_launch_phase(g, p, T, R, NULL, &e));
    ok = ok && dev_stream_wait(g->stream, &e);
    for (int i = 0; i < repeat && ok; i++)
        ok = dev_event_seconds(events[i], events[i + 1], &seconds[i], &e);
    for (int i = 0; i <= repeat; i++)
        dev_event_free(events[i]);
    free(events);
    return ok || gpu_fail(diag, &e);
}

/* ==== Each launch as it runs ==== */

_Static_assert(4 * sizeof(uint64_t) == PLAN_TIMES_BYTES, "as kernels write them");

const PlanPhase *gpu_timed_phase(const Gpu *g) {
    for (int i = 0; i < g->plan->phases.n; i++)
        if (g->plan->phases.v[i].timed)
            return &g->plan->phases.v[i];
    return NULL;
}

/* Whether all blocks of a launch are on the device at once. */
static bool all_resident(const Gpu *g, const GpuPhase *p, int i, int64_t T, int64_t R) {
    const PlanLaunch *l = &p->plan->launches.v[i];
    const bool capture = p->plan->capture;
    uint32_t grid[3];
    gpu_grid(g, l, capture ? p->plan->rows : T, capture ? p->plan->wanted : R, grid);
    return (int64_t)grid[0] * grid[1] * grid[2] <=
           (int64_t)dev_info(g->device)->multiprocessors * g->resident[l->kernel];
}

/* A call whose records are zero before, behind one of the first version, which keeps the device busy while the host
 * enqueues. The copy between them is there for its place: nothing of what is behind it begins before it has ended, as
 * launches ahead of it would let a launch do. */
static bool one_timed_call(Gpu *g, GpuPhase *p, int64_t T, int64_t R, LaunchSpan *spans, DevError *e) {
    const int n = p->plan->launches.n;
    const size_t bytes = (size_t)n * PLAN_TIMES_BYTES;
    const DevPtr times = g->buffers[plan_only_buffer(g->plan, BUFFER_TIMES)];
    const uint64_t *records = (const uint64_t *)(const void *)g->out;
    if (bytes > MAX_OUT)
        ICE("times of %d launches", n);
    if (!dev_fill(g->stream, times, 0, bytes, e) ||
        !gpu_launch_phase(g, gpu_find_phase(g, p->plan->graph, T, R), T, R, NULL, e) ||
        !dev_copy_out(g->stream, g->out, times, bytes, e) || !gpu_launch_phase(g, p, T, R, NULL, e) ||
        !dev_copy_out(g->stream, g->out, times, bytes, e) || !dev_stream_wait(g->stream, e))
        return false;
    const bool last = g->o.timed_moment && strcmp(g->o.timed_moment, "wait") != 0;
    for (int i = 0; i < n; i++)
        if (!timeline_span(records + (size_t)4 * (size_t)i, last || all_resident(g, p, i, T, R), &spans[i]))
            return dev_fail(e, DEV_OTHER, "launch %d of the call, %s (%s), has not noted when it ran", i,
                            g->plan->kernels.v[p->plan->launches.v[i].kernel].name, p->plan->launches.v[i].label);
    return true;
}

bool gpu_time_spans(Gpu *g, int64_t T, int64_t R, int repeat, LaunchSpan *spans, Diag *diag) {
    const PlanPhase *phase = gpu_timed_phase(g);
    DevError e = {0};
    bool ok = true;
    for (int i = 0; i < repeat && ok; i++)
        ok = one_timed_call(g, phase_of(g, phase), T, R, spans + (size_t)i * (size_t)phase->launches.n, &e);
    return ok || gpu_fail(diag, &e);
}

/* ==== To look at what launches read ==== */

bool gpu_walk_launches(Gpu *g, const PlanPhase *phase, int64_t T, int64_t R, GpuLook *look, void *ctx, Diag *diag) {
    GpuPhase *p = phase_of(g, phase);
    DevError e = {0};
    bool ok = true;
    for (int i = 0; i < phase->launches.n && ok; i++)
        ok = look(ctx, i, &e) && launch_alone(g, p, i, T, R, &e);
    return (ok && dev_stream_wait(g->stream, &e)) || gpu_fail(diag, &e);
}
