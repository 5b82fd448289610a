/* text_encode.c - both tokenizers: small cases by hand, random ones against the slow definition. */
#include "vocab.h"

#include <stdio.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"

static uint64_t seed;

static TokenList encode(const Tokenizer *t, Arena *a, const char *text, EncodeOptions o) {
    TokenList ids = {0};
    tokenizer_encode(t, a, text, strlen(text), o, &ids);
    return ids;
}

#define EXPECT(v, t, text, opts, ...)                                                                                  \
    do {                                                                                                               \
        const int32_t want[] = {__VA_ARGS__};                                                                          \
        TokenList got = encode(t, (v)->arena, text, opts);                                                             \
        assert_ids(&got, want, (int)COUNTOF(want));                                                                    \
    } while (0)

static const EncodeOptions plain = {.parse_special = false};
static const EncodeOptions special = {.parse_special = true};
static const EncodeOptions bos = {.add_bos = true, .parse_special = false};
static const EncodeOptions bos_special = {.add_bos = true, .parse_special = true};

enum { BYTE0 = 4 }; /* id of <0x00> in vocab_new */

/* ==== Kind "llama" ==== */

static void spm_joins_highest_score_then_leftmost(void **state) {
    (void)state;
    Vocab *v = vocab_new("llama", true);
    int a = vocab_add(v, "a", NORMAL, -100), b = vocab_add(v, "b", NORMAL, -100), c = vocab_add(v, "c", NORMAL, -100);
    int ab = vocab_add(v, "ab", NORMAL, -2), bc = vocab_add(v, "bc", NORMAL, -1), aa = vocab_add(v, "aa", NORMAL, -3);
    int abab = vocab_add(v, "abab", NORMAL, -9);
    Tokenizer *t = vocab_tokenizer(v);
    EXPECT(v, t, "abc", plain, a, bc); /* bc before ab */
    EXPECT(v, t, "ab", plain, ab);
    EXPECT(v, t, "aaa", plain, aa, a); /* a tie: the left one */
    EXPECT(v, t, "ababc", plain, ab, a, bc);
    EXPECT(v, t, "abab", plain, abab);
    EXPECT(v, t, "ababab", plain, abab, ab);
    EXPECT(v, t, "cb", plain, c, b);
    tokenizer_free(t);
    vocab_free(v);
}

static void spm_spaces_and_prefix(void **state) {
    (void)state;
    for (int prefix = 0; prefix < 2; prefix++) {
        Vocab *v = vocab_new("llama", true);
        v->add_space_prefix = prefix;
        int sp = vocab_add(v, SPACE, NORMAL, -9), a = vocab_add(v, "a", NORMAL, -9);
        int spa = vocab_add(v, SPACE "a", NORMAL, -1);
        Tokenizer *t = vocab_tokenizer(v);
        if (prefix) {
            EXPECT(v, t, "a", plain, spa);
            EXPECT(v, t, " a", plain, sp, spa);
            EXPECT(v, t, "a<bos>a", special, spa, 2, spa); /* again after a special token */
            EXPECT(v, t, "a", bos, 2, spa);
        } else {
            EXPECT(v, t, "a", plain, a);
            EXPECT(v, t, " a", plain, spa);
            EXPECT(v, t, "a a", plain, a, spa);
            EXPECT(v, t, "a<bos> a", special, a, 2, spa);
        }
        TokenList none = encode(t, v->arena, "", plain);
        assert_int_equal(none.n, 0);
        tokenizer_free(t);
        vocab_free(v);
    }
}

static void unknown_characters_become_bytes(void **state) {
    (void)state;
    const char *const kinds[] = {"llama", "gemma4"};
    for (int i = 0; i < 2; i++) {
        Vocab *v = vocab_new(kinds[i], true);
        int a = vocab_add(v, "a", NORMAL, -1);
        vocab_merge(v, "b c"); /* joined, but no token */
        Tokenizer *t = vocab_tokenizer(v);
        EXPECT(v, t, "a\xc3\xa9", plain, a, BYTE0 + 0xc3, BYTE0 + 0xa9);
        EXPECT(v, t, "bc", plain, BYTE0 + 'b', BYTE0 + 'c');
        EXPECT(v, t, "\xff\x80", plain, BYTE0 + 0xff, BYTE0 + 0x80);
        EXPECT(v, t, "a\xe4", plain, a, BYTE0 + 0xe4); /* cut short */
        tokenizer_free(t);
        vocab_free(v);

        v = vocab_new(kinds[i], false); /* no bytes at all: the unknown token */
        a = vocab_add(v, "a", NORMAL, -1);
        vocab_merge(v, "b c");
        t = vocab_tokenizer(v);
        EXPECT(v, t, "a\xc3\xa9", plain, a, 3, 3);
        tokenizer_free(t);
        vocab_free(v);
    }
}

