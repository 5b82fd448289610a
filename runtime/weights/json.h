/* json.h - reading JSON that came from outside. */
#ifndef LAP_WEIGHTS_JSON_H
#define LAP_WEIGHTS_JSON_H

#include "ir/diag.h"
#include <jansson.h>

/* Parses one JSON object; `what` names it in messages ("header"). Duplicate keys, deep nesting and
 * masses of values are refused. *minus, when given, is set when a number has a minus sign.
 * NULL after reporting; json_decref() the result. */
json_t *json_read(const uint8_t *text, size_t n, const char *what, SrcLoc at, bool *minus, Diag *diag);

/* The whole of a small JSON file. */
json_t *json_read_file(const char *path, size_t max_bytes, Diag *diag);

/* The whole of a small file of any text, copied to the arena; false after reporting. */
bool file_text(Arena *a, const char *path, size_t max_bytes, Diag *diag, Str *out);

/* The string copied to the arena. */
Str json_str(Arena *a, const json_t *s);

#endif
