/* generate.c - fused IR to Plan: buffers, the call block, and for every entry and phase the launches of its groups.
 *
 * Four phases of each entry: decode for up to 8 and up to 16 rows of any sequences, prefill of a chunk of one sequence
 * with few wanted rows, and with many. What drafts has the first two. Each group is written by its family's file; this
 * one knows their order.
 */
#include "codegen/gen_int.h"
#include <stdarg.h>
#include <string.h>

enum { FEW = 16, CALL_ALIGN = 64 };

/* ==== Targets ==== */

static const PlanTarget targets[] = {
    {"sm_80", 163 << 10, false, false},  {"sm_86", 99 << 10, false, false},  {"sm_87", 163 << 10, false, false},
    {"sm_89", 99 << 10, false, false},   {"sm_90a", 227 << 10, true, true},  {"sm_100a", 227 << 10, true, false},
    {"sm_103a", 227 << 10, true, false}, {"sm_120a", 99 << 10, true, false}, {"sm_121a", 99 << 10, true, false},
};

bool plan_target(const char *arch, PlanTarget *out) {
    for (size_t i = 0; i < COUNTOF(targets); i++)
        if (strcmp(targets[i].arch, arch) == 0) {
            *out = targets[i];
            return true;
        }
    return false;
}

/* ==== Errors ==== */

void gen_fail(Gen *g, const Node *n, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!g->failed) {
        diag_error(g->m->diag, n ? n->loc : NO_LOC, "%s", text);
        diag_note(g->m->diag, NO_LOC, "--device cpu runs it on the processor");
    }
    g->failed = true;
}

/* ==== Rows ==== */

bool gen_few(const Gen *g, int64_t dim) {
    switch (g->kind) {
    case PHASE_DECODE_8:
    case PHASE_DECODE_16: return true;
    case PHASE_PREFILL: return dim != DIM_T;
    case PHASE_PREFILL_ALL:
    case PHASE_KINDS: break;
    }
    return false;
}

int64_t gen_most(const Gen *g, int64_t dim) {
    return dim == DIM_T ? g->phase->rows : dim == DIM_R ? g->phase->wanted : 1;
}

int gen_tiles(const Gen *g, int64_t dim) {
    return gen_most(g, dim) > 8 ? 2 : 1;
}

CountKind gen_count(int64_t dim) {
    return dim == DIM_T ? COUNT_T : dim == DIM_R ? COUNT_R : COUNT_ONE;
}

/* ==== Groups ==== */

Loc slab_loc(const Gen *g, NodeId id) {
    const Node *n = ir_get(g->g, id);
    const int64_t elems = type_row_elems(&n->type);
    return (Loc){.kind = LOC_ROWS,
                 .buffer = g->slab,
                 .offset = n->slab,
                 .planes = 1,
                 .row_stride = elems,
                 .segment_len = elems,
                 .segment_stride = elems};
}

Members gen_members(Gen *g, Op main) {
    return gen_members_of(g, g->group, main);
}

Members gen_members_of(Gen *g, int group, Op main) {
    Members m = {0};
    for (NodeId id = 1; id < (NodeId)g->g->nodes.n; id++) {
        const Node *n = ir_get(g->g, id);
        if (n->group != group)
            continue;
        if (n->op == main)
            vec_push(g->arena, &m.main, id);
        else
            vec_push(g->arena, &m.after, id);
    }
    return m;
}

const char *weights_label(Gen *g, const NodeVec *mains) {
    const Node *w = ir_get(g->g, ir_get(g->g, mains->v[0])->in[1]);
    const char *name = w->op == OP_WEIGHT ? g->m->weights.v[w->attr[0].i].name : "?";
    return mains->n > 1 ? arena_printf(g->arena, "%s + %d", name, mains->n - 1) : name;
}

