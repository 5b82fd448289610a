/* lower_param.c - the parameters of a model: read from the metadata of the weights file, converted to
 * their declared types, or set from outside.
 *
 * A key is looked up under the file's architecture first ("gemma3.block_count"), then as it is.
 * Conversions: int to float; 0 and 1 to bool and back (files store bool arrays in many ways); one
 * value to an array of it. A float never becomes an int.
 */
#include "frontend/lower.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ==== Metadata ==== */

const ModelFile *l_model_file(Lower *L, bool target, SrcLoc at) {
    const ModelFile *f = target ? L->in->target_file : L->in->file;
    if (!f && target)
        l_error(L, at, "the weights of the target ('%s') are needed here", L->m->target ? L->m->target : "?");
    else if (!f)
        l_error(L, at, "the weights are needed here");
    return f;
}

static Value meta_element(const MetaValue *m, int64_t i) {
    switch (m->kind) {
    case META_INT: return value_int(m->i[i]);
    case META_FLOAT: return value_float(m->f[i]);
    case META_BOOL: return value_bool(m->i[i] != 0);
    case META_STRING: return value_str(m->s[i]);
    }
    ICE("metadata of kind %d", (int)m->kind);
}

static Value meta_value(Lower *L, const MetaValue *m, SrcLoc at) {
    if (!m->is_array)
        return meta_element(m, 0);
    Value *v = l_values(L, m->n, at);
    for (int64_t i = 0; v && i < m->n; i++)
        v[i] = meta_element(m, i);
    return v ? (Value){.kind = VAL_ARRAY, .u.array = {v, m->n}} : value_poison();
}

bool l_meta(Lower *L, const ModelFile *file, Str key, SrcLoc at, Value *out) {
    const char *full = arena_printf(L->arena, "%s.%.*s", file->arch ? file->arch : "", STR_FMT(key));
    const MetaValue *m = modelfile_meta(file, full);
    if (!m)
        m = modelfile_meta(file, full = arena_strndup(L->arena, key.s, key.n));
    if (!m)
        return false;
    *out = meta_value(L, m, at);
    Origin *o = arena_alloc(L->arena, sizeof *o);
    *o = (Origin){file, full, value_what(L->arena, NULL, *out)};
    out->origin = o;
    return true;
}

/* ==== Conversion to the declared type ==== */

static const char *const type_words[] = {
    [AT_INT] = "int", [AT_FLOAT] = "float", [AT_BOOL] = "bool", [AT_STRING] = "string"};

static bool convert_one(AstType type, Value v, Value *out) {
    bool bit = v.kind == VAL_INT && (v.u.i == 0 || v.u.i == 1);
    *out = v;
    switch (type) {
    case AT_INT:
        if (v.kind == VAL_BOOL)
            *out = value_int(v.u.b);
        return v.kind == VAL_INT || v.kind == VAL_BOOL;
    case AT_FLOAT:
        if (v.kind == VAL_INT)
            *out = value_float((double)v.u.i);
        return value_is_number(v);
    case AT_BOOL:
        if (bit)
            *out = value_bool(v.u.i != 0);
        return bit || v.kind == VAL_BOOL;
    case AT_STRING: return v.kind == VAL_STRING;
    }
    return false;
}

static Value convert_scalar(Lower *L, const ParamDecl *p, Value v, SrcLoc at) {
    Value out;
    if (convert_one(p->type, v, &out))
        return out;
    l_error(L, at, "parameter '%s' is declared %s, this is %s", p->name.s, type_words[p->type],
            value_what(L->arena, NULL, v));
    l_note_origin(L, v);
    return value_poison();
}

static Value convert_array(Lower *L, const ParamDecl *p, int64_t n, Value v, SrcLoc at) {
    bool many = v.kind == VAL_ARRAY;
    if (many && v.u.array.n != n) {
        l_error(L, at, "parameter '%s' is declared %s[%lld], this has %lld elements", p->name.s, type_words[p->type],
                (long long)n, (long long)v.u.array.n);
        l_note_origin(L, v);
        return value_poison();
    }
    Value *out = l_values(L, n, at);
    for (int64_t i = 0; out && i < n; i++) {
        Value one = many ? v.u.array.v[i] : v;
        if (convert_one(p->type, one, &out[i]))
            continue;
        if (many)
            l_error(L, at, "parameter '%s' is declared %s[%lld], element %lld of this is %s", p->name.s,
                    type_words[p->type], (long long)n, (long long)i, value_what(L->arena, NULL, one));
        else
            l_error(L, at, "parameter '%s' is declared %s[%lld], this is %s", p->name.s, type_words[p->type],
                    (long long)n, value_what(L->arena, NULL, v));
        l_note_origin(L, v);
        return value_poison();
    }
    return out ? (Value){.kind = VAL_ARRAY, .origin = v.origin, .u.array = {out, n}} : value_poison();
}

