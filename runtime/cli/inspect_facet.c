/* inspect_facet.c - lap inspect on a bundle: what it is for, its entries, and what each plan needs and launches. All of
 * it is read and checked. */
#include "runtime/cli/cli.h"
#include "runtime/facet/facet.h"
#include <string.h>
#include <sys/stat.h>

/* ==== As text ==== */

static void print_reads(const FacetRead *v, int n) {
    for (int i = 0; i < n; i++)
        printf("%s%s%s\n", v[i].name, v[i].value ? " = " : " is not there", v[i].value ? v[i].value : "");
}

static void print_weights(const char *what, const FacetWeights *w) {
    printf("%-9s \"%s\": %d keys, %d tensors, signature %s\n", what, w->arch, w->keys.n, w->tensors.n, w->signature);
}

static void print_head(const Facet *f, const char *path, int64_t bytes) {
    const FacetInfo *info = facet_info(f);
    const FacetOptions *o = &info->options;
    char text[32];
    printf("%s: model %s for", path, info->model);
    for (int i = 0; i < info->archs.n; i++)
        printf("%s %s", i ? "," : "", info->archs.v[i].name);
    printf(", %s\n\n", plan_bytes_text(text, bytes));
    printf("%-9s %s, from %s\n", "made by", info->made_by, info->text_name);
    printf("%-9s context %lld, chunk %lld, rows %lld, slots %lld, K %s, V %s\n", "options", (long long)o->context,
           (long long)o->chunk, (long long)o->rows, (long long)o->slots, dtype_name(o->kv_k), dtype_name(o->kv_v));
    for (int i = 0; i < info->settings.n; i++)
        printf("%-9s %s\n", "set", info->settings.v[i]);
    print_weights("weights", info->weights);
    if (info->target)
        print_weights("target", info->target);
}

static int buffers_of(const Plan *p, BufferKind k) {
    int n = 0;
    for (int i = 0; i < p->buffers.n; i++)
        n += p->buffers.v[i].kind == k;
    return n;
}

static int64_t cubin_bytes(const FacetArch *a) {
    int64_t n = 0;
    for (int i = 0; i < a->n_kernels; i++)
        n += (int64_t)a->cubins[i].bytes;
    return n;
}

/* Kernels of decode matmuls. */
static int matmuls(const Plan *p) {
    int n = 0;
    for (int i = 0; i < p->kernels.n; i++)
        n += p->kernels.v[i].shape != NULL;
    return n;
}

static void print_arch(const FacetArch *a) {
    char text[32];
    printf("\n%s: %d kernels, %s of code, by NVRTC %s\n", a->name, a->n_kernels, plan_bytes_text(text, cubin_bytes(a)),
           a->nvrtc);
    printf("  decode matmuls: %d kernels cut by rule, %d as they were tuned\n",
           matmuls(a->plan) - cli_tuned_kernels(a->plan), cli_tuned_kernels(a->plan));
    for (int k = 0; k < BUFFER_KINDS; k++)
        if (buffers_of(a->plan, (BufferKind)k))
            printf("  %-8s %6d buffers  %s\n", buffer_kind_name((BufferKind)k), buffers_of(a->plan, (BufferKind)k),
                   plan_bytes_text(text, plan_bytes(a->plan, (BufferKind)k)));
    for (int i = 0; i < a->plan->phases.n; i++) {
        const PlanPhase *p = &a->plan->phases.v[i];
        printf("  %s %s: up to %lld rows, %lld wanted, %d launches%s\n", p->graph, p->name, (long long)p->rows,
               (long long)p->wanted, p->launches.n, p->capture ? " as one graph" : "");
    }
}

static void print_entries(const Facet *f) {
    int n;
    const FacetEntry *e = facet_entries(f, &n);
    printf("\n%12s %12s  %-32s  %s\n", "bytes", "stored", "XXH3-128", "entry");
    for (int i = 0; i < n; i++)
        printf("%12lld %12lld  %s  %s\n", (long long)e[i].bytes, (long long)e[i].stored, e[i].hash, e[i].name);
}

static void print_text(const Cli *c, const Facet *f, const char *path, int64_t bytes) {
    const FacetInfo *info = facet_info(f);
    bool all = !c->o.meta && !c->o.tensors;
    if (all)
        print_head(f, path, bytes);
    if (c->o.meta)
        print_reads(info->weights->keys.v, info->weights->keys.n);
    if (c->o.tensors)
        print_reads(info->weights->tensors.v, info->weights->tensors.n);
    for (int i = 0; i < info->archs.n && all; i++)
        print_arch(&info->archs.v[i]);
    if (all)
        print_entries(f);
}

