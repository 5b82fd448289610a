/* gen_prefill.c - matmuls of many rows: input as f16 records or atoms, then tensor-core tiles; experts sorted first. */
#include "codegen/gen_matmul_int.h"
#include "codegen/prefill_shape.h"

/* ==== Records ==== */

/* A launch that converts x: where its records are. */
static PlanArg convert(Gen *g, const Loc *x, int64_t k, int64_t entries, InputRows rows, int64_t places, int64_t dim,
                       const char *label, SrcLoc loc) {
    const int64_t bytes = prefill_x_bytes(k, entries, g->target->wgmma);
    const PlanArg records = arg_at(g->scratch_buffer, gen_scratch(g, bytes, g->group));
    Buf b = {0};
    prefill_input_defines(k, entries, g->target->wgmma, rows, &b);
    const int kernel = gen_kernel(g, "matmul_input.cu", "IN_NAME", "input", b.s, NULL, 0, INPUT_THREADS, 0, 1);
    buf_free(&b);
    PlanGrid grid = {.x = rows.each, .y = 1, .z = 1, .rows = gen_count(dim), .axis = 0, .per = ROWS_OF_TILE};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, label, loc);
    launch_arg(g, l, arg_loc(x));
    launch_arg(g, l, records);
    launch_arg(g, l, arg_count(g, dim));
    if (rows.copies)
        launch_arg(g, l, arg_at(g->scratch_buffer, places));
    l->cost.bytes_a_row = rows.each * k * (4 + 2 * (rows.copies ? rows.copies : 1));
    return records;
}

PlanArg gen_records(Gen *g, const Node *main, const Loc *x, int64_t k) {
    const Operand *o = gen_operand(g, main);
    const int64_t dim = main->type.dim[0];
    return o ? o->records : convert(g, x, k, gen_most(g, dim), (InputRows){1, 0}, 0, dim, "to f16", main->loc);
}

/* ==== Matmul ==== */

/* False after gen_fail. */
static bool choose_cut(Gen *g, const MatmulShape *s, PrefillCut *c) {
    if (!prefill_cut(s, g->target->shared_per_block, g->target->wgmma, c)) {
        gen_fail(g, NULL, "no tile of a prefill matmul fits the shared memory of %s", g->target->arch);
        return false;
    }
    return true;
}

static int prefill_kernel(Gen *g, const MatmulShape *s, int64_t entries, bool grouped, const PrefillCut *c) {
    Buf b = {0};
    prefill_defines(s, c, entries, grouped, &b);
    const int kernel = gen_kernel(g, prefill_file(c), "PF_NAME", grouped ? "experts_prefill" : "prefill", b.s, NULL, 0,
                                  prefill_threads(c), prefill_shared(s, c), c->blocks);
    buf_free(&b);
    return kernel;
}

void gen_prefill_launch(Gen *g, const NodeVec *mains, const MatmulShape *s, PlanArg records, const Loc *out,
                        int64_t most, int64_t dim, SrcLoc loc) {
    PrefillCut c;
    if (!choose_cut(g, s, &c))
        return;
    const int kernel = prefill_kernel(g, s, most, false, &c);
    PlanGrid grid = {.x = INT32_MAX, .y = 1, .z = 1, .fill = 1};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, weights_label(g, mains), loc);
    gen_matmul_weights(g, mains, l);
    launch_arg(g, l, records);
    launch_arg(g, l, arg_loc(out));
    launch_arg(g, l, arg_count(g, dim));
    l->cost.weight_bytes = matmul_weight_bytes(s);
    l->cost.flops_a_row = 2 * matmul_rows(s) * s->k;
    l->cost.bytes_a_row = 2 * s->k + 4 * matmul_rows(s);
}

/* ==== Experts ==== */

/* The last group of this phase that multiplies by these ids. */
static int last_by_ids(const Gen *g, NodeId ids) {
    int last = g->group;
    for (NodeId id = ids + 1; id < (NodeId)g->g->nodes.n; id++) {
        const Node *n = ir_get(g->g, id);
        if (n->op == OP_LINEAR_EXPERTS && n->in[2] == ids && n->group > last && !gen_few(g, n->type.dim[0]))
            last = n->group;
    }
    return last;
}

