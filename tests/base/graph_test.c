/* graph_test.c - nodes: sharing, names, shape rules and what they report. */
#include "ir/ir.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
// after the standard headers
#include <cmocka.h>

typedef struct Fixture {
    Arena *arena;
    Diag *diag;
    Module *m;
    Graph *g;
    NodeId tokens, pos, rows;
} Fixture;

static Type type_of(DType t, int rank, int64_t a, int64_t b, int64_t c) {
    return type_make(t, rank, (int64_t[]){a, b, c});
}

static int setup(void **state) {
    Fixture *f = calloc(1, sizeof *f);
    f->arena = arena_new();
    f->diag = diag_new();
    f->m = module_new(f->arena, f->diag, "test", "test");
    f->g = graph_new(f->m, "step", NO_LOC);
    f->tokens = ir_input(f->g, "tokens", type_of(DT_I32, 1, DIM_T, 0, 0), NO_LOC);
    f->pos = ir_input(f->g, "pos", type_of(DT_I32, 1, DIM_T, 0, 0), NO_LOC);
    f->rows = ir_input(f->g, "rows", type_of(DT_I32, 1, DIM_R, 0, 0), NO_LOC);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    Fixture *f = *state;
    diag_free(f->diag);
    arena_free(f->arena);
    free(f);
    return 0;
}

static NodeId weight(Fixture *f, const char *name, DType t, int rank, int64_t a, int64_t b, int64_t c) {
    Weight w = {.name = name, .type = type_of(t, rank, a, b, c), .file = "w.gguf"};
    return ir_weight(f->g, module_add_weight(f->m, w), NO_LOC);
}

static NodeId embedded(Fixture *f) {
    return ir_op2(f->g, OP_EMBED, f->tokens, weight(f, "table", DT_Q8_0, 2, 100, 64, 0), "h", NO_LOC);
}

static void expect_type(Fixture *f, NodeId id, const char *text) {
    assert_int_not_equal(id, 0);
    assert_string_equal(type_text(f->arena, ir_type(f->g, id)), text);
}

/* The node was refused and the first message contains `part`. */
static void expect_refused(Fixture *f, NodeId id, const char *part) {
    char *text = diag_text(f->diag);
    assert_int_equal(id, 0);
    if (!strstr(text, part))
        fail_msg("'%s' is not in:\n%s", part, text);
    free(text);
    diag_clear(f->diag);
}

static void equal_nodes_are_shared(void **state) {
    Fixture *f = *state;
    NodeId h = embedded(f);
    NodeId a = ir_op1(f->g, OP_TANH, h, "a", NO_LOC), b = ir_op1(f->g, OP_TANH, h, "b", NO_LOC);
    assert_int_equal(a, b);
    assert_string_equal(ir_get(f->g, a)->name, "a");
    NodeId c = ir_op1(f->g, OP_EXP, h, "a", NO_LOC);
    assert_int_not_equal(a, c);
    assert_string_equal(ir_get(f->g, c)->name, "a.1");
    assert_int_equal(ir_const(f->g, 2, NO_LOC), ir_const(f->g, 2, NO_LOC));
    assert_int_not_equal(ir_const(f->g, 2, NO_LOC), ir_const(f->g, 3, NO_LOC));
    Attr eps1 = {.f = 1e-6}, eps2 = {.f = 1e-5};
    assert_int_not_equal(ir_node(f->g, OP_RMS_NORM, &h, 1, &eps1, NULL, NULL, NO_LOC),
                         ir_node(f->g, OP_RMS_NORM, &h, 1, &eps2, NULL, NULL, NO_LOC));
    for (int i = 0; i < 500; i++) /* enough to grow the tables */
        ir_op2(f->g, OP_ADD, h, ir_const(f->g, i, NO_LOC), NULL, NO_LOC);
    int n = f->g->nodes.n;
    for (int i = 0; i < 500; i++)
        ir_op2(f->g, OP_ADD, h, ir_const(f->g, i, NO_LOC), NULL, NO_LOC);
    assert_int_equal(f->g->nodes.n, n);
}

static void shapes_are_inferred(void **state) {
    Fixture *f = *state;
    Graph *g = f->g;
    NodeId h = embedded(f);
    expect_type(f, h, "f32[T, 64]");
    NodeId q = ir_op2(g, OP_LINEAR, h, weight(f, "wq", DT_Q4_0, 2, 96, 64, 0), "q", NO_LOC);
    expect_type(f, q, "f32[T, 96]");
    NodeId q3 = ir_reshape(g, q, type_of(DT_F32, 3, DIM_T, 3, 32), "q", NO_LOC);
    expect_type(f, q3, "f32[T, 3, 32]");
    Attr rope[] = {{.f = 1e4}, {.i = 32}, {.f = 1}};
    expect_type(f, ir_node(g, OP_ROPE, (NodeId[]){q3, f->pos}, 2, rope, NULL, NULL, NO_LOC), "f32[T, 3, 32]");
    expect_type(f, ir_op2(g, OP_ROWS, h, f->rows, NULL, NO_LOC), "f32[R, 64]");
    expect_type(f, ir_op1(g, OP_SUM, h, NULL, NO_LOC), "f32[T]");
    Attr k = {.i = 2};
    NodeId top = ir_node(g, OP_TOP_K, &h, 1, &k, NULL, NULL, NO_LOC);
    expect_type(f, top, "i32[T, 2]");
    expect_type(f, ir_op2(g, OP_GATHER, h, top, NULL, NO_LOC), "f32[T, 2]");
    NodeId e = ir_node(g, OP_LINEAR_EXPERTS, (NodeId[]){h, weight(f, "we", DT_F32, 3, 64, 10, 64), top}, 3, NULL, NULL,
                       NULL, NO_LOC);
    expect_type(f, e, "f32[T, 2, 10]");
    Attr slice[] = {{.i = 2}, {.i = 4}, {.i = 6}};
    expect_type(f, ir_node(g, OP_SLICE, &e, 1, slice, NULL, NULL, NO_LOC), "f32[T, 2, 6]");
    Attr axis = {.i = 1};
    expect_type(f, ir_node(g, OP_CONCAT, (NodeId[]){h, q, h}, 3, &axis, NULL, NULL, NO_LOC), "f32[T, 224]");
    expect_type(f, ir_op2(g, OP_MUL, q3, weight(f, "g", DT_F32, 1, 32, 0, 0), NULL, NO_LOC), "f32[T, 3, 32]");
    expect_type(f, ir_op2(g, OP_ADD, h, ir_const(g, 1, NO_LOC), NULL, NO_LOC), "f32[T, 64]");
}

