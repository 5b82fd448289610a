/* compile_kernels.c - matmuls that no released model has compile for every architecture, and the hot ones spill no
 * registers. No GPU needed. Those of released models: compile_models.c.
 *
 * compile_kernels [all | ARCH..], without for the first, and a drawn third for a drawn one; exit 77 without NVRTC.
 */
#include "codegen/plan.h"
#include "tests/kernels/prefill_lab.h"
#include "tests/kernels/program.h"

#include <stdlib.h>
#include <string.h>

typedef struct Case {
    const char *label;
    Shape shape;
    bool prefill;
    bool hot; /* must not spill */
} Case;

#define ONE(type, n) .m.n_segments = 1, .m.segments = {{DT_##type, n}}
#define EXPERTS      .experts = 128, .slots = 8, .tail = 1
static const Case cases[] = {
    {"q5_k", {.m.k = 5376, ONE(Q5_K, 21504), .m.tiles = 1, .tail = 1}, false, true},
    {"q5_k, 16 rows", {.m.k = 5376, ONE(Q5_K, 21504), .m.tiles = 2, .tail = 1}, false, true},
    {"q4_k, shared rows", {.m.k = 5376, ONE(Q4_K, 43008), .m.tiles = 1, .m.groups = 1, .x_shared = 1}, false, true},
    {"experts, q5_k", {.m.k = 2816, ONE(Q5_K, 1408), .m.tiles = 2, EXPERTS}, false, true},
    {"every form", {.m.k = 2816, EVERY, .m.tiles = 1}, false, false},
    {"every form, 16 rows", {.m.k = 2816, EVERY, .m.tiles = 2}, false, false},
    /* 88 and 152 bytes spill on sm_90a and sm_100a, in the largest of the blocks that fit */
    {"prefill, q5_k", {.m.k = 5376, ONE(Q5_K, 21504)}, true, false},
    {"prefill, every form", {.m.k = 2816, EVERY}, true, false},
};
enum { N_CASES = sizeof cases / sizeof cases[0], N_PROGRAMS = N_CASES + 1, ROWS = 512 };

/* As a plan for the target cuts it. */
static Program program(const Case *c, const PlanTarget *target) {
    Shape s = c->shape;
    if (c->prefill) {
        Prefill p = {s, ROWS, {0}};
        if (!prefill_cut(&s.m, target->shared_per_block, target->wgmma, &p.cut))
            abort();
        return problem_matmul(&p, c->label);
    }
    shape_choose(&s, target->shared_per_block - (1 << 10));
    return program_new(c->label, shape_file(&s), shape_defines(&s, "matmul"), NULL, 0);
}

static bool compile(const Nvrtc *n, const char *arch) {
    Program programs[N_PROGRAMS];
    int most[N_PROGRAMS];
    PlanTarget target;
    if (!plan_target(arch, &target))
        return false;
    for (int i = 0; i < N_CASES; i++) {
        programs[i] = program(&cases[i], &target);
        most[i] = cases[i].hot ? 0 : ANY_SPILL;
    }
    most[N_CASES] = ANY_SPILL;
    programs[N_CASES] = program_new("repack", "repack.cu", strdup(""), NULL, 0); /* of every type */
    const bool ok = programs_compile(n, arch, programs, most, N_PROGRAMS);
    for (int i = 0; i < N_PROGRAMS; i++)
        program_free(&programs[i]);
    return ok;
}

int main(int argc, char **argv) {
    return programs_main(argc, argv, compile);
}
