/* tokenizer_spm.c - kind "llama": SentencePiece by scores.
 *
 * Characters are the first symbols. Two neighbours may join when their text is a token; the pair whose
 * token has the highest score joins first. Every joined symbol is therefore a token, so that nothing has
 * to be taken apart again: only single characters can remain that are none, and they become bytes.
 * A text begins with a space that is not there when the file wants it, and so does every part of it that
 * follows a special token.
 */
#include "runtime/text/text_int.h"

#include <math.h>

static bool spm_may_join(const Tokenizer *t, const char *s, size_t left, size_t right, double *order) {
    if (left + right > t->max_token)
        return false;
    int32_t id = find_ordinary(t, s, left + right);
    if (id < 0)
        return false;
    *order = -t->score[id];
    return true;
}

static void spm_encode(Encoder *e, Str text) {
    encoder_merge(e, encoder_escape(e, text, e->t->add_space_prefix), spm_may_join);
}

static void spm_load(Tokenizer *t, Loader *l) {
    const char *key = "tokenizer.ggml.scores";
    const MetaValue *scores = load_array(l, key, META_FLOAT, t->n);
    if (!scores)
        return;
    for (int i = 0; i < t->n; i++)
        if (isnan(scores->f[i])) {
            load_error(l, "key '%s': the score of token %d is not a number", key, i);
            return;
        }
    t->score = scores->f;
    t->add_space_prefix = load_bool(l, "tokenizer.ggml.add_space_prefix", true);
}

const TokenizerKind tokenizer_spm = {"llama", spm_load, spm_encode};