static void caches_flow_as_values(void **state) {
    Fixture *f = *state;
    Graph *g = f->g;
    Cache c = {.name = "kv.0", .layout = {.heads = 1, .k_dim = 32, .v_dim = 32}};
    NodeId kv = ir_cache(g, module_add_cache(f->m, c), NO_LOC);
    Variant full = {.name = "full", .visible = scalar_const(f->arena, 1, NO_LOC)};
    Attr attend[] = {{.i = module_add_variant(f->m, full)}, {.f = 1}};
    NodeId h = embedded(f);
    NodeId q = ir_reshape(g, h, type_of(DT_F32, 3, DIM_T, 2, 32), "q", NO_LOC);
    NodeId k = ir_reshape(g, ir_op2(g, OP_LINEAR, h, weight(f, "wk", DT_F32, 2, 32, 64, 0), NULL, NO_LOC),
                          type_of(DT_F32, 3, DIM_T, 1, 32), "k", NO_LOC);
    NodeId stored = ir_node(g, OP_KV_STORE, (NodeId[]){kv, k, k, f->pos}, 4, NULL, NULL, NULL, NO_LOC);
    expect_type(f, stored, "kv");
    assert_int_equal(ir_cache_of(g, stored), 0);
    expect_type(f, ir_node(g, OP_ATTEND, (NodeId[]){q, stored, f->pos}, 3, attend, NULL, NULL, NO_LOC),
                "f32[T, 2, 32]");
    expect_refused(f, ir_node(g, OP_KV_STORE, (NodeId[]){kv, q, q, f->pos}, 4, NULL, NULL, NULL, NO_LOC),
                   "kv_store: keys must be [T, 1, 32] for this cache");
    expect_refused(f, ir_node(g, OP_ATTEND, (NodeId[]){q, h, f->pos}, 3, attend, NULL, NULL, NO_LOC),
                   "attend: operand 2 must be a cache");
}

static void misfits_are_reported(void **state) {
    Fixture *f = *state;
    Graph *g = f->g;
    NodeId h = embedded(f);
    expect_refused(f, ir_op2(g, OP_LINEAR, h, weight(f, "w1", DT_F32, 2, 8, 65, 0), NULL, NO_LOC),
                   "linear: rows have 64 elements, but the matrix takes 65\n"
                   "note: operand 1 is f32[T, 64]\n"
                   "w.gguf: note: tensor 'w1' is f32[8, 65]\n");
    expect_refused(f, ir_op2(g, OP_ADD, h, weight(f, "b", DT_F32, 1, 63, 0, 0), NULL, NO_LOC), "do not go together");
    expect_refused(f, ir_op2(g, OP_LINEAR, h, weight(f, "w2", DT_Q4_K, 2, 8, 64, 0), NULL, NO_LOC),
                   "rows of 64 elements are not whole q4_k blocks of 256");
    expect_refused(f, ir_op1(g, OP_TANH, f->tokens, NULL, NO_LOC), "operand 1 must hold floats");
    expect_refused(f, ir_node(g, OP_LINEAR, &h, 1, NULL, NULL, NULL, NO_LOC), "linear takes 2 operands, not 1");
    expect_refused(f, ir_reshape(g, h, type_of(DT_F32, 2, DIM_T, 63, 0), NULL, NO_LOC), "cannot become f32[T, 63]");
    Attr k = {.i = 65};
    expect_refused(f, ir_node(g, OP_TOP_K, &h, 1, &k, NULL, NULL, NO_LOC), "k = 65 must be between 1 and 64");
    assert_int_equal(ir_op1(g, OP_TANH, 0, NULL, NO_LOC), 0); /* an earlier error stays silent */
    assert_int_equal(diag_count(f->diag), 0);
}

static void every_op_has_its_row(void **state) {
    (void)state;
    for (int op = 1; op < OP_COUNT; op++) {
        const OpInfo *o = op_info((Op)op);
        assert_int_equal(op_from_name((Str){o->name, strlen(o->name)}), op);
        assert_true(o->max_in <= MAX_INPUTS && o->min_in <= o->max_in);
        assert_true(o->flags & OPF_PURE);
    }
    assert_int_equal(op_from_name((Str){"linea", 5}), OP_NONE);
    assert_string_equal(op_info(OP_ROPE)->attr_name[2], "scale");
    assert_int_equal(op_info(OP_ROPE)->attr_kind[1], 'i');
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(equal_nodes_are_shared), CASE(shapes_are_inferred),  CASE(caches_flow_as_values),
        CASE(misfits_are_reported),   CASE(every_op_has_its_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
