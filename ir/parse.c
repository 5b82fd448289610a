/* parse.c - text IR back to a module: graphs, the module, the way in. Recursive descent, one statement a line.
 *
 * The language is docs/ir.md; print.c is the inverse. Input may be hostile: every count, dimension
 * and depth is bounded, and nothing is built but through ir_node(), which infers the type; the type
 * written is then compared. A mistake is reported where it stands in the IR text and the rest of
 * its line is skipped, so that one run shows several. While it is built and verified everything
 * stands at its place in the IR text; only a sound module gets the places that are written behind
 * statements (`# gemma3.lap:12:3`).
 */
#include "ir/parse_int.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_GRAPH_INPUTS = 64, MAX_GROUPS = 4096, MAX_WARPS = 64, MAX_COLUMNS = 4096 };

/* ==== Graphs ==== */

typedef struct GraphParser {
    Graph *g;
    NameMap *values;         /* name without % -> id; 0: its line was wrong */
    VEC(const char *) names; /* the same, for suggestions */
} GraphParser;

static NodeId named_value(Parser *p, GraphParser *gp) {
    const char *name = NULL;
    SrcLoc at = p->at;
    if (!p_name(p, "the name of a value", &name))
        return 0;
    int id = namemap_get(gp->values, name);
    if (id >= 0)
        return (NodeId)id;
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (int i = 0; i < gp->names.n; i++)
        nearest_try(&near, gp->names.v[i]);
    p_unknown(p, at, "value above this line called", name, &near);
    return 0;
}

static const char *weight_name(const Module *m, int i) {
    return i < m->weights.n ? m->weights.v[i].name : NULL;
}

static const char *cache_name(const Module *m, int i) {
    return i < m->caches.n ? m->caches.v[i].name : NULL;
}

static const char *variant_name(const Module *m, int i) {
    return i < m->variants.n ? m->variants.v[i].name : NULL;
}

/* What a module declares and its graphs name. */
typedef struct Table {
    const char *what, *expected;
    int (*find)(const Module *m, const char *name);
    const char *(*name)(const Module *m, int i); /* NULL behind the last */
} Table;

static const Table weights = {"weight", "the name of a weight", module_weight, weight_name},
                   caches = {"cache", "the name of a cache", module_cache, cache_name},
                   variants = {"variant", "the name of a variant", module_variant, variant_name};

/* The index of the one named; -1 after a mistake. */
static int named(Parser *p, const Table *t) {
    const char *name = NULL;
    SrcLoc at = p->at;
    if (!p_name(p, t->expected, &name))
        return -1;
    int found = t->find(p->m, name);
    if (found >= 0)
        return found;
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (int i = 0; t->name(p->m, i); i++)
        nearest_try(&near, t->name(p->m, i));
    p_unknown(p, at, t->what, name, &near);
    return -1;
}

static NodeId named_leaf(Parser *p, Graph *g, const Table *t, NodeId (*make)(Graph *, int, SrcLoc)) {
    SrcLoc at = p->at;
    int i = named(p, t);
    return i < 0 ? 0 : make(g, i, at);
}

static NodeId named_input(Parser *p, Graph *g) {
    const char *name = NULL;
    SrcLoc at = p->at;
    if (!p_name(p, "an operand", &name))
        return 0;
    Nearest near = nearest_new((Str){name, strlen(name)});
    for (int i = 0; i < g->inputs.n; i++) {
        const char *input = ir_get(g, g->inputs.v[i])->attr[0].s;
        if (strcmp(input, name) == 0)
            return g->inputs.v[i];
        nearest_try(&near, input);
    }
    p_unknown(p, at, "input", name, &near);
    return 0;
}

/* 0 after a mistake here or in the line that made the value; only the first is reported. */
static NodeId parse_operand(Parser *p, GraphParser *gp) {
    SrcLoc at = p->at;
    if (p_accept(p, "%"))
        return named_value(p, gp);
    if (p_accept(p, "@"))
        return named_leaf(p, gp->g, &weights, ir_weight);
    if (p_accept(p, "$"))
        return named_leaf(p, gp->g, &caches, ir_cache);
    double value;
    if (p_is(p, "-") || p_at_number(p))
        return p_number(p, true, &value) ? ir_const(gp->g, value, at) : 0;
    return named_input(p, gp->g);
}

static bool parse_attr(Parser *p, char kind, const char *attr_name, Attr *a) {
    if (kind == 'i')
        return p_int(p, attr_name, -INT64_MAX, INT64_MAX, &a->i);
    if (kind == 'f')
        return p_number(p, true, &a->f);
    if (kind != 'v')
        ICE("attribute kind '%c' on a line of its own", kind);
    a->i = named(p, &variants);
    return a->i >= 0;
}

