/* pairs.c - see pairs.h. */
#include "tests/attention/pairs.h"

#include <stdio.h>
#include <stdlib.h>

static const DType types[] = {DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_TQ3_0};
enum { TYPES = sizeof types / sizeof types[0], PAIRS = TYPES * TYPES };

/* Beside the pairs with dims by chance: the widest heads of packed types, and heads of 64. */
static const struct {
    DType k, v;
    int k_dim, v_dim;
} sure[] = {
    {DT_TQ3_0, DT_TQ3_0, 512, 512}, {DT_Q8_0, DT_Q8_0, 512, 512}, {DT_Q4_0, DT_TQ3_0, 512, 512},
    {DT_F16, DT_Q4_0, 512, 512},    {DT_Q8_0, DT_Q8_0, 64, 64},   {DT_Q4_0, DT_Q4_0, 64, 64},
    {DT_Q8_0, DT_TQ3_0, 64, 128},   {DT_Q4_0, DT_F16, 64, 64},    {DT_BF16, DT_BF16, 64, 64},
};
enum { SURE = sizeof sure / sizeof sure[0], ALL = PAIRS + SURE };

/* ==== Cases by chance ==== */

static uint64_t state;

static int below(int n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int)((state >> 33) % (uint64_t)n);
}

static int of(const int *list, int n) {
    return list[below(n)];
}
#define OF(...) of((const int[]){__VA_ARGS__}, (int)(sizeof(const int[]){__VA_ARGS__} / sizeof(int)))

/* A rotation takes 128 elements. */
static int random_dim(DType t) {
    return kv_rotated(t) ? OF(128, 128, 256, 512) : OF(64, 128, 128, 256, 512);
}

/* Names are of static memory. Of 16 warps each has too few registers for wide heads (gen_attention_decode.c). */
static AttendCase random_case(DType k, DType v, int k_dim, int v_dim, char *name) {
    const bool wide = k_dim > 256 || v_dim > 256;
    AttendCase c = {.name = name,
                    .kv_heads = OF(1, 1, 2, 3),
                    .k_dim = k_dim,
                    .v_dim = v_dim,
                    .k_type = k,
                    .v_type = v,
                    .planes = OF(1, 2),
                    .prepare = below(2),
                    .score = below(3),
                    .sink = below(2),
                    .early = below(2),
                    .turned = OF(0, 5, 16),
                    .warps = wide ? 8 : OF(8, 16),
                    .stores = below(4) == 0,
                    .wanted = below(4) == 0,
                    .chunk = 17 + below(50)};
    c.records = c.v_dim % 256 == 0 && below(2);
    c.heads = c.kv_heads * OF(1, 2, 5, 8);
    c.ring = below(2);
    c.lookback = c.ring ? 20 + below(150) : -1;
    c.variant = c.ring ? OF(0, 2) : OF(0, 1);
    c.start = (c.variant == 1 ? 40 : 0) + below(c.ring ? 500 : 250); /* before, rows see others that come later */
    c.capacity = c.ring ? (c.lookback + 1 + c.chunk + 15) / 16 * 16 : c.start + 2 * c.chunk + 9 + below(40);
    snprintf(name, PAIR_NAME, "%s %s, %d/%d, %d of %d heads", dtype_name(k), dtype_name(v), c.k_dim, c.v_dim, c.heads,
             c.kv_heads);
    return c;
}

static AttendCase numbered_case(int n, char *name) {
    if (n >= PAIRS)
        return random_case(sure[n - PAIRS].k, sure[n - PAIRS].v, sure[n - PAIRS].k_dim, sure[n - PAIRS].v_dim, name);
    const DType k = types[n / TYPES], v = types[n % TYPES];
    const int k_dim = random_dim(k), v_dim = random_dim(v);
    return random_case(k, v, k_dim, v_dim, name);
}

/* ==== Checks ==== */

static bool check_pair(Lab *l, const AttendCase *drawn) {
    AttendCase of = *drawn, *c = &of;
    Wish wishes[MOST_WISHES] = {0};
    int n = prefill_wishes(c, wishes);
    n += decode_wishes(c, wishes + n);
    const AttendCase piped = case_pipeline(drawn);
    const bool pipeline = case_can_pipeline(drawn) && lab_wgmma(l);
    n += pipeline ? decode_wishes(&piped, wishes + n) : 0;
    wishes_build(l, wishes, n);
    bool ok = prefill_check(l, c, wishes);
    ok &= decode_check(l, c, wishes + PREFILL_WISHES);
    if (pipeline)
        ok &= decode_check(l, &piped, wishes + PREFILL_WISHES + decode_kernels(c));
    for (int i = 0; i < n; i++)
        dev_module_free(wishes[i].module);
    return ok;
}

bool pairs_check(Lab *l, uint64_t seed, int many) {
    bool ok;
    int left = ALL, order[ALL];
    state = seed;
    case_seed(seed);
    printf("seed %llu\n", (unsigned long long)seed);
    ok = store_check(l);
    for (int i = 0; i < ALL; i++)
        order[i] = i;
    for (int i = 0; (i < many || many == 0) && left > 0; i++) {
        char name[PAIR_NAME];
        const int at = below(left), drawn = order[at];
        order[at] = order[--left];
        const AttendCase c = numbered_case(drawn, name);
        ok &= check_pair(l, &c);
        fflush(stdout);
    }
    return ok;
}
