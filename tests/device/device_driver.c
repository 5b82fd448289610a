/* device_driver.c - what is said when there is no driver, or one that cannot be used; the list of devices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/device/device.h"
#include <string.h>

static void assert_text(const DevError *e, const char *part) {
    if (!strstr(e->text, part))
        fail_msg("\"%s\" is not in:\n%s", part, e->text);
}

static void refused(const char *driver, int ordinal, const char *part) {
    DevError e = {0};
    DevOptions o = {.driver = driver, .ordinal = ordinal};
    assert_null(dev_open(&o, &e));
    assert_int_equal(e.kind, DEV_ABSENT);
    assert_text(&e, part);
    assert_null(dev_open(&o, NULL)); /* without a place for the message */
}

static void no_such_file(void **state) {
    (void)state;
    refused("/no/such/libcuda.so.1", 0, "looked for:\n  /no/such/libcuda.so.1: cannot open");
    refused("/no/such/libcuda.so.1", 0, "install NVIDIA's driver (525 or newer)");
    refused("/etc/passwd", 0, "/etc/passwd: ");
}

/* On a machine without a driver this is what users meet. */
static void system_driver(void **state) {
    (void)state;
    DevError e = {0};
    DevInfo info[4];
    int n = 0;
    if (dev_list(NULL, info, 4, &n, &e)) {
        assert_true(n >= 1);
        assert_true(info[0].sm >= 30 && info[0].total_bytes > 0);
        return;
    }
    assert_int_equal(e.kind, DEV_ABSENT);
    if (strstr(e.text, "looked for")) {
        assert_text(&e, "libcuda.so.1");
        assert_text(&e, "/usr/lib/wsl/lib/libcuda.so.1");
    }
}

static void unusable(void **state) {
    (void)state;
    refused(FAKE_CUDA_OLD, 0, "too old: it supports CUDA 11.4, needed is 12.0");
    refused(FAKE_CUDA_EMPTY, 0, "finds no GPU");
    refused(FAKE_CUDA_PARTIAL, 0, "(CUDA 12.2) has no cuGraphUpload; update it");
    refused(FAKE_CUDA, 3, "there is no GPU 3: the driver finds 3, numbered from 0");
    refused(FAKE_CUDA, -1, "there is no GPU -1");
    refused(FAKE_CUDA, 2, "GPU 2 (Fake GPU C) has compute capability 7.0, needed is 8.0");
}

static void list(void **state) {
    (void)state;
    DevError e = {0};
    DevInfo info[2];
    int n = 0;
    assert_true(dev_list(FAKE_CUDA, info, 2, &n, &e)); /* two of three */
    assert_int_equal(n, 3);
    assert_string_equal(info[0].name, "Fake GPU A");
    assert_string_equal(info[0].arch, "sm_90a");
    assert_true(info[0].pdl);
    assert_int_equal(info[0].multiprocessors, 132);
    assert_int_equal(info[0].shared_per_block, 227 << 10);
    assert_int_equal(info[0].l2_bytes, 50 << 20);
    assert_int_equal(info[0].driver_cuda, 13000);
    assert_string_equal(info[1].arch, "sm_86");
    assert_false(info[1].pdl);
    assert_int_equal(info[1].ordinal, 1);
}

static void architectures(void **state) {
    (void)state;
    static const struct {
        int sm;
        const char *arch;
    } rows[] = {{80, "sm_80"}, {86, "sm_86"}, {89, "sm_89"}, {90, "sm_90a"}, {100, "sm_100a"}, {120, "sm_120a"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[16];
        dev_arch(rows[i].sm, out);
        assert_string_equal(out, rows[i].arch);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_such_file), cmocka_unit_test(system_driver), cmocka_unit_test(unusable),
        cmocka_unit_test(list),         cmocka_unit_test(architectures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
