/* session_parts.c - rows of several sequences in one call of the target. See session.h.
 *
 *   part       0                     1           2
 *   slot       3       3       3     0           1       1
 *   position   C3      C3+1    C3+2  C0          C1      C1+1      C: length of the sequence
 */
#include "runtime/engine/session_int.h"
#include <string.h>

enum { MOST_ROWS = 16 }; /* of calls that may have rows of any sequence (codegen: decode16) */

int session_part_rows(const Session *s) {
    int64_t rows = session_step_rows(s) < s->o.chunk ? session_step_rows(s) : s->o.chunk;
    rows = rows < MOST_ROWS ? rows : MOST_ROWS;
    return (int)rows;
}

/* The call of all parts; pos and slots are written. */
typedef struct PartsCall {
    int32_t tokens[MOST_ROWS];
    StepCall step;
    StepInputs in;
    EvalCall call;
} PartsCall;

static void add_part(Session *s, PartsCall *c, const StepPart *part) {
    const Sequence *q = &s->sequences[part->sequence];
    for (int i = 0; i < part->n; i++) {
        const int64_t row = c->step.n++;
        c->tokens[row] = part->tokens[i];
        s->pos[row] = (int32_t)(q->length + i);
        s->slots[row] = part->sequence;
    }
}

/* Every part fits in its sequence. */
static bool check_parts(Session *s, const StepPart *parts, int n) {
    Sequence *const meant = s->now;
    int rows = 0;
    bool ok = true;
    for (int i = 0; i < n; i++) {
        session_turn(s, parts[i].sequence);
        rows += parts[i].n;
        for (int k = 0; k < i; k++)
            if (parts[k].sequence == parts[i].sequence)
                ICE("two parts of sequence %d", parts[i].sequence);
        if (parts[i].n < 1 || rows > session_part_rows(s))
            ICE("a part of %d rows, %d so far", parts[i].n, rows);
        ok = ok && session_fits(s, parts[i].n);
    }
    s->now = meant;
    return ok;
}

static bool make_call(Session *s, PartsCall *c, const StepPart *parts, int n, const volatile bool *cancel) {
    *c = (PartsCall){.step = {.tokens = c->tokens, .rows = s->rows, .cancel = cancel}};
    if (!check_parts(s, parts, n))
        return false;
    for (int i = 0; i < n; i++) {
        Sequence *q = &s->sequences[parts[i].sequence];
        const int64_t end = q->length + parts[i].n;
        add_part(s, c, &parts[i]);
        q->high = end > q->high ? end : q->high; /* even if the call fails: rows may have been stored */
    }
    c->step.n_rows = c->step.n;
    session_call_rows(s, &c->step, &c->in, &c->call);
    return true;
}

/* The tokens are the sequences', or those are as before. */
static StepResult called(Session *s, const StepPart *parts, int n, bool ok, int errors) {
    Sequence *const meant = s->now;
    StepResult result = STEP_OK;
    for (int i = 0; i < n; i++) {
        const StepCall part = {.tokens = parts[i].tokens, .n = parts[i].n};
        session_turn(s, parts[i].sequence);
        result = session_called(s, &part, ok, errors);
    }
    s->now = meant;
    return result;
}

StepResult session_step_parts(Session *s, const StepPart *parts, int n, float *logits, const volatile bool *cancel) {
    const int errors = diag_errors(s->diag);
    PartsCall c;
    if (!make_call(s, &c, parts, n, cancel))
        return STEP_ERROR;
    EvalOutput out[MAX_TAPS + 1] = {{"logits", logits}};
    c.call.outputs = out;
    c.call.n_outputs = 1;
    draft_outputs(s, &c.call, out);
    const bool ok = s->backend->call(s->state, &c.call, s->diag) && draft_saw(s, &c.step);
    return called(s, parts, n, ok, errors);
}

StepResult session_check_parts(Session *s, const StepPart *parts, int n, int32_t *ids, const volatile bool *cancel) {
    const int errors = diag_errors(s->diag);
    const PickWay way = session_checks(s) ? PICK_CHECK : PICK_NEXT;
    PartsCall c;
    if (!make_call(s, &c, parts, n, cancel))
        return STEP_ERROR;
    if (way == PICK_NEXT && c.step.n > n)
        ICE("guesses that nothing checks");
    const bool ok = session_sampled_call(s, &c.step, &c.call, way) &&
                    gpu_sample_take(session_gpu(s), s->step->name, way, ids, s->diag);
    return called(s, parts, n, ok, errors);
}
