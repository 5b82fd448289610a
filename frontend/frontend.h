/* frontend.h - model text to graph IR.
 *
 * A model text (.lap) is parsed, its parameters are bound to the metadata of a weights file, its
 * functions are inlined, its loops and conditions are run, and what is left are graphs of typed
 * nodes: one Graph an entry. Every mistake is reported with a place and, where there is one, the
 * other side (a line, or the tensor or key of the file).
 */
#ifndef LAP_FRONTEND_FRONTEND_H
#define LAP_FRONTEND_FRONTEND_H

#include "ir/ir.h"

/* --set name=value */
typedef struct FeSetting {
    const char *name;
    const char *value; /* parsed as int, float, bool or string by the parameter's type */
} FeSetting;

typedef struct FeInput {
    const char *name; /* of the text, for messages */
    const char *text;
    size_t len;
    const ModelFile *file;        /* weights; NULL: only what needs no weights can be checked */
    const ModelFile *target_file; /* "uses target": its weights and metadata; NULL none */
    const Module *target;         /* its compiled module: caches it owns; NULL none */
    const FeSetting *settings;
    int n_settings;
} FeInput;

/* The module, or NULL after errors in diag. */
Module *fe_compile(Arena *arena, Diag *diag, const FeInput *in);

/* Parses and checks what needs no weights (names, arguments, structure). False after errors. */
bool fe_check(Arena *arena, Diag *diag, const char *name, const char *text, size_t len);

typedef VEC(const char *) ArchList;

/* model NAME from FORMAT "ARCH" or "ARCH" uses target: NAME; and of what is behind it, for one with a target, drafts
 * WAY
 */
typedef struct FeHead {
    const char *name;
    ArchList archs;     /* none: no `from` */
    const char *target; /* NULL: works for none */
    const char *drafts; /* "chain"; NULL: there is no such line */
} FeHead;

/* Reads only that, into the arena; false when the text has none (nothing is reported). */
bool fe_head(Arena *arena, const char *text, size_t len, FeHead *out);
/* Names that architecture; case, and - or _, make no difference: files of the same kind write them differently. */
bool fe_archs_have(const ArchList *archs, const char *arch);

/* The text in the one layout (comments kept). False after syntax errors, reported; out untouched. */
bool fe_format(Buf *out, Diag *diag, const char *name, const char *text, size_t len);

#endif
