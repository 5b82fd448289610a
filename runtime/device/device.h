/* device.h - a GPU as plain C: devices, memory, copies, streams, events, kernels, launches, graphs.
 *
 * No type of CUDA is seen outside this folder, and no CUDA header is needed to build. The driver is opened
 * when a device is; a machine without one gets DEV_ABSENT and a text that says what was looked for.
 *
 * Threads: a Device may be used from several threads (each call makes it the calling thread's device); a
 * stream, event, module or graph by one thread at a time. Device addresses are numbers, never pointers.
 * Everything made from a device is freed before dev_close(). The *_free functions take NULL.
 */
#ifndef LAP_DEVICE_DEVICE_H
#define LAP_DEVICE_DEVICE_H

#include "runtime/device/device_error.h"
#include <stddef.h>
#include <stdint.h>

typedef struct Device Device;
typedef struct DevStream DevStream;
typedef struct DevEvent DevEvent;
typedef struct DevModule DevModule;
typedef struct DevKernel DevKernel;
typedef struct DevGraph DevGraph;
typedef uint64_t DevPtr; /* an address on the device; 0: none */

/* ==== Devices (driver.c, device.c) ==== */

typedef struct DevOptions {
    const char *driver;  /* path of libcuda; NULL: libcuda.so.1 of the system, then the places of WSL */
    int ordinal;         /* which device, from 0, in the driver's order */
    bool check_launches; /* wait after each launch, so that a fault is known to be that kernel's; slow */
} DevOptions;

typedef struct DevInfo {
    char name[96]; /* "NVIDIA H100 80GB HBM3" */
    int ordinal;
    int sm;        /* compute capability: 80, 86, 89, 90, 100, 120 */
    char arch[16]; /* what to compile for: "sm_86", "sm_90a" */
    int multiprocessors;
    int64_t shared_per_block; /* most shared memory of a block, opted in, in bytes */
    int64_t shared_per_multiprocessor;
    int64_t l2_bytes;
    int64_t total_bytes; /* of device memory */
    bool pdl;            /* programmatic dependent launch */
    int driver_cuda;     /* newest CUDA of the driver: 13000 = 13.0 */
} DevInfo;

/* Up to `max` devices of the machine; *n is how many there are. DEV_ABSENT without a driver or any device. */
bool dev_list(const char *driver, DevInfo *out, int max, int *n, DevError *e);

/* o NULL: the first device. Takes a fraction of a second: start it early, in a thread. */
Device *dev_open(const DevOptions *o, DevError *e);
void dev_close(Device *d);
const DevInfo *dev_info(const Device *d);
/* The architecture that kernels for compute capability `sm` are compiled for. out: at least 16 bytes. */
void dev_arch(int sm, char *out);

/* ==== Memory (memory.c) ==== */

/* Free and total device memory now, in bytes. */
bool dev_memory(Device *d, int64_t *free_bytes, int64_t *total_bytes, DevError *e);

/* Device memory, aligned to 256 bytes, contents undefined. `what` ("the K/V caches") and `advice` (what to
 * change when it does not fit; NULL: general words) go into the message. 0 bytes gives address 0. */
bool dev_alloc(Device *d, size_t bytes, const char *what, const char *advice, DevPtr *out, DevError *e);
void dev_free(Device *d, DevPtr p);

/* Page-locked host memory: copies from and to it run beside the host. Takes 0.6 s a GiB. NULL after an error. */
void *dev_host_alloc(Device *d, size_t bytes, DevError *e);
void dev_host_free(Device *d, void *p);

/* Enqueue on a stream. With page-locked host memory they return at once, and the memory must stay as it is until
 * the stream has passed; with other host memory they may wait. */
bool dev_copy_in(DevStream *s, DevPtr to, const void *from, size_t bytes, DevError *e);
bool dev_copy_out(DevStream *s, void *to, DevPtr from, size_t bytes, DevError *e);
bool dev_copy(DevStream *s, DevPtr to, DevPtr from, size_t bytes, DevError *e);
bool dev_fill(DevStream *s, DevPtr to, uint8_t value, size_t bytes, DevError *e);

