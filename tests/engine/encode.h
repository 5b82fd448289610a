/* encode.h - rows of f32 in any storage type, for tests that want a model in all of them.
 *
 * Types that files are written in have their encoder (ir/quantise.c). The others are here, simple: scales from the
 * extremes of a block, each value to the nearest code; an encoder that searches would leave a tenth less.
 */
#ifndef LAP_TESTS_ENGINE_ENCODE_H
#define LAP_TESTS_ENGINE_ENCODE_H

#include "ir/dtype.h"

/* n values, whole blocks. */
void encode_row(DType t, const float *src, void *dst, int64_t n);

#endif
