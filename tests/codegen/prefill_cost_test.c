/* prefill_cost_test.c - what the model of prefill's time says of released sizes: prefill_cost_test WEIGHTS.. prints a
 * table of milliseconds (docs/performance/models.md) and compares with what was measured of such files by the mma.sync
 * kernels on an H100. Longer calls are never dearer. Headers are enough for weights.
 */
#include "codegen/prefill_cost.h"
#include "frontend/frontend.h"
#include "passes/passes.h"
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
    Module *m = fe_compile(a, diag, &in);
    return m && pipeline_run(m, &p) ? m : NULL;
}

/* False when something is wrong with it. */
static bool check_arch(const Module *m, const char *path, const char *arch) {
    const PrefillRates rates = prefill_rates_default();
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

static bool check_model(const char *path) {
    static const char *const archs[] = {"sm_90a", "sm_100a", "sm_89"};
    Arena *a = arena_new();
    Diag *diag = diag_new();
    Weights *w = weights_open(path, diag);
    const Module *m = w ? compile(a, diag, weights_file(w)) : NULL;
    bool ok = m != NULL;
    for (size_t i = 0; m && i < COUNTOF(archs); i++)
        ok &= check_arch(m, path, archs[i]);
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
