/* session_tables.c - tables of ids in the weights, checked once when a session is opened.
 *
 * Where a text reads a weight of integers as ids (a drafter's order of the vocabulary: looked up, then rows of the
 * embedding, then places of logits), each of its elements has to be one: the evaluator would say so at the first call
 * that meets a wrong one, a GPU's kernels leave it out. Ids go from op to op unchanged, so what bounds a weight's
 * elements are the ops that take it, views of it and what was looked up in it.
 */
#include "runtime/engine/session_int.h"
#include <inttypes.h>
#include <string.h>

/* Operands that are ids, and the operand that they are places of; -1: of the result. Not `rows`, whose ids are those of
 * a call. */
static const struct Use {
    Op op;
    int ids, places;
} uses[] = {{OP_EMBED, 0, 1},  {OP_LINEAR_EXPERTS, 2, 1}, {OP_LINEAR_AT, 2, 1},
            {OP_GATHER, 1, 0}, {OP_LOOKUP, 0, 1},         {OP_SCATTER, 1, -1}};

/* What the operand's ids are below; 0: it is none. */
static int64_t id_limit(const Graph *g, const Node *n, int operand) {
    for (size_t i = 0; i < COUNTOF(uses); i++) {
        if (uses[i].op != n->op || uses[i].ids != operand)
            continue;
        const Type *t = uses[i].places < 0 ? &n->type : ir_type(g, n->in[uses[i].places]);
        if (n->op == OP_LOOKUP)
            return type_row_elems(t) / n->attr[0].i;
        return n->op == OP_GATHER || n->op == OP_SCATTER ? t->dim[t->rank - 1] : t->dim[0];
    }
    return 0;
}

/* The weight whose elements a node's are: of[] has those of the nodes before it. -1: of none. */
static int elements_of(const Graph *g, const Node *n, const int *of) {
    if (n->op == OP_WEIGHT)
        return g->module->weights.v[n->attr[0].i].type.dtype == DT_I32 ? (int)n->attr[0].i : -1;
    if (op_info(n->op)->flags & OPF_VIEW)
        return of[n->in[0]];
    return n->op == OP_LOOKUP ? of[n->in[1]] : -1;
}

/* The first element that is none of 0 .. limit - 1; -1: all are. */
static int64_t first_wrong(const void *data, int64_t n, int64_t limit, int32_t *id) {
    for (int64_t i = 0; i < n; i++) {
        memcpy(id, (const char *)data + i * (int64_t)sizeof *id, sizeof *id); /* files do not align them */
        if (*id < 0 || *id >= limit)
            return i;
    }
    return -1;
}

static bool check_use(const Session *s, int weight, const Node *n, int64_t limit) {
    const Weight *w = &s->module->weights.v[weight];
    int32_t id = 0;
    const int64_t at = first_wrong(s->data[weight], type_row_elems(&w->type), limit, &id);
    if (at < 0)
        return true;
    const ModelFile *file = weights_file(w->from && s->draft.weights ? s->draft.weights : s->weights);
    diag_error(s->diag, n->loc, "tensor '%s' of %s: element %" PRId64 " is %d; %s takes it as one of 0 .. %" PRId64,
               weight_tensor(w), file->path, at, (int)id, op_info(n->op)->name, limit - 1);
    return false;
}

static bool check_graph(const Session *s, const Graph *g) {
    int *of = arena_array(s->arena, (size_t)g->nodes.n, sizeof *of);
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
        const Node *n = ir_get(g, id);
        of[id] = elements_of(g, n, of);
        for (int i = 0; i < n->n_in; i++) {
            const int64_t limit = of[n->in[i]] >= 0 ? id_limit(g, n, i) : 0;
            if (limit && !check_use(s, of[n->in[i]], n, limit))
                return false;
        }
    }
    return true;
}

bool session_check_tables(const Session *s) {
    for (int i = 0; i < s->module->graphs.n; i++)
        if (!check_graph(s, s->module->graphs.v[i]))
            return false;
    return true;
}
