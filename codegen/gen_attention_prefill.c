/* gen_attention_prefill.c - attention of many rows of one sequence: attention_heads.cu prepares the queries and stores
 * keys and values, then attention_prefill.cu or attention_wgmma.cu attends; to blocks of keys that were chosen in
 * between if it is sparse.
 */
#include "codegen/gen_attention_int.h"
#include <stdio.h>

/* Query rows of a block, keys of a tile, and blocks of a multiprocessor: kernels/attention_prefill.cu. */
typedef struct PrefillShape {
    int most_dim; /* for heads up to this */
    int queries, keys, blocks;
} PrefillShape;

/* The kernel of a launch. */
typedef struct PrefillKernel {
    const char *file;
    int queries, threads, blocks; /* query rows of a block */
    int64_t shared;
    char defines[100];
} PrefillKernel;

/* Best first for each dim; the first that fits is taken. */
static const PrefillShape prefill_shapes[] = {
    {64, 128, 64, 1}, {128, 128, 32, 1}, {256, 128, 64, 1}, {256, 64, 64, 1},
    {256, 64, 32, 1}, {512, 64, 64, 1},  {512, 32, 32, 1},
};

/* A row of so many 16-bit elements in shared memory. */
static int64_t line_bytes(int64_t n) {
    return n == 32 || n % 64 == 0 ? 2 * n : 2 * n + 16;
}

static int64_t prefill_shared(const KvLayout *l, const PrefillShape *s) {
    const int groups = attention_column_groups(l);
    const int64_t exchange = groups > 1 ? s->queries * (line_bytes(s->keys) + 4 * groups) : 0;
    const int64_t keys = attention_tile_bytes(l->k_type, l->k_dim, s->keys, line_bytes(l->k_dim));
    const int64_t values = attention_tile_bytes(l->v_type, l->v_dim, s->keys, line_bytes(l->v_dim));
    return s->queries * line_bytes(l->k_dim) + keys + values + exchange + 4 * s->queries;
}

enum { GROUP_TILE = 64, GROUP_THREADS = 384, ATOM = 1 << 10 }; /* keys; dynamic memory begins at an atom */

/* kernels/attention_wgmma.cu and attention_wgmma_wide.cu: the layouts that they can do, and what they need. */
static bool group_kernel(const KvLayout *l, int64_t room, PrefillKernel *out) {
    enum { QUERIES = 128, STAGES = 2, BARRIERS = 128 };
    enum { WIDE_QUERIES = 64, WIDE_NUMBERS = 7, CHUNKS = 8, CHUNK = 16 << 10, WIDE_BARRIERS = 256 };
    const int64_t row = 2 * (int64_t)l->k_dim;
    *out = (PrefillKernel){.file = "attention_wgmma.cu", .queries = QUERIES, .threads = GROUP_THREADS, .blocks = 1};
    out->shared = (QUERIES + 2 * STAGES * GROUP_TILE) * row + 4 * QUERIES + BARRIERS;
    if (l->k_dim > 256) {
        out->file = "attention_wgmma_wide.cu";
        out->queries = WIDE_QUERIES;
        out->shared = WIDE_QUERIES * (row + 2 * 2 * GROUP_TILE + 4 * WIDE_NUMBERS) + CHUNKS * CHUNK + WIDE_BARRIERS;
    }
    return !kv_group(l->k_type) && !kv_group(l->v_type) && l->k_dim == l->v_dim &&
           (l->k_dim == 64 || l->k_dim == 128 || l->k_dim == 256 || l->k_dim == 512) && out->shared + ATOM <= room;
}

