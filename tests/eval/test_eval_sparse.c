/* test_eval_sparse.c - sparse attention against the brute-force oracle (sparse_oracle.c), and what must not show:
 * chunks of whole blocks, threads, other sequences, types of the cache, NaN.
 *
 * What is kept is read from the results: values are one-hot, element b of a value is 1 in key block b, so an element of
 * the result is 0 exactly where the block was left out.
 */
#include "tests/eval/lab.h"
#include "tests/eval/sparse_oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 4, KV = 2, D = 128, N = 320, SLOTS = 2 };

static const DType types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_TQ3_0};
static const double scale = 0.2;
static const FlashPrefill usual = {.alpha = 0.2, .block = 16, .sink = 1, .local = 2, .tail = 1};

typedef struct Rows {
    float q[N][H][D], k[N][KV][D], v[N][KV][D];
} Rows;

typedef float Outs[N][H][D];

static Rows rows, others, held;
static Outs whole, other;

/* Neighbouring keys have something in common, which some queries look for: else all blocks would score alike. */
static void random_rows(Rows *r, double common, int64_t block) {
    static float topic[N][D];
    for (int b = 0; b < N; b++)
        for (int d = 0; d < D; d++)
            topic[b][d] = (float)(lab_real(-1, 1) * common);
    for (int i = 0; i < N; i++)
        for (int d = 0; d < D; d++) {
            for (int h = 0; h < KV; h++) {
                r->k[i][h][d] = topic[(i / block + h) % N][d] + (float)lab_real(-1, 1);
                r->v[i][h][d] = (float)lab_real(-1, 1);
            }
            for (int h = 0; h < H; h++)
                r->q[i][h][d] = topic[(i * 7 / 40 + h) % N][d] + (float)lab_real(-1, 1);
        }
}

static void one_hot(Rows *r, int64_t block) {
    memset(r->v, 0, sizeof r->v);
    for (int i = 0; i < N; i++)
        for (int h = 0; h < KV; h++)
            r->v[i][h][i / block] = 1;
}

/* ==== A graph that stores and attends ==== */

typedef struct Setup {
    FlashPrefill p;
    int64_t from;
    DType k, v;
    bool dense, wanted, scored;
    int threads;
} Setup;

typedef struct Machine {
    Lab *l;
    Evaluator *e;
} Machine;

static double capped(double s, double q, double k, int h) {
    return 5 * tanh(s / 5) - 0.0001 * (h + 1) * (q - k) * (q - k);
}

static const Scalar *leaf(Lab *l, ScalarOp op) {
    return scalar_new(l->arena, op, NULL, NULL, NULL, NO_LOC);
}

static const Scalar *bi(Lab *l, ScalarOp op, const Scalar *x, const Scalar *y) {
    return scalar_new(l->arena, op, x, y, NULL, NO_LOC);
}

static const Scalar *num(Lab *l, double x) {
    return scalar_const(l->arena, x, NO_LOC);
}

static Variant variant_of(Lab *l, const Setup *s) {
    const Scalar *q = leaf(l, SC_Q), *k = leaf(l, SC_K), *h = leaf(l, SC_H);
    Variant v = {.name = "full", .visible = bi(l, SC_LE, k, q), .sparse = "flash_prefill", .n_sparse = 5};
    const char *const name[] = {"alpha", "block", "sink", "local", "tail"};
    const double value[] = {s->p.alpha, (double)s->p.block, (double)s->p.sink, (double)s->p.local, (double)s->p.tail};
    for (int i = 0; i < v.n_sparse; i++) {
        v.sparse_arg[i].name = name[i];
        v.sparse_arg[i].value = value[i];
    }
    if (s->scored) {
        const Scalar *slope = bi(l, SC_MUL, num(l, 0.0001), bi(l, SC_ADD, h, num(l, 1)));
        const Scalar *distance = bi(l, SC_SUB, q, k);
        const Scalar *tanh_s =
            scalar_new(l->arena, SC_TANH, bi(l, SC_DIV, leaf(l, SC_S), num(l, 5)), NULL, NULL, NO_LOC);
        v.score =
            bi(l, SC_SUB, bi(l, SC_MUL, num(l, 5), tanh_s), bi(l, SC_MUL, bi(l, SC_MUL, slope, distance), distance));
    }
    return v;
}

