/* facet_damage_test.c - bundles that are damaged, incomplete or hostile are refused with the entry and the reason. */
#include "tests/facet/small_facet.h"

#include <zip.h>

/* ==== Damage ==== */

/* Opens and loads all. */
static bool whole(const void *data, size_t n, Diag *diag) {
    Facet *f = facet_open_memory(data, n, "x.facet", diag);
    bool ok = f != NULL;
    for (int i = 0; ok && i < facet_info(f)->archs.n; i++)
        ok = facet_load(f, i, diag);
    assert_int_equal(ok, diag_errors(diag) == 0);
    if (ok) {
        assert_string_equal(facet_text(f).s, model_text);
        assert_string_equal(facet_info(f)->archs.v[2].plan->kernels.v[0].text, "// kernel repack_0 for sm_90a\n");
    }
    facet_close(f);
    return ok;
}

static void cut(void **state) {
    (void)state;
    Small s = begin();
    write_small(in_dir("small.facet"));
    Buf b = slurp(in_dir("small.facet"));
    assert_true(whole(b.s, b.n, s.diag));
    for (size_t n = 0; n < b.n; n += n < 100 || n > b.n - 200 ? 1 : 37) {
        assert_false(whole(b.s, n, s.diag));
        expect_message(s.diag, "x.facet: error: ");
    }
    buf_free(&b);
    end(s);
}

/* A byte that changes nothing (a version, a flag of a file system) may be anything; others are found. */
static void flipped(void **state) {
    (void)state;
    Small s = begin();
    write_small(in_dir("small.facet"));
    Buf b = slurp(in_dir("small.facet"));
    size_t refused = 0;
    for (size_t i = 0; i < b.n; i++) {
        b.s[i] = (char)(b.s[i] ^ 1 << i % 8);
        refused += !whole(b.s, b.n, s.diag);
        diag_clear(s.diag);
        b.s[i] = (char)(b.s[i] ^ 1 << i % 8);
    }
    assert_true(refused > b.n * 3 / 4);
    buf_free(&b);
    end(s);
}

/* What a test does to the archive with libzip. */
typedef void Change(zip_t *z, const void *user);

static zip_source_t *bytes_source(zip_t *z, const void *data, size_t n) {
    void *copy = n ? malloc(n) : NULL; /* libzip frees no copy of nothing */
    if (n)
        memcpy(copy, data, n);
    return zip_source_buffer(z, copy, n, n > 0);
}

static void put(zip_t *z, const char *name, const void *data, size_t n) {
    assert_true(zip_file_add(z, name, bytes_source(z, data, n), ZIP_FL_OVERWRITE) >= 0);
}

static void expect_refused(Change *change, const void *user, const char *message) {
    Small s = begin();
    write_small(in_dir("changed.facet"));
    zip_t *z = zip_open(in_dir("changed.facet"), 0, NULL);
    assert_non_null(z);
    change(z, user);
    assert_int_equal(zip_close(z), 0);
    Buf b = slurp(in_dir("changed.facet"));
    assert_false(whole(b.s, b.n, s.diag));
    expect_message(s.diag, message);
    buf_free(&b);
    end(s);
}

static void remove_entry(zip_t *z, const void *name) {
    zip_int64_t i = zip_name_locate(z, name, 0);
    assert_true(i >= 0);
    assert_int_equal(zip_delete(z, (zip_uint64_t)i), 0);
}

static void add_entry(zip_t *z, const void *name) {
    put(z, name, "x", 1);
}

static void add_bomb(zip_t *z, const void *name) {
    static char zeros[100 << 20];
    put(z, name, zeros, sizeof zeros);
}

static void add_many(zip_t *z, const void *unused) {
    (void)unused;
    char name[40];
    for (int i = 0; i < 17000; i++) {
        snprintf(name, sizeof name, "sm_90a/kernels/k%d.cu", i);
        put(z, name, "", 0);
    }
}

static void entries(void **state) {
    (void)state;
    expect_refused(remove_entry, "manifest.json", "x.facet: error: entry 'manifest.json' is missing");
    expect_refused(remove_entry, "model.lap", "entry 'model.lap' is missing");
    expect_refused(remove_entry, "sm_86/kernels/matmul_1.cubin", "entry 'sm_86/kernels/matmul_1.cubin' is missing");
    expect_refused(add_entry, "../../escape", "entry '../../escape' is not in the manifest");
    expect_refused(add_entry, "sm_90a/kernels/x.cu", "entry 'sm_90a/kernels/x.cu' is not in the manifest");
    expect_refused(add_entry, "a\033[31mb", "entry 'a?[31mb' is not in the manifest");
    expect_refused(add_entry, "model.lap",
                   "entry 'model.lap' is not the one that the manifest lists: 1 bytes with XXH3");
    expect_refused(add_entry, "sm_80/plan.txt", "entry 'sm_80/plan.txt' is not the one that the manifest lists");
    expect_refused(add_bomb, "model.lap", "entry 'model.lap' has 104857600 bytes; an entry may have 64 MiB");
    expect_refused(add_many, NULL, "a bundle has 1 to 16384");
}

