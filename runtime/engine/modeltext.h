/* modeltext.h - finding the model text that belongs to a weights file.
 *
 * A text is either a file named by the user or one of those built into the program, chosen by the
 * architecture string of the weights. Errors go to diag.
 */
#ifndef LAP_ENGINE_MODELTEXT_H
#define LAP_ENGINE_MODELTEXT_H

#include "frontend/frontend.h"
#include "ir/diag.h"
#include "ir/modelfile.h"

typedef struct TextSource {
    const char *name; /* for messages */
    const char *text; /* NUL-terminated; in the arena, or built in */
    size_t len;
} TextSource;

/* Reads a model text or IR text of at most 16 MiB. */
bool text_read(Arena *a, Diag *diag, const char *path, TextSource *out);

/* The built-in text for file->arch; when there is none the message names the option to give one with. */
bool text_for_weights(Arena *a, Diag *diag, const ModelFile *file, const char *option, TextSource *out);

/* The head of the built-in text for weights of that architecture; false: there is none. */
bool text_head(Arena *a, const char *arch, FeHead *out);
/* text_read when path is given, else text_for_weights. */
bool text_choose(Arena *a, Diag *diag, const char *path, const ModelFile *file, const char *option, TextSource *out);

#endif
