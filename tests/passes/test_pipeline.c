/* test_pipeline.c - the driver: its options, the text diff, refusing what it cannot do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "passes/passes_int.h"

static const char text[] = "module a arch \"a\"\nweight @e : f32[9, 8]\n"
                           "graph step(tokens: i32[T], rows: i32[R]) {\n  %h = embed tokens, @e : f32[T, 8]\n"
                           "  %d = exp %h : f32[T, 8]\n  %x = mul %h, 1 : f32[T, 8]\n"
                           "  %r = rows %x, rows : f32[R, 8]\n  emit y = %r\n}\n";

typedef struct Fixture {
    Arena *arena;
    Diag *diag;
    Module *m;
    PipelineOptions o;
    char *printed;
    size_t printed_len;
} Fixture;

static void setup(Fixture *f) {
    *f = (Fixture){.arena = arena_new(), .diag = diag_new(), .o = {.pass = pass_options_default()}};
    f->m = ir_parse(f->arena, f->diag, "in.ir", text, strlen(text));
    assert_non_null(f->m);
    f->o.out = open_memstream(&f->printed, &f->printed_len);
}

static void teardown(Fixture *f) {
    fclose(f->o.out);
    free(f->printed);
    diag_free(f->diag);
    arena_free(f->arena);
}

static void expect_error(Fixture *f, const char *want) {
    assert_false(pipeline_run(f->m, &f->o));
    char *got = diag_text(f->diag);
    assert_string_equal(got, want);
    free(got);
    teardown(f);
}

static void unknown_passes_are_named(void **state) {
    (void)state;
    Fixture f;
    setup(&f);
    f.o.print_after = "simplfy";
    expect_error(&f, "error: print-after: no pass \"simplfy\"; did you mean \"simplify\"?\n");
    setup(&f);
    f.o.stop_after = "zzzzzzzzzzz";
    int n;
    const PassInfo *list = pass_list(&n);
    char *all = arena_printf(f.arena, "error: stop-after: no pass \"zzzzzzzzzzz\"; there are %s", list[0].name);
    for (int i = 1; i < n; i++)
        all = arena_printf(f.arena, "%s, %s", all, list[i].name);
    expect_error(&f, arena_printf(f.arena, "%s\n", all));
    setup(&f);
    f.o.run_pass = "plan_kv";
    expect_error(&f, "error: run-pass: no pass \"plan_kv\"; did you mean \"plan-kv\"?\n");
    setup(&f);
    f.o.pass.chunk = 0;
    expect_error(&f, "error: context 4096, chunk 0, rows 64, draft 16: must be positive and below 2^31\n");
}

/* To be printed after a pass that will not run is a mistake, not silence. */
static void printing_after_what_does_not_run(void **state) {
    (void)state;
    int n;
    const PassInfo *list = pass_list(&n);
    Arena *a = arena_new();
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            PipelineOptions o = {.print_after = list[i].name, .stop_after = list[k].name};
            assert_int_equal(pipeline_problem(a, &o) == NULL, i <= k);
            o = (PipelineOptions){.print_after = list[i].name, .run_pass = list[k].name};
            assert_int_equal(pipeline_problem(a, &o) == NULL, i == k);
        }
    arena_free(a);
    Fixture f;
    setup(&f);
    f.o.print_after = "plan-memory";
    f.o.stop_after = "simplify";
    expect_error(&f, "error: print-after: plan-memory does not run: the last pass is simplify\n");
    setup(&f);
    f.o.print_after = "simplify";
    f.o.run_pass = "plan-kv";
    expect_error(&f, "error: print-after: simplify does not run: only plan-kv does\n");
    setup(&f);
    f.o.print_after = "all";
    f.o.stop_after = "simplify";
    assert_true(pipeline_run(f.m, &f.o));
    teardown(&f);
}

