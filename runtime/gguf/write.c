/* write.c - works on the tensors of a GGUF file by pieces of a MiB, on several threads, and writes it so.
 *
 * Pieces are handed out in file order under one lock; each thread has one buffer, so memory does not grow with
 * tensors. The file is made under another name beside the one wanted and renamed when it is whole.
 */
#ifdef __linux__
#define _GNU_SOURCE /* fallocate */
#endif
#include "runtime/gguf/image.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PIECE = 1 << 20, MAX_THREADS = 64 };

typedef struct Pieces {
    const GgufImage *m;
    const GgufWork *o;
    GgufPieceFn *f;
    void *ctx;
    pthread_mutex_t lock; /* guards the rest */
    int tensor;           /* the next piece begins here.. */
    uint64_t at;          /* ..at this byte of it */
    uint64_t done;        /* bytes that have been worked on */
    int error;            /* errno of the first failure; 0: none */
    bool cancelled;
} Pieces;

/* ==== Pieces ==== */

/* Most bytes of a piece: whole groups of 8 blocks. */
static size_t piece_bytes(DType t) {
    size_t group = 8 * (size_t)dtype_info(t)->block_bytes;
    return PIECE / group * group;
}

/* Accounts for `done` bytes and takes the next piece. False: nothing more to do. */
static bool next_piece(Pieces *w, size_t done, int error, GgufPiece *out) {
    const ModelFile *f = &w->m->file;
    pthread_mutex_lock(&w->lock);
    w->done += done;
    if (error && !w->error)
        w->error = error;
    if (w->o->on_progress && done)
        w->o->on_progress(w->o->ctx, w->done, w->m->bytes);
    if (w->o->cancel && *w->o->cancel)
        w->cancelled = true;
    bool more = w->tensor < f->n_tensors && !w->error && !w->cancelled;
    if (more) {
        const TensorInfo *t = &f->tensors[w->tensor];
        uint64_t left = t->bytes - w->at;
        size_t most = piece_bytes(t->dtype);
        *out = (GgufPiece){w->tensor, w->at, left < most ? (size_t)left : most};
        w->at += out->n;
        if (w->at == t->bytes) {
            w->tensor++;
            w->at = 0;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return more;
}

static void *work(void *arg) {
    Pieces *w = arg;
    uint8_t *buffer = malloc(PIECE);
    int error = buffer ? 0 : ENOMEM;
    size_t done = 0;
    GgufPiece p;
    while (next_piece(w, done, error, &p)) {
        error = w->f(w->ctx, p, buffer);
        done = error ? 0 : p.n;
    }
    free(buffer);
    return NULL;
}

GgufResult gguf_pieces(const GgufImage *m, const GgufWork *o, GgufPieceFn *f, void *ctx, int *error) {
    pthread_t id[MAX_THREADS];
    Pieces w = {.m = m, .o = o, .f = f, .ctx = ctx, .done = m->header_bytes};
    int threads = o->threads > 0 ? o->threads : processors_allowed();
    int started = 0; /* besides this one; fewer will do when the system gives no more */
    pthread_mutex_init(&w.lock, NULL);
    while (started < threads - 1 && started < MAX_THREADS && pthread_create(&id[started], NULL, work, &w) == 0)
        started++;
    work(&w);
    for (int k = 0; k < started; k++)
        pthread_join(id[k], NULL);
    pthread_mutex_destroy(&w.lock);
    *error = w.error;
    return w.error ? GGUF_FAILED : w.cancelled ? GGUF_CANCELLED : GGUF_OK;
}

/* ==== Writing pieces ==== */

/* 0, or errno. */
static int write_at(int fd, const void *p, size_t n, uint64_t at) {
    const char *s = p;
    while (n > 0) {
        ssize_t k = pwrite(fd, s, n, (off_t)at);
        if (k < 0 && errno != EINTR)
            return errno;
        if (k == 0)
            return EIO;
        if (k > 0) {
            s += k;
            n -= (size_t)k;
            at += (uint64_t)k;
        }
    }
    return 0;
}

typedef struct Writer {
    const GgufImage *m;
    const GgufWrite *o;
    int fd;
} Writer;

static int write_piece(void *ctx, GgufPiece p, uint8_t *buffer) {
    const Writer *w = ctx;
    int error = w->o->fill(w->o->ctx, p, buffer);
    return error ? error : write_at(w->fd, buffer, p.n, w->m->offset[p.tensor] + p.at);
}

/* ==== The file ==== */

bool gguf_room(const char *path, uint64_t bytes, Diag *diag) {
    const char *slash = strrchr(path, '/');
    char *folder = !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    struct statvfs v;
    bool known = folder && statvfs(folder, &v) == 0;
    uint64_t unit = known ? (v.f_frsize ? v.f_frsize : v.f_bsize) : 1;
    bool fits = !known || bytes / unit < v.f_bavail;
    if (!fits)
        diag_system(diag, NO_LOC, "cannot write %s: it needs %.2f GB, but only %.2f GB are free in %s", path,
                    (double)bytes / 1e9, (double)v.f_bavail * (double)unit / 1e9, folder);
    free(folder);
    return fits;
}

/* Not over what a rename would take away: a folder, a device. */
static bool may_replace(const char *path, Diag *diag) {
    struct stat st;
    if (stat(path, &st) != 0 || S_ISREG(st.st_mode))
        return true;
    diag_system(diag, NO_LOC, "cannot write %s: it is there and is no ordinary file", path);
    return false;
}

/* Gives the file its length and, where the file system can, its space: a full disk shows before the work, and
 * writing is quicker. 0, or errno. */
static int reserve(int fd, off_t bytes) {
    if (ftruncate(fd, bytes) != 0)
        return errno;
#ifdef __linux__
    if (fallocate(fd, 0, 0, bytes) != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        return errno;
#endif
    return 0;
}

/* *error: errno, when the result is GGUF_FAILED. */
static GgufResult write_file(const GgufImage *m, int fd, const GgufWrite *o, int *error) {
    *error = reserve(fd, (off_t)m->bytes);
    if (!*error)
        *error = write_at(fd, m->header, m->header_bytes, 0);
    Writer w = {.m = m, .o = o, .fd = fd};
    GgufResult r = *error ? GGUF_FAILED : gguf_pieces(m, &o->work, write_piece, &w, error);
    /* A rename that reaches the disk before the data would leave a file of holes after a power cut. */
    if (r == GGUF_OK && o->check && fsync(fd) != 0) {
        *error = errno;
        return GGUF_FAILED;
    }
    return r;
}

GgufResult gguf_write(const GgufImage *m, const char *path, const GgufWrite *o, Diag *diag) {
    if (!may_replace(path, diag) || !gguf_room(path, m->bytes, diag))
        return GGUF_FAILED;
    Buf beside = {0};
    buf_printf(&beside, "%s.%ld.part", path, (long)getpid());
    int error = 0;
    int fd = open(beside.s, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    GgufResult r = GGUF_FAILED;
    if (fd < 0)
        error = errno;
    else
        r = write_file(m, fd, o, &error);
    if (fd >= 0 && close(fd) != 0 && !error)
        error = errno;
    if (!error && r == GGUF_OK && o->check)
        r = o->check(o->ctx, beside.s);
    if (!error && r == GGUF_OK && rename(beside.s, path) != 0)
        error = errno;
    if (fd >= 0 && (error || r != GGUF_OK))
        unlink(beside.s);
    buf_free(&beside);
    if (error && error != ECANCELED)
        diag_system(diag, NO_LOC, "cannot write %s (%.2f GB): %s", path, (double)m->bytes / 1e9, strerror(error));
    return error ? GGUF_FAILED : r;
}
