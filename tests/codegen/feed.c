/* feed.c - logits of one model for the same tokens fed in calls of several sizes: one session, one compilation.
 *
 * feed [OPTION VALUE].. WEIGHTS IDS CALLS=OUT..
 *   --device, --driver, --nvrtc, --kernel-cache, --model, --context, --chunk   as of `lap run`
 *   --kv TYPE, --kv K,V    of keys and values
 *   --check-launches yes   no graphs, one kernel after another
 *   --sparse on|off, --alpha X
 *   --apart N              of each call the rows 0, N, 2 N .. are wanted, not all
 *   --tap NAME             the tap's rows, all of them, go to OUT.tap
 *   IDS                    file of token ids, separated by white space
 *   CALLS=OUT              rows of each call, "3" or "1+2+5", begun again when they are used up. All wanted logits go
 *                          to OUT, f32, row-major. Each begins with an empty sequence.
 */
#include "runtime/engine/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SIZES = 64 };

typedef struct Feed {
    SessionOptions session;
    double alpha; /* where the session's points to */
    int64_t apart;
    const char *tap; /* NULL: none */
} Feed;

typedef struct Job {
    const char *out;
    int sizes[MOST_SIZES];
    int n;
} Job;

static int fail(const char *what, const char *name) {
    fprintf(stderr, "feed: %s %s\n", what, name);
    return 2;
}

/* The option's place in o; NULL: there is no such option. */
static const char **text_option(SessionOptions *o, const char *name) {
    const struct {
        const char *name;
        const char **value;
    } texts[] = {{"--device", &o->device},
                 {"--driver", &o->gpu.driver},
                 {"--nvrtc", &o->gpu.nvrtc},
                 {"--kernel-cache", &o->gpu.kernel_cache},
                 {"--model", &o->model}};
    for (size_t i = 0; i < COUNTOF(texts); i++)
        if (strcmp(texts[i].name, name) == 0)
            return texts[i].value;
    return NULL;
}

/* "K,V", or one for both */
static void set_types(SessionOptions *o, const char *value) {
    const size_t first = strcspn(value, ",");
    const char *second = value[first] ? value + first + 1 : value;
    o->kv_k = dtype_from_name((Str){value, first});
    o->kv_v = dtype_from_name((Str){second, strlen(second)});
}

static bool set_option(Feed *f, const char *name, const char *value) {
    SessionOptions *o = &f->session;
    const char **text = strcmp(name, "--tap") == 0 ? &f->tap : text_option(o, name);
    if (text) {
        *text = value;
    } else if (strcmp(name, "--context") == 0) {
        o->context = atoll(value);
    } else if (strcmp(name, "--chunk") == 0) {
        o->chunk = atoll(value);
    } else if (strcmp(name, "--sparse") == 0) {
        o->sparse = strcmp(value, "on") == 0 ? SPARSE_ON : SPARSE_OFF;
    } else if (strcmp(name, "--alpha") == 0) {
        f->alpha = atof(value);
        o->alpha = &f->alpha;
    } else if (strcmp(name, "--apart") == 0) {
        f->apart = atoll(value);
    } else if (strcmp(name, "--check-launches") == 0) {
        o->gpu.check_launches = strcmp(value, "yes") == 0;
    } else if (strcmp(name, "--kv") == 0) {
        set_types(o, value);
    } else {
        return false;
    }
    return true;
}

/* "1+2+5=out.f32" */
static bool parse_job(const char *s, Job *job) {
    *job = (Job){0};
    for (char *end; job->n < MOST_SIZES; s = end + 1) {
        job->sizes[job->n++] = (int)strtol(s, &end, 10);
        if (job->sizes[job->n - 1] < 1)
            return false;
        if (*end == '=') {
            job->out = end + 1;
            return true;
        }
        if (*end != '+')
            return false;
    }
    return false;
}

static int32_t *read_ids(const char *path, int64_t *n) {
    FILE *f = fopen(path, "r");
    int64_t room = 1024;
    int32_t *ids = f ? malloc((size_t)room * sizeof *ids) : NULL;
    *n = 0;
    for (int id; ids && fscanf(f, "%d", &id) == 1; ids[(*n)++] = id)
        if (*n == room)
            ids = realloc(ids, (size_t)(room *= 2) * sizeof *ids);
    if (f)
        fclose(f);
    return ids;
}

