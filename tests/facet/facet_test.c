/* facet_test.c - bundles: what is written reads back; weights and devices that a bundle is not for are refused with the
 * reason. */
#include "tests/facet/small_facet.h"

static void reads_back(void **state) {
    (void)state;
    Small s = begin();
    const char *path = in_dir("small.facet");
    write_small(path);
    assert_true(facet_looks_like(path));
    Facet *f = facet_open(path, s.diag);
    assert_non_null(f);
    const FacetInfo *info = facet_info(f);
    assert_string_equal(info->made_by, "lap 0.0.0");
    assert_string_equal(info->settings.v[0], "L=30");
    assert_int_equal(info->options.kv_v, DT_BF16);
    assert_int_equal(info->options.slots, 2);
    assert_null(info->target);
    assert_int_equal(facet_text(f).n, sizeof model_text - 1);
    assert_string_equal(facet_text(f).s, model_text);
    assert_string_equal(facet_module(f)->name, "tiny");
    assert_null(facet_module(f)->weights.v[0].file); /* no path of the machine that compiled */
    int n;
    const FacetEntry *entries = facet_entries(f, &n);
    assert_int_equal(n, 2 + 3 * (1 + 2 * 3));
    assert_string_equal(entries[0].name, "model.lap");
    assert_int_equal(entries[0].bytes, sizeof model_text - 1);
    const FacetArch *a = facet_arch(f, "sm_90a", s.diag);
    assert_non_null(a);
    assert_string_equal(a->plan->arch, "sm_90a");
    for (int i = 0; i < a->plan->kernels.n; i++) {
        const PlanKernel *k = &a->plan->kernels.v[i];
        assert_string_equal(k->text, arena_printf(s.arena, "// kernel %s for sm_90a\n", k->name));
        const char *cubin = arena_printf(s.arena, "\177ELF %s for sm_90a", k->name);
        assert_int_equal(a->cubins[i].bytes, strlen(cubin));
        assert_memory_equal(a->cubins[i].data, cubin, strlen(cubin));
    }
    Buf text = {0};
    plan_print(&text, a->plan, facet_module(f));
    assert_string_equal(text.s, small_plan_text);
    buf_free(&text);
    facet_close(f);
    end(s);
}

static void same_contents_same_bytes(void **state) {
    (void)state;
    write_small(in_dir("a.facet"));
    sleep(2); /* of zip's clock */
    write_small(in_dir("b.facet"));
    write_small(in_dir("b.facet")); /* over what is there */
    Buf a = slurp(in_dir("a.facet")), b = slurp(in_dir("b.facet"));
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.s, b.s, a.n);
    buf_free(&a);
    buf_free(&b);
}

static void cannot_write(void **state) {
    (void)state;
    Small s = begin();
    FacetContents c = {.text = "", .info = {.made_by = "", .model = "m", .text_name = ""}};
    c.info.options = (FacetOptions){1, 1, 1, 1, 1, DT_F32, DT_F32};
    c.module = module_new(s.arena, s.diag, "m", "m");
    assert_false(facet_write(&c, in_dir("no/such/x.facet"), NULL, s.diag));
    expect_message(s.diag, "no/such/x.facet: error: cannot be written");
    c.info.model = "caf\303\251";
    assert_false(facet_write(&c, in_dir("x.facet"), NULL, s.diag));
    expect_message(s.diag, "must be printable ASCII");
    assert_int_equal(access(in_dir("x.facet"), F_OK), -1);
    end(s);
}

/* ==== Devices ==== */

static void devices(void **state) {
    (void)state;
    static const struct {
        const char *device, *arch;
    } rows[] = {{"sm_80", "sm_80"},   {"sm_86", "sm_86"}, {"sm_87", "sm_86"}, {"sm_89", "sm_86"},
                {"sm_90a", "sm_90a"}, {"sm_75", NULL},    {"sm_120a", NULL},  {"sm_100a", NULL},
                {"gfx942", NULL},     {"sm_91a", NULL},   {"sm_70", NULL},    {"", NULL}};
    Small s = begin();
    write_small(in_dir("small.facet"));
    Facet *f = facet_open(in_dir("small.facet"), s.diag);
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        const FacetArch *a = facet_arch(f, rows[i].device, s.diag);
        assert_int_equal(a != NULL, rows[i].arch != NULL);
        if (a)
            assert_string_equal(a->name, rows[i].arch);
        else
            expect_message(s.diag, "has kernels for sm_80, sm_86, sm_90a; this device is ");
    }
    facet_close(f);
    end(s);
}

