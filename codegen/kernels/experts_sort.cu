/* experts_sort.cu - which expert gets which rows, for the grouped prefill matmul (matmul_prefill.cu, PF_GROUPED).
 *
 * Contract
 *   ES_NAME              the kernel's name
 *   ES_EXPERTS           experts, up to 1024
 *   ES_K                 experts of a row
 *   ES_TOKENS            most rows of a tile, a multiple of 8: PF_TOKENS of the matmul
 *   parameters           const int *ids, int *order, int *tiles, int *counts, const int *rows
 *   ids                  i32 [live rows][ES_K]: experts, 0..ES_EXPERTS-1
 *   order                pairs (row * ES_K + place in the row) by expert and then by pair; each expert's part is
 *                        padded to a multiple of 8 with -1. Room for ES_K * most rows + 7 * min(ES_EXPERTS, ES_K *
 *                        most rows)
 *   tiles                [..]{expert, first entry of `order` / 8, pairs}, by expert: at most ES_TOKENS pairs each.
 *                        Room for min(ES_EXPERTS, ES_K * most rows) + ES_K * most rows / ES_TOKENS
 *   counts               {entries of `order`, tiles}: the rows of matmul_input.cu and of matmul_prefill.cu
 *   rows                 how many rows are live, in device memory
 *   launch               one block of 1024; dynamic shared memory ES_SHARED = 128 * ES_EXPERTS
 *
 * Counting sort: each of 32 warps counts the experts of its part of the pairs, 32 pairs at a time, in a table of its
 * own; sums over warps and experts tell where each warp's pairs of each expert begin; the same walk again then places
 * them. Lanes with one expert find each other by lanes_alike(), so that the order of pairs is kept and no
 * counter is raced for. For 4096 rows of 8: 2 x 32 rounds a warp of about 100 clocks and 2 x 4 of memory latency, a
 * column of 32 sums: some 14,000 clocks, 8 us.
 */
#include "prelude.cu"

#ifndef ES_NAME
#define ES_NAME    experts_sort
#define ES_EXPERTS 128
#define ES_K       8
#define ES_TOKENS  64
#endif

#define ES_SHARED (32 * ES_EXPERTS * 4)
#define ES_AHEAD  8 /* rounds whose ids are read together */

static_assert(ES_EXPERTS <= 1024, "a thread has an expert");
static_assert(ES_TOKENS % 8 == 0, "tiles begin at tiles of 8 rows");

DYNAMIC_SHARED u8 shared_bytes[];

/* Calls each(pair, expert, rank, alike) for 32 pairs at a time of the warp's part, by all lanes: `alike` lanes have
 * this expert, `rank` of them come before this one. Lanes without a pair have expert -1. */
template <class Each> DEVICE void walk(const int *ids, int pairs, Each each) {
    const int lane = threadIdx.x & 31, part = (pairs + 1023) / 1024 * 32;
    const int first = (int)(threadIdx.x >> 5) * part, end = first + part < pairs ? first + part : pairs;
    for (int at = first; at < end; at += 32 * ES_AHEAD) {
        int expert[ES_AHEAD];
#pragma unroll
        for (int i = 0; i < ES_AHEAD; i++)
            expert[i] = at + 32 * i + lane < end ? ids[at + 32 * i + lane] : -1;
#pragma unroll
        for (int i = 0; i < ES_AHEAD; i++) {
            const u32 alike = lanes_alike(expert[i]);
            each(at + 32 * i + lane, expert[i], count_bits(alike & ((1u << lane) - 1)), count_bits(alike));
        }
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

KERNEL __launch_bounds__(1024, 1) ES_NAME(const int *ids, int *order, int *tiles, int *counts, const int *rows) {
    int *table = (int *)shared_bytes; /* [warp][expert]: pairs, then where the next one goes */
    const int expert = threadIdx.x;
    next_kernel_release();
    for (int i = threadIdx.x; i < 32 * ES_EXPERTS; i += 1024)
        table[i] = 0;
    block_sync();
    previous_kernels_wait();
    const int pairs = *rows * ES_K;
    int *mine = table + (threadIdx.x >> 5) * ES_EXPERTS;
    walk(ids, pairs, [=](int, int e, int rank, int alike) {
        if (e >= 0 && rank == 0)
            mine[e] += alike;
        warp_sync();
    });
    block_sync();

    int count = 0, all, all_tiles;
    if (expert < ES_EXPERTS)
        for (int w = 0; w < 32; w++)
            count += table[w * ES_EXPERTS + expert];
    const int first = sum_before((count + 7) / 8 * 8, all);
    const int tile = sum_before((count + ES_TOKENS - 1) / ES_TOKENS, all_tiles);
    if (expert < ES_EXPERTS) {
        list_expert(expert, first, count, tile, order, tiles);
        for (int w = 0, at = first; w < 32; w++) {
            const int of_warp = table[w * ES_EXPERTS + expert];
            table[w * ES_EXPERTS + expert] = at;
            at += of_warp;
        }
    }
    if (threadIdx.x == 0) {
        counts[0] = all;
        counts[1] = all_tiles;
    }
    block_sync();

    walk(ids, pairs, [=](int pair, int e, int rank, int alike) {
        const int at = e >= 0 ? mine[e] : 0;
        warp_sync();
        if (e >= 0)
            order[at + rank] = pair;
        if (e >= 0 && rank == 0)
            mine[e] = at + alike;
        warp_sync();
    });
}
