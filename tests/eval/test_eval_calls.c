/* test_eval_calls.c - whole calls of a small language model that uses most ops: the same bits whatever
 * the rows of a call, the threads and the places of results; and what a wrong call is told.
 */
#include "tests/eval/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { D = 64, HEADS = 4, KV = 2, HEAD = 16, FFN = 96, VOCAB = 101, EXPERTS = 5, CHOSEN = 2, N = 48 };

/* ==== The model ==== */

static NodeId op(Lab *l, Op o, int n_in, const NodeId *in, const Attr *attr) {
    return ir_node(l->g, o, in, n_in, attr, NULL, NULL, NO_LOC);
}

static NodeId linear(Lab *l, NodeId x, const char *name, DType t, int64_t out, int64_t in) {
    return ir_op2(l->g, OP_LINEAR, x, lab_weight(l, name, t, DIMS(out, in)), NULL, NO_LOC);
}

static NodeId norm(Lab *l, NodeId x) {
    return op(l, OP_RMS_NORM, 1, &x, (Attr[]){{.f = 1e-6}});
}

static NodeId heads(Lab *l, NodeId x, int64_t n) {
    return ir_reshape(l->g, x, type_make(DT_F32, DIMS(DIM_T, n, HEAD)), NULL, NO_LOC);
}

static NodeId attention(Lab *l, NodeId x, NodeId pos) {
    Attr rotary[3] = {{.f = 10000}, {.i = HEAD - 4}, {.f = 1}};
    const Scalar *q = scalar_new(l->arena, SC_Q, NULL, NULL, NULL, NO_LOC);
    const Scalar *k = scalar_new(l->arena, SC_K, NULL, NULL, NULL, NO_LOC);
    Variant full = {.name = "full", .visible = scalar_new(l->arena, SC_LE, k, q, NULL, NO_LOC)};
    Attr attr[2] = {{.i = module_add_variant(l->m, full)}, {.f = 0.25}};
    Cache cache = {.name = "kv.0", .layout = {.heads = KV, .k_dim = HEAD, .v_dim = HEAD}};
    NodeId qs = heads(l, linear(l, x, "q", DT_Q5_0, HEADS * HEAD, D), HEADS);
    NodeId ks = heads(l, linear(l, x, "k", DT_Q8_0, KV * HEAD, D), KV);
    NodeId vs = heads(l, linear(l, x, "v", DT_F16, KV * HEAD, D), KV);
    qs = op(l, OP_ROPE, 2, (NodeId[]){qs, pos}, rotary);
    ks = op(l, OP_ROPE, 2, (NodeId[]){ks, pos}, rotary);
    NodeId kv = ir_cache(l->g, module_add_cache(l->m, cache), NO_LOC);
    kv = op(l, OP_KV_STORE, 4, (NodeId[]){kv, ks, vs, pos}, NULL);
    ir_output(l->g, OUT_KEEP, "kv.0", kv, NO_LOC);
    NodeId o = op(l, OP_ATTEND, 3, (NodeId[]){qs, kv, pos}, attr);
    o = ir_reshape(l->g, o, type_make(DT_F32, DIMS(DIM_T, HEADS * HEAD)), NULL, NO_LOC);
    return linear(l, o, "o", DT_BF16, D, HEADS * HEAD);
}

static NodeId mixture(Lab *l, NodeId x) {
    NodeId p = ir_op1(l->g, OP_SOFTMAX, linear(l, x, "router", DT_F32, EXPERTS, D), NULL, NO_LOC);
    NodeId ids = op(l, OP_TOP_K, 1, &p, (Attr[]){{.i = CHOSEN}});
    NodeId c = op(l, OP_GATHER, 2, (NodeId[]){p, ids}, NULL);
    NodeId up = lab_weight(l, "up", DT_Q4_0, DIMS(EXPERTS, 2 * FFN, D));
    NodeId down = lab_weight(l, "down", DT_Q5_1, DIMS(EXPERTS, D, FFN));
    NodeId h = op(l, OP_LINEAR_EXPERTS, 3, (NodeId[]){x, up, ids}, NULL);
    NodeId gate = op(l, OP_SLICE, 1, &h, (Attr[]){{.i = 2}, {.i = 0}, {.i = FFN}});
    NodeId value = op(l, OP_SLICE, 1, &h, (Attr[]){{.i = 2}, {.i = FFN}, {.i = FFN}});
    h = ir_op2(l->g, OP_MUL, ir_op1(l->g, OP_GELU, gate, NULL, NO_LOC), value, NULL, NO_LOC);
    h = op(l, OP_LINEAR_EXPERTS, 3, (NodeId[]){h, down, ids}, NULL);
    return op(l, OP_COMBINE, 2, (NodeId[]){h, c}, NULL);
}

