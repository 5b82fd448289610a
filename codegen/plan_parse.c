/* plan_parse.c - the text of a plan back to a plan. Recursive descent, one statement a line; plan_print.c is the
 * inverse, plan_text.h describes the language.
 *
 * The text may be hostile. What a line says is checked on that line, against the lines above it: every count is
 * bounded, every index exists, every offset lies in its buffer, so that what runs a plan need not look again. A mistake
 * is reported where it stands and the rest of its line is skipped, so that one run shows several.
 */
#include "codegen/plan_text_int.h"

#include <string.h>

/* ==== Values ==== */

/* Bytes of a value in the largest call; cut at what no buffer has. */
static int64_t value_bytes(const Type *t, int64_t rows, int64_t wanted) {
    int64_t n = 4 * type_row_elems(t);
    return __builtin_mul_overflow(n, type_rows(t, rows, wanted), &n) || n > 2 * MAX_BUFFER_BYTES ? 2 * MAX_BUFFER_BYTES
                                                                                                 : n;
}

/* NAME : TYPE at OFFSET, of values of 4 bytes an element. at_out: where the offset stands. */
static bool parse_value(Parser *p, const char **name, Type *type, int64_t *offset, SrcLoc *at_out) {
    if (!p_name(p, "a name", name) || !p_expect(p, ":"))
        return false;
    SrcLoc at = p->at;
    if (!p_type(p, true, type))
        return false;
    at.end = p->prev_end;
    if (type->dtype != DT_F32 && type->dtype != DT_I32)
        return p_fail_at(p, at, "values are f32 or i32, this is %s", dtype_name(type->dtype));
    if (!p_expect_word(p, "at"))
        return false;
    *at_out = p->at;
    return p_int(p, "the place of the value", 0, MAX_BUFFER_BYTES, offset);
}

/* ==== Buffers, kernels, the call ==== */

static bool parse_kind(Parser *p, BufferKind *out) {
    if (p->tok != TOK_WORD)
        return p_expected(p, "the kind of a buffer");
    Nearest near = nearest_new(p->str);
    for (int k = 0; k < BUFFER_KINDS; k++) {
        const char *name = buffer_kind_name((BufferKind)k);
        if (p_accept_word(p, name)) {
            *out = (BufferKind)k;
            return true;
        }
        nearest_try(&near, name);
    }
    return p_unknown(p, p->at, "kind of buffer", arena_strndup(p->arena, p->str.s, p->str.n), &near);
}

static bool parse_buffer(Parser *p, PlanReader *r) {
    Plan *plan = r->plan;
    PlanBuffer b = {.index = -1};
    SrcLoc at = p->at, place;
    const char *wanted = arena_printf(p->arena, "b%d", plan->buffers.n);
    int64_t index = -1;
    if (plan->buffers.n == MAX_BUFFERS)
        return p_fail_at(p, at, "a plan has at most %d buffers", MAX_BUFFERS);
    if (!p_expect_word(p, wanted) || !parse_kind(p, &b.kind) || !p_name(p, "the name of a buffer", &b.name) ||
        !p_int(p, "the bytes of the buffer", 0, MAX_BUFFER_BYTES, &b.bytes))
        return false;
    bool indexed = b.kind == BUFFER_RAW || b.kind == BUFFER_TILES || buffer_is_cache(b.kind);
    if (indexed ? !p_expect_word(p, "of") : p_is_word(p, "of"))
        return indexed ? false : p_fail_at(p, p->at, "a buffer of kind %s is of no weight", buffer_kind_name(b.kind));
    if (indexed && !p_int(p, "the index", 0, MAX_WEIGHTS - 1, &index))
        return false;
    b.index = (int)index;
    r->total_bytes += plan_buffer_bytes(plan, &b);
    if (r->total_bytes > MAX_TOTAL_BYTES)
        return p_fail_at(p, at, "this buffer and those above have more than %lld TiB",
                         (long long)(MAX_TOTAL_BYTES >> 40));
    if (!p_end_line(p, &place))
        return false;
    vec_push(p->arena, &plan->buffers, b);
    return true;
}

