/* print.c - the module as text. The language is docs/ir.md; parse.c and its companions are the inverse.
 *
 * Contract: print(parse(print(m))) == print(m), byte for byte, so everything a pass may set is
 * written out: types, plans, places. Names are kept, ids are not. Leaves (inputs, constants,
 * weights, caches) are written where they are used. Numbers read back exactly: those of graphs are
 * floats, those of variants doubles, each in the shortest form.
 */
#include "ir/ir.h"
#include "ir/text_lex.h"

#include <string.h>

/* ==== Numbers, ends of lines ==== */

/* A number of a graph: a finite float (infer.c sees to it). */
static void print_number(Buf *out, double x) {
    char text[32];
    format_f32(text, (float)x);
    buf_str(out, text);
}

/* The trailing place, and the end of the line. */
static void print_end(Buf *out, const Module *m, SrcLoc at) {
    text_put_end(out, m->diag, at);
}

/* ==== Declarations ==== */

/* The file of the module line: that of the first weight that is this model's. */
static const char *weights_file(const Module *m) {
    for (int i = 0; i < m->weights.n; i++)
        if (!m->weights.v[i].from)
            return m->weights.v[i].file;
    return NULL;
}

/* Nothing when it is what the reader takes by itself: for this model's weights, the module's. */
static void print_file(Buf *out, const Weight *w, const char *modules) {
    const char *usual = w->from ? NULL : modules;
    if (!w->file && usual) {
        buf_str(out, " file none");
    } else if (w->file && !(usual && strcmp(w->file, usual) == 0)) {
        buf_str(out, " file ");
        text_put_string(out, w->file, strlen(w->file));
    }
}

static void print_weight(Buf *out, const Module *m, const Weight *w, const char *modules_file) {
    buf_str(out, "weight @");
    text_put_name(out, w->name);
    buf_str(out, " : ");
    type_print(out, &w->type);
    if (w->from) {
        buf_str(out, " from ");
        text_put_name(out, w->from);
    }
    print_file(out, w, modules_file);
    print_end(out, m, w->loc);
}

static void print_cache(Buf *out, const Module *m, const Cache *c) {
    const KvLayout *l = &c->layout;
    buf_str(out, "cache ");
    text_put_name(out, c->name);
    buf_printf(out, " : heads %d k %s[%d] v %s[%d]", l->heads, dtype_name(l->k_type), l->k_dim, dtype_name(l->v_type),
               l->v_dim);
    if (c->from) {
        buf_str(out, " from ");
        text_put_name(out, c->from);
    }
    if (l->planned)
        buf_printf(out, " %s capacity %lld lookback %lld row %lld %lld bytes %lld", l->ring ? "ring" : "linear",
                   (long long)l->capacity, (long long)l->lookback, (long long)l->k_row, (long long)l->v_row,
                   (long long)l->bytes);
    print_end(out, m, c->loc);
}

static const char *table_name(const void *ctx, int i) {
    const Module *m = ctx;
    Buf b = {0};
    text_put_name(&b, m->weights.v[i].name);
    const char *name = arena_strdup(m->arena, b.s);
    buf_free(&b);
    return name;
}

static void print_scalar(Buf *out, const Module *m, const char *field, const Scalar *e) {
    if (!e)
        return;
    buf_printf(out, "  %s = ", field);
    scalar_print(out, e, table_name, m);
    buf_char(out, '\n');
}

static void print_variant(Buf *out, const Module *m, const Variant *v) {
    buf_str(out, "variant ");
    text_put_name(out, v->name);
    buf_str(out, " {");
    print_end(out, m, v->loc);
    print_scalar(out, m, "visible", v->visible);
    print_scalar(out, m, "score", v->score);
    print_scalar(out, m, "sink", v->sink);
    if (v->sparse) {
        buf_str(out, "  sparse = ");
        text_put_name(out, v->sparse);
        buf_char(out, '(');
        for (int i = 0; i < v->n_sparse; i++) {
            buf_str(out, i ? ", " : "");
            text_put_name(out, v->sparse_arg[i].name);
            char value[32];
            format_f64(value, v->sparse_arg[i].value);
            buf_printf(out, " = %s", value);
        }
        buf_str(out, ")\n");
    }
    buf_str(out, "}\n");
}

static void print_texts(Buf *out, const char *field, const Str *text, int n, const char *after) {
    buf_printf(out, "  %s", field);
    for (int i = 0; i < n; i++) {
        buf_char(out, ' ');
        text_put_string(out, text[i].s, text[i].n);
    }
    buf_printf(out, "%s\n", after);
}

static void print_drafts(Buf *out, const Drafts *d) {
    buf_printf(out, "drafts %s most %d", draft_way_name(d->way), d->most);
    if (d->way == DRAFT_BLOCK)
        buf_printf(out, " mask %d", d->mask);
    buf_char(out, '\n');
}

static void print_chat(Buf *out, const ChatFormat *c) {
    buf_str(out, "chat {\n");
    print_texts(out, "user", c->user, 2, "");
    print_texts(out, "model", c->model, 2, "");
    if (c->has_system)
        print_texts(out, "system", c->system, 2, c->system_in_user ? " in user" : "");
    if (c->prompt.n)
        print_texts(out, "prompt", &c->prompt, 1, "");
    for (int i = 0; i < c->stop.n; i++)
        print_texts(out, "stop", &c->stop.v[i], 1, "");
    if (c->hide[0].n || c->hide[1].n)
        print_texts(out, "hide", c->hide, 2, "");
    buf_str(out, "}\n");
}

/* ==== Graphs ==== */

