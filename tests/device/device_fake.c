/* device_fake.c - the device layer on the driver of fake_cuda.c: memory, copies, uploads, launches, graphs,
 * faults. What only a GPU can show is in test_device_gpu.c. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/device/upload.h"
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const char elf[64] = {0x7f, 'E', 'L', 'F', 2};
static const char *(*fake_log)(void);
static void (*fake_reset)(void);
static long (*fake_used)(void);
static uint64_t seed;

static uint64_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void assert_text(const DevError *e, const char *part) {
    if (!strstr(e->text, part))
        fail_msg("\"%s\" is not in:\n%s", part, e->text);
}

static Device *open_fake(int ordinal, bool check_launches) {
    DevError e = {0};
    DevOptions o = {.driver = FAKE_CUDA, .ordinal = ordinal, .check_launches = check_launches};
    Device *d = dev_open(&o, &e);
    if (!d)
        fail_msg("%s", e.text);
    fake_reset();
    return d;
}

static void memory(void **state) {
    (void)state;
    Device *d = open_fake(0, false);
    DevStream *s = dev_stream_new(d, NULL);
    DevError e = {0};
    int64_t available, total;
    assert_true(dev_memory(d, &available, &total, &e));
    assert_int_equal(available, (int64_t)1 << 30);
    DevPtr a, b, none;
    assert_true(dev_alloc(d, 1000, "a", NULL, &a, &e));
    assert_true(dev_alloc(d, 1000, "b", NULL, &b, &e));
    assert_true(dev_alloc(d, 0, "nothing", NULL, &none, &e) && none == 0);
    unsigned char in[1000], out[1000];
    for (int i = 0; i < 1000; i++)
        in[i] = (unsigned char)next_random();
    assert_true(dev_copy_in(s, a, in, 1000, &e) && dev_fill(s, b, 7, 1000, &e) && dev_copy(s, b, a, 500, &e));
    assert_true(dev_copy_out(s, out, b, 1000, &e) && dev_stream_wait(s, &e));
    assert_memory_equal(out, in, 500);
    for (int i = 500; i < 1000; i++)
        assert_int_equal(out[i], 7);

    DevPtr c = 1;
    assert_false(dev_alloc(d, (size_t)3 << 30, "the K/V caches", "Use a shorter --context.", &c, &e));
    assert_int_equal(e.kind, DEV_MEMORY);
    assert_int_equal(c, 0);
    assert_text(&e, "the K/V caches: needed 3.00 GiB, free 1024.0 MiB of 1.00 GiB on GPU 0 (Fake GPU A)");
    assert_text(&e, "\nUse a shorter --context.");
    assert_false(dev_alloc(d, (size_t)3 << 30, "x", NULL, &c, &e));
    assert_text(&e, "nvidia-smi");
    dev_free(d, a);
    dev_free(d, b);
    dev_free(d, 0);
    dev_stream_free(s);
    dev_close(d);
    assert_int_equal(fake_used(), 0);
}

/* ==== Uploads ==== */

typedef struct Seen {
    const UploadItem *items;
    int next, stop_at;
    int64_t progress;
    DevStream *stream;
} Seen;

static bool item_enqueued(void *user, int item, DevStream *stream, DevError *e) {
    Seen *s = user;
    while (s->items[s->next].bytes == 0) /* passed over */
        s->next++;
    assert_int_equal(item, s->next++);
    assert_ptr_equal(stream, s->stream);
    if (s->stop_at >= 0 && item >= s->stop_at)
        return dev_fail(e, DEV_OTHER, "repacking failed");
    return true;
}

static bool progress(void *user, int64_t done, int64_t total) {
    Seen *s = user;
    assert_true(done > s->progress && done <= total);
    s->progress = done;
    return s->stop_at != -2;
}

enum { ITEMS = 200 };

/* Random items, some empty, one larger than the ring, in one block of host and one of device memory. */
static size_t make_items(UploadItem *items, uint8_t **host, Device *d, DevPtr *device) {
    size_t total = 0;
    for (int i = 0; i < ITEMS; i++) {
        items[i].bytes = i == 50 ? 11000001 : next_random() % 10 == 0 ? 0 : next_random() % 200000;
        total += items[i].bytes;
    }
    *host = malloc(total);
    for (size_t i = 0; i < total; i++)
        (*host)[i] = (uint8_t)(next_random() >> 20);
    assert_true(dev_alloc(d, total, "weights", NULL, device, NULL));
    size_t at = 0;
    for (int i = 0; i < ITEMS; i++) {
        items[i].from = *host + at;
        items[i].to = *device + at;
        at += items[i].bytes;
    }
    return total;
}

