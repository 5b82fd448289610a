/* kernel.c - cubins become modules, kernels, launches. */
#include "runtime/device/device_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024.0

struct DevKernel {
    DevKernel *next; /* of the same module */
    DevModule *module;
    CUfunction handle;
    DevKernelInfo info;
    char name[]; /* info.name */
};

struct DevModule {
    Device *d;
    CUmodule handle;
    DevKernel *kernels;
    char label[];
};

/* A cubin that the device does not take: for another chip, or made by a newer compiler than the driver knows. */
static bool load_failed(Device *d, CUresult r, const char *label, DevError *e) {
    if (r != CUDA_ERROR_INVALID_IMAGE && r != CUDA_ERROR_NO_BINARY_FOR_GPU && r != CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
        return dev_check(d, r, e, "kernels of %s cannot be loaded", label);
    return dev_fail(
        e, DEV_OTHER,
        "GPU %d (%s) does not take the compiled kernels of %s: they are for another architecture than %s, or "
        "for a newer driver than this one (CUDA %d.%d).\n"
        "Update the driver, or use an NVRTC that is not newer than it.",
        d->info.ordinal, d->info.name, label, d->info.arch, d->info.driver_cuda / 1000,
        d->info.driver_cuda % 1000 / 10);
}

DevModule *dev_module_load(Device *d, const void *cubin, size_t bytes, const char *label, DevError *e) {
    static const char elf[4] = {0x7f, 'E', 'L', 'F'};
    if (bytes < sizeof elf || memcmp(cubin, elf, sizeof elf) != 0) {
        dev_fail(e, DEV_OTHER, "kernels of %s: this is no cubin", label);
        return NULL;
    }
    if (!dev_enter(d, e))
        return NULL;
    size_t n = strlen(label);
    DevModule *m = calloc(1, sizeof *m + n + 1);
    if (!m) {
        dev_fail(e, DEV_MEMORY, "out of memory");
        return NULL;
    }
    m->d = d;
    memcpy(m->label, label, n);
    CUresult r = d->api.cuModuleLoadDataEx(&m->handle, cubin, 0, NULL, NULL);
    if (r == CUDA_SUCCESS)
        return m;
    load_failed(d, r, label, e);
    free(m);
    return NULL;
}

void dev_module_free(DevModule *m) {
    if (!m)
        return;
    for (DevKernel *k = m->kernels, *next; k; k = next) {
        next = k->next;
        free(k);
    }
    if (dev_enter(m->d, NULL))
        m->d->api.cuModuleUnload(m->handle);
    free(m);
}

/* ==== Kernels ==== */

static int function_attribute(const DevKernel *k, CUfunction_attribute which) {
    int value = 0;
    k->module->d->api.cuFuncGetAttribute(&value, which, k->handle);
    return value;
}

static bool allow_shared(DevKernel *k, size_t bytes, DevError *e) {
    Device *d = k->module->d;
    if (bytes <= (size_t)k->info.dynamic_shared)
        return true;
    int64_t most = d->info.shared_per_block - k->info.static_shared;
    if ((int64_t)bytes > most)
        return dev_fail(e, DEV_OTHER, "kernel %s needs %.1f KiB of shared memory a block; GPU %d (%s) has %.1f KiB",
                        k->name, (double)(bytes + (size_t)k->info.static_shared) / KIB, d->info.ordinal, d->info.name,
                        (double)d->info.shared_per_block / KIB);
    k->info.dynamic_shared = (int)bytes;
    return dev_check(d,
                     d->api.cuFuncSetAttribute(k->handle, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)bytes),
                     e, "kernel %s cannot have %zu bytes of shared memory", k->name, bytes);
}

