/* session_open.c - from weights, and a model text or a bundle, to a session. See session.h. */
#include "runtime/engine/session_int.h"
#include <math.h>
#include <string.h>

/* Bound of the logits buffer when every row is wanted, and the rows that may be wanted however large it is. */
#define ALL_ROWS_BYTES ((int64_t)64 << 20)
enum { LEAST_WANTED = 16 };

/* ==== What both ways need ==== */

/* Every tap asked for must exist before passes drop what is not wanted. */
static bool check_taps(const Session *s) {
    bool ok = true;
    for (int i = 0; i < s->n_taps; i++) {
        const char *name = s->taps[i];
        if (ir_find_output(s->step, OUT_TAP, name))
            continue;
        ok = false;
        Nearest near = nearest_new((Str){name, strlen(name)});
        Buf all = {0};
        for (int k = 0; k < s->step->outputs.n; k++) {
            const Output *out = &s->step->outputs.v[k];
            if (out->kind != OUT_TAP)
                continue;
            nearest_try(&near, out->name);
            buf_printf(&all, "%s%s", all.n ? ", " : "", out->name);
        }
        diag_error(s->diag, NO_LOC, "%s has no tap \"%s\"", s->facet ? s->o.facet : s->text.name, name);
        if (nearest_best(&near))
            diag_note(s->diag, NO_LOC, "did you mean \"%s\"?", nearest_best(&near));
        if (s->facet && all.n == 0)
            diag_note(s->diag, NO_LOC, "lap compile --taps keeps them in the bundle");
        else
            diag_note(s->diag, NO_LOC, "taps: %s", all.n ? all.s : "none");
        buf_free(&all);
    }
    return ok;
}

/* The weights' bytes in the order of the module. */
static bool bind_data(Session *s) {
    const ModelFile *file = weights_file(s->weights);
    s->data = arena_array(s->arena, (size_t)s->module->weights.n + 1, sizeof *s->data);
    for (int i = 0; i < s->module->weights.n; i++) {
        const Weight *w = &s->module->weights.v[i];
        const ModelFile *of = w->from && s->draft.weights ? weights_file(s->draft.weights) : file;
        const TensorInfo *t = modelfile_tensor(of, weight_tensor(w));
        s->data[i] = t ? t->data : NULL;
        if (!s->data[i]) {
            diag_error(s->diag, w->loc, "no data for weight \"%s\" in %s", w->name, of->path);
            return false;
        }
    }
    return true;
}

/* Rows of which every one's logits may be wanted. */
static int64_t logits_that_fit(const Session *s) {
    const int64_t fit = ALL_ROWS_BYTES / ((int64_t)s->vocab * (int64_t)sizeof(float));
    return fit > s->grid ? fit : s->grid; /* a block of queries in parts would choose other keys */
}

int64_t session_rows_a_call(const Session *s, bool all) {
    const int64_t fit = logits_that_fit(s);
    int64_t most = !all || fit > s->o.chunk ? s->o.chunk : fit;
    if (all && s->facet && most > session_step_rows(s))
        most = session_step_rows(s);
    return most < 1 ? 1 : most;
}

/* Most rows whose logits are wanted of one call of up to `chunk` rows. */
static int64_t wanted_rows(const Session *s, int64_t chunk) {
    const int64_t fit = logits_that_fit(s), rows = fit > LEAST_WANTED ? fit : LEAST_WANTED;
    return rows < chunk ? rows : chunk;
}

/* What calls need to know of the graph; passes do not change it. */
static bool read_outputs(Session *s) {
    NodeId logits = ir_find_output(s->step, OUT_EMIT, "logits");
    const Type *t = logits ? ir_type(s->step, logits) : NULL;
    if (!t || t->rank != 2 || t->dtype != DT_F32 || t->dim[0] != DIM_R || t->dim[1] > INT32_MAX) {
        diag_error(s->diag, s->step->loc, "entry \"step\" must emit logits of type f32[R, vocabulary]%s%s",
                   t ? ", not " : "", t ? type_text(s->arena, t) : "");
        return false;
    }
    s->vocab = (int)t->dim[1];
    for (int i = 0; i < s->n_taps; i++) {
        const Type *tap = ir_type(s->step, ir_find_output(s->step, OUT_TAP, s->taps[i]));
        if (!type_has_rows(tap) || (tap->dim[0] != DIM_T && i < s->o.n_taps)) {
            diag_error(s->diag, s->step->loc, "tap \"%s\" has no row for each token: %s", s->taps[i],
                       type_text(s->arena, tap));
            return false;
        }
        s->tap_width[i] = type_row_elems(tap);
    }
    return true;
}

