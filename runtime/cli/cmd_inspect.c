/* cmd_inspect.c - lap inspect: metadata and tensors of a weights file; bundles are in inspect_facet.c. */
#include "runtime/cli/cli.h"
#include "runtime/facet/facet.h"
#include "runtime/weights/weights.h"
#include <string.h>

/* Elements of a long array and bytes of a long string that are shown. */
enum { SHOW_ELEMS = 6, SHOW_BYTES = 72, JSON_ELEMS = 64 };

static const char *const kind_name[] = {
    [META_INT] = "int", [META_FLOAT] = "float", [META_BOOL] = "bool", [META_STRING] = "string"};

/* ==== As text ==== */

/* A string on one line, cut at `most` bytes (0: whole). */
static void print_string(Str s, size_t most) {
    size_t n = most && s.n > most ? most : s.n;
    putchar('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)s.s[i];
        if (ch == '\n')
            fputs("\\n", stdout);
        else if (ch == '"' || ch == '\\')
            printf("\\%c", ch);
        else if (ch < 0x20 || ch == 0x7F)
            printf("\\x%02x", ch);
        else
            putchar(ch);
    }
    putchar('"');
    if (n < s.n)
        printf(".. (%zu bytes)", s.n);
}

static void print_element(const MetaValue *v, int64_t i, size_t most) {
    char text[32];
    switch (v->kind) {
    case META_INT: printf("%lld", (long long)v->i[i]); break;
    case META_BOOL: fputs(v->i[i] ? "true" : "false", stdout); break;
    case META_FLOAT:
        format_f32(text, (float)v->f[i]);
        if ((double)(float)v->f[i] != v->f[i])
            format_f64(text, v->f[i]);
        fputs(text, stdout);
        break;
    case META_STRING: print_string(v->s[i], most); break;
    }
}

static void print_value(const MetaValue *v, bool whole) {
    if (!v->is_array) {
        print_element(v, 0, whole ? 0 : SHOW_BYTES);
        return;
    }
    int64_t n = whole || v->n <= SHOW_ELEMS * 2 ? v->n : SHOW_ELEMS;
    putchar('[');
    for (int64_t i = 0; i < n; i++) {
        fputs(i ? ", " : "", stdout);
        print_element(v, i, whole ? 0 : SHOW_BYTES);
    }
    printf(n < v->n ? ", .. %lld of %s]" : "]", (long long)v->n, kind_name[v->kind]);
}

static const char *shape_text(Arena *a, const TensorInfo *t) {
    Buf b = {0};
    for (int i = 0; i < t->rank; i++)
        buf_printf(&b, "%s%lld", i ? ", " : "", (long long)t->dims[i]);
    const char *s = arena_printf(a, "[%s]", b.n ? b.s : "");
    buf_free(&b);
    return s;
}

static const char *type_of(Arena *a, const TensorInfo *t) {
    return t->dtype != DT_COUNT ? dtype_name(t->dtype) : arena_printf(a, "type %u", t->file_type);
}

static int64_t elements(const TensorInfo *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dims[i];
    return n;
}

typedef struct TypeTotal {
    const char *type;
    int tensors;
    int64_t elements;
    uint64_t bytes;
} TypeTotal;

typedef VEC(TypeTotal) TypeTotals;

static TypeTotals totals_by_type(Arena *a, const ModelFile *f) {
    TypeTotals all = {0};
    for (int i = 0; i < f->n_tensors; i++) {
        const TensorInfo *t = &f->tensors[i];
        const char *type = type_of(a, t);
        int k = 0;
        while (k < all.n && strcmp(all.v[k].type, type) != 0)
            k++;
        if (k == all.n)
            vec_push(a, &all, ((TypeTotal){.type = type}));
        all.v[k].tensors++;
        all.v[k].elements += elements(t);
        all.v[k].bytes += t->bytes;
    }
    return all;
}

static void print_tensors(const Cli *c, const ModelFile *f) {
    int width = 0;
    for (int i = 0; i < f->n_tensors; i++) {
        int n = (int)strlen(f->tensors[i].name);
        width = n > width && n <= 60 ? n : width;
    }
    for (int i = 0; i < f->n_tensors; i++) {
        const TensorInfo *t = &f->tensors[i];
        printf("%-*s  %-7s %-22s %14llu\n", width, t->name, type_of(c->arena, t), shape_text(c->arena, t),
               (unsigned long long)t->bytes);
    }
}

static void print_text(const Cli *c, const ModelFile *f, uint64_t bytes) {
    bool all = !c->o.meta && !c->o.tensors;
    if (all)
        printf("%s: architecture \"%s\", %d keys, %d tensors, %llu bytes\n\n", f->path, f->arch, f->n_meta,
               f->n_tensors, (unsigned long long)bytes);
    for (int i = 0; i < f->n_meta && (all || c->o.meta); i++) {
        printf("%s = ", f->meta[i].key);
        print_value(&f->meta[i].value, false);
        putchar('\n');
    }
    if (all)
        putchar('\n');
    if (all || c->o.tensors)
        print_tensors(c, f);
    if (!all)
        return;
    TypeTotals t = totals_by_type(c->arena, f);
    printf("\n%-7s %8s %16s %16s\n", "type", "tensors", "elements", "bytes");
    for (int i = 0; i < t.n; i++)
        printf("%-7s %8d %16lld %16llu\n", t.v[i].type, t.v[i].tensors, (long long)t.v[i].elements,
               (unsigned long long)t.v[i].bytes);
}