/* ==== Weights ==== */

static const struct {
    const char *key, *tensor; /* what is changed; the key ""; the architecture */
    const char *message;
} other_weights[] = {
    {"tiny.block_count", NULL,
     "tiny.gguf: error: key 'tiny.block_count' is 31; the bundle is for weights where it is 30"},
    {"tiny.factor", NULL, "key 'tiny.factor' is 1; the bundle is for weights where it is 1.0"},
    {"-tiny.pattern", NULL,
     "there is no key 'tiny.pattern'; the bundle is for weights where it is [true, false, true]"},
    {"-tiny.word", NULL, "for weights where it is \"a \\\"b\\\"\\x0a\""},
    {"+tiny.absent", NULL, "key 'tiny.absent' is 31; the bundle is for weights that have none"},
    {NULL, "emb.weight", "tensor 'emb.weight' is q4_k[64, 4]; the bundle is for weights where it is f32[64, 4]"},
    {NULL, "-emb.weight", "there is no tensor 'emb.weight'; the bundle is for weights where it is f32[64, 4]"},
    {NULL, "+emb.bias", "tensor 'emb.bias' is q4_k[64, 4]; the bundle is for weights that have none"},
    {"", NULL, "the architecture is \"other\"; the bundle is for \"tiny\""},
    {"general.name", NULL, NULL},
    {"-general.name", NULL, NULL},
    {NULL, "not.used", NULL},
};

static ModelFile changed(Arena *a, const char *key, const char *tensor) {
    static const int64_t other[] = {31};
    static const MetaValue value = {META_INT, false, 1, {.i = other}};
    static const int64_t one[] = {1};
    ModelFile f = small_file(a);
    const char *name = key ? key : tensor;
    bool drop = *name == '-', more = *name == '+';
    name += drop || more;
    for (int i = 0; i < f.n_meta && key; i++) {
        if (strcmp(f.meta[i].key, more ? "general.name" : name) != 0)
            continue;
        f.meta[i].key = more ? name : drop ? "gone" : f.meta[i].key;
        f.meta[i].value = value;
        if (strcmp(name, "tiny.factor") == 0)
            f.meta[i].value.i = one;
    }
    for (int i = 0; i < f.n_tensors && tensor; i++) {
        if (strcmp(f.tensors[i].name, more ? "not.used" : name) != 0)
            continue;
        f.tensors[i].name = more ? name : drop ? "gone" : f.tensors[i].name;
        f.tensors[i].dtype = DT_Q4_K;
        f.tensors[i].rank = 2;
        f.tensors[i].dims[0] = 64;
        f.tensors[i].dims[1] = 4;
    }
    if (key && !*key)
        f.arch = "other";
    modelfile_index(&f, a);
    return f;
}

static void weights(void **state) {
    (void)state;
    Small s = begin();
    write_small(in_dir("small.facet"));
    Facet *f = facet_open(in_dir("small.facet"), s.diag);
    ModelFile same = small_file(s.arena);
    assert_true(facet_check_weights(f, &same, NULL, s.diag));
    for (size_t i = 0; i < COUNTOF(other_weights); i++) {
        ModelFile file = changed(s.arena, other_weights[i].key, other_weights[i].tensor);
        bool fits = facet_check_weights(f, &file, NULL, s.diag);
        assert_int_equal(fits, other_weights[i].message == NULL);
        expect_message(s.diag, other_weights[i].message ? other_weights[i].message : "");
    }
    facet_close(f);
    end(s);
}

