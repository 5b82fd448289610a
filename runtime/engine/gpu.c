/* gpu.c - opening a GPU for a module, and calls. See gpu.h. */
#include "runtime/engine/gpu_int.h"

#include "runtime/engine/clock.h"
#include "runtime/engine/tuned_file.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

bool gpu_fail(Diag *diag, const DevError *e) {
    const size_t first = strcspn(e->text, "\n");
    if (e->kind == DEV_SOURCE)
        diag_error(diag, NO_LOC, "%.*s", (int)first, e->text);
    else
        diag_system(diag, NO_LOC, "%.*s", (int)first, e->text);
    if (e->text[first])
        diag_note(diag, NO_LOC, "%s", e->text + first + 1);
    return false;
}

bool gpu_present(const char *driver) {
    DevInfo info;
    DevError e;
    int n = 0;
    return dev_list(driver, &info, 1, &n, &e) && n > 0;
}

bool gpu_info(const char *driver, int ordinal, DevInfo *out, DevError *e) {
    enum { MOST = 64 };
    DevInfo all[MOST];
    int n = 0;
    if (!dev_list(driver, all, MOST, &n, e))
        return false;
    n = n < MOST ? n : MOST;
    if (ordinal < 0 || ordinal >= n)
        return dev_fail(e, DEV_ABSENT, "there is no GPU %d; this machine has %d", ordinal, n);
    *out = all[ordinal];
    return true;
}

bool gpu_arch(const char *driver, int ordinal, char out[16], Diag *diag) {
    DevInfo info;
    DevError e = {0};
    if (!gpu_info(driver, ordinal, &info, &e))
        return gpu_fail(diag, &e);
    snprintf(out, 16, "%s", info.arch);
    return true;
}

/* ==== Opening ==== */

/* Rows of the smallest table that token ids look up. */
static int32_t find_vocab(const Module *m) {
    int64_t least = INT32_MAX;
    for (int i = 0; i < m->graphs.n; i++) {
        const Graph *g = m->graphs.v[i];
        for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
            const Node *n = ir_get(g, id);
            if (n->op == OP_EMBED && ir_type(g, n->in[1])->dim[0] < least)
                least = ir_type(g, n->in[1])->dim[0];
        }
    }
    return (int32_t)least;
}

/* NVRTC is opened beside the driver: each takes a tenth of a second or more. */
typedef struct NvrtcJob {
    const char *folder;
    Nvrtc *nvrtc;
    DevError error;
} NvrtcJob;

static void *open_nvrtc(void *arg) {
    NvrtcJob *job = arg;
    job->nvrtc = nvrtc_open(job->folder, &job->error);
    return NULL;
}

static bool open_device(Gpu *g, DevError *e) {
    const double start = clock_seconds();
    const DevOptions d = {.driver = g->o.driver, .ordinal = g->o.ordinal, .check_launches = g->o.check_launches};
    NvrtcJob job = {.folder = g->o.nvrtc};
    pthread_t thread;
    const bool wanted = !g->o.ready, beside = wanted && pthread_create(&thread, NULL, open_nvrtc, &job) == 0;
    g->device = dev_open(&d, e);
    const bool opened = g->device && (g->stream = dev_stream_new(g->device, e));
    if (beside)
        pthread_join(thread, NULL);
    else if (wanted && opened)
        open_nvrtc(&job);
    g->nvrtc = job.nvrtc;
    if (!opened)
        return false;
    if (wanted && !g->nvrtc) {
        *e = job.error;
        return false;
    }
    if (g->o.kernel_cache)
        g->cache = cubin_cache_open(g->o.kernel_cache);
    g->stats.device_seconds = clock_seconds() - start;
    return true;
}

/* --use-kernel: the text of FILE takes the place of the kernel that FILE is named after. */
static bool replace_kernel(Gpu *g, Plan *plan) {
    const char *path = g->o.use_kernel, *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const size_t n = strlen(base);
    FILE *f = fopen(path, "rb");
    Buf text = {0};
    char block[4096];
    for (size_t got; f && (got = fread(block, 1, sizeof block, f)) > 0;)
        buf_bytes(&text, block, got);
    if (!f || ferror(f))
        diag_error(g->m->diag, NO_LOC, "cannot read %s", path);
    const bool read = f && !ferror(f);
    if (f)
        fclose(f);
    int found = -1;
    for (int i = 0; read && i < plan->kernels.n; i++)
        if (n > 3 && strlen(plan->kernels.v[i].name) == n - 3 && strncmp(plan->kernels.v[i].name, base, n - 3) == 0)
            found = i;
    if (found >= 0)
        plan->kernels.v[found].text = arena_strndup(g->arena, text.n ? text.s : "", text.n);
    else if (read)
        diag_error(g->m->diag, NO_LOC, "%s: no kernel of this plan has that name; lap print --kernels DIR writes them",
                   path);
    buf_free(&text);
    return found >= 0;
}

