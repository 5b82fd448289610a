/* emulated_test.c - the emulated GPU through the device layer: blocks that wait for each other, a warp's operations,
 * graphs, lazy streams; and what it catches: reads of what is not there yet, faults, deadlocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ir/base.h"
#include "runtime/device/compile.h"
#include "runtime/device/device.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 4, THREADS = 64, ROWS = 16, COLUMNS = 8 };

/* prelude.cu would stand before it; the emulated NVRTC brings its functions either way. */
static const char kernels[] =
    "#line 1 \"kernels.cu\"\n"
    "#define NAME(x) kernel_##x\n"
    "DYNAMIC_SHARED u8 shared_bytes[];\n"
    /* out[block] = sum over blocks of (what block b wrote) + calls; each block has to wait for all others. */
    "KERNEL __launch_bounds__(64, 2)\n"
    "NAME(together)(int *counter, int *values, int *out, const int *calls) {\n"
    "    SHARED int seen;\n"
    "    next_kernel_release();\n"
    "    previous_kernels_wait();\n"
    "    if (threadIdx.x == 0) {\n"
    "        seen = blockIdx.x + 1;\n"
    "        values[blockIdx.x] = 10 * seen + *calls;\n"
    "        counter_raise(counter, 1);\n"
    "        while (counter_read(counter) < (int)gridDim.x * (*calls + 1))\n"
    "            counter_pause();\n"
    "    }\n"
    "    block_sync();\n"
    "    int sum = 0;\n"
    "    for (int b = 0; b < (int)gridDim.x; b++)\n"
    "        sum += values[b];\n"
    "    if (threadIdx.x == 63)\n"
    "        out[blockIdx.x] = sum * 100 + seen;\n"
    "}\n"
    "KERNEL count(int *calls) { *calls += 1; }\n"
    /* c[16 x 8] = a[16 x 16] b[16 x 8] of whole numbers, through shared memory, copies and matrices */
    "KERNEL __launch_bounds__(32) product(const u16 *a, const u16 *b, float *c) {\n"
    "    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;\n"
    "    copy16_async(shared_bytes + 16 * lane, (const u8 *)a + 16 * lane, true);\n"
    "    if (lane < 16)\n"
    "        copy16_async(shared_bytes + 512 + 16 * lane, (const u8 *)b + 16 * lane, true);\n"
    "    copies_close();\n"
    "    copies_wait<0>();\n"
    "    block_sync();\n"
    "    u32 x[4], y[4];\n"
    "    float sum[4] = {};\n"
    "    load_matrices(x, shared_bytes + (lane % 16) * 32 + lane / 16 * 16);\n"
    "    load_matrices_transposed(y, shared_bytes + 512 + (lane % 16) * 16);\n"
    "    mma(sum, x[0], x[1], x[2], x[3], y[0], y[1]);\n"
    "    for (int i = 0; i < 4; i++)\n"
    "        c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];\n"
    "}\n"
    /* chunks through barriers; early: without waiting */
    "KERNEL chunks(const u8 *from, u8 *to, int early) {\n"
    "    SHARED u64 bar[2];\n"
    "    if (threadIdx.x == 0)\n"
    "        for (int i = 0; i < 2; i++)\n"
    "            barrier_init(&bar[i], CHUNK_ARRIVALS);\n"
    "    barrier_publish();\n"
    "    block_sync();\n"
    "    if (threadIdx.x < 32)\n"
    "        for (int i = 0; i < 2; i++)\n"
    "            chunk_load(shared_bytes + 512 * i, from + 512 * i, 512, &bar[i], threadIdx.x);\n"
    "    for (int i = 0; i < 2; i++) {\n"
    "        if (!early)\n"
    "            barrier_wait(&bar[i], 0);\n"
    "        for (int j = threadIdx.x; j < 512; j += blockDim.x)\n"
    "            to[512 * i + j] = shared_bytes[512 * i + j];\n"
    "    }\n"
    "}\n"
    "KERNEL wild(int *p, u64 far) { p[far] = 1; }\n"
    "KERNEL stuck(int *counter) {\n"
    "    if (threadIdx.x == 0)\n"
    "        while (counter_read(counter) < 1000)\n"
    "            counter_pause();\n"
    "    block_sync();\n"
    "}\n"
    "KERNEL sums(float *out, const float *in) {\n"
    "    const float v = in[threadIdx.x];\n"
    "    out[threadIdx.x] = threadIdx.x < 32 ? warp_sum(v) : warp_max(v);\n"
    "    out[64 + threadIdx.x] = lane_from(v, 3) + lane_swap(v, 1);\n"
    "}\n";