bool plan_cut(Parser *p, bool *tuned, MatmulCut *cut) {
    const struct {
        const char *word;
        int *number;
        int most;
    } rows[] = {{"groups", &cut->groups, 2},
                {"stages", &cut->stages, MAX_STAGES},
                {"flight", &cut->flight, MAX_STAGES},
                {"partials", &cut->partials, 4}};
    *tuned = p_is_word(p, "tuned");
    if (!p_accept_word(p, "tuned") && !p_accept_word(p, "analytic"))
        return p_expected(p, "tuned or analytic");
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        int64_t n = 0;
        if (!p_expect_word(p, rows[i].word) || !p_int(p, "a part of the cut", 1, rows[i].most, &n))
            return false;
        *rows[i].number = (int)n;
    }
    return true;
}

/* "tuned groups 1 stages 5 flight 3 partials 4 of SHAPE", of a decode matmul. */
static bool parse_shape(Parser *p, PlanKernel *k) {
    if (p->tok != TOK_WORD)
        return true;
    return plan_cut(p, &k->tuned, &k->cut) && p_expect_word(p, "of") && p_path(p, &k->shape);
}

static bool parse_kernel(Parser *p, PlanReader *r) {
    PlanKernel k = {0};
    SrcLoc at = p->at, place;
    int64_t threads = 0, blocks = 0;
    if (r->plan->kernels.n == MAX_KERNELS)
        return p_fail_at(p, at, "a plan has at most %d kernels", MAX_KERNELS);
    if (!plan_kernel_name(p, &k.name))
        return false;
    if (namemap_get(r->kernels, k.name) >= 0)
        return p_fail_at(p, at, "kernel '%s' is declared twice", k.name);
    if (!p_expect_word(p, "from") || !p_path(p, &k.file) || !p_expect_word(p, "threads") ||
        !p_int(p, "the threads of a block", 1, MAX_THREADS, &threads) || !p_expect_word(p, "shared") ||
        !p_int(p, "the shared memory of a block", 0, MAX_SHARED, &k.shared) || !p_expect_word(p, "blocks") ||
        !p_int(p, "the blocks of a multiprocessor", 1, MAX_BLOCKS, &blocks) || !parse_shape(p, &k) ||
        !p_end_line(p, &place))
        return false;
    k.threads = (int)threads;
    k.blocks = (int)blocks;
    namemap_put(r->kernels, k.name, r->plan->kernels.n);
    vec_push(p->arena, &r->plan->kernels, k);
    return true;
}

static bool call_line(Parser *p, void *ctx) {
    PlanReader *r = ctx;
    PlanCall *c = &r->plan->call;
    PlanInput in = {0};
    SrcLoc place, at = p->at;
    if (!p_expect_word(p, "input"))
        return false;
    if (c->inputs.n == MAX_INPUTS_OF_CALL)
        return p_fail_at(p, at, "a call has at most %d inputs", MAX_INPUTS_OF_CALL);
    if (!parse_value(p, &in.name, &in.type, &in.offset, &at))
        return false;
    if (in.offset % 4 || in.offset + value_bytes(&in.type, 1, 1) > c->bytes)
        return p_fail_at(p, at, "the input must lie in the %lld bytes of a call, at a multiple of 4",
                         (long long)c->bytes);
    vec_push(p->arena, &c->inputs, in);
    return p_end_line(p, &place);
}

static bool parse_call(Parser *p, PlanReader *r) {
    PlanCall *c = &r->plan->call;
    SrcLoc at = p->at, place;
    if (r->has_call)
        return p_fail_at(p, at, "a plan has one call");
    if (!plan_buffer_ref(p, r->plan, &c->buffer))
        return false;
    const PlanBuffer *b = &r->plan->buffers.v[c->buffer];
    if (b->kind != BUFFER_CALL)
        return p_fail_at(p, at, "the buffer of a call is of kind call, not %s", buffer_kind_name(b->kind));
    int64_t end = (int64_t)4 * r->plan->slots;
    if (b->bytes < 8 + end)
        return p_fail_at(p, at, "a call needs at least %lld bytes, this buffer has %lld", (long long)(8 + end),
                         (long long)b->bytes);
    if (!p_expect_word(p, "bytes") || !p_int(p, "the bytes of the call", 8 + end, b->bytes, &c->bytes) ||
        !p_expect_word(p, "slots") || !p_int(p, "the place of the slots", 0, c->bytes - 4, &c->slots) ||
        !p_expect_word(p, "lengths") || !p_int(p, "the place of the lengths", 0, c->bytes - end, &c->lengths) ||
        !p_expect(p, "{") || !p_end_line(p, &place))
        return false;
    if (c->slots % 4 || c->lengths % 4)
        return p_fail_at(p, at, "slots and lengths stand at multiples of 4 bytes");
    r->has_call = true;
    return p_block(p, call_line, r);
}

