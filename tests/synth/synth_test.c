/* synth_test.c - lap_synth on small texts of its own: values, bytes, expressions, errors, failures to write. */
#include "runtime/synth/synth.h"
#include "runtime/weights/weights.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* One tensor of every storage type that the rules can pick; rows of 96 and 70 are not whole blocks. */
static const char text[] = "columns layers D\n"
                           "size small 8 512\n"
                           "size other 1 256\n"
                           "key general.architecture string test\n"
                           "key test.name string {size} of {D}\n"
                           "key test.per_layer i32[layers] i * 10 + D\n"
                           "key test.odd bool[layers] i % 2 == 1\n"
                           "key test.eps f32 1e-6\n"
                           "key test.type u32 file_type\n"
                           "key test.absent u32 1 if D > 512\n"
                           "tensor token_embd.weight bf16 [1000, D] fan D\n"
                           "tensor steps.weight f32 [64] first 16 1 rest 1e30\n"
                           "tensor gain.weight f32 [5001] near 0.5\n"
                           "tensor plain.weight f32 [40001] fan 4\n"
                           "tensor per_layer_model_proj.weight bf16 [700, D] fan D\n"
                           "each layer\n"
                           "tensor blk.{i}.attn_q.weight bf16 [300, D] fan D\n"
                           "tensor blk.{i}.ffn_down.weight bf16 [3, 500, 96] fan 96\n"
                           "tensor blk.{i}.odd.weight bf16 [500, 70] fan 70 if i == 2\n"
                           "end\n";

typedef struct Lab {
    Arena *arena;
    Diag *diag;
    char folder[64];
    char path[96];
    uint64_t seed;
} Lab;

