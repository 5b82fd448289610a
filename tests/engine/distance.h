/* distance.h - how far a GPU's logits are from the evaluator's. */
#ifndef LAP_TESTS_ENGINE_DISTANCE_H
#define LAP_TESTS_ENGINE_DISTANCE_H

#include <stdint.h>

/* Sums over rows; zeroed before the first. A NaN stays in whatever it came into. */
typedef struct Distance {
    int64_t n, same;                    /* rows; rows with the same most probable token */
    double kl, worst_kl;                /* KL divergence from the evaluator's distribution, nats */
    double entropy;                     /* of the evaluator's, nats */
    double gap_error2, worst_gap_error; /* of the evaluator's gap between its two best tokens */
    double worst_gap;                   /* evaluator's, where another token is the most probable */
} Distance;

/* One row of n logits. Its KL divergence. */
double distance_add(Distance *d, const float *got, const float *want, int n);

/* The place of the largest but for place `but`; -1: of all. */
int best_of(const float *logits, int n, int but);
void greater(double *most, double x);

#endif
