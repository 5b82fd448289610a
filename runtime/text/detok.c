/* detok.c - a stream of tokens to a stream of valid UTF-8.
 *
 * A token may end inside a character (byte tokens always may), so up to three bytes wait in `hold` until the
 * character is complete or can no longer become one.
 */
#include "runtime/text/text.h"

/* Well-formed UTF-8 (Unicode, table 3-7): characters by their first byte; the second byte lies in
 * low..high, any further ones in 80..BF. */
static const struct {
    unsigned char first, last; /* range of the first byte */
    unsigned char len;
    unsigned char low, high;
} utf8_rows[] = {
    {0x00, 0x7f, 1, 0, 0},       {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf},
    {0xe1, 0xec, 3, 0x80, 0xbf}, {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf},
    {0xf0, 0xf0, 4, 0x90, 0xbf}, {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f},
};

/* Length of the character that these n bytes (1..4) begin; 0 when there is none. */
static int character_len(const char *bytes, int n) {
    const unsigned char *b = (const unsigned char *)bytes;
    for (size_t i = 0; i < COUNTOF(utf8_rows); i++) {
        if (b[0] < utf8_rows[i].first || b[0] > utf8_rows[i].last)
            continue;
        if (n > 1 && (b[1] < utf8_rows[i].low || b[1] > utf8_rows[i].high))
            return 0;
        for (int k = 2; k < n; k++)
            if (b[k] < 0x80 || b[k] > 0xbf)
                return 0;
        return utf8_rows[i].len;
    }
    return 0;
}

static void give_replacement(Detokenizer *d, Buf *out) {
    buf_str(out, "\xef\xbf\xbd");
    d->n_hold = 0;
}

static void push_byte(Detokenizer *d, char byte, Buf *out) {
    d->hold[d->n_hold++] = byte;
    int len = character_len(d->hold, d->n_hold);
    if (!len && d->n_hold > 1) { /* what was held is broken; the byte may begin something new */
        give_replacement(d, out);
        d->hold[d->n_hold++] = byte;
        len = character_len(d->hold, d->n_hold);
    }
    if (!len) {
        give_replacement(d, out);
    } else if (len == d->n_hold) {
        buf_bytes(out, d->hold, (size_t)len);
        d->n_hold = 0;
    }
}

void detok_push(Detokenizer *d, int32_t id, Buf *out) {
    Str piece = tokenizer_piece(d->t, id, d->show_control);
    for (size_t i = 0; i < piece.n; i++)
        push_byte(d, piece.s[i], out);
}

void detok_end(Detokenizer *d, Buf *out) {
    if (d->n_hold)
        give_replacement(d, out);
}
