/* sparse_oracle.c - see sparse_oracle.h. */
#include "tests/eval/sparse_oracle.h"

#include <math.h>
#include <stdlib.h>

static double dot(const float *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

static double score_of(const SparseOracle *o, const float *q, const double *k, double at, double key, int64_t h) {
    const double s = o->scale * dot(q, k, o->k_dim);
    return o->score ? o->score(s, at, key, (int)h) : s;
}

/* ln of the score of key block n for query rows from..to-1, or -INFINITY. */
static double block_score(const SparseOracle *o, int64_t n, int64_t from, int64_t to, int64_t h) {
    const int64_t B = o->p.block, kh = h / (o->heads / o->kv_heads);
    double *mean = calloc((size_t)o->k_dim, sizeof *mean), most = -INFINITY, sum = 0;
    double *s = malloc((size_t)(to - from) * sizeof *s);
    for (int64_t j = n * B; j < n * B + B; j++)
        for (int64_t d = 0; d < o->k_dim; d++)
            mean[d] += (double)o->k[(j * o->kv_heads + kh) * o->k_dim + d] / (double)B;
    for (int64_t i = from; i < to; i++) {
        const bool behind = i >= n * B + B - 1;
        const double key = (double)(n * B) + (double)(B - 1) / 2;
        s[i - from] = !behind ? -INFINITY : score_of(o, o->q + (i * o->heads + h) * o->k_dim, mean, (double)i, key, h);
        most = fmax(most, s[i - from]);
    }
    for (int64_t i = 0; i < to - from && most > -INFINITY; i++)
        sum += exp(s[i] - most);
    free(mean);
    free(s);
    return most > -INFINITY ? most + log(sum) : most;
}

void oracle_keep(const SparseOracle *o, int64_t m, int64_t from, int64_t to, int64_t h, bool *keep, double *margin) {
    const int64_t B = o->p.block, blocks = (o->prompt + B - 1) / B;
    const bool whole = o->p.alpha <= 0 || m * B < o->from || m >= blocks - o->p.tail;
    double most = -INFINITY;
    for (int64_t n = 0; n <= m; n++) {
        /* The last block of a sequence may be cut: no row is behind its end then. */
        const bool complete = n * B + B <= to;
        margin[n] = complete ? block_score(o, n, from, to, h) : -INFINITY;
        most = fmax(most, margin[n]);
    }
    for (int64_t n = 0; n <= m; n++) {
        const bool forced = whole || n < o->p.sink || m - n < o->p.local;
        const double over = most > -INFINITY ? (margin[n] - most - log(o->p.alpha)) / log(2) : 0;
        keep[n] = forced || over >= 0;
        margin[n] = forced ? INFINITY : fabs(over);
    }
}

double oracle_attend(const SparseOracle *o, int64_t i, int64_t h, const bool *keep, double *out) {
    const int64_t kh = h / (o->heads / o->kv_heads);
    double *s = malloc((size_t)(i + 1) * sizeof *s), *key = malloc((size_t)o->k_dim * sizeof *key);
    double most = -INFINITY, sum = 0, all = 0;
    for (int64_t d = 0; d < o->v_dim; d++)
        out[d] = 0;
    for (int64_t j = 0; j <= i; j++) {
        for (int64_t d = 0; d < o->k_dim; d++)
            key[d] = o->k[(j * o->kv_heads + kh) * o->k_dim + d];
        s[j] = score_of(o, o->q + (i * o->heads + h) * o->k_dim, key, (double)i, (double)j, h);
        most = fmax(most, s[j]);
    }
    for (int64_t j = 0; j <= i; j++) {
        const double w = exp(s[j] - most);
        all += w;
        if (!keep[j / o->p.block])
            continue;
        sum += w;
        for (int64_t d = 0; d < o->v_dim; d++)
            out[d] += w * o->v[(j * o->kv_heads + kh) * o->v_dim + d];
    }
    for (int64_t d = 0; d < o->v_dim; d++)
        out[d] /= sum;
    free(s);
    free(key);
    return sum / all;
}
