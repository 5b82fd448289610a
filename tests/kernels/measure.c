/* measure.c - see measure.h. */
#include "tests/kernels/measure.h"

#include "tests/kernels/program.h"
#include <stdlib.h>
#include <string.h>

void lab_build(Lab *l, const Shape *shapes, int n, Built *out) {
    Program *programs = calloc((size_t)n + 1, sizeof *programs);
    DevModule **modules = calloc((size_t)n + 1, sizeof *modules);
    for (int i = 0; i < n; i++)
        programs[i] = program_new("matmul", shape_file(&shapes[i]), shape_defines(&shapes[i], "matmul"), NULL, 0);
    lab_load(l, programs, n, modules);
    for (int i = 0; i < n; i++)
        out[i] = (Built){shapes[i], modules[i], lab_kernel(modules[i], "matmul", shape_shared(&shapes[i]))};
    free(programs);
    free(modules);
}

static int tile_count(DType t, int n_rows, int k) {
    return (int)(dtype_tile_bytes(t, n_rows, k) / dtype_info(t)->tile_bytes);
}

DevLaunch lab_repack_launch(Lab *l, DType t, int n_rows, int k, int count, void **arguments) {
    static const char *const names[DT_COUNT] = {
#define QUANT(type, ...) [DT_##type] = "repack_" #type,
#include "ir/quants.def"
#undef QUANT
    };
    if (!l->repack) {
        Program p = program_new("repack", "repack.cu", strdup(""), NULL, 0);
        lab_load(l, &p, 1, &l->repack);
    }
    return (DevLaunch){.kernel = lab_kernel(l->repack, names[t], 0),
                       .grid = {(uint32_t)(tile_count(t, n_rows, k) + 3) / 4, (uint32_t)count},
                       .block = {128},
                       .arguments = arguments};
}

void lab_repack(Lab *l, DType t, const uint8_t *rows, int n_rows, int k, int count, DevPtr to) {
    const size_t bytes = (size_t)count * (size_t)n_rows * dtype_row_bytes(t, k);
    /* one byte off: the contract asks for no alignment */
    DevPtr room = lab_memory(l, bytes + 1, 0xff), from = room + 1;
    lab_in(l, from, rows, bytes);
    void *arguments[] = {&from, &to, &n_rows, &k};
    const DevLaunch launch = lab_repack_launch(l, t, n_rows, k, count, arguments);
    lab_run(l, &launch);
    dev_free(l->device, room);
}

/* ==== Launches ==== */

DevLaunch lab_matmul(const Lab *l, const Built *b, const Operands *o, Arguments *a) {
    DevPtr *to = a->values;
    for (int i = 0; i < b->shape.m.n_segments; i++)
        *to++ = o->weights[i];
    *to++ = o->x;
    if (b->shape.slots)
        *to++ = o->ids;
    *to++ = o->planes;
    *to++ = o->live;
    *to++ = o->tail;
    *to++ = o->planes; /* of the default tail */
    *to++ = o->sum;
    for (int i = 0; i < to - a->values; i++)
        a->pointers[i] = &a->values[i];
    return (DevLaunch){.kernel = b->matmul,
                       .grid = {(uint32_t)shape_grid(&b->shape, dev_info(l->device)->multiprocessors)},
                       .block = {(uint32_t)matmul_threads(&b->shape.m)},
                       .shared_bytes = (uint32_t)shape_shared(&b->shape),
                       .pdl = true,
                       .arguments = a->pointers};
}

void lab_multiply(Lab *l, const Built *b, const Operands *o) {
    Arguments a;
    const DevLaunch matmul = lab_matmul(l, b, o, &a);
    lab_run(l, &matmul);
}
