/* tokenizer.c - tokenizer.json and the files beside it as keys tokenizer.ggml.*.
 *
 * What a tokenizer is called in GGUF is said by the .convert text; from the files come:
 *   tokenizer.json          the vocabulary and merges of a BPE model, the added tokens and which of them are special
 *   tokenizer_config.json   which tokens are bos, unk, pad and mask; the chat template
 *   chat_template.jinja     the chat template, in newer checkpoints
 *   generation_config.json  the tokens that end a reply (eos_token_id); else those of config.json
 * GGUF has three keys for tokens that end a reply: eos, eot and eom, taken in the order of the list.
 */
#include "runtime/convert/convert_int.h"
#include "runtime/weights/json.h"
#include <string.h>
#include <unistd.h>

enum { MAX_TOKENIZER = 256 << 20, MAX_SIDE_FILE = 64 << 20, MAX_TOKENS = 1 << 24 };

/* Types of tokens, as numbered in GGUF. */
enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef struct Tokens {
    Recipe *r;
    Arena *arena;
    Diag *diag;
    SrcLoc at; /* tokenizer.json */
    int64_t n; /* ids are below */
    Str *text; /* [n]; s NULL: no such token */
    int64_t *type;
} Tokens;

static const char *path_of(const Recipe *r, const char *file) {
    return arena_printf(r->base.scope.arena, "%s/%s", r->dir, file);
}

static bool is_there(const Recipe *r, const char *file) {
    return access(path_of(r, file), F_OK) == 0;
}

bool tokenizer_there(const Recipe *r) {
    return is_there(r, "tokenizer.json");
}

/* ==== Keys ==== */

static void put_strings(Recipe *r, const char *key, const Str *s, int64_t n, bool is_array) {
    MetaEntry e = {key, {.kind = META_STRING, .is_array = is_array, .n = n, .s = s}};
    desc_put(&r->base, e, GGUF_OUT_STRING);
}

static void put_string(Recipe *r, const char *key, Str s) {
    Str *copy = arena_alloc(r->base.scope.arena, sizeof *copy);
    *copy = s;
    put_strings(r, key, copy, 1, false);
}

/* A scalar u32, or an array of i32. */
static void put_ints(Recipe *r, const char *key, const int64_t *v, int64_t n, bool is_array) {
    MetaEntry e = {key, {.kind = META_INT, .is_array = is_array, .n = n, .i = v}};
    desc_put(&r->base, e, is_array ? GGUF_OUT_I32 : GGUF_OUT_U32);
}

static void put_id(Recipe *r, const char *key, int64_t id) {
    int64_t *v = arena_alloc(r->base.scope.arena, sizeof *v);
    *v = id;
    put_ints(r, key, v, 1, false);
}

static bool has_key(const Recipe *r, const char *key) {
    for (int k = 0; k < r->base.meta.entries.n; k++)
        if (strcmp(r->base.meta.entries.v[k].key, key) == 0)
            return true;
    return false;
}

/* ==== Vocabulary ==== */

__attribute__((format(printf, 2, 3))) static bool fail(const Tokens *t, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_error(t->diag, t->at, "%s", arena_vprintf(t->arena, fmt, ap));
    va_end(ap);
    return false;
}

static bool check_id(const Tokens *t, const json_t *id, const char *where) {
    int64_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (v >= 0 && v < t->n)
        return true;
    if (!json_is_integer(id))
        return fail(t, "%s: an id is no integer", where);
    return fail(t, "%s: id %lld is not below %lld, the rows of the embedding table", where, (long long)v,
                (long long)t->n);
}

static bool is_byte(Str s) {
    return s.n == 6 && memcmp(s.s, "<0x", 3) == 0 && s.s[5] == '>' && strspn(s.s + 3, "0123456789ABCDEF") == 2;
}

static bool set_token(Tokens *t, int64_t id, Str s, int64_t type, const char *where) {
    if (t->text[id].s && !str_same(t->text[id], s))
        return fail(t, "%s: id %lld stands for two tokens", where, (long long)id);
    t->text[id] = s;
    t->type[id] = type;
    return true;
}

static bool read_vocab(Tokens *t, json_t *vocab) {
    const char *text;
    json_t *id;
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return fail(t, "key 'model.vocab': must be an object that gives each token its id");
    json_object_foreach(vocab, text, id) {
        if (!check_id(t, id, "key 'model.vocab'"))
            return false;
        Str s = {arena_strdup(t->arena, text), strlen(text)};
        if (!set_token(t, json_integer_value(id), s, is_byte(s) ? BYTE : NORMAL, "key 'model.vocab'"))
            return false;
    }
    return true;
}

