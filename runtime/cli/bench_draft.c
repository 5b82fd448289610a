/* bench_draft.c - what a drafter costs and gains: rounds of a fixed number of guesses, as if a given number of them had
 * been right; and generation behind a prompt of real tokens.
 *
 * Random weights guess nothing right, and real ones depend on the text; so the guesses and their check are computed as
 * in generation, and then as many are kept as make `--accept` tokens a round on average. What is left between guessing
 * and checking is the host's. Behind the tokens of --tokens-file those are kept that are right, and how many are
 * guessed is chosen as in generation.
 */
#include "runtime/cli/bench_int.h"
#include "runtime/engine/clock.h"

typedef struct Rounds {
    int k; /* guesses of a round */
    double accept;
    int64_t rounds, tokens;
    double draft, verify, all; /* seconds */
} Rounds;

/* Tokens of the next round, so that the mean comes to r->accept. */
static int kept_of(const Rounds *r) {
    const double most = r->k + 1, mean = r->accept < most ? r->accept : most;
    const int64_t due = (int64_t)(mean * (double)(r->rounds + 1) + 0.5) - r->tokens;
    return due < 1 ? 1 : due > r->k + 1 ? r->k + 1 : (int)due;
}

static StepResult one_round(Bench *b, Rounds *r) {
    int32_t tokens[1 + MAX_DRAFTS] = {b->ids[session_length(b->s) % b->depth]}, ids[1 + MAX_DRAFTS];
    const int64_t at = session_length(b->s);
    const double start = clock_seconds();
    double drafted = start;
    StepResult result;
    if (session_rounds(b->s)) {
        int n = r->k;
        result = session_round(b->s, tokens, &n, ids, &drafted, &cli_interrupted);
    } else {
        const int n = session_draft(b->s, tokens[0], r->k, tokens + 1, &cli_interrupted);
        if (n < 0)
            return cli_interrupted ? STEP_CANCELLED : STEP_ERROR;
        for (int i = n; i < r->k; i++) /* guesses of weights that give no numbers */
            tokens[1 + i] = 0;
        drafted = clock_seconds();
        result = session_checks(b->s) ? session_check(b->s, tokens, r->k + 1, ids, &cli_interrupted)
                                      : session_step_all(b->s, tokens, r->k + 1, b->logits, &cli_interrupted);
    }
    const double checked = clock_seconds();
    if (result != STEP_OK)
        return result;
    const int kept = kept_of(r);
    session_rewind(b->s, at + kept);
    r->rounds++;
    r->tokens += kept;
    r->draft += drafted - start;
    r->verify += checked - drafted;
    return STEP_OK;
}

/* As generation begins: `depth` tokens are read, and what picks on a device knows how. */
static StepResult stand(Bench *b) {
    const SampleOptions greedy = {.top_p = 1, .repeat_penalty = 1};
    const FeedOptions feed = {.cancel = &cli_interrupted};
    if (!session_checks(b->s))
        return measure_stand(b->s, b->ids, b->depth);
    const StepResult r = measure_stand(b->s, b->ids, b->depth - 1);
    return r == STEP_OK ? session_pick_start(b->s, b->ids + b->depth - 1, 1, &feed, &greedy, 1) : r;
}

static StepResult run_rounds(Bench *b, Rounds *r) {
    StepResult result = STEP_OK;
    for (int pass = 0; pass < 2 && result == STEP_OK; pass++) { /* the first is not counted */
        *r = (Rounds){.k = r->k, .accept = r->accept};
        result = stand(b);
        if (result == STEP_OK)
            result = one_round(b, r); /* not counted: graphs are made */
        *r = (Rounds){.k = r->k, .accept = r->accept};
        const double start = clock_seconds();
        while (result == STEP_OK && r->tokens < b->c->o.tg)
            result = one_round(b, r);
        r->all = clock_seconds() - start;
    }
    return result;
}

