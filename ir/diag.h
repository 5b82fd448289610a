/* diag.h - located messages for people: `file:line:col: error: text`, the source line, a caret range.
 *
 * Anything a user can get wrong is reported here and collected, so that one run shows several
 * errors; the caller decides when to print and to stop. Broken invariants are ICE() (base.h).
 * A message may be followed by notes that point at the other side: another source line, or a
 * place in a file that has no text (a tensor or key of a weights file).
 */
#ifndef LAP_IR_DIAG_H
#define LAP_IR_DIAG_H

#include "ir/base.h"
#include <stdio.h>

/* A range on one source line. line and column are 1-based and count bytes; `end` is the column just
 * past the range (a range over several lines is cut at the end of the first). file 0: no place. */
typedef struct SrcLoc {
    int file; /* from diag_source(); 0 = none */
    int line; /* 1-based; 0 = the file as a whole */
    int col;
    int end;
} SrcLoc;

static const SrcLoc NO_LOC = {0, 0, 0, 0};

typedef enum DiagKind { DIAG_ERROR, DIAG_WARNING, DIAG_NOTE } DiagKind;

typedef struct DiagMessage {
    DiagKind kind;
    SrcLoc at;
    const char *text;
} DiagMessage;

typedef struct Diag Diag;

Diag *diag_new(void);
void diag_free(Diag *d);

/* Registers a source. text may be NULL (places are then printed without the line); it is copied.
 * The same name with the same text gives the same number. Numbers start at 1. */
int diag_source(Diag *d, const char *name, const char *text, size_t len);
const char *diag_source_name(const Diag *d, int file);

__attribute__((format(printf, 3, 4))) void diag_error(Diag *d, SrcLoc at, const char *fmt, ...);
__attribute__((format(printf, 3, 4))) void diag_warning(Diag *d, SrcLoc at, const char *fmt, ...);
/* As diag_error(), for what the machine refuses: memory, files, devices. */
__attribute__((format(printf, 3, 4))) void diag_system(Diag *d, SrcLoc at, const char *fmt, ...);
/* Belongs to the message before it. */
__attribute__((format(printf, 3, 4))) void diag_note(Diag *d, SrcLoc at, const char *fmt, ...);

int diag_errors(const Diag *d); /* those of diag_system() too */
int diag_system_errors(const Diag *d);
int diag_count(const Diag *d);
const DiagMessage *diag_message(const Diag *d, int i); /* below diag_count(), in order of report */
const char *diag_word(DiagKind kind);                  /* "error" */
/* True when so many errors came that going on helps nobody (20). */
bool diag_full(const Diag *d);

/* Prints every message in order of report; colours only if asked. */
void diag_print(const Diag *d, FILE *out, bool colour);
/* The same as text, no colours; free() it. */
char *diag_text(const Diag *d);
void diag_clear(Diag *d); /* forgets the messages, keeps the sources */

/* "Did you mean": the candidate nearest to `name` by edit distance, or NULL if none is near.
 * Feed candidates one after another. */
typedef struct Nearest {
    Str name;
    const char *best;
    int distance;
} Nearest;

Nearest nearest_new(Str name);
void nearest_try(Nearest *n, const char *candidate);
const char *nearest_best(const Nearest *n); /* NULL: nothing near enough */

#endif
