/* kv.h - KvLayout: the one geometry of a K/V cache.
 *
 * plan-kv fills it; the evaluator, the printed plan, the attention kernels with their store and the
 * speculative rollback all read it. Positions are absolute everywhere; only
 * kv_slot() knows that a cache may be a ring.
 */
#ifndef LAP_IR_KV_H
#define LAP_IR_KV_H

#include "ir/dtype.h"

typedef struct KvLayout {
    DType k_type, v_type; /* element type of each plane, of kv.def */
    int heads;            /* K/V heads */
    int k_dim, v_dim;     /* elements of a head */
    bool planned;         /* plan-kv ran: the fields below are valid */
    bool ring;            /* capacity bounded by the look-back; else one slot a position */
    int64_t lookback;     /* largest q - k any reader may see; -1: no bound */
    int64_t capacity;     /* positions held */
    int64_t k_row, v_row; /* bytes of one position in each plane: [heads, dim], heads without gaps */
    int64_t bytes;        /* both planes of one sequence: capacity * (k_row + v_row) */
} KvLayout;

/* Place of an absolute position in the planes. */
static inline int64_t kv_slot(const KvLayout *l, int64_t pos) {
    return l->ring ? pos % l->capacity : pos;
}

/* The oldest position still held after rows up to and including `last` were stored. */
static inline int64_t kv_oldest(const KvLayout *l, int64_t last) {
    return last + 1 > l->capacity ? last + 1 - l->capacity : 0;
}

/* ==== Rows (kv_row.c) ==== */

/* A plane may be of this type. */
bool kv_storable(DType t);
/* Those types, for messages: "f32, f16, .." */
const char *kv_storable_names(Arena *a);

/* n elements, whole blocks, to bytes and back. What is decoded is in the basis of the type. dst and src of bytes need
 * no alignment. The bytes of a block depend on its elements alone. */
void kv_encode(DType t, const float *src, uint8_t *dst, int64_t n);
void kv_decode(DType t, const uint8_t *src, float *dst, int64_t n);

/* Vectors of n elements, whole groups of 128, into the basis of a rotated type and back; in place. Lengths and dot
 * products stay as they are, up to rounding. */
bool kv_rotated(DType t);
void kv_rotate(float *x, int64_t n);
void kv_rotate_back(float *x, int64_t n);

/* ==== On a GPU (kv_plane.c) ==== */

/* There a plane of a sequence has places for its capacity rounded up to KV_PLACES.
 *
 * Numbers of 16 bits are [heads][places][dim], and of those of a place pieces of 16 bytes lie in turned order: piece p
 * of place n where piece p ^ n % m would be, m the largest power of 2 that divides dim / 8, at most 8. So the keys of a
 * tile are one stretch of memory, are copied as they are, and do not meet in one bank of shared memory.
 *
 * Of other types a plane is its codes, [places][heads][code bits * dim / 8 bytes], and behind them f16
 * [heads][dim / group][places]: what a block of the evaluator holds, in another order, and once; scales of 8 neighbours
 * are 16 aligned bytes. */
enum { KV_PLACES = 16 };

/* "Q8_0" of Form_Q8_0 in attention_forms.cu; NULL: no kernel reads the type. */
const char *kv_form(DType t);
/* Elements that share a scale; 0: elements are numbers of 16 bits. */
int kv_group(DType t);
int64_t kv_places(int64_t capacity);
/* Of one head at one position, and of the plane of a sequence; -1: too many. */
int64_t kv_gpu_head_bytes(DType t, int dim);
int64_t kv_gpu_plane_bytes(DType t, int heads, int dim, int64_t capacity);

#endif
