/* random_graph.h - a random small valid module, for property tests. */
#ifndef LAP_TESTS_PASSES_RANDOM_GRAPH_H
#define LAP_TESTS_PASSES_RANDOM_GRAPH_H

#include "ir/ir.h"

/* Everything follows from the seed. One graph "step" over tokens, pos and rows with one emit. */
Module *random_module(Arena *arena, Diag *diag, uint64_t seed);

#endif