/* ==== Kind "gemma4" ==== */

static void bpe_joins_by_rank_then_leftmost(void **state) {
    (void)state;
    Vocab *v = vocab_new("gemma4", true);
    int a = vocab_add(v, "a", NORMAL, 0), b = vocab_add(v, "b", NORMAL, 0), c = vocab_add(v, "c", NORMAL, 0);
    int sp = vocab_add(v, SPACE, NORMAL, 0);
    int ab = vocab_add(v, "ab", NORMAL, 0), bc = vocab_add(v, "bc", NORMAL, 0), aa = vocab_add(v, "aa", NORMAL, 0);
    int abbc = vocab_add(v, "abbc", NORMAL, 0), spa = vocab_add(v, SPACE "a", NORMAL, 0);
    int abc = vocab_add(v, "abc", NORMAL, 0); /* a token, but no merge leads to it */
    vocab_merge(v, "b c");
    vocab_merge(v, "a a");
    vocab_merge(v, "a b");
    vocab_merge(v, "ab bc");
    vocab_merge(v, SPACE " a");
    Tokenizer *t = vocab_tokenizer(v);
    EXPECT(v, t, "abc", plain, a, bc);
    EXPECT(v, t, "ab", plain, ab);
    EXPECT(v, t, "aaa", plain, aa, a);
    EXPECT(v, t, "abbc", plain, abbc);
    EXPECT(v, t, " a", plain, spa);
    EXPECT(v, t, "a a", plain, a, spa);
    EXPECT(v, t, "  a", plain, sp, spa);
    EXPECT(v, t, "cb", plain, c, b);
    assert_int_equal(tokenizer_find(t, (Str){"abc", 3}), abc);
    tokenizer_free(t);
    vocab_free(v);
}

static void bpe_joins_through_texts_that_are_no_tokens(void **state) {
    (void)state;
    Vocab *v = vocab_new("gemma4", true);
    int a = vocab_add(v, "a", NORMAL, 0), abc = vocab_add(v, "abc", NORMAL, 0);
    vocab_merge(v, "a b"); /* neither "b" nor "ab" is a token */
    vocab_merge(v, "ab c");
    Tokenizer *t = vocab_tokenizer(v);
    EXPECT(v, t, "abca", plain, abc, a);
    EXPECT(v, t, "aba", plain, BYTE0 + 'a', BYTE0 + 'b', a); /* the symbol "ab" as bytes */
    tokenizer_free(t);
    vocab_free(v);
}

static void bpe_newline_runs(void **state) {
    (void)state;
    Vocab *v = vocab_new("gemma4", true);
    int a = vocab_add(v, "a", NORMAL, 0);
    int n1 = vocab_add(v, "\n", NORMAL, 0), n2 = vocab_add(v, "\n\n", NORMAL, 0),
        n3 = vocab_add(v, "\n\n\n", NORMAL, 0);
    int an = vocab_add(v, "a\n", NORMAL, 0);
    vocab_merge(v, "\n \n");
    vocab_merge(v, "a \n");
    Tokenizer *t = vocab_tokenizer(v);
    EXPECT(v, t, "a\na", plain, a, n1, a); /* never "a\n": newlines stand apart */
    EXPECT(v, t, "\n\n", plain, n2);
    EXPECT(v, t, "\n\n\n", plain, n3); /* a token, though no merge makes it */
    EXPECT(v, t, "\n\n\n\n\n", plain, n2, n2, n1);
    EXPECT(v, t, "\r\n", plain, BYTE0 + '\r', n1);
    assert_int_equal(tokenizer_find(t, (Str){"a\n", 2}), an);
    tokenizer_free(t);
    vocab_free(v);
}

