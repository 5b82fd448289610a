/* gen_attention_sparse.c - attention of many rows to some blocks of keys: attention_means.cu and attention_choose.cu,
 * between attention_heads.cu and attention_prefill.cu. See ir/eval_sparse.c for what is chosen.
 */
#include "codegen/gen_attention_int.h"
#include "ir/sparse.h"

#include <math.h>

static FlashPrefill method(const Attention *a) {
    return sparse_read(a->variant);
}

/* At alpha 0, which an IR text may have (choose-attention says dense), all blocks are kept: that is the dense way.
 * Wanted rows are few in the phase for few of them. */
bool attention_sparse_applies(const Gen *g, const Attention *a) {
    const AttendWay way = g->g->groups.v[g->group - 1].prefill.way;
    return way == ATTEND_SPARSE && method(a).alpha > 0 && (a->query_dim == DIM_T || a->query_dim == DIM_R) &&
           !gen_few(g, a->query_dim);
}

/* Blocks that the context has, and SPARSE_WORDS of attention_kept.cu. */
static int64_t blocks(const Gen *g, const FlashPrefill *p) {
    return (g->o->context + p->block - 1) / p->block;
}

static int64_t words(const Gen *g, const FlashPrefill *p) {
    enum { LARGEST_TILE = 64 };
    return (g->o->context + LARGEST_TILE) / p->block / 32 + 1;
}

int64_t attention_sparse_window(const Attention *a) {
    const FlashPrefill p = method(a);
    return (p.sink + p.local) * p.block;
}

SparsePart attention_sparse_part(Gen *g, const Attention *a) {
    const FlashPrefill p = method(a);
    const int64_t w = words(g, &p), lists = blocks(g, &p) * a->q_heads;
    const KvLayout *l = a->layout;
    char limit[40];
    if (l->ring)
        gen_fail(g, a->attend,
                 "sparse attention on a GPU reads keys that are all there, and cache '%s' is a ring of %lld",
                 g->m->caches.v[a->cache].name, (long long)l->capacity);
    format_f32(limit, (float)log2(p.alpha));
    return (SparsePart){
        .defines = arena_printf(g->arena,
                                "#define ATT_SPARSE 1\n#define SPARSE_BLOCK %lld\n#define SPARSE_WORDS %lld\n"
                                "#define SPARSE_LIMIT ((float)%s)\n#define SPARSE_SINK %lld\n#define SPARSE_LOCAL "
                                "%lld\n#define SPARSE_TAIL %lld\n#define SPARSE_FROM %lld\n",
                                (long long)p.block, (long long)w, limit, (long long)p.sink, (long long)p.local,
                                (long long)p.tail, (long long)g->g->groups.v[g->group - 1].prefill.from),
        .shared = 8 * w,
        .kept = arg_at(g->scratch_buffer, gen_scratch(g, lists * w * 4, g->group)),
    };
}

/* ==== Means ==== */

static int64_t means_launch(Gen *g, const Attention *a, const FlashPrefill *p, const char *defines, const Body *bodies,
                            int n_bodies) {
    enum { BLOCKS = 8 };
    const KvLayout *l = a->layout;
    const int64_t n = blocks(g, p), means = gen_scratch(g, n * l->heads * l->k_dim * 2, g->group);
    const int kernel = gen_kernel(g, "attention_means.cu", "ATT_NAME", "attention_means", defines, bodies, n_bodies,
                                  ATT_THREADS, 0, BLOCKS);
    const PlanGrid grid = {.x = l->heads, .y = n, .z = 1};
    const char *label = arena_printf(g->arena, "mean keys %s", g->m->caches.v[a->cache].name);
    PlanLaunch *launch = gen_launch(g, &g->phase->launches, kernel, grid, label, a->attend->loc);
    launch_arg(g, launch, arg_at(g->cache_k[a->cache], 0));
    launch_arg(g, launch, arg_at(g->scratch_buffer, means));
    launch_arg(g, launch, arg_slots(g));
    launch_arg(g, launch, arg_lengths(g));
    launch->cost.kv_bytes_a_key = l->heads * kv_gpu_head_bytes(l->k_type, l->k_dim);
    return means;
}

/* ==== The choice ==== */

static int choose_rows(const FlashPrefill *p) {
    return p->block > 64 ? 128 : p->block > 32 ? 64 : 32;
}

/* CHOOSE_SHARED of attention_choose.cu. */
static int64_t choose_shared(const Gen *g, const Attention *a, const FlashPrefill *p) {
    enum { STAGES = 3, MEANS = 64 };
    const int dim = a->layout->k_dim, columns = dim % 64 == 0 ? 64 : dim % 32 == 0 ? 32 : 16, rows = choose_rows(p);
    return STAGES * (rows + MEANS) * (2 * columns + 16) + rows / 32 * MEANS * 8 + 128 * words(g, p);
}

static void choose_launch(Gen *g, const Attention *a, const FlashPrefill *p, const SparsePart *part,
                          const char *defines, const Body *bodies, int n_bodies, int64_t q16, int64_t means) {
    const int64_t shared = choose_shared(g, a, p);
    if (shared > g->target->shared_per_block)
        gen_fail(g, a->attend, "scores of %lld blocks of keys do not fit the shared memory of %s: larger blocks do",
                 (long long)blocks(g, p), g->target->arch);
    const int kernel = gen_kernel(g, "attention_choose.cu", "ATT_NAME", "attention_choose", defines, bodies, n_bodies,
                                  2 * choose_rows(p), shared, 1);
    const PlanGrid grid = {
        .x = a->q_heads, .y = 2, .z = 1, .rows = gen_count(a->query_dim), .axis = 1, .per = (int)p->block};
    const char *label = arena_printf(g->arena, "choose keys %s", g->m->caches.v[a->cache].name);
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, label, a->attend->loc);
    launch_arg(g, l, arg_at(g->scratch_buffer, q16));
    launch_arg(g, l, arg_at(g->scratch_buffer, means));
    launch_arg(g, l, part->kept);
    launch_arg(g, l, arg_value(g, a->attend->in[2]));
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, arg_lengths(g));
    launch_arg(g, l, arg_count(g, a->query_dim));
    launch_arg(g, l, arg_ahead(g));
    attention_table_args(g, a, l);
    l->cost.attend_flops_a_key = 2 * a->q_heads * a->layout->k_dim / p->block;
}

void attention_sparse_launches(Gen *g, const Attention *a, const SparsePart *part, int64_t q16) {
    const FlashPrefill p = method(a);
    const char *variant = attention_variant_body(g, a), *mean = variant_mean_text(g, a->variant, p.block);
    const Body bodies[] = {{"heads.body", attention_heads_body(g, a)},
                           {"variant.body", arena_printf(g->arena, "%s%s", variant, mean)}};
    Buf b = {0};
    attention_defines(a, &b);
    buf_str(&b, part->defines);
    const int64_t means = means_launch(g, a, &p, b.s, bodies, COUNTOF(bodies));
    choose_launch(g, a, &p, part, b.s, bodies, COUNTOF(bodies), q16, means);
    buf_free(&b);
}
