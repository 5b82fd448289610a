/* tuned_file.c - see tuned_file.h. */
#include "runtime/engine/tuned_file.h"

#include "runtime/device/compile.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *tuned_file_path(Arena *a, const char *kernel_cache) {
    return arena_printf(a, "%s/tuned.txt", kernel_cache);
}

/* At most a byte more than such a file may have, so that a larger one is seen to be. */
static bool read_all(const char *path, Buf *to) {
    FILE *f = fopen(path, "rb");
    struct stat st;
    char block[65536];
    if (!f)
        return errno == ENOENT || errno == ENOTDIR;
    bool ok = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
    errno = ok ? 0 : EINVAL;
    for (size_t n; ok && to->n <= MAX_TUNED_TEXT && (n = fread(block, 1, sizeof block, f)) > 0;)
        buf_bytes(to, block, n);
    ok = ok && !ferror(f);
    const int error = errno;
    fclose(f);
    errno = error;
    return ok;
}

bool tuned_file_read(Tuned *t, const char *path, Diag *diag) {
    Buf text = {0};
    const bool ok = read_all(path, &text);
    if (!ok)
        diag_warning(diag, NO_LOC, "choices of tuning cannot be read: %s: %s", path, strerror(errno));
    else
        tuned_read(t, text.n ? text.s : "", text.n);
    if (t->first_dropped == 1) /* where the format is named */
        diag_warning(diag, NO_LOC, "%s is no file of choices of tuning", path);
    else if (t->dropped > 1)
        diag_warning(diag, NO_LOC, "%s: %d lines, the first of them %d, are no choices of tuning and left out", path,
                     t->dropped, t->first_dropped);
    else if (t->dropped)
        diag_warning(diag, NO_LOC, "%s: line %d is no choice of tuning and left out", path, t->first_dropped);
    buf_free(&text);
    return ok;
}

static bool write_whole(const char *path, const Buf *text) {
    FILE *f = fopen(path, "wb");
    if (!f)
        return false;
    bool ok = fwrite(text->s, 1, text->n, f) == text->n;
    return fclose(f) == 0 && ok;
}

void tuned_file_add(const Tuned *fresh, const char *path, Diag *diag) {
    Tuned all = {.arena = arena_new()};
    Buf text = {0};
    if (read_all(path, &text))
        tuned_read(&all, text.n ? text.s : "", text.n);
    text.n = 0;
    for (int i = 0; i < fresh->entries.n; i++)
        tuned_put(&all, &fresh->entries.v[i]);
    for (int i = 0; i < fresh->rates.n; i++)
        tuned_put_rates(&all, &fresh->rates.v[i]);
    tuned_print(&text, &all);
    const char *beside = arena_printf(all.arena, "%s.new-%ld", path, (long)getpid()), *slash = strrchr(path, '/');
    if (slash)
        cubin_cache_make_dir(arena_strndup(all.arena, path, (size_t)(slash - path)));
    if (!write_whole(beside, &text) || rename(beside, path) != 0) {
        diag_warning(diag, NO_LOC, "what was tuned or measured cannot be kept in %s: %s; it will be again next time",
                     path, strerror(errno));
        unlink(beside);
    }
    buf_free(&text);
    arena_free(all.arena);
}
