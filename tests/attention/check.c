/* check.c - see check.h. */
#include "tests/attention/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void trial_fail(Trial *t, const char *what) {
    if (t->failures++ < 10)
        printf("FAILED: %s: %s\n", t->of->name, what);
}

void trial_open(Trial *t, Lab *l, const AttendCase *c, int rows) {
    *t = (Trial){.of = c, .lab = l};
    for (int s = 0; s < SEQUENCES; s++) {
        t->start[s] = s == 0 ? c->start : s == 1 ? c->start / 3 : 0;
        t->history[s] = history_new(c, s, t->start[s] + rows);
    }
    t->cache_k = lab_memory(l, trial_cache_bytes(t, c->k_dim), 0);
    t->cache_v = lab_memory(l, trial_cache_bytes(t, c->v_dim), 0);
    float weight[512], slopes[64];
    double turns[512];
    for (int i = 0; i < 512; i++) {
        weight[i] = case_weight(i);
        turns[i] = case_turn(c, i);
    }
    for (int i = 0; i < 64; i++)
        slopes[i] = case_slope(i);
    t->weight = lab_upload(l, weight, sizeof weight);
    t->turns = lab_upload(l, turns, sizeof turns);
    t->slopes = lab_upload(l, slopes, sizeof slopes);
}

void trial_close(Trial *t) {
    const DevPtr all[] = {t->cache_k, t->cache_v, t->weight, t->turns, t->slopes};
    for (int i = 0; i < 5; i++)
        dev_free(t->lab->device, all[i]);
    for (int s = 0; s < SEQUENCES; s++)
        history_free(&t->history[s]);
}

size_t trial_cache_bytes(const Trial *t, int dim) {
    return (size_t)SEQUENCES * (size_t)t->of->capacity * (size_t)(t->of->kv_heads * dim) * 2;
}

void trial_rewind(Trial *t) {
    const size_t bytes_k = trial_cache_bytes(t, t->of->k_dim), bytes_v = trial_cache_bytes(t, t->of->v_dim);
    uint16_t *k = malloc(bytes_k), *v = malloc(bytes_v);
    for (int s = 0; s < SEQUENCES; s++) {
        t->length[s] = t->start[s];
        history_cache(&t->history[s], t->start[s], k + (size_t)s * bytes_k / 2 / SEQUENCES,
                      v + (size_t)s * bytes_v / 2 / SEQUENCES);
    }
    lab_in(t->lab, t->cache_k, k, bytes_k);
    lab_in(t->lab, t->cache_v, v, bytes_v);
    free(k);
    free(v);
}

/* Relative errors: of rounding to 16 bits q, the weights and, a little, the sums. */
static double tolerance(const AttendCase *c) {
    return c->bf16 ? 1e-2 : 1.2e-3;
}

void trial_compare(Trial *t, RowOf row, const float *out) {
    const int n = t->of->heads * t->of->v_dim;
    double *wanted = malloc((size_t)n * sizeof *wanted), error = 0, size = 0;
    history_wanted(&t->history[row.sequence], row.pos, t->length[row.sequence], wanted);
    for (int i = 0; i < n; i++) {
        error += (out[i] - wanted[i]) * (out[i] - wanted[i]);
        size += wanted[i] * wanted[i];
    }
    free(wanted);
    if (!(error <= size * 9 * tolerance(t->of) * tolerance(t->of))) {
        char text[120];
        snprintf(text, sizeof text, "sequence %d, position %d of %d: relative error %.1e", row.sequence, row.pos,
                 t->length[row.sequence], sqrt(error / size));
        trial_fail(t, text);
    }
    t->error += error;
    t->size += size;
}

bool trial_report(Trial *t, const char *what) {
    const double relative = sqrt(t->error / t->size);
    if (!(relative <= tolerance(t->of)))
        trial_fail(t, "the error is too large");
    printf("%-8s %-34s relative error %.1e%s\n", what, t->of->name, relative, t->failures ? "  <-- FAILED" : "");
    return t->failures == 0;
}
