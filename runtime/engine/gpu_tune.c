/* gpu_tune.c - times ways to cut the decode matmuls of a plan, where the file of choices does not know their shape.
 *
 * What a cut is worth shows only in a step: launches overlap, and what one asks for stands in the queue in front of the
 * tail ahead of it. So what is timed is a stretch of the phase, from its beginning until the shape has come a few times
 * and the second-level cache has been read through twice: a graph of the phase's own launches with their own weights,
 * in which those of the shape have another cut. Ways are timed in turns, so that a clock that rises is no way's gain.
 * From the beginning, since only then everything that a launch reads, also the ids of experts, has been computed.
 *
 *   shapes, the heaviest first ─► compile their ways, as many kernels as processors ─► time ─► choose ─┐
 *                                   └────────────────────────── until the budget ends ────────────────┘
 *
 * What is chosen takes the place of the rule's kernels at once. Nothing that calls compute depends on it.
 */
#include "runtime/engine/gpu_int.h"

#include "runtime/engine/clock.h"
#include "runtime/engine/tuned_file.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_OCCURRENCES = 4, MOST_RUNS = 8, LEAST_FLIGHT = 2 /* of any way */ };
#define RUN_SECONDS  2e-3  /* that a time is taken over */
#define WARM_SECONDS 20e-3 /* that a device needs to raise its clock */

/* A kernel of another way, loaded. */
typedef struct OtherKernel {
    DevModule *module;
    DevKernel *kernel;
    int resident;
} OtherKernel;

typedef struct TuneShape {
    TuneRow row;
    int ways[MATMUL_WAYS]; /* of row.times */
    int kernel;            /* one that has it */
    int64_t chunks;        /* of a block */
    int phase, end;        /* the stretch: its launches 0 .. end - 1 */
    int64_t rows;          /* most of a call of the phase */
    double work;           /* multiplications of a row in all its launches */
} TuneShape;

typedef struct Tuner {
    Gpu *g;
    Arena *arena;
    const char *kernels;            /* tuned_kernels() */
    const Plan *plans[MATMUL_WAYS]; /* plans[0] is the Gpu's */
    OtherKernel *others[MATMUL_WAYS];
    GpuLaunch **launches; /* by phase; NULL: not made yet */
    VEC(TuneShape) shapes;
    DevEvent *from, *to;
    int in_call; /* phase that the call block is written for; -1: none */
    bool warm;
    double deadline;
    Tuned fresh; /* what was found */
} Tuner;

static double now(const Gpu *g) {
    return g->o.tune.now ? g->o.tune.now(g->o.tune.ctx) : clock_seconds();
}

static bool cancelled(const Gpu *g) {
    return g->o.cancel && *g->o.cancel;
}

static bool over(const Tuner *t) {
    return cancelled(t->g) || now(t->g) >= t->deadline;
}

/* ==== Shapes ==== */

static const char *shape_of(const Plan *p, const PlanLaunch *l) {
    return p->kernels.v[l->kernel].shape;
}

static bool is_of(const Plan *p, const PlanLaunch *l, const char *shape) {
    const char *own = shape_of(p, l);
    return own && strcmp(own, shape) == 0;
}

/* The rows that a phase is timed with: of plain decoding, or as many as there may be. */
static int64_t live_rows(const PlanPhase *p) {
    return p->rows <= 8 ? 1 : p->rows;
}

/* Weights read, in numbers; those of experts as if rows chose different ones. */
static double work_of(const PlanLaunch *l) {
    return (double)l->cost.flops_a_row / 2;
}

/* The ways that differ. False: a block asks for all of its chunks at once, whichever way. */
static bool list_ways(const Tuner *t, TuneShape *s) {
    int least = t->plans[0]->kernels.v[s->kernel].cut.flight;
    for (int way = 0; way < MATMUL_WAYS; way++) {
        const MatmulCut *cut = &t->plans[way]->kernels.v[s->kernel].cut;
        bool known = false;
        for (int i = 0; i < s->row.n; i++)
            known = known || matmul_cut_same(cut, &s->row.times[i].cut);
        if (known)
            continue;
        least = cut->flight < least ? cut->flight : least;
        s->ways[s->row.n] = way;
        s->row.times[s->row.n++].cut = *cut;
    }
    return s->row.n > 1 && s->chunks > least;
}

