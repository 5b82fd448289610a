/* attention_merge.cu - decode: partial results of splits, and how they become the output.
 *
 *   partials   f32 [ATT_ROWS][ATT_HEADS][ATT_SPLITS][ATT_V_DIM] weighted sums of values, then
 *              f32 [ATT_ROWS][ATT_HEADS][ATT_SPLITS]{largest logit, sum of weights}; a row's splits from its first on.
 *              ATT_PARTIALS floats in all
 *
 * The output is f32 [live][ATT_HEADS][ATT_V_DIM], or, with ATT_RECORDS, what the matmul behind multiplies: x records
 * (matmul_rows.cu) of ATT_RECORDS tiles of 8 rows, each with a scale of its own.
 *
 * A row that sees one split has no partial result, but for rotated values and records (Range::merges): its item writes
 * the output. For the others a merge item is 128 columns of one head of one row, or the 256 of a record: of eight sums,
 * sum w adds the splits w, w + 8, .. of the row in order; then the sums are added in order. So the order follows from
 * the row's own splits, whether a block makes the eight sums, one a warp, or a warp makes all of them.
 */
#ifndef LAP_ATTENTION_MERGE
#define LAP_ATTENTION_MERGE
#include "attention_plan.cu"
#include "matmul_rows.cu"
#include "tail.cu"

/* Warps that bring tiles, beside those that work on them. */
#ifndef ATT_BRINGERS
#define ATT_BRINGERS 0
#endif

/* Whether blocks take work by counting in tail[2]. */
#ifndef ATT_TAKEN
#define ATT_TAKEN 0
#endif

/* All threads that work on tiles; those that bring them have left, or have no part in it. */
DEVICE void workers_meet() {
    if (ATT_BRINGERS)
        warps_meet(1, ATT_THREADS);
    else
        block_sync();
}

#define ATT_PARTIALS    ((u64)ATT_ROWS * ATT_HEADS * ATT_SPLITS * (ATT_V_DIM + 2))
#define ATT_MERGE_WIDTH (ATT_RECORDS ? 2 : 1) /* 128 columns, 4 of a lane, that an item has */
#define ATT_MERGE_PARTS ((ATT_V_DIM + 128 * ATT_MERGE_WIDTH - 1) / (128 * ATT_MERGE_WIDTH))
#define ATT_MERGE_SUMS  8
#define ATT_MERGE_BYTES (ATT_MERGE_SUMS * ATT_MERGE_WIDTH * 32 * 16) /* of shared memory */

static_assert(ATT_WARPS >= ATT_MERGE_SUMS, "eight sums");
static_assert(!ATT_RECORDS || ATT_V_DIM % 256 == 0, "a record is of one head");

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
#pragma unroll 1
    for (int i = lane + 32; i < n; i += 32)
        most = fmaxf(most, weights[i].x);
    most = warp_max(most);
    float sum = multiply_add(own.y, split_share(own.x, most), 0.0f);
#pragma unroll 1
    for (int i = lane + 32; i < n; i += 32)
        sum = multiply_add(weights[i].y, split_share(weights[i].x, most), sum);
    return make_float2(most, warp_sum(sum));
}

/* A lane's columns of an item, or of a part of it: 4 neighbours of each 128. */
template <int WIDTH> struct Columns {
    float4 of[WIDTH];

    DEVICE void clear() {
#pragma unroll
        for (int h = 0; h < WIDTH; h++)
            of[h] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    DEVICE void add(const Columns &v, float share) {
#pragma unroll
        for (int h = 0; h < WIDTH; h++) {
            of[h].x = multiply_add(v.of[h].x, share, of[h].x);
            of[h].y = multiply_add(v.of[h].y, share, of[h].y);
            of[h].z = multiply_add(v.of[h].z, share, of[h].z);
            of[h].w = multiply_add(v.of[h].w, share, of[h].w);
        }
    }
    DEVICE void add(const Columns &v) {
#pragma unroll
        for (int h = 0; h < WIDTH; h++)
            of[h] = make_float4(of[h].x + v.of[h].x, of[h].y + v.of[h].y, of[h].z + v.of[h].z, of[h].w + v.of[h].w);
    }
};

#if ATT_RECORDS
/* 256 columns of a row, number `number`, as its part of a record. A lane's four of 128 are half of what a lane of a
 * matmul has of a block. */
DEVICE void store_record(u8 *to, int row, int number, const float (&v)[2][4]) {
    const int lane = threadIdx.x & 31, in_tile = row % 8;
    u8 *const record = to + ((u64)number * ATT_RECORDS + row / 8) * X_RECORD;
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++)
        largest = fmaxf(largest, fabsf(v[i / 4][i % 4]));
    const float scale = x_scale(warp_max(largest));
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum;
        const uint2 pairs = x_half_fragment(v[h], scale, sum);
        const int block = 4 * h + (lane >> 3);
#pragma unroll
        for (int step = 1; step < 8; step *= 2)
            sum += lane_swap(sum, step);
        const uint2 sums = x_sums(sum, lane_swap(sum, 8));
        *(uint2 *)(record + x_fragment_at(in_tile, block, 0) + (lane & 7) * 8) = pairs;
        if (lane % 16 == 0)
            *(uint2 *)(record + x_sums_at(in_tile, block / 2)) = sums;
    }
    if (lane == 0)
        *(float *)(record + x_scale_at(in_tile)) = x_inverse(scale);
}
#endif

