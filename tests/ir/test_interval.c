/* test_interval.c - interval.c against brute force: its proofs are never wrong on random expressions,
 * and the bounds of the usual masks are exact. Seeds are new in every run and printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "ir/ir.h"

static uint64_t state;

static int below(int n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int)((state >> 16) % (uint64_t)n);
}

/* ==== The usual masks ==== */

/* Reads `visible` through the text form. */
static const Scalar *read(Arena *arena, Diag *d, const char *visible) {
    const char *text = arena_printf(arena, "module m arch \"a\"\nvariant v {\n  visible = %s\n}\n", visible);
    Module *m = ir_parse(arena, d, "mask", text, strlen(text));
    if (!m)
        diag_print(d, stderr, false);
    assert_non_null(m);
    return m->variants.v[0].visible;
}

static void usual_masks_are_exact(void **unused) {
    (void)unused;
    static const struct {
        const char *visible;
        int64_t lookback;
        bool causal;
    } masks[] = {
        {"k <= q", -1, true},
        {"q >= k", -1, true},
        {"k <= q and q - k < 512", 511, true},
        {"k <= q and k > q - 512", 511, true},
        {"k <= q and not (q - k >= 512)", 511, true},
        {"q - k < 4", 3, false},
        {"k <= q + 3", -1, false},
        {"k + 1 <= q and q - k < 4", 3, true},
        {"k < q and q < k + 7", 6, true},
        {"k <= q and (q - k) * 2 < 9", 4, true},
        {"k <= q and (q - k) / 2 < 4", 7, true},
        {"k <= q and q - k <= 3.5", 3, true},
        {"k <= q or k < 4", -1, false},
        {"k <= q and (q - k < 100 or k < 4)", -1, true},
        {"abs(q - k) < 5", 4, false},
        {"abs(k - q) < 5 and k <= q", 4, true},
        {"max(q - k, 0) < 5", 4, false},
        {"min(q - k, 100) < 5", 4, false},
        {"min(q - k, 3) < 5", -1, false},
        {"k <= q and select(h < 4, q - k < 10, q - k < 20)", 19, true},
        {"select(q >= k, q - k < 8, 0)", 7, true},
        {"q == k", 0, true},
        {"0", 0, true},
        {"1", -1, false},
        {"k <= q and floor(q / 4) == floor(k / 4)", 4, true}, /* 3 is true; one more is proved: */
        {"k <= q and floor((q - k) / 4) == 0", 4, true},      /* floor(x) is taken as [x - 1, x] */
        {"k <= q and exp(k - q) > 2", 0, true},
    };
    for (size_t i = 0; i < COUNTOF(masks); i++) {
        Arena *arena = arena_new();
        Diag *d = diag_new();
        const Scalar *e = read(arena, d, masks[i].visible);
        if (scalar_lookback(e) != masks[i].lookback || scalar_causal(e) != masks[i].causal)
            fail_msg("%s: look-back %lld (want %lld), causal %d (want %d)", masks[i].visible,
                     (long long)scalar_lookback(e), (long long)masks[i].lookback, scalar_causal(e), masks[i].causal);
        diag_free(d);
        arena_free(arena);
    }
}

static void tiles_of_a_window(void **unused) {
    (void)unused;
    Arena *arena = arena_new();
    Diag *d = diag_new();
    const Scalar *e = read(arena, d, "k <= q and q - k < 64");
    static const struct {
        int64_t q0, q1, k0, k1;
        Visibility want;
    } tiles[] = {
        {64, 79, 64, 79, VIS_SOME},  {64, 79, 80, 95, VIS_NONE}, {64, 79, 16, 64, VIS_ALL},
        {64, 79, 15, 64, VIS_SOME},  {64, 79, 0, 0, VIS_NONE},   {63, 79, 0, 0, VIS_SOME},
        {128, 143, 0, 64, VIS_NONE}, {5, 5, 0, 5, VIS_ALL},      {5, 5, 6, 6, VIS_NONE},
    };
    for (size_t i = 0; i < COUNTOF(tiles); i++)
        assert_int_equal(scalar_tile(e, tiles[i].q0, tiles[i].q1, tiles[i].k0, tiles[i].k1), tiles[i].want);
    diag_free(d);
    arena_free(arena);
}

/* ==== Random expressions ==== */

static const Scalar *number(Arena *a) {
    static const double odd[] = {0.5, -0.25, 0.1, 3.3, 1e9, -7, 1e-3, 0};
    double v = below(3) ? below(40) - 8 : odd[below((int)COUNTOF(odd))];
    return scalar_const(a, v, NO_LOC);
}

