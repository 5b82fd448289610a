/* context_test.c - a drafter far behind the beginning sees all of its context, whatever rings have wrapped on the way.
 *
 *   context_test MODEL.gguf DRAFTER SEED
 *
 * On the evaluator one session has short calls, and so rings that wrap many times: it reads a text in pieces, now and
 * then a verification whose rows are taken back. The other has rings as long as its context, and reads the same text at
 * once. At several positions their guesses must be equal, and the logits they are from, to the bit. And they must be
 * others than behind the end of the text alone, or the context would not matter. SEED 0: another each time.
 */
#include "runtime/engine/session_int.h"
#include "tests/engine/model.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT = 640, SHORT = 16, WRAPS = 4, PLACES = 5, APART = 60, END = 40 };

static uint64_t random_state;

static int below(int n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int)((random_state >> 33) % (uint64_t)n);
}

static Session *open_session(const char *path, const char *draft, int64_t chunk, Diag *diag) {
    const SessionOptions o = {.weights = path,
                              .draft = draft,
                              .context = CONTEXT,
                              .chunk = chunk,
                              .kv_k = DT_F32,
                              .kv_v = DT_F32,
                              .threads = 1,
                              .device = "cpu"};
    return must_open(&o, diag);
}

/* The longest ring; 0: there is none. */
static int64_t longest_ring(const Session *s) {
    const Module *m = session_module(s);
    int64_t most = 0;
    for (int i = 0; i < m->caches.n; i++) {
        const KvLayout *l = &m->caches.v[i].layout;
        if (l->ring && l->capacity > most)
            most = l->capacity;
    }
    return most;
}

/* ==== Reading ==== */

static void read_at_once(Session *s, const int32_t *tokens, int64_t n) {
    const FeedOptions feed = {0};
    session_rewind(s, 0);
    check(session_feed(s, tokens, n, &feed, NULL) == STEP_OK, "a text of %lld tokens", (long long)n);
}

/* Rows of other tokens, all wanted, which are taken back. */
static void turned_down(Session *s) {
    int32_t tokens[SHORT];
    const int n = 1 + below(session_drafts(s)->most + 1);
    const int64_t at = session_length(s);
    float *logits = malloc((size_t)n * (size_t)session_vocab(s) * sizeof *logits);
    for (int i = 0; i < n; i++)
        tokens[i] = below(session_vocab(s));
    check(session_step_all(s, tokens, n, logits, NULL) == STEP_OK, "a verification of %d rows", n);
    check(session_rewind(s, at) == at, "%d rows cannot be taken back at %lld", n, (long long)at);
    free(logits);
}

/* Up to `to` tokens, in pieces. */
static void read_in_pieces(Session *s, const int32_t *tokens, int64_t to) {
    while (session_length(s) < to && !failures) {
        const int64_t at = session_length(s), left = to - at, size = 1 + below(SHORT), n = left < size ? left : size;
        const FeedOptions feed = {0};
        if (below(2) && at > 0)
            turned_down(s);
        check(session_feed(s, tokens + at, n, &feed, NULL) == STEP_OK, "a piece of %lld tokens", (long long)n);
    }
}

/* ==== Guesses ==== */

typedef struct Guesses {
    int n;
    int32_t ids[MAX_DRAFTS];
    float *logits; /* of a chain the last guess's, of a block all */
    size_t bytes;
} Guesses;

static Guesses guess(Session *s, int32_t newest) {
    Guesses g = {.n = 0};
    const Drafts *how = session_drafts(s);
    g.n = session_draft(s, newest, how->most, g.ids, NULL);
    check(g.n == how->most, "%d guesses at %lld", g.n, (long long)session_length(s));
    g.bytes = (size_t)(how->way == DRAFT_BLOCK ? how->most : 1) * (size_t)session_vocab(s) * sizeof *g.logits;
    g.logits = malloc(g.bytes);
    memcpy(g.logits, s->draft.logits, g.bytes);
    return g;
}

static bool same_ids(const Guesses *a, const Guesses *b) {
    return a->n == b->n && memcmp(a->ids, b->ids, (size_t)a->n * sizeof *a->ids) == 0;
}

int main(int argc, char **argv) {
    static int32_t tokens[CONTEXT];
    if (argc != 4) {
        fprintf(stderr, "usage: context_test MODEL.gguf DRAFTER SEED\n");
        return 2;
    }
    const uint64_t seed = strtoull(argv[3], NULL, 10);
    random_state = seed ? seed : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)random_state);
    Diag *diag = diag_new();
    Session *wraps = open_session(argv[1], argv[2], SHORT, diag),
            *whole = open_session(argv[1], argv[2], CONTEXT, diag);
    const int64_t ring = longest_ring(wraps);
    check(ring > 0 && longest_ring(whole) >= (longest_ring(whole) ? CONTEXT : 0), "rings of %lld and %lld",
          (long long)ring, (long long)longest_ring(whole));
    check(WRAPS * ring + PLACES * APART + MAX_DRAFTS < CONTEXT, "a ring of %lld is too long for this test",
          (long long)ring);
    for (int i = 0; i < CONTEXT; i++)
        tokens[i] = below(session_vocab(whole));
    int others = 0;
    for (int i = 0; i < PLACES && !failures; i++) {
        const int64_t at = WRAPS * ring + i * APART + below(APART);
        read_in_pieces(wraps, tokens, at);
        Guesses a = guess(wraps, tokens[at]);
        read_at_once(whole, tokens, at);
        Guesses b = guess(whole, tokens[at]);
        check(same_ids(&a, &b) && memcmp(a.logits, b.logits, a.bytes) == 0, "at %lld other guesses than without rings",
              (long long)at);
        read_at_once(whole, tokens + at - END, END);
        Guesses end = guess(whole, tokens[at]);
        others += !same_ids(&end, &a);
        free(a.logits);
        free(b.logits);
        free(end.logits);
    }
    check(others > 0, "guesses do not depend on the context");
    check(diag_count(diag) == 0, "there are messages");
    diag_print(diag, stdout, false);
    session_close(whole);
    session_close(wraps);
    diag_free(diag);
    printf("ring of %lld, %d failures\n", (long long)ring, failures);
    return failures ? 1 : 0;
}
