/* attention_gpu.c - the attention kernels on a GPU, a real or an emulated one, against double-precision attention.
 *
 * attention_gpu [--driver PATH] [--nvrtc DIR] check [NAME]   the cases, or those whose name begins so
 * attention_gpu .. pairs [MANY [SEED]]                       so many random cases of pairs of types, default all
 * attention_gpu rates | decode-rates | prefill-rates [LABEL] times of the shapes of real models
 * Exit 77 without a GPU.
 */
#include "tests/attention/check.h"
#include "tests/attention/pairs.h"
#include "tests/attention/rates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A window in a ring that is no multiple of tiles. */
#define WINDOW_IN_RING                                                                                                 \
    .heads = 4, .kv_heads = 2, .k_dim = 256, .v_dim = 256, .capacity = 336, .ring = 1, .lookback = 255, .warps = 16,   \
    .start = 960, .chunk = 64

static const AttendCase cases[] = {
    {.name = "64, group 8, full",
     .heads = 8,
     .kv_heads = 1,
     .k_dim = 64,
     .v_dim = 64,
     .capacity = 704,
     .lookback = -1,
     .prepare = 1,
     .planes = 3,
     .turned = 16,
     .warps = 16,
     .start = 420,
     .stores = 1,
     .chunk = 100},
    {.name = "256, group 2, window in a ring", WINDOW_IN_RING, .prepare = 1, .planes = 2, .turned = 10, .wanted = 1},
    {.name = "256, group 2, window in a ring, by copies", WINDOW_IN_RING, .planes = 1, .copies = 1},
    {.name = "128, group 4, runs",
     .heads = 8,
     .kv_heads = 2,
     .k_dim = 128,
     .v_dim = 128,
     .capacity = 1400,
     .lookback = -1,
     .prepare = 1,
     .planes = 3,
     .turned = 16,
     .start = 1250,
     .early = 1,
     .wanted = 1,
     .stores = 1,
     .copies = 1,
     .chunk = 40},
    {.name = "512, group 4, bf16",
     .records = true,
     .heads = 4,
     .kv_heads = 1,
     .k_dim = 512,
     .v_dim = 512,
     .k_type = DT_BF16,
     .v_type = DT_BF16,
     .capacity = 352,
     .lookback = -1,
     .prepare = 1,
     .planes = 1,
     .turned = 3,
     .start = 250,
     .chunk = 33},
    {.name = "512, 64 vectors",
     .records = true,
     .heads = 8,
     .kv_heads = 1,
     .k_dim = 512,
     .v_dim = 512,
     .capacity = 368,
     .lookback = -1,
     .planes = 1,
     .start = 200,
     .keys = 32,
     .vectors = 64,
     .stages = 4,
     .early = 1,
     .chunk = 80,
     .queries = 64,
     .tile = 32},
    {.name = "128, group 16, soft-cap, sink",
     .heads = 16,
     .kv_heads = 1,
     .k_dim = 128,
     .v_dim = 128,
     .capacity = 416,
     .lookback = -1,
     .score = 1,
     .sink = 1,
     .prepare = 1,
     .planes = 1,
     .start = 150,
     .chunk = 128},
    {.name = "64, 16 K/V heads, tiles of 64",
     .heads = 16,
     .kv_heads = 16,
     .k_dim = 64,
     .v_dim = 64,
     .capacity = 352,
     .ring = 1,
     .lookback = 280,
     .prepare = 1,
     .planes = 1,
     .turned = 7,
     .warps = 16,
     .start = 700,
     .early = 1,
     .stages = 5,
     .stores = 1,
     .chunk = 60},
    {.name = "32, group 1, ALiBi, long",
     .heads = 2,
     .kv_heads = 2,
     .k_dim = 32,
     .v_dim = 32,
     .capacity = 9600,
     .lookback = -1,
     .score = 2,
     .planes = 1,
     .start = 9250,
     .chunk = 140},
    {.name = "64 and 32, not causal",
     .heads = 4,
     .kv_heads = 2,
     .k_dim = 64,
     .v_dim = 32,
     .capacity = 288,
     .lookback = -1,
     .variant = 1,
     .prepare = 1,
     .planes = 2,
     .start = 130,
     .wanted = 1,
     .stores = 1,
     .chunk = 70,
     .tile = 32},
    {.name = "80, blocks unseen, bf16, ring",
     .heads = 2,
     .kv_heads = 1,
     .k_dim = 80,
     .v_dim = 96,
     .k_type = DT_BF16,
     .v_type = DT_BF16,
     .capacity = 720,
     .ring = 1,
     .lookback = 600,
     .variant = 2,
     .sink = 1,
     .prepare = 1,
     .planes = 1,
     .start = 900,
     .chunk = 90},
    {.name = "q8_0, 256, group 2, window in a ring",
     WINDOW_IN_RING,
     .records = true,
     .k_type = DT_Q8_0,
     .v_type = DT_Q8_0,
     .prepare = 1,
     .planes = 2,
     .turned = 16,
     .wanted = 1,
     .stores = 1},
    {.name = "tq3_0, 128, group 16, soft-cap, sink",
     .heads = 16,
     .kv_heads = 1,
     .k_dim = 128,
     .v_dim = 128,
     .k_type = DT_TQ3_0,
     .v_type = DT_TQ3_0,
     .capacity = 413,
     .lookback = -1,
     .score = 1,
     .sink = 1,
     .planes = 2,
     .start = 150,
     .early = 1,
     .stores = 1,
     .chunk = 128},
    {.name = "q4_0, 96 and 32, 2 heads, not causal",
     .heads = 4,
     .kv_heads = 2,
     .k_dim = 96,
     .v_dim = 32,
     .k_type = DT_Q4_0,
     .v_type = DT_Q4_0,
     .capacity = 285,
     .lookback = -1,
     .variant = 1,
     .planes = 1,
     .start = 130,
     .wanted = 1,
     .chunk = 70,
     .tile = 32},
    {.name = "q8_0 and tq3_0, 512, 32 vectors",
     .heads = 8,
     .kv_heads = 2,
     .k_dim = 512,
     .v_dim = 512,
     .k_type = DT_Q8_0,
     .v_type = DT_TQ3_0,
     .capacity = 352,
     .lookback = -1,
     .prepare = 1,
     .planes = 1,
     .start = 250,
     .keys = 32,
     .vectors = 32,
     .stages = 5,
     .chunk = 40,
     .queries = 64,
     .tile = 64},
    {.name = "tq3_0 and bf16, 256 and 80, ring",
     .heads = 2,
     .kv_heads = 1,
     .k_dim = 256,
     .v_dim = 80,
     .k_type = DT_TQ3_0,
     .v_type = DT_BF16,
     .capacity = 720,
     .ring = 1,
     .lookback = 600,
     .variant = 2,
     .sink = 1,
     .prepare = 1,
     .planes = 1,
     .start = 900,
     .chunk = 90},
    {.name = "bf16 and q4_0, 64 and 192, long",
     .heads = 2,
     .kv_heads = 1,
     .k_dim = 64,
     .v_dim = 192,
     .k_type = DT_BF16,
     .v_type = DT_Q4_0,
     .capacity = 4100,
     .lookback = -1,
     .score = 2,
     .planes = 1,
     .start = 3800,
     .chunk = 50},
    {.name = "q8_0 and f16, 128, group 4, ALiBi, long",
     .heads = 4,
     .kv_heads = 1,
     .k_dim = 128,
     .v_dim = 128,
     .k_type = DT_Q8_0,
     .capacity = 4700,
     .lookback = -1,
     .score = 2,
     .planes = 1,
     .start = 4350,
     .keys = 32,
     .chunk = 50},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static bool check(Lab *l, const char *prefix) {
    static Wish wishes[N_CASES * MOST_WISHES];
    int at[N_CASES + 1][2] = {{0}}, n = 0;
    bool ok = true;
    static AttendCase groups[N_CASES], piped[N_CASES]; /* those for warpgroups, and for teams of warps */
    for (int i = 0; i < N_CASES; i++) {
        const bool asked = !strncmp(cases[i].name, prefix, strlen(prefix));
        at[i][0] = n;
        n += asked ? prefill_wishes(&cases[i], wishes + n) : 0;
        n += asked ? decode_wishes(&cases[i], wishes + n) : 0;
        piped[i] = case_pipeline(&cases[i]);
        piped[i].pipeline = asked && case_can_pipeline(&cases[i]) && lab_wgmma(l);
        n += piped[i].pipeline ? decode_wishes(&piped[i], wishes + n) : 0;
        groups[i] = cases[i];
        groups[i].wgmma = asked && case_wgmma(&cases[i]) && lab_wgmma(l);
        n += groups[i].wgmma ? prefill_wishes(&groups[i], wishes + n) : 0;
        at[i][1] = n;
        at[i + 1][0] = n;
    }
    wishes_build(l, wishes, n);
    for (int i = 0; i < N_CASES; i++)
        if (at[i][1] > at[i][0]) {
            ok &= prefill_check(l, &cases[i], wishes + at[i][0]);
            ok &= decode_check(l, &cases[i], wishes + at[i][0] + PREFILL_WISHES);
            if (piped[i].pipeline)
                ok &= decode_check(l, &piped[i], wishes + at[i][0] + PREFILL_WISHES + decode_kernels(&cases[i]));
            if (groups[i].wgmma)
                ok &= prefill_check(l, &groups[i], wishes + at[i][1] - PREFILL_WISHES);
        }
    for (int i = 0; i < n; i++)
        dev_module_free(wishes[i].module);
    return ok;
}

int main(int argc, char **argv) {
    Lab l = {0};
    const int i = lab_open(&l, argc, argv);
    const char *what = i < argc ? argv[i] : "check";
    bool ok = true;
    if (strstr(what, "rates")) {
        const char *label = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(what, "prefill-rates") != 0)
            decode_rates(&l, label);
        if (strcmp(what, "decode-rates") != 0)
            prefill_rates(&l, label);
    } else if (strcmp(what, "pairs") == 0) {
        const uint64_t seed = i + 2 < argc ? strtoull(argv[i + 2], NULL, 10) : (uint64_t)time(NULL);
        ok = pairs_check(&l, seed, i + 1 < argc ? atoi(argv[i + 1]) : 0);
    } else {
        ok = check(&l, i + 1 < argc ? argv[i + 1] : "");
    }
    lab_close(&l);
    printf(ok ? "all is well\n" : "FAILED\n");
    return ok ? 0 : 1;
}
