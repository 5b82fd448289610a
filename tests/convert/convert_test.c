/* convert_test.c - lap_convert on texts and checkpoints of its own: wrong texts are reported at their place, and a file
 * that does not come back as it was written gets no name.
 */
#include "runtime/convert/convert.h"
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
#include <unistd.h>

#include <cmocka.h>

typedef struct Lab {
    Arena *arena;
    Diag *diag;
    char folder[64];
    char path[96];
    float values[64 * 32];
    MetaEntry meta[8];
    TensorInfo tensors[4];
    ModelFile source;
} Lab;

static MetaEntry integer(Lab *l, const char *key, int64_t value) {
    int64_t *v = arena_alloc(l->arena, sizeof *v);
    *v = value;
    return (MetaEntry){key, {.kind = META_INT, .n = 1, .i = v}};
}

static MetaEntry real(Lab *l, const char *key, double value) {
    double *v = arena_alloc(l->arena, sizeof *v);
    *v = value;
    return (MetaEntry){key, {.kind = META_FLOAT, .n = 1, .f = v}};
}

/* A checkpoint of one matrix, "in.a" [64, 32], and a config.json of a few numbers. */
static int setup(void **state) {
    Lab *l = calloc(1, sizeof *l);
    l->arena = arena_new();
    l->diag = diag_new();
    strcpy(l->folder, "/tmp/lap-convert-XXXXXX");
    assert_non_null(mkdtemp(l->folder));
    snprintf(l->path, sizeof l->path, "%s/f.gguf", l->folder);
    for (int i = 0; i < 64 * 32; i++)
        l->values[i] = (float)(i % 101) - 50;
    l->meta[0] = integer(l, "layers", 2);
    l->meta[1] = integer(l, "part.D", 32);
    l->meta[2] = real(l, "factor", 0.25);
    l->tensors[0] = (TensorInfo){
        .name = "in.a", .dtype = DT_F32, .rank = 2, .dims = {64, 32}, .data = l->values, .bytes = sizeof l->values};
    l->source = (ModelFile){
        .path = "checkpoint", .arch = "Test", .meta = l->meta, .n_meta = 3, .tensors = l->tensors, .n_tensors = 1};
    modelfile_index(&l->source, l->arena);
    *state = l;
    return 0;
}

/* Also says that nothing is left in the folder. */
static int teardown(void **state) {
    Lab *l = *state;
    assert_int_equal(rmdir(l->folder), 0);
    diag_free(l->diag);
    arena_free(l->arena);
    free(l);
    return 0;
}

static Conversion *plan(Lab *l, const char *quant, const char *text) {
    return convert_plan_text(l->arena, l->diag, &l->source, l->folder, quant, "test.convert", text);
}

#define HEAD "from Test\nnumber vocab layers\n"
#define TAKE "tensor out.a matrix [64, 32] from in.a\n"

static Conversion *good_plan(Lab *l, const char *quant, const char *text) {
    Conversion *c = plan(l, quant, text);
    char *said = diag_text(l->diag);
    if (!c)
        fail_msg("%s", said);
    free(said);
    diag_clear(l->diag);
    return c;
}

static int64_t key_of(const Conversion *c, const char *key) {
    const MetaValue *v = modelfile_meta(&c->image.file, key);
    assert_non_null(v);
    return v->i[0];
}

static void numbers(void **state) {
    Lab *l = *state;
    Conversion *c =
        good_plan(l, "q8_0",
                  HEAD TAKE "within other part\nnumber D D\nnumber q factor times 64\nnumber z none else D - 2\n"
                            "given has part.D\ngiven hasnt none\n"
                            "key k.D u32 D\nkey k.q u32 q\nkey k.z u32 z\nkey k.has u32 has * 10 + hasnt\n"
                            "key k.file u32 file_type\nkey k.tokenizer u32 tokenizer\n"
                            "expect layers 1 2\nexpect none 3\n");
    assert_int_equal(key_of(c, "k.D"), 32);
    assert_int_equal(key_of(c, "k.q"), 16);
    assert_int_equal(key_of(c, "k.z"), 30);
    assert_int_equal(key_of(c, "k.has"), 10);
    assert_int_equal(key_of(c, "k.file"), 7);
    assert_int_equal(key_of(c, "k.tokenizer"), 0);
    assert_int_equal(c->image.file.tensors[0].dtype, DT_Q8_0);
}

