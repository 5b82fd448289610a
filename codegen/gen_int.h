/* gen_int.h - what the files of the code generator share. Not for others.
 *
 * For each graph and phase: groups in order; each family's file emits its launches; `Loc` says where a value can be
 * read. Kernels are made from a template, #defines and bodies, and are the same kernel when their text is the same.
 */
#ifndef LAP_CODEGEN_GEN_INT_H
#define LAP_CODEGEN_GEN_INT_H

#include "codegen/kernel_text.h"
#include "codegen/plan.h"

/* ==== Where a value is ==== */

typedef enum LocKind {
    LOC_NONE,
    LOC_ROWS,   /* row r, element e at base + r * row_stride + e */
    LOC_PLANES, /* the sum of `planes` of those, plane_stride apart; see also segment_len */
} LocKind;

/* Strides in elements, of 4 bytes or, with halves, of 2: f16, of which segment number s of row r is multiplied by f32
 * number r * (row_stride / segment_stride) + s at `units`. Element e of a row stands at (e / segment_len) *
 * segment_stride + e % segment_len: for the experts of a row, whose results stand side by side with those of other
 * matrices. */
typedef struct Loc {
    LocKind kind;
    int buffer;
    int64_t offset; /* bytes */
    int planes;
    int64_t plane_stride, row_stride;
    int64_t segment_len, segment_stride;
    bool halves;
    int64_t units; /* offset in the buffer, bytes */
} Loc;

/* Rows of a call by the experts that ids name (kernels/experts_sort.cu): scratch offsets. Every group that multiplies
 * by the same ids reads them. */
typedef struct Sorted {
    NodeId ids;
    int64_t experts, entries; /* most of `order` */
    int tokens;               /* most pairs of a tile */
    int64_t order, places, tiles, n_tiles;
} Sorted;

/* How the matmuls of a phase read a value: all of them alike. */
typedef struct OperandUse {
    bool few;        /* those of few rows: x records, each with a scale of its own */
    int64_t k;       /* columns; 0: none of them reads it */
    int64_t groups;  /* rows of the operand in a row of the value */
    int64_t entries; /* most rows of the operand */
    int64_t places;  /* of each, scratch offset; -1: row r is row r */
    int last;        /* the last group that reads it so */
    bool only;       /* nothing reads it otherwise */
} OperandUse;

/* What they read, made by the launch that makes the value: f16 rows in their order (gen_operand.c). */
typedef struct Operand {
    bool made;
    PlanArg records;
    OperandUse use;
} Operand;

/* ==== A phase being generated ==== */

typedef enum PhaseKind {
    PHASE_DECODE_8,    /* 1..8 rows of any sequences */
    PHASE_DECODE_16,   /* 9..16 */
    PHASE_PREFILL,     /* a chunk of one sequence, up to 16 wanted rows: these go the way of decode */
    PHASE_PREFILL_ALL, /* the same with more wanted rows */
    PHASE_KINDS,
} PhaseKind;

typedef struct ScratchBlock {
    int64_t at, bytes;
    int last; /* group that reads it last */
} ScratchBlock;

typedef struct Gen {
    Arena *arena;
    const Module *m;
    const Graph *g;
    const PlanTarget *target;
    const PlanOptions *o;
    Plan *plan;
    PlanPhase *phase;
    PhaseKind kind;
    Loc *loc;           /* by node, of this phase */
    bool *in_planes;    /* by node: a matmul's result that its readers take from the planes */
    int *last_read;     /* by node: the last group that reads it, through views; groups.n + 1 for outputs */
    int group;          /* being emitted, from 1 */
    VEC(Sorted) sorted; /* of this phase */
    Operand *operand;   /* by node, of this phase */
    VEC(ScratchBlock) scratch;
    int64_t scratch_bytes; /* most of any phase */
    int slab, scratch_buffer, counters;
    int64_t counter_bytes;
    NameMap *kernel_by_text; /* hash of the text in hex -> kernel */
    int *raw, *tiles;        /* buffer of a weight in each form; -1 none */
    int *cache_k, *cache_v;
    VEC(int) tables; /* buffers of RoPE angles */
    bool failed;
} Gen;

/* An error at a node's place; the plan will be NULL. */
__attribute__((format(printf, 3, 4))) void gen_fail(Gen *g, const Node *n, const char *fmt, ...);

/* True when rows of this kind of dim are few in this phase: the decode kernels compute them. */
bool gen_few(const Gen *g, int64_t dim);
/* Most rows of dim T or R in this phase. */
int64_t gen_most(const Gen *g, int64_t dim);
/* Tiles of 8 rows for gen_few dims: 1 or 2. */
int gen_tiles(const Gen *g, int64_t dim);
CountKind gen_count(int64_t dim);

/* ==== Buffers and arguments (gen_parts.c) ==== */

int gen_buffer(Gen *g, const char *name, BufferKind kind, int64_t bytes, int index);
/* The buffer of a weight as the file has it, and of its tiles, with the launch that makes them. */
int gen_raw(Gen *g, int weight);
int gen_tiles_of(Gen *g, int weight);
/* The table of angles for a rope node: f64 [dims / 2]. False after gen_fail. */
bool gen_rope_turns(Gen *g, const Node *rope, int *table);
/* Scratch of this phase that is needed until group `last` has run. Offset in bytes. */
int64_t gen_scratch(Gen *g, int64_t bytes, int last);
/* Four fresh counters, zero before the first launch. */
PlanArg gen_counters(Gen *g);

