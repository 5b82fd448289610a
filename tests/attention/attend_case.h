/* attend_case.h - cases of attention for tests: their macros, their numbers by position, and what should come out. */
#ifndef LAP_TESTS_ATTENTION_ATTEND_CASE_H
#define LAP_TESTS_ATTENTION_ATTEND_CASE_H

#include "tests/attention/plane.h"

enum { SEQUENCES = 3, ROWS = 16 };

/* SPARSE_* of attention_kept.cu and attention_choose.cu; the context is the capacity. */
typedef struct SparseCase {
    int block, sink, local, tail, from;
    double alpha;
} SparseCase;

typedef struct AttendCase {
    const char *name;
    int heads, kv_heads, k_dim, v_dim;
    DType k_type, v_type; /* f32: f16 */
    int capacity, ring, lookback;
    int variant, score, sink, prepare; /* TEST_* of the bodies here */
    int planes;
    int start;                 /* positions of the first sequence before the test; the others begin earlier */
    int keys, vectors, stages; /* ATT_*; 0: the default */
    int wanted, stores;        /* 1: also with ATT_QUERY_ROWS; with ATT_STORE 0 and 2 */
    int early;                 /* ATT_EARLY */
    bool records;              /* the output of few rows is x records */
    int turned;                /* ATT_TURNED, but for fewer rows */
    int blocks;                /* ATT_BLOCKS; 0: the default */
    int chunk, queries, tile;  /* prefill: most rows of a call, query rows of a block, keys of a tile; 0: the default */
    int warps;                 /* ATT_WARPS of attention_decode.cu; 0: the default */
    int copies;                /* decode: 1: tiles come as before sm_90, without ATT_BULK */
    int pipeline;              /* decode by attention_pipeline.cu */
    int wgmma;                 /* prefill by attention_wgmma.cu, whose block and tile have one size */
    SparseCase sparse;         /* prefill; block 0: dense */
} AttendCase;

/* The numbers of all cases from now on. */
void case_seed(uint64_t seed);

bool case_causal(const AttendCase *c);
/* #define lines for decode of 8 or 16 rows, with ATT_STORE and ATT_QUERY_ROWS, or for prefill. malloc. */
char *case_decode_defines(const AttendCase *c, int rows, int store, int query_rows);
char *case_prefill_defines(const AttendCase *c);
/* Decode by attention_pipeline.cu, if it can do the case. */
bool case_can_pipeline(const AttendCase *c);
AttendCase case_pipeline(const AttendCase *c);
/* The decode kernel's file, dynamic shared memory and threads, and the floats of its partial results. */
const char *case_decode_file(const AttendCase *c);
int64_t case_shared(const AttendCase *c, int rows);
int case_decode_threads(const AttendCase *c);
int64_t case_partials(const AttendCase *c, int rows);

bool case_wgmma(const AttendCase *c); /* whether attention_wgmma.cu can do it */
/* The prefill kernel's file, dynamic shared memory, query rows and threads of a block. */
const char *case_prefill_file(const AttendCase *c);
int64_t case_prefill_shared(const AttendCase *c);
int case_prefill_queries(const AttendCase *c);
int case_prefill_threads(const AttendCase *c);
/* And of a sparse case: words of a list; threads and shared memory of attention_choose.cu. */
int case_words(const AttendCase *c);
int case_choose_threads(const AttendCase *c);
int64_t case_choose_shared(const AttendCase *c);

/* Row stride of a call's q, k and v, side by side, in floats, and where they begin in a row. */
int case_stride(const AttendCase *c);
int case_k_at(const AttendCase *c);
int case_v_at(const AttendCase *c);
/* Row `pos` of a sequence in plane p: float [case_stride]. */
void case_row(const AttendCase *c, int sequence, int pos, int plane, float *to);
float case_weight(int i);                     /* of the norms */
double case_turn(const AttendCase *c, int i); /* of RoPE */
float case_slope(int head);                   /* the table */

Plane case_plane(const AttendCase *c, bool values);

/* Keys and values of a sequence's first positions: as a cache holds them, and decoded, [length][kv_heads][dim]. */
typedef struct History {
    const AttendCase *of;
    int sequence, length;
    uint8_t *k, *v;
    float *k_number, *v_number;
} History;

History history_new(const AttendCase *c, int sequence, int length);
void history_free(History *h);

/* The row of a position; a plane after `length` positions, all bits set where nothing was stored. */
const uint8_t *history_row(const History *h, bool values, int pos);
/* The row of a position becomes another. */
void history_take(History *h, bool values, int pos, const uint8_t *row);
void history_cache(const History *h, bool values, int length, uint8_t *plane);
/* What the query at `pos` should give when the sequence has `length` positions: double [heads][v_dim]. */
void history_wanted(const History *h, int pos, int length, double *out);

#endif
