/* json.c - JSON output over jansson. */
#include "runtime/cli/cli.h"
#include <stdlib.h>
#include <string.h>

/* Length of the UTF-8 character at s, 0 when there is none. */
static size_t utf8_length(const unsigned char *s, size_t n) {
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    bool beyond = (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF4 && s[1] > 0x8F);
    return overlong || beyond ? 0 : len;
}

json_t *json_bytes(const char *s, size_t n) {
    Buf b = {0};
    for (size_t i = 0; i < n;) {
        size_t len = utf8_length((const unsigned char *)s + i, n - i);
        if (len)
            buf_bytes(&b, s + i, len);
        else
            buf_str(&b, "\xEF\xBF\xBD");
        i += len ? len : 1;
    }
    json_t *j = json_stringn(b.n ? b.s : "", b.n);
    buf_free(&b);
    return j;
}

void json_print(json_t *j, bool indent) {
    size_t layout = indent ? JSON_INDENT(2) : JSON_COMPACT;
    json_dumpf(j, stdout, layout | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY);
    putchar('\n');
    json_decref(j);
}
