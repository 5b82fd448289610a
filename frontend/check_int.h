/* check_int.h - shared by check.c (expressions) and check_items.c (parameters, functions, entries). */
#ifndef LAP_FRONTEND_CHECK_INT_H
#define LAP_FRONTEND_CHECK_INT_H

#include "frontend/check.h"

typedef enum NameKind { NAME_LET, NAME_VAR, NAME_PARAM } NameKind;

typedef struct CheckName {
    Name name;
    NameKind kind;
    bool used;
} CheckName;

typedef struct CheckScope {
    struct CheckScope *up;
    VEC(CheckName) names;
} CheckScope;

typedef struct Checker {
    Arena *arena;
    Diag *diag;
    const Program *p;
    CheckScope *scope;
    int n_params; /* parameters of the model that have a value where we are */
} Checker;

void check_open(Checker *c, CheckScope *s);
void check_close(Checker *c); /* warns about names nobody used */
void check_declare(Checker *c, Name name, NameKind kind);
CheckName *check_find(Checker *c, const char *name);

void check_expr(Checker *c, const Expr *e);
void check_value(Checker *c, const Expr *e); /* and it has a value */
void check_block(Checker *c, const StmtList *block);

#endif
