/* prefill_cost.h - how long the rows of a prompt take, by how many of them a call has.
 *
 * A prefill matmul is cut into blocks of so many outputs of so many rows (prefill_shape.h), and each multiprocessor
 * works on one at a time. So a call of n rows takes ceil(blocks / multiprocessors) rounds, the last of which leaves
 * some idle. In seconds, of a group of matrices with K columns and N outputs together:
 *
 *   blocks   ceil(n / rows of a block) * ceil(N / outputs of a block); by wgmma the rows are the number, of a few, that
 *            takes least
 *   matmul   rounds * 2 * outputs of a block * (its rows, by wgmma 16 more) * K / the rate of a multiprocessor.
 *            Experts: each has rows of its own, on average n * experts of a row / experts, and half of the least number
 *            of rows more, as its last block is not full; all these shared out evenly
 *   rows     n (8 K + 12 N) / bytes a second: what goes in is read and written as f16, what comes out written, read by
 *            the row program, and written
 *   launches a fixed time, in which they begin and end
 *
 * Longer calls have fewer rounds a row. Attention is left out: it depends on the keys, hardly on how rows are cut.
 */
#ifndef LAP_CODEGEN_PREFILL_COST_H
#define LAP_CODEGEN_PREFILL_COST_H

#include "codegen/plan.h"
#include "ir/rates.h"

typedef struct PrefillRates {
    int64_t multiprocessors;
    double mma, wgmma; /* FLOP/s of one that works on a block by such products */
    double bytes;      /* bytes/s of the device's memory */
    double group;      /* seconds of a group's launches, however few rows there are */
} PrefillRates;

/* What the kernels are taken to reach on a device with such rates; one without wgmma multiplies by mma.sync. */
PrefillRates prefill_rates(const DeviceRates *r);
/* Seconds of a call of n rows of entry `step`, whose groups are final; 0 without one. */
double prefill_seconds(const Module *m, const PlanTarget *target, const PrefillRates *r, int64_t n);

#endif
