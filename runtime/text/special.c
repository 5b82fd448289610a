/* special.c - finds special tokens in a text: leftmost first, the longest at a place.
 *
 * There may be thousands of them, most of which begin alike ("<unused17>"), so a match narrows a range of
 * the sorted list byte by byte: a trie without nodes. A place costs at most the length of a token times
 * log n, and nothing when no token begins with its byte.
 */
#include "runtime/text/text_int.h"

#include <stdlib.h>
#include <string.h>

static bool is_special(int type) {
    return type == TOKEN_USER || type == TOKEN_CONTROL || type == TOKEN_UNKNOWN;
}

typedef struct SpecialText {
    Str text;
    int32_t id;
} SpecialText;

static int by_text(const void *x, const void *y) {
    const SpecialText *a = x, *b = y;
    size_t n = a->text.n < b->text.n ? a->text.n : b->text.n;
    int c = memcmp(a->text.s, b->text.s, n);
    return c ? c : (a->text.n > b->text.n) - (a->text.n < b->text.n);
}

void specials_build(Tokenizer *t) {
    SpecialTokens *s = &t->specials;
    VEC(SpecialText) found = {0};
    for (int32_t id = 0; id < t->n; id++)
        if (is_special(t->type[id]) && t->token[id].n && tokenizer_find(t, t->token[id]) == id)
            vec_push(t->arena, &found, ((SpecialText){t->token[id], id}));
    if (found.n)
        qsort(found.v, (size_t)found.n, sizeof *found.v, by_text);

    int32_t *ids = arena_array(t->arena, (size_t)found.n, sizeof *ids);
    for (int i = 0; i < found.n; i++) {
        ids[i] = found.v[i].id;
        s->first[(unsigned char)found.v[i].text.s[0] + 1]++;
    }
    for (int b = 0; b < 256; b++)
        s->first[b + 1] += s->first[b];
    s->id = ids;
    s->n = found.n;
}

/* First of lo..hi whose byte at `depth` is at least `byte`; all are longer than depth there. */
static int lower_bound(const Tokenizer *t, int lo, int hi, size_t depth, int byte) {
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if ((unsigned char)t->token[t->specials.id[mid]].s[depth] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Runs of white space are user-defined tokens of some vocabularies; they separate and begin nothing. */
static bool is_blank(Str s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.s[i] != ' ' && (s.s[i] < '\t' || s.s[i] > '\r'))
            return false;
    return true;
}

int32_t specials_match(const Tokenizer *t, Str text, bool with_control, size_t room, size_t *len) {
    const SpecialTokens *s = &t->specials;
    int32_t best = -1;
    int first = (unsigned char)text.s[0];
    int lo = s->first[first], hi = s->first[first + 1];
    for (size_t depth = 1; lo < hi; depth++) {
        /* lo..hi begin with the first `depth` bytes of text; one of just that length sorts first */
        int32_t id = s->id[lo];
        if (t->token[id].n == depth) {
            bool user = t->type[id] == TOKEN_USER;
            if (depth <= room ? with_control || user : user && is_blank(t->token[id])) {
                best = id;
                *len = depth;
            }
            lo++;
        }
        if (depth == text.n)
            break;
        int byte = (unsigned char)text.s[depth];
        lo = lower_bound(t, lo, hi, depth, byte);
        hi = lower_bound(t, lo, hi, depth, byte + 1);
    }
    return best;
}
