/* test_kv_row.c - rows of K/V caches against formulas of their own: scales, codes, bytes, the rotation as a dense
 * matrix in double, blocks that no scale fits, and how far the types are off on normal values.
 */
#include "ir/kv.h"
#include "tests/eval/lab.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 32, GROUP = 128, MOST = 8 * GROUP };

/* ==== The definitions, again ==== */

/* Signs as the numbers of the elements that change theirs. */
static const int negative_1[] = {0,  3,  4,  6,   8,   9,   17,  19,  21,  22,  26,  29,  30,  31,  32,
                                 35, 38, 40, 43,  44,  46,  51,  52,  53,  54,  55,  57,  62,  64,  65,
                                 67, 68, 69, 71,  72,  73,  75,  76,  77,  81,  82,  86,  87,  90,  93,
                                 95, 96, 99, 101, 103, 108, 110, 113, 116, 117, 118, 119, 120, 123, 126};
static const int negative_2[] = {4,   7,   9,   10,  11,  13,  14,  15,  18,  19,  21,  23,  25,  26,  28,  34, 35, 36,
                                 38,  39,  40,  41,  42,  43,  47,  49,  53,  54,  56,  57,  58,  59,  60,  61, 65, 67,
                                 68,  69,  70,  72,  74,  76,  77,  80,  82,  85,  87,  88,  89,  90,  92,  93, 95, 97,
                                 101, 102, 104, 106, 109, 110, 112, 114, 117, 119, 121, 122, 123, 124, 125, 127};

static double sign_of(const int *list, size_t n, int i) {
    for (size_t k = 0; k < n; k++)
        if (list[k] == i)
            return -1;
    return 1;
}
#define D1(i) sign_of(negative_1, COUNTOF(negative_1), i)
#define D2(i) sign_of(negative_2, COUNTOF(negative_2), i)

/* Row i, column j of D2 H D1 / sqrt(128). */
static double rotation(int i, int j) {
    return D2(i) * (__builtin_popcount((unsigned)(i & j)) % 2 ? -1 : 1) * D1(j) / sqrt(GROUP);
}

static double matrix[GROUP][GROUP];

static const double centroids[] = {-0.190685, -0.117832, -0.065717, -0.021460, 0.021460, 0.065717, 0.117832, 0.190685};
static const double limits[] = {-0.154259, -0.091775, -0.043589, 0, 0.043589, 0.091775, 0.154259};

