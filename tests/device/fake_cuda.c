/* fake_cuda.c - a CUDA driver on host memory, as a shared library, so that what the device layer does with a
 * driver is tested where there is none.
 *
 * Streams are lazy: copies, fills and launches wait in a queue until something waits for them, as late as a
 * real device could be. So host memory that is changed too early shows in the results. Kernels:
 * add(u64 *p, u32 v) adds v to *p; faulty() fails as an illegal address does, and everything after it too.
 * All else that was launched can be read as text: fake_log().
 *
 * Built several times: FAKE_VERSION, FAKE_DEVICES, FAKE_MISSING (an entry point that it lacks).
 */
#include "runtime/device/cuda_types_int.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { MAX_OPS = 100000, TOTAL = 1 << 30 };

struct CUfunc_st {
    char name[32];
};

typedef struct Op {
    enum { OP_COPY, OP_FILL, OP_ADD, OP_FAULT, OP_EVENT } kind;
    uintptr_t to, from;
    size_t bytes;
    CUevent event;
} Op;

struct CUstream_st {
    Op *ops;
    int n;
    int capturing;
};
struct CUgraph_st {
    Op *ops;
    int n;
};
struct CUgraphExec_st {
    struct CUgraph_st graph;
};
struct CUevent_st {
    int recorded, passed;
    CUstream stream;
};
struct CUmod_st {
    int loaded;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t used;
static int sticky;
static char log_text[1 << 16];

EXPORT const char *fake_log(void);
EXPORT void fake_reset(void);
EXPORT long fake_used(void);

const char *fake_log(void) {
    return log_text;
}

void fake_reset(void) {
    log_text[0] = 0;
    sticky = 0;
}

/* Device memory still allocated. */
long fake_used(void) {
    return (long)used;
}

static void run_op(const Op *op) {
    switch (op->kind) {
    case OP_COPY: memcpy((void *)op->to, (void *)op->from, op->bytes); break;
    case OP_FILL: memset((void *)op->to, (int)op->from, op->bytes); break;
    case OP_ADD: *(uint64_t *)op->to += op->from; break;
    case OP_FAULT: sticky = CUDA_ERROR_ILLEGAL_ADDRESS; break;
    case OP_EVENT: op->event->passed = 1; break;
    }
}

/* Runs what is queued, up to the event if there is one. */
static void drain(CUstream s, CUevent until) {
    int i = 0;
    while (i < s->n && !sticky) {
        run_op(&s->ops[i++]);
        if (until && until->passed)
            break;
    }
    memmove(s->ops, s->ops + i, (size_t)(s->n - i) * sizeof *s->ops);
    s->n -= i;
}

static CUresult push(CUstream s, Op op) {
    if (sticky)
        return sticky;
    pthread_mutex_lock(&lock);
    if (s->n < MAX_OPS)
        s->ops[s->n++] = op;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

/* ==== Entry points ==== */

static CUresult fake_cuInit(unsigned int flags) {
    return flags ? 1 : FAKE_DEVICES > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
EXPORT CUresult cuDriverGetVersion(int *version);
CUresult cuDriverGetVersion(int *version) {
    *version = FAKE_VERSION;
    return CUDA_SUCCESS;
}
#define fake_cuDriverGetVersion cuDriverGetVersion
static CUresult fake_cuGetErrorString(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "some error";
    return CUDA_SUCCESS;
}
static CUresult fake_cuGetErrorName(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_SOME";
    return CUDA_SUCCESS;
}
static CUresult fake_cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return ordinal < FAKE_DEVICES ? CUDA_SUCCESS : 101;
}
static CUresult fake_cuDeviceGetCount(int *count) {
    *count = FAKE_DEVICES;
    return CUDA_SUCCESS;
}
static CUresult fake_cuDeviceGetName(char *name, int len, CUdevice device) {
    snprintf(name, (size_t)len, "Fake GPU %c", 'A' + device);
    return CUDA_SUCCESS;
}
/* Device 0 is like an H100, device 1 like an RTX 3090, device 2 too old. */
static CUresult fake_cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9 - device; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = device == 1 ? 6 : 0; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 227 << 10; break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 50 << 20; break;
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}
static CUresult fake_cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    (void)device;
    *bytes = TOTAL;
    return CUDA_SUCCESS;
}
static CUresult fake_cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = (CUcontext)(uintptr_t)(device + 1);
    return CUDA_SUCCESS;
}
static CUresult fake_cuDevicePrimaryCtxRelease(CUdevice device) {
    (void)device;
    return CUDA_SUCCESS;
}
static CUresult fake_cuCtxSetCurrent(CUcontext context) {
    return context ? CUDA_SUCCESS : 201;
}

