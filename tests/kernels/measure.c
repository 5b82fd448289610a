/* measure.c - see measure.h. */
#include "tests/kernels/measure.h"

#include "runtime/device/roofline.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/kernel_text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void must(bool ok, const DevError *e) {
    if (ok)
        return;
    printf("FAILED: %s\n", e->text);
    exit(e->kind == DEV_ABSENT ? 77 : 1);
}

static const char *const options[] = {"--std=c++17"};

static Program program(const char *name, const char *file, char *defines) {
    const Program p = {.name = name, .source = kernel_source(file, defines), .options = options, .n_options = 1};
    free(defines);
    return p;
}

static DevModule *load(Lab *l, Compiled *c, const char *label) {
    DevError e = {0};
    DevModule *m = dev_module_load(l->device, c->cubin, c->bytes, label, &e);
    must(m != NULL, &e);
    compiled_free(c);
    return m;
}

static const DevKernel *kernel(DevModule *m, const char *name, int shared) {
    DevError e = {0};
    const DevKernel *k = dev_kernel(m, name, (size_t)shared, &e);
    must(k != NULL, &e);
    return k;
}

void lab_open(Lab *l) {
    DevError e = {0};
    must((l->device = dev_open(NULL, &e)) != NULL, &e);
    must((l->stream = dev_stream_new(l->device, &e)) != NULL, &e);
    must((l->nvrtc = nvrtc_open(NULL, &e)) != NULL, &e);
    const Program p = program("repack", "repack.cu", strdup(""));
    Compiled c = {0};
    must(compile_programs(l->nvrtc, dev_info(l->device)->arch, &p, 1, &(CompileOptions){0}, &c, &e), &e);
    l->repack = load(l, &c, "repack");
    free((char *)p.source);
}

void lab_close(Lab *l) {
    dev_module_free(l->repack);
    nvrtc_close(l->nvrtc);
    dev_stream_free(l->stream);
    dev_close(l->device);
}

int lab_shared(const Lab *l) {
    return (int)dev_info(l->device)->shared_per_block - 1024; /* the barriers are static */
}

void lab_build(Lab *l, const Shape *shapes, int n, Built *out) {
    Program *programs = calloc((size_t)(2 * n), sizeof *programs);
    Compiled *compiled = calloc((size_t)(2 * n), sizeof *compiled);
    DevError e = {0};
    for (int i = 0; i < n; i++) {
        programs[2 * i] = program("matmul", "matmul_decode.cu", shape_defines(&shapes[i], "matmul"));
        programs[2 * i + 1] = program("input", "matmul_input.cu", shape_input_defines(&shapes[i]));
    }
    must(compile_programs(l->nvrtc, dev_info(l->device)->arch, programs, 2 * n, &(CompileOptions){0}, compiled, &e),
         &e);
    for (int i = 0; i < n; i++) {
        Built *b = &out[i];
        b->shape = shapes[i];
        b->modules[0] = load(l, &compiled[2 * i], "matmul");
        b->modules[1] = load(l, &compiled[2 * i + 1], "input");
        b->matmul = kernel(b->modules[0], "matmul", shape_shared(&b->shape));
        b->input = kernel(b->modules[1], "matmul_input", 0);
    }
    for (int i = 0; i < 2 * n; i++)
        free((char *)programs[i].source);
    free(programs);
    free(compiled);
}

DevPtr lab_memory(Lab *l, size_t bytes, uint8_t fill) {
    DevError e = {0};
    DevPtr p = 0;
    must(dev_alloc(l->device, bytes, "the test", NULL, &p, &e), &e);
    must(dev_fill(l->stream, p, fill, bytes, &e), &e);
    return p;
}

static int tile_count(DType t, int n_rows, int k) {
    return (n_rows + 15) / 16 * ((k + tile_specs[t].k - 1) / tile_specs[t].k);
}

static DevLaunch repack_launch(Lab *l, DType t, int n_rows, int k, void **arguments) {
    static const char *const names[DT_COUNT] = {
#define TILE(type, form, tile_k, bytes, exact) [DT_##type] = "repack_" #type,
#include "codegen/kernels/tiles.def"
#undef TILE
    };
    return (DevLaunch){.kernel = kernel(l->repack, names[t], 0),
                       .grid = {(uint32_t)(tile_count(t, n_rows, k) + 3) / 4},
                       .block = {128},
                       .arguments = arguments};
}

