/* gen_sample.c - picking tokens where the logits are: a launch of sample.cu, and one of advance.cu that makes the call
 * block that of the next step, where a drafter's guesses are checked of settle.cu, and in a drafter of guess.cu.
 *
 * Of a graph whose inputs are tokens, pos and rows, and that emits logits; the vocabulary must be one that sample.cu
 * takes. Other graphs get none, and their logits are picked from on the host.
 */
#include "codegen/gen_int.h"

#include <string.h>

enum { SAMPLED_ROWS = 16, SAMPLE_THREADS = 1024, GUESS_THREADS = 256, MOST_VOCAB = 1 << 19 };

/* Whether the inputs are those that advance.cu knows to advance. */
static bool plain_inputs(const Graph *g) {
    static const char *const known[] = {"tokens", "pos", "rows"};
    size_t n = 0;
    for (int i = 0; i < g->inputs.n; i++)
        for (size_t k = 0; k < COUNTOF(known); k++)
            n += strcmp(ir_get(g, g->inputs.v[i])->attr[0].s, known[k]) == 0;
    return g->inputs.n == COUNTOF(known) && n == COUNTOF(known);
}

/* What launches of a sampler share. */
typedef struct Picking {
    NodeId logits;
    PlanArg states, ids, next;        /* next: where the call behind it reads tokens; or null */
    PlanArg guesses, own, own_recent; /* null: each row is of another sequence */
} Picking;

static void sample_launch(Gen *g, PlanSampler *s, const Picking *p) {
    const char *defines = arena_printf(g->arena, "#define SAMPLE_VOCAB %lld\n#define SAMPLE_THREADS %d\n",
                                       (long long)s->vocab, SAMPLE_THREADS);
    const int kernel = gen_kernel(g, "sample.cu", "SAMPLE_NAME", "sample", defines, NULL, 0, SAMPLE_THREADS, 0, 1);
    const int64_t dim = ir_type(g->g, p->logits)->dim[0];
    const PlanGrid grid = {.x = 1, .y = 1, .z = 1, .rows = gen_count(dim), .axis = 0, .per = 1};
    PlanLaunch *l = gen_launch(g, &s->launches, kernel, grid, "sample", ir_get(g->g, p->logits)->loc);
    const Loc at = slab_loc(g, p->logits);
    launch_arg(g, l, arg_loc(&at));
    launch_arg(g, l, p->states);
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, arg_count(g, dim));
    launch_arg(g, l, p->ids);
    launch_arg(g, l, p->next);
    launch_arg(g, l, p->guesses);
    launch_arg(g, l, p->own);
    launch_arg(g, l, p->own_recent);
    launch_arg(g, l, arg_integer(plan_recent_bytes(s->vocab, g->o->context) / 4));
    l->cost.bytes_a_row = 4 * s->vocab;
}

static void advance_launch(Gen *g, PlanSampler *s, const Picking *p) {
    const char *defines =
        arena_printf(g->arena, "#define ADVANCE_ROWS %lld\n#define ADVANCE_RING %d\n", (long long)s->rows, PLAN_RING);
    const int kernel = gen_kernel(g, "advance.cu", "ADVANCE_NAME", "advance", defines, NULL, 0, 32, 0, 1);
    PlanLaunch *l = gen_launch(g, &s->launches, kernel, (PlanGrid){.x = 1, .y = 1, .z = 1}, "advance",
                               ir_get(g->g, p->logits)->loc);
    launch_arg(g, l, arg_count(g, DIM_T));
    launch_arg(g, l, arg_input(g, "pos"));
    launch_arg(g, l, arg_input(g, "rows"));
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, arg_lengths(g));
    launch_arg(g, l, p->ids);
    launch_arg(g, l, arg_at(s->ring, 0));
    launch_arg(g, l, gen_counters(g));
}

static void settle_launch(Gen *g, PlanSampler *s, const Picking *p) {
    const char *defines = arena_printf(
        g->arena,
        "#define SETTLE_ROWS %lld\n#define SETTLE_RING %d\n#define SETTLE_THREADS %d\n#define SAMPLE_VOCAB %lld\n",
        (long long)s->rows, PLAN_RING, SAMPLE_THREADS, (long long)s->vocab);
    const int kernel = gen_kernel(g, "settle.cu", "SETTLE_NAME", "settle", defines, NULL, 0, SAMPLE_THREADS, 0, 1);
    const PlanGrid grid = {.x = 1, .y = 1, .z = 1, .rows = gen_count(DIM_R), .axis = 0, .per = 1};
    PlanLaunch *l = gen_launch(g, &s->launches, kernel, grid, "settle", ir_get(g->g, p->logits)->loc);
    launch_arg(g, l, arg_count(g, DIM_R));
    launch_arg(g, l, p->guesses);
    launch_arg(g, l, arg_slots(g));
    launch_arg(g, l, p->ids);
    launch_arg(g, l, p->states);
    launch_arg(g, l, p->own);
    launch_arg(g, l, arg_at(s->ring, 0));
    launch_arg(g, l, gen_counters(g));
}

