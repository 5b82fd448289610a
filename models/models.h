/* models.h - the model texts built into the program, so that it runs from anywhere.
 *
 * The array is generated from the .lap files of this folder at build time (models/embed.cmake).
 */
#ifndef LAP_MODELS_MODELS_H
#define LAP_MODELS_MODELS_H

#include <stddef.h>

typedef struct ModelText {
    const char *name; /* "gemma3.lap" */
    const char *text; /* NUL-terminated */
    size_t len;
} ModelText;

extern const ModelText model_texts[];
extern const int n_model_texts;

#endif
