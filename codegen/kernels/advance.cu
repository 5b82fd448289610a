/* advance.cu - behind sample.cu: the call block of a step becomes that of the step which feeds the tokens that were
 * picked, and the host gets the ids. So steps can follow each other without a word from the host.
 *
 * Contract: ADVANCE_NAME(int *counts, int *pos, int *rows, int *slots, int *lengths, const int *ids, int *ring,
 *                        u32 *steps)
 *   ADVANCE_NAME   name of the kernel
 *   ADVANCE_ROWS   most wanted rows, up to 32: width of the ring
 *   ADVANCE_RING   steps that the ring holds
 *   counts         T, R of the step. After it T is R
 *   pos, slots     [T] position and sequence of each row. After it [R], those of the wanted rows, a position further
 *   rows           [R] the wanted rows, of different sequences. After it 0, 1, ..
 *   lengths        [sequences] positions after the step: of the wanted rows' sequences one more
 *   ids            [R] picked tokens; those for the next step are already in its place
 *   ring           [ADVANCE_RING][ADVANCE_ROWS], may be the host's memory: ids at steps % ADVANCE_RING
 *   steps          how many there were before: one more
 *   launch         block 32, grid 1
 */
#include "prelude.cu"

#ifndef ADVANCE_NAME
#define ADVANCE_NAME advance
#define ADVANCE_ROWS 16
#define ADVANCE_RING 8
#endif
static_assert(ADVANCE_ROWS <= 32, "a lane for each row");

KERNEL __launch_bounds__(32)
    ADVANCE_NAME(int *counts, int *pos, int *rows, int *slots, int *lengths, const int *ids, int *ring, u32 *steps) {
    const int r = threadIdx.x;
    next_kernel_release();
    previous_kernels_wait();
    const int wanted = counts[1];
    const u32 step = *steps;
    const int from = r < wanted ? rows[r] : 0, next = pos[from] + 1, slot = slots[from];
    warp_sync(); /* all have read */
    if (r < wanted) {
        pos[r] = next;
        rows[r] = r;
        slots[r] = slot;
        lengths[slot] = next + 1;
        ring[step % ADVANCE_RING * ADVANCE_ROWS + r] = ids[r];
    }
    if (r == 0) {
        counts[0] = wanted;
        *steps = step + 1;
    }
}
