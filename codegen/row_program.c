/* row_program.c - writes what is computed row by row behind a matmul, or alone, as the body of a kernel.
 *
 * Nodes are taken in order. What can be computed element by element of one size shares a loop (row_loop.c), in which
 * values are local variables; a value that another loop reads, or the same at another place, is kept in shared memory
 * (global scratch when it is large). Norms, softmax, sums and top-k need statistics of whole rows (row_stats.c): these
 * stand between loops. Behind the output matrix of an attention:
 *
 *   %o = linear ..                loop: v0 = sum of planes, kept in s0; sums of v0 * v0
 *                                 factor1 = row_norm_of(those sums)
 *   %n = rms_norm %o, @post       loop: v2 = s0[e] * factor1 * post[e]
 *   %s = add %h, %n                     v3 = h[e] + v2, to its place and kept in s3; sums of v3 * v3
 *                                 factor4 = row_norm_of(those sums)
 *   %x = rms_norm %s, @ffn        loop: v5 = s3[e] * factor4 * ffn[e], to its place
 *
 * Which values must be kept, and whose squares must be summed, is found by writing the program until nothing new turns
 * up. A program of a single loop without statistics is cut into chunks of columns, so that several blocks share a row.
 *
 * The body has a second function, tail_ahead(): it asks for the program's weights while the matmul runs.
 */
#include "codegen/row_int.h"

/* Numbers for each of a lane's ROW_LANE neighbours that its loads have under way, at most: half of what 128 registers
 * hold, the other half being for later loops, whose reads wait for nothing; less where two blocks share a
 * multiprocessor. */
enum { CHUNK = 1024, RECORD_CHUNK = 1536, MOST_AHEAD = 16, MOST_AHEAD_OF_TWO = 4 };

/* Whether two blocks of the program should share a multiprocessor: of many rows, and with much to load or convert. */
static bool out_of_two(const RowWriter *p) {
    return (p->operands && p->neighbours == ROW_LANE) || p->halves;
}

static void write_program(RowWriter *p, const NodeId *nodes, int n) {
    for (int id = 0; id < p->g->g->nodes.n; id++) {
        RowValue *v = &p->of[id];
        v->kept = v->in_loop = false;
        v->read_by = 0;
        v->at = v->factor = -1;
    }
    p->tops = namemap_new(p->a);
    p->top.n = p->starts.n = p->body.n = p->ahead.n = p->fetches[0].n = p->fetches[1].n = 0;
    p->fetch_at = 0;
    p->loop.n_loads = p->loop.ahead_before = 0;
    p->loop.most_ahead = out_of_two(p) ? MOST_AHEAD_OF_TWO : MOST_AHEAD;
    row_loop_clear(&p->loop);
    p->again = p->statistics = p->chosen = p->no_records = false;
    p->chunk = p->neighbours == ROW_LANE ? CHUNK : RECORD_CHUNK;
    p->alone = n == 1;
    p->loops = p->values = 0;
    p->out->params.n = 0;
    p->out->shared = 0;
    p->out->bytes_a_row = 0;
    for (int i = 0; i < n && !p->g->failed; i++)
        row_node(p, nodes[i]);
    row_loop_close(p);
}

/* ==== The text ==== */

static const char *take(Arena *a, Buf *b) {
    const char *text = arena_strndup(a, b->n ? b->s : "", b->n);
    buf_free(b);
    return text;
}

/* What later loops read is asked for first, and then waited for what the launch itself has to make. */
static void write_body(const RowWriter *p, Buf *to) {
    buf_bytes(to, p->fetches[0].s, p->fetches[0].n);
    buf_str(to, "    others.wait();\n    block_sync();\n");
    buf_bytes(to, p->body.s, p->fetch_at);
    buf_bytes(to, p->fetches[1].s, p->fetches[1].n);
    buf_bytes(to, p->body.s + p->fetch_at, p->body.n - p->fetch_at);
}

