/* sparse_gpu.c - the kernels of sparse prefill attention on a GPU, a real or an emulated one.
 *
 * sparse_gpu [--driver PATH] [--nvrtc DIR] check [SEED [TIMES]]   against the oracle; no seed: by the clock. The seed
 * also draws the types of keys and values of one case sparse_gpu [--driver PATH] [--nvrtc DIR] rates times of long
 * prompts
 */
#include "tests/attention/sparse_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Capacity is the context: the prompts are as long as that or shorter. Tiles are as plans for sm_90a have them. */
static AttendCase cases[] = {
    {.name = "64, blocks of 17, groups of 2",
     .heads = 4,
     .kv_heads = 2,
     .k_dim = 64,
     .v_dim = 64,
     .capacity = 601,
     .lookback = -1,
     .sparse = {.block = 17, .sink = 1, .local = 2, .tail = 1, .alpha = 0.2}},
    {.name = "128, blocks of 128, bf16",
     .heads = 2,
     .kv_heads = 1,
     .k_dim = 128,
     .v_dim = 128,
     .k_type = DT_BF16,
     .v_type = DT_BF16,
     .capacity = 1150,
     .lookback = -1,
     .sparse = {.block = 128, .sink = 1, .local = 1, .tail = 1, .alpha = 0.3}},
    {.name = "256, blocks of 40, ALiBi, groups of 4",
     .heads = 4,
     .kv_heads = 1,
     .k_dim = 256,
     .v_dim = 256,
     .capacity = 430,
     .lookback = -1,
     .queries = 128,
     .tile = 64,
     .score = 2,
     .sparse = {.block = 40, .sink = 0, .local = 1, .tail = 2, .alpha = 0.1}},
    {.name = "80 and 96, blocks of 160, soft-cap",
     .heads = 2,
     .kv_heads = 2,
     .k_dim = 80,
     .v_dim = 96,
     .capacity = 1000,
     .lookback = -1,
     .score = 1,
     .sparse = {.block = 160, .sink = 0, .local = 1, .tail = 0, .from = 320, .alpha = 0.9}},
    {.name = "512, blocks of 64, only the best",
     .heads = 2,
     .kv_heads = 1,
     .k_dim = 512,
     .v_dim = 512,
     .capacity = 420,
     .lookback = -1,
     .queries = 64,
     .tile = 64,
     .sparse = {.block = 64, .sink = 0, .local = 1, .tail = 1, .alpha = 1}},
    {.name = "q8_0, 256, blocks of 64, groups of 2",
     .heads = 4,
     .kv_heads = 2,
     .k_dim = 256,
     .v_dim = 256,
     .k_type = DT_Q8_0,
     .v_type = DT_Q8_0,
     .capacity = 410,
     .lookback = -1,
     .queries = 128,
     .tile = 64,
     .sparse = {.block = 64, .sink = 1, .local = 1, .tail = 1, .alpha = 0.4}},
    {.name = "q4_0 and f16, 96 and 64, blocks of 17",
     .heads = 2,
     .kv_heads = 1,
     .k_dim = 96,
     .v_dim = 64,
     .k_type = DT_Q4_0,
     .capacity = 601,
     .lookback = -1,
     .score = 1,
     .sparse = {.block = 17, .sink = 1, .local = 2, .tail = 1, .alpha = 0.6}},
    {.name = "tq3_0, 128, blocks of 128",
     .heads = 4,
     .kv_heads = 2,
     .k_dim = 128,
     .v_dim = 128,
     .k_type = DT_TQ3_0,
     .v_type = DT_TQ3_0,
     .capacity = 1150,
     .lookback = -1,
     .sparse = {.block = 128, .sink = 1, .local = 1, .tail = 1, .alpha = 0.3}},
    {.name = "tq3_0 and q4_0, 512, blocks of 40, ALiBi",
     .heads = 2,
     .kv_heads = 1,
     .k_dim = 512,
     .v_dim = 512,
     .k_type = DT_TQ3_0,
     .v_type = DT_Q4_0,
     .capacity = 430,
     .lookback = -1,
     .queries = 64,
     .tile = 64,
     .score = 2,
     .sparse = {.block = 40, .sink = 0, .local = 1, .tail = 1, .alpha = 0.3}},
    {.name = "bf16 and q8_0, 80 and 32, blocks of 48",
     .heads = 2,
     .kv_heads = 2,
     .k_dim = 80,
     .v_dim = 32,
     .k_type = DT_BF16,
     .v_type = DT_Q8_0,
     .capacity = 500,
     .lookback = -1,
     .sparse = {.block = 48, .sink = 0, .local = 1, .tail = 0, .alpha = 0.3}},
    {.name = "drawn",
     .heads = 2,
     .kv_heads = 1,
     .k_dim = 128,
     .v_dim = 128,
     .capacity = 420,
     .lookback = -1,
     .sparse = {.block = 32, .sink = 1, .local = 1, .tail = 1, .alpha = 0.4}},
};
enum { N_CASES = sizeof cases / sizeof cases[0], DRAWN = N_CASES - 1 };

