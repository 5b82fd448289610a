/* base.h - what every layer stands on: arena, growable arrays, byte strings, internal errors.
 *
 * One Arena lives as long as one compilation and is freed once; passes never free. Running out of
 * memory in the compiler aborts: there is nothing useful a compiler can do then.
 */
#ifndef LAP_IR_BASE_H
#define LAP_IR_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A counted byte string. Not NUL-terminated in general (it may point into a mapped file). */
typedef struct Str {
    const char *s;
    size_t n;
} Str;

#define STR_FMT(x) (int)(x).n, (x).s /* arguments of "%.*s" */

bool str_eq(Str a, const char *b);
bool str_same(Str a, Str b);
bool ends_with(const char *s, const char *tail);

/* The least n with n * b >= a; a not negative, b positive. */
static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* ==== Arena ==== */

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *a); /* NULL is fine */

/* Zeroed memory, aligned to 16 bytes. Never NULL. */
void *arena_alloc(Arena *a, size_t bytes);
void *arena_array(Arena *a, size_t count, size_t size); /* aborts when count * size overflows */
char *arena_strdup(Arena *a, const char *s);
char *arena_strndup(Arena *a, const char *s, size_t n);
__attribute__((format(printf, 2, 3))) char *arena_printf(Arena *a, const char *fmt, ...);
char *arena_vprintf(Arena *a, const char *fmt, va_list ap);

/* ==== Growable arrays in an arena ====
 * typedef VEC(int) IntVec;  IntVec v = {0};  vec_push(arena, &v, 7);  v.v[0], v.n
 * Growing leaves the old block in the arena: at most as much again as the final size.
 */
#define VEC(T)                                                                                                         \
    struct {                                                                                                           \
        T *v;                                                                                                          \
        int n, cap;                                                                                                    \
    }

void *vec_grow_(Arena *a, void *v, int n, int *cap, size_t size);

#define vec_push(arena, vec, item)                                                                                     \
    do {                                                                                                               \
        if ((vec)->n == (vec)->cap)                                                                                    \
            (vec)->v = vec_grow_((arena), (vec)->v, (vec)->n, &(vec)->cap, sizeof *(vec)->v);                          \
        (vec)->v[(vec)->n++] = (item);                                                                                 \
    } while (0)

/* ==== A growing text buffer (malloc) ==== */

typedef struct Buf {
    char *s; /* NUL-terminated once anything was written; NULL before */
    size_t n, cap;
} Buf;

__attribute__((format(printf, 2, 3))) void buf_printf(Buf *b, const char *fmt, ...);
void buf_bytes(Buf *b, const void *p, size_t n);
void buf_str(Buf *b, const char *s);
void buf_char(Buf *b, char c);
void buf_free(Buf *b);

/* Shortest decimal that reads back as the same float. out holds at least 32 bytes. */
void format_f32(char *out, float x);
/* The same for a double. */
void format_f64(char *out, double x);

/* ==== Hash of names: string -> int, in an arena ==== */

typedef struct NameMap NameMap;

NameMap *namemap_new(Arena *a);
/* Adds or replaces. The key is not copied. */
void namemap_put(NameMap *m, const char *key, int value);
/* The value, or -1. */
int namemap_get(const NameMap *m, const char *key);
int namemap_getn(const NameMap *m, const char *key, size_t n);

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);

/* ==== Processors ==== */

/* How many this process may use; at least 1. */
int processors_allowed(void);

/* ==== Texts built into the program (models/embed.cmake) ==== */

typedef struct EmbeddedText {
    const char *name; /* of the file, without its folder */
    const char *text; /* NUL-terminated */
    size_t len;
} EmbeddedText;

/* ==== Broken invariants ==== */

/* An internal error: prints the text with file and line and aborts. Never for bad input. */
#define ICE(...) ice_(__FILE__, __LINE__, __VA_ARGS__)
__attribute__((format(printf, 3, 4), noreturn)) void ice_(const char *file, int line, const char *fmt, ...);

#define COUNTOF(a) (sizeof(a) / sizeof(a)[0])

#endif
