/* random_graphs.c - properties of random modules: they are sound, their text reads back to itself, and
 * no pass changes what they compute. Seeds are new in every run and printed; `random_graphs SEED` runs one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "passes/passes.h"
#include "random_graph.h"

static uint64_t first_seed;
static int n_seeds = 150;

static void show(const Diag *d, const Module *m, uint64_t seed, const char *what) {
    diag_print(d, stderr, false);
    Buf b = {0};
    ir_print(&b, m);
    fprintf(stderr, "%s\nseed %llu: %s\n", b.s, (unsigned long long)seed, what);
    buf_free(&b);
    fail();
}

/* print(parse(print(m))) == print(m) */
static void check_text(const Module *m, uint64_t seed) {
    Arena *arena = arena_new();
    Buf once = {0}, twice = {0};
    Diag *d = diag_new();
    ir_print(&once, m);
    Module *back = ir_parse(arena, d, "text", once.s, once.n);
    if (!back)
        show(d, m, seed, "the text does not read back");
    ir_print(&twice, back);
    if (strcmp(once.s, twice.s) != 0) {
        fprintf(stderr, "%s", twice.s);
        show(d, m, seed, "the text is not the same when printed again");
    }
    if (!ir_verify(back))
        show(d, m, seed, "the module read back is not sound");
    buf_free(&once);
    buf_free(&twice);
    diag_free(d);
    arena_free(arena);
}

/* Small plans, so that rings wrap and places are reused; sometimes without taps. */
static PipelineOptions options(uint64_t seed) {
    PipelineOptions o = {.pass = pass_options_default(), .verify_each = true, .out = stderr};
    static const char *wanted[] = {"layer.0"};
    o.pass.context = 64;
    o.pass.chunk = 4 + (int64_t)(seed % 5);
    o.pass.rows = 1 + (int64_t)(seed % 7);
    o.pass.draft = (int64_t)(seed % 3);
    o.pass.kv_k = seed % 2 ? DT_F16 : DT_F32;
    o.pass.kv_v = seed % 4 ? DT_F32 : DT_BF16;
    o.pass.all_taps = seed % 3 == 0;
    o.pass.taps = wanted;
    o.pass.n_taps = seed % 3 == 1;
    return o;
}

static void check_seed(uint64_t seed) {
    Arena *arena = arena_new();
    Diag *d = diag_new();
    Module *m = random_module(arena, d, seed);
    if (diag_errors(d) || !ir_verify(m))
        show(d, m, seed, "the generator made an unsound module");
    check_text(m, seed);
    int count;
    const PassInfo *passes = pass_list(&count);
    for (int i = 0; i < count; i++) {
        PipelineOptions o = options(seed);
        o.run_pass = passes[i].name;
        if (!pipeline_run(m, &o))
            show(d, m, seed, passes[i].name);
        check_text(m, seed);
    }
    diag_free(d);
    arena_free(arena);
}

static void passes_keep_results(void **state) {
    (void)state;
    print_message("seeds %llu to %llu\n", (unsigned long long)first_seed,
                  (unsigned long long)first_seed + (unsigned long long)n_seeds - 1);
    for (int i = 0; i < n_seeds; i++)
        check_seed(first_seed + (uint64_t)i);
}

/* The comparison must be able to fail: another weight, another wiring. */
static void comparison_finds_differences(void **state) {
    (void)state;
    static const char head[] = "module a arch \"a\"\nweight @e : f32[9, 8]\nweight @w : f32[8]\n"
                               "graph step(tokens: i32[T], rows: i32[R]) {\n  %h = embed tokens, @e : f32[T, 8]\n";
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"%x = mul %h, @w : f32[T, 8]", "%x = mul @w, %h : f32[T, 8]", true},
        {"%x = mul %h, @w : f32[T, 8]", "%x = add %h, @w : f32[T, 8]", false},
        {"%x = mul %h, 1.0001 : f32[T, 8]", "%x = mul %h, 1 : f32[T, 8]", false},
        {"%x = log %h : f32[T, 8]", "%x = log %h : f32[T, 8]", false}, /* NaN on both sides */
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        Arena *arena = arena_new();
        Diag *d = diag_new();
        Buf a = {0}, b = {0};
        static const char tail[] = "  %r = rows %x, rows : f32[R, 8]\n  emit y = %r\n}\n";
        buf_printf(&a, "%s  %s\n%s", head, cases[i].a, tail);
        buf_printf(&b, "%s  %s\n%s", head, cases[i].b, tail);
        Module *ma = ir_parse(arena, d, "a", a.s, a.n), *mb = ir_parse(arena, d, "b", b.s, b.n);
        assert_non_null(ma);
        assert_non_null(mb);
        assert_int_equal(pipeline_same_results(ma, mb, NULL, 7, 8, NULL), cases[i].same);
        assert_int_equal(diag_errors(d) == 0, cases[i].same);
        buf_free(&a);
        buf_free(&b);
        diag_free(d);
        arena_free(arena);
    }
}

int main(int argc, char **argv) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    first_seed = ((uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000) % 100000000 * 1000;
    if (argc > 1) {
        first_seed = strtoull(argv[1], NULL, 10);
        n_seeds = argc > 2 ? atoi(argv[2]) : 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(passes_keep_results),
                                       cmocka_unit_test(comparison_finds_differences)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
