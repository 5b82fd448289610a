/* matmul_weights.cu - the storage types as a warp of the prefill matmul reads them: tiles to f16 A fragments.
 *
 * One struct Strip_<form> for each form of ir/quants.def. Lanes, rows, pairs and bytes are those of matmul_tiles.cu;
 * what differs is that scales, minima and d go into the f16 weight. Products of all columns of K then chain in one
 * accumulator, and nothing is multiplied behind the mma: with 64 tokens for each fragment that is what counts, where
 * the decode matmul has 8. A weight is rounded once, its scale too: 2^-12 each, like the rounding of x.
 *
 *   Strip_X::K, BYTES   of a tile, as in ir/quants.def
 *   Strip_X::PART       blocks of 32 columns of a part: what one open() makes ready
 *   open(tile, part)    part number `part` of a tile: reads scales
 *   block<J>(a)         a[row g or g + 8][pair] of block J of the part, for J = 0, 1, .. in order. Odd pairs are 16
 *                       times the weight, as x has them divided by 16
 *   UNIT                a sum of products times this is what is wanted
 *
 * Range: f16 holds 16 times the weight for odd pairs, and once more 16 times where UNIT is 1/16, which moves small
 * scales away from the end of f16. So a weight must be below 65504 / 256 = 255 in magnitude (4094 with UNIT 1), else
 * it becomes infinite. Scales of superblocks are right to 2^-29, so weights to 2^-24; those of PLAIN serve rows whose
 * largest weight is 2^-18 as they are.
 */
#ifndef LAP_MATMUL_WEIGHTS
#define LAP_MATMUL_WEIGHTS
#include "matmul_tiles.cu"
#include "prelude.cu"

#define PAIR_16   0x4c004c00u /* 16 */
#define PAIR_4096 0x6c006c00u /* 4096 */

/* Bytes 2I and 2I + 1 of a word, each plus 1024. */
template <int I> DEVICE u32 byte_pair(u32 word) {
    return pick_bytes(word, 0x64646464u, I ? 0x4342u : 0x4140u);
}

/* Pair P of a code word with `fifths` above (fifth bits of row and block at bit I; FIFTH false: none), as codes -
 * CENTRE, times 16 when P is odd: 1024 + code - (1024 + CENTRE). */
template <bool FIFTH, int P, int I, u32 CENTRE> DEVICE u32 code_value(u32 word, u32 fifths) {
    constexpr u32 mask = P & 1 ? 0x00f000f0u : 0x000f000fu, minus = 0xe400u + (P & 1 ? CENTRE * 16 : CENTRE);
    const u32 four = mask_or<mask, 0x64006400u>(P & 2 ? word >> 8 : word);
    return pair_add(four | (FIFTH ? fifth_pair<P, I>(fifths) : 0), minus | minus << 16);
}

template <bool FIFTH, int I, u32 CENTRE> DEVICE void code_values(u32 (&a)[4], u32 word, u32 fifths) {
    a[0] = code_value<FIFTH, 0, I + 0, CENTRE>(word, fifths);
    a[1] = code_value<FIFTH, 1, I + 1, CENTRE>(word, fifths);
    a[2] = code_value<FIFTH, 2, I + 2, CENTRE>(word, fifths);
    a[3] = code_value<FIFTH, 3, I + 3, CENTRE>(word, fifths);
}

/* a = a * scale, for the four pairs of a row. */
DEVICE void scale_row(u32 (&a)[4], u32 scale) {
#pragma unroll
    for (int p = 0; p < 4; p++)
        a[p] = pair_multiply(a[p], scale);
}

/* a = a * scale + minimum. */
DEVICE void scale_row(u32 (&a)[4], u32 scale, u32 minimum) {
    const u32 minimum16 = pair_multiply(minimum, PAIR_16);
#pragma unroll
    for (int p = 0; p < 4; p++)
        a[p] = pair_multiply_add(a[p], scale, p & 1 ? minimum16 : minimum);
}

/* ==== Q4_K, Q5_K: four blocks a part ==== */

