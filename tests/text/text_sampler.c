/* text_sampler.c - filters against their definitions, draws against exact probabilities. */
#include "vocab.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed;

static const SampleOptions off = {.temperature = 1, .top_p = 1, .repeat_penalty = 1};

static int32_t pick_once(SampleOptions o, const float *logits, int n) {
    Sampler *s = sampler_new(&o, n);
    int32_t id = sampler_pick(s, logits);
    sampler_free(s);
    return id;
}

/* ==== The definition: sort everything, cut, normalise ==== */

typedef struct Item {
    float logit;
    int id;
} Item;

static int by_logit(const void *x, const void *y) {
    const Item *a = x, *b = y;
    if (a->logit != b->logit)
        return a->logit < b->logit ? 1 : -1;
    return a->id - b->id;
}

/* Exact probabilities [n] of what sampler_pick should do with finite logits. */
static void exact(SampleOptions o, const float *logits, int n, double *probability) {
    Item *item = calloc((size_t)n, sizeof *item);
    for (int i = 0; i < n; i++) {
        item[i] = (Item){logits[i], i};
        probability[i] = 0;
    }
    qsort(item, (size_t)n, sizeof *item, by_logit);
    int m = o.top_k > 0 && o.top_k < n ? o.top_k : n;
    double total = 0, sum = 0;
    for (int i = 0; i < m; i++)
        total += exp((double)item[i].logit - item[0].logit);
    int p = 0;
    while (p < m && (p == 0 || o.top_p >= 1 || sum < o.top_p * total))
        sum += exp((double)item[p++].logit - item[0].logit);
    while (p > 1 && exp((double)item[p - 1].logit - item[0].logit) < o.min_p)
        p--;
    sum = 0;
    for (int i = 0; i < p; i++)
        sum += exp(((double)item[i].logit - item[0].logit) / o.temperature);
    for (int i = 0; i < p; i++)
        probability[item[i].id] = exp(((double)item[i].logit - item[0].logit) / o.temperature) / sum;
    free(item);
}

/* Draws and compares by chi-square, with a bound so far out (over seven standard deviations) that a right sampler
 * does not meet it by chance. What must not be drawn must never be drawn. */
static void check_draws(SampleOptions o, const float *logits, int n, int draws) {
    double *probability = calloc((size_t)n, sizeof *probability);
    int *seen = calloc((size_t)n, sizeof *seen);
    exact(o, logits, n, probability);
    Sampler *s = sampler_new(&o, n);
    for (int i = 0; i < draws; i++) {
        int32_t id = sampler_pick(s, logits);
        assert_in_range(id, 0, n - 1);
        seen[id]++;
    }
    double chi = 0, rest = 0, rest_seen = 0;
    int cells = 0;
    for (int i = 0; i < n; i++) {
        if (probability[i] == 0)
            assert_int_equal(seen[i], 0);
        double want = probability[i] * draws;
        if (want < 10) { /* rare ones together */
            rest += want;
            rest_seen += seen[i];
            continue;
        }
        chi += (seen[i] - want) * (seen[i] - want) / want;
        cells++;
    }
    if (rest >= 10) {
        chi += (rest_seen - rest) * (rest_seen - rest) / rest;
        cells++;
    }
    double freedom = cells - 1;
    assert_true(chi <= freedom + 7 * sqrt(2 * freedom) + 25);
    sampler_free(s);
    free(probability);
    free(seen);
}

static void random_logits(uint64_t *state, float *logits, int n, double spread) {
    for (int i = 0; i < n; i++)
        logits[i] = (float)((random_unit(state) + random_unit(state) - 1) * spread);
}

static void draws_follow_the_probabilities(void **state) {
    (void)state;
    enum { N = 50 };
    const SampleOptions options[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.5f, .top_p = 1},
        {.temperature = 3, .top_p = 1},
        {.temperature = 1, .top_p = 1, .top_k = 7},
        {.temperature = 1, .top_p = 1, .top_k = 1},
        {.temperature = 1, .top_p = 0.6f},
        {.temperature = 1, .top_p = 1, .min_p = 0.2f},
        {.temperature = 1.5f, .top_p = 0.9f, .top_k = 20},
        {.temperature = 0.7f, .top_p = 0.95f, .top_k = 40, .min_p = 0.05f},
    };
    for (size_t i = 0; i < COUNTOF(options); i++) {
        uint64_t r = seed + i;
        float logits[N];
        random_logits(&r, logits, N, 4);
        SampleOptions o = options[i];
        o.seed = r;
        check_draws(o, logits, N, 20000);
    }
}

