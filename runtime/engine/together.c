/* together.c - several sequences generate at once: in each round every one adds its newest token and some guesses to
 * one call of the target, whose weights are read once for all.
 *
 *   sequence 0   newest guess guess  ┐
 *   sequence 1   newest              ├ one call of up to session_part_rows() rows, all wanted
 *   sequence 2   newest guess guess  ┘
 *
 * A row's logits do not depend on the rows beside it, and each sequence has a sampler of its own: so its tokens are
 * those of generation alone. How many guesses pay depends on what the call costs, which all share; so there is one
 * Width, which begins anew when a sequence ends.
 */
#include "runtime/engine/clock.h"
#include "runtime/engine/generate_int.h"
#include "runtime/engine/width.h"
#include <stdlib.h>
#include <string.h>

typedef struct Member {
    Loop l;
    Stream *stream;
    Round round;
    int32_t newest;
    int64_t at; /* position of the round's first row */
    bool goes_on;
} Member;

typedef struct Together {
    Session *s;
    Diag *diag;
    Member *all;
    int n, rows; /* rows: most of a call */
    int going;   /* members that go on */
    int most;    /* guesses of each that a call has room for */
    double start;
    Width width;
    StepPart *parts; /* [n] */
    int32_t *ids;    /* [rows] picked on the device */
    float *logits;   /* [rows][vocab]; NULL: on the device */
} Together;

static void turn(const Together *t, const Member *m) {
    session_turn(t->s, (int)(m - t->all));
}

/* ==== Beginning and end of a sequence ==== */

static void end(Together *t, Member *m, StopReason reason) {
    GenerateStats *stats = &m->stream->stats;
    m->goes_on = false;
    stats->reason = loop_end(&m->l, reason);
    stats->decode_seconds = t->start > 0 ? clock_seconds() - t->start : 0;
}

/* Reads the prompt and picks the first token. */
static StopReason begin(const Together *t, Member *m) {
    turn(t, m);
    const StepResult r = loop_read_prompt(&m->l, m->stream->prompt, m->stream->n, 1);
    if (r != STEP_OK)
        return loop_stop(r);
    if (m->stream->o.max_tokens == 0)
        return STOP_COUNT;
    m->goes_on = loop_pick_next(&m->l, &m->newest);
    if (m->l.on_device) /* what follows picks in other ways */
        session_pick_end(t->s);
    return STOP_ERROR;
}

static void begin_all(Together *t, Stream *streams) {
    for (int i = 0; i < t->n; i++) {
        Member *m = &t->all[i];
        m->stream = &streams[i];
        if (!loop_open(&m->l, t->s, m->stream->n, &m->stream->o, t->diag, &m->stream->stats))
            continue;
        m->l.logits = t->logits;
        const StopReason reason = begin(t, m);
        if (!m->goes_on)
            end(t, m, reason);
    }
}

/* ==== A round ==== */

/* Counts the newest tokens. Whether any sequence goes on. */
static bool take_newest(Together *t) {
    int going = 0;
    for (int i = 0; i < t->n; i++) {
        Member *m = &t->all[i];
        StopReason stop;
        turn(t, m);
        if (m->goes_on && !loop_goes_on(&m->l, m->newest, &stop))
            end(t, m, stop);
        going += m->goes_on;
    }
    if (going && going != t->going) {
        const int room = t->rows / going - 1, most = session_drafts(t->s)->most;
        t->most = room < most ? room : most;
        t->width = width_again(&t->width, t->most);
    }
    t->going = going;
    return going > 0;
}

static int wanted_guesses(const Together *t, const Member *m, int wished) {
    const int own = m->stream->o.drafts, bound = own > 0 && own < t->most ? own : t->most;
    const int most = round_most(&m->l, bound);
    const int k = m->stream->o.drafts_fixed ? bound : wished;
    return k < most ? k : most;
}

