/* choices_test.c - the code generator does what the passes chose, as the IR's text says it, and refuses what no kernel
 * does.
 */
#include "codegen/plan.h"
#include "passes/passes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs those before */
#include <cmocka.h>

static const char model[] = "module small arch \"small\"\n"
                            "weight @e : q8_0[40, 64]\n"
                            "weight @w : q8_0[64, 64]\n"
                            "cache kv : heads 1 k f16[16] v f16[16]\n"
                            "variant full {\n"
                            "  visible = k <= q\n"
                            "}\n"
                            "graph step(tokens: i32[T], pos: i32[T], rows: i32[R]) {\n"
                            "  %h = embed tokens, @e : f32[T, 64]\n"
                            "  %q0 = linear %h, @w : f32[T, 64]\n"
                            "  %q = reshape %q0 : f32[T, 4, 16]\n"
                            "  %k0 = slice %h {axis=1, start=0, len=16} : f32[T, 16]\n"
                            "  %k = reshape %k0 : f32[T, 1, 16]\n"
                            "  %s = kv_store $kv, %k, %k, pos : kv\n"
                            "  %a = attend %q, %s, pos {variant=full, scale=0.25} : f32[T, 4, 16]\n"
                            "  %f = reshape %a : f32[T, 64]\n"
                            "  %r = rows %f, rows : f32[R, 64]\n"
                            "  %o = linear %r, @e : f32[R, 40]\n"
                            "  keep kv = %s\n"
                            "  emit logits = %o\n"
                            "}\n";

typedef struct Work {
    Arena *arena;
    Diag *diag;
    Buf text; /* the module after all passes */
} Work;

static Work after_passes(void) {
    Work w = {.arena = arena_new(), .diag = diag_new()};
    Module *m = ir_parse(w.arena, w.diag, "in.ir", model, strlen(model));
    assert_non_null(m);
    PipelineOptions o = {.pass = pass_options_default(), .out = stdout};
    o.pass.kv_k = o.pass.kv_v = DT_F16;
    assert_true(pipeline_run(m, &o));
    ir_print(&w.text, m);
    return w;
}

static void done(Work *w) {
    buf_free(&w->text);
    diag_free(w->diag);
    arena_free(w->arena);
}

/* The plan of the text with one piece replaced; NULL after errors. */
static const Plan *generate_cut(Work *w, const char *from, const char *to, const PlanChoices *choices, int way) {
    const char *at = strstr(w->text.s, from);
    assert_non_null(at);
    Buf text = {0};
    buf_bytes(&text, w->text.s, (size_t)(at - w->text.s));
    buf_printf(&text, "%s%s", to, at + strlen(from));
    Module *m = ir_parse(w->arena, w->diag, "out.ir", text.s, text.n);
    assert_true(m && ir_verify(m));
    buf_free(&text);
    PlanTarget target;
    assert_true(plan_target("sm_90a", &target));
    const PassOptions p = pass_options_default();
    const PlanOptions o = {.context = p.context, .chunk = p.chunk, .wanted = p.rows, .choices = choices, .way = way};
    return plan_generate(w->arena, m, &target, &o);
}

static const Plan *generate(Work *w, const char *from, const char *to) {
    return generate_cut(w, from, to, NULL, 0);
}

static bool launches_from(const Plan *p, const PlanPhase *phase, const char *file) {
    for (int i = 0; i < phase->launches.n; i++)
        if (strcmp(p->kernels.v[phase->launches.v[i].kernel].file, file) == 0)
            return true;
    return false;
}

static void attends_as_chosen(void **state) {
    (void)state;
    Work w = after_passes();
    const Plan *p = generate(&w, "module", "module");
    assert_non_null(p);
    assert_int_equal(p->phases.n, 4);
    for (int i = 0; i < p->phases.n; i++) {
        const PlanPhase *phase = &p->phases.v[i];
        const bool decode = strncmp(phase->name, "decode", 6) == 0;
        assert_int_equal(launches_from(p, phase, "attention_decode.cu"), decode);
        assert_int_equal(launches_from(p, phase, "attention_prefill.cu"), !decode);
    }
    done(&w);
}