static uint16_t bits_at(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static int low_or_high(const uint8_t *q, int j) {
    return j < 16 ? q[j] & 15 : q[j - 16] >> 4;
}

/* Code of element j of 128 by the layout: 14 bytes a block, f16, 8 bytes of two bits, 4 bytes of one. */
static int tq3_code(const uint8_t *group, int j) {
    const uint8_t *b = group + 14 * (j / 32);
    j %= 32;
    return (b[2 + j / 4] >> 2 * (j % 4) & 3) | (b[10 + j / 8] >> j % 8 & 1) << 2;
}

/* ==== Inputs ==== */

static void normal(float *x, int n, double size) {
    for (int i = 0; i < n; i++)
        x[i] = (float)(size * sqrt(-2 * log(lab_real(1e-12, 1))) * cos(2 * M_PI * lab_real(0, 1)));
}

enum { NORMAL, SMALL, LARGE, EVEN, OUTLIER, SPARSE, RISING, KINDS };

static void fill(float *x, int n, int kind) {
    static const double sizes[KINDS] = {[NORMAL] = 1, [SMALL] = 3e-3, [LARGE] = 3e3, [OUTLIER] = 1, [SPARSE] = 0};
    normal(x, n, sizes[kind]);
    for (int i = 0; i < n; i++) {
        if (kind == EVEN)
            x[i] = -2.5f;
        if (kind == RISING)
            x[i] = (float)(i % BLOCK) - 15.5f;
    }
    if (kind == OUTLIER || kind == SPARSE)
        for (int i = 0; i < n; i += BLOCK)
            x[i + lab_int(0, BLOCK - 1)] = (float)lab_real(-50, 50);
}

/* ==== Blocks of 32 ==== */

static void q8_0_is_the_nearest_of_255(void **unused) {
    (void)unused;
    for (int round = 0; round < 40 * KINDS; round++) {
        float x[BLOCK], y[BLOCK];
        uint8_t b[34];
        fill(x, BLOCK, round % KINDS);
        kv_encode(DT_Q8_0, x, b, BLOCK);
        kv_decode(DT_Q8_0, b, y, BLOCK);
        float most = 0;
        for (int j = 0; j < BLOCK; j++)
            most = fmaxf(most, fabsf(x[j]));
        assert_int_equal(bits_at(b), f32_to_f16(most / 127));
        const double d = most / 127.0;
        for (int j = 0; j < BLOCK; j++) {
            const int q = (int8_t)b[2 + j];
            assert_true(fabs(q - x[j] / d) <= 0.5001);
            assert_true(y[j] == (float)q * f16_to_f32(bits_at(b)));
        }
    }
}

static void q4_0_has_the_extreme_at_minus_8(void **unused) {
    (void)unused;
    for (int round = 0; round < 40 * KINDS; round++) {
        float x[BLOCK], y[BLOCK];
        uint8_t b[18];
        fill(x, BLOCK, round % KINDS);
        kv_encode(DT_Q4_0, x, b, BLOCK);
        kv_decode(DT_Q4_0, b, y, BLOCK);
        int at = 0;
        for (int j = 0; j < BLOCK; j++)
            at = fabsf(x[j]) > fabsf(x[at]) ? j : at;
        assert_int_equal(bits_at(b), f32_to_f16(x[at] / -8));
        assert_int_equal(low_or_high(b + 2, at), 0);
        const double d = x[at] / -8.0;
        for (int j = 0; j < BLOCK; j++) {
            const int q = low_or_high(b + 2, j);
            const double exact = x[j] / d + 8; /* up to 16, which has no code */
            assert_true(fabs(q - exact) <= (exact > 15.4999 ? 1.0001 : 0.5001));
            assert_true(exact <= 15.5001 || q == 15);
            assert_true(y[j] == (float)(q - 8) * f16_to_f32(bits_at(b)));
        }
    }
}

/* Of two as large the first; halves away from zero. */
static void ties(void **unused) {
    (void)unused;
    float x[BLOCK] = {[3] = 8, [7] = -8, [9] = 127, [20] = 2.5f, [21] = -2.5f, [22] = 0.5f};
    uint8_t b[34];
    kv_encode(DT_Q8_0, x, b, BLOCK);
    assert_int_equal((int8_t)b[2 + 20], 3);
    assert_int_equal((int8_t)b[2 + 21], -3);
    assert_int_equal((int8_t)b[2 + 22], 1);
    x[9] = 0;
    kv_encode(DT_Q4_0, x, b, BLOCK);
    assert_int_equal(bits_at(b), f32_to_f16(-1));
    assert_int_equal(low_or_high(b + 2, 3), 0);
    assert_int_equal(low_or_high(b + 2, 7), 15);
    assert_int_equal(low_or_high(b + 2, 20), 6); /* 2.5 / -1 + 8.5 */
    assert_int_equal(low_or_high(b + 2, 0), 8);
}

/* ==== tq3_0 ==== */

static void rotation_is_the_matrix(void **unused) {
    (void)unused;
    assert_int_equal(COUNTOF(negative_1), 60);
    assert_int_equal(COUNTOF(negative_2), 70);
    for (int round = 0; round < 20; round++) {
        float x[2 * GROUP], y[2 * GROUP], z[2 * GROUP];
        normal(x, 2 * GROUP, 3);
        memcpy(y, x, sizeof x);
        kv_rotate(y, 2 * GROUP);
        memcpy(z, y, sizeof y);
        kv_rotate_back(z, 2 * GROUP);
        for (int i = 0; i < 2 * GROUP; i++) {
            double want = 0;
            for (int j = 0; j < GROUP; j++)
                want += matrix[i % GROUP][j] * x[i / GROUP * GROUP + j];
            assert_true(fabs(y[i] - want) <= 1e-5);
            assert_true(fabs(z[i] - x[i]) <= 1e-5);
        }
    }
}

static void expect_tq3_group(const float *x, const uint8_t *b) {
    double length = 0, y[GROUP], taken = 0;
    for (int j = 0; j < GROUP; j++)
        length += (double)x[j] * x[j];
    length = sqrt(length);
    for (int i = 0; i < GROUP; i++) {
        y[i] = 0;
        for (int j = 0; j < GROUP; j++)
            y[i] += length > 1e-10 ? matrix[i][j] * x[j] / length : 0;
        const int q = tq3_code(b, i);
        assert_true(q == 7 || y[i] < limits[q] + 1e-6);
        assert_true(q == 0 || y[i] > limits[q - 1] - 1e-6);
        taken += centroids[q] * centroids[q];
    }
    for (int k = 0; k < 4; k++)
        assert_int_equal(bits_at(b + 14 * k), bits_at(b));
    const double norm = length / sqrt(taken), stored = f16_to_f32(bits_at(b));
    assert_true(fabs(stored - norm) <= norm * 0x1.01p-11 + 0x1p-25);
    float decoded[GROUP];
    kv_decode(DT_TQ3_0, b, decoded, GROUP);
    double square = 0;
    for (int j = 0; j < GROUP; j++) {
        assert_true(decoded[j] == (float)centroids[tq3_code(b, j)] * (float)stored);
        square += (double)decoded[j] * decoded[j];
    }
    assert_true(fabs(sqrt(square) - length) <= length * 0x1.02p-11 + 1e-6); /* the length stays */
}

static void tq3_0_is_the_nearest_centroid(void **unused) {
    (void)unused;
    for (int round = 0; round < 20 * KINDS; round++) {
        float x[2 * GROUP];
        uint8_t b[2 * 56];
        fill(x, 2 * GROUP, round % KINDS);
        kv_encode(DT_TQ3_0, x, b, 2 * GROUP);
        expect_tq3_group(x, b);
        expect_tq3_group(x + GROUP, b + 56);
    }
}

/* ==== All types ==== */

static const DType types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_TQ3_0};

