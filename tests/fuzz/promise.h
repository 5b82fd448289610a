/* promise.h - what fuzz targets check: promises of a parser, and that a text form reads back to itself. */
#ifndef LAP_TESTS_FUZZ_PROMISE_H
#define LAP_TESTS_FUZZ_PROMISE_H

#include "ir/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void require(bool ok, const char *what) {
    if (!ok)
        ICE("broken promise: %s", what);
}

/* read_and_print: the text (malloc) of what the input means; NULL when it means nothing. */
static inline int round_trip(const uint8_t *data, size_t size, char *(*read_and_print)(const char *text, size_t len)) {
    char *once = read_and_print((const char *)data, size);
    if (!once)
        return 0;
    char *twice = read_and_print(once, strlen(once));
    if (!twice || strcmp(once, twice) != 0) {
        fprintf(stderr, "%s\n----\n%s\n", once, twice ? twice : "(does not read)");
        ICE("the text does not read back to itself");
    }
    free(once);
    free(twice);
    return 0;
}

#endif
