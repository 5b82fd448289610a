/* base_test.c - arena, names, numbers, 16-bit floats, messages, scalar expressions. */
#include "ir/diag.h"
#include "ir/dtype.h"
#include "ir/scalar.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
// after the standard headers
#include <cmocka.h>

static uint64_t rng;

static uint32_t next(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)(rng >> 16);
}

static void arena_gives_zeroed_aligned_memory(void **state) {
    (void)state;
    Arena *a = arena_new();
    for (int i = 0; i < 2000; i++) {
        size_t n = next() % (i % 100 == 0 ? 200000 : 300);
        unsigned char *p = arena_alloc(a, n);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t j = 0; j < n; j++)
            assert_int_equal(p[j], 0);
        memset(p, 0xff, n);
    }
    VEC(int) v = {0};
    for (int i = 0; i < 1000; i++)
        vec_push(a, &v, i);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(v.v[i], i);
    arena_free(a);
}

static void names_are_found(void **state) {
    (void)state;
    Arena *a = arena_new();
    NameMap *m = namemap_new(a);
    for (int i = 0; i < 5000; i++)
        namemap_put(m, arena_printf(a, "name%d", i), i);
    namemap_put(m, "name7", 70000);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(namemap_get(m, arena_printf(a, "name%d", i)), i == 7 ? 70000 : i);
    assert_int_equal(namemap_get(m, "name"), -1);
    assert_int_equal(namemap_getn(m, "name12", 5), 1);
    arena_free(a);
}

static void numbers_read_back(void **state) {
    (void)state;
    char s[32];
    for (int i = 0; i < 200000; i++) {
        uint32_t bits = next();
        float f;
        memcpy(&f, &bits, 4);
        if (!isfinite(f))
            continue;
        format_f32(s, f);
        assert_true(strtof(s, NULL) == f);
        double d = (double)f * 1.1;
        format_f64(s, d);
        assert_true(strtod(s, NULL) == d);
    }
    format_f32(s, 1e-6f);
    assert_string_equal(s, "1e-06");
}

/* Against the definition: every half value, and the nearest half of every float between neighbours. */
static void halves_round_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float f = f16_to_f32((uint16_t)h);
        double want = h < 0x400 ? ldexp(h, -24) : ldexp(1 + (h & 0x3ff) / 1024.0, (int)(h >> 10) - 15);
        assert_true(f == want);
        assert_int_equal(f32_to_f16(f), h);
        assert_int_equal(f32_to_f16(-f), h | 0x8000);
        if (h + 1 < 0x7c00) {
            float up = f16_to_f32((uint16_t)(h + 1)), mid = (f + up) / 2;
            assert_int_equal(f32_to_f16(mid), h % 2 ? h + 1 : h);
            assert_int_equal(f32_to_f16(nextafterf(mid, up)), h + 1);
            assert_int_equal(f32_to_f16(nextafterf(mid, f)), h);
        }
    }
    assert_int_equal(f32_to_f16(65519.9f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(INFINITY), 0x7c00);
    assert_true(isnan(f16_to_f32(f32_to_f16(NAN))));
    assert_true(isinf(f16_to_f32(0xfc00)) && f16_to_f32(0xfc00) < 0);
    assert_int_equal(f32_to_bf16(1.00390625f), 0x3f80); /* a tie goes to even */
    assert_int_equal(f32_to_bf16(nextafterf(1.00390625f, 2)), 0x3f81);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
    assert_true(bf16_to_f32(0x3f81) == 1.0078125f);
}

static void messages_point(void **state) {
    (void)state;
    Diag *d = diag_new();
    const char *text = "one\n\tlet \xc3\xa4 = badname\r\nlast";
    int f = diag_source(d, "m.lap", text, strlen(text));
    int w = diag_source(d, "w.gguf", NULL, 0);
    assert_int_equal(diag_source(d, "m.lap", text, strlen(text)), f);
    diag_error(d, (SrcLoc){f, 2, 11, 18}, "unknown name '%s'", "badname");
    diag_note(d, (SrcLoc){w, 0, 0, 0}, "tensor 'x' is f32[2]");
    diag_warning(d, (SrcLoc){f, 3, 5, 5}, "at the end");
    diag_note(d, NO_LOC, "nowhere");
    char *s = diag_text(d);
    assert_string_equal(s, "m.lap:2:11: error: unknown name 'badname'\n"
                           "    \tlet \xc3\xa4 = badname\n"
                           "    \t        ^~~~~~~\n"
                           "w.gguf: note: tensor 'x' is f32[2]\n"
                           "m.lap:3:5: warning: at the end\n"
                           "    last\n"
                           "        ^\n"
                           "note: nowhere\n");
    free(s);
    assert_int_equal(diag_errors(d), 1);
    diag_free(d);
}

