/* tune.h - which of the ways to cut a decode matmul is the fastest on this GPU: options, the decision, what came of it.
 * gpu_tune.c measures.
 */
#ifndef LAP_ENGINE_TUNE_H
#define LAP_ENGINE_TUNE_H

#include "codegen/plan.h"

enum { TUNE_ROUNDS = 5 };

typedef struct TuneOptions {
    const char *file; /* where choices are kept (tuned_file.h); NULL: none are taken and none are made */
    double budget;    /* seconds for shapes that the file does not know; 0: none is timed */
    /* For tests, NULL: the clock, and what was measured. `now` in seconds; `measured` is told how long a stretch took
     * with a cut, and says how long it is to have taken. */
    double (*now)(void *ctx);
    double (*measured)(void *ctx, const char *shape, const MatmulCut *cut, double seconds);
    void *ctx;
} TuneOptions;

typedef struct TuneTime {
    MatmulCut cut;
    double seconds; /* of a stretch, the median; below 0: this cut cannot be had here */
} TuneTime;

/* A shape that was timed. */
typedef struct TuneRow {
    const char *shape; /* PlanKernel.shape */
    const char *label; /* of a launch that has it */
    double share;      /* of its launches in the weights that the stretch reads */
    int n, chosen;     /* times[0] is the rule's */
    TuneTime times[MATMUL_WAYS];
} TuneRow;

typedef struct TuneReport {
    double seconds;    /* that it took */
    int known;         /* shapes of the plan that the file knows */
    int small;         /* all of which is asked for at once: nothing to choose */
    int left;          /* for which there was no time */
    VEC(TuneRow) rows; /* in the order in which they were timed */
} TuneReport;

/* seconds [ways][TUNE_ROUNDS], taken in turns. Fills row->times[].seconds but for ways that cannot be had (below 0) and
 * row->chosen: the fastest by its median, when it is faster than the rule in each round, and by at least 2 % of the
 * part that the shape's launches have in the stretch. */
void tune_judge(double (*seconds)[TUNE_ROUNDS], TuneRow *row);

#endif
