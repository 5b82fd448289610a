/* vocab.c - see vocab.h. */
#include "vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ==== Making vocabularies ==== */

Vocab *vocab_new(const char *kind, bool bytes) {
    Arena *a = arena_new();
    Vocab *v = arena_alloc(a, sizeof *v);
    v->arena = a;
    v->diag = diag_new();
    v->kind = kind;
    vocab_add(v, "<pad>", CONTROL, 0);
    vocab_add(v, "<eos>", CONTROL, 0);
    vocab_add(v, "<bos>", CONTROL, 0);
    vocab_add(v, "<unk>", UNKNOWN, 0);
    for (int b = 0; bytes && b < 256; b++)
        vocab_add(v, arena_printf(a, "<0x%02X>", (unsigned)b), BYTE, 0);
    return v;
}

void vocab_free(Vocab *v) {
    diag_free(v->diag);
    arena_free(v->arena);
}

int vocab_add(Vocab *v, const char *text, int type, double score) {
    vec_push(v->arena, &v->tokens, ((Str){text, strlen(text)}));
    vec_push(v->arena, &v->types, type);
    vec_push(v->arena, &v->scores, score);
    return v->tokens.n - 1;
}

void vocab_merge(Vocab *v, const char *merge) {
    vec_push(v->arena, &v->merges, ((Str){merge, strlen(merge)}));
}

static bool has_key(const Vocab *v, const char *key) {
    for (int i = 0; i < v->meta.n; i++)
        if (strcmp(v->meta.v[i].key, key) == 0)
            return true;
    return false;
}

static void put(Vocab *v, const char *key, MetaValue value) {
    if (!has_key(v, key))
        vec_push(v->arena, &v->meta, ((MetaEntry){key, value}));
}

void vocab_put_int(Vocab *v, const char *key, MetaKind kind, int64_t value) {
    int64_t *i = arena_alloc(v->arena, sizeof *i);
    *i = value;
    put(v, key, (MetaValue){.kind = kind, .n = 1, .i = i});
}

void vocab_put_text(Vocab *v, const char *key, const char *text) {
    Str *s = arena_alloc(v->arena, sizeof *s);
    *s = (Str){text, strlen(text)};
    put(v, key, (MetaValue){.kind = META_STRING, .n = 1, .s = s});
}

void vocab_put_array(Vocab *v, const char *key, MetaKind kind, const void *values, int64_t n) {
    put(v, key, (MetaValue){.kind = kind, .is_array = true, .n = n, .i = values});
}

void vocab_omit(Vocab *v, const char *key) {
    put(v, key, (MetaValue){.kind = META_INT, .n = -1});
}

Tokenizer *vocab_tokenizer(Vocab *v) {
    vocab_put_text(v, "tokenizer.ggml.model", v->kind);
    vocab_put_array(v, "tokenizer.ggml.tokens", META_STRING, v->tokens.v, v->tokens.n);
    vocab_put_array(v, "tokenizer.ggml.token_type", META_INT, v->types.v, v->types.n);
    vocab_put_array(v, "tokenizer.ggml.scores", META_FLOAT, v->scores.v, v->scores.n);
    vocab_put_array(v, "tokenizer.ggml.merges", META_STRING, v->merges.v, v->merges.n);
    vocab_put_int(v, "tokenizer.ggml.eos_token_id", META_INT, 1);
    vocab_put_int(v, "tokenizer.ggml.bos_token_id", META_INT, 2);
    vocab_put_int(v, "tokenizer.ggml.unknown_token_id", META_INT, 3);
    vocab_put_int(v, "tokenizer.ggml.add_bos_token", META_BOOL, 1);
    vocab_put_int(v, "tokenizer.ggml.add_space_prefix", META_BOOL, v->add_space_prefix);
    v->file = (ModelFile){.path = "test.gguf", .arch = "test"};
    v->file.meta = arena_array(v->arena, (size_t)v->meta.n, sizeof(MetaEntry));
    for (int i = 0; i < v->meta.n; i++)
        if (v->meta.v[i].value.n >= 0)
            v->file.meta[v->file.n_meta++] = v->meta.v[i];
    modelfile_index(&v->file, v->arena);
    return tokenizer_new(&v->file, v->diag);
}

