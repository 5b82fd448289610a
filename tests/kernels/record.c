/* record.c - see record.h. */
#include "tests/kernels/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LINE = 256 };

typedef struct Row {
    const char *arch, *file, *hash;
    int n;
} Row;

struct Record {
    Arena *arena;
    const char *path;
    VEC(Row) v;
};

static bool add_line(Record *r, const char *line, int number) {
    char arch[MOST_LINE], file[MOST_LINE], hash[MOST_LINE], more[2];
    int n;
    if (*line == '#' || *line == '\n')
        return true;
    if (sscanf(line, "%255s %255s %d %255s %1s", arch, file, &n, hash, more) != 4 || n < 1) {
        printf("%s:%d: not \"ARCH TEMPLATE COUNT HASH\"\n", r->path, number);
        return false;
    }
    record_set(r, arch, file, n, hash);
    return true;
}

Record *record_open(Arena *a, const char *path) {
    Record *r = arena_array(a, 1, sizeof *r);
    r->arena = a;
    r->path = path;
    FILE *f = fopen(path, "r");
    if (!f) {
        if (errno == ENOENT)
            return r;
        printf("%s: %s\n", path, strerror(errno));
        return NULL;
    }
    char line[MOST_LINE];
    bool ok = true;
    for (int number = 1; ok && fgets(line, sizeof line, f); number++)
        ok = add_line(r, line, number);
    fclose(f);
    return ok ? r : NULL;
}

static Row *find(const Record *r, const char *arch, const char *file) {
    for (int i = 0; i < r->v.n; i++)
        if (strcmp(r->v.v[i].arch, arch) == 0 && strcmp(r->v.v[i].file, file) == 0)
            return &r->v.v[i];
    return NULL;
}

bool record_has(const Record *r, const char *arch, const char *file, int n, const char *hash) {
    const Row *row = find(r, arch, file);
    return row && row->n == n && strcmp(row->hash, hash) == 0;
}

void record_set(Record *r, const char *arch, const char *file, int n, const char *hash) {
    const Row row = {arena_strndup(r->arena, arch, strlen(arch)), arena_strndup(r->arena, file, strlen(file)),
                     arena_strndup(r->arena, hash, strlen(hash)), n};
    Row *old = find(r, arch, file);
    if (old)
        *old = row;
    else
        vec_push(r->arena, &r->v, row);
}

void record_keep(Record *r, const char *arch, const char *const *files, int n_files) {
    int n = 0;
    for (int i = 0; i < r->v.n; i++) {
        bool keep = strcmp(r->v.v[i].arch, arch) != 0;
        for (int j = 0; j < n_files; j++)
            keep |= strcmp(r->v.v[i].file, files[j]) == 0;
        if (keep)
            r->v.v[n++] = r->v.v[i];
    }
    r->v.n = n;
}

static int by_name(const void *x, const void *y) {
    const Row *a = x, *b = y;
    const int arch = strcmp(a->arch, b->arch);
    return arch ? arch : strcmp(a->file, b->file);
}

bool record_write(Record *r) {
    if (r->v.n)
        qsort(r->v.v, (size_t)r->v.n, sizeof *r->v.v, by_name);
    const char *part = arena_printf(r->arena, "%s.part", r->path);
    FILE *f = fopen(part, "w");
    bool ok = f != NULL;
    if (f) {
        fprintf(f, "# Kernels of the released models that compile, and of hot templates spill nothing that\n"
                   "# compile_models.c does not list. By compile_models --record; record.h says what the lines are.\n");
        for (int i = 0; i < r->v.n; i++)
            fprintf(f, "%s %s %d %s\n", r->v.v[i].arch, r->v.v[i].file, r->v.v[i].n, r->v.v[i].hash);
        ok = !ferror(f);
        ok &= fclose(f) == 0;
    }
    ok = ok && rename(part, r->path) == 0;
    if (!ok)
        printf("%s: %s\n", r->path, strerror(errno));
    return ok;
}
