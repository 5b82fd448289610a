/* cmd_check.c - lap check: diagnostics of model texts, with or without weights. */
#include "frontend/frontend.h"
#include "runtime/cli/cli.h"
#include "runtime/engine/modeltext.h"
#include "runtime/weights/weights.h"
#include <stdlib.h>
#include <string.h>

/* Compiles against the weights; *what says what came of it. `in` lacks only the text. */
static bool compile(Cli *c, const TextSource *t, FeInput in, const char **what) {
    in.name = t->name;
    in.text = t->text;
    in.len = t->len;
    Module *m = fe_compile(c->arena, c->diag, &in);
    if (!m || !ir_verify(m))
        return false;
    *what = arena_printf(c->arena, " (%d weight%s, %d cache%s, %d %s)", m->weights.n, m->weights.n == 1 ? "" : "s",
                         m->caches.n, m->caches.n == 1 ? "" : "s", m->graphs.n, m->graphs.n == 1 ? "entry" : "entries");
    return true;
}

static bool check_text(Cli *c, const char *path, const FeInput *in, const char **what) {
    TextSource t;
    *what = "";
    if (!text_read(c->arena, c->diag, path, &t))
        return false;
    return in->file ? compile(c, &t, *in, what) : fe_check(c->arena, c->diag, t.name, t.text, t.len);
}

static json_t *json_result(const Cli *c, const char *path, bool ok) {
    char *text = diag_text(c->diag);
    json_t *j = json_pack("{s:s, s:b, s:i}", "file", path, "ok", ok, "errors", diag_errors(c->diag));
    json_object_set_new(j, "messages", json_bytes(text, strlen(text)));
    free(text);
    return j;
}

static int check_all(Cli *c, const FeInput *in) {
    json_t *all = json_array();
    int code = EXIT_FINE;
    for (int i = 0; i < c->o.n_operands; i++) {
        const char *path = c->o.operand[i];
        const char *what;
        bool ok = check_text(c, path, in, &what) && diag_errors(c->diag) == 0;
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
    if (c->o.set.n && !c->o.weights)
        return cli_fail(c, EXIT_USAGE, "--set has a meaning only with --weights");
    FeSetting *settings;
    int n_settings;
    if (!cli_settings(c, &settings, &n_settings))
        return EXIT_USAGE;
    Weights *w = NULL;
    if (c->o.weights && !(w = weights_open(c->o.weights, c->diag)))
        return EXIT_INPUT;
    FeInput in = {.file = w ? weights_file(w) : NULL, .settings = settings, .n_settings = n_settings};
    int code = check_all(c, &in);
    if (w)
        weights_close(w);
    return code;
}