static void first_of_equal_merges_counts(void **state) {
    (void)state;
    Vocab *v = vocab_new("gemma4", true);
    int a = vocab_add(v, "a", NORMAL, 0), bc = vocab_add(v, "bc", NORMAL, 0), ab = vocab_add(v, "ab", NORMAL, 0);
    vocab_add(v, "c", NORMAL, 0);
    vocab_merge(v, "b c");
    vocab_merge(v, "a b");
    vocab_merge(v, "b c");
    Tokenizer *t = vocab_tokenizer(v);
    EXPECT(v, t, "abc", plain, a, bc);
    EXPECT(v, t, "ab", plain, ab);
    tokenizer_free(t);
    vocab_free(v);
}

/* ==== Special tokens ==== */

static void special_tokens(void **state) {
    (void)state;
    const char *const kinds[] = {"llama", "gemma4"};
    for (int i = 0; i < 2; i++) {
        Vocab *v = vocab_new(kinds[i], true);
        int a = vocab_add(v, "a", NORMAL, -1);
        int turn = vocab_add(v, "<t>", CONTROL, 0), user = vocab_add(v, "<u>", USER, 0);
        int longer = vocab_add(v, "<u><t>", CONTROL, 0), two = vocab_add(v, "  ", USER, 0);
        int xy = vocab_add(v, "xy", USER, 0), yzz = vocab_add(v, "yzz", USER, 0);
        vocab_merge(v, "q q");
        Tokenizer *t = vocab_tokenizer(v);
        EXPECT(v, t, "a<t>a", special, a, turn, a);
        EXPECT(v, t, "a<t>", plain, a, BYTE0 + '<', BYTE0 + 't', BYTE0 + '>');
        EXPECT(v, t, "a<u>a", plain, a, user, a); /* user-defined: always */
        EXPECT(v, t, "<u><t>", special, longer);  /* the longest */
        EXPECT(v, t, "<u><t>", plain, user, BYTE0 + '<', BYTE0 + 't', BYTE0 + '>');
        EXPECT(v, t, "<u><u>", special, user, user);
        EXPECT(v, t, "a  a", plain, a, two, a);
        EXPECT(v, t, "<unk>", special, 3);
        EXPECT(v, t, "xyzz", plain, xy, BYTE0 + 'z', BYTE0 + 'z'); /* leftmost, though the other is longer */
        EXPECT(v, t, "yzz", plain, yzz);
        EXPECT(v, t, "<0x61>", special, BYTE0 + '<', BYTE0 + '0', BYTE0 + 'x', BYTE0 + '6', BYTE0 + '1', BYTE0 + '>');
        EXPECT(v, t, "<u", special, BYTE0 + '<', BYTE0 + 'u'); /* the text ends inside one */
        tokenizer_free(t);
        vocab_free(v);
    }
}

/* A text may be joined up to a control token's text, but must not become it. */
static void plain_text_never_becomes_control(void **state) {
    (void)state;
    Vocab *v = vocab_new("llama", true);
    int s = vocab_add(v, "<s", NORMAL, -1), end = vocab_add(v, ">", NORMAL, -1);
    vocab_add(v, "<", NORMAL, -1);
    vocab_add(v, "<s>", CONTROL, 0);
    Tokenizer *t = vocab_tokenizer(v);
    EXPECT(v, t, "<s>", plain, s, end);
    tokenizer_free(t);
    vocab_free(v);

    v = vocab_new("gemma4", true);
    int stop = vocab_add(v, "ab", CONTROL, 0);
    vocab_merge(v, "a b");
    t = vocab_tokenizer(v);
    EXPECT(v, t, "ab", plain, BYTE0 + 'a', BYTE0 + 'b');
    EXPECT(v, t, "ab", special, stop);
    tokenizer_free(t);
    vocab_free(v);
}