static bool parse_attrs(Parser *p, const OpInfo *info, Attr *attr) {
    for (int i = 0; i < info->n_attrs; i++)
        if (!p_expect(p, i ? "," : "{") || !p_expect_word(p, info->attr_name[i]) || !p_expect(p, "=") ||
            !parse_attr(p, info->attr_kind[i], info->attr_name[i], &attr[i]))
            return false;
    return info->n_attrs == 0 || p_expect(p, "}");
}

static bool take_op(Parser *p, Op *op) {
    if (p->tok != TOK_WORD)
        return p_expected(p, "an op");
    *op = op_from_name(p->str);
    if (*op == OP_NONE) {
        Nearest near = nearest_new(p->str);
        for (int i = 1; i < OP_COUNT; i++)
            nearest_try(&near, op_info((Op)i)->name);
        return p_unknown(p, p->at, "op", arena_strndup(p->arena, p->str.s, p->str.n), &near);
    }
    if (op_info(*op)->flags & OPF_LEAF)
        return p_fail_at(p, p->at, "%s has no line of its own; it is written where it is used", op_info(*op)->name);
    p_next(p);
    return true;
}

/* Reports when the type written is not the one the op gives. */
static void compare_types(Parser *p, const Type *written, const Type *given, Op op, SrcLoc at) {
    if (!type_same(written, given))
        p_fail_at(p, at, "type written %s, but %s gives %s", type_text(p->arena, written), op_info(op)->name,
                  type_text(p->arena, given));
}

static bool parse_operands(Parser *p, GraphParser *gp, NodeId in[MAX_INPUTS], int *n_in) {
    int errors = diag_errors(p->diag);
    *n_in = 0;
    do {
        if (*n_in == MAX_INPUTS)
            return p_fail_at(p, p->at, "an op has at most %d operands", MAX_INPUTS);
        in[(*n_in)++] = parse_operand(p, gp);
        if (diag_errors(p->diag) > errors)
            return false;
    } while (p_accept(p, ","));
    return true;
}

/* g1, g2, .. up to `most`. */
static bool parse_group_name(Parser *p, int64_t most, int64_t *number) {
    const char *name = NULL;
    SrcLoc at = p->at;
    if (!p_name(p, "the name of a group", &name))
        return false;
    char *end = NULL;
    *number = name[0] == 'g' && name[1] >= '1' && name[1] <= '9' ? strtol(name + 1, &end, 10) : 0;
    if (*number < 1 || *number > most || *end)
        return p_fail_at(p, at, "there is no group '%.60s'; the groups above are g1 to g%lld", name, (long long)most);
    return true;
}

/* "7 x 256", or nothing. */
static bool parse_warps(Parser *p, Group *group) {
    int64_t warps, columns;
    if (p->tok != TOK_INT)
        return true;
    if (!p_int(p, "the number of warps", 1, MAX_WARPS, &warps) || !p_expect_word(p, "x") ||
        !p_int(p, "the columns of a warp", 1, MAX_COLUMNS, &columns))
        return false;
    group->warps = (int)warps;
    group->columns = (int)columns;
    return true;
}

/* `decode split "why"`, `prefill sparse from 4096 "why"`, or nothing. */
static bool parse_attend(Parser *p, const char *phase, AttendChoice *c) {
    if (!p_accept_word(p, phase))
        return true;
    c->way = p->tok == TOK_WORD ? attend_way_from_name(p->str) : ATTEND_NONE;
    if (c->way == ATTEND_NONE)
        return p_expected(p, "a way of attending");
    p_next(p);
    if (c->way == ATTEND_SPARSE &&
        (!p_expect_word(p, "from") || !p_int(p, "the first sparse position", 0, INT32_MAX, &c->from)))
        return false;
    return p->tok == TOK_STRING ? p_name(p, "the reason", &c->why) : p_expected(p, "the reason, in quotes");
}

/* `early`, `early ids`, or nothing. */
static Early parse_early(Parser *p) {
    if (!p_accept_word(p, "early"))
        return EARLY_NONE;
    return p_accept_word(p, "ids") ? EARLY_IDS : EARLY_MAIN;
}

static bool parse_group(Parser *p, GraphParser *gp) {
    int64_t number;
    SrcLoc at = p->at, place;
    if (gp->g->groups.n == MAX_GROUPS)
        return p_fail_at(p, at, "a graph has at most %d groups", MAX_GROUPS);
    if (!parse_group_name(p, gp->g->groups.n + 1, &number))
        return false;
    if (number != gp->g->groups.n + 1)
        return p_fail_at(p, at, "groups are declared in order; this one must be g%d", gp->g->groups.n + 1);
    if (p->tok != TOK_WORD)
        return p_expected(p, "a family");
    Family f = family_from_name(p->str);
    if (f == FAM_COUNT) {
        Nearest near = nearest_new(p->str);
        for (int i = 0; i < FAM_COUNT; i++)
            nearest_try(&near, family_info((Family)i)->name);
        return p_unknown(p, p->at, "family", arena_strndup(p->arena, p->str.s, p->str.n), &near);
    }
    p_next(p);
    number = ir_group_new(gp->g, f, at);
    Group *group = &gp->g->groups.v[number - 1];
    if (!parse_warps(p, group) || !parse_attend(p, "decode", &group->decode) ||
        !parse_attend(p, "prefill", &group->prefill))
        return false;
    group->early = parse_early(p);
    if (!p_end_line(p, &place))
        return false;
    p_remember(p, gp->g, OF_GROUP, gp->g->groups.n - 1, place);
    return true;
}