static int setup(void **state) {
    Lab *l = calloc(1, sizeof *l);
    l->arena = arena_new();
    l->diag = diag_new();
    strcpy(l->folder, "/tmp/lap-synth-XXXXXX");
    assert_non_null(mkdtemp(l->folder));
    snprintf(l->path, sizeof l->path, "%s/f.gguf", l->folder);
    l->seed = (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid();
    print_message("seed %llu\n", (unsigned long long)l->seed);
    *state = l;
    return 0;
}

/* Also says that nothing else is left in the folder. */
static int teardown(void **state) {
    Lab *l = *state;
    unlink(l->path);
    assert_int_equal(rmdir(l->folder), 0);
    diag_free(l->diag);
    arena_free(l->arena);
    free(l);
    return 0;
}

static SynthModel *model(Lab *l, const char *t, const char *quant, uint64_t seed) {
    SynthOptions o = {.size = "small", .quant = quant, .seed = seed};
    return synth_model_of_text(l->arena, l->diag, "test.synth", t, &o);
}

static SynthModel *good_model(Lab *l, const char *quant, uint64_t seed) {
    SynthModel *m = model(l, text, quant, seed);
    diag_print(l->diag, stderr, false);
    assert_non_null(m);
    return m;
}

static void write_model(Lab *l, const SynthModel *m, int threads) {
    assert_int_equal(synth_write(m, l->path, &(GgufWork){.threads = threads}, l->diag), GGUF_OK);
}

/* ==== What is read back ==== */

static int64_t elements(const TensorInfo *t) {
    int64_t n = 1;
    for (int k = 0; k < t->rank; k++)
        n *= t->dims[k];
    return n;
}

static float *values(const Weights *w, const char *name, DType type, int64_t *n) {
    const TensorInfo *t = modelfile_tensor(weights_file(w), name);
    assert_non_null(t);
    assert_string_equal(dtype_name(t->dtype), dtype_name(type));
    *n = elements(t);
    float *v = malloc((size_t)*n * sizeof *v);
    dequant_row(type, t->data, v, *n);
    return v;
}

/* The values spread as they should: mean 0 within the error of so many, deviation within 2 %. */
static void check_fan(const Weights *w, const char *name, DType type, double variance) {
    int64_t n;
    float *v = values(w, name, type, &n);
    double sum = 0;
    double squares = 0;
    for (int64_t k = 0; k < n; k++) {
        assert_true(isfinite(v[k]));
        sum += v[k];
        squares += (double)v[k] * v[k];
    }
    double std = sqrt(variance);
    /* Values of a block share an offset in q4_k: its mean is as uncertain as that of n / 32 values of 0.4 std. */
    double mean_bound = 6 * std * sqrt(1.0 / (double)n + 0.16 * 32 / (double)n);
    print_message("%s %s: mean %.2g, deviation %.5g of %.5g\n", name, dtype_name(type), sum / (double)n,
                  sqrt(squares / (double)n), std);
    assert_true(fabs(sum / (double)n) < mean_bound);
    assert_true(fabs(sqrt(squares / (double)n) / std - 1) < 0.02);
    free(v);
}

static void check_vectors(const Weights *w) {
    int64_t n;
    float *v = values(w, "gain.weight", DT_F32, &n);
    float least = v[0];
    float most = v[0];
    for (int64_t k = 0; k < n; k++) {
        least = v[k] < least ? v[k] : least;
        most = v[k] > most ? v[k] : most;
    }
    assert_true(least >= 0.4f && least < 0.41f && most <= 0.6f && most > 0.59f);
    free(v);
    v = values(w, "steps.weight", DT_F32, &n);
    for (int64_t k = 0; k < n; k++)
        assert_true(v[k] == (k < 16 ? 1.0f : 1e30f));
    free(v);
}

static void check_metadata(const Weights *w, int file_type) {
    const ModelFile *f = weights_file(w);
    assert_string_equal(f->arch, "test");
    assert_true(str_eq(modelfile_meta(f, "test.name")->s[0], "small of 512"));
    assert_int_equal(modelfile_meta(f, "test.per_layer")->n, 8);
    assert_int_equal(modelfile_meta(f, "test.per_layer")->i[7], 582);
    assert_int_equal(modelfile_meta(f, "test.odd")->kind, META_BOOL);
    assert_int_equal(modelfile_meta(f, "test.odd")->i[7], 1);
    assert_true(modelfile_meta(f, "test.eps")->f[0] == (double)1e-6f);
    assert_int_equal(modelfile_meta(f, "test.type")->i[0], file_type);
    assert_null(modelfile_meta(f, "test.absent"));
}

static const struct QuantCase {
    const char *quant;
    int file_type;
    DType embedding, q, down_more, down;
} quant_cases[] = {
    {"q4_k_m", 15, DT_Q6_K, DT_Q4_K, DT_Q8_0, DT_Q5_0},
    {"q8_0", 7, DT_Q8_0, DT_Q8_0, DT_Q8_0, DT_Q8_0},
    {"bf16", 32, DT_BF16, DT_BF16, DT_BF16, DT_BF16},
};

static void written_as_described(void **state) {
    Lab *l = *state;
    for (size_t k = 0; k < COUNTOF(quant_cases); k++) {
        const struct QuantCase *q = &quant_cases[k];
        write_model(l, good_model(l, q->quant, l->seed), 2);
        Weights *w = weights_open(l->path, l->diag);
        diag_print(l->diag, stderr, false);
        assert_non_null(w);
        check_metadata(w, q->file_type);
        check_vectors(w);
        check_fan(w, "plain.weight", DT_F32, 1.0 / 4);
        check_fan(w, "per_layer_model_proj.weight", DT_BF16, 1.0 / 512);
        check_fan(w, "token_embd.weight", q->embedding, 1.0 / 512);
        check_fan(w, "blk.5.attn_q.weight", q->q, 1.0 / 512);
        check_fan(w, "blk.0.ffn_down.weight", q->down_more, 1.0 / 96); /* 0, 3, 6, 7 of 8 have more bits */
        check_fan(w, "blk.1.ffn_down.weight", q->down, 1.0 / 96);
        check_fan(w, "blk.3.ffn_down.weight", q->down_more, 1.0 / 96);
        check_fan(w, "blk.2.odd.weight", q->q == DT_BF16 ? DT_BF16 : DT_F16, 1.0 / 70);
        assert_null(modelfile_tensor(weights_file(w), "blk.1.odd.weight"));
        weights_close(w);
    }
}

/* ==== The bytes ==== */

static uint8_t *bytes_of(Lab *l, const SynthModel *m, int threads) {
    write_model(l, m, threads);
    FILE *f = fopen(l->path, "rb");
    uint8_t *p = malloc(m->image.bytes);
    assert_int_equal(fread(p, 1, m->image.bytes, f), m->image.bytes);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    return p;
}

static void bytes_are_the_seeds(void **state) {
    Lab *l = *state;
    SynthModel *m = good_model(l, "q4_k_m", l->seed);
    uint8_t *one = bytes_of(l, m, 1);
    uint8_t *five = bytes_of(l, m, 5);
    assert_memory_equal(one, five, m->image.bytes);
    uint8_t *other = bytes_of(l, good_model(l, "q4_k_m", l->seed + 1), 2);
    for (int k = 0; k < m->image.file.n_tensors; k++) {
        const TensorInfo *t = &m->image.file.tensors[k];
        if (m->values[k].kind != SYNTH_FIRST)
            assert_memory_not_equal(one + m->image.offset[k], other + m->image.offset[k], t->bytes);
    }
    /* The same shape under another name is another tensor. */
    int a = namemap_get(m->image.file.tensor_index, "blk.0.attn_q.weight");
    int b = namemap_get(m->image.file.tensor_index, "blk.1.attn_q.weight");
    assert_memory_not_equal(one + m->image.offset[a], one + m->image.offset[b], m->image.file.tensors[a].bytes);
    free(one);
    free(five);
    free(other);
}

/* A tensor's bytes do not depend on what else is in the file, nor on the pieces asked for. */
static void bytes_are_the_tensors_own(void **state) {
    Lab *l = *state;
    SynthModel *m = good_model(l, "q4_k_m", l->seed);
    SynthModel *alone = model(l, "columns layers\nsize small 8\ntensor blk.1.attn_q.weight bf16 [300, 512] fan 512\n",
                              "q4_k_m", l->seed);
    int i = namemap_get(m->image.file.tensor_index, "blk.1.attn_q.weight");
    size_t n = m->image.file.tensors[i].bytes;
    uint8_t *whole = malloc(n + 8);
    uint8_t *pieces = malloc(n + 8);
    synth_fill(m, i, 0, whole, n);
    for (size_t at = 0; at < n; at += 8 * 144)
        synth_fill(alone, 0, at, pieces + at, n - at < 8 * 144 ? n - at : 8 * 144);
    assert_memory_equal(whole, pieces, n);
    free(whole);
    free(pieces);
}

/* ==== Texts ==== */

static void expressions(void **state) {
    static const struct {
        const char *expr;
        int64_t value;
    } cases[] = {{"2 + 3 * 4", 14},       {"(2 + 3) * 4", 20},      {"20 - 5 - 5", 10},
                 {"100 / 10 / 5", 2},     {"17 % 5 * 2", 4},        {"1 < 2 and 2 <= 2 and 3 > 2 and 3 >= 3", 1},
                 {"1 == 2 or 1 != 2", 1}, {"1 or 0 and 0", 1},      {"not 1 == 2", 0},
                 {"not not 7", 1},        {"0 ? 1 : 0 ? 2 : 3", 3}, {"twice + android", 25},
                 {"small? 1 : 2", 1}};
    Lab *l = *state;
    for (size_t k = 0; k < COUNTOF(cases); k++) {
        const char *t = arena_printf(l->arena,
                                     "columns layers small android\nsize small 1 4 5\nlet twice = android * small\n"
                                     "key k u32 %s\n",
                                     cases[k].expr);
        SynthModel *m = model(l, t, "bf16", 0);
        diag_print(l->diag, stderr, false);
        assert_non_null(m);
        print_message("%s\n", cases[k].expr);
        assert_int_equal(modelfile_meta(&m->image.file, "k")->i[0], cases[k].value);
    }
}

static void mistakes_are_located(void **state) {
    static const struct {
        const char *line, *place, *message;
    } cases[] = {
        {"tensor a [D] near 1", "3:13", "a converted tensor is f32 or bf16"},
        {"tensor a f32 [D near 1", "3:17", "expected \"]\""},
        {"tensor a f32 [D, 1, 1, 1, 1] near 1", "3:26", "at most 4 dimensions"},
        {"tensor a f32 [D - 512] near 1", "3:30", "dimension 0 of a is 0"},
        {"tensor a bf16 [D] near 1", "3:25", "only f32"},
        {"tensor a f32 [D] far 1", "3:18", "expected fan, near or first"},
        {"tensor a f32 [D] near 1 unless D", "3:25", "expected the end of the line"},
        {"tensor a.{i} f32 [D] near 1", "3:11", "i has a value only between"},
        {"key a u32 D / (D - 512)", "3:24", "512 divided by 0"},
        {"key a u32 9223372036854775807 + 1", "3:34", "too large a number"},
        {"key a u32 99999999999999999999", "3:30", "too large a number"},
        {"key a u32 4294967296", "3:21", "4294967296 is no u32"},
        {"key a u32 0 - 1", "3:16", "-1 is no u32"},
        {"key a u64 1", "3:7", "expected u32"},
        {"key a f32 x", "3:11", "expected a number"},
        {"key a u32[70000] i", "3:17", "an array holds"},
        {"key a u32 E", "3:11", "no name \"E\""},
        {"let E = E", "3:9", "no name \"E\""},
        {"each layer", "3:1", "no \"end\" follows"},
        {"each layer\nlet a = 1\nend", "4:1", "expected key, tensor or end"},
        {"frobnicate", "3:1", "expected let, key, tensor or each layer"},
    };
    Lab *l = *state;
    for (size_t k = 0; k < COUNTOF(cases); k++) {
        const char *t = arena_printf(l->arena, "columns layers D\nsize small 2 512\n%s\n\nkey z u32 %s\n",
                                     cases[k].line, cases[k].line[0] == 'l' ? "E" : "1");
        assert_null(model(l, t, "bf16", 0));
        char *got = diag_text(l->diag);
        print_message("%s", got);
        assert_int_equal(diag_errors(l->diag), 1);
        assert_non_null(strstr(got, cases[k].message));
        assert_non_null(strstr(got, arena_printf(l->arena, "test.synth:%s:", cases[k].place)));
        free(got);
        diag_clear(l->diag);
    }
}

static void deep_nesting(void **state) {
    Lab *l = *state;
    char open[20001];
    memset(open, '(', 20000);
    open[20000] = 0;
    assert_null(model(l, arena_printf(l->arena, "columns layers\nsize small 2\nkey a u32 %s1\n", open), "bf16", 0));
    assert_int_equal(diag_errors(l->diag), 1);
    diag_clear(l->diag);
}

/* ==== Writing that cannot be ==== */

static void expect_failure(Lab *l, const char *path, const char *message) {
    SynthModel *m = good_model(l, "bf16", 0);
    assert_int_equal(synth_write(m, path, &(GgufWork){.threads = 2}, l->diag), GGUF_FAILED);
    char *got = diag_text(l->diag);
    print_message("%s", got);
    assert_non_null(strstr(got, message));
    free(got);
    diag_clear(l->diag);
}

static void write_failures(void **state) {
    Lab *l = *state;
    assert_false(gguf_room(l->path, (uint64_t)1 << 61, l->diag));
    char *got = diag_text(l->diag);
    assert_non_null(strstr(got, "it needs 2305843009.21 GB, but only"));
    free(got);
    diag_clear(l->diag);
    assert_true(gguf_room(l->path, 1, l->diag));
    expect_failure(l, l->folder, "no ordinary file");
    expect_failure(l, arena_printf(l->arena, "%s/none/f.gguf", l->folder), "No such file");
}

static void cancelled(void **state) {
    Lab *l = *state;
    volatile bool cancel = true;
    GgufWork o = {.threads = 2, .cancel = &cancel};
    assert_int_equal(synth_write(good_model(l, "bf16", 0), l->path, &o, l->diag), GGUF_CANCELLED);
    assert_int_equal(diag_count(l->diag), 0);
    struct stat st;
    assert_int_not_equal(stat(l->path, &st), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(written_as_described),
        TEST(bytes_are_the_seeds),
        TEST(bytes_are_the_tensors_own),
        TEST(expressions),
        TEST(mistakes_are_located),
        TEST(deep_nesting),
        TEST(write_failures),
        TEST(cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
