/* drafters_test.c - the drafters of the golden models against what the reference recorded.
 *
 * drafters_test FIXTURES [gpu [DRIVER NVRTC KERNELS]]: the folder that tests/fixtures/unpack.py filled; on the
 * evaluator, or on a GPU with K/V in f16 (exit 77 without one). Each entry is called with the recorded inputs, so that
 * one step's rounding does not reach the next; then a session drafts by itself, over several rounds.
 */
#include "runtime/engine/session_int.h"
#include "tests/engine/model.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT = 256, CHUNK = 128 };

static const char *fixtures;
static Arena *arena;
static bool on_a_gpu;
static Places places;

/* ==== What was recorded ==== */

static json_t *golden(const char *kind) {
    json_error_t e;
    json_t *j = json_load_file(arena_printf(arena, "%s/%s/golden.json", fixtures, kind), 0, &e);
    if (!j) {
        printf("FAILED: %s: %s\n", kind, e.text);
        exit(1);
    }
    return j;
}

static const json_t *at(const json_t *j, const char *path) {
    char part[64];
    for (const char *p = path; *p && j;) {
        const int n = (int)strcspn(p, ".");
        snprintf(part, sizeof part, "%.*s", n, p);
        j = json_is_array(j) ? json_array_get(j, (size_t)atoi(part)) : json_object_get(j, part);
        p += n + (p[n] == '.');
    }
    if (!j) {
        printf("FAILED: no \"%s\" in a golden.json\n", path);
        exit(1);
    }
    return j;
}

static int32_t number(const json_t *j, const char *path) {
    return (int32_t)json_integer_value(at(j, path));
}

static int32_t *numbers(const json_t *j, const char *path, int *n) {
    const json_t *list = at(j, path);
    *n = (int)json_array_size(list);
    int32_t *out = arena_array(arena, (size_t)*n + 1, sizeof *out);
    for (int i = 0; i < *n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return out;
}

/* `count` floats from element `first` on. */
static float *recorded(const char *kind, const char *file, int64_t first, int64_t count) {
    const char *path = arena_printf(arena, "%s/%s/%s", fixtures, kind, file);
    float *out = arena_array(arena, (size_t)count, sizeof *out);
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, first * 4, SEEK_SET) || fread(out, 4, (size_t)count, f) != (size_t)count) {
        printf("FAILED: cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    return out;
}

/* Against `count` recorded floats from element `first` on. */
static void expect(const float *got, const char *kind, const char *file, int64_t first, int64_t count, double most) {
    const float *want = recorded(kind, file, first, count);
    double worst = 0;
    for (int64_t i = 0; i < count; i++) {
        const double d = fabs((double)got[i] - want[i]);
        worst = d > worst || isnan(d) ? d : worst;
    }
    const double rms = relative_rms(got, want, count), bound = on_a_gpu ? 2e-2 : 1e-4;
    check(rms <= bound && (on_a_gpu || worst <= most), "%s/%s from %lld: relative rms %.2g, greatest difference %.2g",
          kind, file, (long long)first, rms, worst);
}

/* ==== A session with a drafter ==== */

typedef struct Setting {
    const char *kind, *target, *name, *value;
} Setting;

/* A drafter's file, or the folder of the checkpoint. */
static const char *drafter_weights(const char *kind) {
    const char *file = arena_printf(arena, "%s/%s/model.gguf", fixtures, kind);
    return access(file, R_OK) == 0 ? file : arena_printf(arena, "%s/%s", fixtures, kind);
}

static Session *open_session(const Setting *o, bool directory, const char *const *taps, int n_taps, Diag *diag) {
    const FeSetting settings[] = {{o->name, o->value}, {"cap", "0.0"}};
    const SessionOptions so = {
        .weights = arena_printf(arena, "%s/%s/model.gguf", fixtures, o->target),
        .draft = drafter_weights(o->kind),
        .draft_settings = settings,
        .n_draft_settings = directory ? 2 : 1,
        .context = CONTEXT,
        .chunk = CHUNK,
        .kv_k = on_a_gpu ? DT_F16 : DT_F32,
        .kv_v = on_a_gpu ? DT_F16 : DT_F32,
        .threads = 2,
        .device = on_a_gpu ? "gpu" : "cpu",
        .gpu = {.driver = places.driver, .nvrtc = places.nvrtc, .kernel_cache = places.kernel_cache},
        .taps = taps,
        .n_taps = n_taps,
    };
    Session *s = session_open(&so, diag);
    if (!s) {
        diag_print(diag, stdout, false);
        printf("FAILED: %s does not open\n", o->kind);
        exit(1);
    }
    return s;
}

static void feed(Session *s, const int32_t *tokens, int n, int chunk) {
    for (int i = 0; i < n; i += chunk) {
        const int now = n - i < chunk ? n - i : chunk;
        const int32_t row = now - 1;
        const StepCall c = {.tokens = tokens + i, .n = now, .rows = &row, .n_rows = 1};
        check(session_step(s, &c) == STEP_OK, "a step of %d rows", now);
    }
}

/* A verification: all rows are wanted. */
static void check_rows(Session *s, const int32_t *tokens, int n) {
    float *logits = arena_array(arena, (size_t)(n * session_vocab(s)), sizeof *logits);
    check(session_step_all(s, tokens, n, logits, NULL) == STEP_OK, "a verification of %d rows", n);
}

static void call(Session *s, const EvalCall *c) {
    const bool ok = s->backend->call(s->state, c, s->diag);
    if (!ok)
        diag_print(s->diag, stdout, false);
    check(ok, "a call of %s", c->graph->name);
}

/* On a GPU, with keys and values in f16, logits are right to 2e-2 of their RMS: two nearer to each other than that may
 * change places. */
static bool near_tie(const float *logits, int64_t n, int32_t best, int32_t other) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += (double)logits[i] * logits[i];
    return on_a_gpu && logits[best] - logits[other] < 2e-2 * sqrt(squares / (double)n);
}

