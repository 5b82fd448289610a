/* decode_check.c - attention_decode.cu and attention_pipeline.cu: errors, rows bit for bit the same however they come,
 * caches, poisoned memory.
 *
 * A case has three sequences that go on by 16 rows each. The rows of the first come at once; one, two, five and eight
 * at a time; and mixed with those of the others: its outputs and its cache must be the same bits every time. Where
 * warps can bring tiles for the others, those of some kernels do.
 */
#include "tests/attention/check.h"
#include "tests/kernels/records.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The kernels of a case; the last three only where it asks for them. */
enum { LARGE, SMALL, WANTED, UNSTORED, OWN, KERNELS };
static const struct {
    int rows, store, query_rows;
} kinds[KERNELS] = {{16, 1, 0}, {8, 1, 0}, {8, 1, 1}, {8, 0, 0}, {16, 2, 0}};

static bool asked(const AttendCase *c, int kind) {
    return kind < WANTED || (kind == WANTED ? c->wanted : c->stores);
}

int decode_wishes(const AttendCase *c, Wish *to) {
    int n = 0;
    for (int i = 0; i < KERNELS; i++)
        if (asked(c, i))
            to[n++] = (Wish){.file = case_decode_file(c),
                             .kernel = "attention_decode",
                             .shared = case_shared(c, kinds[i].rows),
                             .defines = case_decode_defines(c, kinds[i].rows, kinds[i].store, kinds[i].query_rows)};
    return n;
}

int decode_kernels(const AttendCase *c) {
    int n = 0;
    for (int i = 0; i < KERNELS; i++)
        n += asked(c, i);
    return n;
}

typedef struct Decode {
    Trial trial;
    const Wish *built[KERNELS];
    int calls;
    float *out[SEQUENCES];      /* [ROWS][heads * v_dim]: of the current script */
    float *first;               /* of the first sequence, by the first script */
    uint8_t *cache_k, *cache_v; /* of all sequences after it */
} Decode;

static size_t row_floats(const Decode *d) {
    return (size_t)(d->trial.of->heads * d->trial.of->v_dim);
}

/* ==== One call ==== */

/* Planes of a call's rows; NaN behind the live ones. */
static DevPtr put_planes(Decode *d, int most, int n, const RowOf *rows) {
    const AttendCase *c = d->trial.of;
    const size_t stride = (size_t)case_stride(c), plane = (size_t)most * stride, bytes = (size_t)c->planes * plane * 4;
    float *planes = malloc(bytes);
    memset(planes, 0xff, bytes);
    for (int p = 0; p < c->planes; p++)
        for (int r = 0; r < n; r++)
            case_row(c, rows[r].sequence, rows[r].pos, p, planes + (size_t)p * plane + (size_t)r * stride);
    DevPtr to = lab_upload(d->trial.lab, planes, bytes);
    free(planes);
    return to;
}

static DevPtr put_ints(Decode *d, int n, const int *v) {
    DevPtr to = lab_memory(d->trial.lab, (size_t)(n > ROWS ? n : ROWS) * 4, 0xff);
    lab_in(d->trial.lab, to, v, (size_t)n * 4);
    return to;
}

/* Bytes of the output of `most` rows. */
static size_t out_bytes(const Decode *d, int most) {
    return d->trial.of->records ? records_bytes((int64_t)row_floats(d), most / 8) : (size_t)most * row_floats(d) * 4;
}

/* All rows as f32. */
static void read_out(const Decode *d, int most, DevPtr out, float *to) {
    const size_t row = row_floats(d), bytes = out_bytes(d, most);
    if (!d->trial.of->records) {
        lab_out(d->trial.lab, to, out, bytes);
        return;
    }
    uint8_t *records = malloc(bytes);
    lab_out(d->trial.lab, records, out, bytes);
    for (int r = 0; r < most; r++)
        records_read(records, (int64_t)row, r, most / 8, to + (size_t)r * row);
    free(records);
}

/* Rows that are not live and places behind the partial results must still be poison. */
static void take_out(Decode *d, int most, int n, const RowOf *queries, DevPtr out) {
    const size_t row = row_floats(d);
    float *host = malloc((size_t)most * row * 4);
    read_out(d, most, out, host);
    for (int r = 0; r < most; r++)
        if (r >= n && !isnan(host[(size_t)r * row]))
            trial_fail(&d->trial, "a row that is not live was written");
    for (int r = 0; r < n; r++) {
        const RowOf q = queries[r];
        trial_compare(&d->trial, q, host + (size_t)r * row);
        memcpy(d->out[q.sequence] + (size_t)(q.pos - d->trial.start[q.sequence]) * row, host + (size_t)r * row,
               row * 4);
    }
    free(host);
}

