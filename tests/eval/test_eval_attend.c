/* test_eval_attend.c - attention and caches: every kind of variant against an f64 oracle, and the same bits
 * whatever the chunks, the cache layout, the sequences beside it and the threads.
 */
#include "tests/eval/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 4, KV = 2, DK = 33, DV = 17, MAX_POS = 400, SLOTS = 3 };

/* ==== Variants: as an expression of the IR, and as C ==== */

typedef struct Look {
    const char *name;
    bool (*visible)(int64_t q, int64_t k, int h);
    double (*score)(double s, int64_t q, int64_t k, int h);
    double (*sink)(int h);
    int64_t lookback; /* -1: no bound */
} Look;

static float sinks[H]; /* a weight: the table of look_custom and look_window */

static bool causal(int64_t q, int64_t k, int h) {
    (void)h;
    return k <= q;
}
static bool near_by(int64_t q, int64_t k, int h) {
    (void)h;
    return k <= q && q - k < 20;
}
static bool odd(int64_t q, int64_t k, int h) {
    return k <= q && (q - k < 7 + h || k % 5 == 0);
}
static bool all(int64_t q, int64_t k, int h) {
    (void)q, (void)k, (void)h;
    return true;
}
static double capped(double s, int64_t q, int64_t k, int h) {
    return 9 * tanh(s / 9) - 0.0625 * (double)(q - k) * (h + 1);
}
static double masked(double s, int64_t q, int64_t k, int h) {
    (void)q, (void)h;
    return k % 3 ? s : -INFINITY;
}
static double table_sink(int h) {
    return sinks[h];
}

static const Look looks[] = {
    {"full", causal, NULL, NULL, -1},
    {"window", near_by, NULL, table_sink, 19},
    {"custom", odd, capped, table_sink, -1},
    {"masked", causal, masked, NULL, -1},
    {"all", all, NULL, NULL, -1},
};
enum { FULL, WINDOW, CUSTOM, MASKED, ALL };

static const Scalar *c(Lab *l, double v) {
    return scalar_const(l->arena, v, NO_LOC);
}
static const Scalar *leaf(Lab *l, ScalarOp op) {
    return scalar_new(l->arena, op, NULL, NULL, NULL, NO_LOC);
}
static const Scalar *un(Lab *l, ScalarOp op, const Scalar *x) {
    return scalar_new(l->arena, op, x, NULL, NULL, NO_LOC);
}
static const Scalar *bi(Lab *l, ScalarOp op, const Scalar *x, const Scalar *y) {
    return scalar_new(l->arena, op, x, y, NULL, NO_LOC);
}

static Variant variant_of(Lab *l, int look) {
    const Scalar *q = leaf(l, SC_Q), *k = leaf(l, SC_K), *s = leaf(l, SC_S), *h = leaf(l, SC_H);
    const Scalar *past = bi(l, SC_LE, k, q), *distance = bi(l, SC_SUB, q, k);
    Variant v = {.name = looks[look].name, .visible = past};
    if (look == WINDOW)
        v.visible = bi(l, SC_AND, past, bi(l, SC_LT, distance, c(l, 20)));
    if (look == CUSTOM) {
        const Scalar *close = bi(l, SC_LT, distance, bi(l, SC_ADD, c(l, 7), h));
        v.visible = bi(l, SC_AND, past, bi(l, SC_OR, close, bi(l, SC_EQ, bi(l, SC_MOD, k, c(l, 5)), c(l, 0))));
        const Scalar *cap = bi(l, SC_MUL, c(l, 9), un(l, SC_TANH, bi(l, SC_DIV, s, c(l, 9))));
        const Scalar *slope = bi(l, SC_MUL, c(l, 0.0625), bi(l, SC_ADD, h, c(l, 1)));
        v.score = bi(l, SC_SUB, cap, bi(l, SC_MUL, slope, distance));
    }
    if (look == MASKED)
        v.score = scalar_new(l->arena, SC_SELECT, bi(l, SC_MOD, k, c(l, 3)), s, c(l, -INFINITY), NO_LOC);
    if (look == ALL)
        v.visible = c(l, 1);
    if (looks[look].sink) {
        int64_t dim = H;
        int w = module_add_weight(l->m, (Weight){.name = "sinks", .type = type_make(DT_F32, 1, &dim)});
        l->data[w] = sinks;
        v.sink = scalar_table(l->arena, w, h, NO_LOC);
    }
    return v;
}

