/* stacks.h - memory of fibers and their stacks, and going from one stack to another. */
#ifndef LAP_EMULATED_STACKS_H
#define LAP_EMULATED_STACKS_H

#include "tests/emulated/fiber.h"

#include <atomic>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulated {

/* ==== Stacks ==== */

/* Memory of a block's fibers and their stacks; kept for other blocks. */
struct Arena {
    unsigned char *base;
    uint32_t guarded; /* stacks with a page below that faults */
    bool guard;

    Fiber &fiber(uint32_t i) const {
        return ((Fiber *)base)[i];
    }
    unsigned char *stack(uint32_t i) const {
        return base + (FIRST_STACK + i) * STACK_BYTES;
    }
};

enum { MAX_ARENAS = 1 << 14, GUARDED_ARENAS = 8 };

struct Arenas {
    std::mutex lock;
    std::vector<Arena *> free;
    std::atomic<uintptr_t> all[MAX_ARENAS]; /* read by the signal handler */
    std::atomic<int> count{0};
};
inline Arenas &arenas() {
    static Arenas *a = new Arenas(); /* never ends: workers outlive main() */
    return *a;
}

inline Arena *take_arena() {
    Arenas &a = arenas();
    std::lock_guard<std::mutex> hold(a.lock);
    if (!a.free.empty()) {
        Arena *arena = a.free.back();
        a.free.pop_back();
        return arena;
    }
    void *got =
        mmap(nullptr, 2 * ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED || a.count == MAX_ARENAS) {
        fprintf(stderr, "emulated GPU: no memory for the stacks of a block\n");
        abort();
    }
    const uintptr_t at = (uintptr_t)got, base = (at + ARENA_BYTES - 1) & ~(uintptr_t)(ARENA_BYTES - 1);
    if (base > at)
        munmap(got, base - at);
    munmap((void *)(base + ARENA_BYTES), at + ARENA_BYTES - base);
    a.all[a.count] = base;
    a.count++;
    return new Arena{(unsigned char *)base, 0, a.count <= GUARDED_ARENAS};
}

inline void give_arena(Arena *arena) {
    Arenas &a = arenas();
    std::lock_guard<std::mutex> hold(a.lock);
    a.free.push_back(arena);
}

/* Stack tops are spread, lest all lanes' hot variables share a set of the caches. */
inline unsigned char *stack_top(const Arena &arena, uint32_t i) {
    return arena.stack(i) + STACK_BYTES - 64 - i * 1088 % 16384 / 64 * 64;
}

/* ==== Switching ==== */

void fiber_main();

#ifdef __x86_64__
typedef void *Context; /* the stack pointer; what a call preserves lies there */

/* Leaves the present stack in *from and goes on with `to`. */
__attribute__((naked, noinline, unused)) static void switch_to([[maybe_unused]] Context *from,
                                                               [[maybe_unused]] Context to) {
    asm("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}
inline void *fresh_context(unsigned char *top) {
    void **p =
        (void **)((uintptr_t)top & ~(uintptr_t)15) - 8; /* six registers, the function, what returns to nowhere */
    memset(p, 0, 8 * sizeof *p);
    p[6] = (void *)fiber_main;
    return p;
}
#else
typedef ucontext_t *Context;

inline void switch_to(Context *from, Context to) {
    ucontext_t here;
    *from = &here;
    swapcontext(&here, to);
}
inline void *fresh_context(unsigned char *top) {
    ucontext_t *c = (ucontext_t *)((uintptr_t)(top - sizeof *c) & ~(uintptr_t)63);
    getcontext(c);
    c->uc_stack.ss_size = STACK_BYTES / 2;
    c->uc_stack.ss_sp = (unsigned char *)c - STACK_BYTES / 2;
    c->uc_link = nullptr;
    makecontext(c, fiber_main, 0);
    return c;
}
#endif

} // namespace emulated

#endif
