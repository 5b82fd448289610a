/* sampler.c - picks a token from logits. The order of the steps is in text.h.
 *
 * No step sorts the vocabulary: top-k keeps a heap of k while it reads the logits, top-p finds its last
 * token by selection on probability mass. What is kept stays in ascending order of ids, and the draw walks
 * it in that order, so that the result does not depend on how a step found its answer.
 */
#include "runtime/text/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Candidate {
    float logit;
    int32_t id;
    double weight; /* exp(logit - best logit) */
} Candidate;

struct Sampler {
    Arena *arena;
    SampleOptions o;
    int vocab;
    uint64_t random[4];
    uint32_t *recent;    /* [vocab] how often a token is among those the penalty looks at; NULL: no penalty */
    VEC(int32_t) window; /* those tokens, a ring once it is full; unused when all count */
    int oldest;          /* place of the oldest in the full window */
    Candidate *kept;     /* in ascending order of ids */
    Candidate *work;     /* of the selection for top-p */
};

/* ==== Random numbers: xoshiro256** by Blackman and Vigna, seeded by splitmix64 ==== */

static uint64_t rotate(uint64_t x, int by) {
    return x << by | x >> (64 - by);
}

void sampler_seed(uint64_t state[4], uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        state[i] = z ^ z >> 31;
    }
}

