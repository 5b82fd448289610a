/* nvrtc.c - NVIDIA's run-time compiler by dlopen: one text to one cubin.
 *
 * libnvrtc opens a second library, libnvrtc-builtins.so.MAJOR.MINOR, by its bare name, which the dynamic
 * linker does not find in a folder of pip. So it is opened here first, from the folder where libnvrtc
 * lies; a library that is loaded already is found by name.
 */
#ifdef __linux__
#define _GNU_SOURCE /* dladdr */
#endif
#include "runtime/device/compile.h"

#include "ir/base.h"
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef struct NvrtcProgram_st *NvrtcProgram;

enum {
    OLDEST_MAJOR = 12, /* the first with sm_90a */
    NVRTC_SUCCESS = 0,
    NVRTC_ERROR_COMPILATION = 6,
    NVRTC_ERROR_BUILTIN_OPERATION_FAILURE = 7,
    NVRTC_ERROR_CANCELLED = 16,
    MAX_ARCHS = 128,
    MAX_OPTIONS = 256,
};

/* NVRTC(name, needed, parameters): all return int. */
#define NVRTC_TABLE(NVRTC)                                                                                             \
    NVRTC(nvrtcVersion, true, (int *major, int *minor))                                                                \
    NVRTC(nvrtcGetNumSupportedArchs, true, (int *n))                                                                   \
    NVRTC(nvrtcGetSupportedArchs, true, (int *archs))                                                                  \
    NVRTC(nvrtcCreateProgram, true,                                                                                    \
          (NvrtcProgram * program, const char *source, const char *name, int n_headers, const char *const *headers,    \
           const char *const *include_names))                                                                          \
    NVRTC(nvrtcDestroyProgram, true, (NvrtcProgram * program))                                                         \
    NVRTC(nvrtcCompileProgram, true, (NvrtcProgram program, int n_options, const char *const *options))                \
    NVRTC(nvrtcGetCUBINSize, true, (NvrtcProgram program, size_t * bytes))                                             \
    NVRTC(nvrtcGetCUBIN, true, (NvrtcProgram program, char *cubin))                                                    \
    NVRTC(nvrtcGetProgramLogSize, true, (NvrtcProgram program, size_t * bytes))                                        \
    NVRTC(nvrtcGetProgramLog, true, (NvrtcProgram program, char *log))                                                 \
    NVRTC(nvrtcSetFlowCallback, false, (NvrtcProgram program, int (*callback)(void *, void *), void *payload))

struct Nvrtc {
#define NVRTC(name, needed, parameters) int(*name) parameters;
    NVRTC_TABLE(NVRTC)
#undef NVRTC
    const char *(*nvrtcGetErrorString)(int result);
    NvrtcInfo info;
    char path[PATH_MAX];
    int n_archs;
    int archs[MAX_ARCHS]; /* 80, 86, ... */
};

/* ==== Finding the library ==== */

static const char *const file_names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};

/* Where the library is looked for when no folder is named; "" is the dynamic linker's own search. */
static const char *const system_places[] = {
    "",
    "/usr/local/cuda/lib64/",
    "/usr/local/cuda/targets/x86_64-linux/lib/",
    "/usr/local/cuda/targets/sbsa-linux/lib/",
    "/usr/local/cuda-13/lib64/",
    "/usr/local/cuda-12/lib64/",
    "/opt/cuda/lib64/",
    "/usr/lib/wsl/lib/",
};

/* Below a folder that was named. */
static const char *const below[] = {"/", "/lib/", "/lib64/", "/nvidia/cu13/lib/", "/nvidia/cuda_nvrtc/lib/"};

static const char advice[] =
    "Install the CUDA toolkit (its package cuda-nvrtc-13-0 is enough), or `pip install nvidia-cuda-nvrtc` and name "
    "the\n"
    "site-packages folder with --nvrtc DIR; kernels that were compiled ahead of time need no NVRTC.";

/* Opens folder/name if it is there; what went wrong with a file that is there is added to `why`. */
static void *try_open(const char *dir, const char *folder, const char *name, Buf *why) {
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s%s%s", dir, folder, name);
    if (n < 0 || n >= (int)sizeof path)
        return NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library)
        return library;
    const char *text = dlerror();
    struct stat st;
    if (strchr(path, '/') && stat(path, &st) == 0)
        buf_printf(why, "\n  %s is there but cannot be opened: %s", path, text ? text : "no reason given");
    return NULL;
}

