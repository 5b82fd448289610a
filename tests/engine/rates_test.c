/* rates_test.c - the rates by which passes choose for a GPU: rates_test MODEL.gguf FOLDER [DRIVER NVRTC KERNEL_CACHE];
 * the last three are the emulated one's. Exit 77 without a GPU.
 *
 * What is measured says the test. So: the first load takes the usual rates and measures, the next one takes what is
 * kept, a file of another GPU or a damaged one does no harm, and the chunk of a session is what the rates make it. At
 * last the real measuring, which on the emulated GPU cannot be compiled: then the usual rates serve, and it is not
 * tried again.
 */
#include "runtime/engine/tuned_file.h"
#include "tests/engine/model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONTEXT = 1500 };

typedef struct Test {
    const char *weights, *file;
    const Places *places;
    DevInfo info;
    DeviceRates says;    /* what is measured */
    DevErrorKind refuse; /* unless that is an error */
    int measured;        /* how often */
    bool real;           /* measure really */
} Test;

static bool measure(void *ctx, Device *d, DeviceRates *out, DevError *e) {
    Test *t = ctx;
    t->measured++;
    check(strcmp(dev_info(d)->name, t->info.name) == 0, "another GPU is measured");
    *out = t->says;
    if (t->refuse == DEV_FINE)
        return true;
    *e = (DevError){.kind = t->refuse, .text = "the test refuses it\nfor a reason"};
    return false;
}

static GpuOptions options(Test *t, const char *file) {
    return (GpuOptions){.driver = t->places->driver,
                        .nvrtc = t->places->nvrtc,
                        .kernel_cache = t->places->kernel_cache,
                        .rates = {file, t->real ? NULL : measure, t}};
}

/* What the next load takes, and what was said until then. */
typedef struct Said {
    DeviceRates rates;
    char from[512], messages[1024];
} Said;

/* As a load does: it takes rates, and measures a GPU that is new. */
static void load(Test *t, const char *file, Diag *diag) {
    Arena *arena = arena_new();
    DevError e = {0};
    const GpuOptions o = options(t, file);
    gpu_rates(arena, &o, diag);
    Device *d = dev_open(&(DevOptions){.driver = t->places->driver}, &e);
    Nvrtc *nvrtc = t->real ? nvrtc_open(t->places->nvrtc, &e) : NULL;
    check(d && (nvrtc || !t->real), "%s", e.text);
    if (d && gpu_rates_wanted(&o, d))
        gpu_rates_measure(&o, d, nvrtc, NULL, diag);
    nvrtc_close(nvrtc);
    dev_close(d);
    arena_free(arena);
}

static Said take(Test *t, const char *file) {
    Arena *arena = arena_new();
    Diag *diag = diag_new(), *quiet = diag_new();
    load(t, file, diag);
    const GpuOptions o = options(t, file);
    const GpuRates r = gpu_rates(arena, &o, quiet);
    char *messages = diag_text(diag);
    Said said = {.rates = r.rates};
    said.rates.of = strstr(r.rates.of, t->info.name) ? "this GPU" : "another";
    snprintf(said.from, sizeof said.from, "%s", r.from);
    snprintf(said.messages, sizeof said.messages, "%s", messages);
    printf("%s; %s\n", rates_text(arena, &r.rates), r.from);
    free(messages);
    diag_free(diag);
    diag_free(quiet);
    arena_free(arena);
    return said;
}

static bool same_rates(const DeviceRates *a, const DeviceRates *b) {
    return a->multiprocessors == b->multiprocessors && a->bytes == b->bytes && a->mma == b->mma &&
           a->wgmma == b->wgmma && a->launch_ns == b->launch_ns;
}

/* A load measures so often, and the next one has the rates of the GPU, or the usual ones. */
static void expect(Test *t, const char *what, int times, bool own, const char *from, const char *message) {
    const DeviceRates usual = rates_default_of(t->info.multiprocessors);
    t->measured = 0;
    const Said s = take(t, t->file);
    check(t->measured == times, "%s: measured %d times", what, t->measured);
    check(same_rates(&s.rates, own ? &t->says : &usual) && (strcmp(s.rates.of, "this GPU") == 0) == own,
          "%s: other rates", what);
    check(strstr(s.from, from), "%s: \"%s\" does not say \"%s\"", what, s.from, from);
    check(*message ? strstr(s.messages, message) != NULL : !*s.messages, "%s: it says \"%s\", not \"%s\"", what,
          s.messages, message);
}

static void write_lines(const Test *t, const char *text) {
    FILE *f = fopen(t->file, "wb");
    check(f && fputs(text, f) >= 0, "%s cannot be written", t->file);
    if (f)
        fclose(f);
}

/* ==== Tests ==== */

static void measures_once(Test *t) {
    unlink(t->file);
    expect(t, "the first load", 1, true, "kept in ", "");
    expect(t, "the second", 0, true, "kept in ", "");
    t->measured = 0;
    const Said none = take(t, NULL);
    check(t->measured == 0 && strcmp(none.rates.of, "another") == 0, "rates without a file for them");
}

