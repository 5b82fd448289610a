/* semantic_case.c - compiles one model text of tests/frontend/semantic/ and prints what comes of it:
 * the module as IR text on stdout, messages on stderr; exit status 0 when it compiled, 1 when not.
 *
 * The text says in its own comments what the weights file holds:
 *   #! arch demo                     architecture of the file (default "demo")
 *   #! meta demo.block_count = 2     1.5   true   "text"   [1, 2]   [true, false]
 *   #! tensor blk.0.w q8_0[64, 32]   a type like t99 is one this program does not know
 *   #! set W = 4                     as --set
 *   #! target other.lap              that text is compiled first and is the target
 *   #! check                         only fe_check
 *   #! noweights                     fe_compile without a file
 */
#include "frontend/frontend.h"

#include <stdlib.h>
#include <string.h>

typedef struct Case {
    Arena *arena;
    ModelFile file;
    VEC(MetaEntry) meta;
    VEC(TensorInfo) tensors;
    VEC(FeSetting) settings;
    const char *target;
    bool check, noweights;
} Case;

static void bad(const char *what, const char *line) {
    fprintf(stderr, "semantic_case: %s: %s\n", what, line);
    exit(3);
}

static char *read_file(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f)
        bad("cannot open", path);
    Buf b = {0};
    char chunk[4096];
    size_t n;
    buf_str(&b, "");
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_bytes(&b, chunk, n);
    fclose(f);
    *len = b.n;
    return b.s;
}

static char *trim(char *s) {
    while (*s == ' ')
        s++;
    size_t n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\r'))
        s[--n] = 0;
    return s;
}

/* ==== Values of metadata ==== */

typedef struct Item {
    MetaKind kind;
    int64_t i;
    double f;
    Str s;
} Item;

static Item parse_item(Case *c, char *s) {
    char *end;
    size_t n = strlen(s);
    if (s[0] == '"') {
        char *text = arena_strndup(c->arena, s + 1, n - 2);
        return (Item){.kind = META_STRING, .s = {text, n - 2}};
    }
    if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0)
        return (Item){.kind = META_BOOL, .i = s[0] == 't'};
    if (strpbrk(s, ".e")) {
        Item f = {.kind = META_FLOAT, .f = strtod(s, &end)};
        return *end ? bad("number", s), f : f;
    }
    Item i = {.kind = META_INT, .i = strtoll(s, &end, 10)};
    return *end ? bad("number", s), i : i;
}

static MetaValue parse_value(Case *c, char *s) {
    VEC(Item) items = {0};
    MetaValue m = {.is_array = s[0] == '['};
    if (m.is_array)
        s[strlen(s) - 1] = 0;
    for (char *at = m.is_array ? s + 1 : s; at && *at;) {
        char *comma = m.is_array ? strchr(at, ',') : NULL;
        if (comma)
            *comma = 0;
        Item item = parse_item(c, trim(at));
        vec_push(c->arena, &items, item);
        at = comma ? comma + 1 : NULL;
    }
    int64_t *is = arena_array(c->arena, (size_t)items.n + 1, sizeof *is);
    double *fs = arena_array(c->arena, (size_t)items.n + 1, sizeof *fs);
    Str *ss = arena_array(c->arena, (size_t)items.n + 1, sizeof *ss);
    for (int i = 0; i < items.n; i++) {
        is[i] = items.v[i].i;
        fs[i] = items.v[i].f;
        ss[i] = items.v[i].s;
    }
    m.kind = items.n ? items.v[0].kind : META_INT;
    m.n = items.n;
    if (m.kind == META_FLOAT)
        m.f = fs;
    else if (m.kind == META_STRING)
        m.s = ss;
    else
        m.i = is;
    return m;
}

/* ==== Directives ==== */

