/* block.h - one block of a launch: what its threads call, and running them until all have ended or wait.
 *
 * A warp's lanes run one after another until each has come to an operation of the warp; the last to come does it for
 * all. Chunks that were asked for arrive when no thread can go on without one.
 */
#ifndef LAP_EMULATED_BLOCK_H
#define LAP_EMULATED_BLOCK_H

#include "tests/emulated/stacks.h"

namespace emulated {

enum class Failure { NONE, DEADLOCK, ADDRESS, FAILED };

struct Launch {
    const char *name = "of the test program";
    Dim3 grid = {1, 1, 1}, threads = {1, 1, 1};
    void (*run)(void *user) = nullptr; /* one thread */
    void *user = nullptr;
    const void *code = nullptr; /* an address in the module whose thread-local memory is shared memory */
    void *(*anchor)() = nullptr;
    unsigned char *(*dynamic_shared)() = nullptr; /* nullptr: not told apart from the module's other memory */
    size_t dynamic_bytes = 0;
    int64_t resident = INT64_MAX; /* most blocks at once */
    /* Says what lies near an address that is not there; nullptr: nobody knows. */
    void (*describe)(uintptr_t address, char *text, size_t bytes) = nullptr;

    /* Results. */
    std::atomic<Failure> failure{Failure::NONE};
    char text[500] = "";

    /* Progress, of all workers. */
    std::atomic<int64_t> next{0}, living{0};
    std::atomic<uint64_t> progress{0};
    std::mutex lock; /* guards text */

