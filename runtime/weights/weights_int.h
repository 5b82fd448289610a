/* weights_int.h - what the readers of weight files share. Private to this folder.
 *
 * A reader gets a FileView and fills a ModelFile; it never opens files. Opening, mapping and
 * putting several files together is done around it, so that the readers run on plain memory in
 * tests and under a fuzzer. Every function here that is given diag has reported to it when it returns false or NULL.
 */
#ifndef LAP_WEIGHTS_INT_H
#define LAP_WEIGHTS_INT_H

#include "runtime/weights/weights.h"

/* The bytes of a file and the name to call it by. */
typedef struct FileView {
    const char *path;
    const uint8_t *data;
    size_t size;
} FileView;

typedef VEC(FileView) FileViews;
typedef VEC(MetaEntry) MetaEntries;
typedef VEC(const char *) Paths;

struct Weights {
    Arena *arena;   /* names, decoded metadata, the arrays of `file` */
    FileViews maps; /* mapped files, unmapped on close; empty when parsed from memory */
    ModelFile file;
};

/* ==== weights.c ==== */

Weights *weights_new(void);

/* Maps a file that holds tensors and keeps it until weights_close(). */
bool weights_map(Weights *w, const char *path, FileView *out, Diag *diag);

/* Puts the tensors of all parts into w->file (no name twice); its metadata is left alone. */
bool weights_join(Weights *w, const ModelFile *parts, int n_parts, Diag *diag);

/* ==== files.c ==== */

/* The place "file PATH as a whole" for a message. */
SrcLoc file_loc(Diag *diag, const char *path);

/* Maps a nonempty regular file for reading. When is_dir is given, a directory is no error: it is
 * set and nothing is mapped. file_unmap() undoes it. */
bool file_map(const char *path, FileView *out, bool *is_dir, Diag *diag);
void file_unmap(FileView f);
bool file_exists(const char *path);

/* An unsigned little-endian number of 1..8 bytes, at any alignment. */
static inline uint64_t load_le(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* ==== names.c ==== */

/* NULL when the name may be used as a C string and shown to people: 1..max bytes of UTF-8 without
 * control characters. Otherwise what is wrong, to follow "its name ". */
const char *name_problem(Str name, size_t max);

/* ==== folder.c ==== */

/* The path of the one model in the folder, a .gguf (any part of a split) or one of safetensors_in(). */
const char *folder_choose(Weights *w, const char *dir, Diag *diag);

/* ==== gguf*.c ==== */

bool gguf_read(Arena *a, FileView f, Diag *diag, ModelFile *out);

/* `part` was read from w's first mapped file. Completes w->file: the part alone, or with all its
 * siblings when it is one of a split. */
bool gguf_finish(Weights *w, const ModelFile *part, Diag *diag);

/* ==== safetensors*.c, hf_config.c ==== */

/* Metadata: the file's own string map, as `__metadata__.KEY`. */
bool safetensors_read(Arena *a, FileView f, Diag *diag, ModelFile *out);

/* Completes w->file from one file, with the config.json beside it if there is one. */
bool safetensors_finish(Weights *w, const ModelFile *part, Diag *diag);

/* The path of the folder's model.safetensors, else of its index; NULL: it has neither. */
const char *safetensors_in(Arena *a, const char *dir);

/* Is called as an index is: model.safetensors.index.json. */
bool safetensors_is_index(const char *path);

/* model.safetensors, or the shards of an index, with the config.json beside it, which must be there. */
bool safetensors_open_model(Weights *w, const char *path, Diag *diag);

/* Reads a config.json into metadata; *arch is "" when it names none. */
bool hf_config_read(Arena *a, const char *path, Diag *diag, MetaEntries *meta, const char **arch);

#endif