/* Which tokens can come out at all, on many random logits with many ties. */
static void filters_keep_what_they_should(void **state) {
    (void)state;
    for (int round = 0; round < 300; round++) {
        uint64_t r = seed + (uint64_t)round * 31;
        float logits[40];
        int n = 1 + (int)random_below(&r, COUNTOF(logits));
        for (int i = 0; i < n; i++)
            logits[i] = (float)random_below(&r, 6) * 0.5f;
        SampleOptions o = {.temperature = 1000, /* all that is kept is drawn soon */
                           .top_k = random_below(&r, 2) ? (int)random_below(&r, 45) : 0,
                           .top_p = random_below(&r, 2) ? (float)random_unit(&r) : 1,
                           .min_p = random_below(&r, 2) ? (float)random_unit(&r) : 0,
                           .seed = r};
        double probability[COUNTOF(logits)];
        int seen[COUNTOF(logits)] = {0};
        exact(o, logits, n, probability);
        Sampler *s = sampler_new(&o, n);
        for (int i = 0; i < 40 * n; i++)
            seen[sampler_pick(s, logits)]++;
        for (int i = 0; i < n; i++) /* e^-40 to miss one */
            assert_int_equal(seen[i] > 0, probability[i] > 0);
        sampler_free(s);
    }
}

static void filters_by_hand(void **state) {
    (void)state;
    /* probabilities 0.5, 0.25, 0.125, 0.125 */
    const float logits[] = {logf(2), logf(8), logf(2), logf(4)};
    const struct {
        SampleOptions o;
        unsigned kept; /* bit i: id i */
    } cases[] = {
        {{.top_p = 1, .top_k = 1}, 1u << 1},
        {{.top_p = 1, .top_k = 3}, 1u << 1 | 1u << 3 | 1u << 0}, /* a tie: the lower id */
        {{.top_p = 0.4f}, 1u << 1},
        {{.top_p = 0.6f}, 1u << 1 | 1u << 3},
        {{.top_p = 0.8f}, 1u << 1 | 1u << 3 | 1u << 0},
        {{.top_p = 0.9f}, 15},
        {{.top_p = 0}, 1u << 1},                /* the best always stays */
        {{.top_p = 0.6f, .top_k = 2}, 1u << 1}, /* after top-k it is 2/3, 1/3 */
        {{.top_p = 1, .min_p = 0.4f}, 1u << 1 | 1u << 3},
        {{.top_p = 1, .min_p = 0.6f}, 1u << 1},
        {{.top_p = 1, .min_p = 5}, 1u << 1},
        {{.top_p = 1, .top_k = 99, .min_p = -1}, 15},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        SampleOptions o = cases[i].o;
        o.temperature = 2; /* must not matter for what is kept */
        o.seed = seed;
        Sampler *s = sampler_new(&o, 4);
        unsigned kept = 0;
        for (int k = 0; k < 400; k++)
            kept |= 1u << sampler_pick(s, logits);
        assert_int_equal(kept, cases[i].kept);
        sampler_free(s);
    }
}

static void large_vocabulary(void **state) {
    (void)state;
    enum { LARGE = 50000 };
    uint64_t r = seed;
    float *logits = malloc(LARGE * sizeof *logits);
    random_logits(&r, logits, LARGE, 12);
    const SampleOptions options[] = {
        {.temperature = 1, .top_p = 0.9f},
        {.temperature = 1, .top_p = 1, .top_k = 64},
        {.temperature = 1, .top_p = 0.95f, .top_k = 64},
        {.temperature = 0.8f, .top_p = 1, .min_p = 0.02f},
    };
    for (size_t i = 0; i < COUNTOF(options); i++) {
        SampleOptions o = options[i];
        o.seed = seed + i;
        check_draws(o, logits, LARGE, 1000);
    }
    for (int i = 0; i < LARGE; i++) /* all equal: the lowest ids stay */
        logits[i] = 1;
    const SampleOptions ten = {.temperature = 1, .top_p = 1, .top_k = 10, .seed = seed};
    const SampleOptions half = {.temperature = 1, .top_p = 0.5f, .seed = seed};
    Sampler *a = sampler_new(&ten, LARGE), *b = sampler_new(&half, LARGE);
    for (int i = 0; i < 20; i++) {
        assert_in_range(sampler_pick(a, logits), 0, 9);
        assert_in_range(sampler_pick(b, logits), 0, LARGE / 2);
    }
    sampler_free(a);
    sampler_free(b);
    free(logits);
}

