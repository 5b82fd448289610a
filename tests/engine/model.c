/* model.c - see model.h. */
#include "tests/engine/model.h"

#include "frontend/frontend.h"
#include "passes/passes.h"
#include "runtime/engine/modeltext.h"
#include <math.h>
#include <stdlib.h>

int failures;

void check(bool ok, const char *fmt, ...) {
    if (ok)
        return;
    va_list ap;
    va_start(ap, fmt);
    printf("FAILED: ");
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
    failures++;
}

Session *must_open(const SessionOptions *o, Diag *diag) {
    Session *s = session_open(o, diag);
    if (s)
        return s;
    diag_print(diag, stdout, false);
    printf("FAILED: the session does not open\n");
    exit(1);
}

Session *gpu_session(const char *path, const char *draft, int64_t context, int64_t chunk, const Places *p, Diag *diag) {
    const SessionOptions o = {.weights = path,
                              .draft = draft,
                              .context = context,
                              .chunk = chunk,
                              .kv_k = DT_COUNT,
                              .kv_v = DT_COUNT,
                              .device = "gpu",
                              .gpu = {.driver = p->driver, .nvrtc = p->nvrtc, .kernel_cache = p->kernel_cache}};
    return must_open(&o, diag);
}

double relative_rms(const float *got, const float *want, int64_t n) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    return sqrt(error / size);
}

/* ==== Opening ==== */

static void must(const Model *m, bool ok) {
    if (ok && diag_errors(m->diag) == 0)
        return;
    diag_print(m->diag, stdout, false);
    printf("FAILED: an error that was not expected\n");
    exit(1);
}

static void compile(Model *m, const ModelOptions *o) {
    const ModelFile *file = weights_file(m->weights);
    TextSource t;
    must(m, text_for_weights(m->arena, m->diag, file, "", &t));
    const FeInput in = {.name = t.name, .text = t.text, .len = t.len, .file = file};
    m->module = fe_compile(m->arena, m->diag, &in);
    must(m, m->module != NULL);
    m->data = arena_array(m->arena, (size_t)m->module->weights.n + 1, sizeof *m->data);
    for (int i = 0; i < m->module->weights.n; i++)
        m->data[i] = modelfile_tensor(file, m->module->weights.v[i].name)->data;
    PipelineOptions p = {.pass = pass_options_default(), .out = stdout};
    p.pass.context = o->context;
    p.pass.chunk = o->chunk;
    p.pass.rows = 16;
    p.pass.kv_k = p.pass.kv_v = DT_F16;
    p.pass.all_taps = false;
    must(m, pipeline_run(m->module, &p));
    m->step = module_graph(m->module, "step");
    m->vocab = (int)ir_type(m->step, ir_find_output(m->step, OUT_EMIT, "logits"))->dim[1];
}

static void choose_tokens(Model *m) {
    uint64_t x = 7;
    for (int s = 0; s < MAX_SLOTS; s++)
        for (int i = 0; i < MAX_POSITIONS; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            m->tokens[s][i] = (int32_t)((x >> 33) % (uint64_t)m->vocab);
        }
}

void model_open(Model *m, const ModelOptions *o, const Places *p) {
    *m = (Model){.arena = arena_new(), .diag = diag_new(), .slots = o->slots};
    m->weights = weights_open(o->path, m->diag);
    must(m, m->weights != NULL);
    compile(m, o);
    choose_tokens(m);
    const EvalOptions e = {.threads = 2, .slots = o->slots, .context = o->context};
    m->eval = eval_new(m->module, m->data, &e);
    const GpuOptions g = {
        .driver = p->driver,
        .nvrtc = p->nvrtc,
        .kernel_cache = p->kernel_cache,
        .plan = {.slots = o->slots, .context = o->context, .chunk = o->chunk, .wanted = 16},
        .timed_rows = o->timed_rows,
        .timed_wanted = o->timed_wanted,
        .tune = o->tune,
    };
    m->gpu = m->eval ? gpu_open(m->module, m->data, &g) : NULL;
    must(m, m->gpu != NULL);
}

void model_close(Model *m) {
    gpu_close(m->gpu);
    eval_free(m->eval);
    weights_close(m->weights);
    diag_free(m->diag);
    arena_free(m->arena);
}

/* ==== Calls ==== */

int rows_of(const Model *m, int slot, int n, Row *out) {
    for (int i = 0; i < n; i++)
        out[i] = (Row){slot, m->length[slot] + i};
    return n;
}

static void call(Model *m, bool gpu, const Row *rows, int n, const int32_t *wanted, int n_wanted, float *logits) {
    int32_t tokens[MAX_CALL], pos[MAX_CALL], slots[MAX_CALL];
    for (int i = 0; i < n; i++) {
        tokens[i] = m->tokens[rows[i].slot][rows[i].pos];
        pos[i] = (int32_t)rows[i].pos;
        slots[i] = rows[i].slot;
    }
    const EvalInput in[] = {{"tokens", tokens}, {"pos", pos}, {"rows", wanted}};
    EvalOutput out = {"logits", logits};
    const EvalCall c = {.graph = m->step,
                        .T = n,
                        .R = n_wanted,
                        .slots = slots,
                        .inputs = in,
                        .n_inputs = COUNTOF(in),
                        .outputs = &out,
                        .n_outputs = 1};
    must(m, gpu ? gpu_call(m->gpu, &c, m->diag) : eval_call(m->eval, &c, m->diag));
}

void on_gpu(Model *m, const Row *rows, int n, const int32_t *wanted, int n_wanted, float *logits) {
    call(m, true, rows, n, wanted, n_wanted, logits);
}

void on_eval(Model *m, const Row *rows, int n, const int32_t *wanted, int n_wanted, float *logits) {
    call(m, false, rows, n, wanted, n_wanted, logits);
}

void advance(Model *m, const Row *rows, int n) {
    for (int i = 0; i < n; i++)
        if (rows[i].pos >= m->length[rows[i].slot])
            m->length[rows[i].slot] = rows[i].pos + 1;
}

void truncate_to(Model *m, int slot, int64_t length) {
    gpu_truncate(m->gpu, slot, length);
    eval_truncate(m->eval, slot, length);
    m->length[slot] = length;
}
