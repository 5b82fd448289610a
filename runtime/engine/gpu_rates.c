/* gpu_rates.c - the rates of a GPU for the passes: those that are kept in a file, else an H100's until the next load.
 *
 * They are wanted before a module goes through the passes, and a load should not wait for them: so a load whose GPU is
 * new to the file, or has another driver, takes the usual ones, and measures its own when it is else ready. The
 * kernels that measure are compiled beside those of the plan. What cannot be measured is noted, too, so that only
 * the first load tries, unless it was for want of memory. Results do not depend on rates but where a pass says so, and
 * what goes wrong here is no error: there are always rates.
 */
#include "runtime/device/roofline.h"
#include "runtime/engine/gpu_int.h"
#include "runtime/engine/tuned_file.h"

#include <string.h>

TunedRates gpu_rates_key(const DevInfo *info) {
    return (TunedRates){.arch = info->arch,
                        .gpu = info->name,
                        .cuda = info->driver_cuda,
                        .version = RATES_VERSION,
                        .rates = rates_default_of(info->multiprocessors)};
}

/* ==== Measuring ==== */

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

static bool is_known(const GpuOptions *o, const DevInfo *info) {
    Tuned kept = {.arena = arena_new()};
    Diag *quiet = diag_new(); /* who took the rates has said what there is to say of the file */
    const TunedRates key = gpu_rates_key(info);
    tuned_file_read(&kept, o->rates.file, quiet);
    const bool known = tuned_find_rates(&kept, &key) != NULL;
    diag_free(quiet);
    arena_free(kept.arena);
    return known;
}

bool gpu_rates_wanted(const GpuOptions *o, const Device *d) {
    return o->rates.file && !o->check_launches && !is_known(o, dev_info(d));
}

void gpu_rates_compile(const GpuOptions *o, const char *arch, const Nvrtc *n, CubinCache *cache) {
    if (cache && !o->rates.measure)
        roofline_rates_compile(arch, n, cache);
}

void gpu_rates_measure(const GpuOptions *o, Device *d, const Nvrtc *n, CubinCache *cache, Diag *diag) {
    const RatesOptions *r = &o->rates;
    DeviceRates found;
    DevError e = {0};
    if (o->progress)
        o->progress(o->ctx, "measuring the GPU", 0, 1, false);
    if (r->measure ? r->measure(r->ctx, d, &found, &e) : roofline_rates(d, n, cache, &found, &e)) {
        gpu_keep_rates(r->file, dev_info(d), &found, diag);
    } else if (for_good(o, &e)) {
        Diag *quiet = diag_new(); /* that it cannot be kept costs a little time, and the kernels' warning says so */
        gpu_keep_rates(r->file, dev_info(d), NULL, quiet);
        diag_free(quiet);
    }
}

/* ==== Taking ==== */

GpuRates gpu_rates(Arena *a, const GpuOptions *o, Diag *diag) {
    DevInfo info;
    DevError e;
    if (!gpu_info(o->driver, o->ordinal, &info, &e))
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
        return (GpuRates){key.rates, "this GPU is not measured yet: the next load has its own"};
    if (!r->measured)
        return (GpuRates){key.rates, arena_printf(a, "this GPU could not be measured, by %s", o->rates.file)};
    return (GpuRates){r->rates, arena_printf(a, "kept in %s", o->rates.file)};
}
