/* compare.c - do two modules compute the same? Runs both on the same tokens and compares outputs.
 *
 * What an input means is read off its uses, not off its name: indices of a table are random and in
 * range, positions grow from call to call, wanted rows are rows of the call. Calls have several
 * sizes, so that caches are read across calls and, with a small plan, rings wrap. All graphs of a
 * module share its caches, in the order of the module. Equal is: a relative root mean square
 * difference of at most 1e-5, which NaN never is; indices must be the same.
 */
#include "ir/eval.h"
#include "passes/passes_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double TOLERANCE = 1e-5;

enum { MOST_POSITIONS = 48, MAX_INPUTS_OF_GRAPH = 64 };

typedef enum Role { ROLE_VALUE, ROLE_INDEX, ROLE_POSITION, ROLE_ROW } Role;

typedef struct InputPlan {
    Role role;
    int64_t limit; /* ROLE_INDEX: indices are below */
} InputPlan;

/* One side of the comparison. */
typedef struct Side {
    const Module *m;
    Evaluator *eval;
} Side;

typedef struct Run {
    Side a, b;
    Diag *diag;
    Arena *scratch;
    uint64_t state;
    double worst;
} Run;

/* ==== What inputs mean ==== */

static void meet(InputPlan *p, Role role, int64_t limit) {
    if (role == ROLE_INDEX && p->role == ROLE_INDEX)
        p->limit = limit < p->limit ? limit : p->limit;
    else if (p->role == ROLE_VALUE)
        *p = (InputPlan){role, limit};
}

/* The meaning of every i32 value, from its readers backwards. */
static InputPlan *find_roles(const Graph *g, Arena *scratch) {
    InputPlan *plan = arena_array(scratch, (size_t)g->nodes.n, sizeof *plan);
    for (int id = g->nodes.n - 1; id > 0; id--) {
        const Node *n = &g->nodes.v[id];
        if (n->op == OP_EMBED)
            meet(&plan[n->in[0]], ROLE_INDEX, ir_type(g, n->in[1])->dim[0]);
        else if (n->op == OP_LINEAR_EXPERTS)
            meet(&plan[n->in[2]], ROLE_INDEX, ir_type(g, n->in[1])->dim[0]);
        else if (n->op == OP_LINEAR_AT)
            meet(&plan[n->in[2]], ROLE_INDEX, ir_type(g, n->in[1])->dim[0]);
        else if (n->op == OP_LOOKUP)
            meet(&plan[n->in[0]], ROLE_INDEX, ir_type(g, n->in[1])->dim[0] / n->attr[0].i);
        else if (n->op == OP_SCATTER)
            meet(&plan[n->in[1]], ROLE_INDEX, n->attr[0].i);
        else if (n->op == OP_GATHER)
            meet(&plan[n->in[1]], ROLE_INDEX, ir_type(g, n->in[0])->dim[ir_type(g, n->in[0])->rank - 1]);
        else if (n->op == OP_ROPE)
            meet(&plan[n->in[1]], ROLE_POSITION, 0);
        else if (n->op == OP_ATTEND)
            meet(&plan[n->in[2]], ROLE_POSITION, 0);
        else if (n->op == OP_KV_STORE)
            meet(&plan[n->in[3]], ROLE_POSITION, 0);
        else if (n->op == OP_ROWS)
            meet(&plan[n->in[1]], ROLE_ROW, 0);
        if (n->op == OP_ROWS || n->op == OP_RESHAPE)
            meet(&plan[n->in[0]], plan[id].role, plan[id].limit);
    }
    return plan;
}

static int64_t input_elems(const Type *t, int64_t T, int64_t R) {
    return type_rows(t, T, R) * type_row_elems(t);
}

/* The data of one input for a call of T rows from position `first`. */
static void *make_input(Run *r, const Type *t, const InputPlan *p, int64_t T, int64_t R, int64_t first) {
    int64_t n = input_elems(t, T, R);
    int32_t *i32 = arena_array(r->scratch, (size_t)n + 1, 4);
    float *f32 = (float *)i32;
    for (int64_t i = 0; i < n; i++) {
        if (t->dtype == DT_F32)
            f32[i] = (float)random_between(&r->state, -1.7, 1.7);
        else if (p->role == ROLE_INDEX)
            i32[i] = (int32_t)random_below(&r->state, p->limit < INT32_MAX ? p->limit : INT32_MAX);
        else if (p->role == ROLE_POSITION)
            i32[i] = (int32_t)(first + (i < T ? i : T - 1));
        else if (p->role == ROLE_ROW)
            i32[i] = (int32_t)(i == R - 1 ? T - 1 : random_below(&r->state, T));
    }
    return i32;
}

