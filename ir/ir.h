/* ir.h - the graph IR: a Module of weights, caches, attention variants and graphs of typed nodes.
 *
 * Nodes are pure values in one array per graph, referred to by 32-bit ids and always in
 * topological order (operands have smaller ids). They are made only by ir_node() and its
 * short forms, which check operands, infer the result type, share equal pure nodes, and report
 * mistakes with places. Everything lives in the module's arena. Cache state is a value too: `cache`
 * is the state at the start of a call, `kv_store` makes a new one, `attend` reads one; so order
 * follows from operands alone.
 *
 * Sections: types, ops, nodes, groups, graph, module, building, grouping, checking, text.
 */
#ifndef LAP_IR_IR_H
#define LAP_IR_IR_H

#include "ir/diag.h"
#include "ir/kv.h"
#include "ir/modelfile.h"
#include "ir/scalar.h"
#include <string.h>

/* ==== Types ==== */

/* Symbolic dims. Only the first dim of a value may be symbolic. */
enum { DIM_T = -1 /* rows of this call */, DIM_R = -2 /* rows wanted at the output */ };

typedef struct Type {
    DType dtype;           /* DT_F32, DT_I32, DT_KV for values; any for weights */
    int rank;              /* 0: scalar */
    int64_t dim[MAX_DIMS]; /* > 0, or DIM_T / DIM_R at index 0 */
} Type;

Type type_scalar(DType t);
Type type_make(DType t, int rank, const int64_t *dim);
bool type_same(const Type *a, const Type *b);
/* "f32[T, 640]"; "f32" for a scalar; "kv". */
void type_print(Buf *out, const Type *t);
const char *type_text(Arena *a, const Type *t);
/* Elements of one row: the product of all dims, a symbolic first dim counted as 1. */
int64_t type_row_elems(const Type *t);
bool type_has_rows(const Type *t); /* first dim is T or R */
/* The rows of a value in a call of T rows of which R are wanted; 1 when it has none. */
static inline int64_t type_rows(const Type *t, int64_t T, int64_t R) {
    return !type_has_rows(t) ? 1 : t->dim[0] == DIM_T ? T : R;
}

/* ==== Ops ==== */

typedef enum Op {
    OP_NONE,
#define OP(e, name, lo, hi, attrs, flags) OP_##e,
#include "ir/ops.def"
#undef OP
    OP_COUNT
} Op;

enum {
    OPF_PURE = 1,
    OPF_ELEMENTWISE = 2,
    OPF_COMMUTATIVE = 4,
    OPF_VIEW = 8,
    OPF_LEAF = 16,
    OPF_ROWWISE = 32,
    OPF_TYPED = 64,
};

#define MAX_ATTRS  4
#define MAX_INPUTS 16

typedef struct OpInfo {
    const char *name; /* mnemonic */
    int min_in, max_in;
    int n_attrs;
    const char *attr_name[MAX_ATTRS];
    char attr_kind[MAX_ATTRS]; /* i f s w c v, see ops.def */
    unsigned flags;
} OpInfo;

const OpInfo *op_info(Op op);
Op op_from_name(Str name); /* OP_NONE when unknown */

/* ==== Nodes ==== */

typedef uint32_t NodeId; /* 0 is no node */

typedef union Attr {
    int64_t i;     /* i; and the index for w, c, v */
    double f;      /* f */
    const char *s; /* s, in the arena */
} Attr;

typedef struct Node {
    Op op;
    int n_in;
    NodeId *in;
    Attr attr[MAX_ATTRS];
    Type type;
    const char *name; /* unique in the graph, printed as %name; leaves have none */
    SrcLoc loc;
    int64_t slab; /* plan-memory: byte offset in the graph's slab; -1 none */
    int group;    /* fusing passes: 1 + index in the graph's groups; 0 none */
} Node;

/* ==== Groups: nodes that one kernel computes ====
 * Fusing passes only say which nodes go together; the nodes stay as they are, so fusion changes
 * grouping and never meaning. Seen as one unit each, groups and ungrouped nodes have no cycle.
 */

