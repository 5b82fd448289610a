/* session.h - a model ready to run: weights, compiled text, caches, and the tokens seen so far.
 *
 *   weights_open -> model text by architecture -> fe_compile -> pipeline ─┬─> back end
 *             \---> bundle, for these weights, compiled before ─────────────┘
 *
 * A session holds one sequence, or several of which functions mean one at a time. The state of a sequence is the list
 * of tokens whose K/V rows are stored: stepping appends, rewinding forgets. Positions are absolute and start at 0.
 * Errors go to the Diag given at the start; nothing here prints or exits.
 */
#ifndef LAP_ENGINE_SESSION_H
#define LAP_ENGINE_SESSION_H

#include "frontend/frontend.h"
#include "ir/diag.h"
#include "passes/passes.h"
#include "runtime/engine/backend.h"
#include "runtime/text/text.h"
#include "runtime/weights/weights.h"

#define MAX_TAPS 256

typedef struct SessionOptions {
    const char *weights;       /* path */
    const char *model;         /* path of a .lap; NULL: built in, by architecture */
    const char *facet;         /* path of a bundle: nothing is compiled; what it fixes may be left: NULL, 0, DT_COUNT */
    const FeSetting *settings; /* --set */
    int n_settings;
    int64_t context;         /* most positions of a sequence */
    int sequences;           /* held at once, each with K/V of its own; 0: 1, of a bundle as many as it has */
    int64_t chunk;           /* most rows of a call; 0: chosen (chunk.h), of a bundle what it was compiled for */
    DType kv_k, kv_v;        /* element types of stored keys and values; DT_COUNT: as the back end prefers */
    SparseUse sparse;        /* attention that leaves out keys of long prompts */
    const double *alpha;     /* of it, in the place of the text's; NULL: the text's */
    int threads;             /* 0: all processors */
    const char *device;      /* "auto", "cpu", "gpu" */
    GpuOptions gpu;          /* its plan options are filled from the others */
    const char *const *taps; /* names of taps that calls will read; with those the drafter needs at most MAX_TAPS */
    int n_taps;
    const char *draft;       /* weights of a drafter; NULL: none */
    const char *draft_model; /* path of its text; NULL: built in, by architecture */
    const FeSetting *draft_settings;
    int n_draft_settings;
    bool verify_each; /* check every pass by evaluating before and after it */
} SessionOptions;

typedef struct Session Session;

/* False after errors in diag: what can only be asked for while compiling is asked for of a bundle. session_open()
 * checks it too. */
bool session_facet_takes(const SessionOptions *o, Diag *diag);
/* NULL after errors in diag, which must outlive the session (as must the option strings). */
Session *session_open(const SessionOptions *o, Diag *diag);
void session_close(Session *s);

const ModelFile *session_file(const Session *s);
const Module *session_module(const Session *s);
const char *session_device(const Session *s);      /* "gpu" */
const char *session_device_text(const Session *s); /* "gpu NVIDIA H100 80GB HBM3" */
Gpu *session_gpu(const Session *s);                /* NULL: the processor */
const char *session_text_name(const Session *s);
bool session_can_sparse(const Session *s); /* whether SPARSE_ON would open: a method in the text, computed here */
int session_vocab(const Session *s);       /* logits of a row */
int64_t session_context(const Session *s);
int64_t session_chunk(const Session *s);              /* most rows of a call */
const char *session_chunk_why(const Session *s);      /* NULL: it was given */
const GpuRates *session_rates(const Session *s);      /* by which passes chose; NULL: it is a bundle */
int64_t session_tap_width(const Session *s, int tap); /* floats of a row of options.taps[tap] */
int64_t session_cache_bytes(const Session *s);
int session_threads(const Session *s); /* really used, whatever was asked for */
uint64_t session_weight_bytes(const Session *s);

/* Made at the first call; NULL when the file has none: with an error in diag if report is set. */
const Tokenizer *session_tokenizer(Session *s, bool report);

int64_t session_length(const Session *s);
const int32_t *session_tokens(const Session *s);

typedef enum StepResult { STEP_OK, STEP_ERROR, STEP_CANCELLED, STEP_STOPPED } StepResult;

/* One call of entry `step`: appends n tokens (1..chunk). */
typedef struct StepCall {
    const int32_t *tokens;
    int64_t n;
    const int32_t *rows; /* rows of this call whose logits are wanted, ascending */
    int64_t n_rows;      /* at least 1: the head always runs on something; at most session_step_rows() */
    float *logits;       /* [n_rows, vocab]; NULL: not read */
    float *const *taps;  /* [n_taps][n, width]; NULL: not read */
    int64_t ahead;       /* tokens of the prompt behind this call (EvalCall.ahead) */
    const volatile bool *cancel;
} StepCall;

/* Rows whose logits one call can give: at least 16, or as many as it has. */
int64_t session_step_rows(const Session *s);

/* When it does not return STEP_OK the session is as before the call. */
StepResult session_step(Session *s, const StepCall *call);

/* The same with every row wanted; logits [n, vocab]. */
StepResult session_step_all(Session *s, const int32_t *tokens, int64_t n, float *logits, const volatile bool *cancel);

