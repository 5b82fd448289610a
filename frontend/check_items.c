/* check_items.c - checks of what a model text is made of: parameters, functions, variants, entries,
 * the chat format. */
#include "frontend/check_int.h"

#include <string.h>

/* Parameters, functions and variants share one space of names. Built-in functions cannot be defined
 * anew; a value may be called like one, as calls look only for what can be called. */
typedef VEC(Name) NameList;

static void define(Checker *c, NameList *all, Name name, bool callable) {
    for (int i = 0; i < all->n; i++) {
        if (strcmp(all->v[i].s, name.s) == 0) {
            diag_error(c->diag, name.loc, "'%s' is defined twice", name.s);
            diag_note(c->diag, all->v[i].loc, "the first is here");
            return;
        }
    }
    if (callable && builtin_find(name.s))
        diag_error(c->diag, name.loc, "'%s' is a built-in function: choose another name", name.s);
    vec_push(c->arena, all, name);
}

static void check_definitions(Checker *c) {
    const ModelDecl *m = c->p->model;
    NameList all = {0}, entries = {0};
    for (int i = 0; i < m->params.n; i++)
        define(c, &all, m->params.v[i].name, false);
    for (int i = 0; i < m->variants.n; i++)
        define(c, &all, m->variants.v[i].name, true);
    for (int i = 0; i < m->fns.n; i++)
        define(c, &all, m->fns.v[i].name, true);
    for (int i = 0; i < m->entries.n; i++)
        define(c, &entries, m->entries.v[i].name, false);
}

static void check_params(Checker *c) {
    const ModelDecl *m = c->p->model;
    for (int i = 0; i < m->params.n; i++) {
        c->n_params = i;
        if (m->params.v[i].length)
            check_value(c, m->params.v[i].length);
        check_value(c, m->params.v[i].value);
    }
    c->n_params = m->params.n;
}

static void check_param_count(Checker *c, int n, const Name *name, const char *what) {
    if (n > MAX_SLOTS)
        diag_error(c->diag, name->loc, "%s '%s' has %d parameters: at most %d", what, name->s, n, MAX_SLOTS);
}

static void check_fn(Checker *c, const FnDecl *f) {
    CheckScope scope;
    check_param_count(c, f->params.n, &f->name, "function");
    check_open(c, &scope);
    for (int i = 0; i < f->params.n; i++)
        check_declare(c, f->params.v[i], NAME_PARAM);
    check_expr(c, f->body);
    check_close(c);
}

/* ==== Variants ==== */

/* One of visible, score, sink: what it is called and the roles of its names in order. */
typedef struct BodyRule {
    const char *name, *form;
    int least, most;
} BodyRule;

static void check_body(Checker *c, const BodyRule *rule, const Name *params, int n, const Expr *body, SrcLoc loc) {
    CheckScope scope;
    if (!body)
        return;
    if (n < rule->least || n > rule->most)
        diag_error(c->diag, loc, "%s is written %s", rule->name, rule->form);
    check_open(c, &scope);
    for (int i = 0; i < n; i++)
        check_declare(c, params[i], NAME_PARAM);
    check_value(c, body);
    check_close(c);
}

/* Values whose names differ. */
static void check_named(Checker *c, const ArgList *args, const char *nameless) {
    for (int i = 0; i < args->n; i++) {
        const Arg *a = &args->v[i];
        check_value(c, a->value);
        if (!a->name.s)
            diag_error(c->diag, a->value->loc, "%s", nameless);
        for (int j = 0; a->name.s && j < i; j++)
            if (args->v[j].name.s && strcmp(args->v[j].name.s, a->name.s) == 0)
                diag_error(c->diag, a->name.loc, "'%s' is given twice", a->name.s);
    }
}

static void check_variant(Checker *c, const VariantDecl *v) {
    static const BodyRule visible = {"visible", "visible(q, k) or visible(q, k, h)", 2, 3};
    static const BodyRule score = {"score", "score(s, q, k) or score(s, q, k, h)", 1, 4};
    static const BodyRule sink = {"sink", "sink(h)", 1, 1};
    CheckScope scope;
    check_param_count(c, v->params.n, &v->name, "variant");
    check_open(c, &scope);
    for (int i = 0; i < v->params.n; i++)
        check_declare(c, v->params.v[i], NAME_PARAM);
    if (!v->visible.body)
        diag_error(c->diag, v->name.loc, "variant '%s' does not say which keys are visible(q, k)", v->name.s);
    check_body(c, &visible, v->visible.params.v, v->visible.params.n, v->visible.body, v->visible.loc);
    check_body(c, &score, v->score.params.v, v->score.params.n, v->score.body, v->score.loc);
    check_body(c, &sink, v->sink.params.v, v->sink.params.n, v->sink.body, v->sink.loc);
    check_named(c, &v->sparse_args, "arguments of a sparse method have names, as in alpha = 0.12");
    check_close(c);
}

