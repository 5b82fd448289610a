/* plan_check.c - is a plan one of this module? For a plan that was read: it and the module come from different entries
 * of a bundle, and what runs the plan takes sizes from both.
 */
#include "codegen/plan_text.h"

#include <string.h>

typedef struct Check {
    const Plan *p;
    const Module *m;
    Diag *diag;
    bool sound;
} Check;

__attribute__((format(printf, 2, 3))) static void wrong(Check *c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_error(c->diag, NO_LOC, "plan for %s: %s", c->p->arch, arena_vprintf(c->p->arena, fmt, ap));
    va_end(ap);
    c->sound = false;
}

/* Bytes that a weight needs in a form; 0: it has no such form. */
static int64_t weight_bytes(const Type *t, BufferKind form) {
    const DTypeInfo *info = dtype_info(t->dtype);
    int64_t k = t->rank ? t->dim[t->rank - 1] : 1, rows = 1, matrices = 1;
    if (form == BUFFER_RAW) {
        for (int i = 0; i + 1 < t->rank; i++)
            rows *= t->dim[i];
        return rows * (int64_t)dtype_row_bytes(t->dtype, k);
    }
    if (!info->tile_k || t->rank < 2)
        return 0;
    for (int i = 0; i + 2 < t->rank; i++)
        matrices *= t->dim[i];
    return matrices * dtype_tile_bytes(t->dtype, t->dim[t->rank - 2], k);
}

static void check_weight(Check *c, const PlanBuffer *b) {
    if (b->index >= c->m->weights.n) {
        wrong(c, "buffer '%.60s' is of weight %d, of %d", b->name, b->index, c->m->weights.n);
        return;
    }
    const Weight *w = &c->m->weights.v[b->index];
    int64_t need = weight_bytes(&w->type, b->kind);
    if (need == 0)
        wrong(c, "buffer '%.60s': weight '%.60s' of %s has no tiles", b->name, w->name,
              type_text(c->m->arena, &w->type));
    else if (b->bytes < need)
        wrong(c, "buffer '%.60s' has %lld bytes, weight '%.60s' of %s needs %lld", b->name, (long long)b->bytes,
              w->name, type_text(c->m->arena, &w->type), (long long)need);
}

static void check_cache(Check *c, const PlanBuffer *b) {
    if (b->index >= c->m->caches.n) {
        wrong(c, "buffer '%.60s' is of cache %d, of %d", b->name, b->index, c->m->caches.n);
        return;
    }
    const KvLayout *l = &c->m->caches.v[b->index].layout;
    const bool keys = b->kind == BUFFER_K;
    const int64_t need =
        kv_gpu_plane_bytes(keys ? l->k_type : l->v_type, l->heads, keys ? l->k_dim : l->v_dim, l->capacity);
    if (!l->planned)
        wrong(c, "cache '%.60s' has no layout", c->m->caches.v[b->index].name);
    else if (need < 0 || b->bytes < need)
        wrong(c, "buffer '%.60s' has %lld bytes, cache '%.60s' has %lld positions and needs %lld", b->name,
              (long long)b->bytes, c->m->caches.v[b->index].name, (long long)l->capacity, (long long)need);
}

/* An input that the graph has must have the same type in the call. */
static void check_inputs(Check *c, const Graph *g) {
    for (int i = 0; i < g->inputs.n; i++) {
        const Node *n = ir_get(g, g->inputs.v[i]);
        const PlanInput *in = plan_input(c->p, n->attr[0].s);
        if (in && !type_same(&in->type, &n->type))
            wrong(c, "input '%.60s' is %s, in '%.60s' it is %s", in->name, type_text(c->m->arena, &in->type), g->name,
                  type_text(c->m->arena, &n->type));
    }
}

/* An output may be a view of what stands in the slab. */
static bool same_bytes(const Type *a, const Type *b) {
    return a->dtype == b->dtype && type_row_elems(a) == type_row_elems(b) && type_rows(a, 2, 3) == type_rows(b, 2, 3);
}

static void check_phase(Check *c, const PlanPhase *f) {
    const Graph *g = module_graph(c->m, f->graph);
    if (!g) {
        wrong(c, "phase '%.60s' is of '%.60s', which the model does not have", f->name, f->graph);
        return;
    }
    check_inputs(c, g);
    for (int i = 0; i < f->outputs.n; i++) {
        const PlanOutput *o = &f->outputs.v[i];
        NodeId id = ir_find_output(g, o->kind, o->name);
        if (!id)
            wrong(c, "'%.60s' has no output '%.60s'", g->name, o->name);
        else if (!same_bytes(&o->type, ir_type(g, id)))
            wrong(c, "output '%.60s' is %s, in '%.60s' it is %s", o->name, type_text(c->m->arena, &o->type), g->name,
                  type_text(c->m->arena, ir_type(g, id)));
    }
}

/* The logits that it picks from. */
static void check_sampler(Check *c, const PlanSampler *s) {
    const Graph *g = module_graph(c->m, s->graph);
    const NodeId id = g ? ir_find_output(g, OUT_EMIT, "logits") : 0;
    const Type *t = id ? ir_type(g, id) : NULL;
    const bool rows = t && (t->dim[0] == DIM_R || (s->way == PICK_GUESS && t->dim[0] == DIM_T));
    if (!t || t->rank != 2 || t->dtype != DT_F32 || !rows || t->dim[1] != s->vocab)
        wrong(c, "a %s needs '%.60s' to emit logits of type f32[R, %lld]", pick_way_name(s->way), s->graph,
              (long long)s->vocab);
}

bool plan_check(const Plan *p, const Module *m, Diag *diag) {
    Check c = {p, m, diag, true};
    for (int i = 0; i < p->buffers.n && !diag_full(diag); i++) {
        const PlanBuffer *b = &p->buffers.v[i];
        if (b->kind == BUFFER_RAW || b->kind == BUFFER_TILES)
            check_weight(&c, b);
        else if (buffer_is_cache(b->kind))
            check_cache(&c, b);
    }
    for (int i = 0; i < p->phases.n && !diag_full(diag); i++)
        check_phase(&c, &p->phases.v[i]);
    for (int i = 0; i < p->samplers.n && !diag_full(diag); i++)
        check_sampler(&c, &p->samplers.v[i]);
    return c.sound;
}