/* ==== Fills ==== */

static bool launch_line(Parser *p, void *ctx) {
    return p_expect_word(p, "launch") && plan_launch(p, ctx);
}

static bool parse_fills(Parser *p, PlanReader *r) {
    SrcLoc at = p->at, place;
    if (r->has_fills)
        return p_fail_at(p, at, "the fills are declared twice");
    r->has_fills = true;
    r->launches = &r->plan->fills;
    r->phase = NULL;
    return p_expect(p, "{") && p_end_line(p, &place) && p_block(p, launch_line, r);
}

/* ==== Weights and tables ==== */

static bool has_staging(const PlanLaunch *l) {
    for (int i = 0; i < l->args.n; i++)
        if (l->args.v[i].kind == ARG_STAGING)
            return true;
    return false;
}

static bool parse_fill_number(Parser *p, const Plan *plan, int *out) {
    SrcLoc at = p->at;
    int64_t n = 0;
    if (!p_int(p, "the number of a fill", 0, MAX_LAUNCHES, &n))
        return false;
    *out = (int)n;
    return n < plan->fills.n ||
           p_fail_at(p, at, "there is no fill %lld; above this line there are %d", (long long)n, plan->fills.n);
}

/* The arguments that the engine sets anew for each piece of a weight: staging, the tiles, rows. */
static bool repacks(const PlanLaunch *l, int tiles) {
    const PlanArg *a = l->args.v;
    return l->args.n >= 3 && a[0].kind == ARG_STAGING && a[1].kind == ARG_BUFFER && a[1].buffer == tiles &&
           a[2].kind == ARG_INT;
}

static bool parse_weight(Parser *p, PlanReader *r) {
    Plan *plan = r->plan;
    PlanWeight w = {.launch = -1};
    SrcLoc at = p->at, place;
    int64_t weight = 0;
    if (plan->weights.n == MAX_WEIGHTS)
        return p_fail_at(p, at, "a plan has at most %d weights", MAX_WEIGHTS);
    if (!p_int(p, "the index of a weight", 0, MAX_WEIGHTS - 1, &weight) || !p_expect_word(p, "to"))
        return false;
    w.weight = (int)weight;
    at = p->at;
    if (!plan_buffer_ref(p, plan, &w.buffer))
        return false;
    const PlanBuffer *b = &plan->buffers.v[w.buffer];
    if ((b->kind != BUFFER_RAW && b->kind != BUFFER_TILES) || b->index != w.weight)
        return p_fail_at(p, at, "b%d does not hold weight %d", w.buffer, w.weight);
    SrcLoc by = p->at;
    if (p_accept_word(p, "by") && !parse_fill_number(p, plan, &w.launch))
        return false;
    if ((b->kind == BUFFER_TILES) != (w.launch >= 0))
        return p_fail_at(p, by, "%s",
                         w.launch >= 0 ? "a raw weight is copied, no fill makes it" : "tiles are made by a fill");
    if (w.launch >= 0 && !repacks(&plan->fills.v[w.launch], w.buffer))
        return p_fail_at(p, by, "fill %d does not begin with staging, b%d and rows", w.launch, w.buffer);
    if (!p_end_line(p, &place))
        return false;
    vec_push(p->arena, &plan->weights, w);
    return true;
}

static bool parse_table(Parser *p, PlanReader *r) {
    Plan *plan = r->plan;
    SrcLoc at = p->at, place;
    int fill = 0;
    if (plan->tables.n == MAX_WEIGHTS)
        return p_fail_at(p, at, "a plan has at most %d tables", MAX_WEIGHTS);
    if (!parse_fill_number(p, plan, &fill))
        return false;
    if (has_staging(&plan->fills.v[fill]))
        return p_fail_at(p, at, "fill %d takes the bytes of a weight, it makes no table", fill);
    if (!p_end_line(p, &place))
        return false;
    vec_push(p->arena, &plan->tables, fill);
    return true;
}

/* ==== Phases ==== */