static void *open_library(const char *dir, DevError *e) {
    const char *const *folders = dir ? below : system_places;
    size_t n = dir ? COUNTOF(below) : COUNTOF(system_places);
    Buf why = {0};
    for (size_t name = 0; name < COUNTOF(file_names); name++)
        for (size_t i = 0; i < n; i++) {
            void *library = try_open(dir ? dir : "", folders[i], file_names[name], &why);
            if (library) {
                buf_free(&why);
                return library;
            }
        }
    Buf where = {0};
    for (size_t i = 0; i < n; i++)
        buf_printf(&where, "%s%s%s", i ? ", " : "", dir ? dir : "",
                   *folders[i] ? folders[i] : "the dynamic linker's places");
    dev_fail(e, DEV_ABSENT, "NVRTC, the run-time compiler of CUDA, was not found: looked for %s and %s in %s%s\n%s",
             file_names[0], file_names[1], where.s, why.s ? why.s : "", advice);
    buf_free(&where);
    buf_free(&why);
    return NULL;
}

static bool load_table(Nvrtc *n, void *library, DevError *e) {
    const struct {
        const char *name;
        bool needed;
        void **where;
    } rows[] = {
#define NVRTC(name, needed, parameters) {#name, needed, (void **)&n->name},
        NVRTC_TABLE(NVRTC)
#undef NVRTC
            {"nvrtcGetErrorString", true, (void **)&n->nvrtcGetErrorString},
    };
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        *rows[i].where = dlsym(library, rows[i].name);
        if (!*rows[i].where && rows[i].needed)
            return dev_fail(e, DEV_ABSENT,
                            "the NVRTC found is too old: it has no %s, needed is NVRTC %d.0 or newer\n%s", rows[i].name,
                            OLDEST_MAJOR, advice);
    }
    return true;
}

/* Opens libnvrtc-builtins from the folder of libnvrtc, and takes its size. */
static void open_builtins(Nvrtc *n) {
    char path[PATH_MAX];
    const char *slash = strrchr(n->path, '/');
    if (!slash)
        return;
    int w = snprintf(path, sizeof path, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - n->path), n->path,
                     n->info.major, n->info.minor);
    struct stat st;
    if (w < 0 || w >= (int)sizeof path || stat(path, &st) != 0)
        return;
    dlopen(path, RTLD_NOW | RTLD_LOCAL);
    n->info.builtins_bytes = st.st_size;
}

static bool read_info(Nvrtc *n, DevError *e) {
    Dl_info where;
    void *address;
    memcpy(&address, &n->nvrtcVersion, sizeof address);
    if (dladdr(address, &where) && where.dli_fname)
        snprintf(n->path, sizeof n->path, "%s", where.dli_fname);
    n->info.path = n->path;
    if (n->nvrtcVersion(&n->info.major, &n->info.minor) != NVRTC_SUCCESS)
        return dev_fail(e, DEV_ABSENT, "%s does not tell its version", n->path);
    if (n->info.major < OLDEST_MAJOR)
        return dev_fail(e, DEV_ABSENT, "%s is NVRTC %d.%d, needed is %d.0 or newer\n%s", n->path, n->info.major,
                        n->info.minor, OLDEST_MAJOR, advice);
    if (n->nvrtcGetNumSupportedArchs(&n->n_archs) != NVRTC_SUCCESS || n->n_archs < 0 || n->n_archs > MAX_ARCHS ||
        n->nvrtcGetSupportedArchs(n->archs) != NVRTC_SUCCESS)
        return dev_fail(e, DEV_ABSENT, "%s does not tell its architectures", n->path);
    open_builtins(n);
    return true;
}

/* The library stays open: it is used again or the program ends, and its threads' state does not unload well. */
Nvrtc *nvrtc_open(const char *dir, DevError *e) {
    void *library = open_library(dir, e);
    if (!library)
        return NULL;
    Nvrtc *n = calloc(1, sizeof *n);
    if (!n)
        dev_fail(e, DEV_MEMORY, "out of memory");
    else if (load_table(n, library, e) && read_info(n, e))
        return n;
    free(n);
    return NULL;
}

void nvrtc_close(Nvrtc *n) {
    free(n);
}

const NvrtcInfo *nvrtc_info(const Nvrtc *n) {
    return &n->info;
}

bool nvrtc_supports(const Nvrtc *n, const char *arch) {
    if (strncmp(arch, "sm_", 3) != 0)
        return false;
    long sm = strtol(arch + 3, NULL, 10);
    for (int i = 0; i < n->n_archs; i++)
        if (n->archs[i] == sm)
            return true;
    return false;
}

