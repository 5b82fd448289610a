/* chunk.c - --chunk and --memory of the commands that plan for a GPU without one. */
#include "codegen/plan_text.h"
#include "runtime/cli/cli.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int64_t cli_chunk(const Cli *c) {
    const int64_t chunk = c->o.chunk ? c->o.chunk : CHUNK_USUAL;
    return chunk < c->o.context ? chunk : c->o.context;
}

/* "24G", "16.5GiB", "800 MB": powers of 1024, as sizes of memory are. 0: none of that. */
static int64_t parse_size(const char *text) {
    static const char units[] = "KMGT";
    char *end;
    double size = strtod(text, &end);
    if (end == text || !(size > 0 && size < 1e15))
        return 0;
    end += *end == ' ';
    const char *unit = *end ? strchr(units, *end >= 'a' ? *end - ('a' - 'A') : *end) : NULL;
    if (!unit || (end[1] && strcasecmp(end + 1, "B") != 0 && strcasecmp(end + 1, "iB") != 0))
        return 0;
    for (const char *u = units; u <= unit; u++)
        size *= 1024;
    return size < 1e15 ? (int64_t)size : 0;
}

int cli_memory(const Cli *c, ChunkRoom *room) {
    *room = (ChunkRoom){0};
    if (!c->o.memory)
        return EXIT_FINE;
    const int64_t bytes = parse_size(c->o.memory);
    if (!bytes)
        return cli_fail(c, EXIT_USAGE, "--memory wants a size as 24G or 800M, not \"%s\"", c->o.memory);
    if (c->o.chunk)
        return cli_fail(c, EXIT_USAGE, "--memory chooses the chunk, --chunk says it: give one of them");
    *room = chunk_room_of(bytes);
    return EXIT_FINE;
}

void cli_check_memory(const Cli *c, const ChunkRequest *chosen) {
    char needs[32], may[32];
    if (chosen->needs <= chosen->may)
        return;
    plan_bytes_text(needs, chosen->needs);
    plan_bytes_text(may, chosen->may);
    diag_warning(
        c->diag, NO_LOC,
        "--memory %s is too little: the plan needs %s, and %s may be used; the rest is the driver's and others'",
        c->o.memory, needs, may);
}
