/* rates.c - see rates.h. */
#include "ir/rates.h"

/* docs/performance/: what an H100 80GB HBM3 was seen to read and to multiply, and small kernels one after another in a
 * stream; by mma.sync 378 and 411. */
DeviceRates rates_default(void) {
    return (DeviceRates){.of = "of an H100",
                         .multiprocessors = 132,
                         .bytes = INT64_C(3100) * 1000000000,
                         .mma = INT64_C(400) * 1000000000000,
                         .wgmma = INT64_C(825) * 1000000000000,
                         .launch_ns = 3700};
}

DeviceRates rates_default_of(int64_t multiprocessors) {
    DeviceRates r = rates_default();
    if (multiprocessors != r.multiprocessors)
        r.of = "of an H100's multiprocessors";
    r.mma = r.mma / r.multiprocessors * multiprocessors;
    r.wgmma = r.wgmma / r.multiprocessors * multiprocessors;
    r.multiprocessors = multiprocessors;
    return r;
}

int64_t rates_matmul(const DeviceRates *r) {
    return r->wgmma > r->mma ? r->wgmma : r->mma;
}

const char *rates_problem(const DeviceRates *r) {
    return r->multiprocessors < 1 ? "a device has multiprocessors"
           : r->bytes < 1         ? "a device reads its memory"
           : r->mma < 1           ? "a device multiplies"
           : r->wgmma < 0         ? "no rate is below 0"
           : r->launch_ns < 1     ? "a launch takes time"
                                  : NULL;
}

const char *rates_text(Arena *a, const DeviceRates *r) {
    const double tera = 1e-12;
    const char *wgmma =
        r->wgmma ? arena_printf(a, "%.4g TFLOP/s by wgmma and %.4g", tera * (double)r->wgmma, tera * (double)r->mma)
                 : arena_printf(a, "%.4g TFLOP/s", tera * (double)r->mma);
    return arena_printf(a, "rates %s: reads %.4g GB/s, multiplies %s by mma.sync, %.3g us a launch", r->of,
                        1e-9 * (double)r->bytes, wgmma, 1e-3 * (double)r->launch_ns);
}

const char *rates_short_text(Arena *a, const DeviceRates *r) {
    return arena_printf(a, "rates %s: %.4g GB/s, %.4g TFLOP/s, %.3g us a launch", r->of, 1e-9 * (double)r->bytes,
                        1e-12 * (double)rates_matmul(r), 1e-3 * (double)r->launch_ns);
}
