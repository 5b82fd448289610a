/* chunk_test.c - the chunk that a session chooses on a GPU: chunk_test MODEL.gguf [DRIVER NVRTC KERNEL_CACHE]; the last
 * three are the emulated one's. Exit 77 without a GPU.
 *
 * Other allocations leave so much of the device's memory as is needed for a chunk, by its plan; then that one is
 * chosen, and what the session says is true. Where not even the least fits it is tried all the same. The evaluator
 * takes 512. A prompt gives what it gives in calls that somebody chose.
 */
#include "tests/engine/model.h"

#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 1500, PROMPT = 40 };
static const int64_t MIB = 1 << 20;

typedef struct Test {
    const char *weights;
    const Places *places;
    Diag *diag;
    Device *device; /* with what is in the way */
    DevPtr taken;
} Test;

static void must(const Test *t, bool ok, const DevError *e) {
    if (ok)
        return;
    diag_print(t->diag, stdout, false);
    printf("FAILED: %s\n", e ? e->text : "an error that was not expected");
    exit(1);
}

static Session *open_session(const Test *t, const char *device, int64_t context, int64_t chunk) {
    const SessionOptions o = {
        .weights = t->weights,
        .context = context,
        .chunk = chunk,
        .kv_k = DT_COUNT,
        .kv_v = DT_COUNT,
        .device = device,
        .gpu = {.driver = t->places->driver, .nvrtc = t->places->nvrtc, .kernel_cache = t->places->kernel_cache}};
    return must_open(&o, t->diag);
}

/* What a plan for such calls takes on the device. */
static int64_t bytes_of(const Test *t, int64_t chunk) {
    Session *s = open_session(t, "gpu", CONTEXT, chunk);
    check(session_chunk(s) == chunk && !session_chunk_why(s), "a chunk of %lld was given, not %lld", (long long)chunk,
          (long long)session_chunk(s));
    const int64_t bytes = plan_device_bytes(gpu_plan(session_gpu(s)));
    session_close(s);
    return bytes;
}

/* Leaves so much for a plan, beside what chunk.c keeps free: a part of all memory, and 320 MiB. */
static void leave(Test *t, int64_t bytes) {
    int64_t unused, total;
    DevError e = {0};
    dev_free(t->device, t->taken);
    must(t, dev_memory(t->device, &unused, &total, &e), &e);
    const int64_t keep = bytes + total / 32 + 320 * MIB;
    must(t, unused > keep, &(DevError){.text = "another program has the device's memory"});
    must(t, dev_alloc(t->device, (size_t)(unused - keep), "what is in the way", NULL, &t->taken, &e), &e);
}

/* want 0: any from 1024 on. The chunk. */
static int64_t chooses(const Test *t, int64_t want, const char *because) {
    Session *s = open_session(t, "gpu", CONTEXT, 0);
    const char *why = session_chunk_why(s) ? session_chunk_why(s) : "given";
    printf("chunk of %lld: %s\n", (long long)session_chunk(s), why);
    const int64_t chunk = session_chunk(s);
    check((want ? chunk == want : chunk >= 1024) && gpu_plan(session_gpu(s))->chunk == chunk,
          "a chunk of %lld, not %lld", (long long)chunk, (long long)want);
    check(strstr(why, because), "\"%s\" does not say \"%s\"", why, because);
    session_close(s);
    return chunk;
}

static void feed(const Test *t, Session *s, float *last) {
    int32_t ids[PROMPT];
    const FeedOptions quiet = {0};
    for (int i = 0; i < PROMPT; i++)
        ids[i] = 6 + i * 37 % (session_vocab(s) - 6);
    must(t, session_feed(s, ids, PROMPT, &quiet, last) == STEP_OK, NULL);
    check(session_length(s) == PROMPT, "%lld tokens were fed", (long long)session_length(s));
}

/* Calls that begin anywhere hold what is needed, in the session that was planned twice as in the one planned once. */
static void gives_the_same(const Test *t) {
    Session *chosen = open_session(t, "gpu", CONTEXT, 0), *given = open_session(t, "gpu", CONTEXT, 512);
    const size_t bytes = sizeof(float) * (size_t)session_vocab(given);
    float *a = malloc(bytes), *b = malloc(bytes);
    if (!a || !b)
        ICE("out of memory");
    feed(t, chosen, a);
    feed(t, given, b);
    check(memcmp(a, b, bytes) == 0, "other logits than in a session with a given chunk");
    free(b);
    free(a);
    session_close(given);
    session_close(chosen);
}

static void evaluator(const Test *t) {
    const struct { int64_t context, want; } rows[] = {{CONTEXT, 512}, {100, 100}};
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        Session *s = open_session(t, "cpu", rows[i].context, 0);
        check(session_chunk(s) == rows[i].want && session_chunk_why(s), "the evaluator takes %lld rows at once",
              (long long)session_chunk(s));
        session_close(s);
    }
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 5) {
        fprintf(stderr, "usage: chunk_test MODEL.gguf [DRIVER NVRTC KERNEL_CACHE]\n");
        return 2;
    }
    const Places places = {argc == 5 ? argv[2] : NULL, argc == 5 ? argv[3] : NULL, argc == 5 ? argv[4] : NULL};
    Test t = {.weights = argv[1], .places = &places, .diag = diag_new()};
    evaluator(&t);
    if (!gpu_present(places.driver)) {
        printf("no GPU: the rest is skipped\n");
        diag_free(t.diag);
        return failures ? 1 : 77;
    }
    DevError e = {0};
    t.device = dev_open(&(DevOptions){.driver = places.driver}, &e);
    must(&t, t.device != NULL, &e);
    const int64_t best = chooses(&t, 0, "");
    const int64_t most = bytes_of(&t, best), more = bytes_of(&t, 1024), least = bytes_of(&t, 64);
    gives_the_same(&t);
    leave(&t, most + MIB);
    chooses(&t, best, "");
    leave(&t, more - MIB);
    chooses(&t, 512, "1024 would need ");
    leave(&t, least - MIB);
    chooses(&t, 64, "the least, and more than the ");
    dev_free(t.device, t.taken);
    dev_close(t.device);
    diag_free(t.diag);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
