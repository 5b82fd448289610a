/* tuned.c - see tuned.h. */
#include "codegen/tuned.h"

#include "codegen/kernel_text.h"
#include "codegen/plan_text_int.h"
#include <string.h>

enum {
    VERSION = 1,
    RULES = 1, /* to be raised when the rule or the ways of matmul_shape.c change */
    MAX_TEXT = 1024,
    MAX_MULTIPROCESSORS = 4096,
};
#define MOST_A_SECOND INT64_C(1000000000000000000)

/* ==== Entries ==== */

static bool same_thing(const TunedEntry *e, const char *arch, const char *gpu, const char *kernels, const char *shape) {
    return strcmp(e->arch, arch) == 0 && strcmp(e->gpu, gpu) == 0 && strcmp(e->kernels, kernels) == 0 &&
           strcmp(e->shape, shape) == 0;
}

const TunedEntry *tuned_find(const Tuned *t, const char *arch, const char *gpu, const char *kernels,
                             const char *shape) {
    for (int i = 0; i < t->entries.n; i++)
        if (same_thing(&t->entries.v[i], arch, gpu, kernels, shape))
            return &t->entries.v[i];
    return NULL;
}

static void take_out(Tuned *t, int i) {
    t->entries.n--;
    memmove(t->entries.v + i, t->entries.v + i + 1, (size_t)(t->entries.n - i) * sizeof *t->entries.v);
}

/* At the end, so that the oldest stand first. */
void tuned_put(Tuned *t, const TunedEntry *e) {
    const TunedEntry *old = tuned_find(t, e->arch, e->gpu, e->kernels, e->shape), copy = *e;
    if (old)
        take_out(t, (int)(old - t->entries.v));
    else if (t->entries.n == MAX_TUNED)
        take_out(t, 0);
    vec_push(t->arena, &t->entries, copy);
}

/* ==== Rates ==== */

static int place_of_rates(const Tuned *t, const TunedRates *of) {
    int i = 0;
    for (; i < t->rates.n; i++) {
        const TunedRates *r = &t->rates.v[i];
        if (strcmp(r->arch, of->arch) == 0 && strcmp(r->gpu, of->gpu) == 0 && r->cuda == of->cuda &&
            r->version == of->version && r->rates.multiprocessors == of->rates.multiprocessors)
            break;
    }
    return i;
}

const TunedRates *tuned_find_rates(const Tuned *t, const TunedRates *of) {
    const int i = place_of_rates(t, of);
    return i < t->rates.n ? &t->rates.v[i] : NULL;
}

const TunedRates *tuned_rates_of_arch(const Tuned *t, const char *arch, int64_t version) {
    for (int i = t->rates.n - 1; i >= 0; i--) {
        const TunedRates *r = &t->rates.v[i];
        if (r->measured && r->version == version && strcmp(r->arch, arch) == 0)
            return r;
    }
    return NULL;
}

void tuned_put_rates(Tuned *t, const TunedRates *r) {
    const int same = place_of_rates(t, r), old = same < t->rates.n || t->rates.n < MAX_TUNED_RATES ? same : 0;
    TunedRates copy = *r;
    copy.rates.of = arena_printf(t->arena, "measured on %s", r->gpu);
    if (old < t->rates.n) {
        t->rates.n--;
        memmove(t->rates.v + old, t->rates.v + old + 1, (size_t)(t->rates.n - old) * sizeof *t->rates.v);
    }
    vec_push(t->arena, &t->rates, copy);
}

/* ==== For plans ==== */

const char *tuned_kernels(Arena *a) {
    static const char *const files[] = {"matmul_decode.cu", "matmul_experts.cu"};
    const Body tail = {"tail.body", ""};
    uint64_t hash = RULES;
    for (size_t i = 0; i < COUNTOF(files); i++) {
        const char *text = kernel_expand(a, files[i], "", &tail, 1);
        hash = hash_bytes(text, strlen(text), hash);
    }
    return arena_printf(a, "k%016llx", (unsigned long long)hash);
}

static bool has_choice(const PlanChoices *c, const char *shape) {
    for (int i = 0; i < c->n; i++)
        if (strcmp(c->v[i].shape, shape) == 0)
            return true;
    return false;
}

PlanChoices tuned_choices(Arena *a, const Tuned *t, const char *arch, const char *gpu) {
    const char *kernels = tuned_kernels(a);
    PlanChoices out = {0};
    for (int i = t->entries.n - 1; i >= 0; i--) {
        const TunedEntry *e = &t->entries.v[i];
        if (strcmp(e->kernels, kernels) != 0 || strcmp(e->arch, arch) != 0 || (gpu && strcmp(e->gpu, gpu) != 0) ||
            has_choice(&out, e->shape))
            continue;
        const PlanChoice c = {e->shape, e->cut};
        vec_push(a, &out, c);
    }
    return out;
}

/* ==== As text ==== */

static void print_rates(Buf *out, const TunedRates *r) {
    const DeviceRates *d = &r->rates;
    buf_printf(out, "rates %s ", r->arch);
    text_put_string(out, r->gpu, strlen(r->gpu));
    buf_printf(out, " cuda %lld version %lld multiprocessors %lld", (long long)r->cuda, (long long)r->version,
               (long long)d->multiprocessors);
    if (r->measured)
        buf_printf(out, " read %lld mma %lld wgmma %lld launch %lld\n", (long long)d->bytes, (long long)d->mma,
                   (long long)d->wgmma, (long long)d->launch_ns);
    else
        buf_printf(out, " none\n");
}