/* A call that is too large for every phase gets none: what makes it says so. */
static bool add_timed_phase(const Gpu *g, Plan *plan) {
    const int phase = g->o.timed_rows ? plan_find_phase(plan, "step", g->o.timed_rows, g->o.timed_wanted) : -1;
    return phase < 0 || plan_time_phase(plan, phase, g->o.timed_moment ? g->o.timed_moment : "wait", g->m->diag);
}

/* For the chunk that is asked for, or for one that fits into the memory that is free now: g->o.plan says it then. */
static Plan *generate_plan(Gpu *g, const PlanTarget *target, const PlanChoices *choices) {
    ChunkRoom room = {0};
    DevError e = {0};
    PlanOptions o = g->o.plan;
    o.choices = choices;
    if (!g->o.choose)
        return plan_generate(g->arena, g->m, target, &o);
    if (!dev_memory(g->device, &room.free_bytes, &room.total_bytes, &e)) {
        gpu_fail(g->m->diag, &e);
        return NULL;
    }
    g->o.choose->choices = choices;
    Plan *plan = chunk_choose(g->arena, g->o.choose, target, &room);
    g->o.choose->choices = NULL; /* the caller's, who keeps the request */
    const int64_t chunk = g->o.choose->chunk, rows = g->o.choose->pass.rows;
    if (plan) {
        g->o.plan.chunk = chunk;
        g->o.plan.wanted = rows < chunk ? rows : chunk;
    }
    return plan;
}

static bool make_plan(Gpu *g) {
    if (g->o.ready) {
        g->plan = g->o.ready;
        return true;
    }
    PlanTarget target;
    const char *arch = dev_info(g->device)->arch;
    if (!plan_target(arch, &target)) {
        diag_error(g->m->diag, NO_LOC, "there are no kernels for GPUs of architecture %s", arch);
        return false;
    }
    PlanChoices choices;
    const bool takes = gpu_takes_choices(g);
    if (takes) {
        tuned_file_read(&g->tuned, g->o.tune.file, g->m->diag);
        choices = tuned_choices(g->arena, &g->tuned, arch, dev_info(g->device)->name);
    }
    Plan *plan = generate_plan(g, &target, takes ? &choices : NULL);
    g->plan = g->own = plan;
    return plan && (!g->o.use_kernel || replace_kernel(g, plan)) && add_timed_phase(g, plan);
}

Gpu *gpu_open(const Module *m, const void *const *data, const GpuOptions *o) {
    Arena *arena = arena_new();
    Gpu *g = arena_alloc(arena, sizeof *g);
    *g = (Gpu){.arena = arena, .m = m, .o = *o, .vocab = find_vocab(m), .tuned = {.arena = arena}};
    DevError e = {0};
    const double start = clock_seconds();
    bool ok = open_device(g, &e);
    const bool planned = ok && make_plan(g);
    if (planned) {
        g->lengths = arena_array(arena, (size_t)g->plan->slots, sizeof *g->lengths);
        ok = gpu_allocate(g, &e) && gpu_load(g, data, &e) && gpu_check_fills(g, &e) && gpu_tune(g, &e) &&
             gpu_make_phases(g, &e);
    }
    g->stats.ready_seconds = clock_seconds() - start;
    char *warnings = g->cache ? cubin_cache_warnings(g->cache) : NULL;
    for (const char *line = warnings; line && *line; line += strcspn(line, "\n"), line += *line == '\n')
        diag_warning(m->diag, NO_LOC, "%.*s", (int)strcspn(line, "\n"), line);
    free(warnings);
    if (!ok && !(o->cancel && *o->cancel))
        gpu_fail(m->diag, &e);
    if (ok && planned)
        return g;
    gpu_close(g);
    return NULL;
}

