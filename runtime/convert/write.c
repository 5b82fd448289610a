/* write.c - the bytes of a converted file, and the comparison of what was written with what it was made of. */
#include "runtime/convert/convert_int.h"
#include "runtime/weights/weights.h"
#include <errno.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

enum { RUN = 2048 /* elements worked on at once: whole blocks of every type */ };

/* How far a value may be from what it was made of: a part of the largest of its block, and what the f16 that is nearest
 * to a small scale makes of the largest code. A file whose values lie where they should keeps well within; one with a
 * block in the wrong place does not. */
static const struct Bound {
    DType type;
    double part, least;
} bounds[] = {
    {DT_F32, 0, 0},           {DT_I32, 0, 0},
    {DT_BF16, 0x1p-8, 0},     {DT_Q8_0, 0.005, 127 * 0x1p-25}, /* half a step */
    {DT_Q5_0, 0.07, 0x1p-20}, {DT_Q4_0, 0.14, 0x1p-21},        /* a step, where the other sign ends */
    {DT_Q4_K, 0.2, 0x1p-14},  {DT_Q6_K, 0.08, 0x1p-12},        /* searched: steps differ */
};

typedef struct Job {
    const Conversion *c;
    const ConvertWork *work;
    Diag *diag;
    bool is_checking;
    const ModelFile *written; /* while checking */
    ConvertTotals *totals;
    pthread_mutex_t lock; /* guards the rest */
    double *error, *size; /* [n_tensors] sums of squares, of differences and of values */
    int bad;              /* a tensor that cannot be converted or came back wrong; -1: none */
    int64_t bad_at;       /* its element */
} Job;

/* ==== Values of the checkpoint ==== */

/* Elements at .. at + n - 1 as f32. */
static void source_values(const ConvertFrom *f, int64_t at, float *out, int64_t n) {
    if (!f->tensor) {
        for (int64_t k = 0; k < n; k++)
            out[k] = at + k < f->first ? f->a : f->b;
        return;
    }
    const uint8_t *p = f->tensor->data;
    dequant_row(f->tensor->dtype, p + (size_t)at * (size_t)dtype_info(f->tensor->dtype)->block_bytes, out, n);
}