/* The last case, of one pair of types of the 25. */
static void draw_types(uint64_t seed) {
    static const DType types[] = {DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_TQ3_0};
    static char name[80];
    AttendCase *c = &cases[DRAWN];
    c->k_type = types[seed % 5];
    c->v_type = types[seed / 5 % 5];
    snprintf(name, sizeof name, "%s and %s, blocks of 32", dtype_name(c->k_type), dtype_name(c->v_type));
    c->name = name;
}

/* The cases with the numbers of a seed: enough is left out, and enough chosen, for the comparison to mean something. */
static bool check_once(Lab *l, const Wish *wishes, uint64_t seed) {
    SparseCounts c = {0};
    bool ok = true;
    sparse_seed(seed);
    for (int i = 0; i < N_CASES; i++)
        ok &= sparse_check(l, &cases[i], wishes + i * SPARSE_WISHES, &c);
    printf("seed %llu: %lld kept, %lld of them by their score, %lld left out; %lld near the limit, %lld of them "
           "otherwise; largest error %.2f of what is allowed\n",
           (unsigned long long)seed, c.kept, c.chosen, c.left_out, c.near, c.otherwise, c.worst);
    return ok && c.chosen > 100 && c.left_out > 200 && c.near * 10 < c.chosen + c.left_out;
}

static bool check(Lab *l, uint64_t seed, int times) {
    static Wish wishes[N_CASES * SPARSE_WISHES];
    bool ok = true;
    draw_types(seed);
    for (int i = 0; i < N_CASES; i++) {
        cases[i].wgmma = case_wgmma(&cases[i]) && lab_wgmma(l);
        if (case_prefill_shared(&cases[i]) > lab_shared(l))
            cases[i].queries = cases[i].tile = 0; /* those of smaller GPUs */
        sparse_wishes(&cases[i], wishes + i * SPARSE_WISHES);
    }
    wishes_build(l, wishes, N_CASES * SPARSE_WISHES);
    for (int t = 0; t < times; t++)
        ok &= check_once(l, wishes, seed + (uint64_t)t);
    for (int i = 0; i < N_CASES * SPARSE_WISHES; i++)
        dev_module_free(wishes[i].module);
    return ok;
}

int main(int argc, char **argv) {
    Lab l = {0};
    const int i = lab_open(&l, argc, argv);
    const bool rates = i < argc && strcmp(argv[i], "rates") == 0;
    const uint64_t seed = i + 1 < argc ? strtoull(argv[i + 1], NULL, 10) : (uint64_t)time(NULL);
    bool ok = true;
    if (rates)
        sparse_rates(&l);
    else
        ok = check(&l, seed, i + 2 < argc ? atoi(argv[i + 2]) : 1);
    lab_close(&l);
    printf(ok ? "all is well\n" : "FAILED\n");
    return ok ? 0 : 1;
}
