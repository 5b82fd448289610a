/* session_pick.c - tokens picked on the device, with steps enqueued ahead of what the host knows. See session.h.
 *
 * Step n + 1 feeds what step n picks, which the device knows first. So while the host waits for a token, the steps
 * behind it are enqueued already; those that turn out not to be wanted are taken back, like any rows. Where a drafter
 * guesses, the rows of a verification are picked together.
 */
#include "runtime/engine/clock.h"
#include "runtime/engine/session_int.h"
#include <string.h>

/* Steps enqueued behind the one that is waited for. plan-kv leaves rings room to take back so many. */
enum { AHEAD = 2 };

bool session_picks(const Session *s) {
    const Gpu *gpu = session_gpu(s);
    return gpu && gpu_samples(gpu, s->step->name, PICK_NEXT);
}

bool session_checks(const Session *s) {
    return session_picks(s) && gpu_samples(session_gpu(s), s->step->name, PICK_CHECK);
}

bool session_sampled_call(Session *s, const StepCall *c, EvalCall *call, PickWay way) {
    EvalOutput out[MAX_TAPS];
    call->outputs = out;
    draft_outputs(s, call, out);
    return gpu_sample_call(session_gpu(s), call, way, s->diag) && draft_saw(s, c);
}

/* The last chunk: its last row picks. */
static StepResult first_pick(Session *s, const int32_t *tokens, int64_t n, const FeedOptions *o) {
    const int32_t row = (int32_t)(n - 1);
    const StepCall c = {.tokens = tokens, .n = n, .rows = &row, .n_rows = 1, .ahead = o->ahead, .cancel = o->cancel};
    const int errors = diag_errors(s->diag);
    StepInputs in;
    EvalCall call;
    if (!session_make_call(s, &c, &in, &call))
        return STEP_ERROR;
    const StepResult r = session_called(s, &c, session_sampled_call(s, &c, &call, PICK_NEXT), errors);
    s->picks.enqueued = 1;
    s->picks.end = s->now->length;
    return r;
}

static StepResult feed(Session *s, const int32_t *tokens, int64_t n, const FeedOptions *o) {
    const int64_t most = session_rows_a_call(s, false);
    for (int64_t done = 0; done < n;) {
        const int64_t now = session_next_rows(s, n - done, most);
        const int32_t row = (int32_t)(now - 1);
        const int64_t ahead = n - done - now + o->ahead;
        const StepCall c = {
            .tokens = tokens + done, .n = now, .rows = &row, .n_rows = 1, .ahead = ahead, .cancel = o->cancel};
        const StepResult r = done + now < n ? session_step(s, &c) : first_pick(s, tokens + done, now, o);
        if (r != STEP_OK)
            return r;
        done += now;
        if (o->progress)
            o->progress(o->ctx, done, n);
    }
    return STEP_OK;
}

/* Enqueues steps as far as is allowed, then waits for the oldest pick. */
static bool take(Session *s) {
    Picks *p = &s->picks;
    Gpu *gpu = session_gpu(s);
    while (p->enqueued <= p->taken + AHEAD && p->enqueued < p->most && p->end < s->o.context) {
        p->end++;
        s->now->high = p->end > s->now->high ? p->end : s->now->high;
        if (!gpu_sample_next(gpu, s->step->name, PICK_NEXT, s->diag))
            return false;
        p->enqueued++;
    }
    if (p->taken == p->enqueued)
        ICE("a token behind the last one that may be picked");
    p->taken++;
    return gpu_sample_take(gpu, s->step->name, PICK_NEXT, &p->id, s->diag);
}

StepResult session_pick_start(Session *s, const int32_t *tokens, int64_t n, const FeedOptions *o,
                              const SampleOptions *sample, int64_t most) {
    s->picks = (Picks){.most = most};
    if (!session_fits(s, n))
        return STEP_ERROR;
    memcpy(s->now->tokens + s->now->length, tokens, (size_t)n * sizeof *tokens); /* they count when they are fed */
    if (!gpu_sample_start(session_gpu(s), s->step->name, session_slot(s), sample, s->now->tokens, s->now->length + n,
                          s->diag))
        return STEP_ERROR;
    const StepResult r = feed(s, tokens, n, o);
    if (r != STEP_OK)
        return r;
    s->picks.held = true;
    if (take(s))
        return STEP_OK;
    session_pick_end(s);
    return STEP_ERROR;
}

StepResult session_pick(Session *s, int32_t *id) {
    if (!s->picks.held && !take(s))
        return STEP_ERROR;
    s->picks.held = false;
    *id = s->picks.id;
    return STEP_OK;
}

void session_pick_feed(Session *s) {
    if (s->now->length >= s->o.context)
        ICE("a token beyond the context");
    s->now->tokens[s->now->length++] = s->picks.id;
}

StepResult session_check(Session *s, const int32_t *tokens, int64_t n, int32_t *ids, const volatile bool *cancel) {
    const StepCall c = {.tokens = tokens, .n = n, .rows = s->rows, .n_rows = n, .cancel = cancel};
    const int errors = diag_errors(s->diag);
    StepInputs in;
    EvalCall call;
    if (!session_make_call(s, &c, &in, &call))
        return STEP_ERROR;
    const bool ok = session_sampled_call(s, &c, &call, PICK_CHECK) &&
                    gpu_sample_take(session_gpu(s), s->step->name, PICK_CHECK, ids, s->diag);
    return session_called(s, &c, ok, errors);
}

bool session_rounds(const Session *s) {
    return session_checks(s) && draft_enqueues(s);
}

StepResult session_round(Session *s, int32_t *tokens, int *n, int32_t *ids, double *guessed,
                         const volatile bool *cancel) {
    const int errors = diag_errors(s->diag);
    *n = draft_enqueue(s, tokens[0], *n, cancel);
    if (*n < 0)
        return diag_errors(s->diag) > errors ? STEP_ERROR : STEP_CANCELLED;
    memset(tokens + 1, 0, (size_t)*n * sizeof *tokens); /* the device has them */
    const StepCall c = {.tokens = tokens, .n = *n + 1, .rows = s->rows, .n_rows = *n + 1, .cancel = cancel};
    StepInputs in;
    EvalCall call;
    if (!session_make_call(s, &c, &in, &call))
        return STEP_ERROR;
    call.made = *n;
    bool ok = session_sampled_call(s, &c, &call, PICK_CHECK) && draft_take(s, *n, tokens + 1);
    *guessed = clock_seconds();
    ok = ok && gpu_sample_take(session_gpu(s), s->step->name, PICK_CHECK, ids, s->diag);
    return session_called(s, &c, ok, errors);
}

void session_pick_end(Session *s) {
    session_rewind(s, s->now->length);
    s->picks = (Picks){0};
}
