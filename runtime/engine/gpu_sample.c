/* gpu_sample.c - tokens picked on the device, steps that feed them enqueued ahead. See gpu.h. */
#include "runtime/engine/gpu_int.h"

#include "runtime/engine/gpu_sampling.h"
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(GpuSampling) == PLAN_SAMPLING_BYTES, "as plans have it");

GpuSampler *gpu_sampler(const Gpu *g, const char *graph, PickWay way) {
    for (int i = 0; i < g->plan->samplers.n; i++)
        if (g->samplers[i].plan->way == way && strcmp(g->samplers[i].plan->graph, graph) == 0)
            return &g->samplers[i];
    return NULL;
}

static GpuSampler *need_sampler(const Gpu *g, const char *graph, PickWay way) {
    GpuSampler *s = gpu_sampler(g, graph, way);
    if (!s)
        ICE("no %s of %s", pick_way_name(way), graph);
    return s;
}

bool gpu_samples(const Gpu *g, const char *graph, PickWay way) {
    return gpu_sampler(g, graph, way) != NULL;
}

bool gpu_sample_start(Gpu *g, const char *graph, int slot, const SampleOptions *o, const int32_t *ids, int64_t n,
                      Diag *diag) {
    const PlanSampler *p = need_sampler(g, graph, PICK_NEXT)->plan;
    const DevPtr recent = g->buffers[p->recent] + (DevPtr)(slot * plan_recent_bytes(p->vocab, g->plan->context));
    GpuSampling state;
    DevError e = {0};
    gpu_sampling_init(&state, o, (int)p->vocab, g->plan->context, recent);
    const size_t bytes = gpu_sampling_recent_bytes(&state, (int)p->vocab);
    uint32_t *tokens = malloc(bytes + 1);
    if (!tokens)
        ICE("out of memory");
    gpu_sampling_prompt(&state, tokens, (int)p->vocab, ids, n);
    const bool ok = dev_copy_in(g->stream, recent, tokens, bytes, &e) &&
                    dev_copy_in(g->stream, g->buffers[p->states] + (DevPtr)(slot * (int64_t)sizeof state), &state,
                                sizeof state, &e) &&
                    dev_stream_wait(g->stream, &e); /* before the memory goes */
    free(tokens);
    return ok || gpu_fail(diag, &e);
}

/* Behind the launches of a step: its pick can be waited for. */
static bool picked(Gpu *g, GpuSampler *s, DevError *e) {
    DevEvent **event = &s->events[s->enqueued % PLAN_RING];
    if (!*event && !(*event = dev_event_new(g->device, false, e)))
        return false;
    if (!dev_event_record(*event, g->stream, e))
        return false;
    s->enqueued++;
    return true;
}

/* Notes whose tokens are picked. */
static void note_rows(GpuSampler *s, const EvalCall *c) {
    s->rows = c->R;
    for (int64_t i = 0; i < c->R; i++)
        s->slots[i] = c->slots ? c->slots[i] : 0;
}

bool gpu_sample_call(Gpu *g, const EvalCall *c, PickWay way, Diag *diag) {
    GpuSampler *s = need_sampler(g, c->graph->name, way);
    if (c->R > s->plan->rows || (way == PICK_CHECK && c->R != c->T))
        ICE("%lld rows of %lld are to be sampled, of at most %lld", (long long)c->R, (long long)c->T,
            (long long)s->plan->rows);
    GpuPhase *p = gpu_begin(g, c, diag);
    DevError e = {0};
    bool whole;
    if (!p)
        return false;
    note_rows(s, c);
    s->taken = s->enqueued;
    if (!gpu_launch_sampled(g, p, way, c->T, c->R, c->cancel, &whole, &e))
        return gpu_fail(diag, &e);
    if (!whole) /* a fault is reported here */
        return dev_stream_wait(g->stream, &e) ? false : gpu_fail(diag, &e);
    return (picked(g, s, &e) && gpu_hold_outputs(g, c, p->plan, &e)) || gpu_fail(diag, &e);
}

bool gpu_sample_next(Gpu *g, const char *graph, PickWay way, Diag *diag) {
    GpuSampler *s = need_sampler(g, graph, way);
    GpuPhase *p = gpu_find_phase(g, graph, s->rows, s->rows);
    DevError e = {0};
    if (s->enqueued - s->taken >= PLAN_RING)
        ICE("more steps than the ring holds");
    if (!p) {
        diag_error(diag, NO_LOC, "no phase of the plan takes a call of %lld rows, all wanted", (long long)s->rows);
        return false;
    }
    for (int64_t i = 0; i < s->rows && way == PICK_NEXT; i++)
        if (++g->lengths[s->slots[i]] > g->plan->context)
            ICE("a step beyond the context");
    bool whole;
    return (gpu_launch_sampled(g, p, way, s->rows, s->rows, NULL, &whole, &e) && picked(g, s, &e)) ||
           gpu_fail(diag, &e);
}

bool gpu_sample_take(Gpu *g, const char *graph, PickWay way, int32_t *ids, Diag *diag) {
    GpuSampler *s = need_sampler(g, graph, way);
    DevError e = {0};
    if (s->taken == s->enqueued)
        ICE("no pick to take");
    const int64_t at = s->taken % PLAN_RING;
    if (!dev_event_wait(s->events[at], &e))
        return gpu_fail(diag, &e);
    const volatile int32_t *ring = (const int32_t *)(uintptr_t)g->buffers[s->plan->ring] + at * s->plan->rows;
    for (int64_t i = 0; i < s->rows; i++)
        ids[i] = ring[i];
    s->taken++;
    return true;
}
