/* kernel_text.c - see kernel_text.h. */
#include "tests/kernels/kernel_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const KernelText *find(const char *name, size_t len) {
    for (int i = 0; i < n_kernel_texts; i++)
        if (strlen(kernel_texts[i].name) == len && !memcmp(kernel_texts[i].name, name, len))
            return &kernel_texts[i];
    fprintf(stderr, "no kernel text %.*s\n", (int)len, name);
    exit(2);
}

/* Files include few others, and guards end repetition: a text that is included twice costs nothing. */
static void expand(FILE *to, const KernelText *t) {
    static const char include[] = "#include \"";
    const size_t n = sizeof include - 1;
    fprintf(to, "#line 1 \"%s\"\n", t->name);
    int line = 1;
    for (const char *p = t->text; *p; line++) {
        const char *end = strchr(p, '\n');
        end = end ? end + 1 : p + strlen(p);
        if (!strncmp(p, include, n)) {
            const char *name = p + n;
            expand(to, find(name, strcspn(name, "\"\n")));
            fprintf(to, "#line %d \"%s\"\n", line + 1, t->name);
        } else {
            fwrite(p, 1, (size_t)(end - p), to);
        }
        p = end;
    }
}

char *kernel_source(const char *file, const char *defines) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (!to)
        exit(2);
    fputs(defines, to);
    expand(to, find(file, strlen(file)));
    fclose(to);
    return text;
}