static CUresult fake_cuMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = TOTAL - used;
    *total = TOTAL;
    return sticky;
}
/* The size lies before the memory. */
static CUresult fake_cuMemAlloc(CUdeviceptr *pointer, size_t bytes) {
    if (sticky)
        return sticky;
    if (bytes > TOTAL - used)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t *p = malloc(bytes + 64);
    p[0] = bytes;
    memset(p + 8, 0xa5, bytes);
    used += bytes;
    *pointer = (uintptr_t)(p + 8);
    return CUDA_SUCCESS;
}
static CUresult fake_cuMemFree(CUdeviceptr pointer) {
    uint64_t *p = (uint64_t *)(uintptr_t)pointer - 8;
    used -= p[0];
    free(p);
    return CUDA_SUCCESS;
}
static CUresult fake_cuMemHostAlloc(void **pointer, size_t bytes, unsigned int flags) {
    (void)flags;
    *pointer = malloc(bytes);
    return *pointer ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
static CUresult fake_cuMemFreeHost(void *pointer) {
    free(pointer);
    return CUDA_SUCCESS;
}
static CUresult fake_cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream s) {
    return push(s, (Op){.kind = OP_COPY, .to = (uintptr_t)to, .from = (uintptr_t)from, .bytes = bytes});
}
static CUresult fake_cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream s) {
    return push(s, (Op){.kind = OP_COPY, .to = (uintptr_t)to, .from = (uintptr_t)from, .bytes = bytes});
}
static CUresult fake_cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
    return push(s, (Op){.kind = OP_COPY, .to = (uintptr_t)to, .from = (uintptr_t)from, .bytes = bytes});
}
static CUresult fake_cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream s) {
    return push(s, (Op){.kind = OP_FILL, .to = (uintptr_t)to, .from = value, .bytes = count});
}

static CUresult fake_cuStreamCreate(CUstream *stream, unsigned int flags) {
    (void)flags;
    *stream = calloc(1, sizeof **stream);
    (*stream)->ops = calloc(MAX_OPS, sizeof(Op));
    return sticky;
}
static CUresult fake_cuStreamDestroy(CUstream s) {
    free(s->ops);
    free(s);
    return CUDA_SUCCESS;
}
static CUresult fake_cuStreamSynchronize(CUstream s) {
    pthread_mutex_lock(&lock);
    drain(s, NULL);
    pthread_mutex_unlock(&lock);
    return sticky;
}
static CUresult fake_cuStreamWaitEvent(CUstream s, CUevent event, unsigned int flags) {
    (void)s, (void)flags;
    if (event->recorded && !event->passed)
        drain(event->stream, event);
    return sticky;
}
static CUresult fake_cuStreamBeginCapture(CUstream s, CUstreamCaptureMode mode) {
    (void)mode;
    drain(s, NULL);
    s->capturing = 1;
    return sticky;
}
static CUresult fake_cuStreamEndCapture(CUstream s, CUgraph *graph) {
    if (!s->capturing)
        return 903;
    *graph = calloc(1, sizeof **graph);
    (*graph)->n = s->n;
    (*graph)->ops = calloc((size_t)s->n + 1, sizeof(Op));
    memcpy((*graph)->ops, s->ops, (size_t)s->n * sizeof(Op));
    s->n = s->capturing = 0;
    return CUDA_SUCCESS;
}

static CUresult fake_cuEventCreate(CUevent *event, unsigned int flags) {
    (void)flags;
    *event = calloc(1, sizeof **event);
    return CUDA_SUCCESS;
}
static CUresult fake_cuEventDestroy(CUevent event) {
    free(event);
    return CUDA_SUCCESS;
}
static CUresult fake_cuEventRecord(CUevent event, CUstream s) {
    event->recorded = 1;
    event->passed = 0;
    event->stream = s;
    return push(s, (Op){.kind = OP_EVENT, .event = event});
}
static CUresult fake_cuEventSynchronize(CUevent event) {
    pthread_mutex_lock(&lock);
    if (event->recorded && !event->passed)
        drain(event->stream, event);
    pthread_mutex_unlock(&lock);
    return sticky;
}
static CUresult fake_cuEventQuery(CUevent event) {
    return sticky ? sticky : event->recorded && !event->passed ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}
