/* gguf_split.c - a model in several GGUF files.
 *
 * The files are called NAME-00001-of-00003.gguf and so on; each has split.no (from 0), split.count
 * and split.tensors.count (of the whole model), its own tensors and its own alignment. The first
 * part carries the metadata; the others may repeat its keys but not add to or contradict them.
 */
#include "runtime/weights/weights_int.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_PARTS = 99999 }; /* five digits in the names */

typedef struct SplitKeys {
    int64_t no, count;
    int64_t tensors; /* -1: not said */
} SplitKeys;

static bool split_key(const ModelFile *f, const char *key, int64_t absent, int64_t *out, Diag *diag) {
    const MetaValue *v = modelfile_meta(f, key);
    *out = absent;
    if (!v)
        return true;
    if (v->kind != META_INT || v->is_array || v->i[0] < 0) {
        diag_error(diag, file_loc(diag, f->path), "key '%s': must be one integer, not negative", key);
        return false;
    }
    *out = v->i[0];
    return true;
}

/* A file that is no part of a split reads as part 0 of 1. */
static bool read_split_keys(const ModelFile *f, SplitKeys *out, Diag *diag) {
    if (!split_key(f, "split.no", 0, &out->no, diag) || !split_key(f, "split.count", 1, &out->count, diag) ||
        !split_key(f, "split.tensors.count", -1, &out->tensors, diag))
        return false;
    if (out->count > MAX_PARTS) {
        diag_error(diag, file_loc(diag, f->path), "key 'split.count': %" PRId64 " parts; the limit is %d", out->count,
                   MAX_PARTS);
        return false;
    }
    if (out->count == 0) /* how some writers say "not split" */
        out->count = 1;
    if (out->no >= out->count) {
        diag_error(diag, file_loc(diag, f->path),
                   "key 'split.no': is %" PRId64 ", but there are %" PRId64 " parts (counted from 0)", out->no,
                   out->count);
        return false;
    }
    return true;
}

/* "-00002-of-00003.gguf" for part 1 of 3. */
static const char *part_suffix(Arena *a, int64_t no, int64_t count) {
    return arena_printf(a, "-%05" PRId64 "-of-%05" PRId64 ".gguf", no + 1, count);
}

size_t gguf_split_stem(const char *path) {
    static const char form[] = "-#####-of-#####.gguf";
    const size_t n = strlen(path), m = sizeof form - 1;
    if (n <= m)
        return 0;
    for (size_t i = 0; i < m; i++) {
        const char c = path[n - m + i];
        if (form[i] == '#' ? c < '0' || c > '9' : c != form[i])
            return 0;
    }
    return n - m;
}

static bool same_value(const MetaValue *a, const MetaValue *b) {
    if (a->kind != b->kind || a->is_array != b->is_array || a->n != b->n)
        return false;
    for (int64_t i = 0; i < a->n; i++) {
        bool same = a->kind == META_STRING  ? str_same(a->s[i], b->s[i])
                    : a->kind == META_FLOAT ? a->f[i] == b->f[i]
                                            : a->i[i] == b->i[i];
        if (!same)
            return false;
    }
    return true;
}

static bool check_part(const ModelFile *first, const SplitKeys *whole, const ModelFile *part, int64_t no, Diag *diag) {
    SplitKeys s;
    SrcLoc at = file_loc(diag, part->path);
    if (!read_split_keys(part, &s, diag))
        return false;
    if (s.no != no || s.count != whole->count) {
        diag_error(diag, at, "says it is part %" PRId64 " of %" PRId64 ", its name says part %" PRId64 " of %" PRId64,
                   s.no + 1, s.count, no + 1, whole->count);
        return false;
    }
    for (int i = 0; i < part->n_meta; i++) {
        const MetaEntry *e = &part->meta[i];
        if (strcmp(e->key, "split.no") == 0 || strcmp(e->key, "general.alignment") == 0)
            continue;
        const MetaValue *v = modelfile_meta(first, e->key);
        if (v && same_value(v, &e->value))
            continue;
        diag_error(diag, at, v ? "key '%s': differs from the first part" : "key '%s': the first part does not have it",
                   e->key);
        diag_note(diag, file_loc(diag, first->path), "the first part is this");
        return false;
    }
    return true;
}

/* The path of the opened part without its suffix, or NULL. */
static const char *path_stem(Weights *w, const ModelFile *opened, const SplitKeys *s, Diag *diag) {
    const char *suffix = part_suffix(w->arena, s->no, s->count);
    size_t n = strlen(opened->path);
    size_t m = strlen(suffix);
    if (n >= m && strcmp(opened->path + n - m, suffix) == 0)
        return arena_strndup(w->arena, opened->path, n - m);
    diag_error(diag, file_loc(diag, opened->path),
               "is part %" PRId64 " of %" PRId64
               ", but its name does not end in %s, so the other parts cannot be found",
               s->no + 1, s->count, suffix);
    return NULL;
}

static bool read_siblings(Weights *w, const ModelFile *opened, const SplitKeys *s, ModelFile *parts, Diag *diag) {
    const char *stem = path_stem(w, opened, s, diag);
    if (!stem)
        return false;
    for (int64_t i = 0; i < s->count; i++) {
        FileView f;
        if (i == s->no) {
            parts[i] = *opened;
            continue;
        }
        const char *path = arena_printf(w->arena, "%s%s", stem, part_suffix(w->arena, i, s->count));
        if (!weights_map(w, path, &f, diag)) {
            diag_note(diag, file_loc(diag, opened->path), "this is part %" PRId64 " of a model of %" PRId64 " files",
                      s->no + 1, s->count);
            return false;
        }
        if (!gguf_read(w->arena, f, diag, &parts[i]))
            return false;
    }
    return true;
}

bool gguf_finish(Weights *w, const ModelFile *part, Diag *diag) {
    SplitKeys s;
    if (!read_split_keys(part, &s, diag))
        return false;
    const char *path = w->file.path;
    if (s.count == 1) {
        w->file = *part;
        return true;
    }
    ModelFile *parts = arena_array(w->arena, (size_t)s.count, sizeof *parts);
    if (!read_siblings(w, part, &s, parts, diag))
        return false;
    for (int64_t i = 0; i < s.count; i++)
        if (!check_part(&parts[0], &s, &parts[i], i, diag))
            return false;
    w->file = parts[0];
    w->file.path = path;
    if (!weights_join(w, parts, (int)s.count, diag))
        return false;
    if (s.tensors >= 0 && s.tensors != w->file.n_tensors) {
        diag_error(diag, file_loc(diag, path),
                   "key 'split.tensors.count': says %" PRId64 " tensors, but the %" PRId64 " parts hold %d", s.tensors,
                   s.count, w->file.n_tensors);
        return false;
    }
    return true;
}
