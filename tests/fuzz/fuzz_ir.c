/* fuzz_ir.c - any bytes as IR text: no crash; what reads must print to text that reads and prints alike. */
#include "ir/ir.h"
#include "tests/fuzz/promise.h"

/* The text of what the input means; NULL when it means nothing. */
static char *read_and_print(const char *text, size_t len) {
    Arena *arena = arena_new();
    Diag *d = diag_new();
    Buf out = {0};
    Module *m = ir_parse(arena, d, "fuzz", text, len);
    if (m && !ir_verify(m))
        ICE("a module that was read is not sound");
    if (m)
        ir_print(&out, m);
    else if (diag_errors(d) == 0)
        ICE("refused without a message");
    for (int i = 0; m && i < m->variants.n; i++) {
        scalar_lookback(m->variants.v[i].visible);
        scalar_causal(m->variants.v[i].visible);
        scalar_tile(m->variants.v[i].visible, 100, 131, 64, 95);
    }
    free(diag_text(d));
    diag_free(d);
    arena_free(arena);
    return out.s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ir_looks_like((const char *)data, size);
    return round_trip(data, size, read_and_print);
}
