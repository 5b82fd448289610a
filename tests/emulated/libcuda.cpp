/* libcuda.cpp - a CUDA driver whose device is this machine's processor: modules are those of libnvrtc.cpp.
 *
 * Device memory is memory of the process, full of garbage at first, with a page behind each allocation that faults, and
 * gone when it is freed. Streams are lazy: what is enqueued waits until something waits for it, so that a host that
 * reads too early, or changes page-locked memory too early, shows. A launch that fails, fails as on a GPU: at a later
 * call, and for good. While a stream captures, what is enqueued on it and on the streams that join it by events
 * becomes a graph, in the order of the calls.
 *
 * The device is like an H100 with four multiprocessors. One big lock: calls of several threads take turns.
 */
#include "runtime/device/cuda_types_int.h"
#include "tests/emulated/driver.h"

#include <algorithm>
#include <chrono>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

enum : size_t { DEVICE_BYTES = (size_t)2 << 30, GARBAGE_BYTES = (size_t)256 << 20, PAGE = 4096, ALIGNMENT = 256 };

static const struct {
    CUresult result;
    const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {CUDA_ERROR_LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {COOPERATIVE_LAUNCH_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture was not initiated in this stream"},
};

static double now() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/* Whether the calling thread captures: it may not do then what waits or allocates. */
static bool capturing_here() {
    for (CUstream s : driver.streams)
        if (s->capture && s->capture->thread == std::this_thread::get_id())
            return true;
    return false;
}

/* ==== The device ==== */

CUresult emu_cuInit(unsigned int flags) {
    return flags ? INVALID_VALUE : CUDA_SUCCESS;
}
CUresult emu_cuDriverGetVersion(int *version) {
    *version = 13000;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDriverGetVersion(int *version) {
    return emu_cuDriverGetVersion(version);
}

CUresult emu_cuGetErrorString(CUresult error, const char **text) {
    for (const auto &e : errors)
        if (e.result == error) {
            *text = e.text;
            return CUDA_SUCCESS;
        }
    return INVALID_VALUE;
}
CUresult emu_cuGetErrorName(CUresult error, const char **text) {
    for (const auto &e : errors)
        if (e.result == error) {
            *text = e.name;
            return CUDA_SUCCESS;
        }
    return INVALID_VALUE;
}
CUresult emu_cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? CUDA_SUCCESS : INVALID_DEVICE;
}
CUresult emu_cuDeviceGetCount(int *count) {
    *count = 1;
    return CUDA_SUCCESS;
}
CUresult emu_cuDeviceGetName(char *name, int len, CUdevice) {
    snprintf(name, (size_t)len, "emulated GPU");
    return CUDA_SUCCESS;
}
CUresult emu_cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = MULTIPROCESSORS; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = (int)emulated::SHARED_MOST; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = MULTIPROCESSOR_SHARED; break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 50 << 20; break;
    default: *value = 0; return INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
CUresult emu_cuDeviceTotalMem(size_t *bytes, CUdevice) {
    *bytes = DEVICE_BYTES;
    return CUDA_SUCCESS;
}
CUresult emu_cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    HOLD;
    driver.retained++;
    *context = (CUcontext)(uintptr_t)(device + 1);
    return CUDA_SUCCESS;
}
/* A failure ends with the context, so that tests of several can share a process. */
CUresult emu_cuDevicePrimaryCtxRelease(CUdevice) {
    HOLD;
    if (--driver.retained == 0)
        driver.sticky = CUDA_SUCCESS;
    return CUDA_SUCCESS;
}
CUresult emu_cuCtxSetCurrent(CUcontext context) {
    return context ? CUDA_SUCCESS : INVALID_CONTEXT;
}

/* ==== Memory ==== */

CUresult emu_cuMemGetInfo(size_t *free_bytes, size_t *total) {
    HOLD;
    *free_bytes = DEVICE_BYTES - driver.used;
    *total = DEVICE_BYTES;
    return driver.sticky;
}
/* The allocation ends where its pages end, but for what its alignment leaves. */
CUresult emu_cuMemAlloc(CUdeviceptr *pointer, size_t bytes) {
    HOLD;
    if (driver.sticky || bytes == 0)
        return driver.sticky ? driver.sticky : INVALID_VALUE;
    if (capturing_here())
        return CAPTURE_UNSUPPORTED;
    if (bytes > DEVICE_BYTES - driver.used)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const size_t aligned = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, pages = (aligned + PAGE - 1) / PAGE * PAGE;
    void *p = mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mprotect((char *)p + pages, PAGE, PROT_NONE);
    const uintptr_t at = (uintptr_t)p + pages - aligned;
    emulated::fill_with_garbage((void *)at, bytes < GARBAGE_BYTES ? bytes : (size_t)GARBAGE_BYTES);
    driver.device_memory[at] = {bytes, p, pages + PAGE};
    driver.used += bytes;
    *pointer = at;
    return CUDA_SUCCESS;
}
CUresult emu_cuMemFree(CUdeviceptr pointer) {
    HOLD;
    if (capturing_here())
        return CAPTURE_UNSUPPORTED;
    const auto it = driver.device_memory.find((uintptr_t)pointer);
    if (it == driver.device_memory.end())
        return INVALID_VALUE;
    drain_all();
    driver.used -= it->second.bytes;
    munmap(it->second.mapped, it->second.mapped_bytes);
    driver.device_memory.erase(it);
    return driver.sticky;
}
CUresult emu_cuMemHostAlloc(void **pointer, size_t bytes, unsigned int) {
    HOLD;
    if (driver.sticky || capturing_here())
        return driver.sticky ? driver.sticky : CAPTURE_UNSUPPORTED;
    *pointer = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!*pointer)
        return CUDA_ERROR_OUT_OF_MEMORY;
    emulated::fill_with_garbage(*pointer, bytes);
    driver.host_memory[(uintptr_t)*pointer] = bytes;
    return CUDA_SUCCESS;
}
CUresult emu_cuMemFreeHost(void *pointer) {
    HOLD;
    drain_all();
    if (!driver.host_memory.erase((uintptr_t)pointer))
        return INVALID_VALUE;
    free(pointer);
    return driver.sticky;
}