/* Grids of all sizes, so that blocks have several items, one or none. */
static uint32_t grid_of(Decode *d, const Wish *w, int threads) {
    static const int grids[] = {0, 3, 0, 1, 7, 40};
    const int grid = grids[d->calls++ % 6], resident = wish_resident(d->trial.lab, w, threads);
    return (uint32_t)(grid && grid < resident ? grid : resident);
}

static void call(Decode *d, int kind, int n, const RowOf *rows) {
    Trial *t = &d->trial;
    Lab *l = t->lab;
    const AttendCase *c = t->of;
    const Wish *w = d->built[kind];
    const int most = kinds[kind].rows, threads = case_decode_threads(c);
    int query_rows[ROWS], query_pos[ROWS], store_pos[ROWS], slots[ROWS], n_queries = 0;
    RowOf queries[ROWS];
    for (int r = 0; r < n; r++) {
        store_pos[r] = rows[r].pos;
        slots[r] = rows[r].sequence;
        if (t->length[slots[r]] < store_pos[r] + 1)
            t->length[slots[r]] = store_pos[r] + 1;
    }
    for (int r = 0; r < n; r++) /* of the wanted rows, every third is not; they come in another order */
        if (!kinds[kind].query_rows || r % 3 != 1 || n == 1) {
            query_rows[n_queries] = kinds[kind].query_rows ? n - 1 - r : r;
            queries[n_queries] = rows[query_rows[n_queries]];
            query_pos[n_queries] = queries[n_queries].pos;
            n_queries++;
        }
    DevPtr q = put_planes(d, most, n_queries, queries), kv = put_planes(d, most, n, rows);
    DevPtr k = kinds[kind].store ? kv + 4 * (uint64_t)case_k_at(c) : 0;
    DevPtr v = kinds[kind].store ? kv + 4 * (uint64_t)case_v_at(c) : 0;
    DevPtr out = lab_memory(l, out_bytes(d, most), 0xff);
    DevPtr partials = lab_memory(l, (size_t)case_partials(c, most) * 4 + 4, 0xff), tail = lab_memory(l, 12, 0);
    DevPtr ints[] = {put_ints(d, n_queries, query_rows),
                     put_ints(d, n_queries, query_pos),
                     put_ints(d, n, store_pos),
                     put_ints(d, n, slots),
                     put_ints(d, SEQUENCES, t->length),
                     put_ints(d, 1, &n_queries),
                     put_ints(d, 1, &n)};
    void *arguments[] = {&q,        &k,       &v,       &t->cache_k, &t->cache_v, &out,
                         &partials, &tail,    &ints[0], &ints[1],    &ints[2],    &ints[3],
                         &ints[4],  &ints[5], &ints[6], &t->weight,  &t->turns,   &t->slopes};
    const DevLaunch launch = {.kernel = w->built,
                              .grid = {grid_of(d, w, threads)},
                              .block = {(uint32_t)threads},
                              .shared_bytes = (uint32_t)w->shared,
                              .pdl = true,
                              .arguments = arguments};
    DevError e = {0};
    must(dev_launch(l->stream, &launch, &e), &e);
    for (int s = 0; s < SEQUENCES && kinds[kind].store == 1; s++)
        trial_check_caches(t, s, t->start[s]);
    take_out(d, most, n_queries, queries, out);
    uint32_t counters[3], behind;
    lab_out(l, counters, tail, 12);
    lab_out(l, &behind, partials + (uint64_t)case_partials(c, most) * 4, 4);
    const bool counted = counters[0] || counters[1] || counters[2];
    if (counted || behind != 0xffffffffu)
        trial_fail(t, counted ? "the tail's counters are not 0" : "partial results are too large");
    const DevPtr memory[] = {q, kv, out, partials, tail, ints[0], ints[1], ints[2], ints[3], ints[4], ints[5], ints[6]};
    for (int i = 0; i < 12; i++)
        dev_free(l->device, memory[i]);
}

/* ==== Scripts: ways in which the rows come ==== */

static void begin(Decode *d) {
    trial_rewind(&d->trial);
    for (int s = 0; s < SEQUENCES; s++)
        memset(d->out[s], 0xff, ROWS * row_floats(d) * 4);
}

/* The first sequence's next rows. */
static void go_on(Decode *d, int kind, int n) {
    RowOf rows[ROWS];
    for (int i = 0; i < n; i++)
        rows[i] = (RowOf){0, d->trial.length[0] + i};
    call(d, kind, n, rows);
}