template <bool FIFTH> struct StripSuperblock {
    static constexpr int K = 256, BYTES = FIFTH ? 2816 : 2304, PART = 4;
    static constexpr float UNIT = 0.0625f;

    DEVICE void open(const u8 *tile, int part) {
        const Lane l;
        codes = tile + part * 1024 + l.lane * 16;
        fifths = FIFTH ? *(const uint2 *)(tile + 2304 + l.lane * 16 + part * 8) : make_uint2(0, 0);
        open_row(0, load16(tile + 2048 + l.g * 16), part);
        open_row(1, load16(tile + 2048 + (l.g + 8) * 16), part);
    }

    template <int J> DEVICE void block(u32 (&a)[2][4]) {
        if (J % 2 == 0)
            words = load16(codes + J / 2 * 512);
        const u32 above = J < 2 ? fifths.x : fifths.y;
        code_values<FIFTH, 8 * (J & 1), 0>(a[0], J & 1 ? words.z : words.x, above);
        code_values<FIFTH, 8 * (J & 1) + 4, 0>(a[1], J & 1 ? words.w : words.y, above);
#pragma unroll
        for (int upper = 0; upper < 2; upper++)
            scale_row(a[upper], pair_both<J & 1>(scale[upper][J / 2]), pair_both<J & 1>(minimum[upper][J / 2]));
    }

  private:
    const u8 *codes;
    uint4 words;
    uint2 fifths;
    u32 scale[2][2], minimum[2][2]; /* [row][blocks 0 and 1, or 2 and 3], with d, times 16 */

    DEVICE void open_row(int upper, uint4 h, int part) {
        const u32 s = part ? (h.w & 0x0f0f0f0fu) | (h.y >> 2 & 0x30303030u) : h.y & 0x3f3f3f3fu;
        const u32 m = part ? (h.w >> 4 & 0x0f0f0f0fu) | (h.z >> 2 & 0x30303030u) : h.z & 0x3f3f3f3fu;
        const u32 d = pair_both<0>(h.x), minus = pair_both<1>(h.x) ^ 0x80008000u;
        scale[upper][0] = pair_multiply(six_bits<0>(s), d);
        scale[upper][1] = pair_multiply(six_bits<1>(s), d);
        minimum[upper][0] = pair_multiply(six_bits<0>(m), minus);
        minimum[upper][1] = pair_multiply(six_bits<1>(m), minus);
    }

    /* Bytes 2I and 2I + 1, times 16: (1024 + byte) * 16 - 16384. */
    template <int I> static DEVICE u32 six_bits(u32 word) {
        return pair_multiply_add(byte_pair<I>(word), PAIR_16, 0xf400f400u);
    }
};

typedef StripSuperblock<false> Strip_Q4_K;
typedef StripSuperblock<true> Strip_Q5_K;

/* ==== Q6_K: four blocks a part ==== */

struct Strip_Q6_K {
    static constexpr int K = 256, BYTES = 3360, PART = 4;
    static constexpr float UNIT = 0.0625f;

    DEVICE void open(const u8 *tile, int part) {
        const Lane l;
        codes = tile + part * 1024 + l.lane * 16;
        const uint4 upper4 = load16(tile + 2048 + (part * 32 + l.lane) * 16);
        upper[0] = upper4.x;
        upper[1] = upper4.y;
        upper[2] = upper4.z;
        upper[3] = upper4.w;
        const u8 *scales = tile + 3072 + ((l.t >> 1) * 16 + l.g) * 8 + part * 4;
        open_row(0, load4(scales), *(const u16 *)(tile + 3328 + l.g * 2));
        open_row(1, load4(scales + 64), *(const u16 *)(tile + 3328 + l.g * 2 + 16));
    }

    template <int J> DEVICE void block(u32 (&a)[2][4]) {
        if (J % 2 == 0)
            words = load16(codes + J / 2 * 512);
        six_values<0>(a[0], J & 1 ? words.z : words.x, upper[J]);
        six_values<8>(a[1], J & 1 ? words.w : words.y, upper[J]);
        scale_row(a[0], pair_both<J & 1>(scale[0][J / 2]));
        scale_row(a[1], pair_both<J & 1>(scale[1][J / 2]));
    }

  private:
    const u8 *codes;
    uint4 words;
    u32 upper[4], scale[2][2];

    /* Code - 32 (times 16 when P is odd), upper bits at bit 2P + SHIFT. */
    template <int P, int SHIFT> static DEVICE u32 six_value(u32 word, u32 two) {
        constexpr u32 mask = P & 1 ? 0x00f000f0u : 0x000f000fu;
        const u32 four = mask_or<mask, 0x64006400u>(P & 2 ? word >> 8 : word);
        if (P & 1)
            return pair_add(four | (move_bits<2 * P + SHIFT, 8>(two) & 0x03000300u), 0xe600e600u); /* - 1536 */
        return pair_add(four | (move_bits<2 * P + SHIFT, 4>(two) & 0x00300030u), 0xe420e420u);     /* - 1056 */
    }

