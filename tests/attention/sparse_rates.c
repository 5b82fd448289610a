/* sparse_rates.c - times of sparse prefill attention beside dense attention: the last rows of a prompt of 65536, a
 * tenth of the blocks kept. Memory holds one number, so all scores are alike; the lists that are attended to are drawn.
 */
#include "tests/attention/sparse_check.h"

#include <stdio.h>
#include <stdlib.h>

enum { CONTEXT = 65536, BLOCK = 128, SINK = 2, LOCAL = 4, KEPT_PERCENT = 10 };

typedef struct RateCase {
    const char *label;
    int heads, kv_heads, dim;
    int queries, tile; /* as a plan for sm_90a has them */
    DType type;        /* of keys and values */
} RateCase;

static const RateCase rate_cases[] = {
    {"512, groups of 8", 16, 2, 512, 64, 64, DT_F16}, {"256, groups of 2", 16, 8, 256, 128, 64, DT_F16},
    {"128, groups of 2", 16, 8, 128, 0, 0, DT_F16},   {"64, groups of 2", 16, 8, 64, 0, 0, DT_F16},
    {"512, q8_0", 16, 2, 512, 64, 64, DT_Q8_0},       {"512, q4_0", 16, 2, 512, 64, 64, DT_Q4_0},
    {"512, tq3_0", 16, 2, 512, 64, 64, DT_TQ3_0},     {"256, q8_0", 16, 8, 256, 128, 64, DT_Q8_0},
    {"256, tq3_0", 16, 8, 256, 128, 64, DT_TQ3_0},
};
enum { N_RATES = sizeof rate_cases / sizeof rate_cases[0] };
static const int row_counts[] = {512, 2048, 8192};
enum { N_ROWS = sizeof row_counts / sizeof row_counts[0], MOST_ROWS = 8192 };

static AttendCase case_of(const RateCase *r) {
    return (AttendCase){.name = r->label,
                        .heads = r->heads,
                        .kv_heads = r->kv_heads,
                        .k_dim = r->dim,
                        .v_dim = r->dim,
                        .k_type = r->type,
                        .v_type = r->type,
                        .capacity = CONTEXT,
                        .lookback = -1,
                        .planes = 1,
                        .chunk = MOST_ROWS,
                        .queries = r->queries,
                        .tile = r->tile,
                        .sparse = {.block = BLOCK, .sink = SINK, .local = LOCAL, .tail = 0, .alpha = 0.12}};
}

/* What is kept anyway and, of the others, as many as make up the share. Gives the blocks of the lists of rows from
 * `first` on. */
static long long draw_lists(const AttendCase *c, int first, uint32_t *lists) {
    const int words = case_words(c), blocks = CONTEXT / BLOCK;
    uint64_t x = 88172645463325252u;
    long long kept = 0;
    for (int m = 0; m < blocks; m++)
        for (int h = 0; h < c->heads; h++) {
            const int share = (m + 1) * KEPT_PERCENT / 100 - SINK - LOCAL;
            for (int n = 0; n <= m; n++) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                if (n >= SINK && m - n >= LOCAL && (int)(x % (uint64_t)(m + 1 - SINK - LOCAL)) >= share)
                    continue;
                lists[(m * c->heads + h) * words + n / 32] |= 1u << n % 32;
                kept += m >= first / BLOCK;
            }
        }
    return kept;
}

/* Device memory of a case. */
typedef struct Memory {
    DevPtr q16, cache_k, cache_v, out, means, kept, lists, slopes;
} Memory;

static Memory memory_new(Lab *l, const AttendCase *c) {
    const Plane k = case_plane(c, false), v = case_plane(c, true);
    const size_t lists = (size_t)(CONTEXT / BLOCK + 1) * (size_t)(c->heads * case_words(c)) * 4;
    return (Memory){.q16 = lab_memory(l, (size_t)MOST_ROWS * (size_t)(c->heads * c->k_dim) * 2, 0x2c),
                    .cache_k = lab_memory(l, plane_bytes(&k), 0x2c),
                    .cache_v = lab_memory(l, plane_bytes(&v), 0x2c),
                    .out = lab_memory(l, (size_t)MOST_ROWS * (size_t)(c->heads * c->v_dim) * 4, 0),
                    .means = lab_memory(l, (size_t)(CONTEXT / BLOCK * c->kv_heads * c->k_dim) * 2, 0),
                    .kept = lab_memory(l, lists, 0),
                    .lists = lab_memory(l, lists, 0),
                    .slopes = lab_memory(l, 4096, 0)};
}

static void memory_free(Lab *l, const Memory *m) {
    const DevPtr all[] = {m->q16, m->cache_k, m->cache_v, m->out, m->means, m->kept, m->lists, m->slopes};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        dev_free(l->device, all[i]);
}