typedef struct Bed {
    Device *d;
    DevStream *s;
    DevModule *m;
} Bed;

static void need(bool ok, const DevError *e) {
    if (!ok)
        fail_msg("%s", e->text);
}

static void close_bed(Bed *b) {
    dev_module_free(b->m);
    dev_stream_free(b->s);
    dev_close(b->d);
}

static Compiled compile(const char *source, const char *const *options, int n_options) {
    DevError e = {0};
    Nvrtc *n = nvrtc_open(EMULATED_NVRTC, &e);
    need(n, &e);
    Program p = {.name = "program.cu", .source = source, .options = options, .n_options = n_options};
    atomic_bool cancel = false;
    Compiled c;
    nvrtc_compile(n, &p, "sm_90a", &cancel, &c);
    nvrtc_close(n);
    return c;
}

static Bed open_bed(void) {
    static Compiled all; /* compiled once */
    DevError e = {0};
    Bed b = {0};
    b.d = dev_open(&(DevOptions){.driver = EMULATED_DRIVER}, &e);
    need(b.d, &e);
    b.s = dev_stream_new(b.d, &e);
    need(b.s, &e);
    if (!all.cubin)
        all = compile(kernels, NULL, 0);
    need(all.cubin, &all.error);
    b.m = dev_module_load(b.d, all.cubin, all.bytes, "kernels.cu", &e);
    need(b.m, &e);
    return b;
}

static DevPtr allocate(Bed *b, size_t bytes) {
    DevError e = {0};
    DevPtr p = 0;
    need(dev_alloc(b->d, bytes, "a buffer", NULL, &p, &e), &e);
    return p;
}

static DevPtr filled(Bed *b, const void *from, size_t bytes) {
    DevError e = {0};
    DevPtr p = allocate(b, bytes);
    need(dev_copy_in(b->s, p, from, bytes, &e), &e);
    return p;
}

static void fetch(Bed *b, void *to, DevPtr from, size_t bytes) {
    DevError e = {0};
    need(dev_copy_out(b->s, to, from, bytes, &e) && dev_stream_wait(b->s, &e), &e);
}

static DevLaunch launch(Bed *b, const char *name, uint32_t blocks, uint32_t threads, uint32_t shared,
                        void **arguments) {
    DevError e = {0};
    const DevKernel *k = dev_kernel(b->m, name, shared, &e);
    need(k, &e);
    return (DevLaunch){
        .kernel = k, .grid = {blocks}, .block = {threads}, .shared_bytes = shared, .arguments = arguments, .pdl = true};
}

static void run(Bed *b, const char *name, uint32_t blocks, uint32_t threads, uint32_t shared, void **arguments) {
    DevError e = {0};
    DevLaunch l = launch(b, name, blocks, threads, shared, arguments);
    need(dev_launch(b->s, &l, &e), &e);
}

/* ==== Tests ==== */

static void blocks_wait_in_a_graph(void **state) {
    (void)state;
    Bed b = open_bed();
    DevError e = {0};
    const int zero[2 + BLOCKS] = {0};
    DevPtr counter = filled(&b, zero, 4), calls = filled(&b, zero, 4);
    DevPtr values = allocate(&b, 4 * BLOCKS), out = allocate(&b, 4 * BLOCKS);
    void *together[] = {&counter, &values, &out, &calls}, *count[] = {&calls};
    DevLaunch launches[] = {launch(&b, "kernel_together", BLOCKS, THREADS, 0, together),
                            launch(&b, "count", 1, 1, 0, count)};
    assert_int_equal(dev_kernel_info(launches[0].kernel)->max_threads, 64);
    DevGraph *g = dev_graph_new(b.s, launches, COUNTOF(launches), "twice", &e);
    need(g, &e);
    assert_int_equal(dev_graph_kernels(g), 2);
    for (int round = 0; round < 2; round++) {
        int got[BLOCKS];
        need(dev_graph_launch(g, b.s, &e), &e);
        fetch(&b, got, out, sizeof got);
        for (int i = 0; i < BLOCKS; i++)
            assert_int_equal(got[i], (10 + 20 + 30 + 40 + BLOCKS * round) * 100 + i + 1);
    }
    dev_graph_free(g);
    for (size_t i = 0; i < 4; i++)
        dev_free(b.d, (DevPtr[]){counter, calls, values, out}[i]);
    close_bed(&b);
}

static uint16_t half_of(int n) { /* 0..15 */
    int exponent = 0;
    while (n >> (exponent + 1))
        exponent++;
    return n ? (uint16_t)((15 + exponent) << 10 | (n << (10 - exponent) & 0x3ff)) : 0;
}

