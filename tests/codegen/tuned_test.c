/* tuned_test.c - choices of tuning as text: they read back, what is damaged is left out and counted, and plans are
 * given those of their architecture, GPU and kernels. */
#include "codegen/tuned.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs those before */
#include <cmocka.h>

#define KERNELS "k0123456789abcdef"
#define CUT     "tuned groups 1 stages 5 flight 3 partials 4 ns 1043210 1010050\n"

static const char text[] =
    "tuned 1\n"
    "choice sm_90a \"NVIDIA H100\" " KERNELS " \"linear 64 = Q8_0 64, 1 x 64, rows 8\" " CUT
    "choice sm_90a \"NVIDIA H100\" " KERNELS " \"experts 64 = Q8_0 64, 1 x 64, rows 8\" analytic "
    "groups 2 stages 16 flight 16 partials 4 ns 7 7\n"
    "choice sm_86 \"odd \\\"name\\\"\" " KERNELS " \"linear 64 = Q8_0 64, 1 x 64, rows 8\" " CUT;

/* Behind the format; a test of its own, as the damage below counts lines. */
static const char rates[] = "tuned 1\n"
                            "rates sm_90a \"NVIDIA H100\" cuda 13000 version 1 multiprocessors 132 read 3100000000000 "
                            "mma 500000000000000 wgmma 825000000000000 launch 3700\n"
                            "rates sm_89 \"NVIDIA L4\" cuda 12080 version 1 multiprocessors 58 read 300000000000 "
                            "mma 60000000000000 wgmma 0 launch 4000\n"
                            "rates sm_86 \"NVIDIA A2\" cuda 12080 version 1 multiprocessors 10 none\n"
                            "choice sm_86 \"NVIDIA A2\" " KERNELS " \"linear 64 = Q8_0 64, 1 x 64, rows 8\" " CUT;

static Tuned read_text(const char *s, size_t n) {
    Tuned t = {.arena = arena_new()};
    tuned_read(&t, s, n);
    return t;
}

static void reads_and_prints_alike(void **state) {
    (void)state;
    Tuned t = read_text(text, strlen(text));
    Buf out = {0};
    assert_int_equal(t.dropped, 0);
    assert_int_equal(t.entries.n, 3);
    tuned_print(&out, &t);
    assert_string_equal(out.s, text);
    assert_int_equal(t.entries.v[0].rule_ns, 1043210);
    assert_true(t.entries.v[0].tuned && !t.entries.v[1].tuned);
    assert_string_equal(t.entries.v[2].gpu, "odd \"name\"");
    buf_free(&out);
    arena_free(t.arena);
    t = read_text("", 0);
    assert_int_equal(t.dropped + t.entries.n, 0);
    arena_free(t.arena);
}

/* A piece replaced: lines that are left out, the number of the first, and what is left. */
static const struct {
    const char *from, *to;
    int dropped, first, left;
} wrong[] = {
    {"tuned 1", "tuned 2", 1, 1, 0},
    {"tuned 1\n", "", 1, 1, 0},
    {"tuned 1", "some other file", 1, 1, 0},
    {"choice sm_90a", "chance sm_90a", 1, 2, 2},
    {"choice sm_90a", "choice sm_90b", 1, 2, 2},
    {"choice sm_90a", "choice \"sm_90a\"", 1, 2, 2},
    {"\"NVIDIA H100\"", "\"NVIDIA H100", 1, 2, 2},
    {"\"NVIDIA H100\"", "\"NVIDIA\\0\"", 1, 2, 2},
    {"\"NVIDIA H100\" " KERNELS, "\"NVIDIA H100\"", 1, 2, 2},
    {"stages 5", "stages 1000000", 1, 2, 2},
    {"stages 5", "stages 0", 1, 2, 2},
    {"flight 3", "flight -3", 1, 2, 2},
    {"ns 1043210", "ns 99999999999999999999", 1, 2, 2},
    {"1010050\n", "1010050 more\n", 1, 2, 2},
    {"1010050\n", "1010050\n\x01\xff\n\nnonsense\n", 2, 3, 3},
    {"1010050\n", "", 1, 2, 1}, /* two lines in one */
    {"sm_86 \"odd \\\"name\\\"\"", "sm_90a \"NVIDIA H100\"", 0, 0, 2},
};