/* As many of n rows as calls of this session can take and give. */
static int64_t call_rows(const Session *s, int64_t n, int64_t left) {
    n = n < left ? n : left;
    return n < session_step_rows(s) ? n : session_step_rows(s);
}

static bool write_rows(FILE *to, const float *rows, int64_t n, int64_t width) {
    return fwrite(rows, sizeof *rows * (size_t)width, (size_t)n, to) == (size_t)n;
}

/* tap_out: NULL without a tap. */
static bool feed(Session *s, const Feed *f, const Job *job, const int32_t *ids, int64_t n, FILE *out, FILE *tap_out) {
    const int64_t vocab = session_vocab(s), most = session_step_rows(s), width = f->tap ? session_tap_width(s, 0) : 1;
    float *logits = malloc(sizeof *logits * (size_t)(vocab * most)),
          *tap = malloc(sizeof *tap * (size_t)(width * most));
    int32_t *rows = malloc(sizeof *rows * (size_t)most);
    bool ok = logits && tap && rows;
    session_rewind(s, 0);
    for (int64_t at = 0, call = 0; ok && at < n; call++) {
        const int64_t t = call_rows(s, job->sizes[call % job->n], n - at);
        int64_t wanted = 0;
        for (int64_t i = 0; i < t; i += f->apart)
            rows[wanted++] = (int32_t)i;
        const StepCall c = {.tokens = ids + at,
                            .n = t,
                            .rows = rows,
                            .n_rows = wanted,
                            .ahead = n - at - t,
                            .logits = logits,
                            .taps = tap_out ? &tap : NULL};
        ok = session_step(s, &c) == STEP_OK && write_rows(out, logits, wanted, vocab);
        ok = ok && (!tap_out || write_rows(tap_out, tap, t, width));
        at += t;
    }
    free(logits);
    free(tap);
    free(rows);
    return ok;
}

/* Closes as well. */
static bool feed_to(Session *s, const Feed *f, const Job *job, const int32_t *ids, int64_t n, FILE *out,
                    FILE *tap_out) {
    bool ok = out && (tap_out || !f->tap) && feed(s, f, job, ids, n, out, tap_out);
    ok = out && fclose(out) == 0 && ok;
    return (!tap_out || fclose(tap_out) == 0) && ok;
}

static int feed_all(Session *s, const Feed *f, int argc, char **argv, const int32_t *ids, int64_t n) {
    for (int i = 0; i < argc; i++) {
        Job job;
        if (!parse_job(argv[i], &job))
            return fail("no CALLS=OUT:", argv[i]);
        char name[4096];
        snprintf(name, sizeof name, "%s.tap", job.out);
        FILE *out = fopen(job.out, "wb"), *tap_out = f->tap ? fopen(name, "wb") : NULL;
        if (!feed_to(s, f, &job, ids, n, out, tap_out))
            return fail("failed:", argv[i]);
    }
    return 0;
}

int main(int argc, char **argv) {
    Diag *diag = diag_new();
    Feed f = {.session = {.context = 4096, .chunk = 512, .kv_k = DT_COUNT, .kv_v = DT_COUNT, .device = "auto"},
              .apart = 1};
    int at = 1;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2)
        if (!set_option(&f, argv[at], argv[at + 1]))
            return fail("unknown option", argv[at]);
    if (at + 3 > argc || f.apart < 1)
        return fail("wants", "[OPTION VALUE].. WEIGHTS IDS CALLS=OUT..");
    f.session.weights = argv[at];
    f.session.taps = &f.tap;
    f.session.n_taps = f.tap != NULL;
    int64_t n = 0;
    int32_t *ids = read_ids(argv[at + 1], &n);
    Session *s = ids && n ? session_open(&f.session, diag) : NULL;
    int code = s ? feed_all(s, &f, argc - at - 2, argv + at + 2, ids, n) : fail("cannot open", argv[at]);
    session_close(s);
    diag_print(diag, stderr, false);
    diag_free(diag);
    free(ids);
    return code;
}
