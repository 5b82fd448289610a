/* json.c - JSON output over jansson. */
#include "ir/utf8.h"
#include "runtime/cli/cli.h"
#include <stdlib.h>
#include <string.h>

json_t *json_bytes(const char *s, size_t n) {
    Buf b = {0};
    for (size_t i = 0; i < n;) {
        size_t len = (size_t)utf8_length(s + i, n - i);
        if (len)
            buf_bytes(&b, s + i, len);
        else
            buf_str(&b, UTF8_REPLACEMENT);
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
