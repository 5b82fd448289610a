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

const MetaValue *modelfile_meta(const ModelFile *f, const char *key) {
    int i = namemap_get(f->meta_index, key);
    return i < 0 ? NULL : &f->meta[i].value;
}

const TensorInfo *modelfile_tensor(const ModelFile *f, const char *name) {
    int i = namemap_get(f->tensor_index, name);
    return i < 0 ? NULL : &f->tensors[i];
}
