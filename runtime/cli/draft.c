/* draft.c - the options of a drafter, and what is said of it. */
#include "runtime/cli/cli.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static const struct Method {
    const char *name;
    DraftWay way;
} methods[] = {{"mtp", DRAFT_CHAIN}, {"dflash", DRAFT_BLOCK}};

/* ==== Beside the weights ==== */

static int may_be_weights(const struct dirent *d) {
    const char *dot = strrchr(d->d_name, '.');
    return d->d_name[0] != '.' && (d->d_type == DT_DIR || !dot || strcmp(dot, ".gguf") == 0);
}

/* The architecture of weights, in the arena; NULL: they cannot be read, which is no error here. */
static const char *arch_of(Cli *c, const char *path) {
    Diag *quiet = diag_new();
    Weights *w = weights_open(path, quiet);
    const char *arch = w ? arena_strdup(c->arena, weights_file(w)->arch) : NULL;
    if (w)
        weights_close(w);
    diag_free(quiet);
    return arch;
}

/* The name of the model that --model or the weights choose; NULL: none, which will be said. */
static const char *target_name(Cli *c) {
    TextSource t;
    FeHead head;
    Diag *quiet = diag_new();
    const char *arch = arch_of(c, c->o.operand[0]);
    const bool own = c->o.model && text_read(c->arena, quiet, c->o.model, &t);
    const bool known = own ? fe_head(c->arena, t.text, t.len, &head) : arch && text_head(c->arena, arch, &head);
    diag_free(quiet);
    return known ? head.name : NULL;
}

/* Weights of a drafter for that model, by --draft-method. */
static bool is_drafter(Cli *c, const char *path, const char *target) {
    const char *arch = arch_of(c, path);
    FeHead head;
    if (!arch || !text_head(c->arena, arch, &head) || !head.target || !head.drafts || strcmp(head.target, target) != 0)
        return false;
    const DraftWay way = draft_way_from_name((Str){head.drafts, strlen(head.drafts)});
    for (size_t i = 0; i < COUNTOF(methods); i++)
        if (strcmp(methods[i].name, c->o.draft_method) == 0)
            return methods[i].way == way;
    return way != DRAFT_NONE;
}

/* dense-mtp.gguf is named after dense.gguf. */
static bool named_after(const char *name, const char *weights) {
    const char *slash = strrchr(weights, '/'), *base = slash ? slash + 1 : weights, *dot = strrchr(base, '.');
    const size_t n = dot ? (size_t)(dot - base) : strlen(base);
    return strncmp(name, base, n) == 0 && name[n] == '-';
}

/* The one drafter in the folder of the weights, of several the one that is named after them; NULL where there is none,
 * or after an error: there are several such, or none and one of a certain way is asked for. */
static const char *find_beside(Cli *c) {
    const char *weights = c->o.operand[0], *slash = strrchr(weights, '/'), *target = target_name(c);
    const char *folder = slash ? arena_strndup(c->arena, weights, (size_t)(slash - weights + 1)) : "./";
    struct dirent **names = NULL;
    const int n = target ? scandir(folder, &names, may_be_weights, alphasort) : 0;
    const char *found = NULL, *other = NULL;
    bool named = false;
    for (int i = 0; i < n; i++) {
        const char *path = arena_printf(c->arena, "%s%s", slash ? folder : "", names[i]->d_name);
        const bool after = named_after(names[i]->d_name, weights);
        free(names[i]);
        if ((named && !after) || !is_drafter(c, path, target))
            continue;
        other = after && !named ? NULL : found;
        found = path;
        named = after;
    }
    free(names);
    if (other)
        diag_error(c->diag, NO_LOC, "two drafters stand beside %s: %s and %s; choose with --draft or --draft-method",
                   weights, other, found);
    if (!found && target && strcmp(c->o.draft_method, "auto") == 0)
        fprintf(stderr, "no drafter stands beside %s\n", weights);
    else if (!found && target) /* it was asked for by name */
        diag_error(c->diag, NO_LOC, "no %s drafter stands beside %s; name it with --draft", c->o.draft_method, weights);
    return diag_errors(c->diag) ? NULL : found;
}

/* ==== Options ==== */

