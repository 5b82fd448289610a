/* prelude.cu - what every kernel stands on: integer names, f16 pairs, tensor cores, barriers, copies, launch order.
 *
 * Header-free: NVRTC gives this text for `#include "prelude.cu"`, and nvcc finds the file. All PTX of this folder is
 * here, but for group_mma.cu and two functions of launch_time.cu; a test on a machine without a GPU defines LAP_PRELUDE and brings
 * functions of the same names (tests/kernels/emulator.h).
 *
 * Architectures: sm_80 and later. From sm_90 on a chunk of memory comes by one bulk copy and programmatic
 * dependent launch orders kernels; before, lanes copy 16 bytes each and kernels run one after another. The
 * functions mean the same in both cases.
 *
 * An f16 pair is a u32: the element with the smaller index in the lower half.
 */
#ifndef LAP_PRELUDE
#define LAP_PRELUDE

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE         __device__ __forceinline__
#define KERNEL         extern "C" __global__ void
/* Read 16 bytes at once in places, whatever else a kernel has there. */
#define SHARED         __shared__ __align__(16)
#define DYNAMIC_SHARED extern __shared__ __align__(128)
/* For atoms of 1024 bytes (group_mma.cu). */
#define DYNAMIC_SHARED_ATOMS extern __shared__ __align__(1024)

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "these kernels need compute capability 8.0 or later"
#endif

/* ==== Lanes and blocks ==== */

DEVICE void warp_sync() {
    __syncwarp();
}

/* All threads of the block. */
DEVICE void block_sync() {
    __syncthreads();
}

