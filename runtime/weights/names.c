/* names.c - which names of keys and tensors are let in.
 *
 * Names are printed, compared as C strings and written into text, so a NUL (two names that look
 * the same to strcmp), a terminal escape or broken UTF-8 must not get past the readers.
 */
#include "ir/utf8.h"
#include "runtime/weights/weights_int.h"

const char *name_problem(Str name, size_t max) {
    if (name.n == 0)
        return "is empty";
    if (name.n > max)
        return "is too long";
    for (size_t i = 0; i < name.n;) {
        uint32_t code = 0;
        int len = utf8_decode(name.s + i, name.n - i, &code);
        if (len == 0)
            return "is not valid UTF-8";
        if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            return "has a control character";
        i += (size_t)len;
    }
    return NULL;
}
