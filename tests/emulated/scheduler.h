/* scheduler.h - runs the blocks of a launch: their threads as fibers, blocks beside each other on a few OS threads.
 *
 * A worker (an OS thread) runs a block until all its threads have ended or wait. A block that waits for others is put
 * aside with what its shared memory holds, and the worker goes on with the next; so all blocks that a GPU would have
 * resident make progress, however few processors there are. Shared memory is thread-local memory of the module that
 * the kernel is in: poisoned when a block starts, saved and restored when blocks take turns.
 *
 * A launch fails, with a text, when no thread of any block can go on, when a thread touches memory that is not there,
 * or when kernel text calls fail().
 */
#ifndef LAP_EMULATED_SCHEDULER_H
#define LAP_EMULATED_SCHEDULER_H

#include "tests/emulated/block.h"

#include <condition_variable>
#include <functional>
#include <link.h>
#include <sched.h>
#include <signal.h>
#include <thread>
#include <ucontext.h>

namespace emulated {

/* ==== Shared memory ==== */

struct FoundModule {
    uintptr_t code;
    unsigned char *memory; /* nullptr when the thread has not touched it */
    size_t bytes;
};

/* The thread-local memory, of the calling OS thread, of the module that `code` lies in. */
inline int find_module(dl_phdr_info *info, size_t, void *user) {
    FoundModule &m = *(FoundModule *)user;
    bool here = false;
    size_t bytes = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &p = info->dlpi_phdr[i];
        here |= p.p_type == PT_LOAD && m.code - (info->dlpi_addr + p.p_vaddr) < p.p_memsz;
        bytes = p.p_type == PT_TLS ? p.p_memsz : bytes;
    }
    if (here) {
        m.memory = (unsigned char *)info->dlpi_tls_data;
        m.bytes = bytes;
    }
    return here;
}

struct SharedMemory {
    std::vector<Region> regions;
    unsigned char *fence = nullptr; /* behind the dynamic part */
    RunningBlock *owner = nullptr;  /* whose bytes it holds */

    explicit SharedMemory(const Launch &l) {
        if (l.anchor)
            l.anchor(); /* now it is there */
        unsigned char *dynamic = l.dynamic_shared ? l.dynamic_shared() : nullptr;
        FoundModule m = {(uintptr_t)l.code, nullptr, 0};
        dl_iterate_phdr(find_module, &m);
        if (!dynamic) {
            regions.push_back({m.memory, m.bytes});
            return;
        }
        fence = dynamic + l.dynamic_bytes;
        unsigned char *after = dynamic + SHARED_MOST + FENCE_BYTES;
        regions.push_back({m.memory, (size_t)(dynamic - m.memory)});
        regions.push_back({dynamic, l.dynamic_bytes});
        regions.push_back({after, (size_t)(m.memory + m.bytes - after)});
    }

    void give_to(RunningBlock *b, bool fresh) {
        if (owner == b)
            return;
        if (owner) {
            owner->saved.clear();
            for (const Region &r : regions)
                owner->saved.insert(owner->saved.end(), r.at, r.at + r.bytes);
        }
        owner = b;
        size_t at = 0;
        for (const Region &r : regions) {
            if (fresh)
                fill_with_garbage(r.at, r.bytes);
            else
                memcpy(r.at, b->saved.data() + at, r.bytes);
            at += r.bytes;
        }
        if (fence)
            fill_with_garbage(fence, FENCE_BYTES);
    }

    bool fence_stands() const {
        unsigned char garbage[FENCE_BYTES];
        fill_with_garbage(garbage, FENCE_BYTES);
        return !fence || memcmp(garbage, fence, FENCE_BYTES) == 0;
    }
};

/* ==== A worker's blocks ==== */

enum { MAX_WORKERS = 16, IDLE_PASSES = 3000 };

struct Idle { /* per launch: at which progress a worker found that none of its blocks can go on */
    std::atomic<uint64_t> since[MAX_WORKERS];
    int workers;
};
enum : uint64_t { BUSY = UINT64_MAX, GONE = UINT64_MAX - 1 };

inline const char *wait_name(Wait w) {
    static const char *const names[] = {
        "ready", "at an operation of their warp", "at block_sync", "at a barrier", "at a counter", "ended"};
    return names[w];
}

