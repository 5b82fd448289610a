/* gen_operand.c - values that matmuls read: the row program that makes one can write what they multiply, f16 rows in
 * their order, so that no launch reads the value again to convert it.
 *
 *   launch "after blk.0.ffn_gate.weight + 1"    gelu(gate) * up: to the slab where others read it; records
 *   launch "blk.0.ffn_down.weight"              reads the records
 *
 * For many rows (kernels/row_operand.cu) values that no row program makes (attention) and rows that several experts
 * share go by matmul_input.cu. For few rows (kernels/row_record.cu) attention writes records, too, and what nobody
 * does is read as f32: every block of the matmul would convert it, behind the launch ahead.
 */
#include "codegen/gen_matmul_int.h"
#include "codegen/prefill_shape.h"

static const Sorted *sorted_by(const Gen *g, NodeId ids, int64_t experts) {
    for (int i = 0; i < g->sorted.n; i++)
        if (g->sorted.v[i].ids == ids && g->sorted.v[i].experts == experts)
            return &g->sorted.v[i]; /* lists for other tiles have the same places */
    return NULL;
}

/* How r reads its first operand, but for `last` and `only`; k 0: as f32. */
static OperandUse use_of(Gen *g, const Node *r) {
    const OperandUse none = {0};
    if ((r->op != OP_LINEAR && r->op != OP_LINEAR_EXPERTS) || !r->group)
        return none;
    const Type *x = ir_type(g->g, r->in[0]);
    const bool few = gen_few(g, r->type.dim[0]);
    const int64_t k = x->dim[x->rank - 1], most = gen_most(g, r->type.dim[0]);
    const Family family = g->g->groups.v[r->group - 1].family;
    if (few && (x->rank != 2 || k % RECORD_LANE)) /* rows that are their own, in whole lanes */
        return none;
    if ((family == FAM_MATMUL && x->rank == 2) || (family == FAM_EXPERTS && few)) {
        if (family == FAM_MATMUL) {
            const Members m = gen_members_of(g, r->group, OP_LINEAR);
            if (gen_multiplies_in_f32(g, &m.main))
                return none;
        }
        return (OperandUse){.few = few, .k = k, .groups = 1, .entries = most, .places = -1};
    }
    if (family == FAM_EXPERTS && x->rank == 3) {
        const Sorted *by = sorted_by(g, r->in[2], ir_type(g->g, r->in[1])->dim[0]);
        return by ? (OperandUse){.k = k, .groups = x->dim[1], .entries = by->entries, .places = by->places} : none;
    }
    return none;
}

static bool alike(const OperandUse *a, const OperandUse *b) {
    return a->few == b->few && a->k == b->k && a->groups == b->groups && a->entries == b->entries &&
           a->places == b->places;
}

OperandUse gen_operand_use(Gen *g, NodeId value) {
    OperandUse all = {.only = g->last_read[value] <= g->g->groups.n}; /* else an output */
    for (NodeId id = value + 1; id < (NodeId)g->g->nodes.n; id++) {
        const Node *r = ir_get(g->g, id);
        if ((op_info(r->op)->flags & OPF_VIEW) || r->group == g->group)
            continue;
        for (int i = 0; i < r->n_in; i++) {
            if (ir_view_base(g->g, r->in[i]) != value)
                continue;
            const OperandUse use = i == 0 ? use_of(g, r) : (OperandUse){0};
            if (!use.k || (all.k && !alike(&all, &use))) {
                all.only = false;
                continue;
            }
            const int last = r->group > all.last ? r->group : all.last;
            const bool only = all.only;
            all = use;
            all.last = last;
            all.only = only;
        }
    }
    return all;
}

PlanArg gen_operand_place(Gen *g, NodeId value, const OperandUse *use) {
    const Node *n = ir_get(g->g, value);
    const int64_t bytes = prefill_x_bytes(use->k, use->entries, g->target->wgmma && !use->few);
    if (use->only && bytes <= 4 * type_row_elems(&n->type) * gen_most(g, n->type.dim[0]))
        return arg_at(g->slab, n->slab);
    return arg_at(g->scratch_buffer, gen_scratch(g, bytes, use->last));
}

void gen_operand_made(Gen *g, NodeId value, const OperandUse *use, PlanArg records) {
    g->operand[value] = (Operand){true, records, *use};
    if (use->only)
        g->loc[value].kind = LOC_NONE;
}

const Operand *gen_operand(Gen *g, const Node *main) {
    const Operand *o = &g->operand[ir_view_base(g->g, main->in[0])];
    const OperandUse use = use_of(g, main);
    return o->made && alike(&o->use, &use) ? o : NULL;
}