/* tokens, pos, rows -> logits [R, VOCAB]; tap h [T, D]. */
static Lab *model(void) {
    Lab *l = lab_new(1, 1);
    Graph *g = l->g;
    NodeId tokens = ir_input(g, "tokens", type_make(DT_I32, DIMS(DIM_T)), NO_LOC);
    NodeId pos = ir_input(g, "pos", type_make(DT_I32, DIMS(DIM_T)), NO_LOC);
    NodeId rows = ir_input(g, "rows", type_make(DT_I32, DIMS(DIM_R)), NO_LOC);
    NodeId table = lab_weight(l, "embed", DT_Q8_0, DIMS(VOCAB, D));
    NodeId h = norm(l, ir_op2(g, OP_EMBED, tokens, table, NULL, NO_LOC));
    h = ir_op2(g, OP_ADD, h, norm(l, attention(l, norm(l, h), pos)), NULL, NO_LOC);
    h = ir_op2(g, OP_ADD, h, norm(l, mixture(l, norm(l, h))), NULL, NO_LOC);
    ir_output(g, OUT_TAP, "h", h, NO_LOC);
    NodeId last = ir_op2(g, OP_ROWS, norm(l, h), rows, NULL, NO_LOC);
    ir_output(g, OUT_EMIT, "logits", ir_op2(g, OP_LINEAR, last, table, NULL, NO_LOC), NO_LOC);
    lab_no_errors(l);
    return l;
}

static int32_t tokens[N];

static void random_tokens(void) {
    for (int i = 0; i < N; i++)
        tokens[i] = (int32_t)lab_int(0, VOCAB - 1);
}

/* Positions 0 .. N-1 in calls of `chunk` rows; all logits. */
static void run_model(Lab *l, int threads, int chunk, float logits[N][VOCAB]) {
    static const int32_t zeros[N];
    Evaluator *e = eval_new(l->m, l->data, &(EvalOptions){.threads = threads});
    lab_no_errors(l);
    for (int at = 0; at < N; at += chunk) {
        int n = chunk < N - at ? chunk : N - at;
        int32_t pos[N], rows[N];
        for (int i = 0; i < n; i++) {
            pos[i] = at + i;
            rows[i] = n - 1 - i;
        }
        static float out[N][VOCAB];
        EvalInput in[] = {{"tokens", tokens + at}, {"pos", pos}, {"rows", rows}};
        EvalOutput o = {"logits", &out[0][0]};
        EvalCall call = {
            .graph = l->g, .T = n, .R = n, .slots = zeros, .inputs = in, .n_inputs = 3, .outputs = &o, .n_outputs = 1};
        bool ok = eval_call(e, &call, l->diag);
        lab_no_errors(l);
        assert_true(ok);
        for (int i = 0; i < n; i++)
            memcpy(logits[at + rows[i]], out[i], sizeof out[i]);
    }
    eval_free(e);
}

/* ==== Nothing but the numbers matters ==== */

static float want[N][VOCAB], got[N][VOCAB];

static void rows_and_threads_do_not_matter(void **unused) {
    (void)unused;
    static const int chunks[] = {1, 2, 5, 8, 16, N};
    Lab *l = model();
    random_tokens();
    run_model(l, 1, N, want);
    for (int i = 0; i < N; i++)
        for (int v = 0; v < VOCAB; v++)
            assert_true(isfinite(want[i][v]));
    assert_true(memcmp(want[0], want[1], sizeof want[0]) != 0);
    for (size_t c = 0; c < COUNTOF(chunks); c++)
        for (int threads = 1; threads <= 3; threads++) {
            memset(got, 0xff, sizeof got);
            run_model(l, threads, chunks[c], got);
            assert_memory_equal(want, got, sizeof want);
        }
    lab_free(l);
}

/* ==== The slab ==== */

/* Every result in a region of its own, for `rows` rows. */
static void plan(Graph *g, int64_t rows) {
    int64_t end = 0;
    for (int id = 1; id < g->nodes.n; id++) {
        Node *n = ir_get(g, (NodeId)id);
        if (n->type.dtype == DT_KV || op_info(n->op)->flags & (OPF_LEAF | OPF_VIEW))
            continue;
        n->slab = end;
        end += type_row_elems(&n->type) * (type_has_rows(&n->type) ? rows : 1) * 4;
    }
    g->slab_bytes = end;
    g->slab_rows = g->slab_wanted = rows;
}

static Node *first(Graph *g, Op o) {
    int id = 1;
    while (ir_get(g, (NodeId)id)->op != o)
        id++;
    return ir_get(g, (NodeId)id);
}

