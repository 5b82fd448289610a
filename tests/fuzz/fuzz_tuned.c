/* fuzz_tuned.c - any bytes as the remembered choices of tuning: no crash; what reads prints to text that reads and
 * prints alike without a line left out, and keeps what tuned.h promises. */
#include "codegen/tuned.h"
#include "tests/fuzz/promise.h"

static char *read_and_print(const char *text, size_t len) {
    Tuned t = {.arena = arena_new()};
    Buf out = {0};
    tuned_read(&t, text, len);
    require(t.entries.n <= MAX_TUNED, "there are not more than there may be");
    require((t.dropped > 0) == (t.first_dropped > 0), "lines that are left out have a number");
    for (int i = 0; i < t.entries.n; i++) {
        const TunedEntry *e = &t.entries.v[i];
        require(tuned_find(&t, e->arch, e->gpu, e->kernels, e->shape) == e, "a thing stands there once");
        require(e->cut.groups > 0 && e->cut.stages > 0 && e->cut.flight > 0 && e->cut.partials > 0, "cuts are sane");
    }
    require(t.rates.n <= MAX_TUNED_RATES, "there are not more rates than there may be");
    for (int i = 0; i < t.rates.n; i++) {
        require(tuned_find_rates(&t, &t.rates.v[i]) == &t.rates.v[i], "the rates of a GPU stand there once");
        require(!t.rates.v[i].measured || !rates_problem(&t.rates.v[i].rates), "rates are sane");
    }
    if (t.entries.n || t.rates.n)
        tuned_print(&out, &t);
    arena_free(t.arena);
    return out.s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return round_trip(data, size, read_and_print);
}
