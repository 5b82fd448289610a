/* buf.c - growing text, and numbers that read back as themselves. */
#include "ir/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(Buf *b, size_t more) {
    if (b->cap - b->n > more)
        return;
    size_t cap = b->cap ? b->cap : 256;
    while (cap - b->n <= more)
        cap *= 2;
    char *s = realloc(b->s, cap);
    if (!s)
        ICE("out of memory for a text of %zu bytes", cap);
    b->s = s;
    b->cap = cap;
}

void buf_bytes(Buf *b, const void *p, size_t n) {
    reserve(b, n);
    if (n)
        memcpy(b->s + b->n, p, n);
    b->n += n;
    b->s[b->n] = 0;
}

void buf_str(Buf *b, const char *s) {
    buf_bytes(b, s, strlen(s));
}

void buf_char(Buf *b, char c) {
    buf_bytes(b, &c, 1);
}

void buf_printf(Buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        ICE("bad format '%s'", fmt);
    reserve(b, (size_t)n);
    vsnprintf(b->s + b->n, (size_t)n + 1, fmt, again);
    va_end(again);
    b->n += (size_t)n;
}

void buf_free(Buf *b) {
    free(b->s);
    *b = (Buf){0};
}

void format_f32(char *out, float x) {
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(out, 32, "%.*g", digits, (double)x);
        if (strtof(out, NULL) == x)
            return;
    }
}

void format_f64(char *out, double x) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, x);
        if (strtod(out, NULL) == x)
            return;
    }
}