/* "no thread can go on; of 8 blocks the device runs 4 at once; in this one wait: 63 at block_sync, 1 at a counter" */
inline void tell_deadlock(const RunningBlock &b) {
    const Launch &l = *b.launch;
    int n[ENDED + 1] = {};
    for (uint32_t i = 0; i < b.count; i++)
        n[b.arena->fiber(i).wait]++;
    char where[80], what[300] = "no thread can go on; ";
    snprintf(where, sizeof where, "block (%u, %u, %u)", b.index.x, b.index.y, b.index.z);
    if (l.blocks() > l.resident)
        snprintf(what + strlen(what), sizeof what - strlen(what), "of %lld blocks the device runs %lld at once; ",
                 (long long)l.blocks(), (long long)l.resident);
    const char *before = "in this block wait: ";
    for (uint32_t w = READY; w <= ENDED; w++)
        if (n[w]) {
            const size_t used = strlen(what);
            snprintf(what + used, sizeof what - used, "%s%d %s", before, n[w], wait_name((Wait)w));
            before = ", ";
        }
    report(*b.launch, Failure::DEADLOCK, where, what);
}

class Shift { /* of one worker, on one launch */
  public:
    Shift(Launch &launch, Idle &all, int number) : l(launch), idle(all), worker(number), shared(launch) {}

    void run() {
        while (l.failure == Failure::NONE && (start_next() || !waiting.empty()))
            if (!started && !run_waiting())
                rest();
        for (RunningBlock *b : waiting)
            end(b);
        idle.since[worker] = GONE;
    }

  private:
    Launch &l;
    Idle &idle;
    const int worker;
    SharedMemory shared;
    std::vector<RunningBlock *> waiting;
    bool started = false;
    int passes = 0; /* idle ones, at the same progress */

    void end(RunningBlock *b) {
        if (shared.owner == b)
            shared.owner = nullptr;
        give_arena(b->arena);
        delete b;
        l.living--;
        l.progress++;
    }

    bool run_one(RunningBlock *b, bool fresh) {
        shared.give_to(b, fresh);
        const bool moved = run_block(*b);
        if (!shared.fence_stands())
            report(l, Failure::FAILED, "a block", "writes behind its dynamic shared memory");
        return moved;
    }

    /* Runs one more block if there is one and a GPU would have room; true while there may be more. */
    bool start_next() {
        started = false;
        if (l.next >= l.blocks())
            return false;
        if (++l.living > l.resident) {
            l.living--;
            return true;
        }
        const int64_t number = l.next++;
        if (number >= l.blocks()) {
            l.living--;
            return false;
        }
        started = true;
        idle.since[worker] = BUSY;
        RunningBlock *b = new RunningBlock();
        prepare(*b, l, number);
        run_one(b, true);
        if (b->living)
            waiting.push_back(b);
        else
            end(b);
        return true;
    }

    /* One round over the blocks that wait; whether one got further. */
    bool run_waiting() {
        const uint64_t before = l.progress;
        bool moved = false;
        for (size_t i = 0; i < waiting.size() && l.failure == Failure::NONE;) {
            RunningBlock *b = waiting[i];
            moved |= run_one(b, false);
            if (b->living) {
                i++;
                continue;
            }
            waiting.erase(waiting.begin() + (long)i);
            end(b);
        }
        const bool same = idle.since[worker] == before;
        passes = moved ? 0 : same ? passes + 1 : 0;
        idle.since[worker] = moved ? (uint64_t)BUSY : before;
        return moved;
    }

    /* Nothing can be done now. If that is so for all workers it will stay so. */
    void rest() {
        const uint64_t progress = l.progress;
        bool all = passes > IDLE_PASSES && !waiting.empty();
        for (int w = 0; w < idle.workers; w++)
            all &= idle.since[w] == progress || idle.since[w] == GONE;
        if (all)
            tell_deadlock(*waiting[0]);
        sched_yield();
    }
};

/* ==== Memory that is not there ==== */

inline struct sigaction previous_action[65];

#ifdef __x86_64__
[[noreturn]] inline void fault_landing() {
    const RunningBlock &b = running();
    const uintptr_t stack = (uintptr_t)b.arena->stack(self().index);
    char what[200], near[100] = "";
    if (b.fault - stack < STACK_BYTES)
        fail_here(Failure::ADDRESS, "its stack is full");
    if (b.launch->describe)
        b.launch->describe(b.fault, near, sizeof near);
    snprintf(what, sizeof what, "address %#llx is not there%s", (unsigned long long)b.fault, near);
    fail_here(Failure::ADDRESS, what);
}
#endif

