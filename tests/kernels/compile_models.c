/* compile_models.c - the kernels of every model compile for every architecture, and the hot ones spill no registers. No
 * GPU needed.
 *
 * compile_models [--timed | --model NAME | --recorded FILE | --record FILE] FOLDER [ARCH..]; exit 77 without NVRTC.
 * FOLDER holds GGUF files of which only metadata is read (tests/models/make_headers.py): each is compiled with the
 * built-in text of its architecture, as `lap run` does by default, and with --sparse on. Kernels that several models
 * have in common are compiled once. All kernels for each architecture, of the command line or of all; with --model
 * those of one model; with --timed, in their place, the timed twins of all kernels of all phases
 * (codegen/plan_time.c), which may spill.
 *
 * With --recorded, of a template whose kernels FILE says have been compiled as they are (record.h) one alone, drawn
 * anew each time. With --record none of those, and FILE is brought up to date after each architecture, by what
 * compiles.
 */
#include "codegen/plan.h"
#include "frontend/frontend.h"
#include "passes/passes.h"
#include "runtime/engine/clock.h"
#include "runtime/engine/modeltext.h"
#include "runtime/weights/weights.h"
#include "tests/kernels/program.h"
#include "tests/kernels/record.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_MODELS = 64, MOST_HEAD = 4096 };

/* ==== What is compiled ==== */

/* Templates in which no thread may keep registers in memory. */
static const char *const hot_files[] = {
    "matmul_decode.cu",    "matmul_experts.cu",    "attention_decode.cu", "attention_pipeline.cu",
    "matmul_prefill.cu",   "attention_prefill.cu", "matmul_f32_many.cu",  "attention_means.cu",
    "attention_choose.cu", "matmul_wgmma.cu",      "attention_wgmma.cu",  "attention_wgmma_wide.cu",
};

#define SIXTEEN_ROWS(warps) "#define MM_NT 2\n#define MM_WARP_K 256\n#define MM_WARPS " warps "\n"

/* Spills that are known and bearable. */
static const struct {
    const char *arch, *file; /* arch "": any */
    const char *define;      /* part of a line of the kernel's head */
    int most;                /* bytes of a thread */
    const char *why;
} allowed_spills[] = {
    {"", "matmul_decode.cu", "X(0, PLAIN, 10752)", 224,
     "in the tail of E4B's per_layer_model_proj, once a step behind 55 MB of weights; none without the tail"},
    {"", "matmul_decode.cu", "X(0, PLAIN, 8960)", 160, "the same of E2B, 27 MB"},
    {"", "matmul_decode.cu", SIXTEEN_ROWS("13"), 40,
     "14 warps have 128 registers each: calls of 9 to 16 rows of 31B's full attention; fewer rows spill nothing"},
    {"", "matmul_decode.cu", SIXTEEN_ROWS("15"), 32, "16 warps, the same, of 12B, whose slices are whole rows"},
    {"sm_120a", "matmul_decode.cu", SIXTEEN_ROWS("4"), 56,
     "in the tail, of what it asks for at once: there and back once"},
    {"sm_120a", "matmul_decode.cu", SIXTEEN_ROWS("8"), 56, "the same"},
    {"", "matmul_wgmma.cu", "X(Q8_0)", 16, "of an item's numbers, read when an item of all columns begins or ends"},
    {"", "matmul_wgmma.cu", "X(PLAIN)", 24, "the same"},
    {"sm_80", "matmul_decode.cu", SIXTEEN_ROWS("12"), 24,
     "up to six of 16 rows' scales and sums: stored once a launch, three of them loaded once a strip of 27 KB"},
    {"sm_86", "matmul_decode.cu", SIXTEEN_ROWS("12"), 24, "the same"},
    {"sm_89", "matmul_decode.cu", SIXTEEN_ROWS("12"), 24, "the same"},
    {"sm_90a", "matmul_decode.cu", SIXTEEN_ROWS("12"), 16,
     "13 warps have 128 registers each: calls of 9 to 16 rows through the longest rows; fewer rows spill nothing"},
    {"sm_100a", "matmul_decode.cu", SIXTEEN_ROWS("12"), 12,
     "13 warps have 128 registers each: calls of 9 to 16 rows through the longest rows; fewer rows spill nothing"},
    {"sm_120a", "matmul_decode.cu", SIXTEEN_ROWS("12"), 12,
     "13 warps have 128 registers each: calls of 9 to 16 rows through the longest rows; fewer rows spill nothing"},
    {"", "attention_decode.cu", "#define ATT_WARPS 16\n", SPILL_OF_16_WARPS,
     "of 128 registers: what a block keeps from item to item and through the merge; before sm_90 up to five words are "
     "loaded for a tile, too, since all warps ask for it"},
};

