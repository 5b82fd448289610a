/* device_int.h - what the files of the device share: the loaded driver, the structs behind device.h. */
#ifndef LAP_DEVICE_DEVICE_INT_H
#define LAP_DEVICE_DEVICE_INT_H

#include "runtime/device/cuda_types_int.h"
#include "runtime/device/device.h"
#include <pthread.h>

/* ==== The driver (driver.c) ==== */

typedef struct CudaApi {
#define CU(name, version, parameters) CUresult(*name) parameters;
#include "runtime/device/cuda_api.def"
#undef CU
    int version; /* 13000 = CUDA 13.0 */
} CudaApi;

/* Opens libcuda, loads the table, calls cuInit. path NULL: the search list. The library stays open: a
 * driver does not take being unloaded. */
bool cuda_load(CudaApi *api, const char *path, DevError *e);

/* ==== Device ==== */

enum { NAME_BYTES = 64 };

struct Device {
    CudaApi api;
    CUdevice handle;
    CUcontext context; /* the primary one of the device */
    DevInfo info;
    bool check_launches;
    uint64_t serial;      /* never used twice, see dev_enter() */
    pthread_mutex_t lock; /* guards fault */
    char fault[1024];     /* the first failure of a kernel: all later calls fail because of it */
};

/* Makes d the calling thread's device. */
bool dev_enter(Device *d, DevError *e);

/* r == CUDA_SUCCESS, else fills e: "WHAT: driver's text (NAME)". */
__attribute__((format(printf, 4, 5))) bool dev_check(Device *d, CUresult r, DevError *e, const char *fmt, ...);

/* True for what only a kernel that went wrong gives; the context is lost then. */
bool cuda_is_fault(CUresult r);

/* ==== Streams ==== */

/* Names of what was launched since the stream was last known to be idle, for messages about faults. */
enum { RECENT = 8 };

struct DevStream {
    Device *d;
    CUstream handle;
    bool capturing;
    uint64_t n_recent; /* how many, of which the last RECENT are kept */
    char recent[RECENT][NAME_BYTES];
};

struct DevEvent {
    Device *d;
    CUevent handle;
    DevStream *stream; /* where it was last recorded; NULL: not yet */
};

void stream_launched(DevStream *s, const char *name);
/* As dev_check, and a fault names the kernels that may have caused it. */
__attribute__((format(printf, 4, 5))) bool stream_check(DevStream *s, CUresult r, DevError *e, const char *fmt, ...);

#endif
