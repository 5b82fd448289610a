/* matmul_tiles.cu - the storage types as a warp multiplies them: one struct Tile_<form> for each form of ir/quants.def.
 *
 * A tile is 16 rows x K columns. Lane 4g + t holds rows g and g + 8 ("upper"), and of each block of 32 columns
 * the eight 8t..8t+7, as pairs p = 0..3 (columns 8t + 2p, 8t + 2p + 1). The order of k inside an mma is free as long
 * as weights and rows agree, so a block is two mma.m16n8k16: pairs 0 and 1, then pairs 2 and 3; a0, a1, a2, a3 are
 * row g first pair, row g + 8 first pair, row g second pair, row g + 8 second pair. The rows' eight values are one
 * 16-byte load.
 *
 * Code word: 8 codes of 4 bits of one row: pair p's first code at bits 4p..4p+3, its second at bits 16 + 4p.. . So
 * `word & 0x000f000f` is pair 0 as two f16, `word & 0x00f000f0` pair 1 times 16, and after `word >>= 8` pairs 2 and
 * 3. The rows hold pairs 1 and 3 divided by 16, so the factor never has to be taken out. "Odd" pairs are 1 and 3.
 *
 * A code in the low bits of an f16 is the subnormal code * 2^-24, which mma takes exactly: types without an
 * offset feed masked words as they are, and multiply by 2^24 with the block's scale. Others set the exponent of 1024
 * (0x6400), which makes 1024 + code (or 1024 + 16 code), and subtract 1024 + offset.
 *
 *   Tile_X::K, BYTES   as in ir/quants.def
 *   Tile_X::multiply   acc[n] += tile x rows, for each of NT tiles of 8 tokens. `rows` (struct Rows of
 *                      matmul_fragments.cu) has block(n, j) and sums(n), which in lane t are of the warp's blocks 2t,
 *                      2t + 1; `first` is the warp's block where the tile begins, a constant after unrolling. The order
 *                      of all sums is fixed by the text and the same for any number of tokens.
 */
#ifndef LAP_MATMUL_TILES
#define LAP_MATMUL_TILES
#include "prelude.cu"

#define TWO_24 16777216.0f

struct Lane {
    int lane, g, t;
    DEVICE Lane() : lane(threadIdx.x & 31), g(lane >> 2), t(lane & 3) {}
};

DEVICE uint4 load16(const u8 *p) {
    return *(const uint4 *)p;
}

DEVICE u32 load4(const u8 *p) {
    return *(const u32 *)p;
}

/* Moves a bit pattern from bit FROM to bit TO. */
template <int FROM, int TO> DEVICE u32 move_bits(u32 v) {
    if (FROM <= TO)
        return v << (TO >= FROM ? TO - FROM : 0);
    return v >> (FROM >= TO ? FROM - TO : 0);
}

/* Pair P of a code word: codes at bit 0 of each half for even P, at bit 4 (times 16) for odd P. */
template <int P> DEVICE u32 code_pair(u32 word) {
    return (P & 2 ? word >> 8 : word) & (P & 1 ? 0x00f000f0u : 0x000f000fu);
}

/* The fifth bits of a pair, at bit I of each half of `fifths`, to stand above its codes. */
template <int P, int I> DEVICE u32 fifth_pair(u32 fifths) {
    return P & 1 ? move_bits<I, 8>(fifths) & 0x01000100u : move_bits<I, 4>(fifths) & 0x00100010u;
}

/* Both mma of a block: a[row g or g + 8][pair], x the rows' values. */
DEVICE void multiply_block(float (&c)[4], const u32 (&a)[2][4], uint4 x) {
    mma(c, a[0][0], a[1][0], a[0][1], a[1][1], x.x, x.y);
    mma(c, a[0][2], a[1][2], a[0][3], a[1][3], x.z, x.w);
}

/* sum += product with a factor for row g and one for row g + 8. */
DEVICE void add_scaled(float (&sum)[4], const float (&product)[4], float low, float high) {
    sum[0] = multiply_add(low, product[0], sum[0]);
    sum[1] = multiply_add(low, product[1], sum[1]);
    sum[2] = multiply_add(high, product[2], sum[2]);
    sum[3] = multiply_add(high, product[3], sum[3]);
}

