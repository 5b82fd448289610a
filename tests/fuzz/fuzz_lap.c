/* fuzz_lap.c - model texts: parsing, laying out and checking any bytes ends with messages or a result.
 *
 * Besides not crashing: a text that parses can be laid out, the layout means the same and is its
 * own layout, and a text is refused only with a message.
 */
#include "frontend/frontend.h"
#include "tests/frontend/ast_dump.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok) {
    if (!ok)
        abort();
}

/* The tree as text; false after syntax errors. */
static bool dump_text(Buf *out, const char *text, size_t len) {
    Arena *arena = arena_new();
    Diag *diag = diag_new();
    const ModelDecl *m = fe_parse(arena, diag, diag_source(diag, "fuzz.lap", text, len), text, len);
    bool ok = diag_errors(diag) == 0;
    require(!ok || m);
    if (ok)
        ast_dump(out, m);
    free(diag_text(diag));
    diag_free(diag);
    arena_free(arena);
    return ok;
}

static bool format_text(Buf *out, const char *text, size_t len) {
    Diag *diag = diag_new();
    bool ok = fe_format(out, diag, "fuzz.lap", text, len);
    require(ok == (diag_errors(diag) == 0));
    diag_free(diag);
    return ok;
}

static void check_layout(const char *text, size_t len, const Buf *tree) {
    Buf once = {0};
    Buf twice = {0};
    Buf again = {0};
    require(format_text(&once, text, len));
    require(format_text(&twice, once.s, once.n));
    require(once.n == twice.n && memcmp(once.s, twice.s, once.n) == 0);
    require(dump_text(&again, once.s, once.n));
    require(tree->n == again.n && memcmp(tree->s, again.s, tree->n) == 0);
    buf_free(&once);
    buf_free(&twice);
    buf_free(&again);
}

static void check_head(const char *text, size_t len) {
    Arena *arena = arena_new();
    FeHead head;
    require(!fe_head(arena, text, len, &head) || head.name);
    arena_free(arena);
}

static void check_meaning(const char *text, size_t len, bool parses) {
    Arena *arena = arena_new();
    Diag *diag = diag_new();
    bool ok = fe_check(arena, diag, "fuzz.lap", text, len);
    require(ok == (diag_errors(diag) == 0));
    require(parses || !ok);
    diag_free(diag);
    arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size ? size : 1); /* no byte more: reading past the end is found */
    require(text != NULL);
    if (size)
        memcpy(text, data, size);
    Buf tree = {0};
    bool parses = dump_text(&tree, text, size);
    if (parses)
        check_layout(text, size, &tree);
    check_head(text, size);
    check_meaning(text, size, parses);
    buf_free(&tree);
    free(text);
    return 0;
}
