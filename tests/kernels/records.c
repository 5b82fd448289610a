/* records.c - see records.h. */
#include "tests/kernels/records.h"

#include "ir/dtype.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD = 4384, COLUMNS = 256, SUMS = 4096, SCALES = 4352, BLOCK = 32, ROWS = 8 };

size_t records_bytes(int64_t k, int tiles) {
    return (size_t)((k + COLUMNS - 1) / COLUMNS) * (size_t)tiles * RECORD;
}

/* The power of two that brings the largest magnitude to 512..1024. */
static float scale_of(const float *x, int n) {
    float largest = 0;
    int e;
    for (int i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    frexpf(largest, &e);
    return largest > 0 ? ldexpf(1.0f, 10 - e) : 1.0f;
}

/* As it is kept. */
static float put_half(uint8_t *to, size_t at, float v) {
    const uint16_t half = f32_to_f16(v);
    memcpy(to + at, &half, sizeof half);
    return f16_to_f32(half);
}

/* A row's n columns of a record, the others zeros. */
static void put_row(uint8_t *record, size_t row, const float *x, int n) {
    const float scale = scale_of(x, n), unit = 1.0f / scale;
    for (int b = 0; b < COLUMNS / BLOCK; b++) {
        float sum = 0;
        for (int i = 0; i < BLOCK; i++) {
            const int k = BLOCK * b + i;
            const float shrunk = i / 2 % 2 ? 16 : 1; /* pairs 1 and 3 of eight columns */
            const float v = k < n ? x[k] * scale : 0;
            sum += shrunk * put_half(record, (size_t)b * 512 + row * 64 + (size_t)i * 2, v / shrunk);
        }
        const size_t sums = SUMS + row * 32 + (size_t)(b / 2) * 8 + (size_t)(b % 2) * 2;
        put_half(record, sums + 4, sum - put_half(record, sums, sum));
    }
    memcpy(record + SCALES + 4 * row, &unit, sizeof unit);
}

uint8_t *records_make(const float *x, int64_t k, int live, int tiles) {
    uint8_t *all = malloc(records_bytes(k, tiles));
    memset(all, 0xff, records_bytes(k, tiles));
    for (int64_t first = 0; first < k; first += COLUMNS)
        for (int r = 0; r < live; r++) {
            const int64_t left = k - first;
            put_row(all + (size_t)(first / COLUMNS * tiles + r / ROWS) * RECORD, (size_t)(r % ROWS), x + r * k + first,
                    left < COLUMNS ? (int)left : COLUMNS);
        }
    return all;
}

void records_read(const uint8_t *records, int64_t k, int row, int tiles, float *to) {
    for (int64_t i = 0; i < k; i++) {
        const uint8_t *record = records + (size_t)(i / COLUMNS * tiles + row / ROWS) * RECORD;
        const size_t in_record = (size_t)(i % COLUMNS), in_tile = (size_t)(row % ROWS);
        uint16_t half;
        float unit;
        memcpy(&half, record + in_record / BLOCK * 512 + in_tile * 64 + in_record % BLOCK * 2, sizeof half);
        memcpy(&unit, record + SCALES + 4 * in_tile, sizeof unit);
        to[i] = f16_to_f32(half) * unit * (i / 2 % 2 ? 16.0f : 1.0f);
    }
}
