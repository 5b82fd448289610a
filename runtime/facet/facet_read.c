/* facet_read.c - a bundle from a file, each entry checked before it is used.
 *
 * The file is read into memory once, so that nothing changes under the checks. Opening reads the manifest, compares
 * the archive's list with it, and reads text and module; plans and cubins are read when they are wanted.
 */
#include "runtime/facet/facet_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

struct Facet {
    Arena *arena;
    const char *name;
    zip_t *zip;
    void *data; /* malloc */
    FacetInfo info;
    EntryVec entries; /* as the manifest says, by name */
    NameMap *by_name; /* entry -> index in the archive */
    const char *text;
    size_t text_len;
    Module *module;
};

static SrcLoc whole_file(const Facet *f, Diag *diag) {
    return (SrcLoc){.file = diag_source(diag, f->name, NULL, 0)};
}

__attribute__((format(printf, 3, 4))) static bool wrong(const Facet *f, Diag *diag, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_error(diag, whole_file(f, diag), "%s", arena_vprintf(f->arena, fmt, ap));
    va_end(ap);
    return false;
}

/* ==== The archive ==== */

/* A name out of the archive as messages may show it. */
static const char *shown(const Facet *f, const char *name) {
    char *s = arena_strndup(f->arena, name, strnlen(name, 100));
    for (char *c = s; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = '?';
    return s;
}

static bool open_archive(Facet *f, size_t bytes, Diag *diag) {
    zip_error_t e;
    zip_error_init(&e);
    zip_source_t *s = zip_source_buffer_create(f->data, bytes, 0, &e);
    f->zip = s ? zip_open_from_source(s, ZIP_RDONLY | ZIP_CHECKCONS, &e) : NULL;
    if (!f->zip) {
        wrong(f, diag, "is no bundle, or is damaged: %s", zip_error_strerror(&e));
        zip_source_free(s);
    }
    zip_error_fini(&e);
    return f->zip != NULL;
}

static bool check_entry(Facet *f, zip_uint64_t i, int64_t *total, Diag *diag) {
    zip_stat_t st;
    const zip_uint64_t needed = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(f->zip, i, ZIP_FL_ENC_RAW, &st) != 0 || (st.valid & needed) != needed)
        return wrong(f, diag, "entry %d cannot be read: %s", (int)i, zip_strerror(f->zip));
    const char *name = shown(f, st.name);
    if (st.encryption_method != ZIP_EM_NONE || (st.comp_method != ZIP_CM_STORE && st.comp_method != ZIP_CM_DEFLATE))
        return wrong(f, diag, "entry '%s' is encrypted or compressed in a way that bundles do not use", name);
    if (st.size > MAX_ENTRY_BYTES || (*total += (int64_t)st.size) > MAX_TOTAL_BYTES)
        return wrong(f, diag, "entry '%s' has %llu bytes; an entry may have %d MiB, all together %d MiB", name,
                     (unsigned long long)st.size, MAX_ENTRY_BYTES >> 20, (int)(MAX_TOTAL_BYTES >> 20));
    if (namemap_get(f->by_name, st.name) >= 0)
        return wrong(f, diag, "entry '%s' is there twice", name);
    namemap_put(f->by_name, arena_strdup(f->arena, st.name), (int)i);
    return true;
}

static bool list_archive(Facet *f, Diag *diag) {
    zip_int64_t n = zip_get_num_entries(f->zip, 0);
    int64_t total = 0;
    if (n < 1 || n > MAX_ENTRIES)
        return wrong(f, diag, "has %lld entries; a bundle has 1 to %d", (long long)n, MAX_ENTRIES);
    for (zip_int64_t i = 0; i < n; i++)
        if (!check_entry(f, (zip_uint64_t)i, &total, diag))
            return false;
    return true;
}

