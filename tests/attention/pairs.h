/* pairs.h - attention by chance: pairs of types of keys and values, shapes, variants and numbers. */
#ifndef LAP_TESTS_ATTENTION_PAIRS_H
#define LAP_TESTS_ATTENTION_PAIRS_H

#include "tests/attention/check.h"

enum { PAIR_NAME = 80 };

/* Checks what is stored of any numbers, and then `many` drawn ones, each once, of all pairs of types in heads by chance
 * and of some in heads of 64 and 512. 0: all of them. */
bool pairs_check(Lab *l, uint64_t seed, int many);

#endif