/* Whether the bytes lie in one allocation. */
static bool on_device(CUdeviceptr at, size_t bytes, const char *what) {
    auto it = driver.device_memory.upper_bound((uintptr_t)at);
    if (it != driver.device_memory.begin()) {
        --it;
        const size_t offset = (uintptr_t)at - it->first;
        if (offset <= it->second.bytes && bytes <= it->second.bytes - offset)
            return true;
    }
    fprintf(stderr, "emulated GPU: %s of %zu bytes at %#llx: not in one allocation\n", what, bytes, at);
    return false;
}
static bool page_locked(const void *at, size_t bytes) {
    auto it = driver.host_memory.upper_bound((uintptr_t)at);
    return it != driver.host_memory.begin() && (uintptr_t)at + bytes <= (--it)->first + it->second;
}

static Work copying(uintptr_t to, uintptr_t from, size_t bytes) {
    return [=] {
        memmove((void *)to, (const void *)from, bytes);
        return (CUresult)CUDA_SUCCESS;
    };
}
/* Of memory that is not page-locked the bytes are taken at once. */
CUresult emu_cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream s) {
    HOLD;
    if (!on_device(to, bytes, "copy in"))
        return INVALID_VALUE;
    if (page_locked(from, bytes) || s->capture)
        return push(s, copying(to, (uintptr_t)from, bytes));
    const auto taken = std::make_shared<std::string>((const char *)from, bytes);
    return push(s, [=] {
        memcpy((void *)to, taken->data(), bytes);
        return (CUresult)CUDA_SUCCESS;
    });
}
/* Into memory that is not page-locked the bytes come at once. */
CUresult emu_cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream s) {
    HOLD;
    if (!on_device(from, bytes, "copy out"))
        return INVALID_VALUE;
    const CUresult r = push(s, copying((uintptr_t)to, from, bytes));
    return r || page_locked(to, bytes) || s->capture ? r : drain(s, nullptr, 0);
}
CUresult emu_cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
    HOLD;
    if (!on_device(from, bytes, "copy from") || !on_device(to, bytes, "copy to"))
        return INVALID_VALUE;
    return push(s, copying(to, from, bytes));
}
CUresult emu_cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream s) {
    HOLD;
    if (!on_device(to, count, "fill"))
        return INVALID_VALUE;
    return push(s, [=] {
        memset((void *)to, value, count);
        return (CUresult)CUDA_SUCCESS;
    });
}

