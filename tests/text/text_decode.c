/* text_decode.c - streamed text is valid UTF-8 and does not depend on where tokens end. */
#include "vocab.h"

#include <stdio.h>
#include <string.h>

static uint64_t seed;

static void push_all(const Tokenizer *t, const int32_t *ids, int n, Buf *out) {
    Detokenizer d = {.t = t};
    for (int i = 0; i < n; i++) {
        detok_push(&d, ids[i], out);
        assert_true(is_utf8(out->s, out->n));
        assert_in_range(d.n_hold, 0, 3);
    }
    detok_end(&d, out);
    assert_true(is_utf8(out->s, out->n));
    assert_int_equal(d.n_hold, 0);
}

/* Replaces what is no UTF-8, looking at the whole text: at a place the longest well-formed character, else one
 * mark for the longest stretch that some continuation would make well-formed. */
static void repair(const char *s, size_t n, Buf *out) {
    for (size_t i = 0; i < n;) {
        size_t whole = 0, begun = 1;
        for (size_t len = 1; len <= 4 && len <= n - i; len++) {
            if (is_utf8(s + i, len)) {
                whole = len;
                break;
            }
            static const char *const rest[] = {"\x80", "\xbf", "\x80\x80", "\xbf\xbf", "\x80\x80\x80", "\xbf\xbf\xbf"};
            for (size_t k = 0; k < COUNTOF(rest); k++) {
                char candidate[8];
                memcpy(candidate, s + i, len);
                strcpy(candidate + len, rest[k]);
                size_t all = len + strlen(rest[k]);
                unsigned char c = (unsigned char)s[i];
                bool one_character = all == (c < 0xc0 ? 1u : c < 0xe0 ? 2u : c < 0xf0 ? 3u : 4u);
                if (one_character && is_utf8(candidate, all))
                    begun = len;
            }
        }
        if (whole)
            buf_bytes(out, s + i, whole);
        else
            buf_str(out, "\xef\xbf\xbd");
        i += whole ? whole : begun;
    }
}

static void check_bytes(const Tokenizer *t, const char *bytes, size_t n, const char *want) {
    int32_t ids[64];
    assert_true(n <= COUNTOF(ids));
    for (size_t i = 0; i < n; i++)
        ids[i] = 4 + (unsigned char)bytes[i];
    Buf out = {0}, repaired = {0};
    push_all(t, ids, (int)n, &out);
    assert_string_equal(out.s ? out.s : "", want);
    repair(bytes, n, &repaired);
    assert_string_equal(repaired.s ? repaired.s : "", want);
    buf_free(&out);
    buf_free(&repaired);
}

#define BAD "\xef\xbf\xbd"

static void bytes_by_hand(void **state) {
    (void)state;
    Vocab *v = vocab_new("llama", true);
    Tokenizer *t = vocab_tokenizer(v);
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"", ""},
        {"abc", "abc"},
        {"\xc3\xa9", "\xc3\xa9"},
        {"\xf0\x9f\x98\x80!", "\xf0\x9f\x98\x80!"},
        {"\xf0\x9f\x98", BAD},      /* unfinished: one mark */
        {"\xf0\x9f\x98x", BAD "x"}, /* broken off */
        {"\xf0\x9f\xf0\x9f\x98\x80", BAD "\xf0\x9f\x98\x80"},
        {"\x80\x80", BAD BAD}, /* no beginning */
        {"\xff\xfe", BAD BAD},
        {"\xc0\xaf", BAD BAD}, /* too long a form */
        {"\xe0\x80\xaf", BAD BAD BAD},
        {"\xed\xa0\x80", BAD BAD BAD}, /* a surrogate */
        {"\xed\x9f\xbf", "\xed\x9f\xbf"},
        {"\xf4\x90\x80\x80", BAD BAD BAD BAD}, /* beyond U+10FFFF */
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
        {"\xe4\xb8\xe4\xb8\xad", BAD "\xe4\xb8\xad"},
        {"\xe4"
         "a",
         BAD "a"},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++)
        check_bytes(t, cases[i].bytes, strlen(cases[i].bytes), cases[i].want);
    tokenizer_free(t);
    vocab_free(v);
}

