/* session_int.h - the struct behind session.h, and what its files share.
 *
 * session_open.c  from a text or a bundle to a session
 * session.c       steps, going back
 * session_pick.c  tokens picked on the device
 * session_parts.c several sequences in one call
 * session_draft.c a drafter beside the model
 * session_tables.c ids in the weights
 */
#ifndef LAP_ENGINE_SESSION_INT_H
#define LAP_ENGINE_SESSION_INT_H

#include "runtime/engine/modeltext.h"
#include "runtime/engine/session.h"
#include "runtime/facet/facet.h"

/* Picks on the device: of those enqueued, some are taken; positions below `end` are stored by steps that were enqueued.
 */
typedef struct Picks {
    int64_t most, enqueued, taken, end;
    int32_t id; /* taken last */
    bool held;  /* and not given out yet */
} Picks;

/* DRAFT_CHAIN: the target's vectors of a call's wanted rows. */
typedef struct DraftVectors {
    float *data; /* [n][width], held by the back end */
    int64_t n;
    int32_t *slots, *pos; /* [n] of each row: its sequence and position */
} DraftVectors;

/* A sequence: the tokens whose rows stand in its slot of the caches. */
typedef struct Sequence {
    int32_t *tokens; /* [context] */
    int64_t length;
    int64_t high;                /* positions stored since position 0 last was: what rings may have overwritten */
    const DraftVectors *vectors; /* of its last call; NULL: none */
} Sequence;

/* A drafter. What it needs of the target's last call is in the session's taps behind those of the options. */
typedef struct SessionDraft {
    Weights *weights; /* NULL: there is none */
    TextSource text;
    const Graph *draft, *absorb; /* absorb: of DRAFT_BLOCK */
    int n_taps;
    const char *tap_input[MAX_TAPS]; /* of absorb: "target.layer.3" */
    float *taps[MAX_TAPS];           /* DRAFT_BLOCK: [chunk][width], held by the back end (Backend.hold) */
    /* DRAFT_CHAIN: [sequences + 1], so that there are always some that no sequence needs: the next call's. */
    DraftVectors *vectors, *next;
    /* Where the back end does not pick the guesses: */
    float *logits; /* [most][vocab] */
    float *g;      /* DRAFT_CHAIN: [2][width], held by the back end */
} SessionDraft;

struct Session {
    SessionOptions o;
    Diag *diag;
    Arena *arena;
    Weights *weights;
    TextSource text; /* of a bundle: only its name */
    Facet *facet;    /* NULL: compiled here */
    const Module *module;
    Module *compiled; /* the same where it was compiled here */
    const Graph *step;
    const void **data; /* [weights] bytes as stored */
    const Backend *backend;
    void *state;
    GpuRates rates; /* by which passes chose; of a bundle none */
    Tokenizer *tokenizer;
    char *device; /* "gpu NVIDIA H100 80GB HBM3" */
    int vocab;
    SessionDraft draft;
    int n_taps; /* of the options and of the drafter */
    const char *taps[MAX_TAPS];
    int64_t tap_width[MAX_TAPS];
    Sequence *sequences;   /* [o.sequences] */
    Sequence *now;         /* the one that functions mean which name none */
    int32_t *pos;          /* [chunk] scratch */
    int32_t *slots;        /* [chunk] scratch */
    int32_t *rows;         /* [chunk] 0, 1, 2, .. */
    const char *chunk_why; /* o.chunk was chosen; NULL: given */
    int64_t grid;          /* calls of a feed end at multiples of it: the block of sparse attention; 1: anywhere */
    Picks picks;
};

/* The slot of the sequence that is meant. */
int32_t session_slot(const Session *s);

/* Most rows of a call; all: of which every row's logits are wanted. */
int64_t session_rows_a_call(const Session *s, bool all);

/* Rows of the next call of a feed that has n left. */
int64_t session_next_rows(const Session *s, int64_t n, int64_t most);

/* False after an error: n more tokens do not fit in the context. */
bool session_fits(Session *s, int64_t n);

/* The weights' bytes are there: those that are read as ids are in range. False after an error. */
bool session_check_tables(const Session *s);

/* Compiles the drafter of the options and puts it into the target's module, through no pass yet; the taps it needs
 * become the session's. True too when there is none. */
bool draft_compile(Session *s, Module *target);
/* After the passes. */
bool draft_check(Session *s);
/* When the back end is open. */
bool draft_open(Session *s);
void draft_close(Session *s); /* before the back end */
/* The taps that the drafter needs of a call of the target, as its last outputs. */
void draft_outputs(Session *s, EvalCall *call, EvalOutput *out);
/* They are there, of a call that appends these rows, whose positions and slots are the session's; they are taken in. */
bool draft_saw(Session *s, const StepCall *c);

/* Whether guesses can be enqueued: they are picked on a device, each is a token of the target, and their ring holds as
 * many as a round has. */
bool draft_enqueues(const Session *s);
/* Enqueues guesses, at most n >= 0, which the target's call behind it finds as its tokens. How many; -1 after an error
 * or when cancelled. */
int draft_enqueue(Session *s, int32_t newest, int n, const volatile bool *cancel);
/* Waits for them. 0 is what was read for one that is none. */
bool draft_take(Session *s, int n, int32_t *out);

/* The inputs of entry `step`. */
typedef struct StepInputs {
    EvalInput v[3];
} StepInputs;

/* The call that c means, without outputs; reports what does not fit in the context. `in` outlives it. */
bool session_make_call(Session *s, const StepCall *c, StepInputs *in, EvalCall *call);
/* A call whose wanted rows pick on the device; the drafter sees it. */
bool session_sampled_call(Session *s, const StepCall *c, EvalCall *call, PickWay way);
/* The same of rows whose positions and slots are in the session already; checks nothing. */
void session_call_rows(const Session *s, const StepCall *c, StepInputs *in, EvalCall *call);
/* After the call: the tokens are the session's, or it is as before. errors: of the diag before the call. */
StepResult session_called(Session *s, const StepCall *c, bool ok, int errors);

#endif
