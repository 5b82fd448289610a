/* sample.cu - picks a token from a row of logits, as runtime/text/sampler.c does; what the steps mean is in text.h.
 *
 * Contract: SAMPLE_NAME(const float *logits, Sampling *states, const int *slots, const int *rows, int *ids,
 *                       int *next_tokens, const int *guesses, Sampling *own, u32 *own_recent, int recent_words)
 *   SAMPLE_NAME      name of the kernel
 *   SAMPLE_VOCAB     V, up to 2^19
 *   SAMPLE_THREADS   of a block: a power of two, 32 to 1024 (what the times below are for)
 *   SAMPLE_LIST      tokens that the list holds, 2048; smaller to test what happens when it does not suffice
 *   logits           f32 [rows][V]
 *   states           [slots] Sampling (sample_source.cu). Row r uses and advances states[slots[r]], or states[r] if
 *                    slots is null; no two rows the same. Null: the best token of each row, of which nothing is kept
 *   rows             how many rows are live, in device memory; the others are left alone
 *   ids              [r] the token, -1 if its logit is NaN or infinite: the model gave nothing usable
 *   next_tokens      null, or [r] the token again, where the next step reads it; 0 for -1
 *   guesses          null, or [rows] the tokens of the rows: of each sequence its newest token, then guesses, in rows
 *                    behind each other with one slot. Row r picks as its sequence will when it has picked the guesses
 *                    up to row r's: with the state own[r], which is made of the sequence's by as many draws and tokens.
 *                    states are only read then
 *   own, own_recent  [rows] Sampling, and [rows][recent_words] for their recent tokens; null without guesses
 *   launch           block SAMPLE_THREADS, grid: the most rows; no dynamic shared memory
 * The token is accepted (it counts for the penalty from now on), -1 is not. Tokens of the prompt are put into the state
 * by the host: runtime/engine/gpu_sampling.h.
 *
 * Against sampler.c: the same ids from the same seed, apart from rounding. Masses of probability are integers in
 * units of 2^-44 of the best token's, so that sums do not depend on their order and a row's id on nothing but the row
 * and its state. A token of the list weighs what a double exp() says; what is weighed without having been listed
 * (below) has the relative error of exp2_fast() of an f32, some 1e-6 where it matters least, 2e-7 near the best.
 *
 * How: pass 1 over the row finds the best, and each thread's own best. Enough for temperature 0. The q-th best of the
 * threads' bests is a bound that at least q and seldom 3 q tokens reach, so pass 2 lists those that reach it in shared
 * memory, and adds up the mass of the others. top-k, top-p, min-p and the draw then work on the list. They work on the
 * row itself (some passes more) if the list is too short for what top-p wants, no filter is on, top-k is beyond 3/4 of
 * the threads, or more tokens than the list holds are as good as the bound.
 *   Top-k and top-p look for the last token that stays, by a radix search from the best downwards over (nearness to the
 * best in f32, key of the logit, id), until the bucket with the last token holds few enough to compare each with each.
 *   The draw walks ids upwards: a bucket for each 1024 ids, then one for each id.
 *
 * Time: a pass is bound by what one multiprocessor reads from L2, 64 bytes a clock: for V = 262144 on an H100 about
 * 10 us. Estimates from that: greedy 12 us; with top-k up to 768, or a top-p that some 700 tokens fill, 30 us; no
 * filter 35 us; top-p over a flat row, 100 to 150 us.
 */

#ifndef SAMPLE_NAME
#define SAMPLE_NAME  sample
#define SAMPLE_VOCAB 262144
#endif
#ifndef SAMPLE_THREADS
#define SAMPLE_THREADS 1024
#endif
#ifndef SAMPLE_LIST
#define SAMPLE_LIST 2048
#endif

#include "prelude.cu"
#include "sample_source.cu"

/* ==== Random numbers ==== */

DEVICE u64 rotate(u64 x, int by) {
    return x << by | x >> (64 - by);
}