/* The last `rows` rows. */
static void rate(Lab *l, const AttendCase *c, const Wish *built, Memory *m, int rows) {
    const int first = CONTEXT - rows, length = CONTEXT, zero = 0;
    int *pos = malloc((size_t)rows * sizeof *pos), *slots = calloc((size_t)rows, sizeof *slots);
    const size_t list_bytes = (size_t)(CONTEXT / BLOCK + 1) * (size_t)(c->heads * case_words(c)) * 4;
    uint32_t *lists = calloc(1, list_bytes);
    for (int i = 0; i < rows; i++)
        pos[i] = first + i;
    const double share = (double)draw_lists(c, first, lists) * BLOCK * BLOCK / c->heads /
                         ((double)rows * first + (double)rows * (rows + BLOCK) / 2);
    lab_in(l, m->lists, lists, list_bytes);
    DevPtr at = lab_upload(l, pos, (size_t)rows * sizeof *pos), of = lab_upload(l, slots, (size_t)rows * sizeof *slots);
    DevPtr lengths = lab_upload(l, &length, 4), count = lab_upload(l, &rows, 4), ahead = lab_upload(l, &zero, 4);
    void *means_arguments[] = {&m->cache_k, &m->means, &of, &lengths};
    void *choose_arguments[] = {&m->q16, &m->means, &m->kept, &at, &of, &lengths, &count, &ahead, &m->slopes};
    void *sparse_arguments[] = {&m->q16, &m->cache_k, &m->cache_v, &m->out,   &at,
                                &of,     &lengths,    &count,      &m->lists, &m->slopes};
    void *dense_arguments[] = {&m->q16, &m->cache_k, &m->cache_v, &m->out, &at, &of, &lengths, &count, &m->slopes};
    const int queries = case_prefill_queries(c);
    const uint32_t tiles = (uint32_t)((rows + queries - 1) / queries), threads = (uint32_t)case_prefill_threads(c);
    const DevLaunch launches[SPARSE_WISHES] = {
        [SPARSE_MEANS] = {.grid = {(uint32_t)c->kv_heads, CONTEXT / BLOCK},
                          .block = {256},
                          .arguments = means_arguments},
        [SPARSE_CHOOSE] = {.grid = {(uint32_t)c->heads, 2 * (uint32_t)((rows + BLOCK - 1) / BLOCK)},
                           .block = {(uint32_t)case_choose_threads(c)},
                           .arguments = choose_arguments},
        [SPARSE_ATTEND] = {.grid = {(uint32_t)c->heads, tiles}, .block = {threads}, .arguments = sparse_arguments},
        [SPARSE_DENSE] = {.grid = {(uint32_t)c->heads, tiles}, .block = {threads}, .arguments = dense_arguments}};
    double seconds[SPARSE_WISHES];
    for (int i = 0; i < SPARSE_WISHES; i++) {
        DevLaunch launch = launches[i];
        launch.kernel = built[i].built;
        launch.shared_bytes = (uint32_t)built[i].shared;
        seconds[i] = lab_time(l, &launch, 1);
    }
    const double dense = seconds[SPARSE_DENSE], selection = seconds[SPARSE_MEANS] + seconds[SPARSE_CHOOSE];
    const double flops = 4.0 * c->heads * c->k_dim * ((double)rows * first + (double)rows * (rows + 1) / 2);
    printf("%-18s %5d rows: dense %9.1f us (%4.0f TF), means %7.1f, choose %7.1f (%4.1f %%), attend to %4.1f %% %9.1f; "
           "together %.3f of dense\n",
           c->name, rows, dense * 1e6, flops / dense / 1e12, seconds[SPARSE_MEANS] * 1e6, seconds[SPARSE_CHOOSE] * 1e6,
           100 * selection / dense, 100 * share, seconds[SPARSE_ATTEND] * 1e6,
           (selection + seconds[SPARSE_ATTEND]) / dense);
    const DevPtr memory[] = {at, of, lengths, count, ahead};
    for (int i = 0; i < 5; i++)
        dev_free(l->device, memory[i]);
    free(pos);
    free(slots);
    free(lists);
}

void sparse_rates(Lab *l) {
    printf("%s\n", dev_info(l->device)->name);
    for (int i = 0; i < N_RATES; i++) {
        AttendCase c = case_of(&rate_cases[i]);
        Wish built[SPARSE_WISHES];
        c.wgmma = case_wgmma(&c) && lab_wgmma(l);
        if (case_prefill_shared(&c) > lab_shared(l))
            c.queries = c.tile = 0;
        wishes_build(l, built, sparse_wishes(&c, built));
        Memory m = memory_new(l, &c);
        for (int k = 0; k < N_ROWS; k++)
            rate(l, &c, built, &m, row_counts[k]);
        memory_free(l, &m);
        for (int k = 0; k < SPARSE_WISHES; k++)
            dev_module_free(built[k].module);
    }
}
