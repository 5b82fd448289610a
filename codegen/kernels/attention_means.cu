/* attention_means.cu - sparse prefill: the mean key of each whole block of keys, for attention_choose.cu.
 *
 * Contract
 *   ATT_NAME     the kernel's name; the macros of attention_layout.cu and attention_kept.cu
 *   parameters   cache_k; means u16 [blocks][ATT_KV_HEADS][ATT_K_DIM]: f32 sums, rounded as the cache's elements are;
 *                slots[0]: the sequence; lengths: by sequence, positions after this call
 *   launch       grid (ATT_KV_HEADS, at least the blocks that fit the context): heads run together, as their keys lie
 *                beside each other; block 256; no dynamic shared memory
 *
 * All blocks are read again by every call, so that nothing has to know which rows a call, a step or a rollback has
 * replaced. For 2 bytes of a key's element full attention computes 4 * ATT_GROUP FLOPs a row of the call, and reading
 * is the smaller part even at one head a group (docs/performance.md). Eight blocks of threads fit on a multiprocessor,
 * each thread with two pieces of 16 bytes and more under way: 64 KB.
 */
#ifndef ATT_NAME
#define ATT_NAME attention_means
#endif

#include "attention_kept.cu"

constexpr int means_threads = 256, means_pieces = ATT_K_DIM / 8; /* of 16 bytes, of a key */
constexpr int means_keys = means_threads / means_pieces;         /* that are read at once */

static_assert(!KForm::packed, "elements of 16 bits");

struct Piece {
    float sum[8] = {};

    DEVICE void add(const uint4 &v) {
        const u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum[2 * i] += KForm::value((u16)pairs[i]);
            sum[2 * i + 1] += KForm::value((u16)(pairs[i] >> 16));
        }
    }
};

KERNEL __launch_bounds__(means_threads) ATT_NAME(const u8 *cache_k, u16 *means, const int *slots, const int *lengths) {
    SHARED float sums[means_keys][ATT_K_DIM];
    const int head = blockIdx.x, n = blockIdx.y, part = threadIdx.x / means_pieces, piece = threadIdx.x % means_pieces;
    next_kernel_release();
    previous_kernels_wait();
    const int slot = slots[0];
    if (n >= lengths[slot] / SPARSE_BLOCK)
        return;
    if (part < means_keys) {
        const u8 *from = cache_k + cache_at<KForm, ATT_K_DIM>(slot, n * SPARSE_BLOCK, head) + 16 * piece;
        Piece mine;
#pragma unroll 8
        for (int j = part; j < SPARSE_BLOCK; j += means_keys)
            mine.add(*(const uint4 *)(from + (u64)j * (2 * ATT_KV_HEADS * ATT_K_DIM)));
        for (int i = 0; i < 8; i++)
            sums[part][8 * piece + i] = mine.sum[i];
    }
    block_sync();
    for (int d = 2 * threadIdx.x; d < ATT_K_DIM; d += 2 * means_threads) {
        float low = 0.0f, high = 0.0f;
        for (int i = 0; i < means_keys; i++) {
            low += sums[i][d];
            high += sums[i][d + 1];
        }
        u32 *to = (u32 *)(means + ((u64)n * ATT_KV_HEADS + head) * ATT_K_DIM + d);
        *to = KForm::round_pair(low / SPARSE_BLOCK, high / SPARSE_BLOCK);
    }
}
