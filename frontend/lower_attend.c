/* lower_attend.c - attention and its caches.
 *
 * Three forms: attend(q, k, v, cache c, variant) stores k and v in the cache and attends to it;
 * attend(q, cache c, variant) attends to the cache as it is at that point of the entry; attend(q, k, v,
 * cache c, variant, store = false) attends to the cache and to its own rows without storing them.
 * store(k, v, cache c) only stores. A cache is made by the first call that brings keys and values, and
 * every later use must agree with it; an entry stores in a cache at most once. Positions are those of
 * the entry's pos input. k_type = ".." and v_type = ".." of a call that stores say how the cache holds its rows; a
 * plane of which no call says so is f32 here, and what plan-kv is asked for later.
 */
#include "frontend/lower.h"

#include <limits.h>
#include <string.h>

NodeId l_rows_input(Lower *L, SrcLoc at) {
    return ir_input(L->g, "rows", type_make(DT_I32, 1, (int64_t[]){DIM_R}), at);
}

/* ==== Caches ==== */

/* Room in the tables for every cache of the module. */
static void grow_tables(Lower *L) {
    while (L->uses.n < L->m->caches.n) {
        vec_push(L->arena, &L->uses, (CacheUse){0});
        vec_push(L->arena, &L->first_read, NO_LOC);
        vec_push(L->arena, &L->ever_stored, false);
    }
}

static const char *layout_text(Lower *L, int64_t heads, int64_t k, int64_t v) {
    return arena_printf(L->arena, "keys [%lld, %lld] and values [%lld, %lld]", (long long)heads, (long long)k,
                        (long long)heads, (long long)v);
}

/* Keys [T, KV, Dk] and values [T, KV, Dv] that may go into a cache. */
static bool good_rows(Lower *L, NodeId k, NodeId v, SrcLoc at) {
    const Type *tk = ir_type(L->g, k), *tv = ir_type(L->g, v);
    bool ok = tk->rank == 3 && tv->rank == 3 && type_has_rows(tk) && type_has_rows(tv) && tk->dim[1] == tv->dim[1];
    for (int i = 1; ok && i < 3; i++)
        ok = tk->dim[i] <= INT_MAX && tv->dim[i] <= INT_MAX;
    if (!ok) {
        l_error(L, at, "a cache takes keys [T, heads, dim] and values [T, heads, dim], these are %s and %s",
                type_text(L->arena, tk), type_text(L->arena, tv));
        l_note(L, ir_get(L->g, k)->loc, "the keys come from here");
        l_note(L, ir_get(L->g, v)->loc, "the values come from here");
    }
    return ok;
}

static bool agrees(Lower *L, int cache, NodeId k, NodeId v, SrcLoc at) {
    const Cache *c = &L->m->caches.v[cache];
    const Type *tk = ir_type(L->g, k), *tv = ir_type(L->g, v);
    const KvLayout *l = &c->layout;
    if (tk->dim[1] == l->heads && tk->dim[2] == l->k_dim && tv->dim[2] == l->v_dim)
        return true;
    l_error(L, at, "cache '%s' holds %s, this brings %s", c->name, layout_text(L, l->heads, l->k_dim, l->v_dim),
            layout_text(L, tk->dim[1], tk->dim[2], tv->dim[2]));
    l_note(L, c->loc, c->from ? "'%s' of the target is first used here" : "'%s' was made here", c->name);
    return false;
}

static int target_cache(Lower *L, const CacheRef *r) {
    const Module *t = L->in->target;
    const char *name = arena_printf(L->arena, "target.%s", r->name);
    int i = module_cache(L->m, name);
    if (i >= 0)
        return i;
    if (!t) {
        l_error(L, r->loc, "the target ('%s') is needed here: this reads one of its caches",
                L->m->target ? L->m->target : "?");
        return -1;
    }
    i = module_cache(t, r->name);
    if (i < 0) {
        Nearest near = nearest_new((Str){r->name, strlen(r->name)});
        for (int j = 0; j < t->caches.n; j++)
            nearest_try(&near, t->caches.v[j].name);
        l_error(L, r->loc, "target '%s' has no cache '%s'%s", t->name, r->name, near_text(L->arena, &near));
        return -1;
    }
    Cache c = {.name = name, .from = L->m->target, .layout = t->caches.v[i].layout, .loc = r->loc};
    return module_add_cache(L->m, c);
}

