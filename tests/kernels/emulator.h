/* emulator.h - runs kernel text on the CPU, in place of prelude.cu: every thread of a block is a fiber.
 *
 * A warp's collective operations (mma, shuffles, warp_sync) let the lanes go on when all have come; barriers hold a
 * fiber until their phase has ended; a block that waits for a counter makes room for others. So indices, fragments, the
 * protocol of barriers and the waiting of blocks for each other are tested as written. Copies come as late as they
 * may, in an order that hardware does not promise; their place holds garbage until then, as all shared memory does
 * that was never written. Odd blocks run their threads from the last to the first. What this cannot show: memory
 * ordering, timing, and how a tensor core rounds (here: products and sums of one mma in double).
 *
 * In a test program: run_kernel(grid_x, grid_y, threads, [&] { kernel(..); }), false when threads wait for each other
 * forever or one does what hardware would not. Dynamic shared memory is defined by the test, with as many bytes as it
 * likes: `DYNAMIC_SHARED_MEMORY shared_bytes[BYTES];`.
 */
#ifndef LAP_PRELUDE
#define LAP_PRELUDE

#include "tests/emulated/fiber.h"

#ifdef EMULATED_MODULE /* C's <math.h>: C++'s takes longer to read than most kernels to compile */
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#endif
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE inline
#ifdef EMULATED_MODULE
#define KERNEL                 EMULATED_KERNEL_HERE void
#define __launch_bounds__(...) EMULATED_BOUNDS_HERE(__VA_ARGS__)
#else
#define KERNEL [[maybe_unused]] static void
#define __launch_bounds__(...)
#endif
/* A block has them to itself while it runs; __thread, since one block runs on each of several OS threads. */
#define SHARED                static __thread
#define DYNAMIC_SHARED        extern __thread
#define DYNAMIC_SHARED_ATOMS  extern __thread
#define DYNAMIC_SHARED_MEMORY alignas(1024) __thread u8
#define BULK_COPIES           1
#define CHUNK_ARRIVALS        1

#define threadIdx (emulated::self().thread)
#define blockIdx  (emulated::self().block->index)
#define gridDim   (emulated::self().block->grid)
#define blockDim  (emulated::self().block->threads)

struct uint2 {
    u32 x, y;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(u32 x, u32 y) {
    return {x, y};
}
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) {
    return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

/* ==== Lanes and blocks ==== */

inline void emulated_nothing(void *const *) {}

inline void warp_sync() {
    emulated::calls().meet_warp(emulated_nothing, nullptr);
}
inline void block_sync() {
    emulated::calls().meet_block();
}
inline void __syncthreads() {
    block_sync();
}

template <class T> struct EmulatedLane {
    T value, result;
    int from;
};

template <class T> void emulated_pick(void *const *offers) {
    for (int i = 0; i < 32; i++) {
        EmulatedLane<T> *lane = (EmulatedLane<T> *)offers[i];
        lane->result = ((const EmulatedLane<T> *)offers[lane->from & 31])->value;
    }
}

template <class T> T lane_from(T v, int from) {
    EmulatedLane<T> mine = {v, v, from};
    emulated::calls().meet_warp(emulated_pick<T>, &mine);
    return mine.result;
}
template <class T> T lane_swap(T v, int mask) {
    return lane_from(v, (int)(threadIdx.x % 32) ^ mask);
}

struct EmulatedAlike {
    int value;
    u32 lanes;
};

inline void emulated_alike(void *const *offers) {
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j++)
            ((EmulatedAlike *)offers[i])->lanes |=
                (u32)(((EmulatedAlike *)offers[i])->value == ((EmulatedAlike *)offers[j])->value) << j;
}
inline u32 lanes_alike(int v) {
    EmulatedAlike mine = {v, 0};
    emulated::calls().meet_warp(emulated_alike, &mine);
    return mine.lanes;
}
inline u32 lanes_where(bool on) {
    const u32 alike = lanes_alike(on);
    return on ? alike : ~alike;
}
inline int count_bits(u32 v) {
    return __builtin_popcount(v);
}
inline int lowest_bit(u32 v) {
    return count_bits((v & (0 - v)) - 1);
}
inline int lowest_bit(u64 v) {
    return (u32)v ? lowest_bit((u32)v) : 32 + lowest_bit((u32)(v >> 32));
}