static void uploads(void **state) {
    (void)state;
    static const UploadOptions shapes[] = {{0},
                                           {.buffers = 2, .buffer_bytes = 1, .threads = 1},
                                           {.buffers = 3, .buffer_bytes = 3 << 20, .threads = 7},
                                           {.buffers = 5, .buffer_bytes = 2 << 20, .threads = 3}};
    Device *d = open_fake(0, false);
    for (size_t shape = 0; shape < sizeof shapes / sizeof shapes[0]; shape++) {
        UploadItem items[ITEMS];
        uint8_t *host;
        DevPtr device;
        DevError e = {0};
        size_t total = make_items(items, &host, d, &device);
        Seen seen = {.items = items, .stop_at = -1, .stream = dev_stream_new(d, NULL)};
        UploadOptions o = shapes[shape];
        o.stream = seen.stream;
        o.item_enqueued = item_enqueued;
        o.progress = progress;
        o.user = &seen;
        UploadResult result;
        if (!upload_run(d, items, ITEMS, &o, &result, &e))
            fail_msg("%s", e.text);
        assert_memory_equal((void *)(uintptr_t)device, host, total);
        assert_int_equal(result.bytes, total);
        assert_true(result.seconds > 0 && result.gb_per_second > 0);
        while (seen.next < ITEMS && items[seen.next].bytes == 0)
            seen.next++;
        assert_int_equal(seen.next, ITEMS);
        assert_int_equal(seen.progress, total);
        dev_stream_free(seen.stream);
        dev_free(d, device);
        free(host);
    }
    dev_close(d);
    assert_int_equal(fake_used(), 0);
}

static void uploads_stopped(void **state) {
    (void)state;
    Device *d = open_fake(0, false);
    UploadItem items[ITEMS];
    uint8_t *host;
    DevPtr device;
    DevError e = {0};
    UploadResult result;
    make_items(items, &host, d, &device);
    Seen seen = {.items = items, .stop_at = 40, .stream = dev_stream_new(d, NULL)};
    UploadOptions o = {.buffers = 2, .buffer_bytes = 1 << 20, .stream = seen.stream, .user = &seen};
    o.item_enqueued = item_enqueued;
    assert_false(upload_run(d, items, ITEMS, &o, &result, &e));
    assert_text(&e, "repacking failed");
    assert_int_equal(result.bytes, 0);
    seen = (Seen){.items = items, .stop_at = -2, .stream = seen.stream};
    o.item_enqueued = NULL;
    o.progress = progress;
    assert_false(upload_run(d, items, ITEMS, &o, &result, &e));
    assert_text(&e, "upload stopped");
    assert_true(upload_run(d, items, 0, NULL, &result, &e));
    dev_stream_free(seen.stream);
    dev_free(d, device);
    free(host);
    dev_close(d);
}

/* A mapped file that became shorter is an error, where the kernel can tell. */
static void upload_of_cut_file(void **state) {
    (void)state;
#ifdef MADV_POPULATE_READ
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 64 * page;
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)bytes), 0);
    uint8_t *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fileno(f), 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    if (madvise(map, page, MADV_POPULATE_READ) != 0) {
        print_message("this kernel cannot tell\n");
        munmap(map, bytes);
        fclose(f);
        skip();
    }
    assert_int_equal(ftruncate(fileno(f), (off_t)(8 * page)), 0);
    Device *d = open_fake(0, false);
    DevPtr device;
    DevError e = {0};
    assert_true(dev_alloc(d, bytes, "weights", NULL, &device, &e));
    UploadItem item = {.to = device, .from = map, .bytes = bytes};
    UploadResult result;
    assert_false(upload_run(d, &item, 1, NULL, &result, &e));
    assert_text(&e, "the file is shorter than it was");
    dev_free(d, device);
    dev_close(d);
    munmap(map, bytes);
    fclose(f);
#else
    skip();
#endif
}

/* ==== Kernels ==== */

