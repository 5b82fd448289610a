/* row_loop.c - loops of a row program: values that are computed element by element of one size share a loop.
 *
 * A lane has W neighbours of an element: four, so that a warp reads and writes whole lines, but where it makes records,
 * and one where elements do not come in fours. It has U rounds at once: what the loop reads from memory is asked for in
 * all U rounds before the first value is computed. Where a later loop has all its rounds at once, that is ahead of the
 * first loop: none of it depends on what the launch computes, and each loop would wait for memory anew. Before the wait
 * for the launch's other blocks if the first loop leaves the registers (AHEAD is 1), else when its own have come (2).
 *
 *   float x0[U][W];                                       declared
 *   loads of later loops                                  if AHEAD is 1
 *   others.wait();
 *   for (r = 0; r < ROUNDS; r += U) {
 *       for u: load_values<W>(x0[u], p4 + e);             loads, but of loops that are AHEAD
 *       float square3[U] = {};                            sums
 *       for u {
 *           float s1[W], v3[W];                           variables, and what is kept of them
 *           for i < W: v3[i] = s1[i] * x0[u][i];          lines
 *           store_values<W>(p5 + row * 5376 + b, v3);     stores
 *       }
 *       row_square_parts<W>(..);                          reductions: by all lanes, of all U rounds at once
 *   }
 *   loads of later loops                                  behind the first loop, if AHEAD is 2
 */
#include "codegen/row_int.h"
#include <stdio.h>

enum { LANES = 32 };

void row_loop_clear(RowLoop *l) {
    l->arrays.n = l->loads.n = l->variables.n = l->lines.n = l->stores.n = 0;
    l->first_load = l->n_loads;
    l->mains = false;
    l->sums.n = l->reductions.n = 0;
    l->load_weight = 0;
    l->open = false;
}

void row_loop_free(RowLoop *l) {
    Buf *const bufs[] = {&l->arrays, &l->loads, &l->variables, &l->lines, &l->stores, &l->sums, &l->reductions};
    for (size_t i = 0; i < COUNTOF(bufs); i++)
        buf_free(bufs[i]);
}

void row_loop_open(RowWriter *p, int64_t n) {
    if (p->loop.open && p->loop.n == n)
        return;
    row_loop_close(p);
    p->loop.open = true;
    p->loop.n = n;
    p->loop.scalar = n % p->neighbours != 0;
    p->loop.keeps = p->loop.records = false;
    p->loops++;
}

void row_loop_leave(RowWriter *p, NodeId operand) {
    const RowRef r = row_resolve(p, operand, ROW_HERE);
    if (p->loop.open && p->of[r.id].in_loop)
        row_loop_close(p);
}

int row_loop_load(RowWriter *p, int weight, bool halves) {
    const int k = p->loop.n_loads++;
    if (halves)
        buf_printf(&p->loop.arrays, "    Halves<W%d> x%d[U%d];\n", p->loops, k, p->loops);
    else
        buf_printf(&p->loop.arrays, "    float x%d[U%d][W%d];\n", k, p->loops, p->loops);
    p->loop.load_weight += weight;
    return k;
}

/* Rounds of a loop whose reads are all under way before the first value is computed: a row is short, and what takes
 * time is the way to memory. */
static int rounds_ahead(const RowLoop *l, int width) {
    enum { MOST_ROUNDS = 8 };
    const int rounds = l->most_ahead * ROW_LANE / (width * (l->load_weight ? l->load_weight : 1));
    return !l->load_weight || rounds < 1 ? 1 : rounds > MOST_ROUNDS ? MOST_ROUNDS : rounds;
}

static const char *text_of(const Buf *b) {
    return b->n ? b->s : "";
}

static const char lane_place[] =
    "                const int b = first + W * ((int)threadIdx.x + (r + u) * TAIL_THREADS);\n";

/* Without a branch, so that reads of several loops are one stretch of code, whose reads a compiler puts first: lanes
 * behind the row's end read its first element again. */
static void write_loads(const RowLoop *l, Buf *to) {
    if (l->loads.n)
        buf_printf(to,
                   "#pragma unroll\n            for (int u = 0; u < U; u++) {\n%s"
                   "                const int e = b < end(%lld) ? b : first;\n%s            }\n",
                   lane_place, (long long)l->n, l->loads.s);
}

/* The loop's sizes and arrays. */
static void write_start(const RowLoop *l, int number, int width, Buf *to) {
    const int most = rounds_ahead(l, width);
    buf_printf(to,
               "    constexpr int W%d = %d, ROUNDS%d = (span(%lld) + W%d * TAIL_THREADS - 1) / (W%d * TAIL_THREADS);\n"
               "    constexpr int U%d = ROUNDS%d < %d ? ROUNDS%d : %d;\n",
               number, width, number, (long long)l->n, number, number, number, number, most, number, most);
    buf_str(to, text_of(&l->arrays));
}

/* What a later loop reads, if it is to be ahead; not of the launch's own matmul, which other blocks still write. LEFT:
 * registers that the loops before have left while the first loop's are taken, MORE: when they are free. */
