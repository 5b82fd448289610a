/* lab.h - a GPU for tests of kernels, real or emulated: programs on it, memory, times. What fails ends the program. */
#ifndef LAP_TESTS_KERNELS_LAB_H
#define LAP_TESTS_KERNELS_LAB_H

#include "runtime/device/compile.h"
#include "runtime/device/device.h"

/* Ends the program with the message, with 77 where there is no GPU: these are tests, there is nothing to go on with. */
void must(bool ok, const DevError *e);

typedef struct Lab {
    Device *device;
    DevStream *stream;
    Nvrtc *nvrtc;
    DevModule *repack; /* measure.c; NULL until it is needed */
} Lab;

/* Arguments begin with [--driver FILE] [--nvrtc FOLDER], in place of the machine's; the place of the next. */
int lab_open(Lab *l, int argc, char **argv);
void lab_close(Lab *l);
int lab_shared(const Lab *l); /* dynamic shared memory that a block may use */
bool lab_wgmma(const Lab *l); /* PlanTarget.wgmma */

/* Compiles all, on all processors, and loads them; the programs are freed. */
void lab_load(Lab *l, Program *programs, int n, DevModule **out);
const DevKernel *lab_kernel(DevModule *m, const char *name, int64_t shared);
int lab_resident(const DevKernel *k, int threads, int64_t shared); /* blocks on a multiprocessor at once */

/* Device memory, every byte `fill`. */
DevPtr lab_memory(Lab *l, size_t bytes, uint8_t fill);
void lab_in(Lab *l, DevPtr to, const void *from, size_t bytes);
void lab_out(Lab *l, void *to, DevPtr from, size_t bytes); /* after all that was enqueued */
/* Memory with these bytes in it. */
DevPtr lab_upload(Lab *l, const void *from, size_t bytes);

void lab_run(Lab *l, const DevLaunch *launch); /* waits for it */
/* Seconds a launch: best of several replays as a graph. */
double lab_time(Lab *l, const DevLaunch *launches, int n);

#endif
