/* bench_int.h - what the files of lap bench share: cmd_bench.c, bench_draft.c. */
#ifndef LAP_CLI_BENCH_INT_H
#define LAP_CLI_BENCH_INT_H

#include "runtime/cli/measure.h"

enum { MOST_ROWS = 16, CPU_REPEAT = 3, GPU_REPEAT = 5 };

/* Calls of so many rows, all wanted. */
typedef struct RowsResult {
    int rows;
    double seconds;
    CallTime gpu;
} RowsResult;

typedef struct Bench {
    Cli *c;
    Session *s;
    Gpu *gpu; /* NULL: the processor */
    int64_t depth, repeat;
    int32_t *ids; /* as many as the longest sequence has */
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
} Bench;

/* ==== bench_draft.c ==== */

/* Rounds of 1, 2, 4 .. guesses, when the session has a drafter. */
StepResult bench_drafts(Bench *b);
void bench_print_drafts(const Bench *b);
json_t *bench_drafts_json(const Bench *b);

#endif