static void the_slab_is_used(void **unused) {
    (void)unused;
    Lab *l = model();
    random_tokens();
    run_model(l, 2, 6, want);
    plan(l->g, 6);
    run_model(l, 2, 6, got);
    assert_memory_equal(want, got, sizeof want);
    first(l->g, OP_COMBINE)->slab = first(l->g, OP_ADD)->slab; /* written while the sum is still needed: it shows */
    run_model(l, 2, 6, got);
    assert_true(memcmp(want, got, sizeof want) != 0);
    lab_free(l);
}

/* ==== Only what is wanted ==== */

static void unwanted_outputs_are_not_computed(void **unused) {
    (void)unused;
    Lab *l = model();
    NodeId extra = ir_input(l->g, "extra", type_make(DT_F32, DIMS(DIM_T)), NO_LOC);
    ir_output(l->g, OUT_TAP, "extra", ir_op1(l->g, OP_NEG, extra, NULL, NO_LOC), NO_LOC);
    Evaluator *e = eval_new(l->m, l->data, NULL);
    random_tokens();
    static float h[3][D], again[3][D];
    EvalInput in[] = {{"tokens", tokens}, {"pos", (int32_t[]){0, 1, 2}}};
    EvalOutput o = {"h", &h[0][0]};
    EvalCall call = {.graph = l->g, .T = 3, .inputs = in, .n_inputs = 2, .outputs = &o, .n_outputs = 1};
    assert_true(eval_call(e, &call, l->diag)); /* neither rows nor extra */
    o.data = NULL;
    assert_true(eval_call(e, &call, l->diag));
    o.data = &again[0][0];
    assert_true(eval_call(e, &call, l->diag));
    assert_memory_equal(h, again, sizeof h);
    call.n_outputs = 0; /* only the cache */
    assert_true(eval_call(e, &call, l->diag));
    float k[KV * HEAD], v[KV * HEAD];
    assert_true(eval_cache_row(e, 0, 0, 2, k, v));
    lab_no_errors(l);
    eval_free(e);
    lab_free(l);
}

static void no_wanted_rows(void **unused) {
    (void)unused;
    Lab *l = model();
    Evaluator *e = eval_new(l->m, l->data, NULL);
    random_tokens();
    EvalInput in[] = {{"tokens", tokens}, {"pos", (int32_t[]){0, 1}}, {"rows", NULL}};
    EvalOutput o = {"logits", &got[0][0]};
    EvalCall call = {.graph = l->g, .T = 2, .R = 0, .inputs = in, .n_inputs = 3, .outputs = &o, .n_outputs = 1};
    memset(got, 0, sizeof got);
    assert_true(eval_call(e, &call, l->diag));
    assert_true(got[0][0] == 0);
    eval_free(e);
    lab_free(l);
}

static void long_chains_free_what_was_read(void **unused) {
    (void)unused;
    enum { NODES = 400, WIDE = 1 << 20 }; /* 400 results of 4 MiB, two alive at a time */
    Lab *l = lab_new(1, 1);
    NodeId x = lab_floats(l, "x", DIMS(DIM_T, WIDE));
    for (int i = 0; i < NODES; i++) {
        x = ir_op1(l->g, OP_NEG, x, NULL, NO_LOC);
        x = ir_reshape(l->g, x, type_make(DT_F32, DIMS(DIM_T, i % 2 ? WIDE : WIDE / 2, i % 2 ? 1 : 2)), NULL, NO_LOC);
    }
    const float *out = lab_eval(l, x), *in = lab_in(l, "x");
    assert_memory_equal(out, in, WIDE * sizeof *in);
    struct rusage peak;
    assert_int_equal(getrusage(RUSAGE_SELF, &peak), 0);
    assert_true(peak.ru_maxrss < (long)NODES * WIDE * 4 / 4 / 1024); /* KiB; a quarter of all results */
    lab_free(l);
}

/* ==== Wrong calls ==== */

