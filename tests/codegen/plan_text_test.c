/* plan_text_test.c - plans as text: what is read prints as it was written; what is wrong is refused at its place. */
#include "codegen/kernel_texts_int.h"
#include "codegen/plan_text.h"
#include "tests/codegen/small_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs those before */
#include <cmocka.h>

typedef struct Read {
    Arena *arena;
    Diag *diag;
    Plan *plan;
    char *messages;
} Read;

static Read read_text(const char *text, size_t len) {
    Read r = {.arena = arena_new(), .diag = diag_new()};
    r.plan = plan_parse(r.arena, r.diag, "plan.txt", text, len);
    r.messages = diag_text(r.diag);
    assert_int_equal(r.plan == NULL, diag_errors(r.diag) > 0);
    return r;
}

static void done(Read *r) {
    free(r->messages);
    diag_free(r->diag);
    arena_free(r->arena);
}

static char *print(const Read *r) {
    Buf out = {0};
    Module *m = module_new(r->arena, r->diag, "m", "m");
    plan_print(&out, r->plan, m);
    return out.s;
}

static void reads_and_prints_alike(void **state) {
    (void)state;
    Read r = read_text(small_plan_text, strlen(small_plan_text));
    assert_string_equal(r.messages, "");
    char *text = print(&r);
    assert_string_equal(text, small_plan_text);
    free(text);
    done(&r);
}

static void means_what_it_says(void **state) {
    (void)state;
    Read r = read_text(small_plan_text, strlen(small_plan_text));
    const Plan *p = r.plan;
    assert_string_equal(p->arch, "sm_90a");
    assert_int_equal(p->slots, 2);
    assert_int_equal(plan_bytes(p, BUFFER_K), 2 * 4096);
    assert_int_equal(plan_bytes(p, BUFFER_TILES), 4352);
    assert_true(p->kernels.v[1].tuned);
    assert_string_equal(p->kernels.v[1].shape, "linear 32 = Q8_0 64, 1 x 64, rows 8");
    static const MatmulCut cut = {.groups = 1, .stages = 5, .flight = 3, .partials = 4};
    assert_true(matmul_cut_same(&p->kernels.v[1].cut, &cut));
    assert_null(p->kernels.v[2].shape);
    const PlanLaunch *l = &p->phases.v[0].launches.v[0];
    assert_int_equal(l->grid.fill, 2);
    assert_int_equal(l->grid.z, 2);
    assert_int_equal(l->args.v[2].kind, ARG_BUFFER);
    assert_int_equal(l->args.v[2].buffer, 1);
    assert_int_equal(l->args.v[2].value, 1024);
    assert_int_equal(l->args.v[5].kind, ARG_NULL);
    assert_int_equal(l->args.v[6].value, 16);
    assert_int_equal(l->cost.window, 31);
    assert_int_equal(l->loc.line, 12);
    assert_string_equal(l->label, "odd + 2");
    assert_true(p->phases.v[0].capture);
    assert_false(p->phases.v[1].capture);
    assert_int_equal(p->phases.v[1].launches.v[0].grid.rows, COUNT_T);
    assert_int_equal(p->fills.v[1].args.v[1].value, -7);
    assert_int_equal(p->weights.v[0].launch, -1);
    assert_int_equal(p->tables.v[0], 1);
    const PlanSampler *s = &p->samplers.v[0];
    assert_string_equal(s->graph, "step");
    assert_int_equal(s->vocab, 64);
    assert_int_equal(s->recent, 10);
    assert_int_equal(s->launches.v[0].grid.rows, COUNT_R);
    assert_int_equal(s->launches.v[0].args.v[4].value, 160);
    assert_int_equal(s[1].way, PICK_CHECK);
    assert_int_equal(s[1].ring, 11);
    assert_int_equal(s[2].way, PICK_GUESS);
    assert_int_equal(s[2].rows, 4);
    assert_true(plan_attach_kernel(r.plan, "matmul_1", "text"));
    assert_string_equal(p->kernels.v[1].text, "text");
    assert_false(plan_attach_kernel(r.plan, "matmul_2", "text"));
    done(&r);
}