/* s->module is there. */
static bool read_module(Session *s) {
    s->step = module_graph(s->module, "step");
    if (!s->step) {
        diag_error(s->diag, NO_LOC, "%s has no entry \"step\": it cannot run by itself", s->text.name);
        return false;
    }
    return check_taps(s) && read_outputs(s) && bind_data(s) && session_check_tables(s);
}

/* ==== From a text ==== */

static PassOptions pass_options(const Session *s) {
    PassOptions p = pass_options_default();
    p.context = s->o.context;
    p.chunk = s->o.chunk;
    p.rows = wanted_rows(s, s->o.chunk);
    p.kv_k = s->o.kv_k == DT_COUNT ? s->backend->kv_type : s->o.kv_k;
    p.kv_v = s->o.kv_v == DT_COUNT ? s->backend->kv_type : s->o.kv_v;
    p.sparse = s->o.sparse;
    p.rates = s->rates.rates;
    p.alpha = s->o.alpha ? fmax(*s->o.alpha, 0) : p.alpha;
    p.all_taps = false;
    p.taps = s->taps;
    p.n_taps = s->n_taps;
    return p;
}

static bool run_pipeline(Session *s, Module *m) {
    PipelineOptions p = {.pass = pass_options(s)};
    p.verify_each = s->o.verify_each;
    p.data = s->data;
    p.out = stderr;
    return pipeline_run(m, &p);
}

/* A drafter's text reads its target's weights, which are not there: it would be full of errors. */
static bool runs_by_itself(const Session *s) {
    FeHead head;
    if (!fe_head(s->arena, s->text.text, s->text.len, &head) || !head.target)
        return true;
    diag_error(s->diag, NO_LOC, "%s is a drafter, by %s: it guesses for a model of \"%s\" and does not run by itself",
               s->o.weights, s->text.name, head.target);
    diag_note(s->diag, NO_LOC, "lap run TARGET.gguf --draft %s runs it with the weights of its target", s->o.weights);
    return false;
}

static GpuRates rates_of_backend(const Session *s) {
    const BackendOptions b = {.threads = s->o.threads, .gpu = s->o.gpu};
    return s->backend->rates(s->arena, &b, s->diag);
}

static bool compile(Session *s) {
    const ModelFile *file = weights_file(s->weights);
    if (!text_choose(s->arena, s->diag, s->o.model, file, "--model", &s->text) || !runs_by_itself(s))
        return false;
    FeInput in = {.name = s->text.name,
                  .text = s->text.text,
                  .len = s->text.len,
                  .file = file,
                  .settings = s->o.settings,
                  .n_settings = s->o.n_settings};
    Module *m = fe_compile(s->arena, s->diag, &in);
    s->module = s->compiled = m;
    s->rates = m ? rates_of_backend(s) : s->rates;
    s->grid = m && s->o.sparse == SPARSE_ON ? sparse_grid(m) : 1;
    if (!m || !draft_compile(s, m) || !read_module(s) || !run_pipeline(s, m))
        return false;
    s->step = module_graph(s->module, "step");
    return draft_check(s);
}

/* ==== From a bundle ==== */

/* An option that was given must be what the bundle was compiled with. */
static bool check_number(const Session *s, const char *option, int64_t asked, int64_t has) {
    if (asked == 0 || asked == has)
        return true;
    diag_error(s->diag, NO_LOC, "%s was compiled with %s %lld, not %lld", s->o.facet, option, (long long)has,
               (long long)asked);
    return false;
}

