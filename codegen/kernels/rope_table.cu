/* rope_table.cu - angles of RoPE for a step of one position: turns[i] = scale * base^(-2i / dims) / factors[i].
 *
 * Launch: once, when the weights are there; block 128, grid ceil(ROPE_PAIRS / 128). Doubles, as the evaluator has
 * them: an angle is turns[i] * position, and positions reach 10^5.
 *   turns    f64 [ROPE_PAIRS]
 *   factors  f32 [ROPE_PAIRS], or null
 */
#include "prelude.cu"

#ifndef ROPE_NAME
#define ROPE_NAME rope_table
#define ROPE_PAIRS 128
#define ROPE_BASE 10000.0
#define ROPE_SCALE 1.0
#endif

KERNEL __launch_bounds__(128) ROPE_NAME(double *turns, const float *factors) {
    const int i = blockIdx.x * 128 + threadIdx.x;
    next_kernel_release();
    previous_kernels_wait();
    if (i < ROPE_PAIRS)
        turns[i] = ROPE_SCALE * pow(ROPE_BASE, -(double)i / (double)ROPE_PAIRS) / (factors ? (double)factors[i] : 1.0);
}
