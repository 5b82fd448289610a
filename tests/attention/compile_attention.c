/* compile_attention.c - attention that no released model has compiles for every architecture, and the hot kernels spill
 * no registers. No GPU needed. What released models have: compile_models.c.
 *
 * compile_attention [all | ARCH..], without for the first, and a drawn third for a drawn one; exit 77 without NVRTC.
 */
#include "codegen/plan.h"
#include "tests/attention/attend_case.h"
#include "tests/attention/lab.h"
#include "tests/kernels/program.h"

typedef enum Which { DECODE8, DECODE16, HEADS, PREFILL, WGMMA, MEANS, CHOOSE, PIPE8, PIPE16 } Which;

typedef struct Compilation {
    const char *label;
    Which which;
    AttendCase of;
    bool hot; /* must not spill, but for attention_decode.cu by 16 warps */
} Compilation;

#define SLIDING(h, kv)                                                                                                 \
    .heads = (h), .kv_heads = (kv), .k_dim = 256, .v_dim = 256, .ring = 1, .lookback = 1023, .capacity = 5120,         \
    .prepare = 1, .planes = 3, .chunk = 4096
#define FULL(h, kv, dim)                                                                                               \
    .heads = (h), .kv_heads = (kv), .k_dim = (dim), .v_dim = (dim), .lookback = -1, .capacity = 65536, .prepare = 1,   \
    .planes = 3, .chunk = 4096
#define BF16        .k_type = DT_BF16, .v_type = DT_BF16
#define TYPES(k, v) .k_type = DT_##k, .v_type = DT_##v
#define SPARSE      .sparse = {.block = 128, .sink = 2, .local = 4, .tail = 2, .alpha = 0.12}
#define KEYS(n)     .keys = (n), .stages = 4, .early = 1, .turned = 16
static const Compilation all[] = {
    {"256, bf16", DECODE8, {SLIDING(32, 16), KEYS(64), .warps = 16, BF16}, true},
    {"512, bf16, 16 rows", DECODE16, {FULL(32, 4, 512), KEYS(32), .vectors = 32, BF16}, true},
    {"64, soft-cap, sink", DECODE8, {FULL(32, 8, 64), KEYS(64), .warps = 16, .score = 1, .sink = 1}, true},
    {"32, bf16", DECODE16, {FULL(8, 8, 32), KEYS(64), .warps = 16, BF16}, true},
    {"256, q8_0", DECODE8, {SLIDING(32, 16), KEYS(64), TYPES(Q8_0, Q8_0)}, true},
    {"512, q8_0, 16 rows", DECODE16, {FULL(32, 4, 512), KEYS(32), .vectors = 32, TYPES(Q8_0, Q8_0)}, true},
    {"512, tq3_0, 16 rows", DECODE16, {FULL(32, 4, 512), KEYS(32), .vectors = 32, TYPES(TQ3_0, TQ3_0)}, true},
    {"512, bf16 and q4_0", DECODE8, {FULL(32, 4, 512), KEYS(32), TYPES(BF16, Q4_0)}, true},
    {"pipeline 512", PIPE8, {FULL(32, 4, 512), KEYS(32), .vectors = 32}, true},
    {"pipeline 512, q8_0, 16 rows", PIPE16, {FULL(32, 4, 512), KEYS(32), .vectors = 32, TYPES(Q8_0, Q8_0)}, true},
    {"pipeline 512, tq3_0 and q8_0", PIPE8, {FULL(32, 4, 512), KEYS(32), .vectors = 32, TYPES(TQ3_0, Q8_0)}, true},
    {"pipeline 512, tq3_0", PIPE8, {FULL(32, 4, 512), KEYS(32), .vectors = 32, TYPES(TQ3_0, TQ3_0)}, true},
    {"pipeline 512, bf16 and q4_0", PIPE8, {FULL(32, 4, 512), KEYS(32), TYPES(BF16, Q4_0)}, true},
    {"pipeline 128, soft-cap, sink", PIPE8, {FULL(32, 8, 128), KEYS(64), .score = 1, .sink = 1}, true},
    {"heads, q8_0 and tq3_0", HEADS, {SLIDING(32, 16), TYPES(Q8_0, TQ3_0)}, false},
    {"heads, bf16", HEADS, {SLIDING(32, 16), BF16}, false},
    {"prefill 256, bf16", PREFILL, {SLIDING(32, 16), .queries = 128, .tile = 64, BF16}, true},
    {"prefill 512, bf16", PREFILL, {FULL(32, 4, 512), .queries = 64, .tile = 64, BF16}, true},
    {"prefill 256, q4_0 and f16", PREFILL, {SLIDING(32, 16), .queries = 128, .tile = 64, TYPES(Q4_0, F16)}, true},
    {"prefill 256, tq3_0", PREFILL, {SLIDING(32, 16), .queries = 128, .tile = 64, TYPES(TQ3_0, TQ3_0)}, true},
    {"prefill 512, q8_0 and tq3_0", PREFILL, {FULL(32, 4, 512), .queries = 64, .tile = 64, TYPES(Q8_0, TQ3_0)}, true},
    {"wgmma 256, bf16", WGMMA, {SLIDING(32, 16), .wgmma = 1, BF16}, true},
    {"wgmma 256", WGMMA, {FULL(32, 4, 256), .wgmma = 1}, true},
    {"wgmma 128, soft-cap, sink", WGMMA, {FULL(32, 8, 128), .wgmma = 1, .score = 1, .sink = 1}, true},
    {"wgmma 64, ALiBi", WGMMA, {FULL(32, 8, 64), .wgmma = 1, .score = 2}, true},
    {"wgmma 512", WGMMA, {FULL(32, 4, 512), .wgmma = 1}, true},
    {"wgmma, sparse 512, bf16", WGMMA, {FULL(32, 4, 512), SPARSE, .wgmma = 1, BF16}, true},
    {"wgmma, sparse 256", WGMMA, {FULL(16, 8, 256), SPARSE, .wgmma = 1}, true},
    {"prefill 64, soft-cap, sink", PREFILL, {FULL(32, 8, 64), .score = 1, .sink = 1}, true},
    {"prefill 64, ALiBi, bf16", PREFILL, {FULL(32, 8, 64), .score = 2, BF16}, true},
    {"sparse 64", PREFILL, {FULL(32, 8, 64), SPARSE}, true},
    {"sparse 256, bf16", PREFILL, {FULL(16, 8, 256), SPARSE, .queries = 128, .tile = 64, BF16}, true},
    {"sparse 64, blocks of 16, ALiBi", PREFILL, {FULL(32, 8, 64), .score = 2, .sparse = {16, 1, 1, 1, 0, 0.5}}, true},
    {"sparse 256, q8_0", PREFILL, {FULL(16, 8, 256), SPARSE, .queries = 128, .tile = 64, TYPES(Q8_0, Q8_0)}, true},
    {"sparse 256, q4_0 and f16",
     PREFILL,
     {FULL(16, 8, 256), SPARSE, .queries = 128, .tile = 64, TYPES(Q4_0, F16)},
     true},
    {"sparse 128, tq3_0 and bf16", PREFILL, {FULL(16, 8, 128), SPARSE, TYPES(TQ3_0, BF16)}, true},
    {"sparse 512, tq3_0", PREFILL, {FULL(16, 2, 512), SPARSE, .queries = 64, .tile = 64, TYPES(TQ3_0, TQ3_0)}, true},
    {"means 512, q8_0", MEANS, {FULL(16, 2, 512), SPARSE, TYPES(Q8_0, Q8_0)}, true},
    {"means 256, q4_0", MEANS, {FULL(16, 8, 256), SPARSE, TYPES(Q4_0, Q4_0)}, true},
    {"means 512, tq3_0", MEANS, {FULL(16, 2, 512), SPARSE, TYPES(TQ3_0, TQ3_0)}, true},
    {"choose 512, tq3_0", CHOOSE, {FULL(16, 2, 512), SPARSE, TYPES(TQ3_0, TQ3_0)}, true},
    {"means 64, bf16", MEANS, {FULL(32, 8, 64), SPARSE, BF16}, true},
    {"choose 64, bf16", CHOOSE, {FULL(32, 8, 64), SPARSE, BF16}, true},
    {"choose 256, soft-cap", CHOOSE, {FULL(16, 8, 256), SPARSE, .score = 1}, true},
    {"choose 512, blocks of 16, ALiBi", CHOOSE, {FULL(16, 2, 512), .score = 2, .sparse = {16, 1, 1, 1, 0, 0.5}}, true},
};
enum { N = sizeof all / sizeof all[0] };