/* As the prelude's butterflies: the same sums in the same order, which all lanes get. */
template <float (*with)(float, float)> void emulated_reduce(void *const *offers) {
    float v[32], next[32];
    for (int i = 0; i < 32; i++)
        v[i] = *(float *)offers[i];
    for (int step = 16; step; step >>= 1) {
        for (int i = 0; i < 32; i++)
            next[i] = with(v[i], v[i ^ step]);
        memcpy(v, next, sizeof v);
    }
    for (int i = 0; i < 32; i++)
        *(float *)offers[i] = v[i];
}
inline float emulated_add(float a, float b) {
    return a + b;
}
inline float warp_sum(float v) {
    emulated::calls().meet_warp(emulated_reduce<emulated_add>, &v);
    return v;
}
inline float warp_max(float v) {
    emulated::calls().meet_warp(emulated_reduce<fmaxf>, &v);
    return v;
}

inline void emulated_largest(void *const *offers) {
    u32 most = 0;
    for (int i = 0; i < 32; i++)
        most = *(u32 *)offers[i] > most ? *(u32 *)offers[i] : most;
    for (int i = 0; i < 32; i++)
        *(u32 *)offers[i] = most;
}
inline u32 warp_largest(u32 v) {
    emulated::calls().meet_warp(emulated_largest, &v);
    return v;
}

inline u32 shared_add(u32 *to, u32 by) {
    const u32 old = *to;
    *to = old + by;
    return old;
}

/* ==== f16, bf16 ==== */

