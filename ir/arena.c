/* arena.c - memory of one compilation: blocks that grow, freed together. Also names and hashes. */
#include "ir/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Block {
    struct Block *next;
    size_t used, size;
    _Alignas(16) char data[];
} Block;

struct Arena {
    Block *blocks;
};

enum { BLOCK_BYTES = 64 * 1024 };

static void out_of_memory(size_t bytes) {
    fprintf(stderr, "lap: out of memory (asked for %zu bytes)\n", bytes);
    abort();
}

Arena *arena_new(void) {
    Arena *a = calloc(1, sizeof *a);
    if (!a)
        out_of_memory(sizeof *a);
    return a;
}

void arena_free(Arena *a) {
    if (!a)
        return;
    for (Block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(a);
}

static Block *new_block(size_t bytes) {
    if (bytes > SIZE_MAX - sizeof(Block))
        out_of_memory(bytes);
    Block *b = calloc(1, sizeof(Block) + bytes);
    if (!b)
        out_of_memory(bytes);
    b->size = bytes;
    return b;
}

void *arena_alloc(Arena *a, size_t bytes) {
    if (bytes > SIZE_MAX - 15)
        out_of_memory(bytes);
    bytes = (bytes + 15) & ~(size_t)15;
    if (!bytes)
        bytes = 16;
    Block *top = a->blocks;
    if (top && top->size - top->used >= bytes) {
        void *p = top->data + top->used;
        top->used += bytes;
        return p;
    }
    if (bytes >= BLOCK_BYTES) { /* a block of its own, behind the one being filled */
        Block *b = new_block(bytes);
        b->used = bytes;
        if (top) {
            b->next = top->next;
            top->next = b;
        } else {
            a->blocks = b;
        }
        return b->data;
    }
    Block *b = new_block(BLOCK_BYTES);
    b->next = a->blocks;
    a->blocks = b;
    b->used = bytes;
    return b->data;
}

void *arena_array(Arena *a, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        out_of_memory(SIZE_MAX);
    return arena_alloc(a, bytes);
}

char *arena_strndup(Arena *a, const char *s, size_t n) {
    char *p = arena_alloc(a, n + 1);
    if (n)
        memcpy(p, s, n);
    return p;
}

char *arena_strdup(Arena *a, const char *s) {
    return arena_strndup(a, s, strlen(s));
}

char *arena_vprintf(Arena *a, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n < 0)
        ICE("bad format '%s'", fmt);
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

char *arena_printf(Arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *p = arena_vprintf(a, fmt, ap);
    va_end(ap);
    return p;
}

void *vec_grow_(Arena *a, void *v, int n, int *cap, size_t size) {
    if (n > INT32_MAX / 2)
        out_of_memory(SIZE_MAX);
    int bigger = *cap ? *cap * 2 : 8;
    void *p = arena_array(a, (size_t)bigger, size);
    if (n)
        memcpy(p, v, (size_t)n * size);
    *cap = bigger;
    return p;
}

/* ==== Strings ==== */

bool str_same(Str a, Str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.s, b.s, a.n) == 0);
}

bool str_eq(Str a, const char *b) {
    return str_same(a, (Str){b, strlen(b)});
}

bool ends_with(const char *s, const char *tail) {
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

/* ==== Names ==== */

/* FNV-1a, finished with a mix so that low bits are good for a power-of-two table. */
uint64_t hash_bytes(const void *p, size_t n, uint64_t seed) {
    const unsigned char *s = p;
    uint64_t h = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < n; i++)
        h = (h ^ s[i]) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

typedef struct NameSlot {
    const char *key;
    size_t len;
    uint64_t hash;
    int value;
} NameSlot;

struct NameMap {
    Arena *arena;
    NameSlot *slot;
    size_t size, used; /* size is a power of two, at most half full */
};

NameMap *namemap_new(Arena *a) {
    NameMap *m = arena_alloc(a, sizeof *m);
    m->arena = a;
    m->size = 16;
    m->slot = arena_array(a, m->size, sizeof *m->slot);
    return m;
}

static NameSlot *find_slot(NameSlot *slot, size_t size, const char *key, size_t n, uint64_t h) {
    for (size_t i = h & (size - 1);; i = (i + 1) & (size - 1)) {
        NameSlot *s = &slot[i];
        if (!s->key || (s->hash == h && s->len == n && memcmp(s->key, key, n) == 0))
            return s;
    }
}

void namemap_put(NameMap *m, const char *key, int value) {
    if (m->used * 2 >= m->size) {
        size_t size = m->size * 2;
        NameSlot *slot = arena_array(m->arena, size, sizeof *slot);
        for (size_t i = 0; i < m->size; i++)
            if (m->slot[i].key)
                *find_slot(slot, size, m->slot[i].key, m->slot[i].len, m->slot[i].hash) = m->slot[i];
        m->slot = slot;
        m->size = size;
    }
    size_t n = strlen(key);
    uint64_t h = hash_bytes(key, n, 0);
    NameSlot *s = find_slot(m->slot, m->size, key, n, h);
    if (!s->key)
        m->used++;
    *s = (NameSlot){key, n, h, value};
}

int namemap_getn(const NameMap *m, const char *key, size_t n) {
    const NameSlot *s = find_slot(m->slot, m->size, key, n, hash_bytes(key, n, 0));
    return s->key ? s->value : -1;
}

int namemap_get(const NameMap *m, const char *key) {
    return namemap_getn(m, key, strlen(key));
}

/* ==== Broken invariants ==== */

void ice_(const char *file, int line, const char *fmt, ...) {
    fprintf(stderr, "lap: internal error at %s:%d: ", file, line);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}
