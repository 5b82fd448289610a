/* plane.c - see plane.h. Where things lie follows from ir/kv.h and attention_forms.cu, written again. */
#include "tests/attention/plane.h"

#include <stdlib.h>
#include <string.h>

enum { SPAN = 32, Q8_BLOCK = 34, Q4_BLOCK = 18, TQ3_BLOCK = 14 };

size_t plane_bytes(const Plane *p) {
    return (size_t)kv_gpu_plane_bytes(p->type, p->heads, p->dim, p->capacity);
}

size_t plane_row_bytes(const Plane *p) {
    return (size_t)p->heads * dtype_row_bytes(p->type, p->dim);
}

static bool packed(const Plane *p) {
    return kv_group(p->type) != 0;
}

void plane_encode(const Plane *p, const float *x, uint8_t *row) {
    kv_encode(p->type, x, row, (int64_t)p->heads * p->dim);
}

void plane_decode(const Plane *p, const uint8_t *row, float *x) {
    const int64_t n = (int64_t)p->heads * p->dim;
    kv_decode(p->type, row, x, n);
    if (kv_rotated(p->type))
        kv_rotate_back(x, n);
}

/* ==== Blocks of the evaluator ==== */

/* Element i of a row; set: also what it becomes, in bytes that were 0. */
static int block_code(DType t, uint8_t *row, int i, const int *set) {
    const int j = i % SPAN;
    uint8_t *b = row + i / SPAN * (t == DT_Q8_0 ? Q8_BLOCK : t == DT_Q4_0 ? Q4_BLOCK : TQ3_BLOCK) + 2;
    if (t == DT_Q8_0) {
        b[j] = set ? (uint8_t)*set : b[j];
        return b[j];
    }
    if (t == DT_Q4_0) {
        const int shift = j < 16 ? 0 : 4;
        b[j % 16] |= (uint8_t)(set ? *set << shift : 0);
        return b[j % 16] >> shift & 15;
    }
    b[j / 4] |= (uint8_t)(set ? (*set & 3) << j % 4 * 2 : 0);
    b[8 + j / 8] |= (uint8_t)(set ? *set >> 2 << j % 8 : 0);
    return (b[j / 4] >> j % 4 * 2 & 3) | (b[8 + j / 8] >> j % 8 & 1) << 2;
}

static uint8_t *block_scale(DType t, uint8_t *row, int block) {
    return row + block * (t == DT_Q8_0 ? Q8_BLOCK : t == DT_Q4_0 ? Q4_BLOCK : TQ3_BLOCK);
}

/* ==== The plane ==== */

static int place_of(const Plane *p, int pos) {
    return p->ring ? pos % p->capacity : pos;
}

/* Numbers of 16 bits: byte b of a head vector. */
static size_t number_byte(const Plane *p, int pos, int head, int b) {
    const size_t place = (size_t)place_of(p, pos), places = (size_t)kv_places(p->capacity);
    const int pieces = p->dim / 8, divides = pieces & -pieces, turn = divides < 8 ? divides : 8;
    const int piece = b / 16 ^ (int)(place % (size_t)turn);
    return ((size_t)head * places + place) * 2 * (size_t)p->dim + (size_t)(16 * piece + b % 16);
}

static size_t code_bytes(const Plane *p) {
    return (size_t)kv_gpu_head_bytes(p->type, p->dim) - (size_t)(p->dim / kv_group(p->type) * 2);
}

static uint8_t *plane_codes(const Plane *p, uint8_t *plane, int pos, int head) {
    return plane + ((size_t)place_of(p, pos) * (size_t)p->heads + (size_t)head) * code_bytes(p);
}

static uint8_t *plane_scale(const Plane *p, uint8_t *plane, int pos, int head, int group) {
    const size_t places = (size_t)kv_places(p->capacity), groups = (size_t)(p->dim / kv_group(p->type));
    const size_t at = ((size_t)head * groups + (size_t)group) * places + (size_t)place_of(p, pos);
    return plane + places * (size_t)p->heads * code_bytes(p) + 2 * at;
}

/* Bits `bits` of a byte from bit `bit` on; set: what they become. */
static int bits_at(uint8_t *byte, int bit, int bits, const int *set) {
    const int mask = (1 << bits) - 1;
    if (set)
        *byte = (uint8_t)((*byte & ~(mask << bit)) | *set << bit);
    return *byte >> bit & mask;
}

