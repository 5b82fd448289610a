/* tail.cu - work that needs the results of all blocks, in the same launch: the last blocks of the grid do it.
 *
 *   run_tail(tail, items, item)   by all threads of every block of the launch, after the block's last store that the
 *                                 tail reads. The last min(blocks, items) blocks of the grid stay and call
 *                                 item(i, others), by all threads, for i = place, place + stay, ..; with a block_sync()
 *                                 between two items, so that shared memory may be used again. The others return.
 *                                 Before an item reads what blocks of the launch have written, all its threads call
 *                                 others.wait(), and meet. What does not depend on them is asked for before that.
 *   run_tail(.., meet)            the same by those threads of every block, thread 0 among them, that meet() lets meet,
 *                                 where other warps have work of their own or have ended
 *   tail                          2 ints in device memory: blocks that have come, blocks that stay and have seen all
 *                                 come. Zero before the first launch, and zero again after each. Launches that
 *                                 may overlap need counters of their own; one after another may share them if it
 *                                 touches them after previous_kernels_wait() only.
 *   items                         the same in all blocks
 *   launch                        blocks of one dimension; all of the grid's blocks resident together, as a
 *                                 block that waits keeps its place
 *
 * The last blocks, since shares of work that are not equal are larger for the first ones: they come early, and have
 * what does not depend on others by the time that the last block comes.
 *
 * Why whoever sees the count sees the data (PTX memory model): a store of any thread of the block comes before
 * block_sync() in program order, and the barrier synchronises with thread 0; so the store precedes thread 0's raise of
 * the counter in causality order. That is a release at GPU scope, and releases are cumulative: it publishes what
 * precedes it in causality order, not only what thread 0 wrote. Each later block's raise reads what the one before
 * wrote, so in observation order every release comes before the read of the full count, which is an acquire at GPU scope
 * (counter_read()): they synchronise. From that thread the meeting behind wait() hands it to the whole block. The
 * acquire also covers lines in the first-level cache, but not loads as of constant memory: what the tail reads must not
 * be declared const __restrict__.
 *
 * Why the counters may be reset: a block raises tail[1] after it has seen tail[0] full, and every block has then
 * raised tail[0] for the last time. So nobody looks at either after the last raise of tail[1], and whoever made that
 * may write zeros. The raise orders nothing and is on its way while the items are done, since its answer takes as long
 * as a small item.
 */
#ifndef LAP_TAIL
#define LAP_TAIL
#include "prelude.cu"

/* The launch's other blocks, for one that stays. */
struct Others {
    int *tail;
    int blocks, stay; /* all of them; those that stay */
    int seen;         /* of the latter, those that have known before that all have come */

    /* By all threads, which meet behind it: returns when all have come. */
    DEVICE void wait() {
        if (threadIdx.x == 0 && seen < 0) {
            while (counter_read(&tail[0]) < blocks)
                counter_pause();
            launch_moment("tail");
            seen = stay > 1 ? counter_add(&tail[1], 1) : 0;
        }
    }
    /* By thread 0, when nothing is left to do. */
    DEVICE void leave() {
        if (seen == stay - 1)
            tail[0] = tail[1] = 0;
    }
};

template <class Item, class Meet> DEVICE void run_tail(int *tail, int items, int place, Item item, Meet meet) {
    const int blocks = gridDim.x;
    const int wanted = items < blocks ? items : blocks, stay = wanted > 1 ? wanted : 1; /* one must reset */
    meet();
    if (threadIdx.x == 0)
        counter_tell(&tail[0], 1);
    launch_moment("come");
    if (place >= stay)
        return;
    Others others = {tail, blocks, stay, -1};
    for (int i = place; i < items; i += stay) {
        item(i, others);
        meet();
    }
    others.wait();
    if (threadIdx.x == 0)
        others.leave();
}

template <class Item> DEVICE void run_tail(int *tail, int items, int place, Item item) {
    run_tail(tail, items, place, item, [] { block_sync(); });
}

#endif