static void stops_and_prints(void **state) {
    (void)state;
    Fixture f;
    setup(&f);
    f.o.stop_after = "simplify";
    f.o.print_after = "simplify";
    assert_true(pipeline_run(f.m, &f.o));
    assert_int_equal(f.m->graphs.v[0]->slab_rows, 0);
    fflush(f.o.out);
    Buf b = {0};
    ir_print(&b, f.m);
    assert_string_equal(f.printed, b.s);
    assert_null(strstr(b.s, "exp"));
    buf_free(&b);
    teardown(&f);

    setup(&f);
    f.o.print_after = "all";
    assert_true(pipeline_run(f.m, &f.o));
    assert_true(f.m->graphs.v[0]->slab_rows == 512);
    fflush(f.o.out);
    int count;
    const PassInfo *passes = pass_list(&count);
    for (int i = 0; i < count; i++) {
        char *head = arena_printf(f.arena, "# after %s\nmodule", passes[i].name);
        assert_non_null(strstr(f.printed, head));
    }
    teardown(&f);
}

static void diffs(void **state) {
    (void)state;
    static const struct {
        const char *a, *b, *want;
    } cases[] = {
        {"a\nb\n", "a\nb\n", ""},
        {"", "x\n", "@@ -0,0 +1,1 @@\n+x\n"},
        {"x\n", "", "@@ -1,1 +0,0 @@\n-x\n"},
        {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n",
         "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"},
        {"}\na\n}\nb\n}\n", "}\na\n}\nnew\n}\nb\n}\n", "@@ -1,5 +1,7 @@\n }\n a\n }\n+new\n+}\n b\n }\n"},
        {"a\nb\nc\n", "c\na\nb\n", "@@ -1,3 +1,3 @@\n+c\n a\n b\n-c\n"},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        Buf out = {0};
        buf_str(&out, "");
        text_diff(&out, cases[i].a, cases[i].b);
        assert_string_equal(out.s, cases[i].want);
        buf_free(&out);
    }
}

/* Applying the diff of two random texts to the first gives the second. */
static void random_diffs_apply(void **state) {
    (void)state;
    uint64_t seed = 12345;
    for (int round = 0; round < 500; round++) {
        Buf a = {0}, b = {0}, diff = {0};
        buf_str(&a, "");
        buf_str(&b, "");
        buf_str(&diff, "");
        for (int i = 0; i < 30; i++) {
            int line = (int)random_below(&seed, round % 2 ? 6 : 60);
            if (random_below(&seed, 4))
                buf_printf(&a, "%d\n", line);
            if (random_below(&seed, 4))
                buf_printf(&b, "%d\n", line);
        }
        text_diff(&diff, a.s, b.s);
        Buf got = {0};
        buf_str(&got, "");
        const char *from = a.s, *d = diff.s;
        int at = 1;
        while (*d) {
            int start, count;
            assert_int_equal(sscanf(d, "@@ -%d,%d", &start, &count), 2);
            d = strchr(d, '\n') + 1;
            for (; at < start + (count == 0); at++) {
                size_t n = (size_t)(strchr(from, '\n') + 1 - from);
                buf_bytes(&got, from, n);
                from += n;
            }
            while (*d && *d != '@') {
                size_t n = (size_t)(strchr(d, '\n') - d);
                if (*d != '+') {
                    assert_memory_equal(from, d + 1, n);
                    from += n;
                    at++;
                }
                if (*d != '-')
                    buf_bytes(&got, d + 1, n);
                d += n + 1;
            }
        }
        buf_str(&got, from);
        assert_string_equal(got.s, b.s);
        buf_free(&a);
        buf_free(&b);
        buf_free(&diff);
        buf_free(&got);
    }
}

static void too_many_random_weights(void **state) {
    (void)state;
    static const char big[] = "module a arch \"a\"\nweight @e : f32[100000, 1024]\n";
    Fixture f;
    setup(&f);
    Module *m = ir_parse(f.arena, f.diag, "big.ir", big, strlen(big));
    assert_non_null(m);
    assert_false(pipeline_same_results(m, m, NULL, 1, 8, NULL));
    char *got = diag_text(f.diag);
    assert_string_equal(got, "error: the weights of 'a' are more than 256 MB: a comparison needs the real ones\n");
    free(got);
    teardown(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_passes_are_named), cmocka_unit_test(printing_after_what_does_not_run),
        cmocka_unit_test(stops_and_prints),         cmocka_unit_test(diffs),
        cmocka_unit_test(random_diffs_apply),       cmocka_unit_test(too_many_random_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
