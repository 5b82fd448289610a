/* test_device_gpu.c - the device layer on a real GPU: one line a test, exit code 0 when all passed, 77 without a GPU.
 *   test_device_gpu [--nvrtc DIR] [--fault]
 * --fault is how the program calls itself: a kernel that faults takes the whole process with it.
 */
#define _GNU_SOURCE
#include "runtime/device/roofline.h"
#include "runtime/device/upload.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char kernels[] =
    "typedef unsigned int u32;\n"
    "typedef unsigned long long u64;\n"
    "__device__ static inline void wait_for_producer() {\n"
    "#if __CUDA_ARCH__ >= 900\n"
    "    asm volatile(\"griddepcontrol.wait;\" ::: \"memory\");\n"
    "#endif\n"
    "}\n"
    "__device__ static inline void let_next_start() {\n"
    "#if __CUDA_ARCH__ >= 900\n"
    "    asm volatile(\"griddepcontrol.launch_dependents;\" ::: \"memory\");\n"
    "#endif\n"
    "}\n"
    "extern \"C\" __global__ void affine(const u32 *x, u32 *y, u32 a, u32 b, int n) {\n"
    "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
    "    if (i < n) y[i] = a * x[i] + b;\n"
    "}\n"
    "extern \"C\" __global__ void chain(const u32 *from, u32 *to, u32 step, int n) {\n"
    "    let_next_start();\n"
    "    wait_for_producer();\n"
    "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
    "    if (i < n) to[i] = from[(i + 7919) % n] * 1664525u + step;\n"
    "}\n"
    "extern \"C\" __global__ void invert(u32 *x, u64 n) {\n"
    "    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) x[i] = "
    "~x[i];\n"
    "}\n"
    "extern \"C\" __global__ void reverse(u32 *x, int n) {\n"
    "    extern __shared__ u32 copy[];\n"
    "    for (int i = threadIdx.x; i < n; i += blockDim.x) copy[i] = x[i];\n"
    "    __syncthreads();\n"
    "    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = copy[n - 1 - i];\n"
    "}\n"
    "extern \"C\" __global__ void spin(u64 nanoseconds) {\n"
    "    u64 start, now;\n"
    "    asm volatile(\"mov.u64 %0, %globaltimer;\" : \"=l\"(start));\n"
    "    do asm volatile(\"mov.u64 %0, %globaltimer;\" : \"=l\"(now)); while (now - start < nanoseconds);\n"
    "}\n"
    "extern \"C\" __global__ void cluster_size(u32 *out) {\n"
    "#if __CUDA_ARCH__ >= 900\n"
    "    u32 n;\n"
    "    asm volatile(\"mov.u32 %0, %cluster_nctaid.x;\" : \"=r\"(n));\n"
    "    if (threadIdx.x == 0) out[blockIdx.x] = n;\n"
    "#endif\n"
    "}\n"
    "extern \"C\" __global__ void wild_store(u32 *p) { p[(u64)threadIdx.x << 40] = 1; }\n";

enum { N = 1000003, CHAIN = 200, BLOCK = 256 };

typedef struct Bed {
    Device *d;
    Nvrtc *nvrtc;
    DevModule *m;
    DevStream *s;
    DevError e;
    uint64_t seed;
    char detail[600];
} Bed;

static uint64_t next_random(Bed *b) {
    b->seed ^= b->seed << 13;
    b->seed ^= b->seed >> 7;
    b->seed ^= b->seed << 17;
    return b->seed;
}

static void fill_random(Bed *b, void *p, size_t bytes) {
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t r = next_random(b);
        memcpy((char *)p + i, &r, 8);
    }
}

__attribute__((format(printf, 2, 3))) static bool say(Bed *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(b->detail, sizeof b->detail, fmt, ap);
    va_end(ap);
    return true;
}

/* For failures that have no DevError. */
static bool wrong(Bed *b, const char *what) {
    return dev_fail(&b->e, DEV_OTHER, "%s", what);
}

static DevKernel *kernel(Bed *b, const char *name) {
    return dev_kernel(b->m, name, 0, &b->e);
}

