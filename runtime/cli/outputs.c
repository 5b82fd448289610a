/* outputs.c - no command writes over what it reads.
 *
 * Weights are mapped while they are used: a file that is cut short under them costs the process and the weights. So
 * every path that is written is compared, as a file and not as a name, with every path that is read, before anything is
 * written. Weights are more than the file that is named: the parts of a split GGUF file, a checkpoint's folder.
 */
#include "runtime/cli/cli.h"
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What stands in a checkpoint's folder and is read from there. */
static bool is_of_checkpoint(const char *name) {
    return ends_with(name, ".safetensors") || ends_with(name, ".json") || ends_with(name, ".jinja");
}

/* Whether `name` beside the input called `base` is read with it; base "": the input is the folder. */
static bool is_read_with(const char *base, const char *name) {
    const size_t stem = gguf_split_stem(base);
    if (stem)
        return gguf_split_stem(name) == stem && strncmp(name, base, stem) == 0;
    return (!*base || ends_with(base, ".safetensors")) && is_of_checkpoint(name);
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether the file is the input, or one that is read with it. */
static bool is_input(Arena *a, const char *input, const struct stat *file) {
    struct stat st;
    if (strcmp(input, "-") == 0)
        return fstat(STDIN_FILENO, &st) == 0 && same_file(&st, file);
    if (stat(input, &st) != 0)
        return false;
    if (same_file(&st, file))
        return true;
    const char *slash = strrchr(input, '/');
    const bool is_folder = S_ISDIR(st.st_mode);
    const char *base = is_folder ? "" : slash ? slash + 1 : input;
    const char *folder = is_folder ? input : slash ? arena_strndup(a, input, (size_t)(slash - input + 1)) : ".";
    DIR *d = is_folder || gguf_split_stem(base) || ends_with(base, ".safetensors") ? opendir(folder) : NULL;
    bool found = false;
    for (const struct dirent *e; d && !found && (e = readdir(d));)
        found = is_read_with(base, e->d_name) && fstatat(dirfd(d), e->d_name, &st, 0) == 0 && same_file(&st, file);
    if (d)
        closedir(d);
    return found;
}

bool cli_may_write(const Cli *c, const char *path) {
    TextList read, written;
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) /* a device is not overwritten */
        return true;
    options_files(c->arena, &c->o, &read, &written);
    const bool piped = c->cmd == CMD_RUN && !c->o.prompt && !c->o.prompt_file && !c->o.tokens_file;
    bool found = piped && is_input(c->arena, "-", &st);
    for (int i = 0; i < read.n && !found; i++)
        found = is_input(c->arena, read.v[i], &st);
    if (found)
        cli_fail(c, EXIT_USAGE, "%s is an input: it would be overwritten", path);
    return !found;
}

bool cli_may_write_all(const Cli *c) {
    TextList read, written;
    options_files(c->arena, &c->o, &read, &written);
    for (int i = 0; i < written.n; i++)
        if (!cli_may_write(c, written.v[i]))
            return false;
    return true;
}