/* sum += block's product times the factors, for each tile of tokens. */
template <class Rows, int NT>
DEVICE void add_block(float (&sum)[NT][4], const u32 (&a)[2][4], const Rows &rows, int block, float low, float high) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        float product[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        multiply_block(product, a, rows.block(n, block));
        add_scaled(sum[n], product, low, high);
    }
}

/* ==== Q4_K, Q5_K: superblocks of 8 blocks with 6-bit scales and minima ====
 *
 *   byte 0     [block / 2][lane]{code words: even block row g, row g + 8; odd block row g, row g + 8}
 *   byte 2048  [row] the 16 bytes before the codes of the row's superblock, unchanged: d, dmin, 12 bytes of scales
 *   byte 2304  (Q5_K) [lane]{4 words of fifth bits}: word j / 2 as in Q5_0 below
 */

/* Scales and minima of one row. */
struct SuperblockHeader {
    u32 scale[2], minimum[2]; /* 6 bits in each of 8 bytes */
    float d, dmin;            /* times 2^24 */

    DEVICE explicit SuperblockHeader(uint4 h) {
        d = f16_value((u16)h.x) * TWO_24;
        dmin = f16_value((u16)(h.x >> 16)) * TWO_24;
        scale[0] = h.y & 0x3f3f3f3fu;
        scale[1] = (h.w & 0x0f0f0f0fu) | (h.y >> 2 & 0x30303030u);
        minimum[0] = h.z & 0x3f3f3f3fu;
        minimum[1] = (h.w >> 4 & 0x0f0f0f0fu) | (h.z >> 2 & 0x30303030u);
    }

    DEVICE float block_scale(int j) const {
        return (float)(scale[j >> 2] >> 8 * (j & 3) & 0xffu);
    }

    /* Minima of blocks 2t and 2t + 1 as a subnormal pair. */
    DEVICE u32 minimum_pair(int t) const {
        return pick_bytes(t & 2 ? minimum[1] : minimum[0], 0, t & 1 ? 0x4342u : 0x4140u);
    }
};

/* The four pairs of code words of two rows, with fifth bits of block j where there are any. */
template <bool FIFTH, int J> DEVICE void superblock_codes(u32 (&a)[2][4], u32 low, u32 high, u32 fifths) {
    constexpr int I = 8 * (J & 1);
    a[0][0] = code_pair<0>(low) | (FIFTH ? fifth_pair<0, I + 0>(fifths) : 0);
    a[0][1] = code_pair<1>(low) | (FIFTH ? fifth_pair<1, I + 1>(fifths) : 0);
    a[0][2] = code_pair<2>(low) | (FIFTH ? fifth_pair<2, I + 2>(fifths) : 0);
    a[0][3] = code_pair<3>(low) | (FIFTH ? fifth_pair<3, I + 3>(fifths) : 0);
    a[1][0] = code_pair<0>(high) | (FIFTH ? fifth_pair<0, I + 4>(fifths) : 0);
    a[1][1] = code_pair<1>(high) | (FIFTH ? fifth_pair<1, I + 5>(fifths) : 0);
    a[1][2] = code_pair<2>(high) | (FIFTH ? fifth_pair<2, I + 6>(fifths) : 0);
    a[1][3] = code_pair<3>(high) | (FIFTH ? fifth_pair<3, I + 7>(fifths) : 0);
}