static uint32_t blocks(int64_t n) {
    return (uint32_t)((n + BLOCK - 1) / BLOCK);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Device memory with random contents, and the contents. */
static bool random_buffer(Bed *b, size_t bytes, DevPtr *p, uint32_t **host) {
    *host = malloc(bytes);
    fill_random(b, *host, bytes);
    return dev_alloc(b->d, bytes, "a buffer", NULL, p, &b->e) && dev_copy_in(b->s, *p, *host, bytes, &b->e) &&
           dev_stream_wait(b->s, &b->e);
}

static uint32_t *fetch(Bed *b, DevPtr p, size_t bytes) {
    uint32_t *out = calloc(1, bytes);
    if (dev_copy_out(b->s, out, p, bytes, &b->e) && dev_stream_wait(b->s, &b->e))
        return out;
    free(out);
    return NULL;
}

/* ==== Tests: true, or false with b->e ==== */

static bool test_compile(Bed *b) {
    static const char *const verbose[] = {"--ptxas-options=-v"};
    Program p = {.name = "test_device_gpu.cu", .source = kernels, .options = verbose, .n_options = 1};
    Compiled out;
    bool ok = nvrtc_compile(b->nvrtc, &p, dev_info(b->d)->arch, NULL, &out);
    double start = now();
    if (ok)
        b->m = dev_module_load(b->d, out.cubin, out.bytes, p.name, &b->e);
    else
        b->e = out.error;
    say(b, "%.0f ms, cubin %zu bytes, loaded in %.2f ms", 1e3 * out.seconds, out.bytes, 1e3 * (now() - start));
    compiled_free(&out);
    return b->m;
}

static bool test_memory(Bed *b) {
    const size_t bytes = (size_t)64 << 20;
    DevPtr p = 0, q = 0;
    uint32_t *host = NULL, *back = NULL;
    int64_t before = 0, during = 0, total = 0;
    bool ok = dev_memory(b->d, &before, &total, &b->e) && random_buffer(b, bytes, &p, &host) &&
              dev_alloc(b->d, bytes, "a copy", NULL, &q, &b->e) && dev_memory(b->d, &during, &total, &b->e) &&
              dev_fill(b->s, q, 0x5a, bytes, &b->e) && dev_copy(b->s, q, p, bytes - 4096, &b->e) &&
              (back = fetch(b, q, bytes));
    if (ok && memcmp(host, back, bytes - 4096) != 0)
        ok = wrong(b, "what came back differs");
    for (size_t i = (bytes - 4096) / 4; ok && i < bytes / 4; i++)
        if (back[i] != 0x5a5a5a5a)
            ok = wrong(b, "the fill did not stay");
    if (ok && before - during < (int64_t)(2 * bytes))
        ok = wrong(b, "free memory did not shrink");
    say(b, "%.1f of %.1f GiB free", (double)before / (1 << 30), (double)total / (1 << 30));
    dev_free(b->d, p);
    dev_free(b->d, q);
    free(host);
    free(back);
    return ok;
}

static bool test_out_of_memory(Bed *b) {
    DevPtr p;
    int64_t available, total;
    if (!dev_memory(b->d, &available, &total, &b->e))
        return false;
    if (dev_alloc(b->d, (size_t)total * 2, "the weights", "Use a smaller model.", &p, &b->e))
        return wrong(b, "twice the memory was given out");
    if (b->e.kind != DEV_MEMORY || !strstr(b->e.text, "out of device memory: the weights: needed ") ||
        !strstr(b->e.text, "\nUse a smaller model."))
        return false;
    say(b, "%.*s", (int)strcspn(b->e.text, "\n"), b->e.text);
    return dev_alloc(b->d, 1 << 20, "a little", NULL, &p, &b->e) && (dev_free(b->d, p), true); /* it goes on */
}

static bool test_launch(Bed *b) {
    DevPtr x = 0, y = 0;
    uint32_t *host = NULL, *got = NULL, a = 2654435761u, c = (uint32_t)next_random(b);
    int n = N;
    void *arguments[] = {&x, &y, &a, &c, &n};
    DevLaunch l = {.kernel = kernel(b, "affine"), .grid = {blocks(N)}, .block = {BLOCK}, .arguments = arguments};
    bool ok = l.kernel && random_buffer(b, N * 4 + 4, &x, &host) && dev_alloc(b->d, N * 4, "y", NULL, &y, &b->e) &&
              dev_fill(b->s, y, 0xff, N * 4, &b->e) && dev_launch(b->s, &l, &b->e) && (got = fetch(b, y, N * 4));
    for (int i = 0; ok && i < N; i++)
        if (got[i] != a * host[i] + c)
            ok = wrong(b, "affine computes something else");
    int resident = 0;
    if (ok && dev_kernel_blocks(l.kernel, BLOCK, 0, &resident, &b->e)) {
        const DevKernelInfo *k = dev_kernel_info(l.kernel);
        say(b, "%d registers, %d bytes local, %d blocks a multiprocessor", k->registers, k->local_bytes, resident);
        ok = k->registers > 0 && resident > 0 ? ok : wrong(b, "no registers, no blocks");
    }
    l.block[0] = 4096;
    if (ok && dev_launch(b->s, &l, &b->e))
        ok = wrong(b, "a block of 4096 threads was launched");
    if (ok && !strstr(b->e.text, "launch of kernel affine"))
        ok = false;
    dev_free(b->d, x);
    dev_free(b->d, y);
    free(host);
    free(got);
    return ok;
}

static bool test_shared(Bed *b) {
    size_t most = (size_t)dev_info(b->d)->shared_per_block;
    int n = (int)(most / 4);
    DevPtr x = 0;
    uint32_t *host = NULL, *got = NULL;
    void *arguments[] = {&x, &n};
    DevLaunch l = {.kernel = dev_kernel(b->m, "reverse", most, &b->e),
                   .grid = {1},
                   .block = {1024},
                   .shared_bytes = (uint32_t)most,
                   .arguments = arguments};
    bool ok = l.kernel && random_buffer(b, most, &x, &host) && dev_launch(b->s, &l, &b->e) && (got = fetch(b, x, most));
    for (int i = 0; ok && i < n; i++)
        if (got[i] != host[n - 1 - i])
            ok = wrong(b, "reverse computes something else");
    if (ok && dev_kernel(b->m, "reverse", most + 1, &b->e))
        ok = wrong(b, "more shared memory was promised than there is");
    if (ok)
        say(b, "%.*s", 500, b->e.text);
    dev_free(b->d, x);
    free(host);
    free(got);
    return ok;
}

static bool test_clusters(Bed *b) {
    if (dev_info(b->d)->sm < 90)
        return say(b, "none before sm_90");
    DevPtr out = 0;
    uint32_t *got = NULL;
    void *arguments[] = {&out};
    DevLaunch l = {
        .kernel = kernel(b, "cluster_size"), .grid = {8}, .cluster = {4}, .block = {32}, .arguments = arguments};
    bool ok = l.kernel && dev_alloc(b->d, 32, "sizes", NULL, &out, &b->e) && dev_launch(b->s, &l, &b->e) &&
              (got = fetch(b, out, 32));
    for (int i = 0; ok && i < 8; i++)
        ok = got[i] == 4 ? ok : wrong(b, "a cluster has not 4 blocks");
    dev_free(b->d, out);
    free(got);
    return ok;
}

/* Many blocks beyond what is resident: refused, with the reason. */
static bool test_cooperative(Bed *b) {
    DevPtr x = 0;
    uint64_t n = 4;
    void *arguments[] = {&x, &n};
    DevLaunch l = {
        .kernel = kernel(b, "invert"), .grid = {1}, .block = {BLOCK}, .cooperative = true, .arguments = arguments};
    bool ok = l.kernel && dev_alloc(b->d, 16, "x", NULL, &x, &b->e) && dev_launch(b->s, &l, &b->e) &&
              dev_stream_wait(b->s, &b->e);
    l.grid[0] = 1 << 20;
    if (ok && dev_launch(b->s, &l, &b->e))
        ok = wrong(b, "a million blocks at once");
    if (ok)
        say(b, "%.*s", 500, b->e.text);
    dev_free(b->d, x);
    return ok;
}

/* ==== A chain of dependent kernels: stream, PDL, graph ==== */

typedef struct Chain {
    DevPtr buffer[2];
    uint32_t step[CHAIN];
    int n;
    void *arguments[CHAIN][4];
    DevLaunch launch[CHAIN];
} Chain;

static bool chain_new(Bed *b, Chain *c, int n) {
    *c = (Chain){.n = n};
    DevKernel *k = kernel(b, "chain");
    for (int i = 0; i < 2; i++)
        if (!k || !dev_alloc(b->d, (size_t)n * 4, "a chain", NULL, &c->buffer[i], &b->e))
            return false;
    for (int i = 0; i < CHAIN; i++) {
        c->step[i] = (uint32_t)next_random(b);
        c->arguments[i][0] = &c->buffer[i % 2];
        c->arguments[i][1] = &c->buffer[(i + 1) % 2];
        c->arguments[i][2] = &c->step[i];
        c->arguments[i][3] = &c->n;
        c->launch[i] = (DevLaunch){.kernel = k, .grid = {blocks(n)}, .block = {BLOCK}, .arguments = c->arguments[i]};
    }
    return true;
}

static void chain_free(Bed *b, Chain *c) {
    dev_free(b->d, c->buffer[0]);
    dev_free(b->d, c->buffer[1]);
}

static void chain_on_host(const Chain *c, uint32_t *x, int rounds) {
    uint32_t *y = malloc((size_t)c->n * 4);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < CHAIN; i++) {
            for (int j = 0; j < c->n; j++)
                y[j] = x[(j + 7919) % c->n] * 1664525u + c->step[i];
            memcpy(x, y, (size_t)c->n * 4);
        }
    free(y);
}