static Machine machine(const Setup *s) {
    Lab *l = lab_new(1, 1);
    Graph *g = l->g;
    NodeId q = ir_input(g, "q", type_make(DT_F32, DIMS(DIM_T, H, D)), NO_LOC);
    NodeId k = ir_input(g, "k", type_make(DT_F32, DIMS(DIM_T, KV, D)), NO_LOC);
    NodeId v = ir_input(g, "v", type_make(DT_F32, DIMS(DIM_T, KV, D)), NO_LOC);
    NodeId pos = ir_input(g, "pos", type_make(DT_I32, DIMS(DIM_T)), NO_LOC), at = pos;
    const KvLayout layout = {.k_type = s->k, .v_type = s->v, .heads = KV, .k_dim = D, .v_dim = D};
    NodeId kv = ir_cache(g, module_add_cache(l->m, (Cache){.name = "kv.0", .layout = layout}), NO_LOC);
    Attr attr[2] = {{.i = module_add_variant(l->m, variant_of(l, s))}, {.f = scale}};
    if (s->wanted) {
        NodeId wanted = ir_input(g, "rows", type_make(DT_I32, DIMS(DIM_R)), NO_LOC);
        q = ir_op2(g, OP_ROWS, q, wanted, NULL, NO_LOC);
        at = ir_op2(g, OP_ROWS, pos, wanted, NULL, NO_LOC);
    }
    kv = ir_node(g, OP_KV_STORE, (NodeId[]){kv, k, v, pos}, 4, NULL, NULL, NULL, NO_LOC);
    NodeId out = ir_node(g, OP_ATTEND, (NodeId[]){q, kv, at}, 3, attr, NULL, NULL, NO_LOC);
    ir_output(g, OUT_KEEP, "kv.0", kv, NO_LOC);
    ir_output(g, OUT_EMIT, "out", out, NO_LOC);
    ir_get(g, kv)->group = ir_get(g, out)->group = ir_group_new(g, FAM_ATTENTION, NO_LOC);
    g->groups.v[0].prefill =
        s->dense ? (AttendChoice){ATTEND_DENSE, 0, "a test"} : (AttendChoice){ATTEND_SPARSE, s->from, "a test"};
    assert_true(ir_verify(l->m));
    lab_no_errors(l);
    Machine m = {l, eval_new(l->m, l->data, &(EvalOptions){.threads = s->threads, .slots = SLOTS, .context = N})};
    lab_no_errors(l);
    return m;
}

static void machine_free(Machine *m) {
    eval_free(m->e);
    lab_free(m->l);
}

/* Positions from..to-1 of slot 0 in one call, with `ahead` more to come; wanted NULL: every row. */
static bool step(Machine *m, const Rows *r, int from, int to, int ahead, const int32_t *wanted, int n_wanted,
                 Outs out) {
    static Outs got;
    int32_t pos[N];
    for (int i = from; i < to; i++)
        pos[i - from] = i;
    EvalInput in[] = {{"q", r->q[from]}, {"k", r->k[from]}, {"v", r->v[from]}, {"pos", pos}, {"rows", wanted}};
    EvalOutput o = {"out", &got[0][0][0]};
    EvalCall call = {.graph = m->l->g, .T = to - from, .R = n_wanted, .ahead = ahead, .inputs = in, .outputs = &o};
    call.n_inputs = wanted ? 5 : 4;
    call.n_outputs = 1;
    if (!eval_call(m->e, &call, m->l->diag))
        return false;
    for (int i = 0; i < (wanted ? n_wanted : to - from); i++)
        memcpy(out[from + (wanted ? wanted[i] : i)], got[i], sizeof got[i]);
    return true;
}

/* n positions in calls of `chunk` (0: one). The rows as the cache holds them go to `held`. */
static void run(const Setup *s, const Rows *r, int n, int chunk, Outs out) {
    Machine m = machine(s);
    memset(out, 0xff, sizeof(Outs));
    for (int at = 0, now; at < n; at += now) {
        now = chunk && chunk < n - at ? chunk : n - at;
        if (!step(&m, r, at, at + now, n - at - now, NULL, 0, out))
            lab_no_errors(m.l);
    }
    memcpy(held.q, r->q, sizeof held.q);
    for (int i = 0; i < n; i++)
        assert_true(eval_cache_row(m.e, 0, 0, i, &held.k[i][0][0], &held.v[i][0][0]));
    machine_free(&m);
}

static Setup setup(FlashPrefill p) {
    return (Setup){.p = p, .k = DT_F32, .v = DT_F32, .threads = 2};
}

/* ==== Comparing with the oracle ==== */

typedef struct Count {
    int64_t kept, left_out, near, chosen; /* near: too close to the limit to tell; chosen: kept by their score */
} Count;