/* ==== Sequences ==== */

typedef struct Sequence {
    float q[MAX_POS][H][DK], k[MAX_POS][KV][DK], v[MAX_POS][KV][DV];
    float out[MAX_POS][H][DV];
} Sequence;

static void fill(float *x, size_t n, double size) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)lab_real(-size, size);
}

static void random_sequence(Sequence *s, double size) {
    fill(&s->q[0][0][0], sizeof s->q / sizeof(float), size);
    fill(&s->k[0][0][0], sizeof s->k / sizeof(float), size);
    fill(&s->v[0][0][0], sizeof s->v / sizeof(float), 1);
    for (int h = 0; h < H; h++)
        sinks[h] = (float)lab_real(-1, 2);
}

static const double scale = 0.25;

/* The definition. Keys: the stored positions below n_stored, then own rows at positions own..own + n_own - 1. */
static void oracle(const Look *look, const Sequence *s, int64_t q, int64_t n_stored, const Sequence *own_seq,
                   int64_t own, int64_t n_own, double out[H][DV]) {
    for (int h = 0; h < H; h++) {
        double logit[2 * MAX_POS], most = look->sink ? look->sink(h) : -INFINITY, sum;
        for (int64_t i = 0; i < n_stored + n_own; i++) {
            const Sequence *from = i < n_stored ? s : own_seq;
            int64_t k = i < n_stored ? i : own + i - n_stored;
            double dot = 0;
            for (int d = 0; d < DK; d++)
                dot += (double)own_seq->q[q][h][d] * from->k[k][h / (H / KV)][d];
            logit[i] = !look->visible(q, k, h) ? -INFINITY
                       : look->score           ? look->score(scale * dot, q, k, h)
                                               : scale * dot;
            most = fmax(most, logit[i]);
        }
        sum = look->sink ? exp(look->sink(h) - most) : 0;
        memset(out[h], 0, sizeof out[h]);
        for (int64_t i = 0; i < n_stored + n_own; i++) {
            const float *v = (i < n_stored ? s : own_seq)->v[i < n_stored ? i : own + i - n_stored][h / (H / KV)];
            double w = most == -INFINITY ? 0 : exp(logit[i] - most);
            sum += w;
            for (int d = 0; d < DV; d++)
                out[h][d] += w * v[d];
        }
        for (int d = 0; d < DV; d++)
            out[h][d] = sum == 0 ? 0 : out[h][d] / sum;
    }
}

static void expect_oracle(const Look *look, const Sequence *s, int64_t n, double tol) {
    double want[H][DV];
    for (int64_t q = 0; q < n; q++) {
        oracle(look, s, q, look->visible(q, q + 1, 0) ? n : q + 1, s, 0, 0, want);
        for (int h = 0; h < H; h++)
            for (int d = 0; d < DV; d++)
                if (!(fabs(s->out[q][h][d] - want[h][d]) <= tol))
                    fail_msg("%s: query %lld head %d [%d] is %.9g, not %.9g", look->name, (long long)q, h, d,
                             s->out[q][h][d], want[h][d]);
    }
}

/* ==== Machines: one graph that stores and attends ==== */

typedef struct Machine {
    Lab *l;
    Evaluator *e;
} Machine;

static KvLayout linear_layout(void) {
    return (KvLayout){.heads = KV, .k_dim = DK, .v_dim = DV};
}

static KvLayout ring_layout(int64_t lookback, int64_t chunk) {
    KvLayout l = {.heads = KV, .k_dim = DK, .v_dim = DV, .planned = true, .ring = true, .lookback = lookback};
    l.capacity = lookback + chunk;
    l.k_row = KV * DK * 4;
    l.v_row = KV * DV * 4;
    l.bytes = l.capacity * (l.k_row + l.v_row);
    return l;
}

