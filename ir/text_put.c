/* text_put.c - names, strings and places as the text forms write them; text_lex.c is the inverse. */
#include "ir/text_lex.h"

#include <string.h>

static bool word_start(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool word_part(unsigned char c) {
    return word_start(c) || (c >= '0' && c <= '9') || c == '.';
}

/* True when the parser reads the name as one word; `inf` and `nan` it would read as numbers. */
static bool plain_word(const char *s) {
    if (!word_start((unsigned char)*s) || strcmp(s, "inf") == 0 || strcmp(s, "nan") == 0)
        return false;
    while (word_part((unsigned char)*s))
        s++;
    return *s == 0;
}

/* True when a file name needs no quotes in a trailing place. */
static bool plain_path(const char *s) {
    for (const char *p = s; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c <= 0x20 || c == 0x7f || c == '"' || c == '\\' || c == '#')
            return false;
    }
    return *s != 0;
}

void text_put_string(Buf *out, const char *s, size_t n) {
    buf_char(out, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c == '\n')
            buf_str(out, "\\n");
        else if (c == '\t')
            buf_str(out, "\\t");
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_char(out, (char)c);
    }
    buf_char(out, '"');
}

void text_put_name(Buf *out, const char *name) {
    if (plain_word(name))
        buf_str(out, name);
    else
        text_put_string(out, name, strlen(name));
}

void text_put_end(Buf *out, const Diag *diag, SrcLoc at) {
    const char *file = at.file ? diag_source_name(diag, at.file) : NULL;
    if (file) {
        buf_str(out, "  # ");
        if (plain_path(file))
            buf_str(out, file);
        else
            text_put_string(out, file, strlen(file));
        buf_printf(out, ":%d:%d", at.line, at.col);
    }
    buf_char(out, '\n');
}