/* A length that is the name of a parameter: the mistake is how that one is declared. */
static Value wrong_length(Lower *L, const Expr *e, Value n) {
    const int named = e->kind == EX_NAME ? program_param(L->program, e->u.name) : -1;
    const ParamDecl *p = named < 0 ? NULL : &L->program->model->params.v[named];
    if (n.kind == VAL_INT) {
        l_error(L, e->loc, "the length of an array must not be negative, this is %lld", (long long)n.u.i);
    } else if (p && !p->length && p->type != AT_INT) {
        l_error(L, p->name.loc, "parameter '%s' is declared %s, but it is the length of an array: declare it int",
                p->name.s, type_words[p->type]);
        l_note(L, e->loc, "the array is here");
    } else {
        l_error(L, e->loc, "the length of an array must be an int, this is %s", value_what(L->arena, NULL, n));
    }
    l_note_origin(L, n);
    return value_poison();
}

static Value convert(Lower *L, const ParamDecl *p, Value v, SrcLoc at) {
    if (!p->length)
        return v.kind == VAL_POISON ? v : convert_scalar(L, p, v, at);
    Value n = l_eval(L, p->length, NULL);
    if (n.kind == VAL_POISON || v.kind == VAL_POISON)
        return value_poison();
    if (n.kind != VAL_INT || n.u.i < 0)
        return wrong_length(L, p->length, n);
    return convert_array(L, p, n.u.i, v, at);
}

/* ==== Settings ==== */

static bool parse_one(AstType type, Str s, Value *out) {
    char text[64], *end;
    if (type == AT_STRING) {
        *out = value_str(s);
        return true;
    }
    if (s.n == 0 || s.n >= sizeof text)
        return false;
    memcpy(text, s.s, s.n);
    text[s.n] = 0;
    errno = 0;
    if (type == AT_BOOL) {
        *out = value_bool(str_eq(s, "true"));
        return str_eq(s, "true") || str_eq(s, "false");
    }
    *out = type == AT_INT ? value_int(strtoll(text, &end, 10)) : value_float(strtod(text, &end));
    return *end == 0 && errno == 0;
}

/* "1" or, for arrays, "1,2,3". */
static Value parse_setting(Lower *L, const ParamDecl *p, const FeSetting *s) {
    VEC(Value) list = {0};
    const char *at = s->value;
    for (;;) {
        const char *comma = p->length ? strchr(at, ',') : NULL;
        Str one = {at, comma ? (size_t)(comma - at) : strlen(at)};
        Value v;
        if (!parse_one(p->type, one, &v)) {
            l_error(L, p->name.loc, "the setting %s=%s does not fit: '%.*s' is not %s %s", s->name, s->value,
                    STR_FMT(one), p->type == AT_INT ? "an" : "a", type_words[p->type]);
            return value_poison();
        }
        vec_push(L->arena, &list, v);
        if (!comma)
            break;
        at = comma + 1;
    }
    return list.n == 1 ? list.v[0] : (Value){.kind = VAL_ARRAY, .u.array = {list.v, list.n}};
}

static void check_settings(Lower *L) {
    const ModelDecl *d = L->program->model;
    for (int i = 0; i < L->in->n_settings; i++) {
        const char *name = L->in->settings[i].name;
        if (program_param(L->program, name) >= 0)
            continue;
        Nearest near = nearest_new((Str){name, strlen(name)});
        for (int j = 0; j < d->params.n; j++)
            nearest_try(&near, d->params.v[j].name.s);
        diag_error(L->diag, NO_LOC, "model '%s' has no parameter '%s' to set%s", d->name.s, name,
                   near_text(L->arena, &near));
    }
}

/* The last one counts. */
static const FeSetting *setting_of(const Lower *L, const char *name) {
    for (int i = L->in->n_settings - 1; i >= 0; i--)
        if (strcmp(L->in->settings[i].name, name) == 0)
            return &L->in->settings[i];
    return NULL;
}

void l_params(Lower *L) {
    const ModelDecl *d = L->program->model;
    Scope scope = {0};
    L->params = arena_array(L->arena, (size_t)(d->params.n ? d->params.n : 1), sizeof *L->params);
    L->scope = &scope;
    check_settings(L);
    for (int i = 0; i < d->params.n; i++) {
        const ParamDecl *p = &d->params.v[i];
        const FeSetting *s = setting_of(L, p->name.s);
        Value v = s ? parse_setting(L, p, s) : l_eval(L, p->value, NULL);
        L->params[i] = convert(L, p, v, s ? p->name.loc : p->value->loc);
        if (L->params[i].kind != VAL_POISON && !L->params[i].origin)
            L->params[i].origin = v.origin;
        L->n_params = i + 1;
    }
    L->scope = NULL;
}
