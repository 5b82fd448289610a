/* test_dequant.c - decoding of every storage type: against values decoded by another program (dequant.golden,
 * bit for bit), and against the formulas written out element by element, at every alignment.
 */
#include "tests/eval/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ==== The formulas, one element at a time, in f64 ==== */

static double half_at(const uint8_t *p) {
    int e = p[1] >> 2 & 31, f = (p[1] & 3) << 8 | p[0];
    double x = e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return p[1] & 0x80 ? -x : x;
}

static int nibble(const uint8_t *q, int e) { /* of a block of 32 */
    return e < 16 ? q[e] & 15 : q[e - 16] >> 4;
}

static int bit(const uint8_t *p, int i) {
    return p[i / 8] >> i % 8 & 1;
}

static int scale6(const uint8_t *s, int j) {
    return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
}

static int min6(const uint8_t *s, int j) {
    return j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
}

static const int iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const double e2m1[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6};

static double f32_at(const uint8_t *b, int e) {
    (void)e;
    float f;
    memcpy(&f, b, sizeof f);
    return f;
}

static double f16_at(const uint8_t *b, int e) {
    (void)e;
    return half_at(b);
}

static double bf16_at(const uint8_t *b, int e) {
    (void)e;
    uint8_t wide[4] = {0, 0, b[0], b[1]};
    return f32_at(wide, 0);
}

static double q4_0_at(const uint8_t *b, int e) {
    return half_at(b) * (nibble(b + 2, e) - 8);
}

static double q4_1_at(const uint8_t *b, int e) {
    return half_at(b) * nibble(b + 4, e) + half_at(b + 2);
}

static double q5_0_at(const uint8_t *b, int e) {
    return half_at(b) * (nibble(b + 6, e) + 16 * bit(b + 2, e) - 16);
}

static double q5_1_at(const uint8_t *b, int e) {
    return half_at(b) * (nibble(b + 8, e) + 16 * bit(b + 4, e)) + half_at(b + 2);
}

static double q8_0_at(const uint8_t *b, int e) {
    return half_at(b) * (b[2 + e] < 128 ? b[2 + e] : b[2 + e] - 256);
}

static double q2_k_at(const uint8_t *b, int e) {
    int h = e / 128, g = e / 32 % 4, l = e % 32, s = b[e / 16];
    int q = b[16 + 32 * h + l] >> 2 * g & 3;
    return half_at(b + 80) * (s & 15) * q - half_at(b + 82) * (s >> 4);
}

static double q3_k_at(const uint8_t *b, int e) {
    const uint8_t *s = b + 96;
    int h = e / 128, g = e / 32 % 4, l = e % 32, k = e / 16;
    int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4, high = s[8 + k % 4] >> 2 * (k / 4) & 3;
    int q = (b[32 + 32 * h + l] >> 2 * g & 3) - (b[l] >> (4 * h + g) & 1 ? 0 : 4);
    return half_at(b + 108) * ((low | high << 4) - 32) * q;
}

static double q4_k_at(const uint8_t *b, int e) {
    int j = e / 32, q = b[16 + 32 * (j / 2) + e % 32];
    q = j % 2 ? q >> 4 : q & 15;
    return half_at(b) * scale6(b + 4, j) * q - half_at(b + 2) * min6(b + 4, j);
}

static double q5_k_at(const uint8_t *b, int e) {
    int j = e / 32, q = b[48 + 32 * (j / 2) + e % 32];
    q = (j % 2 ? q >> 4 : q & 15) | (b[16 + e % 32] >> j & 1) << 4;
    return half_at(b) * scale6(b + 4, j) * q - half_at(b + 2) * min6(b + 4, j);
}

static double q6_k_at(const uint8_t *b, int e) {
    int h = e / 128, g = e / 32 % 4, l = e % 32;
    int q = b[64 * h + 32 * (g & 1) + l];
    q = (g < 2 ? q & 15 : q >> 4) | (b[128 + 32 * h + l] >> 2 * g & 3) << 4;
    int s = b[192 + e / 16];
    return half_at(b + 208) * (s < 128 ? s : s - 256) * (q - 32);
}

static double iq4_nl_at(const uint8_t *b, int e) {
    return half_at(b) * iq4[nibble(b + 2, e)];
}

static double iq4_xs_at(const uint8_t *b, int e) {
    int k = e / 32, high = b[2] | b[3] << 8;
    int ls = (b[4 + k / 2] >> 4 * (k & 1) & 15) | (high >> 2 * k & 3) << 4;
    return half_at(b) * (ls - 32) * iq4[nibble(b + 8 + 16 * k, e % 32)];
}

static double mxfp4_at(const uint8_t *b, int e) {
    return ldexp(e2m1[nibble(b + 1, e)], b[0] - 127);
}

