/* prefill_cost.h - how long the rows of a prompt take, by how many of them a call has.
 *
 * A prefill matmul is cut into tiles of so many outputs of so many rows (prefill_shape.h), and each multiprocessor
 * works on one at a time. So a call of n rows takes ceil(tiles / multiprocessors) rounds, the last of which leaves some
 * idle. In seconds, of a group of matrices with K columns and N outputs together:
 *
 *   tiles    ceil(n / rows of a tile) * ceil(N / outputs of a tile)
 *            Experts: each has rows of its own, r = n * experts of a row / experts on average, and its last tile is
 * half empty: experts * (r / rows of a tile + 1/2) in the place of the first factor matmul   rounds * 2 * outputs of a
 * tile * rows of a tile * K / the rate of a multiprocessor rows     n (8 K + 12 N) / bytes a second: what goes in is
 * read and written as f16, what comes out written, read by the row program, and written launches a fixed time, in which
 * they begin and end
 *
 * Longer calls have fewer rounds a row. Attention is left out: it depends on the keys, hardly on how rows are cut.
 */
#ifndef LAP_CODEGEN_PREFILL_COST_H
#define LAP_CODEGEN_PREFILL_COST_H

#include "codegen/plan.h"

typedef struct PrefillRates {
    int multiprocessors;
    double flops; /* FLOP/s of one that works on a tile */
    double bytes; /* bytes/s of the device's memory */
    double group; /* seconds of a group's launches, however few rows there are */
} PrefillRates;

/* Those of an H100. It is their ratio that decides, so they serve for others, with their multiprocessors. */
PrefillRates prefill_rates_default(void);
/* Seconds of a call of n rows of entry `step`, whose groups are final; 0 without one. */
double prefill_seconds(const Module *m, const PlanTarget *target, const PrefillRates *r, int64_t n);

#endif