inline float float_from_bits(u32 bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
inline u32 bits_from_float(float f) {
    u32 bits;
    memcpy(&bits, &f, 4);
    return bits;
}
inline float f16_value(u16 h) {
    const u32 rest = h & 0x7fffu;
    const float small = (float)rest * 0x1p-24f; /* a subnormal */
    const u32 large = (rest << 13) + (rest >= 0x7c00u ? 0x70000000u : 0x38000000u);
    return float_from_bits((rest < 0x400u ? bits_from_float(small) : large) | (h & 0x8000u) << 16);
}
inline u16 f16_round(float f) {
    const u32 bits = bits_from_float(f), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return 0x7fff;
    if (rest >= 0x477ff000u) /* what rounds to 65536 */
        return (u16)(sign | 0x7c00u);
    if (rest < 0x38800000u)
        return (u16)(sign | (u32)lrintf(fabsf(f) * 0x1p24f));
    return (u16)(sign | (rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13);
}
inline u32 f16_pair(u16 low, u16 high) {
    return (u32)low | (u32)high << 16;
}
inline float bf16_value(u16 h) {
    return float_from_bits((u32)h << 16);
}
inline u16 bf16_round(float f) {
    const u32 bits = bits_from_float(f);
    return isnan(f) ? 0x7fff : (u16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
inline float emulated_part(u32 v, int i) {
    return f16_value((u16)(v >> 16 * i));
}
/* The product is exact, and one f32 rounding in between is for the values that kernels make here, which fit 24 bits. */
inline u32 pair_multiply_add(u32 a, u32 b, u32 c) {
    return f16_pair(f16_round(emulated_part(a, 0) * emulated_part(b, 0) + emulated_part(c, 0)),
                    f16_round(emulated_part(a, 1) * emulated_part(b, 1) + emulated_part(c, 1)));
}
inline u32 pair_add(u32 a, u32 b) {
    return f16_pair(f16_round(emulated_part(a, 0) + emulated_part(b, 0)),
                    f16_round(emulated_part(a, 1) + emulated_part(b, 1)));
}
inline u32 pair_multiply(u32 a, u32 b) {
    return f16_pair(f16_round(emulated_part(a, 0) * emulated_part(b, 0)),
                    f16_round(emulated_part(a, 1) * emulated_part(b, 1)));
}
inline float multiply_add(float a, float b, float c) {
    return fmaf(a, b, c);
}
template <int HIGH> inline u32 pair_both(u32 pair) {
    return f16_pair((u16)(pair >> 16 * HIGH), (u16)(pair >> 16 * HIGH));
}
template <u32 MASK, u32 BITS> inline u32 mask_or(u32 v) {
    return (v & MASK) | BITS;
}
inline u32 pick_bytes(u32 a, u32 b, u32 pick) {
    const u64 both = (u64)b << 32 | a;
    u32 d = 0;
    for (int i = 0; i < 4; i++)
        d |= (u32)(both >> 8 * (pick >> 4 * i & 7) & 0xff) << 8 * i;
    return d;
}

inline u32 rotate_left(u32 v, int by) {
    return v << (by & 31) | v >> (-by & 31);
}

/* ==== Tensor cores ==== */

inline void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    emulated::MmaOffer mine = {c, {a0, a1, a2, a3}, {b0, b1}};
    emulated::calls().meet_warp(emulated::calls().mma_f16, &mine);
}
inline void mma_bf16(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    emulated::MmaOffer mine = {c, {a0, a1, a2, a3}, {b0, b1}};
    emulated::calls().meet_warp(emulated::calls().mma_bf16, &mine);
}

inline void emulated_mma_tf32(void *const *offers) {
    const auto value = [&](int lane, bool of_b, int i) {
        const emulated::MmaOffer &o = *(const emulated::MmaOffer *)offers[lane];
        return float_from_bits((of_b ? o.b[i] : o.a[i]) & 0xffffe000u);
    };
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 8; column++) {
            float &c = ((emulated::MmaOffer *)offers[row % 8 * 4 + column / 2])->c[row / 8 * 2 + column % 2];
            double sum = c;
            for (int k = 0; k < 8; k++)
                sum += (double)value(row % 8 * 4 + k % 4, false, row / 8 + k / 4 * 2) *
                       value(column * 4 + k % 4, true, k / 4);
            c = (float)sum;
        }
}
inline void mma_tf32(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    emulated::MmaOffer mine = {c, {a0, a1, a2, a3}, {b0, b1}};
    emulated::calls().meet_warp(emulated_mma_tf32, &mine);
}

struct EmulatedRow {
    u32 *to;
    const void *row;
};

template <bool TRANSPOSED> void emulated_matrices(void *const *offers) {
    for (int m = 0; m < 4; m++)
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane / 4, t = lane % 4;
            u16 pair[2];
            for (int i = 0; i < 2; i++) {
                const int row = TRANSPOSED ? 2 * t + i : g, column = TRANSPOSED ? g : 2 * t + i;
                pair[i] = ((const u16 *)((const EmulatedRow *)offers[8 * m + row])->row)[column];
            }
            ((EmulatedRow *)offers[lane])->to[m] = f16_pair(pair[0], pair[1]);
        }
}

template <bool TRANSPOSED> void emulated_load_matrices(u32 (&r)[4], const void *row) {
    EmulatedRow mine = {r, row};
    if ((uintptr_t)row & 15)
        emulated::calls().fail("a row of a matrix is not aligned to 16 bytes");
    emulated::calls().meet_warp(emulated_matrices<TRANSPOSED>, &mine);
}
inline void load_matrices(u32 (&r)[4], const void *row) {
    emulated_load_matrices<false>(r, row);
}
inline void load_matrices_transposed(u32 (&r)[4], const void *row) {
    emulated_load_matrices<true>(r, row);
}

/* ==== Tensor cores of a warpgroup: group_mma.cu ====
 *
 * A product is made when it is waited for, from what registers and shared memory hold then. So it comes out wrong where
 * a kernel touches them too early.
 */

#define LAP_GROUP_MMA

inline void group_mma_begin() {}
inline void group_mma_close() {
    emulated::self().closed++;
}
inline void emulated_ask(emulated::Product p) {
    emulated::Fiber &f = emulated::self();
    if (f.products == emulated::MAX_PRODUCTS)
        emulated::calls().fail("more products of a warpgroup under way than the emulator remembers");
    if (((uintptr_t)p.b | (uintptr_t)p.rows) & (1023 ^ 96))
        emulated::calls().fail("rows for a warpgroup are no atoms of 1024 bytes");
    p.group = f.closed;
    p.warp = f.index / 32;
    f.product[f.products++] = p;
}
template <int N> inline void group_mma(float (&c)[N / 2], const u32 (&a)[4], const u8 *b) {
    emulated_ask({c, a, nullptr, b, N, 0, 0, 0, true, false});
}
template <int N, bool BF16>
inline void group_mma_rows(float (&c)[N / 2], const u8 *a, int i, const u8 *b, int j, bool add) {
    emulated_ask({c, nullptr, a + i, b + j, N, 0, 0, 0, add, BF16});
}
template <int N, bool BF16>
inline void group_mma_columns(float (&c)[N / 2], const u32 (&a)[4], const u8 *b, int j, u32 block) {
    emulated_ask({c, a, nullptr, b + j, N, 0, 0, block, true, BF16});
}
template <int N, bool BF16>
inline void group_mma_columns(float (&c)[N / 2], const u8 *a, int i, const u8 *b, int j, u32 block) {
    emulated_ask({c, nullptr, a + i, b + j, N, 0, 0, block, true, BF16});
}
template <int OPEN> inline void group_mma_wait() {
    emulated::Fiber &f = emulated::self();
    int done = 0;
    for (; done < f.products && f.product[done].group < f.closed - OPEN; done++)
        emulated::calls().meet_warp(emulated::calls().product, &f.product[done]);
    for (int i = done; i < f.products; i++)
        f.product[i - done] = f.product[i];
    f.products -= done;
}
template <int COUNT> inline void group_mma_keep(float (&)[COUNT]) {}
template <int COUNT> inline void warpgroup_registers_fewer() {}
template <int COUNT> inline void warpgroup_registers_more() {}

/* ==== Functions of one number ==== */

template <class A, class B> inline auto min(A a, B b) -> decltype(a + b) {
    return b < a ? b : a;
}
template <class A, class B> inline auto max(A a, B b) -> decltype(a + b) {
    return a < b ? b : a;
}
inline float min(float a, float b) {
    return fminf(a, b);
}
inline float max(float a, float b) {
    return fmaxf(a, b);
}
inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}

