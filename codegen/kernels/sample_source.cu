/* sample_source.cu - what sample.cu picks from: tokens with their order and their mass of probability, and buckets to
 * search them by.
 *
 * A source is the Row in device memory or the List of its best tokens in shared memory. Both have
 *   each(f)             f(logit, id, place in the list) by the threads that share the tokens out; f skips NaN
 *   mass(logit, at)     exp((logit - best) / temperature) in units of 2^-44, so 2^44 for the best
 *   fill_thousands(..)  mass of tokens 1024 i .. 1024 i + 1023 to bucket i; fill_ones(..): of token first + i
 * Functions are called by all threads of the block, and meet in block_sync(), unless they say otherwise.
 */
#ifndef LAP_SAMPLE_SOURCE
#define LAP_SAMPLE_SOURCE
#include "prelude.cu"

#define SAMPLE_BUCKETS 1024
#define SAMPLE_FEW     32 /* candidates that one warp compares */
#define SAMPLE_WARPS   (SAMPLE_THREADS / 32)
#define SAMPLE_CHUNKS  ((SAMPLE_VOCAB + 3) / 4)
#define SAMPLE_ANY_ID  0x7fffffff

static_assert(SAMPLE_VOCAB <= 1 << 19, "the sum of all masses fits 63 bits, an id 20");
static_assert(SAMPLE_BUCKETS % SAMPLE_THREADS == 0 && SAMPLE_THREADS % 32 == 0, "buckets are shared out evenly");

/* How a sequence samples and where its random numbers are. GpuSampling of runtime/engine/gpu_sampling.h is its twin. */
struct Sampling {
    u64 random[4];     /* xoshiro256** */
    double log_min_p;  /* 0: the best only; -infinity: all */
    u64 recent;        /* address of u32: tokens that the penalty looks at, a bit each, then the ring; 0: no penalty */
    float temperature; /* 0: greedy */
    float top_p;       /* 1: all */
    float repeat_penalty;
    int top_k;       /* 0: all */
    int ring_size;   /* 0: the penalty looks at all tokens, there is no ring */
    int ring_used;   /* tokens in it */
    int ring_oldest; /* place of the oldest once it is full */
    int unused;
};
static_assert(sizeof(Sampling) == 80, "as the host has it");

/* ==== Order and weight ==== */

DEVICE float lowest() {
    return float_from_bits(0xff800000u); /* -infinity */
}

DEVICE float not_a_number() {
    return float_from_bits(0x7fffffffu);
}

/* The last token, from the best downwards, that stays. */
struct Last {
    float x;
    int id;
};

/* False for NaN. */
DEVICE bool stays(Last last, float x, int id) {
    return x > last.x || (x == last.x && id <= last.id);
}

/* Steps of 1/32 below the best; not NaN. */
DEVICE int nearness(float best, float x) {
    const float d = (best - x) * 32;
    return d < SAMPLE_BUCKETS - 1 ? (int)d : SAMPLE_BUCKETS - 1;
}

/* Ascending from the best token to the worst, in 62 bits: nearness, key of the logit, id. */
DEVICE u64 place_of(float best, float x, int id) {
    u32 bits = bits_from_float(x);
    bits = bits == 0x80000000u ? 0 : bits; /* both zeros are equal */
    const u32 key = bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
    return (u64)nearness(best, x) << 52 | (u64)key << 20 | (u32)id;
}

DEVICE u64 mass_of(double weight) {
    return (u64)(weight * 0x1p44 + 0.5);
}

DEVICE u64 mass_of(float weight) {
    return (u64)(weight * 0x1p44f);
}

/* ==== Shared memory ==== */

struct Found {
    int digit; /* -1: nothing */
    u32 n;     /* in the bucket */
    u64 left;  /* what is wanted of the bucket */
};

struct Candidate {
    u64 place, mass;
    float x;
    int id;
};

struct Scratch {
    u32 low[SAMPLE_BUCKETS], high[SAMPLE_BUCKETS], n[SAMPLE_BUCKETS]; /* mass and number of what a bucket holds */
    u64 mass[SAMPLE_LIST];
    float x[SAMPLE_LIST];
    int id[SAMPLE_LIST];
    u32 listed, n_few;
    Candidate few[SAMPLE_FEW];
    u64 sums[32]; /* of the warps, as the two below */
    float bests[32];
    int firsts[32];
    Found found;
    Last last;
    Sampling *state;
    Sampling how; /* of the row, before this pick */
    float best;
    double random;
    int gone, gone_stays;
};

/* ==== Over the block ==== */