static void modules(void **state) {
    (void)state;
    Device *d = open_fake(0, false);
    DevError e = {0};
    char other[64] = {0x7f, 'E', 'L', 'F', 1};
    assert_null(dev_module_load(d, "no", 2, "short.cu", &e));
    assert_text(&e, "short.cu: this is no cubin");
    assert_null(dev_module_load(d, other, sizeof other, "other.cu", &e));
    assert_text(&e, "does not take the compiled kernels of other.cu: they are for another architecture than sm_90a");
    DevModule *m = dev_module_load(d, elf, sizeof elf, "test.cu", &e);
    assert_non_null(m);
    assert_null(dev_kernel(m, "missing", 0, &e));
    assert_text(&e, "there is no kernel missing in test.cu");
    assert_null(dev_kernel(m, "add", 227 << 10, &e));
    assert_text(&e, "kernel add needs 228.0 KiB of shared memory a block; GPU 0 (Fake GPU A) has 227.0 KiB");
    DevKernel *k = dev_kernel(m, "add", 100000, &e);
    assert_non_null(k);
    assert_ptr_equal(dev_kernel(m, "add", 10, &e), k);
    assert_string_equal(fake_log(), "attribute add 8=100000\n");
    assert_int_equal(dev_kernel_info(k)->registers, 42);
    assert_int_equal(dev_kernel_info(k)->dynamic_shared, 100000);
    int blocks = 0;
    assert_true(dev_kernel_blocks(k, 256, 0, &blocks, &e));
    assert_int_equal(blocks, 8);
    dev_module_free(m);
    dev_close(d);
}

typedef struct Bed {
    Device *d;
    DevStream *s;
    DevModule *m;
    DevKernel *add, *faulty;
    DevPtr cell;
    DevError e;
} Bed;

static Bed bed_open(int ordinal, bool check_launches) {
    Bed b = {.d = open_fake(ordinal, check_launches)};
    b.s = dev_stream_new(b.d, NULL);
    b.m = dev_module_load(b.d, elf, sizeof elf, "test.cu", NULL);
    b.add = dev_kernel(b.m, "add", 0, NULL);
    b.faulty = dev_kernel(b.m, "faulty", 0, NULL);
    assert_true(dev_alloc(b.d, 8, "a cell", NULL, &b.cell, NULL));
    assert_true(dev_fill(b.s, b.cell, 0, 8, NULL));
    return b;
}

static void bed_close(Bed *b) {
    fake_reset();
    dev_free(b->d, b->cell);
    dev_module_free(b->m);
    dev_stream_free(b->s);
    dev_close(b->d);
    assert_int_equal(fake_used(), 0);
}

static uint64_t cell(Bed *b) {
    uint64_t value = 0;
    assert_true(dev_copy_out(b->s, &value, b->cell, sizeof value, &b->e) && dev_stream_wait(b->s, &b->e));
    return value;
}

static void launches(void **state) {
    (void)state;
    for (int ordinal = 0; ordinal < 2; ordinal++) { /* with and without PDL */
        Bed b = bed_open(ordinal, false);
        uint32_t v = 5;
        void *arguments[] = {&b.cell, &v};
        DevLaunch l = {.kernel = b.add, .grid = {3, 2}, .block = {64}, .shared_bytes = 128, .arguments = arguments};
        assert_true(dev_launch(b.s, &l, &b.e));
        l.pdl = true;
        l.cluster[0] = 2;
        assert_true(dev_launch(b.s, &l, &b.e));
        assert_string_equal(fake_log(), ordinal == 0 ? "add 3x2x1 64x1x1 128\nadd 3x2x1 64x1x1 128 6=1 4=2\n"
                                                     : "add 3x2x1 64x1x1 128\nadd 3x2x1 64x1x1 128 4=2\n");
        assert_int_equal(cell(&b), 10);
        l.block[0] = 2000;
        assert_false(dev_launch(b.s, &l, &b.e));
        assert_text(&b.e, "launch of kernel add, grid 3 x 2 x 1, block 2000 x 1 x 1");
        bed_close(&b);
    }
}

static void graphs(void **state) {
    (void)state;
    Bed b = bed_open(0, false);
    uint32_t v[20];
    void *arguments[20][2];
    DevLaunch l[20];
    uint64_t sum = 0;
    for (int i = 0; i < 20; i++) {
        v[i] = (uint32_t)next_random() >> 8;
        sum += v[i];
        arguments[i][0] = &b.cell;
        arguments[i][1] = &v[i];
        l[i] = (DevLaunch){.kernel = b.add, .grid = {1}, .block = {1}, .pdl = i > 0, .arguments = arguments[i]};
    }
    DevGraph *g = dev_graph_new(b.s, l, 20, "decode", &b.e);
    assert_non_null(g);
    assert_int_equal(dev_graph_kernels(g), 20);
    assert_int_equal(cell(&b), 0); /* recording runs nothing */
    for (int i = 0; i < 3; i++)
        assert_true(dev_graph_launch(g, b.s, &b.e));
    assert_int_equal(cell(&b), 3 * sum);
    dev_graph_free(g);

    l[10].block[0] = 2000; /* an error while recording leaves the stream usable */
    assert_null(dev_graph_new(b.s, l, 20, "bad", &b.e));
    assert_text(&b.e, "block 2000");
    assert_true(dev_launch(b.s, &l[0], &b.e));
    assert_int_equal(cell(&b), 3 * sum + v[0]);
    bed_close(&b);
}

