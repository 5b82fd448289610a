/* measure.h - what bench and profile share: calls on a GPU timed and compared with its limits. */
#ifndef LAP_CLI_MEASURE_H
#define LAP_CLI_MEASURE_H

#include "runtime/cli/cli.h"
#include "runtime/engine/work.h"

/* Sorts. */
double measure_median(double *v, int64_t n);

/* Ids spread over the vocabulary, the same in every run: speed must not depend on luck. [n], of the arena. */
int32_t *measure_ids(const Cli *c, const Session *s, int64_t n);

/* The session as it is behind the first `depth` of the ids that were fed to it from position 0 on: rewinds, feeds what
 * is missing. */
StepResult measure_stand(Session *s, const int32_t *ids, int64_t depth);
/* Feeds n ids, all or the last of them wanted; nothing is read back. */
StepResult measure_step(Session *s, const int32_t *ids, int64_t n, bool all);

/* The device's rates, of the arena. NULL after a warning on stderr: then there are no floors. */
const Roofline *measure_limits(Cli *c, Session *s);
/* Seconds (work.h); 0 when limits is NULL. */
double measure_floor(const Work *w, const Roofline *limits);
json_t *measure_limits_json(const Roofline *r); /* NULL: null */
/* One line; r NULL: nothing. */
void measure_print_limits(const Roofline *r);

/* A call as the GPU runs it, without the host. */
typedef struct CallTime {
    CallRows rows;
    const PlanPhase *phase;
    double seconds; /* median */
    Work *each;     /* [launches of the phase], of the arena */
    Work total;
} CallTime;

/* Of the call that was stepped last. False after an error in diag. */
bool measure_call(Cli *c, Session *s, const CallRows *rows, int64_t repeat, CallTime *out);

/* "gpu_seconds", "weight_bytes", "kv_bytes", "flops", "floor_seconds", "share" into j; r NULL: the last two are null.
 */
void measure_call_json(json_t *j, double seconds, const Work *w, double floor, const Roofline *r);

#endif
