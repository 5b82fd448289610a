/* sparse.h - the sparse method of a variant: `sparse flash_prefill(alpha = .., block = .., ..)`, read and checked.
 *
 * The one table of its parameters. What they do is in ir/eval_sparse.c, which computes them; `dense` is
 * choose-attention's. The front end and the verifier ask here as well.
 */
#ifndef LAP_IR_SPARSE_H
#define LAP_IR_SPARSE_H

#include "ir/ir.h"

/* FlashPrefill (arXiv:2603.06199). Blocks of `block` queries choose among blocks of as many keys. */
typedef struct FlashPrefill {
    double alpha;                     /* 0..1: keep blocks of at least alpha times the best one's score; 0: all */
    int64_t block, sink, local, tail; /* positions of a block; blocks: first, nearest, and last ones of the prompt */
    int64_t dense; /* so many attentions of a graph that have the method, the first ones, see every key all the same */
} FlashPrefill;

/* Most positions of a block. */
enum { SPARSE_MAX_BLOCK = 1024 };

/* What is wrong with the method that v names; NULL: nothing, or it names none. *arg: the argument that is, or -1. */
const char *sparse_problem(Arena *a, const Variant *v, int *arg);

/* The parameters of a variant that has a sound method. */
FlashPrefill sparse_read(const Variant *v);
/* Puts another alpha in the place of what stands there, or behind it. */
void sparse_set_alpha(Variant *v, double alpha);

#endif
