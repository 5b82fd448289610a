/* attention_block.cu - prefill: which query rows and which tiles of keys a block has.
 *
 * Whoever includes it has ATT_QUERIES rows in a block, ATT_TILE keys in a tile, ATT_THREADS threads, positions(): room
 * for ATT_QUERIES numbers in shared memory, and KEPT_BYTES for the lists of attention_kept.cu at ATT_KEPT_AT of
 * shared_bytes.
 */
#ifndef LAP_ATTENTION_BLOCK
#define LAP_ATTENTION_BLOCK
#include "attention_kept.cu"

/* ==== The block's rows, and its keys ==== */

struct Block {
    int first, rows, head; /* query rows, of `rows` live ones; query head */
    int slot, kv_head;
    int oldest, newest; /* least and largest position of a query */
    int low, high;      /* keys that may be seen: [low, high) */
};

/* Positions to shared memory; their bounds by every thread. False: no rows. */
DEVICE bool find_block(Block &b, const int *query_pos, const int *slots, const int *lengths, const int *query_count) {
    const int count = *query_count, tiles = (count + ATT_QUERIES - 1) / ATT_QUERIES;
    if ((int)blockIdx.y >= tiles)
        return false;
    b.head = blockIdx.x;
    b.kv_head = b.head / ATT_GROUP;
    b.first = (tiles - 1 - blockIdx.y) * ATT_QUERIES;
    b.rows = count - b.first < ATT_QUERIES ? count - b.first : ATT_QUERIES;
    b.slot = slots[0];
    for (int i = threadIdx.x; i < ATT_QUERIES; i += ATT_THREADS)
        positions()[i] = query_pos[b.first + (i < b.rows ? i : 0)];
    const int length = lengths[b.slot];
    block_sync();
    b.oldest = b.newest = positions()[threadIdx.x & 31];
    for (int i = threadIdx.x & 31; i < ATT_QUERIES; i += 32) {
        const int pos = positions()[i];
        b.oldest = pos < b.oldest ? pos : b.oldest;
        b.newest = pos > b.newest ? pos : b.newest;
    }
    for (int step = 16; step; step >>= 1) {
        const int least = lane_swap(b.oldest, step), most = lane_swap(b.newest, step);
        b.oldest = least < b.oldest ? least : b.oldest;
        b.newest = most > b.newest ? most : b.newest;
    }
    b.low = ATT_LOOKBACK >= 0 && b.oldest > ATT_LOOKBACK ? b.oldest - ATT_LOOKBACK : 0;
    b.high = ATT_CAUSAL && b.newest + 1 < length ? b.newest + 1 : length;
    return true;
}

/* With ATT_SPARSE: what any row keeps, and what every row keeps. */
DEVICE u32 *kept_lists() {
    return (u32 *)(shared_bytes + ATT_KEPT_AT);
}

#if ATT_SPARSE
/* The block's rows' lists to shared memory; then block_sync(). */
DEVICE void find_kept(const Block &b, const u32 *kept) {
    const bool one_block = b.oldest / SPARSE_BLOCK == b.newest / SPARSE_BLOCK;
    kept_bring(kept_lists(), kept, positions(), one_block ? 1 : b.rows, b.head, ATT_THREADS);
}
#endif

/* Beside the class of a tile: not all of its rows keep all of its keys. */
enum { KEPT_IN_PART = 4 };

/* The first tile from `tile` on with something to see; its class, 0 behind the last. */
DEVICE int next_tile(const Block &b, int &tile) {
    for (; tile * ATT_TILE < b.high; tile++) {
#if ATT_SPARSE
        tile = kept_tile(kept_lists(), tile, ATT_TILE);
        if (tile * ATT_TILE >= b.high)
            break;
#endif
        const int first = tile * ATT_TILE, last = first + ATT_TILE - 1;
        int kind = tile_class(b.oldest, b.newest, first, last);
        if (kind != 0) {
            kind = kind == 2 && last < b.high && first >= b.low ? 2 : 1;
#if ATT_SPARSE
            kind |= kept_by_all(kept_lists(), first, last) ? 0 : KEPT_IN_PART;
#endif
            return kind;
        }
    }
    return 0;
}

#endif
