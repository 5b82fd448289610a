/* frontend.c - from text to module: parse, check, expand, verify. */
#include "frontend/frontend.h"
#include "frontend/lower.h"
#include "frontend/prelude.h"

#include <string.h>

/* Parses and checks; false after errors. The prelude goes first: a text full of mistakes must not keep
 * it from being read. */
static bool read_program(Arena *arena, Diag *diag, const char *name, const char *text, size_t len, Program *out) {
    int errors = diag_errors(diag);
    int prelude = diag_source(diag, "prelude.lap", prelude_text, prelude_len);
    int file = diag_source(diag, name, text, len);
    if (diag_full(diag))
        return false;
    out->prelude = fe_parse(arena, diag, prelude, prelude_text, prelude_len);
    if (!out->prelude)
        ICE("prelude.lap does not parse");
    out->model = fe_parse(arena, diag, file, text, len);
    return out->model && diag_errors(diag) == errors && check_program(arena, diag, out);
}

Module *fe_compile(Arena *arena, Diag *diag, const FeInput *in) {
    Program p;
    if (!read_program(arena, diag, in->name, in->text, in->len, &p))
        return NULL;
    Module *m = l_program(arena, diag, &p, in);
    return m && ir_verify(m) ? m : NULL;
}

bool fe_check(Arena *arena, Diag *diag, const char *name, const char *text, size_t len) {
    Program p;
    return read_program(arena, diag, name, text, len, &p);
}
