/* cmd_doctor.c - lap doctor: what this machine offers, and what that means.
 *
 * Only looks; --roofline also measures each GPU, which puts its kernel into the cache of compiled kernels.
 */
#include "runtime/cli/cli.h"
#include "runtime/device/roofline.h"
#include <dirent.h>
#include <pwd.h>
#include <readline/readline.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1024.0 * 1024.0)
#define GIB (1024.0 * MIB)

enum { MAX_GPUS = 16 };

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

/* The output: lines, or an object. */
typedef struct Report {
    bool json;
    json_t *j;
} Report;

/* Further lines of a value are put under its first. */
static void row(const Report *r, const char *name, const char *value) {
    if (r->json) {
        json_object_set_new(r->j, name, json_bytes(value, strlen(value)));
        return;
    }
    printf("%-12s ", name);
    for (; *value; value++) {
        putchar(*value);
        if (*value == '\n')
            printf("%13s", "");
    }
    putchar('\n');
}

/* ~/.cache/lapidary; NULL without a home. */
static const char *cache_dir(Arena *a) {
    const struct passwd *user = getpwuid(getuid());
    return user && user->pw_dir ? arena_printf(a, "%s/.cache/lapidary", user->pw_dir) : NULL;
}

/* ==== GPU ==== */

static bool measure(Cli *c, const Report *r, int gpu, const Nvrtc *nvrtc, CubinCache *cache) {
    DevError e = {0};
    DevOptions o = {.ordinal = gpu};
    Roofline roofline;
    Device *d = dev_open(&o, &e);
    bool ok = d && roofline_measure(d, nvrtc, cache, &roofline, &e);
    dev_close(d);
    row(r, arena_printf(c->arena, "GPU %d reads", gpu),
        ok ? arena_printf(c->arena, "%.0f GB/s (median of %d passes over %.1f GiB: %.0f)", roofline.read_gb_per_second,
                          roofline.passes, (double)roofline.bytes / GIB, roofline.median_gb_per_second)
           : e.text);
    return ok;
}

static bool measure_all(Cli *c, const Report *r, int gpus, const Nvrtc *nvrtc) {
    const char *dir = cache_dir(c->arena);
    CubinCache *cache = dir ? cubin_cache_open(arena_printf(c->arena, "%s/kernels", dir)) : NULL;
    bool ok = true;
    for (int i = 0; i < gpus; i++)
        ok = measure(c, r, i, nvrtc, cache) && ok;
    char *warnings = cache ? cubin_cache_warnings(cache) : NULL;
    if (warnings)
        fprintf(stderr, "lap doctor: warning: %s\n", warnings);
    free(warnings);
    cubin_cache_close(cache);
    return ok;
}

/* How many there are. */
static int report_gpus(const Report *r, Arena *a) {
    DevInfo info[MAX_GPUS];
    DevError e = {0};
    int n = 0;
    if (!dev_list(NULL, info, MAX_GPUS, &n, &e)) {
        row(r, "CUDA driver", e.text);
        return 0;
    }
    n = n < MAX_GPUS ? n : MAX_GPUS;
    row(r, "CUDA driver", arena_printf(a, "CUDA %d.%d", info[0].driver_cuda / 1000, info[0].driver_cuda % 1000 / 10));
    for (int i = 0; i < n; i++)
        row(r, arena_printf(a, "GPU %d", i),
            arena_printf(a, "%s, %s, %d multiprocessors, %.1f GiB, %.0f MiB L2, %lld KiB shared memory a block%s",
                         info[i].name, info[i].arch, info[i].multiprocessors, (double)info[i].total_bytes / GIB,
                         (double)info[i].l2_bytes / MIB, (long long)info[i].shared_per_block >> 10,
                         info[i].pdl ? ", dependent launch" : ""));
    return n;
}

/* The exit code: what was asked for with --roofline must have been measured. */
static int report_device(Cli *c, const Report *r) {
    DevError e = {0};
    int gpus = report_gpus(r, c->arena);
    Nvrtc *nvrtc = nvrtc_open(c->o.nvrtc, &e);
    row(r, "NVRTC",
        nvrtc ? arena_printf(c->arena, "%d.%d, %s", nvrtc_info(nvrtc)->major, nvrtc_info(nvrtc)->minor,
                             nvrtc_info(nvrtc)->path)
              : e.text);
    int code = EXIT_FINE;
    if (c->o.roofline && (!nvrtc || gpus == 0))
        code = cli_fail(c, EXIT_SYSTEM, "--roofline needs a GPU with its driver, and NVRTC");
    else if (c->o.roofline && !measure_all(c, r, gpus, nvrtc))
        code = EXIT_SYSTEM;
    nvrtc_close(nvrtc);
    return code;
}

static bool is_model(const char *name) {
    size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".gguf") == 0;
}

static void report_cache(const Report *r, Arena *a) {
    const char *dir = cache_dir(a);
    if (!dir) {
        row(r, "models", "no home directory for this user");
        return;
    }
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
    int code = report_device(c, &r);
    row(&r, "back ends", "cpu");
    report_cache(&r, a);
    if (c->o.json)
        json_print(json_incref(r.j), true);
    json_decref(r.j);
    return code;
}
