/* prefill_lab.c - see prefill_lab.h. */
#include "tests/kernels/prefill_lab.h"

#include "tests/kernels/program.h"
#include <stdlib.h>
#include <string.h>

/* ==== Sizes ==== */

int problem_products(const Prefill *p) {
    return p->most * shape_products(&p->shape);
}

int problem_entries(const Prefill *p) {
    const int pairs = problem_products(p);
    return p->shape.slots ? (int)prefill_entries(pairs, p->shape.experts) : pairs;
}

int problem_tiles(const Prefill *p) {
    if (p->shape.slots)
        return (int)prefill_expert_tiles(problem_products(p), p->shape.experts, &p->cut);
    return (int)ceil_div(p->most, p->cut.tokens);
}

bool problem_halves(const Prefill *p) {
    return prefill_halves(&p->shape.m, &p->cut, p->shape.slots > 0);
}

int problem_shared(const Prefill *p) {
    return (int)prefill_shared(&p->shape.m, &p->cut);
}

static int panels(const Prefill *p) {
    int64_t n = 0;
    for (int i = 0; i < p->shape.m.n_segments; i++)
        n += ceil_div(p->shape.m.segments[i].rows, 16 * p->cut.strips);
    return (int)n;
}

static int sort_shared(const Prefill *p) {
    return SORT_BYTES_AN_EXPERT * p->shape.experts;
}

/* ==== Programs ==== */

Program problem_matmul(const Prefill *p, const char *label) {
    Buf b = {0};
    buf_str(&b, "#define PF_NAME prefill\n");
    prefill_defines(&p->shape.m, &p->cut, problem_entries(p), p->shape.slots > 0, &b);
    return program_new(label, prefill_file(&p->cut), b.s, NULL, 0);
}

Program problem_input(const Prefill *p, const char *label) {
    Buf b = {0};
    buf_str(&b, "#define IN_NAME input\n");
    const InputRows rows = p->shape.x_pairs ? (InputRows){p->shape.slots, 1} : (InputRows){1, p->shape.slots};
    prefill_input_defines(p->shape.m.k, problem_entries(p), p->cut.x_stages > 0, rows, &b);
    return program_new(label, "matmul_input.cu", b.s, NULL, 0);
}

Program problem_sort(const Prefill *p, const char *label) {
    Buf b = {0};
    buf_str(&b, "#define ES_NAME sort\n");
    prefill_sort_defines(p->shape.experts, p->shape.slots, &p->cut, &b);
    return program_new(label, "experts_sort.cu", b.s, NULL, 0);
}

bool problem_has_rows(const Prefill *p) {
    return !p->shape.slots || p->shape.x_pairs;
}

static int row_groups(const Prefill *p) {
    return p->shape.slots ? p->shape.slots : 1;
}

/* The row, then a number of each of its pieces. */
static int row_shared(const Prefill *p) {
    const int64_t row = ceil_div(row_groups(p) * p->shape.m.k * 4, 16) * 16;
    return (int)(row + row_groups(p) * ceil_div(p->shape.m.k, RECORD_K) * 4);
}

enum { ROW_THREADS = 256 };

Program problem_rows(const Prefill *p, const char *label) {
    static const char text[] =
        "#include \"row_operand.cu\"\n"
        "DEVICE void tail_item(int item, int, u8 *shared, Others & TAIL_PARAMETERS) {\n"
        "    float *row = (float *)shared, *parts = (float *)(shared + (RT_GROUPS * RT_K * 4 + 15) / 16 * 16);\n"
        "    for (int e = threadIdx.x; e < RT_GROUPS * RT_K; e += TAIL_THREADS)\n"
        "        row[e] = x[(u64)item * RT_GROUPS * RT_K + e];\n"
        "    block_sync();\n"
        "    row_operand<RT_ATOMS, RT_GROUPS, RT_K, RT_TILES>(to, row, parts, [&](int group) {\n"
        "        return places ? places[item * RT_GROUPS + group] : item;\n"
        "    });\n"
        "}\n"
        "DEVICE void tail_ahead(int TAIL_PARAMETERS) {}\n";
    const Body body = {"tail.body", text};
    Buf b = {0};
    buf_printf(&b,
               "#define ROW_NAME rows\n#define ROW_THREADS %d\n#define ROW_SHARED %d\n#define RT_ATOMS %d\n"
               "#define RT_GROUPS %d\n#define RT_K %lld\n#define RT_TILES %lld\n",
               ROW_THREADS, row_shared(p), p->cut.x_stages > 0, row_groups(p), (long long)p->shape.m.k,
               (long long)ceil_div(problem_entries(p), ROWS_OF_TILE));
    buf_str(&b, "#define TAIL_PARAMETERS , const float *x, u8 *to, const int *places\n"
                "#define TAIL_ARGUMENTS , x, to, places\n#define TAIL_ITEMS(live) (live)\n");
    return program_new(label, "rowwise.cu", b.s, &body, 1);
}