/* The value of another lane: of lane ^ mask. */
template <class T> DEVICE T lane_swap(T v, int mask) {
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

/* The value of lane `from`. */
template <class T> DEVICE T lane_from(T v, int from) {
    return __shfl_sync(0xffffffffu, v, from);
}

/* The lanes where `on` is true, as bits. */
DEVICE u32 lanes_where(bool on) {
    return __ballot_sync(0xffffffffu, on);
}

/* The lanes whose v is the same as this lane's, as bits. */
DEVICE u32 lanes_alike(int v) {
    return __match_any_sync(0xffffffffu, v);
}

DEVICE int count_bits(u32 v) {
    return __popc(v);
}

/* The number of the lowest bit that is set. */
DEVICE int lowest_bit(u32 v) {
    return count_bits((v & (0 - v)) - 1);
}

DEVICE int lowest_bit(u64 v) {
    return (u32)v ? lowest_bit((u32)v) : 32 + lowest_bit((u32)(v >> 32));
}

/* Over a warp, in one order for all lanes: every lane gets the same bits. */
DEVICE float warp_sum(float v) {
    for (int step = 16; step; step >>= 1)
        v += lane_swap(v, step);
    return v;
}

DEVICE float warp_max(float v) {
    for (int step = 16; step; step >>= 1)
        v = fmaxf(v, lane_swap(v, step));
    return v;
}

/* The largest of a warp's numbers, for all lanes. */
DEVICE u32 warp_largest(u32 v) {
    return __reduce_max_sync(0xffffffffu, v);
}

/* Adds to a number in shared memory to which other threads of the block add, too. What it was before. */
DEVICE u32 shared_add(u32 *to, u32 by) {
    return atomicAdd(to, by);
}

/* ==== f16, bf16 ==== */

DEVICE float f16_value(u16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

DEVICE u16 f16_round(float f) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

DEVICE u32 f16_pair(u16 low, u16 high) {
    return (u32)low | (u32)high << 16;
}

DEVICE float bf16_value(u16 h) {
    return __uint_as_float((u32)h << 16);
}

/* To nearest, ties to even; NaN stays NaN. */
DEVICE u16 bf16_round(float f) {
    u16 h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

DEVICE u32 pair_add(u32 a, u32 b) {
    u32 d;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

DEVICE u32 pair_multiply(u32 a, u32 b) {
    u32 d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

DEVICE u32 pair_multiply_add(u32 a, u32 b, u32 c) {
    u32 d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* a * b + c rounded once: written out where results must not depend on what a compiler contracts. */
DEVICE float multiply_add(float a, float b, float c) {
    return __fmaf_rn(a, b, c);
}

DEVICE float float_from_bits(u32 bits) {
    return __uint_as_float(bits);
}

DEVICE u32 bits_from_float(float f) {
    return __float_as_uint(f);
}

/* Half HIGH of a pair in both halves: written so that f16 operations take it as an operand. */
template <int HIGH> DEVICE u32 pair_both(u32 pair) {
    u32 d;
    if (HIGH)
        asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {high, high}; }" : "=r"(d) : "r"(pair));
    else
        asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {low, low}; }" : "=r"(d) : "r"(pair));
    return d;
}

/* (v & MASK) | BITS as one operation, which compilers make two of. */
template <u32 MASK, u32 BITS> DEVICE u32 mask_or(u32 v) {
    u32 d;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(v), "n"(MASK), "n"(BITS));
    return d;
}

/* Four bytes picked from {a: 0..3, b: 4..7} by the nibbles of `pick`. */
DEVICE u32 pick_bytes(u32 a, u32 b, u32 pick) {
    u32 d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(pick));
    return d;
}

/* The bits turned by so many places towards the higher ones, modulo 32. */
DEVICE u32 rotate_left(u32 v, int by) {
    return __funnelshift_l(v, v, by);
}

/* ==== Tensor cores ==== */

/* c[16 x 8] += a[16 x 16] b[16 x 8] over a warp, f16 products exact, f32 sums. With g = lane / 4, t = lane % 4:
 * a0, a2: row g, columns 2t and 2t + 8 on; a1, a3: row g + 8 the same; b0, b1: column g, rows 2t and 2t + 8 on;
 * c[0], c[1]: row g, columns 2t, 2t + 1; c[2], c[3]: row g + 8. */
DEVICE void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* The same with bf16. */
DEVICE void mma_bf16(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* c[16 x 8] += a[16 x 8] b[8 x 8] with TF32: f32 whose 13 lowest bits are not looked at, exact products, f32 sums. a0,
 * a2: row g, columns t and t + 4; a1, a3: row g + 8 the same; b0, b1: column g, rows t and t + 4; c as above. */
DEVICE void mma_tf32(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of 16-bit elements from shared memory: lane l gives the address of row l % 8 (16 bytes, aligned)
 * of matrix l / 8; r[m] of lane 4g + t is row g, columns 2t, 2t + 1 of matrix m. */
DEVICE void load_matrices(u32 (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

/* The same transposed: r[m] is column g, rows 2t, 2t + 1 of matrix m. */
DEVICE void load_matrices_transposed(u32 (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

/* ==== Functions of one number ==== */

/* 2^x, the hardware's: relative error 2^-22. -infinity gives 0. */
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* cos and sin of an angle of any size: it is reduced in double. */
DEVICE void turn_of(double angle, float &cosine, float &sine) {
    const double turns = angle * 0.15915494309189535; /* 1 / 2 pi */
    sincospif((float)(2.0 * (turns - floor(turns))), &sine, &cosine);
}

/* ==== Between blocks of one launch ==== */

/* Whoever sees a counter that another block has raised also sees what that block wrote before. */
DEVICE int counter_raise(int *counter, int by) {
    int old;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], %2;" : "=r"(old) : "l"(counter), "r"(by) : "memory");
    return old;
}

/* The same without an answer. */
DEVICE void counter_tell(int *counter, int by) {
    asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(counter), "r"(by) : "memory");
}

/* Raises a counter, and orders nothing else. */
DEVICE int counter_add(int *counter, int by) {
    int old;
    asm volatile("atom.add.relaxed.gpu.global.s32 %0, [%1], %2;" : "=r"(old) : "l"(counter), "r"(by) : "memory");
    return old;
}

DEVICE int counter_read(const int *counter) {
    int v;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(counter) : "memory");
    return v;
}

/* What a thread that waits for a counter calls between two reads. */
DEVICE void counter_pause() {
    __nanosleep(20);
}

/* ==== Named barriers: some warps of a block, of which some do not wait ====
 *
 * A barrier ends when `threads` threads, whole warps, have come, whichever way, and is ready for the next round then.
 * Who has come by warps_meet() sees what all wrote before they came. Numbers 1..15; block_sync() has 0.
 */

DEVICE void warps_meet(int number, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

/* Comes without waiting. */
DEVICE void warps_arrive(int number, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

/* ==== Barriers in shared memory ==== */

DEVICE u32 shared_address(const void *p) {
    return (u32)__cvta_generic_to_shared(p);
}

/* A phase ends after `count` arrivals. Once, by one thread; then barrier_publish() and __syncthreads(). */
DEVICE void barrier_init(u64 *bar, u32 count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory");
}

DEVICE void barrier_publish() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

DEVICE void barrier_arrive(u64 *bar) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(bar)) : "memory");
}

/* Whether phase number n (parity n & 1) has ended. */
DEVICE bool barrier_passed(u64 *bar, u32 parity) {
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(bar)), "r"(parity)
                 : "memory");
    return done;
}

/* Until phase number n (parity n & 1) has ended. */
DEVICE void barrier_wait(u64 *bar, u32 parity) {
#if __CUDA_ARCH__ >= 900
    u32 done;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(shared_address(bar)), "r"(parity)
                     : "memory");
    } while (!done);
#else
    while (!barrier_passed(bar, parity)) {
    }
#endif
}