static SparseOracle oracle_of(const Setup *s, int n) {
    return (SparseOracle){.p = s->p,
                          .heads = H,
                          .kv_heads = KV,
                          .k_dim = D,
                          .v_dim = D,
                          .q = &held.q[0][0][0],
                          .k = &held.k[0][0][0],
                          .v = &held.v[0][0][0],
                          .scale = scale,
                          .score = s->scored ? capped : NULL,
                          .prompt = n,
                          .from = s->from};
}

/* Rows from..to-1 of block m are queries together; out has one-hot values. */
static void expect_kept(const SparseOracle *o, int64_t m, int from, int to, Outs out, Count *c) {
    bool keep[N];
    double margin[N];
    for (int h = 0; h < H; h++) {
        oracle_keep(o, m, from, to, h, keep, margin);
        for (int64_t b = 0; b <= m; b++) {
            const bool kept = out[to - 1][h][b] != 0;
            c->kept += kept;
            c->left_out += !kept;
            c->near += margin[b] < 1e-4;
            c->chosen += kept && isfinite(margin[b]);
            if (kept != keep[b] && !(margin[b] < 1e-4))
                fail_msg("block %d, head %d: key block %d is %s, %g from the limit", (int)m, h, (int)b,
                         kept ? "kept" : "left out", margin[b]);
            for (int i = from; i < to; i++) /* all rows of the block choose alike */
                if ((out[i][h][b] != 0) != kept)
                    fail_msg("row %d, head %d: key block %d is not as in its last row", i, h, (int)b);
        }
    }
}

static void expect_choice(const Setup *s, int n, int chunk, Outs out, Count *c) {
    const SparseOracle o = oracle_of(s, n);
    for (int at = 0; at < n;) {
        const int call = chunk ? (at / chunk + 1) * chunk : n, block = (int)((at / s->p.block + 1) * s->p.block);
        int to = call < block ? call : block;
        to = to < n ? to : n;
        expect_kept(&o, at / s->p.block, at, to, out, c);
        at = to;
    }
}

/* ==== Tests ==== */

static void choice_is_the_definition(void **unused) {
    (void)unused;
    static const double alphas[] = {0.02, 0.12, 0.3, 0.6, 0.9};
    Count c = {0};
    for (size_t i = 0; i < 4 * COUNTOF(alphas); i++) {
        Setup s = setup(usual);
        s.p.alpha = alphas[i % COUNTOF(alphas)];
        s.p.block = i % 3 ? 16 : 24;
        s.p.sink = lab_int(0, 2);
        s.p.local = lab_int(1, 3);
        s.p.tail = lab_int(0, 2);
        s.scored = i % 2;
        s.from = i % 4 ? 0 : lab_int(0, N / 2);
        s.k = types[i % COUNTOF(types)];
        random_rows(&rows, 1.5, s.p.block);
        one_hot(&rows, s.p.block);
        const int n = (int)lab_int(17, N);
        run(&s, &rows, n, 0, whole);
        expect_choice(&s, n, 0, whole, &c);
    }
    printf("%lld kept, %lld of them by their score, %lld left out, %lld near the limit\n", (long long)c.kept,
           (long long)c.chosen, (long long)c.left_out, (long long)c.near);
    assert_true(c.chosen > 200 && c.left_out > 400 && c.near * 50 < c.chosen);
}

static void results_are_the_softmax_over_what_is_kept(void **unused) {
    (void)unused;
    bool keep[N];
    double margin[N], want[D];
    for (int i = 0; i < 6; i++) {
        Setup s = setup(usual);
        s.scored = i % 2;
        random_rows(&rows, 1.5, s.p.block);
        const int n = (int)lab_int(200, N);
        run(&s, &rows, n, 0, whole);
        const SparseOracle o = oracle_of(&s, n);
        for (int q = 0; q < n; q++)
            for (int h = 0; h < H; h++) {
                const int first = (int)(q / s.p.block * s.p.block), end = first + (int)s.p.block;
                oracle_keep(&o, q / s.p.block, first, end < n ? end : n, h, keep, margin);
                oracle_attend(&o, q, h, keep, want);
                bool near = false;
                for (int b = 0; b <= q / s.p.block; b++)
                    near = near || margin[b] < 1e-4;
                for (int d = 0; d < D && !near; d++)
                    if (!(fabs(whole[q][h][d] - want[d]) < 2e-5))
                        fail_msg("row %d head %d [%d] is %g, not %g", q, h, d, whole[q][h][d], want[d]);
            }
    }
}