void tuned_print(Buf *out, const Tuned *t) {
    buf_printf(out, "tuned %d\n", VERSION);
    for (int i = 0; i < t->rates.n; i++)
        print_rates(out, &t->rates.v[i]);
    for (int i = 0; i < t->entries.n; i++) {
        const TunedEntry *e = &t->entries.v[i];
        buf_printf(out, "choice %s ", e->arch);
        text_put_string(out, e->gpu, strlen(e->gpu));
        buf_printf(out, " %s ", e->kernels);
        text_put_string(out, e->shape, strlen(e->shape));
        buf_char(out, ' ');
        plan_put_cut(out, e->tuned, &e->cut);
        buf_printf(out, " ns %lld %lld\n", (long long)e->rule_ns, (long long)e->chosen_ns);
    }
}

/* A word that is written as it is read. */
static bool parse_word(Parser *p, const char **out) {
    return p->tok == TOK_WORD ? p_name(p, "a word", out) : p_expected(p, "a word");
}

static bool parse_text(Parser *p, const char **out) {
    SrcLoc at = p->at;
    if (!p_path(p, out))
        return false;
    return strlen(*out) <= MAX_TEXT || p_fail_at(p, at, "a text of more than %d bytes", MAX_TEXT);
}

static bool parse_arch(Parser *p, const char **arch) {
    const SrcLoc at = p->at;
    int sm;
    bool only_there;
    if (!parse_word(p, arch))
        return false;
    return plan_arch(*arch, &sm, &only_there) || p_fail_at(p, at, "this is no architecture");
}

static bool parse_end(Parser *p) {
    SrcLoc place;
    return p->tok != TOK_PLACE && p_end_line(p, &place);
}

static bool parse_choice(Parser *p, TunedEntry *e) {
    return parse_arch(p, &e->arch) && parse_text(p, &e->gpu) && parse_word(p, &e->kernels) &&
           parse_text(p, &e->shape) && plan_cut(p, &e->tuned, &e->cut) && p_expect_word(p, "ns") &&
           p_int(p, "a time", 0, INT64_MAX, &e->rule_ns) && p_int(p, "a time", 0, INT64_MAX, &e->chosen_ns) &&
           parse_end(p);
}

static bool parse_number(Parser *p, const char *word, int64_t least, int64_t most, int64_t *out) {
    return p_expect_word(p, word) && p_int(p, word, least, most, out);
}

static bool parse_rates(Parser *p, TunedRates *r) {
    DeviceRates *d = &r->rates;
    if (!parse_arch(p, &r->arch) || !parse_text(p, &r->gpu) || !parse_number(p, "cuda", 0, INT32_MAX, &r->cuda) ||
        !parse_number(p, "version", 0, INT32_MAX, &r->version) ||
        !parse_number(p, "multiprocessors", 1, MAX_MULTIPROCESSORS, &d->multiprocessors))
        return false;
    r->measured = !p_accept_word(p, "none");
    if (r->measured &&
        (!parse_number(p, "read", 1, MOST_A_SECOND, &d->bytes) || !parse_number(p, "mma", 1, MOST_A_SECOND, &d->mma) ||
         !parse_number(p, "wgmma", 0, MOST_A_SECOND, &d->wgmma) ||
         !parse_number(p, "launch", 1, INT32_MAX, &d->launch_ns)))
        return false;
    return parse_end(p);
}

/* A line is taken when all of it reads. */
static bool read_line(Tuned *t, Parser *p, int line) {
    TunedEntry e = {0};
    TunedRates r = {0};
    const bool rates = p_accept_word(p, "rates");
    const bool whole = rates ? parse_rates(p, &r) : p_expect_word(p, "choice") && parse_choice(p, &e);
    if (whole && p->bad_line != line) {
        if (rates)
            tuned_put_rates(t, &r);
        else
            tuned_put(t, &e);
        return true;
    }
    if (!whole)
        p_skip_line(p);
    return false;
}

static void drop(Tuned *t, int line) {
    t->first_dropped = t->dropped ? t->first_dropped : line;
    t->dropped++;
}

static void read_lines(Tuned *t, Parser *p) {
    for (p_skip_empty(p); p->tok != TOK_END; p_skip_empty(p)) {
        const int line = p->at.line;
        if (read_line(t, p, line))
            continue;
        drop(t, line);
        diag_clear(p->diag);
    }
}

void tuned_read(Tuned *t, const char *text, size_t len) {
    Diag *diag = diag_new(); /* messages are of no use but to count */
    Parser p;
    SrcLoc place;
    int64_t version = 0;
    if (len > MAX_TUNED_TEXT || !p_begin(&p, t->arena, diag, "tuned", text, len)) {
        drop(t, 1);
    } else if (p_skip_empty(&p), p.tok != TOK_END) {
        if (p_expect_word(&p, "tuned") && p_int(&p, "the version", VERSION, VERSION, &version) &&
            p_end_line(&p, &place))
            read_lines(t, &p);
        else
            drop(t, 1);
    }
    diag_free(diag);
}