/* ==== As JSON ==== */

static json_t *json_element(const MetaValue *v, int64_t i) {
    switch (v->kind) {
    case META_INT: return json_integer(v->i[i]);
    case META_BOOL: return json_boolean(v->i[i]);
    case META_FLOAT: return json_real(v->f[i]);
    case META_STRING: return json_bytes(v->s[i].s, v->s[i].n);
    }
    return json_null();
}

static json_t *json_value(const MetaValue *v, bool whole) {
    if (!v->is_array)
        return json_element(v, 0);
    bool cut = !whole && v->n > JSON_ELEMS;
    json_t *a = json_array();
    for (int64_t i = 0; i < (cut ? SHOW_ELEMS : v->n); i++) {
        json_t *e = json_element(v, i);
        json_array_append_new(a, e ? e : json_null()); /* JSON has no NaN */
    }
    return cut ? json_pack("{s:s, s:I, s:o}", "array", kind_name[v->kind], "length", (json_int_t)v->n, "first", a) : a;
}

static json_t *json_tensors(const Cli *c, const ModelFile *f) {
    json_t *all = json_array();
    for (int i = 0; i < f->n_tensors; i++) {
        const TensorInfo *t = &f->tensors[i];
        json_t *shape = json_array();
        for (int k = 0; k < t->rank; k++)
            json_array_append_new(shape, json_integer(t->dims[k]));
        json_t *j = json_object();
        json_object_set_new(j, "name", json_bytes(t->name, strlen(t->name)));
        json_object_set_new(j, "type", json_string(type_of(c->arena, t)));
        json_object_set_new(j, "shape", shape);
        json_object_set_new(j, "bytes", json_integer((json_int_t)t->bytes));
        json_array_append_new(all, j);
    }
    return all;
}

static json_t *json_totals(const Cli *c, const ModelFile *f) {
    json_t *all = json_object();
    TypeTotals t = totals_by_type(c->arena, f);
    for (int i = 0; i < t.n; i++)
        json_object_set_new(all, t.v[i].type,
                            json_pack("{s:i, s:I, s:I}", "tensors", t.v[i].tensors, "elements",
                                      (json_int_t)t.v[i].elements, "bytes", (json_int_t)t.v[i].bytes));
    return all;
}

static void print_as_json(const Cli *c, const ModelFile *f, uint64_t bytes) {
    bool all = !c->o.meta && !c->o.tensors;
    json_t *j = json_object();
    json_object_set_new(j, "file", json_bytes(f->path, strlen(f->path)));
    json_object_set_new(j, "architecture", json_bytes(f->arch, strlen(f->arch)));
    json_object_set_new(j, "bytes", json_integer((json_int_t)bytes));
    if (all || c->o.meta) {
        json_t *meta = json_object();
        for (int i = 0; i < f->n_meta; i++) {
            json_t *v = json_value(&f->meta[i].value, false);
            json_t *key = json_bytes(f->meta[i].key, strlen(f->meta[i].key));
            json_object_set_new(meta, json_string_value(key), v ? v : json_null());
            json_decref(key);
        }
        json_object_set_new(j, "metadata", meta);
    }
    if (all || c->o.tensors)
        json_object_set_new(j, "tensors", json_tensors(c, f));
    if (all)
        json_object_set_new(j, "totals", json_totals(c, f));
    json_print(j, true);
}

/* ==== One key ==== */

static int print_key(Cli *c, const ModelFile *f) {
    const MetaValue *v = modelfile_meta(f, c->o.key);
    if (!v) {
        Nearest near = nearest_new((Str){c->o.key, strlen(c->o.key)});
        for (int i = 0; i < f->n_meta; i++)
            nearest_try(&near, f->meta[i].key);
        diag_error(c->diag, NO_LOC, "%s has no key \"%s\"", f->path, c->o.key);
        if (nearest_best(&near))
            diag_note(c->diag, NO_LOC, "did you mean \"%s\"?", nearest_best(&near));
        return EXIT_INPUT;
    }
    if (c->o.json) {
        json_t *j = json_value(v, true);
        json_print(j ? j : json_null(), false);
    } else if (v->kind == META_STRING && !v->is_array) {
        printf("%.*s\n", STR_FMT(v->s[0]));
    } else {
        print_value(v, true);
        putchar('\n');
    }
    return EXIT_FINE;
}

void inspect_print(const Cli *c, const ModelFile *f, uint64_t bytes) {
    if (c->o.json)
        print_as_json(c, f, bytes);
    else
        print_text(c, f, bytes);
}

int cmd_inspect(Cli *c) {
    if (facet_looks_like(c->o.operand[0]))
        return inspect_facet(c);
    Weights *w = weights_open(c->o.operand[0], c->diag);
    if (!w)
        return EXIT_INPUT;
    const ModelFile *f = weights_file(w);
    int code = EXIT_FINE;
    if (c->o.key)
        code = print_key(c, f);
    else
        inspect_print(c, f, weights_bytes(w));
    weights_close(w);
    return code;
}
