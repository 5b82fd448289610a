/* compile_kernels.c - every kernel compiles for every architecture, and the hot ones spill no registers. No GPU needed.
 *
 * compile_kernels [arch...]; exit 77 without NVRTC.
 */
#include "tests/kernels/program.h"
#include "tests/kernels/shape.h"

#include <string.h>

/* Kernels of matmul_decode.cu and matmul_experts.cu as models need them. */
typedef struct Case {
    const char *label;
    Shape shape;
    bool hot; /* must not spill */
} Case;

#define ONE(type, n)   .m.n_segments = 1, .m.segments = {{DT_##type, n}}
#define EXPERTS(pairs) .experts = 128, .slots = 8, .x_pairs = pairs, .tail = 1
static const Case cases[] = {
    {"q4_k", {.m.k = 5376, ONE(Q4_K, 43008), .m.tiles = 1}, true},
    {"q4_k, tail", {.m.k = 5376, ONE(Q4_K, 43008), .m.tiles = 1, .tail = 1}, true},
    {"q4_k, 2 groups", {.m.k = 5376, ONE(Q4_K, 43008), .m.tiles = 1, .m.groups = 2}, true},
    {"q4_k, shared rows", {.m.k = 5376, ONE(Q4_K, 43008), .m.tiles = 1, .m.groups = 2, .x_shared = 1}, true},
    {"q4_k, 16 rows", {.m.k = 5376, ONE(Q4_K, 43008), .m.tiles = 2}, true},
    {"q4_k, 16 rows, tail", {.m.k = 5376, ONE(Q4_K, 43008), .m.tiles = 2, .tail = 1}, true},
    {"q4_k + q6_k",
     {.m.k = 5376, .m.n_segments = 2, .m.segments = {{DT_Q4_K, 20480}, {DT_Q6_K, 4096}}, .m.tiles = 1},
     true},
    {"q6_k", {.m.k = 21504, ONE(Q6_K, 5376), .m.tiles = 1}, true},
    {"q6_k, 16 rows", {.m.k = 21504, ONE(Q6_K, 5376), .m.tiles = 2}, true},
    {"q5_k", {.m.k = 2816, ONE(Q5_K, 4096), .m.tiles = 1}, true},
    {"q5_0", {.m.k = 704, ONE(Q5_0, 2816), .m.tiles = 1}, true},
    {"q8_0", {.m.k = 704, ONE(Q8_0, 2816), .m.tiles = 1}, true},
    {"bf16", {.m.k = 2816, ONE(BF16, 2816), .m.tiles = 1}, true},
    {"experts, q4_k", {.m.k = 2816, ONE(Q4_K, 1408), .m.tiles = 1, EXPERTS(0)}, true},
    {"experts, q4_k, 16 rows", {.m.k = 2816, ONE(Q4_K, 1408), .m.tiles = 2, EXPERTS(0)}, true},
    {"experts, q5_0", {.m.k = 704, ONE(Q5_0, 2816), .m.tiles = 1, EXPERTS(1)}, true},
    {"experts, q5_0, 16 rows", {.m.k = 704, ONE(Q5_0, 2816), .m.tiles = 2, EXPERTS(1)}, true},
    {"experts, q8_0, 16 rows", {.m.k = 704, ONE(Q8_0, 2816), .m.tiles = 2, EXPERTS(1)}, true},
    {"every form", {.m.k = 2816, EVERY, .m.tiles = 1}, false},
    {"every form, 16 rows", {.m.k = 2816, EVERY, .m.tiles = 2}, false},
};

/* Templates that compile as they stand. */
static const char *const files[] = {"repack.cu", "matmul_input.cu", "rowwise.cu"};
enum {
    N_CASES = sizeof cases / sizeof cases[0],
    N_FILES = sizeof files / sizeof files[0],
    N_PROGRAMS = N_CASES + N_FILES
};

static bool compile(const Nvrtc *n, const char *arch) {
    Program programs[N_PROGRAMS];
    bool hot[N_PROGRAMS] = {0};
    for (int i = 0; i < N_CASES; i++) {
        Shape s = cases[i].shape;
        shape_choose(&s, 96 << 10);
        programs[i] = program_new(cases[i].label, shape_file(&s), shape_defines(&s, "matmul"), NULL, 0);
        hot[i] = cases[i].hot;
    }
    for (int i = 0; i < N_FILES; i++)
        programs[N_CASES + i] = program_new(files[i], files[i], strdup(""), NULL, 0);
    const bool ok = programs_compile(n, arch, programs, hot, N_PROGRAMS);
    for (int i = 0; i < N_PROGRAMS; i++)
        program_free(&programs[i]);
    return ok;
}

int main(int argc, char **argv) {
    return programs_main(argc, argv, compile);
}