/* The bytes, with a 0 behind them, in the arena; NULL after an error. */
static char *read_entry(Facet *f, const char *name, size_t *bytes, Diag *diag) {
    int i = namemap_get(f->by_name, name);
    zip_stat_t st;
    if (i < 0) {
        wrong(f, diag, "entry '%s' is missing", name);
        return NULL;
    }
    if (zip_stat_index(f->zip, (zip_uint64_t)i, 0, &st) != 0)
        ICE("an entry that was there is gone");
    zip_file_t *file = zip_fopen_index(f->zip, (zip_uint64_t)i, 0);
    if (!file) {
        wrong(f, diag, "entry '%s' cannot be read: %s", name, zip_strerror(f->zip));
        return NULL;
    }
    char *data = arena_alloc(f->arena, st.size + 1);
    zip_int64_t got = st.size ? zip_fread(file, data, st.size) : 0;
    char more;
    bool whole = got == (zip_int64_t)st.size && zip_fread(file, &more, 1) == 0; /* the end: its checksum is right */
    if (!whole)
        wrong(f, diag, "entry '%s' is damaged: %s", name,
              got == (zip_int64_t)st.size ? "it does not end where it should" : "it cannot be unpacked");
    data[whole ? st.size : 0] = 0;
    zip_fclose(file);
    *bytes = st.size;
    return whole ? data : NULL;
}

/* ==== The manifest ==== */

static int find_entry(const void *name, const void *e) {
    return strcmp(name, ((const FacetEntry *)e)->name);
}

static FacetEntry *listed(const Facet *f, const char *name) {
    return f->entries.n ? bsearch(name, f->entries.v, (size_t)f->entries.n, sizeof *f->entries.v, find_entry) : NULL;
}

/* The entry, if it is the one that the manifest lists. */
static char *read_listed(Facet *f, const char *name, size_t *bytes, Diag *diag) {
    const FacetEntry *e = listed(f, name);
    char hash[33];
    if (!e) {
        wrong(f, diag, "entry '%s' is missing in the manifest", name);
        return NULL;
    }
    char *data = read_entry(f, name, bytes, diag);
    if (!data)
        return NULL;
    facet_hash(data, *bytes, hash);
    if ((int64_t)*bytes == e->bytes && strcmp(hash, e->hash) == 0)
        return data;
    wrong(f, diag, "entry '%s' is not the one that the manifest lists: %zu bytes with XXH3 %s, not %lld with %s", name,
          *bytes, hash, (long long)e->bytes, e->hash);
    return NULL;
}

/* Does this belong in a bundle with these architectures? */
static bool is_known(const Facet *f, const char *name) {
    if (strcmp(name, TEXT_NAME) == 0 || strcmp(name, MODULE_NAME) == 0)
        return true;
    for (int i = 0; i < f->info.archs.n; i++) {
        size_t n = strlen(f->info.archs.v[i].name);
        if (strncmp(name, f->info.archs.v[i].name, n) != 0 || name[n] != '/')
            continue;
        const char *rest = name + n + 1, *dot = strrchr(rest, '.');
        static const char folder[] = "kernels/";
        if (strcmp(rest, "plan.txt") == 0)
            return true;
        return dot && strncmp(rest, folder, sizeof folder - 1) == 0 && dot > rest + sizeof folder - 1 &&
               !memchr(rest + sizeof folder - 1, '/', strlen(rest + sizeof folder - 1)) &&
               (strcmp(dot, ".cu") == 0 || strcmp(dot, ".cubin") == 0);
    }
    return false;
}

