/* cubin_cache.c - a directory of compiled kernels: HEX(key).cubin.
 *
 * A file is a header, the cubin, the log. An entry is either whole or not there: it is written to a file
 * without a name and then linked in (where the file system cannot do that: written under a temporary name
 * and renamed), so that a process that is killed leaves nothing behind. What is read is checked all the
 * same, against the checksum: an entry that is damaged is reported, removed, and compiled again. No fsync:
 * after a power failure an entry may be damaged, and that is found.
 */
#ifdef __linux__
#define _GNU_SOURCE /* O_TMPFILE */
#endif
#include "runtime/device/compile.h"

#include "ir/base.h"
#define XXH_INLINE_ALL /* header only: nothing to link */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    FORMAT_VERSION = 2,
    PATH_BYTES = 4096,
    MAX_FILE_BYTES = 256 << 20, /* a kernel is some 100 KB */
};

typedef struct FileHeader {
    char magic[8];
    uint32_t version;
    uint32_t reserved; /* 0 */
    uint8_t key[16];
    uint64_t cubin_bytes, log_bytes;
    uint64_t checksum; /* XXH3 of the header with this field 0, continued over cubin and log */
} FileHeader;

static const char magic[8] = {'L', 'A', 'P', 'C', 'U', 'B', 'I', 'N'};

struct CubinCache {
    char *dir;
    pthread_mutex_t lock; /* guards the rest */
    Buf warnings;
    bool cannot_write; /* said once */
};

CubinCache *cubin_cache_open(const char *dir) {
    CubinCache *c = calloc(1, sizeof *c);
    if (!c || !(c->dir = strdup(dir)))
        ICE("out of memory");
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void cubin_cache_close(CubinCache *c) {
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    buf_free(&c->warnings);
    free(c->dir);
    free(c);
}

char *cubin_cache_warnings(CubinCache *c) {
    pthread_mutex_lock(&c->lock);
    char *text = c->warnings.s;
    c->warnings = (Buf){0};
    pthread_mutex_unlock(&c->lock);
    return text;
}

__attribute__((format(printf, 2, 3))) static void warn(CubinCache *c, const char *fmt, ...) {
    char line[2 * PATH_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&c->lock);
    buf_printf(&c->warnings, "%s%s", c->warnings.n ? "\n" : "", line);
    pthread_mutex_unlock(&c->lock);
}

/* ==== Keys ==== */

/* With its length, so that no two lists of texts look alike. */
static void hash_text(XXH3_state_t *h, const char *s) {
    uint64_t n = strlen(s);
    XXH3_128bits_update(h, &n, sizeof n);
    XXH3_128bits_update(h, s, n);
}

/* Line by line, but for #line: where a kernel comes from in a model's text touches no instruction, and one more
 * comment there should compile nothing anew. */
static void hash_source(XXH3_state_t *h, const char *s) {
    static const char line[] = "#line ";
    while (*s) {
        const char *end = strchr(s, '\n');
        const size_t n = end ? (size_t)(end + 1 - s) : strlen(s);
        if (strncmp(s, line, sizeof line - 1) != 0)
            XXH3_128bits_update(h, s, n);
        s += n;
    }
}

CubinKey cubin_key(const NvrtcInfo *n, const Program *p, const char *arch) {
    XXH3_state_t h;
    XXH3_128bits_reset(&h);
    const int64_t numbers[] = {FORMAT_VERSION, n->major, n->minor, n->builtins_bytes, p->n_options};
    XXH3_128bits_update(&h, numbers, sizeof numbers);
    hash_text(&h, arch);
    for (int i = 0; i < p->n_options; i++)
        hash_text(&h, p->options[i]);
    hash_source(&h, p->source);
    XXH128_canonical_t text;
    XXH128_canonicalFromHash(&text, XXH3_128bits_digest(&h));
    CubinKey key;
    memcpy(key.bytes, text.digest, sizeof key.bytes);
    return key;
}

void cubin_cache_path(const CubinCache *c, CubinKey key, char *out, size_t size) {
    char hex[33];
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", key.bytes[i]);
    snprintf(out, size, "%s/%s.cubin", c->dir, hex);
}

static uint64_t checksum(FileHeader h, const uint8_t *cubin, const char *log) {
    h.checksum = 0;
    XXH3_state_t s;
    XXH3_64bits_reset(&s);
    XXH3_64bits_update(&s, &h, sizeof h);
    XXH3_64bits_update(&s, cubin, h.cubin_bytes);
    if (h.log_bytes)
        XXH3_64bits_update(&s, log, h.log_bytes);
    return XXH3_64bits_digest(&s);
}

/* ==== Reading ==== */

/* The whole file; NULL with *why NULL when it is not there. */
static uint8_t *read_file(const char *path, size_t *bytes, const char **why) {
    *why = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            *why = strerror(errno);
        return NULL;
    }
    struct stat st;
    uint8_t *p = NULL;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > MAX_FILE_BYTES)
        *why = "not a file of this cache";
    else if (!(p = malloc((size_t)st.st_size + 1)))
        *why = "out of memory";
    size_t got = 0;
    while (p && got < (size_t)st.st_size) {
        ssize_t n = read(fd, p + got, (size_t)st.st_size - got);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    close(fd);
    *bytes = got;
    return p;
}