/* wanted: the queries are the rows `rows` of the call. own: nothing is stored, keys and values go in as own rows. */
static Machine machine(int look, KvLayout layout, int threads, bool wanted, bool own) {
    Lab *l = lab_new(1, 1);
    Graph *g = l->g;
    NodeId q = ir_input(g, "q", type_make(DT_F32, DIMS(DIM_T, H, DK)), NO_LOC);
    NodeId k = ir_input(g, "k", type_make(DT_F32, DIMS(DIM_T, KV, DK)), NO_LOC);
    NodeId v = ir_input(g, "v", type_make(DT_F32, DIMS(DIM_T, KV, DV)), NO_LOC);
    NodeId pos = ir_input(g, "pos", type_make(DT_I32, DIMS(DIM_T)), NO_LOC);
    NodeId at = pos;
    NodeId kv = ir_cache(g, module_add_cache(l->m, (Cache){.name = "kv.0", .layout = layout}), NO_LOC);
    Attr attr[2] = {{.i = module_add_variant(l->m, variant_of(l, look))}, {.f = scale}};
    if (wanted) {
        NodeId rows = ir_input(g, "rows", type_make(DT_I32, DIMS(DIM_R)), NO_LOC);
        q = ir_op2(g, OP_ROWS, q, rows, NULL, NO_LOC);
        at = ir_op2(g, OP_ROWS, pos, rows, NULL, NO_LOC);
    }
    if (!own) {
        kv = ir_node(g, OP_KV_STORE, (NodeId[]){kv, k, v, pos}, 4, NULL, NULL, NULL, NO_LOC);
        ir_output(g, OUT_KEEP, "kv.0", kv, NO_LOC);
    }
    NodeId out = ir_node(g, OP_ATTEND, (NodeId[]){q, kv, at, k, v}, own ? 5 : 3, attr, NULL, NULL, NO_LOC);
    ir_output(g, OUT_EMIT, "out", out, NO_LOC);
    lab_no_errors(l);
    Machine m = {l, eval_new(l->m, l->data, &(EvalOptions){.threads = threads, .slots = SLOTS, .context = MAX_POS})};
    lab_no_errors(l);
    return m;
}

static void machine_free(Machine *m) {
    eval_free(m->e);
    lab_free(m->l);
}

typedef struct Row {
    int32_t slot, pos;
} Row;

/* One call of the given rows; results go to the sequences. rows_wanted NULL: all. */
static bool step(Machine *m, Sequence *const *seq, const Row *row, int64_t T, const int32_t *wanted, int64_t R) {
    static float q[MAX_POS][H][DK], k[MAX_POS][KV][DK], v[MAX_POS][KV][DV], out[MAX_POS][H][DV];
    static int32_t pos[MAX_POS], slots[MAX_POS];
    for (int64_t t = 0; t < T; t++) {
        const Sequence *s = seq[row[t].slot];
        pos[t] = row[t].pos;
        slots[t] = row[t].slot;
        memcpy(q[t], s->q[pos[t]], sizeof q[t]);
        memcpy(k[t], s->k[pos[t]], sizeof k[t]);
        memcpy(v[t], s->v[pos[t]], sizeof v[t]);
    }
    EvalInput in[] = {{"q", q}, {"k", k}, {"v", v}, {"pos", pos}, {"rows", wanted}};
    EvalOutput o = {"out", &out[0][0][0]};
    EvalCall call = {.graph = m->l->g,
                     .T = T,
                     .R = R,
                     .slots = slots,
                     .inputs = in,
                     .n_inputs = wanted ? 5 : 4,
                     .outputs = &o,
                     .n_outputs = 1};
    if (!eval_call(m->e, &call, m->l->diag))
        return false;
    for (int64_t i = 0; i < (wanted ? R : T); i++) {
        const Row *x = &row[wanted ? wanted[i] : i];
        memcpy(seq[x->slot]->out[x->pos], out[i], sizeof out[i]);
    }
    return true;
}

/* Positions from..to-1 of slot 0 in calls of at most `chunk` rows (0: exactly one). */
static void feed(Machine *m, Sequence *s, int64_t from, int64_t to, int64_t chunk) {
    Row row[MAX_POS];
    while (from < to) {
        int64_t n = chunk ? lab_int(1, chunk) : to - from;
        n = n < to - from ? n : to - from;
        for (int64_t i = 0; i < n; i++)
            row[i] = (Row){0, (int32_t)(from + i)};
        bool ok = step(m, &s, row, n, NULL, 0);
        lab_no_errors(m->l);
        assert_true(ok);
        from += n;
    }
}

static void run_all(int look, KvLayout layout, int threads, Sequence *s, int64_t n, int64_t chunk) {
    Machine m = machine(look, layout, threads, false, false);
    memset(s->out, 0xff, sizeof s->out);
    feed(&m, s, 0, n, chunk);
    machine_free(&m);
}

/* ==== Tests ==== */

static Sequence a, b, d;