/* The same outputs and, of the first sequence, the same cache as by the first script. */
static void same(Decode *d, bool cache, const char *what) {
    const size_t row = row_floats(d);
    for (int i = 0; i < ROWS; i++) {
        float *out = d->out[0] + (size_t)i * row;
        if (!isnan(out[0]) && memcmp(out, d->first + (size_t)i * row, row * 4) != 0) {
            trial_fail(&d->trial, what);
            break;
        }
    }
    const size_t bytes_k = trial_cache_bytes(&d->trial, false), bytes_v = trial_cache_bytes(&d->trial, true);
    uint8_t *k = malloc(bytes_k), *v = malloc(bytes_v);
    lab_out(d->trial.lab, k, d->trial.cache_k, bytes_k);
    lab_out(d->trial.lab, v, d->trial.cache_v, bytes_v);
    if (cache && (memcmp(k, d->cache_k, bytes_k / SEQUENCES) != 0 || memcmp(v, d->cache_v, bytes_v / SEQUENCES) != 0))
        trial_fail(&d->trial, "the cache is not the same");
    free(k);
    free(v);
}

/* 16 rows at once; what the others are compared with. */
static void at_once(Decode *d) {
    const size_t bytes_k = trial_cache_bytes(&d->trial, false), bytes_v = trial_cache_bytes(&d->trial, true);
    begin(d);
    go_on(d, LARGE, 16);
    memcpy(d->first, d->out[0], ROWS * row_floats(d) * 4);
    lab_out(d->trial.lab, d->cache_k, d->trial.cache_k, bytes_k);
    lab_out(d->trial.lab, d->cache_v, d->trial.cache_v, bytes_v);
}

static void in_pieces(Decode *d) {
    static const int pieces[] = {1, 2, 5, 8};
    begin(d);
    for (int i = 0; i < 4; i++)
        go_on(d, SMALL, pieces[i]);
    same(d, true, "rows that come in pieces are not the same");
    begin(d);
    go_on(d, LARGE, 9);
    go_on(d, LARGE, 7);
    same(d, true, "9 rows and 7 are not the same");
}

/* Rows of all sequences, in no order. */
static void mixed(Decode *d) {
    uint32_t random = 7;
    begin(d);
    for (int left = SEQUENCES * ROWS; left > 0;) {
        RowOf rows[ROWS];
        int n = 0, next[SEQUENCES];
        memcpy(next, d->trial.length, sizeof next);
        random = random * 1664525 + 1013904223;
        const int kind = random >> 31 ? SMALL : LARGE;
        const int many = 1 + (int)((random >> 16 & 0x7fff) % (uint32_t)kinds[kind].rows);
        for (int tries = 0; n < many && tries < 100; tries++) {
            random = random * 1664525 + 1013904223;
            const int s = (int)((random >> 16) % SEQUENCES);
            if (next[s] < d->trial.start[s] + ROWS)
                rows[n++] = (RowOf){s, next[s]++};
        }
        call(d, kind, n, rows);
        left -= n;
    }
    same(d, true, "rows beside other sequences are not the same");
}

static void other_stores(Decode *d) {
    if (d->trial.of->wanted) {
        begin(d);
        go_on(d, WANTED, 8);
        go_on(d, WANTED, 5);
        go_on(d, WANTED, 3);
        same(d, true, "wanted rows are not the same");
    }
    if (!d->trial.of->stores)
        return;
    RowOf rows[ROWS];
    for (int i = 0; i < ROWS; i++)
        rows[i] = (RowOf){0, d->trial.start[0] + i};
    call(d, UNSTORED, 8, rows); /* the cache has all rows from the script before */
    same(d, true, "rows of a cache of another layer are not the same");
    begin(d);
    call(d, OWN, 16, rows);
    same(d, false, "rows that are not stored are not the same");
}

bool decode_check(Lab *l, const AttendCase *c, const Wish *built) {
    Decode d = {0};
    for (int i = 0; i < KERNELS; i++)
        d.built[i] = asked(c, i) ? built++ : NULL;
    trial_open(&d.trial, l, c, ROWS);
    const size_t bytes = ROWS * row_floats(&d) * 4;
    for (int s = 0; s < SEQUENCES; s++)
        d.out[s] = malloc(bytes);
    d.first = malloc(bytes);
    d.cache_k = malloc(trial_cache_bytes(&d.trial, false));
    d.cache_v = malloc(trial_cache_bytes(&d.trial, true));
    at_once(&d);
    in_pieces(&d);
    mixed(&d);
    other_stores(&d);
    const bool ok = trial_report(&d.trial, c->pipeline ? "pipeline" : "decode");
    for (int s = 0; s < SEQUENCES; s++)
        free(d.out[s]);
    free(d.first);
    free(d.cache_k);
    free(d.cache_v);
    trial_close(&d.trial);
    return ok;
}