/* ==== Comparing ==== */

static bool same_ints(const void *x, const void *y, int64_t n) {
    return memcmp(x, y, (size_t)n * 4) == 0;
}

/* Relative root mean square of the difference; NaN when anything is. */
static double difference(const float *x, const float *y, int64_t n) {
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)y[i];
        diff += d * d;
        size += (double)y[i] * (double)y[i];
    }
    if (diff == 0)
        return 0;
    return size == 0 ? INFINITY : sqrt(diff / size);
}

static bool compare_output(Run *r, const Graph *g, const char *name, const Type *t, const float *x, const float *y,
                           int64_t n) {
    if (t->dtype != DT_F32) {
        if (same_ints(x, y, n))
            return true;
        diag_error(r->diag, g->loc, "graph '%s': '%s' is not the same", g->name, name);
        return false;
    }
    double d = difference(x, y, n);
    if (!(d <= r->worst))
        r->worst = d;
    if (d <= TOLERANCE)
        return true;
    diag_error(r->diag, g->loc, "graph '%s': '%s' differs by %.3g (relative, root mean square; at most %.0e is equal)",
               g->name, name, d, TOLERANCE);
    return false;
}

/* ==== Running ==== */

typedef struct OutputPair {
    EvalOutput *a, *b;
    const Type **type;
    int n;
} OutputPair;

/* Emits, which both must have, and taps, where both have them. */
static bool pair_outputs(Run *r, const Graph *a, const Graph *b, int64_t T, int64_t R, OutputPair *p) {
    size_t most = (size_t)a->outputs.n + 1;
    p->n = 0;
    p->a = arena_array(r->scratch, most, sizeof *p->a);
    p->b = arena_array(r->scratch, most, sizeof *p->b);
    p->type = arena_array(r->scratch, most, sizeof *p->type);
    for (int i = 0; i < a->outputs.n; i++) {
        const Output *o = &a->outputs.v[i];
        if (o->kind == OUT_KEEP)
            continue;
        NodeId other = ir_find_output(b, o->kind, o->name);
        if (!other && o->kind == OUT_TAP)
            continue;
        const Type *t = ir_type(a, o->node);
        if (!other || !type_same(t, ir_type(b, other))) {
            diag_error(r->diag, b->loc, "graph '%s': output '%s' is %s", b->name, o->name,
                       other ? "of another type" : "gone");
            return false;
        }
        size_t n = (size_t)input_elems(t, T, R);
        p->type[p->n] = t;
        p->a[p->n] = (EvalOutput){o->name, arena_array(r->scratch, n + 1, 4)};
        p->b[p->n++] = (EvalOutput){o->name, arena_array(r->scratch, n + 1, 4)};
    }
    return true;
}

static bool has_r_rows(const Graph *g) {
    for (int i = 0; i < g->inputs.n; i++)
        if (ir_type(g, g->inputs.v[i])->rank > 0 && ir_type(g, g->inputs.v[i])->dim[0] == DIM_R)
            return true;
    return false;
}

/* At most `rows`, as far as the graph is planned for. */
static int64_t most_wanted(const Graph *g, int64_t rows) {
    return g->slab_rows && g->slab_wanted < rows ? g->slab_wanted : rows;
}

