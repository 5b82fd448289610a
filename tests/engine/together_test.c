/* together_test.c - several sequences with a drafter in the same calls: each gives the tokens that it gives alone.
 *
 *   together_test MODEL.gguf DRAFTER FOLDER SEED [gpu [DRIVER NVRTC KERNEL_CACHE]]
 *
 * Prompts of other lengths, most of them longer than rings, which wrap; other samplers, ends and stop tokens. First
 * rounds made here, in which sequences take part or not, begin while others go on, and have guesses that are right for
 * a while: tokens, and on the evaluator the drafter's guesses, are those of a session that holds nothing else. Then
 * generate_together(), with the drafter, without one, and with one that knows most of the continuations. FOLDER takes
 * the files of the latter. SEED 0: another each time.
 */
#include "runtime/engine/generate.h"
#include "tests/engine/model.h"
#include "tests/engine/oracle.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 4, CONTEXT = 288, CHUNK = 24, IDS = 20, APART = IDS + 4, VOCAB = 512 };

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#else
#define SANITIZED false
#endif

static const char *device = "cpu";
static Places places;
static uint64_t random_state;

static int below(int n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int)((random_state >> 33) % (uint64_t)n);
}

/* ==== Sessions ==== */

static Session *open_session(const char *path, const char *draft, const char *text, int sequences, Diag *diag) {
    const SessionOptions o = {
        .weights = path,
        .draft = draft,
        .draft_model = text,
        .context = CONTEXT,
        .sequences = sequences,
        .chunk = CHUNK,
        .kv_k = DT_COUNT,
        .kv_v = DT_COUNT,
        .threads = 1,
        .device = device,
        .gpu = {.driver = places.driver, .nvrtc = places.nvrtc, .kernel_cache = places.kernel_cache}};
    return must_open(&o, diag);
}

/* ==== Texts ==== */

typedef struct Text {
    int32_t prompt[CONTEXT];
    int n;
    GenerateOptions o;
    int32_t stop, ids[IDS];
    int n_ids;
    StopReason reason;
} Text;

static const SampleOptions samples[] = {
    {.top_p = 1, .repeat_penalty = 1},
    {0.8f, 40, 0.95f, 0.05f, 1, 64, 3},
    {.temperature = 1, .top_p = 1, .repeat_penalty = 1},
    {.top_p = 1, .repeat_penalty = 1.4f, .repeat_last = 7},
    {0.9f, .top_p = 0.9f, .repeat_penalty = 1.3f, .repeat_last = -1},
};

static bool take_id(void *ctx, int32_t id, Str text) {
    Text *t = ctx;
    (void)text;
    if (id >= 0)
        t->ids[t->n_ids++] = id;
    return true;
}

static GenerateOptions options_of(Text *t) {
    GenerateOptions o = t->o;
    o.token = take_id;
    o.ctx = t;
    o.stop = &t->stop;
    o.n_stop = 1;
    return o;
}

static void generate_alone(Session *plain, Text *t, Diag *diag) {
    GenerateStats stats;
    const GenerateOptions o = options_of(t);
    session_rewind(plain, 0);
    t->reason = generate(plain, t->prompt, t->n, &o, diag, &stats);
}

/* Positions that two texts generate are never the same. One may come to the end of the context. */
static void make_texts(Session *plain, Text *texts, int n, Diag *diag) {
    int length = 3 + below(60), first = below(n);
    memset(texts, 0, (size_t)n * sizeof *texts);
    for (int i = 0; i < n; i++) {
        Text *t = &texts[(first + i) % n];
        t->n = i == MOST - 1 && below(2) ? CONTEXT - 1 - below(IDS) : length;
        length += APART + below(50);
        for (int k = 0; k < t->n; k++)
            t->prompt[k] = below(session_vocab(plain));
        t->o = (GenerateOptions){.sample = samples[below(COUNTOF(samples))], .max_tokens = IDS};
        t->o.sample.seed = (uint64_t)below(1 << 30);
        t->stop = -1;
        generate_alone(plain, t, diag);
        if (below(3))
            continue;
        if (below(2))
            t->o.max_tokens = below(IDS);
        else
            t->stop = t->ids[below(t->n_ids)];
        t->n_ids = 0;
        generate_alone(plain, t, diag);
    }
}

/* ==== Rounds that are made here ==== */

typedef struct Sequence {
    const Text *text;
    Sampler *sampler;
    int done; /* ids that are known; the last is not read yet. 0: the prompt is not read yet */
    int n, right;
    int32_t tokens[1 + MAX_DRAFTS];
} Sequence;

static void pick(Sequence *q, const float *logits, const char *what) {
    const int32_t id = sampler_pick(q->sampler, logits), want = q->text->ids[q->done];
    check(id == want, "%s: id %d behind a prompt of %d is %d, alone %d", what, q->done, q->text->n, id, want);
    sampler_accept(q->sampler, want);
    q->done++;
}

