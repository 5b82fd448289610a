/* kernels.cpp - the emulated driver's modules, functions, launches and graphs. */
#include "runtime/device/cuda_types_int.h"
#include "tests/emulated/driver.h"

#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

enum {
    REGISTERS = 64, /* of a thread, for want of a better number */
    MULTIPROCESSOR_REGISTERS = 64 << 10,
    MULTIPROCESSOR_THREADS = 2048,
    MULTIPROCESSOR_BLOCKS = 32,
    BLOCK_RESERVED = 1 << 10, /* shared memory that the system takes of each block */
    DYNAMIC_AT_FIRST = 48 << 10,
};

struct CUgraph_st {
    std::vector<Work> work;
};
struct CUgraphExec_st {
    std::vector<Work> work;
};

/* ==== Modules ==== */

/* Bytes of a file that is in memory: its tables and sections. */
static size_t elf_bytes(const void *image) {
    Elf64_Ehdr header;
    memcpy(&header, image, sizeof header);
    size_t end = header.e_shoff + (size_t)header.e_shnum * header.e_shentsize;
    for (int i = 0; i < header.e_shnum; i++) {
        Elf64_Shdr section;
        memcpy(&section, (const char *)image + header.e_shoff + (size_t)i * header.e_shentsize, sizeof section);
        if (section.sh_type != SHT_NOBITS && section.sh_offset + section.sh_size > end)
            end = section.sh_offset + section.sh_size;
    }
    return end;
}

/* Through a file of its own, since the linker takes two of one name for the same. */
static void *open_image(const void *image) {
    char path[] = "/tmp/emulated-module-XXXXXX";
    const int fd = mkstemp(path);
    if (fd < 0)
        return nullptr;
    const size_t bytes = elf_bytes(image);
    const bool written = write(fd, image, bytes) == (ssize_t)bytes;
    close(fd);
    void *library = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!library)
        fprintf(stderr, "emulated GPU: %s\n", written ? dlerror() : path);
    unlink(path);
    return library;
}

CUresult emu_cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned int, CUjit_option *, void **) {
    HOLD;
    Elf64_Ehdr header;
    memcpy(&header, image, EI_NIDENT);
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64)
        return CUDA_ERROR_INVALID_IMAGE;
    void *library = open_image(image);
    const auto *module = library ? (const emulated::Module *)dlsym(library, "emulated_module") : nullptr;
    if (!module || module->abi != emulated::ABI) {
        if (library)
            dlclose(library);
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    emulated::FoundModule found = {(uintptr_t)module, nullptr, 0};
    dl_iterate_phdr(emulated::find_module, &found);
    const size_t dynamic = module->dynamic_shared ? emulated::SHARED_MOST + emulated::FENCE_BYTES : 0;
    CUmodule m = *out = new CUmod_st{library, module, (int)(found.bytes - dynamic), {}};
    for (int i = 0; i < module->kernels; i++)
        m->functions.push_back({m, &module->kernel[i], DYNAMIC_AT_FIRST - m->static_shared});
    return driver.sticky;
}
CUresult emu_cuModuleUnload(CUmodule module) {
    HOLD;
    drain_all();
    dlclose(module->library);
    delete module;
    return driver.sticky;
}
CUresult emu_cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    HOLD;
    for (CUfunc_st &f : module->functions)
        if (strcmp(f.kernel->name, name) == 0) {
            *function = &f;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

static int max_threads(CUfunction f) {
    return f->kernel->max_threads ? f->kernel->max_threads : (int)emulated::MAX_THREADS;
}
CUresult emu_cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction f) {
    HOLD;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = max_threads(f); break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = f->module->static_shared; break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *value = 0; break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = REGISTERS; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = f->dynamic_most; break;
    default: *value = 0; return INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
CUresult emu_cuFuncSetAttribute(CUfunction f, CUfunction_attribute attribute, int value) {
    HOLD;
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        if (value < 0 || value > (int)emulated::SHARED_MOST - f->module->static_shared)
            return INVALID_VALUE;
        f->dynamic_most = value;
    }
    return CUDA_SUCCESS;
}
CUresult emu_cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction f, int threads, size_t shared) {
    HOLD;
    if (threads < 1 || threads > max_threads(f)) {
        *blocks = 0;
        return threads < 1 ? INVALID_VALUE : CUDA_SUCCESS;
    }
    const int of_shared = MULTIPROCESSOR_SHARED / (int)(shared + (size_t)f->module->static_shared + BLOCK_RESERVED);
    const int by_registers = MULTIPROCESSOR_REGISTERS / (REGISTERS * threads);
    const int of_registers = by_registers > f->kernel->min_blocks ? by_registers : f->kernel->min_blocks;
    *blocks = MULTIPROCESSOR_BLOCKS;
    for (int limit : {of_shared, of_registers, MULTIPROCESSOR_THREADS / threads})
        *blocks = limit < *blocks ? limit : *blocks;
    return CUDA_SUCCESS;
}

/* ==== Launches ==== */

