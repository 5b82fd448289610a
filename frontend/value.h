/* value.h - what an expression of a model text is worth while the text is being expanded.
 *
 * Private to frontend/. Values are small and copied; arrays and strings live in the arena. Arithmetic
 * between two compile-time values is done at once; a tensor operand makes a node, a scalar operand
 * (the body of a variant) makes a scalar expression. Rules:
 *   int op int is an int; `/` gives an int when it is exact, else a float; `%` is for ints and has the
 *   sign of the divisor; int overflow and division by zero are errors
 *   a float operand makes the result a float
 *   arrays work element by element with arrays of the same length and with single values
 *   `+` joins strings; == and != compare strings, and anything with `none`
 */
#ifndef LAP_FRONTEND_VALUE_H
#define LAP_FRONTEND_VALUE_H

#include "frontend/ast.h"
#include "ir/ir.h"

typedef enum ValueKind {
    VAL_POISON, /* a mistake was reported; whatever is made of it stays silent */
    VAL_NONE,
    VAL_INT,
    VAL_FLOAT,
    VAL_BOOL,
    VAL_STRING,
    VAL_ARRAY,
    VAL_TENSOR,  /* a node of the graph in hand */
    VAL_SCALAR,  /* in the body of a variant: an expression over q, k, s, h */
    VAL_VARIANT, /* a variant with its parameters bound: index in the module */
    VAL_CACHE,   /* the name of a cache */
} ValueKind;

/* Where a value was read: a key of a weights file. */
typedef struct Origin {
    const ModelFile *file;
    const char *key;
    const char *what; /* as the file has it, before it is converted: "an int" */
} Origin;

typedef struct CacheRef {
    const char *name; /* "kv.3" */
    bool target;      /* cache target.kv[3] */
    SrcLoc loc;
} CacheRef;

typedef struct Value {
    ValueKind kind;
    int size;             /* VAL_SCALAR: nodes of the expression, shared ones counted each time */
    bool truth;           /* VAL_SCALAR: a condition */
    const Origin *origin; /* NULL: computed */
    union {
        int64_t i;
        double f;
        bool b;
        Str s;
        struct {
            const struct Value *v;
            int64_t n;
        } array;
        NodeId node;
        const Scalar *scalar;
        int variant;
        const CacheRef *cache;
    } u;
} Value;

static inline Value value_poison(void) {
    return (Value){.kind = VAL_POISON};
}
static inline Value value_none(void) {
    return (Value){.kind = VAL_NONE};
}
static inline Value value_int(int64_t i) {
    return (Value){.kind = VAL_INT, .u.i = i};
}
static inline Value value_float(double f) {
    return (Value){.kind = VAL_FLOAT, .u.f = f};
}
static inline Value value_bool(bool b) {
    return (Value){.kind = VAL_BOOL, .u.b = b};
}
static inline Value value_str(Str s) {
    return (Value){.kind = VAL_STRING, .u.s = s};
}
/* Node 0 (an earlier error) gives poison. */
static inline Value value_tensor(NodeId n) {
    return n ? (Value){.kind = VAL_TENSOR, .u.node = n} : value_poison();
}
static inline Value value_scalar(const Scalar *s) {
    return (Value){.kind = VAL_SCALAR, .u.scalar = s};
}

static inline bool value_is_number(Value v) {
    return v.kind == VAL_INT || v.kind == VAL_FLOAT;
}
/* Only for numbers. */
static inline double value_number(Value v) {
    return v.kind == VAL_INT ? (double)v.u.i : v.u.f;
}

/* "an int", "an array of 3", "a tensor f32[T, 640]" (g: its graph), for messages. */
const char *value_what(Arena *a, const Graph *g, Value v);
/* The value written out: 512, 0.5, true, text; NULL when it has no short text (arrays, tensors). */
const char *value_text(Arena *a, Value v);
/* Equality of compile-time values, arrays element by element. */
bool value_same(Value a, Value b);

/* x op y for single compile-time values: no arrays, and strings only compared. NULL when it went
 * well; else what is wrong with it, "" when these kinds do not go with this operator. */
const char *value_arith(AstOp op, Value x, Value y, Value *out);

#endif