/* ==== Chunks of global memory into shared memory ==== */

/* Arrives at a barrier when all copies that the calling thread has asked for are there; does not wait for them. */
DEVICE void copies_arrive(u64 *bar) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(bar)) : "memory");
}

/* BULK_COPIES: 1 where one thread may ask for many bytes. CHUNK_ARRIVALS: arrivals that one chunk_load() makes at its
 * barrier, to initialise the barrier with. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define BULK_COPIES    0
#define CHUNK_ARRIVALS 32
#else
#define BULK_COPIES    1
#define CHUNK_ARRIVALS 1
#endif

#if BULK_COPIES
/* Arrives, and the phase lasts until so many bytes of bulk copies are there, too: those that the thread asks for next. */
DEVICE void barrier_expect(u64 *bar, u32 bytes) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1; }" ::"r"(
                     shared_address(bar)),
                 "r"(bytes)
                 : "memory");
}

/* Bytes (a multiple of 16; both addresses too), of which bar tells. What threads have read or written there before must
 * be behind a barrier_publish(). */
DEVICE void bulk_load(void *to, const u8 *from, u32 bytes, u64 *bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(bar))
                 : "memory");
}
#endif

/* By all lanes of a warp: bytes (a multiple of 16; both addresses too) that are read once, so they are the first to
 * leave the L2 cache. Ends a phase of bar when they have arrived. */
DEVICE void chunk_load(void *to, const u8 *from, u32 bytes, u64 *bar, int lane) {
#if BULK_COPIES
    if (lane == 0) {
        u64 policy;
        asm volatile("createpolicy.fractional.L2::evict_first.b64 %0;" : "=l"(policy));
        barrier_expect(bar, bytes);
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
                     " [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
                     "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(bar)), "l"(policy)
                     : "memory");
    }
#else
    for (u32 at = 16 * lane; at < bytes; at += 16 * 32)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address((u8 *)to + at)),
                     "l"(__cvta_generic_to_global(from + at))
                     : "memory");
    copies_arrive(bar);
#endif
}

/* The same for bytes that other blocks read too: they stay in the L2 cache like any others. */
DEVICE void chunk_load_common(void *to, const u8 *from, u32 bytes, u64 *bar, int lane) {
#if BULK_COPIES
    if (lane == 0) {
        barrier_expect(bar, bytes);
        bulk_load(to, from, bytes, bar);
    }
#else
    chunk_load(to, from, bytes, bar, lane);
#endif
}

/* 16 bytes to shared memory, asynchronously; `inside` false: zeros, and nothing is read. Both addresses aligned. */
DEVICE void copy16_async(void *to, const void *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(inside ? 16 : 0)
                 : "memory");
}

/* Closes the group of the calling thread's copies since the last one. */
DEVICE void copies_close() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most OPEN of the calling thread's closed groups are under way; then block_sync() shows them to all. */
template <int OPEN> DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory");
}

/* Two words to an address that is a multiple of 8, where `on`: without a branch, around which nothing could be moved. Of
 * memory that the kernel does not read. */
DEVICE void store_where(void *to, u32 low, u32 high, bool on) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %3, 0; @p st.global.v2.b32 [%0], {%1, %2}; }" ::"l"(
                     __cvta_generic_to_global(to)),
                 "r"(low), "r"(high), "r"((u32)on));
}

DEVICE void store_where(float *to, float v, bool on) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %2, 0; @p st.global.f32 [%0], %1; }" ::"l"(
                     __cvta_generic_to_global(to)),
                 "f"(v), "r"((u32)on));
}

/* Asks for the line of 128 bytes at p to come into the L2 cache. */
DEVICE void fetch_line(const void *p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(p)));
}

/* ==== Order of kernels ==== */

/* Everything that kernels before this one wrote is there after this; nothing of theirs may be read, and nothing
 * that they read may be overwritten, before. Weights never change, so they may be fetched earlier. */
DEVICE void previous_kernels_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel may start as soon as there is room; it waits by itself. */
DEVICE void next_kernel_release() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif

/* A moment within a launch that `lap profile --moment` can tell of: nothing, but in a timed twin (launch_time.cu). */
#ifndef launch_moment
#define launch_moment(name)
#endif