static void variants_match_the_definition(void **unused) {
    (void)unused;
    for (size_t i = 0; i < COUNTOF(looks); i++) {
        random_sequence(&a, 1.5);
        run_all((int)i, linear_layout(), 2, &a, 150, 0);
        expect_oracle(&looks[i], &a, 150, 2e-5);
    }
}

static void large_logits_stay_finite(void **unused) {
    (void)unused;
    for (size_t i = 0; i < COUNTOF(looks); i++) {
        random_sequence(&a, 90);
        run_all((int)i, linear_layout(), 2, &a, 70, 0);
        for (int64_t q = 0; q < 70; q++)
            for (int h = 0; h < H; h++)
                for (int e = 0; e < DV; e++)
                    assert_true(fabsf(a.out[q][h][e]) <= 1.0001f);
    }
}

static void chunks_and_threads_do_not_matter(void **unused) {
    (void)unused;
    static const int64_t chunks[] = {1, 2, 5, 8, 16, 77};
    const int64_t n = 150;
    for (int look = FULL; look < ALL; look++) {
        random_sequence(&a, 1);
        run_all(look, linear_layout(), 1, &a, n, 0);
        for (size_t i = 0; i < COUNTOF(chunks); i++) {
            b = a;
            run_all(look, linear_layout(), 2, &b, n, chunks[i]);
            assert_memory_equal(a.out, b.out, (size_t)n * sizeof a.out[0]);
        }
    }
}

/* 19 back, 16 a call: 35 places; 150 positions go round four times. */
static void rings_are_like_linear_caches(void **unused) {
    (void)unused;
    const int64_t n = 150, chunk = 16, lookback = looks[WINDOW].lookback;
    random_sequence(&a, 1);
    run_all(WINDOW, linear_layout(), 2, &a, n, 0);
    expect_oracle(&looks[WINDOW], &a, n, 2e-5);
    b = a;
    Machine m = machine(WINDOW, ring_layout(lookback, chunk), 2, false, false);
    memset(b.out, 0xff, sizeof b.out);
    feed(&m, &b, 0, n, chunk);
    assert_true(n > 4 * m.l->m->caches.v[0].layout.capacity);
    assert_memory_equal(a.out, b.out, (size_t)n * sizeof a.out[0]);
    assert_int_equal(eval_cache_bytes(m.e), m.l->m->caches.v[0].layout.bytes);
    float k[KV][DK], v[KV][DV];
    for (int64_t p = 0; p < n; p++) {
        assert_int_equal(eval_cache_row(m.e, 0, 0, p, &k[0][0], &v[0][0]), p >= n - (lookback + chunk));
        if (p >= n - (lookback + chunk)) {
            assert_memory_equal(k, b.k[p], sizeof k);
            assert_memory_equal(v, b.v[p], sizeof v);
        }
    }
    machine_free(&m);
}

static void expect_message(Machine *m, const char *part) {
    char *text = diag_text(m->l->diag);
    if (diag_errors(m->l->diag) != 1 || !strstr(text, part))
        fail_msg("wanted '%s', got: %s", part, text);
    free(text);
    diag_clear(m->l->diag);
}

static void lost_positions_are_errors(void **unused) {
    (void)unused;
    KvLayout small = ring_layout(looks[WINDOW].lookback, 4);
    random_sequence(&a, 1);
    Sequence *seq[1] = {&a};
    Row row[16];
    Machine m = machine(WINDOW, small, 2, false, false);
    feed(&m, &a, 0, 60, 4);
    for (int i = 0; i < 16; i++) /* 16 rows at once push out what the first of them sees */
        row[i] = (Row){0, 60 + i};
    assert_false(step(&m, seq, row, 16, NULL, 0));
    expect_message(&m, "the query at position 60 sees position 41, which cache 'kv.0' no longer holds (it keeps 23)");
    machine_free(&m);

    m = machine(FULL, linear_layout(), 2, false, false);
    feed(&m, &a, 0, 5, 0);
    row[0] = (Row){0, 7}; /* 5 and 6 were never stored */
    assert_false(step(&m, seq, row, 1, NULL, 0));
    expect_message(&m, "the query at position 7 sees position 5, which cache 'kv.0' does not hold");
    machine_free(&m);
}