/* ==== Streams and events ==== */

CUresult emu_cuStreamCreate(CUstream *stream, unsigned int) {
    HOLD;
    driver.streams.push_back(*stream = new CUstream_st());
    return driver.sticky;
}
CUresult emu_cuStreamDestroy(CUstream s) {
    HOLD;
    drain(s, nullptr, 0);
    driver.streams.erase(std::find(driver.streams.begin(), driver.streams.end(), s));
    delete s;
    return CUDA_SUCCESS;
}
CUresult emu_cuStreamSynchronize(CUstream s) {
    HOLD;
    return s->capture ? CAPTURE_UNSUPPORTED : drain(s, nullptr, 0);
}
/* An event of a capture takes the stream into it. */
CUresult emu_cuStreamWaitEvent(CUstream s, CUevent handle, unsigned int) {
    HOLD;
    const std::shared_ptr<Event> e = handle->event;
    if (e->capture) {
        s->capture = e->capture;
        return driver.sticky;
    }
    if (s->capture)
        return CAPTURE_UNSUPPORTED;
    return push(s, [e, serial = e->recorded, on = e->stream] {
        return e->passed < serial ? drain(on, e.get(), serial) : driver.sticky;
    });
}
CUresult emu_cuEventCreate(CUevent *event, unsigned int) {
    HOLD;
    *event = new CUevent_st();
    return driver.sticky;
}
CUresult emu_cuEventDestroy(CUevent event) {
    HOLD;
    delete event;
    return CUDA_SUCCESS;
}
CUresult emu_cuEventRecord(CUevent handle, CUstream s) {
    HOLD;
    const std::shared_ptr<Event> e = handle->event;
    e->capture = s->capture;
    if (e->capture)
        return driver.sticky;
    const uint64_t serial = ++e->recorded;
    e->stream = s;
    return push(s, [=] {
        e->passed = serial;
        e->when = now();
        return (CUresult)CUDA_SUCCESS;
    });
}
static CUresult drain_event(const Event &e) {
    return e.passed < e.recorded ? drain(e.stream, &e, e.recorded) : driver.sticky;
}
CUresult emu_cuEventSynchronize(CUevent handle) {
    HOLD;
    return handle->event->capture ? CAPTURE_UNSUPPORTED : drain_event(*handle->event);
}
/* Asked for the first time it has not passed. */
CUresult emu_cuEventQuery(CUevent handle) {
    HOLD;
    const bool passed = handle->event->passed == handle->event->recorded;
    drain_event(*handle->event);
    return driver.sticky ? driver.sticky : passed ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult emu_cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    HOLD;
    for (const CUevent e : {start, end})
        if (!e->event->recorded || e->event->passed < e->event->recorded)
            return driver.sticky ? driver.sticky : e->event->recorded ? CUDA_ERROR_NOT_READY : INVALID_VALUE;
    *milliseconds = (float)(end->event->when - start->event->when);
    return driver.sticky;
}

EXPORT CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t, int *found) {
    static const struct {
        const char *name;
        int version;
        void *function;
    } rows[] = {
#define CU(name, version, parameters) {#name, version, (void *)emu_##name},
#include "runtime/device/cuda_api.def"
#undef CU
    };
    *found = 0;
    for (const auto &row : rows)
        if (strcmp(row.name, name) == 0 && row.version == version) {
            *function = row.function;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}
