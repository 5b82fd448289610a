/* tokenizer.c - builds a tokenizer from the keys of a weights file, and answers about single tokens.
 *
 * Every key is checked before it is used; a message names the key. Strings stay in the file's memory;
 * what a token looks like in running text is worked out once at loading, so that tokenizer_piece gives
 * stable memory and decoding is a copy.
 */
#include "runtime/text/text_int.h"

#include <stdio.h>
#include <string.h>

static const TokenizerKind *const kinds[] = {&tokenizer_spm, &tokenizer_bpe};

/* ==== Hash index ==== */

HashIndex hash_index_new(Arena *a, int items) {
    uint32_t slots = 16;
    while (slots / 2 < (uint32_t)items)
        slots *= 2;
    return (HashIndex){arena_array(a, slots, sizeof(HashSlot)), slots - 1};
}

/* The slot of the token of that text, or the free one where it belongs. */
static HashSlot *token_slot(const Tokenizer *t, const char *s, size_t n, uint64_t h) {
    HashSlot *slot = hash_first(&t->index, h);
    for (; slot->item; slot = hash_next(&t->index, slot)) {
        Str text = t->token[slot->item - 1];
        if (slot->tag == hash_tag(h) && text.n == n && memcmp(text.s, s, n) == 0)
            break;
    }
    return slot;
}

/* ==== Reading the keys ==== */

void load_error(Loader *l, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    diag_error(l->diag, l->at, "%s", text);
}

static const char *const kind_text[] = {
    [META_INT] = "integers", [META_FLOAT] = "floats", [META_BOOL] = "truth values", [META_STRING] = "strings"};

const MetaValue *load_array(Loader *l, const char *key, MetaKind kind, int64_t n) {
    const MetaValue *v = modelfile_meta(l->file, key);
    if (!v) {
        load_error(l, "key '%s' is missing", key);
        return NULL;
    }
    if (!v->is_array || (v->kind != kind && v->n > 0)) {
        load_error(l, "key '%s' is not an array of %s", key, kind_text[kind]);
        return NULL;
    }
    if (n < 0 ? v->n == 0 : v->n != n) {
        if (n < 0)
            load_error(l, "key '%s' is empty", key);
        else
            load_error(l, "key '%s' has %lld values, but there are %lld tokens", key, (long long)v->n, (long long)n);
        return NULL;
    }
    return v;
}

bool load_bool(Loader *l, const char *key, bool absent) {
    const MetaValue *v = modelfile_meta(l->file, key);
    if (!v)
        return absent;
    if (v->is_array || (v->kind != META_BOOL && v->kind != META_INT)) {
        load_error(l, "key '%s' is not a truth value", key);
        return absent;
    }
    return v->i[0] != 0;
}

/* A token id, or -1 when the key is not there. */
static int32_t load_id(Loader *l, const Tokenizer *t, const char *key) {
    const MetaValue *v = modelfile_meta(l->file, key);
    if (!v)
        return -1;
    if (v->is_array || v->kind != META_INT) {
        load_error(l, "key '%s' is not an integer", key);
        return -1;
    }
    if (v->i[0] < 0 || v->i[0] >= t->n) {
        load_error(l, "key '%s' is %lld, but there are %d tokens", key, (long long)v->i[0], t->n);
        return -1;
    }
    return (int32_t)v->i[0];
}

static const TokenizerKind *load_kind(Loader *l, Arena *a) {
    const char *key = "tokenizer.ggml.model";
    const MetaValue *v = modelfile_meta(l->file, key);
    if (!v) {
        load_error(l, "the file carries no tokenizer (key '%s' is missing)", key);
        return NULL;
    }
    if (v->is_array || v->kind != META_STRING) {
        load_error(l, "key '%s' is not a string", key);
        return NULL;
    }
    if (str_eq(v->s[0], "none")) {
        load_error(l, "key '%s' is 'none': the file carries no text, only token ids", key);
        return NULL;
    }
    const char *list = "";
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        if (str_eq(v->s[0], kinds[i]->name))
            return kinds[i];
        list = arena_printf(a, "%s%s'%s'", list, i ? ", " : "", kinds[i]->name);
    }
    int shown = v->s[0].n < 64 ? (int)v->s[0].n : 64;
    load_error(l, "key '%s': tokenizers of kind '%.*s' are not supported; supported: %s", key, shown, v->s[0].s, list);
    return NULL;
}