/* ==== The slow tokenizer ==== */

static int oracle_find(const Vocab *v, Str s) {
    for (int i = v->tokens.n - 1; i >= 0; i--)
        if (str_same(v->tokens.v[i], s))
            return i;
    return -1;
}

static bool is_ordinary(const Vocab *v, int id) {
    return id >= 0 && (v->types.v[id] == NORMAL || v->types.v[id] == USER || v->types.v[id] == UNUSED);
}

/* How much a and b (neighbours) want to join: smaller first; false: not at all. */
static bool oracle_order(const Vocab *v, Str a, Str b, double *order) {
    if (strcmp(v->kind, "llama") == 0) {
        int id = oracle_find(v, (Str){a.s, a.n + b.n});
        *order = is_ordinary(v, id) ? -v->scores.v[id] : 0;
        return is_ordinary(v, id);
    }
    Buf both = {0};
    buf_bytes(&both, a.s, a.n);
    buf_char(&both, ' ');
    buf_bytes(&both, b.s, b.n);
    int i = 0;
    while (i < v->merges.n && !str_same(v->merges.v[i], (Str){both.s, both.n}))
        i++;
    buf_free(&both);
    *order = i;
    return i < v->merges.n;
}

typedef VEC(Str) StrList;

static void oracle_characters(Arena *a, Str text, StrList *out) {
    for (size_t i = 0, n; i < text.n; i += n) {
        unsigned char c = (unsigned char)text.s[i];
        n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        n = n < text.n - i ? n : text.n - i;
        vec_push(a, out, ((Str){text.s + i, n}));
    }
}

static void oracle_join(const Vocab *v, Arena *a, Str text, TokenList *out) {
    StrList list = {0};
    oracle_characters(a, text, &list);
    for (;;) {
        int best = -1;
        double best_order = 0, order;
        for (int i = 0; i + 1 < list.n; i++)
            if (oracle_order(v, list.v[i], list.v[i + 1], &order) && (best < 0 || order < best_order)) {
                best = i;
                best_order = order;
            }
        if (best < 0)
            break;
        list.v[best].n += list.v[best + 1].n;
        list.n--;
        memmove(&list.v[best + 1], &list.v[best + 2], (size_t)(list.n - best - 1) * sizeof *list.v);
    }
    for (int i = 0; i < list.n; i++) {
        int id = oracle_find(v, list.v[i]);
        if (is_ordinary(v, id)) {
            vec_push(a, out, id);
            continue;
        }
        for (size_t k = 0; k < list.v[i].n; k++) {
            char name[8];
            int n = snprintf(name, sizeof name, "<0x%02X>", (unsigned)(unsigned char)list.v[i].s[k]);
            vec_push(a, out, oracle_find(v, (Str){name, (size_t)n}));
        }
    }
}

static void oracle_plain(const Vocab *v, Arena *a, Str text, TokenList *out) {
    Buf b = {0};
    bool spm = strcmp(v->kind, "llama") == 0;
    if (spm && v->add_space_prefix)
        buf_str(&b, "\xe2\x96\x81");
    for (size_t i = 0; i < text.n; i++)
        if (text.s[i] == ' ')
            buf_str(&b, "\xe2\x96\x81");
        else
            buf_char(&b, text.s[i]);
    Str all = {arena_strndup(a, b.s, b.n), b.n};
    buf_free(&b);
    for (size_t i = 0, n; i < all.n; i += n) {
        n = all.n - i;
        if (!spm) {
            n = 1;
            while (i + n < all.n && (all.s[i + n] == '\n') == (all.s[i] == '\n'))
                n++;
        }
        Str run = {all.s + i, n};
        int id = spm || run.s[0] != '\n' ? -1 : oracle_find(v, run);
        if (is_ordinary(v, id))
            vec_push(a, out, id);
        else
            oracle_join(v, a, run, out);
    }
}

static bool is_white(Str s) {
    return strspn(s.s, " \t\n\v\f\r") >= s.n;
}

static bool touches_plain(EncodeOptions o, size_t from, size_t to) {
    for (int i = 0; o.plain && i < o.plain->n; i++)
        if (from < o.plain->v[i].to && to > o.plain->v[i].from)
            return true;
    return false;
}

