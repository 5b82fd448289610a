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

/* Leaves the present stack in *from and goes on with `to`, by a jump where it is written: behind a call and a return to
 * somewhere else, processors guess the returns of all lanes wrong, which takes longer than all the rest. The 128 bytes
 * below a stack may be in use. */
__attribute__((always_inline)) inline void switch_to(Context *from, Context to) {
    asm volatile("lea -128(%%rsp), %%rsp\n push %%rbp\n lea 1f(%%rip), %%rax\n push %%rax\n"
                 "mov %%rsp, (%0)\n mov %1, %%rsp\n pop %%rax\n jmp *%%rax\n"
                 "1: pop %%rbp\n lea 128(%%rsp), %%rsp\n"
                 : "+D"(from), "+S"(to)
                 :
                 : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory",
                   "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                   "xmm12", "xmm13", "xmm14", "xmm15");
}
inline void *fresh_context(unsigned char *top) {
    void **p = (void **)((uintptr_t)top & ~(uintptr_t)15) - 2; /* the function, what returns to nowhere */
    p[0] = (void *)fiber_main;
    p[1] = nullptr;
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
