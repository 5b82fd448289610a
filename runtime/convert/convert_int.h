/* convert_int.h - between the files of this folder. */
#ifndef LAP_CONVERT_CONVERT_INT_H
#define LAP_CONVERT_CONVERT_INT_H

#include "runtime/convert/convert.h"
#include "runtime/gguf/describe.h"

typedef struct TypeRule TypeRule;

/* A .convert text that is being read for one checkpoint. */
typedef struct Recipe {
    Description base; /* first: statements get it */
    const ModelFile *source;
    const char *dir;
    SrcLoc config; /* config.json as a whole */
    const TypeRule *types;
    bool *taken; /* [source->n_tensors] by a tensor or ignore line */
    bool is_for; /* a `from` line names the checkpoint's architecture */
    int missing; /* tensors that were asked for in vain.. */
    int wrong;   /* ..and that are of another shape or type */
    VEC(const char *) objects;
    VEC(ConvertFrom) from;
    VEC(bool) is_head; /* [tensors], types not decided yet: dtype is DT_COUNT for matrices and heads */
    VEC(const char *) visible;
} Recipe;

/* ==== config.json (config.c) ==== */

/* The statements about it. */
void recipe_within(Description *d, Cursor *c);
void recipe_number(Description *d, Cursor *c);
void recipe_real(Description *d, Cursor *c);
void recipe_given(Description *d, Cursor *c);
void recipe_count(Description *d, Cursor *c);
void recipe_array(Description *d, Cursor *c);
void recipe_expect(Description *d, Cursor *c);
/* NULL when absent. *key, unless NULL: the whole key, of where it would be when it is absent. */
const MetaValue *recipe_config(const Recipe *r, Str path, const char **key);

/* ==== Storage types (types.c) ==== */

/* NULL after an error in diag. */
const TypeRule *type_rule(Arena *a, Diag *diag, const char *name);
int64_t type_file_type(const TypeRule *q);
/* Decides the types of matrices and heads; warns where rows are no whole blocks. */
void types_decide(Recipe *r);

/* ==== tokenizer.json (tokenizer.c) ==== */

bool tokenizer_there(const Recipe *r);
/* Adds the tokenizer's keys but those of the text; false after an error in diag. vocab: rows of the embedding table;
 * tokens beyond the tokenizer's fill up to it. */
bool tokenizer_keys(Recipe *r, int64_t vocab);

#endif
