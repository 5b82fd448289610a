/* storage_kl.c - a model in each storage type of quants.def on a GPU, real or emulated, against the evaluator on the
 * same file: mean KL divergence of the logits.
 *
 *   storage_kl [OPTION VALUE].. MODEL FOLDER
 *   --driver, --nvrtc, --kernel-cache             as of `lap run`
 *   --text F         what is read, over and over; else random tokens, as where MODEL has no tokenizer
 *   --positions N    compare at least so many of each type (2048)
 *   --window N       tokens of a sequence (256)
 *   --limit X        of the mean, nats, for calls of many rows and of few; else 3e-4, of q4_k and q5_k 7e-4
 *   --types A,B,..   only these
 *   --draw N         so many of them, drawn anew
 *   --eval-type A    what the evaluator has in the place of each type, to see that the check finds it
 *
 * Every matrix of MODEL, a GGUF, is written in the type (encode.h) into a file in FOLDER that is removed; one whose
 * rows are not whole blocks, as those of 384 in superblocks of 256, stays as it is. A window is read in calls of many
 * rows, all wanted, so by the prefill kernels, and then in calls of 16, 8 and 1, by the decode kernels. K/V: f32 in the
 * evaluator, f16 on the GPU. The limits are two to three times what was found of the fixture `dense`, a model of random
 * weights, on the emulated GPU (docs/performance/correctness.md). Both sides have the same weights, but for types that
 * a GPU rounds to f16, and it has activations in f16. Where two experts are nearly as good the other one may be chosen,
 * which is seen in that row and, through its keys and values, in those behind it: of a model with experts it is the
 * median that counts. Exit code 0, 1 when a limit is passed, 77 without a GPU.
 */
#include "runtime/gguf/image.h"
#include "tests/engine/arguments.h"
#include "tests/engine/distance.h"
#include "tests/engine/encode.h"
#include "tests/engine/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CALLS_OF_MANY, CALLS_OF_FEW, N_WAYS };

/* Of the rows of one kind of call. */
typedef struct Rows {
    Distance all;
    VEC(double) kl; /* of each */
} Rows;

typedef struct Test {
    const char *model, *folder, *text, *types, *eval_type;
    GpuOptions gpu;
    int64_t positions, window, draw;
    double limit; /* 0: of the type */
    Diag *diag;
    Arena *arena;
    Weights *weights; /* of the model */
    TokenList ids;    /* of the text */
    bool chosen[DT_COUNT];
} Test;

static void must(const Test *t, bool ok) {
    if (ok)
        return;
    diag_print(t->diag, stdout, false);
    printf("FAILED: an error that was not expected\n");
    exit(1);
}

/* DT_COUNT: no type of tensors. */
static DType named(const char *name, size_t n) {
    const DType type = dtype_from_name((Str){name, n});
    return type < DT_COUNT && dtype_info(type)->tile_form ? type : DT_COUNT;
}

/* ==== The model in another type ==== */

static bool has(const char *name, const char *part) {
    return strstr(name, part) != NULL;
}

/* As llama.cpp's quantiser decides what is quantised. */
static bool is_matrix(const TensorInfo *t) {
    return t->rank >= 2 && has(t->name, ".weight") && !has(t->name, "_norm.") && !has(t->name, "ffn_gate_inp.") &&
           !has(t->name, "per_layer_model_proj.");
}

typedef struct Rewritten {
    GgufImage image;
    const ModelFile *from;
    double share; /* of the matrices' weights: in the type */
} Rewritten;

