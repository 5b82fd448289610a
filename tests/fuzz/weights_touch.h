/* weights_touch.h - what the fuzz targets and the mutation test do with a parsed weights file: read
 * everything the reader handed out, so that a sanitizer sees a wrong pointer or size, and check the
 * promises that hold for any input.
 */
#ifndef LAP_WEIGHTS_TOUCH_H
#define LAP_WEIGHTS_TOUCH_H

#include "runtime/weights/weights.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef Weights *(*ParseFn)(const void *data, size_t size, const char *path, Diag *diag);

#define PROMISE(cond)                                                                                                  \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            ICE("broken promise: %s", #cond);                                                                          \
    } while (0)

static uint64_t touch_bytes(const void *p, uint64_t n) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += ((const uint8_t *)p)[i];
    return sum;
}

static uint64_t touch_value(const MetaValue *v) {
    uint64_t sum = 0;
    PROMISE(v->n >= 0 && (v->is_array || v->n == 1));
    for (int64_t i = 0; i < v->n; i++) {
        if (v->kind == META_STRING)
            sum += touch_bytes(v->s[i].s, v->s[i].n);
        else if (v->kind == META_FLOAT)
            PROMISE(isfinite(v->f[i]));
        else
            sum += (uint64_t)v->i[i];
    }
    return sum;
}

static uint64_t touch_tensor(const TensorInfo *t, const void *data, size_t size) {
    const uint8_t *p = t->data;
    PROMISE(t->rank >= 0 && t->rank <= MAX_DIMS && t->name[0]);
    PROMISE(p >= (const uint8_t *)data && t->bytes <= size - (size_t)(p - (const uint8_t *)data));
    for (int i = 0; i < t->rank; i++)
        PROMISE(t->dims[i] >= 0);
    uint64_t some = t->bytes < 4096 ? t->bytes : 4096;
    return touch_bytes(p, some) + touch_bytes(p + t->bytes - some, some);
}

/* No byte of the input may reach a terminal as a control character. */
static uint64_t touch_messages(const Diag *d) {
    char *text = diag_text(d);
    uint64_t n = strlen(text);
    for (uint64_t i = 0; i < n; i++)
        PROMISE((unsigned char)text[i] >= 0x20 || text[i] == '\n');
    free(text);
    return n;
}

/* Parses and reads all of it. True when the file was accepted. */
static bool touch_weights(ParseFn parse, const void *data, size_t size) {
    static volatile uint64_t sink; /* keeps the reads */
    uint64_t sum = 0;
    Diag *diag = diag_new();
    Weights *w = parse(data, size, "input", diag);
    bool accepted = w != NULL;
    PROMISE(accepted == (diag_errors(diag) == 0));
    if (w) {
        const ModelFile *f = weights_file(w);
        PROMISE(f->arch && f->path);
        for (int i = 0; i < f->n_meta; i++) {
            PROMISE(modelfile_meta(f, f->meta[i].key) == &f->meta[i].value);
            sum += touch_value(&f->meta[i].value);
        }
        for (int i = 0; i < f->n_tensors; i++) {
            PROMISE(modelfile_tensor(f, f->tensors[i].name) == &f->tensors[i]);
            sum += touch_tensor(&f->tensors[i], data, size);
        }
    }
    sink = sum + touch_messages(diag);
    (void)sink;
    weights_close(w);
    diag_free(diag);
    return accepted;
}

#endif
