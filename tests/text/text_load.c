/* text_load.c - what tokenizer_new accepts, and what it says about the rest. */
#include "vocab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void Spoil(Vocab *v);

static Vocab *small(const char *kind, bool bytes) {
    Vocab *v = vocab_new(kind, bytes);
    vocab_add(v, "a", NORMAL, -1);
    vocab_add(v, "b", NORMAL, -1);
    vocab_merge(v, "a b");
    return v;
}

#define KEY(name) "tokenizer.ggml." name

static void no_model(Vocab *v) {
    vocab_omit(v, KEY("model"));
}
static void model_none(Vocab *v) {
    vocab_put_text(v, KEY("model"), "none");
}
static void model_unknown(Vocab *v) {
    vocab_put_text(v, KEY("model"), "gpt2");
}
static void model_number(Vocab *v) {
    vocab_put_int(v, KEY("model"), META_INT, 3);
}
static void no_tokens(Vocab *v) {
    vocab_omit(v, KEY("tokens"));
}
static void empty_tokens(Vocab *v) {
    vocab_put_array(v, KEY("tokens"), META_STRING, NULL, 0);
}
static void scalar_tokens(Vocab *v) {
    vocab_put_text(v, KEY("tokens"), "a");
}
static void number_tokens(Vocab *v) {
    static const int64_t i[] = {1, 2};
    vocab_put_array(v, KEY("tokens"), META_INT, i, 2);
}
static void no_types(Vocab *v) {
    vocab_omit(v, KEY("token_type"));
}
static void few_types(Vocab *v) {
    vocab_put_array(v, KEY("token_type"), META_INT, v->types.v, v->types.n - 1);
}
static void type_seven(Vocab *v) {
    v->types.v[5] = 7;
}
static void type_zero(Vocab *v) {
    v->types.v[5] = 0;
}
static void byte_of_bad_text(Vocab *v) {
    vocab_add(v, "<0xG1>", BYTE, 0);
}
static void byte_of_lower_case(Vocab *v) {
    vocab_add(v, "<0xaa>", BYTE, 0);
}
static void no_scores(Vocab *v) {
    vocab_omit(v, KEY("scores"));
}
static void many_scores(Vocab *v) {
    vec_push(v->arena, &v->scores, 0.0);
}
static void nan_score(Vocab *v) {
    v->scores.v[260] = NAN;
}
static void no_merges(Vocab *v) {
    vocab_omit(v, KEY("merges"));
}
static void merge_without_space(Vocab *v) {
    vocab_merge(v, "ab");
}
static void merge_without_left(Vocab *v) {
    vocab_merge(v, " b");
}
static void merge_without_right(Vocab *v) {
    vocab_merge(v, "b ");
}
static void merge_empty(Vocab *v) {
    vocab_merge(v, "");
}
static void eos_too_large(Vocab *v) {
    vocab_put_int(v, KEY("eos_token_id"), META_INT, v->tokens.n);
}
static void eot_negative(Vocab *v) {
    vocab_put_int(v, KEY("eot_token_id"), META_INT, -1);
}
static void eom_too_large(Vocab *v) {
    vocab_put_int(v, KEY("eom_token_id"), META_INT, INT64_MAX);
}
static void pad_too_large(Vocab *v) {
    vocab_put_int(v, KEY("padding_token_id"), META_INT, 4294967295);
}
static void bos_text(Vocab *v) {
    vocab_put_text(v, KEY("bos_token_id"), "<bos>");
}
static void bos_missing(Vocab *v) {
    vocab_omit(v, KEY("bos_token_id"));
}
static void add_bos_text(Vocab *v) {
    vocab_put_text(v, KEY("add_bos_token"), "yes");
}
static void prefix_text(Vocab *v) {
    vocab_put_text(v, KEY("add_space_prefix"), "yes");
}
static void no_unknown(Vocab *v) {
    vocab_omit(v, KEY("unknown_token_id"));
}

