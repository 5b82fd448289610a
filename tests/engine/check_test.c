/* check_test.c - guesses checked on a GPU, real or emulated, where every row of a verification is picked there: against
 * plain generation on the same GPU, for guesses that are right for a while and then wrong, and with a drafter.
 *
 *   check_test MODEL.gguf DRAFTER [DRIVER NVRTC KERNEL_CACHE]
 */
#include "runtime/engine/generate.h"
#include "tests/engine/model.h"

#include <string.h>

enum { MAX_IDS = 256, CONTEXT = 96, CHUNK = 24, PROMPT = 29, IDS = 16 };

static Places places;
static uint32_t seed = 12345;

static int below(int n) {
    seed = seed * 1664525u + 1013904223u;
    return (int)((seed >> 8) % (uint32_t)n);
}

typedef struct Run {
    int32_t ids[MAX_IDS];
    int n;
    GenerateStats stats;
} Run;

static bool on_token(void *ctx, int32_t id, Str text) {
    Run *r = ctx;
    (void)text;
    if (id >= 0)
        r->ids[r->n++] = id;
    return true;
}

static Session *open_session(const char *path, const char *draft, Diag *diag) {
    return gpu_session(path, draft, CONTEXT, CHUNK, &places, diag);
}

static const struct {
    const char *what;
    SampleOptions sample;
} rows[] = {
    {"greedy", {.top_p = 1, .repeat_penalty = 1}},
    {"usual", {0.8f, 40, 0.95f, 0.05f, 1, 64, 3}},
    {"no filter", {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 5}},
    {"greedy, a penalty that forgets", {.top_p = 1, .repeat_penalty = 1.4f, .repeat_last = 7}},
    {"penalty that forgets", {1.2f, 40, 0.95f, 0, 1.4f, 9, 8}},
    {"penalty for all", {0.9f, .top_p = 0.9f, .repeat_penalty = 1.3f, .repeat_last = -1, .seed = 4}},
};

static Run generated(Session *s, const int32_t *prompt, const SampleOptions *sample, bool fixed, Diag *diag) {
    Run r = {.n = 0};
    const GenerateOptions o = {
        .sample = *sample, .max_tokens = IDS, .drafts_fixed = fixed, .ctx = &r, .token = on_token};
    session_rewind(s, 0);
    const StopReason reason = generate(s, prompt, PROMPT, &o, diag, &r.stats);
    check(reason == STOP_COUNT && r.n == IDS, "%d ids, %s", r.n, stop_reason_text(reason));
    return r;
}

static void same_ids(const Run *got, const Run *want, const char *what) {
    int same = 0;
    while (same < IDS && got->ids[same] == want->ids[same])
        same++;
    check(same == IDS, "%s: id %d is %d, without guesses %d", what, same, got->ids[same], want->ids[same]);
}

/* One round behind `done` ids, the last of which is not read yet: k guesses, the first `right` of them right. */
static int one_round(Session *s, const Run *want, int done, int k, int right, const char *what) {
    int32_t tokens[1 + MAX_DRAFTS], ids[1 + MAX_DRAFTS];
    const int64_t at = session_length(s);
    for (int i = 0; i <= k; i++)
        tokens[i] = want->ids[done - 1 + i];
    for (int i = right + 1; i <= k; i++)
        tokens[i] = (tokens[i] + 1 + below(session_vocab(s) - 1)) % session_vocab(s);
    check(session_check(s, tokens, k + 1, ids, NULL) == STEP_OK, "%s: no check", what);
    for (int i = 0; i <= right; i++)
        check(ids[i] == want->ids[done + i], "%s: %d of %d guesses right, id %d is %d, not %d", what, right, k,
              done + i, ids[i], want->ids[done + i]);
    session_rewind(s, at + right + 1);
    return done + right + 1;
}

/* A round without the host in between makes the same guesses and picks as one with it. */
static void same_round(Session *s, const int32_t *prompt, const SampleOptions *sample, const char *what) {
    const FeedOptions feed = {0};
    int32_t tokens[2][1 + MAX_DRAFTS], ids[2][1 + MAX_DRAFTS];
    int n[2];
    double guessed;
    for (int way = 0; way < 2; way++) {
        session_rewind(s, 0);
        check(session_pick_start(s, prompt, PROMPT, &feed, sample, 1) == STEP_OK &&
                  session_pick(s, &tokens[way][0]) == STEP_OK,
              "%s: no first id", what);
        n[way] = session_drafts(s)->most;
        if (way == 0) {
            n[0] = session_draft(s, tokens[0][0], n[0], tokens[0] + 1, NULL);
            check(session_check(s, tokens[0], n[0] + 1, ids[0], NULL) == STEP_OK, "%s: no check", what);
        } else {
            check(session_round(s, tokens[1], &n[1], ids[1], &guessed, NULL) == STEP_OK, "%s: no round", what);
        }
        session_pick_end(s);
    }
    const size_t bytes = (size_t)(n[0] + 1) * sizeof tokens[0][0];
    check(n[0] == n[1] && n[0] > 0 && memcmp(tokens[0], tokens[1], bytes) == 0 && memcmp(ids[0], ids[1], bytes) == 0,
          "%s: other guesses or picks in a round of %d", what, n[1]);
}

/* Guesses that are known to be right or wrong. */
static void known_guesses(Session *s, const int32_t *prompt, const SampleOptions *sample, const Run *want,
                          const char *what) {
    const FeedOptions feed = {0};
    const int most = session_drafts(s)->most;
    int32_t first = -1;
    session_rewind(s, 0);
    check(session_pick_start(s, prompt, PROMPT, &feed, sample, 1) == STEP_OK && session_pick(s, &first) == STEP_OK &&
              first == want->ids[0],
          "%s: the first id is %d, not %d", what, first, want->ids[0]);
    for (int done = 1; done < IDS && !failures;) {
        const int left = IDS - done - 1, k = below((left < most ? left : most) + 1);
        done = one_round(s, want, done, k, below(3) ? below(k + 1) : k, what);
    }
    session_pick_end(s);
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 6) {
        fprintf(stderr, "usage: check_test MODEL.gguf DRAFTER [DRIVER NVRTC KERNEL_CACHE]\n");
        return 2;
    }
    if (argc == 6)
        places = (Places){argv[3], argv[4], argv[5]};
    if (!gpu_present(places.driver)) {
        printf("no GPU: skipped\n");
        return 77;
    }
    Diag *diag = diag_new();
    Session *plain = open_session(argv[1], NULL, diag), *s = open_session(argv[1], argv[2], diag);
    check(session_rounds(s) && !session_checks(plain), "rows of a verification cannot be picked on the device");
    int32_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (i * 37 + 11) % session_vocab(s);
    for (size_t i = 0; i < COUNTOF(rows) && !failures; i++) {
        const Run want = generated(plain, prompt, &rows[i].sample, false, diag);
        for (int k = 0; k < (places.driver ? 1 : 8); k++)
            known_guesses(s, prompt, &rows[i].sample, &want, rows[i].what);
        same_round(s, prompt, &rows[i].sample, rows[i].what);
        const Run got = generated(s, prompt, &rows[i].sample, i % 2 == 0, diag);
        same_ids(&got, &want, rows[i].what);
        check(got.stats.drafts.rounds > 0, "%s: no rounds", rows[i].what);
    }
    check(diag_count(diag) == 0, "there are messages");
    diag_print(diag, stdout, false);
    session_close(s);
    session_close(plain);
    diag_free(diag);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
