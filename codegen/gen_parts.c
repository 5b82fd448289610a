/* gen_parts.c - what launches are made of: buffers, their arguments, kernels. */
#include "codegen/gen_int.h"
#include <string.h>

/* ==== Buffers ==== */

int gen_buffer(Gen *g, const char *name, BufferKind kind, int64_t bytes, int index) {
    PlanBuffer b = {name, kind, bytes, index};
    vec_push(g->arena, &g->plan->buffers, b);
    return g->plan->buffers.n - 1;
}

int gen_raw(Gen *g, int weight) {
    if (g->raw[weight] >= 0)
        return g->raw[weight];
    const Weight *w = &g->m->weights.v[weight];
    const int64_t bytes = (int64_t)dtype_row_bytes(w->type.dtype, type_row_elems(&w->type));
    g->raw[weight] = gen_buffer(g, w->name, BUFFER_RAW, bytes, weight);
    PlanWeight p = {weight, g->raw[weight], -1};
    vec_push(g->arena, &g->plan->weights, p);
    return g->raw[weight];
}

int gen_tiles_of(Gen *g, int weight) {
    if (g->tiles[weight] >= 0)
        return g->tiles[weight];
    const Weight *w = &g->m->weights.v[weight];
    const int rank = w->type.rank;
    const int64_t k = w->type.dim[rank - 1], rows = w->type.dim[rank - 2], matrices = rank == 3 ? w->type.dim[0] : 1;
    const DTypeInfo *t = dtype_info(w->type.dtype);
    const int64_t bytes = dtype_tile_bytes(w->type.dtype, rows, k);
    g->tiles[weight] = gen_buffer(g, w->name, BUFFER_TILES, matrices * bytes, weight);
    char *defines = arena_printf(g->arena, "#define REPACK_TYPE %s\n", t->name);
    for (char *c = defines + strlen("#define REPACK_TYPE "); *c; c++)
        *c = *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
    const int kernel = gen_kernel(g, "repack.cu", "REPACK_NAME", "repack", defines, NULL, 0, 128, 0, 16);
    const int64_t tiles = bytes / t->tile_bytes;
    PlanGrid grid = {.x = (tiles + 3) / 4, .y = matrices, .z = 1};
    PlanLaunch *l = gen_launch(g, &g->plan->fills, kernel, grid, w->name, w->loc);
    l->group = 0;
    launch_arg(g, l, (PlanArg){ARG_STAGING, -1, 0});
    launch_arg(g, l, arg_at(g->tiles[weight], 0));
    launch_arg(g, l, arg_integer(rows));
    launch_arg(g, l, arg_integer(k));
    PlanWeight p = {weight, g->tiles[weight], g->plan->fills.n - 1};
    vec_push(g->arena, &g->plan->weights, p);
    return g->tiles[weight];
}

/* factors: weight or -1. */
static int turns_table(Gen *g, double base, double scale, int64_t dims, int factors) {
    char base_text[32], scale_text[32];
    format_f64(base_text, base);
    format_f64(scale_text, scale);
    const char *factor_name = factors >= 0 ? g->m->weights.v[factors].name : "";
    const char *name = arena_printf(g->arena, "rope %s %s %lld%s%s", base_text, scale_text, (long long)dims,
                                    factors >= 0 ? " " : "", factor_name);
    for (int i = 0; i < g->tables.n; i++)
        if (strcmp(g->plan->buffers.v[g->tables.v[i]].name, name) == 0)
            return g->tables.v[i];
    const int buffer = gen_buffer(g, name, BUFFER_TABLE, dims / 2 * 8, -1);
    vec_push(g->arena, &g->tables, buffer);
    const char *defines =
        arena_printf(g->arena, "#define ROPE_PAIRS %lld\n#define ROPE_BASE (double)%s\n#define ROPE_SCALE (double)%s\n",
                     (long long)(dims / 2), base_text, scale_text);
    const int kernel = gen_kernel(g, "rope_table.cu", "ROPE_NAME", "rope_table", defines, NULL, 0, 128, 0, 1);
    PlanArg from = arg_null();
    if (factors >= 0 && g->m->weights.v[factors].type.dtype != DT_F32)
        gen_fail(g, NULL, "the factors of rope, \"%s\", must be f32 on a GPU", factor_name);
    if (factors >= 0)
        from = arg_at(gen_raw(g, factors), 0);
    PlanLaunch *l =
        gen_launch(g, &g->plan->fills, kernel, (PlanGrid){.x = (dims / 2 + 127) / 128, .y = 1, .z = 1}, name, NO_LOC);
    l->group = 0;
    launch_arg(g, l, arg_at(buffer, 0));
    launch_arg(g, l, from);
    vec_push(g->arena, &g->plan->tables, g->plan->fills.n - 1);
    return buffer;
}

bool gen_rope_turns(Gen *g, const Node *rope, int *table) {
    int factors = -1;
    if (rope->n_in == 3) {
        const Node *f = ir_get(g->g, rope->in[2]);
        if (f->op != OP_WEIGHT) {
            gen_fail(g, rope, "the factors of rope must be a weight on a GPU");
            return false;
        }
        factors = (int)f->attr[0].i;
    }
    *table = turns_table(g, rope->attr[0].f, rope->attr[2].f, rope->attr[1].i, factors);
    return true;
}

