/* device_cache.c - the directory of compiled kernels: what is put in comes out, and nothing damaged does. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/device/compile.h"
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const NvrtcInfo nvrtc = {.major = 13, .minor = 0, .builtins_bytes = 4380616};
static const char *const options[] = {"-a", "-bc"};
static const Program program = {.name = "k.cu", .source = "kernel text", .options = options, .n_options = 2};
static uint8_t cubin[50000];
static const Compiled compiled = {
    .state = COMPILE_DONE, .cubin = cubin, .bytes = sizeof cubin, .log = (char *)(uintptr_t) "a log\nof two lines"};

static int new_dir(void **state) {
    char template[] = "/tmp/lap-cache-test-XXXXXX";
    *state = strdup(mkdtemp(template));
    return *state ? 0 : -1;
}

static int remove_dir(void **state) {
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
    free(*state);
    return system(command);
}

/* Entries of a directory besides . and .. */
static int count_files(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d)
        closedir(d);
    return n;
}

static void assert_hit(CubinCache *c, CubinKey key) {
    Compiled out;
    assert_true(cubin_cache_get(c, key, "k.cu", &out));
    assert_int_equal(out.state, COMPILE_CACHED);
    assert_int_equal(out.bytes, sizeof cubin);
    assert_memory_equal(out.cubin, cubin, sizeof cubin);
    assert_string_equal(out.log, compiled.log);
    compiled_free(&out);
}

static void assert_warning(CubinCache *c, const char *part) {
    char *text = cubin_cache_warnings(c);
    if (!text || !strstr(text, part))
        fail_msg("\"%s\" is not in: %s", part, text ? text : "(no warning)");
    free(text);
    assert_null(cubin_cache_warnings(c));
}

static void put_and_get(void **state) {
    char dir[256];
    snprintf(dir, sizeof dir, "%s/a/b/kernels", (char *)*state); /* made when needed */
    CubinCache *c = cubin_cache_open(dir);
    CubinKey key = cubin_key(&nvrtc, &program, "sm_86");
    Compiled out;
    assert_false(cubin_cache_get(c, key, "k.cu", &out));
    assert_null(cubin_cache_warnings(c));
    cubin_cache_put(c, key, &compiled);
    assert_hit(c, key);
    cubin_cache_put(c, key, &compiled); /* there already */
    assert_hit(c, key);
    assert_int_equal(count_files(dir), 1);
    Compiled silent = compiled;
    silent.log = NULL;
    CubinKey other = cubin_key(&nvrtc, &program, "sm_89");
    cubin_cache_put(c, other, &silent);
    assert_true(cubin_cache_get(c, other, "k.cu", &out));
    assert_null(out.log);
    compiled_free(&out);
    assert_null(cubin_cache_warnings(c));
    cubin_cache_close(c);
}

static bool same(CubinKey a, CubinKey b) {
    return memcmp(a.bytes, b.bytes, sizeof a.bytes) == 0;
}

static void keys(void **state) {
    (void)state;
    static const char *const swapped[] = {"-bc", "-a"}, *const shifted[] = {"-ab", "c"}, *const joined[] = {"-a-bc"};
    CubinKey key = cubin_key(&nvrtc, &program, "sm_86");
    Program p = program;
    p.name = "another.cu";
    assert_true(same(key, cubin_key(&nvrtc, &p, "sm_86")));
    assert_false(same(key, cubin_key(&nvrtc, &program, "sm_89")));
    assert_false(same(key, cubin_key(&nvrtc, &program, "sm_86a")));
    p.source = "kernel texT";
    assert_false(same(key, cubin_key(&nvrtc, &p, "sm_86")));
    p.source = "kernel text#line 3";
    assert_false(same(key, cubin_key(&nvrtc, &p, "sm_86")));
    p.source = "#line 50 \"a.lap\"\nkernel text";
    assert_true(same(key, cubin_key(&nvrtc, &p, "sm_86")));
    p.source = "kernel text\n#line 51 \"b.lap\"\n";
    Program q = p;
    q.source = "kernel text\n#line 7 \"a.lap\"\n";
    assert_true(same(cubin_key(&nvrtc, &p, "sm_86"), cubin_key(&nvrtc, &q, "sm_86")));
    p = program;
    p.options = swapped;
    assert_false(same(key, cubin_key(&nvrtc, &p, "sm_86")));
    p.options = shifted;
    assert_false(same(key, cubin_key(&nvrtc, &p, "sm_86")));
    p.options = joined;
    p.n_options = 1;
    assert_false(same(key, cubin_key(&nvrtc, &p, "sm_86")));
    NvrtcInfo n = nvrtc;
    n.minor = 1;
    assert_false(same(key, cubin_key(&n, &program, "sm_86")));
    n = nvrtc;
    n.builtins_bytes++;
    assert_false(same(key, cubin_key(&n, &program, "sm_86")));
}

static void damage(const char *path, long at, int length) {
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    if (length >= 0)
        assert_int_equal(ftruncate(fileno(f), length), 0);
    else {
        fseek(f, at, SEEK_SET);
        int old = fgetc(f);
        fseek(f, at, SEEK_SET);
        fputc(old ^ 0x10, f);
    }
    fclose(f);
}

