/* attend_case.c - see attend_case.h. */
#include "tests/attention/attend_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool case_causal(const AttendCase *c) {
    return c->variant != 1;
}

/* ==== Macros ==== */

static int padded(int dim) {
    return 2 * dim + 16;
}

static int wide(const AttendCase *c) {
    return c->k_dim > c->v_dim ? c->k_dim : c->v_dim;
}

static int chunk_of(const AttendCase *c) {
    return c->kv_heads >= 16 ? 128 : c->kv_heads >= 4 ? 64 : 32;
}

static int keys_of(const AttendCase *c) {
    if (c->pipeline)
        return c->keys ? c->keys : wide(c) > 256 ? 32 : 64;
    const int keys = c->keys ? c->keys : wide(c) > 256 ? 16 : wide(c) > 128 ? 32 : 64;
    return keys < chunk_of(c) ? keys : chunk_of(c);
}

static int vectors_of(const AttendCase *c, int rows) {
    if (c->vectors)
        return c->vectors;
    return c->heads / c->kv_heads * rows <= 16 || (!c->pipeline && wide(c) > 256) ? 16 : 32;
}

static int warps_of(const AttendCase *c) {
    return c->warps && !c->pipeline ? c->warps : 8;
}

static int turned_of(const AttendCase *c, int rows) {
    return c->turned < rows ? c->turned : rows;
}

static int stages_of(const AttendCase *c, int rows) {
    if (c->stages || c->pipeline)
        return c->stages ? c->stages : 4;
    return wide(c) > 256 || (c->k_dim > 128 && vectors_of(c, rows) > 16) ? 3 : 4;
}

Plane case_plane(const AttendCase *c, bool values) {
    const DType t = values ? c->v_type : c->k_type;
    return (Plane){t == DT_F32 ? DT_F16 : t, c->kv_heads, values ? c->v_dim : c->k_dim, c->capacity, c->ring};
}

/* A tile of `keys` of them, of `row` bytes each where they are not packed. */
static int64_t tile_bytes(const Plane *p, int64_t keys, int64_t row) {
    const int64_t scales = kv_group(p->type) ? p->dim / kv_group(p->type) * 2 : 0;
    if (!scales)
        return keys * row;
    return (keys * (((kv_gpu_head_bytes(p->type, p->dim) - scales) | 16) + scales) + 127) / 128 * 128;
}

static int64_t stage_bytes(const AttendCase *c) {
    const Plane k = case_plane(c, false), v = case_plane(c, true);
    const int64_t of_k = tile_bytes(&k, keys_of(c), 2 * c->k_dim);
    const int64_t of_v = tile_bytes(&v, keys_of(c), 2 * c->v_dim);
    return of_k > of_v ? of_k : of_v;
}

enum { PIPELINE_BRINGERS = 4, PIPELINE_SUMS = 16384, PIPELINE_WEIGHTS = 256 };

bool case_can_pipeline(const AttendCase *c) {
    return c->k_dim % 128 == 0 && c->v_dim % 128 == 0;
}

AttendCase case_pipeline(const AttendCase *c) {
    AttendCase of = *c;
    of.pipeline = 1;
    of.blocks = 0;
    of.vectors = c->vectors * c->v_dim > PIPELINE_SUMS ? PIPELINE_SUMS / c->v_dim : c->vectors;
    return of;
}

const char *case_decode_file(const AttendCase *c) {
    return c->pipeline ? "attention_pipeline.cu" : "attention_decode.cu";
}

int64_t case_shared(const AttendCase *c, int rows) {
    const int64_t vectors = vectors_of(c, rows);
    return stages_of(c, rows) * stage_bytes(c) + vectors * padded(c->k_dim) +
           vectors * (c->pipeline ? PIPELINE_WEIGHTS : padded(chunk_of(c))) + 4 * (int64_t)warps_of(c) * wide(c) +
           6 * c->k_dim + 2 * (int64_t)turned_of(c, rows) * c->k_dim;
}

int case_decode_threads(const AttendCase *c) {
    return 32 * (warps_of(c) + (c->pipeline ? PIPELINE_BRINGERS : 0));
}

