/* vocab.h - vocabularies made by hand or at random, a slow tokenizer to compare with, random texts. */
#ifndef TESTS_TEXT_VOCAB_H
#define TESTS_TEXT_VOCAB_H

#include "runtime/text/text.h"

/* cmocka wants these before its own header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

typedef struct Vocab {
    Arena *arena;
    Diag *diag;
    const char *kind;
    bool add_space_prefix;
    VEC(Str) tokens;
    VEC(int64_t) types;
    VEC(double) scores;
    VEC(Str) merges;
    VEC(MetaEntry) meta;
    ModelFile file;
} Vocab;

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

/* <pad> <eos> <bos> <unk> (ids 0..3) and, with bytes, <0x00>..<0xFF> (ids 4..259). */
Vocab *vocab_new(const char *kind, bool bytes);
void vocab_free(Vocab *v);
int vocab_add(Vocab *v, const char *text, int type, double score);
void vocab_merge(Vocab *v, const char *merge);

/* Keys put by hand replace those that vocab_tokenizer would put. */
void vocab_put_int(Vocab *v, const char *key, MetaKind kind, int64_t value);
void vocab_put_text(Vocab *v, const char *key, const char *text);
void vocab_put_array(Vocab *v, const char *key, MetaKind kind, const void *values, int64_t n);
/* The key will not be there. */
void vocab_omit(Vocab *v, const char *key);

Tokenizer *vocab_tokenizer(Vocab *v);

/* The ids by the definition: at every step all pairs are looked at, every lookup walks the vocabulary. */
void oracle_encode(const Vocab *v, Arena *a, Str text, EncodeOptions o, TokenList *out);

/* ==== Randomness ==== */

/* From the command line if given, else from the clock; printed. */
uint64_t test_seed(int argc, char **argv);
uint32_t random_below(uint64_t *state, uint32_t n);
double random_unit(uint64_t *state);

/* Appends one character: ASCII, white space, any script, emoji, joiners, marks, ... never U+2581. */
void random_character(uint64_t *state, Buf *out);
/* A text of so many characters, with runs and look-alikes of special tokens. */
void random_text(uint64_t *state, int characters, Buf *out);
/* Merges and tokens over a few characters; both kinds. complete: everything that can be joined is a token, so that
 * a meta-space never becomes bytes (which would not read as a space again). */
Vocab *random_vocab(uint64_t *state, const char *kind, bool complete);
/* Made of the characters and tokens of v, with some that are not in it. */
void random_vocab_text(uint64_t *state, const Vocab *v, int pieces, Buf *out);

void buf_utf8(Buf *out, uint32_t code);
/* Is it well-formed? By decoding to numbers and their ranges, not by the table of the program. */
bool is_utf8(const char *s, size_t n);

void assert_ids(const TokenList *got, const int32_t *want, int n);

#endif
