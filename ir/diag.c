/* diag.c - collecting and printing located messages. */
#include "ir/diag.h"
#include "ir/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ERRORS = 20 };

typedef struct Source {
    const char *name;
    const char *text; /* NULL: places are printed without their line */
    size_t len;
} Source;

struct Diag {
    Arena *arena;
    VEC(Source) sources; /* file n is sources.v[n - 1] */
    VEC(DiagMessage) messages;
    int errors, system_errors;
};

Diag *diag_new(void) {
    Arena *a = arena_new();
    Diag *d = arena_alloc(a, sizeof *d);
    d->arena = a;
    return d;
}

void diag_free(Diag *d) {
    if (d)
        arena_free(d->arena);
}

int diag_source(Diag *d, const char *name, const char *text, size_t len) {
    for (int i = 0; i < d->sources.n; i++) {
        const Source *s = &d->sources.v[i];
        bool same_text = text ? s->text && s->len == len && memcmp(s->text, text, len) == 0 : true;
        if (strcmp(s->name, name) == 0 && same_text)
            return i + 1;
    }
    Source s = {arena_strdup(d->arena, name), text ? arena_strndup(d->arena, text, len) : NULL, len};
    vec_push(d->arena, &d->sources, s);
    return d->sources.n;
}

const char *diag_source_name(const Diag *d, int file) {
    return file >= 1 && file <= d->sources.n ? d->sources.v[file - 1].name : "";
}

static void report(Diag *d, DiagKind kind, SrcLoc at, const char *fmt, va_list ap) {
    DiagMessage m = {kind, at, arena_vprintf(d->arena, fmt, ap)};
    vec_push(d->arena, &d->messages, m);
    if (kind == DIAG_ERROR)
        d->errors++;
}

#define REPORT(kind)                                                                                                   \
    do {                                                                                                               \
        va_list ap;                                                                                                    \
        va_start(ap, fmt);                                                                                             \
        report(d, kind, at, fmt, ap);                                                                                  \
        va_end(ap);                                                                                                    \
    } while (0)

void diag_error(Diag *d, SrcLoc at, const char *fmt, ...) {
    REPORT(DIAG_ERROR);
}

void diag_system(Diag *d, SrcLoc at, const char *fmt, ...) {
    REPORT(DIAG_ERROR);
    d->system_errors++;
}

void diag_warning(Diag *d, SrcLoc at, const char *fmt, ...) {
    REPORT(DIAG_WARNING);
}

void diag_note(Diag *d, SrcLoc at, const char *fmt, ...) {
    REPORT(DIAG_NOTE);
}

int diag_errors(const Diag *d) {
    return d->errors;
}

int diag_system_errors(const Diag *d) {
    return d->system_errors;
}

int diag_count(const Diag *d) {
    return d->messages.n;
}

const DiagMessage *diag_message(const Diag *d, int i) {
    return &d->messages.v[i];
}

bool diag_full(const Diag *d) {
    return d->errors >= MAX_ERRORS;
}

void diag_clear(Diag *d) {
    d->messages.n = 0;
    d->errors = d->system_errors = 0;
}

/* ==== Printing ==== */

static const struct {
    const char *word, *colour;
} kinds[] = {
    [DIAG_ERROR] = {"error", "\033[1;31m"},
    [DIAG_WARNING] = {"warning", "\033[1;35m"},
    [DIAG_NOTE] = {"note", "\033[1;36m"},
};

const char *diag_word(DiagKind kind) {
    return kinds[kind].word;
}

/* Line `line` of a text, without its end. False when there is no such line. */
static bool find_line(const Source *s, int line, Str *out) {
    const char *p = s->text, *end = s->text + s->len;
    for (int n = 1; n < line; n++) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (!p)
            return false;
        p++;
    }
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    *out = (Str){p, (size_t)((stop ? stop : end) - p)};
    if (out->n && out->s[out->n - 1] == '\r')
        out->n--;
    return true;
}

enum { MAX_LINE = 160, MARGIN = 60 }; /* bytes shown of a source line; of them before the place */

/* The part of a long line around column `col` (from 0); *start is where it begins. Never cuts a character. */
static Str around(Str line, size_t col, size_t *start) {
    *start = 0;
    if (line.n <= MAX_LINE)
        return line;
    size_t from = col > MARGIN ? col - MARGIN : 0;
    while (from && !utf8_starts(line.s[from]))
        from--;
    size_t to = from + MAX_LINE < line.n ? from + MAX_LINE : line.n;
    while (to > from && to < line.n && !utf8_starts(line.s[to]))
        to--;
    *start = from;
    return (Str){line.s + from, to - from};
}