static bool load_tokens(Loader *l, Tokenizer *t) {
    const MetaValue *tokens = load_array(l, "tokenizer.ggml.tokens", META_STRING, -1);
    if (!tokens)
        return false;
    if (tokens->n > INT32_MAX / 4) {
        load_error(l, "key 'tokenizer.ggml.tokens' has %lld tokens, at most %d are possible", (long long)tokens->n,
                   INT32_MAX / 4);
        return false;
    }
    t->n = (int)tokens->n;
    t->token = tokens->s;
    t->index = hash_index_new(t->arena, t->n);
    for (int i = 0; i < t->n; i++) {
        if (!t->token[i].n)
            continue; /* an empty text stands for nothing */
        uint64_t h = hash_bytes(t->token[i].s, t->token[i].n, 0);
        HashSlot *slot = token_slot(t, t->token[i].s, t->token[i].n, h);
        *slot = (HashSlot){hash_tag(h), (uint32_t)i + 1}; /* the last of equals counts */
        if (t->token[i].n > t->max_token)
            t->max_token = t->token[i].n;
    }
    return true;
}

/* "<0xHH>" -> HH, else -1. */
static int byte_of(Str s) {
    if (s.n != 6 || memcmp(s.s, "<0x", 3) != 0 || s.s[5] != '>')
        return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        const char *digits = "0123456789ABCDEF";
        const char *d = s.s[i] ? strchr(digits, s.s[i]) : NULL;
        if (!d)
            return -1;
        value = value * 16 + (int)(d - digits);
    }
    return value;
}

static bool load_types(Loader *l, Tokenizer *t) {
    const char *key = "tokenizer.ggml.token_type";
    const MetaValue *types = load_array(l, key, META_INT, t->n);
    if (!types)
        return false;
    t->type = arena_array(t->arena, (size_t)t->n, 1);
    for (int i = 0; i < t->n; i++) {
        int64_t type = types->i[i];
        if (type < TOKEN_NORMAL || type > TOKEN_BYTE) {
            load_error(l, "key '%s': token %d has type %lld, types are %d to %d", key, i, (long long)type, TOKEN_NORMAL,
                       TOKEN_BYTE);
            return false;
        }
        if (type == TOKEN_BYTE && byte_of(t->token[i]) < 0) {
            load_error(l, "key '%s': token %d has the type of bytes, but its text is not of the form <0xHH>", key, i);
            return false;
        }
        t->type[i] = (uint8_t)type;
    }
    return true;
}

static void load_ids(Loader *l, Tokenizer *t) {
    static const char *const stop[COUNTOF(t->stop)] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < COUNTOF(t->stop); i++)
        t->stop[i] = load_id(l, t, stop[i]);
    t->bos = load_id(l, t, "tokenizer.ggml.bos_token_id");
    t->unk = load_id(l, t, "tokenizer.ggml.unknown_token_id");
    load_id(l, t, "tokenizer.ggml.padding_token_id"); /* checked like the others; no text has padding */

    const char *key = "tokenizer.ggml.add_bos_token";
    t->add_bos = load_bool(l, key, t->bos >= 0);
    if (t->add_bos && t->bos < 0)
        load_error(l, "key '%s' asks for a first token, but 'tokenizer.ggml.bos_token_id' is missing", key);
}

/* What each byte becomes: its byte token, else the token of that one byte, else the unknown token. */
static void load_bytes(Loader *l, Tokenizer *t) {
    for (int b = 0; b < 256; b++) {
        t->byte_text[b] = (char)b;
        t->byte_id[b] = -1;
    }
    for (int i = 0; i < t->n; i++)
        if (t->type[i] == TOKEN_BYTE)
            t->byte_id[byte_of(t->token[i])] = i;
    for (int b = 0; b < 256; b++) {
        if (t->byte_id[b] < 0)
            t->byte_id[b] = find_ordinary(t, &t->byte_text[b], 1);
        if (t->byte_id[b] < 0)
            t->byte_id[b] = t->unk;
        if (t->byte_id[b] < 0) {
            load_error(l,
                       "key 'tokenizer.ggml.tokens' has no token for byte 0x%02X, and there is no "
                       "'tokenizer.ggml.unknown_token_id'",
                       (unsigned)b);
            return;
        }
    }
}

/* ==== Running text ==== */

static const char *find_meta_space(const char *s, const char *end) {
    while (end - s >= META_SPACE_BYTES) {
        s = memchr(s, META_SPACE[0], (size_t)(end - s) - META_SPACE_BYTES + 1);
        if (!s || memcmp(s, META_SPACE, META_SPACE_BYTES) == 0)
            return s;
        s++;
    }
    return NULL;
}

/* A copy with spaces for meta-spaces; the string itself when it has none. */
static Str with_spaces(Arena *a, Str raw) {
    const char *end = raw.s + raw.n;
    const char *next = find_meta_space(raw.s, end);
    if (!next)
        return raw;
    char *out = arena_alloc(a, raw.n);
    size_t n = 0;
    for (const char *s = raw.s; s < end;) {
        size_t plain = (size_t)((next ? next : end) - s);
        memcpy(out + n, s, plain);
        n += plain;
        s += plain;
        if (next) {
            out[n++] = ' ';
            s += META_SPACE_BYTES;
            next = find_meta_space(s, end);
        }
    }
    return (Str){out, n};
}

