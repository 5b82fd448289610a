/* attention_encode.cu - head vectors into a form of attention_forms.cu, and into the basis of a rotated one; by a warp.
 *
 * Formulas, constants and the order of sums are those of ir/kv_row.c: the same numbers give the same codes and scales.
 * x: f32 [D] in shared memory, which the warp sees.
 */
#ifndef LAP_ATTENTION_ENCODE
#define LAP_ATTENTION_ENCODE
#include "attention_forms.cu"

/* ==== The rotation, of groups of 128 ====
 *
 * Lane l has elements 4 l .. 4 l + 3. With H the Walsh-Hadamard matrix: y = D2 H D1 x / sqrt(128), and back with D1 and
 * D2 exchanged. Bit i of D1 and D2: element i changes its sign.
 */

template <int WHICH> DEVICE u32 turn_signs(int word) {
    return WHICH == 1 ? (word == 0   ? 0xe46a0359u
                         : word == 1 ? 0x42f85949u
                         : word == 2 ? 0xa4c63bbbu
                                     : 0x49f250a9u)
                      : (word == 0   ? 0x16acee90u
                         : word == 1 ? 0x3f628fdcu
                         : word == 2 ? 0xb7a5357au
                                     : 0xbea56562u);
}

/* x, or -x where bit i is set. */
DEVICE float signed_by(float x, u32 signs, int i) {
    return float_from_bits(bits_from_float(x) ^ signs >> i << 31);
}

DEVICE void add_and_subtract(float &a, float &b) {
    const float sum = a + b;
    b = a - b;
    a = sum;
}

template <int BEFORE, int AFTER> DEVICE void turn_group(float (&v)[4]) {
    const float size = 0.08838834764831845f; /* 1 / sqrt(128) */
    const int lane = threadIdx.x & 31;
    const u32 before = turn_signs<BEFORE>(lane >> 3) >> 4 * (lane & 7);
    const u32 after = turn_signs<AFTER>(lane >> 3) >> 4 * (lane & 7);
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = signed_by(v[i], before, i);
    add_and_subtract(v[0], v[1]);
    add_and_subtract(v[2], v[3]);
    add_and_subtract(v[0], v[2]);
    add_and_subtract(v[1], v[3]);
#pragma unroll
    for (int step = 1; step < 32; step *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float other = lane_swap(v[i], step);
            v[i] = lane & step ? other - v[i] : v[i] + other;
        }
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = signed_by(v[i] * size, after, i);
}

DEVICE void turn(float (&v)[4]) {
    turn_group<1, 2>(v);
}

DEVICE void turn_back(float (&v)[4]) {
    turn_group<2, 1>(v);
}

/* A whole head vector, in its place. */
template <int D> DEVICE void turn_vector(float *x) {
    warp_sync();
#pragma unroll 1
    for (int at = 4 * (threadIdx.x & 31); at < D; at += 128) {
        float v[4] = {x[at], x[at + 1], x[at + 2], x[at + 3]};
        turn(v);
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[at + i] = v[i];
    }
    warp_sync();
}

/* ==== Elements of 16 bits ==== */

/* The vector to shared or device memory; at(p): where its piece p of 16 bytes goes. */
template <int D, class Form, class At> DEVICE void store_elements(u8 *to, const float *x, At at) {
    for (int i = threadIdx.x & 31; i < D / 2; i += 32)
        ((u32 *)to)[4 * at(i / 4) + i % 4] = Form::round_pair(x[2 * i], x[2 * i + 1]);
}

template <int D, class Form> DEVICE void store_elements(u8 *to, const float *x) {
    store_elements<D, Form>(to, x, [](int piece) { return piece; });
}

/* A query that meets packed keys: their pairs 2 k and 2 k + 1 of a span are an operand of 16 columns, so columns 2 t
 * and 2 t + 1 of the first 8 are elements 8 t + 2 k and 8 t + 2 k + 4, of the last 8 those behind them. */
template <int D> DEVICE void store_permuted(u8 *to, const float *x) {
    for (int i = threadIdx.x & 31; i < D / 2; i += 32) {
        const float *from = x + i / 16 * 32 + i % 4 * 8 + (i >> 3 & 1) * 2 + (i >> 2 & 1);
        ((u32 *)to)[i] = Form_F16::round_pair(from[0], from[4]);
    }
}

/* ==== Scales ==== */

#define ATT_LARGEST_F16 65504.0f

/* d as f16, at most the largest number. False when that is 0 or no number: then all codes are to be those of zero. */
DEVICE bool make_scale(float d, u16 &scale) {
    const float bound = d > ATT_LARGEST_F16 ? ATT_LARGEST_F16 : d < -ATT_LARGEST_F16 ? -ATT_LARGEST_F16 : d;
    scale = d == d ? f16_round(bound) : (u16)0x7e00;
    return d == d && (scale & 0x7fff) != 0;
}

/* Of 32 elements, one a lane: the first of the largest magnitude; NaN when one is not finite. */
DEVICE float extreme_of(float v) {
    const u32 size = bits_from_float(v) & 0x7fffffffu, most = warp_largest(size);
    const float extreme = lane_from(v, lowest_bit(lanes_where(size == most)));
    return most > 0x7f7fffffu ? float_from_bits(0x7fc00000u) : most == 0 ? 0.0f : extreme;
}