/* ==== Compiling ==== */

void compiled_free(Compiled *c) {
    free(c->cubin);
    free(c->log);
    *c = (Compiled){0};
}

static int is_cancelled(void *payload, void *unused) {
    (void)unused;
    return atomic_load((atomic_bool *)payload) ? 1 : 0;
}

/* The log without its NUL and line ends at the end; NULL when it is empty. */
static char *take_log(const Nvrtc *n, NvrtcProgram program) {
    size_t bytes = 0;
    if (n->nvrtcGetProgramLogSize(program, &bytes) != NVRTC_SUCCESS || bytes <= 1)
        return NULL;
    char *log = calloc(1, bytes + 1);
    if (!log || n->nvrtcGetProgramLog(program, log) != NVRTC_SUCCESS) {
        free(log);
        return NULL;
    }
    for (size_t len = strlen(log); len && (log[len - 1] == '\n' || log[len - 1] == ' '); len--)
        log[len - 1] = 0;
    if (*log)
        return log;
    free(log);
    return NULL;
}

static bool take_cubin(const Nvrtc *n, NvrtcProgram program, Compiled *out) {
    size_t bytes = 0;
    if (n->nvrtcGetCUBINSize(program, &bytes) != NVRTC_SUCCESS || bytes == 0)
        return dev_fail(&out->error, DEV_SOURCE, "NVRTC made no cubin");
    out->cubin = malloc(bytes);
    if (!out->cubin)
        return dev_fail(&out->error, DEV_MEMORY, "out of memory for a cubin of %zu bytes", bytes);
    out->bytes = bytes;
    if (n->nvrtcGetCUBIN(program, (char *)out->cubin) != NVRTC_SUCCESS)
        return dev_fail(&out->error, DEV_SOURCE, "NVRTC does not hand out its cubin");
    out->state = COMPILE_DONE;
    return true;
}

static bool compile_failed(const Nvrtc *n, const Program *p, const char *arch, int result, Compiled *out) {
    if (result == NVRTC_ERROR_CANCELLED) {
        out->state = COMPILE_CANCELLED;
        return dev_fail(&out->error, DEV_OTHER, "cancelled");
    }
    if (result == NVRTC_ERROR_BUILTIN_OPERATION_FAILURE)
        return dev_fail(&out->error, DEV_ABSENT, "%s lacks its second library, libnvrtc-builtins.so.%d.%d\n%s", n->path,
                        n->info.major, n->info.minor, advice);
    const char *why = result == NVRTC_ERROR_COMPILATION ? "has errors" : n->nvrtcGetErrorString(result);
    return dev_fail(&out->error, DEV_SOURCE, "%s for %s: %s%s%s", p->name, arch, why, out->log ? "\n" : "",
                    out->log ? out->log : "");
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool nvrtc_compile(const Nvrtc *n, const Program *p, const char *arch, atomic_bool *cancel, Compiled *out) {
    *out = (Compiled){0};
    if (!nvrtc_supports(n, arch))
        return dev_fail(&out->error, DEV_ABSENT, "NVRTC %d.%d cannot compile for %s; a newer one is needed\n%s",
                        n->info.major, n->info.minor, arch, advice);
    if (p->n_options >= MAX_OPTIONS)
        return dev_fail(&out->error, DEV_OTHER, "%s: %d options are too many", p->name, p->n_options);
    char target[64];
    snprintf(target, sizeof target, "--gpu-architecture=%s", arch);
    const char *options[MAX_OPTIONS] = {target};
    for (int i = 0; i < p->n_options; i++)
        options[i + 1] = p->options[i];
    NvrtcProgram program = NULL;
    int result = n->nvrtcCreateProgram(&program, p->source, p->name, 0, NULL, NULL);
    if (result != NVRTC_SUCCESS)
        return compile_failed(n, p, arch, result, out);
    if (cancel && n->nvrtcSetFlowCallback)
        n->nvrtcSetFlowCallback(program, is_cancelled, cancel);
    double start = now();
    result = n->nvrtcCompileProgram(program, p->n_options + 1, options);
    out->seconds = now() - start;
    out->log = take_log(n, program);
    bool ok = result == NVRTC_SUCCESS ? take_cubin(n, program, out) : compile_failed(n, p, arch, result, out);
    n->nvrtcDestroyProgram(&program);
    return ok;
}