/* Behind "%name =". False when the line was left in its middle; *id is 0 after any mistake. */
static bool parse_value(Parser *p, GraphParser *gp, const char *name, NodeId *id) {
    NodeId in[MAX_INPUTS];
    Attr attr[MAX_ATTRS] = {0};
    Type type = {0};
    int n_in;
    int64_t slab = -1, group = 0;
    SrcLoc op_at = p->at, type_at, place;
    Op op = OP_NONE;
    if (!take_op(p, &op) || !parse_operands(p, gp, in, &n_in) || !parse_attrs(p, op_info(op), attr) ||
        !p_expect(p, ":"))
        return false;
    type_at = p->at;
    if (!p_type(p, true, &type))
        return false;
    type_at.end = p->prev_end;
    if (p_accept_word(p, "in") && !parse_group_name(p, gp->g->groups.n, &group))
        return false;
    if (p_accept_word(p, "at") && !p_int(p, "the place in the slab", 0, MAX_BYTES, &slab))
        return false;
    if (!p_end_line(p, &place))
        return false;
    NodeId before = (NodeId)gp->g->nodes.n;
    *id = ir_node(gp->g, op, in, n_in, attr, &type, name, op_at);
    if (*id)
        compare_types(p, &type, ir_type(gp->g, *id), op, type_at);
    if (*id >= before) { /* else an equal one above is shared */
        p_remember(p, gp->g, OF_NODE, (int)*id, place);
        ir_get(gp->g, *id)->slab = slab;
        ir_get(gp->g, *id)->group = (int)group;
    }
    return true;
}

static bool parse_node(Parser *p, GraphParser *gp) {
    const char *name = NULL;
    SrcLoc at = p->at;
    if (!p_name(p, "the name of a value", &name))
        return false;
    if (namemap_get(gp->values, name) >= 0)
        return p_fail_at(p, at, "%%%.60s has a value already", name);
    NodeId id = 0;
    bool whole = p_expect(p, "=") && parse_value(p, gp, name, &id);
    namemap_put(gp->values, name, (int)id);
    vec_push(p->arena, &gp->names, name);
    return whole;
}

static bool parse_output(Parser *p, GraphParser *gp, OutputKind kind) {
    const char *name = NULL;
    SrcLoc at = p->at, place;
    int errors = diag_errors(p->diag);
    if (!p_name(p, "the name of an output", &name) || !p_expect(p, "="))
        return false;
    NodeId id = parse_operand(p, gp);
    if (diag_errors(p->diag) > errors || !p_end_line(p, &place))
        return false;
    if (!id)
        return true;
    ir_output(gp->g, kind, name, id, at);
    p_remember(p, gp->g, OF_OUTPUT, gp->g->outputs.n - 1, place);
    return true;
}

static bool graph_line(Parser *p, void *ctx) {
    GraphParser *gp = ctx;
    if (p_accept(p, "%"))
        return parse_node(p, gp);
    if (p_accept_word(p, "group"))
        return parse_group(p, gp);
    if (p_accept_word(p, "emit"))
        return parse_output(p, gp, OUT_EMIT);
    if (p_accept_word(p, "tap"))
        return parse_output(p, gp, OUT_TAP);
    if (p_accept_word(p, "keep"))
        return parse_output(p, gp, OUT_KEEP);
    return p_expected(p, "a value, group, emit, tap, keep or '}'");
}

static bool parse_inputs(Parser *p, Graph *g) {
    const char *name = NULL;
    Type type = {0};
    if (!p_expect(p, "("))
        return false;
    while (!p_accept(p, ")")) {
        if (g->inputs.n == MAX_GRAPH_INPUTS)
            return p_fail_at(p, p->at, "a graph has at most %d inputs", MAX_GRAPH_INPUTS);
        if (g->inputs.n && !p_expect(p, ","))
            return false;
        SrcLoc at = p->at;
        int before = g->inputs.n;
        if (!p_name(p, "an input", &name) || !p_expect(p, ":") || !p_type(p, true, &type))
            return false;
        if (!ir_input(g, name, type, at))
            return false;
        if (g->inputs.n == before)
            return p_fail_at(p, at, "input '%.60s' is declared twice", name);
    }
    return true;
}

