/* roofline.c - measures the read rate of device memory with kernels/roofline.cu.
 *
 * The buffer is at least twenty times the L2 cache and every pass begins at its start, which is what the
 * cache dropped longest ago: what little of the end it still holds is gone before it is asked for again.
 */
#include "runtime/device/roofline.h"

#include "runtime/device/device_int.h"
#include "runtime/device/kernel_texts_int.h"
#include <stdlib.h>

enum {
    PASSES = 12,
    WARM_UP = 3, /* passes not counted: clocks rise */
    THREADS = 256,
    BYTES_OF_TILE = 8 * 16 * THREADS,
    BLOCKS_PER_MULTIPROCESSOR = 8, /* 2,048 threads, all that fit */
};

static const int64_t SMALLEST = (int64_t)1 << 30, LARGEST = (int64_t)4 << 30;
static const int64_t TIMES_L2 = 20;

typedef struct Bench {
    Device *d;
    DevModule *module;
    DevKernel *read, *fill;
    DevStream *stream;
    DevEvent *event[PASSES + 1];
    DevPtr data, sink;
    uint64_t quads; /* 16 bytes each */
} Bench;

static bool load_kernels(Bench *b, const Nvrtc *n, CubinCache *cache, DevError *e) {
    Program program = {.name = device_kernel_texts[0].name, .source = device_kernel_texts[0].text};
    CompileOptions o = {.cache = cache, .threads = 1};
    Compiled compiled = {0};
    bool ok = compile_programs(n, b->d->info.arch, &program, 1, &o, &compiled, e);
    if (ok)
        b->module = dev_module_load(b->d, compiled.cubin, compiled.bytes, program.name, e);
    compiled_free(&compiled);
    return b->module && (b->read = dev_kernel(b->module, "roofline_read", 0, e)) &&
           (b->fill = dev_kernel(b->module, "roofline_fill", 0, e));
}

static bool allocate(Bench *b, DevError *e) {
    int64_t available = 0, total = 0;
    if (!dev_memory(b->d, &available, &total, e))
        return false;
    int64_t bytes = available / 2 < LARGEST ? available / 2 : LARGEST;
    int64_t least = b->d->info.l2_bytes * TIMES_L2 > SMALLEST ? b->d->info.l2_bytes * TIMES_L2 : SMALLEST;
    if (bytes < least)
        bytes = least;
    bytes -= bytes % BYTES_OF_TILE;
    b->quads = (uint64_t)bytes / 16;
    if (!dev_alloc(b->d, (size_t)bytes, "the buffer that is read to measure the memory", NULL, &b->data, e) ||
        !dev_alloc(b->d, 4, "a result", NULL, &b->sink, e) || !(b->stream = dev_stream_new(b->d, e)))
        return false;
    for (int i = 0; i <= PASSES; i++)
        if (!(b->event[i] = dev_event_new(b->d, true, e)))
            return false;
    return true;
}

static bool enqueue(Bench *b, DevError *e) {
    void *fill_arguments[] = {&b->data, &b->quads};
    void *read_arguments[] = {&b->data, &b->quads, &b->sink};
    DevLaunch fill = {.kernel = b->fill, .block = {THREADS}, .arguments = fill_arguments};
    fill.grid[0] = (uint32_t)(b->d->info.multiprocessors * BLOCKS_PER_MULTIPROCESSOR);
    DevLaunch read = fill;
    read.kernel = b->read;
    read.arguments = read_arguments;
    if (!dev_launch(b->stream, &fill, e))
        return false;
    for (int i = 0; i < WARM_UP; i++)
        if (!dev_launch(b->stream, &read, e))
            return false;
    for (int i = 0; i < PASSES; i++)
        if (!dev_event_record(b->event[i], b->stream, e) || !dev_launch(b->stream, &read, e))
            return false;
    return dev_event_record(b->event[PASSES], b->stream, e) && dev_stream_wait(b->stream, e);
}

static int ascending(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static bool read_times(const Bench *b, Roofline *out, DevError *e) {
    double seconds[PASSES];
    for (int i = 0; i < PASSES; i++) {
        if (!dev_event_seconds(b->event[i], b->event[i + 1], &seconds[i], e))
            return false;
        if (!(seconds[i] > 0))
            return dev_fail(e, DEV_OTHER, "GPU %d: a pass over memory took no time", b->d->info.ordinal);
    }
    qsort(seconds, PASSES, sizeof *seconds, ascending);
    out->bytes = (int64_t)b->quads * 16;
    out->passes = PASSES;
    out->read_gb_per_second = 1e-9 * (double)out->bytes / seconds[0];
    out->median_gb_per_second = 1e-9 * (double)out->bytes / seconds[PASSES / 2];
    return true;
}

static void free_bench(Bench *b) {
    for (int i = 0; i <= PASSES; i++)
        dev_event_free(b->event[i]);
    dev_stream_free(b->stream);
    dev_free(b->d, b->sink);
    dev_free(b->d, b->data);
    dev_module_free(b->module);
}

bool roofline_measure(Device *d, const Nvrtc *n, CubinCache *cache, Roofline *out, DevError *e) {
    Bench b = {.d = d};
    *out = (Roofline){0};
    bool ok = load_kernels(&b, n, cache, e) && allocate(&b, e) && enqueue(&b, e) && read_times(&b, out, e);
    free_bench(&b);
    return ok;
}