/* The plan with one piece replaced, and what the first message must say. */
static const struct {
    const char *from, *to, *message;
} wrong[] = {
    {"plan sm_90a", "plane sm_90a", "plan.txt:1:1: error: expected 'plan', not 'plane'"},
    {"sm_90a", "sm_90b", "1:6: error: 'sm_90b' is no architecture"},
    {"sm_90a", "\"../sm_90\"", "1:6: error: '../sm_90' is no architecture"},
    {"slots 2", "slots 0", "1:19: error: the slots must be a whole number from 1 to 4096"},
    {"context 64", "context 99999999999999999999", "the context must be a whole number"},
    {"buffer b1 slab", "buffer b2 slab", "error: expected 'b1', not 'b2'"},
    {"b1 slab", "b1 slap", "4:11: error: there is no kind of buffer 'slap'; did you mean 'slab'?"},
    {"b1 slab slab 65536", "b1 slab slab -1", "the bytes of the buffer must be"},
    {"b1 slab slab 65536", "b1 slab slab 70368744177665", "the bytes of the buffer must be"},
    {"slab 65536",
     "slab 70368744177664\nbuffer b2 k kv.0 70368744177664 of 0\nbuffer b3 k kv.0 70368744177664 of 0\n"
     "buffer b4 k kv.0 70368744177664 of 0\nbuffer b5 k kv.0 70368744177664 of 0\n"
     "buffer b6 k kv.0 70368744177664 of 0\nbuffer b7 k kv.0 70368744177664 of 0\n"
     "buffer b8 k kv.0 70368744177664 of 0\nbuffer b9 k kv.0 70368744177664 of 0\n",
     "plan.txt:12:8: error: this buffer and those above have more than 1024 TiB"},
    {"65536  ", "65536 of 1", "a buffer of kind slab is of no weight"},
    {"1024 of 0", "1024", "error: expected 'of', not the end of the line"},
    {"kernel matmul_1 from", "kernel repack_0 from", "kernel 'repack_0' is declared twice"},
    {"kernel matmul_1 from", "kernel \"../m\" from", "expected the name of a kernel, not a string"},
    {"kernel matmul_1 from", "kernel a.b from", "expected the name of a kernel, not 'a.b'"},
    {"threads 128", "threads 2048", "the threads of a block must be a whole number from 1 to 1024"},
    {"tuned groups", "tuner groups", "expected tuned or analytic, not 'tuner'"},
    {"groups 1", "groups 3", "a part of the cut must be a whole number from 1 to 2"},
    {"stages 5", "stages 17", "a part of the cut must be a whole number from 1 to 16"},
    {"stages 5", "", "expected 'stages', not 'flight'"},
    {"of \"linear 32 = Q8_0 64, 1 x 64, rows 8\"", "", "expected 'of', not the end of the line"},
    {"call b0 bytes 1024", "call b0 bytes 4097", "the bytes of the call must be a whole number from 16 to 4096"},
    {"call b0 bytes", "call b1 bytes", "the buffer of a call is of kind call, not slab"},
    {"call b0 bytes", "call b99 bytes", "there is no buffer b99; above this line there are 12"},
    {"call b0 bytes", "call b99999999999 bytes", "expected a buffer: b0, b1, .., not 'b99999999999'"},
    {"lengths 640", "lengths 1020", "the place of the lengths must be a whole number from 0 to 1016"},
    {"slots 512", "slots 513", "slots and lengths stand at multiples of 4 bytes"},
    {"tokens : i32[T] at 8", "tokens : i32[T] at 1024", "the input must lie in the 1024 bytes of a call"},
    {"tokens : i32[T] at 8", "tokens : i32[T] at 900", "input 'tokens' of 32 rows does not fit"},
    {"tokens : i32[T] at 8", "tokens : q8_0[T] at 8", "values are f32 or i32, this is q8_0"},
    {"tokens : i32[T] at 8", "tokens : i32[T, 2147483647, 32767] at 8", "the input must lie in the 1024 bytes"},
    {"slots 512 l", "slots 960 l", "the slots of 32 rows do not fit in the call's 1024 bytes"},
    {"launch repack_0", "launch repack_1", "there is no kernel 'repack_1'; did you mean 'repack_0'?"},
    {"(b5, -7)", "(b5, staging)", "fill 1 takes the bytes of a weight, it makes no table"},
    {"(b5, -7)", "(b5+64, -7)", "b5 has only 64 bytes"},
    {"(b5, -7)", "(b5+-1, -7)", "an offset must be a whole number from 1"},
    {"(b5, -7)", "(b12)", "there is no buffer b12"},
    {"(b5, -7)", "(b5, 2147483648)", "an argument must be a whole number from -2147483648 to 2147483647"},
    {"b6+8191", "b6+8192", "b6 has only 8192 bytes"},
    {"(b1) grid 2", "(staging) grid 2", "staging is an argument only of fills"},
    {"grid 1 1 1\n}", "grid 1 1 1 rows T axis 0 per 1\n}", "the grid of a fill does not depend on the rows"},
    {"grid 8 1 1 ", "grid 0 1 1 ", "the grid's x must be a whole number from 1 to 2147483647"},
    {"grid 8 1 1 ", "grid 8 65536 1 ", "the grid's y must be a whole number from 1 to 65535"},
    {"fill 2 group", "fill 265 group", "what x is a multiple of must be a whole number from 1 to 264"},
    {"axis 1 per 16", "axis 3 per 16", "the axis must be a whole number from 0 to 2"},
    {"axis 1 per 16", "axis 1 per 0", "the rows of a block must be"},
    {"grid 2 1 1 rows", "grid 2 65535 1 rows", "with 32 rows this is a grid of 131070 blocks on axis 1"},
    {"weight 0 to b3", "weight 0 to b4 by 0", "b4 does not hold weight 0"},
    {"weight 0 to b3", "weight 0 to b1", "b1 does not hold weight 0"},
    {"weight 0 to b3", "weight 0 to b3 by 1", "a raw weight is copied, no fill makes it"},
    {"weight 1 to b4 by 0", "weight 1 to b4", "tiles are made by a fill"},
    {"weight 1 to b4 by 0", "weight 1 to b4 by 2", "there is no fill 2; above this line there are 2"},
    {"(staging, b4, 64, null)", "(staging)", "fill 0 does not begin with staging, b4 and rows"},
    {"weight 1 to b4 by 0", "weight 1 to b4 by 1", "fill 1 does not begin with staging, b4 and rows"},
    {"table 1\n", "", "fill 1 is of no weight and no table"},
    {"table 1\n", "table 1\ntable 1\n", "fill 1 is used twice"},
    {"rows 8 wanted", "rows 65537 wanted", "the rows of a call must be a whole number from 1 to 65536"},
    {"phase prefill of", "phase decode8 of", "phase 'decode8' of 'step' is declared twice"},
    {"layer.0 : f32[T, 4] at 0", "layer.0 : f32[T, 16] at 65536", "the output ends at byte 66048, the slab at 65536"},
    {"layer.0 : f32[T, 4] at 0", "layer.0 : f32[T, 2147483647, 32767] at 0", "the output ends at byte"},
    {"layer.0 : f32[T, 4] at 0", "layer.0 : f32[T, 16] at 2", "outputs stand at multiples of 4"},
    {"b2 scratch", "b2 slab", "outputs stand in the slab, of which a plan has one"},
    {"  tap layer.0", "  keep layer.0", "expected launch, emit, tap or '}', not 'keep'"},
    {"\"odd + 2\"", "\"odd + 2", "the string does not end on its line"},
    {"table 1\n", "table 1\nfills {\n}\n", "the fills are declared twice"},
    {"step rows 8 vocabulary", "step rows 33 vocabulary", "the rows of a call must be a whole number from 1 to 32"},
    {"step rows 8 vocabulary", "step rows 9 vocabulary", "b9 has 192 bytes, states of a sampler needs 196"},
    {"vocabulary 64", "vocabulary 65", "b10 has 528 bytes, recent of a sampler needs 536"},
    {"vocabulary 64", "vocabulary 524289", "the tokens there are must be a whole number from 1 to 524288"},
    {"host ring 256", "host ring 255", "b11 has 255 bytes, ring of a sampler needs 256"},
    {"states b9", "states b11", "b11 is of kind host, not sampler"},
    {"ring b11", "ring b9", "b9 is of kind sampler, not host"},
    {"sampler of step", "sampler of step rows 8 vocabulary 64 states b9 recent b10 ring b11 {\n}\nsampler of step",
     "there are two samplers of 'step'"},
    {"checker of step", "checker of step rows 8 vocabulary 64 ring b11 {\n}\nchecker of step",
     "there are two checkers of 'step'"},
    {"guesser of step rows 4 vocabulary 64 ring b11", "guesser of step rows 4 vocabulary 64 states b9",
     "expected 'ring', not 'states'"},
    {"b9+160, b0+8", "b9+192, b0+8", "b9 has only 192 bytes"},
    {"b9+160, b0+8", "staging", "staging is an argument only of fills"},
};