/* A block of keys that the queries of one block point at, far from what is kept anyway. */
static void needles_are_found(void **unused) {
    (void)unused;
    for (int i = 0; i < 20; i++) {
        Setup s = setup(usual);
        s.threads = 1 + i % 2;
        random_rows(&rows, 0, s.p.block);
        one_hot(&rows, s.p.block);
        const int h = (int)lab_int(0, H - 1), query = (int)lab_int(8, N / 16 - 2), needle = (int)lab_int(2, query - 3);
        for (int j = 0; j < 16; j++)
            for (int d = 0; d < D; d++) {
                const float x = d % 3 ? 0.7f : -0.7f;
                rows.k[needle * 16 + j][h / 2][d] += x;
                rows.q[query * 16 + j][h][d] += x;
            }
        run(&s, &rows, N, 0, whole);
        for (int j = 0; j < 16; j++)
            assert_true(whole[query * 16 + j][h][needle] > 0);
    }
}

static void same_as_dense(const Setup *s, int n, int chunk) {
    Setup dense = *s;
    dense.dense = true;
    run(s, &rows, n, chunk, whole);
    run(&dense, &rows, n, 0, other);
    assert_memory_equal(whole, other, sizeof(Outs));
}

static void alpha_0_is_dense_to_the_bit(void **unused) {
    (void)unused;
    for (size_t i = 0; i < COUNTOF(types) * COUNTOF(types); i++) {
        Setup s = setup(usual);
        s.p.alpha = 0;
        s.k = types[i % COUNTOF(types)];
        s.v = types[i / COUNTOF(types)];
        random_rows(&rows, 1.5, 16);
        same_as_dense(&s, (int)lab_int(100, N), i % 2 ? 48 : 0);
    }
}

/* Few keys: no block is left that could be left out; or all queries are of the tail, or before `from`. */
static void short_prompts_are_dense_to_the_bit(void **unused) {
    (void)unused;
    static const int lengths[] = {17, 31, 32, 33, 47, 48};
    Setup s = setup(usual);
    random_rows(&rows, 1.5, 16);
    for (size_t i = 0; i < COUNTOF(lengths); i++)
        same_as_dense(&s, lengths[i], 0);
    s.p.tail = 20;
    same_as_dense(&s, N, 0);
    s.p.tail = 0;
    s.from = N;
    same_as_dense(&s, N - 1, 0);
    s.from = 0;
    s.p.local = 64;
    same_as_dense(&s, N - 1, 0);
    /* Calls of as many rows as decoding has go its way. */
    s.p = usual;
    same_as_dense(&s, N, 16);
}

static void calls_of_whole_blocks_do_not_matter(void **unused) {
    (void)unused;
    static const int chunks[] = {32, 48, 96, 160, 256};
    for (size_t i = 0; i < COUNTOF(chunks); i++) {
        Setup s = setup(usual);
        s.p.tail = (int64_t)i;
        s.k = types[i];
        random_rows(&rows, 1.5, 16);
        run(&s, &rows, N - 5, 0, whole);
        run(&s, &rows, N - 5, chunks[i], other);
        assert_memory_equal(whole, other, sizeof(Outs));
        s.threads = 3;
        run(&s, &rows, N - 5, 0, other);
        assert_memory_equal(whole, other, sizeof(Outs));
    }
}

/* Other calls cut blocks of queries, each part of which chooses for itself. */
static void cut_blocks_choose_for_themselves(void **unused) {
    (void)unused;
    static const int chunks[] = {17, 40, 100};
    Count c = {0};
    for (size_t i = 0; i < COUNTOF(chunks); i++) {
        Setup s = setup(usual);
        s.p.tail = 0;
        random_rows(&rows, 1.5, 16);
        one_hot(&rows, 16);
        const int n = N / chunks[i] * chunks[i];
        run(&s, &rows, n, chunks[i], whole);
        expect_choice(&s, n, chunks[i], whole, &c);
    }
    assert_true(c.left_out > 1000);
}

