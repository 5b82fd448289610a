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

typedef struct Attention {
    const Node *attend, *store; /* store NULL: attends to what another layer stored */
    const Variant *variant;
    const KvLayout *layout;
    int cache;
    Loc q, k, v;
    VEC(HeadParam) heads;
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

/* ==== gen_attention_decode.c, gen_attention_prefill.c ==== */

void attention_decode(Gen *g, const Attention *a);
void attention_prefill(Gen *g, const Attention *a);

#endif
