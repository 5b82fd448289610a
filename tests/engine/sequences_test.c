/* sequences_test.c - several sequences on a GPU, real or emulated, against the evaluator and against themselves alone.
 *
 *   sequences_test MODEL.gguf [DRIVER NVRTC KERNEL_CACHE]
 *
 * Prefill in odd chunks, far enough for rings to wrap; decode calls of 1, 2, 5, 8 and 16 rows of all sequences in any
 * order, each row bit for bit what it is alone; sequences cut short and gone on with; tokens picked on the device for
 * all sequences at once, as the Sampler of the host picks them. Logits may differ from the evaluator's, whose K/V are
 * f16 too, by a relative RMS of 1e-2: in matmuls and attention activations are rounded to f16 or smaller pieces.
 */
#include "tests/engine/model.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 3, CHUNK = 24, CONTEXT = 192, ROWS = 16 };
#define MOST_RMS 1e-2

static const int32_t all_rows[ROWS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static double worst;

static void compare(const Model *m, const float *got, const float *want, int n, const char *what) {
    for (int i = 0; i < n; i++) {
        const double error = relative_rms(got + (int64_t)i * m->vocab, want + (int64_t)i * m->vocab, m->vocab);
        worst = error > worst ? error : worst;
        check(error <= MOST_RMS, "%s: row %d: relative RMS %.2e", what, i, error);
    }
}

/* ==== Prefill ==== */

static void prefill(Model *m, int slot, int64_t to, const int *sizes, int n_sizes) {
    static float got[1 << 12], want[1 << 12];
    for (int i = 0; m->length[slot] < to; i++) {
        const int64_t left = to - m->length[slot], size = sizes[i % n_sizes];
        const int n = (int)(left < size ? left : size);
        Row rows[MAX_CALL];
        const int32_t last = n - 1;
        rows_of(m, slot, n, rows);
        on_gpu(m, rows, n, &last, 1, got);
        on_eval(m, rows, n, &last, 1, want);
        compare(m, got, want, 1, "the last row of a chunk");
        advance(m, rows, n);
    }
}

/* ==== Decode ==== */

/* n rows, of the sequences in turn, several of one behind each other in the call or not. */
static void choose_rows(const Model *m, int n, int turn, Row *out) {
    int64_t length[SLOTS];
    for (int s = 0; s < SLOTS; s++)
        length[s] = m->length[s];
    for (int i = 0; i < n; i++) {
        const int s = turn % 2 ? (i + turn) % SLOTS : (i * SLOTS / n + turn) % SLOTS;
        out[i] = (Row){s, length[s]++};
    }
}

static void same_alone(Model *m, const Row *rows, int n, const float *together) {
    static float alone[1 << 12];
    for (int i = 0; i < n; i++) {
        on_gpu(m, &rows[i], 1, all_rows, 1, alone);
        check(memcmp(alone, together + (int64_t)i * m->vocab, (size_t)m->vocab * sizeof *alone) == 0,
              "row %d of %d, position %lld of sequence %d, differs from what it is alone", i, n, (long long)rows[i].pos,
              rows[i].slot);
    }
}

static void decode(Model *m, int n, int turn) {
    static float got[ROWS << 12], want[ROWS << 12];
    Row rows[ROWS] = {{0}};
    choose_rows(m, n, turn, rows);
    on_gpu(m, rows, n, all_rows, n, got);
    on_eval(m, rows, n, all_rows, n, want);
    compare(m, got, want, n, "a decode call");
    for (int s = 0; s < SLOTS; s++)
        gpu_truncate(m->gpu, s, m->length[s]);
    same_alone(m, rows, n, got);
    advance(m, rows, n);
}

static void decode_rounds(Model *m) {
    static const int counts[] = {1, 2, 5, 8, 16};
    for (size_t i = 0; i < COUNTOF(counts); i++)
        decode(m, counts[i], (int)i);
}

/* ==== Cutting short ==== */

static void truncate_and_go_on(Model *m) {
    static const int sizes[] = {17, 3};
    for (int i = 0; i < MAX_POSITIONS; i++) { /* other tokens than those that were there */
        m->tokens[1][i] = (m->tokens[1][i] + 1) % m->vocab;
        m->tokens[2][i] = (m->tokens[2][i] + 1) % m->vocab;
    }
    truncate_to(m, 1, m->length[1] - 10);
    truncate_to(m, 2, 0);
    prefill(m, 1, m->length[1] + 20, sizes, 2);
    prefill(m, 2, 39, sizes, 2);
    decode(m, 5, 1);
}

/* ==== Picking ==== */

enum { PICKS = 6, AHEAD = 3 };

static const SampleOptions samples[SLOTS] = {
    {.temperature = 0, .top_p = 1, .repeat_penalty = 1.2f, .repeat_last = 20, .seed = 1},
    {.temperature = 0.9f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1, .seed = 2},
    {.temperature = 1.1f, .top_p = 0.8f, .repeat_penalty = 1.3f, .repeat_last = -1, .seed = 3},
};

/* What the host picks from the logits of each step; the picks are fed. */
static void pick_on_host(Model *m, int32_t picks[PICKS][SLOTS]) {
    static float logits[SLOTS << 12];
    Sampler *of[SLOTS];
    for (int s = 0; s < SLOTS; s++) {
        of[s] = sampler_new(&samples[s], m->vocab);
        for (int64_t i = 0; i <= m->length[s]; i++)
            sampler_accept(of[s], m->tokens[s][i]);
    }
    for (int i = 0; i < PICKS; i++) {
        Row rows[SLOTS];
        for (int s = 0; s < SLOTS; s++)
            rows[s] = (Row){s, m->length[s]};
        on_gpu(m, rows, SLOTS, all_rows, SLOTS, logits);
        advance(m, rows, SLOTS);
        for (int s = 0; s < SLOTS; s++) {
            const int32_t id = sampler_pick(of[s], logits + (int64_t)s * m->vocab);
            sampler_accept(of[s], id);
            picks[i][s] = m->tokens[s][m->length[s]] = id;
        }
    }
    for (int s = 0; s < SLOTS; s++)
        sampler_free(of[s]);
}

static void pick_on_device(Model *m, int32_t picks[PICKS][SLOTS]) {
    int32_t tokens[SLOTS], pos[SLOTS];
    const EvalInput in[] = {{"tokens", tokens}, {"pos", pos}, {"rows", all_rows}};
    const EvalCall c = {
        .graph = m->step, .T = SLOTS, .R = SLOTS, .slots = all_rows, .inputs = in, .n_inputs = COUNTOF(in)};
    bool ok = true;
    for (int s = 0; s < SLOTS; s++) {
        tokens[s] = m->tokens[s][m->length[s]];
        pos[s] = (int32_t)m->length[s];
        ok = ok && gpu_sample_start(m->gpu, "step", s, &samples[s], m->tokens[s], m->length[s] + 1, m->diag);
    }
    ok = ok && gpu_sample_call(m->gpu, &c, PICK_NEXT, m->diag);
    int enqueued = 1;
    for (int i = 0; i < PICKS && ok; i++) {
        for (; enqueued < PICKS && enqueued <= i + AHEAD && ok; enqueued++)
            ok = gpu_sample_next(m->gpu, "step", PICK_NEXT, m->diag);
        ok = ok && gpu_sample_take(m->gpu, "step", PICK_NEXT, picks[i], m->diag);
    }
    if (!ok)
        diag_print(m->diag, stdout, false);
    check(ok, "picking on the device");
}

static void same_picks(Model *m) {
    int64_t before[SLOTS];
    int32_t host[PICKS][SLOTS], device[PICKS][SLOTS] = {{0}};
    memcpy(before, m->length, sizeof before);
    pick_on_host(m, host);
    for (int s = 0; s < SLOTS; s++) {
        gpu_truncate(m->gpu, s, before[s]);
        m->length[s] = before[s];
    }
    pick_on_device(m, device);
    for (int i = 0; i < PICKS; i++)
        for (int s = 0; s < SLOTS; s++)
            check(host[i][s] == device[i][s], "pick %d of sequence %d is %d, on the host it is %d", i, s, device[i][s],
                  host[i][s]);
}

int main(int argc, char **argv) {
    static const int sizes[SLOTS][3] = {{23, 17, 24}, {19, 20, 21}, {24, 18, 1}};
    static const int64_t lengths[SLOTS] = {131, 40, 77};
    static Model m;
    if (argc != 2 && argc != 5) {
        fprintf(stderr, "usage: sequences_test MODEL.gguf [DRIVER NVRTC KERNEL_CACHE]\n");
        return 2;
    }
    const Places p = argc == 5 ? (Places){argv[2], argv[3], argv[4]} : (Places){NULL, NULL, NULL};
    if (!gpu_present(p.driver)) {
        printf("no GPU: skipped\n");
        return 77;
    }
    const ModelOptions o = {.path = argv[1], .slots = SLOTS, .context = CONTEXT, .chunk = CHUNK};
    model_open(&m, &o, &p);
    check(m.vocab <= 1 << 12, "a vocabulary of %d is too large for this test", m.vocab);
    for (int s = 0; s < SLOTS && !failures; s++)
        prefill(&m, s, lengths[s], sizes[s], 3);
    printf("prefill, worst relative RMS so far %.2e\n", worst);
    decode_rounds(&m);
    printf("decode, worst so far %.2e\n", worst);
    truncate_and_go_on(&m);
    printf("cut short, worst so far %.2e\n", worst);
    same_picks(&m);
    model_close(&m);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
