/* row_ops.cu - what the bodies that the code generator writes for row programs are made of (codegen/row_program.c).
 *
 * A row program computes the values of one row, by all threads of a block: loops over elements, and between them
 * statistics of rows or of their last axis. All sums have an order that depends on sizes only, never on TAIL_THREADS:
 * the same program runs in blocks of many sizes and must give the same bits.
 */
#ifndef LAP_ROW_OPS
#define LAP_ROW_OPS
#include "prelude.cu"

#ifndef TAIL_BLOCKS
#define TAIL_BLOCKS 1 /* that share a multiprocessor's registers */
#endif

/* Registers of a thread for what a program has asked memory for, beside 20 that it works with; four warps are given theirs
 * together. */
constexpr int ROW_REGISTERS = 65536 / ((TAIL_THREADS + 127) / 128 * 128 * TAIL_BLOCKS) - 20;

/* ==== Functions of one number, as ir/eval_elementwise.c has them ==== */

DEVICE float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

DEVICE float silu(float x) {
    return x / (1.0f + expf(-x));
}

DEVICE float gelu(float x) {
    return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

DEVICE float minus_infinite() {
    return float_from_bits(0xff800000u);
}

/* ==== Loads and stores of W neighbours: 1, or a multiple of 4 at an address that is one of 16 ==== */

template <int W> DEVICE void load_values(float (&to)[W], const float *from) {
    if constexpr (W % 4 == 0) {
#pragma unroll
        for (int i = 0; i < W; i += 4) {
            const float4 v = *(const float4 *)(from + i);
            to[i] = v.x;
            to[i + 1] = v.y;
            to[i + 2] = v.z;
            to[i + 3] = v.w;
        }
    } else {
        to[0] = from[0];
    }
}

/* The sum of P planes, in order. */
template <int P, int W> DEVICE void load_planes(float (&to)[W], const float *from, u64 stride) {
    float v[P][W];
#pragma unroll
    for (int p = 0; p < P; p++)
        load_values<W>(v[p], from + p * stride);
#pragma unroll
    for (int i = 0; i < W; i++) {
        to[i] = v[0][i];
#pragma unroll
        for (int p = 1; p < P; p++)
            to[i] += v[p][i];
    }
}

template <int P> DEVICE float plane_sum(const float *from, u64 stride) {
    float one[1];
    load_planes<P, 1>(one, from, stride);
    return one[0];
}

/* W neighbours of f16, each of them times a number: as they came, since several loads are under way. */
template <int W> struct Halves {
    u32 pairs[(W + 1) / 2];
    float unit;

    DEVICE float operator[](int i) const {
        return f16_value((u16)(pairs[i / 2] >> 16 * (i % 2))) * unit;
    }
};

/* With W = 4 the address is a multiple of 8. */
template <int W> DEVICE void load_halves(Halves<W> &to, const u16 *from, float unit) {
    static_assert(W == 1 || W == 4, "of many rows");
    if constexpr (W == 4) {
        const uint2 v = *(const uint2 *)from;
        to.pairs[0] = v.x;
        to.pairs[1] = v.y;
    } else {
        to.pairs[0] = from[0];
    }
    to.unit = unit;
}

template <int W> DEVICE void store_values(float *to, const float (&from)[W]) {
    if constexpr (W % 4 == 0) {
#pragma unroll
        for (int i = 0; i < W; i += 4)
            *(float4 *)(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
    } else {
        to[0] = from[0];
    }
}

template <int W> DEVICE void store_values(int *to, const int (&from)[W]) {
#pragma unroll
    for (int i = 0; i < W; i++)
        to[i] = from[i];
}

/* ==== Statistics: GROUPS groups of N neighbouring elements; read(e) gives element e ====
 *
 * Chunks of 128 elements are summed by a warp each, then the chunks of a group by one warp. `parts` has room for
 * GROUPS * ceil(N / 128) numbers. The result is there for all threads; all threads must come.
 */
enum { ROW_CHUNK = 128 };

template <int GROUPS, int N, class Read, class Finish>
DEVICE void row_reduce_sum(float *to, float *parts, Read read, Finish finish) {
    constexpr int CHUNKS = (N + ROW_CHUNK - 1) / ROW_CHUNK;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int c = warp; c < GROUPS * CHUNKS; c += TAIL_THREADS / 32) {
        const int group = c / CHUNKS, first = c % CHUNKS * ROW_CHUNK;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < ROW_CHUNK / 32; i++) {
            const int e = first + i * 32 + lane;
            sum += e < N ? read(group * N + e, group) : 0.0f;
        }
        sum = warp_sum(sum);
        if (lane == 0)
            parts[c] = sum;
    }
    block_sync();
    for (int group = warp; group < GROUPS; group += TAIL_THREADS / 32) {
        float sum = 0.0f;
        for (int c = lane; c < CHUNKS; c += 32)
            sum += parts[group * CHUNKS + c];
        sum = warp_sum(sum);
        if (lane == 0)
            to[group] = finish(sum);
    }
    block_sync();
}

/* A loop's sums of squares: the lanes of a warp have W neighbours each, those of thread 0 from b on, in U rounds. By all
 * lanes; `end`: where the row ends. The rounds' chains of five exchanges run side by side. */
