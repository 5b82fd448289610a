/* distance.c - see distance.h. */
#include "tests/engine/distance.h"

#include <math.h>

int best_of(const float *logits, int n, int but) {
    int at = but == 0 ? 1 : 0;
    for (int i = at + 1; i < n; i++)
        if (i != but && logits[i] > logits[at])
            at = i;
    return at;
}

/* ln of the sum of exp(logits). */
static double log_sum(const float *logits, int n, float top) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)expf(logits[i] - top);
    return top + log(sum);
}

void greater(double *most, double x) {
    if (!(x <= *most) && !isnan(*most)) /* a NaN comes in and stays */
        *most = x;
}

double distance_add(Distance *d, const float *got, const float *want, int n) {
    const int first = best_of(want, n, -1), second = best_of(want, n, first), other = best_of(got, n, -1);
    const double sum_want = log_sum(want, n, want[first]), sum_got = log_sum(got, n, got[other]);
    double kl = 0, entropy = 0;
    for (int i = 0; i < n; i++) {
        const double log_p = want[i] - sum_want;
        const double p = (double)expf((float)log_p);
        kl += p * (log_p - (got[i] - sum_got));
        entropy -= p * log_p;
    }
    const double error = fabs(((double)got[first] - got[second]) - ((double)want[first] - want[second]));
    d->n++;
    d->same += other == first;
    d->kl += kl;
    d->entropy += entropy;
    d->gap_error2 += error * error;
    greater(&d->worst_kl, kl);
    greater(&d->worst_gap_error, error);
    greater(&d->worst_gap, (double)want[first] - want[other]);
    return kl;
}