void oracle_encode(const Vocab *v, Arena *a, Str text, EncodeOptions o, TokenList *out) {
    size_t from = 0, at = 0;
    while (at < text.n) {
        int best = -1;
        for (int i = 0; i < v->tokens.n; i++) {
            Str s = v->tokens.v[i];
            bool counts =
                v->types.v[i] == USER || (o.parse_special && (v->types.v[i] == CONTROL || v->types.v[i] == UNKNOWN));
            if (counts && s.n <= text.n - at && memcmp(s.s, text.s + at, s.n) == 0 &&
                (!touches_plain(o, at, at + s.n) || (v->types.v[i] == USER && is_white(s))) &&
                (best < 0 || s.n > v->tokens.v[best].n))
                best = i;
        }
        if (best < 0) {
            at++;
            continue;
        }
        if (at > from)
            oracle_plain(v, a, (Str){text.s + from, at - from}, out);
        vec_push(a, out, best);
        at += v->tokens.v[best].n;
        from = at;
    }
    if (at > from)
        oracle_plain(v, a, (Str){text.s + from, at - from}, out);
}

/* ==== Randomness ==== */

uint64_t test_seed(int argc, char **argv) {
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000003u;
    printf("seed %llu\n", (unsigned long long)seed);
    return seed;
}

uint32_t random_below(uint64_t *state, uint32_t n) {
    return (uint32_t)(random_unit(state) * n);
}

double random_unit(uint64_t *state) {
    *state += 0x9e3779b97f4a7c15u;
    return (double)(hash_bytes(state, sizeof *state, 1) >> 11) * 0x1p-53;
}

void buf_utf8(Buf *out, uint32_t c) {
    if (c < 0x80) {
        buf_char(out, (char)c);
    } else if (c < 0x800) {
        buf_char(out, (char)(0xc0 | c >> 6));
        buf_char(out, (char)(0x80 | (c & 63)));
    } else if (c < 0x10000) {
        buf_char(out, (char)(0xe0 | c >> 12));
        buf_char(out, (char)(0x80 | (c >> 6 & 63)));
        buf_char(out, (char)(0x80 | (c & 63)));
    } else {
        buf_char(out, (char)(0xf0 | c >> 18));
        buf_char(out, (char)(0x80 | (c >> 12 & 63)));
        buf_char(out, (char)(0x80 | (c >> 6 & 63)));
        buf_char(out, (char)(0x80 | (c & 63)));
    }
}

void random_character(uint64_t *state, Buf *out) {
    static const uint32_t range[][2] = {{'a', 'z'},         {'a', 'z'},       {' ', '~'},         {' ', ' '},
                                        {'\t', '\r'},       {1, 31},          {0xa0, 0x24f},      {0x300, 0x36f},
                                        {0x370, 0x52f},     {0x590, 0x6ff},   {0x900, 0xdff},     {0xe00, 0xeff},
                                        {0x200b, 0x200f},   {0x2028, 0x202f}, {0x3040, 0x30ff},   {0x4e00, 0x9fff},
                                        {0xac00, 0xd7a3},   {0xe000, 0xffff}, {0x1f300, 0x1faff}, {0x1f1e6, 0x1f1ff},
                                        {0x10000, 0x10ffff}};
    const uint32_t *r = range[random_below(state, COUNTOF(range))];
    buf_utf8(out, r[0] + random_below(state, r[1] - r[0] + 1));
}

void random_text(uint64_t *state, int characters, Buf *out) {
    static const char *const alike[] = {"<bos>", "<unk>", "<0x41>", "<0x",  "<eos",
                                        "</b>",  "<em>",  "[x=0]",  "\r\n", "  "};
    while (characters > 0) {
        Buf one = {0};
        if (random_below(state, 12) == 0)
            buf_str(&one, alike[random_below(state, COUNTOF(alike))]);
        else
            random_character(state, &one);
        int times = random_below(state, 10) == 0 ? 1 + (int)random_below(state, 40) : 1;
        characters -= times;
        while (times-- > 0)
            buf_bytes(out, one.s, one.n);
        buf_free(&one);
    }
}

static const char *const letters[] = {
    "a", "b", "c", "\xc3\xa9", "\xe2\x96\x81", "\n", "\xe4\xb8\xad", "\xf0\x9f\x98\x80", "<", "0"};

