/* prefill_shape.c - see prefill_shape.h. */
#include "codegen/prefill_shape.h"
#include <limits.h>

/* Best first; the first that fits is taken. */
static const PrefillCut cuts[] = {
    {16, 4, 128, 64, 2, 1}, {16, 4, 112, 56, 2, 1}, {16, 4, 96, 48, 2, 1}, {16, 4, 80, 40, 2, 1}, {16, 4, 64, 32, 2, 1},
    {8, 2, 64, 32, 2, 1},   {6, 2, 64, 32, 2, 1},   {8, 2, 32, 16, 2, 1},  {4, 1, 16, 8, 2, 1},
};

int64_t prefill_shared(const MatmulShape *s, const PrefillCut *c) {
    int64_t slot = 0;
    for (int i = 0; i < s->n_segments; i++) {
        const DTypeInfo *t = dtype_info(s->segments[i].type);
        const int64_t bytes = RECORD_K / t->tile_k * t->tile_bytes;
        slot = bytes > slot ? bytes : slot;
    }
    return c->stages * (c->strips * slot + c->tokens / ROWS_OF_TILE * RECORD);
}

const PrefillCut *prefill_cut_fit(const MatmulShape *s, int64_t shared) {
    enum { STATIC = 1 << 10, ONE_RECORD_TOKENS = 64 };
    /* With one record the next panel's addresses stand beside all sums: more tokens, and registers spill. */
    const int tokens = s->k <= RECORD_K ? ONE_RECORD_TOKENS : INT_MAX;
    for (size_t i = 0; i < COUNTOF(cuts); i++)
        if (cuts[i].tokens <= tokens && prefill_shared(s, &cuts[i]) + STATIC <= shared)
            return &cuts[i];
    return NULL;
}

int prefill_threads(const PrefillCut *c) {
    return 32 * (c->strips / c->warp_strips) * (c->tokens / c->warp_tokens);
}

/* Experts that some pair may name. */
static int64_t touched(int64_t pairs, int64_t experts) {
    return experts < pairs ? experts : pairs;
}

int64_t prefill_entries(int64_t pairs, int64_t experts) {
    return pairs + (ROWS_OF_TILE - 1) * touched(pairs, experts);
}

int64_t prefill_expert_tiles(int64_t pairs, int64_t experts, const PrefillCut *c) {
    return touched(pairs, experts) + pairs / c->tokens + 1;
}

void prefill_defines(const MatmulShape *s, const PrefillCut *c, int64_t entries, bool grouped, Buf *to) {
    matmul_segments(s, "PF", to);
    buf_printf(to,
               "#define PF_TILES %lld\n#define PF_STRIPS %d\n#define PF_WARP_STRIPS %d\n#define PF_TOKENS %d\n"
               "#define PF_WARP_TOKENS %d\n#define PF_STAGES %d\n#define PF_BLOCKS %d\n#define PF_GROUPED %d\n",
               (long long)ceil_div(entries, ROWS_OF_TILE), c->strips, c->warp_strips, c->tokens, c->warp_tokens,
               c->stages, c->blocks, grouped);
}

void prefill_input_defines(int64_t k, int64_t entries, int64_t divide, Buf *to) {
    buf_printf(to, "#define IN_K %lld\n#define IN_TILES %lld\n#define IN_GATHER %d\n#define IN_DIVIDE %lld\n",
               (long long)k, (long long)ceil_div(entries, ROWS_OF_TILE), divide > 0, (long long)(divide ? divide : 1));
}

void prefill_sort_defines(int64_t experts, int64_t k_experts, const PrefillCut *c, Buf *to) {
    buf_printf(to, "#define ES_EXPERTS %lld\n#define ES_K %lld\n#define ES_TOKENS %d\n", (long long)experts,
               (long long)k_experts, c->tokens);
}