/* Tokens that the session guesses against those recorded, with the logits recorded of each, or NULL. Behind a near-tie
 * that went the other way nothing is comparable. */
static void guesses(Session *s, int32_t newest, const int32_t *want, int n, const float *logits, const char *what) {
    const int64_t V = session_vocab(s);
    int32_t got[MAX_DRAFTS];
    check(session_draft(s, newest, n, got, NULL) == n, "%s: fewer than %d guesses", what, n);
    for (int i = 0; i < n; i++) {
        if (logits && got[i] != want[i] && near_tie(logits + i * V, V, want[i], got[i])) {
            printf("%s: guess %d is %d, nearly as likely as %d\n", what, i, got[i], want[i]);
            return;
        }
        check(got[i] == want[i], "%s: guess %d is %d, not %d", what, i, got[i], want[i]);
    }
}

/* ==== MTP ==== */

enum { STEPS = 3, LAYERS = 4 };

static void one_step(Session *s, const Setting *o, const json_t *j, const char *variant, int step) {
    static const char *const layer_taps[LAYERS] = {"layer.0", "layer.1", "layer.2", "layer.3"};
    const int64_t V = session_vocab(s), B = s->tap_width[s->o.n_taps], D = number(j, "config.hidden_size");
    float *logits = arena_array(arena, (size_t)V, 4), *g = arena_array(arena, (size_t)B, 4);
    float *layers = arena_array(arena, (size_t)(LAYERS * D), 4);
    const char *step_path = arena_printf(arena, "steps.%s.%d", variant, step);
    const int32_t token = number(j, arena_printf(arena, "%s.token_in", step_path)), pos = number(j, "position"),
                  row = 0;
    const EvalInput in[] = {{"tokens", &token},
                            {"pos", &pos},
                            {"rows", &row},
                            {"g", recorded(o->kind, arena_printf(arena, "%s_g_in.f32", variant), step * B, B)}};
    EvalOutput out[2 + LAYERS] = {{"logits", logits}, {"g", g}};
    for (int i = 0; i < LAYERS; i++)
        out[2 + i] = (EvalOutput){layer_taps[i], layers + i * D};
    const EvalCall c = {
        .graph = s->draft.draft, .T = 1, .R = 1, .inputs = in, .n_inputs = 4, .outputs = out, .n_outputs = 2 + LAYERS};
    call(s, &c);
    expect(layers, o->kind, arena_printf(arena, "%s_layers.f32", variant), step * LAYERS * D, LAYERS * D, 5e-4);
    expect(logits, o->kind, arena_printf(arena, "%s_logits.f32", variant), step * V, V, 2e-3);
    expect(g, o->kind, arena_printf(arena, "%s_g_out.f32", variant), step * B, B, 5e-4);
}

