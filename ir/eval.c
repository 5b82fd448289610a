/* eval.c - the evaluator's driver: gives every node a place, runs the ops in order, hands out results.
 *
 * A call computes only what the wanted outputs and the kept cache states need. Results live in the
 * graph's slab where plan-memory has put them, so that a wrong plan shows; a call of more rows than
 * planned is an error. Without a plan each has a buffer of its own, freed after its last use. Views and
 * leaves have no place: they point at other bytes. Cache state has none either: a store writes the
 * cache in place, which is sound because ir_verify allows one store a cache and no read of a
 * replaced state.
 *
 * Every op computes a row of its result from the same numbers in the same order however many rows
 * the call has and however many threads run, so results compare bit for bit.
 */
#include "ir/eval_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_CONTEXT = 4096,
    ALIGN = 64,
    THREAD_WORK = 1 << 15, /* multiplications below which threads cost more than they bring */
};

static EvalFn *const ops[OP_COUNT] = {
#define OP(e, name, lo, hi, attrs, flags) [OP_##e] = eval_##name,
#include "ir/ops.def"
#undef OP
};

/* ==== What ops use ==== */

int64_t run_dim(const EvalRun *r, const Type *t, int i) {
    int64_t d = t->dim[i];
    return d == DIM_T ? r->call->T : d == DIM_R ? r->call->R : d;
}

int64_t run_elems(const EvalRun *r, const Type *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= run_dim(r, t, i);
    return n;
}

int64_t run_last(const EvalRun *r, const Type *t) {
    return t->rank ? run_dim(r, t, t->rank - 1) : 1;
}

int64_t run_rows(const EvalRun *r, const Type *t) {
    int64_t n = 1;
    for (int i = 0; i + 1 < t->rank; i++)
        n *= run_dim(r, t, i);
    return n;
}

bool run_fail(EvalRun *r, const Node *n, const char *fmt, ...) {
    Buf text = {0};
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    buf_printf(&text, "%s: %s", n->name ? n->name : op_info(n->op)->name, line);
    diag_error(r->diag, n->loc, "%s", text.s);
    buf_free(&text);
    return false;
}

/* At least one byte, aligned; NULL when there is not so much. */
static void *aligned_bytes(int64_t bytes) {
    if (bytes < 0 || bytes > INT64_MAX - ALIGN)
        return NULL;
    return aligned_alloc(ALIGN, ((size_t)bytes / ALIGN + 1) * ALIGN);
}

/* The whole of weight w as f32 (i32 weights as they are), kept for later calls. */
static const void *decoded_weight(EvalRun *r, const Node *n, int w) {
    Evaluator *e = r->e;
    if (e->decoded[w])
        return e->decoded[w];
    const Type *t = &e->m->weights.v[w].type;
    int64_t elems = run_elems(r, t);
    e->decoded[w] = aligned_bytes(elems * 4);
    if (!e->decoded[w]) {
        run_fail(r, n, "out of memory for %lld elements of %s", (long long)elems, e->m->weights.v[w].name);
        return NULL;
    }
    if (t->dtype == DT_I32)
        memcpy(e->decoded[w], e->data[w], (size_t)elems * 4);
    else
        dequant_row(t->dtype, e->data[w], e->decoded[w], elems);
    return e->decoded[w];
}

/* 4-byte elements, aligned. */
static const void *run_words(EvalRun *r, const Node *n, int i, DType want) {
    const Value *v = &r->val[n->in[i]];
    if (!v->data)
        ICE("%s reads a value that is not held", n->name);
    if (v->dtype == want && (uintptr_t)v->data % 4 == 0)
        return v->data;
    if (v->weight < 0)
        ICE("%s reads %s as %s", n->name, dtype_name(v->dtype), dtype_name(want));
    return decoded_weight(r, n, v->weight);
}

const float *run_f32(EvalRun *r, const Node *n, int i) {
    return run_words(r, n, i, DT_F32);
}

const int32_t *run_i32(EvalRun *r, const Node *n, int i) {
    return run_words(r, n, i, DT_I32);
}

void *run_out(EvalRun *r, NodeId id) {
    return (void *)(uintptr_t)r->val[id].data;
}

void *run_scratch(EvalRun *r, const Node *n, int64_t count, int64_t size) {
    Evaluator *e = r->e;
    int64_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        bytes = -1;
    if (bytes < 0 || bytes > e->scratch_bytes || !e->scratch) {
        free(e->scratch);
        e->scratch = aligned_bytes(bytes);
        e->scratch_bytes = e->scratch ? bytes : 0;
    }
    if (!e->scratch)
        run_fail(r, n, "out of memory for %lld x %lld bytes of scratch", (long long)count, (long long)size);
    return e->scratch;
}

