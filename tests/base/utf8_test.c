/* utf8_test.c - characters of UTF-8 against a decoder that works from numbers, not from byte ranges. */
#include "ir/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Bytes of a code of any size up to 21 bits in `len` bytes, whether or not that is its shortest form. */
static void encode(uint32_t code, int len, char *out) {
    static const unsigned char mark[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = len - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(mark[len] | code);
}

static bool valid(uint32_t code, int len) {
    int shortest = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    return len == shortest && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
}

/* Every number in every length: overlong forms, surrogates and what is too large are no characters. */
static void every_number(void **state) {
    (void)state;
    static const uint32_t most[] = {0, 0x80, 0x800, 0x10000, 0x200000};
    for (int len = 1; len <= 4; len++)
        for (uint32_t code = 0; code < most[len]; code++) {
            char s[UTF8_MAX];
            uint32_t got = 77;
            encode(code, len, s);
            int want = valid(code, len) ? len : 0;
            if (utf8_length(s, UTF8_MAX) != want || utf8_decode(s, (size_t)len, &got) != want ||
                got != (want ? code : 77) || utf8_begun(s, (size_t)len) != want)
                fail_msg("U+%04X in %d bytes", code, len);
        }
}

/* Is there an end that makes a character of these n bytes? */
static bool can_end(const char *s, int n, int len) {
    char all[UTF8_MAX];
    memcpy(all, s, (size_t)n);
    if (n == len)
        return utf8_length(all, (size_t)len) == len;
    static const char ends[] = "\x80\x8f\x90\x9f\xa0\xbf"; /* of the ranges that Unicode makes a difference between */
    for (int i = 0; ends[i]; i++) {
        all[n] = ends[i];
        if (can_end(all, n + 1, len))
            return true;
    }
    return false;
}

/* One byte and two bytes, all of them: what is begun can be ended, and the other way round. */
static void beginnings(void **state) {
    (void)state;
    for (int x = 0; x < 0x10000; x++)
        for (int n = 1; n <= 2; n++) {
            const char s[2] = {(char)(x >> 8), (char)x};
            int len = utf8_begun(s, (size_t)n);
            for (int l = n; l <= 4; l++)
                if (can_end(s, n, l) != (len == l))
                    fail_msg("%04x, %d bytes: begun %d, length %d", (unsigned)x, n, len, l);
            if (len > n)
                assert_int_equal(utf8_length(s, (size_t)n), 0);
        }
}

/* Texts that end early, each in memory of just its size, and none at all. */
static void nothing_beyond_the_end_is_read(void **state) {
    (void)state;
    static const char *const whole[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x99\x82"};
    uint32_t code = 0;
    for (size_t i = 0; i < 4; i++)
        for (size_t n = 0; n <= i + 1; n++) {
            char *s = malloc(n ? n : 1);
            assert_non_null(s);
            memcpy(s, whole[i], n);
            assert_int_equal(utf8_length(s, n), n == i + 1 ? n : 0);
            assert_int_equal(utf8_decode(s, n, &code), n == i + 1 ? n : 0);
            assert_int_equal(utf8_begun(s, n), n ? i + 1 : 0);
            assert_int_equal(utf8_span(s, n), n);
            free(s);
        }
    assert_int_equal(code, 0x1f642);
}

static void cutting(void **state) {
    (void)state;
    assert_int_equal(utf8_span("\x80\x80", 2), 1); /* begins nothing */
    assert_int_equal(utf8_span("\xff\xff\xff\xff\xff", 5), 4);
    assert_int_equal(utf8_span("ab", 2), 1);
    assert_int_equal(utf8_span("\xe2\x82\xac!", 4), 3);
    assert_true(utf8_starts('a') && utf8_starts('\xc3') && utf8_starts('\xff'));
    assert_false(utf8_starts('\x80') || utf8_starts('\xbf'));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number),
        cmocka_unit_test(beginnings),
        cmocka_unit_test(nothing_beyond_the_end_is_read),
        cmocka_unit_test(cutting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
