/* rates.c - see rates.h. Shapes of released models, with norms, RoPE and a window; memory holds one number. */
#include "tests/attention/rates.h"

#include "runtime/device/roofline.h"
#include "tests/attention/attend_case.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COPIES = 32, MOST_WAYS = 5 };

#define SLIDING(h, kv) .heads = (h), .kv_heads = (kv), .k_dim = 256, .v_dim = 256, .ring = 1, .lookback = 1023
#define FULL(h, kv)    .heads = (h), .kv_heads = (kv), .k_dim = 512, .v_dim = 512, .lookback = -1
#define COMMON         .prepare = 1, .planes = 3
#define TYPES(t)       .k_type = DT_##t, .v_type = DT_##t

/* The same numbers for all. */
typedef struct Memory {
    DevPtr floats, cache_k, cache_v, out, q16, partials, tail, weight, turns, slopes;
} Memory;

static Memory memory_new(Lab *l) {
    const size_t cache = (size_t)1 << 30;
    return (Memory){.floats = lab_memory(l, (size_t)1 << 29, 0x3c),
                    .cache_k = lab_memory(l, cache, 0x2c),
                    .cache_v = lab_memory(l, cache, 0x2c),
                    .out = lab_memory(l, (size_t)1 << 29, 0),
                    .q16 = lab_memory(l, (size_t)1 << 28, 0x2c),
                    .partials = lab_memory(l, (size_t)1 << 28, 0),
                    .tail = lab_memory(l, 12, 0),
                    .weight = lab_memory(l, 4096, 0x3c),
                    .turns = lab_memory(l, 4096, 0x3c),
                    .slopes = lab_memory(l, 4096, 0x3c)};
}

static void memory_free(Lab *l, const Memory *m) {
    const DevPtr all[] = {m->floats,   m->cache_k, m->cache_v, m->out,   m->q16,
                          m->partials, m->tail,    m->weight,  m->turns, m->slopes};
    for (int i = 0; i < 10; i++)
        dev_free(l->device, all[i]);
}

static DevPtr put(Lab *l, const int *v, int n) {
    DevPtr to = lab_memory(l, (size_t)(n > 16 ? n : 16) * 4, 0);
    lab_in(l, to, v, (size_t)n * 4);
    return to;
}

static const char *spills(const Wish *w, char *text) {
    const DevKernelInfo *info = dev_kernel_info(w->built);
    sprintf(text, "%3d regs %3d local %6d bytes", info->registers, info->local_bytes, (int)w->shared);
    return text;
}

/* ==== Decode ==== */

typedef struct DecodeRate {
    const char *label;
    AttendCase of;
    int keys[4];
} DecodeRate;

/* With 520 keys the newest split is a short one, as in most steps. */
static const DecodeRate decode_cases[] = {
    {"31B sliding", {SLIDING(32, 16), COMMON}, {200, 512, 1024}},
    {"26B sliding", {SLIDING(16, 8), COMMON}, {512, 1024}},
    {"31B full", {FULL(32, 4), COMMON}, {520, 8192, 32768, 65536}},
    {"12B full", {FULL(16, 1), COMMON}, {8192, 32768}},
    {"31B full, q8", {FULL(32, 4), COMMON, TYPES(Q8_0)}, {520, 8192, 32768, 65536}},
    {"31B full, q4", {FULL(32, 4), COMMON, TYPES(Q4_0)}, {32768, 65536}},
    {"31B full, tq3/q8", {FULL(32, 4), COMMON, .k_type = DT_TQ3_0, .v_type = DT_Q8_0}, {512, 8192, 32768, 65536}},
    {"31B full, tq3", {FULL(32, 4), COMMON, TYPES(TQ3_0)}, {512, 8192, 32768, 65536}},
    {"31B slide, q8", {SLIDING(32, 16), COMMON, TYPES(Q8_0)}, {512, 1024}},
    {"31B slide, tq3", {SLIDING(32, 16), COMMON, TYPES(TQ3_0)}, {512, 1024}},
};
enum { N_DECODE = sizeof decode_cases / sizeof decode_cases[0] };

/* ATT_KEYS, ATT_VECTORS, ATT_STAGES, by attention_pipeline.cu, ATT_TURNED. By head dim up to 256 and more, then the
 * same packed. */
