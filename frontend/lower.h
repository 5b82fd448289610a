/* lower.h - expanding a model text into graphs: the state all of lower*.c share. Private to frontend/.
 *
 * The expander walks the checked tree (check.c) with values in hand: calls are inlined, loops and
 * conditions are run, what touches a tensor becomes a node. Reading order: value.h, check.h,
 * lower.c (statements, entries), lower_expr.c (expressions), builtins.c and builtins_tensor.c (what
 * can be called), lower_weight.c (binding to the file), lower_param.c, lower_attend.c,
 * lower_variant.c, lower_chat.c, lower_drafts.c.
 *
 * Mistakes: reported once per place and chain of calls, with the chain as notes. The result is
 * poison, which spreads silently, so that one run shows several independent mistakes.
 */
#ifndef LAP_FRONTEND_LOWER_H
#define LAP_FRONTEND_LOWER_H

#include "frontend/check.h"
#include "frontend/frontend.h"
#include "frontend/value.h"

enum {
    MAX_STEPS = 1000000,    /* expressions and iterations a text may take to expand */
    MAX_ELEMENTS = 4000000, /* array elements made in all */
    MAX_DEPTH = 1000,       /* expressions inside one another, calls included */
    MAX_CALLS = 64,         /* calls inside one another */
    MAX_STRING = 65536,
};

typedef struct Binding {
    const char *name;
    Value value;
} Binding;

typedef struct Scope {
    struct Scope *up; /* the block around it in the same function; NULL: globals only */
    VEC(Binding) names;
} Scope;

/* What we are inside of, for notes: a call, or one turn of a loop. */
typedef struct Frame {
    const struct Frame *up;
    SrcLoc loc;
    const char *name; /* of the function, or of the loop's variable */
    bool loop;
    int64_t i; /* loop: value of the variable */
} Frame;

/* What the entry in hand did with one cache. */
typedef struct CacheUse {
    NodeId state;  /* after its store; 0: not stored in this entry */
    SrcLoc stored; /* where */
} CacheUse;

typedef struct Lower {
    Arena *arena;
    Diag *diag;
    const FeInput *in;
    const Program *program;
    Module *m;
    Value *params; /* of the model, in order; */
    int n_params;  /* ... as many as are bound so far */

    Graph *g;               /* entry in hand; NULL outside entries */
    NameMap *outputs;       /* its taps and emits by name */
    NodeId pos;             /* its positions; 0: it has none */
    VEC(CacheUse) uses;     /* by cache index */
    VEC(SrcLoc) first_read; /* by cache index, over all entries; line 0: not read */
    VEC(bool) ever_stored;  /* by cache index, over all entries */

    Scope *scope;
    const Frame *frame;
    int errors;      /* in diag when expanding began */
    bool in_variant; /* expanding the body of one */
    int depth, calls;
    int64_t steps, elements;
    bool stop;  /* a limit was passed: unwind */
    bool muted; /* the last mistake was a repetition: its notes are dropped */
    bool trail; /* the last mistake still lacks the notes of the calls around it */
    VEC(uint64_t) seen;
} Lower;

/* ==== lower.c: mistakes, names, statements, entries ==== */

/* Reports a mistake unless the same place in the same chain of calls already had one. Always gives
 * poison, so that `return l_error(..)` reads well. */
__attribute__((format(printf, 3, 4))) Value l_error(Lower *L, SrcLoc at, const char *fmt, ...);
/* Belongs to the l_error before it. */
__attribute__((format(printf, 3, 4))) void l_note(Lower *L, SrcLoc at, const char *fmt, ...);
/* The place of a file that has no lines. */
SrcLoc l_file(Lower *L, const ModelFile *file);
/* Notes where a value was read in a file, if it was. */
void l_note_origin(Lower *L, Value v);
void l_note_near(Lower *L, SrcLoc at, const Nearest *n);

/* Makes nodes of the graph in hand: as ir_node and its short forms, with l_error's manners. */
NodeId l_node(Lower *L, Op op, const NodeId *in, int n_in, const Attr *attr, const char *hint, SrcLoc loc);
NodeId l_reshape(Lower *L, NodeId x, Type type, const char *hint, SrcLoc loc);
/* True when there is a graph; else reports that `what` is only possible in an entry. */
bool l_in_entry(Lower *L, SrcLoc at, const char *what);

/* Around a call or one turn of a loop. */
void l_enter(Lower *L, Frame *f);
void l_leave(Lower *L);

/* Counts work; false (reported once) when there is too much of it. */
bool l_steps(Lower *L, int64_t n, SrcLoc at);
/* Room for n values; NULL after the error of too many. */
Value *l_values(Lower *L, int64_t n, SrcLoc at);

