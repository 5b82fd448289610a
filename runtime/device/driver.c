/* driver.c - opens libcuda and loads the table of cuda_api.def.
 *
 * By dlopen, so that the program starts, compiles and evaluates on a machine without a driver. Entry
 * points come from cuGetProcAddress with the version each prototype was written for, never by plain
 * name: a plain dlsym gives the oldest form of a function.
 */
#include "runtime/device/device_int.h"

#include "ir/base.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum {
    OLDEST_DRIVER = 12000, /* gives cuGetProcAddress its present form; all of cuda_api.def is older */
    SEARCHED_BYTES = 1200,
};

static const char *const driver_places[] = {
    "libcuda.so.1",                         /* the system's */
    "/usr/lib/wsl/lib/libcuda.so.1",        /* WSL, where the linker's list may not have it */
    "/usr/local/nvidia/lib64/libcuda.so.1", /* containers */
    "/run/opengl-driver/lib/libcuda.so.1",  /* NixOS */
};

typedef CUresult ProcAddress(const char *name, void **function, int version, uint64_t flags, int *found);

static void *open_driver(const char *path, DevError *e) {
    char searched[SEARCHED_BYTES] = "";
    const char *const *places = path ? &path : driver_places;
    size_t n = path ? 1 : COUNTOF(driver_places);
    for (size_t i = 0; i < n; i++) {
        void *library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
        size_t used = strlen(searched);
        const char *why = dlerror();
        snprintf(searched + used, sizeof searched - used, "\n  %s", why ? why : places[i]);
    }
    dev_fail(e, DEV_ABSENT,
             "no NVIDIA driver found\nlooked for:%s\n"
             "For a GPU install NVIDIA's driver (525 or newer); in a container, start it with access to the GPU.",
             searched);
    return NULL;
}

static bool too_old(DevError *e, int version) {
    return dev_fail(e, DEV_ABSENT,
                    "the NVIDIA driver is too old: it supports CUDA %d.%d, needed is %d.%d (driver 525 or newer)",
                    version / 1000, version % 1000 / 10, OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10);
}

/* dlsym gives an object pointer; POSIX lets it be used as a function. */
static void *symbol(void *library, const char *name) {
    return dlsym(library, name);
}

static bool load_table(CudaApi *api, void *library, DevError *e) {
    CUresult (*get_version)(int *);
    ProcAddress *get;
    *(void **)&get_version = symbol(library, "cuDriverGetVersion");
    *(void **)&get = symbol(library, "cuGetProcAddress_v2");
    if (!get_version || get_version(&api->version) != CUDA_SUCCESS)
        return dev_fail(e, DEV_ABSENT, "libcuda does not tell its version: this is no NVIDIA driver");
    if (!get || api->version < OLDEST_DRIVER)
        return too_old(e, api->version);
    const struct {
        const char *name;
        int version;
        void **where;
    } rows[] = {
#define CU(name, version, parameters) {#name, version, (void **)&api->name},
#include "runtime/device/cuda_api.def"
#undef CU
    };
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        int found = 0;
        if (get(rows[i].name, rows[i].where, rows[i].version, 0, &found) != CUDA_SUCCESS || !*rows[i].where)
            return dev_fail(e, DEV_ABSENT, "the NVIDIA driver (CUDA %d.%d) has no %s; update it", api->version / 1000,
                            api->version % 1000 / 10, rows[i].name);
    }
    return true;
}

/* What cuInit says when there is a library but nothing behind it. */
static bool init_failed(const CudaApi *api, CUresult r, DevError *e) {
    const char *text = "unknown error";
    api->cuGetErrorString(r, &text);
    switch (r) {
    case CUDA_ERROR_NO_DEVICE: return dev_fail(e, DEV_ABSENT, "the NVIDIA driver finds no GPU that it may use");
    case CUDA_ERROR_STUB_LIBRARY:
        return dev_fail(e, DEV_ABSENT, "libcuda is the linker's stand-in of the CUDA toolkit, not a driver");
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
        return dev_fail(e, DEV_ABSENT,
                        "libcuda and the driver in the kernel differ in version: restart the machine (%s)", text);
    default: return dev_fail(e, DEV_ABSENT, "the NVIDIA driver does not start: %s (error %d)", text, r);
    }
}

bool cuda_load(CudaApi *api, const char *path, DevError *e) {
    void *library = open_driver(path, e);
    if (!library || !load_table(api, library, e))
        return false;
    CUresult r = api->cuInit(0);
    return r == CUDA_SUCCESS || init_failed(api, r, e);
}
