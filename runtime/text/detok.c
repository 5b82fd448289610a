/* detok.c - a stream of tokens to a stream of valid UTF-8.
 *
 * A token may end inside a character (byte tokens always may), so up to three bytes wait in `hold` until the
 * character is complete or can no longer become one.
 */
#include "ir/utf8.h"
#include "runtime/text/text.h"

static void give_replacement(Detokenizer *d, Buf *out) {
    buf_str(out, UTF8_REPLACEMENT);
    d->n_hold = 0;
}

static void push_byte(Detokenizer *d, char byte, Buf *out) {
    d->hold[d->n_hold++] = byte;
    int len = utf8_begun(d->hold, (size_t)d->n_hold);
    if (!len && d->n_hold > 1) { /* what was held is broken; the byte may begin something new */
        give_replacement(d, out);
        d->hold[d->n_hold++] = byte;
        len = utf8_begun(d->hold, (size_t)d->n_hold);
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
