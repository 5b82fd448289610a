/* gen_matmul.c - family matmul: linears of one value, and what follows each row or tile of their results.
 *
 * Small matrices of f32 (routers) are multiplied in f32. Others, for few rows, in one launch: the decode matmul with
 * the row program as its tail; its input as records of f16 where what makes it writes them. In prefill: the input as
 * records of f16, the matmul, and the row program as a launch of its own.
 */
#include "codegen/gen_int.h"
#include "codegen/gen_matmul_int.h"
#include "codegen/matmul_shape.h"
#include <string.h>

/* Bytes of a block for the ring and what is beside it: all there are, since what is in the ring when the launch ahead
 * ends need not be waited for. Matrices of experts come after that, when the ids are known: a larger ring only puts
 * more chunks into the queue (26B-A4B: 14.0 us instead of 12.4). */
static MatmulRoom ring_room(const Gen *g, MatmulKind kind) {
    enum { STATIC = 4 << 10 };
    const int64_t most = g->target->shared_per_block - STATIC;
    const int64_t half = g->target->pdl && most > GEN_OVER_HALF ? GEN_OVER_HALF : most;
    return kind == MATMUL_EXPERTS ? (MatmulRoom){half, most} : (MatmulRoom){most, half};
}

/* Where there is dependent launch, blocks of the next launch come as those of the launch before end; none may find two
 * places on one multiprocessor, since shares of work are fixed and it would take twice as long. */
int64_t gen_exclusive(const Gen *g, int64_t shared) {
    return g->target->pdl && g->target->shared_per_block > GEN_OVER_HALF && shared < GEN_OVER_HALF ? GEN_OVER_HALF
                                                                                                   : shared;
}

bool gen_matmul_shape(Gen *g, const NodeVec *mains, int64_t dim, MatmulShape *s) {
    const Group *group = &g->g->groups.v[g->group - 1];
    *s = (MatmulShape){.warps = group->warps, .warp_k = group->columns, .tiles = gen_tiles(g, dim)};
    if (mains->n > MAX_SEGMENTS)
        ICE("a group of %d matmuls", mains->n);
    if (!group->warps) {
        gen_fail(g, ir_get(g->g, mains->v[0]), "nothing chose by how many warps group g%d is computed", g->group);
        return false;
    }
    for (int i = 0; i < mains->n; i++) {
        const Node *n = ir_get(g->g, mains->v[i]), *w = ir_get(g->g, n->in[1]);
        if (w->op != OP_WEIGHT) {
            gen_fail(g, n, "the matrix of a matmul must be a weight on a GPU");
            return false;
        }
        const Type *t = &g->m->weights.v[w->attr[0].i].type;
        if (!dtype_info(t->dtype)->tile_form) {
            gen_fail(g, n, "no GPU kernel reads matrices of type %s", dtype_name(t->dtype));
            return false;
        }
        s->k = t->dim[t->rank - 1];
        s->segments[s->n_segments++] = (MatmulSegment){t->dtype, t->dim[t->rank - 2]};
    }
    const MatmulKind kind = ir_get(g->g, mains->v[0])->op == OP_LINEAR ? MATMUL_LINEAR : MATMUL_EXPERTS;
    if (!matmul_shape_fit(s, ring_room(g, kind).usual)) {
        gen_fail(g, ir_get(g->g, mains->v[0]), "no tile of this matmul fits the shared memory of %s", g->target->arch);
        return false;
    }
    return true;
}

void gen_matmul_weights(Gen *g, const NodeVec *mains, PlanLaunch *l) {
    for (int i = 0; i < mains->n; i++) {
        const Node *w = ir_get(g->g, ir_get(g->g, mains->v[i])->in[1]);
        launch_arg(g, l, arg_at(gen_tiles_of(g, (int)w->attr[0].i), 0));
    }
}

