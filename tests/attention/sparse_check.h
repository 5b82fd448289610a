/* sparse_check.h - kernels of sparse prefill attention on a GPU. */
#ifndef LAP_TESTS_ATTENTION_SPARSE_CHECK_H
#define LAP_TESTS_ATTENTION_SPARSE_CHECK_H

#include "tests/attention/attend_case.h"
#include "tests/attention/lab.h"

/* The kernels of a case. */
enum { SPARSE_MEANS, SPARSE_CHOOSE, SPARSE_ATTEND, SPARSE_DENSE, SPARSE_WISHES };

/* Blocks of keys over all lists that were compared. near: too close to the limit to tell; chosen: kept by their score;
 * otherwise: not as the oracle has them. worst: error of a call's results, of what is allowed. */
typedef struct SparseCounts {
    long long kept, left_out, near, chosen, otherwise;
    double worst;
} SparseCounts;

void sparse_seed(uint64_t seed);
int sparse_wishes(const AttendCase *c, Wish *to);
/* With new random numbers each time; prints what is wrong. */
bool sparse_check(Lab *l, const AttendCase *c, const Wish *built, SparseCounts *counts);

/* Times of selection and attention beside dense attention (sparse_rates.c). */
void sparse_rates(Lab *l);

#endif
