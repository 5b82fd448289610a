/* guess.cu - behind sample.cu in a drafter's call: the host gets the guesses, and of a chain the next call its vector.
 *
 * Contract: GUESS_NAME(const int *rows, const int *ids, int *ring, u32 *steps, int *tokens, int *made,
 *                      const float *from, float *to)
 *   GUESS_NAME      name of the kernel
 *   GUESS_ROWS      most rows, up to 32: width of the ring
 *   GUESS_RING      calls that the ring holds
 *   GUESS_VECTOR    elements of the vector that is handed on; 0: none
 *   GUESS_THREADS   of a block
 *   rows            how many rows are live
 *   ids             [rows] the guesses; a chain's next call has the token already
 *   ring            [GUESS_RING][GUESS_ROWS], may be the host's memory: ids at steps % GUESS_RING
 *   steps           how many there were before: one more
 *   tokens          the guess behind *made others is token 1 + *made of the target's call that checks them, in the call
 *                   block; 0 for -1
 *   made            how many there were: as many more as there are rows
 *   from, to        [GUESS_VECTOR] what the call gave for its first row, and where the next reads it
 *   launch          block GUESS_THREADS, grid 1
 */
#include "prelude.cu"

#ifndef GUESS_NAME
#define GUESS_NAME    guess
#define GUESS_ROWS    16
#define GUESS_RING    8
#define GUESS_VECTOR  5376
#define GUESS_THREADS 1024
#endif
static_assert(GUESS_ROWS <= 32 && GUESS_ROWS <= GUESS_THREADS, "a thread for each row");

KERNEL __launch_bounds__(GUESS_THREADS)
    GUESS_NAME(const int *rows, const int *ids, int *ring, u32 *steps, int *tokens, int *made, const float *from,
               float *to) {
    next_kernel_release();
    previous_kernels_wait();
    const int i = threadIdx.x, n = *rows, before = *made;
    const u32 step = *steps;
    for (int k = i; k < GUESS_VECTOR; k += GUESS_THREADS)
        to[k] = from[k];
    block_sync(); /* all have read */
    if (i < n) {
        ring[step % GUESS_RING * GUESS_ROWS + i] = ids[i];
        tokens[1 + before + i] = ids[i] < 0 ? 0 : ids[i];
    }
    if (i == 0) {
        *steps = step + 1;
        *made = before + n;
    }
}