static void find_last_reads(Gen *g) {
    for (NodeId id = 1; id < (NodeId)g->g->nodes.n; id++) {
        const Node *n = ir_get(g->g, id);
        for (int i = 0; i < n->n_in; i++) {
            NodeId base = ir_view_base(g->g, n->in[i]);
            g->last_read[base] = n->group > g->last_read[base] ? n->group : g->last_read[base];
        }
    }
    for (int i = 0; i < g->g->outputs.n; i++)
        g->last_read[ir_view_base(g->g, g->g->outputs.v[i].node)] = g->g->groups.n + 1;
}

/* ==== Phases ==== */

static void phase_outputs(Gen *g) {
    for (int i = 0; i < g->g->outputs.n; i++) {
        const Output *o = &g->g->outputs.v[i];
        if (o->kind == OUT_KEEP)
            continue;
        const Node *n = ir_get(g->g, ir_view_base(g->g, o->node));
        if (n->slab < 0) {
            gen_fail(g, n, "output %s is no computed value", o->name);
            return;
        }
        PlanOutput out = {o->kind, o->name, n->type, n->slab};
        vec_push(g->arena, &g->phase->outputs, out);
    }
}

static void generate_phase(Gen *g, PhaseKind kind, const char *name, int64_t rows, int64_t wanted) {
    PlanPhase phase = {.graph = g->g->name,
                       .name = name,
                       .rows = rows < g->o->chunk ? rows : g->o->chunk,
                       .capture = kind == PHASE_DECODE_8 || kind == PHASE_DECODE_16};
    phase.wanted = wanted < phase.rows ? wanted : phase.rows;
    const size_t count = (size_t)g->g->nodes.n;
    g->phase = &phase;
    g->kind = kind;
    g->loc = arena_array(g->arena, count, sizeof *g->loc);
    g->in_planes = arena_array(g->arena, count, sizeof *g->in_planes);
    g->operand = arena_array(g->arena, count, sizeof *g->operand);
    g->scratch.n = g->sorted.n = 0;
    for (NodeId id = 1; id < count; id++)
        if (ir_get(g->g, id)->slab >= 0)
            g->loc[id] = slab_loc(g, id);
    for (g->group = 1; g->group <= g->g->groups.n && !g->failed; g->group++) {
        switch (g->g->groups.v[g->group - 1].family) {
        case FAM_MATMUL: gen_matmul(g); break;
        case FAM_EXPERTS: gen_experts(g); break;
        case FAM_ATTENTION: gen_attention(g); break;
        case FAM_ROWWISE: gen_rowwise(g); break;
        case FAM_COUNT: break;
        }
    }
    if (!g->failed)
        phase_outputs(g);
    vec_push(g->arena, &g->plan->phases, phase);
}

static void generate_graph(Gen *g, const Graph *graph) {
    g->g = graph;
    g->last_read = arena_array(g->arena, (size_t)graph->nodes.n, sizeof *g->last_read);
    find_last_reads(g);
    generate_phase(g, PHASE_DECODE_8, "decode8", 8, 8);
    generate_phase(g, PHASE_DECODE_16, "decode16", FEW, FEW);
    if (g->m->drafts.way && strcmp(graph->name, "draft") == 0) { /* never asked for more rows */
        if (!g->failed)
            gen_guesser(g);
        return;
    }
    generate_phase(g, PHASE_PREFILL, "prefill", g->o->chunk, FEW);
    if (g->o->wanted > FEW)
        generate_phase(g, PHASE_PREFILL_ALL, "prefill_all", g->o->chunk, g->o->wanted);
    if (!g->failed)
        gen_samplers(g);
}

/* ==== The plan ==== */

static int64_t align_up(int64_t at) {
    return (at + CALL_ALIGN - 1) / CALL_ALIGN * CALL_ALIGN;
}

