/* plan_text_int.h - what the files of the text form of plans share.
 *
 * plan_print.c         the writer, and words
 * plan_parse.c         the reader: buffers, kernels, the call, phases
 * plan_parse_launch.c  the reader: launches
 */
#ifndef LAP_CODEGEN_PLAN_TEXT_INT_H
#define LAP_CODEGEN_PLAN_TEXT_INT_H

#include "codegen/plan_text.h"
#include "ir/text_lex.h"

/* ==== Words ==== */

/* A number of PlanCost, written when it is not 0. */
typedef struct CostWord {
    const char *word;
    size_t offset;
} CostWord;

enum { COST_WORDS = 7 };
extern const CostWord cost_word[COST_WORDS];

static inline int64_t *cost_number(PlanCost *c, int i) {
    return (int64_t *)((char *)c + cost_word[i].offset);
}

extern const char *const count_word[];  /* by CountKind; NULL: not written */
extern const char *const output_word[]; /* by OutputKind; NULL: not in a plan */

/* ==== The reader ==== */

/* Bounds of what a text may say. */
enum {
    MAX_SLOTS = 4096,
    MAX_ROWS = 1 << 16, /* of a call */
    MAX_CONTEXT = 1 << 24,
    MAX_BUFFERS = 1 << 16,
    MAX_KERNELS = 4096,
    MAX_LAUNCHES = 1 << 16, /* of a phase */
    MAX_ARGS = 256,
    MAX_PHASES = 64,
    MAX_SAMPLED = 32, /* rows: one warp advances them */
    MAX_VOCABULARY = 1 << 19,
    MAX_INPUTS_OF_CALL = 64,
    MAX_OUTPUTS = 4096,
    MAX_WEIGHTS = 1 << 16,
    MAX_NAME = 128, /* of a kernel: it becomes a file name */
    MAX_THREADS = 1024,
    MAX_SHARED = 1 << 18,
    MAX_BLOCKS = 32, /* on a multiprocessor */
    MAX_STAGES = 16, /* of a decode matmul's ring */
    MAX_YZ = 65535,
};

#define MAX_BUFFER_BYTES ((int64_t)1 << 46)
#define MAX_COST         ((int64_t)1 << 60)
#define MAX_TOTAL_BYTES  ((int64_t)1 << 50) /* of all buffers, so that no sum of them overflows */

typedef struct PlanReader {
    Plan *plan;
    NameMap *kernels;
    LaunchVec *launches; /* of the block being read */
    PlanPhase *phase;    /* NULL: fills */
    bool has_call, has_fills;
    int64_t total_bytes; /* of the buffers above */
} PlanReader;

/* These begin at the token that is first in what they read, and report what is wrong with it (ir/text_lex.h). */
bool plan_buffer_ref(Parser *p, const Plan *plan, int *out); /* "b12", of the buffers above */
bool plan_kernel_name(Parser *p, const char **out);          /* that C takes for a function: it is a file name too */
bool plan_launch(Parser *p, PlanReader *r);                  /* behind "launch", to the end of its line */
/* "tuned groups 1 stages 5 flight 3 partials 4", or "analytic ..", as plan_put_cut() writes it. */
bool plan_cut(Parser *p, bool *tuned, MatmulCut *cut);
void plan_put_cut(Buf *out, bool tuned, const MatmulCut *cut); /* (plan_print.c) */

#endif