static CUresult fake_cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    *milliseconds = start->passed && end->passed ? 2.5f : 0;
    return start->passed && end->passed ? sticky : CUDA_ERROR_NOT_READY;
}

static CUresult fake_cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int n, CUjit_option *options,
                                        void **values) {
    (void)n, (void)options, (void)values;
    if (((const char *)image)[4] != 2)
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    *module = calloc(1, sizeof **module);
    return CUDA_SUCCESS;
}
static CUresult fake_cuModuleUnload(CUmodule module) {
    free(module);
    return CUDA_SUCCESS;
}
static CUresult fake_cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    static struct CUfunc_st functions[] = {{"add"}, {"faulty"}};
    (void)module;
    for (int i = 0; i < 2; i++)
        if (strcmp(functions[i].name, name) == 0) {
            *function = &functions[i];
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}
static CUresult fake_cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    (void)function;
    *value = attribute == CU_FUNC_ATTRIBUTE_NUM_REGS ? 42 : attribute == CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES ? 1024 : 0;
    return CUDA_SUCCESS;
}
static CUresult fake_cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    size_t n = strlen(log_text);
    snprintf(log_text + n, sizeof log_text - n, "attribute %s %d=%d\n", function->name, attribute, value);
    return CUDA_SUCCESS;
}
static CUresult fake_cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads,
                                                                 size_t shared) {
    (void)function, (void)shared;
    *blocks = 2048 / threads;
    return CUDA_SUCCESS;
}
static CUresult fake_cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction function, void **arguments, void **extra) {
    if (extra || c->block_x > 1024 || c->grid_x == 0)
        return 1;
    size_t n = strlen(log_text);
    n += (size_t)snprintf(log_text + n, sizeof log_text - n, "%s %ux%ux%u %ux%ux%u %u", function->name, c->grid_x,
                          c->grid_y, c->grid_z, c->block_x, c->block_y, c->block_z, c->shared_bytes);
    for (unsigned i = 0; i < c->n_attributes; i++)
        n += (size_t)snprintf(log_text + n, sizeof log_text - n, " %d=%d", c->attributes[i].id,
                              c->attributes[i].value.number);
    snprintf(log_text + n, sizeof log_text - n, "\n");
    if (strcmp(function->name, "faulty") == 0)
        return push(c->stream, (Op){.kind = OP_FAULT});
    return push(c->stream,
                (Op){.kind = OP_ADD, .to = (uintptr_t) * (uint64_t *)arguments[0], .from = *(uint32_t *)arguments[1]});
}

static CUresult fake_cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    (void)flags;
    *exec = calloc(1, sizeof **exec);
    (*exec)->graph.n = graph->n;
    (*exec)->graph.ops = calloc((size_t)graph->n + 1, sizeof(Op));
    memcpy((*exec)->graph.ops, graph->ops, (size_t)graph->n * sizeof(Op));
    return CUDA_SUCCESS;
}
static CUresult fake_cuGraphUpload(CUgraphExec exec, CUstream s) {
    (void)exec, (void)s;
    return sticky;
}
static CUresult fake_cuGraphLaunch(CUgraphExec exec, CUstream s) {
    CUresult r = CUDA_SUCCESS;
    for (int i = 0; i < exec->graph.n && r == CUDA_SUCCESS; i++)
        r = push(s, exec->graph.ops[i]);
    return r;
}
static CUresult fake_cuGraphDestroy(CUgraph graph) {
    free(graph->ops);
    free(graph);
    return CUDA_SUCCESS;
}
static CUresult fake_cuGraphExecDestroy(CUgraphExec exec) {
    free(exec->graph.ops);
    free(exec);
    return CUDA_SUCCESS;
}

#if FAKE_VERSION >= 12000
EXPORT CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found);
CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
    static const struct {
        const char *name;
        int version;
        void *function;
    } rows[] = {
#define CU(name, version, parameters) {#name, version, (void *)fake_##name},
#include "runtime/device/cuda_api.def"
#undef CU
    };
    (void)flags;
    *found = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].name, name) == 0 && rows[i].version == version && strcmp(name, FAKE_MISSING) != 0) {
            *function = rows[i].function;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}
#else
/* The fake of a driver this old has no table to hand out: its functions are there all the same. */
EXPORT void *fake_functions[] = {
#define CU(name, version, parameters) (void *)fake_##name,
#include "runtime/device/cuda_api.def"
#undef CU
};
#endif
