/* tuned.c - what was measured of GPUs, as the commands take and show it: --tune and --tuned; what a load found; the
 * list of lap doctor --tuned. */
#include "runtime/cli/cli.h"
#include "runtime/device/roofline.h"
#include "runtime/engine/tuned_file.h"
#include <string.h>
#include <unistd.h>

const char *cli_tuned_file(Cli *c, const char *choice) {
    const char *dir = choice && strcmp(choice, "off") == 0 ? NULL : cli_kernel_cache(c);
    return dir ? tuned_file_path(c->arena, dir) : NULL;
}

/* ==== For plans made without a GPU ==== */

int cli_read_tuned(Cli *c, const char *path, bool must_be, Tuned *t) {
    *t = (Tuned){.arena = c->arena};
    if (!path)
        return EXIT_FINE;
    if (must_be && access(path, F_OK) != 0)
        return cli_fail(c, EXIT_INPUT, "there is no %s", path);
    const bool ok = tuned_file_read(t, path, c->diag);
    const bool none = t->entries.n + t->rates.n == 0;
    if (must_be && ok && none)
        diag_error(c->diag, NO_LOC, "--tuned: there are no choices of tuning in %s", path);
    return must_be && (!ok || none) ? EXIT_INPUT : EXIT_FINE;
}

DeviceRates cli_rates_of_arch(const Tuned *t, const char *arch) {
    const TunedRates *r = tuned_rates_of_arch(t, arch, RATES_VERSION);
    return r ? r->rates : rates_default();
}

int cli_tuned_kernels(const Plan *p) {
    int n = 0;
    for (int i = 0; i < p->kernels.n; i++)
        n += p->kernels.v[i].tuned;
    return n;
}

/* ==== What a load found ==== */

static void print_cut(const MatmulCut *cut) {
    fprintf(stderr, "groups %d stages %2d flight %2d", cut->groups, cut->stages, cut->flight);
}

static void say_row(const TuneRow *r) {
    const double rule = r->times[0].seconds;
    fprintf(stderr, "  %s (%s), %.0f %% of a stretch\n", r->shape, r->label, 100 * r->share);
    for (int i = 0; i < r->n; i++) {
        const double s = r->times[i].seconds;
        fprintf(stderr, "    ");
        print_cut(&r->times[i].cut);
        if (s < 0)
            fprintf(stderr, "  cannot be had here\n");
        else
            fprintf(stderr, "  %10.1f us %+6.2f %%%s%s\n", 1e6 * s, rule > 0 ? 100 * (s / rule - 1) : 0.0,
                    i ? "" : "  by rule", i == r->chosen ? "  chosen" : "");
    }
}

void cli_say_tuning(const TuneReport *r) {
    fprintf(stderr, "tuning: %d shapes of decode matmuls known, %d too small, %d timed in %.2f s", r->known, r->small,
            r->rows.n, r->seconds);
    if (r->left)
        fprintf(stderr, ", %d left for the next load", r->left);
    fprintf(stderr, "%s\n", r->rows.n ? "; a stretch of a step takes" : "");
    for (int i = 0; i < r->rows.n; i++)
        say_row(&r->rows.v[i]);
}

json_t *cli_tuning_json(const TuneReport *r) {
    if (!r)
        return json_null();
    json_t *rows = json_array();
    for (int i = 0; i < r->rows.n; i++) {
        const TuneRow *row = &r->rows.v[i];
        json_t *times = json_array();
        for (int k = 0; k < row->n; k++) {
            const TuneTime *t = &row->times[k];
            json_array_append_new(times, json_pack("{s:i, s:i, s:i, s:o}", "groups", t->cut.groups, "stages",
                                                   t->cut.stages, "flight", t->cut.flight, "seconds",
                                                   t->seconds < 0 ? json_null() : json_real(t->seconds)));
        }
        json_array_append_new(rows, json_pack("{s:s, s:s, s:f, s:i, s:o}", "shape", row->shape, "label", row->label,
                                              "share", row->share, "chosen", row->chosen, "cuts", times));
    }
    return json_pack("{s:f, s:i, s:i, s:i, s:o}", "seconds", r->seconds, "known", r->known, "small", r->small, "left",
                     r->left, "timed", rows);
}

/* ==== All that is kept ==== */