/* The module's cache, made now if this use brings keys and values (k and v not 0). -1 after a report. */
static int find_cache(Lower *L, const CacheRef *r, NodeId k, NodeId v, SrcLoc at) {
    int i = r->target ? target_cache(L, r) : module_cache(L->m, r->name);
    if (r->target && i < 0)
        return -1;
    if (k && !good_rows(L, k, v, at))
        return -1;
    if (i >= 0) {
        grow_tables(L);
        return k && !agrees(L, i, k, v, at) ? -1 : i;
    }
    if (!k && diag_errors(L->diag) > L->errors)
        return -1; /* its store may be what went wrong */
    if (!k) {
        Nearest near = nearest_new((Str){r->name, strlen(r->name)});
        for (int j = 0; j < L->m->caches.n; j++)
            nearest_try(&near, L->m->caches.v[j].name);
        l_error(L, r->loc, "cache '%s' is read here, but nothing was stored in it before%s", r->name,
                near_text(L->arena, &near));
        return -1;
    }
    const Type *tk = ir_type(L->g, k), *tv = ir_type(L->g, v);
    KvLayout l = {.k_type = DT_F32,
                  .v_type = DT_F32,
                  .heads = (int)tk->dim[1],
                  .k_dim = (int)tk->dim[2],
                  .v_dim = (int)tv->dim[2]};
    i = module_add_cache(L->m, (Cache){.name = r->name, .layout = l, .loc = r->loc});
    grow_tables(L);
    return i;
}

/* The cache as it is at this point of the entry. */
static NodeId cache_state(Lower *L, int cache, SrcLoc at) {
    Attr a = {.i = cache};
    if (!L->first_read.v[cache].line)
        L->first_read.v[cache] = at;
    return L->uses.v[cache].state ? L->uses.v[cache].state : l_node(L, OP_CACHE, NULL, 0, &a, NULL, at);
}

static NodeId positions(Lower *L, const char *who, SrcLoc at) {
    if (!L->pos)
        l_error(L, at, "%s needs positions: give entry '%s' an input like pos: pos[T]", who, L->g->name);
    return L->pos;
}

static bool store_rows(Lower *L, int cache, NodeId k, NodeId v, SrcLoc at) {
    const Cache *c = &L->m->caches.v[cache];
    CacheUse *u = &L->uses.v[cache];
    NodeId pos = positions(L, "a store", at);
    if (!pos)
        return false;
    if (c->from) {
        l_error(L, at, "cache '%s' belongs to the target: it can only be read", c->name);
        return false;
    }
    if (u->state) {
        l_error(L, at, "entry '%s' stores in cache '%s' twice", L->g->name, c->name);
        l_note(L, u->stored, "the first is here");
        return false;
    }
    Attr a = {.i = cache};
    NodeId in[] = {l_node(L, OP_CACHE, NULL, 0, &a, NULL, at), k, v, pos};
    NodeId state = l_node(L, OP_KV_STORE, in, 4, NULL, c->name, at);
    if (!state)
        return false;
    *u = (CacheUse){state, at};
    L->ever_stored.v[cache] = true;
    ir_output(L->g, OUT_KEEP, c->name, state, at);
    return true;
}

void l_check_caches(Lower *L) {
    grow_tables(L);
    for (int i = 0; i < L->m->caches.n; i++)
        if (!L->m->caches.v[i].from && !L->ever_stored.v[i])
            l_error(L, L->first_read.v[i], "cache '%s' is read, but no entry stores in it", L->m->caches.v[i].name);
}

/* ==== Types of planes ==== */

/* A plane of a cache, in a call that names its type. */
typedef struct Plane {
    const char *what;
    DType *type;
    NodeId rows;
    int arg; /* of the call */
} Plane;

/* The type named by an argument; DT_F32: none. False after a report. */
static bool arg_plane_type(Call *c, int i, DType *out) {
    Lower *L = c->L;
    Str name;
    *out = DT_F32;
    if (!c->has[i] || c->v[i].kind == VAL_NONE)
        return true;
    if (!arg_string(c, i, &name))
        return false;
    const DType t = dtype_from_name(name);
    if (t == DT_F32)
        l_error(L, c->at[i], "'%s' cannot ask for f32, which is what a cache holds when nothing asks for another type",
                c->fn->param[i]);
    else if (!kv_storable(t))
        l_error(L, c->at[i], "a cache cannot hold \"%.*s\": there are caches of %s", (int)name.n, name.s,
                kv_storable_names(L->arena));
    *out = t;
    return t != DT_F32 && kv_storable(t);
}

static bool name_plane(Call *c, const Cache *cache, const Plane *p) {
    Lower *L = c->L;
    DType t;
    if (!arg_plane_type(c, p->arg, &t))
        return false;
    if (t == DT_F32)
        return true;
    const int block = dtype_info(t)->block_elems;
    const int64_t dim = ir_type(L->g, p->rows)->dim[2];
    if (dim % block) {
        l_error(L, c->at[p->arg], "%s holds blocks of %d elements, these %s have heads of %lld", dtype_name(t), block,
                p->what, (long long)dim);
        l_note(L, ir_get(L->g, p->rows)->loc, "the %s come from here", p->what);
        return false;
    }
    if (*p->type != DT_F32 && *p->type != t) {
        l_error(L, c->at[p->arg], "cache '%s' holds its %s as %s, this says %s", cache->name, p->what,
                dtype_name(*p->type), dtype_name(t));
        l_note(L, cache->loc, "'%s' was made here", cache->name);
        return false;
    }
    *p->type = t;
    return true;
}

