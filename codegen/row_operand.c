/* row_operand.c - values that a row program also, or only, makes what matmuls read (gen_operand.c).
 *
 * Of many rows such a value is kept in shared memory, where its largest element can be found before the first is
 * written. Behind its loop stands
 *
 *   row_operand<true, 1, 21504, 512>(p3, (float *)(shared + 0), parts, [&](int group) { return row; });
 *
 * A block's shared memory then decides how many share a multiprocessor; two must, so that one loads while the other
 * writes. Where the rows are too long for a block, the program is written again without.
 *
 * Of few rows a record has its own scale, of 256 columns, which are those of a warp if each lane has 8: so the value's
 * loop writes it out of registers, by
 *
 *   row_records<21504, 1>(p3, row, first + r * W * TAIL_THREADS, end(21504), record4);
 */
#include "codegen/prefill_shape.h"
#include "codegen/row_int.h"

/* Statistics have arrays of their own; ids are no operand. */
static bool may_be_operand(const Node *n) {
    switch ((int)n->op) {
    case OP_SUM:
    case OP_TOP_K:
    case OP_LINEAR_AT:
    case OP_SCATTER: return false;
    default: return n->slab >= 0 && !row_is_int(n);
    }
}

void row_operands_find(RowWriter *p, const NodeId *nodes, int n) {
    for (int i = 0; i < n; i++) {
        RowValue *v = &p->of[nodes[i]];
        const Node *node = ir_get(p->g->g, nodes[i]);
        if (!may_be_operand(node) || p->g->in_planes[nodes[i]])
            continue;
        v->operand = gen_operand_use(p->g, nodes[i]);
        if (v->operand.k * v->operand.groups != type_row_elems(&node->type))
            v->operand.k = 0;
        if (!v->operand.k)
            continue;
        p->operands = true;
        if (v->operand.few)
            p->neighbours = RECORD_LANE;
        else
            v->keep = true;
    }
}

void row_operands_drop(RowWriter *p) {
    for (int id = 1; id < p->g->g->nodes.n; id++)
        if (p->of[id].operand.k) {
            p->of[id].operand.k = 0;
            p->of[id].keep = false;
        }
    p->operands = false;
    p->neighbours = ROW_LANE;
}

void row_operands_place(RowWriter *p) {
    for (int id = 1; id < p->g->g->nodes.n; id++)
        if (p->of[id].operand.k)
            p->of[id].records = gen_operand_place(p->g, (NodeId)id, &p->of[id].operand);
}

void row_operands_made(RowWriter *p) {
    for (int id = 1; id < p->g->g->nodes.n; id++)
        if (p->of[id].operand.k)
            gen_operand_made(p->g, (NodeId)id, &p->of[id].operand, p->of[id].records);
}

void row_operand(RowWriter *p, NodeId id) {
    const RowValue *v = &p->of[id];
    const OperandUse *use = &v->operand;
    const Node *n = ir_get(p->g->g, id);
    const int64_t pieces = ceil_div(use->k, RECORD_K), scales = 4 * use->groups;
    const char *parts = row_floats(p, row_room(p, 4 * use->groups * pieces));
    const char *to = row_param(p, "u8 *", v->records);
    const char *entry = "row";
    if (use->places >= 0)
        entry = arena_printf(p->a, "%s[row * %lld + group]",
                             row_param(p, "const int *", arg_at(p->g->scratch_buffer, use->places)),
                             (long long)use->groups);
    gen_line(p->g, &p->body, n->loc);
    buf_printf(&p->body,
               "    row_operand<%s, %lld, %lld, %lld>(%s, %s, %s, [&]([[maybe_unused]] int group) { return %s; });\n",
               p->g->target->wgmma ? "true" : "false", (long long)use->groups, (long long)use->k,
               (long long)ceil_div(use->entries, ROWS_OF_TILE), to, row_kept(p, id), parts, entry);
    p->out->bytes_a_row += 2 * use->groups * use->k + scales;
}

void row_record(RowWriter *p, NodeId id) {
    const RowValue *v = &p->of[id];
    const OperandUse *use = &v->operand;
    RowLoop *l = &p->loop;
    const char *to = row_param(p, "u8 *", v->records);
    l->records = true;
    buf_printf(&l->sums, "            float record%d[U][W] = {};\n", v->number);
    buf_printf(&l->lines, "            record%d[u][i] = v%d[i];\n", v->number, v->number);
    buf_printf(&l->reductions,
               "            row_records<%lld, %lld>(%s, row, first + r * W * TAIL_THREADS, end(%lld), record%d);\n",
               (long long)use->k, (long long)ceil_div(use->entries, ROWS_OF_TILE), to, (long long)use->k, v->number);
    p->out->bytes_a_row += 2 * use->k;
}
