/* pick_test.c - generation on a GPU, real or emulated, where tokens are picked on the device and steps are enqueued
 * ahead: against generation by the host from the same GPU's logits, and what a session is left with when it ends.
 *
 *   pick_test MODEL.gguf [DRIVER NVRTC KERNEL_CACHE]
 *
 * The model has no tokenizer, so only ids are looked at.
 */
#include "runtime/engine/generate.h"
#include "tests/engine/model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_IDS = 256, CONTEXT = 64, CHUNK = 24 };

static Places places;

typedef struct Run {
    int32_t ids[MAX_IDS];
    int n, most; /* most: ids after which the caller has enough; 0: never */
    StopReason reason;
    GenerateStats stats;
} Run;

static bool on_token(void *ctx, int32_t id, Str text) {
    Run *r = ctx;
    (void)text;
    if (id >= 0)
        r->ids[r->n++] = id;
    return !r->most || r->n < r->most;
}

static bool on_rows(void *ctx, int64_t pos, int64_t n, const float *logits, float *const *taps) {
    (void)ctx, (void)pos, (void)n, (void)logits, (void)taps;
    return true;
}

static Session *open_session(const char *path, Diag *diag) {
    return gpu_session(path, NULL, CONTEXT, CHUNK, &places, diag);
}

static const SampleOptions greedy = {.top_p = 1, .repeat_penalty = 1};

/* host: logits are wanted, so that they come to the host and are picked from there. */
static Run generate_ids(Session *s, const int32_t *prompt, int64_t n, const GenerateOptions *base, int most, bool host,
                        Diag *diag) {
    Run r = {.most = most};
    GenerateOptions o = *base;
    o.ctx = &r;
    o.token = on_token;
    o.rows = host ? on_rows : NULL;
    r.reason = generate(s, prompt, n, &o, diag, &r.stats);
    return r;
}

/* The session holds the prompt and the first `fed` of the ids, and no more. */
static void check_session(const Session *s, const int32_t *prompt, int64_t n, const Run *r, int fed, const char *what) {
    bool same = session_length(s) == n + fed;
    for (int64_t i = 0; same && i < n + fed; i++)
        same = session_tokens(s)[i] == (i < n ? prompt[i] : r->ids[i - n]);
    check(same, "%s: the session holds %lld tokens, not the prompt's %lld and %d", what, (long long)session_length(s),
          (long long)n, fed);
}

static void check_ids(const Run *got, const Run *want, const char *what) {
    int same = 0;
    while (same < got->n && same < want->n && got->ids[same] == want->ids[same])
        same++;
    check(got->n == want->n && same == want->n && got->reason == want->reason,
          "%s: %d ids (%s), %d expected (%s), the first %d alike, then %d, %d expected", what, got->n,
          stop_reason_text(got->reason), want->n, stop_reason_text(want->reason), same,
          same < got->n ? got->ids[same] : -1, same < want->n ? want->ids[same] : -1);
}

/* ==== The same ids ==== */

static const struct {
    const char *what;
    SampleOptions sample;
    int64_t count;
} rows[] = {
    {"greedy", {.top_p = 1, .repeat_penalty = 1}, 12},
    {"greedy, one token", {.top_p = 1, .repeat_penalty = 1}, 1},
    {"greedy, two tokens", {.top_p = 1, .repeat_penalty = 1}, 2},
    {"usual", {0.8f, 40, 0.95f, 0.05f, 1, 64, 3}, 12},
    {"no filter", {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 5}, 12},
    {"penalty", {1.2f, 40, 0.95f, 0, 1.4f, 9, 8}, 12},
    {"penalty for all", {.top_p = 1, .repeat_penalty = 1.3f, .repeat_last = -1}, 12},
    {"until the context is full", {.top_p = 1, .repeat_penalty = 1.1f, .repeat_last = 16}, -1},
};

static void same_ids(Session *s, const int32_t *prompt, Diag *diag) {
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        const int64_t n = rows[i].count < 0 ? CONTEXT - 9 : 30;
        const GenerateOptions o = {.sample = rows[i].sample, .max_tokens = rows[i].count};
        session_rewind(s, 0); /* nothing is reused: the same calls, so the same bits in the caches */
        const Run host = generate_ids(s, prompt, n, &o, 0, true, diag);
        session_rewind(s, 0);
        const Run device = generate_ids(s, prompt, n, &o, 0, false, diag);
        check_ids(&device, &host, rows[i].what);
        check(device.stats.steps == host.stats.steps, "%s: %lld steps, on the host %lld", rows[i].what,
              (long long)device.stats.steps, (long long)host.stats.steps);
        check_session(s, prompt, n, &device, device.n - 1, rows[i].what);
    }
}

/* ==== Ending early ==== */