static void real_basis(DType t, const uint8_t *b, float *y, int n) {
    kv_decode(t, b, y, n);
    if (kv_rotated(t))
        kv_rotate_back(y, n);
}

static void sizes(void **unused) {
    (void)unused;
    static const size_t bytes[] = {512, 256, 256, 136, 72, 56};
    int count = 0;
    for (int t = 0; t < DT_COUNT; t++)
        count += kv_storable((DType)t);
    assert_int_equal(count, COUNTOF(types));
    for (size_t i = 0; i < COUNTOF(types); i++) {
        assert_int_equal(dtype_row_bytes(types[i], GROUP), bytes[i]);
        assert_int_equal(kv_rotated(types[i]), types[i] == DT_TQ3_0);
    }
    assert_int_equal(dtype_from_gguf(42), DT_COUNT); /* some programs write it to files: not a number to trust */
}

/* Relative RMS error on normal values, as far as each type is known to be off. */
static void errors_are_those_of_the_types(void **unused) {
    (void)unused;
    static const double known[] = {0, 0.00021, 0.00166, 0.0053, 0.0861, 0.184};
    for (size_t i = 0; i < COUNTOF(types); i++) {
        double error = 0, size = 0;
        for (int round = 0; round < 64; round++) {
            float x[MOST], y[MOST];
            uint8_t b[MOST * 4];
            normal(x, MOST, 1);
            kv_encode(types[i], x, b, MOST);
            real_basis(types[i], b, y, MOST);
            for (int j = 0; j < MOST; j++) {
                error += pow((double)y[j] - x[j], 2);
                size += (double)x[j] * x[j];
            }
        }
        const double rms = sqrt(error / size);
        if (!(rms <= known[i] * 1.05 && rms >= known[i] * 0.9))
            fail_msg("%s: %.5f, known is %.5f", dtype_name(types[i]), rms, known[i]);
    }
}

/* The bytes of a block hang on nothing beside it, and none beyond them is written. */
static void blocks_are_alone(void **unused) {
    (void)unused;
    for (size_t i = 0; i < COUNTOF(types); i++) {
        const int block = dtype_info(types[i])->block_elems, per = dtype_info(types[i])->block_bytes;
        float x[MOST];
        uint8_t whole[MOST * 4 + 1], part[MOST * 4 + 1];
        normal(x, MOST, 2);
        memset(whole, 0x5a, sizeof whole);
        memset(part, 0xa5, sizeof part);
        kv_encode(types[i], x, whole, MOST);
        for (int k = MOST / block - 1; k >= 0; k--)
            kv_encode(types[i], x + k * block, part + k * per, block);
        assert_memory_equal(whole, part, (size_t)(MOST / block * per));
        assert_int_equal(whole[MOST / block * per], 0x5a);
    }
}