/* What an item comes to. `writes`: in the warp that is to write it. */
struct Merged {
    Columns<ATT_MERGE_WIDTH> sum;
    float2 weights;
    bool writes;
};

/* A merge item. */
struct Merge {
    int row, head, n, column;
    const float *values; /* of the first split, from the lane's columns on */
    const float2 *weights;
    float2 own; /* of split `lane` */

    DEVICE Merge(const Plan &plan, float *partials, int item) {
        const int lane = threadIdx.x & 31, part = item % ATT_MERGE_PARTS;
        head = item / ATT_MERGE_PARTS % ATT_HEADS;
        row = item / (ATT_MERGE_PARTS * ATT_HEADS);
        n = plan.range[row].splits();
        column = 128 * ATT_MERGE_WIDTH * part + 4 * lane;
        const u64 at = partial_at(row, head, 0);
        values = partial_values(partials, at) + column;
        weights = partial_weights(partials, at);
        own = lane < n ? weights[lane] : make_float2(minus_infinity(), 0.0f);
    }
    DEVICE bool needed(const Plan &plan) const {
        return plan.range[row].merges();
    }
    /* From the item's 128 columns number `first` on. */
    template <int WIDTH> DEVICE Columns<WIDTH> value(int split, int first) const {
        Columns<WIDTH> v;
#pragma unroll
        for (int h = 0; h < WIDTH; h++)
            v.of[h] = column + 128 * (first + h) < ATT_V_DIM && split < n
                          ? *(const float4 *)(values + (u64)split * ATT_V_DIM + 128 * (first + h))
                          : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return v;
    }
    /* By all lanes, for a split below n. */
    DEVICE float share(int split, float most) const {
        return split_share(split < 32 ? lane_from(own.x, split) : weights[split].x, most);
    }
    /* sum: of the eight, for 128 columns. */
    DEVICE void turned(const float4 &sum, float factor, float (&v)[4]) const {
        v[0] = sum.x;
        v[1] = sum.y;
        v[2] = sum.z;
        v[3] = sum.w;
        if constexpr (VForm::rotated)
            turn_back(v);
#pragma unroll
        for (int i = 0; i < 4; i++)
            v[i] *= factor;
    }
    DEVICE void write(float *out, const Merged &merged TABLE_PARAMETERS) const {
        const float factor = last_factor(merged.weights.x, merged.weights.y, head TABLE_ARGUMENTS);
        float v[ATT_MERGE_WIDTH][4];
#pragma unroll
        for (int h = 0; h < ATT_MERGE_WIDTH; h++)
            turned(merged.sum.of[h], factor, v[h]);
#if ATT_RECORDS
        store_record((u8 *)out, row, (head * ATT_V_DIM + column) / 256, v);
#else
        if (column < ATT_V_DIM)
            *(float4 *)(out + ((u64)row * ATT_HEADS + head) * ATT_V_DIM + column) =
                make_float4(v[0][0], v[0][1], v[0][2], v[0][3]);
#endif
    }
};

/* By all threads of a block; `shared` has ATT_MERGE_BYTES. A sum has a warp or, of 256 columns, as many as there are for
 * it. The first values are on their way while the weights are. */
