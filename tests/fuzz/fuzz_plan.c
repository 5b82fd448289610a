/* fuzz_plan.c - any bytes as the text of a plan: no crash; what reads must print to text that reads and prints alike,
 * and keeps what plan_text.h promises. */
#include "codegen/plan_text.h"
#include "tests/fuzz/promise.h"

static void check_launches(const Plan *p, const LaunchVec *v) {
    for (int i = 0; i < v->n; i++) {
        const PlanLaunch *l = &v->v[i];
        require(l->kernel >= 0 && l->kernel < p->kernels.n, "kernels exist");
        for (int k = 0; k < l->args.n; k++) {
            const PlanArg *a = &l->args.v[k];
            if (a->kind != ARG_BUFFER)
                continue;
            require(a->buffer >= 0 && a->buffer < p->buffers.n, "buffers exist");
            const PlanBuffer *b = &p->buffers.v[a->buffer];
            int64_t bytes = plan_buffer_bytes(p, b);
            require(a->value == 0 || (a->value > 0 && a->value < bytes), "offsets lie in their buffers");
        }
    }
}

static void check(const Plan *p) {
    int64_t total = 0;
    for (int k = 0; k < BUFFER_KINDS; k++)
        require(!__builtin_add_overflow(total, plan_bytes(p, (BufferKind)k), &total), "sizes add up");
    check_launches(p, &p->fills);
    for (int i = 0; i < p->weights.n; i++)
        require(p->weights.v[i].launch < p->fills.n, "fills exist");
    for (int i = 0; i < p->tables.n; i++)
        require(p->tables.v[i] >= 0 && p->tables.v[i] < p->fills.n, "fills exist");
    for (int i = 0; i < p->phases.n; i++) {
        const PlanPhase *f = &p->phases.v[i];
        check_launches(p, &f->launches);
        require(p->call.slots + 4 * f->rows <= p->call.bytes, "slots fit");
        require(p->call.lengths + 4 * (int64_t)p->slots <= p->call.bytes, "lengths fit");
        for (int k = 0; k < p->call.inputs.n; k++) {
            const PlanInput *in = &p->call.inputs.v[k];
            int64_t bytes = 4 * type_row_elems(&in->type) * type_rows(&in->type, f->rows, f->wanted);
            require(in->offset >= 0 && in->offset + bytes <= p->call.bytes, "inputs fit");
        }
    }
    for (int i = 0; i < p->samplers.n; i++) {
        const PlanSampler *s = &p->samplers.v[i];
        check_launches(p, &s->launches);
        require(p->buffers.v[s->states].bytes >= p->slots * (int64_t)PLAN_SAMPLING_BYTES + 4 * s->rows, "states fit");
        require(p->buffers.v[s->recent].bytes >= p->slots * plan_recent_bytes(s->vocab, p->context), "tokens fit");
        require(p->buffers.v[s->ring].bytes >= 4 * PLAN_RING * s->rows, "the ring fits");
        require(p->buffers.v[s->ring].kind == BUFFER_HOST, "the ring is the host's");
    }
    require(p->call.bytes <= p->buffers.v[p->call.buffer].bytes, "the call fits");
}

/* The text of what the input means; NULL when it means nothing. */
static char *read_and_print(const char *text, size_t len) {
    Arena *arena = arena_new();
    Diag *d = diag_new();
    Buf out = {0};
    const Plan *p = plan_parse(arena, d, "fuzz", text, len);
    require((p != NULL) == (diag_errors(d) == 0), "refused with a message, or read");
    if (p) {
        check(p);
        plan_print(&out, p, module_new(arena, d, "fuzz", "fuzz"));
    }
    free(diag_text(d));
    diag_free(d);
    arena_free(arena);
    return out.s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return round_trip(data, size, read_and_print);
}
