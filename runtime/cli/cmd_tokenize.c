/* cmd_tokenize.c - lap tokenize: text to token ids, ids to text. */
#include "runtime/cli/cli.h"
#include "runtime/weights/weights.h"
#include <stdlib.h>
#include <string.h>

static void print_ids(const Cli *c, const TokenList *ids) {
    if (c->o.json) {
        json_t *a = json_array();
        for (int i = 0; i < ids->n; i++)
            json_array_append_new(a, json_integer(ids->v[i]));
        json_print(a, false);
        return;
    }
    for (int i = 0; i < ids->n; i++)
        printf("%s%d", i ? " " : "", ids->v[i]);
    putchar('\n');
}

/* One token a line; line ends and backslashes of the piece are written as escapes. */
static void print_table(const Tokenizer *t, const TokenList *ids) {
    for (int i = 0; i < ids->n; i++) {
        Str s = tokenizer_piece(t, ids->v[i], true);
        printf("%d\t", ids->v[i]);
        for (size_t k = 0; k < s.n; k++) {
            unsigned char ch = (unsigned char)s.s[k];
            if (ch == '\\' || ch == '\n' || ch == '\t' || ch == '\r')
                printf("\\%c", ch == '\n' ? 'n' : ch == '\t' ? 't' : ch == '\r' ? 'r' : '\\');
            else if (ch < 0x20 || (ch >= 0x80 && s.n == 1))
                printf("\\x%02x", ch);
            else
                putchar(ch);
        }
        putchar('\n');
    }
}

static void tokenize(Cli *c, const Tokenizer *t, const char *text, size_t n, TokenList *ids) {
    EncodeOptions e = {.add_bos = c->o.bos, .parse_special = c->o.special};
    ids->n = 0;
    tokenizer_encode(t, c->arena, text, n, e, ids);
    if (c->o.ids || c->o.json || c->o.lines)
        print_ids(c, ids);
    else
        print_table(t, ids);
}

/* Each line by itself, without its line end. */
static void tokenize_lines(Cli *c, const Tokenizer *t, const char *text, size_t n) {
    TokenList ids = {0};
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t len = end ? (size_t)(end - (text + at)) : n - at;
        tokenize(c, t, text + at, len, &ids);
        at += len + 1;
    }
}

static int decode(Cli *c, const Tokenizer *t) {
    TokenList ids = {0};
    if (!cli_parse_ids(c, "--decode", c->o.decode, strlen(c->o.decode), &ids))
        return EXIT_INPUT;
    Detokenizer d = {.t = t, .show_control = c->o.special};
    Buf out = {0};
    int code = EXIT_FINE;
    for (int i = 0; i < ids.n && code == EXIT_FINE; i++) {
        if (ids.v[i] >= tokenizer_size(t)) {
            diag_error(c->diag, NO_LOC, "token %d is not in the vocabulary of %d", ids.v[i], tokenizer_size(t));
            code = EXIT_INPUT;
            continue;
        }
        detok_push(&d, ids.v[i], &out);
    }
    detok_end(&d, &out);
    if (code == EXIT_FINE && c->o.json)
        json_print(json_bytes(out.s, out.n), false);
    else if (code == EXIT_FINE)
        printf("%.*s\n", (int)out.n, out.n ? out.s : "");
    buf_free(&out);
    return code;
}

static int encode(Cli *c, const Tokenizer *t) {
    const char *operand = c->o.n_operands > 1 ? c->o.operand[1] : NULL;
    Buf in = {0};
    if (operand)
        buf_str(&in, operand);
    else if (!cli_read(c, c->o.text_file ? c->o.text_file : "-", &in)) {
        buf_free(&in);
        return EXIT_INPUT;
    }
    TokenList ids = {0};
    if (c->o.lines)
        tokenize_lines(c, t, in.n ? in.s : "", in.n);
    else
        tokenize(c, t, in.n ? in.s : "", in.n, &ids);
    buf_free(&in);
    return EXIT_FINE;
}

int cmd_tokenize(Cli *c) {
    int inputs = (c->o.n_operands > 1) + (c->o.text_file != NULL) + (c->o.decode != NULL);
    if (inputs > 1)
        return cli_fail(c, EXIT_USAGE, "give one of TEXT, --file and --decode");
    Weights *w = weights_open(c->o.operand[0], c->diag);
    Tokenizer *t = w ? tokenizer_new(weights_file(w), c->diag) : NULL;
    int code = !t ? EXIT_INPUT : c->o.decode ? decode(c, t) : encode(c, t);
    if (t)
        tokenizer_free(t);
    if (w)
        weights_close(w);
    return code;
}
