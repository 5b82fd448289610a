/* made.h - models of random weights for tests of the engine. */
#ifndef LAP_TESTS_ENGINE_MADE_H
#define LAP_TESTS_ENGINE_MADE_H

#include "runtime/synth/synth.h"

/* Writes one to `path`. Prints and exits where that fails. */
void make_weights(const char *path, const SynthOptions *o);

#endif