json_t *cli_rates_json(const DeviceRates *r) {
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "of", json_bytes(r->of, strlen(r->of)), "multiprocessors",
                     (json_int_t)r->multiprocessors, "bytes_per_second", (json_int_t)r->bytes, "mma_flops_per_second",
                     (json_int_t)r->mma, "wgmma_flops_per_second", (json_int_t)r->wgmma, "launch_ns",
                     (json_int_t)r->launch_ns);
}

static const char *of_which(const TunedRates *r) {
    return r->version == RATES_VERSION ? "" : " (as another version of the program measures)";
}

static void rates_line(Arena *a, Buf *b, const TunedRates *r) {
    buf_printf(b, "\n%s, %s, CUDA %lld.%lld: ", r->arch, r->gpu, (long long)r->cuda / 1000,
               (long long)r->cuda % 1000 / 10);
    buf_printf(b, "%s%s", r->measured ? rates_text(a, &r->rates) : "rates could not be measured", of_which(r));
}

static json_t *kept_rates_json(const TunedRates *r) {
    return json_pack("{s:o, s:o, s:I, s:b, s:o}", "arch", json_bytes(r->arch, strlen(r->arch)), "gpu",
                     json_bytes(r->gpu, strlen(r->gpu)), "cuda", (json_int_t)r->cuda, "of_this_version",
                     r->version == RATES_VERSION, "rates", r->measured ? cli_rates_json(&r->rates) : json_null());
}

static double gain_percent(const TunedEntry *e) {
    return e->rule_ns > 0 ? 100 * ((double)e->chosen_ns / (double)e->rule_ns - 1) : 0;
}

const char *cli_tuned_text(Cli *c, const Tuned *t, const char *path) {
    const char *kernels = tuned_kernels(c->arena);
    Buf b = {0};
    buf_printf(&b, "%s: %d shapes", path, t->entries.n);
    if (t->rates.n)
        buf_printf(&b, ", rates of %d GPUs", t->rates.n);
    for (int i = 0; i < t->rates.n; i++)
        rates_line(c->arena, &b, &t->rates.v[i]);
    for (int i = 0; i < t->entries.n; i++) {
        const TunedEntry *e = &t->entries.v[i];
        buf_printf(&b, "\n%s, %s: %s: groups %d stages %d flight %d", e->arch, e->gpu, e->shape, e->cut.groups,
                   e->cut.stages, e->cut.flight);
        if (e->tuned)
            buf_printf(&b, ", %.1f us for %.1f by rule (%+.2f %%)", 1e-3 * (double)e->chosen_ns,
                       1e-3 * (double)e->rule_ns, gain_percent(e));
        else
            buf_printf(&b, ", by rule");
        buf_str(&b, strcmp(e->kernels, kernels) == 0 ? "" : " (of another version's kernels)");
    }
    const char *text = arena_strdup(c->arena, b.s);
    buf_free(&b);
    return text;
}

json_t *cli_tuned_json(Cli *c, const Tuned *t, const char *path) {
    const char *kernels = tuned_kernels(c->arena);
    json_t *all = json_array(), *rates = json_array();
    for (int i = 0; i < t->rates.n; i++)
        json_array_append_new(rates, kept_rates_json(&t->rates.v[i]));
    for (int i = 0; i < t->entries.n; i++) {
        const TunedEntry *e = &t->entries.v[i];
        json_array_append_new(
            all, json_pack("{s:o, s:o, s:o, s:b, s:b, s:i, s:i, s:i, s:i, s:f, s:f}", "arch",
                           json_bytes(e->arch, strlen(e->arch)), "gpu", json_bytes(e->gpu, strlen(e->gpu)), "shape",
                           json_bytes(e->shape, strlen(e->shape)), "tuned", (int)e->tuned, "of_these_kernels",
                           strcmp(e->kernels, kernels) == 0, "groups", e->cut.groups, "stages", e->cut.stages, "flight",
                           e->cut.flight, "partials", e->cut.partials, "rule_seconds", 1e-9 * (double)e->rule_ns,
                           "chosen_seconds", 1e-9 * (double)e->chosen_ns));
    }
    return json_pack("{s:o, s:s, s:o, s:o}", "file", json_bytes(path, strlen(path)), "kernels", kernels, "rates", rates,
                     "choices", all);
}
