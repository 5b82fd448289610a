/* upload.c - weights from mapped files to the device.
 *
 * A copy from ordinary memory goes through a buffer of the driver on one thread, at a fraction of the bus.
 * So: the bytes of all items, end to end, are cut into buffers of a ring of page-locked memory, and each
 * buffer into slices. Threads take slices in order and copy them in (which also reads the file); the calling
 * thread waits for a buffer to be full, enqueues its copies and an event, and gives a buffer back to the
 * readers when its event has passed. The ring is small because page-locking costs 0.6 s a GiB. Registering
 * the mapped file instead would lock all of it.
 *
 *   buffer b:   being read ──► full ──► enqueued ──► event passed = room for buffer b + ring
 */
#ifdef __linux__
#define _GNU_SOURCE /* madvise */
#endif
#include "runtime/device/upload.h"

#include "ir/base.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_BUFFERS = 4,
    MAX_BUFFERS = 64,
    DEFAULT_THREADS = 8,
    MAX_THREADS = 64,
};
static const size_t DEFAULT_BUFFER_BYTES = (size_t)16 << 20;
static const size_t SLICE_BYTES = (size_t)1 << 20; /* what a reader takes at once */

/* Where a byte of the stream of all items lies. */
typedef struct Place {
    int item;
    size_t offset;
} Place;

typedef struct Upload {
    Device *d;
    DevStream *stream;
    const UploadItem *items;
    const uint64_t *starts; /* [n + 1], of each item in the stream of all bytes */
    int n;
    uint64_t total;

    int buffers, slices; /* slices of a buffer */
    size_t buffer_bytes;
    uint8_t *buffer[MAX_BUFFERS];
    DevEvent *event[MAX_BUFFERS];

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t filled, freed;
    uint64_t next_slice;   /* not yet taken by a reader */
    uint64_t free_buffers; /* buffers 0 .. free_buffers - 1 of the stream may be read into */
    int read_slices[MAX_BUFFERS];
    bool stop;
    const char *read_error; /* of a reader */
    int error_item;
} Upload;

