/* facet.h - bundles: a model compiled ahead of time for one or several GPU architectures, in one file.
 *
 * A .facet is a zip archive, so that `unzip` opens it:
 *
 *   manifest.json                what it is of, how it was made; size and XXH3-128 of every other entry
 *   model.lap                    the model text
 *   module.ir                    the module after all passes (docs/ir.md)
 *   sm_90a/plan.txt              the plan for an architecture (codegen/plan_text.h)
 *   sm_90a/kernels/NAME.cu       the text of each of its kernels
 *   sm_90a/kernels/NAME.cubin    the same, compiled
 *
 * The same contents give the same bytes. Made for: weights that answer every question that compiling asked of a weights
 * file as the first ones did. The manifest holds these questions and answers: each metadata key that was looked up with
 * its value (or that there is none), each tensor that was looked up with its type and shape (or that there is none),
 * and the architecture string. Nothing else of a weights file can change what is compiled, so nothing else is compared:
 * other names, tokenizers or hints of the same model fit.
 *
 * A bundle that is read is hostile until checked: number, names and sizes of entries, every hash before the bytes are
 * used, then the module (ir_verify) and the plan (plan_parse, plan_check). Who compiled the kernels is not known:
 * cubins are programs, and run a bundle only from where you would run a program from. Errors go to diag with the
 * bundle's path and the entry.
 */
#ifndef LAP_FACET_FACET_H
#define LAP_FACET_FACET_H

#include "codegen/plan_text.h"

/* ==== What a bundle says of itself ==== */

typedef struct FacetRead {
    const char *name;
    const char *value; /* "30", "[1, 0, 1]", "q4_k[4096, 2560]"; long ones shortened to a hash; NULL: there is none */
} FacetRead;

typedef struct FacetWeights {
    const char *arch;             /* "gemma4" */
    VEC(FacetRead) keys, tensors; /* by name */
    char signature[33];           /* XXH3-128 of all that, in hex */
} FacetWeights;

/* The options of the passes and of the plan. */
typedef struct FacetOptions {
    int64_t context, chunk, rows, draft, slots;
    DType kv_k, kv_v;
} FacetOptions;

typedef struct FacetCubin {
    const void *data;
    size_t bytes;
} FacetCubin;

/* What is compiled for one architecture. */
typedef struct FacetArch {
    const char *name;  /* "sm_90a" */
    const char *nvrtc; /* version that compiled it: "13.0" */
    int n_kernels;
    Plan *plan;               /* its kernels have their texts; of a bundle that was opened: see facet_arch() */
    const FacetCubin *cubins; /* of each kernel of the plan */
} FacetArch;

enum { FACET_MOST_ARCHS = 16 };

typedef struct FacetInfo {
    const char *made_by; /* "lap 0.1.0" */
    const char *model;   /* "gemma4", as the text calls it */
    const char *text_name;
    VEC(const char *) settings; /* "NAME=VALUE" */
    FacetOptions options;
    const FacetWeights *weights, *target; /* target: of a text that works for one, else NULL */
    VEC(FacetArch) archs;
} FacetInfo;

/* What compiling asked of a weights file (file->reads), with the answers. In the arena. */
const FacetWeights *facet_weights(Arena *arena, const ModelFile *file);

/* ==== Writing ==== */

typedef struct FacetContents {
    FacetInfo info;
    const char *text;
    size_t text_len;
    const Module *module; /* after all passes */
} FacetContents;

/* The file appears when it is whole. *bytes: its size; NULL: not wanted. */
bool facet_write(const FacetContents *c, const char *path, int64_t *bytes, Diag *diag);

/* ==== Reading ==== */

typedef struct Facet Facet;

/* True when the file begins like a bundle: for commands that take several kinds. */
bool facet_looks_like(const char *path);
/* NULL after errors in diag, which must outlive the bundle. Plans and cubins are not read yet. */
Facet *facet_open(const char *path, Diag *diag);
/* The same from memory, which is copied; name is for messages. */
Facet *facet_open_memory(const void *data, size_t bytes, const char *name, Diag *diag);
void facet_close(Facet *f);

const FacetInfo *facet_info(const Facet *f);
const Module *facet_module(const Facet *f);
Str facet_text(const Facet *f);

typedef struct FacetEntry {
    const char *name;
    int64_t bytes, stored; /* stored: compressed */
    char hash[33];         /* XXH3-128, in hex */
} FacetEntry;

/* All but the manifest, by name. */
const FacetEntry *facet_entries(const Facet *f, int *n);

/* ==== Will it run ==== */

/* Reads what belongs to info->archs[i], unless that is done already: plan and cubins. False after errors in diag. */
bool facet_load(Facet *f, int i, Diag *diag);
/* The architecture whose cubins run best on a device that calls itself `device`, loaded. Code for sm_90a runs only
 * there; code for sm_86 runs on sm_86 to sm_89: the same first digits, the last at least as large. NULL after an error
 * that says which there are. */
const FacetArch *facet_arch(Facet *f, const char *device, Diag *diag);
/* Are these weights answered as compiling was? target: of a drafter, else NULL. False after errors that say what
 * differs. */
bool facet_check_weights(const Facet *f, const ModelFile *file, const ModelFile *target, Diag *diag);

#endif
