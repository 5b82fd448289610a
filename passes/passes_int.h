/* passes_int.h - shared by the passes and their driver, not for others. */
#ifndef LAP_PASSES_PASSES_INT_H
#define LAP_PASSES_PASSES_INT_H

#include "passes/passes.h"

/* live[id] is set for what is wanted (array of nodes.n); sets it for everything that needs. liveness.c */
void graph_mark_live(const Graph *g, bool *live);

/* The graph again with its groups, and so its nodes, in another order; every node is in one. `order`: the old numbers,
 * each after those it waits for. schedule.c */
Graph *graph_regrouped(const Graph *g, const int *order, int count, Arena *scratch);

/* True when every node is in a group, groups stand one after another, and are numbered in that order. schedule.c */
bool graph_in_order(const Graph *g);

/* ==== Fusing (fuse.c): how every fusing pass grows a group ====
 * A pass starts groups and says which nodes it would take; the fuser takes those that can be taken
 * without a group waiting for itself.
 */

typedef struct Fuser {
    Graph *g;
    Arena *scratch; /* freed by fuser_end */
    Grouper *grouper;
    int *uses; /* by id; outputs counted */
    int taken;
} Fuser;

typedef bool FuseRule(const Fuser *f, const Node *n);

Fuser fuser_begin(Graph *g);
/* True when anything was taken. */
bool fuser_end(Fuser *f);
/* A new group around node `id`; its number. */
int fuser_start(Fuser *f, Family family, NodeId id);
bool fuser_take(Fuser *f, int group, NodeId id);
/* Takes, in order, every ungrouped node that reads a member and that `rule` accepts. */
void fuser_grow_down(Fuser *f, int group, FuseRule *rule);
/* Takes, backwards, every ungrouped node that only members read and that `rule` accepts. */
void fuser_grow_up(Fuser *f, int group, FuseRule *rule);
/* Runs `each` on every graph of the module; true when any took something. */
bool fuse_graphs(Module *m, void (*each)(Fuser *f));

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
