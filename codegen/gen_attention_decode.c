/* gen_attention_decode.c - attention of few rows: one launch of attention_decode.cu or attention_pipeline.cu, which
 * prepares the heads, stores the call's keys and values, attends and merges.
 */
#include "codegen/gen_attention_int.h"
#include "codegen/prefill_shape.h"

/* A head's elements; of attention_pipeline.cu, warps that bring tiles, and bytes of a vector's weights: two slots of 64
 * keys. */
enum { WIDE = 256, BRINGERS = 4, PIPELINE_WEIGHTS = 2 * 64 * 2 };

typedef struct DecodeShape {
    bool pipeline; /* attention_pipeline.cu */
    int rows, chunk, keys, vectors, stages, warps, turned;
    int64_t shared, splits;
} DecodeShape;

/* Splits that a row can see: ATT_SPLITS of attention_plan.cu. */
static int64_t most_splits(const KvLayout *l, int64_t lookback, int64_t chunk) {
    enum { FINE = 32, OCTAVE = 16, LARGEST = 1024 }; /* splits of a chunk, splits of an octave, keys of the last ones */
    if (lookback >= 0)
        return lookback / chunk + 2;
    int64_t from = 0, keys = chunk, n = 0; /* the splits of `keys` that begin with `from`, and those before */
    for (int64_t many = FINE; keys < LARGEST && l->capacity > from + many * keys; many = OCTAVE) {
        from += many * keys;
        n += many;
        keys *= 2;
    }
    return n + (l->capacity - from + keys - 1) / keys;
}

static int64_t decode_fixed_shared(const Attention *a, const DecodeShape *s) {
    const KvLayout *l = a->layout;
    const int64_t dim = l->k_dim > l->v_dim ? l->k_dim : l->v_dim;
    const int64_t weights = s->pipeline ? PIPELINE_WEIGHTS : 2 * s->chunk + 16; /* of a vector */
    return (int64_t)s->vectors * (2 * l->k_dim + 16) + s->vectors * weights + 4 * s->warps * dim +
           attention_table_bytes(a);
}

static int64_t stage_bytes(const KvLayout *l, int keys) {
    const int64_t k = attention_tile_bytes(l->k_type, l->k_dim, keys, 2 * l->k_dim);
    const int64_t v = attention_tile_bytes(l->v_type, l->v_dim, keys, 2 * l->v_dim);
    return k > v ? k : v;
}

/* Worth it for many keys, which a window does not have. */
static bool pipelined(const Gen *g, const Attention *a) {
    enum { WHOLE = 128 };
    const KvLayout *l = a->layout;
    return g->target->wgmma && attention_lookback(a) < 0 && l->k_dim % WHOLE == 0 && l->v_dim % WHOLE == 0;
}

static bool packed_tiles(const KvLayout *l) {
    return kv_group(l->k_type) && kv_group(l->v_type);
}

enum { FEW_STAGES = 4, MOST_STAGES = 8, MOST_PACKED = 16 };

/* As many stages as there is room for: what is under way hides latency. Packed tiles are smaller, so more of them are.
 * But the rows' turns come before more than a few stages. */
static void fill_room(const Attention *a, int64_t room, DecodeShape *s) {
    const KvLayout *l = a->layout;
    const int64_t stage = stage_bytes(l, s->keys), turns = a->pairs > 0 ? 8 * a->pairs : 0; /* of a row */
    const int64_t turned = turns && room > FEW_STAGES * stage ? (room - FEW_STAGES * stage) / turns : 0;
    s->turned = turned > s->rows ? s->rows : (int)turned;
    const int64_t fit = (room - s->turned * turns) / stage;
    const int most = s->pipeline || packed_tiles(l) ? MOST_PACKED : MOST_STAGES;
    s->stages = fit > most ? most : (int)fit;
    s->shared = s->stages * stage + s->turned * turns;
}