/* What is wrong with the entry; NULL: nothing. */
static const char *inspect(const uint8_t *file, size_t bytes, CubinKey key, FileHeader *h) {
    if (bytes < sizeof *h)
        return "it is cut short";
    memcpy(h, file, sizeof *h);
    if (memcmp(h->magic, magic, sizeof magic) != 0 || h->version != FORMAT_VERSION)
        return "it is no compiled kernel";
    if (memcmp(h->key, key.bytes, sizeof h->key) != 0)
        return "it is another kernel's";
    size_t payload = bytes - sizeof *h;
    if (h->cubin_bytes == 0 || h->cubin_bytes > payload || h->log_bytes != payload - h->cubin_bytes)
        return "its sizes do not add up";
    const uint8_t *cubin = file + sizeof *h;
    if (checksum(*h, cubin, (const char *)cubin + h->cubin_bytes) != h->checksum)
        return "its checksum is wrong";
    return NULL;
}

static bool unpack(const uint8_t *file, const FileHeader *h, Compiled *out) {
    *out = (Compiled){.state = COMPILE_CACHED, .bytes = h->cubin_bytes, .cubin = malloc(h->cubin_bytes)};
    if (h->log_bytes)
        out->log = calloc(1, h->log_bytes + 1);
    if (!out->cubin || (h->log_bytes && !out->log)) {
        compiled_free(out);
        return false;
    }
    memcpy(out->cubin, file + sizeof *h, h->cubin_bytes);
    if (h->log_bytes)
        memcpy(out->log, file + sizeof *h + h->cubin_bytes, h->log_bytes);
    return true;
}

bool cubin_cache_get(CubinCache *c, CubinKey key, const char *name, Compiled *out) {
    char path[PATH_BYTES];
    cubin_cache_path(c, key, path, sizeof path);
    size_t bytes = 0;
    const char *why;
    uint8_t *file = read_file(path, &bytes, &why);
    if (!file) {
        if (why)
            warn(c, "compiled kernel %s cannot be read, it is compiled again: %s: %s", name, path, why);
        return false;
    }
    FileHeader h;
    why = inspect(file, bytes, key, &h);
    bool ok = !why && unpack(file, &h, out);
    free(file);
    if (why) {
        warn(c, "compiled kernel %s is damaged, it is compiled again: %s: %s", name, path, why);
        unlink(path);
    }
    return ok;
}

/* ==== Writing ==== */

void cubin_cache_make_dir(const char *dir) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", dir);
    for (char *p = path + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(path, 0777);
            *p = '/';
        }
    mkdir(path, 0777);
}

static bool write_all(int fd, const void *p, size_t bytes) {
    for (const uint8_t *at = p; bytes;) {
        ssize_t n = write(fd, at, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        bytes -= (size_t)n;
    }
    return true;
}

static bool write_entry(int fd, const FileHeader *h, const Compiled *compiled) {
    return write_all(fd, h, sizeof *h) && write_all(fd, compiled->cubin, compiled->bytes) &&
           (!h->log_bytes || write_all(fd, compiled->log, h->log_bytes));
}

/* A new file in dir; its name goes to `path`. */
static int open_new(const char *dir, char *path, size_t size) {
    static atomic_uint number;
    for (int tries = 0; tries < 100; tries++) {
        int n = snprintf(path, size, "%s/.new-%ld-%u", dir, (long)getpid(), atomic_fetch_add(&number, 1));
        if (n < 0 || n >= (int)size) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

/* Under a temporary name, then renamed. */
static bool put_by_rename(const char *dir, const char *path, const FileHeader *h, const Compiled *compiled) {
    char temporary[PATH_BYTES];
    int fd = open_new(dir, temporary, sizeof temporary);
    if (fd < 0)
        return false;
    bool ok = write_entry(fd, h, compiled);
    int error = errno;
    ok = close(fd) == 0 && ok;
    if (ok && rename(temporary, path) == 0)
        return true;
    if (ok)
        error = errno;
    unlink(temporary);
    errno = error;
    return false;
}

/* As a file without a name, then linked. *able false: this system cannot, nothing was done. */
static bool put_by_link(const char *dir, const char *path, const FileHeader *h, const Compiled *compiled, bool *able) {
    *able = false;
#ifdef O_TMPFILE
    int fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return false;
    bool ok = write_entry(fd, h, compiled);
    if (ok) {
        char self[64];
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        ok = linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0;
        *able = ok || errno == EEXIST;
        ok = *able; /* there already: another process was quicker, with the same bytes */
    } else {
        *able = true;
    }
    int error = errno;
    close(fd);
    errno = error;
    return ok;
#else
    (void)dir, (void)path, (void)h, (void)compiled;
    return false;
#endif
}

void cubin_cache_put(CubinCache *c, CubinKey key, const Compiled *compiled) {
    FileHeader h = {.version = FORMAT_VERSION,
                    .cubin_bytes = compiled->bytes,
                    .log_bytes = compiled->log ? strlen(compiled->log) : 0};
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.key, key.bytes, sizeof h.key);
    h.checksum = checksum(h, compiled->cubin, compiled->log);
    char path[PATH_BYTES];
    cubin_cache_path(c, key, path, sizeof path);
    cubin_cache_make_dir(c->dir);
    bool able;
    if (put_by_link(c->dir, path, &h, compiled, &able) || (!able && put_by_rename(c->dir, path, &h, compiled)))
        return;
    int error = errno;
    pthread_mutex_lock(&c->lock);
    bool first = !c->cannot_write;
    c->cannot_write = true;
    pthread_mutex_unlock(&c->lock);
    if (first)
        warn(c, "compiled kernels cannot be kept in %s: %s; they will be compiled again next time", c->dir,
             strerror(error));
}