const void *run_input(const EvalRun *r, const char *name) {
    for (int i = 0; i < r->call->n_inputs; i++)
        if (strcmp(r->call->inputs[i].name, name) == 0)
            return r->call->inputs[i].data;
    return NULL;
}

int run_slot(const EvalRun *r, int64_t dim0, int64_t row) {
    const int32_t *slots = r->call->slots;
    if (!slots)
        return 0;
    if (dim0 == DIM_R)
        row = ((const int32_t *)run_input(r, "rows"))[row];
    return slots[row < r->call->T ? row : 0];
}

void run_parts(EvalRun *r, int64_t parts, double work, PartFn *f, const void *ctx) {
    if (work >= THREAD_WORK && parts > 1 && pool_threads(r->e->pool) > 1)
        pool_run(r->e->pool, parts, f, ctx);
    else
        for (int64_t i = 0; i < parts; i++)
            f(ctx, i, 0);
}

bool run_cancelled(const EvalRun *r) {
    return r->call->cancel && *r->call->cancel;
}

/* ==== Leaves and views ==== */

bool eval_input(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    const void *data = run_input(r, n->attr[0].s);
    if (!data && run_elems(r, &n->type) > 0) {
        diag_error(r->diag, n->loc, "input '%s' of '%s' is missing from the call", n->attr[0].s, r->g->name);
        return false;
    }
    static const int32_t nothing;
    r->val[id] = (Value){.data = data ? data : &nothing, .dtype = n->type.dtype, .weight = -1};
    return true;
}

bool eval_const(EvalRun *r, NodeId id) {
    *(float *)run_out(r, id) = (float)ir_get(r->g, id)->attr[0].f;
    return true;
}

bool eval_weight(EvalRun *r, NodeId id) {
    int w = (int)ir_get(r->g, id)->attr[0].i;
    r->val[id] = (Value){.data = r->e->data[w], .dtype = r->e->m->weights.v[w].type.dtype, .weight = w};
    return true;
}

bool eval_cache(EvalRun *r, NodeId id) {
    r->val[id] = (Value){.dtype = DT_KV, .weight = -1};
    return true;
}

bool eval_reshape(EvalRun *r, NodeId id) {
    r->val[id] = r->val[ir_get(r->g, id)->in[0]];
    r->val[id].owned = NULL;
    return true;
}

/* ==== Places ==== */

static bool has_place(const Node *n) {
    return n->op == OP_CONST || (n->type.dtype != DT_KV && !(op_info(n->op)->flags & (OPF_LEAF | OPF_VIEW)));
}

static bool get_place(EvalRun *r, NodeId id) {
    const Node *n = ir_get(r->g, id);
    Value *v = &r->val[id];
    *v = (Value){.dtype = n->type.dtype, .weight = -1};
    if (!has_place(n))
        return true;
    int64_t bytes;
    int64_t rows = type_rows(&n->type, r->call->T, r->call->R);
    if (__builtin_mul_overflow(rows, type_row_elems(&n->type) * 4, &bytes))
        return run_fail(r, n, "the result is too large");
    if (n->slab >= 0) {
        if (n->slab % 4 || n->slab > r->g->slab_bytes || bytes > r->g->slab_bytes - n->slab)
            ICE("%s does not fit its place in the slab", n->name);
        v->data = (uint8_t *)r->e->slab + n->slab;
        return true;
    }
    v->data = v->owned = aligned_bytes(bytes);
    return v->data || run_fail(r, n, "out of memory for %lld bytes", (long long)bytes);
}

static bool get_slab(EvalRun *r) {
    Evaluator *e = r->e;
    if (e->slab_bytes >= r->g->slab_bytes)
        return true;
    free(e->slab);
    e->slab = aligned_bytes(r->g->slab_bytes);
    e->slab_bytes = e->slab ? r->g->slab_bytes : 0;
    if (!e->slab)
        diag_error(r->diag, r->g->loc, "out of memory for a slab of %lld bytes", (long long)r->g->slab_bytes);
    return e->slab != NULL;
}

/* ==== What to compute ==== */

static bool wanted(const EvalCall *call, const Output *o) {
    if (o->kind == OUT_KEEP)
        return true;
    for (int i = 0; i < call->n_outputs; i++)
        if (strcmp(call->outputs[i].name, o->name) == 0)
            return true;
    return false;
}

/* last[id]: the last node that reads id, itself or through views; nodes.n: it is an output; 0: not
 * needed in this call. Operands come before their users, so one sweep back does it. */
