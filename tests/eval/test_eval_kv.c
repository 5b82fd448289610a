/* test_eval_kv.c - attention over caches of every type: all pairs of key and value types, two caches of different
 * types in one graph, one read twice, rings, chunks, rows that are not stored. Against caches of f32 that hold what the
 * types make of the rows, and against the rows themselves within the error of the types.
 */
#include "tests/eval/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 4, KV = 2, DK = 128, DV = 256, N = 90, WINDOW = 20, CHUNK = 8, CACHES = 2, OUTS = 3 };

static const DType types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_TQ3_0};

typedef struct Rows {
    float q[N][H][DK], again[N][H][DK], k[N][KV][DK], v[N][KV][DV];
} Rows;

/* Of the queries q in both caches, and of the queries `again` in the first. */
typedef float Outs[OUTS][N][H][DV];

static Rows rows, rounded[CACHES];
static Outs whole, other, exact;

static void random_rows(Rows *r) {
    float *x = &r->q[0][0][0];
    for (size_t i = 0; i < sizeof *r / sizeof *x; i++)
        x[i] = (float)(lab_real(-1, 1) + lab_real(-1, 1));
}

/* ==== A graph that stores rows in two caches and attends ==== */

typedef struct Pair {
    DType k, v;
} Pair;

typedef struct Machine {
    Lab *l;
    Evaluator *e;
} Machine;

static KvLayout layout_of(Pair p, bool ring) {
    KvLayout l = {.k_type = p.k, .v_type = p.v, .heads = KV, .k_dim = DK, .v_dim = DV};
    l.planned = ring;
    l.ring = ring;
    l.lookback = WINDOW - 1;
    l.capacity = WINDOW + CHUNK;
    l.k_row = (int64_t)dtype_row_bytes(p.k, KV * DK);
    l.v_row = (int64_t)dtype_row_bytes(p.v, KV * DV);
    l.bytes = l.capacity * (l.k_row + l.v_row);
    return l;
}

/* k <= q and q - k < WINDOW */
static Variant window(Lab *l) {
    const Scalar *q = scalar_new(l->arena, SC_Q, NULL, NULL, NULL, NO_LOC);
    const Scalar *k = scalar_new(l->arena, SC_K, NULL, NULL, NULL, NO_LOC);
    const Scalar *far = scalar_new(l->arena, SC_SUB, q, k, NULL, NO_LOC);
    const Scalar *near = scalar_new(l->arena, SC_LT, far, scalar_const(l->arena, WINDOW, NO_LOC), NULL, NO_LOC);
    const Scalar *past = scalar_new(l->arena, SC_LE, k, q, NULL, NO_LOC);
    return (Variant){.name = "window", .visible = scalar_new(l->arena, SC_AND, past, near, NULL, NO_LOC)};
}

/* own: rows at and behind `own` are not stored, they come as rows of the call. */
static Machine machine(const Pair p[CACHES], bool ring, bool own) {
    static const char *const names[OUTS] = {"out.0", "out.1", "out.2"};
    Lab *l = lab_new(1, 1);
    Graph *g = l->g;
    NodeId q = ir_input(g, "q", type_make(DT_F32, DIMS(DIM_T, H, DK)), NO_LOC);
    NodeId again = ir_input(g, "again", type_make(DT_F32, DIMS(DIM_T, H, DK)), NO_LOC);
    NodeId k = ir_input(g, "k", type_make(DT_F32, DIMS(DIM_T, KV, DK)), NO_LOC);
    NodeId v = ir_input(g, "v", type_make(DT_F32, DIMS(DIM_T, KV, DV)), NO_LOC);
    NodeId pos = ir_input(g, "pos", type_make(DT_I32, DIMS(DIM_T)), NO_LOC);
    Attr attr[2] = {{.i = module_add_variant(l->m, window(l))}, {.f = 0.1}};
    NodeId state[CACHES];
    for (int c = 0; c < CACHES; c++) {
        Cache cache = {.name = c ? "kv.1" : "kv.0", .layout = layout_of(p[c], ring)};
        state[c] = ir_cache(g, module_add_cache(l->m, cache), NO_LOC);
        if (own)
            continue;
        state[c] = ir_node(g, OP_KV_STORE, (NodeId[]){state[c], k, v, pos}, 4, NULL, NULL, NULL, NO_LOC);
        ir_output(g, OUT_KEEP, cache.name, state[c], NO_LOC);
    }
    for (int o = 0; o < OUTS; o++) {
        NodeId in[] = {o < CACHES ? q : again, state[o % CACHES], pos, k, v};
        ir_output(g, OUT_EMIT, names[o], ir_node(g, OP_ATTEND, in, own ? 5 : 3, attr, NULL, NULL, NO_LOC), NO_LOC);
    }
    lab_no_errors(l);
    Machine m = {l, eval_new(l->m, l->data, &(EvalOptions){.threads = 2, .context = N})};
    lab_no_errors(l);
    return m;
}

static void machine_free(Machine *m) {
    eval_free(m->e);
    lab_free(m->l);
}

