/* generate_int.h - what generate.c (one token a step), speculate.c (several) and together.c (of several sequences)
 * share. */
#ifndef LAP_ENGINE_GENERATE_INT_H
#define LAP_ENGINE_GENERATE_INT_H

#include "runtime/engine/generate.h"

typedef struct Loop {
    Session *s;
    const GenerateOptions *o;
    Diag *diag;
    GenerateStats *stats;
    Sampler *sampler;           /* NULL: on_device */
    const Tokenizer *tokenizer; /* NULL: ids only */
    Detokenizer detok;
    Buf text;
    float *logits;  /* [1 + drafts][vocab] of the newest rows; NULL: on_device */
    bool on_device; /* tokens are picked there: no sampler, no logits */
} Loop;

/* False after an error. On the host it still needs logits. */
bool loop_open(Loop *l, Session *s, int64_t prompt, const GenerateOptions *o, Diag *diag, GenerateStats *stats);
void loop_close(Loop *l);
/* The prompt, of which some may be there. picks: as of session_pick_start(). */
StepResult loop_read_prompt(Loop *l, const int32_t *prompt, int64_t n, int64_t picks);
/* The last text; the reason it ended. */
StopReason loop_end(Loop *l, StopReason reason);

StopReason loop_stop(StepResult r);
bool loop_cancelled(const Loop *l);
/* The token behind position pos by its logits; false after an error: they are not usable. */
bool loop_pick(Loop *l, const float *logits, int64_t pos, int32_t *id);
/* The same of a token that the device picked there. */
bool loop_picked(const Loop *l, int64_t pos, int32_t id);
/* The token behind the last that was read. */
bool loop_pick_next(Loop *l, int32_t *id);
/* Counts and delivers a token that was picked; false when nothing comes behind it, *stop says why. */
bool loop_take(Loop *l, int32_t id, StopReason *stop);

/* The newest token counts; whether another is wanted and there is room for it, else *stop says why not. */
bool loop_goes_on(Loop *l, int32_t newest, StopReason *stop);

/* ==== Rounds of a drafter (speculate.c) ==== */

typedef struct Round {
    int n; /* guesses */
    int32_t tokens[1 + MAX_DRAFTS];
    int32_t picks[1 + MAX_DRAFTS]; /* on the device: behind each of them */
    int right;                     /* guesses kept */
} Round;

/* Guesses, up to `most`, that there is room and use for. */
int round_most(const Loop *l, int most);
/* Makes r->n guesses, or less, behind tokens[0]. False after an error, or when cancelled. */
bool round_guess(Loop *l, Round *r);
/* The call for rows from position `at` on has been made: keeps what is right, and counts. False when generation ends,
 * *stop says why; else *newest is the token picked last. */
bool round_end(Loop *l, Round *r, int64_t at, int32_t *newest, StopReason *stop);

/* From the end of the prompt on, with the session's drafter. */
StopReason speculate(Loop *l);

#endif
