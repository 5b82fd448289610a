/* text_diff.c - the unified diff of two texts, for `--diff`: what a pass changed.
 *
 * Patience diff: lines that occur once in both texts are matched, the longest run of such matches in
 * order is kept, and from each match equal neighbours are taken along. In IR nearly every line is
 * unique, so this finds what a shortest edit script would, in n log n even where a plan touches every
 * line of a large model (Myers is quadratic just there).
 */
#include "passes/passes_int.h"

#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 3 };

typedef struct Line {
    const char *s;
    int n;
    uint64_t hash;
    int at; /* its place in its text */
} Line;

typedef struct Side {
    Line *line;
    int n;
    int *match; /* place of the same line in the other text; -1 none */
} Side;

static Side split_lines(const char *text, Arena *arena) {
    VEC(Line) lines = {0};
    while (*text) {
        const char *end = strchr(text, '\n');
        int n = end ? (int)(end - text) : (int)strlen(text);
        Line l = {text, n, hash_bytes(text, (size_t)n, 0), lines.n};
        vec_push(arena, &lines, l);
        text += end ? n + 1 : n;
    }
    Side s = {lines.v, lines.n, arena_array(arena, (size_t)lines.n + 1, sizeof(int))};
    for (int i = 0; i < s.n; i++)
        s.match[i] = -1;
    return s;
}

static int compare_text(const Line *a, const Line *b) {
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    return memcmp(a->s, b->s, (size_t)a->n);
}

static int by_text(const void *x, const void *y) {
    const Line *a = x, *b = y;
    int c = compare_text(a, b);
    return c ? c : a->at - b->at;
}

static Line *sorted(const Side *s, Arena *arena) {
    Line *v = arena_array(arena, (size_t)s->n + 1, sizeof *v);
    if (s->n) {
        memcpy(v, s->line, (size_t)s->n * sizeof *v);
        qsort(v, (size_t)s->n, sizeof *v, by_text);
    }
    return v;
}

/* How many lines from v[i] on are the same. */
static int run_length(const Line *v, int n, int i) {
    int j = i + 1;
    while (j < n && compare_text(&v[i], &v[j]) == 0)
        j++;
    return j - i;
}

/* Matches lines that occur once in each text. */
static void match_unique(Side *a, Side *b, Arena *arena) {
    Line *x = sorted(a, arena), *y = sorted(b, arena);
    for (int i = 0, j = 0; i < a->n && j < b->n;) {
        int c = compare_text(&x[i], &y[j]);
        int ni = c <= 0 ? run_length(x, a->n, i) : 0, nj = c >= 0 ? run_length(y, b->n, j) : 0;
        if (ni == 1 && nj == 1) {
            a->match[x[i].at] = y[j].at;
            b->match[y[j].at] = x[i].at;
        }
        i += ni;
        j += nj;
    }
}

/* Keeps the longest rising run of matches: patience sorting with back pointers. */
static void keep_in_order(Side *a, Side *b, Arena *arena) {
    int *top = arena_array(arena, (size_t)a->n + 1, sizeof *top); /* line of a on top of each pile */
    int *below = arena_array(arena, (size_t)a->n + 1, sizeof *below);
    bool *keep = arena_array(arena, (size_t)a->n + 1, sizeof *keep);
    int piles = 0;
    for (int i = 0; i < a->n; i++) {
        if (a->match[i] < 0)
            continue;
        int lo = 0, hi = piles;
        while (lo < hi) {
            int mid = (lo + hi) / 2;
            if (a->match[top[mid]] < a->match[i])
                lo = mid + 1;
            else
                hi = mid;
        }
        below[i] = lo ? top[lo - 1] : -1;
        top[lo] = i;
        piles += lo == piles;
    }
    for (int i = piles ? top[piles - 1] : -1; i >= 0; i = below[i])
        keep[i] = true;
    for (int i = 0; i < a->n; i++)
        if (a->match[i] >= 0 && !keep[i]) {
            b->match[a->match[i]] = -1;
            a->match[i] = -1;
        }
}

/* Takes equal neighbours of matches along, forwards (step 1) or backwards (-1). */
static void extend(Side *a, Side *b, int step) {
    int i = step > 0 ? -1 : a->n, j = step > 0 ? -1 : b->n; /* the ends match */
    for (;;) {
        int x = i + step, y = j + step;
        if (x < 0 || x >= a->n)
            return;
        if (a->match[x] >= 0) {
            i = x;
            j = a->match[x];
        } else if (y >= 0 && y < b->n && b->match[y] < 0 && j >= -1 && compare_text(&a->line[x], &b->line[y]) == 0) {
            a->match[x] = y;
            b->match[y] = x;
            i = x;
            j = y;
        } else {
            i = x;
            j = step > 0 ? b->n : -2; /* nothing to go along with until the next match */
        }
    }
}

/* ==== Printing ==== */

typedef struct Edit {
    char sign; /* ' ' '-' '+' */
    const Line *line;
    int a, b; /* lines of each text before this one */
} Edit;

typedef VEC(Edit) EditVec;

static EditVec script(const Side *a, const Side *b, Arena *arena) {
    EditVec out = {0};
    int i = 0, j = 0;
    while (i < a->n || j < b->n) {
        Edit e = {' ', NULL, i, j};
        if (i < a->n && a->match[i] < 0) {
            e.sign = '-';
            e.line = &a->line[i++];
        } else if (j < b->n && b->match[j] < 0) {
            e.sign = '+';
            e.line = &b->line[j++];
        } else {
            e.line = &a->line[i++];
            j++;
        }
        vec_push(arena, &out, e);
    }
    return out;
}

static void print_hunk(Buf *out, const EditVec *e, int from, int to) {
    int na = 0, nb = 0;
    for (int i = from; i < to; i++) {
        na += e->v[i].sign != '+';
        nb += e->v[i].sign != '-';
    }
    buf_printf(out, "@@ -%d,%d +%d,%d @@\n", e->v[from].a + (na > 0), na, e->v[from].b + (nb > 0), nb);
    for (int i = from; i < to; i++)
        buf_printf(out, "%c%.*s\n", e->v[i].sign, e->v[i].line->n, e->v[i].line->s);
}

void text_diff(Buf *out, const char *old_text, const char *new_text) {
    Arena *arena = arena_new();
    Side a = split_lines(old_text, arena), b = split_lines(new_text, arena);
    match_unique(&a, &b, arena);
    keep_in_order(&a, &b, arena);
    extend(&a, &b, 1);
    extend(&a, &b, -1);
    EditVec e = script(&a, &b, arena);
    for (int i = 0; i < e.n;) {
        if (e.v[i].sign == ' ') {
            i++;
            continue;
        }
        int from = i > CONTEXT ? i - CONTEXT : 0, last = i;
        for (int j = i; j < e.n && j <= last + 2 * CONTEXT; j++)
            if (e.v[j].sign != ' ')
                last = j;
        int to = last + 1 + CONTEXT < e.n ? last + 1 + CONTEXT : e.n;
        print_hunk(out, &e, from, to);
        i = to;
    }
    arena_free(arena);
}