static void mtp(const char *kind, const char *target, const char *variant, const char *extra, int chunk) {
    static const char *const taps[] = {"layer.0", "layer.1", "layer.2", "layer.3"};
    const Setting o = {kind, target, "extra", extra};
    Diag *diag = diag_new();
    Session *s = open_session(&o, false, taps, LAYERS, diag);
    json_t *j = golden(kind), *t = golden(target);
    int n;
    int32_t want[STEPS];
    const int32_t *prompt = numbers(t, "prompt_tokens", &n);
    feed(s, prompt, n, chunk);
    for (int i = 0; i < STEPS; i++) {
        one_step(s, &o, j, variant, i);
        want[i] = number(j, arena_printf(arena, "steps.%s.%d.argmax", variant, i));
    }
    const int32_t newest = number(t, "greedy_tokens.0");
    const int64_t V = session_vocab(s);
    guesses(s, newest, want, STEPS, recorded(kind, arena_printf(arena, "%s_logits.f32", variant), 0, STEPS * V),
            arena_printf(arena, "%s %s", kind, variant));
    /* Rows that were read and turned down change nothing; far back there is nothing to go by. */
    int32_t plain[STEPS];
    feed(s, &newest, 1, 1);
    check(session_draft(s, want[0], STEPS, plain, NULL) == STEPS, "%s: no guesses behind one token", kind);
    session_rewind(s, n);
    check_rows(s, (const int32_t[]){newest, 7, 8, 9}, 4);
    session_rewind(s, n + 1);
    guesses(s, want[0], plain, STEPS, NULL, arena_printf(arena, "%s %s after a rewind", kind, variant));
    session_rewind(s, n - 60);
    check(session_draft(s, newest, 2, want, NULL) == 0, "%s guesses without the target's vector", kind);
    session_close(s);
    diag_free(diag);
    json_decref(j);
    json_decref(t);
}

/* ==== DFlash ==== */

/* [n] floats that the back end holds. */
static float *held(const Session *s, const float *at, int64_t n) {
    float *out = arena_array(arena, (size_t)n, sizeof *out);
    DevError e = {0};
    if (!on_a_gpu)
        return memcpy(out, at, (size_t)n * sizeof *out);
    DevStream *stream = dev_stream_new(gpu_device(session_gpu(s)), &e);
    check(stream && dev_copy_out(stream, out, (DevPtr)(uintptr_t)at, (size_t)n * sizeof *out, &e) &&
              dev_stream_wait(stream, &e),
          "what is held cannot be read: %s", e.text);
    dev_stream_free(stream);
    return out;
}

static void check_features(Session *s, const json_t *j, int n) {
    const int taps = (int)json_array_size(at(j, "config.dflash_config.target_layer_ids"));
    const int64_t D = number(j, "config.hidden_size");
    float *all = arena_array(arena, (size_t)(n * taps * D), 4);
    for (int i = 0; i < taps; i++) {
        const float *tap = held(s, s->draft.taps[i], n * D);
        for (int t = 0; t < n; t++)
            memcpy(all + (t * taps + i) * D, tap + t * D, (size_t)D * 4);
    }
    expect(all, "dflash", "features.f32", 0, n * taps * D, 5e-4);
}

static void check_context(Session *s, const json_t *j, int n) {
    static const int layers[] = {0, 2};
    const int64_t row = number(j, "config.num_key_value_heads") * number(j, "config.head_dim");
    for (size_t i = 0; i < COUNTOF(layers); i++) {
        const int cache = module_cache(s->module, arena_printf(arena, "draft.kv.%d", layers[i]));
        float *k = arena_array(arena, (size_t)(n * row), 4), *v = arena_array(arena, (size_t)(n * row), 4);
        int held = 0;
        for (int p = 0; p < n; p++)
            held += eval_cache_row(s->state, cache, 0, p, k + p * row, v + p * row);
        const int gone = n - held; /* of a ring: the oldest */
        const char *const files[] = {arena_printf(arena, "ctx_k_%d.f32", layers[i]),
                                     arena_printf(arena, "ctx_v_%d.f32", layers[i])};
        expect(k + gone * row, "dflash", files[0], gone * row, held * row, 5e-4);
        expect(v + gone * row, "dflash", files[1], gone * row, held * row, 5e-4);
        check(held >= 20, "dflash: layer %d holds %d rows", layers[i], held);
    }
}