/* The archive holds what the manifest lists, and nothing else. */
static bool compare_lists(Facet *f, Diag *diag) {
    for (int i = 0; i < f->entries.n; i++) {
        FacetEntry *e = &f->entries.v[i];
        zip_stat_t st;
        int at = namemap_get(f->by_name, e->name);
        if (!is_known(f, e->name))
            return wrong(f, diag, "entry '%s' has no place in a bundle", shown(f, e->name));
        if (at < 0)
            return wrong(f, diag, "entry '%s' is missing", e->name);
        if (zip_stat_index(f->zip, (zip_uint64_t)at, 0, &st) != 0)
            ICE("an entry that was there is gone");
        e->stored = st.valid & ZIP_STAT_COMP_SIZE && st.comp_size <= INT64_MAX ? (int64_t)st.comp_size : e->bytes;
    }
    zip_int64_t n = zip_get_num_entries(f->zip, 0);
    for (zip_int64_t i = 0; i < n; i++) {
        const char *name = zip_get_name(f->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        if (!name || (strcmp(name, MANIFEST_NAME) != 0 && !listed(f, name)))
            return wrong(f, diag, "entry '%s' is not in the manifest", shown(f, name ? name : ""));
    }
    return true;
}

/* ==== Opening ==== */

static bool read_parts(Facet *f, Diag *diag) {
    size_t bytes = 0;
    const char *manifest = read_entry(f, MANIFEST_NAME, &bytes, diag);
    if (!manifest || !manifest_read(f->arena, diag, whole_file(f, diag), manifest, bytes, &f->info, &f->entries) ||
        !compare_lists(f, diag))
        return false;
    f->text = read_listed(f, TEXT_NAME, &f->text_len, diag);
    const char *module = f->text ? read_listed(f, MODULE_NAME, &bytes, diag) : NULL;
    if (!module)
        return false;
    f->module = ir_parse(f->arena, diag, arena_printf(f->arena, "%s/" MODULE_NAME, f->name), module, bytes);
    return f->module != NULL;
}

/* Takes data, which is malloc'ed. */
static Facet *open_data(void *data, size_t bytes, const char *name, Diag *diag) {
    Arena *a = arena_new();
    Facet *f = arena_alloc(a, sizeof *f);
    *f = (Facet){.arena = a, .data = data, .name = arena_strdup(a, name), .by_name = namemap_new(a)};
    if (open_archive(f, bytes, diag) && list_archive(f, diag) && read_parts(f, diag))
        return f;
    facet_close(f);
    return NULL;
}

Facet *facet_open_memory(const void *data, size_t bytes, const char *name, Diag *diag) {
    void *copy = malloc(bytes ? bytes : 1);
    if (!copy)
        ICE("out of memory");
    if (bytes)
        memcpy(copy, data, bytes);
    return open_data(copy, bytes, name, diag);
}

/* The whole file; NULL after an error. */
static void *read_file(int fd, const char *path, size_t *bytes, Diag *diag) {
    SrcLoc at = {.file = diag_source(diag, path, NULL, 0)};
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > MAX_TOTAL_BYTES) {
        diag_error(diag, at, "is no bundle: not a file of at most %d MiB", (int)(MAX_TOTAL_BYTES >> 20));
        return NULL;
    }
    char *data = malloc((size_t)st.st_size + 1);
    size_t n = 0;
    ssize_t got = 1;
    while (data && n < (size_t)st.st_size && got > 0) {
        got = read(fd, data + n, (size_t)st.st_size - n);
        n += got > 0 ? (size_t)got : 0;
    }
    if (!data || got < 0) {
        diag_error(diag, at, "cannot be read: %s", data ? strerror(errno) : "out of memory");
        free(data);
        return NULL;
    }
    *bytes = n;
    return data;
}

Facet *facet_open(const char *path, Diag *diag) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t bytes = 0;
    if (fd < 0) {
        diag_error(diag, (SrcLoc){.file = diag_source(diag, path, NULL, 0)}, "cannot be opened: %s", strerror(errno));
        return NULL;
    }
    void *data = read_file(fd, path, &bytes, diag);
    close(fd);
    return data ? open_data(data, bytes, path, diag) : NULL;
}

bool facet_looks_like(const char *path) {
    char head[4] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is = read(fd, head, sizeof head) == sizeof head && memcmp(head, "PK\3\4", sizeof head) == 0;
    close(fd);
    return is;
}

