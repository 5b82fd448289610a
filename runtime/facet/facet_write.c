/* facet_write.c - contents to a bundle.
 *
 * Entries stand in the order of their names behind the manifest, all with one time and mode, so that the same contents
 * give the same bytes. libzip writes beside `path` and renames, so the bundle is whole or not there.
 */
#include "runtime/facet/facet_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zip.h>

typedef struct Part {
    const char *name;
    const void *data; /* lives until the archive is closed */
    size_t bytes;
} Part;

typedef struct Writer {
    Arena *arena;
    Diag *diag;
    SrcLoc at;
    VEC(Part) parts;
} Writer;

static void add(Writer *w, const char *name, const void *data, size_t bytes) {
    Part p = {name, data, bytes};
    vec_push(w->arena, &w->parts, p);
}

static void add_text(Writer *w, const char *name, Buf *text) {
    add(w, name, arena_strndup(w->arena, text->n ? text->s : "", text->n), text->n);
    buf_free(text);
}

/* ==== Parts ==== */

/* Without the paths of weights files: they are of the machine that compiled, and other files fit as well. */
static void add_module(Writer *w, const Module *m) {
    Module copy = *m;
    Buf text = {0};
    copy.weights.v = arena_array(w->arena, (size_t)m->weights.n, sizeof *copy.weights.v);
    for (int i = 0; i < m->weights.n; i++) {
        copy.weights.v[i] = m->weights.v[i];
        copy.weights.v[i].file = NULL;
    }
    ir_print(&text, &copy);
    add_text(w, MODULE_NAME, &text);
}

static void add_arch(Writer *w, const FacetArch *a, const Module *m) {
    Buf text = {0};
    plan_print(&text, a->plan, m);
    add_text(w, arena_printf(w->arena, "%s/plan.txt", a->name), &text);
    for (int i = 0; i < a->plan->kernels.n; i++) {
        const PlanKernel *k = &a->plan->kernels.v[i];
        add(w, arena_printf(w->arena, "%s/kernels/%s.cu", a->name, k->name), k->text, strlen(k->text));
        add(w, arena_printf(w->arena, "%s/kernels/%s.cubin", a->name, k->name), a->cubins[i].data, a->cubins[i].bytes);
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const Part *)a)->name, ((const Part *)b)->name);
}

/* What the reader would refuse is not written. */
static bool sizes_fit(const Writer *w) {
    int64_t total = 0;
    for (int i = 0; i < w->parts.n; i++) {
        total += (int64_t)w->parts.v[i].bytes;
        if (w->parts.v[i].bytes > MAX_ENTRY_BYTES || total > MAX_TOTAL_BYTES) {
            diag_error(w->diag, w->at, "entry '%s' is too large for a bundle: an entry may have %d MiB, all %d MiB",
                       w->parts.v[i].name, MAX_ENTRY_BYTES >> 20, (int)(MAX_TOTAL_BYTES >> 20));
            return false;
        }
    }
    if (w->parts.n > MAX_ENTRIES)
        diag_error(w->diag, w->at, "%d entries are too many for a bundle", w->parts.n);
    return w->parts.n <= MAX_ENTRIES;
}

/* ==== The archive ==== */

static bool add_part(zip_t *z, const Part *p) {
    static const zip_uint16_t date = 1 << 5 | 1; /* 1980-01-01, the first there is */
    static const zip_uint32_t mode = (S_IFREG | 0644u) << 16;
    zip_source_t *s = zip_source_buffer(z, p->data, p->bytes, 0);
    if (!s)
        return false;
    zip_int64_t i = zip_file_add(z, p->name, s, ZIP_FL_ENC_UTF_8);
    if (i < 0) {
        zip_source_free(s);
        return false;
    }
    return zip_set_file_compression(z, (zip_uint64_t)i, ZIP_CM_DEFLATE, 6) == 0 &&
           zip_file_set_dostime(z, (zip_uint64_t)i, 0, date, 0) == 0 &&
           zip_file_set_external_attributes(z, (zip_uint64_t)i, 0, ZIP_OPSYS_UNIX, mode) == 0;
}

static bool write_archive(const Writer *w, const char *path) {
    int code = 0;
    zip_t *z = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!z) {
        zip_error_t e;
        zip_error_init_with_code(&e, code);
        diag_error(w->diag, w->at, "cannot be written: %s", zip_error_strerror(&e));
        zip_error_fini(&e);
        return false;
    }
    bool ok = true;
    for (int i = 0; i < w->parts.n && ok; i++)
        ok = add_part(z, &w->parts.v[i]);
    if (ok && zip_close(z) == 0)
        return true;
    diag_error(w->diag, w->at, "cannot be written: %s", zip_strerror(z));
    zip_discard(z);
    return false;
}

static bool add_manifest(Writer *w, const FacetInfo *info) {
    FacetEntry *entries = arena_array(w->arena, (size_t)w->parts.n, sizeof *entries);
    size_t bytes = 0;
    for (int i = 0; i < w->parts.n; i++) {
        entries[i] = (FacetEntry){.name = w->parts.v[i].name, .bytes = (int64_t)w->parts.v[i].bytes};
        facet_hash(w->parts.v[i].data, w->parts.v[i].bytes, entries[i].hash);
    }
    char *text = manifest_write(info, entries, w->parts.n, &bytes, w->diag, w->at);
    if (!text)
        return false;
    Part *parts = arena_array(w->arena, (size_t)w->parts.n + 1, sizeof *parts);
    parts[0] = (Part){MANIFEST_NAME, arena_strndup(w->arena, text, bytes), bytes};
    memcpy(parts + 1, w->parts.v, (size_t)w->parts.n * sizeof *parts);
    free(text);
    w->parts.v = parts;
    w->parts.n = w->parts.cap = w->parts.n + 1;
    return true;
}

bool facet_write(const FacetContents *c, const char *path, int64_t *bytes, Diag *diag) {
    Writer w = {.arena = arena_new(), .diag = diag, .at = {.file = diag_source(diag, path, NULL, 0)}};
    add(&w, TEXT_NAME, c->text, c->text_len);
    add_module(&w, c->module);
    for (int i = 0; i < c->info.archs.n; i++)
        add_arch(&w, &c->info.archs.v[i], c->module);
    qsort(w.parts.v, (size_t)w.parts.n, sizeof *w.parts.v, by_name);
    bool ok = sizes_fit(&w) && add_manifest(&w, &c->info) && write_archive(&w, path);
    struct stat st;
    if (ok && bytes)
        *bytes = stat(path, &st) == 0 ? st.st_size : 0;
    arena_free(w.arena);
    return ok;
}