/* True when only attentions read the value, which take planes. */
static bool only_attention_reads(const Gen *g, NodeId main) {
    for (NodeId id = main + 1; id < (NodeId)g->g->nodes.n; id++) {
        const Node *n = ir_get(g->g, id);
        for (int i = 0; i < n->n_in; i++)
            if (n->group != g->group && ir_view_base(g->g, n->in[i]) == main &&
                (n->group == 0 || g->g->groups.v[n->group - 1].family != FAM_ATTENTION))
                return false;
    }
    return g->last_read[main] <= g->g->groups.n;
}

void gen_place_results(Gen *g, const NodeVec *mains, int64_t rows, int64_t pairs, int planes, bool halves) {
    int64_t n = 0, column = 0;
    int last = g->group;
    for (int i = 0; i < mains->n; i++) {
        const NodeId id = mains->v[i];
        const Type *t = ir_type(g->g, id);
        n += t->dim[t->rank - 1];
        g->in_planes[id] = ir_get(g->g, id)->slab >= 0 && pairs == 1 && only_attention_reads(g, id);
        if (g->in_planes[id] && g->last_read[id] > last)
            last = g->last_read[id];
    }
    const int64_t plane = rows * pairs * n, each = halves ? 2 : 4, bytes = ceil_div(planes * plane * each, 16) * 16;
    const int64_t at = gen_scratch(g, bytes + (halves ? 4 * rows * pairs : 0), last);
    for (int i = 0; i < mains->n; i++) {
        const Type *t = ir_type(g->g, mains->v[i]);
        const int64_t own = t->dim[t->rank - 1];
        g->loc[mains->v[i]] = (Loc){.kind = LOC_PLANES,
                                    .buffer = g->scratch_buffer,
                                    .offset = at + column * each,
                                    .planes = planes,
                                    .plane_stride = plane,
                                    .row_stride = pairs * n,
                                    .segment_len = own,
                                    .segment_stride = n,
                                    .halves = halves,
                                    .units = at + bytes};
        column += own;
    }
}

void gen_results_done(Gen *g, const NodeVec *mains) {
    for (int i = 0; i < mains->n; i++)
        if (ir_get(g->g, mains->v[i])->slab >= 0 && !g->in_planes[mains->v[i]] && g->loc[mains->v[i]].kind != LOC_NONE)
            g->loc[mains->v[i]] = slab_loc(g, mains->v[i]);
}

void gen_after(Gen *g, const Members *m, SrcLoc loc) {
    const NodeVec nodes = gen_tail_nodes(g, m);
    if (nodes.n)
        row_launch(g, nodes.v, nodes.n, arena_printf(g->arena, "after %s", weights_label(g, &m->main)), loc);
    gen_results_done(g, &m->main);
}

NodeVec gen_tail_nodes(Gen *g, const Members *m) {
    NodeVec all = {0};
    bool any = m->after.n > 0;
    for (int i = 0; i < m->main.n; i++) {
        const NodeId id = m->main.v[i];
        any = any || (ir_get(g->g, id)->slab >= 0 && !g->in_planes[id]);
        vec_push(g->arena, &all, id);
    }
    for (int i = 0; i < m->after.n; i++)
        vec_push(g->arena, &all, m->after.v[i]);
    if (!any)
        all.n = 0;
    return all;
}

bool gen_input_rows(Gen *g, const Node *main, Loc *x) {
    *x = g->loc[ir_view_base(g->g, main->in[0])];
    if (x->kind == LOC_ROWS || gen_operand(g, main))
        return true;
    gen_fail(g, main, "the input of this matmul is no computed row");
    return false;
}

/* ==== Few rows ==== */

static const struct {
    const char *file, *name, *word;
} kinds[] = {[MATMUL_LINEAR] = {"matmul_decode.cu", "matmul", "linear"},
             [MATMUL_EXPERTS] = {"matmul_experts.cu", "experts", "experts"}};