/* Chunks that a block has of a launch. */
static int64_t chunks_of(const Gpu *g, const PlanPhase *phase, const PlanLaunch *l) {
    uint32_t grid[3];
    gpu_grid(g, l, 1, 1, grid);
    int64_t chunks = l->grid.x;
    if (l->cost.expert_bytes) /* its grid is for experts of as many rows as there may be */
        chunks = chunks * live_rows(phase) / (phase->rows <= 8 ? 8 : 16);
    return ceil_div(chunks, grid[0]);
}

static TuneShape *find_shape(Tuner *t, const char *shape) {
    for (int i = 0; i < t->shapes.n; i++)
        if (strcmp(t->shapes.v[i].row.shape, shape) == 0)
            return &t->shapes.v[i];
    return NULL;
}

/* From the beginning of the phase to the launch behind the shape's, when it has come a few times. */
static void choose_stretch(const Tuner *t, TuneShape *s) {
    const Plan *p = t->plans[0];
    const LaunchVec *v = &p->phases.v[s->phase].launches;
    const double enough = 2.0 * (double)dev_info(t->g->device)->l2_bytes;
    double all = 0, own = 0;
    int came = 0, last = 0;
    for (int i = 0; i < v->n; i++)
        last = is_of(p, &v->v[i], s->row.shape) ? i : last;
    for (s->end = 0; s->end < v->n; s->end++) {
        const PlanLaunch *l = &v->v[s->end];
        const bool behind = s->end && is_of(p, l - 1, s->row.shape);
        /* a weight has at least 4 bits */
        if (behind && (came >= LEAST_OCCURRENCES || s->end > last) && all / 2 >= enough) {
            s->end++;
            break;
        }
        const bool mine = is_of(p, l, s->row.shape);
        came += mine;
        all += work_of(l);
        own += mine ? work_of(l) : 0;
    }
    s->row.share = all > 0 ? own / all : 0;
}

/* Few rows first, then what reads most. */
static int heavier_first(const void *a, const void *b) {
    const TuneShape *x = a, *y = b;
    if (x->rows != y->rows)
        return x->rows < y->rows ? -1 : 1;
    if (x->work != y->work)
        return x->work > y->work ? -1 : 1;
    return strcmp(x->row.shape, y->row.shape);
}

static void add_launch(Tuner *t, int phase, const PlanLaunch *l, NameMap *seen) {
    Gpu *g = t->g;
    const Plan *p = t->plans[0];
    const char *shape = shape_of(p, l);
    TuneShape *s = find_shape(t, shape);
    if (s)
        s->work += s->phase == phase ? work_of(l) : 0;
    if (namemap_get(seen, shape) >= 0)
        return;
    namemap_put(seen, shape, 1);
    const TunedEntry *e = tuned_find(&g->tuned, p->arch, dev_info(g->device)->name, t->kernels, shape);
    if (e && matmul_cut_same(&e->cut, &p->kernels.v[l->kernel].cut)) { /* else it was no way, and not taken */
        g->tune.known++;
        return;
    }
    const TuneShape new = {.row = {.shape = shape, .label = l->label},
                           .kernel = l->kernel,
                           .chunks = chunks_of(g, &p->phases.v[phase], l),
                           .phase = phase,
                           .rows = p->phases.v[phase].rows,
                           .work = work_of(l)};
    if (new.chunks > LEAST_FLIGHT)
        vec_push(t->arena, &t->shapes, new);
    else
        g->tune.small++;
}

/* Shapes that the file does not know, as far as can be told from the plan alone. */
static void list_shapes(Tuner *t) {
    const Plan *p = t->plans[0];
    NameMap *seen = namemap_new(t->arena);
    for (int i = 0; i < p->phases.n; i++)
        for (int k = 0; p->phases.v[i].capture && k < p->phases.v[i].launches.n; k++)
            if (shape_of(p, &p->phases.v[i].launches.v[k]))
                add_launch(t, i, &p->phases.v[i].launches.v[k], seen);
}

