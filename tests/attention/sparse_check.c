/* sparse_check.c - attention_means.cu, attention_choose.cu and attention_prefill.cu with lists of kept blocks, against
 * the brute-force oracle of the evaluator's tests.
 *
 * Lists must be the oracle's but where a score is so near the limit that rounding the mean keys to 16 bits, as the
 * kernel does and the evaluator does not, may decide. The error of a row's score is a sum over the dims d of q[d] *
 * mean[d] * r with |r| <= u, 2^-11 or, of bf16, 2^-8; for random r its deviation is at most u / sqrt(3) *
 * sqrt(sum of (q * mean)^2), in the basis of the keys. A score is near within six such deviations, of it and of the
 * largest, and 1e-4 for sums in f32; scores of a block are weighted means of its rows', or so in log2. Results must be
 * those of the softmax over what the kernel's own list has.
 */
#include "tests/attention/sparse_check.h"

#include "ir/dtype.h"
#include "tests/eval/sparse_oracle.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT = 1, SLOTS = 2 };

typedef struct Trial {
    Lab *lab;
    const AttendCase *of;
    const Wish *built;
    int positions;
    float *q, *k, *v;       /* [positions][heads or kv_heads][dim], as elements of 16 bits and the cache hold them */
    uint8_t *k_row, *v_row; /* the same as the evaluator stores it */
    uint32_t *kept;         /* of the last call */
    float *out;             /* of the last call: [rows][heads][v_dim] */
    SparseCounts *counts;   /* over all trials */
    int failures;
} Trial;

static void trial_fail(Trial *t, const char *what) {
    if (t->failures++ < 10)
        printf("FAILED: %s: %s\n", t->of->name, what);
}

/* ==== Numbers ==== */

static uint64_t random_state = 1;

void sparse_seed(uint64_t seed) {
    random_state = seed * 0x9e3779b97f4a7c15u + 1;
}

static double uniform(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state * 0x2545f4914f6cdd1du >> 11) * 0x1p-53;
}

static int between(int low, int high) {
    return low + (int)(uniform() * (high - low + 1));
}

static float real(double size) {
    return (float)((2 * uniform() - 1) * size);
}

static uint16_t round16(const AttendCase *c, float x) {
    return c->k_type == DT_BF16 ? f32_to_bf16(x) : f32_to_f16(x);
}

/* What is left of a head vector in the cache. */
static void hold_vector(Trial *t, bool values, int pos, int head) {
    Plane p = case_plane(t->of, values);
    const size_t at = (size_t)(pos * p.heads + head);
    p.heads = 1;
    float *x = (values ? t->v : t->k) + at * (size_t)p.dim;
    uint8_t *row = (values ? t->v_row : t->k_row) + at * plane_row_bytes(&p);
    plane_encode(&p, x, row);
    plane_decode(&p, row, x);
}

/* And of a query, 16 bits in the basis of the keys. */
static void hold_query(const AttendCase *c, float *x) {
    if (kv_rotated(c->k_type))
        kv_rotate(x, c->k_dim);
    for (int i = 0; i < c->k_dim; i++)
        x[i] = c->k_type == DT_BF16 ? bf16_to_f32(round16(c, x[i])) : f16_to_f32(round16(c, x[i]));
    if (kv_rotated(c->k_type))
        kv_rotate_back(x, c->k_dim);
}

static void hold(Trial *t) {
    const AttendCase *c = t->of;
    for (int i = 0; i < t->positions; i++) {
        for (int h = 0; h < c->kv_heads; h++) {
            hold_vector(t, false, i, h);
            hold_vector(t, true, i, h);
        }
        for (int h = 0; h < c->heads; h++)
            hold_query(c, t->q + (i * c->heads + h) * c->k_dim);
    }
}

