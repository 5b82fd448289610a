/* repack.cu - weights as a GGUF file holds them -> tiles (ir/quants.def, matmul_tiles.cu). One kernel for each type,
 * or, where REPACK_TYPE is defined, only that type's, with the name REPACK_NAME.
 *
 * Contract: repack_<type>(const u8 *from, u8 *to, int rows, int k)
 *   from    matrices one after another, each `rows` rows of k elements, as in the file; no alignment needed
 *   to      matrices one after another, each [strip of 16 rows][tile], padded with zero weights: ceil(rows / 16) *
 *           ceil(k / tile k) tiles; a multiple of 16
 *   launch  one warp makes one tile: block 128, grid (ceil(tiles of a matrix / 4), matrices); warps beyond the last
 *           tile do nothing
 *
 * A lane makes its own fragments (lane 4g + t: rows g and g + 8, columns 8t..8t+7 of each block of 32), byte by
 * byte: the bus that brings the file's bytes is slower still.
 */
#include "prelude.cu"

/* ==== Blocks of the file ==== */

DEVICE u32 half_bits(const u8 *p) {
    return (u32)p[0] | (u32)p[1] << 8;
}

DEVICE float half_at(const u8 *p) {
    return f16_value((u16)half_bits(p));
}

DEVICE u32 word_at(const u8 *p) {
    return half_bits(p) | half_bits(p + 2) << 16;
}

/* A matrix in the file. */
struct Source {
    const u8 *from;
    int rows, blocks; /* blocks in a row */

    /* Block b of a row, nullptr outside the matrix. */
    DEVICE const u8 *block(int row, int b, int bytes) const {
        return row < rows && b < blocks ? from + ((u64)row * blocks + b) * bytes : nullptr;
    }
};

/* Where this warp's tile stands, and its lane. */
struct Place {
    int lane, g, t, strip, tile;
    bool inside;

    DEVICE Place(int rows, int k, int tile_k) : lane(threadIdx.x & 31), g(lane >> 2), t(lane & 3) {
        const int tiles = (k + tile_k - 1) / tile_k, index = 4 * blockIdx.x + (threadIdx.x >> 5);
        strip = index / tiles;
        tile = index % tiles;
        inside = strip < (rows + 15) / 16;
    }
    DEVICE int row(int upper) const {
        return 16 * strip + g + 8 * upper;
    }
};

/* ==== Types of 4 to 6 bits: code(block, e) of the 32 or 256 elements ==== */

/* Nibbles of a 32-element block: the low ones are elements 0..15. */
DEVICE u32 nibble_of(const u8 *q, int e) {
    return e < 16 ? q[e] & 15 : q[e - 16] >> 4;
}

struct Q4_0 {
    static constexpr int BYTES = 18, MINIMUM = -1;
    static constexpr bool FIFTH = false;
    static DEVICE u32 code(const u8 *b, int e) {
        return nibble_of(b + 2, e);
    }
};

struct Q4_1 {
    static constexpr int BYTES = 20, MINIMUM = 2;
    static constexpr bool FIFTH = false;
    static DEVICE u32 code(const u8 *b, int e) {
        return nibble_of(b + 4, e);
    }
};

struct Q5_0 {
    static constexpr int BYTES = 22, MINIMUM = -1;
    static constexpr bool FIFTH = true;
    static DEVICE u32 code(const u8 *b, int e) {
        return nibble_of(b + 6, e) | (word_at(b + 2) >> e & 1) << 4;
    }
};

struct Q5_1 {
    static constexpr int BYTES = 24, MINIMUM = 2;
    static constexpr bool FIFTH = true;
    static DEVICE u32 code(const u8 *b, int e) {
        return nibble_of(b + 8, e) | (word_at(b + 4) >> e & 1) << 4;
    }
};

struct Q4_K {
    static constexpr int BYTES = 144;
    static constexpr bool FIFTH = false;
    static DEVICE u32 code(const u8 *b, int e) {
        return b[16 + 32 * (e / 64) + e % 32] >> 4 * (e / 32 & 1) & 15;
    }
};

struct Q5_K {
    static constexpr int BYTES = 176;
    static constexpr bool FIFTH = true;
    static DEVICE u32 code(const u8 *b, int e) {
        return (b[48 + 32 * (e / 64) + e % 32] >> 4 * (e / 32 & 1) & 15) | (b[16 + e % 32] >> e / 32 & 1) << 4;
    }
};

struct Q6_K {
    static constexpr int BYTES = 210;
    static DEVICE u32 code(const u8 *b, int e) {
        const int half = e / 128, plane = e / 32 & 3, l = e & 31;
        const u32 low = b[64 * half + 32 * (plane & 1) + l] >> 4 * (plane >> 1) & 15;
        return low | (b[128 + 32 * half + l] >> 2 * plane & 3) << 4;
    }
};

