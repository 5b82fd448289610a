/* attention_merge.cu - decode: partial results of splits, and how they become the output.
 *
 *   partials   f32 [ATT_ROWS][ATT_HEADS][ATT_SPLITS][ATT_V_DIM] weighted sums of values, then
 *              f32 [ATT_ROWS][ATT_HEADS][ATT_SPLITS]{largest logit, sum of weights}; a row's splits from its first on.
 *              ATT_PARTIALS floats in all
 *
 * A row that sees one split has no partial result, but for rotated values (Range::merges): its item writes the output.
 * For the others a merge item is 128
 * columns of one head of one row: of eight sums, sum w adds the splits w, w + 8, .. of the row in order; then the sums
 * are added in order. So the order follows from the row's own splits, whether a block makes the eight sums, one a warp,
 * or a warp makes all of them.
 */
#ifndef LAP_ATTENTION_MERGE
#define LAP_ATTENTION_MERGE
#include "attention_plan.cu"
#include "tail.cu"

/* Whether blocks take work by counting in tail[2]. */
#ifndef ATT_TAKEN
#define ATT_TAKEN 0
#endif

#define ATT_PARTIALS    ((u64)ATT_ROWS * ATT_HEADS * ATT_SPLITS * (ATT_V_DIM + 2))
#define ATT_MERGE_PARTS ((ATT_V_DIM + 127) / 128)
#define ATT_MERGE_BYTES (ATT_WARPS * 32 * 16) /* of shared memory */

static_assert(ATT_WARPS == 8, "eight sums");

/* Number of a partial result. */
DEVICE u64 partial_at(int row, int head, int split) {
    return ((u64)row * ATT_HEADS + head) * ATT_SPLITS + split;
}

DEVICE float *partial_values(float *partials, u64 at) {
    return partials + at * ATT_V_DIM;
}

DEVICE float2 *partial_weights(float *partials, u64 at) {
    return (float2 *)(partials + (u64)ATT_ROWS * ATT_HEADS * ATT_SPLITS * ATT_V_DIM) + at;
}

/* What a split counts beside the largest logit of all. */
DEVICE float split_share(float most, float most_of_all) {
    return most_of_all == minus_infinity() ? 0.0f : exp2_fast(most - most_of_all);
}

/* The largest logit and the sum of weights over n splits, the same in every lane; own: those of split `lane`. */
DEVICE float2 merged_weights(const float2 &own, const float2 *weights, int n) {
    const int lane = threadIdx.x & 31;
    float most = own.x;
    for (int i = lane + 32; i < n; i += 32)
        most = fmaxf(most, weights[i].x);
    most = warp_max(most);
    float sum = multiply_add(own.y, split_share(own.x, most), 0.0f);
    for (int i = lane + 32; i < n; i += 32)
        sum = multiply_add(weights[i].y, split_share(weights[i].x, most), sum);
    return make_float2(most, warp_sum(sum));
}

DEVICE void add_share(float4 &sum, const float4 &v, float share) {
    sum.x = multiply_add(v.x, share, sum.x);
    sum.y = multiply_add(v.y, share, sum.y);
    sum.z = multiply_add(v.z, share, sum.z);
    sum.w = multiply_add(v.w, share, sum.w);
}

/* A merge item: 4 columns of one head of one row for each lane. */
struct Merge {
    int row, head, n, column;
    bool inside;
    const float *values; /* of the first split, from the lane's columns on */
    const float2 *weights;
    float2 own; /* of split `lane` */