static void wrong_calls_are_told(void **unused) {
    (void)unused;
    Lab *l = model();
    random_tokens();
    int32_t pos[] = {0, 1, 2}, rows[] = {2}, bad_tokens[] = {1, VOCAB, 2}, slots[] = {0, 0, 0};
    EvalInput in[] = {{"tokens", tokens}, {"pos", pos}, {"rows", rows}};
    EvalOutput o = {"logits", &got[0][0]};
    EvalCall call = {.graph = l->g, .T = 3, .R = 1, .inputs = in, .n_inputs = 3, .outputs = &o, .n_outputs = 1};
    call.n_inputs = 2;
    lab_expect_error(l, &call, "input 'rows' of 'step' is missing");
    call.slots = slots;
    lab_expect_error(l, &call, "input 'rows' of 'step' is missing");
    call.slots = NULL;
    call.n_inputs = 1;
    lab_expect_error(l, &call, "input 'pos' of 'step' is missing");
    call.n_inputs = 3;
    in[0].data = bad_tokens;
    lab_expect_error(l, &call, "token 101 of row 1 is not in the vocabulary of 101");
    bad_tokens[1] = -7;
    lab_expect_error(l, &call, "token -7 of row 1 is not in the vocabulary of 101");
    in[0].data = tokens;
    rows[0] = 3;
    lab_expect_error(l, &call, "wanted row 0 is 3, but the call has 3 rows");
    rows[0] = 0;
    pos[2] = 8; /* lab_expect_error gives caches 8 positions */
    lab_expect_error(l, &call, "position 8 is beyond the 8 positions that cache 'kv.0' holds");
    pos[2] = 2;
    o.name = "logit";
    lab_expect_error(l, &call, "'step' has no output 'logit'");
    o.name = "logits";
    call.T = 0;
    lab_expect_error(l, &call, "a call with 0 rows");
    plan(l->g, 2);
    call.T = 3;
    lab_expect_error(l, &call, "a call with 3 rows and 1 wanted rows, but the plan is for 2 and 2");
    plan(l->g, 3);
    l->g->slab_wanted = 1;
    call.R = 2;
    lab_expect_error(l, &call, "a call with 3 rows and 2 wanted rows, but the plan is for 3 and 1");
    call.R = 1;
    l->data[module_weight(l->m, "router")] = NULL;
    lab_expect_error(l, &call, "there is no data for weight 'router'");
    lab_free(l);
}

static void wrong_indices_are_told(void **unused) {
    (void)unused;
    for (int kind = 0; kind < 6; kind++) {
        Lab *l = lab_new(2, 1);
        NodeId x = lab_floats(l, "x", DIMS(DIM_T, 4)), ids = lab_ints(l, "ids", 0, 2, DIMS(DIM_T, 2));
        NodeId w = lab_weight(l, "w", DT_F32, DIMS(3, 5, 4)), out = 0;
        ((int32_t *)lab_in(l, "ids"))[2] = kind == 1 ? -1 : 4;
        if (kind == 2)
            out = op(l, OP_LINEAR_EXPERTS, 3, (NodeId[]){x, w, ids}, NULL);
        else if (kind == 3)
            out = op(l, OP_LINEAR_AT, 3, (NodeId[]){x, lab_weight(l, "m", DT_F32, DIMS(3, 4)), ids}, NULL);
        else if (kind == 4)
            out = op(l, OP_LOOKUP, 2, (NodeId[]){ids, lab_ints(l, "table", 0, 9, DIMS(6))}, (Attr[]){{.i = 2}});
        else if (kind == 5)
            out = op(l, OP_SCATTER, 3,
                     (NodeId[]){lab_floats(l, "y", DIMS(DIM_T, 2)), ids, lab_floats(l, "rest", DIMS(DIM_T, 1))},
                     (Attr[]){{.i = 3}});
        else
            out = op(l, OP_GATHER, 2, (NodeId[]){x, ids}, NULL);
        ir_output(l->g, OUT_EMIT, "out", out, NO_LOC);
        EvalOutput o = {"out", NULL};
        EvalCall call = lab_call(l);
        call.outputs = &o;
        call.n_outputs = 1;
        static const char *const parts[] = {"index 4 is not one of 4",           "index -1 is not one of 4",
                                            "expert 4 of row 1 is not one of 3", "row 4 is not one of 3",
                                            "index 4 is not one of 3",           "index 4 is not one of 3"};
        lab_expect_error(l, &call, parts[kind]);
        lab_free(l);
    }
}

static void a_cancelled_call_is_silent(void **unused) {
    (void)unused;
    Lab *l = model();
    Evaluator *e = eval_new(l->m, l->data, NULL);
    random_tokens();
    volatile bool cancel = true;
    EvalInput in[] = {{"tokens", tokens}, {"pos", (int32_t[]){0}}, {"rows", (int32_t[]){0}}};
    EvalOutput o = {"logits", &got[0][0]};
    EvalCall call = {
        .graph = l->g, .T = 1, .R = 1, .inputs = in, .n_inputs = 3, .outputs = &o, .n_outputs = 1, .cancel = &cancel};
    assert_false(eval_call(e, &call, l->diag));
    assert_int_equal(diag_count(l->diag), 0);
    cancel = false;
    assert_true(eval_call(e, &call, l->diag));
    eval_free(e);
    lab_free(l);
}

int main(int argc, char **argv) {
    lab_seed(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_and_threads_do_not_matter),
        cmocka_unit_test(the_slab_is_used),
        cmocka_unit_test(unwanted_outputs_are_not_computed),
        cmocka_unit_test(no_wanted_rows),
        cmocka_unit_test(long_chains_free_what_was_read),
        cmocka_unit_test(wrong_calls_are_told),
        cmocka_unit_test(wrong_indices_are_told),
        cmocka_unit_test(a_cancelled_call_is_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
