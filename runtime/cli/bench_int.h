/* bench_int.h - what the files of lap bench share: cmd_bench.c, bench_draft.c, bench_curve.c, bench_svg.c. */
#ifndef LAP_CLI_BENCH_INT_H
#define LAP_CLI_BENCH_INT_H

#include "runtime/cli/measure.h"
#include "runtime/engine/generate.h"

enum { MOST_ROWS = 16, CPU_REPEAT = 3, GPU_REPEAT = 5, MOST_CONTEXTS = 32 };

/* Calls of so many rows, all wanted. */
typedef struct RowsResult {
    int rows;
    double seconds;
    CallTime gpu;
} RowsResult;

typedef struct Bench {
    Cli *c;
    Session *s;
    Gpu *gpu;                      /* NULL: the processor */
    int64_t tokens, depth, repeat; /* of the prompt; in front of decoding */
    TokenList file;                /* --tokens-file */
    int32_t *ids;                  /* as many as the longest sequence has */
    float *logits;
    double pp, tg;          /* median seconds */
    const Roofline *limits; /* NULL: not measured */
    struct {
        double seconds, floor;
        Work work;
    } prompt; /* on a GPU: all its calls */
    RowsResult rows[MOST_ROWS];
    int n_rows;
    struct Rounds *drafts; /* with a drafter */
    int n_drafts;
    GenerateStats generated; /* with a drafter, behind the tokens of a file */
} Bench;

/* A prompt of b->tokens, and decoding behind b->depth of them where `decode` is set: medians into b->pp and b->tg.
 * warm: a run that is not counted goes first. */
StepResult bench_whole(Bench *b, bool warm, bool decode);

/* ==== bench_curve.c ==== */

/* Speeds at a length of context, in tokens/s. */
typedef struct CurvePoint {
    int64_t context;
    double dense, sparse, decode; /* sparse: where Curve.sparse is set */
} CurvePoint;

typedef struct Curve {
    CurvePoint at[MOST_CONTEXTS]; /* ascending */
    int n;
    bool sparse, can_sparse;
    const char *left_out;      /* why sparse is not there though it should be; NULL: it is, or nobody wants it */
    const char *text, *device; /* names */
    int threads;
} Curve;

/* --contexts, whole; an exit code. The session that is still open is b->s. */
int bench_curve(Bench *b);

/* ==== bench_svg.c ==== */

/* Into the file of --svg; an exit code. */
int bench_draw(const Bench *b, const Curve *k);

/* ==== bench_draft.c ==== */

/* Rounds of 1, 2, 4 .. guesses, when the session has a drafter. */
StepResult bench_drafts(Bench *b);
/* Generation behind the prompt, with the guesses that are right there. False after an error, or when interrupted. */
bool bench_generate(Bench *b);
void bench_print_drafts(const Bench *b);
json_t *bench_drafts_json(const Bench *b);
json_t *bench_generated_json(const Bench *b);

#endif
