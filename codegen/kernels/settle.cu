/* settle.cu - behind sample.cu where the rows of a call are the newest token and guesses of a sequence, or of several,
 * one behind the other: each goes on from its last row that counts, and the host gets the ids.
 *
 * Contract: SETTLE_NAME(const int *rows, const int *tokens, const int *slots, const int *ids, Sampling *states,
 *                       const Sampling *own, int *ring, u32 *steps)
 *   SETTLE_NAME      name of the kernel
 *   SETTLE_ROWS      most rows, up to 32: width of the ring
 *   SETTLE_RING      steps that the ring holds
 *   SAMPLE_VOCAB     as for sample.cu
 *   SETTLE_THREADS   of a block
 *   rows             how many rows are live: all of the call are wanted
 *   tokens, slots    [rows] of the call
 *   ids              [rows] what each row picked. The last of a sequence that counts is the first that is not the token
 *                    of its next row
 *   states           [slots] that of the sequence becomes
 *   own              [rows] the state of that row, which has picked
 *   ring             [SETTLE_RING][SETTLE_ROWS], may be the host's memory: ids at steps % SETTLE_RING
 *   steps            how many there were before: one more
 *   launch           block SETTLE_THREADS, grid: the most rows; the block of a sequence's first row settles it
 */
#ifndef SETTLE_NAME
#define SETTLE_NAME    settle
#define SETTLE_ROWS    16
#define SETTLE_RING    8
#define SETTLE_THREADS 1024
#define SAMPLE_VOCAB   262144
#endif
#define SAMPLE_THREADS 1024 /* of sample_source.cu, whose blocks these are not */
#define SAMPLE_LIST    2048

#include "prelude.cu"
#include "sample_source.cu"

static_assert(SETTLE_ROWS <= 32 && SETTLE_ROWS <= SETTLE_THREADS, "a thread for each row");

KERNEL __launch_bounds__(SETTLE_THREADS)
    SETTLE_NAME(const int *rows, const int *tokens, const int *slots, const int *ids, Sampling *states,
                const Sampling *own, int *ring, u32 *steps) {
    next_kernel_release();
    previous_kernels_wait();
    const int n = *rows, i = threadIdx.x, first = blockIdx.x;
    if (first >= n || (first > 0 && slots[first - 1] == slots[first]))
        return;
    int last = first;
    while (last + 1 < n && slots[last + 1] == slots[first] && ids[last] == tokens[last + 1])
        last++;
    const Sampling &from = own[last];
    Sampling &to = states[slots[first]];
    u32 *const recent = (u32 *)to.recent;
    const int words = recent ? (SAMPLE_VOCAB + 31) / 32 + from.ring_used : 0;
    for (int k = i; k < words; k += SETTLE_THREADS)
        recent[k] = ((const u32 *)from.recent)[k];
    block_sync(); /* all have read */
    if (i == 0) {
        to = from;
        to.recent = (u64)recent;
    }
    if (first > 0)
        return;
    const u32 step = *steps;
    if (i < n)
        ring[step % SETTLE_RING * SETTLE_ROWS + i] = ids[i];
    block_sync(); /* all have read */
    if (i == 0)
        *steps = step + 1;
}
