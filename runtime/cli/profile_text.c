/* profile_text.c - what lap profile measured, as text. */
#include "runtime/cli/profile_int.h"
#include <string.h>

/* ==== Above the table ==== */

static void print_call(const Profile *p) {
    const CallTime *t = &p->call;
    const Noted *n = &p->noted;
    printf("%s: %s on %s\n%s: %lld rows, %lld wanted, at depth %lld; %d launches, %s of %lld\n", p->c->o.operand[0],
           session_text_name(p->s), session_device_text(p->s), t->phase->name, (long long)t->rows.T,
           (long long)t->rows.R, (long long)t->rows.first, t->phase->launches.n, p->alone ? "median" : "mean",
           (long long)(p->alone ? p->c->o.profile_repeat : n->line.counted));
    measure_print_limits(p->limits);
    printf("call    %10.1f us as a whole", 1e6 * t->seconds);
    if (!p->alone)
        printf(", %.1f us (%+.1f %%) while launches note their times", 1e6 * n->seconds,
               100 * (n->seconds / t->seconds - 1));
    printf("\nsum     %10.1f us ", 1e6 * p->sum);
    if (p->alone)
        printf("of launches one by one\n");
    else
        printf("of launches as they run: %.1f %% of the call; the clock's steps are %llu ns\n",
               100 * p->sum / t->seconds, (unsigned long long)n->line.tick);
    if (p->limits) {
        const double floor = work_floor(&t->total, p->limits);
        printf("floor   %10.1f us, %.1f %% of the call: weights %.1f MB, K/V %.1f MB, %.1f GFLOP\n", 1e6 * floor,
               100 * floor / t->seconds, 1e-6 * t->total.weight_bytes, 1e-6 * t->total.kv_bytes, 1e-9 * t->total.flops);
    }
}

/* ==== The table ==== */

typedef struct Widths {
    int kernel, label;
} Widths;

static Widths find_widths(const Profile *p) {
    Widths w = {0, 0};
    for (int i = 0; i < p->call.phase->launches.n; i++) {
        const PlanLaunch *l = profile_launch(p, i);
        const int kernel = (int)strlen(p->plan->kernels.v[l->kernel].name), label = (int)strlen(l->label);
        w.kernel = kernel > w.kernel ? kernel : w.kernel;
        w.label = label > w.label ? label : w.label;
    }
    return w;
}

static void print_head(const Profile *p, const Widths *w) {
    printf("\n%10s %8s %6s %9s", "us", "share", "count", "us each");
    if (p->limits)
        printf(" %9s %8s", "floor us", "limit");
    if (!p->alone)
        printf(" %7s", "gap us");
    printf("  %-*s  %-*s  %s\n", w->kernel, "kernel", w->label, "for", "in");
}

/* us, floor and gap of each are means over the launches of the line. */
static void print_line(const Profile *p, const Widths *w, const Line *l) {
    const double share = profile_share(p, l);
    printf("%10.1f %6.1f %% %6d %9.2f", 1e6 * l->seconds, 100 * l->seconds / p->sum, l->count,
           1e6 * l->seconds / l->count);
    if (p->limits)
        printf(" %9.2f", 1e6 * profile_floor(p, l) / l->count);
    if (p->limits && share < 0)
        printf(" %8s", "-");
    else if (p->limits)
        printf(" %6.1f %%", 100 * share);
    if (!p->alone)
        printf(" %7.2f", 1e6 * l->gap / l->count);
    printf("  %-*s  %-*s  %s\n", w->kernel, p->plan->kernels.v[l->kernel].name, w->label, l->label,
           profile_place(p, l));
}

void profile_print(const Profile *p) {
    const Widths w = find_widths(p);
    print_call(p);
    print_head(p, &w);
    const int n = p->c->o.all_launches ? p->call.phase->launches.n : p->lines.n;
    for (int i = 0; i < n; i++) {
        const Line l = p->c->o.all_launches ? profile_line(p, i) : p->lines.v[i];
        print_line(p, &w, &l);
    }
}