/* In [0, 1), with 53 bits. */
DEVICE double next_random(u64 *s) {
    const u64 result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

/* ==== The last token that stays ==== */

/* How much is wanted: a number of tokens, else a part of the mass. */
struct Aim {
    u64 count;
    double part;
    u64 outside; /* mass that counts for the whole but is not in the source */

    DEVICE u64 of(u64 total) const {
        const double wanted = part * (double)(total + outside);
        return count ? count : wanted > 1 ? (u64)ceil(wanted) : 1;
    }
};

/* The bits of the place from `upper` on are known to be those of prefix; n tokens have them. */
struct Search {
    u64 prefix;
    int upper;
    u32 n;
    u64 left; /* what is wanted of them, in the unit of the aim */
};

/* f(logit, id, place in the list, place) for what the search has come to. */
template <class Source, class F> DEVICE void each_found(const Source &from, Last within, const Search &q, F f) {
    from.each([&](float x, int id, int at) {
        if (!stays(within, x, id))
            return;
        const u64 place = place_of(from.best, x, id);
        if ((place ^ q.prefix) >> q.upper == 0)
            f(x, id, at, place);
    });
}

/* Some bits further: 10 of nearness, 4 x 8 of the key, 2 x 10 of the id. False: all together do not reach the aim. */
template <class Source> DEVICE bool narrow(Scratch &s, const Source &from, Last within, const Aim &aim, Search &q) {
    const int shift = q.upper > 52 ? 52 : q.upper > 20 ? q.upper - 8 : q.upper - 10;
    const u32 mask = (1u << (q.upper - shift)) - 1;
    clear_buckets(s);
    each_found(from, within, q, [&](float x, int, int at, u64 place) {
        add_to_bucket(s, (u32)(place >> shift) & mask, aim.count ? 1 : from.mass(x, at));
    });
    const u64 left = q.left;
    const Found f = find_bucket(s, [&](u64 total) { return left ? left : aim.of(total); });
    if (f.digit < 0)
        return false;
    q = {q.prefix | (u64)f.digit << shift, shift, f.n, f.left};
    return true;
}

/* Goes on until few tokens are left, then compares. */
template <class Source> DEVICE Last last_of(Scratch &s, const Source &from, Last within, const Aim &aim, Search q) {
    while (q.n > SAMPLE_FEW)
        narrow(s, from, within, aim, q);
    if (threadIdx.x == 0)
        s.n_few = 0;
    block_sync();
    each_found(from, within, q, [&](float x, int id, int at, u64 place) {
        s.few[shared_add(&s.n_few, 1)] = {place, aim.count ? 1 : from.mass(x, at), x, id};
    });
    block_sync();
    if (threadIdx.x < q.n) {
        const Candidate mine = s.few[threadIdx.x];
        u64 better = 0;
        for (u32 i = 0; i < q.n; i++)
            better += s.few[i].place < mine.place ? s.few[i].mass : 0;
        if (better < q.left && q.left <= better + mine.mass)
            s.last = {mine.x, mine.id};
    }
    block_sync();
    return s.last;
}

/* The last of the fewest best within `last` that together reach the aim. False if all do not. */
template <class Source> DEVICE bool select(Scratch &s, const Source &from, const Aim &aim, Last &last) {
    Search q = {0, 62, 0, 0};
    if (!narrow(s, from, last, aim, q))
        return false;
    if constexpr (Source::ALL) {
        while (q.n > SAMPLE_LIST)
            narrow(s, from, last, aim, q);
        if (q.n > SAMPLE_FEW) {
            if (threadIdx.x == 0)
                s.listed = 0;
            block_sync();
            each_found(from, last, q, [&](float x, int id, int, u64) { append(s, x, id, from.mass(x, 0)); });
            block_sync();
            last = last_of(s, List{s, (int)q.n, from.best}, last, aim, q);
            return true;
        }
    }
    last = last_of(s, from, last, aim, q);
    return true;
}

/* ==== Passes over the row ==== */

struct Best {
    float x;
    int id;     /* SAMPLE_ANY_ID: all are NaN */
    float mine; /* the best of this thread's chunks */
};

DEVICE Best find_best(Scratch &s, const Row &row) {
    float mine = lowest();
    int chunk = 0, id = SAMPLE_ANY_ID;
    row.each_chunk<4>([&](float4 v, int c) {
        const float m = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)); /* the other one for NaN */
        chunk = m > mine ? c : chunk;
        mine = m > mine ? m : mine;
    });
    const float best = over_block(mine, s.bests, [](float a, float b) { return fmaxf(a, b); });
    const auto look = [&](float x, int i) {
        if (x == best && i < id)
            id = i;
    };
    if (best == lowest())
        row.each([&](float x, int i, int) { look(x, i); });
    else if (mine == best)
        for (int i = 0; i < 4; i++)
            look(row.at(4 * chunk + i), 4 * chunk + i);
    s.best = best; /* all the same */
    id = over_block(id, s.firsts, [](int a, int b) { return a < b ? a : b; });
    return {best, id, mine};
}

