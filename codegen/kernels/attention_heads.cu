/* attention_heads.cu - prefill, first launch: head vectors are prepared; q is kept as 16-bit elements, k and v go to
 * the cache, in its forms. One sequence or several; attention_prefill.cu follows.
 *
 * Contract
 *   ATT_NAME     the kernel's name; the macros of attention_layout.cu
 *   ATT_STORE    0: k and v are another layer's; k, v, store_* are not used, 1: they are stored
 *   parameters   q, k, v: planes. q16 u16 [query rows][ATT_HEADS][ATT_K_DIM]. cache_k, cache_v. Query row r stands at
 *                query_pos[r], row t of k and v at store_pos[t] of slots[t]; query_count, store_count: live rows.
 *                HEAD_PARAMETERS.
 *   launch       block 256; any grid of one dimension: a warp takes one head vector after another, so
 *                ceil(rows * (ATT_HEADS + 2 * ATT_KV_HEADS) / 8) blocks give it one; no dynamic shared memory
 */
#ifndef ATT_NAME
#define ATT_NAME attention_heads
#endif
#ifndef ATT_STORE
#define ATT_STORE 1
#endif

#include "attention_layout.cu"

constexpr int heads_warps = 8;

KERNEL __launch_bounds__(32 * heads_warps)
    ATT_NAME(const float *q, const float *k, const float *v, u16 *q16, u8 *cache_k, u8 *cache_v, const int *query_pos,
             const int *store_pos, const int *slots, const int *query_count, const int *store_count HEAD_PARAMETERS) {
    SHARED float scratch[heads_warps][ATT_K_DIM > ATT_V_DIM ? ATT_K_DIM : ATT_V_DIM];
    const int warp = threadIdx.x >> 5;
    float *x = scratch[warp];
    next_kernel_release();
    previous_kernels_wait();
    const int stored = ATT_STORE ? *store_count * ATT_KV_HEADS : 0, all = *query_count * ATT_HEADS + 2 * stored;
#pragma unroll 1
    for (int i = blockIdx.x * heads_warps + warp; i < all; i += gridDim.x * heads_warps) {
        const int job = i < 2 * stored ? i >> 1 : i - 2 * stored, heads = i < 2 * stored ? ATT_KV_HEADS : ATT_HEADS;
        const int r = job / heads, head = job % heads;
        if (i < 2 * stored) {
            const bool values = i & 1;
            const Target to = values ? cache_target<VForm, ATT_V_DIM>(cache_v, slots[r], store_pos[r], head)
                                     : cache_target<KForm, ATT_K_DIM>(cache_k, slots[r], store_pos[r], head);
            make_row(x, k, v, r, head, {store_pos[r], nullptr}, values, to HEAD_ARGUMENTS);
            continue;
        }
        FetchedQ from;
        fetch_q(from, q, r, head);
        from.put(x);
        prepare_q(x, head, {query_pos[r], nullptr} HEAD_ARGUMENTS);
        warp_sync();
        store_query((u8 *)(q16 + ((u64)r * ATT_HEADS + head) * ATT_K_DIM), x);
    }
}
