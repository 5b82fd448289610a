/* emulator.h - runs kernel text on the CPU: one block at a time, every thread a fiber, in place of prelude.cu.
 *
 * A warp's collective operations (mma, shuffles, warp_sync) let a lane go on when all 32 have come; barriers yield
 * until their phase has ended. So indices, fragments and the protocol of barriers are tested as written. What it cannot
 * show: memory ordering, timing, and how a tensor core rounds (here: products and sums of one mma in double).
 */
#ifndef LAP_PRELUDE
#define LAP_PRELUDE

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>

extern "C" {
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
}

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE         inline
#define KERNEL         static void
#define SHARED         static
#define DYNAMIC_SHARED extern
#define CHUNK_ARRIVALS 1
#define __launch_bounds__(...)

struct Dim3 {
    int x, y, z;
};
struct uint2 {
    u32 x, y;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline uint2 make_uint2(u32 x, u32 y) {
    return {x, y};
}
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) {
    return {x, y, z, w};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

/* ==== Threads ==== */

/* What a lane gives to its warp: double-buffered, since a lane is at most one operation ahead. */
struct Offer {
    u32 a[4], b[2];
    u64 value;
};

struct Meeting { /* of a warp or the block */
    int here, generation;
};

struct Fiber {
    ucontext_t context;
    std::vector<u8> stack;
    Dim3 thread;
    bool done;
};

static struct Emulator {
    std::vector<Fiber> fibers;
    std::vector<Meeting> warps;
    std::vector<Offer> offers[2];
    Meeting block;
    int living, current;
    ucontext_t scheduler;
    std::function<void()> body;
} emulator;

static Dim3 blockIdx, gridDim;
#define threadIdx (emulator.fibers[(size_t)emulator.current].thread)

static void yield() {
    swapcontext(&emulator.fibers[(size_t)emulator.current].context, &emulator.scheduler);
}

static void meet(Meeting &m, int all) {
    const int generation = m.generation;
    if (++m.here == all) {
        m.here = 0;
        m.generation++;
    }
    while (m.generation == generation)
        yield();
}

static void fiber_main() {
    emulator.body();
    emulator.fibers[(size_t)emulator.current].done = true;
    yield();
}

/* Runs all threads of one block; false when they wait for each other forever. */
static bool run_block(int threads) {
    Emulator &e = emulator;
    e.fibers.resize((size_t)threads);
    e.warps.assign((size_t)(threads + 31) / 32, Meeting{0, 0});
    e.offers[0].assign((size_t)threads, Offer{});
    e.offers[1].assign((size_t)threads, Offer{});
    e.block = Meeting{0, 0};
    e.living = threads;
    for (int i = 0; i < threads; i++) {
        Fiber &f = e.fibers[(size_t)i];
        f.stack.resize(1 << 16);
        f.thread = Dim3{i, 0, 0};
        f.done = false;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.data();
        f.context.uc_stack.ss_size = f.stack.size();
        f.context.uc_link = nullptr;
        makecontext(&f.context, fiber_main, 0);
    }
    for (long rounds = 0; e.living > 0; rounds++) {
        if (rounds > 200000)
            return false;
        e.living = 0;
        for (e.current = 0; e.current < threads; e.current++)
            if (!e.fibers[(size_t)e.current].done) {
                swapcontext(&e.scheduler, &e.fibers[(size_t)e.current].context);
                e.living += !e.fibers[(size_t)e.current].done;
            }
    }
    return true;
}

static bool run_kernel(int grid_x, int grid_y, int threads, std::function<void()> body) {
    emulator.body = body;
    gridDim = Dim3{grid_x, grid_y, 1};
    for (blockIdx.y = 0; blockIdx.y < grid_y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++)
            if (!run_block(threads))
                return false;
    return true;
}

static inline void __syncthreads() {
    meet(emulator.block, (int)emulator.fibers.size());
}

/* Gives the warp this lane's offer and returns the offers of its 32 lanes. */
static const Offer *exchange(const Offer &mine) {
    const size_t self = (size_t)emulator.current, warp = self / 32;
    std::vector<Offer> &offers = emulator.offers[emulator.warps[warp].generation & 1];
    offers[self] = mine;
    meet(emulator.warps[warp], 32);
    return &offers[warp * 32];
}

static inline void warp_sync() {
    exchange(Offer{});
}

template <class T> static T lane_swap(T v, int mask) {
    Offer mine = {};
    memcpy(&mine.value, &v, sizeof v);
    const int lane = emulator.current % 32;
    T other;
    memcpy(&other, &exchange(mine)[lane ^ mask].value, sizeof other);
    return other;
}

/* ==== Arithmetic ==== */

static inline float f16_value(u16 h) {
    return f16_to_f32(h);
}
static inline u16 f16_round(float f) {
    return f32_to_f16(f);
}
static inline u32 f16_pair(u16 low, u16 high) {
    return (u32)low | (u32)high << 16;
}
static inline float pair_part(u32 v, int i) {
    return f16_to_f32((u16)(v >> 16 * i));
}
/* One f32 rounding in between: exact for the values that kernels make here, which fit 24 bits. */
static inline u32 pair_multiply_add(u32 a, u32 b, u32 c) {
    return f16_pair(f16_round(fmaf(pair_part(a, 0), pair_part(b, 0), pair_part(c, 0))),
                    f16_round(fmaf(pair_part(a, 1), pair_part(b, 1), pair_part(c, 1))));
}
static inline u32 pair_add(u32 a, u32 b) {
    return pair_multiply_add(a, 0x3c003c00u, b);
}
static inline u32 pair_multiply(u32 a, u32 b) {
    return pair_multiply_add(a, b, 0x80008000u);
}
static inline float multiply_add(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline float float_from_bits(u32 bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline u32 bits_from_float(float f) {
    u32 bits;
    memcpy(&bits, &f, 4);
    return bits;
}
static inline u32 pick_bytes(u32 a, u32 b, u32 pick) {
    const u64 both = (u64)b << 32 | a;
    u32 d = 0;
    for (int i = 0; i < 4; i++)
        d |= (u32)(both >> 8 * (pick >> 4 * i & 7) & 0xff) << 8 * i;
    return d;
}

static void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    const Offer *o = exchange(Offer{{a0, a1, a2, a3}, {b0, b1}, 0});
    const int lane = emulator.current % 32, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        const int upper = i / 2, column = 2 * t + i % 2; /* of the result */
        double sum = 0;
        for (int k = 0; k < 16; k++) {
            const Offer &a = o[4 * g + k % 8 / 2], &b = o[4 * column + k % 8 / 2];
            sum += (double)pair_part(a.a[upper + 2 * (k / 8)], k & 1) * pair_part(b.b[k / 8], k & 1);
        }
        c[i] = (float)(c[i] + sum);
    }
}

/* ==== Barriers, copies, order ==== */

struct BarrierState {
    u16 count, pending;
    u32 phase;
};
static_assert(sizeof(BarrierState) == sizeof(u64), "lives in the barrier's own word");

static inline void barrier_init(u64 *bar, u32 count) {
    const BarrierState s = {(u16)count, (u16)count, 0};
    memcpy(bar, &s, sizeof s);
}
static inline void barrier_publish() {}
static inline void barrier_arrive(u64 *bar) {
    BarrierState s;
    memcpy(&s, bar, sizeof s);
    if (--s.pending == 0) {
        s.pending = s.count;
        s.phase++;
    }
    memcpy(bar, &s, sizeof s);
}
static inline void barrier_wait(u64 *bar, u32 parity) {
    for (;; yield()) {
        BarrierState s;
        memcpy(&s, bar, sizeof s);
        if ((s.phase & 1) != parity)
            return;
    }
}
static inline void chunk_load(void *to, const u8 *from, u32 bytes, u64 *bar, int lane) {
    if (((uintptr_t)to | (uintptr_t)from | bytes) & 15) {
        fprintf(stderr, "a chunk is not aligned to 16 bytes\n");
        exit(1);
    }
    if (lane != 0)
        return;
    memcpy(to, from, bytes);
    barrier_arrive(bar);
}
static inline void previous_kernels_wait() {}
static inline void next_kernel_release() {}

#endif
