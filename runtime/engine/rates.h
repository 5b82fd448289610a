/* rates.h - the rates by which passes choose for a GPU (ir/rates.h): where they are kept, and where they come from.
 * gpu_rates.c takes and makes them.
 */
#ifndef LAP_ENGINE_RATES_H
#define LAP_ENGINE_RATES_H

#include "ir/rates.h"
#include "runtime/device/device.h"

typedef struct RatesOptions {
    const char *file; /* where rates are kept (tuned_file.h); NULL: none are taken and none are measured */
    /* For tests, in the place of roofline_rates(); NULL: that. False after an error. */
    bool (*measure)(void *ctx, Device *d, DeviceRates *out, DevError *e);
    void *ctx;
} RatesOptions;

typedef struct GpuRates {
    DeviceRates rates;
    const char *from; /* "kept in FILE", "this GPU is not measured yet: ..": for people */
} GpuRates;

#endif