static bool check_type(const Session *s, const char *option, DType asked, DType has) {
    if (asked == DT_COUNT || asked == has)
        return true;
    diag_error(s->diag, NO_LOC, "%s was compiled with %s %s, not %s", s->o.facet, option, dtype_name(has),
               dtype_name(asked));
    return false;
}

static bool check_settings(const Session *s, const FacetInfo *info) {
    bool ok = true;
    for (int i = 0; i < s->o.n_settings; i++) {
        const char *asked = arena_printf(s->arena, "%s=%s", s->o.settings[i].name, s->o.settings[i].value);
        bool found = false;
        Buf has = {0};
        for (int k = 0; k < info->settings.n; k++) {
            found = found || strcmp(info->settings.v[k], asked) == 0;
            buf_printf(&has, " --set %s", info->settings.v[k]);
        }
        if (!found)
            diag_error(s->diag, NO_LOC, "%s was compiled with%s, not with --set %s", s->o.facet,
                       has.n ? has.s : "out --set", asked);
        buf_free(&has);
        ok = ok && found;
    }
    return ok;
}

bool session_facet_takes(const SessionOptions *o, Diag *diag) {
    const struct {
        const char *option;
        bool given;
    } rows[] = {{"--model", o->model != NULL},
                {"--verify-each", o->verify_each},
                {"--draft", o->draft != NULL},
                {"--sparse", o->sparse != SPARSE_AUTO},
                {"--alpha", o->alpha != NULL},
                {"--use-kernel", o->gpu.use_kernel != NULL},
                {"--device cpu", strcmp(o->device, "cpu") == 0}};
    bool ok = true;
    for (size_t i = 0; i < COUNTOF(rows) && o->facet; i++)
        if (rows[i].given) {
            diag_error(diag, NO_LOC, "%s has no meaning with --facet: a bundle is a text compiled for GPUs",
                       rows[i].option);
            ok = false;
        }
    return ok;
}

static bool check_options(const Session *s, const FacetInfo *info) {
    const SessionOptions *o = &s->o;
    const FacetOptions *f = &info->options;
    bool ok = check_number(s, "--context", o->context, f->context);
    ok &= check_number(s, "--slots", o->sequences, f->slots);
    ok &= check_number(s, "--chunk", o->chunk, f->chunk);
    ok &= check_type(s, "--kv-k", o->kv_k, f->kv_k);
    ok &= check_type(s, "--kv-v", o->kv_v, f->kv_v);
    ok &= check_settings(s, info);
    return ok;
}

/* Plan and kernels for the GPU that is there. */
static bool take_arch(Session *s) {
    char arch[16];
    if (!gpu_arch(s->o.gpu.driver, s->o.gpu.ordinal, arch, s->diag))
        return false;
    const FacetArch *a = facet_arch(s->facet, arch, s->diag);
    if (!a)
        return false;
    GpuCubin *cubins = arena_array(s->arena, (size_t)a->n_kernels + 1, sizeof *cubins);
    for (int i = 0; i < a->n_kernels; i++)
        cubins[i] = (GpuCubin){a->cubins[i].data, a->cubins[i].bytes};
    s->o.gpu.ready = a->plan;
    s->o.gpu.cubins = cubins;
    return true;
}

/* Whether it was compiled so. */
static bool attends_sparse(const Module *m) {
    for (int i = 0; i < m->graphs.n; i++)
        for (int k = 0; k < m->graphs.v[i]->groups.n; k++)
            if (m->graphs.v[i]->groups.v[k].prefill.way == ATTEND_SPARSE)
                return true;
    return false;
}

static bool take_bundle(Session *s) {
    if (!session_facet_takes(&s->o, s->diag) || !(s->facet = facet_open(s->o.facet, s->diag)))
        return false;
    const FacetInfo *info = facet_info(s->facet);
    if (!check_options(s, info) || !facet_check_weights(s->facet, weights_file(s->weights), NULL, s->diag))
        return false;
    s->o.context = info->options.context;
    s->o.chunk = info->options.chunk < s->o.context ? info->options.chunk : s->o.context;
    s->o.sequences = (int)info->options.slots;
    s->text.name = info->text_name;
    s->module = facet_module(s->facet);
    s->grid = attends_sparse(s->module) ? sparse_grid(s->module) : 1;
    if (!read_module(s))
        return false;
    if (session_step_rows(s) < 1) {
        diag_error(s->diag, NO_LOC, "%s: entry \"step\" is not planned", s->o.facet);
        return false;
    }
    return take_arch(s);
}

