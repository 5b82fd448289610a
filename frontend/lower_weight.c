/* lower_weight.c - binding names to tensors of a weights file: they must exist, be of a known storage
 * type, and have the shape the text asks for. A mismatch shows both shapes and where each comes from. */
#include "frontend/lower.h"

#include <string.h>

static Type tensor_type(const TensorInfo *t) {
    return type_make(t->dtype, t->rank, t->dims);
}

static const char *tensor_text(Lower *L, const TensorInfo *t) {
    if (t->dtype == DT_COUNT)
        return arena_printf(L->arena, "of storage type %u", t->file_type);
    Type type = tensor_type(t);
    return type_text(L->arena, &type);
}

void l_note_tensor(Lower *L, const ModelFile *file, const TensorInfo *t) {
    l_note(L, l_file(L, file), "tensor '%s' is %s", t->name, tensor_text(L, t));
}

void l_missing_tensor(Lower *L, const ModelFile *file, Str name, SrcLoc at) {
    Nearest near = nearest_new(name);
    for (int i = 0; i < file->n_tensors; i++)
        nearest_try(&near, file->tensors[i].name);
    l_error(L, at, "no tensor '%.*s'", STR_FMT(name));
    l_note(L, l_file(L, file), "this file has no tensor of that name");
    l_note_near(L, at, &near);
}

/* "[1024, ?]" */
static const char *want_text(Lower *L, const Want *w) {
    Buf b = {0};
    buf_char(&b, '[');
    for (int i = 0; i < w->rank; i++) {
        buf_str(&b, i ? ", " : "");
        if (w->dim[i] < 0)
            buf_char(&b, '?');
        else
            buf_printf(&b, "%lld", (long long)w->dim[i]);
    }
    buf_char(&b, ']');
    const char *s = arena_strdup(L->arena, b.s);
    buf_free(&b);
    return s;
}

/* Notes the places in the text that fix the dimensions which do not fit. */
static void note_wants(Lower *L, const Want *want, const Type *have) {
    for (int i = 0; i < want->rank; i++) {
        bool differs = have->rank != want->rank || want->dim[i] != have->dim[i];
        if (want->dim[i] >= 0 && want->what[i] && differs)
            l_note(L, want->why[i], "%lld is %s", (long long)want->dim[i], want->what[i]);
    }
}

static bool fits(const Want *want, const Type *have) {
    bool ok = want->rank == have->rank;
    for (int i = 0; ok && i < want->rank; i++)
        ok = want->dim[i] < 0 || want->dim[i] == have->dim[i];
    return ok;
}

bool l_weight_fits(Lower *L, int weight, SrcLoc at, const Want *want) {
    const Weight *w = &L->m->weights.v[weight];
    if (!want || fits(want, &w->type))
        return true;
    const char *have = type_text(L->arena, &w->type);
    bool scalar = w->type.rank == 0;
    l_error(L, at, "tensor '%s' has shape %s where %s is needed", w->name, scalar ? "[]" : strchr(have, '['),
            want_text(L, want));
    note_wants(L, want, &w->type);
    SrcLoc file = w->file ? (SrcLoc){.file = diag_source(L->diag, w->file, NULL, 0)} : w->loc;
    l_note(L, file, "tensor '%s' is %s", w->name, have);
    return false;
}

int l_weight(Lower *L, Str name, bool target, SrcLoc at, const Want *want) {
    const ModelFile *f = l_model_file(L, target, at);
    const char *s = arena_strndup(L->arena, name.s, name.n);
    if (!f)
        return -1;
    const TensorInfo *t = modelfile_tensor(f, s);
    if (!t) {
        l_missing_tensor(L, f, name, at);
        return -1;
    }
    if (t->dtype == DT_COUNT) {
        l_error(L, at, "tensor '%s' has a storage type this program does not know", t->name);
        l_note_tensor(L, f, t);
        return -1;
    }
    Weight w = {.name = target ? arena_printf(L->arena, "target.%s", s) : s,
                .type = tensor_type(t),
                .from = target ? L->m->target : NULL,
                .file = f->path,
                .loc = at};
    int known = module_weight(L->m, w.name);
    if (known >= 0 && (L->m->weights.v[known].from != NULL) != target) {
        l_error(L, at, "the file and the target both have a tensor that would be called '%s'", w.name);
        return -1;
    }
    int i = known >= 0 ? known : module_add_weight(L->m, w);
    return l_weight_fits(L, i, at, want) ? i : -1;
}