static void greedy(void **state) {
    (void)state;
    const SampleOptions o = {.temperature = 0, .top_p = 1, .repeat_penalty = 1};
    assert_int_equal(pick_once(o, (const float[]){1, 3, 2}, 3), 1);
    assert_int_equal(pick_once(o, (const float[]){1, 3, 3}, 3), 1); /* the lower id */
    assert_int_equal(pick_once(o, (const float[]){-5, -7}, 2), 0);
    assert_int_equal(pick_once(o, (const float[]){NAN, -7, NAN, -6}, 4), 3);
    assert_int_equal(pick_once(o, (const float[]){NAN, -INFINITY}, 2), 1);
    assert_int_equal(pick_once(o, (const float[]){NAN, NAN}, 2), 0);
    assert_int_equal(pick_once(o, (const float[]){1, INFINITY, 2}, 3), 1);
    const SampleOptions nonsense = {.temperature = -1, .top_p = NAN, .min_p = NAN, .repeat_penalty = NAN, .top_k = -3};
    assert_int_equal(pick_once(nonsense, (const float[]){1, 3, 2}, 3), 1);
    const SampleOptions not_a_temperature = {.temperature = NAN, .top_p = 1};
    assert_int_equal(pick_once(not_a_temperature, (const float[]){1, 3, 2}, 3), 1);
}

static void extremes(void **state) {
    (void)state;
    const float one[] = {-INFINITY, -INFINITY, -3, -INFINITY};
    const float none[] = {NAN, NAN, NAN, NAN};
    const float low[] = {NAN, -INFINITY, -INFINITY, -INFINITY};
    const float high[] = {0, INFINITY, NAN, INFINITY};
    const float close[] = {10, 10.0001f, 9, -1e30f};
    const float wide[] = {-FLT_MAX, FLT_MAX, 0, -FLT_MAX};
    for (int top_k = 0; top_k < 4; top_k++)
        for (int top_p = 0; top_p < 3; top_p++)
            for (int min_p = 0; min_p < 2; min_p++) {
                SampleOptions o = {.temperature = 1,
                                   .top_k = top_k,
                                   .top_p = 0.5f * (float)top_p,
                                   .min_p = 0.1f * (float)min_p,
                                   .repeat_penalty = 1,
                                   .seed = seed};
                for (int i = 0; i < 20; i++, o.seed++) {
                    assert_int_equal(pick_once(o, one, 4), 2);
                    assert_int_equal(pick_once(o, none, 4), 0);
                    assert_int_equal(pick_once(o, low, 4), 1);
                    assert_int_equal(pick_once(o, high, 4), 1);
                    assert_int_equal(pick_once(o, wide, 4), 1);
                    assert_int_equal(pick_once(o, one + 2, 1), 0); /* a vocabulary of one */
                    SampleOptions cold = o;
                    cold.temperature = 1e-30f;
                    assert_int_equal(pick_once(cold, close, 4), 1);
                    SampleOptions hot = o;
                    hot.temperature = FLT_MAX;
                    assert_in_range(pick_once(hot, one, 4), 2, 2);
                }
            }
    /* NaN is never picked, though all else is improbable */
    SampleOptions o = off;
    const float some[] = {NAN, -50, NAN, -50, NAN};
    Sampler *s = sampler_new(&o, 5);
    for (int i = 0; i < 200; i++) {
        int32_t id = sampler_pick(s, some);
        assert_true(id == 1 || id == 3);
    }
    sampler_free(s);
}

static void same_seed_same_ids(void **state) {
    (void)state;
    enum { N = 1000, PICKS = 200 };
    float logits[N], before[N];
    uint64_t r = seed;
    random_logits(&r, logits, N, 3);
    memcpy(before, logits, sizeof logits);
    SampleOptions o = {.temperature = 1, .top_p = 0.95f, .top_k = 100, .repeat_penalty = 1.1f, .repeat_last = 8};
    o.seed = seed;
    Sampler *a = sampler_new(&o, N), *b = sampler_new(&o, N);
    o.seed++;
    Sampler *c = sampler_new(&o, N);
    int different = 0;
    for (int i = 0; i < PICKS; i++) {
        int32_t x = sampler_pick(a, logits), y = sampler_pick(b, logits), z = sampler_pick(c, logits);
        assert_int_equal(x, y);
        different += x != z;
        sampler_accept(a, x);
        sampler_accept(b, x);
        sampler_accept(c, z);
    }
    assert_true(different > PICKS / 2);
    assert_memory_equal(before, logits, sizeof logits);
    sampler_free(a);
    sampler_free(b);
    sampler_free(c);
    sampler_free(NULL);

    /* Fixed numbers, so that a change of the generator does not go unseen. */
    float flat[1000] = {0};
    SampleOptions fixed = off;
    fixed.seed = 42;
    Sampler *s = sampler_new(&fixed, 1000);
    const int32_t want[] = {83, 378, 680, 924, 991};
    for (size_t i = 0; i < COUNTOF(want); i++)
        assert_int_equal(sampler_pick(s, flat), want[i]);
    sampler_free(s);
}

/* A filter that takes away nothing but the impossible changes no draw: the order in which tokens are drawn from is
 * that of the ids, whatever a step did to find them. */