/* Every byte of the header, some of the rest, every kind of cut: a warning, and a miss. */
static void damaged(void **state) {
    CubinCache *c = cubin_cache_open(*state);
    CubinKey key = cubin_key(&nvrtc, &program, "sm_86");
    char path[300];
    cubin_cache_path(c, key, path, sizeof path);
    cubin_cache_put(c, key, &compiled);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    const long cuts[] = {0, 1, 8, 55, 56, 57, 1000, st.st_size - 1, st.st_size + 1};
    Compiled out;
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        damage(path, 0, (int)cuts[i]);
        assert_false(cubin_cache_get(c, key, "k.cu", &out));
        assert_warning(c, "compiled kernel k.cu is damaged, it is compiled again: ");
        assert_int_equal(count_files(*state), 0);
        cubin_cache_put(c, key, &compiled);
        assert_hit(c, key);
    }
    for (long at = 0; at < st.st_size; at += at < 64 ? 1 : 4999) {
        damage(path, at, -1);
        assert_false(cubin_cache_get(c, key, "k.cu", &out));
        assert_warning(c, "is damaged");
        cubin_cache_put(c, key, &compiled);
    }
    assert_hit(c, key);
    /* An entry under the name of another. */
    char other[300];
    CubinKey elsewhere = cubin_key(&nvrtc, &program, "sm_89");
    cubin_cache_path(c, elsewhere, other, sizeof other);
    assert_int_equal(rename(path, other), 0);
    assert_false(cubin_cache_get(c, elsewhere, "k.cu", &out));
    assert_warning(c, "it is another kernel's");
    cubin_cache_close(c);
}

/* What cannot be written is said once; nothing half-written stays. */
static void unwritable(void **state) {
    char dir[256], path[300];
    snprintf(dir, sizeof dir, "%s/file", (char *)*state);
    FILE *f = fopen(dir, "w");
    fclose(f);
    CubinKey key = cubin_key(&nvrtc, &program, "sm_86");
    CubinCache *c = cubin_cache_open(dir);
    Compiled out;
    assert_false(cubin_cache_get(c, key, "k.cu", &out));
    assert_null(cubin_cache_warnings(c));
    cubin_cache_put(c, key, &compiled);
    assert_warning(c, "compiled kernels cannot be kept in");
    cubin_cache_put(c, key, &compiled);
    assert_null(cubin_cache_warnings(c));
    cubin_cache_close(c);
    unlink(dir);

    c = cubin_cache_open(*state);
    cubin_cache_path(c, key, path, sizeof path);
    assert_int_equal(mkdir(path, 0777), 0); /* a directory where the entry should be */
    assert_false(cubin_cache_get(c, key, "k.cu", &out));
    assert_warning(c, "it is compiled again");
    rmdir(path);
    cubin_cache_close(c);
}

/* A disk that is full in the middle of an entry. */
static void full(void **state) {
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 20000;
    signal(SIGXFSZ, SIG_IGN);
    CubinCache *c = cubin_cache_open(*state);
    CubinKey key = cubin_key(&nvrtc, &program, "sm_86");
    setrlimit(RLIMIT_FSIZE, &small);
    cubin_cache_put(c, key, &compiled);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_warning(c, "compiled kernels cannot be kept in");
    assert_int_equal(count_files(*state), 0);
    cubin_cache_close(c);
}

/* ==== Many at once ==== */

enum { KEYS = 7, ROUNDS = 60 };

static CubinKey numbered(int i) {
    char text[16];
    snprintf(text, sizeof text, "source %d", i);
    Program p = {.name = "k.cu", .source = text};
    return cubin_key(&nvrtc, &p, "sm_86");
}

/* Writers, readers and one who damages entries; whatever is read must be whole. */
static void *hammer(void *arg) {
    CubinCache *c = arg;
    unsigned r = (unsigned)getpid() ^ (unsigned)(uintptr_t)&r;
    for (int i = 0; i < ROUNDS; i++) {
        CubinKey key = numbered(rand_r(&r) % KEYS);
        Compiled out;
        if (cubin_cache_get(c, key, "k.cu", &out)) {
            bool whole = out.bytes == sizeof cubin && memcmp(out.cubin, cubin, sizeof cubin) == 0;
            compiled_free(&out);
            if (!whole)
                return c;
        } else {
            cubin_cache_put(c, key, &compiled);
        }
        if (rand_r(&r) % 10 == 0) {
            char path[300];
            cubin_cache_path(c, key, path, sizeof path);
            if (truncate(path, 100) != 0)
                continue; /* not there just now */
        }
    }
    return NULL;
}

static void concurrent(void **state) {
    for (int process = 0; process < 3; process++)
        if (fork() == 0) {
            CubinCache *c = cubin_cache_open(*state);
            pthread_t threads[3];
            void *bad = NULL, *one;
            for (int i = 0; i < 3; i++)
                pthread_create(&threads[i], NULL, hammer, c);
            for (int i = 0; i < 3; i++) {
                pthread_join(threads[i], &one);
                bad = bad ? bad : one;
            }
            char *text = cubin_cache_warnings(c);
            bool unkept = text && strstr(text, "cannot be kept");
            _exit(bad ? 1 : unkept ? 2 : 0);
        }
    for (int process = 0; process < 3; process++) {
        int status = -1;
        wait(&status);
        assert_int_equal(status, 0);
    }
    assert_true(count_files(*state) <= KEYS); /* nothing besides entries */
}

int main(void) {
    for (size_t i = 0; i < sizeof cubin; i++)
        cubin[i] = (uint8_t)(i * 2654435761u >> 13);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(put_and_get, new_dir, remove_dir),
        cmocka_unit_test(keys),
        cmocka_unit_test_setup_teardown(damaged, new_dir, remove_dir),
        cmocka_unit_test_setup_teardown(unwritable, new_dir, remove_dir),
        cmocka_unit_test_setup_teardown(full, new_dir, remove_dir),
        cmocka_unit_test_setup_teardown(concurrent, new_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
