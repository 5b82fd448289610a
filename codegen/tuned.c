/* tuned.c - see tuned.h. */
#include "codegen/tuned.h"

#include "codegen/kernel_text.h"
#include "codegen/plan_text_int.h"
#include <string.h>

enum {
    VERSION = 1,
    RULES = 1, /* to be raised when the rule or the ways of matmul_shape.c change */
    MAX_TEXT = 1024,
};

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

void tuned_print(Buf *out, const Tuned *t) {
    buf_printf(out, "tuned %d\n", VERSION);
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

static bool parse_choice(Parser *p, TunedEntry *e) {
    SrcLoc place, at;
    int sm;
    bool only_there;
    if (!p_expect_word(p, "choice"))
        return false;
    at = p->at;
    if (!parse_word(p, &e->arch))
        return false;
    if (!plan_arch(e->arch, &sm, &only_there))
        return p_fail_at(p, at, "this is no architecture");
    return parse_text(p, &e->gpu) && parse_word(p, &e->kernels) && parse_text(p, &e->shape) &&
           plan_cut(p, &e->tuned, &e->cut) && p_expect_word(p, "ns") && p_int(p, "a time", 0, INT64_MAX, &e->rule_ns) &&
           p_int(p, "a time", 0, INT64_MAX, &e->chosen_ns) && p->tok != TOK_PLACE && p_end_line(p, &place);
}

static void drop(Tuned *t, int line) {
    t->first_dropped = t->dropped ? t->first_dropped : line;
    t->dropped++;
}

static void read_lines(Tuned *t, Parser *p) {
    for (p_skip_empty(p); p->tok != TOK_END; p_skip_empty(p)) {
        TunedEntry e = {0};
        const int line = p->at.line;
        const bool whole = parse_choice(p, &e);
        if (whole && p->bad_line != line) {
            tuned_put(t, &e);
            continue;
        }
        drop(t, line);
        if (!whole)
            p_skip_line(p);
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