static void leaves_out_what_is_wrong(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        const char *at = strstr(text, wrong[i].from);
        assert_non_null(at);
        Buf b = {0};
        buf_bytes(&b, text, (size_t)(at - text));
        buf_printf(&b, "%s%s", wrong[i].to, at + strlen(wrong[i].from));
        Tuned t = read_text(b.s, b.n);
        if (t.dropped != wrong[i].dropped || t.first_dropped != wrong[i].first || t.entries.n != wrong[i].left)
            fail_msg("\"%s\" to \"%s\": dropped %d, the first %d, %d left", wrong[i].from, wrong[i].to, t.dropped,
                     t.first_dropped, t.entries.n);
        arena_free(t.arena);
        buf_free(&b);
    }
}

static void rates_read_and_print_alike(void **state) {
    (void)state;
    Tuned t = read_text(rates, strlen(rates));
    Buf out = {0};
    assert_int_equal(t.dropped, 0);
    assert_int_equal(t.rates.n, 3);
    assert_int_equal(t.entries.n, 1);
    tuned_print(&out, &t);
    assert_string_equal(out.s, rates);
    assert_string_equal(t.rates.v[1].rates.of, "measured on NVIDIA L4");
    assert_int_equal(t.rates.v[0].rates.launch_ns, 3700);
    assert_true(t.rates.v[1].measured && !t.rates.v[2].measured);
    buf_free(&out);
    arena_free(t.arena);
}

/* Of another GPU, driver or measuring they are no rates of this one; none of a number that no device has. */
static void rates_are_of_one_gpu(void **state) {
    (void)state;
    static const struct {
        const char *arch, *gpu;
        int64_t cuda, version, multiprocessors;
        bool found;
    } of[] = {{"sm_90a", "NVIDIA H100", 13000, 1, 132, true},  {"sm_90a", "NVIDIA H200", 13000, 1, 132, false},
              {"sm_90a", "NVIDIA H100", 12080, 1, 132, false}, {"sm_90a", "NVIDIA H100", 13000, 2, 132, false},
              {"sm_90a", "NVIDIA H100", 13000, 1, 114, false}, {"sm_86", "NVIDIA A2", 12080, 1, 10, true}};
    Tuned t = read_text(rates, strlen(rates));
    for (size_t i = 0; i < COUNTOF(of); i++) {
        const TunedRates key = {.arch = of[i].arch,
                                .gpu = of[i].gpu,
                                .cuda = of[i].cuda,
                                .version = of[i].version,
                                .rates.multiprocessors = of[i].multiprocessors};
        assert_int_equal(tuned_find_rates(&t, &key) != NULL, of[i].found);
    }
    assert_string_equal(tuned_rates_of_arch(&t, "sm_89", 1)->gpu, "NVIDIA L4");
    assert_null(tuned_rates_of_arch(&t, "sm_89", 2));
    assert_null(tuned_rates_of_arch(&t, "sm_86", 1));
    TunedRates again = t.rates.v[0];
    again.rates.bytes = 7;
    tuned_put_rates(&t, &again);
    assert_int_equal(t.rates.n, 3);
    assert_int_equal(tuned_find_rates(&t, &again)->rates.bytes, 7);
    for (int i = 0; i < MAX_TUNED_RATES; i++) {
        again.cuda = i;
        tuned_put_rates(&t, &again);
    }
    assert_int_equal(t.rates.n, MAX_TUNED_RATES);
    assert_int_equal(t.rates.v[0].cuda, 0);
    arena_free(t.arena);
}

static const struct {
    const char *from, *to;
} no_rates[] = {{"read 3100000000000", "read 0"},
                {"read 3100000000000", "read -1"},
                {"launch 3700", "launch 0"},
                {"launch 3700", "launch 99999999999"},
                {"mma 500000000000000", "mma"},
                {"mma 500000000000000", "mma 5e14"},
                {"mma 500000000000000 ", ""},
                {"launch 3700", "launch 3700 none"},
                {"multiprocessors 132", "none"},
                {"multiprocessors 132", "multiprocessors 5000"},
                {"sm_90a", "sm_90b"},
                {"cuda 13000", "cuda \"13000\""},
                {"rates sm_90a", "rate sm_90a"},
                {"wgmma 825000000000000", "wgmma 9999999999999999999999"}};

