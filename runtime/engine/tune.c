/* tune.c - see tune.h. */
#include "runtime/engine/tune.h"

#include <stdlib.h>
#include <string.h>

#define MARGIN 0.02

static int ascending(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(const double *v) {
    double sorted[TUNE_ROUNDS];
    memcpy(sorted, v, sizeof sorted);
    qsort(sorted, TUNE_ROUNDS, sizeof *sorted, ascending);
    return sorted[TUNE_ROUNDS / 2];
}

static bool faster_in_each(const double *a, const double *b) {
    for (int i = 0; i < TUNE_ROUNDS; i++)
        if (!(a[i] < b[i]))
            return false;
    return true;
}

void tune_judge(double (*seconds)[TUNE_ROUNDS], TuneRow *row) {
    row->chosen = 0;
    for (int i = 0; i < row->n; i++)
        if (row->times[i].seconds >= 0)
            row->times[i].seconds = median(seconds[i]);
    const double most = row->times[0].seconds * (1 - MARGIN * row->share);
    for (int i = 1; i < row->n; i++) {
        const double s = row->times[i].seconds;
        if (s >= 0 && s <= most && s < row->times[row->chosen].seconds && faster_in_each(seconds[i], seconds[0]))
            row->chosen = i;
    }
}
