/* tune_judge_test.c - which cut is taken from times, and the file in which choices are kept. */
#include "runtime/engine/tune.h"
#include "runtime/engine/tuned_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka needs those before */
#include <cmocka.h>

/* ==== The decision ==== */

static const struct {
    const char *what;
    double share;
    double seconds[3][TUNE_ROUNDS]; /* the first below 0: cannot be had */
    int chosen;
} cases[] = {
    {"the rule is fastest", 0.5, {{1, 1, 1, 1, 1}, {1.1, 1.1, 1.1, 1.1, 1.1}, {1.2, 1.2, 1.2, 1.2, 1.2}}, 0},
    {"the fastest is taken", 0.5, {{1, 1, 1, 1, 1}, {0.9, 0.9, 0.9, 0.9, 0.9}, {0.8, 0.8, 0.8, 0.8, 0.8}}, 2},
    {"less than 2 % of its part", 0.5, {{1, 1, 1, 1, 1}, {.991, .991, .991, .991, .991}, {2, 2, 2, 2, 2}}, 0},
    {"more than 2 % of its part", 0.4, {{1, 1, 1, 1, 1}, {.991, .991, .991, .991, .991}, {2, 2, 2, 2, 2}}, 1},
    {"slower in one round", 0.5, {{1, 1, 1, 1, 1}, {0.9, 0.9, 1.01, 0.9, 0.9}, {2, 2, 2, 2, 2}}, 0},
    {"as fast in one round", 0.5, {{1, 1, 0.9, 1, 1}, {0.9, 0.9, 0.9, 0.9, 0.9}, {2, 2, 2, 2, 2}}, 0},
    {"a clock that rises", 0.5, {{5, 4, 3, 2, 1}, {4.5, 3.6, 2.7, 1.8, 0.9}, {9, 9, 9, 9, 9}}, 1},
    {"one that cannot be had", 0.5, {{1, 1, 1, 1, 1}, {-1}, {0.9, 0.9, 0.9, 0.9, 0.9}}, 2},
    {"a device without a clock", 0.5, {{0}, {0}, {0}}, 0},
};

static void takes_what_is_faster(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        TuneRow row = {.share = cases[i].share, .n = 3};
        double seconds[3][TUNE_ROUNDS];
        memcpy(seconds, cases[i].seconds, sizeof seconds);
        for (int k = 0; k < 3; k++)
            row.times[k].seconds = seconds[k][0] < 0 ? -1 : 0;
        tune_judge(seconds, &row);
        if (row.chosen != cases[i].chosen)
            fail_msg("%s: %d is taken, not %d", cases[i].what, row.chosen, cases[i].chosen);
    }
    TuneRow row = {.share = 1, .n = 2};
    double seconds[2][TUNE_ROUNDS] = {{5, 1, 4, 2, 3}, {9, 7, 6, 8, 5}};
    tune_judge(seconds, &row);
    assert_true(row.times[0].seconds == 3 && row.times[1].seconds == 7);
}

/* ==== The file ==== */

#define KERNELS "k0123456789abcdef"

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Messages with this part, or none where it is "". */
static void said(Diag *diag, const char *part) {
    char *text = diag_text(diag);
    assert_int_equal(diag_errors(diag), 0);
    if (*part)
        assert_non_null(strstr(text, part));
    else
        assert_string_equal(text, "");
    free(text);
    diag_free(diag);
}

static Tuned read_file(const char *path, const char *part) {
    Tuned t = {.arena = arena_new()};
    Diag *diag = diag_new();
    tuned_file_read(&t, path, diag);
    said(diag, part);
    return t;
}

static void add(const char *path, const char *shape, int stages, const char *part) {
    Tuned t = {.arena = arena_new()};
    Diag *diag = diag_new();
    const TunedEntry e = {"sm_90a", "GPU", KERNELS, shape, true, {1, stages, 2, 4}, 2, 1};
    tuned_put(&t, &e);
    tuned_file_add(&t, path, diag);
    said(diag, part);
    arena_free(t.arena);
}