    template <int SHIFT> static DEVICE void six_values(u32 (&a)[4], u32 word, u32 two) {
        a[0] = six_value<0, SHIFT>(word, two);
        a[1] = six_value<1, SHIFT>(word, two);
        a[2] = six_value<2, SHIFT>(word, two);
        a[3] = six_value<3, SHIFT>(word, two);
    }

    /* (1024 + byte) / 256 - 4.5 is the signed scale / 256. */
    DEVICE void open_row(int row, u32 bytes, u16 half) {
        const u32 d = pair_multiply(f16_pair(half, half), PAIR_4096);
        scale[row][0] = pair_multiply(pair_multiply_add(byte_pair<0>(bytes), 0x1c001c00u, 0xc480c480u), d);
        scale[row][1] = pair_multiply(pair_multiply_add(byte_pair<1>(bytes), 0x1c001c00u, 0xc480c480u), d);
    }
};

/* ==== Q4_0, Q4_1, Q5_0, Q5_1 ==== */

template <bool FIFTH, bool MINIMUM> struct StripNibble {
    typedef TileNibble<FIFTH, MINIMUM> Tile;
    static constexpr int K = 64, BYTES = Tile::BYTES, PART = 2;
    static constexpr float UNIT = 1.0f;

    DEVICE void open(const u8 *tile, int) {
        const Lane l;
        words = load16(tile + l.lane * 16);
        fifths = FIFTH ? load4(tile + 512 + l.lane * 4) : 0;
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
            const u8 *at = tile + Tile::SCALES + (l.g + 8 * upper) * 4;
            scale[upper] = load4(at);
            minimum[upper] = MINIMUM ? load4(at + 64) : 0;
        }
    }

    template <int J> DEVICE void block(u32 (&a)[2][4]) {
        constexpr u32 centre = MINIMUM ? 0 : Tile::CENTRE;
        code_values<FIFTH, 8 * J, centre>(a[0], J ? words.z : words.x, fifths);
        code_values<FIFTH, 8 * J + 4, centre>(a[1], J ? words.w : words.y, fifths);
#pragma unroll
        for (int upper = 0; upper < 2; upper++)
            if (MINIMUM)
                scale_row(a[upper], pair_both<J>(scale[upper]), pair_both<J>(minimum[upper]));
            else
                scale_row(a[upper], pair_both<J>(scale[upper]));
    }

  private:
    uint4 words;
    u32 fifths, scale[2], minimum[2]; /* [row]: pairs of both blocks */
};

typedef StripNibble<false, false> Strip_Q4_0;
typedef StripNibble<false, true> Strip_Q4_1;
typedef StripNibble<true, false> Strip_Q5_0;
typedef StripNibble<true, true> Strip_Q5_1;

/* ==== Q8_0 ==== */

struct Strip_Q8_0 {
    static constexpr int K = 64, BYTES = 1088, PART = 2;
    static constexpr float UNIT = 1.0f;

    DEVICE void open(const u8 *tile, int) {
        const Lane l;
        codes = tile + l.lane * 16;
        scale[0] = load4(tile + 1024 + l.g * 4);
        scale[1] = load4(tile + 1024 + (l.g + 8) * 4);
    }

    template <int J> DEVICE void block(u32 (&a)[2][4]) {
        const uint4 w = load16(codes + J * 512);
        Tile_Q8_0::row_pairs(a[0], w.x, w.y);
        Tile_Q8_0::row_pairs(a[1], w.z, w.w);
        scale_row(a[0], pair_both<J>(scale[0]));
        scale_row(a[1], pair_both<J>(scale[1]));
    }

  private:
    const u8 *codes;
    u32 scale[2];
};

/* ==== PLAIN ==== */

struct Strip_PLAIN {
    static constexpr int K = 64, BYTES = 2112, PART = 2;
    static constexpr float UNIT = 0.0625f;

    DEVICE void open(const u8 *tile, int) {
        const Lane l;
        codes = tile + l.lane * 16;
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
            const u16 h = f16_round(*(const float *)(tile + 2048 + (l.g + 8 * upper) * 4) * 16.0f);
            scale[upper] = f16_pair(h, h);
        }
    }

    template <int J> DEVICE void block(u32 (&a)[2][4]) {
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
            const uint4 w = load16(codes + J * 1024 + upper * 512);
            a[upper][0] = w.x;
            a[upper][1] = w.y;
            a[upper][2] = w.z;
            a[upper][3] = w.w;
            scale_row(a[upper], scale[upper]);
        }
    }

  private:
    const u8 *codes;
    u32 scale[2];
};

#endif