/* Both headers of an entry say another name, of the same length. */
static void named_twice(void **state) {
    (void)state;
    Small s = begin();
    write_small(in_dir("small.facet"));
    Buf b = slurp(in_dir("small.facet"));
    static const char from[] = "sm_90a/kernels/matmul_1.cu", to[] = "sm_90a/kernels/repack_0.cu";
    for (size_t i = 0; i + sizeof from < b.n; i++)
        if (memcmp(b.s + i, from, sizeof from - 1) == 0 && b.s[i + sizeof from - 1] != 'b')
            memcpy(b.s + i, to, sizeof to - 1);
    assert_false(whole(b.s, b.n, s.diag));
    expect_message(s.diag, "x.facet: error: "); /* libzip's words, or ours */
    buf_free(&b);
    end(s);
}

/* Both headers of an entry say that it unpacks to fewer bytes than it does. */
static void lies_about_its_size(void **state) {
    (void)state;
    Small s = begin();
    write_small(in_dir("small.facet"));
    Buf b = slurp(in_dir("small.facet"));
    static const char name[] = "model.lap";
    int headers = 0;
    for (size_t i = 46; i + sizeof name < b.n; i++) {
        bool local = memcmp(b.s + i - 30, "PK\3\4", 4) == 0, central = memcmp(b.s + i - 46, "PK\1\2", 4) == 0;
        if ((local || central) && memcmp(b.s + i, name, sizeof name - 1) == 0) {
            b.s[local ? i - 30 + 22 : i - 46 + 24] = 5;
            headers++;
        }
    }
    assert_int_equal(headers, 2);
    assert_false(whole(b.s, b.n, s.diag));
    expect_message(s.diag, "entry 'model.lap' is damaged");
    buf_free(&b);
    end(s);
}

/* ==== The manifest ==== */

typedef struct Edit {
    const char *from, *to;
} Edit;

static void edit_manifest(zip_t *z, const void *user) {
    const Edit *e = user;
    zip_stat_t st;
    assert_int_equal(zip_stat(z, "manifest.json", 0, &st), 0);
    char *text = calloc(1, st.size + 1);
    zip_file_t *f = zip_fopen(z, "manifest.json", 0);
    assert_int_equal(zip_fread(f, text, st.size), (zip_int64_t)st.size);
    zip_fclose(f);
    char *at = strstr(text, e->from);
    if (!at)
        fail_msg("\"%s\" is not in the manifest:\n%s", e->from, text);
    Buf b = {0};
    buf_bytes(&b, text, (size_t)(at - text));
    buf_str(&b, e->to);
    buf_str(&b, at + strlen(e->from));
    put(z, "manifest.json", b.s, b.n);
    buf_free(&b);
    free(text);
}