void l_bind(Lower *L, const char *name, Value v);
/* NULL: no such local. */
Value *l_find(Lower *L, const char *name);

/* The value of a block is that of its last statement when this is an expression, else none. */
Value l_block(Lower *L, const StmtList *block, const char *hint);

/* The module of the program, or NULL after errors. */
Module *l_program(Arena *arena, Diag *diag, const Program *program, const FeInput *in);

/* ==== lower_expr.c ==== */

/* hint: wished name of the node, should this expression end in one; or NULL. */
Value l_eval(Lower *L, const Expr *e, const char *hint);
/* Of an item that has no names of its own. */
Value l_eval_alone(Lower *L, const Expr *e);
Value l_binary(Lower *L, AstOp op, Value x, Value y, const char *hint, SrcLoc loc);
/* The operand as a node: a tensor as it is, a number as a constant; 0 after a report. */
NodeId l_operand(Lower *L, Value v, SrcLoc at);

/* ==== builtins.c ==== */

/* One call of a built-in function with its arguments in the order of its signature. */
typedef struct Call {
    Lower *L;
    const Builtin *fn;
    SrcLoc loc; /* the function's name in the call */
    const char *hint;
    bool target; /* target.name(..) */
    bool has[MAX_SLOTS];
    Value v[MAX_SLOTS];
    SrcLoc at[MAX_SLOTS]; /* of each argument; of the call where it is missing */
    const Expr *arg[MAX_SLOTS];
} Call;

Value l_builtin(Lower *L, const Builtin *fn, const Expr *call, bool target, const char *hint);

/* Argument i as what is needed; false after a report. */
bool arg_int(Call *c, int i, int64_t *out);
bool arg_number(Call *c, int i, double *out);
bool arg_string(Call *c, int i, Str *out);
bool arg_bool(Call *c, int i, bool *out);
bool arg_tensor(Call *c, int i, NodeId *out); /* a tensor with at least one dimension */
/* "'n' of linear must be an int, this is a string" */
Value arg_wrong(Call *c, int i, const char *wanted);

#define BUILTIN(name, ...) Value call_##name(Call *c);
#include "frontend/builtins.def"
#undef BUILTIN

/* ==== lower_param.c ==== */

void l_params(Lower *L);
/* The key's value, or false when the file has none. */
bool l_meta(Lower *L, const ModelFile *file, Str key, SrcLoc at, Value *out);
/* The weights file that is meant; NULL after a report. */
const ModelFile *l_model_file(Lower *L, bool target, SrcLoc at);

/* ==== lower_weight.c ==== */

/* A shape that is asked for; dim -1: any. why: the text that fixes it, what: how to say it. */
typedef struct Want {
    int rank;
    int64_t dim[MAX_DIMS];
    SrcLoc why[MAX_DIMS];
    const char *what[MAX_DIMS]; /* NULL: nothing to say */
} Want;

/* The module's weight for a tensor of the file, or -1 after a report. want NULL: any shape. at: where
 * the name stands. */
int l_weight(Lower *L, Str name, bool target, SrcLoc at, const Want *want);
/* Checks a weight already bound. */
bool l_weight_fits(Lower *L, int weight, SrcLoc at, const Want *want);
void l_missing_tensor(Lower *L, const ModelFile *file, Str name, SrcLoc at);
/* Notes what the file holds under that name. */
void l_note_tensor(Lower *L, const ModelFile *file, const TensorInfo *t);

/* ==== lower_attend.c ==== */

NodeId l_rows_input(Lower *L, SrcLoc at); /* rows: i32[R], the numbers of the wanted rows */
void l_check_caches(Lower *L);            /* after all entries: every cache read was stored somewhere */

/* ==== lower_variant.c ==== */

/* The variant with its parameters bound to values. */
Value l_variant(Lower *L, const VariantDecl *v, const Value *args, const SrcLoc *at, SrcLoc loc);
/* Operators and functions on scalar expressions; x (or y) may be a compile-time number or bool. */
Value l_scalar_binary(Lower *L, AstOp op, Value x, Value y, SrcLoc loc);
Value l_scalar_op(Lower *L, ScalarOp op, const Value *x, int n, SrcLoc loc);
/* table[index] where table is an array or the name of a weight. */
Value l_scalar_index(Lower *L, Value table, Value index, SrcLoc loc);

/* ==== lower_chat.c ==== */

void l_chat(Lower *L);

/* ==== lower_drafts.c ==== */

void l_drafts(Lower *L);

#endif
