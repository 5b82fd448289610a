/* roofline.h - what a device really reaches, measured: the limits that times are compared with. */
#ifndef LAP_DEVICE_ROOFLINE_H
#define LAP_DEVICE_ROOFLINE_H

#include "runtime/device/compile.h"
#include "runtime/device/device.h"

typedef struct Roofline {
    double read_gb_per_second; /* streaming device memory, best pass, in 1e9 bytes a second */
    double median_gb_per_second;
    int64_t bytes; /* read by a pass */
    int passes;
    double matmul_tflops; /* a large bf16 matmul, best pass, in 1e12 operations a second; multiply and add are two */
    double median_tflops;
    double flops; /* of a pass */
    int matmul_passes;
} Roofline;

/* Needs 1 GiB of free device memory, takes up to 4; under a second besides compiling. cache may be NULL. */
bool roofline_measure(Device *d, const Nvrtc *n, CubinCache *cache, Roofline *out, DevError *e);

#endif
