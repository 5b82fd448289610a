/* cmd_profile.c - lap profile: where the time of a call on a GPU goes, kernel by kernel.
 *
 * Each launch is timed between two events, without overlap; the call as a whole as calls run it. A launch's share of
 * the limit is the least time in which the device can read what the plan says (weights, keys and values, activations)
 * or compute it, whichever is longer, over the time it took.
 */
#include "runtime/cli/measure.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Launches of one kernel for one purpose. */
typedef struct Line {
    int kernel, count;
    const char *label; /* a * where theirs have different numbers */
    SrcLoc loc;        /* of the first */
    double seconds;
    Work work;
} Line;

typedef struct Profile {
    Cli *c;
    Session *s;
    const Plan *plan;
    CallTime call;
    double *seconds; /* [launches] */
    double sum;
    const Roofline *limits; /* NULL: not measured */
    VEC(Line) lines;
    int kernel_width, label_width; /* of the columns */
} Profile;

/* ==== Labels: "blk.0.attn_q.weight + 2" ==== */

/* Length of the number (or *) at `at`, which must stand behind a dot; 0: none. */
static size_t number(const char *label, size_t at) {
    size_t n = 0;
    if (at == 0 || label[at - 1] != '.')
        return 0;
    while (isdigit((unsigned char)label[at + n]))
        n++;
    return label[at] == '*' ? 1 : n;
}

/* What two labels have in common, * for numbers that differ; false when they differ elsewhere. out may be NULL. */
static bool join_labels(const char *a, const char *b, Buf *out) {
    size_t i = 0, k = 0;
    while (a[i] && b[k]) {
        const size_t n = number(a, i), m = number(b, k);
        const bool same = n == m && strncmp(a + i, b + k, n ? n : 1) == 0;
        if (!same && !(n && m))
            return false;
        if (out && same)
            buf_bytes(out, a + i, n ? n : 1);
        else if (out)
            buf_str(out, "*");
        i += n ? n : 1;
        k += m ? m : 1;
    }
    return a[i] == b[k];
}

/* ==== Lines ==== */

static const PlanLaunch *launch(const Profile *p, int i) {
    return &p->call.phase->launches.v[i];
}

static Line line_of(const Profile *p, int i) {
    const PlanLaunch *l = launch(p, i);
    return (Line){l->kernel, 1, l->label, l->loc, p->seconds[i], p->call.each[i]};
}

static void add_launch(Profile *p, int i) {
    const Line new = line_of(p, i);
    for (int k = 0; k < p->lines.n; k++) {
        Line *l = &p->lines.v[k];
        if (l->kernel != new.kernel || !join_labels(l->label, new.label, NULL))
            continue;
        Buf label = {0};
        join_labels(l->label, new.label, &label);
        l->label = arena_strndup(p->c->arena, label.s, label.n);
        buf_free(&label);
        l->count++;
        l->seconds += new.seconds;
        work_add(&l->work, &new.work);
        return;
    }
    vec_push(p->c->arena, &p->lines, new);
}

