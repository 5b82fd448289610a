/* rowwise.cu - a group without a matmul: norms, lookups, elementwise work on rows; all of it is tail.body.
 *
 * Contract
 *   ROW_NAME     the kernel's name
 *   ROW_THREADS  of a block, a multiple of 32: TAIL_THREADS of the body
 *   ROW_BLOCKS   blocks for which a multiprocessor must have registers; may be missing
 *   ROW_SHARED   dynamic shared memory in bytes: TAIL_SHARED of the body
 *   parameters   const int *rows: how many rows are live, in device memory; TAIL_PARAMETERS
 *   launch       block ROW_THREADS, any grid of one dimension: block b does items b, b + grid, ..
 */
#include "tail.cu"

#ifndef ROW_NAME
#define ROW_NAME rowwise
#endif
#ifndef ROW_THREADS
#define ROW_THREADS 256
#endif
#ifndef ROW_SHARED
#define ROW_SHARED 1024
#endif
#ifdef ROW_BLOCKS
#define ROW_BOUNDS  __launch_bounds__(ROW_THREADS, ROW_BLOCKS)
#define TAIL_BLOCKS ROW_BLOCKS
#else
#define ROW_BOUNDS __launch_bounds__(ROW_THREADS)
#endif
#define TAIL_THREADS ROW_THREADS
#define TAIL_SHARED  ROW_SHARED

DYNAMIC_SHARED u8 shared_bytes[];

#include "tail.body"

KERNEL ROW_BOUNDS ROW_NAME(const int *rows TAIL_PARAMETERS) {
    next_kernel_release();
    if (blockIdx.x == 0)
        tail_ahead(threadIdx.x TAIL_ARGUMENTS);
    previous_kernels_wait();
    const int live = *rows;
    Others others = {nullptr, 0, 0, 0}; /* which the program does not depend on */
    for (int item = blockIdx.x; item < TAIL_ITEMS(live); item += gridDim.x) {
        tail_item(item, live, shared_bytes, others TAIL_ARGUMENTS);
        block_sync(); /* shared memory may be used again */
    }
}
