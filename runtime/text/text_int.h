/* text_int.h - what the files of the tokenizer share. Private to this folder.
 *
 * The way of a text: tokenizer.c cuts it at special tokens (special.c); every plain part goes to the
 * encoder of the kind (tokenizer_spm.c, tokenizer_bpe.c), which says which neighbours join and in
 * what order; merge.c joins them and writes the ids.
 */
#ifndef LAP_TEXT_TEXT_INT_H
#define LAP_TEXT_TEXT_INT_H

#include "runtime/text/text.h"

#define META_SPACE "\xe2\x96\x81" /* U+2581, how a vocabulary writes a space */
enum { META_SPACE_BYTES = 3 };

/* Numbers of tokenizer.ggml.token_type. */
enum TokenType {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2, /* stands for what cannot be written; a control token in every other way */
    TOKEN_CONTROL = 3, /* begins, ends and separates; never made from ordinary text */
    TOKEN_USER = 4,    /* ordinary text that is always one token, written with real spaces */
    TOKEN_UNUSED = 5,  /* as normal */
    TOKEN_BYTE = 6,    /* "<0xHH>" */
};

/* ==== Hash index: open addressing, items are numbers of something that the caller compares ==== */

typedef struct HashSlot {
    uint32_t tag;  /* upper half of the hash, so that strings are rarely compared in vain */
    uint32_t item; /* number + 1; 0: free */
} HashSlot;

typedef struct HashIndex {
    HashSlot *slot;
    uint32_t mask; /* slots - 1; at most half of them are taken */
} HashIndex;

HashIndex hash_index_new(Arena *a, int items);

/* for (HashSlot *s = hash_first(x, h); s->item; s = hash_next(x, s)) if (s->tag == hash_tag(h)) ... */
static inline HashSlot *hash_first(const HashIndex *x, uint64_t h) {
    return &x->slot[(uint32_t)h & x->mask];
}
static inline HashSlot *hash_next(const HashIndex *x, const HashSlot *s) {
    return &x->slot[(uint32_t)(s - x->slot + 1) & x->mask];
}
static inline uint32_t hash_tag(uint64_t h) {
    return (uint32_t)(h >> 32);
}

/* ==== Special tokens (special.c) ==== */

typedef struct SpecialTokens {
    const int32_t *id; /* in the order of their texts as bytes */
    int n;
    int first[257]; /* those that begin with byte b are first[b] .. first[b+1] */
} SpecialTokens;

/* Collects control, unknown and user-defined tokens; needs token, type and the index. */
void specials_build(Tokenizer *t);

/* The longest special token that text begins with, or -1; *len its bytes. with_control: not only
 * user-defined ones. room: it must end within so many bytes, unless it is user-defined white space. */
int32_t specials_match(const Tokenizer *t, Str text, bool with_control, size_t room, size_t *len);

/* ==== The tokenizer ==== */

typedef struct Encoder Encoder;
typedef struct Loader Loader;

typedef struct TokenizerKind {
    const char *name;                    /* tokenizer.ggml.model */
    void (*load)(Tokenizer *, Loader *); /* reads and checks the keys only this kind has */
    void (*encode)(Encoder *, Str text); /* text without special tokens */
} TokenizerKind;

struct Tokenizer {
    Arena *arena;
    const TokenizerKind *kind;
    int n;
    const Str *token; /* [n] strings of the vocabulary, in the file's memory */
    Str *piece;       /* [n] the same as running text */
    uint8_t *type;    /* [n] enum TokenType */
    size_t max_token; /* bytes of the longest */
    HashIndex index;  /* text -> id */
    SpecialTokens specials;
    int32_t byte_id[256]; /* what a byte becomes that no token covers */
    char byte_text[256];
    int32_t bos, unk;
    int32_t stop[3]; /* eos, eot, eom; -1 none */
    bool add_bos;
    bool add_space_prefix; /* "llama" only */
    const double *score;   /* [n] "llama" only */
    const Str *merge;      /* [n_merges] "gemma4" only: "A B", best first */
    int n_merges;
    size_t max_merge;      /* bytes of the longest A and B together */
    HashIndex merge_index; /* (A, B) -> number */
};

/* Id of a token that ordinary text may become (not control, unknown or byte), or -1. */
int32_t find_ordinary(const Tokenizer *t, const char *s, size_t n);

extern const TokenizerKind tokenizer_spm;
extern const TokenizerKind tokenizer_bpe;

/* ==== Reading the keys (tokenizer.c) ==== */

struct Loader {
    const ModelFile *file;
    Diag *diag;
    SrcLoc at; /* the file as a whole */
};

__attribute__((format(printf, 2, 3))) void load_error(Loader *l, const char *fmt, ...);
/* An array of that kind with n values (n < 0: any number but none), or NULL after an error. */
const MetaValue *load_array(Loader *l, const char *key, MetaKind kind, int64_t n);
/* A truth value; `absent` when the key is not there. */
bool load_bool(Loader *l, const char *key, bool absent);

/* ==== Joining (merge.c) ==== */

typedef struct Symbol {
    uint32_t start, len; /* bytes of the text; len 0: joined to the symbol before */
    int32_t prev, next;  /* -1: none */
} Symbol;

typedef struct Pair {
    double order;
    int32_t left;
    uint32_t len; /* of both together when it was found: differs later if one of them has changed */
} Pair;

struct Encoder {
    const Tokenizer *t;
    Arena *arena; /* of out */
    TokenList *out;
    Arena *scratch; /* of the rest, which is used again for every part of the text */
    VEC(Symbol) symbols;
    VEC(Pair) pairs; /* a binary heap, the next to join at 0 */
    VEC(char) text;
};

/* Whether the first `left` and the next `right` bytes at s may join; *order: smallest joins first. */
typedef bool MayJoin(const Tokenizer *t, const char *s, size_t left, size_t right, double *order);

/* text with every space as meta-space (`prefix`: and one more in front), in e->text. */
Str encoder_escape(Encoder *e, Str text, bool prefix);
void encoder_push(Encoder *e, int32_t id);
/* Joins characters of text as long as two neighbours may join, and writes the ids: of each symbol
 * that is a token, else of its bytes. O(n log n). */
void encoder_merge(Encoder *e, Str text, MayJoin *may_join);

#endif