void gpu_close(Gpu *g) {
    if (!g)
        return;
    for (int i = 0; g->phases && i < g->plan->phases.n; i++) {
        dev_graph_free(g->phases[i].graph);
        for (int way = 0; way < PICK_WAYS; way++)
            dev_graph_free(g->phases[i].sampled[way]);
    }
    dev_stream_free(g->stream);
    for (int i = 0; i < GPU_CALLS; i++)
        dev_event_free(g->sent[i]);
    for (int i = 0; g->samplers && i < g->plan->samplers.n; i++)
        for (int k = 0; k < PLAN_RING; k++)
            dev_event_free(g->samplers[i].events[k]);
    for (int i = 0; g->modules && i < g->plan->kernels.n; i++)
        dev_module_free(g->modules[i]);
    if (g->device) {
        for (int i = 0; i < BUFFER_KINDS; i++)
            if (i != BUFFER_HOST)
                dev_free(g->device, g->memory[i]);
        dev_host_free(g->device, g->host);
        dev_host_free(g->device, g->calls);
        dev_host_free(g->device, g->out);
    }
    if (g->cache)
        cubin_cache_close(g->cache);
    nvrtc_close(g->nvrtc);
    if (g->device)
        dev_close(g->device);
    arena_free(g->arena);
}

const Plan *gpu_plan(const Gpu *g) {
    return g->plan;
}

Device *gpu_device(const Gpu *g) {
    return g->device;
}

const Nvrtc *gpu_nvrtc(const Gpu *g) {
    return g->nvrtc;
}

const GpuLoadStats *gpu_load_stats(const Gpu *g) {
    return &g->stats;
}

const TuneReport *gpu_tuning(const Gpu *g) {
    return gpu_takes_choices(g) ? &g->tune : NULL;
}

int gpu_vocab(const Gpu *g) {
    return g->vocab;
}

int64_t gpu_cache_bytes(const Gpu *g) {
    return plan_bytes(g->plan, BUFFER_K) + plan_bytes(g->plan, BUFFER_V);
}

void gpu_truncate(Gpu *g, int slot, int64_t pos) {
    g->lengths[slot] = g->lengths[slot] < pos ? g->lengths[slot] : (int32_t)pos;
}

/* ==== What calls hand to each other ==== */

static DevPtr held_at(const void *held) {
    return (DevPtr)(uintptr_t)held;
}

static DevPtr input_at(const Gpu *g, const PlanInput *in) {
    return g->buffers[g->plan->call.buffer] + (DevPtr)in->offset;
}

void *gpu_hold(Gpu *g, const char *input, int64_t bytes, Diag *diag) {
    const PlanInput *in = input ? plan_input(g->plan, input) : NULL;
    DevPtr at = in ? input_at(g, in) : 0;
    DevError e = {0};
    if (in && in->offset + bytes > g->plan->call.bytes)
        ICE("input %s of %lld bytes", input, (long long)bytes);
    if (!in && !dev_alloc(g->device, (size_t)bytes, "what calls hand to each other", NULL, &at, &e))
        gpu_fail(diag, &e);
    return (void *)(uintptr_t)at;
}

void gpu_let_go(Gpu *g, void *held) {
    const DevPtr call = g->buffers[g->plan->call.buffer], at = held_at(held);
    if (at < call || at >= call + (DevPtr)g->plan->call.bytes)
        dev_free(g->device, at);
}

/* ==== Calls ==== */

GpuPhase *gpu_find_phase(const Gpu *g, const char *graph, int64_t T, int64_t R) {
    const int i = plan_find_phase(g->plan, graph, T, R);
    return i < 0 ? NULL : &g->phases[i];
}

const PlanPhase *gpu_phase(const Gpu *g, const char *graph, int64_t T, int64_t R) {
    const GpuPhase *p = gpu_find_phase(g, graph, T, R);
    return p ? p->plan : NULL;
}

static const void *input_data(const EvalCall *c, const char *name) {
    for (int i = 0; i < c->n_inputs; i++)
        if (strcmp(c->inputs[i].name, name) == 0)
            return c->inputs[i].data;
    return NULL;
}

/* Token ids in the vocabulary, positions in the caches, wanted rows among the rows. */
static bool check_rows(const Gpu *g, const EvalCall *c, Diag *diag) {
    const int32_t *tokens = input_data(c, "tokens"), *pos = input_data(c, "pos"), *rows = input_data(c, "rows");
    for (int64_t i = 0; tokens && i < c->T - c->made; i++)
        if (tokens[i] < 0 || tokens[i] >= g->vocab) {
            diag_error(diag, NO_LOC, "token %d of row %lld is outside of the %d of the table", (int)tokens[i],
                       (long long)i, (int)g->vocab);
            return false;
        }
    for (int64_t i = 0; pos && i < c->T; i++)
        if (pos[i] < 0 || pos[i] >= g->plan->context) {
            diag_error(diag, NO_LOC, "position %d of row %lld is beyond the %lld positions that the caches hold",
                       (int)pos[i], (long long)i, (long long)g->plan->context);
            return false;
        }
    for (int64_t i = 0; rows && i < c->R; i++)
        if (rows[i] < 0 || rows[i] >= c->T) {
            diag_error(diag, NO_LOC, "wanted row %d is none of the %lld rows", (int)rows[i], (long long)c->T);
            return false;
        }
    for (int64_t i = 0; c->slots && i < c->T; i++)
        if (c->slots[i] < 0 || c->slots[i] >= g->plan->slots)
            ICE("slot %d of %d", (int)c->slots[i], g->plan->slots);
    return true;
}