    DEVICE Merge(const Plan &plan, float *partials, int item) {
        const int lane = threadIdx.x & 31, part = item % ATT_MERGE_PARTS;
        head = item / ATT_MERGE_PARTS % ATT_HEADS;
        row = item / (ATT_MERGE_PARTS * ATT_HEADS);
        n = plan.range[row].splits();
        column = 128 * part + 4 * lane;
        inside = column < ATT_V_DIM;
        const u64 at = partial_at(row, head, 0);
        values = partial_values(partials, at) + column;
        weights = partial_weights(partials, at);
        own = lane < n ? weights[lane] : make_float2(minus_infinity(), 0.0f);
    }
    DEVICE bool needed() const {
        return VForm::rotated || n != 1;
    }
    DEVICE float4 value(int split) const {
        return inside && split < n ? *(const float4 *)(values + (u64)split * ATT_V_DIM)
                                   : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    /* By all lanes, for a split below n. */
    DEVICE float share(int split, float most) const {
        return split_share(split < 32 ? lane_from(own.x, split) : weights[split].x, most);
    }
    /* sums: of the eight warps, or what would be theirs. */
    DEVICE void write(float *out, const float2 &total, const float4 *sums, int stride TABLE_PARAMETERS) const {
        float4 sum = sums[0];
#pragma unroll
        for (int w = 1; w < ATT_WARPS; w++) {
            const float4 v = sums[w * stride];
            sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
        }
        const float factor = last_factor(total.x, total.y, head TABLE_ARGUMENTS);
        if constexpr (VForm::rotated) {
            float group[4] = {sum.x, sum.y, sum.z, sum.w};
            turn_back(group);
            sum = make_float4(group[0], group[1], group[2], group[3]);
        }
        if (inside)
            *(float4 *)(out + ((u64)row * ATT_HEADS + head) * ATT_V_DIM + column) =
                make_float4(sum.x * factor, sum.y * factor, sum.z * factor, sum.w * factor);
    }
};

/* By all threads of a block; `shared` has ATT_MERGE_BYTES. The first values are on their way while the weights are. */
DEVICE void merge_by_block(const Plan &plan, float *partials, float *out, int item, u8 *shared TABLE_PARAMETERS) {
    enum { AHEAD = 4 };
    const Merge m(plan, partials, item);
    if (!m.needed())
        return;
    const int warp = threadIdx.x >> 5;
    float4 v[AHEAD], sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int j = 0; j < AHEAD; j++)
        v[j] = m.value(warp + ATT_WARPS * j);
    const float2 total = merged_weights(m.own, m.weights, m.n);
#pragma unroll
    for (int j = 0; j < AHEAD; j++)
        if (warp + ATT_WARPS * j < m.n)
            add_share(sum, v[j], m.share(warp + ATT_WARPS * j, total.x));
#pragma unroll 4
    for (int i = warp + ATT_WARPS * AHEAD; i < m.n; i += ATT_WARPS)
        add_share(sum, m.value(i), m.share(i, total.x));
    float4 *sums = (float4 *)shared;
    sums[threadIdx.x] = sum;
    block_sync();
    if (warp == 0)
        m.write(out, total, sums + threadIdx.x, 32 TABLE_ARGUMENTS);
}

/* The same sums in the same order by a warp alone: its eight sums are what the warps of a block would have. */
DEVICE void merge_by_warp(const Plan &plan, float *partials, float *out, int item TABLE_PARAMETERS) {
    const Merge m(plan, partials, item);
    if (!m.needed())
        return;
    float4 sums[ATT_WARPS], v[ATT_WARPS];
#pragma unroll
    for (int w = 0; w < ATT_WARPS; w++) {
        v[w] = m.value(w);
        sums[w] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    const float2 total = merged_weights(m.own, m.weights, m.n);
#pragma unroll 1
    for (int i = 0; i < m.n; i += ATT_WARPS)
#pragma unroll
        for (int w = 0; w < ATT_WARPS; w++) {
            const float4 now = v[w];
            v[w] = m.value(i + ATT_WARPS + w);
            if (i + w < m.n)
                add_share(sums[w], now, m.share(i + w, total.x));
        }
    m.write(out, total, sums, 1 TABLE_ARGUMENTS);
}

/* All rows, by all blocks of the launch. Few items get a block each, so that all its warps fetch; many a warp each.
 * With ATT_TAKEN tail[2] is set back, which nobody looks at any more: all blocks have arrived. */
DEVICE void merge_all(const Plan &plan, float *partials, float *out, int *tail, u8 *shared TABLE_PARAMETERS) {
    const int items = plan.queries * ATT_HEADS * ATT_MERGE_PARTS;
    const bool by_warp = items > 2 * (int)gridDim.x;
    run_tail(tail, by_warp ? (items + ATT_WARPS - 1) / ATT_WARPS : items, [&](int i) {
        if (ATT_TAKEN && i == 0 && threadIdx.x == 0)
            tail[2] = 0;
        const int of_warp = i * ATT_WARPS + (threadIdx.x >> 5);
        if (!by_warp)
            merge_by_block(plan, partials, out, i, shared TABLE_ARGUMENTS);
        else if (of_warp < items)
            merge_by_warp(plan, partials, out, of_warp TABLE_ARGUMENTS);
    });
}

#endif
