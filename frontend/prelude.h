/* prelude.h - the text of prelude.lap, built into the program (models/embed.cmake). */
#ifndef LAP_FRONTEND_PRELUDE_H
#define LAP_FRONTEND_PRELUDE_H

#include <stddef.h>

extern const char prelude_text[];
extern const size_t prelude_len;

#endif
