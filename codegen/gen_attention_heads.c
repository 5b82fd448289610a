/* gen_attention_heads.c - what is done to head vectors before they attend: norms and RoPE, as heads.body. */
#include "codegen/gen_attention_int.h"

enum { MAX_CHAIN = 16 };

static int head_param(Gen *g, Attention *a, const char *type, PlanArg arg, int64_t bytes) {
    for (int i = 0; i < a->heads.n; i++)
        if (a->heads.v[i].arg.buffer == arg.buffer && a->heads.v[i].arg.value == arg.value)
            return i;
    HeadParam p = {type, arg, bytes};
    vec_push(g->arena, &a->heads, p);
    return a->heads.n - 1;
}

static void write_norm(Gen *g, Attention *a, const Node *n, const char *dim) {
    char eps[40], weight[16] = "nullptr";
    format_f32(eps, (float)n->attr[0].f);
    if (n->n_in > 1) {
        const Node *w = ir_get(g->g, n->in[1]);
        const DType type = w->type.dtype;
        if (w->op != OP_WEIGHT || (type != DT_F32 && type != DT_BF16)) {
            gen_fail(g, n, "the weight of a norm of heads must be a weight of f32 or bf16 on a GPU, not %s",
                     w->op == OP_WEIGHT ? dtype_name(type) : op_info(w->op)->name);
            return;
        }
        const PlanArg raw = arg_at(gen_raw(g, (int)w->attr[0].i), 0);
        snprintf(weight, sizeof weight, "h%d",
                 head_param(g, a, type == DT_BF16 ? "const u16 *" : "const float *", raw,
                            (type == DT_BF16 ? 2 : 4) * w->type.dim[0]));
    }
    buf_printf(&a->heads_text, "    head_norm<%s>(x, (float)%s, %s);\n", dim, eps, weight);
}

static void write_rope(Gen *g, Attention *a, const Node *n, const char *dim, NodeId pos) {
    if (n->in[1] != pos) {
        gen_fail(g, n, "RoPE by other positions than those of the attention is not supported on a GPU");
        return;
    }
    int table;
    if (!gen_rope_turns(g, n, &table))
        return;
    const int64_t pairs = n->attr[1].i / 2;
    const int turns = head_param(g, a, "const double *", arg_at(table, 0), pairs * 8);
    const bool same = a->pairs == 0 || (a->pairs == pairs && a->turns == turns);
    a->pairs = same ? pairs : -1;
    a->turns = turns;
    buf_printf(&a->heads_text, "    head_rope<%s>(x, %lld, at, h%d);\n", dim, (long long)n->attr[1].i, turns);
}

/* From a head value backwards to what another launch has computed; the function that does what lies between. */
static bool head_chain(Gen *g, Attention *a, NodeId id, const char *name, const char *dim, NodeId pos, Loc *root) {
    const Node *chain[MAX_CHAIN];
    int n = 0;
    while (g->loc[id].kind == LOC_NONE) {
        const Node *x = ir_get(g->g, id);
        if ((x->op != OP_RMS_NORM && x->op != OP_ROPE && x->op != OP_RESHAPE) || n == MAX_CHAIN) {
            gen_fail(g, x, "what prepares head vectors can be norms and rope on a GPU, not %s", op_info(x->op)->name);
            return false;
        }
        if (x->op != OP_RESHAPE)
            chain[n++] = x;
        id = x->in[0];
    }
    *root = g->loc[id];
    buf_printf(
        &a->heads_text,
        "\nDEVICE void %s([[maybe_unused]] float *x, [[maybe_unused]] int head, [[maybe_unused]] const Stand &at "
        "HEAD_PARAMETERS) {\n",
        name);
    while (n-- > 0 && !g->failed) {
        gen_line(g, &a->heads_text, chain[n]->loc);
        if (chain[n]->op == OP_RMS_NORM)
            write_norm(g, a, chain[n], dim);
        else
            write_rope(g, a, chain[n], dim, pos);
    }
    buf_str(&a->heads_text, "}\n");
    return !g->failed;
}

bool attention_heads(Gen *g, Attention *a) {
    if (!a->attend)
        buf_str(&a->heads_text, "\nDEVICE void prepare_q(float *, int, const Stand & HEAD_PARAMETERS) {}\n");
    else if (!head_chain(g, a, a->attend->in[0], "prepare_q", "ATT_K_DIM", a->attend->in[2], &a->q))
        return false;
    if (!a->own) {
        buf_str(&a->heads_text, "\nDEVICE void prepare_k(float *, int, const Stand & HEAD_PARAMETERS) {}\n"
                                "DEVICE void prepare_v(float *, int, const Stand & HEAD_PARAMETERS) {}\n");
        return true;
    }
    return head_chain(g, a, a->own_k, "prepare_k", "ATT_K_DIM", a->own_pos, &a->k) &&
           head_chain(g, a, a->own_v, "prepare_v", "ATT_V_DIM", a->own_pos, &a->v);
}

/* ==== The body ==== */

/* Tables that can be copied to shared memory, 16 bytes at a time; the others are read where they are. */
static bool brought(const HeadParam *p) {
    return p->bytes % 16 == 0;
}

int64_t attention_table_bytes(const Attention *a) {
    int64_t bytes = 0;
    for (int i = 0; i < a->heads.n; i++)
        bytes += brought(&a->heads.v[i]) ? a->heads.v[i].bytes : 0;
    return bytes;
}

static void write_bring(const Attention *a, Buf *b) {
    buf_str(b, "\n#define HEAD_REFERENCES");
    for (int i = 0; i < a->heads.n; i++)
        buf_printf(b, " , [[maybe_unused]] %s&h%d", a->heads.v[i].type, i);
    buf_printf(b,
               "\n#define HEAD_TABLE_BYTES %lld\n\nDEVICE void bring_heads([[maybe_unused]] u8 *to "
               "HEAD_REFERENCES) {\n",
               (long long)attention_table_bytes(a));
    int64_t at = 0;
    for (int i = 0; i < a->heads.n; i++)
        if (brought(&a->heads.v[i])) {
            buf_printf(b, "    h%d = bring_table(to + %lld, h%d, %lld);\n", i, (long long)at, i,
                       (long long)a->heads.v[i].bytes);
            at += a->heads.v[i].bytes;
        }
    buf_str(b, "}\n");
}

const char *attention_heads_body(Gen *g, const Attention *a) {
    Buf b = {0};
    buf_str(&b, "#define HEAD_PARAMETERS");
    for (int i = 0; i < a->heads.n; i++)
        buf_printf(&b, " , [[maybe_unused]] %sh%d", a->heads.v[i].type, i);
    buf_str(&b, "\n#define HEAD_ARGUMENTS");
    for (int i = 0; i < a->heads.n; i++)
        buf_printf(&b, " , h%d", i);
    buf_printf(&b, "\n#define HEAD_PAIRS %lld\n", (long long)(a->pairs > 0 ? a->pairs : 0));
    if (a->pairs > 0)
        buf_printf(&b, "#define HEAD_TURNS h%d\n", a->turns);
    write_bring(a, &b);
    buf_str(&b, a->heads_text.s);
    const char *text = arena_strndup(g->arena, b.s, b.n);
    buf_free(&b);
    return text;
}
