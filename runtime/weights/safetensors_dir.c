/* safetensors_dir.c - a safetensors model of several files: config.json, and the tensors in
 * model.safetensors or in the shards that model.safetensors.index.json lists.
 *
 * The index maps tensor names to file names. File names must be plain, so that an index cannot
 * reach outside its folder; every tensor it lists must be in the shard it names. Tensors of a shard
 * that the index leaves out are kept, as other readers do.
 */
#include "runtime/weights/json.h"
#include "runtime/weights/weights_int.h"

#include <string.h>

#define SAFETENSORS_INDEX "model.safetensors.index.json"

enum { MAX_INDEX = 100000000, MAX_NAME = 65535, MAX_FILE_NAME = 255 };

typedef struct Shards {
    Arena *arena;
    const char *dir;
    SrcLoc at;      /* the index */
    NameMap *known; /* file name -> shard */
    VEC(const char *) names;
    Diag *diag;
} Shards;

/* ==== config.json ==== */

/* The file's own metadata follows the configuration's. */
static bool use_config(Weights *w, const char *config, const ModelFile *part, Diag *diag) {
    MetaEntries meta = {0};
    if (config && !hf_config_read(w->arena, config, diag, &meta, &w->file.arch))
        return false;
    for (int i = 0; i < part->n_meta; i++)
        vec_push(w->arena, &meta, part->meta[i]);
    w->file.meta = meta.v;
    w->file.n_meta = meta.n;
    return true;
}

bool safetensors_finish(Weights *w, const ModelFile *part, Diag *diag) {
    const char *slash = strrchr(part->path, '/');
    size_t dir = slash ? (size_t)(slash - part->path) + 1 : 0;
    const char *config = arena_printf(w->arena, "%.*sconfig.json", (int)dir, part->path);
    w->file = *part;
    return use_config(w, file_exists(config) ? config : NULL, part, diag);
}

/* ==== Index ==== */

bool safetensors_is_index(const char *path) {
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, SAFETENSORS_INDEX) == 0;
}

static bool plain_name(const char *s) {
    return !name_problem((Str){s, strlen(s)}, MAX_FILE_NAME) && !strchr(s, '/') && strcmp(s, ".") != 0 &&
           strcmp(s, "..") != 0;
}

/* Collects the shards' names, in order of first use. */
static bool list_shards(Shards *s, json_t *weight_map) {
    const char *tensor;
    json_t *value;
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0) {
        diag_error(s->diag, s->at, "'weight_map' must be an object that maps tensors to files");
        return false;
    }
    json_object_foreach(weight_map, tensor, value) {
        const char *file = json_string_value(value);
        const char *problem = name_problem((Str){tensor, strlen(tensor)}, MAX_NAME);
        if (problem) {
            diag_error(s->diag, s->at, "'weight_map': the name of a tensor %s", problem);
            return false;
        }
        if (!file || !plain_name(file)) {
            diag_error(s->diag, s->at, "tensor '%s': its file must be a plain file name", tensor);
            return false;
        }
        if (namemap_get(s->known, file) < 0) {
            const char *name = arena_strdup(s->arena, file);
            namemap_put(s->known, name, s->names.n);
            vec_push(s->arena, &s->names, name);
        }
    }
    return true;
}

/* Every tensor of the index is in the shard it names. */
static bool check_map(const Shards *s, json_t *weight_map, const ModelFile *parts) {
    const char *tensor;
    json_t *value;
    json_object_foreach(weight_map, tensor, value) {
        const char *file = json_string_value(value);
        if (!modelfile_tensor(&parts[namemap_get(s->known, file)], tensor)) {
            diag_error(s->diag, s->at, "tensor '%s': is not in %s", tensor, file);
            return false;
        }
    }
    return true;
}

/* Maps and reads one file that the index lists. */
static bool read_shard(Weights *w, Shards *s, const char *name, ModelFile *out) {
    FileView f;
    const char *path = arena_printf(w->arena, "%s/%s", s->dir, name);
    if (!weights_map(w, path, &f, s->diag)) {
        diag_note(s->diag, s->at, "the file is listed here");
        return false;
    }
    return safetensors_read(w->arena, f, s->diag, out);
}

static bool read_shards(Weights *w, Shards *s, json_t *root, const char *config) {
    json_t *weight_map = json_object_get(root, "weight_map");
    if (!list_shards(s, weight_map))
        return false;
    ModelFile *parts = arena_array(w->arena, (size_t)s->names.n, sizeof *parts);
    for (int i = 0; i < s->names.n; i++)
        if (!read_shard(w, s, s->names.v[i], &parts[i]))
            return false;
    return check_map(s, weight_map, parts) && weights_join(w, parts, s->names.n, s->diag) &&
           use_config(w, config, &parts[0], s->diag);
}

static bool open_index(Weights *w, const char *dir, const char *index, const char *config, Diag *diag) {
    Shards s = {
        .arena = w->arena,
        .dir = dir,
        .at = file_loc(diag, index),
        .known = namemap_new(w->arena),
        .diag = diag,
    };
    json_t *root = json_read_file(index, MAX_INDEX, diag);
    if (!root)
        return false;
    bool ok = read_shards(w, &s, root, config);
    json_decref(root);
    return ok;
}

/* ==== Folder ==== */

const char *safetensors_in(Arena *a, const char *dir) {
    const char *single = arena_printf(a, "%s/model.safetensors", dir);
    const char *index = arena_printf(a, "%s/" SAFETENSORS_INDEX, dir);
    return file_exists(single) ? single : file_exists(index) ? index : NULL;
}

bool safetensors_open_model(Weights *w, const char *path, Diag *diag) {
    const char *slash = strrchr(path, '/');
    const char *dir = slash ? arena_strndup(w->arena, path, (size_t)(slash - path)) : ".";
    const char *config = arena_printf(w->arena, "%s/config.json", dir);
    if (!file_exists(config)) {
        diag_error(diag, file_loc(diag, dir), "the folder has no config.json");
        return false;
    }
    if (safetensors_is_index(path))
        return open_index(w, dir, path, config, diag);
    FileView f;
    ModelFile part = {0};
    if (!weights_map(w, path, &f, diag) || !safetensors_read(w->arena, f, diag, &part))
        return false;
    w->file.tensors = part.tensors;
    w->file.n_tensors = part.n_tensors;
    return use_config(w, config, &part, diag);
}
