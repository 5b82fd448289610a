/* oracle.h - a drafter for tests whose guess for each position is given. */
#ifndef LAP_TESTS_ENGINE_ORACLE_H
#define LAP_TESTS_ENGINE_ORACLE_H

#include "ir/ir.h"

typedef struct Oracle {
    char weights[256], model[256]; /* paths */
} Oracle;

/* Writes the two files into `folder`, whose names differ from those of other processes: blocks of `most` guesses, for
 * position p of any sequence guesses[p], p below n; -1: logits that are no numbers. Prints and exits where that fails.
 */
Oracle oracle_write(const char *folder, int vocab, int most, const int32_t *guesses, int n);
void oracle_remove(const Oracle *o);

#endif
