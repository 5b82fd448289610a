/* lab.c - see lab.h. */
#include "tests/kernels/lab.h"
#include "codegen/plan.h"

#include "tests/kernels/program.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void must(bool ok, const DevError *e) {
    if (ok)
        return;
    printf("FAILED: %s\n", e->text);
    exit(e->kind == DEV_ABSENT ? 77 : 1);
}

int lab_open(Lab *l, int argc, char **argv) {
    const char *driver = NULL, *nvrtc = NULL;
    int i = 1;
    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        driver = strcmp(argv[i], "--driver") ? driver : argv[i + 1];
        nvrtc = strcmp(argv[i], "--nvrtc") ? nvrtc : argv[i + 1];
    }
    DevError e = {0};
    must((l->device = dev_open(&(DevOptions){.driver = driver}, &e)) != NULL, &e);
    must((l->stream = dev_stream_new(l->device, &e)) != NULL, &e);
    must((l->nvrtc = nvrtc_open(nvrtc, &e)) != NULL, &e);
    return i;
}

void lab_close(Lab *l) {
    if (l->repack)
        dev_module_free(l->repack);
    nvrtc_close(l->nvrtc);
    dev_stream_free(l->stream);
    dev_close(l->device);
}

int lab_shared(const Lab *l) {
    return (int)dev_info(l->device)->shared_per_block - 2048; /* barriers are static: whole KiB on an emulated device */
}

bool lab_wgmma(const Lab *l) {
    PlanTarget target;
    return plan_target(dev_info(l->device)->arch, &target) && target.wgmma;
}

void lab_load(Lab *l, Program *programs, int n, DevModule **out) {
    DevError e = {0};
    Compiled *compiled = calloc((size_t)n + 1, sizeof *compiled);
    must(compile_programs(l->nvrtc, dev_info(l->device)->arch, programs, n, &(CompileOptions){0}, compiled, &e), &e);
    for (int i = 0; i < n; i++) {
        out[i] = dev_module_load(l->device, compiled[i].cubin, compiled[i].bytes, programs[i].name, &e);
        must(out[i] != NULL, &e);
        compiled_free(&compiled[i]);
        program_free(&programs[i]);
    }
    free(compiled);
}

const DevKernel *lab_kernel(DevModule *m, const char *name, int64_t shared) {
    DevError e = {0};
    const DevKernel *k = dev_kernel(m, name, (size_t)shared, &e);
    must(k != NULL, &e);
    return k;
}

int lab_resident(const DevKernel *k, int threads, int64_t shared) {
    DevError e = {0};
    int blocks = 0;
    must(dev_kernel_blocks(k, threads, (size_t)shared, &blocks, &e), &e);
    return blocks;
}

/* ==== Memory ==== */

DevPtr lab_memory(Lab *l, size_t bytes, uint8_t fill) {
    DevError e = {0};
    DevPtr p = 0;
    must(dev_alloc(l->device, bytes, "the test", NULL, &p, &e) && dev_fill(l->stream, p, fill, bytes, &e), &e);
    return p;
}

void lab_in(Lab *l, DevPtr to, const void *from, size_t bytes) {
    DevError e = {0};
    must(bytes == 0 || (dev_copy_in(l->stream, to, from, bytes, &e) && dev_stream_wait(l->stream, &e)), &e);
}

void lab_out(Lab *l, void *to, DevPtr from, size_t bytes) {
    DevError e = {0};
    must(dev_copy_out(l->stream, to, from, bytes, &e) && dev_stream_wait(l->stream, &e), &e);
}

DevPtr lab_upload(Lab *l, const void *from, size_t bytes) {
    const DevPtr to = lab_memory(l, bytes, 0xff);
    lab_in(l, to, from, bytes);
    return to;
}

/* ==== Launches ==== */

void lab_run(Lab *l, const DevLaunch *launch) {
    DevError e = {0};
    must(dev_launch(l->stream, launch, &e) && dev_stream_wait(l->stream, &e), &e);
}

double lab_time(Lab *l, const DevLaunch *launches, int n) {
    DevError e = {0};
    DevGraph *g = dev_graph_new(l->stream, launches, n, "rates", &e);
    must(g != NULL, &e);
    DevEvent *from = dev_event_new(l->device, true, &e), *to = dev_event_new(l->device, true, &e);
    must(from && to, &e);
    double best = 1e9;
    for (int i = 0; i < 8; i++) { /* the first is not counted */
        double seconds = 0;
        must(dev_event_record(from, l->stream, &e) && dev_graph_launch(g, l->stream, &e) &&
                 dev_event_record(to, l->stream, &e) && dev_event_wait(to, &e) &&
                 dev_event_seconds(from, to, &seconds, &e),
             &e);
        best = i > 0 && seconds < best ? seconds : best;
    }
    dev_event_free(from);
    dev_event_free(to);
    dev_graph_free(g);
    return best / n;
}