/* Keys of the split that begins with a position. */
static int split_keys(const AttendCase *c, int from) {
    int keys = chunk_of(c);
    if (c->lookback < 0)
        for (int fine = 32 * keys; from >= fine && keys < 1024; fine *= 2)
            keys *= 2;
    return keys;
}

int64_t case_partials(const AttendCase *c, int rows) {
    int64_t splits = 0;
    if (c->lookback >= 0)
        splits = (case_causal(c) ? c->lookback : c->capacity) / chunk_of(c) + 2;
    else
        for (int from = 0; from < c->capacity; from += split_keys(c, from))
            splits++;
    return rows * c->heads * splits * (c->v_dim + 2);
}

enum { WGMMA_QUERIES = 128, WIDE_QUERIES = 64, WGMMA_TILE = 64, WGMMA_THREADS = 384 };

bool case_wgmma(const AttendCase *c) {
    return !kv_group(c->k_type) && !kv_group(c->v_type) && c->k_dim == c->v_dim &&
           (c->k_dim == 64 || c->k_dim == 128 || c->k_dim == 256 || c->k_dim == 512);
}

const char *case_prefill_file(const AttendCase *c) {
    return !c->wgmma ? "attention_prefill.cu" : c->k_dim > 256 ? "attention_wgmma_wide.cu" : "attention_wgmma.cu";
}

int case_prefill_queries(const AttendCase *c) {
    if (c->wgmma)
        return c->k_dim > 256 ? WIDE_QUERIES : WGMMA_QUERIES;
    return c->queries ? c->queries : wide(c) > 256 ? 32 : wide(c) > 128 ? 64 : 128;
}

static int column_groups(const AttendCase *c) {
    return c->v_dim > 256 ? 4 : c->v_dim > 128 ? 2 : 1;
}

int case_prefill_threads(const AttendCase *c) {
    if (c->wgmma)
        return WGMMA_THREADS;
    return case_prefill_queries(c) * column_groups(c);
}

static int64_t line(int n) {
    return n == 32 || n % 64 == 0 ? 2 * n : 2 * n + 16;
}

int64_t case_prefill_shared(const AttendCase *c) {
    const int64_t queries = case_prefill_queries(c), tile = c->tile ? c->tile : wide(c) > 64 ? 32 : 64;
    if (c->wgmma && c->k_dim > 256)
        return WIDE_QUERIES * (2 * c->k_dim + 4 * WGMMA_TILE + 28) + (8 << 14) + 256 + 8 * case_words(c);
    if (c->wgmma)
        return (WGMMA_QUERIES + 4 * WGMMA_TILE) * 2 * (int64_t)c->k_dim + 4 * WGMMA_QUERIES + 128 + 8 * case_words(c);
    const int64_t exchanged = column_groups(c) > 1 ? line((int)tile) + 4 * column_groups(c) : 0;
    const Plane k = case_plane(c, false), v = case_plane(c, true);
    return queries * (line(c->k_dim) + exchanged + 4) + tile_bytes(&k, tile, line(c->k_dim)) +
           tile_bytes(&v, tile, line(c->v_dim)) + 8 * case_words(c);
}

int case_words(const AttendCase *c) {
    return c->sparse.block ? (c->capacity + 64) / c->sparse.block / 32 + 1 : 0;
}

int case_choose_threads(const AttendCase *c) {
    return c->sparse.block > 64 ? 256 : c->sparse.block > 32 ? 128 : 64;
}

int64_t case_choose_shared(const AttendCase *c) {
    const int columns = c->k_dim % 64 == 0 ? 64 : c->k_dim % 32 == 0 ? 32 : 16, threads = case_choose_threads(c);
    return 3 * (threads / 2 + 64) * (2 * columns + 16) + 8 * threads + 128 * case_words(c);
}

int case_k_at(const AttendCase *c) {
    return c->heads * c->k_dim;
}

int case_v_at(const AttendCase *c) {
    return case_k_at(c) + c->kv_heads * c->k_dim;
}

int case_stride(const AttendCase *c) {
    return case_v_at(c) + c->kv_heads * c->v_dim + 3;
}