static void sequences_do_not_meet(void **unused) {
    (void)unused;
    const int64_t n = 90;
    random_sequence(&a, 1);
    random_sequence(&b, 1);
    d = a;
    static Sequence e;
    e = b;
    run_all(WINDOW, linear_layout(), 2, &a, n, 0);
    run_all(WINDOW, linear_layout(), 2, &b, n, 0);
    Machine m = machine(WINDOW, ring_layout(looks[WINDOW].lookback, 8), 2, true, false);
    Sequence *seq[SLOTS] = {&d, NULL, &e};
    int32_t next[SLOTS] = {0, (int32_t)n, 0};
    while (next[0] < n || next[2] < n) {
        Row row[8];
        int32_t wanted[8];
        int64_t T = 0, want = lab_int(1, 8);
        while (T < want && (next[0] < n || next[2] < n)) {
            int slot = lab_int(0, 1) ? 0 : 2;
            if (next[slot] < n)
                row[T++] = (Row){slot, next[slot]++};
        }
        for (int64_t i = 0; i < T; i++) /* all rows, in another order */
            wanted[i] = (int32_t)(T - 1 - i);
        bool ok = step(&m, seq, row, T, wanted, T);
        lab_no_errors(m.l);
        assert_true(ok);
    }
    assert_memory_equal(a.out, d.out, (size_t)n * sizeof a.out[0]);
    assert_memory_equal(b.out, e.out, (size_t)n * sizeof b.out[0]);
    machine_free(&m);
}

/* The cache is filled by one graph of a module; here the same module needs two graphs. */
static void own_rows_are_seen_and_not_stored(void **unused) {
    (void)unused;
    enum { STORED = 40, OWN = 9 };
    random_sequence(&b, 1);
    random_sequence(&a, 1);
    for (int look = FULL; look <= ALL; look++) {
        Machine m = machine(look, linear_layout(), 2, false, false), o = machine(look, linear_layout(), 2, true, true);
        Graph *store = m.l->g;
        Machine with_own = {m.l, m.e};
        feed(&m, &a, 0, STORED, 7);
        with_own.l->g = o.l->g; /* same caches, variants and weights by index */
        Row row[2 * OWN];
        int32_t wanted[OWN];
        Sequence *seq[2] = {&a, &b};
        for (int i = 0; i < OWN; i++) { /* rows of another sequence between them, at the same positions */
            row[2 * i] = (Row){1, STORED + i};
            row[2 * i + 1] = (Row){0, STORED + i};
        }
        for (int R = OWN; R >= 1; R -= 4) {
            for (int i = 0; i < R; i++)
                wanted[i] = 2 * (OWN - 1 - i) + 1;
            memset(a.out, 0xff, sizeof a.out);
            bool ok = step(&with_own, seq, row, 2 * OWN, wanted, R);
            lab_no_errors(m.l);
            assert_true(ok);
            for (int i = 0; i < R; i++) {
                double want[H][DV];
                int64_t q = row[wanted[i]].pos;
                oracle(&looks[look], &a, q, STORED, &a, STORED, OWN, want);
                for (int h = 0; h < H; h++)
                    for (int e = 0; e < DV; e++)
                        assert_true(fabs(a.out[q][h][e] - want[h][e]) <= 2e-5);
            }
        }
        float k[KV][DK], v[KV][DV];
        assert_true(eval_cache_row(m.e, 0, 0, STORED - 1, &k[0][0], &v[0][0]));
        assert_false(eval_cache_row(m.e, 0, 0, STORED, &k[0][0], &v[0][0]));
        with_own.l->g = store;
        machine_free(&m);
        machine_free(&o);
    }
}

static void truncated_positions_are_forgotten(void **unused) {
    (void)unused;
    const int64_t n = 120;
    for (int look = FULL; look <= WINDOW; look++) {
        KvLayout layout = look == FULL ? linear_layout() : ring_layout(looks[WINDOW].lookback, 16 + 10);
        random_sequence(&a, 1);
        random_sequence(&d, 1); /* wrong rows, later taken back */
        run_all(look, linear_layout(), 2, &a, n, 0);
        b = a;
        memset(b.out, 0xff, sizeof b.out);
        Machine m = machine(look, layout, 2, false, false);
        for (int64_t at = 0; at < n; at += 15) {
            feed(&m, &b, at, at + 15, 16);
            if (at + 25 <= n)
                feed(&m, &d, at + 15, at + 25, 10);
            eval_truncate(m.e, 0, at + 15);
        }
        assert_memory_equal(a.out, b.out, (size_t)n * sizeof a.out[0]);
        eval_truncate(m.e, 0, 0);
        float k[KV][DK], v[KV][DV];
        for (int64_t p = 0; p < n; p++)
            assert_false(eval_cache_row(m.e, 0, 0, p, &k[0][0], &v[0][0]));
        machine_free(&m);
    }
}