/* ==== Opening ==== */

/* Opens it; on a GPU the chunk is chosen by what is free there, unless it was given. */
static bool start_backend(Session *s) {
    BackendOptions b = {.threads = s->o.threads, .gpu = s->o.gpu};
    ChunkRequest choose = {.m = s->compiled, .slots = s->o.sequences};
    b.gpu.plan = (PlanOptions){
        .slots = s->o.sequences, .context = s->o.context, .chunk = s->o.chunk, .wanted = wanted_rows(s, s->o.chunk)};
    if (s->chunk_why) {
        choose.pass = pass_options(s);
        choose.pass.rows = wanted_rows(s, s->o.context);
        b.gpu.choose = &choose;
    }
    s->state = s->backend->open(s->module, s->data, &b);
    if (s->state && choose.why) {
        s->o.chunk = choose.chunk;
        s->chunk_why = arena_strdup(s->arena, choose.why);
    }
    return s->state;
}

static bool open_backend(Session *s) {
    if (!start_backend(s))
        return false;
    const Gpu *gpu = session_gpu(s);
    s->device = gpu ? arena_printf(s->arena, "%s %s", s->backend->name, dev_info(gpu_device(gpu))->name)
                    : arena_strdup(s->arena, s->backend->name);
    s->now = s->sequences = arena_array(s->arena, (size_t)s->o.sequences, sizeof *s->sequences);
    for (int i = 0; i < s->o.sequences; i++)
        s->sequences[i].tokens = arena_array(s->arena, (size_t)s->o.context, sizeof *s->now->tokens);
    s->pos = arena_array(s->arena, (size_t)s->o.chunk, sizeof *s->pos);
    s->slots = arena_array(s->arena, (size_t)s->o.chunk, sizeof *s->slots);
    s->rows = arena_array(s->arena, (size_t)s->o.chunk, sizeof *s->rows);
    for (int64_t i = 0; i < s->o.chunk; i++)
        s->rows[i] = (int32_t)i;
    return draft_open(s);
}

Session *session_open(const SessionOptions *o, Diag *diag) {
    if (o->n_taps > MAX_TAPS) {
        diag_error(diag, NO_LOC, "at most %d taps can be read at once, not %d", MAX_TAPS, o->n_taps);
        return NULL;
    }
    const bool any = o->facet && strcmp(o->device, "auto") == 0;
    const Backend *backend = backend_find(any ? "gpu" : o->device, o->gpu.driver, diag);
    if (!backend)
        return NULL;
    Arena *arena = arena_new();
    Session *s = arena_alloc(arena, sizeof *s);
    *s = (Session){.o = *o, .diag = diag, .arena = arena, .backend = backend, .grid = 1, .n_taps = o->n_taps};
    for (int i = 0; i < o->n_taps; i++)
        s->taps[i] = o->taps[i];
    if (!s->o.facet && !s->o.sequences)
        s->o.sequences = 1;
    if (!s->o.facet && !s->o.chunk) {
        s->o.chunk = CHUNK_USUAL;
        s->chunk_why = "the usual one";
    }
    if (!s->o.facet && s->o.chunk > s->o.context)
        s->o.chunk = s->o.context;
    s->weights = weights_open(o->weights, diag);
    if (!s->weights || !(o->facet ? take_bundle(s) : compile(s)) || !open_backend(s)) {
        session_close(s);
        return NULL;
    }
    return s;
}

void session_close(Session *s) {
    if (!s)
        return;
    draft_close(s);
    if (s->state)
        s->backend->close(s->state);
    if (s->tokenizer)
        tokenizer_free(s->tokenizer);
    if (s->weights)
        weights_close(s->weights);
    facet_close(s->facet);
    arena_free(s->arena);
}