static void sort_launch(Gen *g, const Sorted *sorted, int64_t k_experts, const PrefillCut *c, int64_t dim, SrcLoc loc) {
    Buf b = {0};
    prefill_sort_defines(sorted->experts, k_experts, c, &b);
    const int kernel = gen_kernel(g, "experts_sort.cu", "ES_NAME", "experts_sort", b.s, NULL, 0, SORT_THREADS,
                                  SORT_BYTES_AN_EXPERT * sorted->experts, 1);
    buf_free(&b);
    PlanGrid grid = {.x = 1, .y = 1, .z = 1, .rows = gen_count(dim), .axis = 0, .per = (int)(SORT_PAIRS / k_experts)};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, "sort by expert", loc);
    launch_arg(g, l, arg_value(g, sorted->ids));
    launch_arg(g, l, arg_at(g->scratch_buffer, sorted->order));
    launch_arg(g, l, arg_at(g->scratch_buffer, sorted->places));
    launch_arg(g, l, arg_at(g->scratch_buffer, sorted->tiles));
    launch_arg(g, l, arg_at(g->scratch_buffer, sorted->n_tiles));
    launch_arg(g, l, arg_count(g, dim));
}

/* The rows of main's call by expert, for tiles of this cut. */
static Sorted sort_by_expert(Gen *g, const Node *main, int64_t experts, const PrefillCut *c) {
    const NodeId ids = main->in[2];
    const int64_t dim = main->type.dim[0], k_experts = main->type.dim[1], pairs = gen_most(g, dim) * k_experts;
    for (int i = 0; i < g->sorted.n; i++)
        if (g->sorted.v[i].ids == ids && g->sorted.v[i].experts == experts && g->sorted.v[i].tokens == c->tokens)
            return g->sorted.v[i];
    Sorted s = {.ids = ids, .experts = experts, .entries = prefill_entries(pairs, experts), .tokens = c->tokens};
    const int last = last_by_ids(g, ids);
    s.order = gen_scratch(g, s.entries * 4, last);
    s.places = gen_scratch(g, pairs * 4, last);
    s.tiles = gen_scratch(g, prefill_expert_tiles(pairs, experts, c) * 12, last);
    s.n_tiles = gen_scratch(g, 4, last);
    vec_push(g->arena, &g->sorted, s);
    sort_launch(g, &s, k_experts, c, dim, main->loc);
    return s;
}

static PlanArg records_by_expert(Gen *g, const Node *main, const Loc *x, int64_t k, const Sorted *sorted) {
    const Operand *o = gen_operand(g, main);
    if (o)
        return o->records;
    const bool pairs = ir_type(g->g, main->in[0])->rank == 3; /* each has a row of its own */
    const int64_t dim = main->type.dim[0], k_experts = main->type.dim[1];
    return convert(g, x, k, sorted->entries, pairs ? (InputRows){k_experts, 1} : (InputRows){1, k_experts},
                   sorted->places, dim, "to f16 by expert", main->loc);
}

void gen_prefill_experts(Gen *g, const Members *m, const MatmulShape *s, const Loc *x) {
    enum { MOST_EXPERTS = 1024 };
    const Node *main = ir_get(g->g, m->main.v[0]), *w = ir_get(g->g, main->in[1]);
    const int64_t experts = g->m->weights.v[w->attr[0].i].type.dim[0];
    const int64_t dim = main->type.dim[0], k_experts = main->type.dim[1];
    if (experts > MOST_EXPERTS || k_experts > MOST_EXPERTS) {
        gen_fail(g, w, "%lld of %lld experts: a GPU sorts rows by at most %d", (long long)k_experts, (long long)experts,
                 MOST_EXPERTS);
        return;
    }
    PrefillCut c;
    if (!choose_cut(g, s, &c))
        return;
    const Sorted sorted = sort_by_expert(g, main, experts, &c);
    const PlanArg records = records_by_expert(g, main, x, s->k, &sorted);
    const bool halves = prefill_halves(s, &c, true);
    gen_place_results(g, &m->main, gen_most(g, dim), k_experts, 1, halves);
    const int kernel = prefill_kernel(g, s, sorted.entries, true, &c);
    PlanGrid grid = {.x = INT32_MAX, .y = 1, .z = 1, .fill = 1};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, weights_label(g, &m->main), main->loc);
    gen_matmul_weights(g, &m->main, l);
    launch_arg(g, l, records);
    launch_arg(g, l, arg_loc(&g->loc[m->main.v[0]]));
    launch_arg(g, l, arg_at(g->scratch_buffer, sorted.n_tiles));
    launch_arg(g, l, arg_at(g->scratch_buffer, sorted.tiles));
    launch_arg(g, l, arg_at(g->scratch_buffer, sorted.order));
    if (halves)
        launch_arg(g, l, arg_at(g->scratch_buffer, g->loc[m->main.v[0]].units));
    l->cost.expert_bytes = matmul_weight_bytes(s);
    l->cost.flops_a_row = 2 * matmul_rows(s) * s->k * k_experts;
    l->cost.bytes_a_row = k_experts * (2 * s->k + (halves ? 2 : 4) * matmul_rows(s));
    gen_after(g, m, main->loc);
}