void facet_close(Facet *f) {
    if (!f)
        return;
    if (f->zip)
        zip_discard(f->zip);
    free(f->data);
    arena_free(f->arena); /* f itself lives there */
}

const FacetInfo *facet_info(const Facet *f) {
    return &f->info;
}

const Module *facet_module(const Facet *f) {
    return f->module;
}

Str facet_text(const Facet *f) {
    return (Str){f->text, f->text_len};
}

const FacetEntry *facet_entries(const Facet *f, int *n) {
    *n = f->entries.n;
    return f->entries.v;
}

/* ==== Architectures ==== */

static bool load_kernel(Facet *f, const FacetArch *a, const Plan *plan, int i, FacetCubin *cubin, Diag *diag) {
    const char *kernel = plan->kernels.v[i].name;
    size_t bytes = 0;
    const char *text = read_listed(f, arena_printf(f->arena, "%s/kernels/%s.cu", a->name, kernel), &bytes, diag);
    const char *name = arena_printf(f->arena, "%s/kernels/%s.cubin", a->name, kernel);
    cubin->data = text ? read_listed(f, name, &cubin->bytes, diag) : NULL;
    if (!cubin->data)
        return false;
    if (cubin->bytes < 4 || memcmp(cubin->data, "\177ELF", 4) != 0)
        return wrong(f, diag, "entry '%s' is no cubin", name);
    plan->kernels.v[i].text = text;
    return true;
}

bool facet_load(Facet *f, int i, Diag *diag) {
    FacetArch *a = &f->info.archs.v[i];
    size_t bytes = 0;
    if (a->plan)
        return true;
    const char *name = arena_printf(f->arena, "%s/plan.txt", a->name);
    const char *text = read_listed(f, name, &bytes, diag);
    if (!text)
        return false;
    Plan *plan = plan_parse(f->arena, diag, arena_printf(f->arena, "%s/%s", f->name, name), text, bytes);
    if (!plan || !plan_check(plan, f->module, diag))
        return false;
    if (strcmp(plan->arch, a->name) != 0 || plan->kernels.n != a->n_kernels)
        return wrong(f, diag, "entry '%s' is for %s with %d kernels, the manifest says %s with %d", name, plan->arch,
                     plan->kernels.n, a->name, a->n_kernels);
    FacetCubin *cubins = arena_array(f->arena, (size_t)plan->kernels.n, sizeof *cubins);
    for (int k = 0; k < plan->kernels.n; k++)
        if (!load_kernel(f, a, plan, k, &cubins[k], diag))
            return false;
    a->plan = plan;
    a->cubins = cubins;
    return true;
}

/* Does code for `have` run on `device`? */
static bool runs_on(const char *have, int device_sm, int *sm) {
    bool only_there = false;
    if (!plan_arch(have, sm, &only_there))
        return false;
    return *sm == device_sm || (!only_there && *sm / 10 == device_sm / 10 && *sm < device_sm);
}

const FacetArch *facet_arch(Facet *f, const char *device, Diag *diag) {
    int sm = 0, device_sm = 0, best = -1, best_sm = 0;
    bool only_there = false;
    Buf have = {0};
    bool known = plan_arch(device, &device_sm, &only_there);
    for (int i = 0; i < f->info.archs.n; i++) {
        const FacetArch *a = &f->info.archs.v[i];
        buf_printf(&have, "%s%s", i ? ", " : "", a->name);
        if (known && runs_on(a->name, device_sm, &sm) && sm > best_sm) {
            best = i;
            best_sm = sm;
        }
    }
    if (best < 0) {
        wrong(f, diag, "has kernels for %s; this device is %s, and runs none of them", have.s, device);
        diag_note(diag, NO_LOC,
                  "code for sm_90a and others with an `a` runs only there, code for sm_86 on sm_86 to sm_89; compile "
                  "the model for this device with lap compile --arch %s",
                  device);
    }
    buf_free(&have);
    return best >= 0 && facet_load(f, best, diag) ? &f->info.archs.v[best] : NULL;
}