static const char *shape_name(Gen *g, MatmulKind kind, const MatmulShape *s) {
    Buf text = {0};
    matmul_shape_text(s, &text);
    const char *name = arena_printf(g->arena, "%s %s", kinds[kind].word, text.s);
    buf_free(&text);
    return name;
}

static bool is_a_way(const MatmulShape *s, const MatmulRoom *room, const MatmulCut *cut) {
    MatmulCut other;
    for (int way = 0; way < MATMUL_WAYS; way++)
        if (matmul_way(s, room, way, &other) && matmul_cut_same(&other, cut))
            return true;
    return false;
}

/* Cuts the shape, which is cut by the rule, as the options ask. True when by a choice that is another cut. */
static bool cut_as_asked(const Gen *g, MatmulKind kind, const char *name, MatmulShape *s) {
    const MatmulRoom room = ring_room(g, kind);
    const MatmulCut usual = matmul_cut(s);
    MatmulCut cut;
    if (g->o->way && matmul_way(s, &room, g->o->way, &cut))
        matmul_cut_set(s, &cut);
    for (int i = 0; !g->o->way && g->o->choices && i < g->o->choices->n; i++) {
        const PlanChoice *c = &g->o->choices->v[i];
        if (strcmp(c->shape, name) == 0 && is_a_way(s, &room, &c->cut)) {
            matmul_cut_set(s, &c->cut);
            return !matmul_cut_same(&c->cut, &usual);
        }
    }
    return false;
}

int gen_matmul_kernel(Gen *g, MatmulKind kind, const MatmulShape *usual, const char *order, const char *more,
                      const RowProgram *tail) {
    MatmulShape cut = *usual, *s = &cut;
    const char *shape = shape_name(g, kind, s);
    const bool tuned = cut_as_asked(g, kind, shape, s);
    Buf defines = {0};
    matmul_defines(s, &defines);
    buf_str(&defines, order);
    buf_str(&defines, more);
    buf_printf(&defines, "#define MM_TAIL %d\n", tail != NULL);
    Body body = {"tail.body", tail ? tail->body : ""};
    if (tail)
        row_defines(tail, &defines);
    else
        buf_str(&defines, "#define TAIL_PARAMETERS\n#define TAIL_ARGUMENTS\n");
    const int64_t ring = gen_exclusive(g, matmul_shared(s)), shared = tail && tail->shared > ring ? tail->shared : ring;
    const int kernel = gen_kernel(g, kinds[kind].file, "MM_NAME", kinds[kind].name, defines.s, &body, tail ? 1 : 0,
                                  matmul_threads(s), shared, 1);
    PlanKernel *k = &g->plan->kernels.v[kernel];
    k->shape = shape;
    k->cut = matmul_cut(s);
    k->tuned = tuned;
    buf_free(&defines);
    if (shared > g->target->shared_per_block)
        gen_fail(g, NULL, "what follows a matmul needs %lld bytes of shared memory for a row, %s has %lld",
                 (long long)shared, g->target->arch, (long long)g->target->shared_per_block);
    return kernel;
}

