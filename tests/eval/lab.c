/* lab.c - see lab.h. */
#include "tests/eval/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t state;

void lab_seed(int argc, char **argv) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)now.tv_nsec / 16;
    printf("seed %llu\n", (unsigned long long)state);
}

/* splitmix64 */
uint64_t lab_bits(void) {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

int64_t lab_int(int64_t lo, int64_t hi) {
    return lo + (int64_t)(lab_bits() % (uint64_t)(hi - lo + 1));
}

double lab_real(double lo, double hi) {
    return lo + (hi - lo) * ((double)(lab_bits() >> 11) * 0x1p-53);
}

Lab *lab_new(int64_t T, int64_t R) {
    Arena *a = arena_new();
    Lab *l = arena_alloc(a, sizeof *l);
    l->arena = a;
    l->diag = diag_new();
    l->m = module_new(a, l->diag, "lab", "lab");
    l->g = graph_new(l->m, "step", NO_LOC);
    vec_push(a, &l->m->graphs, l->g);
    l->T = T;
    l->R = R;
    l->threads = 2;
    return l;
}

void lab_free(Lab *l) {
    diag_free(l->diag);
    arena_free(l->arena);
}

void lab_no_errors(Lab *l) {
    if (diag_count(l->diag)) {
        diag_print(l->diag, stdout, false);
        fail_msg("unexpected messages");
    }
}

/* ==== Inputs ==== */

static int64_t elems_of(const Lab *l, int rank, const int64_t *dim) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dim[i] == DIM_T ? l->T : dim[i] == DIM_R ? l->R : dim[i];
    return n;
}

static NodeId add_input(Lab *l, const char *name, DType t, void *data, int rank, const int64_t *dim) {
    assert_true(l->n_in < (int)COUNTOF(l->in));
    l->in[l->n_in++] = (EvalInput){name, data};
    NodeId id = ir_input(l->g, name, type_make(t, rank, dim), NO_LOC);
    lab_no_errors(l);
    return id;
}