static Program program(const Compilation *c) {
    static const char *const files[] = {
        "attention_decode.cu", "attention_decode.cu", "attention_heads.cu",    "attention_prefill.cu", NULL,
        "attention_means.cu",  "attention_choose.cu", "attention_pipeline.cu", "attention_pipeline.cu"};
    const AttendCase piped = case_pipeline(&c->of);
    char *defines = c->which == DECODE8    ? case_decode_defines(&c->of, 8, 1, 0)
                    : c->which == DECODE16 ? case_decode_defines(&c->of, 16, 1, 0)
                    : c->which == PIPE8    ? case_decode_defines(&piped, 8, 1, 0)
                    : c->which == PIPE16   ? case_decode_defines(&piped, 16, 1, 0)
                                           : case_prefill_defines(&c->of);
    return attention_program(c->label, c->which == WGMMA ? case_prefill_file(&c->of) : files[c->which], defines);
}

static bool compile(const Nvrtc *n, const char *arch) {
    Program programs[N];
    int most[N];
    PlanTarget target;
    int count = 0;
    if (!plan_target(arch, &target))
        return false;
    for (int i = 0; i < N; i++) {
        if ((all[i].which == WGMMA || all[i].which == PIPE8 || all[i].which == PIPE16) && !target.wgmma)
            continue;
        programs[count] = program(&all[i]);
        most[count++] = !all[i].hot ? ANY_SPILL : all[i].of.warps == 16 ? SPILL_OF_16_WARPS : 0;
    }
    const bool ok = programs_compile(n, arch, programs, most, count);
    for (int i = 0; i < count; i++)
        program_free(&programs[i]);
    return ok;
}

int main(int argc, char **argv) {
    return programs_main(argc, argv, compile);
}
