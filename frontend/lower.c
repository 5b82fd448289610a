/* lower.c - the expander's frame: mistakes and their notes, names, statements, entries, the whole
 * program. See lower.h. */
#include "frontend/lower.h"

#include <string.h>

/* ==== Mistakes ==== */

enum { MAX_TRAIL = 6 }; /* notes about the calls around a mistake */

/* The place together with the calls around it; loop turns do not count, so that a mistake in every
 * layer is reported for the first. */
static uint64_t chain_hash(const Lower *L, SrcLoc at) {
    uint64_t h = hash_bytes(&at, sizeof at, 1);
    for (const Frame *f = L->frame; f; f = f->up)
        if (!f->loop)
            h = hash_bytes(&f->loc, sizeof f->loc, h);
    return h;
}

static bool seen_before(const Lower *L, uint64_t h) {
    for (int i = 0; i < L->seen.n; i++)
        if (L->seen.v[i] == h)
            return true;
    return false;
}

static bool same_place(SrcLoc a, SrcLoc b) {
    return a.file == b.file && a.line == b.line && a.col == b.col;
}

/* Writes the notes that the last mistake still lacks. Called before the chain of calls or the last
 * mistake changes. */
static void flush_trail(Lower *L) {
    int n = 0;
    if (!L->trail)
        return;
    L->trail = false;
    for (const Frame *f = L->frame; f && n < MAX_TRAIL; f = f->up, n++) {
        while (!f->loop && f->up && same_place(f->loc, f->up->loc)) /* recursion shows once */
            f = f->up;
        if (f->loop)
            diag_note(L->diag, f->loc, "with %s = %lld", f->name, (long long)f->i);
        else
            diag_note(L->diag, f->loc, "in the call of '%s' here", f->name);
    }
}

static void limit(Lower *L) {
    if (diag_full(L->diag))
        L->stop = true;
}

Value l_error(Lower *L, SrcLoc at, const char *fmt, ...) {
    uint64_t h = chain_hash(L, at);
    L->muted = L->stop || seen_before(L, h);
    if (L->muted)
        return value_poison();
    flush_trail(L);
    va_list ap;
    va_start(ap, fmt);
    diag_error(L->diag, at, "%s", arena_vprintf(L->arena, fmt, ap));
    va_end(ap);
    vec_push(L->arena, &L->seen, h);
    L->trail = true;
    limit(L);
    return value_poison();
}

void l_note(Lower *L, SrcLoc at, const char *fmt, ...) {
    if (L->muted)
        return;
    va_list ap;
    va_start(ap, fmt);
    diag_note(L->diag, at, "%s", arena_vprintf(L->arena, fmt, ap));
    va_end(ap);
}

SrcLoc l_file(Lower *L, const ModelFile *file) {
    return (SrcLoc){.file = diag_source(L->diag, file->path, NULL, 0)};
}

void l_note_origin(Lower *L, Value v) {
    if (v.origin)
        l_note(L, l_file(L, v.origin->file), "key '%s' holds %s", v.origin->key, v.origin->what);
}

void l_note_near(Lower *L, SrcLoc at, const Nearest *n) {
    if (nearest_best(n))
        l_note(L, at, "did you mean '%s'?", nearest_best(n));
}

/* ==== Nodes ==== */

/* Between these two, ir_node may report by itself. False: this place already had its mistake. */
static bool begin_node(Lower *L, SrcLoc loc) {
    if (L->stop || seen_before(L, chain_hash(L, loc)))
        return false;
    flush_trail(L);
    return true;
}

static NodeId end_node(Lower *L, NodeId id, int errors, SrcLoc loc) {
    if (diag_errors(L->diag) > errors) {
        uint64_t h = chain_hash(L, loc);
        vec_push(L->arena, &L->seen, h);
        L->trail = true;
        limit(L);
    }
    return id;
}

NodeId l_node(Lower *L, Op op, const NodeId *in, int n_in, const Attr *attr, const char *hint, SrcLoc loc) {
    int errors = diag_errors(L->diag);
    if (!begin_node(L, loc))
        return 0;
    return end_node(L, ir_node(L->g, op, in, n_in, attr, NULL, hint, loc), errors, loc);
}

NodeId l_reshape(Lower *L, NodeId x, Type type, const char *hint, SrcLoc loc) {
    int errors = diag_errors(L->diag);
    if (!begin_node(L, loc))
        return 0;
    return end_node(L, ir_reshape(L->g, x, type, hint, loc), errors, loc);
}

bool l_in_entry(Lower *L, SrcLoc at, const char *what) {
    if (!L->g)
        l_error(L, at, "%s is only possible in an entry: here everything is known before a call", what);
    return L->g != NULL;
}

/* ==== Limits ==== */

