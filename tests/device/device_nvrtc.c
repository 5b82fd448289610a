/* device_nvrtc.c - NVRTC found or not, programs compiled, errors as text, many at once. Skipped (77) where
 * there is no NVRTC; no GPU is needed. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/device/compile.h"
#include "runtime/device/kernel_texts_int.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Nvrtc *nvrtc;

static void assert_part(const char *text, const char *part) {
    if (!text || !strstr(text, part))
        fail_msg("\"%s\" is not in:\n%s", part, text ? text : "(nothing)");
}

static const char scale[] = "extern \"C\" __global__ void scale(float *x, float f, int n) {\n"
                            "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
                            "    if (i < n)\n"
                            "        x[i] *= f;\n"
                            "}\n";

static void missing(void **state) {
    (void)state;
    DevError e = {0};
    assert_null(nvrtc_open("/no/such/dir", &e));
    assert_int_equal(e.kind, DEV_ABSENT);
    assert_part(e.text, "looked for libnvrtc.so.13 and libnvrtc.so.12 in /no/such/dir/, /no/such/dir/lib/");
    assert_part(e.text, "/no/such/dir/nvidia/cu13/lib/");
    assert_part(e.text, "pip install nvidia-cuda-nvrtc");
    assert_part(e.text, "--nvrtc DIR");

    char dir[] = "/tmp/lap-nvrtc-test-XXXXXX", file[64]; /* there, but no library */
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/libnvrtc.so.13", dir);
    FILE *f = fopen(file, "w");
    fputs("not a library", f);
    fclose(f);
    assert_null(nvrtc_open(dir, &e));
    assert_part(e.text, "libnvrtc.so.13 is there but cannot be opened");
    unlink(file);
    rmdir(dir);
}

/* Opened again by the folder it lies in. */
static void by_folder(void **state) {
    (void)state;
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", nvrtc_info(nvrtc)->path);
    char *slash = strrchr(dir, '/');
    assert_non_null(slash);
    *slash = 0;
    DevError e = {0};
    Nvrtc *n = nvrtc_open(dir, &e);
    if (!n)
        fail_msg("%s", e.text);
    assert_int_equal(nvrtc_info(n)->major, nvrtc_info(nvrtc)->major);
    assert_true(nvrtc_info(n)->builtins_bytes > 0);
    nvrtc_close(n);
}

static void architectures(void **state) {
    (void)state;
    static const char *const archs[] = {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"};
    Program p = {.name = "scale.cu", .source = scale};
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (!nvrtc_supports(nvrtc, archs[i])) {
            assert_true(nvrtc_info(nvrtc)->major < 13);
            continue;
        }
        Compiled out;
        if (!nvrtc_compile(nvrtc, &p, archs[i], NULL, &out))
            fail_msg("%s", out.error.text);
        assert_int_equal(out.state, COMPILE_DONE);
        assert_memory_equal(out.cubin,
                            "\x7f"
                            "ELF",
                            4);
        assert_null(out.log);
        compiled_free(&out);
    }
    Compiled out;
    assert_false(nvrtc_compile(nvrtc, &p, "sm_35", NULL, &out));
    assert_int_equal(out.error.kind, DEV_ABSENT);
    assert_part(out.error.text, "cannot compile for sm_35");
    compiled_free(&out);
}

static void errors(void **state) {
    (void)state;
    static const char *const verbose[] = {"--ptxas-options=-v"}, *const unknown[] = {"--no-such-option"};
    Compiled out;
    Program p = {.name = "bad.cu",
                 .source = "extern \"C\" __global__ void bad(float *x) {\n"
                           "#line 58 \"gemma4.lap\"\n"
                           "    x[0] = undefined_name;\n"
                           "}\n"};
    assert_false(nvrtc_compile(nvrtc, &p, "sm_86", NULL, &out));
    assert_int_equal(out.state, COMPILE_FAILED);
    assert_int_equal(out.error.kind, DEV_SOURCE);
    assert_null(out.cubin);
    assert_part(out.log, "gemma4.lap(58): error");
    assert_part(out.error.text, "bad.cu for sm_86: has errors\n");
    assert_part(out.error.text, "undefined_name");
    compiled_free(&out);

    p = (Program){.name = "scale.cu", .source = scale, .options = unknown, .n_options = 1};
    assert_false(nvrtc_compile(nvrtc, &p, "sm_86", NULL, &out));
    assert_part(out.error.text, "no-such-option");
    compiled_free(&out);

    p.options = verbose; /* a log without an error */
    assert_true(nvrtc_compile(nvrtc, &p, "sm_86", NULL, &out));
    assert_part(out.log, "registers");
    assert_part(out.log, "spill");
    compiled_free(&out);

    char *deep = malloc(2000); /* a compiler error, not a crash */
    memset(deep, '(', 1999);
    deep[1999] = 0;
    p = (Program){.name = "deep.cu", .source = deep};
    assert_false(nvrtc_compile(nvrtc, &p, "sm_86", NULL, &out));
    assert_int_equal(out.error.kind, DEV_SOURCE);
    compiled_free(&out);
    free(deep);
}

/* ==== Many ==== */

enum { MANY = 12 };

typedef struct Many {
    char text[MANY][400], name[MANY][16];
    Program programs[MANY];
    Compiled out[MANY];
    int told, total, stop_after;
} Many;

static Many *many_new(void) {
    Many *m = calloc(1, sizeof *m);
    for (int i = 0; i < MANY; i++) {
        snprintf(m->name[i], sizeof m->name[i], "k%d.cu", i);
        snprintf(
            m->text[i], sizeof m->text[i],
            "%.*s\nextern \"C\" __global__ void kernel_%d(float *x) { x[threadIdx.x] *= %d.5f; }\n", i * 20,
            "// a comment that makes the texts differ in length, so that they are begun in another order than they "
            "stand; and so on, and so on, and so on, and so on, and so on, and so on, and so on, and so on, and so "
            "on, and so on",
            i, i);
        m->programs[i] = (Program){.name = m->name[i], .source = m->text[i]};
    }
    return m;
}