static bool takes(const Graph *graph, const char *input) {
    for (int i = 0; i < graph->inputs.n; i++)
        if (strcmp(ir_get(graph, graph->inputs.v[i])->attr[0].s, input) == 0)
            return true;
    return false;
}

static bool check_inputs(const Gpu *g, const EvalCall *c, Diag *diag) {
    for (int i = 0; i < c->graph->inputs.n; i++) {
        const char *name = ir_get(c->graph, c->graph->inputs.v[i])->attr[0].s;
        if (!input_data(c, name)) {
            diag_error(diag, NO_LOC, "input \"%s\" is missing from the call", name);
            return false;
        }
    }
    return check_rows(g, c, diag);
}

/* Lengths of the sequences as the call's kernels see them: with the rows that it stores, or counts without storing.
 * Those that it stores stay. */
static void write_lengths(Gpu *g, const EvalCall *c, const GpuPhase *p, int32_t *lengths) {
    const int32_t *pos = input_data(c, "pos");
    const size_t bytes = (size_t)g->plan->slots * sizeof *lengths;
    memcpy(lengths, g->lengths, bytes);
    for (int64_t i = 0; pos && (p->stores || p->counts_own) && i < c->T; i++) {
        const int slot = c->slots ? c->slots[i] : 0;
        lengths[slot] = pos[i] + 1 > lengths[slot] ? pos[i] + 1 : lengths[slot];
    }
    if (p->stores)
        memcpy(g->lengths, lengths, bytes);
}

static size_t input_bytes(const PlanInput *in, const EvalCall *c) {
    return (size_t)(type_rows(&in->type, c->T, c->R) * type_row_elems(&in->type) * 4);
}

/* The beginning of the call block, which the host writes for every call. */
static void write_head(Gpu *g, const EvalCall *c, const GpuPhase *p, uint8_t *head) {
    const PlanCall *layout = &g->plan->call;
    const int32_t counts[4] = {(int32_t)c->T, (int32_t)c->R, 0, (int32_t)c->ahead};
    memcpy(head, counts, sizeof counts);
    for (int i = 0; i < layout->inputs.n; i++) {
        const PlanInput *in = &layout->inputs.v[i];
        if (plan_input_of_host(&in->type) && takes(c->graph, in->name))
            memcpy(head + in->offset, input_data(c, in->name), input_bytes(in, c));
    }
    int32_t *slots = (int32_t *)(void *)(head + layout->slots);
    for (int64_t i = 0; i < c->T; i++)
        slots[i] = c->slots ? c->slots[i] : 0;
    write_lengths(g, c, p, (int32_t *)(void *)(head + layout->lengths));
}

/* All but the tokens that are there. */
static bool copy_head(Gpu *g, const EvalCall *c, const uint8_t *head, DevError *e) {
    const DevPtr to = g->buffers[g->plan->call.buffer];
    const size_t tokens = (size_t)plan_input(g->plan, "tokens")->offset, end = tokens + (size_t)c->T * 4;
    const size_t made = end - (size_t)c->made * 4;
    if (!c->made)
        return dev_copy_in(g->stream, to, head, g->head, e);
    return dev_copy_in(g->stream, to, head, made, e) &&
           dev_copy_in(g->stream, to + (DevPtr)end, head + end, g->head - end, e);
}

/* Steps that are enqueued may still read and change the call block on the device; the copy comes behind them. */
static bool send_head(Gpu *g, const EvalCall *c, const GpuPhase *p, DevError *e) {
    const int turn = g->turn++ % GPU_CALLS;
    uint8_t *head = g->calls + (size_t)turn * g->head;
    if (!dev_event_wait(g->sent[turn], e))
        return false;
    write_head(g, c, p, head);
    return copy_head(g, c, head, e) && dev_event_record(g->sent[turn], g->stream, e);
}