static void idle_filters_change_no_draw(void **state) {
    (void)state;
    enum { N = 200 };
    float logits[N];
    uint64_t r = seed;
    random_logits(&r, logits, N, 3);
    logits[random_below(&r, N)] = -INFINITY;
    const SampleOptions idle[] = {{.temperature = 1, .top_p = 1, .top_k = N - 1},
                                  {.temperature = 1, .top_p = 0.9999999f, .top_k = N - 1},
                                  {.temperature = 1, .top_p = 1, .min_p = 1e-20f}};
    for (size_t i = 0; i < COUNTOF(idle); i++) {
        SampleOptions o = idle[i], all = off;
        o.seed = all.seed = seed;
        Sampler *a = sampler_new(&o, N), *b = sampler_new(&all, N);
        for (int k = 0; k < 200; k++)
            assert_int_equal(sampler_pick(a, logits), sampler_pick(b, logits));
        sampler_free(a);
        sampler_free(b);
    }
}

static void penalty(void **state) {
    (void)state;
    SampleOptions o = {.temperature = 0, .top_p = 1, .repeat_penalty = 2, .repeat_last = 2};
    const float logits[] = {4, 3, 2.5f, -1};
    Sampler *s = sampler_new(&o, 4);
    assert_int_equal(sampler_pick(s, logits), 0);
    sampler_accept(s, 0);
    assert_int_equal(sampler_pick(s, logits), 1); /* 4/2 */
    sampler_accept(s, 1);
    assert_int_equal(sampler_pick(s, logits), 2); /* 4/2, 3/2 */
    sampler_accept(s, 2);
    assert_int_equal(sampler_pick(s, logits), 0); /* forgotten; 3/2, 2.5/2 */
    sampler_accept(s, 2);
    assert_int_equal(sampler_pick(s, logits), 0);
    sampler_accept(s, 0);
    sampler_accept(s, 0); /* twice in the window: penalised once, and forgotten after both */
    assert_int_equal(sampler_pick(s, logits), 1);
    sampler_accept(s, 3);
    assert_int_equal(sampler_pick(s, logits), 1);
    sampler_accept(s, 3);
    assert_int_equal(sampler_pick(s, logits), 0);
    sampler_accept(s, -1); /* not of this vocabulary */
    sampler_accept(s, 4);
    assert_int_equal(sampler_pick(s, logits), 0);
    sampler_free(s);

    const float negative[] = {-2, -3};
    s = sampler_new(&o, 2);
    sampler_accept(s, 0);
    assert_int_equal(sampler_pick(s, negative), 1); /* -2*2 */
    sampler_free(s);

    o.repeat_last = -1; /* never forgotten */
    s = sampler_new(&o, 4);
    sampler_accept(s, 0);
    for (int i = 0; i < 1000; i++)
        sampler_accept(s, 3);
    assert_int_equal(sampler_pick(s, logits), 1);
    sampler_free(s);

    o.repeat_last = 0;
    s = sampler_new(&o, 4);
    sampler_accept(s, 0);
    assert_int_equal(sampler_pick(s, logits), 0);
    sampler_free(s);
}

/* The window against counting by hand, and the penalty before the filters. */
static void penalty_window(void **state) {
    (void)state;
    enum { N = 12, STEPS = 400 };
    for (int last = -1; last < 20; last += 3) {
        uint64_t r = seed + (uint64_t)(last + 1);
        SampleOptions o = {.temperature = 1, .top_k = 1, .top_p = 1, .repeat_penalty = 1.5f, .repeat_last = last};
        Sampler *s = sampler_new(&o, N);
        int32_t history[STEPS];
        for (int i = 0; i < STEPS; i++) {
            float logits[N];
            random_logits(&r, logits, N, 4);
            int best = 0;
            float best_logit = -INFINITY;
            for (int id = 0; id < N; id++) {
                bool recent = false;
                for (int k = last < 0 || last > i ? 0 : i - last; k < i; k++)
                    recent |= history[k] == id;
                float x = !recent ? logits[id] : logits[id] > 0 ? logits[id] / 1.5f : logits[id] * 1.5f;
                if (x > best_logit) {
                    best_logit = x;
                    best = id;
                }
            }
            assert_int_equal(sampler_pick(s, logits), best);
            history[i] = (int32_t)random_below(&r, N);
            sampler_accept(s, history[i]);
        }
        sampler_free(s);
    }
}

int main(int argc, char **argv) {
    seed = test_seed(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(filters_keep_what_they_should),
        cmocka_unit_test(filters_by_hand),
        cmocka_unit_test(large_vocabulary),
        cmocka_unit_test(greedy),
        cmocka_unit_test(extremes),
        cmocka_unit_test(same_seed_same_ids),
        cmocka_unit_test(idle_filters_change_no_draw),
        cmocka_unit_test(penalty),
        cmocka_unit_test(penalty_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