static void small_types_round_and_nothing_else(void **unused) {
    (void)unused;
    static const DType types[] = {DT_F16, DT_BF16};
    for (size_t i = 0; i < COUNTOF(types); i++) {
        KvLayout layout = linear_layout();
        layout.k_type = types[i];
        layout.v_type = types[1 - i];
        random_sequence(&a, 1);
        run_all(CUSTOM, layout, 2, &a, 100, 9);
        b = a; /* rounded beforehand, kept as f32: the same bits */
        for (int64_t p = 0; p < MAX_POS; p++)
            for (int x = 0; x < KV * (DK > DV ? DK : DV); x++) {
                float *k = &b.k[p][0][0] + x, *v = &b.v[p][0][0] + x;
                if (x < KV * DK)
                    *k = i ? bf16_to_f32(f32_to_bf16(*k)) : f16_to_f32(f32_to_f16(*k));
                if (x < KV * DV)
                    *v = i ? f16_to_f32(f32_to_f16(*v)) : bf16_to_f32(f32_to_bf16(*v));
            }
        d = b;
        run_all(CUSTOM, linear_layout(), 2, &d, 100, 0);
        assert_memory_equal(a.out, d.out, 100 * sizeof a.out[0]);
    }
}

static void bad_positions_are_errors(void **unused) {
    (void)unused;
    random_sequence(&a, 1);
    Machine m = machine(FULL, linear_layout(), 2, false, false);
    EvalInput in[] = {{"q", a.q}, {"k", a.k}, {"v", a.v}, {"pos", (int32_t[]){0, MAX_POS}}};
    EvalCall call = {.graph = m.l->g, .T = 2, .inputs = in, .n_inputs = 4};
    assert_false(eval_call(m.e, &call, m.l->diag));
    expect_message(&m, "position 400 is beyond the 400 positions that cache 'kv.0' holds");
    in[3].data = (int32_t[]){0, -1};
    assert_false(eval_call(m.e, &call, m.l->diag));
    expect_message(&m, "position -1 of row 1 is negative");
    call.slots = (int32_t[]){0, SLOTS};
    assert_false(eval_call(m.e, &call, m.l->diag));
    expect_message(&m, "row 1 is of sequence 3, but there are 3");
    machine_free(&m);
}

/* Types that caches do not have, and heads that are not whole blocks though all heads together are. */
static void layouts_that_hold_nothing_are_errors(void **unused) {
    (void)unused;
    static const struct {
        KvLayout layout;
        const char *says;
    } cases[] = {
        {{.heads = 2, .k_type = DT_Q4_K, .k_dim = 256, .v_dim = 256}, "heads of 256 elements as q4_k"},
        {{.heads = 2, .v_type = DT_KV, .k_dim = 32, .v_dim = 32}, "heads of 32 elements as kv"},
        {{.heads = 4, .k_type = DT_Q8_0, .k_dim = 40, .v_dim = 40}, "heads of 40 elements as q8_0"},
        {{.heads = 2, .v_type = DT_TQ3_0, .k_dim = 64, .v_dim = 64}, "heads of 64 elements as tq3_0"},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        Machine m = {.l = lab_new(1, 1)};
        module_add_cache(m.l->m, (Cache){.name = "kv.0", .layout = cases[i].layout});
        assert_null(eval_new(m.l->m, m.l->data, NULL));
        expect_message(&m, cases[i].says);
        lab_free(m.l);
    }
}

int main(int argc, char **argv) {
    lab_seed(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variants_match_the_definition),
        cmocka_unit_test(large_logits_stay_finite),
        cmocka_unit_test(chunks_and_threads_do_not_matter),
        cmocka_unit_test(rings_are_like_linear_caches),
        cmocka_unit_test(lost_positions_are_errors),
        cmocka_unit_test(sequences_do_not_meet),
        cmocka_unit_test(own_rows_are_seen_and_not_stored),
        cmocka_unit_test(truncated_positions_are_forgotten),
        cmocka_unit_test(small_types_round_and_nothing_else),
        cmocka_unit_test(bad_positions_are_errors),
        cmocka_unit_test(layouts_that_hold_nothing_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