/* Those of them for which there is something to choose, and what. */
static void choose_shapes(Tuner *t) {
    int n = 0;
    for (int i = 0; i < t->shapes.n; i++) {
        TuneShape *s = &t->shapes.v[i];
        if (!list_ways(t, s))
            continue;
        choose_stretch(t, s);
        t->shapes.v[n++] = *s;
    }
    t->g->tune.small += t->shapes.n - n;
    t->shapes.n = n;
    if (n)
        qsort(t->shapes.v, (size_t)t->shapes.n, sizeof *t->shapes.v, heavier_first);
}

/* Plans in which every decode matmul is cut another way. False: one cannot be made, or is not like the first. */
static bool make_plans(Tuner *t) {
    Gpu *g = t->g;
    PlanTarget target;
    bool ok = plan_target(g->plan->arch, &target);
    for (int way = 1; way < MATMUL_WAYS && ok; way++) {
        PlanOptions o = g->o.plan;
        o.way = way;
        t->plans[way] = plan_generate(t->arena, g->m, &target, &o);
        t->others[way] = arena_array(t->arena, (size_t)g->plan->kernels.n + 1, sizeof **t->others);
        ok = t->plans[way] && t->plans[way]->kernels.n == g->plan->kernels.n;
    }
    return ok;
}

/* ==== Kernels of other ways ==== */

typedef struct OtherJob {
    int way, kernel;
} OtherJob;

typedef VEC(OtherJob) OtherJobs;

static void list_jobs(Tuner *t, const TuneShape *s, OtherJobs *jobs) {
    const Plan *p = t->plans[0];
    for (int i = 1; i < s->row.n; i++)
        for (int k = 0; k < p->kernels.n; k++)
            if (p->kernels.v[k].shape && strcmp(p->kernels.v[k].shape, s->row.shape) == 0) {
                const OtherJob job = {s->ways[i], k};
                vec_push(t->arena, jobs, job);
            }
}

static bool go_on(void *user, int done, int total) {
    (void)done, (void)total;
    return !over(user);
}

/* Loads what was compiled. A kernel that does not load or fit is none. */
static void take_other(Tuner *t, const OtherJob *job, const Compiled *c) {
    const PlanKernel *k = &t->plans[job->way]->kernels.v[job->kernel];
    OtherKernel *o = &t->others[job->way][job->kernel];
    DevError e = {0};
    o->module = c->cubin ? dev_module_load(t->g->device, c->cubin, c->bytes, k->name, &e) : NULL;
    o->kernel = o->module ? dev_kernel(o->module, k->name, (size_t)k->shared, &e) : NULL;
    int fit = 0;
    if (o->kernel && dev_kernel_blocks(o->kernel, k->threads, (size_t)k->shared, &fit, &e) && fit > 0)
        o->resident = fit < k->blocks ? fit : k->blocks;
}

/* False: not all could be compiled in time. *none: not even one. */
static bool compile_others(Tuner *t, const OtherJobs *jobs, bool *none) {
    Gpu *g = t->g;
    Program *programs = arena_array(t->arena, (size_t)jobs->n + 1, sizeof *programs);
    Compiled *out = arena_array(t->arena, (size_t)jobs->n + 1, sizeof *out);
    const CompileOptions o = {.cache = g->cache, .progress = go_on, .user = t};
    DevError e = {0};
    bool whole = true;
    for (int i = 0; i < jobs->n; i++) {
        const PlanKernel *k = &t->plans[jobs->v[i].way]->kernels.v[jobs->v[i].kernel];
        programs[i] = (Program){k->name, k->text, plan_options, n_plan_options, 0};
    }
    compile_programs(g->nvrtc, g->plan->arch, programs, jobs->n, &o, out, &e);
    *none = true;
    for (int i = 0; i < jobs->n; i++) {
        *none = *none && out[i].state != COMPILE_DONE;
        take_other(t, &jobs->v[i], &out[i]);
        whole = whole && (out[i].cubin || !over(t));
        compiled_free(&out[i]);
    }
    return whole;
}