/* A random text that the vocabulary may join up to. */
static Str random_word(uint64_t *state, const Vocab *v, int first) {
    if (v->tokens.n == first || random_below(state, 3) == 0) {
        const char *s = letters[random_below(state, COUNTOF(letters))];
        return (Str){s, strlen(s)};
    }
    return v->tokens.v[first + (int)random_below(state, (uint32_t)(v->tokens.n - first))];
}

Vocab *random_vocab(uint64_t *state, const char *kind, bool complete) {
    Vocab *v = vocab_new(kind, true);
    v->add_space_prefix = random_below(state, 2);
    static const struct {
        const char *text;
        int type;
    } special[] = {{"<s0>", CONTROL}, {"<s1", USER}, {"<s1>", USER}, {"0a", USER}, {"a0", CONTROL}, {"  ", USER}};
    for (size_t i = 0; i < COUNTOF(special); i++)
        if (random_below(state, 2))
            vocab_add(v, special[i].text, special[i].type, 0);
    int first = v->tokens.n;
    for (size_t i = 0; i < COUNTOF(letters); i++)
        if (complete || random_below(state, 4))
            vocab_add(v, letters[i], NORMAL, -1e6);
    int joins = 5 + (int)random_below(state, 60);
    for (int i = 0; i < joins; i++) {
        Str a = random_word(state, v, first), b = random_word(state, v, first);
        if (a.n + b.n > 16)
            continue;
        vocab_merge(v, arena_printf(v->arena, "%.*s %.*s", STR_FMT(a), STR_FMT(b)));
        const char *both = arena_printf(v->arena, "%.*s%.*s", STR_FMT(a), STR_FMT(b));
        if ((complete || random_below(state, 8)) && oracle_find(v, (Str){both, strlen(both)}) < 0)
            vocab_add(v, both, NORMAL, -(double)random_below(state, 30)); /* many ties */
    }
    for (int i = v->merges.n - 1; i > 0; i--) { /* a random order, so that merges need later ones */
        int k = (int)random_below(state, (uint32_t)i + 1);
        Str t = v->merges.v[i];
        v->merges.v[i] = v->merges.v[k];
        v->merges.v[k] = t;
    }
    return v;
}

void random_vocab_text(uint64_t *state, const Vocab *v, int pieces, Buf *out) {
    static const char *const others[] = {" ", " ", "z", "<bos>", "<unk>", "<0x61>", "\xd1\x8f", "<s", "\n", "a0", "0a"};
    for (int i = 0; i < pieces; i++) {
        switch (random_below(state, 8)) {
        case 0:
        case 1: buf_str(out, others[random_below(state, COUNTOF(others))]); break;
        case 2:
            buf_char(
                out,
                (char)(random_below(state, 20) ? ' ' : random_below(state, 256))); /* also bytes that are no UTF-8 */
            break;
        case 3: {
            Str s = v->tokens.v[random_below(state, (uint32_t)v->tokens.n)];
            buf_bytes(out, s.s, s.n);
            break;
        }
        default: buf_str(out, letters[random_below(state, COUNTOF(letters))]);
        }
    }
}

bool is_utf8(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i++];
        int more = c < 0x80 ? 0 : c < 0xc0 ? -1 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf8 ? 3 : -1;
        if (more < 0 || (size_t)more > n - i)
            return false;
        uint32_t code = more == 0 ? c : c & (0x3fu >> more);
        for (int k = 0; k < more; k++, i++) {
            if (((unsigned char)s[i] & 0xc0) != 0x80)
                return false;
            code = code << 6 | ((unsigned char)s[i] & 63);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
    }
    return true;
}

void assert_ids(const TokenList *got, const int32_t *want, int n) {
    bool same = got->n == n && (n == 0 || memcmp(got->v, want, (size_t)n * sizeof *want) == 0);
    if (!same) {
        fprintf(stderr, "got:");
        for (int i = 0; i < got->n; i++)
            fprintf(stderr, " %d", got->v[i]);
        fprintf(stderr, "\nwant:");
        for (int i = 0; i < n; i++)
            fprintf(stderr, " %d", want[i]);
        fprintf(stderr, "\n");
    }
    assert_true(same);
}
