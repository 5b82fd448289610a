/* settle.cu - behind sample.cu where the rows of a call are a sequence's newest token and guesses: the sequence goes on
 * from the last row that counts, and the host gets the ids.
 *
 * Contract: SETTLE_NAME(const int *rows, const int *tokens, const int *slots, const int *ids, Sampling *states,
 *                       const Sampling *own, int *ring, u32 *steps)
 *   SETTLE_NAME      name of the kernel
 *   SETTLE_ROWS      most rows, up to 32: width of the ring
 *   SETTLE_RING      steps that the ring holds
 *   SAMPLE_VOCAB     as for sample.cu
 *   SETTLE_THREADS   of a block
 *   rows             how many rows are live: all of the call are wanted
 *   tokens, slots    [rows] of the call; the sequence is slots[0]
 *   ids              [rows] what each row picked. The last that counts is the first that is not the next row's token
 *   states           [sequences] that of this one becomes
 *   own              [rows] the state of that row, which has picked
 *   ring             [SETTLE_RING][SETTLE_ROWS], may be the host's memory: ids at steps % SETTLE_RING
 *   steps            how many there were before: one more
 *   launch           block SETTLE_THREADS, grid 1
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
    const int n = *rows, i = threadIdx.x;
    const u32 step = *steps;
    int last = 0;
    while (last + 1 < n && ids[last] == tokens[last + 1])
        last++;
    const Sampling &from = own[last];
    Sampling &to = states[slots[0]];
    u32 *const recent = (u32 *)to.recent;
    const int words = recent ? (SAMPLE_VOCAB + 31) / 32 + from.ring_used : 0;
    for (int k = i; k < words; k += SETTLE_THREADS)
        recent[k] = ((const u32 *)from.recent)[k];
    block_sync(); /* all have read */
    if (i < n)
        ring[step % SETTLE_RING * SETTLE_ROWS + i] = ids[i];
    if (i == 0) {
        to = from;
        to.recent = (u64)recent;
        *steps = step + 1;
    }
}
