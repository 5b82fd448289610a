/* records.h - x records (codegen/kernels/matmul_rows.cu) as row programs and attention make them for decode matmuls:
 * each with a scale of its own 256 columns. */
#ifndef LAP_TESTS_KERNELS_RECORDS_H
#define LAP_TESTS_KERNELS_RECORDS_H

#include <stddef.h>
#include <stdint.h>

/* Of `tiles` tiles of 8 rows. */
size_t records_bytes(int64_t k, int tiles);
/* The first `live` rows of x f32 [live][k]; malloc. Of other rows every byte is 0xff. */
uint8_t *records_make(const float *x, int64_t k, int live, int tiles);
/* Row `row` as f32 [k]. */
void records_read(const uint8_t *records, int64_t k, int row, int tiles, float *to);

#endif
