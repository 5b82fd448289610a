/* distribution_test.c - tokens drawn at temperature 0.8 with a drafter have the probabilities that the model gives
 * them.
 *
 *   distribution_test mtp|dflash FOLDER [SEED]
 *
 * Tiny weights of Gemma 4 and of an MTP assistant or a DFlash drafter are made in FOLDER. 20,000 times three tokens
 * behind one prompt are drawn, each time from another seed, by generate() with guesses, and counted: each position, and
 * each pair of neighbours. What is expected follows from the logits of the model without a drafter behind every
 * beginning. Pearson's chi-square must not be larger than it is by chance once in ten million times (five are
 * computed).
 *
 * The test of the test: the same number drawn by wrong rules of acceptance from the same probabilities must fail.
 */
#include "runtime/engine/generate.h"
#include "tests/engine/made.h"
#include "tests/engine/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 24, PROMPT = 19, DRAWS = 20000, POSITIONS = 3, LEAST = 10 };
#define TEMPERATURE 0.8f
#define MOST_Z      5.2 /* of a normal deviate: exceeded with 1.0e-7 */

static const int32_t prompt[PROMPT] = {2, 9, 4, 17, 3, 21, 5, 5, 12, 0, 8, 23, 14, 7, 19, 11, 2, 6, 13};

/* ==== The models ==== */

static void make(const char *path, const char *size, uint64_t seed, const SynthSetting *settings, int n) {
    const SynthOptions o = {.size = size, .quant = "bf16", .seed = seed, .settings = settings, .n_settings = n};
    make_weights(path, &o);
}

static void make_target(const char *path, uint64_t seed) {
    static const SynthSetting settings[] = {{"layers", 2}, {"every", 2}, {"D", 32}, {"F", 32},   {"H", 1},
                                            {"KS", 1},     {"KF", 1},    {"W", 8},  {"V", VOCAB}};
    make(path, "gemma4-12b", seed, settings, COUNTOF(settings));
}

static void make_mtp(const char *path, uint64_t seed) {
    static const SynthSetting settings[] = {{"layers", 2}, {"B", 32}, {"D", 32}, {"F", 32},   {"H", 1},
                                            {"KS", 1},     {"KF", 1}, {"W", 8},  {"V", VOCAB}};
    make(path, "gemma4-12b-mtp", seed, settings, COUNTOF(settings));
}

/* "target" 4 gives layer 1 twice as the layers that are tapped: the target above has no higher one. */
static void make_dflash(const char *path, uint64_t seed) {
    static const SynthSetting settings[] = {{"layers", 1}, {"D", 32},     {"F", 32},  {"H", 1},
                                            {"KV", 1},     {"target", 4}, {"taps", 2}};
    make(path, "gemma4-31b-dflash", seed, settings, COUNTOF(settings));
}

typedef struct Way {
    const char *name;
    void (*make)(const char *path, uint64_t seed);
    const char *model; /* the drafter's text */
    FeSetting setting;
    int n_settings;
} Way;

/* A block of 4, instead of the file's 16: all of it is computed for the two guesses of a round. */
static const Way ways[] = {{"mtp", make_mtp, "gemma4-mtp.lap", {0}, 0},
                           {"dflash", make_dflash, "gemma4-dflash.lap", {"block", "4"}, 1}};

static const Way *find_way(const char *name) {
    for (size_t i = 0; i < COUNTOF(ways); i++)
        if (strcmp(ways[i].name, name) == 0)
            return &ways[i];
    fprintf(stderr, "no drafter \"%s\"\n", name);
    exit(2);
}

/* way: of the drafter; NULL: none. */
static Session *open_session(const char *path, const Way *way, const char *draft, Diag *diag) {
    const SessionOptions o = {.weights = path,
                              .draft = draft,
                              .draft_settings = way ? &way->setting : NULL,
                              .n_draft_settings = way ? way->n_settings : 0,
                              .context = 64,
                              .chunk = 16,
                              .kv_k = DT_F32,
                              .kv_v = DT_F32,
                              .threads = 1,
                              .device = "cpu"};
    return must_open(&o, diag);
}

/* ==== What is expected ==== */

/* Of the token behind the prompt, behind each first token, behind each two; and the guess behind each first token. */
typedef struct Expected {
    double first[VOCAB], second[VOCAB][VOCAB], third[VOCAB][VOCAB][VOCAB];
    int32_t guess[VOCAB];
} Expected;

static void probabilities(const float *logits, double *p) {
    double best = logits[0], sum = 0;
    for (int i = 1; i < VOCAB; i++)
        best = logits[i] > best ? logits[i] : best;
    for (int i = 0; i < VOCAB; i++)
        sum += p[i] = exp((logits[i] - best) / (double)TEMPERATURE);
    for (int i = 0; i < VOCAB; i++)
        p[i] /= sum;
}

