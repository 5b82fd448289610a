/* gpu_load.c - from a plan to a GPU that is ready: memory, kernels, weights.
 *
 * The few kernels that repack weights are compiled first; then the others compile on all processors while the weights
 * come up. A weight that is repacked passes through a staging buffer in pieces of whole strips, so that the device
 * needs room for the tiles and one piece only.
 */
#include "runtime/engine/gpu_int.h"

#include "runtime/device/upload.h"
#include "runtime/engine/clock.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };
static const int64_t PIECE = (int64_t)64 << 20;

/* ==== Memory ==== */

static const struct {
    const char *what, *advice;
} memory_texts[BUFFER_KINDS] = {
    [BUFFER_CALL] = {"the inputs of calls", NULL},
    [BUFFER_SLAB] = {"activations", "A smaller --chunk needs less."},
    [BUFFER_SCRATCH] = {"intermediate results", "A smaller --chunk needs less."},
    [BUFFER_RAW] = {"weights of norms and tables", "Use a smaller model or a file with smaller storage types."},
    [BUFFER_TILES] = {"the weights", "Use a smaller model or a file with smaller storage types, or --device cpu."},
    [BUFFER_TABLE] = {"tables", NULL},
    [BUFFER_K] = {"the key caches", "A smaller --context needs less."},
    [BUFFER_V] = {"the value caches", "A smaller --context needs less."},
    [BUFFER_ZERO] = {"counters", NULL},
    [BUFFER_TIMES] = {"times of launches", NULL},
    [BUFFER_SAMPLER] = {"the tokens that sequences picked", "A smaller --context needs less."},
};

static int64_t buffer_room(const Gpu *g, const PlanBuffer *b) {
    return (plan_buffer_bytes(g->plan, b) + ALIGN - 1) / ALIGN * ALIGN;
}

/* One piece for all buffers of a kind. */
static bool allocate_kind(Gpu *g, BufferKind kind, int64_t bytes, DevError *e) {
    if (kind != BUFFER_HOST)
        return dev_alloc(g->device, (size_t)bytes, memory_texts[kind].what, memory_texts[kind].advice, &g->memory[kind],
                         e);
    g->host = bytes ? dev_host_alloc(g->device, (size_t)bytes, e) : NULL;
    g->memory[kind] = (DevPtr)(uintptr_t)g->host; /* page-locked memory has the same address on the device */
    return g->host || !bytes;
}

bool gpu_allocate(Gpu *g, DevError *e) {
    g->buffers = arena_array(g->arena, (size_t)g->plan->buffers.n + 1, sizeof *g->buffers);
    for (int kind = 0; kind < BUFFER_KINDS; kind++) {
        int64_t bytes = 0;
        for (int i = 0; i < g->plan->buffers.n; i++)
            if ((int)g->plan->buffers.v[i].kind == kind)
                bytes += buffer_room(g, &g->plan->buffers.v[i]);
        if (!allocate_kind(g, (BufferKind)kind, bytes, e))
            return false;
        DevPtr at = g->memory[kind];
        for (int i = 0; i < g->plan->buffers.n; i++)
            if ((int)g->plan->buffers.v[i].kind == kind) {
                g->buffers[i] = at;
                at += (DevPtr)buffer_room(g, &g->plan->buffers.v[i]);
            }
        if (bytes && kind == BUFFER_ZERO && !dev_fill(g->stream, g->memory[kind], 0, (size_t)bytes, e))
            return false;
    }
    g->head = (size_t)plan_call_head(g->plan);
    for (int i = 0; i < GPU_CALLS; i++)
        if (!(g->sent[i] = dev_event_new(g->device, false, e)))
            return false;
    return (g->calls = dev_host_alloc(g->device, GPU_CALLS * g->head, e)) &&
           (g->out = dev_host_alloc(g->device, MAX_OUT, e));
}

/* ==== Kernels ==== */

