/* gen_attention_int.h - what the files of the family attention share. */
#ifndef LAP_CODEGEN_GEN_ATTENTION_INT_H
#define LAP_CODEGEN_GEN_ATTENTION_INT_H

#include "codegen/gen_int.h"

enum { ATT_THREADS = 256 };

typedef struct HeadParam {
    const char *type;
    PlanArg arg;
    int64_t bytes;
} HeadParam;

/* What becomes of the call's own keys and values: ATT_STORE. */
typedef enum OwnRows {
    OWN_NONE,    /* there are none: attends to what another layer stored */
    OWN_STORED,  /* stored, and attended to if the group attends */
    OWN_COUNTED, /* attended to, and the cache stays as it is */
} OwnRows;

typedef struct Attention {
    const Node *attend;     /* NULL: only stores */
    const Variant *variant; /* NULL: only stores */
    int64_t q_heads;        /* 0: only stores */
    OwnRows own;
    NodeId own_k, own_v, own_pos;
    const KvLayout *layout;
    int cache;
    SrcLoc loc;
    Loc q, k, v;
    VEC(HeadParam) heads;
    int turns;      /* of heads: the table of every RoPE */
    int64_t pairs;  /* that it turns; 0: there is no RoPE; -1: there are several tables */
    Buf heads_text; /* the three functions */
    TableVec tables;
    int64_t query_dim, store_dim;
} Attention;

/* ==== gen_attention_heads.c ==== */

/* Follows q, k and v back to what earlier launches computed; sets their places, heads and heads_text. False after
 * gen_fail. */
bool attention_heads(Gen *g, Attention *a);
const char *attention_heads_body(Gen *g, const Attention *a);
/* Shared memory for copies of the tables that head vectors are prepared with. */
int64_t attention_table_bytes(const Attention *a);

/* ==== gen_attention.c ==== */

const char *attention_variant_body(Gen *g, const Attention *a);
/* The macros of attention_layout.cu. */
void attention_defines(const Attention *a, Buf *to);
/* How many groups of warps share the columns of the output in prefill. */
int attention_column_groups(const KvLayout *l);
/* Shared memory of a tile of keys or values, of `row` bytes a key if it is not packed. */
int64_t attention_tile_bytes(DType t, int dim, int keys, int64_t row);
/* The largest q - k that is visible; -1: no bound. */
int64_t attention_lookback(const Attention *a);
PlanArg attention_store_pos(Gen *g, const Attention *a);
PlanArg attention_out(Gen *g, const Attention *a);
/* q, k and v. */
void attention_qkv_args(Gen *g, const Attention *a, PlanLaunch *l);
void attention_cache_args(Gen *g, const Attention *a, PlanLaunch *l);
void attention_head_args(Gen *g, const Attention *a, PlanLaunch *l);
void attention_table_args(Gen *g, const Attention *a, PlanLaunch *l);
void attention_cost(const Attention *a, PlanCost *c);
const char *attention_label(Gen *g, const Attention *a);

/* ==== gen_attention_sparse.c ==== */

/* What choosing blocks of keys adds to attention of many rows. */
typedef struct SparsePart {
    const char *defines; /* macros of attention_kept.cu and attention_choose.cu; "": it is dense */
    int64_t shared;      /* more bytes of attention_prefill.cu */
    PlanArg kept;        /* its argument */
} SparsePart;

/* Whether the queries of this phase attend sparse: so chosen, and not as few as decoding has. */
bool attention_sparse_applies(const Gen *g, const Attention *a);
/* The lists' memory; launches of attention_means.cu and attention_choose.cu, behind the heads'. */
SparsePart attention_sparse_part(Gen *g, const Attention *a);
void attention_sparse_launches(Gen *g, const Attention *a, const SparsePart *part, int64_t q16);
/* Of a row, at least: what is kept without asking for scores. */
int64_t attention_sparse_window(const Attention *a);

/* ==== gen_attention_decode.c, gen_attention_prefill.c ==== */

void attention_decode(Gen *g, const Attention *a);
void attention_prefill(Gen *g, const Attention *a);
/* attention_heads.cu: q16 gets the prepared queries, if the group attends; keys and values go to the cache. */
void attention_heads_launch(Gen *g, const Attention *a, const Body *bodies, int n_bodies, PlanArg q16);

#endif
