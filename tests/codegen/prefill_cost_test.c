/* prefill_cost_test.c - what the model of prefill's time says of released sizes: prefill_cost_test WEIGHTS.. prints a
 * table of milliseconds (docs/performance/models.md) and compares with what was measured of such files by the mma.sync
 * kernels on an H100. Longer calls are never dearer. Which chunk is chosen depends on the rates that the passes were
 * given, and on them alone. Headers are enough for weights.
 */
#include "codegen/prefill_cost.h"
#include "frontend/frontend.h"
#include "passes/passes.h"
#include "runtime/engine/chunk.h"
#include "runtime/engine/modeltext.h"
#include "runtime/weights/weights.h"

#include <math.h>
#include <string.h>

static const int64_t sizes[] = {512, 1024, 2048, 4096};

/* ms of a call of 512 rows at the beginning, attention included: docs/performance/models.md. sm_100a has the kernels,
 * and the shared memory, that an H100 was measured with. */
static const struct {
    const char *model;
    double ms;
} measured[] = {{"gemma4-31b", 135}, {"gemma4-26b-a4b", 31}};

static Module *compile(Arena *a, Diag *diag, const ModelFile *file) {
    TextSource text;
    if (!text_choose(a, diag, NULL, file, "--model", &text))
        return NULL;
    const FeInput in = {.name = text.name, .text = text.text, .len = text.len, .file = file};
    PipelineOptions p = {.pass = pass_options_default(), .out = stdout};
    p.pass.all_taps = false;
    p.pass.kv_k = p.pass.kv_v = DT_F16;
    Module *m = fe_compile(a, diag, &in);
    return m && pipeline_run(m, &p) ? m : NULL;
}

/* False when something is wrong with it. */
static bool check_arch(const Module *m, const char *path, const char *arch) {
    const DeviceRates device = rates_default();
    const PrefillRates rates = prefill_rates(&device);
    PlanTarget target;
    bool ok = plan_target(arch, &target);
    double before = INFINITY;
    printf("%-16s %-8s", strrchr(path, '/') ? strrchr(path, '/') + 1 : path, arch);
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        const double seconds = prefill_seconds(m, &target, &rates, sizes[i]), row = seconds / (double)sizes[i];
        printf(" %8.1f", 1e3 * seconds);
        ok &= seconds > 0 && row <= before;
        before = row;
    }
    const double ms = 1e3 * prefill_seconds(m, &target, &rates, sizes[0]);
    for (size_t i = 0; i < COUNTOF(measured); i++)
        if (strcmp(arch, "sm_100a") == 0 && strstr(path, measured[i].model))
            ok &= fabs(ms / measured[i].ms - 1) < 0.1;
    printf("%s\n", ok ? "" : "  FAILED");
    return ok;
}

/* The chunk for a device with room for any; 0 after errors in the module's diag. */
static int64_t chunk_by(Arena *a, Module *m, const char *arch, const DeviceRates *rates) {
    const ChunkRoom room = chunk_room_of((int64_t)1 << 44);
    ChunkRequest r = {.m = m, .pass = pass_options_default(), .slots = 1};
    PlanTarget target;
    r.pass.context = 8192;
    r.pass.kv_k = r.pass.kv_v = DT_F16;
    r.pass.rates = *rates;
    return plan_target(arch, &target) && chunk_choose(a, &r, &target, &room) ? r.chunk : 0;
}

/* Where products take long, launches hardly count, and of 12B, whose rounds are full soon, the chunk is a shorter one;
 * where launches take long it is the longest. */
static bool check_chunks(Arena *a, Module *m, const char *path) {
    DeviceRates slow = rates_default(), late = slow;
    const DeviceRates usual = slow;
    slow.mma /= 50;
    slow.wgmma /= 50;
    late.launch_ns *= 50;
    const int64_t by_usual = chunk_by(a, m, "sm_90a", &usual), by_slow = chunk_by(a, m, "sm_90a", &slow),
                  by_late = chunk_by(a, m, "sm_90a", &late);
    const bool ok = by_slow && (strstr(path, "12b") ? by_slow < by_usual : by_slow <= by_usual) && by_late == 4096 &&
                    chunk_by(a, m, "sm_90a", &usual) == by_usual;
    printf("%-16s chunk of %lld; products 50 times as slow: %lld; launches: %lld%s\n", m->name, (long long)by_usual,
           (long long)by_slow, (long long)by_late, ok ? "" : "  FAILED");
    return ok;
}

static bool check_model(const char *path) {
    static const char *const archs[] = {"sm_90a", "sm_100a", "sm_89"};
    Arena *a = arena_new();
    Diag *diag = diag_new();
    Weights *w = weights_open(path, diag);
    Module *m = w ? compile(a, diag, weights_file(w)) : NULL;
    bool ok = m != NULL;
    for (size_t i = 0; m && i < COUNTOF(archs); i++)
        ok &= check_arch(m, path, archs[i]);
    ok = ok && check_chunks(a, m, path);
    diag_print(diag, stdout, false);
    if (w)
        weights_close(w);
    diag_free(diag);
    arena_free(a);
    return ok;
}

int main(int argc, char **argv) {
    bool ok = argc > 1;
    printf("ms of a call of         ");
    for (size_t i = 0; i < COUNTOF(sizes); i++)
        printf(" %8lld", (long long)sizes[i]);
    puts(" rows, without attention");
    for (int i = 1; i < argc; i++)
        ok &= check_model(argv[i]);
    return ok ? 0 : 1;
}
