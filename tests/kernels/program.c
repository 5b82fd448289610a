/* program.c - see program.h. */
#include "tests/kernels/program.h"

#include "codegen/plan.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

Program program_new(const char *label, const char *file, char *defines, const Body *bodies, int n_bodies) {
    Arena *a = arena_new();
    const char *text = strdup(kernel_expand(a, file, defines, bodies, n_bodies));
    arena_free(a);
    free(defines);
    if (!text)
        exit(2);
    return (Program){.name = label, .source = text, .options = plan_options, .n_options = n_plan_options};
}

void program_free(Program *p) {
    free((char *)p->source);
}

/* ==== What ptxas says ==== */

int ptxas_number(const char *log, const char *unit) {
    int most = 0;
    for (const char *p = log ? strstr(log, unit) : NULL; p; p = strstr(p + 1, unit)) {
        const char *digits = p;
        while (digits > log && digits[-1] >= '0' && digits[-1] <= '9')
            digits--;
        most = atoi(digits) > most ? atoi(digits) : most;
    }
    return most;
}

bool ptxas_serializes(const char *log) {
    return strstr(log, "wgmma") && strstr(log, "serialized");
}

const char *const *reporting_options(int *n) {
    static const char *options[8];
    if (n_plan_options >= (int)COUNTOF(options))
        ICE("%d options of plans", n_plan_options);
    for (int i = 0; i < n_plan_options; i++)
        options[i] = plan_options[i];
    options[n_plan_options] = "--ptxas-options=-v";
    *n = n_plan_options + 1;
    return options;
}

/* Of programs_compile()'s programs every `step`-th, from number `first` on. */
static int first = 0, step = 1;

bool programs_compile(const Nvrtc *n, const char *arch, const Program *all, const int *most, int n_all) {
    const int n_programs = (n_all - first + step - 1) / step;
    Program *programs = calloc((size_t)n_programs + 1, sizeof *programs);
    Compiled *out = calloc((size_t)n_programs + 1, sizeof *out);
    DevError e = {0};
    if (!out || !programs)
        exit(2);
    for (int i = 0; i < n_programs; i++) {
        programs[i] = all[first + i * step];
        programs[i].options = reporting_options(&programs[i].n_options);
    }
    bool ok = compile_programs(n, arch, programs, n_programs, &(CompileOptions){0}, out, &e);
    if (!ok)
        printf("%s: %s\n", arch, e.text);
    for (int i = 0; i < n_programs; i++) {
        const int registers = ptxas_number(out[i].log, " registers");
        const int spill = ptxas_number(out[i].log, " bytes spill stores");
        const int limit = most[first + i * step];
        const bool good =
            out[i].cubin && registers && (limit == ANY_SPILL || (spill <= limit && !ptxas_serializes(out[i].log)));
        printf("%-8s %-25s %3d registers, %3d bytes spilled%s\n", arch, programs[i].name, registers, spill,
               good ? "" : "  <-- FAILED");
        ok &= good;
        compiled_free(&out[i]);
    }
    printf("%-8s %d of %d compiled\n", arch, n_programs, n_all);
    free(programs);
    free(out);
    return ok;
}

/* ==== Programs that compile ==== */

const char *const program_archs[] = {"sm_90a", "sm_89", "sm_80", "sm_86", "sm_100a", "sm_120a"};
const int n_program_archs = COUNTOF(program_archs);
enum { DRAWN_STEP = 3 };

Nvrtc *programs_nvrtc(void) {
    DevError e = {0}, fetched = {0};
    Nvrtc *n = nvrtc_open(NULL, &e);
    if (!n)
        n = nvrtc_open(LAP_NVRTC, &fetched);
    if (n)
        return n;
    printf("%s\n", e.text);
    exit(e.kind == DEV_ABSENT ? 77 : 1);
}

int programs_main(int argc, char **argv, bool (*compile)(const Nvrtc *n, const char *arch)) {
    const long now = (long)time(NULL);
    const char *const drawn[] = {program_archs[0], program_archs[1 + now % (n_program_archs - 1)]};
    const bool all = argc > 1 && strcmp(argv[1], "all") == 0;
    const char *const *archs = all ? program_archs : argc > 1 ? (const char *const *)argv + 1 : drawn;
    const int n_archs = all ? n_program_archs : argc > 1 ? argc - 1 : (int)COUNTOF(drawn);
    Nvrtc *n = programs_nvrtc();
    bool ok = true;
    for (int i = 0; i < n_archs; i++) {
        step = archs == drawn && i > 0 ? DRAWN_STEP : 1;
        first = step > 1 ? (int)(now / (n_program_archs - 1) % step) : 0;
        if (nvrtc_supports(n, archs[i]))
            ok &= compile(n, archs[i]);
        else
            printf("%s: this NVRTC does not know it\n", archs[i]);
    }
    nvrtc_close(n);
    return ok ? 0 : 1;
}
