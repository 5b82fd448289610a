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
    t->cache_k = lab_memory(l, trial_cache_bytes(t, false), 0);
    t->cache_v = lab_memory(l, trial_cache_bytes(t, true), 0);
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

size_t trial_cache_bytes(const Trial *t, bool values) {
    const Plane p = case_plane(t->of, values);
    return SEQUENCES * plane_bytes(&p);
}

static void rewind_plane(Trial *t, bool values) {
    const Plane p = case_plane(t->of, values);
    uint8_t *all = malloc(trial_cache_bytes(t, values));
    for (int s = 0; s < SEQUENCES; s++)
        history_cache(&t->history[s], values, t->start[s], all + (size_t)s * plane_bytes(&p));
    lab_in(t->lab, values ? t->cache_v : t->cache_k, all, trial_cache_bytes(t, values));
    free(all);
}

void trial_rewind(Trial *t) {
    memcpy(t->length, t->start, sizeof t->length);
    rewind_plane(t, false);
    rewind_plane(t, true);
}

/* Of numbers stored by the device, so many of a hundred may be neighbours of what they should be: codes and elements
 * where a prepared value is as near to both. And one of so many may be something else: near 0 of 16 bits a small
 * difference is many neighbours away. */
enum { NEIGHBOURS = 5, FAR_OF = 200 };

static void check_plane(Trial *t, bool values, int sequence, int first) {
    const Plane p = case_plane(t->of, values);
    History *h = &t->history[sequence];
    const int length = t->length[sequence], oldest = length > p.capacity ? length - p.capacity : 0;
    uint8_t *got = malloc(plane_bytes(&p)), *wanted = malloc(plane_bytes(&p)), *row = malloc(plane_row_bytes(&p));
    int other = 0, far = 0, numbers = 0;
    lab_out(t->lab, got, (values ? t->cache_v : t->cache_k) + (uint64_t)sequence * plane_bytes(&p), plane_bytes(&p));
    history_cache(h, values, length, wanted);
    for (int pos = first > oldest ? first : oldest; pos < length; pos++) {
        plane_get(&p, got, pos, row);
        plane_compare(&p, row, history_row(h, values, pos), &other, &far);
        plane_put(&p, got, pos, history_row(h, values, pos));
        history_take(h, values, pos, row);
        numbers += p.heads * p.dim;
    }
    const bool packed = kv_group(p.type) != 0;
    if (memcmp(got, wanted, plane_bytes(&p)) != 0)
        trial_fail(t, values ? "values that nobody stores have changed" : "keys that nobody stores have changed");
    if (!t->of->prepare && other)
        trial_fail(t, "rows that need no preparing are not stored bit for bit");
    if (far > (packed ? 0 : numbers / FAR_OF) || (packed && other > numbers * NEIGHBOURS / 100))
        trial_fail(t, "stored rows are not right");
    free(got);
    free(wanted);
    free(row);
}

void trial_check_caches(Trial *t, int sequence, int first) {
    check_plane(t, false, sequence, first);
    check_plane(t, true, sequence, first);
}

/* Relative errors: of rounding to 16 bits q, the weights and, a little, the sums; packed keys and values are rounded,
 * too. Over all rows: found are up to 3e-3 with bf16, 4e-4 with f16 and 7e-4 with packed ones. */
static double tolerance(const AttendCase *c) {
    if (c->k_type == DT_BF16 || c->v_type == DT_BF16)
        return 1e-2;
    return kv_group(c->k_type) || kv_group(c->v_type) ? 2e-3 : 1.2e-3;
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
