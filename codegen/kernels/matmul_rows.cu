/* matmul_rows.cu - how the input rows of a matmul become f16: fragments of the B operand, and x records of them.
 *
 * Fragment: of a row (token) and a block of 32 columns, lane t of 4 holds columns 8t..8t+7 as four pairs; pairs 1 and 3
 * (elements 2, 3, 6, 7) are divided by 16: a 4-bit code that stands four bits higher in its word is thus multiplied
 * without being shifted (matmul_tiles.cu). For the types with minima each block's sum of 32 elements is kept
 * too, as f16 high + f16 low part.
 *
 * Elements are scaled by a power of two for each row, or each 256 columns of it, that brings the largest to 512..1024:
 * exact, keeps every element in the range of f16 whatever the model does, and 32 of them sum to less than 2^15. It
 * depends on the token's own row only.
 *
 * Whoever makes the input writes it as records: row programs (row_record.cu of few rows, row_operand.cu of many),
 * attention's merge; matmul_operand.cu where nobody did. Decode matmuls whose input is f32 make fragments in registers
 * (matmul_fragments.cu). A record holds 8 rows x 256 columns; an input of K columns is [ceil(K / 256)][tiles of 8 rows]
 * records. Columns from K on are zero; rows from the live count on are never written nor read.
 *
 *   byte 0     f16 [block of 32][token][32]: lane 4g + t's fragment at 16 (4g + t) of each block
 *   byte 4096  sums: [token][t = 0..3]{high 2t, high 2t + 1, low 2t, low 2t + 1}, by block of the record
 *   byte 4352  f32 [token]: what a product of the record is multiplied by
 *
 * Warpgroups (matmul_wgmma.cu) want the same pairs in another order, as atoms of 8 rows x 64 columns: an input of K
 * columns is [ceil(K / 64)][tiles of 8 rows] atoms of 1024 bytes and then f32 [tiles][token], what products are
 * multiplied by. In an atom (group_mma.cu) row r of 128 bytes has pair p of lane t's columns of its block j, 0 or 1, as
 * word t of chunk 4j + p, which stands in the place of chunk (4j + p) ^ r: so that the f16 of 16 columns of an atom
 * are those of an mma.
 */
#ifndef LAP_MATMUL_ROWS
#define LAP_MATMUL_ROWS
#include "prelude.cu"

#define X_RECORD 4384
#define X_SUMS   4096
#define X_SCALES 4352

#define X_ATOM     1024
#define X_TILES(K) (((K) + 63) / 64) /* of 64 columns */

/* Bytes of a record: a lane's fragment of a block; the sums of blocks 2 * pair and 2 * pair + 1; the scale. */
DEVICE int x_fragment_at(int token, int block, int t) {
    return block * 512 + token * 64 + t * 16;
}

DEVICE int x_sums_at(int token, int pair) {
    return X_SUMS + token * 32 + pair * 8;
}

DEVICE int x_scale_at(int token) {
    return X_SCALES + token * 4;
}

/* 2^e with e such that amax * 2^e is in 512..1024; 1 for a row of zeros. */
DEVICE float x_scale(float amax) {
    int e = 9 - ((int)(bits_from_float(amax) >> 23) - 127);
    e = e > 126 ? 126 : e;
    return amax > 0.0f ? float_from_bits((u32)(e + 127) << 23) : 1.0f;
}

/* 1 / scale, of a power of two that x_scale() gave. */
DEVICE float x_inverse(float scale) {
    return float_from_bits((254u << 23) - bits_from_float(scale));
}

/* Eight columns as four pairs. `sum` is of the values as rounded, so that their errors meet whole weights, not codes
 * without minima. */
DEVICE uint4 x_fragment(const float (&v)[8], float scale, float &sum) {
    u32 pair[4];
    sum = 0.0f;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const float shrink = p & 1 ? 0.0625f : 1.0f, grow = p & 1 ? 16.0f : 1.0f;
        const u16 low = f16_round(v[2 * p] * scale * shrink), high = f16_round(v[2 * p + 1] * scale * shrink);
        pair[p] = f16_pair(low, high);
        sum += f16_value(low) * grow;
        sum += f16_value(high) * grow;
    }
    return make_uint4(pair[0], pair[1], pair[2], pair[3]);
}

/* Four columns, from a multiple of four on, as the two pairs that they are of eight. */
DEVICE uint2 x_half_fragment(const float (&v)[4], float scale, float &sum) {
    const float eight[8] = {v[0], v[1], v[2], v[3], 0.0f, 0.0f, 0.0f, 0.0f};
    const uint4 pairs = x_fragment(eight, scale, sum);
    return make_uint2(pairs.x, pairs.y);
}

/* The sums of two blocks as lane t keeps them: {high parts, low parts}. */
DEVICE uint2 x_sums(float first, float second) {
    const u16 high0 = f16_round(first), high1 = f16_round(second);
    const u16 low0 = f16_round(first - f16_value(high0)), low1 = f16_round(second - f16_value(high1));
    return make_uint2(f16_pair(high0, high1), f16_pair(low0, low1));
}

#endif