static void find_uses(const EvalRun *r, int32_t *last) {
    const Graph *g = r->g;
    for (int i = 0; i < g->outputs.n; i++)
        if (wanted(r->call, &g->outputs.v[i]))
            last[g->outputs.v[i].node] = g->nodes.n;
    for (int id = g->nodes.n - 1; id > 0; id--) {
        const Node *n = ir_get(g, (NodeId)id);
        int32_t use = op_info(n->op)->flags & OPF_VIEW ? last[id] : id;
        for (int i = 0; last[id] && i < n->n_in; i++)
            if (last[n->in[i]] < use)
                last[n->in[i]] = use;
    }
}

static void drop(Value *v) {
    free(v->owned);
    v->owned = NULL;
    v->data = NULL;
}

/* Frees what node id was the last to read, looking through views at the bytes they share. */
static void drop_operands(EvalRun *r, const int32_t *last, int id) {
    const Node *n = ir_get(r->g, (NodeId)id);
    for (int i = 0; i < n->n_in; i++) {
        NodeId x = n->in[i];
        while (last[x] == id && op_info(ir_get(r->g, x)->op)->flags & OPF_VIEW) {
            drop(&r->val[x]);
            x = ir_get(r->g, x)->in[0];
        }
        if (last[x] == id)
            drop(&r->val[x]);
    }
}

static bool run_nodes(EvalRun *r, const int32_t *last) {
    for (int id = 1; id < r->g->nodes.n; id++) {
        const Node *n = ir_get(r->g, (NodeId)id);
        if (!last[id])
            continue;
        if (run_cancelled(r) || !get_place(r, (NodeId)id) || !ops[n->op](r, (NodeId)id))
            return false;
        drop_operands(r, last, id);
    }
    return !run_cancelled(r);
}

/* ==== A call ==== */

static NodeId find_read(const Graph *g, const char *name) {
    NodeId id = ir_find_output(g, OUT_EMIT, name);
    return id ? id : ir_find_output(g, OUT_TAP, name);
}

/* A graph may do without "rows", but the sequence of a wanted row is found through it. */
static bool check_rows(EvalRun *r) {
    const int32_t *rows = run_input(r, "rows");
    if (!rows && r->call->R > 0 && r->call->slots) {
        diag_error(r->diag, r->g->loc, "input 'rows' of '%s' is missing from the call", r->g->name);
        return false;
    }
    for (int64_t i = 0; rows && i < r->call->R; i++)
        if (rows[i] < 0 || rows[i] >= r->call->T) {
            diag_error(r->diag, r->g->loc, "wanted row %lld is %d, but the call has %lld rows", (long long)i,
                       (int)rows[i], (long long)r->call->T);
            return false;
        }
    return true;
}

static bool check_call(EvalRun *r) {
    const EvalCall *c = r->call;
    SrcLoc at = r->g->loc;
    if (c->T < 1 || c->T > INT32_MAX || c->R < 0 || c->R > INT32_MAX) {
        diag_error(r->diag, at, "a call with %lld rows and %lld wanted rows", (long long)c->T, (long long)c->R);
        return false;
    }
    if (r->g->slab_rows && (c->T > r->g->slab_rows || c->R > r->g->slab_wanted)) {
        diag_error(r->diag, at, "a call with %lld rows and %lld wanted rows, but the plan is for %lld and %lld",
                   (long long)c->T, (long long)c->R, (long long)r->g->slab_rows, (long long)r->g->slab_wanted);
        return false;
    }
    for (int64_t t = 0; c->slots && t < c->T; t++)
        if (c->slots[t] < 0 || c->slots[t] >= r->e->slots) {
            diag_error(r->diag, at, "row %lld is of sequence %d, but there are %d", (long long)t, (int)c->slots[t],
                       r->e->slots);
            return false;
        }
    for (int i = 0; i < c->n_outputs; i++)
        if (!find_read(r->g, c->outputs[i].name)) {
            diag_error(r->diag, at, "'%s' has no output '%s'", r->g->name, c->outputs[i].name);
            return false;
        }
    return true;
}

static bool copy_outputs(EvalRun *r) {
    for (int i = 0; i < r->call->n_outputs; i++) {
        const EvalOutput *o = &r->call->outputs[i];
        NodeId id = find_read(r->g, o->name);
        if (!o->data)
            continue;
        const Type *t = ir_type(r->g, id);
        Node self = {.op = OP_RESHAPE, .name = o->name, .in = &id, .n_in = 1, .loc = r->g->loc};
        const void *from = t->dtype == DT_I32 ? (const void *)run_i32(r, &self, 0) : run_f32(r, &self, 0);
        if (!from)
            return false;
        memcpy(o->data, from, (size_t)run_elems(r, t) * 4);
    }
    return true;
}

