/* device.c - lists and opens devices; turns what the driver refuses into text. */
#include "runtime/device/device_int.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OLDEST_SM = 80,
    FIRST_SM_WITH_PDL = 90,
    FIRST_SM_WITH_SUFFIX = 90, /* "sm_90a": code for exactly this chip, with all its instructions */
};

/* ==== Errors ==== */

bool dev_fail(DevError *e, DevErrorKind kind, const char *fmt, ...) {
    if (!e)
        return false;
    e->kind = kind;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return false;
}

bool cuda_is_fault(CUresult r) {
    return r == CUDA_ERROR_ECC_UNCORRECTABLE || r == CUDA_ERROR_ILLEGAL_ADDRESS || r == CUDA_ERROR_LAUNCH_TIMEOUT ||
           r == CUDA_ERROR_ASSERT || (r >= CUDA_ERROR_HARDWARE_STACK_ERROR && r <= CUDA_ERROR_LAUNCH_FAILED);
}

/* The first fault is kept: whatever is called after it fails with the same code and knows nothing. */
static bool report_fault(Device *d, const char *text, DevError *e) {
    pthread_mutex_lock(&d->lock);
    if (!*d->fault)
        snprintf(d->fault, sizeof d->fault, "%s", text);
    dev_fail(e, DEV_FAULT, "%s", d->fault);
    pthread_mutex_unlock(&d->lock);
    return false;
}

static bool check_list(Device *d, CUresult r, DevError *e, const char *fmt, va_list ap) {
    const char *text = "unknown error", *name = "?";
    d->api.cuGetErrorString(r, &text);
    d->api.cuGetErrorName(r, &name);
    char what[512], whole[900];
    vsnprintf(what, sizeof what, fmt, ap);
    snprintf(whole, sizeof whole, "GPU %d (%s): %s: %s (%s)", d->info.ordinal, d->info.name, what, text, name);
    if (cuda_is_fault(r))
        return report_fault(d, whole, e);
    return dev_fail(e, r == CUDA_ERROR_OUT_OF_MEMORY ? DEV_MEMORY : DEV_OTHER, "%s", whole);
}

bool dev_check(Device *d, CUresult r, DevError *e, const char *fmt, ...) {
    if (r == CUDA_SUCCESS)
        return true;
    va_list ap;
    va_start(ap, fmt);
    check_list(d, r, e, fmt, ap);
    va_end(ap);
    return false;
}

/* ==== Devices ==== */

void dev_arch(int sm, char *out) {
    snprintf(out, 16, "sm_%d%s", sm, sm >= FIRST_SM_WITH_SUFFIX ? "a" : "");
}

static int64_t attribute(const CudaApi *api, CUdevice device, CUdevice_attribute which) {
    int value = 0;
    api->cuDeviceGetAttribute(&value, which, device);
    return value;
}

static bool read_info(const CudaApi *api, int ordinal, CUdevice *device, DevInfo *out, DevError *e) {
    *out = (DevInfo){.ordinal = ordinal, .driver_cuda = api->version};
    size_t total = 0;
    if (api->cuDeviceGet(device, ordinal) != CUDA_SUCCESS ||
        api->cuDeviceGetName(out->name, sizeof out->name, *device) != CUDA_SUCCESS ||
        api->cuDeviceTotalMem(&total, *device) != CUDA_SUCCESS)
        return dev_fail(e, DEV_OTHER, "GPU %d does not answer", ordinal);
    out->name[sizeof out->name - 1] = 0;
    out->total_bytes = (int64_t)total;
    out->sm = (int)(attribute(api, *device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) * 10 +
                    attribute(api, *device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
    dev_arch(out->sm, out->arch);
    out->multiprocessors = (int)attribute(api, *device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    out->shared_per_block = attribute(api, *device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    out->shared_per_multiprocessor = attribute(api, *device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
    out->l2_bytes = attribute(api, *device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
    out->pdl = out->sm >= FIRST_SM_WITH_PDL;
    return true;
}

static bool count_devices(const CudaApi *api, int *n, DevError *e) {
    if (api->cuDeviceGetCount(n) != CUDA_SUCCESS || *n < 1)
        return dev_fail(e, DEV_ABSENT, "the NVIDIA driver finds no GPU that it may use");
    return true;
}

bool dev_list(const char *driver, DevInfo *out, int max, int *n, DevError *e) {
    CudaApi api;
    if (!cuda_load(&api, driver, e) || !count_devices(&api, n, e))
        return false;
    for (int i = 0; i < *n && i < max; i++) {
        CUdevice device;
        if (!read_info(&api, i, &device, &out[i], e))
            return false;
    }
    return true;
}

static bool open_device(Device *d, int ordinal, DevError *e) {
    int n = 0;
    if (!count_devices(&d->api, &n, e))
        return false;
    if (ordinal < 0 || ordinal >= n)
        return dev_fail(e, DEV_ABSENT, "there is no GPU %d: the driver finds %d, numbered from 0", ordinal, n);
    if (!read_info(&d->api, ordinal, &d->handle, &d->info, e))
        return false;
    if (d->info.sm < OLDEST_SM)
        return dev_fail(e, DEV_ABSENT, "GPU %d (%s) has compute capability %d.%d, needed is %d.%d", ordinal,
                        d->info.name, d->info.sm / 10, d->info.sm % 10, OLDEST_SM / 10, OLDEST_SM % 10);
    return dev_check(d, d->api.cuDevicePrimaryCtxRetain(&d->context, d->handle), e, "cannot be opened");
}

Device *dev_open(const DevOptions *o, DevError *e) {
    static atomic_uint_fast64_t serials;
    static const DevOptions first = {0};
    if (!o)
        o = &first;
    Device *d = calloc(1, sizeof *d);
    if (!d) {
        dev_fail(e, DEV_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&d->lock, NULL);
    d->serial = atomic_fetch_add(&serials, 1) + 1;
    d->check_launches = o->check_launches;
    if (cuda_load(&d->api, o->driver, e) && open_device(d, o->ordinal, e))
        return d;
    dev_close(d);
    return NULL;
}

void dev_close(Device *d) {
    if (!d)
        return;
    if (d->context)
        d->api.cuDevicePrimaryCtxRelease(d->handle);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

const DevInfo *dev_info(const Device *d) {
    return &d->info;
}

/* The driver keeps a current context for each thread; asking it to change costs little, not asking less. */
bool dev_enter(Device *d, DevError *e) {
    static _Thread_local uint64_t current; /* serial of the device entered last */
    if (current == d->serial)
        return true;
    if (!dev_check(d, d->api.cuCtxSetCurrent(d->context), e, "cannot be used"))
        return false;
    current = d->serial;
    return true;
}