static void build_pieces(Tokenizer *t) {
    t->piece = arena_array(t->arena, (size_t)t->n, sizeof *t->piece);
    for (int i = 0; i < t->n; i++) {
        if (t->type[i] == TOKEN_BYTE)
            t->piece[i] = (Str){&t->byte_text[byte_of(t->token[i])], 1};
        else if (t->type[i] == TOKEN_NORMAL || t->type[i] == TOKEN_UNUSED)
            t->piece[i] = with_spaces(t->arena, t->token[i]);
        else
            t->piece[i] = t->token[i]; /* special tokens are found in the text as they stand */
    }
}

/* ==== Making ==== */

Tokenizer *tokenizer_new(const ModelFile *file, Diag *diag) {
    Loader l = {file, diag, {diag_source(diag, file->path, NULL, 0), 0, 0, 0}};
    int before = diag_errors(diag);
    Arena *a = arena_new();
    Tokenizer *t = arena_alloc(a, sizeof *t);
    t->arena = a;
    t->kind = load_kind(&l, a);
    if (t->kind && load_tokens(&l, t) && load_types(&l, t)) {
        load_ids(&l, t);
        load_bytes(&l, t);
        t->kind->load(t, &l);
    }
    if (diag_errors(diag) > before) {
        arena_free(a);
        return NULL;
    }
    specials_build(t);
    build_pieces(t);
    return t;
}

void tokenizer_free(Tokenizer *t) {
    if (t)
        arena_free(t->arena);
}

/* ==== Single tokens ==== */

static bool in_range(const Tokenizer *t, int32_t id) {
    return id >= 0 && id < t->n;
}

bool tokenizer_is_control(const Tokenizer *t, int32_t id) {
    return in_range(t, id) && (t->type[id] == TOKEN_CONTROL || t->type[id] == TOKEN_UNKNOWN);
}

Str tokenizer_piece(const Tokenizer *t, int32_t id, bool show_control) {
    if (!in_range(t, id) || (tokenizer_is_control(t, id) && !show_control))
        return (Str){"", 0};
    return t->piece[id];
}

Str tokenizer_token(const Tokenizer *t, int32_t id) {
    return in_range(t, id) ? t->token[id] : (Str){"", 0};
}

int32_t tokenizer_find(const Tokenizer *t, Str token) {
    return token.n ? (int32_t)token_slot(t, token.s, token.n, hash_bytes(token.s, token.n, 0))->item - 1 : -1;
}

int32_t find_ordinary(const Tokenizer *t, const char *s, size_t n) {
    int32_t id = tokenizer_find(t, (Str){s, n});
    if (id < 0)
        return -1;
    return t->type[id] == TOKEN_BYTE || tokenizer_is_control(t, id) ? -1 : id;
}

int tokenizer_size(const Tokenizer *t) {
    return t->n;
}

int32_t tokenizer_bos(const Tokenizer *t) {
    return t->bos;
}

bool tokenizer_is_eos(const Tokenizer *t, int32_t id) {
    for (size_t i = 0; i < COUNTOF(t->stop); i++)
        if (id >= 0 && id == t->stop[i])
            return true;
    return false;
}

/* ==== Encoding ==== */

/* Bytes from `at` on that are not in a plain range, at most n. *next: first range that ends behind `at`, moved along.
 */
static size_t room_at(const RangeList *plain, int *next, size_t at, size_t n) {
    while (plain && *next < plain->n && plain->v[*next].to <= at)
        ++*next;
    if (!plain || *next == plain->n)
        return n;
    size_t from = plain->v[*next].from;
    return from <= at ? 0 : from - at;
}

static bool begins_with_bos(const Tokenizer *t, Str text, EncodeOptions o) {
    int next = 0;
    size_t len;
    return text.n && specials_match(t, text, o.parse_special, room_at(o.plain, &next, 0, text.n), &len) == t->bos;
}

void tokenizer_encode(const Tokenizer *t, Arena *a, const char *text, size_t n, EncodeOptions o, TokenList *out) {
    if (n > TOKENIZER_TEXT_MAX)
        ICE("a text of %zu bytes is too long to encode", n);
    Encoder e = {.t = t, .arena = a, .out = out, .scratch = arena_new()};
    if (o.add_bos && t->add_bos && !begins_with_bos(t, (Str){text, n}, o))
        encoder_push(&e, t->bos);
    int range = 0;
    size_t from = 0, at = 0, len = 0;
    while (at < n) {
        size_t room = room_at(o.plain, &range, at, n - at);
        int32_t id = specials_match(t, (Str){text + at, n - at}, o.parse_special, room, &len);
        if (id < 0) {
            at++;
            continue;
        }
        if (at > from)
            t->kind->encode(&e, (Str){text + from, at - from});
        encoder_push(&e, id);
        at += len;
        from = at;
    }
    if (at > from)
        t->kind->encode(&e, (Str){text + from, at - from});
    arena_free(e.scratch);
}
