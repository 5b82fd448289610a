/* merge.c - joins neighbouring symbols, best pair first; what remains becomes ids.
 *
 * Symbols are a linked list inside an array. Every pair that may join is in a heap, from where the best
 * comes out (ties: the leftmost). A pair whose symbols have changed since is recognised by its length,
 * because symbols only grow, and dropped. Each join adds at most two pairs: O(n log n).
 */
#include "ir/utf8.h"
#include "runtime/text/text_int.h"

#include <string.h>

Str encoder_escape(Encoder *e, Str text, bool prefix) {
    e->text.n = 0;
    for (size_t i = 0; i < text.n + prefix; i++) {
        char c = i < prefix ? ' ' : text.s[i - prefix];
        if (c != ' ') {
            vec_push(e->scratch, &e->text, c);
            continue;
        }
        for (int k = 0; k < META_SPACE_BYTES; k++)
            vec_push(e->scratch, &e->text, META_SPACE[k]);
    }
    return (Str){e->text.v, (size_t)e->text.n};
}

void encoder_push(Encoder *e, int32_t id) {
    vec_push(e->arena, e->out, id);
}

/* ==== The heap ==== */

static bool goes_before(Pair a, Pair b) {
    return a.order != b.order ? a.order < b.order : a.left < b.left;
}

static void push_pair(Encoder *e, Pair p) {
    vec_push(e->scratch, &e->pairs, p);
    int at = e->pairs.n - 1;
    while (at > 0) {
        int up = (at - 1) / 2;
        if (!goes_before(p, e->pairs.v[up]))
            break;
        e->pairs.v[at] = e->pairs.v[up];
        at = up;
    }
    e->pairs.v[at] = p;
}

static Pair pop_pair(Encoder *e) {
    Pair top = e->pairs.v[0];
    Pair last = e->pairs.v[--e->pairs.n];
    int n = e->pairs.n;
    int at = 0;
    for (int down = 1; down < n; down = 2 * at + 1) {
        if (down + 1 < n && goes_before(e->pairs.v[down + 1], e->pairs.v[down]))
            down++;
        if (!goes_before(e->pairs.v[down], last))
            break;
        e->pairs.v[at] = e->pairs.v[down];
        at = down;
    }
    e->pairs.v[at] = last;
    return top;
}

/* ==== Symbols ==== */

/* A broken character is not checked, for it is in no vocabulary and becomes bytes in the end. */
static void split_characters(Encoder *e, Str text) {
    e->symbols.n = 0;
    for (size_t at = 0; at < text.n;) {
        size_t len = utf8_span(text.s + at, text.n - at);
        int i = e->symbols.n;
        vec_push(e->scratch, &e->symbols, ((Symbol){(uint32_t)at, (uint32_t)len, i - 1, i + 1}));
        at += len;
    }
    if (e->symbols.n)
        e->symbols.v[e->symbols.n - 1].next = -1;
}

static void try_pair(Encoder *e, Str text, int32_t left, MayJoin *may_join) {
    if (left < 0 || e->symbols.v[left].next < 0)
        return;
    const Symbol *a = &e->symbols.v[left];
    const Symbol *b = &e->symbols.v[a->next];
    double order;
    if (may_join(e->t, text.s + a->start, a->len, b->len, &order))
        push_pair(e, (Pair){order, left, a->len + b->len});
}

static void join_pairs(Encoder *e, Str text, MayJoin *may_join) {
    e->pairs.n = 0;
    for (int i = 0; i < e->symbols.n; i++)
        try_pair(e, text, i, may_join);
    while (e->pairs.n) {
        Pair p = pop_pair(e);
        Symbol *a = &e->symbols.v[p.left];
        if (!a->len || a->next < 0)
            continue;
        Symbol *b = &e->symbols.v[a->next];
        if (a->len + b->len != p.len)
            continue;
        a->len = p.len;
        a->next = b->next;
        b->len = 0;
        if (a->next >= 0)
            e->symbols.v[a->next].prev = p.left;
        try_pair(e, text, a->prev, may_join);
        try_pair(e, text, p.left, may_join);
    }
}

void encoder_merge(Encoder *e, Str text, MayJoin *may_join) {
    if (!text.n)
        return;
    split_characters(e, text);
    join_pairs(e, text, may_join);
    for (int32_t i = 0; i >= 0; i = e->symbols.v[i].next) {
        const Symbol *s = &e->symbols.v[i];
        const char *p = text.s + s->start;
        int32_t id = find_ordinary(e->t, p, s->len);
        if (id >= 0) {
            encoder_push(e, id);
            continue;
        }
        for (uint32_t k = 0; k < s->len; k++)
            encoder_push(e, e->t->byte_id[(unsigned char)p[k]]);
    }
}
