/* row_operand.cu - the end of a value whose readers are prefill matmuls: the row program that made it writes what they
 * multiply, x records or x atoms (matmul_rows.cu), the same bits as matmul_input.cu makes of the value.
 */
#ifndef LAP_ROW_OPERAND
#define LAP_ROW_OPERAND
#include "matmul_operand.cu"
#include "prelude.cu"

/* GROUPS rows of K neighbours, in shared memory at x, become rows entry(0), entry(1), .. of `to`, which has TILES tiles
 * of 8 rows. All of the block come, after a block_sync() that follows the last store to x. `parts` has room for GROUPS *
 * X_PIECES(K) numbers. */
template <bool ATOMS, int GROUPS, int K, int TILES, class Entry>
DEVICE void row_operand(u8 *to, const float *x, float *parts, Entry entry) {
    constexpr int PIECES = X_PIECES(K);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll 2
    for (int i = warp; i < GROUPS * PIECES; i += TAIL_THREADS / 32) {
        float v[8];
        x_columns<K>(v, x + i / PIECES * K, i % PIECES * 256 + 8 * lane);
        const float largest = warp_max(x_largest(v, 0.0f));
        if (lane == 0)
            parts[i] = largest;
    }
    block_sync();
    auto scale_of = [&](int group) {
        float largest = 0.0f;
#pragma unroll
        for (int k = 0; k < PIECES; k += 32)
            largest = fmaxf(largest, k + lane < PIECES ? parts[group * PIECES + k + lane] : 0.0f);
        return x_scale(warp_max(largest));
    };
    float scale = scale_of(0);
#pragma unroll 2
    for (int i = warp; i < GROUPS * PIECES; i += TAIL_THREADS / 32) {
        const int group = i / PIECES, number = i % PIECES;
        float v[8];
        if (GROUPS > 1)
            scale = scale_of(group);
        x_columns<K>(v, x + group * K, 256 * number + 8 * lane);
        x_store<ATOMS, K, TILES>(to, entry(group), number, x_piece<ATOMS>(v, scale), scale);
    }
}

#endif