static bool is_among(const char *s, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(s, list[i]) == 0)
            return true;
    return false;
}

/* ==== Models ==== */

typedef struct Model {
    const char *name;        /* "gemma4-31b" */
    Module *module, *sparse; /* after all passes; with --sparse on, NULL: nothing of it can be */
} Model;

typedef struct Models {
    Arena *arena;
    Diag *diag;
    Model v[MOST_MODELS];
    int n;
} Models;

static Module *compile_text(Models *all, const ModelFile *file, const ModelFile *target_file, const Module *target) {
    TextSource text;
    if (!text_for_weights(all->arena, all->diag, file, "--model", &text))
        return NULL;
    const FeInput in = {.name = text.name,
                        .text = text.text,
                        .len = text.len,
                        .file = file,
                        .target_file = target_file,
                        .target = target};
    return fe_compile(all->arena, all->diag, &in);
}

/* As `lap run` compiles it for a GPU; a drafter in its target's module. NULL without errors: it cannot be sparse. */
static Module *make_module(Models *all, const ModelFile *file, const ModelFile *target_file, SparseUse sparse) {
    Module *target = target_file ? compile_text(all, target_file, NULL, NULL) : NULL;
    Module *m = target_file && !target ? NULL : compile_text(all, file, target_file, target);
    if (target)
        m = m && module_link(target, m) ? target : NULL;
    PipelineOptions p = {.pass = pass_options_default(), .out = stdout};
    p.pass.kv_k = p.pass.kv_v = DT_F16;
    p.pass.all_taps = false;
    p.pass.sparse = sparse;
    return m && (sparse != SPARSE_ON || sparse_possible(m)) && pipeline_run(m, &p) ? m : NULL;
}

/* "gemma4-31b" of "gemma4-31b-mtp"; NULL of what is no drafter. */
static const char *target_name(Models *all, const char *name) {
    static const char *const drafters[] = {"-mtp", "-dflash"};
    const char *last = strrchr(name, '-');
    for (size_t i = 0; last && i < COUNTOF(drafters); i++)
        if (strcmp(last, drafters[i]) == 0)
            return arena_strndup(all->arena, name, (size_t)(last - name));
    return NULL;
}

static const ModelFile *open_header(Models *all, const char *folder, const char *name) {
    Weights *w = weights_open(arena_printf(all->arena, "%s/%s.gguf", folder, name), all->diag);
    return w ? weights_file(w) : NULL;
}

static bool add_model(Models *all, const char *folder, const char *file) {
    const char *dot = strrchr(file, '.');
    Model m = {.name = arena_strndup(all->arena, file, (size_t)(dot - file))};
    const char *target = target_name(all, m.name);
    const ModelFile *own = open_header(all, folder, m.name), *theirs = target ? open_header(all, folder, target) : NULL;
    m.module = own && (theirs || !target) ? make_module(all, own, theirs, SPARSE_AUTO) : NULL;
    m.sparse = m.module && !target ? make_module(all, own, NULL, SPARSE_ON) : NULL;
    all->v[all->n++] = m;
    return m.module != NULL && diag_errors(all->diag) == 0;
}

static int is_gguf(const struct dirent *d) {
    const char *dot = strrchr(d->d_name, '.');
    return dot && strcmp(dot, ".gguf") == 0;
}

static bool add_models(Models *all, const char *folder) {
    struct dirent **files;
    const int n = scandir(folder, &files, is_gguf, alphasort);
    bool ok = n > 0 && n <= MOST_MODELS;
    if (!ok)
        printf("%s: no folder of 1 to %d GGUF files\n", folder, MOST_MODELS);
    for (int i = 0; i < n; i++) {
        ok = ok && add_model(all, folder, files[i]->d_name);
        free(files[i]);
    }
    if (n >= 0)
        free(files);
    diag_print(all->diag, stdout, false);
    return ok;
}

/* ==== Kernels ==== */

typedef struct Job {
    PlanKernel kernel;
    const char *model, *label, *key; /* key: of its text */
    bool good;
} Job;

typedef struct Jobs {
    Arena *arena;
    VEC(Job) v;
    NameMap *texts;
    bool timed; /* twins, and nothing else */
} Jobs;

/* Of architecture after architecture. */
typedef struct Matrix {
    const Nvrtc *nvrtc;
    Models models;
    const char *only; /* the model that is compiled; NULL: all */
    Record *record;
    bool records; /* what compiles */
} Matrix;

