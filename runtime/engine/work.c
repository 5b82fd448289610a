/* work.c - see work.h. */
#include "runtime/engine/work.h"

#include <stdlib.h>
#include <string.h>

/* The node that a group is there for: its main, or any of one without. NULL: none. */
static const Node *main_of(const Graph *g, int group) {
    const Node *any = NULL;
    for (NodeId id = 1; group && id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        if (n->group != group)
            continue;
        if (n->op == family_info(g->groups.v[group - 1].family)->main)
            return n;
        any = n;
    }
    return any;
}

/* The rows that a launch computes: of attention those that ask. */
static int64_t rows_of(const Graph *g, const PlanLaunch *l, const CallRows *c) {
    const Node *n = main_of(g, l->group);
    return n ? type_rows(&n->type, c->T, c->R) : 1;
}

/* Keys that the row at a position sees. */
static int64_t visible(const PlanCost *cost, int64_t pos) {
    return cost->window && cost->window <= pos ? cost->window : pos + 1;
}

Work work_of(const Graph *g, const PlanLaunch *l, const CallRows *c, int64_t experts) {
    const PlanCost *cost = &l->cost;
    const int64_t rows = rows_of(g, l, c), end = c->first + c->T, from = end - rows;
    Work w = {.weight_bytes = (double)(cost->weight_bytes + experts * cost->expert_bytes),
              .row_bytes = (double)(rows * cost->bytes_a_row),
              .flops = (double)(rows * cost->flops_a_row)};
    if (!cost->kv_bytes_a_key && !cost->attend_flops_a_key)
        return w;
    w.kv_bytes = (double)((end - (from + 1 - visible(cost, from))) * cost->kv_bytes_a_key);
    for (int64_t pos = from; pos < end; pos++)
        w.flops += (double)(visible(cost, pos) * cost->attend_flops_a_key);
    return w;
}

void work_add(Work *sum, const Work *w) {
    sum->weight_bytes += w->weight_bytes;
    sum->kv_bytes += w->kv_bytes;
    sum->row_bytes += w->row_bytes;
    sum->flops += w->flops;
}

double work_floor(const Work *w, const Roofline *r) {
    const double read = (w->weight_bytes + w->kv_bytes) / (1e9 * r->read_gb_per_second);
    const double compute = w->flops / (1e12 * r->matmul_tflops);
    return read > compute ? read : compute;
}

/* ==== Experts ==== */

typedef struct Walk {
    Gpu *gpu;
    const Module *m;
    const Graph *g;
    const PlanPhase *phase;
    const CallRows *c;
    Work *each;
} Walk;

static int64_t distinct(const int32_t *ids, int64_t n, int64_t experts) {
    bool *seen = calloc((size_t)experts + 1, sizeof *seen);
    if (!seen)
        ICE("out of memory");
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= experts)
            ICE("expert %d of %lld", (int)ids[i], (long long)experts);
        count += !seen[ids[i]];
        seen[ids[i]] = true;
    }
    free(seen);
    return count;
}

/* The ids stand in the slab until the launches of the group are done: plan-memory. */
static bool count_experts(const Walk *w, const PlanLaunch *l, int64_t *count, DevError *e) {
    const Node *n = main_of(w->g, l->group), *matrices = n ? ir_get(w->g, n->in[1]) : NULL;
    if (!n || n->op != OP_LINEAR_EXPERTS || matrices->op != OP_WEIGHT)
        ICE("%s has experts, its group has none", l->label);
    const Node *ids = ir_get(w->g, n->in[2]);
    while (op_info(ids->op)->flags & OPF_VIEW)
        ids = ir_get(w->g, ids->in[0]);
    if (ids->slab < 0)
        ICE("%s: the experts of rows are no computed value", l->label);
    const int64_t elems = type_rows(&ids->type, w->c->T, w->c->R) * type_row_elems(&ids->type);
    int32_t *v = calloc((size_t)elems + 1, sizeof *v);
    if (!v)
        ICE("out of memory");
    const bool ok = gpu_read_slab(w->gpu, ids->slab, v, elems * 4, e);
    if (ok)
        *count = distinct(v, elems, w->m->weights.v[matrices->attr[0].i].type.dim[0]);
    free(v);
    return ok;
}

static bool look(void *ctx, int launch, DevError *e) {
    const Walk *w = ctx;
    const PlanLaunch *l = &w->phase->launches.v[launch];
    int64_t experts = 0;
    if (l->cost.expert_bytes && !count_experts(w, l, &experts, e))
        return false;
    w->each[launch] = work_of(w->g, l, w->c, experts);
    return true;
}

bool work_measure(Gpu *g, const Module *m, const PlanPhase *phase, const CallRows *c, Work *each, Diag *diag) {
    Walk w = {.gpu = g, .m = m, .g = module_graph(m, phase->graph), .phase = phase, .c = c, .each = each};
    return gpu_walk_launches(g, phase, c->T, c->R, look, &w, diag);
}
