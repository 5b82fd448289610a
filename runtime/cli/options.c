/* options.c - parses a command line by the table options.def.
 *
 * Own code rather than getopt_long: the table differs by command, unknown names get a "did you mean",
 * numbers are checked against bounds, and the struct is filled by offset. Supports --name value,
 * --name=value, -x value, -xvalue, clustered flags (-qv), and -- before operands that begin with '-'.
 */
#include "runtime/cli/options.h"
#include "codegen/plan.h"
#include "ir/diag.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define C(e) (1u << CMD_##e)

const CommandInfo command_info[CMD_COUNT] = {
#define COMMAND(e, name, operands, min, max, summary, text) [CMD_##e] = {#name, operands, min, max, summary, text},
#include "runtime/cli/commands.def"
#undef COMMAND
};

typedef enum OptionKind {
    KIND_FLAG,
    KIND_INT,
    KIND_FLOAT,
    KIND_TEXT,
    KIND_LIST,
    KIND_CHOICE,
    KIND_IN,
    KIND_OUT,
    KIND_OUTS,
} OptionKind;

/* What parsing needs of a row; in the order of OptionId. */
typedef struct OptionRule {
    OptionKind kind;
    size_t offset;
    OptionInfo info;
    double least, most;
} OptionRule;

static const OptionRule rules[OPT_COUNT] = {
#define SECTION(title)
#define OPT(field, kind, name, letter, arg, def, least, most, commands, help)                                          \
    [OPT_##field] = {KIND_##kind,                                                                                      \
                     offsetof(Options, field),                                                                         \
                     {NULL, name, letter, arg, def, commands, help},                                                   \
                     (double)(least),                                                                                  \
                     (double)(most)},
#include "runtime/cli/options.def"
#undef OPT
#undef SECTION
};

static const OptionInfo rows[] = {
#define SECTION(title) {title, NULL, 0, NULL, NULL, 0, NULL},
#define OPT(field, kind, name, letter, arg, def, least, most, commands, help)                                          \
    {NULL, name, letter, arg, def, commands, help},
#include "runtime/cli/options.def"
#undef OPT
#undef SECTION
};

const OptionInfo *option_rows(int *n) {
    *n = (int)COUNTOF(rows);
    return rows;
}

typedef struct Parser {
    Arena *arena;
    Command cmd;
    Options *out;
    FILE *err;
} Parser;

__attribute__((format(printf, 2, 3))) static bool usage(const Parser *p, const char *fmt, ...) {
    const char *name = command_info[p->cmd].name;
    va_list ap;
    va_start(ap, fmt);
    fprintf(p->err, "lap %s: error: ", name);
    vfprintf(p->err, fmt, ap);
    fprintf(p->err, "\nTry: lap help %s\n", name);
    va_end(ap);
    return false;
}

/* ==== Values ==== */

static bool bad_number(const Parser *p, const OptionRule *r, const char *what, const char *text) {
    char least[32];
    char most[32];
    format_f64(least, r->least);
    format_f64(most, r->most);
    if (r->most >= (double)INT64_MAX)
        return usage(p, "--%s wants %s of at least %s, not \"%s\"", r->info.name, what, least, text);
    return usage(p, "--%s wants %s from %s to %s, not \"%s\"", r->info.name, what, least, most, text);
}

static bool set_int(const Parser *p, const OptionRule *r, const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || (double)v < r->least || (double)v > r->most)
        return bad_number(p, r, "a whole number", text);
    *out = v;
    return true;
}

static bool set_float(const Parser *p, const OptionRule *r, const char *text, double *out) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v) || v < r->least || v > r->most)
        return bad_number(p, r, "a number", text);
    *out = v;
    return true;
}

static bool set_choice(const Parser *p, const OptionRule *r, const char *text, const char **out) {
    size_t n = strlen(text);
    for (const char *c = r->info.arg; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL) {
        if (n == strcspn(c, "|") && strncmp(c, text, n) == 0) {
            *out = text;
            return true;
        }
    }
    return usage(p, "--%s wants one of %s, not \"%s\"", r->info.name, r->info.arg, text);
}

