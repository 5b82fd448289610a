/* matmul_fragments.cu - the rows that a warp of a decode matmul multiplies its tiles with, as B fragments.
 *
 * Part of matmul_strips.cu, whose macros it uses. A warp has the fragments of its own columns (matmul_rows.cu), for
 * MM_NT tiles of 8 tokens: lane 4g + t holds token g, columns 8t..8t+7 of each block of 32. Where the launch that made
 * the rows wrote x records (MM_X_RECORDS), they are read as they are, and a scale is of 256 columns; else f32 columns
 * are converted, and scale and sums are over the warp's columns. So all that they depend on is the token's row and
 * MM_WARP_K. They stay in registers, or, with MM_X_SHARED, in shared memory, where the warps of all groups read them.
 */

/* The B fragments of a warp's columns for 8 tokens. */
struct Fragments {
    uint4 block[MM_BLOCKS_32];
    uint2 sums;
    float scale[2]; /* of tokens 2t, 2t + 1 */
};

#if MM_X_RECORDS

/* Of row `row` of x, -1 for zeros, that is token g's; k: the warp's first column. All loads are under way at once. */
DEVICE void make_fragments(Fragments &f, const float *x, int row, int k) {
    const Lane l;
    const u8 *record = (const u8 *)x + ((u64)(k / 256) * MM_NT + row / 8) * X_RECORD;
    const int in_tile = row % 8, first = k % 256 / 32, sums = first / 2 + l.t; /* of two blocks each */
    const bool any = row >= 0;
    float inverse = 1.0f;
    if (any)
        inverse = *(const float *)(record + x_scale_at(in_tile));
#pragma unroll
    for (int j = 0; j < MM_BLOCKS_32; j++)
        f.block[j] =
            any ? *(const uint4 *)(record + x_fragment_at(in_tile, first + j, l.t)) : make_uint4(0, 0, 0, 0);
    f.sums = any && 2 * l.t < MM_BLOCKS_32 ? *(const uint2 *)(record + x_sums_at(in_tile, sums)) : make_uint2(0, 0);
    f.scale[0] = lane_from(inverse, 8 * l.t);
    f.scale[1] = lane_from(inverse, 8 * l.t + 4);
}

#else

/* Eight columns from k on; zeros beyond MM_K. */
DEVICE void load_columns(float (&v)[8], const float *row, int k) {
    if (MM_K % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            const float4 w = k + i < MM_K ? *(const float4 *)(row + k + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            v[i] = w.x;
            v[i + 1] = w.y;
            v[i + 2] = w.z;
            v[i + 3] = w.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = k + i < MM_K ? row[k + i] : 0.0f;
    }
}

/* Of row `row` of x, -1 for zeros, that is token g's; k: the warp's first column. */
DEVICE void make_fragments(Fragments &f, const float *x, int row, int k) {
    const Lane l;
    float v[MM_BLOCKS_32][8] = {}, amax = 0.0f, sums[2] = {};
    if (row >= 0)
#pragma unroll
        for (int j = 0; j < MM_BLOCKS_32; j++)
            load_columns(v[j], x + (u64)row * MM_K, k + 32 * j + 8 * l.t);
#pragma unroll
    for (int i = 0; i < MM_BLOCKS_32 * 8; i++)
        amax = fmaxf(amax, fabsf(v[i / 8][i % 8]));
    amax = fmaxf(amax, lane_swap(amax, 1));
    amax = fmaxf(amax, lane_swap(amax, 2));
    const float scale = x_scale(amax), inverse = x_inverse(scale);
#pragma unroll
    for (int j = 0; j < MM_BLOCKS_32; j++) {
        float sum;
        f.block[j] = x_fragment(v[j], scale, sum);
        sum += lane_swap(sum, 1);
        sum += lane_swap(sum, 2);
        if (j / 2 == l.t)
            sums[j & 1] = sum;
    }
    f.sums = x_sums(sums[0], sums[1]);
    f.scale[0] = lane_from(inverse, 8 * l.t);
    f.scale[1] = lane_from(inverse, 8 * l.t + 4);
}

#endif

#if MM_X_SHARED

/* What a warp multiplies its tiles with. */
struct Rows {
    u8 *at; /* [n]{[block of the warp][lane]{16 bytes}, [lane]{sums, scales}} */
    uint2 sum[MM_NT];
    float scales[MM_NT][2];

    DEVICE uint4 block(int n, int j) const {
        return load16(at + n * MM_ROWS_BYTES + j * 512 + (threadIdx.x & 31) * 16);
    }
    DEVICE uint2 sums(int n) const {
        return sum[n];
    }
    DEVICE float scale(int n, int i) const {
        return scales[n][i];
    }
};

/* Group 0 makes them for all. All consumers take part, and the auxiliary warp joins the block_sync(). */
template <class Work> DEVICE void load_rows(Rows &rows, const Work &work, int unit, int warp, int group) {
    const Lane l;
    const int k = (work.slice * MM_WARPS + warp) * MM_WARP_K;
    rows.at = shared_bytes + MM_ROWS_AT + warp * MM_NT * MM_ROWS_BYTES;
    if (group == 0)
#pragma unroll
        for (int n = 0; n < MM_NT; n++) {
            Fragments f;
            const int row = work.row(unit, 8 * n + l.g);
            make_fragments(f, work.x, row >= 0 && k < MM_K ? work.x_row(row) : -1, k);
            uint4 *to = (uint4 *)(rows.at + n * MM_ROWS_BYTES) + l.lane;
#pragma unroll
            for (int j = 0; j < MM_BLOCKS_32; j++)
                to[j * 32] = f.block[j];
            to[MM_BLOCKS_32 * 32] =
                make_uint4(f.sums.x, f.sums.y, bits_from_float(f.scale[0]), bits_from_float(f.scale[1]));
        }
    block_sync();
#pragma unroll
    for (int n = 0; n < MM_NT; n++) {
        const uint4 v = rows.block(n, MM_BLOCKS_32);
        rows.sum[n] = make_uint2(v.x, v.y);
        rows.scales[n][0] = float_from_bits(v.z);
        rows.scales[n][1] = float_from_bits(v.w);
    }
}

#else

struct Rows {
    Fragments of[MM_NT];

    DEVICE uint4 block(int n, int j) const {
        return of[n].block[j];
    }
    DEVICE uint2 sums(int n) const {
        return of[n].sums;
    }
    DEVICE float scale(int n, int i) const {
        return of[n].scale[i];
    }
};

template <class Work> DEVICE void load_rows(Rows &rows, const Work &work, int unit, int warp, int) {
    const Lane l;
    const int k = (work.slice * MM_WARPS + warp) * MM_WARP_K;
#pragma unroll
    for (int n = 0; n < MM_NT; n++)
        if (n < work.tiles(unit)) {
            const int row = work.row(unit, 8 * n + l.g);
            make_fragments(rows.of[n], work.x, row >= 0 && k < MM_K ? work.x_row(row) : -1, k);
        }
}

#endif
