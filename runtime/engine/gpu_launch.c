/* gpu_launch.c - launches of a plan as the device takes them, and the graphs of its decode phases. */
#include "runtime/engine/gpu_int.h"

static uint64_t argument(const Gpu *g, const PlanArg *a) {
    switch (a->kind) {
    case ARG_BUFFER: return g->buffers[a->buffer] + (uint64_t)a->value;
    case ARG_NULL: return 0;
    case ARG_INT: return (uint32_t)(int32_t)a->value;
    case ARG_STAGING: return 0; /* set by gpu_load() */
    }
    return 0;
}

void gpu_grid(const Gpu *g, const PlanLaunch *from, int64_t T, int64_t R, uint32_t grid[3]) {
    gpu_grid_resident(g, from, g->resident[from->kernel], T, R, grid);
}

void gpu_grid_resident(const Gpu *g, const PlanLaunch *from, int resident, int64_t T, int64_t R, uint32_t grid[3]) {
    const PlanGrid *p = &from->grid;
    int64_t n[3] = {p->x, p->y, p->z};
    if (p->fill) {
        const int64_t blocks = (int64_t)dev_info(g->device)->multiprocessors * resident;
        int64_t most = blocks / p->fill * p->fill;
        most = most < p->fill ? p->fill : most;
        n[0] = n[0] < most ? n[0] : most;
    }
    if (p->rows != COUNT_ONE) {
        const int64_t rows = p->rows == COUNT_T ? T : R;
        n[p->axis] *= (rows + p->per - 1) / p->per;
    }
    for (int i = 0; i < 3; i++)
        grid[i] = (uint32_t)n[i];
}

void gpu_make_launch(Gpu *g, const PlanLaunch *from, GpuLaunch *to) {
    const PlanKernel *k = &g->plan->kernels.v[from->kernel];
    to->values = arena_array(g->arena, (size_t)from->args.n + 1, sizeof *to->values);
    to->pointers = arena_array(g->arena, (size_t)from->args.n + 1, sizeof *to->pointers);
    for (int i = 0; i < from->args.n; i++) {
        to->values[i] = argument(g, &from->args.v[i]);
        to->pointers[i] = &to->values[i];
    }
    to->launch = (DevLaunch){.kernel = g->kernels[from->kernel],
                             .block = {(uint32_t)k->threads, 1, 1},
                             .shared_bytes = (uint32_t)k->shared,
                             .pdl = true,
                             .arguments = to->pointers};
    gpu_grid(g, from, 1, 1, to->launch.grid);
}

/* No grid of a captured phase follows the rows of a call, but for rowwise ones and samplers, made for the most rows. */
static void collect(Gpu *g, const PlanPhase *p, const LaunchVec *plan, const GpuLaunch *launches, DevLaunch *out) {
    for (int i = 0; i < plan->n; i++) {
        out[i] = launches[i].launch;
        gpu_grid(g, &plan->v[i], p->rows, p->wanted, out[i].grid);
    }
}

/* The launches of the phase as one graph, and those of the sampler behind them. */
static DevGraph *make_graph(Gpu *g, const GpuPhase *p, const GpuSampler *sampler, DevError *e) {
    const int n = p->plan->launches.n, more = sampler ? sampler->plan->launches.n : 0;
    DevLaunch *all = arena_array(g->arena, (size_t)n + (size_t)more + 1, sizeof *all);
    collect(g, p->plan, &p->plan->launches, p->launches, all);
    if (sampler)
        collect(g, p->plan, &sampler->plan->launches, sampler->launches, all + n);
    const char *name =
        sampler ? arena_printf(g->arena, "%s and %s", p->plan->name, pick_way_name(sampler->plan->way)) : p->plan->name;
    return dev_graph_new(g->stream, all, n + more, name, e);
}

static bool check_fill(const Gpu *g, const PlanLaunch *l, DevError *e) {
    const int blocks = dev_info(g->device)->multiprocessors * g->resident[l->kernel];
    return l->grid.fill <= blocks ||
           dev_fail(e, DEV_OTHER, "kernel %s (%s) needs %d blocks at once; GPU %d (%s) holds %d",
                    g->plan->kernels.v[l->kernel].name, l->label, l->grid.fill, dev_info(g->device)->ordinal,
                    dev_info(g->device)->name, blocks);
}