/* ==== Entries ==== */

static void check_entry_param(Checker *c, const EntryParam *p, bool *has_pos) {
    static const struct {
        const char *name;
        bool rows_only; /* exactly [T] */
    } types[] = {{"token", true}, {"pos", true}, {"f32", false}, {"i32", false}};
    size_t t = 0;
    while (t < COUNTOF(types) && strcmp(types[t].name, p->type.s) != 0)
        t++;
    if (t == COUNTOF(types)) {
        Nearest n = nearest_new((Str){p->type.s, strlen(p->type.s)});
        for (size_t i = 0; i < COUNTOF(types); i++)
            nearest_try(&n, types[i].name);
        diag_error(c->diag, p->type.loc, "an input is token, pos, f32 or i32, not '%s'%s", p->type.s,
                   near_text(c->arena, &n));
        return;
    }
    const Expr *first = p->dims.n ? p->dims.v[0] : NULL;
    if (!first || first->kind != EX_NAME || strcmp(first->u.name, "T") != 0)
        diag_error(c->diag, first ? first->loc : p->type.loc,
                   "the first dimension of an input is T, the rows of a call");
    else if (types[t].rows_only && p->dims.n != 1)
        diag_error(c->diag, p->dims.v[1]->loc, "%s inputs are %s[T]", types[t].name, types[t].name);
    for (int i = 1; i < p->dims.n; i++)
        check_value(c, p->dims.v[i]);
    if (strcmp(p->type.s, "pos") == 0) {
        if (*has_pos)
            diag_error(c->diag, p->name.loc, "an entry has one input of positions");
        *has_pos = true;
    }
    if (strcmp(p->name.s, "rows") == 0)
        diag_error(c->diag, p->name.loc, "'rows' is the input that rows(x) makes by itself");
}

static void check_entry(Checker *c, const EntryDecl *e) {
    CheckScope scope;
    bool has_pos = false;
    for (int i = 0; i < e->params.n; i++)
        check_entry_param(c, &e->params.v[i], &has_pos);
    check_open(c, &scope);
    for (int i = 0; i < e->params.n; i++)
        check_declare(c, e->params.v[i].name, NAME_PARAM);
    check_block(c, &e->body);
    check_close(c);
}

/* ==== Drafts ==== */

enum { DRAFT_ARGS = 3 };

/* What each way takes, up to a NULL. */
static const char *const draft_args[DRAFT_WAYS][DRAFT_ARGS] = {
    [DRAFT_CHAIN] = {"most"},
    [DRAFT_BLOCK] = {"most", "mask"},
};

static void check_draft_args(Checker *c, DraftWay way) {
    const ModelDecl *m = c->p->model;
    const char *const *args = draft_args[way];
    for (size_t k = 0; args[k]; k++) {
        bool given = false;
        for (int i = 0; i < m->drafts_args.n; i++)
            given |= m->drafts_args.v[i].name.s && strcmp(m->drafts_args.v[i].name.s, args[k]) == 0;
        if (!given)
            diag_error(c->diag, m->drafts.loc, "'drafts %s' lacks '%s'", draft_way_name(way), args[k]);
    }
    for (int i = 0; i < m->drafts_args.n; i++) {
        const Name *name = &m->drafts_args.v[i].name;
        Nearest n = nearest_new((Str){name->s, name->s ? strlen(name->s) : 0});
        bool known = !name->s;
        for (size_t k = 0; args[k] && !known; k++) {
            known = strcmp(args[k], name->s) == 0;
            nearest_try(&n, args[k]);
        }
        if (!known)
            diag_error(c->diag, name->loc, "'drafts %s' has no '%s'%s", draft_way_name(way), name->s,
                       near_text(c->arena, &n));
    }
}

