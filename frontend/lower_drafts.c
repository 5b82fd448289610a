/* lower_drafts.c - how a drafter guesses: `drafts chain(most = 4)`, `drafts block(most = 15, mask = 4)`. */
#include "frontend/lower.h"
#include <limits.h>
#include <string.h>

static bool lower_int(Lower *L, const Arg *a, int64_t *out) {
    const Value v = l_eval_alone(L, a->value);
    if (v.kind == VAL_INT)
        *out = v.u.i;
    else if (v.kind != VAL_POISON)
        l_error(L, a->value->loc, "'%s' must be an int, this is %s", a->name.s, value_what(L->arena, NULL, v));
    return v.kind == VAL_INT;
}

void l_drafts(Lower *L) {
    const ModelDecl *d = L->program->model;
    Drafts *drafts = &L->m->drafts;
    if (!d->drafts.s)
        return;
    drafts->way = draft_way_from_name((Str){d->drafts.s, strlen(d->drafts.s)});
    for (int i = 0; i < d->drafts_args.n; i++) {
        const Arg *a = &d->drafts_args.v[i];
        const bool most = strcmp(a->name.s, "most") == 0;
        const int64_t first = most ? 1 : 0, last = most ? MAX_DRAFTS : INT32_MAX;
        int64_t v;
        if (!lower_int(L, a, &v))
            continue;
        if (v < first || v > last) {
            l_error(L, a->value->loc, "'%s' is %lld; it must be between %lld and %lld", a->name.s, (long long)v,
                    (long long)first, (long long)last);
            continue;
        }
        if (most)
            drafts->most = (int)v;
        else
            drafts->mask = (int32_t)v;
    }
    if (!module_graph(L->m, "draft"))
        l_error(L, d->drafts.loc, "what drafts has an entry 'draft'");
    if (drafts->way == DRAFT_BLOCK && !module_graph(L->m, "absorb"))
        l_error(L, d->drafts.loc, "what drafts in blocks has an entry 'absorb'");
}