/* Runs the chain `rounds` times; graph NULL: launch by launch. Microseconds a kernel. */
static bool chain_run(Bed *b, Chain *c, DevGraph *graph, int rounds, double *micros) {
    DevEvent *from = dev_event_new(b->d, true, &b->e), *to = dev_event_new(b->d, true, &b->e);
    double seconds = 0;
    bool ok = from && to && dev_event_record(from, b->s, &b->e);
    for (int r = 0; ok && r < rounds; r++) {
        if (graph)
            ok = dev_graph_launch(graph, b->s, &b->e);
        for (int i = 0; ok && !graph && i < CHAIN; i++)
            ok = dev_launch(b->s, &c->launch[i], &b->e);
    }
    ok = ok && dev_event_record(to, b->s, &b->e) && dev_event_wait(to, &b->e) &&
         dev_event_seconds(from, to, &seconds, &b->e) && dev_stream_wait(b->s, &b->e);
    *micros = 1e6 * seconds / (rounds * CHAIN);
    dev_event_free(from);
    dev_event_free(to);
    return ok;
}

static bool test_chains(Bed *b) {
    enum { WIDE = 40000, ROUNDS = 5 };
    Chain c;
    uint32_t *start = malloc(WIDE * 4), *expected = malloc(WIDE * 4);
    double micros[4] = {0}; /* stream, stream with PDL, graph, graph with PDL */
    fill_random(b, start, WIDE * 4);
    memcpy(expected, start, WIDE * 4);
    bool ok = chain_new(b, &c, WIDE);
    if (ok)
        chain_on_host(&c, expected, ROUNDS);
    for (int kind = 0; ok && kind < 4; kind++) {
        for (int i = 0; i < CHAIN; i++)
            c.launch[i].pdl = kind % 2 == 1;
        DevGraph *g = kind >= 2 ? dev_graph_new(b->s, c.launch, CHAIN, "chain", &b->e) : NULL;
        uint32_t *got = NULL;
        ok = (kind < 2 || (g && dev_graph_kernels(g) == CHAIN)) && chain_run(b, &c, g, ROUNDS, &micros[kind]) &&
             dev_copy_in(b->s, c.buffer[0], start, WIDE * 4, &b->e) && chain_run(b, &c, g, ROUNDS, &micros[kind]) &&
             (got = fetch(b, c.buffer[0], WIDE * 4));
        if (ok && memcmp(got, expected, WIDE * 4) != 0)
            ok = wrong(b, (const char *[]){"launched one by one: wrong result", "with PDL: wrong result",
                                           "as a graph: wrong result", "as a graph with PDL: wrong result"}[kind]);
        free(got);
        dev_graph_free(g);
    }
    say(b, "us a kernel: stream %.2f, with PDL %.2f, graph %.2f, with PDL %.2f", micros[0], micros[1], micros[2],
        micros[3]);
    chain_free(b, &c);
    free(start);
    free(expected);
    return ok;
}

