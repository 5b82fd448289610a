/* roofline.c - measures the read rate of device memory, the rate of a bf16 matmul and launches, with
 * kernels/roofline*.cu.
 *
 * Reading: the buffer is at least twenty times the L2 cache and every pass begins at its start, which is what the
 * cache dropped longest ago: what little of the end it still holds is gone before it is asked for again.
 *
 * Multiplying: matrices of 8192 by 8192, as a real matmul does it, but with operands that lie as the kernel likes them
 * and as many tiles as keep all multiprocessors busy to the end. Operands are noise of size 1/8 to 2, and a few of the
 * results are compared with the host's, since the rate of a kernel that computes something else says nothing.
 *
 * A launch: small kernels one after another in a stream, as calls of a prompt launch theirs. The host may be what
 * limits them; so it does in those calls.
 */
#include "runtime/device/roofline.h"

#include "runtime/device/device_int.h"
#include "runtime/device/kernel_texts_int.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_PASSES = 50,
    LAUNCHES = 200,
    THREADS = 256,
    BYTES_OF_TILE = 8 * 16 * THREADS,
    BLOCKS_PER_MULTIPROCESSOR = 8, /* 2,048 threads, all that fit */
};

#define SMALLEST ((int64_t)1 << 30)
static const int64_t TIMES_L2 = 20;

/* How much is measured. */
typedef struct Effort {
    int64_t largest;         /* bytes that a pass reads, unless the L2 cache is large; SMALLEST at least */
    int reads, reads_before; /* passes, and those ahead of them that are not counted: clocks rise */
    int matmuls, matmuls_before;
    double seconds; /* that passes of a matmul should take together, of which there are `matmuls` at least */
} Effort;

/* To compare with, and for a choice. 30 ms are more than a clock needs to rise. */
static const Effort thorough = {(int64_t)4 << 30, 12, 3, 5, 2, 0.1}, quick = {SMALLEST, 5, 1, 3, 4, 0.03};

/* Operands: pieces of 128 rows and 64 columns, see kernels/roofline_wgmma.cu. */
enum { SIZE = 8192, PIECE_ROWS = 128, PIECE_COLUMNS = 64, PIECE_BYTES = 2 * PIECE_ROWS * PIECE_COLUMNS };
enum { DEPTHS = SIZE / PIECE_COLUMNS, ROW_BLOCKS = SIZE / PIECE_ROWS };
static const int64_t OPERAND_BYTES = (int64_t)2 * SIZE * SIZE;

/* The ways to multiply, the fastest first, the last for every architecture. */
enum { WGMMA, MMA, WAYS };
static const struct MatmulKernel {
    const char *arch, *file;
    int columns; /* of a tile; its rows are 128 */
    int threads, shared;
} matmul_kernels[WAYS] = {
    [WGMMA] = {"sm_90a", "roofline_wgmma.cu", 256, 384, 1024 + 4 * (48 << 10)},
    [MMA] = {NULL, "roofline_mma.cu", 128, 128, 3 * (32 << 10)},
};

typedef struct Bench {
    Device *d;
    const Effort *effort;
    DevModule *modules[1 + WAYS];
    DevKernel *read, *fill, *matmul[WAYS]; /* NULL: this way is not measured */
    DevStream *stream;
    DevEvent *event[MOST_PASSES + 1];
    DevPtr data, sink;
    uint64_t quads; /* 16 bytes each */
} Bench;

/* ==== Kernels ==== */

static Program program(const char *name) {
    int i = 0;
    while (strcmp(device_kernel_texts[i].name, name) != 0)
        i++;
    return (Program){.name = name, .source = device_kernel_texts[i].text};
}

/* The kernel that reads, then those that multiply by ways[..]. */
typedef struct Kernels {
    int n, ways[WAYS];
    Program programs[1 + WAYS];
    Compiled compiled[1 + WAYS];
} Kernels;

