/* pipeline.c - the one list of passes, and the driver: order, checking, printing, timing.
 *
 * A pass only changes the module; everything around it happens here, alike for all: ir_verify after
 * each, and on request the text after it, the diff it made, its time, and a run of the evaluator
 * before and after. The module before a pass is kept by printing and parsing it, so --verify-each
 * checks the text form as well.
 */
#define _POSIX_C_SOURCE 200809L
#include "passes/passes_int.h"

#include <string.h>
#include <time.h>

enum { ONCE = false, BY_ROWS = true };

static const PassInfo passes[] = {
    {"simplify", pass_simplify, ONCE, "fold constants, drop what is unused and what does nothing",
     "first: unwanted taps would hold values that select-rows wants to narrow"},
    {"select-rows", pass_select_rows, ONCE, "compute the last layer's tail, the norm and the head on wanted rows only",
     "before any plan: it changes shapes"},
    {"merge-linear", pass_merge_linear, ONCE, "compute linears of one value together",
     "first of the fusing passes: the groups it makes are what the others grow"},
    {"fuse-rope", pass_fuse_rope, ONCE, "head norms, RoPE and the K/V store become part of attention",
     "before what grows from matmuls, which would take the head norms"},
    {"fuse-moe", pass_fuse_moe, ONCE, "router, experts and their weighted sum",
     "before fuse-glu, which grows what this starts"},
    {"fuse-glu", pass_fuse_glu, ONCE, "elementwise work on the results of one matmul happens in it",
     "before fuse-residual: what needs no whole row is cheaper in the tile"},
    {"fuse-residual", pass_fuse_residual, ONCE,
     "post-norm, residual and the next norm happen where the row is finished",
     "after fuse-glu: takes what is left behind a matmul"},
    {"fuse-norm", pass_fuse_norm, ONCE, "the first norm joins the lookup in front of it",
     "last of the fusing passes: other norms are behind a matmul by now"},
    {"plan-kv", pass_plan_kv, BY_ROWS, "give every cache a ring or a line, from what its readers may see",
     "reads variants only; before anything that asks for cache bytes"},
    {"schedule", pass_schedule, ONCE, "put groups one after another; what is left alone becomes groups too",
     "before plan-memory: a group lives as one"},
    {"overlap", pass_overlap, ONCE, "groups that need nothing of the one ahead run beside it in the decode phase",
     "after schedule, where groups are final; before plan-memory, which keeps their values apart"},
    {"choose-matmul", pass_choose_matmul, ONCE, "how many warps share a row of each matmul, by shape and storage type",
     "after schedule, where groups are final"},
    {"choose-attention", pass_choose_attention, BY_ROWS, "how each attention goes over the keys in each phase, and why",
     "after schedule, where groups are final"},
    {"plan-memory", pass_plan_memory, BY_ROWS, "place values in one slab, by the time they live",
     "last: any change of a graph ends its plan"},
};

const PassInfo *pass_list(int *count) {
    *count = (int)COUNTOF(passes);
    return passes;
}