/* Neighbouring keys have something in common, which some queries look for: else all blocks would score alike. */
static void fill(Trial *t, double common) {
    const AttendCase *c = t->of;
    const int D = c->k_dim, N = t->positions, topics = N / c->sparse.block + c->heads + 2;
    float *topic = malloc((size_t)topics * (size_t)D * sizeof *topic);
    for (int i = 0; i < topics * D; i++)
        topic[i] = real(common);
    for (int i = 0; i < N; i++) {
        for (int h = 0; h < c->kv_heads; h++)
            for (int d = 0; d < D; d++)
                t->k[(i * c->kv_heads + h) * D + d] = topic[(i / c->sparse.block + h) % topics * D + d] + real(1);
        for (int j = 0; j < c->kv_heads * c->v_dim; j++)
            t->v[i * c->kv_heads * c->v_dim + j] = real(1);
        for (int h = 0; h < c->heads; h++)
            for (int d = 0; d < D; d++)
                t->q[(i * c->heads + h) * D + d] = topic[(i * 3 / c->sparse.block / 2 + h) % topics * D + d] + real(1);
    }
    free(topic);
    hold(t);
}

static Trial trial_new(Lab *l, const AttendCase *c, const Wish *built, SparseCounts *counts) {
    const size_t n = (size_t)c->capacity;
    Trial t = {.lab = l, .of = c, .built = built, .positions = c->capacity, .counts = counts};
    t.q = malloc(n * (size_t)(c->heads * c->k_dim) * sizeof *t.q);
    t.k = malloc(n * (size_t)(c->kv_heads * c->k_dim) * sizeof *t.k);
    t.v = malloc(n * (size_t)(c->kv_heads * c->v_dim) * sizeof *t.v);
    const Plane k = case_plane(c, false), v = case_plane(c, true);
    t.k_row = malloc(n * plane_row_bytes(&k));
    t.v_row = malloc(n * plane_row_bytes(&v));
    return t;
}

static void trial_free(Trial *t) {
    free(t->q);
    free(t->k);
    free(t->v);
    free(t->k_row);
    free(t->v_row);
    free(t->kept);
    free(t->out);
}

/* ==== Calls ==== */

/* Rows at positions first .. first + rows - 1, and `ahead` more of the prompt to come. */
typedef struct Call {
    int first, rows, ahead;
} Call;

static size_t kept_bytes(const AttendCase *c) {
    return (size_t)(c->capacity / c->sparse.block + 1) * (size_t)(c->heads * case_words(c)) * 4;
}

/* Element i of a prepared query, by its place: units 2 t and 2 t + 1 of a span side by side where it meets packed keys.
 */
static int query_element(const AttendCase *c, int i) {
    return kv_group(c->k_type) ? i / 32 * 32 + i / 2 % 4 * 8 + i % 2 * 4 + i % 32 / 8 : i;
}

/* `rows` of them from position `first` on, and one that is not live: NaN. */
static DevPtr upload_queries(Trial *t, int first, int rows) {
    const AttendCase *c = t->of;
    const size_t D = (size_t)c->k_dim, live = (size_t)(rows * c->heads), all = live + (size_t)c->heads;
    uint16_t *y = malloc(all * D * sizeof *y);
    float *x = malloc(D * sizeof *x);
    memset(y, 0xff, all * D * sizeof *y);
    for (size_t r = 0; r < live; r++) {
        memcpy(x, t->q + ((size_t)(first * c->heads) + r) * D, D * sizeof *x);
        if (kv_rotated(c->k_type))
            kv_rotate(x, c->k_dim);
        for (int i = 0; i < c->k_dim; i++)
            y[r * D + (size_t)i] = round16(c, x[query_element(c, i)]);
    }
    const DevPtr at = lab_upload(t->lab, y, all * D * sizeof *y);
    free(x);
    free(y);
    return at;
}

/* All bits are set where nothing was stored. */
static DevPtr upload_cache(Trial *t, bool values, int length) {
    const Plane p = case_plane(t->of, values);
    const size_t bytes = plane_bytes(&p);
    uint8_t *all = memset(malloc(SLOTS * bytes), 0xff, SLOTS * bytes);
    for (int i = 0; i < length; i++)
        plane_put(&p, all + SLOT * bytes, i, (values ? t->v_row : t->k_row) + (size_t)i * plane_row_bytes(&p));
    const DevPtr at = lab_upload(t->lab, all, SLOTS * bytes);
    free(all);
    return at;
}

/* What a call's launches read and write. */
typedef struct Memory {
    DevPtr q16, cache_k, cache_v, means, kept, out, query_pos, slots, lengths, count, ahead, slopes;
} Memory;