static void no_rates_are_left_out(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(no_rates); i++) {
        const char *at = strstr(rates, no_rates[i].from);
        Buf b = {0};
        assert_non_null(at);
        buf_bytes(&b, rates, (size_t)(at - rates));
        buf_printf(&b, "%s%s", no_rates[i].to, at + strlen(no_rates[i].from));
        Tuned t = read_text(b.s, b.n);
        if (t.dropped != 1 || t.first_dropped != 2 || t.rates.n != 2 || t.entries.n != 1)
            fail_msg("\"%s\" to \"%s\": dropped %d, the first %d, %d left", no_rates[i].from, no_rates[i].to, t.dropped,
                     t.first_dropped, t.rates.n);
        arena_free(t.arena);
        buf_free(&b);
    }
}

/* Cut anywhere, any byte turned: never worse than lines left out. */
static void survives(const char *whole) {
    const size_t n = strlen(whole);
    char *copy = malloc(n);
    for (size_t i = 0; i < n; i++) {
        Tuned t = read_text(whole, i);
        assert_true(t.entries.n <= 3 && t.rates.n <= 3);
        arena_free(t.arena);
        memcpy(copy, whole, n);
        copy[i] = (char)(copy[i] ^ (1 << i % 8));
        t = read_text(copy, n);
        Buf once = {0}, twice = {0};
        tuned_print(&once, &t);
        Tuned again = read_text(once.s, once.n);
        assert_int_equal(again.dropped, 0);
        tuned_print(&twice, &again);
        assert_string_equal(once.s, twice.s);
        buf_free(&once);
        buf_free(&twice);
        arena_free(t.arena);
        arena_free(again.arena);
    }
    free(copy);
}

static void survives_damage(void **state) {
    (void)state;
    survives(text);
    survives(rates);
}

static void has_bounds(void **state) {
    (void)state;
    Tuned t = {.arena = arena_new()};
    for (int i = 0; i < MAX_TUNED + 2; i++) {
        const TunedEntry e = {"sm_90a", "GPU", KERNELS, arena_printf(t.arena, "shape %d", i), true, {1, 2, 2, 4}, 2, 1};
        tuned_put(&t, &e);
    }
    assert_int_equal(t.entries.n, MAX_TUNED);
    assert_null(tuned_find(&t, "sm_90a", "GPU", KERNELS, "shape 1"));
    assert_non_null(tuned_find(&t, "sm_90a", "GPU", KERNELS, "shape 2"));
    arena_free(t.arena);
    t = (Tuned){.arena = arena_new()};
    char *large = calloc(1, MAX_TUNED_TEXT + 1);
    memset(large, '\n', MAX_TUNED_TEXT + 1);
    tuned_read(&t, large, MAX_TUNED_TEXT + 1);
    assert_int_equal(t.dropped, 1);
    free(large);
    arena_free(t.arena);
}

static void plans_get_their_own(void **state) {
    (void)state;
    Tuned t = {.arena = arena_new()};
    const char *kernels = tuned_kernels(t.arena);
    assert_string_equal(kernels, tuned_kernels(t.arena));
    const TunedEntry entries[] = {{"sm_90a", "A", kernels, "one", true, {1, 5, 3, 4}, 2, 1},
                                  {"sm_90a", "B", kernels, "one", true, {1, 6, 3, 4}, 2, 1},
                                  {"sm_90a", "A", kernels, "two", true, {1, 7, 3, 4}, 2, 1},
                                  {"sm_90a", "B", KERNELS, "two", true, {1, 8, 3, 4}, 2, 1},
                                  {"sm_86", "A", kernels, "three", true, {1, 9, 3, 4}, 2, 1}};
    for (size_t i = 0; i < COUNTOF(entries); i++)
        tuned_put(&t, &entries[i]);
    const PlanChoices a = tuned_choices(t.arena, &t, "sm_90a", "A"), any = tuned_choices(t.arena, &t, "sm_90a", NULL);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.v[0].cut.stages, 7);
    assert_int_equal(a.v[1].cut.stages, 5);
    assert_int_equal(any.n, 2);
    assert_int_equal(any.v[0].cut.stages, 7);
    assert_int_equal(any.v[1].cut.stages, 6);
    assert_int_equal(tuned_choices(t.arena, &t, "sm_80", NULL).n, 0);
    arena_free(t.arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_prints_alike),
        cmocka_unit_test(leaves_out_what_is_wrong),
        cmocka_unit_test(rates_read_and_print_alike),
        cmocka_unit_test(rates_are_of_one_gpu),
        cmocka_unit_test(no_rates_are_left_out),
        cmocka_unit_test(survives_damage),
        cmocka_unit_test(has_bounds),
        cmocka_unit_test(plans_get_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
