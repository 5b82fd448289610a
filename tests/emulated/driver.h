/* driver.h - what the files of the emulated driver share: its objects, and the queues of its streams. Included behind
 * runtime/device/cuda_types_int.h, the binary interface that it is the other side of. */
#ifndef LAP_EMULATED_DRIVER_H
#define LAP_EMULATED_DRIVER_H

#include "tests/emulated/scheduler.h"

#include <deque>
#include <map>
#include <memory>

/* Every entry point is emu_NAME; cuGetProcAddress_v2 hands them out. */
#define CU(name, version, parameters) CUresult emu_##name parameters;
#include "runtime/device/cuda_api.def"
#undef CU

/* Errors that the program has no name for. */
inline constexpr CUresult INVALID_VALUE = 1, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, LAUNCH_OUT_OF_RESOURCES = 701,
                          COOPERATIVE_LAUNCH_TOO_LARGE = 720, CAPTURE_UNSUPPORTED = 900, CAPTURE_UNMATCHED = 903;

enum { MULTIPROCESSORS = 4, MULTIPROCESSOR_SHARED = 228 << 10 };

typedef std::function<CUresult()> Work;

struct Event { /* what an event stands for, however long the handle lives */
    uint64_t recorded = 0, passed = 0;
    double when = 0;
    CUstream stream = nullptr;
    std::shared_ptr<struct Capture> capture; /* it was last recorded in */
};
struct CUevent_st {
    std::shared_ptr<Event> event = std::make_shared<Event>();
};

struct Capture {
    CUstream origin;
    std::thread::id thread;
    std::vector<Work> work;
};
struct CUstream_st {
    std::deque<Work> queue;
    std::shared_ptr<Capture> capture;
};

struct CUfunc_st {
    CUmodule module;
    const emulated::Kernel *kernel;
    int dynamic_most;
};
struct CUmod_st {
    void *library;
    const emulated::Module *module;
    int static_shared;
    std::vector<CUfunc_st> functions;
};

struct Allocation {
    size_t bytes;
    void *mapped;
    size_t mapped_bytes;
};

struct Driver {
    std::recursive_mutex lock; /* all calls take turns */
    std::map<uintptr_t, Allocation> device_memory;
    std::map<uintptr_t, size_t> host_memory; /* page-locked */
    std::vector<CUstream> streams;
    size_t used = 0;
    int retained = 0;               /* contexts */
    CUresult sticky = CUDA_SUCCESS; /* the failure of a kernel: everything fails with it */
};
inline Driver &driver = *new Driver(); /* outlives what calls at the program's end */

#define HOLD const std::lock_guard<std::recursive_mutex> hold(driver.lock)

/* Behind what is enqueued; while the stream captures, into the graph. */
inline CUresult push(CUstream s, Work w) {
    if (driver.sticky)
        return driver.sticky;
    if (s->capture)
        s->capture->work.push_back(std::move(w));
    else
        s->queue.push_back(std::move(w));
    return CUDA_SUCCESS;
}

/* Does what is enqueued, until the event has passed for the serial-th time; all of it without one. */
inline CUresult drain(CUstream s, const Event *until, uint64_t serial) {
    while (!s->queue.empty() && !driver.sticky && !(until && until->passed >= serial)) {
        const Work w = s->queue.front();
        s->queue.pop_front();
        const CUresult r = w();
        driver.sticky = driver.sticky ? driver.sticky : r;
    }
    return driver.sticky;
}

inline CUresult drain_all() {
    for (CUstream s : driver.streams)
        drain(s, nullptr, 0);
    return driver.sticky;
}

#endif