static Memory memory_new(Trial *t, const Call *at) {
    const AttendCase *c = t->of;
    const int end = at->first + at->rows, lengths[SLOTS] = {7, end};
    int *pos = malloc((size_t)at->rows * sizeof *pos), *slots = malloc((size_t)at->rows * sizeof *slots);
    float slopes[64];
    for (int i = 0; i < at->rows; i++) {
        pos[i] = at->first + i;
        slots[i] = SLOT;
    }
    for (int i = 0; i < 64; i++)
        slopes[i] = case_slope(i);
    const Memory m = {
        .q16 = upload_queries(t, at->first, at->rows),
        .cache_k = upload_cache(t, false, end),
        .cache_v = upload_cache(t, true, end),
        .means = lab_memory(t->lab, (size_t)(c->capacity / c->sparse.block + 1) * (size_t)(c->kv_heads * c->k_dim) * 2,
                            0xff),
        .kept = lab_memory(t->lab, kept_bytes(c), 0xff),
        .out = lab_memory(t->lab, (size_t)(at->rows + 1) * (size_t)(c->heads * c->v_dim) * 4, 0xff),
        .query_pos = lab_upload(t->lab, pos, (size_t)at->rows * sizeof *pos),
        .slots = lab_upload(t->lab, slots, (size_t)at->rows * sizeof *slots),
        .lengths = lab_upload(t->lab, lengths, sizeof lengths),
        .count = lab_upload(t->lab, &at->rows, sizeof at->rows),
        .ahead = lab_upload(t->lab, &at->ahead, sizeof at->ahead),
        .slopes = lab_upload(t->lab, slopes, sizeof slopes),
    };
    free(pos);
    free(slots);
    return m;
}

static void memory_free(Trial *t, const Memory *m) {
    const DevPtr all[] = {m->q16,       m->cache_k, m->cache_v, m->means, m->kept,  m->out,
                          m->query_pos, m->slots,   m->lengths, m->count, m->ahead, m->slopes};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        dev_free(t->lab->device, all[i]);
}

static void choose(Trial *t, Memory *m, int rows) {
    const AttendCase *c = t->of;
    const int blocks = c->capacity / c->sparse.block;
    void *means_arguments[] = {&m->cache_k, &m->means, &m->slots, &m->lengths};
    void *arguments[] = {&m->q16,     &m->means, &m->kept,  &m->query_pos, &m->slots,
                         &m->lengths, &m->count, &m->ahead, &m->slopes};
    const DevLaunch launches[] = {
        {.kernel = t->built[SPARSE_MEANS].built,
         .grid = {(uint32_t)c->kv_heads, (uint32_t)blocks},
         .block = {256},
         .pdl = true,
         .arguments = means_arguments},
        /* Fewer blocks than there are query blocks do further ones. */
        {.kernel = t->built[SPARSE_CHOOSE].built,
         .grid = {(uint32_t)c->heads, (uint32_t)(rows % 2 ? 2 : 2 * (rows / c->sparse.block + 1))},
         .block = {(uint32_t)case_choose_threads(c)},
         .shared_bytes = (uint32_t)t->built[SPARSE_CHOOSE].shared,
         .pdl = true,
         .arguments = arguments}};
    DevError e = {0};
    for (int i = 0; i < 2; i++)
        must(dev_launch(t->lab->stream, &launches[i], &e), &e);
}

/* dense: without lists. The rows to t->out, with one behind them that must stay as it was. */
static void attend(Trial *t, Memory *m, int rows, bool dense) {
    const AttendCase *c = t->of;
    const size_t row = (size_t)(c->heads * c->v_dim);
    const Wish *w = &t->built[dense ? SPARSE_DENSE : SPARSE_ATTEND];
    void *arguments[10] = {&m->q16,     &m->cache_k,   &m->cache_v,
                           &m->out,     &m->query_pos, &m->slots,
                           &m->lengths, &m->count,     dense ? (void *)&m->slopes : (void *)&m->kept,
                           &m->slopes};
    const DevLaunch launch = {.kernel = w->built,
                              .grid = {(uint32_t)c->heads, (uint32_t)(rows / case_prefill_queries(c)) + 2},
                              .block = {(uint32_t)case_prefill_threads(c)},
                              .shared_bytes = (uint32_t)w->shared,
                              .pdl = true,
                              .arguments = arguments};
    DevError e = {0};
    must(dev_launch(t->lab->stream, &launch, &e), &e);
    free(t->out);
    t->out = malloc((size_t)(rows + 1) * row * 4);
    lab_out(t->lab, t->out, m->out, (size_t)(rows + 1) * row * 4);
    for (size_t i = 0; i < row; i++)
        if (!isnan(t->out[(size_t)rows * row + i])) {
            trial_fail(t, "a row that is not live was written");
            break;
        }
}