static int fill(void *ctx, GgufPiece p, uint8_t *out) {
    const Rewritten *v = ctx;
    const TensorInfo *to = &v->image.file.tensors[p.tensor], *from = &v->from->tensors[p.tensor];
    if (to->dtype == from->dtype) {
        memcpy(out, (const uint8_t *)from->data + p.at, p.n);
        return 0;
    }
    const DTypeInfo *info = dtype_info(to->dtype), *was = dtype_info(from->dtype);
    const int64_t first = (int64_t)p.at / info->block_bytes * info->block_elems;
    const int64_t n = (int64_t)p.n / info->block_bytes * info->block_elems;
    const int64_t block = first / was->block_elems, before = first % was->block_elems;
    const int64_t decoded = ceil_div(before + n, was->block_elems) * was->block_elems;
    float *values = malloc(sizeof *values * (size_t)decoded);
    if (!values)
        ICE("out of memory");
    dequant_row(from->dtype, (const uint8_t *)from->data + block * was->block_bytes, values, decoded);
    encode_row(to->dtype, values + before, out, n);
    free(values);
    return 0;
}

static int type_of_value(const MetaValue *v) {
    switch (v->kind) {
    case META_INT: return !v->is_array && v->i[0] >= 0 ? GGUF_OUT_U32 : GGUF_OUT_I32;
    case META_FLOAT: return GGUF_OUT_F32;
    case META_BOOL: return GGUF_OUT_BOOL;
    case META_STRING: return GGUF_OUT_STRING;
    }
    ICE("kind %d of metadata", (int)v->kind);
}

/* Its path. */
static const char *write_variant(const Test *t, DType type, double *share) {
    const char *path = arena_printf(t->arena, "%s/storage-%d-%s.gguf", t->folder, (int)getpid(), dtype_name(type));
    Rewritten v = {.from = weights_file(t->weights)};
    TensorInfo *tensors = arena_array(t->arena, (size_t)v.from->n_tensors + 1, sizeof *tensors);
    GgufMeta meta = {0};
    double all = 0, some = 0;
    for (int i = 0; i < v.from->n_meta; i++) {
        vec_push(t->arena, &meta.entries, v.from->meta[i]);
        vec_push(t->arena, &meta.types, type_of_value(&v.from->meta[i].value));
    }
    for (int i = 0; i < v.from->n_tensors; i++) {
        TensorInfo *to = &tensors[i];
        *to = v.from->tensors[i];
        if (!is_matrix(to))
            continue;
        double elems = 1;
        for (int k = 0; k < to->rank; k++)
            elems *= (double)to->dims[k];
        const bool whole = to->dims[to->rank - 1] % dtype_info(type)->block_elems == 0;
        to->dtype = whole ? type : to->dtype;
        all += elems;
        some += whole ? elems : 0;
    }
    *share = some / all;
    must(t, gguf_image(t->arena, path, &meta, tensors, v.from->n_tensors, &v.image));
    must(t, gguf_write(&v.image, path, &(GgufWrite){.fill = fill, .ctx = &v}, t->diag) == GGUF_OK);
    return path;
}

/* ==== Comparing ==== */

static Session *open_on(const Test *t, const char *device, const char *path) {
    const SessionOptions o = {.weights = path,
                              .context = t->window,
                              .chunk = t->window,
                              .kv_k = DT_COUNT,
                              .kv_v = DT_COUNT,
                              .device = device,
                              .gpu = t->gpu};
    return must_open(&o, t->diag);
}

/* Of the text, else random; the first is what texts begin with, or 2, which mostly is the same. */
static void take_ids(const Test *t, const Session *s, int64_t window, int32_t *ids) {
    static uint64_t state = 1;
    for (int64_t i = 0; i < t->window; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        ids[i] = t->ids.n ? t->ids.v[(window * t->window + i) % t->ids.n]
                          : (int32_t)(state >> 33) % (session_vocab(s) - 6) + 6;
    }
    ids[0] = t->ids.n ? t->ids.v[0] : 2;
}

/* n rows, the logits of each. */
static void compare_call(const Test *t, Session *eval, Session *gpu, const int32_t *ids, int64_t n, Rows *r) {
    const int vocab = session_vocab(eval);
    const size_t bytes = sizeof(float) * (size_t)vocab * (size_t)n;
    float *want = malloc(bytes), *got = malloc(bytes);
    int32_t *rows = malloc(sizeof *rows * (size_t)n);
    if (!want || !got || !rows)
        ICE("out of memory");
    for (int32_t i = 0; i < n; i++)
        rows[i] = i;
    StepCall c = {.tokens = ids, .n = n, .rows = rows, .n_rows = n, .logits = want};
    must(t, session_step(eval, &c) == STEP_OK);
    c.logits = got;
    must(t, session_step(gpu, &c) == STEP_OK);
    for (int64_t i = 0; i < n; i++)
        vec_push(t->arena, &r->kl, distance_add(&r->all, got + i * vocab, want + i * vocab, vocab));
    free(rows);
    free(got);
    free(want);
}