/* Bits SHIFT.. of 8 codes as a word: WIDTH bits each, pair p's first at WIDTH * p, its second at 16 + WIDTH * p. */
template <class Type, int SHIFT, int WIDTH> DEVICE u32 gather(const u8 *block, int e) {
    const u32 mask = (1u << WIDTH) - 1;
    u32 word = 0;
    if (block)
        for (int p = 0; p < 4; p++) {
            word |= (Type::code(block, e + 2 * p) >> SHIFT & mask) << WIDTH * p;
            word |= (Type::code(block, e + 2 * p + 1) >> SHIFT & mask) << (16 + WIDTH * p);
        }
    return word;
}

/* ==== Q4_0, Q4_1, Q5_0, Q5_1 ==== */

template <class Type> DEVICE void repack_nibbles(const Source &source, u8 *tile, const Place &at) {
    constexpr int scales = Type::FIFTH ? 640 : 512;
    u32 fifths = 0;
    for (int j = 0; j < 2; j++)
        for (int upper = 0; upper < 2; upper++) {
            const u8 *b = source.block(at.row(upper), 2 * at.tile + j, Type::BYTES);
            *(u32 *)(tile + at.lane * 16 + (2 * j + upper) * 4) = gather<Type, 0, 4>(b, 8 * at.t);
            if (Type::FIFTH)
                fifths |= gather<Type, 4, 1>(b, 8 * at.t) << (8 * j + 4 * upper);
            u8 *scale = tile + scales + (at.g + 8 * upper) * 4 + j * 2;
            if (at.t == 0)
                *(u16 *)scale = b ? half_bits(b) : 0;
            if (at.t == 0 && Type::MINIMUM >= 0)
                *(u16 *)(scale + 64) = b ? half_bits(b + Type::MINIMUM) : 0;
        }
    if (Type::FIFTH)
        *(u32 *)(tile + 512 + at.lane * 4) = fifths;
}

/* ==== Q8_0, IQ4_NL: bytes ==== */

struct Q8_0 {
    static constexpr int BYTES = 34;
    static DEVICE int value(const u8 *b, int e) {
        return (signed char)b[2 + e];
    }
};

/* The values of a 4-bit code, 4 to a word. */
DEVICE int iq4_value(u32 code) {
    const u32 words[4] = {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u};
    return (signed char)(words[code >> 2] >> 8 * (code & 3));
}

struct IQ4_NL {
    static constexpr int BYTES = 18;
    static DEVICE int value(const u8 *b, int e) {
        return iq4_value(nibble_of(b + 2, e));
    }
};

template <class Type> DEVICE void repack_bytes(const Source &source, u8 *tile, const Place &at) {
    for (int j = 0; j < 2; j++)
        for (int upper = 0; upper < 2; upper++) {
            const u8 *b = source.block(at.row(upper), 2 * at.tile + j, Type::BYTES);
            u32 words[2] = {0x80808080u, 0x80808080u};
            for (int e = 0; b && e < 8; e++)
                words[e >> 2] ^= ((u32)Type::value(b, 8 * at.t + e) & 0xff) << 8 * (e & 3);
            u8 *codes = tile + j * 512 + at.lane * 16 + upper * 8;
            *(u32 *)codes = words[0];
            *(u32 *)(codes + 4) = words[1];
            if (at.t == 0)
                *(u16 *)(tile + 1024 + (at.g + 8 * upper) * 4 + j * 2) = b ? half_bits(b) : 0;
        }
}

/* ==== Q4_K, Q5_K ==== */

template <class Type> DEVICE void repack_superblock(const Source &source, u8 *tile, const Place &at) {
    for (int j = 0; j < 8; j += 2) {
        u32 fifths = 0;
        for (int i = 0; i < 4; i++) {
            const int odd = i >> 1, upper = i & 1, e = 32 * (j + odd) + 8 * at.t;
            const u8 *b = source.block(at.row(upper), at.tile, Type::BYTES);
            *(u32 *)(tile + (j >> 1) * 512 + at.lane * 16 + i * 4) = gather<Type, 0, 4>(b, e);
            if (Type::FIFTH)
                fifths |= gather<Type, 4, 1>(b, e) << (8 * odd + 4 * upper);
        }
        if (Type::FIFTH)
            *(u32 *)(tile + 2304 + at.lane * 16 + (j >> 1) * 4) = fifths;
    }
    for (int upper = 0; upper < 2; upper++) { /* a quarter of the header by each lane of a row */
        const u8 *b = source.block(at.row(upper), at.tile, Type::BYTES);
        *(u32 *)(tile + 2048 + (at.g + 8 * upper) * 16 + at.t * 4) = b ? word_at(b + 4 * at.t) : 0;
    }
}

