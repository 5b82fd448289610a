/* text_real.c - the tokenizer of a real weights file (Gemma 3) on many writing systems.
 *
 * ../peers/mixed.txt holds the texts, mixed.gemma3.ids the ids another program gave for them: first all lines
 * as plain text, then all with special tokens (../peers/tokens.py --record). Skipped without the weights.
 */
#include "runtime/weights/weights.h"
#include "vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SKIPPED = 77 };

static uint64_t seed;
static Diag *diag;
static Weights *weights;
static Tokenizer *tokenizer;
static double load_seconds;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static FILE *open_data(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/../peers/%s", TEST_DIR, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    return f;
}

static void decode(const TokenList *ids, bool show_control, Buf *out) {
    Detokenizer d = {.t = tokenizer, .show_control = show_control};
    for (int i = 0; i < ids->n; i++)
        detok_push(&d, ids->v[i], out);
    detok_end(&d, out);
}

/* The text back, if it holds no meta-space: that is the only thing that is lost. */
static void assert_round_trip(const TokenList *ids, bool show_control, Str text) {
    if (text.n && memmem(text.s, text.n, "\xe2\x96\x81", 3))
        return;
    Buf out = {0};
    decode(ids, show_control, &out);
    assert_int_equal(out.n, text.n);
    if (text.n)
        assert_memory_equal(out.s, text.s, text.n);
    buf_free(&out);
}

static void recorded_ids(void **state) {
    (void)state;
    FILE *ids_file = open_data("mixed.gemma3.ids");
    char *line = NULL, *ids = NULL;
    size_t line_cap = 0, ids_cap = 0;
    int lines = 0;
    for (int special = 0; special < 2; special++) {
        FILE *text_file = open_data("mixed.txt");
        for (ssize_t n; (n = getline(&line, &line_cap, text_file)) > 0; lines++) {
            assert_true(getline(&ids, &ids_cap, ids_file) > 0);
            Arena *a = arena_new();
            TokenList got = {0}, want = {0};
            char *at = ids, *end;
            for (long id; id = strtol(at, &end, 10), end != at; at = end)
                vec_push(a, &want, (int32_t)id);
            Str text = {line, (size_t)n - 1};
            tokenizer_encode(tokenizer, a, text.s, text.n, (EncodeOptions){.parse_special = special}, &got);
            assert_ids(&got, want.v, want.n);
            assert_round_trip(&got, true, text);
            arena_free(a);
        }
        fclose(text_file);
    }
    assert_int_equal(lines, 1000);
    assert_true(getline(&ids, &ids_cap, ids_file) < 0);
    fclose(ids_file);
    free(line);
    free(ids);
}

static void random_round_trip(void **state) {
    (void)state;
    uint64_t r = seed;
    for (int i = 0; i < 400; i++) {
        Buf text = {0};
        random_text(&r, (int)random_below(&r, 300), &text);
        Arena *a = arena_new();
        TokenList ids = {0};
        tokenizer_encode(tokenizer, a, text.s, text.n, (EncodeOptions){.add_bos = true, .parse_special = false}, &ids);
        assert_round_trip(&ids, false, (Str){text.s, text.n});
        for (int k = 1; k < ids.n; k++)
            assert_false(tokenizer_is_control(tokenizer, ids.v[k]));
        arena_free(a);
        buf_free(&text);
    }
}

static void every_token_is_found(void **state) {
    (void)state;
    int n = tokenizer_size(tokenizer);
    for (int32_t id = 0; id < n; id++)
        assert_int_equal(tokenizer_find(tokenizer, tokenizer_token(tokenizer, id)), id);
    assert_int_equal(tokenizer_find(tokenizer, (Str){"no such token in there", 22}), -1);
}

static void beginning_of_sequence(void **state) {
    (void)state;
    Arena *a = arena_new();
    TokenList once = {0}, twice = {0};
    tokenizer_encode(tokenizer, a, "<bos>Hello", 10, (EncodeOptions){.add_bos = true, .parse_special = true}, &once);
    tokenizer_encode(tokenizer, a, "Hello", 5, (EncodeOptions){.add_bos = true, .parse_special = false}, &twice);
    assert_ids(&once, twice.v, twice.n);
    assert_int_equal(once.v[0], tokenizer_bos(tokenizer));
    assert_true(tokenizer_is_control(tokenizer, once.v[0]));
    arena_free(a);
}

/* 60 ms is asked for; ten times that leaves room for a slow, busy or checking machine. */
static void loads_quickly(void **state) {
    (void)state;
    printf("loaded in %.1f ms\n", 1e3 * load_seconds);
    assert_true(load_seconds < 0.6);
}

/* Runs of white space and tags are user-defined tokens here. In typed text ordinary joining makes the same of
 * them; a control token is only text. */
static void typed_text(void **state) {
    (void)state;
    static const char *const texts[] = {
        "one\n\ntwo\n\n\nthree\n\n\n\n\n\nfour",
        "a  b   c    d        e",
        "\tx\t\ty\t\t\t",
        "for i in x:\n        y += 1\n\n\n\tz",
    };
    for (size_t i = 0; i < COUNTOF(texts); i++) {
        Arena *a = arena_new();
        TokenList typed = {0}, open = {0};
        RangeList plain = {0};
        size_t n = strlen(texts[i]);
        vec_push(a, &plain, ((TextRange){0, n}));
        tokenizer_encode(tokenizer, a, texts[i], n, (EncodeOptions){.parse_special = true, .plain = &plain}, &typed);
        tokenizer_encode(tokenizer, a, texts[i], n, (EncodeOptions){.parse_special = true}, &open);
        assert_ids(&typed, open.v, open.n);
        arena_free(a);
    }
    Arena *a = arena_new();
    TokenList ids = {0};
    RangeList plain = {0};
    vec_push(a, &plain, ((TextRange){0, 13}));
    tokenizer_encode(tokenizer, a, "<end_of_turn>", 13, (EncodeOptions){.parse_special = true, .plain = &plain}, &ids);
    assert_true(ids.n > 1);
    for (int i = 0; i < ids.n; i++)
        assert_false(tokenizer_is_control(tokenizer, ids.v[i]));
    assert_round_trip(&ids, false, (Str){"<end_of_turn>", 13});
    arena_free(a);
}

int main(int argc, char **argv) {
    if (access(LAP_MODEL, R_OK) != 0) {
        printf("SKIP: model not found: %s\n", LAP_MODEL);
        return SKIPPED;
    }
    seed = test_seed(argc, argv);
    diag = diag_new();
    weights = weights_open(LAP_MODEL, diag);
    double start = now();
    tokenizer = weights ? tokenizer_new(weights_file(weights), diag) : NULL;
    load_seconds = now() - start;
    diag_print(diag, stderr, false);
    if (!tokenizer)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(typed_text),
        cmocka_unit_test(recorded_ids),
        cmocka_unit_test(random_round_trip),
        cmocka_unit_test(every_token_is_found),
        cmocka_unit_test(beginning_of_sequence),
        cmocka_unit_test(loads_quickly),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tokenizer_free(tokenizer);
    weights_close(weights);
    diag_free(diag);
    return failed;
}