static bool has_all(const Tuner *t, const TuneShape *s, int way) {
    const Plan *p = t->plans[0];
    for (int k = 0; k < p->kernels.n; k++)
        if (p->kernels.v[k].shape && strcmp(p->kernels.v[k].shape, s->row.shape) == 0 && !t->others[way][k].resident)
            return false;
    return true;
}

static void free_others(Tuner *t) {
    for (int way = 1; way < MATMUL_WAYS; way++)
        for (int k = 0; t->others[way] && k < t->plans[0]->kernels.n; k++) {
            dev_module_free(t->others[way][k].module);
            t->others[way][k] = (OtherKernel){0};
        }
}

/* ==== Timing a stretch ==== */

/* Tokens 0 at positions 0, 1, .. of sequence 0, and nothing before them. */
static bool write_call(Tuner *t, int phase, DevError *e) {
    Gpu *g = t->g;
    const PlanCall *c = &g->plan->call;
    const int32_t rows = (int32_t)live_rows(&g->plan->phases.v[phase]);
    if (t->in_call == phase)
        return true;
    t->in_call = phase;
    memset(g->calls, 0, g->head);
    int32_t *counts = (int32_t *)(void *)g->calls;
    counts[0] = counts[1] = rows;
    for (int i = 0; i < c->inputs.n; i++) {
        const PlanInput *in = &c->inputs.v[i];
        int32_t *v = (int32_t *)(void *)(g->calls + in->offset);
        const bool counting = strcmp(in->name, "pos") == 0 || strcmp(in->name, "rows") == 0;
        for (int32_t k = 0; counting && plan_input_of_host(&in->type) && k < rows; k++)
            v[k] = k;
    }
    memcpy(g->calls + c->lengths, &rows, sizeof rows);
    return dev_fill(g->stream, g->buffers[c->buffer], 0, (size_t)c->bytes, e) &&
           dev_copy_in(g->stream, g->buffers[c->buffer], g->calls, g->head, e) && dev_stream_wait(g->stream, e);
}

static const GpuLaunch *launches_of(Tuner *t, int phase) {
    Gpu *g = t->g;
    const PlanPhase *p = &g->plan->phases.v[phase];
    if (!t->launches[phase]) {
        t->launches[phase] = arena_array(t->arena, (size_t)p->launches.n + 1, sizeof **t->launches);
        for (int i = 0; i < p->launches.n; i++)
            gpu_make_launch(g, &p->launches.v[i], &t->launches[phase][i]);
    }
    return t->launches[phase];
}

/* The stretch with a way in the place of the rule's; way 0: as it is. */
static DevGraph *make_stretch(Tuner *t, const TuneShape *s, int way, DevError *e) {
    Gpu *g = t->g;
    const PlanPhase *p = &g->plan->phases.v[s->phase];
    const GpuLaunch *launches = launches_of(t, s->phase);
    DevLaunch *all = arena_array(t->arena, (size_t)s->end + 1, sizeof *all);
    for (int i = 0; i < s->end; i++) {
        const PlanLaunch *l = &p->launches.v[i];
        const bool mine = way && is_of(g->plan, l, s->row.shape);
        const OtherKernel *o = mine ? &t->others[way][l->kernel] : NULL;
        const PlanKernel *k = &t->plans[mine ? way : 0]->kernels.v[l->kernel];
        all[i] = launches[i].launch;
        all[i].kernel = mine ? o->kernel : g->kernels[l->kernel];
        all[i].block[0] = (uint32_t)k->threads;
        all[i].shared_bytes = (uint32_t)k->shared;
        gpu_grid_resident(g, l, mine ? o->resident : g->resident[l->kernel], p->rows, p->wanted, all[i].grid);
    }
    return dev_graph_new(g->stream, all, s->end, "stretch that is tuned", e);
}

