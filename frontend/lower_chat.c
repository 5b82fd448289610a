/* lower_chat.c - the chat format: templates of the text become prefixes and suffixes.
 *
 * user(text) = "<a>{text}<b>" is expanded once with a mark for the text; what stands before and after
 * the mark is what the runtime writes around every text. So a template must hold its text once.
 */
#include "frontend/lower.h"

#include <string.h>

static const char text_mark[] = "\001text\001";

static bool chat_string(Lower *L, const Expr *e, Value v, const char *what, Str *out) {
    if (v.kind == VAL_STRING)
        *out = v.u.s;
    else if (v.kind != VAL_POISON)
        l_error(L, e->loc, "%s must be a string, this is %s", what, value_what(L->arena, NULL, v));
    return v.kind == VAL_STRING;
}

/* The offset of the mark at or after `from`, or -1. */
static int64_t find_mark(Str s, size_t from) {
    size_t n = sizeof text_mark - 1;
    for (size_t i = from; i + n <= s.n; i++)
        if (memcmp(s.s + i, text_mark, n) == 0)
            return (int64_t)i;
    return -1;
}

static void lower_template(Lower *L, const ChatField *f, Str out[2]) {
    Scope scope = {0};
    Str s;
    L->scope = &scope;
    l_bind(L, f->param.s, value_str((Str){text_mark, sizeof text_mark - 1}));
    Value v = l_eval(L, f->value, NULL);
    L->scope = NULL;
    if (!chat_string(L, f->value, v, f->name.s, &s))
        return;
    int64_t at = find_mark(s, 0);
    if (at < 0 || find_mark(s, (size_t)at + 1) >= 0) {
        l_error(L, f->value->loc, "'%s' must hold {%s} once, this holds it %s", f->name.s, f->param.s,
                at < 0 ? "not at all" : "several times");
        return;
    }
    size_t after = (size_t)at + sizeof text_mark - 1;
    out[0] = (Str){s.s, (size_t)at};
    out[1] = (Str){s.s + after, s.n - after};
}

/* stop = [a, b, ..] and hide = [a, b]: an array of strings, as many as `most` (0: any number). */
static void lower_list(Lower *L, const ChatField *f, Value v, int64_t exactly, Str *out) {
    ChatFormat *chat = &L->m->chat;
    if (v.kind == VAL_POISON)
        return;
    if (v.kind != VAL_ARRAY || (exactly && v.u.array.n != exactly)) {
        l_error(L, f->value->loc, exactly ? "'%s' must be an array of 2 strings" : "'%s' must be an array of strings",
                f->name.s);
        return;
    }
    for (int64_t i = 0; i < v.u.array.n; i++) {
        Str s;
        if (!chat_string(L, f->value, v.u.array.v[i], "an element", &s))
            return;
        if (exactly)
            out[i] = s;
        else
            vec_push(L->arena, &chat->stop, s);
    }
}

static void lower_field(Lower *L, const ChatField *f) {
    ChatFormat *chat = &L->m->chat;
    const char *name = f->name.s;
    if (strcmp(name, "user") == 0)
        lower_template(L, f, chat->user);
    else if (strcmp(name, "model") == 0)
        lower_template(L, f, chat->model);
    else if (strcmp(name, "system") == 0) {
        lower_template(L, f, chat->system);
        chat->has_system = true;
        chat->system_in_user = f->in.s != NULL;
    } else if (strcmp(name, "prompt") == 0)
        chat_string(L, f->value, l_eval_alone(L, f->value), name, &chat->prompt);
    else if (strcmp(name, "stop") == 0)
        lower_list(L, f, l_eval_alone(L, f->value), 0, NULL);
    else
        lower_list(L, f, l_eval_alone(L, f->value), 2, chat->hide);
}

void l_chat(Lower *L) {
    const ModelDecl *d = L->program->model;
    L->m->chat.present = d->chat.n > 0;
    for (int i = 0; i < d->chat.n; i++)
        lower_field(L, &d->chat.v[i]);
}
