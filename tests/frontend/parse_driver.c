/* parse_driver.c - parser and formatter for syntax_test.py.
 *
 *   parse_driver ast FILE      messages, then the tree if there were no errors
 *   parse_driver format FILE   the text formatted, or messages
 *   parse_driver head FILE     name and architecture, or "no head"
 *   parse_driver check FILE    messages of everything that needs no weights
 *
 * Exit status 1 after errors. Messages name the file by its last part, wherever it lies.
 */
#include "frontend/frontend.h"
#include "tests/frontend/ast_dump.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool run_ast(const char *name, const char *text, size_t len) {
    Arena *arena = arena_new();
    Diag *diag = diag_new();
    int file = diag_source(diag, name, text, len);
    const ModelDecl *m = fe_parse(arena, diag, file, text, len);
    diag_print(diag, stdout, false);
    bool ok = diag_errors(diag) == 0;
    if (ok) {
        Buf out = {0};
        ast_dump(&out, m);
        fwrite(out.s, 1, out.n, stdout);
        buf_free(&out);
    }
    diag_free(diag);
    arena_free(arena);
    return ok;
}

static bool run_format(const char *name, const char *text, size_t len) {
    Diag *diag = diag_new();
    Buf out = {0};
    bool ok = fe_format(&out, diag, name, text, len);
    diag_print(diag, stdout, false);
    if (ok)
        fwrite(out.s, 1, out.n, stdout);
    buf_free(&out);
    diag_free(diag);
    return ok;
}

static bool run_head(const char *name, const char *text, size_t len) {
    (void)name;
    Arena *arena = arena_new();
    FeHead head;
    bool ok = fe_head(arena, text, len, &head);
    printf("%s", ok ? head.name : "no head");
    for (int i = 0; ok && i < head.archs.n; i++)
        printf(" %s", head.archs.v[i]);
    if (ok && head.target)
        printf(" for %s", head.target);
    if (ok && head.drafts)
        printf(" drafts %s", head.drafts);
    putchar('\n');
    arena_free(arena);
    return ok;
}

static bool run_check(const char *name, const char *text, size_t len) {
    Arena *arena = arena_new();
    Diag *diag = diag_new();
    bool ok = fe_check(arena, diag, name, text, len);
    diag_print(diag, stdout, false);
    diag_free(diag);
    arena_free(arena);
    return ok;
}

static char *read_all(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(2);
    }
    Buf b = {0};
    char block[65536];
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;)
        buf_bytes(&b, block, n);
    fclose(f);
    buf_str(&b, "");
    *len = b.n;
    return b.s;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        bool (*run)(const char *name, const char *text, size_t len);
    } modes[] = {{"ast", run_ast}, {"format", run_format}, {"head", run_head}, {"check", run_check}};
    for (size_t i = 0; argc == 3 && i < COUNTOF(modes); i++) {
        if (strcmp(argv[1], modes[i].name) != 0)
            continue;
        size_t len;
        char *text = read_all(argv[2], &len);
        const char *slash = strrchr(argv[2], '/');
        bool ok = modes[i].run(slash ? slash + 1 : argv[2], text, len);
        free(text);
        return ok ? 0 : 1;
    }
    fprintf(stderr, "usage: parse_driver ast|format|head|check FILE\n");
    return 2;
}