/* The inputs of all graphs that are, or are not, numbers of the host, from `at` on. Where they end. */
static int64_t lay_out_inputs(Gen *g, bool of_host, int64_t at) {
    for (int i = 0; i < g->m->graphs.n; i++) {
        const Graph *graph = g->m->graphs.v[i];
        for (int k = 0; k < graph->inputs.n; k++) {
            const Node *n = ir_get(graph, graph->inputs.v[k]);
            if (plan_input_of_host(&n->type) != of_host || plan_input(g->plan, n->attr[0].s))
                continue;
            PlanInput in = {n->attr[0].s, n->type, at};
            vec_push(g->arena, &g->plan->call.inputs, in);
            at = align_up(at + type_row_elems(&n->type) * 4 * type_rows(&n->type, g->o->chunk, g->o->chunk));
        }
    }
    return at;
}

/* Counts, ids and positions, slots and lengths; behind what the host writes for every call the rows of vectors, which
 * are a thousand times as much and mostly come from another call. */
static void lay_out_call(Gen *g) {
    PlanCall *c = &g->plan->call;
    c->slots = lay_out_inputs(g, true, CALL_ALIGN);
    c->lengths = align_up(c->slots + 4 * g->o->chunk);
    c->bytes = lay_out_inputs(g, false, align_up(c->lengths + 4 * g->plan->slots));
    c->buffer = gen_buffer(g, "call", BUFFER_CALL, c->bytes, -1);
}

static void lay_out_caches(Gen *g) {
    g->cache_k = arena_array(g->arena, (size_t)g->m->caches.n + 1, sizeof *g->cache_k);
    g->cache_v = arena_array(g->arena, (size_t)g->m->caches.n + 1, sizeof *g->cache_v);
    for (int i = 0; i < g->m->caches.n; i++) {
        const Cache *c = &g->m->caches.v[i];
        const KvLayout *l = &c->layout;
        const int64_t k = kv_gpu_plane_bytes(l->k_type, l->heads, l->k_dim, l->capacity);
        const int64_t v = kv_gpu_plane_bytes(l->v_type, l->heads, l->v_dim, l->capacity);
        g->cache_k[i] = gen_buffer(g, c->name, BUFFER_K, k, i);
        g->cache_v[i] = gen_buffer(g, c->name, BUFFER_V, v, i);
    }
}

static int *unknown_buffers(Gen *g) {
    int *v = arena_array(g->arena, (size_t)g->m->weights.n + 1, sizeof *v);
    for (int i = 0; i < g->m->weights.n; i++)
        v[i] = -1;
    return v;
}

Plan *plan_generate(Arena *arena, const Module *m, const PlanTarget *target, const PlanOptions *o) {
    Gen g = {.arena = arena, .m = m, .target = target, .o = o};
    g.plan = arena_alloc(arena, sizeof *g.plan);
    *g.plan = (Plan){.arena = arena,
                     .arch = target->arch,
                     .slots = o->slots ? o->slots : 1,
                     .context = o->context,
                     .chunk = o->chunk};
    g.kernel_by_text = namemap_new(arena);
    g.raw = unknown_buffers(&g);
    g.tiles = unknown_buffers(&g);
    int64_t slab = 0;
    for (int i = 0; i < m->graphs.n; i++)
        slab = m->graphs.v[i]->slab_bytes > slab ? m->graphs.v[i]->slab_bytes : slab;
    lay_out_call(&g);
    g.slab = gen_buffer(&g, "slab", BUFFER_SLAB, slab, -1);
    g.scratch_buffer = gen_buffer(&g, "scratch", BUFFER_SCRATCH, 0, -1);
    g.counters = gen_buffer(&g, "counters", BUFFER_ZERO, 0, -1);
    lay_out_caches(&g);
    for (int i = 0; i < m->graphs.n && !g.failed; i++)
        generate_graph(&g, m->graphs.v[i]);
    g.plan->buffers.v[g.scratch_buffer].bytes = g.scratch_bytes;
    g.plan->buffers.v[g.counters].bytes = g.counter_bytes;
    return g.failed ? NULL : g.plan;
}
