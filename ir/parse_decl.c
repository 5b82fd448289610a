/* parse_decl.c - types and declarations of the text form of the IR: weights, caches, variants, chat, drafts.
 *
 * Every count and dimension is bounded here, so that what is computed from them later stays in 64 bits.
 */
#include "ir/parse_int.h"

enum {
    MAX_HEADS = 1 << 16,
    MAX_HEAD_DIM = 1 << 20,
};

static const int64_t MAX_ELEMS = (int64_t)1 << 46;

bool p_type(Parser *p, bool rows_allowed, Type *t) {
    if (p->tok != TOK_WORD)
        return p_expected(p, "a type");
    *t = type_scalar(dtype_from_name(p->str));
    if (t->dtype == DT_COUNT)
        return p_fail_at(p, p->at, "there is no element type %s", p_describe(p));
    p_next(p);
    if (!p_accept(p, "["))
        return true;
    int64_t elems = 1;
    do {
        if (t->rank == MAX_DIMS)
            return p_fail_at(p, p->at, "a type has at most %d dimensions", MAX_DIMS);
        int64_t *dim = &t->dim[t->rank];
        if (p_is_word(p, "T") || p_is_word(p, "R")) {
            if (!rows_allowed || t->rank > 0)
                return p_fail_at(p, p->at, "%s",
                                 rows_allowed ? "only the first dimension may be T or R"
                                              : "the dimensions of a weight are numbers");
            *dim = p_is_word(p, "T") ? DIM_T : DIM_R;
            p_next(p);
        } else if (!p_int(p, "a dimension", 1, MAX_DIM, dim)) {
            return false;
        } else if (__builtin_mul_overflow(elems, *dim, &elems) || elems > MAX_ELEMS) {
            return p_fail_at(p, p->at, "the type is too large");
        }
        t->rank++;
    } while (p_accept(p, ","));
    return p_expect(p, "]");
}

/* ==== Weights ==== */

/* "file none" or "file PATH"; without it this model's weights are in the file of the module line. */
static bool weight_file(Parser *p, Weight *w) {
    w->file = w->from ? NULL : p->weights_file;
    if (!p_accept_word(p, "file"))
        return true;
    w->file = NULL;
    if (p_accept_word(p, "none"))
        return true;
    return p_path(p, &w->file);
}

bool p_weight(Parser *p) {
    Weight w = {0};
    SrcLoc at, place;
    if (!p_expect(p, "@"))
        return false;
    at = p->at;
    if (!p_name(p, "the name of a weight", &w.name) || !p_expect(p, ":") || !p_type(p, false, &w.type))
        return false;
    if (dtype_info(w.type.dtype)->gguf_id < 0)
        return p_fail_at(p, at, "a weight is a tensor of a type that files have, not %s", dtype_name(w.type.dtype));
    if (p_accept_word(p, "from") && !p_name(p, "the name of a model", &w.from))
        return false;
    if (!weight_file(p, &w))
        return false;
    if (module_weight(p->m, w.name) >= 0)
        return p_fail_at(p, at, "weight '%.60s' is declared twice", w.name);
    w.loc = at;
    if (!p_end_line(p, &place))
        return false;
    p_remember(p, NULL, OF_WEIGHT, module_add_weight(p->m, w), place);
    return true;
}

/* ==== Caches ==== */

/* "k f32[256]" */
static bool parse_plane(Parser *p, const char *word, DType *type, int *dim) {
    Type t = {0};
    if (!p_expect_word(p, word))
        return false;
    SrcLoc at = p->at;
    if (!p_type(p, false, &t))
        return false;
    if (t.rank != 1 || !kv_storable(t.dtype) || t.dim[0] > MAX_HEAD_DIM)
        return p_fail_at(p, at, "a plane of a cache is TYPE[elements of a head], TYPE one of %s",
                         kv_storable_names(p->m->arena));
    *type = t.dtype;
    *dim = (int)t.dim[0];
    return true;
}

/* "ring capacity 1040 lookback 511 row 1024 1024 bytes 2129920": what plan-kv decided. */
static bool parse_plan(Parser *p, KvLayout *l) {
    l->ring = p_is_word(p, "ring");
    if (!l->ring && !p_is_word(p, "linear"))
        return true;
    l->planned = true;
    p_next(p);
    return p_expect_word(p, "capacity") && p_int(p, "the capacity", 1, MAX_DIM, &l->capacity) &&
           p_expect_word(p, "lookback") && p_int(p, "the look-back", -1, MAX_DIM, &l->lookback) &&
           p_expect_word(p, "row") && p_int(p, "the bytes of a row", 1, MAX_BYTES, &l->k_row) &&
           p_int(p, "the bytes of a row", 1, MAX_BYTES, &l->v_row) && p_expect_word(p, "bytes") &&
           p_int(p, "the bytes", 1, MAX_BYTES, &l->bytes);
}

bool p_cache(Parser *p) {
    Cache c = {0};
    KvLayout *l = &c.layout;
    SrcLoc at = p->at, place;
    int64_t heads = 0;
    if (!p_name(p, "the name of a cache", &c.name) || !p_expect(p, ":") || !p_expect_word(p, "heads") ||
        !p_int(p, "the number of heads", 1, MAX_HEADS, &heads) || !parse_plane(p, "k", &l->k_type, &l->k_dim) ||
        !parse_plane(p, "v", &l->v_type, &l->v_dim))
        return false;
    l->heads = (int)heads;
    if (p_accept_word(p, "from") && !p_name(p, "the name of a model", &c.from))
        return false;
    if (!parse_plan(p, l))
        return false;
    if (module_cache(p->m, c.name) >= 0)
        return p_fail_at(p, at, "cache '%.60s' is declared twice", c.name);
    c.loc = at;
    if (!p_end_line(p, &place))
        return false;
    p_remember(p, NULL, OF_CACHE, module_add_cache(p->m, c), place);
    return true;
}