static int64_t least_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* The first half in calls as long as can be, the second in calls of few. */
static void compare_window(const Test *t, Session *eval, Session *gpu, const int32_t *ids, Rows r[N_WAYS]) {
    static const int64_t few[] = {16, 8, 1};
    const int64_t half = t->window / 2, most = least_of(session_step_rows(eval), session_step_rows(gpu));
    session_rewind(eval, 0);
    session_rewind(gpu, 0);
    for (int64_t at = 0, n; at < half; at += n) {
        n = least_of(half - at, most);
        compare_call(t, eval, gpu, ids + at, n, &r[CALLS_OF_MANY]);
    }
    for (int64_t at = half, n, i = 0; at < t->window; at += n, i++) {
        n = least_of(t->window - at, few[i % (int64_t)COUNTOF(few)]);
        compare_call(t, eval, gpu, ids + at, n, &r[CALLS_OF_FEW]);
    }
}

static bool has_experts(const Session *s) {
    const Graph *g = module_graph(session_module(s), "step");
    for (NodeId id = 1; id < (NodeId)g->nodes.n; id++)
        if (ir_get(g, id)->op == OP_LINEAR_EXPERTS)
            return true;
    return false;
}

static int ascending(const void *x, const void *y) {
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* NaN when any is. */
static double median(Rows *r) {
    qsort(r->kl.v, (size_t)r->kl.n, sizeof *r->kl.v, ascending);
    return isnan(r->all.kl) ? NAN : r->kl.v[r->kl.n / 2];
}

static double limit_of(const Test *t, DType type) {
    const double usual = type == DT_Q4_K || type == DT_Q5_K ? 7e-4 : 3e-4; /* minima are a sum of their own */
    return t->limit > 0 ? t->limit : usual;
}

static void report(const Test *t, DType type, double share, bool experts, Rows r[N_WAYS]) {
    static const char *const names[N_WAYS] = {"many", "few"};
    const Distance *many = &r[CALLS_OF_MANY].all, *few = &r[CALLS_OF_FEW].all;
    const double n = (double)(many->n + few->n);
    double mean[N_WAYS], middle[N_WAYS];
    for (int way = 0; way < N_WAYS; way++) {
        mean[way] = r[way].all.kl / (double)r[way].all.n;
        middle[way] = median(&r[way]);
    }
    printf("%-7s %5.0f %%  %9.0f  %.2e  %.2e %.2e  %.2e %.2e  %.2e  %8.2f %%  %7.3f\n", dtype_name(type), 100 * share,
           n, (many->kl + few->kl) / n, mean[CALLS_OF_MANY], mean[CALLS_OF_FEW], middle[CALLS_OF_MANY],
           middle[CALLS_OF_FEW], fmax(many->worst_kl, few->worst_kl), 100 * (double)(many->same + few->same) / n,
           (many->entropy + few->entropy) / n);
    for (int way = 0; way < N_WAYS; way++) {
        const double kl = experts ? middle[way] : mean[way];
        check(kl <= limit_of(t, type), "%s: a %s KL divergence of %.2e in calls of %s rows, at most %.0e is allowed",
              dtype_name(type), experts ? "median" : "mean", kl, names[way], limit_of(t, type));
    }
}

static void compare_type(const Test *t, DType type) {
    double share, unused;
    Rows r[N_WAYS] = {0};
    const DType eval_type = t->eval_type ? named(t->eval_type, strlen(t->eval_type)) : type;
    const char *path = write_variant(t, type, &share);
    const char *eval_path = eval_type == type ? path : write_variant(t, eval_type, &unused);
    Session *eval = open_on(t, "cpu", eval_path), *gpu = open_on(t, "gpu", path);
    int32_t *ids = malloc(sizeof *ids * (size_t)t->window);
    if (!ids)
        ICE("out of memory");
    for (int64_t w = 0; w * t->window < t->positions; w++) {
        take_ids(t, eval, w, ids);
        compare_window(t, eval, gpu, ids, r);
    }
    report(t, type, share, has_experts(eval), r);
    free(ids);
    session_close(gpu);
    session_close(eval);
    unlink(path);
    if (eval_path != path)
        unlink(eval_path);
}

/* ==== The command line ==== */

static bool choose_types(Test *t) {
    int left = 0;
    for (int i = 0; i < DT_COUNT; i++)
        t->chosen[i] = !t->types && dtype_info((DType)i)->tile_form;
    for (const char *at = t->types; at && *at; at += strcspn(at, ","), at += *at == ',') {
        const DType type = named(at, strcspn(at, ","));
        if (type == DT_COUNT)
            return false;
        t->chosen[type] = true;
    }
    for (int i = 0; i < DT_COUNT; i++)
        left += t->chosen[i];
    uint64_t state = (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
    for (; t->draw && left > t->draw; left--) {
        int skip = (int)((state = state * 6364136223846793005u + 1442695040888963407u) >> 33) % left, i = 0;
        while (!t->chosen[i] || skip-- > 0)
            i++;
        t->chosen[i] = false;
    }
    return !t->eval_type || named(t->eval_type, strlen(t->eval_type)) != DT_COUNT;
}

static bool read_options(Test *t, int argc, char **argv) {
    const Argument rows[] = {{.name = "--driver", .text = &t->gpu.driver},
                             {.name = "--nvrtc", .text = &t->gpu.nvrtc},
                             {.name = "--kernel-cache", .text = &t->gpu.kernel_cache},
                             {.name = "--text", .text = &t->text},
                             {.name = "--types", .text = &t->types},
                             {.name = "--eval-type", .text = &t->eval_type},
                             {.name = "--positions", .number = &t->positions},
                             {.name = "--window", .number = &t->window},
                             {.name = "--draw", .number = &t->draw},
                             {.name = "--limit", .real = &t->limit}};
    const int at = arguments_read(rows, COUNTOF(rows), argc, argv);
    if (at < 0 || at + 2 != argc || t->window < 4)
        return false;
    t->model = argv[at];
    t->folder = argv[at + 1];
    return choose_types(t);
}

static void read_text(Test *t) {
    Buf text = {0};
    file_read(t->text, &text);
    if (!text.n)
        ICE("%s is empty", t->text);
    Tokenizer *tokenizer = tokenizer_new(weights_file(t->weights), t->diag);
    must(t, tokenizer != NULL);
    tokenizer_encode(tokenizer, t->arena, text.s, text.n, (EncodeOptions){.add_bos = true}, &t->ids);
    tokenizer_free(tokenizer);
    buf_free(&text);
}

int main(int argc, char **argv) {
    Test t = {.window = 256, .positions = 2048};
    if (!read_options(&t, argc, argv)) {
        fprintf(stderr, "usage: storage_kl [OPTION VALUE].. MODEL FOLDER\n");
        return 2;
    }
    if (!gpu_present(t.gpu.driver)) {
        printf("no GPU: skipped\n");
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    t.diag = diag_new();
    t.arena = arena_new();
    t.weights = weights_open(t.model, t.diag);
    must(&t, t.weights != NULL);
    if (t.text)
        read_text(&t);
    printf("%s, %s\n", t.model, t.text ? t.text : "random tokens");
    printf("type   weights  positions   mean KL  of many, of few rows  median of either    greatest  same token  "
           "entropy\n");
    for (int i = 0; i < DT_COUNT; i++)
        if (t.chosen[i])
            compare_type(&t, (DType)i);
    weights_close(t.weights);
    diag_print(t.diag, stdout, false);
    arena_free(t.arena);
    diag_free(t.diag);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
