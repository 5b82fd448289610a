/* measure.c - see measure.h. */
#include "runtime/cli/measure.h"
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double measure_median(double *v, int64_t n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

int32_t *measure_ids(const Cli *c, const Session *s, int64_t n) {
    int32_t *ids = arena_array(c->arena, (size_t)n + 1, sizeof *ids);
    uint64_t x = 1;
    for (int64_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((x >> 33) % (uint64_t)session_vocab(s));
    }
    return ids;
}

/* ==== Calls ==== */

StepResult measure_stand(Session *s, const int32_t *ids, int64_t depth) {
    const int64_t kept = session_rewind(s, depth);
    FeedOptions feed = {.cancel = &cli_interrupted};
    return kept < depth ? session_feed(s, ids + kept, depth - kept, &feed, NULL) : STEP_OK;
}

StepResult measure_step(Session *s, const int32_t *ids, int64_t n, bool all) {
    enum { MOST = 16 };
    int32_t rows[MOST];
    const int64_t wanted = all ? n : 1;
    if (wanted > MOST)
        ICE("%lld rows wanted", (long long)wanted);
    for (int64_t i = 0; i < wanted; i++)
        rows[i] = (int32_t)(n - wanted + i);
    StepCall call = {.tokens = ids, .n = n, .rows = rows, .n_rows = wanted, .cancel = &cli_interrupted};
    return session_step(s, &call);
}

bool measure_call(Cli *c, Session *s, const CallRows *rows, int64_t repeat, CallTime *out) {
    Gpu *g = session_gpu(s);
    const PlanPhase *phase = gpu_phase(g, "step", rows->T, rows->R);
    double *seconds = arena_array(c->arena, (size_t)repeat, sizeof *seconds);
    *out = (CallTime){.rows = *rows, .phase = phase};
    out->each = arena_array(c->arena, (size_t)phase->launches.n + 1, sizeof *out->each);
    if (!gpu_time_phase(g, phase, rows->T, rows->R, (int)repeat, seconds, c->diag) ||
        !work_measure(g, session_module(s), phase, rows, out->each, c->diag))
        return false;
    out->seconds = measure_median(seconds, repeat);
    for (int i = 0; i < phase->launches.n; i++)
        work_add(&out->total, &out->each[i]);
    return true;
}

/* ==== Limits ==== */

const Roofline *measure_limits(Cli *c, Session *s) {
    Gpu *g = session_gpu(s);
    DevError e = {0};
    Roofline *out = arena_alloc(c->arena, sizeof *out);
    CubinCache *cache = cli_open_kernel_cache(c);
    Nvrtc *own = gpu_nvrtc(g) ? NULL : nvrtc_open(c->o.nvrtc, &e);
    const Nvrtc *nvrtc = own ? own : gpu_nvrtc(g);
    const bool ok = nvrtc && roofline_measure(gpu_device(g), nvrtc, cache, out, &e);
    if (!ok)
        fprintf(stderr,
                "lap %s: warning: the limits of this GPU were not measured, so that nothing is compared with "
                "them: %.*s\n",
                command_info[c->cmd].name, (int)strcspn(e.text, "\n"), e.text);
    cli_close_kernel_cache(c, cache);
    nvrtc_close(own);
    return ok ? out : NULL;
}

double measure_floor(const Work *w, const Roofline *limits) {
    return limits ? work_floor(w, limits) : 0;
}

json_t *measure_limits_json(const Roofline *r) {
    if (!r)
        return json_null();
    return json_pack("{s:f, s:f, s:f, s:f}", "read_gb_per_second", r->read_gb_per_second, "median_read_gb_per_second",
                     r->median_gb_per_second, "matmul_tflops", r->matmul_tflops, "median_matmul_tflops",
                     r->median_tflops);
}

void measure_print_limits(const Roofline *r) {
    if (r)
        printf("limits  measured in this run: reads %.0f GB/s, multiplies bf16 at %.0f TFLOP/s\n",
               r->read_gb_per_second, r->matmul_tflops);
}

void measure_call_json(json_t *j, double seconds, const Work *w, double floor, const Roofline *r) {
    json_object_update_new(j, json_pack("{s:f, s:f, s:f, s:f, s:o, s:o}", "gpu_seconds", seconds, "weight_bytes",
                                        w->weight_bytes, "kv_bytes", w->kv_bytes, "flops", w->flops, "floor_seconds",
                                        r ? json_real(floor) : json_null(), "share",
                                        r ? json_real(floor / seconds) : json_null()));
}
