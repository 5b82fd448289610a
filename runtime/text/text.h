/* text.h - text to token ids and back, conversations, sampling.
 *
 * The tokenizer is made from the metadata of a weights file (keys tokenizer.ggml.*), of the kinds
 * "llama" (SentencePiece by scores) and "gemma4" (BPE by merge ranks over code points). No list of
 * tokens and no special token is written in C.
 */
#ifndef LAP_TEXT_TEXT_H
#define LAP_TEXT_TEXT_H

#include "ir/ir.h"

/* ==== Tokenizer ==== */

typedef struct Tokenizer Tokenizer;

typedef VEC(int32_t) TokenList;

/* NULL after an error in diag. Kind "none" (no text): NULL with an error that says so. What `file` points
 * to (its strings and arrays, not the struct) must outlive the tokenizer. A tokenizer is never written
 * to after this: threads may share it. */
Tokenizer *tokenizer_new(const ModelFile *file, Diag *diag);
void tokenizer_free(Tokenizer *t);

/* Bytes from..to-1 of a text. */
typedef struct TextRange {
    size_t from, to;
} TextRange;

typedef VEC(TextRange) RangeList;

typedef struct EncodeOptions {
    bool add_bos;       /* put BOS first if the file asks for it and the text does not begin with it */
    bool parse_special; /* texts of control tokens become those tokens; user-defined ones always do */
    /* Ranges in which, and in part of which, no special token is found, user-defined ones included (but for those
     * of white space alone): what somebody typed. Ascending, not overlapping, within the text; NULL: none. The
     * text is not cut at their borders, so ordinary tokens may lie across them. */
    const RangeList *plain;
} EncodeOptions;

enum { TOKENIZER_TEXT_MAX = 1 << 28 }; /* bytes of one text; callers check */

/* Appends the ids of text (any bytes: what is not in the vocabulary becomes byte tokens). Special tokens
 * are found first: leftmost, the longest at a place. Without parse_special no text becomes a control,
 * unknown or byte token, whatever it looks like; nor within o.plain. */
void tokenizer_encode(const Tokenizer *t, Arena *a, const char *text, size_t n, EncodeOptions o, TokenList *out);

/* Bytes of one token as it stands in running text: meta-space to space, <0xHH> to the byte; special tokens
 * as they are. Control and unknown tokens give nothing unless show_control. The memory lives as long as
 * the tokenizer. An id outside the vocabulary (a padded output head has such) is an empty text, here and
 * below. */
Str tokenizer_piece(const Tokenizer *t, int32_t id, bool show_control);
/* The raw vocabulary string. */
Str tokenizer_token(const Tokenizer *t, int32_t id);
int32_t tokenizer_find(const Tokenizer *t, Str token); /* -1 unknown */
int tokenizer_size(const Tokenizer *t);
int32_t tokenizer_bos(const Tokenizer *t);             /* -1 none */
bool tokenizer_is_eos(const Tokenizer *t, int32_t id); /* eos, eot, eom ids of the file */
bool tokenizer_is_control(const Tokenizer *t, int32_t id);

/* Streaming: takes tokens, gives out text that never ends inside a UTF-8 character. */
typedef struct Detokenizer {
    const Tokenizer *t;
    bool show_control;
    char hold[4]; /* the unfinished character */
    int n_hold;
} Detokenizer;

/* Appends to out what is complete after `id`. Bytes that can never become a character are given out
 * as U+FFFD, one for each longest beginning of a character (as Unicode recommends). */
void detok_push(Detokenizer *d, int32_t id, Buf *out);
/* Gives out what was held back (as U+FFFD when unfinished). */
void detok_end(Detokenizer *d, Buf *out);

/* ==== Conversations ==== */

typedef enum ChatRole { CHAT_SYSTEM, CHAT_USER, CHAT_MODEL } ChatRole;

typedef struct ChatTurn {
    ChatRole role;
    Str text;
} ChatTurn;

/* The whole conversation as one text, ending with the opening of the next reply.
 *   - Turns are written in the order given, whatever it is. Texts are trimmed of ASCII white space.
 *   - Model turns lose their hidden parts (an unfinished one to the end; an end without a beginning
 *     loses the mark).
 *   - System texts: a turn of their own; with system_in_user wrapped in front of the next user text,
 *     inside its prefix; without has_system in front of the next user text, followed by a blank line.
 *     If no user turn follows, they make one. An empty system text is nothing.
 * The result holds special tokens, so it is to be encoded with parse_special. The texts of the turns must
 * not become such tokens, whatever was typed: their places in `out` are appended to `plain` (in the arena; not
 * NULL) for EncodeOptions. */
void chat_render(Arena *a, const ChatFormat *f, const ChatTurn *turns, int n, Buf *out, RangeList *plain);

/* ==== Sampling ==== */

typedef struct SampleOptions {
    float temperature;    /* 0: greedy */
    int top_k;            /* 0: all */
    float top_p;          /* 1: all */
    float min_p;          /* 0: all */
    float repeat_penalty; /* 1: none; divides positive and multiplies negative logits of recent tokens */
    int repeat_last;      /* how many recent tokens the penalty looks at; -1: all */
    uint64_t seed;
} SampleOptions;

/* Out of range means off: temperature (greedy) or top_k below 0, top_p not below 1, min_p not above 0,
 * repeat_penalty not above 0, any NaN. What is off gets the value above that says so. */
SampleOptions sample_options_in_range(SampleOptions o);

typedef struct Sampler Sampler;

/* Options out of range are off. */
Sampler *sampler_new(const SampleOptions *o, int vocab);
void sampler_free(Sampler *s);
/* Tells the sampler a token of the prompt or of the reply (for the penalty). Outside of vocab: ignored. */
void sampler_accept(Sampler *s, int32_t id);
/* Picks from logits [vocab]; they are not changed. In this order:
 *   1. the penalty, on logits;
 *   2. top-k: the k highest;
 *   3. top-p: of those, the fewest of the most probable that together reach p;
 *   4. min-p: of those, the ones at least min_p times as probable as the best;
 *   5. the draw, by the softmax of what is left at the temperature.
 * Probabilities in 3 and 4 are at temperature 1 over what step 2 left, so that the temperature does not change
 * which tokens are possible. At least the best token always stays. Equal logits: the lower id is better.
 * Temperature 0 gives the best token after step 1. NaN is never picked; if all are NaN, the answer is 0;
 * if the best is infinite, it is the answer. Same seed, tokens and logits: same ids, on any machine with
 * the same exp(). */
int32_t sampler_pick(Sampler *s, const float *logits);

/* The first state of the random numbers that picks draw (xoshiro256**), for samplers elsewhere. */
void sampler_seed(uint64_t state[4], uint64_t seed);

#endif