static bool is_visible(const Recipe *r, Str s) {
    for (int k = 0; k < r->visible.n; k++)
        if (str_eq(s, r->visible.v[k]))
            return true;
    return false;
}

/* Ordinary tokens that are listed once more (runs of spaces and newlines) stay what they are. */
static int64_t added_type(const Tokens *t, bool is_special, int64_t id, Str s) {
    if (is_special && !is_byte(s))
        return is_visible(t->r, s) ? USER_DEFINED : CONTROL;
    return t->text[id].s ? t->type[id] : USER_DEFINED;
}

static bool read_added(Tokens *t, json_t *added) {
    size_t i;
    json_t *token;
    const char *where = "key 'added_tokens'";
    json_array_foreach(added, i, token) {
        json_t *content = json_object_get(token, "content");
        if (!json_is_string(content))
            return fail(t, "%s: token %zu has no text 'content'", where, i);
        if (!check_id(t, json_object_get(token, "id"), where))
            return false;
        Str s = json_str(t->arena, content);
        int64_t id = json_integer_value(json_object_get(token, "id"));
        if (!set_token(t, id, s, added_type(t, json_is_true(json_object_get(token, "special")), id, s), where))
            return false;
    }
    return true;
}

/* Rows of the embedding table that no token has. */
static void fill_gaps(Tokens *t) {
    for (int64_t id = 0; id < t->n; id++) {
        if (t->text[id].s)
            continue;
        const char *s = arena_printf(t->arena, "[PAD%lld]", (long long)id);
        t->text[id] = (Str){s, strlen(s)};
        t->type[id] = UNUSED;
    }
}

/* "A B" of a merge, which is a text "A B" or a list of two. */
static bool read_merge(const Tokens *t, const json_t *merge, Str *out) {
    if (json_is_string(merge)) {
        *out = json_str(t->arena, merge);
        return out->n > 2;
    }
    const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
    if (json_array_size(merge) != 2 || !json_is_string(a) || !json_is_string(b) || !json_string_length(a) ||
        !json_string_length(b))
        return false;
    out->n = json_string_length(a) + 1 + json_string_length(b);
    out->s = arena_printf(t->arena, "%s %s", json_string_value(a), json_string_value(b));
    return true;
}

static bool read_merges(Tokens *t, json_t *merges) {
    size_t n = json_array_size(merges);
    Str *s = arena_array(t->arena, n + 1, sizeof *s);
    if (n == 0)
        return fail(t, "key 'model.merges': must be a list of merges");
    for (size_t i = 0; i < n; i++)
        if (!read_merge(t, json_array_get(merges, i), &s[i]))
            return fail(t, "key 'model.merges': merge %zu is neither a text \"A B\" nor a list of two texts", i);
    put_strings(t->r, "tokenizer.ggml.merges", s, (int64_t)n, true);
    return true;
}

static int64_t find_token(const Tokens *t, Str s) {
    for (int64_t id = 0; id < t->n; id++)
        if (str_same(t->text[id], s))
            return id;
    return -1;
}

static bool put_named(Tokens *t, const char *key, const char *what, const json_t *text) {
    if (json_is_object(text)) /* an AddedToken written out */
        text = json_object_get(text, "content");
    if (!json_is_string(text) || has_key(t->r, key))
        return true;
    int64_t id = find_token(t, json_str(t->arena, text));
    if (id < 0)
        return fail(t, "'%s' names a token that the vocabulary has not", what);
    put_id(t->r, key, id);
    return true;
}

static bool read_model(Tokens *t, json_t *root) {
    json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type || strcmp(type, "BPE") != 0)
        return fail(t, "key 'model.type': only \"BPE\" can be converted");
    if (!read_vocab(t, json_object_get(model, "vocab")) || !read_added(t, json_object_get(root, "added_tokens")))
        return false;
    fill_gaps(t);
    put_strings(t->r, "tokenizer.ggml.tokens", t->text, t->n, true);
    put_ints(t->r, "tokenizer.ggml.token_type", t->type, t->n, true);
    return read_merges(t, json_object_get(model, "merges")) &&
           put_named(t, "tokenizer.ggml.unknown_token_id", "model.unk_token", json_object_get(model, "unk_token"));
}

/* ==== The files beside it ==== */

