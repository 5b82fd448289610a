/* tokenize_driver.c - ids of many texts, for comparing with another program.
 *
 *   tokenize_driver WEIGHTS [--special] [--bos] [--zero] [--time] < TEXTS > IDS
 *   tokenize_driver WEIGHTS --pieces [--special] > HEX
 *
 * Reads texts, one a line (--zero: each ended by a NUL byte, so that a text may hold newlines), and writes
 * a JSON array of ids a line. --time says on stderr how long loading and encoding took. --pieces writes the
 * bytes of every token instead, in hexadecimal, one a line.
 */
#include "runtime/text/text.h"
#include "runtime/weights/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void print_ids(const TokenList *ids) {
    putchar('[');
    for (int i = 0; i < ids->n; i++)
        printf("%s%d", i ? ", " : "", ids->v[i]);
    puts("]");
}

static void encode_all(const Tokenizer *t, EncodeOptions o, int end) {
    char *line = NULL;
    size_t cap = 0;
    for (ssize_t n; (n = getdelim(&line, &cap, end, stdin)) >= 0;) {
        if (n && line[n - 1] == end)
            n--;
        Arena *a = arena_new();
        TokenList ids = {0};
        tokenizer_encode(t, a, line, (size_t)n, o, &ids);
        print_ids(&ids);
        arena_free(a);
    }
    free(line);
}

static void print_pieces(const Tokenizer *t, bool show_control) {
    for (int32_t id = 0; id < tokenizer_size(t); id++) {
        Str piece = tokenizer_piece(t, id, show_control);
        for (size_t i = 0; i < piece.n; i++)
            printf("%02x", (unsigned)(unsigned char)piece.s[i]);
        putchar('\n');
    }
}

int main(int argc, char **argv) {
    EncodeOptions o = {0};
    const char *path = NULL;
    int end = '\n';
    bool timed = false, pieces = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--special") == 0)
            o.parse_special = true;
        else if (strcmp(argv[i], "--bos") == 0)
            o.add_bos = true;
        else if (strcmp(argv[i], "--zero") == 0)
            end = 0;
        else if (strcmp(argv[i], "--time") == 0)
            timed = true;
        else if (strcmp(argv[i], "--pieces") == 0)
            pieces = true;
        else
            path = argv[i];
    }
    if (!path) {
        fputs("usage: tokenize_driver WEIGHTS [--special] [--bos] [--zero] [--time] [--pieces] < TEXTS\n", stderr);
        return 2;
    }
    Diag *diag = diag_new();
    Weights *w = weights_open(path, diag);
    double start = seconds();
    Tokenizer *t = w ? tokenizer_new(weights_file(w), diag) : NULL;
    double loaded = seconds();
    if (t && pieces)
        print_pieces(t, o.parse_special);
    else if (t)
        encode_all(t, o, end);
    if (t && timed)
        fprintf(stderr, "load %.1f ms, encode %.1f ms\n", 1e3 * (loaded - start), 1e3 * (seconds() - loaded));
    diag_print(diag, stderr, false);
    int status = t ? 0 : 1;
    tokenizer_free(t);
    weights_close(w);
    diag_free(diag);
    return status;
}
