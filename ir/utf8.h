/* utf8.h - characters in UTF-8: where they begin, how long they are, whether they are well-formed.
 *
 * Well-formed means Unicode's table 3-7: the shortest form, no surrogates, nothing above U+10FFFF.
 * n is the number of bytes at s that may be looked at; none beyond them is, and all functions take n = 0.
 */
#ifndef LAP_IR_UTF8_H
#define LAP_IR_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UTF8_MAX = 4 }; /* bytes of a character, at most */

/* What stands for bytes that are no character: U+FFFD. */
#define UTF8_REPLACEMENT "\xef\xbf\xbd"

/* False for the second and further bytes of a character; counting the others counts characters. */
static inline bool utf8_starts(char c) {
    return ((unsigned char)c & 0xc0) != 0x80;
}

/* Bytes up to the next character by the first byte alone: 1..4 and at most n (0 when n is 0). For text that is
 * only to be cut: nothing is checked, and a byte that begins no character is one by itself. */
static inline size_t utf8_span(const char *s, size_t n) {
    if (!n)
        return 0;
    unsigned char c = (unsigned char)s[0];
    size_t len = c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return len < n ? len : n;
}

/* Length of the character that the n bytes are, begin with, or are the beginning of (then more than n);
 * 0 when they cannot become one, or n is 0. */
static inline int utf8_begun(const char *s, size_t n) {
    if (!n)
        return 0;
    const unsigned char *b = (const unsigned char *)s;
    int len = b[0] < 0x80 ? 1 : b[0] < 0xc2 ? 0 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : b[0] < 0xf5 ? 4 : 0;
    for (int i = 1; i < len && (size_t)i < n; i++)
        if (utf8_starts(s[i]))
            return 0;
    if (len > 1 && n > 1) {
        bool overlong = (b[0] == 0xe0 && b[1] < 0xa0) || (b[0] == 0xf0 && b[1] < 0x90);
        bool beyond = (b[0] == 0xed && b[1] > 0x9f) || (b[0] == 0xf4 && b[1] > 0x8f); /* surrogate, too large */
        if (overlong || beyond)
            return 0;
    }
    return len;
}

/* Length of the whole, well-formed character at s; 0 when there is none. */
static inline int utf8_length(const char *s, size_t n) {
    int len = utf8_begun(s, n);
    return (size_t)len <= n ? len : 0;
}

/* As utf8_length; *code gets the character's number, and is left alone when there is none. */
static inline int utf8_decode(const char *s, size_t n, uint32_t *code) {
    int len = utf8_length(s, n);
    if (!len)
        return 0;
    uint32_t c = len == 1 ? (unsigned char)s[0] : (unsigned char)s[0] & (0x7fu >> len);
    for (int i = 1; i < len; i++)
        c = c << 6 | ((unsigned char)s[i] & 0x3f);
    *code = c;
    return len;
}

#endif
