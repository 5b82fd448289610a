/* generate_int.h - what generate.c (one token a step) and speculate.c (several) share. */
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

/* From the end of the prompt on, with the session's drafter. */
StopReason speculate(Loop *l);

#endif