/* At least q threads' bests reach it; a little lower than the q-th. */
DEVICE float bound_of(Scratch &s, const Best &best, int q) {
    const int near = nearness(best.x, best.mine);
    clear_buckets(s);
    add_to_bucket(s, near, 1);
    const Found f = find_bucket(s, [&](u64) { return (u64)q; });
    return over_block(near <= f.digit ? best.mine : best.x, s.bests, [](float a, float b) { return a < b ? a : b; });
}

/* Lists what reaches the bound. The mass of the rest, if wanted. */
DEVICE u64 make_list(Scratch &s, const Row &row, float bound, bool weigh) {
    u64 rest = 0;
    if (threadIdx.x == 0)
        s.listed = 0;
    block_sync();
    row.each_chunk<4>([&](float4 v, int c) {
        if (weigh) {
            const float x = v.x < bound ? row.weight(v.x) : 0, y = v.y < bound ? row.weight(v.y) : 0,
                        z = v.z < bound ? row.weight(v.z) : 0, w = v.w < bound ? row.weight(v.w) : 0;
            rest += mass_of((x + y) + (z + w));
        }
        if (fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)) < bound)
            return;
        const float four[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (four[i] >= bound)
                append(s, four[i], 4 * c + i, 0);
    });
    return over_block(rest, s.sums, [](u64 a, u64 b) { return a + b; });
}

/* ==== Picking ==== */

/* The lowest logit that min-p lets stay. */
DEVICE float least_of(const Sampling &o, float best) {
    const double least = best + o.log_min_p;
    const float x = (float)least;
    return x < least ? nextafterf(x, best) : x;
}

template <class Source> DEVICE int draw(Scratch &s, const Source &from, Last last) {
    clear_buckets(s);
    from.fill_thousands(s, last);
    const double random = s.random;
    const Found f = find_bucket(s, [&](u64 total) {
        const u64 target = (u64)(random * (double)total) + 1;
        return target < total ? target : total;
    });
    const int first = f.digit << 10;
    clear_buckets(s);
    from.fill_ones(s, last, first);
    return first + find_bucket(s, [&](u64) { return f.left; }).digit;
}

/* -1: the source does not hold enough for top-p. outside: the mass that it does not hold. */
template <class Source> DEVICE int choose(Scratch &s, Source from, u64 outside) {
    const Sampling &o = s.how;
    Last last = {lowest(), SAMPLE_ANY_ID};
    if (o.top_k > 0)
        select(s, from, Aim{(u64)o.top_k, 0, 0}, last);
    if (o.top_p < 1) {
        from.set_temperature(1);
        if (!select(s, from, Aim{0, o.top_p, outside}, last))
            return -1;
    }
    const float least = least_of(o, from.best);
    if (least > last.x)
        last = {least, SAMPLE_ANY_ID};
    from.set_temperature(o.temperature);
    return draw(s, from, last);
}

/* Lists the tokens that matter, unless that is hopeless, and chooses among them. -1: the list does not do. */
DEVICE int choose_listed(Scratch &s, const Row &row, const Best &best) {
    constexpr int MOST = SAMPLE_THREADS / 4 * 3, USUAL = SAMPLE_THREADS / 2;
    const Sampling &o = s.how;
    const bool by_part = o.top_k <= 0 && o.top_p < 1;
    float bound = lowest();
    if (SAMPLE_VOCAB > SAMPLE_LIST) {
        if (o.top_k > MOST)
            return -1;
        bound = o.top_k > 0 ? bound_of(s, best, o.top_k) : by_part ? bound_of(s, best, USUAL) : least_of(o, best.x);
        if (bound == lowest())
            return -1;
    }
    const u64 outside = make_list(s, row, bound, by_part);
    const u32 n = s.listed;
    return n <= SAMPLE_LIST ? choose(s, List{s, (int)n, best.x}, outside) : -1;
}