static void check_drafts(Checker *c) {
    const ModelDecl *m = c->p->model;
    if (!m->drafts.s)
        return;
    CheckScope scope;
    check_open(c, &scope);
    check_named(c, &m->drafts_args, "arguments of 'drafts' have names, as in most = 4");
    check_close(c);
    if (!m->target.s)
        diag_error(c->diag, m->drafts.loc, "what drafts works for a target: say `uses target: NAME` in the head");
    const Str name = {m->drafts.s, strlen(m->drafts.s)};
    const DraftWay way = draft_way_from_name(name);
    if (way) {
        check_draft_args(c, way);
        return;
    }
    Nearest n = nearest_new(name);
    for (int w = DRAFT_CHAIN; w < DRAFT_WAYS; w++)
        nearest_try(&n, draft_way_name((DraftWay)w));
    diag_error(c->diag, m->drafts.loc, "there is no way to draft called '%s'; there are chain and block%s", m->drafts.s,
               near_text(c->arena, &n));
}

/* ==== Chat ==== */

static const struct ChatRule {
    const char *name;
    bool text; /* takes the text it wraps */
    bool required;
} chat_rules[] = {{"user", true, true},    {"model", true, true},  {"system", true, false},
                  {"prompt", false, true}, {"stop", false, false}, {"hide", false, false}};

static const struct ChatRule *chat_rule(const char *name) {
    for (size_t i = 0; i < COUNTOF(chat_rules); i++)
        if (strcmp(chat_rules[i].name, name) == 0)
            return &chat_rules[i];
    return NULL;
}

static void check_chat_field(Checker *c, const ChatField *f) {
    CheckScope scope;
    const struct ChatRule *rule = chat_rule(f->name.s);
    if (!rule) {
        Nearest n = nearest_new((Str){f->name.s, strlen(f->name.s)});
        for (size_t i = 0; i < COUNTOF(chat_rules); i++)
            nearest_try(&n, chat_rules[i].name);
        diag_error(c->diag, f->name.loc, "a chat format has no '%s'%s", f->name.s, near_text(c->arena, &n));
        return;
    }
    if (rule->text && !f->param.s)
        diag_error(c->diag, f->name.loc, "'%s' wraps a text: %s(text) = ..", f->name.s, f->name.s);
    if (!rule->text && f->param.s)
        diag_error(c->diag, f->param.loc, "'%s' takes no text", f->name.s);
    if (f->in.s && (strcmp(f->name.s, "system") != 0 || strcmp(f->in.s, "user") != 0))
        diag_error(c->diag, f->in.loc, "only `system(text) in user` goes into another turn");
    check_open(c, &scope);
    if (f->param.s)
        check_declare(c, f->param, NAME_PARAM);
    check_value(c, f->value);
    check_close(c);
}

static void check_chat(Checker *c) {
    const ModelDecl *m = c->p->model;
    if (!m->chat.n)
        return;
    for (int i = 0; i < m->chat.n; i++) {
        for (int j = 0; j < i; j++) {
            if (strcmp(m->chat.v[i].name.s, m->chat.v[j].name.s) == 0) {
                diag_error(c->diag, m->chat.v[i].name.loc, "'%s' is given twice", m->chat.v[i].name.s);
                diag_note(c->diag, m->chat.v[j].name.loc, "the first is here");
                break;
            }
        }
        check_chat_field(c, &m->chat.v[i]);
    }
    for (size_t r = 0; r < COUNTOF(chat_rules); r++) {
        bool found = !chat_rules[r].required;
        for (int i = 0; i < m->chat.n; i++)
            found |= strcmp(m->chat.v[i].name.s, chat_rules[r].name) == 0;
        if (!found)
            diag_error(c->diag, m->chat_loc, "this chat format lacks '%s'", chat_rules[r].name);
    }
}

/* ==== All ==== */

bool check_program(Arena *arena, Diag *diag, const Program *p) {
    Checker c = {.arena = arena, .diag = diag, .p = p};
    const ModelDecl *m = p->model;
    int before = diag_errors(diag);
    check_definitions(&c);
    check_params(&c);
    for (int i = 0; i < m->fns.n; i++)
        check_fn(&c, &m->fns.v[i]);
    for (int i = 0; i < m->variants.n; i++)
        check_variant(&c, &m->variants.v[i]);
    for (int i = 0; i < m->entries.n; i++)
        check_entry(&c, &m->entries.v[i]);
    check_drafts(&c);
    check_chat(&c);
    if (!m->entries.n)
        diag_error(diag, m->name.loc, "model '%s' has no entry: nothing can be called", m->name.s);
    return diag_errors(diag) == before;
}