/* The text behind the line that defines the kernel's name: equal for kernels that differ in it only. */
static const char *behind_name(const PlanKernel *k) {
    return strchr(k->text, '\n') + 1;
}

static const char *hash_of(Arena *a, const char *text) {
    const size_t n = strlen(text);
    return arena_printf(a, "%016llx%016llx", (unsigned long long)hash_bytes(text, n, 1),
                        (unsigned long long)hash_bytes(text, n, 2));
}

/* Kernels of the plan from number `first` on. */
static void collect(Matrix *m, Jobs *jobs, const Plan *plan, int first, const char *model) {
    for (int i = first; i < plan->kernels.n; i++) {
        const PlanKernel *k = &plan->kernels.v[i];
        const char *key = hash_of(m->models.arena, behind_name(k));
        if (namemap_get(jobs->texts, key) >= 0)
            continue;
        namemap_put(jobs->texts, key, 1);
        Job job = {*k, model, arena_printf(jobs->arena, "%s %s", model, k->name), key, false};
        vec_push(jobs->arena, &jobs->v, job);
    }
}

static bool collect_model(Matrix *m, Jobs *jobs, const PlanTarget *target, const Model *model) {
    const PassOptions p = pass_options_default();
    const PlanOptions o = {.slots = 1, .context = p.context, .chunk = p.chunk, .wanted = p.rows};
    const Plan *plan = plan_generate(jobs->arena, model->module, target, &o);
    const Plan *sparse = model->sparse ? plan_generate(jobs->arena, model->sparse, target, &o) : plan;
    if (plan && !jobs->timed)
        collect(m, jobs, plan, 0, model->name);
    if (sparse && sparse != plan && !jobs->timed)
        collect(m, jobs, sparse, 0, model->name);
    for (int i = 0, phases = plan && jobs->timed ? plan->phases.n : 0; plan && i < phases; i++) {
        Plan *timed = plan_generate(jobs->arena, model->module, target, &o);
        const int first = plan->kernels.n;
        plan = timed && plan_time_phase(timed, i, "wait", m->models.diag) ? timed : NULL;
        if (plan)
            collect(m, jobs, plan, first, model->name);
    }
    return plan && sparse;
}

static bool collect_all(Matrix *m, Jobs *jobs, const char *arch) {
    const Models *models = &m->models;
    PlanTarget target;
    if (!plan_target(arch, &target)) {
        printf("%s: there are no kernels for it\n", arch);
        return false;
    }
    for (int i = 0; i < models->n; i++) {
        const Model *model = &models->v[i];
        if ((!m->only || strcmp(m->only, model->name) == 0) && !collect_model(m, jobs, &target, model)) {
            diag_print(models->diag, stdout, false);
            printf("%s: no plan for %s\n", model->name, arch);
            return false;
        }
    }
    return true;
}

/* ==== What ptxas says ==== */

/* The row of allowed_spills; -1: none. */
static int find_allowed(const char *arch, const PlanKernel *k) {
    const size_t head = (size_t)(strstr(k->text, "#line") - k->text);
    char text[MOST_HEAD];
    snprintf(text, sizeof text, "%.*s", (int)head, k->text);
    for (size_t i = 0; i < COUNTOF(allowed_spills); i++)
        if ((!*allowed_spills[i].arch || strcmp(allowed_spills[i].arch, arch) == 0) &&
            strcmp(allowed_spills[i].file, k->file) == 0 && strstr(text, allowed_spills[i].define))
            return (int)i;
    return -1;
}

/* Static and dynamic shared memory together. */
static bool shared_fits(const char *arch, const Job *job, const Compiled *out) {
    PlanTarget target;
    const int64_t all = job->kernel.shared + ptxas_number(out->log, " bytes smem");
    const bool fits = plan_target(arch, &target) && all <= target.shared_per_block;
    if (!fits)
        printf("%s: %s: a block has %lld bytes of shared memory  FAILED\n", arch, job->label, (long long)all);
    return fits;
}

