/* sequences.c - see sequences.h. */
#include "tests/sampling/sequences.h"

#include "codegen/plan.h"
#include "tests/kernels/blocks.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 5, MAX_PROMPT = 80, CONTEXT = MAX_PROMPT + STEPS };

/* ==== Logits ==== */

typedef enum Kind {
    NORMAL,
    PEAKED,
    FLAT,    /* all equal */
    TIES,    /* few different values, both zeros among them */
    HOLES,   /* NaN here and there */
    REFUSED, /* -infinity here and there */
    WIDE,    /* up to the largest f32 */
    TINY,    /* subnormal */
    ALMOST_ALL_NAN,
    ALL_NAN,
    ALL_REFUSED,
    INFINITE_BEST,
    KINDS
} Kind;

static int below(uint64_t *seed, int n) {
    return (int)((random_next(seed) >> 11) % (uint64_t)n);
}

static float logit(Kind kind, uint64_t *seed) {
    const float x = random_normal(seed);
    const int dice = below(seed, 100);
    switch (kind) {
    case NORMAL: return x;
    case PEAKED: return 4 * x - 12;
    case FLAT: return 1.5f;
    case TIES: return dice == 0 ? -0.0f : dice == 1 ? 0.0f : roundf(2 * x) / 2;
    case HOLES: return dice < 20 ? NAN : 2 * x;
    case REFUSED: return dice < 40 ? -INFINITY : 2 * x;
    case WIDE: return dice < 50 ? x * 1e30f : dice < 52 ? 3e38f * (x > 0 ? 1.0f : -1.0f) : x;
    case TINY: return x * 1e-40f;
    case ALMOST_ALL_NAN: return dice < 99 ? NAN : x;
    case ALL_NAN: return NAN;
    case ALL_REFUSED: return dice < 50 ? NAN : -INFINITY;
    case INFINITE_BEST: return dice < 3 ? INFINITY : x;
    case KINDS: break;
    }
    return 0;
}

/* Mostly what models give. */
static void make_row(float *row, int vocab, uint64_t *seed) {
    const Kind kind = below(seed, 3) ? (Kind)below(seed, TIES + 1) : (Kind)below(seed, KINDS);
    for (int i = 0; i < vocab; i++)
        row[i] = logit(kind, seed);
}

/* ==== Options ==== */

#define ONE_OF(table, seed) ((table)[below(seed, (int)(sizeof(table) / sizeof *(table)))])

static SampleOptions make_options(int vocab, uint64_t *seed) {
    static const float temperatures[] = {0, 1, 1, 1, 0.7f, 0.1f, 1.5f, 5, 1e-6f, 1e-37f};
    static const float top_ps[] = {1, 1, 0.95f, 0.9f, 0.9f, 0.5f, 0.01f, 0, -1, 0.999999f, NAN};
    static const float min_ps[] = {0, 0, 0, 0.05f, 0.5f, 1, 2, 1e-6f};
    static const float penalties[] = {1, 1, 1.1f, 1.5f, 0.5f, 0, 1e-3f};
    const int top_ks[] = {0, 0, 40, 1, 2, 33, vocab / 2, vocab - 1, vocab, vocab + 5, -1};
    const int lasts[] = {64, -1, 0, 1, 3, 20, vocab, CONTEXT + 1};
    return (SampleOptions){
        .temperature = ONE_OF(temperatures, seed),
        .top_k = ONE_OF(top_ks, seed),
        .top_p = ONE_OF(top_ps, seed),
        .min_p = ONE_OF(min_ps, seed),
        .repeat_penalty = ONE_OF(penalties, seed),
        .repeat_last = ONE_OF(lasts, seed),
        .seed = random_next(seed),
    };
}

/* ==== A sequence ==== */

typedef struct Sequence {
    SampleOptions o;
    Sampler *sampler;
    uint64_t random[4]; /* as the sampler's before its next pick */
    int32_t history[CONTEXT];
    int n;
    bool parted; /* a pick near a boundary was another one: not compared any more */
} Sequence;

static void start_sequence(const Backend *b, Sequence *s, int slot, uint64_t *seed) {
    *s = (Sequence){.o = make_options(b->vocab, seed)};
    s->sampler = sampler_new(&s->o, b->vocab);
    s->n = below(seed, MAX_PROMPT + 1);
    for (int i = 0; i < s->n; i++) {
        s->history[i] = below(seed, b->vocab + 2) - 1; /* some outside of the vocabulary */
        sampler_accept(s->sampler, s->history[i]);
    }
    GpuSampling state;
    const size_t most = (size_t)plan_recent_bytes(b->vocab, CONTEXT);
    gpu_sampling_init(&state, &s->o, b->vocab, CONTEXT, b->recent(b->ctx, slot, most));
    memcpy(s->random, state.random, sizeof s->random);
    const size_t bytes = gpu_sampling_recent_bytes(&state, b->vocab);
    uint32_t *recent = malloc(most);
    gpu_sampling_prompt(&state, recent, b->vocab, s->history, s->n);
    b->start(b->ctx, slot, &state, recent, bytes);
    free(recent);
}

/* ==== Was it near? ==== */

/* xoshiro256** */
static double next_random(uint64_t s[4]) {
    const uint64_t x = s[1] * 5, result = (x << 7 | x >> 57) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return (double)(result >> 11) * 0x1p-53;
}

typedef struct Item {
    float logit;
    int32_t id;
} Item;

static int by_rank(const void *x, const void *y) {
    const Item *a = x, *b = y;
    return a->logit != b->logit ? (a->logit < b->logit ? 1 : -1) : a->id - b->id;
}

static int by_id(const void *x, const void *y) {
    return ((const Item *)x)->id - ((const Item *)y)->id;
}