/* ==== As JSON ==== */

static json_t *json_reads(const FacetRead *v, int n) {
    json_t *j = json_object();
    for (int i = 0; i < n; i++)
        json_object_set_new(j, v[i].name, v[i].value ? json_string(v[i].value) : json_null());
    return j;
}

static json_t *json_weights(const FacetWeights *w) {
    return w ? json_pack("{s:s, s:s, s:o, s:o}", "architecture", w->arch, "signature", w->signature, "metadata",
                         json_reads(w->keys.v, w->keys.n), "tensors", json_reads(w->tensors.v, w->tensors.n))
             : json_null();
}

static json_t *json_options(const FacetOptions *o) {
    return json_pack("{s:I, s:I, s:I, s:I, s:s, s:s}", "context", (json_int_t)o->context, "chunk", (json_int_t)o->chunk,
                     "rows", (json_int_t)o->rows, "slots", (json_int_t)o->slots, "kv_k", dtype_name(o->kv_k), "kv_v",
                     dtype_name(o->kv_v));
}

static json_t *json_arch(const FacetArch *a) {
    json_t *buffers = json_object(), *phases = json_array();
    for (int k = 0; k < BUFFER_KINDS; k++)
        if (buffers_of(a->plan, (BufferKind)k))
            json_object_set_new(buffers, buffer_kind_name((BufferKind)k),
                                json_pack("{s:i, s:I}", "buffers", buffers_of(a->plan, (BufferKind)k), "bytes",
                                          (json_int_t)plan_bytes(a->plan, (BufferKind)k)));
    for (int i = 0; i < a->plan->phases.n; i++) {
        const PlanPhase *p = &a->plan->phases.v[i];
        json_array_append_new(
            phases, json_pack("{s:o, s:o, s:I, s:I, s:b, s:i}", "graph", json_bytes(p->graph, strlen(p->graph)),
                              "phase", json_bytes(p->name, strlen(p->name)), "rows", (json_int_t)p->rows, "wanted",
                              (json_int_t)p->wanted, "capture", (int)p->capture, "launches", p->launches.n));
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:I, s:o, s:o}", "name", a->name, "nvrtc", a->nvrtc, "kernels", a->n_kernels,
                     "tuned_kernels", cli_tuned_kernels(a->plan), "code_bytes", (json_int_t)cubin_bytes(a), "memory",
                     buffers, "phases", phases);
}

static void print_json(const Facet *f, const char *path, int64_t bytes) {
    const FacetInfo *info = facet_info(f);
    json_t *settings = json_array(), *archs = json_array(), *entries = json_array();
    int n;
    const FacetEntry *e = facet_entries(f, &n);
    for (int i = 0; i < info->settings.n; i++)
        json_array_append_new(settings, json_string(info->settings.v[i]));
    for (int i = 0; i < info->archs.n; i++)
        json_array_append_new(archs, json_arch(&info->archs.v[i]));
    for (int i = 0; i < n; i++)
        json_array_append_new(entries,
                              json_pack("{s:s, s:I, s:I, s:s}", "name", e[i].name, "bytes", (json_int_t)e[i].bytes,
                                        "stored", (json_int_t)e[i].stored, "xxh3", e[i].hash));
    json_print(json_pack("{s:o, s:I, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "file",
                         json_bytes(path, strlen(path)), "bytes", (json_int_t)bytes, "made_by", info->made_by, "model",
                         info->model, "text", info->text_name, "settings", settings, "options",
                         json_options(&info->options), "weights", json_weights(info->weights), "target",
                         json_weights(info->target), "archs", archs, "entries", entries),
               true);
}

int inspect_facet(Cli *c) {
    const char *path = c->o.operand[0];
    if (c->o.key)
        return cli_fail(c, EXIT_USAGE, "--key has a meaning only for weights, %s is a bundle", path);
    Facet *f = facet_open(path, c->diag);
    struct stat st = {0};
    bool ok = f != NULL && stat(path, &st) == 0;
    for (int i = 0; ok && i < facet_info(f)->archs.n; i++)
        ok = facet_load(f, i, c->diag);
    if (ok && c->o.json)
        print_json(f, path, st.st_size);
    else if (ok)
        print_text(c, f, path, st.st_size);
    facet_close(f);
    return ok ? EXIT_FINE : EXIT_INPUT;
}
