/* sparse_quality.c - what sparse attention loses on the keys and queries of a real layer, by the oracle.
 *
 *   sparse_quality Q K V HEADS KV_HEADS DIM SCALE ALPHA..
 *
 * Q, K and V are rows of f32 as `lap run --dump` writes taps of them, [n, HEADS or KV_HEADS, DIM], from position 0. A
 * line for each alpha, the other parameters at their defaults: the share of blocks kept; recall, the share of the dense
 * softmax in them, its mean and first percentile over rows and heads, and how many have less than half; the relative
 * error of the output. All rows choose, every ROWS-th is attended. docs/performance/attention.md has the results.
 */
#include "tests/eval/sparse_oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 8, BLOCK = 128 };

static float *read_rows(const char *path, int64_t width, int64_t *rows) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) || ftell(f) <= 0 || width <= 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    *rows = ftell(f) / (width * (int64_t)sizeof(float));
    float *x = malloc((size_t)(*rows * width) * sizeof *x);
    rewind(f);
    if (!x || fread(x, (size_t)width * sizeof *x, (size_t)*rows, f) != (size_t)*rows) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    return x;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* dense: [sampled rows][heads][v_dim] */
static void measure(const SparseOracle *o, const double *dense) {
    const int64_t n = o->prompt, blocks = (n + BLOCK - 1) / BLOCK;
    bool *keep = calloc((size_t)blocks, sizeof *keep);
    double *margin = calloc((size_t)blocks, sizeof *margin), *out = calloc((size_t)o->v_dim, sizeof *out);
    double *recall = calloc((size_t)((n / ROWS + 1) * o->heads), sizeof *recall);
    double kept = 0, all = 0, error = 0, size = 0, sum = 0;
    size_t count = 0;
    for (int64_t m = 0; m < blocks; m++)
        for (int64_t h = 0; h < o->heads; h++) {
            const int64_t end = m * BLOCK + BLOCK < n ? m * BLOCK + BLOCK : n;
            oracle_keep(o, m, m * BLOCK, end, h, keep, margin);
            for (int64_t b = 0; b <= m; b++)
                kept += keep[b];
            all += (double)(m + 1);
            for (int64_t i = m * BLOCK; i < end; i += ROWS) {
                const double *want = dense + (i / ROWS * o->heads + h) * o->v_dim;
                recall[count] = oracle_attend(o, i, h, keep, out);
                sum += recall[count++];
                for (int64_t d = 0; d < o->v_dim; d++) {
                    error += (out[d] - want[d]) * (out[d] - want[d]);
                    size += want[d] * want[d];
                }
            }
        }
    qsort(recall, count, sizeof *recall, ascending);
    size_t low = 0;
    while (low < count && recall[low] < 0.5)
        low++;
    printf(
        "alpha %-5g kept %5.1f %%  recall %.4f mean, %.4f first percentile, below half %.2f %%  output off by %.4f\n",
        o->p.alpha, 100 * kept / all, sum / (double)count, recall[count / 100], 100 * (double)low / (double)count,
        sqrt(error / size));
    fflush(stdout);
    free(keep);
    free(margin);
    free(out);
    free(recall);
}

int main(int argc, char **argv) {
    if (argc < 9) {
        fprintf(stderr, "usage: sparse_quality Q K V HEADS KV_HEADS DIM SCALE ALPHA..\n");
        return 2;
    }
    SparseOracle o = {.p = {.block = BLOCK, .sink = 2, .local = 4, .tail = 2}, .scale = atof(argv[7])};
    int64_t n, keys, values;
    o.heads = atoll(argv[4]);
    o.kv_heads = atoll(argv[5]);
    o.k_dim = o.v_dim = atoll(argv[6]);
    o.q = read_rows(argv[1], o.heads * o.k_dim, &n);
    o.k = read_rows(argv[2], o.kv_heads * o.k_dim, &keys);
    o.v = read_rows(argv[3], o.kv_heads * o.v_dim, &values);
    o.prompt = n;
    if (keys != n || values != n || o.heads % o.kv_heads) {
        fprintf(stderr, "%lld queries, %lld keys, %lld values\n", (long long)n, (long long)keys, (long long)values);
        return 1;
    }
    bool *whole = malloc((size_t)n / BLOCK + 1);
    double *dense = calloc((size_t)((n / ROWS + 1) * o.heads * o.v_dim), sizeof *dense);
    for (int64_t b = 0; b <= n / BLOCK; b++)
        whole[b] = true;
    for (int64_t i = 0; i < n; i += ROWS)
        for (int64_t h = 0; h < o.heads; h++)
            oracle_attend(&o, i, h, whole, dense + (i / ROWS * o.heads + h) * o.v_dim);
    printf("%lld rows\n", (long long)n);
    for (int i = 8; i < argc; i++) {
        o.p.alpha = atof(argv[i]);
        measure(&o, dense);
    }
    return 0;
}