static const struct {
    Edit edit;
    const char *message;
} manifests[] = {
    {{"{", "["}, "entry 'manifest.json': 2:"},
    {{"\"format\": 1", "\"format\": 2"}, "the bundle has format 2, this program reads format 1"},
    {{"\"format\": 1", "\"format\": \"1\""}, "'format' must be a whole number"},
    {{"\"made_by\": \"lap", "\"made_by\": \"\\u001b"}, "'made_by' must be a string of printable ASCII"},
    {{"\"chunk\": 32", "\"chunk\": 0"}, "'chunk' must be a whole number from 1 to 65536"},
    {{"\"kv_k\": \"f16\"", "\"kv_k\": \"i32\""}, "'kv_k' is no element type of a cache"},
    {{"\"tiny.block_count\": \"30\"", "\"tiny.block_count\": \"31\""}, "the signature of 'weights' is not that of"},
    {{"\"tiny.block_count\": \"30\"", "\"tiny.block_count\": 30"}, "'metadata' must hold strings"},
    {{"\"name\": \"sm_86\"", "\"name\": \"sm_80\""}, "architecture sm_80 is listed twice"},
    {{"\"name\": \"sm_86\"", "\"name\": \"../x\""}, "'../x' is no architecture"},
    {{"\"name\": \"sm_86\"", "\"name\": \"sm_87\""}, "entry 'sm_86/kernels/matmul_1.cu' has no place in a bundle"},
    {{"\"kernels\": 3", "\"kernels\": 4"}, "with 3 kernels, the manifest says"},
    {{"\"model.lap\": {", "\"../model.lap\": {"}, "entry '../model.lap' has no place in a bundle"},
    {{"\"model.lap\": {", "\"sm_90a/kernels/a/b.cu\": {"}, "entry 'sm_90a/kernels/a/b.cu' has no place in a bundle"},
    {{"\"model.lap\": {", "\"sm_90a/kernels/b.cu\": {"}, "entry 'sm_90a/kernels/b.cu' is missing"},
    {{"\"bytes\": 3", "\"bytes\": -3"}, "'bytes' must be a whole number"},
    {{"\"xxh3\": \"", "\"xxh3\": \"x"}, "'xxh3' must be 32 hex digits"},
    {{"\"target\": null", "\"target\": 3"}, "'target' must be an object"},
    {{"\"settings\": [", "\"settings\": [3,"}, "'settings' must hold strings"},
    {{"\"model\": \"tiny\"", "\"model\": \"tiny\", \"model\": \"tiny\""}, "duplicate object key"},
};

static void manifest(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(manifests); i++) {
        Edit e = manifests[i].edit;
        expect_refused(edit_manifest, &e, manifests[i].message);
    }
}

/* Entries and manifest agree, but one is not what it should be. */
static void replace_module(zip_t *z, const void *user) {
    const char *text = user;
    put(z, "module.ir", text, strlen(text));
}

/* All hashes are right, the plan is not of the module: plan_check is asked. */
static void foreign_plan(void **state) {
    (void)state;
    Small s = begin();
    ModelFile file = small_file(s.arena);
    FacetContents c = {.text = "", .info = {.made_by = "x", .model = "tiny", .text_name = "x"}};
    c.info.options = (FacetOptions){64, 32, 8, 16, 2, DT_F16, DT_BF16};
    c.info.weights = facet_weights(s.arena, &file);
    vec_push(s.arena, &c.info.archs, small_arch(s, "sm_86"));
    c.info.archs.v[0].plan->buffers.v[3].bytes = 1000;
    c.module = ir_parse(s.arena, s.diag, "module", small_module_text, strlen(small_module_text));
    assert_true(facet_write(&c, in_dir("foreign.facet"), NULL, s.diag));
    Facet *f = facet_open(in_dir("foreign.facet"), s.diag);
    assert_non_null(f);
    assert_null(facet_arch(f, "sm_89", s.diag));
    expect_message(s.diag, "plan for sm_86: buffer 'emb.weight' has 1000 bytes");
    facet_close(f);
    c.info.archs.v[0].plan->buffers.v[3].bytes = 1024;
    c.info.archs.v[0].plan->fills.v[1].args.v[0].value = 64;
    assert_true(facet_write(&c, in_dir("foreign.facet"), NULL, s.diag));
    f = facet_open(in_dir("foreign.facet"), s.diag);
    assert_null(facet_arch(f, "sm_89", s.diag));
    expect_message(s.diag, "foreign.facet/sm_86/plan.txt:25:24: error: b5 has only 64 bytes");
    facet_close(f);
    expect_refused(replace_module, "module x arch \"y\"\n", "entry 'module.ir' is not the one");
    end(s);
}

static void no_bundle(void **state) {
    (void)state;
    Small s = begin();
    assert_null(facet_open(in_dir("absent.facet"), s.diag));
    expect_message(s.diag, "absent.facet: error: cannot be opened: No such file or directory");
    assert_null(facet_open(dir, s.diag));
    expect_message(s.diag, "is no bundle: not a file");
    assert_false(facet_looks_like(in_dir("absent.facet")));
    assert_false(whole("", 0, s.diag));
    expect_message(s.diag, "x.facet: error: has 0 entries");
    assert_false(whole("GGUF....", 8, s.diag));
    expect_message(s.diag, "x.facet: error: is no bundle, or is damaged: ");
    end(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut),
        cmocka_unit_test(flipped),
        cmocka_unit_test(entries),
        cmocka_unit_test(named_twice),
        cmocka_unit_test(lies_about_its_size),
        cmocka_unit_test(manifest),
        cmocka_unit_test(foreign_plan),
        cmocka_unit_test(no_bundle),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
