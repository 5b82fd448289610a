/* small_facet.h - a small weights file, a bundle for it, and a folder to write bundles to; for the tests of bundles. */
#ifndef LAP_TESTS_FACET_SMALL_FACET_H
#define LAP_TESTS_FACET_SMALL_FACET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/facet/facet.h"
#include "tests/codegen/small_plan.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/lap-facet-test-XXXXXX";

static const char *in_dir(const char *name) {
    static char path[4][200];
    static int n;
    snprintf(path[n = (n + 1) % 4], sizeof path[0], "%s/%s", dir, name);
    return path[n];
}

/* ==== A weights file ==== */

static const int64_t thirty[] = {30}, pattern[] = {1, 0, 1};
static const double factor[] = {1.0};
static const Str word[] = {{"a \"b\"\n", 6}};

static inline ModelFile small_file(Arena *a) {
    static MetaEntry meta[] = {
        {"tiny.block_count", {META_INT, false, 1, {.i = thirty}}},
        {"tiny.pattern", {META_BOOL, true, 3, {.i = pattern}}},
        {"tiny.factor", {META_FLOAT, false, 1, {.f = factor}}},
        {"tiny.word", {META_STRING, false, 1, {.s = word}}},
        {"general.name", {META_STRING, false, 1, {.s = word}}},
    };
    static TensorInfo tensors[] = {
        {"emb.weight", DT_F32, 0, 2, {64, 4}, NULL, 1024},
        {"odd \"name\"", DT_Q8_0, 8, 2, {64, 32}, NULL, 2176},
        {"not.used", DT_F32, 0, 1, {4}, NULL, 16},
    };
    ModelFile f = {.path = "tiny.gguf", .arch = "tiny", .n_meta = COUNTOF(meta), .n_tensors = COUNTOF(tensors)};
    f.meta = arena_alloc(a, sizeof meta);
    f.tensors = arena_alloc(a, sizeof tensors);
    memcpy(f.meta, meta, sizeof meta);
    memcpy(f.tensors, tensors, sizeof tensors);
    modelfile_index(&f, a);
    return f;
}

/* As compiling would ask it. */
static inline void ask(Arena *a, ModelFile *f) {
    static const char *const keys[] = {"tiny.block_count", "tiny.pattern", "tiny.factor", "tiny.word", "tiny.absent"};
    f->reads = modelreads_new(a);
    for (size_t i = 0; i < COUNTOF(keys); i++)
        modelfile_meta(f, keys[i]);
    modelfile_meta(f, keys[0]);
    modelfile_tensor(f, "odd \"name\"");
    modelfile_tensor(f, "emb.weight");
    modelfile_tensor(f, "emb.bias");
}

/* ==== Writing and reading ==== */

typedef struct Small {
    Arena *arena;
    Diag *diag;
} Small;

static inline Small begin(void) {
    return (Small){arena_new(), diag_new()};
}

static inline void end(Small s) {
    diag_free(s.diag);
    arena_free(s.arena);
}

static inline void expect_message(Diag *d, const char *part) {
    char *text = diag_text(d);
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in:\n%s", part, text);
    free(text);
    diag_clear(d);
}

static inline FacetArch small_arch(Small s, const char *name) {
    Buf b = {0};
    buf_printf(&b, "plan %s%s", name, small_plan_text + strlen("plan sm_90a"));
    Plan *p = plan_parse(s.arena, s.diag, "plan", b.s, b.n);
    buf_free(&b);
    assert_non_null(p);
    FacetCubin *cubins = arena_array(s.arena, (size_t)p->kernels.n, sizeof *cubins);
    for (int i = 0; i < p->kernels.n; i++) {
        PlanKernel *k = &p->kernels.v[i];
        k->text = arena_printf(s.arena, "// kernel %s for %s\n", k->name, name);
        cubins[i].data = arena_printf(s.arena, "\177ELF %s for %s", k->name, name);
        cubins[i].bytes = strlen(cubins[i].data);
    }
    return (FacetArch){.name = name, .nvrtc = "13.0", .n_kernels = p->kernels.n, .plan = p, .cubins = cubins};
}

static const char model_text[] = "model tiny from gguf \"tiny\" { }\n";

static inline void write_small(const char *path) {
    static const char *const archs[] = {"sm_80", "sm_86", "sm_90a"};
    Small s = begin();
    ModelFile file = small_file(s.arena);
    ask(s.arena, &file);
    FacetContents c = {.text = model_text, .text_len = sizeof model_text - 1};
    c.info = (FacetInfo){.made_by = "lap 0.0.0", .model = "tiny", .text_name = "models/tiny.lap"};
    c.info.options = (FacetOptions){64, 32, 8, 16, 2, DT_F16, DT_BF16};
    vec_push(s.arena, &c.info.settings, "L=30");
    c.info.weights = facet_weights(s.arena, &file);
    for (size_t i = 0; i < COUNTOF(archs); i++)
        vec_push(s.arena, &c.info.archs, small_arch(s, archs[i]));
    c.module = ir_parse(s.arena, s.diag, "module", small_module_text, strlen(small_module_text));
    assert_non_null(c.module);
    int64_t bytes = 0;
    assert_true(facet_write(&c, path, &bytes, s.diag));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, bytes);
    end(s);
}

static inline Buf slurp(const char *path) {
    Buf b = {0};
    char block[4096];
    size_t n;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    while ((n = fread(block, 1, sizeof block, f)) > 0)
        buf_bytes(&b, block, n);
    fclose(f);
    return b;
}

/* ==== The folder ==== */

static inline int make_dir(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static inline int remove_dir(void **state) {
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

#endif