static void is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        const char *at = strstr(small_plan_text, wrong[i].from);
        if (!at)
            fail_msg("\"%s\" is not in the plan", wrong[i].from);
        Buf b = {0};
        buf_bytes(&b, small_plan_text, (size_t)(at - small_plan_text));
        buf_str(&b, wrong[i].to);
        buf_str(&b, at + strlen(wrong[i].from));
        Read r = read_text(b.s, b.n);
        if (r.plan || !strstr(r.messages, wrong[i].message) || strncmp(r.messages, "plan.txt:", 9) != 0)
            fail_msg("\"%s\" to \"%s\": should say \"%s\", says:\n%s", wrong[i].from, wrong[i].to, wrong[i].message,
                     r.messages);
        done(&r);
        buf_free(&b);
    }
}

static void message_shows_the_line(void **state) {
    (void)state;
    static const char text[] = "plan sm_90a slots 1 context 1 chunk 1\nbuffer b0 call call x\n";
    Read r = read_text(text, strlen(text));
    assert_string_equal(r.messages, "plan.txt:2:21: error: expected the bytes of the buffer, not 'x'\n"
                                    "    buffer b0 call call x\n"
                                    "                        ^\n");
    done(&r);
}

/* Cut anywhere, any byte turned: a message or a plan that prints and reads, never worse. */
static void survives_damage(void **state) {
    (void)state;
    size_t n = strlen(small_plan_text);
    char *text = malloc(n);
    for (size_t i = 0; i < n; i++) {
        Read r = read_text(small_plan_text, i);
        done(&r);
        memcpy(text, small_plan_text, n);
        text[i] = (char)(text[i] ^ (1 << i % 8));
        r = read_text(text, n);
        if (r.plan) {
            char *once = print(&r);
            Read again = read_text(once, strlen(once));
            assert_non_null(again.plan);
            char *twice = print(&again);
            assert_string_equal(once, twice);
            free(once);
            free(twice);
            done(&again);
        }
        done(&r);
    }
    free(text);
}

