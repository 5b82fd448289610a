/* gen_attention.c - family attention: head norms, RoPE, the K/V store, and attending.
 *
 * By the way that choose-attention wrote into the group, for each phase. Split: one launch (gen_attention_decode.c).
 * Dense: one that prepares the queries and stores keys and values, and one that attends (gen_attention_prefill.c).
 * Sparse: between these, two that choose blocks of keys (gen_attention_sparse.c). What is done to head vectors, and
 * which keys are visible, are bodies.
 */
#include "codegen/gen_attention_int.h"

enum { MAX_DIM = 512, KV_SPAN = 32, KV_ROTATED = 128 };

/* ==== Reading the group ==== */

static bool supported_plane(Gen *g, const Node *at, const Attention *a, DType t) {
    if (!kv_form(t))
        gen_fail(
            g, at,
            "a GPU reads no %s, cache '%s' holds %s and %s: change --kv-k and --kv-v, or k_type and v_type in the text",
            dtype_name(t), g->m->caches.v[a->cache].name, dtype_name(a->layout->k_type), dtype_name(a->layout->v_type));
    else if (kv_group(t) && a->layout->ring && a->layout->capacity % KV_PLACES)
        gen_fail(g, at, "cache '%s' of %s is a ring of %lld positions, which is no multiple of %d",
                 g->m->caches.v[a->cache].name, dtype_name(t), (long long)a->layout->capacity, KV_PLACES);
    return !g->failed;
}

/* A warp of prefill has whole spans of packed values, and whole groups of rotated ones. */
static bool supported_values(const KvLayout *l) {
    const int columns = l->v_dim / attention_column_groups(l);
    return !kv_group(l->v_type) || (kv_rotated(l->v_type) ? columns == KV_ROTATED : columns % KV_SPAN == 0);
}

static bool supported(Gen *g, const Attention *a, const Node *at) {
    const KvLayout *l = a->layout;
    if (!supported_plane(g, at, a, l->k_type) || !supported_plane(g, at, a, l->v_type))
        return false;
    if (l->k_dim % 16 || l->v_dim % 16 || l->k_dim > MAX_DIM || l->v_dim > MAX_DIM)
        gen_fail(g, at, "heads of %d and %d elements: a GPU attends to multiples of 16 up to %d", l->k_dim, l->v_dim,
                 MAX_DIM);
    else if (!supported_values(l))
        gen_fail(g, at, "heads of %d values of %s: a GPU attends to %s", l->v_dim, dtype_name(l->v_type),
                 kv_rotated(l->v_type) ? "128, 256 or 512"
                                       : "multiples of 32 up to 128, of 64 up to 256 and of 128 up to 512");
    return !g->failed;
}

static void read_attend(Gen *g, Attention *a) {
    const Node *n = a->attend;
    a->variant = &g->m->variants.v[n->attr[0].i];
    a->query_dim = n->type.dim[0];
    a->q_heads = n->type.dim[1];
    if (n->n_in > 3) {
        a->own = OWN_COUNTED;
        a->own_k = n->in[3];
        a->own_v = n->in[4];
        a->own_pos = n->in[2];
    }
    variant_tables(g, a->variant, &a->tables);
    for (int i = 0; i < a->tables.n; i++)
        if (g->m->weights.v[a->tables.v[i]].type.dtype != DT_F32)
            gen_fail(g, n, "table \"%s\" of a variant must be f32 on a GPU", g->m->weights.v[a->tables.v[i]].name);
}

static void read_store(Attention *a, const Node *n) {
    a->own = OWN_STORED;
    a->own_k = n->in[1];
    a->own_v = n->in[2];
    a->own_pos = n->in[3];
}

static bool read_group(Gen *g, Attention *a) {
    const Node *store = NULL;
    for (NodeId id = 1; id < (NodeId)g->g->nodes.n; id++) {
        const Node *n = ir_get(g->g, id);
        if (n->group == g->group && n->op == OP_ATTEND)
            a->attend = n;
        if (n->group == g->group && n->op == OP_KV_STORE)
            store = n;
    }
    const Node *at = a->attend ? a->attend : store;
    a->loc = at->loc;
    a->cache = ir_cache_of(g->g, a->attend ? a->attend->in[1] : store->in[0]);
    a->layout = &g->m->caches.v[a->cache].layout;
    a->query_dim = DIM_T;
    if (a->attend)
        read_attend(g, a);
    if (store)
        read_store(a, store);
    a->store_dim = a->own ? ir_type(g->g, a->own_k)->dim[0] : DIM_T;
    return supported(g, a, at) && attention_heads(g, a);
}

/* ==== What both phases have ==== */

const char *attention_variant_body(Gen *g, const Attention *a) {
    Buf b = {0};
    buf_str(&b, "#define TABLE_PARAMETERS");
    for (int i = 0; i < a->tables.n; i++)
        buf_printf(&b, " , [[maybe_unused]] const float *t%d", i);
    buf_str(&b, "\n#define TABLE_ARGUMENTS");
    for (int i = 0; i < a->tables.n; i++)
        buf_printf(&b, " , t%d", i);
    buf_printf(&b, "\n\n%s", variant_text(g, a->variant));
    const char *text = arena_strndup(g->arena, b.s, b.n);
    buf_free(&b);
    return text;
}

static void plane_defines(Buf *b, char which, const Loc *l) {
    const bool any = l->kind != LOC_NONE;
    buf_printf(b, "#define ATT_%c_PLANES %d\n#define ATT_%c_PLANE_STRIDE %lldull\n#define ATT_%c_ROW_STRIDE %lldull\n",
               which, any && l->planes ? l->planes : 1, which, any ? (long long)l->plane_stride : 0LL, which,
               any ? (long long)l->row_stride : 0LL);
}

