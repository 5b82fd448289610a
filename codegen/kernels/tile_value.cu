/* tile_value.cu - one weight out of the tiles that matmuls read (matmul_tiles.cu): for lookups of embedding rows.
 *
 * tile_value(Form_<form>(), tiles, tiles_in_strip, row, k): element (row, k) of the matrix, as f32. So a table that is
 * also the output matrix is on the device once.
 */
#ifndef LAP_TILE_VALUE
#define LAP_TILE_VALUE
#include "prelude.cu"

/* Where an element stands in its tile, in the terms of matmul_tiles.cu. */
struct TilePlace {
    const u8 *tile;
    int j, t, p, high, row, upper, lane;

    DEVICE TilePlace(const u8 *tiles, int tiles_in_strip, int bytes, int tile_k, int matrix_row, int k) {
        tile = tiles + ((u64)(matrix_row / 16) * tiles_in_strip + k / tile_k) * bytes;
        const int in_tile = k % tile_k;
        j = in_tile / 32;
        t = in_tile % 32 / 8;
        p = in_tile % 8 / 2;
        high = in_tile & 1;
        row = matrix_row % 16;
        upper = row / 8;
        lane = 4 * (row % 8) + t;
    }
    DEVICE u32 word(int at) const {
        return *(const u32 *)(tile + at);
    }
    DEVICE float half(int at) const {
        return f16_value(*(const u16 *)(tile + at));
    }
    /* Of a word that holds `width` bits for each of four pairs, the second elements 16 bits higher. */
    DEVICE u32 bits(int at, int width, int shift) const {
        return word(at) >> (width * p + 16 * high + shift) & ((1u << width) - 1);
    }
};

template <bool FIFTH> struct FormSuperblock {
    static DEVICE float value(const u8 *tiles, int tiles_in_strip, int row, int k) {
        const TilePlace a(tiles, tiles_in_strip, FIFTH ? 2816 : 2304, 256, row, k);
        u32 code = a.bits((a.j >> 1) * 512 + a.lane * 16 + ((a.j & 1) * 2 + a.upper) * 4, 4, 0);
        if (FIFTH)
            code |= a.bits(2304 + a.lane * 16 + (a.j >> 1) * 4, 1, 8 * (a.j & 1) + 4 * a.upper) << 4;
        const u8 *header = a.tile + 2048 + a.row * 16, *six = header + 4; /* d, dmin, 12 bytes of 6-bit numbers */
        const int j = a.j;
        const u32 scale = j < 4 ? six[j] & 63 : (six[j + 4] & 15) | six[j - 4] >> 6 << 4;
        const u32 minimum = j < 4 ? six[j + 4] & 63 : six[j + 4] >> 4 | six[j] >> 6 << 4;
        return f16_value(*(const u16 *)header) * (float)scale * (float)code -
               f16_value(*(const u16 *)(header + 2)) * (float)minimum;
    }
};

typedef FormSuperblock<false> Form_Q4_K;
typedef FormSuperblock<true> Form_Q5_K;

struct Form_Q6_K {
    static DEVICE float value(const u8 *tiles, int tiles_in_strip, int row, int k) {
        const TilePlace a(tiles, tiles_in_strip, 3360, 256, row, k);
        const u32 low = a.bits((a.j >> 1) * 512 + a.lane * 16 + ((a.j & 1) * 2 + a.upper) * 4, 4, 0);
        const u32 upper = a.bits(2048 + ((a.j >> 2) * 32 + a.lane) * 16 + (a.j & 3) * 4, 2, 8 * a.upper);
        const int scale = (int)a.tile[3072 + ((a.t >> 1) * 16 + a.row) * 8 + a.j] - 128;
        return a.half(3328 + a.row * 2) * (float)scale * (float)((int)(low | upper << 4) - 32);
    }
};

template <bool FIFTH, bool MINIMUM> struct FormNibble {
    static DEVICE float value(const u8 *tiles, int tiles_in_strip, int row, int k) {
        constexpr int SCALES = FIFTH ? 640 : 512, BYTES = SCALES + (MINIMUM ? 128 : 64), CENTRE = FIFTH ? 16 : 8;
        const TilePlace a(tiles, tiles_in_strip, BYTES, 64, row, k);
        u32 code = a.bits(a.lane * 16 + (2 * a.j + a.upper) * 4, 4, 0);
        if (FIFTH)
            code |= a.bits(512 + a.lane * 4, 1, 8 * a.j + 4 * a.upper) << 4;
        const float d = a.half(SCALES + a.row * 4 + a.j * 2);
        if (MINIMUM)
            return d * (float)code + a.half(SCALES + 64 + a.row * 4 + a.j * 2);
        return d * (float)((int)code - CENTRE);
    }
};

typedef FormNibble<false, false> Form_Q4_0;
typedef FormNibble<false, true> Form_Q4_1;
typedef FormNibble<true, false> Form_Q5_0;
typedef FormNibble<true, true> Form_Q5_1;

struct Form_Q8_0 {
    static DEVICE float value(const u8 *tiles, int tiles_in_strip, int row, int k) {
        const TilePlace a(tiles, tiles_in_strip, 1088, 64, row, k);
        const int code = (int)a.tile[a.j * 512 + a.lane * 16 + a.upper * 8 + k % 8] - 128;
        return a.half(1024 + a.row * 4 + a.j * 2) * (float)code;
    }
};

struct Form_PLAIN {
    static DEVICE float value(const u8 *tiles, int tiles_in_strip, int row, int k) {
        const TilePlace a(tiles, tiles_in_strip, 2112, 64, row, k);
        const float v = a.half(a.j * 1024 + a.upper * 512 + a.lane * 16 + a.p * 4 + a.high * 2);
        return v * *(const float *)(a.tile + 2048 + a.row * 4) * (a.p & 1 ? 0.0625f : 1.0f);
    }
};

template <class Form> DEVICE float tile_value(Form, const u8 *tiles, int tiles_in_strip, int row, int k) {
    return Form::value(tiles, tiles_in_strip, row, k);
}

#endif