void prefill_build(Lab *l, const Prefill *problems, int n, PrefillBuilt *out) {
    Program *programs = calloc((size_t)(n * PREFILL_KERNELS) + 1, sizeof *programs), *next = programs;
    DevModule **modules = calloc((size_t)(n * PREFILL_KERNELS) + 1, sizeof *modules), **m = modules;
    for (int i = 0; i < n; i++) {
        *next++ = problem_matmul(&problems[i], "prefill");
        *next++ = problem_input(&problems[i], "input");
        if (problems[i].shape.slots)
            *next++ = problem_sort(&problems[i], "sort");
        if (problem_has_rows(&problems[i]))
            *next++ = problem_rows(&problems[i], "rows");
    }
    lab_load(l, programs, (int)(next - programs), modules);
    for (int i = 0; i < n; i++) {
        PrefillBuilt *b = &out[i];
        *b = (PrefillBuilt){.p = problems[i]};
        const int shared = problem_shared(&b->p);
        b->matmul = lab_kernel(b->modules[0] = *m++, "prefill", shared);
        b->input = lab_kernel(b->modules[1] = *m++, "input", 0);
        if (b->p.shape.slots)
            b->sort = lab_kernel(b->modules[2] = *m++, "sort", sort_shared(&b->p));
        if (problem_has_rows(&b->p))
            b->rows = lab_kernel(b->modules[3] = *m++, "rows", row_shared(&b->p));
        b->resident = lab_resident(b->matmul, prefill_threads(&b->p.cut), shared);
    }
    free(programs);
    free(modules);
}

void prefill_free(PrefillBuilt *b) {
    for (int i = 0; i < PREFILL_KERNELS; i++)
        if (b->modules[i])
            dev_module_free(b->modules[i]);
}

/* ==== Launches ==== */

void prefill_memory(Lab *l, const Prefill *p, PrefillOperands *o) {
    o->records = lab_memory(l, (size_t)prefill_x_bytes(p->shape.m.k, problem_entries(p), p->cut.x_stages > 0), 0xff);
    o->out = lab_memory(l, (size_t)problem_products(p) * (size_t)matmul_rows(&p->shape.m) * (problem_halves(p) ? 2 : 4),
                        0xff);
    if (problem_halves(p))
        o->units = lab_memory(l, (size_t)problem_products(p) * 4, 0xff);
    if (!p->shape.slots)
        return;
    o->order = lab_memory(l, (size_t)problem_entries(p) * 4, 0x7e);
    o->tiles = lab_memory(l, (size_t)problem_tiles(p) * 12, 0x7e);
    o->places = lab_memory(l, (size_t)problem_products(p) * 4, 0x7e);
    o->n_tiles = lab_memory(l, 4, 0x7e);
}

void prefill_memory_free(Lab *l, PrefillOperands *o) {
    DevPtr *const all[] = {&o->records, &o->out, &o->units, &o->order, &o->places, &o->tiles, &o->n_tiles};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (*all[i])
            dev_free(l->device, *all[i]);
        *all[i] = 0;
    }
}

static void **point(Arguments *a, const DevPtr *values, int n) {
    for (int i = 0; i < n; i++) {
        a->values[i] = values[i];
        a->pointers[i] = &a->values[i];
    }
    return a->pointers;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

static DevLaunch sort_launch(const DevKernel *kernel, const Prefill *p, const PrefillOperands *o, int live,
                             Arguments *a) {
    const DevPtr v[] = {o->ids, o->order, o->places, o->tiles, o->n_tiles, o->live};
    return (DevLaunch){.kernel = kernel,
                       .grid = {(uint32_t)ceil_div(live, SORT_PAIRS / p->shape.slots)},
                       .block = {SORT_THREADS},
                       .shared_bytes = (uint32_t)sort_shared(p),
                       .pdl = true,
                       .arguments = point(a, v, 6)};
}

DevLaunch prefill_rows_launch(const PrefillBuilt *b, const PrefillOperands *o, int live, Arguments *a) {
    const DevPtr v[] = {o->live, o->x, o->records, o->places};
    return (DevLaunch){.kernel = b->rows,
                       .grid = {(uint32_t)live},
                       .block = {ROW_THREADS},
                       .shared_bytes = (uint32_t)row_shared(&b->p),
                       .pdl = true,
                       .arguments = point(a, v, 4)};
}

void prefill_sort(Lab *l, const Prefill *p, const PrefillOperands *o, DevModule **module) {
    Program source = problem_sort(p, "sort");
    lab_load(l, &source, 1, module);
    Arguments a;
    const DevLaunch launch = sort_launch(lab_kernel(*module, "sort", sort_shared(p)), p, o, p->most, &a);
    lab_run(l, &launch);
}

void prefill_launches(const Lab *l, const PrefillBuilt *b, const PrefillOperands *o, int live, int grid,
                      PrefillRun *run) {
    const Prefill *p = &b->p;
    const int n = p->shape.m.n_segments, processors = dev_info(l->device)->multiprocessors;
    const bool experts = p->shape.slots > 0;
    int i = 0;
    if (experts) {
        run->launches[i] = sort_launch(b->sort, p, o, live, &run->arguments[i]);
        i++;
    }
    const DevPtr in[] = {o->x, o->records, o->live, o->places};
    run->launches[i] =
        (DevLaunch){.kernel = b->input,
                    .grid = {(uint32_t)least((int)ceil_div(problem_entries(p), ROWS_OF_TILE), processors)},
                    .block = {INPUT_THREADS},
                    .pdl = true,
                    .arguments = point(&run->arguments[i], in, experts ? 4 : 3)};
    i++;
    DevPtr v[MAX_SEGMENTS + 6];
    memcpy(v, o->weights, sizeof o->weights);
    const DevPtr rest[] = {o->records, o->out, experts ? o->n_tiles : o->live, o->tiles, o->order, o->units};
    memcpy(v + n, rest, sizeof rest);
    const int fill = least(panels(p) * problem_tiles(p), b->resident * processors);
    run->launches[i] =
        (DevLaunch){.kernel = b->matmul,
                    .grid = {(uint32_t)(grid ? grid : fill)},
                    .block = {(uint32_t)prefill_threads(&p->cut)},
                    .shared_bytes = (uint32_t)problem_shared(p),
                    .pdl = true,
                    .arguments = point(&run->arguments[i], v, n + (experts ? 5 + problem_halves(p) : 3))};
    run->n = i + 1;
}
