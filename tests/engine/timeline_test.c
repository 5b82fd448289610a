/* timeline_test.c - whose the time of overlapping launches is, on times made by hand: runtime/engine/timeline.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/engine/timeline.h"
#include <math.h>

static void near(double got, double ns) {
    if (fabs(got - 1e-9 * ns) > 1e-14)
        fail_msg("%g ns instead of %g", 1e9 * got, ns);
}

/* As kernels write them: first moments by their complement. */
static void records(void **state) {
    (void)state;
    LaunchSpan s;
    const uint64_t all[4] = {~(uint64_t)100, ~(uint64_t)140, 150, 190};
    assert_true(timeline_span(all, true, &s));
    assert_int_equal(s.begin, 100);
    assert_int_equal(s.go, 150);
    assert_int_equal(s.end, 190);
    assert_true(timeline_span(all, false, &s)); /* later blocks begin when others have ended */
    assert_int_equal(s.go, 140);
    const uint64_t no_wait[4] = {~(uint64_t)100, 0, 0, 190};
    assert_true(timeline_span(no_wait, true, &s));
    assert_int_equal(s.go, 100);
}

static void records_that_are_none(void **state) {
    (void)state;
    LaunchSpan s;
    static const uint64_t bad[][4] = {
        {0, 0, 0, 0},
        {0, ~(uint64_t)140, 150, 190},              /* it never began */
        {~(uint64_t)100, ~(uint64_t)140, 150, 0},   /* it never ended */
        {~(uint64_t)200, ~(uint64_t)240, 250, 190}, /* it ended first */
        {~(uint64_t)100, ~(uint64_t)140, 195, 190}, /* it waited when it had ended */
        {~(uint64_t)145, ~(uint64_t)140, 141, 190}, /* it waited before it began */
    };
    for (size_t i = 0; i < COUNTOF(bad); i++)
        assert_false(timeline_span(bad[i], true, &s));
}

/* Begins ahead of the end before, goes behind it. */
static void overlap(void **state) {
    (void)state;
    static const LaunchSpan spans[] = {{1000, 1010, 1100}, {1020, 1105, 1200}, {1110, 1203, 1300}};
    LaunchTime t[3];
    near(timeline_call(spans, 3, t), 300);
    near(t[0].own, 100);
    near(t[0].gap, 10);
    near(t[1].own, 100);
    near(t[1].gap, 5);
    near(t[2].own, 100);
    near(t[2].gap, 3);
}

/* The second ends within the first, the third ends behind the fourth: who is outlasted has no time of its own. */
static void outlasted(void **state) {
    (void)state;
    static const LaunchSpan spans[] = {{0, 0, 500}, {100, 400, 450}, {300, 510, 900}, {520, 530, 800}, {850, 910, 950}};
    LaunchTime t[5];
    near(timeline_call(spans, 5, t), 950);
    static const double own[] = {500, 0, 400, 0, 50}, gap[] = {0, 0, 10, 0, 10};
    double sum = 0;
    for (int i = 0; i < 5; i++) {
        near(t[i].own, own[i]);
        near(t[i].gap, gap[i]);
        sum += t[i].own;
    }
    near(sum, 950);
}

/* Nothing ran between two launches: that is time of the second. */
static void pause_between(void **state) {
    (void)state;
    static const LaunchSpan spans[] = {{10, 12, 20}, {50, 50, 70}};
    LaunchTime t[2];
    near(timeline_call(spans, 2, t), 60);
    near(t[1].own, 50);
    near(t[1].gap, 30);
    near(timeline_call(spans, 0, t), 0);
}

/* Five calls of two launches, of which two were disturbed. */
static void mean(void **state) {
    (void)state;
    static const LaunchSpan spans[5][2] = {
        {{1000, 1000, 1100}, {1050, 1110, 1204}}, /* 204 */
        {{2000, 2000, 2100}, {2050, 2104, 2900}}, /* 900 */
        {{3000, 3000, 3108}, {3050, 3112, 3208}}, /* 208 */
        {{4000, 4000, 4120}, {4050, 4122, 4220}}, /* 220: more than a twentieth above */
        {{5000, 5000, 5120}, {5050, 5122, 5200}}, /* 200 */
    };
    LaunchTime t[2];
    const Timeline all = timeline_mean(spans[0], 2, 5, t);
    assert_int_equal(all.counted, 3);
    near(all.span, 204);
    near(t[0].own, (100 + 108 + 120) / 3.0);
    near(t[1].own, (104 + 100 + 80) / 3.0);
    near(t[1].gap, (10 + 4 + 2) / 3.0);
    assert_int_equal(all.typical, 2);
    assert_int_equal(all.tick, 2);
    const Timeline one = timeline_mean(spans[1], 2, 1, t);
    near(one.span, 900);
    near(t[1].own, 800);
    assert_true(one.counted == 1 && one.typical == 0);
}

/* A clock of 1 us: single times are wrong by up to that, their mean is not. */
static void coarse_clock(void **state) {
    (void)state;
    enum { CALLS = 40 };
    LaunchSpan spans[CALLS][2];
    for (int c = 0; c < CALLS; c++) {
        const uint64_t at = 1000000 + 100025 * (uint64_t)c; /* true times: a launch takes 42,300 ns, the next 21,400 */
        const uint64_t begin = at / 1000 * 1000, end = (at + 42300) / 1000 * 1000, last = (at + 63700) / 1000 * 1000;
        spans[c][0] = (LaunchSpan){begin, begin, end};
        spans[c][1] = (LaunchSpan){begin, (at + 42700) / 1000 * 1000, last};
    }
    LaunchTime t[2];
    const Timeline all = timeline_mean(spans[0], 2, CALLS, t);
    assert_int_equal(all.tick, 1000);
    assert_int_equal(all.counted, CALLS);
    near(all.span, 63700);
    near(t[0].own, 42300);
    near(t[1].own, 21400);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records),      cmocka_unit_test(records_that_are_none), cmocka_unit_test(overlap),
        cmocka_unit_test(outlasted),    cmocka_unit_test(pause_between),         cmocka_unit_test(mean),
        cmocka_unit_test(coarse_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
