/* prefill_check.c - attention_heads.cu and attention_prefill.cu: chunks of rows of a sequence, at its beginning and
 * behind other rows, of odd sizes; errors, caches, poisoned memory. */
#include "tests/attention/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS, PREFILL, KERNELS };

int prefill_wishes(const AttendCase *c, Wish *to) {
    to[HEADS] = (Wish){.file = "attention_heads.cu", .kernel = "attention_heads", .defines = case_prefill_defines(c)};
    to[PREFILL] = (Wish){.file = case_prefill_file(c),
                         .kernel = "attention_prefill",
                         .shared = case_prefill_shared(c),
                         .defines = case_prefill_defines(c)};
    return KERNELS;
}

/* One plane of the rows: the planes of decode added in order. */
static float *make_rows(const AttendCase *c, int sequence, int first, int n) {
    const size_t stride = (size_t)case_stride(c);
    float *rows = calloc((size_t)n * stride, sizeof *rows), *plane = malloc(stride * sizeof *plane);
    for (int r = 0; r < n; r++)
        for (int p = 0; p < c->planes; p++) {
            case_row(c, sequence, first + r, p, plane);
            for (size_t i = 0; i < stride; i++)
                rows[(size_t)r * stride + i] = p ? rows[(size_t)r * stride + i] + plane[i] : plane[i];
        }
    free(plane);
    return rows;
}

/* The next n rows of a sequence; queries: the last so many of them, the last first if there are few. */
static void call(Trial *t, const Wish *built, int sequence, int n, int queries) {
    const AttendCase *c = t->of;
    Lab *l = t->lab;
    const size_t stride = (size_t)case_stride(c), row = (size_t)(c->heads * c->v_dim);
    const int first = t->length[sequence];
    float *rows = make_rows(c, sequence, first, n), *q_rows = malloc((size_t)queries * stride * 4);
    int *ints = malloc((size_t)n * 3 * sizeof *ints), *query_pos = ints + n, *slots = ints + 2 * n;
    t->length[sequence] += n;
    for (int r = 0; r < n; r++) {
        ints[r] = first + r;
        slots[r] = sequence;
    }
    for (int r = 0; r < queries; r++) {
        const int from = queries < n ? n - 1 - r : r;
        query_pos[r] = first + from;
        memcpy(q_rows + (size_t)r * stride, rows + (size_t)from * stride, stride * 4);
    }
    DevPtr q = lab_upload(t->lab, q_rows, (size_t)queries * stride * 4),
           k = lab_upload(t->lab, rows, (size_t)n * stride * 4), kv = k;
    DevPtr v = k + 4 * (uint64_t)case_v_at(c);
    k += 4 * (uint64_t)case_k_at(c);
    DevPtr store_at = lab_upload(t->lab, ints, (size_t)n * 4),
           query_at = lab_upload(t->lab, query_pos, (size_t)queries * 4);
    DevPtr slots_at = lab_upload(t->lab, slots, (size_t)n * 4),
           lengths = lab_upload(t->lab, t->length, sizeof t->length);
    DevPtr query_count = lab_upload(t->lab, &queries, 4), store_count = lab_upload(t->lab, &n, 4);
    DevPtr q16 = lab_memory(l, (size_t)(queries * c->heads * c->k_dim) * 2, 0xff);
    DevPtr out = lab_memory(l, (size_t)(queries + 1) * row * 4, 0xff);
    void *heads_arguments[] = {&q,        &k,        &v,           &q16,         &t->cache_k, &t->cache_v, &query_at,
                               &store_at, &slots_at, &query_count, &store_count, &t->weight,  &t->turns};
    void *arguments[] = {&q16,      &t->cache_k, &t->cache_v,  &out,      &query_at,
                         &slots_at, &lengths,    &query_count, &t->slopes};
    const DevLaunch launches[] = {
        {.kernel = built[HEADS].built, .grid = {7}, .block = {256}, .pdl = true, .arguments = heads_arguments},
        {.kernel = built[PREFILL].built,
         .grid = {(uint32_t)c->heads, (uint32_t)(queries / case_prefill_queries(c)) + 2},
         .block = {(uint32_t)case_prefill_threads(c)},
         .shared_bytes = (uint32_t)built[PREFILL].shared,
         .pdl = true,
         .arguments = arguments}};
    DevError e = {0};
    for (int i = 0; i < KERNELS; i++)
        must(dev_launch(l->stream, &launches[i], &e), &e);
    trial_check_caches(t, sequence, t->start[sequence]);
    float *host = malloc((size_t)(queries + 1) * row * 4);
    lab_out(l, host, out, (size_t)(queries + 1) * row * 4);
    for (int r = 0; r < queries; r++)
        trial_compare(t, (RowOf){sequence, query_pos[r]}, host + (size_t)r * row);
    for (size_t i = 0; i < row; i++)
        if (!isnan(host[(size_t)queries * row + i])) {
            trial_fail(t, "a row that is not live was written");
            break;
        }
    const DevPtr memory[] = {q, kv, store_at, query_at, slots_at, lengths, query_count, store_count, q16, out};
    for (int i = 0; i < 10; i++)
        dev_free(l->device, memory[i]);
    free(host);
    free(rows);
    free(q_rows);
    free(ints);
}

bool prefill_check(Lab *l, const AttendCase *c, const Wish *built) {
    Trial t;
    trial_open(&t, l, c, 2 * c->chunk + 8);
    trial_rewind(&t);
    call(&t, built, 0, c->chunk, c->chunk);
    call(&t, built, 2, c->chunk / 3 + 1, c->chunk / 3 + 1);
    call(&t, built, 2, c->chunk - 3, c->chunk - 3);
    call(&t, built, 0, 1, 1);
    call(&t, built, 1, c->chunk / 2 + 1, 3);
    call(&t, built, 0, c->chunk - 5, c->chunk - 5);
    const bool ok = trial_report(&t, "prefill");
    trial_close(&t);
    return ok;
}
