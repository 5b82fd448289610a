/* roofline.h - what a device really reaches, measured: the floor that decode times are compared with. */
#ifndef LAP_DEVICE_ROOFLINE_H
#define LAP_DEVICE_ROOFLINE_H

#include "runtime/device/compile.h"
#include "runtime/device/device.h"

typedef struct Roofline {
    double read_gb_per_second; /* best pass, in 1e9 bytes a second */
    double median_gb_per_second;
    int64_t bytes; /* read by a pass */
    int passes;
} Roofline;

/* Needs 1 GiB of free device memory, takes up to 4; well under a second besides compiling. cache may be NULL. */
bool roofline_measure(Device *d, const Nvrtc *n, CubinCache *cache, Roofline *out, DevError *e);

#endif