static void begin(Session *s, int i, Sequence *q) {
    static float logits[VOCAB];
    const FeedOptions feed = {0};
    session_turn(s, i);
    session_rewind(s, 0);
    q->sampler = sampler_new(&q->text->o.sample, session_vocab(s));
    for (int k = 0; k < q->text->n; k++)
        sampler_accept(q->sampler, q->text->prompt[k]);
    check(session_feed(s, q->text->prompt, q->text->n, &feed, logits) == STEP_OK, "a prompt");
    pick(q, logits, "prompt");
}

/* Another session reads what the sequence has. */
static void read_again(Session *fresh, const Sequence *q) {
    const FeedOptions feed = {0};
    session_rewind(fresh, 0);
    check(session_feed(fresh, q->text->prompt, q->text->n, &feed, NULL) == STEP_OK, "a prompt");
    if (q->done > 1)
        check(session_feed(fresh, q->text->ids, q->done - 1, &feed, NULL) == STEP_OK, "a continuation");
}

/* The drafter's guesses behind what the sequence has are those behind the same tokens read at once. */
static void same_guesses(Session *s, int i, const Sequence *q, Session *fresh) {
    int32_t got[MAX_DRAFTS], want[MAX_DRAFTS];
    const int most = session_drafts(s)->most;
    session_turn(s, i);
    read_again(fresh, q);
    const int32_t newest = q->text->ids[q->done - 1];
    const int n = session_draft(s, newest, most, got, NULL);
    check(n == session_draft(fresh, newest, most, want, NULL) && memcmp(got, want, (size_t)n * sizeof *got) == 0,
          "sequence %d at %lld: other guesses than behind the same tokens alone", i, (long long)session_length(s));
}

/* Where rings hold too little to go back to, the sequence begins anew. */
static void goes_back_no_further(Session *s, int i, const Sequence *q, Session *fresh) {
    read_again(fresh, q);
    int64_t pos = session_length(fresh);
    while (pos > 0 && session_rewind(fresh, pos) == pos)
        pos--;
    session_turn(s, i);
    check(session_rewind(s, pos) == 0, "sequence %d goes back to %lld, which rings do not hold", i, (long long)pos);
}

/* Guesses for a sequence that takes part, of which some are right. */
static void choose_guesses(Session *s, Sequence *q, int room) {
    const int left = q->text->n_ids - q->done - 1, most = session_drafts(s)->most;
    int k = left < most ? left : most;
    k = k < room ? k : room;
    q->n = k > 0 ? below(k + 1) : 0;
    q->right = below(3) ? below(q->n + 1) : q->n;
    for (int i = 0; i <= q->n; i++)
        q->tokens[i] = q->text->ids[q->done - 1 + i];
    for (int i = q->right + 1; i <= q->n; i++)
        q->tokens[i] = (q->tokens[i] + 1 + below(session_vocab(s) - 1)) % session_vocab(s);
}

static bool unfinished(const Sequence *q) {
    return q->done > 0 && q->done < q->text->n_ids;
}

/* Some of the sequences that have begun, at least one, in one call. */
static void one_round(Session *s, Sequence *all, int n) {
    static float logits[16 * VOCAB];
    StepPart parts[MOST];
    int n_parts = 0, rows = 0, active = 0;
    for (int i = 0; i < n; i++)
        active += unfinished(&all[i]);
    for (int i = 0, seen = 0; i < n; i++) {
        if (!unfinished(&all[i]) || (++seen < active && below(3) == 0) || (seen == active && n_parts && below(3) == 0))
            continue;
        choose_guesses(s, &all[i], session_part_rows(s) - rows - (active - seen) - 1);
        parts[n_parts++] = (StepPart){i, all[i].tokens, all[i].n + 1};
        rows += all[i].n + 1;
    }
    if (n_parts == 0)
        return;
    check(session_step_parts(s, parts, n_parts, logits, NULL) == STEP_OK, "a call of %d sequences", n_parts);
    for (int i = 0, row = 0; i < n_parts; row += parts[i++].n) {
        Sequence *q = &all[parts[i].sequence];
        session_turn(s, parts[i].sequence);
        const int64_t at = session_length(s) - parts[i].n;
        for (int k = 0; k <= q->right; k++)
            pick(q, logits + (int64_t)(row + k) * session_vocab(s), "together");
        check(session_rewind(s, at + q->right + 1) == at + q->right + 1, "caches do not go back");
    }
}

