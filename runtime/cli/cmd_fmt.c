/* cmd_fmt.c - lap fmt: model texts in the one layout. */
#include "frontend/frontend.h"
#include "runtime/cli/cli.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool write_all(const char *path, const Buf *b) {
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(b->n ? b->s : "", 1, b->n, f) == b->n;
    return (f ? fclose(f) == 0 : false) && ok;
}

/* Writes beside the file, which a link leads to, and renames, so that a full disk does not cost the text. */
static int rewrite(Cli *c, const char *path, const Buf *b) {
    char *file = realpath(path, NULL);
    char *beside = arena_printf(c->arena, "%s.lap-fmt", file ? file : path);
    struct stat st;
    bool ok = file && write_all(beside, b) && stat(file, &st) == 0 && chmod(beside, st.st_mode) == 0 &&
              rename(beside, file) == 0;
    int error = errno;
    free(file);
    if (ok)
        return EXIT_FINE;
    unlink(beside);
    return cli_fail(c, EXIT_SYSTEM, "cannot write %s: %s", path, strerror(error));
}

static int format_file(Cli *c, const char *path) {
    bool is_stdin = strcmp(path, "-") == 0;
    Buf in = {0};
    Buf out = {0};
    int code = EXIT_INPUT;
    if ((is_stdin || cli_is_operand(c, path)) && cli_read(c, path, &in) &&
        fe_format(&out, c->diag, is_stdin ? "<stdin>" : path, in.n ? in.s : "", in.n)) {
        bool same = in.n == out.n && (in.n == 0 || memcmp(in.s, out.s, in.n) == 0);
        code = EXIT_FINE;
        if (c->o.fmt_check && !same) {
            printf("%s\n", path);
            code = EXIT_INPUT;
        } else if (!c->o.fmt_check && !c->o.in_place) {
            fwrite(out.n ? out.s : "", 1, out.n, stdout);
        } else if (c->o.in_place && !c->o.fmt_check && !same) {
            code = rewrite(c, path, &out);
        }
    }
    buf_free(&in);
    buf_free(&out);
    return code;
}

int cmd_fmt(Cli *c) {
    int worst = EXIT_FINE;
    for (int i = 0; i < c->o.n_operands; i++) {
        if (c->o.in_place && strcmp(c->o.operand[i], "-") == 0)
            return cli_fail(c, EXIT_USAGE, "-i cannot rewrite standard input");
        int code = format_file(c, c->o.operand[i]);
        worst = code > worst ? code : worst;
    }
    return worst;
}
