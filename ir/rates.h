/* rates.h - what a device reaches, for models of cost: passes and codegen are given it, runtime/device measures it.
 *
 * All are of the device as a whole. A choice made by them is the same wherever the same numbers are given.
 */
#ifndef LAP_IR_RATES_H
#define LAP_IR_RATES_H

#include "ir/base.h"

typedef struct DeviceRates {
    const char *of; /* behind "rates": "of an H100", "measured on NVIDIA L4" */
    int64_t multiprocessors;
    int64_t bytes;      /* of its memory that it reads in a second */
    int64_t mma, wgmma; /* FLOP/s of a large bf16 matmul; multiply and add are two. wgmma 0: it has none */
    int64_t launch_ns;  /* from the begin of a small kernel to that of the next one in the stream */
} DeviceRates;

/* Those of an H100, where no device is known or none was measured. */
DeviceRates rates_default(void);
/* The same of a device with so many multiprocessors: each is taken to multiply as fast. */
DeviceRates rates_default_of(int64_t multiprocessors);

/* FLOP/s by the fastest products that it has. */
int64_t rates_matmul(const DeviceRates *r);
/* What is wrong with them; NULL: nothing. */
const char *rates_problem(const DeviceRates *r);

/* "rates of an H100: reads 3100 GB/s, multiplies 825 TFLOP/s by wgmma and 400 by mma.sync, 3.7 us a launch" */
const char *rates_text(Arena *a, const DeviceRates *r);
/* The same in short: "rates of an H100: 3100 GB/s, 825 TFLOP/s, 3.7 us a launch" */
const char *rates_short_text(Arena *a, const DeviceRates *r);

#endif
