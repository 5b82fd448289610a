/* folder.c - which weights a folder holds: the one safetensors model, or the one GGUF model.
 *
 * Of several none is chosen, since nothing says which was meant: the error names them. The files of a split GGUF are
 * one model. Whose names begin with a point, and folders within, do not count; nor do safetensors of other names.
 */
#define _GNU_SOURCE
#include "runtime/weights/weights_int.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int is_gguf(const struct dirent *d) {
    return d->d_name[0] != '.' && d->d_type != DT_DIR && ends_with(d->d_name, ".gguf");
}

/* m-00002-of-00003.gguf and m-00003-of-00003.gguf. */
static bool same_split(const char *a, const char *b) {
    const size_t stem = gguf_split_stem(a), of = stem + strlen("-00002");
    return stem && gguf_split_stem(b) == stem && strncmp(a, b, stem) == 0 && strcmp(a + of, b + of) == 0;
}

static void add_gguf(Weights *w, Paths *all, const char *path) {
    for (int i = 0; i < all->n; i++)
        if (same_split(all->v[i], path))
            return;
    vec_push(w->arena, all, path);
}

static bool list_gguf(Weights *w, const char *dir, Paths *out, Diag *diag) {
    struct dirent **names = NULL;
    const int n = scandir(dir, &names, is_gguf, alphasort);
    if (n < 0) {
        diag_error(diag, file_loc(diag, dir), "cannot read the folder: %s", strerror(errno));
        return false;
    }
    for (int i = 0; i < n; i++) {
        add_gguf(w, out, arena_printf(w->arena, "%s/%s", dir, names[i]->d_name));
        free(names[i]);
    }
    free(names);
    return true;
}

static void say_which(const Paths *all, const char *dir, Diag *diag) {
    Buf list = {0};
    for (int i = 0; i < all->n; i++)
        buf_printf(&list, "%s%s", i == 0 ? "" : i + 1 < all->n ? ", " : " and ", all->v[i]);
    diag_error(diag, file_loc(diag, dir), "the folder holds %d models; name one of them: %s", all->n, list.s);
    buf_free(&list);
}

const char *folder_choose(Weights *w, const char *dir, Diag *diag) {
    const char *safetensors = safetensors_in(w->arena, dir);
    Paths all = {0};
    if (safetensors)
        vec_push(w->arena, &all, safetensors);
    if (!list_gguf(w, dir, &all, diag))
        return NULL;
    if (all.n == 1)
        return all.v[0];
    if (all.n == 0)
        diag_error(diag, file_loc(diag, dir),
                   "the folder has neither model.safetensors nor model.safetensors.index.json nor a .gguf");
    else
        say_which(&all, dir, diag);
    return NULL;
}