void lab_repack(Lab *l, DType t, const uint8_t *rows, int n_rows, int k, DevPtr to) {
    DevError e = {0};
    const size_t bytes = (size_t)n_rows * dtype_row_bytes(t, k);
    /* one byte off: the contract asks for no alignment */
    DevPtr room = lab_memory(l, bytes + 1, 0xff), from = room + 1;
    must(dev_copy_in(l->stream, from, rows, bytes, &e), &e);
    void *arguments[] = {&from, &to, &n_rows, &k};
    const DevLaunch launch = repack_launch(l, t, n_rows, k, arguments);
    must(dev_launch(l->stream, &launch, &e), &e);
    must(dev_stream_wait(l->stream, &e), &e);
    dev_free(l->device, room);
}

/* ==== Launches ==== */

/* The values that a launch points to. */
typedef struct Arguments {
    DevPtr values[MAX_SEGMENTS + 3];
    void *pointers[MAX_SEGMENTS + 3];
} Arguments;

static DevLaunch matmul_launch(const Lab *l, const Built *b, const Operands *o, Arguments *a) {
    const int n = b->shape.n_segments;
    memcpy(a->values, o->weights, sizeof o->weights);
    a->values[n] = o->records;
    a->values[n + 1] = o->planes;
    a->values[n + 2] = o->live;
    for (int i = 0; i < n + 3; i++)
        a->pointers[i] = &a->values[i];
    return (DevLaunch){.kernel = b->matmul,
                       .grid = {(uint32_t)shape_grid(&b->shape, dev_info(l->device)->multiprocessors)},
                       .block = {(uint32_t)shape_threads(&b->shape)},
                       .shared_bytes = (uint32_t)shape_shared(&b->shape),
                       .pdl = true,
                       .arguments = a->pointers};
}

static DevLaunch input_launch(const Built *b, const Operands *o, Arguments *a) {
    a->values[0] = o->x;
    a->values[1] = o->records;
    a->values[2] = o->live;
    for (int i = 0; i < 3; i++)
        a->pointers[i] = &a->values[i];
    return (DevLaunch){.kernel = b->input,
                       .grid = {(uint32_t)(b->shape.k + 255) / 256, (uint32_t)b->shape.nt},
                       .block = {256},
                       .pdl = true,
                       .arguments = a->pointers};
}

void lab_multiply(Lab *l, const Built *b, const Operands *o) {
    DevError e = {0};
    Arguments a, i;
    const DevLaunch input = input_launch(b, o, &i), matmul = matmul_launch(l, b, o, &a);
    must(dev_launch(l->stream, &input, &e), &e);
    must(dev_launch(l->stream, &matmul, &e), &e);
    must(dev_stream_wait(l->stream, &e), &e);
}

/* ==== Rates ==== */

/* Best of 7 replays, in seconds a launch. */
static double time_graph(Lab *l, const DevLaunch *launches, int n) {
    DevError e = {0};
    DevGraph *g = dev_graph_new(l->stream, launches, n, "rates", &e);
    must(g != NULL, &e);
    DevEvent *from = dev_event_new(l->device, true, &e), *to = dev_event_new(l->device, true, &e);
    must(from && to, &e);
    double best = 1e9;
    for (int i = 0; i < 8; i++) {
        double seconds = 0;
        must(dev_event_record(from, l->stream, &e) && dev_graph_launch(g, l->stream, &e) &&
                 dev_event_record(to, l->stream, &e) && dev_event_wait(to, &e) &&
                 dev_event_seconds(from, to, &seconds, &e),
             &e);
        best = i > 0 && seconds < best ? seconds : best;
    }
    dev_event_free(from);
    dev_event_free(to);
    dev_graph_free(g);
    return best / n;
}

/* Random weights over `bytes` of memory: some rows, repacked and repeated. */
static void fill_segment(Lab *l, const Shape *s, int i, DevPtr to) {
    enum { UNIQUE = 256 };
    const DType t = s->segments[i].type;
    const int unique = s->segments[i].rows < UNIQUE ? s->segments[i].rows : UNIQUE;
    const size_t row_bytes = dtype_row_bytes(t, s->k), all = segment_tile_bytes(s, i);
    const size_t piece = (size_t)tile_count(t, unique, s->k) * (size_t)tile_specs[t].bytes;
    uint8_t *rows = malloc(row_bytes * (size_t)unique);
    uint64_t seed = 7;
    for (int r = 0; r < unique; r++)
        random_row(t, rows + (size_t)r * row_bytes, s->k, &seed);
    lab_repack(l, t, rows, unique, s->k, to);
    free(rows);
    DevError e = {0};
    for (size_t done = piece; done < all; done += done) {
        const size_t bytes = all - done < done ? all - done : done;
        must(dev_copy(l->stream, to + done, to, bytes, &e), &e);
    }
    must(dev_stream_wait(l->stream, &e), &e);
}