/* ==== Lists ==== */

static double capped(double s, double q, double k, int h) {
    (void)q;
    (void)k;
    (void)h;
    return 2 * tanh(s / 2);
}

static double sloped(double s, double q, double k, int h) {
    return s - (double)case_slope(h) * (q - k);
}

static SparseOracle oracle_of(const Trial *t, const Call *at) {
    const AttendCase *c = t->of;
    const SparseCase *s = &c->sparse;
    return (SparseOracle){
        .p = {.alpha = s->alpha, .block = s->block, .sink = s->sink, .local = s->local, .tail = s->tail},
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .k_dim = c->k_dim,
        .v_dim = c->v_dim,
        .q = t->q,
        .k = t->k,
        .v = t->v,
        .scale = (float)(3 / sqrt(c->k_dim)),
        .score = c->score == 1   ? capped
                 : c->score == 2 ? sloped
                                 : NULL,
        .prompt = at->first + at->rows + at->ahead,
        .from = s->from};
}

/* In log2: what rounding the means may do to the scores of rows from..to-1. */
static double near_of(const Trial *t, const SparseOracle *o, int from, int to, int h) {
    const AttendCase *c = t->of;
    const int B = c->sparse.block, D = c->k_dim, kh = h / (c->heads / c->kv_heads);
    float *mean = malloc((size_t)D * sizeof *mean), *q = malloc((size_t)D * sizeof *q);
    double most = 0;
    for (int n = 0; n < to / B; n++) {
        memset(mean, 0, (size_t)D * sizeof *mean);
        for (int j = n * B; j < n * B + B; j++)
            for (int d = 0; d < D; d++)
                mean[d] += t->k[(j * c->kv_heads + kh) * D + d] / (float)B;
        if (kv_rotated(c->k_type))
            kv_rotate(mean, D);
        for (int i = from; i < to; i++) {
            double sum = 0;
            memcpy(q, t->q + (i * c->heads + h) * D, (size_t)D * sizeof *q);
            if (kv_rotated(c->k_type))
                kv_rotate(q, D);
            for (int d = 0; d < D; d++)
                sum += (double)q[d] * mean[d] * q[d] * mean[d];
            most = sum > most ? sum : most;
        }
    }
    free(mean);
    free(q);
    const double u = c->k_type == DT_BF16 ? 0x1p-8 : 0x1p-11, deviation = u / sqrt(3) * sqrt(most) * o->scale * 1.4427;
    return 2 * 6 * deviation + 1e-4;
}

static bool kept(const Trial *t, int m, int h, int n) {
    const int words = case_words(t->of);
    return t->kept[(m * t->of->heads + h) * words + n / 32] >> n % 32 & 1;
}

static void check_lists(Trial *t, const Call *at) {
    const AttendCase *c = t->of;
    const SparseOracle o = oracle_of(t, at);
    const int B = c->sparse.block, end = at->first + at->rows;
    bool *keep = malloc((size_t)(end / B + 1) * sizeof *keep);
    double *margin = malloc((size_t)(end / B + 1) * sizeof *margin);
    for (int m = at->first / B; m <= (end - 1) / B; m++) {
        const int from = m * B > at->first ? m * B : at->first, to = m * B + B < end ? m * B + B : end;
        for (int h = 0; h < c->heads; h++) {
            const double near = near_of(t, &o, from, to, h);
            oracle_keep(&o, m, from, to, h, keep, margin);
            for (int n = 0; n < 32 * case_words(c); n++) {
                const bool mine = kept(t, m, h, n);
                if (n > m && mine)
                    trial_fail(t, "a block ahead is kept");
                if (n > m)
                    continue;
                t->counts->kept += mine;
                t->counts->left_out += !mine;
                t->counts->near += margin[n] < near;
                t->counts->chosen += mine && isfinite(margin[n]);
                t->counts->otherwise += mine != keep[n];
                if (mine != keep[n] && !(margin[n] < near)) {
                    char text[160];
                    snprintf(text, sizeof text,
                             "query block %d, head %d: key block %d is %s, %g from the limit, near: %g", m, h, n,
                             mine ? "kept" : "left out", margin[n], near);
                    trial_fail(t, text);
                }
            }
        }
    }
    free(keep);
    free(margin);
}