/* all: every way to multiply that the architecture has, else the fastest. free_kernels() whatever it gives. */
static bool compile_kernels(const char *arch, const Nvrtc *n, CubinCache *cache, bool all, Kernels *k, DevError *e) {
    *k = (Kernels){.n = 1, .programs = {program("roofline.cu")}};
    for (int way = 0; way < WAYS; way++) {
        const char *only = matmul_kernels[way].arch;
        if ((!only || strcmp(only, arch) == 0) && (all || k->n == 1)) {
            k->ways[k->n - 1] = way;
            k->programs[k->n++] = program(matmul_kernels[way].file);
        }
    }
    return compile_programs(n, arch, k->programs, k->n, &(CompileOptions){.cache = cache, .threads = k->n}, k->compiled,
                            e);
}

static void free_kernels(Kernels *k) {
    for (int i = 0; i < k->n; i++)
        compiled_free(&k->compiled[i]);
}

static bool load_kernels(Bench *b, const Nvrtc *n, CubinCache *cache, bool all, DevError *e) {
    Kernels k;
    bool ok = compile_kernels(b->d->info.arch, n, cache, all, &k, e);
    for (int i = 0; i < k.n && ok; i++)
        ok = (b->modules[i] = dev_module_load(b->d, k.compiled[i].cubin, k.compiled[i].bytes, k.programs[i].name, e)) !=
             NULL;
    for (int i = 0; i < k.n - 1 && ok; i++)
        ok = (b->matmul[k.ways[i]] = dev_kernel(b->modules[1 + i], "roofline_matmul",
                                                (size_t)matmul_kernels[k.ways[i]].shared, e)) != NULL;
    free_kernels(&k);
    return ok && (b->read = dev_kernel(b->modules[0], "roofline_read", 0, e)) &&
           (b->fill = dev_kernel(b->modules[0], "roofline_fill", 0, e));
}

static bool allocate(Bench *b, DevError *e) {
    int64_t available = 0, total = 0;
    if (!dev_memory(b->d, &available, &total, e))
        return false;
    int64_t bytes = available / 2 < b->effort->largest ? available / 2 : b->effort->largest;
    int64_t least = b->d->info.l2_bytes * TIMES_L2 > SMALLEST ? b->d->info.l2_bytes * TIMES_L2 : SMALLEST;
    if (bytes < least)
        bytes = least;
    bytes -= bytes % BYTES_OF_TILE;
    b->quads = (uint64_t)bytes / 16;
    if (!dev_alloc(b->d, (size_t)bytes, "the buffer that is read to measure the memory", NULL, &b->data, e) ||
        !dev_alloc(b->d, 4, "a result", NULL, &b->sink, e) || !(b->stream = dev_stream_new(b->d, e)))
        return false;
    for (int i = 0; i <= MOST_PASSES; i++)
        if (!(b->event[i] = dev_event_new(b->d, true, e)))
            return false;
    return true;
}

/* ==== Passes ==== */

static bool fill(Bench *b, uint64_t quads, uint32_t mask, uint32_t bits, DevError *e) {
    void *arguments[] = {&b->data, &quads, &mask, &bits};
    DevLaunch l = {.kernel = b->fill, .block = {THREADS}, .arguments = arguments};
    l.grid[0] = (uint32_t)(b->d->info.multiprocessors * BLOCKS_PER_MULTIPROCESSOR);
    return dev_launch(b->stream, &l, e);
}

/* Launches it `passes` times with events in between, and waits. */
static bool run_passes(Bench *b, const DevLaunch *l, int passes, DevError *e) {
    for (int i = 0; i < passes; i++)
        if (!dev_event_record(b->event[i], b->stream, e) || !dev_launch(b->stream, l, e))
            return false;
    return dev_event_record(b->event[passes], b->stream, e) && dev_stream_wait(b->stream, e);
}