static bool parse_output(Parser *p, const PlanReader *r, OutputKind kind) {
    PlanPhase *f = r->phase;
    PlanOutput o = {.kind = kind};
    SrcLoc at = p->at, place;
    int slab = plan_only_buffer(r->plan, BUFFER_SLAB);
    if (f->outputs.n == MAX_OUTPUTS)
        return p_fail_at(p, at, "a phase has at most %d outputs", MAX_OUTPUTS);
    if (slab < 0)
        return p_fail_at(p, at, "outputs stand in the slab, of which a plan has one");
    if (!parse_value(p, &o.name, &o.type, &o.offset, &at))
        return false;
    int64_t end = o.offset + value_bytes(&o.type, f->rows, f->wanted), bytes = r->plan->buffers.v[slab].bytes;
    if (o.offset % 4 || end > bytes)
        return p_fail_at(p, at, "the output ends at byte %lld, the slab at %lld; outputs stand at multiples of 4",
                         (long long)end, (long long)bytes);
    vec_push(p->arena, &f->outputs, o);
    return p_end_line(p, &place);
}

static bool phase_line(Parser *p, void *ctx) {
    PlanReader *r = ctx;
    if (p_accept_word(p, "launch"))
        return plan_launch(p, r);
    for (int k = OUT_EMIT; k <= OUT_KEEP; k++)
        if (output_word[k] && p_accept_word(p, output_word[k]))
            return parse_output(p, r, (OutputKind)k);
    return p_expected(p, "launch, emit, tap or '}'");
}

/* Everything that the host writes for the largest call must end in the call block. */
static bool call_holds(Parser *p, const PlanReader *r, SrcLoc at) {
    const PlanCall *c = &r->plan->call;
    const PlanPhase *f = r->phase;
    if (c->slots + 4 * f->rows > c->bytes)
        return p_fail_at(p, at, "the slots of %lld rows do not fit in the call's %lld bytes", (long long)f->rows,
                         (long long)c->bytes);
    for (int i = 0; i < c->inputs.n; i++) {
        const PlanInput *in = &c->inputs.v[i];
        if (in->offset + value_bytes(&in->type, f->rows, f->wanted) > c->bytes)
            return p_fail_at(p, at, "input '%.60s' of %lld rows does not fit in the call's %lld bytes", in->name,
                             (long long)type_rows(&in->type, f->rows, f->wanted), (long long)c->bytes);
    }
    return true;
}

/* Record i of the launch times is the last argument of launch i: the engine reads as many. */
static bool notes_times(Parser *p, const PlanReader *r, SrcLoc at) {
    const PlanPhase *f = r->phase;
    const int times = plan_only_buffer(r->plan, BUFFER_TIMES);
    if (times < 0)
        return p_fail_at(p, at, "times stand in the buffer of kind times, of which a plan has one");
    if (r->plan->buffers.v[times].bytes < (int64_t)f->launches.n * PLAN_TIMES_BYTES)
        return p_fail_at(p, at, "b%d has %lld bytes, the times of %d launches need %lld", times,
                         (long long)r->plan->buffers.v[times].bytes, f->launches.n,
                         (long long)f->launches.n * PLAN_TIMES_BYTES);
    for (int i = 0; i < f->launches.n; i++) {
        const PlanLaunch *l = &f->launches.v[i];
        const PlanArg *a = l->args.n ? &l->args.v[l->args.n - 1] : NULL;
        if (!a || a->kind != ARG_BUFFER || a->buffer != times || a->value != (int64_t)i * PLAN_TIMES_BYTES)
            return p_fail_at(p, at, "the last argument of launch %d of a timed phase is not b%d+%lld", i, times,
                             (long long)i * PLAN_TIMES_BYTES);
    }
    return true;
}