static void held_until_complete(void **state) {
    (void)state;
    Vocab *v = vocab_new("llama", true);
    int tail = vocab_add(v, "\x98\x80\xe2\x96\x81ok", NORMAL, 0); /* ends a character, then a meta-space */
    Tokenizer *t = vocab_tokenizer(v);
    Detokenizer d = {.t = t};
    Buf out = {0};
    detok_push(&d, 4 + 0xf0, &out);
    detok_push(&d, 4 + 0x9f, &out);
    assert_int_equal(out.n, 0);
    detok_push(&d, 2, &out); /* a control token shows nothing and breaks nothing */
    detok_push(&d, tail, &out);
    assert_string_equal(out.s, "\xf0\x9f\x98\x80 ok");
    d.show_control = true;
    detok_push(&d, 2, &out);
    detok_push(&d, 1 << 20, &out);
    assert_string_equal(out.s, "\xf0\x9f\x98\x80 ok<bos>");
    buf_free(&out);
    tokenizer_free(t);
    vocab_free(v);
}

/* Any sequence of tokens, among them tokens whose texts begin or end inside a character. */
static void random_tokens(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        uint64_t r = seed + (uint64_t)i * 104729;
        Vocab *v = random_vocab(&r, i % 2 ? "llama" : "gemma4", false);
        for (int k = 0; k < 20; k++) {
            char *text = arena_alloc(v->arena, 8);
            for (int b = 0; b < 7; b++)
                text[b] = (char)(1 + random_below(&r, 255));
            text[1 + random_below(&r, 6)] = 0;
            vocab_add(v, text, NORMAL, 0);
        }
        Tokenizer *t = vocab_tokenizer(v);
        int32_t ids[300];
        int n = (int)random_below(&r, COUNTOF(ids));
        Buf out = {0}, raw = {0}, want = {0};
        for (int k = 0; k < n; k++) {
            bool any = random_below(&r, 2);
            ids[k] = any ? (int32_t)random_below(&r, (uint32_t)v->tokens.n) : 4 + 0x80 + (int)random_below(&r, 0x80);
            Str piece = tokenizer_piece(t, ids[k], false);
            buf_bytes(&raw, piece.s, piece.n);
        }
        push_all(t, ids, n, &out);
        repair(raw.s, raw.n, &want);
        assert_int_equal(out.n, want.n);
        if (out.n)
            assert_memory_equal(out.s, want.s, out.n);
        buf_free(&out);
        buf_free(&raw);
        buf_free(&want);
        tokenizer_free(t);
        vocab_free(v);
    }
}

/* decode(encode(text)) == text for any valid text without U+2581 (which stands for a space), when the vocabulary has
 * a token for everything that holds a meta-space. */
static void round_trip(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        uint64_t r = seed + (uint64_t)i * 15485863;
        Vocab *v = random_vocab(&r, i % 2 ? "llama" : "gemma4", true);
        v->add_space_prefix = false;
        Tokenizer *t = vocab_tokenizer(v);
        for (int k = 0; k < 20; k++) {
            Buf text = {0}, out = {0};
            random_text(&r, (int)random_below(&r, 80), &text);
            TokenList ids = {0};
            tokenizer_encode(t, v->arena, text.s, text.n, (EncodeOptions){.add_bos = true, .parse_special = false},
                             &ids);
            push_all(t, ids.v, ids.n, &out);
            assert_int_equal(out.n, text.n);
            if (out.n)
                assert_memory_equal(out.s, text.s, out.n);
            buf_free(&text);
            buf_free(&out);
        }
        tokenizer_free(t);
        vocab_free(v);
    }
}

int main(int argc, char **argv) {
    seed = test_seed(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_by_hand),
        cmocka_unit_test(held_until_complete),
        cmocka_unit_test(random_tokens),
        cmocka_unit_test(round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
