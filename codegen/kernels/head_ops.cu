/* head_ops.cu - what is done to one head vector before attention, by one warp.
 *
 *   head_norm<D>(x, eps, weight)       x = x / sqrt(mean(x^2) + eps) * weight; weight f32 [D], or bf16 [D] as u16,
 *                                      or nullptr: ones
 *   head_rope<D>(x, dims, at, turns)   turns the pairs (x[i], x[i + dims / 2]) by the angle at.pos * turns[i] for
 *                                      i < dims / 2; turns f64 [dims / 2] in device or shared memory, dims even, at
 *                                      most D. at.turned: the cosines and sines of these angles, turn_at(), made
 *                                      before for all vectors of the position; nullptr: made here
 *   bring_table(to, from, bytes)       asks for a copy of a table in shared memory, by all threads of a block of 256
 *                                      or more, of which the last ones do it, and says where it will be; bytes up to
 *                                      4096, and both addresses: multiples of 16. It is there when the copies of all
 *                                      threads are: see copies_wait()
 *   x                                  f32 [D] in shared memory, D from 16 to 512. All lanes of a warp; what they wrote
 *                                      before is seen, and what is written here is seen by all of them
 *
 * Every sum and product is written so that nothing is left for a compiler to contract: a vector that is prepared twice,
 * by two kernels or two places of one, comes out as the same bits.
 */
#ifndef LAP_HEAD_OPS
#define LAP_HEAD_OPS
#include "prelude.cu"

/* Where a head vector stands. */
struct Stand {
    int pos;
    const float2 *turned;
};

template <class T> DEVICE const T *bring_table(u8 *to, const T *from, int bytes) {
    const int at = 16 * (blockDim.x - 1 - threadIdx.x);
    if (at < bytes)
        copy16_async(to + at, (const u8 *)from + at, true);
    return (const T *)to;
}

DEVICE float norm_weight(const float *weight, int i) {
    return weight[i];
}

DEVICE float norm_weight(const u16 *weight, int i) {
    return bf16_value(weight[i]);
}

DEVICE float norm_weight(decltype(nullptr), int) {
    return 1.0f;
}

template <int D, class Weight> DEVICE void head_norm(float *x, float eps, Weight weight) {
    const int lane = threadIdx.x & 31;
    float sum = 0.0f;
    warp_sync();
#pragma unroll
    for (int i = lane; i < D; i += 32)
        sum = multiply_add(x[i], x[i], sum);
    const float scale = rsqrtf(multiply_add(warp_sum(sum), 1.0f / D, eps));
#pragma unroll 8
    for (int i = lane; i < D; i += 32) {
        const float w = norm_weight(weight, i);
        x[i] = x[i] * scale * w;
    }
    warp_sync();
}

/* Cosine and sine of a pair's angle. */
DEVICE float2 turn_at(int pos, double turns) {
    float2 turn;
    turn_of(pos * turns, turn.x, turn.y);
    return turn;
}

DEVICE void turn_pair(float &x, float &y, const float2 &turn) {
    const float a = x, b = y;
    x = multiply_add(a, turn.x, -(b * turn.y));
    y = multiply_add(b, turn.x, a * turn.y);
}

template <int D> DEVICE void head_rope(float *x, int dims, const Stand &at, const double *turns) {
    const int half = dims / 2;
    warp_sync();
    if (at.turned) {
#pragma unroll 8
        for (int i = threadIdx.x & 31; i < half; i += 32)
            turn_pair(x[i], x[i + half], at.turned[i]);
    } else {
#pragma unroll 1
        for (int i = threadIdx.x & 31; i < half; i += 32)
            turn_pair(x[i], x[i + half], turn_at(at.pos, turns[i]));
    }
    warp_sync();
}

#endif