static int64_t source_integer(const ConvertFrom *f, int64_t at) {
    const uint8_t *p = f->tensor->data;
    int32_t narrow;
    int64_t wide;
    if (f->tensor->dtype == DT_I32) {
        memcpy(&narrow, p + 4 * at, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, p + 8 * at, sizeof wide);
    return wide;
}

/* The first that cannot be stored: no finite number, or one whose scale in f16 is none; n: all can. */
static int64_t find_unusable(DType type, const float *x, int64_t n) {
    const float most = dtype_info(type)->block_elems > 1 ? 8 * 65504.0f : FLT_MAX; /* of q4_0, which holds the least */
    int64_t k = 0;
    while (k < n && fabsf(x[k]) <= most)
        k++;
    return k;
}

/* ==== Writing ==== */

static int give_up(Job *j, int tensor, int64_t at) {
    pthread_mutex_lock(&j->lock);
    if (j->bad < 0) {
        j->bad = tensor;
        j->bad_at = at;
    }
    pthread_mutex_unlock(&j->lock);
    return ECANCELED;
}

static int fill_integers(Job *j, GgufPiece p, uint8_t *buffer) {
    for (int64_t k = 0, at = (int64_t)p.at / 4; k < (int64_t)p.n / 4; k++) {
        int64_t wide = source_integer(&j->c->from[p.tensor], at + k);
        int32_t v = (int32_t)wide;
        if (v != wide)
            return give_up(j, p.tensor, at + k);
        memcpy(buffer + 4 * k, &v, sizeof v);
    }
    return 0;
}

static int fill_piece(void *ctx, GgufPiece p, uint8_t *buffer) {
    Job *j = ctx;
    DType type = j->c->image.file.tensors[p.tensor].dtype;
    const DTypeInfo *t = dtype_info(type);
    if (type == DT_I32)
        return fill_integers(j, p, buffer);
    int64_t at = (int64_t)p.at / t->block_bytes * t->block_elems;
    int64_t left = (int64_t)p.n / t->block_bytes * t->block_elems;
    while (left > 0) {
        float x[RUN];
        int64_t n = left < RUN ? left : RUN;
        source_values(&j->c->from[p.tensor], at, x, n);
        int64_t good = find_unusable(type, x, n);
        if (good < n)
            return give_up(j, p.tensor, at + good);
        quant_row(type, x, buffer, n);
        buffer += n / t->block_elems * t->block_bytes;
        at += n;
        left -= n;
    }
    return 0;
}

/* ==== Checking ==== */

static const struct Bound *bound_of(DType type) {
    for (size_t k = 0; k < COUNTOF(bounds); k++)
        if (bounds[k].type == type)
            return &bounds[k];
    ICE("no bound for %s", dtype_name(type));
}

/* Adds up errors and values of whole blocks; gives the first element that is too far off, or n. */
static int64_t compare(DType type, const float *x, const float *y, int64_t n, double *error, double *size) {
    int64_t block = dtype_info(type)->block_elems;
    const struct Bound *bound = bound_of(type);
    for (int64_t b = 0; b < n; b += block) {
        double most = 0;
        for (int64_t k = b; k < b + block; k++)
            most = fabs((double)x[k]) > most ? fabs((double)x[k]) : most;
        for (int64_t k = b; k < b + block; k++) {
            double off = (double)y[k] - x[k];
            if (!(fabs(off) <= bound->part * most + bound->least))
                return k;
            *error += off * off;
            *size += (double)x[k] * x[k];
        }
    }
    return n;
}

static int check_integers(Job *j, GgufPiece p) {
    const uint8_t *written = j->written->tensors[p.tensor].data;
    for (int64_t at = (int64_t)p.at / 4, end = at + (int64_t)p.n / 4; at < end; at++) {
        int32_t v;
        memcpy(&v, written + 4 * at, sizeof v);
        if (v != source_integer(&j->c->from[p.tensor], at))
            return give_up(j, p.tensor, at);
    }
    return 0;
}

static int check_piece(void *ctx, GgufPiece p, uint8_t *buffer) {
    (void)buffer;
    Job *j = ctx;
    const TensorInfo *got = &j->written->tensors[p.tensor];
    const DTypeInfo *t = dtype_info(got->dtype);
    if (got->dtype == DT_I32)
        return check_integers(j, p);
    int64_t at = (int64_t)p.at / t->block_bytes * t->block_elems;
    int64_t end = at + (int64_t)p.n / t->block_bytes * t->block_elems;
    const uint8_t *written = (const uint8_t *)got->data + p.at;
    double error = 0, size = 0;
    for (int64_t n; at < end; at += n) {
        float x[RUN], y[RUN];
        n = end - at < RUN ? end - at : RUN;
        source_values(&j->c->from[p.tensor], at, x, n);
        dequant_row(got->dtype, written, y, n);
        int64_t good = compare(got->dtype, x, y, n, &error, &size);
        if (good < n)
            return give_up(j, p.tensor, at + good);
        written += n / t->block_elems * t->block_bytes;
    }
    pthread_mutex_lock(&j->lock);
    j->error[p.tensor] += error;
    j->size[p.tensor] += size;
    pthread_mutex_unlock(&j->lock);
    return 0;
}

static void on_progress(void *ctx, uint64_t done, uint64_t total) {
    const Job *j = ctx;
    j->work->on_progress(j->work->ctx, j->is_checking, done, total);
}

static GgufWork work_of(Job *j) {
    return (GgufWork){.threads = j->work->threads,
                      .cancel = j->work->cancel,
                      .on_progress = j->work->on_progress ? on_progress : NULL,
                      .ctx = j};
}

static void report_bad(const Job *j) {
    if (j->bad < 0)
        return;
    const ConvertFrom *f = &j->c->from[j->bad];
    const ModelFile *file = &j->c->image.file;
    SrcLoc at = {.file = diag_source(j->diag, file->path, NULL, 0)};
    const char *name = f->tensor ? f->tensor->name : file->tensors[j->bad].name;
    if (j->is_checking)
        diag_system(j->diag, at, "tensor '%s': element %lld came back wrong from the file that was written", name,
                    (long long)j->bad_at);
    else
        diag_error(j->diag, at, "tensor '%s': element %lld is no finite number or too large for %s", name,
                   (long long)j->bad_at, dtype_name(file->tensors[j->bad].dtype));
}

static bool same_tensor(const TensorInfo *a, const TensorInfo *b) {
    return strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes &&
           memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0;
}

static bool same_layout(const Job *j, const char *path) {
    const ModelFile *want = &j->c->image.file, *got = j->written;
    bool same = want->n_tensors == got->n_tensors && want->n_meta == got->n_meta;
    for (int k = 0; same && k < want->n_tensors; k++)
        same = same_tensor(&want->tensors[k], &got->tensors[k]);
    if (!same)
        diag_system(j->diag, NO_LOC, "%s: keys or tensors came back other than they were written", path);
    return same;
}

/* As the reader of weights sees it. */
static GgufResult check_file(void *ctx, const char *path) {
    Job *j = ctx;
    int error = 0;
    Weights *w = weights_open(path, j->diag);
    if (!w)
        return GGUF_FAILED;
    j->written = weights_file(w);
    j->is_checking = true;
    GgufWork work = work_of(j);
    GgufResult r = same_layout(j, path) ? gguf_pieces(&j->c->image, &work, check_piece, j, &error) : GGUF_FAILED;
    if (error && error != ECANCELED)
        diag_system(j->diag, NO_LOC, "%s: cannot be checked: %s", path, strerror(error));
    weights_close(w);
    return r;
}

/* ==== All of it ==== */

static void sum_up(const Job *j) {
    const ModelFile *f = &j->c->image.file;
    for (int k = 0; k < f->n_tensors; k++) {
        const TensorInfo *t = &f->tensors[k];
        ConvertTotals *total = &j->totals[t->dtype];
        double error = j->size[k] > 0 ? sqrt(j->error[k] / j->size[k]) : 0;
        int64_t elems = 1;
        for (int r = 0; r < t->rank; r++)
            elems *= t->dims[r];
        total->tensors++;
        total->bytes += t->bytes;
        total->elems += (uint64_t)elems;
        if (error > total->worst) {
            total->worst = error;
            total->worst_named = t->name;
        }
    }
}

GgufResult convert_write(const Conversion *c, const char *path, const ConvertWork *work, Diag *diag,
                         ConvertTotals *totals) {
    Arena *a = arena_new();
    size_t n = (size_t)c->image.file.n_tensors + 1;
    Job j = {.c = c, .work = work, .diag = diag, .totals = totals, .bad = -1};
    j.error = arena_array(a, n, sizeof *j.error);
    j.size = arena_array(a, n, sizeof *j.size);
    pthread_mutex_init(&j.lock, NULL);
    GgufWrite o = {.work = work_of(&j), .fill = fill_piece, .check = check_file, .ctx = &j};
    GgufResult r = gguf_write(&c->image, path, &o, diag);
    report_bad(&j);
    if (r == GGUF_OK)
        sum_up(&j);
    pthread_mutex_destroy(&j.lock);
    arena_free(a);
    return r;
}