typedef enum Family {
#define FAMILY(e, name, main, most) FAM_##e,
#include "ir/families.def"
#undef FAMILY
    FAM_COUNT
} Family;

typedef struct FamilyInfo {
    const char *name;
    Op main; /* OP_NONE: has none */
    int most_mains;
} FamilyInfo;

const FamilyInfo *family_info(Family f);
/* Its main op multiplies by weights. */
static inline bool family_of_matmuls(Family f) {
    return f == FAM_MATMUL || f == FAM_EXPERTS;
}
Family family_from_name(Str name); /* FAM_COUNT when unknown */

/* How an attention goes over the keys. */
typedef enum AttendWay {
    ATTEND_NONE,
    ATTEND_SPLIT,  /* keys in parts by absolute position, each by another block; the parts are merged */
    ATTEND_DENSE,  /* blocks of queries against every tile of keys that some of them sees */
    ATTEND_SPARSE, /* against those blocks of keys that the variant's sparse method keeps; prefill only */
    ATTEND_WAYS,
} AttendWay;

const char *attend_way_name(AttendWay w);
AttendWay attend_way_from_name(Str name); /* ATTEND_NONE when unknown */

typedef struct AttendChoice {
    AttendWay way;
    int64_t from;    /* ATTEND_SPARSE: blocks of queries that begin before this position go dense; else 0 */
    const char *why; /* for people; NULL with ATTEND_NONE */
} AttendChoice;

/* What of a group may be done before the group ahead has ended, since it needs nothing of it. */
typedef enum Early {
    EARLY_NONE,
    EARLY_IDS,  /* experts: their ids are read, so that their weights can be asked for */
    EARLY_MAIN, /* matmul: all of it; what follows it may still wait */
} Early;

typedef struct Group {
    Family family;
    int warps, columns;           /* choose-matmul: warps beside each other, columns of one; 0: none */
    AttendChoice decode, prefill; /* choose-attention, for each phase */
    Early early;                  /* overlap, in the decode phase */
    SrcLoc loc;
} Group;

/* ==== Graph ==== */

typedef enum OutputKind {
    OUT_EMIT, /* emit logits = %x       the caller reads it */
    OUT_TAP,  /* tap layer.3 = %h       read only on request; dropped when not wanted */
    OUT_KEEP, /* keep kv.0 = %s         the cache's state after the call */
} OutputKind;

typedef struct Output {
    OutputKind kind;
    const char *name; /* "logits", "layer.3", cache name for OUT_KEEP */
    NodeId node;
    SrcLoc loc;
} Output;

typedef struct Module Module;

typedef struct Graph {
    Module *module;
    const char *name; /* entry: "step" */
    VEC(Node) nodes;  /* nodes.v[0] is unused */
    VEC(NodeId) inputs;
    VEC(Output) outputs;
    VEC(Group) groups;          /* node.group - 1 is the index */
    int64_t slab_bytes;         /* plan-memory: size of the slab; 0 before */
    int64_t slab_rows;          /* plan-memory: most T it was planned for; 0 before */
    int64_t slab_wanted;        /* plan-memory: most R */
    struct GraphTables *tables; /* hash-consing and names; private to graph.c */
    SrcLoc loc;
} Graph;

/* ==== Module ==== */

typedef struct Weight {
    const char *name;
    Type type;        /* dtype = storage type, dims row-major */
    const char *from; /* "uses target": name of the model it belongs to; NULL: this model's file */
    const char *file; /* for messages: path of the file; NULL unknown */
    SrcLoc loc;       /* first use */
} Weight;

typedef struct Cache {
    const char *name; /* "kv.0" */
    const char *from; /* a cache of the target; NULL: own */
    KvLayout layout;
    SrcLoc loc;
} Cache;

/* A variant with its parameters bound. */
typedef struct Variant {
    const char *name;      /* "full", "window.512" */
    const Scalar *visible; /* over q, k, h */
    const Scalar *score;   /* over s, q, k, h; NULL: s */
    const Scalar *sink;    /* over h: an extra logit that takes weight and gives no value; NULL none */
    const char *sparse;    /* "flash_prefill"; NULL: dense only */
    int n_sparse;          /* its arguments, in the order written */
    struct {
        const char *name;
        double value;
    } sparse_arg[8];
    SrcLoc loc;
} Variant;