/* A manifest that keeps silent about a tensor does not make other weights fit. */
static void silent_manifest(void **state) {
    (void)state;
    Small s = begin();
    ModelFile file = small_file(s.arena), other = changed(s.arena, NULL, "emb.weight");
    FacetContents c = {.text = model_text, .text_len = sizeof model_text - 1};
    c.info = (FacetInfo){.made_by = "lap 0.0.0", .model = "tiny", .text_name = "models/tiny.lap"};
    c.info.options = (FacetOptions){64, 32, 8, 16, 2, DT_F16, DT_BF16};
    file.reads = modelreads_new(s.arena);
    c.info.weights = facet_weights(s.arena, &file);
    vec_push(s.arena, &c.info.archs, small_arch(s, "sm_86"));
    c.module = ir_parse(s.arena, s.diag, "module", small_module_text, strlen(small_module_text));
    assert_true(facet_write(&c, in_dir("silent.facet"), NULL, s.diag));
    Facet *f = facet_open(in_dir("silent.facet"), s.diag);
    assert_non_null(f);
    assert_true(facet_check_weights(f, &file, NULL, s.diag));
    assert_false(facet_check_weights(f, &other, NULL, s.diag));
    expect_message(s.diag, "tensor 'emb.weight' is q4_k[64, 4]; the bundle is for weights where it is f32[64, 4]");
    facet_close(f);
    end(s);
}

/* A drafter's bundle is for the target's weights too. */
static void target(void **state) {
    (void)state;
    static const char head[] = "module tiny arch \"tiny\" target big\n"
                               "weight @emb.weight : f32[64, 4]\n"
                               "weight @\"odd \\\"name\\\"\" : q8_0[64, 32]\n"
                               "weight @target.emb.weight : f32[64, 4] from big\n";
    Small s = begin();
    ModelFile file = small_file(s.arena), big = small_file(s.arena), other = changed(s.arena, NULL, "emb.weight");
    Buf text = {0};
    ask(s.arena, &file);
    big.path = "big.gguf";
    big.reads = modelreads_new(s.arena);
    modelfile_tensor(&big, "emb.weight");
    other.path = "other.gguf";
    buf_str(&text, head);
    buf_str(&text, strstr(small_module_text, "cache "));
    FacetContents c = {.text = "", .info = {.made_by = "x", .model = "tiny", .text_name = "x"}};
    c.info.options = (FacetOptions){64, 32, 8, 16, 2, DT_F16, DT_BF16};
    c.info.weights = facet_weights(s.arena, &file);
    c.info.target = facet_weights(s.arena, &big);
    vec_push(s.arena, &c.info.archs, small_arch(s, "sm_86"));
    c.module = ir_parse(s.arena, s.diag, "module", text.s, text.n);
    buf_free(&text);
    assert_non_null(c.module);
    assert_true(facet_write(&c, in_dir("target.facet"), NULL, s.diag));
    Facet *f = facet_open(in_dir("target.facet"), s.diag);
    assert_non_null(f);
    assert_int_equal(facet_info(f)->target->tensors.n, 1);
    assert_true(facet_check_weights(f, &file, &big, s.diag));
    assert_false(facet_check_weights(f, &file, NULL, s.diag));
    expect_message(s.diag, "the bundle works for a target: its weights are needed too");
    assert_false(facet_check_weights(f, &file, &other, s.diag));
    expect_message(s.diag, "other.gguf: error: tensor 'emb.weight' is q4_k[64, 4]");
    facet_close(f);
    c.info.target = facet_weights(s.arena, &other); /* knows of nothing */
    assert_true(facet_write(&c, in_dir("target.facet"), NULL, s.diag));
    f = facet_open(in_dir("target.facet"), s.diag);
    assert_false(facet_check_weights(f, &file, &other, s.diag));
    expect_message(s.diag, "other.gguf: error: tensor 'emb.weight' is q4_k[64, 4]");
    facet_close(f);
    end(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_back),   cmocka_unit_test(same_contents_same_bytes),
        cmocka_unit_test(cannot_write), cmocka_unit_test(devices),
        cmocka_unit_test(weights),      cmocka_unit_test(silent_manifest),
        cmocka_unit_test(target),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
