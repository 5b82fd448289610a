/* measure.h - the GPU side of the kernel tests: a device, compiled kernels, weights on it, times. */
#ifndef LAP_TESTS_KERNELS_MEASURE_H
#define LAP_TESTS_KERNELS_MEASURE_H

#include "runtime/device/compile.h"
#include "runtime/device/device.h"
#include "tests/kernels/shape.h"

/* Ends the program with the message: these are tests, there is nothing to go on with. */
void must(bool ok, const DevError *e);

typedef struct Lab {
    Device *device;
    DevStream *stream;
    Nvrtc *nvrtc;
    DevModule *repack;
} Lab;

/* Exits with 77 without a GPU or NVRTC. */
void lab_open(Lab *l);
void lab_close(Lab *l);
int lab_shared(const Lab *l); /* dynamic shared memory that a block may use */

/* A shape with its two kernels. */
typedef struct Built {
    Shape shape;
    DevModule *modules[2];
    const DevKernel *matmul, *input;
} Built;

/* Compiles all, on all processors. */
void lab_build(Lab *l, const Shape *shapes, int n, Built *out);

/* Device memory, every byte `fill`. */
DevPtr lab_memory(Lab *l, size_t bytes, uint8_t fill);
/* Rows in the file's form (host memory) to tiles at `to`. */
void lab_repack(Lab *l, DType t, const uint8_t *rows, int n_rows, int k, DevPtr to);

/* Addresses of a launch. */
typedef struct Operands {
    DevPtr weights[MAX_SEGMENTS], x, records, planes, live;
} Operands;

/* x -> records -> planes. */
void lab_multiply(Lab *l, const Built *b, const Operands *o);
/* Prints the table of rates. */
void lab_rates(Lab *l);

#endif