static void events(void **state) {
    (void)state;
    Bed b = bed_open(0, false);
    DevEvent *from = dev_event_new(b.d, true, &b.e), *to = dev_event_new(b.d, true, &b.e);
    bool done = true;
    double seconds = 0;
    assert_true(dev_event_record(from, b.s, &b.e) && dev_event_record(to, b.s, &b.e));
    assert_true(dev_event_done(to, &done, &b.e) && !done);
    DevStream *other = dev_stream_new(b.d, &b.e);
    assert_true(dev_stream_after(other, from, &b.e));
    assert_true(dev_event_wait(to, &b.e));
    assert_true(dev_event_done(to, &done, &b.e) && done);
    assert_true(dev_event_seconds(from, to, &seconds, &b.e) && seconds == 0.0025);
    dev_event_free(from);
    dev_event_free(to);
    dev_stream_free(other);
    bed_close(&b);
}

static void faults(void **state) {
    (void)state;
    uint32_t v = 1;
    Bed b = bed_open(0, false);
    void *arguments[] = {&b.cell, &v};
    DevLaunch add = {.kernel = b.add, .grid = {1}, .block = {1}, .arguments = arguments};
    DevLaunch faulty = {.kernel = b.faulty, .grid = {1}, .block = {1}};
    assert_true(dev_launch(b.s, &add, &b.e) && dev_stream_wait(b.s, &b.e)); /* not a suspect any more */
    assert_true(dev_launch(b.s, &faulty, &b.e));
    assert_false(dev_stream_wait(b.s, &b.e));
    assert_int_equal(b.e.kind, DEV_FAULT);
    assert_text(&b.e, "GPU 0 (Fake GPU A): failed, in kernel faulty: an illegal memory access was encountered "
                      "(CUDA_ERROR_ILLEGAL_ADDRESS)");
    DevPtr p;
    assert_false(dev_alloc(b.d, 8, "more", NULL, &p, &b.e)); /* later calls tell the first cause */
    assert_text(&b.e, "in kernel faulty");
    bed_close(&b);

    b = bed_open(0, false);
    arguments[0] = &b.cell;
    add.kernel = b.add;
    faulty.kernel = b.faulty;
    for (int i = 0; i < 9; i++)
        assert_true(dev_launch(b.s, &add, &b.e));
    assert_true(dev_launch(b.s, &faulty, &b.e));
    assert_false(dev_stream_wait(b.s, &b.e));
    assert_text(&b.e, "in one of the last 10 launches: ..., add, add, add, add, add, add, add, faulty: ");
    bed_close(&b);

    b = bed_open(0, true);
    arguments[0] = &b.cell;
    add.kernel = b.add;
    faulty.kernel = b.faulty;
    assert_true(dev_launch(b.s, &add, &b.e));
    assert_false(dev_launch(b.s, &faulty, &b.e)); /* at once */
    assert_text(&b.e, "in kernel faulty");
    bed_close(&b);

    b = bed_open(0, true);
    faulty.kernel = b.faulty;
    DevGraph *g = dev_graph_new(b.s, &faulty, 1, "decode", &b.e);
    assert_true(dev_graph_launch(g, b.s, &b.e));
    assert_false(dev_stream_wait(b.s, &b.e));
    assert_text(&b.e, "in kernel graph decode (1 kernels)");
    dev_graph_free(g);
    bed_close(&b);
}

int main(void) {
    seed = (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
    printf("seed %llu\n", (unsigned long long)seed);
    void *fake = dlopen(FAKE_CUDA, RTLD_NOW);
    if (!fake)
        return 1;
    *(void **)&fake_log = dlsym(fake, "fake_log");
    *(void **)&fake_reset = dlsym(fake, "fake_reset");
    *(void **)&fake_used = dlsym(fake, "fake_used");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory),  cmocka_unit_test(uploads),  cmocka_unit_test(uploads_stopped),
        cmocka_unit_test(modules), cmocka_unit_test(launches), cmocka_unit_test(graphs),
        cmocka_unit_test(events),  cmocka_unit_test(faults),   cmocka_unit_test(upload_of_cut_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
