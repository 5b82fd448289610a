/* test_verify.c - breaches that text cannot express, made by hand on a sound module. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/ir.h"

static const char text[] = "module m arch \"a\"\nweight @e : f32[9, 8]\nweight @w : f32[8]\n"
                           "cache kv : heads 1 k f32[8] v f32[8]\nvariant full {\n  visible = k <= q\n}\n"
                           "graph step(tokens: i32[T], pos: i32[T]) {\n  %h = embed tokens, @e : f32[T, 8]\n"
                           "  %n = rms_norm %h, @w {eps=1} : f32[T, 8]\n  %k = reshape %n : f32[T, 1, 8]\n"
                           "  %s = kv_store $kv, %k, %k, pos : kv\n"
                           "  %a = attend %k, %s, pos {variant=full, scale=1} : f32[T, 1, 8]\n"
                           "  emit y = %a\n  keep kv = %s\n}\n";

typedef struct Fixture {
    Arena *arena;
    Diag *diag;
    Module *m;
    Graph *g;
} Fixture;

static Node *node(Fixture *f, Op op) {
    for (int id = 1; id < f->g->nodes.n; id++)
        if (f->g->nodes.v[id].op == op)
            return &f->g->nodes.v[id];
    fail();
    return NULL;
}

static void operand_after(Fixture *f) {
    node(f, OP_RMS_NORM)->in[0] = (NodeId)(node(f, OP_RESHAPE) - f->g->nodes.v);
}
static void operand_none(Fixture *f) {
    node(f, OP_RMS_NORM)->in[1] = 0;
}
static void operand_count(Fixture *f) {
    node(f, OP_KV_STORE)->n_in = 3;
}
static void type_changed(Fixture *f) {
    node(f, OP_RMS_NORM)->type.dim[1] = 9;
}
static void name_twice(Fixture *f) {
    node(f, OP_RMS_NORM)->name = "h";
}
static void name_missing(Fixture *f) {
    node(f, OP_RMS_NORM)->name = NULL;
}
static void leaf_named(Fixture *f) {
    node(f, OP_WEIGHT)->name = "w";
}
static void op_missing(Fixture *f) {
    node(f, OP_RMS_NORM)->op = OP_NONE;
}
static void variant_range(Fixture *f) {
    node(f, OP_ATTEND)->attr[0].i = 1;
}
static void weight_range(Fixture *f) {
    node(f, OP_WEIGHT)->attr[0].i = -1;
}
static void cache_range(Fixture *f) {
    node(f, OP_CACHE)->attr[0].i = 7;
}
static void output_range(Fixture *f) {
    f->g->outputs.v[0].node = 1000;
}
static void output_none(Fixture *f) {
    f->g->outputs.v[0].node = 0;
}
static void keep_other(Fixture *f) {
    Cache c = f->m->caches.v[0];
    c.name = "other";
    module_add_cache(f->m, c);
    f->g->outputs.v[1].name = "other";
}
static void table_range(Fixture *f) {
    Scalar *t = arena_alloc(f->arena, sizeof *t);
    *t = *scalar_table(f->arena, 5, f->m->variants.v[0].visible, NO_LOC);
    f->m->variants.v[0].score = t;
}
static void weight_dims(Fixture *f) {
    f->m->weights.v[0].type.dim[0] = 0;
}
static void cache_heads(Fixture *f) {
    f->m->caches.v[0].layout.heads = 0;
}

static void every_breach_is_found(void **state) {
    (void)state;
    static const struct {
        void (*make)(Fixture *);
        const char *says;
    } breaches[] = {
        {operand_after, "does not come before it"},
        {operand_none, "does not come before it"},
        {operand_count, "has 3 operands"},
        {type_changed, "n has type f32[T, 9], but rms_norm gives f32[T, 8]"},
        {name_twice, "two nodes are called 'h'"},
        {name_missing, "has no name"},
        {leaf_named, "leaf 'w' has a name"},
        {op_missing, "has no op"},
        {variant_range, "variant is out of range"},
        {weight_range, "weight is out of range"},
        {cache_range, "cache is out of range"},
        {output_range, "emit y is no node"},
        {output_none, "emit y is no node"},
        {keep_other, "keep other is the state of cache 'kv'"},
        {table_range, "a table must be a weight of one dimension"},
        {weight_dims, "weight 'e' has a bad dimension"},
        {cache_heads, "cache 'kv' has no sound shape"},
    };
    for (size_t i = 0; i < COUNTOF(breaches); i++) {
        Fixture f = {.arena = arena_new(), .diag = diag_new()};
        f.m = ir_parse(f.arena, f.diag, "text", text, strlen(text));
        assert_non_null(f.m);
        f.g = f.m->graphs.v[0];
        assert_true(ir_verify(f.m));
        breaches[i].make(&f);
        assert_false(ir_verify(f.m));
        char *said = diag_text(f.diag);
        if (!strstr(said, breaches[i].says))
            fail_msg("expected '%s', got: %s", breaches[i].says, said);
        free(said);
        diag_free(f.diag);
        arena_free(f.arena);
    }
}

static void knows_ir_from_model_text(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool ir;
    } cases[] = {{"module a arch \"b\"", true},
                 {"# x\n\n  # y\nmodule a", true},
                 {"model a from gguf", false},
                 {"modules", false},
                 {"", false},
                 {"# only", false}};
    for (size_t i = 0; i < COUNTOF(cases); i++)
        assert_int_equal(ir_looks_like(cases[i].text, strlen(cases[i].text)), cases[i].ir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_breach_is_found),
                                       cmocka_unit_test(knows_ir_from_model_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
