/* matmul_operand.cu - a row of f32 as a row of x records or x atoms (matmul_rows.cu), 256 columns at a time by a warp.
 *
 *   x_columns<K>(v, row, k)               columns k..k+7 of a row; row at a multiple of 16 bytes if K is one of 4
 *   x_piece<ATOMS>(v, scale)              what lane l keeps of 256 columns, of which it brings columns 8l..8l+7
 *   x_store<ATOMS, K, TILES>(to, row, number, piece, scale)
 *                                         puts columns 256 * number on into row `row` of the operand, which has TILES
 *                                         tiles of 8 rows; also the row's scale
 *
 * Of many rows, a row has the same scale in all of its records, x_scale() of its largest element: then products of all
 * of K add up in one accumulator, and an element that is small beside the largest loses nothing that f32 sums would keep (f16 goes
 * down to 2^-34 of the largest). What is written of a row depends on that row only.
 */
#ifndef LAP_MATMUL_OPERAND
#define LAP_MATMUL_OPERAND
#include "matmul_rows.cu"
#include "prelude.cu"

#define X_PIECES(K) (((K) + 255) / 256) /* of a row */

/* Zeros beyond K. */
template <int K> DEVICE void x_columns(float (&v)[8], const float *row, int k) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        if (K % 4 == 0) {
            const float4 w = k + i < K ? *(const float4 *)(row + k + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            v[i] = w.x;
            v[i + 1] = w.y;
            v[i + 2] = w.z;
            v[i + 3] = w.w;
        } else {
#pragma unroll
            for (int j = i; j < i + 4; j++)
                v[j] = k + j < K ? row[k + j] : 0.0f;
        }
    }
}

/* The largest magnitude of a lane's columns, and `largest`. NaN is none. */
DEVICE float x_largest(const float (&v)[8], float largest) {
#pragma unroll
    for (int i = 0; i < 8; i++)
        largest = fmaxf(largest, fabsf(v[i]));
    return largest;
}

/* v[p] of lane t becomes v[t] of lane p, in each four lanes. */
DEVICE uint4 transpose_quad(uint4 from) {
    u32 v[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool upper = threadIdx.x & bit;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & bit)
                continue;
            const u32 got = lane_swap(upper ? v[i] : v[i + bit], bit);
            v[i] = upper ? got : v[i];
            v[i + bit] = upper ? v[i + bit] : got;
        }
    }
    return make_uint4(v[0], v[1], v[2], v[3]);
}

/* The lane's pairs. In atoms lane 4b + t has columns 8t..8t+7 of block b, and after the transposition its pairs t; a
 * record has the sums of two blocks, too, from every eighth lane. */
struct XPiece {
    uint4 pairs;
    uint2 sums;
};

template <bool ATOMS> DEVICE XPiece x_piece(const float (&v)[8], float scale) {
    XPiece piece;
    float sum;
    piece.pairs = x_fragment(v, scale, sum);
    if constexpr (ATOMS) {
        piece.pairs = transpose_quad(piece.pairs);
    } else {
        sum += lane_swap(sum, 1);
        sum += lane_swap(sum, 2);
        piece.sums = x_sums(sum, lane_swap(sum, 4));
    }
    return piece;
}

template <bool ATOMS, int K, int TILES>
DEVICE void x_store(u8 *to, int row, int number, const XPiece &piece, float scale) {
    const int lane = threadIdx.x & 31, tile = row / 8, in_tile = row % 8;
    if constexpr (ATOMS) {
        const int atom = 4 * number + lane / 8, chunk = lane & 7;
        if (atom < X_TILES(K))
            *(uint4 *)(to + ((u64)atom * TILES + tile) * X_ATOM + in_tile * 128 + (chunk ^ in_tile) * 16) = piece.pairs;
        if (number == 0 && lane == 0)
            ((float *)(to + (u64)X_TILES(K) * TILES * X_ATOM))[row] = x_inverse(scale);
    } else {
        u8 *const record = to + ((u64)number * TILES + tile) * X_RECORD;
        const int block = lane >> 2, t = lane & 3;
        *(uint4 *)(record + x_fragment_at(in_tile, block, t)) = piece.pairs;
        if (lane % 8 == 0)
            *(uint2 *)(record + x_sums_at(in_tile, block / 2)) = piece.sums;
        if (lane == 0)
            *(float *)(record + x_scale_at(in_tile)) = x_inverse(scale);
    }
}

#endif