/* part: [32] in shared memory, not used again before another block_sync(). All threads get the result. */
template <class T, class Op> DEVICE T over_block(T v, T *part, Op op) {
    const int lane = threadIdx.x & 31;
    for (int step = 16; step; step >>= 1)
        v = op(v, lane_swap(v, step));
    if (lane == 0)
        part[threadIdx.x >> 5] = v;
    block_sync();
    v = part[lane % SAMPLE_WARPS];
    for (int step = SAMPLE_WARPS / 2; step; step >>= 1)
        v = op(v, lane_swap(v, step));
    return v;
}

/* The sum of this lane's and all lower lanes'. */
DEVICE u64 sum_upto(u64 v) {
    const int lane = threadIdx.x & 31;
    for (int step = 1; step < 32; step *= 2) {
        const u64 other = lane_from(v, lane < step ? lane : lane - step);
        v += lane < step ? 0 : other;
    }
    return v;
}

DEVICE void clear_buckets(Scratch &s) {
    for (int i = threadIdx.x; i < SAMPLE_BUCKETS; i += SAMPLE_THREADS)
        s.low[i] = s.high[i] = s.n[i] = 0;
    block_sync();
}

/* Shared memory adds 32 bits at once: the carry goes into the upper half, whoever causes it. */
DEVICE void add_to_bucket(Scratch &s, int i, u64 mass) {
    const u32 low = (u32)mass, carry = shared_add(&s.low[i], low) > ~low, high = (u32)(mass >> 32) + carry;
    if (high)
        shared_add(&s.high[i], high);
    shared_add(&s.n[i], 1);
}

DEVICE void set_bucket(Scratch &s, int i, u64 mass) {
    s.low[i] = (u32)mass;
    s.high[i] = (u32)(mass >> 32);
}

DEVICE u64 bucket(const Scratch &s, int i) {
    return (u64)s.high[i] << 32 | s.low[i];
}

/* The first bucket with which the sum reaches want(sum of all) > 0. */
template <class Want> DEVICE Found find_bucket(Scratch &s, Want want) {
    constexpr int EACH = SAMPLE_BUCKETS / SAMPLE_THREADS;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, first = threadIdx.x * EACH;
    block_sync();
    u64 mine = 0;
    for (int i = 0; i < EACH; i++)
        mine += bucket(s, first + i);
    const u64 upto = sum_upto(mine);
    if (lane == 31)
        s.sums[warp] = upto;
    if (threadIdx.x == 0)
        s.found.digit = -1;
    block_sync();
    const u64 part = lane < SAMPLE_WARPS ? s.sums[lane] : 0, parts = sum_upto(part);
    u64 before = lane_from(parts - part, warp) + upto - mine;
    const u64 wanted = want(lane_from(parts, 31));
    if (before < wanted && wanted <= before + mine) {
        int i = first;
        for (; before + bucket(s, i) < wanted; i++)
            before += bucket(s, i);
        s.found = {i, s.n[i], wanted - before};
    }
    block_sync();
    return s.found;
}

/* ==== Where tokens come from ==== */

/* All tokens, from device memory. */
struct Row {
    static constexpr bool ALL = true;
    const float *logits;
    const u32 *recent;
    float penalty, best, scale; /* of exp2_fast() */