static void no_control_bytes_are_printed(void **state) {
    (void)state;
    Diag *d = diag_new();
    int f = diag_source(d, "a\033[31m.ir", "x\033y\n", 4);
    diag_error(d, (SrcLoc){f, 1, 1, 2}, "name '\033[2J\177' of\ntwo lines");
    char *s = diag_text(d);
    assert_string_equal(s, "a?[31m.ir:1:1: error: name '?[2J?' of\ntwo lines\n    x y\n    ^\n");
    free(s);
    diag_free(d);
}

static void long_lines_are_cut_around_the_place(void **state) {
    (void)state;
    Diag *d = diag_new();
    char text[1001];
    for (int i = 0; i < 1000; i += 2)
        memcpy(text + i, "\xc3\xa4", 2);
    text[500] = 'x', text[501] = 'y';
    int f = diag_source(d, "m.lap", text, 1000);
    diag_error(d, (SrcLoc){f, 1, 501, 900}, "here");
    char *s = diag_text(d);
    char *line = strchr(s, '\n') + 1, *caret = strchr(line, '\n') + 1;
    assert_memory_equal(line, "    ...\xc3\xa4", 9);
    assert_memory_equal(strchr(line, '\n') - 5, "\xc3\xa4...", 5);
    /* 7 + 30 characters of two bytes before the caret */
    assert_int_equal(strspn(caret, " "), 7 + 30);
    assert_int_equal(strspn(caret + 38, "~"), 1 + (160 - 62) / 2);
    free(s);
    diag_free(d);
}

static const char *nearest(const char *name, const char *const *candidates, int n) {
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (int i = 0; i < n; i++)
        nearest_try(&near, candidates[i]);
    return nearest_best(&near);
}

static void near_names_are_offered(void **state) {
    (void)state;
    const char *names[] = {"attn_q.weight", "attn_k.weight", "ffn_up.weight", "k", "pos"};
    assert_string_equal(nearest("atn_q.weight", names, 5), "attn_q.weight");
    assert_string_equal(nearest("ffn_pu.weight", names, 5), "ffn_up.weight");
    assert_string_equal(nearest("pso", names, 5), "pos");
    assert_null(nearest("something", names, 5));
    assert_null(nearest("", names, 3));
}

static const char *table_name(const void *ctx, int i) {
    (void)ctx;
    return i == 3 ? "slopes" : "?";
}

static void scalars_evaluate_and_print(void **state) {
    (void)state;
    Arena *a = arena_new();
#define S(op, x, y) scalar_new(a, SC_##op, x, y, NULL, NO_LOC)
#define C(v)        scalar_const(a, v, NO_LOC)
    const Scalar *q = S(Q, NULL, NULL), *k = S(K, NULL, NULL), *h = S(H, NULL, NULL);
    const Scalar *window = S(AND, S(LE, k, q), S(LT, S(SUB, q, k), C(512)));
    Buf b = {0};
    scalar_print(&b, window, NULL, NULL);
    assert_string_equal(b.s, "k <= q and q - k < 512");
    assert_true(scalar_eval(window, &(ScalarEnv){.q = 600, .k = 89}) == 1);
    assert_true(scalar_eval(window, &(ScalarEnv){.q = 600, .k = 88}) == 0);
    b.n = 0;
    const Scalar *mixed = S(MUL, S(SUB, q, S(SUB, k, C(1))), S(NEG, S(ADD, h, scalar_table(a, 3, h, NO_LOC)), NULL));
    scalar_print(&b, mixed, table_name, NULL);
    assert_string_equal(b.s, "(q - (k - 1)) * -(h + @slopes[h])");
    float slopes[2] = {0.5f, 0.25f};
    const float *tables[4] = {NULL, NULL, NULL, slopes};
    int64_t lens[4] = {0, 0, 0, 2};
    ScalarEnv env = {.q = 7, .k = 3, .h = 1, .tables = tables, .tables_len = lens};
    assert_true(scalar_eval(mixed, &env) == -(7 - 2) * 1.25);
    env.h = 2; /* outside the table reads 0 */
    assert_true(scalar_eval(mixed, &env) == -(7 - 2) * 2.0);
    assert_true(scalar_eval(S(MOD, C(-3), C(5)), &env) == 2);
    assert_true(scalar_same(window, S(AND, S(LE, k, q), S(LT, S(SUB, q, k), C(512)))));
    assert_false(scalar_same(window, S(AND, S(LE, k, q), S(LT, S(SUB, q, k), C(513)))));
    buf_free(&b);
    arena_free(a);
}

int main(void) {
    rng = (uint64_t)time(NULL) * 2654435761u | 1;
    printf("seed %llu\n", (unsigned long long)rng);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(names_are_found),
        cmocka_unit_test(numbers_read_back),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(messages_point),
        cmocka_unit_test(near_names_are_offered),
        cmocka_unit_test(scalars_evaluate_and_print),
        cmocka_unit_test(no_control_bytes_are_printed),
        cmocka_unit_test(long_lines_are_cut_around_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
