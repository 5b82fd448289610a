/* sparse.c - reading and checking the sparse method of a variant. See sparse.h.
 *
 * Defaults are those of the authors' code, where no layer is dense by default, alpha that of its mixture of experts, in
 * the middle of 0.08 .. 0.22. As there, an alpha of 0 or less keeps all.
 */
#include "ir/sparse.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const char method[] = "flash_prefill";

/* Every query sees its own block: without local >= 1 a row might see no key at all. */
typedef struct Parameter {
    const char *name;
    double usual, least, most;
    bool whole;
} Parameter;

enum { ALPHA, BLOCK, SINK, LOCAL, TAIL, DENSE, PARAMETERS };

static const Parameter parameters[PARAMETERS] = {
    [ALPHA] = {"alpha", 0.12, -1, 1, false}, [BLOCK] = {"block", 128, 16, SPARSE_MAX_BLOCK, true},
    [SINK] = {"sink", 2, 0, 1 << 24, true},  [LOCAL] = {"local", 4, 1, 1 << 24, true},
    [TAIL] = {"tail", 2, 0, 1 << 24, true},  [DENSE] = {"dense", 0, 0, 1 << 24, true},
};

static int parameter(const char *name) {
    int i = PARAMETERS - 1;
    while (i >= 0 && strcmp(parameters[i].name, name) != 0)
        i--;
    return i;
}

/* Nothing but k <= q: scores of whole blocks know of no other mask. */
static bool sees_all_so_far(const Scalar *visible) {
    const Scalar *const *arg = visible->arg;
    return (visible->op == SC_LE && arg[0]->op == SC_K && arg[1]->op == SC_Q) ||
           (visible->op == SC_GE && arg[0]->op == SC_Q && arg[1]->op == SC_K);
}

static const char *value_problem(Arena *a, const Parameter *p, double x) {
    if (x >= p->least && x <= p->most && (!p->whole || x == floor(x)))
        return NULL;
    char least[32], most[32], got[32];
    format_f64(least, p->least);
    format_f64(most, p->most);
    format_f64(got, x);
    return arena_printf(a, "'%s' must be a %s from %s to %s, not %s", p->name, p->whole ? "whole number" : "number",
                        least, most, got);
}

const char *sparse_problem(Arena *a, const Variant *v, int *arg) {
    bool seen[PARAMETERS] = {false};
    *arg = -1;
    if (!v->sparse)
        return NULL;
    if (strcmp(v->sparse, method) != 0)
        return arena_printf(a, "there is no sparse method '%.60s'; there is %s", v->sparse, method);
    if (!sees_all_so_far(v->visible))
        return arena_printf(a, "%s needs visible(q, k) = k <= q", method);
    for (int i = 0; i < v->n_sparse; i++) {
        const int p = parameter(v->sparse_arg[i].name);
        const char *problem =
            p < 0     ? arena_printf(a, "%s has no parameter '%.60s'; there are alpha, block, sink, local, tail, dense",
                                     method, v->sparse_arg[i].name)
            : seen[p] ? arena_printf(a, "'%s' is given twice", parameters[p].name)
                      : value_problem(a, &parameters[p], v->sparse_arg[i].value);
        *arg = i;
        if (problem)
            return problem;
        seen[p] = true;
    }
    *arg = -1;
    return NULL;
}

FlashPrefill sparse_read(const Variant *v) {
    double x[PARAMETERS];
    for (int p = 0; p < PARAMETERS; p++)
        x[p] = parameters[p].usual;
    for (int i = 0; i < v->n_sparse; i++) {
        const int p = parameter(v->sparse_arg[i].name);
        if (p < 0)
            ICE("sparse parameter %s", v->sparse_arg[i].name);
        x[p] = v->sparse_arg[i].value;
    }
    return (FlashPrefill){.alpha = x[ALPHA] > 0 ? x[ALPHA] : 0,
                          .block = (int64_t)x[BLOCK],
                          .sink = (int64_t)x[SINK],
                          .local = (int64_t)x[LOCAL],
                          .tail = (int64_t)x[TAIL],
                          .dense = (int64_t)x[DENSE]};
}

void sparse_set_alpha(Variant *v, double alpha) {
    int i = 0;
    while (i < v->n_sparse && parameter(v->sparse_arg[i].name) != ALPHA)
        i++;
    if (i == (int)COUNTOF(v->sparse_arg))
        ICE("%d arguments of a sparse method", i);
    v->sparse_arg[i].name = parameters[ALPHA].name;
    v->sparse_arg[i].value = alpha;
    v->n_sparse = i < v->n_sparse ? v->n_sparse : i + 1;
}
