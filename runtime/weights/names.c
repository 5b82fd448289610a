/* names.c - which names of keys and tensors are let in.
 *
 * Names are printed, compared as C strings and written into text, so a NUL (two names that look
 * the same to strcmp), a terminal escape or broken UTF-8 must not get past the readers.
 */
#include "runtime/weights/weights_int.h"

/* Bytes of the UTF-8 character at p, 0 when there is none; *code gets its number. The lowest number
 * of each length rules out overlong forms. */
static int utf8_char(const unsigned char *p, size_t n, uint32_t *code) {
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    int len = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (len == 0 || (size_t)len > n)
        return 0;
    uint32_t c = len == 1 ? p[0] : p[0] & (0x7fu >> len);
    for (int i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < lowest[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *code = c;
    return len;
}

const char *name_problem(Str name, size_t max) {
    if (name.n == 0)
        return "is empty";
    if (name.n > max)
        return "is too long";
    for (size_t i = 0; i < name.n;) {
        uint32_t code = 0;
        int len = utf8_char((const unsigned char *)name.s + i, name.n - i, &code);
        if (len == 0)
            return "is not valid UTF-8";
        if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            return "has a control character";
        i += (size_t)len;
    }
    return NULL;
}