    int64_t blocks() const {
        return (int64_t)grid.x * grid.y * grid.z;
    }
};

/* ==== Blocks ==== */

struct Chunk {
    void *to;
    const void *from;
    size_t bytes;
    Barrier *barrier;
};

struct Region {
    unsigned char *at;
    size_t bytes;
};

struct RunningBlock : Block {
    Launch *launch;
    Arena *arena;
    Context scheduler;
    std::vector<Warp> warps;
    Meeting meeting;
    uint32_t count, living;
    bool backwards;
    uintptr_t fault;                  /* the address that was not there */
    std::vector<Chunk> chunks;        /* not arrived yet */
    std::vector<unsigned char> saved; /* shared memory while other blocks run */
};

inline RunningBlock &running() {
    return *(RunningBlock *)self().block;
}

inline void yield(Wait wait, const void *what, uint32_t until) {
    Fiber &f = self();
    f.wait = wait;
    f.what = what;
    f.until = until;
    switch_to((Context *)&f.stack, running().scheduler);
}

inline bool may_run(const Fiber &f) {
    switch (f.wait) {
    case READY:
    case AT_COUNTER: return true;
    case AT_WARP:
    case AT_BLOCK: return ((const Meeting *)f.what)->generation != f.until;
    case AT_BARRIER: return ((const Barrier *)f.what)->phase != f.until;
    case ENDED: break;
    }
    return false;
}

/* The launch has failed: its first failure is kept, and told at once. */
inline void report(Launch &l, Failure kind, const char *where, const char *what) {
    std::lock_guard<std::mutex> hold(l.lock);
    if (l.failure != Failure::NONE)
        return;
    snprintf(l.text, sizeof l.text, "kernel %s, %s: %s", l.name, where, what);
    fprintf(stderr, "emulated GPU: %s\n", l.text);
    l.failure = kind;
}

[[noreturn]] inline void fail_here(Failure kind, const char *what) {
    const RunningBlock &b = running();
    const Dim3 t = self().thread;
    char where[120];
    snprintf(where, sizeof where, "block (%u, %u, %u), thread (%u, %u, %u)", b.index.x, b.index.y, b.index.z, t.x, t.y,
             t.z);
    report(*b.launch, kind, where, what);
    for (;;)
        yield(ENDED, nullptr, 0);
}
[[noreturn]] inline void fail(const char *what) {
    fail_here(Failure::FAILED, what);
}

/* ==== What kernel text calls ==== */

inline void meet_warp(Operation *operation, void *offer) {
    Fiber &f = self();
    Meeting &m = f.warp->meeting;
    if (m.here == 0)
        m.operation = operation;
    else if (m.operation != operation)
        fail("lanes of one warp are at different operations");
    f.warp->offers[f.index % 32] = offer;
    if (++m.here < 32) {
        yield(AT_WARP, &m, m.generation);
        return;
    }
    operation(f.warp->offers);
    m.here = 0;
    m.generation++;
}

/* All threads that have not ended. */
inline void meet_block() {
    RunningBlock &b = running();
    Meeting &m = b.meeting;
    if (++m.here < (int)b.living) {
        yield(AT_BLOCK, &m, m.generation);
        return;
    }
    m.here = 0;
    m.generation++;
}

inline void fiber_main() {
    RunningBlock &b = running();
    b.launch->run(b.launch->user);
    b.living--;
    if (b.meeting.here > 0 && b.meeting.here == (int)b.living) {
        b.meeting.here = 0;
        b.meeting.generation++;
    }
    for (;;)
        yield(ENDED, nullptr, 0);
}

inline void chunk(void *to, const void *from, size_t bytes, Barrier *barrier) {
    running().chunks.push_back({to, from, bytes, barrier});
    fill_with_garbage(to, bytes);
}

inline int raise(int *counter, int by) {
    running().launch->progress++;
    return __atomic_fetch_add(counter, by, __ATOMIC_ACQ_REL);
}

/* Without branches and copies of bytes, so that loops over them become vectors. */
struct F16 {
    static float value(uint16_t h) {
        const uint32_t rest = h & 0x7fffu, none = -(uint32_t)(rest >= 0x7c00u); /* no number, or none that is finite */
        const float scaled = __builtin_bit_cast(float, rest << 13) * 0x1p112f;
        return __builtin_bit_cast(float,
                                  __builtin_bit_cast(uint32_t, scaled) | (none & 0x7f800000u) | (h & 0x8000u) << 16);
    }
};
struct BF16 {
    static float value(uint16_t h) {
        return __builtin_bit_cast(float, (uint32_t)h << 16);
    }
};

/* A third of the time of whole models is spent in products, so there are versions of them for newer machines: which
 * ones is measured. No bit depends on it: products of 16 bits are exact in double, so that a fused sum is the same, and
 * sums keep their order. */
#ifdef __x86_64__
#define ALSO_FOR(machine) __attribute__((target_clones(machine, "default")))
#else
#define ALSO_FOR(machine)
#endif

/* c += a b of a whole warp: exact products, summed in double, rounded once. */
template <class T> __attribute__((always_inline)) inline void multiply(void *const *offers) {
    uint16_t half_a[16 * 16], half_b[16 * 8];
    double a[16 * 16], b[16 * 8];
    for (int lane = 0; lane < 32; lane++) {
        const MmaOffer &o = *(const MmaOffer *)offers[lane];
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            memcpy(&half_a[(g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8], &o.a[i], 4);
        for (int i = 0; i < 4; i++)
            half_b[(2 * t + i % 2 + i / 2 * 8) * 8 + g] = (uint16_t)(o.b[i / 2] >> i % 2 * 16);
    }
    for (int i = 0; i < 256; i++)
        a[i] = T::value(half_a[i]);
    for (int i = 0; i < 128; i++)
        b[i] = T::value(half_b[i]);
    for (int row = 0; row < 16; row++) {
        double sum[8] = {};
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                sum[column] += a[row * 16 + k] * b[k * 8 + column];
        for (int column = 0; column < 8; column++) {
            float &c = ((const MmaOffer *)offers[row % 8 * 4 + column / 2])->c[row / 8 * 2 + column % 2];
            c = (float)(c + sum[column]);
        }
    }
}

/* Element (row, k) of atoms of 8 rows x 64 elements: at a multiple of 1024 bytes, but for the step of k. */
inline uint16_t atom_element(const unsigned char *atoms, int row, int k) {
    const uintptr_t at = (uintptr_t)atoms + (uintptr_t)(row / 8 * 1024 + row % 8 * 128 + k * 2);
    uint16_t half;
    memcpy(&half, (const void *)(at ^ (at >> 7 & 7) << 4), 2);
    return half;
}

/* The 16 rows of one warp by N columns of b; exact products, summed in double, rounded once. */
template <class T> __attribute__((always_inline)) inline void multiply_group_of(void *const *offers) {
    const Product &first = *(const Product *)offers[0];
    const int warp = (int)(first.warp % 4); /* of its group */
    double a[16][16];                       /* [k][row] */
    for (int lane = 0; lane < 32; lane++) {
        const Product &p = *(const Product *)offers[lane];
        for (int i = 0; i < 8; i++) {
            const int k = lane % 4 * 2 + i % 2 + i / 4 * 8, row = lane / 4 + i / 2 % 2 * 8;
            a[k][row] =
                T::value(p.rows ? atom_element(p.rows, 16 * warp + row, k) : (uint16_t)(p.a[i / 2] >> i % 2 * 16));
        }
    }
    for (int n = 0; n < first.n; n++) {
        double sum[16] = {};
        for (int k = 0; k < 16; k++) {
            const double b = T::value(first.block ? atom_element(first.b + (size_t)(n / 64) * first.block, k, n % 64)
                                                  : atom_element(first.b, n, k));
            for (int row = 0; row < 16; row++)
                sum[row] += a[k][row] * b;
        }
        for (int row = 0; row < 16; row++) {
            float &c = ((const Product *)offers[row % 8 * 4 + n % 8 / 2])->c[n / 8 * 4 + row / 8 * 2 + n % 2];
            c = (float)((first.add ? c : 0.0f) + sum[row]);
        }
    }
}

ALSO_FOR("avx512f") inline void multiply_f16(void *const *offers) {
    multiply<F16>(offers);
}
ALSO_FOR("avx512f") inline void multiply_bf16(void *const *offers) {
    multiply<BF16>(offers);
}
ALSO_FOR("avx2") inline void multiply_group(void *const *offers) {
    if (((const Product *)offers[0])->bf16)
        multiply_group_of<BF16>(offers);
    else
        multiply_group_of<F16>(offers);
}

inline const Calls table = {yield,        meet_warp,     meet_block,     chunk, raise,
                            multiply_f16, multiply_bf16, multiply_group, fail};

/* ==== One block ==== */

inline void prepare(RunningBlock &b, Launch &l, int64_t number) {
    b.calls = &table;
    b.launch = &l;
    b.grid = l.grid;
    b.threads = l.threads;
    b.index = {(uint32_t)(number % l.grid.x), (uint32_t)(number / l.grid.x % l.grid.y),
               (uint32_t)(number / l.grid.x / l.grid.y)};
    b.count = b.living = l.threads.x * l.threads.y * l.threads.z;
    b.backwards = number % 2;
    for (Meeting &m : b.named)
        m = {};
    b.meeting = {};
    b.warps.assign((b.count + 31) / 32, Warp{});
    b.chunks.clear();
    b.arena = take_arena();
    for (; b.arena->guard && b.arena->guarded < b.count; b.arena->guarded++)
        mprotect(b.arena->stack(b.arena->guarded), 4096, PROT_NONE);
    for (uint32_t i = 0; i < b.count; i++) {
        Fiber &f = b.arena->fiber(i);
        f.stack = fresh_context(stack_top(*b.arena, i));
        f.block = &b;
        f.warp = &b.warps[i / 32];
        f.thread = {i % l.threads.x, i / l.threads.x % l.threads.y, i / l.threads.x / l.threads.y};
        f.index = i;
        f.wait = READY;
        f.open = f.copies = f.closed = f.products = 0;
    }
}

/* Lets each lane of a warp that may go on do so; whether one got further. */
inline bool run_warp(RunningBlock &b, uint32_t first) {
    const uint32_t end = first + 32 < b.count ? first + 32 : b.count;
    bool moved = false;
    for (uint32_t i = first; i < end; i++) {
        Fiber &f = b.arena->fiber(b.backwards ? first + end - 1 - i : i);
        if (!may_run(f))
            continue;
        const bool waited = f.wait == AT_COUNTER;
        switch_to(&b.scheduler, (Context)f.stack);
        if (b.launch->failure != Failure::NONE)
            return false;
        moved |= !waited || f.wait != AT_COUNTER;
    }
    return moved;
}

/* One that was asked for arrives, in an order that differs from block to block. */
inline bool deliver(RunningBlock &b) {
    if (b.chunks.empty())
        return false;
    const auto which = b.backwards ? b.chunks.end() - 1 : b.chunks.begin();
    const Chunk c = *which;
    b.chunks.erase(which);
    memcpy(c.to, c.from, c.bytes);
    c.barrier->bytes -= (int)c.bytes;
    end_phase(*c.barrier);
    return true;
}

/* Until all threads have ended or wait for other blocks; whether one got further. */
inline bool run_block(RunningBlock &b) {
    const uint32_t warps = (uint32_t)b.warps.size();
    bool any = false;
    for (bool moved = true; moved && b.launch->failure == Failure::NONE;) {
        moved = false;
        for (uint32_t w = 0; w < warps; w++)
            while (run_warp(b, 32 * (b.backwards ? warps - 1 - w : w)))
                moved = true;
        if (!moved && b.living)
            moved = deliver(b);
        any |= moved;
    }
    return any;
}

} // namespace emulated

#endif
