/* oracle.c - see oracle.h. A table of logits by position, 1 for the guess, or NaN, and 0 for all else. */
#include "tests/engine/oracle.h"

#include "runtime/gguf/image.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char text[] = "model oracle from gguf \"oracle\" uses target: gemma4 {\n"
                           "  param most : int = meta(\"most\")\n"
                           "  drafts block(most = most, mask = 0)\n"
                           "  entry absorb(pos: pos[T]) { tap seen = embed(pos, \"logits\") }\n"
                           "  entry draft(tokens: token[T], pos: pos[T]) {\n"
                           "    emit logits = rows(embed(pos, \"logits\") + 0.0 * embed(tokens, \"zeros\"))\n"
                           "  }\n"
                           "}\n";

static void must(bool ok, const char *path) {
    if (ok)
        return;
    printf("FAILED: cannot write %s\n", path);
    exit(1);
}

static FILE *new_file(const char *path) {
    FILE *f = fopen(path, "wb");
    must(f != NULL, path);
    return f;
}

/* Both tables, in the order of the image. */
static void write_tables(FILE *f, const GgufImage *m, int vocab, const int32_t *guesses, int n) {
    float *row = calloc((size_t)vocab, sizeof *row);
    if (!row)
        exit(1);
    fseek(f, (long)m->offset[0], SEEK_SET);
    for (int p = 0; p < (int)m->file.tensors[0].dims[0]; p++) {
        const int id = p < n && guesses[p] >= 0 ? guesses[p] : 0;
        row[id] = p < n && guesses[p] < 0 ? NAN : 1;
        fwrite(row, sizeof *row, (size_t)vocab, f);
        row[id] = 0;
    }
    fseek(f, (long)m->offset[1], SEEK_SET);
    for (int p = 0; p < vocab; p++)
        fwrite(row, sizeof *row, (size_t)vocab, f);
    free(row);
}

static void write_weights(const char *path, int vocab, int most, const int32_t *guesses, int n) {
    static const Str name = {"oracle", 6};
    const int64_t count = most;
    const MetaEntry keys[] = {{"general.architecture", {.kind = META_STRING, .n = 1, .s = &name}},
                              {"oracle.most", {.kind = META_INT, .n = 1, .i = &count}}};
    const int types[] = {GGUF_OUT_STRING, GGUF_OUT_U32};
    const int rows = n > vocab ? n : vocab; /* a GPU looks up tokens and positions with one bound */
    TensorInfo tensors[] = {{.name = "logits", .dtype = DT_F32, .rank = 2, .dims = {rows, vocab}},
                            {.name = "zeros", .dtype = DT_F32, .rank = 2, .dims = {vocab, vocab}}};
    Arena *a = arena_new();
    GgufMeta meta = {0};
    GgufImage m;
    for (size_t i = 0; i < COUNTOF(keys); i++) {
        vec_push(a, &meta.entries, keys[i]);
        vec_push(a, &meta.types, types[i]);
    }
    must(gguf_image(a, path, &meta, tensors, COUNTOF(tensors), &m), path);
    FILE *f = new_file(path);
    fwrite(m.header, 1, m.header_bytes, f);
    write_tables(f, &m, vocab, guesses, n);
    must(fclose(f) == 0, path);
    arena_free(a);
}

Oracle oracle_write(const char *folder, int vocab, int most, const int32_t *guesses, int n) {
    Oracle o;
    snprintf(o.weights, sizeof o.weights, "%s/oracle-%d.gguf", folder, (int)getpid());
    snprintf(o.model, sizeof o.model, "%s/oracle-%d.lap", folder, (int)getpid());
    write_weights(o.weights, vocab, most, guesses, n);
    FILE *f = new_file(o.model);
    fputs(text, f);
    must(fclose(f) == 0, o.model);
    return o;
}

void oracle_remove(const Oracle *o) {
    remove(o->weights);
    remove(o->model);
}
