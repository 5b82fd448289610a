/* row_record.cu - a value whose readers are matmuls of few rows: the loop that makes it writes what they multiply, x
 * records (matmul_rows.cu), each with the scale of its own 256 columns.
 */
#ifndef LAP_ROW_RECORD
#define LAP_ROW_RECORD
#include "matmul_operand.cu"

/* A lane has 8 columns of row `row` in each of U rounds, those of thread 0 from b on, K in all, or zeros from `end` on; a
 * warp those of one record. `to` has TILES tiles of 8 rows. By all lanes of a warp; the rounds run side by side. */
template <int K, int TILES, int U> DEVICE void row_records(u8 *to, int row, int b, int end, const float (&v)[U][8]) {
    float largest[U];
#pragma unroll
    for (int u = 0; u < U; u++)
        largest[u] = x_largest(v[u], 0.0f);
#pragma unroll
    for (int step = 16; step; step >>= 1) {
#pragma unroll
        for (int u = 0; u < U; u++)
            largest[u] = fmaxf(largest[u], lane_swap(largest[u], step));
    }
#pragma unroll
    for (int u = 0; u < U; u++) {
        const int first = b + 8 * (int)(threadIdx.x / 32 * 32 + u * TAIL_THREADS);
        if (first >= end)
            break;
        const float scale = x_scale(largest[u]);
        x_store<false, K, TILES>(to, row, first / 256, x_piece<false>(v[u], scale), scale);
    }
}

#endif
