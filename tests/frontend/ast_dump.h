/* ast_dump.h - the tree of a model text as text, without places: equal dumps mean the same model. */
#ifndef LAP_TESTS_AST_DUMP_H
#define LAP_TESTS_AST_DUMP_H

#include "frontend/ast.h"

void ast_dump(Buf *out, const ModelDecl *m);

#endif