/* ==== Uploads ==== */

typedef struct Inverter {
    Bed *b;
    const UploadItem *items;
    int called;
    DevKernel *k;
} Inverter;

static bool invert_item(void *user, int item, DevStream *s, DevError *e) {
    Inverter *v = user;
    DevPtr to = v->items[item].to;
    uint64_t n = v->items[item].bytes / 4;
    void *arguments[] = {&to, &n};
    DevLaunch l = {.kernel = v->k, .grid = {64}, .block = {BLOCK}, .arguments = arguments};
    v->called++;
    return n == 0 || dev_launch(s, &l, e);
}

static bool test_upload(Bed *b) {
    enum { ITEMS = 300 };
    const size_t total = (size_t)2 << 30;
    UploadItem items[ITEMS];
    uint8_t *host = malloc(total), *back = NULL;
    DevPtr device = 0;
    if (!host || !dev_alloc(b->d, total, "weights", NULL, &device, &b->e)) {
        free(host);
        return false;
    }
    fill_random(b, host, total);
    size_t at = 0;
    for (int i = 0; i < ITEMS; i++) { /* of all sizes, multiples of 4 */
        size_t left = total - at, most = (size_t)1 << (2 + next_random(b) % 25);
        items[i] = (UploadItem){device + at, host + at, i == ITEMS - 1 || most > left ? left : most};
        at += items[i].bytes;
    }
    double best = 0;
    bool ok = true;
    UploadResult r;
    for (int i = 0; ok && i < 3; i++) {
        ok = upload_run(b->d, items, ITEMS, NULL, &r, &b->e);
        best = r.gb_per_second > best ? r.gb_per_second : best;
    }
    back = ok ? (uint8_t *)fetch(b, device, total) : NULL;
    if (ok && (!back || memcmp(host, back, total) != 0))
        ok = back ? wrong(b, "what was uploaded differs") : false;
    free(back);
    back = NULL;
    Inverter v = {.b = b, .items = items, .k = kernel(b, "invert")};
    UploadOptions o = {.buffers = 3, .buffer_bytes = 5 << 20, .threads = 5, .item_enqueued = invert_item, .user = &v};
    ok = ok && v.k && upload_run(b->d, items, ITEMS, &o, &r, &b->e) && (back = (uint8_t *)fetch(b, device, total));
    for (size_t i = 0; ok && i < total; i += 8)
        if (*(uint64_t *)(back + i) != ~*(uint64_t *)(host + i))
            ok = wrong(b, "a kernel of the callback did not find its item whole");
    say(b, "%.1f GB/s best of 3, 2 GiB in %d items; with a kernel for each item %.1f", best, ITEMS, r.gb_per_second);
    free(host);
    free(back);
    dev_free(b->d, device);
    return ok && (v.called > 0 || wrong(b, "the callback was not called"));
}

