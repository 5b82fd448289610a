/* cmd_doctor.c - lap doctor: what this machine offers, and what that means.
 *
 * Only looks; --roofline also measures each GPU, which puts its kernel into the cache of compiled kernels, and the
 * rates by which passes choose into the file beside them.
 */
#include "runtime/cli/cli.h"
#include "runtime/device/roofline.h"
#include <dirent.h>
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

/* A field of the object; nothing in the text. */
static void set(const Report *r, const char *name, json_t *value) {
    if (r->json)
        json_object_set_new(r->j, name, value);
    else
        json_decref(value);
}

/* The same in the text and the object. Further lines of a value are put under its first. */
static void row(const Report *r, const char *name, const char *value) {
    if (r->json)
        return set(r, name, json_bytes(value, strlen(value)));
    printf("%-12s ", name);
    for (; *value; value++) {
        putchar(*value);
        if (*value == '\n')
            printf("%13s", "");
    }
    putchar('\n');
}

/* A line of the text, and what stands for it in the object. */
static void row_as(const Report *r, const char *name, const char *text, json_t *value) {
    set(r, name, value);
    if (!r->json)
        row(r, name, text);
}

/* ==== GPU ==== */

/* Measured anew, and kept where there is a folder for it. */
static bool renew_rates(Cli *c, Device *d, const Nvrtc *nvrtc, CubinCache *cache, DevError *e) {
    const char *file = cli_tuned_file(c, NULL);
    DeviceRates rates;
    const bool ok = roofline_rates(d, nvrtc, cache, &rates, e);
    if (ok && file)
        gpu_keep_rates(file, dev_info(d), &rates, c->diag);
    return ok;
}

static bool measure(Cli *c, const Report *r, int gpu, const Nvrtc *nvrtc, CubinCache *cache) {
    DevError e = {0};
    DevOptions o = {.ordinal = gpu};
    Roofline roofline;
    Device *d = dev_open(&o, &e);
    bool ok = d && roofline_measure(d, nvrtc, cache, &roofline, &e) && renew_rates(c, d, nvrtc, cache, &e);
    dev_close(d);
    const char *name = arena_printf(c->arena, "GPU %d reads", gpu);
    if (!ok) {
        row_as(r, name, e.text, json_pack("{s:b, s:o}", "measured", 0, "error", json_bytes(e.text, strlen(e.text))));
        return false;
    }
    row_as(r, name,
           arena_printf(c->arena, "%.0f GB/s (median of %d passes over %.1f GiB: %.0f)", roofline.read_gb_per_second,
                        roofline.passes, (double)roofline.bytes / GIB, roofline.median_gb_per_second),
           json_pack("{s:b, s:f, s:f, s:i, s:I}", "measured", 1, "gb_per_second", (double)roofline.read_gb_per_second,
                     "median_gb_per_second", (double)roofline.median_gb_per_second, "passes", (int)roofline.passes,
                     "bytes", (json_int_t)roofline.bytes));
    row_as(r, arena_printf(c->arena, "GPU %d bf16", gpu),
           arena_printf(c->arena, "%.0f TFLOP/s (median of %d matmuls of %.2f TFLOP: %.0f)", roofline.matmul_tflops,
                        roofline.matmul_passes, 1e-12 * roofline.flops, roofline.median_tflops),
           json_pack("{s:b, s:f, s:f, s:i, s:f}", "measured", 1, "tflops", roofline.matmul_tflops, "median_tflops",
                     roofline.median_tflops, "passes", roofline.matmul_passes, "flops", roofline.flops));
    return true;
}

static bool measure_all(Cli *c, const Report *r, int gpus, const Nvrtc *nvrtc) {
    CubinCache *cache = cli_open_kernel_cache(c);
    bool ok = true;
    for (int i = 0; i < gpus; i++)
        ok = measure(c, r, i, nvrtc, cache) && ok;
    cli_close_kernel_cache(c, cache);
    return ok;
}

static json_t *gpu_json(const DevInfo *g) {
    return json_pack("{s:o, s:s, s:i, s:I, s:I, s:I, s:b}", "name", json_bytes(g->name, strlen(g->name)), "arch",
                     g->arch, "multiprocessors", (int)g->multiprocessors, "bytes", (json_int_t)g->total_bytes,
                     "l2_bytes", (json_int_t)g->l2_bytes, "shared_per_block", (json_int_t)g->shared_per_block,
                     "dependent_launch", g->pdl);
}

static json_t *missing(const char *why) {
    return json_pack("{s:b, s:o}", "found", 0, "error", json_bytes(why, strlen(why)));
}

/* How many there are. */
static int report_gpus(const Report *r, Arena *a) {
    DevInfo info[MAX_GPUS];
    DevError e = {0};
    int n = 0;
    if (!dev_list(NULL, info, MAX_GPUS, &n, &e)) {
        row_as(r, "CUDA driver", e.text, missing(e.text));
        return 0;
    }
    n = n < MAX_GPUS ? n : MAX_GPUS;
    const char *version = arena_printf(a, "%d.%d", info[0].driver_cuda / 1000, info[0].driver_cuda % 1000 / 10);
    row_as(r, "CUDA driver", arena_printf(a, "CUDA %s", version), json_pack("{s:b, s:s}", "found", 1, "cuda", version));
    for (int i = 0; i < n; i++)
        row_as(r, arena_printf(a, "GPU %d", i),
               arena_printf(a, "%s, %s, %d multiprocessors, %.1f GiB, %.0f MiB L2, %lld KiB shared memory a block%s",
                            info[i].name, info[i].arch, info[i].multiprocessors, (double)info[i].total_bytes / GIB,
                            (double)info[i].l2_bytes / MIB, (long long)info[i].shared_per_block >> 10,
                            info[i].pdl ? ", dependent launch" : ""),
               gpu_json(&info[i]));
    return n;
}

