/* image.h - a GGUF file before it is written: its header, where its tensors lie, and the writer.
 *
 * Whoever makes a file lists metadata and tensors; gguf_image() lays them out, gguf_write() asks for the bytes of
 * the tensors piece by piece, from several threads. Format: GGUF v3 (ggml's gguf.h).
 */
#ifndef LAP_GGUF_IMAGE_H
#define LAP_GGUF_IMAGE_H

#include "ir/diag.h"
#include "ir/modelfile.h"

/* Types of metadata values, as numbered in the file, that are written. */
enum { GGUF_OUT_U32 = 4, GGUF_OUT_I32 = 5, GGUF_OUT_F32 = 6, GGUF_OUT_BOOL = 7, GGUF_OUT_STRING = 8 };

/* Metadata in the order of the file. */
typedef struct GgufMeta {
    VEC(MetaEntry) entries;
    VEC(int) types; /* GGUF_OUT_*, of an array's elements */
} GgufMeta;

/* A file that is not written yet. In the arena given. */
typedef struct GgufImage {
    ModelFile file;         /* tensors without data */
    const uint64_t *offset; /* [n_tensors] in bytes from the start of the file */
    const char *header;     /* everything before the first tensor */
    size_t header_bytes;
    uint64_t bytes; /* of the whole file */
} GgufImage;

/* Lays out `tensors`, whose names, types, ranks and dims are given (bytes and file_type are filled in here), in their
 * order. False when they are too large for a file. `path` names the image in messages. */
bool gguf_image(Arena *a, const char *path, const GgufMeta *meta, TensorInfo *tensors, int n, GgufImage *out);

/* ==== Work on all tensors, by pieces ==== */

/* Bytes [at, at + n) of tensor i; both multiples of 8 blocks, the last piece of any length. */
typedef struct GgufPiece {
    int tensor;
    uint64_t at;
    size_t n;
} GgufPiece;

typedef struct GgufWork {
    int threads;                                                   /* 0: one a processor */
    const volatile bool *cancel;                                   /* looked at after each piece; NULL: never */
    void (*on_progress)(void *ctx, uint64_t done, uint64_t total); /* bytes; from any thread, one at a time */
    void *ctx;                                                     /* of on_progress */
} GgufWork;

typedef enum GgufResult { GGUF_OK, GGUF_FAILED, GGUF_CANCELLED } GgufResult;

/* Does one piece; from any thread. `buffer` is the thread's own and holds the piece, rounded up to a multiple of 8
 * bytes. 0, or an errno that ends the work. */
typedef int GgufPieceFn(void *ctx, GgufPiece p, uint8_t *buffer);

/* Calls f for every piece of every tensor, handed out in the order of the file. *error: the errno of the first that
 * failed. */
GgufResult gguf_pieces(const GgufImage *m, const GgufWork *o, GgufPieceFn *f, void *ctx, int *error);

/* ==== Writing it ==== */

typedef struct GgufWrite {
    GgufWork work;
    GgufPieceFn *fill; /* puts the bytes of the piece into the buffer */
    /* Looks at the file when all of it is on the disk, before it gets its name; `path` is what it is called until then.
     * Anything but GGUF_OK, and the file goes away. NULL: no one looks, and the disk may take its time. */
    GgufResult (*check)(void *ctx, const char *path);
    void *ctx; /* of fill and check */
} GgufWrite;

/* False after an error in diag: the file system of `path` has less than that free. */
bool gguf_room(const char *path, uint64_t bytes, Diag *diag);

/* Writes beside `path` and renames at the end: the file is whole or not there. Memory: 1 MiB a thread. Messages about
 * the file go to diag; when fill failed with ECANCELED or check did, they have said why themselves. */
GgufResult gguf_write(const GgufImage *m, const char *path, const GgufWrite *o, Diag *diag);

#endif
