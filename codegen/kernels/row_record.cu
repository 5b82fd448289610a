/* row_record.cu - a value whose readers are matmuls of few rows: the loop that makes it writes what they multiply, x
 * records (matmul_rows.cu), each with the scale of its own 256 columns.
 */
#ifndef LAP_ROW_RECORD
#define LAP_ROW_RECORD
#include "matmul_operand.cu"

/* A lane has columns b..b+7 of row `row`, K in all, or zeros from `end` on; a warp those of one record. `to` has TILES
 * tiles of 8 rows. By all lanes of a warp. */
template <int K, int TILES> DEVICE void row_record(u8 *to, int row, int b, int end, const float (&v)[8]) {
    const int first = b - 8 * (int)(threadIdx.x & 31);
    if (first >= end)
        return;
    const float scale = x_scale(warp_max(x_largest(v, 0.0f)));
    x_store<false, K, TILES>(to, row, first / 256, x_piece<false>(v, scale), scale);
}

#endif
