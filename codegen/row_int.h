/* row_int.h - what the writer of row programs is made of. Not for others: gen_int.h has row_program().
 *
 *   row_program.c   the program as a whole
 *   row_nodes.c     the text of each op
 *   row_stats.c     norms, softmax, sums, top-k, chosen rows of a matrix: what needs whole rows
 *   row_loop.c      loops over the elements of a row
 *   row_read.c      where an operand is, and the text that reads it
 *   row_operand.c   values that matmuls read
 */
#ifndef LAP_CODEGEN_ROW_INT_H
#define LAP_CODEGEN_ROW_INT_H

#include "codegen/gen_int.h"

enum { ROW_LANE = 4 }; /* neighbours of a lane, where it makes no records */

/* What is known of a node. Places are of shared memory, in bytes. */
typedef struct RowValue {
    bool member; /* computed by this program */
    bool main;   /* result of the matmul that the program follows */
    int number;  /* its variable is v<number>; from 0 in each program, so that layers share kernels */
    bool in_loop;
    int read_by;    /* the loop that has read it to an array of its own; 0: none */
    int width;      /* neighbours that a lane of its loop had */
    bool keep;      /* another loop reads it, or the same at another place */
    bool kept;      /* it is in memory now */
    int64_t at;     /* place of what is kept; -1: none */
    int64_t global; /* scratch offset of what is kept and too large for shared memory; else -1 */
    int64_t stat;   /* place of its statistics */
    bool want_squares;
    int64_t squares;    /* a norm reads its sums of squares, which its loop leaves here, one for each warp's elements */
    int factor;         /* of a norm: the variable factor<number>; -1: its factors are statistics */
    OperandUse operand; /* k 0: none */
    PlanArg records;    /* the operand's place, in the end */
} RowValue;

/* The loop being written, over n elements of a row; see row_loop.c. */
typedef struct RowLoop {
    bool open;
    int64_t n;
    bool scalar;                                 /* a lane has one element, not its neighbours */
    bool keeps;                                  /* it writes to shared memory */
    bool records;                                /* it writes records: a lane has their neighbours */
    int n_loads, first_load;                     /* arrays of what is read: in the program, before this loop */
    bool may_be_ahead;                           /* its reads may stand before or behind the first loop */
    int ahead_before;                            /* the last loop before it of which that is so; 0: none */
    bool mains;                                  /* it reads what the launch's matmul has made */
    int load_weight;                             /* numbers that an element's reads have under way */
    int most_ahead;                              /* most of them that a lane has under way */
    Buf arrays, loads, variables, lines, stores; /* its text by place */
    Buf sums, reductions;                        /* over a warp, of what its lanes have in all rounds under way */
} RowLoop;

typedef struct RowWriter {
    Gen *g;
    Arena *a; /* scratch */
    RowProgram *out;
    RowValue *of; /* by node */
    int values;
    Buf top, starts, body, ahead; /* the function's start; sizes and reads of loops; finished loops and statistics;
                                   * tail_ahead() */
    Buf fetches[2];               /* reads of later loops, before the first loop and behind it */
    size_t fetch_at;              /* the latter's place in body */
    NameMap *tops;                /* statements of top and ahead that are there already */
    RowLoop loop;
    int loops;
    bool statistics;
    bool chosen;     /* it needs row_chosen.cu */
    bool operands;   /* it makes operands of matmuls */
    int neighbours;  /* the most elements that a lane has in a loop: ROW_LANE, or those of a record */
    bool no_records; /* a value that is to be records was computed in a scalar loop */
    bool halves;     /* it reads f16 */
    bool alone;      /* it has one node */
    int chunk;       /* elements that a block has of a row which several share */
    bool again;      /* a value turned out to be needed later: the text is to be written once more */
} RowWriter;

/* A place in a row: C text over `e`. contiguous: the neighbours of e, from a multiple of their number on, are
 * neighbours from a multiple of it on here too. */
