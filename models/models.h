/* models.h - the texts of this folder built into the program, so that it runs from anywhere.
 *
 * The arrays are generated from the files at build time (models/embed.cmake).
 */
#ifndef LAP_MODELS_MODELS_H
#define LAP_MODELS_MODELS_H

#include "ir/base.h"

/* Model texts, *.lap. */
extern const EmbeddedText model_texts[];
extern const int n_model_texts;

/* Sizes that `lap synth` makes, *.synth (runtime/synth/synth.h). */
extern const EmbeddedText synth_texts[];
extern const int n_synth_texts;

/* Checkpoints that `lap convert` knows, *.convert (runtime/convert/convert.h). */
extern const EmbeddedText convert_texts[];
extern const int n_convert_texts;

#endif