static const Scalar *random_expr(Arena *a, int depth) {
    if (depth == 0 || below(6) == 0) {
        static const ScalarOp leaf[] = {SC_Q, SC_K, SC_Q, SC_K, SC_H};
        int pick = below((int)COUNTOF(leaf) + 2);
        return pick < (int)COUNTOF(leaf) ? scalar_new(a, leaf[pick], NULL, NULL, NULL, NO_LOC) : number(a);
    }
    static const struct {
        ScalarOp op;
        int arity;
    } ops[] = {{SC_ADD, 2},   {SC_SUB, 2},    {SC_SUB, 2}, {SC_MUL, 2}, {SC_DIV, 2},  {SC_MOD, 2},  {SC_NEG, 1},
               {SC_FLOOR, 1}, {SC_ABS, 1},    {SC_EXP, 1}, {SC_LOG, 1}, {SC_SQRT, 1}, {SC_TANH, 1}, {SC_MIN, 2},
               {SC_MAX, 2},   {SC_SELECT, 3}, {SC_LT, 2},  {SC_LE, 2},  {SC_EQ, 2},   {SC_NE, 2},   {SC_GT, 2},
               {SC_GE, 2},    {SC_AND, 2},    {SC_OR, 2},  {SC_NOT, 1}};
    int i = below((int)COUNTOF(ops));
    const Scalar *arg[3] = {0};
    for (int j = 0; j < ops[i].arity; j++)
        arg[j] = random_expr(a, depth - 1);
    return scalar_new(a, ops[i].op, arg[0], arg[1], arg[2], NO_LOC);
}

/* Mostly masks: comparisons of near-affine things joined by and, or. */
static const Scalar *random_mask(Arena *a) {
    static const ScalarOp compare[] = {SC_LT, SC_LE, SC_GT, SC_GE, SC_EQ, SC_NE};
    static const ScalarOp join[] = {SC_AND, SC_OR};
    const Scalar *m = NULL;
    for (int i = 1 + below(3); i > 0; i--) {
        const Scalar *c =
            scalar_new(a, compare[below(6)], random_expr(a, below(4)), random_expr(a, below(4)), NULL, NO_LOC);
        m = m ? scalar_new(a, join[below(2)], m, c, NULL, NO_LOC) : c;
    }
    return m;
}

static bool visible(const Scalar *e, int64_t q, int64_t k) {
    ScalarEnv env = {.q = (double)q, .k = (double)k, .h = below(8)};
    return scalar_eval(e, &env) != 0;
}

static void wrong(const Scalar *e, const char *what, int64_t q, int64_t k) {
    Buf b = {0};
    scalar_print(&b, e, NULL, NULL);
    print_error("%s: %s, but not at q = %lld, k = %lld\n", b.s, what, (long long)q, (long long)k);
    buf_free(&b);
    fail();
}

static int check_tile(const Scalar *e) {
    int64_t base = below(4) ? 0 : below(100000), q0 = base + below(60), q1 = q0 + below(12);
    int64_t k0 = base + below(60), k1 = k0 + below(12);
    Visibility v = scalar_tile(e, q0, q1, k0, k1);
    for (int64_t q = q0; v != VIS_SOME && q <= q1; q++)
        for (int64_t k = k0; k <= k1; k++)
            if (visible(e, q, k) != (v == VIS_ALL))
                wrong(e, v == VIS_ALL ? "all proved" : "none proved", q, k);
    return v != VIS_SOME;
}

static int check_bounds(const Scalar *e) {
    int64_t back = scalar_lookback(e);
    bool causal = scalar_causal(e);
    for (int i = 0; i < 400; i++) {
        int64_t q = i < 200 ? below(60) : below(1 << 20), k = below(2) ? below((int)q + 1) : q + below(40) - 20;
        if (k < 0 || !visible(e, q, k))
            continue;
        if (k > q && causal)
            wrong(e, "causal", q, k);
        if (k <= q && back >= 0 && q - k > back)
            wrong(e, "look-back bounded", q, k);
    }
    return back >= 0;
}

static void proofs_are_never_wrong(void **unused) {
    (void)unused;
    uint64_t seed = state;
    int proved = 0, bounded = 0;
    for (int i = 0; i < 20000; i++) {
        Arena *arena = arena_new();
        const Scalar *e = random_mask(arena);
        for (int j = 0; j < 6; j++)
            proved += check_tile(e);
        bounded += check_bounds(e);
        arena_free(arena);
    }
    print_message("seed %llu: %d tiles proved, %d look-backs bounded\n", (unsigned long long)seed, proved, bounded);
    assert_true(proved > 10000 && bounded > 1000); /* else this tests nothing */
}

int main(int argc, char **argv) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)t.tv_nsec * 1000003 + (uint64_t)t.tv_sec;
    state |= 1;
    print_message("seed %llu\n", (unsigned long long)state);
    const struct CMUnitTest tests[] = {cmocka_unit_test(usual_masks_are_exact), cmocka_unit_test(tiles_of_a_window),
                                       cmocka_unit_test(proofs_are_never_wrong)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