static void matrices_multiply(void **state) {
    (void)state;
    Bed b = open_bed();
    uint16_t x[ROWS * 16], y[16 * COLUMNS];
    float c[ROWS * COLUMNS];
    for (int i = 0; i < ROWS * 16; i++)
        x[i] = half_of(i * 7 % 16);
    for (int i = 0; i < 16 * COLUMNS; i++)
        y[i] = half_of(i * 5 % 13);
    DevPtr dx = filled(&b, x, sizeof x), dy = filled(&b, y, sizeof y), dc = allocate(&b, sizeof c);
    run(&b, "product", 1, 32, 1024, (void *[]){&dx, &dy, &dc});
    fetch(&b, c, dc, sizeof c);
    for (int row = 0; row < ROWS; row++)
        for (int column = 0; column < COLUMNS; column++) {
            int sum = 0;
            for (int k = 0; k < 16; k++)
                sum += (row * 16 + k) * 7 % 16 * ((k * COLUMNS + column) * 5 % 13);
            assert_int_equal((int)c[row * COLUMNS + column], sum);
        }
    for (size_t i = 0; i < 3; i++)
        dev_free(b.d, (DevPtr[]){dx, dy, dc}[i]);
    close_bed(&b);
}

static void lanes_combine(void **state) {
    (void)state;
    Bed b = open_bed();
    float in[64], out[128];
    for (int i = 0; i < 64; i++)
        in[i] = (float)(i * 37 % 64);
    float sum = 0, most = 0;
    for (int i = 0; i < 32; i++) {
        sum += in[i];
        most = fmaxf(most, in[32 + i]);
    }
    DevPtr from = filled(&b, in, sizeof in), to = allocate(&b, sizeof out);
    run(&b, "sums", 1, 64, 0, (void *[]){&to, &from});
    fetch(&b, out, to, sizeof out);
    for (int i = 0; i < 64; i++) {
        assert_true(out[i] == (i < 32 ? sum : most));
        assert_true(out[64 + i] == in[i / 32 * 32 + 3] + in[i ^ 1]);
    }
    dev_free(b.d, from);
    dev_free(b.d, to);
    close_bed(&b);
}

/* A chunk that is read before its barrier was waited for is garbage, in whatever order chunks come. */
static void chunks_come_late(void **state) {
    (void)state;
    Bed b = open_bed();
    uint8_t in[1024], out[1024];
    for (int i = 0; i < 1024; i++)
        in[i] = (uint8_t)(i * 5 + i / 256);
    DevPtr from = filled(&b, in, sizeof in), to = allocate(&b, sizeof out);
    for (int early = 0; early < 2; early++) {
        run(&b, "chunks", 3, 64, 1024, (void *[]){&from, &to, &early});
        fetch(&b, out, to, sizeof out);
        assert_int_equal(memcmp(in, out, sizeof in) == 0, !early);
    }
    dev_free(b.d, from);
    dev_free(b.d, to);
    close_bed(&b);
}

/* What is enqueued has not run before something waits for it. */
static void streams_are_lazy(void **state) {
    (void)state;
    Bed b = open_bed();
    DevError e = {0};
    int *host = dev_host_alloc(b.d, 8, &e);
    need(host, &e);
    host[0] = 1;
    DevPtr p = allocate(&b, 4);
    DevEvent *event = dev_event_new(b.d, true, &e);
    need(event && dev_copy_in(b.s, p, &host[0], 4, &e) && dev_copy_out(b.s, &host[1], p, 4, &e), &e);
    host[0] = 2; /* too early */
    need(dev_event_record(event, b.s, &e), &e);
    bool done = true;
    assert_int_not_equal(host[1], 1);
    need(dev_event_done(event, &done, &e), &e);
    assert_false(done);
    need(dev_event_wait(event, &e), &e);
    assert_int_equal(host[1], 2);
    assert_false(dev_copy_in(b.s, p + 1, host, 4, &e)); /* beyond the allocation */
    dev_event_free(event);
    dev_free(b.d, p);
    dev_host_free(b.d, host);
    close_bed(&b);
}