/* ==== Recent tokens ==== */

/* By all threads. */
DEVICE void accept(Scratch &s, int id) {
    const Sampling &o = s.how;
    u32 *const bits = (u32 *)o.recent, *const ring = bits + (SAMPLE_VOCAB + 31) / 32;
    const bool full = o.ring_size > 0 && o.ring_used == o.ring_size;
    if (threadIdx.x == 0 && full) {
        s.gone = (int)ring[o.ring_oldest];
        s.gone_stays = 0;
        ring[o.ring_oldest] = (u32)id;
        s.state->ring_oldest = o.ring_oldest + 1 < o.ring_size ? o.ring_oldest + 1 : 0;
    } else if (threadIdx.x == 0 && o.ring_size > 0) {
        ring[o.ring_used] = (u32)id;
        s.state->ring_used = o.ring_used + 1;
    }
    block_sync();
    if (full) {
        for (int i = threadIdx.x; i < o.ring_size; i += SAMPLE_THREADS)
            if ((int)ring[i] == s.gone)
                s.gone_stays = 1;
        block_sync();
    }
    if (threadIdx.x == 0) {
        if (full && !s.gone_stays)
            bits[s.gone >> 5] &= ~(1u << (s.gone & 31));
        bits[id >> 5] |= 1u << (id & 31);
    }
}

/* ==== Guesses ==== */

/* The state of row r of a sequence is made, in its own memory: that of the sequence behind r more picks. By all
 * threads. */
DEVICE void foresee(Scratch &s, const Sampling &sequence, const int *guesses, int r, Sampling *own, u32 *recent) {
    const u32 *const from = (const u32 *)sequence.recent;
    if (threadIdx.x == 0) {
        s.state = own;
        s.how = sequence;
        s.how.recent = from ? (u64)recent : 0;
        for (int i = 0; i < r && s.how.temperature > 0; i++)
            next_random(s.how.random);
        *own = s.how;
    }
    const int words = from ? (SAMPLE_VOCAB + 31) / 32 + sequence.ring_used : 0;
    for (int i = threadIdx.x; i < words; i += SAMPLE_THREADS)
        recent[i] = from[i];
    block_sync();
    for (int i = 1; i <= r && from; i++) {
        if ((u32)guesses[i] < SAMPLE_VOCAB)
            accept(s, guesses[i]);
        block_sync();
        if (threadIdx.x == 0)
            s.how = *own;
        block_sync();
    }
}

/* ==== The kernel ==== */

KERNEL __launch_bounds__(SAMPLE_THREADS, 1)
    SAMPLE_NAME(const float *logits, Sampling *states, const int *slots, const int *rows, int *ids, int *next_tokens,
                const int *guesses, Sampling *own, u32 *own_recent, int recent_words) {
    SHARED Scratch s;
    const int r = blockIdx.x;
    next_kernel_release();
    previous_kernels_wait();
    if (r >= *rows)
        return;
    Sampling *const state = states ? &states[slots ? slots[r] : r] : nullptr;
    if (guesses) {
        int first = r; /* row of the sequence */
        while (first > 0 && slots[first - 1] == slots[r])
            first--;
        foresee(s, *state, guesses + first, r - first, own + r, own_recent + (u64)r * recent_words);
    }
    if (threadIdx.x == 0) {
        if (!guesses) {
            s.state = state;
            s.how = state ? *state : Sampling{};
        }
        if (s.how.temperature > 0)
            s.random = next_random(s.state->random); /* one for every pick, so that picks stay in step */
    }
    block_sync();
    logits += (u64)r * SAMPLE_VOCAB;
    const Best best = find_best(s, row_of(s, logits));
    int id = best.id == SAMPLE_ANY_ID ? 0 : best.id;
    if (s.how.temperature > 0 && best.id != SAMPLE_ANY_ID && best.x - best.x == 0) {
        id = choose_listed(s, row_of(s, logits), best);
        if (id < 0)
            id = choose(s, row_of(s, logits), 0);
    }
    const float x = logits[id];
    const bool usable = x - x == 0; /* neither NaN nor infinite */
    if (usable && s.how.recent)
        accept(s, id);
    if (threadIdx.x == 0) {
        ids[r] = usable ? id : -1;
        if (next_tokens)
            next_tokens[r] = usable ? id : 0;
    }
}
