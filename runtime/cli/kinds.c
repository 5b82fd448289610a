/* kinds.c - a file given where another kind of file is wanted: what it is, and what is done with such a file.
 *
 * Its first bytes decide; a model text, which begins in many ways, is known by its name. What is none of these goes to
 * the reader of what is wanted, whose message says more.
 */
#include "runtime/cli/cli.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { HEAD = 4096 };

/* How the help calls what takes them; the kind; what is said around the path, which stands behind `use` and `more`. */
static const struct Kind {
    const char *arg, *name;
    const char *use, *more, *end; /* end NULL: once is enough */
} kinds[] = {
    [FILE_GGUF] = {"WEIGHTS", "a GGUF file", "lap inspect ", " shows what is in it, lap run ", " runs it"},
    [FILE_SAFETENSORS] = {"WEIGHTS", "a safetensors file", "lap inspect ", " shows what is in it, lap run ",
                          " runs it"},
    [FILE_TEXT] = {"M.lap", "a model text", "lap check ", " reports its mistakes, lap run WEIGHTS --model ",
                   " runs it"},
    [FILE_IR] = {"FILE.ir", "an IR text", "lap print ", " shows it after the passes", NULL},
    [FILE_BUNDLE] = {"F.facet", "a bundle", "lap inspect ", " shows what is in it, lap run WEIGHTS --facet ",
                     " runs it"},
};

static FileKind kind_of(const char *path) {
    char head[HEAD];
    struct stat st;
    FILE *f = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? fopen(path, "rb") : NULL; /* a pipe is read once */
    const size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f)
        fclose(f);
    if (n >= 4 && memcmp(head, "GGUF", 4) == 0)
        return FILE_GGUF;
    if (n >= 4 && memcmp(head, "PK\3\4", 4) == 0)
        return FILE_BUNDLE;
    if (n >= 9 && head[7] == 0 && head[8] == '{')
        return FILE_SAFETENSORS;
    if (ir_looks_like(head, n))
        return FILE_IR;
    return n && ends_with(path, ".lap") ? FILE_TEXT : FILE_OTHER;
}

static bool is_wanted(FileKind k, const char *arg) {
    const bool checkpoint = k == FILE_SAFETENSORS && strstr(arg, "FILE.safetensors");
    return k == FILE_OTHER || strstr(arg, kinds[k].arg) || checkpoint;
}

static bool is_kind(const Cli *c, const char *who, const char *path, const char *arg) {
    const FileKind k = kind_of(path);
    if (is_wanted(k, arg))
        return true;
    const struct Kind *kind = &kinds[k];
    diag_error(c->diag, NO_LOC, "%s is %s; %s takes %s", path, kind->name, who, arg);
    if (c->cmd == CMD_CONVERT && k == FILE_GGUF)
        diag_note(c->diag, NO_LOC,
                  "it is what convert makes: lap run %s runs it as it is; for other storage types "
                  "convert the checkpoint that it was made of",
                  path);
    else
        diag_note(c->diag, NO_LOC, "%s%s%s%s%s", kind->use, path, kind->more, kind->end ? path : "",
                  kind->end ? kind->end : "");
    return false;
}

bool cli_is_operand(const Cli *c, const char *path) {
    const char *who = arena_printf(c->arena, "lap %s", command_info[c->cmd].name);
    return is_kind(c, who, path, c->cmd == CMD_FMT ? kinds[FILE_TEXT].arg : command_info[c->cmd].operands);
}

bool cli_check_kinds(const Cli *c) {
    const Options *o = &c->o;
    const struct {
        const char *path, *option, *arg;
    } rows[] = {
        {o->model, "--model", "M.lap"},
        {o->target_model, "--target-model", "M.lap"},
        {o->draft_model, "--draft-model", "M.lap"},
        {o->weights, "--weights", "WEIGHTS"},
        {o->target, "--target", "WEIGHTS"},
        {o->draft, "--draft", "WEIGHTS"},
        {o->facet, "--facet", "F.facet"},
    };
    bool ok = o->n_operands == 0 || command_info[c->cmd].max < 0 || cli_is_operand(c, o->operand[0]);
    for (size_t i = 0; i < COUNTOF(rows); i++)
        ok &= !rows[i].path || is_kind(c, rows[i].option, rows[i].path, rows[i].arg);
    return ok;
}