/* Each is reported where it stands. */
static void wrong_texts(void **state) {
    static const struct {
        const char *text, *message;
    } cases[] = {
        {HEAD "tensor out.a matrix [64, 32] form in.a\n", "test.convert:3:30: error: expected \"from\""},
        {HEAD "tensor out.a q8_0 [64, 32] from in.a\n", "test.convert:3:14: error: expected f32, bf16, i32, matrix or"},
        {HEAD "tensor out.a f32 [0] first 1 1 rest 2\n", "error: dimension 0 of out.a is 0"},
        {HEAD "tensor out.a f32 [3] first 1 1\n", "expected \"rest\""},
        {HEAD "tensor out.a matrix [1, 1, 1, 1, 1] from in.a\n", "at most 4 dimensions"},
        {HEAD "tensor out.{j} matrix [64, 32] from in.a\n", "no name \"j\" before this line"},
        {HEAD "tensor out.{i} matrix [64, 32] from in.a\n", "i has a value only between"},
        {HEAD TAKE "number a nothing\n", "key 'nothing': is missing"},
        {HEAD TAKE "number a layers 2\n", "test.convert:4:17: error: expected the end of the line"},
        {HEAD TAKE "number factor factor\n", "key 'factor': is 0.25, no integer"},
        {HEAD TAKE "number a factor times 1e30\n", "key 'factor': is 2.5e+29; it must be from 0 to"},
        {HEAD TAKE "number a factor times\n", "expected a number"},
        {HEAD TAKE "number 3 layers\n", "expected a name"},
        {HEAD TAKE "array a[2] layers\n", "key 'layers': is no list"},
        {HEAD TAKE "array a[70000] nothing else 0\n", "key 'nothing': would have 70000 values; the limit is 65536"},
        {HEAD TAKE "array a[2 layers\n", "expected \"]\""},
        {HEAD TAKE "array a[2] nothing else i\nkey k i32[3] a\n", "a has 2 values, none for i = 2"},
        {HEAD TAKE "array a[2] nothing is yes no\n", "expected \"or\""},
        {HEAD TAKE "count n layers\n", "key 'layers': is no list"},
        {HEAD TAKE "expect layers 1 3\n", "key 'layers': is 2; only 1 or 3 can be converted"},
        {HEAD TAKE "real r factor\nkey k u32 r\n", "r is no integer"},
        {HEAD TAKE "key k f32 vocab\n", "or the name of one that is no integer"},
        {HEAD TAKE "each layer\nkey k u32 1\nend\n", "test.convert:4:1: error: layers must be from 1 to 65536"},
        {HEAD TAKE "number layers layers\neach layer\n", "no \"end\" follows"},
        {HEAD TAKE "number layers layers\neach layer\nnumber a layers\nend x\n",
         "expected key, tensor, ignore, number"},
        {HEAD TAKE "nonsense\n", "test.convert:4:1: error: expected let, key, tensor, ignore"},
        {HEAD, "tensor 'in.a' is not known: no line of test.convert takes or ignores it"},
        {HEAD TAKE "tensor b f32 [2] from in.b\n", "tensor 'in.b' is missing"},
        {HEAD "tensor out.a matrix [32, 64] from in.a\n",
         "its shape is [64, 32], but by config.json it must be [32, 64]"},
        {HEAD "tensor out.a i32 [64, 32] from in.a\n", "its elements must be of type I32 or I64"},
    };
    Lab *l = *state;
    for (size_t k = 0; k < COUNTOF(cases); k++) {
        assert_null(plan(l, "bf16", arena_printf(l->arena, "%s", cases[k].text)));
        char *said = diag_text(l->diag);
        if (!strstr(said, cases[k].message))
            fail_msg("case %zu says\n%sand not\n%s", k, said, cases[k].message);
        free(said);
        diag_clear(l->diag);
    }
    assert_null(plan(l, "q5_k", HEAD TAKE));
    char *said = diag_text(l->diag);
    assert_non_null(strstr(said, "there are bf16, q8_0, q4_0, q4_k, q6_k"));
    free(said);
}

