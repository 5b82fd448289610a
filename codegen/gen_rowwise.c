/* gen_rowwise.c - groups without a matmul: norms, lookups, gathered rows; and what follows a prefill matmul. */
#include "codegen/gen_int.h"

enum { ROW_THREADS = 512 };

void row_launch(Gen *g, const NodeId *nodes, int n, const char *label, SrcLoc loc) {
    RowProgram p;
    if (!row_program(g, nodes, n, &p))
        return;
    if (p.shared > g->target->shared_per_block) {
        gen_fail(g, ir_get(g->g, nodes[0]), "a row of %s needs %lld bytes of shared memory, %s has %lld", label,
                 (long long)p.shared, g->target->arch, (long long)g->target->shared_per_block);
        return;
    }
    Buf defines = {0};
    buf_printf(&defines, "#define ROW_THREADS %d\n#define ROW_SHARED %lld\n", ROW_THREADS, (long long)p.shared);
    if (p.two && 2 * p.shared <= g->target->shared_per_block)
        buf_str(&defines, "#define ROW_BLOCKS 2\n");
    row_defines(&p, &defines);
    Body body = {"tail.body", p.body};
    const int kernel =
        gen_kernel(g, "rowwise.cu", "ROW_NAME", "rowwise", defines.s, &body, 1, ROW_THREADS, p.shared, 2);
    buf_free(&defines);
    PlanGrid grid = {.x = p.chunks, .y = 1, .z = 1, .rows = gen_count(p.dim), .axis = 0, .per = 1};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, label, loc);
    launch_arg(g, l, arg_count(g, p.dim));
    row_args(g, &p, l);
    l->cost.bytes_a_row = p.bytes_a_row;
}

void gen_rowwise(Gen *g) {
    const Members m = gen_members(g, OP_NONE);
    const Node *first = m.after.n ? ir_get(g->g, m.after.v[0]) : NULL;
    if (!first)
        return;
    row_launch(g, m.after.v, m.after.n, first->name ? first->name : op_info(first->op)->name, first->loc);
}