static const struct {
    const char *kind;
    bool bytes;
    Spoil *spoil;
    const char *says;
} bad[] = {
    {"llama", true, no_model,
     "test.gguf: error: the file carries no tokenizer (key 'tokenizer.ggml.model' is missing)"},
    {"llama", true, model_none, "key 'tokenizer.ggml.model' is 'none': the file carries no text"},
    {"llama", true, model_unknown, "tokenizers of kind 'gpt2' are not supported; supported: 'llama', 'gemma4'"},
    {"llama", true, model_number, "key 'tokenizer.ggml.model' is not a string"},
    {"llama", true, no_tokens, "key 'tokenizer.ggml.tokens' is missing"},
    {"llama", true, empty_tokens, "key 'tokenizer.ggml.tokens' is empty"},
    {"llama", true, scalar_tokens, "key 'tokenizer.ggml.tokens' is not an array of strings"},
    {"llama", true, number_tokens, "key 'tokenizer.ggml.tokens' is not an array of strings"},
    {"llama", true, no_types, "key 'tokenizer.ggml.token_type' is missing"},
    {"llama", true, few_types, "key 'tokenizer.ggml.token_type' has 261 values, but there are 262 tokens"},
    {"llama", true, type_seven, "key 'tokenizer.ggml.token_type': token 5 has type 7, types are 1 to 6"},
    {"gemma4", true, type_zero, "key 'tokenizer.ggml.token_type': token 5 has type 0, types are 1 to 6"},
    {"llama", true, byte_of_bad_text, "token 262 has the type of bytes, but its text is not of the form <0xHH>"},
    {"llama", true, byte_of_lower_case, "token 262 has the type of bytes, but its text is not of the form <0xHH>"},
    {"llama", true, no_scores, "key 'tokenizer.ggml.scores' is missing"},
    {"llama", true, many_scores, "key 'tokenizer.ggml.scores' has 263 values, but there are 262 tokens"},
    {"llama", true, nan_score, "key 'tokenizer.ggml.scores': the score of token 260 is not a number"},
    {"gemma4", true, no_merges, "key 'tokenizer.ggml.merges' is missing"},
    {"gemma4", true, merge_without_space, "key 'tokenizer.ggml.merges': merge 1 is not two texts with a space between"},
    {"gemma4", true, merge_without_left, "key 'tokenizer.ggml.merges': merge 1 is not two texts with a space between"},
    {"gemma4", true, merge_without_right, "key 'tokenizer.ggml.merges': merge 1 is not two texts with a space between"},
    {"gemma4", true, merge_empty, "key 'tokenizer.ggml.merges': merge 1 is not two texts with a space between"},
    {"llama", true, eos_too_large, "key 'tokenizer.ggml.eos_token_id' is 262, but there are 262 tokens"},
    {"llama", true, eot_negative, "key 'tokenizer.ggml.eot_token_id' is -1, but there are 262 tokens"},
    {"llama", true, eom_too_large,
     "key 'tokenizer.ggml.eom_token_id' is 9223372036854775807, but there are 262 tokens"},
    {"llama", true, pad_too_large, "key 'tokenizer.ggml.padding_token_id' is 4294967295, but there are 262 tokens"},
    {"llama", true, bos_text, "key 'tokenizer.ggml.bos_token_id' is not an integer"},
    {"llama", true, bos_missing,
     "key 'tokenizer.ggml.add_bos_token' asks for a first token, but 'tokenizer.ggml.bos_token_id' is missing"},
    {"llama", true, add_bos_text, "key 'tokenizer.ggml.add_bos_token' is not a truth value"},
    {"llama", true, prefix_text, "key 'tokenizer.ggml.add_space_prefix' is not a truth value"},
    {"gemma4", false, no_unknown,
     "key 'tokenizer.ggml.tokens' has no token for byte 0x00, and there is no "
     "'tokenizer.ggml.unknown_token_id'"},
};

static void bad_files_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(bad); i++) {
        Vocab *v = small(bad[i].kind, bad[i].bytes);
        bad[i].spoil(v);
        assert_null(vocab_tokenizer(v));
        assert_true(diag_errors(v->diag) > 0);
        char *text = diag_text(v->diag);
        if (!strstr(text, bad[i].says))
            fail_msg("case %zu says:\n%sinstead of:\n%s", i, text, bad[i].says);
        free(text);
        vocab_free(v);
    }
}