typedef struct Rate {
    const char *label;
    Shape shape;
} Rate;

#define ONE(type, n)                  .n_segments = 1, .segments = {{DT_##type, n}}
#define THREE(t0, n0, t1, n1, t2, n2) .n_segments = 3, .segments = {{DT_##t0, n0}, {DT_##t1, n1}, {DT_##t2, n2}}
static const Rate rates[] = {
    {"31B q, k, v", {.k = 5376, THREE(Q4_K, 16384, Q4_K, 4096, Q4_K, 4096)}},
    {"31B q, k, v (v q6_k)", {.k = 5376, THREE(Q4_K, 16384, Q4_K, 4096, Q6_K, 4096)}},
    {"31B o", {.k = 8192, ONE(Q4_K, 5376)}},
    {"31B gate, up", {.k = 5376, ONE(Q4_K, 43008)}},
    {"31B down", {.k = 21504, ONE(Q4_K, 5376)}},
    {"31B down", {.k = 21504, ONE(Q6_K, 5376)}},
    {"26B q", {.k = 2816, ONE(Q4_K, 4096)}},
    {"26B q, k, v", {.k = 2816, THREE(Q4_K, 4096, Q4_K, 2048, Q4_K, 2048)}},
    {"26B 8 experts down", {.k = 704, ONE(Q5_0, 22528)}},
    {"26B 8 experts down", {.k = 704, ONE(Q8_0, 22528)}},
    {"26B down", {.k = 704, ONE(Q8_0, 2816)}},
    {"q5_k", {.k = 5376, ONE(Q5_K, 21504)}},
    {"bf16", {.k = 5376, ONE(BF16, 16384)}},
};
enum { N_RATES = sizeof rates / sizeof rates[0], N_WAYS = 5 };

/* Ways to run one shape: they differ in speed only. */
typedef struct Way {
    const char *label;
    int nt, live, groups, x_shared, ring;
} Way;

static const Way ways[N_WAYS] = {
    {"1 row", 1, 1, 1, 0, 110},
    {"8 rows", 1, 8, 1, 0, 110},
    {"8 rows, 2 groups", 1, 8, 2, 0, 200},
    {"8 rows, 2 groups, x shared", 1, 8, 2, 1, 200},
    {"16 rows", 2, 16, 1, 0, 200},
};

/* Seconds a launch with other weights each time, and with the same (from the L2 cache, when they fit). */
static void time_way(Lab *l, const Built *b, const Operands *o, const DevPtr *starts, int copies, double seconds[2]) {
    enum { MOST = 64 };
    static Arguments arguments[MOST];
    static DevLaunch launches[MOST];
    for (int same = 0; same < 2; same++) {
        for (int c = 0; c < copies; c++) {
            Operands of = *o;
            for (int i = 0; i < b->shape.n_segments; i++)
                of.weights[i] += starts[same ? 0 : c] - starts[0];
            launches[c] = matmul_launch(l, b, &of, &arguments[c]);
        }
        seconds[same] = time_graph(l, launches, copies);
    }
}

