/* gpu_rates.c - the rates of a GPU for the passes: from the file where they are kept, else measured, once.
 *
 * They are wanted before a module goes through the passes, so before a GPU is opened for its plan. What the file knows
 * costs a load nothing but reading it. A GPU that is new to it, or has another driver, is opened, measured and closed;
 * what cannot be measured is noted, too, so that only the first load tries, unless it was for want of memory. Results
 * do not depend on rates but where a pass says so, and what goes wrong here is no error: there are always rates.
 */
#include "runtime/device/roofline.h"
#include "runtime/engine/clock.h"
#include "runtime/engine/gpu.h"
#include "runtime/engine/tuned_file.h"

#include <string.h>

TunedRates gpu_rates_key(const DevInfo *info) {
    return (TunedRates){.arch = info->arch,
                        .gpu = info->name,
                        .cuda = info->driver_cuda,
                        .version = RATES_VERSION,
                        .rates = rates_default_of(info->multiprocessors)};
}

static bool find_info(const GpuOptions *o, DevInfo *out) {
    enum { MOST = 64 };
    DevInfo all[MOST];
    DevError e;
    int n = 0;
    if (!dev_list(o->driver, all, MOST, &n, &e) || o->ordinal >= n || o->ordinal >= MOST)
        return false;
    *out = all[o->ordinal];
    return true;
}

/* ==== Measuring ==== */

static bool by_roofline(const GpuOptions *o, Device *d, DeviceRates *out, DevError *e) {
    Nvrtc *nvrtc = nvrtc_open(o->nvrtc, e);
    CubinCache *cache = nvrtc && o->kernel_cache ? cubin_cache_open(o->kernel_cache) : NULL;
    const bool ok = nvrtc && roofline_rates(d, nvrtc, cache, out, e);
    cubin_cache_close(cache); /* its warnings are those of the kernels of the plan, which has many more */
    nvrtc_close(nvrtc);
    return ok;
}

static bool measure(const GpuOptions *o, DeviceRates *out, DevError *e) {
    const DevOptions d = {.driver = o->driver, .ordinal = o->ordinal};
    Device *device = dev_open(&d, e);
    const RatesOptions *r = &o->rates;
    const bool ok = device && (r->measure ? r->measure(r->ctx, device, out, e) : by_roofline(o, device, out, e));
    dev_close(device);
    return ok;
}

void gpu_keep_rates(const char *file, const DevInfo *info, const DeviceRates *rates, Diag *diag) {
    Tuned fresh = {.arena = arena_new()};
    TunedRates r = gpu_rates_key(info);
    r.measured = rates != NULL;
    r.rates = rates ? *rates : r.rates;
    tuned_put_rates(&fresh, &r);
    tuned_file_add(&fresh, file, diag);
    arena_free(fresh.arena);
}

/* Whether it would end alike another time. */
static bool for_good(const GpuOptions *o, const DevError *e) {
    return e->kind != DEV_MEMORY && e->kind != DEV_ABSENT && !(o->cancel && *o->cancel);
}

static GpuRates measure_and_keep(Arena *a, const GpuOptions *o, const DevInfo *info, Diag *diag) {
    GpuRates out = {.rates = rates_default_of(info->multiprocessors)};
    DeviceRates found;
    DevError e = {0};
    const double start = clock_seconds();
    if (o->progress)
        o->progress(o->ctx, "measuring the GPU", 0, 1, false);
    if (measure(o, &found, &e)) {
        found.of = arena_printf(a, "measured on %s", info->name);
        out = (GpuRates){found, arena_printf(a, "measured in %.2f s", clock_seconds() - start)};
        gpu_keep_rates(o->rates.file, info, &found, diag);
        return out;
    }
    out.from = arena_printf(a, "this GPU is not measured: %.*s", (int)strcspn(e.text, "\n"), e.text);
    if (for_good(o, &e)) {
        Diag *quiet = diag_new(); /* that it cannot be kept costs a little time, and the kernels' warning says so */
        gpu_keep_rates(o->rates.file, info, NULL, quiet);
        diag_free(quiet);
    }
    return out;
}

/* ==== All of it ==== */

GpuRates gpu_rates(Arena *a, const GpuOptions *o, Diag *diag) {
    DevInfo info;
    if (!find_info(o, &info))
        return (GpuRates){rates_default(), "no GPU was found"};
    const TunedRates key = gpu_rates_key(&info);
    if (!o->rates.file)
        return (GpuRates){key.rates, "this GPU is not measured: there is no folder to keep them"};
    Tuned kept = {.arena = a};
    tuned_file_read(&kept, o->rates.file, diag);
    const TunedRates *r = tuned_find_rates(&kept, &key);
    if (r && kept.dropped) /* mended, so that it is said once, also where choices are taken from the same file */
        tuned_file_add(&(Tuned){0}, o->rates.file, diag);
    if (!r)
        return measure_and_keep(a, o, &info, diag);
    if (!r->measured)
        return (GpuRates){key.rates, arena_printf(a, "this GPU could not be measured, by %s", o->rates.file)};
    return (GpuRates){r->rates, arena_printf(a, "kept in %s", o->rates.file)};
}
