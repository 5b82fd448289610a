/* cmd_synth.c - lap synth: weights files of true shapes and random numbers. */
#include "runtime/cli/cli.h"
#include "runtime/engine/clock.h"
#include "runtime/synth/synth.h"
#include <stdlib.h>
#include <string.h>

/* --layers and --set as settings of the size; false after a usage error, printed. */
static bool read_settings(Cli *c, SynthOptions *o) {
    SynthSetting *s = arena_array(c->arena, (size_t)c->o.synth_set.n + 1, sizeof *s);
    int n = 0;
    for (; n < c->o.synth_set.n; n++) {
        const char *text = c->o.synth_set.v[n];
        const char *eq = strchr(text, '=');
        char *end = NULL;
        long long value = eq ? strtoll(eq + 1, &end, 10) : 0;
        if (!eq || eq == text || end == eq + 1 || *end || value < 0 || value > INT32_MAX) {
            cli_fail(c, EXIT_USAGE, "--set wants NAME=N, N from 0 to %d, not \"%s\"", INT32_MAX, text);
            return false;
        }
        s[n] = (SynthSetting){arena_strndup(c->arena, text, (size_t)(eq - text)), value};
    }
    if (c->o.layers)
        s[n++] = (SynthSetting){"layers", c->o.layers};
    o->settings = s;
    o->n_settings = n;
    return true;
}

static void on_progress(void *ctx, uint64_t done, uint64_t total) {
    progress_bytes(ctx, (int64_t)done, (int64_t)total);
}

static int write_model(Cli *c, const SynthModel *m) {
    cli_catch_end();
    Progress *p = progress_start(c, "writing");
    double start = clock_seconds();
    GgufWork o = {.threads = (int)c->o.threads, .cancel = &cli_interrupted, .on_progress = on_progress, .ctx = p};
    GgufResult r = synth_write(m, c->o.synth_out, &o, c->diag);
    double seconds = clock_seconds() - start;
    progress_end(p);
    if (r == GGUF_CANCELLED) {
        fprintf(stderr, "interrupted; nothing is written\n");
        return EXIT_INTERRUPTED;
    }
    if (r == GGUF_FAILED)
        return EXIT_SYSTEM;
    if (!c->o.quiet)
        fprintf(stderr, "%s: %d tensors, %.2f GB in %.1f s, %.0f MB/s\n", c->o.synth_out, m->image.file.n_tensors,
                (double)m->image.bytes / 1e9, seconds, (double)m->image.bytes / seconds / 1e6);
    return EXIT_FINE;
}

int cmd_synth(Cli *c) {
    if (!c->o.like)
        return cli_fail(c, EXIT_USAGE, "say which model with --like SIZE");
    if (!c->o.dry_run == !c->o.synth_out)
        return cli_fail(c, EXIT_USAGE, "give one of -o F.gguf and --dry-run");
    if (c->o.json && !c->o.dry_run)
        return cli_fail(c, EXIT_USAGE, "--json has a meaning only with --dry-run");
    SynthOptions o = {.size = c->o.like, .quant = c->o.quant, .seed = (uint64_t)c->o.synth_seed};
    if (!read_settings(c, &o))
        return EXIT_USAGE;
    const SynthModel *m = synth_model(c->arena, c->diag, &o);
    if (!m)
        return EXIT_USAGE;
    if (!c->o.dry_run)
        return write_model(c, m);
    inspect_print(c, &m->image.file, m->image.bytes);
    return EXIT_FINE;
}