typedef struct Job {
    Gpu *g;
    const int *kernels; /* to compile */
    int n;
    Compiled *out;
    DevError error;
    bool ok;
    pthread_mutex_t lock; /* guards the rest */
    int done;
    bool stop, ended;
} Job;

static bool cancelled(const Gpu *g) {
    return g->o.cancel && *g->o.cancel;
}

static bool compile_progress(void *user, int done, int total) {
    Job *job = user;
    pthread_mutex_lock(&job->lock);
    job->done = done;
    const bool stop = job->stop || cancelled(job->g);
    pthread_mutex_unlock(&job->lock);
    (void)total;
    return !stop;
}

static void *compile_job(void *arg) {
    Job *job = arg;
    Gpu *g = job->g;
    Program *programs = calloc((size_t)job->n + 1, sizeof *programs);
    if (!programs)
        ICE("out of memory");
    for (int i = 0; i < job->n; i++) {
        const PlanKernel *k = &g->plan->kernels.v[job->kernels[i]];
        programs[i] = (Program){k->name, k->text, plan_options, n_plan_options, plan_kernel_effort(k)};
    }
    const CompileOptions o = {.cache = g->cache, .progress = compile_progress, .user = job};
    job->ok = compile_programs(g->nvrtc, g->plan->arch, programs, job->n, &o, job->out, &job->error);
    free(programs);
    pthread_mutex_lock(&job->lock);
    job->ended = true;
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

static bool load_kernel(Gpu *g, int kernel, const void *cubin, size_t bytes, DevError *e) {
    const PlanKernel *k = &g->plan->kernels.v[kernel];
    g->modules[kernel] = dev_module_load(g->device, cubin, bytes, k->name, e);
    if (!g->modules[kernel])
        return false;
    g->kernels[kernel] = dev_kernel(g->modules[kernel], k->name, (size_t)k->shared, e);
    int fit = 0;
    if (!g->kernels[kernel] || !dev_kernel_blocks(g->kernels[kernel], k->threads, (size_t)k->shared, &fit, e))
        return false;
    if (fit < 1)
        return dev_fail(e, DEV_OTHER, "a block of kernel %s (%d threads, %lld bytes of shared memory) does not fit",
                        k->name, k->threads, (long long)k->shared);
    g->resident[kernel] = fit < k->blocks ? fit : k->blocks;
    return true;
}

static bool load_compiled(Gpu *g, Job *job, DevError *e) {
    bool ok = job->ok;
    if (!ok)
        *e = job->error;
    for (int i = 0; i < job->n; i++) {
        g->stats.compiled += job->out[i].state == COMPILE_DONE;
        ok = ok && load_kernel(g, job->kernels[i], job->out[i].cubin, job->out[i].bytes, e);
        compiled_free(&job->out[i]);
    }
    return ok;
}

static Job new_job(Gpu *g, int *kernels, int n) {
    return (Job){.g = g,
                 .kernels = kernels,
                 .n = n,
                 .out = arena_array(g->arena, (size_t)n + 1, sizeof(Compiled)),
                 .lock = PTHREAD_MUTEX_INITIALIZER};
}

/* Kernels of a bundle. */
static bool take_cubins(Gpu *g, DevError *e) {
    for (int i = 0; i < g->plan->kernels.n; i++)
        if (!load_kernel(g, i, g->o.cubins[i].bytes, g->o.cubins[i].n, e))
            return false;
    return true;
}

/* ==== Weights ==== */

typedef struct Piece {
    bool repacked; /* by the launch, from the staging buffer */
    GpuLaunch launch;
} Piece;

typedef struct Weights {
    Gpu *g;
    VEC(UploadItem) items;
    VEC(Piece) pieces; /* of the items, one each */
} Weights;

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Cuts a weight that is repacked: rows in strips, stacks of matrices in matrices. */
static void cut_weight(Weights *w, int index, const uint8_t *from, int64_t *largest) {
    Gpu *g = w->g;
    const PlanWeight *p = &g->plan->weights.v[index];
    const Type *t = &g->m->weights.v[p->weight].type;
    const int64_t k = t->dim[t->rank - 1], rows = t->dim[t->rank - 2], matrices = t->rank == 3 ? t->dim[0] : 1;
    const int64_t row_bytes = (int64_t)dtype_row_bytes(t->dtype, k);
    const bool stack = matrices > 1;
    const int64_t unit = stack ? rows * row_bytes : TILE_ROWS * row_bytes;
    const int64_t units = stack ? matrices : (rows + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t unit_tiles = g->plan->buffers.v[p->buffer].bytes / units;
    const int64_t step = max64(1, PIECE / unit);
    for (int64_t at = 0; at < units; at += step) {
        const int64_t n = units - at < step ? units - at : step;
        Piece piece = {.repacked = true};
        gpu_make_launch(g, &g->plan->fills.v[p->launch], &piece.launch);
        const int64_t behind = rows - at * TILE_ROWS;
        const int64_t piece_rows = stack ? rows : n * TILE_ROWS < behind ? n * TILE_ROWS : behind;
        piece.launch.values[1] += (uint64_t)(at * unit_tiles);
        piece.launch.values[2] = (uint32_t)piece_rows;
        const int64_t tiles = (stack ? unit_tiles : n * unit_tiles) / dtype_info(t->dtype)->tile_bytes;
        piece.launch.launch.grid[0] = (uint32_t)((tiles + 3) / 4);
        piece.launch.launch.grid[1] = (uint32_t)(stack ? n : 1);
        const int64_t bytes = (stack ? n * rows : piece_rows) * row_bytes;
        *largest = max64(*largest, bytes);
        UploadItem item = {0, from + at * unit, (size_t)bytes};
        vec_push(g->arena, &w->items, item);
        vec_push(g->arena, &w->pieces, piece);
    }
}

static void list_items(Weights *w, const void *const *data, int64_t *largest) {
    Gpu *g = w->g;
    for (int i = 0; i < g->plan->weights.n; i++) {
        const PlanWeight *p = &g->plan->weights.v[i];
        if (p->launch >= 0) {
            cut_weight(w, i, data[p->weight], largest);
            continue;
        }
        Piece piece = {0};
        UploadItem item = {g->buffers[p->buffer], data[p->weight], (size_t)g->plan->buffers.v[p->buffer].bytes};
        vec_push(g->arena, &w->items, item);
        vec_push(g->arena, &w->pieces, piece);
    }
}

static bool item_enqueued(void *user, int item, DevStream *stream, DevError *e) {
    Weights *w = user;
    Piece *p = &w->pieces.v[item];
    return !p->repacked || dev_launch(stream, &p->launch.launch, e);
}

static bool upload_progress(void *user, int64_t done, int64_t total) {
    Weights *w = user;
    if (w->g->o.progress)
        w->g->o.progress(w->g->o.ctx, "loading weights", done, total, true);
    return !cancelled(w->g);
}

static bool upload(Gpu *g, const void *const *data, DevError *e) {
    Weights w = {.g = g};
    DevPtr staging = 0;
    int64_t largest = 0;
    list_items(&w, data, &largest);
    if (!dev_alloc(g->device, (size_t)largest, "weights on their way in", NULL, &staging, e))
        return false;
    for (int i = 0; i < w.pieces.n; i++)
        if (w.pieces.v[i].repacked)
            w.items.v[i].to = w.pieces.v[i].launch.values[0] = staging;
    const UploadOptions o = {
        .stream = g->stream, .item_enqueued = item_enqueued, .progress = upload_progress, .user = &w};
    UploadResult r;
    const bool ok = upload_run(g->device, w.items.v, w.items.n, &o, &r, e);
    dev_free(g->device, staging);
    g->stats.upload_bytes = r.bytes;
    g->stats.upload_seconds = r.seconds;
    return ok;
}

static bool fill_tables(Gpu *g, DevError *e) {
    for (int i = 0; i < g->plan->tables.n; i++) {
        GpuLaunch l;
        gpu_make_launch(g, &g->plan->fills.v[g->plan->tables.v[i]], &l);
        if (!dev_launch(g->stream, &l.launch, e))
            return false;
    }
    return dev_stream_wait(g->stream, e);
}

/* ==== All of it ==== */

static void wait_compiled(Gpu *g, Job *job, pthread_t thread) {
    static const struct timespec tenth = {0, 100000000};
    for (bool ended = false; !ended;) {
        pthread_mutex_lock(&job->lock);
        const int done = job->done;
        ended = job->ended;
        pthread_mutex_unlock(&job->lock);
        if (g->o.progress)
            g->o.progress(g->o.ctx, "compiling kernels", done, job->n, false);
        if (!ended)
            nanosleep(&tenth, NULL);
    }
    pthread_join(thread, NULL);
}

/* Kernels of fill launches first, in `order`; returns how many they are. */
static int split_kernels(const Gpu *g, int *order) {
    bool *fill = calloc((size_t)g->plan->kernels.n + 1, sizeof *fill);
    if (!fill)
        ICE("out of memory");
    for (int i = 0; i < g->plan->fills.n; i++)
        fill[g->plan->fills.v[i].kernel] = true;
    int fills = 0;
    for (int i = 0; i < g->plan->kernels.n; i++)
        if (fill[i])
            order[fills++] = i;
    int n = fills;
    for (int i = 0; i < g->plan->kernels.n; i++)
        if (!fill[i])
            order[n++] = i;
    free(fill);
    return fills;
}

static bool compile_and_upload(Gpu *g, const void *const *data, DevError *e) {
    int *order = arena_array(g->arena, (size_t)g->plan->kernels.n + 1, sizeof *order);
    const int fills = split_kernels(g, order);
    const double start = clock_seconds();
    Job first = new_job(g, order, fills);
    compile_job(&first);
    if (!load_compiled(g, &first, e))
        return false;
    Job rest = new_job(g, order + fills, g->plan->kernels.n - fills);
    pthread_t thread;
    const bool threaded = pthread_create(&thread, NULL, compile_job, &rest) == 0;
    if (!threaded)
        compile_job(&rest);
    const bool uploaded = upload(g, data, e);
    pthread_mutex_lock(&rest.lock);
    rest.stop = !uploaded;
    pthread_mutex_unlock(&rest.lock);
    const bool measures = uploaded && gpu_rates_wanted(&g->o, g->device);
    if (measures) /* while processors compile anyway */
        gpu_rates_compile(&g->o, g->plan->arch, g->nvrtc, g->cache);
    if (threaded)
        wait_compiled(g, &rest, thread);
    g->stats.compile_seconds = clock_seconds() - start;
    DevError compile_error = {0};
    const bool compiled = load_compiled(g, &rest, uploaded ? e : &compile_error);
    if (measures && compiled) /* with processors and the GPU at rest */
        gpu_rates_measure(&g->o, g->device, g->nvrtc, g->cache, g->m->diag);
    return uploaded && compiled;
}

bool gpu_load(Gpu *g, const void *const *data, DevError *e) {
    const size_t n = (size_t)g->plan->kernels.n + 1;
    g->modules = arena_array(g->arena, n, sizeof *g->modules);
    g->kernels = arena_array(g->arena, n, sizeof *g->kernels);
    g->resident = arena_array(g->arena, n, sizeof *g->resident);
    g->stats.kernels = g->plan->kernels.n;
    if (g->o.ready)
        return take_cubins(g, e) && upload(g, data, e) && fill_tables(g, e);
    return compile_and_upload(g, data, e) && fill_tables(g, e);
}
