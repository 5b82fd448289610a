/* attention_kept.cu - sparse prefill: which blocks of keys a block of queries keeps, as bits; how attention_prefill.cu
 * walks over them. attention_choose.cu writes them; ir/eval_sparse.c has the definition.
 *
 *   ATT_SPARSE     1: attention_prefill.cu leaves out blocks of keys that are not kept; only with ATT_CAUSAL and no ring
 *   SPARSE_BLOCK   positions of a block, of queries and of keys
 *   SPARSE_WORDS   words of a list: (positions of the context + 64) / SPARSE_BLOCK / 32 + 1, since tiles reach beyond
 *   kept           u32 [query block][ATT_HEADS][SPARSE_WORDS]: bit n % 32 of word n / 32: the head's queries at positions
 *                  m * SPARSE_BLOCK .. of query block m look at keys n * SPARSE_BLOCK ..; both numbers are absolute
 *
 * Bits and not lists of numbers: a list for a block and head is 64 bytes for 65536 keys in blocks of 128, in order by
 * itself, written without a place to be found for each entry, and its next member is one operation away.
 *
 * Each head walks over its own list. A tile of attention_prefill.cu has rows of one head, so nothing is gained by what
 * heads that share keys have in common: their union keeps, of 8 heads that keep a tenth each, up to 57 %. They run side
 * by side, and what several of them keep they find in the L2 cache.
 *
 * Rows of a tile are of one query block where a call begins at a multiple of it. Else a tile walks over what any of its
 * rows keeps, and where they differ each row leaves out by its own list.
 */
#ifndef LAP_ATTENTION_KEPT
#define LAP_ATTENTION_KEPT
#include "attention_layout.cu"

#ifndef ATT_SPARSE
#define ATT_SPARSE 0
#endif
#ifndef SPARSE_BLOCK
#define SPARSE_BLOCK 128
#endif
#ifndef SPARSE_WORDS
#define SPARSE_WORDS 17
#endif

/* The list of the query block that position q is in. */
DEVICE const u32 *kept_list(const u32 *kept, int q, int head) {
    return kept + ((u64)(q / SPARSE_BLOCK) * ATT_HEADS + head) * SPARSE_WORDS;
}

DEVICE bool kept_in(const u32 *list, int n) {
    return list[n / 32] >> n % 32 & 1;
}

/* ==== For a tile of attention_prefill.cu ==== */

#if ATT_SPARSE
static_assert(ATT_CAUSAL && ATT_LOOKBACK < 0 && !ATT_RING, "queries see every key so far");

#define KEPT_PARAMETERS , const u32 *kept
#define KEPT_BYTES      (8 * SPARSE_WORDS) /* of shared memory: what any row keeps, and what every row keeps */

/* The lists of a tile's rows, at positions pos[0 .. rows), as one: to shared memory. */
DEVICE void kept_bring(u32 *to, const u32 *kept, const int *pos, int rows, int head, int threads) {
    for (int w = threadIdx.x; w < SPARSE_WORDS; w += threads) {
        u32 any = 0, every = ~0u;
        for (int i = 0; i < rows; i++)
            if (i == 0 || pos[i] / SPARSE_BLOCK != pos[i - 1] / SPARSE_BLOCK) {
                const u32 v = kept_list(kept, pos[i], head)[w];
                any |= v;
                every &= v;
            }
        to[w] = any;
        to[SPARSE_WORDS + w] = every;
    }
}

/* The first tile of `keys` keys from number `tile` on that has a kept key; one behind all keys if there is none. */
DEVICE int kept_tile(const u32 *any, int tile, int keys) {
    const int first = tile * keys / SPARSE_BLOCK;
    int word = first / 32;
    if (word >= SPARSE_WORDS)
        return tile;
    u32 bits = any[word] >> first % 32 << first % 32;
    while (!bits && ++word < SPARSE_WORDS)
        bits = any[word];
    const int lowest = count_bits(~bits & (bits - 1)), next = (word * 32 + (bits ? lowest : 0)) * SPARSE_BLOCK / keys;
    return next > tile ? next : tile;
}

/* Whether every row keeps all keys first..last. */
DEVICE bool kept_by_all(const u32 *any, int first, int last) {
    bool all = true;
    for (int n = first / SPARSE_BLOCK; n <= last / SPARSE_BLOCK; n++)
        all = all && kept_in(any + SPARSE_WORDS, n);
    return all;
}

/* What the row at position q keeps of the keys from `first` on, a bit for each block: enough of them for a tile. */
DEVICE u32 kept_ahead(const u32 *kept, int q, int head, int first) {
    const int n = first / SPARSE_BLOCK, word = n / 32, from = n % 32;
    const u32 *list = kept_list(kept, q, head);
    u32 bits = list[word] >> from;
    if (SPARSE_BLOCK % 64 && from && word + 1 < SPARSE_WORDS)
        bits |= list[word + 1] << (32 - from);
    return bits;
}
#else
#define KEPT_PARAMETERS
#define KEPT_BYTES 0
#endif

#endif