void attention_defines(const Attention *a, Buf *b) {
    const KvLayout *l = a->layout;
    char scale[40];
    format_f32(scale, a->attend ? (float)a->attend->attr[1].f : 1.0f);
    const bool causal = a->variant && scalar_causal(a->variant->visible);
    buf_printf(b, "#define ATT_HEADS %lld\n#define ATT_KV_HEADS %d\n#define ATT_K_DIM %d\n#define ATT_V_DIM %d\n",
               (long long)(a->q_heads ? a->q_heads : l->heads), l->heads, l->k_dim, l->v_dim);
    buf_printf(b, "#define ATT_SCALE ((float)%s)\n#define ATT_K_FORM %s\n#define ATT_V_FORM %s\n", scale,
               kv_form(l->k_type), kv_form(l->v_type));
    buf_printf(b, "#define ATT_CAPACITY %lld\n#define ATT_RING %d\n#define ATT_LOOKBACK %lld\n#define ATT_CAUSAL %d\n",
               (long long)l->capacity, l->ring, (long long)attention_lookback(a), causal);
    buf_printf(b, "#define ATT_SCORE %d\n#define ATT_SINK %d\n#define ATT_STORE %d\n#define ATT_QUERY_ROWS %d\n",
               a->variant && a->variant->score, a->variant && a->variant->sink, a->own, a->query_dim == DIM_R);
    plane_defines(b, 'Q', &a->q);
    plane_defines(b, 'K', &a->k);
    plane_defines(b, 'V', &a->v);
}

int attention_column_groups(const KvLayout *l) {
    return l->v_dim > 256 ? 4 : l->v_dim > 128 ? 2 : 1;
}

int64_t attention_tile_bytes(DType t, int dim, int keys, int64_t row) {
    if (!kv_group(t))
        return keys * row;
    const int64_t scales = dim / kv_group(t) * 2;
    return ceil_div(keys * (((kv_gpu_head_bytes(t, dim) - scales) | 16) + scales), 128) * 128;
}

int64_t attention_lookback(const Attention *a) {
    return a->variant && scalar_causal(a->variant->visible) ? scalar_lookback(a->variant->visible) : -1;
}

PlanArg attention_store_pos(Gen *g, const Attention *a) {
    return a->own ? arg_value(g, a->own_pos) : arg_null();
}

PlanArg attention_out(Gen *g, const Attention *a) {
    const Loc out = slab_loc(g, (NodeId)(a->attend - g->g->nodes.v));
    return arg_loc(&out);
}

void attention_qkv_args(Gen *g, const Attention *a, PlanLaunch *l) {
    launch_arg(g, l, a->attend ? arg_loc(&a->q) : arg_null());
    launch_arg(g, l, a->own ? arg_loc(&a->k) : arg_null());
    launch_arg(g, l, a->own ? arg_loc(&a->v) : arg_null());
}

void attention_cache_args(Gen *g, const Attention *a, PlanLaunch *l) {
    launch_arg(g, l, arg_at(g->cache_k[a->cache], 0));
    launch_arg(g, l, arg_at(g->cache_v[a->cache], 0));
}

void attention_head_args(Gen *g, const Attention *a, PlanLaunch *l) {
    for (int i = 0; i < a->heads.n; i++)
        launch_arg(g, l, a->heads.v[i].arg);
}

void attention_table_args(Gen *g, const Attention *a, PlanLaunch *l) {
    for (int i = 0; i < a->tables.n; i++)
        launch_arg(g, l, arg_at(gen_raw(g, a->tables.v[i]), 0));
}

void attention_cost(const Attention *a, PlanCost *c) {
    const KvLayout *l = a->layout;
    c->kv_bytes_a_key = l->heads * (kv_gpu_head_bytes(l->k_type, l->k_dim) + kv_gpu_head_bytes(l->v_type, l->v_dim));
    c->attend_flops_a_key = 2 * a->q_heads * (l->k_dim + l->v_dim);
    c->window = attention_lookback(a) >= 0 ? attention_lookback(a) + 1 : 0;
}

const char *attention_label(Gen *g, const Attention *a) {
    return arena_printf(g->arena, "attend %s %s", g->m->caches.v[a->cache].name, a->variant->name);
}

/* A store that nothing here reads: a drafter's context. */
static void store_only(Gen *g, const Attention *a) {
    const Body body = {"heads.body", attention_heads_body(g, a)};
    attention_heads_launch(g, a, &body, 1, arg_null());
}

/* Split is for few rows, dense and sparse for rows of one sequence: what else may be chosen, no kernel does. */
static void attend(Gen *g, const Attention *a) {
    const Group *group = &g->g->groups.v[g->group - 1];
    const bool decode = gen_few(g, DIM_T);
    const AttendWay way = decode ? group->decode.way : group->prefill.way;
    if (decode && way == ATTEND_SPLIT)
        attention_decode(g, a);
    else if (!decode && (way == ATTEND_DENSE || way == ATTEND_SPARSE))
        attention_prefill(g, a);
    else
        gen_fail(g, a->attend, "a GPU attends %s in %s; for group g%d the choice is %s",
                 decode ? "split" : "dense or sparse", decode ? "decode" : "prefill", g->group, attend_way_name(way));
}

void gen_attention(Gen *g) {
    Attention a = {0};
    if (read_group(g, &a)) {
        if (a.attend)
            attend(g, &a);
        else
            store_only(g, &a);
    }
    buf_free(&a.heads_text);
}