/* The same call of T rows on both sides. */
static bool run_call(Run *r, const Graph *a, const Graph *b, int64_t T, int64_t first) {
    EvalInput inputs[MAX_INPUTS_OF_GRAPH];
    InputPlan *plan = find_roles(a, r->scratch);
    int64_t R = has_r_rows(a) ? 1 + random_below(&r->state, most_wanted(a, most_wanted(b, T))) : 0;
    OutputPair p;
    if (a->inputs.n > MAX_INPUTS_OF_GRAPH) {
        diag_error(r->diag, a->loc, "graph '%s' has more than %d inputs", a->name, MAX_INPUTS_OF_GRAPH);
        return false;
    }
    for (int i = 0; i < a->inputs.n; i++) {
        const Node *n = ir_get(a, a->inputs.v[i]);
        inputs[i] = (EvalInput){n->attr[0].s, make_input(r, &n->type, &plan[a->inputs.v[i]], T, R, first)};
    }
    if (!pair_outputs(r, a, b, T, R, &p))
        return false;
    EvalCall call = {
        .graph = a, .T = T, .R = R, .inputs = inputs, .n_inputs = a->inputs.n, .outputs = p.a, .n_outputs = p.n};
    bool ok = eval_call(r->a.eval, &call, r->diag);
    call.graph = b;
    call.outputs = p.b;
    ok = ok && eval_call(r->b.eval, &call, r->diag);
    for (int i = 0; ok && i < p.n; i++)
        ok = compare_output(r, a, p.a[i].name, p.type[i], p.a[i].data, p.b[i].data, input_elems(p.type[i], T, R));
    return ok;
}

/* Positions that both modules can hold. */
static int64_t positions(const Module *a, const Module *b) {
    int64_t most = MOST_POSITIONS;
    const Module *sides[] = {a, b};
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < sides[s]->caches.n; i++) {
            const KvLayout *l = &sides[s]->caches.v[i].layout;
            if (l->planned && !l->ring && l->capacity < most)
                most = l->capacity;
        }
    return most;
}

/* At most `rows`, as far as all graphs are planned for. */
static int64_t most_rows(const Module *m, int64_t rows) {
    for (int i = 0; i < m->graphs.n; i++) {
        const Graph *g = m->graphs.v[i];
        rows = g->slab_rows && g->slab_rows < rows ? g->slab_rows : rows;
    }
    return rows;
}

/* Calls of several sizes until the positions are used up, every graph on the same ones. */
static bool run_all(Run *r, int rows) {
    static const int sizes[] = {5, 1, 3, 8};
    int64_t most = positions(r->a.m, r->b.m), most_T = most_rows(r->a.m, most_rows(r->b.m, rows)), first = 0;
    for (int i = 0; first < most; i++) {
        int64_t T = sizes[(size_t)i % COUNTOF(sizes)];
        T = T < most_T ? T : most_T;
        T = T < most - first ? T : most - first;
        for (int g = 0; g < r->a.m->graphs.n; g++) {
            const Graph *ga = r->a.m->graphs.v[g], *gb = module_graph(r->b.m, ga->name);
            if (!gb) {
                diag_error(r->diag, ga->loc, "graph '%s' is gone", ga->name);
                return false;
            }
            if (!run_call(r, ga, gb, T, first))
                return false;
        }
        first += T;
    }
    return true;
}

static bool same_weights(const Module *a, const Module *b) {
    bool same = a->weights.n == b->weights.n;
    for (int i = 0; same && i < a->weights.n; i++)
        same = strcmp(a->weights.v[i].name, b->weights.v[i].name) == 0 &&
               type_same(&a->weights.v[i].type, &b->weights.v[i].type);
    if (!same)
        diag_error(b->diag, NO_LOC, "the modules do not have the same weights");
    return same;
}

bool pipeline_same_results(const Module *a, const Module *b, const void *const *data, uint64_t seed, int rows,
                           double *worst) {
    if (!same_weights(a, b))
        return false;
    void **made = NULL;
    if (!data && !(made = random_weights_new(b, seed)))
        return false;
    const void *const *use = data ? data : (const void *const *)made;
    EvalOptions o = {.slots = 1, .context = MOST_POSITIONS};
    Run r = {.a = {a, eval_new(a, use, &o)},
             .b = {b, eval_new(b, use, &o)},
             .diag = b->diag,
             .scratch = arena_new(),
             .state = seed * 2 + 1};
    bool ok = r.a.eval && r.b.eval && run_all(&r, rows > 0 ? rows : 1);
    if (worst)
        *worst = r.worst;
    eval_free(r.a.eval);
    eval_free(r.b.eval);
    arena_free(r.scratch);
    random_weights_free(b, made);
    return ok;
}
