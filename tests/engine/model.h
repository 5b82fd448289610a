/* model.h - a model on a GPU and on the evaluator at once, for tests: the same module, the same calls. */
#ifndef LAP_TESTS_ENGINE_MODEL_H
#define LAP_TESTS_ENGINE_MODEL_H

#include "ir/eval.h"
#include "runtime/engine/gpu.h"
#include "runtime/engine/session.h"
#include "runtime/weights/weights.h"

enum { MAX_SLOTS = 4, MAX_POSITIONS = 512, MAX_CALL = 64 };

/* Where things are: of the emulated device, or NULL: of the machine. */
typedef struct Places {
    const char *driver, *nvrtc, *kernel_cache;
} Places;

typedef struct Model {
    Arena *arena;
    Diag *diag;
    Weights *weights;
    Module *module;
    const Graph *step;
    const void **data;
    Gpu *gpu;
    Evaluator *eval;
    int slots, vocab;
    int32_t tokens[MAX_SLOTS][MAX_POSITIONS]; /* what each sequence is fed at each position */
    int64_t length[MAX_SLOTS];
} Model;

typedef struct ModelOptions {
    const char *path; /* weights of a built-in text */
    int slots;
    int64_t context, chunk;
    int64_t timed_rows, timed_wanted; /* as GpuOptions has them */
    TuneOptions tune;
} ModelOptions;

/* K/V in f16 on both. Prints and exits where something fails. */
void model_open(Model *m, const ModelOptions *o, const Places *p);
void model_close(Model *m);

/* A row of a call: position and token follow from the sequence. */
typedef struct Row {
    int slot;
    int64_t pos;
} Row;

/* Rows of one sequence, from its length on. */
int rows_of(const Model *m, int slot, int n, Row *out);
/* Logits [n_wanted, vocab] of the wanted rows. */
void on_gpu(Model *m, const Row *rows, int n, const int32_t *wanted, int n_wanted, float *logits);
void on_eval(Model *m, const Row *rows, int n, const int32_t *wanted, int n_wanted, float *logits);
/* The sequences have those rows now. */
void advance(Model *m, const Row *rows, int n);
void truncate_to(Model *m, int slot, int64_t length);

/* Prints and exits where it does not open. */
Session *must_open(const SessionOptions *o, Diag *diag);
/* A session on the GPU, with a drafter or NULL and K/V as it chooses; must_open(). */
Session *gpu_session(const char *path, const char *draft, int64_t context, int64_t chunk, const Places *p, Diag *diag);

/* ==== Results ==== */

double relative_rms(const float *got, const float *want, int64_t n);
/* Prints what is wrong and counts it. */
__attribute__((format(printf, 2, 3))) void check(bool ok, const char *fmt, ...);
extern int failures;

#endif
