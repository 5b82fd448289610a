/* plan_print.c - a plan as text; plan_parse.c is the inverse, plan_text.h describes the language.
 *
 * Contract: print(parse(print(p))) == print(p), byte for byte. Sizes for people are comments.
 */
#include "codegen/plan_text_int.h"

#include <stdlib.h>
#include <string.h>

/* ==== Words ==== */

const CostWord cost_word[COST_WORDS] = {
    {"weights", offsetof(PlanCost, weight_bytes)}, {"expert", offsetof(PlanCost, expert_bytes)},
    {"row", offsetof(PlanCost, bytes_a_row)},      {"flops", offsetof(PlanCost, flops_a_row)},
    {"key", offsetof(PlanCost, kv_bytes_a_key)},   {"attend", offsetof(PlanCost, attend_flops_a_key)},
    {"window", offsetof(PlanCost, window)},
};

const char *const count_word[] = {[COUNT_ONE] = NULL, [COUNT_T] = "T", [COUNT_R] = "R"};
const char *const output_word[] = {[OUT_EMIT] = "emit", [OUT_TAP] = "tap", [OUT_KEEP] = NULL};

const char *pick_way_name(PickWay w) {
    static const char *const names[PICK_WAYS] = {
        [PICK_NEXT] = "sampler", [PICK_CHECK] = "checker", [PICK_GUESS] = "guesser"};
    return names[w];
}

const char *buffer_kind_name(BufferKind k) {
    static const char *const names[BUFFER_KINDS] = {
        [BUFFER_CALL] = "call",
        [BUFFER_SLAB] = "slab",
        [BUFFER_SCRATCH] = "scratch",
        [BUFFER_RAW] = "raw",
        [BUFFER_TILES] = "tiles",
        [BUFFER_TABLE] = "table",
        [BUFFER_K] = "k",
        [BUFFER_V] = "v",
        [BUFFER_ZERO] = "zero",
        [BUFFER_SAMPLER] = "sampler",
        [BUFFER_HOST] = "host",
        [BUFFER_TIMES] = "times",
    };
    return names[k];
}

