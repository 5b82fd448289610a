/* cmd_doctor.c - lap doctor: what this machine offers, and what that means.
 *
 * Only looks: shared libraries are opened to see whether they are there, nothing is started.
 */
#include "runtime/cli/cli.h"
#include <dirent.h>
#include <dlfcn.h>
#include <pwd.h>
#include <readline/readline.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1024.0 * 1024.0)

/* The value after "NAME : " in a file of such lines; "" when absent. */
static const char *proc_value(Arena *a, const char *path, const char *name) {
    FILE *f = fopen(path, "r");
    char line[8192];
    const char *found = "";
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, name, strlen(name)) != 0)
            continue;
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        colon[strcspn(colon, "\n")] = 0;
        found = arena_strdup(a, colon + 1 + strspn(colon + 1, " \t"));
        break;
    }
    if (f)
        fclose(f);
    return found;
}

/* Which instruction sets that matter to the evaluator's loops the processor names. */
static const char *cpu_features(Arena *a) {
    static const char *const wanted[] = {"avx",         "avx2",        "fma",      "f16c",  "avx512f",
                                         "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve"};
    const char *flags = proc_value(a, "/proc/cpuinfo", "flags");
    if (!*flags)
        flags = proc_value(a, "/proc/cpuinfo", "Features");
    char *padded = arena_printf(a, " %s ", flags);
    Buf b = {0};
    for (size_t i = 0; i < COUNTOF(wanted); i++)
        if (strstr(padded, arena_printf(a, " %s ", wanted[i])))
            buf_printf(&b, "%s%s", b.n ? " " : "", wanted[i]);
    const char *out = arena_strdup(a, b.n ? b.s : "none of those looked for");
    buf_free(&b);
    return out;
}

typedef struct Probe {
    const char *what;
    const char *libraries[6]; /* the first that opens is taken */
    const char *found, *absent;
} Probe;

static const Probe probes[] = {
    {"CUDA driver",
     {"libcuda.so.1"},
     "a GPU driver is here; this build computes on the processor all the same",
     "no GPU driver: models run on the processor"},
    {"NVRTC",
     {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"},
     "kernels could be compiled here; this build does not make any",
     "no run-time compiler for kernels: not needed on the processor"},
};

/* Libraries stay open: these do not take being unloaded well, and the program ends soon. */
static const char *probe_library(const Probe *p) {
    for (int i = 0; p->libraries[i]; i++)
        if (dlopen(p->libraries[i], RTLD_LAZY | RTLD_LOCAL))
            return p->libraries[i];
    return NULL;
}

/* The output: lines, or an object. */
typedef struct Report {
    bool json;
    json_t *j;
} Report;

static void row(const Report *r, const char *name, const char *value) {
    if (r->json)
        json_object_set_new(r->j, name, json_bytes(value, strlen(value)));
    else
        printf("%-12s %s\n", name, value);
}

static void report_libraries(const Report *r, Arena *a) {
    for (size_t i = 0; i < COUNTOF(probes); i++) {
        const char *library = probe_library(&probes[i]);
        row(r, probes[i].what,
            library ? arena_printf(a, "%s (%s)", library, probes[i].found)
                    : arena_printf(a, "not found (%s)", probes[i].absent));
    }
}

static bool is_model(const char *name) {
    size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".gguf") == 0;
}

static void report_cache(const Report *r, Arena *a) {
    const struct passwd *user = getpwuid(getuid());
    if (!user || !user->pw_dir) {
        row(r, "models", "no home directory for this user");
        return;
    }
    const char *dir = arena_printf(a, "%s/.cache/lapidary", user->pw_dir);
    row(r, "cache", dir);
    DIR *d = opendir(dir);
    Buf b = {0};
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        if (is_model(e->d_name) && stat(arena_printf(a, "%s/%s", dir, e->d_name), &st) == 0)
            buf_printf(&b, "%s%s (%.1f MiB)", b.n ? ", " : "", e->d_name, (double)st.st_size / MIB);
    }
    if (d)
        closedir(d);
    row(r, "models", b.n ? b.s : "none; scripts/fetch_model.py gets one");
    buf_free(&b);
}

int cmd_doctor(Cli *c) {
    Arena *a = c->arena;
    Report r = {.json = c->o.json, .j = json_object()};
    row(&r, "version", LAP_VERSION);
    const char *cpu = proc_value(a, "/proc/cpuinfo", "model name");
    row(&r, "processor", *cpu ? cpu : "unknown");
    row(&r, "features", cpu_features(a));
    row(&r, "threads", arena_printf(a, "%ld", sysconf(_SC_NPROCESSORS_ONLN)));
    double page = (double)sysconf(_SC_PAGESIZE);
    row(&r, "memory",
        arena_printf(a, "%.0f MiB, %.0f MiB free", (double)sysconf(_SC_PHYS_PAGES) * page / MIB,
                     (double)sysconf(_SC_AVPHYS_PAGES) * page / MIB));
    row(&r, "compiler", __VERSION__);
    row(&r, "jansson", JANSSON_VERSION);
    row(&r, "readline", rl_library_version);
    report_libraries(&r, a);
    row(&r, "back ends", "cpu");
    report_cache(&r, a);
    if (c->o.json)
        json_print(json_incref(r.j), true);
    json_decref(r.j);
    return EXIT_FINE;
}