/* By which passes choose, a row. */
static void report_rates(const Report *r, Arena *a, const char *name, const DeviceRates *rates, bool measured,
                         const char *why) {
    json_t *j = cli_rates_json(rates);
    json_object_set_new(j, "measured", json_boolean(measured));
    row_as(r, name, arena_printf(a, "%s%s", rates_text(a, rates) + strlen("rates "), why), j);
}

/* Of each GPU as they are kept. */
static void report_all_rates(const Report *r, Arena *a, const Tuned *kept) {
    DevInfo info[MAX_GPUS];
    DevError e = {0};
    int n = 0;
    if (!dev_list(NULL, info, MAX_GPUS, &n, &e)) {
        const DeviceRates none = rates_default();
        report_rates(r, a, "rates", &none, false, "; for plans that are made without a GPU");
        return;
    }
    for (int i = 0; i < n && i < MAX_GPUS; i++) {
        const TunedRates key = gpu_rates_key(&info[i]), *found = tuned_find_rates(kept, &key);
        const bool measured = found && found->measured;
        const char *why = measured ? "" : found ? "; it could not be measured" : "; the next load on it measures it";
        report_rates(r, a, arena_printf(a, "GPU %d rates", i), measured ? &found->rates : &key.rates, measured, why);
    }
}

static void report_nvrtc(const Report *r, Arena *a, const Nvrtc *nvrtc, const DevError *e) {
    if (!nvrtc) {
        row_as(r, "NVRTC", e->text, missing(e->text));
        return;
    }
    const NvrtcInfo *info = nvrtc_info(nvrtc);
    const char *version = arena_printf(a, "%d.%d", info->major, info->minor);
    row_as(r, "NVRTC", arena_printf(a, "%s, %s", version, info->path),
           json_pack("{s:b, s:s, s:o}", "found", 1, "version", version, "path",
                     json_bytes(info->path, strlen(info->path))));
}

/* The exit code: what was asked for with --roofline must have been measured. */
static int report_device(Cli *c, const Report *r) {
    DevError e = {0};
    int gpus = report_gpus(r, c->arena);
    Nvrtc *nvrtc = nvrtc_open(c->o.nvrtc, &e);
    report_nvrtc(r, c->arena, nvrtc, &e);
    int code = EXIT_FINE;
    if (c->o.roofline && (!nvrtc || gpus == 0))
        code = cli_fail(c, EXIT_SYSTEM, "--roofline needs a GPU with its driver, and NVRTC");
    else if (c->o.roofline && !measure_all(c, r, gpus, nvrtc))
        code = EXIT_SYSTEM;
    nvrtc_close(nvrtc);
    return code;
}

static bool is_model(const char *name) {
    return ends_with(name, ".gguf") && strcmp(name, ".gguf") != 0;
}

static void report_cache(const Report *r, Arena *a) {
    const char *dir = cli_cache_dir(a);
    if (!dir) {
        row_as(r, "models", "no home directory for this user", json_array());
        return;
    }
    row(r, "cache", dir);
    DIR *d = opendir(dir);
    Buf b = {0};
    json_t *all = json_array();
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        if (!is_model(e->d_name) || stat(arena_printf(a, "%s/%s", dir, e->d_name), &st) != 0)
            continue;
        json_array_append_new(all, json_pack("{s:o, s:I}", "name", json_bytes(e->d_name, strlen(e->d_name)), "bytes",
                                             (json_int_t)st.st_size));
        buf_printf(&b, "%s%s (%.1f MiB)", b.n ? ", " : "", e->d_name, (double)st.st_size / MIB);
    }
    if (d)
        closedir(d);
    row_as(r, "models", b.n ? b.s : "none; scripts/fetch_model.py gets one", all);
    buf_free(&b);
}

static void report_tuned(Cli *c, const Report *r, const Tuned *t) {
    const char *path = cli_tuned_file(c, NULL);
    if (path)
        row_as(r, "tuned", cli_tuned_text(c, t, path), cli_tuned_json(c, t, path));
    else
        row_as(r, "tuned", "no home directory for this user", json_null());
}

int cmd_doctor(Cli *c) {
    Arena *a = c->arena;
    Report r = {.json = c->o.json, .j = json_object()};
    row(&r, "version", LAP_VERSION);
    const char *cpu = proc_value(a, "/proc/cpuinfo", "model name");
    row(&r, "processor", *cpu ? cpu : "unknown");
    row(&r, "features", cpu_features(a));
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    row_as(&r, "threads", arena_printf(a, "%ld", processors), json_integer(processors));
    double page = (double)sysconf(_SC_PAGESIZE);
    double memory = (double)sysconf(_SC_PHYS_PAGES) * page, unused = (double)sysconf(_SC_AVPHYS_PAGES) * page;
    row_as(&r, "memory", arena_printf(a, "%.0f MiB, %.0f MiB free", memory / MIB, unused / MIB),
           json_pack("{s:I, s:I}", "bytes", (json_int_t)memory, "free_bytes", (json_int_t)unused));
    row(&r, "compiler", __VERSION__);
    row(&r, "jansson", JANSSON_VERSION);
    row(&r, "readline", rl_library_version);
    int code = report_device(c, &r);
    Tuned tuned;
    cli_read_tuned(c, cli_tuned_file(c, NULL), false, &tuned);
    report_all_rates(&r, a, &tuned);
    row(&r, "back ends", "cpu");
    report_cache(&r, a);
    if (c->o.list_tuned)
        report_tuned(c, &r, &tuned);
    if (c->o.json)
        json_print(json_incref(r.j), true);
    json_decref(r.j);
    return code;
}
