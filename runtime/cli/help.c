/* help.c - help and completions, made from commands.def and options.def. */
#include "ir/diag.h"
#include "runtime/cli/options.h"
#include <string.h>

static const char exit_codes[] =
    "Exit codes: 0 ok; 1 the model text, weights or prompt cannot be used; 2 wrong usage;\n"
    "3 the machine refuses (output cannot be written, no such device); 130 interrupted (by\n"
    "another signal than Ctrl-C: 128 and its number).\n";

/* What main.c does itself. */
static const struct Other {
    const char *name, *operands, *summary, *text;
} others[] = {
    {"help", "[COMMAND]", "help on a command",
     "Without COMMAND it lists all commands. lap COMMAND --help prints the same.\n"},
    {"completions", "bash", "print a completion script: lap completions bash",
     "For this shell: source <(lap completions bash)\n"},
};

Command command_find(const char *name, const char **near) {
    Nearest best = nearest_new((Str){name, strlen(name)});
    for (int i = 0; i < CMD_COUNT; i++) {
        if (strcmp(command_info[i].name, name) == 0)
            return i;
        nearest_try(&best, command_info[i].name);
    }
    for (size_t i = 0; i < COUNTOF(others); i++)
        nearest_try(&best, others[i].name);
    *near = nearest_best(&best);
    return CMD_COUNT;
}

void help_program(FILE *out) {
    fprintf(out, "lap - a compiler and runtime for language models written as text\n\n"
                 "Usage: lap COMMAND [options] ...\n\n");
    for (int i = 0; i < CMD_COUNT; i++)
        fprintf(out, "  %-11s %s\n", command_info[i].name, command_info[i].summary);
    for (size_t i = 0; i < COUNTOF(others); i++)
        fprintf(out, "  %-11s %s\n", others[i].name, others[i].summary);
    fprintf(out, "\nlap help COMMAND (or lap COMMAND --help) shows its options; lap --version.\n%s", exit_codes);
}

bool help_other(FILE *out, const char *name) {
    size_t i = 0;
    while (i < COUNTOF(others) && strcmp(others[i].name, name) != 0)
        i++;
    if (i == COUNTOF(others))
        return false;
    const struct Other *o = &others[i];
    fprintf(out, "lap %s - %s\n\nUsage: lap %s %s\n\n%s", o->name, o->summary, o->name, o->operands, o->text);
    return true;
}

/* Prints text from column `indent` on, broken at spaces before column 100. */
static void print_wrapped(FILE *out, const char *text, int indent) {
    int column = indent;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > indent && column + 1 + n > 100) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", n, text);
        column += n;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_option(FILE *out, const OptionInfo *o) {
    enum { INDENT = 30 };
    Buf left = {0};
    Buf help = {0};
    if (o->letter)
        buf_printf(&left, "  -%c, --%s", o->letter, o->name);
    else
        buf_printf(&left, "      --%s", o->name);
    if (o->arg)
        buf_printf(&left, " %s", o->arg);
    buf_str(&help, o->help);
    if (o->def)
        buf_printf(&help, " (default %s)", o->def);
    if (left.n > INDENT - 2)
        fprintf(out, "%s\n%*s", left.s, INDENT, "");
    else
        fprintf(out, "%-*s", INDENT, left.s);
    print_wrapped(out, help.s, INDENT);
    buf_free(&left);
    buf_free(&help);
}

void help_command(FILE *out, Command cmd) {
    const CommandInfo *c = &command_info[cmd];
    fprintf(out, "lap %s - %s\n\nUsage: lap %s%s%s [options]\n\n%s", c->name, c->summary, c->name,
            *c->operands ? " " : "", c->operands, c->text);
    int n;
    const OptionInfo *rows = option_rows(&n);
    const char *section = NULL;
    for (int i = 0; i < n; i++) {
        if (!rows[i].name) {
            section = rows[i].section;
            continue;
        }
        if (!(rows[i].commands >> cmd & 1))
            continue;
        if (section)
            fprintf(out, "\n%s:\n", section);
        section = NULL;
        print_option(out, &rows[i]);
    }
    fprintf(out, "\n%s", exit_codes);
}

void help_completions(FILE *out) {
    int n;
    const OptionInfo *rows = option_rows(&n);
    fprintf(out, "# bash completion of lap: source <(lap completions bash)\n_lap() {\n"
                 "    local word=${COMP_WORDS[COMP_CWORD]} list=\n"
                 "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        list=\"");
    for (int i = 0; i < CMD_COUNT; i++)
        fprintf(out, "%s ", command_info[i].name);
    fprintf(out, "help completions --help --version\"\n    else\n        case ${COMP_WORDS[1]} in\n");
    for (int i = 0; i < CMD_COUNT; i++) {
        fprintf(out, "        %s) list=\"", command_info[i].name);
        for (int k = 0; k < n; k++)
            if (rows[k].name && (rows[k].commands >> i & 1))
                fprintf(out, "--%s ", rows[k].name);
        fprintf(out, "\" ;;\n");
    }
    fprintf(out, "        esac\n    fi\n"
                 "    case $word in\n    -*) COMPREPLY=($(compgen -W \"$list\" -- \"$word\")) ;;\n"
                 "    *) [ \"$COMP_CWORD\" -eq 1 ] && COMPREPLY=($(compgen -W \"$list\" -- \"$word\")) ;;\n    esac\n"
                 "}\ncomplete -o default -F _lap lap\n");
}