const char *plan_bytes_text(char out[32], int64_t bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    size_t u = 0;
    for (; v >= 1024 && u + 1 < COUNTOF(units); u++)
        v /= 1024;
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

bool plan_arch(const char *arch, int *sm, bool *only_there) {
    if (strncmp(arch, "sm_", 3) != 0 || arch[3] < '1' || arch[3] > '9')
        return false;
    char *end;
    long n = strtol(arch + 3, &end, 10);
    if (n < 10 || n > 999 || (*end && strcmp(end, "a") != 0))
        return false;
    *sm = (int)n;
    *only_there = *end == 'a';
    return true;
}

/* ==== Buffers, kernels ==== */

int64_t plan_bytes(const Plan *p, BufferKind k) {
    int64_t sum = 0;
    for (int i = 0; i < p->buffers.n; i++)
        if (p->buffers.v[i].kind == k)
            sum += plan_buffer_bytes(p, &p->buffers.v[i]);
    return sum;
}

int64_t plan_device_bytes(const Plan *p) {
    int64_t sum = 0;
    for (int k = 0; k < BUFFER_KINDS; k++)
        sum += k == BUFFER_HOST ? 0 : plan_bytes(p, (BufferKind)k);
    return sum;
}

int plan_find_phase(const Plan *p, const char *graph, int64_t T, int64_t R) {
    for (int i = 0; i < p->phases.n; i++)
        if (strcmp(p->phases.v[i].graph, graph) == 0 && T <= p->phases.v[i].rows && R <= p->phases.v[i].wanted)
            return i;
    return -1;
}

int plan_only_buffer(const Plan *p, BufferKind k) {
    int only = -1;
    for (int i = 0; i < p->buffers.n; i++)
        if (p->buffers.v[i].kind == k) {
            if (only >= 0)
                return -1;
            only = i;
        }
    return only;
}

const PlanInput *plan_input(const Plan *p, const char *name) {
    for (int i = 0; i < p->call.inputs.n; i++)
        if (strcmp(p->call.inputs.v[i].name, name) == 0)
            return &p->call.inputs.v[i];
    return NULL;
}

int64_t plan_call_head(const Plan *p) {
    const PlanCall *c = &p->call;
    int64_t rows = 1; /* of the largest call */
    for (int i = 0; i < p->phases.n; i++)
        rows = p->phases.v[i].rows > rows ? p->phases.v[i].rows : rows;
    const int64_t slots = c->slots + 4 * rows, lengths = c->lengths + (int64_t)4 * p->slots;
    int64_t end = PLAN_CALL_AHEAD + 4;
    end = slots > end ? slots : end;
    end = lengths > end ? lengths : end;
    for (int i = 0; i < c->inputs.n; i++) {
        const PlanInput *in = &c->inputs.v[i];
        const int64_t to = in->offset + type_row_elems(&in->type) * 4 * type_rows(&in->type, rows, rows);
        if (plan_input_of_host(&in->type) && to > end)
            end = to;
    }
    return end < c->bytes ? end : c->bytes;
}

int64_t plan_recent_bytes(int64_t vocab, int64_t context) {
    return ((vocab + 31) / 32 + context) * 4;
}

/* Bytes of each kind, and all that is on the device. */
static void print_totals(Buf *out, const Plan *p) {
    char text[32];
    const char *before = "#";
    for (int k = 0; k < BUFFER_KINDS; k++) {
        int64_t bytes = plan_bytes(p, (BufferKind)k);
        if (bytes)
            buf_printf(out, "%s %s %s", before, buffer_kind_name((BufferKind)k), plan_bytes_text(text, bytes));
        before = bytes ? "," : before;
    }
    if (*before == ',')
        buf_printf(out, "; device %s\n", plan_bytes_text(text, plan_device_bytes(p)));
}

/* Fills up the line that begins at byte `start`, for a comment. */
static void pad(Buf *out, size_t start, size_t column) {
    do
        buf_char(out, ' ');
    while (out->n - start < column);
}

static void print_buffer(Buf *out, const PlanBuffer *b, int number) {
    enum { COMMENT_COLUMN = 64 };
    char text[32];
    size_t start = out->n;
    buf_printf(out, "buffer b%d %s ", number, buffer_kind_name(b->kind));
    text_put_name(out, b->name);
    buf_printf(out, " %lld", (long long)b->bytes);
    if (b->index >= 0)
        buf_printf(out, " of %d", b->index);
    pad(out, start, COMMENT_COLUMN);
    buf_printf(out, "# %s\n", plan_bytes_text(text, b->bytes));
}

void plan_put_cut(Buf *out, bool tuned, const MatmulCut *cut) {
    buf_printf(out, "%s groups %d stages %d flight %d partials %d", tuned ? "tuned" : "analytic", cut->groups,
               cut->stages, cut->flight, cut->partials);
}

static void print_kernel(Buf *out, const PlanKernel *k) {
    buf_printf(out, "kernel %s from ", k->name);
    text_put_string(out, k->file, strlen(k->file));
    buf_printf(out, " threads %d shared %lld blocks %d", k->threads, (long long)k->shared, k->blocks);
    if (k->shape) {
        buf_char(out, ' ');
        plan_put_cut(out, k->tuned, &k->cut);
        buf_str(out, " of ");
        text_put_string(out, k->shape, strlen(k->shape));
    }
    buf_char(out, '\n');
}

/* ==== Launches ==== */

static void print_arg(Buf *out, const PlanArg *a) {
    switch (a->kind) {
    case ARG_BUFFER:
        buf_printf(out, "b%d", a->buffer);
        if (a->value)
            buf_printf(out, "+%lld", (long long)a->value);
        break;
    case ARG_NULL: buf_str(out, "null"); break;
    case ARG_INT: buf_printf(out, "%lld", (long long)a->value); break;
    case ARG_STAGING: buf_str(out, "staging"); break;
    }
}

static void print_launch(Buf *out, const Plan *p, const Diag *diag, const PlanLaunch *l) {
    const PlanGrid *g = &l->grid;
    PlanCost cost = l->cost;
    buf_printf(out, "  launch %s (", p->kernels.v[l->kernel].name);
    for (int i = 0; i < l->args.n; i++) {
        buf_str(out, i ? ", " : "");
        print_arg(out, &l->args.v[i]);
    }
    buf_printf(out, ") grid %lld %lld %lld", (long long)g->x, (long long)g->y, (long long)g->z);
    if (g->fill)
        buf_printf(out, " fill %d", g->fill);
    if (count_word[g->rows])
        buf_printf(out, " rows %s axis %d per %d", count_word[g->rows], g->axis, g->per);
    if (l->group)
        buf_printf(out, " group %d", l->group);
    for (int i = 0; i < COST_WORDS; i++)
        if (*cost_number(&cost, i))
            buf_printf(out, " %s %lld", cost_word[i].word, (long long)*cost_number(&cost, i));
    if (l->label && *l->label) {
        buf_char(out, ' ');
        text_put_string(out, l->label, strlen(l->label));
    }
    if (diag)
        text_put_end(out, diag, l->loc);
    else
        buf_char(out, '\n');
}

static void print_launches(Buf *out, const Plan *p, const Diag *diag, const LaunchVec *launches) {
    for (int i = 0; i < launches->n; i++)
        print_launch(out, p, diag, &launches->v[i]);
}

/* ==== Entry points ==== */

/* "input tokens : i32[T] at 8" */
static void print_value(Buf *out, const char *word, const char *name, const Type *type, int64_t offset) {
    buf_printf(out, "  %s ", word);
    text_put_name(out, name);
    buf_str(out, " : ");
    type_print(out, type);
    buf_printf(out, " at %lld\n", (long long)offset);
}

static void print_call(Buf *out, const PlanCall *c) {
    buf_printf(out, "call b%d bytes %lld slots %lld lengths %lld {\n", c->buffer, (long long)c->bytes,
               (long long)c->slots, (long long)c->lengths);
    for (int i = 0; i < c->inputs.n; i++)
        print_value(out, "input", c->inputs.v[i].name, &c->inputs.v[i].type, c->inputs.v[i].offset);
    buf_str(out, "}\n");
}

static void print_phase(Buf *out, const Plan *p, const Diag *diag, const PlanPhase *f) {
    buf_str(out, "phase ");
    text_put_name(out, f->name);
    buf_str(out, " of ");
    text_put_name(out, f->graph);
    buf_printf(out, " rows %lld wanted %lld%s%s {\n", (long long)f->rows, (long long)f->wanted,
               f->capture ? " capture" : "", f->timed ? " timed" : "");
    print_launches(out, p, diag, &f->launches);
    for (int i = 0; i < f->outputs.n; i++) {
        const PlanOutput *o = &f->outputs.v[i];
        print_value(out, output_word[o->kind], o->name, &o->type, o->offset);
    }
    buf_str(out, "}\n");
}

static void print_sampler(Buf *out, const Plan *p, const Diag *diag, const PlanSampler *s) {
    buf_printf(out, "%s of ", pick_way_name(s->way));
    text_put_name(out, s->graph);
    buf_printf(out, " rows %lld vocabulary %lld", (long long)s->rows, (long long)s->vocab);
    if (s->way == PICK_NEXT)
        buf_printf(out, " states b%d recent b%d", s->states, s->recent);
    buf_printf(out, " ring b%d {\n", s->ring);
    print_launches(out, p, diag, &s->launches);
    buf_str(out, "}\n");
}

void plan_print(Buf *out, const Plan *p, const Module *m) {
    const Diag *diag = m ? m->diag : NULL;
    buf_printf(out, "plan %s slots %d context %lld chunk %lld\n", p->arch, p->slots, (long long)p->context,
               (long long)p->chunk);
    print_totals(out, p);
    for (int i = 0; i < p->buffers.n; i++)
        print_buffer(out, &p->buffers.v[i], i);
    for (int i = 0; i < p->kernels.n; i++)
        print_kernel(out, &p->kernels.v[i]);
    print_call(out, &p->call);
    if (p->fills.n) {
        buf_str(out, "fills {\n");
        print_launches(out, p, diag, &p->fills);
        buf_str(out, "}\n");
    }
    for (int i = 0; i < p->weights.n; i++) {
        const PlanWeight *w = &p->weights.v[i];
        buf_printf(out, "weight %d to b%d", w->weight, w->buffer);
        if (w->launch >= 0)
            buf_printf(out, " by %d", w->launch);
        buf_char(out, '\n');
    }
    for (int i = 0; i < p->tables.n; i++)
        buf_printf(out, "table %d\n", p->tables.v[i]);
    for (int i = 0; i < p->phases.n; i++)
        print_phase(out, p, diag, &p->phases.v[i]);
    for (int i = 0; i < p->samplers.n; i++)
        print_sampler(out, p, diag, &p->samplers.v[i]);
}