/* Rows of vectors, which the host has, or the device in another place. */
static bool send_vectors(Gpu *g, const EvalCall *c, DevError *e) {
    bool wait = false;
    for (int i = 0; i < c->n_inputs; i++) {
        const PlanInput *in = plan_input(g->plan, c->inputs[i].name);
        const void *data = c->inputs[i].data;
        if (!in || plan_input_of_host(&in->type) || !takes(c->graph, in->name))
            continue;
        const bool held = i >= c->n_inputs - c->held_inputs;
        const DevPtr to = input_at(g, in);
        const size_t bytes = input_bytes(in, c);
        if (held ? held_at(data) != to && !dev_copy(g->stream, to, held_at(data), bytes, e)
                 : !dev_copy_in(g->stream, to, data, bytes, e))
            return false;
        wait = wait || !held;
    }
    return !wait || dev_stream_wait(g->stream, e); /* the memory is the caller's */
}

/* From the device through the page-locked buffer; waits. */
static bool copy_out(Gpu *g, void *to, DevPtr from, int64_t bytes, DevError *e) {
    for (int64_t at = 0; at < bytes; at += MAX_OUT) {
        const int64_t n = bytes - at < MAX_OUT ? bytes - at : MAX_OUT;
        if (!dev_copy_out(g->stream, g->out, from + (DevPtr)at, (size_t)n, e) || !dev_stream_wait(g->stream, e))
            return false;
        memcpy((uint8_t *)to + at, g->out, (size_t)n);
    }
    return true;
}

static DevPtr slab_at(const Gpu *g, int64_t offset) {
    int i = 0;
    while (g->plan->buffers.v[i].kind != BUFFER_SLAB)
        i++;
    return g->buffers[i] + (DevPtr)offset;
}

bool gpu_read_slab(Gpu *g, int64_t offset, void *to, int64_t bytes, DevError *e) {
    return dev_copy_out(g->stream, to, slab_at(g, offset), (size_t)bytes, e) && dev_stream_wait(g->stream, e);
}

/* Where an output of the call stands; NULL after an error. */
static const PlanOutput *find_output(const PlanPhase *phase, const EvalOutput *o, DevError *e) {
    for (int k = 0; k < phase->outputs.n; k++)
        if (strcmp(phase->outputs.v[k].name, o->name) == 0)
            return &phase->outputs.v[k];
    dev_fail(e, DEV_OTHER, "the plan has no output \"%s\"", o->name);
    return NULL;
}

static int64_t output_bytes(const PlanOutput *o, const EvalCall *c) {
    return type_rows(&o->type, c->T, c->R) * type_row_elems(&o->type) * 4;
}

bool gpu_hold_outputs(Gpu *g, const EvalCall *c, const PlanPhase *phase, DevError *e) {
    for (int i = c->n_outputs - c->held_outputs; i < c->n_outputs; i++) {
        const PlanOutput *out = find_output(phase, &c->outputs[i], e);
        if (!out ||
            !dev_copy(g->stream, held_at(c->outputs[i].data), slab_at(g, out->offset), (size_t)output_bytes(out, c), e))
            return false;
    }
    return true;
}

static bool read_outputs(Gpu *g, const EvalCall *c, const PlanPhase *phase, DevError *e) {
    for (int i = 0; i < c->n_outputs - c->held_outputs; i++) {
        const PlanOutput *out = find_output(phase, &c->outputs[i], e);
        if (!out ||
            (c->outputs[i].data && !copy_out(g, c->outputs[i].data, slab_at(g, out->offset), output_bytes(out, c), e)))
            return false;
    }
    return c->later || dev_stream_wait(g->stream, e);
}

GpuPhase *gpu_begin(Gpu *g, const EvalCall *c, Diag *diag) {
    GpuPhase *p = gpu_find_phase(g, c->graph->name, c->T, c->R);
    DevError e = {0};
    if (!p)
        diag_error(diag, NO_LOC, "no phase of the plan takes a call of %lld rows with %lld wanted", (long long)c->T,
                   (long long)c->R);
    if (!p || !check_inputs(g, c, diag))
        return NULL;
    if (send_head(g, c, p, &e) && send_vectors(g, c, &e))
        return p;
    gpu_fail(diag, &e);
    return NULL;
}

bool gpu_call(Gpu *g, const EvalCall *c, Diag *diag) {
    GpuPhase *p = gpu_begin(g, c, diag);
    if (!p)
        return false;
    DevError e = {0};
    if (!gpu_launch_phase(g, p, c->T, c->R, c->cancel, &e) || !gpu_hold_outputs(g, c, p->plan, &e) ||
        !read_outputs(g, c, p->plan, &e))
        return gpu_fail(diag, &e);
    return !(c->cancel && *c->cancel && !p->graph);
}
