/* cmd_check.c - lap check: diagnostics of model texts, with or without weights. */
#include "runtime/cli/cli.h"
#include <stdlib.h>
#include <string.h>

/* Compiles against the weights; *what says what came of it. */
static bool compile(Cli *c, const TextSource *t, const Bound *b, const char **what) {
    Module *m = cli_compile(c, b, t);
    if (!m || !ir_verify(m))
        return false;
    *what = arena_printf(c->arena, " (%d weight%s, %d cache%s, %d %s)", m->weights.n, m->weights.n == 1 ? "" : "s",
                         m->caches.n, m->caches.n == 1 ? "" : "s", m->graphs.n, m->graphs.n == 1 ? "entry" : "entries");
    return true;
}

static bool check_text(Cli *c, const char *path, const Bound *b, const char **what) {
    TextSource t;
    *what = "";
    if (!cli_is_operand(c, path) || !text_read(c->arena, c->diag, path, &t))
        return false;
    return b->weights ? compile(c, &t, b, what) : fe_check(c->arena, c->diag, t.name, t.text, t.len);
}

/* Of a message; what it has no place for is null. */
static json_t *json_message(const Cli *c, const DiagMessage *m) {
    const char *file = diag_source_name(c->diag, m->at.file);
    return json_pack("{s:o, s:o, s:o, s:o}", "file", m->at.file ? json_bytes(file, strlen(file)) : json_null(), "line",
                     m->at.line ? json_integer(m->at.line) : json_null(), "column",
                     m->at.line && m->at.col ? json_integer(m->at.col) : json_null(), "text",
                     json_bytes(m->text, strlen(m->text)));
}

/* The messages one by one, each with the notes that follow it. */
static json_t *json_diagnostics(const Cli *c) {
    json_t *all = json_array(), *notes = NULL;
    for (int i = 0; i < diag_count(c->diag); i++) {
        const DiagMessage *m = diag_message(c->diag, i);
        json_t *j = json_message(c, m);
        if (m->kind == DIAG_NOTE && notes) {
            json_array_append_new(notes, j);
            continue;
        }
        json_object_set_new(j, "severity", json_string(diag_word(m->kind)));
        json_object_set_new(j, "notes", notes = json_array());
        json_array_append_new(all, j);
    }
    return all;
}

static json_t *json_result(const Cli *c, const char *path, bool ok) {
    char *text = diag_text(c->diag);
    json_t *j = json_pack("{s:s, s:b, s:i}", "file", path, "ok", ok, "errors", diag_errors(c->diag));
    json_object_set_new(j, "messages", json_bytes(text, strlen(text)));
    json_object_set_new(j, "diagnostics", json_diagnostics(c));
    free(text);
    return j;
}

static int check_all(Cli *c, const Bound *b) {
    json_t *all = json_array();
    int code = EXIT_FINE;
    for (int i = 0; i < c->o.n_operands; i++) {
        const char *path = c->o.operand[i];
        const char *what;
        bool ok = check_text(c, path, b, &what) && diag_errors(c->diag) == 0;
        if (!ok)
            code = EXIT_INPUT;
        if (c->o.json) {
            json_array_append_new(all, json_result(c, path, ok));
            diag_clear(c->diag);
            continue;
        }
        cli_report(c);
        if (ok && !c->o.quiet)
            printf("%s: ok%s\n", path, what);
    }
    if (c->o.json)
        json_print(all, true);
    else
        json_decref(all);
    return code;
}

int cmd_check(Cli *c) {
    Bound b;
    int code = cli_bind(c, &b);
    if (code == EXIT_FINE)
        code = check_all(c, &b);
    cli_unbind(&b);
    return code;
}
