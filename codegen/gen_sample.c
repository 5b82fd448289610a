/* gen_sample.c - picking tokens where the logits are: a launch of sample.cu, and one of advance.cu that makes the call
 * block that of the next step.
 *
 * Of a graph whose inputs are tokens, pos and rows, and that emits logits; the vocabulary must be one that sample.cu
 * takes. Other graphs get none, and their logits are picked from on the host.
 */
#include "codegen/gen_int.h"

#include <string.h>

enum { SAMPLED_ROWS = 16, SAMPLE_THREADS = 1024, MOST_VOCAB = 1 << 19 };

/* Whether the inputs are those that advance.cu knows to advance. */
static bool plain_inputs(const Graph *g) {
    static const char *const known[] = {"tokens", "pos", "rows"};
    size_t n = 0;
    for (int i = 0; i < g->inputs.n; i++)
        for (size_t k = 0; k < COUNTOF(known); k++)
            n += strcmp(ir_get(g, g->inputs.v[i])->attr[0].s, known[k]) == 0;
    return g->inputs.n == COUNTOF(known) && n == COUNTOF(known);
}

static void sample_launch(Gen *g, PlanSampler *s, NodeId logits, PlanArg ids) {
    const char *defines = arena_printf(g->arena, "#define SAMPLE_VOCAB %lld\n#define SAMPLE_THREADS %d\n",
                                       (long long)s->vocab, SAMPLE_THREADS);
    const int kernel = gen_kernel(g, "sample.cu", "SAMPLE_NAME", "sample", defines, NULL, 0, SAMPLE_THREADS, 0, 1);
    const PlanGrid grid = {.x = 1, .y = 1, .z = 1, .rows = COUNT_R, .axis = 0, .per = 1};
    PlanLaunch *l = gen_launch(g, &s->launches, kernel, grid, "sample", ir_get(g->g, logits)->loc);
    const Loc at = slab_loc(g, logits);
    launch_arg(g, l, arg_loc(&at));
    launch_arg(g, l, arg_at(s->states, 0));
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, arg_count(g, DIM_R));
    launch_arg(g, l, ids);
    launch_arg(g, l, arg_input(g, "tokens"));
    l->cost.bytes_a_row = 4 * s->vocab;
}

static void advance_launch(Gen *g, PlanSampler *s, NodeId logits, PlanArg ids) {
    const char *defines =
        arena_printf(g->arena, "#define ADVANCE_ROWS %lld\n#define ADVANCE_RING %d\n", (long long)s->rows, PLAN_RING);
    const int kernel = gen_kernel(g, "advance.cu", "ADVANCE_NAME", "advance", defines, NULL, 0, 32, 0, 1);
    PlanLaunch *l =
        gen_launch(g, &s->launches, kernel, (PlanGrid){.x = 1, .y = 1, .z = 1}, "advance", ir_get(g->g, logits)->loc);
    launch_arg(g, l, arg_count(g, DIM_T));
    launch_arg(g, l, arg_input(g, "pos"));
    launch_arg(g, l, arg_input(g, "rows"));
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, arg_lengths(g));
    launch_arg(g, l, ids);
    launch_arg(g, l, arg_at(s->ring, 0));
    launch_arg(g, l, gen_counters(g));
}

void gen_sampler(Gen *g) {
    const NodeId output = ir_find_output(g->g, OUT_EMIT, "logits");
    if (!output || !plain_inputs(g->g))
        return;
    const NodeId logits = ir_view_base(g->g, output);
    const Type *t = ir_type(g->g, output);
    if (t->rank != 2 || t->dtype != DT_F32 || t->dim[0] != DIM_R || t->dim[1] > MOST_VOCAB)
        return;
    const int64_t slots = g->plan->slots;
    PlanSampler s = {
        .graph = g->g->name, .rows = g->o->wanted < SAMPLED_ROWS ? g->o->wanted : SAMPLED_ROWS, .vocab = t->dim[1]};
    s.states = gen_buffer(g, "sampling", BUFFER_SAMPLER, slots * PLAN_SAMPLING_BYTES + 4 * s.rows, -1);
    s.recent = gen_buffer(g, "recent tokens", BUFFER_SAMPLER, slots * plan_recent_bytes(s.vocab, g->o->context), -1);
    s.ring = gen_buffer(g, "picked tokens", BUFFER_HOST, 4 * PLAN_RING * s.rows, -1);
    const PlanArg ids = arg_at(s.states, slots * PLAN_SAMPLING_BYTES);
    g->group = 0;
    sample_launch(g, &s, logits, ids);
    advance_launch(g, &s, logits, ids);
    vec_push(g->arena, &g->plan->samplers, s);
}
