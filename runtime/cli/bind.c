/* bind.c - what a model text is compiled against: its weights, and for a drafter the target's too.
 *
 * The target's text is compiled first, once, from its own weights: drafters read its caches.
 */
#include "runtime/cli/cli.h"

static bool bind_target(Cli *c, Bound *b) {
    TextSource t;
    b->target = weights_open(c->o.target, c->diag);
    if (!b->target)
        return false;
    b->target_file = *weights_file(b->target);
    b->target_file.reads = modelreads_new(c->arena);
    const ModelFile *file = &b->target_file;
    if (!text_choose(c->arena, c->diag, c->o.target_model, file, "--target-model", &t))
        return false;
    FeInput in = {.name = t.name, .text = t.text, .len = t.len, .file = file};
    b->in.target_file = file;
    b->in.target = fe_compile(c->arena, c->diag, &in);
    if (!b->in.target)
        diag_note(c->diag, NO_LOC, "while compiling the target, %s for %s", t.name, c->o.target);
    return b->in.target != NULL;
}

int cli_bind(Cli *c, Bound *b) {
    FeSetting *settings;
    *b = (Bound){0};
    if (!c->o.weights && (c->o.set.n || c->o.target))
        return cli_fail(c, EXIT_USAGE, "--%s has a meaning only with --weights", c->o.set.n ? "set" : "target");
    if (!c->o.target && c->o.target_model)
        return cli_fail(c, EXIT_USAGE, "--target-model has a meaning only with --target");
    if (!cli_settings(c, &settings, &b->in.n_settings))
        return EXIT_USAGE;
    b->in.settings = settings;
    if (!c->o.weights)
        return EXIT_FINE;
    b->weights = weights_open(c->o.weights, c->diag);
    if (!b->weights || (c->o.target && !bind_target(c, b)))
        return EXIT_INPUT;
    b->file = *weights_file(b->weights);
    b->file.reads = modelreads_new(c->arena);
    b->in.file = &b->file;
    return EXIT_FINE;
}

void cli_unbind(Bound *b) {
    if (b->weights)
        weights_close(b->weights);
    if (b->target)
        weights_close(b->target);
}

Module *cli_compile(Cli *c, const Bound *b, const TextSource *t) {
    FeHead head;
    if (fe_head(c->arena, t->text, t->len, &head) && head.target && !b->target) {
        diag_error(c->diag, NO_LOC, "%s works for a target, \"%s\": give the target's weights with --target TW",
                   t->name, head.target);
        return NULL;
    }
    FeInput in = b->in;
    in.name = t->name;
    in.text = t->text;
    in.len = t->len;
    return fe_compile(c->arena, c->diag, &in);
}