static bool is_recent(const Sequence *s, int vocab, int32_t id) {
    int counted = 0;
    for (int i = s->n - 1; i >= 0 && (s->o.repeat_last < 0 || counted < s->o.repeat_last); i--) {
        if (s->history[i] == id)
            return true;
        counted += s->history[i] >= 0 && s->history[i] < vocab;
    }
    return false;
}

/* Whether id could be drawn with top-p and the random number 1e-6 off. */
static bool drawn_near(const SampleOptions *o, const Item *ranked, int n, double top_p, double random, int32_t id) {
    double total = 0, sum = 0, until = 0;
    for (int i = 0; i < n; i++)
        total += exp((double)ranked[i].logit - ranked[0].logit);
    int m = 0;
    while (m < n && (m == 0 || sum < top_p * total))
        sum += exp((double)ranked[m++].logit - ranked[0].logit);
    while (o->min_p > 0 && m > 1 && ranked[m - 1].logit < ranked[0].logit + log(o->min_p < 1 ? (double)o->min_p : 1.0))
        m--;
    Item *kept = malloc((size_t)m * sizeof *kept);
    memcpy(kept, ranked, (size_t)m * sizeof *kept);
    qsort(kept, (size_t)m, sizeof *kept, by_id);
    sum = 0;
    for (int i = 0; i < m; i++)
        sum += exp(((double)kept[i].logit - ranked[0].logit) / o->temperature);
    bool near = false;
    for (int i = 0; i < m; i++) {
        const double from = until;
        until += exp(((double)kept[i].logit - ranked[0].logit) / o->temperature) / sum;
        near |= kept[i].id == id && random >= from - 1e-6 && random <= until + 1e-6;
    }
    free(kept);
    return near;
}

static bool is_near(const Sequence *s, const float *logits, int vocab, double random, int32_t id) {
    if (!(s->o.temperature > 0) || id < 0)
        return false;
    const float penalty = s->o.repeat_penalty > 0 ? s->o.repeat_penalty : 1;
    Item *item = malloc((size_t)vocab * sizeof *item);
    int n = 0;
    for (int i = 0; i < vocab; i++) {
        const float x = logits[i];
        const float y = !is_recent(s, vocab, i) ? x : x > 0 ? x / penalty : x * penalty;
        if (!isnan(y))
            item[n++] = (Item){y, i};
    }
    qsort(item, (size_t)n, sizeof *item, by_rank);
    if (s->o.top_k > 0 && s->o.top_k < n)
        n = s->o.top_k;
    bool near = false;
    for (int step = -1; step <= 1; step++)
        near |= drawn_near(&s->o, item, n, s->o.top_p < 1 ? s->o.top_p + step * 1e-6 : 2, random, id);
    free(item);
    return near;
}

/* ==== Picks ==== */

static void report(const Backend *b, const Sequence *s, int32_t wanted, int32_t id, int32_t next) {
    printf("FAILED: %s, V %d: temperature %g, top-k %d, top-p %g, min-p %g, penalty %g over %d, after %d tokens: "
           "%d instead of %d, next token %d\n",
           b->label, b->vocab, s->o.temperature, s->o.top_k, s->o.top_p, s->o.min_p, s->o.repeat_penalty,
           s->o.repeat_last, s->n, id, wanted, next);
}

static void check_pick(const Backend *b, Sequence *s, const float *logits, int32_t id, int32_t next, Tally *t) {
    const double random = s->o.temperature > 0 ? next_random(s->random) : 0;
    const int32_t picked = sampler_pick(s->sampler, logits), wanted = isfinite(logits[picked]) ? picked : -1;
    if (s->parted)
        return;
    t->picks++;
    t->unusable += id < 0;
    if (next != (id < 0 ? 0 : id) || (id != wanted && !is_near(s, logits, b->vocab, random, id))) {
        if (t->wrong++ < 20)
            report(b, s, wanted, id, next);
        s->parted = true;
    } else if (id != wanted) {
        t->near++;
        s->parted = true;
    } else if (id >= 0) {
        sampler_accept(s->sampler, id);
        s->history[s->n++] = id;
    }
}

static void run(const Backend *b, float *logits, uint64_t *seed, Tally *t) {
    Sequence sequences[MAX_SEQUENCES];
    const int n = 1 + below(seed, MAX_SEQUENCES);
    for (int i = 0; i < n; i++)
        start_sequence(b, &sequences[i], i, seed);
    for (int step = 0; step < STEPS; step++) {
        int32_t slots[MAX_SEQUENCES], ids[MAX_SEQUENCES + 1], next[MAX_SEQUENCES + 1];
        const int rows = step < STEPS - 1 ? n : 1 + below(seed, n), turn = below(seed, n);
        for (int r = 0; r < rows; r++) {
            slots[r] = (r + turn) % n;
            make_row(logits + (size_t)r * (size_t)b->vocab, b->vocab, seed);
        }
        ids[rows] = next[rows] = -77;
        b->pick(b->ctx, logits, slots, rows, ids, next);
        for (int r = 0; r < rows; r++)
            check_pick(b, &sequences[slots[r]], logits + (size_t)r * (size_t)b->vocab, ids[r], next[r], t);
        if (ids[rows] != -77 || next[rows] != -77) {
            printf("FAILED: %s, V %d: a row that is not live was written\n", b->label, b->vocab);
            t->wrong++;
        }
    }
    for (int i = 0; i < n; i++)
        sampler_free(sequences[i].sampler);
}

void check_sequences(const Backend *b, int runs, uint64_t *seed, Tally *t) {
    float *logits = aligned_alloc(16, ((size_t)MAX_SEQUENCES * (size_t)b->vocab * sizeof *logits + 15) & ~(size_t)15);
    for (int i = 0; i < runs; i++)
        run(b, logits, seed, t);
    free(logits);
}