/* Seconds of a run, of several in a row behind one that is not counted: the host is ahead after it. */
static bool time_runs(Tuner *t, DevGraph *graph, int runs, double *seconds, DevError *e) {
    DevStream *stream = t->g->stream;
    bool ok = dev_graph_launch(graph, stream, e) && dev_event_record(t->from, stream, e);
    for (int i = 0; i < runs && ok; i++)
        ok = dev_graph_launch(graph, stream, e);
    ok = ok && dev_event_record(t->to, stream, e) && dev_stream_wait(stream, e) &&
         dev_event_seconds(t->from, t->to, seconds, e);
    *seconds /= runs;
    return ok;
}

/* How many runs a time is taken over. *once: seconds of one. */
static bool count_runs(Tuner *t, DevGraph *graph, int *runs, double *once, DevError *e) {
    bool ok = time_runs(t, graph, 1, once, e);
    for (double spent = *once; ok && !t->warm && *once > 0 && spent < WARM_SECONDS; spent += *once)
        ok = time_runs(t, graph, 1, once, e);
    t->warm = true;
    const double most = *once > 0 ? ceil(RUN_SECONDS / *once) : MOST_RUNS;
    *runs = most > MOST_RUNS ? MOST_RUNS : (int)most;
    return ok;
}

/* A stretch whose times no budget has room for keeps the rule's cut: else every load would try, and end without. */
static void leave_by_rule(TuneShape *s, double seconds) {
    s->row.n = 1;
    s->row.times[0].seconds = seconds;
}

static bool time_rounds(Tuner *t, TuneShape *s, DevGraph *const *graphs, double (*seconds)[TUNE_ROUNDS], bool *whole,
                        DevError *e) {
    const TuneOptions *o = &t->g->o.tune;
    int runs = 1;
    double once = 0;
    bool ok = count_runs(t, graphs[0], &runs, &once, e);
    if (ok && once * (runs + 1) * s->row.n * TUNE_ROUNDS > o->budget) {
        leave_by_rule(s, once);
        return true;
    }
    for (int round = 0; round < TUNE_ROUNDS && ok; round++)
        for (int i = 0; i < s->row.n && ok; i++) {
            if (over(t)) {
                *whole = false;
                return true;
            }
            double *to = &seconds[i][round];
            ok = !graphs[i] || time_runs(t, graphs[i], runs, to, e);
            if (ok && graphs[i] && o->measured)
                *to = o->measured(o->ctx, s->row.shape, &s->row.times[i].cut, *to);
        }
    return ok;
}

/* *whole: there was time for it; then the row has its times and what is chosen. */
static bool time_shape(Tuner *t, TuneShape *s, bool *whole, DevError *e) {
    double seconds[MATMUL_WAYS][TUNE_ROUNDS] = {{0}};
    DevGraph *graphs[MATMUL_WAYS] = {NULL};
    const int ways = s->row.n;
    bool ok = write_call(t, s->phase, e);
    *whole = true;
    for (int i = 0; i < s->row.n && ok; i++) {
        const bool there = i == 0 || has_all(t, s, s->ways[i]);
        s->row.times[i].seconds = there ? 0 : -1;
        ok = !there || (graphs[i] = make_stretch(t, s, s->ways[i], e));
    }
    ok = ok && time_rounds(t, s, graphs, seconds, whole, e);
    for (int i = 0; i < ways; i++)
        dev_graph_free(graphs[i]);
    if (ok && *whole && s->row.n > 1)
        tune_judge(seconds, &s->row);
    return ok;
}

/* ==== What comes of it ==== */

/* The kernels of the chosen way take the place of the rule's. */
static void take_way(Tuner *t, const TuneShape *s) {
    Gpu *g = t->g;
    const int way = s->ways[s->row.chosen];
    for (int k = 0; k < g->own->kernels.n; k++) {
        PlanKernel *kernel = &g->own->kernels.v[k];
        if (!kernel->shape || strcmp(kernel->shape, s->row.shape) != 0)
            continue;
        OtherKernel *o = &t->others[way][k];
        const PlanKernel *from = &t->plans[way]->kernels.v[k];
        dev_module_free(g->modules[k]);
        g->modules[k] = o->module;
        g->kernels[k] = o->kernel;
        g->resident[k] = o->resident;
        *o = (OtherKernel){0};
        kernel->text = arena_strdup(g->arena, from->text);
        kernel->threads = from->threads;
        kernel->shared = from->shared;
        kernel->cut = from->cut;
        kernel->tuned = true;
    }
}

