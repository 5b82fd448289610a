/* test_long_chunks.c - a prompt several times as long as a window of 1,024, in calls of few and of thousands of rows:
 * the last row's logits and what the caches hold are the same bits as after one call, which needs no ring.
 *
 * Two layers, the first with a window, the second sees everything. Rings are as plan-kv makes them for the most rows of
 * a call; all of them are gone around. Heads are small, so that the lengths can be those of real prompts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/eval.h"
#include "passes/passes.h"

enum { N = 5300, WINDOW = 1024, D = 32, VOCAB = 40, LAYERS = 2, N_WEIGHTS = 1 + 4 * LAYERS };

/* Of a layer: its number, and its variant. */
#define LAYER(i, h, next, variant)                                                                                     \
    "  %n" i " = rms_norm %" h " {eps=1e-06} : f32[T, 32]\n"                                                           \
    "  %q" i " = linear %n" i ", @q" i " : f32[T, 32]\n  %k" i " = linear %n" i ", @k" i " : f32[T, 32]\n"             \
    "  %v" i " = linear %n" i ", @v" i " : f32[T, 32]\n"                                                               \
    "  %qh" i " = reshape %q" i " : f32[T, 1, 32]\n  %kh" i " = reshape %k" i " : f32[T, 1, 32]\n"                     \
    "  %vh" i " = reshape %v" i " : f32[T, 1, 32]\n"                                                                   \
    "  %qr" i " = rope %qh" i ", pos {base=10000, dims=32, scale=1} : f32[T, 1, 32]\n"                                 \
    "  %kr" i " = rope %kh" i ", pos {base=10000, dims=32, scale=1} : f32[T, 1, 32]\n"                                 \
    "  %s" i " = kv_store $kv." i ", %kr" i ", %vh" i ", pos : kv\n"                                                   \
    "  %a" i " = attend %qr" i ", %s" i ", pos {variant=" variant ", scale=0.5} : f32[T, 1, 32]\n"                     \
    "  %f" i " = reshape %a" i " : f32[T, 32]\n  %o" i " = linear %f" i ", @o" i " : f32[T, 32]\n"                     \
    "  %" next " = add %" h ", %o" i " : f32[T, 32]\n  keep kv." i " = %s" i "\n"
#define WEIGHTS(i)                                                                                                     \
    "weight @q" i " : f32[32, 32]\nweight @k" i " : f32[32, 32]\nweight @v" i " : f32[32, 32]\n"                       \
    "weight @o" i " : f32[32, 32]\n"

static const char text[] = "module long arch \"long\"\nweight @e : f32[40, 32]\n" WEIGHTS("0") WEIGHTS(
    "1") "cache kv.0 : heads 1 k f32[32] v f32[32]\ncache kv.1 : heads 1 k f32[32] v f32[32]\n"
         "variant full {\n  visible = k <= q\n}\nvariant window {\n  visible = k <= q and q - k < 1024\n}\n"
         "graph step(tokens: i32[T], pos: i32[T], rows: i32[R]) {\n  %h = embed tokens, @e : f32[T, 32]\n" LAYER(
             "0", "h", "h0", "window")
             LAYER("1", "h0", "h1", "full") "  %r = rows %h1, rows : f32[R, 32]\n  %logits = linear %r, @e : f32[R, "
                                            "40]\n  emit logits = %logits\n}\n";

typedef struct Machine {
    Arena *arena;
    Diag *diag;
    Module *m;
    Evaluator *e;
} Machine;

/* What is compared. Of the window the positions that a next row sees. */
typedef struct Result {
    float logits[VOCAB], k[LAYERS][N][D], v[LAYERS][N][D];
} Result;

static Result whole, parts;
static float weights[N_WEIGHTS][VOCAB * D];
static int32_t tokens[N];

static void choose_numbers(void) {
    uint64_t x = 5;
    for (size_t i = 0; i < sizeof weights / sizeof(float); i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        (&weights[0][0])[i] = ((float)(x >> 40) * 0x1p-24f - 0.5f) * 0.6f;
    }
    for (int i = 0; i < N; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = (int32_t)((x >> 33) % VOCAB);
    }
}