static bool parse_phase(Parser *p, PlanReader *r) {
    Plan *plan = r->plan;
    PlanPhase f = {0};
    SrcLoc at = p->at, place;
    if (!r->has_call)
        return p_fail_at(p, at, "the call is declared above the phases");
    if (plan->phases.n == MAX_PHASES)
        return p_fail_at(p, at, "a plan has at most %d phases", MAX_PHASES);
    if (!p_name(p, "the name of a phase", &f.name) || !p_expect_word(p, "of") ||
        !p_name(p, "the name of a graph", &f.graph) || !p_expect_word(p, "rows") ||
        !p_int(p, "the rows of a call", 1, MAX_ROWS, &f.rows) || !p_expect_word(p, "wanted") ||
        !p_int(p, "the wanted rows of a call", 1, MAX_ROWS, &f.wanted))
        return false;
    for (int i = 0; i < plan->phases.n; i++)
        if (strcmp(plan->phases.v[i].name, f.name) == 0 && strcmp(plan->phases.v[i].graph, f.graph) == 0)
            return p_fail_at(p, at, "phase '%.60s' of '%.60s' is declared twice", f.name, f.graph);
    f.capture = p_accept_word(p, "capture");
    f.timed = p_accept_word(p, "timed");
    if (!p_expect(p, "{") || !p_end_line(p, &place))
        return false;
    r->phase = &f;
    r->launches = &f.launches;
    bool whole = call_holds(p, r, at) && p_block(p, phase_line, r) && (!f.timed || notes_times(p, r, at));
    r->phase = NULL;
    if (whole)
        vec_push(p->arena, &plan->phases, f);
    return whole;
}

/* ==== Samplers ==== */

/* "states b4": a buffer of this kind that is large enough. */
static bool parse_sampler_buffer(Parser *p, const PlanReader *r, const char *word, BufferKind kind, int64_t bytes,
                                 int *out) {
    if (!p_expect_word(p, word))
        return false;
    SrcLoc at = p->at;
    if (!plan_buffer_ref(p, r->plan, out))
        return false;
    const PlanBuffer *b = &r->plan->buffers.v[*out];
    if (b->kind != kind)
        return p_fail_at(p, at, "b%d is of kind %s, not %s", *out, buffer_kind_name(b->kind), buffer_kind_name(kind));
    return b->bytes >= bytes || p_fail_at(p, at, "b%d has %lld bytes, %s of a sampler needs %lld", *out,
                                          (long long)b->bytes, word, (long long)bytes);
}

static bool parse_sampler_buffers(Parser *p, const PlanReader *r, PlanSampler *s) {
    const Plan *plan = r->plan;
    const int64_t states = plan->slots * (int64_t)PLAN_SAMPLING_BYTES + 4 * s->rows,
                  recent = plan->slots * plan_recent_bytes(s->vocab, plan->context), ring = 4 * PLAN_RING * s->rows;
    return (s->way != PICK_NEXT || (parse_sampler_buffer(p, r, "states", BUFFER_SAMPLER, states, &s->states) &&
                                    parse_sampler_buffer(p, r, "recent", BUFFER_SAMPLER, recent, &s->recent))) &&
           parse_sampler_buffer(p, r, "ring", BUFFER_HOST, ring, &s->ring);
}

static bool parse_picks(Parser *p, PlanReader *r, PickWay way) {
    Plan *plan = r->plan;
    PlanSampler s = {.way = way, .states = -1, .recent = -1};
    SrcLoc at = p->at, place;
    if (plan->samplers.n == MAX_PHASES)
        return p_fail_at(p, at, "a plan has at most %d samplers", MAX_PHASES);
    if (!p_expect_word(p, "of") || !p_name(p, "the name of a graph", &s.graph) || !p_expect_word(p, "rows") ||
        !p_int(p, "the rows of a call", 1, MAX_SAMPLED, &s.rows) || !p_expect_word(p, "vocabulary") ||
        !p_int(p, "the tokens there are", 1, MAX_VOCABULARY, &s.vocab))
        return false;
    for (int i = 0; i < plan->samplers.n; i++)
        if (plan->samplers.v[i].way == way && strcmp(plan->samplers.v[i].graph, s.graph) == 0)
            return p_fail_at(p, at, "there are two %ss of '%.60s'", pick_way_name(way), s.graph);
    if (!parse_sampler_buffers(p, r, &s) || !p_expect(p, "{") || !p_end_line(p, &place))
        return false;
    PlanPhase bounds = {.rows = s.rows, .wanted = s.rows};
    r->phase = &bounds;
    r->launches = &s.launches;
    const bool whole = p_block(p, launch_line, r);
    r->phase = NULL;
    if (whole)
        vec_push(p->arena, &plan->samplers, s);
    return whole;
}

static bool parse_sampler(Parser *p, PlanReader *r) {
    return parse_picks(p, r, PICK_NEXT);
}

static bool parse_checker(Parser *p, PlanReader *r) {
    return parse_picks(p, r, PICK_CHECK);
}