typedef struct RowIndex {
    const char *text;
    bool contiguous;
    /* Where it is known: all of the loop's places are in segment number `segment`, of `segment_len` elements, of the
     * row. */
    int64_t segment, segment_len;
} RowIndex;

static const RowIndex ROW_HERE = {"e", true, 0, 0};

static inline RowIndex row_index(const char *text, bool contiguous) {
    return (RowIndex){.text = text, .contiguous = contiguous};
}

/* What an operand is after views, slices and gathered rows: a node, a place in it, and the row. */
typedef struct RowRef {
    NodeId id;
    RowIndex at;
    int64_t skip;    /* elements that stand before: of slices, in the address, so that layers share a text */
    const char *row; /* "row", or a variable */
} RowRef;

/* ==== row_read.c ==== */

/* The name of a parameter of the program. */
const char *row_param(RowWriter *p, const char *type, PlanArg arg);
bool row_is_int(const Node *n);
const char *row_c_type(const Node *n); /* "float " */
int64_t row_last_dim(const Type *t);
/* The place in an operand of type `from` of the element that `at` gives of a value of type `to`, by broadcasting. */
RowIndex row_broadcast(RowWriter *p, const Type *to, const Type *from, RowIndex at);
RowRef row_resolve(RowWriter *p, NodeId id, RowIndex at);
/* An i32 input's number for the row. */
const char *row_ids(RowWriter *p, NodeId ids, const char *row);
/* A kept value as an array. */
const char *row_kept(RowWriter *p, NodeId id);
/* The value of a node at a place, as text over `e`; of any node but those of the open loop. */
const char *row_read(RowWriter *p, NodeId id, RowIndex at);
/* The value of an operand in the loop, of lane i. */
const char *row_lane(RowWriter *p, NodeId id, RowIndex at);
/* The value of an operand at one place of the row, whatever the loop's `e`: another launch's is read at the function's
 * start. */
const char *row_early(RowWriter *p, NodeId id, const char *at);
/* A function over `e` that reads the operand. */
const char *row_reader(RowWriter *p, NodeId id);

/* ==== row_loop.c ==== */

/* A loop over n elements: the open one if it fits. */
void row_loop_open(RowWriter *p, int64_t n);
void row_loop_close(RowWriter *p);
void row_loop_clear(RowLoop *l);
void row_loop_free(RowLoop *l);
/* Closes the loop if the operand is computed in it: for one that is read elsewhere than at `e`. */
void row_loop_leave(RowWriter *p, NodeId operand);
/* A new array of what the loop reads before it computes; its number. weight: numbers under way for each element.
 * halves: of load_halves(), not of floats. */
int row_loop_load(RowWriter *p, int weight, bool halves);
/* The node's value in the open loop: the right side of an assignment. Stored where others need it. */
void row_define(RowWriter *p, NodeId id, const char *expression);
/* Bytes of shared memory; their place. */
int64_t row_room(RowWriter *p, int64_t bytes);
const char *row_floats(RowWriter *p, int64_t place);

/* ==== row_stats.c ==== */

void row_norm(RowWriter *p, NodeId id);
void row_softmax(RowWriter *p, NodeId id);
void row_sum(RowWriter *p, NodeId id);
void row_top_k(RowWriter *p, NodeId id);
void row_linear_at(RowWriter *p, NodeId id);

/* ==== row_operand.c ==== */

/* Which of the nodes matmuls read; none of them after all; their places; all is written. */
void row_operands_find(RowWriter *p, const NodeId *nodes, int n);
void row_operands_drop(RowWriter *p);
void row_operands_place(RowWriter *p);
void row_operands_made(RowWriter *p);
/* Behind the value's loop; in the loop, of few rows. */
void row_operand(RowWriter *p, NodeId id);
void row_record(RowWriter *p, NodeId id);

/* ==== row_nodes.c ==== */

/* Element (row, k) of a matrix, of texts: as the file has it, or out of the tiles that a matmul reads too. */
const char *row_weight_at(RowWriter *p, int weight, const char *row, const char *k);

void row_node(RowWriter *p, NodeId id);

#endif