/* What a chunk and the keys of a tile are depends on the dims, the K/V heads, the types and the architecture only. */
static DecodeShape decode_shape(const Gen *g, const Attention *a) {
    enum { STATIC = 4 << 10, MORE = 1 << 10, ROOMY = 200 << 10 };
    const KvLayout *l = a->layout;
    const int dim = l->k_dim > l->v_dim ? l->k_dim : l->v_dim;
    const bool roomy = g->target->shared_per_block >= ROOMY, packed = packed_tiles(l);
    const int64_t group = a->attend->type.dim[1] / l->heads;
    DecodeShape s = {.pipeline = pipelined(g, a), .rows = 8 * gen_tiles(g, a->query_dim)};
    const int store_rows = 8 * gen_tiles(g, a->store_dim);
    s.rows = s.rows > store_rows ? s.rows : store_rows;
    s.chunk = l->heads >= 16 ? 128 : l->heads >= 4 ? 64 : 32;
    s.keys = (dim > WIDE ? 16 : dim > 128 ? 32 : 64) * ((roomy || packed) && dim > 128 ? 2 : 1);
    s.keys = s.keys < s.chunk ? s.keys : s.chunk;
    /* Of 16 warps each has 128 registers: too few for the sums of wide heads, and for unpacking. */
    s.warps = s.pipeline || dim > WIDE || kv_group(l->k_type) || kv_group(l->v_type) ? 8 : 16;
    s.vectors = group * s.rows <= 16 || (dim > WIDE && !roomy) ? 16 : 32;
    const int64_t fixed = decode_fixed_shared(a, &s), own = STATIC + (s.pipeline ? MORE : 0);
    const int64_t room = g->target->shared_per_block - own - fixed;
    if (s.pipeline) { /* keys of a tile touch no sum; the more, the fewer ends and beginnings */
        s.keys = dim > WIDE && !packed ? 32 : 64;
        s.keys /= room / stage_bytes(l, s.keys) < FEW_STAGES ? 2 : 1;
    }
    fill_room(a, room, &s);
    s.shared += fixed;
    s.splits = most_splits(l, attention_lookback(a), s.chunk);
    return s;
}

/* Where the output goes: as f32 to its place, or, where the matmul behind is all that reads it, as x records of so many
 * tiles of 8 rows. A record is of one head. */
static PlanArg decode_out(Gen *g, const Attention *a, int64_t *tiles) {
    const NodeId id = (NodeId)(a->attend - g->g->nodes.v);
    const OperandUse use = gen_operand_use(g, id);
    *tiles = 0;
    if (!use.k || !use.few || !use.only || a->layout->v_dim % RECORD_K || use.k != type_row_elems(&a->attend->type))
        return attention_out(g, a);
    *tiles = ceil_div(use.entries, ROWS_OF_TILE);
    const PlanArg records = gen_operand_place(g, id, &use);
    gen_operand_made(g, id, &use, records);
    return records;
}

/* Positions are inputs of the call: they are there before its first kernel runs. */
static bool positions_given(const Gen *g, const Attention *a) {
    return ir_get(g->g, a->attend->in[2])->op == OP_INPUT && (!a->own || ir_get(g->g, a->own_pos)->op == OP_INPUT);
}

void attention_decode(Gen *g, const Attention *a) {
    const DecodeShape s = decode_shape(g, a);
    const int64_t heads = a->attend->type.dim[1];
    int64_t record_tiles;
    const PlanArg out = decode_out(g, a, &record_tiles);
    Buf b = {0};
    attention_defines(a, &b);
    buf_printf(&b,
               "#define ATT_ROWS %d\n#define ATT_CHUNK %d\n#define ATT_KEYS %d\n#define ATT_VECTORS %d\n"
               "#define ATT_STAGES %d\n#define ATT_BLOCKS 1\n#define ATT_EARLY %d\n#define ATT_RECORDS %lld\n"
               "#define ATT_TURNED %d\n",
               s.rows, s.chunk, s.keys, s.vectors, s.stages, positions_given(g, a), (long long)record_tiles, s.turned);
    if (!s.pipeline)
        buf_printf(&b, "#define ATT_WARPS %d\n", s.warps);
    const Body bodies[] = {{"heads.body", attention_heads_body(g, a)}, {"variant.body", attention_variant_body(g, a)}};
    const int kernel =
        gen_kernel(g, s.pipeline ? "attention_pipeline.cu" : "attention_decode.cu", "ATT_NAME", "attention", b.s,
                   bodies, 2, 32 * (s.warps + (s.pipeline ? BRINGERS : 0)), gen_exclusive(g, s.shared), 1);
    buf_free(&b);
    const int64_t partials = gen_scratch(g, s.rows * heads * s.splits * (a->layout->v_dim + 2) * 4, g->group);
    PlanGrid grid = {.x = INT32_MAX, .y = 1, .z = 1, .fill = 1};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, attention_label(g, a), a->attend->loc);
    attention_qkv_args(g, a, l);
    attention_cache_args(g, a, l);
    launch_arg(g, l, out);
    launch_arg(g, l, arg_at(g->scratch_buffer, partials));
    launch_arg(g, l, gen_counters(g));
    launch_arg(g, l, a->query_dim == DIM_R ? arg_input(g, "rows") : arg_null());
    launch_arg(g, l, arg_value(g, a->attend->in[2]));
    launch_arg(g, l, attention_store_pos(g, a));
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, arg_lengths(g));
    launch_arg(g, l, arg_count(g, a->query_dim));
    launch_arg(g, l, arg_count(g, a->store_dim));
    attention_head_args(g, a, l);
    attention_table_args(g, a, l);
    attention_cost(a, &l->cost);
}