static const int decode_ways[4][MOST_WAYS][5] = {
    {{64, 16, 5}, {64, 16, 5, 0, 1}, {64, 32, 5}, {64, 32, 5, 0, 1}, {64, 16, 5, 1}},
    {{32, 32, 5}, {32, 32, 4, 0, 1}, {32, 32, 4, 1}, {32, 32, 4, 1, 1}, {16, 32, 8, 1, 1}},
    {{64, 16, 8}, {64, 16, 8, 0, 1}, {64, 32, 8}, {64, 32, 8, 0, 1}, {64, 16, 8, 1}},
    {{32, 32, 9}, {32, 32, 8, 0, 1}, {64, 32, 4, 1}, {64, 32, 4, 1, 1}, {32, 32, 8, 1, 1}},
};

/* Rows of one sequence, or a row each of as many. */
static const struct {
    const char *label;
    int rows, sequences;
} loads[] = {{"1 row", 1, 1}, {"8 rows", 8, 1}, {"8 sequences", 8, 8}, {"16 rows", 16, 1}};
enum { N_LOADS = sizeof loads / sizeof loads[0] };

/* Bytes of keys and values that the rows see. */
static double visible_bytes(const AttendCase *c, int keys, int rows, int sequences) {
    const int back = c->lookback < 0 ? keys : c->lookback + (sequences > 1 ? 1 : rows);
    const Plane k = case_plane(c, false), v = case_plane(c, true);
    const double bytes = (double)(kv_gpu_head_bytes(k.type, k.dim) + kv_gpu_head_bytes(v.type, v.dim));
    return (double)sequences * (back < keys ? back : keys) * c->kv_heads * bytes;
}

static void decode_rate(Lab *l, const Memory *m, const AttendCase *c, const char *label, const Wish *w, int keys,
                        int load, double roof) {
    const int rows = loads[load].rows, sequences = loads[load].sequences;
    const Plane keys_plane = case_plane(c, false), values_plane = case_plane(c, true);
    const size_t of_keys = plane_bytes(&keys_plane), of_values = plane_bytes(&values_plane);
    const size_t plane = of_keys > of_values ? of_keys : of_values;
    int slots_held = (int)(((size_t)1 << 30) / plane), copies = slots_held / sequences;
    if (copies < 1)
        return;
    copies = copies < MOST_COPIES ? copies : MOST_COPIES;
    int pos[16], lengths[1024];
    for (int r = 0; r < rows; r++)
        pos[r] = keys - (sequences > 1 ? 1 : rows - r);
    for (int i = 0; i < 1024; i++)
        lengths[i] = keys;
    DevPtr at = put(l, pos, rows), length = put(l, lengths, 1024), count = put(l, &rows, 1), slots[MOST_COPIES];
    DevPtr k = m->floats + 4 * (uint64_t)case_k_at(c), v = m->floats + 4 * (uint64_t)case_v_at(c);
    static void *arguments[MOST_COPIES][18];
    DevLaunch launches[MOST_COPIES];
    for (int i = 0; i < copies; i++) {
        int of[16];
        for (int r = 0; r < rows; r++)
            of[r] = i * sequences + (sequences > 1 ? r : 0);
        slots[i] = put(l, of, rows);
        const void *list[18] = {&m->floats,   &k,       &v,     &m->cache_k, &m->cache_v, &m->out,
                                &m->partials, &m->tail, &at,    &at,         &at,         &slots[i],
                                &length,      &count,   &count, &m->weight,  &m->turns,   &m->slopes};
        memcpy(arguments[i], list, sizeof list);
        launches[i] = (DevLaunch){.kernel = w->built,
                                  .grid = {(uint32_t)wish_resident(l, w, case_decode_threads(c))},
                                  .block = {(uint32_t)case_decode_threads(c)},
                                  .shared_bytes = (uint32_t)w->shared,
                                  .pdl = true,
                                  .arguments = arguments[i]};
    }
    const double seconds = lab_time(l, launches, copies), bytes = visible_bytes(c, keys, rows, sequences);
    char text[100];
    printf("%-17s %5d keys %-11s tiles %2d x %2d x %d, %s%s  %s %8.2f us %5.0f GB/s %5.1f %%\n", label, keys,
           loads[load].label, c->keys, c->vectors, c->stages, c->pipeline ? "teams" : "     ",
           c->turned ? ", turned" : "        ", spills(w, text), seconds * 1e6, bytes / seconds / 1e9,
           bytes / seconds / 1e7 / roof);
    for (int i = 0; i < copies; i++)
        dev_free(l->device, slots[i]);
    const DevPtr memory[] = {at, length, count};
    for (int i = 0; i < 3; i++)
        dev_free(l->device, memory[i]);
}

