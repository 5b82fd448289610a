/* cmd_profile.c - lap profile: where the time of a call on a GPU goes, kernel by kernel.
 *
 * Launches of a call overlap. So they note when they run, within the call as calls run it, and each gets the time by
 * which its end is later than the ends ahead of it: what the call took is told apart without a rest
 * (engine/timeline.h). With
 * --alone each launch is timed between two events instead, without overlap. A launch's share of the limit is the least
 * time in which the device can read what the plan says (weights, keys and values, activations) or compute it, whichever
 * is longer, over its time.
 */
#include "runtime/cli/profile_int.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

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

Line profile_line(const Profile *p, int i) {
    const PlanLaunch *l = profile_launch(p, i);
    Line line = {.kernel = l->kernel, .count = 1, .label = l->label, .loc = l->loc, .work = p->call.each[i]};
    line.seconds = p->alone ? p->alone[i] : p->noted.times[i].own;
    line.gap = p->alone ? 0 : p->noted.times[i].gap;
    return line;
}

static void add_launch(Profile *p, int i) {
    const Line new = profile_line(p, i);
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
        l->gap += new.gap;
        work_add(&l->work, &new.work);
        return;
    }
    vec_push(p->c->arena, &p->lines, new);
}

static int longest_first(const void *a, const void *b) {
    const Line *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static void make_lines(Profile *p) {
    for (int i = 0; i < p->call.phase->launches.n; i++) {
        add_launch(p, i);
        p->sum += profile_line(p, i).seconds;
    }
    qsort(p->lines.v, (size_t)p->lines.n, sizeof *p->lines.v, longest_first);
}

/* Here activations count as read. */
double profile_floor(const Profile *p, const Line *l) {
    const Work *w = &l->work;
    const Work all = {.weight_bytes = w->weight_bytes + w->kv_bytes + w->row_bytes, .flops = w->flops};
    return measure_floor(&all, p->limits);
}

double profile_share(const Profile *p, const Line *l) {
    return p->limits && l->seconds > 0 ? profile_floor(p, l) / l->seconds : -1;
}

const char *profile_place(const Profile *p, const Line *l) {
    return l->loc.file ? arena_printf(p->c->arena, "%s:%d", diag_source_name(p->c->diag, l->loc.file), l->loc.line)
                       : "";
}

/* ==== Measuring ==== */

static bool time_alone(Profile *p) {
    const CallTime *t = &p->call;
    p->alone = arena_array(p->c->arena, (size_t)t->phase->launches.n + 1, sizeof *p->alone);
    return gpu_time_launches(session_gpu(p->s), t->phase, t->rows.T, t->rows.R, (int)p->c->o.profile_repeat, p->alone,
                             p->c->diag);
}

static bool time_noted(Profile *p) {
    Gpu *g = session_gpu(p->s);
    const CallRows *rows = &p->call.rows;
    const int n = p->call.phase->launches.n, repeat = (int)p->c->o.profile_repeat;
    LaunchSpan *spans = arena_array(p->c->arena, (size_t)n * (size_t)repeat + 1, sizeof *spans);
    double *seconds = arena_array(p->c->arena, (size_t)repeat, sizeof *seconds);
    p->noted.times = arena_array(p->c->arena, (size_t)n + 1, sizeof *p->noted.times);
    if (!gpu_time_phase(g, gpu_timed_phase(g), rows->T, rows->R, repeat, seconds, p->c->diag) ||
        !gpu_time_spans(g, rows->T, rows->R, repeat, spans, p->c->diag))
        return false;
    p->noted.seconds = measure_median(seconds, repeat);
    p->noted.line = timeline_mean(spans, n, repeat, p->noted.times);
    p->noted.spans = spans + (size_t)p->noted.line.typical * (size_t)n;
    return true;
}

/* The call itself, then its times. */
static StepResult measure(Profile *p, const CallRows *rows) {
    const Options *o = &p->c->o;
    const int32_t *ids = measure_ids(p->c, p->s, rows->first + rows->T);
    StepResult r = measure_stand(p->s, ids, rows->first);
    if (r == STEP_OK)
        r = measure_step(p->s, ids + rows->first, rows->T, !o->profile_pp);
    if (r != STEP_OK)
        return r;
    if (!measure_call(p->c, p->s, rows, o->profile_repeat, &p->call) || !(o->alone ? time_alone(p) : time_noted(p)))
        return STEP_ERROR;
    make_lines(p);
    return STEP_OK;
}

/* ==== The command ==== */

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
        profile_print_json(p);
    else
        profile_print(p);
    return p->c->o.trace ? profile_write_trace(p) : EXIT_FINE;
}

int cmd_profile(Cli *c) {
    Options *o = &c->o;
    if (o->profile_pp && o->given[OPT_profile_rows])
        return cli_fail(c, EXIT_USAGE, "--pp is a call of a prompt, --rows one of decoding: give one of them");
    if (o->facet && !o->alone)
        return cli_fail(c, EXIT_USAGE, "the kernels of a bundle do not note when they run: --facet needs --alone");
    if (o->alone && o->given[OPT_moment])
        return cli_fail(c, EXIT_USAGE, "--moment is of launches within a call: not with --alone");
    const CallRows rows = {o->profile_pp ? o->profile_pp : o->profile_rows, o->profile_pp ? 1 : o->profile_rows,
                           o->profile_depth};
    if (strcmp(o->device, "auto") == 0)
        o->device = "gpu";
    if (!o->chunk && o->profile_pp)
        o->chunk = CHUNK_USUAL; /* or as long as the call that is asked for */
    if (o->chunk)
        o->chunk = o->chunk > rows.T ? o->chunk : rows.T;
    if (!o->alone) {
        c->timed_rows = rows.T;
        c->timed_wanted = rows.R;
    }
    cli_catch_interrupt();
    Profile p = {.c = c};
    int code = cli_session(c, rows.first + rows.T, NULL, 0, &p.s);
    if (code == EXIT_FINE)
        code = profile(&p, &rows);
    session_close(p.s);
    return code;
}
