/* work_test.c - what launches read and compute, and the floor of that: runtime/engine/work.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/engine/work.h"

/* Groups: 1 a matmul of all rows, 2 of the wanted ones, 3 attention whose queries are the wanted rows. */
static Graph *small_graph(Arena *a) {
    static const struct {
        Op op;
        int group;
        int64_t rows;
    } nodes[] = {{OP_NONE, 0, DIM_T},
                 {OP_LINEAR, 1, DIM_T},
                 {OP_LINEAR, 2, DIM_R},
                 {OP_KV_STORE, 3, DIM_T},
                 {OP_ATTEND, 3, DIM_R}};
    static const Family families[] = {FAM_MATMUL, FAM_MATMUL, FAM_ATTENTION};
    Graph *g = arena_alloc(a, sizeof *g);
    for (size_t i = 0; i < COUNTOF(nodes); i++) {
        Node n = {.op = nodes[i].op, .group = nodes[i].group};
        n.type = type_make(DT_F32, 2, (int64_t[]){nodes[i].rows, 64});
        vec_push(a, &g->nodes, n);
    }
    for (size_t i = 0; i < COUNTOF(families); i++) {
        Group group = {.family = families[i]};
        vec_push(a, &g->groups, group);
    }
    return g;
}

static void matmuls(void **state) {
    (void)state;
    Arena *a = arena_new();
    const Graph *g = small_graph(a);
    const CallRows c = {.T = 4, .R = 1, .first = 10};
    PlanLaunch l = {.group = 1, .cost = {.weight_bytes = 1000, .bytes_a_row = 10, .flops_a_row = 100}};
    Work w = work_of(g, &l, &c, 0);
    assert_true(w.weight_bytes == 1000 && w.row_bytes == 40 && w.flops == 400 && w.kv_bytes == 0);
    l.group = 2;
    w = work_of(g, &l, &c, 0);
    assert_true(w.weight_bytes == 1000 && w.row_bytes == 10 && w.flops == 100);
    l.cost.weight_bytes = 0;
    l.cost.expert_bytes = 50;
    w = work_of(g, &l, &c, 3);
    assert_true(w.weight_bytes == 150);
    arena_free(a);
}

static void attention(void **state) {
    (void)state;
    Arena *a = arena_new();
    const Graph *g = small_graph(a);
    PlanLaunch l = {.group = 3, .cost = {.kv_bytes_a_key = 8, .attend_flops_a_key = 2}};
    /* first, T, R, window: keys that are read, and that queries see in all */
    static const int64_t cases[][6] = {
        {0, 1, 1, 0, 1, 1},   {10, 1, 1, 0, 11, 11}, {10, 4, 4, 0, 14, 11 + 12 + 13 + 14}, {10, 4, 1, 0, 14, 14},
        {10, 4, 4, 4, 7, 16}, {10, 4, 1, 4, 4, 4},   {2, 4, 4, 4, 6, 3 + 4 + 4 + 4},       {0, 4, 4, 32, 4, 10},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        const CallRows c = {.first = cases[i][0], .T = cases[i][1], .R = cases[i][2]};
        l.cost.window = cases[i][3];
        const Work w = work_of(g, &l, &c, 0);
        assert_int_equal(w.kv_bytes, 8 * cases[i][4]);
        assert_int_equal(w.flops, 2 * cases[i][5]);
    }
    arena_free(a);
}

static void floors(void **state) {
    (void)state;
    const Roofline r = {.read_gb_per_second = 2, .matmul_tflops = 3};
    Work sum = {0};
    work_add(&sum, &(Work){.weight_bytes = 3e9, .kv_bytes = 0.5e9, .row_bytes = 1e12, .flops = 2e12});
    work_add(&sum, &(Work){.weight_bytes = 0.5e9, .flops = 1e12});
    assert_true(work_floor(&sum, &r) == 2); /* 4 GB at 2 GB/s; 3 TFLOP take 1 s */
    sum.flops = 9e12;
    assert_true(work_floor(&sum, &r) == 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmuls),
        cmocka_unit_test(attention),
        cmocka_unit_test(floors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
