/* arguments.h - what the programs that compare whole models along a text take from their command lines. */
#ifndef LAP_TESTS_ENGINE_ARGUMENTS_H
#define LAP_TESTS_ENGINE_ARGUMENTS_H

#include "ir/base.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "--name VALUE": one of the three is set. Numbers must be positive. */
typedef struct Argument {
    const char *name, **text;
    int64_t *number;
    double *real;
} Argument;

/* Reads options from argv[1] on. The place of the first argument behind them; -1: one is unknown, or its value wrong.
 */
int arguments_read(const Argument *rows, size_t n, int argc, char **argv);

/* All of a file, behind what `to` has; a program that cannot read it ends. */
void file_read(const char *path, Buf *to);

#endif