PlanArg arg_at(int buffer, int64_t offset);
PlanArg arg_null(void);
PlanArg arg_integer(int64_t v);
PlanArg arg_loc(const Loc *l);
PlanArg arg_input(const Gen *g, const char *name);
PlanArg arg_count(const Gen *g, int64_t dim);
PlanArg arg_ahead(const Gen *g);
PlanArg arg_slots(const Gen *g);
PlanArg arg_lengths(const Gen *g);
/* The i32 input that a node is: tokens, pos, or rows of them. */
PlanArg arg_value(Gen *g, NodeId id);

/* Dynamic shared memory such that two blocks do not fit on a multiprocessor of 228 KiB. */
enum { GEN_OVER_HALF = 118 << 10 };
/* At least that where launches may overlap. (gen_matmul.c) */
int64_t gen_exclusive(const Gen *g, int64_t shared);

/* ==== Kernels and launches (gen_parts.c) ==== */

/* The kernel for this text, made if it is new. `name` gets a number behind it; it is defined as `name_macro`. */
int gen_kernel(Gen *g, const char *file, const char *name_macro, const char *name, const char *defines,
               const Body *bodies, int n_bodies, int threads, int64_t shared, int blocks);

/* #line of the node's place in the .lap text. */
void gen_line(const Gen *g, Buf *to, SrcLoc at);
PlanLaunch *gen_launch(Gen *g, LaunchVec *to, int kernel, PlanGrid grid, const char *label, SrcLoc loc);
void launch_arg(Gen *g, PlanLaunch *l, PlanArg a);

/* ==== Row programs (row_program.c): what follows a matmul, and rowwise groups ==== */

typedef struct RowParam {
    const char *type; /* "const float *" */
    PlanArg arg;
} RowParam;

typedef struct RowProgram {
    const char *body;       /* tail.body */
    const char *parameters; /* ", const float *p0, float *p1" */
    const char *arguments;  /* ", p0, p1" */
    VEC(RowParam) params;
    int64_t dim;    /* DIM_T or DIM_R */
    int64_t chunks; /* items a row */
    int64_t shared; /* bytes of shared memory */
    int64_t bytes_a_row;
    bool two; /* it reads or writes f16, for many rows: half the registers are enough for it, two blocks are better */
} RowProgram;

/* nodes: what is to be computed, in order; their operands are others of them, or can be read where gen->loc says.
 * False after gen_fail. */
bool row_program(Gen *g, const NodeId *nodes, int n, RowProgram *out);
/* "#define TAIL_PARAMETERS .." and so on. */
void row_defines(const RowProgram *p, Buf *to);
void row_args(Gen *g, const RowProgram *p, PlanLaunch *l);
/* A launch of its own. */
void row_launch(Gen *g, const NodeId *nodes, int n, const char *label, SrcLoc loc);

/* ==== Operands of matmuls, made by row programs and attention (gen_operand.c) ==== */

OperandUse gen_operand_use(Gen *g, NodeId value);
/* Room for it: in the value's own place, if nothing else is wanted there. */
PlanArg gen_operand_place(Gen *g, NodeId value, const OperandUse *use);
/* The value's operand is at `records` now; where nothing reads the value otherwise, it is nowhere else. */
void gen_operand_made(Gen *g, NodeId value, const OperandUse *use, PlanArg records);
/* The operand of a matmul's input; NULL: it has none. */
const Operand *gen_operand(Gen *g, const Node *main);

/* ==== Scalars of variants (scalar_text.c) ==== */

/* The functions of variant.body. */
const char *variant_text(Gen *g, const Variant *v);
/* score_of_mean() of attention_choose.cu, for blocks of so many keys; "" of a variant without score. */
const char *variant_mean_text(Gen *g, const Variant *v, int64_t block);
/* Table parameters in order of first use: weights of the module. */
typedef VEC(int) TableVec;
void variant_tables(Gen *g, const Variant *v, TableVec *out);

/* ==== Families ==== */

typedef VEC(NodeId) NodeVec;

/* The members of the current group: mains and those behind them. */
typedef struct Members {
    NodeVec main, after;
} Members;

Members gen_members(Gen *g, Op main);
/* Of any group. */
Members gen_members_of(Gen *g, int group, Op main);

void gen_matmul(Gen *g);
void gen_experts(Gen *g);
void gen_attention(Gen *g);
void gen_rowwise(Gen *g);

/* What picks tokens from the logits of the graph, where it can (gen_sample.c). */
void gen_samplers(Gen *g);
void gen_guesser(Gen *g); /* of a drafter */

/* Where a node with a place of its own in the slab stands. */
Loc slab_loc(const Gen *g, NodeId id);
/* For use in file names and labels: "blk.0.attn_q.weight + 2". */
const char *weights_label(Gen *g, const NodeVec *mains);

#endif