/* The chunk of a session that takes what the one before has measured. */
static int64_t chunk_by(Test *t, int64_t launch_ns, int64_t slower) {
    const DeviceRates said = t->says, usual = rates_default_of(t->info.multiprocessors);
    int64_t chunk = 0;
    t->says.launch_ns = launch_ns;
    t->says.mma /= slower;
    t->says.wgmma /= slower;
    t->measured = 0;
    unlink(t->file);
    for (int i = 0; i < 2; i++) {
        const SessionOptions o = {.weights = t->weights,
                                  .context = CONTEXT,
                                  .kv_k = DT_COUNT,
                                  .kv_v = DT_COUNT,
                                  .device = "gpu",
                                  .gpu = options(t, t->file)};
        Diag *diag = diag_new();
        Session *s = must_open(&o, diag);
        chunk = session_chunk(s);
        printf("chunk of %lld: %s\n", (long long)chunk, session_chunk_why(s));
        check(same_rates(&session_rates(s)->rates, i ? &t->says : &usual), "session %d has other rates", i);
        session_close(s);
        diag_free(diag);
    }
    check(t->measured == 1, "two sessions measured %d times", t->measured);
    t->says = said;
    return chunk;
}

/* Launches that take long are worth a chunk as long as the context. Those that take no time are not, unless there are
 * so many multiprocessors that they compute any number of rows of so small a model in one round. */
static void rates_choose_the_chunk(Test *t) {
    enum { FEW = 16 };
    const int64_t late = chunk_by(t, 1000000, 1), slow = chunk_by(t, 1, 1000);
    check(late == CONTEXT && (slow < CONTEXT || t->info.multiprocessors > FEW), "chunks of %lld and %lld",
          (long long)late, (long long)slow);
}

/* Of another name, driver, measuring, or with more multiprocessors. */
static void other_gpus_are_others(Test *t) {
    for (int i = 0; i < 4; i++) {
        Tuned other = {.arena = arena_new()};
        Buf text = {0};
        TunedRates r = gpu_rates_key(&t->info);
        r.measured = true;
        r.gpu = i == 0 ? "some other GPU" : r.gpu;
        r.cuda += i == 1;
        r.version += i == 2;
        r.rates.multiprocessors += i == 3;
        tuned_put_rates(&other, &r);
        tuned_print(&text, &other);
        write_lines(t, text.s);
        expect(t, "another GPU", 1, true, "kept in ", "");
        expect(t, "beside another GPU", 0, true, "kept in ", "");
        Diag *diag = diag_new();
        Tuned both = {.arena = other.arena};
        tuned_file_read(&both, t->file, diag);
        check(both.rates.n == 2, "%d GPUs are kept", both.rates.n);
        diag_free(diag);
        buf_free(&text);
        arena_free(other.arena);
    }
}

static void damage_does_no_harm(Test *t) {
    write_lines(t, "tuned 1\nrates sm_90a \"some GPU\" cuda\n");
    expect(t, "a damaged file", 1, true, "kept in ", "line 2 is no choice of tuning and left out");
    expect(t, "a mended file", 0, true, "kept in ", "");
    FILE *f = fopen(t->file, "ab");
    check(f && fputs("rates \xff\n", f) >= 0, "%s cannot be written", t->file);
    if (f)
        fclose(f);
    expect(t, "a damaged line", 0, true, "kept in ", "left out");
    expect(t, "a mended line", 0, true, "kept in ", "");
    write_lines(t, "\x7f"
                   "ELF and so on");
    expect(t, "a foreign file", 1, true, "kept in ", "is no file of choices of tuning");
    unlink(t->file);
    mkdir(t->file, 0777);
    expect(t, "a folder in its place", 1, false, "this GPU is not measured yet", "cannot be kept in");
    rmdir(t->file);
}

/* For want of memory another load tries again; else none does. */
static void failures_are_no_errors(Test *t) {
    unlink(t->file);
    t->refuse = DEV_MEMORY;
    expect(t, "no memory", 1, false, "this GPU is not measured yet", "");
    expect(t, "no memory again", 1, false, "this GPU is not measured yet", "");
    t->refuse = DEV_OTHER;
    expect(t, "a failure", 1, false, "this GPU could not be measured", "");
    expect(t, "a known failure", 0, false, "this GPU could not be measured", "");
    t->refuse = DEV_FINE;
}

static void really(Test *t, bool emulated) {
    t->real = true;
    unlink(t->file);
    const Said first = take(t, t->file), second = take(t, t->file);
    check(strstr(first.from, emulated ? "this GPU could not be measured" : "kept in "), "%s", first.from);
    check(strstr(second.from, emulated ? "this GPU could not be measured" : "kept in "), "%s", second.from);
    check(same_rates(&first.rates, &second.rates), "the second load has other rates");
    check(!*first.messages && !*second.messages, "messages: %s%s", first.messages, second.messages);
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 6) {
        fprintf(stderr, "usage: rates_test MODEL.gguf FOLDER [DRIVER NVRTC KERNEL_CACHE]\n");
        return 2;
    }
    const bool emulated = argc == 6;
    const Places places = {emulated ? argv[3] : NULL, emulated ? argv[4] : NULL, emulated ? argv[5] : NULL};
    char file[4096];
    Test t = {.weights = argv[1], .file = file, .places = &places};
    DevError e;
    int n = 0;
    if (!dev_list(places.driver, &t.info, 1, &n, &e) || n == 0) {
        printf("no GPU: skipped\n");
        return 77;
    }
    mkdir(argv[2], 0777);
    snprintf(file, sizeof file, "%s/tuned.txt", argv[2]);
    t.says = (DeviceRates){.of = "of the test",
                           .multiprocessors = t.info.multiprocessors,
                           .bytes = 123456789012,
                           .mma = 34567890123456,
                           .wgmma = 45678901234567,
                           .launch_ns = 2345};
    measures_once(&t);
    rates_choose_the_chunk(&t);
    other_gpus_are_others(&t);
    damage_does_no_harm(&t);
    failures_are_no_errors(&t);
    really(&t, emulated);
    unlink(file);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
