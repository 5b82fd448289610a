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

/* Cut anywhere, any byte turned: never worse than lines left out. */
static void survives_damage(void **state) {
    (void)state;
    const size_t n = strlen(text);
    char *copy = malloc(n);
    for (size_t i = 0; i < n; i++) {
        Tuned t = read_text(text, i);
        assert_true(t.entries.n <= 3);
        arena_free(t.arena);
        memcpy(copy, text, n);
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
        cmocka_unit_test(reads_and_prints_alike), cmocka_unit_test(leaves_out_what_is_wrong),
        cmocka_unit_test(survives_damage),        cmocka_unit_test(has_bounds),
        cmocka_unit_test(plans_get_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