/* more: bytes of shared memory besides the tiles. */
static PrefillKernel choose_prefill(Gen *g, const Attention *a, int64_t more) {
    const KvLayout *l = a->layout;
    const int64_t room = g->target->shared_per_block - more;
    const int dim = l->k_dim > l->v_dim ? l->k_dim : l->v_dim;
    PrefillKernel k;
    if (!g->target->wgmma || !group_kernel(l, room, &k)) {
        const PrefillShape *s = NULL;
        for (size_t i = 0; !s && i < COUNTOF(prefill_shapes); i++)
            if (dim <= prefill_shapes[i].most_dim && prefill_shared(l, &prefill_shapes[i]) <= room)
                s = &prefill_shapes[i];
        if (!s) {
            gen_fail(g, a->attend, "no tile of attention over heads of %d fits the shared memory of %s", dim,
                     g->target->arch);
            s = &prefill_shapes[0];
        }
        k = (PrefillKernel){.file = "attention_prefill.cu",
                            .queries = s->queries,
                            .threads = 32 * (s->queries / 32) * attention_column_groups(l),
                            .blocks = s->blocks,
                            .shared = prefill_shared(l, s)};
        snprintf(k.defines, sizeof k.defines, "#define ATT_QUERIES %d\n#define ATT_TILE %d\n#define ATT_BLOCKS %d\n",
                 s->queries, s->keys, s->blocks);
    }
    k.shared += more;
    return k;
}

void attention_heads_launch(Gen *g, const Attention *a, const Body *bodies, int n_bodies, PlanArg q16) {
    enum { VECTORS_A_BLOCK = 8, BLOCKS = 4 };
    Buf b = {0};
    attention_defines(a, &b);
    const int kernel =
        gen_kernel(g, "attention_heads.cu", "ATT_NAME", "heads", b.s, bodies, n_bodies, ATT_THREADS, 0, BLOCKS);
    buf_free(&b);
    const int64_t vectors = a->q_heads + 2 * a->layout->heads;
    PlanGrid grid = {
        .x = (vectors + VECTORS_A_BLOCK - 1) / VECTORS_A_BLOCK, .y = 1, .z = 1, .rows = COUNT_T, .axis = 0, .per = 1};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid,
                               arena_printf(g->arena, "heads %s", g->m->caches.v[a->cache].name), a->loc);
    attention_qkv_args(g, a, l);
    launch_arg(g, l, q16);
    attention_cache_args(g, a, l);
    launch_arg(g, l, a->attend ? arg_value(g, a->attend->in[2]) : arg_null());
    launch_arg(g, l, attention_store_pos(g, a));
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, a->attend ? arg_count(g, a->query_dim) : gen_counters(g)); /* else none: a zero nobody changes */
    launch_arg(g, l, arg_count(g, a->store_dim));
    attention_head_args(g, a, l);
    l->cost.bytes_a_row = 4 * (a->q.row_stride + (a->own ? a->k.row_stride : 0));
}

void attention_prefill(Gen *g, const Attention *a) {
    const bool sparse = attention_sparse_applies(g, a);
    const SparsePart part = sparse ? attention_sparse_part(g, a) : (SparsePart){.defines = ""};
    const PrefillKernel k = choose_prefill(g, a, part.shared);
    const int64_t heads = a->attend->type.dim[1];
    const Body bodies[] = {{"heads.body", attention_heads_body(g, a)}, {"variant.body", attention_variant_body(g, a)}};
    const int64_t q16 = gen_scratch(g, gen_most(g, a->query_dim) * heads * a->layout->k_dim * 2, g->group);
    attention_heads_launch(g, a, bodies, 2, arg_at(g->scratch_buffer, q16));
    if (sparse)
        attention_sparse_launches(g, a, &part, q16);
    Buf b = {0};
    attention_defines(a, &b);
    buf_str(&b, part.defines);
    buf_str(&b, k.defines);
    const int kernel =
        gen_kernel(g, k.file, "ATT_NAME", "attention_prefill", b.s, bodies, 2, k.threads, k.shared, k.blocks);
    buf_free(&b);
    PlanGrid grid = {.x = heads, .y = 1, .z = 1, .rows = gen_count(a->query_dim), .axis = 1, .per = k.queries};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, attention_label(g, a), a->attend->loc);
    launch_arg(g, l, arg_at(g->scratch_buffer, q16));
    attention_cache_args(g, a, l);
    launch_arg(g, l, attention_out(g, a));
    launch_arg(g, l, arg_value(g, a->attend->in[2]));
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, arg_lengths(g));
    launch_arg(g, l, arg_count(g, a->query_dim));
    if (sparse)
        launch_arg(g, l, part.kept);
    attention_table_args(g, a, l);
    attention_cost(a, &l->cost);
    if (sparse)
        l->cost.window = attention_sparse_window(a);
}
