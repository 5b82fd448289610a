/* choose_attention.c - how each attention goes over the keys, in each phase, and why.
 *
 *   before   group g3 attention
 *   after    group g3 attention decode split "at most 16 rows" prefill dense "window of 512 keys"
 *
 * Decode has few rows and, in the long run, many keys: these are split by position, so that many blocks read them at
 * once. Prefill has rows enough to fill the GPU: blocks of queries go over the tiles of keys that their variant shows
 * them. The code generator does what stands here, or says that it cannot.
 *
 * requires  groups are final (schedule)
 * keeps     every node and every group
 * breaks    nothing; an attention group without attend (a store alone) has nothing to choose
 */
#include "passes/passes_int.h"

#include <string.h>

static const char *reach(const Module *m, const Variant *v) {
    if (!scalar_causal(v->visible))
        return "keys behind and ahead";
    int64_t back = scalar_lookback(v->visible);
    return back < 0 ? "every key so far" : arena_printf(m->arena, "window of %lld keys", (long long)back + 1);
}

static bool choose(AttendChoice *c, AttendWay way, const char *why) {
    bool changed = c->way != way || strcmp(c->why, why) != 0;
    *c = (AttendChoice){way, why};
    return changed;
}

bool pass_choose_attention(Module *m, const PassOptions *o) {
    (void)o;
    bool changed = false;
    for (int i = 0; i < m->graphs.n; i++) {
        Graph *g = m->graphs.v[i];
        for (NodeId id = 1; id < (NodeId)g->nodes.n; id++) {
            const Node *n = ir_get(g, id);
            if (n->op != OP_ATTEND || !n->group)
                continue;
            Group *group = &g->groups.v[n->group - 1];
            const char *why = reach(m, &m->variants.v[n->attr[0].i]);
            changed = choose(&group->decode, ATTEND_SPLIT, "at most 16 rows") || changed;
            changed = choose(&group->prefill, ATTEND_DENSE, why) || changed;
        }
    }
    return changed;
}