/* ==== Q6_K ==== */

template <class Type> DEVICE void repack_sixes(const Source &source, u8 *tile, const Place &at) {
    for (int j = 0; j < 8; j++) {
        const int e = 32 * j + 8 * at.t;
        u32 upper_bits = 0;
        for (int upper = 0; upper < 2; upper++) {
            const u8 *b = source.block(at.row(upper), at.tile, Type::BYTES);
            *(u32 *)(tile + (j >> 1) * 512 + at.lane * 16 + ((j & 1) * 2 + upper) * 4) = gather<Type, 0, 4>(b, e);
            upper_bits |= gather<Type, 4, 2>(b, e) << 8 * upper;
            if (at.t < 2) /* lane t writes the scales of half t */
                tile[3072 + (at.t * 16 + at.g + 8 * upper) * 8 + j] = b ? b[192 + 2 * j + at.t] ^ 0x80 : 0x80;
        }
        *(u32 *)(tile + 2048 + ((j >> 2) * 32 + at.lane) * 16 + (j & 3) * 4) = upper_bits;
    }
    for (int upper = 0; upper < 2; upper++) {
        const u8 *b = source.block(at.row(upper), at.tile, Type::BYTES);
        if (at.t == 2)
            *(u16 *)(tile + 3328 + (at.g + 8 * upper) * 2) = b ? half_bits(b + 208) : 0;
    }
}

/* ==== Types that become f16: value(block, e) ==== */

struct F32 {
    static constexpr int ELEMS = 1, BYTES = 4;
    static DEVICE float value(const u8 *b, int) {
        return float_from_bits(word_at(b));
    }
};

struct F16 {
    static constexpr int ELEMS = 1, BYTES = 2;
    static DEVICE float value(const u8 *b, int) {
        return half_at(b);
    }
};

struct BF16 {
    static constexpr int ELEMS = 1, BYTES = 2;
    static DEVICE float value(const u8 *b, int) {
        return float_from_bits(half_bits(b) << 16);
    }
};

/* Element 128h + 32g + l: plane g of byte 32h + l; a scale and a minimum for each 16. */
struct Q2_K {
    static constexpr int ELEMS = 256, BYTES = 84;
    static DEVICE float value(const u8 *b, int e) {
        const u32 scale = b[e / 16], q = b[16 + 32 * (e / 128) + e % 32] >> 2 * (e / 32 & 3) & 3;
        return half_at(b + 80) * (float)((scale & 15) * q) - half_at(b + 82) * (float)(scale >> 4);
    }
};

/* As Q2_K, with an inverted third bit in plane e / 32 of the first 32 bytes, and 6-bit scales. */
struct Q3_K {
    static constexpr int ELEMS = 256, BYTES = 110;
    static DEVICE float value(const u8 *b, int e) {
        const int s = e / 16;
        const u32 low = b[96 + s % 8] >> 4 * (s / 8) & 15, high = b[104 + s % 4] >> 2 * (s / 4) & 3;
        const int third = b[e % 32] >> e / 32 & 1;
        const int q = (int)(b[32 + 32 * (e / 128) + e % 32] >> 2 * (e / 32 & 3) & 3) - (third ? 0 : 4);
        return half_at(b + 108) * (float)(((int)(low | high << 4) - 32) * q);
    }
};

struct IQ4_XS {
    static constexpr int ELEMS = 256, BYTES = 136;
    static DEVICE float value(const u8 *b, int e) {
        const int i = e / 32;
        const u32 low = b[4 + i / 2] >> 4 * (i & 1) & 15, high = half_bits(b + 2) >> 2 * i & 3;
        return half_at(b) * (float)(((int)(low | high << 4) - 32) * iq4_value(nibble_of(b + 8 + 16 * i, e % 32)));
    }
};

