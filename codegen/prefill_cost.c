/* prefill_cost.c - see prefill_cost.h. */
#include "codegen/prefill_cost.h"
#include "codegen/prefill_shape.h"

enum { STRIP = 16 }; /* outputs of a strip (kernels/matmul_strips.cu) */

/* A matmul whose rounds are full runs at 315 TFLOP/s on 132 multiprocessors. With 10 us a group, and with attention on
 * top, this gives what was measured of 31B and 26B-A4B (docs/performance.md). */
PrefillRates prefill_rates_default(void) {
    return (PrefillRates){.multiprocessors = 132, .flops = 2.4e12, .bytes = 3.1e12, .group = 10e-6};
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

/* Tiles above each other, of n rows: of an expert's last one only half counts. */
static double tiles_of_rows(const Graph *g, const Node *main, const PrefillCut *c, int64_t n) {
    if (main->op == OP_LINEAR)
        return (double)ceil_div(n, c->tokens);
    const double experts = (double)ir_type(g, main->in[1])->dim[0], r = (double)(n * main->type.dim[1]) / experts;
    return experts * (r / c->tokens + 0.5 * (r < 1 ? r : 1));
}

static double rounds_seconds(const Graph *g, const Node *main, const MatmulShape *s, const PlanTarget *target,
                             const PrefillRates *r, int64_t n) {
    const PrefillCut *c = s->segments[0].type == DT_F32 ? NULL : prefill_cut_fit(s, target->shared_per_block);
    if (!c)
        return 0; /* f32 matrices are multiplied row by row */
    const double tiles = tiles_of_rows(g, main, c, n) * (double)ceil_div(matmul_strips(s), c->strips);
    const int64_t rounds = ceil_div((int64_t)(tiles + 0.5), (int64_t)r->multiprocessors * c->blocks);
    return (double)rounds * 2.0 * c->strips * STRIP * c->tokens * (double)s->k * c->blocks / r->flops;
}

static double group_seconds(const Graph *g, const Node *main, const PlanTarget *target, const PrefillRates *r,
                            int64_t n) {
    const MatmulShape s = shape_of(g, main);
    const int64_t pairs = main->op == OP_LINEAR ? n : n * main->type.dim[1];
    const double bytes = (double)(pairs * (8 * s.k + 12 * matmul_rows(&s)));
    return rounds_seconds(g, main, &s, target, r, n) + bytes / r->bytes + r->group;
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