/* How a conversation is written: prefix and suffix around each text. All strings may be empty. */
typedef struct ChatFormat {
    bool present;
    Str user[2], model[2]; /* prefix, suffix of a turn */
    Str system[2];         /* of a system text */
    bool system_in_user;   /* the system text, so wrapped, goes in front of the first user text */
    bool has_system;
    Str prompt;    /* opens the reply */
    VEC(Str) stop; /* texts of tokens that end a reply, beside end-of-sequence */
    Str hide[2];   /* begin and end of a part not shown and not kept in history; empty: none */
} ChatFormat;

/* How a drafter guesses the tokens behind the newest one, by its entry `draft`. */
typedef enum DraftWay {
    DRAFT_NONE,
    DRAFT_CHAIN, /* one after the other: each from the one before and the vector `g` that came with it */
    DRAFT_BLOCK, /* all at once, in the places of mask tokens; entry `absorb` takes what the target has read */
    DRAFT_WAYS,
} DraftWay;

/* With the newest token in front, the rows of one call of the decode phase. */
#define MAX_DRAFTS 15

typedef struct Drafts {
    DraftWay way;
    int most;     /* tokens a round: 1..MAX_DRAFTS */
    int32_t mask; /* DRAFT_BLOCK */
} Drafts;

const char *draft_way_name(DraftWay w);
DraftWay draft_way_from_name(Str name); /* DRAFT_NONE when unknown */

struct Module {
    Arena *arena;
    Diag *diag;
    const char *name;   /* "gemma3" */
    const char *arch;   /* architecture string it binds to */
    const char *target; /* "uses target"; NULL none */
    VEC(Weight) weights;
    VEC(Cache) caches;
    VEC(Variant) variants;
    VEC(Graph *) graphs;
    ChatFormat chat;
    Drafts drafts;         /* of a drafter, and of a target that it was linked to */
    NameMap *weight_index; /* name -> index in weights */
    NameMap *cache_index;  /* name -> index in caches */
};

Module *module_new(Arena *arena, Diag *diag, const char *name, const char *arch);
/* Index, or -1. */
int module_weight(const Module *m, const char *name);
int module_cache(const Module *m, const char *name);
int module_variant(const Module *m, const char *name);
Graph *module_graph(const Module *m, const char *name); /* NULL when absent */
/* Adds, or gives the one of that name (same contents required: ICE otherwise). */
int module_add_weight(Module *m, Weight w);
int module_add_cache(Module *m, Cache c);
int module_add_variant(Module *m, Variant v);

/* The name of a weight's tensor in the file it belongs to: in front of that of another model stands "target." or
 * "draft.". */
static inline const char *weight_tensor(const Weight *w) {
    return w->from ? strchr(w->name, '.') + 1 : w->name;
}

/* Puts the graphs of a drafter into its target's module, neither through any pass yet and both of one arena: then one
 * set of passes, plans and caches serves both. What the drafter has of the target becomes the target's own; its weights
 * are called "draft.NAME" there and are `from` it, as are its caches and variants called. False after errors in the
 * target's diag: it works for another model, or both have an entry of one name. (ir/link.c) */
bool module_link(Module *target, const Module *drafter);

/* ==== Building (ir/graph.c; shape rules in ir/infer.c) ==== */

Graph *graph_new(Module *m, const char *name, SrcLoc loc);

/* The general maker. name: wished name (made unique by a suffix; NULL: from the op), type: for
 * OPF_TYPED ops, else NULL. Returns 0 after reporting to m->diag when the operands do not fit;
 * also returns 0 silently when any operand is 0 (an earlier error). */
NodeId ir_node(Graph *g, Op op, const NodeId *in, int n_in, const Attr *attr, const Type *type, const char *name,
               SrcLoc loc);

