/* cmd_print.c - lap print: the graph of a model text or of an IR text after the passes asked for, or the plan made of
 * it for a GPU. */
#include "codegen/plan.h"
#include "passes/passes.h"
#include "runtime/cli/cli.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* What the options ask of the passes; false after a usage error, printed. */
static bool pipeline_options(const Cli *c, PipelineOptions *p) {
    const Options *o = &c->o;
    bool whole = strcmp(o->after, "all") == 0;
    const char *problem = NULL;
    *p = (PipelineOptions){.pass = pass_options_default()};
    p->pass.context = o->context;
    p->pass.chunk = cli_chunk(c);
    const DType kv_type = o->plan || o->kernels ? DT_F16 : DT_F32; /* as a GPU has them; as the processor */
    p->pass.kv_k = cli_kv_type(o->kv_k, kv_type);
    p->pass.kv_v = cli_kv_type(o->kv_v, kv_type);
    cli_sparse_options(c, &p->pass);
    p->pass.all_taps = o->taps;
    p->print_after = o->print_after;
    p->stop_after = whole ? o->stop_after : o->after;
    p->run_pass = o->run_pass;
    p->diff = o->diff;
    p->verify_each = o->verify_each;
    p->time = o->time;
    p->out = stdout;
    if (o->tuned && strcmp(o->after, "none") == 0)
        problem = "tuned has no meaning with --after none: no pass runs";
    else if ((o->plan || o->kernels) && (!whole || o->stop_after || o->run_pass))
        problem = "plan and --kernels are made after all passes";
    else if (o->given[OPT_after] && (o->stop_after || o->run_pass))
        problem = "after goes with neither --stop-after nor --run-pass";
    else if (strcmp(o->after, "none") == 0)
        problem = o->print_after ? "print-after goes with no --after none: no pass runs" : NULL;
    else if (!whole)
        problem = pass_problem(c->arena, "after", o->after);
    if (!problem && strcmp(o->after, "none") != 0)
        problem = pipeline_problem(c->arena, p);
    if (problem)
        cli_fail(c, EXIT_USAGE, "--%s", problem);
    return !problem;
}

/* From IR text, or compiled from a model text and the metadata of --weights. Gives the exit code. */
static int load(Cli *c, const TextSource *t, Bound *b, Module **m) {
    const Options *o = &c->o;
    *m = NULL;
    if (ir_looks_like(t->text, t->len)) {
        if (o->weights || o->set.n || o->target || o->target_model)
            return cli_fail(c, EXIT_USAGE, "%s is an IR text: --weights, --target and --set have no meaning for it",
                            t->name);
        *m = ir_parse(c->arena, c->diag, t->name, t->text, t->len);
        return *m ? EXIT_FINE : EXIT_INPUT;
    }
    if (!o->weights)
        return cli_fail(c, EXIT_USAGE, "%s is a model text: its shapes come from a weights file, give --weights W",
                        t->name);
    int code = cli_bind(c, b);
    if (code == EXIT_FINE)
        *m = cli_compile(c, b, t);
    return code != EXIT_FINE || *m ? code : EXIT_INPUT;
}

/* ==== --plan, --kernels ==== */

static const char *kernel_path(const Cli *c, const char *dir, const PlanKernel *k) {
    return arena_printf(c->arena, "%s/%s.cu", dir, k->name);
}

/* NAME.cu for each kernel, in a folder that is made if need be. */
static int write_kernels(Cli *c, const Plan *plan, const char *dir) {
    for (int i = 0; i < plan->kernels.n; i++)
        if (!cli_may_write(c, kernel_path(c, dir, &plan->kernels.v[i])))
            return EXIT_USAGE;
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return cli_fail(c, EXIT_SYSTEM, "cannot make %s: %s", dir, strerror(errno));
    for (int i = 0; i < plan->kernels.n; i++) {
        const char *path = kernel_path(c, dir, &plan->kernels.v[i]);
        FILE *f = fopen(path, "wb");
        bool ok = f && fputs(plan->kernels.v[i].text, f) >= 0;
        ok = f && fclose(f) == 0 && ok;
        if (!ok)
            return cli_fail(c, EXIT_SYSTEM, "cannot write %s: %s", path, strerror(errno));
    }
    fprintf(stderr, "%d kernels written to %s\n", plan->kernels.n, dir);
    return EXIT_FINE;
}

static int print_plan(Cli *c, Module *m, const PipelineOptions *p, const ChunkRoom *room, const Tuned *tuned) {
    const Options *o = &c->o;
    PlanTarget target;
    if (!plan_target(o->plan_arch, &target))
        return cli_fail(c, EXIT_USAGE, "--arch: there are no kernels for %s", o->plan_arch);
    const PlanChoices choices = tuned_choices(c->arena, tuned, target.arch, NULL);
    const PlanOptions po = {
        .slots = 1, .context = p->pass.context, .chunk = p->pass.chunk, .wanted = p->pass.rows, .choices = &choices};
    ChunkRequest choose = {.m = m, .pass = p->pass, .slots = 1, .choices = &choices};
    Plan *plan =
        room->total_bytes ? chunk_choose(c->arena, &choose, &target, room) : plan_generate(c->arena, m, &target, &po);
    if (!plan)
        return EXIT_INPUT;
    if (choose.why)
        cli_check_memory(c, &choose);
    if (o->plan) {
        Buf out = {0};
        if (choose.why)
            buf_printf(&out, "# chunk of %lld: %s\n", (long long)choose.chunk, choose.why);
        plan_print(&out, plan, m);
        fwrite(out.n ? out.s : "", 1, out.n, stdout);
        buf_free(&out);
    }
    return o->kernels ? write_kernels(c, plan, o->kernels) : EXIT_FINE;
}

int cmd_print(Cli *c) {
    TextSource t;
    PipelineOptions p;
    ChunkRoom room;
    const bool plan = c->o.plan || c->o.kernels;
    if (!pipeline_options(c, &p) || cli_memory(c, &room) != EXIT_FINE)
        return EXIT_USAGE;
    if (c->o.memory && !plan)
        return cli_fail(c, EXIT_USAGE, "--memory has a meaning only with --plan or --kernels");
    Tuned tuned;
    int code = cli_read_tuned(c, c->o.tuned, true, &tuned);
    if (code != EXIT_FINE)
        return code;
    p.pass.rates = cli_rates_of_arch(&tuned, c->o.plan_arch);
    if (!text_read(c->arena, c->diag, c->o.operand[0], &t))
        return EXIT_INPUT;
    Bound b = {0};
    Module *m;
    code = load(c, &t, &b, &m);
    if (m && strcmp(c->o.after, "none") != 0 && !pipeline_run(m, &p))
        code = EXIT_INPUT;
    if (code == EXIT_FINE && plan)
        code = print_plan(c, m, &p, &room, &tuned);
    if (code == EXIT_FINE && !plan && !c->o.print_after && !c->o.diff && !c->o.time) {
        Buf out = {0};
        ir_print(&out, m);
        fwrite(out.n ? out.s : "", 1, out.n, stdout);
        buf_free(&out);
    }
    cli_unbind(&b);
    return code;
}
