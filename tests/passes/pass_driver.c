/* pass_driver.c - runs one pass on IR text from standard input: text in, text out, messages to stderr.
 * pass_driver PASS [context N] [chunk N] [rows N] [draft N] [kv-k TYPE] [kv-v TYPE] [sparse auto|on|off] [alpha X]
 * [read GB/S] [matmul TFLOP/S] [launch NS] [tap NAME].. [no-taps]; rates as if they were measured; PASS `none` only
 * reads, checks and prints. Exit 1 after errors, 3 when the printed text does not read back to itself. */
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

static Buf read_all(FILE *f) {
    Buf b = {0};
    char chunk[4096];
    size_t n;
    buf_str(&b, "");
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_bytes(&b, chunk, n);
    return b;
}

/* Of the device: what is not given is an H100's. False: no such option. */
static bool read_rate(const char *name, const char *value, DeviceRates *r) {
    if (strcmp(name, "read") == 0)
        r->bytes = (int64_t)(1e9 * atof(value));
    else if (strcmp(name, "matmul") == 0)
        r->mma = r->wgmma = (int64_t)(1e12 * atof(value));
    else if (strcmp(name, "launch") == 0)
        r->launch_ns = atoll(value);
    else
        return false;
    r->of = "measured on a GPU of the test";
    return true;
}

static PipelineOptions read_options(int argc, char **argv, const char **taps) {
    PipelineOptions o = {.pass = pass_options_default(), .out = stdout};
    for (int i = 2; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";
        if (strcmp(argv[i], "no-taps") == 0)
            o.pass.all_taps = false;
        else if (strcmp(argv[i], "diff") == 0)
            o.diff = true;
        else if (strcmp(argv[i], "verify") == 0)
            o.verify_each = true;
        else if (strcmp(argv[i], "context") == 0)
            o.pass.context = atoll(value);
        else if (strcmp(argv[i], "chunk") == 0)
            o.pass.chunk = atoll(value);
        else if (strcmp(argv[i], "rows") == 0)
            o.pass.rows = atoll(value);
        else if (strcmp(argv[i], "draft") == 0)
            o.pass.draft = atoll(value);
        else if (strcmp(argv[i], "kv-k") == 0)
            o.pass.kv_k = dtype_from_name((Str){value, strlen(value)});
        else if (strcmp(argv[i], "kv-v") == 0)
            o.pass.kv_v = dtype_from_name((Str){value, strlen(value)});
        else if (strcmp(argv[i], "sparse") == 0)
            o.pass.sparse = strcmp(value, "on") == 0 ? SPARSE_ON : strcmp(value, "off") == 0 ? SPARSE_OFF : SPARSE_AUTO;
        else if (strcmp(argv[i], "alpha") == 0)
            o.pass.alpha = atof(value);
        else if (!read_rate(argv[i], value, &o.pass.rates) && strcmp(argv[i], "tap") == 0) {
            o.pass.all_taps = false;
            taps[o.pass.n_taps++] = value;
        }
    }
    o.pass.taps = taps;
    return o;
}

static bool reads_back(const Buf *text) {
    Arena *arena = arena_new();
    Diag *d = diag_new();
    Buf again = {0};
    Module *m = ir_parse(arena, d, "printed.ir", text->s, text->n);
    if (m)
        ir_print(&again, m);
    diag_print(d, stderr, false);
    bool same = m && strcmp(text->s, again.s) == 0;
    buf_free(&again);
    diag_free(d);
    arena_free(arena);
    return same;
}

int main(int argc, char **argv) {
    const char **taps = calloc((size_t)argc + 1, sizeof *taps);
    if (argc < 2 || !taps)
        return 2;
    PipelineOptions o = read_options(argc, argv, taps);
    Buf text = read_all(stdin), out = {0};
    Arena *arena = arena_new();
    Diag *d = diag_new();
    Module *m = ir_parse(arena, d, "in.ir", text.s, text.n);
    bool ok = m != NULL, same = true;
    if (ok && strcmp(argv[1], "none") == 0) {
        ok = ir_verify(m);
    } else if (ok && strcmp(argv[1], "all") != 0) {
        o.run_pass = argv[1];
        ok = pipeline_run(m, &o);
    } else if (ok) {
        ok = pipeline_run(m, &o);
    }
    if (ok) {
        ir_print(&out, m);
        fputs(o.diff ? "" : out.s, stdout);
        same = reads_back(&out);
    }
    diag_print(d, stderr, false);
    buf_free(&text);
    buf_free(&out);
    diag_free(d);
    arena_free(arena);
    free(taps);
    return !same ? 3 : ok ? 0 : 1;
}