static void behind(Session *s, const int32_t *tokens, int n, double *p) {
    float logits[VOCAB];
    const FeedOptions feed = {0};
    check(session_feed(s, tokens, n, &feed, logits) == STEP_OK, "a step");
    probabilities(logits, p);
}

static void expect(Session *plain, Session *s, Expected *e) {
    const FeedOptions feed = {0};
    behind(plain, prompt, PROMPT, e->first);
    for (int32_t a = 0; a < VOCAB; a++) {
        behind(plain, &a, 1, e->second[a]);
        for (int32_t b = 0; b < VOCAB; b++) {
            behind(plain, &b, 1, e->third[a][b]);
            session_rewind(plain, PROMPT + 1);
        }
        session_rewind(plain, PROMPT);
    }
    check(session_feed(s, prompt, PROMPT, &feed, NULL) == STEP_OK, "the prompt");
    for (int32_t a = 0; a < VOCAB; a++)
        check(session_draft(s, a, 1, &e->guess[a], NULL) == 1, "no guess behind token %d", a);
}

/* ==== Counting ==== */

typedef struct Counts {
    int64_t one[POSITIONS][VOCAB], two[POSITIONS - 1][VOCAB][VOCAB];
} Counts;

static void count(Counts *c, const int32_t *ids) {
    for (int i = 0; i < POSITIONS; i++)
        c->one[i][ids[i]]++;
    for (int i = 0; i + 1 < POSITIONS; i++)
        c->two[i][ids[i]][ids[i + 1]]++;
}

typedef struct Sum {
    double square, rest; /* rest: expected in bins that are too small, which count as one */
    int64_t in_rest;
    int bins;
} Sum;

static void add_bin(Sum *x, int64_t seen, double expected) {
    if (expected < LEAST) {
        x->rest += expected;
        x->in_rest += seen;
        return;
    }
    x->square += ((double)seen - expected) * ((double)seen - expected) / expected;
    x->bins++;
}

/* Chi-square as a normal deviate (Wilson and Hilferty 1931). */
static double deviate(Sum *x) {
    const double rest = x->rest;
    *x = (Sum){.square = x->square, .bins = x->bins, .in_rest = x->in_rest};
    if (rest >= LEAST)
        add_bin(x, x->in_rest, rest);
    const double k = x->bins - 1, part = 2 / (9 * k);
    return (cbrt(x->square / k) - (1 - part)) / sqrt(part);
}

/* The largest of the five. */
static double worst_deviate(const Counts *c, const Expected *e) {
    static double one[POSITIONS][VOCAB], two[POSITIONS - 1][VOCAB][VOCAB];
    double worst = -INFINITY;
    memset(one, 0, sizeof one);
    memset(two, 0, sizeof two);
    for (int a = 0; a < VOCAB; a++)
        for (int b = 0; b < VOCAB; b++)
            for (int t = 0; t < VOCAB; t++) {
                const double p = DRAWS * e->first[a] * e->second[a][b] * e->third[a][b][t];
                one[0][a] += p;
                one[1][b] += p;
                one[2][t] += p;
                two[0][a][b] += p;
                two[1][b][t] += p;
            }
    for (int i = 0; i < POSITIONS; i++) {
        Sum x = {0};
        for (int a = 0; a < VOCAB; a++)
            add_bin(&x, c->one[i][a], one[i][a]);
        worst = fmax(worst, deviate(&x));
    }
    for (int i = 0; i + 1 < POSITIONS; i++) {
        Sum x = {0};
        for (int a = 0; a < VOCAB; a++)
            for (int b = 0; b < VOCAB; b++)
                add_bin(&x, c->two[i][a][b], two[i][a][b]);
        worst = fmax(worst, deviate(&x));
    }
    return worst;
}

/* ==== By generate() ==== */

typedef struct Drawn {
    int32_t ids[POSITIONS];
    int n;
} Drawn;

static bool take(void *ctx, int32_t id, Str text) {
    Drawn *d = ctx;
    (void)text;
    if (id >= 0 && d->n < POSITIONS)
        d->ids[d->n++] = id;
    return true;
}

