/* text_chat.c - conversations as text. */
#include "vocab.h"

#include <string.h>

#define S(text)                                                                                                        \
    { text, sizeof(text) - 1 }

/* A turn for each text, the reply opened with an empty hidden part. */
static const ChatFormat own_system = {
    .present = true,
    .user = {S("<|turn>user\n"), S("<turn|>\n")},
    .model = {S("<|turn>model\n"), S("<turn|>\n")},
    .system = {S("<|turn>system\n"), S("<turn|>\n")},
    .has_system = true,
    .prompt = S("<|turn>model\n"),
    .hide = {S("<|channel>"), S("<channel|>")},
};

/* The system text inside the user's turn. */
static const ChatFormat inner_system = {
    .present = true,
    .user = {S("<u>"), S("</u>")},
    .model = {S("<m>"), S("</m>")},
    .system = {S("<<"), S(">>")},
    .has_system = true,
    .system_in_user = true,
    .prompt = S("<m>"),
};

static const ChatFormat no_system = {
    .present = true,
    .user = {S("<u>"), S("</u>")},
    .model = {S("<m>"), S("</m>")},
    .prompt = S("<m>"),
};

typedef struct Case {
    const ChatFormat *format;
    const char *turns; /* "s text~u text~m text" */
    const char *want;
} Case;

static const Case cases[] = {
    {&own_system, "", "<|turn>model\n"},
    {&own_system, "u Hello", "<|turn>user\nHello<turn|>\n<|turn>model\n"},
    {&own_system, "s Be kind.~u  Hi \n\t~m  Hey ~u Bye",
     "<|turn>system\nBe kind.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nHey<turn|>\n<|turn>user\nBye<turn|>\n"
     "<|turn>model\n"},
    {&own_system, "u a b~s late", "<|turn>user\na b<turn|>\n<|turn>system\nlate<turn|>\n<|turn>model\n"},
    {&own_system, "s  ~u a", "<|turn>user\na<turn|>\n<|turn>model\n"}, /* an empty system text is nothing */
    {&own_system, "u ", "<|turn>user\n<turn|>\n<|turn>model\n"},       /* an empty question is one */
    {&own_system, "m a~m b", "<|turn>model\na<turn|>\n<|turn>model\nb<turn|>\n<|turn>model\n"}, /* any order */

    /* hidden parts: only of the model, anywhere, unfinished, unopened */
    {&own_system, "m <|channel>thought\nhm<channel|>Yes", "<|turn>model\nYes<turn|>\n<|turn>model\n"},
    {&own_system, "m A <|channel>x<channel|>B<|channel>y<channel|> C", "<|turn>model\nA B C<turn|>\n<|turn>model\n"},
    {&own_system, "m A <|channel>never ends", "<|turn>model\nA<turn|>\n<|turn>model\n"},
    {&own_system, "m A<channel|>B", "<|turn>model\nAB<turn|>\n<|turn>model\n"},
    {&own_system, "m <|channel>a<|channel>b<channel|>c", "<|turn>model\nc<turn|>\n<|turn>model\n"},
    {&own_system, "m <|channel>only<channel|>", "<|turn>model\n<turn|>\n<|turn>model\n"},
    {&own_system, "u <|channel>x<channel|>", "<|turn>user\n<|channel>x<channel|><turn|>\n<|turn>model\n"},
    {&no_system, "m <|channel>x<channel|>", "<m><|channel>x<channel|></m><m>"}, /* the format hides nothing */

    {&inner_system, "s sys~u a~m b~u c", "<u><<sys>>a</u><m>b</m><u>c</u><m>"},
    {&inner_system, "s one~s two~u a", "<u><<one>><<two>>a</u><m>"},
    {&inner_system, "u a~s later~u b~u c", "<u>a</u><u><<later>>b</u><u>c</u><m>"},
    {&inner_system, "s sys~m b~u c", "<m>b</m><u><<sys>>c</u><m>"},
    {&inner_system, "s alone", "<u><<alone>></u><m>"}, /* nothing is lost */
    {&inner_system, "s  ", "<m>"},
    {&no_system, "s sys~u a~u b", "<u>sys\n\na</u><u>b</u><m>"},
    {&no_system, "u a~s end", "<u>a</u><u>end\n\n</u><m>"},
    {&no_system, "s  ~u a", "<u>a</u><m>"},
};

static int parse_turns(const char *text, ChatTurn *turns) {
    int n = 0;
    while (*text) {
        size_t len = strcspn(text, "~");
        turns[n].role = *text == 's' ? CHAT_SYSTEM : *text == 'u' ? CHAT_USER : CHAT_MODEL;
        turns[n++].text = (Str){text + 2, len - 2};
        text += len + (text[len] == '~');
    }
    return n;
}

/* Ranges ascend, are not empty. */
static void assert_ranges(const RangeList *typed, const Buf *out) {
    size_t at = 0;
    for (int i = 0; i < typed->n; i++) {
        assert_true(at <= typed->v[i].from && typed->v[i].from < typed->v[i].to && typed->v[i].to <= out->n);
        at = typed->v[i].to;
    }
}

static void conversations(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        ChatTurn turns[8];
        int n = parse_turns(cases[i].turns, turns);
        Buf out = {0};
        RangeList typed = {0};
        Arena *a = arena_new();
        chat_render(a, cases[i].format, turns, n, &out, &typed);
        assert_string_equal(out.s, cases[i].want);
        assert_ranges(&typed, &out);
        arena_free(a);
        buf_free(&out);
    }
}

/* Appends; a format of nothing but the texts; texts that hold NUL bytes. */
static void odd_formats(void **state) {
    (void)state;
    const ChatFormat bare = {.present = true};
    const ChatTurn turns[] = {{CHAT_USER, S("a\0b ")}, {CHAT_MODEL, S("c")}, {CHAT_MODEL, {NULL, 0}}};
    Buf out = {0};
    RangeList typed = {0};
    Arena *a = arena_new();
    buf_str(&out, "x");
    chat_render(a, &bare, turns, 3, &out, &typed);
    assert_int_equal(typed.n, 2);
    assert_true(typed.v[0].from == 1 && typed.v[0].to == 4 && typed.v[1].from == 4 && typed.v[1].to == 5);
    arena_free(a);
    assert_int_equal(out.n, 5);
    assert_memory_equal(out.s, "xa\0bc", 5);
    buf_free(&out);
}

/* A hidden part whose end is not named goes to the end of the text. */
static void hidden_without_end(void **state) {
    (void)state;
    const ChatFormat f = {.present = true, .hide = {S("##"), {"", 0}}};
    const ChatTurn turn = {CHAT_MODEL, S("seen ## not ## seen")};
    Buf out = {0};
    RangeList typed = {0};
    Arena *a = arena_new();
    chat_render(a, &f, &turn, 1, &out, &typed);
    arena_free(a);
    assert_string_equal(out.s, "seen");
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations),
        cmocka_unit_test(odd_formats),
        cmocka_unit_test(hidden_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