static void zeros_stay_zeros(void **unused) {
    (void)unused;
    static const float tiny[] = {0, -0.0f, 1e-45f, -1e-40f, 1e-20f, 1e-12f};
    for (size_t i = 0; i < COUNTOF(types); i++)
        for (size_t k = 0; k < COUNTOF(tiny); k++) {
            float x[GROUP], y[GROUP];
            uint8_t b[GROUP * 4];
            for (int j = 0; j < GROUP; j++)
                x[j] = tiny[k];
            kv_encode(types[i], x, b, GROUP);
            real_basis(types[i], b, y, GROUP);
            for (int j = 0; j < GROUP; j++)
                assert_true(fabsf(y[j]) <= fabsf(tiny[k]) * 1.01f);
        }
}

/* Beyond the largest scale a block keeps its direction. */
static void scales_saturate(void **unused) {
    (void)unused;
    static const float large[] = {1e7f, 1e15f, 1e25f, 3e38f};
    static const struct {
        DType t;
        double cosine;
    } rows[] = {{DT_Q8_0, 0.9999}, {DT_Q4_0, 0.99}, {DT_TQ3_0, 0.97}};
    for (size_t i = 0; i < COUNTOF(rows); i++)
        for (size_t k = 0; k < COUNTOF(large); k++) {
            float x[GROUP], y[GROUP];
            uint8_t b[GROUP * 4];
            for (int j = 0; j < GROUP; j++)
                x[j] = (float)(large[k] * (j % 3 - 1) * (1 - j / 400.0));
            kv_encode(rows[i].t, x, b, GROUP);
            real_basis(rows[i].t, b, y, GROUP);
            assert_true(fabsf(f16_to_f32(bits_at(b))) == 65504);
            double xx = 0, yy = 0, xy = 0;
            for (int j = 0; j < dtype_info(rows[i].t)->block_elems; j++) {
                assert_true(isfinite(y[j]));
                xx += (double)x[j] * x[j];
                yy += (double)y[j] * y[j];
                xy += (double)x[j] * y[j];
            }
            assert_true(xy / sqrt(xx * yy) > rows[i].cosine);
        }
}

static void no_number_is_never_hidden(void **unused) {
    (void)unused;
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < COUNTOF(types); i++)
        for (size_t k = 0; k < COUNTOF(bad); k++) {
            const int block = dtype_info(types[i])->block_elems, at = (int)lab_int(0, GROUP - 1);
            float x[2 * GROUP], y[2 * GROUP];
            uint8_t b[2 * GROUP * 4];
            normal(x, 2 * GROUP, 1);
            x[at] = bad[k];
            kv_encode(types[i], x, b, 2 * GROUP);
            real_basis(types[i], b, y, 2 * GROUP);
            for (int j = 0; j < 2 * GROUP; j++) {
                const bool same_block = j / block == at / block;
                if (block == 1 && j == at)
                    assert_true(isnan(bad[k]) ? isnan(y[j]) : y[j] == bad[k]);
                else if (same_block)
                    assert_true(isnan(y[j]));
                else
                    assert_true(isfinite(y[j]));
            }
        }
}

int main(int argc, char **argv) {
    lab_seed(argc, argv);
    for (int i = 0; i < GROUP; i++)
        for (int j = 0; j < GROUP; j++)
            matrix[i][j] = rotation(i, j);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q8_0_is_the_nearest_of_255),
        cmocka_unit_test(q4_0_has_the_extreme_at_minus_8),
        cmocka_unit_test(ties),
        cmocka_unit_test(rotation_is_the_matrix),
        cmocka_unit_test(tq3_0_is_the_nearest_centroid),
        cmocka_unit_test(sizes),
        cmocka_unit_test(errors_are_those_of_the_types),
        cmocka_unit_test(blocks_are_alone),
        cmocka_unit_test(zeros_stay_zeros),
        cmocka_unit_test(scales_saturate),
        cmocka_unit_test(no_number_is_never_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
