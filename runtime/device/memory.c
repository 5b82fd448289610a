/* memory.c - device memory, page-locked host memory, copies. */
#include "runtime/device/device_int.h"

#include <stdio.h>

#define GIB (1024.0 * 1024.0 * 1024.0)
#define MIB (1024.0 * 1024.0)

bool dev_memory(Device *d, int64_t *free_bytes, int64_t *total_bytes, DevError *e) {
    size_t f = 0, t = 0;
    if (!dev_enter(d, e) || !dev_check(d, d->api.cuMemGetInfo(&f, &t), e, "does not tell its free memory"))
        return false;
    *free_bytes = (int64_t)f;
    *total_bytes = (int64_t)t;
    return true;
}

/* "3.25 GiB", "812.0 MiB" */
static const char *size_text(char out[32], double bytes) {
    if (bytes >= GIB)
        snprintf(out, 32, "%.2f GiB", bytes / GIB);
    else
        snprintf(out, 32, "%.1f MiB", bytes / MIB);
    return out;
}

static bool out_of_memory(Device *d, size_t bytes, const char *what, const char *advice, DevError *e) {
    size_t f = 0, t = 0;
    d->api.cuMemGetInfo(&f, &t);
    char needed[32], left[32], total[32];
    return dev_fail(e, DEV_MEMORY, "out of device memory: %s: needed %s, free %s of %s on GPU %d (%s)\n%s", what,
                    size_text(needed, (double)bytes), size_text(left, (double)f), size_text(total, (double)t),
                    d->info.ordinal, d->info.name,
                    advice ? advice
                           : "Stop other programs that use this GPU (nvidia-smi lists them), or ask for less.");
}

bool dev_alloc(Device *d, size_t bytes, const char *what, const char *advice, DevPtr *out, DevError *e) {
    *out = 0;
    if (!dev_enter(d, e))
        return false;
    if (bytes == 0)
        return true;
    CUdeviceptr p = 0;
    CUresult r = d->api.cuMemAlloc(&p, bytes);
    if (r == CUDA_ERROR_OUT_OF_MEMORY)
        return out_of_memory(d, bytes, what, advice, e);
    *out = p;
    return dev_check(d, r, e, "no memory for %s", what);
}

void dev_free(Device *d, DevPtr p) {
    if (p && dev_enter(d, NULL))
        d->api.cuMemFree(p);
}

void *dev_host_alloc(Device *d, size_t bytes, DevError *e) {
    void *p = NULL;
    if (!dev_enter(d, e) || !dev_check(d, d->api.cuMemHostAlloc(&p, bytes, 0), e,
                                       "no %.1f MiB of page-locked host memory", (double)bytes / MIB))
        return NULL;
    return p;
}

void dev_host_free(Device *d, void *p) {
    if (p && dev_enter(d, NULL))
        d->api.cuMemFreeHost(p);
}

bool dev_copy_in(DevStream *s, DevPtr to, const void *from, size_t bytes, DevError *e) {
    return bytes == 0 || (dev_enter(s->d, e) && stream_check(s, s->d->api.cuMemcpyHtoDAsync(to, from, bytes, s->handle),
                                                             e, "copy of %zu bytes to the device", bytes));
}

bool dev_copy_out(DevStream *s, void *to, DevPtr from, size_t bytes, DevError *e) {
    return bytes == 0 || (dev_enter(s->d, e) && stream_check(s, s->d->api.cuMemcpyDtoHAsync(to, from, bytes, s->handle),
                                                             e, "copy of %zu bytes from the device", bytes));
}

bool dev_copy(DevStream *s, DevPtr to, DevPtr from, size_t bytes, DevError *e) {
    return bytes == 0 || (dev_enter(s->d, e) && stream_check(s, s->d->api.cuMemcpyDtoDAsync(to, from, bytes, s->handle),
                                                             e, "copy of %zu bytes on the device", bytes));
}

bool dev_fill(DevStream *s, DevPtr to, uint8_t value, size_t bytes, DevError *e) {
    return bytes == 0 || (dev_enter(s->d, e) && stream_check(s, s->d->api.cuMemsetD8Async(to, value, bytes, s->handle),
                                                             e, "fill of %zu bytes on the device", bytes));
}