static void write_functions(const RowWriter *p, bool chunked, Buf *to) {
    buf_printf(to, "#include \"row_ops.cu\"\n#include \"tile_value.cu\"\n%s%s\n",
               p->chosen ? "#include \"row_chosen.cu\"\n" : "",
               !p->operands               ? ""
               : p->neighbours > ROW_LANE ? "#include \"row_record.cu\"\n"
                                          : "#include \"row_operand.cu\"\n");
    buf_str(to,
            "DEVICE void tail_item(int item, [[maybe_unused]] int live, [[maybe_unused]] u8 *shared, Others &others "
            "TAIL_PARAMETERS) {\n");
    if (chunked) {
        const long long chunks = (long long)p->out->chunks;
        buf_printf(to, "    const int row = item / %lld, first = item %% %lld * %d;\n", chunks, chunks, p->chunk);
        buf_printf(to, "    auto end = [&](int n) { return first + %d < n ? first + %d : n; };\n", p->chunk, p->chunk);
        buf_printf(to, "    %sconstexpr auto span = [](int n) { return n < %d ? n : %d; };\n",
                   p->chosen ? "[[maybe_unused]] " : "", p->chunk, p->chunk); /* chosen rows need no loop */
    } else {
        buf_str(to, "    const int row = item, first = 0;\n    constexpr auto end = [](int n) { return n; };\n    "
                    "constexpr auto span = [](int n) { return n; };\n    block_sync();\n");
    }
    buf_bytes(to, p->top.s, p->top.n);
    buf_bytes(to, p->starts.s, p->starts.n);
    write_body(p, to);
    buf_str(to, "}\n\nDEVICE void tail_ahead([[maybe_unused]] int thread TAIL_PARAMETERS) {\n");
    buf_bytes(to, p->ahead.s, p->ahead.n);
    buf_str(to, "}\n");
}

/* elems: of the largest row that the program makes. */
static void finish(RowWriter *p, int64_t elems) {
    RowProgram *out = p->out;
    out->two = out_of_two(p);
    Buf body = {0}, parameters = {0}, arguments = {0};
    const bool chunked = p->loops == 1 && !p->statistics && out->shared == 0;
    out->chunks = chunked ? (elems + p->chunk - 1) / p->chunk : 1;
    write_functions(p, chunked, &body);
    for (int i = 0; i < out->params.n; i++) {
        buf_printf(&parameters, ", %sp%d", out->params.v[i].type, i);
        buf_printf(&arguments, ", p%d", i);
    }
    out->body = take(p->g->arena, &body);
    out->parameters = take(p->g->arena, &parameters);
    out->arguments = take(p->g->arena, &arguments);
}

/* ==== The program ==== */

/* What is known of the nodes before the first is written. Elements of the largest row that the program makes. */
static int64_t prepare(RowWriter *p, const NodeId *nodes, int n) {
    const int count = p->g->g->nodes.n;
    p->of = arena_array(p->a, (size_t)count, sizeof *p->of);
    for (int i = 0; i < count; i++)
        p->of[i].global = -1;
    int64_t most = 0;
    for (int i = 0; i < n; i++) {
        const Node *node = ir_get(p->g->g, nodes[i]);
        const bool main = ir_is_matmul(node);
        const int64_t elems = type_row_elems(&node->type);
        p->of[nodes[i]].member = !main; /* a main's result is in memory already */
        p->of[nodes[i]].main = main;
        p->halves |= main && p->g->loc[nodes[i]].halves;
        if (type_has_rows(&node->type))
            p->out->dim = node->type.dim[0];
        if (elems > most && (node->slab >= 0 || !main))
            most = elems;
    }
    row_operands_find(p, nodes, n);
    return most;
}

static void write_all(RowWriter *p, const NodeId *nodes, int n) {
    do
        write_program(p, nodes, n);
    while (p->again && !p->g->failed);
}

bool row_program(Gen *g, const NodeId *nodes, int n, RowProgram *out) {
    *out = (RowProgram){.dim = DIM_T};
    RowWriter p = {.g = g, .a = arena_new(), .out = out, .neighbours = ROW_LANE};
    const int64_t elems = prepare(&p, nodes, n);
    write_all(&p, nodes, n);
    if (p.operands && (p.no_records || out->shared > g->target->shared_per_block)) {
        row_operands_drop(&p);
        write_all(&p, nodes, n);
    }
    if (p.operands && !g->failed) {
        row_operands_place(&p);
        write_program(&p, nodes, n);
    }
    if (!g->failed) {
        finish(&p, elems);
        row_operands_made(&p);
    }
    buf_free(&p.top);
    buf_free(&p.starts);
    buf_free(&p.body);
    buf_free(&p.ahead);
    buf_free(&p.fetches[0]);
    buf_free(&p.fetches[1]);
    row_loop_free(&p.loop);
    arena_free(p.a);
    return !g->failed;
}

void row_defines(const RowProgram *p, Buf *to) {
    buf_printf(to, "#define TAIL_PARAMETERS %s\n#define TAIL_ARGUMENTS %s\n", p->parameters, p->arguments);
    buf_printf(to, "#define TAIL_ITEMS(live) ((live) * %lld)\n", (long long)p->chunks);
}

void row_args(Gen *g, const RowProgram *p, PlanLaunch *l) {
    for (int i = 0; i < p->params.n; i++)
        launch_arg(g, l, p->params.v[i].arg);
}
