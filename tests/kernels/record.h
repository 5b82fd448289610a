/* record.h - which kernels have been compiled for which architecture: a file of lines "ARCH TEMPLATE COUNT HASH".
 *
 * The hash is of the whole texts of all kernels of a template that the models have, of NVRTC's version and of what is
 * asked of them, so an unchanged line says that compiling them again would say the same. `#` begins a comment.
 */
#ifndef LAP_TESTS_KERNELS_RECORD_H
#define LAP_TESTS_KERNELS_RECORD_H

#include "ir/base.h"

typedef struct Record Record;

/* A file that is not there is an empty one. NULL, with a message, for one that cannot be read or has other lines. */
Record *record_open(Arena *a, const char *path);
/* Whether the line is there. */
bool record_has(const Record *r, const char *arch, const char *file, int n, const char *hash);
/* In the place of the line of the architecture and template. */
void record_set(Record *r, const char *arch, const char *file, int n, const char *hash);
/* Without the architecture's lines whose template is not in `files`. */
void record_keep(Record *r, const char *arch, const char *const *files, int n_files);
/* Replaces the file, sorted; false, with a message, when it cannot be. */
bool record_write(Record *r);

#endif
