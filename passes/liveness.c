/* liveness.c - which nodes a graph's outputs need. */
#include "passes/passes_int.h"

void graph_mark_live(const Graph *g, bool *live) {
    for (int id = g->nodes.n - 1; id > 0; id--) {
        const Node *n = &g->nodes.v[id];
        for (int i = 0; live[id] && i < n->n_in; i++)
            live[n->in[i]] = true;
    }
}