inline float exp2_fast(float x) {
    const float y = exp2f(x);
    return y < FLT_MIN ? 0.0f : y;
}
inline void turn_of(double angle, float &cosine, float &sine) {
    const double turns = angle * 0.15915494309189535; /* 1 / 2 pi */
    const float within = (float)((turns - floor(turns)) * 6.283185307179586);
    sine = sinf(within);
    cosine = cosf(within);
}

/* ==== Between blocks of one launch ==== */

inline int counter_raise(int *counter, int by) {
    return emulated::calls().raise(counter, by);
}
inline void counter_tell(int *counter, int by) {
    counter_raise(counter, by);
}
inline int counter_add(int *counter, int by) {
    return counter_raise(counter, by);
}
inline void fetch_line(const void *) {}

inline void counter_pause() {
    emulated::calls().yield(emulated::AT_COUNTER, nullptr, 0);
}
/* Others may run before each read, too, so that a loop without counter_pause() ends. */
inline int counter_read(const int *counter) {
    counter_pause();
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

/* ==== Named barriers ==== */

/* Whether this thread was the last to come. */
inline bool emulated_come(emulated::Meeting &m, int threads) {
    if (m.here == 0)
        m.all = threads;
    if (m.all != threads || threads % 32)
        emulated::calls().fail("a named barrier at which threads expect different numbers of them");
    if (++m.here < threads)
        return false;
    m.here = 0;
    m.generation++;
    return true;
}
inline void warps_meet(int number, int threads) {
    emulated::Meeting &m = emulated::self().block->named[number];
    const u32 generation = m.generation;
    if (!emulated_come(m, threads))
        emulated::calls().yield(emulated::AT_BLOCK, &m, generation);
}
inline void warps_arrive(int number, int threads) {
    emulated_come(emulated::self().block->named[number], threads);
}

/* ==== Barriers in shared memory ==== */

static_assert(sizeof(emulated::Barrier) == sizeof(u64), "lives in the barrier's own word");

inline void barrier_init(u64 *bar, u32 count) {
    *(emulated::Barrier *)bar = {(u16)count, (u16)count, 0, 0};
}
inline void barrier_publish() {}
inline void barrier_arrive(u64 *bar) {
    emulated::Barrier *b = (emulated::Barrier *)bar;
    if (b->pending == 0 || b->pending > b->count || b->count == 0xffff)
        emulated::calls().fail("a barrier that was not initialised, or has too many arrivals");
    b->pending--;
    emulated::end_phase(*b);
}
inline bool barrier_passed(u64 *bar, u32 parity) {
    return ((emulated::Barrier *)bar)->phase != parity;
}
inline void barrier_wait(u64 *bar, u32 parity) {
    if (((emulated::Barrier *)bar)->phase == parity)
        emulated::calls().yield(emulated::AT_BARRIER, bar, parity);
}

/* ==== Copies into shared memory ==== */

inline void store_where(void *to, u32 low, u32 high, bool on) {
    if (on && ((uintptr_t)to & 7))
        emulated::calls().fail("two words are not aligned to 8 bytes");
    if (on)
        *(u64 *)to = (u64)high << 32 | low;
}

inline void barrier_expect(u64 *bar, u32 bytes) {
    ((emulated::Barrier *)bar)->bytes += (int)bytes;
    barrier_arrive(bar);
}
inline void bulk_load(void *to, const u8 *from, u32 bytes, u64 *bar) {
    if (((uintptr_t)to | (uintptr_t)from | bytes) & 15)
        emulated::calls().fail("a chunk is not aligned to 16 bytes");
    emulated::calls().chunk(to, from, bytes, (emulated::Barrier *)bar);
}

inline void chunk_load(void *to, const u8 *from, u32 bytes, u64 *bar, int lane) {
    if (lane == 0) {
        barrier_expect(bar, bytes);
        bulk_load(to, from, bytes, bar);
    }
}

inline void chunk_load_common(void *to, const u8 *from, u32 bytes, u64 *bar, int lane) {
    chunk_load(to, from, bytes, bar, lane);
}

inline void store_where(float *to, float v, bool on) {
    if (on)
        *to = v;
}

/* The calling thread's copies of the groups before `end`. */
inline void emulated_deliver(int end) {
    emulated::Fiber &f = emulated::self();
    int left = 0;
    for (int i = 0; i < f.copies; i++) {
        const emulated::Copy c = f.copy[i];
        if (c.group >= end)
            f.copy[left++] = c;
        else if (c.from)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    }
    f.copies = left;
}
inline void copy16_async(void *to, const void *from, bool inside) {
    emulated::Fiber &f = emulated::self();
    if (((uintptr_t)to | (inside ? (uintptr_t)from : 0)) & 15)
        emulated::calls().fail("a copy is not aligned to 16 bytes");
    if (f.copies == emulated::MAX_COPIES)
        emulated_deliver(f.copy[0].group + 1);
    if (f.copies == emulated::MAX_COPIES)
        emulated::calls().fail("more copies of a thread in one group than the emulator remembers");
    f.copy[f.copies++] = {to, inside ? from : nullptr, f.open};
    emulated::fill_with_garbage(to, 16);
}
inline void copies_close() {
    emulated::self().open++;
}
template <int OPEN> inline void copies_wait() {
    emulated_deliver(emulated::self().open - OPEN);
}
inline void copies_arrive(u64 *bar) {
    emulated_deliver(emulated::self().open + 1);
    barrier_arrive(bar);
}

/* ==== Order of kernels: they run one after another ==== */

inline void previous_kernels_wait() {}
inline void next_kernel_release() {}

/* ==== The clock ==== */

#define LAP_CLOCK
inline u64 clock_nanoseconds() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}
inline void keep_largest(u64 *to, u64 v) {
    u64 old = __atomic_load_n(to, __ATOMIC_RELAXED);
    while (old < v && !__atomic_compare_exchange_n(to, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/* ==== What a module says of its kernels ==== */

#ifdef EMULATED_MODULE
template <int... I> struct EmulatedIndices {};
template <int N, int... I> struct EmulatedCount : EmulatedCount<N - 1, N - 1, I...> {};
template <int... I> struct EmulatedCount<0, I...> { typedef EmulatedIndices<I...> All; };
template <class... A> struct EmulatedArguments {
    static constexpr int count = sizeof...(A);
    static constexpr u32 bytes[sizeof...(A) + 1] = {sizeof(A)..., 0};

    template <int... I> static void call(void (*kernel)(A...), [[maybe_unused]] void **p, EmulatedIndices<I...>) {
        kernel(*(A *)p[I]...);
    }
    static void run(void (*kernel)(A...), void **p) {
        call(kernel, p, typename EmulatedCount<sizeof...(A)>::All());
    }
};
template <class... A> EmulatedArguments<A...> emulated_arguments(void (*)(A...));

struct EmulatedBounds {
    int threads, blocks;
    constexpr EmulatedBounds(int threads = 0, int blocks = 0) : threads(threads), blocks(blocks) {}
};
#else
#include "tests/emulated/scheduler.h"
typedef emulated::Dim3 Dim3;
#endif

#endif
