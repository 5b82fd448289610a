/* test_weights_mutate.c - good files cut at every byte and changed at random.
 *
 * Every proper prefix of a good file must be refused; a changed file may be either, but all that
 * touch_weights() checks must hold. Each parse gets a copy of exact size, so that a sanitizer sees a
 * read past its end. The files are the good-* seeds of the fuzz targets.
 */
#define _GNU_SOURCE
#include "tests/fuzz/weights_touch.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

enum { MUTANTS = 3000 }; /* of each file */

typedef struct Sample {
    char name[256];
    uint8_t *data;
    size_t size;
} Sample;

typedef struct Samples {
    Sample v[32];
    int n;
} Samples;

static void load(Sample *s, const char *folder, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(s->name, sizeof s->name, "%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    s->data = malloc(1 << 20);
    s->size = fread(s->data, 1, 1 << 20, f);
    fclose(f);
}

static void load_good(Samples *out, const char *folder) {
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (strncmp(e->d_name, "good-", 5) == 0 && out->n < (int)COUNTOF(out->v))
            load(&out->v[out->n++], folder, e->d_name);
    closedir(d);
    assert_true(out->n >= 5);
}

static void unload(Samples *s) {
    for (int i = 0; i < s->n; i++)
        free(s->v[i].data);
}

static bool parse_copy(ParseFn parse, const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    bool accepted = touch_weights(parse, copy, size);
    free(copy);
    return accepted;
}

static void check_prefixes(ParseFn parse, const char *folder) {
    Samples s = {.n = 0};
    load_good(&s, folder);
    for (int i = 0; i < s.n; i++) {
        assert_true(parse_copy(parse, s.v[i].data, s.v[i].size));
        for (size_t n = 0; n < s.v[i].size; n++)
            if (parse_copy(parse, s.v[i].data, n))
                fail_msg("%s: accepted when cut to %zu of %zu bytes", s.v[i].name, n, s.v[i].size);
    }
    unload(&s);
}

static uint64_t random_bits(uint64_t *state) {
    *state += 0x9e3779b97f4a7c15u;
    return hash_bytes(state, sizeof *state, 0);
}

/* Changes one to four places: a bit, a byte, or a whole number to one near a power of two. */
static void mutate(uint8_t *p, size_t size, uint64_t *state) {
    for (uint64_t k = random_bits(state) % 4 + 1; k > 0; k--) {
        size_t at = random_bits(state) % size;
        uint64_t r = random_bits(state);
        uint64_t number = ((uint64_t)1 << r % 64) - (r >> 8) % 3;
        size_t bytes = (r >> 16) % 2 ? 8 : 4;
        if ((r >> 24) % 3 == 0)
            p[at] ^= (uint8_t)(1u << r % 8);
        else if ((r >> 24) % 3 == 1)
            p[at] = (uint8_t)(r >> 32);
        else if (size - at >= bytes)
            memcpy(p + at, &number, bytes);
    }
}

static void check_mutants(ParseFn parse, const char *folder) {
    uint64_t seed = (uint64_t)time(NULL);
    Samples s = {.n = 0};
    int accepted = 0;
    print_message("seed %llu\n", (unsigned long long)seed);
    load_good(&s, folder);
    for (int i = 0; i < s.n; i++) {
        uint8_t *copy = malloc(s.v[i].size);
        for (int k = 0; k < MUTANTS; k++) {
            memcpy(copy, s.v[i].data, s.v[i].size);
            mutate(copy, s.v[i].size, &seed);
            accepted += parse_copy(parse, copy, s.v[i].size);
        }
        free(copy);
    }
    print_message("%d of %d accepted\n", accepted, s.n * MUTANTS);
    assert_in_range(accepted, 1, s.n * MUTANTS - 1); /* both paths were walked */
    unload(&s);
}

#define CORPUS REPO_DIR "/tests/fuzz/corpus/"

static void gguf_prefixes(void **state) {
    (void)state;
    check_prefixes(gguf_parse, CORPUS "gguf");
}

static void gguf_mutants(void **state) {
    (void)state;
    check_mutants(gguf_parse, CORPUS "gguf");
}

static void safetensors_prefixes(void **state) {
    (void)state;
    check_prefixes(safetensors_parse, CORPUS "safetensors");
}

static void safetensors_mutants(void **state) {
    (void)state;
    check_mutants(safetensors_parse, CORPUS "safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_prefixes),
        cmocka_unit_test(gguf_mutants),
        cmocka_unit_test(safetensors_prefixes),
        cmocka_unit_test(safetensors_mutants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