static void one_block(Session *s, const json_t *j, const char *variant, int round) {
    const int64_t V = session_vocab(s), D = number(j, "config.hidden_size");
    int B;
    const int32_t *tokens = numbers(j, arena_printf(arena, "rounds.%d.block_tokens", round), &B);
    int32_t pos[MAX_DRAFTS + 1], rows[MAX_DRAFTS + 1];
    for (int i = 0; i < B; i++) {
        pos[i] = number(j, arena_printf(arena, "rounds.%d.block_positions.0", round)) + i;
        rows[i] = i;
    }
    float *hidden = arena_array(arena, (size_t)(B * D), 4), *logits = arena_array(arena, (size_t)(B * V), 4);
    const EvalInput in[] = {{"tokens", tokens}, {"pos", pos}, {"rows", rows}};
    EvalOutput out[] = {{"final", hidden}, {"logits", logits}};
    const EvalCall c = {
        .graph = s->draft.draft, .T = B, .R = B, .inputs = in, .n_inputs = 3, .outputs = out, .n_outputs = 2};
    call(s, &c);
    expect(hidden, "dflash", arena_printf(arena, "%s_hidden.f32", variant), round * B * D, B * D, 5e-4);
    expect(logits, "dflash", arena_printf(arena, "%s_logits.f32", variant), round * B * V, B * V, 2e-3);
    int n;
    const int32_t *want = numbers(j, arena_printf(arena, "rounds.%d.argmax.%s", round, variant), &n);
    guesses(s, tokens[0], want + 1, B - 1, NULL, arena_printf(arena, "dflash %s round %d", variant, round));
}

static void dflash(const char *variant, const char *scale, int chunk) {
    static const char *const taps[] = {"final"};
    const Setting o = {"dflash", "dense", "scale", scale};
    Diag *diag = diag_new();
    Session *s = open_session(&o, true, taps, 1, diag);
    json_t *j = golden("dflash");
    int all;
    const int32_t *sequence = numbers(j, "sequence", &all);
    const int n = number(j, "rounds.0.block_positions.0"), more = number(j, "rounds.1.block_positions.0") - n;
    feed(s, sequence, n, chunk);
    if (chunk >= n)
        check_features(s, j, n);
    if (!on_a_gpu)
        check_context(s, j, n);
    one_block(s, j, variant, 0);
    /* A verification that turns most of its rows down, then the continuation. */
    check_rows(s, (const int32_t[]){sequence[n], 3, 3, 3, 3, 3}, 6);
    session_rewind(s, n + 1);
    feed(s, sequence + n + 1, more - 1, 2);
    one_block(s, j, variant, 1);
    session_close(s);
    diag_free(diag);
    json_decref(j);
}

static void all_drafters(int chunk) {
    mtp("assistant_dense", "dense", "window", "0", chunk);
    dflash("mixed_raw", "1.0", chunk);
    mtp("assistant_ple", "ple", "window", "0", chunk);
    if (places.driver)
        return; /* an emulated device takes its time */
    mtp("assistant_dense", "dense", "stock", "2", chunk);
    dflash("mixed_scaled", "16.0", chunk);
    mtp("assistant_ple", "ple", "stock", "2", chunk);
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 3 && argc != 6) {
        printf("drafters_test FIXTURES [gpu [DRIVER NVRTC KERNELS]]\n");
        return 2;
    }
    fixtures = argv[1];
    on_a_gpu = argc > 2;
    if (argc == 6)
        places = (Places){argv[3], argv[4], argv[5]};
    if (on_a_gpu && !gpu_present(places.driver)) {
        printf("no GPU\n");
        return 77;
    }
    arena = arena_new();
    all_drafters(128);
    if (!places.driver) {
        all_drafters(20);
        all_drafters(7);
    }
    arena_free(arena);
    printf("%s\n", failures ? "FAILED" : "all as recorded");
    return failures ? 1 : 0;
}