static int longest_first(const void *a, const void *b) {
    const Line *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static double bytes_of(const Work *w) {
    return w->weight_bytes + w->kv_bytes + w->row_bytes;
}

static double share_of_limit(const Profile *p, const Line *l) {
    const Work all = {.weight_bytes = bytes_of(&l->work), .flops = l->work.flops};
    return work_floor(&all, p->limits) / l->seconds;
}

/* "gemma4.lap:120"; "" without a place. */
static const char *place(const Profile *p, SrcLoc at) {
    return at.file ? arena_printf(p->c->arena, "%s:%d", diag_source_name(p->c->diag, at.file), at.line) : "";
}

/* ==== As text ==== */

static void print_line(const Profile *p, const Line *l) {
    printf("%10.1f %6.1f %% %6d %9.2f %8.0f %8.1f", 1e6 * l->seconds, 100 * l->seconds / p->sum, l->count,
           1e6 * l->seconds / l->count, 1e-9 * bytes_of(&l->work) / l->seconds, 1e-12 * l->work.flops / l->seconds);
    if (p->limits)
        printf(" %5.1f %%", 100 * share_of_limit(p, l));
    printf("  %-*s  %-*s  %s\n", p->kernel_width, p->plan->kernels.v[l->kernel].name, p->label_width, l->label,
           place(p, l->loc));
}

static void find_widths(Profile *p) {
    for (int i = 0; i < p->call.phase->launches.n; i++) {
        const PlanLaunch *l = launch(p, i);
        const int kernel = (int)strlen(p->plan->kernels.v[l->kernel].name), label = (int)strlen(l->label);
        p->kernel_width = kernel > p->kernel_width ? kernel : p->kernel_width;
        p->label_width = label > p->label_width ? label : p->label_width;
    }
}

static void print_text(Profile *p) {
    const CallTime *t = &p->call;
    printf("%s: %s on %s\n%s: %lld rows, %lld wanted, at depth %lld; %d launches, median of %lld\n", p->c->o.operand[0],
           session_text_name(p->s), session_device_text(p->s), t->phase->name, (long long)t->rows.T,
           (long long)t->rows.R, (long long)t->rows.first, t->phase->launches.n, (long long)p->c->o.profile_repeat);
    measure_print_limits(p->limits);
    find_widths(p);
    printf("\n%10s %8s %6s %9s %8s %8s%s  %-*s  %-*s  %s\n", "us", "share", "count", "us each", "GB/s", "TFLOP/s",
           p->limits ? "   limit" : "", p->kernel_width, "kernel", p->label_width, "for", "in");
    if (p->c->o.all_launches)
        for (int i = 0; i < t->phase->launches.n; i++) {
            const Line l = line_of(p, i);
            print_line(p, &l);
        }
    else
        for (int i = 0; i < p->lines.n; i++)
            print_line(p, &p->lines.v[i]);
    printf("\nsum     %10.1f us of launches one by one\ncall    %10.1f us as a whole\n", 1e6 * p->sum,
           1e6 * t->seconds);
    if (p->limits) {
        const double floor = work_floor(&t->total, p->limits);
        printf("floor   %10.1f us, %.1f %% of the call: weights %.1f MB, K/V %.1f MB, %.1f GFLOP\n", 1e6 * floor,
               100 * floor / t->seconds, 1e-6 * t->total.weight_bytes, 1e-6 * t->total.kv_bytes, 1e-9 * t->total.flops);
    }
}

/* ==== As JSON ==== */

static json_t *line_json(const Profile *p, const Line *l) {
    return json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:o}", "kernel", p->plan->kernels.v[l->kernel].name,
                     "label", l->label, "place", place(p, l->loc), "count", l->count, "seconds", l->seconds,
                     "weight_bytes", l->work.weight_bytes, "kv_bytes", l->work.kv_bytes, "row_bytes", l->work.row_bytes,
                     "flops", l->work.flops, "limit_share", p->limits ? json_real(share_of_limit(p, l)) : json_null());
}

static json_t *launches_json(const Profile *p) {
    json_t *all = json_array();
    for (int i = 0; i < p->call.phase->launches.n; i++) {
        const Line l = line_of(p, i);
        json_array_append_new(all, line_json(p, &l));
    }
    return all;
}

static void print_json(const Profile *p) {
    const CallTime *t = &p->call;
    json_t *lines = json_array();
    for (int i = 0; i < p->lines.n; i++)
        json_array_append_new(lines, line_json(p, &p->lines.v[i]));
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:f, s:o}", "weights", p->c->o.operand[0], "model",
                          session_text_name(p->s), "gpu", dev_info(gpu_device(session_gpu(p->s)))->name, "phase",
                          t->phase->name, "rows", (json_int_t)t->rows.T, "wanted", (json_int_t)t->rows.R, "depth",
                          (json_int_t)t->rows.first, "launches", t->phase->launches.n, "sum_seconds", p->sum, "limits",
                          measure_limits_json(p->limits));
    measure_call_json(j, t->seconds, &t->total, measure_floor(&t->total, p->limits), p->limits);
    json_object_set_new(j, "lines", lines);
    if (p->c->o.all_launches)
        json_object_set_new(j, "all", launches_json(p));
    json_print(j, true);
}

/* ==== As a trace: complete events one behind the other, times in microseconds ==== */