/* ==== Codes ====
 *
 * encode<D>(codes, scales, apart, x): the codes of a head vector and its scales, each `apart` behind the one before.
 */

template <class Form> struct Encoder;

template <> struct Encoder<Form_Q8_0> {
    static DEVICE u32 code_of(float v, float inverse) {
        return (u32)(int)roundf(v * inverse) & 0xffu;
    }
    /* Lane l has unit l % 8 of every fourth span from span l / 8 on. All spans at once: each is a chain of latencies, and
     * a block waits for its own rows. */
    template <int D> static DEVICE void encode(u8 *codes, u16 *scales, int apart, const float *x) {
        const int lane = threadIdx.x & 31, unit = lane & 7;
#pragma unroll
        for (int first = 0; first < D / 32; first += 4) {
            const int span = first + (lane >> 3);
            const bool inside = D % 128 == 0 || span < D / 32;
            float v[4];
            u32 most = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                v[i] = inside ? x[32 * span + 4 * unit + i] : 0.0f;
                const u32 size = bits_from_float(v[i]) & 0x7fffffffu;
                most = size > most ? size : most;
            }
#pragma unroll
            for (int step = 1; step < 8; step *= 2) {
                const u32 other = lane_swap(most, step);
                most = other > most ? other : most;
            }
            const float d = float_from_bits(most > 0x7f7fffffu ? 0x7fc00000u : most) / 127.0f;
            u16 scale;
            const bool sound = make_scale(d, scale);
            const float inverse = 1.0f / d;
            if (!inside)
                continue;
            u8 *to = codes + 32 * span + 2 * unit;
            *(u16 *)to = sound ? (u16)(code_of(v[0], inverse) | code_of(v[1], inverse) << 8) : 0;
            *(u16 *)(to + 16) = sound ? (u16)(code_of(v[2], inverse) | code_of(v[3], inverse) << 8) : 0;
            if (unit == 0)
                scales[span * apart] = scale;
        }
    }
};

template <> struct Encoder<Form_Q4_0> {
    template <int D> static DEVICE void encode(u8 *codes, u16 *scales, int apart, const float *x) {
        const int lane = threadIdx.x & 31;
#pragma unroll 1
        for (int span = 0; span < D / 32; span++) {
            const float v = x[32 * span + lane], d = extreme_of(v) / -8.0f;
            u16 scale;
            int code = 8;
            if (make_scale(d, scale)) {
                code = (int)(v * (1.0f / d) + 8.5f);
                code = code > 15 ? 15 : code;
            }
            const int next = lane_swap(code, 1);
            if (lane % 2 == 0)
                codes[16 * span + lane / 2] = (u8)(code | next << 4);
            if (lane == 0)
                scales[span * apart] = scale;
        }
    }
};

template <> struct Encoder<Form_TQ3_0> {
    static DEVICE double length(const float (&v)[4]) {
        double sum = (double)v[0] * v[0];
#pragma unroll
        for (int i = 1; i < 4; i++)
            sum += (double)v[i] * v[i];
        for (int step = 16; step; step >>= 1)
            sum += lane_swap(sum, step);
        return sqrt(sum);
    }
    static DEVICE int code_of(float y) {
        return (y >= -0.154259f) + (y >= -0.091775f) + (y >= -0.043589f) + (y >= 0.0f) + (y >= 0.043589f) +
               (y >= 0.091775f) + (y >= 0.154259f);
    }
    static DEVICE float centroid(int code) {
        const int size = code < 4 ? 3 - code : code - 4;
        const float c = size == 0 ? 0.021460f : size == 1 ? 0.065717f : size == 2 ? 0.117832f : 0.190685f;
        return code < 4 ? -c : c;
    }
    /* Lane l has unit l % 8 of span l / 8 of the group. */
    template <int D> static DEVICE void encode(u8 *codes, u16 *scales, int apart, const float *x) {
        const int lane = threadIdx.x & 31, span = lane >> 3;
#pragma unroll 1
        for (int group = 0; group < D / 128; group++) {
            float v[4], taken[4];
            u32 size = 0, low = 0, third = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                v[i] = x[128 * group + 4 * lane + i];
                const u32 now = bits_from_float(v[i]) & 0x7fffffffu;
                size = now > size ? now : size;
            }
            const bool finite = warp_largest(size) <= 0x7f7fffffu;
            const double g = finite ? length(v) : (double)float_from_bits(0x7fc00000u);
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = g > 1e-10 ? (float)(v[i] / g) : 0.0f;
            turn(v);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int code = code_of(v[i]);
                taken[i] = centroid(code);
                low |= (u32)(code & 3) << (4 * i + 2 * (span & 1));
                third |= (u32)(code >> 2) << (4 * i + span);
            }
            const double norm = g / length(taken);
            low |= lane_swap(low, 8);
            third |= lane_swap(third, 8);
            third |= lane_swap(third, 16);
            u16 scale;
            make_scale(norm > 65504.0 ? ATT_LARGEST_F16 : (float)norm, scale);
            if (span % 2 == 0)
                *(u16 *)(codes + 32 * group + 8 * span + 2 * (lane & 7)) = (u16)low;
            if (span == 0)
                *(u16 *)(codes + D / 4 + 16 * group + 2 * (lane & 7)) = (u16)third;
            if (lane == 0)
                scales[group * apart] = scale;
        }
    }
};

#endif