/* What decode and prefill share; q, k and v are so many planes of so many rows. */
static void put_layout(FILE *to, const AttendCase *c, int planes, int rows) {
    fprintf(to, "#define ATT_HEADS %d\n#define ATT_KV_HEADS %d\n#define ATT_K_DIM %d\n#define ATT_V_DIM %d\n", c->heads,
            c->kv_heads, c->k_dim, c->v_dim);
    fprintf(to, "#define ATT_SCALE %.9ef\n#define ATT_K_FORM %s\n#define ATT_V_FORM %s\n", 3 / sqrt(c->k_dim),
            kv_form(case_plane(c, false).type), kv_form(case_plane(c, true).type));
    for (int i = 0; i < 3; i++)
        fprintf(to, "#define ATT_%c_PLANES %d\n#define ATT_%c_PLANE_STRIDE %d\n#define ATT_%c_ROW_STRIDE %d\n",
                "QKV"[i], planes, "QKV"[i], rows * case_stride(c), "QKV"[i], case_stride(c));
    fprintf(to, "#define ATT_CAPACITY %d\n#define ATT_RING %d\n#define ATT_LOOKBACK %d\n#define ATT_CAUSAL %d\n",
            c->capacity, c->ring, c->lookback, case_causal(c));
    fprintf(to, "#define ATT_SCORE %d\n#define ATT_SINK %d\n", c->score != 0, c->sink);
    fprintf(to, "#define TEST_VARIANT %d\n#define TEST_SCORE %d\n#define TEST_PREPARE %d\n", c->variant, c->score,
            c->prepare);
}

static void put_tuned(FILE *to, const char *name, int value) {
    if (value)
        fprintf(to, "#define %s %d\n", name, value);
}

static FILE *text_open(char **text, size_t *len) {
    FILE *to = open_memstream(text, len);
    if (!to)
        exit(2);
    return to;
}

char *case_decode_defines(const AttendCase *c, int rows, int store, int query_rows) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = text_open(&text, &len);
    put_layout(to, c, c->planes, rows);
    fprintf(to, "#define ATT_ROWS %d\n#define ATT_STORE %d\n#define ATT_QUERY_ROWS %d\n", rows, store, query_rows);
    fprintf(to, "#define ATT_EARLY %d\n#define ATT_RECORDS %d\n#define ATT_TURNED %d\n", c->early,
            c->records ? rows / 8 : 0, turned_of(c, rows));
    put_tuned(to, "ATT_KEYS", keys_of(c));
    put_tuned(to, "ATT_VECTORS", c->vectors);
    put_tuned(to, "ATT_STAGES", c->stages);
    put_tuned(to, "ATT_WARPS", c->pipeline ? 0 : c->warps);
    put_tuned(to, "ATT_BLOCKS", c->blocks);
    if (c->copies)
        fputs("#define ATT_BULK 0\n", to);
    fclose(to);
    return text;
}

char *case_prefill_defines(const AttendCase *c) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = text_open(&text, &len);
    put_layout(to, c, 1, c->chunk);
    if (c->sparse.block) {
        const SparseCase *s = &c->sparse;
        fprintf(to, "#define ATT_SPARSE 1\n#define SPARSE_BLOCK %d\n#define SPARSE_WORDS %d\n", s->block,
                case_words(c));
        fprintf(to, "#define SPARSE_LIMIT %.9ef\n#define SPARSE_SINK %d\n#define SPARSE_LOCAL %d\n", log2(s->alpha),
                s->sink, s->local);
        fprintf(to, "#define SPARSE_TAIL %d\n#define SPARSE_FROM %d\n", s->tail, s->from);
    }
    if (!c->wgmma) {
        put_tuned(to, "ATT_QUERIES", c->queries);
        put_tuned(to, "ATT_TILE", c->tile);
        put_tuned(to, "ATT_BLOCKS", c->blocks);
    }
    fclose(to);
    return text;
}

/* ==== Numbers ==== */

static uint64_t numbers;

void case_seed(uint64_t seed) {
    numbers = seed * 0x9e3779b97f4a7c15u;
}

