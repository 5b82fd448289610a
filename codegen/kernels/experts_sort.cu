/* experts_sort.cu - which expert gets which rows, for the grouped prefill matmul (matmul_prefill.cu, PF_GROUPED).
 *
 * Contract
 *   ES_NAME              the kernel's name
 *   ES_EXPERTS           experts, up to 1024
 *   ES_K                 experts of a row
 *   ES_TOKENS            most rows of a tile, a multiple of 8: PF_TOKENS of the matmul
 *   parameters           const int *ids, int *order, int *places, int *tiles, int *n_tiles, const int *rows
 *   ids                  i32 [live rows][ES_K]: experts, 0..ES_EXPERTS-1
 *   order                pairs (row * ES_K + place in the row) by expert and then by pair; each expert's part is
 *                        padded to a multiple of 8 with -1. Room for ES_K * most rows + 7 * min(ES_EXPERTS, ES_K *
 *                        most rows)
 *   places               [pairs]: where in `order` each stands
 *   tiles                [..]{expert, first entry of `order` / 8, pairs}, by expert: at most ES_TOKENS pairs each.
 *                        Room for min(ES_EXPERTS, ES_K * most rows) + ES_K * most rows / ES_TOKENS
 *   n_tiles              how many tiles there are: the rows of the matmul
 *   rows                 how many rows are live, in device memory
 *   launch               block 1024; a block for each ES_ROWS = 1024 / ES_K live rows; dynamic shared memory ES_SHARED =
 *                        136 * ES_EXPERTS
 *
 * Counting sort. A block places the pairs of its rows, one a thread. It counts all pairs, those before its own apart, as
 * nobody waits for another block: the numbers are integers, so it does not matter who comes first to a counter. Its
 * warps count their own pairs in tables of their own; sums over warps and experts tell where each warp's pairs of each
 * expert begin. Lanes with one expert find each other by lanes_alike(), so that the order of pairs is kept. Predicted for
 * 4096 rows of 8: 2 rounds of 16 ids a thread at 700 clocks of latency, 1024 additions of a warp at 6 clocks, a column of
 * 32 sums: some 11,000 clocks, 6 us. (One block for all of them, which places 32 pairs a warp in each of 32 rounds, took
 * 74 us on an H100.)
 */
#include "prelude.cu"

#ifndef ES_NAME
#define ES_NAME    experts_sort
#define ES_EXPERTS 128
#define ES_K       8
#define ES_TOKENS  64
#endif

#define ES_ROWS   (1024 / ES_K) /* of a block */
#define ES_SHARED (34 * ES_EXPERTS * 4)
#define ES_AHEAD  16 /* ids of a thread that are read together */

static_assert(ES_EXPERTS <= 1024, "a thread has an expert");
static_assert(ES_K <= 1024, "a block has a row");
static_assert(ES_TOKENS % 8 == 0, "tiles begin at tiles of 8 rows");

DYNAMIC_SHARED u8 shared_bytes[];

/* Adds the pairs of each expert to `before`, those from number `first` on to `rest`. */
DEVICE void count_pairs(const int *ids, int pairs, int first, u32 *before, u32 *rest) {
    for (int at = threadIdx.x; at < pairs; at += 1024 * ES_AHEAD) {
        int expert[ES_AHEAD];
#pragma unroll
        for (int i = 0; i < ES_AHEAD; i++)
            expert[i] = at + 1024 * i < pairs ? ids[at + 1024 * i] : -1;
#pragma unroll
        for (int i = 0; i < ES_AHEAD; i++)
            if (expert[i] >= 0)
                shared_add((at + 1024 * i < first ? before : rest) + expert[i], 1);
    }
}

/* Over the block: the sum of v of the threads before this one; `all` gets the sum of all. */
DEVICE int sum_before(int v, int &all) {
    SHARED int of_warp[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int sum = v, before = 0;
    for (int step = 1; step < 32; step *= 2) {
        const int other = lane_from(sum, lane < step ? lane : lane - step);
        sum += lane < step ? 0 : other;
    }
    if (lane == 31)
        of_warp[warp] = sum;
    block_sync();
    all = 0;
#pragma unroll 8
    for (int i = 0; i < 32; i++) {
        before += i < warp ? of_warp[i] : 0;
        all += of_warp[i];
    }
    block_sync();
    return before + sum - v;
}

/* The expert of this thread: its tiles and its padding. */
DEVICE void list_expert(int expert, int first, int pairs, int tile, int *order, int *tiles) {
    for (int at = 0; at < pairs; at += ES_TOKENS, tile++) {
        tiles[3 * tile] = expert;
        tiles[3 * tile + 1] = (first + at) / 8;
        tiles[3 * tile + 2] = pairs - at < ES_TOKENS ? pairs - at : ES_TOKENS;
    }
    for (int i = pairs; i % 8; i++)
        order[first + i] = -1;
}

KERNEL __launch_bounds__(1024, 1)
    ES_NAME(const int *ids, int *order, int *places, int *tiles, int *n_tiles, const int *rows) {
    u32 *before = (u32 *)shared_bytes, *rest = before + ES_EXPERTS;
    int *table = (int *)(rest + ES_EXPERTS); /* [warp][expert]: pairs, then where the first one goes */
    const int expert = threadIdx.x, lane = threadIdx.x & 31;
    next_kernel_release();
    for (int i = threadIdx.x; i < 34 * ES_EXPERTS; i += 1024)
        before[i] = 0;
    block_sync();
    previous_kernels_wait();
    const int pairs = *rows * ES_K, first_pair = (int)blockIdx.x * ES_ROWS * ES_K, pair = first_pair + (int)threadIdx.x;
    const int mine = (int)threadIdx.x < ES_ROWS * ES_K && pair < pairs ? ids[pair] : -1;
    count_pairs(ids, pairs, first_pair, before, rest);
    const u32 alike = lanes_alike(mine);
    const int rank = count_bits(alike & ((1u << lane) - 1));
    int *const of_mine = table + (threadIdx.x >> 5) * ES_EXPERTS + mine;
    if (mine >= 0 && rank == 0)
        *of_mine = count_bits(alike);
    block_sync();

    int all, all_tiles;
    const int count = expert < ES_EXPERTS ? (int)(before[expert] + rest[expert]) : 0;
    const int first = sum_before((count + 7) / 8 * 8, all);
    const int tile = sum_before((count + ES_TOKENS - 1) / ES_TOKENS, all_tiles);
    if (expert < ES_EXPERTS) {
        int at = first + (int)before[expert];
#pragma unroll 8
        for (int w = 0; w < 32; w++) {
            const int of_warp = table[w * ES_EXPERTS + expert];
            table[w * ES_EXPERTS + expert] = at;
            at += of_warp;
        }
        if (blockIdx.x == 0)
            list_expert(expert, first, count, tile, order, tiles);
    }
    if (blockIdx.x == 0 && threadIdx.x == 0)
        *n_tiles = all_tiles;
    block_sync();

    if (mine >= 0) {
        const int place = *of_mine + rank;
        order[place] = pair;
        places[pair] = place;
    }
}