/* ==== Time, threads, roofline, faults ==== */

static bool test_timing(Bed *b) {
    uint64_t nanoseconds = 20000000;
    void *arguments[] = {&nanoseconds};
    DevLaunch l = {.kernel = kernel(b, "spin"), .grid = {1}, .block = {1}, .arguments = arguments};
    DevEvent *from = dev_event_new(b->d, true, &b->e), *to = dev_event_new(b->d, true, &b->e);
    double seconds = 0;
    bool done = true, later = false;
    bool ok = l.kernel && from && to && dev_event_record(from, b->s, &b->e) && dev_launch(b->s, &l, &b->e) &&
              dev_event_record(to, b->s, &b->e) && dev_event_done(to, &done, &b->e) && dev_event_wait(to, &b->e) &&
              dev_event_done(to, &later, &b->e) && dev_event_seconds(from, to, &seconds, &b->e);
    if (ok && (done || !later))
        ok = wrong(b, "an event has passed too early or not at all");
    if (ok && !(seconds > 0.019 && seconds < 0.05))
        ok = wrong(b, "20 ms take another time");
    say(b, "20 ms of spinning measured as %.3f ms", 1e3 * seconds);
    dev_event_free(from);
    dev_event_free(to);
    return ok;
}

typedef struct Job {
    Bed bed;
    bool ok;
} Job;

