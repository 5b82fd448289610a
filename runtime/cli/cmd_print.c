/* cmd_print.c - lap print: the graph of a model text or of an IR text, after the passes asked for. */
#include "frontend/frontend.h"
#include "passes/passes.h"
#include "runtime/cli/cli.h"
#include "runtime/engine/modeltext.h"
#include "runtime/weights/weights.h"
#include <string.h>

/* True for a pass of the list, or one of two other words allowed (NULL: none); else reports. */
static bool check_pass(const Cli *c, const char *option, const char *name, const char *word, const char *other) {
    if (!name || (word && strcmp(name, word) == 0) || (other && strcmp(name, other) == 0))
        return true;
    int n;
    const PassInfo *list = pass_list(&n);
    Nearest near = nearest_new((Str){name, strlen(name)});
    Buf all = {0};
    bool found = false;
    for (int i = 0; i < n; i++) {
        found |= strcmp(list[i].name, name) == 0;
        nearest_try(&near, list[i].name);
        buf_printf(&all, "%s%s", i ? ", " : "", list[i].name);
    }
    if (!found && nearest_best(&near))
        cli_fail(c, EXIT_USAGE, "--%s: no pass \"%s\"; did you mean \"%s\"?", option, name, nearest_best(&near));
    else if (!found)
        cli_fail(c, EXIT_USAGE, "--%s: no pass \"%s\"; there are %s", option, name, all.s);
    buf_free(&all);
    return found;
}

static bool check_options(const Cli *c) {
    const Options *o = &c->o;
    if (o->given[OPT_after] && (o->stop_after || o->run_pass)) {
        cli_fail(c, EXIT_USAGE, "--after goes with neither --stop-after nor --run-pass");
        return false;
    }
    return check_pass(c, "after", o->after, "all", "none") &&
           check_pass(c, "print-after", o->print_after, "all", NULL) &&
           check_pass(c, "stop-after", o->stop_after, NULL, NULL) && check_pass(c, "run-pass", o->run_pass, NULL, NULL);
}

/* From IR text, or compiled from a model text and the metadata of --weights. */
static Module *load(Cli *c, const TextSource *t, Weights **w) {
    if (ir_looks_like(t->text, t->len)) {
        if (c->o.weights || c->o.set.n) {
            cli_fail(c, EXIT_USAGE, "%s is an IR text: --weights and --set have no meaning for it", t->name);
            return NULL;
        }
        return ir_parse(c->arena, c->diag, t->name, t->text, t->len);
    }
    if (!c->o.weights) {
        cli_fail(c, EXIT_USAGE, "%s is a model text: its shapes come from a weights file, give --weights W", t->name);
        return NULL;
    }
    FeSetting *settings;
    int n;
    *w = weights_open(c->o.weights, c->diag);
    if (!*w || !cli_settings(c, &settings, &n))
        return NULL;
    FeInput in = {.name = t->name,
                  .text = t->text,
                  .len = t->len,
                  .file = weights_file(*w),
                  .settings = settings,
                  .n_settings = n};
    return fe_compile(c->arena, c->diag, &in);
}

static bool run_passes(Cli *c, Module *m) {
    const Options *o = &c->o;
    if (strcmp(o->after, "none") == 0)
        return true;
    PipelineOptions p = {.pass = pass_options_default()};
    p.pass.context = o->context;
    p.pass.chunk = o->chunk < o->context ? o->chunk : o->context;
    p.pass.all_taps = o->taps;
    p.print_after = o->print_after;
    p.stop_after = strcmp(o->after, "all") == 0 ? o->stop_after : o->after;
    p.run_pass = o->run_pass;
    p.diff = o->diff;
    p.verify_each = o->verify_each;
    p.time = o->time;
    p.out = stdout;
    return pipeline_run(m, &p);
}

int cmd_print(Cli *c) {
    TextSource t;
    if (!check_options(c))
        return EXIT_USAGE;
    if (!text_read(c->arena, c->diag, c->o.operand[0], &t))
        return EXIT_INPUT;
    Weights *w = NULL;
    Module *m = load(c, &t, &w);
    int code = m ? EXIT_FINE : diag_errors(c->diag) ? EXIT_INPUT : EXIT_USAGE;
    if (m && !run_passes(c, m))
        code = EXIT_INPUT;
    if (code == EXIT_FINE && !c->o.print_after && !c->o.diff && !c->o.time) {
        Buf out = {0};
        ir_print(&out, m);
        fwrite(out.n ? out.s : "", 1, out.n, stdout);
        buf_free(&out);
    }
    if (w)
        weights_close(w);
    return code;
}
