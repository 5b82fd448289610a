/* test_sparse_cost.c - where choose-attention finds sparse worth it: the formula by hand, and what moves the crossover.
 */
#include "passes/passes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const FlashPrefill usual = {.alpha = 0.12, .block = 128, .sink = 2, .local = 4, .tail = 2};

/* Full layers of a large model: 32 heads of 512. */
static SparseShape large(void) {
    return (SparseShape){.heads = 32, .kv_heads = 4, .k_dim = 512, .v_dim = 512, .rows = 512, .method = usual};
}

static SparseRates of_an_h100(void) {
    const DeviceRates r = rates_default();
    return sparse_rates(&r);
}

static void near_to(double got, double want) {
    if (!(fabs(got / want - 1) < 1e-9))
        fail_msg("%.12g, not %.12g", got, want);
}

/* 512 rows in front of 32768 keys: 512 * 32256 + 512 * 256 pairs, a quarter of them kept. */
static void costs_by_hand(void **unused) {
    (void)unused;
    const SparseShape s = large();
    const SparseRates r = {.dense = 2e14, .sparse = 1e14, .score = 5e13, .bytes = 2e12, .fixed = 7e-6};
    const SparseCost c = sparse_cost(&s, &r, 32768);
    const double pairs = 512. * 32256 + 512 * 256, flops = 2 * 32 * 1024 * pairs;
    near_to(c.kept, 0.25);
    near_to(c.dense, flops / 2e14);
    near_to(c.sparse, 7e-6 + 32768. * 4 * 512 * 2 / 2e12 + 2 * 32 * 512 * pairs / 128 / 5e13 + flops * 0.25 / 1e14);
}

/* Of few keys, sink and local keep more than is seen to be kept: blocks 28 .. 31 of 32 keep 6 of 29 + 30 + 31 + 32;
 * with sink at 20 all but 5 .. 8 of them. */
static void forced_blocks_count(void **unused) {
    (void)unused;
    SparseShape s = large();
    const SparseRates r = of_an_h100();
    s.method.sink = 20;
    near_to(sparse_cost(&s, &r, 4096).kept, 4 * 24 / (29. + 30 + 31 + 32));
    s.method.sink = 40;
    near_to(sparse_cost(&s, &r, 4096).kept, 1);
}

/* From the first block at which it gains, and at no earlier one. */
static void begins_where_it_gains(void **unused) {
    (void)unused;
    const SparseShape s = large();
    const SparseRates r = of_an_h100();
    const int64_t from = sparse_from(&s, &r, 1 << 20);
    assert_true(from >= 4096 && from < 16384 && from % 128 == 0);
    const SparseCost at = sparse_cost(&s, &r, from + 128), before = sparse_cost(&s, &r, from);
    assert_true(at.sparse < 0.9 * at.dense);
    assert_true(from == 4096 || before.sparse >= 0.9 * before.dense);
    assert_int_equal(sparse_from(&s, &r, from), -1);
    assert_int_equal(sparse_from(&s, &r, from + 1), from);
}

static void what_costs_more_begins_later(void **unused) {
    (void)unused;
    SparseShape s = large();
    SparseRates r = of_an_h100();
    const int64_t from = sparse_from(&s, &r, 1 << 20);
    r.score /= 30;
    const int64_t slow_scores = sparse_from(&s, &r, 1 << 20);
    r.sparse /= 2;
    const int64_t slow_both = sparse_from(&s, &r, 1 << 20);
    assert_true(from < slow_scores && slow_scores < slow_both);
    r = of_an_h100();
    s.method.alpha = 0.05; /* which keeps more */
    assert_true(sparse_from(&s, &r, 1 << 20) > from);
    s.method.alpha = 0.12;
    r.sparse = r.dense * 100;
    assert_int_equal(sparse_from(&s, &r, 1 << 20), 4096); /* however fast: not for short prompts */
    s.method.alpha = 0;
    r = of_an_h100();
    assert_int_equal(sparse_from(&s, &r, 1 << 20), -1);
    s = large();
    s.rows = 256;
    assert_int_equal(sparse_from(&s, &r, 1 << 20), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_by_hand),
        cmocka_unit_test(forced_blocks_count),
        cmocka_unit_test(begins_where_it_gains),
        cmocka_unit_test(what_costs_more_begins_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