static Place place_of(const Upload *u, uint64_t at) {
    int low = 0, high = u->n; /* starts[low] <= at < starts[high] */
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (u->starts[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return (Place){low, (size_t)(at - u->starts[low])};
}

/* Bytes of the buffer that begins at `start` of the stream; the last one is shorter. */
static size_t buffer_length(const Upload *u, uint64_t start) {
    return u->total - start < u->buffer_bytes ? (size_t)(u->total - start) : u->buffer_bytes;
}

/* ==== Readers ==== */

/* Maps the pages in one call instead of a fault each, and finds out whether they can be read at all. */
static const char *populate(const uint8_t *from, size_t bytes) {
#ifdef MADV_POPULATE_READ
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)from / page * page;
    size_t length = (uintptr_t)from + bytes - begin;
    if (madvise((void *)begin, length, MADV_POPULATE_READ) != 0 && (errno == EFAULT || errno == EHWPOISON))
        return "the file is shorter than it was, or cannot be read";
#else
    (void)from, (void)bytes;
#endif
    return NULL;
}

/* Bytes [at, at + bytes) of the stream into `to`. */
static const char *read_range(const Upload *u, uint64_t at, uint8_t *to, size_t bytes, int *item) {
    Place p = place_of(u, at);
    while (bytes) {
        size_t left = u->items[p.item].bytes - p.offset;
        size_t n = left < bytes ? left : bytes;
        const uint8_t *from = (const uint8_t *)u->items[p.item].from + p.offset;
        *item = p.item;
        const char *error = n ? populate(from, n) : NULL;
        if (error)
            return error;
        if (n)
            memcpy(to, from, n);
        to += n;
        bytes -= n;
        p = (Place){p.item + 1, 0};
    }
    return NULL;
}

/* The next slice whose buffer is free; false: no more. */
static bool take_slice(Upload *u, uint64_t *buffer, size_t *offset) {
    pthread_mutex_lock(&u->lock);
    uint64_t slice = u->next_slice++;
    *buffer = slice / (uint64_t)u->slices;
    *offset = (size_t)(slice % (uint64_t)u->slices) * SLICE_BYTES;
    while (!u->stop && *buffer >= u->free_buffers && *buffer * u->buffer_bytes < u->total)
        pthread_cond_wait(&u->freed, &u->lock);
    bool more = !u->stop && *buffer * u->buffer_bytes < u->total;
    pthread_mutex_unlock(&u->lock);
    return more;
}

static void slice_read(Upload *u, uint64_t buffer, const char *error, int item) {
    pthread_mutex_lock(&u->lock);
    if (error && !u->read_error) {
        u->read_error = error;
        u->error_item = item;
    }
    int slot = (int)(buffer % (uint64_t)u->buffers);
    if (++u->read_slices[slot] == u->slices || u->read_error)
        pthread_cond_signal(&u->filled);
    pthread_mutex_unlock(&u->lock);
}

static void *reader(void *arg) {
    Upload *u = arg;
    uint64_t buffer;
    size_t offset;
    while (take_slice(u, &buffer, &offset)) {
        uint64_t start = buffer * u->buffer_bytes;
        size_t length = buffer_length(u, start);
        const char *error = NULL;
        int item = 0;
        if (offset < length) {
            size_t n = length - offset < SLICE_BYTES ? length - offset : SLICE_BYTES;
            error = read_range(u, start + offset, u->buffer[buffer % (uint64_t)u->buffers] + offset, n, &item);
        }
        slice_read(u, buffer, error, item);
    }
    return NULL;
}

static void stop_readers(Upload *u, const pthread_t *threads, int n) {
    pthread_mutex_lock(&u->lock);
    u->stop = true;
    pthread_cond_broadcast(&u->freed);
    pthread_mutex_unlock(&u->lock);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

/* ==== The calling thread ==== */

static bool wait_filled(Upload *u, uint64_t buffer, DevError *e) {
    int slot = (int)(buffer % (uint64_t)u->buffers);
    pthread_mutex_lock(&u->lock);
    while (u->read_slices[slot] < u->slices && !u->read_error)
        pthread_cond_wait(&u->filled, &u->lock);
    u->read_slices[slot] = 0;
    const char *error = u->read_error;
    int item = u->error_item;
    pthread_mutex_unlock(&u->lock);
    return !error || dev_fail(e, DEV_OTHER, "weights cannot be read: %s (item %d)", error, item);
}

/* Gives the ring's slot of a buffer that has been copied back to the readers. */
static bool release(Upload *u, uint64_t buffer, DevError *e) {
    if (!dev_event_wait(u->event[buffer % (uint64_t)u->buffers], e))
        return false;
    pthread_mutex_lock(&u->lock);
    u->free_buffers = buffer + 1 + (uint64_t)u->buffers;
    pthread_cond_broadcast(&u->freed);
    pthread_mutex_unlock(&u->lock);
    return true;
}

/* One copy for each item, or part of one, that lies in the buffer. */
static bool enqueue(Upload *u, uint64_t buffer, const UploadOptions *o, DevError *e) {
    int slot = (int)(buffer % (uint64_t)u->buffers);
    uint64_t start = buffer * u->buffer_bytes;
    size_t length = buffer_length(u, start);
    Place p = place_of(u, start);
    for (size_t at = 0; at < length;) {
        const UploadItem *item = &u->items[p.item];
        size_t n = item->bytes - p.offset < length - at ? item->bytes - p.offset : length - at;
        if (!dev_copy_in(u->stream, item->to + p.offset, u->buffer[slot] + at, n, e))
            return false;
        at += n;
        if (p.offset + n == item->bytes) {
            if (item->bytes && o->item_enqueued && !o->item_enqueued(o->user, p.item, u->stream, e))
                return false;
            p = (Place){p.item + 1, 0};
        } else {
            p.offset += n;
        }
    }
    return dev_event_record(u->event[slot], u->stream, e);
}

/* Half the ring is on its way to the device, the other half is being read. */
static bool pump(Upload *u, const UploadOptions *o, DevError *e) {
    uint64_t count = (u->total + u->buffer_bytes - 1) / u->buffer_bytes;
    uint64_t lag = (uint64_t)u->buffers / 2;
    for (uint64_t b = 0; b < count; b++) {
        if (b >= lag && !release(u, b - lag, e))
            return false;
        if (!wait_filled(u, b, e) || !enqueue(u, b, o, e))
            return false;
        uint64_t done = b * u->buffer_bytes + buffer_length(u, b * u->buffer_bytes);
        if (o->progress && !o->progress(o->user, (int64_t)done, (int64_t)u->total))
            return dev_fail(e, DEV_OTHER, "upload stopped");
    }
    return dev_stream_wait(u->stream, e);
}

static bool with_readers(Upload *u, const UploadOptions *o, DevError *e) {
    int wanted = o->threads > 0 ? o->threads : processors_allowed();
    if (o->threads <= 0 && wanted > DEFAULT_THREADS)
        wanted = DEFAULT_THREADS;
    if (wanted > MAX_THREADS)
        wanted = MAX_THREADS;
    pthread_t threads[MAX_THREADS];
    int n = 0;
    while (n < wanted && pthread_create(&threads[n], NULL, reader, u) == 0)
        n++;
    bool ok = n > 0 ? pump(u, o, e) : dev_fail(e, DEV_OTHER, "no thread can be started");
    stop_readers(u, threads, n);
    if (!ok)
        dev_stream_wait(u->stream, NULL); /* nothing may still read from the ring */
    return ok;
}

/* The ring, no larger than what is to be copied. */
static bool make_ring(Upload *u, const UploadOptions *o, DevError *e) {
    u->buffers = o->buffers ? o->buffers : DEFAULT_BUFFERS;
    if (u->buffers < 2)
        u->buffers = 2;
    if (u->buffers > MAX_BUFFERS)
        u->buffers = MAX_BUFFERS;
    size_t wanted = o->buffer_bytes ? o->buffer_bytes : DEFAULT_BUFFER_BYTES;
    if (wanted > u->total)
        wanted = (size_t)u->total;
    u->slices = (int)((wanted + SLICE_BYTES - 1) / SLICE_BYTES);
    u->buffer_bytes = (size_t)u->slices * SLICE_BYTES;
    u->free_buffers = (uint64_t)u->buffers;
    for (int i = 0; i < u->buffers; i++)
        if (!(u->buffer[i] = dev_host_alloc(u->d, u->buffer_bytes, e)) ||
            !(u->event[i] = dev_event_new(u->d, false, e)))
            return false;
    return true;
}

static void free_ring(Upload *u) {
    for (int i = 0; i < u->buffers; i++) {
        dev_event_free(u->event[i]);
        dev_host_free(u->d, u->buffer[i]);
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool upload_items(Upload *u, const UploadOptions *o, DevError *e) {
    if (u->total == 0)
        return true;
    DevStream *own = NULL;
    u->stream = o->stream;
    if (!u->stream)
        u->stream = own = dev_stream_new(u->d, e);
    bool ok = u->stream && make_ring(u, o, e) && with_readers(u, o, e);
    free_ring(u);
    dev_stream_free(own);
    return ok;
}

bool upload_run(Device *d, const UploadItem *items, int n, const UploadOptions *o, UploadResult *result, DevError *e) {
    static const UploadOptions plain = {0};
    double start = now();
    *result = (UploadResult){0};
    uint64_t *starts = calloc((size_t)n + 1, sizeof *starts);
    if (!starts)
        return dev_fail(e, DEV_MEMORY, "out of memory");
    for (int i = 0; i < n; i++)
        starts[i + 1] = starts[i] + items[i].bytes;
    Upload u = {.d = d,
                .items = items,
                .starts = starts,
                .n = n,
                .total = starts[n],
                .lock = PTHREAD_MUTEX_INITIALIZER,
                .filled = PTHREAD_COND_INITIALIZER,
                .freed = PTHREAD_COND_INITIALIZER};
    bool ok = upload_items(&u, o ? o : &plain, e);
    pthread_mutex_destroy(&u.lock);
    pthread_cond_destroy(&u.filled);
    pthread_cond_destroy(&u.freed);
    result->bytes = ok ? (int64_t)u.total : 0;
    result->seconds = now() - start;
    result->gb_per_second = result->seconds > 0 ? 1e-9 * (double)result->bytes / result->seconds : 0;
    free(starts);
    return ok;
}
