/* prefill_cost.c - see prefill_cost.h. */
#include "codegen/prefill_cost.h"
#include "codegen/prefill_shape.h"

#include <string.h>

enum { STRIP = 16 }; /* outputs of a strip (kernels/matmul_strips.cu) */

/* As shares of an H100's rates (ir/rates.c): a matmul by mma.sync whose rounds are full runs there at 2.4 TFLOP/s of
 * each of 132 multiprocessors. With 10 us a group, and with attention on top, this gives what was measured of 31B and
 * 26B-A4B; wgmma is taken to be twice as fast, as predicted (docs/performance/models.md). */
PrefillRates prefill_rates(const DeviceRates *r) {
    static const double mma = 2.4 * 132 / 400, wgmma = 4.8 * 132 / 825, launches = 10 / 3.7;
    const double each = 1 / (double)r->multiprocessors;
    return (PrefillRates){.multiprocessors = r->multiprocessors,
                          .mma = mma * each * (double)r->mma,
                          .wgmma = r->wgmma ? wgmma * each * (double)r->wgmma : mma * each * (double)r->mma,
                          .bytes = (double)r->bytes,
                          .group = launches * 1e-9 * (double)r->launch_ns};
}

/* The matrices of the main's group, those that are like it. */
static MatmulShape shape_of(const Graph *g, const Node *main) {
    MatmulShape s = {0};
    for (NodeId id = 1; id < (NodeId)g->nodes.n && s.n_segments < MAX_SEGMENTS; id++) {
        const Node *n = ir_get(g, id);
        if (n->group != main->group || n->op != main->op)
            continue;
        const Type *t = ir_type(g, n->in[1]);
        s.k = t->dim[t->rank - 1];
        s.segments[s.n_segments++] = (MatmulSegment){t->dtype, t->dim[t->rank - 2]};
    }
    return s;
}

/* Rows that a block may have, ascending, and how many more it costs: PF_WIDTHS and PF_WIDTH_COST of
 * kernels/matmul_wgmma.cu; of matmul_prefill.cu its only number. */
typedef struct Widths {
    int n, rows[4], more;
} Widths;

static int count_forms(const MatmulShape *s) {
    int n = 0;
    for (int i = 0; i < s->n_segments; i++) {
        bool seen = false;
        for (int k = 0; k < i; k++)
            seen |= strcmp(dtype_info(s->segments[k].type)->tile_form, dtype_info(s->segments[i].type)->tile_form) == 0;
        n += !seen;
    }
    return n;
}

static Widths widths_of(const MatmulShape *s, const PrefillCut *c) {
    static const Widths by_forms[] = {{4, {64, 128, 192, 256}, 16}, {2, {128, 256}, 16}, {1, {256}, 16}};
    const int forms = count_forms(s), most = (int)COUNTOF(by_forms);
    return c->x_stages ? by_forms[(forms < most ? forms : most) - 1] : (Widths){1, {c->tokens}, 0};
}

/* What the busiest multiprocessor has to do, in rows of a block. */
static double rows_of_busiest(int64_t n, int64_t panels, const Widths *w, int64_t beside) {
    int64_t least = INT64_MAX;
    for (int i = 0; i < w->n; i++) {
        const int64_t rounds = ceil_div(ceil_div(n, w->rows[i]) * panels, beside),
                      rows = rounds * (w->rows[i] + w->more);
        least = rows < least ? rows : least;
    }
    return (double)least;
}

static double rows_of_experts(const Graph *g, const Node *main, int64_t n, int64_t panels, const PrefillCut *c,
                              const Widths *w, int64_t beside) {
    const double experts = (double)ir_type(g, main->in[1])->dim[0], r = (double)(n * main->type.dim[1]) / experts;
    const double touched = r < 1 ? r : 1, blocks = r / c->tokens > touched ? r / c->tokens : touched;
    return experts * (r + 0.5 * w->rows[0] * touched + w->more * blocks) * (double)panels / (double)beside;
}

static double matmul_seconds(const Graph *g, const Node *main, const MatmulShape *s, const PlanTarget *target,
                             const PrefillRates *r, int64_t n) {
    PrefillCut c;
    if (s->segments[0].type == DT_F32 || !prefill_cut(s, target->shared_per_block, target->wgmma, &c))
        return 0; /* f32 matrices are small */
    const Widths w = widths_of(s, &c);
    const int64_t panels = ceil_div(matmul_strips(s), c.strips), beside = r->multiprocessors * c.blocks;
    const double rows = main->op == OP_LINEAR ? rows_of_busiest(n, panels, &w, beside)
                                              : rows_of_experts(g, main, n, panels, &c, &w, beside);
    return 2 * rows * c.strips * STRIP * c.blocks * (double)s->k / (c.x_stages ? r->wgmma : r->mma);
}

static double group_seconds(const Graph *g, const Node *main, const PlanTarget *target, const PrefillRates *r,
                            int64_t n) {
    const MatmulShape s = shape_of(g, main);
    const int64_t pairs = main->op == OP_LINEAR ? n : n * main->type.dim[1];
    const double bytes = (double)(pairs * (8 * s.k + 12 * matmul_rows(&s)));
    return matmul_seconds(g, main, &s, target, r, n) + bytes / r->bytes + r->group;
}

double prefill_seconds(const Module *m, const PlanTarget *target, const PrefillRates *r, int64_t n) {
    const Graph *g = module_graph(m, "step");
    double seconds = 0;
    int done = 0; /* groups stand one behind the other */
    for (NodeId id = 1; g && id < (NodeId)g->nodes.n; id++) {
        const Node *main = ir_get(g, id);
        if (main->group <= done || !ir_is_matmul(main) || main->type.dim[0] != DIM_T)
            continue;
        done = main->group;
        seconds += group_seconds(g, main, target, r, n);
    }
    return seconds;
}