    DEVICE float penalised(float x, u32 is_recent) const {
        return !is_recent ? x : x > 0 ? x / penalty : x * penalty;
    }
    /* NaN outside of the vocabulary. */
    DEVICE float one(int id) const {
        return id < SAMPLE_VOCAB ? logits[id] : not_a_number();
    }
    DEVICE float at(int id) const {
        return penalised(one(id), recent && id < SAMPLE_VOCAB ? recent[id >> 5] >> (id & 31) & 1 : 0);
    }
    /* Tokens 4 c .. 4 c + 3, before the penalty. */
    DEVICE float4 load(int c) const {
        if (c < SAMPLE_CHUNKS && SAMPLE_VOCAB % 4 == 0)
            return *(const float4 *)(logits + 4 * c);
        return make_float4(one(4 * c), one(4 * c + 1), one(4 * c + 2), one(4 * c + 3));
    }
    DEVICE u32 load_recent(int c) const {
        return recent && c < SAMPLE_CHUNKS ? recent[c >> 3] >> 4 * (c & 7) & 15 : 0;
    }
    DEVICE float4 penalised(float4 v, u32 bits) const {
        return !bits ? v
                     : make_float4(penalised(v.x, bits & 1), penalised(v.y, bits & 2), penalised(v.z, bits & 4),
                                   penalised(v.w, bits & 8));
    }
    /* f(tokens, c) for N chunks c, first + step * i; their loads go out together. */
    template <int N, class F> DEVICE void chunks(int first, int step, F f) const {
        float4 v[N];
        u32 bits[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = load(first + step * i);
#pragma unroll
        for (int i = 0; i < N; i++)
            bits[i] = load_recent(first + step * i);
#pragma unroll
        for (int i = 0; i < N; i++)
            f(penalised(v[i], bits[i]), first + step * i);
    }
    template <int N, class F> DEVICE void each_chunk(F f) const {
#pragma unroll 1
        for (int c = threadIdx.x; c < SAMPLE_CHUNKS; c += N * SAMPLE_THREADS)
            chunks<N>(c, SAMPLE_THREADS, f);
    }
    /* f(logit, id, its place in the list). The logit may be NaN. */
    template <class F> DEVICE void each(F f) const {
        each_chunk<2>([&](float4 v, int c) {
            f(v.x, 4 * c, 0);
            f(v.y, 4 * c + 1, 0);
            f(v.z, 4 * c + 2, 0);
            f(v.w, 4 * c + 3, 0);
        });
    }
    DEVICE void set_temperature(float t) {
        scale = 1.4426950408889634f / t;
    }
    DEVICE float weight(float x) const {
        return exp2_fast((x - best) * scale);
    }
    DEVICE u64 mass(float x, int) const {
        return mass_of(weight(x));
    }
    /* Of tokens 1024 i.. to bucket i. */
    DEVICE void fill_thousands(Scratch &s, Last last) const {
        for (int i = threadIdx.x >> 5; i < (SAMPLE_VOCAB + 1023) / 1024; i += SAMPLE_WARPS) {
            u64 sum = 0;
#pragma unroll 1
            for (int first = 256 * i; first < 256 * (i + 1); first += 64)
                chunks<2>(first + (threadIdx.x & 31), 32, [&](float4 v, int c) {
                    sum += stays(last, v.x, 4 * c) ? mass(v.x, 0) : 0;
                    sum += stays(last, v.y, 4 * c + 1) ? mass(v.y, 0) : 0;
                    sum += stays(last, v.z, 4 * c + 2) ? mass(v.z, 0) : 0;
                    sum += stays(last, v.w, 4 * c + 3) ? mass(v.w, 0) : 0;
                });
            sum = sum_upto(sum);
            if ((threadIdx.x & 31) == 31)
                set_bucket(s, i, sum);
        }
    }
    /* Of token first + i to bucket i. */
    DEVICE void fill_ones(Scratch &s, Last last, int first) const {
        for (int i = threadIdx.x; i < 1024; i += SAMPLE_THREADS) {
            const float x = at(first + i);
            set_bucket(s, i, stays(last, x, first + i) ? mass(x, 0) : 0);
        }
    }
};

/* At temperature 1. Made anew where it is used, so that it costs no registers elsewhere. */
DEVICE Row row_of(const Scratch &s, const float *logits) {
    Row row = {logits, (const u32 *)s.how.recent, s.how.repeat_penalty, s.best, 0};
    row.set_temperature(1);
    return row;
}

/* The listed tokens, in no order; each is always with the same thread. */
struct List {
    static constexpr bool ALL = false;
    Scratch &s;
    int n;
    float best;

    template <class F> DEVICE void each(F f) const {
        for (int i = threadIdx.x; i < n; i += SAMPLE_THREADS)
            f(s.x[i], s.id[i], i);
    }
    DEVICE void set_temperature(float t) {
        for (int i = threadIdx.x; i < n; i += SAMPLE_THREADS)
            s.mass[i] = mass_of(exp(((double)s.x[i] - best) / t));
    }
    DEVICE u64 mass(float, int at) const {
        return s.mass[at];
    }
    DEVICE void fill_thousands(Scratch &to, Last last) const {
        each([&](float x, int id, int at) {
            if (stays(last, x, id))
                add_to_bucket(to, id >> 10, to.mass[at]);
        });
    }
    DEVICE void fill_ones(Scratch &to, Last last, int first) const {
        each([&](float x, int id, int at) {
            if (stays(last, x, id) && id >> 10 == first >> 10)
                add_to_bucket(to, id & 1023, to.mass[at]);
        });
    }
};

/* By all threads, what they have put there before a block_sync(). */
DEVICE void append(Scratch &s, float x, int id, u64 mass) {
    const u32 at = shared_add(&s.listed, 1);
    if (at < SAMPLE_LIST) {
        s.x[at] = x;
        s.id[at] = id;
        s.mass[at] = mass;
    }
}

#endif