static double (*const formula[DT_COUNT])(const uint8_t *, int) = {
    [DT_F32] = f32_at,   [DT_F16] = f16_at,     [DT_BF16] = bf16_at,     [DT_Q4_0] = q4_0_at,
    [DT_Q4_1] = q4_1_at, [DT_Q5_0] = q5_0_at,   [DT_Q5_1] = q5_1_at,     [DT_Q8_0] = q8_0_at,
    [DT_Q2_K] = q2_k_at, [DT_Q3_K] = q3_k_at,   [DT_Q4_K] = q4_k_at,     [DT_Q5_K] = q5_k_at,
    [DT_Q6_K] = q6_k_at, [DT_MXFP4] = mxfp4_at, [DT_IQ4_NL] = iq4_nl_at, [DT_IQ4_XS] = iq4_xs_at,
};

/* f64 against f32 with up to three roundings: within 2^-22 of the largest term. */
static void formulas_agree(void **unused) {
    (void)unused;
    enum { BLOCKS = 5, PAD = 16 };
    static uint8_t raw[BLOCKS * 256 + PAD];
    static float got[BLOCKS * 256];
    for (int t = 0; t < DT_I32; t++) {
        const DTypeInfo *info = dtype_info((DType)t);
        for (int shift = 0; shift < PAD; shift++) {
            int n = BLOCKS * info->block_elems;
            lab_random_blocks((DType)t, raw + shift, n);
            dequant_row((DType)t, raw + shift, got, n);
            for (int i = 0; i < n; i++) {
                const uint8_t *block = raw + shift + i / info->block_elems * info->block_bytes;
                double want = formula[t](block, i % info->block_elems);
                if (!(fabs(got[i] - want) <= 0x1p-22 * (fabs(want) + 128)))
                    fail_msg("%s element %d is %.9g, not %.9g", info->name, i, got[i], want);
            }
        }
    }
}

/* ==== The file ==== */

static uint32_t read_u32(FILE *f) {
    uint8_t b[4];
    assert_int_equal(fread(b, 1, 4, f), 4);
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void golden_values(void **unused) {
    (void)unused;
    bool seen[DT_COUNT] = {false};
    FILE *f = fopen(TEST_DIR "/dequant.golden", "rb");
    assert_non_null(f);
    for (int i = 0; i < DT_I32; i++) {
        DType t = dtype_from_gguf(read_u32(f));
        uint32_t elems = read_u32(f), bytes = read_u32(f);
        assert_true(t < DT_I32 && !seen[t]);
        seen[t] = true;
        assert_int_equal(bytes, dtype_row_bytes(t, elems));
        uint8_t *raw = malloc(bytes);
        float *want = malloc(elems * sizeof *want), *got = malloc(elems * sizeof *got);
        assert_true(raw && want && got);
        assert_int_equal(fread(raw, 1, bytes, f), bytes);
        assert_int_equal(fread(want, sizeof *want, elems, f), elems);
        dequant_row(t, raw, got, elems);
        for (uint32_t k = 0; k < elems; k++)
            if (memcmp(&got[k], &want[k], sizeof *got) != 0 && !(got[k] == 0 && want[k] == 0))
                fail_msg("%s element %u is %.9g, not %.9g", dtype_name(t), k, got[k], want[k]);
        free(raw);
        free(want);
        free(got);
    }
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
}

/* The row decoder has a conversion of its own: same bits as f16_to_f32 for every number there is. */
static void halves_agree(void **unused) {
    (void)unused;
    static uint16_t h[65536];
    static float x[65536];
    for (int i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    dequant_row(DT_F16, h, x, 65536);
    for (int i = 0; i < 65536; i++) {
        float want = f16_to_f32(h[i]);
        if (memcmp(&want, &x[i], sizeof want) != 0)
            fail_msg("half %04x is %.9g, not %.9g", i, x[i], want);
    }
}

static void nothing_to_decode(void **unused) {
    float none;
    (void)unused;
    for (int t = 0; t < DT_I32; t++)
        dequant_row((DType)t, "", &none, 0);
}

/* Matrices are padded to whole tiles; an exact tile is not much larger than what it holds. */
static void tiles_have_sizes(void **unused) {
    (void)unused;
    assert_int_equal(dtype_tile_bytes(DT_Q4_K, 16, 256), 2304);
    assert_int_equal(dtype_tile_bytes(DT_Q4_K, 17, 257), 2 * 2 * 2304);
    assert_int_equal(dtype_tile_bytes(DT_Q8_0, 1, 704), 11 * 1088);
    for (int t = 0; t < DT_I32; t++) {
        const DTypeInfo *i = dtype_info((DType)t);
        int64_t file = (int64_t)dtype_row_bytes((DType)t, 256) * TILE_ROWS, tile = dtype_tile_bytes((DType)t, 16, 256);
        assert_true(256 % i->tile_k == 0 && i->tile_bytes % 16 == 0);
        if (i->tile_exact && t != DT_IQ4_NL && t != DT_MXFP4) /* which are widened */
            assert_true(tile >= file && tile * 16 <= file * 17);
    }
    assert_null(dtype_info(DT_I32)->tile_form);
}

int main(int argc, char **argv) {
    lab_seed(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_values),     cmocka_unit_test(formulas_agree),   cmocka_unit_test(halves_agree),
        cmocka_unit_test(nothing_to_decode), cmocka_unit_test(tiles_have_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
