/* fiber.h - what kernel text and the scheduler of an emulated GPU share: a thread of a block is a fiber.
 *
 * A fiber finds itself by its stack pointer: the stacks of a block lie in one aligned arena, whose first bytes are the
 * fibers. So kernel text needs no state of its own, and a module that was compiled apart (libnvrtc.cpp) calls the
 * scheduler through a table. Both sides are built from this file; ABI tells builds of it apart.
 */
#ifndef LAP_EMULATED_FIBER_H
#define LAP_EMULATED_FIBER_H

#include <stddef.h>
#include <stdint.h>

namespace emulated {

enum : uint32_t { ABI = 3 };
enum : size_t {
    MAX_THREADS = 1024,
    STACK_BYTES = 64 << 10,
    FIRST_STACK = 80, /* stacks' worth of bytes for the fibers */
    ARENA_BYTES = 128 << 20,
    MAX_COPIES = 64, /* of a fiber, under way */
    MAX_PRODUCTS = 40,
    /* Dynamic shared memory of a block, and what lies behind it to find out who writes there. */
    SHARED_MOST = 227 << 10,
    FENCE_BYTES = 1024,
};

struct Dim3 {
    uint32_t x, y, z;
};

/* Made by the last lane of a warp to come, from what each lane has offered: it writes the lanes' results, too. */
typedef void Operation(void *const *offers);

struct Meeting { /* of a warp's lanes or a block's threads */
    uint32_t generation;
    int here, all;
    Operation *operation; /* of a warp: what those that are here have come for */
};

struct Warp {
    Meeting meeting;
    void *offers[32];
};

enum Wait : uint32_t { READY, AT_WARP, AT_BLOCK, AT_BARRIER, AT_COUNTER, ENDED };

/* An mbarrier: lives in the barrier's own word. */
struct Barrier {
    uint16_t count, pending;
    uint32_t phase : 1; /* parity of the one that has not ended */
    int32_t bytes : 31; /* of copies, that are awaited */
};

inline void end_phase(Barrier &b) {
    if (b.pending == 0 && b.bytes == 0) {
        b.pending = b.count;
        b.phase ^= 1;
    }
}

struct Copy {
    void *to;
    const void *from; /* nullptr: zeros */
    int group;
};

/* A product of a warpgroup (group_mma.cu) that is under way, as one lane has asked for it. */
struct Product {
    float *c;                  /* [n / 2] */
    const uint32_t *a;         /* [4], read when the product is made; or */
    const unsigned char *rows; /* in shared memory */
    const unsigned char *b;
    int n, group;
    uint32_t warp;  /* in the block */
    uint32_t block; /* of 64 columns of b, in bytes; 0: b is in rows of n */
    bool add, bf16;
};

struct Block;

struct alignas(64) Fiber {
    void *stack; /* where it was left */
    Block *block;
    Warp *warp;
    Dim3 thread;
    uint32_t index; /* in the block */
    Wait wait;
    uint32_t until;   /* of a meeting: the generation that has to end; of a barrier: the phase's parity */
    const void *what; /* Meeting or Barrier */
    int open, copies; /* groups closed so far; copies under way */
    Copy copy[MAX_COPIES];
    int closed, products; /* groups of products closed so far; products under way */
    Product product[MAX_PRODUCTS];
};
static_assert(sizeof(Fiber) * MAX_THREADS <= FIRST_STACK * STACK_BYTES, "the fibers lie before the stacks");
static_assert((FIRST_STACK + MAX_THREADS) * STACK_BYTES <= ARENA_BYTES, "an arena holds a block");

/* What the scheduler does for kernel text; all but `fail` for the fiber that calls. */
struct Calls {
    void (*yield)(Wait wait, const void *what, uint32_t until);
    void (*meet_warp)(Operation *operation, void *offer);
    void (*meet_block)();
    void (*chunk)(void *to, const void *from, size_t bytes, Barrier *barrier);
    int (*raise)(int *counter, int by);
    Operation *mma_f16, *mma_bf16;  /* of MmaOffer */
    Operation *product;             /* of Product */
    void (*fail)(const char *what); /* ends the launch and does not return */
};

struct MmaOffer {
    float *c;
    uint32_t a[4], b[2];
};

struct Block { /* the part that kernel text sees */
    const Calls *calls;
    Dim3 index, grid, threads;
    Meeting named[16]; /* named barriers */
};

__attribute__((always_inline)) inline Fiber &self() {
    const uintptr_t at = (uintptr_t)__builtin_frame_address(0), arena = at & ~(uintptr_t)(ARENA_BYTES - 1);
    return ((Fiber *)arena)[(at - arena) / STACK_BYTES - FIRST_STACK];
}

inline const Calls &calls() {
    return *self().block->calls;
}

/* What no kernel has written: NaN in f32, f16 and bf16, and large numbers, which a maximum does not skip. */
inline void fill_with_garbage(void *to, size_t bytes) {
    static const unsigned char garbage[8] = {0xff, 0xff, 0xff, 0xff, 0x7e, 0x7e, 0x7e, 0x7e};
    unsigned char *p = (unsigned char *)to;
    for (; bytes >= sizeof garbage; bytes -= sizeof garbage, p += sizeof garbage)
        __builtin_memcpy(p, garbage, sizeof garbage);
    __builtin_memcpy(p, garbage, bytes);
}

/* ==== What a module says of its kernels (libnvrtc.cpp writes it, libcuda.cpp reads it) ==== */

struct Kernel {
    const char *name;
    void (*run)(void **arguments); /* one thread */
    int arguments;
    const uint32_t *argument_bytes;
    int max_threads, min_blocks; /* of __launch_bounds__; 0: not said */
};

struct Module {
    uint32_t abi;
    int kernels;
    const Kernel *kernel;
    unsigned char *(*dynamic_shared)(); /* the calling OS thread's, SHARED_MOST + FENCE_BYTES; nullptr: none is used */
    void *(*anchor)();                  /* some thread-local variable of the module's, the calling OS thread's */
};

} // namespace emulated

#endif