/* The lowest gap among what is still needed: also by the group ahead, beside which an early one runs. */
int64_t gen_scratch(Gen *g, int64_t bytes, int last) {
    enum { ALIGN = 256 };
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    int64_t at = 0;
    int where = 0, kept = 0;
    const int oldest = g->group - ir_runs_beside(g->g, g->group);
    for (int i = 0; i < g->scratch.n; i++)
        if (g->scratch.v[i].last >= oldest)
            g->scratch.v[kept++] = g->scratch.v[i];
    g->scratch.n = kept;
    while (where < kept && at + bytes > g->scratch.v[where].at) {
        at = g->scratch.v[where].at + g->scratch.v[where].bytes;
        where++;
    }
    ScratchBlock b = {at, bytes, last};
    vec_push(g->arena, &g->scratch, b);
    for (int i = g->scratch.n - 1; i > where; i--) {
        g->scratch.v[i] = g->scratch.v[i - 1];
        g->scratch.v[i - 1] = b;
    }
    g->scratch_bytes = at + bytes > g->scratch_bytes ? at + bytes : g->scratch_bytes;
    return at;
}

PlanArg gen_counters(Gen *g) {
    PlanArg a = arg_at(g->counters, g->counter_bytes);
    g->counter_bytes += 16; /* of tail.cu 8, and more of attention_pipeline.cu */
    return a;
}

/* ==== Arguments ==== */

PlanArg arg_at(int buffer, int64_t offset) {
    return (PlanArg){ARG_BUFFER, buffer, offset};
}

PlanArg arg_null(void) {
    return (PlanArg){ARG_NULL, -1, 0};
}

PlanArg arg_integer(int64_t v) {
    return (PlanArg){ARG_INT, -1, v};
}

PlanArg arg_loc(const Loc *l) {
    return arg_at(l->buffer, l->offset);
}

PlanArg arg_input(const Gen *g, const char *name) {
    const PlanInput *in = plan_input(g->plan, name);
    if (!in)
        ICE("no input %s", name);
    return arg_at(g->plan->call.buffer, in->offset);
}

PlanArg arg_count(const Gen *g, int64_t dim) {
    return arg_at(g->plan->call.buffer, dim == DIM_R ? 4 : 0);
}

PlanArg arg_ahead(const Gen *g) {
    return arg_at(g->plan->call.buffer, PLAN_CALL_AHEAD);
}

PlanArg arg_slots(const Gen *g) {
    return arg_at(g->plan->call.buffer, g->plan->call.slots);
}

PlanArg arg_lengths(const Gen *g) {
    return arg_at(g->plan->call.buffer, g->plan->call.lengths);
}

PlanArg arg_value(Gen *g, NodeId id) {
    const Node *n = ir_get(g->g, id);
    if (n->op == OP_INPUT)
        return arg_input(g, n->attr[0].s);
    if (g->loc[id].kind != LOC_ROWS) {
        gen_fail(g, n, "%s is computed where it is used as an index: no kernel can do that", n->name);
        return arg_null();
    }
    return arg_loc(&g->loc[id]);
}

/* ==== Kernels and launches ==== */

const char *const plan_options[] = {
    "--std=c++17",
    "--fmad=false", /* only what is written as multiply_add is contracted: the same bits in every variant of a kernel */
};
const int n_plan_options = COUNTOF(plan_options);

/* Of what decides a kernel's text; the texts it includes are the same in all. */
static uint64_t kernel_hash(const char *file, const char *defines, const Body *bodies, int n_bodies, int64_t shared,
                            uint64_t seed) {
    uint64_t h = hash_bytes(file, strlen(file) + 1, seed);
    h = hash_bytes(defines, strlen(defines) + 1, h);
    for (int i = 0; i < n_bodies; i++)
        h = hash_bytes(bodies[i].text, strlen(bodies[i].text) + 1, h);
    return hash_bytes(&shared, sizeof shared, h);
}

int gen_kernel(Gen *g, const char *file, const char *name_macro, const char *name, const char *defines,
               const Body *bodies, int n_bodies, int threads, int64_t shared, int blocks) {
    char *key = arena_printf(g->arena, "%016llx%016llx",
                             (unsigned long long)kernel_hash(file, defines, bodies, n_bodies, shared, 1),
                             (unsigned long long)kernel_hash(file, defines, bodies, n_bodies, shared, 2));
    const int known = namemap_get(g->kernel_by_text, key);
    if (known >= 0)
        return known;
    const int number = g->plan->kernels.n;
    PlanKernel k = {.name = arena_printf(g->arena, "%s_%d", name, number),
                    .file = file,
                    .threads = threads,
                    .shared = shared,
                    .blocks = blocks};
    k.text = arena_printf(g->arena, "#define %s %s\n%s", name_macro, k.name,
                          kernel_expand(g->arena, file, defines, bodies, n_bodies));
    vec_push(g->arena, &g->plan->kernels, k);
    namemap_put(g->kernel_by_text, key, number);
    return number;
}

void gen_line(const Gen *g, Buf *to, SrcLoc at) {
    if (at.line > 0)
        buf_printf(to, "#line %d \"%s\"\n", at.line, diag_source_name(g->m->diag, at.file));
}

PlanLaunch *gen_launch(Gen *g, LaunchVec *to, int kernel, PlanGrid grid, const char *label, SrcLoc loc) {
    PlanLaunch l = {.kernel = kernel, .grid = grid, .group = g->group, .label = label, .loc = loc};
    vec_push(g->arena, to, l);
    return &to->v[to->n - 1];
}

void launch_arg(Gen *g, PlanLaunch *l, PlanArg a) {
    vec_push(g->arena, &l->args, a);
}
