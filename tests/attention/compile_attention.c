/* compile_attention.c - the attention kernels compile for every architecture, and those of released models spill no
 * registers. No GPU needed.
 *
 * compile_attention [arch...]; exit 77 without NVRTC.
 */
#include "tests/attention/attend_case.h"
#include "tests/attention/lab.h"
#include "tests/kernels/program.h"

typedef enum Which { DECODE8, DECODE16, HEADS, PREFILL } Which;

typedef struct Compilation {
    const char *label;
    Which which;
    AttendCase of;
    bool hot; /* must not spill */
} Compilation;

#define SLIDING(h, kv)                                                                                                 \
    .heads = (h), .kv_heads = (kv), .k_dim = 256, .v_dim = 256, .ring = 1, .lookback = 1023, .capacity = 5120,         \
    .prepare = 1, .planes = 3, .chunk = 4096
#define FULL(h, kv, dim)                                                                                               \
    .heads = (h), .kv_heads = (kv), .k_dim = (dim), .v_dim = (dim), .lookback = -1, .capacity = 65536, .prepare = 1,   \
    .planes = 3, .chunk = 4096
static const Compilation all[] = {
    {"sliding", DECODE8, {SLIDING(32, 16)}, true},
    {"sliding, 16 rows", DECODE16, {SLIDING(32, 16)}, true},
    {"sliding, group 8", DECODE16, {SLIDING(8, 1)}, false},
    {"sliding, early", DECODE8, {SLIDING(32, 16), .keys = 64, .stages = 5, .early = 1}, true},
    {"sliding, 32 vectors", DECODE16, {SLIDING(32, 16), .keys = 64, .vectors = 32, .stages = 5, .early = 1}, true},
    {"512", DECODE8, {FULL(32, 4, 512)}, true},
    {"512, early", DECODE8, {FULL(32, 4, 512), .keys = 32, .vectors = 32, .stages = 4, .early = 1}, true},
    {"512, early, 16 rows", DECODE16, {FULL(32, 4, 512), .keys = 32, .vectors = 32, .stages = 4, .early = 1}, true},
    {"128", DECODE8, {FULL(32, 8, 128)}, true},
    {"64, soft-cap, sink", DECODE8, {FULL(32, 8, 64), .score = 1, .sink = 1}, true},
    {"32, bf16", DECODE16, {FULL(8, 8, 32), .bf16 = 1}, true},
    {"heads", HEADS, {SLIDING(32, 16)}, true},
    {"heads 512", HEADS, {FULL(32, 4, 512)}, true},
    {"prefill 256, 128 x 64", PREFILL, {SLIDING(32, 16), .queries = 128, .tile = 64}, true},
    {"prefill 256", PREFILL, {SLIDING(32, 16)}, true},
    {"prefill 512, 64 x 64", PREFILL, {FULL(32, 4, 512), .queries = 64, .tile = 64}, true},
    {"prefill 512", PREFILL, {FULL(32, 4, 512)}, false},
    {"prefill 128", PREFILL, {FULL(32, 8, 128)}, true},
    {"prefill 64, ALiBi, bf16", PREFILL, {FULL(32, 8, 64), .score = 2, .bf16 = 1}, true},
};
enum { N = sizeof all / sizeof all[0] };

static Program program(const Compilation *c) {
    static const char *const files[] = {"attention_decode.cu", "attention_decode.cu", "attention_heads.cu",
                                        "attention_prefill.cu"};
    char *defines = c->which == DECODE8    ? case_decode_defines(&c->of, 8, 1, 0)
                    : c->which == DECODE16 ? case_decode_defines(&c->of, 16, 1, 0)
                                           : case_prefill_defines(&c->of);
    return attention_program(c->label, files[c->which], defines);
}

static bool compile(const Nvrtc *n, const char *arch) {
    Program programs[N];
    bool hot[N];
    for (int i = 0; i < N; i++) {
        programs[i] = program(&all[i]);
        hot[i] = all[i].hot;
    }
    const bool ok = programs_compile(n, arch, programs, hot, N);
    for (int i = 0; i < N; i++)
        program_free(&programs[i]);
    return ok;
}

int main(int argc, char **argv) {
    return programs_main(argc, argv, compile);
}
