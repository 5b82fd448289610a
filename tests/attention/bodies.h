/* bodies.h - heads.body and variant.body of this folder, built into the tests (models/embed.cmake). */
#ifndef LAP_TESTS_ATTENTION_BODIES_H
#define LAP_TESTS_ATTENTION_BODIES_H

#include "ir/base.h"

extern const EmbeddedText attention_bodies[];
extern const int n_attention_bodies;

#endif
