/* gen_experts.c - family experts: each row through the matrices chosen for it, and what follows.
 *
 * For few rows one launch, in which every chosen expert is read once for all its rows; in prefill the pairs of row and
 * expert are sorted by expert first.
 */
#include "codegen/gen_matmul_int.h"

void gen_experts(Gen *g) {
    const Members m = gen_members(g, OP_LINEAR_EXPERTS);
    const Node *main = ir_get(g->g, m.main.v[0]);
    Loc x;
    MatmulShape s;
    const int64_t dim = main->type.dim[0], k_experts = main->type.dim[1];
    if (!gen_input_rows(g, main, &x) || !gen_matmul_shape(g, &m.main, dim, &s))
        return;
    if (!gen_few(g, dim)) {
        gen_prefill_experts(g, &m, &s, &x);
        return;
    }
    const bool pairs = ir_type(g->g, main->in[0])->rank == 3;
    const PlanArg ids = arg_value(g, main->in[2]);
    const int slices = matmul_slices(&s);
    gen_place_results(g, &m.main, 8 * s.tiles, k_experts, slices, false);
    const Loc out = g->loc[m.main.v[0]];
    const NodeVec nodes = gen_tail_nodes(g, &m);
    RowProgram tail;
    if (nodes.n && !row_program(g, nodes.v, nodes.n, &tail))
        return;
    const Operand *records = gen_operand(g, main);
    const char *more = arena_printf(
        g->arena, "#define EX_K %lld\n#define EX_X_PAIRS %d\n#define EX_EARLY_IDS %d\n#define MM_X_RECORDS %d\n",
        (long long)k_experts, pairs, gen_early(g) == EARLY_IDS, records != NULL);
    const int kernel = gen_matmul_kernel(g, MATMUL_EXPERTS, &s, gen_order(g, &nodes), more, nodes.n ? &tail : NULL);
    const int64_t strips = matmul_strips(&s) * slices * 8 * s.tiles * k_experts;
    PlanGrid grid = {.x = strips, .y = 1, .z = 1, .fill = slices};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, weights_label(g, &m.main), main->loc);
    gen_matmul_weights(g, &m.main, l);
    launch_arg(g, l, records ? records->records : arg_loc(&x));
    launch_arg(g, l, ids);
    launch_arg(g, l, arg_loc(&out));
    launch_arg(g, l, arg_count(g, dim));
    launch_arg(g, l, gen_counters(g));
    if (nodes.n)
        row_args(g, &tail, l);
    l->cost.expert_bytes = matmul_weight_bytes(&s);
    l->cost.flops_a_row = 2 * matmul_rows(&s) * s.k * k_experts;
    l->cost.bytes_a_row = (records ? 2 : 4) * s.k + (nodes.n ? tail.bytes_a_row : 4 * matmul_rows(&s) * k_experts);
    gen_results_done(g, &m.main);
}