static DevKernel *new_kernel(DevModule *m, const char *name, DevError *e) {
    CUfunction handle;
    CUresult r = m->d->api.cuModuleGetFunction(&handle, m->handle, name);
    if (r == CUDA_ERROR_NOT_FOUND)
        dev_fail(e, DEV_OTHER, "there is no kernel %s in %s (is it extern \"C\"?)", name, m->label);
    else
        dev_check(m->d, r, e, "kernel %s of %s cannot be loaded", name, m->label);
    if (r != CUDA_SUCCESS)
        return NULL;
    size_t n = strlen(name);
    DevKernel *k = calloc(1, sizeof *k + n + 1);
    if (!k) {
        dev_fail(e, DEV_MEMORY, "out of memory");
        return NULL;
    }
    memcpy(k->name, name, n);
    k->module = m;
    k->handle = handle;
    k->info = (DevKernelInfo){
        .name = k->name,
        .registers = function_attribute(k, CU_FUNC_ATTRIBUTE_NUM_REGS),
        .local_bytes = function_attribute(k, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES),
        .static_shared = function_attribute(k, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES),
        .dynamic_shared = function_attribute(k, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES),
        .max_threads = function_attribute(k, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
    };
    k->next = m->kernels;
    m->kernels = k;
    return k;
}

DevKernel *dev_kernel(DevModule *m, const char *name, size_t dynamic_shared, DevError *e) {
    if (!dev_enter(m->d, e))
        return NULL;
    DevKernel *k = m->kernels;
    while (k && strcmp(k->name, name) != 0)
        k = k->next;
    if (!k)
        k = new_kernel(m, name, e);
    return k && allow_shared(k, dynamic_shared, e) ? k : NULL;
}

const DevKernelInfo *dev_kernel_info(const DevKernel *k) {
    return &k->info;
}

bool dev_kernel_blocks(const DevKernel *k, int threads, size_t dynamic_shared, int *blocks, DevError *e) {
    Device *d = k->module->d;
    return dev_enter(d, e) &&
           dev_check(d, d->api.cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, k->handle, threads, dynamic_shared),
                     e, "occupancy of kernel %s", k->name);
}

/* ==== Launches ==== */

static unsigned int at_least_one(uint32_t n) {
    return n ? n : 1;
}

/* Fills up to three attributes; returns how many. */
static unsigned int launch_attributes(const DevLaunch *l, bool pdl, CUlaunchAttribute *a) {
    unsigned int n = 0;
    if (pdl) {
        a[n] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION};
        a[n++].value.number = 1;
    }
    if (l->cooperative) {
        a[n] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE};
        a[n++].value.number = 1;
    }
    if (l->cluster[0]) {
        a[n] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION};
        a[n].value.cluster.x = l->cluster[0];
        a[n].value.cluster.y = at_least_one(l->cluster[1]);
        a[n++].value.cluster.z = at_least_one(l->cluster[2]);
    }
    return n;
}

bool dev_launch(DevStream *s, const DevLaunch *l, DevError *e) {
    Device *d = s->d;
    const DevKernel *k = l->kernel;
    CUlaunchAttribute attributes[3];
    CUlaunchConfig config = {
        .grid_x = l->grid[0],
        .grid_y = at_least_one(l->grid[1]),
        .grid_z = at_least_one(l->grid[2]),
        .block_x = l->block[0],
        .block_y = at_least_one(l->block[1]),
        .block_z = at_least_one(l->block[2]),
        .shared_bytes = l->shared_bytes,
        .stream = s->handle,
        .attributes = attributes,
        .n_attributes = launch_attributes(l, l->pdl && d->info.pdl, attributes),
    };
    if (!dev_enter(d, e))
        return false;
    CUresult r = d->api.cuLaunchKernelEx(&config, k->handle, l->arguments, NULL);
    if (!stream_check(s, r, e, "launch of kernel %s, grid %u x %u x %u, block %u x %u x %u, %u bytes of shared memory",
                      k->name, config.grid_x, config.grid_y, config.grid_z, config.block_x, config.block_y,
                      config.block_z, config.shared_bytes))
        return false;
    stream_launched(s, k->name);
    return !d->check_launches || s->capturing || dev_stream_wait(s, e);
}