bool l_steps(Lower *L, int64_t n, SrcLoc at) {
    if (L->stop)
        return false;
    L->steps += n;
    if (L->steps <= MAX_STEPS)
        return true;
    l_error(L, at, "expanding this model takes more than %d steps", MAX_STEPS);
    L->stop = true;
    return false;
}

Value *l_values(Lower *L, int64_t n, SrcLoc at) {
    if (n > MAX_ELEMENTS - L->elements) {
        l_error(L, at, "the arrays of this model have more than %d elements in all", MAX_ELEMENTS);
        L->stop = true;
        return NULL;
    }
    L->elements += n;
    return arena_array(L->arena, (size_t)(n ? n : 1), sizeof(Value));
}

/* ==== Names ==== */

void l_bind(Lower *L, const char *name, Value v) {
    Binding b = {name, v};
    vec_push(L->arena, &L->scope->names, b);
}

Value *l_find(Lower *L, const char *name) {
    for (Scope *s = L->scope; s; s = s->up)
        for (int i = s->names.n - 1; i >= 0; i--)
            if (strcmp(s->names.v[i].name, name) == 0)
                return &s->names.v[i].value;
    return NULL;
}

void l_enter(Lower *L, Frame *f) {
    flush_trail(L);
    f->up = L->frame;
    L->frame = f;
}

void l_leave(Lower *L) {
    flush_trail(L);
    L->frame = L->frame->up;
}

/* ==== Statements ==== */

static bool bound_of_loop(Lower *L, const Expr *e, int64_t *out) {
    Value v = l_eval(L, e, NULL);
    if (v.kind == VAL_INT) {
        *out = v.u.i;
        return true;
    }
    if (v.kind != VAL_POISON) {
        l_error(L, e->loc, "a loop runs over ints, this is %s", value_what(L->arena, L->g, v));
        l_note_origin(L, v);
    }
    return false;
}

static void run_for(Lower *L, const Stmt *s) {
    int64_t from, to;
    if (!bound_of_loop(L, s->from, &from) || !bound_of_loop(L, s->to, &to))
        return;
    for (int64_t i = from; i < to; i++) {
        if (!l_steps(L, 1, s->loc))
            return;
        Scope scope = {.up = L->scope};
        Frame frame = {.loc = s->name.loc, .name = s->name.s, .loop = true, .i = i};
        l_enter(L, &frame);
        L->scope = &scope;
        l_bind(L, s->name.s, value_int(i));
        l_block(L, &s->body, NULL);
        L->scope = scope.up;
        l_leave(L);
    }
}

/* tap layer[i] = e, emit logits = e */
static void run_output(Lower *L, const Stmt *s) {
    OutputKind kind = s->kind == ST_TAP ? OUT_TAP : OUT_EMIT;
    const char *word = kind == OUT_TAP ? "tap" : "emit", *name = s->name.s;
    if (!l_in_entry(L, s->loc, word))
        return;
    Value v = l_eval(L, s->value, s->name.s);
    if (s->index) {
        Value i = l_eval(L, s->index, NULL);
        if (i.kind != VAL_INT) {
            if (i.kind != VAL_POISON)
                l_error(L, s->index->loc, "an index must be an int, this is %s", value_what(L->arena, L->g, i));
            return;
        }
        name = arena_printf(L->arena, "%s.%lld", name, (long long)i.u.i);
    }
    if (v.kind == VAL_POISON)
        return;
    bool rows =
        v.kind == VAL_TENSOR && type_has_rows(ir_type(L->g, v.u.node)) && ir_type(L->g, v.u.node)->dtype == DT_F32;
    if (!rows) {
        l_error(L, s->value->loc, "%s needs an f32 tensor with rows, this is %s", word, value_what(L->arena, L->g, v));
        return;
    }
    const int old = namemap_get(L->outputs, name);
    if (old >= 0) {
        l_error(L, s->name.loc, "'%s' is put out twice by entry '%s'", name, L->g->name);
        l_note(L, L->g->outputs.v[old].loc, "the first is here");
        return;
    }
    ir_output(L->g, kind, name, v.u.node, s->loc);
    namemap_put(L->outputs, name, L->g->outputs.n - 1);
}

static void run_assign(Lower *L, const Stmt *s) {
    Value v = l_eval(L, s->value, s->name.s);
    Value *to = l_find(L, s->name.s);
    if (!to)
        ICE("assignment to unknown '%s'", s->name.s);
    *to = v;
}

Value l_block(Lower *L, const StmtList *block, const char *hint) {
    Value last = value_none();
    for (int i = 0; i < block->n && !L->stop; i++) {
        const Stmt *s = block->v[i];
        last = value_none();
        switch (s->kind) {
        case ST_LET:
        case ST_VAR: l_bind(L, s->name.s, l_eval(L, s->value, s->name.s)); break;
        case ST_ASSIGN: run_assign(L, s); break;
        case ST_FOR: run_for(L, s); break;
        case ST_TAP:
        case ST_EMIT: run_output(L, s); break;
        case ST_EXPR: last = l_eval(L, s->value, i + 1 == block->n ? hint : NULL); break;
        }
    }
    return L->stop ? value_poison() : last;
}