/* ==== Writing ==== */

/* Changes a value of the checkpoint once all is written: what is read back is then wrong, as if the disk had failed. */
typedef struct Meddler {
    Lab *lab;
    bool checking;
} Meddler;

static void meddle(void *ctx, bool checking, uint64_t done, uint64_t total) {
    Meddler *m = ctx;
    if (!checking && done == total)
        m->lab->values[1000] = 7777;
    m->checking |= checking;
}

static void expect_failure(Lab *l, const Conversion *c, const ConvertWork *work, const char *message) {
    ConvertTotals totals[DT_COUNT] = {0};
    struct stat st;
    assert_int_equal(convert_write(c, l->path, work, l->diag, totals), GGUF_FAILED);
    char *said = diag_text(l->diag);
    if (!strstr(said, message))
        fail_msg("says\n%sand not\n%s", said, message);
    free(said);
    diag_clear(l->diag);
    assert_int_not_equal(stat(l->path, &st), 0);
}

static void what_comes_back_is_compared(void **state) {
    static const char *const quants[] = {"bf16", "q8_0", "q4_0"};
    Lab *l = *state;
    for (size_t k = 0; k < COUNTOF(quants); k++) {
        float kept = l->values[1000];
        Conversion *c = good_plan(l, quants[k], HEAD TAKE);
        Meddler m = {.lab = l};
        ConvertWork work = {.threads = 1, .on_progress = meddle, .ctx = &m};
        expect_failure(l, c, &work, "tensor 'in.a': element 1000 came back wrong");
        l->values[1000] = kept;
    }
}

static void whole_files(void **state) {
    Lab *l = *state;
    Conversion *c = good_plan(l, "q8_0", HEAD TAKE "tensor steps f32 [5] first 2 3 rest 4\n");
    ConvertTotals totals[DT_COUNT] = {0};
    assert_int_equal(convert_write(c, l->path, &(ConvertWork){0}, l->diag, totals), GGUF_OK);
    assert_int_equal(totals[DT_Q8_0].tensors, 1);
    assert_int_equal(totals[DT_Q8_0].elems, 64 * 32);
    assert_int_equal(totals[DT_Q8_0].bytes, 64 * 34);
    assert_true(totals[DT_Q8_0].worst > 0.001 && totals[DT_Q8_0].worst < 0.01);
    assert_string_equal(totals[DT_Q8_0].worst_named, "out.a");
    assert_null(totals[DT_F32].worst_named);
    Weights *w = weights_open(l->path, l->diag);
    assert_non_null(w);
    const TensorInfo *t = modelfile_tensor(weights_file(w), "steps");
    assert_non_null(t);
    assert_memory_equal(t->data, ((float[]){3, 3, 4, 4, 4}), 20);
    weights_close(w);
    unlink(l->path);
}

static void values_that_cannot_be(void **state) {
    Lab *l = *state;
    l->values[77] = HUGE_VALF;
    expect_failure(l, good_plan(l, "q8_0", HEAD TAKE), &(ConvertWork){0},
                   "tensor 'in.a': element 77 is no finite number");
    l->values[77] = 1e38f; /* finite, but its scale in f16 is not */
    expect_failure(l, good_plan(l, "q8_0", HEAD TAKE), &(ConvertWork){.threads = 1}, "or too large for q8_0");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(what_comes_back_is_compared, setup, teardown),
        cmocka_unit_test_setup_teardown(whole_files, setup, teardown),
        cmocka_unit_test_setup_teardown(values_that_cannot_be, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