static int plane_code(const Plane *p, uint8_t *codes, int e, const int *set) {
    const int span = e / SPAN, unit = e % SPAN / 4, i = e % 4;
    if (p->type == DT_Q8_0)
        return bits_at(codes + 32 * span + i / 2 * 16 + 2 * unit + i % 2, 0, 8, set);
    if (p->type == DT_Q4_0)
        return bits_at(codes + 16 * span + 2 * unit + i / 2, i % 2 * 4, 4, set);
    const int low_bit = 4 * i + span % 2 * 2, third_bit = 4 * i + span % 4;
    uint8_t *low = codes + span / 2 * 16 + 2 * unit, *third = codes + p->dim / 4 + span / 4 * 16 + 2 * unit;
    const int of_low = set ? *set & 3 : 0, of_third = set ? *set >> 2 : 0;
    return bits_at(low + low_bit / 8, low_bit % 8, 2, set ? &of_low : NULL) |
           bits_at(third + third_bit / 8, third_bit % 8, 1, set ? &of_third : NULL) << 2;
}

void plane_put(const Plane *p, uint8_t *plane, int pos, const uint8_t *from) {
    const size_t bytes = plane_row_bytes(p);
    if (!packed(p)) {
        for (int b = 0; b < (int)bytes; b++)
            plane[number_byte(p, pos, b / (2 * p->dim), b % (2 * p->dim))] = from[b];
        return;
    }
    uint8_t *row = memcpy(malloc(bytes), from, bytes);
    for (int h = 0; h < p->heads; h++) {
        uint8_t *head = row + (size_t)h * bytes / (size_t)p->heads;
        for (int i = 0; i < p->dim; i++) {
            const int code = block_code(p->type, head, i, NULL);
            plane_code(p, plane_codes(p, plane, pos, h), i, &code);
        }
        for (int b = 0; b < p->dim / SPAN; b++)
            memcpy(plane_scale(p, plane, pos, h, b * SPAN / kv_group(p->type)), block_scale(p->type, head, b), 2);
    }
    free(row);
}

void plane_get(const Plane *p, const uint8_t *from, int pos, uint8_t *row) {
    const size_t bytes = plane_row_bytes(p);
    uint8_t *plane = (uint8_t *)from; /* nothing is set */
    if (!packed(p)) {
        for (int b = 0; b < (int)bytes; b++)
            row[b] = from[number_byte(p, pos, b / (2 * p->dim), b % (2 * p->dim))];
        return;
    }
    memset(row, 0, bytes);
    for (int h = 0; h < p->heads; h++) {
        uint8_t *head = row + (size_t)h * bytes / (size_t)p->heads;
        for (int i = 0; i < p->dim; i++) {
            const int code = plane_code(p, plane_codes(p, plane, pos, h), i, NULL);
            block_code(p->type, head, i, &code);
        }
        for (int b = 0; b < p->dim / SPAN; b++)
            memcpy(block_scale(p->type, head, b), plane_scale(p, plane, pos, h, b * SPAN / kv_group(p->type)), 2);
    }
}

/* ==== Comparing ==== */

static void count(int a, int b, int *other, int *far) {
    *other += a != b;
    *far += abs(a - b) > 1;
}

static int number_at(const uint8_t *p) {
    return p[0] | p[1] << 8;
}

void plane_compare(const Plane *p, const uint8_t *a, const uint8_t *b, int *other, int *far) {
    const size_t bytes = plane_row_bytes(p);
    uint8_t *x = memcpy(malloc(bytes), a, bytes), *y = memcpy(malloc(bytes), b, bytes);
    for (size_t i = 0; i < bytes && !packed(p); i += 2)
        count(number_at(x + i), number_at(y + i), other, far);
    for (int i = 0; i < p->heads * p->dim && packed(p); i++) {
        int of_a = block_code(p->type, x, i, NULL), of_b = block_code(p->type, y, i, NULL);
        if (p->type == DT_Q8_0) {
            of_a = (int8_t)of_a;
            of_b = (int8_t)of_b;
        }
        count(of_a, of_b, other, far);
        if (i % kv_group(p->type) == 0)
            count(number_at(block_scale(p->type, x, i / SPAN)), number_at(block_scale(p->type, y, i / SPAN)), other,
                  far);
    }
    free(x);
    free(y);
}