static void guess_all(Together *t) {
    const int wished = t->most > 0 ? width_choose(&t->width) : 0;
    for (int i = 0; i < t->n; i++) {
        Member *m = &t->all[i];
        if (!m->goes_on)
            continue;
        const int errors = diag_errors(t->diag);
        turn(t, m);
        m->at = session_length(t->s);
        m->round = (Round){.n = wanted_guesses(t, m, wished), .tokens = {m->newest}};
        if (!round_guess(&m->l, &m->round))
            end(t, m, diag_errors(t->diag) > errors ? STOP_ERROR : STOP_CANCELLED);
    }
}

/* One call for all. The logits or picks of each are where its loop and round have them. */
static StepResult check_all(Together *t) {
    StepPart *parts = t->parts;
    const double start = clock_seconds();
    int n = 0, row = 0;
    for (int i = 0; i < t->n; i++)
        if (t->all[i].goes_on)
            parts[n++] = (StepPart){i, t->all[i].round.tokens, t->all[i].round.n + 1};
    StepResult r = STEP_OK;
    if (n > 0)
        r = t->logits ? session_step_parts(t->s, parts, n, t->logits, NULL)
                      : session_check_parts(t->s, parts, n, t->ids, NULL);
    for (int i = 0; i < n; row += parts[i++].n) {
        Member *m = &t->all[parts[i].sequence];
        if (t->logits)
            m->l.logits = t->logits + (int64_t)row * session_vocab(t->s);
        memcpy(m->round.picks, t->ids + row, (size_t)parts[i].n * sizeof *t->ids);
        m->stream->stats.drafts.verify_seconds += clock_seconds() - start;
    }
    return r;
}

static void end_round(Together *t, StepResult result, double start) {
    for (int i = 0; i < t->n; i++) {
        Member *m = &t->all[i];
        StopReason stop = loop_stop(result);
        if (!m->goes_on)
            continue;
        turn(t, m);
        const bool more = result == STEP_OK && round_end(&m->l, &m->round, m->at, &m->newest, &stop);
        if (t->most > 0 && result == STEP_OK)
            width_measured(&t->width, m->round.n, m->round.right, clock_seconds() - start);
        if (!more)
            end(t, m, stop);
    }
}

/* ==== All ==== */

static void run(Together *t, Stream *streams) {
    begin_all(t, streams);
    t->start = clock_seconds();
    while (take_newest(t)) {
        const double start = clock_seconds();
        guess_all(t);
        end_round(t, check_all(t), start);
    }
    for (int i = 0; i < t->n; i++) {
        Member *m = &t->all[i];
        m->stream->stats.drafts.left_off = t->most > 0 && !m->stream->o.drafts_fixed && !width_pays(&t->width);
        loop_close(&m->l);
    }
}

void generate_together(Session *s, Stream *streams, int n, Diag *diag) {
    Together t = {.s = s, .diag = diag, .n = n, .rows = session_part_rows(s)};
    const bool on_device = session_drafts(s)->way ? session_checks(s) : session_picks(s);
    if (n < 1 || n > session_sequences(s) || n > t.rows)
        ICE("%d sequences of %d in calls of %d rows", n, session_sequences(s), t.rows);
    for (int i = 0; i < n; i++)
        if (streams[i].o.rows)
            ICE("rows of several sequences are not given out");
    t.all = calloc((size_t)n, sizeof *t.all);
    t.parts = calloc((size_t)n, sizeof *t.parts);
    t.ids = calloc((size_t)t.rows, sizeof *t.ids);
    t.logits = on_device ? NULL : malloc((size_t)session_vocab(s) * (size_t)t.rows * sizeof *t.logits);
    if (t.all && t.parts && t.ids && (on_device || t.logits))
        run(&t, streams);
    else
        diag_error(diag, NO_LOC, "out of memory for the logits of %d rows", t.rows);
    free(t.all);
    free(t.parts);
    free(t.ids);
    free(t.logits);
    session_turn(s, 0);
}
