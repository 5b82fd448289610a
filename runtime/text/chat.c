/* chat.c - writes a conversation as the one text its model was trained on. */
#define _GNU_SOURCE /* memmem */
#include "runtime/text/text.h"

#include <string.h>

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static Str trimmed(Str s) {
    while (s.n && is_space(s.s[0])) {
        s.s++;
        s.n--;
    }
    while (s.n && is_space(s.s[s.n - 1]))
        s.n--;
    return s;
}

/* Where a conversation is written to. */
typedef struct Writer {
    Arena *arena; /* of plain */
    const ChatFormat *f;
    Buf *out;
    RangeList *plain; /* places of the texts of turns in out */
} Writer;

static void put(Buf *out, Str s) {
    buf_bytes(out, s.s, s.n);
}

/* A text that somebody wrote. */
static void put_text(Writer *w, Str text) {
    size_t from = w->out->n;
    put(w->out, text);
    if (text.n)
        vec_push(w->arena, w->plain, ((TextRange){from, w->out->n}));
}

static void put_wrapped(Writer *w, const Str around[2], Str text) {
    put(w->out, around[0]);
    put_text(w, text);
    put(w->out, around[1]);
}

/* Where mark begins in s; s.n when nowhere or when the mark is empty. */
static size_t find(Str s, Str mark) {
    const char *at = mark.n ? memmem(s.s, s.n, mark.s, mark.n) : NULL;
    return at ? (size_t)(at - s.s) : s.n;
}

static Str after(Str s, size_t n) {
    return n < s.n ? (Str){s.s + n, s.n - n} : (Str){"", 0};
}

/* Writes the shown parts of a model's text to out. */
static void put_shown(Buf *out, Str s, const Str hide[2]) {
    if (!hide[0].n) {
        put(out, s);
        return;
    }
    while (s.n) {
        size_t begin = find(s, hide[0]);
        size_t end = find(s, hide[1]);
        if (end < begin) { /* an end that closes nothing */
            put(out, (Str){s.s, end});
            s = after(s, end + hide[1].n);
            continue;
        }
        put(out, (Str){s.s, begin});
        s = after(s, begin + hide[0].n);
        s = after(s, find(s, hide[1]) + hide[1].n);
    }
}

static void put_model(Writer *w, Str text) {
    Buf shown = {0};
    put_shown(&shown, text, w->f->hide);
    put_wrapped(w, w->f->model, trimmed((Str){shown.s, shown.n}));
    buf_free(&shown);
}

/* System texts of turns[from..to) that belong inside a user turn. */
static void put_system_in_user(Writer *w, const ChatTurn *turns, int from, int to) {
    for (int i = from; i < to; i++) {
        Str text = trimmed(turns[i].text);
        if (turns[i].role != CHAT_SYSTEM || !text.n)
            continue;
        if (w->f->has_system) {
            put_wrapped(w, w->f->system, text);
        } else {
            put_text(w, text);
            buf_str(w->out, "\n\n");
        }
    }
}

static bool has_system_text(const ChatTurn *turns, int from, int to) {
    for (int i = from; i < to; i++)
        if (turns[i].role == CHAT_SYSTEM && trimmed(turns[i].text).n)
            return true;
    return false;
}

static void put_user(Writer *w, const ChatTurn *turns, int from, int to, Str text) {
    put(w->out, w->f->user[0]);
    put_system_in_user(w, turns, from, to);
    put_text(w, text);
    put(w->out, w->f->user[1]);
}

void chat_render(Arena *a, const ChatFormat *f, const ChatTurn *turns, int n, Buf *out, RangeList *plain) {
    Writer w = {a, f, out, plain};
    bool own_turn = f->has_system && !f->system_in_user;
    int from = 0; /* system texts of turns[from..i) wait for a user turn */
    for (int i = 0; i < n; i++) {
        Str text = trimmed(turns[i].text);
        switch (turns[i].role) {
        case CHAT_SYSTEM:
            if (own_turn && text.n)
                put_wrapped(&w, f->system, text);
            break;
        case CHAT_USER:
            put_user(&w, turns, own_turn ? i : from, i, text);
            from = i + 1;
            break;
        case CHAT_MODEL: put_model(&w, turns[i].text); break;
        }
    }
    if (!own_turn && has_system_text(turns, from, n))
        put_user(&w, turns, from, n, (Str){"", 0});
    put(out, f->prompt);
}
