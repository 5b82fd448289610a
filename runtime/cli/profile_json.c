/* profile_json.c - what lap profile measured, as JSON and as a trace for ui.perfetto.dev. */
#include "runtime/cli/profile_int.h"
#include <errno.h>
#include <string.h>

/* ==== As JSON ==== */

static json_t *number_or_null(bool there, double v) {
    return there ? json_real(v) : json_null();
}

static json_t *line_json(const Profile *p, const Line *l) {
    const double share = profile_share(p, l);
    return json_pack("{s:s, s:s, s:s, s:i, s:f, s:o, s:f, s:f, s:f, s:f, s:o, s:o}", "kernel",
                     p->plan->kernels.v[l->kernel].name, "label", l->label, "place", profile_place(p, l), "count",
                     l->count, "seconds", l->seconds, "gap_seconds", number_or_null(!p->alone, l->gap), "weight_bytes",
                     l->work.weight_bytes, "kv_bytes", l->work.kv_bytes, "row_bytes", l->work.row_bytes, "flops",
                     l->work.flops, "floor_seconds", number_or_null(p->limits, profile_floor(p, l)), "limit_share",
                     number_or_null(share >= 0, share));
}

/* Seconds from the beginning of the call. The clock counts from long ago: a double has no room for its last digits. */
static double since_start(const Profile *p, uint64_t t) {
    return 1e-9 * (double)(int64_t)(t - p->noted.spans[0].begin);
}

static json_t *launch_json(const Profile *p, int i) {
    const Line l = profile_line(p, i);
    json_t *j = line_json(p, &l);
    if (p->alone)
        return j;
    const LaunchSpan *s = &p->noted.spans[i];
    json_object_update_new(j, json_pack("{s:f, s:f, s:f}", "begin", since_start(p, s->begin), "go",
                                        since_start(p, s->go), "end", since_start(p, s->end)));
    return j;
}

static json_t *launches_json(const Profile *p) {
    json_t *all = json_array();
    for (int i = 0; i < p->call.phase->launches.n; i++)
        json_array_append_new(all, launch_json(p, i));
    return all;
}

void profile_print_json(const Profile *p) {
    const CallTime *t = &p->call;
    const Noted *n = &p->noted;
    json_t *lines = json_array();
    for (int i = 0; i < p->lines.n; i++)
        json_array_append_new(lines, line_json(p, &p->lines.v[i]));
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:f, s:o}", "weights", p->c->o.operand[0], "model",
                          session_text_name(p->s), "gpu", dev_info(gpu_device(session_gpu(p->s)))->name, "phase",
                          t->phase->name, "rows", (json_int_t)t->rows.T, "wanted", (json_int_t)t->rows.R, "depth",
                          (json_int_t)t->rows.first, "launches", t->phase->launches.n, "sum_seconds", p->sum, "limits",
                          measure_limits_json(p->limits));
    measure_call_json(j, t->seconds, &t->total, measure_floor(&t->total, p->limits), p->limits);
    if (!p->alone)
        json_object_update_new(j, json_pack("{s:f, s:f, s:i, s:f}", "noting_seconds", n->seconds, "explained",
                                            p->sum / t->seconds, "calls", n->line.counted, "clock_step_seconds",
                                            1e-9 * (double)n->line.tick));
    json_object_set_new(j, "lines", lines);
    if (p->c->o.all_launches)
        json_object_set_new(j, "all", launches_json(p));
    json_print(j, true);
}

/* ==== As a trace: complete events, times in microseconds ==== */

/* Launches that run beside each other are in different lanes. */
typedef struct Lanes {
    double *end; /* [n] of what is last in each */
    int n;
} Lanes;

/* The first lane that is free at `begin`. */
static int take_lane(Lanes *lanes, double begin, double end) {
    int lane = 0;
    while (lane < lanes->n && lanes->end[lane] > begin)
        lane++;
    lanes->n = lane < lanes->n ? lanes->n : lane + 1;
    lanes->end[lane] = end;
    return lane;
}

static json_t *event(const char *name, const char *category, double begin, double end, int lane) {
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:i, s:i}", "name", name, "cat", category, "ph", "X", "ts", begin,
                     "dur", end - begin, "pid", 0, "tid", lane);
}

/* From begin to end, and within it the time before it goes; of launches timed alone one behind the other. */
static json_t *events_json(const Profile *p) {
    json_t *events = json_array();
    const int n = p->call.phase->launches.n;
    Lanes lanes = {.end = arena_array(p->c->arena, (size_t)n + 1, sizeof *lanes.end)};
    double begin = 0, go = 0, end = 0;
    for (int i = 0; i < n; i++) {
        const PlanLaunch *l = profile_launch(p, i);
        if (p->alone) {
            begin = go = end;
            end += 1e6 * p->alone[i];
        } else {
            begin = 1e6 * since_start(p, p->noted.spans[i].begin);
            go = 1e6 * since_start(p, p->noted.spans[i].go);
            end = 1e6 * since_start(p, p->noted.spans[i].end);
        }
        const int lane = take_lane(&lanes, begin, end);
        json_t *whole = event(l->label, p->plan->kernels.v[l->kernel].file, begin, end, lane);
        json_object_set_new(whole, "args", launch_json(p, i));
        json_array_append_new(events, whole);
        if (go > begin)
            json_array_append_new(events, event("before it goes", "wait", begin, go, lane));
    }
    return events;
}

static json_t *trace_json(const Profile *p) {
    const CallTime *t = &p->call;
    json_t *events = events_json(p);
    const char *what = arena_printf(p->c->arena, "%s %s: %lld rows at depth %lld", session_text_name(p->s),
                                    t->phase->name, (long long)t->rows.T, (long long)t->rows.first);
    json_array_insert_new(
        events, 0,
        json_pack("{s:s, s:s, s:i, s:{s:s}}", "name", "process_name", "ph", "M", "pid", 0, "args", "name", what));
    return json_pack("{s:o, s:s}", "traceEvents", events, "displayTimeUnit", "ns");
}

int profile_write_trace(const Profile *p) {
    const char *path = p->c->o.trace;
    FILE *f = fopen(path, "w");
    json_t *j = trace_json(p);
    bool ok = f && json_dumpf(j, f, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) == 0;
    json_decref(j);
    int error = errno;
    if (f && fclose(f) != 0) {
        ok = false;
        error = errno;
    }
    return ok ? EXIT_FINE : cli_fail(p->c, EXIT_SYSTEM, "cannot write %s: %s", path, strerror(error));
}