/* Prints what is wrong or spills, and why that may be. */
static bool inspect(const char *arch, const Job *job, const Compiled *out, bool timed) {
    const int registers = ptxas_number(out->log, " registers"), spill = ptxas_number(out->log, " bytes spill stores");
    if (!out->cubin || !registers) {
        printf("%s: %s: %s  FAILED\n", arch, job->label, out->cubin ? "ptxas reported nothing" : out->error.text);
        return false;
    }
    const bool hot = !timed && is_among(job->kernel.file, hot_files, COUNTOF(hot_files));
    const int row = find_allowed(arch, &job->kernel);
    const bool known = row >= 0 && spill <= allowed_spills[row].most, good = !hot || !spill || known;
    if (spill)
        printf("%s: %s, %s, %d threads: %d registers, %d bytes spilled%s%s\n", arch, job->label, job->kernel.file,
               job->kernel.threads, registers, spill, known ? ": " : "",
               known  ? allowed_spills[row].why
               : good ? ""
                      : "  FAILED");
    if (ptxas_serializes(out->log))
        printf("%s: %s, %s: products of warpgroups wait for each other%s\n", arch, job->label, job->kernel.file,
               hot ? "  FAILED" : "");
    return shared_fits(arch, job, out) && good && !(hot && ptxas_serializes(out->log));
}

/* distinct: how many kernels there are. */
static bool compile_jobs(const Nvrtc *nvrtc, const char *arch, Jobs *jobs, int distinct) {
    int n_options;
    const char *const *options = reporting_options(&n_options);
    Program *programs = arena_array(jobs->arena, (size_t)jobs->v.n + 1, sizeof *programs);
    Compiled *out = arena_array(jobs->arena, (size_t)jobs->v.n + 1, sizeof *out);
    for (int i = 0; i < jobs->v.n; i++)
        programs[i] = (Program){jobs->v.v[i].label, jobs->v.v[i].kernel.text, options, n_options,
                                plan_kernel_effort(&jobs->v.v[i].kernel)};
    const double start = clock_seconds();
    double busy = 0;
    bool ok = true;
    compile_programs(nvrtc, arch, programs, jobs->v.n, &(CompileOptions){0}, out, NULL);
    for (int i = 0; i < jobs->v.n; i++) {
        busy += out[i].seconds;
        jobs->v.v[i].good = inspect(arch, &jobs->v.v[i], &out[i], jobs->timed);
        ok &= jobs->v.v[i].good;
        compiled_free(&out[i]);
    }
    printf("%s: %d of %d kernels compiled in %.0f s (%.0f s of NVRTC)\n", arch, jobs->v.n, distinct,
           clock_seconds() - start, busy);
    fflush(stdout);
    return ok;
}

/* ==== What has been compiled before ==== */

/* A template's kernels for an architecture. */
typedef struct Template {
    const char *file, *hash;
    int n, first; /* first: of its jobs, which are neighbours */
    bool known;
} Template;

static int by_template(const void *x, const void *y) {
    const Job *a = x, *b = y;
    const int file = strcmp(a->kernel.file, b->kernel.file);
    return file ? file : strcmp(a->key, b->key);
}

/* Of the texts' keys, and of all that they are compiled and judged with. */
static const char *template_hash(const Matrix *m, Arena *a, const Job *jobs, int n) {
    const char *file = jobs[0].kernel.file;
    const NvrtcInfo *nvrtc = nvrtc_info(m->nvrtc);
    int n_options;
    const char *const *options = reporting_options(&n_options);
    Buf all = {0};
    buf_printf(&all, "%d.%d %d", nvrtc->major, nvrtc->minor, is_among(file, hot_files, COUNTOF(hot_files)));
    for (int i = 0; i < n_options; i++)
        buf_printf(&all, " %s", options[i]);
    for (size_t i = 0; i < COUNTOF(allowed_spills); i++)
        if (strcmp(allowed_spills[i].file, file) == 0)
            buf_printf(&all, " %s %s %d", allowed_spills[i].arch, allowed_spills[i].define, allowed_spills[i].most);
    for (int i = 0; i < n; i++)
        buf_printf(&all, " %s %lld", jobs[i].key, (long long)jobs[i].kernel.shared);
    const char *hash = hash_of(a, all.s);
    buf_free(&all);
    return hash;
}

/* Of an architecture's kernels, which it sorts. How many. */
static int find_templates(Matrix *m, const char *arch, Jobs *jobs, Template *templates) {
    int n = 0;
    qsort(jobs->v.v, (size_t)jobs->v.n, sizeof *jobs->v.v, by_template);
    for (int i = 0, next; i < jobs->v.n; i = next) {
        const char *file = jobs->v.v[i].kernel.file;
        for (next = i; next < jobs->v.n && strcmp(jobs->v.v[next].kernel.file, file) == 0;)
            next++;
        Template g = {.file = file,
                      .n = next - i,
                      .first = i,
                      .hash = template_hash(m, m->models.arena, &jobs->v.v[i], next - i)};
        g.known = record_has(m->record, arch, file, g.n, g.hash);
        templates[n++] = g;
    }
    return n;
}

