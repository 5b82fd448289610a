/* ast.h - the tree of a model text, as the parser makes it. Private to frontend/.
 *
 * Lives in the arena of the compilation. Nothing is looked up here: names are names, numbers are
 * numbers. lower*.c walks it with values in hand and makes graphs.
 *
 *   file  := "model" NAME ["from" NAME STRING ("or" STRING)*] ["uses" "target" ":" NAME] "{" item* "}"
 *   item  := param | variant | fn | entry | chat | drafts
 *   see docs/language.md for the whole grammar
 */
#ifndef LAP_FRONTEND_AST_H
#define LAP_FRONTEND_AST_H

#include "frontend/frontend.h"
#include "ir/diag.h"

typedef struct Expr Expr;
typedef struct Stmt Stmt;
typedef VEC(Stmt *) StmtList;

typedef struct Name {
    const char *s;
    SrcLoc loc;
} Name;

/* The most levels that expressions and blocks nest; the parser refuses more. */
enum { AST_MAX_DEPTH = 200 };

/* ==== Expressions ==== */

typedef enum ExprKind {
    EX_INT,    /* 42 */
    EX_FLOAT,  /* 1e-6 */
    EX_BOOL,   /* true */
    EX_NONE,   /* none */
    EX_STRING, /* "blk.{i}.w": parts, literal text and expressions alternating */
    EX_NAME,   /* x */
    EX_FIELD,  /* target.weight: base . name (only `target.` has a meaning) */
    EX_INDEX,  /* x[i] */
    EX_CALL,   /* f(a, b, scale = 1.0) */
    EX_UNARY,  /* -x   not x */
    EX_BINARY, /* x + y */
    EX_COND,   /* c ? a : b     if c then a else b     if c { .. } else { .. } */
    EX_ARRAY,  /* [a, b] */
    EX_BLOCK,  /* { let y = ..; y } */
    EX_CACHE,  /* cache kv[i]     cache target.kv[i] */
} ExprKind;

typedef enum AstOp {
    AO_ADD,
    AO_SUB,
    AO_MUL,
    AO_DIV,
    AO_MOD,
    AO_EQ,
    AO_NE,
    AO_LT,
    AO_LE,
    AO_GT,
    AO_GE,
    AO_AND,
    AO_OR,
    AO_NOT,
    AO_NEG,
} AstOp;

const char *ast_op_text(AstOp op); /* "+", "and" */

typedef struct Arg {
    Name name; /* name.s NULL: positional */
    Expr *value;
} Arg;
typedef VEC(Arg) ArgList;
typedef VEC(Expr *) ExprList;

/* One piece of a string: either text (expr NULL) or an interpolated expression. */
typedef struct StrPart {
    Str text;
    Expr *expr;
} StrPart;
typedef VEC(StrPart) StrPartList;

struct Expr {
    ExprKind kind;
    SrcLoc loc; /* the whole expression; for calls the callee's name */
    int depth;  /* height of this tree; at most AST_MAX_DEPTH, so that walks may recurse */
    union {
        int64_t i;         /* EX_INT */
        double f;          /* EX_FLOAT */
        bool b;            /* EX_BOOL */
        StrPartList parts; /* EX_STRING */
        const char *name;  /* EX_NAME */
        struct {
            Expr *base;
            Name name;
        } field; /* EX_FIELD */
        struct {
            Expr *base;
            Expr *index;
        } index; /* EX_INDEX */
        struct {
            Expr *fn;
            ArgList args;
        } call; /* EX_CALL: fn is EX_NAME or EX_FIELD */
        struct {
            AstOp op;
            Expr *x, *y;
        } op; /* EX_UNARY (y NULL), EX_BINARY */
        struct {
            Expr *test, *yes, *no;
        } cond;         /* EX_COND; no NULL: only as a statement */
        ExprList items; /* EX_ARRAY */
        StmtList block; /* EX_BLOCK: value = a last ST_EXPR */
        Expr *cache;    /* EX_CACHE: EX_NAME / EX_INDEX / EX_FIELD inside */
    } u;
};

/* ==== Statements ==== */

typedef enum StmtKind {
    ST_LET,    /* let x = e */
    ST_VAR,    /* var x = e */
    ST_ASSIGN, /* x = e */
    ST_FOR,    /* for i in a..b { } */
    ST_TAP,    /* tap layer[i] = e */
    ST_EMIT,   /* emit logits = e */
    ST_EXPR,   /* e     (also `if`, `store(..)`, `require(..)`) */
} StmtKind;

struct Stmt {
    StmtKind kind;
    SrcLoc loc;
    int depth;       /* height of the trees and statements inside, as Expr.depth */
    Name name;       /* LET VAR ASSIGN FOR; TAP, EMIT: base name */
    Expr *index;     /* TAP, EMIT: index or NULL */
    Expr *from, *to; /* FOR: from <= i < to */
    Expr *value;     /* LET VAR ASSIGN TAP EMIT EXPR */
    StmtList body;   /* FOR */
};

/* ==== Items ==== */

typedef enum AstType { AT_INT, AT_FLOAT, AT_BOOL, AT_STRING } AstType;

typedef struct ParamDecl {
    Name name;
    AstType type;
    Expr *length; /* int[L]: L; NULL for a scalar */
    Expr *value;
} ParamDecl;

typedef struct FnDecl {
    Name name;
    VEC(Name) params;
    Expr *body;
} FnDecl;

typedef struct VariantDecl {
    Name name;
    VEC(Name) params;
    struct {
        VEC(Name) params; /* visible(q, k) or (q, k, h); score(s, q, k, h); sink(h) */
        Expr *body;       /* NULL: not given */
        SrcLoc loc;
    } visible, score, sink;
    Name sparse; /* s NULL: none */
    ArgList sparse_args;
} VariantDecl;

typedef struct EntryParam {
    Name name;
    Name type;     /* token, pos, f32, i32 */
    ExprList dims; /* first is the name T */
} EntryParam;

typedef struct EntryDecl {
    Name name;
    VEC(EntryParam) params;
    StmtList body;
} EntryDecl;

/* user(text) = "..."; prompt = "..."; stop = [...] */
typedef struct ChatField {
    Name name;
    Name param; /* s NULL: none */
    Expr *value;
    Name in; /* system(text) in user = "...": s "user"; else NULL */
} ChatField;

typedef struct ModelDecl {
    Name name;
    Name format;     /* "gguf"; s NULL: no `from` */
    ArchList archs;  /* "gemma3"; more than one: from gguf "a" or "b" */
    SrcLoc arch_loc; /* of the first */
    Name target;     /* uses target: NAME; s NULL none */
    VEC(ParamDecl) params;
    VEC(FnDecl) fns;
    VEC(VariantDecl) variants;
    VEC(EntryDecl) entries;
    Name drafts; /* drafts chain(most = 4): s NULL none */
    ArgList drafts_args;
    VEC(ChatField) chat;
    SrcLoc chat_loc;
} ModelDecl;

/* Parses text already registered as `file`. NULL only when not even `model NAME {` was found;
 * otherwise the tree of everything that parsed, with errors in diag. frontend/parse.c */
ModelDecl *fe_parse(Arena *arena, Diag *diag, int file, const char *text, size_t len);

#endif
