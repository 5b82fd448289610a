/* attention_forms.cu - the elements of caches: struct Form_<enum of ir/kv.def> says how a head vector lies in memory
 * and in a tile, and how its bytes become operands of matrix products.
 *
 * Elements of 16 bits are operands as they are. Packed ones are codes, in rows of a head vector, and f16 scales, one
 * for each `group` elements, apart from them. They stay packed until a lane has them in registers, and become pairs of
 * f16: code times scale, rounded once, as a cache of f16 would hold what the evaluator decodes (tq3_0: `unit` short of
 * it).
 *
 * A span is 32 elements of a head vector, of 8 units: unit n is elements 4 n .. 4 n + 3. In every piece of 16 bytes
 * unit n has 16 bits, at byte 2 n. So the matrices of 8 x 8 that load_matrices() brings give lane 4 g + t
 *   of keys     units 2 t and 2 t + 1 of key g, in one number: pair i is elements 8 t + i and 8 t + 4 + i
 *   of values   (transposed) unit g of keys 2 t and 2 t + 1: pair i is element 4 g + i of both
 * and unpack() makes of both the four pairs i = 0..3. Bits of a head vector of D elements:
 *
 *   Q8_0    span s: pieces m = 0, 1 at byte 32 s + 16 m; elements 4 n + 2 m, 4 n + 2 m + 1 as signed bytes
 *   Q4_0    span s: a piece at byte 16 s; element 4 n + i, 0..15 for -8..7, from bit 4 i of the unit on
 *   TQ3_0   group G of spans 4 G + 2 k + h, k and h = 0, 1: of the code of element 4 n + i the low two bits in piece k
 * at byte 32 G + 16 k, from bit 4 i + 2 h of the unit on; the third in a piece at byte D / 4 + 16 G, bit 4 i + 2 k + h
 *
 * Operations of a lane for its 8 elements of a span: on bits 6 (Q8_0), 5 (Q4_0) and 14 (TQ3_0), which sm_90 does for 64
 * lanes a clock on a multiprocessor; on pairs 8, 8 and 4, scaling included, for 128.
 */
#ifndef LAP_ATTENTION_FORMS
#define LAP_ATTENTION_FORMS
#include "prelude.cu"

/* Multiplies each pair with a pair of scales. */
DEVICE void scale_pairs(u32 (&pair)[4], u32 scales) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        pair[i] = pair_multiply(pair[i], scales);
}

/* ==== Elements of 16 bits ==== */

struct Form_F16 {
    static constexpr bool packed = false, rotated = false, bf16 = false;
    static constexpr int bits = 16, group = 1;
    static constexpr float unit = 1.0f; /* what a number 1 counts for */

    static DEVICE float value(u16 bits) {
        return f16_value(bits);
    }
    static DEVICE u32 round_pair(float low, float high) {
        return f16_pair(f16_round(low), f16_round(high));
    }
    /* c[16 x 8] += a[16 x 16] b[16 x 8], as prelude.cu's mma(). */
    static DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        mma(c, a[0], a[1], a[2], a[3], b0, b1);
    }
};

struct Form_BF16 : Form_F16 {
    static constexpr bool bf16 = true;

    static DEVICE float value(u16 bits) {
        return bf16_value(bits);
    }
    static DEVICE u32 round_pair(float low, float high) {
        return f16_pair(bf16_round(low), bf16_round(high));
    }
    static DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        mma_bf16(c, a[0], a[1], a[2], a[3], b0, b1);
    }
};

/* ==== Packed elements ====
 *
 *   at_once              spans of a key that one load_matrices() brings
 *   key_piece(s, part)   byte in a row of D elements of piece `part` of such a load, from span s on, a multiple of
 *                        at_once; beyond the row any other piece
 *   key_words()          what unpack() takes for span i of that load
 *   value_piece(s, part) byte of pieces 0 and 1 of span s
 *   unpack()             span, or its number modulo 4: as pairs that are not scaled yet
 */

struct Form_Q8_0 : Form_F16 {
    static constexpr bool packed = true;
    static constexpr int bits = 8, group = 32, at_once = 2;

