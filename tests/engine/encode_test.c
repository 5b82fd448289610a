/* encode_test.c - encode_row() in every storage type: what comes back of normal values, of zeros, and of values far
 * from each other in one row. */
#include "tests/engine/encode.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
// after the standard headers
#include <cmocka.h>

enum { N = 256 * 64 };

/* Relative RMS error that normal values may have: a tenth or two above what the format can do. */
static const float most[DT_COUNT] = {
    [DT_F32] = 0,         [DT_F16] = 3e-4f,   [DT_BF16] = 3e-3f,  [DT_Q8_0] = 0.007f,
    [DT_Q6_K] = 0.02f,    [DT_Q5_0] = 0.055f, [DT_Q5_1] = 0.045f, [DT_Q5_K] = 0.05f,
    [DT_Q4_0] = 0.1f,     [DT_Q4_1] = 0.09f,  [DT_Q4_K] = 0.08f,  [DT_IQ4_NL] = 0.09f,
    [DT_IQ4_XS] = 0.095f, [DT_MXFP4] = 0.14f, [DT_Q3_K] = 0.2f,   [DT_Q2_K] = 0.36f,
};

/* Sums of twelve uniform numbers. */
static void normal(float *x, int n, float size) {
    uint64_t state = 7;
    for (int i = 0; i < n; i++) {
        float sum = -6;
        for (int k = 0; k < 12; k++)
            sum += (float)((state = state * 6364136223846793005u + 1442695040888963407u) >> 40) * 0x1p-24f;
        x[i] = sum * size;
    }
}

static float error_of(DType t, const float *x) {
    static uint8_t stored[N * 4];
    static float back[N];
    double error = 0, size = 0;
    memset(stored, 0xa5, sizeof stored);
    encode_row(t, x, stored, N);
    dequant_row(t, stored, back, N);
    for (int i = 0; i < N; i++) {
        error += ((double)back[i] - x[i]) * ((double)back[i] - x[i]);
        size += (double)x[i] * x[i];
    }
    return (float)sqrt(size > 0 ? error / size : error);
}

static void normal_values(void **state) {
    static float x[N];
    (void)state;
    for (float size = 1e-3f; size < 20; size *= 100) {
        normal(x, N, size);
        for (int t = 0; t < DT_COUNT; t++) {
            if (!dtype_info((DType)t)->tile_form)
                continue;
            const float error = error_of((DType)t, x);
            if (size < 2e-3f)
                print_message("%-7s %.4f\n", dtype_name((DType)t), (double)error);
            if (!(error <= most[t]))
                fail_msg("%s of values of size %g: %g, at most %g", dtype_name((DType)t), (double)size, (double)error,
                         (double)most[t]);
        }
    }
}

static void zeros(void **state) {
    static const float x[N];
    (void)state;
    for (int t = 0; t < DT_COUNT; t++)
        if (dtype_info((DType)t)->tile_form && error_of((DType)t, x) != 0)
            fail_msg("zeros in %s are none", dtype_name((DType)t));
}

/* A block of large values beside one of small ones, and one of a single value. */
static void uneven_values(void **state) {
    static float x[N];
    (void)state;
    normal(x, N, 0.1f);
    for (int i = 0; i < 32; i++) {
        x[i] *= 30;
        x[32 + i] = i == 5 ? -1 : 0;
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (dtype_info((DType)t)->tile_form && !(error_of((DType)t, x) < 0.4f))
            fail_msg("%s: %g", dtype_name((DType)t), (double)error_of((DType)t, x));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normal_values),
        cmocka_unit_test(zeros),
        cmocka_unit_test(uneven_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