static void *thread_job(void *arg) {
    Job *j = arg;
    j->bed.s = dev_stream_new(j->bed.d, &j->bed.e);
    j->ok = j->bed.s != NULL;
    for (int i = 0; j->ok && i < 5; i++)
        j->ok = test_launch(&j->bed);
    dev_stream_free(j->bed.s);
    return NULL;
}

static bool test_threads(Bed *b) {
    Job jobs[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = (Job){.bed = *b};
        jobs[i].bed.seed = next_random(b);
        jobs[i].bed.m = NULL;
        Program p = {.name = "test_device_gpu.cu", .source = kernels};
        Compiled out;
        if (nvrtc_compile(b->nvrtc, &p, dev_info(b->d)->arch, NULL, &out))
            jobs[i].bed.m = dev_module_load(b->d, out.cubin, out.bytes, p.name, &b->e);
        compiled_free(&out);
        if (!jobs[i].bed.m)
            return false;
    }
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, thread_job, &jobs[i]);
    bool ok = true;
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        if (!jobs[i].ok)
            b->e = jobs[i].bed.e;
        ok = ok && jobs[i].ok;
        dev_module_free(jobs[i].bed.m);
    }
    return ok;
}

static bool test_roofline(Bed *b) {
    Roofline r;
    bool ok = roofline_measure(b->d, b->nvrtc, NULL, &r, &b->e);
    if (ok && !(r.median_gb_per_second > 50 && r.read_gb_per_second < 20000))
        ok = wrong(b, "no read rate that a GPU has");
    if (ok && !(r.median_tflops > 1 && r.matmul_tflops < 10000))
        ok = wrong(b, "no matmul rate that a GPU has");
    say(b, "reads %.0f GB/s (median %.0f) over %.1f GiB, multiplies %.0f TFLOP/s (median of %d: %.0f)",
        r.read_gb_per_second, r.median_gb_per_second, (double)r.bytes / (1 << 30), r.matmul_tflops, r.matmul_passes,
        r.median_tflops);
    return ok;
}

/* Measured quickly they are near what is measured thoroughly. */
static bool test_rates(Bed *b) {
    Roofline roof;
    DeviceRates r;
    const double start = now();
    bool ok = roofline_rates(b->d, b->nvrtc, NULL, &r, &b->e);
    const double took = now() - start;
    ok = ok && roofline_measure(b->d, b->nvrtc, NULL, &roof, &b->e);
    const double read = ok ? 1e-9 * (double)r.bytes / roof.read_gb_per_second : 0,
                 matmul = ok ? 1e-12 * (double)rates_matmul(&r) / roof.matmul_tflops : 0;
    if (ok && !(read > 0.9 && read < 1.1 && matmul > 0.85 && matmul < 1.15))
        ok = wrong(b, "quickly measured rates are others");
    if (ok && (r.multiprocessors != dev_info(b->d)->multiprocessors || r.launch_ns > 100000))
        ok = wrong(b, "no multiprocessors or launches that a GPU has");
    if (ok)
        say(b,
            "in %.2f s with compiling: reads %.3f of the above, multiplies %.3f (%.0f TFLOP/s by mma.sync), a launch "
            "%lld ns",
            took, read, matmul, 1e-12 * (double)r.mma, (long long)r.launch_ns);
    return ok;
}

