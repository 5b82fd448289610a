/* synth_int.h - between the files of this folder: expressions, and the rules of quantisation. */
#ifndef LAP_SYNTH_SYNTH_INT_H
#define LAP_SYNTH_SYNTH_INT_H

#include "runtime/synth/synth.h"

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

typedef struct Name {
    const char *name;
    bool is_let;
    int64_t value; /* else */
    Cursor expr;   /* is_let: where its expression begins */
} Name;

struct Scope {
    Arena *arena;
    Diag *diag;
    int file; /* from diag_source() */
    bool failed;
    VEC(Name) names;
    int64_t i; /* the layer or element; -1: none */
};

/* Reports at the cursor, once for each scope; gives 0. */
__attribute__((format(printf, 2, 3))) int64_t synth_error(Cursor *c, const char *fmt, ...);
/* The next characters other than spaces, if they are these; a word must also end there. */
bool synth_accept(Cursor *c, const char *text);
bool synth_expect(Cursor *c, const char *text);
bool synth_at_end(Cursor *c); /* skips spaces */
/* Up to the next space. */
Str synth_word(Cursor *c);
/* A name of letters, digits and _; NULL after an error. */
const char *synth_name(Cursor *c);
/* A decimal literal. */
double synth_number(Cursor *c);
int64_t synth_expr(Cursor *c);
/* {NAME} and {size} replaced. */
const char *synth_replace(Cursor *c, Str text, const char *size);
/* The last one of this name; -1. */
int synth_find(const Scope *s, Str name, int names);

/* ==== Quantisation (quant.c) ==== */

typedef struct QuantRule QuantRule;

/* NULL after an error in diag. */
const QuantRule *quant_rule(Arena *a, Diag *diag, const char *name);
int64_t quant_file_type(const QuantRule *r);
/* Replaces the types of the tensors, given as converted, by those that the quantiser picks. */
void quant_types(const QuantRule *r, TensorInfo *t, int n, int64_t layers);

/* ==== Filling (fill.c) ==== */

bool fill_knows(DType t, SynthKind kind);

#endif