/* "blk.0.w q8_0[64, 32]" */
static void add_tensor(Case *c, char *s) {
    char *space = strchr(s, ' '), *open = space ? strchr(space, '[') : NULL;
    if (!open)
        bad("tensor", s);
    *space = 0;
    TensorInfo t = {.name = s};
    Str type = {space + 1, (size_t)(open - space - 1)};
    t.dtype = dtype_from_name(type);
    if (t.dtype == DT_COUNT)
        t.file_type = (uint32_t)strtoul(type.s + 1, NULL, 10);
    for (char *at = open + 1; *at && *at != ']' && t.rank < MAX_DIMS;) {
        t.dims[t.rank++] = strtoll(at, &at, 10);
        while (*at == ',' || *at == ' ')
            at++;
    }
    vec_push(c->arena, &c->tensors, t);
}

static char *split_equals(char *s) {
    char *eq = strstr(s, " = ");
    if (!eq)
        bad("needs ' = '", s);
    *eq = 0;
    return eq + 3;
}

static void directive(Case *c, char *line) {
    char *space = strchr(line, ' '), *rest = space ? trim(space + 1) : NULL;
    if (space)
        *space = 0;
    if (strcmp(line, "check") == 0) {
        c->check = true;
    } else if (strcmp(line, "noweights") == 0) {
        c->noweights = true;
    } else if (!rest) {
        bad("directive", line);
    } else if (strcmp(line, "arch") == 0) {
        c->file.arch = rest;
    } else if (strcmp(line, "target") == 0) {
        c->target = rest;
    } else if (strcmp(line, "tensor") == 0) {
        add_tensor(c, rest);
    } else if (strcmp(line, "meta") == 0) {
        char *value = split_equals(rest);
        MetaEntry e = {rest, parse_value(c, value)};
        vec_push(c->arena, &c->meta, e);
    } else if (strcmp(line, "set") == 0) {
        char *value = split_equals(rest);
        FeSetting s = {rest, value};
        vec_push(c->arena, &c->settings, s);
    } else {
        bad("directive", line);
    }
}

static void read_case(Case *c, const char *text, const char *weights) {
    c->file.path = weights;
    c->file.arch = "demo";
    for (const char *at = text; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, "#! ", 3) == 0)
            directive(c, trim(arena_strndup(c->arena, at + 3, strcspn(at + 3, "\n"))));
        else if (*at != '#')
            break;
    }
    c->file.meta = c->meta.v;
    c->file.n_meta = c->meta.n;
    c->file.tensors = c->tensors.v;
    c->file.n_tensors = c->tensors.n;
    modelfile_index(&c->file, c->arena);
}

static Module *compile(Case *c, Diag *diag, const char *path, const char *weights, const Case *target_case,
                       const Module *target, bool *ok) {
    size_t len;
    char *text = read_file(path, &len);
    read_case(c, text, weights);
    Module *m = NULL;
    if (c->check) {
        *ok = fe_check(c->arena, diag, path, text, len);
    } else {
        FeInput in = {.name = path,
                      .text = text,
                      .len = len,
                      .file = c->noweights ? NULL : &c->file,
                      .target_file = target_case ? &target_case->file : NULL,
                      .target = target,
                      .settings = c->settings.v,
                      .n_settings = c->settings.n};
        m = fe_compile(c->arena, diag, &in);
        *ok = m != NULL;
    }
    free(text);
    return m;
}

/* The directive has to be known before its text is compiled. */
static const char *target_of(Arena *arena, const char *path) {
    size_t len;
    char *text = read_file(path, &len);
    Case c = {.arena = arena};
    read_case(&c, text, "");
    free(text);
    return c.target;
}

int main(int argc, char **argv) {
    if (argc != 2)
        bad("usage", "semantic_case MODEL.lap");
    Arena *arena = arena_new();
    Diag *diag = diag_new();
    Case c = {.arena = arena}, t = {.arena = arena};
    Module *target = NULL;
    const char *target_path = target_of(arena, argv[1]);
    bool ok = true;
    if (target_path)
        target = compile(&t, diag, target_path, "target.gguf", NULL, NULL, &ok);
    Module *m = ok ? compile(&c, diag, argv[1], "weights.gguf", target_path ? &t : NULL, target, &ok) : NULL;
    diag_print(diag, stderr, false);
    if (m) {
        Buf b = {0};
        ir_print(&b, m);
        fwrite(b.s, 1, b.n, stdout);
        buf_free(&b);
    }
    diag_free(diag);
    arena_free(arena);
    return ok ? 0 : 1;
}