template <bool FIFTH> struct TileSuperblock {
    static constexpr int K = 256, BYTES = FIFTH ? 2816 : 2304;

    template <class Rows, int NT>
    static DEVICE void multiply(const u8 *tile, const Rows &rows, int first, float (&acc)[NT][4]) {
        const Lane l;
        const SuperblockHeader low(load16(tile + 2048 + l.g * 16)), high(load16(tile + 2048 + (l.g + 8) * 16));
        const uint4 fifths = FIFTH ? load16(tile + 2304 + l.lane * 16) : make_uint4(0, 0, 0, 0);
        float sum[NT][4] = {};
#define TWO_BLOCKS(i, fifth_word)                                                                                      \
    {                                                                                                                  \
        const uint4 w = load16(tile + (i)*512 + l.lane * 16);                                                          \
        u32 a[2][4];                                                                                                   \
        superblock_codes<FIFTH, 0>(a, w.x, w.y, fifth_word);                                                           \
        add_block(sum, a, rows, first + 2 * (i), low.block_scale(2 * (i)), high.block_scale(2 * (i)));                 \
        superblock_codes<FIFTH, 1>(a, w.z, w.w, fifth_word);                                                           \
        add_block(sum, a, rows, first + 2 * (i) + 1, low.block_scale(2 * (i) + 1), high.block_scale(2 * (i) + 1));     \
    }
        TWO_BLOCKS(0, fifths.x)
        TWO_BLOCKS(1, fifths.y)
        TWO_BLOCKS(2, fifths.z)
        TWO_BLOCKS(3, fifths.w)
#undef TWO_BLOCKS
        subtract_minima(low, high, rows, l.t, acc);
#pragma unroll
        for (int n = 0; n < NT; n++)
            add_scaled(acc[n], sum[n], low.d, high.d);
    }

  private:
    /* One mma for all minima: k = the 8 blocks with the high parts of their sums, then with the low parts. */
    template <class Rows, int NT>
    static DEVICE void subtract_minima(const SuperblockHeader &low, const SuperblockHeader &high, const Rows &rows,
                                       int t, float (&acc)[NT][4]) {
        const u32 m0 = low.minimum_pair(t), m1 = high.minimum_pair(t);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            float product[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            const uint2 sums = rows.sums(n);
            mma(product, m0, m1, m0, m1, sums.x, sums.y);
            add_scaled(acc[n], product, -low.dmin, -high.dmin);
        }
    }
};

typedef TileSuperblock<false> Tile_Q4_K;
typedef TileSuperblock<true> Tile_Q5_K;

/* ==== Q6_K: 6-bit codes - 32, a signed 8-bit scale for each 16 ====
 *
 *   byte 0     code words of the lower 4 bits, as Q4_K
 *   byte 2048  [block / 4][lane]{word of block % 4}: upper 2 bits of row g, pair p at bits 2p (and 16 + 2p), of row
 *              g + 8 at 8 + 2p (and 24 + 2p)
 *   byte 3072  [half of the block][row][block]: scale + 128
 *   byte 3328  [row] d
 *
 * A lane's columns lie in one half of the block (t >> 1), so it multiplies its own codes by the scale in f16, times
 * 1/256; the 16 mma of the tile then chain.
 */
struct Tile_Q6_K {
    static constexpr int K = 256, BYTES = 3360;

    /* (code - 32) * scale / 256 of pair P (times 16 when odd), upper bits at bit 2P + SHIFT. */
    template <int P, int SHIFT> static DEVICE u32 pair(u32 word, u32 upper, u32 scale) {
        if (P & 1) {
            const u32 bits = code_pair<P>(word) | (move_bits<2 * P + SHIFT, 8>(upper) & 0x03000300u) | 0x64006400u;
            return pair_multiply(pair_add(bits, 0xe600e600u), scale); /* - 1536 */
        }
        const u32 bits = code_pair<P>(word) | (move_bits<2 * P + SHIFT, 4>(upper) & 0x00300030u) | 0x64006400u;
        return pair_multiply(pair_add(bits, 0xe420e420u), scale); /* - 1056 */
    }

    template <int SHIFT> static DEVICE void row_pairs(u32 (&a)[4], u32 word, u32 upper, u32 scale) {
        a[0] = pair<0, SHIFT>(word, upper, scale);
        a[1] = pair<1, SHIFT>(word, upper, scale);
        a[2] = pair<2, SHIFT>(word, upper, scale);
        a[3] = pair<3, SHIFT>(word, upper, scale);
    }

    /* Byte j of 8 as a pair of scale / 256: (1024 + byte) / 256 - 4.5. */
    static DEVICE u32 scale_pair(uint2 scales, int j) {
        const u32 byte = j & 3, pick = 0x4040u + (byte | byte << 8);
        return pair_multiply_add(pick_bytes(j & 4 ? scales.y : scales.x, 0x64646464u, pick), 0x1c001c00u, 0xc480c480u);
    }

