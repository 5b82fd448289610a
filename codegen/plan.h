/* plan.h - Plan: everything that is needed to run a compiled module on one GPU architecture, as plain data.
 *
 * Buffers, kernels as text, launches with argument lists, entry points, K/V layouts. No pointer into a device, no
 * handle, nothing of a particular machine but its architecture: how many multiprocessors there are is asked when a
 * launch is made (PlanGrid). So a plan prints as text (plan_print.c), reads back (plan_parse.c), and is what a .facet
 * stores.
 *
 *   weights ──► fill launches, once ──► tiles, tables        call block ──► launches of a phase ──► outputs
 */
#ifndef LAP_CODEGEN_PLAN_H
#define LAP_CODEGEN_PLAN_H

#include "codegen/matmul_shape.h"
#include "ir/ir.h"

/* ==== Buffers of device memory ==== */

typedef enum BufferKind {
    BUFFER_CALL,    /* what the host writes before each call: see PlanCall */
    BUFFER_SLAB,    /* values that leave their group, at the places of plan-memory */
    BUFFER_SCRATCH, /* planes, partial results, records: of one phase, reused from launch to launch */
    BUFFER_RAW,     /* a weight as the file has it */
    BUFFER_TILES,   /* a weight repacked for matmuls (ir/quants.def) */
    BUFFER_TABLE,   /* made once by a fill launch: angles of RoPE */
    BUFFER_K,       /* keys of a cache, [slots] planes of kv.h */
    BUFFER_V,
    BUFFER_ZERO,    /* counters: zero before the first launch */
    BUFFER_SAMPLER, /* how sequences sample, and their recent tokens */
    BUFFER_HOST,    /* page-locked memory of the host, which kernels write for it to read */
    BUFFER_TIMES,   /* when the launches of a timed phase ran: a record each, LaunchTimes of kernels/launch_time.cu */
    BUFFER_KINDS,
} BufferKind;

const char *buffer_kind_name(BufferKind k); /* "call", "slab", .. */

typedef struct PlanBuffer {
    const char *name; /* "blk.0.attn_q.weight", "slab", "kv.0" */
    BufferKind kind;
    int64_t bytes; /* of a cache: of one slot */
    int index;     /* of the weight or cache in the module; else -1 */
} PlanBuffer;

/* ==== Kernels ==== */

typedef struct PlanKernel {
    const char *name;  /* of the function: unique in the plan */
    const char *file;  /* the template it comes from: "matmul_decode.cu" */
    const char *text;  /* the whole program, NUL-terminated; compiled with plan_options */
    int threads;       /* of a block */
    int64_t shared;    /* dynamic shared memory of a block, bytes */
    int blocks;        /* that should be resident on a multiprocessor at once */
    const char *shape; /* of a decode matmul: "linear 5376 = Q4_K 8192, 11 x 256, rows 8"; NULL: it is another kernel */
    MatmulCut cut;     /* of it */
    bool tuned;        /* the cut was chosen by timing, not by the rule */
} PlanKernel;

/* What it costs to compile, beside other kernels: the length of its text, times what a template's bodies make of it. */
int64_t plan_kernel_effort(const PlanKernel *k);

/* NVRTC options that every kernel of a plan is compiled with. */
extern const char *const plan_options[];
extern const int n_plan_options;

/* ==== Launches ==== */

typedef enum ArgKind {
    ARG_BUFFER,  /* address of a buffer + offset */
    ARG_NULL,    /* a null pointer */
    ARG_INT,     /* a 32-bit integer */
    ARG_STAGING, /* the weight's bytes on their way in: only in fill launches */
} ArgKind;

typedef struct PlanArg {
    ArgKind kind;
    int buffer;
    int64_t value; /* offset in bytes, or the integer */
} PlanArg;

typedef enum CountKind { COUNT_ONE, COUNT_T, COUNT_R } CountKind; /* what a grid follows */

/* Blocks of a launch. x = fill ? the largest multiple of `fill` that is at most multiprocessors * kernel.blocks (at
 * least `fill`) and at most `x` : x; y, z fixed. Then, with rows: dimension `axis` is multiplied by
 * ceil(count / per), where count is the T or R of the call. */
typedef struct PlanGrid {
    int64_t x, y, z;
    int fill;
    CountKind rows;
    int axis, per;
} PlanGrid;

