/* roofline.h - what a device really reaches, measured: the limits that times are compared with, and the rates by which
 * passes choose. */
#ifndef LAP_DEVICE_ROOFLINE_H
#define LAP_DEVICE_ROOFLINE_H

#include "ir/rates.h"
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

/* To be raised when other things are measured, or in another way: rates of another version are not taken. */
enum { RATES_VERSION = 1 };

/* The rates for models of cost, by fewer passes and every way to multiply that there is: a tenth of a second besides
 * compiling on a large device. Needs 1 GiB of free device memory. */
bool roofline_rates(Device *d, const Nvrtc *n, CubinCache *cache, DeviceRates *out, DevError *e);
/* Its kernels, so that it finds them in the cache; without an error, as it will compile what is not there. */
void roofline_rates_compile(const char *arch, const Nvrtc *n, CubinCache *cache);

#endif