static AttendCase decode_way(const DecodeRate *r, int way, int keys) {
    AttendCase c = r->of;
    const int *w = decode_ways[(c.k_dim > 256) + (kv_group(c.k_type) ? 2 : 0)][way];
    c.keys = w[0];
    c.vectors = w[1];
    c.stages = w[2];
    c.pipeline = w[3];
    c.turned = w[4] ? 16 : 0;
    c.warps = c.k_dim > 256 || kv_group(c.k_type) ? 8 : 16;
    c.early = 1; /* as in a step */
    c.capacity = c.lookback < 0 ? (keys < 16384 ? 16384 : keys) : 1536;
    return c;
}

void decode_rates(Lab *l, const char *label) {
    DevError e = {0};
    Roofline roof;
    must(roofline_measure(l->device, l->nvrtc, NULL, &roof, &e), &e);
    printf("%s: %.0f GB/s read\n", dev_info(l->device)->name, roof.read_gb_per_second);
    const Memory m = memory_new(l);
    for (int i = 0; i < N_DECODE; i++)
        for (int k = 0; strstr(decode_cases[i].label, label) && k < 4 && decode_cases[i].keys[k]; k++) {
            const int keys = decode_cases[i].keys[k];
            Wish wishes[MOST_WAYS * 2] = {0};
            for (int n = 0; n < MOST_WAYS * 2; n++) {
                const AttendCase c = decode_way(&decode_cases[i], n / 2, keys);
                const int rows = n % 2 ? 16 : 8;
                wishes[n] = (Wish){.file = case_decode_file(&c),
                                   .kernel = "attention_decode",
                                   .shared = case_shared(&c, rows),
                                   .defines = case_decode_defines(&c, rows, 1, 0)};
            }
            wishes_build(l, wishes, MOST_WAYS * 2);
            for (int load = 0; load < N_LOADS; load++)
                for (int way = 0; way < MOST_WAYS; way++) {
                    const AttendCase c = decode_way(&decode_cases[i], way, keys);
                    decode_rate(l, &m, &c, decode_cases[i].label, &wishes[2 * way + (loads[load].rows > 8)], keys, load,
                                roof.read_gb_per_second);
                }
            for (int n = 0; n < MOST_WAYS * 2; n++)
                dev_module_free(wishes[n].module);
        }
    memory_free(l, &m);
}

/* ==== Prefill ==== */

typedef struct PrefillRate {
    const char *label;
    AttendCase of;
} PrefillRate;

static const PrefillRate prefill_cases[] = {
    {"256 causal, q8", {.heads = 16, .kv_heads = 8, .k_dim = 256, .v_dim = 256, .lookback = -1, COMMON, TYPES(Q8_0)}},
    {"256 causal, tq3", {.heads = 16, .kv_heads = 8, .k_dim = 256, .v_dim = 256, .lookback = -1, COMMON, TYPES(TQ3_0)}},
    {"512 causal, q8", {FULL(16, 2), COMMON, TYPES(Q8_0)}},
    {"512 causal, tq3", {FULL(16, 2), COMMON, TYPES(TQ3_0)}},
    {"256 window", {SLIDING(16, 8), COMMON}},
    {"256 causal", {.heads = 16, .kv_heads = 8, .k_dim = 256, .v_dim = 256, .lookback = -1, COMMON}},
    {"512 causal", {FULL(16, 2), COMMON}},
    {"128 causal", {.heads = 16, .kv_heads = 8, .k_dim = 128, .v_dim = 128, .lookback = -1, COMMON}},
    {"64 causal", {.heads = 16, .kv_heads = 8, .k_dim = 64, .v_dim = 64, .lookback = -1, COMMON}},
};
enum { N_PREFILL = sizeof prefill_cases / sizeof prefill_cases[0], PREFILL_WAYS = 4 };

/* ATT_QUERIES, ATT_TILE, ATT_BLOCKS by head dim up to 128, up to 256, more; the last way is attention_wgmma.cu, where
 * it can be. */
static const int prefill_ways[3][PREFILL_WAYS - 1][3] = {
    {{0, 0, 0}, {64, 64, 2}, {128, 64, 1}},
    {{128, 64, 1}, {64, 64, 2}, {64, 32, 2}},
    {{64, 64, 1}, {64, 32, 1}, {32, 32, 2}},
};