static void made_rounds(Session *s, Session *fresh, const Text *texts, int n) {
    Sequence all[MOST] = {{0}};
    int begun = 0;
    for (int i = 0; i < n; i++)
        all[i].text = &texts[i];
    for (bool more = true; more && !failures;) {
        if (begun < n && (begun == 0 || below(3) == 0)) {
            begin(s, begun, &all[begun]);
            begun++;
        }
        one_round(s, all, n);
        const int i = below(begun);
        if (fresh && unfinished(&all[i]))
            same_guesses(s, i, &all[i], fresh);
        more = begun < n;
        for (int k = 0; k < n; k++)
            more |= unfinished(&all[k]);
    }
    for (int i = 0; i < n; i++) {
        if (fresh && all[i].done > 1)
            goes_back_no_further(s, i, &all[i], fresh);
        sampler_free(all[i].sampler);
    }
}

/* ==== generate_together() ==== */

static void same_together(Session *s, const Text *texts, int n, const char *what, Diag *diag) {
    static Text got[MOST];
    Stream streams[MOST];
    const bool fixed = below(2);
    for (int i = 0; i < n; i++) {
        got[i] = texts[i];
        got[i].n_ids = 0;
        streams[i] = (Stream){.prompt = got[i].prompt, .n = got[i].n, .o = options_of(&got[i])};
        streams[i].o.drafts = below(3) ? 0 : 1 + below(3);
        streams[i].o.drafts_fixed = fixed;
    }
    for (int i = 0; i < n && (session_gpu(s) || below(2)); i++) { /* a GPU's prefill rounds in another way than steps */
        session_turn(s, i);
        session_rewind(s, 0);
    }
    generate_together(s, streams, n, diag);
    for (int i = 0; i < n; i++) {
        const Text *w = &texts[i], *g = &got[i];
        int same = 0;
        while (same < g->n_ids && same < w->n_ids && g->ids[same] == w->ids[same])
            same++;
        check(same == g->n_ids && same == w->n_ids, "%s, sequence %d of %d: id %d of %d is another than alone, of %d",
              what, i, n, same, g->n_ids, w->n_ids);
        check(streams[i].stats.reason == w->reason && streams[i].stats.new_tokens == w->n_ids,
              "%s, sequence %d of %d: %lld tokens, %s; alone %d, %s", what, i, n,
              (long long)streams[i].stats.new_tokens, stop_reason_text(streams[i].stats.reason), w->n_ids,
              stop_reason_text(w->reason));
    }
}

/* Guesses that are right for seven tokens of ten, now and then from logits that are no numbers. */
static void with_oracle(const char *model, const char *folder, const Text *texts, int n, Diag *diag) {
    static int32_t guesses[CONTEXT + 16];
    for (int p = 0; p < CONTEXT + 16; p++)
        guesses[p] = below(16) ? below(VOCAB) : -1;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < texts[i].n_ids; k++)
            if (below(10) < 7)
                guesses[texts[i].n + k] = texts[i].ids[k];
    const Oracle o = oracle_write(folder, VOCAB, 1 + below(15), guesses, COUNTOF(guesses));
    Session *s = open_session(model, o.weights, o.model, n, diag);
    same_together(s, texts, n, "guesses of a table", diag);
    same_together(s, texts, n, "guesses of a table", diag);
    session_close(s);
    oracle_remove(&o);
}

int main(int argc, char **argv) {
    static Text texts[MOST];
    if (argc != 5 && argc != 6 && argc != 9) {
        fprintf(stderr, "usage: together_test MODEL.gguf DRAFTER FOLDER SEED [gpu [DRIVER NVRTC KERNEL_CACHE]]\n");
        return 2;
    }
    device = argc > 5 ? argv[5] : device;
    if (argc == 9)
        places = (Places){argv[6], argv[7], argv[8]};
    if (argc > 5 && !gpu_present(places.driver)) {
        printf("no GPU: skipped\n");
        return 77;
    }
    const uint64_t seed = strtoull(argv[4], NULL, 10);
    random_state = seed ? seed : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)random_state);
    Diag *diag = diag_new();
    Session *plain = open_session(argv[1], NULL, NULL, 1, diag);
    Session *several = open_session(argv[1], NULL, NULL, MOST, diag);
    Session *s = open_session(argv[1], argv[2], NULL, MOST, diag);
    Session *fresh = argc > 5 ? NULL : open_session(argv[1], argv[2], NULL, 1, diag);
    check(session_vocab(s) == VOCAB, "a vocabulary of %d", session_vocab(s));
    for (int n = 2; n <= MOST && !failures; n++) {
        if ((places.driver && n != 3) || (SANITIZED && n != MOST)) /* these take their time */
            continue;
        make_texts(plain, texts, n, diag);
        made_rounds(s, fresh, texts, n);
        same_together(s, texts, n, session_drafter_name(s), diag);
        same_together(several, texts, n, "no drafter", diag);
        with_oracle(argv[1], argv[3], texts, n, diag);
    }
    check(diag_count(diag) == 0, "there are messages");
    diag_print(diag, stdout, false);
    session_close(fresh);
    session_close(s);
    session_close(several);
    session_close(plain);
    diag_free(diag);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
