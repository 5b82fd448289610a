/* sparse_cost.c - when attending sparse is faster than dense: the times of one call of a layer.
 *
 * A call of n rows whose last is at position L - 1, H heads, D = k_dim + v_dim, blocks of B. Pairs of query and key:
 * n (L - n) + n^2 / 2. In seconds, by rates of the machine:
 *
 *   dense    2 H D pairs / dense rate
 *   sparse   fixed + means (L KV heads k_dim * 2 bytes) + scores (2 H k_dim pairs / B) / score rate
 *            + 2 H D pairs kept / sparse rate
 *
 * Kernels read caches in place, so there is no term for changing a layout; each call makes the means of all keys;
 * scores stay on their multiprocessor, and a list is a bit for each block. `kept` is the share of blocks that counts:
 * the larger of what sink and local force, which is exact, and what was seen to be kept. Sparse is chosen where it
 * takes less than 0.9 of the dense time, and not before LEAST_KEYS: of a short prompt it drops what matters most for
 * the least gain.
 */
#include "passes/passes_int.h"

#include <math.h>

enum { LEAST_KEYS = 4096, LEAST_ROWS = 512 };

/* Dense attention is taken to run at 0.47 of the rate of a large matmul, which is 390 TFLOP/s of an H100, sparse at 0.7
 * of that, scores at that of dense. What sparse costs at least is 1.35 launches, 5 microseconds of an H100. */
SparseRates sparse_rates(const DeviceRates *r) {
    const double dense = 390. / 825 * (double)rates_matmul(r);
    return (SparseRates){.dense = dense,
                         .sparse = 0.7 * dense,
                         .score = dense,
                         .bytes = (double)r->bytes,
                         .fixed = 5. / 3.7 * 1e-9 * (double)r->launch_ns};
}

/* Shares kept at an alpha of 0.12 by prompts of so many keys: placeholders but for the first, until each layer of a
 * model is measured. Of Gemma 3 270M at 8,192 keys, 0.05 kept 1.4 times as much, 0.3 0.6 times: alpha to the power of
 * -0.4 (docs/performance/attention.md). */
static const struct { double keys, kept; } seen[] = {{8192, 0.5}, {32768, 0.25}, {131072, 0.12}};

/* On lines through the logarithms of both. */
static double kept_as_seen(double keys, double alpha) {
    size_t i = 1;
    while (i + 1 < COUNTOF(seen) && keys > seen[i].keys)
        i++;
    const double slope = log(seen[i].kept / seen[i - 1].kept) / log(seen[i].keys / seen[i - 1].keys);
    const double kept = seen[i - 1].kept * pow(keys / seen[i - 1].keys, slope) * pow(0.12 / alpha, 0.4);
    return kept < 1 ? kept : 1;
}

/* What sink and local keep of the blocks that the call's queries see. */
static double kept_at_least(const SparseShape *s, int64_t keys) {
    const int64_t B = s->method.block, rows = s->rows < keys ? s->rows : keys;
    double all = 0, kept = 0;
    for (int64_t m = (keys - rows) / B; m <= (keys - 1) / B; m++) {
        const int64_t forced = s->method.sink + s->method.local;
        all += (double)(m + 1);
        kept += (double)(forced < m + 1 ? forced : m + 1);
    }
    return kept / all;
}

SparseCost sparse_cost(const SparseShape *s, const SparseRates *r, int64_t keys) {
    const double n = (double)(s->rows < keys ? s->rows : keys), L = (double)keys, B = (double)s->method.block;
    const double H = (double)s->heads, pairs = n * (L - n) + n * n / 2;
    const double work = 2 * H * (double)(s->k_dim + s->v_dim) * pairs;
    const double alpha = s->method.alpha, kept = alpha > 0 ? kept_as_seen(L, alpha) : 1,
                 forced = kept_at_least(s, keys);
    SparseCost c = {.kept = kept > forced ? kept : forced};
    c.dense = work / r->dense;
    c.sparse = r->fixed + L * (double)s->kv_heads * (double)s->k_dim * 2 / r->bytes +
               2 * H * (double)s->k_dim * pairs / B / r->score + work * c.kept / r->sparse;
    return c;
}

int64_t sparse_from(const SparseShape *s, const SparseRates *r, int64_t context) {
    const int64_t B = s->method.block;
    if (s->rows < LEAST_ROWS)
        return -1;
    for (int64_t at = (LEAST_KEYS + B - 1) / B * B; at < context; at += B) {
        const SparseCost c = sparse_cost(s, r, at + B);
        if (c.sparse < 0.9 * c.dense)
            return at;
    }
    return -1;
}