static void prefill_rate(Lab *l, const Memory *m, const PrefillRate *r, int rows) {
    Wish wishes[PREFILL_WAYS + 1] = {0};
    AttendCase c[PREFILL_WAYS];
    const int ways = PREFILL_WAYS - !(case_wgmma(&r->of) && lab_wgmma(l));
    for (int way = 0; way < ways; way++) {
        c[way] = r->of;
        c[way].wgmma = way == PREFILL_WAYS - 1;
        if (!c[way].wgmma) {
            const int *w = prefill_ways[r->of.k_dim > 256 ? 2 : r->of.k_dim > 128][way];
            c[way].queries = w[0];
            c[way].tile = w[1];
            c[way].blocks = w[2];
        }
        c[way].chunk = rows;
        c[way].capacity = rows + 1536;
        wishes[way] = (Wish){.file = case_prefill_file(&c[way]),
                             .kernel = "attention_prefill",
                             .shared = case_prefill_shared(&c[way]),
                             .defines = case_prefill_defines(&c[way])};
    }
    wishes[ways] =
        (Wish){.file = "attention_heads.cu", .kernel = "attention_heads", .defines = case_prefill_defines(&c[0])};
    wishes_build(l, wishes, ways + 1);
    int *pos = malloc((size_t)rows * sizeof *pos), *zeros = calloc((size_t)rows, sizeof *zeros);
    double pairs = 0;
    for (int i = 0; i < rows; i++) {
        pos[i] = i;
        pairs += r->of.lookback >= 0 && i > r->of.lookback ? r->of.lookback + 1 : i + 1;
    }
    DevPtr at = put(l, pos, rows), slots = put(l, zeros, rows), length = put(l, &rows, 1), count = put(l, &rows, 1);
    DevPtr k = m->floats + 4 * (uint64_t)case_k_at(&c[0]), v = m->floats + 4 * (uint64_t)case_v_at(&c[0]);
    const void *arguments[] = {&m->q16, &m->cache_k, &m->cache_v, &m->out, &at, &slots, &length, &count, &m->slopes};
    const void *heads_arguments[] = {&m->floats, &k,     &v,     &m->q16, &m->cache_k, &m->cache_v, &at,
                                     &at,        &slots, &count, &count,  &m->weight,  &m->turns};
    const double flops = pairs * r->of.heads * 2 * (r->of.k_dim + r->of.v_dim);
    char text[100];
    for (int way = 0; way < ways; way++) {
        const int queries = case_prefill_queries(&c[way]);
        const DevLaunch launch = {.kernel = wishes[way].built,
                                  .grid = {(uint32_t)c[way].heads, (uint32_t)((rows + queries - 1) / queries)},
                                  .block = {(uint32_t)case_prefill_threads(&c[way])},
                                  .shared_bytes = (uint32_t)wishes[way].shared,
                                  .arguments = (void **)arguments};
        const double seconds = lab_time(l, (const DevLaunch[]){launch, launch, launch}, 3);
        printf("%-15s %5d rows, %s %3d x %2d, %d blocks  %s %9.1f us %5.0f TF\n", r->label, rows,
               c[way].wgmma ? "wgmma" : "mma  ", queries, c[way].tile, c[way].blocks, spills(&wishes[way], text),
               seconds * 1e6, flops / seconds / 1e12);
    }
    const DevLaunch heads = {.kernel = wishes[ways].built,
                             .grid = {(uint32_t)(rows * (c[0].heads + 2 * c[0].kv_heads) / 8)},
                             .block = {256},
                             .arguments = (void **)heads_arguments};
    const double bytes = (double)rows * (6.0 * case_v_at(&c[0]) + 6.0 * c[0].kv_heads * c[0].v_dim);
    const double seconds = lab_time(l, (const DevLaunch[]){heads, heads, heads}, 3);
    printf("%-15s %5d rows, heads %9.1f us %5.0f GB/s\n", r->label, rows, seconds * 1e6, bytes / seconds / 1e9);
    const DevPtr memory[] = {at, slots, length, count};
    for (int i = 0; i < 4; i++)
        dev_free(l->device, memory[i]);
    for (int i = 0; i <= ways; i++)
        dev_module_free(wishes[i].module);
    free(pos);
    free(zeros);
}

void prefill_rates(Lab *l, const char *label) {
    const Memory m = memory_new(l);
    for (int i = 0; i < N_PREFILL; i++)
        for (int rows = 4096; strstr(prefill_cases[i].label, label) && rows <= 8192; rows *= 2)
            prefill_rate(l, &m, &prefill_cases[i], rows);
    memory_free(l, &m);
}
