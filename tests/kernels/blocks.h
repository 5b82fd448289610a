/* blocks.h - random weights in the formats of GGUF files, and the product that kernels are measured by. */
#ifndef LAP_TESTS_KERNELS_BLOCKS_H
#define LAP_TESTS_KERNELS_BLOCKS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#include "ir/dtype.h"

/* splitmix64 */
uint64_t random_next(uint64_t *state);
float random_normal(uint64_t *state);

/* n elements (a multiple of the block) of a row: random codes, scales such that weights are about 0.02..1. */
void random_row(DType t, uint8_t *row, int64_t n, uint64_t *state);
/* Inputs about N(0, 1), one in a hundred 20 times as large. */
void random_input(float *x, int64_t n, uint64_t *state);

#ifdef __cplusplus
}
#endif
#endif
