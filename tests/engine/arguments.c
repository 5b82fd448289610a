/* arguments.c - see arguments.h. */
#include "tests/engine/arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool set(const Argument *rows, size_t n, const char *name, const char *value) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].name, name) != 0)
            continue;
        if (rows[i].text)
            *rows[i].text = value;
        else if (rows[i].number)
            *rows[i].number = atoll(value);
        else
            *rows[i].real = atof(value);
        return rows[i].text || (rows[i].number ? *rows[i].number > 0 : *rows[i].real > 0);
    }
    return false;
}

int arguments_read(const Argument *rows, size_t n, int argc, char **argv) {
    int at = 1;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2)
        if (!set(rows, n, argv[at], argv[at + 1]))
            return -1;
    return at;
}

void file_read(const char *path, Buf *to) {
    char block[4096];
    FILE *f = fopen(path, "rb");
    for (size_t n; f && (n = fread(block, 1, sizeof block, f)) > 0;)
        buf_bytes(to, block, n);
    if (!f || fclose(f) != 0)
        ICE("cannot read %s", path);
}
