/* facet_int.h - what the files of this folder share.
 *
 * facet_weights.c   what compiling asked of a weights file, and comparing
 * facet_manifest.c  manifest.json
 * facet_write.c     contents to a file
 * facet_read.c      a file to a Facet, each entry checked
 */
#ifndef LAP_FACET_FACET_INT_H
#define LAP_FACET_FACET_INT_H

#include "runtime/facet/facet.h"

#define MANIFEST_NAME "manifest.json"
#define TEXT_NAME     "model.lap"
#define MODULE_NAME   "module.ir"

enum {
    FACET_FORMAT = 1,
    MAX_ENTRIES = 16384,
    MAX_ENTRY_BYTES = 64 << 20,
    MAX_SETTINGS = 256,
    MAX_READS = 1 << 17, /* tensors and keys of a file */
};

static const int64_t MAX_TOTAL_BYTES = (int64_t)1 << 30; /* of all entries, unpacked */

typedef VEC(FacetEntry) EntryVec;

/* XXH3-128 in hex. */
void facet_hash(const void *data, size_t bytes, char out[33]);
/* Fills w->signature from the rest. */
void facet_sign(FacetWeights *w);

/* manifest.json; free() it. NULL after an error: a name that is no ASCII text. */
char *manifest_write(const FacetInfo *info, const FacetEntry *entries, int n_entries, size_t *bytes, Diag *diag,
                     SrcLoc at);
/* Everything in the arena; strings hold no control characters. False after an error at `at`. */
bool manifest_read(Arena *arena, Diag *diag, SrcLoc at, const char *json, size_t bytes, FacetInfo *info,
                   EntryVec *entries);

#endif