/* Takes k_type and v_type of a call that stores k and v, or says that they have no meaning (stores: false). */
static bool name_types(Call *c, int cache, bool stores, NodeId k, NodeId v, int k_arg) {
    for (int i = k_arg; i < k_arg + 2 && !stores; i++)
        if (c->has[i]) {
            l_error(c->L, c->at[i], "'%s' says how rows are stored, and this call stores none", c->fn->param[i]);
            return false;
        }
    Cache *to = &c->L->m->caches.v[cache];
    const Plane keys = {"keys", &to->layout.k_type, k, k_arg}, values = {"values", &to->layout.v_type, v, k_arg + 1};
    return !stores || to->from || (name_plane(c, to, &keys) && name_plane(c, to, &values));
}

/* ==== store and attend ==== */

static const CacheRef *arg_cache(Call *c, int i) {
    if (c->v[i].kind == VAL_CACHE)
        return c->v[i].u.cache;
    l_error(c->L, c->at[i], "%s needs a cache here, as in `cache kv[i]`", c->fn->name);
    return NULL;
}

enum { Q, K, V, CACHE, VARIANT, SCALE, STORE, K_TYPE, V_TYPE }; /* parameters of attend */
enum { STORE_K_TYPE = 3 };                                      /* of store; its v_type is behind it */

Value call_store(Call *c) {
    NodeId k, v;
    const CacheRef *r;
    if (!arg_tensor(c, 0, &k) || !arg_tensor(c, 1, &v) || !(r = arg_cache(c, 2)))
        return value_poison();
    int cache = find_cache(c->L, r, k, v, c->loc);
    return cache >= 0 && name_types(c, cache, true, k, v, STORE_K_TYPE) && store_rows(c->L, cache, k, v, c->loc)
               ? value_none()
               : value_poison();
}

/* Positions of the queries: those of the entry, or of its wanted rows. */
static NodeId query_positions(Lower *L, NodeId q, SrcLoc at) {
    NodeId pos = positions(L, "attend", at);
    if (!pos || ir_type(L->g, q)->dim[0] != DIM_R)
        return pos;
    return l_node(L, OP_ROWS, (NodeId[]){pos, l_rows_input(L, at)}, 2, NULL, NULL, at);
}

/* The forms differ in whether keys and values stand before the cache. */
static bool find_form(Call *c, int *cache, int *variant) {
    bool brief = c->has[K] && c->v[K].kind == VAL_CACHE;
    *cache = brief ? K : CACHE;
    *variant = brief && c->has[V] ? V : VARIANT;
    if (brief && c->has[CACHE])
        l_error(c->L, c->at[CACHE], "after the variant, arguments of attend have names: scale = ..");
    else if (!brief && c->has[K] != c->has[V])
        l_error(c->L, c->loc, "attend takes keys and values together");
    else
        return true;
    return false;
}

Value call_attend(Call *c) {
    Lower *L = c->L;
    NodeId q, k = 0, v = 0;
    int at_cache, at_variant;
    bool store = true;
    Attr attr[2];
    const CacheRef *r;
    if (!arg_tensor(c, Q, &q) || !find_form(c, &at_cache, &at_variant))
        return value_poison();
    bool rows = at_cache == CACHE && c->has[K];
    if (rows && (!arg_tensor(c, K, &k) || !arg_tensor(c, V, &v)))
        return value_poison();
    if (!(r = arg_cache(c, at_cache)))
        return value_poison();
    if (c->v[at_variant].kind != VAL_VARIANT)
        return l_error(L, c->at[at_variant], "attend needs a variant here, which says what is visible");
    if (!c->has[SCALE])
        return l_error(L, c->loc, "attend lacks its argument 'scale': scores are q.k * scale");
    if (!arg_number(c, SCALE, &attr[1].f) || (c->has[STORE] && !arg_bool(c, STORE, &store)))
        return value_poison();
    int cache = find_cache(L, r, k, v, c->loc);
    NodeId pos = query_positions(L, q, c->loc);
    if (cache < 0 || !pos || !name_types(c, cache, rows && store, k, v, K_TYPE) ||
        (rows && store && !store_rows(L, cache, k, v, c->loc)))
        return value_poison();
    attr[0].i = c->v[at_variant].u.variant;
    NodeId in[] = {q, cache_state(L, cache, c->loc), pos, k, v};
    return value_tensor(l_node(L, OP_ATTEND, in, rows && !store ? 5 : 3, attr, c->hint, c->loc));
}