    template <class Rows, int NT>
    static DEVICE void multiply(const u8 *tile, const Rows &rows, int first, float (&acc)[NT][4]) {
        const Lane l;
        const u8 *scales = tile + 3072 + ((l.t >> 1) * 16 + l.g) * 8;
        const uint2 low = *(const uint2 *)scales, high = *(const uint2 *)(scales + 64);
        const float d0 = f16_value(*(const u16 *)(tile + 3328 + l.g * 2)) * 256.0f;
        const float d1 = f16_value(*(const u16 *)(tile + 3328 + l.g * 2 + 16)) * 256.0f;
        float sum[NT][4] = {};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint4 upper4 = load16(tile + 2048 + (half * 32 + l.lane) * 16);
            const u32 upper[4] = {upper4.x, upper4.y, upper4.z, upper4.w};
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const uint4 w = load16(tile + (2 * half + i) * 512 + l.lane * 16);
                const int j = 4 * half + 2 * i;
                add_codes(sum, w.x, w.y, upper[2 * i], low, high, rows, j, first);
                add_codes(sum, w.z, w.w, upper[2 * i + 1], low, high, rows, j + 1, first);
            }
        }
#pragma unroll
        for (int n = 0; n < NT; n++)
            add_scaled(acc[n], sum[n], d0, d1);
    }

  private:
    template <class Rows, int NT>
    static DEVICE void add_codes(float (&sum)[NT][4], u32 w0, u32 w1, u32 upper, uint2 low, uint2 high,
                                 const Rows &rows, int j, int first) {
        u32 a[2][4];
        row_pairs<0>(a[0], w0, upper, scale_pair(low, j));
        row_pairs<8>(a[1], w1, upper, scale_pair(high, j));
#pragma unroll
        for (int n = 0; n < NT; n++)
            multiply_block(sum[n], a, rows.block(n, first + j));
    }
};

/* ==== Blocks of 32 with 4 or 5 bits: Q4_0, Q4_1, Q5_0, Q5_1; two blocks a tile ====
 *
 *   byte 0     [lane]{code words: block 0 row g, row g + 8; block 1 row g, row g + 8}
 *   then, with 5 bits, [lane] word of fifth bits: pair p of block j at bit 8j + p (and 16 + 8j + p) for row g, at 4
 *              more for row g + 8
 *   then       [row]{d of block 0, d of block 1}
 *   then, for the types with a minimum m, [row]{m of block 0, m of block 1}
 */
template <bool FIFTH, bool MINIMUM> struct TileNibble {
    static constexpr int K = 64, SCALES = FIFTH ? 640 : 512, BYTES = SCALES + (MINIMUM ? 128 : 64);
    static constexpr u32 CENTRE = FIFTH ? 16 : 8;

    /* Code - CENTRE (times 16 when P is odd); with a minimum the plain code as a subnormal. */
    template <int P, int I> static DEVICE u32 pair(u32 word, u32 fifths) {
        const u32 bits = code_pair<P>(word) | (FIFTH ? fifth_pair<P, I>(fifths) : 0);
        if (MINIMUM)
            return bits;
        const u32 minus = P & 1 ? 0xe400u + CENTRE * 16 : 0xe400u + CENTRE; /* 1024 + CENTRE, ulp 1 */
        return pair_add(bits | 0x64006400u, minus | minus << 16);
    }

    template <int I> static DEVICE void row_pairs(u32 (&a)[4], u32 word, u32 fifths) {
        a[0] = pair<0, I + 0>(word, fifths);
        a[1] = pair<1, I + 1>(word, fifths);
        a[2] = pair<2, I + 2>(word, fifths);
        a[3] = pair<3, I + 3>(word, fifths);
    }

    template <class Rows, int NT>
    static DEVICE void multiply(const u8 *tile, const Rows &rows, int first, float (&acc)[NT][4]) {
        const Lane l;
        const float unit = MINIMUM ? TWO_24 : 1.0f;
        const uint4 w = load16(tile + l.lane * 16);
        const u32 fifths = FIFTH ? load4(tile + 512 + l.lane * 4) : 0;
        const u32 low = load4(tile + SCALES + l.g * 4), high = load4(tile + SCALES + (l.g + 8) * 4);
        u32 a[2][4];
        row_pairs<0>(a[0], w.x, fifths);
        row_pairs<4>(a[1], w.y, fifths);
        add_block(acc, a, rows, first, f16_value((u16)low) * unit, f16_value((u16)high) * unit);
        row_pairs<8>(a[0], w.z, fifths);
        row_pairs<12>(a[1], w.w, fifths);
        add_block(acc, a, rows, first + 1, f16_value((u16)(low >> 16)) * unit, f16_value((u16)(high >> 16)) * unit);
        if (MINIMUM)
            add_minima(tile + SCALES + 64, rows, first, l, acc);
    }

  private:
    /* The lane that holds the sums of this tile's two blocks has their minima, the other lanes zeros. */
    template <class Rows, int NT>
    static DEVICE void add_minima(const u8 *minima, const Rows &rows, int first, const Lane &l, float (&acc)[NT][4]) {
        const bool mine = l.t == first / 2;
        const u32 m0 = mine ? load4(minima + l.g * 4) : 0, m1 = mine ? load4(minima + (l.g + 8) * 4) : 0;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const uint2 sums = rows.sums(n);
            mma(acc[n], m0, m1, m0, m1, sums.x, sums.y);
        }
    }
};