/* A choice replaced, and what the first message must say. */
static const struct {
    const char *from, *to, *message;
} wrong[] = {
    {"decode split \"at most 16 rows\"", "decode dense \"few keys\"",
     "error: a GPU attends split in decode; for group g5 the choice is dense"},
    {"prefill dense", "prefill split",
     "error: a GPU attends dense or sparse in prefill; for group g5 the choice is split"},
    {"decode split \"at most 16 rows\"", "", "a GPU attends split in decode; for group g5 the choice is none"},
    {"prefill dense \"every key so far\"", "",
     "a GPU attends dense or sparse in prefill; for group g5 the choice is none"},
    {"f16[16] linear capacity 4096 lookback -1 row 32 32 bytes 262144",
     "f32[16] linear capacity 4096 lookback -1 row 32 64 bytes 393216",
     "error: a GPU reads no f32, cache 'kv' holds f16 and f32: change --kv-k"},
    {" 1 x 64", "", "error: nothing chose by how many warps group g3 is computed"},
};

/* A variant with a sparse method, and the choice of it. */
static const Plan *generate_sparse(Work *w, const char *method) {
    Work dense = after_passes();
    const char *visible = "  visible = k <= q\n", *why = "prefill dense \"every key so far\"";
    const char *at = strstr(dense.text.s, visible), *end = at + strlen(visible), *choice = strstr(end, why);
    Buf text = {0};
    assert_true(at && choice);
    buf_bytes(&text, dense.text.s, (size_t)(end - dense.text.s));
    buf_printf(&text, "  sparse = %s\n", method);
    buf_bytes(&text, end, (size_t)(choice - end));
    buf_printf(&text, "prefill sparse from 256 \"asked for\"%s", choice + strlen(why));
    buf_free(&w->text);
    w->text = text;
    done(&dense);
    return generate(w, "module", "module");
}

/* Many rows choose between the heads' launch and attending; few wanted ones, and alpha 0, see everything. */
static void chooses_keys_where_it_is_sparse(void **state) {
    (void)state;
    static const char *const methods[] = {"flash_prefill(alpha = 0.5, block = 16)", "flash_prefill(alpha = 0)"};
    for (int i = 0; i < 2; i++) {
        Work w = after_passes();
        const Plan *p = generate_sparse(&w, methods[i]);
        assert_non_null(p);
        for (int k = 0; k < p->phases.n; k++) {
            const PlanPhase *phase = &p->phases.v[k];
            const bool wanted = strcmp(phase->name, "prefill") == 0, many = strncmp(phase->name, "prefill", 7) == 0;
            const bool sparse = i == 0 && many && !wanted; /* the queries are the wanted rows */
            assert_int_equal(launches_from(p, phase, "attention_means.cu"), sparse);
            assert_int_equal(launches_from(p, phase, "attention_choose.cu"), sparse);
            assert_int_equal(launches_from(p, phase, "attention_prefill.cu"), many);
        }
        done(&w);
    }
}

/* ==== Cuts of decode matmuls ==== */

static int decode_matmul(const Plan *p) {
    for (int i = 0; i < p->kernels.n; i++)
        if (p->kernels.v[i].shape && strstr(p->kernels.v[i].shape, "rows 8"))
            return i;
    fail_msg("there is no decode matmul");
    return -1;
}

