/* describe.h - texts that describe GGUF files: lines of statements over named numbers.
 *
 * Two languages are made of this: .synth (runtime/synth: sizes of a model) and .convert (runtime/convert: from a
 * checkpoint). Each has statements of its own; these are common:
 *   let NAME = EXPR                worked out where it is used; EXPR is C's with `and`, `or`, `not`, on integers
 *   key NAME TYPE VALUE [if EXPR]  metadata. TYPE: u32 i32 f32 bool string, or u32[EXPR].. an array whose element
 *                                  i is VALUE. f32 takes a literal or the name of a real number, string the rest of
 *                                  the line
 *   each layer .. end              the statements between, for i = 0, 1 .. layers - 1
 * One statement a line; # begins a comment. In names and strings {NAME} stands for a number or a text of the scope.
 */
#ifndef LAP_GGUF_DESCRIBE_H
#define LAP_GGUF_DESCRIBE_H

#include "runtime/gguf/image.h"

enum { DESC_MAX_ELEMS = 65536 /* of an array; layers too */ };

/* ==== Reading a line (expr.c) ==== */

typedef struct Scope Scope;

/* A place in a line; the line is NUL-terminated and has no comment. After an error reading goes on nowhere:
 * everything gives 0 and no second message comes. */
typedef struct Cursor {
    Scope *scope;
    int line;         /* 1-based */
    const char *text; /* of the line */
    const char *p;
    int names; /* names of the scope that may be used: those that were there before the line */
    int depth; /* of nested expressions */
} Cursor;

typedef enum NameKind { NAME_NUMBER, NAME_REAL, NAME_ARRAY, NAME_LET } NameKind;

typedef struct Name {
    const char *name;
    NameKind kind;
    int64_t value;        /* NUMBER; ARRAY: how many */
    double real;          /* REAL */
    const int64_t *array; /* ARRAY: the name is element i */
    Cursor expr;          /* LET: where its expression begins */
} Name;

/* {word} stands for text. */
typedef struct NamedText {
    const char *word, *text;
} NamedText;

struct Scope {
    Arena *arena;
    Diag *diag;
    int file; /* from diag_source() */
    bool failed;
    VEC(Name) names;
    VEC(NamedText) texts;
    int64_t i; /* the layer or element; -1: none */
};

/* Reports at the cursor, once for each scope; gives 0. */
__attribute__((format(printf, 2, 3))) int64_t desc_error(Cursor *c, const char *fmt, ...);
/* The next characters other than spaces, if they are these; a word must also end there. */
bool desc_accept(Cursor *c, const char *text);
bool desc_expect(Cursor *c, const char *text);
bool desc_at_end(Cursor *c); /* skips spaces */
/* Up to the next space. */
Str desc_word(Cursor *c);
/* A name of letters, digits and _; NULL after an error. */
const char *desc_name(Cursor *c);
/* A decimal literal. */
double desc_number(Cursor *c);
/* A decimal literal, or the name of a real number. */
double desc_real(Cursor *c);
int64_t desc_expr(Cursor *c);
/* {NAME} replaced. */
const char *desc_replace(Cursor *c, Str text);
/* The last one of this name; -1. */
int desc_find(const Scope *s, Str name, int names);

/* ==== A text (describe.c) ==== */

typedef struct Description {
    Scope scope;
    Cursor *lines; /* [n_lines] that say something */
    int n_lines;
    GgufMeta meta;
    VEC(TensorInfo) tensors;
} Description;

/* A language's description begins with Description, which is cast to the whole. */
typedef struct Statement {
    const char *word;
    void (*read)(Description *d, Cursor *c);
} Statement;

Description desc_new(Arena *a, Diag *diag);
/* Registers the text as `name` in diag and splits it into lines. */
void desc_open(Description *d, const char *name, const char *text);
/* Reads the line as one of the statements; false: it is none. */
bool desc_statement(Description *d, Cursor c, const Statement *all, size_t n);
/* Reads the lines from `at` on: the statements given, let, key and each layer. `layers`: the number of that name. */
void desc_body(Description *d, int at, const Statement *all, size_t n);
/* The value of a name that is a number; 0 without one. */
int64_t desc_value(const Description *d, const char *name);

/* What follows a statement: the end, or `if EXPR`. True: it holds. */
bool desc_if(Cursor *c);
/* [EXPR, ..] */
void desc_dims(Cursor *c, TensorInfo *t);
/* Adds metadata; `type` is a GGUF_OUT_*. */
void desc_put(Description *d, MetaEntry e, int type);

#endif