/* ==== Timed phases ==== */

/* The small plan whose decode phase has a timed version, too. */
static char *timed_text(void) {
    Read r = read_text(small_plan_text, strlen(small_plan_text));
    assert_true(plan_attach_kernel(r.plan, "matmul_1", "#define MM_NAME matmul_1\n#define MM_K 64\nthe rest\n"));
    assert_true(plan_attach_kernel(r.plan, "rowwise_2", "#define ROW_NAME rowwise_2\nits rest\n"));
    assert_true(plan_time_phase(r.plan, 0, "wait", r.diag));
    char *text = print(&r);
    done(&r);
    return text;
}

static void times_a_phase(void **state) {
    (void)state;
    char *text = timed_text();
    Read r = read_text(text, strlen(text));
    assert_string_equal(r.messages, "");
    char *again = print(&r);
    assert_string_equal(again, text);
    const Plan *p = r.plan;
    assert_int_equal(p->phases.n, 3);
    assert_int_equal(plan_find_phase(p, "step", 8, 8), 0);
    assert_int_equal(p->buffers.n, 13);
    assert_int_equal(plan_only_buffer(p, BUFFER_TIMES), 12);
    const PlanPhase *plain = &p->phases.v[0], *timed = &p->phases.v[2];
    assert_int_equal(p->buffers.v[12].bytes, plain->launches.n * PLAN_TIMES_BYTES);
    assert_string_equal(timed->name, "decode8_timed");
    assert_true(timed->timed && timed->capture && !plain->timed);
    assert_int_equal(timed->launches.n, plain->launches.n);
    for (int i = 0; i < plain->launches.n; i++) {
        const PlanLaunch *a = &plain->launches.v[i], *b = &timed->launches.v[i];
        assert_int_equal(b->args.n, a->args.n + 1);
        assert_int_equal(b->args.v[a->args.n].buffer, 12);
        assert_int_equal(b->args.v[a->args.n].value, i * PLAN_TIMES_BYTES);
        assert_string_equal(p->kernels.v[b->kernel].name, i ? "rowwise_2_timed" : "matmul_1_timed");
        assert_memory_equal(&b->grid, &a->grid, sizeof a->grid);
        assert_memory_equal(&b->cost, &a->cost, sizeof a->cost);
        assert_int_equal(b->group, a->group);
    }
    free(again);
    free(text);
    done(&r);
}

