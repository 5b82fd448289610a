/* main.c - the command `lap`: finds the subcommand, parses its options, runs it, reports. */
#include "runtime/cli/cli.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

typedef int CommandFn(Cli *c);

static CommandFn *const functions[CMD_COUNT] = {
#define COMMAND(e, name, ...) [CMD_##e] = cmd_##name,
#include "runtime/cli/commands.def"
#undef COMMAND
};

/* Output that could not be written must not look like success. */
static int finish(int code) {
    if (cli_flush() || code == EXIT_INTERRUPTED)
        return code == EXIT_INTERRUPTED ? cli_interrupt_code() : code;
    int error = cli_flush_error();
    fprintf(stderr, "lap: error: cannot write standard output%s%s\n", error ? ": " : "", error ? strerror(error) : "");
    return EXIT_SYSTEM;
}

static int unknown(const char *name, const char *near) {
    fprintf(stderr, "lap: error: unknown command \"%s\"", name);
    if (near)
        fprintf(stderr, "; did you mean \"%s\"?", near);
    fprintf(stderr, "\nTry: lap --help\n");
    return EXIT_USAGE;
}

static int run_command(Command cmd, int argc, char **argv) {
    Arena *arena = arena_new();
    Cli c = {.cmd = cmd, .arena = arena, .diag = diag_new()};
    int code = EXIT_USAGE;
    if (options_parse(arena, cmd, argc, argv, &c.o, stderr)) {
        if (c.o.help) {
            help_command(stdout, cmd);
            code = EXIT_FINE;
        } else if (cli_may_write_all(&c)) {
            code = cli_check_kinds(&c) ? functions[cmd](&c) : EXIT_INPUT;
            int reported = cli_report(&c);
            code = code == EXIT_FINE || (code == EXIT_INPUT && reported == EXIT_SYSTEM) ? reported : code;
        }
    }
    diag_free(c.diag);
    arena_free(arena);
    return code;
}

static bool is_help(const char *arg) {
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

static int help(int argc, char **argv) {
    if (argc == 0) {
        help_program(stdout);
        return EXIT_FINE;
    }
    if (help_other(stdout, is_help(argv[0]) ? "help" : argv[0]))
        return EXIT_FINE;
    const char *near = NULL;
    Command cmd = command_find(argv[0], &near);
    if (cmd == CMD_COUNT)
        return unknown(argv[0], near);
    help_command(stdout, cmd);
    return EXIT_FINE;
}

static int completions(int argc, char **argv) {
    if (argc > 0 && is_help(argv[0])) {
        help_other(stdout, "completions");
        return EXIT_FINE;
    }
    if (argc != 1 || strcmp(argv[0], "bash") != 0) {
        fprintf(stderr, "lap completions: error: the shell must be named: lap completions bash\n");
        return EXIT_USAGE;
    }
    help_completions(stdout);
    return EXIT_FINE;
}

/* Files that are opened must not become standard input, output or errors where one of these was closed: text would be
 * written into them. What stands there instead still refuses to be read, or written, as a closed one does. */
static bool open_standard(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return false;
    return true;
}

int main(int argc, char **argv) {
    if (!open_standard())
        return EXIT_SYSTEM;
    if (argc < 2) {
        help_program(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (is_help(name))
        return finish(help(0, NULL));
    if (strcmp(name, "help") == 0)
        return finish(help(argc - 2, argv + 2));
    if (strcmp(name, "completions") == 0)
        return finish(completions(argc - 2, argv + 2));
    if (strcmp(name, "--version") == 0) {
        printf("lap %s\n", LAP_VERSION);
        return finish(EXIT_FINE);
    }
    const char *near = NULL;
    Command cmd = command_find(name, &near);
    return cmd == CMD_COUNT ? unknown(name, near) : finish(run_command(cmd, argc - 2, argv + 2));
}
