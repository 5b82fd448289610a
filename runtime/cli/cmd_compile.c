/* cmd_compile.c - lap compile: a model text for weights of one kind and some GPU architectures, into a bundle. Needs no
 * GPU; of the weights only metadata is read. */
#include "codegen/plan.h"
#include "passes/passes.h"
#include "runtime/cli/cli.h"
#include "runtime/device/compile.h"
#include "runtime/engine/clock.h"
#include "runtime/facet/facet.h"
#include <stdlib.h>
#include <string.h>

/* What --arch stands for when it is not given, as far as NVRTC can. */
static const char *const usual_archs[] = {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"};

typedef struct Job {
    Cli *c;
    const Nvrtc *nvrtc;
    CubinCache *cache;
    FacetContents contents; /* info.archs: all of them, plans and cubins as they are made */
    Module *module;         /* of the contents */
    PassOptions pass;
    Tuned tuned;    /* what was measured of GPUs */
    ChunkRoom room; /* --memory */
    Progress *progress;
    int64_t done, kernels; /* of all architectures */
    Compiled *compiled;    /* of all architectures, one behind the other */
} Job;

/* ==== What is asked for ==== */

static int unknown_arch(Cli *c, const char *name) {
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (size_t i = 0; i < COUNTOF(usual_archs); i++)
        nearest_try(&near, usual_archs[i]);
    return cli_fail(c, EXIT_USAGE, "--arch: no architecture \"%s\"%s", name,
                    nearest_best(&near) ? arena_printf(c->arena, "; did you mean %s?", nearest_best(&near))
                                        : "; they are called sm_80, sm_86, sm_90a, ..");
}

/* "sm_86,sm_90a", each once. */
static int read_archs(Job *j, const char *list) {
    Cli *c = j->c;
    FacetInfo *info = &j->contents.info;
    while (*list) {
        size_t n = strcspn(list, ",");
        FacetArch a = {.name = arena_strndup(c->arena, list, n)};
        PlanTarget t;
        if (!plan_target(a.name, &t))
            return unknown_arch(c, a.name);
        for (int i = 0; i < info->archs.n; i++)
            if (strcmp(info->archs.v[i].name, a.name) == 0)
                return cli_fail(c, EXIT_USAGE, "--arch names %s twice", a.name);
        if (info->archs.n == FACET_MOST_ARCHS)
            return cli_fail(c, EXIT_USAGE, "--arch takes at most %d architectures", FACET_MOST_ARCHS);
        vec_push(c->arena, &info->archs, a);
        list += n + (list[n] == ',');
    }
    return info->archs.n ? EXIT_FINE : cli_fail(c, EXIT_USAGE, "--arch names no architecture");
}

/* The usual ones that NVRTC knows; or, of those asked for, all. */
static int supported_archs(Job *j) {
    Cli *c = j->c;
    FacetInfo *info = &j->contents.info;
    const NvrtcInfo *n = nvrtc_info(j->nvrtc);
    for (size_t i = 0; i < COUNTOF(usual_archs) && !c->o.arch; i++) {
        FacetArch a = {.name = usual_archs[i]};
        if (nvrtc_supports(j->nvrtc, a.name))
            vec_push(c->arena, &info->archs, a);
    }
    for (int i = 0; i < info->archs.n; i++) {
        if (!nvrtc_supports(j->nvrtc, info->archs.v[i].name))
            return cli_fail(c, EXIT_SYSTEM, "NVRTC %d.%d (%s) cannot compile for %s; a newer one is needed", n->major,
                            n->minor, n->path, info->archs.v[i].name);
        info->archs.v[i].nvrtc = arena_printf(c->arena, "%d.%d", n->major, n->minor);
    }
    return EXIT_FINE;
}

/* "models/gemma4.lap" -> "gemma4.facet" */
static const char *default_output(Arena *a, const char *text) {
    const char *slash = strrchr(text, '/'), *name = slash ? slash + 1 : text, *dot = strrchr(name, '.');
    return arena_printf(a, "%.*s.facet", (int)(dot && dot > name ? dot - name : (long)strlen(name)), name);
}

/* ==== Compiling ==== */

/* From the text to the module after all passes; fills in what the bundle says of it. */
static int make_module(Job *j, Bound *b, const TextSource *t) {
    Cli *c = j->c;
    FacetInfo *info = &j->contents.info;
    int code = cli_bind(c, b);
    if (code != EXIT_FINE)
        return code;
    Module *m = cli_compile(c, b, t);
    if (!m)
        return EXIT_INPUT;
    PipelineOptions p = {.pass = pass_options_default(), .out = stdout};
    p.pass.context = c->o.context;
    p.pass.chunk = cli_chunk(c);
    p.pass.rows = p.pass.rows < p.pass.chunk ? p.pass.rows : p.pass.chunk;
    p.pass.kv_k = cli_kv_type(c->o.kv_k, DT_F16);
    p.pass.kv_v = cli_kv_type(c->o.kv_v, DT_F16);
    cli_sparse_options(c, &p.pass);
    if (info->archs.n == 1) /* else one module serves them all */
        p.pass.rates = cli_rates_of_arch(&j->tuned, info->archs.v[0].name);
    p.pass.all_taps = c->o.taps;
    info->made_by = "lap " LAP_VERSION;
    info->model = m->name;
    info->text_name = t->name;
    for (int i = 0; i < c->o.set.n; i++)
        vec_push(c->arena, &info->settings, c->o.set.v[i]);
    info->weights = facet_weights(c->arena, b->in.file);
    info->target = b->in.target_file ? facet_weights(c->arena, b->in.target_file) : NULL;
    j->contents.text = t->text;
    j->contents.text_len = t->len;
    j->contents.module = j->module = m;
    j->pass = p.pass;
    return pipeline_run(m, &p) ? EXIT_FINE : EXIT_INPUT;
}

static PlanTarget target_of(const FacetArch *a) {
    PlanTarget t;
    if (!plan_target(a->name, &t))
        ICE("architecture %s was known", a->name);
    return t;
}

/* --memory: a chunk that every architecture has room for. False after an error. */
static bool choose_chunk(Job *j) {
    const FacetInfo *info = &j->contents.info;
    ChunkRequest least = {0}, largest = {0};
    for (int i = 0; i < info->archs.n; i++) {
        ChunkRequest r = {.m = j->module, .pass = j->pass, .slots = (int)j->c->o.slots};
        const PlanTarget t = target_of(&info->archs.v[i]);
        r.pass.rates = cli_rates_of_arch(&j->tuned, info->archs.v[i].name);
        if (!chunk_choose(j->c->arena, &r, &t, &j->room))
            return false;
        least = i == 0 || r.chunk < least.chunk ? r : least;
        largest = r.needs > largest.needs ? r : largest;
    }
    cli_check_memory(j->c, &largest);
    j->pass.chunk = least.chunk;
    j->pass.rows = j->pass.rows < least.chunk ? j->pass.rows : least.chunk;
    if (!j->c->o.quiet)
        fprintf(stderr, "chunk of %lld: %s\n", (long long)least.chunk, least.why);
    return pipeline_replan(j->module, &j->pass);
}

static int make_plans(Job *j) {
    Cli *c = j->c;
    FacetInfo *info = &j->contents.info;
    if (j->room.total_bytes && !choose_chunk(j))
        return EXIT_INPUT;
    const PassOptions *p = &j->pass;
    PlanOptions o = {.slots = (int)c->o.slots, .context = p->context, .chunk = p->chunk, .wanted = p->rows};
    info->options = (FacetOptions){p->context, p->chunk, p->rows, p->draft, o.slots, p->kv_k, p->kv_v};
    for (int i = 0; i < info->archs.n; i++) {
        FacetArch *a = &info->archs.v[i];
        const PlanTarget t = target_of(a);
        const PlanChoices choices = tuned_choices(c->arena, &j->tuned, a->name, NULL);
        o.choices = &choices;
        a->plan = plan_generate(c->arena, j->module, &t, &o);
        if (!a->plan)
            return EXIT_INPUT;
        a->n_kernels = a->plan->kernels.n;
        j->kernels += a->n_kernels;
    }
    return EXIT_FINE;
}

static bool on_progress(void *user, int done, int total) {
    Job *j = user;
    (void)total;
    progress_set(j->progress, j->done + done, j->kernels);
    return !cli_interrupted;
}

static int compile_arch(Job *j, FacetArch *a) {
    Cli *c = j->c;
    const Plan *plan = a->plan;
    Program *programs = arena_array(c->arena, (size_t)plan->kernels.n + 1, sizeof *programs);
    FacetCubin *cubins = arena_array(c->arena, (size_t)plan->kernels.n + 1, sizeof *cubins);
    Compiled *out = j->compiled + j->done;
    DevError e = {0};
    CompileOptions o = {.cache = j->cache, .threads = (int)c->o.threads, .progress = on_progress, .user = j};
    int64_t bytes = 0;
    int cached = 0;
    for (int i = 0; i < plan->kernels.n; i++) {
        const PlanKernel *k = &plan->kernels.v[i];
        programs[i] = (Program){k->name, k->text, plan_options, n_plan_options, plan_kernel_effort(k)};
    }
    double start = clock_seconds();
    bool ok = compile_programs(j->nvrtc, a->name, programs, plan->kernels.n, &o, out, &e);
    j->done += plan->kernels.n;
    if (cli_interrupted)
        return EXIT_INTERRUPTED;
    if (!ok) {
        diag_error(c->diag, NO_LOC, "%s", e.text);
        return e.kind == DEV_SOURCE ? EXIT_INPUT : EXIT_SYSTEM;
    }
    for (int i = 0; i < plan->kernels.n; i++) {
        cubins[i] = (FacetCubin){out[i].cubin, out[i].bytes};
        bytes += (int64_t)out[i].bytes;
        cached += out[i].state == COMPILE_CACHED;
    }
    a->cubins = cubins;
    char text[32];
    const int as_tuned = cli_tuned_kernels(plan);
    if (!c->o.quiet)
        fprintf(stderr, "%s: %d kernels, %s of code, %.1f s%s%s\n", a->name, plan->kernels.n,
                plan_bytes_text(text, bytes), clock_seconds() - start,
                cached ? arena_printf(c->arena, " (%d were compiled before)", cached) : "",
                as_tuned ? arena_printf(c->arena, "; %d as they were tuned", as_tuned) : "");
    return EXIT_FINE;
}

static int compile_all(Job *j) {
    Cli *c = j->c;
    FacetInfo *info = &j->contents.info;
    int code = EXIT_FINE;
    j->compiled = arena_array(c->arena, (size_t)j->kernels + 1, sizeof *j->compiled);
    j->cache = cli_open_kernel_cache(c);
    j->progress = progress_start(c, "compiling kernels");
    cli_catch_end();
    for (int i = 0; i < info->archs.n && code == EXIT_FINE; i++)
        code = compile_arch(j, &info->archs.v[i]);
    progress_end(j->progress);
    cli_close_kernel_cache(c, j->cache);
    if (code == EXIT_INTERRUPTED)
        fprintf(stderr, "interrupted; nothing is written\n");
    return code;
}

/* What is written must be what the reader takes: all its checks, now and not where it is run. */
static bool reads_back(Cli *c, const char *path) {
    Facet *f = facet_open(path, c->diag);
    bool ok = f != NULL;
    for (int i = 0; ok && i < facet_info(f)->archs.n; i++)
        ok = facet_load(f, i, c->diag);
    facet_close(f);
    return ok;
}

static int write_bundle(Job *j, const char *path) {
    Cli *c = j->c;
    int64_t bytes = 0;
    char text[32];
    if (!facet_write(&j->contents, path, &bytes, c->diag))
        return EXIT_SYSTEM;
    if (!reads_back(c, path))
        return EXIT_INPUT;
    if (!c->o.quiet)
        fprintf(stderr, "%s: %s\n", path, plan_bytes_text(text, bytes));
    return EXIT_FINE;
}

static int compile(Job *j, Bound *b, const TextSource *t) {
    Cli *c = j->c;
    DevError e = {0};
    const char *tuned = c->o.tuned ? c->o.tuned : cli_tuned_file(c, c->o.compile_tune);
    int code = cli_read_tuned(c, tuned, c->o.tuned != NULL, &j->tuned);
    if (code == EXIT_FINE)
        code = make_module(j, b, t);
    if (code != EXIT_FINE)
        return code;
    Nvrtc *nvrtc = nvrtc_open(c->o.nvrtc, &e);
    j->nvrtc = nvrtc;
    code = nvrtc ? supported_archs(j) : cli_fail(c, EXIT_SYSTEM, "%s", e.text);
    if (code == EXIT_FINE)
        code = make_plans(j);
    if (code == EXIT_FINE)
        code = compile_all(j);
    if (code == EXIT_FINE)
        code = write_bundle(j, c->o.facet_out);
    for (int64_t i = 0; i < j->kernels && j->compiled; i++)
        compiled_free(&j->compiled[i]);
    nvrtc_close(nvrtc);
    return code;
}

int cmd_compile(Cli *c) {
    Job j = {.c = c};
    TextSource t;
    Bound b = {0};
    int code = cli_memory(c, &j.room);
    if (code == EXIT_FINE && c->o.arch)
        code = read_archs(&j, c->o.arch);
    if (code != EXIT_FINE)
        return code;
    if (!text_read(c->arena, c->diag, c->o.operand[0], &t))
        return EXIT_INPUT;
    if (c->o.tuned && strcmp(c->o.compile_tune, "off") == 0)
        return cli_fail(c, EXIT_USAGE, "--tuned and --tune off exclude each other");
    if (!c->o.weights)
        return cli_fail(c, EXIT_USAGE, "give weights with --weights W: shapes and parameters come from their metadata");
    if (!c->o.facet_out)
        c->o.facet_out = default_output(c->arena, t.name);
    if (!cli_may_write(c, c->o.facet_out))
        return EXIT_USAGE;
    code = compile(&j, &b, &t);
    cli_unbind(&b);
    return code;
}