/* One call of rows from..to-1. */
static void step(Machine *m, const Rows *r, int from, int to, Outs out) {
    int32_t pos[N];
    for (int i = from; i < to; i++)
        pos[i - from] = i;
    EvalInput in[] = {{"q", r->q[from]}, {"again", r->again[from]}, {"k", r->k[from]}, {"v", r->v[from]}, {"pos", pos}};
    EvalOutput o[OUTS] = {
        {"out.0", &out[0][from][0][0]}, {"out.1", &out[1][from][0][0]}, {"out.2", &out[2][from][0][0]}};
    EvalCall call = {.graph = m->l->g, .T = to - from, .inputs = in, .n_inputs = 5, .outputs = o, .n_outputs = OUTS};
    const bool ok = eval_call(m->e, &call, m->l->diag);
    lab_no_errors(m->l);
    assert_true(ok);
}

/* All rows, `chunk` a call; 0: from 1 to CHUNK, at random. */
static void run(const Pair p[CACHES], const Rows *r, bool ring, int chunk, Outs out) {
    Machine m = machine(p, ring, false);
    memset(out, 0xff, sizeof(Outs));
    for (int from = 0, to; from < N; from = to) {
        to = from + (chunk ? chunk : (int)lab_int(1, CHUNK));
        to = to < N ? to : N;
        step(&m, r, from, to, out);
    }
    machine_free(&m);
}

/* What the types make of the rows. */
static void round_rows(Pair p, const Rows *from, Rows *to) {
    static uint8_t bytes[KV * DV * 4];
    *to = *from;
    for (int i = 0; i < N; i++) {
        kv_encode(p.k, from->k[i][0], bytes, KV * DK);
        kv_decode(p.k, bytes, to->k[i][0], KV * DK);
        kv_encode(p.v, from->v[i][0], bytes, KV * DV);
        kv_decode(p.v, bytes, to->v[i][0], KV * DV);
        if (kv_rotated(p.k))
            kv_rotate_back(to->k[i][0], KV * DK);
        if (kv_rotated(p.v))
            kv_rotate_back(to->v[i][0], KV * DV);
    }
}

/* Relative RMS difference of one result. */
static double difference(const Outs got, const Outs want, int o) {
    const float *x = &got[o][0][0][0], *y = &want[o][0][0][0];
    double error = 0, size = 0;
    for (size_t i = 0; i < sizeof got[o] / sizeof *x; i++) {
        error += pow((double)x[i] - y[i], 2);
        size += (double)y[i] * y[i];
    }
    return sqrt(error / size);
}

/* ==== Tests ==== */

static const Pair plain[CACHES] = {{DT_F32, DT_F32}, {DT_F32, DT_F32}};

/* Caches of f32 that hold the rounded rows: the same bits, or the rounding of a rotation. */
static void caches_round_rows_and_nothing_else(void **unused) {
    (void)unused;
    for (size_t i = 0; i < COUNTOF(types) * COUNTOF(types); i++) {
        const Pair p[CACHES] = {{types[i / COUNTOF(types)], types[i % COUNTOF(types)]},
                                {types[i % COUNTOF(types)], types[lab_int(0, COUNTOF(types) - 1)]}};
        random_rows(&rows);
        run(p, &rows, false, 0, whole);
        for (int c = 0; c < CACHES; c++)
            round_rows(p[c], &rows, &rounded[c]);
        run(plain, &rounded[0], false, N, exact);
        run(plain, &rounded[1], false, N, other);
        memcpy(exact[1], other[1], sizeof exact[1]);
        for (int o = 0; o < OUTS; o++) {
            const Pair *of = &p[o % CACHES];
            const bool rotates = kv_rotated(of->k) || kv_rotated(of->v);
            if (rotates ? !(difference(whole, exact, o) < 2e-6) : memcmp(whole[o], exact[o], sizeof whole[o]) != 0)
                fail_msg("%s keys, %s values: out.%d differs by %g", dtype_name(of->k), dtype_name(of->v), o,
                         difference(whole, exact, o));
        }
    }
}

/* Rings of 28 places and 90 positions; every chunk that fits, and all pairs of types. */
static void chunks_and_rings_do_not_matter(void **unused) {
    (void)unused;
    random_rows(&rows);
    for (size_t i = 0; i < COUNTOF(types) * COUNTOF(types); i++) {
        const Pair p[CACHES] = {{types[i / COUNTOF(types)], types[i % COUNTOF(types)]},
                                {types[(i + 3) % COUNTOF(types)], types[(i / COUNTOF(types) + 1) % COUNTOF(types)]}};
        run(p, &rows, false, N, whole);
        for (int chunk = 0; chunk <= CHUNK; chunk += i % COUNTOF(types) == i / COUNTOF(types) ? 1 : CHUNK / 2 - 1) {
            run(p, &rows, true, chunk, other);
            assert_memory_equal(whole, other, sizeof whole);
        }
    }
}

/* What these rows give, and a third more or less: attention averages, so the error of keys counts less than that of
 * values, which comes through as it is. */