bool eval_call(Evaluator *e, const EvalCall *call, Diag *diag) {
    EvalRun r = {.e = e, .call = call, .g = call->graph, .diag = diag};
    if (!check_call(&r) || !check_rows(&r) || !get_slab(&r))
        return false;
    size_t n = (size_t)r.g->nodes.n;
    int32_t *last = calloc(n, sizeof *last);
    r.val = calloc(n, sizeof *r.val);
    bool ok = last && r.val;
    if (!ok) {
        diag_error(diag, r.g->loc, "out of memory");
    } else {
        find_uses(&r, last);
        ok = run_nodes(&r, last) && copy_outputs(&r);
    }
    for (size_t i = 0; r.val && i < n; i++)
        free(r.val[i].owned);
    free(r.val);
    free(last);
    return ok;
}

/* ==== Making and freeing ==== */

static bool has_data(const Evaluator *e, int w, SrcLoc at) {
    const Weight *weight = &e->m->weights.v[w];
    if (e->data[w])
        return true;
    diag_error(e->m->diag, at.file ? at : weight->loc, "there is no data for weight '%s'", weight->name);
    return false;
}

static bool check_weights(const Evaluator *e) {
    bool ok = true;
    for (int i = 0; i < e->m->graphs.n; i++) {
        const Graph *g = e->m->graphs.v[i];
        for (int id = 1; id < g->nodes.n; id++) {
            const Node *n = ir_get(g, (NodeId)id);
            if (n->op == OP_WEIGHT && !has_data(e, (int)n->attr[0].i, n->loc))
                ok = false;
        }
    }
    return ok;
}

/* Decodes the tables that an expression reads. */
static bool take_tables(Evaluator *e, const Scalar *s) {
    if (!s)
        return true;
    if (s->op == SC_TABLE && !e->tables[s->weight]) {
        const Type *t = &e->m->weights.v[s->weight].type;
        if (!has_data(e, s->weight, s->loc))
            return false;
        float *table = aligned_bytes(type_row_elems(t) * 4);
        if (!table) {
            diag_error(e->m->diag, s->loc, "out of memory for a table");
            return false;
        }
        dequant_row(t->dtype, e->data[s->weight], table, type_row_elems(t));
        free(e->decoded[s->weight]);
        e->decoded[s->weight] = table;
        e->tables[s->weight] = table;
        e->tables_len[s->weight] = type_row_elems(t);
    }
    return take_tables(e, s->arg[0]) && take_tables(e, s->arg[1]) && take_tables(e, s->arg[2]);
}

Evaluator *eval_new(const Module *m, const void *const *data, const EvalOptions *o) {
    EvalOptions given = o ? *o : (EvalOptions){0};
    if (given.context <= 0)
        given.context = DEFAULT_CONTEXT;
    size_t n = (size_t)m->weights.n + 1; /* a module may have none */
    Evaluator *e = calloc(1, sizeof *e);
    if (!e)
        ICE("out of memory");
    e->m = m;
    e->pool = pool_new(given.threads);
    e->slots = given.slots > 0 ? given.slots : 1;
    e->data = calloc(n, sizeof *e->data);
    e->decoded = calloc(n, sizeof *e->decoded);
    e->tables = calloc(n, sizeof *e->tables);
    e->tables_len = calloc(n, sizeof *e->tables_len);
    if (!e->data || !e->decoded || !e->tables || !e->tables_len)
        ICE("out of memory");
    for (int i = 0; i < m->weights.n; i++)
        e->data[i] = data[i];
    bool ok = check_weights(e) && kv_setup(e, &given);
    for (int i = 0; ok && i < m->variants.n; i++) {
        const Variant *v = &m->variants.v[i];
        ok = take_tables(e, v->visible) && take_tables(e, v->score) && take_tables(e, v->sink);
    }
    if (ok)
        return e;
    eval_free(e);
    return NULL;
}

int eval_threads(const Evaluator *e) {
    return pool_threads(e->pool);
}

void eval_free(Evaluator *e) {
    if (!e)
        return;
    pool_free(e->pool);
    kv_free(e);
    for (int i = 0; e->decoded && i < e->m->weights.n; i++)
        free(e->decoded[i]);
    free(e->decoded);
    free(e->data);
    free(e->tables);
    free(e->tables_len);
    free(e->slab);
    free(e->scratch);
    free(e);
}
