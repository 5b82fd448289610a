/* launch_time.cu - a launch notes when it ran: times of the device's clock, kept in device memory by the blocks.
 *
 * For `lap profile`. codegen/plan_time.c puts this text in front of a kernel's: the template's macro for the kernel's
 * name becomes LAUNCH_TIMED, which adds a parameter and opens a block in which a LaunchTimer lives, so that every way
 * out of the kernel passes its end; the brace that closes the block comes behind the kernel, which therefore is the last
 * thing of a template. Kernels that are not timed have nothing of this, in text or in code.
 *
 *   begun      the first block's beginning                            ~t
 *   went       the first block's return from its wait for the launches ahead, by previous_kernels_wait(), or what
 *              LAUNCH_MOMENT names instead                            ~t
 *   all_went   the last block's                                       t
 *   ended      the last block's end                                   t
 *
 * t: ns of %globaltimer, one clock for all multiprocessors, whose steps are up to 1 us long. All are kept by the largest
 * number, of a record that was zero before the launch: the first moment is the largest of ~t. What stays 0 did not
 * happen; a block that has nothing to do ends too, so `ended` is there whenever the launch ran.
 *
 * LAUNCH_MOMENT "wait", or a moment that kernels name by launch_moment("..") (prelude.cu; the list is PLAN_MOMENTS of
 * codegen/plan.h): the same for all launches, so that builds need not differ to see when within a launch something is.
 *
 * Thread 0 of each block notes. All threads of a block are at its wait, and its end is behind a block_sync(): a kernel's
 * `return` must be the whole block's. It costs a launch an atomic operation of each block before its end, which the next
 * launch waits for, and 8 bytes of shared memory.
 */
#ifndef LAUNCH_MOMENT
#define LAUNCH_MOMENT "wait"
#endif
#define launch_moment(name)                                                                                            \
    if constexpr (same_moment(LAUNCH_MOMENT, name))                                                                    \
    note_moment()
#include "prelude.cu"

/* The rest of the PTX. Who brings these two functions by other means defines LAP_CLOCK. */
#ifndef LAP_CLOCK
#define LAP_CLOCK
DEVICE u64 clock_nanoseconds() {
    u64 t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)::"memory");
    return t;
}

/* *to = the larger of it and v. */
DEVICE void keep_largest(u64 *to, u64 v) {
    asm volatile("red.relaxed.gpu.global.max.u64 [%0], %1;" ::"l"(to), "l"(v) : "memory");
}
#endif

struct LaunchTimes {
    u64 begun, went, all_went, ended;
};

SHARED LaunchTimes *launch_times; /* thread 0's */

struct LaunchTimer {
    LaunchTimes *const to;

    DEVICE explicit LaunchTimer(LaunchTimes *times) : to(times) {
        if (threadIdx.x == 0) {
            launch_times = to;
            keep_largest(&to->begun, ~clock_nanoseconds());
        }
    }
    DEVICE ~LaunchTimer() {
        block_sync();
        if (threadIdx.x == 0)
            keep_largest(&to->ended, clock_nanoseconds());
    }
};

DEVICE constexpr bool same_moment(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

DEVICE void note_moment() {
    if (threadIdx.x == 0) {
        const u64 now = clock_nanoseconds();
        keep_largest(&launch_times->went, ~now);
        keep_largest(&launch_times->all_went, now);
    }
}

DEVICE void launch_waits() {
    previous_kernels_wait();
    launch_moment("wait");
}
#define previous_kernels_wait launch_waits

/* In the place of the kernel's name and parameters. */
#define LAUNCH_TIMED(name, ...)                                                                                        \
    name(__VA_ARGS__, LaunchTimes *launch_times_to) {                                                                  \
        const LaunchTimer launch_timer(launch_times_to);