static void list_push(Arena *a, TextList *l, const char *text) {
    const char **v = arena_array(a, (size_t)l->n + 1, sizeof *v);
    if (l->n)
        memcpy(v, l->v, (size_t)l->n * sizeof *v);
    v[l->n++] = text;
    l->v = v;
}

/* Puts text into the field of rule r; text NULL for a flag. */
static bool set_value(const Parser *p, const OptionRule *r, const char *text) {
    char *field = (char *)p->out + r->offset;
    switch (r->kind) {
    case KIND_FLAG: *(bool *)field = true; return true;
    case KIND_INT: return set_int(p, r, text, (int64_t *)field);
    case KIND_FLOAT: return set_float(p, r, text, (double *)field);
    case KIND_IN:
    case KIND_OUT:
    case KIND_TEXT: *(const char **)field = text; return true;
    case KIND_OUTS:
    case KIND_LIST: list_push(p->arena, (TextList *)field, text); return true;
    case KIND_CHOICE: return set_choice(p, r, text, (const char **)field);
    }
    return false;
}

static void set_defaults(Parser *p) {
    for (int i = 0; i < OPT_COUNT; i++)
        if (rules[i].info.def && !set_value(p, &rules[i], rules[i].info.def))
            ICE("default of --%s", rules[i].info.name);
}

/* ==== Arguments ==== */

static int find_long(Command cmd, const char *name, size_t n) {
    for (int i = 0; i < OPT_COUNT; i++) {
        const OptionInfo *o = &rules[i].info;
        if ((o->commands >> cmd & 1) && strlen(o->name) == n && strncmp(o->name, name, n) == 0)
            return i;
    }
    return -1;
}

static int find_letter(Command cmd, char letter) {
    for (int i = 0; i < OPT_COUNT; i++)
        if ((rules[i].info.commands >> cmd & 1) && rules[i].info.letter == letter)
            return i;
    return -1;
}

/* What other programs, above all llama.cpp, call it; long and short, without dashes. No short one that would read as
 * a letter and a file, as -md. */
static const struct {
    const char *theirs, *ours; /* ours NULL: why there is none */
    const char *why;
} habits[] = {
    {"n-predict", "count", NULL},
    {"predict", "count", NULL},
    {"ctx-size", "context", NULL},
    {"batch-size", "chunk", NULL},
    {"ubatch-size", "chunk", NULL},
    {"b", "chunk", NULL},
    {"ub", "chunk", NULL},
    {"temperature", "temp", NULL},
    {"repeat-last-n", "repeat-last", NULL},
    {"cache-type-k", "kv-k", NULL},
    {"cache-type-v", "kv-v", NULL},
    {"ctk", "kv-k", NULL},
    {"ctv", "kv-v", NULL},
    {"model-draft", "draft", NULL},
    {"gpu-layers", NULL, "on a GPU all layers are there"},
    {"n-gpu-layers", NULL, "on a GPU all layers are there"},
    {"ngl", NULL, "on a GPU all layers are there"},
};

/* Prints that an option of another program is called otherwise here, or not needed; false: it is none of these, or
 * has no meaning for the command. */
static bool say_habit(const Parser *p, const char *dashes, const char *name, size_t n) {
    for (size_t i = 0; i < COUNTOF(habits); i++) {
        const char *ours = habits[i].ours;
        if (strlen(habits[i].theirs) != n || strncmp(habits[i].theirs, name, n) != 0)
            continue;
        if (find_long(p->cmd, ours ? ours : "device", strlen(ours ? ours : "device")) < 0)
            return false;
        if (ours)
            usage(p, "unknown option %s%.*s; here it is --%s", dashes, (int)n, name, ours);
        else
            usage(p, "unknown option %s%.*s; it is not needed: %s", dashes, (int)n, name, habits[i].why);
        return true;
    }
    return false;
}

static bool unknown_long(const Parser *p, const char *name, size_t n) {
    if (say_habit(p, "--", name, n))
        return false;
    Nearest near = nearest_new((Str){name, n});
    for (int i = 0; i < OPT_COUNT; i++)
        if (rules[i].info.commands >> p->cmd & 1)
            nearest_try(&near, rules[i].info.name);
    if (nearest_best(&near))
        return usage(p, "unknown option --%.*s; did you mean --%s?", (int)n, name, nearest_best(&near));
    return usage(p, "unknown option --%.*s", (int)n, name);
}