/* About normal, by what it is of. */
static float number(uint64_t sequence, uint64_t pos, uint64_t plane, uint64_t i) {
    uint64_t x = (((sequence + 1) << 40) ^ (pos << 22) ^ (plane << 18)) * 0x9e3779b97f4a7c15u + i * 0xd1342543de82ef95u;
    x ^= numbers;
    float sum = -2;
    for (int n = 0; n < 4; n++) {
        x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
        sum += (float)(x >> 40) * 0x1p-24f;
    }
    return sum * 1.7f;
}

void case_row(const AttendCase *c, int sequence, int pos, int plane, float *to) {
    for (int i = 0; i < case_stride(c); i++)
        to[i] = number((uint64_t)sequence, (uint64_t)pos, (uint64_t)plane, (uint64_t)i);
}

float case_weight(int i) {
    return 1 + 0.5f * number(9, 0, 0, (uint64_t)i);
}

double case_turn(const AttendCase *c, int i) {
    return pow(10000, -(double)i / (c->k_dim / 4.0));
}

float case_slope(int head) {
    return 0.02f * (float)(head + 1);
}

/* ==== What should come out ==== */

/* A head vector as prepared, from `at` of a row that is the sum of its planes. kind: 0 q, 1 k, 2 v. */
static void prepared(const AttendCase *c, const double *row, int kind, int head, int pos, double *x) {
    const int dim = kind == 2 ? c->v_dim : c->k_dim;
    const int from = kind == 0 ? 0 : kind == 1 ? case_k_at(c) : case_v_at(c);
    memcpy(x, row + from + head * dim, (size_t)dim * sizeof *x);
    if (!c->prepare)
        return;
    double sum = 0;
    for (int i = 0; i < dim; i++)
        sum += x[i] * x[i];
    for (int i = 0; i < dim; i++)
        x[i] = x[i] / sqrt(sum / dim + 1e-6) * (kind < 2 ? case_weight(i) : 1);
    const int half = dim / 4;
    for (int i = 0; kind < 2 && i < half; i++) {
        const double a = x[i], b = x[i + half], turn = pos * case_turn(c, i);
        x[i] = a * cos(turn) - b * sin(turn);
        x[i + half] = b * cos(turn) + a * sin(turn);
    }
}

static void planes_sum(const AttendCase *c, int sequence, int pos, double *row) {
    const size_t n = (size_t)case_stride(c);
    float *plane = malloc(n * sizeof *plane), *sum = malloc(n * sizeof *sum);
    for (int p = 0; p < c->planes; p++) {
        case_row(c, sequence, pos, p, plane);
        for (size_t i = 0; i < n; i++)
            sum[i] = p ? sum[i] + plane[i] : plane[i];
    }
    for (size_t i = 0; i < n; i++)
        row[i] = (double)sum[i];
    free(plane);
    free(sum);
}

/* K or V of a position as stored, and decoded: [kv_heads][dim]. */
static void stored_row(const AttendCase *c, int pos, bool values, const double *row, uint8_t *stored, float *number) {
    const Plane p = case_plane(c, values);
    double x[512];
    for (int h = 0; h < p.heads; h++) {
        prepared(c, row, values ? 2 : 1, h, pos, x);
        for (int i = 0; i < p.dim; i++)
            number[h * p.dim + i] = (float)x[i];
    }
    plane_encode(&p, number, stored);
    plane_decode(&p, stored, number);
}

History history_new(const AttendCase *c, int sequence, int length) {
    const Plane pk = case_plane(c, false), pv = case_plane(c, true);
    const size_t nk = (size_t)(pk.heads * pk.dim), nv = (size_t)(pv.heads * pv.dim), n = (size_t)length + 1;
    History h = {c,
                 sequence,
                 length,
                 malloc(n * plane_row_bytes(&pk)),
                 malloc(n * plane_row_bytes(&pv)),
                 malloc(n * nk * sizeof *h.k_number),
                 malloc(n * nv * sizeof *h.v_number)};
    double *row = malloc((size_t)case_stride(c) * sizeof *row);
    for (int pos = 0; pos < length; pos++) {
        const size_t at = (size_t)pos;
        planes_sum(c, sequence, pos, row);
        stored_row(c, pos, false, row, h.k + at * plane_row_bytes(&pk), h.k_number + at * nk);
        stored_row(c, pos, true, row, h.v + at * plane_row_bytes(&pv), h.v_number + at * nv);
    }
    free(row);
    return h;
}

