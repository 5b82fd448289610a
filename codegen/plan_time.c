/* plan_time.c - a second version of a phase, whose launches note when they run: kernels/launch_time.cu.
 *
 * Each kernel of the phase gets a timed twin, made from its text: what its head says of its name, the text of
 * launch_time.cu, the rest as it is, and the brace that closes LAUNCH_TIMED's. A twin has one parameter more, the
 * launch's record. Everything else (buffers, grids, other arguments) is the first version's, so that the two do the
 * same to the same memory.
 */
#include "codegen/kernel_text.h"
#include "codegen/plan.h"

#include <string.h>

/* The macro in the first line of a kernel's text, "#define MM_NAME matmul_decode_5"; n 0: there is no such line. */
static Str name_macro(const PlanKernel *k) {
    static const char define[] = "#define ";
    const size_t at = sizeof define - 1, name = strlen(k->name);
    if (strncmp(k->text, define, at) != 0)
        return (Str){0};
    const Str macro = {k->text + at, strcspn(k->text + at, " \n")};
    const char *value = macro.s + macro.n;
    return *value == ' ' && strncmp(value + 1, k->name, name) == 0 && value[1 + name] == '\n' ? macro : (Str){0};
}

/* The index of the kernel's twin; -1: its text does not begin as gen_kernel() writes it. */
static int add_twin(Plan *p, const PlanKernel *k, const char *timer) {
    const Str macro = name_macro(k);
    if (!macro.n)
        return -1;
    PlanKernel twin = *k;
    twin.name = arena_printf(p->arena, "%s_timed", k->name);
    twin.text = arena_printf(p->arena, "#define %.*s(...) LAUNCH_TIMED(%s, __VA_ARGS__)\n%s%s}\n", (int)macro.n,
                             macro.s, twin.name, timer, strchr(k->text, '\n') + 1);
    vec_push(p->arena, &p->kernels, twin);
    return p->kernels.n - 1;
}

/* Of all kernels that the phase launches, twins[kernel]; the others have -1. */
static int *add_twins(Plan *p, const PlanPhase *phase, const char *moment, Diag *diag) {
    const int n = p->kernels.n;
    const char *head = arena_printf(p->arena, "#define LAUNCH_MOMENT \"%s\"\n", moment);
    const char *timer = kernel_expand(p->arena, "launch_time.cu", head, NULL, 0);
    int *twins = arena_array(p->arena, (size_t)n + 1, sizeof *twins);
    for (int i = 0; i < n; i++)
        twins[i] = -1;
    for (int i = 0; i < phase->launches.n; i++) {
        const int kernel = phase->launches.v[i].kernel;
        if (twins[kernel] >= 0)
            continue;
        const PlanKernel k = p->kernels.v[kernel];
        twins[kernel] = add_twin(p, &k, timer);
        if (twins[kernel] < 0) {
            diag_error(diag, NO_LOC, "kernel %s cannot be timed: its text does not begin with \"#define .. %s\"",
                       k.name, k.name);
            return NULL;
        }
    }
    return twins;
}

bool plan_time_phase(Plan *p, int phase, const char *moment, Diag *diag) {
    const PlanPhase from = p->phases.v[phase];
    const int *twins = add_twins(p, &from, moment, diag);
    if (!twins)
        return false;
    PlanPhase to = from;
    to.name = arena_printf(p->arena, "%s_timed", from.name);
    to.timed = true;
    to.launches = (LaunchVec){0};
    const PlanBuffer times = {"launch times", BUFFER_TIMES, (int64_t)from.launches.n * PLAN_TIMES_BYTES, -1};
    vec_push(p->arena, &p->buffers, times);
    for (int i = 0; i < from.launches.n; i++) {
        const PlanLaunch *l = &from.launches.v[i];
        PlanLaunch timed = *l;
        const PlanArg record = {ARG_BUFFER, p->buffers.n - 1, (int64_t)i * PLAN_TIMES_BYTES};
        timed.kernel = twins[l->kernel];
        timed.args.v = NULL;
        timed.args.n = timed.args.cap = 0;
        for (int k = 0; k < l->args.n; k++)
            vec_push(p->arena, &timed.args, l->args.v[k]);
        vec_push(p->arena, &timed.args, record);
        vec_push(p->arena, &to.launches, timed);
    }
    vec_push(p->arena, &p->phases, to);
    return true;
}