/* What a launch costs, for profile and bench. Numbers are of one call with T rows. */
typedef struct PlanCost {
    int64_t weight_bytes;       /* of the file's form, read by each launch */
    int64_t expert_bytes;       /* of one expert: times the experts touched */
    int64_t bytes_a_row;        /* activations in and out */
    int64_t flops_a_row;        /* multiply and add are two */
    int64_t kv_bytes_a_key;     /* K and V of one position, all heads; times the keys visible */
    int64_t attend_flops_a_key; /* for one query row and one visible key, all heads */
    int64_t window;             /* keys a query may see; 0: all */
} PlanCost;

typedef struct PlanLaunch {
    int kernel;
    PlanGrid grid;
    VEC(PlanArg) args;
    int group;         /* of the graph; 0: none */
    const char *label; /* "blk.0.attn_q.weight + 2" */
    SrcLoc loc;
    PlanCost cost;
} PlanLaunch;

typedef VEC(PlanLaunch) LaunchVec;

/* ==== Entry points ==== */

/* Where in the call block each thing stands (byte offsets). Counts come first: i32 T, R; with a drafter, how many
 * guesses its calls have put behind the first token; rows of the prompt behind this call. */
enum { PLAN_CALL_MADE = 8, PLAN_CALL_AHEAD = 12 };

typedef struct PlanInput {
    const char *name; /* "tokens", "pos", "rows", or another input of the graph */
    Type type;
    int64_t offset; /* [most rows][row] of 4 bytes each */
} PlanInput;

typedef struct PlanCall {
    int buffer;
    int64_t bytes;   /* of which the host writes the first plan_call_head() for every call */
    int64_t slots;   /* i32 [T]: the sequence of each row */
    int64_t lengths; /* i32 [slots of the plan]: positions of each sequence after the call */
    VEC(PlanInput) inputs;
} PlanCall;

typedef struct PlanOutput {
    OutputKind kind; /* emit or tap */
    const char *name;
    Type type;
    int64_t offset; /* in the slab */
} PlanOutput;

/* A compiled entry for calls of up to `rows` rows. */
typedef struct PlanPhase {
    const char *graph; /* "step" */
    const char *name;  /* "decode8", "decode16", "prefill", "prefill_all" */
    int64_t rows;      /* most T */
    int64_t wanted;    /* most R */
    bool capture;      /* run as one CUDA graph: no grid depends on the rows of a call */
    bool timed;        /* launch i notes when it runs in record i of the BUFFER_TIMES, its last argument */
    LaunchVec launches;
    VEC(PlanOutput) outputs;
} PlanPhase;

enum { PLAN_TIMES_BYTES = 32 }; /* of a launch's record: four u64 */

/* ==== Picking tokens ==== */

enum {
    PLAN_RING = 8,           /* steps whose tokens wait in the ring */
    PLAN_SAMPLING_BYTES = 80 /* of a sequence: Sampling of kernels/sample_source.cu */
};

typedef enum PickWay {
    /* The call block becomes that of the step that feeds the tokens (kernels/advance.cu). In such a call wanted row r
     * is of the same sequence as row r of the call, and no two are of the same: the last row of a prefill, or rows of
     * different sequences from row 0 on. */
    PICK_NEXT,
    /* All rows are wanted; of each sequence, behind each other, its newest token and guesses: what it will pick if they
     * are right, and it goes on from the first that is not (kernels/settle.cu). The call block stays. */
    PICK_CHECK,
    /* Of a drafter: the best token of each wanted row, put behind the first token of the call block, where the call
     * that checks them reads it. Of a chain, whose calls have one row and emit a vector g, token and g of the call
     * block become those of the next guess (kernels/guess.cu). */
    PICK_GUESS,
    PICK_WAYS
} PickWay;

const char *pick_way_name(PickWay w); /* "sampler", .. */

/* Launches that may follow any phase of an entry: a token for each wanted row. */
typedef struct PlanSampler {
    const char *graph;
    PickWay way;
    int64_t rows; /* most R */
    int64_t vocab;
    /* Of PICK_NEXT, else -1: what gpu_sample_start() writes. */
    int states; /* buffer: [slots of the plan] states of PLAN_SAMPLING_BYTES, then the ids picked last, i32 [rows] */
    int recent; /* buffer: [slots] recent tokens, each plan_recent_bytes() */
    int ring;   /* buffer: i32 [PLAN_RING][rows], tokens of step n at n % PLAN_RING */
    LaunchVec launches;
} PlanSampler;

/* Bytes that the recent tokens of a sequence need: a bit each, and a ring of as many as a context has. */
int64_t plan_recent_bytes(int64_t vocab, int64_t context);

/* ==== Plan ==== */

