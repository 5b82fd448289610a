/* speculate.c - the generation loop with a drafter: guess, check all guesses in one call of the target, keep those
 * that are what the target's own pick would have been.
 *
 * The token behind each row is picked from the target's logits as without a drafter, in the same order and with the
 * same draws, and a guess is kept if it is that token; on a device all rows pick at once, each as if the guesses up to
 * it were right (session_check). So the tokens are those of plain generation, at any temperature.
 * For a guess that is not itself drawn at random this keeps it as often as rejection sampling would: with the
 * probability that the target gives it (Leviathan et al. 2023, section 2.3, with all of q on one token).
 *
 *   position   C        C+1     C+2     C+3
 *   call       newest   guess   guess   guess        all rows wanted
 *   pick       = guess  = guess other                two kept; rewind to C+3, "other" is the newest now
 */
#include "runtime/engine/clock.h"
#include "runtime/engine/generate_int.h"
#include "runtime/engine/width.h"

/* ==== Of a round ==== */

int round_most(const Loop *l, int most) {
    int64_t k = most;
    const int64_t room = session_context(l->s) - session_length(l->s) - 1;
    const int64_t left = l->o->max_tokens - l->stats->new_tokens - 1; /* behind the newest, one comes without a guess */
    k = room < k ? room : k;
    k = l->o->max_tokens >= 0 && left < k ? left : k;
    return k > 0 ? (int)k : 0;
}

bool round_guess(Loop *l, Round *r) {
    const double start = clock_seconds();
    if (r->n > 0)
        r->n = session_draft(l->s, r->tokens[0], r->n, r->tokens + 1, l->o->cancel);
    l->stats->drafts.draft_seconds += clock_seconds() - start;
    return r->n >= 0;
}

static void count(DraftStats *d, const Round *r) {
    d->rounds++;
    for (int i = 0; i < r->n && i <= r->right; i++) {
        d->guessed[i]++;
        d->right[i] += i < r->right;
    }
}

/* The token behind the guesses that are right so far; `at` is the position of the first row. */
static bool pick(Loop *l, const Round *r, int64_t at, int32_t *id) {
    if (!l->on_device)
        return loop_pick(l, l->logits + (int64_t)r->right * session_vocab(l->s), at + r->right, id);
    *id = r->picks[r->right];
    return loop_picked(l, at + r->right, *id);
}

/* Finds what is right. False when generation ends, *stop says why; else *newest is the token picked last. */
static bool accept(Loop *l, Round *r, int64_t at, int32_t *newest, StopReason *stop) {
    for (r->right = 0;; r->right++) {
        l->stats->steps++;
        *stop = STOP_CALLER;
        if (l->o->rows && !l->o->rows(l->o->ctx, at + r->right, 1, /* never on the device */
                                      l->logits + (int64_t)r->right * session_vocab(l->s), NULL))
            return false;
        *stop = STOP_ERROR;
        if (!pick(l, r, at, newest))
            return false;
        if (r->right == r->n || *newest != r->tokens[1 + r->right])
            return true;
        if (!loop_take(l, *newest, stop))
            return false;
    }
}

bool round_end(Loop *l, Round *r, int64_t at, int32_t *newest, StopReason *stop) {
    const bool more = accept(l, r, at, newest, stop);
    const int64_t keep = at + 1 + r->right;
    if (session_rewind(l->s, keep) != keep)
        ICE("caches cannot go back from %lld rows to %lld", (long long)(at + 1 + r->n), (long long)keep);
    count(&l->stats->drafts, r);
    return more;
}

/* ==== Rounds of one sequence ==== */

typedef struct Speculation {
    Loop *l;
    Width width;
    DraftStats *stats;
} Speculation;

static int wanted_guesses(Speculation *p) {
    const int most = round_most(p->l, p->width.most);
    const int wished = p->l->o->drafts_fixed ? p->width.most : width_choose(&p->width);
    return wished < most ? wished : most;
}

static StepResult verify(Speculation *p, Round *r) {
    const Loop *l = p->l;
    const double start = clock_seconds();
    const StepResult result = l->on_device ? session_check(l->s, r->tokens, r->n + 1, r->picks, l->o->cancel)
                                           : session_step_all(l->s, r->tokens, r->n + 1, l->logits, l->o->cancel);
    p->stats->verify_seconds += clock_seconds() - start;
    return result;
}

/* Guesses and their check. */
static StepResult guess_and_verify(Speculation *p, Round *r) {
    Loop *l = p->l;
    const int errors = diag_errors(l->diag);
    const double start = clock_seconds();
    double guessed = start;
    r->n = wanted_guesses(p);
    if (!l->on_device || !session_rounds(l->s)) {
        if (round_guess(l, r))
            return verify(p, r);
        return diag_errors(l->diag) > errors ? STEP_ERROR : STEP_CANCELLED;
    }
    const StepResult result = session_round(l->s, r->tokens, &r->n, r->picks, &guessed, l->o->cancel);
    p->stats->draft_seconds += guessed - start;
    p->stats->verify_seconds += clock_seconds() - guessed;
    return result;
}

static bool one_round(Speculation *p, int32_t *newest, StopReason *stop) {
    Round r = {.tokens = {*newest}};
    const int64_t at = session_length(p->l->s);
    const double start = clock_seconds();
    const StepResult result = guess_and_verify(p, &r);
    if (result != STEP_OK) {
        *stop = loop_stop(result);
        return false;
    }
    const bool more = round_end(p->l, &r, at, newest, stop);
    width_measured(&p->width, r.n, r.right, clock_seconds() - start);
    return more;
}

StopReason speculate(Loop *l) {
    const int most = session_drafts(l->s)->most;
    Speculation p = {.l = l, .stats = &l->stats->drafts};
    p.width = width_start(l->o->drafts > 0 && l->o->drafts < most ? l->o->drafts : most);
    StopReason stop;
    int32_t newest;
    if (!loop_pick_next(l, &newest))
        return STOP_ERROR;
    while (loop_goes_on(l, newest, &stop) && one_round(&p, &newest, &stop))
        continue;
    p.stats->left_off = !l->o->drafts_fixed && !width_pays(&p.width);
    return stop;
}
