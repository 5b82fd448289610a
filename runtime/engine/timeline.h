/* timeline.h - launches of a call that overlap: when each ran, and whose the time of the call is.
 *
 * Launches are in the order in which they were enqueued. A launch's own time is that by which its end is later than
 * all ends ahead of it: nothing, when one ahead outlasts it. The first has all from its beginning on. So own times add
 * up to the span of the call, from the first beginning to the last end, whatever overlaps.
 *
 *   ahead    |---------------|
 *   launch         |---------+--+---------|      begin, the end ahead, go, end
 *                            |  |                gap
 *                            |            |      own time
 */
#ifndef LAP_ENGINE_TIMELINE_H
#define LAP_ENGINE_TIMELINE_H

#include "ir/base.h"

/* Nanoseconds of the device's clock. begin <= go <= end. go: when its blocks know that the launches ahead have ended;
 * the last of them, or where not all can be on the device at once the first. Where none waits for that: begin. With
 * another moment of PLAN_MOMENTS, when the last block is there. */
typedef struct LaunchSpan {
    uint64_t begin, go, end;
} LaunchSpan;

/* A record that the launch has written (LaunchTimes of codegen/kernels/launch_time.cu). resident: all of its blocks can
 * be on the device at once. False: the record is not one of a launch that ran. */
bool timeline_span(const uint64_t record[4], bool resident, LaunchSpan *out);

/* Seconds. gap: from the end of the launches ahead to go. Of a launch that works before it waits (LAUNCH_EARLY of
 * launch_order.cu), also that work, as far as it goes on behind their end. */
typedef struct LaunchTime {
    double own, gap;
} LaunchTime;

/* Of the launches of one call: [n]. The span in seconds. */
double timeline_call(const LaunchSpan *spans, int n, LaunchTime *out);

/* Several calls alike: the mean, so that steps of the clock even out and own times add up to the span. Calls that took
 * longer than the median by more than a twentieth do not count: something else was at work. */
typedef struct Timeline {
    double span;   /* seconds */
    int counted;   /* calls */
    int typical;   /* the call whose span is the median */
    uint64_t tick; /* ns: the smallest step between two times; 0: all are the same */
} Timeline;

/* spans: [calls][n], out: [n]. */
Timeline timeline_mean(const LaunchSpan *spans, int n, int calls, LaunchTime *out);

#endif