static void rate_shape(Lab *l, const Rate *r, const Built *built, double roof) {
    enum { MOST = 64 };
    const Shape *s = &built[0].shape;
    size_t bytes = 0;
    for (int i = 0; i < s->n_segments; i++)
        bytes += segment_tile_bytes(s, i);
    bytes = (bytes + 255) / 256 * 256;
    const size_t room = (size_t)3 << 30;
    const int copies = room / bytes < 4 ? 4 : room / bytes > MOST ? MOST : (int)(room / bytes);
    Operands o = {.x = lab_memory(l, (size_t)s->k * 16 * 4, 0x3c), .planes = lab_memory(l, (size_t)64 << 20, 0xff)};
    DevPtr starts[MOST], all = lab_memory(l, bytes * (size_t)copies, 0);
    for (int c = 0; c < copies; c++)
        starts[c] = all + bytes * (size_t)c;
    DevPtr at = all;
    for (int i = 0; i < s->n_segments; at += segment_tile_bytes(s, i), i++) {
        o.weights[i] = at;
        fill_segment(l, s, i, at);
    }
    DevError e = {0};
    for (int c = 1; c < copies; c++)
        must(dev_copy(l->stream, starts[c], all, bytes, &e), &e);
    o.records = lab_memory(l, shape_record_bytes(&built[N_WAYS - 1].shape), 0x7e);
    o.live = lab_memory(l, 4, 0);
    for (int w = 0; w < N_WAYS; w++) {
        double seconds[2];
        must(dev_copy_in(l->stream, o.live, &ways[w].live, 4, &e), &e);
        lab_multiply(l, &built[w], &o);
        time_way(l, &built[w], &o, starts, copies, seconds);
        const double rate = (double)shape_file_bytes(s) / seconds[0] / 1e9;
        printf("%-21s %-6s %5d -> %5d  %-27s %2d x %d warps x %3d, %2d slices, %d stages, %3d regs %3d local %8.2f us "
               "%5.0f GB/s "
               "%5.1f %%",
               r->label, dtype_name(s->segments[0].type), s->k, shape_rows(s), ways[w].label, built[w].shape.groups,
               built[w].shape.warps, built[w].shape.warp_k, shape_slices(&built[w].shape), built[w].shape.stages,
               dev_kernel_info(built[w].matmul)->registers, dev_kernel_info(built[w].matmul)->local_bytes,
               seconds[0] * 1e6, rate, 100 * rate / roof);
        if (bytes < (size_t)40 << 20)
            printf("   from L2 %5.0f GB/s", (double)shape_file_bytes(s) / seconds[1] / 1e9);
        printf("\n");
    }
    const DevPtr memory[] = {all, o.x, o.planes, o.records, o.live};
    for (int i = 0; i < 5; i++)
        dev_free(l->device, memory[i]);
}

/* How fast a file's bytes become tiles. */
static void rate_repack(Lab *l, DType t, double roof) {
    const int k = 2816, n_rows = 32768;
    const size_t bytes = (size_t)n_rows * dtype_row_bytes(t, k);
    DevPtr from = lab_memory(l, bytes, 0x11);
    DevPtr to = lab_memory(l, (size_t)tile_count(t, n_rows, k) * (size_t)tile_specs[t].bytes, 0);
    void *arguments[] = {&from, &to, (void *)&n_rows, (void *)&k};
    DevLaunch launches[4];
    for (int i = 0; i < 4; i++)
        launches[i] = repack_launch(l, t, n_rows, k, arguments);
    const double rate = (double)bytes / time_graph(l, launches, 4) / 1e9;
    printf("repack %-7s %5.0f GB/s of the file's bytes (%.0f %%)\n", dtype_name(t), rate, 100 * rate / roof);
    dev_free(l->device, from);
    dev_free(l->device, to);
}

void lab_rates(Lab *l) {
    DevError e = {0};
    Roofline roof;
    must(roofline_measure(l->device, l->nvrtc, NULL, &roof, &e), &e);
    printf("%s: %.0f GB/s read\n", dev_info(l->device)->name, roof.read_gb_per_second);
    static Shape shapes[N_RATES * N_WAYS];
    static Built built[N_RATES * N_WAYS];
    const int shared = lab_shared(l);
    for (int i = 0; i < N_RATES * N_WAYS; i++) {
        const Way *w = &ways[i % N_WAYS];
        shapes[i] = rates[i / N_WAYS].shape;
        shapes[i].nt = w->nt;
        shapes[i].groups = w->groups;
        shapes[i].x_shared = w->x_shared;
        shape_choose(&shapes[i], w->ring << 10 < shared ? w->ring << 10 : shared);
    }
    lab_build(l, shapes, N_RATES * N_WAYS, built);
    for (int t = 0; t < DT_COUNT; t++)
        if (tile_specs[t].form)
            rate_repack(l, (DType)t, roof.read_gb_per_second);
    for (int i = 0; i < N_RATES; i++)
        rate_shape(l, &rates[i], &built[i * N_WAYS], roof.read_gb_per_second);
    for (int i = 0; i < N_RATES * N_WAYS; i++)
        for (int m = 0; m < 2; m++)
            dev_module_free(built[i].modules[m]);
}