void history_free(History *h) {
    free(h->k);
    free(h->v);
    free(h->k_number);
    free(h->v_number);
}

const uint8_t *history_row(const History *h, bool values, int pos) {
    const Plane p = case_plane(h->of, values);
    return (values ? h->v : h->k) + (size_t)pos * plane_row_bytes(&p);
}

void history_take(History *h, bool values, int pos, const uint8_t *row) {
    const Plane p = case_plane(h->of, values);
    memcpy((values ? h->v : h->k) + (size_t)pos * plane_row_bytes(&p), row, plane_row_bytes(&p));
    plane_decode(&p, row, (values ? h->v_number : h->k_number) + (size_t)pos * (size_t)(p.heads * p.dim));
}

void history_cache(const History *h, bool values, int length, uint8_t *plane) {
    const Plane p = case_plane(h->of, values);
    memset(plane, 0xff, plane_bytes(&p));
    for (int pos = length > p.capacity ? length - p.capacity : 0; pos < length; pos++)
        plane_put(&p, plane, pos, history_row(h, values, pos));
}

static bool sees(const AttendCase *c, int q, int k) {
    const bool near = k <= q && (c->lookback < 0 || q - k <= c->lookback);
    if (c->variant == 1)
        return near || (q < 40 && k < 40);
    return near && (c->variant != 2 || k % 150 >= 100 || q / 150 == k / 150);
}

static double scored(const AttendCase *c, double s, int q, int k, int h) {
    return c->score == 1 ? 2 * tanh(s / 2) : c->score == 2 ? s - (double)case_slope(h) * (q - k) : s;
}

/* Adds a key to the running sums of every head: out is the weighted sum, most and weight as in the kernels. */
static void add_key(const AttendCase *c, const double *q, int pos, int key, const float *k, const float *v,
                    double *most, double *weight, double *out) {
    const double scale = (float)(3 / sqrt(c->k_dim));
    for (int h = 0; h < c->heads; h++) {
        const int kv = h / (c->heads / c->kv_heads);
        double s = 0;
        for (int i = 0; i < c->k_dim; i++)
            s += q[h * c->k_dim + i] * (double)k[kv * c->k_dim + i];
        s = scored(c, s * scale, pos, key, h);
        const double top = s > most[h] ? s : most[h], keep = exp(most[h] - top), p = exp(s - top);
        most[h] = top;
        weight[h] = weight[h] * keep + p;
        for (int i = 0; i < c->v_dim; i++)
            out[h * c->v_dim + i] = out[h * c->v_dim + i] * keep + p * (double)v[kv * c->v_dim + i];
    }
}

void history_wanted(const History *of, int pos, int length, double *out) {
    const AttendCase *c = of->of;
    double *row = malloc((size_t)case_stride(c) * sizeof *row), *q = malloc((size_t)case_k_at(c) * sizeof *q);
    double most[64], weight[64];
    planes_sum(c, of->sequence, pos, row);
    memset(out, 0, (size_t)(c->heads * c->v_dim) * sizeof *out);
    for (int h = 0; h < c->heads; h++) {
        prepared(c, row, 0, h, pos, q + h * c->k_dim);
        most[h] = c->sink ? 2.0 + (double)case_slope(h) : -INFINITY;
        weight[h] = c->sink;
    }
    for (int key = 0; key < length; key++)
        if (sees(c, pos, key))
            add_key(c, q, pos, key, of->k_number + (size_t)key * (size_t)(c->kv_heads * c->k_dim),
                    of->v_number + (size_t)key * (size_t)(c->kv_heads * c->v_dim), most, weight, out);
    for (int i = 0; i < c->heads * c->v_dim; i++)
        out[i] = weight[i / c->v_dim] > 0 ? out[i] / weight[i / c->v_dim] : 0;
    free(row);
    free(q);
}