/* A power of two (E8M0, halved) times twice an E2M1 value: 0 1 2 3 4 6 8 12 and negative. */
struct MXFP4 {
    static constexpr int ELEMS = 32, BYTES = 17;
    static DEVICE float value(const u8 *b, int e) {
        const u32 code = nibble_of(b + 1, e), exponent = b[0];
        const float magnitude = (float)(0xc8643210u >> 4 * (code & 7) & 15);
        const float d = float_from_bits(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
        return d * (code & 8 ? -magnitude : magnitude);
    }
};

/* Element k of a row; 0 outside the matrix. */
template <class Type> DEVICE float element(const Source &source, int row, int k) {
    const u8 *b = source.block(row, k / Type::ELEMS, Type::BYTES);
    return b ? Type::value(b, k % Type::ELEMS) : 0.0f;
}

/* The power of two that brings amax to 1024..2048, so that odd pairs, times 16, stay in the range of f16. */
DEVICE float plain_scale(float amax) {
    int e = 10 - ((int)(bits_from_float(amax) >> 23) - 127);
    e = e > 126 ? 126 : e;
    return amax > 0.0f ? float_from_bits((u32)(e + 127) << 23) : 1.0f;
}

template <class Type> DEVICE void repack_plain(const Source &source, u8 *tile, const Place &at) {
    for (int upper = 0; upper < 2; upper++) {
        float v[16], amax = 0.0f;
        for (int i = 0; i < 16; i++) {
            v[i] = element<Type>(source, at.row(upper), 64 * at.tile + 32 * (i >> 3) + 8 * at.t + (i & 7));
            amax = fmaxf(amax, fabsf(v[i]));
        }
        amax = fmaxf(amax, lane_swap(amax, 1));
        amax = fmaxf(amax, lane_swap(amax, 2));
        const float scale = plain_scale(amax);
        for (int i = 0; i < 16; i += 2) {
            const float grow = i & 2 ? 16.0f : 1.0f;
            const u32 pair = f16_pair(f16_round(v[i] * scale * grow), f16_round(v[i + 1] * scale * grow));
            *(u32 *)(tile + (i >> 3) * 1024 + upper * 512 + at.lane * 16 + (i >> 1 & 3) * 4) = pair;
        }
        if (at.t == 0)
            *(float *)(tile + 2048 + (at.g + 8 * upper) * 4) = 1.0f / scale;
    }
}

/* ==== The kernels ==== */

/* Type, what writes a tile, elements of a block of the file, columns and bytes of a tile as in ir/quants.def. */
#define REPACK_TYPES(X)                                                                                                \
    X(F32, repack_plain, 1, 64, 2112)                                                                                  \
    X(F16, repack_plain, 1, 64, 2112)                                                                                  \
    X(Q4_0, repack_nibbles, 32, 64, 576)                                                                               \
    X(Q4_1, repack_nibbles, 32, 64, 640)                                                                               \
    X(Q5_0, repack_nibbles, 32, 64, 704)                                                                               \
    X(Q5_1, repack_nibbles, 32, 64, 768)                                                                               \
    X(Q8_0, repack_bytes, 32, 64, 1088)                                                                                \
    X(Q2_K, repack_plain, 256, 64, 2112)                                                                               \
    X(Q3_K, repack_plain, 256, 64, 2112)                                                                               \
    X(Q4_K, repack_superblock, 256, 256, 2304)                                                                         \
    X(Q5_K, repack_superblock, 256, 256, 2816)                                                                         \
    X(Q6_K, repack_sixes, 256, 256, 3360)                                                                              \
    X(IQ4_NL, repack_bytes, 32, 64, 1088)                                                                              \
    X(IQ4_XS, repack_plain, 256, 64, 2112)                                                                             \
    X(BF16, repack_plain, 1, 64, 2112)                                                                                 \
    X(MXFP4, repack_plain, 32, 64, 2112)

#define REPACK_AS(type, make, elems, tile_k, tile_bytes)                                                               \
    DEVICE void repack_as_##type(const u8 *from, u8 *to, int rows, int k) {                                            \
        const Place at(rows, k, tile_k);                                                                               \
        const u64 matrix = blockIdx.y, strips = (rows + 15) / 16, tiles = (k + tile_k - 1) / tile_k;                   \
        const Source source = {from + matrix * rows * (k / elems) * type::BYTES, rows, k / elems};                     \
        if (at.inside)                                                                                                 \
            make<type>(source, to + ((matrix * strips + at.strip) * tiles + at.tile) * tile_bytes, at);                \
    }
REPACK_TYPES(REPACK_AS)

#ifdef REPACK_TYPE /* one kernel, of that type */
#define REPACK_JOIN(type) repack_as_##type
#define REPACK_CALL(type) REPACK_JOIN(type)
KERNEL __launch_bounds__(128) REPACK_NAME(const u8 *from, u8 *to, int rows, int k) {
    REPACK_CALL(REPACK_TYPE)(from, to, rows, k);
}
#else /* one for each: repack_<type> */
#define REPACK_KERNEL(type, make, elems, tile_k, tile_bytes)                                                           \
    KERNEL __launch_bounds__(128) repack_##type(const u8 *from, u8 *to, int rows, int k) {                             \
        repack_as_##type(from, to, rows, k);                                                                           \
    }
REPACK_TYPES(REPACK_KERNEL)
#endif