/* Some kernel has each moment that may be asked for. */
static void moments_are_in_kernels(void **state) {
    (void)state;
    char names[] = PLAN_MOMENTS;
    for (char *name = strtok(names, "|"); name; name = strtok(NULL, "|")) {
        char call[64];
        snprintf(call, sizeof call, "launch_moment(\"%s\")", name);
        bool found = false;
        for (int i = 0; i < n_codegen_texts; i++)
            found |= strstr(codegen_texts[i].text, call) != NULL;
        if (!found)
            fail_msg("no kernel has %s", call);
    }
}

/* Of a plan without the option nothing is timed; of one with it the kernels that it had are as they were. */
static void twins_are_apart(void **state) {
    (void)state;
    static const char matmul[] = "#define MM_NAME matmul_1\n#define MM_K 64\nthe rest\n", odd[] = "its rest\n";
    assert_null(strstr(small_plan_text, "times"));
    Read r = read_text(small_plan_text, strlen(small_plan_text));
    assert_true(plan_attach_kernel(r.plan, "matmul_1", matmul));
    assert_true(plan_attach_kernel(r.plan, "rowwise_2", "#define ROW_NAME rowwise_2\n"));
    assert_true(plan_time_phase(r.plan, 0, "wait", r.diag));
    assert_int_equal(r.plan->kernels.n, 5);
    assert_ptr_equal(r.plan->kernels.v[1].text, matmul);
    const char *twin = r.plan->kernels.v[3].text;
    static const char head[] = "#define MM_NAME(...) LAUNCH_TIMED(matmul_1_timed, __VA_ARGS__)\n"
                               "#define LAUNCH_MOMENT \"wait\"\n#line 1";
    static const char end[] = "#define MM_K 64\nthe rest\n}\n";
    assert_memory_equal(twin, head, strlen(head));
    assert_string_equal(twin + strlen(twin) - strlen(end), end);
    assert_non_null(strstr(twin, "#define previous_kernels_wait launch_waits"));
    done(&r);
    r = read_text(small_plan_text, strlen(small_plan_text));
    assert_true(plan_attach_kernel(r.plan, "matmul_1", matmul));
    assert_true(plan_attach_kernel(r.plan, "rowwise_2", odd));
    assert_false(plan_time_phase(r.plan, 0, "wait", r.diag));
    char *message = diag_text(r.diag);
    assert_non_null(strstr(message, "kernel rowwise_2 cannot be timed: its text does not begin with"));
    free(message);
    done(&r);
}

static const struct {
    const char *from, *to, *message;
} wrong_times[] = {
    {"b12 times", "b12 zero", "times stand in the buffer of kind times, of which a plan has one"},
    {"times\" 64", "times\" 63", "b12 has 63 bytes, the times of 2 launches need 64"},
    {", 16, b12)", ", 16)", "the last argument of launch 0 of a timed phase is not b12+0"},
    {", b12+32)", ", b12+24)", "the last argument of launch 1 of a timed phase is not b12+32"},
    {", b12+32)", ", b11+32)", "the last argument of launch 1 of a timed phase is not b12+32"},
};

static void wrong_times_are_refused(void **state) {
    (void)state;
    char *text = timed_text();
    for (size_t i = 0; i < COUNTOF(wrong_times); i++) {
        const char *at = strstr(text, wrong_times[i].from);
        assert_non_null(at);
        Buf b = {0};
        buf_bytes(&b, text, (size_t)(at - text));
        buf_str(&b, wrong_times[i].to);
        buf_str(&b, at + strlen(wrong_times[i].from));
        Read r = read_text(b.s, b.n);
        if (r.plan || !strstr(r.messages, wrong_times[i].message))
            fail_msg("\"%s\" should say \"%s\", says:\n%s", wrong_times[i].to, wrong_times[i].message, r.messages);
        done(&r);
        buf_free(&b);
    }
    free(text);
}