/* As in check.c, but for q, which is 16 bits already, and for keys of tq3_0: logits of up to 40 here are off by as much
 * as their centroids, 3e-5, and so are weights by 1.2e-3. Found are up to 1.9e-3. */
static double tolerance_of(const AttendCase *c) {
    if (c->k_type == DT_BF16 || c->v_type == DT_BF16)
        return 1e-2;
    return kv_rotated(c->k_type) ? 4e-3 : kv_group(c->k_type) || kv_group(c->v_type) ? 2e-3 : 1.2e-3;
}

static void check_results(Trial *t, const Call *at) {
    const AttendCase *c = t->of;
    const SparseOracle o = oracle_of(t, at);
    const double tolerance = tolerance_of(c);
    double *want = malloc((size_t)c->v_dim * sizeof *want), all_error = 0, all_size = 0;
    bool *keep = malloc((size_t)(c->capacity / c->sparse.block + 1) * sizeof *keep);
    for (int i = 0; i < at->rows; i++)
        for (int h = 0; h < c->heads; h++) {
            const int pos = at->first + i, m = pos / c->sparse.block;
            const float *got = t->out + (size_t)(i * c->heads + h) * (size_t)c->v_dim;
            double error = 0, size = 0;
            for (int n = 0; n <= m; n++)
                keep[n] = kept(t, m, h, n);
            oracle_attend(&o, pos, h, keep, want);
            for (int d = 0; d < c->v_dim; d++) {
                error += (got[d] - want[d]) * (got[d] - want[d]);
                size += want[d] * want[d];
            }
            if (!(error <= size * 9 * tolerance * tolerance)) {
                char text[120];
                snprintf(text, sizeof text, "position %d, head %d: relative error %.1e", pos, h, sqrt(error / size));
                trial_fail(t, text);
            }
            all_error += error;
            all_size += size;
        }
    const double relative = sqrt(all_error / all_size);
    if (!(relative <= tolerance))
        trial_fail(t, "the error is too large");
    t->counts->worst = fmax(t->counts->worst, relative / tolerance);
    free(want);
    free(keep);
}

/* ==== Checks ==== */

static void read_kept(Trial *t, const Memory *m) {
    free(t->kept);
    t->kept = malloc(kept_bytes(t->of));
    lab_out(t->lab, t->kept, m->kept, kept_bytes(t->of));
}

static void run(Trial *t, const Call *at) {
    Memory m = memory_new(t, at);
    choose(t, &m, at->rows);
    read_kept(t, &m);
    attend(t, &m, at->rows, false);
    memory_free(t, &m);
    check_lists(t, at);
    check_results(t, at);
}

/* A block of keys that the queries of one block point at, far from what is kept anyway. */
static void needle(Trial *t) {
    const AttendCase *c = t->of;
    const int B = c->sparse.block, D = c->k_dim, blocks = t->positions / B;
    const int query = blocks - 1 - c->sparse.tail, far = query - c->sparse.local;
    const int h = between(0, c->heads - 1), hidden = between(c->sparse.sink, far), group = c->heads / c->kv_heads;
    fill(t, 0);
    for (int j = 0; j < B; j++)
        for (int d = 0; d < D; d++) {
            const float x = d % 3 ? 0.75f : -0.75f;
            t->k[((hidden * B + j) * c->kv_heads + h / group) * D + d] += x;
            t->q[((query * B + j) * c->heads + h) * D + d] += x;
        }
    hold(t);
    const Call at = {query * B, B, t->positions - (query + 1) * B};
    run(t, &at);
    if (!kept(t, query, h, hidden))
        trial_fail(t, "a needle was not found");
}