/* Steps that were enqueued ahead leave nothing behind: what follows is as in a session that never did them. */
static void goes_on(Session *s, Session *fresh, const int32_t *prompt, Diag *diag) {
    enum { PROMPT = 30, FIRST = 4 };
    GenerateOptions o = {.sample = greedy, .max_tokens = 10};
    session_rewind(s, 0);
    session_rewind(fresh, 0);
    const Run whole = generate_ids(s, prompt, PROMPT, &o, 0, false, diag);
    session_rewind(s, 0);
    const Run enough = generate_ids(s, prompt, PROMPT, &o, FIRST, false, diag);
    check(enough.reason == STOP_CALLER && enough.n == FIRST, "the caller has enough: %s",
          stop_reason_text(enough.reason));
    check_session(s, prompt, PROMPT, &enough, FIRST - 1, "the caller has enough");

    int at = 1; /* the first id that did not come before is where a stop token ends the reply */
    for (int i = 0; i < at && at + 1 < whole.n; i++)
        if (whole.ids[i] == whole.ids[at]) {
            at++;
            i = -1;
        }
    session_rewind(s, 0);
    o.stop = &whole.ids[at];
    o.n_stop = 1;
    const Run stopped = generate_ids(s, prompt, PROMPT, &o, 0, false, diag);
    check(stopped.reason == STOP_TOKEN && stopped.n == at, "a stop token as id %d: %d ids, %s", at, stopped.n,
          stop_reason_text(stopped.reason));
    check_session(s, prompt, PROMPT, &stopped, at, "a stop token");

    int32_t longer[MAX_IDS];
    memcpy(longer, prompt, PROMPT * sizeof *prompt);
    memcpy(longer + PROMPT, whole.ids, (size_t)at * sizeof *longer);
    memcpy(longer + PROMPT + at, prompt, 7 * sizeof *prompt);
    o.n_stop = 0;
    const Run second = generate_ids(s, longer, PROMPT + at + 7, &o, 0, false, diag);
    const Run anew = generate_ids(fresh, longer, PROMPT + at + 7, &o, 0, false, diag);
    check(second.stats.reused_tokens == PROMPT + at, "%lld tokens are not read again, %d expected",
          (long long)second.stats.reused_tokens, PROMPT + at);
    check_ids(&second, &anew, "a second turn");
}

static void is_cancelled(Session *s, const int32_t *prompt, Diag *diag) {
    const volatile bool yes = true;
    const GenerateOptions o = {.sample = greedy, .max_tokens = 5, .cancel = &yes};
    session_rewind(s, 0);
    const Run r = generate_ids(s, prompt, 30, &o, 0, false, diag);
    check(r.reason == STOP_CANCELLED && r.n == 0 && session_length(s) == 0, "cancelled: %s, %lld tokens",
          stop_reason_text(r.reason), (long long)session_length(s));
    const GenerateOptions again = {.sample = greedy, .max_tokens = 5};
    const Run host = generate_ids(s, prompt, 30, &again, 0, true, diag);
    session_rewind(s, 0);
    const Run device = generate_ids(s, prompt, 30, &again, 0, false, diag);
    check_ids(&device, &host, "after a cancelled one");
}

/* ==== Logits that are no numbers ==== */

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0)
        ICE("cannot read %s", path);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n);
    if (!data || fread(data, 1, *n, f) != *n)
        ICE("cannot read %s", path);
    fclose(f);
    return data;
}

/* A copy of the model whose last norm makes everything NaN. */
static void spoil(const char *path, char *out) {
    size_t n;
    char *data = read_file(path, &n);
    Diag *diag = diag_new();
    Weights *w = weights_open(path, diag);
    const TensorInfo *t = w ? modelfile_tensor(weights_file(w), "output_norm.weight") : NULL;
    if (!t || t->dtype != DT_F32)
        ICE("no output_norm.weight of f32");
    char *at = memmem(data, n, t->data, t->bytes);
    const uint32_t nan = 0x7fc00000;
    for (size_t i = 0; i < t->bytes; i += sizeof nan)
        memcpy(at + i, &nan, sizeof nan);
    weights_close(w);
    diag_free(diag);
    const int fd = mkstemp(out);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n || close(fd) != 0)
        ICE("cannot write %s", out);
    free(data);
}

static void bad_logits(const char *path, const int32_t *prompt) {
    char bad[] = "/tmp/lap-pick-test-XXXXXX";
    spoil(path, bad);
    for (int host = 0; host < 2; host++) {
        Diag *diag = diag_new();
        Session *s = open_session(bad, diag);
        const GenerateOptions o = {.sample = greedy, .max_tokens = 5};
        const Run r = generate_ids(s, prompt, 30, &o, 0, host, diag);
        char *text = diag_text(diag);
        check(r.reason == STOP_ERROR && strstr(text, "the model gave no usable logits at position 29"),
              "NaN: %s, and\n%s", stop_reason_text(r.reason), text);
        free(text);
        session_close(s);
        diag_free(diag);
    }
    unlink(bad);
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 5) {
        fprintf(stderr, "usage: pick_test MODEL.gguf [DRIVER NVRTC KERNEL_CACHE]\n");
        return 2;
    }
    if (argc == 5)
        places = (Places){argv[2], argv[3], argv[4]};
    if (!gpu_present(places.driver)) {
        printf("no GPU: skipped\n");
        return 77;
    }
    Diag *diag = diag_new();
    Session *s = open_session(argv[1], diag), *fresh = open_session(argv[1], diag);
    check(session_picks(s), "tokens cannot be picked on the device");
    int32_t prompt[MAX_IDS];
    for (int i = 0; i < MAX_IDS; i++)
        prompt[i] = (i * 37 + 11) % session_vocab(s);
    same_ids(s, prompt, diag);
    goes_on(s, fresh, prompt, diag);
    is_cancelled(s, prompt, diag);
    check(diag_count(diag) == 0, "there are messages");
    diag_print(diag, stdout, false);
    session_close(fresh);
    session_close(s);
    diag_free(diag);
    bad_logits(argv[1], prompt);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