/* What a caller may watch while tokens are fed. */
typedef struct FeedOptions {
    void (*progress)(void *ctx, int64_t done, int64_t total);
    /* Every row's logits [n, vocab] and taps [n, width], positions pos..pos+n-1; false ends the feed
     * with STEP_STOPPED. NULL: only the last row's logits are computed. */
    bool (*rows)(void *ctx, int64_t pos, int64_t n, const float *logits, float *const *taps);
    void *ctx;
    int64_t ahead; /* tokens of the prompt that a later feed will append */
    const volatile bool *cancel;
} FeedOptions;

/* Appends n >= 1 tokens in chunks; the last row's logits go to last [vocab] unless NULL. When every
 * row is wanted calls are made smaller than `chunk` where needed to bound memory; results do not
 * depend on it, as calls end where blocks of sparse attention do (as far as `chunk` has room for one). */
StepResult session_feed(Session *s, const int32_t *tokens, int64_t n, const FeedOptions *o, float *last);

/* ==== Tokens picked on the device ====
 *
 * session_pick_start, then session_pick and session_pick_feed in turn, at last session_pick_end. In between no other
 * function that feeds or forgets. The ids are those that a Sampler picks from the same logits, but for rounding. */

/* Whether the back end can; else logits are read and picked from with a Sampler. */
bool session_picks(const Session *s);
/* Appends n >= 1 tokens as session_feed() does (o->rows does not count), and picks the first token. At most `most` will
 * be asked for. The penalty knows all tokens of the session. After another result than STEP_OK there is nothing to end.
 */
StepResult session_pick_start(Session *s, const int32_t *tokens, int64_t n, const FeedOptions *o,
                              const SampleOptions *sample, int64_t most);
/* The token behind session_length(); -1: its logits were not usable (NaN or infinite). */
StepResult session_pick(Session *s, int32_t *id);
/* Appends that token, for which the context has room: the one behind it can be asked for. */
void session_pick_feed(Session *s);
void session_pick_end(Session *s);

/* Several tokens at once, some of them guessed: behind session_pick_start() of one token. */

/* Whether the back end can; it is prepared with a drafter only. */
bool session_checks(const Session *s);
/* Appends n tokens, up to as many as session_drafts()->most + 1: the newest one, picked last, then guesses. ids [n]: of
 * each row the token that will be picked behind it if the guesses up to the row are right; -1: its logits were not
 * usable. What counts are the ids up to the first that is not the next row's token: the caller rewinds to the rows that
 * were right, and that id is the newest token. */
StepResult session_check(Session *s, const int32_t *tokens, int64_t n, int32_t *ids, const volatile bool *cancel);

/* ==== Guesses of a drafter ====
 *
 * A drafter sees what every step reads and forgets what is forgotten; its guesses change nothing but speed. */

/* How it works; way DRAFT_NONE: the session has none. */
const Drafts *session_drafts(const Session *s);
const char *session_drafter_name(const Session *s); /* "gemma4_mtp" */
/* Guesses at most n >= 1 tokens that follow `newest`, itself not read yet and next in turn. Gives how many (0: it has
 * nothing to go by), -1 after an error or when cancelled. */
int session_draft(Session *s, int32_t newest, int n, int32_t *out, const volatile bool *cancel);

/* Whether a device can guess and check without the host in between; behind session_pick_start() as session_check(). */
bool session_rounds(const Session *s);
/* session_draft() behind tokens[0], the newest one, for at most *n >= 0 guesses, and session_check() of what they are:
 * tokens [1 + *n] and ids [1 + *n] are filled; *n is how many there were. *guessed: clock_seconds() when the guesses
 * came.
 */
StepResult session_round(Session *s, int32_t *tokens, int *n, int32_t *ids, double *guessed,
                         const volatile bool *cancel);

/* ==== Several sequences ====
 *
 * Everything above and below is about one sequence, at first sequence 0. A call reads the weights once for all of its
 * rows, so rows of several sequences belong into one. */

int session_sequences(const Session *s);
/* Functions mean sequence 0 .. session_sequences() - 1 from now on. */
void session_turn(Session *s, int sequence);

/* Rows of one sequence in a call of several. */
typedef struct StepPart {
    int sequence;
    const int32_t *tokens; /* [n] that it appends */
    int n;                 /* at least 1 */
} StepPart;

/* Most rows of the parts of a call together. */
int session_part_rows(const Session *s);
/* One call for parts of different sequences. logits [all rows][vocab], in the order of the parts. When it does not
 * return STEP_OK all sequences are as before. */
StepResult session_step_parts(Session *s, const StepPart *parts, int n, float *logits, const volatile bool *cancel);
/* The same, and rows are picked on the device, for each sequence as session_check() has it: ids [all rows]. Each has
 * been behind session_pick_start(). Without a drafter, parts of one row. */
StepResult session_check_parts(Session *s, const StepPart *parts, int n, int32_t *ids, const volatile bool *cancel);

/* ==== Going back ==== */

/* Forgets positions >= pos where the caches still hold what a next row at pos can see, else
 * everything. Gives the number of positions kept. */
int64_t session_rewind(Session *s, int64_t pos);

/* Rewinds to the longest beginning that the session and tokens share, at most n - 1 so that there
 * is a row to take logits from. Gives the number of positions kept. */
int64_t session_reuse(Session *s, const int32_t *tokens, int64_t n);

#endif