/* An object, empty without the file; NULL after an error. */
static json_t *side_file(const Tokens *t, const char *file) {
    return is_there(t->r, file) ? json_read_file(path_of(t->r, file), MAX_SIDE_FILE, t->diag) : json_object();
}

static bool read_named_tokens(Tokens *t, const json_t *config) {
    static const struct {
        const char *name, *key;
    } named[] = {
        {"bos_token", "tokenizer.ggml.bos_token_id"},
        {"unk_token", "tokenizer.ggml.unknown_token_id"},
        {"pad_token", "tokenizer.ggml.padding_token_id"},
        {"mask_token", "tokenizer.ggml.mask_token_id"},
    };
    for (size_t k = 0; k < COUNTOF(named); k++)
        if (!put_named(t, named[k].key, named[k].name, json_object_get(config, named[k].name)))
            return false;
    return true;
}

/* The template, or the one called "default" of a list. */
static const json_t *template_of(const json_t *config) {
    const json_t *v = json_object_get(config, "chat_template");
    size_t i;
    json_t *one;
    json_array_foreach(v, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_object_get(one, "template");
    }
    return v;
}

static bool read_template(Tokens *t, const json_t *config) {
    const char *key = "tokenizer.chat_template", *file = "chat_template.jinja";
    const json_t *v = template_of(config);
    Str text = {NULL, 0};
    if (is_there(t->r, file)) {
        if (!file_text(t->arena, path_of(t->r, file), MAX_SIDE_FILE, t->diag, &text))
            return false;
    } else if (json_is_string(v)) {
        text = json_str(t->arena, v);
    }
    if (text.s)
        put_string(t->r, key, text);
    return true;
}

/* The ids that end a reply, of an integer or a list. */
static bool put_stops(Tokens *t, const char *what, const int64_t *ids, int64_t n) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (int64_t k = 0; k < n; k++) {
        if (ids[k] < 0 || ids[k] >= t->n)
            return fail(t, "%s: 'eos_token_id' %lld is no token", what, (long long)ids[k]);
        if (k < (int64_t)COUNTOF(keys))
            put_id(t->r, keys[k], ids[k]);
    }
    if (n > (int64_t)COUNTOF(keys))
        diag_warning(t->diag, t->at, "%s: of %lld tokens that end a reply only the first %zu have a key in GGUF", what,
                     (long long)n, COUNTOF(keys));
    return true;
}

static bool read_stops(Tokens *t, const json_t *generation) {
    const json_t *v = json_object_get(generation, "eos_token_id");
    size_t n = json_is_array(v) ? json_array_size(v) : json_is_integer(v);
    if (n == 0) {
        const MetaValue *m = recipe_config(t->r, (Str){"eos_token_id", 12}, NULL);
        return !m || m->kind != META_INT || put_stops(t, "config.json", m->i, m->n);
    }
    int64_t *ids = arena_array(t->arena, n, sizeof *ids);
    for (size_t k = 0; k < n; k++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, k) : v;
        ids[k] = json_is_integer(id) ? json_integer_value(id) : -1;
    }
    return put_stops(t, "generation_config.json", ids, (int64_t)n);
}

static bool read_side_files(Tokens *t) {
    json_t *config = side_file(t, "tokenizer_config.json");
    json_t *generation = config ? side_file(t, "generation_config.json") : NULL;
    bool ok =
        config && generation && read_named_tokens(t, config) && read_stops(t, generation) && read_template(t, config);
    json_decref(config);
    json_decref(generation);
    return ok;
}

bool tokenizer_keys(Recipe *r, int64_t vocab) {
    Arena *a = r->base.scope.arena;
    Diag *diag = r->base.scope.diag;
    if (!tokenizer_there(r)) {
        diag_warning(diag, NO_LOC, "no tokenizer.json in %s: the file will have no tokenizer", r->dir);
        return true;
    }
    const char *path = path_of(r, "tokenizer.json");
    Tokens t = {.r = r, .arena = a, .diag = diag, .at = {.file = diag_source(diag, path, NULL, 0)}, .n = vocab};
    if (vocab < 1 || vocab > MAX_TOKENS)
        return fail(&t, "the embedding table has %lld rows; the limit is %d", (long long)vocab, MAX_TOKENS);
    t.text = arena_array(a, (size_t)vocab, sizeof *t.text);
    t.type = arena_array(a, (size_t)vocab, sizeof *t.type);
    json_t *root = json_read_file(path, MAX_TOKENIZER, diag);
    bool ok = root && read_model(&t, root);
    json_decref(root);
    return ok && read_side_files(&t);
}
