/* timeline.c - see timeline.h. */
#include "runtime/engine/timeline.h"

#include <stdlib.h>

bool timeline_span(const uint64_t record[4], bool resident, LaunchSpan *out) {
    const uint64_t begun = record[0], went = record[1], all_went = record[2], ended = record[3];
    const bool waited = went && all_went;
    *out = (LaunchSpan){.begin = ~begun, .end = ended};
    out->go = !waited ? out->begin : resident ? all_went : ~went;
    return begun && ended && out->begin <= out->go && out->go <= out->end;
}

/* ==== One call ==== */

static double seconds(uint64_t from, uint64_t to) {
    return to > from ? 1e-9 * (double)(to - from) : 0;
}

double timeline_call(const LaunchSpan *spans, int n, LaunchTime *out) {
    uint64_t ended = n ? spans[0].begin : 0; /* the last end so far */
    for (int i = 0; i < n; i++) {
        const LaunchSpan *s = &spans[i];
        out[i] = (LaunchTime){.own = seconds(ended, s->end), .gap = seconds(ended, s->go)};
        ended = s->end > ended ? s->end : ended;
    }
    return n ? seconds(spans[0].begin, ended) : 0;
}

/* ==== Several ==== */

static int ascending(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static uint64_t smallest_step(const LaunchSpan *spans, size_t n) {
    uint64_t *all = malloc((3 * n + 1) * sizeof *all), least = 0;
    if (!all)
        ICE("out of memory");
    for (size_t i = 0; i < n; i++) {
        all[3 * i] = spans[i].begin;
        all[3 * i + 1] = spans[i].go;
        all[3 * i + 2] = spans[i].end;
    }
    qsort(all, 3 * n, sizeof *all, ascending);
    for (size_t i = 1; i < 3 * n; i++) {
        const uint64_t step = all[i] - all[i - 1];
        least = step && (!least || step < least) ? step : least;
    }
    free(all);
    return least;
}

typedef struct CallSpan {
    double span;
    int call;
} CallSpan;

static int shorter_first(const void *a, const void *b) {
    const CallSpan *x = a, *y = b;
    return x->span != y->span ? (x->span > y->span) - (x->span < y->span) : x->call - y->call;
}

Timeline timeline_mean(const LaunchSpan *spans, int n, int calls, LaunchTime *out) {
    const double bearable = 1.05;
    CallSpan *order = malloc(((size_t)calls + 1) * sizeof *order);
    LaunchTime *of_call = malloc(((size_t)n + 1) * sizeof *of_call);
    if (!order || !of_call)
        ICE("out of memory");
    for (int c = 0; c < calls; c++)
        order[c] = (CallSpan){timeline_call(spans + (size_t)c * (size_t)n, n, of_call), c};
    qsort(order, (size_t)calls, sizeof *order, shorter_first);
    const CallSpan middle = order[(calls - 1) / 2];
    Timeline t = {.typical = middle.call, .tick = smallest_step(spans, (size_t)n * (size_t)calls)};
    while (t.counted < calls && order[t.counted].span <= bearable * middle.span)
        t.counted++;
    for (int i = 0; i < n; i++)
        out[i] = (LaunchTime){0};
    for (int k = 0; k < t.counted; k++) {
        t.span += timeline_call(spans + (size_t)order[k].call * (size_t)n, n, of_call) / t.counted;
        for (int i = 0; i < n; i++) {
            out[i].own += of_call[i].own / t.counted;
            out[i].gap += of_call[i].gap / t.counted;
        }
    }
    free(order);
    free(of_call);
    return t;
}
