/* options.h - the command line: subcommands, the Options struct made from options.def, its parser. */
#ifndef LAP_CLI_OPTIONS_H
#define LAP_CLI_OPTIONS_H

#include "ir/base.h"
#include <stdio.h>

/* ==== Commands ==== */

typedef enum Command {
#define COMMAND(e, ...) CMD_##e,
#include "runtime/cli/commands.def"
#undef COMMAND
    CMD_COUNT
} Command;

typedef struct CommandInfo {
    const char *name;
    const char *operands; /* "WEIGHTS" */
    int min, max;         /* operands; max -1: any number */
    const char *summary;
    const char *text; /* paragraph of the help */
} CommandInfo;

extern const CommandInfo command_info[CMD_COUNT];

/* ==== Options ==== */

typedef struct TextList {
    const char **v;
    int n;
} TextList;

typedef bool opt_FLAG;
typedef int64_t opt_INT;
typedef double opt_FLOAT;
typedef const char *opt_TEXT;
typedef const char *opt_CHOICE;
typedef TextList opt_LIST;
typedef const char *opt_IN;
typedef const char *opt_OUT;
typedef TextList opt_OUTS;

typedef enum OptionId {
#define SECTION(title)
#define OPT(field, ...) OPT_##field,
#include "runtime/cli/options.def"
#undef OPT
#undef SECTION
    OPT_COUNT
} OptionId;

typedef struct Options {
#define SECTION(title)
#define OPT(field, kind, ...) opt_##kind field;
#include "runtime/cli/options.def"
#undef OPT
#undef SECTION
    bool given[OPT_COUNT]; /* on the command line, not by default */
    const char **operand;
    int n_operands;
} Options;

/* Parses the arguments after the subcommand. Strings point into argv or the arena. On a usage error
 * prints it to err with a hint and returns false. */
bool options_parse(Arena *a, Command cmd, int argc, char **argv, Options *out, FILE *err);

/* Paths of the files that the operands and options name: those that are read, those that are written. */
void options_files(Arena *a, const Options *o, TextList *read, TextList *written);

/* ==== Help (help.c) ==== */

void help_program(FILE *out);
void help_command(FILE *out, Command cmd);
/* Help on `help` or `completions`, which are no rows of commands.def; false: it is neither. */
bool help_other(FILE *out, const char *name);
/* A bash completion script. */
void help_completions(FILE *out);
/* CMD_COUNT when unknown; then the nearest name is put in *near, or NULL. */
Command command_find(const char *name, const char **near);

/* The rows of options.def as data, for help. */
typedef struct OptionInfo {
    const char *section; /* a heading instead of an option when name is NULL */
    const char *name;
    char letter;
    const char *arg;   /* NULL: a flag */
    const char *def;   /* NULL: none */
    unsigned commands; /* bits 1u << Command */
    const char *help;
} OptionInfo;

const OptionInfo *option_rows(int *n);

#endif
