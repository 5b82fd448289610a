/* gen_prefill.c - matmuls of many rows: input as f16 records or atoms, then tensor-core tiles; experts sorted first. */
#include "codegen/gen_matmul_int.h"
#include "codegen/prefill_shape.h"

/* ==== Records ==== */

int64_t gen_records(Gen *g, int64_t k, int64_t most) {
    return gen_scratch(g, prefill_x_bytes(k, most, g->target->wgmma), g->group);
}

static int input_kernel(Gen *g, int64_t k, int64_t entries, int64_t divide) {
    Buf b = {0};
    prefill_input_defines(k, entries, g->target->wgmma, divide, &b);
    const int kernel = gen_kernel(g, "matmul_input.cu", "IN_NAME", "input", b.s, NULL, 0, INPUT_THREADS, 0, 1);
    buf_free(&b);
    return kernel;
}

void gen_input_launch(Gen *g, const Loc *x, int64_t records, int64_t k, int64_t most, int64_t dim, SrcLoc loc) {
    const int kernel = input_kernel(g, k, most, 0);
    PlanGrid grid = {.x = 1, .y = 1, .z = 1, .rows = gen_count(dim), .axis = 0, .per = ROWS_OF_TILE};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, "to f16", loc);
    launch_arg(g, l, arg_loc(x));
    launch_arg(g, l, arg_at(g->scratch_buffer, records));
    launch_arg(g, l, arg_count(g, dim));
    l->cost.bytes_a_row = 6 * k;
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

void gen_prefill_launch(Gen *g, const NodeVec *mains, const MatmulShape *s, int64_t records, const Loc *out,
                        int64_t most, int64_t dim, SrcLoc loc) {
    PrefillCut c;
    if (!choose_cut(g, s, &c))
        return;
    const int kernel = prefill_kernel(g, s, most, false, &c);
    PlanGrid grid = {.x = INT32_MAX, .y = 1, .z = 1, .fill = 1};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, weights_label(g, mains), loc);
    gen_matmul_weights(g, mains, l);
    launch_arg(g, l, arg_at(g->scratch_buffer, records));
    launch_arg(g, l, arg_loc(out));
    launch_arg(g, l, arg_count(g, dim));
    l->cost.weight_bytes = matmul_weight_bytes(s);
    l->cost.flops_a_row = 2 * matmul_rows(s) * s->k;
    l->cost.bytes_a_row = 2 * s->k + 4 * matmul_rows(s);
}

/* ==== Experts ==== */

typedef struct ExpertLists {
    int64_t entries;              /* most of `order` */
    int64_t order, tiles, counts; /* scratch offsets */
} ExpertLists;

static ExpertLists expert_lists(Gen *g, int64_t experts, int64_t pairs, const PrefillCut *c) {
    ExpertLists l = {.entries = prefill_entries(pairs, experts)};
    l.order = gen_scratch(g, l.entries * 4, g->group);
    l.tiles = gen_scratch(g, prefill_expert_tiles(pairs, experts, c) * 12, g->group);
    l.counts = gen_scratch(g, 8, g->group);
    return l;
}

static void sort_launch(Gen *g, const ExpertLists *lists, PlanArg ids, int64_t experts, int64_t k_experts,
                        const PrefillCut *c, int64_t dim, SrcLoc loc) {
    Buf b = {0};
    prefill_sort_defines(experts, k_experts, c, &b);
    const int kernel = gen_kernel(g, "experts_sort.cu", "ES_NAME", "experts_sort", b.s, NULL, 0, SORT_THREADS,
                                  SORT_BYTES_AN_EXPERT * experts, 1);
    buf_free(&b);
    PlanLaunch *l =
        gen_launch(g, &g->phase->launches, kernel, (PlanGrid){.x = 1, .y = 1, .z = 1}, "sort by expert", loc);
    launch_arg(g, l, ids);
    launch_arg(g, l, arg_at(g->scratch_buffer, lists->order));
    launch_arg(g, l, arg_at(g->scratch_buffer, lists->tiles));
    launch_arg(g, l, arg_at(g->scratch_buffer, lists->counts));
    launch_arg(g, l, arg_count(g, dim));
}

static void gather_launch(Gen *g, const ExpertLists *lists, const Loc *x, int64_t records, int64_t k, int64_t divide,
                          int64_t dim, SrcLoc loc) {
    const int kernel = input_kernel(g, k, lists->entries, divide);
    const int64_t a_row = ceil_div(lists->entries, gen_most(g, dim));
    PlanGrid grid = {.x = ceil_div(a_row, ROWS_OF_TILE), .y = 1, .z = 1, .rows = gen_count(dim), .axis = 0, .per = 1};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, "gather to f16", loc);
    launch_arg(g, l, arg_loc(x));
    launch_arg(g, l, arg_at(g->scratch_buffer, records));
    launch_arg(g, l, arg_at(g->scratch_buffer, lists->counts));
    launch_arg(g, l, arg_at(g->scratch_buffer, lists->order));
    l->cost.bytes_a_row = 6 * k * a_row;
}

void gen_prefill_experts(Gen *g, const Members *m, const MatmulShape *s, const Loc *x, PlanArg ids, int64_t k_experts,
                         bool pairs, int64_t most, int64_t dim, SrcLoc loc) {
    enum { MOST_EXPERTS = 1024 };
    const Node *w = ir_get(g->g, ir_get(g->g, m->main.v[0])->in[1]);
    const int64_t experts = g->m->weights.v[w->attr[0].i].type.dim[0];
    if (experts > MOST_EXPERTS) {
        gen_fail(g, w, "%lld experts: a GPU sorts rows by at most %d", (long long)experts, MOST_EXPERTS);
        return;
    }
    PrefillCut c;
    if (!choose_cut(g, s, &c))
        return;
    const ExpertLists lists = expert_lists(g, experts, most * k_experts, &c);
    const int64_t records = gen_records(g, s->k, lists.entries);
    gen_place_results(g, &m->main, most, k_experts, 1);
    sort_launch(g, &lists, ids, experts, k_experts, &c, dim, loc);
    gather_launch(g, &lists, x, records, s->k, pairs ? 1 : k_experts, dim, loc);
    const int kernel = prefill_kernel(g, s, lists.entries, true, &c);
    PlanGrid grid = {.x = INT32_MAX, .y = 1, .z = 1, .fill = 1};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, weights_label(g, &m->main), loc);
    gen_matmul_weights(g, &m->main, l);
    launch_arg(g, l, arg_at(g->scratch_buffer, records));
    launch_arg(g, l, arg_loc(&g->loc[m->main.v[0]]));
    launch_arg(g, l, arg_at(g->scratch_buffer, lists.counts + 4));
    launch_arg(g, l, arg_at(g->scratch_buffer, lists.tiles));
    launch_arg(g, l, arg_at(g->scratch_buffer, lists.order));
    l->cost.expert_bytes = matmul_weight_bytes(s);
    l->cost.flops_a_row = 2 * matmul_rows(s) * s->k * k_experts;
    l->cost.bytes_a_row = k_experts * (2 * s->k + 4 * matmul_rows(s));
    gen_after(g, m, loc);
}