NodeId lab_floats(Lab *l, const char *name, int rank, const int64_t *dim) {
    int64_t n = elems_of(l, rank, dim);
    float *x = arena_array(l->arena, (size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)lab_real(-2, 2);
    return add_input(l, name, DT_F32, x, rank, dim);
}

NodeId lab_ints(Lab *l, const char *name, int64_t lo, int64_t hi, int rank, const int64_t *dim) {
    int64_t n = elems_of(l, rank, dim);
    int32_t *x = arena_array(l->arena, (size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (int32_t)lab_int(lo, hi);
    return add_input(l, name, DT_I32, x, rank, dim);
}

NodeId lab_rows(Lab *l) {
    return lab_ints(l, "rows", 0, l->T - 1, DIMS(DIM_R));
}

NodeId lab_pos(Lab *l) {
    NodeId id = lab_ints(l, "pos", 0, 0, DIMS(DIM_T));
    for (int64_t t = 0; t < l->T; t++)
        ((int32_t *)lab_in(l, "pos"))[t] = (int32_t)t;
    return id;
}

void *lab_in(Lab *l, const char *name) {
    for (int i = 0; i < l->n_in; i++)
        if (strcmp(l->in[i].name, name) == 0)
            return (void *)(uintptr_t)l->in[i].data;
    fail_msg("no input %s", name);
    return NULL;
}

/* Random bytes make valid blocks but for the scales: f16 of either sign, magnitude 2^-6 .. 2^-3. */
void lab_random_blocks(DType t, uint8_t *dst, int64_t elems) {
    static const struct {
        DType type;
        int n, at[2];
    } scales[] = {{DT_Q4_0, 1, {0}},    {DT_Q4_1, 2, {0, 2}},   {DT_Q5_0, 1, {0}},   {DT_Q5_1, 2, {0, 2}},
                  {DT_Q8_0, 1, {0}},    {DT_Q2_K, 2, {80, 82}}, {DT_Q3_K, 1, {108}}, {DT_Q4_K, 2, {0, 2}},
                  {DT_Q5_K, 2, {0, 2}}, {DT_Q6_K, 1, {208}},    {DT_IQ4_NL, 1, {0}}, {DT_IQ4_XS, 1, {0}},
                  {DT_F16, 1, {0}}};
    const DTypeInfo *info = dtype_info(t);
    for (int64_t b = 0; b < elems / info->block_elems; b++, dst += info->block_bytes) {
        for (int i = 0; i < info->block_bytes; i++)
            dst[i] = (uint8_t)lab_bits();
        float f = (float)lab_real(-2, 2);
        uint16_t h = f32_to_bf16(f);
        if (t == DT_F32)
            memcpy(dst, &f, sizeof f);
        if (t == DT_BF16)
            memcpy(dst, &h, sizeof h);
        if (t == DT_MXFP4)
            dst[0] = (uint8_t)lab_int(118, 124);
        for (size_t s = 0; s < COUNTOF(scales); s++)
            for (int i = 0; scales[s].type == t && i < scales[s].n; i++) {
                uint8_t *high = dst + scales[s].at[i] + 1;
                *high = (uint8_t)((*high & 0x83) | lab_int(9, 12) << 2);
            }
    }
}

NodeId lab_weight(Lab *l, const char *name, DType t, int rank, const int64_t *dim) {
    int64_t n = elems_of(l, rank, dim);
    uint8_t *bytes = (uint8_t *)arena_alloc(l->arena, dtype_row_bytes(t, n) + 1) + 1;
    lab_random_blocks(t, bytes, n);
    int w = module_add_weight(l->m, (Weight){.name = name, .type = type_make(t, rank, dim)});
    assert_true(w < (int)COUNTOF(l->data));
    l->data[w] = bytes;
    return ir_weight(l->g, w, NO_LOC);
}

const float *lab_weight_values(Lab *l, const char *name) {
    int w = module_weight(l->m, name);
    const Type *t = &l->m->weights.v[w].type;
    float *x = arena_array(l->arena, (size_t)type_row_elems(t), sizeof *x);
    dequant_row(t->dtype, l->data[w], x, type_row_elems(t));
    return x;
}

double *lab_doubles(Lab *l, int64_t n) {
    return arena_array(l->arena, (size_t)n, sizeof(double));
}

/* ==== Running ==== */

int64_t lab_elems(const Lab *l, NodeId id) {
    const Type *t = ir_type(l->g, id);
    return elems_of(l, t->rank, t->dim);
}

EvalCall lab_call(Lab *l) {
    return (EvalCall){.graph = l->g, .T = l->T, .R = l->R, .inputs = l->in, .n_inputs = l->n_in};
}

void *lab_eval(Lab *l, NodeId id) {
    lab_no_errors(l);
    assert_int_not_equal(id, 0);
    const char *name = arena_printf(l->arena, "out.%d", l->g->outputs.n);
    ir_output(l->g, OUT_EMIT, name, id, NO_LOC);
    Evaluator *e = eval_new(l->m, l->data, &(EvalOptions){.threads = l->threads});
    lab_no_errors(l);
    EvalOutput out = {name, arena_array(l->arena, (size_t)lab_elems(l, id) + 1, sizeof(float))};
    EvalCall call = lab_call(l);
    call.outputs = &out;
    call.n_outputs = 1;
    bool ok = eval_call(e, &call, l->diag);
    lab_no_errors(l);
    assert_true(ok);
    eval_free(e);
    return out.data;
}

void lab_expect_sized(Lab *l, NodeId id, const double *want, const double *size, double tol) {
    const float *got = lab_eval(l, id);
    for (int64_t i = 0; i < lab_elems(l, id); i++)
        if (!(fabs(got[i] - want[i]) <= tol * (size ? size[i] : 1 + fabs(want[i]))))
            fail_msg("%s[%lld] is %.9g, not %.9g (T %lld)", op_info(ir_get(l->g, id)->op)->name, (long long)i, got[i],
                     want[i], (long long)l->T);
}

void lab_expect(Lab *l, NodeId id, const double *want, double tol) {
    lab_expect_sized(l, id, want, NULL, tol);
}

void lab_expect_error(Lab *l, const EvalCall *call, const char *part) {
    lab_no_errors(l);
    Evaluator *e = eval_new(l->m, l->data, &(EvalOptions){.threads = l->threads, .context = 8});
    bool ok = e && eval_call(e, call, l->diag);
    char *text = diag_text(l->diag);
    if (ok || diag_errors(l->diag) != 1 || !strstr(text, part))
        fail_msg("wanted an error with '%s', got %s: %s", part, ok ? "success" : "failure", text);
    free(text);
    diag_clear(l->diag);
    eval_free(e);
}