static void facts_about_tokens(void **state) {
    (void)state;
    Vocab *v = small("llama", true);
    int word = vocab_add(v, "\xe2\x96\x81two\xe2\x96\x81words\xe2\x96", NORMAL, -1);
    int user = vocab_add(v, " \xe2\x96\x81", USER, 0);
    int turn = vocab_add(v, "<end>", CONTROL, 0);
    int empty = vocab_add(v, "", NORMAL, 0);
    int twice = vocab_add(v, "a", NORMAL, 0);
    vocab_put_int(v, KEY("eot_token_id"), META_INT, turn);
    Tokenizer *t = vocab_tokenizer(v);
    assert_int_equal(tokenizer_size(t), v->tokens.n);
    assert_int_equal(tokenizer_bos(t), 2);
    assert_true(tokenizer_is_eos(t, 1) && tokenizer_is_eos(t, turn));
    assert_false(tokenizer_is_eos(t, 0) || tokenizer_is_eos(t, -1) || tokenizer_is_eos(t, 2));
    assert_true(tokenizer_is_control(t, turn) && tokenizer_is_control(t, 3));
    assert_false(tokenizer_is_control(t, user) || tokenizer_is_control(t, 4 + 65) || tokenizer_is_control(t, 260));

    assert_true(str_eq(tokenizer_piece(t, word, false), " two words\xe2\x96")); /* no meta-space: cut short */
    assert_true(str_eq(tokenizer_piece(t, user, false), " \xe2\x96\x81"));
    assert_true(str_eq(tokenizer_piece(t, 4 + 65, false), "A"));
    assert_int_equal(tokenizer_piece(t, 4, false).n, 1); /* the NUL byte is a byte */
    assert_true(str_eq(tokenizer_piece(t, turn, false), ""));
    assert_true(str_eq(tokenizer_piece(t, turn, true), "<end>"));
    assert_true(str_eq(tokenizer_piece(t, empty, true), ""));
    assert_true(str_eq(tokenizer_token(t, word), "\xe2\x96\x81two\xe2\x96\x81words\xe2\x96"));
    assert_true(str_eq(tokenizer_token(t, 4 + 65), "<0x41>"));

    assert_int_equal(tokenizer_find(t, (Str){"<end>", 5}), turn);
    assert_int_equal(tokenizer_find(t, (Str){"<end", 4}), -1);
    assert_int_equal(tokenizer_find(t, (Str){"", 0}), -1);
    assert_int_equal(tokenizer_find(t, (Str){"a", 1}), twice);

    const int32_t outside[] = {-1, v->tokens.n, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < COUNTOF(outside); i++) {
        assert_int_equal(tokenizer_piece(t, outside[i], true).n, 0);
        assert_int_equal(tokenizer_token(t, outside[i]).n, 0);
        assert_false(tokenizer_is_control(t, outside[i]) || tokenizer_is_eos(t, outside[i]));
    }
    tokenizer_free(t);
    vocab_free(v);
}

/* Optional keys may be missing. */
static void little_is_needed(void **state) {
    (void)state;
    const char *const optional[] = {KEY("eos_token_id"), KEY("bos_token_id"), KEY("add_bos_token"),
                                    KEY("unknown_token_id"), KEY("add_space_prefix")};
    Vocab *v = small("llama", true);
    for (size_t i = 0; i < COUNTOF(optional); i++)
        vocab_omit(v, optional[i]);
    Tokenizer *t = vocab_tokenizer(v);
    assert_non_null(t);
    assert_int_equal(tokenizer_bos(t), -1);
    assert_false(tokenizer_is_eos(t, -1));
    TokenList ids = {0};
    tokenizer_encode(t, v->arena, "a", 1, (EncodeOptions){.add_bos = true, .parse_special = false}, &ids);
    /* no BOS; a space in front, which this vocabulary has only as bytes */
    assert_ids(&ids, (const int32_t[]){4 + 0xe2, 4 + 0x96, 4 + 0x81, 260}, 4);
    tokenizer_free(t);
    vocab_free(v);

    v = small("gemma4", true);
    vocab_omit(v, KEY("scores"));
    t = vocab_tokenizer(v);
    assert_non_null(t);
    tokenizer_free(t);
    vocab_free(v);
    tokenizer_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(facts_about_tokens),
        cmocka_unit_test(little_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
