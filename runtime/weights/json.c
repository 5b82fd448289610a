/* json.c - JSON that came from outside: jansson behind two guards.
 *
 * jansson bounds nesting only at 2048 and the number of values not at all, and each value costs tens
 * of bytes for two of text. So a scan over the text counts both first; it need not understand the
 * text, only skip strings.
 */
#include "runtime/weights/json.h"
#include "runtime/weights/weights_int.h"

#include <string.h>

enum {
    MAX_DEPTH = 16,
    MAX_VALUES = 4000000, /* about 400,000 tensors */
};

typedef struct Scan {
    int depth; /* deepest nesting */
    int64_t values;
    bool minus; /* a minus sign outside strings, not in an exponent */
} Scan;

static Scan scan_json(const uint8_t *text, size_t n) {
    Scan s = {0};
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            s.values++;
            if (++depth > s.depth)
                s.depth = depth;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == ',' || c == ':') {
            s.values++;
        } else if (c == '-' && (i == 0 || (text[i - 1] | 0x20) != 'e')) {
            s.minus = true;
        }
    }
    return s;
}

/* jansson quotes the text near the error, which may be anything. */
static void make_printable(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
            *s = '?';
}

json_t *json_read(const uint8_t *text, size_t n, const char *what, SrcLoc at, bool *minus, Diag *diag) {
    Scan s = scan_json(text, n);
    if (s.depth > MAX_DEPTH) {
        diag_error(diag, at, "%s: nested %d deep; the limit is %d", what, s.depth, MAX_DEPTH);
        return NULL;
    }
    if (s.values > MAX_VALUES) {
        diag_error(diag, at, "%s: more than %d values", what, MAX_VALUES);
        return NULL;
    }
    json_error_t err;
    json_t *root = json_loadb((const char *)text, n, JSON_REJECT_DUPLICATES, &err);
    if (!root) {
        make_printable(err.text);
        diag_error(diag, at, "%s: line %d, column %d: %s", what, err.line, err.column, err.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        diag_error(diag, at, "%s: must be an object", what);
        json_decref(root);
        return NULL;
    }
    if (minus)
        *minus = s.minus;
    return root;
}

/* Maps a file that may have so many bytes. */
static bool map_small(const char *path, size_t max_bytes, Diag *diag, FileView *f) {
    if (!file_map(path, f, NULL, diag))
        return false;
    if (f->size <= max_bytes)
        return true;
    diag_error(diag, file_loc(diag, path), "has %zu bytes; the limit for this file is %zu", f->size, max_bytes);
    file_unmap(*f);
    return false;
}

json_t *json_read_file(const char *path, size_t max_bytes, Diag *diag) {
    FileView f;
    if (!map_small(path, max_bytes, diag, &f))
        return NULL;
    json_t *root = json_read(f.data, f.size, "JSON", file_loc(diag, path), NULL, diag);
    file_unmap(f);
    return root;
}

bool file_text(Arena *a, const char *path, size_t max_bytes, Diag *diag, Str *out) {
    FileView f;
    if (!map_small(path, max_bytes, diag, &f))
        return false;
    *out = (Str){arena_strndup(a, (const char *)f.data, f.size), f.size};
    file_unmap(f);
    return true;
}

Str json_str(Arena *a, const json_t *s) {
    size_t n = json_string_length(s);
    return (Str){arena_strndup(a, json_string_value(s), n), n};
}