/* The guesses of a drafter's call; of a chain the next call's vector. */
static void guess_launch(Gen *g, PlanSampler *s, const Picking *p, NodeId vector) {
    const int64_t width = vector ? type_row_elems(ir_type(g->g, vector)) : 0;
    const char *defines = arena_printf(
        g->arena,
        "#define GUESS_ROWS %lld\n#define GUESS_RING %d\n#define GUESS_VECTOR %lld\n#define GUESS_THREADS %d\n",
        (long long)s->rows, PLAN_RING, (long long)width, GUESS_THREADS);
    const int kernel = gen_kernel(g, "guess.cu", "GUESS_NAME", "guess", defines, NULL, 0, GUESS_THREADS, 0, 1);
    PlanLaunch *l =
        gen_launch(g, &s->launches, kernel, (PlanGrid){.x = 1, .y = 1, .z = 1}, "guess", ir_get(g->g, p->logits)->loc);
    launch_arg(g, l, arg_count(g, ir_type(g->g, p->logits)->dim[0]));
    launch_arg(g, l, p->ids);
    launch_arg(g, l, arg_at(s->ring, 0));
    launch_arg(g, l, gen_counters(g));
    launch_arg(g, l, arg_input(g, "tokens"));
    launch_arg(g, l, arg_at(g->plan->call.buffer, PLAN_CALL_MADE));
    const Loc from = vector ? slab_loc(g, ir_view_base(g->g, vector)) : (Loc){0};
    launch_arg(g, l, vector ? arg_loc(&from) : arg_null());
    launch_arg(g, l, vector ? arg_input(g, "g") : arg_null());
}

/* A sampler's ring, and the launches that all have. */
static PlanSampler new_sampler(Gen *g, PickWay way, int64_t vocab) {
    PlanSampler s = {.graph = g->g->name,
                     .way = way,
                     .rows = g->o->wanted < SAMPLED_ROWS ? g->o->wanted : SAMPLED_ROWS,
                     .vocab = vocab,
                     .states = -1,
                     .recent = -1};
    s.ring = gen_buffer(g, "picked tokens", BUFFER_HOST, 4 * PLAN_RING * s.rows, -1);
    return s;
}

static void next_sampler(Gen *g, NodeId logits, int64_t vocab, PlanArg *states) {
    const int64_t slots = g->plan->slots;
    PlanSampler s = new_sampler(g, PICK_NEXT, vocab);
    s.states = gen_buffer(g, "sampling", BUFFER_SAMPLER, slots * PLAN_SAMPLING_BYTES + 4 * s.rows, -1);
    s.recent = gen_buffer(g, "recent tokens", BUFFER_SAMPLER, slots * plan_recent_bytes(vocab, g->o->context), -1);
    *states = arg_at(s.states, 0);
    const Picking p = {.logits = logits,
                       .states = *states,
                       .ids = arg_at(s.states, slots * PLAN_SAMPLING_BYTES),
                       .next = arg_input(g, "tokens"),
                       .guesses = arg_null(),
                       .own = arg_null(),
                       .own_recent = arg_null()};
    sample_launch(g, &s, &p);
    advance_launch(g, &s, &p);
    vec_push(g->arena, &g->plan->samplers, s);
}

static void check_sampler(Gen *g, NodeId logits, int64_t vocab, PlanArg states) {
    PlanSampler s = new_sampler(g, PICK_CHECK, vocab);
    const int own = gen_buffer(g, "sampling of rows", BUFFER_SAMPLER, s.rows * (PLAN_SAMPLING_BYTES + 4), -1);
    const int recent =
        gen_buffer(g, "recent tokens of rows", BUFFER_SAMPLER, s.rows * plan_recent_bytes(vocab, g->o->context), -1);
    const Picking p = {.logits = logits,
                       .states = states,
                       .ids = arg_at(own, s.rows * PLAN_SAMPLING_BYTES),
                       .next = arg_null(),
                       .guesses = arg_input(g, "tokens"),
                       .own = arg_at(own, 0),
                       .own_recent = arg_at(recent, 0)};
    sample_launch(g, &s, &p);
    settle_launch(g, &s, &p);
    vec_push(g->arena, &g->plan->samplers, s);
}

/* Logits that sample.cu can pick from; 0: there are none. */
static NodeId find_logits(const Gen *g) {
    const NodeId output = ir_find_output(g->g, OUT_EMIT, "logits"), id = output ? ir_view_base(g->g, output) : 0;
    const Type *t = id ? ir_type(g->g, id) : NULL;
    return t && t->rank == 2 && t->dtype == DT_F32 && t->dim[1] <= MOST_VOCAB ? id : 0;
}

void gen_guesser(Gen *g) {
    const NodeId logits = find_logits(g), vector = ir_find_output(g->g, OUT_EMIT, "g");
    if (!logits)
        return;
    g->group = 0;
    PlanSampler s = new_sampler(g, PICK_GUESS, ir_type(g->g, logits)->dim[1]);
    const Picking p = {.logits = logits,
                       .states = arg_null(),
                       .ids = arg_at(gen_buffer(g, "guesses", BUFFER_SAMPLER, 4 * s.rows, -1), 0),
                       .next = vector ? arg_input(g, "tokens") : arg_null(),
                       .guesses = arg_null(),
                       .own = arg_null(),
                       .own_recent = arg_null()};
    sample_launch(g, &s, &p);
    guess_launch(g, &s, &p, vector);
    vec_push(g->arena, &g->plan->samplers, s);
}

void gen_samplers(Gen *g) {
    const NodeId logits = find_logits(g);
    if (!logits || !plain_inputs(g->g) || ir_type(g->g, logits)->dim[0] != DIM_R)
        return;
    const int64_t vocab = ir_type(g->g, logits)->dim[1];
    g->group = 0;
    PlanArg states;
    next_sampler(g, logits, vocab, &states);
    if (g->m->drafts.way)
        check_sampler(g, logits, vocab, states);
}