static void print_operand(Buf *out, const Graph *g, NodeId id) {
    const Module *m = g->module;
    const Node *n = ir_get(g, id);
    if (n->op == OP_INPUT) {
        text_put_name(out, n->attr[0].s);
    } else if (n->op == OP_CONST) {
        print_number(out, n->attr[0].f);
    } else if (n->op == OP_WEIGHT) {
        buf_char(out, '@');
        text_put_name(out, m->weights.v[n->attr[0].i].name);
    } else if (n->op == OP_CACHE) {
        buf_char(out, '$');
        text_put_name(out, m->caches.v[n->attr[0].i].name);
    } else {
        buf_char(out, '%');
        text_put_name(out, n->name);
    }
}

static void print_attr(Buf *out, const Module *m, char kind, const Attr *a) {
    switch (kind) {
    case 'i': buf_printf(out, "%lld", (long long)a->i); break;
    case 'f': print_number(out, a->f); break;
    case 's': text_put_string(out, a->s, strlen(a->s)); break;
    case 'w': text_put_name(out, m->weights.v[a->i].name); break;
    case 'c': text_put_name(out, m->caches.v[a->i].name); break;
    case 'v': text_put_name(out, m->variants.v[a->i].name); break;
    default: ICE("attribute kind '%c'", kind);
    }
}

static void print_node(Buf *out, const Graph *g, const Node *n) {
    const OpInfo *info = op_info(n->op);
    buf_str(out, "  %");
    text_put_name(out, n->name);
    buf_printf(out, " = %s", info->name);
    for (int i = 0; i < n->n_in; i++) {
        buf_str(out, i ? ", " : " ");
        print_operand(out, g, n->in[i]);
    }
    for (int i = 0; i < info->n_attrs; i++) {
        buf_printf(out, "%s%s=", i ? ", " : " {", info->attr_name[i]);
        print_attr(out, g->module, info->attr_kind[i], &n->attr[i]);
    }
    buf_str(out, info->n_attrs ? "} : " : " : ");
    type_print(out, &n->type);
    if (n->group)
        buf_printf(out, " in g%d", n->group);
    if (n->slab >= 0)
        buf_printf(out, " at %lld", (long long)n->slab);
    print_end(out, g->module, n->loc);
}

static void print_output(Buf *out, const Graph *g, const Output *o) {
    static const char *const word[] = {[OUT_EMIT] = "emit", [OUT_TAP] = "tap", [OUT_KEEP] = "keep"};
    buf_printf(out, "  %s ", word[o->kind]);
    text_put_name(out, o->name);
    buf_str(out, " = ");
    print_operand(out, g, o->node);
    print_end(out, g->module, o->loc);
}

static void print_attend(Buf *out, const char *phase, const AttendChoice *c) {
    if (c->way == ATTEND_NONE)
        return;
    buf_printf(out, " %s %s ", phase, attend_way_name(c->way));
    if (c->way == ATTEND_SPARSE)
        buf_printf(out, "from %lld ", (long long)c->from);
    text_put_string(out, c->why, strlen(c->why));
}

static void print_group(Buf *out, const Graph *g, int number) {
    const Group *group = &g->groups.v[number - 1];
    buf_printf(out, "  group g%d %s", number, family_info(group->family)->name);
    if (group->warps)
        buf_printf(out, " %d x %d", group->warps, group->columns);
    print_attend(out, "decode", &group->decode);
    print_attend(out, "prefill", &group->prefill);
    if (group->early)
        buf_str(out, group->early == EARLY_IDS ? " early ids" : " early");
    print_end(out, g->module, group->loc);
}

static void print_graph(Buf *out, const Graph *g) {
    buf_str(out, "graph ");
    text_put_name(out, g->name);
    buf_char(out, '(');
    for (int i = 0; i < g->inputs.n; i++) {
        const Node *n = ir_get(g, g->inputs.v[i]);
        buf_str(out, i ? ", " : "");
        text_put_name(out, n->attr[0].s);
        buf_str(out, ": ");
        type_print(out, &n->type);
    }
    buf_char(out, ')');
    if (g->slab_rows)
        buf_printf(out, " slab %lld rows %lld wanted %lld", (long long)g->slab_bytes, (long long)g->slab_rows,
                   (long long)g->slab_wanted);
    buf_str(out, " {");
    print_end(out, g->module, g->loc);
    for (int i = 0; i < g->groups.n; i++)
        print_group(out, g, i + 1);
    for (int i = 1; i < g->nodes.n; i++)
        if (!(op_info(g->nodes.v[i].op)->flags & OPF_LEAF))
            print_node(out, g, &g->nodes.v[i]);
    for (int i = 0; i < g->outputs.n; i++)
        print_output(out, g, &g->outputs.v[i]);
    buf_str(out, "}\n");
}

void ir_print(Buf *out, const Module *m) {
    buf_str(out, "module ");
    text_put_name(out, m->name);
    buf_str(out, " arch ");
    text_put_string(out, m->arch, strlen(m->arch));
    if (m->target) {
        buf_str(out, " target ");
        text_put_name(out, m->target);
    }
    const char *file = weights_file(m);
    if (file) {
        buf_str(out, " file ");
        text_put_string(out, file, strlen(file));
    }
    buf_char(out, '\n');
    for (int i = 0; i < m->weights.n; i++)
        print_weight(out, m, &m->weights.v[i], file);
    for (int i = 0; i < m->caches.n; i++)
        print_cache(out, m, &m->caches.v[i]);
    for (int i = 0; i < m->variants.n; i++)
        print_variant(out, m, &m->variants.v[i]);
    if (m->drafts.way)
        print_drafts(out, &m->drafts);
    if (m->chat.present)
        print_chat(out, &m->chat);
    for (int i = 0; i < m->graphs.n; i++)
        print_graph(out, m->graphs.v[i]);
}