/* A graph over two streams, and the order of streams outside of one. */
static void events_fork_and_join(void **state) {
    (void)state;
    Bed b = open_bed();
    DevError e = {0};
    DevStream *other = dev_stream_new(b.d, &e);
    DevEvent *fork = dev_event_new(b.d, false, &e), *join = dev_event_new(b.d, false, &e);
    need(other && fork && join, &e);
    DevPtr p = allocate(&b, 8);
    DevLaunch count = launch(&b, "count", 1, 1, 0, (void *[]){&p});
    need(dev_capture_begin(b.s, &e) && dev_fill(b.s, p, 0, 8, &e) && dev_event_record(fork, b.s, &e) &&
             dev_stream_after(other, fork, &e) && dev_launch(other, &count, &e) && dev_event_record(join, other, &e) &&
             dev_stream_after(b.s, join, &e) && dev_copy(b.s, p + 4, p, 4, &e) && dev_launch(b.s, &count, &e),
         &e);
    DevPtr none;
    assert_false(dev_alloc(b.d, 4, "while capturing", NULL, &none, &e));
    DevGraph *g = dev_capture_end(b.s, "fork", &e);
    need(g, &e);
    for (int round = 0; round < 2; round++) {
        int got[2];
        need(dev_graph_launch(g, b.s, &e) && dev_event_record(fork, b.s, &e) && dev_stream_after(other, fork, &e), &e);
        need(dev_copy_out(other, got, p, sizeof got, &e) && dev_stream_wait(other, &e), &e);
        assert_int_equal(got[0], 2);
        assert_int_equal(got[1], 1);
    }
    dev_graph_free(g);
    dev_event_free(fork);
    dev_event_free(join);
    dev_stream_free(other);
    dev_free(b.d, p);
    close_bed(&b);
}

static void errors_have_places(void **state) {
    (void)state;
    static const char *const options[] = {"-DBAD=undeclared", "--define-macro=LESS=1", "--fmad=false"};
    const char source[] = "KERNEL fine(int *p) { *p = LESS; }\n"
                          "#line 40 \"model.lap\"\n"
                          "KERNEL broken(int *p) {\n"
                          "    *p = BAD;\n"
                          "}\n";
    Compiled c = compile(source, options, COUNTOF(options));
    assert_int_equal(c.state, COMPILE_FAILED);
    if (!c.log || !strstr(c.log, "model.lap(41): error: ") || !strstr(c.log, "undeclared"))
        fail_msg("no place in:\n%s", c.log ? c.log : "(nothing)");
    compiled_free(&c);
    c = compile("int x\n#error this\n", NULL, 0);
    assert_non_null(strstr(c.log, "program.cu(2): error: "));
    compiled_free(&c);
}

/* Launches a kernel that fails; what is called after it fails, too, and names the kernel. */
static void expect_fault(Bed *b, const char *name, uint32_t blocks, uint32_t threads, void **arguments) {
    DevError e = {0};
    char part[40];
    run(b, name, blocks, threads, 0, arguments);
    assert_false(dev_stream_wait(b->s, &e));
    assert_int_equal(e.kind, DEV_FAULT);
    snprintf(part, sizeof part, "in kernel %s", name);
    assert_non_null(strstr(e.text, part));
    DevPtr p;
    assert_false(dev_alloc(b->d, 4, "more", NULL, &p, &e));
    close_bed(b);
}

static void wild_addresses_are_faults(void **state) {
    (void)state;
    Bed b = open_bed();
    DevPtr p = allocate(&b, 4096);
    uint64_t behind = 1024;
    expect_fault(&b, "wild", 1, 1, (void *[]){&p, &behind});
}

static void deadlocks_are_faults(void **state) {
    (void)state;
    Bed b = open_bed();
    const int zero = 0;
    DevPtr p = filled(&b, &zero, 4);
    expect_fault(&b, "stuck", 3, 64, (void *[]){&p});
}

/* On four multiprocessors of 228 KiB, blocks of 200 KiB each: the fifth does not start before one has ended. */
static void blocks_beyond_the_device_wait(void **state) {
    (void)state;
    Bed b = open_bed();
    const int zero = 0;
    DevPtr counter = filled(&b, &zero, 4), calls = filled(&b, &zero, 4);
    DevPtr values = allocate(&b, 20), out = allocate(&b, 20);
    DevError e = {0};
    DevLaunch l = launch(&b, "kernel_together", 5, 64, 200 << 10, (void *[]){&counter, &values, &out, &calls});
    need(dev_launch(b.s, &l, &e), &e);
    assert_false(dev_stream_wait(b.s, &e));
    close_bed(&b);
}

int main(void) {
    if (access(EMULATED_COMPILER, X_OK) != 0) {
        printf("no C++ compiler at %s: skipped\n", EMULATED_COMPILER);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_have_places),   cmocka_unit_test(blocks_wait_in_a_graph),
        cmocka_unit_test(matrices_multiply),    cmocka_unit_test(lanes_combine),
        cmocka_unit_test(chunks_come_late),     cmocka_unit_test(streams_are_lazy),
        cmocka_unit_test(events_fork_and_join), cmocka_unit_test(wild_addresses_are_faults),
        cmocka_unit_test(deadlocks_are_faults), cmocka_unit_test(blocks_beyond_the_device_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