StepResult bench_drafts(Bench *b) {
    const Drafts *d = session_drafts(b->s);
    const int most = b->c->o.draft_max && b->c->o.draft_max < d->most ? (int)b->c->o.draft_max : d->most;
    StepResult r = STEP_OK;
    Rounds *all = arena_array(b->c->arena, MAX_DRAFTS + 1, sizeof *all);
    b->drafts = all;
    for (int k = 1; r == STEP_OK; k = 2 * k < most ? 2 * k : most) {
        all[b->n_drafts] = (Rounds){.k = k, .accept = b->c->o.accept};
        r = run_rounds(b, &all[b->n_drafts++]);
        if (k == most)
            break;
    }
    return r;
}

static bool go_on(void *ctx, int32_t id, Str text) {
    (void)ctx, (void)id, (void)text;
    return true;
}

bool bench_generate(Bench *b) {
    const GenerateOptions o = {.sample = {.top_p = 1, .repeat_penalty = 1},
                               .max_tokens = b->c->o.tg + 1, /* the first comes with the prompt */
                               .ignore_stop = true,
                               .drafts = (int)b->c->o.draft_max,
                               .cancel = &cli_interrupted,
                               .token = go_on};
    StopReason reason = STOP_COUNT;
    for (int i = 0; i < 2 && reason == STOP_COUNT; i++) { /* the first is not counted */
        session_rewind(b->s, 0);
        reason = generate(b->s, b->ids, b->tokens, &o, b->c->diag, &b->generated);
    }
    return reason == STOP_COUNT;
}

/* Of a round. */
static double ms(const Rounds *r, double seconds) {
    return 1e3 * seconds / (double)r->rounds;
}

static double host_share(const Rounds *r) {
    return 1 - (r->draft + r->verify) / r->all;
}

static double generated_rate(const GenerateStats *g) {
    return (double)(g->new_tokens - 1) / g->decode_seconds;
}

static void print_generated(const Bench *b) {
    const GenerateStats *g = &b->generated;
    const DraftStats *d = &g->drafts;
    printf("text   %7lld %-6s %12.2f  %9.3f  %9.3f  %9.2f  %5.1f %%  right", (long long)g->new_tokens - 1, "tokens",
           generated_rate(g), 1e3 * d->draft_seconds / (double)d->rounds, 1e3 * d->verify_seconds / (double)d->rounds,
           cli_tokens_a_round(d), 100 * cli_host_seconds(g) / g->decode_seconds);
    cli_print_right(stdout, d);
    printf("%s\n", d->left_off ? "; it did not pay, and was left off" : "");
}

void bench_print_drafts(const Bench *b) {
    if (!b->n_drafts)
        return;
    printf("\n%s, as if --accept tokens of a round were right\n%-21s %12s  %9s  %9s  %9s  %7s\n",
           session_drafter_name(b->s), "", "tokens/s", "guess ms", "check ms", "tokens", "host");
    for (int i = 0; i < b->n_drafts; i++) {
        const Rounds *r = &b->drafts[i];
        printf("round  %7d %-6s %12.2f  %9.3f  %9.3f  %9.2f  %5.1f %%\n", r->k, r->k == 1 ? "guess" : "guesses",
               (double)r->tokens / r->all, ms(r, r->draft), ms(r, r->verify), (double)r->tokens / (double)r->rounds,
               100 * host_share(r));
    }
    if (b->generated.drafts.rounds)
        print_generated(b);
}

json_t *bench_generated_json(const Bench *b) {
    const GenerateStats *g = &b->generated;
    json_t *j = cli_json_drafts(b->s, g);
    json_object_update_new(j, json_pack("{s:I, s:f, s:f}", "tokens", (json_int_t)g->new_tokens - 1, "seconds",
                                        g->decode_seconds, "tokens_per_second", generated_rate(g)));
    return j;
}

json_t *bench_drafts_json(const Bench *b) {
    json_t *all = json_array();
    for (int i = 0; i < b->n_drafts; i++) {
        const Rounds *r = &b->drafts[i];
        json_array_append_new(all, json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "guesses", r->k, "tokens_per_second",
                                             (double)r->tokens / r->all, "draft_seconds", 1e-3 * ms(r, r->draft),
                                             "verify_seconds", 1e-3 * ms(r, r->verify), "tokens_per_round",
                                             (double)r->tokens / (double)r->rounds, "host_share", host_share(r)));
    }
    return all;
}