static json_t *trace_json(const Profile *p) {
    json_t *events = json_array();
    const CallTime *t = &p->call;
    const char *what = arena_printf(p->c->arena, "%s %s: %lld rows at depth %lld", session_text_name(p->s),
                                    t->phase->name, (long long)t->rows.T, (long long)t->rows.first);
    json_array_append_new(events, json_pack("{s:s, s:s, s:i, s:{s:s}}", "name", "process_name", "ph", "M", "pid", 0,
                                            "args", "name", what));
    double at = 0;
    for (int i = 0; i < t->phase->launches.n; i++) {
        const Line l = line_of(p, i);
        json_array_append_new(events, json_pack("{s:s, s:s, s:s, s:f, s:f, s:i, s:i, s:o}", "name", l.label, "cat",
                                                p->plan->kernels.v[l.kernel].file, "ph", "X", "ts", 1e6 * at, "dur",
                                                1e6 * l.seconds, "pid", 0, "tid", 0, "args", line_json(p, &l)));
        at += l.seconds;
    }
    return json_pack("{s:o, s:s}", "traceEvents", events, "displayTimeUnit", "ns");
}

static int write_trace(const Profile *p) {
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

/* ==== The command ==== */

/* The call itself, then its times. */
static StepResult measure(Profile *p, const CallRows *rows) {
    const Options *o = &p->c->o;
    Gpu *g = session_gpu(p->s);
    const int32_t *ids = measure_ids(p->c, p->s, rows->first + rows->T);
    StepResult r = measure_stand(p->s, ids, rows->first);
    if (r == STEP_OK)
        r = measure_step(p->s, ids + rows->first, rows->T, !o->profile_pp);
    if (r != STEP_OK)
        return r;
    if (!measure_call(p->c, p->s, rows, o->profile_repeat, &p->call))
        return STEP_ERROR;
    p->seconds = arena_array(p->c->arena, (size_t)p->call.phase->launches.n + 1, sizeof *p->seconds);
    if (!gpu_time_launches(g, p->call.phase, rows->T, rows->R, (int)o->profile_repeat, p->seconds, p->c->diag))
        return STEP_ERROR;
    for (int i = 0; i < p->call.phase->launches.n; i++) {
        add_launch(p, i);
        p->sum += p->seconds[i];
    }
    qsort(p->lines.v, (size_t)p->lines.n, sizeof *p->lines.v, longest_first);
    return STEP_OK;
}

static int profile(Profile *p, const CallRows *rows) {
    Gpu *g = session_gpu(p->s);
    if (!g)
        return cli_fail(p->c, EXIT_USAGE, "only calls on a GPU have kernels to time");
    p->plan = gpu_plan(g);
    if (rows->T > p->plan->chunk || rows->R > session_step_rows(p->s))
        return cli_fail(p->c, EXIT_USAGE, "%lld rows are more than a call takes: the bundle is for at most %lld",
                        (long long)rows->T, (long long)p->plan->chunk);
    p->limits = measure_limits(p->c, p->s);
    const StepResult r = measure(p, rows);
    if (cli_interrupted) {
        fprintf(stderr, "interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (r != STEP_OK)
        return EXIT_INPUT;
    if (p->c->o.json)
        print_json(p);
    else
        print_text(p);
    return p->c->o.trace ? write_trace(p) : EXIT_FINE;
}

int cmd_profile(Cli *c) {
    Options *o = &c->o;
    if (o->profile_pp && o->given[OPT_profile_rows])
        return cli_fail(c, EXIT_USAGE, "--pp is a call of a prompt, --rows one of decoding: give one of them");
    const CallRows rows = {o->profile_pp ? o->profile_pp : o->profile_rows, o->profile_pp ? 1 : o->profile_rows,
                           o->profile_depth};
    if (strcmp(o->device, "auto") == 0)
        o->device = "gpu";
    o->chunk = o->chunk > rows.T ? o->chunk : rows.T;
    cli_catch_interrupt();
    Profile p = {.c = c};
    int code = cli_session(c, rows.first + rows.T, NULL, 0, &p.s);
    if (code == EXIT_FINE)
        code = profile(&p, &rows);
    session_close(p.s);
    return code;
}
