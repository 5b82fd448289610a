/* choose_matmul.c - how many warps share the columns of each matmul in the decode phase, and how many columns one has.
 *
 *   before   group g2 matmul
 *   after    group g2 matmul 7 x 256
 *
 * A block of the decode kernel takes a slice of K, warps x columns wide, and its warps work beside each other, each on
 * its own columns. This decides the order of sums, so it depends on shape and storage types only: never on the number
 * of rows, and not on the GPU. What does not change results (stages of the ring, groups of warps, the grid) is the code
 * generator's to choose. A warp takes whole tiles: where a storage type has tiles of 256 columns, warps have 256.
 *
 * requires  groups are final (schedule)
 * keeps     every node and every group
 * breaks    nothing; a pass that puts other linears into a group ends its choice
 */
#include "passes/passes_int.h"

#include <stdlib.h>

enum {
    MAX_WARPS = 15,
    MAX_CHUNK = 40 << 10, /* bytes of a row of tiles over a slice: two, and partials, must fit into the least that GPUs
                             have, 99 KiB */
    MAX_MATRICES = 16,
};

/* Bytes of the tiles that a slice has of one strip of rows. */
static int64_t chunk_bytes(int64_t k, DType type, MatmulSplit s) {
    const DTypeInfo *t = dtype_info(type);
    int64_t slice = (int64_t)s.warps * (s.columns / t->tile_k), strip = ceil_div(k, t->tile_k);
    return (slice < strip ? slice : strip) * t->tile_bytes;
}

/* One warp always fits: then no split would be better. */
static bool fits(int64_t k, const DType *types, int n, MatmulSplit s) {
    for (int i = 0; i < n && s.warps > 1; i++)
        if (chunk_bytes(k, types[i], s) > MAX_CHUNK)
            return false;
    return true;
}

/* How much worse than the best imaginable a split is, as a part of the time: columns of a slice that nothing stands in,
 * short work between two barriers, planes to add, too few warps (each chunk takes the auxiliary warp a round, whatever
 * it holds) or more than 11, which leave each 128 registers instead of 168. Constants by judgement and a few
 * measurements (docs/performance/decode.md). */
static double badness(int64_t k, MatmulSplit s) {
    int64_t slices = ceil_div(k, (int64_t)s.warps * s.columns);
    double padded = (double)(slices * s.warps * s.columns);
    double narrow = s.columns == 256 ? 0 : s.columns == 128 ? 0.05 : 0.12;
    double crowd = s.warps < 8 ? 0.05 * (8 - s.warps) : 0.01 * abs(s.warps - 11);
    return (padded - (double)k) / padded + narrow + 0.01 * (double)slices + crowd;
}

MatmulSplit matmul_split(int64_t k, const DType *types, int n) {
    int least = 64;
    for (int i = 0; i < n; i++)
        least = dtype_info(types[i])->tile_k > least ? dtype_info(types[i])->tile_k : least;
    MatmulSplit best = {0};
    for (int columns = 256; columns >= least; columns /= 2)
        for (int warps = 1; warps <= MAX_WARPS; warps++) {
            MatmulSplit s = {warps, columns};
            if (fits(k, types, n, s) && (!best.warps || badness(k, s) < badness(k, best)))
                best = s;
        }
    return best;
}

/* The types of a group's matrices, and the columns of the widest. */
static int matrices(const Graph *g, int group, int64_t *k, DType types[MAX_MATRICES]) {
    int n = 0;
    *k = 0;
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *node = ir_get(g, id);
        if (node->group != group || !ir_is_matmul(node))
            continue;
        const Type *w = ir_type(g, node->in[1]);
        *k = w->dim[w->rank - 1] > *k ? w->dim[w->rank - 1] : *k;
        types[n++] = w->dtype;
    }
    return n;
}

bool pass_choose_matmul(Module *m, const PassOptions *o) {
    (void)o;
    bool changed = false;
    for (int i = 0; i < m->graphs.n; i++) {
        Graph *g = m->graphs.v[i];
        for (int k = 1; k <= g->groups.n; k++) {
            Group *group = &g->groups.v[k - 1];
            DType types[MAX_MATRICES];
            int64_t columns;
            int count = matrices(g, k, &columns, types);
            if (!count)
                continue;
            MatmulSplit s = matmul_split(columns, types, count);
            changed = changed || group->warps != s.warps || group->columns != s.columns;
            group->warps = s.warps;
            group->columns = s.columns;
        }
    }
    return changed;
}