/* ==== Streams and events (stream.c) ==== */

DevStream *dev_stream_new(Device *d, DevError *e);
void dev_stream_free(DevStream *s); /* waits for what is enqueued */
Device *dev_stream_device(const DevStream *s);
/* Waits for everything enqueued. A kernel that failed is reported here (or by a later call), with its name. */
bool dev_stream_wait(DevStream *s, DevError *e);
/* What is enqueued on s after this begins after the event. */
bool dev_stream_after(DevStream *s, const DevEvent *event, DevError *e);

/* timed: for dev_event_seconds(), else cheaper and the host sleeps while it waits. */
DevEvent *dev_event_new(Device *d, bool timed, DevError *e);
void dev_event_free(DevEvent *event);
bool dev_event_record(DevEvent *event, DevStream *s, DevError *e);
bool dev_event_wait(DevEvent *event, DevError *e);
bool dev_event_done(DevEvent *event, bool *done, DevError *e);
/* Both timed, recorded and passed. */
bool dev_event_seconds(const DevEvent *from, const DevEvent *to, double *seconds, DevError *e);

/* ==== Kernels (kernel.c) ==== */

/* `label` names the cubin in messages. The bytes may be freed afterwards. */
DevModule *dev_module_load(Device *d, const void *cubin, size_t bytes, const char *label, DevError *e);
void dev_module_free(DevModule *m); /* and its kernels */

/* A kernel by its extern "C" name, allowed `dynamic_shared` bytes of dynamic shared memory (0 is fine; more than
 * the device has is an error that says so). Owned by the module; asked for again, the same kernel. */
DevKernel *dev_kernel(DevModule *m, const char *name, size_t dynamic_shared, DevError *e);

typedef struct DevKernelInfo {
    const char *name;
    int registers;      /* of a thread */
    int local_bytes;    /* of a thread: spilled registers and arrays on the stack; 0 in a good kernel */
    int static_shared;  /* bytes of a block */
    int dynamic_shared; /* bytes allowed */
    int max_threads;    /* of a block */
} DevKernelInfo;

const DevKernelInfo *dev_kernel_info(const DevKernel *k);
/* How many blocks of `threads` threads fit on a multiprocessor at once. */
bool dev_kernel_blocks(const DevKernel *k, int threads, size_t dynamic_shared, int *blocks, DevError *e);

typedef struct DevLaunch {
    const DevKernel *kernel;
    uint32_t grid[3], block[3]; /* a 0 in y or z counts as 1 */
    uint32_t cluster[3];        /* {0}: no clusters */
    uint32_t shared_bytes;      /* dynamic */
    bool pdl;                   /* may start before the launch ahead of it has ended: the kernel waits by itself
                                   (griddepcontrol.wait). Means nothing on a device without `pdl` in its DevInfo. */
    bool cooperative;           /* all blocks must be resident at once; refused when they do not fit */
    void **arguments;           /* as many pointers to values as the kernel has parameters */
} DevLaunch;

bool dev_launch(DevStream *s, const DevLaunch *l, DevError *e);

/* ==== Graphs (graph.c) ==== */

/* The launches, one after another, as one executable graph. Values of arguments are fixed here; what changes from
 * run to run must lie in device memory. Nothing runs yet. `label` names the graph in messages. */
DevGraph *dev_graph_new(DevStream *s, const DevLaunch *launches, int n, const char *label, DevError *e);
/* The same from anything that is enqueued on s in between (copies and fills of device memory, launches, events
 * that fork to other streams and join again). After an error in between, dev_capture_drop(). */
bool dev_capture_begin(DevStream *s, DevError *e);
DevGraph *dev_capture_end(DevStream *s, const char *label, DevError *e);
void dev_capture_drop(DevStream *s);
bool dev_graph_launch(DevGraph *g, DevStream *s, DevError *e);
void dev_graph_free(DevGraph *g);
/* How many kernels it launches. */
int dev_graph_kernels(const DevGraph *g);

#endif