NodeId ir_input(Graph *g, const char *name, Type type, SrcLoc loc); /* same name: same node */
NodeId ir_const(Graph *g, double value, SrcLoc loc);
NodeId ir_weight(Graph *g, int weight, SrcLoc loc);
NodeId ir_cache(Graph *g, int cache, SrcLoc loc);
NodeId ir_op1(Graph *g, Op op, NodeId x, const char *name, SrcLoc loc);
NodeId ir_op2(Graph *g, Op op, NodeId x, NodeId y, const char *name, SrcLoc loc);
NodeId ir_reshape(Graph *g, NodeId x, Type type, const char *name, SrcLoc loc);

void ir_output(Graph *g, OutputKind kind, const char *name, NodeId node, SrcLoc loc);
/* The output's node, or 0. */
NodeId ir_find_output(const Graph *g, OutputKind kind, const char *name);

static inline Node *ir_get(const Graph *g, NodeId id) {
    return &g->nodes.v[id];
}
static inline const Type *ir_type(const Graph *g, NodeId id) {
    return &g->nodes.v[id].type;
}
bool ir_is_const(const Graph *g, NodeId id, double *value); /* CONST node: its value */
/* The node whose bytes a view shares; the node itself when it is no view. */
NodeId ir_view_base(const Graph *g, NodeId id);
/* The node multiplies by weights. */
static inline bool ir_is_matmul(const Node *n) {
    return n->op == OP_LINEAR || n->op == OP_LINEAR_EXPERTS;
}
/* The group is early as a whole: what it computes is written while the group ahead runs. */
static inline bool ir_runs_beside(const Graph *g, int group) {
    return group > 1 && g->groups.v[group - 1].early == EARLY_MAIN;
}
/* The cache a kv value is a state of: index in module->caches. */
int ir_cache_of(const Graph *g, NodeId kv);

/* Copies node `id` of `from` into `to` with operands map[old] (name, attributes, place kept); for
 * passes, which rebuild a graph in order. */
NodeId ir_copy(Graph *to, const Graph *from, NodeId id, const NodeId *map);
/* An empty graph with the same name, inputs and place. */
Graph *ir_clone_empty(const Graph *g);
/* users[id] = number of uses of each node, outputs counted; arena array of nodes.n. */
int *ir_use_counts(const Graph *g, Arena *a);

/* ==== Grouping (ir/group.c) ==== */

/* A new, empty group; its number for node.group. */
int ir_group_new(Graph *g, Family f, SrcLoc loc);

/* Works out for a graph whether nodes may be grouped; holds the dependencies that are no operands
 * (a cache is read as it was before it is stored). In the arena; valid while no node is added. */
typedef struct Grouper Grouper;
Grouper *grouper_new(Graph *g, Arena *scratch);
/* Puts node `id` (ungrouped, no leaf) into the group unless the group would then wait for itself. */
bool grouper_take(Grouper *gr, int group, NodeId id);
/* An order of units in which each comes after what it needs, operands first among equals: unit[i] is
 * a group number, or minus the id of an ungrouped node; leaves are left out. NULL when there is a
 * cycle; then *culprit is a node on it. */
int *grouper_order(const Grouper *gr, int *count, NodeId *culprit);

/* Shape rule of one op: fills *out or reports at n->loc and returns false. Called by ir_node and
 * the verifier. */
bool ir_infer(const Graph *g, const Node *n, Type *out);

/* ==== Checking (ir/verify.c) ==== */

/* Every invariant: order, operand counts, types as inferred, names unique, outputs exist, each
 * cache stored at most once and not read after being replaced, variants and weights in range,
 * groups of the right kind and without cycles, slab regions of live values disjoint. Reports each breach as an error;
 * true when sound. */
bool ir_verify(const Module *m);

/* ==== Text (ir/print.c; ir/parse*.c, ir/text_lex.c): inverses of each other; the language is docs/ir.md ==== */

void ir_print(Buf *out, const Module *m);
/* NULL after errors in diag. */
Module *ir_parse(Arena *arena, Diag *diag, const char *name, const char *text, size_t len);
/* True when the text is IR rather than a model text (starts with `module` after comments). */
bool ir_looks_like(const char *text, size_t len);

#endif
