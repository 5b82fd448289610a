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

/* The one drafter in the folder of the weights; NULL where there is none, or after an error: there are several. */
static const char *find_beside(Cli *c) {
    const char *weights = c->o.operand[0], *slash = strrchr(weights, '/');
    const char *folder = slash ? arena_strndup(c->arena, weights, (size_t)(slash - weights + 1)) : "./";
    struct dirent **names = NULL;
    const int n = scandir(folder, &names, may_be_weights, alphasort);
    const char *found = NULL;
    for (int i = 0; i < n; i++) {
        const char *path = arena_printf(c->arena, "%s%s", slash ? folder : "", names[i]->d_name);
        Diag *quiet = diag_new(); /* what cannot be read is no drafter */
        Weights *w = weights_open(path, quiet);
        if (w && text_drafts_for(c->arena, weights_file(w)->arch)) {
            if (found)
                diag_error(c->diag, NO_LOC, "two drafters stand beside %s: %s and %s; choose with --draft", weights,
                           found, path);
            found = path;
        }
        if (w)
            weights_close(w);
        diag_free(quiet);
        free(names[i]);
    }
    free(names);
    if (!found)
        fprintf(stderr, "no drafter stands beside %s\n", weights);
    return diag_errors(c->diag) ? NULL : found;
}

/* ==== Options ==== */

int cli_draft_options(Cli *c, SessionOptions *so) {
    const bool wanted = strcmp(c->o.draft_method, "none") != 0;
    if (!c->o.draft && (c->o.draft_model || c->o.draft_set.n))
        return cli_fail(c, EXIT_USAGE, "--%s has a meaning only with --draft",
                        c->o.draft_model ? "draft-model" : "draft-set");
    if (wanted)
        so->draft = c->o.draft;
    if (!so->draft && wanted && c->o.given[OPT_draft_method])
        so->draft = find_beside(c);
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

static double tokens_a_round(const DraftStats *d) {
    return d->rounds ? 1 + (double)sum(d->right) / (double)d->rounds : 0;
}

void cli_print_drafts(const Session *s, const GenerateStats *g) {
    const DraftStats *d = &g->drafts;
    if (!session_drafts(s)->way || !d->rounds)
        return;
    fprintf(stderr, "%s: %lld rounds, %.2f tokens each; right", session_drafter_name(s), (long long)d->rounds,
            tokens_a_round(d));
    for (int i = 0; i < MAX_DRAFTS && d->guessed[i]; i++)
        fprintf(stderr, " %.0f", 100.0 * (double)d->right[i] / (double)d->guessed[i]);
    const double host = g->decode_seconds - d->draft_seconds - d->verify_seconds;
    fprintf(stderr, " %% of each guess; %.2f s of guessing, %.2f s of the model, %.2f s else%s\n", d->draft_seconds,
            d->verify_seconds, host > 0 ? host : 0, d->left_off ? "; it did not pay, and was left off" : "");
}

json_t *cli_json_drafts(const Session *s, const GenerateStats *g) {
    const DraftStats *d = &g->drafts;
    json_t *guessed = json_array(), *right = json_array();
    for (int i = 0; i < MAX_DRAFTS && d->guessed[i]; i++) {
        json_array_append_new(guessed, json_integer(d->guessed[i]));
        json_array_append_new(right, json_integer(d->right[i]));
    }
    return json_pack("{s:s, s:I, s:f, s:o, s:o, s:f, s:f, s:b}", "drafter", session_drafter_name(s), "rounds",
                     (json_int_t)d->rounds, "tokens_per_round", tokens_a_round(d), "guessed", guessed, "right", right,
                     "draft_seconds", d->draft_seconds, "verify_seconds", d->verify_seconds, "left_off", d->left_off);
}
