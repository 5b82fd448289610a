/* store_check.c - rows that attention_heads.cu stores without preparing them, against kv_encode(): bit for bit,
 * whatever the numbers are. */
#include "tests/attention/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STORED = 120, SPECIAL = 12 };

static const AttendCase shape = {.name = "stored rows",
                                 .heads = 2,
                                 .kv_heads = 2,
                                 .k_dim = 256,
                                 .v_dim = 128,
                                 .capacity = STORED + 5,
                                 .lookback = -1,
                                 .planes = 1,
                                 .chunk = STORED};

static const DType pairs[][2] = {{DT_Q8_0, DT_Q4_0}, {DT_Q4_0, DT_TQ3_0}, {DT_TQ3_0, DT_Q8_0}};
enum { PAIRS = sizeof pairs / sizeof pairs[0] };

/* Number i of a row, of about normal ones; each kind is hard for some type. */
static float special(int kind, float x, int i) {
    switch (kind) {
    case 0: return 0;
    case 1: return i % 32 == 7 ? -0.0f : 0;
    case 2: return -2.5f;
    case 3: return i % 5 ? 3 : -3;                                      /* which of the largest comes first */
    case 4: return i % 32 == 31 ? 12.7f : (float)(i % 32 - 16) * 0.05f; /* halves of a step */
    case 5: return x * 1e-6f;                                           /* scales below the least normal f16 */
    case 6: return x * 1e-12f;                                          /* scales of 0 */
    case 7: return x * 1e-39f;
    case 8: return x * 3e7f; /* scales beyond f16 */
    case 9: return x * 1e37f;
    case 10: return i == 70 ? NAN : x;
    default: return i == 3 ? INFINITY : i == 40 ? -INFINITY : x;
    }
}

static void fill_row(const AttendCase *c, int r, float *to) {
    case_row(c, 0, r, 0, to);
    for (int i = 0; r < 3 * SPECIAL && i < case_stride(c); i++)
        to[i] = special(r % SPECIAL, to[i], i);
}

static int wrong_rows(Lab *l, const AttendCase *c, bool values, DevPtr cache, const float *rows) {
    const Plane p = case_plane(c, values);
    uint8_t *plane = malloc(plane_bytes(&p)), *got = malloc(plane_row_bytes(&p)), *want = malloc(plane_row_bytes(&p));
    int wrong = 0;
    lab_out(l, plane, cache, plane_bytes(&p));
    for (int r = 0; r < STORED; r++) {
        plane_get(&p, plane, r, got);
        plane_encode(&p, rows + (size_t)r * (size_t)case_stride(c) + (values ? case_v_at(c) : case_k_at(c)), want);
        if (memcmp(got, want, plane_row_bytes(&p)) == 0)
            continue;
        if (wrong++ < 5)
            printf("FAILED: row %d of %s is not stored bit for bit\n", r, dtype_name(p.type));
    }
    free(plane);
    free(got);
    free(want);
    return wrong;
}

static bool check_pair(Lab *l, const AttendCase *c, const Wish *w) {
    const size_t stride = (size_t)case_stride(c);
    const Plane of_k = case_plane(c, false), of_v = case_plane(c, true);
    float *rows = malloc(STORED * stride * sizeof *rows);
    int pos[STORED], zeros[STORED] = {0};
    for (int r = 0; r < STORED; r++) {
        fill_row(c, r, rows + (size_t)r * stride);
        pos[r] = r;
    }
    const int none = 0, all = STORED;
    DevPtr q = lab_upload(l, rows, STORED * stride * 4), k = q + 4 * (uint64_t)case_k_at(c);
    DevPtr v = q + 4 * (uint64_t)case_v_at(c), no = 0;
    DevPtr at = lab_upload(l, pos, sizeof pos), slots = lab_upload(l, zeros, sizeof zeros);
    DevPtr queries = lab_upload(l, &none, 4), stored = lab_upload(l, &all, 4);
    DevPtr cache_k = lab_memory(l, plane_bytes(&of_k), 0xff), cache_v = lab_memory(l, plane_bytes(&of_v), 0xff);
    void *arguments[] = {&q, &k, &v, &no, &cache_k, &cache_v, &at, &at, &slots, &queries, &stored, &no, &no};
    lab_run(l, &(DevLaunch){.kernel = w->built, .grid = {5}, .block = {256}, .arguments = arguments});
    const int wrong = wrong_rows(l, c, false, cache_k, rows) + wrong_rows(l, c, true, cache_v, rows);
    const DevPtr memory[] = {q, at, slots, queries, stored, cache_k, cache_v};
    for (int i = 0; i < 7; i++)
        dev_free(l->device, memory[i]);
    free(rows);
    printf("%-8s %s and %s: %d rows%s\n", "store", dtype_name(of_k.type), dtype_name(of_v.type), STORED,
           wrong ? "  <-- FAILED" : ", the same bits");
    return wrong == 0;
}

bool store_check(Lab *l) {
    AttendCase cases[PAIRS];
    Wish wishes[PAIRS];
    bool ok = true;
    for (int i = 0; i < PAIRS; i++) {
        cases[i] = shape;
        cases[i].k_type = pairs[i][0];
        cases[i].v_type = pairs[i][1];
        wishes[i] = (Wish){
            .file = "attention_heads.cu", .kernel = "attention_heads", .defines = case_prefill_defines(&cases[i])};
    }
    wishes_build(l, wishes, PAIRS);
    for (int i = 0; i < PAIRS; i++) {
        ok &= check_pair(l, &cases[i], &wishes[i]);
        dev_module_free(wishes[i].module);
    }
    return ok;
}
