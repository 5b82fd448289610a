/* tokenizer_bpe.c - kind "gemma4": byte-pair encoding by merge ranks, over characters.
 *
 * Spaces become meta-space, nothing is put in front. Runs of newlines and runs of anything else are
 * encoded apart; a run of newlines that is a token is that token. Two neighbours may join when "A B" is
 * in the list of merges; the one nearest to the front joins first. What is joined need not be a token:
 * a symbol that is none in the end becomes bytes.
 */
#include "runtime/text/text_int.h"

#include <string.h>

static uint64_t pair_hash(const char *a, size_t a_len, const char *b, size_t b_len) {
    return hash_bytes(b, b_len, hash_bytes(a, a_len, 0));
}

/* Is merge "A B" these two? Neither holds a space, since the text has none left. */
static bool is_merge(Str merge, const char *s, size_t left, size_t right) {
    return merge.n == left + 1 + right && memcmp(merge.s, s, left) == 0 && merge.s[left] == ' ' &&
           memcmp(merge.s + left + 1, s + left, right) == 0;
}

static bool bpe_may_join(const Tokenizer *t, const char *s, size_t left, size_t right, double *order) {
    if (left + right > t->max_merge)
        return false;
    uint64_t h = pair_hash(s, left, s + left, right);
    for (HashSlot *slot = hash_first(&t->merge_index, h); slot->item; slot = hash_next(&t->merge_index, slot)) {
        if (slot->tag == hash_tag(h) && is_merge(t->merge[slot->item - 1], s, left, right)) {
            *order = slot->item;
            return true;
        }
    }
    return false;
}

static void bpe_encode(Encoder *e, Str text) {
    text = encoder_escape(e, text, false);
    for (size_t from = 0, to; from < text.n; from = to) {
        bool newline = text.s[from] == '\n';
        to = from + 1;
        while (to < text.n && (text.s[to] == '\n') == newline)
            to++;
        Str run = {text.s + from, to - from};
        int32_t id = newline ? find_ordinary(e->t, run.s, run.n) : -1;
        if (id >= 0)
            encoder_push(e, id);
        else
            encoder_merge(e, run, bpe_may_join);
    }
}

/* ==== Loading ==== */

/* Bytes of A in "A B": up to the first space that is not the first byte. 0: not of that form. */
static size_t left_len(Str merge) {
    const char *space = merge.n > 2 ? memchr(merge.s + 1, ' ', merge.n - 2) : NULL;
    return space ? (size_t)(space - merge.s) : 0;
}

static void add_merge(Tokenizer *t, int number, size_t left) {
    Str m = t->merge[number];
    const char *b = m.s + left + 1;
    uint64_t h = pair_hash(m.s, left, b, m.n - left - 1);
    HashSlot *slot = hash_first(&t->merge_index, h);
    for (; slot->item; slot = hash_next(&t->merge_index, slot))
        if (slot->tag == hash_tag(h) && str_same(t->merge[slot->item - 1], m))
            return; /* the same again: the first counts */
    *slot = (HashSlot){hash_tag(h), (uint32_t)number + 1};
    if (m.n - 1 > t->max_merge)
        t->max_merge = m.n - 1;
}

static void bpe_load(Tokenizer *t, Loader *l) {
    const char *key = "tokenizer.ggml.merges";
    const MetaValue *merges = load_array(l, key, META_STRING, -1);
    if (!merges)
        return;
    if (merges->n > INT32_MAX / 4) {
        load_error(l, "key '%s' has %lld merges, at most %d are possible", key, (long long)merges->n, INT32_MAX / 4);
        return;
    }
    t->merge = merges->s;
    t->n_merges = (int)merges->n;
    t->merge_index = hash_index_new(t->arena, t->n_merges);
    for (int i = 0; i < t->n_merges; i++) {
        size_t left = left_len(t->merge[i]);
        if (!left) {
            load_error(l, "key '%s': merge %d is not two texts with a space between", key, i);
            return;
        }
        add_merge(t, i, left);
    }
}

const TokenizerKind tokenizer_bpe = {"gemma4", bpe_load, bpe_encode};
