/* module.c - the module's tables of weights, caches, variants and graphs; types. */
#include "ir/ir.h"

#include <string.h>

Module *module_new(Arena *arena, Diag *diag, const char *name, const char *arch) {
    Module *m = arena_alloc(arena, sizeof *m);
    m->arena = arena;
    m->diag = diag;
    m->name = arena_strdup(arena, name);
    m->arch = arena_strdup(arena, arch ? arch : "");
    m->weight_index = namemap_new(arena);
    m->cache_index = namemap_new(arena);
    return m;
}

int module_weight(const Module *m, const char *name) {
    return namemap_get(m->weight_index, name);
}

int module_cache(const Module *m, const char *name) {
    return namemap_get(m->cache_index, name);
}

int module_variant(const Module *m, const char *name) {
    for (int i = 0; i < m->variants.n; i++)
        if (strcmp(m->variants.v[i].name, name) == 0)
            return i;
    return -1;
}

Graph *module_graph(const Module *m, const char *name) {
    for (int i = 0; i < m->graphs.n; i++)
        if (strcmp(m->graphs.v[i]->name, name) == 0)
            return m->graphs.v[i];
    return NULL;
}

int module_add_weight(Module *m, Weight w) {
    int i = module_weight(m, w.name);
    if (i >= 0) {
        if (!type_same(&m->weights.v[i].type, &w.type))
            ICE("weight %s added with two types", w.name);
        return i;
    }
    w.name = arena_strdup(m->arena, w.name);
    vec_push(m->arena, &m->weights, w);
    namemap_put(m->weight_index, w.name, m->weights.n - 1);
    return m->weights.n - 1;
}

int module_add_cache(Module *m, Cache c) {
    int i = module_cache(m, c.name);
    if (i >= 0) {
        const KvLayout *a = &m->caches.v[i].layout, *b = &c.layout;
        if (a->heads != b->heads || a->k_dim != b->k_dim || a->v_dim != b->v_dim)
            ICE("cache %s added with two shapes", c.name);
        return i;
    }
    c.name = arena_strdup(m->arena, c.name);
    vec_push(m->arena, &m->caches, c);
    namemap_put(m->cache_index, c.name, m->caches.n - 1);
    return m->caches.n - 1;
}

static bool same_or_none(const Scalar *a, const Scalar *b) {
    return a && b ? scalar_same(a, b) : a == b;
}

int module_add_variant(Module *m, Variant v) {
    int i = module_variant(m, v.name);
    if (i >= 0) {
        const Variant *old = &m->variants.v[i];
        if (!scalar_same(old->visible, v.visible) || !same_or_none(old->score, v.score) ||
            !same_or_none(old->sink, v.sink))
            ICE("variant %s added with two meanings", v.name);
        return i;
    }
    v.name = arena_strdup(m->arena, v.name);
    vec_push(m->arena, &m->variants, v);
    return m->variants.n - 1;
}

/* ==== Drafts ==== */

static const char *const draft_ways[DRAFT_WAYS] = {
    [DRAFT_NONE] = "none", [DRAFT_CHAIN] = "chain", [DRAFT_BLOCK] = "block"};

const char *draft_way_name(DraftWay w) {
    return draft_ways[w];
}

DraftWay draft_way_from_name(Str name) {
    for (int w = DRAFT_CHAIN; w < DRAFT_WAYS; w++)
        if (str_eq(name, draft_ways[w]))
            return (DraftWay)w;
    return DRAFT_NONE;
}

/* ==== Types ==== */

Type type_make(DType t, int rank, const int64_t *dim) {
    Type ty = {.dtype = t, .rank = rank};
    for (int i = 0; i < rank; i++)
        ty.dim[i] = dim[i];
    return ty;
}

Type type_scalar(DType t) {
    return (Type){.dtype = t};
}

bool type_same(const Type *a, const Type *b) {
    if (a->dtype != b->dtype || a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

void type_print(Buf *out, const Type *t) {
    buf_str(out, dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) {
        buf_str(out, i ? ", " : "[");
        if (t->dim[i] == DIM_T)
            buf_char(out, 'T');
        else if (t->dim[i] == DIM_R)
            buf_char(out, 'R');
        else
            buf_printf(out, "%lld", (long long)t->dim[i]);
    }
    if (t->rank)
        buf_char(out, ']');
}

const char *type_text(Arena *a, const Type *t) {
    Buf b = {0};
    type_print(&b, t);
    char *s = arena_strdup(a, b.s);
    buf_free(&b);
    return s;
}

bool type_has_rows(const Type *t) {
    return t->rank > 0 && t->dim[0] < 0;
}

int64_t type_row_elems(const Type *t) {
    int64_t n = 1;
    for (int i = type_has_rows(t) ? 1 : 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}
