/* launch_order.cu - when a launch of the decode phase waits for the one ahead, and when it lets the next one start.
 *
 *   LAUNCH_EARLY   0: whatever it reads may come from the launch ahead
 *                  1: what it multiplies does not, what follows may: it waits before its tail
 *                  2: nothing does: it waits before it ends, so that who waits for it waits for all
 *   LAUNCH_LATE    1: the next launch reads early what launches before this one wrote (passes/overlap.c): it may start
 *                  only when those have ended, which is known after this one's wait. Then LAUNCH_EARLY is 0
 *
 * What an early launch reads was written by launches that ended before it began; that its multiprocessor holds no older
 * copy of it is not promised to one that has not waited, so it asks: an acquire leaves the first-level cache empty.
 *
 * A kernel calls, by all threads and in this order: launch_begins() first; launch_reads() before it reads or writes what
 * other launches read or write; launch_tail(), before its tail; launch_ends() last.
 *
 * How many rows are live may be read before any wait: no launch of a phase writes that.
 *
 * No include guard: the text depends on the macros.
 */
#include "prelude.cu"

#ifndef LAUNCH_EARLY
#define LAUNCH_EARLY 0
#endif
#ifndef LAUNCH_LATE
#define LAUNCH_LATE 0
#endif

static_assert(!LAUNCH_LATE || !LAUNCH_EARLY, "who waits late lets the next one start at once");

DEVICE void launch_begins() {
    if (!LAUNCH_LATE)
        next_kernel_release();
}

/* `any`: a number in device memory. */
DEVICE void launch_looks_early(const int *any) {
    if ((threadIdx.x & 31) == 0)
        counter_read(any);
    warp_sync();
}

DEVICE void launch_reads(const int *any) {
    if (LAUNCH_EARLY == 0)
        previous_kernels_wait();
    else
        launch_looks_early(any);
    if (LAUNCH_LATE)
        next_kernel_release();
}

DEVICE void launch_tail() {
    if (LAUNCH_EARLY == 1)
        previous_kernels_wait();
}

DEVICE void launch_ends() {
    if (LAUNCH_EARLY == 2)
        previous_kernels_wait();
}
