/* files.c - opening and mapping files.
 *
 * Files are mapped read-only and the descriptor is closed at once. A file that somebody cuts short
 * while it is mapped raises SIGBUS on access, as with every mapped file; copying gigabytes to rule
 * that out is not worth it.
 */
#define _GNU_SOURCE
#include "runtime/weights/weights_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

SrcLoc file_loc(Diag *diag, const char *path) {
    return (SrcLoc){.file = diag_source(diag, path, NULL, 0)};
}

static bool map_descriptor(int fd, const char *path, FileView *out, bool *is_dir, Diag *diag) {
    SrcLoc at = file_loc(diag, path);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        diag_error(diag, at, "cannot read: %s", strerror(errno));
        return false;
    }
    if (S_ISDIR(st.st_mode) && is_dir) {
        *is_dir = true;
        return true;
    }
    if (!S_ISREG(st.st_mode)) {
        diag_error(diag, at, S_ISDIR(st.st_mode) ? "is a directory, not a file" : "is not a regular file");
        return false;
    }
    if (st.st_size <= 0) {
        diag_error(diag, at, "the file is empty");
        return false;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        diag_error(diag, at, "cannot map the file: %s", strerror(errno));
        return false;
    }
    *out = (FileView){.path = path, .data = p, .size = (size_t)st.st_size};
    return true;
}

bool file_map(const char *path, FileView *out, bool *is_dir, Diag *diag) {
    if (is_dir)
        *is_dir = false;
    /* Without O_NONBLOCK, opening a named pipe would wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        diag_error(diag, file_loc(diag, path), "cannot open: %s", strerror(errno));
        return false;
    }
    bool ok = map_descriptor(fd, path, out, is_dir, diag);
    close(fd);
    return ok;
}

void file_unmap(FileView f) {
    if (f.size)
        munmap((void *)f.data, f.size);
}

bool file_exists(const char *path) {
    return access(path, F_OK) == 0;
}
