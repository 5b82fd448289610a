/* plan_parse_launch.c - launches out of the text of a plan: arguments, grids, costs. See plan_parse.c.
 *
 * A grid is checked for the largest call of its phase, an argument against the bytes of its buffer.
 */
#include "codegen/plan_text_int.h"

#include <stdlib.h>
#include <string.h>

/* ==== References ==== */

/* "b12", of the buffers above. */
bool plan_buffer_ref(Parser *p, const Plan *plan, int *out) {
    char digits[12];
    bool ref = p->tok == TOK_WORD && p->str.n > 1 && p->str.n < sizeof digits && p->str.s[0] == 'b';
    for (size_t i = 1; ref && i < p->str.n; i++)
        ref = p->str.s[i] >= '0' && p->str.s[i] <= '9';
    if (!ref)
        return p_expected(p, "a buffer: b0, b1, ..");
    memcpy(digits, p->str.s + 1, p->str.n - 1);
    digits[p->str.n - 1] = 0;
    long long n = strtoll(digits, NULL, 10);
    if (n >= plan->buffers.n)
        return p_fail_at(p, p->at, "there is no buffer b%lld; above this line there are %d", n, plan->buffers.n);
    *out = (int)n;
    p_next(p);
    return true;
}

/* A name that C takes for a function: it is also the name of a file. */
bool plan_kernel_name(Parser *p, const char **out) {
    if (p->tok != TOK_WORD || memchr(p->str.s, '.', p->str.n))
        return p_expected(p, "the name of a kernel");
    if (p->str.n > MAX_NAME)
        return p_fail_at(p, p->at, "the name of a kernel has at most %d letters", MAX_NAME);
    return p_name(p, "the name of a kernel", out);
}

/* ==== Launches ==== */

static bool parse_arg(Parser *p, const PlanReader *r, PlanArg *a) {
    SrcLoc at = p->at;
    *a = (PlanArg){.kind = ARG_NULL, .buffer = -1};
    if (p_accept_word(p, "null"))
        return true;
    if (p_is_word(p, "staging")) {
        if (r->phase)
            return p_fail_at(p, at, "staging is an argument only of fills");
        a->kind = ARG_STAGING;
        p_next(p);
        return true;
    }
    if (p->tok != TOK_WORD) {
        a->kind = ARG_INT;
        return p_int(p, "an argument", INT32_MIN, INT32_MAX, &a->value);
    }
    a->kind = ARG_BUFFER;
    if (!plan_buffer_ref(p, r->plan, &a->buffer))
        return false;
    int64_t bytes = plan_buffer_bytes(r->plan, &r->plan->buffers.v[a->buffer]);
    if (!p_accept(p, "+"))
        return true;
    at = p->at;
    if (!p_int(p, "an offset", 1, MAX_BUFFER_BYTES, &a->value))
        return false;
    return a->value < bytes || p_fail_at(p, at, "b%d has only %lld bytes", a->buffer, (long long)bytes);
}

static bool parse_args(Parser *p, const PlanReader *r, PlanLaunch *l) {
    if (!p_expect(p, "("))
        return false;
    while (!p_accept(p, ")")) {
        PlanArg a;
        if (l->args.n == MAX_ARGS)
            return p_fail_at(p, p->at, "a launch has at most %d arguments", MAX_ARGS);
        if ((l->args.n && !p_expect(p, ",")) || !parse_arg(p, r, &a))
            return false;
        vec_push(p->arena, &l->args, a);
    }
    return true;
}

/* "rows T axis 0 per 64": how the grid follows the rows of a call, of which the phase bounds the number. */
static bool parse_grid_rows(Parser *p, const PlanReader *r, PlanGrid *g) {
    SrcLoc at = p->at;
    int64_t axis = 0, per = 0;
    if (!p_accept_word(p, "rows"))
        return true;
    if (!r->phase)
        return p_fail_at(p, at, "the grid of a fill does not depend on the rows of a call");
    g->rows = p_is_word(p, "R") ? COUNT_R : COUNT_T;
    if (!p_accept_word(p, "T") && !p_accept_word(p, "R"))
        return p_expected(p, "T or R");
    if (!p_expect_word(p, "axis") || !p_int(p, "the axis", 0, 2, &axis) || !p_expect_word(p, "per") ||
        !p_int(p, "the rows of a block", 1, MAX_ROWS, &per))
        return false;
    g->axis = (int)axis;
    g->per = (int)per;
    int64_t rows = g->rows == COUNT_T ? r->phase->rows : r->phase->wanted;
    int64_t most = (axis == 0 ? g->x : axis == 1 ? g->y : g->z) * ((rows + per - 1) / per);
    if (most > (axis == 0 ? INT32_MAX : MAX_YZ))
        return p_fail_at(p, at, "with %lld rows this is a grid of %lld blocks on axis %lld", (long long)rows,
                         (long long)most, (long long)axis);
    return true;
}

static bool parse_grid(Parser *p, const PlanReader *r, PlanGrid *g) {
    int64_t fill = 0;
    if (!p_expect_word(p, "grid") || !p_int(p, "the grid's x", 1, INT32_MAX, &g->x) ||
        !p_int(p, "the grid's y", 1, MAX_YZ, &g->y) || !p_int(p, "the grid's z", 1, MAX_YZ, &g->z))
        return false;
    if (p_accept_word(p, "fill") && !p_int(p, "what x is a multiple of", 1, g->x, &fill))
        return false;
    g->fill = (int)fill;
    return parse_grid_rows(p, r, g);
}

static bool parse_cost(Parser *p, PlanCost *c) {
    for (int i = 0; i < COST_WORDS; i++)
        if (p_accept_word(p, cost_word[i].word) && !p_int(p, "a cost", 1, MAX_COST, cost_number(c, i)))
            return false;
    return true;
}

/* Behind "launch". */
bool plan_launch(Parser *p, PlanReader *r) {
    PlanLaunch l = {0};
    SrcLoc at = p->at;
    const char *name = NULL;
    int64_t group = 0;
    if (r->launches->n == MAX_LAUNCHES)
        return p_fail_at(p, at, "there are at most %d launches here", MAX_LAUNCHES);
    if (!plan_kernel_name(p, &name))
        return false;
    l.kernel = namemap_get(r->kernels, name);
    if (l.kernel < 0) {
        Nearest near = nearest_new((Str){name, strlen(name)});
        for (int i = 0; i < r->plan->kernels.n; i++)
            nearest_try(&near, r->plan->kernels.v[i].name);
        return p_unknown(p, at, "kernel", name, &near);
    }
    if (!parse_args(p, r, &l) || !parse_grid(p, r, &l.grid))
        return false;
    if (p_accept_word(p, "group") && !p_int(p, "a group", 1, MAX_LAUNCHES, &group))
        return false;
    l.group = (int)group;
    if (!parse_cost(p, &l.cost))
        return false;
    if (p->tok == TOK_STRING && !p_path(p, &l.label))
        return false;
    if (!p_end_line(p, &l.loc))
        return false;
    vec_push(p->arena, r->launches, l);
    return true;
}
