/* prefill_shape.c - see prefill_shape.h. */
#include "codegen/prefill_shape.h"
#include <limits.h>

enum {
    RECORD = 4384, /* bytes: X_RECORD, X_ATOM of kernels/matmul_rows.cu */
    ATOM = 1024,
    ATOM_K = 64,
    STRIP = 16, /* weight rows */
};

enum { STATIC = 1 << 10 }; /* bytes of a block for what is no ring, and for dynamic memory to begin at an atom */

/* ==== mma: kernels/matmul_prefill.cu ==== */

/* Best first; the first that fits is taken. */
static const PrefillCut cuts[] = {
    {16, 4, 128, 64, 2, 1, 0}, {16, 4, 112, 56, 2, 1, 0}, {16, 4, 96, 48, 2, 1, 0},
    {16, 4, 80, 40, 2, 1, 0},  {16, 4, 64, 32, 2, 1, 0},  {8, 2, 64, 32, 2, 1, 0},
    {6, 2, 64, 32, 2, 1, 0},   {8, 2, 32, 16, 2, 1, 0},   {4, 1, 16, 8, 2, 1, 0},
};

/* Bytes of `columns` columns of a strip, of the largest type. */
static int64_t slot(const MatmulShape *s, int columns) {
    int64_t most = 0;
    for (int i = 0; i < s->n_segments; i++) {
        const DTypeInfo *t = dtype_info(s->segments[i].type);
        const int64_t bytes = columns / t->tile_k * t->tile_bytes;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* ==== wgmma: kernels/matmul_wgmma.cu ==== */

enum {
    GROUP_STRIPS = 8, /* PF_STRIPS, PF_TOKENS, PF_THREADS, PF_BESIDE */
    GROUP_TOKENS = 256,
    GROUP_THREADS = 384,
    GROUP_BESIDE = 2048 + 256,
    GROUP_STAGES = 2,
    MOST_X_STAGES = 8,
};

/* Columns of weights that come together: no fewer than a tile of any type has, and twice those of an atom. */
static int group_columns(const MatmulShape *s) {
    for (int i = 0; i < s->n_segments; i++)
        if (dtype_info(s->segments[i].type)->tile_k > 2 * ATOM_K)
            return RECORD_K;
    return 2 * ATOM_K;
}

static PrefillCut group_cut(const MatmulShape *s, int64_t shared) {
    const int64_t weights = GROUP_STAGES * GROUP_STRIPS * slot(s, group_columns(s));
    const int64_t left = (shared - STATIC - GROUP_BESIDE - weights) / (GROUP_TOKENS / ROWS_OF_TILE * ATOM);
    return (PrefillCut){.strips = GROUP_STRIPS,
                        .warp_strips = 1,
                        .tokens = GROUP_TOKENS,
                        .warp_tokens = GROUP_TOKENS,
                        .stages = GROUP_STAGES,
                        .blocks = 1,
                        .x_stages = left < MOST_X_STAGES ? (int)left : MOST_X_STAGES};
}

/* ==== Either ==== */

int64_t prefill_shared(const MatmulShape *s, const PrefillCut *c) {
    if (c->x_stages)
        return c->x_stages * (c->tokens / ROWS_OF_TILE * ATOM) + c->stages * c->strips * slot(s, group_columns(s)) +
               GROUP_BESIDE;
    return c->stages * (c->strips * slot(s, RECORD_K) + c->tokens / ROWS_OF_TILE * RECORD);
}

bool prefill_cut(const MatmulShape *s, int64_t shared, bool wgmma, PrefillCut *out) {
    enum { ONE_RECORD_TOKENS = 64 };
    if (wgmma) {
        *out = group_cut(s, shared);
        return out->x_stages >= 2;
    }
    /* With one record the next panel's addresses stand beside all sums: more tokens, and registers spill. */
    const int tokens = s->k <= RECORD_K ? ONE_RECORD_TOKENS : INT_MAX;
    for (size_t i = 0; i < COUNTOF(cuts); i++)
        if (cuts[i].tokens <= tokens && prefill_shared(s, &cuts[i]) + STATIC <= shared) {
            *out = cuts[i];
            return true;
        }
    return false;
}

const char *prefill_file(const PrefillCut *c) {
    return c->x_stages ? "matmul_wgmma.cu" : "matmul_prefill.cu";
}

int prefill_threads(const PrefillCut *c) {
    return c->x_stages ? GROUP_THREADS : 32 * (c->strips / c->warp_strips) * (c->tokens / c->warp_tokens);
}

int64_t prefill_x_bytes(int64_t k, int64_t entries, bool atoms) {
    const int64_t tiles = ceil_div(entries, ROWS_OF_TILE);
    return atoms ? tiles * (ceil_div(k, ATOM_K) * ATOM + ROWS_OF_TILE * 4) : ceil_div(k, RECORD_K) * tiles * RECORD;
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

bool prefill_halves(const MatmulShape *s, const PrefillCut *c, bool grouped) {
    bool whole = grouped && c->x_stages;
    for (int i = 0; i < s->n_segments; i++)
        whole &= s->segments[i].rows % STRIP == 0;
    return whole;
}

void prefill_defines(const MatmulShape *s, const PrefillCut *c, int64_t entries, bool grouped, Buf *to) {
    matmul_segments(s, "PF", to);
    buf_printf(to, "#define PF_TILES %lld\n#define PF_STAGES %d\n#define PF_GROUPED %d\n",
               (long long)ceil_div(entries, ROWS_OF_TILE), c->stages, grouped);
    if (c->x_stages)
        buf_printf(to, "#define PF_COLUMNS %d\n#define PF_X_STAGES %d\n#define PF_HALVES %d\n", group_columns(s),
                   c->x_stages, prefill_halves(s, c, grouped));
    else
        buf_printf(to,
                   "#define PF_STRIPS %d\n#define PF_WARP_STRIPS %d\n#define PF_TOKENS %d\n"
                   "#define PF_WARP_TOKENS %d\n#define PF_BLOCKS %d\n",
                   c->strips, c->warp_strips, c->tokens, c->warp_tokens, c->blocks);
}

void prefill_input_defines(int64_t k, int64_t entries, bool atoms, InputRows rows, Buf *to) {
    buf_printf(to, "#define IN_K %lld\n#define IN_TILES %lld\n", (long long)k,
               (long long)ceil_div(entries, ROWS_OF_TILE));
    buf_printf(to, "#define IN_ATOMS %d\n#define IN_EACH %lld\n#define IN_COPIES %lld\n", atoms, (long long)rows.each,
               (long long)rows.copies);
}

void prefill_sort_defines(int64_t experts, int64_t k_experts, const PrefillCut *c, Buf *to) {
    buf_printf(to, "#define ES_EXPERTS %lld\n#define ES_K %lld\n#define ES_TOKENS %d\n", (long long)experts,
               (long long)k_experts, c->tokens);
}
