/* check.h - what is true of a model text whatever the weights: names, arguments, structure.
 *
 * Private to frontend/. The expander (lower*.c) takes only programs that passed, so it need not look
 * for unknown names and wrong argument counts again.
 */
#ifndef LAP_FRONTEND_CHECK_H
#define LAP_FRONTEND_CHECK_H

#include "frontend/ast.h"

enum { MAX_SLOTS = 12 }; /* most parameters of a function */

/* A function of the language that is not written in it. */
typedef struct Builtin {
    const char *name;
    int required;                     /* the first so many must be given */
    const char *flags;                /* see builtins.def */
    const char *param[MAX_SLOTS + 1]; /* NULL-terminated */
} Builtin;

/* builtins.c */
const Builtin *builtin_find(const char *name); /* NULL: none */
const Builtin *builtin_at(int i);              /* NULL past the end; in the order of the table */

/* A model text with the functions every text may use (prelude.lap). */
typedef struct Program {
    const ModelDecl *model;
    const ModelDecl *prelude;
} Program;

/* NULL: none. Functions of the model hide those of the prelude. */
const FnDecl *program_fn(const Program *p, const char *name);
const VariantDecl *program_variant(const Program *p, const char *name);
int program_param(const Program *p, const char *name); /* index; -1: none */

/* What a call must look like. */
typedef struct Signature {
    const char *name;
    int n, required;
    const char *param[MAX_SLOTS];
} Signature;

Signature signature_of_fn(const FnDecl *f);
Signature signature_of_variant(const VariantDecl *v);
Signature signature_of_builtin(const Builtin *b);

/* Puts the arguments into the order of the signature: slot[i] is the index of its argument or -1.
 * False with *wrong the offending argument (-1: too few) when they do not fit. */
bool bind_args(const Signature *s, const ArgList *args, int slot[MAX_SLOTS], int *wrong);

/* The name of a function that is called: "norm", or "weight" with *target for target.weight. NULL: not
 * a name. */
const Name *call_name(const Expr *call, bool *target, Name *storage);

/* ", did you mean 'x'?" or "". */
const char *near_text(Arena *a, const Nearest *n);

/* Reports every mistake that needs no weights; false after any. */
bool check_program(Arena *arena, Diag *diag, const Program *p);

#endif
