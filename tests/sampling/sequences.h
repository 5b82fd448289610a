/* sequences.h - many sequences of picks, by a kernel and by the sampler of runtime/text, whose ids must be the same. */
#ifndef LAP_TESTS_SAMPLING_SEQUENCES_H
#define LAP_TESTS_SAMPLING_SEQUENCES_H

#include "runtime/engine/gpu_sampling.h"

enum { MAX_SEQUENCES = 4 };

/* Who runs the kernel, for a vocabulary. */
typedef struct Backend {
    const char *label;
    int vocab;
    void *ctx;
    /* Address of memory for the recent tokens of a sequence; valid until the slot's next call. */
    uint64_t (*recent)(void *ctx, int slot, size_t bytes);
    /* Puts a new sequence into a slot. */
    void (*start)(void *ctx, int slot, const GpuSampling *state, const uint32_t *recent, size_t bytes);
    /* Row r of logits [rows][vocab] is of the sequence in slots[r]. What lies behind row rows - 1 of ids and next
     * must not be written. */
    void (*pick)(void *ctx, const float *logits, const int32_t *slots, int rows, int32_t *ids, int32_t *next);
} Backend;

typedef struct Tally {
    long picks, unusable; /* unusable: -1 */
    long near;            /* another id than the sampler's, within 1e-6 of a boundary of probability */
    long wrong;
} Tally;

/* `runs` times some sequences of random logits and options, with prompts. */
void check_sequences(const Backend *b, int runs, uint64_t *seed, Tally *t);
#endif