typedef TileNibble<false, false> Tile_Q4_0;
typedef TileNibble<false, true> Tile_Q4_1;
typedef TileNibble<true, false> Tile_Q5_0;
typedef TileNibble<true, true> Tile_Q5_1;

/* ==== Q8_0 (and types whose codes stand for signed bytes): two blocks of 32 bytes ====
 *
 *   byte 0     [block][lane]{row g: 8 bytes, row g + 8: 8 bytes}, each code + 128
 *   byte 1024  [row]{d of block 0, d of block 1}
 */
struct Tile_Q8_0 {
    static constexpr int K = 64, BYTES = 1088;

    static DEVICE void row_pairs(u32 (&a)[4], u32 first, u32 second) {
        const u32 exponent = 0x64646464u, minus = 0xe480e480u; /* 1152 */
        const u32 by16 = 0x4c004c00u, minus16 = 0xf480f480u;   /* 16, 16 * 1152 */
        a[0] = pair_add(pick_bytes(first, exponent, 0x4140u), minus);
        a[1] = pair_multiply_add(pick_bytes(first, exponent, 0x4342u), by16, minus16);
        a[2] = pair_add(pick_bytes(second, exponent, 0x4140u), minus);
        a[3] = pair_multiply_add(pick_bytes(second, exponent, 0x4342u), by16, minus16);
    }

    template <class Rows, int NT>
    static DEVICE void multiply(const u8 *tile, const Rows &rows, int first, float (&acc)[NT][4]) {
        const Lane l;
        const u32 low = load4(tile + 1024 + l.g * 4), high = load4(tile + 1024 + (l.g + 8) * 4);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const uint4 w = load16(tile + j * 512 + l.lane * 16);
            u32 a[2][4];
            row_pairs(a[0], w.x, w.y);
            row_pairs(a[1], w.z, w.w);
            add_block(acc, a, rows, first + j, f16_value((u16)(low >> 16 * j)), f16_value((u16)(high >> 16 * j)));
        }
    }
};

/* ==== PLAIN: f16 values, odd pairs times 16, and a power of two for each row of the tile ====
 *
 *   byte 0     [block][row / 8][lane]{4 pairs}
 *   byte 2048  f32 [row]
 */
struct Tile_PLAIN {
    static constexpr int K = 64, BYTES = 2112;

    template <class Rows, int NT>
    static DEVICE void multiply(const u8 *tile, const Rows &rows, int first, float (&acc)[NT][4]) {
        const Lane l;
        const float low = *(const float *)(tile + 2048 + l.g * 4), high = *(const float *)(tile + 2048 + (l.g + 8) * 4);
        float sum[NT][4] = {};
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const uint4 w0 = load16(tile + j * 1024 + l.lane * 16), w1 = load16(tile + j * 1024 + 512 + l.lane * 16);
            const u32 a[2][4] = {{w0.x, w0.y, w0.z, w0.w}, {w1.x, w1.y, w1.z, w1.w}};
#pragma unroll
            for (int n = 0; n < NT; n++)
                multiply_block(sum[n], a, rows.block(n, first + j));
        }
#pragma unroll
        for (int n = 0; n < NT; n++)
            add_scaled(acc[n], sum[n], low, high);
    }
};

#endif