static bool parse_guesser(Parser *p, PlanReader *r) {
    return parse_picks(p, r, PICK_GUESS);
}

/* ==== The plan ==== */

static bool parse_head(Parser *p, Plan *plan) {
    SrcLoc place;
    int64_t slots = 0;
    int sm;
    bool only_there;
    p_skip_empty(p);
    if (!p_expect_word(p, "plan"))
        return false;
    SrcLoc at = p->at;
    if (!p_name(p, "an architecture", &plan->arch))
        return false;
    if (!plan_arch(plan->arch, &sm, &only_there))
        return p_fail_at(p, at, "'%.60s' is no architecture; they are called sm_86, sm_90a, ..", plan->arch);
    if (!p_expect_word(p, "slots") || !p_int(p, "the slots", 1, MAX_SLOTS, &slots) || !p_expect_word(p, "context") ||
        !p_int(p, "the context", 1, MAX_CONTEXT, &plan->context) || !p_expect_word(p, "chunk") ||
        !p_int(p, "the chunk", 1, MAX_ROWS, &plan->chunk))
        return false;
    plan->slots = (int)slots;
    return p_end_line(p, &place);
}

static const struct {
    const char *word;
    bool (*parse)(Parser *, PlanReader *);
} declarations[] = {{"buffer", parse_buffer},  {"kernel", parse_kernel},   {"call", parse_call},
                    {"fills", parse_fills},    {"weight", parse_weight},   {"table", parse_table},
                    {"phase", parse_phase},    {"sampler", parse_sampler}, {"checker", parse_checker},
                    {"guesser", parse_guesser}};

static bool parse_declaration(Parser *p, PlanReader *r) {
    for (size_t i = 0; i < COUNTOF(declarations); i++)
        if (p_accept_word(p, declarations[i].word))
            return declarations[i].parse(p, r);
    return p_expected(p, "buffer, kernel, call, fills, weight, table, phase, sampler, checker or guesser");
}

static bool at_declaration(const Parser *p) {
    for (size_t i = 0; i < COUNTOF(declarations); i++)
        if (p_is_word(p, declarations[i].word))
            return true;
    return false;
}

/* Every fill is of exactly one weight, whose bytes it may take, or a table. */
static bool fills_are_used(Parser *p, const Plan *plan) {
    bool *used = arena_array(p->arena, (size_t)plan->fills.n + 1, sizeof *used);
    bool sound = true;
    for (int i = 0; i < plan->weights.n + plan->tables.n; i++) {
        int fill = i < plan->weights.n ? plan->weights.v[i].launch : plan->tables.v[i - plan->weights.n];
        if (fill < 0)
            continue;
        if (used[fill])
            sound = p_fail_at(p, p->at, "fill %d is used twice", fill);
        used[fill] = true;
    }
    for (int i = 0; i < plan->fills.n; i++)
        if (!used[i])
            sound = p_fail_at(p, p->at, "fill %d is of no weight and no table", i);
    return sound;
}

Plan *plan_parse(Arena *arena, Diag *diag, const char *name, const char *text, size_t len) {
    Parser p;
    int errors = diag_errors(diag);
    PlanReader r = {.plan = arena_alloc(arena, sizeof(Plan)), .kernels = namemap_new(arena)};
    r.plan->arena = arena;
    if (!p_begin(&p, arena, diag, name, text, len) || !parse_head(&p, r.plan))
        return NULL;
    for (p_skip_empty(&p); p.tok != TOK_END && !diag_full(diag); p_skip_empty(&p))
        if (!parse_declaration(&p, &r))
            do
                p_skip_line(&p);
            while (p.tok != TOK_END && !at_declaration(&p));
    if (diag_errors(diag) > errors)
        return NULL;
    if (!r.has_call || r.plan->phases.n == 0) {
        p_fail_at(&p, p.at, "the plan has no %s", r.has_call ? "phase" : "call");
        return NULL;
    }
    return fills_are_used(&p, r.plan) ? r.plan : NULL;
}

bool plan_attach_kernel(Plan *p, const char *name, const char *text) {
    for (int i = 0; i < p->kernels.n; i++)
        if (strcmp(p->kernels.v[i].name, name) == 0) {
            p->kernels.v[i].text = text;
            return true;
        }
    return false;
}