template <class Meet> DEVICE Merged merge_by_block(const Merge &m, u8 *shared, Meet meet) {
    enum { SHARED_BY = ATT_WARPS / ATT_MERGE_SUMS < ATT_MERGE_WIDTH ? ATT_WARPS / ATT_MERGE_SUMS : ATT_MERGE_WIDTH };
    enum { WIDTH = ATT_MERGE_WIDTH / SHARED_BY, AHEAD = 4 };
    const int warp = threadIdx.x >> 5, w = warp % ATT_MERGE_SUMS, part = warp / ATT_MERGE_SUMS;
    Merged merged = {};
    if (part < SHARED_BY) {
        Columns<WIDTH> v[AHEAD], sum;
        sum.clear();
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            v[j] = m.value<WIDTH>(w + ATT_MERGE_SUMS * j, part * WIDTH);
        merged.weights = merged_weights(m.own, m.weights, m.n);
#pragma unroll 1
        for (int i = w; i < m.n; i += ATT_MERGE_SUMS) {
            sum.add(v[0], m.share(i, merged.weights.x));
#pragma unroll
            for (int j = 1; j < AHEAD; j++)
                v[j - 1] = v[j];
            v[AHEAD - 1] = m.value<WIDTH>(i + ATT_MERGE_SUMS * AHEAD, part * WIDTH);
        }
        ((Columns<WIDTH> *)shared)[(32 * w + (threadIdx.x & 31)) * SHARED_BY + part] = sum;
    }
    meet();
    merged.writes = warp == 0;
    if (merged.writes) {
        const Columns<ATT_MERGE_WIDTH> *of_warp = (const Columns<ATT_MERGE_WIDTH> *)shared + threadIdx.x;
#pragma unroll
        for (int i = 0; i < ATT_MERGE_SUMS; i++)
            merged.sum.add(of_warp[32 * i]);
    }
    return merged;
}

/* The same by a warp alone, half of the eight sums at a time. */
DEVICE Merged merge_by_warp(const Merge &m) {
    enum { AT_ONCE = ATT_MERGE_SUMS / 2 };
    Merged merged = {};
    merged.writes = true;
#pragma unroll 1
    for (int first = 0; first < ATT_MERGE_SUMS; first += AT_ONCE) {
        Columns<ATT_MERGE_WIDTH> v[AT_ONCE], sums[AT_ONCE];
#pragma unroll
        for (int w = 0; w < AT_ONCE; w++) {
            v[w] = m.value<ATT_MERGE_WIDTH>(first + w, 0);
            sums[w].clear();
        }
        if (first == 0)
            merged.weights = merged_weights(m.own, m.weights, m.n);
#pragma unroll 1
        for (int i = first; i < m.n; i += ATT_MERGE_SUMS)
#pragma unroll
            for (int w = 0; w < AT_ONCE; w++) {
                if (i + w < m.n)
                    sums[w].add(v[w], m.share(i + w, merged.weights.x));
                v[w] = m.value<ATT_MERGE_WIDTH>(i + ATT_MERGE_SUMS + w, 0);
            }
#pragma unroll
        for (int w = 0; w < AT_ONCE; w++)
            merged.sum.add(sums[w]);
    }
    return merged;
}

/* All rows, by all blocks of the launch, by the threads that meet() lets meet. Few items get a block each, so that all
 * its warps fetch; many one of eight warps each: the fewer blocks stay, the more have left their place to the next
 * launch, which fetches its weights.
 * With ATT_TAKEN tail[2] is set back, which nobody looks at any more: all blocks have arrived. */
template <class Meet>
DEVICE void merge_all(const Plan &plan, float *partials, float *out, int *tail, u8 *shared,
                      Meet meet TABLE_PARAMETERS) {
    enum { MERGING = 8 }; /* warps */
    const int items = plan.queries * ATT_HEADS * ATT_MERGE_PARTS, warp = threadIdx.x >> 5;
    const bool by_warp = items * ATT_MERGE_WIDTH > (int)gridDim.x;
    auto merge = [&](int i, Others &others) {
        others.wait();
        meet();
        if (ATT_TAKEN && i == 0 && threadIdx.x == 0)
            tail[2] = 0;
        const int item = by_warp ? i * MERGING + warp : i;
        if (by_warp && (warp >= MERGING || item >= items))
            return;
        const Merge m(plan, partials, item);
        if (!m.needed(plan))
            return;
        const Merged merged = by_warp ? merge_by_warp(m) : merge_by_block(m, shared, meet);
        if (merged.writes)
            m.write(out, merged TABLE_ARGUMENTS);
    };
    run_tail(tail, by_warp ? (items + MERGING - 1) / MERGING : items, (int)blockIdx.x, merge, meet);
}

#endif