PassOptions pass_options_default(void) {
    return (PassOptions){.context = 4096,
                         .chunk = 512,
                         .rows = 64,
                         .draft = 16,
                         .kv_k = DT_F32,
                         .kv_v = DT_F32,
                         .rates = rates_default(),
                         .alpha = -1,
                         .all_taps = true};
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Nodes with a line of their own, in all graphs. */
static int count_nodes(const Module *m) {
    int n = 0;
    for (int i = 0; i < m->graphs.n; i++)
        for (int id = 1; id < m->graphs.v[i]->nodes.n; id++)
            n += !(op_info(m->graphs.v[i]->nodes.v[id].op)->flags & OPF_LEAF);
    return n;
}

/* ==== Options ==== */

/* Place in the order; -1: no such pass. */
static int pass_place(const char *name) {
    for (size_t i = 0; i < COUNTOF(passes); i++)
        if (strcmp(passes[i].name, name) == 0)
            return (int)i;
    return -1;
}

const char *pass_problem(Arena *a, const char *option, const char *name) {
    if (pass_place(name) >= 0)
        return NULL;
    Nearest near = nearest_new((Str){name, strlen(name)});
    const char *all = "";
    for (size_t i = 0; i < COUNTOF(passes); i++) {
        nearest_try(&near, passes[i].name);
        all = arena_printf(a, "%s%s%s", all, i ? ", " : "", passes[i].name);
    }
    const char *best = nearest_best(&near);
    if (best)
        return arena_printf(a, "%s: no pass \"%s\"; did you mean \"%s\"?", option, name, best);
    return arena_printf(a, "%s: no pass \"%s\"; there are %s", option, name, all);
}

const char *pipeline_problem(Arena *a, const PipelineOptions *o) {
    bool print_one = o->print_after && strcmp(o->print_after, "all") != 0;
    const char *problem = print_one ? pass_problem(a, "print-after", o->print_after) : NULL;
    if (!problem && o->stop_after)
        problem = pass_problem(a, "stop-after", o->stop_after);
    if (!problem && o->run_pass)
        problem = pass_problem(a, "run-pass", o->run_pass);
    if (problem || !print_one)
        return problem;
    const char *name = o->print_after;
    if (o->run_pass && strcmp(o->run_pass, name) != 0)
        return arena_printf(a, "print-after: %s does not run: only %s does", name, o->run_pass);
    if (!o->run_pass && o->stop_after && pass_place(name) > pass_place(o->stop_after))
        return arena_printf(a, "print-after: %s does not run: the last pass is %s", name, o->stop_after);
    return NULL;
}

static bool options_ok(const Module *m, const PipelineOptions *o) {
    static const int64_t most = INT32_MAX;
    const PassOptions *p = &o->pass;
    const char *problem = pipeline_problem(m->arena, o);
    bool ok = !problem;
    if (problem)
        diag_error(m->diag, NO_LOC, "%s", problem);
    if (p->context < 1 || p->context > most || p->chunk < 1 || p->chunk > most || p->rows < 1 || p->rows > most ||
        p->draft < 0 || p->draft > most) {
        diag_error(m->diag, NO_LOC, "context %lld, chunk %lld, rows %lld, draft %lld: must be positive and below 2^31",
                   (long long)p->context, (long long)p->chunk, (long long)p->rows, (long long)p->draft);
        ok = false;
    }
    if (!(p->alpha <= 1)) {
        diag_error(m->diag, NO_LOC, "alpha %g: at most 1; 0 keeps all keys", p->alpha);
        ok = false;
    }
    if (rates_problem(&p->rates)) {
        diag_error(m->diag, NO_LOC, "rates %s: %s", p->rates.of, rates_problem(&p->rates));
        ok = false;
    }
    if (!kv_storable(p->kv_k) || !kv_storable(p->kv_v)) {
        diag_error(m->diag, NO_LOC, "a cache of %s keys and %s values: there are caches of %s", dtype_name(p->kv_k),
                   dtype_name(p->kv_v), kv_storable_names(m->arena));
        ok = false;
    }
    return ok;
}

/* ==== One pass ==== */

static void print_result(const PassInfo *pass, const char *before, const char *after, const PipelineOptions *o) {
    bool all = o->print_after && strcmp(o->print_after, "all") == 0;
    if (all)
        fprintf(o->out, "# after %s\n", pass->name);
    if (all || (o->print_after && strcmp(o->print_after, pass->name) == 0))
        fputs(after, o->out);
    if (o->diff) {
        Buf b = {0};
        text_diff(&b, before, after);
        fprintf(o->out, "--- before %s\n+++ after %s\n%s", pass->name, pass->name, b.n ? b.s : "");
        buf_free(&b);
    }
}

static bool check_results(Module *m, const PassInfo *pass, const char *before, const PipelineOptions *o) {
    Module *old = ir_parse(m->arena, m->diag, "before the pass", before, strlen(before));
    if (!old) {
        diag_note(m->diag, NO_LOC, "the text before %s does not read back", pass->name);
        return false;
    }
    for (int i = 0; i < old->caches.n; i++) { /* the element types are asked for, not the pass's doing */
        KvLayout *to = &old->caches.v[i].layout;
        const KvLayout *from = &m->caches.v[i].layout;
        to->k_type = from->k_type;
        to->v_type = from->v_type;
        to->k_row = from->k_row;
        to->v_row = from->v_row;
    }
    int64_t rows = o->pass.chunk < 8 ? o->pass.chunk : 8;
    if (pipeline_same_results(old, m, o->data, 1, (int)rows, NULL))
        return true;
    diag_note(m->diag, NO_LOC, "found by verify-each after %s", pass->name);
    return false;
}

static bool run_one(Module *m, const PassInfo *pass, const PipelineOptions *o) {
    Buf before = {0}, after = {0};
    int errors = diag_errors(m->diag), nodes = count_nodes(m);
    ir_print(&before, m);
    double start = now_ms();
    pass->run(m, &o->pass);
    double took = now_ms() - start;
    bool ok = diag_errors(m->diag) == errors && ir_verify(m);
    if (ok) {
        ir_print(&after, m);
        print_result(pass, before.s, after.s, o);
        if (o->time)
            fprintf(o->out, "%-12s %9.2f ms  %6d -> %6d nodes\n", pass->name, took, nodes, count_nodes(m));
        ok = !o->verify_each || check_results(m, pass, before.s, o);
    } else {
        diag_note(m->diag, NO_LOC, "found after %s", pass->name);
    }
    buf_free(&before);
    buf_free(&after);
    return ok;
}

bool pipeline_replan(Module *m, const PassOptions *o) {
    const PipelineOptions p = {.pass = *o};
    bool ok = options_ok(m, &p);
    for (size_t i = 0; i < COUNTOF(passes) && ok; i++)
        ok = !passes[i].by_rows || run_one(m, &passes[i], &p);
    return ok;
}

bool pipeline_run(Module *m, const PipelineOptions *o) {
    if (!options_ok(m, o) || !ir_verify(m))
        return false;
    for (size_t i = 0; i < COUNTOF(passes); i++) {
        if (o->run_pass && strcmp(o->run_pass, passes[i].name) != 0)
            continue;
        if (!run_one(m, &passes[i], o))
            return false;
        if (o->stop_after && strcmp(o->stop_after, passes[i].name) == 0)
            break;
    }
    return true;
}
