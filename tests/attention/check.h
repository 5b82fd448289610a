/* check.h - what the checks of decode and prefill share: a case on the device. */
#ifndef LAP_TESTS_ATTENTION_CHECK_H
#define LAP_TESTS_ATTENTION_CHECK_H

#include "tests/attention/attend_case.h"
#include "tests/attention/lab.h"

/* A row of a call: a position of a sequence. */
typedef struct RowOf {
    int sequence, pos;
} RowOf;

/* A case on its way through calls; sequence s is slot s. */
typedef struct Trial {
    const AttendCase *of;
    Lab *lab;
    History history[SEQUENCES];
    int start[SEQUENCES], length[SEQUENCES];
    DevPtr cache_k, cache_v, weight, turns, slopes;
    double error, size; /* sums of squares */
    int failures;
} Trial;

void trial_open(Trial *t, Lab *l, const AttendCase *c, int rows);
void trial_close(Trial *t);
void trial_fail(Trial *t, const char *what);
size_t trial_cache_bytes(const Trial *t, bool values); /* all sequences */
/* All sequences back to their start, with fresh caches. */
void trial_rewind(Trial *t);
/* The caches of a sequence are what it should have, and nothing else was written: the same numbers, but for how those
 * of rows from `first` on are rounded, which the device may prepare a little otherwise. What it stored is what
 * attention is compared with from now on: of a row that sees few keys a code that is off by one is more than the
 * tolerance. */
void trial_check_caches(Trial *t, int sequence, int first);
/* Compares one row's output with what it should be. */
void trial_compare(Trial *t, RowOf row, const float *out);
/* Prints the case's line; true if all was well. */
bool trial_report(Trial *t, const char *what);

/* Kernels to build for a case, and the check with them built. */
int decode_wishes(const AttendCase *c, Wish *to);
int decode_kernels(const AttendCase *c); /* how many those are */
bool decode_check(Lab *l, const AttendCase *c, const Wish *built);
int prefill_wishes(const AttendCase *c, Wish *to);
bool prefill_check(Lab *l, const AttendCase *c, const Wish *built);
/* Rows of any numbers are stored as the evaluator stores them. */
bool store_check(Lab *l);
enum { MOST_WISHES = 14, PREFILL_WISHES = 2 };

#endif