bool gpu_check_fills(const Gpu *g, DevError *e) {
    bool ok = true;
    for (int i = 0; i < g->plan->phases.n; i++)
        for (int k = 0; k < g->plan->phases.v[i].launches.n && ok; k++)
            ok = check_fill(g, &g->plan->phases.v[i].launches.v[k], e);
    return ok;
}

static void make_samplers(Gpu *g) {
    g->samplers = arena_array(g->arena, (size_t)g->plan->samplers.n + 1, sizeof *g->samplers);
    for (int i = 0; i < g->plan->samplers.n; i++) {
        GpuSampler *s = &g->samplers[i];
        s->plan = &g->plan->samplers.v[i];
        s->slots = arena_array(g->arena, (size_t)s->plan->rows, sizeof *s->slots);
        s->launches = arena_array(g->arena, (size_t)s->plan->launches.n + 1, sizeof *s->launches);
        for (int k = 0; k < s->plan->launches.n; k++)
            gpu_make_launch(g, &s->plan->launches.v[k], &s->launches[k]);
    }
}

/* What calls of the phase do to the caches. */
static void read_caches(const Gpu *g, GpuPhase *p) {
    const Graph *graph = module_graph(g->m, p->plan->graph);
    for (int i = 0; i < graph->outputs.n; i++)
        p->stores |= graph->outputs.v[i].kind == OUT_KEEP;
    for (NodeId id = 1; id < (NodeId)graph->nodes.n; id++)
        p->counts_own |= ir_get(graph, id)->op == OP_ATTEND && ir_get(graph, id)->n_in > 3;
}

bool gpu_make_phases(Gpu *g, DevError *e) {
    make_samplers(g);
    g->phases = arena_array(g->arena, (size_t)g->plan->phases.n + 1, sizeof *g->phases);
    for (int i = 0; i < g->plan->phases.n; i++) {
        GpuPhase *p = &g->phases[i];
        p->plan = &g->plan->phases.v[i];
        read_caches(g, p);
        p->launches = arena_array(g->arena, (size_t)p->plan->launches.n + 1, sizeof *p->launches);
        for (int k = 0; k < p->plan->launches.n; k++)
            gpu_make_launch(g, &p->plan->launches.v[k], &p->launches[k]);
        for (int way = 0; way < PICK_WAYS; way++)
            p->samplers[way] = gpu_sampler(g, p->plan->graph, (PickWay)way);
        if (p->plan->capture && !g->o.check_launches && !(p->graph = make_graph(g, p, NULL, e)))
            return false;
    }
    return true;
}

/* *whole: not cancelled on the way. */
static bool launch_all(Gpu *g, const LaunchVec *plan, GpuLaunch *launches, int64_t T, int64_t R,
                       const volatile bool *cancel, bool *whole, DevError *e) {
    *whole = true;
    for (int i = 0; i < plan->n; i++) {
        if (cancel && *cancel) {
            *whole = false;
            return true;
        }
        DevLaunch *l = &launches[i].launch;
        gpu_grid(g, &plan->v[i], T, R, l->grid);
        if (!dev_launch(g->stream, l, e))
            return false;
    }
    return true;
}

bool gpu_launch_phase(Gpu *g, GpuPhase *p, int64_t T, int64_t R, const volatile bool *cancel, DevError *e) {
    if (p->graph)
        return dev_graph_launch(p->graph, g->stream, e);
    bool whole;
    return launch_all(g, &p->plan->launches, p->launches, T, R, cancel, &whole, e);
}

bool gpu_launch_sampled(Gpu *g, GpuPhase *p, PickWay way, int64_t T, int64_t R, const volatile bool *cancel,
                        bool *whole, DevError *e) {
    const GpuSampler *s = p->samplers[way];
    DevGraph **graph = &p->sampled[way];
    *whole = true;
    if (p->graph && !*graph && !(*graph = make_graph(g, p, s, e)))
        return false;
    if (*graph)
        return dev_graph_launch(*graph, g->stream, e);
    if (!launch_all(g, &p->plan->launches, p->launches, T, R, cancel, whole, e))
        return false;
    bool sampled;
    return !*whole || launch_all(g, &s->plan->launches, s->launches, T, R, NULL, &sampled, e);
}