static void write_ahead(RowWriter *p, RowLoop *l, int number) {
    const int loads = l->n_loads - l->first_load;
    l->may_be_ahead = number > 1 && loads && !l->mains;
    if (number == 1)
        buf_printf(&p->starts,
                   "    [[maybe_unused]] constexpr int MORE1 = ROW_REGISTERS, LEFT1 = MORE1 - %d * U1 * W1;\n",
                   l->load_weight);
    if (!l->may_be_ahead)
        return;
    const int before = l->ahead_before ? l->ahead_before : 1;
    l->ahead_before = number;
    buf_printf(&p->starts,
               "    constexpr int NEED%d = U%d == ROUNDS%d ? %d * U%d * W%d : 1 << 16;\n"
               "    constexpr int AHEAD%d = NEED%d <= LEFT%d ? 1 : NEED%d <= MORE%d ? 2 : 0;\n"
               "    [[maybe_unused]] constexpr int LEFT%d = AHEAD%d == 1 ? LEFT%d - NEED%d : LEFT%d;\n"
               "    [[maybe_unused]] constexpr int MORE%d = AHEAD%d ? MORE%d - NEED%d : MORE%d;\n",
               number, number, number, loads, number, number, number, number, before, number, before, number, number,
               before, number, before, number, number, before, number, before);
    for (int place = 1; place <= 2; place++) {
        Buf *to = &p->fetches[place - 1];
        buf_printf(to,
                   "            if constexpr (AHEAD%d == %d) {\n            constexpr int W = W%d, U = U%d, r = 0;\n",
                   number, place, number, number);
        write_loads(l, to);
        buf_str(to, "            }\n");
    }
}

static void write_loop(RowWriter *p, const RowLoop *l, int number) {
    Buf *to = &p->body;
    const long long n = l->n;
    buf_printf(to,
               "    {\n        constexpr int W = W%d, ROUNDS = ROUNDS%d, U = U%d;\n"
               "#pragma unroll 1\n        for (int r = 0; r < ROUNDS; r += U) {\n",
               number, number, number);
    if (l->may_be_ahead)
        buf_printf(to, "            if constexpr (AHEAD%d == 0)\n", number);
    write_loads(l, to);
    buf_printf(to,
               "%s#pragma unroll\n            for (int u = 0; u < U; u++) {\n%s                if (b < end(%lld)) {\n%s"
               "#pragma unroll\n                    for (int i = 0; i < W; i++) {\n"
               "                        [[maybe_unused]] const int e = b + i;\n%s                    }\n%s"
               "                }\n            }\n%s        }\n    }\n",
               text_of(&l->sums), lane_place, n, text_of(&l->variables), text_of(&l->lines), text_of(&l->stores),
               text_of(&l->reductions));
    if (number == 1)
        p->fetch_at = to->n;
    if (l->keeps)
        buf_str(to, "    block_sync();\n");
}

void row_loop_close(RowWriter *p) {
    if (!p->loop.open)
        return;
    const int width = p->loop.scalar ? 1 : p->loop.records ? p->neighbours : ROW_LANE;
    write_start(&p->loop, p->loops, width, &p->starts);
    write_ahead(p, &p->loop, p->loops);
    write_loop(p, &p->loop, p->loops);
    row_loop_clear(&p->loop);
    for (int id = 1; id < p->g->g->nodes.n; id++) {
        RowValue *v = &p->of[id];
        if (!v->in_loop)
            continue;
        v->kept |= v->keep;
        v->width = width;
        v->in_loop = false;
        if (v->operand.k && !v->operand.few)
            row_operand(p, (NodeId)id);
        p->no_records |= v->operand.k && v->operand.few && v->width == 1;
    }
}

/* ==== Values ==== */

int64_t row_room(RowWriter *p, int64_t bytes) {
    int64_t at = (p->out->shared + 15) / 16 * 16;
    p->out->shared = at + bytes;
    return at;
}

const char *row_floats(RowWriter *p, int64_t place) {
    return arena_printf(p->a, "(float *)(shared + %lld)", (long long)place);
}

/* For a norm that reads the value: each warp leaves the sum of the squares of its elements. */
static void define_squares(RowWriter *p, RowValue *v, const Node *n) {
    RowLoop *l = &p->loop;
    const int64_t elems = type_row_elems(&n->type);
    v->squares = row_room(p, (elems + LANES - 1) / LANES * 4);
    buf_printf(&l->sums, "            float square%d[U] = {};\n", v->number);
    buf_printf(&l->lines, "            square%d[u] += v%d[i] * v%d[i];\n", v->number, v->number, v->number);
    buf_printf(&l->reductions,
               "            row_square_parts<W>(%s, square%d, first + r * W * TAIL_THREADS, end(%lld));\n",
               row_floats(p, v->squares), v->number, (long long)elems);
    l->keeps = true;
}

void row_define(RowWriter *p, NodeId id, const char *expression) {
    const Node *n = ir_get(p->g->g, id);
    RowValue *v = &p->of[id];
    RowLoop *l = &p->loop;
    v->number = p->values++;
    v->in_loop = true;
    buf_printf(&l->variables, "                    %sv%d[W];\n", row_c_type(n), v->number);
    gen_line(p->g, &l->lines, n->loc);
    buf_printf(&l->lines, "            v%d[i] = %s;\n", v->number, expression);
    if (v->want_squares)
        define_squares(p, v, n);
    if (v->keep) {
        buf_printf(&l->stores, "        store_values<W>(%s + b, v%d);\n", row_kept(p, id), v->number);
        l->keeps = true;
    }
    if (v->operand.k && v->operand.few)
        row_record(p, id);
    if (n->slab < 0 || p->g->in_planes[id] || (v->operand.k && v->operand.only))
        return;
    const Loc at = slab_loc(p->g, id);
    const char *to = row_param(p, row_is_int(n) ? "int *" : "float *", arg_loc(&at));
    buf_printf(&l->stores, "        store_values<W>(%s + (u64)row * %lld + b, v%d);\n", to, (long long)at.row_stride,
               v->number);
    p->out->bytes_a_row += 4 * type_row_elems(&n->type);
}