inline void on_fault(int number, siginfo_t *info, void *context) {
#ifdef __x86_64__
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uintptr_t at = (uintptr_t)registers[REG_RSP], base = at & ~(uintptr_t)(ARENA_BYTES - 1);
    for (int i = 0; i < arenas().count; i++)
        if (arenas().all[i] == base) { /* the fiber goes on in fault_landing(), on what was its stack */
            const uintptr_t stack = at & ~(uintptr_t)(STACK_BYTES - 1);
            const Fiber &f = ((const Fiber *)base)[(stack - base) / STACK_BYTES - FIRST_STACK];
            ((RunningBlock *)f.block)->fault = (uintptr_t)info->si_addr;
            registers[REG_RSP] = (greg_t)(stack + STACK_BYTES - 64 - 8);
            registers[REG_RIP] = (greg_t)fault_landing;
            return;
        }
#endif
    const struct sigaction &old = previous_action[number];
    if (old.sa_flags & SA_SIGINFO)
        old.sa_sigaction(number, info, context);
    else
        sigaction(number, &old, nullptr); /* happens again, and ends the process */
}

/* While a launch runs; others have handlers of their own. */
struct CatchFaults {
    static constexpr int numbers[] = {SIGSEGV, SIGBUS, SIGFPE};

    CatchFaults() {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int number : numbers)
            sigaction(number, &action, &previous_action[number]);
    }
    ~CatchFaults() {
        for (int number : numbers)
            sigaction(number, &previous_action[number], nullptr);
    }
};

/* ==== Workers ==== */

class Workers {
  public:
    Workers() {
        const int n = (int)std::thread::hardware_concurrency();
        count = n < 1 ? 1 : n < MAX_WORKERS ? n : (int)MAX_WORKERS;
        for (int i = 0; i < count; i++)
            std::thread([this, i] { work(i); }).detach();
    }

    void run(Launch &l) {
        std::unique_lock<std::mutex> hold(lock);
        launch = &l;
        idle.workers = wanted = busy = (int)(l.blocks() < count ? l.blocks() : count);
        for (auto &since : idle.since)
            since = BUSY;
        serial++;
        changed.notify_all();
        done.wait(hold, [this] { return busy == 0; });
    }

  private:
    std::mutex lock;
    std::condition_variable changed, done;
    Launch *launch = nullptr;
    Idle idle;
    int count, wanted = 0, busy = 0;
    uint64_t serial = 0;

    void work(int worker) {
        stack_t stack = {};
        stack.ss_size = 64 << 10;
        stack.ss_sp = malloc(stack.ss_size);
        sigaltstack(&stack, nullptr);
        std::unique_lock<std::mutex> hold(lock);
        for (uint64_t seen = 0;;) {
            changed.wait(hold, [&] { return serial != seen; });
            seen = serial;
            if (worker >= wanted)
                continue;
            hold.unlock();
            Shift(*launch, idle, worker).run();
            hold.lock();
            if (--busy == 0)
                done.notify_one();
        }
    }
};

/* Runs all blocks; false: l.failure and l.text say why not. One launch at a time. */
inline bool run_launch(Launch &l) {
    static std::mutex one;
    static Workers *workers = new Workers(); /* never ends: its threads are detached */
    std::lock_guard<std::mutex> hold(one);
    const CatchFaults caught;
    workers->run(l);
    return l.failure == Failure::NONE;
}

} // namespace emulated

/* ==== For test programs that hold the kernel text themselves ==== */

inline bool run_kernel(emulated::Dim3 grid, int threads, std::function<void()> body) {
    emulated::Launch l;
    l.grid = grid;
    l.threads = {(uint32_t)threads, 1, 1};
    l.run = [](void *user) { (*(const std::function<void()> *)user)(); };
    l.user = &body;
    l.code = (const void *)emulated::fiber_main;
    return emulated::run_launch(l);
}

inline bool run_kernel(int grid_x, int grid_y, int threads, std::function<void()> body) {
    return run_kernel(emulated::Dim3{(uint32_t)grid_x, (uint32_t)grid_y, 1}, threads, body);
}

#endif