static int ascending(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Of the passes that were run: the shortest and the median. */
static bool pass_times(const Bench *b, int passes, double *best, double *median, DevError *e) {
    double seconds[MOST_PASSES];
    for (int i = 0; i < passes; i++) {
        if (!dev_event_seconds(b->event[i], b->event[i + 1], &seconds[i], e))
            return false;
        if (!(seconds[i] > 0))
            return dev_fail(e, DEV_OTHER, "GPU %d: a pass over memory took no time", b->d->info.ordinal);
    }
    qsort(seconds, (size_t)passes, sizeof *seconds, ascending);
    *best = seconds[0];
    *median = seconds[passes / 2];
    return true;
}

static bool measure_read(Bench *b, Roofline *out, DevError *e) {
    void *arguments[] = {&b->data, &b->quads, &b->sink};
    DevLaunch l = {.kernel = b->read, .block = {THREADS}, .arguments = arguments};
    l.grid[0] = (uint32_t)(b->d->info.multiprocessors * BLOCKS_PER_MULTIPROCESSOR);
    double best = 0, median = 0;
    const int passes = b->effort->reads;
    if (!fill(b, b->quads, ~0u, 0, e) || !run_passes(b, &l, b->effort->reads_before, e) ||
        !run_passes(b, &l, passes, e) || !pass_times(b, passes, &best, &median, e))
        return false;
    out->bytes = (int64_t)b->quads * 16;
    out->passes = passes;
    out->read_gb_per_second = 1e-9 * (double)out->bytes / best;
    out->median_gb_per_second = 1e-9 * (double)out->bytes / median;
    return true;
}

/* ==== Multiplying ==== */

static double bf16_value(const uint8_t *p) {
    const uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float f;
    memcpy(&f, &bits, 4);
    return (double)f;
}

/* Element k of a row below 128. */
static double element(const uint8_t *pieces, int row, int k) {
    const int eighth = k % PIECE_COLUMNS / 8 ^ (row & 7);
    return bf16_value(pieces + k / PIECE_COLUMNS * PIECE_BYTES + row * 2 * PIECE_COLUMNS + eighth * 16 + k % 8 * 2);
}

/* The first 16 bytes of the result. */
static bool check_product(Bench *b, DevError *e) {
    static const int rows[8] = {0, 0, 8, 8, 0, 0, 8, 8}, columns[8] = {0, 1, 0, 1, 8, 9, 8, 9};
    const size_t bytes = (size_t)DEPTHS * PIECE_BYTES;
    uint8_t *x = malloc(bytes), *y = malloc(bytes), got[16];
    if (!x || !y)
        ICE("out of memory");
    bool ok = dev_copy_out(b->stream, x, b->data, bytes, e) &&
              dev_copy_out(b->stream, y, b->data + (DevPtr)OPERAND_BYTES, bytes, e) &&
              dev_copy_out(b->stream, got, b->data + 2 * (DevPtr)OPERAND_BYTES, sizeof got, e) &&
              dev_stream_wait(b->stream, e);
    for (int i = 0; i < 8 && ok; i++) {
        double want = 0;
        for (int k = 0; k < SIZE; k++)
            want += element(x, rows[i], k) * element(y, columns[i], k);
        if (!(fabs(bf16_value(got + 2 * i) - want) <= 0.01 * (fabs(want) + 1)))
            ok = dev_fail(e, DEV_OTHER, "GPU %d: the matmul that is measured gives %g in row %d, column %d, not %g",
                          b->d->info.ordinal, bf16_value(got + 2 * i), rows[i], columns[i], want);
    }
    free(x);
    free(y);
    return ok;
}

static bool measure_matmul(Bench *b, int way, Roofline *out, DevError *e) {
    const struct MatmulKernel *how = &matmul_kernels[way];
    int blocks = 0;
    if (!dev_kernel_blocks(b->matmul[way], how->threads, (size_t)how->shared, &blocks, e))
        return false;
    const int resident = blocks * b->d->info.multiprocessors;
    DevPtr x = b->data, y = x + (DevPtr)OPERAND_BYTES, result = y + (DevPtr)OPERAND_BYTES;
    int depths = DEPTHS, wide = SIZE / how->columns, tiles = ROW_BLOCKS * wide;
    if (resident > 0 && resident < tiles)
        tiles -= tiles % resident;
    void *arguments[] = {&x, &y, &result, &depths, &wide, &tiles};
    DevLaunch l = {.kernel = b->matmul[way],
                   .grid = {(uint32_t)resident},
                   .block = {(uint32_t)how->threads},
                   .shared_bytes = (uint32_t)how->shared,
                   .arguments = arguments};
    double best = 0, median = 0;
    const int before = b->effort->matmuls_before, least = b->effort->matmuls;
    const uint32_t sign_and_fraction = 0x81ff81ff, exponent = 0x3e003e00; /* bf16 of size 1/8 to 2 */
    if (!fill(b, (uint64_t)OPERAND_BYTES / 8, sign_and_fraction, exponent, e) || !run_passes(b, &l, 1, e) ||
        !check_product(b, e) || !run_passes(b, &l, before, e) || !pass_times(b, before, &best, &median, e))
        return false;
    const double wanted = b->effort->seconds / best;
    const int passes = wanted < least ? least : wanted > MOST_PASSES ? MOST_PASSES : (int)wanted;
    if (!run_passes(b, &l, passes, e) || !pass_times(b, passes, &best, &median, e))
        return false;
    out->flops = 2.0 * SIZE * PIECE_ROWS * how->columns * tiles;
    out->matmul_passes = passes;
    out->matmul_tflops = 1e-12 * out->flops / best;
    out->median_tflops = 1e-12 * out->flops / median;
    return true;
}

/* ==== Launching ==== */

/* Seconds from one to the next; of a few runs the best. */
static bool measure_launch(Bench *b, double *seconds, DevError *e) {
    enum { RUNS = 3 };
    uint64_t none = 0;
    uint32_t bits = 0;
    void *arguments[] = {&b->data, &none, &bits, &bits};
    DevLaunch l = {.kernel = b->fill, .block = {THREADS}, .arguments = arguments};
    l.grid[0] = (uint32_t)b->d->info.multiprocessors;
    *seconds = INFINITY;
    for (int run = 0; run < RUNS; run++) {
        double s = 0;
        bool ok = dev_launch(b->stream, &l, e) && dev_event_record(b->event[0], b->stream, e);
        for (int i = 0; i < LAUNCHES && ok; i++)
            ok = dev_launch(b->stream, &l, e);
        if (!ok || !dev_event_record(b->event[1], b->stream, e) || !dev_stream_wait(b->stream, e) ||
            !dev_event_seconds(b->event[0], b->event[1], &s, e))
            return false;
        *seconds = s / LAUNCHES < *seconds ? s / LAUNCHES : *seconds;
    }
    return true;
}

/* ==== All of it ==== */

static void free_bench(Bench *b) {
    for (int i = 0; i <= MOST_PASSES; i++)
        dev_event_free(b->event[i]);
    dev_stream_free(b->stream);
    dev_free(b->d, b->sink);
    dev_free(b->d, b->data);
    for (int i = 0; i < 1 + WAYS; i++)
        dev_module_free(b->modules[i]);
}

bool roofline_measure(Device *d, const Nvrtc *n, CubinCache *cache, Roofline *out, DevError *e) {
    Bench b = {.d = d, .effort = &thorough};
    *out = (Roofline){0};
    bool ok = load_kernels(&b, n, cache, false, e) && allocate(&b, e) && measure_read(&b, out, e) &&
              measure_matmul(&b, b.matmul[WGMMA] ? WGMMA : MMA, out, e);
    free_bench(&b);
    return ok;
}

void roofline_rates_compile(const char *arch, const Nvrtc *n, CubinCache *cache) {
    Kernels k;
    DevError e;
    compile_kernels(arch, n, cache, true, &k, &e);
    free_kernels(&k);
}

/* Multiplies first: then clocks have risen. */
bool roofline_rates(Device *d, const Nvrtc *n, CubinCache *cache, DeviceRates *out, DevError *e) {
    Bench b = {.d = d, .effort = &quick};
    Roofline of[WAYS] = {{0}}, read = {0};
    double launch = 0;
    bool ok = load_kernels(&b, n, cache, true, e) && allocate(&b, e);
    for (int way = 0; way < WAYS && ok; way++)
        ok = !b.matmul[way] || measure_matmul(&b, way, &of[way], e);
    ok = ok && measure_read(&b, &read, e) && measure_launch(&b, &launch, e);
    free_bench(&b);
    if (!ok)
        return false;
    *out = (DeviceRates){.of = "measured",
                         .multiprocessors = d->info.multiprocessors,
                         .bytes = (int64_t)(1e9 * read.read_gb_per_second),
                         .mma = (int64_t)(1e12 * of[MMA].matmul_tflops),
                         .wgmma = (int64_t)(1e12 * of[WGMMA].matmul_tflops),
                         .launch_ns = (int64_t)ceil(1e9 * launch)};
    const char *problem = rates_problem(out);
    return !problem || dev_fail(e, DEV_OTHER, "GPU %d: its rates make no sense: %s", d->info.ordinal, problem);
}
