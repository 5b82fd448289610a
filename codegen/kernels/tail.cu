/* tail.cu - work that needs the results of all blocks, in the same launch: the last blocks to arrive do it.
 *
 *   run_tail(tail, items, item)   by all threads of every block of the launch, after the block's last store that the
 *                                 tail reads. The last min(blocks, items) blocks to arrive stay, wait for the rest and
 *                                 call item(i), by all threads, for i = place, place + stay, ..; with a block_sync()
 *                                 between two items, so that shared memory may be used again. The others return.
 *   run_tail(.., meet)            the same by those threads of every block, thread 0 among them, that meet() lets meet,
 *                                 where other warps have work of their own or have ended
 *   tail                          2 ints in device memory: blocks that have arrived, blocks that stay and have seen
 *                                 all arrive. Zero before the first launch, and zero again after each. Launches that
 *                                 may overlap need counters of their own; one after another may share them if it
 *                                 touches them after previous_kernels_wait() only.
 *   items                         the same in all blocks
 *   launch                        blocks of one dimension; all of the grid's blocks resident together, as a
 *                                 block that waits keeps its place
 *
 * Which block does which item depends on who comes last, so an item's result may depend on its number alone.
 *
 * Why whoever sees the count sees the data (PTX memory model): a store of any thread of the block comes before
 * block_sync() in program order, and the barrier synchronises with thread 0; so the store precedes thread 0's atomic in
 * causality order. That atomic is a release at GPU scope, and releases are cumulative: it publishes what precedes it in
 * causality order, not only what thread 0 wrote. Each later block's atomic reads what the one before wrote, so in
 * observation order every release comes before the read of the full count, which is an acquire at GPU scope
 * (counter_read(), or the last block's own atomic): they synchronise. From that thread the second block_sync() hands it
 * to the whole block. The acquire also covers lines in the first-level cache, but not loads as of constant memory:
 * what the tail reads must not be declared const __restrict__.
 *
 * Why the counters may be reset: a block raises tail[1] after it has seen tail[0] full, and every block has then
 * raised tail[0] for the last time. So nobody looks at either after the last raise of tail[1], and whoever made that
 * may write zeros. The raise orders nothing and is on its way while the items are done, since its answer takes as long
 * as a small item.
 */
#ifndef LAP_TAIL
#define LAP_TAIL
#include "prelude.cu"

template <class Item, class Meet> DEVICE void run_tail(int *tail, int items, Item item, Meet meet) {
    SHARED int ticket;
    const int blocks = gridDim.x * gridDim.y * gridDim.z;
    const int wanted = items < blocks ? items : blocks, stay = wanted > 1 ? wanted : 1; /* one must reset */
    meet();
    if (threadIdx.x == 0)
        ticket = counter_raise(&tail[0], 1);
    meet();
    const int place = ticket - (blocks - stay);
    launch_moment("come");
    if (place < 0)
        return;
    if (threadIdx.x == 0 && place < stay - 1) /* the last has seen them all */
        while (counter_read(&tail[0]) < blocks)
            counter_pause();
    meet();
    launch_moment("tail");
    int seen = 0;
    if (threadIdx.x == 0 && stay > 1)
        seen = counter_add(&tail[1], 1);
    for (int i = place; i < items; i += stay) {
        item(i);
        meet();
    }
    if (threadIdx.x == 0 && seen == stay - 1)
        tail[0] = tail[1] = 0;
}

template <class Item> DEVICE void run_tail(int *tail, int items, Item item) {
    run_tail(tail, items, item, [] { block_sync(); });
}

#endif
