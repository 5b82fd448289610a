/* generate.h - the generation loop: prompt -> prefill -> (sample -> step)* -> stop.
 *
 * Text streams out through a callback as soon as it is complete UTF-8. What the session already holds
 * of the prompt is not computed again, so a conversation only pays for its new tokens.
 */
#ifndef LAP_ENGINE_GENERATE_H
#define LAP_ENGINE_GENERATE_H

#include "runtime/engine/session.h"

typedef enum StopReason {
    STOP_COUNT,   /* max_tokens were made */
    STOP_TOKEN,   /* end of sequence, or one of `stop` */
    STOP_CONTEXT, /* no position left */
    STOP_CANCELLED,
    STOP_CALLER, /* a callback said so */
    STOP_ERROR,  /* see diag */
} StopReason;

const char *stop_reason_text(StopReason r); /* "count", "end of sequence", .. */

typedef struct GenerateOptions {
    SampleOptions sample;
    int64_t max_tokens;  /* 0: only the prompt; -1: until something else stops it */
    const int32_t *stop; /* ids that end the reply, beside the file's end-of-sequence ids */
    int n_stop;
    bool ignore_stop;  /* no token ends the reply */
    bool show_control; /* give control tokens as text */
    int drafts;        /* most guesses of a round, with a drafter: 0: as many as it gives; fixed: always that many */
    bool drafts_fixed;
    const volatile bool *cancel;

    void *ctx;
    void (*progress)(void *ctx, int64_t done, int64_t total); /* of the prompt; NULL: none */
    /* One generated token and the text that became complete with it (may be empty); stop tokens are not
     * given. id -1: only text held back until the end. False ends the generation. */
    bool (*token)(void *ctx, int32_t id, Str text);
    /* Rows of logits and taps: the prompt's (FeedOptions.rows), then one for each step without taps.
     * NULL: not wanted. */
    bool (*rows)(void *ctx, int64_t pos, int64_t n, const float *logits, float *const *taps);
} GenerateOptions;

/* Of a drafter. Seconds of sequences that generate together are of the calls that they share. A round is a call of the
 * target that checks guesses, or that had none to check. */
typedef struct DraftStats {
    int64_t rounds;
    int64_t guessed[MAX_DRAFTS], right[MAX_DRAFTS]; /* guess i: checked by the target, kept */
    double draft_seconds, verify_seconds;
    bool left_off; /* it did not pay, by what was measured */
} DraftStats;

typedef struct GenerateStats {
    int64_t prompt_tokens; /* of the prompt; when it was not read to its end, those read */
    int64_t reused_tokens; /* of these, not computed again */
    int64_t new_tokens;    /* generated, stop tokens not counted */
    int64_t steps; /* tokens whose logits were computed after the prompt's, guesses that were wrong not counted */
    double prompt_seconds, decode_seconds;
    StopReason reason;
    DraftStats drafts;
} GenerateStats;

/* n >= 1 prompt tokens. */
StopReason generate(Session *s, const int32_t *prompt, int64_t n, const GenerateOptions *o, Diag *diag,
                    GenerateStats *stats);

/* One of several generations at once. */
typedef struct Stream {
    const int32_t *prompt; /* [n] */
    int64_t n;
    GenerateOptions o; /* without rows; cancel is looked at between calls */
    GenerateStats stats;
} Stream;

/* Stream i is sequence i of the session, which has at least n; n up to session_part_rows(). Prompts are read one behind
 * the other, then all go on together: the newest token and the guesses of each are rows of one call. The tokens of each
 * are those that generate() gives. */
void generate_together(Session *s, Stream *streams, int n, Diag *diag);

#endif