template <int W, int U> DEVICE void row_square_parts(float *parts, float (&sum)[U], int b, int end) {
    constexpr int CHUNK = 32 * W;
#pragma unroll
    for (int step = 16; step; step >>= 1) {
#pragma unroll
        for (int u = 0; u < U; u++)
            sum[u] += lane_swap(sum[u], step);
    }
#pragma unroll
    for (int u = 0; u < U; u++) {
        const int at = b + W * (int)(threadIdx.x + u * TAIL_THREADS);
        if ((threadIdx.x & 31) == 0 && at < end)
            parts[at / CHUNK] = sum[u];
    }
}

/* 1 / sqrt(sum / n + eps): within 2 ulp, without the paths of a division and a root for numbers that are not normal. */
DEVICE float row_norm_factor(float sum, float n, float eps) {
    return rsqrtf(sum * (1.0f / n) + eps);
}

/* 1 / sqrt(mean of squares + eps) of a row of N from its chunks' sums; the same in every thread. */
template <int N, int CHUNK> DEVICE float row_norm_of(const float *parts, float eps) {
    float sum = 0.0f;
#pragma unroll
    for (int c = threadIdx.x & 31; c < (N + CHUNK - 1) / CHUNK; c += 32)
        sum += parts[c];
    return row_norm_factor(warp_sum(sum), (float)N, eps);
}

/* 1 / sqrt(mean of squares + eps) of each group. */
template <int GROUPS, int N, class Read> DEVICE void row_norms(float *to, float *parts, float eps, Read read) {
    row_reduce_sum<GROUPS, N>(
        to, parts,
        [&](int e, int) {
            const float v = read(e);
            return v * v;
        },
        [&](float sum) { return row_norm_factor(sum, (float)N, eps); });
}

template <int GROUPS, int N, class Read> DEVICE void row_sums(float *to, float *parts, Read read) {
    row_reduce_sum<GROUPS, N>(
        to, parts, [&](int e, int) { return read(e); }, [&](float sum) { return sum; });
}

/* Maximum and sum of exp(x - maximum) of each group. */
template <int GROUPS, int N, class Read> DEVICE void row_softmax(float *most, float *sums, float *parts, Read read) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int group = warp; group < GROUPS; group += TAIL_THREADS / 32) {
        float m = minus_infinite();
        for (int e = lane; e < N; e += 32)
            m = fmaxf(m, read(group * N + e));
        m = warp_max(m);
        if (lane == 0)
            most[group] = m;
    }
    block_sync();
    row_reduce_sum<GROUPS, N>(
        sums, parts, [&](int e, int group) { return expf(read(e) - most[group]); }, [&](float sum) { return sum; });
}

/* Larger for larger numbers, the same for both zeros; 0 for NaN, and for nothing else. */
DEVICE u32 order_key(float x) {
    const u32 bits = bits_from_float(x + 0.0f);
    return x != x ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The K largest of a group of N, few enough to be held by one warp, largest first; as row_top_k(). */
template <int N, int K, class Read> DEVICE void warp_top_k(int *to, Read read) {
    constexpr int EACH = (N + 31) / 32;
    const int lane = threadIdx.x & 31;
    u32 key[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        key[i] = 32 * i + lane < N ? order_key(read(32 * i + lane)) : 0;
    for (int k = 0; k < K; k++) {
        u32 best = 0, at = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (key[i] > best) {
                best = key[i];
                at = 32 * i + lane;
            }
        const u32 most = warp_largest(best);
        const u32 first = most ? ~warp_largest(best == most ? ~at : 0) : 0;
        if (lane == 0)
            to[k] = (int)first;
#pragma unroll
        for (int i = 0; i < EACH; i++)
            key[i] = 32 * i + lane == (int)first ? 0 : key[i];
    }
}

/* The K largest of each group, largest first, the lower index first among equals; NaN is never among them, and what is
 * missing is 0. `copy` has room for GROUPS * N. */
template <int GROUPS, int N, int K, class Read> DEVICE void row_top_k(int *to, float *copy, Read read) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int group = warp; group < GROUPS; group += TAIL_THREADS / 32) {
        if constexpr (N <= 32 * 8) {
            warp_top_k<N, K>(to + group * K, [&](int e) { return read(group * N + e); });
            continue;
        }
        float *x = copy + group * N;
        for (int e = lane; e < N; e += 32)
            x[e] = read(group * N + e);
        warp_sync();
        for (int k = 0; k < K; k++) {
            float best = minus_infinite();
            int at = N;
            for (int e = lane; e < N; e += 32)
                if (at == N ? x[e] == x[e] : x[e] > best) {
                    best = x[e];
                    at = e;
                }
            for (int step = 16; step; step >>= 1) {
                const float other = lane_swap(best, step);
                const int other_at = lane_swap(at, step);
                if (other_at < N && (at == N || other > best || (other == best && other_at < at))) {
                    best = other;
                    at = other_at;
                }
            }
            if (lane == 0) {
                to[group * K + k] = at < N ? at : 0;
                if (at < N)
                    x[at] = float_from_bits(0x7fc00000u); /* taken: NaN, equal to nothing */
            }
            warp_sync();
        }
    }
    block_sync();
}

/* Element e of heads of N elements, turned by the row's position: pairs (i, i + DIMS / 2). */
template <int N, int DIMS, class Read> DEVICE float row_turned(int e, int pos, const double *turns, Read read) {
    const int i = e % N;
    if (i >= DIMS)
        return read(e);
    const int half = DIMS / 2, pair = i < half ? i : i - half;
    float cosine, sine;
    turn_of(pos * turns[pair], cosine, sine);
    return i < half ? read(e) * cosine - read(e + half) * sine : read(e - half) * sine + read(e) * cosine;
}

#endif