/* A NaN among the keys is not hidden: its block is kept by all behind it, and nothing else changes. */
static void not_a_number(Trial *t) {
    const AttendCase *c = t->of;
    const int B = c->sparse.block, D = c->k_dim, where = between(0, t->positions / 2), n = where / B;
    const int kh = between(0, c->kv_heads - 1), group = c->heads / c->kv_heads;
    const Call at = {0, t->positions / B * B, t->positions};
    const int M = at.rows / B, words = case_words(c);
    fill(t, 1.2);
    Memory m = memory_new(t, &at);
    choose(t, &m, at.rows);
    read_kept(t, &m);
    uint32_t *before = malloc(kept_bytes(c));
    memcpy(before, t->kept, kept_bytes(c));
    memory_free(t, &m);
    t->k[(where * c->kv_heads + kh) * D + between(0, D - 1)] = NAN;
    hold_vector(t, false, where, kh);
    m = memory_new(t, &at);
    choose(t, &m, at.rows);
    read_kept(t, &m);
    memory_free(t, &m);
    for (int q = 0; q < M; q++)
        for (int h = 0; h < c->heads; h++) {
            if (h / group == kh && q >= n && !kept(t, q, h, n))
                trial_fail(t, "a block with a NaN is left out");
            if (h / group != kh && memcmp(before + (q * c->heads + h) * words, t->kept + (q * c->heads + h) * words,
                                          (size_t)words * 4) != 0)
                trial_fail(t, "a NaN changed the choice of a head that does not see it");
        }
    free(before);
}

/* With lists that keep everything the bits are those of the kernel without lists. */
static void all_kept(Trial *t) {
    const AttendCase *c = t->of;
    const int B = c->sparse.block, words = case_words(c), rows = between(t->positions / 3, t->positions / 2);
    const Call at = {between(0, t->positions - rows), rows, 0};
    const size_t bytes = (size_t)(rows * c->heads * c->v_dim) * 4;
    fill(t, 1);
    Memory m = memory_new(t, &at);
    attend(t, &m, rows, true);
    float *dense = malloc(bytes);
    memcpy(dense, t->out, bytes);
    uint32_t *lists = calloc(1, kept_bytes(c));
    for (int q = 0; q <= (t->positions - 1) / B; q++)
        for (int h = 0; h < c->heads; h++)
            for (int n = 0; n <= q; n++)
                lists[(q * c->heads + h) * words + n / 32] |= 1u << n % 32;
    lab_in(t->lab, m.kept, lists, kept_bytes(c));
    attend(t, &m, rows, false);
    if (memcmp(dense, t->out, bytes) != 0)
        trial_fail(t, "with all blocks kept it is not as without lists");
    memory_free(t, &m);
    free(dense);
    free(lists);
}

bool sparse_check(Lab *l, const AttendCase *c, const Wish *built, SparseCounts *counts) {
    const int B = c->sparse.block, N = c->capacity;
    Trial t = trial_new(l, c, built, counts);
    fill(&t, 1.2);
    const int whole = between(N / B / 2, N / B - 1) * B, odd = N - between(1, B);
    const Call calls[] = {
        {0, odd, 0},                                               /* a prompt, its end within a block */
        {whole - between(1, 3) * B, between(17, 3 * B), N},        /* from a block's beginning on */
        {odd - between(B / 2 + 1, 2 * B), between(17, B + 17), 0}, /* from within a block */
        {between(0, N - 20), 20, between(0, B)},
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        Call at = calls[i];
        at.rows = at.first + at.rows > N ? N - at.first : at.rows;
        run(&t, &at);
    }
    needle(&t);
    not_a_number(&t);
    all_kept(&t);
    trial_free(&t);
    return t.failures == 0;
}

int sparse_wishes(const AttendCase *c, Wish *to) {
    AttendCase dense = *c;
    dense.sparse = (SparseCase){0};
    to[SPARSE_MEANS] =
        (Wish){.file = "attention_means.cu", .kernel = "attention_means", .defines = case_prefill_defines(c)};
    to[SPARSE_CHOOSE] = (Wish){.file = "attention_choose.cu",
                               .kernel = "attention_choose",
                               .shared = case_choose_shared(c),
                               .defines = case_prefill_defines(c)};
    to[SPARSE_ATTEND] = (Wish){.file = case_prefill_file(c),
                               .kernel = "attention_prefill",
                               .shared = case_prefill_shared(c),
                               .defines = case_prefill_defines(c)};
    to[SPARSE_DENSE] = (Wish){.file = case_prefill_file(c),
                              .kernel = "attention_prefill",
                              .shared = case_prefill_shared(&dense),
                              .defines = case_prefill_defines(&dense)};
    return SPARSE_WISHES;
}
