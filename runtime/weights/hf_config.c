/* hf_config.c - the config.json beside safetensors files, as metadata.
 *
 * Nested objects become dotted keys ("dflash_config.mask_token_id"). A list becomes an array when
 * its members are all strings, all booleans or all numbers (integers and others mixed are floats);
 * other lists and null say nothing that a model text could ask for and are left out. The
 * architecture is the first of `architectures`, else `model_type`.
 */
#include "runtime/weights/json.h"
#include "runtime/weights/weights_int.h"

#include <string.h>

/* Together they bound the memory that dotted keys take: a long outer name is repeated in each key. */
enum { MAX_CONFIG = 4 << 20, MAX_KEY = 255 };

typedef struct Config {
    Arena *arena;
    Diag *diag;
    SrcLoc at;
    MetaEntries *meta;
    NameMap *seen;
} Config;

/* META_INT for an empty list; false when the members have no common kind. */
static bool common_kind(json_t *const *v, size_t n, MetaKind *out) {
    size_t ints = 0, reals = 0, bools = 0, strings = 0;
    for (size_t i = 0; i < n; i++) {
        ints += json_is_integer(v[i]);
        reals += json_is_real(v[i]);
        bools += json_is_boolean(v[i]);
        strings += json_is_string(v[i]);
    }
    *out = strings ? META_STRING : bools ? META_BOOL : reals ? META_FLOAT : META_INT;
    return ints == n || ints + reals == n || bools == n || strings == n;
}

static void convert(Arena *a, json_t *const *v, size_t n, MetaValue *out) {
    int64_t *ints = NULL;
    double *floats = NULL;
    Str *strings = NULL;
    if (out->kind == META_STRING)
        out->s = strings = arena_array(a, n, sizeof *strings);
    else if (out->kind == META_FLOAT)
        out->f = floats = arena_array(a, n, sizeof *floats);
    else
        out->i = ints = arena_array(a, n, sizeof *ints);
    for (size_t i = 0; i < n; i++) {
        if (strings)
            strings[i] = json_str(a, v[i]);
        else if (floats)
            floats[i] = json_number_value(v[i]);
        else
            ints[i] = out->kind == META_BOOL ? json_is_true(v[i]) : json_integer_value(v[i]);
    }
}

static bool add_value(Config *c, const char *key, json_t *value) {
    MetaEntry e = {.key = key};
    if (json_is_array(value)) {
        size_t n = json_array_size(value);
        json_t **v = arena_array(c->arena, n, sizeof *v);
        for (size_t i = 0; i < n; i++)
            v[i] = json_array_get(value, i);
        if (!common_kind(v, n, &e.value.kind))
            return true;
        e.value.is_array = true;
        e.value.n = (int64_t)n;
        convert(c->arena, v, n, &e.value);
    } else if (common_kind(&value, 1, &e.value.kind)) {
        e.value.n = 1;
        convert(c->arena, &value, 1, &e.value);
    } else {
        return true; /* null */
    }
    if (namemap_get(c->seen, key) >= 0) {
        diag_error(c->diag, c->at, "key '%s': is in the file twice (once as a dotted name)", key);
        return false;
    }
    namemap_put(c->seen, key, c->meta->n);
    vec_push(c->arena, c->meta, e);
    return true;
}

/* Recursion is bounded by json_read(), which limits nesting. */
static bool flatten(Config *c, const char *prefix, json_t *object) {
    const char *name;
    json_t *value;
    size_t used = strlen(prefix);
    size_t room = used < MAX_KEY ? MAX_KEY - used : 0;
    json_object_foreach(object, name, value) {
        const char *problem = name_problem((Str){name, strlen(name)}, room);
        const char *key = problem ? NULL : arena_printf(c->arena, "%s%s", prefix, name);
        if (!key) {
            diag_error(c->diag, c->at, "the name of a key %s", problem);
            return false;
        }
        bool ok =
            json_is_object(value) ? flatten(c, arena_printf(c->arena, "%s.", key), value) : add_value(c, key, value);
        if (!ok)
            return false;
    }
    return true;
}

/* Copied, and "" unless it can be shown as a name. */
static const char *config_arch(Arena *a, const json_t *root) {
    const char *arch = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    if (!arch)
        arch = json_string_value(json_object_get(root, "model_type"));
    if (!arch || name_problem((Str){arch, strlen(arch)}, MAX_KEY))
        return "";
    return arena_strdup(a, arch);
}

bool hf_config_read(Arena *a, const char *path, Diag *diag, MetaEntries *meta, const char **arch) {
    json_t *root = json_read_file(path, MAX_CONFIG, diag);
    if (!root)
        return false;
    Config c = {a, diag, file_loc(diag, path), meta, namemap_new(a)};
    *arch = config_arch(a, root);
    bool ok = flatten(&c, "", root);
    json_decref(root);
    return ok;
}
