/* passes_int.h - shared by the passes and their driver, not for others. */
#ifndef LAP_PASSES_PASSES_INT_H
#define LAP_PASSES_PASSES_INT_H

#include "passes/passes.h"

/* live[id] is set for what is wanted (array of nodes.n); sets it for everything that needs. liveness.c */
void graph_mark_live(const Graph *g, bool *live);

/* The node whose bytes a view shares; the node itself when it is no view. liveness.c */
NodeId graph_view_base(const Graph *g, NodeId id);

/* The unified diff of two texts, three lines of context; nothing when they are equal. text_diff.c */
void text_diff(Buf *out, const char *old_text, const char *new_text);

/* Bytes that decode to sane numbers for every weight of the module: malloc'd blocks, by weight, from
 * one seed. NULL after an error in m->diag when they would be too many. random_weights.c */
void **random_weights_new(const Module *m, uint64_t seed);
void random_weights_free(const Module *m, void **data);

/* xorshift64*; never 0. */
static inline uint64_t random_next(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(2685821657736338717);
}

/* In [0, n). */
static inline int64_t random_below(uint64_t *state, int64_t n) {
    return (int64_t)((random_next(state) >> 11) % (uint64_t)n);
}

/* In [lo, hi). */
static inline double random_between(uint64_t *state, double lo, double hi) {
    return lo + (hi - lo) * (double)(random_next(state) >> 11) * 0x1p-53;
}

#endif