/* ==== Variants ==== */

/* "flash_prefill(alpha = 0.12, block = 128)" */
static bool parse_sparse(Parser *p, Variant *v) {
    if (!p_name(p, "the name of a sparse method", &v->sparse) || !p_expect(p, "("))
        return false;
    while (!p_accept(p, ")")) {
        if (v->n_sparse == (int)COUNTOF(v->sparse_arg))
            return p_fail_at(p, p->at, "a sparse method has at most %d arguments", v->n_sparse);
        if (v->n_sparse && !p_expect(p, ","))
            return false;
        const char **name = &v->sparse_arg[v->n_sparse].name;
        if (!p_name(p, "an argument", name) || !p_expect(p, "=") ||
            !p_number(p, false, &v->sparse_arg[v->n_sparse].value))
            return false;
        v->n_sparse++;
    }
    return true;
}

static bool variant_line(Parser *p, void *ctx) {
    Variant *v = ctx;
    const struct {
        const char *word;
        const Scalar **to;
    } fields[] = {{"visible", &v->visible}, {"score", &v->score}, {"sink", &v->sink}};
    SrcLoc at = p->at, place;
    if (p_accept_word(p, "sparse"))
        return p_expect(p, "=") && (v->sparse ? p_fail_at(p, at, "'sparse' is written twice") : parse_sparse(p, v)) &&
               p_end_line(p, &place);
    for (size_t i = 0; i < COUNTOF(fields); i++) {
        if (!p_accept_word(p, fields[i].word))
            continue;
        if (*fields[i].to)
            return p_fail_at(p, at, "'%s' is written twice", fields[i].word);
        return p_expect(p, "=") && (*fields[i].to = p_scalar(p)) && p_end_line(p, &place);
    }
    return p_expected(p, "visible, score, sink, sparse or '}'");
}

bool p_variant(Parser *p) {
    Variant v = {.loc = p->at};
    SrcLoc place;
    if (!p_name(p, "the name of a variant", &v.name) || !p_expect(p, "{") || !p_end_line(p, &place))
        return false;
    int errors = diag_errors(p->diag);
    if (!p_block(p, variant_line, &v))
        return false;
    if (diag_errors(p->diag) > errors)
        return true; /* reported; its end was found */
    if (!v.visible)
        p_fail_at(p, v.loc, "variant '%.60s' does not say what is visible", v.name);
    else if (module_variant(p->m, v.name) >= 0)
        p_fail_at(p, v.loc, "variant '%.60s' is declared twice", v.name);
    else
        p_remember(p, NULL, OF_VARIANT, module_add_variant(p->m, v), place);
    return true;
}

/* ==== Chat ==== */

static bool chat_line(Parser *p, void *ctx) {
    ChatFormat *c = ctx;
    SrcLoc place;
    const struct {
        const char *word;
        Str *to;
        int n;
    } fields[] = {{"user", c->user, 2},
                  {"model", c->model, 2},
                  {"system", c->system, 2},
                  {"prompt", &c->prompt, 1},
                  {"hide", c->hide, 2}};
    if (p_accept_word(p, "stop")) {
        Str s;
        if (!p_string(p, &s) || !p_end_line(p, &place))
            return false;
        vec_push(p->arena, &c->stop, s);
        return true;
    }
    for (size_t i = 0; i < COUNTOF(fields); i++) {
        if (!p_accept_word(p, fields[i].word))
            continue;
        for (int j = 0; j < fields[i].n; j++)
            if (!p_string(p, &fields[i].to[j]))
                return false;
        c->has_system = c->has_system || fields[i].to == c->system;
        if (fields[i].to == c->system && p_accept_word(p, "in")) {
            c->system_in_user = true;
            if (!p_expect_word(p, "user"))
                return false;
        }
        return p_end_line(p, &place);
    }
    return p_expected(p, "user, model, system, prompt, stop, hide or '}'");
}

bool p_chat(Parser *p) {
    SrcLoc place;
    if (p->m->chat.present)
        return p_fail_at(p, p->at, "a module has one chat format");
    p->m->chat.present = true;
    return p_expect(p, "{") && p_end_line(p, &place) && p_block(p, chat_line, &p->m->chat);
}

/* ==== Drafts ==== */

bool p_drafts(Parser *p) {
    Drafts *d = &p->m->drafts;
    int64_t most = 0, mask = 0;
    SrcLoc at = p->at, place;
    const char *way;
    if (d->way)
        return p_fail_at(p, p->at, "a module has one way to draft");
    if (!p_name(p, "chain or block", &way))
        return false;
    d->way = draft_way_from_name((Str){way, strlen(way)});
    if (!d->way)
        return p_fail_at(p, at, "there is no way to draft called '%.60s'; there are chain and block", way);
    if (!p_expect_word(p, "most") || !p_int(p, "the most tokens of a round", 1, MAX_DRAFTS, &most) ||
        (d->way == DRAFT_BLOCK && (!p_expect_word(p, "mask") || !p_int(p, "the mask token", 0, INT32_MAX, &mask))))
        return false;
    d->most = (int)most;
    d->mask = (int32_t)mask;
    return p_end_line(p, &place);
}