/* ==== Against the module ==== */

static const struct {
    const char *from, *to, *message;
} foreign[] = {
    {"emb.weight 1024 of 0", "emb.weight 1023 of 0",
     "buffer 'emb.weight' has 1023 bytes, weight 'emb.weight' of "
     "f32[64, 4] needs 1024"},
    {"4352 of 1", "4351 of 1", "needs 4352"},
    {"v kv.0 4096 of 0", "v kv.0 4095 of 0",
     "buffer 'kv.0' has 4095 bytes, cache 'kv.0' has 64 positions and needs 4096"},
    {"v kv.0 4096 of 0", "v kv.0 4096 of 1", "buffer 'kv.0' is of cache 1, of 1"},
    {"phase prefill of step", "phase prefill of draft", "is of 'draft', which the model does not have"},
    {"emit logits : f32[R, 64]", "emit logits : f32[R, 32]",
     "output 'logits' is f32[R, 32], in 'step' it is f32[R, 64]"},
    {"emit logits : f32[R, 64]", "emit logit : f32[R, 64]", "'step' has no output 'logit'"},
    {"vocabulary 64", "vocabulary 63", "a sampler needs 'step' to emit logits of type f32[R, 63]"},
    {"sampler of step", "sampler of draft", "a sampler needs 'draft' to emit logits of type f32[R, 64]"},
    {"checker of step rows 8 vocabulary 64", "checker of step rows 8 vocabulary 63",
     "a checker needs 'step' to emit logits of type f32[R, 63]"},
    {"input pos : i32[T]", "input pos : f32[T]", "input 'pos' is f32[T], in 'step' it is i32[T]"},
};

static void check_against_module(const char *from, const char *to, const char *message) {
    Buf b = {0};
    const char *at = from ? strstr(small_plan_text, from) : small_plan_text;
    assert_non_null(at);
    buf_bytes(&b, small_plan_text, (size_t)(at - small_plan_text));
    buf_str(&b, to ? to : "");
    buf_str(&b, at + (from ? strlen(from) : 0));
    Read r = read_text(b.s, b.n);
    assert_non_null(r.plan);
    Module *m = ir_parse(r.arena, r.diag, "module.ir", small_module_text, strlen(small_module_text));
    assert_non_null(m);
    bool same = plan_check(r.plan, m, r.diag);
    char *text = diag_text(r.diag);
    if (same != !message || (message && !strstr(text, message)))
        fail_msg("\"%s\" to \"%s\": should say \"%s\", says:\n%s", from ? from : "", to ? to : "",
                 message ? message : "", text);
    free(text);
    buf_free(&b);
    done(&r);
}

static void belongs_to_its_module(void **state) {
    (void)state;
    check_against_module(NULL, NULL, NULL);
    for (size_t i = 0; i < COUNTOF(foreign); i++)
        check_against_module(foreign[i].from, foreign[i].to, foreign[i].message);
}

static void architectures(void **state) {
    (void)state;
    int sm = 0;
    bool only = false;
    assert_true(plan_arch("sm_120a", &sm, &only) && sm == 120 && only);
    assert_true(plan_arch("sm_86", &sm, &only) && sm == 86 && !only);
    static const char *const bad[] = {"",       "sm_",    "sm_9",    "sm_086",    "sm_86aa",
                                      "sm_8 6", "sm_-86", "sm_1000", "compute_86"};
    for (size_t i = 0; i < COUNTOF(bad); i++)
        assert_false(plan_arch(bad[i], &sm, &only));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_prints_alike),
        cmocka_unit_test(means_what_it_says),
        cmocka_unit_test(is_refused),
        cmocka_unit_test(message_shows_the_line),
        cmocka_unit_test(survives_damage),
        cmocka_unit_test(times_a_phase),
        cmocka_unit_test(moments_are_in_kernels),
        cmocka_unit_test(twins_are_apart),
        cmocka_unit_test(wrong_times_are_refused),
        cmocka_unit_test(belongs_to_its_module),
        cmocka_unit_test(architectures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