/* With its own copies of the arguments. */
struct Call {
    const emulated::Kernel *kernel;
    emulated::Dim3 grid, threads;
    size_t shared;
    int64_t resident;
    const emulated::Module *module;
    std::vector<std::vector<long double>> values; /* aligned for every type */
    std::vector<void *> arguments;
};

/* ", 16 bytes behind an allocation of 4096 bytes" */
static void describe(uintptr_t address, char *text, size_t bytes) {
    auto it = driver.device_memory.upper_bound(address);
    if (it == driver.device_memory.begin())
        return;
    --it;
    snprintf(text, bytes, ", %zu bytes behind an allocation of %zu bytes", address - it->first - it->second.bytes,
             it->second.bytes);
}

static CUresult run_call(Call &c) {
    emulated::Launch l;
    l.name = c.kernel->name;
    l.grid = c.grid;
    l.threads = c.threads;
    l.run = [](void *user) { ((Call *)user)->kernel->run(((Call *)user)->arguments.data()); };
    l.user = &c;
    l.code = c.module;
    l.anchor = c.module->anchor;
    l.dynamic_shared = c.module->dynamic_shared;
    l.dynamic_bytes = c.shared;
    l.resident = c.resident;
    l.describe = describe;
    if (emulated::run_launch(l))
        return CUDA_SUCCESS;
    return l.failure == emulated::Failure::ADDRESS    ? CUDA_ERROR_ILLEGAL_ADDRESS
           : l.failure == emulated::Failure::DEADLOCK ? CUDA_ERROR_LAUNCH_TIMEOUT
                                                      : CUDA_ERROR_LAUNCH_FAILED;
}

/* Checks what a driver checks; *resident is how many of its blocks may run at once. */
static CUresult check_launch(const CUlaunchConfig *c, CUfunction f, int64_t *resident) {
    const uint64_t threads = (uint64_t)c->block_x * c->block_y * c->block_z;
    if (!c->grid_x || !c->grid_y || !c->grid_z || !threads || threads > emulated::MAX_THREADS || c->grid_y > 65535 ||
        c->grid_z > 65535 || (int64_t)c->shared_bytes > f->dynamic_most)
        return INVALID_VALUE;
    int blocks = 0;
    emu_cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f, (int)threads, c->shared_bytes);
    if (blocks == 0)
        return LAUNCH_OUT_OF_RESOURCES;
    *resident = (int64_t)blocks * MULTIPROCESSORS;
    for (unsigned int i = 0; i < c->n_attributes; i++)
        if (c->attributes[i].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE && c->attributes[i].value.number &&
            (int64_t)c->grid_x * c->grid_y * c->grid_z > *resident)
            return COOPERATIVE_LAUNCH_TOO_LARGE;
    return CUDA_SUCCESS;
}

CUresult emu_cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **arguments, void **extra) {
    HOLD;
    int64_t resident = 0;
    const CUresult r = extra ? INVALID_VALUE : check_launch(c, f, &resident);
    if (r)
        return r;
    const emulated::Kernel *k = f->kernel;
    const auto call = std::make_shared<Call>(Call{k,
                                                  {c->grid_x, c->grid_y, c->grid_z},
                                                  {c->block_x, c->block_y, c->block_z},
                                                  c->shared_bytes,
                                                  resident,
                                                  f->module->module,
                                                  {},
                                                  {}});
    for (int i = 0; i < k->arguments; i++) {
        call->values.emplace_back((k->argument_bytes[i] + sizeof(long double) - 1) / sizeof(long double));
        memcpy(call->values.back().data(), arguments[i], k->argument_bytes[i]);
        call->arguments.push_back(call->values.back().data());
    }
    return push(c->stream, [=] { return run_call(*call); });
}

/* ==== Graphs ==== */

CUresult emu_cuStreamBeginCapture(CUstream s, CUstreamCaptureMode) {
    HOLD;
    if (s->capture)
        return INVALID_VALUE;
    s->capture = std::make_shared<Capture>(Capture{s, std::this_thread::get_id(), {}});
    return driver.sticky;
}
CUresult emu_cuStreamEndCapture(CUstream s, CUgraph *graph) {
    HOLD;
    const std::shared_ptr<Capture> c = s->capture;
    if (!c || c->origin != s)
        return CAPTURE_UNMATCHED;
    for (CUstream other : driver.streams)
        if (other->capture == c)
            other->capture.reset();
    *graph = new CUgraph_st{c->work};
    return CUDA_SUCCESS;
}

CUresult emu_cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long) {
    HOLD;
    *exec = new CUgraphExec_st{graph->work};
    return CUDA_SUCCESS;
}
CUresult emu_cuGraphUpload(CUgraphExec, CUstream) {
    HOLD;
    return driver.sticky;
}
CUresult emu_cuGraphLaunch(CUgraphExec exec, CUstream s) {
    HOLD;
    for (const Work &w : exec->work)
        if (push(s, w))
            break;
    return driver.sticky;
}
CUresult emu_cuGraphDestroy(CUgraph graph) {
    HOLD;
    delete graph;
    return CUDA_SUCCESS;
}
CUresult emu_cuGraphExecDestroy(CUgraphExec exec) {
    HOLD;
    delete exec;
    return CUDA_SUCCESS;
}