static void few_rows(Gen *g, const Members *m, const Node *main, const Loc *x, int64_t dim) {
    MatmulShape s;
    if (!gen_matmul_shape(g, &m->main, dim, &s))
        return;
    const int slices = matmul_slices(&s);
    gen_place_results(g, &m->main, 8 * s.tiles, 1, slices, false);
    const Loc out = g->loc[m->main.v[0]];
    const NodeVec nodes = gen_tail_nodes(g, m);
    RowProgram tail;
    if (nodes.n && !row_program(g, nodes.v, nodes.n, &tail))
        return;
    const Operand *records = gen_operand(g, main);
    const char *more = records ? "#define MM_X_RECORDS 1\n" : "";
    const int kernel = gen_matmul_kernel(g, MATMUL_LINEAR, &s, gen_order(g, &nodes), more, nodes.n ? &tail : NULL);
    PlanGrid grid = {.x = matmul_strips(&s) * slices, .y = 1, .z = 1, .fill = slices};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, weights_label(g, &m->main), main->loc);
    gen_matmul_weights(g, &m->main, l);
    launch_arg(g, l, records ? records->records : arg_loc(x));
    launch_arg(g, l, arg_loc(&out));
    launch_arg(g, l, arg_count(g, dim));
    launch_arg(g, l, gen_counters(g));
    if (nodes.n)
        row_args(g, &tail, l);
    l->cost.weight_bytes = matmul_weight_bytes(&s);
    l->cost.flops_a_row = 2 * matmul_rows(&s) * s.k;
    l->cost.bytes_a_row = (records ? 2 : 4) * s.k + (nodes.n ? tail.bytes_a_row : 4 * matmul_rows(&s));
    gen_results_done(g, &m->main);
}

/* ==== Prefill ==== */

static void many_rows(Gen *g, const Members *m, const Node *main, const Loc *x, int64_t dim) {
    MatmulShape s;
    if (!gen_matmul_shape(g, &m->main, dim, &s))
        return;
    const int64_t most = gen_most(g, dim);
    const PlanArg records = gen_records(g, main, x, s.k);
    gen_place_results(g, &m->main, most, 1, 1, false);
    const Node *only = ir_get(g->g, m->main.v[0]);
    if (m->main.n == 1 && m->after.n == 0 && only->slab >= 0 && !g->in_planes[m->main.v[0]])
        g->loc[m->main.v[0]] = slab_loc(g, m->main.v[0]); /* straight to its place */
    gen_prefill_launch(g, &m->main, &s, records, &g->loc[m->main.v[0]], most, dim, main->loc);
    if (g->loc[m->main.v[0]].kind == LOC_PLANES)
        gen_after(g, m, main->loc);
}

/* ==== f32 weights ==== */

enum { F32_WARPS = 4, F32_THREADS = 128, F32_ROWS = 16 };
/* And of matmul_f32_many.cu: rows and results of a block. */
enum { MANY_THREADS = 256, MANY_ROWS = 64, MANY_COLUMNS = 64, MANY_SHARED = 96 << 10 };

static bool all_f32(const Gen *g, const NodeVec *mains) {
    for (int i = 0; i < mains->n; i++) {
        const Node *w = ir_get(g->g, ir_get(g->g, mains->v[i])->in[1]);
        if (w->op != OP_WEIGHT || g->m->weights.v[w->attr[0].i].type.dtype != DT_F32)
            return false;
    }
    return true;
}

static void f32_defines(const MatmulShape *s, Buf *to) {
    buf_printf(to, "#define F32_K %lld\n#define F32_SEGMENTS(X)", (long long)s->k);
    for (int i = 0; i < s->n_segments; i++)
        buf_printf(to, " X(%d, %lld)", i, (long long)s->segments[i].rows);
    buf_str(to, "\n");
}

static int f32_many_kernel(Gen *g, const MatmulShape *s) {
    Buf defines = {0};
    f32_defines(s, &defines);
    const int kernel =
        gen_kernel(g, "matmul_f32_many.cu", "F32_NAME", "matmul_f32", defines.s, NULL, 0, MANY_THREADS, MANY_SHARED, 1);
    buf_free(&defines);
    return kernel;
}

static int f32_kernel(Gen *g, const MatmulShape *s, const char *order, const RowProgram *tail) {
    Buf defines = {0};
    buf_str(&defines, order);
    f32_defines(s, &defines);
    buf_printf(&defines, "#define MM_TAIL %d\n#define F32_SHARED %lld\n", tail != NULL,
               tail ? (long long)tail->shared : 0LL);
    const Body body = {"tail.body", tail ? tail->body : ""};
    if (tail)
        row_defines(tail, &defines);
    const int kernel = gen_kernel(g, "matmul_f32.cu", "F32_NAME", "matmul_f32", defines.s, &body, tail ? 1 : 0,
                                  F32_THREADS, tail ? tail->shared : 0, 2);
    buf_free(&defines);
    return kernel;
}