/* The source line and, below it, ^~~~ under the range. Tabs are kept in both so that they line up;
 * control bytes print as spaces; of a long line only the part around the place is shown. */
static void print_snippet(Buf *out, const Source *s, SrcLoc at, const char *on, const char *off) {
    Str line;
    if (!s->text || at.line < 1 || at.col < 1 || !find_line(s, at.line, &line))
        return;
    size_t first = (size_t)at.col - 1, start;
    size_t last = at.end > at.col ? (size_t)at.end - 1 : first + 1;
    if (first > line.n)
        first = line.n;
    Str shown = around(line, first, &start);
    bool cut = start + shown.n < line.n;
    first -= start;
    last = last > start + shown.n ? shown.n : last - start;
    buf_printf(out, "    %s", start ? "..." : "");
    for (size_t i = 0; i < shown.n; i++)
        buf_char(out, (unsigned char)shown.s[i] < 0x20 && shown.s[i] != '\t' ? ' ' : shown.s[i]);
    buf_printf(out, "%s\n    %s", cut ? "..." : "", start ? "   " : "");
    for (size_t i = 0; i < first; i++)
        if (utf8_starts(shown.s[i]))
            buf_char(out, shown.s[i] == '\t' ? '\t' : ' ');
    buf_printf(out, "%s^", on);
    for (size_t i = first + 1; i < last; i++)
        if (utf8_starts(shown.s[i]))
            buf_char(out, '~');
    buf_printf(out, "%s\n", off);
}

/* What may come from a file; a control byte in it must not reach a terminal. */
static void put_shown(Buf *out, const char *s) {
    for (; *s; s++)
        buf_char(out, ((unsigned char)*s < 0x20 && *s != '\n' && *s != '\t') || *s == 0x7f ? '?' : *s);
}

static void print_message(Buf *out, const Diag *d, const DiagMessage *m, bool colour) {
    const char *bold = colour ? "\033[1m" : "", *off = colour ? "\033[0m" : "";
    const char *on = colour ? kinds[m->kind].colour : "";
    if (m->at.file) {
        buf_str(out, bold);
        put_shown(out, diag_source_name(d, m->at.file));
        buf_char(out, ':');
        if (m->at.line)
            buf_printf(out, "%d:", m->at.line);
        if (m->at.line && m->at.col)
            buf_printf(out, "%d:", m->at.col);
        buf_printf(out, "%s ", off);
    }
    buf_printf(out, "%s%s:%s ", on, kinds[m->kind].word, off);
    put_shown(out, m->text);
    buf_char(out, '\n');
    if (m->at.file)
        print_snippet(out, &d->sources.v[m->at.file - 1], m->at, on, off);
}

static void print_all(Buf *out, const Diag *d, bool colour) {
    for (int i = 0; i < d->messages.n; i++)
        print_message(out, d, &d->messages.v[i], colour);
}

char *diag_text(const Diag *d) {
    Buf b = {0};
    buf_str(&b, "");
    print_all(&b, d, false);
    return b.s;
}

void diag_print(const Diag *d, FILE *out, bool colour) {
    Buf b = {0};
    buf_str(&b, "");
    print_all(&b, d, colour);
    fwrite(b.s, 1, b.n, out);
    buf_free(&b);
}

/* ==== Did you mean ==== */

enum { MAX_NEAR = 64 }; /* longer names are never compared */

Nearest nearest_new(Str name) {
    return (Nearest){name, NULL, 1 << 20};
}

/* Damerau-Levenshtein (adjacent swaps count one), both lengths at most MAX_NEAR. */
static int edit_distance(const char *a, size_t na, const char *b, size_t nb) {
    int row[3][MAX_NEAR + 1];
    int *before = row[0], *last = row[1], *now = row[2];
    for (size_t j = 0; j <= nb; j++)
        last[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        int *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[nb];
}

void nearest_try(Nearest *n, const char *candidate) {
    size_t len = strlen(candidate);
    if (len > MAX_NEAR || n->name.n > MAX_NEAR)
        return;
    int d = edit_distance(n->name.s, n->name.n, candidate, len);
    if (d < n->distance) {
        n->distance = d;
        n->best = candidate;
    }
}

const char *nearest_best(const Nearest *n) {
    int allowed = n->name.n < 4 ? 1 : n->name.n < 12 ? 2 : 3;
    return n->best && n->distance <= allowed ? n->best : NULL;
}
