/* compile_kernels.c - every kernel compiles for every architecture, and the hot ones spill no registers. No GPU needed.
 *
 * compile_kernels [arch...]; exit 77 without NVRTC.
 */
#include "runtime/device/compile.h"
#include "tests/kernels/kernel_text.h"
#include "tests/kernels/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kernels of matmul_decode.cu as models need them. */
typedef struct Case {
    const char *label;
    Shape shape;
    bool hot; /* must not spill */
} Case;

#define ONE(type, n) .n_segments = 1, .segments = {{DT_##type, n}}
#define EVERY                                                                                                          \
    .n_segments = 9, .segments = {{DT_Q4_K, 40}, {DT_Q5_K, 40}, {DT_Q6_K, 40}, {DT_Q4_0, 40}, {DT_Q4_1, 40},           \
                                  {DT_Q5_0, 40}, {DT_Q5_1, 40}, {DT_Q8_0, 40}, {DT_BF16, 40}}
static const Case cases[] = {
    {"q4_k", {.k = 5376, ONE(Q4_K, 43008), .nt = 1}, true},
    {"q4_k, 2 groups", {.k = 5376, ONE(Q4_K, 43008), .nt = 1, .groups = 2}, true},
    {"q4_k, shared rows", {.k = 5376, ONE(Q4_K, 43008), .nt = 1, .groups = 2, .x_shared = 1}, true},
    {"q4_k, 16 rows", {.k = 5376, ONE(Q4_K, 43008), .nt = 2}, true},
    {"q4_k + q6_k", {.k = 5376, .n_segments = 2, .segments = {{DT_Q4_K, 20480}, {DT_Q6_K, 4096}}, .nt = 1}, true},
    {"q6_k", {.k = 21504, ONE(Q6_K, 5376), .nt = 1}, true},
    {"q6_k, 16 rows", {.k = 21504, ONE(Q6_K, 5376), .nt = 2}, true},
    {"q5_k", {.k = 2816, ONE(Q5_K, 4096), .nt = 1}, true},
    {"q5_0", {.k = 704, ONE(Q5_0, 2816), .nt = 1}, true},
    {"q8_0", {.k = 704, ONE(Q8_0, 2816), .nt = 1}, true},
    {"bf16", {.k = 2816, ONE(BF16, 2816), .nt = 1}, true},
    {"every form", {.k = 2816, EVERY, .nt = 1}, false},
    {"every form, 16 rows", {.k = 2816, EVERY, .nt = 2}, false},
};
enum { N_CASES = sizeof cases / sizeof cases[0], N_PROGRAMS = N_CASES + 2 };

static const char *const all_archs[] = {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"};
static const char *const options[] = {"--std=c++17", "--ptxas-options=-v"};

static Program program(const char *name, const char *file, char *defines) {
    Program p = {.name = name, .source = kernel_source(file, defines), .options = options, .n_options = 2};
    free(defines);
    return p;
}

/* Largest number that follows `before` .. `after` in ptxas' report: "Used 96 registers". */
static int largest(const char *log, const char *before, const char *after) {
    int most = 0;
    for (const char *p = log ? strstr(log, after) : NULL; p; p = strstr(p + 1, after)) {
        const char *digits = p;
        while (digits > log && digits[-1] >= '0' && digits[-1] <= '9')
            digits--;
        const size_t n = strlen(before);
        if (digits - log >= (long)n && !strncmp(digits - n, before, n) && atoi(digits) > most)
            most = atoi(digits);
    }
    return most;
}

static bool compile_all(const Nvrtc *n, const char *arch, const Program *programs) {
    static Compiled out[N_PROGRAMS];
    DevError e = {0};
    bool ok = compile_programs(n, arch, programs, N_PROGRAMS, &(CompileOptions){0}, out, &e);
    if (!ok)
        printf("%s: %s\n", arch, e.text);
    for (int i = 0; i < N_PROGRAMS; i++) {
        const int registers = largest(out[i].log, "Used ", " registers");
        const int spill = largest(out[i].log, ", ", " bytes spill stores");
        const bool hot = i < N_CASES && cases[i].hot;
        printf("%-8s %-22s %3d registers, %3d bytes spilled%s\n", arch, programs[i].name, registers, spill,
               hot && spill    ? "  <-- FAILED"
               : !out[i].cubin ? "  <-- FAILED"
                               : "");
        if (out[i].cubin && !registers) {
            printf("ptxas reported nothing\n");
            ok = false;
        }
        ok = ok && !(hot && spill);
        compiled_free(&out[i]);
    }
    return ok;
}

int main(int argc, char **argv) {
    DevError e = {0};
    Nvrtc *n = nvrtc_open(NULL, &e);
    if (!n) {
        DevError fetched = {0};
        n = nvrtc_open(LAP_NVRTC, &fetched); /* what scripts/fetch_nvrtc.py got */
    }
    if (!n) {
        printf("%s\n", e.text);
        return e.kind == DEV_ABSENT ? 77 : 1;
    }
    Program programs[N_PROGRAMS];
    for (int i = 0; i < N_CASES; i++) {
        Shape s = cases[i].shape;
        shape_choose(&s, 96 << 10);
        programs[i] = program(cases[i].label, "matmul_decode.cu", shape_defines(&s, "matmul"));
    }
    Shape s = cases[0].shape;
    programs[N_CASES] = program("repack", "repack.cu", strdup(""));
    programs[N_CASES + 1] = program("input", "matmul_input.cu", shape_input_defines(&s));

    const char *const *archs = argc > 1 ? (const char *const *)argv + 1 : all_archs;
    const int n_archs = argc > 1 ? argc - 1 : (int)(sizeof all_archs / sizeof all_archs[0]);
    bool ok = true;
    for (int i = 0; i < n_archs; i++)
        if (nvrtc_supports(n, archs[i]))
            ok &= compile_all(n, archs[i], programs);
        else
            printf("%s: this NVRTC does not know it\n", archs[i]);
    for (int i = 0; i < N_PROGRAMS; i++)
        free((char *)programs[i].source);
    nvrtc_close(n);
    return ok ? 0 : 1;
}
