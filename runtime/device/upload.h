/* upload.h - many pieces of host memory to the device, through a small ring of page-locked buffers. */
#ifndef LAP_DEVICE_UPLOAD_H
#define LAP_DEVICE_UPLOAD_H

#include "runtime/device/device.h"

typedef struct UploadItem {
    DevPtr to;
    const void *from; /* mapped file or any memory; must stay until upload_run returns */
    size_t bytes;
} UploadItem;

typedef struct UploadOptions {
    int buffers;         /* of the ring, at least 2; 0: 4 */
    size_t buffer_bytes; /* 0: 16 MiB */
    int threads;         /* that read into the buffers; 0: 8, or as many as there are processors if fewer */
    DevStream *stream;   /* NULL: one of its own; else its copies are enqueued there, in the order of the items */
    /* Called by the thread that called upload_run, after the last byte of an item was enqueued on the stream: what it
     * enqueues there finds the item whole. Two items may so have one address, if the work on the first is enqueued
     * here. Items of no bytes are passed over. False (with e filled): stop. NULL: not called. */
    bool (*item_enqueued)(void *user, int item, DevStream *stream, DevError *e);
    /* Called by the same thread after every buffer. False: stop. NULL: not called. */
    bool (*progress)(void *user, int64_t done, int64_t total);
    void *user;
} UploadOptions;

typedef struct UploadResult {
    int64_t bytes;
    double seconds; /* until all copies had ended, buffers included */
    double gb_per_second;
} UploadResult;

/* Returns when everything has arrived and what the callback enqueued has ended. Source pages that cannot be read (the
 * file was cut, the disk fails) are an error, not a signal, where the kernel can tell (Linux 5.14). */
bool upload_run(Device *d, const UploadItem *items, int n, const UploadOptions *o, UploadResult *result, DevError *e);

#endif