typedef struct PlanWeight {
    int weight; /* of the module */
    int buffer;
    int launch; /* fill launch that makes the buffer from staged bytes; -1: the bytes are copied as they are */
} PlanWeight;

typedef struct Plan {
    Arena *arena;
    const char *arch; /* "sm_90a" */
    int slots;        /* sequences */
    int64_t context, chunk;
    VEC(PlanBuffer) buffers;
    VEC(PlanKernel) kernels;
    VEC(PlanWeight) weights; /* in the order of the file's use */
    LaunchVec fills;         /* once, after the weights are there; those of `weights` among them */
    VEC(int) tables;         /* fills that are not of one weight's bytes, in order, after all weights */
    PlanCall call;
    VEC(PlanPhase) phases;
    VEC(PlanSampler) samplers; /* of the entries that emit logits; at most one each in each way */
} Plan;

/* What of a GPU a plan depends on: its architecture. False for one that is not supported. */
typedef struct PlanTarget {
    const char *arch;
    int64_t shared_per_block; /* bytes, opted in */
    bool pdl;
    bool wgmma; /* tensor cores work for warpgroups, from shared memory */
} PlanTarget;

bool plan_target(const char *arch, PlanTarget *out);

/* How a decode matmul is to be cut. */
typedef struct PlanChoice {
    const char *shape; /* as PlanKernel has it */
    MatmulCut cut;
} PlanChoice;

typedef VEC(PlanChoice) PlanChoices;

typedef struct PlanOptions {
    int slots; /* sequences; 0: 1 */
    int64_t context, chunk, wanted;
    /* Cuts of decode matmuls, of which only ways that matmul_way() gives are taken; NULL: none, all by the rule. */
    const PlanChoices *choices;
    /* Not 0: that way for every decode matmul which has it, to time them. Kernels and launches are the same, one by
     * one, as without; texts, threads and shared memory may differ. */
    int way;
} PlanOptions;

/* The module after all passes. Everything is made in `arena`. NULL after errors in m->diag: something that no kernel
 * can do, with its place. (generate.c) */
Plan *plan_generate(Arena *arena, const Module *m, const PlanTarget *target, const PlanOptions *o);

/* Moments within a launch that a timed one can note, as kernels name them: the end of its wait for the launches ahead;
 * the rows it reads are asked for (matmul) or prepared (attention); an item's queries are prepared; the first strip is
 * multiplied or the first tile has come; a block's own part is stored; it knows who is last; its tail begins. */
#define PLAN_MOMENTS "wait|rows|queries|first|own|come|tail"

/* Appends a version of a phase whose launches note when they run, named as it is with "_timed" behind; once for a plan.
 * Calls go on finding the first. moment: of PLAN_MOMENTS, what is noted beside beginnings and ends. False after an
 * error in diag: a kernel's text is not as plan_generate() writes it. (plan_time.c) */
bool plan_time_phase(Plan *p, int phase, const char *moment, Diag *diag);

/* Text form without the kernels' texts; `lap print --plan`. (plan_print.c) */
void plan_print(Buf *out, const Plan *p, const Module *m);

/* Of a cache: a buffer has its bytes once for each sequence. */
static inline bool buffer_is_cache(BufferKind k) {
    return k == BUFFER_K || k == BUFFER_V;
}

/* Bytes of a buffer, of all sequences together. */
static inline int64_t plan_buffer_bytes(const Plan *p, const PlanBuffer *b) {
    return b->bytes * (buffer_is_cache(b->kind) ? p->slots : 1);
}

/* Bytes of all buffers of a kind, of all sequences together. (plan_print.c) */
int64_t plan_bytes(const Plan *p, BufferKind k);

/* Of all buffers in the device's memory. (plan_print.c) */
int64_t plan_device_bytes(const Plan *p);

/* The phase that a call of T rows with R wanted runs in; -1: none. (plan_print.c) */
int plan_find_phase(const Plan *p, const char *graph, int64_t T, int64_t R);

/* The buffer of that kind when there is one only; else -1. (plan_print.c) */
int plan_only_buffer(const Plan *p, BufferKind k);

/* The call's input of that name; NULL: none. (plan_print.c) */
const PlanInput *plan_input(const Plan *p, const char *name);

/* Tokens, positions, ids: what the host knows. Other inputs are rows of vectors, which calls make for each other. */
static inline bool plan_input_of_host(const Type *t) {
    return t->dtype == DT_I32;
}

/* Where what the host writes for every call ends: counts, its inputs, slots, lengths. (plan_print.c) */
int64_t plan_call_head(const Plan *p);

#endif
