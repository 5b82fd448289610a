/* modelfile.c - lookups in the metadata and tensors of a weights file. */
#include "ir/modelfile.h"

void modelfile_index(ModelFile *f, Arena *a) {
    f->meta_index = namemap_new(a);
    for (int i = 0; i < f->n_meta; i++)
        namemap_put(f->meta_index, f->meta[i].key, i);
    f->tensor_index = namemap_new(a);
    for (int i = 0; i < f->n_tensors; i++)
        namemap_put(f->tensor_index, f->tensors[i].name, i);
}

ModelReads *modelreads_new(Arena *a) {
    ModelReads *r = arena_alloc(a, sizeof *r);
    r->arena = a;
    for (int i = READ_KEYS; i <= READ_TENSORS; i++)
        r->known[i] = namemap_new(a);
    return r;
}

static void note(ModelReads *r, int what, const char *name) {
    if (!r || namemap_get(r->known[what], name) >= 0)
        return;
    const char *copy = arena_strdup(r->arena, name);
    namemap_put(r->known[what], copy, 0);
    vec_push(r->arena, &r->names[what], copy);
}

const MetaValue *modelfile_meta(const ModelFile *f, const char *key) {
    note(f->reads, READ_KEYS, key);
    int i = namemap_get(f->meta_index, key);
    return i < 0 ? NULL : &f->meta[i].value;
}

const TensorInfo *modelfile_tensor(const ModelFile *f, const char *name) {
    note(f->reads, READ_TENSORS, name);
    int i = namemap_get(f->tensor_index, name);
    return i < 0 ? NULL : &f->tensors[i];
}