/* In f32: one launch with its tail for few rows, two for many, by another kernel. */
static void f32_rows(Gen *g, const Members *m, const Node *main, const Loc *x, int64_t dim) {
    const bool few = gen_few(g, dim);
    MatmulShape s;
    if (!gen_matmul_shape(g, &m->main, dim, &s))
        return;
    gen_place_results(g, &m->main, few ? F32_ROWS : gen_most(g, dim), 1, 1, false);
    const Loc out = g->loc[m->main.v[0]];
    const NodeVec nodes = few ? gen_tail_nodes(g, m) : (NodeVec){0};
    RowProgram tail;
    if (nodes.n && !row_program(g, nodes.v, nodes.n, &tail))
        return;
    const bool has_tail = nodes.n > 0;
    const int kernel = few ? f32_kernel(g, &s, gen_order(g, &nodes), has_tail ? &tail : NULL) : f32_many_kernel(g, &s);
    const int rows_a_block = few ? F32_WARPS : MANY_COLUMNS;
    PlanGrid grid = {.x = (matmul_rows(&s) + rows_a_block - 1) / rows_a_block, .y = 1, .z = 1};
    if (!few)
        grid = (PlanGrid){.x = grid.x, .y = 1, .z = 1, .rows = gen_count(dim), .axis = 1, .per = MANY_ROWS};
    PlanLaunch *l = gen_launch(g, &g->phase->launches, kernel, grid, weights_label(g, &m->main), main->loc);
    for (int i = 0; i < m->main.n; i++) {
        const Node *w = ir_get(g->g, ir_get(g->g, m->main.v[i])->in[1]);
        launch_arg(g, l, arg_at(gen_raw(g, (int)w->attr[0].i), 0));
    }
    launch_arg(g, l, arg_loc(x));
    launch_arg(g, l, arg_loc(&out));
    launch_arg(g, l, arg_count(g, dim));
    if (few)
        launch_arg(g, l, has_tail ? gen_counters(g) : arg_null());
    if (has_tail)
        row_args(g, &tail, l);
    l->cost.weight_bytes = matmul_weight_bytes(&s);
    l->cost.flops_a_row = 2 * matmul_rows(&s) * s.k;
    l->cost.bytes_a_row = 4 * s.k + (has_tail ? tail.bytes_a_row : 4 * matmul_rows(&s));
    if (few)
        gen_results_done(g, &m->main);
    else
        gen_after(g, m, main->loc);
}

/* Blocks of an f32 matmul that wait for each other must all be resident. */
static bool f32_fits(const Gen *g, const NodeVec *mains) {
    enum { MOST_BLOCKS = 64 };
    int64_t rows = 0;
    for (int i = 0; i < mains->n; i++) {
        const Type *t = ir_type(g->g, mains->v[i]);
        rows += t->dim[t->rank - 1];
    }
    return rows <= MOST_BLOCKS * F32_WARPS;
}

bool gen_multiplies_in_f32(const Gen *g, const NodeVec *mains) {
    return all_f32(g, mains) && f32_fits(g, mains);
}

void gen_matmul(Gen *g) {
    const Members m = gen_members(g, OP_LINEAR);
    const Node *main = ir_get(g->g, m.main.v[0]);
    Loc x;
    if (!gen_input_rows(g, main, &x))
        return;
    const int64_t dim = main->type.dim[0];
    if (gen_multiplies_in_f32(g, &m.main))
        f32_rows(g, &m, main, &x, dim);
    else if (gen_few(g, dim))
        few_rows(g, &m, main, &x, dim);
    else
        many_rows(g, &m, main, &x, dim);
}
