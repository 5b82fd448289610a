/* attention_queries.cu - decode: an item's query vectors, prepared, in shared memory.
 */
#ifndef LAP_ATTENTION_QUERIES
#define LAP_ATTENTION_QUERIES
#include "attention_tiles.cu"

struct Vector {
    int row, head, pos, high; /* sees keys below high */
};

/* The row of an item's vector. */
DEVICE int row_of(const Plan &plan, const Work &w, int vector) {
    return plan.order[plan.of[w.sequence].first + (w.first + vector) / ATT_GROUP];
}

DEVICE int head_of(const Work &w, int vector) {
    return w.kv_head * ATT_GROUP + (w.first + vector) % ATT_GROUP;
}

/* The first vector of an item that a warp prepares. */
DEVICE void fetch_first(FetchedQ &next, const Plan &plan, const Tensors &on, const Work &w) {
    const int warp = threadIdx.x >> 5, begin = warp < w.vectors ? warp : 0;
    fetch_q(next, on.q, row_of(plan, w, begin), head_of(w, begin));
}

/* The item's query vectors as rows in shared memory, zeros behind them up to a multiple of 16. A warp fetches the next
 * of its vectors while it prepares one; next: after fetch_first(). By the first so many warps of the block. */
DEVICE void prepare_queries(Vector *vectors, const Plan &plan, const Tensors &on, const Work &w, int warps,
                            FetchedQ &next HEAD_PARAMETERS) {
    const int lane = threadIdx.x & 31;
    float *x = warp_scratch();
#pragma unroll 1
    for (int v = (int)(threadIdx.x >> 5); v < (w.vectors + 15) / 16 * 16; v += warps) {
        Vector of = {0, 0, 0, 0}; /* sees nothing */
        if (v < w.vectors) {
            const int row = row_of(plan, w, v), head = head_of(w, v);
            of = {row, head, plan.pos[row], plan.range[row].high};
            next.put(x);
            if (v + warps < w.vectors)
                fetch_q(next, on.q, row_of(plan, w, v + warps), head_of(w, v + warps));
            prepare_q(x, head, {of.pos, turned_row(plan, row)} HEAD_ARGUMENTS);
        } else {
            warp_sync();
            for (int i = lane; i < ATT_K_DIM; i += 32)
                x[i] = 0.0f;
        }
        warp_sync();
        store_query(shared_bytes + ATT_QUERIES_AT + v * row_bytes(ATT_K_DIM), x);
        if (lane == 0)
            vectors[v] = of;
    }
}

#endif