static void errors_are_bounded(void **unused) {
    (void)unused;
    static const struct {
        Pair p;
        double known;
    } cases[] = {
        {{DT_F16, DT_F16}, 0.00024},   {{DT_BF16, DT_BF16}, 0.00192}, {{DT_Q8_0, DT_Q8_0}, 0.00545},
        {{DT_Q8_0, DT_F32}, 0.0028},   {{DT_F32, DT_Q8_0}, 0.0046},   {{DT_Q4_0, DT_Q4_0}, 0.089},
        {{DT_Q8_0, DT_Q4_0}, 0.074},   {{DT_TQ3_0, DT_F16}, 0.115},   {{DT_F16, DT_TQ3_0}, 0.188},
        {{DT_TQ3_0, DT_TQ3_0}, 0.212},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        const Pair p[CACHES] = {cases[i].p, cases[i].p};
        random_rows(&rows);
        run(plain, &rows, false, N, exact);
        run(p, &rows, true, 0, whole);
        for (int o = 0; o < OUTS; o++) {
            const double off = difference(whole, exact, o);
            if (!(off <= cases[i].known * 4 / 3 && off >= cases[i].known * 2 / 3))
                fail_msg("%s keys, %s values: %.5f off, %.5f is known", dtype_name(p->k), dtype_name(p->v), off,
                         cases[i].known);
        }
    }
}

static bool has_blocks(DType t) {
    return dtype_info(t)->block_elems > 1;
}

/* Rows of a call that are not stored are what a type with blocks makes of them, and else not rounded. */
static void own_rows_are_as_blocks_hold_them(void **unused) {
    (void)unused;
    enum { STORED = 60, OWN = 9 };
    for (size_t i = 0; i < COUNTOF(types) * COUNTOF(types); i++) {
        const Pair p[CACHES] = {{types[i / COUNTOF(types)], types[i % COUNTOF(types)]},
                                {types[i % COUNTOF(types)], types[i / COUNTOF(types)]}};
        random_rows(&rows);
        memset(whole, 0, sizeof whole);
        memset(exact, 0, sizeof exact);
        for (int c = 0; c <= CACHES;
             c++) { /* c: the cache whose rounded rows lie in f32; CACHES: the types themselves */
            if (c < CACHES) {
                round_rows(p[c], &rows, &rounded[c]);
                if (!has_blocks(p[c].k))
                    memcpy(rounded[c].k + STORED, rows.k + STORED, sizeof rows.k[0] * (N - STORED));
                if (!has_blocks(p[c].v))
                    memcpy(rounded[c].v + STORED, rows.v + STORED, sizeof rows.v[0] * (N - STORED));
            }
            const Pair *of = c < CACHES ? plain : p;
            const Rows *from = c < CACHES ? &rounded[c] : &rows;
            Machine m = machine(of, false, false), o = machine(of, false, true);
            Graph *store = m.l->g;
            step(&m, from, 0, STORED, other);
            m.l->g = o.l->g; /* the same caches and variants by index */
            memset(other, 0, sizeof other);
            step(&m, from, STORED, STORED + OWN, other);
            for (int k = 0; k < OUTS; k++)
                if (c == CACHES || k % CACHES == c)
                    memcpy(c == CACHES ? whole[k] : exact[k], other[k], sizeof other[k]);
            m.l->g = store;
            machine_free(&m);
            machine_free(&o);
        }
        for (int k = 0; k < OUTS; k++)
            if (!(difference(whole, exact, k) < 2e-6))
                fail_msg("%s keys, %s values: %g off", dtype_name(p[k % CACHES].k), dtype_name(p[k % CACHES].v),
                         difference(whole, exact, k));
    }
}

/* The bytes asked for are the bytes held, and a row comes back in the basis it was stored in. */
static void rows_come_back(void **unused) {
    (void)unused;
    static const int64_t bytes[] = {4 * KV * (DK + DV), 2 * KV * (DK + DV), 2 * KV * (DK + DV),
                                    KV * (136 + 272),   KV * (72 + 144),    KV * (56 + 112)};
    for (size_t i = 0; i < COUNTOF(types); i++) {
        const Pair p[CACHES] = {{types[i], types[i]}, {types[i], types[i]}};
        random_rows(&rows);
        Machine m = machine(p, true, false);
        for (int from = 0; from < N; from += 5)
            step(&m, &rows, from, from + 5, other);
        assert_int_equal(eval_cache_bytes(m.e), CACHES * (WINDOW + CHUNK) * bytes[i]);
        round_rows(p[0], &rows, &rounded[0]);
        float k[KV][DK], v[KV][DV];
        for (int pos = N - WINDOW - CHUNK; pos < N; pos++) {
            assert_true(eval_cache_row(m.e, 1, 0, pos, &k[0][0], &v[0][0]));
            assert_memory_equal(k, rounded[0].k[pos], sizeof k);
            assert_memory_equal(v, rounded[0].v[pos], sizeof v);
        }
        machine_free(&m);
    }
}

int main(int argc, char **argv) {
    lab_seed(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caches_round_rows_and_nothing_else),
        cmocka_unit_test(chunks_and_rings_do_not_matter),
        cmocka_unit_test(errors_are_bounded),
        cmocka_unit_test(own_rows_are_as_blocks_hold_them),
        cmocka_unit_test(rows_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