    template <int D> static DEVICE int key_piece(int span, int part) {
        return 32 * span + 16 * (D % 64 == 0 || 32 * span + 32 < D ? part : part & 1);
    }
    static DEVICE void key_words(const u32 (&r)[4], int i, u32 &first, u32 &second) {
        first = r[2 * i];
        second = r[2 * i + 1];
    }
    template <int D> static DEVICE int value_piece(int span, int part) {
        return 32 * span + 16 * part;
    }
    /* A byte in the low half of an f16 whose high half is 0x64 is 1024 more. */
    static DEVICE void unpack(u32 (&pair)[4], u32 first, u32 second, int) {
        const u32 half = 0xe480e480u; /* -1152: of 1024 and of the 128 that make the codes positive */
        first ^= 0x80808080u;
        second ^= 0x80808080u;
        pair[0] = pair_add(pick_bytes(first, 0x64646464u, 0x4240), half);
        pair[1] = pair_add(pick_bytes(first, 0x64646464u, 0x4341), half);
        pair[2] = pair_add(pick_bytes(second, 0x64646464u, 0x4240), half);
        pair[3] = pair_add(pick_bytes(second, 0x64646464u, 0x4341), half);
    }
};

struct Form_Q4_0 : Form_F16 {
    static constexpr bool packed = true;
    static constexpr int bits = 4, group = 32, at_once = 4;

    template <int D> static DEVICE int key_piece(int span, int part) {
        return 16 * (D % 128 == 0 || 32 * (span + part) < D ? span + part : span);
    }
    static DEVICE void key_words(const u32 (&r)[4], int i, u32 &first, u32 &second) {
        first = r[i];
        second = 0;
    }
    template <int D> static DEVICE int value_piece(int span, int) {
        return 16 * span;
    }
    static DEVICE void unpack(u32 (&pair)[4], u32 first, u32, int) {
        const u32 low = 0xe408e408u, high = 0xd480d480u; /* -1032; -72, after 1024 + 16 q became 64 + q */
        const u32 sixteenth = 0x2c002c00u, later = first >> 8;
        pair[0] = pair_add(mask_or<0x000f000fu, 0x64006400u>(first), low);
        pair[1] = pair_multiply_add(mask_or<0x00f000f0u, 0x64006400u>(first), sixteenth, high);
        pair[2] = pair_add(mask_or<0x000f000fu, 0x64006400u>(later), low);
        pair[3] = pair_multiply_add(mask_or<0x00f000f0u, 0x64006400u>(later), sixteenth, high);
    }
};

struct Form_TQ3_0 : Form_F16 {
    static constexpr bool packed = true, rotated = true;
    static constexpr int bits = 3, group = 128, at_once = 4;
    /* The centroids of ir/kv_row.c times 1.0857184, which are f16 to 3e-5 of themselves. */
    static constexpr float unit = 0.9210491f;

    template <int D> static DEVICE int key_piece(int span, int part) {
        return part < 2 ? 8 * span + 16 * part : D / 4 + 4 * span;
    }
    static DEVICE void key_words(const u32 (&r)[4], int i, u32 &first, u32 &second) {
        first = r[i / 2];
        second = r[2];
    }
    template <int D> static DEVICE int value_piece(int span, int part) {
        return part ? D / 4 + span / 4 * 16 : span / 2 * 16;
    }
    /* Codes stand in nibbles, by which bytes are picked from two tables of 8: the lower and the upper byte of an f16.
     */
    static DEVICE void unpack(u32 (&pair)[4], u32 first, u32 second, int span) {
        const u32 third = rotate_left(second, 2 - (span & 3)) & 0x44444444u; /* bit 2 of its nibble */
        const u32 codes = (first >> 2 * (span & 1) & 0x33333333u) | third;
        const u32 lower_0 = 0xf79118a0u, lower_4 = 0xa01891f7u, upper_0 = 0xa5acb0b2u, upper_4 = 0x32302c25u;
#pragma unroll
        for (int i = 0; i < 4; i += 2) { /* two nibbles of each half */
            const u32 pick = pick_bytes(codes, 0, i ? 0x31 : 0x20);
            const u32 lower = pick_bytes(lower_0, lower_4, pick), upper = pick_bytes(upper_0, upper_4, pick);
            pair[i] = pick_bytes(lower, upper, 0x6240);
            pair[i + 1] = pick_bytes(lower, upper, 0x7351);
        }
    }
};
#endif