static void with_drafter(const Way *way, Session *s, const Expected *e, uint64_t seed, Diag *diag) {
    Counts c;
    memset(&c, 0, sizeof c);
    int64_t guessed[MAX_DRAFTS] = {0}, right[MAX_DRAFTS] = {0};
    for (int i = 0; i < DRAWS; i++) {
        Drawn d = {.n = 0};
        GenerateStats stats;
        const GenerateOptions o = {
            .sample = {.temperature = TEMPERATURE, .top_p = 1, .repeat_penalty = 1, .seed = seed * DRAWS + (uint64_t)i},
            .max_tokens = POSITIONS + 1, /* so a round has two guesses; behind a wrong one there is another */
            .drafts_fixed = true,
            .ctx = &d,
            .token = take};
        generate(s, prompt, PROMPT, &o, diag, &stats);
        check(d.n == POSITIONS, "%d tokens", d.n);
        count(&c, d.ids);
        for (int k = 0; k < MAX_DRAFTS; k++) {
            guessed[k] += stats.drafts.guessed[k];
            right[k] += stats.drafts.right[k];
        }
    }
    const double z = worst_deviate(&c, e);
    printf("with %s, %.1f %% of first guesses right, %lld of %lld second ones: deviate %.2f\n", way->name,
           100.0 * (double)right[0] / (double)guessed[0], (long long)right[1], (long long)guessed[1], z);
    check(z <= MOST_Z, "the tokens have other probabilities than the model's");
    check(right[0] > guessed[0] / 100 && right[1] > guessed[1] / 100, "guesses are never right: nothing is tested");
}

/* ==== By wrong rules ==== */

/* A random number in [0, 1). */
static double uniform(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
}

static int32_t draw(const double *p, uint64_t *state) {
    double left = uniform(state);
    int32_t id = 0;
    while (id + 1 < VOCAB && left >= p[id])
        left -= p[id++];
    return id;
}

static int32_t best(const double *p) {
    int32_t id = 0;
    for (int32_t i = 1; i < VOCAB; i++)
        id = p[i] > p[id] ? i : id;
    return id;
}

/* The second token, given the guess. */
static int32_t right_rule(const double *p, int32_t guess, uint64_t *state) {
    (void)guess;
    return draw(p, state);
}

static int32_t always(const double *p, int32_t guess, uint64_t *state) {
    (void)p, (void)state;
    return guess;
}

/* What the rule below adds to chi-square, in the pairs that are bins of their own: nothing where the best token is not
 * the guess, little where it is nearly certain. */
static double effect_of_best(const Expected *e) {
    double sum = 0;
    for (int a = 0; a < VOCAB; a++) {
        const double n = DRAWS * e->first[a], p = e->second[a][e->guess[a]];
        if (e->guess[a] == best(e->second[a]) && n * p >= LEAST)
            sum += n * (1 - p) * (1 - p) / p;
    }
    return sum;
}

/* The rule of greedy text. */
static int32_t if_best(const double *p, int32_t guess, uint64_t *state) {
    return guess == best(p) ? guess : draw(p, state);
}

/* Rejection, but the token in its place may be the rejected one. */
static int32_t drawn_again(const double *p, int32_t guess, uint64_t *state) {
    return uniform(state) < p[guess] ? guess : draw(p, state);
}

static void by_rule(const char *what, int32_t (*rule)(const double *, int32_t, uint64_t *), bool passes,
                    const Expected *e, uint64_t seed) {
    Counts c;
    memset(&c, 0, sizeof c);
    uint64_t state = seed + 99;
    for (int i = 0; i < DRAWS; i++) {
        int32_t ids[POSITIONS];
        ids[0] = draw(e->first, &state);
        ids[1] = rule(e->second[ids[0]], e->guess[ids[0]], &state);
        ids[2] = draw(e->third[ids[0]][ids[1]], &state);
        count(&c, ids);
    }
    const double z = worst_deviate(&c, e);
    printf("%s: deviate %.2f\n", what, z);
    check((z <= MOST_Z) == passes, "%s: %s", what, passes ? "fails" : "not noticed");
}

int main(int argc, char **argv) {
    static Expected e;
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: distribution_test mtp|dflash FOLDER [SEED]\n");
        return 2;
    }
    const Way *way = find_way(argv[1]);
    const uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    char target[256], drafter[256];
    snprintf(target, sizeof target, "%s/drawn-%d.gguf", argv[2], (int)getpid());
    snprintf(drafter, sizeof drafter, "%s/drawn-%d-%s.gguf", argv[2], (int)getpid(), way->name);
    make_target(target, seed);
    way->make(drafter, seed);
    Diag *diag = diag_new();
    Session *plain = open_session(target, NULL, NULL, diag), *s = open_session(target, way, drafter, diag);
    check(strcmp(session_drafter_name(s), way->model) == 0, "the drafter is %s", session_drafter_name(s));
    expect(plain, s, &e);
    by_rule("draws from the probabilities", right_rule, true, &e, seed);
    by_rule("every guess is kept", always, false, &e, seed);
    if (effect_of_best(&e) > 500 || argc == 3) /* other weights than those of seed 1 may not show it */
        by_rule("guesses that are the best are kept", if_best, false, &e, seed);
    by_rule("a guess that is turned down may be drawn", drawn_again, false, &e, seed);
    with_drafter(way, s, &e, seed, diag);
    check(diag_count(diag) == 0, "there are messages");
    diag_print(diag, stdout, false);
    session_close(s);
    session_close(plain);
    diag_free(diag);
    remove(target);
    remove(drafter);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
