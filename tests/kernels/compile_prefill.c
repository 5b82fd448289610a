/* compile_prefill.c - the prefill kernels compile for every architecture, and the hot ones spill no registers where
 * they fit into shared memory. No GPU needed.
 *
 * compile_prefill [arch...]; exit 77 without NVRTC.
 */
#include "codegen/plan.h"
#include "tests/kernels/prefill_lab.h"
#include "tests/kernels/program.h"

typedef struct Case {
    const char *label;
    Prefill p;
    bool hot; /* must not spill */
} Case;

#define ONE(type, n) .m.n_segments = 1, .m.segments = {{DT_##type, n}}
#define TWO(type, n) .m.n_segments = 2, .m.segments = {{DT_Q4_K, 20480}, {DT_##type, n}}
#define GATE         .experts = 128, .slots = 8
#define DOWN         .experts = 128, .slots = 8, .x_pairs = 1
static const Case cases[] = {
    {"q4_k, 256 x 128", {{.m.k = 5376, ONE(Q4_K, 43008)}, 4096, {16, 4, 128, 64, 2, 1}}, true},
    {"q4_k, 256 x 96", {{.m.k = 5376, ONE(Q4_K, 43008)}, 4096, {16, 4, 96, 48, 2, 1}}, true},
    {"q4_k, 128 x 64", {{.m.k = 5376, ONE(Q4_K, 43008)}, 4096, {8, 2, 64, 32, 2, 2}}, true},
    {"q4_k, 256 x 64", {{.m.k = 5376, ONE(Q4_K, 43008)}, 4096, {16, 4, 64, 32, 2, 1}}, true},
    {"q4_k, 96 x 64", {{.m.k = 5376, ONE(Q4_K, 43008)}, 4096, {6, 2, 64, 32, 2, 1}}, true},
    {"q4_k, 128 x 32", {{.m.k = 5376, ONE(Q4_K, 43008)}, 4096, {8, 1, 32, 32, 2, 1}}, true},
    {"q4_k + q6_k, 256 x 112", {{.m.k = 5376, TWO(Q6_K, 4096)}, 4096, {16, 4, 112, 56, 2, 1}}, true},
    {"q6_k, 256 x 112", {{.m.k = 21504, ONE(Q6_K, 5376)}, 4096, {16, 4, 112, 56, 2, 1}}, true},
    {"q5_k, 256 x 112", {{.m.k = 5376, ONE(Q5_K, 43008)}, 4096, {16, 4, 112, 56, 2, 1}}, true},
    {"q8_0, 256 x 80", {{.m.k = 2816, ONE(Q8_0, 2816)}, 4096, {16, 4, 80, 40, 2, 1}}, true},
    {"bf16, 128 x 64", {{.m.k = 5376, ONE(BF16, 16384)}, 4096, {8, 2, 64, 32, 2, 1}}, true},
    {"experts, q4_k", {{.m.k = 2816, ONE(Q4_K, 1408), GATE}, 4096, {16, 4, 64, 32, 2, 1}}, true},
    {"experts, q5_0", {{.m.k = 704, ONE(Q5_0, 2816), DOWN}, 4096, {16, 4, 64, 32, 2, 1}}, true},
    {"q6_k, 128 x 32", {{.m.k = 21504, ONE(Q6_K, 5376)}, 4096, {8, 1, 32, 32, 2, 1}}, true},
    {"every form", {{.m.k = 2816, EVERY}, 4096, {8, 2, 32, 16, 2, 1}}, false},
};
enum { N_CASES = sizeof cases / sizeof cases[0], EXPERTS_CASE = 11, N_PROGRAMS = N_CASES + 3 };

static bool compile(const Nvrtc *nvrtc, const char *arch) {
    const Prefill *experts = &cases[EXPERTS_CASE].p;
    Program programs[N_PROGRAMS];
    bool hot[N_PROGRAMS] = {0};
    PlanTarget target;
    int n = 0;
    if (!plan_target(arch, &target))
        return false;
    for (int i = 0; i < N_CASES; i++)
        if (problem_shared(&cases[i].p) + 1024 <= target.shared_per_block) {
            hot[n] = cases[i].hot;
            programs[n++] = problem_matmul(&cases[i].p, cases[i].label);
        }
    programs[n++] = problem_input(&cases[0].p, "input");
    programs[n++] = problem_input(experts, "input, gathered");
    programs[n++] = problem_sort(experts, "sort");
    const bool ok = programs_compile(nvrtc, arch, programs, hot, n);
    for (int i = 0; i < n; i++)
        program_free(&programs[i]);
    return ok;
}

int main(int argc, char **argv) {
    return programs_main(argc, argv, compile);
}