/* ==== Entries ==== */

static bool input_type(Lower *L, const EntryParam *p, Type *out) {
    int64_t dim[MAX_DIMS] = {DIM_T};
    if (p->dims.n > MAX_DIMS) {
        l_error(L, p->type.loc, "an input has at most %d dimensions", MAX_DIMS);
        return false;
    }
    for (int i = 1; i < p->dims.n; i++) {
        Value v = l_eval(L, p->dims.v[i], NULL);
        if (v.kind != VAL_INT || v.u.i < 1) {
            if (v.kind != VAL_POISON)
                l_error(L, p->dims.v[i]->loc, "a dimension must be an int above 0");
            return false;
        }
        dim[i] = v.u.i;
    }
    *out = type_make(strcmp(p->type.s, "f32") == 0 ? DT_F32 : DT_I32, p->dims.n, dim);
    return true;
}

static Value entry_input(Lower *L, const EntryParam *p) {
    Type type;
    if (!input_type(L, p, &type))
        return value_poison();
    int errors = diag_errors(L->diag);
    NodeId id = end_node(L, ir_input(L->g, p->name.s, type, p->name.loc), errors, p->name.loc);
    if (strcmp(p->type.s, "pos") == 0)
        L->pos = id;
    return value_tensor(id);
}

static void lower_entry(Lower *L, const EntryDecl *e) {
    Scope scope = {0};
    int errors = diag_errors(L->diag);
    L->g = graph_new(L->m, e->name.s, e->name.loc);
    L->outputs = namemap_new(L->arena);
    L->pos = 0;
    for (int i = 0; i < L->uses.n; i++)
        L->uses.v[i] = (CacheUse){0};
    L->scope = &scope;
    for (int i = 0; i < e->params.n; i++)
        l_bind(L, e->params.v[i].name.s, entry_input(L, &e->params.v[i]));
    l_block(L, &e->body, NULL);
    flush_trail(L);
    L->scope = NULL;
    if (!L->g->outputs.n && diag_errors(L->diag) == errors)
        l_error(L, e->name.loc, "entry '%s' puts nothing out: it needs an emit, a tap or a store", e->name.s);
    flush_trail(L);
    vec_push(L->arena, &L->m->graphs, L->g);
    L->g = NULL;
}

/* ==== The program ==== */

/* The file's architecture is one of those the text is for, or either says none. */
static bool takes_file(const ModelDecl *d, const ModelFile *f) {
    return !f || !f->arch || !f->arch[0] || d->archs.n == 0 || fe_archs_have(&d->archs, f->arch);
}

/* "'a', 'b' or 'c'" */
static const char *arch_list(Lower *L, const ModelDecl *d) {
    const char *all = "";
    for (int i = 0; i < d->archs.n; i++)
        all = arena_printf(L->arena, "%s%s'%s'", all, i == 0 ? "" : i + 1 == d->archs.n ? " or " : ", ", d->archs.v[i]);
    return all;
}

static void check_inputs(Lower *L) {
    const ModelDecl *d = L->program->model;
    const ModelFile *f = L->in->file;
    if (!takes_file(d, f)) {
        l_error(L, d->arch_loc, "this text is for weights of architecture %s", arch_list(L, d));
        l_note(L, l_file(L, f), "the file is of architecture '%s'", f->arch);
    }
    if (d->target.s && L->in->target && strcmp(L->in->target->name, d->target.s) != 0)
        l_error(L, d->target.loc, "this model works for target '%s', but the target given is '%s'", d->target.s,
                L->in->target->name);
    flush_trail(L);
}

Module *l_program(Arena *arena, Diag *diag, const Program *program, const FeInput *in) {
    const ModelDecl *d = program->model;
    int errors = diag_errors(diag);
    Lower L = {.arena = arena, .diag = diag, .in = in, .program = program, .errors = errors};
    L.m = module_new(arena, diag, d->name.s, d->archs.n ? d->archs.v[0] : NULL);
    L.m->target = d->target.s;
    check_inputs(&L);
    l_params(&L);
    flush_trail(&L);
    /* With wrong parameters everything after would be noise. */
    if (diag_errors(diag) > errors)
        return NULL;
    for (int i = 0; i < d->entries.n && !L.stop; i++)
        lower_entry(&L, &d->entries.v[i]);
    if (diag_errors(diag) == errors)
        l_check_caches(&L);
    if (!L.stop)
        l_drafts(&L);
    if (!L.stop)
        l_chat(&L);
    flush_trail(&L);
    return diag_errors(diag) == errors ? L.m : NULL;
}
