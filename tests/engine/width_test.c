/* width_test.c - how many guesses are asked for, with drafters and costs that are made up. */
#include "ir/eval.h"
#include "runtime/engine/width.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* A drafter whose guess i is right with chance[i] when those before it were, and rounds of k guesses that take
 * base + k * each (and 20 % up and down). */
typedef struct World {
    double chance, base, each;
    uint64_t state;
} World;

static double uniform(World *w) {
    w->state = w->state * 6364136223846793005u + 1442695040888963407u;
    return (double)(w->state >> 11) / (double)((uint64_t)1 << 53);
}

typedef struct Total {
    double tokens, seconds;
    int64_t rounds_of[MAX_DRAFTS + 1];
} Total;

static Total play(World *w, Width *width, int rounds) {
    Total t = {0};
    for (int i = 0; i < rounds; i++) {
        const int k = width_choose(width);
        int right = 0;
        assert_in_range(k, 0, width->most);
        while (right < k && uniform(w) < w->chance)
            right++;
        const double seconds = (w->base + k * w->each) * (0.8 + 0.4 * uniform(w));
        width_measured(width, k, right, seconds);
        t.tokens += 1 + right;
        t.seconds += seconds;
        t.rounds_of[k]++;
    }
    return t;
}

/* The best tokens a second of any fixed width. */
static double best_rate(const World *w, int most) {
    double best = 0;
    for (int k = 0; k <= most; k++) {
        double tokens = 1, all = 1;
        for (int i = 0; i < k; i++)
            tokens += all *= w->chance;
        const double rate = tokens / (w->base + k * w->each);
        best = rate > best ? rate : best;
    }
    return best;
}

static void it_finds_what_gains_most(void **unused) {
    (void)unused;
    static const World worlds[] = {
        {0.95, 1, 0.02, 1},                                     /* nearly all right, guesses cheap: wide */
        {0.7, 1, 0.05, 2},  {0.5, 1, 0.2, 3}, {0.8, 1, 0.9, 4}, /* a guess costs nearly a step */
        {0.02, 1, 0.1, 5},                                      /* hardly ever right */
    };
    for (size_t i = 0; i < COUNTOF(worlds); i++)
        for (int most = 1; most <= MAX_DRAFTS; most += 7) {
            World w = worlds[i];
            Width width = width_start(most);
            play(&w, &width, 100);
            const Total t = play(&w, &width, 2000);
            const double share = t.tokens / t.seconds / best_rate(&w, most);
            if (share < 0.9)
                fail_msg("world %zu, at most %d: %.1f %% of the best", i, most, 100 * share);
        }
}

static void what_does_not_pay_is_left_off(void **unused) {
    (void)unused;
    World w = {0.0, 1, 0.3, 7};
    Width width = width_start(8);
    play(&w, &width, 60);
    assert_false(width_pays(&width));
    const Total t = play(&w, &width, 1000);
    assert_true(t.rounds_of[0] > 940);
    assert_true(t.seconds < 1000 * 1.08); /* plain steps take 1 */
    w.chance = 0.9;                       /* and comes back when it would pay */
    play(&w, &width, 600);
    assert_true(width_pays(&width));
    assert_true(play(&w, &width, 500).tokens > 500 * 3);
}

static void expected_tokens(void **unused) {
    (void)unused;
    Width w = width_start(4);
    for (int i = 0; i < 200; i++)
        width_measured(&w, 4, 4, 1);
    assert_true(width_tokens(&w, 4) > 4.99 && width_tokens(&w, 4) <= 5);
    assert_true(width_tokens(&w, 0) == 1);
    for (int i = 0; i < 200; i++)
        width_measured(&w, 4, 1, 1); /* the first right, the second never */
    assert_true(width_tokens(&w, 4) > 1.99 && width_tokens(&w, 4) < 2.01);
    assert_int_equal(width_start(99).most, MAX_DRAFTS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_finds_what_gains_most),
        cmocka_unit_test(what_does_not_pay_is_left_off),
        cmocka_unit_test(expected_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