/* Of plans that differ in cuts only, kernels have the same names and launches the same arguments. */
static void same_but_for_cuts(const Plan *a, const Plan *b) {
    assert_int_equal(a->kernels.n, b->kernels.n);
    for (int i = 0; i < a->kernels.n; i++) {
        assert_string_equal(a->kernels.v[i].name, b->kernels.v[i].name);
        assert_int_equal(a->kernels.v[i].shape == NULL, b->kernels.v[i].shape == NULL);
    }
    assert_int_equal(a->phases.n, b->phases.n);
    for (int i = 0; i < a->phases.n; i++) {
        assert_int_equal(a->phases.v[i].launches.n, b->phases.v[i].launches.n);
        for (int k = 0; k < a->phases.v[i].launches.n; k++) {
            const PlanLaunch *x = &a->phases.v[i].launches.v[k], *y = &b->phases.v[i].launches.v[k];
            assert_int_equal(x->kernel, y->kernel);
            assert_memory_equal(&x->grid, &y->grid, sizeof x->grid);
            assert_int_equal(x->args.n, y->args.n);
            for (int n = 0; n < x->args.n; n++)
                assert_int_equal(x->args.v[n].value, y->args.v[n].value);
        }
    }
}

static void cuts_as_chosen(void **state) {
    (void)state;
    Work w = after_passes();
    const Plan *usual = generate(&w, "module", "module");
    const int k = decode_matmul(usual);
    const PlanKernel *by_rule = &usual->kernels.v[k];
    assert_false(by_rule->tuned);
    bool others = false;
    for (int way = 1; way < MATMUL_WAYS; way++) {
        const Plan *p = generate_cut(&w, "module", "module", NULL, way);
        const PlanKernel *kernel = &p->kernels.v[k];
        same_but_for_cuts(usual, p);
        assert_string_equal(kernel->shape, by_rule->shape);
        if (matmul_cut_same(&kernel->cut, &by_rule->cut))
            continue;
        others = true;
        PlanChoice choice = {by_rule->shape, kernel->cut};
        PlanChoices choices = {&choice, 1, 1};
        const Plan *chosen = generate_cut(&w, "module", "module", &choices, 0);
        same_but_for_cuts(usual, chosen);
        assert_true(chosen->kernels.v[k].tuned);
        assert_string_equal(chosen->kernels.v[k].text, kernel->text);
        assert_int_equal(chosen->kernels.v[k].shared, kernel->shared);
        assert_int_equal(chosen->kernels.v[k].threads, kernel->threads);
    }
    assert_true(others);
    done(&w);
}

/* A cut that is none of the ways may come from a damaged file. */
static void other_cuts_are_not_taken(void **state) {
    (void)state;
    static const MatmulCut cuts[] = {{1, 3, 3, 4}, {2, 16, 16, 3}, {2, 2000000, 1, 4}, {0, 0, 0, 0}, {-1, -1, -1, -1}};
    Work w = after_passes();
    const Plan *usual = generate(&w, "module", "module");
    const int k = decode_matmul(usual);
    for (size_t i = 0; i < COUNTOF(cuts); i++) {
        PlanChoice choice = {usual->kernels.v[k].shape, cuts[i]};
        PlanChoices choices = {&choice, 1, 1};
        const Plan *p = generate_cut(&w, "module", "module", &choices, 0);
        assert_false(p->kernels.v[k].tuned);
        assert_string_equal(p->kernels.v[k].text, usual->kernels.v[k].text);
    }
    PlanChoice by_rule = {usual->kernels.v[k].shape, usual->kernels.v[k].cut};
    PlanChoices choices = {&by_rule, 1, 1};
    assert_false(generate_cut(&w, "module", "module", &choices, 0)->kernels.v[k].tuned);
    done(&w);
}

static void refuses_what_no_kernel_does(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        Work w = after_passes();
        assert_null(generate(&w, wrong[i].from, wrong[i].to));
        char *text = diag_text(w.diag);
        if (!strstr(text, wrong[i].message))
            fail_msg("\"%s\" to \"%s\": should say \"%s\", says:\n%s", wrong[i].from, wrong[i].to, wrong[i].message,
                     text);
        free(text);
        done(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attends_as_chosen),
        cmocka_unit_test(chooses_keys_where_it_is_sparse),
        cmocka_unit_test(cuts_as_chosen),
        cmocka_unit_test(other_cuts_are_not_taken),
        cmocka_unit_test(refuses_what_no_kernel_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