static int stages_of(const Tuned *t, const char *shape) {
    const TunedEntry *e = tuned_find(t, "sm_90a", "GPU", KERNELS, shape);
    return e ? e->cut.stages : 0;
}

/* What a file without messages holds, 0: not there. */
static void file_holds(const char *path, int n, int one, int two) {
    Tuned t = read_file(path, "");
    assert_int_equal(t.entries.n, n);
    assert_int_equal(stages_of(&t, "one"), one);
    assert_int_equal(stages_of(&t, "two"), two);
    arena_free(t.arena);
}

static void file_keeps_what_is_added(void **state) {
    (void)state;
    const char *path = SCRATCH "/tuned-here.txt";
    unlink(path);
    file_holds(path, 0, 0, 0);
    static const char *const shapes[] = {"one", "two", "one"};
    for (int i = 0; i < 3; i++)
        add(path, shapes[i], 5 + i, "");
    file_holds(path, 2, 7, 6);
    unlink(path);
}

static void damage_is_said_and_mended(void **state) {
    (void)state;
    const char *path = SCRATCH "/tuned-damaged.txt";
    write_file(path, "tuned 1\nnonsense\nchoice sm_90a \"GPU\" " KERNELS
                     " \"two\" tuned groups 1 stages 9 flight 2 partials 4 ns 2 1\nchoice sm_90a \"GPU\n");
    Tuned t = read_file(path, "tuned-damaged.txt: 2 lines, the first of them 2, are no choices of tuning");
    assert_int_equal(stages_of(&t, "two"), 9);
    arena_free(t.arena);
    add(path, "one", 5, "");
    file_holds(path, 2, 5, 9);
    unlink(path);
}

/* Rates stand beside choices, neither takes the other's place, and the folder is made. */
static void rates_are_kept_too(void **state) {
    (void)state;
    const char *path = SCRATCH "/tuned-new/folder/tuned.txt";
    Tuned t = {.arena = arena_new()};
    Diag *diag = diag_new();
    TunedRates r = {.arch = "sm_90a", .gpu = "GPU", .cuda = 13000, .version = 1, .measured = true};
    r.rates = rates_default_of(4);
    tuned_put_rates(&t, &r);
    unlink(path);
    tuned_file_add(&t, path, diag);
    said(diag, "");
    add(path, "one", 5, "");
    file_holds(path, 1, 5, 0);
    Tuned back = read_file(path, "");
    const TunedRates *got = tuned_find_rates(&back, &r);
    assert_non_null(got);
    assert_int_equal(got->rates.bytes, r.rates.bytes);
    assert_int_equal(got->rates.mma, r.rates.mma);
    assert_int_equal(got->rates.wgmma, r.rates.wgmma);
    assert_int_equal(got->rates.launch_ns, r.rates.launch_ns);
    arena_free(back.arena);
    arena_free(t.arena);
    unlink(path);
}

/* A folder in its place, a file in the place of its folder: a warning, and nothing is left behind. */
static void what_cannot_be_kept_is_a_warning(void **state) {
    (void)state;
    const char *path = SCRATCH "/tuned-folder.txt";
    mkdir(path, 0777);
    Tuned t = read_file(path, "warning: choices of tuning cannot be read");
    arena_free(t.arena);
    add(path, "one", 5, "warning: what was tuned or measured cannot be kept in");
    assert_int_equal(rmdir(path), 0);
    add("/dev/null/tuned.txt", "one", 5, "cannot be kept in /dev/null/tuned.txt: Not a directory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_is_faster),
        cmocka_unit_test(file_keeps_what_is_added),
        cmocka_unit_test(damage_is_said_and_mended),
        cmocka_unit_test(rates_are_kept_too),
        cmocka_unit_test(what_cannot_be_kept_is_a_warning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