static void bos_goes_first_once(void **state) {
    (void)state;
    Vocab *v = vocab_new("llama", true);
    int a = vocab_add(v, "a", NORMAL, -1);
    Tokenizer *t = vocab_tokenizer(v);
    EXPECT(v, t, "a", bos, 2, a);
    EXPECT(v, t, "", bos, 2);
    EXPECT(v, t, "<bos>a", bos_special, 2, a);
    EXPECT(v, t, "<bos><bos>a", bos_special, 2, 2, a);
    EXPECT(v, t, "<bos>", bos, 2, BYTE0 + '<', BYTE0 + 'b', BYTE0 + 'o', BYTE0 + 's', BYTE0 + '>');
    TokenList ids = {0};
    vec_push(v->arena, &ids, 77);
    tokenizer_encode(t, v->arena, "a", 1, bos, &ids); /* appended behind what is there */
    assert_ids(&ids, (const int32_t[]){77, 2, a}, 3);
    tokenizer_free(t);
    vocab_free(v);

    v = vocab_new("llama", true);
    a = vocab_add(v, "a", NORMAL, -1);
    vocab_put_int(v, "tokenizer.ggml.add_bos_token", META_BOOL, 0);
    t = vocab_tokenizer(v);
    EXPECT(v, t, "a", bos, a);
    tokenizer_free(t);
    vocab_free(v);
}

/* ==== Random ==== */

static void random_against_the_definition(const char *kind, int vocabs) {
    for (int i = 0; i < vocabs; i++) {
        uint64_t state = seed + (uint64_t)i * 7919;
        Vocab *v = random_vocab(&state, kind, false);
        Tokenizer *t = vocab_tokenizer(v);
        assert_non_null(t);
        for (int k = 0; k < 40; k++) {
            Buf text = {0};
            random_vocab_text(&state, v, (int)random_below(&state, 40), &text);
            TokenList got = {0}, want = {0};
            EncodeOptions o = {.parse_special = random_below(&state, 2)};
            tokenizer_encode(t, v->arena, text.s, text.n, o, &got);
            oracle_encode(v, v->arena, (Str){text.s, text.n}, o, &want);
            assert_ids(&got, want.v, want.n);
            buf_free(&text);
        }
        tokenizer_free(t);
        vocab_free(v);
    }
}

static void spm_random(void **state) {
    (void)state;
    random_against_the_definition("llama", 60);
}

static void bpe_random(void **state) {
    (void)state;
    random_against_the_definition("gemma4", 60);
}

/* A long line of joins on joins: quadratic time would not end here. */
static void long_runs_are_quick(void **state) {
    (void)state;
    enum { LONG = 1 << 19 };
    const char *const kinds[] = {"llama", "gemma4"};
    for (int i = 0; i < 2; i++) {
        Vocab *v = vocab_new(kinds[i], true);
        int last = vocab_add(v, "a", NORMAL, -1);
        const char *half = "a";
        for (int k = 1; k <= 5; k++) {
            vocab_merge(v, arena_printf(v->arena, "%s %s", half, half));
            half = arena_printf(v->arena, "%s%s", half, half);
            last = vocab_add(v, half, NORMAL, -1 - k);
        }
        Tokenizer *t = vocab_tokenizer(v);
        char *text = arena_alloc(v->arena, LONG);
        memset(text, 'a', LONG);
        TokenList ids = {0};
        tokenizer_encode(t, v->arena, text, LONG, plain, &ids);
        assert_int_equal(ids.n, LONG / 32);
        for (int k = 0; k < ids.n; k++)
            assert_int_equal(ids.v[k], last);
        tokenizer_free(t);
        vocab_free(v);
    }
}

int main(int argc, char **argv) {
    seed = test_seed(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spm_joins_highest_score_then_leftmost),
        cmocka_unit_test(spm_spaces_and_prefix),
        cmocka_unit_test(unknown_characters_become_bytes),
        cmocka_unit_test(bpe_joins_by_rank_then_leftmost),
        cmocka_unit_test(bpe_joins_through_texts_that_are_no_tokens),
        cmocka_unit_test(bpe_newline_runs),
        cmocka_unit_test(first_of_equal_merges_counts),
        cmocka_unit_test(special_tokens),
        cmocka_unit_test(plain_text_never_becomes_control),
        cmocka_unit_test(bos_goes_first_once),
        cmocka_unit_test(spm_random),
        cmocka_unit_test(bpe_random),
        cmocka_unit_test(long_runs_are_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
