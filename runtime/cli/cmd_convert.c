/* cmd_convert.c - lap convert: a GGUF file of a Hugging Face checkpoint. */
#include "runtime/cli/cli.h"
#include "runtime/convert/convert.h"
#include "runtime/engine/clock.h"
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* The checkpoint's folder: the operand, or where its file lies. */
static const char *folder_of(Arena *a, const char *path) {
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return path;
    const char *slash = strrchr(path, '/');
    return !slash ? "." : slash == path ? "/" : arena_strndup(a, path, (size_t)(slash - path));
}

/* One line for writing, then one for checking. */
typedef struct Lines {
    const Cli *c;
    Progress *p;
    bool is_checking;
} Lines;

static void on_progress(void *ctx, bool checking, uint64_t done, uint64_t total) {
    Lines *l = ctx;
    if (checking && !l->is_checking) {
        progress_end(l->p);
        l->p = progress_start(l->c, "checking");
        l->is_checking = true;
    }
    progress_bytes(l->p, (int64_t)done, (int64_t)total);
}

static void print_summary(const Cli *c, const Conversion *m, const ConvertTotals *totals, double seconds) {
    uint64_t elems = 0, bytes = 0;
    for (int t = 0; t < DT_COUNT; t++) {
        elems += totals[t].elems;
        bytes += totals[t].bytes;
    }
    fprintf(stderr, "%s: %d tensors, %" PRIu64 " bytes, %.2f bits a weight, by %s, in %.1f s; verified on load\n",
            c->o.convert_out, m->image.file.n_tensors, m->image.bytes, 8 * (double)bytes / (double)elems, m->text,
            seconds);
    for (int t = 0; t < DT_COUNT; t++) {
        const ConvertTotals *s = &totals[t];
        if (!s->tensors)
            continue;
        fprintf(stderr, "%-6s %5d tensor%s %15" PRIu64 " bytes  ", dtype_name((DType)t), s->tensors,
                s->tensors == 1 ? " " : "s", s->bytes);
        if (s->worst_named)
            fprintf(stderr, "largest relative error %.5f, %s\n", s->worst, s->worst_named);
        else
            fprintf(stderr, "exact\n");
    }
}

static int convert(Cli *c, const Conversion *m) {
    cli_report(c); /* warnings, before hours of work */
    cli_catch_end();
    ConvertTotals totals[DT_COUNT] = {0};
    Lines l = {.c = c, .p = progress_start(c, "converting")};
    ConvertWork work = {
        .threads = (int)c->o.threads, .cancel = &cli_interrupted, .on_progress = on_progress, .ctx = &l};
    double start = clock_seconds();
    GgufResult r = convert_write(m, c->o.convert_out, &work, c->diag, totals);
    double seconds = clock_seconds() - start;
    progress_end(l.p);
    if (r == GGUF_CANCELLED) {
        fprintf(stderr, "interrupted; nothing is written\n");
        return EXIT_INTERRUPTED;
    }
    if (r == GGUF_FAILED)
        return cli_report(c);
    if (!c->o.quiet)
        print_summary(c, m, totals, seconds);
    return EXIT_FINE;
}

int cmd_convert(Cli *c) {
    const char *path = c->o.operand[0];
    if (!c->o.dry_run == !c->o.convert_out)
        return cli_fail(c, EXIT_USAGE, "give one of -o OUT.gguf and --dry-run");
    if (c->o.json && !c->o.dry_run)
        return cli_fail(c, EXIT_USAGE, "--json has a meaning only with --dry-run");
    Weights *w = weights_open(path, c->diag);
    if (!w)
        return EXIT_INPUT;
    const Conversion *m =
        convert_plan(c->arena, c->diag, weights_file(w), folder_of(c->arena, path), c->o.convert_quant);
    int code = EXIT_INPUT;
    if (m && c->o.dry_run) {
        inspect_print(c, &m->image.file, m->image.bytes);
        code = EXIT_FINE;
    } else if (m) {
        code = convert(c, m);
    }
    weights_close(w);
    return code;
}
