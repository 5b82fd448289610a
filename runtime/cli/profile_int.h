/* profile_int.h - what the files of lap profile share: cmd_profile.c measures, profile_text.c and profile_json.c show.
 */
#ifndef LAP_CLI_PROFILE_INT_H
#define LAP_CLI_PROFILE_INT_H

#include "runtime/cli/measure.h"

/* Launches of one kernel for one purpose. */
typedef struct Line {
    int kernel, count;
    const char *label; /* a * where theirs have different numbers */
    SrcLoc loc;        /* of the first */
    double seconds;    /* own time (engine/timeline.h); with --alone between events */
    double gap;        /* with --alone 0 */
    Work work;
} Line;

/* What only launches that note their times have. */
typedef struct Noted {
    LaunchSpan *spans; /* [launches] of one call, the median */
    LaunchTime *times; /* [launches] */
    Timeline line;
    double seconds; /* of the call while they do, as CallTime has it without */
} Noted;

typedef struct Profile {
    Cli *c;
    Session *s;
    const Plan *plan;
    CallTime call;
    Noted noted;
    double *alone; /* [launches] seconds, with --alone; else NULL */
    double sum;
    const Roofline *limits; /* NULL: not measured */
    VEC(Line) lines;        /* the longest first */
} Profile;

static inline const PlanLaunch *profile_launch(const Profile *p, int i) {
    return &p->call.phase->launches.v[i];
}

/* Of launch i alone. */
Line profile_line(const Profile *p, int i);
/* Least seconds for all launches of the line: 0 without limits. */
double profile_floor(const Profile *p, const Line *l);
/* Of that in the time it took; negative when it took none of its own, or there are no limits. */
double profile_share(const Profile *p, const Line *l);
/* "gemma4.lap:120"; "" without a place. */
const char *profile_place(const Profile *p, const Line *l);

void profile_print(const Profile *p);
void profile_print_json(const Profile *p);
/* An exit code; an error is printed. */
int profile_write_trace(const Profile *p);

#endif