static void remember(Tuner *t, const TuneShape *s) {
    const TuneTime *rule = &s->row.times[0], *chosen = &s->row.times[s->row.chosen];
    const TunedEntry e = {.arch = t->g->plan->arch,
                          .gpu = dev_info(t->g->device)->name,
                          .kernels = t->kernels,
                          .shape = s->row.shape,
                          .tuned = s->row.chosen != 0,
                          .cut = chosen->cut,
                          .rule_ns = (int64_t)(1e9 * rule->seconds),
                          .chosen_ns = (int64_t)(1e9 * chosen->seconds)};
    tuned_put(&t->fresh, &e);
    vec_push(t->g->arena, &t->g->tune.rows, s->row);
}

/* Shapes from `first` on until there is a kernel for each processor. */
static bool tune_batch(Tuner *t, int first, int *end, DevError *e) {
    OtherJobs jobs = {0};
    const int processors = processors_allowed();
    for (*end = first; *end < t->shapes.n && jobs.n < processors; ++*end)
        list_jobs(t, &t->shapes.v[*end], &jobs);
    bool ok = true, none;
    if (!compile_others(t, &jobs, &none)) {
        for (int i = first; i < *end && first == 0 && none && !cancelled(t->g); i++) {
            leave_by_rule(&t->shapes.v[i], 0); /* one kernel takes longer than there is time */
            remember(t, &t->shapes.v[i]);
        }
        return true;
    }
    for (int i = first; i < *end && ok && !over(t); i++) {
        TuneShape *s = &t->shapes.v[i];
        bool whole;
        ok = time_shape(t, s, &whole, e);
        if (ok && whole)
            remember(t, s);
        if (ok && whole && s->row.chosen)
            take_way(t, s);
    }
    return ok;
}

static bool tune_all(Tuner *t, DevError *e) {
    Gpu *g = t->g;
    bool ok = (t->from = dev_event_new(g->device, true, e)) && (t->to = dev_event_new(g->device, true, e));
    for (int i = 0, end = 0; i < t->shapes.n && ok && !over(t); i = end) {
        if (g->o.progress)
            g->o.progress(g->o.ctx, "tuning kernels", i, t->shapes.n, false);
        ok = tune_batch(t, i, &end, e);
        free_others(t);
    }
    /* The caches are as if nothing had run. */
    for (int i = 0; i < g->plan->buffers.n && ok && t->in_call >= 0; i++)
        if (buffer_is_cache(g->plan->buffers.v[i].kind))
            ok = dev_fill(g->stream, g->buffers[i], 0, (size_t)plan_buffer_bytes(g->plan, &g->plan->buffers.v[i]), e);
    ok = ok && dev_stream_wait(g->stream, e);
    dev_event_free(t->from);
    dev_event_free(t->to);
    return ok && !cancelled(g);
}

bool gpu_tune(Gpu *g, DevError *e) {
    const TuneOptions *o = &g->o.tune;
    if (!gpu_takes_choices(g) || o->budget <= 0 || g->o.timed_rows || g->o.check_launches)
        return true;
    const double start = now(g);
    Tuner t = {.g = g, .arena = arena_new(), .in_call = -1, .deadline = start + o->budget};
    t.fresh.arena = t.arena;
    t.kernels = tuned_kernels(t.arena);
    t.launches = arena_array(t.arena, (size_t)g->plan->phases.n + 1, sizeof *t.launches);
    t.plans[0] = g->plan;
    list_shapes(&t);
    const bool any = t.shapes.n && make_plans(&t);
    if (any)
        choose_shapes(&t);
    const bool ok = !any || !t.shapes.n || tune_all(&t, e);
    if (t.fresh.entries.n || g->tuned.dropped)
        tuned_file_add(&t.fresh, o->file, g->m->diag);
    g->tune.left = t.shapes.n - g->tune.rows.n;
    g->tune.seconds = now(g) - start;
    arena_free(t.arena);
    return ok;
}