/* In [0, 1), with 53 bits. */
static double next_random(uint64_t s[4]) {
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

/* ==== Making ==== */

SampleOptions sample_options_in_range(SampleOptions o) {
    o.temperature = o.temperature > 0 ? o.temperature : 0;
    o.top_k = o.top_k > 0 ? o.top_k : 0;
    o.top_p = o.top_p < 1 ? o.top_p : 1;
    o.min_p = o.min_p > 0 ? o.min_p : 0;
    o.repeat_penalty = o.repeat_penalty > 0 ? o.repeat_penalty : 1;
    return o;
}

Sampler *sampler_new(const SampleOptions *o, int vocab) {
    Arena *a = arena_new();
    Sampler *s = arena_alloc(a, sizeof *s);
    s->arena = a;
    s->o = sample_options_in_range(*o);
    s->vocab = vocab;
    sampler_seed(s->random, o->seed);
    if (s->o.repeat_penalty != 1 && s->o.repeat_last != 0)
        s->recent = arena_array(a, (size_t)vocab, sizeof *s->recent);
    if (s->o.temperature > 0) {
        int most = s->o.top_k && s->o.top_k < vocab ? s->o.top_k : vocab;
        s->kept = arena_array(a, (size_t)most, sizeof *s->kept);
        s->work = arena_array(a, (size_t)most, sizeof *s->work);
    }
    return s;
}

void sampler_free(Sampler *s) {
    if (s)
        arena_free(s->arena);
}

void sampler_accept(Sampler *s, int32_t id) {
    if (!s->recent || id < 0 || id >= s->vocab)
        return;
    s->recent[id]++;
    if (s->o.repeat_last < 0)
        return;
    if (s->window.n < s->o.repeat_last) {
        vec_push(s->arena, &s->window, id);
        return;
    }
    s->recent[s->window.v[s->oldest]]--;
    s->window.v[s->oldest] = id;
    s->oldest = (s->oldest + 1) % s->window.n;
}

/* ==== Steps ==== */

static float penalised(const Sampler *s, const float *logits, int id) {
    float x = logits[id];
    if (!s->recent || !s->recent[id])
        return x;
    return x > 0 ? x / s->o.repeat_penalty : x * s->o.repeat_penalty;
}

static bool is_better(Candidate a, Candidate b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/* id -1 when all are NaN. */
static Candidate find_best(const Sampler *s, const float *logits) {
    Candidate best = {-INFINITY, -1, 0};
    for (int i = 0; i < s->vocab; i++) {
        float x = penalised(s, logits, i);
        if (x > best.logit || (best.id < 0 && !isnan(x)))
            best = (Candidate){x, i, 0};
    }
    return best;
}

static int keep_all(Sampler *s, const float *logits) {
    int n = 0;
    for (int i = 0; i < s->vocab; i++) {
        float x = penalised(s, logits, i);
        if (!isnan(x))
            s->kept[n++] = (Candidate){x, i, 0};
    }
    return n;
}

/* Lets kept[at] sink in the heap whose top is the worst. */
static void sink(Candidate *heap, int n, int at) {
    Candidate c = heap[at];
    for (int down = 2 * at + 1; down < n; down = 2 * at + 1) {
        if (down + 1 < n && is_better(heap[down], heap[down + 1]))
            down++;
        if (!is_better(c, heap[down]))
            break;
        heap[at] = heap[down];
        at = down;
    }
    heap[at] = c;
}

static int by_id(const void *x, const void *y) {
    const Candidate *a = x, *b = y;
    return (a->id > b->id) - (a->id < b->id);
}

static int keep_top_k(Sampler *s, const float *logits) {
    int n = 0, k = s->o.top_k;
    for (int i = 0; i < s->vocab; i++) {
        Candidate c = {penalised(s, logits, i), i, 0};
        if (isnan(c.logit))
            continue;
        if (n < k) {
            s->kept[n++] = c;
            for (int at = n / 2 - 1; n == k && at >= 0; at--)
                sink(s->kept, n, at);
        } else if (is_better(c, s->kept[0])) {
            s->kept[0] = c;
            sink(s->kept, n, 0);
        }
    }
    qsort(s->kept, (size_t)n, sizeof *s->kept, by_id);
    return n;
}

static void swap(Candidate *a, Candidate *b) {
    Candidate t = *a;
    *a = *b;
    *b = t;
}

/* Moves the middle one of first, middle and last of c[lo..hi) to the end, then better ones to the front.
 * Its place afterwards. */
static int partition(Candidate *c, int lo, int hi) {
    int mid = lo + (hi - lo) / 2, last = hi - 1;
    if (is_better(c[mid], c[lo]))
        swap(&c[mid], &c[lo]);
    if (is_better(c[last], c[lo]))
        swap(&c[last], &c[lo]);
    if (is_better(c[mid], c[last]))
        swap(&c[mid], &c[last]);
    int place = lo;
    for (int i = lo; i < last; i++)
        if (is_better(c[i], c[last]))
            swap(&c[i], &c[place++]);
    swap(&c[place], &c[last]);
    return place;
}

/* The last of the fewest best candidates whose weights together reach `want`. Reorders c. */
static Candidate last_to_reach(Candidate *c, int n, double want) {
    int lo = 0, hi = n;
    while (hi - lo > 1) {
        int place = partition(c, lo, hi);
        double better = 0;
        for (int i = lo; i < place; i++)
            better += c[i].weight;
        if (place > lo && better >= want) {
            hi = place;
        } else if (better + c[place].weight >= want || place + 1 == hi) {
            return c[place];
        } else {
            want -= better + c[place].weight;
            lo = place + 1;
        }
    }
    return c[lo];
}

static int keep_top_p(Sampler *s, int n, float best) {
    double total = 0;
    for (int i = 0; i < n; i++) {
        s->kept[i].weight = exp((double)s->kept[i].logit - best);
        total += s->kept[i].weight;
    }
    memcpy(s->work, s->kept, (size_t)n * sizeof *s->work);
    Candidate last = last_to_reach(s->work, n, total * s->o.top_p);
    int m = 0;
    for (int i = 0; i < n; i++)
        if (!is_better(last, s->kept[i]))
            s->kept[m++] = s->kept[i];
    return m;
}

static int keep_min_p(Sampler *s, int n, float best) {
    double least = s->o.min_p < 1 ? best + log(s->o.min_p) : best;
    int m = 0;
    for (int i = 0; i < n; i++)
        if (s->kept[i].logit >= least)
            s->kept[m++] = s->kept[i];
    return m;
}

static int32_t draw(Sampler *s, int n, float best, double random) {
    double total = 0;
    for (int i = 0; i < n; i++) {
        s->kept[i].weight = exp(((double)s->kept[i].logit - best) / s->o.temperature);
        total += s->kept[i].weight;
    }
    double target = random * total, sum = 0;
    int32_t id = s->kept[0].id;
    for (int i = 0; i < n && sum <= target; i++) {
        sum += s->kept[i].weight;
        if (s->kept[i].weight > 0)
            id = s->kept[i].id;
    }
    return id;
}

int32_t sampler_pick(Sampler *s, const float *logits) {
    Candidate best = find_best(s, logits);
    if (s->o.temperature == 0)
        return best.id < 0 ? 0 : best.id;
    double random = next_random(s->random); /* one for every pick, so that picks stay in step */
    if (best.id < 0)
        return 0;
    if (!isfinite(best.logit))
        return best.id;
    int n = s->o.top_k && s->o.top_k < s->vocab ? keep_top_k(s, logits) : keep_all(s, logits);
    if (s->o.top_p < 1)
        n = keep_top_p(s, n, best.logit);
    if (s->o.min_p > 0)
        n = keep_min_p(s, n, best.logit);
    return draw(s, n, best.logit, random);
}
