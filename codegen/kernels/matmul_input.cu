/* matmul_input.cu - f32 rows -> x records (matmul_rows.cu) for the decode matmul.
 *
 * One block of 256 threads for each record: warp w makes row w of 8, lane l columns 8l..8l+7 of 256.
 * Launch: grid (ceil(IN_K / 256), IN_NT), block 256, no dynamic shared memory.
 *
 *   x     f32 [live rows][IN_K]
 *   to    records [ceil(IN_K / 256)][IN_NT]
 *   rows  how many rows are live, 1..8 * IN_NT, in device memory
 */
#include "prelude.cu"
#include "matmul_rows.cu"

#ifndef IN_NAME
#define IN_NAME matmul_input
#endif
#ifndef IN_K
#define IN_K 5376
#endif
#ifndef IN_NT
#define IN_NT 1
#endif

/* 2^e with e such that amax * 2^e is in 512..1024; 1 for a row of zeros. */
DEVICE float row_scale(float amax) {
    int e = 9 - ((int)(bits_from_float(amax) >> 23) - 127);
    e = e > 126 ? 126 : e;
    return amax > 0.0f ? float_from_bits((u32)(e + 127) << 23) : 1.0f;
}

KERNEL __launch_bounds__(256) IN_NAME(const float *x, u8 *to, const int *rows) {
    const int lane = threadIdx.x & 31, in_tile = threadIdx.x >> 5;
    const int token = 8 * blockIdx.y + in_tile, k = 256 * blockIdx.x + 8 * lane;
    u8 *record = to + (u64)(blockIdx.x * IN_NT + blockIdx.y) * X_RECORD;
    next_kernel_release();
    previous_kernels_wait();
    if (token >= *rows)
        return;

    float v[8], amax = 0.0f;
    for (int i = 0; i < 8; i++) {
        v[i] = k + i < IN_K ? x[(u64)token * IN_K + k + i] : 0.0f;
        amax = fmaxf(amax, fabsf(v[i]));
    }
    for (int step = 16; step; step >>= 1)
        amax = fmaxf(amax, lane_swap(amax, step));
    const float scale = row_scale(amax);

    u32 pair[4];
    float sum = 0.0f; /* of the values as rounded: their errors then meet whole weights, not codes without minima */
    for (int p = 0; p < 4; p++) {
        const float shrink = p & 1 ? 0.0625f : 1.0f, grow = p & 1 ? 16.0f : 1.0f;
        const u16 low = f16_round(v[2 * p] * scale * shrink), high = f16_round(v[2 * p + 1] * scale * shrink);
        pair[p] = f16_pair(low, high);
        sum += f16_value(low) * grow;
        sum += f16_value(high) * grow;
    }
    sum += lane_swap(sum, 1);
    sum += lane_swap(sum, 2);

    const int block = lane >> 2, t = lane & 3;
    u32 *words = (u32 *)(record + block * 512 + in_tile * 64 + t * 16);
    for (int p = 0; p < 4; p++)
        words[p] = pair[p];
    if (t == 0) {
        u16 *sums = (u16 *)(record + X_SUMS) + in_tile * 16 + (block >> 1) * 4 + (block & 1);
        const u16 high = f16_round(sum);
        sums[0] = high;
        sums[2] = f16_round(sum - f16_value(high));
    }
    if (lane == 0)
        ((float *)(record + X_SCALES))[in_tile] = 1.0f / scale;
}
