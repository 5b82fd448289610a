/* attention_means.cu - sparse prefill: the mean key of each whole block of keys, for attention_choose.cu.
 *
 * Contract
 *   ATT_NAME     the kernel's name; the macros of attention_layout.cu and attention_kept.cu
 *   parameters   cache_k; means u16 [blocks][ATT_KV_HEADS][ATT_K_DIM]: as prepared queries are stored (store_query()),
 *                bf16 where keys are and else f16; of packed keys in their basis, in the order that queries have for
 *                them; slots[0]: the sequence; lengths: by sequence, positions after this call
 *   launch       grid (ATT_KV_HEADS, at least the blocks that fit the context): heads run together, as their keys lie
 *                beside each other; block 256; no dynamic shared memory
 *
 * All blocks are read again by every call, so that nothing has to know which rows a call, a step or a rollback has
 * replaced. For 2 bytes of a key's element full attention computes 4 * ATT_GROUP FLOPs a row of the call, and reading
 * is the smaller part even at one head a group (docs/performance/attention.md). Eight blocks of threads fit on a
 * multiprocessor, each thread with two pieces of 16 bytes and more under way: 64 KB.
 *
 * Sums are of f32. Of packed keys a thread has 8 elements, too, units 2 t and 2 t + 1 of a span (attention_forms.cu): a
 * word of codes or two, and the key's scale in f32, so that what is summed is what the evaluator decodes (tq3_0: with
 * centroids of f16). Scales of a thread's keys lie beside each other, in the L1 cache from the first on.
 */
#ifndef ATT_NAME
#define ATT_NAME attention_means
#endif

#include "attention_kept.cu"

constexpr int means_threads = 256, means_pieces = ATT_K_DIM / 8; /* of a key, 8 elements */
constexpr int means_keys = means_threads / means_pieces;         /* that are read at once */

/* Sums of 8 elements: of 16 bits a piece of a key, in its order; packed ones as [pair of unpack()][unit]. */
template <class Form> struct Share {
    float sum[8] = {};

    DEVICE void add(const uint4 &v) {
        const u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum[2 * i] += Form::value((u16)pairs[i]);
            sum[2 * i + 1] += Form::value((u16)(pairs[i] >> 16));
        }
    }
    DEVICE void add_packed(u32 first, u32 second, int span, float scale) {
        u32 pairs[4];
        Form::unpack(pairs, first, second, span);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum[2 * i] = multiply_add(Form::value((u16)pairs[i]), scale, sum[2 * i]);
            sum[2 * i + 1] = multiply_add(Form::value((u16)(pairs[i] >> 16)), scale, sum[2 * i + 1]);
        }
    }
    /* Every means_keys-th key of block n from number `part` on. */
    DEVICE void add_keys(const u8 *cache_k, int slot, int n, int head, int part, int piece) {
        const u8 *from = cache_k + cache_at<Form, ATT_K_DIM>(slot, n * SPARSE_BLOCK, head);
        if constexpr (Form::packed) {
            constexpr int codes = code_bytes<Form, ATT_K_DIM>();
            const int span = piece / 4, t = piece % 4;
            const u8 *first = from + Form::template value_piece<ATT_K_DIM>(span, 0) + 4 * t;
            const u8 *second = from + Form::template value_piece<ATT_K_DIM>(span, 1) + 4 * t;
            const u16 *scales = (const u16 *)(cache_k + scales_at<Form, ATT_K_DIM>(slot, n * SPARSE_BLOCK, head)) +
                                (u64)(span * 32 / Form::group) * ATT_PLACES;
#pragma unroll 8
            for (int j = part; j < SPARSE_BLOCK; j += means_keys) {
                const u64 key = (u64)j * (ATT_KV_HEADS * codes);
                add_packed(*(const u32 *)(first + key), *(const u32 *)(second + key), span,
                           f16_value(scales[j]) * Form::unit);
            }
        } else {
            const int place = place_of(n * SPARSE_BLOCK);
#pragma unroll 8
            for (int j = part; j < SPARSE_BLOCK; j += means_keys)
                add(*(const uint4 *)(from + (u64)j * (2 * ATT_K_DIM) + 16 * piece_at<ATT_K_DIM>(place + j, piece)));
        }
    }
    /* Where sum i stands in a prepared query: store_elements(), store_permuted(). */
    static DEVICE int place(int piece, int i) {
        return Form::packed ? piece / 4 * 32 + i / 2 * 8 + piece % 4 * 2 + i % 2 : 8 * piece + i;
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
        Share<KForm> mine;
        mine.add_keys(cache_k, slot, n, head, part, piece);
        for (int i = 0; i < 8; i++)
            sums[part][mine.place(piece, i)] = mine.sum[i];
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