static bool parse_graph(Parser *p) {
    const char *name = NULL;
    SrcLoc at = p->at, place;
    if (!p_name(p, "the name of a graph", &name))
        return false;
    GraphParser gp = {graph_new(p->m, name, at), namemap_new(p->arena), {0}};
    Graph *g = gp.g;
    if (!parse_inputs(p, g))
        return false;
    if (p_accept_word(p, "slab") &&
        !(p_int(p, "the size of the slab", 0, MAX_BYTES, &g->slab_bytes) && p_expect_word(p, "rows") &&
          p_int(p, "the rows of the slab", 1, MAX_DIM, &g->slab_rows) && p_expect_word(p, "wanted") &&
          p_int(p, "the wanted rows of the slab", 1, MAX_DIM, &g->slab_wanted)))
        return false;
    if (!p_expect(p, "{") || !p_end_line(p, &place) || !p_block(p, graph_line, &gp))
        return false;
    p_remember(p, g, OF_GRAPH, 0, place);
    if (module_graph(p->m, name))
        p_fail_at(p, at, "graph '%.60s' is declared twice", name);
    else
        vec_push(p->arena, &p->m->graphs, g);
    return true;
}

/* ==== Module ==== */

static bool parse_head(Parser *p) {
    const char *name = NULL, *arch = NULL;
    SrcLoc place;
    p_skip_empty(p);
    if (!p_expect_word(p, "module") || !p_name(p, "the name of the module", &name) || !p_expect_word(p, "arch") ||
        !p_name(p, "the name of an architecture", &arch))
        return false;
    p->m = module_new(p->arena, p->diag, name, arch);
    if (p_accept_word(p, "target") && !p_name(p, "the name of the target", &p->m->target))
        return false;
    if (p_accept_word(p, "file") && !p_path(p, &p->weights_file))
        return false;
    return p_end_line(p, &place);
}

static const struct {
    const char *word;
    bool (*parse)(Parser *);
} declarations[] = {{"weight", p_weight}, {"cache", p_cache},   {"variant", p_variant},
                    {"chat", p_chat},     {"drafts", p_drafts}, {"graph", parse_graph}};

static bool at_declaration(const Parser *p) {
    for (size_t i = 0; i < COUNTOF(declarations); i++)
        if (p_is_word(p, declarations[i].word))
            return true;
    return false;
}

static bool parse_declaration(Parser *p) {
    for (size_t i = 0; i < COUNTOF(declarations); i++)
        if (p_accept_word(p, declarations[i].word))
            return declarations[i].parse(p);
    return p_expected(p, "weight, cache, variant, chat, drafts or graph");
}

/* After a mistake in a declaration: to the next line that begins one. */
static void skip_declaration(Parser *p) {
    do
        p_skip_line(p);
    while (p->tok != TOK_END && !at_declaration(p));
}

/* From places in the IR text to the places that are written in it. */
static void set_places(Parser *p) {
    Module *m = p->m;
    for (int i = 0; i < p->written.n; i++) {
        const Written *w = &p->written.v[i];
        switch (w->of) {
        case OF_WEIGHT: m->weights.v[w->index].loc = w->place; break;
        case OF_CACHE: m->caches.v[w->index].loc = w->place; break;
        case OF_VARIANT: m->variants.v[w->index].loc = w->place; break;
        case OF_GROUP: w->g->groups.v[w->index].loc = w->place; break;
        case OF_GRAPH: w->g->loc = w->place; break;
        case OF_NODE: w->g->nodes.v[w->index].loc = w->place; break;
        case OF_OUTPUT: w->g->outputs.v[w->index].loc = w->place; break;
        }
    }
}

Module *ir_parse(Arena *arena, Diag *diag, const char *name, const char *text, size_t len) {
    Parser p;
    int errors = diag_errors(diag);
    if (!p_begin(&p, arena, diag, name, text, len) || !parse_head(&p))
        return NULL;
    for (p_skip_empty(&p); p.tok != TOK_END && !diag_full(diag); p_skip_empty(&p))
        if (!parse_declaration(&p))
            skip_declaration(&p);
    if (diag_errors(diag) > errors || !ir_verify(p.m))
        return NULL;
    set_places(&p);
    return p.m;
}

bool ir_looks_like(const char *text, size_t len) {
    size_t i = 0;
    while (i < len && strchr(" \t\r\n#", text[i]) && text[i]) {
        if (text[i] == '#')
            while (i < len && text[i] != '\n')
                i++;
        else
            i++;
    }
    static const char word[] = "module";
    size_t n = sizeof word - 1;
    return len - i > n && memcmp(text + i, word, n) == 0 && (text[i + n] == ' ' || text[i + n] == '\t');
}
