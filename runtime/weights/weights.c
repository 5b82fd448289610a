/* weights.c - opening a model by what its bytes say, and putting its files together.
 *
 * A file's first bytes decide which reader gets it. The extension counts only when the bytes say
 * nothing, so that a damaged model.gguf gets the GGUF reader's message and not a general one.
 */
#include "runtime/weights/weights_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

Weights *weights_new(void) {
    Arena *a = arena_new();
    Weights *w = arena_alloc(a, sizeof *w);
    w->arena = a;
    w->file.path = w->file.arch = "";
    return w;
}

void weights_close(Weights *w) {
    if (!w)
        return;
    for (int i = 0; i < w->maps.n; i++)
        file_unmap(w->maps.v[i]);
    arena_free(w->arena); /* w itself lives there */
}

const ModelFile *weights_file(const Weights *w) {
    return &w->file;
}

uint64_t weights_bytes(const Weights *w) {
    uint64_t n = 0;
    for (int i = 0; i < w->maps.n; i++)
        n += w->maps.v[i].size;
    return n;
}

bool weights_map(Weights *w, const char *path, FileView *out, Diag *diag) {
    if (!file_map(path, out, NULL, diag))
        return false;
    vec_push(w->arena, &w->maps, *out);
    return true;
}

bool weights_join(Weights *w, const ModelFile *parts, int n_parts, Diag *diag) {
    int64_t total = 0;
    for (int i = 0; i < n_parts; i++)
        total += parts[i].n_tensors;
    if (total > INT_MAX) {
        diag_error(diag, file_loc(diag, w->file.path), "the files hold more than %d tensors", INT_MAX);
        return false;
    }
    TensorInfo *all = arena_array(w->arena, (size_t)total, sizeof *all);
    NameMap *owner = namemap_new(w->arena); /* tensor -> part */
    int n = 0;
    bool ok = true;
    for (int i = 0; i < n_parts; i++) {
        for (int j = 0; j < parts[i].n_tensors && !diag_full(diag); j++) {
            const TensorInfo *t = &parts[i].tensors[j];
            int other = namemap_get(owner, t->name);
            if (other >= 0) {
                diag_error(diag, file_loc(diag, parts[i].path), "tensor '%s': is also in %s", t->name,
                           parts[other].path);
                ok = false;
            }
            namemap_put(owner, t->name, i);
            all[n++] = *t;
        }
    }
    w->file.tensors = all;
    w->file.n_tensors = n;
    return ok;
}

/* ==== Open ==== */

typedef enum Format { FORMAT_GGUF, FORMAT_SAFETENSORS, FORMAT_JSON, FORMAT_UNKNOWN } Format;

static Format format_of(FileView f) {
    if (f.size >= 4 && memcmp(f.data, "GGUF", 4) == 0)
        return FORMAT_GGUF;
    if (f.size >= 9 && f.data[8] == '{' && f.data[7] == 0)
        return FORMAT_SAFETENSORS;
    if (ends_with(f.path, ".gguf"))
        return FORMAT_GGUF;
    if (ends_with(f.path, ".safetensors"))
        return FORMAT_SAFETENSORS;
    return f.data[0] == '{' ? FORMAT_JSON : FORMAT_UNKNOWN;
}

static bool open_file(Weights *w, FileView f, Diag *diag) {
    ModelFile part = {0};
    switch (format_of(f)) {
    case FORMAT_GGUF: return gguf_read(w->arena, f, diag, &part) && gguf_finish(w, &part, diag);
    case FORMAT_SAFETENSORS: return safetensors_read(w->arena, f, diag, &part) && safetensors_finish(w, &part, diag);
    case FORMAT_JSON:
        diag_error(diag, file_loc(diag, f.path),
                   "is JSON, not weights; a model of several files is opened by its folder");
        return false;
    case FORMAT_UNKNOWN: break;
    }
    diag_error(diag, file_loc(diag, f.path),
               "is neither GGUF (which starts with the letters GGUF) nor safetensors "
               "(a length of 8 bytes, then a JSON object)");
    return false;
}

static bool open_any(Weights *w, const char *path, Diag *diag) {
    bool is_dir;
    FileView f;
    if (!file_map(path, &f, &is_dir, diag))
        return false;
    if (is_dir) {
        path = folder_choose(w, path, diag);
        if (!path || !ends_with(path, ".gguf"))
            return path && safetensors_open_model(w, path, diag);
        return weights_map(w, path, &f, diag) && open_file(w, f, diag);
    }
    if (safetensors_is_index(path)) {
        file_unmap(f);
        return safetensors_open_model(w, path, diag);
    }
    vec_push(w->arena, &w->maps, f);
    return open_file(w, f, diag);
}

Weights *weights_open(const char *path, Diag *diag) {
    Weights *w = weights_new();
    w->file.path = arena_strdup(w->arena, path);
    if (!open_any(w, w->file.path, diag)) {
        weights_close(w);
        return NULL;
    }
    modelfile_index(&w->file, w->arena);
    return w;
}

typedef bool (*ReadFn)(Arena *a, FileView f, Diag *diag, ModelFile *out);

static Weights *parse_memory(ReadFn read, const void *data, size_t size, const char *path, Diag *diag) {
    Weights *w = weights_new();
    FileView f = {.path = arena_strdup(w->arena, path), .data = data, .size = size};
    if (!read(w->arena, f, diag, &w->file)) {
        weights_close(w);
        return NULL;
    }
    return w;
}

Weights *gguf_parse(const void *data, size_t size, const char *path, Diag *diag) {
    return parse_memory(gguf_read, data, size, path, diag);
}

Weights *safetensors_parse(const void *data, size_t size, const char *path, Diag *diag) {
    return parse_memory(safetensors_read, data, size, path, diag);
}