/* Lines of templates all of whose kernels are good; those of others go. */
static bool record_templates(Matrix *m, const char *arch, const Jobs *jobs, const Template *templates, int n) {
    const char **files = arena_array(jobs->arena, (size_t)n + 1, sizeof *files);
    int kept = 0, next = 0; /* next: of the jobs that were compiled */
    for (int i = 0; i < n; i++) {
        bool good = true;
        for (int j = 0; !templates[i].known && j < templates[i].n; j++)
            good &= jobs->v.v[next++].good;
        if (good)
            files[kept++] = templates[i].file;
        if (good && !templates[i].known)
            record_set(m->record, arch, templates[i].file, templates[i].n, templates[i].hash);
    }
    record_keep(m->record, arch, files, kept);
    return record_write(m->record);
}

/* All kernels of templates that are not recorded as they are, and, unless it records, one of each other. */
static bool compile_unrecorded(Matrix *m, const char *arch, Jobs *jobs) {
    Template *templates = arena_array(jobs->arena, (size_t)jobs->v.n + 1, sizeof *templates);
    const int n = find_templates(m, arch, jobs, templates);
    Jobs chosen = {.arena = jobs->arena};
    int known = 0;
    for (int i = 0; i < n; i++) {
        const Template *g = &templates[i];
        known += g->known;
        for (int j = 0; !g->known && j < g->n; j++)
            vec_push(jobs->arena, &chosen.v, jobs->v.v[g->first + j]);
        if (g->known && !m->records)
            vec_push(jobs->arena, &chosen.v, jobs->v.v[g->first + (int)(time(NULL) % g->n)]);
    }
    printf("%s: %d of %d templates as recorded\n", arch, known, n);
    const bool ok = compile_jobs(m->nvrtc, arch, &chosen, jobs->v.n);
    return (!m->records || record_templates(m, arch, &chosen, templates, n)) && ok;
}

static bool compile_arch(Matrix *m, const char *arch, bool timed) {
    if (!nvrtc_supports(m->nvrtc, arch)) {
        printf("%s: this NVRTC does not know it\n", arch);
        return true;
    }
    Jobs jobs = {.arena = arena_new(), .timed = timed};
    jobs.texts = namemap_new(jobs.arena);
    const bool ok = collect_all(m, &jobs, arch) &&
                    (m->record ? compile_unrecorded(m, arch, &jobs) : compile_jobs(m->nvrtc, arch, &jobs, jobs.v.n));
    arena_free(jobs.arena);
    return ok;
}

/* ==== Main ==== */

/* Whether there is a model of the name, or none is asked for. */
static bool known_model(const Models *m, const char *name) {
    for (int i = 0; name && i < m->n; i++)
        if (strcmp(m->v[i].name, name) == 0)
            return true;
    if (name)
        printf("%s: none of the models\n", name);
    return !name;
}

static void matrix_free(Matrix *m) {
    diag_free(m->models.diag);
    arena_free(m->models.arena);
}

int main(int argc, char **argv) {
    const char *const option = argc > 1 ? argv[1] : "";
    const bool timed = strcmp(option, "--timed") == 0, records = strcmp(option, "--record") == 0;
    const bool named = strcmp(option, "--model") == 0, recorded = records || strcmp(option, "--recorded") == 0;
    const int first = timed ? 2 : named || recorded ? 3 : 1;
    if (argc < first + 1) {
        printf("compile_models [--timed | --model NAME | --recorded FILE | --record FILE] FOLDER [ARCH..]\n");
        return 2;
    }
    Matrix m = {
        .models = {.arena = arena_new(), .diag = diag_new()}, .only = named ? argv[2] : NULL, .records = records};
    m.record = recorded ? record_open(m.models.arena, argv[2]) : NULL;
    if ((recorded && !m.record) || !add_models(&m.models, argv[first]) || !known_model(&m.models, m.only)) {
        matrix_free(&m);
        return 1;
    }
    Nvrtc *nvrtc = programs_nvrtc();
    m.nvrtc = nvrtc;
    const bool some = argc > first + 1;
    const char *const *archs = some ? (const char *const *)argv + first + 1 : program_archs;
    const int n = some ? argc - first - 1 : n_program_archs;
    bool ok = true;
    for (int i = 0; i < n; i++)
        ok &= compile_arch(&m, archs[i], timed);
    nvrtc_close(nvrtc);
    matrix_free(&m);
    return ok ? 0 : 1;
}