/* In the process that is lost. Prints what is said. */
static int fault(Bed *b) {
    if (!test_compile(b))
        return 1;
    DevPtr p = 0, q;
    void *arguments[] = {&p};
    DevLaunch l = {.kernel = kernel(b, "wild_store"), .grid = {1}, .block = {64}, .arguments = arguments};
    if (!l.kernel || !dev_alloc(b->d, 4, "a cell", NULL, &p, &b->e) || !dev_launch(b->s, &l, &b->e))
        return 1;
    if (dev_stream_wait(b->s, &b->e) || b->e.kind != DEV_FAULT)
        return 1;
    printf("%s\n", b->e.text);
    if (dev_alloc(b->d, 4, "more", NULL, &q, &b->e) || !strstr(b->e.text, "wild_store"))
        return 1;
    return 0;
}

static char self[4096], nvrtc_dir[4096];

static bool test_fault(Bed *b) {
    char command[9000], text[1000] = "";
    snprintf(command, sizeof command, "'%s' --fault %s%s", self, *nvrtc_dir ? "--nvrtc " : "", nvrtc_dir);
    FILE *f = popen(command, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = 0;
    text[strcspn(text, "\n")] = 0;
    int status = f ? pclose(f) : -1;
    say(b, "%.500s", text);
    if (status != 0 || !strstr(text, "in kernel wild_store"))
        return dev_fail(&b->e, DEV_OTHER, "exit code %d: %s", status, text);
    return true;
}

static const struct {
    const char *name;
    bool (*run)(Bed *);
} tests[] = {
    {"compile", test_compile},
    {"memory", test_memory},
    {"out of memory", test_out_of_memory},
    {"launch", test_launch},
    {"shared memory", test_shared},
    {"clusters", test_clusters},
    {"timing", test_timing},
    {"cooperative", test_cooperative},
    {"chains", test_chains},
    {"upload", test_upload},
    {"threads", test_threads},
    {"fault", test_fault},
    {"roofline", test_roofline},
    {"rates", test_rates},
};

static int run_all(Bed *b) {
    int failed = 0, n = (int)(sizeof tests / sizeof tests[0]);
    for (int i = 0; i < n; i++) {
        b->e = (DevError){0};
        b->detail[0] = 0;
        double start = now();
        bool ok = tests[i].run(b);
        printf("%-14s %-6s %5.2f s  %s\n", tests[i].name, ok ? "ok" : "FAILED", now() - start, b->detail);
        if (!ok)
            printf("    %s\n", b->e.text);
        fflush(stdout);
        failed += !ok;
        if (i == 0 && !ok)
            break;
    }
    printf("%d of %d tests passed\n", n - failed, n);
    return failed ? 1 : 0;
}

int main(int argc, char **argv) {
    Bed b = {.seed = (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid()};
    bool faulty = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--fault") == 0)
            faulty = true;
        else if (strcmp(argv[i], "--nvrtc") == 0 && i + 1 < argc)
            snprintf(nvrtc_dir, sizeof nvrtc_dir, "%s", argv[++i]);
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    double start = now();
    b.d = dev_open(NULL, &b.e);
    if (!b.d) {
        printf("skipped: %s\n", b.e.text);
        return b.e.kind == DEV_ABSENT ? 77 : 1;
    }
    const DevInfo *info = dev_info(b.d);
    b.nvrtc = nvrtc_open(*nvrtc_dir ? nvrtc_dir : NULL, &b.e);
    b.s = b.nvrtc ? dev_stream_new(b.d, &b.e) : NULL;
    if (!b.s) {
        printf("%s\n", b.e.text);
        return 1;
    }
    if (faulty)
        return fault(&b);
    printf("%s, %s, %d multiprocessors, %lld KiB shared, L2 %lld MiB, CUDA %d.%d, NVRTC %d.%d; opened in %.2f s; "
           "seed %llu\n",
           info->name, info->arch, info->multiprocessors, (long long)info->shared_per_block >> 10,
           (long long)info->l2_bytes >> 20, info->driver_cuda / 1000, info->driver_cuda % 1000 / 10,
           nvrtc_info(b.nvrtc)->major, nvrtc_info(b.nvrtc)->minor, now() - start, (unsigned long long)b.seed);
    int code = run_all(&b);
    dev_module_free(b.m);
    dev_stream_free(b.s);
    nvrtc_close(b.nvrtc);
    dev_close(b.d);
    return code;
}
