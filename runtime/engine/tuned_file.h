/* tuned_file.h - the file in which choices of tuning and rates of GPUs are kept, beside the compiled kernels. */
#ifndef LAP_ENGINE_TUNED_FILE_H
#define LAP_ENGINE_TUNED_FILE_H

#include "codegen/tuned.h"
#include "ir/diag.h"

/* "DIR/tuned.txt" of a folder of compiled kernels. */
const char *tuned_file_path(Arena *a, const char *kernel_cache);
/* Adds what the file says; one that is not there says nothing. What is wrong is a warning; false: it cannot be read. */
bool tuned_file_read(Tuned *t, const char *path, Diag *diag);
/* Adds entries and rates to what the file says by now; its folder is made where need be. Another process sees it as it
 * was or whole; when two add at the same time one's entries may be lost, to be found again. What goes wrong is a
 * warning. */
void tuned_file_add(const Tuned *fresh, const char *path, Diag *diag);

#endif
