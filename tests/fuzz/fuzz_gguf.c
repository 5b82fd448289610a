/* fuzz_gguf.c - any bytes given to the gguf reader. */
#include "tests/fuzz/weights_touch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    touch_weights(gguf_parse, data, size);
    return 0;
}