/* Takes the option at argv[*i], which begins with "--", and its value. */
static bool parse_long(Parser *p, int argc, char **argv, int *i) {
    const char *name = argv[*i] + 2;
    size_t n = strcspn(name, "=");
    const char *value = name[n] ? name + n + 1 : NULL;
    int id = find_long(p->cmd, name, n);
    if (id < 0)
        return unknown_long(p, name, n);
    p->out->given[id] = true;
    if (rules[id].kind == KIND_FLAG) {
        if (value)
            return usage(p, "--%s takes no value", rules[id].info.name);
        return set_value(p, &rules[id], NULL);
    }
    if (!value && *i + 1 < argc)
        value = argv[++*i];
    if (!value)
        return usage(p, "--%s wants a value: %s", rules[id].info.name, rules[id].info.arg);
    return set_value(p, &rules[id], value);
}

/* Takes argv[*i], "-x", "-xVALUE" or a cluster of flags. */
static bool parse_short(Parser *p, int argc, char **argv, int *i) {
    if (say_habit(p, "-", argv[*i] + 1, strcspn(argv[*i] + 1, "="))) /* -ngl is not -n gl */
        return false;
    for (const char *c = argv[*i] + 1; *c; c++) {
        int id = find_letter(p->cmd, *c);
        if (id < 0)
            return usage(p, "unknown option -%c", *c);
        p->out->given[id] = true;
        if (rules[id].kind == KIND_FLAG) {
            set_value(p, &rules[id], NULL);
            continue;
        }
        const char *value = c[1] ? c + 1 : *i + 1 < argc ? argv[++*i] : NULL;
        if (!value)
            return usage(p, "-%c wants a value: %s", *c, rules[id].info.arg);
        return set_value(p, &rules[id], value);
    }
    return true;
}

static bool check_operands(const Parser *p) {
    const CommandInfo *c = &command_info[p->cmd];
    int n = p->out->n_operands;
    if (n < c->min && p->out->model && n == 0)
        return usage(p, "missing %s: it is an argument of its own, --model is the text of the model", c->operands);
    if (n < c->min)
        return usage(p, "missing %s", c->operands);
    if (c->max >= 0 && n > c->max)
        return usage(p, "unexpected argument \"%s\"", p->out->operand[c->max]);
    return true;
}

bool options_parse(Arena *a, Command cmd, int argc, char **argv, Options *out, FILE *err) {
    *out = (Options){0};
    Parser p = {a, cmd, out, err};
    set_defaults(&p);
    out->operand = arena_array(a, (size_t)argc + 1, sizeof *out->operand);
    bool only_operands = false;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        bool ok = true;
        if (only_operands || arg[0] != '-' || !arg[1])
            out->operand[out->n_operands++] = arg;
        else if (strcmp(arg, "--") == 0)
            only_operands = true;
        else if (arg[1] == '-')
            ok = parse_long(&p, argc, argv, &i);
        else
            ok = parse_short(&p, argc, argv, &i);
        if (!ok)
            return false;
    }
    return out->help || check_operands(&p);
}

void options_files(Arena *a, const Options *o, TextList *read, TextList *written) {
    *read = *written = (TextList){0};
    for (int i = 0; i < o->n_operands; i++)
        list_push(a, read, o->operand[i]);
    for (int i = 0; i < OPT_COUNT; i++) {
        const char *field = (const char *)o + rules[i].offset;
        if (rules[i].kind == KIND_OUTS) {
            const TextList *l = (const TextList *)field;
            for (int k = 0; k < l->n; k++)
                if (strchr(l->v[k], '='))
                    list_push(a, written, strchr(l->v[k], '=') + 1);
        } else if (rules[i].kind == KIND_IN || rules[i].kind == KIND_OUT) {
            const char *path = *(const char *const *)field;
            if (path)
                list_push(a, rules[i].kind == KIND_IN ? read : written, path);
        }
    }
}