static void no_errors(const Machine *m) {
    diag_print(m->diag, stdout, false);
    assert_int_equal(diag_count(m->diag), 0);
}

static Machine machine(DType k, DType v, int chunk) {
    Machine m = {.arena = arena_new(), .diag = diag_new()};
    const void *data[N_WEIGHTS];
    PipelineOptions o = {.pass = pass_options_default(), .out = stdout};
    m.m = ir_parse(m.arena, m.diag, "long.ir", text, strlen(text));
    no_errors(&m);
    o.pass.context = N;
    o.pass.chunk = chunk;
    o.pass.rows = 1;
    o.pass.kv_k = k;
    o.pass.kv_v = v;
    assert_true(pipeline_run(m.m, &o));
    no_errors(&m);
    assert_int_equal(m.m->weights.n, N_WEIGHTS);
    for (int i = 0; i < m.m->weights.n; i++)
        data[i] = weights[i];
    m.e = eval_new(m.m, data, &(EvalOptions){.threads = 2, .context = N});
    no_errors(&m);
    return m;
}

static void machine_free(Machine *m) {
    eval_free(m->e);
    diag_free(m->diag);
    arena_free(m->arena);
}

static void call(Machine *m, int from, int n, float *logits) {
    static int32_t pos[N];
    const int32_t last = n - 1;
    for (int i = 0; i < n; i++)
        pos[i] = from + i;
    const EvalInput in[] = {{"tokens", tokens + from}, {"pos", pos}, {"rows", &last}};
    EvalOutput out = {"logits", logits};
    const EvalCall c = {.graph = module_graph(m->m, "step"),
                        .T = n,
                        .R = 1,
                        .inputs = in,
                        .n_inputs = 3,
                        .outputs = &out,
                        .n_outputs = 1};
    const bool ok = eval_call(m->e, &c, m->diag);
    no_errors(m);
    assert_true(ok);
}

static void take(const Machine *m, Result *r) {
    for (int c = 0; c < LAYERS; c++)
        for (int pos = c ? 0 : N - WINDOW + 1; pos < N; pos++)
            assert_true(eval_cache_row(m->e, c, 0, pos, r->k[c][pos], r->v[c][pos]));
}

static void run_whole(DType k, DType v) {
    Machine m = machine(k, v, N);
    assert_false(m.m->caches.v[0].layout.ring);
    memset(&whole, 0, sizeof whole);
    call(&m, 0, N, whole.logits);
    take(&m, &whole);
    machine_free(&m);
}

/* The first `first` rows in calls of `chunk`, the others one by one. */
static void run_parts(DType k, DType v, int chunk, int first) {
    Machine m = machine(k, v, chunk);
    const KvLayout *of_window = &m.m->caches.v[0].layout;
    assert_true(of_window->ring && of_window->capacity < N);
    memset(&parts, 0, sizeof parts);
    for (int from = 0, n; from < N; from += n) {
        const int left = from < first ? first - from : 1;
        n = left < chunk ? left : chunk;
        call(&m, from, n, parts.logits);
    }
    take(&m, &parts);
    machine_free(&m);
    if (memcmp(&parts, &whole, sizeof whole) != 0)
        fail_msg("K %s, V %s: calls of %d, then of 1 from %d on, leave something else than one call", dtype_name(k),
                 dtype_name(v), chunk, first);
}

static void long_prompts_in_chunks(void **state) {
    (void)state;
    static const DType types[][2] = {{DT_F16, DT_F16}, {DT_Q8_0, DT_Q4_0}};
    static const int chunks[] = {17, 333, 1023, 2049, 4095, 4096};
    choose_numbers();
    for (size_t t = 0; t < COUNTOF(types); t++) {
        run_whole(types[t][0], types[t][1]);
        for (size_t i = 0; i < COUNTOF(chunks); i++)
            run_parts(types[t][0], types[t][1], chunks[i], N);
        run_parts(types[t][0], types[t][1], 2049, N - 150);
        run_parts(types[t][0], types[t][1], 1, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_prompts_in_chunks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