/* Wanted rows alone are the queries; few of them go the way of decode, though the call is long. */
static void wanted_rows_choose_for_themselves(void **unused) {
    (void)unused;
    Setup s = setup(usual), dense = s;
    s.wanted = dense.wanted = dense.dense = true;
    s.p.tail = 0;
    Count c = {0};
    random_rows(&rows, 1.5, 16);
    one_hot(&rows, 16);
    memcpy(&held, &rows, sizeof held);
    const SparseOracle o = oracle_of(&s, N);
    for (int i = 0; i < 16; i++) {
        const int n = i % 4 ? (int)lab_int(17, 32) : (int)lab_int(1, 16), from = (int)lab_int(80, N - n);
        const Setup *const ways[] = {&s, &dense};
        int32_t wanted[32];
        for (int t = 0; t < n; t++)
            wanted[t] = from + t;
        for (int w = 0; w < 2; w++) {
            Machine m = machine(ways[w]);
            assert_true(step(&m, &rows, 0, N, 0, wanted, n, w ? other : whole));
            machine_free(&m);
        }
        if (n <= 16)
            assert_memory_equal(whole[from], other[from], (size_t)n * sizeof whole[0]);
        for (int at = from, to; n > 16 && at < from + n; at = to) {
            to = (at / 16 + 1) * 16 < from + n ? (at / 16 + 1) * 16 : from + n;
            expect_kept(&o, at / 16, at, to, whole, &c);
        }
    }
    assert_true(c.left_out > 100);
}

/* Two sequences in one call, rows of one behind those of the other. */
static void sequences_beside_do_not_matter(void **unused) {
    (void)unused;
    enum { A = 200, B = 100 };
    static float q[A + B][H][D], k[A + B][KV][D], v[A + B][KV][D], got[A + B][H][D];
    int32_t pos[A + B], slot[A + B];
    Setup s = setup(usual);
    random_rows(&rows, 1.5, 16);
    random_rows(&others, 1.5, 16);
    for (int i = 0; i < A + B; i++) {
        const Rows *r = i < A ? &rows : &others;
        pos[i] = i < A ? i : i - A;
        slot[i] = i >= A;
        memcpy(q[i], r->q[pos[i]], sizeof q[i]);
        memcpy(k[i], r->k[pos[i]], sizeof k[i]);
        memcpy(v[i], r->v[pos[i]], sizeof v[i]);
    }
    Machine m = machine(&s);
    EvalInput in[] = {{"q", q}, {"k", k}, {"v", v}, {"pos", pos}};
    EvalOutput o = {"out", &got[0][0][0]};
    EvalCall call = {.graph = m.l->g, .T = A + B, .slots = slot, .inputs = in, .n_inputs = 4, .outputs = &o};
    call.n_outputs = 1;
    assert_true(eval_call(m.e, &call, m.l->diag));
    machine_free(&m);
    run(&s, &rows, A, 0, whole);
    run(&s, &others, B, 0, other);
    assert_memory_equal(got, whole, A * sizeof got[0]);
    assert_memory_equal(got + A, other, B * sizeof got[0]);
}

/* A NaN reaches every row that sees it in the dense way, and moves nothing before it. */
static void a_nan_is_not_hidden(void **unused) {
    (void)unused;
    for (int i = 0; i < 6; i++) {
        const int at = (int)lab_int(40, N - 40), h = i % KV;
        Setup s = setup(usual);
        random_rows(&rows, 1.5, 16);
        run(&s, &rows, N, 0, other);
        rows.k[at][h][lab_int(0, D - 1)] = NAN;
        run(&s, &rows, N, 0, whole);
        assert_memory_equal(whole, other, (size_t)(at / 16 * 16) * sizeof whole[0]);
        for (int t = at; t < N; t++)
            for (int q = 0; q < H; q++)
                if (isnan(whole[t][q][0]) != (q / 2 == h))
                    fail_msg("NaN at %d of head %d: row %d head %d is %g", at, h, t, q, whole[t][q][0]);
    }
}

/* Positions that nobody stored are missed, though their block might have been left out. */
static void a_gap_is_an_error(void **unused) {
    (void)unused;
    Setup s = setup(usual);
    Machine m = machine(&s);
    random_rows(&rows, 1.5, 16);
    assert_true(step(&m, &rows, 0, 70, 1000, NULL, 0, whole));
    assert_false(step(&m, &rows, 90, 200, 0, NULL, 0, whole));
    assert_true(diag_errors(m.l->diag) == 1);
    machine_free(&m);
}

int main(int argc, char **argv) {
    lab_seed(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choice_is_the_definition),
        cmocka_unit_test(results_are_the_softmax_over_what_is_kept),
        cmocka_unit_test(needles_are_found),
        cmocka_unit_test(alpha_0_is_dense_to_the_bit),
        cmocka_unit_test(short_prompts_are_dense_to_the_bit),
        cmocka_unit_test(calls_of_whole_blocks_do_not_matter),
        cmocka_unit_test(cut_blocks_choose_for_themselves),
        cmocka_unit_test(wanted_rows_choose_for_themselves),
        cmocka_unit_test(sequences_beside_do_not_matter),
        cmocka_unit_test(a_nan_is_not_hidden),
        cmocka_unit_test(a_gap_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
