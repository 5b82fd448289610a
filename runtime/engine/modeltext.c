/* modeltext.c - reading model texts from files, choosing a built-in one by architecture. */
#include "runtime/engine/modeltext.h"
#include "models/models.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Far above any real text; keeps a wrongly named weights file from being read whole. */
#define MAX_TEXT ((size_t)16 << 20)

static bool read_all(FILE *f, Buf *out) {
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, f)) > 0 && out->n <= MAX_TEXT)
        buf_bytes(out, block, n);
    return !ferror(f);
}

bool text_read(Arena *a, Diag *diag, const char *path, TextSource *out) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        diag_error(diag, NO_LOC, "cannot open %s: %s", path, strerror(errno));
        return false;
    }
    Buf b = {0};
    bool ok = read_all(f, &b);
    if (!ok)
        diag_error(diag, NO_LOC, "cannot read %s: %s", path, strerror(errno));
    fclose(f);
    if (ok && b.n > MAX_TEXT) {
        diag_error(diag, NO_LOC, "%s is larger than %zu MiB: not a model text", path, MAX_TEXT >> 20);
        ok = false;
    }
    if (ok)
        *out = (TextSource){path, arena_strndup(a, b.s ? b.s : "", b.n), b.n};
    buf_free(&b);
    return ok;
}

bool text_for_weights(Arena *a, Diag *diag, const ModelFile *file, const char *option, TextSource *out) {
    Buf known = {0};
    for (int i = 0; i < n_model_texts; i++) {
        const EmbeddedText *t = &model_texts[i];
        FeHead head;
        if (!fe_head(a, t->text, t->len, &head))
            continue;
        if (fe_archs_have(&head.archs, file->arch)) {
            *out = (TextSource){t->name, t->text, t->len};
            buf_free(&known);
            return true;
        }
        for (int k = 0; k < head.archs.n; k++)
            buf_printf(&known, "%s\"%s\"", known.n ? ", " : "", head.archs.v[k]);
    }
    diag_error(diag, NO_LOC, "%s: no built-in model text for architecture \"%s\"", file->path, file->arch);
    diag_note(diag, NO_LOC, "built in are %s; give a text of your own with %s FILE.lap", known.n ? known.s : "none",
              option);
    buf_free(&known);
    return false;
}

bool text_head(Arena *a, const char *arch, FeHead *out) {
    for (int i = 0; i < n_model_texts; i++)
        if (fe_head(a, model_texts[i].text, model_texts[i].len, out) && fe_archs_have(&out->archs, arch))
            return true;
    return false;
}

bool text_choose(Arena *a, Diag *diag, const char *path, const ModelFile *file, const char *option, TextSource *out) {
    return path ? text_read(a, diag, path, out) : text_for_weights(a, diag, file, option, out);
}