static void many_free(Many *m) {
    for (int i = 0; i < MANY; i++)
        compiled_free(&m->out[i]);
    free(m);
}

static bool told(void *user, int done, int total) {
    Many *m = user;
    assert_true(done >= m->told && done <= total);
    m->told = done;
    m->total = total;
    return m->stop_after < 0 || done < m->stop_after;
}

static bool holds(const Compiled *c, const char *text) {
    return c->cubin && memmem(c->cubin, c->bytes, text, strlen(text));
}

static void many(void **state) {
    (void)state;
    char dir[] = "/tmp/lap-nvrtc-test-XXXXXX", command[64];
    assert_non_null(mkdtemp(dir));
    CubinCache *cache = cubin_cache_open(dir);
    uint8_t *first[MANY];
    size_t bytes[MANY];
    for (int round = 0; round < 2; round++) { /* compiled by three threads, then found */
        Many *m = many_new();
        m->stop_after = -1;
        CompileOptions o = {.cache = cache, .threads = round ? 1 : 3, .progress = told, .user = m};
        DevError e = {0};
        if (!compile_programs(nvrtc, "sm_90a", m->programs, MANY, &o, m->out, &e))
            fail_msg("%s", e.text);
        assert_int_equal(m->told, MANY);
        assert_int_equal(m->total, MANY);
        for (int i = 0; i < MANY; i++) {
            char name[32];
            snprintf(name, sizeof name, "kernel_%d", i);
            assert_true(holds(&m->out[i], name));
            assert_int_equal(m->out[i].state, round ? COMPILE_CACHED : COMPILE_DONE);
            if (round) {
                assert_int_equal(m->out[i].bytes, bytes[i]);
                assert_memory_equal(m->out[i].cubin, first[i], bytes[i]);
                free(first[i]);
            } else {
                bytes[i] = m->out[i].bytes;
                first[i] = malloc(bytes[i]);
                memcpy(first[i], m->out[i].cubin, bytes[i]);
            }
        }
        many_free(m);
    }
    assert_null(cubin_cache_warnings(cache));
    cubin_cache_close(cache);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* One bad among good ones: the others are there, the error is its. */
static void one_bad(void **state) {
    (void)state;
    Many *m = many_new();
    m->programs[5].source = "this is no program";
    DevError e = {0};
    CompileOptions o = {.threads = 2};
    assert_false(compile_programs(nvrtc, "sm_86", m->programs, MANY, &o, m->out, &e));
    assert_part(e.text, "k5.cu for sm_86: has errors");
    for (int i = 0; i < MANY; i++)
        assert_true((m->out[i].cubin != NULL) == (i != 5));
    many_free(m);
}

static void cancelled(void **state) {
    (void)state;
    Many *m = many_new();
    m->stop_after = 2;
    DevError e = {0};
    CompileOptions o = {.threads = 1, .progress = told, .user = m};
    assert_false(compile_programs(nvrtc, "sm_86", m->programs, MANY, &o, m->out, &e));
    assert_int_equal(m->told, MANY);
    int states[4] = {0};
    for (int i = 0; i < MANY; i++)
        states[m->out[i].state]++;
    assert_int_equal(states[COMPILE_FAILED], 0);
    assert_true(states[COMPILE_DONE] >= 2 && states[COMPILE_CANCELLED] >= 1);
    assert_string_equal(e.text, "cancelled");
    many_free(m);
}

/* What --roofline measures: for every architecture it is meant for, without spills or ptxas serialising a wgmma. */
static void roofline_kernels(void **state) {
    (void)state;
    static const char *const verbose[] = {"--ptxas-options=-v"};
    static const char *const archs[] = {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"};
    for (int i = 0; i < n_device_kernel_texts; i++)
        for (size_t k = 0; k < COUNTOF(archs); k++) {
            const EmbeddedText *t = &device_kernel_texts[i];
            const bool hopper = strcmp(archs[k], "sm_90a") == 0, wgmma = strcmp(t->name, "roofline_wgmma.cu") == 0;
            if ((wgmma && !hopper) || !nvrtc_supports(nvrtc, archs[k]))
                continue;
            Program p = {.name = t->name, .source = t->text, .options = verbose, .n_options = 1};
            Compiled out;
            if (!nvrtc_compile(nvrtc, &p, archs[k], NULL, &out))
                fail_msg("%s", out.error.text);
            assert_part(out.log, " 0 bytes spill stores");
            assert_null(strstr(out.log, "C75"));
            compiled_free(&out);
        }
}

int main(void) {
    DevError e = {0};
    nvrtc = nvrtc_open(NULL, &e);
    if (!nvrtc) {
        DevError fetched = {0};
        nvrtc = nvrtc_open(LAP_NVRTC, &fetched); /* what scripts/fetch_nvrtc.py got */
    }
    if (!nvrtc) {
        printf("skipped: %s\n", e.text);
        return 77;
    }
    printf("NVRTC %d.%d, %s\n", nvrtc_info(nvrtc)->major, nvrtc_info(nvrtc)->minor, nvrtc_info(nvrtc)->path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing),       cmocka_unit_test(by_folder),
        cmocka_unit_test(architectures), cmocka_unit_test(errors),
        cmocka_unit_test(many),          cmocka_unit_test(one_bad),
        cmocka_unit_test(cancelled),     cmocka_unit_test(roofline_kernels),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    nvrtc_close(nvrtc);
    return failed;
}