/* What is given of a drafter without asking for one. */
static int check_wanted(const Cli *c) {
    const Options *o = &c->o;
    if (!o->draft && (o->draft_model || o->draft_set.n))
        return cli_fail(c, EXIT_USAGE, "--%s has a meaning only with --draft",
                        o->draft_model ? "draft-model" : "draft-set");
    const char *of_any = o->draft_fixed            ? "draft-fixed"
                         : o->given[OPT_draft_max] ? "draft-max"
                         : o->given[OPT_accept]    ? "accept"
                                                   : NULL;
    if (of_any && !o->draft && !o->given[OPT_draft_method])
        return cli_fail(c, EXIT_USAGE, "--%s has a meaning only with --draft or --draft-method", of_any);
    return EXIT_FINE;
}

int cli_draft_options(Cli *c, SessionOptions *so) {
    const bool wanted = strcmp(c->o.draft_method, "none") != 0;
    const int code = check_wanted(c);
    if (code != EXIT_FINE)
        return code;
    if (wanted)
        so->draft = c->o.draft;
    if (!so->draft && wanted && c->o.given[OPT_draft_method])
        so->draft = c->o.draft = find_beside(c);
    if (!cli_may_write_all(c)) /* the drafter that was found is an input too */
        return EXIT_USAGE;
    so->draft_model = c->o.draft_model;
    FeSetting *settings;
    if (!cli_parse_settings(c, "--draft-set", &c->o.draft_set, &settings, &so->n_draft_settings))
        return EXIT_USAGE;
    so->draft_settings = settings;
    return diag_errors(c->diag) ? EXIT_INPUT : EXIT_FINE;
}

bool cli_check_method(Cli *c, const Session *s) {
    const DraftWay way = session_drafts(s)->way;
    for (size_t i = 0; i < COUNTOF(methods) && way; i++)
        if (strcmp(methods[i].name, c->o.draft_method) == 0 && methods[i].way != way) {
            diag_error(c->diag, NO_LOC, "%s drafts in the way of %s, not of %s", session_drafter_name(s),
                       methods[way == DRAFT_BLOCK].name, c->o.draft_method);
            return false;
        }
    return true;
}

void cli_draft_generate(const Cli *c, GenerateOptions *g) {
    g->drafts = (int)c->o.draft_max;
    g->drafts_fixed = c->o.draft_fixed;
}

/* ==== Results ==== */

static int64_t sum(const int64_t *v) {
    int64_t all = 0;
    for (int i = 0; i < MAX_DRAFTS; i++)
        all += v[i];
    return all;
}

double cli_tokens_a_round(const DraftStats *d) {
    return d->rounds ? 1 + (double)sum(d->right) / (double)d->rounds : 0;
}

double cli_host_seconds(const GenerateStats *g) {
    const double host = g->decode_seconds - g->drafts.draft_seconds - g->drafts.verify_seconds;
    return host > 0 ? host : 0;
}

void cli_print_right(FILE *f, const DraftStats *d) {
    for (int i = 0; i < MAX_DRAFTS && d->guessed[i]; i++)
        fprintf(f, " %.0f", 100.0 * (double)d->right[i] / (double)d->guessed[i]);
    fprintf(f, " %% of each guess");
}

void cli_print_drafts(const Session *s, const GenerateStats *g) {
    const DraftStats *d = &g->drafts;
    if (!session_drafts(s)->way || !d->rounds)
        return;
    fprintf(stderr, "%s: %lld rounds, %.2f tokens each; right", session_drafter_name(s), (long long)d->rounds,
            cli_tokens_a_round(d));
    cli_print_right(stderr, d);
    fprintf(stderr, "; %.2f s of guessing, %.2f s of the model, %.2f s else%s\n", d->draft_seconds, d->verify_seconds,
            cli_host_seconds(g), d->left_off ? "; it did not pay, and was left off" : "");
}

json_t *cli_json_drafts(const Session *s, const GenerateStats *g) {
    const DraftStats *d = &g->drafts;
    json_t *guessed = json_array(), *right = json_array();
    for (int i = 0; i < MAX_DRAFTS && d->guessed[i]; i++) {
        json_array_append_new(guessed, json_integer(d->guessed[i]));
        json_array_append_new(right, json_integer(d->right[i]));
    }
    return json_pack("{s:s, s:I, s:f, s:o, s:o, s:f, s:f, s:f, s:b}", "drafter", session_drafter_name(s), "rounds",
                     (json_int_t)d->rounds, "tokens_per_round", cli_tokens_a_round(d), "guessed", guessed, "right",
                     right, "draft_seconds", d->draft_seconds, "verify_seconds", d->verify_seconds, "host_seconds",
                     cli_host_seconds(g), "left_off", d->left_off);
}
